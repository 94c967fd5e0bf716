//! PostgreSQL's messages, cut out of a byte stream (PostgreSQL manual, "Message Formats", protocol 3.0 and 3.2).
//!
//! A message is `tag:u8 length:i32 body`, where the length counts itself. What must be understood is kept whole;
//! rows and COPY data pass in *runs*: as many messages of one tag as have arrived, or a part of one, so that a row
//! of a gigabyte costs no memory. Bytes are kept as they came and never encoded anew.
//!
//! What a newcomer gets wrong: the parsers here demand that a body is used up exactly. A string that ends early
//! (an embedded NUL) would be read differently by us and by the server, and is therefore malformed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::limits;

/// Bytes that are no message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The length field is smaller than itself.
    #[error("message {tag:?} claims a length of {length} bytes")]
    Length {
        /// The message's tag.
        tag: char,
        /// What it claims.
        length: u32,
    },
    /// The length is over the limit for its kind.
    #[error("message {tag:?} of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// The message's tag.
        tag: char,
        /// What it claims.
        length: u32,
        /// The limit that it breaks.
        limit: usize,
    },
    /// The body does not follow the message's format.
    #[error("message {tag:?}: {what}")]
    Body {
        /// The message's tag.
        tag: char,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A piece of the stream: one whole message, or a run of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One whole message.
    Message(Message),
    /// Data on its way through.
    Run(Run),
}

impl Frame {
    /// The bytes as they travelled.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Frame::Message(message) => &message.bytes,
            Frame::Run(run) => &run.bytes,
        }
    }

    /// How many messages end in it.
    #[must_use]
    pub fn messages(&self) -> u64 {
        match self {
            Frame::Message(_) => 1,
            Frame::Run(run) => run.completed,
        }
    }

    /// The tag of the message or of the run's messages.
    #[must_use]
    pub fn tag(&self) -> u8 {
        match self {
            Frame::Message(message) => message.tag(),
            Frame::Run(run) => run.tag,
        }
    }
}

/// One whole message, header included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
}

impl Message {
    /// Builds a message from its tag and what `write` puts into its body.
    ///
    /// # Panics
    /// When the body is over 2 GiB, which no caller can make: what we write ourselves is small or was bounded when it came.
    #[must_use]
    pub fn build(tag: u8, write: impl FnOnce(&mut BytesMut)) -> Message {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u8(tag);
        bytes.put_u32(0);
        write(&mut bytes);
        let length = u32::try_from(bytes.len() - 1).expect("a message of ours is under 2 GiB");
        bytes[1..5].copy_from_slice(&length.to_be_bytes());
        Message { bytes: bytes.freeze() }
    }

    /// The message's tag.
    #[must_use]
    pub fn tag(&self) -> u8 {
        self.bytes[0]
    }

    /// What follows the header.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(5..)
    }

    /// The whole message.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Reads the body's fields; all of it must be used.
    ///
    /// # Errors
    /// [`Malformed::Body`] when `read` finds too little, or leaves something over.
    pub fn parse<T>(&self, read: impl FnOnce(&mut Fields) -> Option<T>) -> Result<T, Malformed> {
        let mut fields = Fields(self.body());
        let malformed = |what| Malformed::Body { tag: char::from(self.tag()), what };
        let value = read(&mut fields)
            .ok_or_else(|| malformed("body ends early or holds a value that is not allowed"))?;
        if fields.0.is_empty() { Ok(value) } else { Err(malformed("bytes left over at the end")) }
    }
}

impl From<Message> for Frame {
    fn from(message: Message) -> Frame {
        Frame::Message(message)
    }
}

/// Consecutive data messages of one tag, the first and the last possibly cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `D` for rows, `d` for COPY data.
    pub tag: u8,
    /// The bytes, headers included.
    pub bytes: Bytes,
    /// How many of the bytes at its start belong to a message that began in an earlier run.
    pub resumes: usize,
    /// How many messages end in it.
    pub completed: u64,
    /// Whether its last message goes on in the next run: nothing else can be said in between.
    pub goes_on: bool,
}

impl Run {
    /// Its start, up to the end of its message number `messages`, counted from 1; all that ends in it where it holds fewer.
    #[must_use]
    pub fn first(&self, messages: u64) -> Run {
        let (mut end, mut completed) = (0, 0);
        while completed < messages.min(self.completed) {
            end += if end == 0 && self.resumes > 0 { self.resumes } else { self.length(end) };
            completed += 1;
        }
        Run {
            tag: self.tag,
            bytes: self.bytes.slice(..end),
            resumes: self.resumes.min(end),
            completed,
            goes_on: false,
        }
    }

    /// The length of the message that begins there; 0 where none does.
    fn length(&self, at: usize) -> usize {
        let length = self.bytes.get(at + 1..at + 5).and_then(|bytes| bytes.first_chunk());
        length.map_or(0, |length| u32::from_be_bytes(*length) as usize + 1)
    }
}

/// Reads the fields of a body one after another; `None` where the body ends early.
#[derive(Debug)]
pub struct Fields(Bytes);

impl Fields {
    /// An unsigned byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    /// A 16-bit count, which may not be negative.
    pub fn count(&mut self) -> Option<usize> {
        usize::try_from(self.0.try_get_i16().ok()?).ok()
    }

    /// A 16-bit number.
    pub fn i16(&mut self) -> Option<i16> {
        self.0.try_get_i16().ok()
    }

    /// A 32-bit number.
    pub fn i32(&mut self) -> Option<i32> {
        self.0.try_get_i32().ok()
    }

    /// A 32-bit unsigned number, as object ids are.
    pub fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    /// A string up to its NUL, without it.
    pub fn string(&mut self) -> Option<Bytes> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        Some(text)
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    /// All that is left.
    pub fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `count` fields, each read by `read`. Nothing is allocated before it has arrived.
    pub fn many<T>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Fields) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut values = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            values.push(read(self)?);
        }
        Some(values)
    }
}

/// Cuts frames out of what has arrived.
#[derive(Debug)]
pub struct Decoder {
    /// The tags whose messages stream through: what is `D` (a row) from a server is a short Describe from a client.
    streaming: &'static [u8],
    message_bytes_max: usize,
    /// Whether runs hold whole messages only.
    whole: bool,
    /// The tag of the data message that is under way, and how many of its bytes are still to come.
    under_way: Option<(u8, usize)>,
}

impl Decoder {
    /// Cuts what a client sends; whole messages are at most `message_bytes_max` long.
    #[must_use]
    pub fn client(message_bytes_max: usize) -> Decoder {
        Decoder { streaming: b"d", message_bytes_max, whole: false, under_way: None }
    }

    /// Cuts what a server sends; whole messages are at most `message_bytes_max` long.
    #[must_use]
    pub fn upstream(message_bytes_max: usize) -> Decoder {
        Decoder { streaming: b"Dd", message_bytes_max, whole: false, under_way: None }
    }

    /// From now on rows and COPY data come whole too, so that they can be looked through; one over the limit of other messages is an error.
    pub fn keep_whole(&mut self) {
        self.whole = true;
    }

    /// Takes the next frame off `buffer`, or nothing when more must arrive.
    ///
    /// # Errors
    /// [`Malformed`] when a header claims an impossible length; the stream is then of no further use.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        if self.under_way.is_some() || buffer.first().is_some_and(|tag| self.streaming.contains(tag)) {
            return self.decode_run(buffer);
        }
        let Some(total) = total_bytes(buffer, self.message_bytes_max)? else { return Ok(None) };
        if buffer.len() < total {
            buffer.reserve((total - buffer.len()).min(RESERVE_BYTES_MAX));
            return Ok(None);
        }
        Ok(Some(Frame::Message(Message { bytes: buffer.split_to(total).freeze() })))
    }

    /// Takes as many data messages of one tag as have arrived, the last one as far as it has.
    fn decode_run(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        let (tag, mut left) = self.under_way.unwrap_or_else(|| (buffer[0], 0));
        let resumes = left.min(buffer.len());
        let mut taken = 0;
        let mut completed = 0;
        loop {
            let step = left.min(buffer.len() - taken);
            taken += step;
            left -= step;
            if left > 0 {
                break;
            }
            if step > 0 {
                completed += 1;
            }
            if buffer.get(taken) != Some(&tag) {
                break;
            }
            let limit = if self.whole { self.message_bytes_max } else { limits::DATA_MESSAGE_BYTES_MAX };
            let Some(total) = total_bytes(&buffer[taken..], limit)? else { break };
            if self.whole && buffer.len() - taken < total {
                if taken == 0 {
                    buffer.reserve((total - buffer.len()).min(RESERVE_BYTES_MAX));
                }
                break;
            }
            left = total;
        }
        self.under_way = (left > 0).then_some((tag, left));
        if taken == 0 {
            return Ok(None);
        }
        Ok(Some(Frame::Run(Run {
            tag,
            bytes: buffer.split_to(taken).freeze(),
            resumes,
            completed,
            goes_on: left > 0,
        })))
    }
}

/// How much room is made at once for a message that has only announced itself.
const RESERVE_BYTES_MAX: usize = 64 << 10;

/// The total length of the message that starts the buffer, once its header is there.
fn total_bytes(buffer: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
    let Some((head, _)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let tag = char::from(head[0]);
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if length < 4 {
        return Err(Malformed::Length { tag, length });
    }
    let total = length as usize + 1;
    if total > limit { Err(Malformed::TooLong { tag, length, limit }) } else { Ok(Some(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in pieces of `step` bytes and gives back what came out, runs joined per tag.
    fn frames(mut decoder: Decoder, stream: &[u8], step: usize) -> Vec<(u8, Vec<u8>, u64)> {
        let mut buffer = BytesMut::new();
        let mut out: Vec<(u8, Vec<u8>, u64)> = Vec::new();
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer).expect("the stream is well formed") {
                match (frame, out.last_mut()) {
                    (Frame::Run(run), Some(last)) if last.0 == run.tag => {
                        last.1.extend_from_slice(&run.bytes);
                        last.2 += run.completed;
                    }
                    (Frame::Run(run), _) => out.push((run.tag, run.bytes.to_vec(), run.completed)),
                    (Frame::Message(message), _) => out.push((message.tag(), message.bytes().to_vec(), 1)),
                }
            }
        }
        assert!(buffer.is_empty(), "every byte belongs to a frame");
        out
    }

    #[test]
    fn a_stream_is_cut_alike_wherever_it_is_torn() {
        let mut stream = Vec::new();
        for (tag, body) in [
            (b'T', "description"),
            (b'D', "row one"),
            (b'D', ""),
            (b'D', "row three"),
            (b'C', "SELECT 3\0"),
            (b'd', "copied"),
            (b'Z', "I"),
        ] {
            stream.extend_from_slice(Message::build(tag, |out| out.put_slice(body.as_bytes())).bytes());
        }
        let whole = frames(Decoder::upstream(1 << 20), &stream, stream.len());
        assert_eq!(
            whole.iter().map(|frame| (frame.0, frame.2)).collect::<Vec<_>>(),
            [(b'T', 1), (b'D', 3), (b'C', 1), (b'd', 1), (b'Z', 1)]
        );
        for step in 1..stream.len() {
            assert_eq!(frames(Decoder::upstream(1 << 20), &stream, step), whole, "pieces of {step} bytes");
        }
    }

    #[test]
    fn a_run_is_shortened_to_whole_messages_wherever_it_began() {
        let rows: Vec<Bytes> = ["one", "", "three", "the fourth"]
            .iter()
            .map(|row| Message::build(b'D', |out| out.put_slice(row.as_bytes())).bytes().clone())
            .collect();
        let stream = rows.concat();
        for torn in 0..stream.len() {
            let mut decoder = Decoder::upstream(1 << 20);
            let mut buffer = BytesMut::from(&stream[..torn]);
            let mut before = 0;
            while let Ok(Some(Frame::Run(run))) = decoder.decode(&mut buffer) {
                before += run.bytes.len();
            }
            buffer.extend_from_slice(&stream[torn..]);
            let Ok(Some(Frame::Run(run))) = decoder.decode(&mut buffer) else { panic!("torn at {torn}") };
            for messages in 0..6 {
                let first = run.first(messages);
                let ended = 4 - usize::try_from(run.completed - first.completed).expect("few");
                assert_eq!(first.completed, messages.min(run.completed), "torn at {torn}");
                let whole = rows[..ended].concat();
                let expected = if first.completed == 0 { &[][..] } else { &whole[before..] };
                assert_eq!(&first.bytes[..], expected, "torn at {torn}, the first {messages}");
            }
        }
    }

    #[test]
    fn whole_messages_are_never_cut() {
        let mut decoder = Decoder::upstream(64);
        decoder.keep_whole();
        let row = |length: usize| Message::build(b'D', |out| out.put_bytes(b'x', length));
        let stream = [row(3).bytes().clone(), row(40).bytes().clone()].concat();
        let mut buffer = BytesMut::from(&stream[..stream.len() - 1]);
        let Ok(Some(Frame::Run(run))) = decoder.decode(&mut buffer) else { panic!("the first row has come") };
        assert_eq!((run.bytes.len(), run.completed, run.goes_on), (8, 1, false));
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        buffer.put_u8(b'x');
        let Ok(Some(Frame::Run(run))) = decoder.decode(&mut buffer) else {
            panic!("the second row has come")
        };
        assert_eq!((run.bytes.len(), run.completed, run.goes_on), (45, 1, false));
        buffer.extend_from_slice(&row(70).bytes()[..5]);
        assert!(matches!(decoder.decode(&mut buffer), Err(Malformed::TooLong { .. })));
    }

    #[test]
    fn impossible_lengths_are_refused_before_anything_is_allocated() {
        for (bytes, over) in [
            (&b"Q\0\0\0\x03"[..], false),
            (b"Q\xff\xff\xff\xff", true),
            (b"d\x7f\xff\xff\xff", true),
            (b"d\0\0\0\0", false),
        ] {
            let mut buffer = BytesMut::from(bytes);
            let refused = Decoder::client(1 << 20).decode(&mut buffer).expect_err("the length is impossible");
            assert_eq!(matches!(refused, Malformed::TooLong { .. }), over, "{bytes:?}");
        }
    }

    #[test]
    fn a_body_must_be_used_up_exactly() {
        let query =
            |body: &'static [u8]| Message::build(b'Q', |out| out.put_slice(body)).parse(Fields::string);
        assert_eq!(query(b"select 1\0").as_deref(), Ok(&b"select 1"[..]));
        assert!(query(b"select 1\0; drop table t\0").is_err(), "a hidden second string");
        assert!(query(b"select 1").is_err(), "no end");
    }
}
