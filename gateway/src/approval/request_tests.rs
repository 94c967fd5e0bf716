//! Every way that a request can go, without a clock and without a gateway.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use super::*;
use crate::policy::{Demand, InTransaction};

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

fn wanted(quorum: u8) -> Approval {
    of(&["dba", "security"], quorum)
}

fn of(groups: &[&str], quorum: u8) -> Approval {
    let groups = groups.iter().map(|group| Arc::from(*group)).collect();
    Approval {
        demands: BTreeSet::from([Demand { groups, quorum }]),
        expires: Duration::from_secs(60),
        in_transaction: InTransaction::Refuse,
    }
}

fn request(quorum: u8) -> Request {
    let circumstances = gatebook_wire::protocol::Circumstances::default();
    let standing = crate::policy::Standing {
        scopes: Vec::new(),
        chain: Vec::new(),
        resource: "r".into(),
        database: "d".into(),
        role: "r".into(),
        protocol: "none",
    };
    let bound = super::super::Bound {
        scope: Scope::Session(1),
        standing: &standing,
        circumstances: &circumstances,
        commands: &[],
    };
    Request::new(Draft {
        id: Id::new(),
        digest: bound.digest(),
        scope: Scope::Session(1),
        number: 0,
        chain: vec!["idp:lee".into(), "agents:bot".into()],
        wanted: wanted(quorum),
        asked: at(0),
        until: at(60),
        shown: Shown::default(),
        waiter: None,
    })
}

fn person(issuer: &str, name: &str, groups: &[&str]) -> Principal {
    Principal::for_test(PrincipalKind::User, issuer, name, groups)
}

fn approve(request: &Request, who: &Principal, second: u64) -> Result<(), Unfit> {
    request.answer(who, &Answer::Approve { session: None }, "", at(second))
}

#[test]
fn who_asked_or_acts_for_them_or_is_no_member_or_no_person_cannot_answer() {
    let request = request(1);
    let service = Principal::for_test(PrincipalKind::Service, "idp", "robot", &["dba"]);
    for (who, unfit) in [
        (person("idp", "lee", &["dba"]), Unfit::Requester),
        (person("agents", "bot", &["dba"]), Unfit::Requester),
        (person("idp", "kim", &["developers"]), Unfit::NotAMember),
        (person("idp", "kim", &[]), Unfit::NotAMember),
        (service, Unfit::NotAPerson),
    ] {
        for answer in [Answer::Approve { session: None }, Answer::Deny] {
            assert_eq!(request.answer(&who, &answer, "", at(1)), Err(unfit), "{}", who.id());
        }
    }
    assert_eq!(request.look(at(1)), Standpoint::Pending);
    // The same name of another issuer is another person.
    assert_eq!(approve(&request, &person("other", "lee", &["security"]), 1), Ok(()));
    assert!(matches!(request.look(at(1)), Standpoint::Granted(_)));
}

#[test]
fn a_quorum_counts_persons() {
    let request = request(2);
    let (dana, sam) = (person("idp", "dana", &["dba"]), person("idp", "sam", &["security"]));
    assert_eq!(approve(&request, &dana, 1), Ok(()));
    assert_eq!(approve(&request, &dana, 2), Err(Unfit::Answered));
    assert_eq!(request.look(at(2)), Standpoint::Pending);
    assert!(request.take(at(2)).is_none());
    assert_eq!(request.shown(at(2)).approved_by, ["idp:dana"]);
    assert_eq!(approve(&request, &sam, 3), Ok(()));
    let granted = request.take(at(3)).expect("two of two");
    assert_eq!(
        granted.consents.iter().map(|consent| &**consent.by.id()).collect::<Vec<_>>(),
        ["idp:dana", "idp:sam"]
    );
    // Of today's demands, too, they must be enough.
    let suffices = |wanted: &Approval| suffice(&granted.consents, wanted);
    assert!(suffices(&wanted(2)));
    assert!(!suffices(&of(&["dba"], 2)));
    assert!(suffices(&of(&["dba"], 1)));
    assert!(!suffices(&wanted(3)));
    assert!(suffices(&of(&["dba"], 1).and(of(&["security"], 1))));
    assert!(!suffices(&of(&["dba"], 1).and(of(&["ops"], 1))), "nobody spoke for the second");
}

#[test]
fn one_who_denies_ends_it_whoever_approved_before() {
    let request = request(2);
    approve(&request, &person("idp", "dana", &["dba"]), 1).expect("she may");
    request.answer(&person("idp", "sam", &["dba"]), &Answer::Deny, "too wide", at(2)).expect("he may");
    assert!(matches!(request.look(at(2)), Standpoint::Denied(denied) if &*denied.reason == "too wide"));
    assert_eq!(approve(&request, &person("idp", "kim", &["dba"]), 3), Err(Unfit::TooLate));
    assert!(request.take(at(3)).is_none());
}

#[test]
fn a_grant_is_used_once() {
    let request = request(1);
    approve(&request, &person("idp", "dana", &["dba"]), 1).expect("she may");
    assert!(request.take(at(2)).is_some());
    assert!(request.take(at(2)).is_none());
    request.lapse(Lapse::SessionEnded);
    assert_eq!(request.look(at(2)), Standpoint::Used);
}

#[test]
fn what_waits_and_what_is_granted_both_expire() {
    let waiting = request(1);
    assert_eq!(waiting.look(at(59)), Standpoint::Pending);
    assert_eq!(approve(&waiting, &person("idp", "dana", &["dba"]), 60), Err(Unfit::TooLate));
    assert_eq!(waiting.look(at(60)), Standpoint::Lapsed(Lapse::Expired));
    let granted = request(1);
    approve(&granted, &person("idp", "dana", &["dba"]), 50).expect("in time");
    assert!(matches!(granted.look(at(109)), Standpoint::Granted(_)));
    assert!(granted.take(at(110)).is_none(), "counted from the approval, and never beyond");
}

#[test]
fn what_lapsed_is_never_granted() {
    for lapse in [Lapse::Cancelled, Lapse::ClientLeft, Lapse::Changed, Lapse::SessionEnded] {
        let request = request(1);
        request.lapse(lapse);
        assert_eq!(approve(&request, &person("idp", "dana", &["dba"]), 1), Err(Unfit::TooLate));
        assert_eq!(request.look(at(1)), Standpoint::Lapsed(lapse));
        assert!(request.take(at(1)).is_none());
    }
}

#[test]
fn a_session_is_granted_only_by_all_and_for_the_shortest_time() {
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    for (wishes, until) in [
        (vec![None], None),
        (vec![minutes(5)], minutes(5)),
        (vec![minutes(5), None], None),
        (vec![minutes(5), minutes(3)], minutes(3)),
        (vec![minutes(5000)], minutes(15)),
    ] {
        let consent = |session| Consent { by: Arc::new(person("idp", "dana", &[])), session };
        let granted = Granted { consents: wishes.into_iter().map(consent).collect(), at: at(0) };
        let expected = until.map(|until| at(0) + until);
        assert_eq!(granted.session_until(Duration::from_secs(900)), expected);
    }
}
