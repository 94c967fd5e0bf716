//! Where the index keeps its rows: a store with sorted keys. sled is the one in use.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// One row: a key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// How long a store may take to open. Healthy ones take a fraction of a second.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// A key-value store with sorted keys.
pub trait Store: Send {
    /// A value.
    ///
    /// # Errors
    /// Of the store.
    fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Puts all these in place, or none.
    ///
    /// # Errors
    /// Of the store.
    fn apply(&mut self, rows: Vec<Row>) -> io::Result<()>;

    /// Visits the rows from `from` to before `to`, in order, until the visitor gives false.
    ///
    /// # Errors
    /// Of the store.
    fn scan(&self, from: &[u8], to: &[u8], visitor: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> io::Result<()>;
}

/// sled, with its panics made into errors.
#[derive(Debug)]
pub struct Sled(sled::Db);

impl Sled {
    /// Opens a folder, and makes it where it is not there.
    ///
    /// # Errors
    /// Of sled, its panics among them; [`io::ErrorKind::WouldBlock`] where another process has it;
    /// [`io::ErrorKind::TimedOut`] where it does not come back, and then its thread is left behind.
    pub fn open(folder: &Path) -> io::Result<Sled> {
        let folder = folder.to_owned();
        within(OPEN_TIME_MAX, move || {
            // Nothing of ours is half changed when it panics: the value is not there yet.
            guard(|| sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).open()).map(Sled).map_err(
                |error| {
                    if error.to_string().contains("could not acquire lock") {
                        io::Error::new(io::ErrorKind::WouldBlock, "another process has this index")
                    } else {
                        error
                    }
                },
            )
        })
    }
}

/// Runs what may never come back.
fn within<T: Send + 'static>(
    time_max: Duration,
    step: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::channel();
    std::thread::Builder::new().name("index-open".into()).spawn(move || drop(done.send(step())))?;
    match result.recv_timeout(time_max) {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the index does not open in time")),
    }
}

fn guard<T>(step: impl FnOnce() -> Result<T, sled::Error>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(io::Error::other(error.to_string())),
        Err(_) => Err(io::Error::other("the index panicked")),
    }
}

impl Store for Sled {
    fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        guard(|| Ok(self.0.get(key)?.map(|value| value.to_vec())))
    }

    fn apply(&mut self, rows: Vec<Row>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        rows.into_iter().for_each(|(key, value)| batch.insert(key, value));
        guard(|| self.0.apply_batch(batch))
    }

    fn scan(&self, from: &[u8], to: &[u8], visitor: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> io::Result<()> {
        guard(|| {
            for row in self.0.range(from..to) {
                let (key, value) = row?;
                if !visitor(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_back_is_given_up() {
        let (_never, wait) = mpsc::channel::<()>();
        let stuck = within(Duration::from_millis(1), move || {
            let _ = wait.recv();
            Ok(())
        });
        assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(within(Duration::from_secs(60), || Ok(7)).unwrap(), 7);
    }
}
