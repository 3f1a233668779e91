//! What a dump needs and a server does not have, found before anything is made.

use serde::Serialize;
use sqlx::postgres::PgConnection;

use super::Request;
use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::postgres::inventory::Inventory;
use crate::recovery::Watch;

/// What is missing, and what is different.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Roles.
    pub roles: Vec<String>,
    /// Extensions that cannot be created.
    pub extensions: Vec<String>,
    /// Collations of columns, and the locale of the database.
    pub collations: Vec<String>,
    /// Tablespaces; their tables go to the default one.
    pub tablespaces: Vec<String>,
    /// The server is older than the one the dump is from.
    pub older: Option<String>,
    /// The role may not create databases.
    pub not_allowed: Option<String>,
    /// Extensions of which another version would be created: name, theirs, ours.
    pub other_versions: Vec<(String, String, String)>,
}

impl Missing {
    /// What is no obstacle and should be known.
    pub fn notes(&self) -> Vec<String> {
        let mut out: Vec<String> = self
            .other_versions
            .iter()
            .map(|(name, theirs, ours)| format!("extension {name:?} was {theirs} and will be {ours}"))
            .collect();
        if !self.tablespaces.is_empty() {
            out.push(format!("no tablespace {}: all goes to the default one", quoted(&self.tablespaces)));
        }
        out
    }

    /// Refuses when something is missing that the request does not do without.
    ///
    /// # Errors
    /// Refused, naming all of it and each override.
    pub fn check(&self, request: &Request) -> Result<()> {
        let roles =
            if request.create_roles || (request.no_owner && request.no_privileges) { &[][..] } else { &self.roles };
        let mut lacking = Vec::new();
        for (what, names) in [("role", roles), ("extension", &self.extensions), ("collation", &self.collations)] {
            if !names.is_empty() {
                lacking.push(format!("{what} {}", quoted(names)));
            }
        }
        lacking.extend(self.older.clone());
        lacking.extend(self.not_allowed.clone());
        if lacking.is_empty() {
            return Ok(());
        }
        let mut error = Error::refused("the server lacks what the dump needs").why(lacking.join("; "));
        if !roles.is_empty() {
            error = error
                .hint("Give --create-roles to make the roles as the dump's server had them.")
                .hint("Or give --no-owner --no-privileges: everything then belongs to the role that restores.");
        }
        if !self.extensions.is_empty() {
            error = error.hint("Install the extensions' packages on the server.");
        }
        if !self.collations.is_empty() {
            error = error.hint("Install the locales on the server and run pg_import_system_collations there.");
        }
        Err(error.hint("Nothing was touched."))
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ")
}

/// Compares an inventory with a server.
///
/// # Errors
/// A query fails.
pub async fn missing(c: &mut PgConnection, inventory: &Inventory) -> Result<Missing> {
    let mut out = Missing { roles: absent(c, ROLES, &inventory.roles).await?, ..Missing::default() };
    let names: Vec<String> = inventory.extensions.iter().map(|e| e.name.clone()).collect();
    out.extensions = absent(c, EXTENSIONS, &names).await?;
    for e in inventory.extensions.iter().filter(|e| !out.extensions.contains(&e.name)) {
        let sql = "SELECT default_version::text FROM pg_catalog.pg_available_extensions WHERE name = $1";
        let ours: Option<String> =
            sqlx::query_scalar(sql).bind(&e.name).fetch_one(&mut *c).await.map_err(|x| query_error(sql, &x))?;
        if let Some(ours) = ours.filter(|v| *v != e.version) {
            out.other_versions.push((e.name.clone(), e.version.clone(), ours));
        }
    }
    let names: Vec<String> = inventory.collations.iter().map(|e| e.name.clone()).collect();
    out.collations = absent(c, COLLATIONS, &names).await?;
    let d = &inventory.database;
    if d.provider == "c" {
        for locale in [&d.collate, &d.ctype] {
            if !out.collations.contains(locale) && !has_locale(c, locale).await? {
                out.collations.push(locale.clone());
            }
        }
    }
    out.tablespaces = absent(c, TABLESPACES, &inventory.tablespaces).await?;
    let sql = "SELECT current_setting('server_version_num')::int8, r.rolsuper OR r.rolcreatedb, r.rolname::text \
               FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let (version, may, role): (i64, bool, String) =
        sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let (ours, theirs) = (u32::try_from(version).unwrap_or(0) / 10_000, inventory.server_version / 10_000);
    if ours < theirs {
        out.older = Some(format!("the server is version {ours}, the dump is from version {theirs}"));
    }
    if !may {
        out.not_allowed = Some(format!("role {role:?} may not create databases"));
    }
    Ok(out)
}

const ROLES: &str = "SELECT rolname::text FROM pg_catalog.pg_roles";
const EXTENSIONS: &str = "SELECT name::text FROM pg_catalog.pg_available_extensions";
const COLLATIONS: &str =
    "SELECT collname::text FROM pg_catalog.pg_collation WHERE collnamespace = 'pg_catalog'::regnamespace";
const TABLESPACES: &str = "SELECT spcname::text FROM pg_catalog.pg_tablespace";

async fn absent(c: &mut PgConnection, sql: &str, names: &[String]) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let there: Vec<String> = sqlx::query_scalar(sql).fetch_all(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(names.iter().filter(|n| !there.contains(n)).cloned().collect())
}

/// Whether the server knows a locale of the C library, whatever the spelling of its encoding.
async fn has_locale(c: &mut PgConnection, locale: &str) -> Result<bool> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "");
    if matches!(plain(locale).as_str(), "c" | "posix" | "") {
        return Ok(true);
    }
    let sql = "SELECT coalesce(collcollate, '')::text FROM pg_catalog.pg_collation WHERE collprovider = 'c' \
               UNION SELECT datcollate::text FROM pg_catalog.pg_database";
    let there: Vec<String> = sqlx::query_scalar(sql).fetch_all(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(there.iter().any(|t| plain(t) == plain(locale)))
}

/// Makes the missing roles from the lines of `pg_dumpall --globals-only` that are about them. Each one made is noted in
/// `made`, so that it can be taken back.
///
/// # Errors
/// A role cannot be made.
pub async fn create_roles(
    c: &mut PgConnection,
    missing: &[String],
    globals: &str,
    made: &mut Vec<String>,
    watch: &dyn Watch,
) -> Result<()> {
    for role in missing {
        let name = quote_ident(role);
        let about = [format!("ALTER ROLE {name} WITH "), format!("ALTER ROLE {name} SET ")];
        if !globals.lines().any(|l| l == format!("CREATE ROLE {name};")) {
            return Err(Error::check(format!("the dump does not say how role {role:?} was made"))
                .hint("Create it, or give --no-owner --no-privileges."));
        }
        run(c, &format!("CREATE ROLE {name}")).await?;
        made.push(role.clone());
        for line in globals.lines().filter(|l| about.iter().any(|a| l.starts_with(a.as_str()))) {
            if let Err(e) = run(c, line).await {
                // The line may hold a password's hash: it is not shown.
                return Err(Error::target(format!("role {role:?} cannot be set as it was")).why(e.why));
            }
        }
        watch.line(&format!("made role {role:?}"));
    }
    for line in globals.lines().filter(|l| l.starts_with("GRANT \"")) {
        let ours = missing.iter().any(|r| {
            let name = quote_ident(r);
            line.starts_with(&format!("GRANT {name} TO ")) || line.contains(&format!(" TO {name}"))
        });
        if ours && let Err(e) = run(c, line).await {
            watch.line(&format!("a membership was not restored: {}", e.why));
        }
    }
    Ok(())
}
