//! Supabase as one who recovers: in place, asked once over its Management API, believed on evidence only.
//!
//! What there is to know of it: a restore is asked for by whole seconds and has no name by which it could be found again; after it
//! was accepted the status may go on saying "healthy", and a dead host may say so, too; a restore may hang for a day.

mod follow;
mod packet;
mod request;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::backend::{
    Abilities, Backups, Cannot, Goal, Known, Order, Patience, Reachable, Recovery, Seen, Started, Verdict, Verified,
    Way, Which, mismatched,
};
use super::origin::Origin;
use super::watch::{Phase, Watch, check_cancel};
use crate::config::backend::SupabaseSettings;
use crate::config::settings::{DATABASE_PASSWORD, SUPABASE_TOKEN};
use crate::config::{Backend, Secrets, Settings};
use crate::error::{Error, Result};
use crate::model::target::RecoveryTarget;
use crate::model::{CleanText, Time, format_clock};
use crate::postgres::Database;
use crate::provider::supabase::{Client, Project, Trouble};

pub use follow::{Ending, Outcome};
pub use request::{Glimpse, Noted, Records, Request, Stage, Stands};

/// Folder of the records in the state directory.
pub const REQUESTS: &str = "requests";
/// Status of a project that is well.
pub const HEALTHY: &str = "ACTIVE_HEALTHY";
/// Status of a project that is being restored.
pub const RESTORING: &str = "RESTORING";

/// A restore in place that can be asked for, or that was and is to be followed.
#[derive(Debug, Clone)]
pub struct InPlace {
    /// The project's reference: what a person types to confirm.
    pub project_ref: String,
    /// Its name.
    pub name: String,
    /// The target as it was asked for.
    pub target: RecoveryTarget,
    /// The last second that will be there.
    pub unix: i64,
    /// The window, in seconds.
    pub window: Option<(i64, i64)>,
    /// What was seen of the database before.
    pub before: Glimpse,
    /// What a person must know first.
    pub warnings: Vec<String>,
    /// The earlier request that is followed instead of asking again.
    pub resumes: Option<Box<Request>>,
    /// Why to ask once more although an earlier request is not known to have ended.
    pub again: Option<String>,
}

/// Supabase, for one project.
#[derive(Clone)]
pub struct Supabase {
    client: Arc<Client>,
    settings: SupabaseSettings,
    records: Option<Records>,
    /// The database as its users reach it.
    database: Option<Database>,
}

fn now() -> Time {
    Time::from_system(SystemTime::now())
}

impl Supabase {
    /// The project of the settings.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn of(settings: &Settings, secrets: &Secrets) -> Result<Self> {
        let client = Client::new(&settings.supabase, secrets.get(SUPABASE_TOKEN))?;
        let database = settings.database.as_ref().map(|c| Database::of(c, secrets.get(DATABASE_PASSWORD).cloned()));
        let records = settings.requests.as_deref().map(|folder| Records::new(folder, client.reference()));
        Ok(Self { client: Arc::new(client), settings: settings.supabase.clone(), records, database })
    }

    fn poll(&self) -> Duration {
        Duration::from_millis(self.settings.poll_ms)
    }

    /// How long another may hold the records: it may be waiting for the answer.
    fn patience(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms) + Duration::from_secs(5)
    }

    fn records(&self) -> Result<&Records> {
        self.records.as_ref().ok_or_else(|| {
            Error::state("there is no state directory to keep the record of the request in")
                .why("without it a crash could lead to asking twice")
                .hint("set BREAKGLASS_HOME to a folder that can be written")
        })
    }

    /// Asks a question that only reads, a few times if need be; a rate limit is waited for.
    async fn read<T, F>(&self, doing: &str, cancel: &CancellationToken, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let mut left = 3;
        loop {
            check_cancel(cancel, "nothing was asked for")?;
            left -= 1;
            let trouble = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(t) => t,
            };
            let pause = match &trouble {
                Trouble::Declined { status: 429, wait, .. } => wait.unwrap_or(Duration::from_secs(60)),
                Trouble::Declined { .. } => return Err(self.client.error(doing, &trouble)),
                _ => self.poll().min(Duration::from_secs(2)),
            };
            if left == 0 {
                return Err(self.client.error(doing, &trouble));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    /// The last whole second that is there afterwards. Supabase restores up to and with a second, our targets are "before".
    fn second(target: Time, after: bool) -> i64 {
        let micros = target.micros();
        let up = micros.div_euclid(1_000_000) + i64::from(micros.rem_euclid(1_000_000) > 0);
        if after { up } else { up - 1 }
    }

    async fn preflight_now(&self, goal: &Goal, watch: &dyn Watch, cancel: &CancellationToken) -> Result<Way> {
        self.abilities().takes(Backend::Supabase, &goal.target)?;
        let project = self.read("read the status", cancel, || self.client.project()).await?;
        let asked = match &goal.target {
            RecoveryTarget::Time(t) => Some(Self::second(*t, goal.after)),
            _ => None,
        };
        let earlier = self.records()?.load()?.filter(|_| goal.again.is_none());
        if let Some(r) = self.earlier(earlier, &goal.target, asked)? {
            return Ok(Way::InPlace(Box::new(InPlace {
                project_ref: self.client.reference().to_string(),
                name: project.name,
                target: goal.target.clone(),
                unix: r.unix,
                window: None,
                before: r.before.clone(),
                warnings: Vec::new(),
                resumes: Some(Box::new(r)),
                again: None,
            })));
        }
        self.may_be_asked(&project)?;
        let (earliest, latest) = self.window(cancel).await?;
        let mut waits = None;
        let unix = match asked {
            Some(unix) => {
                waits = self.within(goal, unix, (earliest, latest), watch, cancel).await?;
                unix
            }
            None => latest,
        };
        let before = self.glimpse().await.unwrap_or_default();
        let mut warnings = self.warnings(&before).await;
        warnings.extend(waits);
        Ok(Way::InPlace(Box::new(InPlace {
            project_ref: self.client.reference().to_string(),
            name: project.name,
            target: goal.target.clone(),
            unix,
            window: Some((earliest, latest)),
            before,
            warnings,
            resumes: None,
            again: goal.again.clone(),
        })))
    }

    /// The earlier request, when that is what is followed instead of asking.
    ///
    /// # Errors
    /// Refused when it stands in the way of another.
    fn earlier(&self, r: Option<Request>, target: &RecoveryTarget, unix: Option<i64>) -> Result<Option<Request>> {
        let Some(r) = r else { return Ok(None) };
        match r.stands(target, unix) {
            Stands::Followed => Ok(Some(r)),
            Stands::Aside => Ok(None),
            Stands::InTheWay => {
                let became = match r.stage {
                    Stage::Failed => "failed",
                    _ => "is not known to have ended",
                };
                let mut error = Error::refused(format!("project {} was asked for a restore already", r.project_ref))
                    .why(format!("at {}, to {}, which {became}", r.requested_at, r.target));
                if let Some(hint) = r.to_follow() {
                    error = error.hint(hint);
                }
                Err(error.hint("to ask anew all the same: --again REASON, which is kept on the record"))
            }
        }
    }

    /// Whether a project in this state can be asked for a restore.
    fn may_be_asked(&self, project: &Project) -> Result<()> {
        let reference = self.client.reference();
        let status = CleanText::line(project.status.as_bytes()).to_string();
        match status.as_str() {
            HEALTHY | "ACTIVE_UNHEALTHY" => Ok(()),
            RESTORING => Err(Error::refused(format!("project {reference} is being restored already"))
                .why("nobody here asked for it, as far as is on record")
                .hint("wait until its status is ACTIVE_HEALTHY again: breakglass pitr range shows it")
                .hint("find out in the dashboard who asked, and for which moment")),
            "INACTIVE" | "PAUSING" => Err(Error::refused(format!("project {reference} is paused: {status}"))
                .why("a paused project cannot be restored to a moment")
                .hint("resume it in the dashboard first, then try again")),
            _ => Err(Error::refused(format!("project {reference} cannot be restored now: its status is {status}"))
                .hint("wait until it is ACTIVE_HEALTHY; if it stays so, write to Supabase's support")),
        }
    }

    async fn window(&self, cancel: &CancellationToken) -> Result<(i64, i64)> {
        let backups = self.read("list the backups", cancel, || self.client.backups()).await?;
        let reference = self.client.reference();
        if !backups.pitr_enabled {
            let done = backups.backups.iter().filter(|b| b.status == "COMPLETED").count();
            return Err(Error::refused(format!("point-in-time recovery is not enabled for project {reference}"))
                .why(format!("it has {done} daily backups: breakglass backup list"))
                .hint("restore a daily backup in the dashboard (Database, Backups), or an own dump into a new project")
                .hint("the add-on counts from the day it is bought: it does not reach back"));
        }
        backups.window().ok_or_else(|| {
            Error::refused(format!("nothing of project {reference} can be restored to yet"))
                .why("point-in-time recovery is on and has no physical backup so far")
                .hint("a daily backup may be there: breakglass backup list")
        })
    }

    /// Refuses a second outside the window; one that the window is about to reach is waited for, or warned of, if that is wanted.
    async fn within(
        &self,
        goal: &Goal,
        unix: i64,
        (earliest, mut latest): (i64, i64),
        watch: &dyn Watch,
        cancel: &CancellationToken,
    ) -> Result<Option<String>> {
        let at = |s: i64| Time::from_micros(s.saturating_mul(1_000_000));
        let refused = |why: String| Error::refused(format!("cannot recover to {}", goal.target)).why(why);
        // The same figure in milliseconds is far in the future.
        if unix <= 0 || unix > 100_000_000_000 {
            return Err(refused(format!("{unix} is no time in seconds since 1970")));
        }
        if unix < earliest {
            return Err(refused(format!("it is before the earliest moment, {}", at(earliest)))
                .hint(format!("the earliest is --to time:{}", at(earliest + 1)))
                .hint("an older state may be in a dump of your own: breakglass backup list"));
        }
        let began = Instant::now();
        let settle = Duration::from_millis(self.settings.settle_ms);
        if unix > latest && goal.patience == Patience::Warn {
            let upto = format_clock(settle);
            return Ok(Some(format!("the window reaches {} only; it is waited for, {upto} at most", at(latest))));
        }
        let settle = if goal.patience == Patience::Wait { settle } else { Duration::ZERO };
        while unix > latest && began.elapsed() < settle {
            check_cancel(cancel, "nothing was asked for")?;
            watch.phase(&Phase {
                name: "window",
                unit: "s",
                text: format!("reaches {}, waiting for {}", at(latest), at(unix)),
                ..Phase::default()
            });
            tokio::select! {
                () = tokio::time::sleep(self.poll()) => {}
                () = cancel.cancelled() => {}
            }
            latest = self.window(cancel).await?.1;
        }
        if unix > latest {
            let waited = match !settle.is_zero() {
                true => format!(" (waited {} s for it)", settle.as_secs()),
                false => String::new(),
            };
            return Err(refused(format!("it is after the latest moment, {}{waited}", at(latest)))
                .hint("its log arrives every two minutes or sooner; an idle database sends none, and the window stands still")
                .hint(format!(
                    "when nothing was committed since, the latest moment is the same state: --to time:{}",
                    at(latest + 1)
                )));
        }
        Ok(None)
    }

    /// What a person must know before it is overwritten.
    async fn warnings(&self, before: &Glimpse) -> Vec<String> {
        let mut all = Vec::new();
        if before.started.is_none() {
            all.push(
                "WARNING: the database does not answer now; Supabase refuses to restore one that is unreachable".into(),
            );
        }
        let sql = "SELECT slot_name::text AS name FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' \
                   AND slot_name NOT LIKE 'supabase_realtime%' UNION ALL SELECT subname::text FROM pg_catalog.pg_subscription";
        if let Ok(rows) = self.client.query(sql).await {
            let names: Vec<&str> = rows.iter().filter_map(|r| r.get("name")?.as_str()).collect();
            if !names.is_empty() {
                let list = CleanText::line(names.join(", ").as_bytes()).to_string();
                all.push(format!("DROP FIRST, and make again afterwards: replication slots and subscriptions {list}"));
            }
        }
        all
    }

    async fn start_now(&self, order: &InPlace, watch: &dyn Watch) -> Result<Started> {
        let records = self.records()?;
        let held = records.lock(self.patience())?;
        // Read again under the lock: somebody else may have asked meanwhile.
        let earlier = records.load()?;
        let standing = earlier.clone().filter(|_| order.again.is_none());
        if let Some(r) = self.earlier(standing, &order.target, Some(order.unix))? {
            watch.line(&format!("asked for at {} already: that is followed, nothing is sent", r.requested_at));
            return Ok(Started::Asked(Box::new(r)));
        }
        if let Some(mut old) = earlier.clone() {
            if old.stage.is_open() {
                old.stage = Stage::GivenUp;
                old.note(now(), format!("given up: {}", order.again.as_deref().unwrap_or_default()));
            }
            records.set_aside(&old)?;
        }
        let mut request = Request {
            v: 1,
            project_ref: order.project_ref.clone(),
            target: order.target.to_string(),
            unix: order.unix,
            requested_at: now(),
            stage: Stage::Intended,
            before: order.before.clone(),
            seen_restoring: false,
            seen_away: false,
            seen: Vec::new(),
            restored_at: None,
            verdict: Vec::new(),
        };
        if let Some(reason) = &order.again {
            request.note(now(), format!("asked again although an earlier request is on record: {reason}"));
        }
        // Before it leaves.
        records.save(&request)?;
        watch.line(&format!("asking Supabase to restore {} to {}", request.project_ref, request.second()));
        let answer = self.client.restore(order.unix).await;
        let refused = match answer {
            Ok(answer) => {
                request.stage = Stage::Accepted;
                request.note(now(), format!("accepted: {answer}"));
                watch.line(&format!("accepted ({answer}); that alone proves nothing yet"));
                None
            }
            Err(t) if t.may_have_happened() => {
                request.stage = Stage::Unclear;
                request.note(now(), format!("no clear answer: {}", t.describe()));
                watch.line(&format!(
                    "NO CLEAR ANSWER: {}; it is not asked again, what becomes of it is looked up",
                    t.describe()
                ));
                None
            }
            Err(t) => {
                request.stage = Stage::Declined;
                request.note(now(), format!("declined: {}", t.describe()));
                Some(t)
            }
        };
        // The only handle there is for Supabase's people, should it hang.
        if let Some(call) = self.client.calls().iter().rev().find(|c| c.what.ends_with("restore-pitr")) {
            let ids: Vec<String> = call.ids.iter().map(|(name, id)| format!("{name} {id}")).collect();
            if !ids.is_empty() {
                request.note(call.at, format!("their name of the request: {}", ids.join(", ")));
            }
        }
        // Nothing came of this one: an earlier one is what matters still, whatever it came to.
        let back = earlier.filter(|old| refused.is_some() && old.stage != Stage::Declined).map(|mut old| {
            for n in &request.seen {
                old.note(n.at, format!("when asked for {}: {}", request.second(), n.what));
            }
            old
        });
        let kept = match &back {
            Some(old) => records.put_back(old),
            None => records.save(&request),
        };
        if let Err(e) = kept {
            // What is on record already leads whoever comes next to follow it.
            watch.line(&format!("the answer could not be kept: {e}"));
        }
        drop(held);
        let Some(t) = refused else { return Ok(Started::Asked(Box::new(request))) };
        let error = self.client.error("restore the database", &t).hint("nothing was restored, nothing changed");
        Err(match back.filter(|old| old.stage.is_open()) {
            Some(old) => {
                let hint =
                    format!("the request of {} is on record as before, and may still be going on", old.requested_at);
                old.to_follow().into_iter().fold(error.hint(hint), Error::hint)
            }
            None => error,
        })
    }
}

impl Recovery for Supabase {
    fn backend(&self) -> Backend {
        Backend::Supabase
    }
    fn place(&self) -> String {
        format!("project {} of Supabase", self.client.reference())
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            beside: false,
            in_place: true,
            targets: &["time", "latest"],
            cannot: &[
                Cannot {
                    what: "build an instance beside the damaged database",
                    why: "Supabase restores to a moment in place only; into a new project its dashboard can, its API cannot",
                    instead: "in the dashboard: Database, Backups, Restore to new project; or overwrite: --into place",
                },
                Cannot {
                    what: "stop at a position, a transaction or a restore point (target)",
                    why: "its API takes whole seconds",
                    instead: "give the time just before the damage: --to time:…Z",
                },
                Cannot {
                    what: "bring back files of Storage",
                    why: "they are not part of its backups, only their entries in the database are",
                    instead: "restore them from where they came; what was uploaded later reads 404 afterwards",
                },
                Cannot {
                    what: "verify its backups",
                    why: "nobody outside sees them",
                    instead: "restore one into a new project now and then, and take dumps of your own",
                },
            ],
        }
    }
    fn cluster(&self) -> Result<Option<String>> {
        Ok(None)
    }
    fn backups(&self) -> BoxFuture<'_, Result<Backups>> {
        Box::pin(async move {
            let b = self.read("list the backups", &CancellationToken::new(), || self.client.backups()).await?;
            let at = |s: i64| Time::from_micros(s.saturating_mul(1_000_000));
            let clean = |t: &str| CleanText::line(t.as_bytes()).to_string();
            let mut lines: Vec<String> = b
                .backups
                .iter()
                .map(|d| {
                    let id = d.id.map_or_else(|| "?".to_string(), |id| id.to_string());
                    let kind = if d.is_physical_backup { "physical" } else { "logical" };
                    format!("{id}  daily, {kind}, {}, {}", clean(&d.status), clean(&d.inserted_at))
                })
                .collect();
            match (b.pitr_enabled, b.window()) {
                (true, Some((e, l))) => lines.push(format!("point-in-time recovery from {} to {}", at(e), at(l))),
                (true, None) => lines.push("point-in-time recovery is on, and reaches nothing yet".into()),
                (false, _) => lines.push("point-in-time recovery is not enabled".into()),
            }
            let json = serde_json::json!({
                "backend": "supabase", "project_ref": self.client.reference(), "pitr_enabled": b.pitr_enabled,
                "earliest": b.window().map(|w| at(w.0)), "latest": b.window().map(|w| at(w.1)), "backups": b.backups,
            });
            Ok(Backups { damaged: false, lines, warnings: Vec::new(), json })
        })
    }
    fn range(&self, _: Option<u32>) -> BoxFuture<'_, Result<Vec<Reachable>>> {
        Box::pin(async move {
            let cancel = CancellationToken::new();
            let project = self.read("read the status", &cancel, || self.client.project()).await?;
            let b = self.read("list the backups", &cancel, || self.client.backups()).await?;
            let at = |s: i64| Time::from_micros(s.saturating_mul(1_000_000));
            let window = b.window().filter(|_| b.pitr_enabled);
            let mut notes =
                vec![format!("project {} is {}", self.client.reference(), CleanText::line(project.status.as_bytes()))];
            notes.push(match (b.pitr_enabled, window) {
                (false, _) => "point-in-time recovery is not enabled: only a daily backup can be restored".into(),
                (true, None) => "point-in-time recovery is on, and has no physical backup yet".into(),
                (true, Some(_)) => "its log arrives every two minutes or sooner; an idle database sends none, so the \
                                    latest moment may look old although nothing is lost"
                    .to_string(),
            });
            let backups = b.backups.iter().filter(|d| d.status == "COMPLETED").map(|d| Known {
                id: d.id.map_or_else(String::new, |id| id.to_string()),
                finished_at: Time::parse(&d.inserted_at).ok(),
                from: None,
                damaged: None,
            });
            Ok(vec![Reachable {
                earliest: window.map(|w| at(w.0)),
                latest: window.map(|w| at(w.1)),
                backups: backups.collect(),
                notes,
                ..Reachable::default()
            }])
        })
    }
    fn preflight<'a>(
        &'a self,
        goal: &'a Goal,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Way>> {
        Box::pin(async move { self.preflight_now(goal, &*watch, cancel).await })
    }
    fn start<'a>(
        &'a self,
        order: &'a Order,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async move {
            let Order::InPlace(order) = order else { return Err(mismatched(Backend::Supabase)) };
            check_cancel(cancel, "nothing was asked for")?;
            match &order.resumes {
                Some(r) => {
                    watch.line(&format!("asked for at {} already: that is followed, nothing is sent", r.requested_at));
                    Ok(Started::Asked(r.clone()))
                }
                None => self.start_now(order, &*watch).await,
            }
        })
    }
    fn follow<'a>(
        &'a self,
        started: Started,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Verdict>> {
        Box::pin(async move {
            let Started::Asked(request) = started else { return Err(mismatched(Backend::Supabase)) };
            Ok(Verdict::InPlace(Box::new(follow::follow(self, *request, &*watch, cancel).await?)))
        })
    }
    fn verify<'a>(
        &'a self,
        _: &'a Which,
        _: Arc<dyn Watch>,
        _: &'a CancellationToken,
        _: Seen,
    ) -> BoxFuture<'a, Result<Vec<Verified>>> {
        Box::pin(async move {
            Err(Error::usage("the backups of Supabase cannot be verified from outside")
                .why("its API lists them and lets nobody read them")
                .hint("restore one into a new project now and then (dashboard, Database, Backups, Restore to new project)")
                .hint("take and verify dumps of your own: breakglass backup create, with recovery.backend = \"native\""))
        })
    }
    fn origin(&self) -> Option<&dyn Origin> {
        None
    }
}
