//! `pitr partial`: tables, or their lost rows, out of the recovered instance into the live database; and back out again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as _, Command, ValueEnum};
use futures::future::BoxFuture;
use sqlx::postgres::PgConnection;

use super::pitr_partial_said::{left_words, lines, missing_values, undo_lines, undone_text};
use super::target::{Follow, blocking, database_name, expected, now, parse_args, unlock, which_shadow};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Context, Error, Result};
use crate::model::event::Event;
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::model::target::{Identity, RecoveryTarget};
use crate::postgres::connect::run as sql;
use crate::postgres::identity;
use crate::recovery::partial::undo::{Record, undo};
use crate::recovery::partial::{self, Definitions, Options, Part, apply, open};
use crate::recovery::shadow::Shadow;
use crate::recovery::verify;
use crate::recovery::wal_locate::archive;

/// The action `pitr partial`.
pub struct Partial;

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// Rows that the shadow has and the live table has not
    Lost,
    /// Rows that the damaging transactions wrote last: their former values
    Damaged,
    /// Both
    All,
}

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Table to bring back, schema.table or table; as often as needed
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Every table that the damaging transactions touched, as they were found last
    #[arg(long)]
    touched: bool,
    /// Which rows
    #[arg(long, value_enum, default_value = "lost")]
    rows: Rows,
    /// Only rows of the shadow that meet this SQL condition
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Damaging transaction, instead of those that the shadow was built to be rid of; as often as needed
    #[arg(long = "damaged-by", value_name = "XID")]
    damaged_by: Vec<u32>,
    /// Also rows of other tables that were deleted with the returning ones (ON DELETE CASCADE)
    #[arg(long)]
    with_children: bool,
    /// Column that was renamed since: its name in the recovered instance, and the one in the live database
    #[arg(long = "column", value_name = "OLD=NEW", value_parser = renamed)]
    columns: Vec<(String, String)>,
    /// Column of the recovered instance that the live table has no more and whose values are not wanted; as often as needed
    #[arg(long = "without-column", value_name = "COLUMN")]
    without_columns: Vec<String>,
    /// Column that was dropped and made again: rows that stand and are empty there get the values they had; as often as needed
    #[arg(long = "fill-column", value_name = "COLUMN")]
    fill_columns: Vec<String>,
    /// Let the tables' own triggers fire; they do not by default
    #[arg(long)]
    fire_triggers: bool,
    /// End the isolated shadow's recovery first, when the change it stands before keeps the table locked there
    #[arg(long)]
    open_shadow: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Undo the partial recovery noted in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tables", "condition", "damaged_by", "with_children", "fill_columns"])]
    undo: Option<PathBuf>,
    /// Folder for the record that undo needs; a new one beside the shadow or in the incident by default
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder of the recovered instance; the incident's by default
    #[arg(long, value_name = "DIR")]
    shadow: Option<PathBuf>,
    /// Longest wait for a lock in the live database
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    lock_timeout: Duration,
    /// Longest time for one statement
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30m")]
    statement_timeout: Duration,
}

/// `OLD=NEW`.
pub(super) fn renamed(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.into(), new.into())),
        _ => Err("not of the form OLD=NEW".into()),
    }
}

impl Action for Partial {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr partial",
            about: "Bring a table or its lost rows back into the live database",
            risk: Risk::Change,
            fallback: "pg_dump the table from the recovered instance into a scratch schema of the live database, then \
                       INSERT … SELECT … ON CONFLICT DO NOTHING in one transaction, referenced tables first.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("partial"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let (mut live, id) = connect(ctx, &args).await?;
            let lines = match &args.undo {
                Some(folder) => {
                    let record = Record::load(folder)?;
                    undo_lines(&record, &undo(&mut live, &record, folder, now(), true).await?)
                }
                None => {
                    let (parts, there) = look(ctx, &args, &mut live, &id, false).await?;
                    lines(&parts, &there)
                }
            };
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines, target: Some(id), facts })
        })
    }
    fn risk(&self, args: &[String]) -> Risk {
        if args.iter().any(|a| a == "--dry-run") { Risk::Read } else { Risk::Change }
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

/// The live database, writable, everything pinned that changes how a value looks; who it is on this very connection.
async fn connect(ctx: &Ctx, args: &Args) -> Result<(PgConnection, Identity)> {
    let at = reach::database(ctx)?;
    let mut c = verify::open(&at, args.statement_timeout).await?;
    let pins = format!("SET default_transaction_read_only = off; SET lock_timeout = {}", args.lock_timeout.as_millis());
    sql(&mut c, &pins).await?;
    let id = identity(&mut c, &at).await?;
    expected(ctx, &id, at.host() == id.host)?;
    Ok((c, id))
}

/// The shadow, seen to be the same cluster as it was.
async fn connect_shadow(ctx: &Ctx, args: &Args, live: &Identity) -> Result<(Shadow, PgConnection, Definitions)> {
    let s = which_shadow(ctx, args.shadow.as_deref()).await?;
    let at = s.database(&database_name(ctx))?;
    let mut c = verify::open(&at, args.statement_timeout).await?;
    let id = identity(&mut c, &at).await?;
    if id.system_identifier != live.system_identifier {
        return Err(Error::refused(format!("the recovered instance is of cluster {}", id.system_identifier))
            .why(format!("the live database is of cluster {}", live.system_identifier))
            .hint("name the right one with --shadow"));
    }
    open::untouched(&s, &mut c).await?;
    let programs = s.instance()?.programs;
    Ok((s, c, Definitions { programs, shadow: at }))
}

/// The transaction whose commit a recovered instance stands right before; none when that is another moment, or cannot be read.
async fn stopped_before(ctx: &Ctx, s: &Shadow) -> Vec<u32> {
    let RecoveryTarget::Lsn(text) = &s.target else { return Vec::new() };
    let Ok(lsn) = text.parse() else { return Vec::new() };
    if s.after {
        return Vec::new();
    }
    let (work, timeline) = (ctx.clone(), s.timeline);
    match blocking(move || archive::committed_at(&unlock(&work)?.0, timeline, lsn)).await {
        Ok(xids) => {
            if let Some(xid) = xids.first() {
                ctx.out.line(&format!(
                    "damaged are the rows that transaction {xid} wrote: the recovered instance stands right before its commit"
                ));
            }
            xids
        }
        Err(e) => {
            ctx.out.line(&format!("which transaction the recovered instance stands before is not known: {e}"));
            Vec::new()
        }
    }
}

async fn options(ctx: &Ctx, args: &Args, s: &Shadow) -> Result<Options> {
    let damaged_by = match args.rows {
        Rows::Lost => Vec::new(),
        _ if !args.damaged_by.is_empty() => args.damaged_by.clone(),
        _ if !s.suspects.is_empty() => s.suspects.clone(),
        _ => stopped_before(ctx, s).await,
    };
    if args.rows != Rows::Lost && damaged_by.is_empty() {
        return Err(Error::usage("which transactions did the damage is not known")
            .hint("find them with breakglass pitr locate, then name them with --damaged-by XID"));
    }
    let mut tables = args.tables.clone();
    if args.touched {
        let found = ctx.incident.as_ref().and_then(|i| i.facts.candidates.first()).map(|c| c.tables.clone());
        tables.extend(found.unwrap_or_default());
        if tables.is_empty() && ctx.incident.is_none() {
            return Err(Error::usage("which tables were touched is known within an open incident only")
                .why("this command runs outside of one; what was found is kept there")
                .hint("run it from a step of the incident: breakglass resume; or name the tables with --table"));
        }
        if tables.is_empty() {
            return Err(Error::usage("which tables were touched is not known")
                .hint("find out with breakglass pitr locate or breakglass breach trace, or name them with --table"));
        }
    }
    Ok(Options {
        tables,
        lost: args.rows != Rows::Damaged,
        damaged_by,
        with_children: args.with_children,
        condition: args.condition.clone(),
        fire_triggers: args.fire_triggers,
        columns: args.columns.clone(),
        without_columns: args.without_columns.clone(),
        fill: args.fill_columns.clone(),
        damage: known_damage(s)?,
        audit: false,
    })
}

/// Name of the file beside the shadow that says which columns the damage changed: afterwards, nothing else tells.
const DAMAGE: &str = "damage.json";

fn known_damage(s: &Shadow) -> Result<BTreeMap<String, Vec<String>>> {
    match std::fs::read_to_string(s.root.join(DAMAGE)) {
        Ok(text) => {
            serde_json::from_str(&text).state(|| format!("cannot understand {:?}", s.root.join(DAMAGE).display()))
        }
        Err(_) => Ok(BTreeMap::new()),
    }
}

fn keep_damage(s: &Shadow, parts: &[Part]) -> Result<()> {
    let mut all = known_damage(s)?;
    all.extend(parts.iter().filter(|p| !p.damage.is_empty()).map(|p| (p.table.clone(), p.damage.clone())));
    if all.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&all).state(|| "cannot write which columns the damage changed".into())?;
    crate::postgres::user::own_file(&s.root.join(DAMAGE), &text, s.user()?.as_ref())
}

/// What is not back of these tables: the comparison that a partial recovery begins with, rolled back. Where the damaging
/// transactions are known, their rows count, too.
///
/// # Errors
/// As those of a dry run, but for what only bringing back is refused for.
pub(super) async fn audit(ctx: &Ctx, args: &[String]) -> Result<(Vec<Part>, Definitions)> {
    let mut args: Args = parse_args(Partial.arguments(), args)?;
    let known = which_shadow(ctx, args.shadow.as_deref()).await?;
    if !known.suspects.is_empty() {
        args.rows = Rows::All;
    }
    let (mut live, id) = connect(ctx, &args).await?;
    look(ctx, &args, &mut live, &id, true).await
}

/// Stages and rolls back.
async fn look(
    ctx: &Ctx,
    args: &Args,
    live: &mut PgConnection,
    id: &Identity,
    audit: bool,
) -> Result<(Vec<Part>, Definitions)> {
    let (s, mut there, definitions) = connect_shadow(ctx, args, id).await?;
    let follow = Follow::new(ctx);
    partial::begin(live, &mut there).await?;
    let options = Options { audit, ..options(ctx, args, &s).await? };
    let plan = partial::prepare(live, &mut there, &definitions, &options, &*follow, &ctx.cancel).await?;
    sql(live, "ROLLBACK").await?;
    Ok((plan.parts(), definitions))
}

fn folder(ctx: &Ctx, args: &Args, s: &Shadow) -> Result<PathBuf> {
    let stamp = now().date_hms().replace([' ', ':', '-'], "");
    let beside = |root: &Path| root.join("partial").join(&stamp);
    let folder = match (&args.out, &ctx.incident_dir) {
        (Some(out), Some(dir)) => dir.join(out),
        (Some(out), None) => out.clone(),
        (None, Some(dir)) => beside(dir),
        (None, None) => beside(&s.root),
    };
    let folder = std::path::absolute(&folder)
        .map_err(|e| Error::usage(format!("{:?} is not a folder", folder.display())).why(e))?;
    match (folder.exists(), &args.out) {
        (false, _) => Ok(folder),
        (true, Some(_)) => {
            Err(Error::refused(format!("{:?} exists already", folder.display())).hint("name a new folder with --out"))
        }
        // Another one in the same second.
        (true, None) => {
            let next = |n: u32| folder.with_file_name(format!("{stamp}-{n}"));
            (2..=u32::MAX).map(next).find(|f| !f.exists()).ok_or_else(|| Error::state("no name is free for the record"))
        }
    }
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    let (mut live, id) = connect(ctx, args).await?;
    let fact = Event::TargetSeen { role: "source".into(), identity: id.clone() };
    if let Some(folder) = &args.undo {
        let record = Record::load(folder)?;
        let done = undo(&mut live, &record, folder, now(), args.dry_run).await?;
        undo_lines(&record, &done).iter().for_each(|l| ctx.out.line(l));
        if args.dry_run {
            let json = serde_json::json!({"dry_run": true, "record": record, "undone": done.now.tables});
            return Ok(Done::ok("nothing was changed").json(json));
        }
        let json = serde_json::json!({"undone": done.now.tables, "undone_before": done.before});
        return Ok(Done::ok(undone_text(&done)).fact(fact).json(json));
    }
    if args.open_shadow && !args.dry_run {
        let s = which_shadow(ctx, args.shadow.as_deref()).await?;
        let recovery = super::backend::recovery_of(ctx, s.backend).await?;
        open::open(&s, &database_name(ctx), super::backend::origin(&*recovery)?).await?;
        ctx.out.line("the isolated shadow is open; it cannot be moved forward any more");
    }
    if args.dry_run {
        let (parts, there) = look(ctx, args, &mut live, &id, false).await?;
        lines(&parts, &there).iter().for_each(|l| ctx.out.line(l));
        let json = serde_json::json!({"dry_run": true, "tables": parts});
        return Ok(done("nothing was changed".into(), &parts).json(json));
    }
    let (s, mut there, definitions) = connect_shadow(ctx, args, &id).await?;
    let folder = folder(ctx, args, &s)?;
    let options = options(ctx, args, &s).await?;
    let follow = Follow::new(ctx);
    partial::begin(&mut live, &mut there).await?;
    let plan = partial::prepare(&mut live, &mut there, &definitions, &options, &*follow, &ctx.cancel).await?;
    lines(&plan.parts(), &definitions).iter().for_each(|l| ctx.out.line(l));
    if plan.is_empty() {
        sql(&mut live, "ROLLBACK").await?;
        let parts = plan.parts();
        let left = left_words(&parts);
        let text = match left.is_empty() && missing_values(&parts).is_none() {
            true => "nothing is lost there: nothing was changed".to_string(),
            false => format!("nothing can be brought back: nothing was changed{left}"),
        };
        return Ok(done(text, &parts).json(serde_json::json!({"tables": parts})));
    }
    crate::recovery::watch::check_cancel(&ctx.cancel, "nothing was changed")?;
    keep_damage(&s, &plan.parts())?;
    let (record, parts) = apply::apply(&mut live, &mut there, &plan, &folder, now()).await?;
    let sum = |f: fn(&Part) -> u64| parts.iter().map(f).sum::<u64>();
    let filled = sum(|p| p.filled);
    let text = format!(
        "{} rows brought back, {} put back{}, in transaction {}{}",
        sum(|p| p.lost),
        sum(|p| p.damaged),
        if filled > 0 { format!(", {filled} filled where they were empty") } else { String::new() },
        record.transaction,
        left_words(&parts)
    );
    ctx.out.line(&format!("to undo it: breakglass pitr partial --undo {}", folder.display()));
    let json = serde_json::json!({
        "tables": parts, "transaction": record.transaction, "undo": folder.display().to_string(),
    });
    Ok(done(text, &parts).fact(fact).json(json))
}

/// Done, and as it should be only when no value stays missing.
fn done(text: String, parts: &[Part]) -> Done {
    match missing_values(parts) {
        Some(missing) => Done::check_failed(format!("{text}; {missing}")),
        None => Done::ok(text),
    }
}
