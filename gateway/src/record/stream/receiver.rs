//! Where events go, and how far they surely arrived.
//!
//! A file has what was synced. A datagram is gone once it is sent. Over TCP nobody acknowledges: what was written lies in the
//! buffers of two systems, and is lost with the receiver. But they hold only so much: once `resend` more bytes went the same
//! way, the receiver's process must have taken what was before them. So that much is remembered, and sent again to the next
//! connection whenever one ends.
//!
//! What a newcomer gets wrong: a write to somebody who just went succeeds. So the other half is read, too, for its end.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Batch, Cursor};
use crate::config::{StreamConfig, StreamTo};

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a receiver may take nothing at all.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

pub(super) enum Receiver {
    File(PathBuf),
    Unix(PathBuf),
    Udp(String),
    Tcp(Tcp),
}

impl Receiver {
    pub(super) fn new(config: &StreamConfig) -> Receiver {
        match &config.to {
            StreamTo::File(path) => Receiver::File(path.clone()),
            StreamTo::Unix(path) => Receiver::Unix(path.clone()),
            StreamTo::Udp(address) => Receiver::Udp(address.clone()),
            StreamTo::Tcp(address) => Receiver::Tcp(Tcp {
                address: address.clone(),
                resend: config.resend,
                stream: None,
                unsure: Unsure::default(),
            }),
        }
    }

    /// Whether nobody is there any more, who may not have taken everything that was sent.
    pub(super) fn is_gone(&mut self) -> bool {
        match self {
            Receiver::Tcp(tcp) => tcp.is_gone(),
            Receiver::File(_) | Receiver::Unix(_) | Receiver::Udp(_) => false,
        }
    }

    /// Sends a batch; gives back up to where everything surely arrived, where that is further than before.
    pub(super) fn send(&mut self, batch: &Batch) -> io::Result<Option<Cursor>> {
        match self {
            Receiver::File(path) => append(path, batch)?,
            Receiver::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(SEND_DEADLINE))?;
                for line in &batch.lines {
                    socket.send_to(line.datagram().as_bytes(), &*path)?;
                }
            }
            Receiver::Udp(address) => {
                let target = target(address)?;
                let socket = UdpSocket::bind(if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
                socket.set_write_timeout(Some(SEND_DEADLINE))?;
                for line in &batch.lines {
                    socket.send_to(line.datagram().as_bytes(), target)?;
                }
            }
            Receiver::Tcp(tcp) => return tcp.send(batch),
        }
        Ok(Some(batch.after))
    }

    /// Something failed: what comes goes to whoever is there then.
    pub(super) fn close(&mut self) {
        if let Receiver::Tcp(tcp) = self {
            tcp.close();
        }
    }
}

/// Opened anew each time, so that the file can be moved away. A line that a crash cut short is ended first.
fn append(path: &Path, batch: &Batch) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut text = Vec::with_capacity(batch.bytes + batch.lines.len() + 1);
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push(b'\n');
        }
    }
    for line in &batch.lines {
        text.extend_from_slice(line.json().as_bytes());
        text.push(b'\n');
    }
    file.write_all(&text)?;
    file.sync_data()
}

/// A receiver of messages framed as in RFC 6587, section 3.4.1: each behind its length.
pub(super) struct Tcp {
    address: String,
    resend: u64,
    stream: Option<TcpStream>,
    unsure: Unsure,
}

impl Tcp {
    fn is_gone(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        // A receiver of syslog has nothing to say; what it says all the same is passed over.
        let mut said = [0; 512];
        let read = stream.set_nonblocking(true).and_then(|()| stream.read(&mut said));
        let back = stream.set_nonblocking(false);
        let lives = match read {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if lives && back.is_ok() {
            return false;
        }
        self.close();
        true
    }

    fn close(&mut self) {
        self.stream = None;
        self.unsure = Unsure::default();
    }

    fn send(&mut self, batch: &Batch) -> io::Result<Option<Cursor>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect_timeout(&target(&self.address)?, CONNECT_DEADLINE)?;
                stream.set_write_timeout(Some(SEND_DEADLINE))?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        let mut framed = Vec::with_capacity(batch.bytes + batch.lines.len() * 96);
        for line in &batch.lines {
            let message = line.message();
            framed.extend_from_slice(format!("{} {message}", message.len()).as_bytes());
        }
        stream.write_all(&framed)?;
        Ok(self.unsure.sent(batch.after, framed.len() as u64, self.resend))
    }
}

/// What was sent over one connection, and may still be in the buffers between here and the receiver.
#[derive(Default)]
struct Unsure {
    /// Behind each batch, and its bytes.
    batches: VecDeque<(Cursor, u64)>,
    bytes: u64,
}

impl Unsure {
    /// Takes note of a batch; gives back up to where everything has `resend` bytes behind it, where something newly has.
    fn sent(&mut self, after: Cursor, bytes: u64, resend: u64) -> Option<Cursor> {
        self.batches.push_back((after, bytes));
        self.bytes += bytes;
        let mut settled = None;
        while let Some((cursor, bytes)) = self.batches.front()
            && self.bytes - bytes >= resend
        {
            settled = Some(*cursor);
            self.bytes -= bytes;
            self.batches.pop_front();
        }
        settled
    }
}

fn target(address: &str) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_buffers_may_hold_is_never_settled() {
        let at = |next| Cursor { next, place: None };
        let mut unsure = Unsure::default();
        assert_eq!(unsure.sent(at(1), 60, 100), None);
        assert_eq!(unsure.sent(at(2), 60, 100), None, "only 60 bytes went behind the first");
        assert_eq!(unsure.sent(at(3), 39, 100), None);
        assert_eq!(unsure.sent(at(4), 1, 100), Some(at(1)), "now there are 100");
        assert_eq!(unsure.sent(at(5), 1000, 100), Some(at(4)));
        assert_eq!(unsure.sent(at(6), 99, 100), None);
        assert_eq!(unsure.sent(at(7), 1, 100), Some(at(5)));
    }
}
