//! What a partial recovery says to people.

use crate::model::CleanText;
use crate::postgres::connect::quote_literal;
use crate::postgres::instance::shell_quote;
use crate::recovery::partial::undo::{Outcome, Record, Undone};
use crate::recovery::partial::{Definitions, Part};

/// What does not come back of a table, with where it is to be seen.
pub fn not_back(p: &Part, there: &Definitions) -> Vec<String> {
    let see = |query: &str| {
        let d = &there.shadow;
        let words = ["psql", "-h", d.host(), "-p", &d.port().to_string(), "-U", d.user(), "-d", d.name(), "-c", query];
        words.map(shell_quote).join(" ")
    };
    let mut out = Vec::new();
    for l in &p.left {
        let more = l.rows.saturating_sub(l.keys.len() as u64);
        let more = if more > 0 && !l.keys.is_empty() { format!("; and {more} more") } else { String::new() };
        let keys = if l.keys.is_empty() { String::new() } else { format!(": {}{more}", l.keys.join("; ")) };
        let what = if l.certain { "left out" } else { "not told apart" };
        out.push(CleanText::line(format!("{} {what}: {}{keys}", l.rows, l.why).as_bytes()).to_string());
        if let Some(query) = &l.query {
            out.push(CleanText::line(format!("  as they were: {}", see(query)).as_bytes()).to_string());
        }
    }
    for (column, n) in &p.lost_columns {
        out.push(format!("column {column} is in the recovered instance only, with values in {n} rows"));
    }
    for (column, n) in &p.empty_columns {
        out.push(format!("column {column} was made again since: {n} rows have no value there that had one"));
    }
    out.extend(ways(p).into_iter().map(|l| format!("  {l}")));
    if !p.paired && !(p.lost_columns.is_empty() && p.empty_columns.is_empty()) {
        let rows = format!("SELECT * FROM {}", p.sql);
        out.push(format!("  there is no primary key, so that nothing tells which row had which value: {}", see(&rows)));
    }
    for v in &p.views {
        out.push(format!("view {v} is gone in the live database and is not made again"));
        out.push(format!("  as it was: {}", see(&format!("SELECT pg_get_viewdef({}::regclass)", quote_literal(v)))));
    }
    out
}

/// A name as it is typed.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(plain) { name.to_string() } else { shell_quote(name) }
}

/// How the values of columns that are gone come back.
fn ways(p: &Part) -> Vec<String> {
    let mut out = Vec::new();
    if p.paired {
        for a in &p.again {
            let fill = format!("then the same with --fill-column {}", word(&a.column));
            let needs = a.needs.as_ref().map(|ty| format!("make type {ty} again as it was; ")).unwrap_or_default();
            let make = if a.make_type.is_empty() { String::new() } else { format!("{} ", a.make_type) };
            let after = match a.afterwards.is_empty() {
                true => String::new(),
                false => format!(", and in the end {}", a.afterwards),
            };
            out.push(format!("to have them back: {needs}{make}{} {fill}{after}", a.add));
        }
        for (column, _) in &p.empty_columns {
            out.push(format!("to have them back: the same with --fill-column {}", word(column)));
        }
    }
    if let Some((column, _)) = p.lost_columns.first() {
        let column = word(column);
        out.push(format!("renamed since: --column {column}=NEW; not wanted any more: --without-column {column}"));
    }
    if let Some((column, _)) = p.empty_columns.first() {
        out.push(format!("not wanted any more: --without-column {}", word(column)));
    }
    out
}

/// Whether values stay missing of columns that are gone or empty, in one clause; nothing when none does.
pub fn missing_values(parts: &[Part]) -> Option<String> {
    let each = parts.iter().flat_map(|p| {
        let all = p.lost_columns.iter().chain(&p.empty_columns);
        all.map(|(column, n)| format!("{column} of {} in {n} rows", p.table))
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| format!("values are NOT back: {}; how they come back is said above", each.join(", ")))
}

/// What nothing tells any more: of rows that were changed since, whether they are the ones that there were.
pub fn taken_for_the_same(p: &Part) -> Option<String> {
    let n = p.changed_since;
    (n > 0).then(|| {
        format!(
            "{n} rows were changed since and stay as they are, taken for the same rows: one that was deleted, written anew under its \
             key and then changed looks no different"
        )
    })
}

/// What is to be done, for people.
pub fn lines(parts: &[Part], there: &Definitions) -> Vec<String> {
    let mut out = Vec::new();
    for p in parts {
        let mut line = format!("{}: ", p.table);
        if p.recreated {
            match &p.under {
                Some(above) => line.push_str(&format!("the partition is made again and put back under {above}, with ")),
                None => line.push_str("the table is made again, with "),
            }
        }
        line.push_str(&format!("{} lost rows", p.lost));
        if p.damaged > 0 {
            line.push_str(&format!(", {} damaged rows to their former values", p.damaged));
        }
        if p.filled > 0 {
            line.push_str(&format!(", {} rows get back their values of {}", p.filled, p.fill.join(", ")));
        }
        if !p.examples.is_empty() {
            line.push_str(&format!(" (such as {})", p.examples.join("; ")));
        }
        out.push(line);
        let mut more = |text: String| out.push(format!("  {text}"));
        if let Some(why) = &p.because {
            more(format!("because {why}"));
        }
        not_back(p, there).into_iter().for_each(&mut more);
        if let Some(text) = taken_for_the_same(p) {
            more(text);
        }
        if !p.silent_triggers.is_empty() {
            more(format!("triggers that do not fire: {}; writers wait meanwhile", p.silent_triggers.join(", ")));
        }
        if !p.other_columns.is_empty() {
            more(format!("columns of one side only: {}", p.other_columns.join(", ")));
        }
        if !p.foreign_keys.is_empty() {
            more(format!("foreign keys made again: {}", p.foreign_keys.join(", ")));
        }
    }
    if parts.iter().any(|p| p.lost > 0 && !p.recreated) {
        out.push("rows deleted on purpose since then come back, too: narrow with --where".into());
    }
    out
}

/// `; 3 rows and 1 view are not back`, or nothing.
pub fn left_words(parts: &[Part]) -> String {
    let rows: u64 = parts.iter().flat_map(|p| &p.left).filter(|l| l.certain).map(|l| l.rows).sum();
    let views: usize = parts.iter().map(|p| p.views.len()).sum();
    let each = [(rows, "rows"), (views as u64, "views")].into_iter().filter(|(n, _)| *n > 0);
    let each: Vec<String> = each.map(|(n, what)| format!("{n} {what}")).collect();
    if each.is_empty() { String::new() } else { format!("; left out, as named: {}", each.join(", ")) }
}

/// What undoing does or would do, for people.
pub fn undo_lines(r: &Record, done: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    for b in &done.before {
        out.push(format!("it was undone already on {}, in transaction {}", b.at, b.transaction));
    }
    for t in &done.now.tables {
        out.push(match t {
            t if t.gone => format!("{}: gone already, nothing is to be taken out", t.table),
            t if t.dropped => format!("{}: the table that was made again is dropped, with {} rows", t.table, t.removed),
            t => format!(
                "{}: {} rows go again, {} get the values they had on {}, {} stay: changed, deleted or referenced since",
                t.table, t.removed, t.restored, r.at, t.kept
            ),
        });
    }
    out
}

/// What was undone, in one sentence.
pub fn undone_text(done: &Outcome) -> String {
    let sum = |f: fn(&Undone) -> u64| done.now.tables.iter().map(f).sum::<u64>();
    let kept = format!("{} kept because they were changed, deleted or are referenced since", sum(|u| u.kept));
    if let (false, Some(last)) = (done.now.changed(), done.before.last()) {
        return format!(
            "it was undone already, on {}, in transaction {}: nothing was changed; {kept}",
            last.at, last.transaction
        );
    }
    let gone: Vec<&str> = done.now.tables.iter().filter(|u| u.gone).map(|u| u.table.as_str()).collect();
    let gone = if gone.is_empty() { String::new() } else { format!("; gone already: {}", gone.join(", ")) };
    format!("undone: {} rows taken out again, {} put back, {kept}{gone}", sum(|u| u.removed), sum(|u| u.restored))
}
