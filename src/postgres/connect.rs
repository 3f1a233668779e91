//! How a database is reached: from a `DATABASE_URL` or a socket directory, with deadlines and without passwords in errors.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use crate::error::{Error, Result};
use crate::model::{CleanText, Secret};

/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A database as it is reached. `Display` and `Debug` never show the password.
#[derive(Debug, Clone)]
pub struct Database {
    host: String,
    port: u16,
    name: String,
    user: String,
    password: Option<Secret>,
    ssl: Vec<(&'static str, String)>,
}

/// The parameters of a URL that say how to encrypt, and the environment variable libpq reads each from.
const SSL: [(&str, &str); 4] =
    [("sslmode", "PGSSLMODE"), ("sslrootcert", "PGSSLROOTCERT"), ("sslcert", "PGSSLCERT"), ("sslkey", "PGSSLKEY")];

impl Database {
    /// A database of the configuration, with its password if it has one.
    pub fn of(connection: &crate::config::Connection, password: Option<Secret>) -> Self {
        Self {
            host: connection.host.clone(),
            port: connection.port,
            name: connection.database.clone(),
            user: connection.user.clone(),
            password,
            ssl: connection.sslmode.iter().map(|m| ("sslmode", m.clone())).collect(),
        }
    }

    /// Reads `postgres://user:password@host:port/database?sslmode=…`; `?host=/folder` or a percent-encoded folder as host
    /// means a socket. What is left out comes from libpq's environment variables and password file.
    ///
    /// # Errors
    /// Not such a URL; the message names the part that is wrong and never quotes the whole.
    pub fn from_url(url: &Secret) -> Result<Self> {
        let bad = |why: &str| {
            Error::config("the database URL cannot be used")
                .why(why.to_string())
                .hint("write postgres://user:password@host:5432/database")
        };
        let text = url.expose().trim();
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|s| text.strip_prefix(s))
            .ok_or_else(|| bad("it does not begin with postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((c, a)) => (Some(c), a),
            None => (None, authority),
        };
        let decoded = |part: &str, what: &str| {
            percent_decode(part).ok_or_else(|| bad(&format!("the {what} has a broken percent escape")))
        };
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let mut user = None;
        let mut password = None;
        if let Some(c) = credentials {
            let (u, p) = c.split_once(':').map_or((c, None), |(u, p)| (u, Some(p)));
            user = Some(decoded(u, "user")?).filter(|u| !u.is_empty());
            password = p.map(|p| decoded(p, "password")).transpose()?.map(Secret::new);
        }
        if address.contains(',') {
            return Err(bad("it names several hosts; name the one that is meant"));
        }
        let (host, port) = match address.strip_prefix('[').and_then(|a| a.split_once(']')) {
            Some((v6, rest)) => (v6, rest.strip_prefix(':')),
            None => address.rsplit_once(':').map_or((address, None), |(h, p)| (h, Some(p))),
        };
        let mut host = Some(decoded(host, "host")?).filter(|h| !h.is_empty());
        let mut port = port.filter(|p| !p.is_empty()).map(str::to_string);
        let mut name = Some(decoded(path, "database name")?).filter(|n| !n.is_empty());
        let mut ssl = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value, "query")?;
            match key {
                "host" => host = Some(value),
                "port" => port = Some(value),
                "user" => user = Some(value),
                "dbname" => name = Some(value),
                "password" => password = Some(Secret::new(value)),
                _ => {
                    if let Some((k, _)) = SSL.iter().find(|(k, _)| *k == key) {
                        ssl.push((*k, value));
                    }
                }
            }
        }
        let port = match port.or_else(|| env("PGPORT")) {
            Some(p) => p.parse().map_err(|_| bad(&format!("the port is {p:?}")))?,
            None => 5432,
        };
        let user = user
            .or_else(|| env("PGUSER"))
            .or_else(|| env("USER"))
            .ok_or_else(|| bad("it names no user, and PGUSER is not set"))?;
        let host = host.or_else(|| env("PGHOST")).unwrap_or_else(|| "localhost".into());
        let name = name.or_else(|| env("PGDATABASE")).unwrap_or_else(|| user.clone());
        Ok(Self { host, port, name, user, password, ssl })
    }

    /// The database a configuration names; the password travels apart.
    pub fn from_config(connection: &crate::config::Connection, password: Option<&Secret>) -> Self {
        let c = connection.clone();
        let ssl = c.sslmode.map(|m| ("sslmode", m)).into_iter().collect();
        Self { host: c.host, port: c.port, name: c.database, user: c.user, password: password.cloned(), ssl }
    }

    /// A database behind the socket `.s.PGSQL.<port>` in `dir`.
    pub fn at_socket(dir: &Path, port: u16, name: &str, user: &str) -> Self {
        let host = dir.display().to_string();
        Self { host, port, name: name.into(), user: user.into(), password: None, ssl: Vec::new() }
    }

    /// Host name, address or socket directory.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Role.
    pub fn user(&self) -> &str {
        &self.user
    }
    /// The password, if one was given; for the redactor.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }
    /// The same server and role, another database.
    #[must_use]
    pub fn with_name(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }
    /// The same database in another place: how a database is reached after a move, with the same role.
    #[must_use]
    pub fn moved_to(&self, dir: &Path, port: u16) -> Self {
        Self { host: dir.display().to_string(), port, ssl: Vec::new(), ..self.clone() }
    }
    /// Whether it is reached through a socket file.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// A URL without the password, for people, services and our own `--database` flag.
    pub fn url(&self) -> String {
        let (user, name) = (percent_encode(&self.user), percent_encode(&self.name));
        if self.is_socket() {
            return format!("postgres:///{name}?host={}&port={}&user={user}", percent_encode(&self.host), self.port);
        }
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { percent_encode(&self.host) };
        format!("postgres://{user}@{host}:{}/{name}", self.port)
    }

    /// Options for sqlx. The password comes from the URL, else from libpq's environment variable or password file.
    ///
    /// # Errors
    /// A part is not as sqlx takes it.
    pub fn options(&self) -> Result<PgConnectOptions> {
        let broken = |e: &dyn fmt::Display| Error::config(format!("cannot use the database address {self}")).why(e);
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { percent_encode(&self.host) };
        let url =
            format!("postgres://{}@{host}:{}/{}", percent_encode(&self.user), self.port, percent_encode(&self.name));
        let mut o = PgConnectOptions::from_str(&url).map_err(|e| broken(&e))?;
        if let Some(p) = &self.password {
            o = o.password(p.expose());
        }
        for (key, value) in &self.ssl {
            o = match *key {
                "sslmode" => o.ssl_mode(PgSslMode::from_str(value).map_err(|e| broken(&e))?),
                "sslrootcert" => o.ssl_root_cert(value),
                "sslcert" => o.ssl_client_cert(value),
                _ => o.ssl_client_key(value),
            };
        }
        Ok(o.application_name("breakglass").disable_statement_logging())
    }

    /// Connects within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// Not reachable, refused, or too slow; the message names host, port, database and role, never the password.
    pub async fn connect(&self) -> Result<PgConnection> {
        self.connect_within(CONNECT_TIMEOUT).await
    }

    /// Connects within `limit`.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn connect_within(&self, limit: Duration) -> Result<PgConnection> {
        let what = || format!("cannot connect to {self}");
        let options = self.options()?;
        let connected = async {
            let mut c =
                PgConnection::connect_with(&options).await.map_err(|e| Error::target(what()).why(describe(&e)))?;
            // A database may say otherwise, and what recovers takes no serializable transaction. Not in the startup packet,
            // which poolers refuse. A pooler that is paused takes the login and answers no question, so it counts as well.
            run(&mut c, "SET default_transaction_isolation = 'read committed'").await?;
            Ok(c)
        };
        match tokio::time::timeout(limit, connected).await {
            Ok(c) => c,
            Err(_) => Err(Error::target(what()).why(format!("no answer within {} s", limit.as_secs_f32()))),
        }
    }

    /// Connects for reading in an emergency: read-only, a lock waited for at most `lock`, a statement at most `statement`,
    /// times in UTC. A paused recovery or a stuck session then costs a clear error, not a hang.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn connect_read_only(&self, lock: Duration, statement: Duration) -> Result<PgConnection> {
        let mut c = self.connect().await?;
        let sql = format!(
            "SET lock_timeout = {}; SET statement_timeout = {}; SET default_transaction_read_only = on; \
             SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET search_path = pg_catalog; SET row_security = off",
            lock.as_millis(),
            statement.as_millis()
        );
        run(&mut c, &sql).await?;
        Ok(c)
    }

    /// The environment that makes PostgreSQL's own tools reach this database; the password goes this way and never by argv.
    pub fn tool_env(&self) -> Vec<(&'static str, Secret)> {
        let mut env = vec![
            ("PGHOST", Secret::new(self.host.clone())),
            ("PGPORT", Secret::new(self.port.to_string())),
            ("PGUSER", Secret::new(self.user.clone())),
            ("PGDATABASE", Secret::new(self.name.clone())),
            ("PGAPPNAME", Secret::new("breakglass")),
            ("PGCONNECT_TIMEOUT", Secret::new(CONNECT_TIMEOUT.as_secs().to_string())),
        ];
        if let Some(p) = &self.password {
            env.push(("PGPASSWORD", p.clone()));
        } else {
            for name in ["PGPASSWORD", "PGPASSFILE", "HOME"] {
                if let Ok(v) = std::env::var(name) {
                    env.push((name, Secret::new(v)));
                }
            }
        }
        for (key, value) in &self.ssl {
            if let Some((_, variable)) = SSL.iter().find(|(k, _)| k == key) {
                env.push((variable, Secret::new(value.clone())));
            }
        }
        env
    }
}

impl fmt::Display for Database {
    /// `database "shop" as "app" at db.example:5432`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {:?} as {:?} at {}:{}", self.name, self.user, self.host, self.port)
    }
}

/// Runs statements that return nothing of interest, by the simple protocol (several are separated by `;`).
///
/// # Errors
/// A statement fails; the server's message, detail and hint are the reason.
pub async fn run(c: &mut PgConnection, sql: &str) -> Result<()> {
    use sqlx::Executor;
    match c.execute(sqlx::raw_sql(sql)).await {
        Ok(_) => Ok(()),
        Err(e) => Err(query_error(sql, &e)),
    }
}

/// The error of a failed statement: its beginning quoted, the server's words as the reason.
pub fn query_error(sql: &str, e: &sqlx::Error) -> Error {
    let mut short: String = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if short.chars().count() > 80 {
        short = short.chars().take(79).collect::<String>() + "…";
    }
    Error::target(format!("query failed: {short}")).why(describe(e))
}

/// What a sqlx error says, for people: the server's message with detail and hint, cleaned.
pub fn describe(e: &sqlx::Error) -> String {
    let text = match e.as_database_error() {
        Some(d) => {
            let mut text = d.message().to_string();
            if let Some(p) = d.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                for more in [p.detail(), p.hint()].into_iter().flatten() {
                    text.push_str("; ");
                    text.push_str(more);
                }
            }
            text
        }
        None => match e {
            sqlx::Error::Io(e) => e.to_string(),
            other => other.to_string(),
        },
    };
    CleanText::line(text.replace('\n', " ").as_bytes()).to_string()
}

/// The SQLSTATE of an error, when the server gave one.
pub fn sqlstate(e: &sqlx::Error) -> Option<String> {
    e.as_database_error().and_then(|d| d.code()).map(|c| c.to_string())
}

/// An identifier as SQL reads it back, always in quotes.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal, right for every setting of `standard_conforming_strings`.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
