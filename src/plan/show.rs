//! What was understood, as JSON for people's scripts and as text (`plan show`).

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::model::plan::{Phase, Plan};

/// The level word of `P0` … `P3`.
pub fn level_word(level: &str) -> &'static str {
    match level {
        "P0" => "critical",
        "P1" => "high",
        "P2" => "medium",
        _ => "low",
    }
}

/// The plan as `plan show --json` prints it: the model's own fields, with a level word beside the severity code.
///
/// # Errors
/// None in practice; a serializer failure is passed on.
pub fn to_show_json(plan: &Plan) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(plan)?;
    if let Some(scenarios) = value.get_mut("scenarios").and_then(Value::as_array_mut) {
        for scenario in scenarios {
            if let Some(severity) = scenario.get_mut("severity").filter(|s| s.is_object()) {
                let code = severity.get("level").and_then(Value::as_str).unwrap_or_default().to_string();
                severity["level"] = json!(level_word(&code));
                severity["code"] = json!(code);
            }
        }
    }
    Ok(value)
}

/// The name of a phase for people.
pub fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Detect => "detect",
        Phase::Declare => "declare",
        Phase::Contain => "contain",
        Phase::Assess => "assess",
        Phase::Decide => "decide",
        Phase::Recover => "recover",
        Phase::Verify => "verify",
        Phase::Promote => "promote",
        Phase::Protect => "protect",
        Phase::Communicate => "communicate",
        Phase::Close => "close",
        Phase::Prevent => "prevent",
    }
}

/// `4h`, `1h30m`, `15m`, `90s`.
pub fn short_span(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut out = String::new();
    for (n, unit) in [(h, 'h'), (m, 'm'), (s, 's')] {
        if n > 0 {
            let _ = write!(out, "{n}{unit}");
        }
    }
    if out.is_empty() { "0".into() } else { out }
}

/// The plan as text, one line per scenario, step, item and block.
pub fn to_text(plan: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} ({})", plan.title, plan.file);
    let objective = |name: &str, value: Option<u64>| value.map(|v| format!("{name} {}", short_span(v)));
    let both: Vec<String> = [objective("RTO", plan.objectives.rto_s), objective("RPO", plan.objectives.rpo_s)]
        .into_iter()
        .flatten()
        .collect();
    if !both.is_empty() {
        let _ = writeln!(out, "  {}", both.join(" · "));
    }
    for scenario in &plan.scenarios {
        let severity = scenario.severity.as_ref().map(|s| format!("{} {}", s.level, level_word(&s.level)));
        let facts: Vec<String> = [severity, objective("RTO", scenario.rto_s), objective("RPO", scenario.rpo_s)]
            .into_iter()
            .flatten()
            .collect();
        let _ = writeln!(
            out,
            "\n{}:{}  {}{}{}",
            plan.file,
            scenario.line,
            scenario.title,
            if facts.is_empty() { "" } else { "  · " },
            facts.join(" · ")
        );
        let _ = writeln!(out, "    slug {} · rule {}", scenario.slug, scenario.source.rule);
        for (i, step) in scenario.steps.iter().enumerate() {
            let phase = step.phase.map(|p| format!("  [{}]", phase_word(p))).unwrap_or_default();
            let estimate = step.estimate_s.map(|s| format!("  ~{}", short_span(s))).unwrap_or_default();
            let _ = writeln!(
                out,
                "  {:>3} {}{phase}{estimate}  ({}:{}, {})",
                i + 1,
                step.title,
                plan.file,
                step.line,
                step.source.rule
            );
            for item in &step.items {
                let _ = writeln!(out, "        - {}", item.title);
            }
            for block in &step.blocks {
                let role = serde_json::to_value(block.role)
                    .ok()
                    .and_then(|v| v.as_str().map(str::to_string))
                    .unwrap_or_default();
                let gate = match (&block.blocked, block.placeholders.is_empty()) {
                    (Some(why), _) => format!(", not run: {why}"),
                    (None, false) => format!(", asks for {}", block.placeholders.join(" ")),
                    (None, true) => String::new(),
                };
                let _ = writeln!(out, "        {} {} at line {}{gate}", block.lang, role, block.line);
            }
        }
    }
    if !plan.extras.is_empty() {
        let _ = writeln!(out, "\nkept beside the scenarios:");
        for extra in &plan.extras {
            let _ = writeln!(out, "  {:<10} {} ({}:{})", extra.kind, extra.title, plan.file, extra.source.line);
        }
    }
    for notice in &plan.notices {
        let _ = writeln!(out, "{}:{}: {}", plan.file, notice.line, notice.text);
    }
    out
}
