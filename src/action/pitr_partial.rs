//! `pitr partial`: tables, or their lost rows, out of the recovered instance into the live database; and back out again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as _, Command, ValueEnum};
use futures::future::BoxFuture;
use sqlx::postgres::PgConnection;

use super::target::{Follow, blocking, database_name, expected, now, parse_args, unlock, which_shadow};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::model::event::Event;
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::model::target::{Identity, RecoveryTarget};
use crate::postgres::connect::{quote_literal, run as sql};
use crate::postgres::identity;
use crate::postgres::instance::shell_quote;
use crate::recovery::partial::undo::{Outcome, Record, Undone, undo};
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
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tables", "condition", "damaged_by", "with_children"])]
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

/// What does not come back of a table, with where it is to be seen.
pub(super) fn not_back(p: &Part, there: &Definitions) -> Vec<String> {
    let see = |query: &str| {
        let d = &there.shadow;
        let words = ["psql", "-h", d.host(), "-p", &d.port().to_string(), "-U", d.user(), "-d", d.name(), "-c", query];
        words.map(shell_quote).join(" ")
    };
    let mut out = Vec::new();
    for l in &p.left {
        let more = l.rows.saturating_sub(l.keys.len() as u64);
        let more = if more > 0 && !l.keys.is_empty() { format!("; and {more} more") } else { String::new() };
        let keys = if l.keys.is_empty() { String::new() } else { format!(": {}{more}", l.keys.join("; ")) };
        let what = if l.certain { "left out" } else { "not told apart" };
        out.push(CleanText::line(format!("{} {what}: {}{keys}", l.rows, l.why).as_bytes()).to_string());
        if let Some(query) = &l.query {
            out.push(CleanText::line(format!("  as they were: {}", see(query)).as_bytes()).to_string());
        }
    }
    for (column, n) in &p.lost_columns {
        out.push(format!("column {column} is in the recovered instance only, with values in {n} rows"));
    }
    for v in &p.views {
        out.push(format!("view {v} is gone in the live database and is not made again"));
        out.push(format!("  as it was: {}", see(&format!("SELECT pg_get_viewdef({}::regclass)", quote_literal(v)))));
    }
    out
}

/// What nothing tells any more: of rows that were changed since, whether they are the ones that there were.
pub(super) fn taken_for_the_same(p: &Part) -> Option<String> {
    let n = p.changed_since;
    (n > 0).then(|| {
        format!(
            "{n} rows were changed since and stay as they are, taken for the same rows: one that was deleted, written anew under its \
             key and then changed looks no different"
        )
    })
}

/// What is to be done, for people.
fn lines(parts: &[Part], there: &Definitions) -> Vec<String> {
    let mut out = Vec::new();
    for p in parts {
        let mut line = format!("{}: ", p.table);
        if p.recreated {
            match &p.under {
                Some(above) => line.push_str(&format!("the partition is made again and put back under {above}, with ")),
                None => line.push_str("the table is made again, with "),
            }
        }
        line.push_str(&format!("{} lost rows", p.lost));
        if p.damaged > 0 {
            line.push_str(&format!(", {} damaged rows to their former values", p.damaged));
        }
        if !p.examples.is_empty() {
            line.push_str(&format!(" (such as {})", p.examples.join("; ")));
        }
        out.push(line);
        let mut more = |text: String| out.push(format!("  {text}"));
        if let Some(why) = &p.because {
            more(format!("because {why}"));
        }
        not_back(p, there).into_iter().for_each(&mut more);
        if let Some(text) = taken_for_the_same(p) {
            more(text);
        }
        if !p.silent_triggers.is_empty() {
            more(format!("triggers that do not fire: {}; writers wait meanwhile", p.silent_triggers.join(", ")));
        }
        if !p.other_columns.is_empty() {
            more(format!("columns of one side only: {}", p.other_columns.join(", ")));
        }
        if !p.foreign_keys.is_empty() {
            more(format!("foreign keys made again: {}", p.foreign_keys.join(", ")));
        }
    }
    if parts.iter().any(|p| p.lost > 0 && !p.recreated) {
        out.push("rows deleted on purpose since then come back, too: narrow with --where".into());
    }
    out
}

/// `; 3 rows and 1 view are not back`, or nothing.
fn left_words(parts: &[Part]) -> String {
    let rows: u64 = parts.iter().flat_map(|p| &p.left).filter(|l| l.certain).map(|l| l.rows).sum();
    let views: usize = parts.iter().map(|p| p.views.len()).sum();
    let each = [(rows, "rows"), (views as u64, "views")].into_iter().filter(|(n, _)| *n > 0);
    let each: Vec<String> = each.map(|(n, what)| format!("{n} {what}")).collect();
    if each.is_empty() { String::new() } else { format!("; left out, as named: {}", each.join(", ")) }
}

/// What undoing does or would do, for people.
fn undo_lines(r: &Record, done: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    for b in &done.before {
        out.push(format!("it was undone already on {}, in transaction {}", b.at, b.transaction));
    }
    for t in &done.now.tables {
        out.push(match t {
            t if t.gone => format!("{}: gone already, nothing is to be taken out", t.table),
            t if t.dropped => format!("{}: the table that was made again is dropped, with {} rows", t.table, t.removed),
            t => format!(
                "{}: {} rows go again, {} get the values they had on {}, {} stay: changed, deleted or referenced since",
                t.table, t.removed, t.restored, r.at, t.kept
            ),
        });
    }
    out
}

/// What was undone, in one sentence.
fn undone_text(done: &Outcome) -> String {
    let sum = |f: fn(&Undone) -> u64| done.now.tables.iter().map(f).sum::<u64>();
    let kept = format!("{} kept because they were changed, deleted or are referenced since", sum(|u| u.kept));
    if let (false, Some(last)) = (done.now.changed(), done.before.last()) {
        return format!(
            "it was undone already, on {}, in transaction {}: nothing was changed; {kept}",
            last.at, last.transaction
        );
    }
    let gone: Vec<&str> = done.now.tables.iter().filter(|u| u.gone).map(|u| u.table.as_str()).collect();
    let gone = if gone.is_empty() { String::new() } else { format!("; gone already: {}", gone.join(", ")) };
    format!("undone: {} rows taken out again, {} put back, {kept}{gone}", sum(|u| u.removed), sum(|u| u.restored))
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
    if folder.exists() {
        return Err(
            Error::refused(format!("{:?} exists already", folder.display())).hint("name a new folder with --out")
        );
    }
    Ok(folder)
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
        return Ok(Done::ok("nothing was changed").json(serde_json::json!({"dry_run": true, "tables": parts})));
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
        let left = left_words(&plan.parts());
        let text = match left.is_empty() {
            true => "nothing is lost there: nothing was changed".to_string(),
            false => format!("nothing can be brought back: nothing was changed{left}"),
        };
        return Ok(Done::ok(text).json(serde_json::json!({"tables": plan.parts()})));
    }
    crate::recovery::watch::check_cancel(&ctx.cancel, "nothing was changed")?;
    keep_damage(&s, &plan.parts())?;
    let (record, parts) = apply::apply(&mut live, &mut there, &plan, &folder, now()).await?;
    let sum = |f: fn(&Part) -> u64| parts.iter().map(f).sum::<u64>();
    let text = format!(
        "{} rows brought back, {} put back, in transaction {}{}",
        sum(|p| p.lost),
        sum(|p| p.damaged),
        record.transaction,
        left_words(&parts)
    );
    ctx.out.line(&format!("to undo it: breakglass pitr partial --undo {}", folder.display()));
    let json = serde_json::json!({
        "tables": parts, "transaction": record.transaction, "undo": folder.display().to_string(),
    });
    Ok(Done::ok(text).fact(fact).json(json))
}
