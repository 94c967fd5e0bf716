//! A real browser: headless Chromium, driven by `tests/browser/driver.mjs`. `tests/setup` installs both.
//!
//! It is told one thing at a time and waits for what it needs by itself, with a deadline; what it sees is what a person sees.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine;
use crate::{Child, Gateway};

/// How long a browser may take for anything on a busy machine: it is the heaviest of all that the tests start.
const PATIENCE: Duration = Duration::from_secs(180);

/// A browser. It ends with this value.
pub struct Browser {
    process: RefCell<Child>,
    asked: Cell<usize>,
}

impl Browser {
    /// A browser that finds this gateway's own server where it says it is.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(gateway: &Gateway) -> Self {
        let modules = machine::cache().join("browser/node_modules");
        assert!(modules.is_dir(), "{} is missing: run tests/setup", modules.display());
        let mut command = machine::mortal(&machine::program("node"));
        command.arg(machine::tests_folder().join("browser/driver.mjs")).arg(modules);
        command.arg(machine::program("chromium"));
        command.arg(format!("MAP {}:443 127.0.0.1:{}", crate::gateway::ADMIN_HOST, gateway.admin().port()));
        let process = Child::start("browser", command);
        process.line("ready", PATIENCE);
        Self { process: process.into(), asked: Cell::new(0) }
    }

    /// Has it do something, and gives back what it tells.
    ///
    /// # Panics
    /// When it cannot be done in time; the message holds what the browser said.
    pub fn ask(&self, what: &str, with: Value) -> Value {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let mut order = with;
        order["do"] = what.into();
        order["number"] = number.into();
        let mut process = self.process.borrow_mut();
        process.write(&format!("{order}\n"));
        let answer = process.line_from(0, "answer", PATIENCE, |line| {
            let answer: Value = serde_json::from_str(line).ok()?;
            (answer["number"] == number).then_some(answer)
        });
        assert!(answer["failed"].is_null(), "{what} {order}: {}", answer["failed"]);
        answer["value"].clone()
    }

    /// A page of its own, with cookies of its own, of this size.
    pub fn page(&self, width: u32, height: u32, dark: bool) {
        self.ask("page", json!({ "width": width, "height": height, "dark": dark }));
    }

    /// Goes to a URL.
    pub fn go(&self, url: &str) {
        self.ask("go", json!({ "url": url }));
    }

    /// Clicks, once it can be clicked.
    pub fn click(&self, selector: &str) {
        self.ask("click", json!({ "selector": selector }));
    }

    /// Types into a field.
    pub fn fill(&self, selector: &str, text: &str) {
        self.ask("fill", json!({ "selector": selector, "text": text }));
    }

    /// Presses a key where the focus is.
    pub fn press(&self, key: &str) {
        self.ask("press", json!({ "key": key }));
    }

    /// What a person reads there, once it can be seen.
    ///
    /// # Panics
    /// When it cannot be seen in time.
    #[must_use]
    pub fn text(&self, selector: &str) -> String {
        self.ask("text", json!({ "selector": selector })).as_str().expect("a text").to_owned()
    }

    /// How many of these there are now.
    #[must_use]
    pub fn count(&self, selector: &str) -> u64 {
        self.ask("count", json!({ "selector": selector })).as_u64().expect("a number")
    }

    /// What an expression of the page's own world comes to now.
    pub fn value(&self, expression: &str) -> Value {
        self.ask("value", json!({ "expression": expression }))
    }

    /// Waits until this can be seen.
    pub fn see(&self, selector: &str) {
        self.ask("see", json!({ "selector": selector }));
    }

    /// The cookies that it keeps for every site.
    #[must_use]
    pub fn cookies(&self) -> Vec<Value> {
        self.ask("cookies", json!({})).as_array().expect("a list").clone()
    }

    /// What the page's scripts complained of since the page was made: errors, dialogs, refusals of its content policy.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let told = self.ask("complaints", json!({}));
        told.as_array().expect("a list").iter().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
    }

    /// A picture of the page, whole.
    pub fn picture(&self, file: &Path) {
        self.ask("picture", json!({ "file": file }));
    }
}
