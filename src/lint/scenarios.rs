//! Gaps in a plan as a whole and in each scenario.

use crate::model::plan::{BlockRole, Phase, Risk, Scenario};
use crate::plan::doc::phase;
use crate::plan::words;

use super::{Level, Sheet};

/// Checks the plan and its scenarios.
pub fn check(sheet: &mut Sheet<'_>) {
    let plan = sheet.document.plan.clone();
    if !plan.scenarios.is_empty() && plan.objectives.rto_s.is_none() && plan.scenarios.iter().all(|s| s.rto_s.is_none())
    {
        let line = plan.scenarios.first().map_or(1, |s| s.line);
        sheet.say(
            Level::Note,
            "no-objective",
            (line, ""),
            "no recovery time objective anywhere in this plan",
            "without one nobody can say whether a recovery is on course",
            "Write `**RTO:** 4 hours` and `**RPO:** 1 hour` below the heading.",
        );
    }
    let checks = ["verif", "validat", "smoke test", "health check", "验证", "检查", "провер", "prüf", "vérif"];
    let verified_elsewhere = plan.extras.iter().any(|e| words::any(&words::norm(&e.title), &checks));
    for scenario in &plan.scenarios {
        if scenario.steps.is_empty() {
            // Text or a sample without a step is no empty promise: the author wrote something there.
            let inside = |line: u32| line > scenario.source.line && line <= scenario.source.line_end;
            if !scenario.intro.trim().is_empty() || plan.blocks.iter().any(|b| inside(b.line)) {
                continue;
            }
            sheet.say(
                Level::Warning,
                "stub",
                (scenario.line, ""),
                "this scenario has no steps",
                "",
                "Add numbered steps, or remove the heading.",
            );
            continue;
        }
        verification(sheet, scenario, verified_elsewhere);
        destructive(sheet, scenario);
        backup_after(sheet, scenario);
    }
    blocks(sheet);
    let blank: Vec<_> = plan.contacts.iter().filter(|c| c.unfilled).collect();
    if let Some(first) = blank.first() {
        let needle = first.reach.iter().find(|r| crate::plan::extras::is_unfilled(r)).cloned().unwrap_or_default();
        sheet.say(
            Level::Warning,
            "blank-contact",
            (first.line, &needle),
            format!("{} of {} contacts are still blank", blank.len(), plan.contacts.len()),
            "",
            "Fill them in, or name the rota where they are kept up to date.",
        );
    }
}

/// All words of a scenario's steps.
fn words_of(scenario: &Scenario) -> String {
    let mut all = String::new();
    for step in &scenario.steps {
        let items = step.items.iter().map(|i| i.title.as_str());
        let codes = step.blocks.iter().map(|b| b.code.as_str());
        for text in [step.title.as_str(), step.text.as_str()].into_iter().chain(items).chain(codes) {
            all.push_str(&words::norm(text));
            all.push(' ');
        }
    }
    all
}

fn verification(sheet: &mut Sheet<'_>, scenario: &Scenario, elsewhere: bool) {
    // "Resolution" of a slow queue brings nothing back that could be looked at.
    let restores = words::any(&words::norm(&scenario.title), words::RECOVERING)
        || scenario.steps.iter().any(|s| words::any(&words::norm(&s.title), words::RECOVERING))
        || words::any(&words_of(scenario), &["restor", "pitr", "pg_restore", "rollback", "rollout undo", "failover"]);
    if !restores {
        return;
    }
    let recovers = scenario.steps.iter().any(|s| s.phase == Some(Phase::Recover));
    let verifies = scenario.steps.iter().any(|s| {
        s.phase == Some(Phase::Verify)
            || s.expected.is_some()
            || s.items.iter().any(|i| phase(&words::norm(&i.title)) == Some(Phase::Verify))
    });
    let mentions = words::any(
        &words_of(scenario),
        &[
            "verif",
            "validat",
            "check",
            "confirm",
            "smoke",
            "health",
            "test",
            "monitor",
            "ensure",
            "curl",
            "compare",
            "провер",
            "prüf",
            "valida",
            "проверить",
            "验证",
            "检查",
        ],
    );
    if recovers && !verifies && !mentions && scenario.after.is_empty() {
        sheet.say(
            // One step alone is often only a part of something that is verified elsewhere.
            if scenario.steps.len() > 1 && !elsewhere { Level::Warning } else { Level::Note },
            "no-verification",
            (scenario.line, ""),
            format!("{:?} recovers but never verifies", scenario.title),
            "a restore that nobody has looked at is not known to have worked",
            "Add a step that says what must be true afterwards and how to see it.",
        );
    }
}

/// A block that destroys before anybody has looked at anything.
fn destructive(sheet: &mut Sheet<'_>, scenario: &Scenario) {
    let mut looked = false;
    for step in &scenario.steps {
        looked |=
            matches!(step.phase, Some(Phase::Detect | Phase::Assess | Phase::Verify | Phase::Decide | Phase::Contain))
                || words::any(
                    &words::norm(&step.title),
                    &["check", "verif", "confirm", "stop", "backup", "snapshot", "list", "find", "review"],
                );
        for block in &step.blocks {
            if block.risk == Some(Risk::Destroy)
                && block.own.is_none()
                && block.runnable()
                && !looked
                && !looks_first(&block.code)
            {
                sheet.say(
                    Level::Warning,
                    "destroys-first",
                    (block.line + 1, ""),
                    "this destroys before anything has been checked",
                    "at 3 a.m. the first command is run on the wrong machine",
                    "Put a step before it that shows the target and what would be lost.",
                );
                return;
            }
            looked |= block.risk == Some(Risk::Read) || (block.role == BlockRole::Run && block.risk.is_none());
        }
    }
}

/// After a database restore the history of backups starts anew.
fn backup_after(sheet: &mut Sheet<'_>, scenario: &Scenario) {
    let restores = |text: &str| {
        words::any(
            &words::norm(text),
            &["pg_restore", "pg restore", "point in time", "pitr", "promote standby", "pg promote", "restore pitr"],
        )
    };
    let block_restores = |b: &crate::model::plan::Block| {
        let own = b.own.is_some();
        b.role == BlockRole::Run
            && !b.code.contains("--table")
            && (if own { ["restore", "promote"].iter().any(|w| b.code.contains(w)) } else { restores(&b.code) })
    };
    let last = scenario.steps.iter().rposition(|s| restores(&s.title) || s.blocks.iter().any(block_restores));
    let Some(last) = last else { return };
    let after = scenario.steps.iter().skip(last).any(|s| {
        let mentions = |t: &str| {
            words::any(
                &words::norm(t),
                &[
                    "new backup",
                    "base backup",
                    "take a backup",
                    "fresh backup",
                    "backup create",
                    "pg basebackup",
                    "enable backup",
                    "backups enabled",
                    "backups running",
                    "re enable backup",
                ],
            )
        };
        mentions(&s.title)
            || mentions(&s.text)
            || s.items.iter().any(|i| mentions(&i.title))
            || s.blocks.iter().any(|b| mentions(&b.code))
    });
    if !after && let Some(step) = scenario.steps.get(last) {
        sheet.say(Level::Note, "no-backup-after-restore", (step.line, ""), "no new backup after the restore", "a recovered database starts a timeline without a base backup: a second incident could not be recovered from", "Add a step that takes and verifies a new backup.");
    }
}

/// Blocks whose tag says something else than their content.
fn blocks(sheet: &mut Sheet<'_>) {
    for block in sheet.document.plan.blocks.clone() {
        if block.role == BlockRole::Comment {
            sheet.say(
                Level::Note,
                "comments-only",
                (block.line, ""),
                "nothing to run in this block",
                "it holds only comments",
                "Write them as steps, so that each can be ticked off.",
            );
        }
        if block.role == BlockRole::Run && matches!(block.lang.as_str(), "sql" | "postgresql") {
            sheet.say(
                Level::Warning,
                "wrong-tag",
                (block.line, &block.lang),
                "shell commands under an SQL tag",
                "",
                "Tag the block `bash`.",
            );
        }
        if block.role == BlockRole::Query && matches!(block.lang.as_str(), "bash" | "sh" | "shell") {
            sheet.say(
                Level::Warning,
                "wrong-tag",
                (block.line, &block.lang),
                "SQL under a shell tag",
                "",
                "Tag the block `sql`, or wrap it in `psql -c`.",
            );
        }
        if block.role == BlockRole::Run
            && let Some(why) = &block.blocked
        {
            sheet.say(
                Level::Note,
                "not-run",
                (block.line, ""),
                "this block is shown but never run",
                why,
                "Split it, or mark it `{ run=never }` when that is meant.",
            );
        }
    }
}

/// Whether a block begins with a command that destroys nothing.
fn looks_first(code: &str) -> bool {
    use crate::plan::commands::{ChunkKind, chunks};
    let first = chunks(code).into_iter().find(|c| c.kind == ChunkKind::Command);
    first.is_some_and(|c| crate::plan::risk::shell(&c.text).is_none())
}
