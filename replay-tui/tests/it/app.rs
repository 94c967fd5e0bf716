//! The app as a machine: messages in, state and wishes out.

use crate::support::*;
use gatebook_replay::app::Overlay;
use gatebook_replay::keys::Key;
use gatebook_replay::layout::Focus;
use gatebook_replay::message::*;

#[test]
fn the_newest_session_is_chosen_and_its_timeline_open() {
    let world = world(100, 30);
    assert_eq!(world.app.sessions.chosen().map(|row| row.id), Some(3));
    assert_eq!(world.app.timeline.session, 3);
    assert_eq!(world.app.timeline.steps.len(), 10);
    assert_eq!(world.app.focus, Focus::Sessions);
}

#[test]
fn whoever_reads_a_session_stays_in_it_when_newer_ones_appear() {
    let mut world = world(100, 30);
    world.keys("↓\n");
    assert_eq!(world.app.timeline.session, 2);
    let mut newer = session(9, "corp:new", 0);
    newer.opened_ns += 60 * S;
    world.send(Message::Sessions { changed: vec![newer], entries: 1, read: (1, 1) });
    assert_eq!(world.app.timeline.session, 2);
    assert_eq!(world.app.sessions.chosen().map(|row| row.id), Some(2));
}

#[test]
fn filtering_by_typing_and_leaving_it() {
    let mut world = world(100, 30);
    world.keys("/principal:corp");
    assert_eq!(world.app.sessions.counts(), (2, 3));
    world.keys("⌫⌫⌫⌫shop");
    assert_eq!(world.app.sessions.counts().0, 2);
    world.keys("\u{1b}");
    assert_eq!(world.app.sessions.counts().0, 4, "escape takes back what was typed");
    world.keys("/refused:yes\n");
    assert_eq!(world.app.sessions.counts().0, 2);
    world.keys("\u{1b}");
    assert_eq!(world.app.sessions.counts().0, 4);
}

#[test]
fn letters_are_typed_and_not_obeyed_while_filtering() {
    let mut world = world(100, 30);
    world.keys("/q?v p");
    assert!(!world.quit);
    assert_eq!(world.app.filter, "q?v p");
    world.keys("\n\u{1b}q");
    assert!(world.quit);
}

#[test]
fn sorting_goes_round_and_turns() {
    let mut world = world(100, 30);
    let order = |world: &World| -> Vec<u64> {
        (0..5).filter_map(|at| world.app.sessions.row(at)).map(|row| row.id).collect()
    };
    assert_eq!(order(&world), [3, 2, 1, 4, 0], "newest first, and what is outside of sessions last");
    world.keys("S");
    assert_eq!(order(&world), [4, 1, 2, 3, 0]);
    world.keys("sss");
    assert_eq!(order(&world), [1, 3, 2, 4, 0], "most commands first");
    world.keys("s");
    assert_eq!(order(&world), [4, 3, 2, 1, 0], "most refused first");
}

#[test]
fn a_replay_follows_the_recorded_times() {
    let mut world = world(100, 30);
    world.keys("\n ");
    assert!(world.app.is_moving());
    world.pass(112_000_000);
    assert_eq!(world.app.timeline.cursor, 0);
    world.pass(1_000_000);
    assert_eq!(world.app.timeline.cursor, 1);
    assert!(world.app.timeline.is_pending(START_NS + 116_000_000), "its answer has not come yet");
    world.pass(4_000_000);
    assert!(!world.app.timeline.is_pending(START_NS + 116_000_000));
    world.keys(" ");
    world.pass(60 * S);
    assert_eq!(world.app.timeline.cursor, 1, "paused");
    world.keys("++ ");
    world.pass(S);
    assert_eq!(world.app.timeline.cursor, 3, "four times as fast");
    world.pass(3600 * S);
    assert_eq!(world.app.timeline.cursor, 9);
    assert!(!world.app.is_moving(), "it stops at the end");
    world.keys(" ");
    assert_eq!(world.app.timeline.cursor, 0, "and begins again");
}

#[test]
fn stepping_pauses_and_goes_either_way() {
    let mut world = world(100, 30);
    world.keys("\n →→");
    assert_eq!((world.app.timeline.cursor, world.app.is_moving()), (2, false));
    assert!(world.app.timeline.is_ahead(3));
    world.keys("←");
    assert_eq!(world.app.timeline.cursor, 1);
    world.keys("\u{1b}");
    assert!(!world.app.timeline.is_ahead(3), "escape ends the replay");
    assert_eq!(world.app.focus, Focus::Timeline);
    world.keys("\u{1b}");
    assert_eq!(world.app.focus, Focus::Sessions);
}

#[test]
fn playing_does_not_move_what_another_session_shows() {
    let mut world = world(100, 30);
    world.keys("\n \t↓");
    assert_eq!(world.app.timeline.session, 2);
    assert!(!world.app.is_moving());
}

#[test]
fn troubles_are_visited_in_turn() {
    let mut world = world(100, 30);
    world.keys("\n");
    let visited: Vec<usize> = (0..4)
        .map(|_| {
            world.keys("!");
            world.app.timeline.cursor
        })
        .collect();
    assert_eq!(visited, [2, 5, 6, 2], "refused, failed, shadow, and round");
}

#[test]
fn finding_goes_on_and_back_and_says_when_there_is_nothing() {
    let mut world = world(100, 30);
    world.keys("\n/SELECT\n");
    assert_eq!(world.app.timeline.cursor, 1);
    world.keys("n");
    assert_eq!(world.app.timeline.cursor, 4);
    world.keys("NN");
    assert_eq!(world.app.timeline.cursor, 7, "back past the first to the last");
    world.keys("/nowhere\n");
    assert_eq!(world.app.notice.as_deref(), Some("not found: nowhere"));
}

#[test]
fn an_opened_step_walks_and_closes() {
    let mut world = world(100, 30);
    world.keys("\n↓↓\n");
    assert_eq!(world.app.focus, Focus::Step);
    assert!(world.screen().contains("drop table orders"));
    world.keys("→");
    assert!(world.screen().contains("update orders"));
    world.keys("\u{1b}");
    assert_eq!((world.app.focus, world.app.timeline.cursor), (Focus::Timeline, 3));
}

#[test]
fn scrolling_past_the_end_of_a_page_is_not_remembered() {
    let mut world = world(60, 12);
    world.keys("\n↓↓↓\n⇟⇟⇟⇟⇟⇟⇟");
    let end = world.screen();
    world.keys("⇟⇟⇟");
    assert_eq!(world.screen(), end);
    world.keys("↑");
    assert_ne!(world.screen(), end);
}

#[test]
fn a_grown_ledger_is_read_every_second_and_verified_again_with_rests() {
    let mut world = world(100, 30);
    assert_eq!(world.verifications, 1);
    world.sessions[2].commands = 99;
    world.pass(S);
    assert_eq!(world.app.sessions.session(2).map(|row| row.commands), Some(99));
    world.pass(60 * S);
    assert_eq!(world.verifications, 1, "it has not grown since");
    world.send(Message::Sessions { changed: vec![], entries: 1_300_000, read: (1, 1) });
    assert_eq!(world.verifications, 2);
    world.pass(60 * S);
    assert_eq!(world.verifications, 2, "one at a time");
}

#[test]
fn the_last_verdict_stays_on_the_screen_while_it_is_verified_again() {
    let mut world = world(100, 30);
    world.keys("v");
    assert_eq!(world.verifications, 1, "looking at the verdict is not asking for a new one");
    world.keys("vv");
    assert_eq!(world.verifications, 2, "one at a time");
    world.send(Message::Verdict(VerdictState::Running { share: 0.5 }));
    let screen = world.screen();
    assert!(screen.contains("✔ verified to 1 204 903") && screen.contains("again 50 %"), "{screen}");
    world.send(Message::Verdict(tampered(0..1)));
    assert!(!world.screen().contains("again"));
}

#[test]
fn a_live_session_is_followed_at_its_end_and_nowhere_else() {
    let mut world = world(100, 30);
    world.keys("\nG");
    let (step, text) = command(START_NS + 500 * S, "select 2", Decision::Permit, None);
    world.steps.push((step.clone(), text));
    world.send(Message::Steps { session: 3, from: 10, steps: vec![step.clone()] });
    assert_eq!(world.app.timeline.cursor, 10);
    world.keys("↑");
    world.steps.push((step.clone(), StepText::default()));
    world.send(Message::Steps { session: 3, from: 11, steps: vec![step] });
    assert_eq!(world.app.timeline.cursor, 9);
}

#[test]
fn answers_about_a_session_that_was_left_change_nothing() {
    let mut world = world(100, 30);
    let before = world.screen();
    world.send(Message::Steps { session: 77, from: 0, steps: vec![] });
    world.send(Message::Texts { session: 77, from: 0, texts: vec![StepText::default()] });
    world.send(Message::Found { session: 77, index: Some(4) });
    world.send(Message::Proof { seq: 77, proof: Err("x".into()) });
    assert_eq!(world.screen(), before);
}

#[test]
fn a_proof_is_shown_for_the_chosen_entry() {
    let mut world = world(100, 30);
    world.proof = Ok(Proof { facts: vec![("leaf".into(), "9be1".into())], holds: true });
    world.keys("\n↓↓p");
    assert!(matches!(world.app.overlay, Some(Overlay::Proof(_, Some(Ok(_))))));
    assert!(world.screen().contains("✔ the path leads to the signed root"));
    world.keys("\u{1b}");
    assert_eq!(world.app.overlay, None);
}

#[test]
fn signals_and_control_c_end_it_from_everywhere() {
    for keys in ["", "\n", "\n\n", "?", "/", "\n/", "v"] {
        let mut world = world(100, 30);
        world.keys(keys);
        world.key(Key::Control('c'));
        assert!(world.quit, "{keys:?}");
    }
    let mut world = world(100, 30);
    world.send(Message::Quit);
    assert!(world.quit);
}

#[test]
fn a_hundred_thousand_steps_are_drawn_by_their_visible_rows() {
    let steps: Vec<_> = (0..100_000_u64)
        .map(|at| {
            command(
                START_NS + at * S,
                &format!("select {at}"),
                Decision::Permit,
                outcome(START_NS + at * S, 1, 100),
            )
        })
        .collect();
    let mut world = World::new(100, 30, sessions(), steps);
    world.keys("\nG");
    assert!(world.screen().contains("select 99999"));
    for _ in 0..200 {
        world.keys("⇞");
    }
    world.keys("gG");
    let asked: usize = world.asked.iter().map(std::ops::Range::len).sum();
    assert!(asked < 204 * 30, "{asked} rows of words were asked for");
    assert!(world.asked.iter().all(|range| range.len() <= 30));
    assert!(world.app.timeline.texts_weight() < 100_000, "{}", world.app.timeline.texts_weight());
    world.keys(" ");
    world.pass(3_600 * S);
    assert_eq!(world.app.timeline.cursor, 3_600);
}

#[test]
fn any_keys_on_any_size_end_in_a_screen() {
    let keys = [
        Key::Up,
        Key::Down,
        Key::Left,
        Key::Right,
        Key::PageUp,
        Key::PageDown,
        Key::Home,
        Key::End,
        Key::Enter,
        Key::Escape,
        Key::Tab,
        Key::Backspace,
        Key::Char('/'),
        Key::Char('s'),
        Key::Char('S'),
        Key::Char(' '),
        Key::Char('+'),
        Key::Char('-'),
        Key::Char('w'),
        Key::Char('n'),
        Key::Char('!'),
        Key::Char('?'),
        Key::Char('v'),
        Key::Char('p'),
        Key::Char('x'),
        Key::Control('u'),
        Key::Control('w'),
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..40 {
        let mut world = world(80, 24);
        for _ in 0..150 {
            match roll(12) {
                0 => world.send(Message::Resize(
                    u16::try_from(roll(130)).unwrap(),
                    u16::try_from(roll(50)).unwrap(),
                )),
                1 => world.pass(roll(20) as u64 * S / 3),
                2 => {
                    let kept = roll(world.steps.len() + 1);
                    let session = world.app.timeline.session;
                    world.steps.truncate(kept.max(1));
                    let steps = world.steps.iter().map(|(step, _)| step.clone()).collect();
                    world.send(Message::Steps { session, from: 0, steps });
                }
                _ => world.key(keys[roll(keys.len())]),
            }
            let (columns, rows) = world.app.size;
            if columns > 0 && rows > 0 {
                let screen = world.screen();
                assert_eq!(screen.lines().count(), usize::from(rows));
            }
        }
    }
}
