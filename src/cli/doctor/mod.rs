//! `breakglass doctor`: would a recovery work from this machine, now? Looks only; changes nothing.

mod machine;
mod target;

use clap::{ArgMatches, Command};
use serde::Serialize;

use super::{Invocation, print};
use crate::error::{Context, Error, Result};
use crate::model::{CleanText, Redactor};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, and is worth knowing.
    Warning,
    /// A recovery would fail or fall short.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What it is about, such as `repository`.
    pub area: &'static str,
    /// How it came out.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// What was looked at so far.
#[derive(Debug, Default)]
pub struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, area: &'static str, level: Level, what: impl Into<String>) -> &mut Check {
        self.0.push(Check { area, level, what: what.into(), hints: Vec::new() });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
    /// As it should be.
    pub fn good(&mut self, area: &'static str, what: impl Into<String>) {
        self.add(area, Level::Good, what);
    }
    /// Works, and is worth knowing, with what to do.
    pub fn warning(&mut self, area: &'static str, what: impl Into<String>, hint: impl Into<String>) {
        self.add(area, Level::Warning, what).hints.push(hint.into());
    }
    /// Would make a recovery fail or fall short, with what to do.
    pub fn problem(&mut self, area: &'static str, what: impl Into<String>, hint: impl Into<String>) {
        self.add(area, Level::Problem, what).hints.push(hint.into());
    }
    /// With several things to do, in this order.
    pub fn advised(&mut self, area: &'static str, level: Level, what: impl Into<String>, hints: Vec<String>) {
        self.add(area, level, what).hints = hints;
    }
    /// An error is a problem.
    pub fn error(&mut self, area: &'static str, error: &Error) {
        let why = if error.why.is_empty() { String::new() } else { format!(": {}", error.why) };
        self.add(area, Level::Problem, format!("{}{why}", error.what)).hints.clone_from(&error.hints);
    }
    /// How many came out so.
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|c| c.level == level).count()
    }
}

/// The definition.
pub fn command() -> Command {
    Command::new("doctor")
        .about("Would a recovery work from this machine, now? Looks only; exit 1 when not")
        .after_help(
            "Looks at the state directory, the configuration, the plans, PostgreSQL's programs, the database with its\n\
             archiving, the repository with its keys, backups and holes, and the service's health page.",
        )
}

/// Runs it.
///
/// # Errors
/// Only when the result cannot be printed: whatever else fails is a finding.
pub fn run(invocation: &Invocation, _: &ArgMatches) -> Result<u8> {
    let mut checks = Checks::default();
    machine::look(invocation, &mut checks);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .state(|| "The asynchronous runtime cannot be started".into())?;
    runtime.block_on(target::look(invocation, &mut checks));
    let redactor = Redactor::new(invocation.config.secrets.values());
    for check in &mut checks.0 {
        check.what = CleanText::text(&redactor.redact(&check.what)).as_str().to_string();
    }
    let (problems, warnings) = (checks.count(Level::Problem), checks.count(Level::Warning));
    if invocation.json {
        let document =
            serde_json::json!({"ready": problems == 0, "problems": problems, "warnings": warnings, "checks": checks.0});
        print(&format!("{document:#}"))?;
    } else {
        print(&render(&checks.0))?;
        print(&match (problems, warnings) {
            (0, 0) => "ready".to_string(),
            (0, n) => format!("ready, {n} to know about"),
            (n, _) => format!("not ready: {n} to put right"),
        })?;
    }
    Ok(u8::from(problems > 0))
}

fn render(checks: &[Check]) -> String {
    let mut out = String::new();
    for check in checks {
        let glyph = match check.level {
            Level::Good => "✓",
            Level::Warning => "!",
            Level::Problem => "✗",
        };
        out.push_str(&format!("{glyph} {:<14}{}\n", check.area, check.what));
        for hint in &check.hints {
            out.push_str(&format!("{:16}→ {hint}\n", ""));
        }
    }
    out
}
