//! The log switched, and waited for until it is in the archive.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Error, Result};
use crate::model::format_clock;
use crate::postgres::Lsn;
use crate::postgres::connect::query_error;

/// What became of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Everything up to here is archived.
    pub lsn: Lsn,
    /// The last segment.
    pub segment: String,
}

/// Switches to a new segment and waits until the one before is archived.
///
/// # Errors
/// Archiving is off, or the segment is not archived after `limit`: the error says what the archiver's last failure was.
pub async fn archive_now(
    c: &mut PgConnection,
    limit: Duration,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Archived> {
    let mode = "SELECT pg_catalog.current_setting('archive_mode')";
    let mode: String = sqlx::query_scalar(mode).fetch_one(&mut *c).await.map_err(|e| query_error(mode, &e))?;
    if mode == "off" {
        return Err(Error::target("the server archives nothing (archive_mode is off)")
            .hint("only what is in a backup can be recovered"));
    }
    // The switch's end lies in the segment it closes. Where nothing was written since the last one, it is that one's end.
    let sql = "SELECT l::text, pg_catalog.pg_walfile_name(l) FROM (SELECT pg_catalog.pg_switch_wal() AS l OFFSET 0) s";
    let (lsn, segment): (String, String) =
        sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let sql = "SELECT coalesce(last_archived_wal, ''), coalesce(last_failed_wal, ''), \
               coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_catalog.pg_stat_archiver";
    let began = Instant::now();
    loop {
        check_cancel(cancel, "the log is not known to be archived")?;
        let (last, failed, failing): (String, String, bool) =
            sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        // A history or backup file's name sorts with the segment it belongs to.
        if last.get(..24).is_some_and(|l| l >= segment.as_str()) {
            let lsn = lsn.parse().unwrap_or_default();
            return Ok(Archived { lsn, segment });
        }
        watch.phase(&Phase {
            name: "archive",
            text: format!(
                "waiting until {segment} is archived, at most {} more; the last archived is {}",
                format_clock(limit.saturating_sub(began.elapsed())),
                if last.is_empty() { "none" } else { &last }
            ),
            ..Phase::default()
        });
        if began.elapsed() > limit {
            let mut e = Error::target(format!("segment {segment} is not archived after {} s", limit.as_secs()));
            e = if failing {
                e.why(format!("the archiver fails with {failed}; the server's log says why"))
            } else {
                e.why(format!("the last archived is {last:?}"))
            };
            return Err(e.hint("go on: what is not archived counts as loss until the archive works again"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
