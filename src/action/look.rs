//! What has to be seen before something destroys, where the action's own preview did not look: who the target is, live, and
//! whether the repository holds a young, verified backup of it.

use std::time::Duration;

use super::target::{blocking, now};
use super::{Ctx, Preview, reach};
use crate::backup::catalog::Backup;
use crate::backup::dates;
use crate::error::Result;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::Identity;

/// Completes the preview of something of this risk. What cannot be seen becomes a line, and leaves its gate shut.
pub async fn complete(ctx: &Ctx, risk: Risk, preview: &mut Preview) {
    if risk != Risk::Destroy {
        return;
    }
    // A standby is of the same cluster; where the primary is gone it is all that can be seen.
    let seen = preview.facts.iter().any(|f| match f {
        Event::TargetSeen { role, .. } => role == "source" || role == "standby",
        Event::StandbySeen { .. } => true,
        _ => false,
    });
    if !seen && ctx.settings.database.is_some() {
        match target(ctx).await {
            Ok(identity) => {
                preview.facts.push(Event::TargetSeen { role: "source".into(), identity: identity.clone() });
                preview.target.get_or_insert(identity);
            }
            Err(e) => preview.lines.push(format!("who the target is cannot be seen: {}", e.why)),
        }
    }
    if ctx.settings.repository.is_some() && !known(ctx) {
        match backup(ctx, preview.target.as_ref()).await {
            Ok(Some(fact)) => preview.facts.push(fact),
            Ok(None) => preview.lines.push("the repository holds no verified backup of it".into()),
            Err(e) => preview.lines.push(format!("the repository cannot be looked at: {}", e.what)),
        }
    }
}

async fn target(ctx: &Ctx) -> Result<Identity> {
    let at = reach::database(ctx)?;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(10)).await?;
    crate::postgres::identity(&mut c, &at).await
}

/// Whether the incident knows of a young, verified backup already: deriving the repository's key takes its time.
fn known(ctx: &Ctx) -> bool {
    let oldest = now().minus(Duration::from_secs(ctx.settings.policy.backup_max_age_s));
    let backups = ctx.incident.iter().flat_map(|s| &s.facts.backups);
    backups.into_iter().any(|b| b.verified && b.taken_at.unwrap_or(b.when.at) > oldest)
}

/// The newest verified backup of this cluster, as a fact with the time it was finished.
async fn backup(ctx: &Ctx, target: Option<&Identity>) -> Result<Option<Event>> {
    let work = ctx.clone();
    let catalog = blocking(move || reach::catalog(&work, &reach::unlocked(&work)?)).await?;
    let ours = |b: &&Backup| match (&b.manifest.system_identifier, target) {
        (Some(theirs), Some(t)) => *theirs == t.system_identifier,
        _ => true,
    };
    // One whose date cannot be right does not count as young.
    let sound = |b: &&Backup| b.verified_at.is_some() && dates::doubt(b, now()).is_none();
    let newest = catalog.backups.iter().rev().filter(sound).find(ours);
    Ok(newest.map(|b| Event::BackupTaken {
        id: b.manifest.id.clone(),
        bytes: b.manifest.objects.iter().map(|o| o.plain_bytes).sum(),
        timeline: b.manifest.timeline.unwrap_or(0),
        verified: true,
        taken_at: Some(b.manifest.finished_at),
    }))
}
