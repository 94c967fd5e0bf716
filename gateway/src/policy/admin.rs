//! What may be done to the gateway itself: by the same principals and policies as everything else, on `Gateway::"this"`.

use super::question::{self, Asker, Unaskable};
use super::{Decision, PolicySet, Standing, Subject};
use cedar_policy::{Entities, Request};
use gatebook_wire::action::{Effect, Facts};
use gatebook_wire::protocol::{Meaning, Roles};

/// What somebody wants of the gateway itself; each is the name of a Cedar action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminAction {
    /// To see sessions, live and past.
    ReadSessions,
    /// To see what is served, and how it stands with it.
    ReadResources,
    /// To see delegations.
    ReadDelegations,
    /// To revoke principals, sessions and delegations.
    Revoke,
    /// To answer requests for approval.
    Approve,
    /// To hand down a part of one's own rights.
    Delegate,
    /// To ask what policy says of somebody else.
    Explain,
}

impl AdminAction {
    /// All of them, in the order of the schema.
    pub const ALL: [AdminAction; 7] = [
        AdminAction::ReadSessions,
        AdminAction::ReadResources,
        AdminAction::ReadDelegations,
        AdminAction::Revoke,
        AdminAction::Approve,
        AdminAction::Delegate,
        AdminAction::Explain,
    ];

    /// The action as policy and ledger spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AdminAction::ReadSessions => "read_sessions",
            AdminAction::ReadResources => "read_resources",
            AdminAction::ReadDelegations => "read_delegations",
            AdminAction::Revoke => "revoke",
            AdminAction::Approve => "approve",
            AdminAction::Delegate => "delegate",
            AdminAction::Explain => "explain",
        }
    }
}

impl PolicySet {
    /// Decides what a chain wants of the gateway itself, whose ledger has the origin `name`. Every link must be permitted; an
    /// empty chain is refused.
    #[must_use]
    pub fn decide_admin(&self, chain: &[Subject], action: AdminAction, name: &str) -> Decision {
        let none = || "".into();
        let standing = Standing {
            chain: Vec::new(),
            scopes: Vec::new(),
            resource: none(),
            database: none(),
            role: none(),
            protocol: "https",
        };
        let meaning = Meaning {
            actions: Vec::new(),
            effect: Effect::MayChange,
            facts: Facts { kind: action.name().to_owned(), resolved: true, ..Facts::default() },
            masks: Vec::new(),
            roles: Roles::default(),
        };
        let questions: Vec<Result<(Request, Entities), Unaskable>> = chain
            .iter()
            .map(|link| question::ask_of_gateway(&Asker::new(link), action.name(), name, &standing, &meaning))
            .collect();
        self.decide_all(&questions)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PolicyFile, SubjectKind};
    use super::*;

    fn set(text: &str) -> PolicySet {
        let file = PolicyFile { name: "a.cedar".into(), text: text.into() };
        PolicySet::from_files(vec![file]).unwrap_or_else(|mistakes| panic!("{text}: {}", mistakes[0].message))
    }

    fn who(subject: &str, groups: &[&str]) -> Subject {
        Subject::new(SubjectKind::User, "corp", subject, groups.iter().map(|group| (*group).into()))
            .expect("a plain issuer")
    }

    #[test]
    fn what_may_be_done_to_the_gateway_is_permitted_by_name() {
        let set = set(r#"
            permit (principal in Group::"ops", action == Action::"revoke", resource == Gateway::"this");
            permit (principal in Group::"dba", action, resource in Resource::"orders-db");
            forbid (principal, action, resource) when { principal.subject == "eve" };
        "#);
        let may = |chain: &[Subject], action| set.decide_admin(chain, action, "gw").is_permit();
        assert!(may(&[who("lee", &["ops"])], AdminAction::Revoke));
        assert!(!may(&[who("lee", &["ops"])], AdminAction::ReadSessions));
        assert!(!may(&[who("lee", &["dba"])], AdminAction::Revoke), "a resource is not the gateway");
        assert!(!may(&[who("eve", &["ops"])], AdminAction::Revoke));
        assert!(!may(&[who("lee", &["ops"]), who("bot", &[])], AdminAction::Revoke), "every link");
        assert!(!may(&[], AdminAction::Revoke));
    }

    #[test]
    fn every_action_is_in_the_schema_and_can_be_decided() {
        for action in AdminAction::ALL {
            let text = format!(
                "permit (principal, action == Action::{:?}, resource == Gateway::\"this\") when {{ context.statement.kind == {:?} && \
                 context.protocol == \"https\" && resource.name == \"gw\" }};",
                action.name(),
                action.name()
            );
            let decision = set(&text).decide_admin(&[who("lee", &[])], action, "gw");
            assert!(decision.is_permit() && decision.errors.is_empty(), "{decision:?}");
        }
    }

    #[test]
    fn a_gateway_of_another_name_is_a_mistake() {
        let file = PolicyFile {
            name: "a.cedar".into(),
            text: "permit (principal, action == Action::\"revoke\", resource == Gateway::\"gw1\");".into(),
        };
        let mistakes = PolicySet::from_files(vec![file]).expect_err("there is one gateway");
        assert!(mistakes[0].message.contains("Gateway::\"this\""), "{}", mistakes[0].message);
    }
}
