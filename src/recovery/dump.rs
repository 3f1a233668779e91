//! A dump back into a database: verified whole before the server is touched, built under another name, compared with what
//! was counted when it was taken, and only then given its name.

mod leftover;
mod memory;
mod needs;
mod order;
mod part;
mod replaced;
mod select;
mod swap;
mod tool;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::watch::check_cancel;
use super::{Phase, Watch};
use crate::backup::catalog::{BackupKind, Manifest};
use crate::backup::logical;
use crate::backup::repository::Unlocked;
use crate::backup::spool::{Spool, check_space};
use crate::config::settings::Tiers;
use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::postgres::connect::{query_error, quote_ident, quote_literal, run};
use crate::postgres::inventory::{Inventory, TableRecord, measure, pin};
use crate::postgres::{Client, Database, table_needs, tiers};
use crate::process::UnixUser;

pub use needs::{Missing, missing};
pub use replaced::{Attached, attached};
pub use select::Selection;
use tool::Tool;
pub use tool::does_not_come_back;

/// What to restore and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The server, and the name the database shall have.
    pub target: Database,
    /// Replace a database of that name; it is kept under another one.
    pub overwrite: bool,
    /// Replace it even by a dump of some tables, or of definitions without rows.
    pub partial: bool,
    /// Replace it even when it replicates: its subscriptions are disabled, and with its slots they stay with the one that is kept.
    pub detach_replication: bool,
    /// What of the dump.
    pub selection: Selection,
    /// Which tables come first, as configured now; what was recorded with the dump counts where nothing is.
    pub tiers: Tiers,
    /// Processes that load at the same time.
    pub jobs: usize,
    /// Everything shall belong to the role that restores.
    pub no_owner: bool,
    /// Leave privileges out.
    pub no_privileges: bool,
    /// Make the roles that are missing, as the dump's server had them.
    pub create_roles: bool,
    /// Folder for the decrypted dump while it is loaded.
    pub scratch: PathBuf,
    /// Do not look at the free space.
    pub ignore_space: bool,
    /// Folder of the client programs, when configured.
    pub bin_dir: Option<PathBuf>,
    /// User the tools run as, when we are root and the server is reached by a socket.
    pub run_as: Option<UnixUser>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The database.
    pub database: String,
    /// Name under which the one that was there before is kept.
    pub kept: Option<String>,
    /// Sessions of others that were connected to that one and were ended.
    pub sessions_ended: usize,
    /// Subscriptions and slots that stay with that one.
    pub detached: Attached,
    /// What to do about each, one sentence each.
    pub replication: Vec<String>,
    /// Tables whose rows were counted and agree with the dump's count.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
    /// Roles that were made.
    pub roles: Vec<String>,
    /// What was left out, for people.
    pub left_out: Vec<String>,
    /// When the tables of each tier were back and counted, in milliseconds from the beginning of the load.
    pub tiers_back_ms: BTreeMap<String, u64>,
}

/// The database of the server that a restore into `target` is steered from: never the target itself.
pub fn maintenance_name(target: &Database) -> &'static str {
    if target.name() == "postgres" { "template1" } else { "postgres" }
}

/// Connects to a database of the server that is not the target itself.
///
/// # Errors
/// Not reachable.
pub async fn maintenance(target: &Database) -> Result<PgConnection> {
    let mut c = target.with_name(maintenance_name(target)).connect().await?;
    run(&mut c, "SET lock_timeout = '60s'; SET statement_timeout = 0; SET search_path = pg_catalog").await?;
    Ok(c)
}

/// Whether the server has a database of this name.
///
/// # Errors
/// The query fails.
pub async fn exists(c: &mut PgConnection, name: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)";
    sqlx::query_scalar(sql).bind(name).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

/// Restores a dump.
///
/// # Errors
/// Damage is a check failure, a lack of something on the server is refused with all that lacks, both before anything is
/// touched; whatever fails later leaves the server as it was.
pub async fn restore(
    unlocked: &Unlocked,
    manifest: &Manifest,
    request: &Request,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Restored> {
    const NOTHING: &str = "nothing was restored";
    let mut inventory = {
        let (unlocked, manifest) = (unlocked.clone(), manifest.clone());
        blocking(move || logical::inventory(&unlocked, &manifest)).await?
    };
    if inventory.only_tiers.is_empty() {
        for name in tiers::assign(&mut inventory.tables, &request.tiers) {
            watch.line(&format!("backup.tiers names {name:?}, which is not in the dump"));
        }
    }
    let client = Client::find(request.bin_dir.as_deref(), major_of(manifest.dump_version.as_deref())?)?;
    let mut c = maintenance(&request.target).await?;
    let there = exists(&mut c, request.target.name()).await?;
    check_request(request, there, manifest)?;
    if there {
        not_a_template(&mut c, request.target.name()).await?;
        attached(&mut c, request.target.name()).await?.check(request)?;
    }
    let selected = request.selection.tables(&inventory)?;
    if let Some(along) = request.selection.along(&selected) {
        watch.line(&format!("along come the rows of {along}: they are rows of what was chosen"));
    }
    let lacking = missing(&mut c, &inventory).await?;
    for line in lacking.notes() {
        watch.line(&line);
    }
    lacking.check(request)?;

    let begun = Instant::now();
    let dump = match &inventory.blocks {
        Some(blocks) if !request.selection.is_all() => {
            part::spool(unlocked, manifest, request, blocks, &selected, watch, cancel).await?
        }
        _ => spool(unlocked, manifest, request, watch, cancel).await?,
    };
    watch.line(&format!("verified in {:.1} s, loading", begun.elapsed().as_secs_f64()));
    check_cancel(cancel, NOTHING)?;
    let tool = Tool { client, request, dump: &dump, cancel };
    let list = tool.list().await?;
    let (list, left_out) = select::filter(&list, &inventory, &selected, request.selection.is_all());
    leftover::sweep(&mut c, &request.target, watch).await?;

    let mut made = Made { c: &mut c, target: &request.target, database: None, roles: Vec::new() };
    let outcome = build(&mut made, &tool, &inventory, &lacking, &list, &selected, unlocked, manifest, watch).await;
    let finished = match outcome {
        Ok((temporary, loaded)) => {
            swap::name(made.c, request, &temporary, there, &inventory, watch).await.map(|kept| {
                let kept = kept.unwrap_or_default();
                Restored {
                    database: request.target.name().to_string(),
                    sessions_ended: kept.ended,
                    kept: kept.name,
                    detached: kept.detached,
                    replication: kept.steps,
                    tables: loaded.tables,
                    rows: loaded.rows,
                    roles: made.roles.clone(),
                    left_out,
                    tiers_back_ms: loaded.tiers_back_ms,
                }
            })
        }
        Err(e) => Err(e),
    };
    match finished {
        Ok(restored) => Ok(restored),
        Err(e) => {
            let e = made.undo(of_a_superuser(of_another(of_a_part(e, manifest), request))).await;
            check_cancel(cancel, NOTHING)?;
            Err(e)
        }
    }
}

/// Adds what to do where a dump of some tables lacks what those need.
fn of_a_part(e: Error, manifest: &Manifest) -> Error {
    match &manifest.part {
        Some(part) if e.why.contains("does not exist") => {
            let part = CleanText::line(part.as_bytes());
            e.hint(format!(
                "The dump is of {part} only: what those are made from, or call, is not in it. Choose that, too (backup \
                            create --table), or take it out of a whole dump (backup restore ID --table)."
            ))
        }
        _ => e,
    }
}

/// Adds what to do where the dump holds what only a superuser may make.
fn of_a_superuser(e: Error) -> Error {
    let reserved = ["foreign-data wrapper", "permission denied to create extension", "Must be superuser"];
    if !reserved.iter().any(|w| e.why.contains(w)) {
        return e;
    }
    e.hint("Restore as a superuser (PGUSER, or the URL of --into): whatever has an owner in the dump still gets it.")
        .hint("Or leave it out: only the tables that are needed, by --table or --schema, into a new database.")
}

/// Adds what to do where what is restored belongs to roles that the one that restores may not act for.
fn of_another(e: Error, request: &Request) -> Error {
    let not_a_member = ["must be member of role", "must be able to SET ROLE", "must be owner of"];
    if request.no_owner || !not_a_member.iter().any(|w| e.why.contains(w)) {
        return e;
    }
    e.hint("Give --no-owner --no-privileges: everything then belongs to the role that restores.")
        .hint("Or restore as a superuser, or as a member of that role.")
}

/// New databases are made from templates: one that was replaced would be in every database made later.
async fn not_a_template(c: &mut PgConnection, name: &str) -> Result<()> {
    let sql = "SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = $1";
    let template: Option<bool> =
        sqlx::query_scalar(sql).bind(name).fetch_optional(c).await.map_err(|e| query_error(sql, &e))?;
    if template == Some(true) || ["template0", "template1"].contains(&name) {
        return Err(Error::refused(format!("replacing database {name:?}"))
            .why("it is a template: every database made later would be a copy of it")
            .hint("Restore into a new database."));
    }
    Ok(())
}

fn check_request(request: &Request, there: bool, manifest: &Manifest) -> Result<()> {
    let name = request.target.name();
    if there && !request.overwrite {
        return Err(Error::refused(format!("restoring into database {name:?}"))
            .why("there is one of that name")
            .hint("Name a new database; it can be renamed once you have looked at it.")
            .hint("Or give --overwrite: the old one is then kept under another name."));
    }
    let part = manifest.part.is_some() || manifest.kind == BackupKind::SchemaOnly;
    if there && (!request.selection.is_all() || part && !request.partial) {
        let of = match manifest.kind {
            BackupKind::SchemaOnly => "definitions without rows",
            _ => "a part of a dump",
        };
        let error = Error::refused(format!("replacing database {name:?} by {of}"))
            .why("everything else in it would be gone")
            .hint("Restore the part into a new database and copy from there.");
        return Err(if request.selection.is_all() {
            error.hint("Or give --partial, if that is what you want.")
        } else {
            error
        });
    }
    Ok(())
}

fn major_of(version: Option<&str>) -> Result<u32> {
    version
        .and_then(|v| v.split('.').next())
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| Error::check("the manifest does not say which pg_dump made the dump"))
}

/// What exists on the server because of us, until it is finished.
struct Made<'a> {
    c: &'a mut PgConnection,
    target: &'a Database,
    database: Option<String>,
    roles: Vec<String>,
}

impl Made<'_> {
    /// Takes everything back; what cannot be is said in the error.
    async fn undo(&mut self, mut error: Error) -> Error {
        if let Some(name) = self.database.take() {
            if let Err(e) = drop_database(self.c, &self.target.with_name(&name)).await {
                error = error.hint(format!("The unfinished database {name:?} is still there ({}); drop it.", e.why));
            }
        }
        for role in std::mem::take(&mut self.roles).iter().rev() {
            if run(self.c, &format!("DROP ROLE IF EXISTS {}", quote_ident(role))).await.is_err() {
                error = error.hint(format!("Role {role:?}, made for this restore, is still there."));
            }
        }
        error
    }
}

async fn drop_database(c: &mut PgConnection, at: &Database) -> Result<()> {
    let name = at.name();
    // What comes of it is said by the server when the database is dropped.
    let _ = replaced::unsubscribe(c, at).await;
    let end = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = ";
    run(c, &format!("{end}{}", quote_literal(name))).await?;
    // Sessions need a moment to go.
    for _ in 0..50 {
        if run(c, &format!("DROP DATABASE IF EXISTS {}", quote_ident(name))).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    run(c, &format!("DROP DATABASE IF EXISTS {}", quote_ident(name))).await
}

/// The whole dump, authenticated to its last byte as everything else of the backup is, where `pg_restore` can seek in it.
async fn spool(
    unlocked: &Unlocked,
    manifest: &Manifest,
    request: &Request,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Spool> {
    let name = logical::dump_name(&manifest.id);
    let bytes = manifest.object(&name)?.plain_bytes;
    if !request.ignore_space {
        check_space(&request.scratch, bytes, "the decrypted dump")?;
    }
    let owner = request.run_as.as_ref().map(|u| (u.uid, u.gid));
    let (unlocked, manifest, dir) = (unlocked.clone(), manifest.clone(), request.scratch.clone());
    let (send, mut progress) = tokio::sync::mpsc::channel::<u64>(1);
    let stop = cancel.clone();
    let work = blocking(move || {
        // What this restore may not need is part of the backup all the same: one that is damaged anywhere is not restored.
        for object in manifest.objects.iter().filter(|o| o.name != name) {
            logical::read_object(&unlocked, &manifest, &object.name, &mut std::io::sink(), &mut |_| {
                check_cancel(&stop, "nothing was restored")
            })?;
        }
        let mut spool = Spool::new(&dir, owner)?;
        logical::spool_dump(&unlocked, &manifest, &mut spool, &mut |n| {
            let _ = send.try_send(n);
            check_cancel(&stop, "nothing was restored")
        })?;
        Ok(spool)
    });
    let begun = Instant::now();
    let show = async {
        while let Some(done) = progress.recv().await {
            watch.phase(&Phase::bytes("verify", done, Some(bytes), begun));
        }
    };
    let (spool, ()) = tokio::join!(work, show);
    spool
}

async fn build(
    made: &mut Made<'_>,
    tool: &Tool<'_>,
    inventory: &Inventory,
    lacking: &Missing,
    list: &str,
    selected: &[&TableRecord],
    unlocked: &Unlocked,
    manifest: &Manifest,
    watch: &dyn Watch,
) -> Result<(String, Loaded)> {
    let request = tool.request;
    if request.create_roles && !lacking.roles.is_empty() {
        let (u, m) = (unlocked.clone(), manifest.clone());
        let globals = blocking(move || logical::globals(&u, &m)).await?;
        needs::create_roles(made.c, &lacking.roles, &globals, &mut made.roles, watch).await?;
    }
    let temporary = leftover::name()?;
    if !leftover::lock(made.c, &temporary).await? {
        return Err(Error::state("the name of the unfinished database is taken"));
    }
    swap::create(made.c, &temporary, inventory).await?;
    made.database = Some(temporary.clone());
    let at = request.target.with_name(&temporary);
    if manifest.part.is_some() && inventory.only_tiers.is_empty() {
        swap::schemas(&mut at.connect().await?, inventory, request).await?;
    }
    if !inventory.needs.is_empty() {
        needed(tool, &at, inventory, lacking, unlocked, manifest, watch).await?;
    }
    let lent = memory::lend(made.c, &temporary, request.jobs).await?;
    let loaded = load(tool, &at, list, &lacking.tablespaces, selected, manifest.kind, watch).await?;
    if lent {
        memory::take_back(made.c, &temporary).await?;
    }
    swap::properties(made.c, &temporary, inventory, request).await?;
    Ok((temporary, loaded))
}

/// Makes the types, functions and extensions that the tables of a part need, before them.
async fn needed(
    tool: &Tool<'_>,
    at: &Database,
    inventory: &Inventory,
    lacking: &Missing,
    unlocked: &Unlocked,
    manifest: &Manifest,
    watch: &dyn Watch,
) -> Result<()> {
    let request = tool.request;
    let owner = request.run_as.as_ref().map(|u| (u.uid, u.gid));
    let (u, m, dir) = (unlocked.clone(), manifest.clone(), request.scratch.clone());
    let archive = blocking(move || {
        let mut spool = Spool::new(&dir, owner)?;
        logical::read_object(&u, &m, &logical::definitions_name(&m.id), &mut spool, &mut |_| Ok(()))?;
        Ok(spool)
    })
    .await?;
    let tool = Tool { client: tool.client.clone(), request, dump: &archive, cancel: tool.cancel };
    let list = tool.list().await?;
    let wanted = |line: &&str| {
        order::entry(line)
            .is_some_and(|(class, oid, _)| inventory.needs.iter().any(|n| n.class == class && n.oid == oid))
    };
    let chosen: Vec<&str> = list.lines().filter(wanted).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    watch.line(&format!("making {} definitions that the tables need", chosen.len()));
    table_needs::not_followed(&inventory.needs).iter().for_each(|line| watch.line(line));
    tool.load(at, &(chosen.join("\n") + "\n"), &lacking.tablespaces, watch).await
}

/// What was loaded and counted.
#[derive(Debug, Default)]
struct Loaded {
    tables: usize,
    rows: u64,
    tiers_back_ms: BTreeMap<String, u64>,
}

/// Loads the list, the tables that come first before the others, and counts what is back after each part: whoever waits for
/// those can read them while the rest is loaded.
async fn load(
    tool: &Tool<'_>,
    at: &Database,
    list: &str,
    tablespaces: &[String],
    selected: &[&TableRecord],
    kind: BackupKind,
    watch: &dyn Watch,
) -> Result<Loaded> {
    let (begun, mut out) = (Instant::now(), Loaded::default());
    let parts = match kind {
        BackupKind::SchemaOnly => vec![order::Part { tier: None, list: list.into(), tables: Default::default() }],
        _ => order::parts(list, selected),
    };
    for part in parts {
        if let Some(tier) = part.tier {
            let count = selected.iter().filter(|t| t.countable() && part.tables.contains(&t.oid)).count();
            watch.line(&format!("{tier}: loading {count} tables first"));
        }
        let loading = Instant::now();
        tool.load(at, &part.list, tablespaces, watch).await?;
        watch.line(&format!("loaded in {:.1} s, counting", loading.elapsed().as_secs_f64()));
        check_cancel(tool.cancel, "nothing was restored")?;
        if kind == BackupKind::SchemaOnly {
            continue;
        }
        let back: Vec<&TableRecord> = selected.iter().copied().filter(|t| part.tables.contains(&t.oid)).collect();
        let (tables, rows) = compare(at, &back, watch).await?;
        out.tables += tables;
        out.rows += rows;
        if let Some(tier) = part.tier {
            let took = begun.elapsed();
            out.tiers_back_ms.insert(tier.into(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            let name = at.name();
            watch.line(&format!(
                "{tier}: all back, {tables} tables, {rows} rows counted, after {:.1} s; to be read in database {name:?} until the rest is there",
                took.as_secs_f64()
            ));
        }
    }
    Ok(out)
}

/// Counts every table again: the rows of the dump, no fewer and no more. Gathers statistics of all that is loaded at the same
/// time: without them the first queries of an application would be planned blindly.
async fn compare(at: &Database, selected: &[&TableRecord], watch: &dyn Watch) -> Result<(usize, u64)> {
    let statistics = async { run(&mut at.connect().await?, "SET statement_timeout = 0; ANALYZE").await };
    let (counted, gathered) = tokio::join!(count(at, selected, watch), statistics);
    let counted = counted?;
    gathered.map(|()| counted)
}

async fn count(at: &Database, selected: &[&TableRecord], watch: &dyn Watch) -> Result<(usize, u64)> {
    let mut c = at.connect().await?;
    pin(&mut c).await?;
    let (mut tables, mut rows, mut fingerprints) = (0, 0, 0);
    for (i, table) in selected.iter().enumerate() {
        watch.phase(&Phase {
            name: "count",
            done: i as u64,
            total: Some(selected.len() as u64),
            unit: "tables",
            text: CleanText::line(table.name.as_bytes()).to_string(),
            ..Phase::default()
        });
        let Some(expected) = table.rows else { continue };
        let (got, sum) = measure(&mut c, table, table.fingerprint.is_some()).await?;
        if got != expected {
            return Err(Error::check(format!("table {} has {got} rows after the restore", table.sql()))
                .why(format!("{expected} were counted when the dump was taken")));
        }
        if sum != table.fingerprint {
            return Err(Error::check(format!("table {} has other rows after the restore", table.sql()))
                .why("their fingerprint differs from the one taken with the dump"));
        }
        fingerprints += usize::from(sum.is_some());
        tables += 1;
        rows += got;
    }
    if fingerprints > 0 {
        watch.line(&format!("{fingerprints} tables have the fingerprints taken with the dump"));
    }
    Ok((tables, rows))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.state(|| "the work broke off".into())?
}
