//! From tones to styles. Colours are the sixteen that every terminal's own theme defines, so that they fit dark and
//! light alike; without colour only weight is left, and the signs say the same.

use ratatui::style::{Color, Modifier, Style};

use crate::signs::Tone;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// A theme with or without colours.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Theme { colour }
    }

    /// Colours unless `NO_COLOR` holds anything (<https://no-color.org>) or the terminal is dumb.
    #[must_use]
    pub fn from_environment() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Theme::new(!no_colour && !dumb)
    }

    /// The style of a tone.
    #[must_use]
    pub fn style(self, tone: Tone) -> Style {
        let (colour, weight) = match tone {
            Tone::Plain => return Style::new(),
            Tone::Faint => (Color::DarkGray, Modifier::DIM),
            Tone::Strong => (Color::Reset, Modifier::BOLD),
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Doubt => (Color::Yellow, Modifier::empty()),
            Tone::Bad => (Color::Red, Modifier::BOLD),
            Tone::Refused => (Color::Cyan, Modifier::BOLD),
            Tone::Human => (Color::Magenta, Modifier::empty()),
        };
        match (self.colour, tone) {
            (true, Tone::Faint) => Style::new().fg(colour),
            (true, _) => Style::new().fg(colour).add_modifier(weight),
            (false, _) => Style::new().add_modifier(weight),
        }
    }

    /// The style of what stands for recorded text instead of being it.
    #[must_use]
    pub fn mark(self) -> Style {
        if self.colour {
            Style::new().fg(Color::Yellow)
        } else {
            Style::new().add_modifier(Modifier::UNDERLINED)
        }
    }

    /// The style of the marker of the chosen row, in the pane that listens to keys or in the other.
    #[must_use]
    pub fn marker(self, listens: bool) -> Style {
        match (listens, self.colour) {
            (true, true) => Style::new().fg(Color::LightBlue).add_modifier(Modifier::BOLD),
            (true, false) => Style::new().add_modifier(Modifier::BOLD),
            (false, _) => self.style(Tone::Faint),
        }
    }

    /// The style of lines and of words that belong to the screen and not to the ledger.
    #[must_use]
    pub fn frame(self) -> Style {
        self.style(Tone::Faint)
    }
}
