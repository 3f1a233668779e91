//! After a base backup: the index of the log and the map of names are brought up to date, since the key is at hand and the
//! archiving side has none. A recovery then knows its range, its suspects and the names of its tables at once.

use std::time::Duration;

use super::Ctx;
use super::reach::Reporter;
use super::target::blocking;
use crate::backup::repository::Unlocked;
use crate::error::{Error, ErrorKind};
use crate::model::CleanText;
use crate::postgres::Database;
use crate::recovery::wal_index::{self, Index};
use crate::recovery::wal_locate::snapshot;

/// Time for the names of all databases.
const NAMES_WITHIN: Duration = Duration::from_secs(15);
/// Time for reading segments. What is not read by then is read by the next one.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Brings both up to date, within a bounded time. The backup exists whatever happens here: what goes wrong is said.
pub(super) async fn refresh(ctx: &Ctx, unlocked: &Unlocked, at: &Database) {
    let said = |e: &Error| CleanText::line(format!("{}; {}", e.what, e.why).as_bytes()).to_string();
    let read = unlocked.clone();
    let mut names = match blocking(move || wal_index::names(&read)).await {
        Ok(names) => names,
        Err(e) => return ctx.out.line(&format!("the index of the log is as before: {}", said(&e))),
    };
    match tokio::time::timeout(NAMES_WITHIN, snapshot::update(&mut names, at)).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => ctx.out.line(&format!("names of tables are those the log tells: {}", said(&e))),
        Err(_) => ctx.out.line("names of tables are those the log tells: the server took too long to list them"),
    }
    let (limit, work, out) = (ctx.cancel.child_token(), unlocked.clone(), ctx.out.clone());
    let stop = limit.clone();
    let task = blocking(move || {
        // Kept at once: reading may end by its time.
        wal_index::keep_names(&work, &names)?;
        let mut index = Index::load(&work)?;
        wal_index::update(&work, &mut index, names, &Reporter::new(&*out), &stop).map(|(updated, _)| updated)
    });
    tokio::pin!(task);
    let done = tokio::select! {
        done = &mut task => done,
        () = tokio::time::sleep(READ_WITHIN) => {
            limit.cancel();
            task.await
        }
    };
    match done {
        Ok(updated) => {
            ctx.out.line(&format!("index of the log: {} segments read, {} known", updated.segments, updated.known));
            for damaged in &updated.damaged {
                ctx.out.line(&format!("DAMAGED segment {}", CleanText::line(damaged.as_bytes())));
            }
        }
        Err(e) if e.kind == ErrorKind::Interrupted => {
            let seconds = READ_WITHIN.as_secs();
            ctx.out.line(&format!(
                "index of the log: not complete after {seconds} s; breakglass wal index reads the rest"
            ));
        }
        Err(e) => ctx.out.line(&format!("the index of the log is not up to date: {}", said(&e))),
    }
}
