//! What somebody can do who holds the gateway's keys of today.
//!
//! The thief has the log key and the present epoch's key, and everything that lies in the directory; not the root
//! key, and not the keys of sealed epochs, which are gone. Each attack is one row: what it does to a good ledger, and
//! two verdicts. Under a pinned key *with* a checkpoint that was kept elsewhere, no attack may pass. Without one,
//! those on what is sealed show all the same; the present epoch is the thief's to rewrite, and then the verifier
//! says that nothing anchors it, and exits 4.

use gatebook_ledger::checkpoint::{Checkpoint, Note};
use gatebook_ledger::orders::{Authority, Cause, Change, Numbered, Order};
use gatebook_ledger::signature::{PublicKey, Role};
use gatebook_ledger::{Keys as _, Kind, Memory, MemoryKeys, Origin, Storage as _, Writer};

use super::forge::{Forge, Piece};
use super::{CountedSalts, EVENT, create_with, keys, limits, publish, stage};

/// A good ledger, what its auditor kept, and what the thief has.
pub(crate) struct Scene {
    pub(crate) storage: Memory,
    /// The ledger as it was in the middle of its second epoch.
    older: Memory,
    pub(crate) keys: MemoryKeys,
    pub(crate) kept: Vec<u8>,
}

/// What the attack leaves, and the checkpoint that the auditor brings, where it is another than the one kept.
pub(crate) struct Attacked {
    pub(crate) storage: Memory,
    pub(crate) kept: Option<Vec<u8>>,
}

/// Three epochs, the second of them empty but for its seal and one session's end; a session open over all of them.
pub(crate) fn scene() -> Scene {
    let (storage, mut keys) = (Memory::new(), *keys());
    let mut writer = create_with(&storage, &keys);
    stage(&mut writer, Kind::SESSION_OPENED, 1, b"dana");
    for _ in 0..4 {
        stage(&mut writer, EVENT, 1, b"select 1");
    }
    stage(&mut writer, Kind::SESSION_OPENED, 2, b"erin");
    publish(&storage, &mut writer);
    writer.rotate(100).unwrap();
    let older = storage.fork();
    writer.rotate(200).unwrap();
    for _ in 0..3 {
        stage(&mut writer, EVENT, 1, b"update accounts");
    }
    stage(&mut writer, Kind::SESSION_CLOSED, 1, b"");
    stage(&mut writer, EVENT, 2, b"delete from accounts");
    stage(&mut writer, EVENT, 2, b"drop table accounts");
    publish(&storage, &mut writer);
    let kept = storage.bytes("checkpoint").unwrap();
    stage(&mut writer, EVENT, 2, b"newest");
    writer.close(300).unwrap();
    keys.erase(Role::Root(0)).unwrap();
    Scene { storage, older, keys, kept }
}

impl Scene {
    pub(crate) fn forge(&self) -> Forge {
        let mut forge = Forge::new(&self.storage, &self.keys);
        forge.one_a_frame();
        forge
    }

    /// Puts the present epoch together again.
    pub(crate) fn rewritten(&self, forge: &Forge) -> Attacked {
        self.rewritten_from(forge, forge.parts.len() - 1)
    }

    pub(crate) fn rewritten_from(&self, forge: &Forge, from: usize) -> Attacked {
        let storage = self.storage.fork();
        forge.write(&storage, from);
        Attacked { storage, kept: None }
    }

    /// Rewrites the present epoch after this was done to it.
    fn last(&self, change: impl FnOnce(&mut Vec<Vec<Piece>>)) -> Attacked {
        let mut forge = self.forge();
        change(&mut forge.last().frames);
        self.rewritten(&forge)
    }

    /// Rewrites one entry of the present epoch, its numbers and links as they are told.
    fn misplaced(&self, at: usize, change: impl FnOnce(&mut Piece)) -> Attacked {
        self.last(|frames| {
            let piece = &mut frames[at][0];
            piece.as_is = true;
            change(piece);
        })
    }

    /// Changes files, and signs nothing.
    fn files(&self, change: impl FnOnce(&Memory)) -> Attacked {
        let storage = self.storage.fork();
        change(&storage);
        Attacked { storage, kept: None }
    }
}

fn segment(number: u64) -> String {
    gatebook_ledger::segment::name(number)
}

/// Turns a bit of the first byte in which these bytes stand.
fn flip(storage: &Memory, name: &str, within: &[u8]) {
    let mut bytes = storage.bytes(name).unwrap();
    let at = bytes.windows(within.len()).position(|window| window == within).unwrap();
    bytes[at] ^= 1;
    storage.set_bytes(name, &bytes);
}

fn note_of(storage: &Memory) -> Checkpoint {
    Note::parse(&storage.bytes("checkpoint").unwrap()).unwrap().unverified().clone()
}

/// A ledger of the same keys under another name.
fn other_ledger() -> Memory {
    let storage = Memory::new();
    let origin = Origin::new("other.example/ledger").unwrap();
    let place = std::sync::Arc::new(storage.clone());
    let salts = Box::new(CountedSalts(9));
    let mut writer = Writer::create(place, &origin, keys(), salts, limits(), 1).unwrap();
    stage(&mut writer, EVENT, 0, b"harmless");
    writer.rotate(100).unwrap();
    writer.close(101).unwrap();
    storage
}

pub(crate) type Attack = (&'static str, u8, u8, fn(&Scene) -> Attacked);

/// The entries of the present epoch, by place: the first three of session 1.
pub(crate) const ATTACKS: &[Attack] = &[
    // On what is sealed: the keys that signed it are gone.
    ("edit_a_payload_of_a_sealed_epoch", 1, 1, |scene| {
        scene.files(|storage| flip(storage, &segment(0), b"select 1"))
    }),
    ("edit_an_entry_of_a_sealed_epoch_and_sign_all_with_todays_key", 1, 1, |scene| {
        let mut forge = scene.forge();
        forge.parts[0].frames[0][0].payload = b"select 2".to_vec();
        scene.rewritten_from(&forge, 0)
    }),
    ("delete_an_entry_of_a_sealed_epoch_and_sign_all_with_todays_key", 1, 1, |scene| {
        let mut forge = scene.forge();
        forge.parts[0].frames.remove(1);
        scene.rewritten_from(&forge, 0)
    }),
    ("leave_out_a_seal", 1, 1, |scene| {
        let mut forge = scene.forge();
        forge.parts[0].frames.pop();
        scene.rewritten_from(&forge, 0)
    }),
    ("leave_out_an_empty_epoch", 1, 1, |scene| {
        let mut forge = scene.forge();
        let empty = forge.parts.len() - 2;
        forge.parts.remove(empty);
        let attacked = scene.rewritten_from(&forge, empty);
        attacked.storage.remove(&segment(forge.parts.len() as u64)).unwrap();
        attacked
    }),
    ("name_another_key_in_a_seal", 1, 1, |scene| {
        let mut forge = scene.forge();
        let epoch = forge.parts[0].header.epoch;
        let mut other = forge.parts.last().unwrap().header.epoch;
        (other.number, other.first_seq) = (1, forge.parts[1].header.epoch.first_seq);
        let seal = forge.parts[0].frames.last_mut().unwrap();
        assert_eq!((epoch.number, seal[0].header.kind), (0, Kind::EPOCH_SEAL));
        seal[0].body = other.seal().into_bytes();
        scene.rewritten_from(&forge, 0)
    }),
    ("reuse_a_sealed_epoch", 1, 1, |scene| {
        let mut forge = scene.forge();
        forge.last().sealed = true;
        let mut again = forge.parts.last().unwrap().clone();
        again.header.epoch = forge.parts[0].header.epoch;
        again.frames =
            vec![vec![Piece::new(EVENT, 250, 0, "{}")], vec![Piece::new(Kind::CHAIN_HEAD, 251, 0, "")]];
        again.sealed = false;
        forge.parts.push(again);
        let from = forge.parts.len() - 2;
        scene.rewritten_from(&forge, from)
    }),
    ("sign_behind_a_seal", 1, 1, |scene| {
        let (storage, keys) = (scene.storage.fork(), scene.keys.clone());
        let mut forge = Forge::new(&storage, &keys);
        let epoch = forge.parts.last().unwrap().header.epoch;
        let mut thief = keys.clone();
        let next = thief.draw(Role::Epoch(7)).unwrap();
        let first_seq = note_of(&storage).size + 1;
        let next = epoch.certify_next(&forge.manifest.origin, &keys, next, first_seq, 400).unwrap();
        forge.epoch_key = Role::Epoch(epoch.number);
        forge.last().frames.push(vec![Piece::new(Kind::EPOCH_SEAL, 400, 0, &next.seal())]);
        forge.last().frames.push(vec![Piece::new(EVENT, 401, 0, "{}")]);
        forge.last().frames.push(vec![Piece::new(Kind::CHAIN_HEAD, 402, 0, "")]);
        thief.erase(Role::Epoch(7)).unwrap();
        scene.rewritten(&forge)
    }),
    ("go_on_in_an_epoch_that_nobody_certified", 1, 1, |scene| {
        let mut forge = scene.forge();
        let epoch = &mut forge.last().header.epoch;
        epoch.number += 1;
        scene.rewritten(&forge)
    }),
    ("swap_two_sealed_segments", 1, 1, |scene| {
        scene.files(|storage| {
            let (first, second) = (storage.bytes(&segment(0)).unwrap(), storage.bytes(&segment(1)).unwrap());
            storage.set_bytes(&segment(0), &second);
            storage.set_bytes(&segment(1), &first);
        })
    }),
    ("delete_a_sealed_segment", 2, 2, |scene| scene.files(|storage| storage.remove(&segment(1)).unwrap())),
    ("take_a_segment_of_another_ledger", 1, 1, |scene| {
        scene.files(|storage| {
            let other = other_ledger();
            storage.set_bytes(&segment(0), &other.bytes(&segment(0)).unwrap());
        })
    }),
    ("take_the_manifest_of_another_ledger", 1, 1, |scene| {
        scene.files(|storage| {
            let other = other_ledger();
            storage.set_bytes("ledger.toml", &other.bytes("ledger.toml").unwrap());
        })
    }),
    ("wipe_a_payload_and_say_nothing", 1, 1, |scene| {
        let mut forge = scene.forge();
        for piece in forge.last().frames.iter_mut().flatten() {
            piece.as_is = true;
        }
        let piece = &mut forge.last().frames[0][0];
        (piece.salt, piece.payload) = ([0; 16], vec![0; piece.payload.len()]);
        scene.rewritten(&forge)
    }),
    // On the present epoch, all of it signed anew: only what was kept elsewhere tells.
    ("edit_an_entry_and_sign_all_anew", 1, 4, |scene| {
        scene.last(|frames| frames[4][0].payload = b"select from accounts".to_vec())
    }),
    ("delete_an_entry_and_sign_all_anew", 1, 4, |scene| scene.last(|frames| drop(frames.remove(5)))),
    ("reorder_two_entries_and_sign_all_anew", 1, 4, |scene| scene.last(|frames| frames.swap(4, 5))),
    ("insert_an_entry_and_sign_all_anew", 1, 4, |scene| {
        scene.last(|frames| frames.insert(1, vec![Piece::new(EVENT, 200, 2, "{}")]))
    }),
    ("blame_another_session_and_sign_all_anew", 1, 4, |scene| {
        scene.last(|frames| frames[1][0].header.session = 2)
    }),
    ("empty_the_epoch_and_sign_all_anew", 2, 4, |scene| {
        scene.last(|frames| {
            let head = frames.pop().unwrap();
            *frames = vec![head];
        })
    }),
    ("cut_the_end_off_and_publish_less", 2, 4, |scene| {
        scene.last(|frames| {
            let head = frames.pop().unwrap();
            frames.truncate(4);
            frames.push(head);
        })
    }),
    ("put_back_an_older_copy", 2, 4, |scene| Attacked { storage: scene.older.fork(), kept: None }),
    // On the present epoch, against the rules that need no anchor.
    ("turn_time_back_before_the_epoch", 1, 1, |scene| scene.last(|frames| frames[0][0].header.time_ns = 50)),
    ("duplicate_a_sequence_number", 1, 1, |scene| scene.misplaced(1, |piece| piece.header.seq -= 1)),
    ("skip_a_sequence_number", 1, 1, |scene| scene.misplaced(1, |piece| piece.header.seq += 1)),
    ("delete_an_entry_and_leave_its_sessions_chain", 1, 1, |scene| {
        scene.last(|frames| {
            let mut after = frames[2][0].clone();
            frames.remove(1);
            after.header.seq -= 1;
            after.as_is = true;
            frames[1] = vec![after];
        })
    }),
    ("hide_a_session_in_the_count", 1, 1, |scene| {
        scene.last(|frames| frames.insert(0, vec![Piece::new(Kind::SESSION_OPENED, 200, 4, "{}")]))
    }),
    ("open_a_session_without_a_number", 1, 1, |scene| {
        scene.last(|frames| frames.insert(0, vec![Piece::new(Kind::SESSION_OPENED, 200, 0, "{}")]))
    }),
    ("add_to_a_session_that_is_closed", 1, 1, |scene| {
        scene.last(|frames| frames.insert(4, vec![Piece::new(EVENT, 200, 1, "{}")]))
    }),
    ("name_another_chain_in_a_chain_head", 1, 1, |scene| {
        scene.last(|frames| {
            let last = frames.last_mut().unwrap();
            last[0].header.kind = EVENT;
            let mut head = last[0].clone();
            head.header.kind = Kind::CHAIN_HEAD;
            head.header.seq += 1;
            head.as_is = true;
            frames.push(vec![head]);
        })
    }),
    ("bring_an_order_that_the_root_key_did_not_sign", 1, 1, |scene| {
        let thief = MemoryKeys::new(Some(&[9; 32]), &[8; 32], &[7; 32]);
        let log_key = thief.public(Role::Log(0)).unwrap();
        let change = Change { number: 1, cause: Cause::Rotated, overlap_s: 0, log_key };
        let origin = Origin::new("test.example/ledger").unwrap();
        let order = Order::sign(&origin, change, &thief, Role::Root(0), None).unwrap();
        scene.last(|frames| frames.insert(0, vec![Piece::new(Kind::KEYS_CHANGED, 200, 0, &order.body())]))
    }),
    ("sign_frames_with_the_log_key", 1, 1, |scene| {
        let mut forge = scene.forge();
        forge.frame_role = Some(Role::Log(0));
        scene.rewritten(&forge)
    }),
    ("hide_open_sessions_in_a_footer", 1, 1, |scene| {
        let mut forge = scene.forge();
        forge.last().sealed = true;
        forge.last().change_footer = |footer| footer.sessions.open.clear();
        scene.rewritten(&forge)
    }),
    ("write_an_entry_of_another_version", 1, 1, |scene| {
        scene.files(|storage| {
            let last = gatebook_ledger::reader::segments(storage).unwrap().pop().unwrap();
            let mut bytes = storage.bytes(&segment(last)).unwrap();
            bytes[4096 + 76 + 2] = 2;
            storage.set_bytes(&segment(last), &bytes);
        })
    }),
    // On checkpoints.
    ("publish_a_checkpoint_with_the_log_key_alone", 1, 1, |scene| {
        scene.files(|storage| {
            let note = note_of(storage).sign(&scene.keys, &[Role::Log(0)]).unwrap();
            storage.set_bytes("checkpoint", note.as_bytes());
        })
    }),
    ("publish_a_checkpoint_of_another_root", 1, 1, |scene| {
        scene.files(|storage| {
            let mut checkpoint = note_of(storage);
            checkpoint.root.0[0] ^= 1;
            let epoch = scene.keys.held().into_iter().rfind(|role| matches!(role, Role::Epoch(_))).unwrap();
            let note = checkpoint.sign(&scene.keys, &[Role::Log(0), epoch]).unwrap();
            storage.set_bytes("checkpoint", note.as_bytes());
        })
    }),
    ("publish_an_old_checkpoint", 2, 2, |scene| {
        scene.files(|storage| {
            storage.set_bytes("checkpoint", &scene.older.bytes("checkpoint").unwrap());
            for name in storage.names().iter().filter(|name| name.starts_with("tile/")) {
                storage.remove(name).unwrap();
            }
        })
    }),
    ("bring_a_checkpoint_of_another_origin", 1, 4, |scene| {
        let other = other_ledger();
        Attacked { storage: scene.storage.fork(), kept: other.bytes("checkpoint") }
    }),
    // Without its epoch's signature a checkpoint is worth nothing, and says nothing against the ledger.
    ("bring_a_checkpoint_under_a_key_of_an_epoch_that_is_not_its_own", 4, 4, |scene| {
        let epoch = scene.keys.held().into_iter().rfind(|role| matches!(role, Role::Epoch(_))).unwrap();
        let old = note_of(&scene.older).sign(&scene.keys, &[Role::Log(0), epoch]).unwrap();
        Attacked { storage: scene.storage.fork(), kept: Some(old.into_bytes()) }
    }),
];

/// A whole ledger that somebody made up, whose root key orders the log key of [`keys`] into it, and his own behind it. Nobody
/// who holds that key signed the order; or he signed another one, for his own ledger. Gives the key that is named, and the
/// checkpoint.
pub(crate) fn made_up(borrowed: bool) -> (Memory, PublicKey, Vec<u8>) {
    let (storage, mut own) = (Memory::new(), MemoryKeys::new(Some(&[11; 32]), &[12; 32], &[13; 32]));
    let mut writer = create_with(&storage, &own);
    stage(&mut writer, EVENT, 0, b"what never happened");
    let manifest = writer.manifest().clone();
    writer.close(5).unwrap();
    let mut victim = *keys();
    let named = victim.draw(Role::Log(1)).unwrap();
    let change = Change { number: 1, cause: Cause::Rotated, overlap_s: 0, log_key: named };
    let order = Order::sign(&manifest.origin, change, &own, Role::Root(0), None).unwrap();
    let mut first = order.body();
    if borrowed {
        let theirs = Memory::new();
        let real = create_with(&theirs, &victim).manifest().clone();
        let order = Order::sign(&real.origin, change, &victim, Role::Root(0), None).unwrap();
        let genuine = order.taken(&Authority::first(&real), &real, &victim).unwrap().body();
        let at = genuine.find("\"possession\"").unwrap();
        let possession = &genuine[at..genuine.find("\"root_key\"").unwrap()];
        first = first.replacen("\"root_key\"", &format!("{possession}\"root_key\""), 1);
    }
    let log_key = own.draw(Role::Log(2)).unwrap();
    let change = Change { number: 2, log_key, ..change };
    let mut between = Authority::first(&manifest);
    (between.orders, between.log) = (1, Numbered { number: 1, key: named });
    let order = Order::sign(&manifest.origin, change, &own, Role::Root(0), None).unwrap();
    let second = order.taken(&between, &manifest, &own).unwrap().body();
    let mut forge = Forge::new(&storage, &own);
    forge.log_role = Role::Log(2);
    let head = forge.last().frames.len() - 1;
    for body in [&second, &first] {
        forge.last().frames.insert(head, vec![Piece::new(Kind::KEYS_CHANGED, 5, 0, body)]);
    }
    let note = forge.write(&storage, 0).unwrap();
    (storage, named, note.into_bytes())
}
