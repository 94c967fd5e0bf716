//! Whole screens, compared exactly with those stored under `tests/snapshots`. `BLESS_SCREENS=1` stores them anew.

use crate::support::*;
use gatebook_replay::message::*;

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

/// Every field of every value holds an attack on the terminal, and each screen stays a screen.
#[test]
fn hostile_content_in_each_field_is_harmless() {
    const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\r\n\u{7}\u{202e}evil\u{2066}\u{200d}\u{301}\u{0}漢字\u{fe0f}";
    let long = format!("{HOSTILE}{}", "x".repeat(5_000));
    let hostile = || long.clone();
    let mut session = session(3, &long, 0);
    session.through = vec![hostile(), hostile()];
    (session.resource, session.database, session.role) = (hostile(), hostile(), hostile());
    (session.protocol, session.client_address, session.application) = (hostile(), hostile(), hostile());
    session.ended = Some((START_NS, hostile()));
    let mut steps = steps();
    for (step, text) in &mut steps {
        text.statement = long.clone().into_bytes();
        text.statement.extend(b"\xff\xfe");
        text.parameters = vec![Parameter { value: hostile().into_bytes(), ..Parameter::default() }; 3];
        text.policies = vec![hostile()];
        text.answer = hostile();
        text.facts = vec![(hostile(), hostile())];
        text.leaf = hostile();
        match &mut step.what {
            What::Note(note @ Note::Opened) => *note = Note::Other(hostile()),
            What::Note(_) => {
                step.what = What::Broken { segment: 1, offset: 2, length: None, why: hostile() };
            }
            What::Command { .. } => {}
            What::Broken { .. } => {}
        }
    }
    steps[8].1.missing = Some(hostile());
    for (columns, rows) in [(40, 10), (80, 24), (150, 50)] {
        let mut world = World::new(columns, rows, vec![session.clone()], steps.clone());
        world.app.ledger = hostile();
        world.proof = Ok(Proof { facts: vec![(hostile(), hostile())], holds: false });
        let problem = Problem { seqs: Some(0..u64::MAX), place: hostile(), why: hostile() };
        for keys in ["", "/", "\n", " ", "w", "\n", "v", "\u{1b}p", "\u{1b}\u{1b}G\n", "\u{1b}/"] {
            world.keys(keys);
            is_a_screen(&world, keys);
        }
        world.keys("\u{1b}\u{1b}");
        world.send(Message::Trouble(hostile()));
        is_a_screen(&world, "trouble");
        world.send(Message::Verdict(VerdictState::Unreadable(hostile())));
        world.keys("v");
        is_a_screen(&world, "unreadable");
        let verdict = Verdict {
            problems: vec![problem],
            problems_count: 1,
            remarks: vec![hostile()],
            ..Verdict::default()
        };
        world.send(Message::Verdict(VerdictState::Done(verdict)));
        is_a_screen(&world, "verdict");
        world.keys("\u{1b}");
        is_a_screen(&world, "broken everywhere");
    }
}

/// Nothing acts on the terminal, and the frame stands where it belongs.
#[track_caller]
fn is_a_screen(world: &World, after: &str) {
    for colour in [false, true] {
        let buffer = world.buffer(colour);
        for y in 0..buffer.area.height {
            let mut x = 0;
            while x < buffer.area.width {
                let symbol = buffer[(x, y)].symbol();
                assert!(symbol.chars().count() == 1, "{after:?}: {symbol:?} at {x},{y}");
                let alone = symbol.chars().all(gatebook_replay::text::stands_alone);
                assert!(alone, "{after:?}: {symbol:?} at {x},{y}");
                x += u16::try_from(ratatui::text::Span::raw(symbol).width()).unwrap();
            }
            let sides = [buffer[(0, y)].symbol(), buffer[(buffer.area.width - 1, y)].symbol()];
            assert!(["│", "├", "╭", "╰"].contains(&sides[0]), "{after:?}: row {y} begins with {}", sides[0]);
            assert!(
                ["│", "┤", "╮", "╯", "┃"].contains(&sides[1]),
                "{after:?}: row {y} ends with {}",
                sides[1]
            );
        }
    }
}
