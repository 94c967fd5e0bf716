//! A server, an issuer and a gateway between them: what most tests begin with.

use crate::gateway::Setup;
use crate::wire::Client;
use crate::{Gateway, Issuer, Postgres};

/// A server, an issuer and a gateway. They end with this value, the gateway first.
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// The issuer that it believes.
    pub issuer: Issuer,
    /// The server behind it.
    pub postgres: Postgres,
}

impl World {
    /// A world under these policies.
    ///
    /// # Panics
    /// When any of it does not come up.
    #[must_use]
    pub fn new(policies: &str) -> Self {
        Self::with(|setup| setup.policies(policies))
    }

    /// A world with a gateway that is set up otherwise.
    ///
    /// # Panics
    /// When any of it does not come up.
    #[must_use]
    pub fn with(change: impl FnOnce(Setup<'_>) -> Setup<'_>) -> Self {
        Self::before(Postgres::logging(), change)
    }

    /// A world around a server that was prepared.
    ///
    /// # Panics
    /// When any of it does not come up.
    #[must_use]
    pub fn before(postgres: Postgres, change: impl FnOnce(Setup<'_>) -> Setup<'_>) -> Self {
        let issuer = Issuer::start();
        let gateway = change(Setup::new(&postgres, &issuer)).start();
        Self { gateway, issuer, postgres }
    }

    /// A token of a developer.
    #[must_use]
    pub fn token(&self) -> String {
        self.issuer.token("lee", &["developers"])
    }

    /// A token of this subject for the gateway's own HTTPS server.
    #[must_use]
    pub fn admin_token(&self, subject: &str, groups: &[&str]) -> String {
        let mut claims = self.issuer.claims(subject, groups);
        claims["aud"] = crate::gateway::ADMIN_AUDIENCE.into();
        self.issuer.sign(&claims)
    }

    /// A connection of a developer, logged in.
    ///
    /// # Panics
    /// When the login is refused.
    #[must_use]
    pub fn client(&self) -> Client {
        self.gateway.login(&self.token())
    }
}
