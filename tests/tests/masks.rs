//! What a masked session is shown, told and recorded to have done, on a real server.

use gatebook_tests::corpus::Canaries;
use gatebook_tests::driver;
use gatebook_tests::postgres::{APP, APP_PASSWORD};
use gatebook_tests::wire::{brief, query};
use gatebook_tests::{Postgres, World};

const SUPPORT: &str = r#"
permit (principal, action == Action::"login", resource);
permit (principal, action in [Action::"read", Action::"write"], resource in Schema::"orders-db/orders/public");
permit (principal in Group::"dpo", action == Action::"unmask", resource == Column::"orders-db/orders/public.customers.email");
"#;

const MASKS: &str = r#"
[[resource.mask]]
columns = ["public.customers.email"]
with = "partial"
[[resource.mask]]
columns = ["public.customers.name"]
with = "hash"
[[resource.mask]]
columns = ["public.orders.total"]
with = "number"
"#;

/// As docs/policy.md gives it.
const PSEUDONYM: &str = "CREATE SCHEMA gatebook; \
    CREATE TABLE gatebook.key AS SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS key; \
    CREATE FUNCTION gatebook.pseudonym(value text) RETURNS text LANGUAGE sql STABLE STRICT SECURITY DEFINER \
    SET search_path = pg_catalog, pg_temp \
    AS $$ SELECT encode(sha256(key || sha256(key || convert_to(value, 'UTF8'))), 'hex') FROM gatebook.key $$; \
    GRANT USAGE ON SCHEMA gatebook TO PUBLIC";

fn world() -> World {
    let postgres = Postgres::start();
    postgres.admin(PSEUDONYM);
    World::before(postgres, |setup| setup.policies(SUPPORT).resource(MASKS))
}

#[test]
fn masks_keep_their_shape_and_the_ledger_has_both_texts() {
    let world = world();
    let mut client = world.client();
    let email = "SELECT email FROM customers WHERE id = 7";
    assert_eq!(client.simple(email)[1], "D ***********test");
    assert_eq!(client.simple("SELECT sum(total) FROM orders")[1], "D 0");
    let hashes = client
        .simple("SELECT c.name, c.name = d.name FROM customers c, customers d WHERE c.id = 7 AND d.id = 7");
    let hash = world.postgres.admin("SELECT gatebook.pseudonym(name) FROM customers WHERE id = 7");
    assert_eq!(hashes[1], format!("D {hash},t"));
    // Whoever could make a hash could try values.
    assert_eq!(client.simple("SELECT gatebook.pseudonym('customer 7')"), ["E 42501", "Z I"]);
    drop(client);

    let events = world.gateway.ledger().told();
    let command = events
        .iter()
        .find(|event| event.name == "command" && event.payload["statement"]["text"] == email)
        .expect("the client's text is recorded");
    let sent = command.payload["sent"]["text"].as_str().expect("and the one that was sent");
    assert!(sent.starts_with("SELECT email FROM (SELECT \"id\", CAST(gatebook.pseudonym("), "{sent}");
    let obligations = command.payload["obligations"].to_string();
    assert!(obligations.contains("mask orders/public.customers.email with partial"), "{obligations}");
    let all = format!("{:?}", events.iter().map(|event| &event.payload).collect::<Vec<_>>());
    assert!(!all.contains("c7@example.test"), "no clear value is recorded");
}

#[test]
fn who_may_unmask_a_column_sees_it_and_is_recorded_to() {
    let world = world();
    let mut client = world.gateway.login(&world.issuer.token("dana", &["dpo"]));
    let answer = client.simple("SELECT email, name = 'customer 7' FROM customers WHERE id = 7");
    assert_eq!(answer[1], "D c7@example.test,f", "the other column stays masked");
    drop(client);
    let events = world.gateway.ledger().told();
    let unmasked = events.iter().filter(|event| {
        event.name == "command"
            && event.payload["actions"].to_string().contains("unmask orders/public.customers.email")
    });
    assert_eq!(unmasked.count(), 1);
}

/// The row that a constraint refuses is told in the error's detail, with the columns that the session may not see.
#[test]
fn what_the_server_says_of_a_write_is_withheld_but_for_code_and_names() {
    let world = world();
    world.postgres.admin("ALTER TABLE customers ADD CONSTRAINT short CHECK (id < 100)");
    let mut client = world.client();
    let answer = client.ask(&[query("UPDATE customers SET id = 700 WHERE id = 7")]);
    assert_eq!(brief(&answer), ["E 23514", "Z I"]);
    let said = String::from_utf8_lossy(&answer[0].body).into_owned();
    assert!(!said.contains("c7@") && !said.contains("customer 7") && said.contains("withheld"), "{said}");
    assert!(said.contains("nshort"), "the constraint's name stays: {said}");
    assert_eq!(client.simple("UPDATE customers SET id = 8 WHERE email LIKE 'c7%'"), ["E 42501", "Z I"]);
    assert_eq!(client.simple("UPDATE customers SET email = 'new' WHERE id = 7"), ["C UPDATE 1", "Z I"]);
}

/// What was spliced into the text is not what the client wrote: places in it are told as places in the client's.
#[test]
fn the_place_of_a_mistake_is_one_in_the_clients_own_text() {
    let world = world();
    let mut client = world.client();
    let answer = client.ask(&[query("SELECT c.email, c.nothing FROM customers c WHERE c.id = 1")]);
    let after = client.ask(&[query("SELECT 1 FROM customers c WHERE wrong = 1")]);
    for (answer, place) in [(answer, "P17\0"), (after, "P33\0")] {
        let said = String::from_utf8_lossy(&answer[0].body).into_owned();
        assert!(said.contains("C42703\0") && said.contains(place), "{said}");
    }
}

/// Reads in every way that a driver has, by itself and by what the server makes of the values.
fn reads() -> serde_json::Value {
    let sql = |sql: &str| serde_json::json!({ "do": "run", "sql": sql });
    let read = "SELECT email, name FROM customers WHERE id = $1::int";
    serde_json::json!([
        sql("SELECT * FROM customers ORDER BY id LIMIT 3"),
        { "do": "prepared", "sql": read, "runs": [[1], [2], [1], [7], [8], [7]] },
        { "do": "pipeline", "steps": [{ "sql": read, "params": [3] }, { "sql": "SELECT c FROM customers c", "params": [] }] },
        sql("SELECT upper(email), reverse(email), encode(email::bytea, 'hex'), encode(email::bytea, 'base64') FROM customers"),
        sql("SELECT row_to_json(c), array_agg(email) OVER () FROM customers c"),
        sql("SELECT string_agg(email, ',') AS all FROM customers"),
        sql("SELECT email::int FROM customers"),
        sql("SELECT 1 / (length(email) - length(email)) FROM customers WHERE email LIKE 'c1%'"),
        sql("BEGIN"),
        sql("DECLARE c CURSOR FOR SELECT email FROM customers ORDER BY id"),
        sql("FETCH 5 FROM c"),
        sql("FETCH ALL FROM c"),
        sql("COMMIT"),
        { "do": "several", "sql": "SELECT email FROM customers WHERE id = 4; SELECT name FROM customers WHERE id = 5" },
        { "do": "copy_out", "table": "customers", "columns": ["id", "email", "name"],
          "sql": "COPY customers (id, email, name) TO STDOUT" },
        { "do": "fetch", "sql": "SELECT email FROM customers ORDER BY id", "size": 6 },
    ])
}

/// Everything that any driver tells of what it received is searched, in whatever form it may have come.
#[test]
fn no_driver_receives_what_is_masked() {
    let world = world();
    let values =
        world.postgres.admin("SELECT string_agg(email || ',' || name, ',') FROM customers WHERE id < 10");
    let canaries = Canaries::new(values.split(',').map(str::to_owned).collect());
    let directly = world.postgres.environment(APP, APP_PASSWORD);
    let through = world.gateway.environment(&world.token());
    for driver in driver::ALL {
        let mut reads = reads();
        if driver.name == "psql" {
            // Its program wants something to cancel, and takes this error for a sign that it runs.
            let cancel = serde_json::json!({ "do": "cancel", "sql": "SELECT running" });
            reads.as_array_mut().expect("a list of steps").push(cancel);
        }
        let direct = driver.run_script(&directly, &reads).join("\n");
        assert!(canaries.found_in(&direct, "").is_some(), "{driver:?} reads nothing directly: {direct}");
        let told = driver.run_script(&through, &reads).join("\n");
        assert_eq!(canaries.found_in(&told, ""), None, "{driver:?}: {told}");
        assert!(told.contains("*test"), "{driver:?} is shown masks: {told}");
    }
}
