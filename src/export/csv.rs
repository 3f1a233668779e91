//! The rows as CSV (RFC 4180: comma, double quotes, CRLF), safe to open in a spreadsheet.

use super::timeline::Timeline;

const HEADER: [&str; 18] = [
    "seq",
    "event",
    "utc",
    "recorded_utc",
    "offset_ms",
    "actor",
    "step_number",
    "step",
    "what",
    "details",
    "command",
    "risk",
    "exit_status",
    "duration_ms",
    "output_bytes",
    "output_lines",
    "output_sha256",
    "tone",
];

/// The timeline as CSV: a header, then one line per event.
pub fn csv(t: &Timeline) -> String {
    let mut out = String::new();
    line(&mut out, HEADER.map(str::to_string));
    for r in &t.rows {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        line(
            &mut out,
            [
                r.seq.to_string(),
                r.event.clone(),
                r.at.to_string(),
                r.recorded.map(|t| t.to_string()).unwrap_or_default(),
                r.offset_ms.to_string(),
                r.actor.clone(),
                r.step.as_ref().map(|s| s.0.to_string()).unwrap_or_default(),
                r.step.as_ref().map(|s| s.1.clone()).unwrap_or_default(),
                r.what.clone(),
                r.details.join("\n"),
                r.command.clone().unwrap_or_default(),
                r.risk.map(|r| r.word().to_string()).unwrap_or_default(),
                r.exit.map(|e| e.to_string()).unwrap_or_default(),
                number(r.took_ms),
                number(r.output.as_ref().map(|o| o.bytes)),
                number(r.output.as_ref().map(|o| o.lines)),
                r.output.as_ref().and_then(|o| o.sha256.as_ref()).map(|d| super::clean(d.as_str())).unwrap_or_default(),
                r.tone.word().into(),
            ],
        );
    }
    out
}

fn line(out: &mut String, cells: [String; 18]) {
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&field(cell));
    }
    out.push_str("\r\n");
}

/// A cell. Text a spreadsheet would take for a formula gets an apostrophe in front; plain numbers are left alone.
fn field(text: &str) -> String {
    let number = text.parse::<i64>().is_ok() && !text.starts_with('+');
    // Spreadsheets skip leading blanks before they look for a formula.
    let formula = text.trim_start().starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠', '|', '%']);
    let text = if formula && !number { format!("'{text}") } else { text.to_string() };
    if text.contains([',', '"', '\n', '\r', '\'', ';', '\t']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}
