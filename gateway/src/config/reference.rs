//! The reference of all keys, `docs/configuration.md`, made from the table that the reader obeys.

use super::keys::{Absent, KEYS, Key, NOT_YET, Takes};
use super::{CONFIG_BYTES_MAX, secret};

/// The reference in Markdown: what stands in `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(PREFACE);
    let mut section = "";
    for key in KEYS {
        let (place, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if place != section || text.len() == PREFACE.len() {
            section = place;
            text.push_str(&format!("\n### {}\n\n", heading(place)));
            text.push_str("| key | takes | left out | |\n|---|---|---|---|\n");
        }
        text.push_str(&format!(
            "| `{name}` | {} | {} | {} |\n",
            key.takes.words(),
            left_out(key),
            key.says.replace('|', "\\|"),
        ));
    }
    text.push_str("\n### Not in this version\n\n");
    for (path, why) in NOT_YET {
        text.push_str(&format!("- `{path}`: {why}.\n"));
    }
    text.push_str(&format!(
        "\n### Secrets\n\n{SECRETS}\n\nA secret has at most {} KiB. A command has {} s to print it; what it printed serves for \
         {} s, or until the upstream refuses it. The configuration file has at most {} KiB.\n",
        secret::SECRET_BYTES_MAX / 1024,
        secret::COMMAND_DEADLINE.as_secs(),
        secret::COMMAND_OUTPUT_AGE_MAX.as_secs(),
        CONFIG_BYTES_MAX / 1024,
    ));
    text
}

fn left_out(key: &Key) -> String {
    match (key.absent, key.takes) {
        (Absent::Refused, _) => "required".into(),
        (Absent::Means(what), _) => what.into(),
        (Absent::Is(value), Takes::Flag | Takes::Count(..)) => format!("`{value}`"),
        (Absent::Is(value), Takes::Choices(_)) => {
            let words: Vec<_> = value.split(", ").map(|word| format!("\"{word}\"")).collect();
            format!("`[{}]`", words.join(", "))
        }
        (Absent::Is(value), _) => format!("`\"{value}\"`"),
    }
}

/// How the table of these keys is written in the file.
fn heading(place: &str) -> String {
    let tables = |path: &str| KEYS.iter().any(|key| key.path == path && key.takes == Takes::Tables);
    match place {
        "" => "The top of the file".into(),
        "resource.roles" => "`roles = [{ … }]` of a `[[resource]]`".into(),
        _ if tables(place) => format!("`[[{place}]]`"),
        _ => match place.rsplit_once('.') {
            Some((outer, name)) if tables(outer) => format!("`{name} = {{ … }}` of a `[[{outer}]]`"),
            _ => format!("`[{place}]`"),
        },
    }
}

const PREFACE: &str = "\
# Configuration

One TOML file, `gatebook.toml`. `gatebook init DIR` writes a commented one to start from; `gatebook check` says all that is wrong
with it, each mistake with its line:

```
$ gatebook check
gatebook.toml: 2 mistakes
  31  resource \"orders-db\": role \"app_rw\": password: secrets/orders_rw is readable by group (mode 0640); make it 0600
  36  resource \"orders-db\": unknown key \"idle_timout\" (did you mean \"idle_timeout\"?)
```

It exits 0 when there is no mistake and 1 when there is one; `--json` prints the same as one object,
`{\"mistakes\": 2, \"files\": [{\"file\", \"mistakes\": [{\"line\", \"text\"}], \"warnings\"}]}`.

`gatebook serve` refuses to start where `gatebook check` finds a mistake. Keys that this version does not know, and rules that it
could not enforce, are mistakes: nothing that stands in the file is without effect. Every key that begins with `danger_` gives up
a protection; each one that is on is reported as a warning, at every check and at every start.

Relative paths start at the configuration file's folder. A duration is one whole number and one unit (`250ms`, `30s`, `15m`, `8h`,
`7d`), a size likewise (`512B`, `64KiB`, `16MiB`, `1GiB`), a share ends in `%`.

```toml
certificate = { chain = \"tls/server.pem\", key = \"tls/server.key\" }

[ledger]
path = \"/var/lib/gatebook/ledger\"
origin = \"gw1.corp.example/ledger\"
checkpoint_copies = [\"/mnt/other-disk/gatebook.checkpoint\"]

[[identity.issuer]]
name = \"corp\"
url = \"https://idp.corp.example\"
audience = \"gatebook\"
groups_claim = \"groups\"

[[identity.issuer]]                        # CI jobs bring their own tokens
name = \"gitlab\"
url = \"https://gitlab.corp.example\"
audience = \"gatebook\"
principal = \"Service\"
groups = { project_path = \"ci/{project_path}\" }

[[resource]]
name = \"orders-db\"
kind = \"postgres\"
listen = \"0.0.0.0:5432\"
upstream = \"10.0.4.17:5432\"
tls = { ca = \"orders-ca.pem\" }
databases = [\"orders\"]
roles = [{ name = \"app_ro\", password = { env = \"ORDERS_RO\" } }, { name = \"app_rw\", password = { file = \"secrets/orders_rw\" } }]
```

## Keys
";

const SECRETS: &str = "\
A secret never stands in the file; what stands there says where it is:

| reference | where the secret is |
|---|---|
| `{ env = \"NAME\" }` | in an environment variable of the gateway |
| `{ file = \"path\" }` | in a file that its owner alone can read (0600), and that belongs to the gateway's user or to root |
| `{ command = [\"/path/of/program\", \"argument\"] }` | on the standard output of a program, named by its whole path and run without a shell |

One line end at the end is not part of it. It is read anew for each connection to the upstream, so a rotated secret needs no restart.
The ledger keeps the configuration's text without its comments and without the arguments of commands.";
