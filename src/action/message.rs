//! Messages: the plan's templates and three of our own, filled in from what is known of the incident.

use std::collections::BTreeMap;

use super::blanks;
use crate::incident::rules::{CUSTOMERS, Rules, TEAM};
use crate::incident::{Now, State};
use crate::model::{Kind, Plan, Scenario, Time, format_clock};
use crate::plan::placeholders;

/// A message that can be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub title: String,
    /// Its text with blanks.
    pub text: String,
    /// Whether the plan brought it.
    pub planned: bool,
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
         What follows: [Follows]",
    ),
];

/// The plan's messages, then ours.
pub fn templates(plan: &Plan) -> Vec<Template> {
    let planned = plan.extras.iter().filter(|e| e.kind == "template" && !e.text.trim().is_empty()).map(|e| Template {
        title: e.title.clone(),
        text: e.text.clone(),
        planned: true,
    });
    let ours =
        OURS.iter().map(|(title, text)| Template { title: title.to_string(), text: text.to_string(), planned: false });
    planned.chain(ours).collect()
}

/// What is known, by the name of the blank it fills in (see [`blanks::variable_of`]).
pub fn known(state: &State, scenario: &Scenario, rules: &Rules, audience: &str, now: &Now) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |names: &[&str], value: String| {
        for name in names {
            out.insert(name.to_string(), value.clone());
        }
    };
    let minute = |t: Time| format!("{} UTC", &t.date_hms()[..16]);
    let start = state.impact.as_ref().map_or(state.opened.at, |i| i.at);
    let what = state.people.codename.clone().unwrap_or_else(|| state.title.clone());
    let drill = if state.kind == Kind::Drill { "DRILL: " } else { "" };
    put(&["WHAT", "INCIDENT", "TITLE", "INCIDENT_NAME", "SCENARIO", "ISSUE"], format!("{drill}{what}"));
    put(&["CODE_NAME", "CODENAME"], what);
    put(&["SEVERITY", "PRIORITY"], state.severity.clone().unwrap_or_else(|| "severity not declared".into()));
    put(&["START", "SINCE", "START_TIME", "TIME", "BEGAN"], minute(start));
    put(&["NOW", "CURRENT_TIME"], minute(now.time));
    let clock = state.rto_clock(now);
    put(&["ELAPSED", "DURATION"], format_clock(clock.elapsed));
    put(&["IMPACT", "AFFECTED", "AFFECTED_SERVICES"], impact(state));
    put(&["DOING", "STATUS", "CURRENT_STATUS"], doing(state, scenario));
    let cadence = rules.limits(state.severity.as_deref()).cadence.iter().find(|(who, _)| who == audience);
    let next = match (&state.restored, cadence) {
        (Some(_), _) => "none is planned; we write again if anything changes".to_string(),
        (None, Some((_, period))) => minute(now.time.plus(*period)),
        (None, None) => "as soon as there is something new".into(),
    };
    put(&["NEXT_UPDATE", "NEXT_UPDATE_TIME"], next);
    let expected = match (clock.objective, &state.restored) {
        (_, Some(r)) => format!("service is back since {}", minute(r.at)),
        (Some(o), None) => format!("objective {} from the start: {}", format_clock(o), minute(start.plus(o))),
        (None, None) => "not known yet".into(),
    };
    put(&["EXPECTED", "ETA"], expected);
    let lead = state.people.holder(crate::incident::people::COMMAND);
    let lead = lead.map_or_else(|| "not named yet".to_string(), |h| h.person.clone());
    put(&["LEAD", "INCIDENT_LEAD", "INCIDENT_COMMANDER", "COMMANDER"], lead);
    if let Some(r) = &state.restored {
        put(&["RESTORED", "END", "RESOLVED", "END_TIME"], minute(r.at));
    }
    if let Some((_, _, when)) = &state.facts.contained {
        put(&["WRITES_OFF", "ISOLATED"], minute(when.at));
    }
    if let Some((target, at, _)) = &state.facts.chosen {
        put(&["MOMENT"], at.map_or_else(|| target.to_string(), minute));
    }
    if let Some(loss) = &state.facts.loss {
        let most = if loss.at_most { "at most " } else { "" };
        let window = std::time::Duration::from_millis(loss.window_ms);
        put(&["LOST", "DATA_LOST"], format!("{most}what was entered during {}", format_clock(window)));
    }
    if let Some(target) = &state.target
        && state.people.codename.is_none()
    {
        let name = target.split(" @ ").next().unwrap_or(target);
        put(&["SERVICE_NAME", "SERVICE", "SYSTEM"], name.to_string());
    }
    out
}

/// Fills a message in: what a responder set comes first, then what is known. Returns it with the blanks that are left. That of
/// a drill says so: whoever gets it must not take it for real.
pub fn fill(text: &str, state: &State, known: &BTreeMap<String, String>) -> (String, Vec<String>) {
    let all = placeholders::in_message(text);
    let value = |name: &str| state.vars.get(name).or_else(|| known.get(name)).map(String::as_str);
    let mut filled = blanks::fill_message(text, &all, value);
    if state.kind == Kind::Drill && !filled.contains("DRILL") {
        let place = filled.find("Subject: ").map_or(0, |at| at + "Subject: ".len());
        filled.insert_str(place, "DRILL: ");
    }
    // What a responder typed may hold brackets of its own: those are no blanks.
    let left = all.into_iter().filter(|b| value(&blanks::variable_of(b)).is_none()).collect();
    (filled, left)
}

/// The audience a template is meant for, by its title.
pub fn meant_for(title: &str) -> &'static str {
    let lower = title.to_lowercase();
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
