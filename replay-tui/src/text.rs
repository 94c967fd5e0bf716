//! Recorded text on its way to a screen: made visible, and made harmless.
//!
//! Everything that a ledger holds was written by somebody who may be hostile. What comes out of here can move no
//! cursor, reorder no line, hide in no blank and join no neighbour: each character that is passed stands alone in
//! one or two columns, and everything else is spelled out between `‹` and `›`. The spelling can be read back:
//! two different texts never look the same in [`exact`], because the marks themselves are spelled out too.
//!
//! What a newcomer gets wrong: combining marks, joiners and non-breaking spaces are spelled out on purpose. A
//! decomposed `é` is not the name that a precomposed one is, and evidence must show the difference.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

/// Stands for a line feed where text is shown on one line.
const LINE_FEED: &str = "↵";
/// Stands for a tab.
const TAB: &str = "⇥";
/// Stands for what did not fit.
const MORE: &str = "…";

/// A run of text that is safe to write to a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text; each of its characters fills one or two columns by itself.
    pub text: String,
    /// Whether it is what was recorded.
    pub kind: PieceKind,
}

/// What a run of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// What was recorded.
    Recorded,
    /// It stands for what was recorded and cannot be shown: an escape, a line feed, a tab.
    Spelled,
    /// It stands for all that did not fit.
    Cut,
}

/// Text that is safe to write to a terminal, on one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its runs, in order.
    pub pieces: Vec<Piece>,
    /// How many columns it fills.
    pub columns: usize,
}

impl Shown {
    fn push(&mut self, text: &str, kind: PieceKind, columns: usize) {
        match self.pieces.last_mut() {
            Some(last) if last.kind == kind => last.text.push_str(text),
            _ => self.pieces.push(Piece { text: text.to_owned(), kind }),
        }
        self.columns += columns;
    }

    /// The text without the difference between marks and what was recorded.
    #[must_use]
    pub fn plain(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }
}

/// One thing to show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unit {
    /// A character that is its own picture, and its columns.
    Glyph(char, usize),
    LineFeed,
    Tab,
    /// Anything else, spelled out in ASCII between its marks.
    Spelled(String),
}

impl Unit {
    fn columns(&self) -> usize {
        match self {
            Unit::Glyph(_, columns) => *columns,
            Unit::LineFeed | Unit::Tab => 1,
            Unit::Spelled(name) => name.len() + 2,
        }
    }

    fn push_to(&self, shown: &mut Shown) {
        match self {
            Unit::Glyph(glyph, columns) => {
                shown.push(glyph.encode_utf8(&mut [0; 4]), PieceKind::Recorded, *columns)
            }
            Unit::LineFeed => shown.push(LINE_FEED, PieceKind::Spelled, 1),
            Unit::Tab => shown.push(TAB, PieceKind::Spelled, 1),
            Unit::Spelled(name) => shown.push(&format!("‹{name}›"), PieceKind::Spelled, name.len() + 2),
        }
    }
}

/// Shows recorded bytes on one line of at most `columns_max` columns, for a list: white space is drawn together,
/// so that what follows it cannot be pushed out of sight, and what does not fit is cut with `…`.
#[must_use]
pub fn summary(recorded: &[u8], columns_max: usize) -> Shown {
    let mut line: Vec<Unit> = Vec::new();
    let mut columns = 0;
    let mut after_blank = true;
    for unit in units(recorded) {
        let blank = matches!(unit, Unit::Glyph(' ', _) | Unit::LineFeed | Unit::Tab);
        if blank && after_blank {
            continue;
        }
        after_blank = blank;
        // A lone line feed or tab in a list says no more than a blank would.
        let unit = if blank { Unit::Glyph(' ', 1) } else { unit };
        columns += unit.columns();
        line.push(unit);
        if columns > columns_max {
            while columns >= columns_max.max(1) {
                columns -= line.pop().map_or(columns, |unit| unit.columns());
            }
            let mut cut = shown(&line);
            if columns_max > 0 {
                cut.push(MORE, PieceKind::Cut, 1);
            }
            return cut;
        }
    }
    shown(&line)
}

/// Shows recorded bytes exactly, on one line of any length.
#[must_use]
pub fn exact(recorded: &[u8]) -> String {
    let mut shown = Shown::default();
    for unit in units(recorded) {
        unit.push_to(&mut shown);
    }
    shown.plain()
}

/// Shows recorded bytes exactly, broken into lines of at most `columns_max` columns (at least 12): at line feeds,
/// which stay visible, at blanks where there is one, and anywhere else where there is none.
#[must_use]
pub fn wrapped(recorded: &[u8], columns_max: usize) -> Vec<Shown> {
    let columns_max = columns_max.max(12);
    let mut lines = Vec::new();
    let mut line: Vec<Unit> = Vec::new();
    let mut columns = 0;
    for unit in units(recorded) {
        let ends = unit == Unit::LineFeed;
        if columns + unit.columns() > columns_max {
            let rest = match line.iter().rposition(|unit| matches!(unit, Unit::Glyph(' ', _))) {
                // A blank late in the line: what follows it moves down as a whole.
                Some(blank) if blank * 3 > line.len() => line.split_off(blank + 1),
                _ => Vec::new(),
            };
            lines.push(shown(&line));
            line = rest;
            columns = line.iter().map(Unit::columns).sum();
            if columns + unit.columns() > columns_max {
                lines.push(shown(&line));
                line.clear();
                columns = 0;
            }
        }
        columns += unit.columns();
        line.push(unit);
        if ends {
            lines.push(shown(&line));
            line.clear();
            columns = 0;
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(shown(&line));
    }
    lines
}

/// Whether a character may stand in JSON as it is; others are written as `\u` escapes, which say the same.
#[must_use]
pub fn stands_alone(character: char) -> bool {
    glyph_columns(character).is_some()
}

fn shown(line: &[Unit]) -> Shown {
    let mut shown = Shown::default();
    for unit in line {
        unit.push_to(&mut shown);
    }
    shown
}

fn units(recorded: &[u8]) -> impl Iterator<Item = Unit> + '_ {
    recorded.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().graphemes(true).flat_map(|cluster| {
            let mut joins = false;
            cluster.chars().map(move |character| {
                let unit = unit(character, joins);
                joins = matches!(unit, Unit::Glyph(..));
                unit
            })
        });
        valid.chain(chunk.invalid().iter().map(|byte| Unit::Spelled(format!("x{byte:02x}"))))
    })
}

/// `joins` says that the character stands in one cluster with a glyph before it.
fn unit(character: char, joins: bool) -> Unit {
    match character {
        '\n' => return Unit::LineFeed,
        '\t' => return Unit::Tab,
        _ => {}
    }
    match glyph_columns(character) {
        Some(columns) if !joins && !matches!(character, '‹' | '›' | '↵' | '⇥') => {
            Unit::Glyph(character, columns)
        }
        _ => Unit::Spelled(name(character)),
    }
}

fn name(character: char) -> String {
    match character {
        '\0' => "nul".to_owned(),
        '\u{7}' => "bel".to_owned(),
        '\u{8}' => "bs".to_owned(),
        '\r' => "cr".to_owned(),
        '\u{1b}' => "esc".to_owned(),
        '\u{7f}' => "del".to_owned(),
        _ => format!("U+{:04X}", u32::from(character)),
    }
}

/// The columns of a character that is its own picture wherever it stands; none for any other.
fn glyph_columns(character: char) -> Option<usize> {
    if (' '..='~').contains(&character) {
        return Some(1);
    }
    let hidden = character.is_control()
        || character.is_whitespace()
        || matches!(character,
            // Soft hyphen, blank braille, fillers, annotations: pictures of nothing.
            '\u{ad}' | '\u{2800}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffc}'
            // Regional indicators pair up into flags; private use looks like whatever a font likes.
            | '\u{1f1e6}'..='\u{1f1ff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..
            // Signs that enclose what follows, and format controls of single scripts.
            | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}' | '\u{fdd0}'..='\u{fdef}')
        || u32::from(character) & 0xfffe == 0xfffe;
    if hidden || joins_a_neighbour(character) {
        return None;
    }
    character.width().filter(|columns| (1..=2).contains(columns))
}

fn joins_a_neighbour(character: char) -> bool {
    let between: String = ['a', character, 'a'].iter().collect();
    between.graphemes(true).count() != 3
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    /// A small generator, so that a failing case can be named by its number.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % below
        }

        /// Bytes with a taste for trouble: controls, marks, joiners, bidi, wide, and broken UTF-8.
        fn recorded(&mut self) -> Vec<u8> {
            const TROUBLE: &[&str] = &[
                "\u{1b}[2J",
                "\u{1b}]0;x\u{7}",
                "\u{9b}31m",
                "\u{202e}",
                "\u{2066}",
                "\u{200d}",
                "\u{fe0f}",
                "\u{301}",
                "\u{1f468}\u{200d}\u{1f469}",
                "\u{1f1e9}\u{1f1ea}",
                "\u{1100}\u{1100}\u{1161}",
                "\u{915}\u{94d}\u{937}",
                "漢",
                "\u{a0}",
                "\u{2028}",
                "\r\n",
                "\n",
                "\t",
                "‹",
                "›",
                "↵",
                "⇥",
                "‹esc›",
                "a",
                " ",
                "   ",
                "select",
                "\u{644}\u{627}",
                "\u{0d4e}",
                "\u{110bd}",
                "\u{e000}",
                "\u{3164}",
            ];
            let mut bytes = Vec::new();
            for _ in 0..self.roll(12) {
                match self.roll(4) {
                    0 => bytes.push(u8::try_from(self.roll(256)).unwrap()),
                    1 => {
                        let drawn = u32::try_from(self.roll(0x11_0000)).unwrap();
                        bytes.extend(char::from_u32(drawn).unwrap_or('z').to_string().bytes());
                    }
                    _ => {
                        let drawn = usize::try_from(self.roll(TROUBLE.len() as u64)).unwrap();
                        bytes.extend(TROUBLE[drawn].bytes());
                    }
                }
            }
            bytes
        }
    }

    /// Reads `exact` back, to prove that nothing was lost.
    fn read_back(shown: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = shown;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match first {
                '↵' => bytes.push(b'\n'),
                '⇥' => bytes.push(b'\t'),
                '‹' => {
                    let (name, after) = rest.split_once('›').unwrap();
                    rest = after;
                    let character = match name {
                        "nul" => '\0',
                        "bel" => '\u{7}',
                        "bs" => '\u{8}',
                        "cr" => '\r',
                        "esc" => '\u{1b}',
                        "del" => '\u{7f}',
                        _ => match name.strip_prefix("U+") {
                            Some(hex) => char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap(),
                            None => {
                                bytes.push(u8::from_str_radix(&name[1..], 16).unwrap());
                                continue;
                            }
                        },
                    };
                    bytes.extend(character.to_string().bytes());
                }
                other => bytes.extend(other.to_string().bytes()),
            }
        }
        bytes
    }

    #[test]
    fn every_character_stands_alone_in_its_columns() {
        let area = Rect::new(0, 0, 20, 1);
        // Planes 4 to 13 are unassigned and all alike.
        for character in ('\0'..='\u{40000}').chain('\u{dfff0}'..=char::MAX) {
            let shown = exact(format!("a{character}b").as_bytes());
            let mut buffer = Buffer::empty(area);
            let (end, _) = buffer.set_stringn(0, 0, &shown, 20, Style::new());
            let summed: usize = units(format!("a{character}b").as_bytes()).map(|unit| unit.columns()).sum();
            assert_eq!(usize::from(end), summed, "{character:?} is measured as it is drawn");
            assert_eq!(buffer[(end - 1, 0)].symbol(), "b", "{character:?} joins nothing");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for round in 0..20_000 {
            let recorded = dice.recorded();
            assert_eq!(read_back(&exact(&recorded)), recorded, "round {round}");
        }
    }

    #[test]
    fn nothing_that_acts_on_a_terminal_comes_out() {
        let mut dice = Dice(7);
        for round in 0..20_000 {
            let recorded = dice.recorded();
            let columns = 12 + usize::try_from(dice.roll(40)).unwrap();
            let mut lines = wrapped(&recorded, columns);
            lines.push(summary(&recorded, columns));
            for line in lines {
                let text = line.plain();
                assert!(line.columns <= columns, "round {round}: {text:?} overflows {columns}");
                assert!(
                    text.graphemes(true).all(|cluster| cluster.chars().count() == 1),
                    "round {round}: {text:?}"
                );
                assert!(
                    !text.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')),
                    "round {round}"
                );
            }
        }
    }

    #[test]
    fn wrapping_loses_nothing() {
        let mut dice = Dice(11);
        for round in 0..20_000 {
            let recorded = dice.recorded();
            let joined: String = wrapped(&recorded, 14).iter().map(Shown::plain).collect();
            assert_eq!(joined, exact(&recorded), "round {round}");
        }
    }

    #[test]
    fn known_disguises_are_visible() {
        for (recorded, shown) in [
            ("drop\u{1b}[2Ktable", "drop‹esc›[2Ktable"),
            ("admin\u{202e}nimda", "admin‹U+202E›nimda"),
            ("e\u{301}", "e‹U+0301›"),
            ("a\u{a0}b", "a‹U+00A0›b"),
            ("\u{9b}31m", "‹U+009B›31m"),
            ("‹esc›", "‹U+2039›esc‹U+203A›"),
            ("漢字", "漢字"),
            ("a\nb\tc\r", "a↵b⇥c‹cr›"),
        ] {
            assert_eq!(exact(recorded.as_bytes()), shown);
        }
        assert_eq!(exact(b"\xff\xc3("), "‹xff›‹xc3›(");
    }

    #[test]
    fn a_summary_draws_blanks_together_and_says_when_it_is_cut() {
        assert_eq!(summary(b"select *\n    from t", 40).plain(), "select * from t");
        assert_eq!(
            summary(b"select 1;                                drop table t", 22).plain(),
            "select 1; drop table t"
        );
        assert_eq!(summary("select 漢字漢字".as_bytes(), 10).plain(), "select 漢…");
        assert_eq!(summary(b"abcdef", 6).plain(), "abcdef");
        assert_eq!(summary(b"abcdefg", 6).plain(), "abcde…");
        assert_eq!(summary(b"abc", 0).plain(), "");
        assert_eq!(summary(&b"x".repeat(100_000_000), 10).columns, 10);
    }
}
