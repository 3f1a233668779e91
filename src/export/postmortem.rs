//! The draft of a post-mortem: what the journal knows is filled in, what only people know is asked for.

use super::markdown::{objective_cells, summary, text};
use super::timeline::{Timeline, Tone, duration, offset};

/// Events that belong into the story although nothing went well or wrong with them.
const TOLD: [&str; 4] = ["note_added", "moment_chosen", "message_sent", "step_skipped"];

/// The draft as GitHub-flavoured Markdown. Every text from the journal is escaped.
pub fn postmortem(t: &Timeline) -> String {
    let s = &t.state;
    let mut out = format!("# Post-mortem: {}\n\n", text(&super::clean(&s.title)));
    out += &format!("{} · {} · status: draft · authors: \n\n", t.kind_word(), text(&super::clean(s.id.as_str())));
    out += "Nobody is to blame here: people did what made sense with what they knew then.\n\n";
    out += &format!("## Summary\n\n{}\n\n", text(&summary(t)));
    out += "## Impact\n\n| | |\n|---|---|\n";
    let from = s.impact.as_ref().map(|i| format!("{} ({})", i.at, super::clean(&i.source)));
    out += &format!("| Began | {} |\n", text(&from.unwrap_or_else(|| "not stated".into())));
    let until = s.restored.as_ref().map_or("not restored".into(), |r| r.at.to_string());
    out += &format!("| Restored | {} |\n", text(&until));
    let severity = s.severity.clone().unwrap_or_else(|| "not declared".into());
    out += &format!("| Severity | {} |\n", text(&super::clean(&severity)));
    if let Some((findings, rows)) = &s.facts.damage {
        let rows: Vec<String> = rows.iter().map(|(table, n)| format!("{n} of {}", super::clean(table))).collect();
        let seen = if rows.is_empty() { findings.iter().take(3).map(|f| super::clean(f)).collect() } else { rows };
        out += &format!("| Damage | {} |\n", text(&seen.join("; ")));
    }
    if let Some(loss) = &s.facts.loss {
        let rows: Vec<String> = loss.rows.iter().map(|(table, n)| format!("{n} of {}", super::clean(table))).collect();
        let rows = if rows.is_empty() { "no rows".to_string() } else { rows.join(", ") };
        let lost = duration(std::time::Duration::from_millis(loss.window_ms));
        out += &format!("| Data lost | {} |\n", text(&format!("{lost}, {rows}")));
    }
    out += "| Customers concerned | |\n\n";
    out += "## Objectives against actuals\n\n| | Objective | Actual | Result |\n|---|---:|---:|---|\n";
    for o in &t.objectives {
        out += &format!("{}\n", objective_cells(o));
    }
    out += &format!("\n## Timeline\n\nTimes are UTC; offsets count from {} at {}.\n\n", t.zero_is, t.zero);
    out += "| UTC | Offset | Who | What |\n|---|---:|---|---|\n";
    for row in t.rows.iter().filter(|r| r.tone != Tone::Plain || TOLD.contains(&r.event.as_str())) {
        out += &format!(
            "| {} | {} | {} | {} |\n",
            row.at.date_hms(),
            offset(row.offset_ms),
            text(&row.actor),
            text(&row.what)
        );
    }
    out += "\n## What was run\n\n| UTC | Who | Command |\n|---|---|---|\n";
    for row in t.rows.iter().filter(|r| r.event == "run_requested") {
        let command = row.command.clone().unwrap_or_default();
        let first = command.lines().next().unwrap_or_default();
        out += &format!("| {} | {} | {} |\n", row.at.date_hms(), text(&row.actor), text(first));
    }
    out += "\n## Decisions\n\n";
    let decided = ["moment_chosen", "gate_waived", "run_approved", "step_skipped", "step_reopened", "plan_adopted"];
    let mut none = true;
    for row in t.rows.iter().filter(|r| decided.contains(&r.event.as_str())) {
        none = false;
        out += &format!("- {} {}: {}\n", row.at.hms(), text(&row.actor), text(&row.what));
    }
    if none {
        out += "- none on record\n";
    }
    out += "\nWhat was considered and not done, and why:\n\n- \n\n";
    out += "## Contributing factors\n\nHow was it noticed, and could it have been sooner? What made it possible? What made it worse?\n\n- \n\n";
    out += "## Lessons\n\n### What went well\n\n- \n\n### What went wrong\n\n- \n\n### Where we were lucky\n\n- \n\n";
    out += "## Action items\n\n| Action | Kind (prevent, detect, mitigate) | Owner | Due | Ticket |\n|---|---|---|---|---|\n| | | | | |\n\n";
    out +=
        &format!("Drafted from a journal of {} records; its head is `{}`.\n", s.seq.0, super::clean(s.head.as_str()));
    out
}
