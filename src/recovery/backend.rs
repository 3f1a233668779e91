//! Who recovers, behind one trait: our own repository, an installation of pgBackRest, or whoever runs the database for us.
//!
//! A recovery is either built beside, as an isolated instance that everything else then works with, or done in place by
//! somebody else, who is asked once and watched.

mod native;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;
use super::pgbackrest::PgBackRest;
use super::range::tablespace::InTheWay;
use super::range::{Base, Reach, Route};
use super::shadow::{self, Shadow};
use super::supabase::{InPlace, Outcome, Request, Supabase};
use super::watch::Watch;
use crate::backup::wal::Hole;
use crate::config::{Backend, Secrets, Settings};
use crate::error::{Error, Result};
use crate::model::Time;
use crate::model::target::{Identity, RecoveryTarget};
use crate::postgres::Lsn;

pub use native::{Native, known_damage};

/// Something that cannot be done, why, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cannot {
    /// What.
    pub what: &'static str,
    /// Why.
    pub why: &'static str,
    /// Instead.
    pub instead: &'static str,
}

/// Of everybody who builds beside.
pub(super) const NEVER_IN_PLACE: Cannot = Cannot {
    what: "overwrite the damaged database in place",
    why: "it is the evidence, and the way back",
    instead: "recover beside it, verify there, then breakglass pitr promote",
};

/// What a backend can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Abilities {
    /// Builds an instance beside the damaged one.
    pub beside: bool,
    /// Overwrites the damaged one.
    pub in_place: bool,
    /// Kinds of target: `time`, `lsn`, `xid`, `name`, `latest`.
    pub targets: &'static [&'static str],
    /// What it cannot do.
    pub cannot: &'static [Cannot],
}

impl Abilities {
    /// Whether it can recover to such a target.
    ///
    /// # Errors
    /// Usage, saying which kinds it can.
    pub fn takes(&self, backend: Backend, target: &RecoveryTarget) -> Result<()> {
        let kind = match target {
            RecoveryTarget::Time(_) => "time",
            RecoveryTarget::Lsn(_) => "lsn",
            RecoveryTarget::Xid(_) => "xid",
            RecoveryTarget::Name(_) => "name",
            RecoveryTarget::Latest => "latest",
        };
        if self.targets.contains(&kind) {
            return Ok(());
        }
        let mut error = Error::usage(format!("{} cannot recover to {target}", backend.word()))
            .why(format!("it takes only {}", self.targets.join(" and ")));
        for c in self.cannot.iter().filter(|c| c.what.contains("target")) {
            error = error.hint(c.instead);
        }
        Err(error)
    }
}

/// A backup as a backend knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its name there.
    pub id: String,
    /// When it was complete, when that is known.
    pub finished_at: Option<Time>,
    /// Log position recovery begins at.
    pub from: Option<String>,
    /// That it was found damaged, in a phrase.
    pub damaged: Option<String>,
}

/// All backups.
#[derive(Debug, Clone)]
pub struct Backups {
    /// Oldest first, one line each, for people.
    pub lines: Vec<String>,
    /// Something of it is missing or damaged.
    pub damaged: bool,
    /// What is wrong with the list as a whole.
    pub warnings: Vec<String>,
    /// What `--json` prints.
    pub json: serde_json::Value,
}

/// What can be recovered to on one timeline, or where there are none, at all.
#[derive(Debug, Clone, Default)]
pub struct Reachable {
    /// The timeline, where it is known.
    pub timeline: Option<u32>,
    /// From here on.
    pub earliest: Option<Time>,
    /// The position of that.
    pub earliest_lsn: Option<Lsn>,
    /// Up to here.
    pub latest: Option<Time>,
    /// The position of that.
    pub latest_lsn: Option<Lsn>,
    /// Last segment of the unbroken log.
    pub last_segment: Option<String>,
    /// Where that log ends.
    pub end_lsn: Option<Lsn>,
    /// Backups it can begin with, oldest first.
    pub backups: Vec<Known>,
    /// What breaks the log.
    pub holes: Vec<Hole>,
    /// Tablespaces made in the log, which no recovery goes past.
    pub tablespaces: Vec<InTheWay>,
    /// Segments the index does not know yet; none where there is no index.
    pub unread: Option<u64>,
    /// Segments on the way that were touched since they were read; none where there is no index.
    pub touched: Option<u64>,
    /// Every segment on the way was last read to its last byte then, or later; those that never were do not count.
    pub read_since: Option<Time>,
    /// What a person should know about these figures.
    pub notes: Vec<String>,
    /// That the list of backups ends before what was seen of it from here, or is another one: backups may be missing from these figures.
    pub rolled_back: Option<Error>,
}

/// The newest backup of all that say when they were complete, and when that was.
pub fn newest_backup(ranges: &[Reachable]) -> Option<(Time, &str)> {
    ranges.iter().flat_map(|r| &r.backups).filter_map(|b| b.finished_at.map(|at| (at, b.id.as_str()))).max()
}

impl Reachable {
    /// From when on it rests on a backup that was not found damaged; none when all were.
    pub fn undamaged_from(&self) -> Option<Time> {
        let known = self.backups.iter().any(|b| b.damaged.is_some());
        match known {
            true => self.backups.iter().filter(|b| b.damaged.is_none()).filter_map(|b| b.finished_at).min(),
            false => self.earliest,
        }
    }
    /// From what was found in an archive. `indexed`: it has an index of the log.
    pub fn of(r: Reach, indexed: bool) -> Self {
        let known = |m: &crate::backup::catalog::Manifest| Known {
            id: m.id.clone(),
            finished_at: Some(m.finished_at),
            from: m.start_lsn.clone(),
            damaged: None,
        };
        // Nothing was committed since the first backup, as far as the log goes: its end is all there is.
        let latest = r.latest.as_ref().map(|c| (c.at, c.lsn)).filter(|(at, _)| r.earliest.is_none_or(|e| *at >= e));
        let (latest, latest_lsn) = match latest {
            Some((at, lsn)) => (Some(at), Some(lsn)),
            None => (r.earliest, r.earliest_lsn),
        };
        Self {
            timeline: Some(r.timeline),
            earliest: r.earliest,
            earliest_lsn: r.earliest_lsn,
            latest,
            latest_lsn,
            last_segment: r.last_segment,
            end_lsn: r.end_lsn,
            backups: r.backups.iter().map(known).collect(),
            holes: r.holes,
            tablespaces: r.tablespaces,
            unread: indexed.then_some(r.unread),
            touched: indexed.then_some(r.touched),
            read_since: r.read_since,
            notes: r
                .exchanged
                .iter()
                .map(|e| format!("WAL segment {}: breakglass wal index reads it", e.what()))
                .collect(),
            rolled_back: None,
        }
    }
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The target.
    pub target: RecoveryTarget,
    /// After it, not before.
    pub after: bool,
    /// Along which timeline; the newest when not given.
    pub timeline: Option<u32>,
    /// Transactions that must not be replayed.
    pub suspects: Vec<u32>,
    /// What to do about a moment that is about to be reachable.
    pub patience: Patience,
    /// Why to ask once more although an earlier request is not known to have ended.
    pub again: Option<String>,
    /// Which base backup to begin with.
    pub base: Base,
    /// Write down what is found damaged, where the backups are listed.
    pub records: bool,
}

impl Goal {
    /// To just before this, along the newest timeline, from any base backup, refused when it cannot be reached.
    pub fn to(target: RecoveryTarget) -> Self {
        Self {
            target,
            after: false,
            timeline: None,
            suspects: Vec::new(),
            patience: Patience::Refuse,
            again: None,
            base: Base::default(),
            records: false,
        }
    }
}

/// What to do about a moment that is not reachable yet, and will be soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Refuse it.
    Refuse,
    /// Warn: whoever starts it waits.
    Warn,
    /// Wait for it.
    Wait,
}

/// A target that can be reached, and how.
#[derive(Debug, Clone)]
pub enum Way {
    /// From a base backup along a log.
    Beside(Box<Route>),
    /// By asking whoever runs the database.
    InPlace(Box<InPlace>),
}

/// What to start.
#[derive(Debug, Clone)]
pub enum Order {
    /// Build this instance.
    Beside(Box<shadow::Request>),
    /// Ask for this, once.
    InPlace(Box<InPlace>),
}

/// What was started.
#[derive(Debug, Clone)]
pub enum Started {
    /// It stands already.
    Stands(Box<Shadow>),
    /// It was asked for; what became of it is found out by following.
    Asked(Box<Request>),
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// An isolated instance stands at its target.
    Stands(Box<Shadow>),
    /// Somebody else's verdict, with what it rests on.
    InPlace(Box<Outcome>),
}

/// Which backups to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Newest,
    /// Every one.
    All,
    /// This one.
    One(String),
}

/// A backup, or the log, that was verified.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Backup, or `log`.
    pub what: String,
    /// What was seen when all is right, else what is wrong.
    pub result: Result<String>,
    /// More for `--json`.
    pub detail: serde_json::Value,
    /// Why it could not be written down that all is right, where it was to be.
    pub untold: Option<String>,
}

impl Verified {
    /// That nothing is kept of.
    pub fn new(what: impl Into<String>, result: Result<String>, detail: serde_json::Value) -> Self {
        Self { what: what.into(), result, detail, untold: None }
    }
}

/// Who is told each result as it is there.
pub type Seen = Arc<dyn Fn(&Verified) + Send + Sync>;

/// Who recovers.
pub trait Recovery: Send + Sync {
    /// Which one it is.
    fn backend(&self) -> Backend;

    /// The place the backups are in, for people.
    fn place(&self) -> String;

    /// What it can do, and what it cannot.
    fn abilities(&self) -> Abilities;

    /// System identifier of the cluster it is for, where it knows it.
    ///
    /// # Errors
    /// It cannot be asked.
    fn cluster(&self) -> Result<Option<String>>;

    /// Its backups.
    ///
    /// # Errors
    /// It cannot be asked.
    fn backups(&self) -> BoxFuture<'_, Result<Backups>>;

    /// What can be recovered to, the newest timeline last. That it is nothing is an answer, not an error.
    ///
    /// # Errors
    /// It cannot be asked.
    fn range(&self, timeline: Option<u32>) -> BoxFuture<'_, Result<Vec<Reachable>>>;

    /// Finds out whether a target can be reached, and how; touches nothing but, where the goal says so, the record of what is damaged.
    ///
    /// # Errors
    /// Refused, with what can be reached, when it cannot.
    fn preflight<'a>(
        &'a self,
        goal: &'a Goal,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Way>>;

    /// Starts it. What is asked of somebody else is asked at most once, whatever the answer. As given here: builds beside, from
    /// [`Recovery::origin`].
    ///
    /// # Errors
    /// It was not started; or, for what is built here, did not come to its end.
    fn start<'a>(
        &'a self,
        order: &'a Order,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async move {
            let (Order::Beside(request), Some(origin)) = (order, self.origin()) else {
                return Err(mismatched(self.backend()));
            };
            Ok(Started::Stands(Box::new(shadow::build(request, origin, &*watch, cancel).await?)))
        })
    }

    /// Follows what was started to a verdict. Asks for nothing again. As given here: what was built beside stands.
    ///
    /// # Errors
    /// It cannot be followed, or stopped on request (what was started goes on).
    fn follow<'a>(
        &'a self,
        started: Started,
        _watch: Arc<dyn Watch>,
        _cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Verdict>> {
        Box::pin(async move {
            match started {
                Started::Stands(s) => Ok(Verdict::Stands(s)),
                Started::Asked(_) => Err(mismatched(self.backend())),
            }
        })
    }

    /// Verifies backups. That one is damaged is an answer, not an error. `seen` is told each as it is done.
    ///
    /// # Errors
    /// It cannot verify at all.
    fn verify<'a>(
        &'a self,
        which: &'a Which,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
        seen: Seen,
    ) -> BoxFuture<'a, Result<Vec<Verified>>>;

    /// The last position of the server that is on record beside the log itself, if any is.
    fn last_named(&self) -> BoxFuture<'_, Option<Lsn>> {
        Box::pin(std::future::ready(None))
    }

    /// Where an instance built beside gets files and log from; none for those who recover in place.
    fn origin(&self) -> Option<&dyn Origin>;
}

/// The one of the settings. Blocks while a key is derived. `scratch` is a folder for scratch files.
///
/// # Errors
/// It is not configured, or its repository cannot be opened.
pub fn open(settings: &Settings, secrets: &Secrets, scratch: PathBuf) -> Result<Box<dyn Recovery>> {
    open_as(settings.backend, settings, secrets, scratch)
}

/// As [`open`], whatever the settings say about who recovers.
///
/// # Errors
/// As [`open`].
pub fn open_as(
    backend: Backend,
    settings: &Settings,
    secrets: &Secrets,
    scratch: PathBuf,
) -> Result<Box<dyn Recovery>> {
    Ok(match backend {
        Backend::Native => Box::new(Native::open(settings, secrets, scratch)?),
        Backend::PgBackRest => Box::new(PgBackRest::of(settings, scratch)?),
        Backend::Supabase => Box::new(Supabase::of(settings, secrets)?),
    })
}

/// A repository of another cluster is seen before anything is built from it.
///
/// # Errors
/// Refused when the live server is another cluster than the repository's.
pub fn same_cluster(archived: Option<&str>, live: &Identity) -> Result<()> {
    match archived {
        Some(archived) if archived != live.system_identifier => {
            Err(Error::refused(format!("the repository holds cluster {archived}"))
                .why(format!("the database that answers is of cluster {}", live.system_identifier))
                .hint("set BACKUP_DIR to the repository of this cluster, or name its stanza")
                .hint("to recover the other cluster all the same, unset DATABASE_URL and name a folder with --dir"))
        }
        _ => Ok(()),
    }
}

/// Runs what blocks on a thread of its own, so that a request to stop is heard meanwhile.
///
/// # Errors
/// What the work says.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::state("the work broke off").why(e))?
}

/// What was to be done beside was asked of somebody who works in place, or the other way round.
pub(super) fn mismatched(backend: Backend) -> Error {
    Error::state(format!("{} was asked for a recovery of another kind", backend.word()))
}
