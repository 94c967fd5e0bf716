//! What understanding and deciding a statement costs: `decisions [--json]`, medians and 99th percentiles of single calls.
//!
//! The catalog is a real server's with three tables of twenty columns, the set has fifty policies. What is remembered is measured by asking the same
//! again, what is not by texts that differ in a name each.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use gatebook::policy::{DecisionCache, PolicyFile, PolicySet, Standing, Subject, SubjectKind};
use gatebook_tests::Postgres;
use gatebook_tests::postgres::{APP, APP_PASSWORD, DATABASE};
use gatebook_wire::sql::{CATALOG_QUERIES, CATALOG_SETUP, Catalog, Masking, Rows, Session, Start};
use serde_json::{Value, json};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// How many calls of each kind are timed.
const CALLS: usize = 2_000;
/// So many are not.
const FIRST: usize = 200;

const TABLES: &str = "SELECT format('CREATE TABLE %I (%s)', t, string_agg(format('%s_%s text', t, i), ', ')) \
    FROM unnest(ARRAY['parts', 'suppliers', 'deliveries']) t, generate_series(1, 20) i GROUP BY t";

fn main() -> ExitCode {
    let json_wanted = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [one] if one == "--json" => true,
        _ => {
            eprintln!("usage: decisions [--json]");
            return ExitCode::from(3);
        }
    };
    let catalog = catalog();
    let start =
        Start { database: DATABASE.into(), role: APP.into(), search_path: None, masking: Masking::default() };
    let session = Session::new(start, &catalog);
    let (set, standing) = (policies(), Arc::new(standing()));
    assert_eq!(set.len(), 50);

    let statement = |name: usize| statement(name, 1);
    let analyze = |text: &str| session.analyze(text, &catalog).statements[0].meaning.clone();
    let meaning = analyze(&statement(0));
    assert!(meaning.facts.resolved && meaning.facts.relations == 3, "{meaning:?}");
    assert!(set.decide(&standing, &meaning).is_permit());
    let long = |name: usize| {
        let text = self::statement(name, 7);
        assert!((10_000..12_000).contains(&text.len()), "{}", text.len());
        text
    };
    assert!(analyze(&long(0)).facts.resolved);

    let mut cache = DecisionCache::new(512);
    let figures = json!({
        "decision_cached_us": time(|_| meaning.clone(), |meaning| cache.decide(&set, &standing, &meaning)),
        "decision_us": time(|_| (), |()| set.decide(&standing, &meaning)),
        "analysis_cached_us": time(|_| statement(0), |text| analyze(&text)),
        "analysis_us": time(statement, |text| analyze(&text)),
        "analysis_10kb_us": time(long, |text| analyze(&text)),
    });
    if json_wanted {
        println!("{figures}");
    } else {
        for (name, figure) in figures.as_object().into_iter().flatten() {
            println!("{name}: median {}, p99 {}", figure["p50"], figure["p99"]);
        }
    }
    ExitCode::SUCCESS
}

/// Times single calls of `act` on what `make` makes of their number.
fn time<T, R>(make: impl Fn(usize) -> T, mut act: impl FnMut(T) -> R) -> Value {
    let mut micros: Vec<f64> = (1..=FIRST + CALLS)
        .map(|number| {
            let input = make(number);
            let begun = Instant::now();
            let result = std::hint::black_box(act(std::hint::black_box(input)));
            let took = begun.elapsed();
            drop(result);
            took.as_secs_f64() * 1e6
        })
        .skip(FIRST)
        .collect();
    micros.sort_by(f64::total_cmp);
    let at = |percent: usize| (micros[(micros.len() - 1) * percent / 100] * 1000.0).round() / 1000.0;
    json!({ "p50": at(50), "p99": at(99) })
}

/// A statement over three tables and their columns, `times` over; its names differ by `number`.
fn statement(number: usize, times: usize) -> String {
    let mut text = String::new();
    for part in 0..times {
        let union = if part == 0 { "" } else { " UNION ALL " };
        write!(text, "{union}SELECT ").expect("a text can be written");
        for (alias, table) in [("p", "parts"), ("s", "suppliers"), ("d", "deliveries")] {
            for column in 1..=20 {
                let comma = if alias == "d" && column == 20 { "" } else { ", " };
                write!(text, "upper({alias}.{table}_{column}){comma}").expect("a text can be written");
            }
        }
        write!(
            text,
            " FROM parts p JOIN suppliers s ON p.parts_1 = s.suppliers_1 JOIN deliveries d ON d.deliveries_1 = p.parts_2 \
             WHERE p.parts_3 LIKE 'a%' AND s.suppliers_4 <> d.deliveries_5 AND p.parts_6 = '{part}' OR p.parts_7 IS NULL"
        )
        .expect("a text can be written");
    }
    format!("WITH w{number} AS ({text}) TABLE w{number}")
}

fn policies() -> PolicySet {
    let mut text = String::new();
    for number in 0..46 {
        let verb = ["read", "write", "define"][number % 3];
        writeln!(
            text,
            "permit (principal in Group::\"team{number}\", action in Action::\"{verb}\", resource in Schema::\"orders-db/orders/public\") \
             when {{ context.statement.relations < {} }};",
            4 + number
        )
        .expect("a text can be written");
    }
    text.push_str(
        "permit (principal in Group::\"developers\", action in Action::\"read\", resource in Database::\"orders-db/orders\");\n\
         permit (principal in Group::\"developers\", action == Action::\"login\", resource);\n\
         forbid (principal, action, resource in Table::\"orders-db/orders/public.wages\") unless { principal in Group::\"payroll\" };\n\
         forbid (principal, action in Action::\"write\", resource) when { !context.statement.has_where };\n",
    );
    let file = PolicyFile { name: "bench.cedar".into(), text: text.into() };
    PolicySet::from_files(vec![file]).expect("the policies load")
}

fn standing() -> Standing {
    let groups = ["developers", "team1", "team20", "team40"].map(Arc::from);
    Standing {
        chain: vec![Subject::new(SubjectKind::User, "corp", "lee", groups).expect("a plain issuer")],
        scopes: Vec::new(),
        resource: "orders-db".into(),
        database: DATABASE.into(),
        role: APP.into(),
        protocol: "postgres",
    }
}

/// The catalog of a server that holds the three tables.
fn catalog() -> Catalog {
    let postgres = Postgres::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let parameters = format!(
            "host=127.0.0.1 port={} user={APP} password={APP_PASSWORD} dbname={DATABASE}",
            postgres.address().port()
        );
        let (client, connection) =
            tokio_postgres::connect(&parameters, NoTls).await.expect("the server is there");
        tokio::spawn(connection);
        for row in client.query(TABLES, &[]).await.expect("the tables' definitions") {
            client.batch_execute(row.get(0)).await.expect("a table");
        }
        client.batch_execute(CATALOG_SETUP).await.expect("a search path");
        let mut answers = Vec::new();
        for query in CATALOG_QUERIES {
            let rows: Rows = client
                .simple_query(query.sql)
                .await
                .expect("the catalog can be read")
                .into_iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
                .collect();
            answers.push(rows);
        }
        Catalog::from_rows(answers, &[]).expect("it is understood")
    })
}
