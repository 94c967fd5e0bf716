//! tokio-postgres: driver-tokio-postgres extended | simple.

use std::error::Error;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

type Failure = Box<dyn Error + Send + Sync>;

/// A parameter in the server's own text spelling, whatever its type is.
#[derive(Debug)]
struct Text(Option<String>);

impl Text {
    fn of(value: &Value) -> Self {
        Self(match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Object(map) => Some(format!("\\x{}", map["bytes"].as_str().unwrap_or_default())),
            other => Some(other.to_string()),
        })
    }
}

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A cell as it travelled.
struct Raw(String);

impl FromSql<'_> for Raw {
    fn from_sql(kind: &Type, raw: &[u8]) -> Result<Self, Failure> {
        let textual = matches!(*kind, Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN);
        Ok(Self(match (textual, std::str::from_utf8(raw)) {
            (true, Ok(text)) => text.to_owned(),
            _ => raw.iter().map(|byte| format!("{byte:02x}")).collect(),
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn cells(row: &Row) -> Value {
    (0..row.len()).map(|at| row.get::<_, Option<Raw>>(at).map(|raw| raw.0)).collect()
}

fn say(step: usize, what: &str, value: &Value) {
    println!("{}", json!({"step": step, what: value}));
}

async fn execute(client: &Client, sql: &str, values: &Value) -> Result<Value, tokio_postgres::Error> {
    let values: Vec<Text> = values.as_array().into_iter().flatten().map(Text::of).collect();
    let rows = client.query_raw(sql, values.iter().map(|value| value as &dyn ToSql)).await?;
    let mut rows = std::pin::pin!(rows);
    let mut all = Vec::new();
    while let Some(row) = rows.try_next().await? {
        all.push(cells(&row));
    }
    Ok(json!({"rows": all, "affected": rows.rows_affected()}))
}

async fn simple(client: &Client, sql: &str) -> Result<Value, tokio_postgres::Error> {
    let told = client.simple_query(sql).await?.into_iter().map(|message| match message {
        SimpleQueryMessage::Row(row) => (0..row.len()).map(|at| row.get(at)).collect(),
        SimpleQueryMessage::CommandComplete(count) => json!(count),
        _ => json!("columns"),
    });
    Ok(told.collect())
}

/// One driver program in one of its modes.
struct Driver {
    client: Client,
    simple: bool,
    running: tokio::sync::mpsc::UnboundedReceiver<()>,
}

impl Driver {
    async fn run(&mut self, at: usize, step: &Value) -> Result<(), Failure> {
        let sql = step["sql"].as_str().unwrap_or_default();
        let one =
            |step: &Value| (step["sql"].as_str().unwrap_or_default().to_owned(), step["params"].clone());
        match step["do"].as_str().unwrap_or_default() {
            "run" if step["params"].is_null() && (self.simple || step["simple"] == true) => {
                say(at, "told", &simple(&self.client, sql).await?);
            }
            "run" => say(at, "told", &execute(&self.client, sql, &step["params"]).await?),
            "several" => say(at, "told", &simple(&self.client, sql).await?),
            "prepared" => {
                let statement = self.client.prepare(sql).await?;
                for values in step["runs"].as_array().into_iter().flatten() {
                    let values: Vec<Text> = values.as_array().into_iter().flatten().map(Text::of).collect();
                    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
                    let rows = self.client.query(&statement, &values).await?;
                    say(at, "rows", &rows.iter().map(cells).collect());
                }
            }
            "pipeline" => {
                // Futures that are polled together travel together: this driver's way to pipeline.
                let steps: Vec<_> = step["steps"].as_array().into_iter().flatten().map(one).collect();
                let asked = steps.iter().map(|(sql, values)| execute(&self.client, sql, values));
                for told in future::join_all(asked).await {
                    say(at, "told", &told?);
                }
            }
            "transaction" => {
                let transaction = self.client.transaction().await?;
                for (sql, values) in step["steps"].as_array().into_iter().flatten().map(one) {
                    say(at, "told", &execute(transaction.client(), &sql, &values).await?);
                }
                if step["end"] == "commit" {
                    transaction.commit().await?;
                } else {
                    transaction.rollback().await?;
                }
            }
            "copy_in" => {
                let sink = self.client.copy_in(sql).await?;
                let mut sink = std::pin::pin!(sink);
                let data = step["data"].as_str().unwrap_or_default().to_owned().into_bytes();
                sink.send(std::io::Cursor::new(data)).await?;
                say(at, "copied", &json!(sink.finish().await?));
            }
            "copy_out" => {
                let chunks: Vec<_> = self.client.copy_out(sql).await?.try_collect().await?;
                say(at, "copied", &String::from_utf8_lossy(&chunks.concat()).into());
            }
            "fetch" => {
                let size = i32::try_from(step["size"].as_i64().unwrap_or(10))?;
                let transaction = self.client.transaction().await?;
                let portal = transaction.bind(sql, &[]).await?;
                loop {
                    let rows = transaction.query_portal(&portal, size).await?;
                    if rows.is_empty() {
                        break;
                    }
                    say(at, "rows", &rows.iter().map(cells).collect());
                }
                transaction.commit().await?;
            }
            "cancel" => {
                let token = self.client.cancel_token();
                let (told, ()) = tokio::join!(self.client.batch_execute(sql), async {
                    self.running.recv().await;
                    token.cancel_query(tls()).await.expect("a cancel request can be sent");
                });
                told?;
            }
            unknown => return Err(format!("unknown step {unknown}").into()),
        }
        Ok(())
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"))
}

fn tls() -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(env("PGSSLROOTCERT")).expect("the authority can be read")
    {
        roots.add(certificate.expect("it is PEM")).expect("it is a certificate");
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let mut config = Config::new();
    config.host(env("PGHOST")).port(env("PGPORT").parse()?).user(env("PGUSER")).password(env("PGPASSWORD"));
    config.dbname(env("PGDATABASE")).ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, mut connection) = config.connect(tls()).await?;
    let (started, running) = tokio::sync::mpsc::unbounded_channel();
    let (notices, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(|context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            let AsyncMessage::Notice(notice) = message else { continue };
            if notice.message() == "running" {
                let _ = started.send(());
            }
            let _ = notices.send(json!([notice.severity(), notice.message()]));
        }
    });
    let script: Value = serde_json::from_str(&std::fs::read_to_string(env("GATEBOOK_SCRIPT"))?)?;
    let mut driver = Driver { client, simple: mode == "simple", running };
    for (at, step) in script.as_array().into_iter().flatten().enumerate() {
        if let Err(error) = driver.run(at, step).await {
            let told = error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error());
            match told {
                Some(told) => say(at, "error", &json!([told.code().code(), told.message()])),
                None => return Err(error),
            }
        }
        while let Ok(notice) = noticed.try_recv() {
            say(at, "notice", &notice);
        }
    }
    Ok(())
}
