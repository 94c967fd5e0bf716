//! A ledger as an auditor sees it: through the binaries, never through the gateway.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::machine;

/// A ledger's folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

/// What `gatebook-ledger verify` says.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Its exit status: 0 verified and anchored, 1 tampered, 2 incomplete, 3 unreadable, 4 verified and not anchored.
    pub status: i32,
    /// What it printed.
    pub said: String,
}

impl Verdict {
    /// Whether everything that is there verifies, whatever anchors there are.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        matches!(self.status, 0 | 4)
    }
}

impl Ledger {
    /// The ledger in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The key that an auditor pins.
    ///
    /// # Panics
    /// When the ledger has none.
    #[must_use]
    pub fn key(&self) -> String {
        let mut command = Command::new(machine::binary("gatebook-ledger"));
        machine::run(command.arg("key").arg(&self.folder).arg("--vkey")).trim().to_owned()
    }

    /// Verifies it with its key pinned.
    ///
    /// # Panics
    /// When the verifier cannot be run.
    #[must_use]
    pub fn verify(&self) -> Verdict {
        let mut command = Command::new(machine::binary("gatebook-ledger"));
        command.arg("verify").arg(&self.folder).arg("--key").arg(self.key());
        let output = command.output().expect("the verifier runs");
        let said = [output.stdout, output.stderr].concat();
        Verdict {
            status: output.status.code().unwrap_or(-1),
            said: String::from_utf8_lossy(&said).into_owned(),
        }
    }

    /// Verifies it.
    ///
    /// # Panics
    /// When it is not sound; the message holds the verdict.
    pub fn assert_sound(&self) {
        let verdict = self.verify();
        assert!(
            verdict.is_sound(),
            "the ledger does not verify (exit {}):\n{}",
            verdict.status,
            verdict.said
        );
    }

    /// Every event, as `gatebook-ledger show --json` prints them.
    ///
    /// # Panics
    /// When it cannot be read, or prints what is no JSON.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let mut command = Command::new(machine::binary("gatebook-ledger"));
        let text = machine::run(command.arg("show").arg(&self.folder).arg("--json"));
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}
