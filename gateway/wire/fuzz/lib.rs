//! The targets, for a fuzzer; the same run without one in the tests.

mod targets;

/// The decoders by bytes: however a stream is torn, it is cut alike, and nothing is lost of it.
pub fn frames(data: &[u8]) {
    targets::frames(data);
}

/// The analyser on texts: it ends, says the same twice, and never calls a read what the text's own first word says is none.
pub fn analysis(data: &[u8]) {
    targets::analysis(data);
}

/// The conversation by operations, between a client that says anything and a server that keeps to the protocol.
pub fn conversation(data: &[u8]) {
    targets::conversation(data);
}
