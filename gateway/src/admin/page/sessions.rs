//! Who is signed in at the page.
//!
//! A session is in memory alone, known by the hash of its cookie. It ends when nobody was there for a while, when its time is over, with the
//! token that it was made of, with the access of its person, and when they sign out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::cookie::{self, Known};
use crate::identity::Principal;

/// How many there may be at once, and of one person: of theirs the oldest ends for another.
const SESSIONS_MAX: usize = 4096;
const SESSIONS_OF_ONE_MAX: usize = 16;

/// One session.
pub(crate) struct Session {
    /// Whose it is.
    pub(crate) principal: Arc<Principal>,
    /// What the page repeats with whatever changes something.
    pub(super) proof: Zeroizing<String>,
    /// When it ends at the latest.
    pub(super) until: SystemTime,
    idle: Duration,
    began: Instant,
    /// When somebody was last there.
    seen: Mutex<Instant>,
    ended: AtomicBool,
}

impl Session {
    /// Whether it goes on.
    pub(crate) fn lives(&self, now: Instant, time: SystemTime) -> bool {
        let seen = *self.seen.lock();
        !self.ended.load(Ordering::Acquire)
            && time < self.until
            && now.saturating_duration_since(seen) < self.idle
    }
}

/// The sessions that live, by what their cookie is known by.
pub(super) struct Sessions {
    most: Duration,
    idle: Duration,
    live: Mutex<HashMap<Known, Arc<Session>>>,
}

impl Sessions {
    /// None yet; each lasts `most` at the longest, and `idle` without anybody.
    pub(super) fn new(most: Duration, idle: Duration) -> Sessions {
        Sessions { most, idle, live: Mutex::default() }
    }

    /// Opens one; gives back its cookie, and how long it can last. None where there are too many.
    pub(super) fn open(
        &self,
        principal: Arc<Principal>,
        now: Instant,
        time: SystemTime,
    ) -> Option<(Zeroizing<String>, Duration)> {
        let value = cookie::random();
        let until = principal.expires().min(time + self.most);
        let session = Arc::new(Session {
            proof: cookie::random(),
            until,
            idle: self.idle,
            began: now,
            seen: Mutex::new(now),
            ended: AtomicBool::new(false),
            principal,
        });
        let mut live = self.live.lock();
        live.retain(|_, session| session.lives(now, time));
        let theirs = |other: &Session| other.principal.id() == session.principal.id();
        if live.values().filter(|other| theirs(other)).count() >= SESSIONS_OF_ONE_MAX {
            let oldest = live.iter().filter(|(_, other)| theirs(other)).min_by_key(|(_, other)| other.began);
            if let Some(oldest) = oldest.map(|(known, _)| *known) {
                end(&mut live, &oldest);
            }
        }
        if live.len() >= SESSIONS_MAX {
            return None;
        }
        live.insert(cookie::known(&value), session);
        drop(live);
        Some((value, until.duration_since(time).unwrap_or_default()))
    }

    /// The session of this cookie, where it lives; `person` says that somebody is there.
    pub(super) fn find(
        &self,
        value: &str,
        person: bool,
        now: Instant,
        time: SystemTime,
    ) -> Option<Arc<Session>> {
        let known = cookie::known(value);
        let mut live = self.live.lock();
        let session = live.get(&known)?.clone();
        if !session.lives(now, time) {
            end(&mut live, &known);
            return None;
        }
        if person {
            *session.seen.lock() = now;
        }
        Some(session)
    }

    /// Ends the session of this cookie.
    pub(super) fn end(&self, value: &str) {
        end(&mut self.live.lock(), &cookie::known(value));
    }
}

fn end(live: &mut HashMap<Known, Arc<Session>>, known: &Known) {
    if let Some(session) = live.remove(known) {
        session.ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PrincipalKind;

    const HOUR: Duration = Duration::from_secs(3600);

    fn principal(subject: &str, until: SystemTime) -> Arc<Principal> {
        let until = until.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        Arc::new(Principal::recorded(PrincipalKind::User, "corp", subject, subject, [], "jti:1", until))
    }

    #[test]
    fn a_session_ends_unused_in_time_and_with_its_token() {
        let (now, time) = (Instant::now(), SystemTime::now());
        let sessions = Sessions::new(4 * HOUR, HOUR);
        let far = principal("dana", time + 100 * HOUR);
        let at = |value: &str, hours: f64, person: bool| {
            let later = HOUR.mul_f64(hours);
            sessions.find(value, person, now + later, time + later).is_some()
        };
        let open = |who: &Arc<Principal>| sessions.open(who.clone(), now, time).expect("there is room");
        let (value, life) = open(&far);
        assert_eq!(life, 4 * HOUR);
        assert!(!at(&cookie::random(), 0.0, true), "another cookie");
        assert!(at(&value, 0.9, true) && at(&value, 1.8, true), "somebody is there");
        assert!(at(&value, 2.7, false) && !at(&value, 2.9, true), "nobody was");
        let (value, _) = open(&far);
        assert!((1..8).all(|half| at(&value, f64::from(half) / 2.0, true)) && !at(&value, 4.0, true));
        let (value, life) = open(&principal("dana", time + HOUR / 2));
        assert!(life <= HOUR / 2 && !at(&value, 0.5, true), "its token is over");
        let (value, _) = open(&far);
        let session = sessions.find(&value, true, now, time).expect("it lives");
        sessions.end(&value);
        assert!(!at(&value, 0.0, true) && !session.lives(now, time), "whoever holds it sees its end");
    }

    #[test]
    fn one_person_has_so_many_and_no_more() {
        let (now, time) = (Instant::now(), SystemTime::now());
        let sessions = Sessions::new(HOUR, HOUR);
        let open = |subject: &str, number: u32| {
            let began = now + Duration::from_millis(u64::from(number));
            sessions.open(principal(subject, time + HOUR), began, time).expect("there is room").0
        };
        let other = open("lee", 0);
        let mine: Vec<_> = (1..=20).map(|number| open("dana", number)).collect();
        let lives = |value: &str| sessions.find(value, false, now, time).is_some();
        assert!(lives(&other));
        let alive: Vec<bool> = mine.iter().map(|value| lives(value)).collect();
        assert_eq!(alive, [vec![false; 4], vec![true; SESSIONS_OF_ONE_MAX]].concat(), "the oldest went");
    }
}
