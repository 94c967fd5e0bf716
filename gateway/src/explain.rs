//! What policy would say, asked ahead of time: `gatebook policy explain` for one statement, `gatebook policy test` for a file of cases.
//!
//! It goes the same way as a session: the login is decided, masks follow from it, the statement is analysed by the upstream's own catalog,
//! and each of its actions is put to the policies on disk. Nothing is sent to the upstream but the questions about its catalog, and nothing is
//! recorded. What a newcomer gets wrong: the commands read the files as they are now, not what a running gateway has loaded; that one is
//! asked over its HTTPS server ([`Gateway::explain`]), which goes the same way with the policies and the catalogs that it has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use gatebook_wire::action::Effect;
use gatebook_wire::postgres::conversation::CatalogSource;
use gatebook_wire::protocol::Meaning;
use gatebook_wire::sql::{Catalog, Session, Start};
use serde::{Deserialize, Serialize};

use crate::cli::{ConfigArg, check, fail};
use crate::config::{Config, Resource};
use crate::gateway::{Gateway, Served, masking};
use crate::policy::{self, Decision, PolicySet, Standing, Subject, SubjectKind};
use crate::upstream::Upstream;

/// The longest file of cases, and the longest statement from standard input.
const CASES_BYTES_MAX: u64 = 4 << 20;

/// How much of a statement a line shows.
const SHOWN_CHARS: usize = 72;

/// Who asks, as what, for what.
#[derive(Debug, Clone, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The principal, as ISSUER:SUBJECT
    #[arg(long, value_name = "ID")]
    principal: String,
    /// It is a service, not a person
    #[arg(long)]
    #[serde(default)]
    service: bool,
    /// A group that it is in; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    #[serde(default)]
    groups: Vec<String>,
    /// The resource
    #[arg(long, value_name = "NAME")]
    resource: String,
    /// The database; the resource's only one where it has one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The role that it would log in as
    #[arg(long, value_name = "NAME")]
    role: String,
    /// The statement; `-` reads it from standard input
    #[arg(long, value_name = "SQL")]
    statement: String,
}

/// Say what policy decides about one statement of a principal, action by action
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    question: Question,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Run the cases of a file against the policies; fails unless each comes out as it says
#[derive(Debug, clap::Args)]
#[command(after_help = CASES_HELP)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The file of cases
    file: PathBuf,
    /// Print one JSON object a case
    #[arg(long)]
    json: bool,
}

const CASES_HELP: &str = r#"A case:
  [[case]]
  name = "CI reads orders"
  principal = "ci:build"          # ISSUER:SUBJECT
  service = true                  # a person where left out
  groups = ["ci"]
  resource = "orders"
  database = "orders"             # may be left out where there is one
  role = "app_ro"
  statement = "SELECT id FROM orders"
  expect = "permit"               # or "refuse"
  masks = []                      # where given: exactly these columns come masked, as schema.table.column"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[serde(default)]
    case: Vec<toml::Spanned<Case>>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    expect: Expect,
    masks: Option<Vec<String>>,
    /// The rest is the question.
    #[serde(flatten)]
    question: toml::Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Permit,
    Refuse,
}

impl Expect {
    fn of(decision: &Decision) -> Expect {
        if decision.is_permit() { Expect::Permit } else { Expect::Refuse }
    }
}

/// What is decided about one question.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    decision: Expect,
    /// Whether the resource would only record a refusal.
    shadow: bool,
    login: Ruling,
    statements: Vec<Judged>,
}

/// One statement of the text.
#[derive(Debug, Serialize)]
struct Judged {
    statement: String,
    kind: String,
    effect: &'static str,
    ruling: Ruling,
    actions: Vec<Ruling>,
    masks: Vec<Masked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<String>,
}

#[derive(Debug, Serialize)]
struct Masked {
    column: String,
    mask: &'static str,
}

/// One decision.
#[derive(Debug, Serialize)]
struct Ruling {
    what: String,
    decision: Expect,
    policies: Vec<String>,
    obligations: Vec<String>,
    errors: Vec<String>,
}

impl Ruling {
    fn new(what: String, decision: &Decision) -> Ruling {
        Ruling {
            what,
            decision: Expect::of(decision),
            policies: decision.determining.iter().map(ToString::to_string).collect(),
            obligations: decision.obligations.iter().map(ToString::to_string).collect(),
            errors: decision.errors.clone(),
        }
    }
}

/// A question that has no answer: the field, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {wrong}")]
pub(crate) struct Unanswerable {
    field: &'static str,
    wrong: String,
}

fn unanswerable(field: &'static str, wrong: impl Into<String>) -> Unanswerable {
    Unanswerable { field, wrong: wrong.into() }
}

/// What questions are put to: the configuration, its policies, and the catalogs as they were read.
struct Oracle {
    config: Config,
    set: PolicySet,
    catalogs: HashMap<(String, String), Arc<Catalog>>,
}

impl Oracle {
    fn open(config: &ConfigArg) -> Result<Oracle, ExitCode> {
        let (checked, report) = check(&config.config);
        let Some(config) = checked.filter(|_| report.is_clean()) else {
            eprint!("{report}");
            return Err(fail("nothing is decided while there are mistakes"));
        };
        let set = PolicySet::load(&config.policies)
            .map_err(|_| fail("the policies changed while they were read; try again"))?;
        Ok(Oracle { config, set, catalogs: HashMap::new() })
    }

    async fn ask(&mut self, question: &Question) -> Result<Explained, Unanswerable> {
        let resource = resource(&self.config, question)?.clone();
        let database = database(&resource, question)?;
        let catalog = self.catalog(&resource, &database).await?;
        explain(&self.set, &resource, &catalog, &standing(question, &database)?, &question.statement)
    }

    /// The catalog of a database, read once.
    async fn catalog(&mut self, resource: &Resource, database: &str) -> Result<Arc<Catalog>, Unanswerable> {
        let deadline = self.config.limits.connect_deadline;
        match self.catalogs.entry((resource.name.clone(), database.to_owned())) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(place) => {
                let upstream = Upstream::new(resource, deadline)
                    .map_err(|error| unanswerable("resource", error.to_string()))?;
                let served = Served::new(upstream);
                let watched =
                    served.catalog(database).ok_or_else(|| unanswerable("database", "it is not served"))?;
                let looking =
                    tokio::spawn(watched.clone().watch(served.upstream.clone(), database.to_owned()));
                let known = watched.wait_known(deadline).await;
                looking.abort();
                if !known {
                    let wrong = format!(
                        "the catalog of {:?} at {}:{} cannot be read within {} s, and without it nothing can be decided",
                        database,
                        resource.upstream.host,
                        resource.upstream.port,
                        deadline.as_secs()
                    );
                    return Err(unanswerable("resource", wrong));
                }
                Ok(place.insert(watched.snapshot()).clone())
            }
        }
    }
}

impl Gateway {
    /// What the policies in force say of a question, by the catalogs as they are known.
    ///
    /// # Errors
    /// [`Unanswerable`].
    pub(crate) fn explain(&self, question: &Question) -> Result<Explained, Unanswerable> {
        let resource = resource(&self.config, question)?;
        let database = database(resource, question)?;
        let catalog = self.catalog(&resource.name, &database).filter(|catalog| catalog.is_known());
        let catalog = catalog.ok_or_else(|| {
            unanswerable("resource", "its catalog was not read yet, and without it nothing can be decided")
        })?;
        let standing = standing(question, &database)?;
        explain(&self.policy.current(), resource, &catalog.snapshot(), &standing, &question.statement)
    }
}

/// The resource that is meant, where it has the role.
fn resource<'c>(config: &'c Config, question: &Question) -> Result<&'c Resource, Unanswerable> {
    let resource = config.resources.iter().find(|known| known.name == question.resource);
    let resource =
        resource.ok_or_else(|| unanswerable("resource", "the configuration has none of this name"))?;
    if resource.role(&question.role).is_none() {
        return Err(unanswerable("role", "the resource has none of this name"));
    }
    Ok(resource)
}

fn database(resource: &Resource, question: &Question) -> Result<String, Unanswerable> {
    match (&question.database, resource.databases.as_slice()) {
        (Some(database), known) if known.contains(database) => Ok(database.clone()),
        (None, [only]) => Ok(only.clone()),
        (Some(_), _) => Err(unanswerable("database", "the resource does not serve it")),
        (None, _) => Err(unanswerable("database", "the resource has several; name one")),
    }
}

fn standing(question: &Question, database: &str) -> Result<Standing, Unanswerable> {
    let malformed = || unanswerable("principal", "write it as ISSUER:SUBJECT");
    let (issuer, subject) = question.principal.split_once(':').ok_or_else(malformed)?;
    let kind = if question.service { SubjectKind::Service } else { SubjectKind::User };
    let groups = question.groups.iter().map(|group| group.as_str().into());
    Ok(Standing {
        scopes: Vec::new(),
        chain: vec![Subject::new(kind, issuer, subject, groups).ok_or_else(malformed)?],
        resource: question.resource.as_str().into(),
        database: database.into(),
        role: question.role.as_str().into(),
        protocol: "postgres",
    })
}

/// Decides one text. Pure: the same arguments have the same answer.
fn explain(
    set: &PolicySet,
    resource: &Resource,
    catalog: &Catalog,
    standing: &Standing,
    text: &str,
) -> Result<Explained, Unanswerable> {
    let sensitive = resource.sensitive(&standing.database);
    let start = Start {
        database: standing.database.clone(),
        role: standing.role.clone(),
        search_path: None,
        masking: masking(set, standing, resource.shadow, sensitive),
    };
    let analysis = Session::new(start, catalog).analyze(text, catalog);
    if analysis.statements.is_empty() {
        return Err(unanswerable("statement", "there is none in it"));
    }
    let login = set.decide(standing, &policy::login(&standing.role));
    let mut permitted = login.is_permit();
    let statements = analysis.statements.iter().map(|statement| {
        let meaning = &statement.meaning;
        let decision = set.decide(standing, meaning);
        permitted &= decision.is_permit();
        let actions = meaning.actions.iter().map(|action| {
            let alone = Meaning { actions: vec![action.clone()], ..Meaning::clone(meaning) };
            Ruling::new(format!("{} {}", action.verb.name(), action.object), &set.decide(standing, &alone))
        });
        Judged {
            statement: text.get(statement.range.clone()).unwrap_or(text).trim().to_owned(),
            kind: meaning.facts.kind.clone(),
            effect: match meaning.effect {
                Effect::Reads => "reads",
                Effect::MayChange => "may_change",
            },
            ruling: Ruling::new("statement".into(), &decision),
            actions: actions.collect(),
            masks: meaning
                .masks
                .iter()
                .map(|masked| Masked { column: masked.column.to_string(), mask: masked.mask })
                .collect(),
            sent: statement.masked().map(str::to_owned),
        }
    });
    let statements = statements.collect();
    Ok(Explained {
        decision: if permitted { Expect::Permit } else { Expect::Refuse },
        shadow: resource.shadow,
        login: Ruling::new(format!("login {}", standing.role), &login),
        statements,
    })
}

/// `gatebook policy explain`: exits with 0 where it is permitted, and 1 where it is not.
pub(crate) async fn run(mut args: ExplainArgs) -> ExitCode {
    let mut oracle = match Oracle::open(&args.config) {
        Ok(oracle) => oracle,
        Err(code) => return code,
    };
    if args.question.statement == "-" {
        match read(std::io::stdin()) {
            Ok(text) => args.question.statement = text,
            Err(error) => return fail(&format!("standard input: {error}")),
        }
    }
    match oracle.ask(&args.question).await {
        Ok(explained) => {
            if args.json {
                println!("{}", serde_json::to_string(&explained).unwrap_or_default());
            } else {
                print!("{explained}");
            }
            if explained.decision == Expect::Permit { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&format!("--{error}")),
    }
}

/// `gatebook policy test`: exits with 0 where every case comes out as it says.
pub(crate) async fn test(args: TestArgs) -> ExitCode {
    let text = match std::fs::File::open(&args.file).and_then(read) {
        Ok(text) => text,
        Err(error) => return fail(&format!("{}: {error}", args.file.display())),
    };
    let cases: Cases = match toml::from_str(&text) {
        Ok(cases) => cases,
        Err(error) => return fail(&mistaken(&args.file, &text, &error)),
    };
    let mut oracle = match Oracle::open(&args.config) {
        Ok(oracle) => oracle,
        Err(code) => return code,
    };
    let (count, mut failed) = (cases.case.len(), 0);
    for case in cases.case {
        let line = text[..case.span().start].lines().count() + 1;
        let case = case.into_inner();
        let answer = match case.question.clone().try_into::<Question>() {
            Ok(question) => oracle.ask(&question).await,
            Err(error) => return fail(&format!("{}:{line}: {}", args.file.display(), error.message())),
        };
        let difference = difference(&case, answer.as_ref());
        failed += usize::from(difference.is_some());
        if args.json {
            let line = serde_json::json!({
                "name": case.name,
                "line": line,
                "passed": difference.is_none(),
                "difference": difference,
                "answer": answer.as_ref().ok(),
            });
            println!("{line}");
        } else {
            match difference {
                None => println!("ok    {}", clean(&case.name)),
                Some(difference) => {
                    println!(
                        "FAIL  {}\n      {}:{line}: {}",
                        clean(&case.name),
                        args.file.display(),
                        clean(&difference)
                    );
                    if let Ok(explained) = &answer {
                        print!("{}", indented(&explained.to_string()));
                    }
                }
            }
        }
    }
    if !args.json {
        println!("{count} cases: {} passed, {failed} failed", count - failed);
    }
    match (count, failed) {
        (0, _) => fail("the file has no cases"),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// How an answer differs from what the case expects.
fn difference(case: &Case, answer: Result<&Explained, &Unanswerable>) -> Option<String> {
    let explained = match answer {
        Ok(explained) => explained,
        Err(error) => return Some(error.to_string()),
    };
    if explained.decision != case.expect {
        let (is, was) = match explained.decision {
            Expect::Permit => ("permitted", "refused"),
            Expect::Refuse => ("refused", "permitted"),
        };
        return Some(format!("it is {is}, and was to be {was}"));
    }
    let mut expected = case.masks.clone()?;
    let columns = explained.statements.iter().flat_map(|judged| &judged.masks);
    // As the configuration spells them, without the database.
    let mut masked: Vec<String> = columns
        .map(|masked| masked.column.split_once('/').map_or("", |(_, below)| below).to_owned())
        .collect();
    for list in [&mut expected, &mut masked] {
        list.sort();
        list.dedup();
    }
    (expected != masked).then(|| format!("masked are {masked:?}, and were to be {expected:?}"))
}

fn mistaken(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    format!("{}:{line}: {}", file.display(), error.message())
}

fn read(from: impl std::io::Read) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    from.take(CASES_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CASES_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {CASES_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "      {line}");
        all
    })
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = match self.decision {
            Expect::Permit => "permit",
            Expect::Refuse => "refuse",
        };
        write!(f, "{decision}  {}", clean(&self.what))?;
        match (self.policies.as_slice(), self.decision) {
            ([], Expect::Refuse) if self.errors.is_empty() => f.write_str("  (no policy permits it)")?,
            ([], _) => {}
            (policies, _) => write!(f, "  by {}", clean(&policies.join(", ")))?,
        }
        if !self.obligations.is_empty() {
            write!(f, "  obliged: {}", clean(&self.obligations.join(", ")))?;
        }
        self.errors.iter().try_for_each(|error| write!(f, "  error: {}", clean(error)))
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.login)?;
        for judged in &self.statements {
            let text = clean(&judged.statement);
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            let more = if shown.len() < text.len() { "…" } else { "" };
            writeln!(f, "{shown}{more}")?;
            writeln!(f, "  {} ({}, {})", judged.ruling, judged.kind, judged.effect.replace('_', " "))?;
            for action in &judged.actions {
                writeln!(f, "    {action}")?;
            }
            for masked in &judged.masks {
                writeln!(f, "    masked  {} with {}", clean(&masked.column), masked.mask)?;
            }
        }
        let decision = match (self.decision, self.shadow) {
            (Expect::Permit, _) => "permitted",
            (Expect::Refuse, false) => "refused",
            (Expect::Refuse, true) => {
                "refused; the resource is in shadow mode, so it would run and be recorded as refused"
            }
        };
        writeln!(f, "{decision}")
    }
}
