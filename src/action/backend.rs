//! Who recovers, for the actions: opened off the loop, and what is said when a place cannot be had.

use std::sync::Arc;

use super::Ctx;
use super::target::{blocking, scratch};
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::recovery::backend::{Goal, Recovery, Way, open_as};
use crate::recovery::origin::Origin;
use crate::recovery::range::Route;

/// The one of the settings.
///
/// # Errors
/// It is not configured, or cannot be opened.
pub async fn recovery(ctx: &Ctx) -> Result<Arc<dyn Recovery>> {
    recovery_of(ctx, ctx.settings.backend).await
}

/// The one that a recovered instance came from.
///
/// # Errors
/// As [`recovery`].
pub async fn recovery_of(ctx: &Ctx, backend: Backend) -> Result<Arc<dyn Recovery>> {
    if backend == Backend::Supabase && ctx.incident.as_ref().is_some_and(|s| s.people.local_only) {
        return Err(Error::refused("this incident is local only, and Supabase is elsewhere")
            .hint("switch local-only off with a reason, then try again"));
    }
    if backend == Backend::Native {
        super::reach::repository_url(ctx)?;
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
