//! Processor time of one process, as the kernel counts it.

use std::collections::BTreeMap;

/// Processor time of a process at one moment.
pub(crate) struct Cpu {
    /// Nanoseconds by thread.
    threads: BTreeMap<u32, u64>,
    /// The whole process, ended threads included, at the clock tick's precision.
    whole_ns: u64,
}

impl Cpu {
    /// Reads it; a process that is gone has used nothing.
    pub(crate) fn of(process: u32) -> Self {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            if let Some(on_cpu) = text.split(' ').next().and_then(|field| field.parse().ok()) {
                threads.insert(thread, on_cpu);
            }
        }
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The program's name may hold anything; the fields after its last parenthesis are plain (proc(5)).
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .map(|(_, fields)| fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
        Self { threads, whole_ns: ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()) }
    }

    /// Nanoseconds used since an earlier reading: exact, or to the tick where a thread has ended in between.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        if earlier.threads.keys().any(|thread| !self.threads.contains_key(thread)) {
            return self.whole_ns.saturating_sub(earlier.whole_ns);
        }
        let used = |(thread, now): (&u32, &u64)| now - earlier.threads.get(thread).unwrap_or(&0);
        self.threads.iter().map(used).sum()
    }
}
