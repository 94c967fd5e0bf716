//! The loop between terminal, app and ledger: one thread draws, one reads the ledger, one verifies it, one
//! listens to keys. They share nothing but messages.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::app::{App, Now};
use crate::load::{LoadError, Loader, Pins, verify};
use crate::message::{Message, SessionId, VerdictState, Wish};
use crate::terminal::{self, Screen};
use crate::theme::Theme;
use crate::view;

/// Time is told to the app so often while nothing else happens.
const TICK: Duration = Duration::from_millis(250);
/// And so often while a replay plays.
const FRAME: Duration = Duration::from_millis(33);
/// No more messages wait than this; whoever would send more waits.
const MESSAGES_MAX: usize = 64;

/// Why the screen ended otherwise than by `q`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger cannot be read at all.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows a ledger until the auditor has seen enough.
///
/// # Errors
/// [`RunError`] where the ledger cannot be read, or the terminal fails.
pub fn run(directory: PathBuf, pins: Pins, session: Option<SessionId>) -> Result<(), RunError> {
    let loader = Loader::open(&directory, pins.clone())?;
    let began = Instant::now();
    let now = || Now {
        wall_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds),
        steady_ns: nanoseconds(began.elapsed()),
    };
    let (to_app, messages) = mpsc::sync_channel(MESSAGES_MAX);
    let mut screen = Screen::take()?;
    terminal::listen_to_signals(to_app.clone())?;
    terminal::listen(to_app.clone());
    let theme = Theme::from_environment();
    let mut app = App::new(directory.display().to_string(), screen.size()?, session, now());
    let world = World { directory, pins, to_reader: start_reader(loader, to_app.clone()), to_app };
    let mut wishes = app.first_wishes();
    loop {
        for wish in wishes.drain(..) {
            if wish == Wish::Quit {
                return Ok(());
            }
            world.grant(wish);
        }
        screen.draw(|frame| view::draw(frame, &app, theme))?;
        wishes = next(&messages, &mut app, now);
    }
}

/// Waits for something to happen, and takes all that has happened, so that it is drawn once.
fn next(messages: &Receiver<Message>, app: &mut App, now: impl Fn() -> Now) -> Vec<Wish> {
    let patience = if app.is_moving() { FRAME } else { TICK };
    let first = match messages.recv_timeout(patience) {
        Ok(message) => message,
        Err(RecvTimeoutError::Timeout) => match terminal::last_words() {
            Some(words) => Message::Trouble(format!("a part of this program failed: {words}")),
            None => Message::Tick,
        },
        Err(RecvTimeoutError::Disconnected) => Message::Quit,
    };
    let mut wishes = app.update(first, now());
    for _ in 0..MESSAGES_MAX {
        match messages.try_recv() {
            Ok(message) => wishes.extend(app.update(message, now())),
            Err(_) => break,
        }
    }
    wishes
}

struct World {
    directory: PathBuf,
    pins: Pins,
    to_reader: Sender<Wish>,
    to_app: SyncSender<Message>,
}

impl World {
    fn grant(&self, wish: Wish) {
        if wish == Wish::Verify {
            let (directory, pins, to_app) = (self.directory.clone(), self.pins.clone(), self.to_app.clone());
            thread::spawn(move || {
                // A progress that nobody has time for is dropped; the next one says more.
                let progress =
                    |share| drop(to_app.try_send(Message::Verdict(VerdictState::Running { share })));
                let verdict = verify(&directory, &pins, &progress);
                drop(to_app.send(Message::Verdict(verdict)));
            });
        } else if self.to_reader.send(wish).is_err() {
            drop(self.to_app.try_send(Message::Trouble("the ledger's reader has stopped".to_owned())));
        }
    }
}

/// Starts the thread that reads. What the auditor asks for goes before what was appended.
fn start_reader(mut loader: Loader, to_app: SyncSender<Message>) -> Sender<Wish> {
    let (to_reader, wishes) = mpsc::channel();
    thread::spawn(move || {
        let mut reading = false;
        loop {
            let wish = if reading {
                wishes.try_recv()
            } else {
                wishes.recv().map_err(|_| TryRecvError::Disconnected)
            };
            match wish {
                Ok(Wish::Refresh) => reading = true,
                Ok(wish) => {
                    for message in loader.grant(&wish) {
                        if to_app.send(message).is_err() {
                            return;
                        }
                    }
                }
                Err(TryRecvError::Empty) => {
                    let (messages, done) = loader.read_on();
                    reading = !done;
                    let idle = done.then_some(Message::Idle);
                    for message in messages.into_iter().chain(idle) {
                        if to_app.send(message).is_err() {
                            return;
                        }
                    }
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    });
    to_reader
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
