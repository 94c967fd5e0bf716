//! Every key of `gatebook.toml`, in one table: what it takes, what its absence means, what it does.
//!
//! The reader asks this table for types, defaults and ranges, refuses what is not in it, and
//! `docs/configuration.md` is generated from it. A key that is here and that nothing reads, or is read
//! and not here, fails a test.

/// One key.
pub(super) struct Key {
    /// Where it stands, such as `resource.tls.ca`; arrays of tables are passed through by name.
    pub(super) path: &'static str,
    /// What it takes.
    pub(super) takes: Takes,
    /// What it means when it is left out.
    pub(super) absent: Absent,
    /// What it does, for the reference: full sentences.
    pub(super) says: &'static str,
}

/// The shape of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A string.
    Text,
    /// A path; a relative one starts at the configuration file's folder.
    Path,
    /// Several paths.
    Paths,
    /// `true` or `false`.
    Flag,
    /// A duration within these bounds.
    Duration(&'static str, &'static str),
    /// A size within these bounds.
    Size(&'static str, &'static str),
    /// A whole number within these bounds.
    Count(u64, u64),
    /// A share in percent.
    Percent,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One or several of these words.
    Choices(&'static [&'static str]),
    /// Several strings.
    Texts,
    /// One string, or several.
    OneOrTexts,
    /// A reference to a secret.
    Secret,
    /// A table with keys of its own.
    Table,
    /// A word of [`Takes::Choice`], or a table with keys of its own.
    ChoiceOrTable(&'static [&'static str]),
    /// Several tables with keys of their own.
    Tables,
    /// A table whose keys the operator chooses; the values are strings.
    Open,
}

/// What happens when a key is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It is a mistake.
    Refused,
    /// As if this had been written.
    Is(&'static str),
    /// Something that no value of the key says.
    Means(&'static str),
}

impl Takes {
    /// The shape in words, as mistakes and the reference say it.
    pub(super) fn words(self) -> String {
        match self {
            Takes::Text => "a string".into(),
            Takes::Path => "a path".into(),
            Takes::Paths => "a list of paths".into(),
            Takes::Flag => "true or false".into(),
            Takes::Duration(least, most) => format!("a duration from {least} to {most}"),
            Takes::Size(least, most) => format!("a size from {least} to {most}"),
            Takes::Count(least, most) => format!("a whole number from {least} to {most}"),
            Takes::Percent => "a share such as \"20%\"".into(),
            Takes::Choice(of) => quoted(of, " or "),
            Takes::Choices(of) => format!("a list of {}", quoted(of, ", ")),
            Takes::Texts => "a list of strings".into(),
            Takes::OneOrTexts => "a string, or a list of strings".into(),
            Takes::Secret => "a reference to a secret".into(),
            Takes::Table => "a table".into(),
            Takes::ChoiceOrTable(of) => format!("{}, or a table", quoted(of, " or ")),
            Takes::Tables => "a list of tables".into(),
            Takes::Open => "a table of strings".into(),
        }
    }
}

fn quoted(words: &[&str], between: &str) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(between)
}

/// The key at `path`.
///
/// # Panics
/// When the table has no such key: a mistake in the reader, which any test that reads a file shows.
pub(super) fn key(path: &str) -> &'static Key {
    KEYS.iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path} is not in the table of keys"))
}

/// The names of the keys that may stand directly below `place` (the top of the file is the empty place).
pub(super) fn below(place: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let name = match place {
            "" => key.path,
            _ => key.path.strip_prefix(place)?.strip_prefix('.')?,
        };
        (!name.contains('.')).then_some(name)
    })
}

/// The candidate that was probably meant by `written`, if one is near.
pub(super) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= ((candidate.chars().count() + 1) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean "x"?)`, or nothing.
pub(super) fn meant<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, candidates).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
}

const fn key_of(path: &'static str, takes: Takes, absent: Absent, says: &'static str) -> Key {
    Key { path, takes, absent, says }
}

use Absent::{Is, Means, Refused};

/// The algorithms that a token's signature may be made with; symmetric ones and `none` are not among them.
pub(super) const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// The table, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    key_of(
        "policies",
        Takes::Path,
        Is("policies"),
        "The folder of `.cedar` files that decide. It is read again when a file changes and on SIGHUP; a broken edit \
         keeps the old set.",
    ),
    key_of(
        "control",
        Takes::Path,
        Is("control.sock"),
        "The local socket (mode 0600) over which `gatebook revoke` and the other operator commands speak to the running \
         gateway. Its folder must exist; the path has at most 107 bytes.",
    ),
    key_of(
        "certificate",
        Takes::Table,
        Means("each resource brings its own"),
        "The certificate that clients are shown by every resource that names none of its own. It is read again when its \
         files change.",
    ),
    key_of(
        "certificate.chain",
        Takes::Path,
        Refused,
        "A PEM file: the server's certificate first, then the intermediate ones.",
    ),
    key_of(
        "certificate.key",
        Takes::Path,
        Refused,
        "A PEM file with the certificate's private key, readable by its owner alone (0600).",
    ),
    key_of("ledger", Takes::Table, Refused, "The book of everything that passed."),
    key_of(
        "ledger.path",
        Takes::Path,
        Refused,
        "The folder of the ledger. It is made when it does not exist; everything in it is readable by its owner alone.",
    ),
    key_of(
        "ledger.keys",
        Takes::Path,
        Is("keys"),
        "The folder of the ledger's signing keys (0700). It must not lie inside `path`, which is what gets copied to \
         auditors.",
    ),
    key_of(
        "ledger.origin",
        Takes::Text,
        Refused,
        "The ledger's name, part of every signature: a host name and a path such as `gw1.corp.example/ledger`. Choose it \
         once; another origin is another ledger.",
    ),
    key_of(
        "ledger.checkpoint_interval",
        Takes::Duration("1s", "1d"),
        Is("1m"),
        "How often a signed checkpoint is published while there is something new.",
    ),
    key_of(
        "ledger.checkpoint_copies",
        Takes::Paths,
        Means("no copy is made"),
        "Files outside the ledger (another disk, a mounted share) that each new checkpoint is copied to. They show an \
         auditor a ledger that was cut or rolled back, which the ledger alone cannot.",
    ),
    key_of(
        "ledger.archive",
        Takes::Path,
        Means("every segment stays in `path`"),
        "A folder outside the ledger, for this ledger alone, that the oldest sealed segments move to once `path` holds more \
         than `keep_bytes`. Every command still reads them there.",
    ),
    key_of(
        "ledger.keep_bytes",
        Takes::Size("0B", "1048576GiB"),
        Is("10GiB"),
        "How much of the segments stays in `path` where there is an `archive`. The two newest sealed segments that \
         the checkpoint covers stay anyway, and what is newer.",
    ),
    key_of(
        "ledger.checkpoint_syslog",
        Takes::Text,
        Means("nothing is sent"),
        "A syslog daemon that each new checkpoint is sent to (RFC 5424), the note in base64 behind `note=`: \
         `udp:siem.corp.example:514`, or `unix:/dev/log`.",
    ),
    key_of(
        "ledger.checkpoint_command",
        Takes::Texts,
        Means("nothing is run"),
        "A command and its arguments, run without a shell with each new checkpoint on its standard input; it has 30 seconds.",
    ),
    key_of(
        "ledger.epoch",
        Takes::Duration("1m", "7d"),
        Is("1h"),
        "How long one key signs. Then it is sealed and erased, so that whoever takes the machine cannot rewrite what was \
         recorded before.",
    ),
    key_of(
        "ledger.verify_interval",
        Takes::Duration("1m", "30d"),
        Is("1h"),
        "How often the gateway verifies its own ledger while it runs. What does not verify raises an alarm: in the log each \
         minute, in `gatebook sessions ls`, and in the ledger.",
    ),
    key_of(
        "ledger.refuse_when_tampered",
        Takes::Flag,
        Is("true"),
        "Whether new sessions are refused while that alarm stands.",
    ),
    key_of(
        "ledger.free_warn",
        Takes::Percent,
        Is("20%"),
        "Free space on the ledger's file system below which the gateway warns.",
    ),
    key_of(
        "ledger.free_alarm",
        Takes::Percent,
        Is("10%"),
        "Free space below which it warns louder; less than `free_warn`.",
    ),
    key_of(
        "ledger.free_refuse",
        Takes::Percent,
        Is("5%"),
        "Free space below which new sessions are refused, so that open ones can still be recorded to their end; less \
         than `free_alarm`.",
    ),
    key_of(
        "ledger.witness",
        Takes::Tables,
        Means("nobody cosigns"),
        "One witness (C2SP tlog-witness, such as `gatebook-ledger witness`), written as `[[ledger.witness]]`. Each new \
         checkpoint is sent to all of them, and what they cosign is kept in the ledger. A witness that is slow or dead \
         holds nothing up; one that has seen another history raises an alarm.",
    ),
    key_of(
        "ledger.witness.url",
        Takes::Text,
        Refused,
        "Where the witness is: `https://` or `http://`, for what it is told is public and what it answers is signed.",
    ),
    key_of(
        "ledger.witness.vkey",
        Takes::Text,
        Refused,
        "The witness's verifier key, as `gatebook-ledger witness DIR --vkey` prints it.",
    ),
    key_of("identity", Takes::Table, Means("nobody can log in"), "Who vouches for callers."),
    key_of(
        "identity.issuer",
        Takes::Tables,
        Means("nobody can log in"),
        "One OpenID Connect provider, written as `[[identity.issuer]]`. Several may stand beside each other; a token is \
         judged by the one that its `iss` claim names.",
    ),
    key_of(
        "identity.issuer.name",
        Takes::Text,
        Refused,
        "A short name: the first part of every principal of this issuer (`corp:lee`). Lower-case letters, digits, `-`, \
         `_` and `.`.",
    ),
    key_of(
        "identity.issuer.url",
        Takes::Text,
        Refused,
        "The issuer exactly as the `iss` claim spells it; its keys are found by OpenID Connect discovery below it.",
    ),
    key_of(
        "identity.issuer.audience",
        Takes::Text,
        Means("ID tokens of this issuer are refused"),
        "The `aud` that an ID token must carry. One of `audience` and `access_token_audience` must be set.",
    ),
    key_of(
        "identity.issuer.access_token_audience",
        Takes::Text,
        Means("access tokens of this issuer are refused"),
        "The `aud` that an access token (RFC 9068, `at+jwt`) must carry.",
    ),
    key_of(
        "identity.issuer.authorized_parties",
        Takes::Texts,
        Means("a token given to any client of this issuer will do, where its audience is ours"),
        "The clients (`azp`, `client_id`) that a token may have been given to: any other client's access token is refused, and an ID token \
         may name one of these beside its audience.",
    ),
    key_of(
        "identity.issuer.groups_claim",
        Takes::Text,
        Means("no claim is taken as a list of groups"),
        "The claim that lists the principal's groups, as a string or a list of strings.",
    ),
    key_of(
        "identity.issuer.groups",
        Takes::Open,
        Means("no groups are made from claims"),
        "Groups made from other claims: for each claim's name a template that holds the claim in braces, such as \
         `{ project_path = \"ci/{project_path}\" }`.",
    ),
    key_of(
        "identity.issuer.principal",
        Takes::Choice(&["User", "Service"]),
        Is("User"),
        "What policy calls this issuer's principals.",
    ),
    key_of(
        "identity.issuer.ca",
        Takes::Path,
        Means("the system's certificate authorities"),
        "A PEM file with the only certificate authorities trusted for connections to this issuer.",
    ),
    key_of(
        "identity.issuer.algorithms",
        Takes::Choices(ALGORITHMS),
        Is("RS256, PS256, ES256, EdDSA"),
        "The signature algorithms accepted. `none` and shared-secret algorithms (`HS256`, …) never are.",
    ),
    key_of(
        "identity.issuer.logout_audience",
        Takes::Text,
        Means("logout tokens of this issuer are refused"),
        "The `aud` that a logout token (OpenID Connect Back-Channel Logout) must carry: mostly the client's id. The issuer posts it to \
         `/backchannel-logout` of `[admin]`. Tokens that live for more than 31 days are refused then.",
    ),
    key_of(
        "identity.issuer.introspection",
        Takes::Table,
        Means("a token holds until it expires, is logged out or revoked"),
        "Asks the issuer at an interval whether the tokens behind live sessions still hold (RFC 7662); see docs/identity.md.",
    ),
    key_of("identity.issuer.introspection.client_id", Takes::Text, Refused, "The client that asks."),
    key_of(
        "identity.issuer.introspection.client_secret",
        Takes::Secret,
        Refused,
        "Its secret, by reference.",
    ),
    key_of(
        "identity.issuer.introspection.interval",
        Takes::Duration("1s", "1d"),
        Is("1m"),
        "How often each token is asked about; the first time at once.",
    ),
    key_of(
        "identity.issuer.introspection.unanswered_max",
        Takes::Duration("1s", "7d"),
        Means("sessions go on until their token expires"),
        "After how long without an answer about a token its sessions end, and the token stays out.",
    ),
    key_of(
        "identity.issuer.clock_skew",
        Takes::Duration("0s", "5m"),
        Is("30s"),
        "How far the issuer's clock may be from ours.",
    ),
    key_of(
        "identity.issuer.keys_max_age",
        Takes::Duration("1m", "30d"),
        Is("1d"),
        "How long keys fetched earlier go on serving while the issuer cannot be reached.",
    ),
    key_of(
        "identity.issuer.danger_http",
        Takes::Flag,
        Is("false"),
        "Lets `url` be `http://`, and then only on loopback: for a provider on this very machine.",
    ),
    key_of(
        "resource",
        Takes::Tables,
        Means("nothing is served"),
        "One upstream and the way to it, written as `[[resource]]`.",
    ),
    key_of(
        "resource.name",
        Takes::Text,
        Refused,
        "The resource's name, as policy and ledger spell it (`Database::\"orders-db/orders\"`). Lower-case letters, \
         digits, `-`, `_` and `.`.",
    ),
    key_of("resource.kind", Takes::Choice(&["postgres"]), Refused, "The protocol that it speaks."),
    key_of(
        "resource.listen",
        Takes::OneOrTexts,
        Refused,
        "Where clients connect: an address and a port, such as `0.0.0.0:5432` or `[::1]:5432`. Several resources may \
         share a listener when each has a `server_name`. With port 0 the system chooses one, which is printed at start.",
    ),
    key_of(
        "resource.server_name",
        Takes::OneOrTexts,
        Means("any name, or none, reaches the resource; its listeners are its own"),
        "The names under which TLS clients ask for this resource (SNI). A connection that asks for another name, or for \
         none, does not reach it. The certificate must be valid for each.",
    ),
    key_of(
        "resource.certificate",
        Takes::Table,
        Means("the `certificate` at the top of the file"),
        "The certificate that clients of this resource are shown.",
    ),
    key_of("resource.certificate.chain", Takes::Path, Refused, "As `certificate.chain` at the top."),
    key_of("resource.certificate.key", Takes::Path, Refused, "As `certificate.key` at the top."),
    key_of(
        "resource.upstream",
        Takes::Text,
        Refused,
        "The server behind: a host name or address, and a port (5432 where it is left out). No user, no password.",
    ),
    key_of(
        "resource.tls",
        Takes::Table,
        Means("verified against the system's certificate authorities and the upstream's own name"),
        "How the upstream's certificate is verified. It always is, as by libpq's `verify-full`.",
    ),
    key_of(
        "resource.tls.ca",
        Takes::Path,
        Means("the system's certificate authorities"),
        "A PEM file with the only certificate authorities trusted for this upstream. It is read again when it changes.",
    ),
    key_of(
        "resource.tls.server_name",
        Takes::Text,
        Means("the host in `upstream`"),
        "The name or address that the upstream's certificate must be valid for.",
    ),
    key_of(
        "resource.tls.danger_disable",
        Takes::Flag,
        Is("false"),
        "Speaks to the upstream in clear: whoever sits on the way reads and changes everything.",
    ),
    key_of(
        "resource.databases",
        Takes::Texts,
        Refused,
        "The upstream's databases that can be reached, at least one. Any other is refused before the upstream hears of \
         it.",
    ),
    key_of(
        "resource.roles",
        Takes::Tables,
        Refused,
        "The upstream's roles that a session may run as, at least one. Policy decides who may assume which.",
    ),
    key_of("resource.roles.name", Takes::Text, Refused, "The role's name."),
    key_of(
        "resource.roles.password",
        Takes::Secret,
        Means("the upstream must let this role in without a password"),
        "The role's password, by reference. No client ever sees it.",
    ),
    key_of(
        "resource.catalog_role",
        Takes::Text,
        Means("the first of `roles`"),
        "The role under which the gateway itself reads the upstream's catalog; one of `roles`.",
    ),
    key_of(
        "resource.login",
        Takes::Choice(&["password", "oauthbearer"]),
        Is("password"),
        "How clients hand over their token: in place of a password, which every client can, or by OAUTHBEARER (RFC \
         7628), which libpq 18 and later can.",
    ),
    key_of(
        "resource.danger_cleartext_loopback",
        Takes::Flag,
        Is("false"),
        "Lets clients log in without TLS, and then only where every `listen` address is loopback: whoever can read this \
         machine's loopback traffic reads the tokens.",
    ),
    key_of(
        "resource.durability",
        Takes::ChoiceOrTable(&["strict"]),
        Is("strict"),
        "`strict`: nothing is sent to the upstream or shown to the client before its decision is on disk (what only \
         reads may run meanwhile, its answer waits). `{ reads = \"250ms\" }` loosens that for what is proven to only read.",
    ),
    key_of(
        "resource.durability.reads",
        Takes::Duration("1ms", "10s"),
        Refused,
        "Answers of commands proven to only read are shown once the record is with the operating system; it is on disk \
         within this time. A power failure can lose the record of that last moment. The ledger says that this was set.",
    ),
    key_of(
        "resource.shadow",
        Takes::Flag,
        Is("false"),
        "Decides and records as always, but refuses nothing that policy would, logins included: how a team tries its \
         policies on live traffic. Tokens are verified all the same.",
    ),
    key_of(
        "resource.mask",
        Takes::Tables,
        Means("no column is sensitive"),
        "Columns that are sensitive, written as `[[resource.mask]]`. Whoever is not permitted to `unmask` one is shown its mask, wherever \
         and however it is read; see docs/policy.md.",
    ),
    key_of(
        "resource.mask.columns",
        Takes::Texts,
        Refused,
        "The columns, as `schema.table.column` in the upstream's own spelling. One that the upstream has not is told in the log.",
    ),
    key_of(
        "resource.mask.with",
        Takes::Choice(&[
            "redact", "partial", "hash", "null", "card", "email", "phone", "date", "uuid", "number",
        ]),
        Refused,
        "What is shown in place of their values. It keeps the column's type; a mask that does not fit it shows what `redact` shows.",
    ),
    key_of(
        "resource.mask.databases",
        Takes::Texts,
        Means("every database of the resource"),
        "The databases in which these columns are.",
    ),
    key_of(
        "resource.confirm_catalog",
        Takes::Flag,
        Is("false"),
        "Shows no answer before a look at the upstream's catalog that began behind it has found that the command meant what was permitted; and decides \
         what may change something by a look that began behind it. Where definitions changed meanwhile the session ends. See docs/threat-model.md.",
    ),
    key_of(
        "resource.detect",
        Takes::Choices(&["email", "card", "iban", "phone", "national_id", "secret"]),
        Means("answers are not looked through"),
        "Looks through every answer for these, and overwrites what a validator takes for one; how many were found is recorded with the outcome. \
         A row may then be no longer than 16 MiB. A second layer: see docs/policy.md.",
    ),
    key_of(
        "resource.session_max",
        Takes::Duration("1m", "30d"),
        Means("a session ends when its token expires"),
        "How long after login a session ends. It takes the place of the token's expiry, earlier or later.",
    ),
    key_of(
        "resource.idle_timeout",
        Takes::Duration("1s", "30d"),
        Is("1h"),
        "How long nothing may pass in either direction before the session ends.",
    ),
    key_of(
        "admin",
        Takes::Table,
        Means("there is no HTTPS server; `gatebook` speaks to the gateway over `control`"),
        "The gateway's own HTTPS server, for operators, approvers and those who delegate; see docs/admin.md.",
    ),
    key_of(
        "admin.listen",
        Takes::Text,
        Refused,
        "Where it listens: an address and a port that no resource has, such as `0.0.0.0:8443`.",
    ),
    key_of(
        "admin.url",
        Takes::Text,
        Refused,
        "How clients reach it, such as `https://gateway.corp.example:8443`. It is also the `iss` of the tokens that the \
         gateway itself makes.",
    ),
    key_of(
        "admin.audience",
        Takes::Text,
        Refused,
        "The `aud` that a token for it must carry, of any issuer. It must be another than the issuers' own, so that a token \
         for a session opens nothing here.",
    ),
    key_of(
        "admin.certificate",
        Takes::Table,
        Means("the `certificate` at the top of the file"),
        "The certificate that its clients are shown. It is read again when its files change.",
    ),
    key_of("admin.certificate.chain", Takes::Path, Refused, "As `certificate.chain` at the top."),
    key_of("admin.certificate.key", Takes::Path, Refused, "As `certificate.key` at the top."),
    key_of(
        "admin.login",
        Takes::Table,
        Means("there is no page for approvers; they answer by `gatebook approvals`, or over the API"),
        "The page at `admin.url` where approvers see requests and answer; see docs/approvals.md. The issuer sends them back to \
         `admin.url` + `/login/callback`, which must be registered there.",
    ),
    key_of(
        "admin.login.issuer",
        Takes::Text,
        Refused,
        "The `name` of the issuer at which they sign in: one with `principal = \"User\"`.",
    ),
    key_of(
        "admin.login.client_id",
        Takes::Text,
        Refused,
        "What the gateway is called there. It is the `aud` of the ID tokens that it is given, and they need no other.",
    ),
    key_of(
        "admin.login.client_secret",
        Takes::Secret,
        Means("it shows none: a public client, with PKCE alone"),
        "What it shows there, by reference.",
    ),
    key_of(
        "admin.login.scopes",
        Takes::Texts,
        Means("`[\"openid\", \"profile\"]`"),
        "What it asks for, `openid` among it. Where groups need a scope of their own it belongs here.",
    ),
    key_of(
        "admin.login.session_max",
        Takes::Duration("1m", "24h"),
        Is("8h"),
        "How long somebody stays signed in at most. It is never longer than the ID token lasts.",
    ),
    key_of(
        "admin.login.idle_timeout",
        Takes::Duration("1m", "24h"),
        Is("30m"),
        "How long they stay signed in without being there.",
    ),
    key_of(
        "webhook",
        Takes::Tables,
        Means("nobody is told"),
        "Somebody to be told of requests for approval, of what becomes of them, and of broken glass, written as `[[webhook]]`; see \
         docs/approvals.md.",
    ),
    key_of(
        "webhook.url",
        Takes::Secret,
        Refused,
        "Where it is told, by reference: the URL of many a service is a credential. `https://` alone, but for `danger_http`.",
    ),
    key_of(
        "webhook.secret",
        Takes::Secret,
        Refused,
        "What each message is signed with (HMAC-SHA-256), by reference; at least 16 bytes.",
    ),
    key_of(
        "webhook.format",
        Takes::Choice(&["json", "slack"]),
        Is("json"),
        "The request as JSON, or as a message that Slack shows.",
    ),
    key_of(
        "webhook.ca",
        Takes::Path,
        Means("the system's certificate authorities"),
        "A PEM file with the only certificate authorities trusted for connections to it.",
    ),
    key_of(
        "webhook.danger_http",
        Takes::Flag,
        Is("false"),
        "Lets `url` be `http://`, and then only on loopback: for a receiver on this very machine.",
    ),
    key_of(
        "metrics",
        Takes::Table,
        Means("no metrics are served"),
        "Numbers for Prometheus, over a listener of their own, in clear. No principal, statement or address stands in them.",
    ),
    key_of(
        "metrics.listen",
        Takes::Text,
        Refused,
        "Where `GET /metrics` is answered: an address and a port, such as `127.0.0.1:9464`.",
    ),
    key_of(
        "stream",
        Takes::Tables,
        Means("events stay in the ledger"),
        "One receiver of every event, written as `[[stream]]`. It gets them live, with their payloads, at least once, from the \
         ledger's beginning; one that is slow or dead holds nothing up. Doubles and gaps show by `seq`.",
    ),
    key_of(
        "stream.name",
        Takes::Text,
        Refused,
        "A short name, which its cursor beside the ledger has too (`ledger.streams/NAME`). Lower-case letters, digits, `-`, `_` and `.`.",
    ),
    key_of(
        "stream.to",
        Takes::Text,
        Refused,
        "`file:/PATH`, one JSON object a line; or syslog (RFC 5424) to `tcp:HOST:PORT` (framed by RFC 6587), `udp:HOST:PORT` or \
         `unix:/PATH`, where an event of more than 60,000 bytes goes without its payload in a datagram.",
    ),
    key_of(
        "stream.resend",
        Takes::Size("64KiB", "1GiB"),
        Is("16MiB"),
        "Over TCP: how much of what was sent last is sent again whenever a connection ends, since nobody acknowledges syslog. It must be \
         more than the buffers of both systems hold; the default is for those of Linux.",
    ),
    key_of(
        "delegation",
        Takes::Table,
        Means("nobody hands rights down"),
        "Lets whoever policy permits to `delegate` hand down a part of their rights; see docs/delegation.md. It needs `[admin]`.",
    ),
    key_of(
        "delegation.keys",
        Takes::Path,
        Is("delegation-keys"),
        "The folder of the keys that sign what is handed down (0700). It must not lie inside `ledger.path`.",
    ),
    key_of(
        "delegation.key_age",
        Takes::Duration("1h", "90d"),
        Is("7d"),
        "How long one key signs. It is published until the last token that it signed is over, and then erased.",
    ),
    key_of(
        "delegation.depth_max",
        Takes::Count(1, 8),
        Is("4"),
        "How many levels there may be: an agent that starts another makes two.",
    ),
    key_of(
        "delegation.ttl_max",
        Takes::Duration("1s", "7d"),
        Is("1h"),
        "How long a delegation lasts at most. It never outlasts the token, or the delegation, that it was made with.",
    ),
    key_of(
        "limits",
        Takes::Table,
        Means("every limit at its default"),
        "What one client, or all, may use up.",
    ),
    key_of(
        "limits.connections_max",
        Takes::Count(1, 1_000_000),
        Is("10000"),
        "Client connections at once, logged in or not. Above it new ones are closed at once. Each takes two of the process's open files; \
         where the system allows fewer, fewer are served, and that is said at start.",
    ),
    key_of(
        "limits.logins_max",
        Takes::Count(1, 100_000),
        Is("1024"),
        "Connections at once that have not logged in yet. Above it new ones are closed at once.",
    ),
    key_of(
        "limits.logins_per_source_max",
        Takes::Count(1, 100_000),
        Is("256"),
        "The same for one client address, so that one source cannot shut out the others.",
    ),
    key_of(
        "limits.login_deadline",
        Takes::Duration("1s", "10m"),
        Is("30s"),
        "The time a client has from its first byte to the end of its login, TLS included.",
    ),
    key_of(
        "limits.connect_deadline",
        Takes::Duration("1s", "10m"),
        Is("10s"),
        "The time that connecting and logging in to an upstream may take.",
    ),
    key_of(
        "limits.durable_deadline",
        Takes::Duration("1s", "10m"),
        Is("30s"),
        "How long a session waits for the ledger's disk before it ends.",
    ),
    key_of(
        "limits.drain_deadline",
        Takes::Duration("0s", "1h"),
        Is("30s"),
        "How long open sessions may go on after the gateway was told to stop.",
    ),
    key_of(
        "limits.message_bytes_max",
        Takes::Size("64KiB", "64MiB"),
        Is("16MiB"),
        "The largest statement, or set of parameters, that a client may send in one message.",
    ),
    key_of(
        "log",
        Takes::Table,
        Means("as if empty"),
        "What the gateway tells its operator on standard error.",
    ),
    key_of(
        "log.level",
        Takes::Choice(&["error", "warn", "info", "debug"]),
        Is("info"),
        "The least severe lines that are written. No level writes a secret or a statement.",
    ),
    key_of(
        "log.format",
        Takes::Choice(&["text", "json"]),
        Is("text"),
        "Lines for people, or one JSON object a line.",
    ),
];

/// Keys that a later version will enforce. An inert rule is worse than none, so they are refused by name.
pub(super) const NOT_YET: &[(&str, &str)] =
    &[("resource.sensitive", "sensitive columns are declared with [[resource.mask]]")];
