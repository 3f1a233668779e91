//! `pgbackrest verify` with what it does not say: its exit code is 0 whatever it finds, and a hole in the log is "ok" to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Contents, PgBackRest, failure};
use crate::backup::wal::{Segment, WalName};
use crate::error::{Error, Result};
use crate::model::CleanText;
use crate::process::{Ending, RunOptions, Stream, run};
use crate::recovery::backend::{Seen, Verified, Which, apart};
use crate::recovery::watch::Watch;

/// What it said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// The status of the whole.
    status: Option<String>,
    /// Backup → its status and counts.
    backups: BTreeMap<String, (String, String)>,
    /// Lines about the log, with counts.
    log: Vec<String>,
    /// Lines that are neither.
    other: Vec<String>,
    /// Whether any count of bad files is above zero in the log.
    log_bad: bool,
}

/// Whether a line such as `missing: 0, checksum invalid: 1, size invalid: 0, other: 0` counts anything; none for other lines.
fn counts(line: &str) -> Option<bool> {
    let mut bad = false;
    for part in line.split(',') {
        let (what, n) = part.split_once(':')?;
        if !["missing", "checksum invalid", "size invalid", "other"].contains(&what.trim()) {
            return None;
        }
        bad |= n.trim().parse::<u64>().ok()? > 0;
    }
    Some(bad)
}

/// The two numbers of `total …: 964, total valid …: 963`.
fn totals(line: &str) -> Option<(u64, u64)> {
    let number = |key: &str| -> Option<u64> {
        let (_, rest) = line.split_once(key)?;
        rest.split_once(':')?.1.split(',').next()?.trim().parse().ok()
    };
    Some((number("total ").filter(|_| line.contains("checked:"))?, number("total valid ")?))
}

fn understand(text: &str) -> Said {
    let mut said = Said::default();
    let mut of: Option<String> = None;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(status) = line.strip_prefix("status:") {
            said.status = Some(status.trim().to_string());
        } else if let Some(rest) = line.strip_prefix("backup:") {
            let (label, rest) = rest.split_once(',').unwrap_or((rest, ""));
            let status = rest.split_once("status:").map_or("", |(_, s)| s.split(',').next().unwrap_or("")).trim();
            // Its word alone is not believed where its numbers say something else.
            let short = totals(line).is_some_and(|(all, valid)| valid < all);
            let status = if short && status == "valid" { "incomplete" } else { status };
            of = Some(label.trim().to_string());
            said.backups.insert(label.trim().to_string(), (status.to_string(), rest.trim().to_string()));
        } else if line.starts_with("archiveId:") {
            of = None;
            said.log_bad |= totals(line).is_some_and(|(all, valid)| valid < all);
            said.log.push(line.to_string());
        } else if let Some(bad) = counts(line) {
            match of.as_ref().and_then(|b| said.backups.get_mut(b)) {
                Some((status, detail)) => {
                    if bad && status == "valid" {
                        *status = "invalid".into();
                    }
                    detail.push_str("; ");
                    detail.push_str(line);
                }
                None => {
                    said.log_bad |= bad;
                    said.log.push(line.to_string());
                }
            }
        } else if !line.starts_with("stanza:") {
            said.other.push(line.to_string());
        }
    }
    said
}

/// Segments that are missing: of each backup those it needs to become consistent, and those after it on its timeline. Where the
/// log before a newer backup was expired on purpose it ends with what the older one needs, which is no damage.
fn holes(c: &Contents) -> (BTreeMap<String, String>, Vec<String>) {
    let size = c.segment_bytes;
    let there = |timeline: u32, number: u64| {
        c.paths.contains_key(&WalName::Segment(Segment::from_number(timeline, number, size)).to_string())
    };
    let span = |b: &super::info::Backup| {
        let (first, last) = b.log()?;
        let (first, last) = (Segment::parse(first)?, Segment::parse(last)?);
        Some((first.timeline, first.number(size), last.number(size)))
    };
    let mut own = BTreeMap::new();
    for b in c.stanza.backups() {
        let Some((timeline, first, last)) = span(b) else {
            own.insert(b.label().to_string(), "it does not say which log it needs".to_string());
            continue;
        };
        let missing: Vec<String> = (first..=last)
            .filter(|n| !there(timeline, *n))
            .map(|n| Segment::from_number(timeline, n, size).to_string())
            .collect();
        if !missing.is_empty() {
            own.insert(b.label().to_string(), format!("the log it needs is missing: {}", missing.join(", ")));
        }
    }
    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for name in c.paths.keys() {
        if let Some(s) = Segment::parse(name) {
            numbers.entry(s.timeline).or_default().push(s.number(size));
        }
    }
    let spans: Vec<(u32, u64, u64)> = c.stanza.backups().filter_map(span).collect();
    let mut broken = Vec::new();
    for (timeline, mut all) in numbers {
        all.sort_unstable();
        for pair in all.windows(2).filter(|p| p[1] > p[0] + 1) {
            let (first, last) = (pair[0] + 1, pair[1] - 1);
            let expired = spans.iter().any(|s| s.0 == timeline && s.2 + 1 == first)
                && spans.iter().any(|s| s.0 == timeline && s.1 == last + 1);
            if expired {
                continue;
            }
            let name = |n| Segment::from_number(timeline, n, size).to_string();
            broken.push(match first == last {
                true => format!("segment {} is missing", name(first)),
                false => format!("segments {} to {} are missing", name(first), name(last)),
            });
        }
    }
    // What its own list calls the last one must be there.
    if let Some(last) = c.stanza.last_segment().filter(|l| !c.paths.contains_key(*l)) {
        broken.push(format!("segment {last} is said to be the last and is not there"));
    }
    broken
        .extend(c.paths.iter().filter(|(_, p)| p.len() > 1).map(|(n, p)| format!("{n} is archived {} times", p.len())));
    (own, broken)
}

/// Verifies the whole repository, by its own program and by counting, and tells of the backups that were asked for and of the log.
pub(super) async fn verify(
    it: &PgBackRest,
    which: &Which,
    watch: Arc<dyn Watch>,
    cancel: &CancellationToken,
    seen: Seen,
) -> Result<Vec<Verified>> {
    let work = it.until(cancel);
    // Names and backups first: of a stanza that is not there, verify says little.
    let contents = apart(move || work.contents()).await?;
    let all: Vec<&super::info::Backup> = contents.stanza.backups().collect();
    let wanted: Vec<&super::info::Backup> = match which {
        Which::All => all,
        Which::Newest => all.last().copied().into_iter().collect(),
        Which::One(id) => {
            let known = all.iter().find(|b| b.label() == id).copied();
            vec![known.ok_or_else(|| {
                Error::usage(format!("there is no backup {id:?}")).hint("breakglass backup list shows them")
            })?]
        }
    };
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    watch.line("pgbackrest reads every file of the repository; which backup was asked for makes no difference to it");
    let repo = format!("--repo={}", it.it.repo);
    let child = it.it.child("off").args(["--output=text", "--verbose", &repo, "verify"]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let options = RunOptions { cancel: cancel.clone(), ..RunOptions::default() };
    let end = run(&child, &options, |stream, bytes| match stream {
        Stream::Out => out.extend_from_slice(bytes),
        Stream::Err => err.extend_from_slice(bytes),
    })
    .await?;
    if end.ending == Ending::Cancelled {
        return Err(Error::interrupted("stopped on request: the backups were not verified"));
    }
    if !end.success() {
        return Err(failure("verify", &end.describe(), &[err, out].concat()));
    }
    let said = understand(&String::from_utf8_lossy(&out));
    let status = said.status.clone().unwrap_or_else(|| "nothing".into());
    let (own, broken) = holes(&contents);
    let mut results = Vec::new();
    for b in wanted {
        let mut wrong = Vec::new();
        match said.backups.get(b.label()) {
            Some((s, detail)) if s != "valid" => wrong.push(format!("pgbackrest says {s}: {detail}")),
            Some(_) => {}
            None => wrong.push("pgbackrest verify does not mention it".to_string()),
        }
        wrong.extend(own.get(b.label()).cloned());
        if b.has_damaged_pages() {
            wrong.push("pages were damaged when it was taken".into());
        }
        let detail = said.backups.get(b.label()).map(|(_, d)| d.clone()).unwrap_or_default();
        results.push(one(b.label(), &wrong, &format!("pgbackrest says valid: {detail}")));
    }
    let mut wrong = broken;
    if said.log_bad {
        wrong.push(format!("pgbackrest says {}", said.log.join("; ")));
    }
    // Whatever else it complains of, in words that are not known here.
    if status != "ok" && wrong.is_empty() && results.iter().all(|r| r.result.is_ok()) {
        let mut words = said.other.clone();
        words
            .extend(said.backups.iter().filter(|(_, (s, _))| s != "valid").map(|(b, (s, d))| format!("{b}: {s}, {d}")));
        wrong.push(format!("pgbackrest says its repository is {status:?}: {}", words.join("; ")));
    }
    results.push(one("log", &wrong, &format!("{} segments without a hole", contents.paths.len())));
    for r in &results {
        seen(r);
    }
    Ok(results)
}

fn one(what: &str, wrong: &[String], right: &str) -> Verified {
    let clean = |t: &str| CleanText::line(t.as_bytes()).to_string();
    let result = match wrong.is_empty() {
        true => Ok(clean(right)),
        false => Err(Error::check(format!("{what} is damaged"))
            .why(clean(&wrong.join("; ")))
            .hint("take a new backup now; recover to a moment before the damage: breakglass pitr range")),
    };
    Verified::new(what, result, serde_json::Value::Null)
}
