//! The packet for Supabase's support: everything their people ask for first, nothing secret.

use super::Request;
use crate::model::Time;
use crate::model::event::{Check, Verdict};
use crate::provider::supabase::Call;

/// Calls that are listed one by one, the newest.
const LISTED: usize = 60;

/// Its text, in Markdown. All times are UTC.
pub(super) fn text(r: &Request, summary: &str, checks: &[Check], calls: &[Call], api: &str) -> String {
    let mut out = vec![
        format!("# Restore of project {}: no end in sight", r.project_ref),
        String::new(),
        format!("- project ref: `{}`", r.project_ref),
        format!("- asked for: `POST /v1/projects/{}/database/backups/restore-pitr` at {api}", r.project_ref),
        format!("- `recovery_time_target_unix`: {} ({})", r.unix, r.second()),
        format!("- asked at (UTC): {}", r.requested_at),
        format!("- state: {summary}"),
        format!("- written at (UTC): {}", Time::from_system(std::time::SystemTime::now())),
        format!("- by: breakglass {}", env!("CARGO_PKG_VERSION")),
        String::new(),
        "Please tell us: was the restore begun, is it still running, when will it end, and can it be stopped or repeated?"
            .to_string(),
        String::new(),
        "## What was seen".to_string(),
        String::new(),
    ];
    out.extend(r.seen.iter().map(|n| format!("- {} {}", n.at, n.what)));
    if r.seen.is_empty() {
        out.push("- nothing".into());
    }
    let before = &r.before;
    out.push(String::new());
    out.push(format!(
        "Before: server started {}, timeline {}.",
        before.started.as_deref().unwrap_or("not known"),
        before.timeline.map_or("not known".to_string(), |t| t.to_string())
    ));
    if !checks.is_empty() {
        out.extend([String::new(), "## Evidence at the last look".to_string(), String::new()]);
        out.extend(checks.iter().map(|c| {
            let word = match c.verdict {
                Verdict::Passed => "yes",
                Verdict::Failed => "NO",
                Verdict::NotAvailable => "not asked",
            };
            format!("- {}: {word}, {}", c.name, c.detail)
        }));
    }
    out.extend([String::new(), "## Requests".to_string(), String::new()]);
    // The one that matters first, however long ago it was.
    let asked = calls.iter().filter(|c| c.what.ends_with("restore-pitr"));
    let rest: Vec<&Call> = calls.iter().filter(|c| !c.what.ends_with("restore-pitr")).collect();
    let newest = rest.len().saturating_sub(LISTED);
    for c in asked.chain(rest[newest..].iter().copied()) {
        let ids: Vec<String> = c.ids.iter().map(|(name, id)| format!("{name} {id}")).collect();
        let ids = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
        out.push(format!("- {} {} → {}{ids}", c.at, c.what, c.answer));
    }
    out.push(String::new());
    out.join("\n")
}
