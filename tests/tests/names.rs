//! Several resources behind one address, told apart by the server name that a client asks for (TLS SNI).

use std::net::SocketAddr;
use std::process::Command;

use gatebook_tests::gateway::{PERMIT_ALL, Setup};
use gatebook_tests::postgres::{APP, CATALOG, DATABASE};
use gatebook_tests::wire::{self, Client, brief, query};
use gatebook_tests::{Authority, Gateway, Issuer, Postgres, machine};
use serde_json::{Value, json};

const ORDERS: &str = "orders.db.example";
const ARCHIVE: &str = "archive.db.example";

/// Two servers behind one address of one gateway.
struct Names {
    gateway: Gateway,
    issuer: Issuer,
    authority: Authority,
    _servers: [Postgres; 2],
    folder: tempfile::TempDir,
}

impl Names {
    fn new() -> Self {
        let [orders, archive] = [Postgres::start(), Postgres::start()];
        archive.admin("INSERT INTO journal (id, body) VALUES (1, 'the archive')");
        orders.admin("INSERT INTO journal (id, body) VALUES (1, 'the orders')");
        let (issuer, authority, folder) = (Issuer::start(), Authority::new(), machine::temporary());
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("ca.crt"), authority.pem()).unwrap();
        let certificate = |name: &str| {
            authority.issue(&[name]).write(folder.path(), name);
            format!("certificate = {{ chain = \"{0}.crt\", key = \"{0}.key\" }}", at(name))
        };
        let passwords: Vec<String> = [APP, CATALOG]
            .iter()
            .map(|role| format!("{{ name = \"{role}\", password = {{ file = \"{role}.password\" }} }}"))
            .collect();
        let listen: SocketAddr = ([127, 0, 0, 1], machine::free_port()).into();
        let second = format!(
            "[[resource]]\nname = \"archive-db\"\nkind = \"postgres\"\nlisten = \"{listen}\"\n\
             upstream = \"localhost:{}\"\ntls = {{ ca = \"{}\" }}\ndatabases = [\"{DATABASE}\"]\nroles = [{}]\n\
             catalog_role = \"{CATALOG}\"\nserver_name = [\"{ARCHIVE}\"]\n{}",
            archive.address().port(),
            archive.authority_file().display(),
            passwords.join(", "),
            certificate(ARCHIVE),
        );
        let gateway = Setup::new(&orders, &issuer)
            .policies(PERMIT_ALL)
            .listen(listen)
            .resource(&format!("server_name = [\"{ORDERS}\"]\n{}", certificate(ORDERS)))
            .top(&second)
            .start();
        Self { gateway, issuer, authority, _servers: [orders, archive], folder }
    }

    fn psql(&self, settings: &str, token: &str) -> (bool, String) {
        let mut psql = Command::new(machine::program("psql"));
        self.gateway.environment(token).apply(&mut psql);
        let ca = self.folder.path().join("ca.crt");
        psql.args(["-X", "-A", "-t", "-q", "-d"])
            .arg(format!("hostaddr=127.0.0.1 sslrootcert={} {settings}", ca.display()))
            .args(["-c", "SELECT body FROM journal"]);
        let output = psql.output().expect("psql runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        (output.status.success(), said)
    }
}

#[test]
fn each_resource_is_reached_by_its_own_name_alone_and_a_stranger_is_recorded() {
    let mut names = Names::new();
    let token = names.issuer.token("lee", &["developers"]);
    // psql verifies the certificate: each name is shown its own.
    assert_eq!(names.psql(&format!("host={ORDERS}"), &token), (true, "the orders".to_owned()));
    assert_eq!(names.psql(&format!("host={ARCHIVE}"), &token), (true, "the archive".to_owned()));
    assert_eq!(
        names.psql(&format!("host={}", ARCHIVE.to_uppercase()), &token),
        (true, "the archive".to_owned())
    );
    for (settings, why) in [
        (format!("host={ORDERS} sslsni=0"), "SSL error"),
        ("host=127.0.0.1".to_owned(), "SSL error"),
        ("host=payroll.db.example".to_owned(), "SSL error"),
        (format!("host={ORDERS} sslmode=disable"), "only over TLS"),
    ] {
        let (reached, said) = names.psql(&settings, &token);
        assert!(!reached && said.contains(why), "{settings}: {said}");
    }
    let config = |says_name: bool| {
        let mut config = names.authority.client();
        config.enable_sni = says_name;
        config
    };
    let address = names.gateway.address();
    assert!(Client::tls_to(ORDERS, address, config(false)).is_err());
    assert!(Client::tls_to("localhost", address, config(true)).is_err());
    // A cancel request has no name, and needs none.
    let mut client = Client::tls_to(ARCHIVE, address, config(true)).unwrap();
    client.login(APP, DATABASE, &token).expect("the token is good");
    client.send(&query("DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(300); END $$")).unwrap();
    client.receive_until(b"N");
    Client::clear(address).send(&wire::cancel(&client.cancel_key)).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 57014", "Z I"]);
    drop(client);

    assert!(names.gateway.stop().success());
    let ledger = names.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let resources: Vec<&Value> = told
        .iter()
        .filter(|event| event.name == "session.opened")
        .map(|event| &event.payload["resource"])
        .collect();
    assert_eq!(resources, ["orders-db", "archive-db", "archive-db", "archive-db"]);
    let refused: Vec<(&Value, u64, &Value)> = told
        .iter()
        .filter(|event| event.name == "login.refused")
        .map(|event| (&event.body["cause"], event.body["count"].as_u64().unwrap(), &event.payload["detail"]))
        .collect();
    // The first is recorded at once, the others are summed up with it.
    assert_eq!(
        refused,
        [
            (&json!("server_name"), 1, &json!("no server name")),
            (&json!("server_name"), 4, &json!("no server name"))
        ]
    );
}
