//! Who was revoked: the ledger is the only store of that.
//!
//! Each segment says early who was revoked before it (`revoked`), so a start reads back from the ledger's end to the newest such list
//! and no further. It follows the chain back from its end, which the key of the open epoch signed, and asks neither the index nor
//! anything else that is derived: whoever can write to the files, and does not hold the keys, cannot leave a revocation out unseen.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io;

use gatebook_ledger::event::{self, Decoded, LoggedOut, RevocationPayload, RevokedBody, RevokedPayload};
use gatebook_ledger::{Kind, Storage, Writer, reader};

use crate::identity::Logout;
use crate::session::{StayOut, Target};

/// A list that is longer is not written: then the next start reads further back.
const LIST_BYTES_MAX: usize = 16 << 20;

/// Who stays out, and in which segment that was listed last.
#[derive(Debug, Clone, Default)]
pub(super) struct Revocations {
    stay_out: StayOut,
    listed: Option<u64>,
}

impl Revocations {
    /// Reads them from the ledger of a writer that was just opened.
    ///
    /// # Errors
    /// Of the storage; also where what is needed is damaged, or is not what the ledger goes on from: nobody comes back in because
    /// a byte was flipped.
    pub(super) fn read(storage: &dyn Storage, writer: &Writer) -> io::Result<Revocations> {
        let mut known = Revocations::default();
        let mut behind = writer.chain();
        for number in (0..=writer.segment()).rev() {
            let (mut listed, mut unread) = (false, None);
            behind = reader::visit_behind(
                storage,
                number,
                behind,
                &[event::REVOCATION, event::REVOKED],
                |entry, payload| {
                    let kind = entry.header.kind;
                    match event::decode(kind, entry.body, payload) {
                        Ok(Decoded::Revoked(body, Some(list))) if body.count == list.count() => {
                            // It has all before it, read or not.
                            (listed, unread) = (true, None);
                            known.add_list(list);
                        }
                        Ok(Decoded::Revocation(Some(revoked))) => known.add(revoked),
                        // A list that is gone says nothing, and what is before it does.
                        _ if kind == event::REVOKED => {}
                        _ => unread = Some(entry.header.seq),
                    }
                },
            )
            .map_err(|error| unknown(&error.to_string()))?;
            if let Some(seq) = unread {
                return Err(unknown(&format!("entry {seq}, a revocation, cannot be read")));
            }
            if listed {
                return Ok(known);
            }
        }
        if behind == writer.manifest().genesis() {
            Ok(known)
        } else {
            Err(unknown("its first segment is not the one that it began with"))
        }
    }

    pub(super) fn stay_out(&self) -> &StayOut {
        &self.stay_out
    }

    fn add(&mut self, revoked: RevocationPayload<'_>) {
        let targets = [
            revoked.principal.map(|id| Target::Principal(id.into_owned())),
            revoked.group.map(|name| Target::Group(name.into_owned())),
            revoked.token.map(|id| Target::Token(id.into_owned())),
            revoked.logout.map(|logout| {
                Target::Logout(Logout {
                    login: logout.login.map(Cow::into_owned),
                    principal: logout.principal.map(Cow::into_owned),
                    issued_s: logout.issued_s,
                })
            }),
        ];
        targets.iter().flatten().for_each(|target| self.stay_out.add(target));
    }

    fn add_list(&mut self, list: RevokedPayload) {
        let principals = list.principals.into_iter().map(Target::Principal);
        let groups = list.groups.into_iter().map(Target::Group);
        let tokens = list.tokens.into_iter().map(Target::Token);
        let logout = |login, principal, issued_s| Target::Logout(Logout { login, principal, issued_s });
        let logins = list.logouts.logins.into_iter().map(|(id, at)| logout(Some(id), None, at));
        let logged_out = list.logouts.principals.into_iter().map(|(id, at)| logout(None, Some(id), at));
        let all = principals.chain(groups).chain(tokens).chain(logins).chain(logged_out);
        all.for_each(|target| self.stay_out.add(&target));
        for (principal, issued_s) in list.logouts.nameless {
            self.stay_out.log_out_nameless(&principal, issued_s);
        }
    }

    /// Takes note of a record on its way into the ledger.
    pub(super) fn note(&mut self, kind: Kind, body: &[u8], payload: &[u8]) {
        if kind == event::REVOCATION
            && let Ok(Decoded::Revocation(Some(revoked))) = event::decode(kind, body, Some(payload))
        {
            self.add(revoked);
        }
    }

    /// The list, where it is still to be written into this segment: body and payload, and the body's length.
    pub(super) fn list_for(&mut self, segment: u64) -> Option<(Vec<u8>, usize)> {
        if self.listed.replace(segment) == Some(segment) {
            return None;
        }
        let sorted = |names: &HashSet<String>| names.iter().cloned().collect();
        let [principals, groups, tokens] = self.stay_out.all().map(sorted);
        let [logins, nameless, logged_out] = self.stay_out.logouts().map(|logouts| {
            logouts.iter().map(|(id, at)| (id.clone(), *at)).collect::<BTreeMap<String, u64>>()
        });
        let logouts = LoggedOut { logins, nameless, principals: logged_out };
        let list = RevokedPayload { groups, logouts, principals, tokens };
        let body = RevokedBody { count: list.count() };
        let mut bytes = Vec::new();
        let body_bytes = event::encode(&body, Some(&list), &mut bytes);
        (bytes.len() <= LIST_BYTES_MAX).then_some((bytes, body_bytes))
    }
}

fn unknown(why: &str) -> io::Error {
    io::Error::other(format!(
        "{why}, so who was revoked is not known; look with gatebook-ledger verify, and bring the segment back from a backup"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    use gatebook_ledger::event::{RevocationBody, RevocationPayload};
    use gatebook_ledger::{Draft, Limits, Memory, Origin, Salts, keys};

    use super::*;
    use crate::config::LedgerConfig;
    use crate::record::{Found, Recorder, Revoked, StartError};

    const DEADLINE: Duration = Duration::from_secs(30);

    /// The same each time, so that two ledgers differ by what is recorded alone.
    struct CountedSalts(u128);

    impl Salts for CountedSalts {
        fn next(&mut self) -> io::Result<[u8; 16]> {
            self.0 += 1;
            Ok(self.0.to_be_bytes())
        }
    }

    fn write(storage: &Memory, config: &LedgerConfig, revoked: &[&str]) {
        let keys = Box::new(keys::load_or_create(&config.keys).expect("keys"));
        let origin = Origin::new(&config.origin).expect("an origin");
        let limits = Limits { epoch_ns: u64::MAX, segment_bytes: 16384, ..Limits::default() };
        let mut writer =
            Writer::create(Arc::new(storage.clone()), &origin, keys, Box::new(CountedSalts(0)), limits, 1)
                .expect("a ledger");
        for principal in revoked {
            let body = RevocationBody { target: "principal".into() };
            let payload = RevocationPayload {
                by: "test".into(),
                group: None,
                logout: None,
                principal: Some((*principal).into()),
                reason: "test".into(),
                resource: None,
                session: None,
                token: None,
            };
            let mut bytes = Vec::new();
            let length = event::encode(&body, Some(&payload), &mut bytes);
            let (body, payload) = bytes.split_at(length);
            let draft = Draft { kind: event::REVOCATION, time_ns: 2, session: 0, body, payload };
            writer.stage(&draft).expect("it fits");
            writer.write().expect("it is written");
            writer.sync().expect("it is durable");
            writer
                .publish(3)
                .expect("it is signed")
                .map(|note| note.store(storage))
                .transpose()
                .expect("kept");
        }
        writer.close(4).expect("it closes");
    }

    fn start(storage: &Memory, config: &LedgerConfig) -> Result<(Recorder, Found), StartError> {
        Recorder::over(config, Arc::new(storage.clone()))
    }

    fn refusal(storage: &Memory, config: &LedgerConfig) -> String {
        start(storage, config).err().expect("the recorder does not start").to_string()
    }

    /// Flips a bit of these bytes in the first segment.
    fn flip(storage: &Memory, within: &str) {
        let name = "segments/00000000.seg";
        let mut bytes = storage.bytes(name).expect("a segment");
        let at = bytes.windows(within.len()).position(|window| window == within.as_bytes()).expect(within);
        bytes[at] ^= 1;
        storage.set_bytes(name, &bytes);
    }

    #[test]
    fn a_revocation_that_cannot_be_read_keeps_the_gateway_from_starting() {
        let folder = tempfile::tempdir().expect("a folder");
        // The epoch goes on through all of it, so that each copy opens with the same keys.
        let epoch = Duration::from_secs(1 << 34);
        let config = LedgerConfig { epoch, ..LedgerConfig::for_test(folder.path()) };
        let storage = Memory::new();
        write(&storage, &config, &["corp:one", "corp:two", "corp:three", "corp:four"]);
        let whole = storage.fork();
        flip(&storage, "corp:one");
        assert!(refusal(&storage, &config).contains("a revocation, cannot be read"));
        let (recorder, found) = start(&whole, &config).expect("it starts");
        assert_eq!(found.revoked().all().map(HashSet::len), [4, 0, 0]);
        recorder.stop(DEADLINE);
        // From now on a list stands behind it, which was read: the ledger does not verify, and who stays out is known.
        flip(&whole, "corp:one");
        let (recorder, found) = start(&whole, &config).expect("it starts");
        assert!(found.revoked().has_principal("corp:one") && found.revoked().all()[0].len() == 4);
        recorder.stop(DEADLINE);
    }

    /// The segments that recovery does not read are what the newer ones lead to, or nobody is let in: one that was signed with
    /// the right keys, and holds another past, does not pass either.
    #[test]
    fn a_segment_with_another_past_hides_no_revocation() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = LedgerConfig::for_test(folder.path());
        let (storage, other) = (Memory::new(), Memory::new());
        write(&storage, &config, &["corp:one", "corp:two", "corp:three", "corp:four"]);
        write(&other, &config, &["corp:axe", "corp:two", "corp:three", "corp:four"]);
        assert_eq!(storage.bytes("ledger.toml"), other.bytes("ledger.toml"), "one ledger, two pasts");
        let name = "segments/00000000.seg";
        storage.set_bytes(name, &other.bytes(name).expect("a segment"));
        let why = refusal(&storage, &config);
        assert!(why.contains("not the one that the ledger goes on from"), "{why}");
    }

    #[test]
    fn who_was_revoked_is_listed_in_each_segment_and_the_rest_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = LedgerConfig { epoch: Duration::from_nanos(1), ..LedgerConfig::for_test(folder.path()) };
        let storage = Memory::new();
        let (recorder, _) = start(&storage, &config).expect("it starts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for target in [
            Target::Principal("corp:one".into()),
            Target::Group("corp:staff".into()),
            Target::Token("t-1".into()),
            Target::Principal("corp:two".into()),
            Target::Logout(Logout {
                login: Some("corp:s-1".into()),
                principal: Some("corp:three".into()),
                issued_s: 7,
            }),
            Target::Logout(Logout { login: None, principal: Some("corp:four".into()), issued_s: 8 }),
        ] {
            let revoked = Revoked { target: &target, reason: "test", by: "test" };
            runtime.block_on(recorder.record_revocation(&revoked, DEADLINE)).expect("it is durable");
        }
        recorder.stop(DEADLINE);
        let newest = reader::segments(&storage).expect("segments").pop().expect("one");
        assert!(newest >= 4, "an epoch ends behind each commit: {newest}");
        for number in 0..newest - 2 {
            storage.set_bytes(&gatebook_ledger::segment::name(number), b"as if it were away");
        }
        let (recorder, found) = start(&storage, &config).expect("it starts");
        assert_eq!(found.revoked().all().map(HashSet::len), [2, 1, 1]);
        let kept = |id: &str, at: u64| HashMap::from([(id.to_owned(), at)]);
        let logouts = [kept("corp:s-1", 7), kept("corp:three", 7), kept("corp:four", 8)];
        assert_eq!(found.revoked().logouts(), logouts.each_ref());
        recorder.stop(DEADLINE);
    }
}
