//! The corpus: each attack does something on a direct connection and nothing through a gateway under its policy; each
//! legitimate case is answered as on a direct connection.
//!
//! An attack is judged by every byte that the client received and by what the database holds afterwards, never by an error's text.

use std::cell::RefCell;
use std::collections::HashMap;

use gatebook_tests::corpus::{self, Canaries, Case, Corpus, Mode, Policies, Reach, run};
use gatebook_tests::gateway::Setup;
use gatebook_tests::postgres::{ADMIN_PASSWORD, APP, APP_PASSWORD};
use gatebook_tests::wire::{Client, Message, Report, brief, cells, query};
use gatebook_tests::{Gateway, Issuer, Postgres};

const SEED: &str = "clinic_seed";
const THROUGH: &str = "clinic";
const DIRECT: &str = "clinic_direct";

const READ_ONLY: &str = r#"
permit (principal, action == Action::"login", resource);
permit (principal, action in Action::"read", resource in Database::"orders-db/clinic");
"#;

const DENY_TABLE: &str = r#"
permit (principal, action == Action::"login", resource);
permit (principal, action in [Action::"read", Action::"write"], resource in Table::"orders-db/clinic/public.visits");
permit (principal, action in [Action::"read", Action::"write"], resource in Table::"orders-db/clinic/public.patients");
permit (principal, action in Action::"read", resource in Schema::"orders-db/clinic/pg_catalog");
permit (principal, action in Action::"read", resource in Schema::"orders-db/clinic/information_schema");
"#;

/// What an owner may, but for seeing what is masked: whatever can be done to get at it is tried.
const MASK_OWNER: &str = r#"
permit (principal, action, resource);
forbid (principal, action == Action::"unmask", resource);
"#;

/// What is not named is forbidden: the schema `lab`, and to call functions or set settings.
const DEFINER: &str = r#"
permit (principal, action == Action::"login", resource);
permit (principal, action in [Action::"read", Action::"write", Action::"define"], resource in Schema::"orders-db/clinic/public");
permit (principal, action in [Action::"read", Action::"write"], resource in Schema::"orders-db/clinic/pg_catalog");
"#;

const OPEN: &str = "permit (principal, action, resource);";

const MASKS: &str = r#"
[[resource.mask]]
columns = ["public.patients.mail"]
with = "email"
databases = ["clinic"]
[[resource.mask]]
columns = ["public.kin.mail", "public.intake.mail"]
with = "partial"
[[resource.mask]]
columns = ["public.kin.extra", "public.kin.raw", "public.kin.marks"]
with = "redact"
[[resource.mask]]
columns = ["public.kin.born"]
with = "date"
[[resource.mask]]
columns = ["public.patients.iban"]
with = "redact"
[[resource.mask]]
columns = ["public.patients.phone"]
with = "phone"
"#;

const POLICIES: [(&str, &str, &str); 6] = [
    ("read_only", READ_ONLY, ""),
    ("deny_table", DENY_TABLE, ""),
    ("mask", READ_ONLY, MASKS),
    ("mask_owner", MASK_OWNER, MASKS),
    ("definer", DEFINER, ""),
    ("open", OPEN, ""),
];

/// What the database holds, in one text: rows, sequences, definitions, comments, large objects, settings.
const STATE: &str = "SELECT concat_ws(' ', \
    (SELECT md5(string_agg(n.nspname || '.' || c.relname || ':' || query_to_xml(format( \
        CASE WHEN c.relkind = 'S' THEN 'SELECT last_value, is_called FROM %I.%I' ELSE 'SELECT md5(string_agg(t::text, ''|'' ORDER BY t::text)) FROM %I.%I t' END, \
        n.nspname, c.relname), true, true, '')::text, ',' ORDER BY 1)) \
     FROM (SELECT * FROM pg_class WHERE relkind IN ('r', 'S') AND relpersistence <> 't' ORDER BY oid) c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname IN ('public', 'lab')), \
    (SELECT count(*) FROM pg_class WHERE relpersistence <> 't'), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_'), \
    (SELECT count(*) FROM pg_description), (SELECT count(*) FROM pg_largeobject_metadata), \
    (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_attrdef), (SELECT count(*) FROM pg_policy), \
    (SELECT count(*) FROM pg_rewrite), (SELECT count(*) FROM pg_cast), (SELECT count(*) FROM pg_operator), (SELECT count(*) FROM pg_statistic_ext), \
    (SELECT count(*) FROM pg_default_acl), (SELECT md5(string_agg(concat(relname, relacl, relrowsecurity, reloptions), ',' ORDER BY oid)) FROM pg_class \
        WHERE relpersistence <> 't'), (SELECT md5(string_agg(concat(attrelid, attname), ',' ORDER BY attrelid, attnum)) FROM pg_attribute \
        WHERE attrelid IN (SELECT oid FROM pg_class WHERE relpersistence <> 't')), (SELECT count(*) FROM pg_proc WHERE provolatile = 'i'), \
    (SELECT count(*) FROM pg_trigger), (SELECT coalesce(string_agg(s::text, ',' ORDER BY s::text), '') FROM pg_db_role_setting s))";

/// A server with the corpus' databases.
struct World {
    postgres: Postgres,
    corpus: Corpus,
    /// What a fresh database holds.
    fresh: String,
    /// The superuser's connections, by database.
    admins: RefCell<HashMap<String, Client>>,
    /// Where each database stood when its whole state was last looked at.
    marks: RefCell<HashMap<String, String>>,
    /// A connection through a gateway, and one past it, that the next case may use.
    spare: RefCell<[Option<Client>; 2]>,
}

impl World {
    fn new() -> World {
        let postgres = Postgres::start();
        let corpus = corpus();
        let world = World {
            postgres,
            corpus,
            fresh: String::new(),
            admins: RefCell::default(),
            marks: RefCell::default(),
            spare: RefCell::default(),
        };
        let setups: Vec<&corpus::Setup> = world.corpus.setup.values().collect();
        let [setup] = setups[..] else { panic!("one setup is understood") };
        world.as_admin("orders", &format!("CREATE DATABASE {SEED} OWNER {APP}"));
        world.as_admin(SEED, &format!("ALTER SCHEMA public OWNER TO {APP}"));
        let mut owner = world.direct(SEED, APP, APP_PASSWORD);
        let answer = brief(&owner.ask(&[query(&setup.sql)]));
        assert!(!answer.iter().any(|message| message.starts_with('E')), "{answer:?}");
        drop(owner);
        for database in [THROUGH, DIRECT] {
            world.renew(database);
        }
        let fresh = world.state(DIRECT);
        World { fresh, ..world }
    }

    fn direct(&self, database: &str, role: &str, password: &str) -> Client {
        self.connect(database, role, password, &[]).expect("the server lets it in")
    }

    fn connect(
        &self,
        database: &str,
        role: &str,
        password: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Client, Report> {
        let client = Client::tls(self.postgres.address(), self.postgres.authority().client());
        corpus::login(client, role, database, password, parameters)
    }

    /// Runs SQL as the superuser; the first cell of what came back.
    fn as_admin(&self, database: &str, sql: &str) -> String {
        let mut admins = self.admins.borrow_mut();
        let admin = admins
            .entry(database.to_owned())
            .or_insert_with(|| self.direct(database, "postgres", ADMIN_PASSWORD));
        first_cell(&admin.ask(&[query(sql)]), sql)
    }

    /// What a database holds.
    fn state(&self, database: &str) -> String {
        self.as_admin(database, STATE)
    }

    /// Whether a database holds anything else than a fresh one. It is looked through only where a transaction has written since the last
    /// time, or a sequence has moved, which needs none.
    fn changed(&self, database: &str) -> bool {
        let mark = || {
            let moved = "SELECT concat(pg_snapshot_xmax(pg_current_snapshot()), ' ', (SELECT string_agg(concat(last_value), ',') FROM pg_sequences))";
            self.as_admin(database, moved)
        };
        let now = mark();
        if self.marks.borrow().get(database) == Some(&now) {
            return false;
        }
        let changed = self.state(database) != self.fresh;
        if !changed {
            self.marks.borrow_mut().insert(database.to_owned(), now);
        }
        changed
    }

    /// Makes a database anew.
    fn renew(&self, database: &str) {
        // Neither a copy nor its source may have a connection.
        *self.spare.borrow_mut() = [None, None];
        for database in [database, SEED] {
            self.admins.borrow_mut().remove(database);
        }
        for sql in [
            format!("ALTER ROLE {APP} RESET ALL"),
            format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"),
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{SEED}'"),
            format!("CREATE DATABASE {database} TEMPLATE {SEED} OWNER {APP}"),
        ] {
            self.as_admin("orders", &sql);
        }
    }

    fn function(&self, signature: &str) -> u32 {
        let oid = self.as_admin(THROUGH, &format!("SELECT '{signature}'::regprocedure::oid"));
        oid.parse().expect("a number")
    }

    /// The values that nobody may receive under a policy; none where it hides nothing.
    fn canaries(&self, policy: &str) -> Option<Canaries> {
        let sql = match policy {
            "deny_table" => "SELECT string_agg(staff || ' ' || monthly, ' ') FROM wages",
            "mask" | "mask_owner" => {
                "SELECT string_agg(mail || ' ' || iban || ' ' || phone, ' ') FROM patients"
            }
            "definer" => "SELECT mail FROM lab.patients",
            _ => return None,
        };
        let values = self.as_admin(THROUGH, sql);
        Some(Canaries::new(values.split(' ').map(str::to_owned).collect()))
    }

    fn run_direct(&self, case: &Case) -> Vec<Vec<Message>> {
        run(
            case,
            &Reach {
                connect: &|parameters| self.connect(DIRECT, APP, APP_PASSWORD, parameters),
                function: &|signature| self.function(signature),
            },
            &mut self.spare.borrow_mut()[0],
        )
    }

    fn run_through(&self, gateway: &Gateway, issuer: &Issuer, case: &Case) -> Vec<Vec<Message>> {
        run(
            case,
            &Reach {
                connect: &|parameters| {
                    let client = Client::tls(gateway.address(), gateway.tls());
                    // The corpus takes longer than a token lives.
                    let token = issuer.token("lee", &["developers"]);
                    corpus::login(client, APP, THROUGH, &token, parameters)
                },
                function: &|signature| self.function(signature),
            },
            &mut self.spare.borrow_mut()[1],
        )
    }
}

fn corpus() -> Corpus {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/postgres");
    let mut all = Corpus { setup: Default::default(), attack: Vec::new(), legitimate: Vec::new() };
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        let corpus: Corpus =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        all.setup.extend(corpus.setup);
        all.attack.extend(corpus.attack);
        all.legitimate.extend(corpus.legitimate);
    }
    all
}

fn first_cell(answer: &[Message], sql: &str) -> String {
    if let Some(error) = answer.iter().find(|message| message.tag == b'E') {
        panic!("{sql}: {:?}", error.report());
    }
    answer
        .iter()
        .find(|message| message.tag == b'D')
        .and_then(|row| cells(&row.body).into_iter().next())
        .unwrap_or_default()
}

/// Whether the two guesses of a case of inference were told apart.
fn told_apart(case: &Case, answers: &[Vec<Message>]) -> bool {
    case.category == "inference" && brief(&answers[0]) != brief(&answers[1])
}

/// Whether attacks under a policy may change what the database holds: then only what the client was shown breaks it.
fn judged_by_sight_alone(policy: &Policies) -> bool {
    ["mask", "mask_owner", "definer"].iter().any(|name| policy.has(name))
}

/// An attack that does nothing without a gateway tests nothing.
#[test]
fn every_attack_does_something_on_a_direct_connection() {
    let world = World::new();
    let canaries: Vec<_> = POLICIES.iter().map(|(name, ..)| (name, world.canaries(name))).collect();
    let mut idle = Vec::new();
    for case in &world.corpus.attack {
        let answers = world.run_direct(case);
        let changed = world.changed(DIRECT);
        let broke = changed && !judged_by_sight_alone(&case.policy);
        let mut hidden = canaries
            .iter()
            .filter(|(name, _)| case.policy.has(name))
            .filter_map(|(_, hidden)| hidden.as_ref());
        let seen = hidden.any(|hidden| hidden.found(&answers).is_some());
        if !(broke || seen || told_apart(case, &answers)) {
            idle.push((&case.id, answers.iter().map(|answer| brief(answer)).collect::<Vec<_>>()));
        }
        if changed {
            world.renew(DIRECT);
        }
    }
    assert!(idle.is_empty(), "{idle:#?}");
}

fn attack(policy: &str) {
    let world = World::new();
    let (_, cedar, resource) = POLICIES.iter().find(|(name, ..)| *name == policy).expect("a policy");
    let issuer = Issuer::start();
    let gateway =
        Setup::new(&world.postgres, &issuer).databases(&[THROUGH]).policies(cedar).resource(resource).start();
    let canaries = world.canaries(policy);
    let (mut broken, mut ran) = (Vec::new(), 0);
    // Whoever may do more is held by the same masks.
    let is_tried =
        |case: &&Case| case.policy.has(policy) || policy == "mask_owner" && case.policy.has("mask");
    for case in world.corpus.attack.iter().filter(is_tried) {
        for mode in Mode::ALL {
            // What only reads is tried in every mode under its own policy.
            if mode != Mode::Stated && !case.policy.has(policy) {
                continue;
            }
            let Some(case) = case.in_mode(mode) else { continue };
            let answers = world.run_through(&gateway, &issuer, &case);
            ran += 1;
            let seen = canaries.as_ref().and_then(|canaries| canaries.found(&answers));
            let changed = world.changed(THROUGH);
            let broke = changed && !matches!(policy, "mask_owner" | "definer");
            if broke || seen.is_some() || told_apart(&case, &answers) {
                let answers: Vec<Vec<String>> = answers.iter().map(|answer| brief(answer)).collect();
                broken.push(format!("{} {mode:?}: changed {changed}, seen {seen:?}, {answers:?}", case.id));
            }
            if changed {
                world.renew(THROUGH);
            }
        }
    }
    assert!(broken.is_empty(), "{} of {ran}: {broken:#?}", broken.len());
    assert!(ran > 0, "no case of {policy}");
}

#[test]
fn read_only_holds() {
    attack("read_only");
}

#[test]
fn a_denied_table_is_neither_seen_nor_changed() {
    attack("deny_table");
}

#[test]
fn masks_hold() {
    attack("mask");
}

#[test]
fn masks_hold_against_an_owner() {
    attack("mask_owner");
}

#[test]
fn a_definition_is_no_way_round() {
    attack("definer");
}

#[test]
fn legitimate_use_is_answered_as_on_a_direct_connection() {
    let world = World::new();
    let issuer = Issuer::start();
    let mut different = Vec::new();
    for (policy, cedar, resource) in POLICIES {
        let gateway = Setup::new(&world.postgres, &issuer)
            .databases(&[THROUGH])
            .policies(cedar)
            .resource(resource)
            .start();
        let canaries = world.canaries(policy);
        *world.spare.borrow_mut() = [None, None];
        for case in world.corpus.legitimate.iter().filter(|case| case.policy.has(policy)) {
            for mode in Mode::ALL {
                let Some(case) = case.in_mode(mode) else { continue };
                let direct = world.run_direct(&case);
                let through = world.run_through(&gateway, &issuer, &case);
                let failed = mode == Mode::Stated && is_refused(&direct);
                let same = match case.category.as_str() {
                    "masked-shape" => {
                        shape(&direct) == shape(&through)
                            && canaries.as_ref().is_none_or(|canaries| canaries.found(&through).is_none())
                    }
                    // What is made has another number in each database.
                    "migration" | "orm-write" => briefs(&direct) == briefs(&through),
                    // Several statements are none of the extended protocol's.
                    _ if mode != Mode::Stated && is_refused(&direct) => briefs(&direct) == briefs(&through),
                    _ => plain(&direct) == plain(&through),
                };
                if !same || failed {
                    different.push(format!(
                        "{policy} {} {mode:?}:\n{:?}\n{:?}",
                        case.id,
                        briefs(&direct),
                        briefs(&through)
                    ));
                }
                if world.changed(DIRECT) || world.changed(THROUGH) {
                    world.renew(DIRECT);
                    world.renew(THROUGH);
                }
                if case.category == "migration" {
                    break;
                }
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Whether the server has refused any of it.
fn is_refused(answers: &[Vec<Message>]) -> bool {
    answers.iter().flatten().any(|message| message.tag == b'E')
}

fn briefs(answers: &[Vec<Message>]) -> Vec<Vec<String>> {
    answers.iter().map(|answer| brief(answer)).collect()
}

/// All messages but those that tell of the session's own settings.
fn plain(answers: &[Vec<Message>]) -> Vec<&Message> {
    answers.iter().flatten().filter(|message| message.tag != b'S').collect()
}

/// The names and types of columns, and how many rows came.
fn shape(answers: &[Vec<Message>]) -> Vec<String> {
    let columns = |message: &Message| {
        let mut columns = Vec::new();
        let mut rest = &message.body[2..];
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            // Table, place, type, length, modifier, format.
            let fixed = &rest[end + 1..end + 19];
            columns.push(format!("{name} {:?}", &fixed[6..10]));
            rest = &rest[end + 19..];
        }
        columns.join(",")
    };
    answers
        .iter()
        .flatten()
        .map(|message| match message.tag {
            b'T' => columns(message),
            b'D' => format!("D {}", cells(&message.body).len()),
            _ => message.brief(),
        })
        .collect()
}
