//! The ledger's witnesses: each new checkpoint is sent to all of them, and what they cosign is kept beside it.
//!
//! One task a witness, so that a slow or dead one holds up nobody, not even the next witness. What a newcomer gets
//! wrong: a witness that answers "conflict" is not broken. Either it tells where to go on from, or it has seen
//! another history than this ledger's, and then it is the ledger that is to be looked at.

use std::sync::Arc;
use std::time::Duration;

use gatebook_ledger::Storage;
use gatebook_ledger::checkpoint::{NOTE_BYTES_MAX, Note};
use gatebook_ledger::merkle::{StoredTiles, proof};
use gatebook_ledger::storage::read;
use gatebook_ledger::witness::{Cosigner, Request, kept};
use gatebook_ledger::writer::CHECKPOINT;
use openidconnect::http::{Method, StatusCode};
use openidconnect::url::Url;
use openidconnect::{HttpRequest, HttpResponse};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Recorder;
use crate::config::LedgerConfig;
use crate::identity::http::Http;

/// How long to wait before a witness that could not be asked is asked again, unless a newer checkpoint comes first.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// A witness may correct what it is thought to know so often; another client may be sending too.
const CORRECTIONS_MAX: usize = 3;

/// Whether this is a witness's verifier key.
pub(crate) fn is_witness_key(text: &str) -> bool {
    text.parse::<Cosigner>().is_ok()
}

/// Starts a task for each witness.
pub(super) fn attend(recorder: &Recorder, config: &LedgerConfig) -> Result<(), String> {
    for witness in &config.witnesses {
        let cosigner: Cosigner = witness.vkey.parse().map_err(|error| format!("{}: {error}", witness.url))?;
        let url = format!("{}/add-checkpoint", witness.url.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| format!("{url}: {error}"))?;
        let http = Http::public()?;
        let (published, storage) = (recorder.shared.published.clone(), recorder.storage.clone());
        let attendant = Attendant { published, storage, http, url, cosigner };
        tokio::spawn(attendant.run(recorder.shared.newest.subscribe()));
    }
    Ok(())
}

/// Why a checkpoint was not cosigned.
#[derive(Debug, PartialEq, Eq)]
enum NotCosigned {
    /// The witness cannot be asked, or does not answer as one.
    Trouble(String),
    /// It has seen more of this ledger than there is, or another one.
    Alarm(String),
}

struct Attendant {
    /// Held by whoever replaces the published checkpoint.
    published: Arc<Mutex<Option<String>>>,
    storage: Arc<dyn Storage>,
    http: Http,
    url: Url,
    cosigner: Cosigner,
}

impl Attendant {
    /// Sends each new checkpoint, and at first the one that lies there: a ledger put back from an older copy is
    /// found out when it starts.
    async fn run(self, mut newest: watch::Receiver<Option<Arc<str>>>) {
        let mut known = 0;
        let mut told = None;
        loop {
            let published = newest.borrow_and_update().clone();
            let outcome = match published {
                Some(note) => self.submit(note.as_bytes(), &mut known).await,
                None => match read(self.storage.as_ref(), CHECKPOINT, NOTE_BYTES_MAX) {
                    Ok(note) => self.submit(&note, &mut known).await,
                    Err(_) => Ok(()),
                },
            };
            let witness = self.cosigner.name().as_str();
            match &outcome {
                Ok(()) if told.is_some() => tracing::info!(witness, "ledger: the witness cosigns again"),
                Ok(()) => {}
                // Each time: nobody may miss it.
                Err(NotCosigned::Alarm(what)) => tracing::error!(witness, "ledger: ALARM: {what}"),
                Err(NotCosigned::Trouble(what)) if told.as_ref() != Some(what) => {
                    tracing::warn!(witness, url = %self.url, "ledger: not cosigned: {what}");
                }
                Err(NotCosigned::Trouble(_)) => {}
            }
            let changed = newest.changed();
            let gone = match outcome {
                Ok(()) => {
                    told = None;
                    changed.await.is_err()
                }
                Err(NotCosigned::Trouble(what) | NotCosigned::Alarm(what)) => {
                    told = Some(what);
                    matches!(timeout(RETRY_PAUSE, changed).await, Ok(Err(_)))
                }
            };
            if gone {
                return;
            }
        }
    }

    /// Sends a checkpoint with the proof from where the witness is, and keeps what it answers.
    async fn submit(&self, note: &[u8], known: &mut u64) -> Result<(), NotCosigned> {
        let trouble = |error: String| NotCosigned::Trouble(error);
        let size = Note::parse(note).map_err(|error| trouble(error.to_string()))?.unverified().size;
        for _ in 0..CORRECTIONS_MAX {
            let old = *known;
            let request = self.request(note, old, size)?;
            let answer = self.http.send(request).await.map_err(|error| trouble(error.to_string()))?;
            match answer.status() {
                StatusCode::OK => {
                    let text = String::from_utf8_lossy(answer.body()).into_owned();
                    self.keep(note.to_vec(), text).await?;
                    *known = size;
                    return Ok(());
                }
                StatusCode::CONFLICT => *known = self.conflict(&answer, old, size)?,
                StatusCode::UNPROCESSABLE_ENTITY => {
                    return Err(NotCosigned::Alarm(format!(
                        "this ledger does not begin with the {old} entries that the witness has seen; one of the two was forged"
                    )));
                }
                status => return Err(trouble(format!("it answers {status}"))),
            }
        }
        Err(trouble("others send it checkpoints of this ledger at the same time".to_owned()))
    }

    fn request(&self, note: &[u8], old: u64, size: u64) -> Result<HttpRequest, NotCosigned> {
        let tiles = StoredTiles::new(self.storage.as_ref(), size);
        let proof = proof::consistency(&tiles, old, size)
            .map_err(|error| NotCosigned::Trouble(format!("cannot prove it from the tiles: {error}")))?;
        let mut request = HttpRequest::new(Request { old, proof, note }.encode());
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            self.url.as_str().parse().map_err(|_| NotCosigned::Trouble("its url is not a URI".to_owned()))?;
        Ok(request)
    }

    /// Where the witness is, as its answer says; an alarm where that cannot be on this ledger.
    fn conflict(&self, answer: &HttpResponse, old: u64, size: u64) -> Result<u64, NotCosigned> {
        let told = std::str::from_utf8(answer.body()).ok().and_then(|text| text.trim_end().parse().ok());
        match told {
            None => Err(NotCosigned::Trouble("it answers a conflict without a size".to_owned())),
            Some(seen) if seen > size => Err(NotCosigned::Alarm(format!(
                "the witness has seen {seen} entries, and {size} are here: the ledger was cut, or put back from an older copy"
            ))),
            Some(seen) if seen == old => Err(NotCosigned::Alarm(format!(
                "the witness has seen other entries than the first {seen} that are here: there are two ledgers under one key"
            ))),
            Some(seen) => Ok(seen),
        }
    }

    async fn keep(&self, note: Vec<u8>, answer: String) -> Result<(), NotCosigned> {
        let (published, storage, cosigner) =
            (self.published.clone(), self.storage.clone(), self.cosigner.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let _whole = published.lock();
            kept::keep(storage.as_ref(), &cosigner, &note, &answer)
        });
        match kept.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(NotCosigned::Trouble(format!("cannot keep its cosignature: {error}"))),
            Err(_) => Err(NotCosigned::Trouble("cannot keep its cosignature".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
