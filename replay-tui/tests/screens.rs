//! Whole screens, compared exactly with those stored under `tests/snapshots`. `BLESS_SCREENS=1` stores them anew.

mod support;

use gatebook_replay::message::*;
use support::*;

#[test]
fn sessions_at_80_by_24() {
    check("sessions-80x24", &world(80, 24).screen());
}

#[test]
fn sessions_at_120_by_36() {
    check("sessions-120x36", &world(120, 36).screen());
}

#[test]
fn a_timeline_at_80_by_24() {
    let mut world = world(80, 24);
    world.keys("\n↓↓↓");
    check("timeline-80x24", &world.screen());
}

#[test]
fn a_timeline_at_120_by_36() {
    let mut world = world(120, 36);
    world.keys("\n↓↓");
    check("timeline-120x36", &world.screen());
}

#[test]
fn a_replay_on_its_way() {
    let mut world = world(120, 36);
    world.keys("\n ");
    world.pass(S + S / 2);
    world.pass(S + S / 2);
    check("replay-120x36", &world.screen());
}

#[test]
fn an_opened_step() {
    let mut world = world(80, 24);
    world.keys("\n↓↓↓\n");
    check("step-80x24", &world.screen());
}

#[test]
fn help() {
    let mut world = world(100, 40);
    world.keys("?");
    check("help-100x40", &world.screen());
}

#[test]
fn a_broken_entry_stands_in_its_place() {
    let mut world = world(120, 36);
    let seq = steps()[2].0.seq;
    world.send(Message::Verdict(tampered(seq..seq + 1)));
    world.steps.insert(4, {
        let (mut step, text) = command(START_NS + 9 * S, "", Decision::Permit, None);
        step.what = What::Broken {
            segment: 3,
            offset: 90_112,
            length: Some(4_096),
            why: "the frame's checksum does not fit".into(),
        };
        (step, text)
    });
    world.keys("s\n↓↓");
    check("broken-120x36", &world.screen());
    world.keys("v");
    check("verdict-120x36", &world.screen());
}

#[test]
fn a_filter_being_typed_and_one_that_matches_nothing() {
    let mut world = world(80, 24);
    world.keys("/principal:shop since:7d");
    check("filter-80x24", &world.screen());
    world.keys(" nobody\n");
    check("filter-empty-80x24", &world.screen());
}

#[test]
fn verification_running_before_anything_is_read() {
    let mut world = World::new(80, 24, Vec::new(), Vec::new());
    world.send(Message::Verdict(VerdictState::Running { share: 0.345 }));
    check("running-80x24", &world.screen());
}

#[test]
fn a_terminal_too_small_still_says_the_verdict() {
    check("tiny-30x5", &world(30, 5).screen());
    check("small-60x12", &world(60, 12).screen());
}
