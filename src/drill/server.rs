//! Where the shop's database is: a unix socket of the sandbox and nothing else.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Row};

use crate::error::{Context, Error, Result};

/// Longest path of a unix socket in bytes (`sun_path` holds 108 with the closing zero; unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// How long a connection attempt may take; on a local socket anything longer is a hang.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A database of the sandbox. There is no field for a password or a host name on purpose: only unix sockets can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Directory of the unix socket, absolute.
    pub socket: String,
    /// Port, which names the socket file in that directory.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
}

impl Server {
    /// The same server under another role.
    #[must_use]
    pub fn with_user(&self, user: &str) -> Self {
        Self { user: user.into(), ..self.clone() }
    }
    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.into(), ..self.clone() }
    }
    /// Connects. Nothing of the caller's environment (`PGHOST`, `PGOPTIONS`, password files) takes part.
    ///
    /// # Errors
    /// `Target` when nothing answers, `Usage` when the socket directory is not an absolute path.
    pub async fn connect(&self, application: &str) -> Result<PgConnection> {
        self.connect_as(application, "").await
    }
    /// As [`Server::connect`], for a role that needs a password, which is never kept.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub async fn connect_as(&self, application: &str, password: &str) -> Result<PgConnection> {
        if !Path::new(&self.socket).is_absolute() {
            return Err(Error::usage(format!("{:?} is not a socket directory", self.socket))
                .why("the sandbox is reached over unix sockets only"));
        }
        // `new_without_pgpass` reads PG* variables; each of them that could matter is overwritten here.
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(self.port)
            .username(&self.user)
            .password(password)
            .database(&self.database)
            .ssl_mode(PgSslMode::Disable)
            .application_name(application)
            .disable_statement_logging();
        let what = || format!("database {:?} in {} does not answer", self.database, self.socket);
        match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await {
            Ok(connected) => connected.target(what),
            Err(_) => Err(Error::target(what()).why("no answer within 5 s")),
        }
    }
    /// A libpq connection string without a secret, for `psql` and for people.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user={} dbname={}", self.socket, self.port, self.user, self.database)
    }
}

/// The cluster's system identifier, as text, and whether it is in recovery.
///
/// # Errors
/// `Target` when the query fails.
pub async fn identify(conn: &mut PgConnection) -> Result<(String, bool)> {
    let row = sqlx::query("SELECT system_identifier::text, pg_is_in_recovery() FROM pg_control_system()")
        .fetch_one(conn)
        .await
        .target(|| "cannot read the identity of the database".into())?;
    Ok((row.get(0), row.get(1)))
}
