//! Each rule of the verifier speaks for itself: a ledger that breaks it, forged by somebody who holds the keys, is told in the
//! rule's own words. Most forgeries break several at once, so a verdict alone would not show that one rule has gone.

use gatebook_ledger::segment::{Footer, SegmentHeader};
use gatebook_ledger::signature::Role;
use gatebook_ledger::verify::{Options, Verdict};
use gatebook_ledger::{Keys as _, Kind};

use crate::common::attacks::{Attacked, Scene, scene};
use crate::common::forge::{Forge, Piece};
use crate::common::{EVENT, judge, pinned};

/// What breaks the rule, and what the verifier says.
type Rule = (&'static str, fn(&Scene) -> Attacked);

/// Rewrites the present epoch after this was done to its frames.
fn last(scene: &Scene, change: impl FnOnce(&mut Vec<Vec<Piece>>)) -> Attacked {
    let mut forge = scene.forge();
    change(&mut forge.last().frames);
    scene.rewritten(&forge)
}

/// An entry whose numbers and links are as they are given.
fn as_is(mut piece: Piece, before: &Piece, change: impl FnOnce(&mut Piece)) -> Piece {
    (piece.header.seq, piece.header.epoch) = (before.header.seq, before.header.epoch);
    piece.header.payload_commit = before.header.payload_commit;
    (piece.salt, piece.payload) = (before.salt, before.payload.clone());
    piece.as_is = true;
    change(&mut piece);
    piece
}

const RULES: &[Rule] = &[
    ("entry has another number or epoch than its place", |scene| {
        second_of_frame(scene, |piece| piece.header.seq += 1)
    }),
    ("entry has another number or epoch than its place", |scene| {
        second_of_frame(scene, |piece| piece.header.epoch += 1)
    }),
    ("body is not canonical JSON", |scene| {
        last(scene, |frames| frames.insert(0, vec![Piece::new(EVENT, 200, 0, r#"{"a" :1}"#)]))
    }),
    ("ledger.opened is not the first entry, or of another ledger", |scene| {
        last(scene, |frames| frames.insert(0, vec![Piece::new(Kind::LEDGER_OPENED, 200, 0, "{}")]))
    }),
    ("the first entry is not ledger.opened", |scene| {
        let mut forge = scene.forge();
        forge.parts[0].frames[0][0].header.kind = EVENT;
        scene.rewritten_from(&forge, 0)
    }),
    ("epoch 0 does not begin with the first entry", |scene| {
        let mut forge = scene.forge();
        forge.parts[0].header.epoch.since_ns = 0;
        scene.rewritten_from(&forge, 0)
    }),
    ("session is opened, but not by its first entry", |scene| {
        last(scene, |frames| {
            let before = frames[0][0].clone();
            let opened = Piece::new(Kind::SESSION_OPENED, 200, 3, "{}");
            frames[0][0] = as_is(opened, &before, |piece| piece.header.session_seq = 1);
        })
    }),
    ("entry without a session links to one", |scene| {
        last(scene, |frames| {
            let before = frames[0][0].clone();
            frames[0][0] =
                as_is(Piece::new(EVENT, 200, 0, "{}"), &before, |piece| piece.header.session_seq = 1);
        })
    }),
    ("a session's entry names no session", |scene| {
        last(scene, |frames| frames.insert(0, vec![Piece::new(Kind::SESSION_CLOSED, 200, 0, "{}")]))
    }),
    ("keys.changed is of a session", |scene| {
        last(scene, |frames| frames.insert(0, vec![Piece::new(Kind::KEYS_CHANGED, 200, 2, "{}")]))
    }),
    ("redaction is of a session", |scene| {
        let body = r#"{"first":0,"last":1,"reason":"none"}"#;
        last(scene, |frames| frames.insert(0, vec![Piece::new(Kind::REDACTION, 200, 2, body)]))
    }),
    ("epoch.seal is not alone in its frame, or older than its epoch's entries", |scene| {
        sealed(scene, 1, |frames, seal| frames.push(vec![Piece::new(EVENT, 400, 0, "{}"), seal]))
    }),
    ("epoch.seal is not alone in its frame, or older than its epoch's entries", |scene| {
        sealed(scene, 1, |frames, seal| {
            frames.push(vec![Piece::new(EVENT, 500, 0, "{}")]);
            frames.push(vec![seal]);
        })
    }),
    ("frame stands behind the seal of its epoch", |scene| {
        sealed(scene, 0, |frames, seal| {
            frames.push(vec![seal]);
            frames.push(vec![Piece::new(EVENT, 401, 0, "{}")]);
        })
    }),
    ("segment header names a key that the epoch before did not certify", |scene| {
        let mut forge = scene.forge();
        let first = forge.parts[0].header.epoch.key;
        forge.last().header.epoch.key = first;
        scene.rewritten(&forge)
    }),
    ("payload is not the one that its entry commits to", |scene| {
        // It is named by a redaction, and its segment is not sealed.
        let seq = scene.forge().last().header.first_seq;
        let body = format!(r#"{{"first":{seq},"last":{seq},"reason":"none"}}"#);
        let redacted =
            last(scene, |frames| frames.insert(1, vec![Piece::new(Kind::REDACTION, 200, 0, &body)]));
        let mut forge = Forge::new(&redacted.storage, &scene.keys);
        forge.last().frames.iter_mut().flatten().for_each(|piece| piece.as_is = true);
        let piece = &mut forge.last().frames[0][0];
        (piece.salt, piece.payload) = ([0; 16], vec![0; piece.payload.len()]);
        scene.rewritten(&forge)
    }),
    (FOOTER, |scene| footer(scene, |footer| footer.number += 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.frames += 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.next_seq += 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.chain.0[0] ^= 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.root.0[0] ^= 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.sessions.next += 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.epoch += 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.latest_ns += 1)),
    (FOOTER, |scene| footer(scene, |footer| footer.ends_epoch = true)),
    (FOOTER, |scene| footer(scene, |footer| footer.authority.orders += 1)),
    (HEADER, |scene| header(scene, |header| header.number += 1)),
    (HEADER, |scene| header(scene, |header| header.genesis.0[0] ^= 1)),
    (HEADER, |scene| header(scene, |header| header.first_seq += 1)),
    (HEADER, |scene| header(scene, |header| header.chain_in.0[0] ^= 1)),
];

const HEADER: &str = "segment header contradicts what is before it";
const FOOTER: &str = "segment footer contradicts its segment";

/// Rewrites the present epoch with this done to its header.
fn header(scene: &Scene, change: fn(&mut SegmentHeader)) -> Attacked {
    let mut forge = scene.forge();
    forge.last().change_header = change;
    scene.rewritten(&forge)
}

/// Seals the present segment with this done to its footer.
fn footer(scene: &Scene, change: fn(&mut Footer)) -> Attacked {
    let mut forge = scene.forge();
    (forge.last().sealed, forge.last().change_footer) = (true, change);
    scene.rewritten(&forge)
}

/// Rewrites the second entry of the present epoch, in a frame with the first.
fn second_of_frame(scene: &Scene, change: impl FnOnce(&mut Piece)) -> Attacked {
    last(scene, |frames| {
        let before = frames.remove(1).remove(0);
        let second = as_is(before.clone(), &before, change);
        frames[0].push(second);
    })
}

/// Puts a seal of the present epoch where it is told to, behind so many entries more.
fn sealed(scene: &Scene, more: u64, put: impl FnOnce(&mut Vec<Vec<Piece>>, Piece)) -> Attacked {
    const SINCE_NS: u64 = 400;
    let mut forge = scene.forge();
    let epoch = forge.last().header.epoch;
    let mut thief = scene.keys.clone();
    let next = thief.draw(Role::Epoch(7)).unwrap();
    let entries: usize = forge.last().frames.iter().map(Vec::len).sum();
    let first_seq = epoch.first_seq + entries as u64 + more + 1;
    let next = epoch.certify_next(&forge.manifest.origin, &thief, next, first_seq, SINCE_NS).unwrap();
    thief.erase(Role::Epoch(7)).unwrap();
    put(&mut forge.last().frames, Piece::new(Kind::EPOCH_SEAL, SINCE_NS, 0, &next.seal()));
    scene.rewritten(&forge)
}

#[test]
fn a_broken_rule_is_told_in_its_own_words() {
    let scene = scene();
    let options = Options { checkpoints: Vec::new(), ..pinned(&scene.storage) };
    let mut silent = Vec::new();
    for (words, breaks) in RULES {
        let report = judge(&breaks(&scene).storage, &options);
        let told = report.problems.iter().any(|problem| problem.what.contains(words));
        if !told || report.verdict != Verdict::Tampered {
            silent.push((words, report.verdict, report.problems));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
