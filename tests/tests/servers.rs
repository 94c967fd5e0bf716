//! The harness judges itself: what it starts is real, apart and gone afterwards.
use gatebook_tests::Postgres;
use gatebook_tests::postgres::{APP, APP_PASSWORD};
use std::process::Command;

#[test]
fn a_server_comes_up_with_the_applications_tables_and_tells_what_it_executed() {
    let postgres = Postgres::logging();
    assert_eq!(postgres.admin("SELECT count(*) FROM orders"), "100");
    let mut psql = Command::new("psql");
    postgres.environment(APP, APP_PASSWORD).apply(&mut psql);
    gatebook_tests::machine::run(psql.args(["-c", "SELECT 1,\n 2", "-c", "SELECT 3"]));
    let executed: Vec<String> = postgres.executed(APP).into_iter().map(|executed| executed.text).collect();
    assert_eq!(executed, ["SELECT 1,\n 2", "SELECT 3"]);
}
