//! What a recovery to the latest does not have: what the live server wrote and nothing archived, or, when it is gone, where it
//! was seen last.

use std::time::Duration;

use super::Ctx;
use super::reach;
use super::target::now;
use crate::model::{Time, format_clock};
use crate::postgres::Lsn;
use crate::recovery::backend::Recovery;
use crate::recovery::exposure;

/// What lies behind the end of the archived log, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Bytes of log that are known to be missing.
    pub bytes: u64,
    /// Last position known.
    pub known: Option<Lsn>,
    /// For people.
    pub line: String,
}

impl Behind {
    /// As a part of a JSON document.
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "bytes_not_archived": self.bytes, "last_known_lsn": self.known.map(|l| l.to_string()), "text": self.line,
        })
    }
}

/// Compares the end of the archived log with the live server, else with every position that was seen of it.
///
/// `along` and `end` are those of the archived log that is recovered along.
pub async fn behind(ctx: &Ctx, recovery: &dyn Recovery, (along, end): (u32, Lsn)) -> Behind {
    if let Some((timeline, live)) = server(ctx).await {
        let lsn: Lsn = live.lsn.parse().unwrap_or_default();
        if timeline != along {
            // Positions of two timelines lie in two logs: their difference says nothing.
            let line = format!(
                "the live server is on timeline {timeline}, at {lsn}; this goes to the end of timeline {along}, {end}: what was \
                 written on other timelines since is not in it"
            );
            return Behind { bytes: 0, known: None, line };
        }
        let bytes = lsn.0.saturating_sub(end.0);
        let line = if let Some(gap) = &live.unheld {
            // Archived once, by the server's word: no containment archives them again.
            format!(
                "THE LIVE SERVER HAS MORE: {bytes} bytes up to {lsn} are not in the repository, about the last {} ({}). {}. {}",
                format_clock(live.exposure),
                live.source,
                gap.what(),
                gap.advice()
            )
        } else if live.exposure.is_zero() || bytes == 0 {
            format!("the live server is at {lsn} and has nothing committed that is not archived")
        } else {
            let bound = if live.at_most { "at most " } else { "" };
            format!(
                "THE LIVE SERVER HAS MORE: {bytes} bytes up to {lsn} are not archived, {bound}the last {} ({}); \
                 breakglass contain archives them",
                format_clock(live.exposure),
                live.source
            )
        };
        return Behind { bytes, known: Some(lsn), line };
    }
    let mut seen: Vec<(Lsn, Option<Time>, &str)> = Vec::new();
    if let Some(e) = ctx.incident.as_ref().and_then(|s| s.facts.exposure.as_ref())
        && let Some(lsn) = e.lsn.as_ref().and_then(|l| l.parse().ok())
    {
        seen.push((lsn, Some(e.when.at), "the incident's record"));
    }
    if let Some(lsn) = recovery.last_named().await {
        seen.push((lsn, None, "the name map"));
    }
    if let Some(r) = exposure::received_in(ctx.settings.repository.as_ref())
        && let Ok(lsn) = r.end_lsn.parse()
    {
        seen.push((lsn, Some(r.at), "the receiver"));
    }
    let Some((lsn, at, source)) = seen.into_iter().max_by_key(|(lsn, ..)| *lsn) else {
        return Behind {
            bytes: 0,
            known: None,
            line: format!(
                "the server does not answer and was never seen behind {end}: whether it had more is not known"
            ),
        };
    };
    let when = at.map_or_else(String::new, |t| format!(", {} ago", format_clock(now().since(t))));
    let bytes = lsn.0.saturating_sub(end.0);
    let line = if bytes > 0 {
        format!(
            "A TAIL IS LOST: the server was seen at {lsn} by {source}{when}, {bytes} bytes behind the end of the archive"
        )
    } else {
        format!(
            "the server does not answer; it was last seen at {lsn} by {source}{when}, which is archived; what came after is not known"
        )
    };
    Behind { bytes, known: Some(lsn), line }
}

/// The live server's timeline, and how it stands to what is archived.
async fn server(ctx: &Ctx) -> Option<(u32, exposure::Exposure)> {
    let at = reach::database(ctx).ok()?;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(5)).await.ok()?;
    let timeline = crate::postgres::identity(&mut c, &at).await.ok()?.timeline;
    Some((timeline, exposure::measure(&mut c, &exposure::held_in(&ctx.settings)).await.ok().flatten()?))
}
