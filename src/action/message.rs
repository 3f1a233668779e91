//! Messages: the plan's templates and three of our own, filled in from what is known of the incident.

use std::collections::BTreeMap;

use super::blanks;
use crate::incident::people::NEXT_UPDATE;
use crate::incident::rules::{AUTHORITIES, CUSTOMERS, Rules, TEAM, speaks_of_authorities};
use crate::incident::{Now, State};
use crate::model::plan::{Block, BlockRole};
use crate::model::target::RecoveryTarget;
use crate::model::{Kind, Plan, Scenario, Step, Time, format_clock};
use crate::plan::placeholders;

/// A message that can be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub title: String,
    /// Its text with blanks.
    pub text: String,
    /// Line of the plan it begins at; none for one of ours.
    pub line: Option<u32>,
}

/// What is known, and what a person is offered for what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// By the name of the blank (see [`blanks::variable_of`]).
    values: BTreeMap<String, Value>,
    /// A value that is likely, for a person to accept or to write over.
    offers: BTreeMap<String, String>,
}

/// What goes into a blank.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// These words.
    Words(String),
    /// A time: to the minute, or to the second where a message would else name two times by one word.
    At(Time),
}

impl Known {
    fn words(&mut self, names: &[&str], value: impl Into<String>) {
        let value = value.into();
        self.values.extend(names.iter().map(|n| (n.to_string(), Value::Words(value.clone()))));
    }
    fn time(&mut self, names: &[&str], at: Time) {
        self.values.extend(names.iter().map(|n| (n.to_string(), Value::At(at))));
    }
    /// What a person is offered for a blank that only they can fill in.
    pub fn offer(&self, blank: &str) -> Option<&str> {
        self.offers.get(&blanks::variable_of(blank)).map(String::as_str)
    }
}

fn minute(at: Time) -> String {
    format!("{} UTC", &at.date_hms()[..16])
}

/// Ours, for teams whose plan has none: title, text.
const OURS: [(&str, &str); 3] = [
    (
        "first message",
        "Subject: [Severity] [What]\n\n\
         What: [What], since [Start]\n\
         Impact: [Impact]\n\
         Lead: [Lead]\n\
         Next update: [Next Update]",
    ),
    (
        "update",
        "Subject: [Severity] [What]: update of [Now]\n\n\
         Since: [Start] ([Elapsed])\n\
         Impact: [Impact]\n\
         Now: [Doing]\n\
         Expected: [Expected]\n\
         Next update: [Next Update]",
    ),
    (
        "service is back",
        "Subject: [What]: service is back\n\n\
         It began at [Start] and service is back since [Restored].\n\
         Data lost: [Lost]\n\
         What follows: [Follows]\n\
         Next update: [Next Update]",
    ),
];

/// The plan's messages, then ours.
pub fn templates(plan: &Plan) -> Vec<Template> {
    let planned = plan.extras.iter().filter(|e| e.kind == "template" && !e.text.trim().is_empty()).map(|e| Template {
        title: e.title.clone(),
        text: e.text.clone(),
        line: Some(e.source.line),
    });
    let ours =
        OURS.iter().map(|(title, text)| Template { title: title.to_string(), text: text.to_string(), line: None });
    planned.chain(ours).collect()
}

/// The message that stands in a step, if one does.
pub fn of_step(step: &Step) -> Option<&Block> {
    step.blocks.iter().find(|b| b.role == BlockRole::Template)
}

/// What is known of an incident for a message to this audience.
pub fn known(state: &State, scenario: &Scenario, rules: &Rules, audience: &str, now: &Now) -> Known {
    let mut out = Known::default();
    let start = state.impact.as_ref().map_or(state.opened.at, |i| i.at);
    let what = state.people.codename.clone().unwrap_or_else(|| state.title.clone());
    let drill = if state.kind == Kind::Drill { "DRILL: " } else { "" };
    out.words(&["WHAT", "INCIDENT", "TITLE", "INCIDENT_NAME", "SCENARIO", "ISSUE"], format!("{drill}{what}"));
    out.words(&["CODE_NAME", "CODENAME"], what);
    let severity = state.severity.clone().unwrap_or_else(|| "severity not declared".into());
    out.words(&["SEVERITY", "PRIORITY"], severity);
    out.time(&["START", "SINCE", "START_TIME", "TIME", "BEGAN"], start);
    out.time(&["NOW", "CURRENT_TIME"], now.time);
    let clock = state.rto_clock(now);
    out.words(&["ELAPSED", "DURATION"], format_clock(clock.elapsed));
    out.words(&["IMPACT", "AFFECTED", "AFFECTED_SERVICES"], impact(state));
    out.words(&["DOING", "STATUS", "CURRENT_STATUS"], doing(state, scenario));
    // A time in every case: "we will write again by X" reads as well as "next update: X". Where the plan has a rhythm for these
    // people it is that, also once service is back (then it says that it held, and the clock asks for it); else only a person
    // knows, and is offered what the plan allows before a first message.
    let limits = rules.limits(state.severity.as_deref());
    match limits.cadence.iter().find(|(who, _)| who == audience) {
        Some((_, period)) => out.time(&NEXT_UPDATE, now.time.plus(*period)),
        None => {
            let offer = minute(now.time.plus(limits.communicate));
            out.offers.extend(NEXT_UPDATE.map(|name| (name.to_string(), offer.clone())));
        }
    }
    let expected = match (clock.objective, &state.restored) {
        (_, Some(r)) => format!("service is back since {}", minute(r.at)),
        (Some(o), None) => format!("objective {} from the start: {}", format_clock(o), minute(start.plus(o))),
        (None, None) => "not known yet".into(),
    };
    out.words(&["EXPECTED", "ETA"], expected);
    let lead = state.people.holder(crate::incident::people::COMMAND);
    let lead = lead.map_or_else(|| "not named yet".to_string(), |h| h.person.clone());
    out.words(&["LEAD", "INCIDENT_LEAD", "INCIDENT_COMMANDER", "COMMANDER"], lead);
    if let Some(r) = &state.restored {
        out.time(&["RESTORED", "END", "RESOLVED", "END_TIME"], r.at);
    }
    if let Some((_, _, when)) = &state.facts.contained {
        out.time(&["WRITES_OFF", "ISOLATED"], when.at);
    }
    if let Some(when) = &state.facts.isolated {
        out.time(&["ISOLATED"], when.at);
    }
    // A position in the log says nothing to whoever reads a message: without a time it is left to a person.
    if let Some((target, at, _)) = &state.facts.chosen {
        let at = match target {
            RecoveryTarget::Time(t) => Some(*t),
            _ => *at,
        };
        if let Some(at) = at {
            out.time(&["MOMENT"], at);
        }
    }
    if let Some(loss) = &state.facts.loss {
        let window = std::time::Duration::from_millis(loss.window_ms);
        let lost = match (loss.at_most, window.as_secs()) {
            (false, 0) if window.is_zero() => "nothing".to_string(),
            (_, 0) => "at most what was entered within one second".to_string(),
            (at_most, _) => {
                let most = if at_most { "at most " } else { "" };
                format!("{most}what was entered during {}", format_clock(window))
            }
        };
        out.words(&["LOST", "DATA_LOST"], lost);
    }
    if let Some(target) = &state.target {
        const NAMES: [&str; 3] = ["SERVICE_NAME", "SERVICE", "SYSTEM"];
        let name = target.split(" @ ").next().unwrap_or(target);
        match state.people.codename {
            None => out.words(&NAMES, name),
            // Whom it is said to is a person's decision; what there is to say is offered.
            Some(_) => out.offers.extend(NAMES.map(|n| (n.to_string(), name.to_string()))),
        }
    }
    // At the latest when it was opened; a person knows of an earlier report, and answers for the time.
    let known = minute(state.impact.as_ref().map_or(state.opened.at, |i| i.at.max(state.opened.at)));
    out.offers.extend(["KNOWN_SINCE", "BECAME_KNOWN"].map(|n| (n.to_string(), known.clone())));
    out
}

/// Fills a message in: what a responder set comes first, then what is known. Returns it with the blanks that are left. That of
/// a drill says so: whoever gets it must not take it for real.
pub fn fill(text: &str, state: &State, known: &Known) -> (String, Vec<String>) {
    let all = placeholders::in_message(text);
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut times: BTreeMap<String, Time> = BTreeMap::new();
    for blank in &all {
        let name = blanks::variable_of(blank);
        match (state.vars.get(&name), known.values.get(meant(blank, &name, text))) {
            (Some(said), _) => _ = values.insert(name, said.clone()),
            (None, Some(Value::Words(words))) => _ = values.insert(name, words.clone()),
            (None, Some(Value::At(at))) => _ = times.insert(name, *at),
            (None, None) => {}
        }
    }
    // "Between 14:01 and 14:01" says nothing: where two times share a minute, all of them have seconds.
    let shared = times.values().any(|a| times.values().any(|b| minute(*a) == minute(*b) && a.hms() != b.hms()));
    let word = |at: Time| if shared { format!("{} UTC", at.date_hms()) } else { minute(at) };
    values.extend(times.into_iter().map(|(name, at)| (name, word(at))));
    let mut filled = blanks::fill_message(text, &all, |name| values.get(name).map(String::as_str));
    if state.kind == Kind::Drill && !filled.contains("DRILL") {
        filled.insert_str(subject(&filled).unwrap_or(0), "DRILL: ");
    }
    // What a responder typed may hold brackets of its own: those are no blanks.
    let left = all.into_iter().filter(|b| !values.contains_key(&blanks::variable_of(b))).collect();
    (filled, left)
}

/// What a blank is about: "[Time]" in a sentence about the next update is no start.
fn meant<'n>(blank: &str, name: &'n str, text: &str) -> &'n str {
    let update = |line: &str| line.contains(blank) && line.to_lowercase().contains("next update");
    if name == "TIME" && text.lines().any(update) { NEXT_UPDATE[0] } else { name }
}

/// Where the words of the subject begin: behind `Subject:` at the beginning of a line.
fn subject(text: &str) -> Option<usize> {
    const NAME: &str = "subject:";
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.get(..NAME.len()).is_some_and(|head| head.eq_ignore_ascii_case(NAME)) {
            let rest = &line[NAME.len()..];
            return Some(at + line.len() - rest.trim_start_matches(' ').len());
        }
        at += line.len();
    }
    None
}

/// The audience a template is meant for, by its title.
pub fn meant_for(title: &str) -> &'static str {
    let lower = title.to_lowercase();
    if speaks_of_authorities(&lower) {
        return AUTHORITIES;
    }
    let outside = ["customer", "public", "external", "status page", "user", "tell"];
    if outside.iter().any(|w| lower.contains(w)) { CUSTOMERS } else { TEAM }
}

/// What users notice, as far as it was seen.
fn impact(state: &State) -> String {
    if let Some((healthy, components, _)) = &state.facts.health {
        let well = |s: &str| matches!(s, "ok" | "up" | "healthy" | "pass" | "good" | "operational");
        let bad: Vec<String> =
            components.iter().filter(|(_, s)| !well(s)).map(|(name, s)| format!("{name} ({s})")).collect();
        if !bad.is_empty() {
            return bad.join(", ");
        }
        if *healthy && state.restored.is_some() {
            return "none any more".into();
        }
    }
    if let Some((_, rows)) = &state.facts.damage
        && !rows.is_empty()
    {
        let tables: Vec<String> = rows.iter().map(|(table, n)| format!("{n} records of {table}")).collect();
        return tables.join(", ");
    }
    "is being looked at".into()
}

/// What is being done.
fn doing(state: &State, scenario: &Scenario) -> String {
    if state.closed.is_some() {
        return "closed".into();
    }
    let current = state.current_step(scenario).map(|s| s.title.clone());
    match (&state.restored, current) {
        (Some(_), _) => "service is back; it is being watched".into(),
        (None, Some(step)) => step,
        (None, None) => "all steps are worked".into(),
    }
}
