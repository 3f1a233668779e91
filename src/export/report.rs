//! What an auditor asks of a recovery test, filled in from the journal as far as it goes; what it does not know stays blank.

use std::time::Duration;

use crate::incident::StepStatus;
use crate::model::event::{Check, Verdict};
use crate::model::{Kind, format_clock};

use super::clean;
use super::timeline::{Judgement, Timeline, duration};
use super::words::{size, stop_words, verdict_word};

/// The evidence fields of a drill or an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was tested, where, with what: label and value.
    pub identity: Vec<(&'static str, String)>,
    /// Names, roles and how many records each wrote.
    pub people: Vec<(String, &'static str, u64)>,
    /// When, and by which clock.
    pub time: Vec<(&'static str, String)>,
    /// Checks of the recovered data, and the umpire's: who checked, name, verdict, detail.
    pub validation: Vec<(&'static str, String, &'static str, String)>,
    /// What was found of the recovered data beyond the checks: label and value.
    pub data: Vec<(&'static str, String)>,
    /// Gaps the journal shows; a person adds owner and date.
    pub findings: Vec<Finding>,
    /// What was simulated, left out or not measured.
    pub limits: Vec<String>,
}

/// A gap. Owner, due date, ticket and status are for people to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub gap: String,
    /// `high`, `medium`, `low`: a proposal.
    pub severity: &'static str,
}

impl Report {
    /// Fills in the report.
    pub fn of(t: &Timeline) -> Self {
        Self {
            identity: identity(t),
            people: people(t),
            time: time(t),
            validation: validation(t),
            data: data(t),
            findings: findings(t),
            limits: limits(t),
        }
    }
}

fn identity(t: &Timeline) -> Vec<(&'static str, String)> {
    let s = &t.state;
    let mut out = vec![
        (if s.kind == Kind::Drill { "Test" } else { "Incident" }, clean(&s.title)),
        ("Unique id", clean(s.id.as_str())),
        ("System", s.target.as_deref().map_or_else(|| "not named".into(), clean)),
    ];
    if let Some((identity, _)) = &s.facts.source {
        out.push((
            "Database seen",
            format!(
                "{}, system identifier {}, server version {}",
                clean(&identity.database),
                clean(&identity.system_identifier),
                identity.version_num
            ),
        ));
    }
    if let Some((_, components, _)) = &s.facts.health
        && !components.is_empty()
    {
        out.push(("Components", components.keys().map(|c| clean(c)).collect::<Vec<_>>().join(", ")));
    }
    let (environment, kind) = match (s.kind, &s.facts.drill) {
        (Kind::Drill, Some((_, scale, bytes, _))) => (
            format!("sandbox: a private PostgreSQL made for this drill, size {scale}, {}", size(*bytes)),
            "functional, on a simulated service",
        ),
        (Kind::Drill, None) => ("as the target names it".into(), "functional"),
        (Kind::Real, _) => ("production".into(), "live incident"),
    };
    out.push(("Environment", environment));
    out.push(("Kind", kind.into()));
    match &t.plan {
        Some(p) => {
            out.push(("Plan", format!("{} ({})", p.title, p.file)));
            out.push(("Plan document SHA-256", p.document.clone().unwrap_or_else(|| "not recorded".into())));
        }
        None => out.push(("Plan", "could not be read".into())),
    }
    out.push(("Plan as understood SHA-256", clean(s.plan.as_str())));
    out.push(("Tool", format!("breakglass {}", clean(&s.program))));
    out
}

fn people(t: &Timeline) -> Vec<(String, &'static str, u64)> {
    let opened = clean(t.state.opened_by.as_str());
    let role = |name: &str| match name {
        "breakglass" => "the program",
        n if n == opened => "opened the incident",
        _ => "responder",
    };
    t.people.iter().map(|(name, n)| (name.clone(), role(name), *n)).collect()
}

fn time(t: &Timeline) -> Vec<(&'static str, String)> {
    let s = &t.state;
    let mut out = vec![("Start", s.opened.at.to_string())];
    out.push((
        "Impact started",
        s.impact.as_ref().map_or_else(|| "not stated".into(), |i| format!("{} ({})", i.at, clean(&i.source))),
    ));
    out.push(("Declared", s.declared.as_ref().map_or_else(|| "not declared".into(), |d| d.at.to_string())));
    out.push(("Service restored", s.restored.as_ref().map_or_else(|| "not restored".into(), |r| r.at.to_string())));
    out.push((
        "End",
        s.closed.as_ref().map_or_else(|| format!("not closed; last record {}", t.until), |(w, _)| w.at.to_string()),
    ));
    out.push(("Exported", t.exported_at.to_string()));
    let boots = match t.boots {
        0 | 1 => "of one machine, started once".to_string(),
        n => format!("of {n} machines or starts of a machine"),
    };
    out.push(("Clock", format!("UTC, system clock {boots}; durations within one start are measured by uptime")));
    out
}

fn validation(t: &Timeline) -> Vec<(&'static str, String, &'static str, String)> {
    let facts = &t.state.facts;
    let row = |who: &'static str, c: &Check| (who, clean(&c.name), verdict_word(c.verdict), clean(&c.detail));
    let mut out = Vec::new();
    if let Some((_, checks)) = &facts.verified {
        out.extend(checks.iter().map(|c| row("verification", c)));
    }
    if let Some((_, checks, _)) = &facts.judged {
        out.extend(checks.iter().map(|c| row("umpire", c)));
    }
    out
}

fn data(t: &Timeline) -> Vec<(&'static str, String)> {
    let s = &t.state;
    let mut out = Vec::new();
    if let Some((target, at, loses)) = &s.facts.chosen {
        let at = at.map(|at| format!(", {} UTC", at.date_hms())).unwrap_or_default();
        out.push(("Chosen moment", format!("{}{at}", stop_words(target))));
        out.extend(loses.as_ref().map(|l| ("Loss expected", super::words::loss_words(l))));
    }
    if let Some(shadow) = &s.facts.shadow {
        if let Some(newest) = shadow.reached_time {
            let against = s.impact.as_ref().map(|i| {
                let ms = i.at.diff_ms(newest);
                let word = if ms < 0 { "after" } else { "before" };
                format!(", {} {word} the impact", duration(Duration::from_millis(ms.unsigned_abs())))
            });
            out.push(("Newest recovered commit", format!("{newest}{}", against.unwrap_or_default())));
        }
        let took = |ms| duration(Duration::from_millis(ms));
        let how = format!(
            "{} from backup {}, files in {}, log in {}",
            size(shadow.bytes),
            clean(&shadow.backup),
            took(shadow.files_ms),
            took(shadow.replay_ms)
        );
        out.push(("Restored", how));
    }
    if let Some((bytes, time)) = t.projection {
        out.push((
            "The same recovery of a larger database",
            format!("{}: about {} (files in proportion to bytes, log as measured)", size(bytes), format_clock(time)),
        ));
    }
    if let Some(loss) = &s.facts.loss {
        out.push(("Loss measured", super::words::loss_words(loss)));
        if let Some(given_up) = &s.facts.given_up {
            let rows: u64 = given_up.rows.values().sum();
            let said = format!("{} rows, lost before another moment was chosen", super::words::grouped(rows));
            out.push(("Of it, with a recovery that was given up", said));
        }
        out.extend(
            loss.rows
                .iter()
                .map(|(table, n)| ("Rows lost", format!("{}: {}", clean(table), super::words::grouped(*n)))),
        );
    }
    if let Some((folder, rows)) = &s.facts.salvage {
        out.push(("Salvage", format!("{} rows in {}", super::words::grouped(rows.values().sum()), clean(folder))));
    }
    if let Some((_, kept, _)) = &s.facts.promoted {
        out.push(("Damaged cluster kept at", clean(kept)));
    }
    out
}

fn findings(t: &Timeline) -> Vec<Finding> {
    let s = &t.state;
    let mut out = Vec::new();
    let mut add = |severity, gap: String| out.push(Finding { gap, severity });
    for o in t.objectives.iter().filter(|o| o.judgement == Judgement::Missed) {
        let by = match (o.objective, o.actual) {
            (Some(objective), Some(actual)) => format!(" by {}", duration(actual.saturating_sub(objective))),
            _ => String::new(),
        };
        add("high", format!("{} missed{by}", o.name));
    }
    for (who, name, _, detail) in validation(t).iter().filter(|v| v.2 == verdict_word(Verdict::Failed)) {
        add("high", format!("{who}: check “{name}” failed: {detail}"));
    }
    for (gate, reason) in s.waivers.iter().map(|w| (clean(&w.gate), clean(&w.reason))) {
        add("medium", format!("safety gate “{gate}” was waived: {reason}"));
    }
    for run in s.runs.values().filter(|r| !r.succeeded()) {
        let step = t.steps.iter().find(|step| run.step.as_ref() == Some(&step.id));
        let place = step.map_or_else(String::new, |step| format!("step {} “{}”: ", step.number, step.title));
        add("medium", format!("{place}{} (run {}) {}", clean(&run.action), run.id, super::timeline::run_result(run)));
    }
    for step in &t.steps {
        if step.status == StepStatus::Skipped {
            let why = step.reason.clone().unwrap_or_default();
            add("low", format!("step {} “{}” was skipped: {why}", step.number, step.title));
        }
        if let (true, Some(planned), Some(actual)) = (step.overran(), step.planned, step.actual) {
            let (actual, planned) = (duration(actual), duration(planned));
            add("low", format!("step {} “{}” took {actual}, planned {planned}", step.number, step.title));
        }
    }
    if let Some((_, _, holes)) = &s.facts.range {
        for hole in holes {
            add("high", format!("the archive has a gap: {}", clean(hole)));
        }
    }
    for backup in s.facts.backups.iter().filter(|b| !b.verified) {
        add("medium", format!("backup {} was taken and not verified", clean(&backup.id)));
    }
    out
}

fn limits(t: &Timeline) -> Vec<String> {
    let s = &t.state;
    let mut out = Vec::new();
    if s.facts.drill.is_some() {
        out.push("Simulated: the database, its service, its traffic and the damage were made for this drill; production was not touched.".into());
    }
    let named = |status| {
        let names: Vec<String> =
            t.steps.iter().filter(|s| s.status == status).map(|s| format!("{} “{}”", s.number, s.title)).collect();
        names.join(", ")
    };
    let skipped = named(StepStatus::Skipped);
    if !skipped.is_empty() {
        out.push(format!("Skipped steps: {skipped}."));
    }
    let open = [named(StepStatus::Open), named(StepStatus::Active)]
        .into_iter()
        .filter(|n| !n.is_empty())
        .collect::<Vec<_>>()
        .join(", ");
    if !open.is_empty() {
        out.push(format!("Steps not finished: {open}."));
    }
    for o in t.objectives.iter().filter(|o| o.actual.is_none()) {
        out.push(format!("Not measured: {} ({}).", o.name, o.how));
    }
    for (_, name, _, detail) in validation(t).iter().filter(|v| v.2 == verdict_word(Verdict::NotAvailable)) {
        out.push(format!("Not checked: {name} ({detail})."));
    }
    if s.impact.is_none() {
        out.push("No impact was stated, so the RTO counts from the opening.".into());
    }
    if s.read_only {
        out.push("The journal holds events of a newer version, which are listed but not understood here.".into());
    }
    out.push("Names are as given on each machine: on an account shared by several people a name is not a proof of who acted.".into());
    out.push(
        "Whether the clocks were right was not checked; the order of events is the journal's, not the clock's.".into(),
    );
    out
}
