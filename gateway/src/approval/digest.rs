//! What binds an approval to one exact command.
//!
//! Every field goes into the hash behind its own length, and every list behind its count, so that no two commands spell the same bytes.
//! `docs/approvals.md` has the order.

use std::fmt;
use std::str::FromStr;

use gatebook_wire::protocol::{Circumstances, Command};

use super::Id;
use crate::policy::{Standing, SubjectKind};

/// BLAKE3 of all that is approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// It is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Digest, NoDigest> {
        blake3::Hash::from_hex(text).map(|hash| Digest(*hash.as_bytes())).map_err(|_| NoDigest)
    }
}

/// Where an approval holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In the session of this number.
    Session(u64),
    /// Once, in whichever session of the same caller presents this id.
    Once(Id),
}

/// All that an approval is bound to.
pub(crate) struct Bound<'a> {
    /// Where it holds.
    pub(crate) scope: Scope,
    /// Who asks, where, and as which role.
    pub(crate) standing: &'a Standing,
    /// What decides, beside its own bytes, what the command does.
    pub(crate) circumstances: &'a Circumstances,
    /// The commands that were sent as one.
    pub(crate) commands: &'a [Command],
}

struct Fields(blake3::Hasher);

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Bytes that may be absent, which is not the same as empty.
    fn maybe(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }
}

impl Bound<'_> {
    /// The digest.
    pub(crate) fn digest(&self) -> Digest {
        let mut fields = Fields(blake3::Hasher::new_derive_key("gatebook approval v1"));
        match self.scope {
            Scope::Session(number) => {
                fields.number(0);
                fields.number(number);
            }
            Scope::Once(id) => {
                fields.number(1);
                fields.bytes(id.to_string().as_bytes());
            }
        }
        let standing = self.standing;
        for text in [&*standing.resource, &*standing.database, &*standing.role, standing.protocol] {
            fields.bytes(text.as_bytes());
        }
        fields.number(standing.chain.len() as u64);
        for link in &standing.chain {
            fields.number(match link.kind() {
                SubjectKind::User => 0,
                SubjectKind::Service => 1,
            });
            fields.bytes(link.id().as_bytes());
        }
        fields.number(standing.scopes.len() as u64);
        for scope in &standing.scopes {
            fields.bytes(scope.delegation().as_bytes());
        }
        let circumstances = self.circumstances;
        fields.bytes(circumstances.role.as_bytes());
        fields.bytes(circumstances.search_path.as_bytes());
        fields.bytes(&circumstances.state);
        fields.number(circumstances.objects.len() as u64);
        for (number, name) in &circumstances.objects {
            fields.number(u64::from(*number));
            fields.bytes(name.as_bytes());
        }
        fields.number(self.commands.len() as u64);
        for command in self.commands {
            fields.bytes(&command.statement);
            fields.maybe(command.sent.as_deref());
            fields.number(command.parameters.len() as u64);
            for parameter in &command.parameters {
                fields.number(u64::from(parameter.type_oid));
                fields.number(u64::from(parameter.binary));
                fields.maybe(parameter.value.as_deref());
            }
            fields.number(command.meaning.actions.len() as u64);
            for action in &command.meaning.actions {
                fields.bytes(action.verb.name().as_bytes());
                fields.bytes(action.object.to_string().as_bytes());
            }
        }
        Digest(*fields.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use bytes::Bytes;
    use gatebook_wire::action::{Action, Effect, Facts, Object, Verb};
    use gatebook_wire::protocol::{Meaning, Parameter, Phase, Roles};

    use super::*;
    use crate::policy::Subject;

    fn command(statement: &str, parameters: &[(u32, bool, Option<&str>)], table: &str) -> Command {
        let object = Object::Table { database: "d".into(), schema: "public".into(), table: table.into() };
        Command {
            phase: Phase::Execute,
            statement: Bytes::copy_from_slice(statement.as_bytes()),
            parameters: parameters
                .iter()
                .map(|(type_oid, binary, value)| Parameter {
                    type_oid: *type_oid,
                    binary: *binary,
                    value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
                })
                .collect(),
            sent: None,
            meaning: Arc::new(Meaning {
                actions: vec![Action { verb: Verb::Update, object }],
                effect: Effect::MayChange,
                facts: Facts::default(),
                masks: Vec::new(),
                roles: Roles::default(),
            }),
            shown_rows: None,
        }
    }

    fn standing(chain: &[(SubjectKind, &str)], role: &str) -> Standing {
        let link =
            |(kind, name): &(SubjectKind, &str)| Subject::new(*kind, "idp", name, []).expect("a subject");
        Standing {
            scopes: Vec::new(),
            chain: chain.iter().map(link).collect(),
            resource: "r".into(),
            database: "d".into(),
            role: role.into(),
            protocol: "postgres",
        }
    }

    /// Whatever changes changes the digest: the same command in another place, and every single part of it.
    #[test]
    fn everything_that_is_bound_changes_the_digest() {
        let lee = [(SubjectKind::User, "lee")];
        let plain = standing(&lee, "app");
        let standings = [
            plain.clone(),
            standing(&lee, "admin"),
            standing(&[(SubjectKind::Service, "lee")], "app"),
            standing(&[(SubjectKind::User, "lee"), (SubjectKind::Service, "bot")], "app"),
            Standing { database: "e".into(), ..plain.clone() },
            Standing { resource: "s".into(), ..plain.clone() },
        ];
        let commands = [
            vec![command("update t set a = $1", &[(23, false, Some("1"))], "t")],
            vec![command("update t set a = $1 ", &[(23, false, Some("1"))], "t")],
            vec![command("update t set a = $1", &[(25, false, Some("1"))], "t")],
            vec![command("update t set a = $1", &[(23, true, Some("1"))], "t")],
            vec![command("update t set a = $1", &[(23, false, Some("2"))], "t")],
            vec![command("update t set a = $1", &[(23, false, Some(""))], "t")],
            vec![command("update t set a = $1", &[(23, false, None)], "t")],
            vec![command("update t set a = $1", &[], "t")],
            vec![command("update t set a = $1", &[(23, false, Some("1"))], "u")],
            vec![command("update t", &[], "t"), command(" set a = $1", &[(23, false, Some("1"))], "t")],
            vec![],
        ];
        let known = Circumstances {
            role: "app".into(),
            search_path: "public".into(),
            objects: vec![(16_400, "public.t".into())],
            ..Circumstances::default()
        };
        let all_circumstances = [
            known.clone(),
            Circumstances { role: "admin".into(), ..known.clone() },
            Circumstances { search_path: "evil, public".into(), ..known.clone() },
            Circumstances { state: [1; 32], ..known.clone() },
            Circumstances { objects: vec![(16_401, "public.t".into())], ..known.clone() },
            Circumstances { objects: vec![(16_400, "evil.t".into())], ..known },
        ];
        let once = "7Q5K-M2XW".parse().expect("an id");
        let mut digests = HashSet::new();
        let mut told = 0;
        for scope in [Scope::Session(1), Scope::Session(2), Scope::Once(once)] {
            for standing in &standings {
                for commands in &commands {
                    for circumstances in &all_circumstances {
                        digests.insert(Bound { scope, standing, circumstances, commands }.digest().0);
                        told += 1;
                    }
                }
            }
        }
        assert_eq!(digests.len(), told);
        // What only tells how and why is no part of it.
        let circumstances =
            Circumstances { in_transaction: true, reason: Some("x".into()), ..all_circumstances[0].clone() };
        let bound = Bound {
            scope: Scope::Session(1),
            standing: &standings[0],
            circumstances: &circumstances,
            commands: &commands[0],
        };
        assert!(digests.contains(&bound.digest().0));
    }
}
