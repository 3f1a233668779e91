//! Who recovers, for the actions: opened off the loop, and what is said when a place cannot be had.

use std::sync::Arc;

use super::Ctx;
use super::target::{blocking, scratch};
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::recovery::backend::{Goal, Recovery, Way, open_as};
use crate::recovery::origin::Origin;
use crate::recovery::pgbackrest;
use crate::recovery::range::Route;

/// The one of the settings.
///
/// # Errors
/// It is not configured, or cannot be opened; refused when it is elsewhere and the incident is local only.
pub async fn recovery(ctx: &Ctx) -> Result<Arc<dyn Recovery>> {
    recovery_of(ctx, ctx.settings.backend).await
}

/// The one that a recovered instance came from.
///
/// # Errors
/// As [`recovery`].
pub async fn recovery_of(ctx: &Ctx, backend: Backend) -> Result<Arc<dyn Recovery>> {
    match backend {
        Backend::Native => drop(super::reach::repository_url(ctx)?),
        Backend::Supabase => super::may_leave(ctx, "a request to Supabase")?,
        Backend::PgBackRest => {
            if let Some(why) = pgbackrest::elsewhere(&ctx.settings.pgbackrest) {
                super::may_leave(ctx, &format!("a question to the repository of pgBackRest ({why})"))?;
            }
        }
    }
    let work = ctx.clone();
    blocking(move || open_as(backend, &work.settings, &work.secrets, scratch(&work)).map(Arc::from)).await
}

/// Where its instances get their log from.
///
/// # Errors
/// It builds none.
pub fn origin(recovery: &dyn Recovery) -> Result<&dyn Origin> {
    recovery.origin().ok_or_else(|| {
        Error::usage(format!("{} builds no instance beside the database", recovery.backend().word()))
            .hint("there is nothing to move, open or promote: it was restored in place")
    })
}

/// The way to a goal of one who builds beside.
///
/// # Errors
/// Refused when it cannot be reached; or it works in place.
pub async fn way(ctx: &Ctx, recovery: &dyn Recovery, goal: &Goal) -> Result<Route> {
    match recovery.preflight(goal, super::target::Follow::new(ctx), &ctx.cancel).await? {
        Way::Beside(route) => Ok(*route),
        Way::InPlace(_) => Err(origin(recovery).err().unwrap_or_else(|| Error::state("it works in place"))),
    }
}
