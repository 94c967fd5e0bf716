//! Looks through what a server shows for what nobody declared: cells, lines of COPY, words of errors and notices, payloads of
//! notifications.
//!
//! What a newcomer gets wrong: types are not asked for. A statement that runs again is not described again, so values are judged by their
//! bytes alone. Text never holds a NUL; a value that does is in binary, and what is text in it stands behind its length, which must
//! not be taken for the first letter of an address.

use bytes::BytesMut;

use super::frame::{Frame, Message, Run};
use crate::detect::{self, Classes, Found};

/// What is found in a frame; and the frame with that overwritten, where there is any.
pub(super) fn look_through(frame: &Frame, classes: Classes) -> (Found, Option<Frame>) {
    let mut found = Found::default();
    let mut look = |value: &mut [u8]| value_of_any_type(value, classes, &mut found);
    let looked = match frame {
        Frame::Run(run) => {
            let mut bytes = BytesMut::from(&run.bytes[..]);
            run_of_messages(run, &mut bytes, &mut look);
            Frame::Run(Run { bytes: bytes.freeze(), ..run.clone() })
        }
        Frame::Message(message) if matches!(message.tag(), b'E' | b'N' | b'A' | b'V') => {
            let mut body = BytesMut::from(&message.body()[..]);
            match message.tag() {
                b'A' => strings(body.get_mut(4..), &mut look),
                b'V' => cells(&mut body, &mut look),
                _ => report(&mut body, &mut look),
            }
            Message::build(message.tag(), |out| out.unsplit(body)).into()
        }
        Frame::Message(_) => return (found, None),
    };
    (found, found.any().then_some(looked))
}

/// The messages of a run, which the decoder has kept whole.
fn run_of_messages(run: &Run, mut rest: &mut [u8], look: &mut impl FnMut(&mut [u8])) {
    while let Some((head, after)) = rest.split_at_mut_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some((body, next)) = length.checked_sub(4).and_then(|length| after.split_at_mut_checked(length))
        else {
            return;
        };
        match run.tag {
            b'D' => cells(body.get_mut(2..).unwrap_or_default(), look),
            _ => look(body),
        }
        rest = next;
    }
}

/// Values, each with its length before it; a negative one is NULL.
fn cells(mut rest: &mut [u8], look: &mut impl FnMut(&mut [u8])) {
    while let Some((length, after)) = rest.split_at_mut_checked(4) {
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let Some((cell, next)) = after.split_at_mut_checked(usize::try_from(length).unwrap_or(0)) else {
            return;
        };
        look(cell);
        rest = next;
    }
}

/// Strings, each with a NUL behind it.
fn strings(body: Option<&mut [u8]>, look: &mut impl FnMut(&mut [u8])) {
    body.unwrap_or_default().split_mut(|byte| *byte == 0).for_each(look);
}

/// The fields of an error or a notice that hold words: codes, names and places stay.
fn report(body: &mut [u8], look: &mut impl FnMut(&mut [u8])) {
    for field in body.split_mut(|byte| *byte == 0) {
        if let Some((b'M' | b'D' | b'H' | b'W' | b'q', words)) = field.split_first_mut() {
            look(words);
        }
    }
}

/// A value in either format.
fn value_of_any_type(value: &mut [u8], classes: Classes, found: &mut Found) {
    if !value.contains(&0) {
        return detect::overwrite(value, classes, found);
    }
    let mut at = 0;
    while let Some((length, after)) = value[at..].split_first_chunk_mut::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        match after.get_mut(..length) {
            Some(text) if length > 0 && !text.contains(&0) => {
                detect::overwrite(text, classes, found);
                at += 4 + length;
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::detect::Class;

    fn looked(frame: &Frame) -> (String, Frame) {
        let (found, looked) = look_through(frame, [Class::Email, Class::Card].into_iter().collect());
        (found.to_string(), looked.unwrap_or_else(|| frame.clone()))
    }

    fn run(tag: u8, messages: &[Message]) -> Frame {
        Frame::Run(Run {
            tag,
            bytes: messages.iter().flat_map(|message| message.bytes().to_vec()).collect::<Vec<u8>>().into(),
            resumes: 0,
            completed: messages.len() as u64,
            goes_on: false,
        })
    }

    fn row(cells: &[Option<&[u8]>]) -> Message {
        Message::build(b'D', |out| {
            out.put_i16(i16::try_from(cells.len()).expect("few"));
            cells.iter().for_each(|cell| put_cell(out, *cell));
        })
    }

    fn put_cell(out: &mut BytesMut, cell: Option<&[u8]>) {
        match cell {
            Some(cell) => {
                out.put_i32(i32::try_from(cell.len()).expect("short"));
                out.put_slice(cell);
            }
            None => out.put_i32(-1),
        }
    }

    #[test]
    fn cells_and_lines_are_looked_through_where_they_stand() {
        let rows = |first: &[u8], second: &[u8]| {
            run(b'D', &[row(&[Some(first), None, Some(b"")]), row(&[Some(second)])])
        };
        assert_eq!(
            looked(&rows(b"a@b.example", b"4111111111111111")),
            ("email 1, card 1".to_owned(), rows(b"x@x.xxxxxxx", b"9999999999991111"))
        );
        let line = |text: &str| run(b'd', &[Message::build(b'd', |out| out.put_slice(text.as_bytes()))]);
        assert_eq!(looked(&line("1\ta@b.example\n")), ("email 1".to_owned(), line("1\tx@x.xxxxxxx\n")));
    }

    /// The last byte of a length of 97 is an `a`, which could stand before an address.
    #[test]
    fn lengths_in_binary_values_stay() {
        let array = |mail: &str| {
            let mut value = BytesMut::new();
            for word in [1, 0, 25, 2, 1] {
                value.put_i32(word);
            }
            put_cell(&mut value, Some(format!("{mail}{}", " ".repeat(97 - mail.len())).as_bytes()));
            put_cell(&mut value, Some(format!("{mail}{}", " ".repeat(353 - mail.len())).as_bytes()));
            value
        };
        let (clear, hidden) = (array("lee@mail.example"), array("xxx@xxxx.xxxxxxx"));
        let rows = |value: &[u8]| run(b'D', &[row(&[Some(b"\0\0\0\x07"), Some(value)])]);
        assert_eq!(looked(&rows(&clear)), ("email 2".to_owned(), rows(&hidden)));
        // A tuple of a binary COPY is the same but for its place.
        let copied = |value: &[u8]| {
            let tuple = Message::build(b'd', |out| {
                out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
                out.put_i16(2);
                put_cell(out, Some(b"\0\0\0\x07"));
                put_cell(out, Some(value));
            });
            run(b'd', &[tuple, Message::build(b'd', |out| out.put_i16(-1))])
        };
        assert_eq!(looked(&copied(&clear)), ("email 2".to_owned(), copied(&hidden)));
    }

    #[test]
    fn words_are_looked_through_and_names_are_not() {
        let said = |tag: u8, body: &[u8]| Frame::from(Message::build(tag, |out| out.put_slice(body)));
        for (tag, clear, hidden) in [
            (
                b'E',
                &b"SERROR\0C23505\0Mdouble\0DKey (mail)=(a@b.example) exists.\0na@b.example\0\0"[..],
                &b"SERROR\0C23505\0Mdouble\0DKey (mail)=(x@x.xxxxxxx) exists.\0na@b.example\0\0"[..],
            ),
            (b'A', b"\0\0\0\x01news\0a@b.example\0", b"\0\0\0\x01news\0x@x.xxxxxxx\0"),
            (b'V', b"\0\0\0\x0ba@b.example", b"\0\0\0\x0bx@x.xxxxxxx"),
        ] {
            assert_eq!(looked(&said(tag, clear)), ("email 1".to_owned(), said(tag, hidden)));
        }
        let described = said(b'T', b"a@b.example\0");
        assert_eq!(looked(&described), (String::new(), described));
    }
}
