//! What is wrong in the files that an operator writes: every mistake at once, each with its line.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing to look at in one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mistake {
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong and what to write instead: a lower-case fragment, never a secret.
    pub text: String,
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// What must be put right before the gateway starts.
    pub mistakes: Vec<Mistake>,
    /// What works but should be known: every `danger_…` that is on, certificates about to expire.
    pub warnings: Vec<Mistake>,
}

/// What `gatebook check` prints and a failed start says.
///
/// Whoever checks further files (policies, the live upstream) adds to the same report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One entry for each file that was read, in the order of reading.
    pub files: Vec<FileReport>,
}

impl Report {
    /// Notes that `file` was read, so that it is named even when nothing is wrong with it.
    pub fn read(&mut self, file: &Path) {
        self.entry(file);
    }

    /// Adds a mistake.
    pub fn mistake(&mut self, file: &Path, line: usize, text: impl Into<String>) {
        let mistakes = &mut self.entry(file).mistakes;
        mistakes.push(Mistake { line, text: text.into() });
        mistakes.sort_by_key(|mistake| mistake.line);
    }

    /// Adds a warning.
    pub fn warning(&mut self, file: &Path, line: usize, text: impl Into<String>) {
        let warnings = &mut self.entry(file).warnings;
        warnings.push(Mistake { line, text: text.into() });
        warnings.sort_by_key(|warning| warning.line);
    }

    /// How many mistakes there are in all files.
    #[must_use]
    pub fn mistakes(&self) -> usize {
        self.files.iter().map(|file| file.mistakes.len()).sum()
    }

    /// Whether nothing must be put right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.mistakes() == 0
    }

    /// The report as one JSON object, for `gatebook check --json`.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::json!({ "mistakes": self.mistakes(), "files": self.files }).to_string()
    }

    fn entry(&mut self, file: &Path) -> &mut FileReport {
        let at = self.files.iter().position(|known| known.file == file).unwrap_or_else(|| {
            let file = file.to_path_buf();
            self.files.push(FileReport { file, mistakes: Vec::new(), warnings: Vec::new() });
            self.files.len() - 1
        });
        &mut self.files[at]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            write!(f, "{}: {}", file.file.display(), counted(file.mistakes.len(), "mistake"))?;
            if !file.warnings.is_empty() {
                write!(f, ", {}", counted(file.warnings.len(), "warning"))?;
            }
            writeln!(f)?;
            let last = file.mistakes.iter().chain(&file.warnings).map(|each| each.line).max().unwrap_or(0);
            let width = last.to_string().len() + 2;
            for mistake in &file.mistakes {
                write_line(f, width, mistake.line, "", &mistake.text)?;
            }
            for warning in &file.warnings {
                write_line(f, width, warning.line, "warning: ", &warning.text)?;
            }
        }
        Ok(())
    }
}

/// Text from a file may hold control characters; what is printed never does.
fn write_line(f: &mut fmt::Formatter<'_>, width: usize, line: usize, label: &str, text: &str) -> fmt::Result {
    let line = if line == 0 { String::from("–") } else { line.to_string() };
    let text: String =
        text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    writeln!(f, "{line:>width$}  {label}{text}")
}

/// The system's reason without its number, as a fragment: `permission denied`.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// `no mistakes`, `1 mistake`, `2 mistakes`.
fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_one_list_for_each_file() {
        let mut report = Report::default();
        report.read(Path::new("gatebook.toml"));
        report.mistake(Path::new("gatebook.toml"), 31, "second");
        report.mistake(Path::new("gatebook.toml"), 4, "first");
        report.warning(Path::new("gatebook.toml"), 7, "careful");
        report.mistake(Path::new("policies/ci.cedar"), 0, "odd \u{1b}[31m byte");
        report.read(Path::new("policies/ok.cedar"));
        let text = "gatebook.toml: 2 mistakes, 1 warning\n   4  first\n  31  second\n   7  warning: careful\n\
                    policies/ci.cedar: 1 mistake\n  –  odd \u{fffd}[31m byte\npolicies/ok.cedar: no mistakes\n";
        assert_eq!(report.to_string(), text);
        assert_eq!(report.mistakes(), 3);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["mistakes"], 3);
        assert_eq!(json["files"][0]["mistakes"][0]["line"], 4);
    }
}
