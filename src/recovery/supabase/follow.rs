//! From a request to a verdict, by evidence: its own word, the server's start, its timeline, the newest row.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Glimpse, HEALTHY, RESTORING, Request, Stage, Supabase, now, packet};
use crate::error::{Error, Result};
use crate::model::event::{Check, Verdict};
use crate::model::{CleanText, Time, format_clock};
use crate::postgres::connect::query_error;
use crate::provider::supabase::Trouble;
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// So often in a row may it say that it does not know us before nobody is there to follow.
const STRANGERS: u32 = 5;
/// How much later than the second that was asked for the newest row may be: clocks of clients and of the server differ.
const SLACK: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Restored, by the evidence.
    Restored,
    /// It said that the restore failed.
    Failed,
    /// The answer was lost, and nothing shows that it was begun.
    NoSign,
    /// Nothing was proved within the time.
    Stuck,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// One sentence.
    pub summary: String,
    /// What that rests on.
    pub checks: Vec<Check>,
    /// The request, as on record.
    pub request: Request,
    /// What was seen of the database at the end.
    pub after: Glimpse,
    /// The packet for Supabase's support: the text of the file.
    pub packet: Option<String>,
    /// What to do now.
    pub next: Vec<String>,
}

/// One look.
#[derive(Debug, Clone, Default)]
struct Look {
    /// Its status, when it told one.
    status: Option<String>,
    /// What was seen of the database through the API.
    database: Option<Glimpse>,
    /// Whether it answers where its users reach it; none when that is not configured.
    reached: Option<Result<(), String>>,
    /// Services that are not well.
    unwell: Option<Vec<String>>,
}

/// What is asked of the database, as one row. The timeline stands in the name of the segment that is written to.
const PROBE: &str = "SELECT pg_catalog.pg_postmaster_start_time()::text AS started, CASE WHEN pg_catalog.pg_is_in_recovery() THEN \
     NULL ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END AS timeline";

/// A time as PostgreSQL writes it: `2026-11-20 14:01:07.5+00`.
fn time(text: &str) -> Option<Time> {
    let text = text.trim().replacen(' ', "T", 1);
    // An offset of hours alone is no RFC 3339.
    let short = text.len() > 3 && text.as_bytes().get(text.len() - 3).is_some_and(|b| matches!(b, b'+' | b'-'));
    let full = if short { format!("{text}:00") } else { text };
    Time::parse(&full).or_else(|_| Time::parse(&format!("{full}Z"))).ok()
}

impl Supabase {
    /// Looks at the database, through the API.
    pub(super) async fn glimpse(&self) -> Result<Glimpse, Trouble> {
        let rows = self.client.query(PROBE).await?;
        let word = |name: &str| rows.first().and_then(|r| r.get(name)?.as_str()).map(str::to_string);
        let mut seen = Glimpse {
            started: word("started").map(|t| CleanText::line(t.as_bytes()).to_string()),
            timeline: word("timeline").and_then(|t| u32::from_str_radix(&t, 16).ok()),
            newest: None,
        };
        if seen.started.is_none() {
            return Err(Trouble::Unclear("it answers without a row".into()));
        }
        if let Some(sql) = &self.settings.newest {
            let sql = format!("SELECT (({}))::text AS newest", sql.trim().trim_end_matches(';'));
            let rows = self.client.query(&sql).await?;
            seen.newest = rows.first().and_then(|r| r.get("newest")?.as_str()).and_then(time);
        }
        Ok(seen)
    }

    /// Whether the database answers where its users reach it.
    async fn reached(&self) -> Option<Result<(), String>> {
        let at = self.database.as_ref()?;
        let ask = async {
            let mut c = at.connect_within(Duration::from_secs(5)).await?;
            let one = sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut c);
            match tokio::time::timeout(Duration::from_secs(5), one).await {
                Ok(answer) => answer.map(|_| ()).map_err(|e| query_error("SELECT 1", &e)),
                Err(_) => Err(Error::target("no answer within 5 s")),
            }
        };
        Some(ask.await.map_err(|e| e.to_string()))
    }

    async fn look(&self) -> (Look, Option<Trouble>) {
        let mut look = Look::default();
        let project = match self.client.project().await {
            Ok(p) => p,
            Err(t) => return (look, Some(t)),
        };
        let status = CleanText::line(project.status.as_bytes()).to_string();
        if status == HEALTHY {
            look.database = self.glimpse().await.ok();
            look.reached = self.reached().await;
            look.unwell = self.client.health().await.ok().map(|all| {
                let bad = all.iter().filter(|s| s.status != HEALTHY);
                bad.map(|s| CleanText::line(format!("{} {}", s.name, s.status).as_bytes()).to_string()).collect()
            });
        }
        look.status = Some(status);
        (look, None)
    }
}

/// The evidence of one look, held against what was seen before the request.
struct Evidence {
    checks: Vec<Check>,
    /// All of it is there.
    proved: bool,
}

fn evidence(r: &Request, look: &Look, asked_newest: bool) -> Evidence {
    let mut checks = Vec::new();
    let mut check = |name: &str, verdict: Verdict, detail: String| {
        checks.push(Check { name: name.into(), verdict, detail });
        verdict == Verdict::Passed
    };
    let word = |good: bool| if good { Verdict::Passed } else { Verdict::Failed };
    let seen = look.database.clone().unwrap_or_default();
    let healthy = look.status.as_deref() == Some(HEALTHY);
    let grown = r.before.timeline.zip(seen.timeline).is_some_and(|(b, n)| n > b);
    let limit = r.second().plus(SLACK);
    // Only where there was something newer before does its absence prove anything.
    let rewound = r.before.newest.is_some_and(|b| b > limit) && seen.newest.is_some_and(|n| n <= limit);
    let rewound = rewound && asked_newest && look.database.is_some();
    let began = r.seen_restoring || grown || rewound;
    let mut all = check(
        "begun",
        word(began),
        match (r.seen_restoring, grown, rewound) {
            (true, ..) => "its status was RESTORING".into(),
            (_, true, _) => format!("the timeline is {}", seen.timeline.unwrap_or_default()),
            (.., true) => "rows newer than the target are gone".into(),
            _ => "nothing shows that a restore was begun".into(),
        },
    );
    all &= check("status", word(healthy), look.status.clone().unwrap_or_else(|| "not told".into()));
    let answers = look.database.is_some();
    all &= check("database", word(answers), if answers { "answers a query".into() } else { "does not answer".into() });
    all &= match (&r.before.started, &seen.started) {
        (Some(b), Some(n)) => check("server start", word(b != n), format!("{n}, before {b}")),
        (None, Some(n)) => {
            check("server start", Verdict::NotAvailable, format!("{n}; before it could not be asked"));
            true
        }
        _ => check("server start", Verdict::Failed, "not told".into()),
    };
    match (asked_newest, seen.newest) {
        (true, Some(n)) => all &= check("newest row", word(n <= limit), format!("{n}, target {}", r.second())),
        (true, None) if answers => {
            check("newest row", Verdict::NotAvailable, "there is none".into());
        }
        (true, None) => {}
        (false, _) => {
            check("newest row", Verdict::NotAvailable, "supabase.newest is not set".into());
        }
    }
    match &look.reached {
        Some(Ok(())) => {
            check("connection", Verdict::Passed, "answers where its users reach it".into());
        }
        Some(Err(e)) => all &= check("connection", Verdict::Failed, e.clone()),
        None => {
            check("connection", Verdict::NotAvailable, "DATABASE_URL is not set".into());
        }
    }
    Evidence { checks, proved: all }
}

/// Statuses after which nothing more comes.
fn is_final(status: &str) -> bool {
    matches!(status, "RESTORE_FAILED" | "REMOVED" | "GOING_DOWN" | "INIT_FAILED")
}

/// Follows a request to its verdict. Asks for nothing again.
pub(super) async fn follow(
    it: &Supabase,
    mut r: Request,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let asked_newest = it.settings.newest.is_some();
    if r.stage == Stage::Restored {
        let at = r.restored_at.unwrap_or(r.requested_at);
        let summary = format!("was restored to {} already, at {at}; to do it once more: --again REASON", r.second());
        return Ok(outcome(it, Ending::Restored, summary, Vec::new(), r, Glimpse::default()));
    }
    if r.stage == Stage::Intended {
        r.stage = Stage::Unclear;
        r.note(now(), "whoever asked ended before the answer was on record");
    }
    let (began, deadline) = (Instant::now(), Duration::from_millis(it.settings.deadline_ms));
    let settle = Duration::from_millis(it.settings.settle_ms);
    let (mut strangers, mut proved_at, mut last) = (0, None::<Instant>, (Look::default(), Vec::new()));
    loop {
        check_cancel(cancel, "the restore goes on at Supabase; run the same command again to follow it")?;
        let (look, trouble) = it.look().await;
        let mut pause = it.poll();
        if let Some(t) = &trouble {
            if r.note(now(), format!("not told: {}", t.describe())) {
                watch.line(&format!("status not told: {}", t.describe()));
            }
            match t {
                Trouble::Declined { status: 401 | 403 | 404, .. } => {
                    strangers += 1;
                    if strangers >= STRANGERS {
                        keep(it, &mut r, watch)?;
                        return Err(it.client.error("read the status", t).hint(
                            "the restore goes on at Supabase all the same: with a token that is accepted, run the \
                                   same command again; it follows and asks for nothing",
                        ));
                    }
                }
                Trouble::Declined { status: 429, wait, .. } => pause = pause.max(wait.unwrap_or(pause)),
                _ => {}
            }
        }
        if let Some(status) = &look.status {
            strangers = 0;
            r.seen_restoring |= status == RESTORING;
            r.seen_away |= status != HEALTHY;
            if r.note(now(), format!("status {status}")) {
                watch.line(&format!("status {status}"));
                keep(it, &mut r, watch)?;
            }
            if is_final(status) {
                return failed(it, r, status.clone(), watch);
            }
        }
        let found = evidence(&r, &look, asked_newest);
        if found.proved {
            let since = *proved_at.get_or_insert_with(Instant::now);
            let unwell = look.unwell.clone().unwrap_or_default();
            // The services in front take their time; the database is there.
            if unwell.is_empty() || since.elapsed() >= settle {
                return restored(it, r, look, found.checks, &unwell, watch);
            }
            if r.note(now(), format!("restored; waiting for {}", unwell.join(", "))) {
                watch.line(&format!("the database is restored; waiting for {}", unwell.join(", ")));
            }
        } else {
            proved_at = None;
        }
        let stage_seen = r.seen_restoring
            || r.seen_away
            || found.checks.iter().any(|c| c.name == "begun" && c.verdict == Verdict::Passed);
        let missing: Vec<&str> =
            found.checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| c.name.as_str()).collect();
        watch.phase(&Phase {
            name: "restore",
            done: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            unit: "ms",
            text: format!(
                "{} since {}; not proved yet: {}",
                look.status.as_deref().unwrap_or("status not told"),
                r.requested_at.hms(),
                missing.join(", ")
            ),
            ..Phase::default()
        });
        if trouble.is_none() {
            last = (look, found.checks);
        }
        if r.stage == Stage::Unclear && !stage_seen && trouble.is_none() && began.elapsed() >= settle {
            return no_sign(it, r, last.1, watch);
        }
        if began.elapsed() >= deadline {
            return stuck(it, r, last, deadline, watch);
        }
        tokio::select! {
            () = tokio::time::sleep(pause.min(deadline.saturating_sub(began.elapsed()).max(Duration::from_millis(10)))) => {}
            () = cancel.cancelled() => {}
        }
    }
}

/// Keeps what was seen.
///
/// # Errors
/// The record is about another request by now: this one is nobody's business any more, and what is seen may be the other's doing.
fn keep(it: &Supabase, r: &mut Request, watch: &dyn Watch) -> Result<()> {
    let Some(records) = &it.records else { return Ok(()) };
    match records.keep(r, it.patience()) {
        Ok(None) => Ok(()),
        Ok(Some(other)) => {
            let project = &r.project_ref;
            let mut error = Error::state(format!("project {project} was asked again meanwhile")).why(format!(
                "at {}, to {}: what becomes of the request of {} cannot be told from that one any more",
                other.requested_at, other.target, r.requested_at
            ));
            if let Some(hint) = other.to_follow() {
                error = error.hint(hint);
            }
            Err(error)
        }
        Err(e) => {
            watch.line(&format!("what was seen could not be kept: {e}"));
            Ok(())
        }
    }
}

fn outcome(
    it: &Supabase,
    ending: Ending,
    summary: String,
    checks: Vec<Check>,
    request: Request,
    after: Glimpse,
) -> Outcome {
    let packet = matches!(ending, Ending::Failed | Ending::Stuck)
        .then(|| packet::text(&request, &summary, &checks, &it.client.calls(), &it.client.host()));
    Outcome { ending, summary, checks, request, after, packet, next: Vec::new() }
}

fn restored(
    it: &Supabase,
    mut r: Request,
    look: Look,
    mut checks: Vec<Check>,
    unwell: &[String],
    watch: &dyn Watch,
) -> Result<Outcome> {
    let (verdict, detail) = match (&look.unwell, unwell.is_empty()) {
        (None, _) => (Verdict::NotAvailable, "health was not told".to_string()),
        (_, true) => (Verdict::Passed, "all well".to_string()),
        _ => (Verdict::NotAvailable, format!("not well yet: {}", unwell.join(", "))),
    };
    checks.push(Check { name: "services".into(), verdict, detail });
    r.stage = Stage::Restored;
    r.restored_at = Some(now());
    r.verdict = checks.iter().map(|c| format!("{}: {}", c.name, c.detail)).collect();
    keep(it, &mut r, watch)?;
    let took = format_clock(now().since(r.requested_at));
    let summary = format!("project {} is restored to {}, {took} after it was asked for", r.project_ref, r.second());
    let mut out = outcome(it, Ending::Restored, summary, checks, r, look.database.unwrap_or_default());
    out.next = vec![
        "make replication slots and subscriptions again that were dropped".into(),
        "files of Storage did not come back; those uploaded after the moment read 404".into(),
        "look at what was committed after the moment: only what you kept elsewhere can be brought back".into(),
    ];
    Ok(out)
}

/// What can be done without Supabase's restore.
fn plan_b(r: &Request) -> Vec<String> {
    vec![
        format!(
            "PLAN B: 1. open a ticket with the packet: https://supabase.com/dashboard/support/new?ref={}",
            r.project_ref
        ),
        "2. meanwhile restore into a new project: dashboard, Database, Backups, Restore to new project".into(),
        "3. or restore your newest own dump into a new project: breakglass backup list, then breakglass backup restore"
            .into(),
        "4. point the service at the new project; keep this one for the evidence".into(),
        "5. do not ask for the restore again until support says what became of it".into(),
    ]
}

fn failed(it: &Supabase, mut r: Request, status: String, watch: &dyn Watch) -> Result<Outcome> {
    r.stage = Stage::Failed;
    r.verdict = vec![format!("its status became {status}")];
    keep(it, &mut r, watch)?;
    let summary = format!("the restore of project {} FAILED: its status is {status}", r.project_ref);
    let next = plan_b(&r);
    Ok(Outcome { next, ..outcome(it, Ending::Failed, summary, Vec::new(), r, Glimpse::default()) })
}

fn no_sign(it: &Supabase, mut r: Request, checks: Vec<Check>, watch: &dyn Watch) -> Result<Outcome> {
    r.note(now(), "no sign that it was begun");
    keep(it, &mut r, watch)?;
    let summary = format!(
        "whether project {} is being restored is NOT KNOWN: the answer was lost, and for {} nothing shows that it was begun",
        r.project_ref,
        format_clock(Duration::from_millis(it.settings.settle_ms))
    );
    let mut out = outcome(it, Ending::NoSign, summary, checks, r, Glimpse::default());
    out.next = vec![
        "look in the dashboard (Database, Backups) whether a restore is listed".into(),
        "to look on: the same command again; it asks for nothing".into(),
        "when you are sure that none was begun: the same command with --again REASON".into(),
    ];
    Ok(out)
}

fn stuck(
    it: &Supabase,
    mut r: Request,
    last: (Look, Vec<Check>),
    deadline: Duration,
    watch: &dyn Watch,
) -> Result<Outcome> {
    let (look, checks) = last;
    let missing: Vec<String> =
        checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| format!("{} ({})", c.name, c.detail)).collect();
    let why = match missing.is_empty() {
        true => "its status was never told".to_string(),
        false => format!("not proved: {}", missing.join(", ")),
    };
    r.note(now(), format!("not proved within {}: {why}", format_clock(deadline)));
    r.verdict = vec![why.clone()];
    keep(it, &mut r, watch)?;
    let summary = format!("the restore of project {} is STUCK: after {} {why}", r.project_ref, format_clock(deadline));
    let mut next = plan_b(&r);
    next.push("to look on: the same command again; it asks for nothing".into());
    Ok(Outcome { next, ..outcome(it, Ending::Stuck, summary, checks, r, look.database.unwrap_or_default()) })
}
