//! Unmodified clients: what they see directly.

use gatebook_tests::Postgres;
use gatebook_tests::driver::{ALL, script};
use gatebook_tests::postgres::{APP, APP_PASSWORD, Executed};

/// What the server says a driver's script executed.
fn executions(executed: &[Executed]) -> Vec<(String, Option<String>)> {
    executed.iter().map(|executed| (executed.text.clone(), executed.parameters.clone())).collect()
}

#[test]
fn every_driver_sees_the_same_twice_and_leaves_nothing_out() {
    let postgres = Postgres::logging();
    let environment = postgres.environment(APP, APP_PASSWORD);
    let only = std::env::var("GATEBOOK_DRIVER").ok();
    let mut before = 0;
    for driver in ALL.into_iter().filter(|driver| only.as_deref().is_none_or(|only| only == driver.name)) {
        let first = driver.run(&environment);
        let executed = postgres.executed(APP);
        let once = executions(&executed[before..]);
        before = executed.len();
        let second = driver.run(&environment);
        let executed = postgres.executed(APP);
        let twice = executions(&executed[before..]);
        before = executed.len();
        if only.is_some() {
            println!("{}\n{twice:#?}", first.join("\n"));
        }
        assert_eq!(first, second, "{driver:?}");
        assert_eq!(once, twice, "{driver:?}");
        let all: String = once.into_iter().map(|(text, _)| text + "\n").collect();
        let missing: Vec<String> = script().1.into_iter().filter(|tag| !all.contains(tag)).collect();
        println!("{driver:?}: never executed {missing:?}");
    }
}
