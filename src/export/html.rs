//! The timeline as one self-contained page: no script, nothing loaded, light and dark, made for paper too.

use std::fmt::Write as _;
use std::time::Duration;

use crate::incident::StepStatus;
use crate::model::Time;

use super::chart::chart;
use super::markdown::summary;
use super::report::Report;
use super::timeline::{Judgement, ObjectiveRow, Row, StepRow, Timeline, duration, offset};
use super::{clean, words};

const STYLE: &str = include_str!("page.css");

/// The timeline as HTML.
pub fn html(t: &Timeline) -> String {
    let s = &t.state;
    let report = Report::of(t);
    let title = clean(&s.title);
    let kind = t.kind_word();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"breakglass {}\">\n<title>{kind} · {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body class=\"{}\">\n",
        env!("CARGO_PKG_VERSION"),
        escape(&title),
        kind.to_lowercase(),
    );
    header(&mut out, t, &title);
    cards(&mut out, t);
    let _ = writeln!(out, "<section id=\"steps\">\n<h2>Steps over time</h2>");
    out += &chart(t);
    out += "<p class=\"legend\"><span><i class=\"k-planned\"></i>planned</span><span><i class=\"k-actual\"></i>actual</span>\
            <span><i class=\"k-over\"></i>beyond the plan</span><span><i class=\"k-run\"></i>an action running</span>\
            <span>✓ done&ensp;– skipped&ensp;● not finished&ensp;· not begun</span></p>\n";
    steps(&mut out, t);
    out += "</section>\n";
    data(&mut out, &report);
    timeline(&mut out, t);
    evidence(&mut out, t, &report);
    integrity(&mut out, t);
    let _ = write!(
        out,
        "<footer>Made by breakglass {} on {} UTC from {} records.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        t.exported_at.date_hms(),
        t.journal.head.seq
    );
    out
}

/// Text inside an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn header(out: &mut String, t: &Timeline, title: &str) {
    let s = &t.state;
    let mut facts: Vec<(&str, String)> = Vec::new();
    facts.extend(s.severity.as_deref().map(|v| ("Severity", clean(v))));
    facts.extend(s.target.as_deref().map(|v| ("Target", clean(v))));
    facts.push(("Opened", format!("{} UTC by {}", s.opened.at.date_hms(), clean(s.opened_by.as_str()))));
    let standing = match &s.closed {
        Some((when, _)) => format!("closed {} UTC", when.at.date_hms()),
        None => t.standing().to_string(),
    };
    facts.push(("Status", standing));
    let _ = writeln!(
        out,
        "<header>\n<p class=\"brand\"><span class=\"kind\">{}</span><span class=\"id\">{}</span></p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<dl class=\"facts\">",
        t.kind_word(),
        escape(&clean(s.id.as_str())),
        escape(title),
        escape(&summary(t)),
    );
    for (label, value) in facts {
        let _ = writeln!(out, "<div><dt>{label}</dt><dd>{}</dd></div>", escape(&value));
    }
    out.push_str("</dl>\n</header>\n");
}

fn class_of(j: Judgement) -> &'static str {
    match j {
        Judgement::Met => "good",
        Judgement::Missed => "bad",
        Judgement::NotMeasured | Judgement::NoObjective => "faint",
    }
}

fn cards(out: &mut String, t: &Timeline) {
    out.push_str("<section class=\"cards\">\n");
    for o in &t.objectives {
        objective_card(out, o);
    }
    if let Some((passed, checks)) = &t.state.facts.verified {
        let (class, word) = if *passed { ("good", "passed") } else { ("bad", "failed") };
        let _ = writeln!(
            out,
            "<div class=\"card\"><h3>Verification <b class=\"chip {class}\">{word}</b></h3><p class=\"big\">{}<small> of {} checks</small></p><p class=\"note\">{}</p></div>",
            checks.iter().filter(|c| c.verdict == crate::model::event::Verdict::Passed).count(),
            checks.len(),
            words::tally(checks),
        );
    }
    let (done, all) = t.steps_done();
    if all > 0 {
        let over = t.steps.iter().filter(|s| s.overran()).count();
        let note = match over {
            0 => "none took longer than planned".to_string(),
            1 => "one took longer than planned".into(),
            n => format!("{n} took longer than planned"),
        };
        let word = if done == all { "complete" } else { "incomplete" };
        let class = if done == all { "good" } else { "warn" };
        let _ = writeln!(
            out,
            "<div class=\"card\"><h3>Steps <b class=\"chip {class}\">{word}</b></h3><p class=\"big\">{done}<small> of {all}</small></p><p class=\"note\">{note}</p></div>"
        );
    }
    out.push_str("</section>\n");
}

fn objective_card(out: &mut String, o: &ObjectiveRow) {
    let bound = if o.at_most { "≤ " } else { "" };
    let actual = o.actual.map_or_else(|| "–".to_string(), |d| format!("{bound}{}", duration(d)));
    let of = o.objective.map_or_else(|| " no objective".to_string(), |d| format!(" of {}", duration(d)));
    let _ = write!(
        out,
        "<div class=\"card\"><h3><abbr title=\"{}\">{}</abbr> <b class=\"chip {}\">{}</b></h3><p class=\"big\">{actual}<small>{of}</small></p>",
        escape(o.meaning),
        o.name,
        class_of(o.judgement),
        o.judgement.word(),
    );
    if let (Some(objective), Some(actual)) = (o.objective, o.actual) {
        let permille = if objective.is_zero() {
            1000
        } else {
            (actual.as_millis() * 1000 / objective.as_millis().max(1)).min(1000)
        };
        let _ = write!(
            out,
            "<div class=\"bar {}\"><i style=\"width:{}.{}%\"></i></div>",
            class_of(o.judgement),
            permille / 10,
            permille % 10
        );
    }
    let _ = writeln!(out, "<p class=\"note\">{}</p></div>", escape(&o.how));
}

fn steps(out: &mut String, t: &Timeline) {
    if t.steps.is_empty() {
        out.push_str("<p>The journal names no steps.</p>\n");
        return;
    }
    out.push_str(
        "<table class=\"steps\"><thead><tr><th class=\"n\">#</th><th>Step</th><th class=\"who\">By</th><th>Started</th><th>Completed</th>\
         <th class=\"n\">Planned</th><th class=\"n\">Actual</th><th>Result and evidence</th></tr></thead>\n<tbody>\n",
    );
    for s in &t.steps {
        step(out, s, t.state.opened.at);
    }
    out.push_str("</tbody></table>\n");
}

fn step(out: &mut String, s: &StepRow, opened: Time) {
    let day = |t: Time| t.date_hms().chars().take(10).collect::<String>();
    let time = |t: Option<Time>| {
        let Some(t) = t else { return "–".to_string() };
        let shown = if day(t) == day(opened) { t.hms() } else { t.date_hms() };
        format!("<time datetime=\"{t}\" title=\"{t}\">{shown}</time>")
    };
    let over = if s.overran() { " warn" } else { "" };
    let _ = write!(
        out,
        "<tr><td class=\"n\">{}</td><td><b>{}</b>{}</td><td>{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"n\">{}</td><td class=\"n{over}\">{}</td><td>{}",
        s.number,
        escape(&s.title),
        s.expected.as_ref().map_or_else(String::new, |e| format!("<span class=\"sub\">expected: {}</span>", lines(e))),
        s.actor.as_deref().map_or_else(|| "–".into(), escape),
        time(s.started),
        time(s.ended),
        s.planned.map_or_else(|| "–".into(), duration),
        s.actual
            .map_or_else(|| "–".into(), |d| if s.overran() { format!("{} over", duration(d)) } else { duration(d) }),
        s.result(),
    );
    match &s.reason {
        Some(reason) if s.status == StepStatus::Skipped => {
            let _ = write!(out, ": {}", lines(reason));
        }
        Some(reason) => {
            let _ = write!(out, "<span class=\"sub\">reopened: {}</span>", lines(reason));
        }
        None => {}
    }
    if s.items.1 > 0 {
        let _ = write!(out, "<span class=\"sub\">{} of {} items ticked</span>", s.items.0, s.items.1);
    }
    for r in &s.runs {
        let exit = r.exit.map(|e| format!(", exit {e}")).unwrap_or_default();
        let class = if r.ok { "" } else { " bad" };
        let _ = write!(out, "<span class=\"sub{class}\">run {} {}{exit}</span>", r.id, r.result);
    }
    out.push_str("</td></tr>\n");
}

fn data(out: &mut String, report: &Report) {
    if report.data.is_empty() && report.validation.is_empty() {
        return;
    }
    out.push_str("<section id=\"data\">\n<h2>Recovered data</h2>\n");
    pairs(out, &report.data);
    if !report.validation.is_empty() {
        out.push_str("<table class=\"checks\"><thead><tr><th>Checked by</th><th>Check</th><th>Verdict</th><th>Detail</th></tr></thead>\n<tbody>\n");
        for (by, name, verdict, detail) in &report.validation {
            let (class, glyph) = match *verdict {
                "passed" => ("good", "✓"),
                "failed" => ("bad", "✗"),
                _ => ("faint", "–"),
            };
            let _ = writeln!(
                out,
                "<tr><td>{by}</td><td>{}</td><td class=\"{class} nowrap\">{glyph} {verdict}</td><td>{}</td></tr>",
                escape(name),
                lines(detail)
            );
        }
        out.push_str("</tbody></table>\n");
    }
    out.push_str("</section>\n");
}

fn pairs(out: &mut String, pairs: &[(&'static str, String)]) {
    if pairs.is_empty() {
        return;
    }
    out.push_str("<table class=\"pairs\"><tbody>\n");
    for (label, value) in pairs {
        let class =
            if value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()) { " class=\"hash\"" } else { "" };
        let _ = writeln!(out, "<tr><th>{label}</th><td{class}>{}</td></tr>", lines(value));
    }
    out.push_str("</tbody></table>\n");
}

fn timeline(out: &mut String, t: &Timeline) {
    let _ = write!(
        out,
        "<section id=\"timeline\">\n<h2>Timeline</h2>\n<p class=\"note\">Every event of the journal, in its order. Times are UTC; offsets count from {} at <time datetime=\"{1}\">{2}</time>.</p>\n\
         <table class=\"timeline\"><thead><tr><th>UTC</th><th class=\"n\">Offset</th><th class=\"who\">Who</th><th>What</th></tr></thead>\n<tbody>\n",
        t.zero_is,
        t.zero,
        t.zero.date_hms()
    );
    let mut day = String::new();
    for r in &t.rows {
        let date: String = r.at.date_hms().chars().take(10).collect();
        if date != day {
            let _ = writeln!(out, "<tr class=\"day\"><th colspan=\"4\" scope=\"rowgroup\">{date}</th></tr>");
            day = date;
        }
        event(out, r);
    }
    out.push_str("</tbody></table>\n</section>\n");
}

fn event(out: &mut String, r: &Row) {
    let _ = write!(
        out,
        "<tr class=\"{0}\"><td class=\"t\"><time datetime=\"{1}\" title=\"{1}, record {2}\">{3}</time></td><td class=\"n\">{4}</td><td>{5}</td><td><p><i class=\"g\">{6}</i>{7}</p>",
        r.tone.word(),
        r.at,
        r.seq,
        r.at.hms(),
        offset(r.offset_ms),
        escape(&r.actor),
        r.tone.glyph(),
        lines(&r.what),
    );
    for d in &r.details {
        let _ = write!(out, "<p class=\"sub\">{}</p>", lines(d));
    }
    if let Some(recorded) = r.recorded {
        let _ = write!(out, "<p class=\"sub\">written down {} UTC</p>", recorded.date_hms());
    }
    if let Some(command) = &r.command {
        let risk = r.risk.map(|r| format!("<b class=\"risk {0}\">{0}</b>", r.word())).unwrap_or_default();
        let _ = write!(out, "<pre>{}{risk}</pre>", escape(command));
    }
    let mut result = Vec::new();
    result.extend(r.exit.map(|e| format!("exit {e}")));
    result.extend(r.took_ms.map(|ms| duration(Duration::from_millis(ms))));
    if let Some(o) = &r.output {
        result.push(format!("{} lines, {}", o.lines, words::size(o.bytes)));
        result.extend(
            o.sha256
                .as_ref()
                .map(|d| format!("SHA-256&nbsp;<span class=\"hash\">{}</span>", escape(&clean(d.as_str())))),
        );
    }
    if !result.is_empty() {
        let _ = write!(out, "<p class=\"sub result\">{}</p>", result.join(" · "));
    }
    out.push_str("</td></tr>\n");
}

fn evidence(out: &mut String, t: &Timeline, report: &Report) {
    let heading = if t.kind_word() == "DRILL" { "Evidence of the test" } else { "Evidence" };
    let _ = writeln!(out, "<section id=\"evidence\">\n<h2>{heading}</h2>");
    pairs(out, &report.identity);
    pairs(out, &report.time);
    out.push_str("<h3>People</h3>\n<table><thead><tr><th>Name</th><th>Role</th><th class=\"n\">Records</th></tr></thead>\n<tbody>\n");
    for (name, role, n) in &report.people {
        let _ = writeln!(out, "<tr><td>{}</td><td>{role}</td><td class=\"n\">{n}</td></tr>", escape(name));
    }
    out.push_str("</tbody></table>\n<h3>Findings</h3>\n<p class=\"note\">Drafted from the journal; owners, dates and what else was learned are for people to add.</p>\n");
    out.push_str("<table class=\"findings\"><thead><tr><th>Gap</th><th>Severity</th><th>Owner</th><th>Due</th><th>Ticket</th><th>Status</th></tr></thead>\n<tbody>\n");
    for f in &report.findings {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td></td><td></td><td></td><td></td></tr>",
            lines(&f.gap),
            f.severity
        );
    }
    out.push_str("<tr class=\"blank\"><td></td><td></td><td></td><td></td><td></td><td></td></tr>\n</tbody></table>\n");
    out.push_str("<div class=\"write\"><h3>Lessons learned</h3><h3>Changes to the plan</h3></div>\n<h3>Limits of this record</h3>\n<ul>\n");
    for limit in report.limits.iter().chain(&t.notices) {
        let _ = writeln!(out, "<li>{}</li>", lines(limit));
    }
    out.push_str("</ul>\n<table class=\"sign\"><thead><tr><th>Approved by</th><th>Role</th><th>Date</th><th>Signature</th></tr></thead><tbody><tr class=\"blank\"><td></td><td></td><td></td><td></td></tr></tbody></table>\n</section>\n");
}

fn integrity(out: &mut String, t: &Timeline) {
    let head = t.journal.head.to_string();
    let [ours, script] = t.journal.checks().map(|c| escape(&c));
    let _ = write!(
        out,
        "<section id=\"integrity\">\n<h2>Integrity</h2>\n<p>This page was made from a journal in which every record carries the hash of the one before. \
         Changing, removing or reordering anything in it changes its head, which is</p>\n<pre class=\"hash\">{head}</pre>\n<ul>\n"
    );
    for line in &t.journal.verified {
        let _ = writeln!(out, "<li>{}</li>", escape(line));
    }
    let _ = write!(
        out,
        "</ul>\n<p>To check the journal against this head:</p>\n<pre>{ours}</pre>\n\
         <p>or without breakglass, with the Python script of 25 lines in <code>docs/formats.md</code>:</p>\n<pre>{script}</pre>\n</section>\n"
    );
}

/// Escaped text whose line breaks stay.
fn lines(text: &str) -> String {
    escape(text).replace('\n', "<br>")
}
