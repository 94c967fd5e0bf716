//! The targets, for a fuzzer; the same run without one in the tests.

mod targets;

/// A segment's file, as it is: read to its end, also behind what is damaged.
pub fn segment(data: &[u8]) {
    targets::segment(data);
}

/// A frame, as it is, and once more with its checksums made right, so that what they guard is reached too.
pub fn frame(data: &[u8]) {
    targets::frame(data);
}

/// An entry, and its body: what is accepted has one spelling, which another JSON library writes too.
pub fn entry(data: &[u8]) {
    targets::entry(data);
}

/// A checkpoint, or a verifier key.
pub fn checkpoint(data: &[u8]) {
    targets::checkpoint(data);
}

/// The golden export with one file replaced: the first byte chooses it, the rest is its content.
pub fn bundle(data: &[u8]) {
    targets::bundle(data);
}
