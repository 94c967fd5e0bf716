//! What a policy demands beside permitting: its annotations, read into typed obligations.
//!
//! An annotation that nobody keeps would permit more than it says. So unknown keys and unreadable values are mistakes at load,
//! never ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::mistake::did_you_mean;

/// Something that must be kept whenever a permit with this obligation determined a decision.
///
/// The obligations of all determining permits hold together, whichever policy they came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Obligation {
    /// No more than so much of something.
    AtMost(Limit, NonZeroU64),
    /// Somebody else must approve first (`@requires_approval("dba")`).
    RequiresApproval {
        /// The group whose members may approve.
        group: Arc<str>,
        /// How many of them must (`@quorum("2")`).
        quorum: u8,
        /// How long request and approval stand (`@expires("15m")`).
        expires: Option<Duration>,
        /// What becomes of a command inside an open transaction (`@in_transaction("refuse")`).
        in_transaction: Option<InTransaction>,
    },
    /// The caller must say why (`@reason_required`).
    ReasonRequired,
    /// The caller may go on without approval, against a reason, and everybody is told (`@break_glass`).
    BreakGlass,
}

/// What becomes of a command that needs approval while a transaction is open, whose locks others may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InTransaction {
    /// It is refused: ask before the transaction begins.
    Refuse,
    /// It waits, at most for so long.
    Wait(Duration),
}

/// How long a request for approval stands where no policy says.
const EXPIRES_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// How long a command waits inside an open transaction where no policy says.
const IN_TRANSACTION_DEFAULT: Duration = Duration::from_secs(60);

/// Whose approval a command needs: what all permits that let it pass demand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// What each action of it demands, of each link of the chain. All of them must be met: who may approve one of its actions
    /// does not speak for those who must approve another.
    pub demands: BTreeSet<Demand>,
    /// How long request and approval stand: the shortest time.
    pub expires: Duration,
    /// What becomes of it inside an open transaction: the strictest.
    pub in_transaction: InTransaction,
}

/// So many persons of any of these groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Demand {
    /// The groups whose members count: all that any permit of the action names.
    pub groups: BTreeSet<Arc<str>>,
    /// How many persons: the most that any of these permits wants.
    pub quorum: u8,
}

impl Demand {
    /// Whether somebody of these groups counts.
    fn counts(&self, groups: &[Arc<str>]) -> bool {
        groups.iter().any(|group| self.groups.contains(group))
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups.iter().map(|group| &**group).collect::<Vec<_>>().join(" or ");
        if self.quorum > 1 { write!(f, "{} of {groups}", self.quorum) } else { f.write_str(&groups) }
    }
}

/// What breaking the glass does for a command: going on at once, against a reason, with everybody told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Glass {
    /// Whether an action of it is permitted in no other way.
    pub required: bool,
    /// Whether it replaces every approval that is wanted: each action that wants one has a permit by which it may.
    pub lifts: bool,
}

impl Glass {
    /// What no glass protects.
    pub(super) const NONE: Glass = Glass { required: false, lifts: true };

    /// What it does for one action, by the obligations of each permit that lets the action pass.
    pub(super) fn of<'a>(permits: impl IntoIterator<Item = &'a [Obligation]>) -> Glass {
        let (mut any, mut otherwise, mut waits, mut breaks) = (false, false, false, false);
        for obligations in permits {
            let approval =
                obligations.iter().any(|found| matches!(found, Obligation::RequiresApproval { .. }));
            let glass = obligations.contains(&Obligation::BreakGlass);
            any = true;
            otherwise |= approval || !glass;
            waits |= approval;
            breaks |= glass;
        }
        Glass { required: any && !otherwise, lifts: !waits || breaks }
    }

    /// What it does for several actions.
    #[must_use]
    pub fn and(self, other: Glass) -> Glass {
        Glass { required: self.required || other.required, lifts: self.lifts && other.lifts }
    }
}

/// Whose approval it takes: `dba`, `2 of dba or security`, `dba, and security`.
impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let demands: Vec<String> = self.demands.iter().map(ToString::to_string).collect();
        f.write_str(&demands.join(", and "))
    }
}

impl Approval {
    /// What both demand.
    #[must_use]
    pub fn and(mut self, other: Approval) -> Approval {
        self.demands.extend(other.demands);
        // Of the same groups the most persons are wanted.
        let all = self.demands.clone();
        let is_less = |one: &Demand, other: &Demand| one.groups == other.groups && one.quorum < other.quorum;
        self.demands.retain(|one| !all.iter().any(|other| is_less(one, other)));
        Approval {
            demands: self.demands,
            expires: self.expires.min(other.expires),
            in_transaction: self.in_transaction.min(other.in_transaction),
        }
    }

    /// What the permits of one action demand, by all their obligations: any of their groups, and the strictest of the rest.
    /// None where none of them wants an approval.
    pub(super) fn of<'a>(obligations: impl IntoIterator<Item = &'a Obligation>) -> Option<Approval> {
        let mut demand = Demand { groups: BTreeSet::new(), quorum: 1 };
        let (mut soonest, mut strictest): (Option<Duration>, Option<InTransaction>) = (None, None);
        for obligation in obligations {
            let Obligation::RequiresApproval { group, quorum, expires, in_transaction } = obligation else {
                continue;
            };
            demand.groups.insert(Arc::clone(group));
            demand.quorum = demand.quorum.max(*quorum);
            let expires = expires.unwrap_or(EXPIRES_DEFAULT);
            let in_transaction = in_transaction.unwrap_or(InTransaction::Wait(IN_TRANSACTION_DEFAULT));
            soonest = Some(soonest.map_or(expires, |soonest| soonest.min(expires)));
            strictest = Some(strictest.map_or(in_transaction, |strictest| strictest.min(in_transaction)));
        }
        Some(Approval { demands: BTreeSet::from([demand]), expires: soonest?, in_transaction: strictest? })
    }

    /// Whether so many persons, each by their groups, are enough.
    pub(crate) fn is_met_by<'a>(&self, persons: impl Iterator<Item = &'a [Arc<str>]> + Clone) -> bool {
        let met = |demand: &Demand| {
            persons.clone().filter(|groups| demand.counts(groups)).count() >= usize::from(demand.quorum)
        };
        self.demands.iter().all(met)
    }

    /// Whether the word of somebody of these groups counts for any of it.
    pub(crate) fn concerns(&self, groups: &[Arc<str>]) -> bool {
        self.demands.iter().any(|demand| demand.counts(groups))
    }

    /// All groups whose members may answer.
    pub(crate) fn groups(&self) -> BTreeSet<&Arc<str>> {
        self.demands.iter().flat_map(|demand| &demand.groups).collect()
    }

    /// How many persons it takes at least.
    pub(crate) fn quorum(&self) -> u8 {
        self.demands.iter().map(|demand| demand.quorum).max().unwrap_or(1)
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Rows that a command shows, however many executions it takes (`@max_rows("1000")`).
    Rows,
    /// Seconds that a command runs (`@max_time("30s")`).
    Seconds,
    /// Bytes that are shown in a session (`@max_bytes_per_session("100MiB")`).
    SessionBytes,
    /// Rows that are shown to a principal in a day (`@max_rows_per_day("100000")`).
    DayRows,
    /// Bytes that are shown to a principal in a day (`@max_bytes_per_day("1GiB")`).
    DayBytes,
}

impl Limit {
    const ALL: [Limit; 5] =
        [Limit::Rows, Limit::Seconds, Limit::SessionBytes, Limit::DayRows, Limit::DayBytes];

    /// The annotation that sets it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Limit::Rows => "max_rows",
            Limit::Seconds => "max_time",
            Limit::SessionBytes => "max_bytes_per_session",
            Limit::DayRows => "max_rows_per_day",
            Limit::DayBytes => "max_bytes_per_day",
        }
    }

    /// Whether it has a meaning only where rows are shown.
    pub(super) fn is_of_rows(self) -> bool {
        self != Limit::Seconds
    }

    fn of(key: &str) -> Option<Limit> {
        Limit::ALL.into_iter().find(|limit| limit.key() == key)
    }

    /// Reads the annotation's value; the error says what it should be.
    fn read(self, value: &str) -> Result<NonZeroU64, &'static str> {
        match self {
            Limit::Rows | Limit::DayRows => {
                read_number(value).ok_or("a number of rows (for example \"1000\")")
            }
            Limit::Seconds => read_duration(value)
                .and_then(|time| NonZeroU64::new(time.as_secs()))
                .ok_or("a time up to 30 days (for example \"30s\")"),
            Limit::SessionBytes | Limit::DayBytes => {
                read_bytes(value).ok_or("a number of bytes (for example \"100MiB\")")
            }
        }
    }
}

impl Obligation {
    /// Whether a person has to do something about it before the command runs.
    pub(super) fn concerns_people(&self) -> bool {
        !matches!(self, Obligation::AtMost(..))
    }

    /// The annotation that demands it.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Obligation::AtMost(limit, _) => limit.key(),
            Obligation::RequiresApproval { .. } => REQUIRES_APPROVAL,
            Obligation::ReasonRequired => REASON_REQUIRED,
            Obligation::BreakGlass => BREAK_GLASS,
        }
    }
}

/// As the ledger spells it: `max_rows 1000`.
impl fmt::Display for Obligation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obligation::AtMost(Limit::Seconds, most) => write!(f, "{} {most}s", self.key()),
            Obligation::AtMost(_, most) => write!(f, "{} {most}", self.key()),
            Obligation::RequiresApproval { group, quorum, expires, in_transaction } => {
                write!(f, "{REQUIRES_APPROVAL} {quorum} of {group}")?;
                expires.map_or(Ok(()), |time| write!(f, " for {} s", time.as_secs()))?;
                match in_transaction {
                    None => Ok(()),
                    Some(InTransaction::Refuse) => f.write_str(", never in a transaction"),
                    Some(InTransaction::Wait(time)) => write!(f, ", {} s in a transaction", time.as_secs()),
                }
            }
            Obligation::ReasonRequired | Obligation::BreakGlass => f.write_str(self.key()),
        }
    }
}

/// Brings the obligations of several permits together: each once, and of the limits the smallest.
pub(super) fn combine(mut all: Vec<Obligation>) -> Vec<Obligation> {
    // Sorting puts the smallest limit first among the limits, and equal obligations side by side.
    all.sort();
    all.dedup_by(|later, kept| {
        let same_limit = match (&*later, &*kept) {
            (Obligation::AtMost(later, _), Obligation::AtMost(kept, _)) => later == kept,
            _ => false,
        };
        later == kept || same_limit
    });
    all
}

const ID: &str = "id";
const DESCRIPTION: &str = "description";
const REQUIRES_APPROVAL: &str = "requires_approval";
const QUORUM: &str = "quorum";
const EXPIRES: &str = "expires";
const IN_TRANSACTION: &str = "in_transaction";
const REASON_REQUIRED: &str = "reason_required";
const BREAK_GLASS: &str = "break_glass";
const KEYS: [&str; 13] = [
    ID,
    DESCRIPTION,
    "max_rows",
    "max_time",
    "max_bytes_per_session",
    "max_rows_per_day",
    "max_bytes_per_day",
    REQUIRES_APPROVAL,
    QUORUM,
    EXPIRES,
    IN_TRANSACTION,
    REASON_REQUIRED,
    BREAK_GLASS,
];

const ID_BYTES_MAX: usize = 128;
const QUORUM_MAX: u8 = 16;
const EXPIRES_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the annotations of one policy say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    /// Its name, where it has one.
    pub(super) id: Option<Arc<str>>,
    /// What it demands.
    pub(super) obligations: Vec<Obligation>,
}

/// A fault in one annotation: its key, and what is wrong.
pub(super) type Fault = (String, String);

/// Reads the annotations of one policy, as key and value; a key without a value has an empty one.
///
/// # Errors
/// Every fault found.
pub(super) fn read(annotations: &BTreeMap<&str, &str>, forbids: bool) -> Result<Annotations, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut fault = |key: &str, message: String| faults.push((key.to_owned(), format!("@{key}: {message}")));
    let mut found = Annotations::default();
    let (mut approvers, mut quorum, mut expires, mut in_transaction) = (None, None, None, None);

    for (&key, &value) in annotations {
        if forbids && KEYS.contains(&key) && key != ID && key != DESCRIPTION {
            fault(key, "an obligation on a forbid has no meaning: it permits nothing".into());
            continue;
        }
        match key {
            ID => match value {
                "" => fault(key, "the name is missing".into()),
                _ if value.len() > ID_BYTES_MAX => {
                    fault(key, format!("the name is over {ID_BYTES_MAX} bytes"))
                }
                _ if value.contains(char::is_control) => {
                    fault(key, "the name holds a control character".into())
                }
                _ => found.id = Some(value.into()),
            },
            DESCRIPTION => {}
            REQUIRES_APPROVAL => match value {
                "" => fault(key, "name the group that may approve: @requires_approval(\"dba\")".into()),
                group => approvers = Some(Arc::from(group)),
            },
            QUORUM => match read_number::<u8>(value).filter(|number| (1..=QUORUM_MAX).contains(number)) {
                Some(number) => quorum = Some(number),
                None => fault(key, format!("{value:?} is not a number from 1 to {QUORUM_MAX}")),
            },
            EXPIRES => match read_duration(value) {
                Some(time) => expires = Some(time),
                None => fault(key, format!("{value:?} is not a time up to 30 days (for example \"15m\")")),
            },
            IN_TRANSACTION => match read_in_transaction(value) {
                Some(found) => in_transaction = Some(found),
                None => fault(
                    key,
                    format!(
                        "{value:?} is neither \"refuse\" nor \"wait\" nor a time to wait (for example \"wait 90s\")"
                    ),
                ),
            },
            REASON_REQUIRED | BREAK_GLASS if !value.is_empty() => {
                fault(key, format!("takes no value, but has {value:?}"));
            }
            REASON_REQUIRED => found.obligations.push(Obligation::ReasonRequired),
            BREAK_GLASS => found.obligations.push(Obligation::BreakGlass),
            _ => match Limit::of(key).map(|limit| (limit, limit.read(value))) {
                Some((limit, Ok(most))) => found.obligations.push(Obligation::AtMost(limit, most)),
                Some((_, Err(wanted))) => fault(key, format!("{value:?} is not {wanted}")),
                None => fault(key, format!("unknown annotation{}", did_you_mean(key, KEYS, "@"))),
            },
        }
    }

    match approvers {
        Some(group) => {
            found.obligations.push(Obligation::RequiresApproval {
                group,
                quorum: quorum.unwrap_or(1),
                expires,
                in_transaction,
            });
        }
        None if annotations.contains_key(REQUIRES_APPROVAL) => {}
        None => {
            for (key, present) in [
                (QUORUM, quorum.is_some()),
                (EXPIRES, expires.is_some()),
                (IN_TRANSACTION, in_transaction.is_some()),
            ] {
                if present {
                    fault(key, "has no meaning without @requires_approval".into());
                }
            }
        }
    }
    found.obligations = combine(found.obligations);
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// `refuse`, `wait`, or `wait` and a time.
fn read_in_transaction(value: &str) -> Option<InTransaction> {
    match value {
        "refuse" => Some(InTransaction::Refuse),
        "wait" => Some(InTransaction::Wait(IN_TRANSACTION_DEFAULT)),
        _ => read_duration(value.strip_prefix("wait ")?).map(InTransaction::Wait),
    }
}

/// A number in digits alone: no sign, no space, no leading zero, so that one value has one spelling.
fn read_number<N: std::str::FromStr>(value: &str) -> Option<N> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    plain.then(|| value.parse().ok()).flatten()
}

/// Bytes as digits, alone or with one of `KiB`, `MiB`, `GiB`.
fn read_bytes(value: &str) -> Option<NonZeroU64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (digits, unit) = units
        .into_iter()
        .find_map(|(name, unit)| Some((value.strip_suffix(name)?, unit)))
        .unwrap_or((value, 1));
    read_number::<NonZeroU64>(digits)?.checked_mul(NonZeroU64::new(unit)?)
}

/// A time as digits and one of `s`, `m`, `h`, `d`.
fn read_duration(value: &str) -> Option<Duration> {
    let unit = match value.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let number: u64 = read_number(&value[..value.len() - 1])?;
    let time = Duration::from_secs(number.checked_mul(unit)?);
    (time <= EXPIRES_MAX).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(limit: Limit, number: u64) -> Obligation {
        Obligation::AtMost(limit, NonZeroU64::new(number).expect("not zero"))
    }

    fn rows(number: u64) -> Obligation {
        most(Limit::Rows, number)
    }

    fn approval(group: &str, quorum: u8, seconds: Option<u64>) -> Obligation {
        Obligation::RequiresApproval {
            group: group.into(),
            quorum,
            expires: seconds.map(Duration::from_secs),
            in_transaction: None,
        }
    }

    #[test]
    fn annotations_become_obligations() {
        for (annotations, expected) in [
            (vec![], vec![]),
            (vec![("description", "anything at all")], vec![]),
            (vec![("max_rows", "1000")], vec![rows(1000)]),
            (
                vec![
                    ("max_bytes_per_day", "2GiB"),
                    ("max_bytes_per_session", "1024"),
                    ("max_rows_per_day", "7"),
                    ("max_time", "2m"),
                ],
                vec![
                    most(Limit::Seconds, 120),
                    most(Limit::SessionBytes, 1024),
                    most(Limit::DayRows, 7),
                    most(Limit::DayBytes, 2 << 30),
                ],
            ),
            (vec![("requires_approval", "dba")], vec![approval("dba", 1, None)]),
            (
                vec![
                    ("requires_approval", "dba"),
                    ("quorum", "2"),
                    ("expires", "15m"),
                    ("reason_required", ""),
                ],
                vec![approval("dba", 2, Some(900)), Obligation::ReasonRequired],
            ),
            (vec![("break_glass", ""), ("max_rows", "5")], vec![rows(5), Obligation::BreakGlass]),
        ] {
            let read = read(&annotations.into_iter().collect(), false).expect("all well");
            assert_eq!(read.obligations, expected);
        }
    }

    #[test]
    fn each_unreadable_annotation_is_a_fault() {
        for (annotations, forbids, expected) in [
            (
                vec![("requires_aproval", "dba")],
                false,
                "@requires_aproval: unknown annotation (did you mean @requires_approval?)",
            ),
            (vec![("zzzzzz", "")], false, "@zzzzzz: unknown annotation"),
            (vec![("max_rows", "")], false, "@max_rows: \"\" is not a number of rows (for example \"1000\")"),
            (
                vec![("max_rows", "0")],
                false,
                "@max_rows: \"0\" is not a number of rows (for example \"1000\")",
            ),
            (
                vec![("max_rows", "+5")],
                false,
                "@max_rows: \"+5\" is not a number of rows (for example \"1000\")",
            ),
            (
                vec![("max_rows", "1e3")],
                false,
                "@max_rows: \"1e3\" is not a number of rows (for example \"1000\")",
            ),
            (
                vec![("max_rows", "99999999999999999999")],
                false,
                "@max_rows: \"99999999999999999999\" is not a number of rows (for example \"1000\")",
            ),
            (
                vec![("max_rows", "5")],
                true,
                "@max_rows: an obligation on a forbid has no meaning: it permits nothing",
            ),
            (vec![("break_glass", "yes")], false, "@break_glass: takes no value, but has \"yes\""),
            (vec![("quorum", "2")], false, "@quorum: has no meaning without @requires_approval"),
            (vec![("expires", "15m")], false, "@expires: has no meaning without @requires_approval"),
            (
                vec![("requires_approval", "dba"), ("quorum", "17")],
                false,
                "@quorum: \"17\" is not a number from 1 to 16",
            ),
            (
                vec![("requires_approval", "dba"), ("expires", "31d")],
                false,
                "@expires: \"31d\" is not a time up to 30 days (for example \"15m\")",
            ),
            (
                vec![("requires_approval", "dba"), ("expires", "15µ")],
                false,
                "@expires: \"15µ\" is not a time up to 30 days (for example \"15m\")",
            ),
            (
                vec![("requires_approval", "")],
                false,
                "@requires_approval: name the group that may approve: @requires_approval(\"dba\")",
            ),
            (
                vec![("max_time", "30")],
                false,
                "@max_time: \"30\" is not a time up to 30 days (for example \"30s\")",
            ),
            (
                vec![("max_bytes_per_day", "1 MiB")],
                false,
                "@max_bytes_per_day: \"1 MiB\" is not a number of bytes (for example \"100MiB\")",
            ),
            (
                vec![("max_bytes_per_session", "99999999999GiB")],
                false,
                "@max_bytes_per_session: \"99999999999GiB\" is not a number of bytes (for example \"100MiB\")",
            ),
            (vec![("id", "")], false, "@id: the name is missing"),
            (vec![("id", "a\nb")], false, "@id: the name holds a control character"),
        ] {
            let faults = read(&annotations.into_iter().collect(), forbids).expect_err(expected);
            assert_eq!(faults.into_iter().map(|(_, message)| message).collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn the_smallest_limit_wins_and_doubles_go() {
        let all = vec![
            Obligation::BreakGlass,
            rows(500),
            approval("dba", 1, None),
            rows(20),
            approval("dba", 1, None),
            approval("security", 1, None),
            rows(1000),
        ];
        let kept =
            [rows(20), approval("dba", 1, None), approval("security", 1, None), Obligation::BreakGlass];
        assert_eq!(combine(all), kept);
    }

    #[test]
    fn glass_is_broken_for_each_action_by_itself() {
        let wanted = [approval("dba", 1, None)];
        let both = [approval("dba", 1, None), Obligation::BreakGlass];
        let glass = [Obligation::BreakGlass];
        let plain = [];
        let is = |required, lifts| Glass { required, lifts };
        for (permits, expected) in [
            (vec![], is(false, true)),
            (vec![&plain[..]], is(false, true)),
            (vec![&wanted[..]], is(false, false)),
            (vec![&wanted[..], &plain[..]], is(false, false)),
            (vec![&wanted[..], &glass[..]], is(false, true)),
            (vec![&both[..]], is(false, true)),
            (vec![&glass[..]], is(true, true)),
            (vec![&glass[..], &plain[..]], is(false, true)),
        ] {
            assert_eq!(Glass::of(permits.clone()), expected, "{permits:?}");
        }
        // One action's glass does not lift what another one waits for.
        assert_eq!(Glass::of([&glass[..]]).and(Glass::of([&wanted[..]])), is(true, false));
    }

    #[test]
    fn of_approvals_the_strictest_of_each_part_holds() {
        let with = |group, quorum, seconds, in_transaction| Obligation::RequiresApproval {
            group: Arc::from(group),
            quorum,
            expires: Some(Duration::from_secs(seconds)),
            in_transaction,
        };
        let wait = |seconds| InTransaction::Wait(Duration::from_secs(seconds));
        let all = [
            with("dba", 1, 900, Some(wait(300))),
            with("security", 2, 1800, None),
            with("dba", 1, 60, Some(InTransaction::Refuse)),
            rows(5),
        ];
        let joined = Approval::of(&all).expect("an approval is wanted");
        assert_eq!((&*joined.to_string(), joined.expires), ("2 of dba or security", Duration::from_secs(60)));
        assert_eq!(joined.in_transaction, InTransaction::Refuse);
        assert_eq!(Approval::of(&all[..2]).map(|joined| joined.in_transaction), Some(wait(60)));
        assert_eq!(Approval::of(&[rows(5), Obligation::ReasonRequired]), None, "a limit asks nobody");
        // In whatever order they come.
        let mut turned = all.to_vec();
        turned.reverse();
        assert_eq!(Approval::of(&turned), Some(joined));
    }

    #[test]
    fn what_each_action_demands_must_be_met() {
        let (dba, security) = ([approval("dba", 2, None)], [approval("security", 1, None)]);
        let both = Approval::of(&dba).expect("wanted").and(Approval::of(&security).expect("wanted"));
        assert_eq!(both.to_string(), "2 of dba, and security");
        let person =
            |groups: &[&str]| groups.iter().map(|group| Arc::from(*group)).collect::<Vec<Arc<str>>>();
        let (one, other, guard) =
            (person(&["dba", "all"]), person(&["dba", "security"]), person(&["security"]));
        for (persons, enough) in [
            (vec![], false),
            (vec![&one, &guard], false),
            (vec![&other, &guard], false),
            (vec![&one, &other], true),
            (vec![&one, &one, &guard], true),
        ] {
            let groups = persons.iter().map(|groups| groups.as_slice());
            assert_eq!(both.is_met_by(groups), enough, "{persons:?}");
        }
        assert!(both.concerns(&guard) && !both.concerns(&person(&["all"])));
    }

    #[test]
    fn a_wait_inside_a_transaction_is_spelled_in_one_way() {
        for (value, found) in [
            ("refuse", Some(InTransaction::Refuse)),
            ("wait", Some(InTransaction::Wait(IN_TRANSACTION_DEFAULT))),
            ("wait 90s", Some(InTransaction::Wait(Duration::from_secs(90)))),
            ("wait 0s", None),
            ("wait  5s", None),
            ("Wait", None),
            ("", None),
            ("5s", None),
        ] {
            assert_eq!(read_in_transaction(value), found, "{value:?}");
        }
    }
}
