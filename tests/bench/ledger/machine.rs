//! What the machine says of itself and of this process.

use std::time::Duration;

use serde_json::{Value, json};

/// Processor time of this process so far, all threads.
pub(crate) fn processor_time() -> Duration {
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms, behind a name that may hold anything.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        |nth: usize| fields.split_whitespace().nth(nth).and_then(|field| field.parse().ok()).unwrap_or(0);
    let ticks: u64 = ticks(11) + ticks(12);
    Duration::from_millis(10 * ticks)
}

/// The most memory that this process ever had, in KiB.
pub(crate) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Processor, cores, and how busy it is.
pub(crate) fn about() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "processor": model.trim_start_matches(['\t', ' ', ':']),
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "load": read("/proc/loadavg").split_whitespace().next(),
    })
}
