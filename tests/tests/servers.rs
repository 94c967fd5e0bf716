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

#[test]
fn the_hand_made_client_speaks_as_a_server_expects() {
    use gatebook_tests::postgres::DATABASE;
    use gatebook_tests::wire::{self, Client};
    let postgres = Postgres::start();
    let mut client = Client::tls(postgres.address(), postgres.authority().client());
    client.login(APP, DATABASE, APP_PASSWORD).expect("the password is right");
    assert_eq!(
        client.simple("SELECT 1, NULL; SELECT 'two'"),
        ["T", "D 1,∅", "C SELECT 1", "T", "D two", "C SELECT 1", "Z I"]
    );
    let frames = [wire::extended("SELECT $1::int + 1", &[Some("41")]), wire::sync()];
    assert_eq!(wire::brief(&client.ask(&frames)), ["1", "2", "D 42", "C SELECT 1", "Z I"]);
    let mut stranger = Client::tls(postgres.address(), postgres.authority().client());
    assert_eq!(stranger.login(APP, DATABASE, "wrong").unwrap_err().code, "28P01");
}
