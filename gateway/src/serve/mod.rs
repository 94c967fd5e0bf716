//! One short file a protocol: log in, open a session, connect upstream, relay.

pub(crate) mod postgres;
