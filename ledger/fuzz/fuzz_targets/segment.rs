#![no_main]
#[allow(dead_code, reason = "each fuzz target uses its part")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::segment(data));
