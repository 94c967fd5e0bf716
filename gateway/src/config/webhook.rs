//! `[[webhook]]`: who is told of requests for approval.

use super::table::Table;
use super::{WebhookConfig, tls};

/// One for each table that has no mistakes.
pub(super) fn webhooks(root: &Table<'_>) -> Vec<WebhookConfig> {
    let mut webhooks = Vec::new();
    for table in root.tables("webhook", "webhook") {
        let (url, secret, format) = (table.secret("url"), table.secret("secret"), table.choice("format"));
        let ca = table.path("ca").and_then(|ca| match tls::authorities(&ca.value) {
            Ok((text, _)) => Some(text),
            Err(wrong) => {
                table.mistake(ca.line, format!("ca: {wrong}"));
                None
            }
        });
        let danger_http = table.flag("danger_http");
        if danger_http.value {
            table.warning(
                danger_http.line,
                "danger_http is on: whoever reads loopback traffic sees statements",
            );
        }
        let (Some(url), Some(secret), Some(format)) = (url, secret, format) else { continue };
        webhooks.push(WebhookConfig {
            url: url.value,
            secret: secret.value,
            slack: format.value == "slack",
            ca,
            danger_http: danger_http.value,
        });
    }
    webhooks
}
