//! `breakglass assess --deleted`: what is gone, by the archived log. Rows that were deleted leave no mark on those that are still
//! there, so these cannot tell.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::log_suspects::taken_away;
use super::pitr_locate::{Search, range_now};
use super::reach;
use super::{Ctx, Done};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::recovery::exposure;
use crate::recovery::locate::LocateOptions;
use crate::recovery::wal_locate::{Deed, Suspect};

/// Transactions on the same tables no further apart than this are taken for one act.
const APART: Duration = Duration::from_secs(600);

/// Looks in the archived log for what took something away. Counted are the rows of the gravest act alone; the others are listed.
///
/// # Errors
/// The server does not answer, or the log cannot be read.
pub(super) async fn assess(ctx: &Ctx, options: &LocateOptions) -> Result<Done> {
    let at = reach::source(ctx)?;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(30)).await?;
    let identity = crate::postgres::identity(&mut c, &at).await?;
    let mut facts = vec![Event::TargetSeen { role: "source".into(), identity: identity.clone() }];
    if let Some(e) = exposure::measure(&mut c, &exposure::held_in(&ctx.settings)).await? {
        facts.push(e.fact());
    }
    drop(c);
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
        ..Search::default()
    };
    let (suspects, notes) = taken_away(ctx, &search, options.since, &reach, identity.timeline).await?;
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
    let summary = match act.first() {
        None => {
            let since = options.since.date_hms();
            format!(
                "nothing was deleted, emptied or dropped since {since} by the archived log; widen --since, or --min-rows 1"
            )
        }
        Some(_) => gone.iter().map(|(table, g)| format!("{table}: {}", g.describe())).collect::<Vec<_>>().join("; "),
    };
    let candidates: Vec<_> = suspects.iter().map(Suspect::candidate).collect();
    let document = json!({"identity": identity, "findings": findings, "rows": rows, "suspects": candidates});
    facts.push(Event::DamageAssessed { findings, rows });
    Ok(Done { facts, ..Done::ok(summary).json(document) })
}

/// The gravest transaction, which is the first, and those that did the same to the same tables around that time.
fn act(suspects: &[Suspect]) -> Vec<&Suspect> {
    let Some(worst) = suspects.first() else { return Vec::new() };
    let deeds = |s: &Suspect| s.acts.iter().map(|a| (a.table.clone(), a.deed)).collect::<BTreeMap<_, _>>();
    let near = |s: &&Suspect| s.at.since(worst.at).max(worst.at.since(s.at)) <= APART;
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
