//! Accepts connections, bounded in number, so that a flood of them waits outside and a slow one holds up nobody.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::descriptors;
use crate::gateway::{Gateway, Listening};
use crate::serve;

/// How long to wait after the system refused to accept: out of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be, in all and before login.
pub(crate) struct Doorkeeper {
    connections: Arc<Semaphore>,
    logins: Arc<Semaphore>,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_source_max: usize,
}

/// A place among the connections that have not logged in.
pub(crate) struct LoginSlot {
    _login: OwnedSemaphorePermit,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    source: IpAddr,
}

impl Drop for LoginSlot {
    fn drop(&mut self) {
        let mut sources = self.sources.lock();
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

impl Doorkeeper {
    /// A doorkeeper with these limits.
    pub(crate) fn new(limits: &crate::config::Limits) -> Arc<Doorkeeper> {
        Arc::new(Doorkeeper {
            connections: Arc::new(Semaphore::new(descriptors::connections_max(limits.connections_max))),
            logins: Arc::new(Semaphore::new(limits.logins_max)),
            sources: Arc::default(),
            per_source_max: limits.logins_per_source_max,
        })
    }

    /// A place for a connection; none when there are too many, in all or from its source.
    pub(crate) fn admit(&self, source: IpAddr) -> Option<(OwnedSemaphorePermit, LoginSlot)> {
        let connection = self.connections.clone().try_acquire_owned().ok()?;
        let login = self.logins.clone().try_acquire_owned().ok()?;
        let source = network(source);
        let mut sources = self.sources.lock();
        let count = sources.entry(source).or_default();
        if *count >= self.per_source_max {
            return None;
        }
        *count += 1;
        drop(sources);
        Some((connection, LoginSlot { _login: login, sources: self.sources.clone(), source }))
    }
}

/// The source as it is counted: of IPv6 the first 64 bits, since whoever has one address there has all that begin so (RFC 6177).
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Accepts until `stop` says so. Each connection is a task of its own.
pub(crate) async fn listen(
    gateway: Arc<Gateway>,
    listening: Arc<Listening>,
    listener: TcpListener,
    doorkeeper: Arc<Doorkeeper>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, source): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Too many: it is closed at once, and the client sees that before it has sent a token.
        let Some((connection, slot)) = doorkeeper.admit(source.ip()) else {
            tracing::warn!(%source, "connection closed: too many at once");
            continue;
        };
        let (gateway, listening) = (gateway.clone(), listening.clone());
        tokio::spawn(async move {
            serve::postgres::serve(gateway, listening, stream, source, slot).await;
            drop(connection);
        });
    }
}
