//! Keys as the app sees them, and the one table of what they do: help and footer are drawn from it.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key that the app knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character, with its case.
    Char(char),
    /// Control and a letter.
    Control(char),
    /// The arrow.
    Up,
    /// The arrow.
    Down,
    /// The arrow.
    Left,
    /// The arrow.
    Right,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Tab, in either direction.
    Tab,
    /// Removes the character before the cursor.
    Backspace,
}

impl Key {
    /// Reads a terminal's key; none for a release and for what nothing here listens to.
    #[must_use]
    pub fn from_terminal(event: KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        Some(match event.code {
            KeyCode::Char(character) if event.modifiers.contains(KeyModifiers::CONTROL) => {
                Key::Control(character.to_ascii_lowercase())
            }
            KeyCode::Char(_) if event.modifiers.contains(KeyModifiers::ALT) => return None,
            KeyCode::Char(character) => Key::Char(character),
            KeyCode::Up => Key::Up,
            KeyCode::Down => Key::Down,
            KeyCode::Left => Key::Left,
            KeyCode::Right => Key::Right,
            KeyCode::PageUp => Key::PageUp,
            KeyCode::PageDown => Key::PageDown,
            KeyCode::Home => Key::Home,
            KeyCode::End => Key::End,
            KeyCode::Enter => Key::Enter,
            KeyCode::Esc => Key::Escape,
            KeyCode::Tab | KeyCode::BackTab => Key::Tab,
            KeyCode::Backspace => Key::Backspace,
            _ => return None,
        })
    }
}

/// Where a binding works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the list of sessions.
    Sessions,
    /// In a session's timeline.
    Timeline,
    /// In an opened step.
    Step,
    /// Everywhere.
    Everywhere,
}

/// One line of help.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// Where it works.
    pub place: Place,
    /// The keys as they are written on a keyboard.
    pub keys: &'static str,
    /// What they do.
    pub does: &'static str,
    /// One word for the footer; empty where it stands only in the help.
    pub short: &'static str,
}

const fn binding(place: Place, keys: &'static str, does: &'static str, short: &'static str) -> Binding {
    Binding { place, keys, does, short }
}

/// Every binding, in the order of the help.
pub const BINDINGS: &[Binding] = &[
    binding(Place::Sessions, "↑↓", "choose a session (also j k, page keys, g G)", ""),
    binding(Place::Sessions, "↵", "open its timeline", "open"),
    binding(
        Place::Sessions,
        "/",
        "filter: principal:shop resource:orders since:7d refused:yes text",
        "filter",
    ),
    binding(Place::Sessions, "sS", "sort by the next column; reverse", "sort"),
    binding(Place::Timeline, "↑↓", "choose a step (also j k, page keys, g G)", ""),
    binding(Place::Timeline, "space", "play or pause", "play"),
    binding(Place::Timeline, "←→", "one step back, one step forward", "step"),
    binding(Place::Timeline, "-+", "slower, faster: ½× to 16×", "speed"),
    binding(Place::Timeline, "↵", "open the step: the whole statement, parameters, decision", "open"),
    binding(Place::Timeline, "/nN", "find a text in statements and parameters; next, previous", "find"),
    binding(Place::Timeline, "!", "next refused, failed or broken step", "trouble"),
    binding(Place::Timeline, "w", "wrap statements", "wrap"),
    binding(Place::Timeline, "esc", "stop the replay; back to the sessions", ""),
    binding(Place::Step, "↑↓", "scroll (also page keys)", "scroll"),
    binding(Place::Step, "←→", "the step before, the step after", "step"),
    binding(Place::Step, "esc", "close", "close"),
    binding(Place::Everywhere, "p", "prove the chosen entry", "prove"),
    binding(Place::Everywhere, "v", "what the verifier found; once more: verify again", "verdict"),
    binding(Place::Everywhere, "tab", "the other pane", ""),
    binding(Place::Everywhere, "?", "help", "help"),
    binding(Place::Everywhere, "q", "quit", "quit"),
];
