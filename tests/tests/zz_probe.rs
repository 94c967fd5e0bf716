//! Probe.
use gatebook_tests::World;
#[test]
fn probe() {
    let mut world = World::new(gatebook_tests::gateway::PERMIT_ALL);
    let mut c = world.client();
    c.simple("SELECT 1");
    c.ask(&[
        gatebook_tests::wire::extended("SELECT $1::text", &[Some("it's")]),
        gatebook_tests::wire::sync(),
    ]);
    drop(c);
    world.gateway.stop();
    for e in world.gateway.ledger().events() {
        println!("{e}");
    }
    println!("{}", world.gateway.ledger().verify().said);
    println!("{}", world.gateway.process().lines().join("\n"));
}
