//! Making a database like the one that was dumped, and giving it its name: in one transaction when another has that name.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::replaced::{self, Attached};
use super::{Request, leftover};
use crate::error::Result;
use crate::model::Time;
use crate::postgres::Database;
use crate::postgres::connect::{query_error, quote_ident, quote_literal, run};
use crate::postgres::inventory::Inventory;
use crate::recovery::Watch;

/// Settings whose stored value is a list of quoted names already.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Creates the database with the dumped one's encoding and locale, and with the mark of what is not finished.
///
/// # Errors
/// The server refuses.
pub async fn create(c: &mut PgConnection, name: &str, inventory: &Inventory) -> Result<()> {
    let d = &inventory.database;
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 CONNECTION LIMIT {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_ident(name),
        leftover::mark(name),
        quote_literal(&d.encoding),
        quote_literal(&d.collate),
        quote_literal(&d.ctype)
    );
    match (d.provider.as_str(), &d.locale) {
        ("i", Some(locale)) => sql.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", quote_literal(locale))),
        ("b", Some(locale)) => {
            sql.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", quote_literal(locale)))
        }
        _ => {}
    }
    run(c, &sql).await
}

/// Makes the schemas of the tables of a dump that does not make them itself, as one of some tables does not.
///
/// # Errors
/// The server refuses one of them.
pub async fn schemas(c: &mut PgConnection, inventory: &Inventory, request: &Request) -> Result<()> {
    let known = |name: &str| inventory.schemas.iter().any(|s| s.name == name);
    // A dump from before they were written down names them with its tables alone.
    let unnamed: BTreeSet<&str> =
        inventory.tables.iter().map(|t| t.schema.as_str()).filter(|s| *s != "public" && !known(s)).collect();
    let mut all: Vec<String> =
        unnamed.iter().map(|name| format!("CREATE SCHEMA IF NOT EXISTS {}", quote_ident(name))).collect();
    for s in &inventory.schemas {
        let it = quote_ident(&s.name);
        all.push(format!("CREATE SCHEMA IF NOT EXISTS {it}"));
        if !request.no_owner {
            all.push(format!("ALTER SCHEMA {it} OWNER TO {}", quote_ident(&s.owner)));
        }
        for grant in s.acl.iter().filter(|_| !request.no_privileges) {
            all.push(format!("GRANT {} ON SCHEMA {it} {}", grant.privilege, grant.to()));
        }
    }
    for sql in all {
        run(c, &sql).await?;
    }
    Ok(())
}

/// Owner, privileges, settings and comment of the database itself, which `pg_restore` leaves out. Its limit comes with its name.
///
/// # Errors
/// The server refuses one of them.
pub async fn properties(c: &mut PgConnection, name: &str, inventory: &Inventory, request: &Request) -> Result<()> {
    let d = &inventory.database;
    let it = quote_ident(name);
    let mut all = Vec::new();
    if !request.no_owner {
        all.push(format!("ALTER DATABASE {it} OWNER TO {}", quote_ident(&d.owner)));
    }
    if d.has_acl && !request.no_privileges {
        all.push(format!("REVOKE ALL ON DATABASE {it} FROM PUBLIC"));
        all.push(format!("REVOKE ALL ON DATABASE {it} FROM {}", quote_ident(&d.owner)));
        for grant in &d.acl {
            all.push(format!("GRANT {} ON DATABASE {it} {}", grant.privilege, grant.to()));
        }
    }
    for s in &d.settings {
        // Of a role that is not there when privileges are left out.
        if s.role.is_some() && request.no_privileges {
            continue;
        }
        let value = if LISTS.contains(&s.name.as_str()) { s.value.clone() } else { quote_literal(&s.value) };
        let whose = match &s.role {
            Some(role) => format!("ROLE {} IN DATABASE {it}", quote_ident(role)),
            None => format!("DATABASE {it}"),
        };
        let setting: Vec<String> = s.name.split('.').map(quote_ident).collect();
        all.push(format!("ALTER {whose} SET {} TO {value}", setting.join(".")));
    }
    if let Some(comment) = &d.comment {
        all.push(format!("COMMENT ON DATABASE {it} IS {}", quote_literal(comment)));
    }
    for sql in all {
        run(c, &sql).await?;
    }
    Ok(())
}

/// What became of the database that was replaced, where there was one.
#[derive(Default)]
pub struct Kept {
    /// What it is called now.
    pub name: Option<String>,
    /// Sessions of others that were connected to it and were ended.
    pub ended: usize,
    /// What belongs to it and stayed with it.
    pub detached: Attached,
    /// What to do about that.
    pub steps: Vec<String>,
}

/// Gives the finished database its name, and the limit of connections that it had instead of its mark. One that has the name is
/// renamed in the same transaction; returns what became of that.
///
/// # Errors
/// The name was taken meanwhile, or sessions do not go; everything then has the name it had.
pub async fn name(
    c: &mut PgConnection,
    request: &Request,
    temporary: &str,
    there: bool,
    inventory: &Inventory,
    watch: &dyn Watch,
) -> Result<Option<Kept>> {
    let target = &request.target;
    let (wanted, it) = (quote_ident(target.name()), quote_ident(temporary));
    let limit = inventory.database.connection_limit.max(-1);
    let finish = format!("ALTER DATABASE {it} CONNECTION LIMIT {limit}; ALTER DATABASE {it} RENAME TO {wanted}");
    if !there {
        run(c, &finish).await?;
        return Ok(None);
    }
    let stamp = Time::from_system(std::time::SystemTime::now()).date_hms().replace([' ', ':', '-'], "");
    // Names have 63 bytes at most; the server would cut a longer one, and with it what tells it apart.
    let mut short = target.name();
    while short.len() > 63 - 8 - stamp.len() {
        short = &short[..short.char_indices().next_back().map_or(0, |(i, _)| i)];
    }
    let kept = format!("{short}_before_{stamp}");
    // Seen again: loading may have taken hours.
    let detached = replaced::attached(c, target.name()).await?;
    detached.check(request)?;
    replaced::disable(target, &detached, watch).await?;
    let ended = match rename(c, target, &kept, &finish).await {
        Ok(ended) => ended,
        Err(e) => return Err(replaced::enable(target, &detached, e).await),
    };
    // It has its name: what cannot be asked now is no failure of the restore.
    let restored = replaced::restored(c, target.name()).await.unwrap_or_default();
    let steps = detached.steps(target.name(), &kept, &restored);
    Ok(Some(Kept { name: Some(kept), ended, detached, steps }))
}

/// Renames the one that has the name to `kept`, and runs `finish` in the same transaction; returns how many sessions were ended.
async fn rename(c: &mut PgConnection, target: &Database, kept: &str, finish: &str) -> Result<usize> {
    let wanted = quote_ident(target.name());
    // The rename holds the database's lock while it waits for sessions to go, so that none can come anew; they are ended
    // from a second connection meanwhile. Whatever happens to us, the transaction is done wholly or not at all.
    let mut other = super::maintenance(target).await?;
    // In the list of columns: as a condition it might be asked before the others, and end whoever is there.
    let end = format!(
        "SELECT pid, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = {} \
         AND pid <> pg_catalog.pg_backend_pid()",
        quote_literal(target.name())
    );
    let mut ended: HashSet<i32> = HashSet::new();
    run(c, "BEGIN").await?;
    let rename = format!("ALTER DATABASE {wanted} RENAME TO {}", quote_ident(kept));
    let renamed = {
        let renaming = run(c, &rename);
        tokio::pin!(renaming);
        loop {
            tokio::select! {
                done = &mut renaming => break done,
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    let told: Vec<(i32, bool)> =
                        sqlx::query_as(&end).fetch_all(&mut other).await.map_err(|e| query_error(&end, &e))?;
                    ended.extend(told.into_iter().filter(|(_, gone)| *gone).map(|(pid, _)| pid));
                }
            }
        }
    };
    let all = match renamed {
        Ok(()) => run(c, &format!("{finish}; COMMIT")).await,
        Err(e) => Err(e),
    };
    if let Err(e) = all {
        // The connection may be gone; the server then rolls back by itself.
        let _ = run(c, "ROLLBACK").await;
        return Err(e);
    }
    Ok(ended.len())
}
