//! A running program: its lines as they come, its end, and the promise that it never outlives the test.
//!
//! A child asks the kernel to be killed with the *thread* that started it, so all are started by one thread
//! that lives as long as the process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How many lines of a program are shown when a test fails.
const LAST_WORDS_MAX: usize = 25;
/// How many characters of each.
const LINE_MAX: usize = 300;

type Birth = (Command, Sender<std::io::Result<std::process::Child>>);

fn nursery() -> &'static Mutex<Sender<Birth>> {
    static NURSERY: OnceLock<Mutex<Sender<Birth>>> = OnceLock::new();
    NURSERY.get_or_init(|| {
        let (ask, asked) = channel::<Birth>();
        std::thread::spawn(move || {
            for (mut command, answer) in asked {
                // The asker may have gone; then its child goes as well.
                if let Err(unwanted) = answer.send(command.spawn())
                    && let Ok(mut child) = unwanted.0
                {
                    let _ = child.kill();
                }
            }
        });
        Mutex::new(ask)
    })
}

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    open_streams: usize,
}

/// A program that runs until it is dropped, with everything that it printed.
pub struct Child {
    name: String,
    process: std::process::Child,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts a program. Its standard output and error are read as one stream of lines.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let (answer, answered) = channel();
        nursery().lock().expect("the nursery lives").send((command, answer)).expect("the nursery lives");
        let born = answered.recv().expect("the nursery lives");
        let mut process = born.unwrap_or_else(|e| panic!("cannot start {name} ({shown}): {e}"));
        let heard = Arc::new((Mutex::new(Heard { lines: Vec::new(), open_streams: 2 }), Condvar::new()));
        listen(process.stdout.take().expect("stdout is piped"), Arc::clone(&heard));
        listen(process.stderr.take().expect("stderr is piped"), Arc::clone(&heard));
        Self { name: name.to_owned(), process, heard, ended: None }
    }

    /// The process's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When it no longer reads.
    pub fn write(&mut self, text: &str) {
        let input = self.process.stdin.as_mut().expect("stdin was not closed");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("the program reads its input");
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.process.stdin = None;
    }

    /// Waits for a line for which `wanted` has an answer, among all lines from number `from` on.
    ///
    /// # Panics
    /// When no such line came in time, or the program ended before it; the message holds everything it said.
    pub fn line_from<T>(
        &self,
        from: usize,
        what: &str,
        within: Duration,
        wanted: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let found = self.line_or_end(from, what, within, wanted);
        found.unwrap_or_else(|| {
            panic!("{} ended without {what}; it said:\n  {}", self.name, self.lines().join("\n  "))
        })
    }

    /// As [`Child::line_from`], but none when the program ends without such a line.
    ///
    /// # Panics
    /// When neither came in time; the message holds everything it said.
    pub fn line_or_end<T>(
        &self,
        from: usize,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + within;
        let (heard, news) = &*self.heard;
        let mut heard = heard.lock().expect("the listener lives");
        let mut next = from;
        loop {
            while next < heard.lines.len() {
                let found = wanted(&heard.lines[next]);
                if found.is_some() {
                    return found;
                }
                next += 1;
            }
            if heard.open_streams == 0 {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{}: no {what} within {within:?}; it said:\n  {}",
                self.name,
                heard.lines.join("\n  ")
            );
            heard = news.wait_timeout(heard, left).expect("the listener lives").0;
        }
    }

    /// Waits for a line that contains a text, and returns it.
    ///
    /// # Panics
    /// As [`Child::line_from`].
    pub fn line(&self, containing: &str, within: Duration) -> String {
        self.line_from(0, containing, within, |line| line.contains(containing).then(|| line.to_owned()))
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.heard.0.lock().expect("the listener lives").lines.clone()
    }

    /// Sends a signal. A program that has ended already is left in peace.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().expect("a child can be asked for its status");
        }
        self.ended.is_none()
    }

    /// Waits for its end, and for the last of its lines.
    ///
    /// # Panics
    /// When it runs longer than the deadline.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        let shown = self.name.clone();
        let status = crate::machine::until(&format!("end of {shown}"), within, || {
            let _ = self.runs();
            self.ended
        });
        let (heard, news) = &*self.heard;
        let mut heard = heard.lock().expect("the listener lives");
        // A grandchild may hold the streams open; what this program said has then still been read.
        while heard.open_streams > 0 {
            let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
            let (lock, timeout) = news.wait_timeout(heard, left).expect("the listener lives");
            heard = lock;
            if timeout.timed_out() {
                break;
            }
        }
        status
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.process.kill();
            self.ended = self.process.wait().ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let lines = self.lines();
            eprintln!("--- last words of {} ---", self.name);
            for line in &lines[lines.len().saturating_sub(LAST_WORDS_MAX)..] {
                eprintln!("{}", line.chars().take(LINE_MAX).collect::<String>());
            }
        }
    }
}

fn listen(stream: impl std::io::Read + Send + 'static, heard: Arc<(Mutex<Heard>, Condvar)>) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        // A program's words need not be UTF-8; they are kept as well as they can be shown.
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            heard.0.lock().expect("no listener panics").lines.push(text);
            heard.1.notify_all();
            line.clear();
        }
        heard.0.lock().expect("no listener panics").open_streams -= 1;
        heard.1.notify_all();
    });
}
