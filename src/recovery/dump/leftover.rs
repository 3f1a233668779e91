//! The database that a restore builds, under a name of its own, and what is left of it when the restore dies.
//!
//! It is made with a limit of connections that follows from its name: a mark that is there from its first moment, that nobody sets by
//! accident, and that does not fit any more once somebody has given it another name. Beside it the connection that restores holds a
//! lock of that name for as long as it lives.

use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;

use crate::error::{Error, Result};
use crate::postgres::Database;
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::recovery::Watch;

/// Databases under this prefix are unfinished restores, when they bear the mark.
const PREFIX: &str = "breakglass_restoring_";

/// A name for a database that is being built.
///
/// # Errors
/// No random numbers.
pub(super) fn name() -> Result<String> {
    let mut bytes = [0u8; 6];
    getrandom::fill(&mut bytes).map_err(|e| Error::state("no random numbers").why(e))?;
    Ok(format!("{PREFIX}{}", crate::backup::container::hex(&bytes)))
}

/// Its mark, as a limit of connections: far above what any server takes.
pub(super) fn mark(name: &str) -> i64 {
    let digest = Sha256::digest(format!("unfinished restore {name}"));
    1_000_000_000 + i64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % 1_000_000_000)
}

/// Takes the lock that says that somebody works on an unfinished database. Held as long as the connection.
///
/// # Errors
/// The query fails.
pub(super) async fn lock(c: &mut PgConnection, name: &str) -> Result<bool> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))";
    sqlx::query_scalar(sql).bind(name).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

/// Databases that are called so, their limits of connections, and whether somebody works on one: a lock counts in the database that
/// its holder is connected to, and that need not be ours.
const CALLED_SO: &str = "SELECT d.datname::text, d.datconnlimit::int8, EXISTS (SELECT FROM pg_catalog.pg_locks l \
      WHERE l.locktype = 'advisory' AND l.objsubid = 1 \
        AND ((l.classid::int8 << 32) | l.objid::int8) = pg_catalog.hashtextextended(d.datname::text, 0)) \
    FROM pg_catalog.pg_database d WHERE d.datname LIKE 'breakglass\\_restoring\\_%' ORDER BY d.datname";

/// Sessions of clients. Whoever may not see what sort they are counts them all.
const SESSIONS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity \
    WHERE datname = $1 AND coalesce(backend_type, 'client backend') = 'client backend'";

/// Removes what dead restores left, as long as nobody is connected to it. What is only called so is named, and left alone.
///
/// # Errors
/// The server does not say which there are.
pub(super) async fn sweep(c: &mut PgConnection, target: &Database, watch: &dyn Watch) -> Result<()> {
    let found: Vec<(String, i64, bool)> =
        sqlx::query_as(CALLED_SO).fetch_all(&mut *c).await.map_err(|e| query_error(CALLED_SO, &e))?;
    for (name, limit, worked_on) in found {
        let remove = format!("DROP DATABASE {};", quote_ident(&name));
        if limit != mark(&name) {
            watch.line(&format!(
                "NOTE: database {name:?} is called like an unfinished restore and does not bear the mark of one: it was left alone. If \
                 nobody needs it: {remove}"
            ));
            continue;
        }
        if worked_on || !lock(c, &name).await? {
            continue;
        }
        watch.line(&format!("removing {name}, which an earlier restore left unfinished"));
        // With a subscription in it the server would refuse. What comes of that is said when it is dropped. It itself waits some seconds for sessions that are about to go, and refuses as long as there is one.
        let _ = super::replaced::unsubscribe(c, &target.with_name(&name)).await;
        let removed = run(c, &remove).await;
        if let Err(e) = removed {
            let n: i64 = sqlx::query_scalar(SESSIONS)
                .bind(&name)
                .fetch_one(&mut *c)
                .await
                .map_err(|e| query_error(SESSIONS, &e))?;
            let why = match n {
                0 => e.why,
                1 => "1 session is connected to it".to_string(),
                n => format!("{n} sessions are connected to it"),
            };
            watch.line(&format!("NOTE: {name} was not removed: {why}. If nobody needs it: {remove}"));
        }
        let sql = "SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended($1, 0))";
        sqlx::query(sql).bind(&name).execute(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    }
    Ok(())
}
