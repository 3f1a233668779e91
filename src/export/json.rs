//! The whole timeline as one JSON document, for programs (`docs/formats.md`, "Timeline export").

use serde_json::{Value, json};

use crate::error::{Context, Result};
use crate::incident::StepStatus;
use crate::model::{Kind, Time};

use super::clean;
use super::report::Report;
use super::timeline::{ObjectiveRow, Row, RunRow, StepRow, Timeline};

/// The timeline as JSON, indented.
///
/// # Errors
/// Of kind state, should it not serialise.
pub fn json(t: &Timeline) -> Result<String> {
    let s = &t.state;
    let report = Report::of(t);
    let document = json!({
        "format": "breakglass timeline",
        "v": 1,
        "exported_at": t.exported_at,
        "incident": {
            "id": clean(s.id.as_str()),
            "kind": match s.kind { Kind::Real => "real", Kind::Drill => "drill" },
            "scenario": clean(&s.scenario),
            "title": clean(&s.title),
            "severity": s.severity.as_deref().map(clean),
            "target": s.target.as_deref().map(clean),
            "standing": t.standing(),
            "opened_at": s.opened.at,
            "opened_by": clean(s.opened_by.as_str()),
            "impact_at": s.impact.as_ref().map(|i| i.at),
            "declared_at": s.declared.as_ref().map(|d| d.at),
            "restored_at": s.restored.as_ref().map(|r| r.at),
            "closed_at": s.closed.as_ref().map(|c| c.0.at),
            "summary": s.closed.as_ref().map(|c| clean(&c.1)),
            "offsets_from": t.zero_is,
            "zero_at": t.zero,
        },
        "plan": t.plan.as_ref().map(|p| json!({
            "title": p.title, "file": p.file, "document_sha256": p.document, "plan_json_sha256": p.understood,
        })),
        "objectives": t.objectives.iter().map(objective).collect::<Vec<_>>(),
        "steps": t.steps.iter().map(step).collect::<Vec<_>>(),
        "timeline": t.rows.iter().map(row).collect::<Vec<_>>(),
        "report": {
            "identity": pairs(&report.identity),
            "people": report.people.iter().map(|(n, role, records)| json!({"name": n, "role": role, "records": records})).collect::<Vec<_>>(),
            "time": pairs(&report.time),
            "validation": report.validation.iter().map(|(by, name, verdict, detail)| {
                json!({"by": by, "check": name, "verdict": verdict, "detail": detail})
            }).collect::<Vec<_>>(),
            "data": pairs(&report.data),
            "findings": report.findings.iter().map(|f| {
                json!({"gap": f.gap, "severity": f.severity, "owner": null, "due": null, "ticket": null, "status": null})
            }).collect::<Vec<_>>(),
            "limits": report.limits,
            "approved_by": null,
        },
        "notices": t.notices,
        "journal": {
            "head": t.journal.head.to_string(),
            "records": t.journal.head.seq,
            "verified": t.journal.verified,
            // The lines as they stand, newline by newline: writing them to a file gives the journal back, byte for byte.
            "lines": t.journal.lines,
        },
    });
    let mut text = serde_json::to_string_pretty(&document).state(|| "cannot write the timeline as JSON".into())?;
    text.push('\n');
    Ok(text)
}

fn pairs(pairs: &[(&'static str, String)]) -> Vec<Value> {
    pairs.iter().map(|(label, value)| json!({"label": label, "value": value})).collect()
}

fn ms(d: Option<std::time::Duration>) -> Option<u64> {
    d.and_then(|d| u64::try_from(d.as_millis()).ok())
}

fn objective(o: &ObjectiveRow) -> Value {
    json!({
        "name": o.name,
        "objective_ms": ms(o.objective),
        "actual_ms": ms(o.actual),
        "at_most": o.at_most,
        "judgement": o.judgement.word(),
        "how": o.how,
    })
}

fn step(s: &StepRow) -> Value {
    json!({
        "number": s.number,
        "id": clean(s.id.as_str()),
        "title": s.title,
        "status": match s.status {
            StepStatus::Open => "open",
            StepStatus::Active => "active",
            StepStatus::Done => "done",
            StepStatus::Skipped => "skipped",
        },
        "actor": s.actor,
        "started_at": s.started,
        "ended_at": s.ended,
        "planned_ms": ms(s.planned),
        "actual_ms": ms(s.actual),
        "expected": s.expected,
        "reason": s.reason,
        "items_ticked": s.items.0,
        "items": s.items.1,
        "spans": s.spans.iter().map(|(a, b)| [a, b]).collect::<Vec<[&Time; 2]>>(),
        "runs": s.runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(r: &RunRow) -> Value {
    json!({
        "run": r.id,
        "command": r.command,
        "result": r.result,
        "exit_status": r.exit,
        "output": r.output,
        "started_at": r.span.map(|s| s.0),
        "ended_at": r.span.map(|s| s.1),
    })
}

fn row(r: &Row) -> Value {
    json!({
        "seq": r.seq,
        "event": r.event,
        "at": r.at,
        "recorded_at": r.recorded,
        "offset_ms": r.offset_ms,
        "actor": r.actor,
        "step_number": r.step.as_ref().map(|s| s.0),
        "step": r.step.as_ref().map(|s| &s.1),
        "what": r.what,
        "details": r.details,
        "command": r.command,
        "risk": r.risk.map(crate::model::Risk::word),
        "exit_status": r.exit,
        "duration_ms": r.took_ms,
        "output": r.output,
        "tone": r.tone.word(),
    })
}
