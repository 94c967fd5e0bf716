//! A corpus of attacks and of legitimate use: cases in TOML, run over the real wire as they say.
//!
//! A file of `corpus/` holds `[setup.NAME]` with the `sql` that an owner runs on an empty database, and cases:
//! `[[attack]]`, which must be held, and `[[legitimate]]`, which must pass as on a direct connection. A case has an `id`, a
//! `category`, the `policy` (or policies) under which it runs, its `setup`, and `steps`, run in their order on one connection:
//!
//! - `{ simple = SQL }`: one Query, possibly of several statements;
//! - `{ extended = SQL, params = [..], result = "binary" }`: Parse, Bind, Describe, Execute, Sync;
//! - `{ named = SQL, params = [..], times = N }`: Parse and Describe once, then Bind and Execute without Describe;
//! - `{ pipeline = [SQL, ..] }`: Parse, Bind, Execute for each, one Sync;
//! - `{ copy_in = SQL, data = TEXT }`: COPY FROM STDIN;
//! - `{ function_call = SIGNATURE, args = [..] }`: the FunctionCall message;
//! - `{ startup = { NAME = VALUE } }`: a new connection with these parameters.
//!
//! What a newcomer gets wrong: a step runs also after a refused one, and a connection that was closed is opened anew.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::wire::{
    Client, Message, Report, bind_as, copy_data, copy_done, describe, execute, frame, parse, query, startup,
    sync,
};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// What databases hold, by name.
    #[serde(default)]
    pub setup: BTreeMap<String, Setup>,
    /// What must be held.
    #[serde(default)]
    pub attack: Vec<Case>,
    /// What must pass.
    #[serde(default)]
    pub legitimate: Vec<Case>,
}

/// What a database holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The statements that make it.
    pub sql: String,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What it tries.
    pub category: String,
    /// Under which policies.
    pub policy: Policies,
    /// On what.
    pub setup: String,
    /// What must hold, for the reader.
    pub expect: String,
    /// What is done.
    pub steps: Vec<Step>,
}

/// One policy, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Policies {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Policies {
    /// Whether this one is among them.
    #[must_use]
    pub fn has(&self, policy: &str) -> bool {
        match self {
            Policies::One(one) => one == policy,
            Policies::Many(many) => many.iter().any(|one| one == policy),
        }
    }
}

/// One step of a case. Exactly one of the fields that name a mode is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    simple: Option<String>,
    extended: Option<String>,
    named: Option<String>,
    pipeline: Option<Vec<String>>,
    copy_in: Option<String>,
    function_call: Option<String>,
    startup: Option<BTreeMap<String, String>>,
    params: Vec<String>,
    result: Option<String>,
    times: Option<u32>,
    data: Option<String>,
    args: Vec<String>,
}

/// Another way to send what a case sends as simple queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As the case says.
    Stated,
    /// In the extended protocol, results as text.
    Text,
    /// In the extended protocol, results in binary.
    Binary,
    /// Prepared under a name and executed twice.
    Named,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Stated, Mode::Text, Mode::Binary, Mode::Named];
}

impl Case {
    /// Its statements, as psql would be given them.
    #[must_use]
    pub fn script(&self) -> String {
        let texts = self.steps.iter().flat_map(|step| {
            let one = [&step.simple, &step.extended, &step.named].into_iter().flatten();
            one.chain(step.pipeline.iter().flatten())
        });
        texts.map(|text| format!("{text}\n;\n")).collect()
    }

    /// The case in another mode; none where that would be the same.
    #[must_use]
    pub fn in_mode(&self, mode: Mode) -> Option<Case> {
        let mut case = self.clone();
        if mode == Mode::Stated {
            return Some(case);
        }
        let mut changed = false;
        for step in &mut case.steps {
            if let Some(sql) = step.simple.take() {
                changed = true;
                match mode {
                    Mode::Named => (step.named, step.times) = (Some(sql), Some(2)),
                    _ => step.extended = Some(sql),
                }
                step.result = (mode == Mode::Binary).then(|| "binary".to_owned());
            }
        }
        changed.then_some(case)
    }
}

impl Case {
    /// Whether it leaves nothing behind in its session, so that another can go on there: it is one statement that makes and sets nothing.
    fn leaves_nothing(&self) -> bool {
        let [Step { simple, extended, named, .. }] = &self.steps[..] else { return false };
        let Some(sql) = [simple, extended, named].into_iter().flatten().next() else { return false };
        let sql = sql.trim_end().trim_end_matches(';').to_lowercase();
        let first = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        matches!(first, "select" | "table" | "values" | "with" | "explain" | "copy")
            && !sql.contains(';')
            && !["set_config", "into", "declare", "pg_notify", "lock"].iter().any(|word| sql.contains(word))
    }
}

/// Opens a connection with further startup parameters.
pub type Connect<'a> = dyn Fn(&[(&str, &str)]) -> Result<Client, Report> + 'a;

/// How cases reach a server: a connection is opened with further startup parameters, and functions are known by number.
pub struct Reach<'a> {
    /// Opens a connection and logs in; the error is what the server says when it refuses.
    pub connect: &'a Connect<'a>,
    /// The number of a function by its signature.
    pub function: &'a dyn Fn(&str) -> u32,
}

/// Runs a case; what came back for each step. In `spare` is a connection that it may use and leave behind, where it leaves nothing in it.
///
/// # Panics
/// When an answer does not come in time, or a step names no mode.
#[must_use]
pub fn run(case: &Case, reach: &Reach<'_>, spare: &mut Option<Client>) -> Vec<Vec<Message>> {
    let mut own = None;
    let client = if case.leaves_nothing() { spare } else { &mut own };
    let mut answers = Vec::new();
    for step in &case.steps {
        if let Some(parameters) = &step.startup {
            let parameters: Vec<(&str, &str)> =
                parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            *client = (reach.connect)(&parameters).ok();
            continue;
        }
        let connected =
            client.get_or_insert_with(|| (reach.connect)(&[]).expect("a plain connection is let in"));
        let answer = step.run(connected, reach);
        if answer.last().is_none_or(|message| message.tag != b'Z') {
            *client = None;
        }
        answers.push(answer);
    }
    answers
}

impl Step {
    fn run(&self, client: &mut Client, reach: &Reach<'_>) -> Vec<Message> {
        let binary = self.result.as_deref() == Some("binary");
        let parameters: Vec<Option<&str>> =
            self.params.iter().map(|parameter| Some(parameter.as_str())).collect();
        let ask = |client: &mut Client, frames: Vec<u8>| match client.send(&frames) {
            Ok(()) => client.receive_until(b"Z"),
            Err(_) => Vec::new(),
        };
        if let Some(sql) = &self.simple {
            return ask(client, query(sql));
        }
        if let Some(sql) = &self.extended {
            let frames = [
                parse("", sql),
                bind_as("", "", &parameters, binary),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ];
            return ask(client, frames.concat());
        }
        if let Some(sql) = &self.named {
            let close = frame(b'C', b"Snamed\0");
            let mut answer =
                ask(client, [close, parse("named", sql), describe(b'S', "named"), sync()].concat());
            for _ in 0..self.times.unwrap_or(2) {
                let frames = [bind_as("", "named", &parameters, binary), execute("", 0), sync()];
                answer.extend(ask(client, frames.concat()));
            }
            return answer;
        }
        if let Some(texts) = &self.pipeline {
            let each = |sql: &String| [parse("", sql), bind_as("", "", &[], binary), execute("", 0)].concat();
            let frames: Vec<u8> = texts.iter().flat_map(each).chain(sync()).collect();
            return ask(client, frames);
        }
        if let Some(sql) = &self.copy_in {
            if client.send(&query(sql)).is_err() {
                return Vec::new();
            }
            let mut answer = client.receive_until(b"GZ");
            if answer.last().is_some_and(|message| message.tag == b'G') {
                let data = self.data.as_deref().unwrap_or_default();
                answer.extend(ask(client, [copy_data(data), copy_done()].concat()));
            }
            return answer;
        }
        if let Some(signature) = &self.function_call {
            let count = |count: usize| u16::try_from(count).expect("they are few").to_be_bytes();
            let mut body = (reach.function)(signature).to_be_bytes().to_vec();
            body.extend([0, 0]);
            body.extend(count(self.args.len()));
            for argument in &self.args {
                body.extend(i32::try_from(argument.len()).expect("it is short").to_be_bytes());
                body.extend(argument.as_bytes());
            }
            body.extend([0, 0]);
            return ask(client, frame(b'F', &body));
        }
        panic!("a step names no mode: {self:?}");
    }
}

/// Connects and logs in over TLS with further startup parameters.
///
/// # Errors
/// What the server says when it refuses.
///
/// # Panics
/// When nothing listens.
pub fn login(
    mut client: Client,
    user: &str,
    database: &str,
    password: &str,
    parameters: &[(&str, &str)],
) -> Result<Client, Report> {
    let mut all = vec![("user", user), ("database", database)];
    all.extend(parameters);
    client.send(&startup(&all)).expect("the server reads");
    client.authenticate(password)?;
    Ok(client)
}

/// Values that must not be received, in whatever form.
pub struct Canaries {
    values: Vec<String>,
}

impl Canaries {
    /// These values; short ones would be found by chance.
    ///
    /// # Panics
    /// When one is shorter than eight characters.
    #[must_use]
    pub fn new(values: Vec<String>) -> Canaries {
        assert!(values.iter().all(|value| value.len() >= 8) && !values.is_empty(), "{values:?}");
        Canaries { values }
    }

    /// The first value that can be made out in what was received, see [`Canaries::found_in`]; also spread over cells.
    #[must_use]
    pub fn found(&self, received: &[Vec<Message>]) -> Option<&str> {
        let messages = || received.iter().flatten();
        let raw: Vec<u8> = messages().flat_map(|message| message.body.iter().copied().chain([0])).collect();
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let spread: String = messages()
            .filter(|message| message.tag == b'D')
            .flat_map(|message| crate::wire::cells(&message.body))
            .collect();
        self.found_in(&raw, &spread)
    }

    /// The first value that can be made out in `raw`, or in `spread`, which is the same without what stands between its parts: as it is or folded,
    /// reversed, in hex, in base64, or by its digits.
    #[must_use]
    pub fn found_in(&self, raw: &str, spread: &str) -> Option<&str> {
        use base64::Engine;
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let (folded, spread_folded) = (raw.to_lowercase(), spread.to_lowercase());
        let all_digits: Vec<String> =
            raw.split(|c: char| c.is_whitespace() || c == '\0').map(digits).collect();
        let spread_digits = digits(spread);
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.values.iter().map(String::as_str).find(|value| {
            let base64 = base64::engine::general_purpose::STANDARD.encode(value);
            let base64 = &base64[..value.len() / 3 * 4];
            let hex = hex(value);
            let value = value.to_lowercase();
            let reversed: String = value.chars().rev().collect();
            let seen = [value.as_str(), &reversed, &hex]
                .iter()
                .any(|form| folded.contains(form) || spread_folded.contains(form));
            let number = digits(&value);
            let by_digits = number.len() >= 9
                && (all_digits.iter().any(|digits| digits.contains(&number))
                    || spread_digits.contains(&number));
            seen || raw.contains(base64) || by_digits
        })
    }
}
