//! Who may know whom: the lines of `docs/ARCHITECTURE.md`, each with the reason why it is one.
//!
//! What compiles can still be wrong: a protocol that asks policy itself, a ledger that reads the clock. These rules
//! look at manifests and at source lines, outside of comments and of unit tests.

use std::path::{Path, PathBuf};

/// One line that must not be crossed.
struct Rule {
    /// Where it holds: a folder or a file.
    place: &'static str,
    /// Files below it where it does not hold.
    except: &'static [&'static str],
    /// What must not be said there; a word matches whole names only.
    never: &'static [&'static str],
    /// Why.
    because: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        place: "gateway/wire/src",
        except: &[],
        never: &[
            "tokio",
            "rustls",
            "std::net",
            "std::fs",
            "std::io",
            "std::env",
            "std::process",
            "std::thread",
        ],
        because: "a machine does no I/O: the same frames give the same steps, under a fuzzer as on a server",
    },
    Rule {
        place: "gateway/wire/src",
        except: &[],
        never: &["SystemTime", "Instant", "std::time"],
        because: "a machine has no clock: deadlines belong to the session",
    },
    Rule {
        place: "gateway/wire/src",
        except: &[],
        never: &["gatebook_ledger", "cedar_policy", "openidconnect", "Principal"],
        because: "a protocol says what was said; whether it may be is decided once, for all protocols",
    },
    Rule {
        place: "ledger/src",
        except: &[],
        never: &["tokio", "gatebook_wire", "gatebook::", "cedar_policy", "rustls"],
        because: "the verifier needs only files and a key",
    },
    Rule {
        place: "ledger/src",
        except: &["cli/witness"],
        never: &["std::net"],
        because: "only a witness has a network, and what it judges it judges without",
    },
    Rule {
        place: "ledger/src",
        except: &["main.rs", "cli"],
        never: &["SystemTime", "Instant"],
        because: "time is an argument: the same input gives the same bytes, and golden files are exact",
    },
    Rule {
        place: "ledger/src",
        except: &["event", "main.rs", "lib.rs", "cli"],
        never: &["crate::event", "super::event"],
        because: "the log layer verifies old and future events alike, so it does not know what an event says",
    },
    Rule {
        place: "replay-tui/src",
        except: &[],
        never: &["tokio", "hyper", "gatebook_wire", "std::net"],
        because: "an auditor's screen needs no network and no gateway",
    },
    Rule {
        place: "replay-tui/src",
        except: &["load.rs", "load", "main.rs"],
        never: &["gatebook_ledger"],
        because: "the screen draws plain values; where they come from is known in one place",
    },
    Rule {
        place: "replay-tui/src/app.rs",
        except: &[],
        never: &["SystemTime", "Instant", "std::fs", "crossterm"],
        because: "messages in, state out: a screen is tested without a terminal and without waiting",
    },
    Rule {
        place: "gateway/src",
        except: &["record.rs", "record", "demo"],
        never: &["gatebook_ledger"],
        because: "there is one way into the book, and it is durable before it answers; the demonstration only reads it",
    },
    Rule {
        place: "gateway/src/serve",
        except: &[],
        never: &["gatebook_ledger", "policy", "mask", "approval", "record", "cedar_policy"],
        because: "a further protocol costs one short file here, and cannot forget what it never did itself",
    },
    Rule {
        place: "gateway/src/session",
        except: &[],
        never: &["postgres", "mysql", "ssh", "kubernetes"],
        because: "decision, recording and revocation are written once, for all protocols",
    },
    Rule {
        place: "gateway/src/policy",
        except: &["folder.rs", "watch.rs"],
        never: &["SystemTime", "Instant", "std::fs", "std::net", "tokio"],
        because: "the same question gets the same answer, today and when an auditor asks again",
    },
    Rule {
        place: "gateway/src/policy",
        except: &[],
        never: &["identity", "gatebook_ledger"],
        because: "policy defines its own question: it can be asked about anybody, offline too",
    },
];

/// Dependencies that a crate's manifest must not name.
const MANIFESTS: &[(&str, &[&str], &str)] = &[
    (
        "gateway/wire/Cargo.toml",
        &[
            "tokio",
            "rustls",
            "tokio-rustls",
            "gatebook",
            "gatebook-ledger",
            "cedar-policy",
            "openidconnect",
            "time",
        ],
        "codecs do no I/O and decide nothing",
    ),
    (
        "ledger/Cargo.toml",
        &["tokio", "rustls", "gatebook", "gatebook-wire", "cedar-policy"],
        "a stranger builds the verifier alone",
    ),
    (
        "replay-tui/Cargo.toml",
        &["tokio", "hyper", "rustls", "gatebook", "gatebook-wire"],
        "an auditor's screen needs no network",
    ),
    ("gateway/Cargo.toml", &["ratatui", "crossterm", "gatebook-replay"], "a gateway has no screen"),
];

/// Every crate root.
const ROOTS: &[&str] = &[
    "gateway/src/lib.rs",
    "gateway/src/main.rs",
    "gateway/wire/src/lib.rs",
    "ledger/src/lib.rs",
    "ledger/src/main.rs",
    "replay-tui/src/lib.rs",
    "replay-tui/src/main.rs",
    "tests/src/lib.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let mut all = Vec::new();
    for entry in place.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// The lines that are compiled into the product: no comments, no unit tests.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().enumerate().peekable();
    let mut tests = false;
    std::iter::from_fn(move || {
        loop {
            let (at, line) = lines.next()?;
            let code = line.split("//").next().unwrap_or_default();
            let module = |line: &str| line.trim_start().starts_with("mod ");
            tests |= code.trim() == "#[cfg(test)]"
                && lines.peek().is_some_and(|(_, next)| module(next) && next.ends_with('{'));
            if !tests {
                return Some((at + 1, code));
            }
        }
    })
}

/// Whether a line says a word, as a whole name.
fn says(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let whole = word.ends_with(':') || !after.is_some_and(part_of_name);
        whole && !before.is_some_and(part_of_name)
    })
}

fn excepted(rule: &Rule, below: &Path) -> bool {
    let unit_tests = below.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"))
        || below.starts_with("tests");
    unit_tests || rule.except.iter().any(|except| below == Path::new(except) || below.starts_with(except))
}

#[test]
fn no_module_knows_whom_it_must_not_know() {
    let mut found = Vec::new();
    for rule in RULES {
        let place = root().join(rule.place);
        assert!(
            place.exists() || rule.place.ends_with(".rs"),
            "{} is gone: move its rule with it",
            rule.place
        );
        for file in sources(&place) {
            let below = file.strip_prefix(&place).unwrap_or(&file).to_owned();
            if excepted(rule, &below) {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("a source file can be read");
            for (line, code) in product_lines(&text) {
                for word in rule.never.iter().filter(|word| says(code, word)) {
                    let shown = Path::new(rule.place).join(&below);
                    found.push(format!("{}:{line}: {word}: {}", shown.display(), rule.because));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn no_manifest_names_what_its_crate_must_not_know() {
    let mut found = Vec::new();
    for (manifest, never, because) in MANIFESTS {
        let text = std::fs::read_to_string(root().join(manifest)).expect("the manifest can be read");
        let manifest_table: toml::Table = text.parse().expect("the manifest is TOML");
        for kind in ["dependencies", "build-dependencies"] {
            let named = manifest_table
                .get(kind)
                .and_then(toml::Value::as_table)
                .into_iter()
                .flat_map(toml::Table::keys);
            found.extend(
                named
                    .filter(|name| never.contains(&name.as_str()))
                    .map(|name| format!("{manifest}: {name}: {because}")),
            );
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_crate_forbids_unsafe_code() {
    for file in ROOTS {
        let text = std::fs::read_to_string(root().join(file)).expect("the crate root can be read");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file} does not forbid unsafe code");
    }
}

#[test]
fn versions_stand_in_one_table() {
    for manifest in ["gateway", "gateway/wire", "ledger", "replay-tui", "tests"] {
        let text = std::fs::read_to_string(root().join(manifest).join("Cargo.toml"))
            .expect("the manifest can be read");
        let table: toml::Table = text.parse().expect("the manifest is TOML");
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(kind).and_then(toml::Value::as_table).into_iter().flatten() {
                assert!(
                    value.get("workspace").is_some_and(|inherited| inherited.as_bool() == Some(true)),
                    "{manifest}/Cargo.toml: {name} has a version of its own: put it into the workspace's table"
                );
            }
        }
    }
}

/// With the bench's feature nothing is hashed or signed: only the bench may ask for it.
#[test]
fn nothing_but_the_bench_builds_a_ledger_that_is_not_sealed() {
    const FEATURE: &str = "bench-unsealed";
    for manifest in ["ledger", "gateway"] {
        let text = std::fs::read_to_string(root().join(manifest).join("Cargo.toml")).expect("it can be read");
        let table: toml::Table = text.parse().expect("the manifest is TOML");
        let features = table["features"].as_table().expect("features are a table");
        assert!(features.contains_key(FEATURE), "{manifest}: the feature is gone: take this test along");
        let more = features.iter().filter(|(name, of)| *name != FEATURE && of.to_string().contains(FEATURE));
        assert_eq!(more.count(), 0, "{manifest}: another feature switches it on");
    }
    for script in
        [".ci/run", "tests/run", "tests/setup", "tests/nightly/run", "tests/nightly/regress", "Cargo.toml"]
    {
        let text = std::fs::read_to_string(root().join(script)).expect("it can be read");
        assert!(!text.contains(FEATURE) && !text.contains("all-features"), "{script} switches it on");
    }
}

#[test]
fn the_rules_can_see() {
    assert!(says("use tokio::net;", "tokio"));
    assert!(!says("let tokio_like = 1;", "tokio"));
    assert!(says("use std::net::SocketAddr;", "std::net"));
    let text = "use a;\n// tokio in a comment\n#[cfg(test)]\nmod tests {\n use tokio;\n}\n";
    assert!(product_lines(text).all(|(_, line)| !says(line, "tokio")));
}
