//! Which way a recovery goes: along which timeline, from which base backup, beside which cluster; and what is told of that before
//! it is gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::target::{blocking, seen};
use super::{Ctx, reach};
use crate::error::{Error, ErrorKind, Result};
use crate::model::format_clock;
use crate::model::target::{Identity, RecoveryTarget};
use crate::postgres::{Lsn, identity};
use crate::recovery::backend::{Goal, Recovery, same_cluster};
use crate::recovery::predict::{Prediction, Throughput};
use crate::recovery::range::{Base, PassedOver, Route, Stop};

/// Along which timeline, and from which base backup; `pitr check` has the same.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Along {
    /// Timeline to follow; the source's, else the newest, by default
    #[arg(long, value_name = "N")]
    pub timeline: Option<u32>,
    /// Base backup to begin with; the newest that fits and is not damaged, by default
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
}

impl Along {
    /// Whether anything of it was said.
    pub(super) fn given(&self) -> bool {
        self.timeline.is_some() || self.backup.is_some()
    }

    /// A source that was itself recovered is on a later timeline than its backups' first one.
    fn timeline(&self, ctx: &Ctx, source: Option<&Identity>) -> Option<u32> {
        let live = source.filter(|s| !s.in_recovery).map(|s| s.timeline);
        self.timeline.or(first_damaged(ctx).map(|s| s.timeline)).or(live)
    }

    /// What is asked of whoever recovers.
    pub(super) fn goal(
        &self,
        ctx: &Ctx,
        source: Option<&Identity>,
        (to, after): (&RecoveryTarget, bool),
        suspects: Vec<u32>,
    ) -> Goal {
        let base = Base { only: self.backup.clone(), ..Base::ANY };
        Goal { after, timeline: self.timeline(ctx, source), suspects, base, ..Goal::to(to.clone()) }
    }
}

/// The cluster that was damaged first, when another was promoted in its place since: on its timeline lie all moments there are
/// to choose from, and a recovery in its turn is built beside it.
pub(super) fn first_damaged(ctx: &Ctx) -> Option<&Identity> {
    let facts = &ctx.incident.as_ref()?.facts;
    facts.promoted.as_ref().and(facts.damaged.as_ref())
}

/// The source as it is seen live; none when it is gone, which does not keep anybody from recovering.
///
/// # Errors
/// Refused when it is another database than expected, as the recovery itself is then.
pub(super) async fn source(ctx: &Ctx) -> Result<Option<Identity>> {
    let Ok(at) = reach::database(ctx) else { return Ok(None) };
    match seen(ctx, &at).await {
        Ok((_, id)) => Ok(Some(id)),
        Err(e) if e.kind == ErrorKind::Refused => Err(e),
        Err(_) => Ok(None),
    }
}

/// A repository of another cluster is seen before anything is built from it.
///
/// # Errors
/// Refused when the live server is another cluster than the repository's.
pub(super) async fn of_cluster(recovery: &Arc<dyn Recovery>, live: &Identity) -> Result<()> {
    let work = recovery.clone();
    same_cluster(blocking(move || work.cluster()).await?.as_deref(), live)
}

/// That the database that answers is of another cluster than what it would be recovered from; where it does not answer, nothing.
pub(super) async fn stranger(ctx: &Ctx, recovery: &Arc<dyn Recovery>) -> Option<Error> {
    let at = reach::database(ctx).ok()?;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(5)).await.ok()?;
    let live = identity(&mut c, &at).await.ok()?;
    of_cluster(recovery, &live).await.err()
}

/// What a person should know of a way: that the list of backups was rolled back, and that newer base backups were left out, and why.
/// Nobody shall believe that the newest one there is is the newest one there was, or is good.
pub(super) fn warnings(way: &Route) -> Vec<String> {
    let line =
        |p: &PassedOver| format!("WARNING: {}; going from {} instead, which takes longer", p.describe(), way.backup.id);
    let rolled_back = way.rolled_back.iter().map(|e| format!("WARNING: {}", e.sentence()));
    rolled_back.chain(way.passed_over.iter().map(line)).collect()
}

/// The same as a part of a JSON document.
pub(super) fn passed_over_json(way: &Route) -> serde_json::Value {
    let one = |p: &PassedOver| serde_json::json!({"backup": p.backup, "why": p.why, "recorded": p.unrecorded.is_none(), "unrecorded": p.unrecorded});
    way.passed_over.iter().map(one).collect()
}

/// Bytes of log between a base backup and where a way stops.
pub(super) fn log_bytes(way: &Route) -> u64 {
    let start: Lsn = way.backup.start_lsn.as_deref().and_then(|l| l.parse().ok()).unwrap_or_default();
    let goal = match &way.stop {
        Stop::Lsn(lsn) | Stop::After(lsn) => *lsn,
        _ => way.first_lost.as_ref().map_or(way.log_end, |c| c.lsn),
    };
    goal.0.saturating_sub(start.0)
}

/// How long it will take, by what earlier recoveries took in the same place.
pub(super) fn prediction(way: &Route, root: &Path) -> Prediction {
    let known = root.parent().map(Throughput::load).unwrap_or_default();
    known.predict(way.backup.plain_bytes(), log_bytes(way), way.stop == Stop::End)
}

/// What a prediction rests on.
pub(super) fn rests_on(p: &Prediction) -> String {
    match p.runs {
        0 => "assumed: no recovery was measured here yet".to_string(),
        1 => "from 1 earlier recovery here".to_string(),
        n => format!("from {n} earlier recoveries here"),
    }
}

/// A prediction for people.
pub(super) fn predicted(way: &Route, root: &Path) -> String {
    let p = prediction(way, root);
    let (clock, why) = (format_clock, rests_on(&p));
    format!("takes about {}: files {}, log {} ({why})", clock(p.total()), clock(p.files), clock(p.replay))
}
