//! What somebody can do who holds the gateway's keys of today (`common/attacks.rs`), and what the verifier says of it.

use gatebook_ledger::verify::Options;

use crate::common::attacks::{ATTACKS, scene};
use crate::common::{judge, pinned};

#[test]
fn whoever_holds_todays_keys_changes_nothing_unseen() {
    let scene = scene();
    let good = Options { checkpoints: vec![("kept".into(), scene.kept.clone())], ..pinned(&scene.storage) };
    assert_eq!(judge(&scene.storage, &good).verdict.exit_code(), 0, "before any attack");
    let forge = scene.forge();
    let same = judge(&scene.rewritten(&forge).storage, &Options { checkpoints: vec![], ..good.clone() });
    assert_eq!(same.problems, [], "the forger forges well");
    let mut wrong = Vec::new();
    for (name, with_anchor, without, attack) in ATTACKS {
        let attacked = attack(&scene);
        let kept = attacked.kept.unwrap_or_else(|| scene.kept.clone());
        let anchored = Options { checkpoints: vec![("kept".into(), kept)], ..good.clone() };
        let with = judge(&attacked.storage, &anchored);
        let alone = judge(&attacked.storage, &Options { checkpoints: vec![], ..good.clone() });
        if (with.verdict.exit_code(), alone.verdict.exit_code()) != (*with_anchor, *without) {
            wrong.push((name, with.verdict, with.problems, alone.verdict, alone.problems));
        }
    }
    assert!(ATTACKS.len() >= 30, "{}", ATTACKS.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
