//! A real OpenID Connect provider (`tests/oidc`), with people who log in by a browser. `tests/setup` installs its packages.

use std::time::Duration;

use tempfile::TempDir;

use crate::machine;
use crate::{Authority, Child};

/// How long it may take to come up on a busy machine: it makes its keys first.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running provider. It ends with this value.
pub struct Provider {
    url: String,
    folder: TempDir,
    _process: Child,
}

impl Provider {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let folder = machine::temporary();
        let authority = Authority::new();
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).expect("the folder can be written");
        authority.issue(&["localhost"]).write(folder.path(), "idp");
        let modules = machine::cache().join("oidc/node_modules");
        assert!(modules.is_dir(), "{} is missing: run tests/setup", modules.display());
        let mut command = machine::mortal(&machine::program("node"));
        command.arg(machine::tests_folder().join("oidc/provider.mjs"));
        command.arg(folder.path().join("idp.key")).arg(folder.path().join("idp.crt")).arg(modules);
        let process = Child::start("provider", command);
        let url = process.line_from(0, "listening on", PATIENCE, |line| {
            line.strip_prefix("listening on ").map(str::to_owned)
        });
        Self { url, folder, _process: process }
    }

    /// The tables that have a gateway's approvers log in here: the issuer `corp`, and the page.
    ///
    /// # Panics
    /// When the folder cannot be written.
    #[must_use]
    pub fn tables(&self) -> (String, String) {
        let secret = self.folder.path().join("secret");
        crate::certificates::write_private(&secret, "page-secret");
        let issuer = format!(
            "[[identity.issuer]]\nname = \"corp\"\nurl = \"{}\"\naudience = \"cli\"\ngroups_claim = \"groups\"\nca = \"{}\"\n",
            self.url,
            self.folder.path().join("ca.crt").display()
        );
        let login = format!(
            "[admin.login]\nissuer = \"corp\"\nclient_id = \"page\"\nclient_secret = {{ file = \"{}\" }}\n\
             scopes = [\"openid\", \"profile\", \"groups\"]\n",
            secret.display()
        );
        (issuer, login)
    }
}
