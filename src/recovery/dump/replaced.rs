//! What belongs to a database and does not go along when another one takes its name: subscriptions, logical replication slots,
//! prepared transactions. PostgreSQL keeps them by the database, so they stay with the one that is kept.

use serde::Serialize;
use sqlx::postgres::PgConnection;

use super::Request;
use crate::error::{Error, Result};
use crate::model::CleanText;
use crate::postgres::Database;
use crate::postgres::connect::{query_error, quote_ident, quote_literal, run};
use crate::recovery::Watch;

/// A subscription of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// Whether it takes in what is published.
    pub enabled: bool,
    /// Its slot, at the publisher.
    pub slot: Option<String>,
    /// What it subscribes to.
    pub publications: Vec<String>,
}

/// What belongs to a database alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Logical slots through which others subscribe to it.
    pub slots: Vec<String>,
    /// Global names of its prepared transactions.
    pub prepared: Vec<String>,
}

const SUBSCRIPTIONS: &str = "SELECT s.subname::text, s.subenabled, s.subslotname::text, s.subpublications FROM pg_catalog.pg_subscription s \
     JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = $1 ORDER BY 1";
const SLOTS: &str = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots WHERE database = $1 ORDER BY 1";
const PREPARED: &str = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = $1 ORDER BY prepared, gid";

/// What belongs to the database of this name.
///
/// # Errors
/// A query fails.
pub async fn attached(c: &mut PgConnection, database: &str) -> Result<Attached> {
    Ok(Attached {
        subscriptions: subscriptions(c, database).await?,
        slots: names(c, SLOTS, database).await?,
        prepared: names(c, PREPARED, database).await?,
    })
}

async fn subscriptions(c: &mut PgConnection, database: &str) -> Result<Vec<Subscription>> {
    let all: Vec<(String, bool, Option<String>, Vec<String>)> =
        sqlx::query_as(SUBSCRIPTIONS).bind(database).fetch_all(c).await.map_err(|e| query_error(SUBSCRIPTIONS, &e))?;
    Ok(all
        .into_iter()
        .map(|(name, enabled, slot, publications)| Subscription { name, enabled, slot, publications })
        .collect())
}

async fn names(c: &mut PgConnection, sql: &'static str, database: &str) -> Result<Vec<String>> {
    sqlx::query_scalar(sql).bind(database).fetch_all(c).await.map_err(|e| query_error(sql, &e))
}

impl Attached {
    /// What replacing the database does to it, for people who decide.
    pub fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        let enabled: Vec<&str> = self.subscriptions.iter().filter(|s| s.enabled).map(|s| s.name.as_str()).collect();
        if !enabled.is_empty() {
            out.push(format!(
                "it subscribes by {}: that stays with the old database and is disabled there, and the restored one takes in nothing \
                 until somebody sees to it",
                quoted(&enabled)
            ));
        }
        if !self.slots.is_empty() {
            out.push(format!(
                "others subscribe to it by slot {}: that stays with the old database and keeps log on this server, and the subscribers \
                 are told nothing more until somebody makes them subscribe anew",
                quoted(&self.slots)
            ));
        }
        if !self.prepared.is_empty() {
            out.push(format!("it has prepared transactions, which must end first: {}", quoted(&self.prepared)));
        }
        out
    }

    /// Refuses to replace a database with a prepared transaction, and one that replicates unless that was asked for.
    ///
    /// # Errors
    /// Refused, with how each ends and with the override.
    pub(super) fn check(&self, request: &Request) -> Result<()> {
        let name = request.target.name();
        let refused = || Error::refused(format!("replacing database {name:?}"));
        if !self.prepared.is_empty() {
            let mut error = refused().why(format!(
                "a transaction of it is prepared and holds it: {}; nobody can rename the database until it ends",
                quoted(&self.prepared)
            ));
            for gid in &self.prepared {
                let gid = quote_literal(gid);
                let gid = gid.trim();
                error = error.hint(format!(
                    "In database {name:?}, whichever is right: ROLLBACK PREPARED {gid}; or COMMIT PREPARED {gid};"
                ));
            }
            return Err(error.hint("Its transaction manager, where there is one, knows which."));
        }
        if request.detach_replication || (self.slots.is_empty() && !self.subscriptions.iter().any(|s| s.enabled)) {
            return Ok(());
        }
        Err(refused()
            .why(self.lines().join("; "))
            .hint("Or restore beside it, into a new database, and copy from there.")
            .hint(
                "If it shall be replaced all the same: --detach-replication. What is then to be done is said in the end.",
            ))
    }

    /// What to do once the database is called `kept` and the restored one has its name and these subscriptions.
    ///
    /// A subscription that came from a dump knows none of its tables: enabled, it would take what is waiting for it and drop it.
    pub(super) fn steps(&self, name: &str, kept: &str, restored: &[Subscription]) -> Vec<String> {
        let mut out = Vec::new();
        for s in &self.subscriptions {
            let it = quote_ident(&s.name);
            let state = if s.enabled { "was disabled" } else { "is disabled, as it was" };
            let free = format!("ALTER SUBSCRIPTION {it} SET (slot_name = NONE);");
            out.push(format!(
                "subscription {:?} stays with {kept:?} and {state}: what is published meanwhile waits at the publisher, and keeps log there",
                s.name
            ));
            if s.slot.is_some() {
                out.push(format!(
                    "first, in database {kept:?}: {free} -- the slot is then free, and dropping this database later does not drop it"
                ));
            }
            if restored.iter().any(|r| r.name == s.name) {
                out.push(format!(
                    "then, in database {name:?}: {free} DROP SUBSCRIPTION {it}; -- do not enable it: it came from a backup, knows none of \
                     its tables, and would drop what waits"
                ));
            }
            let publications: Vec<String> = s.publications.iter().map(|p| quote_ident(p)).collect();
            let create = format!("CREATE SUBSCRIPTION {it} CONNECTION '…' PUBLICATION {}", publications.join(", "));
            if let Some(slot) = &s.slot {
                let slot = quote_literal(slot);
                out.push(format!(
                    "to go on where the old database was, there: {create} WITH (create_slot = false, slot_name = {}, copy_data = false); -- \
                     what came between the backup and now is in {kept:?} alone",
                    slot.trim()
                ));
            }
            let gone =
                s.slot.as_ref().map_or_else(String::new, |slot| format!("at the publisher{}; ", drop_slot(slot)));
            out.push(format!(
                "or, for all rows anew: {gone}then there empty its tables, and {create} WITH (copy_data = true);"
            ));
            out.push(format!(
                "its connection, as a superuser: SELECT subconninfo FROM pg_subscription WHERE subname = {};",
                quote_literal(&s.name).trim()
            ));
        }
        for slot in &self.slots {
            out.push(format!(
                "slot {slot:?} stays with {kept:?} and keeps log on this server: let its subscriber subscribe anew to {name:?} (DROP \
                 SUBSCRIPTION after SET (slot_name = NONE), empty its tables, CREATE SUBSCRIPTION … WITH (copy_data = true)), then \
                 here{}",
                drop_slot(slot)
            ));
        }
        out
    }
}

fn drop_slot(slot: &str) -> String {
    format!(": SELECT pg_drop_replication_slot({})", quote_literal(slot).trim())
}

fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names
        .iter()
        .map(|n| format!("{:?}", CleanText::line(n.as_ref().as_bytes()).as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Disables the subscriptions that are enabled, before the database loses its name: afterwards the server would go on filling it
/// until it is told. Nothing is lost meanwhile, since the publisher keeps what was not taken in.
///
/// # Errors
/// One cannot be disabled; those that were are enabled again.
pub(super) async fn disable(at: &Database, attached: &Attached, watch: &dyn Watch) -> Result<()> {
    let all: Vec<&Subscription> = attached.subscriptions.iter().filter(|s| s.enabled).collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut sql = vec!["BEGIN".to_string()];
    for s in all {
        watch.line(&format!("disabling subscription {:?}, which stays with the old database", s.name));
        sql.push(format!("ALTER SUBSCRIPTION {} DISABLE", quote_ident(&s.name)));
    }
    sql.push("COMMIT".into());
    let mut c = at.connect().await?;
    run(&mut c, "SET lock_timeout = '60s'").await?;
    run(&mut c, &sql.join("; ")).await
}

/// Enables again what [`disable`] disabled, since the database keeps its name; says so where that does not work.
pub(super) async fn enable(at: &Database, attached: &Attached, mut error: Error) -> Error {
    for s in attached.subscriptions.iter().filter(|s| s.enabled) {
        let sql = format!("ALTER SUBSCRIPTION {} ENABLE", quote_ident(&s.name));
        let done = match at.connect().await {
            Ok(mut c) => run(&mut c, &sql).await,
            Err(e) => Err(e),
        };
        if let Err(e) = done {
            let name = at.name();
            error = error.hint(format!("Subscription {:?} is still disabled ({}). In {name:?}: {sql};", s.name, e.why));
        }
    }
    error
}

/// Takes the subscriptions out of a database that is about to be dropped, which the server refuses otherwise. They came from a dump,
/// were never enabled, and their slots belong to others.
///
/// # Errors
/// The server refuses.
pub(super) async fn unsubscribe(c: &mut PgConnection, at: &Database) -> Result<()> {
    let all = subscriptions(c, at.name()).await?;
    if all.is_empty() {
        return Ok(());
    }
    let mut inside = at.connect().await?;
    for s in all {
        let it = quote_ident(&s.name);
        run(&mut inside, &format!("ALTER SUBSCRIPTION {it} SET (slot_name = NONE)")).await?;
        run(&mut inside, &format!("DROP SUBSCRIPTION {it}")).await?;
    }
    Ok(())
}

/// The subscriptions of a database.
///
/// # Errors
/// The query fails.
pub(super) async fn restored(c: &mut PgConnection, name: &str) -> Result<Vec<Subscription>> {
    subscriptions(c, name).await
}
