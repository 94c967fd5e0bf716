//! Ledgers that somebody made up and put another's public log key into: none of them may pass for that other's.

use std::sync::Arc;

use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::manifest::Manifest;
use gatebook_ledger::orders::{Authority, Cause, Change, Order};
use gatebook_ledger::signature::{KeyError, PublicKey, Role, Signature};
use gatebook_ledger::verify::{Options, Verdict};
use gatebook_ledger::{Keys, Memory, MemoryKeys, Origin, Writer};

use crate::common::attacks;
use crate::common::{CountedSalts, EVENT, judge, keys, limits, order_log_key, stage};

/// The forger's own keys, and a public key that he says is his.
#[derive(Clone)]
struct Pretender {
    own: MemoryKeys,
    named: PublicKey,
}

impl Keys for Pretender {
    fn public(&self, role: Role) -> Result<PublicKey, KeyError> {
        if role == Role::Log(0) { Ok(self.named) } else { self.own.public(role) }
    }

    fn sign(&self, role: Role, message: &[u8]) -> Result<Signature, KeyError> {
        self.own.sign(role, message)
    }

    fn draw(&mut self, role: Role) -> Result<PublicKey, KeyError> {
        self.own.draw(role)
    }

    fn erase(&mut self, role: Role) -> Result<(), KeyError> {
        self.own.erase(role)
    }

    fn held(&self) -> Vec<Role> {
        self.own.held()
    }

    fn order(&self, number: u32) -> Result<Option<Vec<u8>>, KeyError> {
        self.own.order(number)
    }
}

fn origin() -> Origin {
    Origin::new("test.example/ledger").unwrap()
}

fn forger() -> MemoryKeys {
    MemoryKeys::new(Some(&[11; 32]), &[12; 32], &[13; 32])
}

/// A made-up ledger whose `ledger.toml` names the log key of [`keys`]; nothing is published yet.
fn made_up() -> (Memory, Pretender) {
    let storage = Memory::new();
    let pretender = Pretender { own: forger(), named: keys().public(Role::Log(0)).unwrap() };
    let (place, salts) = (Arc::new(storage.clone()), Box::new(CountedSalts(0)));
    let mut writer =
        Writer::create(place, &origin(), Box::new(pretender.clone()), salts, limits(), 1).unwrap();
    stage(&mut writer, EVENT, 0, b"what never happened");
    writer.write().unwrap();
    writer.sync().unwrap();
    drop(writer);
    (storage, pretender)
}

#[test]
fn a_key_that_is_only_named_in_the_manifest_is_not_taken_for_its_owners() {
    let (storage, pretender) = made_up();
    let options = Options { key: Some(Vkey::log(&origin(), pretender.named)), ..Options::default() };
    let report = judge(&storage, &options);
    assert_eq!((report.verdict, report.key_pinned), (Verdict::Unanchored, false), "{:?}", report.problems);
    assert!(report.notes[0].contains("whose ledger"), "{:?}", report.notes);
}

#[test]
fn a_made_up_order_does_not_lead_from_a_pinned_key_to_the_forgers() {
    let (storage, mut pretender) = made_up();
    let forged = order_log_key(&mut pretender.own, 1, Cause::Revoked, 0);
    let salts = Box::new(CountedSalts(1 << 64));
    let (writer, _) =
        Writer::open(Arc::new(storage.clone()), Box::new(pretender.clone()), salts, limits(), 2).unwrap();
    writer.close(3).unwrap();
    let options = Options {
        key: Some(Vkey::log(&origin(), pretender.named)),
        checkpoints: vec![("brought".to_owned(), storage.bytes("checkpoint").unwrap())],
        threads: 2,
        ..Options::default()
    };
    let report = judge(&storage, &options);
    assert_eq!((report.verdict, report.key_pinned), (Verdict::Unanchored, false), "{:?}", report.problems);
    let forged = Vkey::log(&origin(), forged).to_string();
    assert!(report.notes.iter().all(|note| !note.contains(&forged)), "{:?}", report.notes);
    // Under the forger's own key it is a ledger like any other.
    let own = judge(&storage, &Options { key: Some(forged.parse().unwrap()), ..options });
    assert_eq!(own.verdict, Verdict::Verified, "{:?}", own.problems);
}

#[test]
fn an_order_names_no_log_key_that_did_not_sign_it_for_this_ledger() {
    let victim = keys();
    let epoch = |keys: &MemoryKeys| keys.public(Role::Epoch(0)).unwrap();
    let (theirs, mut own) = (*victim.clone(), forger());
    let log_key = theirs.clone().draw(Role::Log(1)).unwrap();
    let change = Change { number: 1, cause: Cause::Rotated, overlap_s: 0, log_key };
    let certify = |keys: &MemoryKeys| {
        Manifest::certify(&origin(), keys.public(Role::Log(0)).unwrap(), epoch(keys), keys).unwrap()
    };
    let manifest = certify(&theirs);
    let order = Order::sign(&origin(), change, &theirs, Role::Root(0), None).unwrap();
    let genuine = order.taken(&Authority::first(&manifest), &manifest, &theirs).unwrap();
    assert!(Authority::first(&manifest).after(&genuine, 5, &manifest).is_ok());
    // The forger's root key orders the same.
    own.draw(Role::Log(1)).unwrap();
    let manifest = certify(&own);
    let order = Order::sign(&origin(), change, &own, Role::Root(0), None).unwrap();
    let before = Authority::first(&manifest);
    assert!(before.admits(&order, &origin()).is_ok() && before.after(&order, 5, &manifest).is_err());
    assert!(order.clone().taken(&before, &manifest, &own).is_err(), "he does not hold that key");
    // With what the victim's key signed for the victim's ledger.
    let (head, tail) =
        order.body().split_once("\"root_key\"").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let genuine = genuine.body();
    let at = genuine.find("\"possession\"").unwrap();
    let possession = &genuine[at..genuine.find("\"root_key\"").unwrap()];
    let spliced = Order::parse(format!("{head}{possession}\"root_key\"{tail}").as_bytes()).unwrap();
    let why = before.after(&spliced, 5, &manifest).unwrap_err();
    assert!(why.0.contains("log key that it brings"), "{}", why.0);
}

/// Such an order passed once, and the forger's own key was then told as the one to pin next.
#[test]
fn a_whole_ledger_with_an_order_that_its_log_key_did_not_sign_is_tampered_with() {
    for borrowed in [false, true] {
        let (storage, named, note) = attacks::made_up(borrowed);
        let checkpoints = vec![("brought".to_owned(), note)];
        let options = Options { key: Some(Vkey::log(&origin(), named)), checkpoints, ..Options::default() };
        let report = judge(&storage, &options);
        assert_eq!(report.verdict, Verdict::Tampered, "{:?}", report.problems);
        assert!(report.problems[0].what.contains("the log key that it brings"), "{:?}", report.problems);
        assert!(report.notes.iter().all(|note| !note.contains("was replaced")), "{:?}", report.notes);
    }
}
