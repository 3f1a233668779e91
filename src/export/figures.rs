//! Figures over all incidents: how long it takes until service is back, how often it breaks, whether objectives are met.
//!
//! Drills are counted apart and never as incidents. Durations are whole milliseconds, means are rounded down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::html::escape;
use crate::incident::{RunStatus, State};
use crate::model::event::Outcome;
use crate::model::{Kind, Time, format_clock};

/// Of so many, so many went as they should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// As they should.
    pub good: u64,
    /// In all, as far as it was measured.
    pub of: u64,
}

impl Share {
    fn add(&mut self, good: bool) {
        self.good += u64::from(good);
        self.of += 1;
    }
    fn join(&mut self, other: Self) {
        self.good += other.good;
        self.of += other.of;
    }
    /// Percent, rounded down; none without a measurement.
    pub fn percent(self) -> Option<u64> {
        (self.good * 100).checked_div(self.of)
    }
    fn words(self) -> String {
        self.percent().map_or_else(|| "–".into(), |p| format!("{p} % ({} of {})", self.good, self.of))
    }
}

/// One incident or drill, as far as figures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Real or drill.
    pub kind: Kind,
    /// Scenario's slug.
    pub scenario: String,
    /// When users were first affected, else when it was opened.
    pub started: Time,
    /// Until service was restored, in milliseconds.
    pub rto_ms: Option<u64>,
    /// Whether within the objective; a closed incident whose service never came back missed it.
    pub rto_met: Option<bool>,
    /// Data lost, in milliseconds of work.
    pub loss_ms: Option<u64>,
    /// Rows lost.
    pub loss_rows: u64,
    /// Whether within the objective.
    pub rpo_met: Option<bool>,
    /// Whether it is closed.
    pub closed: bool,
    /// Backups taken in it.
    pub backups: Share,
    /// Restores done in it.
    pub restores: Share,
    /// Verdict of a drill that is closed.
    pub drill: Option<bool>,
    /// Whether that was an exercise at a table.
    pub tabletop: bool,
}

impl Case {
    /// From the state of an incident.
    pub fn of(state: &State) -> Self {
        let started = state.impact.as_ref().map_or(state.opened.at, |i| i.at);
        let took = state.restored.as_ref().map(|r| r.at.since(started));
        let closed = state.closed.is_some();
        let rto_met = match (took, state.rto) {
            (Some(took), Some(limit)) => Some(took <= limit),
            (None, Some(_)) if closed => Some(false),
            _ => None,
        };
        let loss = state.facts.loss.as_ref();
        let runs = |names: &[&str]| {
            let mut share = Share::default();
            for run in state.runs.values().filter(|r| names.contains(&r.action.as_str())) {
                match run.status {
                    RunStatus::Finished(Outcome::Succeeded) => share.add(true),
                    RunStatus::Finished(Outcome::Failed) => share.add(false),
                    // Cancelled or refused by a person or a gate says nothing about the backup.
                    _ => {}
                }
            }
            share
        };
        let judged = state.facts.judged.as_ref().map(|(passed, _, _)| *passed);
        Self {
            kind: state.kind,
            scenario: state.scenario.clone(),
            started,
            rto_ms: took.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            rto_met,
            loss_ms: loss.map(|l| l.window_ms),
            loss_rows: loss.map_or(0, |l| l.rows.values().sum()),
            rpo_met: loss.zip(state.rpo).map(|(l, limit)| Duration::from_millis(l.window_ms) <= limit),
            closed,
            backups: runs(&["backup create"]),
            restores: runs(&["pitr restore", "pitr partial", "backup restore"]),
            drill: (state.kind == Kind::Drill && closed).then(|| judged == Some(true)),
            tabletop: state.people.tabletop.is_some(),
        }
    }
}

/// Figures of a group of incidents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Real incidents that began in the time.
    pub incidents: u64,
    /// Of those, still open.
    pub open: u64,
    /// Mean time until service was restored, over those where it was.
    pub mttr_ms: Option<u64>,
    /// Longest of these.
    pub longest_ms: Option<u64>,
    /// Mean time from the beginning of one incident to the beginning of the next; none with fewer than two.
    pub mtbf_ms: Option<u64>,
    /// Recovery time objective met.
    pub rto: Share,
    /// Recovery point objective met.
    pub rpo: Share,
    /// Work lost, in milliseconds, over all.
    pub lost_ms: u64,
    /// Rows lost, over all.
    pub lost_rows: u64,
    /// Backups that succeeded.
    pub backups: Share,
    /// Restores that succeeded.
    pub restores: Share,
    /// Drills passed, of those closed. Nothing but this and the next counts a drill.
    pub drills: Share,
    /// Exercises at a table passed, of those closed.
    pub tabletops: Share,
}

impl Figures {
    /// Over these cases.
    pub fn of<'a>(cases: impl Iterator<Item = &'a Case>) -> Self {
        let mut f = Self::default();
        let (mut starts, mut times) = (Vec::new(), Vec::new());
        for case in cases {
            if case.kind == Kind::Drill {
                let of = if case.tabletop { &mut f.tabletops } else { &mut f.drills };
                if let Some(passed) = case.drill {
                    of.add(passed);
                }
                continue;
            }
            f.incidents += 1;
            f.open += u64::from(!case.closed);
            starts.push(case.started);
            times.extend(case.rto_ms);
            if let Some(met) = case.rto_met {
                f.rto.add(met);
            }
            if let Some(met) = case.rpo_met {
                f.rpo.add(met);
            }
            f.lost_ms = f.lost_ms.saturating_add(case.loss_ms.unwrap_or(0));
            f.lost_rows = f.lost_rows.saturating_add(case.loss_rows);
            f.backups.join(case.backups);
            f.restores.join(case.restores);
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        f.mttr_ms = times.iter().sum::<u64>().checked_div(count(times.len()));
        f.longest_ms = times.iter().max().copied();
        starts.sort();
        if let (Some(first), Some(last)) = (starts.first(), starts.last()) {
            f.mtbf_ms = last.diff_ms(*first).unsigned_abs().checked_div(count(starts.len()) - 1);
        }
        f
    }
}

/// The report: all of it, per scenario, and by month, quarter and year of the beginning (UTC).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Nothing that began earlier is counted.
    pub since: Option<Time>,
    /// Over everything.
    pub all: Figures,
    /// By the scenario's slug.
    pub scenarios: BTreeMap<String, Figures>,
    /// `2026-11`.
    pub months: BTreeMap<String, Figures>,
    /// `2026 Q4`.
    pub quarters: BTreeMap<String, Figures>,
    /// `2026`.
    pub years: BTreeMap<String, Figures>,
    /// Incidents that could not be read.
    pub unreadable: Vec<String>,
}

impl Overview {
    /// Over these cases, from `since` on.
    pub fn of(cases: &[Case], since: Option<Time>) -> Self {
        let cases: Vec<&Case> = cases.iter().filter(|c| since.is_none_or(|s| c.started >= s)).collect();
        let group = |name: &dyn Fn(&Case) -> String| {
            let mut groups: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
            for case in &cases {
                groups.entry(name(case)).or_default().push(case);
            }
            groups.into_iter().map(|(name, of)| (name, Figures::of(of.into_iter()))).collect()
        };
        Self {
            since,
            all: Figures::of(cases.iter().copied()),
            scenarios: group(&|c| c.scenario.clone()),
            months: group(&|c| month(c.started)),
            quarters: group(&|c| quarter(c.started)),
            years: group(&|c| c.started.date_hms().chars().take(4).collect()),
            unreadable: Vec::new(),
        }
    }

    /// As a table for a terminal.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |cells: &[String]| {
            let line: Vec<String> =
                cells.iter().zip([22, 9, 10, 12, 19, 19, 9, 19, 19, 19, 16]).map(|(c, w)| format!("{c:<w$}")).collect();
            let _ = writeln!(out, "{}", line.join(" ").trim_end());
        };
        row(&HEAD.map(String::from));
        for (name, f) in self.rows() {
            row(&cells(&name, f));
        }
        for id in &self.unreadable {
            let _ = writeln!(out, "not counted: {id}");
        }
        out.trim_end().to_string()
    }

    fn rows(&self) -> Vec<(String, &Figures)> {
        let mut rows = vec![("all".to_string(), &self.all)];
        for group in [&self.scenarios, &self.years, &self.quarters, &self.months] {
            rows.extend(group.iter().map(|(name, f)| (name.clone(), f)));
        }
        rows
    }

    /// As one page that needs nothing else.
    pub fn html(&self) -> String {
        let mut page = String::from(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Recovery report</title>\n<style>\n",
        );
        page.push_str(include_str!("page.css"));
        page.push_str("</style></head><body>\n<h1>Recovery report</h1>\n");
        let since =
            self.since.map_or_else(|| "everything on record".to_string(), |s| format!("since {}", s.date_hms()));
        let _ = writeln!(page, "<p class=\"lead\">{}. Drills are never counted as incidents.</p>", escape(&since));
        page.push_str(&bars("Incidents by month", &self.months, |f| f.incidents, |n| n.to_string()));
        page.push_str(&bars(
            "Mean time to restore by month",
            &self.months,
            |f| f.mttr_ms.unwrap_or(0),
            |ms| format_clock(Duration::from_millis(ms)),
        ));
        page.push_str("<h2>Figures</h2>\n<table><thead><tr>");
        for h in HEAD {
            let _ = write!(page, "<th>{}</th>", escape(h));
        }
        page.push_str("</tr></thead><tbody>\n");
        for (name, f) in self.rows() {
            page.push_str("<tr>");
            for cell in cells(&name, f) {
                let _ = write!(page, "<td>{}</td>", escape(&cell));
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody></table>\n</body></html>\n");
        page
    }
}

const HEAD: [&str; 11] = [
    "",
    "incidents",
    "MTTR",
    "MTBF",
    "RTO met",
    "RPO met",
    "lost",
    "backups",
    "restores",
    "drills passed",
    "tabletops passed",
];

fn cells(name: &str, f: &Figures) -> [String; 11] {
    let time = |ms: Option<u64>| ms.map_or_else(|| "–".into(), |ms| format_clock(Duration::from_millis(ms)));
    [
        name.to_string(),
        f.incidents.to_string(),
        time(f.mttr_ms),
        time(f.mtbf_ms),
        f.rto.words(),
        f.rpo.words(),
        time(Some(f.lost_ms)),
        f.backups.words(),
        f.restores.words(),
        f.drills.words(),
        f.tabletops.words(),
    ]
}

/// A bar chart, one bar a group.
fn bars(
    title: &str,
    groups: &BTreeMap<String, Figures>,
    value: fn(&Figures) -> u64,
    word: impl Fn(u64) -> String,
) -> String {
    let most = groups.values().map(value).max().unwrap_or(0).max(1);
    let height = 22 * groups.len() + 6;
    let mut svg = format!(
        "<h2>{}</h2>\n<svg role=\"img\" aria-label=\"{}\" width=\"760\" height=\"{height}\" viewBox=\"0 0 760 {height}\">\n",
        escape(title),
        escape(title)
    );
    for (i, (name, f)) in groups.iter().enumerate() {
        let (y, v) = (22 * i, value(f));
        let width = v.saturating_mul(520) / most;
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\" fill=\"currentColor\" font-size=\"13\">{}</text><rect x=\"90\" y=\"{}\" width=\"{width}\" \
             height=\"14\" fill=\"var(--actual)\"/><text x=\"{}\" y=\"{}\" fill=\"currentColor\" font-size=\"13\">{}</text>",
            y + 15,
            escape(name),
            y + 4,
            98 + width,
            y + 15,
            escape(&word(v))
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn month(at: Time) -> String {
    at.date_hms().chars().take(7).collect()
}

fn quarter(at: Time) -> String {
    let text = month(at);
    let (year, month) = text.split_once('-').unwrap_or((text.as_str(), "1"));
    let month: u32 = month.parse().unwrap_or(1);
    format!("{year} Q{}", month.saturating_sub(1) / 3 + 1)
}
