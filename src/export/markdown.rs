//! The timeline as GitHub-flavoured Markdown. Every text from the journal is escaped: it can make no heading, link, image or HTML.

use super::report::Report;
use super::timeline::{Judgement, ObjectiveRow, Row, StepRow, Timeline, duration, offset};

/// The timeline as Markdown.
pub fn markdown(t: &Timeline) -> String {
    let s = &t.state;
    let mut out = format!("# {}: {}\n\n", t.kind_word(), text(&super::clean(&s.title)));
    out += &format!("{}\n\n", text(&summary(t)));
    out += "| | |\n|---|---|\n";
    let report = Report::of(t);
    for (label, value) in report.identity.iter().chain(&report.time) {
        out += &format!("| {label} | {} |\n", text(value));
    }
    out += "\n## Objectives\n\n| | Objective | Actual | Result | How it was measured |\n|---|---:|---:|---|---|\n";
    for o in &t.objectives {
        out += &format!("{} {} |\n", objective_cells(o), text(&o.how));
    }
    out += "\n## Steps\n\n| # | Step | By | Started (UTC) | Completed (UTC) | Planned | Actual | Result | Evidence |\n|---:|---|---|---|---|---:|---:|---|---|\n";
    for step in &t.steps {
        out += &step_line(step);
    }
    if !report.validation.is_empty() || !report.data.is_empty() {
        out += "\n## Recovered data\n\n";
    }
    if !report.data.is_empty() {
        out += "| | |\n|---|---|\n";
        for (label, value) in &report.data {
            out += &format!("| {label} | {} |\n", text(value));
        }
        out += "\n";
    }
    if !report.validation.is_empty() {
        out += "| Checked by | Check | Verdict | Detail |\n|---|---|---|---|\n";
        for (by, name, verdict, detail) in &report.validation {
            out += &format!("| {by} | {} | {verdict} | {} |\n", text(name), text(detail));
        }
    }
    out += &format!("\n## Timeline\n\nTimes are UTC; offsets count from {} at {}.\n\n", t.zero_is, t.zero);
    out += "| UTC | Offset | Who | What | Run | Result |\n|---|---:|---|---|---|---|\n";
    for row in &t.rows {
        out += &row_line(row);
    }
    out += "\n## People\n\n| Name | Role | Records |\n|---|---|---:|\n";
    for (name, role, n) in &report.people {
        out += &format!("| {} | {role} | {n} |\n", text(name));
    }
    out += "\n## Findings\n\n| Gap | Severity | Owner | Due | Ticket | Status |\n|---|---|---|---|---|---|\n";
    for f in &report.findings {
        out += &format!("| {} | {} | | | | |\n", text(&f.gap), f.severity);
    }
    out +=
        "| | | | | | |\n\nDrafted from the journal; owners, dates and what else was learned are for people to add.\n";
    out += "\n### Lessons learned\n\n- \n\n### Changes to the plan\n\n- \n\n## Limits of this record\n\n";
    for limit in report.limits.iter().chain(&t.notices) {
        out += &format!("- {}\n", text(limit));
    }
    out += &integrity(t);
    out += "\n## Approval\n\n| Name | Role | Date | Signature |\n|---|---|---|---|\n| | | | |\n";
    out
}

/// Name, objective, actual and result, as the first cells of a row of a table.
pub(super) fn objective_cells(o: &ObjectiveRow) -> String {
    let bound = if o.at_most { "≤ " } else { "" };
    let result = match o.judgement {
        Judgement::Missed => "**missed**",
        j => j.word(),
    };
    let actual = o.actual.map_or("not measured".into(), |d| format!("{bound}{}", duration(d)));
    format!("| {} | {} | {actual} | {result} |", o.name, o.objective.map_or("none".into(), duration))
}

/// The outcome in one or two sentences.
pub(super) fn summary(t: &Timeline) -> String {
    let mut out = match (&t.state.restored, t.objectives.first()) {
        (Some(_), Some(o)) => match o.actual {
            Some(actual) => {
                let from = if t.zero_is == "impact" { "impact started" } else { "the incident was opened" };
                format!("Service was back {} after {from}.", duration(actual))
            }
            None => "Service was restored.".into(),
        },
        _ => "Service was not restored when this was written.".into(),
    };
    if let Some(loss) = &t.state.facts.loss {
        let bound = if loss.at_most { "At most " } else { "" };
        let d = duration(std::time::Duration::from_millis(loss.window_ms));
        out += &match loss.transactions {
            Some(n) => format!(" {bound}{d} of data was lost: {} transactions.", super::words::grouped(n)),
            None => format!(" {bound}{d} of data was lost."),
        };
    }
    if let Some((_, summary)) = &t.state.closed {
        out += &format!(" {}", super::clean(summary));
    }
    out
}

fn step_line(s: &StepRow) -> String {
    let time = |t: Option<crate::model::Time>| t.map_or("–".into(), |t| t.date_hms());
    let mut result = s.result().to_string();
    if let Some(reason) = &s.reason {
        let word = if s.status == crate::incident::StepStatus::Skipped { ": " } else { "<br>reopened: " };
        result += &format!("{word}{}", text(reason));
    }
    let mut evidence = Vec::new();
    if s.items.1 > 0 {
        evidence.push(format!("{} of {} items ticked", s.items.0, s.items.1));
    }
    for r in &s.runs {
        let digest = r.output.sha256.as_ref().map(|d| format!(", output SHA-256 {}", text(&super::clean(d.as_str()))));
        let exit = r.exit.map(|e| format!(", exit {e}"));
        evidence.push(format!("run {}: {}{}{}", r.id, r.result, exit.unwrap_or_default(), digest.unwrap_or_default()));
    }
    let late = if s.overran() { " (over)" } else { "" };
    format!(
        "| {} | {} | {} | {} | {} | {} | {}{late} | {result} | {} |\n",
        s.number,
        text(&s.title),
        s.actor.as_deref().map_or("–".into(), text),
        time(s.started),
        time(s.ended),
        s.planned.map_or("–".into(), duration),
        s.actual.map_or("–".into(), duration),
        evidence.join("<br>")
    )
}

fn row_line(r: &Row) -> String {
    let mut what = vec![format!("{} {}", r.tone.glyph(), text(&r.what))];
    what.extend(r.details.iter().map(|d| text(d)));
    if let Some(recorded) = r.recorded {
        what.push(format!("(recorded {} UTC)", recorded.date_hms()));
    }
    let mut run = r.command.as_deref().map_or(String::new(), code);
    if let Some(risk) = r.risk {
        run += &format!("<br>risk: {}", risk.word());
    }
    let mut result = Vec::new();
    result.extend(r.exit.map(|e| format!("exit {e}")));
    result.extend(r.took_ms.map(|ms| duration(std::time::Duration::from_millis(ms))));
    if let Some(o) = &r.output {
        result.push(format!("{} lines, {} bytes", o.lines, o.bytes));
        result.extend(o.sha256.as_ref().map(|d| format!("SHA-256 {}", text(&super::clean(d.as_str())))));
    }
    format!(
        "| {} | {} | {} | {} | {run} | {} |\n",
        r.at.date_hms(),
        offset(r.offset_ms),
        text(&r.actor),
        what.join("<br>"),
        result.join("<br>")
    )
}

fn integrity(t: &Timeline) -> String {
    let mut out = "\n## Integrity\n\n".to_string();
    out += &format!(
        "This was made from a hash-chained journal of {} records. Its head is\n\n    {}\n\n",
        t.journal.head.seq, t.journal.head
    );
    for line in &t.journal.verified {
        out += &format!("- {}\n", text(line));
    }
    let [ours, script] = t.journal.checks();
    out += match t.journal.file {
        Some(_) => "\nTo check the journal beside this file against this head:\n\n",
        None => "\nTo check the journal against this head, on the machine it is on:\n\n",
    };
    out += &format!("    {ours}\n\n");
    out += "or, without breakglass, with the Python script in docs/formats.md, section “Journal”:\n\n";
    out += &format!("    {script}\n");
    out
}

/// Text with everything escaped that Markdown, its tables, GitHub's mentions or HTML would take for more than text.
/// Text that can make no markup of its own.
pub(super) fn text(t: &str) -> String {
    let mut out = String::with_capacity(t.len() + 16);
    let mut before = ' ';
    for (i, c) in t.char_indices() {
        let (behind, ahead) = (&t[..i], &t[i + c.len_utf8()..]);
        let ends_with = |word: &str| {
            behind.len() >= word.len() && behind.as_bytes()[i - word.len()..].eq_ignore_ascii_case(word.as_bytes())
        };
        match c {
            '\n' => out.push_str("<br>"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '|' => out.push_str("&#124;"),
            // GitHub notifies whoever is mentioned and links what looks like an address: an invisible comment takes both apart.
            '@' if !before.is_alphanumeric() || ahead.split_whitespace().next().is_some_and(|w| w.contains('.')) => {
                out.push_str("@<!-- -->");
            }
            ':' if ahead.starts_with("//") || ends_with("mailto") || ends_with("xmpp") => out.push_str("<!-- -->:"),
            '.' if ends_with("www") => out.push_str("<!-- -->."),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '!' | '~' | '$' => {
                out.push('\\');
                out.push(c);
            }
            // What begins a list or a heading at the start of a line; inside a table nothing does, elsewhere it might.
            '+' | '-' | '=' if before == ' ' || before == '\n' => {
                out.push('\\');
                out.push(c);
            }
            '.' | ')' if before.is_ascii_digit() => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
        before = c;
    }
    out
}

/// A command: a code span where that can hold it as it is, else HTML.
fn code(t: &str) -> String {
    let plain = !t.is_empty() && !t.contains(['|', '`', '\n', '\\']) && !t.starts_with(' ') && !t.ends_with(' ');
    if plain { format!("`{t}`") } else { format!("<code>{}</code>", text(t)) }
}
