//! `breakglass assess`: what is damaged, how much of it and since when. Reads only.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::postgres::PgConnection;

use super::reach::{self, Reporter};
use super::{Action, Ctx, Done, Preview, Spec};
use crate::backup::catalog::{BackupKind, Catalog};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::Identity;
use crate::model::{Time, parse_duration};
use crate::postgres::Database;
use crate::recovery::locate::{LocateOptions, Located, locate};
use crate::recovery::{exposure, pages};

/// How far back is looked when nobody says.
const SINCE: &str = "24h";

/// The action.
pub struct Assess;

/// Where it looks.
fn search_arguments(command: Command) -> Command {
    command
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("TIME|AGE")
                .default_value(SINCE)
                .help("Look at what was committed since then: a time with a zone, or an age such as 3h"),
        )
        .arg(Arg::new("until").long("until").value_name("TIME").help("Suspects committed before this time only"))
        .arg(
            Arg::new("table")
                .long("table")
                .value_name("TABLE")
                .action(ArgAction::Append)
                .help("Suspects that touched this table only; may be repeated"),
        )
        .arg(
            Arg::new("min-rows")
                .long("min-rows")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("A transaction with at least so many rows is a suspect (default: ten times what is usual; with --deleted 100, and 1 % of a table)"),
        )
        .arg(Arg::new("deleted").long("deleted").action(ArgAction::SetTrue).help(
            "What is gone: rows deleted, tables emptied or dropped, by the archived log; rows that are there cannot tell",
        ))
}

/// Reads the arguments of [`search_arguments`].
///
/// # Errors
/// Usage, quoting what is not a time.
fn search_options(ctx: &Ctx, m: &ArgMatches) -> Result<LocateOptions> {
    let text = m.get_one::<String>("since").map(String::as_str).unwrap_or(SINCE);
    let mut since = match parse_duration(text) {
        Ok(age) => Time::from_system(std::time::SystemTime::now()).minus(age),
        Err(_) => Time::parse(text).map_err(Error::usage)?,
    };
    // Without a wish of one's own: nothing before the oldest base backup can be recovered, so no suspect there is of use.
    if m.value_source("since") == Some(clap::parser::ValueSource::DefaultValue)
        && let Some(oldest) = oldest_base_backup(ctx)
    {
        since = since.max(oldest);
    }
    let mut options = LocateOptions::since(since);
    if let Some(until) = m.get_one::<String>("until") {
        options.until = Some(Time::parse(until).map_err(Error::usage)?);
    }
    options.tables = m.get_many::<String>("table").into_iter().flatten().cloned().collect();
    options.min_rows = m.get_one::<u64>("min-rows").copied();
    Ok(options)
}

/// When the oldest base backup was complete, if the repository can be asked. Assessing must work without it.
fn oldest_base_backup(ctx: &Ctx) -> Option<Time> {
    let unlocked = reach::unlocked(ctx).ok()?;
    let catalog = Catalog::load(&unlocked).ok()?;
    let physical = catalog.backups.iter().filter(|b| b.manifest.kind == BackupKind::Physical);
    physical.map(|b| b.manifest.finished_at).min()
}

impl Action for Assess {
    fn spec(&self) -> Spec {
        Spec {
            name: "assess",
            about: "Find out what is damaged, how much of it and since when; reads only",
            risk: Risk::Read,
            fallback: "Group the suspected table by xmin and order by count; pg_xact_commit_timestamp(xmin) gives the time.",
        }
    }
    fn arguments(&self) -> Command {
        search_arguments(Command::new("assess"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let at = reach::source(ctx)?;
            Ok(Preview { lines: vec![format!("connects to {at} and reads")], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let m = super::parse_matches(self.arguments(), args)?;
            let options = search_options(ctx, &m)?;
            match m.get_flag("deleted") {
                true => super::assess_deleted::assess(ctx, &options).await,
                false => assess(ctx, &options).await,
            }
        })
    }
}

/// The damaged server, asked who it is.
pub(super) struct Source {
    at: Database,
    c: PgConnection,
    pub(super) identity: Identity,
    /// That it was seen, and what would be lost if it were gone now.
    pub(super) facts: Vec<Event>,
}

/// Asks it.
///
/// # Errors
/// It does not answer.
pub(super) async fn source(ctx: &Ctx) -> Result<Source> {
    let at = reach::source(ctx)?;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(30)).await?;
    let identity = crate::postgres::identity(&mut c, &at).await?;
    let mut facts = vec![Event::TargetSeen { role: "source".into(), identity: identity.clone() }];
    if let Some(e) = exposure::measure(&mut c, &exposure::held_in(&ctx.settings)).await? {
        facts.push(e.fact());
    }
    Ok(Source { at, c, identity, facts })
}

async fn assess(ctx: &Ctx, options: &LocateOptions) -> Result<Done> {
    let Source { at, mut c, identity, mut facts } = source(ctx).await?;
    let gone = gone(&mut c, ctx, options).await?;
    let mut there = options.clone();
    there.tables.retain(|t| !gone.contains(t));
    let reporter = Reporter::new(&*ctx.out);
    let found = locate(&at, &there, &reporter, &ctx.cancel).await?;
    let (mut findings, mut rows) = describe(&found, &identity.database, options);
    if !gone.is_empty() {
        // Rows of other tables are not what is asked about, and nothing says that they are damaged.
        rows.clear();
        findings.insert(1, "in the tables that are there, which need be no damage:".into());
        let missing = gone.iter().map(|table| {
            format!(
                "{table} is gone: there is no table of that name in {}; its rows bear no mark that could be read here, the \
                 log knows the transaction (breakglass pitr locate --deleted)",
                identity.database
            )
        });
        findings.splice(0..0, missing);
    }
    let counted = pages::counted(&mut c).await.ok().flatten();
    drop(c);
    if let Some((failures @ 1.., last)) = counted {
        let last = last.map_or_else(String::new, |t| format!(", the last at {} UTC", t.date_hms()));
        findings
            .push(format!("the server counted {failures} pages whose checksum was wrong when they were read{last}"));
    }
    let unreadable: u64 = found.damaged.iter().map(|d| d.rows).sum();
    if !found.damaged.is_empty() {
        rows = found.damaged.iter().map(|d| (d.table.clone(), d.rows)).collect();
        findings.push(
            "the log and the backups do not hold this damage: nothing need be lost by a recovery to their end".into(),
        );
        findings.push("indexes, and pages that are held in memory, were not looked at".into());
    }
    if found.damaged.is_empty() && gone.is_empty() {
        findings.push(
            "counted are rows that are still there; what was deleted, emptied or dropped bears no mark: breakglass assess --deleted"
                .into(),
        );
    }
    for line in &findings {
        ctx.out.line(line);
    }
    let total: u64 = rows.values().sum();
    let summary = if !found.damaged.is_empty() {
        let pages: usize = found.damaged.iter().map(|d| d.pages.len()).sum();
        let tables: Vec<&str> = found.damaged.iter().map(|d| d.table.as_str()).collect();
        let word = if pages == 1 { "page fails its" } else { "pages fail their" };
        format!("{pages} {word} checksum, in {}: about {unreadable} rows cannot be read", tables.join(", "))
    } else if !gone.is_empty() {
        let word = if gone.len() == 1 { "is" } else { "are" };
        format!("{} {word} gone; the log knows who dropped it: breakglass pitr locate --deleted", gone.join(", "))
    } else if found.groups.is_empty() {
        "no transaction stands out; widen --since, or name the table with --table".to_string()
    } else {
        let tables: Vec<&str> = rows.keys().map(String::as_str).collect();
        format!("{total} rows still carry the mark of suspect transactions, in {}", tables.join(", "))
    };
    let document = json!({"identity": identity, "findings": findings, "rows": rows});
    facts.push(Event::DamageAssessed { findings, rows });
    Ok(Done { facts, ..Done::ok(summary).json(document) })
}

/// Tables that are asked about and not there: named with `--table`, or missed by what the incident has on record.
///
/// # Errors
/// The query fails.
async fn gone(c: &mut PgConnection, ctx: &Ctx, options: &LocateOptions) -> Result<Vec<String>> {
    let mut asked = options.tables.clone();
    if let Some(state) = &ctx.incident {
        let said = state.impact.iter().map(|i| i.source.as_str());
        let looked = state.runs.values().filter(|r| r.action == "health").map(|r| r.summary.as_str());
        asked.extend(said.chain(looked).flat_map(missed));
    }
    let mut out: Vec<String> = Vec::new();
    for table in asked {
        let sql = "SELECT to_regclass($1) IS NULL AND to_regclass('public.' || $1) IS NULL";
        // A name that cannot be one, such as a pattern, is for the search itself to refuse.
        let absent: bool = sqlx::query_scalar(sql).bind(&table).fetch_one(&mut *c).await.unwrap_or(false);
        if absent && !out.contains(&table) {
            out.push(table);
        }
    }
    Ok(out)
}

/// The relations of which a text says, in PostgreSQL's words, that they do not exist.
fn missed(text: &str) -> Vec<String> {
    let mut parts = text.split("relation \"").skip(1);
    let name = |part: &str| part.split_once("\" does not exist").map(|(name, _)| name.to_string());
    parts.by_ref().filter_map(name).collect()
}

/// Findings, one line each, and rows per table. Of several groups the first is the likeliest; only its rows count.
fn describe(found: &Located, database: &str, options: &LocateOptions) -> (Vec<String>, BTreeMap<String, u64>) {
    let mut lines = vec![format!(
        "{} transactions wrote rows in {database} since {}; {} rows in one make a suspect",
        found.transactions,
        options.since.date_hms(),
        found.threshold
    )];
    for (i, group) in found.groups.iter().enumerate() {
        let place = if i == 0 { "likeliest" } else { "also" };
        lines.push(format!("{place}: {}", group.describe()));
        if let (Some(from), Some(to)) = (group.moment(), group.end()) {
            lines.push(format!("  from {from} to {to}, {} transactions", group.xids().len()));
        }
        for (table, rows) in group.rows() {
            lines.push(format!("  {table}: {rows} rows"));
        }
    }
    for damaged in &found.damaged {
        lines.push(format!("damaged on disk, by their checksum: {}", damaged.describe()));
    }
    for (table, why) in found.unread.iter().filter(|(t, _)| found.damaged.iter().all(|d| d.table != **t)) {
        lines.push(format!("not read: {table} ({why})"));
    }
    if !found.other_databases.is_empty() {
        lines.push(format!(
            "a restore is of the whole server: database {} goes back with it",
            found.other_databases.join(", ")
        ));
    }
    (lines, found.groups.first().map(|g| g.rows()).unwrap_or_default())
}
