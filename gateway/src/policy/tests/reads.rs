//! Who is permitted nothing but reading.

use super::*;

const READ: &str =
    "permit (principal, action in [Action::\"read\", Action::\"login\", Action::\"unmask\"], resource);";

#[track_caller]
fn check(text: &str, expected: bool) {
    let set = set(&format!("{READ}\n{text}"));
    assert_eq!(set.only_reads(&standing("user corp:lee (dev)")), expected, "{text}");
}

#[test]
fn a_set_that_can_permit_nothing_else_only_reads() {
    for text in [
        "",
        "permit (principal in Group::\"dba\", action, resource);",
        "permit (principal == User::\"corp:kim\", action, resource);",
        "permit (principal is Service, action, resource);",
        "permit (principal, action, resource in Resource::\"stock-db\");",
        "permit (principal, action in Action::\"write\", resource in Database::\"orders-db/stock\");",
        "permit (principal, action == Action::\"drop\", resource == Role::\"stock-db/app_ro\");",
        "permit (principal, action == Action::\"set\", resource == Setting::\"orders-db/orders/work_mem\");",
        // Conditions that a session settles.
        "permit (principal, action, resource) when { context.role == \"app_rw\" };",
        "permit (principal, action, resource) unless { context.role == \"app_ro\" };",
        "permit (principal, action, resource) when { principal in Group::\"dba\" || principal.issuer == \"other\" };",
        "permit (principal, action, resource) when { context.statement.has_where && context.database != \"orders\" };",
        "permit (principal, action, resource) when { action == Action::\"select\" || action in Action::\"read\" };",
        "permit (principal, action, resource) when { context.statement.has_where } when { context.resource == \"x\" };",
        // What a forbid takes away from everything.
        "permit (principal, action, resource);\nforbid (principal in Group::\"dev\", action, resource) unless { action in Action::\"read\" };",
        "permit (principal, action in Action::\"write\", resource);\nforbid (principal, action in Action::\"write\", resource in Resource::\"orders-db\") when { context.role like \"x\" || context.role == \"app_ro\" };",
    ] {
        check(text, true);
    }
}

#[test]
fn whatever_could_permit_a_change_does_not_only_read() {
    for text in [
        "permit (principal, action, resource);",
        "permit (principal in Group::\"dev\", action in Action::\"write\", resource in Table::\"orders-db/orders/public.log\");",
        "permit (principal, action == Action::\"call\", resource == Function::\"orders-db/orders/public.refund\");",
        "permit (principal, action == Action::\"opaque\", resource is Database);",
        "permit (principal, action == Action::\"alter\", resource == Role::\"orders-db/app_ro\");",
        "permit (principal, action == Action::\"set\", resource == Setting::\"orders-db/orders/transaction_read_only\");",
        "permit (principal, action == Action::\"set\", resource in Database::\"orders-db/orders\");",
        "permit (principal, action, resource) when { context.role == \"app_ro\" };",
        "permit (principal, action, resource) when { context.statement.has_where };",
        "permit (principal, action, resource) when { context.role like \"app*\" };",
        "permit (principal, action, resource) when { if context.statement.has_where then true else false };",
        "permit (principal, action, resource) unless { context.statement.kind == \"select\" };",
        // A forbid that leaves a way.
        "permit (principal, action, resource);\nforbid (principal, action in Action::\"write\", resource in Schema::\"orders-db/orders/public\");",
        "permit (principal, action, resource);\nforbid (principal in Group::\"dba\", action, resource);",
        "permit (principal, action in Action::\"write\", resource);\nforbid (principal, action in Action::\"write\", resource) unless { context.statement.has_where };",
        "permit (principal, action in Action::\"write\", resource);\nforbid (principal, action in Action::\"write\", resource in Resource::\"stock-db\");",
    ] {
        check(text, false);
    }
}

#[test]
fn a_chain_only_reads_where_one_link_does() {
    let set =
        set(&format!("{READ}\npermit (principal in Group::\"dev\", action in Action::\"write\", resource);"));
    for (who, expected) in [
        ("user corp:lee (dev)", false),
        ("user corp:kim", true),
        ("user corp:lee (dev) > service agents:bot", true),
        ("user corp:kim > service agents:bot (dev)", true),
        ("user corp:lee (dev) > service agents:bot (dev)", false),
    ] {
        assert_eq!(set.only_reads(&standing(who)), expected, "{who}");
    }
}
