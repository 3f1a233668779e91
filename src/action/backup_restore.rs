//! `breakglass backup restore ID --into TARGET`: a dump into a database, a base backup into a folder. Never over something
//! that is there, unless asked to and then keeping it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{ArgAction, Args as _, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::latest::{Wanted, latest, warning};
use super::reach::{self, Reporter};
use super::target::{blocking, parse_args};
use super::{Action, Ctx, Done, Preview, Spec};
use crate::backup::base::{RestoreOptions, needed_log, restore_base, stand_alone, verify_backup};
use crate::backup::catalog::{BackupKind, Manifest};
use crate::backup::repository::Unlocked;
use crate::backup::spool::check_space;
use crate::error::{Context, Error, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::Identity;
use crate::model::{CleanText, Secret};
use crate::postgres::connect::{query_error, quote_ident};
use crate::postgres::{Database, user};
use crate::recovery::dump::{self, Request, Selection};
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// The action.
pub struct BackupRestore;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// The backup, as `backup list` names it; `latest` for the newest
    #[arg(value_name = "ID")]
    id: String,
    /// Where to: a new database's name or postgres:// URL for a dump, a new folder for the other kinds
    #[arg(long, value_name = "TARGET")]
    into: String,
    /// Replace a database that is there; the old one is kept under another name
    #[arg(long, action = ArgAction::SetTrue)]
    overwrite: bool,
    /// Replace it although the dump is of a database of another name
    #[arg(long, action = ArgAction::SetTrue, requires = "overwrite")]
    other_database: bool,
    /// Replace it although the backup named holds a part of a database alone: some tables, or definitions without rows
    #[arg(long, action = ArgAction::SetTrue, requires = "overwrite")]
    partial: bool,
    /// Replace it although it subscribes or is subscribed to: its subscriptions are disabled, and with its slots stay with the old one
    #[arg(long, action = ArgAction::SetTrue, requires = "overwrite")]
    detach_replication: bool,
    /// Only the rows of this table of a dump, with its partitions and what inherits from it; may be repeated
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// Only the rows of this schema's tables of a dump, with their partitions elsewhere; may be repeated
    #[arg(long, value_name = "NAME")]
    schema: Vec<String>,
    /// Only the rows of a tier's tables: critical, important; may be repeated
    #[arg(long, value_name = "TIER")]
    tier: Vec<String>,
    /// Only this file, or folder with all in it, of a backup of files; read without the rest; may be repeated
    #[arg(long, value_name = "PATH")]
    file: Vec<String>,
    /// Processes that load at the same time; by default one per core, at most four
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// Everything shall belong to the role that restores
    #[arg(long, action = ArgAction::SetTrue)]
    no_owner: bool,
    /// Leave privileges out
    #[arg(long, action = ArgAction::SetTrue)]
    no_privileges: bool,
    /// Make roles that are missing, as the dump's server had them
    #[arg(long, action = ArgAction::SetTrue)]
    create_roles: bool,
    /// Folder for the decrypted dump while it is loaded; the system's folder for temporary files by default
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Go on although the disk may be too small
    #[arg(long, action = ArgAction::SetTrue)]
    ignore_space: bool,
}

impl Action for BackupRestore {
    fn spec(&self) -> Spec {
        Spec {
            name: "backup restore",
            about: "Restore a backup into a new database or folder, verified before it is touched",
            risk: Risk::Destroy,
            fallback: "The objects open with tests/container_reader.py and the key; then pg_restore -d NEWDB for a dump, tar -x \
                       into an empty data directory for a base backup.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("restore"))
    }
    fn risk(&self, args: &[String]) -> Risk {
        // What is there is only ever touched when that is asked for.
        if args.iter().any(|a| a == "--overwrite") { Risk::Destroy } else { Risk::Change }
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let (_, manifest) = find(ctx, &args).await?;
            fits(&manifest, &args)?;
            let mut lines = vec![format!(
                "{} backup {} of {}, {} MB",
                manifest.kind.word(),
                manifest.id,
                manifest.finished_at.date_hms(),
                manifest.plain_bytes() / 1_000_000
            )];
            let mut target = None;
            if is_dump(&manifest) {
                let at = database(ctx, &args.into)?;
                let mut c = dump::maintenance(&at).await?;
                let there = dump::exists(&mut c, at.name()).await?;
                lines.push(match (there, args.overwrite) {
                    (false, _) => format!("makes {at}"),
                    (true, true) => format!("replaces {at}; the old one is kept under another name"),
                    (true, false) => format!("refused: {at} is there"),
                });
                if there && args.overwrite {
                    let sql = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = $1";
                    let n: i64 = sqlx::query_scalar(sql)
                        .bind(at.name())
                        .fetch_one(&mut c)
                        .await
                        .map_err(|e| query_error(sql, &e))?;
                    lines.push(format!("ends every session that is connected to it then; now there are {n}"));
                    let of_its_own = dump::attached(&mut c, at.name()).await?;
                    lines.extend(of_its_own.lines().iter().map(|l| CleanText::text(l).as_str().to_string()));
                }
                target = Some(match there {
                    true => identity(&at).await?,
                    false => Identity { database: at.name().into(), ..crate::postgres::identity(&mut c, &at).await? },
                });
            } else {
                lines.push(format!("into the new folder {}", args.into));
            }
            lines.push("every byte of the backup is verified first".into());
            Ok(Preview { lines, target, facts: Vec::new() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let (unlocked, manifest) = find(ctx, &args).await?;
            fits(&manifest, &args)?;
            match manifest.kind {
                BackupKind::Logical | BackupKind::SchemaOnly => restore_dump(ctx, &unlocked, &manifest, &args).await,
                BackupKind::Physical => restore_physical(ctx, unlocked, manifest, &args).await,
                BackupKind::Files => {
                    super::backup_files::restore(ctx, unlocked, manifest, &args.into, &args.file).await
                }
            }
        })
    }
}

fn is_dump(manifest: &Manifest) -> bool {
    matches!(manifest.kind, BackupKind::Logical | BackupKind::SchemaOnly)
}

/// Whether what was asked for is something that a backup of this kind can do.
fn fits(manifest: &Manifest, args: &Args) -> Result<()> {
    let dump = is_dump(manifest);
    let of_others = [
        ("--file", !args.file.is_empty() && manifest.kind != BackupKind::Files),
        ("--table", !args.table.is_empty() && !dump),
        ("--schema", !args.schema.is_empty() && !dump),
        ("--tier", !args.tier.is_empty() && !dump),
        ("--overwrite", args.overwrite && !dump),
    ];
    let given: Vec<&str> = of_others.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if given.is_empty() {
        return Ok(());
    }
    let what = format!("{} with backup {}, which is {}", given.join(", "), manifest.id, manifest.kind.word());
    let error = Error::usage(what);
    Err(match manifest.kind {
        BackupKind::Logical | BackupKind::SchemaOnly => error.hint("Of a dump: --table, --schema or --tier."),
        BackupKind::Physical => error
            .why("a base backup is restored whole, into a new folder")
            .hint("For one table: restore it, start it, and copy from there; or use a dump."),
        BackupKind::Files => error
            .why("a backup of files is restored into a new folder, whole or by --file")
            .hint("Some of it: --file PATH. For tables use a dump: breakglass backup list"),
    })
}

async fn find(ctx: &Ctx, args: &Args) -> Result<(Unlocked, Manifest)> {
    let (ctx, args) = (ctx.clone(), args.clone());
    blocking(move || {
        let unlocked = reach::unlocked(&ctx)?;
        let catalog = reach::catalog(&ctx, &unlocked)?;
        // What is restored authenticates by itself; that newer ones may be missing has to be known all the same.
        if let Some(e) = reach::rolled_back(&ctx, &unlocked, &catalog) {
            ctx.out.line(&format!("WARNING: {e}"));
        }
        for line in catalog.lost_lines() {
            ctx.out.line(&format!("WARNING: {line}"));
        }
        let backup = match args.id.as_str() {
            "latest" => {
                let source = reach::source(&ctx).ok();
                let wanted = Wanted {
                    database: source.as_ref().map(Database::name),
                    into: &args.into,
                    overwrite: args.overwrite,
                    other_database: args.other_database,
                    files: !args.file.is_empty(),
                };
                let (backup, lines) = latest(&catalog, &wanted)?;
                lines.iter().for_each(|line| ctx.out.line(CleanText::text(line).as_str()));
                backup
            }
            id => {
                let backup = catalog.find(id)?;
                warning(backup).iter().for_each(|line| ctx.out.line(CleanText::text(line).as_str()));
                backup
            }
        };
        let manifest = backup.manifest.clone();
        Ok((unlocked, manifest))
    })
    .await
}

/// The database a name or URL means. A name is one on the server of the settings.
fn database(ctx: &Ctx, into: &str) -> Result<Database> {
    if !into.contains("://") {
        if into.is_empty() || into.len() > 63 {
            return Err(
                Error::usage(format!("{into:?} is not a database's name")).why("PostgreSQL takes one to 63 bytes")
            );
        }
        return Ok(reach::source(ctx)?.with_name(into));
    }
    let at = Database::from_url(&Secret::new(into))?;
    if at.password().is_some() {
        return Err(Error::usage("--into holds a password")
            .why("everybody on this machine can read the arguments of a command")
            .hint("Leave it out and set PGPASSWORD."));
    }
    Ok(at)
}

async fn identity(at: &Database) -> Result<Identity> {
    let mut c = at.connect().await?;
    crate::postgres::identity(&mut c, at).await
}

async fn restore_dump(ctx: &Ctx, unlocked: &Unlocked, manifest: &Manifest, args: &Args) -> Result<Done> {
    let target = database(ctx, &args.into)?;
    let mut facts = Vec::new();
    if args.overwrite && dump::exists(&mut dump::maintenance(&target).await?, target.name()).await? {
        if manifest.database.as_deref() != Some(target.name()) && !args.other_database {
            let of = manifest.database.as_deref().unwrap_or("?");
            return Err(Error::refused(format!("replacing database {:?} by a dump of {of:?}", target.name()))
                .why("the backup is of another database")
                .hint("Check the id; or give --other-database if that is what you want."));
        }
        // Seen again now: between the preview and this run it may have become another one.
        let seen = identity(&target).await?;
        if ctx.confirmed.as_deref() != Some(target.name()) {
            return Err(Error::refused(format!("replacing {target}"))
                .why("its name was not typed")
                .hint(format!("Give --confirm {:?} once you are sure.", target.name())));
        }
        facts.push(Event::TargetSeen { role: "replaced".into(), identity: seen });
    }
    let run_as = if target.is_socket() { user::for_server(ctx.settings.run_as.as_deref())? } else { None };
    let request = Request {
        target: target.clone(),
        overwrite: args.overwrite,
        partial: args.partial,
        detach_replication: args.detach_replication,
        selection: Selection { tables: args.table.clone(), schemas: args.schema.clone(), tiers: args.tier.clone() },
        tiers: ctx.settings.tiers.clone(),
        jobs: args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get().min(4))),
        no_owner: args.no_owner,
        no_privileges: args.no_privileges,
        create_roles: args.create_roles,
        scratch: args.scratch.clone().unwrap_or_else(|| super::target::scratch(ctx)),
        ignore_space: args.ignore_space,
        bin_dir: ctx.settings.bin_dir.clone(),
        run_as,
    };
    let begun = Instant::now();
    let reporter = Reporter::new(&*ctx.out);
    let done = dump::restore(unlocked, manifest, &request, &reporter, &ctx.cancel).await?;
    for what in &done.left_out {
        ctx.out.line(&format!("left out: {what}"));
    }
    let way_back = done.kept.as_ref().map(|old| way_back(target.name(), old));
    if let Some(sql) = &way_back {
        let word = if done.sessions_ended == 1 { "session that was" } else { "sessions that were" };
        ctx.out.line(&format!("ended {} {word} connected to the old database", done.sessions_ended));
        let from = dump::maintenance_name(&target);
        ctx.out.line(&format!("the way back, in database {from}, with nobody connected to either: {sql}"));
    }
    for line in &done.replication {
        ctx.out.line(CleanText::text(line).as_str());
    }
    let kept = done.kept.as_ref().map_or_else(String::new, |k| format!("; the old one is kept as {k:?}"));
    let summary = format!(
        "restored {} into database {:?} in {:.1} s: {} rows in {} tables counted{kept}",
        manifest.id,
        done.database,
        begun.elapsed().as_secs_f64(),
        done.rows,
        done.tables
    );
    let mut out = Done::ok(CleanText::text(&summary).as_str())
        .json(json!({"backup": manifest.id, "restored": done, "way_back": way_back}));
    out.facts = facts;
    Ok(out)
}

/// What gives the database that was replaced its name again.
fn way_back(name: &str, old: &str) -> String {
    // Names have 63 bytes at most; of the two, the end tells them apart.
    let aside = old.replacen("_before_", "_undone_", 1);
    let (name, old, aside) = (quote_ident(name), quote_ident(old), quote_ident(&aside));
    format!("ALTER DATABASE {name} RENAME TO {aside}; ALTER DATABASE {old} RENAME TO {name};")
}

/// A base backup as a data directory, with the log it needs to become consistent: it starts as it is.
async fn restore_physical(ctx: &Ctx, unlocked: Unlocked, manifest: Manifest, args: &Args) -> Result<Done> {
    let dest = std::path::absolute(&args.into).usage(|| format!("{:?} is not a folder", args.into))?;
    let owner = user::for_server(ctx.settings.run_as.as_deref())?.map(|u| (u.uid, u.gid));
    let (out, cancel, ignore_space, shown) = (ctx.out.clone(), ctx.cancel.clone(), args.ignore_space, dest.clone());
    let id = manifest.id.clone();
    let begun = Instant::now();
    let segments = blocking(move || {
        let reporter = Reporter::new(&*out);
        let bytes = manifest.plain_bytes();
        if !ignore_space {
            check_space(dest.parent().unwrap_or(Path::new("/")), bytes, "the data directory")?;
        }
        let at = Instant::now();
        verify_backup(&unlocked, &manifest.id, &mut |n| {
            reporter.phase(&Phase::bytes("verify", n, Some(bytes), at));
            check_cancel(&cancel, "nothing was restored")
        })?;
        let at = Instant::now();
        let options = RestoreOptions { owner, threads: 2 };
        restore_base(&unlocked, &manifest.id, &dest, &options, &mut |n| {
            reporter.phase(&Phase::bytes("files", n, Some(bytes), at));
            check_cancel(&cancel, "nothing was restored")
        })?;
        let log = needed_log(&unlocked, &manifest, &dest, owner);
        log.and_then(|segments| stand_alone(&dest, owner).map(|()| segments)).inspect_err(|_| {
            // Without its log it would not start: better nothing than something that looks restored.
            let _ = std::fs::remove_dir_all(&dest);
        })
    })
    .await?;
    ctx.out.line(
        "archive_mode is off in it: it would archive into the repository of the server it is a copy of. To turn it on, remove \
         the last lines of its postgresql.auto.conf, once its archive_command names a repository of its own.",
    );
    let summary = format!(
        "restored {id} into {:?} in {:.1} s, with {segments} segments of the log; it starts as it was at the end of the backup, and archives nothing",
        shown.display(),
        begun.elapsed().as_secs_f64()
    );
    Ok(Done::ok(summary).json(json!({"backup": id, "data_directory": shown, "segments": segments})))
}
