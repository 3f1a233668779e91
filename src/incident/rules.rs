//! What a plan asks of the people at each severity: deadlines, levels, and how often whom to tell. What the plan does not
//! say has a default; docs/formats.md, "Deadlines", lists them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::parse_duration;
use crate::model::plan::{MatrixRow, Phase, Plan, Scenario};

/// Those who work on it, and everybody inside.
pub const TEAM: &str = "team";
/// Those outside.
pub const CUSTOMERS: &str = "customers";

/// Those who have to be told by law.
pub const AUTHORITIES: &str = "authorities";

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

/// A level of escalation and how long it has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its number, from 1.
    pub level: u32,
    /// Who.
    pub who: String,
    /// Time to answer.
    pub within: Duration,
}

/// What one severity asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the impact until somebody works on it.
    pub respond: Duration,
    /// From there until the next level knows.
    pub escalate: Duration,
    /// From there until the first message is out.
    pub communicate: Duration,
    /// To whom that goes.
    pub audience: String,
    /// Who is told how often after that.
    pub cadence: Vec<(String, Duration)>,
}

/// What a plan asks of the people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    severities: BTreeMap<String, Limits>,
    /// Levels of escalation, lowest first.
    pub levels: Vec<Level>,
    /// Whether the plan speaks of authorities that have to be told.
    pub authorities: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let limits = |respond, escalate, communicate, audience: &str, cadence: &[(&str, u64)]| Limits {
            respond: Duration::from_secs(respond),
            escalate: Duration::from_secs(escalate),
            communicate: Duration::from_secs(communicate),
            audience: audience.into(),
            cadence: cadence.iter().map(|(who, s)| (who.to_string(), Duration::from_secs(*s))).collect(),
        };
        let level =
            |level, who: &str, minutes| Level { level, who: who.into(), within: Duration::from_secs(minutes * MINUTE) };
        Self {
            severities: [
                (
                    "P0",
                    limits(15 * MINUTE, 15 * MINUTE, HOUR, CUSTOMERS, &[(TEAM, 15 * MINUTE), (CUSTOMERS, 30 * MINUTE)]),
                ),
                ("P1", limits(HOUR, 4 * HOUR, 2 * HOUR, TEAM, &[(TEAM, 30 * MINUTE)])),
                ("P2", limits(4 * HOUR, 24 * HOUR, 8 * HOUR, TEAM, &[])),
                ("P3", limits(24 * HOUR, 72 * HOUR, 48 * HOUR, TEAM, &[])),
            ]
            .into_iter()
            .map(|(name, l)| (name.to_string(), l))
            .collect(),
            levels: vec![
                level(1, "on-call engineer", 15),
                level(2, "engineering manager", 30),
                level(3, "head of engineering", 60),
            ],
            authorities: false,
        }
    }
}

impl Rules {
    /// What this plan asks for when this scenario happens.
    pub fn of(plan: &Plan, scenario: &Scenario) -> Self {
        let mut rules = Self::default();
        for row in &plan.matrix {
            if let Some(limits) = rules.severities.get_mut(&row.level) {
                limits.read(row);
            }
        }
        if let Some(every) = rhythm(scenario) {
            for (_, limits) in rules.severities.iter_mut().filter(|(s, _)| matches!(s.as_str(), "P0" | "P1")) {
                limits.cadence.iter_mut().for_each(|(_, period)| *period = every);
            }
        }
        rules.authorities = texts(scenario).any(speaks_of_authorities);
        let mut levels: Vec<Level> = Vec::new();
        for said in plan.escalation.iter().filter(|e| !levels_has(&plan.escalation, e)) {
            let within = said.respond_s.unwrap_or(match said.level {
                0 | 1 => 15 * MINUTE,
                2 => 30 * MINUTE,
                _ => HOUR,
            });
            levels.push(Level { level: said.level, who: said.who.clone(), within: Duration::from_secs(within) });
        }
        if !levels.is_empty() {
            levels.sort_by_key(|l| l.level);
            rules.levels = levels;
        }
        rules
    }

    /// Of a severity; an incident that has none yet is taken for the gravest.
    pub fn limits(&self, severity: Option<&str>) -> &Limits {
        static NONE: Limits = Limits {
            respond: Duration::from_secs(15 * MINUTE),
            escalate: Duration::from_secs(15 * MINUTE),
            communicate: Duration::from_secs(HOUR),
            audience: String::new(),
            cadence: Vec::new(),
        };
        severity.and_then(|s| self.severities.get(s)).or_else(|| self.severities.get("P0")).unwrap_or(&NONE)
    }

    /// Everybody who is told at this severity, those inside first.
    pub fn audiences(&self, severity: Option<&str>) -> Vec<String> {
        let limits = self.limits(severity);
        let mut all = vec![TEAM.to_string()];
        for name in limits.cadence.iter().map(|(who, _)| who).chain([&limits.audience, &CUSTOMERS.to_string()]) {
            if !name.is_empty() && !all.contains(name) {
                all.push(name.clone());
            }
        }
        if self.authorities && !all.iter().any(|name| name == AUTHORITIES) {
            all.push(AUTHORITIES.into());
        }
        all
    }

    /// The level to call when these are called already.
    pub fn next_level(&self, called: u32) -> Option<&Level> {
        // The first one is on call: it was paged by the alarm.
        let least = called.max(1);
        self.levels.iter().find(|l| l.level > least).or_else(|| self.levels.last())
    }
}

/// Whether an entry repeats an earlier one of the same level.
fn levels_has(all: &[crate::model::plan::Escalation], this: &crate::model::plan::Escalation) -> bool {
    all.iter().take_while(|e| !std::ptr::eq(*e, this)).any(|e| e.level == this.level)
}

impl Limits {
    /// Takes over what a row of the matrix says.
    fn read(&mut self, row: &MatrixRow) {
        let set = |to: &mut Duration, seconds: Option<u64>| {
            if let Some(s) = seconds.filter(|s| *s > 0) {
                *to = Duration::from_secs(s);
            }
        };
        set(&mut self.respond, row.respond_s);
        set(&mut self.escalate, row.escalate_s);
        set(&mut self.communicate, row.communicate_s);
        let text = row.communicate.as_deref().unwrap_or_default();
        if let Some(name) = audience(text) {
            self.audience = name;
        }
        if let Some(every) = every(text) {
            match self.cadence.iter_mut().find(|(who, _)| *who == self.audience) {
                Some((_, period)) => *period = every,
                None => self.cadence.push((self.audience.clone(), every)),
            }
        }
        // Who has to be told first is told again, too, where anybody is.
        let usual = self.cadence.iter().map(|(_, p)| *p).max();
        if let Some(period) = usual.filter(|_| !self.cadence.iter().any(|(who, _)| *who == self.audience)) {
            self.cadence.retain(|(who, _)| who == TEAM);
            self.cadence.push((self.audience.clone(), period));
        }
        self.cadence.retain(|(who, _)| who == TEAM || *who == self.audience);
    }
}

/// Who is told, from `Public within 1 hour, then every 15 minutes`.
fn audience(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let end = [" within", " in ", " after", " by ", ":", ",", " every", "("].iter().filter_map(|w| lower.find(w)).min();
    let end = end.unwrap_or(lower.len()).min(lower.find(|c: char| c.is_ascii_digit()).unwrap_or(lower.len()));
    let name = lower.get(..end)?.trim_matches(|c: char| !c.is_alphanumeric()).trim();
    let name = name.strip_suffix(" within").or_else(|| name.strip_suffix(" in")).unwrap_or(name).trim();
    let any = |words: &[&str]| name.split(|c: char| !c.is_alphanumeric()).any(|w| words.contains(&w));
    match name {
        "" => None,
        _ if any(&["public", "customers", "customer", "users", "external", "status"]) => Some(CUSTOMERS.into()),
        _ if any(&["internal", "team"]) => Some(TEAM.into()),
        _ if name.chars().count() <= 40 => Some(name.to_string()),
        _ => None,
    }
}

/// The time after the last `every` of a text: `every 15 minutes`, `every hour`.
fn every(text: &str) -> Option<Duration> {
    let lower = text.to_lowercase();
    let (_, rest) = lower.rsplit_once("every ")?;
    let mut words = rest.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let first = words.next()?;
    let text = match first {
        "hour" | "minute" => format!("1 {first}"),
        n if n.bytes().all(|b| b.is_ascii_digit()) => format!("{n} {}", words.next()?),
        other => other.to_string(),
    };
    parse_duration(&text).ok().filter(|d| !d.is_zero() && d.as_secs() <= 24 * HOUR)
}

/// Everything the author says of a scenario and its steps.
fn texts(scenario: &Scenario) -> impl Iterator<Item = &str> {
    let items = scenario.steps.iter().flat_map(|s| s.items.iter().map(|i| i.title.as_str()));
    let texts = scenario.steps.iter().flat_map(|s| [s.title.as_str(), s.text.as_str()]);
    items.chain(texts).chain([scenario.intro.as_str()])
}

/// Whether a text speaks of authorities that are to be told.
pub fn speaks_of_authorities(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("authorities") || lower.contains("supervisory authority") || lower.contains("regulators")
}

/// A rhythm that the scenario's own words ask for: "provide updates every 15 minutes".
fn rhythm(scenario: &Scenario) -> Option<Duration> {
    texts(scenario)
        .flat_map(|t| t.split(['.', '\n', ';']))
        .filter(|sentence| sentence.to_lowercase().contains("update"))
        .find_map(every)
}

/// Whether the plan asks for a name that says nothing when the incident is declared.
pub fn asks_codename(scenario: &Scenario) -> bool {
    let steps = scenario.steps.iter().filter(|s| s.phase == Some(Phase::Declare));
    let texts = steps.flat_map(|s| s.items.iter().map(|i| &i.title).chain([&s.title, &s.text]));
    texts.map(|t| t.to_lowercase()).any(|t| t.contains("code name") || t.contains("codename"))
}

/// What a team does once it is over, when its plan does not say.
const AFTERWARDS: [&str; 6] = [
    "Everybody who was told that it broke was told that it works",
    "Temporary access, exceptions and switched-off alarms are taken back",
    "A new backup was taken and verified",
    "Evidence and the timeline are exported and kept outside this machine",
    "The post-mortem has a date and an owner",
    "What the plan got wrong is corrected in the plan",
];

/// What is to be done once it is over: of the scenario, else of the plan's lists for afterwards, else the usual things.
pub fn afterwards(plan: &Plan, scenario: &Scenario) -> Vec<String> {
    let mut items: Vec<String> = scenario.after.iter().map(|i| i.title.clone()).collect();
    if items.is_empty() {
        let lists = plan.extras.iter().filter(|e| e.kind == "checklist" && is_after(&e.title));
        items = lists.flat_map(|e| e.items.iter().map(|i| i.title.clone())).collect();
    }
    if items.is_empty() {
        items = AFTERWARDS.iter().map(|t| t.to_string()).collect();
    }
    let mut seen = std::collections::BTreeSet::new();
    items.retain(|i| !i.trim().is_empty() && seen.insert(i.clone()));
    items
}

fn is_after(title: &str) -> bool {
    let lower = title.to_lowercase();
    ["post", "after", "follow", "recovery checklist", "lessons"].iter().any(|w| lower.contains(w))
}
