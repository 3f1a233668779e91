//! `breakglass assess --deleted`: what is gone, by the archived log. Rows that were deleted leave no mark on those that are still
//! there, so these cannot tell.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use super::assess::{Source, source};
use super::log_suspects::{FromLog, Place, look};
use super::pitr_locate::{Search, range_now};
use super::{Ctx, Done};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::recovery::locate::LocateOptions;
use crate::recovery::wal_locate::{Deed, Suspect, same_act};

/// Looks in the archived log for what took something away. Counted are the rows of the gravest act alone; the others are listed.
///
/// # Errors
/// The server does not answer, or the log cannot be read.
pub(super) async fn assess(ctx: &Ctx, options: &LocateOptions) -> Result<Done> {
    // Its connection is not needed while the log is read.
    let Source { identity, mut facts, .. } = source(ctx).await?;
    let reach = range_now(ctx, Some(identity.timeline)).await?.ok_or_else(|| {
        Error::config("the archived log cannot be searched for what was deleted")
            .why("no repository is configured, or not its key")
            .hint("set BACKUP_DIR and BACKUP_ENCRYPTION_KEY")
            .hint("without --deleted the rows that are still there are looked at")
    })?;
    let search = Search {
        until: options.until,
        tables: options.tables.clone(),
        min_rows: options.min_rows,
        deleted: true,
        ..Search::default()
    };
    let place = Place { since: options.since, reach: &reach, timeline: identity.timeline, live: Some(&identity) };
    let FromLog { suspects, searched, notes, .. } = look(ctx, &search, place, HashMap::new()).await?;
    let act = act(&suspects);
    let mut findings = Vec::new();
    for (i, s) in act.iter().enumerate() {
        let place = if i == 0 { "taken away by" } else { "and by" };
        findings.push(format!("{place} transaction {} of {}: {}", s.xid, s.at, s.what()));
    }
    let gone = gone(&act);
    let rows: BTreeMap<String, u64> = gone.iter().filter_map(|(table, g)| Some((table.clone(), g.rows?))).collect();
    findings.extend(gone.iter().map(|(table, g)| format!("  {table}: {}", g.describe())));
    let others = suspects.iter().filter(|s| act.iter().all(|a| a.xid != s.xid));
    findings.extend(others.map(|s| format!("also, not counted: transaction {} of {}: {}", s.xid, s.at, s.what())));
    findings.extend(notes);
    for line in &findings {
        ctx.out.line(line);
    }
    let since = options.since.date_hms();
    let left = searched.left();
    let done = match (act.first(), searched.to) {
        (Some(_), _) => {
            let tables = gone.iter().map(|(table, g)| format!("{table}: {}", g.describe()));
            Done::ok(tables.chain(searched.hole()).collect::<Vec<_>>().join("; "))
        }
        // That nothing is known to be gone is no answer where nothing was looked at.
        (None, Some(_)) if searched.any(options.since) => {
            let rest = left.map_or_else(|| "widen --since".into(), |left| format!("{left}; or widen --since"));
            let nothing = match searched.passed_over() {
                Some(some) => format!("nothing large was deleted, nothing emptied or dropped since {since}: {some}"),
                None => format!("nothing was deleted, emptied or dropped since {since} in the log that was searched"),
            };
            let said = format!("{nothing}; {rest}");
            if searched.gaps.is_empty() { Done::ok(said) } else { Done::check_failed(said) }
        }
        (None, Some((lsn, at))) => Done::check_failed(format!(
            "what is gone since {since} is not known: the archived log ends before that, at {lsn}{}; {}",
            at.map_or_else(String::new, |at| format!(", last commit {at}")),
            left.unwrap_or_default()
        )),
        (None, None) => Done::check_failed(format!(
            "what is gone since {since} is not known: the archive holds no log of then; {}",
            left.unwrap_or_default()
        )),
    };
    let candidates: Vec<_> = suspects.iter().map(Suspect::candidate).collect();
    let document = json!({"identity": identity, "findings": findings, "rows": rows, "suspects": candidates,
        "searched": searched.to.is_some() && searched.any(options.since), "log_gaps": searched.gaps,
        "threshold_rows": searched.least, "smaller": searched.smaller});
    facts.push(Event::DamageAssessed { findings, rows });
    Ok(Done { facts, ..done.json(document) })
}

/// The gravest transaction, which is the first, and those that did the same to the same tables around that time.
fn act(suspects: &[Suspect]) -> Vec<&Suspect> {
    let Some(worst) = suspects.first() else { return Vec::new() };
    let deeds = |s: &Suspect| s.acts.iter().map(|a| (a.table.clone(), a.deed)).collect::<BTreeMap<_, _>>();
    let near = |s: &&Suspect| same_act(s.at, worst.at);
    let mut all: Vec<&Suspect> = suspects.iter().filter(near).filter(|s| deeds(s) == deeds(worst)).collect();
    all.sort_by_key(|s| s.end);
    all
}

/// What of a table is gone.
#[derive(Default)]
struct Gone {
    how: &'static str,
    rows: Option<u64>,
}

impl Gone {
    fn describe(&self) -> String {
        let rows = |n: u64| if n == 1 { "1 row".to_string() } else { format!("{n} rows") };
        match (self.rows, self.how) {
            (Some(n), DELETED) => format!("{} {DELETED}", rows(n)),
            (Some(n), how) => format!("{how}, with about {}", rows(n)),
            (None, how) => format!("{how}; how many rows it had is not known"),
        }
    }
}

const DELETED: &str = "deleted";

/// Per table; of what only updates, nothing is gone.
fn gone(act: &[&Suspect]) -> BTreeMap<String, Gone> {
    let mut out: BTreeMap<String, Gone> = BTreeMap::new();
    for a in act.iter().flat_map(|s| &s.acts) {
        let (how, rows) = match a.deed {
            Deed::Rows if a.deleted == 0 => continue,
            Deed::Rows => (DELETED, Some(a.deleted)),
            Deed::Truncate => ("emptied", a.of),
            Deed::Replaced => ("emptied and filled anew", a.of),
            Deed::DropTable => ("dropped", a.of),
            Deed::DropDatabase => ("dropped, the whole database", None),
        };
        let table = out.entry(a.table.clone()).or_default();
        table.how = how;
        table.rows = match (table.rows, rows) {
            // What the planner knew of a table is of the whole of it each time.
            (Some(before), Some(n)) if how == DELETED => Some(before + n),
            (before, n) => n.or(before),
        };
    }
    out
}
