//! Text from strangers, made harmless for a terminal: nothing in it can move a cursor or turn around a line.

use serde::Serialize;

/// One line of text: control characters, line ends, and characters that reorder or hide text are escaped.
#[must_use]
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character.is_control() || is_invisible(character) => {
                out.push_str(&format!("\\u{{{:04x}}}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out
}

/// A value as JSON in one line, which is harmless for a terminal too: what [`line`] escapes is escaped in JSON's way.
///
/// # Errors
/// Where the value cannot be JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    let mut out = String::with_capacity(plain.len());
    // Outside of its strings JSON has none of these characters.
    for character in plain.chars() {
        if character.is_control() || is_invisible(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    Ok(out)
}

/// Characters that change how their neighbours are shown: direction, joining, tags, separators of lines.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::{json, line};

    #[test]
    fn json_says_the_same_without_what_moves_a_terminal() {
        let text = "é😀\u{9b}1m\u{7f}\u{202e}\u{e0001}\n\"";
        let spelled = json(text).unwrap();
        assert_eq!(spelled, r#""é😀\u009b1m\u007f\u202e\udb40\udc01\n\"""#);
        assert_eq!(serde_json::from_str::<String>(&spelled).unwrap(), text);
    }

    #[test]
    fn nothing_from_a_stranger_reaches_a_terminal_but_text() {
        assert_eq!(line("select 'é€😀'"), "select 'é€😀'");
        assert_eq!(
            line("a\u{1b}[2Jb\u{9b}1m\u{7}\r\n\u{202e}x\u{2066}"),
            "a\\u{001b}[2Jb\\u{009b}1m\\u{0007}\\r\\n\\u{202e}x\\u{2066}"
        );
    }
}
