//! Our own repository as one who recovers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Abilities, Backups, Goal, NEVER_IN_PLACE, Reachable, Recovery, Seen, Verified, Way, Which, apart};
use crate::backup::anchor;
use crate::backup::base::{read_backup, verify_backup};
use crate::backup::catalog::{Accepted, Backup, BackupKind, Catalog, Manifest, READ};
use crate::backup::damage::{self, is_damage};
use crate::backup::dates;
use crate::backup::part::{self, Affected};
use crate::backup::repository::{Repository, Unlocked, now};
use crate::backup::seen;
use crate::backup::wal::range::{Branch, inspect, leads_along, path_to};
use crate::backup::wal::{self, DEFAULT_SEGMENT_SIZE, Depth, Listing, Segment, parse_lsn, status};
use crate::config::{Backend, Secrets, Settings};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::CleanText;
use crate::postgres::{Lsn, WhenNeeded};
use crate::recovery::origin::Origin;
use crate::recovery::range::{Ask, Found, Look, PassedOver, Route, ranges_from, route};
use crate::recovery::wal_index;
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// Our own repository.
#[derive(Clone)]
pub struct Native {
    unlocked: Unlocked,
    bin_dir: Option<PathBuf>,
    scratch: PathBuf,
    heads: Option<PathBuf>,
    read_only: bool,
}

impl Native {
    /// Opens the repository of the settings.
    ///
    /// # Errors
    /// Config when it or its key is not set; refused when the key is not its key; target when it cannot be read.
    pub fn open(settings: &Settings, secrets: &Secrets, scratch: PathBuf) -> Result<Self> {
        let url = settings.repository.clone().ok_or_else(|| {
            Error::config("no repository is configured").hint("set BACKUP_DIR, or repository.url in breakglass.toml")
        })?;
        let heads = settings.catalog_heads.as_deref();
        let unlocked = Repository::open_to_read(&url, secrets).map_err(|e| seen::or_elsewhere(&url, heads, e))?;
        Ok(Self::of(unlocked.looked_at_if(settings.read_only), settings, scratch))
    }

    /// One that is open already: deriving its key takes a while.
    pub fn of(unlocked: Unlocked, settings: &Settings, scratch: PathBuf) -> Self {
        Self {
            unlocked,
            bin_dir: settings.bin_dir.clone(),
            scratch,
            heads: settings.catalog_heads.clone(),
            read_only: settings.read_only,
        }
    }

    /// Writes down which base backups were found damaged, and says so; those that could not be, with the reason.
    fn write_down(&self, found: &[PassedOver], watch: &dyn Watch) -> BTreeMap<String, String> {
        let mut untold = BTreeMap::new();
        for p in found {
            let why = match self.read_only {
                true => Some("nothing is written with --read-only".to_string()),
                false => {
                    let damage = Error::check(p.why.as_str());
                    damage::found(&self.unlocked, self.heads.as_ref(), &p.backup, READ, &damage)
                }
            };
            match why {
                None => watch.line(&format!("base backup {} is damaged: it stands in the catalog now", p.backup)),
                Some(why) => {
                    watch.line(&not_told(&p.backup, &why));
                    untold.insert(p.backup.clone(), why);
                }
            }
        }
        untold
    }

    fn went_back(&self, catalog: &Catalog, say: &mut dyn FnMut(&str)) -> Option<Error> {
        anchor::went_back(self.heads.as_ref(), &self.unlocked, catalog, say)
    }

    fn programs(&self) -> WhenNeeded {
        WhenNeeded::new(self.bin_dir.as_deref())
    }

    fn list(&self) -> Result<Backups> {
        let mut warnings = Vec::new();
        let catalog = damage::load(&self.unlocked, self.heads.as_ref(), &mut |line| warnings.push(line.to_string()))?;
        let rolled_back =
            anchor::went_on(self.heads.as_ref(), &self.unlocked, &catalog, &mut |line| warnings.push(line.to_string()));
        let doubt = self.unlocked.repository().doubt();
        warnings.extend(doubt.into_iter().chain(&rolled_back).map(|e| format!("WARNING: {e}")));
        // In doubt already where it cannot be understood; what else it says is held against the backups.
        let of_log = self.unlocked.repository().is_by_what_is_stored();
        let other = match of_log {
            true => None,
            false => self.unlocked.wrong_cluster(&catalog, false)?,
        };
        warnings.extend(other.iter().map(|e| format!("WARNING: {e}")));
        let cluster = doubt.filter(|_| of_log).or(other.as_ref()).map(|e| format!("{}: {}", e.what, e.why));
        // Those without a manifest are in no other list.
        let lost = catalog.lost.iter().map(|l| serde_json::json!({"backup": l.backup, "why": l.why}));
        let found = catalog.backups.iter().filter_map(|b| Some((&b.manifest.id, b.damage()?)));
        let found = found.map(|(id, why)| serde_json::json!({"backup": id, "why": why}));
        let damaged: Vec<serde_json::Value> = lost.chain(found).collect();
        // Which is the newest says their order; how old they are only a date that can be right.
        let at = now();
        let in_doubt = dates::doubts(&catalog.backups, at);
        let said = dates::behind(&catalog, at).into_iter().chain(dates::doubt_lines(&catalog.backups, at));
        warnings.extend(
            said.chain(catalog.stray_lines()).map(|line| format!("WARNING: {}", CleanText::line(line.as_bytes()))),
        );
        let in_doubt: Vec<serde_json::Value> =
            in_doubt.iter().map(|(id, why)| serde_json::json!({"backup": id, "why": why})).collect();
        let json = serde_json::json!({
            "backups": catalog.backups, "head": catalog.head,
            "rolled_back": rolled_back.is_some() && catalog.damage().is_none(),
            "damaged": damaged, "in_doubt": in_doubt, "broken": catalog.broken, "accepted": catalog.accepted,
            "strays": catalog.strays,
            "repository_json": doubt.filter(|_| !of_log).map(|e| &e.why), "cluster_json": cluster,
        });
        let mut lines: Vec<String> = catalog.backups.iter().map(describe).collect();
        lines.extend(catalog.lost_lines().iter().map(|l| CleanText::line(l.as_bytes()).to_string()));
        // The same as in the document: entries that cannot be used, and what somebody knows of.
        let broken = catalog.broken.iter().map(|b| b.describe() + if b.accepted { " (accepted)" } else { "" });
        let known = broken.chain(catalog.accepted.iter().map(Accepted::describe));
        lines.extend(known.map(|l| format!("catalog  {}", CleanText::line(l.as_bytes()))));
        let found = catalog.damaged_lines().len();
        if found > 0 {
            let (one, it) = if found == 1 { ("1 backup is", "it") } else { ("some backups are", "them") };
            warnings.push(format!(
                "WARNING: {one} damaged: put what is damaged back from a copy and verify again, or take a new backup and give {it} \
                 up (backup cleanup --give-up ID); `backup verify ID` says what of it can still be restored"
            ));
        }
        let damaged = doubt.is_some() || other.is_some() || catalog.damage().is_some() || found > 0;
        Ok(Backups { lines, damaged, warnings, json })
    }
}

/// What to know of a repository before anything is made of its catalog: one text each.
fn to_know(unlocked: &Unlocked, catalog: &Catalog) -> Vec<String> {
    let doubt = unlocked.repository().doubt().map(Error::to_string);
    doubt.into_iter().chain(catalog.damage().map(|e| e.to_string())).chain(catalog.lost_lines()).collect()
}

/// What is on record of damaged backups: ids and what is wrong with them.
pub fn known_damage(catalog: &Catalog) -> BTreeMap<String, String> {
    let damaged = catalog.backups.iter().filter_map(|b| Some((&b.manifest.id, b.damaged.as_ref()?)));
    damaged.map(|(id, d)| (id.clone(), format!("found on {}: {}", d.at.date_hms(), d.why))).collect()
}

fn not_told(id: &str, why: &str) -> String {
    format!("the catalog could not be told that backup {id} is damaged: {why}")
}

/// A backup in one line.
fn describe(b: &Backup) -> String {
    let m = &b.manifest;
    let (stored, plain) = (m.stored_bytes(), m.plain_bytes());
    let verified = match (b.damage(), b.verified_at) {
        (Some(damage), _) => CleanText::line(damage.as_bytes()).to_string(),
        (None, Some(t)) => format!("verified {}", t.date_hms()),
        (None, None) => "never verified".into(),
    };
    let mut part =
        m.part.as_deref().map_or_else(String::new, |p| format!(", of {} only", CleanText::line(p.as_bytes()).as_str()));
    if m.kind == BackupKind::SchemaOnly {
        part.push_str(", definitions without rows");
    }
    part.extend(m.without_rows().map(|what| format!(", {what}")));
    let proven = b.proven_at.map_or_else(String::new, |t| format!(", restored and right {}", t.date_hms()));
    let log = match (&m.timeline, &m.start_lsn, &m.stop_lsn) {
        (Some(t), Some(start), Some(stop)) => format!(", timeline {t}, {start} to {stop}"),
        _ => String::new(),
    };
    let label =
        m.label.as_deref().map_or_else(String::new, |l| format!(", {:?}", CleanText::line(l.as_bytes()).as_str()));
    // To the second: whether it was before or after what somebody did is decided by it.
    let when = format!("{} to {} UTC", m.started_at.date_hms(), m.finished_at.hms());
    let of = m
        .database
        .as_deref()
        .map_or_else(String::new, |d| format!(", of database {:?}", CleanText::line(d.as_bytes()).as_str()));
    let (plain, stored) = (plain / 1_000_000, stored / 1_000_000);
    format!("{}  {when}{of}, {plain} MB in {stored} MB{part}{log}, {verified}{proven}{label}", m.id)
}

/// The archived log from the oldest base backup on, to the newest segment of every timeline that a backup leads to: every byte.
/// What is wrong is named, stretch by stretch; whole segments that are right go into `right`.
fn log(
    unlocked: &Unlocked,
    backups: &[&Manifest],
    watch: &dyn Watch,
    cancel: &CancellationToken,
    right: &mut BTreeSet<Segment>,
) -> Result<Vec<Verified>> {
    let found = status(unlocked.repository())?;
    let size = unlocked.repository().cluster()?.and_then(|c| c.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE);
    let total = found.timelines.iter().map(|t| t.segments).sum();
    let began = std::time::Instant::now();
    let mut step = |n: u64| {
        watch.phase(&Phase::counted("verify log", n, total, "segments", "", began));
        check_cancel(cancel, "the log was not verified")
    };
    let mut out: Vec<Verified> = Vec::new();
    // Timelines share the log before they part: what was looked at on the way to the newest is not read again. Timeline → the
    // segment that the way left it in, whose copy there is the other timeline's.
    let mut covered: BTreeMap<u32, u64> = BTreeMap::new();
    for timeline in found.timelines.iter().rev().map(|t| t.timeline) {
        let path = match path_to(unlocked, timeline) {
            Ok(path) => path,
            Err(e) if e.kind == ErrorKind::Check => {
                let what = format!("log along timeline {timeline}");
                out.push(Verified::new(what, Err(e), serde_json::Value::Null));
                continue;
            }
            Err(e) => return Err(e),
        };
        let left = |b: &Branch| b.ends_at.map_or(u64::MAX, |lsn| lsn / u64::from(size));
        let start = |m: &&&Manifest| {
            let lsn = m.start_lsn.as_deref().and_then(parse_lsn).filter(|_| leads_along(&path, m))?;
            Some(Segment::at(m.timeline?, lsn, size))
        };
        let Some(first) = backups.iter().filter_map(|m| start(&m)).min_by_key(|s| s.number(size)) else { continue };
        let mut from = first.number(size);
        for branch in &path {
            let Some(upto) = covered.get(&branch.timeline) else { break };
            from = from.max(left(branch).min(*upto));
            if left(branch) > *upto {
                break;
            }
        }
        for branch in &path {
            let upto = covered.entry(branch.timeline).or_default();
            *upto = left(branch).max(*upto);
        }
        let way = wal::Way::list(unlocked, timeline)?;
        let first = match from > first.number(size) {
            true if way.end().is_none_or(|end| end < from) => continue,
            true => way.segment(from).map_or(Segment::from_number(timeline, from, size), |(s, _)| s),
            false => first,
        };
        let what = format!("log from {first} along timeline {timeline}");
        let mut at = first.to_string();
        loop {
            let mut read = |segment, begun| {
                let wrong = inspect(unlocked, segment, begun, Depth::Full)?;
                if wrong.is_none() && !begun {
                    right.insert(segment);
                }
                Ok(wrong)
            };
            let run = way.check_by(&at, None, &mut read, &mut step)?;
            let Some(hole) = run.hole else {
                if !out.iter().any(|v| v.what == what) {
                    let upto = run.last.unwrap_or(at);
                    let result = Ok(format!("every segment up to {upto} read"));
                    out.push(Verified::new(what, result, serde_json::Value::Null));
                }
                break;
            };
            let error = Error::check(format!("WAL segment {} to {}: {}", hole.first, hole.last, hole.why))
                .hint("No moment behind it can be recovered from an earlier base backup: take one now (breakglass backup create).");
            out.push(Verified::new(what.clone(), Err(error), serde_json::json!({"hole": hole})));
            // What comes after may be on the next timeline.
            let next = hole.next.as_deref().and_then(Segment::parse).map(|s| s.number(size));
            let next = next.or(Segment::parse(&hole.last).map(|s| s.number(size) + 1));
            match next.filter(|n| way.end().is_some_and(|end| *n <= end)) {
                Some(next) => at = Segment::from_number(timeline, next, size).to_string(),
                None => break,
            }
        }
    }
    Ok(out)
}

impl Recovery for Native {
    fn backend(&self) -> Backend {
        Backend::Native
    }
    fn place(&self) -> String {
        Origin::place(&self.unlocked)
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            beside: true,
            in_place: false,
            targets: &["time", "lsn", "xid", "name", "latest"],
            cannot: &[NEVER_IN_PLACE],
        }
    }
    fn cluster(&self) -> Result<Option<String>> {
        Ok(self.unlocked.repository().cluster()?.map(|c| c.system_identifier.to_string()))
    }
    fn backups(&self) -> BoxFuture<'_, Result<Backups>> {
        let work = self.clone();
        Box::pin(apart(move || work.list()))
    }
    fn range(&self, timeline: Option<u32>) -> BoxFuture<'_, Result<Vec<Reachable>>> {
        let work = self.clone();
        Box::pin(apart(move || {
            let programs = work.programs();
            let mut notes = Vec::new();
            let catalog = damage::load(&work.unlocked, work.heads.as_ref(), &mut |line| notes.push(line.to_string()))?;
            let backups = catalog.backups.iter().map(|b| b.manifest.clone()).collect();
            let all = ranges_from(&work.unlocked, backups, &programs, timeline, &work.scratch)?;
            let rolled_back = work.went_back(&catalog, &mut |line| notes.push(line.to_string()));
            notes.extend(to_know(&work.unlocked, &catalog));
            let known = |mut r: Reachable| {
                for b in &mut r.backups {
                    let damage = catalog.find(&b.id).ok().and_then(Backup::damage);
                    b.damaged = damage.map(|d| CleanText::line(d.as_bytes()).to_string());
                }
                let damaged =
                    r.backups.iter().filter_map(|b| Some(format!("base backup {} is {}", b.id, b.damaged.as_ref()?)));
                r.notes = notes.iter().cloned().chain(damaged).chain(std::mem::take(&mut r.notes)).collect();
                r.rolled_back.clone_from(&rolled_back);
                r
            };
            Ok(all.into_iter().map(|r| known(Reachable::of(r, true))).collect())
        }))
    }
    fn preflight<'a>(
        &'a self,
        goal: &'a Goal,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Way>> {
        let (work, goal, cancel) = (self.clone(), goal.clone(), cancel.clone());
        Box::pin(apart(move || {
            let catalog = damage::load(&work.unlocked, work.heads.as_ref(), &mut |line| watch.line(line))?;
            let mut base = goal.base.clone();
            // One that is named, or read anew, is judged by what is seen now.
            if base.only.is_none() && base.look == Look::Ends {
                base.known.extend(known_damage(&catalog));
            }
            let found = Found::default();
            let ask = Ask {
                target: &goal.target,
                suspects: &goal.suspects,
                timeline: goal.timeline,
                scratch: &work.scratch,
                after: goal.after,
                base: &base,
                found: Some(&found),
            };
            let rolled_back = work.went_back(&catalog, &mut |line| watch.line(line));
            for line in to_know(&work.unlocked, &catalog) {
                watch.line(&format!("WARNING: {line}"));
            }
            let way = route(&work.unlocked, &work.programs(), &ask, &*watch, &cancel);
            let untold = match goal.records {
                true => work.write_down(&found.into_inner(), &*watch),
                false => BTreeMap::new(),
            };
            let told = |e: Error| untold.iter().fold(e, |e, (id, why)| e.hint(not_told(id, why)));
            // What would lead there may be what is missing.
            let told = |e: Error| rolled_back.iter().fold(told(e), |e, r| e.hint(r.sentence()));
            let mut way: Route = way.map_err(told)?;
            way.rolled_back.clone_from(&rolled_back);
            for p in &mut way.passed_over {
                p.unrecorded = untold.get(&p.backup).cloned();
            }
            let known = catalog.find(&way.backup.id).ok();
            way.verified_at = known.and_then(|b| b.verified_at);
            way.damaged = known.and_then(|b| b.damaged.clone());
            Ok(Way::Beside(Box::new(way)))
        }))
    }
    fn verify<'a>(
        &'a self,
        which: &'a Which,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
        seen: Seen,
    ) -> BoxFuture<'a, Result<Vec<Verified>>> {
        let (work, which, cancel) = (self.clone(), which.clone(), cancel.clone());
        Box::pin(apart(move || {
            let catalog = Catalog::load(&work.unlocked)?;
            let wanted: Vec<&Backup> = match &which {
                Which::One(id) => vec![catalog.find(id)?],
                Which::All => catalog.backups.iter().collect(),
                Which::Newest => catalog.backups.last().into_iter().collect(),
            };
            let mut all = Vec::new();
            for m in wanted.into_iter().map(|b| &b.manifest) {
                let began = std::time::Instant::now();
                let mut step = |done| {
                    watch.phase(&Phase::bytes("verify", done, Some(m.plain_bytes()), began));
                    check_cancel(&cancel, "the backup was not verified")
                };
                let heads = work.heads.as_ref();
                let result = match work.read_only {
                    true => read_backup(&work.unlocked, &m.id, &mut step),
                    false => verify_backup(&work.unlocked, &m.id, &mut step),
                };
                // One bad backup must not hide what is wrong with the next.
                let one = match result {
                    Err(e) if !is_damage(&e) => return Err(e),
                    Err(e) => {
                        let untold = match work.read_only {
                            true => Some("nothing is written with --read-only".to_string()),
                            false => damage::found(&work.unlocked, heads, &m.id, READ, &e),
                        };
                        let e = match untold {
                            Some(why) => e.hint(format!("the catalog could not be told that it is damaged: {why}")),
                            None => e,
                        };
                        let affected = part::affected(&work.unlocked, m);
                        let e = match &affected {
                            Some(a) => e.hint(tell(a, &m.id, m.kind)),
                            None => e,
                        };
                        let detail = serde_json::json!({"affected": affected});
                        Verified::new(m.id.clone(), Err(e), detail)
                    }
                    Ok(v) => {
                        if !work.read_only {
                            damage::right(&work.unlocked, heads, &m.id, READ, v.unrecorded.as_deref());
                        }
                        let rows = m.without_rows().map_or_else(String::new, |what| format!("; {what}"));
                        let untold = v.unrecorded.as_ref().map(|why| format!("; the catalog could not be told: {why}"));
                        Verified {
                            what: m.id.clone(),
                            result: Ok(format!("{} bytes read{rows}{}", v.plain_bytes, untold.unwrap_or_default())),
                            detail: serde_json::json!({
                                "plain_bytes": v.plain_bytes, "wal": v.wal, "unrecorded": v.unrecorded,
                            }),
                            untold: v.unrecorded,
                        }
                    }
                };
                seen(&one);
                all.push(one);
            }
            if matches!(which, Which::All) {
                let manifests: Vec<&Manifest> = catalog.backups.iter().map(|b| &b.manifest).collect();
                // What is archived or touched meanwhile was not read.
                let (listing, began, mut right) = (Listing::read(work.unlocked.repository())?, now(), BTreeSet::new());
                let read = log(&work.unlocked, &manifests, &*watch, &cancel, &mut right)?;
                if !work.read_only {
                    // Whoever may not write there leaves the time of the reading before: that errs on the safe side.
                    let _ = wal_index::was_read(&work.unlocked, &listing, &right, began);
                }
                for one in read {
                    seen(&one);
                    all.push(one);
                }
            }
            if !matches!(which, Which::One(_)) {
                for lost in &catalog.lost {
                    let error = Error::check("its manifest is missing or damaged").why(&lost.why);
                    let one = Verified::new(lost.backup.clone(), Err(error), serde_json::Value::Null);
                    seen(&one);
                    all.push(one);
                }
            }
            // That they were verified stands in the catalog now.
            let now = Catalog::load(&work.unlocked).state(|| "the catalog cannot be read any more".into())?;
            let _ = anchor::check(work.heads.as_ref(), &work.unlocked, &now, &mut |_| {});
            Ok(all)
        }))
    }
    fn last_named(&self) -> BoxFuture<'_, Option<Lsn>> {
        let work = self.clone();
        Box::pin(async move {
            let names = apart(move || wal_index::names(&work.unlocked)).await.ok()?;
            names.snapshots().last().copied()
        })
    }
    fn origin(&self) -> Option<&dyn Origin> {
        Some(&self.unlocked)
    }
}

/// What of a damaged backup is lost, and how to get at the rest.
fn tell(affected: &Affected, id: &str, kind: BackupKind) -> String {
    const MOST: usize = 10;
    let (one, option) = if kind == BackupKind::Files { ("file", "--file") } else { ("table", "--table") };
    let mut lost: Vec<String> =
        affected.lost.iter().take(MOST).map(|l| CleanText::line(l.as_bytes()).to_string()).collect();
    if affected.lost.len() > MOST {
        lost.push(format!("and {} more", affected.lost.len() - MOST));
    }
    let lost = if lost.is_empty() { format!("no {one}'s content") } else { format!("{one} {}", lost.join(", ")) };
    let n = affected.readable;
    format!(
        "affected: {lost}; {n} can still be restored one by one: breakglass backup restore {id} {option} NAME --into NEW"
    )
}
