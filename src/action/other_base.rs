//! The files of a base backup turned out to be damaged when a recovery read them: that is written down, and another one that leads
//! there is looked for. Where nobody named this one, and nothing is touched but a folder of our own, it takes its place by itself.

use std::path::Path;

use super::along::{Along, prediction, rests_on};
use super::target::blocking;
use super::{Ctx, backend, reach};
use crate::backup::catalog::READ;
use crate::backup::damage;
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::model::format_clock;
use crate::recovery::backend::{Goal, Recovery};
use crate::recovery::range::Route;
use crate::recovery::typed;

/// Why the catalog could not be told that a base backup is damaged; none when it was, or where nobody keeps one.
async fn write_down(ctx: &Ctx, recovery: &dyn Recovery, damaged: &str, e: &Error) -> Option<String> {
    if recovery.backend() != Backend::Native {
        return None;
    }
    if ctx.settings.read_only {
        return Some("nothing is written with --read-only".into());
    }
    let (work, id, found) = (ctx.clone(), damaged.to_string(), e.clone());
    let noted = blocking(move || {
        let heads = work.settings.catalog_heads.as_ref();
        Ok(damage::found(&reach::unlocked(&work)?, heads, &id, READ, &found))
    });
    noted.await.unwrap_or_else(|e| Some(e.to_string()))
}

/// Another way to the same goal, when `way` ended with the damage `e`: taken by itself where no backup was named and no files are
/// reused (`may`). `root` is the folder it is built in. What is known to be damaged is kept in `goal`.
///
/// # Errors
/// The damage, with the command that takes another backup, when there is one; or that there is none.
pub(super) async fn instead(
    ctx: &Ctx,
    recovery: &dyn Recovery,
    (along, dir, delta): (&Along, Option<&Path>, bool),
    goal: &mut Goal,
    way: &Route,
    root: &Path,
    e: Error,
) -> Result<Route> {
    let damaged = &way.backup.id;
    if let Some(why) = write_down(ctx, recovery, damaged, &e).await {
        ctx.out.line(&format!("the catalog could not be told that backup {damaged} is damaged: {why}"));
    }
    let why = if e.why.is_empty() { e.what.clone() } else { format!("{}: {}", e.what, e.why) };
    goal.base.known.insert(damaged.clone(), why.clone());
    let e = Error { what: format!("base backup {damaged} cannot be restored: {}", e.what), ..e };
    ctx.out.line(&format!("base backup {damaged} is damaged; looking for another one that leads there"));
    let mut any = goal.clone();
    any.base.only = None;
    let other = match backend::way(ctx, recovery, &any).await {
        Ok(other) => other,
        Err(no) => {
            let e = e.hint(format!("no other base backup leads there: {}", no.why));
            return Err(e.hint(format!("what of it is damaged: breakglass backup verify {damaged}")));
        }
    };
    if along.backup.is_some() || delta {
        let timeline = along.timeline.map(|t| t.to_string());
        let dir = dir.map(|d| d.display().to_string());
        let options =
            [("--timeline", timeline.as_deref()), ("--dir", dir.as_deref()), ("--backup", Some(&*other.backup.id))];
        let given: Vec<_> = options.into_iter().filter(|(_, value)| value.is_some()).collect();
        return Err(e
            .hint(format!(
                "base backup {} of {} leads there, too: {}",
                other.backup.id,
                other.backup.finished_at,
                typed::restore(&goal.target, goal.after, &given)
            ))
            .hint(format!("what of it is damaged: breakglass backup verify {damaged}")));
    }
    ctx.out.line(&format!("WARNING: base backup {damaged} CANNOT BE RESTORED: {why}"));
    let (was, now) = (prediction(way, root), prediction(&other, root));
    let longer = match now.total().checked_sub(was.total()) {
        Some(more) if !more.is_zero() => format!("{} longer", format_clock(more)),
        _ => "no longer".into(),
    };
    ctx.out.line(&format!(
        "WARNING: going on with base backup {} of {}, which leads there as well; nothing was made of the damaged one. It takes about {} \
         now, {longer} than with {damaged} ({})",
        other.backup.id,
        other.backup.finished_at,
        format_clock(now.total()),
        rests_on(&now)
    ));
    ctx.out.line(&format!("what of {damaged} is damaged: breakglass backup verify {damaged}"));
    Ok(other)
}
