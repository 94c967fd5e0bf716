//! Every size that a peer can claim has its limit here, by name; a length is checked before anything is allocated.

/// The longest message that must be whole before it is understood: a query, a parse, a bind, an error.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The longest message that streams through in pieces (rows, COPY data): PostgreSQL's own limit of 1 GiB.
pub const DATA_MESSAGE_BYTES_MAX: usize = 1 << 30;

/// The longest first packet of a connection, as PostgreSQL itself limits it (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The longest message during login: a token in a password or in SASL.
pub const LOGIN_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The bytes that the server keeps of a name, its NUL included (`NAMEDATALEN`).
pub const NAME_BYTES: usize = 64;

/// How many prepared statements, and how many portals, one session may keep at a time.
pub const NAMES_MAX: usize = 16_384;

/// How many bytes of text the prepared statements of one session may keep.
pub const STATEMENT_BYTES_MAX: usize = 128 << 20;

/// How many bytes of parameters the open portals of one session may keep.
pub const PORTAL_BYTES_MAX: usize = 128 << 20;

/// How many requests one session may have open upstream.
pub const OUTSTANDING_MAX: usize = 65_536;
