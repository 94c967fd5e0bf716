//! A ledger as an auditor sees it: through the binaries, never through the gateway.

use std::path::{Path, PathBuf};
use std::process::Command as Program;

use serde_json::Value;

use crate::machine;

/// A ledger's folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

/// What `gatebook-ledger verify` says.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Its exit status: 0 verified and anchored, 1 tampered, 2 incomplete, 3 unreadable, 4 verified and not anchored.
    pub status: i32,
    /// What it printed.
    pub said: String,
}

impl Verdict {
    /// Whether everything that is there verifies, whatever anchors there are.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        matches!(self.status, 0 | 4)
    }
}

impl Ledger {
    /// The ledger in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The key that an auditor pins.
    ///
    /// # Panics
    /// When the ledger has none.
    #[must_use]
    pub fn key(&self) -> String {
        let mut command = Program::new(machine::binary("gatebook-ledger"));
        machine::run(command.arg("key").arg(&self.folder).arg("--vkey")).trim().to_owned()
    }

    /// Verifies it with its key pinned.
    ///
    /// # Panics
    /// When the verifier cannot be run.
    #[must_use]
    pub fn verify(&self) -> Verdict {
        let mut command = Program::new(machine::binary("gatebook-ledger"));
        command.arg("verify").arg(&self.folder).arg("--key").arg(self.key());
        let output = command.output().expect("the verifier runs");
        let said = [output.stdout, output.stderr].concat();
        Verdict {
            status: output.status.code().unwrap_or(-1),
            said: String::from_utf8_lossy(&said).into_owned(),
        }
    }

    /// Verifies it.
    ///
    /// # Panics
    /// When it is not sound; the message holds the verdict.
    pub fn assert_sound(&self) {
        let verdict = self.verify();
        assert!(
            verdict.is_sound(),
            "the ledger does not verify (exit {}):\n{}",
            verdict.status,
            verdict.said
        );
    }

    /// How many executions it holds, without keeping them.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn executions(&self) -> u64 {
        use std::io::{BufRead, BufReader};
        let mut command = Program::new(machine::binary("gatebook-ledger"));
        command.arg("show").arg(&self.folder).arg("--json").stdout(std::process::Stdio::piped());
        let mut show = command.spawn().expect("the ledger's program runs");
        let lines = BufReader::new(show.stdout.take().expect("stdout is piped")).lines();
        let executes =
            |line: &String| line.contains(r#""event":"command""#) && line.contains(r#""phase":"execute""#);
        let count = lines.map_while(Result::ok).filter(executes).count();
        assert!(show.wait().is_ok_and(|status| status.success()), "the ledger cannot be read");
        count as u64
    }

    /// Every event, as `gatebook-ledger show --json` prints them.
    ///
    /// # Panics
    /// When it cannot be read, or prints what is no JSON.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let mut command = Program::new(machine::binary("gatebook-ledger"));
        let text = machine::run(command.arg("show").arg(&self.folder).arg("--json"));
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

/// One event, as `gatebook-ledger show --json` prints it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name: `command`, `login.refused`, …
    pub name: String,
    /// Its session's number; 0 for none.
    pub session: u64,
    /// The public part.
    pub body: Value,
    /// The private part; null where there is none.
    pub payload: Value,
}

/// One command with its outcome, joined by session and request.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its session's number.
    pub session: u64,
    /// Its number within the session.
    pub request: u64,
    /// `prepare` or `execute`.
    pub phase: String,
    /// `permit`, `refuse` or `shadow_refuse`.
    pub decision: String,
    /// The statement as the client wrote it.
    pub statement: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// How it came out: `completed`, `failed`, `suspended`, `cut`, `skipped`, `refused`, `unknown`; none when nothing says.
    pub ending: Option<String>,
    /// How many rows the client was shown.
    pub rows: Option<u64>,
}

/// One recorded parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Whether it travelled in the protocol's binary format.
    pub binary: bool,
    /// Its bytes; none for NULL.
    pub value: Option<Vec<u8>>,
}

impl Parameter {
    /// Whether it is the value that a server spells so; none is NULL.
    ///
    /// A binary value is read as whatever the spelling can be: the ledger keeps bytes, not types.
    #[must_use]
    pub fn is(&self, spelled: Option<&str>) -> bool {
        let (value, spelled) = match (&self.value, spelled) {
            (None, None) => return true,
            (Some(value), Some(spelled)) => (value.as_slice(), spelled),
            _ => return false,
        };
        if value == spelled.as_bytes() {
            return true;
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let number = || match *value {
            [a, b] => Some(i64::from(i16::from_be_bytes([a, b]))),
            [a, b, c, d] => Some(i64::from(i32::from_be_bytes([a, b, c, d]))),
            _ => value.try_into().ok().map(i64::from_be_bytes),
        };
        self.binary
            && (spelled == format!("\\x{}", hex(value)) || number().is_some_and(|n| spelled == n.to_string()))
    }
}

/// Recorded bytes: a string, or base64 where they are no UTF-8.
fn octets(value: &Value) -> Vec<u8> {
    use base64::Engine;
    if let Some(text) = value.as_str().or_else(|| value.get("text")?.as_str()) {
        return text.as_bytes().to_vec();
    }
    let encoded = value.get("base64").and_then(Value::as_str).unwrap_or_default();
    assert!(value.get("base64").is_some(), "neither text nor base64: {value}");
    let decoded = base64::prelude::BASE64_STANDARD.decode(encoded);
    decoded
        .or_else(|_| base64::prelude::BASE64_STANDARD_NO_PAD.decode(encoded))
        .expect("the ledger holds base64")
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Ledger {
    /// Every event with its name, session, body and payload.
    ///
    /// # Panics
    /// As [`Ledger::events`].
    #[must_use]
    pub fn told(&self) -> Vec<Event> {
        let name = |event: &Value| {
            ["event", "kind", "name"].iter().find_map(|key| event[key].as_str().map(str::to_owned))
        };
        self.events()
            .into_iter()
            // The last write of a gateway that still runs may be under way.
            .filter(|event| event["unfinished"] != true)
            .map(|event| Event {
                name: name(&event).unwrap_or_else(|| panic!("an event without a name: {event}")),
                session: event["session"].as_u64().unwrap_or(0),
                body: event["body"].clone(),
                payload: event["payload"].clone(),
            })
            .collect()
    }

    /// Every command, in the order of the ledger.
    ///
    /// # Panics
    /// As [`Ledger::events`].
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for event in self.told() {
            let request = event.body["request"].as_u64().unwrap_or(0);
            match event.name.as_str() {
                "command" => {
                    let parameters = event.payload["parameters"].as_array().cloned().unwrap_or_default();
                    let known = places.insert((event.session, request), commands.len());
                    assert!(known.is_none(), "request {request} of session {} is there twice", event.session);
                    commands.push(Command {
                        session: event.session,
                        request,
                        phase: text(&event.body, "phase"),
                        decision: text(&event.body, "decision"),
                        statement: String::from_utf8_lossy(&octets(&event.payload["statement"])).into_owned(),
                        parameters: parameters
                            .iter()
                            .map(|parameter| Parameter {
                                binary: parameter["binary"].as_bool().unwrap_or(false),
                                value: (!parameter["value"].is_null()).then(|| octets(&parameter["value"])),
                            })
                            .collect(),
                        ending: None,
                        rows: None,
                    });
                }
                "outcome" => {
                    let place = places.get(&(event.session, request));
                    let place = *place.unwrap_or_else(|| panic!("an outcome without its command: {event:?}"));
                    assert!(commands[place].ending.is_none(), "two outcomes of one command: {event:?}");
                    commands[place].ending = Some(text(&event.body, "ending"));
                    commands[place].rows = event.body["rows"].as_u64();
                }
                _ => {}
            }
        }
        commands
    }
}
