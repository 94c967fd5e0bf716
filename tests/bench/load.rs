//! The workloads and what is measured of them.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use gatebook_tests::Child;
use gatebook_tests::machine::{self, START_MAX, memory_kb};
use gatebook_tests::postgres::Environment;
use gatebook_tests::wire::Client;
use serde_json::json;

use crate::cpu::Cpu;
use crate::lane::{Lane, Running, Upstream};

/// The statements of pgbench's own workloads, as scripts: the built-in ones ask for table sizes first, and every
/// execution is counted here.
const SELECT: &str =
    "\\set aid random(1, 100000 * :scale)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";
const TPCB: &str = "\\set aid random(1, 100000 * :scale)\n\\set bid random(1, 1 * :scale)\n\
    \\set tid random(1, 10 * :scale)\n\\set delta random(-5000, 5000)\nBEGIN;\n\
    UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;\n\
    UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;\n\
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);\n\
    END;\n";

/// How many inserts one pipeline holds.
const PIPELINED: u64 = 1000;

/// One cell of the table.
pub(crate) enum Load {
    /// A pgbench script.
    Bench { workload: Workload, protocol: &'static str, clients: u32 },
    /// The wide table to the client.
    CopyOut,
    /// The wide table from the client.
    CopyIn,
    /// Sessions that are open at once and say nothing.
    Idle { sessions: u32 },
}

/// What a pgbench script does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// One row by its key.
    Select,
    /// pgbench's own transaction of seven statements.
    Tpcb,
    /// A thousand inserts before one Sync.
    Pipeline,
    /// One row by its key over a connection of its own.
    Connect,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Workload::Select => "select",
            Workload::Tpcb => "tpcb",
            Workload::Pipeline => "pipeline",
            Workload::Connect => "connect",
        }
    }

    fn script(self) -> String {
        match self {
            Workload::Select | Workload::Connect => SELECT.to_owned(),
            Workload::Tpcb => TPCB.to_owned(),
            Workload::Pipeline => {
                let mut script = String::from("\\startpipeline\n");
                for at in 0..PIPELINED {
                    script +=
                        &format!("INSERT INTO bench_pipeline VALUES ({at}, 'a line of the thousand');\n");
                }
                script + "\\endpipeline\n"
            }
        }
    }

    /// How many executions one transaction of the script is.
    fn executions(self) -> u64 {
        match self {
            Workload::Select | Workload::Connect => 1,
            Workload::Tpcb => 7,
            Workload::Pipeline => PIPELINED,
        }
    }
}

impl Load {
    /// Every cell, in the order in which they run.
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        let mut all = Vec::new();
        let mut bench = |workload, protocol, clients| all.push(Load::Bench { workload, protocol, clients });
        for protocol in ["simple", "extended", "prepared"] {
            for clients in [1, 8, 64] {
                bench(Workload::Select, protocol, clients);
                // A quick run keeps the writes to the mode that most drivers use.
                if !quick || protocol == "prepared" {
                    bench(Workload::Tpcb, protocol, clients);
                }
            }
        }
        bench(Workload::Pipeline, "extended", 1);
        bench(Workload::Connect, "simple", 8);
        all.push(Load::CopyOut);
        all.push(Load::CopyIn);
        all.push(Load::Idle { sessions: if quick { 100 } else { 1000 } });
        all
    }

    /// Its name in the figures.
    pub(crate) fn name(&self) -> String {
        match self {
            Load::Bench { workload, protocol, .. } => format!("{}-{protocol}", workload.name()),
            Load::CopyOut => "copy-out".to_owned(),
            Load::CopyIn => "copy-in".to_owned(),
            Load::Idle { .. } => "idle".to_owned(),
        }
    }

    /// How many clients it has at once.
    pub(crate) fn clients(&self) -> u32 {
        match self {
            Load::Bench { clients, .. } => *clients,
            Load::CopyOut | Load::CopyIn => 1,
            Load::Idle { sessions } => *sessions,
        }
    }
}

/// Fills the tables, directly; returns pgbench's scale.
pub(crate) fn prepare(direct: &Environment, scale: u32, copy_mb: u32) -> u32 {
    let mut pgbench = Command::new(machine::program("pgbench"));
    direct.apply(&mut pgbench);
    machine::run(pgbench.args(["-i", "-q", "-s", &scale.to_string(), "--unlogged-tables"]));
    // A row of the wide table is 1,024 bytes on the wire, its line break included.
    let rows = copy_mb * 1024;
    psql(
        direct,
        &format!(
            "CREATE UNLOGGED TABLE bench_wide AS SELECT rpad(i::text, 1023, 'gatebook') AS line FROM generate_series(1, {rows}) i; \
             CREATE UNLOGGED TABLE bench_copied (line text); \
             CREATE UNLOGGED TABLE bench_pipeline (id int, body text)"
        ),
    );
    psql(direct, "VACUUM ANALYZE");
    scale
}

fn psql(environment: &Environment, sql: &str) -> String {
    let mut psql = Command::new(machine::program("psql"));
    environment.apply(&mut psql);
    machine::run(psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]))
}

/// What one run of one cell through one lane gave.
pub(crate) struct Measured {
    via: &'static str,
    mode: String,
    clients: u32,
    ledger: Option<&'static str>,
    executed: u64,
    tps: f64,
    cpu_us_per_txn: Option<f64>,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    peak_kb: Option<u64>,
    idle_kb: Option<f64>,
    recorded: Option<u64>,
    /// What was wrong, when anything was.
    pub(crate) failure: Option<String>,
}

impl Measured {
    /// The head of the table.
    pub(crate) const HEADING: &str = "mode               clients  via        ledger        tps   cpu µs/txn    p50 µs    p99 µs    peak MB    recorded\n\
         ─────────────────  ───────  ─────────  ──────  ─────────  ───────────  ────────  ────────  ─────────  ──────────";

    /// One line of the table.
    pub(crate) fn row(&self) -> String {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        format!(
            "{:<17}  {:>7}  {:<9}  {:<6}  {:>9.1}  {:>11}  {:>8}  {:>8}  {:>9}  {:>10}",
            self.mode,
            self.clients,
            self.via,
            self.ledger.unwrap_or("–"),
            self.tps,
            or_dash(self.cpu_us_per_txn.map(|cpu| format!("{cpu:.1}"))),
            or_dash(self.p50_us.map(|us| us.to_string())),
            or_dash(self.p99_us.map(|us| us.to_string())),
            or_dash(self.peak_kb.map(|kb| (kb / 1024).to_string())),
            or_dash(self.recorded.map(|count| count.to_string())),
        ) + &self.idle_kb.map(|kb| format!("   {kb:.1} KB a session")).unwrap_or_default()
    }

    /// One object. For `copy-…` a transaction is a megabyte, for `idle` the opening of a session.
    pub(crate) fn json(&self) -> String {
        json!({
            "via": self.via,
            "mode": self.mode,
            "clients": self.clients,
            "tls": true,
            "ledger": self.ledger,
            "tps": self.tps,
            "cpu_us_per_txn": self.cpu_us_per_txn,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "peak_kb": self.peak_kb,
            "idle_kb_per_session": self.idle_kb,
            "executed": self.executed,
            "recorded": self.recorded,
        })
        .to_string()
    }
}

/// What a client did.
struct Done {
    executions: u64,
    tps: f64,
    /// Processor time of the process in the middle for one transaction, connecting left out.
    cpu_us_per_txn: Option<f64>,
    latencies_us: Vec<u64>,
    /// What one idle session holds of the memory of the process in the middle.
    idle_kb: Option<f64>,
}

/// Runs one cell through one lane.
pub(crate) fn run(load: &Load, lane: &Lane, upstream: &Upstream<'_>, seconds: u32) -> Measured {
    let running = lane.open(upstream.postgres);
    let done = match load {
        Load::Bench { workload, protocol, clients } => {
            pgbench(&running, upstream.scale, *workload, protocol, *clients, seconds)
        }
        Load::Idle { sessions } => idle(&running, *sessions),
        Load::CopyOut => copy(&running, upstream.copy_mb, "COPY bench_wide TO STDOUT", None),
        Load::CopyIn => {
            let direct = upstream
                .postgres
                .environment(gatebook_tests::postgres::APP, gatebook_tests::postgres::APP_PASSWORD);
            psql(&direct, "TRUNCATE bench_copied");
            let data = copy_source(&direct);
            copy(&running, upstream.copy_mb, "COPY bench_copied FROM STDIN", Some(data.path()))
        }
    };
    let peak_kb = running.process.and_then(|process| memory_kb(process, "VmHWM"));
    let recorded = running.close();
    let mut latencies = done.latencies_us;
    latencies.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a list")]
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).copied()
    };
    let mode = load.name();
    let failure = recorded.as_ref().and_then(|recorded| {
        let counts = (recorded.executions != done.executions)
            .then(|| format!("{} executed, {} recorded", done.executions, recorded.executions));
        counts.or_else(|| recorded.broken.clone()).map(|why| format!("{} {mode}: {why}", lane.via))
    });
    Measured {
        via: lane.via,
        mode,
        clients: load.clients(),
        ledger: lane.ledger(),
        executed: done.executions,
        tps: done.tps,
        cpu_us_per_txn: done.cpu_us_per_txn,
        p50_us: at(0.50),
        p99_us: at(0.99),
        peak_kb,
        idle_kb: done.idle_kb,
        recorded: recorded.map(|recorded| recorded.executions),
        failure,
    }
}

fn pgbench(
    running: &Running,
    scale: u32,
    workload: Workload,
    protocol: &str,
    clients: u32,
    seconds: u32,
) -> Done {
    let folder = machine::temporary();
    let script = folder.path().join("script.sql");
    std::fs::write(&script, workload.script()).expect("the folder can be written");
    let mut command = machine::mortal(&machine::program("pgbench"));
    running.environment.apply(&mut command);
    command.current_dir(folder.path());
    command.args([
        "-n",
        "-M",
        protocol,
        "-c",
        &clients.to_string(),
        "-j",
        if clients > 1 { "2" } else { "1" },
    ]);
    // The first second warms up; the last may be cut short.
    command.args(["-T", &(seconds + 2).to_string(), "-P", "1"]);
    command.args(["-D", &format!("scale={scale}"), "-f"]).arg(&script);
    command.args(["--log", "--log-prefix=latency"]);
    if clients > 1 {
        command.arg("--sampling-rate=0.2");
    }
    if workload == Workload::Connect {
        command.arg("-C");
    }
    let mut bench = Child::start("pgbench", command);
    let window = Window::watch(&bench, running.process, seconds as usize);
    let status = bench.wait(START_MAX);
    let said = bench.lines().join("\n");
    assert!(status.success(), "pgbench failed:\n{said}");
    let after = |label: &str| -> String {
        let line = said.lines().find_map(|line| line.strip_prefix(label));
        let rest = line.unwrap_or_else(|| panic!("pgbench did not say {label:?}:\n{said}"));
        rest.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
    };
    let transactions: u64 = after("number of transactions actually processed:").parse().expect("a count");
    assert!(said.contains("number of failed transactions: 0 "), "pgbench met failures:\n{said}");
    Done {
        executions: transactions * workload.executions(),
        tps: window.as_ref().map_or_else(|| after("tps =").parse().expect("a rate"), |window| window.tps),
        cpu_us_per_txn: window.and_then(|window| window.cpu_us_per_txn),
        latencies_us: latencies(folder.path()),
        idle_kb: None,
    }
}

/// What happened between pgbench's progress lines, so that neither connecting nor closing is counted.
struct Window {
    tps: f64,
    cpu_us_per_txn: Option<f64>,
}

impl Window {
    /// None when pgbench was over before there were two such lines: a slow lane with many connections to make.
    fn watch(bench: &Child, process: Option<u32>, seconds: usize) -> Option<Self> {
        let next = |at: usize| {
            let mut seen = 0;
            bench.line_or_end(0, "progress", START_MAX, |line| {
                let progress = progress(line)?;
                seen += 1;
                (seen > at).then_some(progress)
            })
        };
        let mut last = next(0)?;
        let before = process.map(Cpu::of);
        let (mut time, mut transactions, mut used) = (0.0, 0.0, None);
        for at in 1..=seconds {
            let Some(now) = next(at) else { break };
            used = process.zip(before.as_ref()).map(|(process, before)| Cpu::of(process).since(before));
            time += now.0 - last.0;
            transactions += (now.0 - last.0) * now.1;
            last = now;
        }
        let some = time > 0.0 && transactions > 0.0;
        some.then(|| Self {
            tps: transactions / time,
            cpu_us_per_txn: used.map(|ns| ns as f64 / 1000.0 / transactions),
        })
    }
}

/// `progress: 2.0 s, 3373.6 tps, …` as its time and rate.
fn progress(line: &str) -> Option<(f64, f64)> {
    let mut fields = line.strip_prefix("progress: ")?.split(", ");
    let at = fields.next()?.strip_suffix(" s")?.parse().ok()?;
    let tps = fields.next()?.strip_suffix(" tps")?.parse().ok()?;
    Some((at, tps))
}

/// pgbench's log, one line a transaction: client, transaction, latency in microseconds, …
fn latencies(folder: &Path) -> Vec<u64> {
    let mut all = Vec::new();
    for file in folder.read_dir().expect("the folder can be read").flatten() {
        if file.file_name().to_string_lossy().starts_with("latency") {
            let text = std::fs::read_to_string(file.path()).expect("the log can be read");
            all.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()));
        }
    }
    all
}

/// What is copied in: the wide table as text, in memory where the machine has such a folder.
fn copy_source(direct: &Environment) -> tempfile::NamedTempFile {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let file = tempfile::NamedTempFile::new_in(folder).expect("a temporary file can be made");
    let mut psql = Command::new(machine::program("psql"));
    direct.apply(&mut psql);
    psql.args(["-X", "-q", "-c", "COPY bench_wide TO STDOUT", "-o"]).arg(file.path());
    machine::run(&mut psql);
    file
}

fn copy(running: &Running, megabytes: u32, sql: &str, source: Option<&Path>) -> Done {
    let mut psql = Command::new(machine::program("psql"));
    running.environment.apply(&mut psql);
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-c", sql]);
    if let Some(source) = source {
        psql.stdin(std::fs::File::open(source).expect("the source can be read"));
    }
    let before = running.process.map(Cpu::of);
    let start = Instant::now();
    machine::run(&mut psql);
    let took = start.elapsed();
    let used = running.process.zip(before).map(|(process, before)| Cpu::of(process).since(&before));
    let megabytes = f64::from(megabytes);
    Done {
        executions: 1,
        tps: megabytes / took.as_secs_f64(),
        cpu_us_per_txn: used.map(|ns| ns as f64 / 1000.0 / megabytes),
        latencies_us: Vec::new(),
        idle_kb: None,
    }
}

/// Opens sessions and leaves them open: what does one hold, once all are logged in?
fn idle(running: &Running, sessions: u32) -> Done {
    let environment = &running.environment;
    let roots = std::fs::read(&environment.authority).expect("the authority can be read");
    let config = gatebook_tests::certificates::trusting(&roots);
    let address = ([127, 0, 0, 1], environment.port).into();
    let open = || {
        let mut client = Client::tls(address, config.clone());
        let told = client.login(&environment.user, &environment.database, &environment.password);
        told.unwrap_or_else(|refused| panic!("an idle session is refused: {refused:?}"));
        client
    };
    let memory = || running.process.and_then(|process| memory_kb(process, "VmRSS"));
    // What is made once, for the first session, is no session's own.
    let first = open();
    let (memory_before, cpu_before) = (memory(), running.process.map(Cpu::of));
    let start = Instant::now();
    let clients: Vec<Client> = (0..sessions).map(|_| open()).collect();
    let took = start.elapsed();
    let used = running.process.zip(cpu_before).map(|(process, before)| Cpu::of(process).since(&before));
    let grown = memory().zip(memory_before).map(|(now, before)| now.saturating_sub(before) as f64);
    drop((clients, first));
    Done {
        executions: 0,
        tps: f64::from(sessions) / took.as_secs_f64(),
        cpu_us_per_txn: used.map(|ns| ns as f64 / 1000.0 / f64::from(sessions)),
        latencies_us: Vec::new(),
        idle_kb: grown.map(|kb| kb / f64::from(sessions)),
    }
}
