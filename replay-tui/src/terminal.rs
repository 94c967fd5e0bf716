//! The terminal: taken at the start, given back at every end – return, panic, signal.
//!
//! While it is taken, text of right-to-left scripts is not reordered (ECMA-48 explicit mode, for terminals that
//! know it): evidence stands on the screen in the order in which it was recorded.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::Mutex;
use std::sync::mpsc::SyncSender;
use std::thread;

use crossterm::event::{self, Event};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::keys::Key;
use crate::message::Message;

const KEEP_ORDER: &[u8] = b"\x1b[8l";
const REORDER: &[u8] = b"\x1b[8h";

/// What a thread other than the screen's said when it panicked.
static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

/// The terminal while it is taken. Dropping it gives the terminal back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where it is none, or does not answer.
    pub fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        give_back_on_panic();
        let mut out = io::stdout();
        let taken =
            execute!(out, EnterAlternateScreen, cursor::Hide).and_then(|()| out.write_all(KEEP_ORDER));
        let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(out)));
        match terminal {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// Where the terminal does not say.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Draws.
    ///
    /// # Errors
    /// Where the terminal cannot be written.
    pub fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// What a thread other than the screen's said when it panicked, once.
pub fn last_words() -> Option<String> {
    LAST_WORDS.lock().ok()?.take()
}

fn give_back() {
    let mut out = io::stdout();
    // Nothing is left to be done where this fails: the terminal is gone.
    let _ = out.write_all(REORDER);
    let _ = execute!(out, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// A panic of this thread gives the terminal back before it speaks; one of another thread is kept for the screen.
fn give_back_on_panic() {
    let screen = thread::current().id();
    let speak = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().id() == screen {
            give_back();
            speak(panic);
        } else if let Ok(mut words) = LAST_WORDS.lock() {
            *words = Some(panic.to_string());
        }
    }));
}

/// Starts a thread that passes on keys and sizes, until nobody listens or the terminal ends.
pub fn listen(to: SyncSender<Message>) {
    thread::spawn(move || {
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) => Key::from_terminal(key).map(Message::Key),
                Ok(Event::Resize(columns, rows)) => Some(Message::Resize(columns, rows)),
                Ok(_) => None,
                Err(_) => Some(Message::Quit),
            };
            let Some(message) = message else { continue };
            let last = message == Message::Quit;
            if to.send(message).is_err() || last {
                return;
            }
        }
    });
}

/// Starts a thread that turns the signals that end a process into [`Message::Quit`].
///
/// # Errors
/// Where signals cannot be listened to.
pub fn listen_to_signals(to: SyncSender<Message>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if to.send(Message::Quit).is_err() {
                return;
            }
        }
    });
    Ok(())
}
