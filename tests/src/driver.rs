//! The driver programs of `drivers/`: unmodified clients that all run the same script and tell what they saw.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::Child;
use crate::machine;
use crate::postgres::Environment;
use std::time::Duration;

/// How long a script may take on a busy machine.
const SCRIPT_MAX: Duration = Duration::from_secs(180);

/// One driver in one of its modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// The folder of its program in `drivers/`.
    pub name: &'static str,
    /// What it is told to do differently.
    pub mode: &'static str,
}

/// Every driver in every mode.
pub const ALL: [Driver; 14] = [
    Driver { name: "psql", mode: "plain" },
    Driver { name: "psycopg", mode: "text" },
    Driver { name: "psycopg", mode: "binary" },
    Driver { name: "psycopg", mode: "pipeline" },
    Driver { name: "asyncpg", mode: "cached" },
    Driver { name: "asyncpg", mode: "uncached" },
    Driver { name: "node", mode: "text" },
    Driver { name: "node", mode: "binary" },
    Driver { name: "jdbc", mode: "simple" },
    Driver { name: "jdbc", mode: "extended" },
    Driver { name: "jdbc", mode: "extendedForPrepared" },
    Driver { name: "jdbc", mode: "extendedCacheEverything" },
    Driver { name: "tokio-postgres", mode: "extended" },
    Driver { name: "tokio-postgres", mode: "simple" },
];

/// The script with a tag in front of each statement, and those tags in order.
///
/// # Panics
/// When the script cannot be read.
#[must_use]
pub fn script() -> (Value, Vec<String>) {
    let text = std::fs::read_to_string(machine::tests_folder().join("drivers/script.json"));
    let mut script: Value =
        serde_json::from_str(&text.expect("the script can be read")).expect("the script is JSON");
    let mut tags = Vec::new();
    for step in script.as_array_mut().expect("the script is a list") {
        if let Some(copied) = copy(step) {
            step["sql"] = copied.into();
        }
        tag(step, &mut tags);
        for inner in step.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            tag(inner, &mut tags);
        }
    }
    (script, tags)
}

/// The statement of a copy step, for those drivers that want one.
fn copy(step: &Value) -> Option<String> {
    let way = match step["do"].as_str()? {
        "copy_in" => "FROM STDIN",
        "copy_out" => "TO STDOUT",
        _ => return None,
    };
    let columns: Vec<&str> = step["columns"].as_array()?.iter().filter_map(Value::as_str).collect();
    Some(format!("COPY {} ({}) {way}", step["table"].as_str()?, columns.join(", ")))
}

fn tag(step: &mut Value, tags: &mut Vec<String>) {
    if let Some(sql) = step["sql"].as_str() {
        let tag = format!("/* g{} */", tags.len());
        step["sql"] = format!("{tag} {sql}").into();
        tags.push(tag);
    }
}

impl Driver {
    /// Runs the script and returns the transcript: what the driver saw, line by line.
    ///
    /// # Panics
    /// When the program fails otherwise than a statement can.
    #[must_use]
    pub fn run(self, environment: &Environment) -> Vec<String> {
        self.run_script(environment, &script().0)
    }

    /// The same with another script.
    ///
    /// # Panics
    /// As [`Driver::run`].
    #[must_use]
    pub fn run_script(self, environment: &Environment, script: &Value) -> Vec<String> {
        let folder = machine::temporary();
        let script_file = folder.path().join("script.json");
        std::fs::write(&script_file, script.to_string()).expect("the folder can be written");
        let mut command = self.command();
        environment.apply(&mut command);
        command.arg(self.mode).env("GATEBOOK_SCRIPT", script_file).env("PYTHONDONTWRITEBYTECODE", "1");
        let name = format!("driver {} {}", self.name, self.mode);
        let mut program = Child::start(&name, command);
        program.close_input();
        let status = program.wait(SCRIPT_MAX);
        let transcript = program.lines();
        assert!(status.success(), "{name} failed with {status}:\n{}", transcript.join("\n"));
        transcript
    }

    fn command(self) -> Command {
        let cache = machine::cache();
        let source = machine::tests_folder().join("drivers").join(self.name);
        let python = |interpreter: PathBuf| {
            let mut command = machine::mortal(&interpreter);
            command.arg(source.join("driver.py"));
            command
        };
        match self.name {
            "psql" => python(machine::program("python3")),
            "psycopg" | "asyncpg" => python(cache.join("python/bin/python")),
            "node" => {
                let mut command = machine::mortal(&machine::program("node"));
                command.arg(source.join("driver.js")).env("NODE_PATH", cache.join("node/node_modules"));
                command
            }
            "jdbc" => {
                let mut command = machine::mortal(&machine::program("java"));
                let classes = format!("{}:/usr/share/java/postgresql.jar", cache.join("java").display());
                command.args(["-XX:TieredStopAtLevel=1", "-cp", &classes, "Driver"]);
                command
            }
            _ => machine::mortal(&machine::example("driver-tokio-postgres")),
        }
    }
}

/// Runs the libpq program of `drivers/` with its arguments (a connection string, how to cancel), and returns what it tells.
///
/// # Panics
/// When the program fails otherwise than a connection can.
#[must_use]
pub fn libpq(environment: &Environment, token: &str, arguments: &[&str]) -> Value {
    let mut command = machine::mortal(&machine::cache().join("python/bin/python"));
    command.arg(machine::tests_folder().join("drivers/libpq/driver.py")).args(arguments);
    environment.apply(&mut command);
    command.env("GATEBOOK_TOKEN", token).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut program = Child::start("libpq", command);
    program.close_input();
    let status = program.wait(SCRIPT_MAX);
    let said = program.lines().join("\n");
    assert!(status.success(), "the libpq program failed with {status}:\n{said}");
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("the libpq program told no JSON ({e}):\n{said}"))
}
