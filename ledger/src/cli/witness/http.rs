//! As much of HTTP/1.1 (RFC 9112) as a witness needs: requests with a known length, answers with one.
//!
//! What a newcomer gets wrong: two lengths, or a length and an encoding, are two opinions on where a request
//! ends; a proxy in front may hold the other one. Such a request is refused and the connection closed.

use std::io::{self, Read, Write};

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 48;

/// A request's line and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body_bytes: usize,
    /// Whether the connection stays.
    pub(super) keeps: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The peer closed the connection between two requests.
    Closed,
    /// It failed, or its time was over.
    Failed,
    /// It is to be refused with this status.
    Refused(&'static str),
}

/// Reads a request's head; what follows it stays in `buffer`.
pub(super) fn read_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Head, NoRequest> {
    loop {
        if let Some((head, length)) = parse(buffer)? {
            buffer.drain(..length);
            return Ok(head);
        }
        if buffer.len() >= HEAD_BYTES_MAX {
            return Err(NoRequest::Refused("431 Request Header Fields Too Large"));
        }
        if read_more(stream, buffer, HEAD_BYTES_MAX)? == 0 {
            return Err(if buffer.is_empty() { NoRequest::Closed } else { NoRequest::Failed });
        }
    }
}

/// Reads a request's body, of which a part stands in `buffer`; what follows it stays there.
pub(super) fn read_body(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    bytes: usize,
) -> Result<Vec<u8>, NoRequest> {
    while buffer.len() < bytes {
        if read_more(stream, buffer, bytes)? == 0 {
            return Err(NoRequest::Failed);
        }
    }
    let rest = buffer.split_off(bytes);
    Ok(std::mem::replace(buffer, rest))
}

fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>, bytes_max: usize) -> Result<usize, NoRequest> {
    let before = buffer.len();
    buffer.resize(bytes_max.min(before + 4096), 0);
    let read = stream.read(&mut buffer[before..]);
    buffer.truncate(before + *read.as_ref().unwrap_or(&0));
    read.map_err(|_| NoRequest::Failed)
}

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, NoRequest> {
    const BAD: NoRequest = NoRequest::Refused("400 Bad Request");
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BAD),
    };
    let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version) else {
        return Err(BAD);
    };
    let mut head =
        Head { method: method.to_owned(), path: path.to_owned(), body_bytes: 0, keeps: version == 1 };
    let mut lengths = 0;
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| BAD)?.trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                lengths += 1;
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                head.body_bytes = value.parse().ok().filter(|_| digits).ok_or(BAD)?;
            }
            "transfer-encoding" => return Err(NoRequest::Refused("411 Length Required")),
            "connection" => {
                head.keeps &= !value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
            }
            _ => {}
        }
    }
    if lengths > 1 { Err(BAD) } else { Ok(Some((head, length))) }
}

/// Writes an answer.
pub(super) fn answer(
    stream: &mut impl Write,
    status: &str,
    kind: &str,
    body: &[u8],
    keeps: bool,
) -> io::Result<()> {
    let connection = if keeps { "keep-alive" } else { "close" };
    let mut out = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nx-content-type-options: nosniff\r\nconnection: {connection}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    stream.write_all(&out)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, NoRequest> {
        read_head(&mut text.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn one_opinion_on_where_a_request_ends() {
        let good = head("POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!((good.body_bytes, good.keeps, good.path.as_str()), (12, true, "/add-checkpoint"));
        for bad in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST /\r\n\r\n",
            "\0\0\0\0",
        ] {
            assert!(matches!(head(bad), Err(NoRequest::Refused(_))), "{bad:?}");
        }
        assert!(matches!(head(""), Err(NoRequest::Closed)));
        assert!(matches!(head("POST / HTTP/1.1\r\nHost"), Err(NoRequest::Failed)));
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert!(matches!(head(&long), Err(NoRequest::Refused(_))));
    }

    #[test]
    fn what_follows_a_request_is_the_next_one() {
        let text =
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nConnection: close\r\n\r\n";
        let (mut stream, mut buffer) = (text.as_bytes(), Vec::new());
        let first = read_head(&mut stream, &mut buffer).unwrap();
        assert_eq!(read_body(&mut stream, &mut buffer, first.body_bytes).unwrap(), b"abc");
        let second = read_head(&mut stream, &mut buffer).unwrap();
        assert_eq!((second.path.as_str(), second.keeps), ("/b", false));
    }
}
