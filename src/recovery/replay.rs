//! Following a shadow while it replays: how far it is, when it stands before its target, and whether it really does.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::origin::Log;
use super::range::Stop as StopAt;
use super::shadow::{Request, configure};
use super::watch::{Phase, Watch, check_cancel};
use crate::backup::wal::Segment;
use crate::error::{Error, Result};
use crate::model::{CleanText, Time};
use crate::postgres::connect::query_error;
use crate::postgres::instance::{Starting, State, Stop};
use crate::postgres::{Database, Instance, Lsn};

/// Where it stands.
pub(super) struct Reached {
    /// Position up to which the log is replayed.
    pub lsn: Lsn,
    /// Time of the last commit that was replayed; where the source recorded no commit times, of the last commit or rollback.
    pub time: Option<Time>,
}

/// How often the server is looked at: what waits for its end waits no longer than this.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So long a server that says it waits for log may stand before the end of the archive; longer, and it is broken.
const STANDSTILL: Duration = Duration::from_secs(120);
/// How often people are told.
const TELL_EVERY: Duration = Duration::from_millis(100);

struct Position {
    lsn: Option<Lsn>,
    time: Option<Time>,
    paused: bool,
    recovering: bool,
    /// It asked everywhere for more log, and there is none.
    waiting: bool,
}

/// Where the server says it is; `held` is the connection, kept from one question to the next.
async fn position(at: &Database, held: &mut Option<PgConnection>) -> Result<Position> {
    let mut c = match held.take() {
        Some(c) => c,
        None => at.connect_within(Duration::from_secs(5)).await?,
    };
    let sql = "SELECT pg_catalog.pg_last_wal_replay_lsn()::text, \
               (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::int8, \
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_get_wal_replay_pause_state() = 'paused' \
               ELSE false END, pg_catalog.pg_is_in_recovery(), \
               EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity WHERE backend_type = 'startup' \
               AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream', 'RecoveryWalAll'))";
    let (lsn, time, paused, recovering, waiting): (Option<String>, Option<i64>, bool, bool, bool) =
        sqlx::query_as(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    *held = Some(c);
    let (lsn, time) = (lsn.and_then(|l| l.parse().ok()), time.map(Time::from_micros));
    Ok(Position { lsn, time, paused, recovering, waiting })
}

/// How often the limits of the source may have been raised in the log of one recovery; each needs a new start.
const MOST_RAISES: usize = 20;

/// Starts the server and follows it until it stands before the target; when that fails, it is stopped.
///
/// A server in hot standby stops, or pauses for ever, where the log says that the source raised one of its limits
/// (`max_connections` and the like): it is started again with the raised ones, which by then stand in its control file.
pub(super) async fn replay(
    instance: &Instance,
    request: &Request,
    log: &Log,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Reached> {
    let start: Lsn = request.route.backup.start_lsn.as_deref().and_then(|l| l.parse().ok()).unwrap_or_default();
    let goal = match &request.route.stop {
        StopAt::Lsn(lsn) | StopAt::After(lsn) => *lsn,
        _ => request.route.first_lost.as_ref().map_or(request.route.log_end, |c| c.lsn),
    };
    let mut raises = 0;
    loop {
        // What an earlier stop wrote there proves nothing about this one.
        let log_from = std::fs::metadata(&instance.layout.log).map_or(0, |m| m.len());
        let begun = instance.begin_start_of_run()?;
        let followed = follow(instance, (&begun, log_from), (start, goal), request, log, watch, cancel).await;
        let Err(failed) = followed else { return followed };
        let stopped = instance.stop_begun(&begun, Stop::Immediate, Duration::from_secs(60));
        let raised = too_low(&log_since(instance, log_from)).filter(|_| raises < MOST_RAISES && !cancel.is_cancelled());
        let Some(raised) = raised else { return Err(failed) };
        stopped?;
        raises += 1;
        watch.line(&format!("the source raised a limit on the way ({raised}): started again with it, going on"));
        configure(instance, request, &log.restore_command)?;
    }
}

/// The limit that is lower here than the log says it was at the source, with both values, by the words of the server
/// (`CheckRequiredParameterValues` of PostgreSQL; with 13 and older the value stands in brackets).
fn too_low(said: &str) -> Option<String> {
    let line = said.lines().find(|l| l.contains("is a lower setting than on the "))?;
    let name = line.find("max_").map(|at| &line[at..])?;
    let word = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().map(str::to_string);
    let numbers = || name.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    Some(format!("{} from {} to {}", word(name)?, numbers().next()?, numbers().next_back()?))
}

async fn follow(
    instance: &Instance,
    (begun, log_from): (&Starting, u64),
    (start, goal): (Lsn, Lsn),
    request: &Request,
    log: &Log,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Reached> {
    let began = Instant::now();
    let at = instance.database("postgres");
    let mut still: Option<(Lsn, Instant)> = None;
    let mut first_time: Option<Time> = None;
    let mut held: Option<PgConnection> = None;
    let mut told: Option<Instant> = None;
    let mut asked = false;
    loop {
        check_cancel(cancel, "the shadow was stopped; its folder is left")?;
        let state = instance.poll_start(begun).map_err(|e| explain(e, log, instance, log_from))?;
        let mut reached = Position { lsn: None, time: None, paused: false, recovering: true, waiting: false };
        if state == State::Ready
            && let Ok(p) = position(&at, &mut held).await
        {
            reached = p;
        }
        if !reached.recovering {
            return Err(Error::check("the shadow ended its recovery by itself")
                .why("it came to the end of the log before its target")
                .hint("do not use it; look at the range: breakglass pitr range"));
        }
        if request.route.stop == StopAt::End && state != State::Ready {
            ends_too_early(instance, request)?;
        }
        first_time = first_time.or(reached.time);
        if reached.paused || told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            watch.phase(&replay_phase(start, goal, &reached, first_time, request, log, began.elapsed()));
        }
        if reached.paused && request.route.stop == StopAt::End && !asked {
            let tail = CleanText::line(instance.log_tail(3).as_bytes());
            return Err(Error::check("the shadow stopped replaying before the end of the log")
                .why(format!("nobody asked it to; its log says: {tail}")));
        }
        if reached.paused {
            let stands = verify_reached(instance, request, log, &reached, log_from)?;
            return Ok(Reached { time: last_commit(&mut held, stands.time).await, ..stands });
        }
        if request.route.stop == StopAt::End
            && let Some(lsn) = reached.lsn
        {
            // A standby waits at the end of the archive: it is there when it was given the last segment, nothing moved for a
            // while, and it says that it waits for more. A large record, or a slow segment, takes its time as well.
            match still {
                Some((l, since)) if l == lsn => {
                    let quiet = since.elapsed() > Duration::from_secs(3) && reached.waiting;
                    if quiet && !asked && all_handed_out(request, log) {
                        let mut c = at.connect().await?;
                        crate::postgres::connect::run(&mut c, "SELECT pg_catalog.pg_wal_replay_pause()").await?;
                        asked = true;
                    } else if quiet && !asked && since.elapsed() > STANDSTILL {
                        let end = request.route.log_end;
                        return Err(Error::check(format!("the shadow stands still at {lsn}"))
                            .why(format!("the archived log goes on to {end}, and it asks for no more of it"))
                            .hint(format!("the server's own log says more: {}", instance.layout.log.display())));
                    }
                }
                _ => still = Some((lsn, Instant::now())),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The last commit that was replayed, by the commit times. The server's own answer ([`Reached::time`]) is the time of a rollback as well,
/// and does not count the very record that it stopped after; without commit times it is all there is.
async fn last_commit(held: &mut Option<PgConnection>, otherwise: Option<Time>) -> Option<Time> {
    let Some(c) = held else { return otherwise };
    match super::tables::commit_times(c).await {
        Ok(true) => super::locate::last_commit(c).await.unwrap_or(otherwise),
        _ => otherwise,
    }
}

/// A standby that has come to the end of the archive before its base backup is consistent would wait there for ever.
fn ends_too_early(instance: &Instance, request: &Request) -> Result<()> {
    let log = crate::postgres::instance::read_tail(&instance.layout.log, 64 * 1024);
    let waits: Vec<&str> = log.lines().filter(|l| l.contains("waiting for WAL to become available at")).collect();
    // It asks every five seconds; twice may be a segment that is just being archived.
    if waits.len() < 3 {
        return Ok(());
    }
    let at = waits.last().and_then(|l| l.rsplit(' ').next()).unwrap_or("?");
    let stop = request.route.backup.stop_lsn.as_deref().unwrap_or("its end");
    Err(Error::check("the archived log ends before the base backup is consistent")
        .why(format!("the log can be read up to {at}, backup {} needs it up to {stop}", request.route.backup.id))
        .hint(format!("the server's own log says more: {}", instance.layout.log.display()))
        .hint("look at what is archived: breakglass wal status; an older backup may do"))
}

/// A server that stopped because a segment could not be had says so in its log only; the service knows why. One that
/// stopped at a tablespace was made to ([`super::shadow::tablespaces`]).
fn explain(e: Error, log: &Log, instance: &Instance, log_from: u64) -> Error {
    let said = log_since(instance, log_from);
    if let Some(line) = said.lines().find(|l| l.contains("Tablespace/CREATE")) {
        let place = line.split_once("Tablespace/CREATE: ").map_or(line, |(_, place)| place);
        return Error::refused("the log creates a tablespace on the way to this moment")
            .why(format!(
                "{}: its files are the source's, and the recovered instance would write into them",
                CleanText::line(place.as_bytes())
            ))
            .hint("nothing of the source was touched; recover to a moment before the tablespace was made")
            .hint("for later moments: move its tables into pg_default, drop it, and take a new base backup");
    }
    match log.served().failed {
        Some(cause) => Error::check("recovery stopped: the log could not be read").why(cause).why(e.what),
        None => e,
    }
}

/// Whether the instance really stands before its target, and not at a gap.
fn verify_reached(instance: &Instance, request: &Request, log: &Log, p: &Position, log_from: u64) -> Result<Reached> {
    if let Some(cause) = log.served().failed {
        return Err(Error::check("the shadow did not reach its target").why(cause));
    }
    let Some(lsn) = p.lsn else { return Err(Error::check("the shadow says no position")) };
    let wrong = |why: String| Err(Error::check("the shadow is not where it should be").why(why));
    match &request.route.stop {
        // Nobody but us tells damage from the end of the log; the last segment of the archive must have been reached.
        StopAt::End if log.service.is_none() && lsn.0 < last_segment(request) => {
            return wrong(format!("it stands at {lsn}, the archived log goes on to {}", request.route.log_end));
        }
        // A position that a person gave may lie inside a record, which is then replayed whole; that of a commit does not.
        StopAt::Lsn(goal) if lsn > *goal && request.route.first_lost.is_some() => {
            return wrong(format!("it stands at {lsn}, after {goal}"));
        }
        StopAt::After(goal) if lsn <= *goal => return wrong(format!("it stands at {lsn}, not after {goal}")),
        StopAt::Including(goal) if p.time.is_some_and(|t| t > *goal) => {
            return wrong(format!("it replayed a commit of {}, after {goal}", p.time.unwrap_or_default()));
        }
        StopAt::Time(goal) if p.time.is_some_and(|t| t >= *goal) => {
            return wrong(format!("it replayed a commit of {}, not before {goal}", p.time.unwrap_or_default()));
        }
        _ => {}
    }
    // The server's own words; without them a pause could be anything.
    let said = log_since(instance, log_from);
    let words = if matches!(request.route.stop, StopAt::After(_)) {
        "recovery stopping after"
    } else {
        "recovery stopping before"
    };
    if request.route.stop != StopAt::End && !said.contains(words) {
        let tail = CleanText::line(instance.log_tail(3).as_bytes());
        return wrong(format!("its log does not say that it stopped before the target: {tail}"));
    }
    Ok(Reached { lsn, time: p.time })
}

/// Whether the server was given the last segment of the archived log, or a later one. Who hands it out for others does not say.
fn all_handed_out(request: &Request, log: &Log) -> bool {
    if log.service.is_none() {
        return true;
    }
    let size = segment_bytes(request);
    let given = log.served().last_segment.and_then(|name| Segment::parse(&name)).map(|s| s.number(size));
    given.is_some_and(|n| n >= request.route.log_end.0.saturating_sub(1) / u64::from(size))
}

fn segment_bytes(request: &Request) -> u32 {
    request.route.backup.wal_segment_size.unwrap_or(crate::backup::wal::DEFAULT_SEGMENT_SIZE)
}

/// Where the last segment of the archive begins.
fn last_segment(request: &Request) -> u64 {
    request.route.log_end.0.saturating_sub(u64::from(segment_bytes(request)))
}

/// What the server wrote to its log since that had `from` bytes; the last 256 KiB of it.
fn log_since(instance: &Instance, from: u64) -> String {
    let written = std::fs::metadata(&instance.layout.log).map_or(0, |m| m.len()).saturating_sub(from);
    crate::postgres::instance::read_tail(&instance.layout.log, written.min(256 * 1024))
}

fn replay_phase(
    start: Lsn,
    goal: Lsn,
    p: &Position,
    first: Option<Time>,
    request: &Request,
    log: &Log,
    took: Duration,
) -> Phase {
    let served = log.served();
    // Before the server answers, the segments it took say how far it is.
    let at = p.lsn.or_else(|| {
        let name = served.last_segment.as_deref()?;
        let size = request.route.backup.wal_segment_size.unwrap_or(crate::backup::wal::DEFAULT_SEGMENT_SIZE);
        Lsn::of_segment(name, u64::from(size)).map(|(_, l)| l)
    });
    let total = goal.0.saturating_sub(start.0);
    let done = at.map_or(0, |l| l.0.saturating_sub(start.0)).min(total);
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1000) / ms;
    let upto = request.route.first_lost.as_ref().map(|c| c.at);
    let text = match (first.and(p.time), upto) {
        (Some(now), Some(goal)) => format!("{} → {}", now.hms(), goal.hms()),
        (Some(now), None) => format!("{} → {}", now.hms(), request.route.target),
        _ => at.map_or_else(String::new, |l| l.to_string()),
    };
    Phase {
        name: "replay",
        done,
        total: Some(total),
        unit: "bytes",
        text,
        rate: (rate > 0).then_some(rate),
        eta_ms: (rate > 0).then(|| total.saturating_sub(done).saturating_mul(1000) / rate),
    }
}
