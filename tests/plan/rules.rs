//! B, S, R, M, P and K: one table or small document per rule.

use breakglass::model::plan::Phase;
use breakglass::plan::doc::phase;
use breakglass::plan::objective::labelled;
use breakglass::plan::span::{at_start, first, whole};
use breakglass::plan::title::Title;
use breakglass::plan::understand::slug;
use breakglass::plan::words::norm;

use super::{only, read, steps, titles};

#[test]
fn titles_are_freed_of_numbers_marks_and_symbols() {
    let cases: &[(&str, &str)] = &[
        ("Scenario A: Database Corruption/Loss", "Database Corruption/Loss"),
        ("3. Scenario B — Region lost", "Region lost"),
        ("DR Scenario 2 - Ransomware", "Ransomware"),
        ("Cenário 1: Falha total", "Falha total"),
        ("场景 1：数据库损坏", "数据库损坏"),
        ("Scenario A", "Scenario A"),
        ("1. Database Corruption", "Database Corruption"),
        ("3.1 Restore", "Restore"),
        ("A. Restore", "Restore"),
        ("2) Restore", "Restore"),
        ("1️⃣ Restore", "Restore"),
        ("Section 3 — Full Cluster Recovery", "Full Cluster Recovery"),
        ("Runbook: Postgres down", "Postgres down"),
        ("Runbook — 🔴 Deposit skipped", "Deposit skipped"),
        ("🚨 Emergency Contacts", "Emergency Contacts"),
        ("P0: All zones offline", "All zones offline"),
        ("Application is down (P0)", "Application is down"),
        ("Outage [SEV-1]", "Outage"),
        ("Assess (5 minutes)", "Assess"),
        ("Step 2: Drain (~10 min)", "Drain"),
        ("Issue 3: Disk full", "Disk full"),
        ("Manual Steps (if needed)", "Manual Steps (if needed)"),
        ("503 errors on checkout", "503 errors on checkout"),
        ("S3 Access Denied", "S3 Access Denied"),
        ("24/7 support", "24/7 support"),
        ("Start **only** Postgres", "Start **only** Postgres"),
    ];
    for (raw, want) in cases {
        assert_eq!(Title::parse(raw).clean, *want, "{raw:?}");
    }
    let title = Title::parse("4. Application is down (P0)");
    assert_eq!((title.ordinal.as_deref(), title.severity.as_deref()), (Some("4"), Some("P0")));
    assert_eq!(Title::parse("Assess (5-10 minutes)").estimate_s, Some(600));
    assert_eq!(Title::parse("S3 Access Denied").severity, None);
    assert_eq!(slug("Database Corruption/Loss"), "database-corruption-loss");
}

#[test]
fn durations() {
    let cases: &[(&str, Option<(&str, u64)>)] = &[
        ("4 hours", Some(("=", 14_400))),
        ("4 Hours (target)", Some(("=", 14_400))),
        ("15m", Some(("=", 900))),
        ("1h30m", Some(("=", 5_400))),
        ("< 4h", Some(("<", 14_400))),
        ("≤ 30 minutes for primary", Some(("<=", 1_800))),
        ("2-4 hours", Some(("=", 14_400))),
        ("45–90 minutes", Some(("=", 5_400))),
        ("30 min to 2 hours", Some(("=", 7_200))),
        ("within 24 hours", Some(("<=", 86_400))),
        ("less than 2 minutes", Some(("<", 120))),
        ("~1 day", Some(("~", 86_400))),
        ("1.5 hours", Some(("=", 5_400))),
        ("300s", Some(("=", 300))),
        ("Immediate", Some(("=", 0))),
        ("Real-time", Some(("=", 0))),
        ("0 (no data loss)", Some(("=", 0))),
        ("< 30分钟", Some(("<", 1_800))),
        ("不高于 15 分钟", Some(("<=", 900))),
        ("4 horas", Some(("=", 14_400))),
        ("15 минут", Some(("=", 900))),
        ("3 days (Stripe retries)", Some(("=", 259_200))),
        ("N/A", None),
        ("Provider dependent", None),
        ("____", None),
        ("99.9%", None),
        ("5 replicas", None),
        ("Last snapshot", None),
    ];
    for (text, want) in cases {
        let got = at_start(text, false).map(|(s, _)| (s.op, s.seconds));
        assert_eq!(got, *want, "{text:?}");
    }
    assert_eq!(at_start("Daily (2 AM)", true).map(|(s, _)| (s.seconds, s.inferred)), Some((86_400, true)));
    assert_eq!(first("On-call engineer (15 min response)").map(|s| s.seconds), Some(900));
    assert_eq!(whole("~2 min"), Some(120));
    assert_eq!(whole("0-15 min"), Some(900));
    assert_eq!(whole("if needed"), None);
    assert_eq!(whole("P0"), None);
}

#[test]
fn objectives_need_a_label_a_separator_and_a_duration() {
    let yes = [
        "RTO: 4 hours",
        "**RTO**: 4 hours",
        "RTO (Recovery Time Objective): 4 Hours (x)",
        "Recovery Time Objective (RTO): ≤ 4h",
        "RTO <= 14400s",
        "Target RTO: 4h",
        "RTO target: < 4 hours",
    ];
    for text in yes {
        let found = labelled(&text.replace("**", ""));
        assert_eq!(found.len(), 1, "{text:?}");
    }
    let no = [
        "RTO Achievement: < 4 hours",
        "Our RTO is discussed below",
        "Actual RTO: 3 hours",
        "Estimated Recovery Time: 2-3 hours",
        "Response Time: 15 minutes",
        "Recovery Time: 4 hours",
        "Meet the RTO of 4 hours",
    ];
    for text in no {
        assert!(labelled(text).is_empty(), "{text:?}");
    }
}

#[test]
fn objectives_in_every_place_they_stand() {
    let plan = |body: &str| read(&format!("# P\n\n{body}\n\n## Scenario 1: X\n\n1. Restore it\n")).objectives;
    let cases: &[(&str, Option<u64>, Option<u64>)] = &[
        ("**RTO**: 4 hours  \n**RPO**: 1 hour", Some(14_400), Some(3_600)),
        ("**Severity:** P1 | **RTO:** 1 hour | **RPO:** 5 minutes", Some(3_600), Some(300)),
        ("- **RTO (Recovery Time Objective):** 4 Hours\n- **RPO:** 1h", Some(14_400), Some(3_600)),
        (
            "### RTO (Recovery Time Objective): 15 minutes\n### RPO (Recovery Point Objective): 24 hours",
            Some(900),
            Some(86_400),
        ),
        (
            "### RTO\n- **Critical**: 15 minutes\n- **Rest**: 1 hour\n\n### RPO\n- Database: 5 minutes (PITR)",
            Some(900),
            Some(300),
        ),
        (
            "| System | RTO | RPO |\n|---|---|---|\n| DB | 1 hour | 5 min |\n| Files | 4 h | 24 h |",
            Some(3_600),
            Some(300),
        ),
        (
            "| Metric | Target | Actual |\n|---|---|---|\n| **RTO** | < 4 hours | 2 h |\n| **RPO** | 1 hour | Untested |",
            Some(14_400),
            Some(3_600),
        ),
        ("RTO/RPO: 4h / 1h", Some(14_400), Some(3_600)),
        ("## Success metrics\n\n- **RTO**: < 4 hours", None, None),
        ("The RTO is important.", None, None),
    ];
    for (body, rto, rpo) in cases {
        let got = plan(body);
        assert_eq!((got.rto_s, got.rpo_s), (*rto, *rpo), "{body:?}");
    }
    let scoped = plan(
        "- **Recovery Time Objective (RTO)**: ≤ 30 minutes for primary region, ≤ 2 hours for cross-region failover.",
    );
    let all: Vec<_> =
        scoped.all.iter().map(|o| (o.scope.as_deref(), o.comparison.as_str(), o.seconds, o.source.line)).collect();
    assert_eq!(
        all,
        [(Some("primary region"), "<=", Some(1_800), 3), (Some("cross-region failover"), "<=", Some(7_200), 3)]
    );
}

#[test]
fn a_table_of_objectives_by_scenario_reaches_the_scenario() {
    let plan = read(
        "# P\n\n| Scenario | RTO | RPO |\n|---|---|---|\n| Region lost | 2 hours | 15 min |\n\n## Scenario 1: Region lost\n\n1. Fail over\n",
    );
    assert_eq!((plan.scenarios[0].rto_s, plan.scenarios[0].rpo_s), (Some(7_200), Some(900)));
}

#[test]
fn severity_through_the_documents_own_scale() {
    let level = |text: &str| read(text).scenarios[0].severity.as_ref().map(|s| s.level.clone());
    let scenario = |meta: &str| format!("# P\n\n## Scenario 1: X\n\n{meta}\n\n1. Restore it\n");
    assert_eq!(level(&scenario("**Severity**: Critical")).as_deref(), Some("P0"));
    assert_eq!(level(&scenario("- Severity: SEV-2")).as_deref(), Some("P1"));
    assert_eq!(level(&scenario("#### Severity: SEV1 (Critical)")).as_deref(), Some("P0"));
    assert_eq!(level(&scenario("| Severity | High |\n|---|---|\n| RTO | 1h |")).as_deref(), Some("P1"));
    assert_eq!(level(&scenario("")), None);
    // P1 is the top of a scale that begins with it, else the second; alone it means what it says.
    assert_eq!(level(&scenario("**Severity:** P1")).as_deref(), Some("P1"));
    assert_eq!(level(&scenario("**Priority:** P1")).as_deref(), Some("P1"));
    assert_eq!(
        level(&format!("{}\n## Levels\n\n- P1: now\n- P2: today\n", scenario("**Priority:** P1"))).as_deref(),
        Some("P0")
    );
    assert_eq!(
        level(&format!("{}\n## Levels\n\n- **P0**: worst\n", scenario("**Priority:** P1"))).as_deref(),
        Some("P1")
    );
    // Conditional text counts as the highest it names.
    assert_eq!(level(&scenario("**Severity:** SEV2 if slow; SEV1 if down")).as_deref(), Some("P0"));
    assert_eq!(
        level("# P\n\n## Incidents\n\n### X is down (P0)\n\n1. Restore it\n\n### Y is slow (P2)\n\n1. Wait\n")
            .as_deref(),
        Some("P0")
    );
}

#[test]
fn phases() {
    let cases = [
        ("Detection", Phase::Detect),
        ("Identify", Phase::Detect),
        ("Identify last good backup", Phase::Assess),
        ("Declare", Phase::Declare),
        ("Immediate Actions", Phase::Contain),
        ("Stop the bleeding", Phase::Contain),
        ("Investigation", Phase::Assess),
        ("Choose the moment", Phase::Decide),
        ("Recovery Steps", Phase::Recover),
        ("Restore from backup", Phase::Recover),
        ("Verify data integrity", Phase::Verify),
        ("Promote", Phase::Promote),
        ("Take a new base backup", Phase::Protect),
        ("Communicate", Phase::Communicate),
        ("Post-Recovery", Phase::Close),
        ("恢复", Phase::Recover),
    ];
    for (title, want) in cases {
        assert_eq!(phase(&norm(title)), Some(want), "{title:?}");
    }
    assert_eq!(phase(&norm("Open the dashboard")), None);
}

#[test]
fn scenarios_by_every_signal() {
    let step = "\n\n1. Restore it\n2. Verify it\n\n";
    let cases: &[(String, &[&str], &str)] = &[
        (format!("# P\n\n## Scenario 1: A{step}## Scenario 2: B{step}"), &["A", "B"], "R2"),
        (format!("# P\n\n## Recovery Scenarios\n\n### 1. Disk gone{step}### 2. Key leaked{step}"), &["Disk gone", "Key leaked"], "R3"),
        (format!("# P\n\n## Things\n\n### P0: Zones gone{step}### Cache cold (P2){step}"), &["Zones gone", "Cache cold"], "R4"),
        (format!("# P\n\n## Alerting\n\n### PodCrashLooping{step}### NodeNotReady{step}"), &["PodCrashLooping", "NodeNotReady"], "R5"),
        ("# P\n\n## A thing\n\n### Symptoms\n\nx\n\n### Resolution\n\n1. y\n\n## B thing\n\n### Symptoms\n\nx\n\n### Resolution\n\n1. y\n".into(), &["A thing", "B thing"], "R6"),
        (format!("# P\n\n## Database Restore{step}## Losing a Namespace{step}"), &["Database Restore", "Losing a Namespace"], "R7"),
        (format!("# Redis is down\n\n## Diagnosis{step}## Mitigation{step}"), &["Redis is down"], "R9"),
        ("# P\n\n## Odd section\n\n<!-- runbook: scenario severity=critical rto=4h rpo=15m -->\n\n1. Do it\n".into(), &["Odd section"], "R1"),
    ];
    for (text, want, rule) in cases {
        let plan = read(text);
        assert_eq!(titles(&plan), *want, "{text}");
        assert!(
            plan.scenarios.iter().all(|s| s.source.rule == *rule),
            "{rule}: {:?}",
            plan.scenarios.iter().map(|s| &s.source.rule).collect::<Vec<_>>()
        );
    }
    let noted = only(&cases[7].0);
    assert_eq!((noted.rto_s, noted.rpo_s, noted.severity.unwrap().level.as_str()), (Some(14_400), Some(900), "P0"));
}

#[test]
fn what_looks_like_a_scenario_and_is_none() {
    let real = "## Scenario 1: Real\n\n1. Restore it\n\n";
    for other in [
        "## Table of Contents\n\n1. [A](#a)\n2. [B](#b)\n3. [C](#c)\n4. [D](#d)\n\n",
        "## Backup Strategy\n\n### 1. Database\n\n1. Daily dump\n\n### 2. Files\n\n1. Sync\n\n",
        "## Recovery Testing\n\n### Test Scenarios\n\n1. Database failover test\n2. Full simulation\n\n",
        "## Testing\n\n### Scenario drills\n\n1. Restore it\n\n",
        "## Response Team\n\n1. Incident Commander - Lead\n2. Communications - PM\n\n",
        "## Escalation Path\n\n1. **Primary**: Ann\n2. **Support**: Bob\n\n",
        "## Disaster Scenarios\n\n### Critical (P0)\n\n- Data loss\n\n### High (P1)\n\n- Slow\n\n",
        "## Future Improvements\n\n1. Automated failover\n2. Multi-cloud\n\n",
        "## Incident Process\n\n1. **Detection**\n2. **Response**\n\n",
        "## Communication Templates\n\n### Initial Alert (P0/P1)\n\n```\nSubject: x\n```\n\n",
        "```markdown\n## Scenario 9: In a fence\n\n1. x\n```\n\n",
        "## Pre-Flight Checklist\n\n- [ ] Check access\n- [ ] Check tools\n\n",
    ] {
        let plan = read(&format!("# P\n\n{other}{real}"));
        assert_eq!(titles(&plan), ["Real"], "{other}");
    }
}

#[test]
fn branches_of_one_runbook_stay_in_it() {
    let plan = read(
        "# Container keeps restarting\n\n## Symptoms\n\n- x\n\n## Resolution Steps\n\n### Scenario 1: Crashed\n\n1. Restart\n\n### Scenario 2: Full\n\n1. Clean\n\n## Verification\n\n1. Check\n",
    );
    assert_eq!(titles(&plan), ["Container keeps restarting"]);
    assert_eq!(steps(&plan.scenarios[0]), ["Restart", "Clean", "Check"]);
    assert_eq!(plan.scenarios[0].symptoms.len(), 1);
}

#[test]
fn a_group_of_procedures_names_its_group() {
    let plan = read(
        "# P\n\n## Recovery Procedures\n\n### 1. Database Recovery\n\n#### Full Restore\n\n1. Restore it\n\n#### Partial Restore\n\n1. Copy it\n\n### 2. App\n\n1. Roll back\n",
    );
    assert_eq!(titles(&plan), ["Full Restore", "Partial Restore", "App"]);
    assert_eq!(plan.scenarios[0].group.as_deref(), Some("Database Recovery"));
}

#[test]
fn steps_by_every_form() {
    let cases: &[(&str, &[&str])] = &[
        ("### Step 1: Drain (5 min)\n\ntext\n\n### Step 2: Restart\n\n- a\n", &["Drain", "Restart"]),
        ("### 1. Drain\n\ntext\n\n### 2. Restart\n\n1. a\n2. b\n", &["Drain", "Restart"]),
        ("**1. Drain**\n\ntext\n\n**2. Restart**\n\n```bash\nls\n```\n", &["Drain", "Restart"]),
        (
            "**Step 1:** Drain the node\n\n```bash\nls\n```\n\n**Step 2:** Restart it\n",
            &["Drain the node", "Restart it"],
        ),
        ("1. **Drain:** the node\n   - a\n   - b\n2. Restart `it` now\n", &["Drain", "Restart it now"]),
        (
            "1. Drain\n\n```bash\nls\n```\n\n2. Restart\n\n```bash\nls\n```\n\n3. Check\n",
            &["Drain", "Restart", "Check"],
        ),
        ("1. Drain\n\nThen, later:\n\n1. Restart\n", &["Drain", "Restart"]),
        (
            "```bash\n# 1. Drain\nls\n# 2. Restart by hand\n# (in the dashboard)\n\n# 3. Check\nls\n```\n",
            &["Drain", "Restart by hand", "Check"],
        ),
        (
            "```\n1. Drain the node\n   in the console\n2. Restart the service\n```\n",
            &["Drain the node", "Restart the service"],
        ),
        ("**Manual Steps (if needed)**\n```bash\n# Force it\nls\n```\n", &["Manual Steps (if needed)"]),
        (
            "**Automatic Recovery**\n- It restarts by itself\n\n**Immediate Actions**\n- Call Ann\n",
            &["Immediate Actions"],
        ),
        (
            "Restart the service on every node of the cluster:\n\n```bash\nls\n```\n\n```bash\n# Check it\nls\n```\n",
            &["Restart the service on every node of the cluster", "Check it"],
        ),
        ("- [ ] Drain\n  - [ ] nested\n- [ ] Restart\n", &["Drain", "Restart"]),
        (
            "**Recovery Checklist**\n- [ ] a\n- [ ] b\n\n**Failover Steps**\n1. Drain\n2. Restart\n",
            &["Recovery Checklist", "Drain", "Restart"],
        ),
        ("**Symptoms:**\n1. Errors\n2. More errors\n\n**Resolution:**\n1. Drain\n2. Restart\n", &["Drain", "Restart"]),
        (
            "The controller will automatically:\n\n1. Detect it\n2. Restart it\n\n**Steps:**\n1. Wait for it\n",
            &["Wait for it"],
        ),
        ("1. Drain\n2. Restart\n\n**Verify:** the page loads\n", &["Drain", "Restart", "Verify"]),
        (
            "| Step | Action | Owner | Time |\n|---|---|---|---|\n| 1 | Drain | Ann | 5 min |\n| 2 | Restart | Bob | 1 min |\n",
            &["Drain", "Restart"],
        ),
        ("* **Purpose**: x\n* **Procedure**:\n    1. Drain\n    2. Restart\n", &["Drain", "Restart"]),
    ];
    for (body, want) in cases {
        let scenario = only(&format!("# P\n\n## Scenario 1: X\n\n{body}"));
        assert_eq!(steps(&scenario), *want, "{body}");
        for (i, step) in scenario.steps.iter().enumerate() {
            assert_eq!(step.id.as_str(), format!("s{}", i + 1));
            assert!(step.line > 4 && !step.source.rule.is_empty());
        }
    }
}

#[test]
fn numbered_comments_share_the_fence_and_carry_their_own_commands() {
    let scenario = only(
        "# P\n\n## Scenario 1: X\n\n```bash\nset -e\n# 1. Find\nls a\n\n# 2. By hand\n# (in the dashboard)\n\n# 3. Put back\nrm -rf b\n```\n",
    );
    let codes: Vec<Vec<&str>> =
        scenario.steps.iter().map(|s| s.blocks.iter().map(|b| b.code.as_str()).collect()).collect();
    assert_eq!(codes, [vec!["set -e\n# 1. Find\nls a"], vec![], vec!["# 3. Put back\nrm -rf b"]]);
    assert!(scenario.steps.iter().flat_map(|s| &s.blocks).all(|b| b.line == 5));
    assert_eq!(scenario.steps[1].text, "(in the dashboard)");
    assert_eq!(scenario.steps[0].blocks[0].risk, None, "each part has the gates of that part");
    assert!(scenario.steps[2].blocks[0].risk.is_some());
}

#[test]
fn steps_of_a_session_are_never_run_one_by_one() {
    let scenario = only(
        "# P\n\n## Scenario 1: X\n\n```bash\n# 1. Connect\nmysql -h db -u admin -p\n\n# 2. Look\nSELECT COUNT(*) FROM users;\n```\n",
    );
    let blocks: Vec<_> = scenario.steps.iter().flat_map(|s| &s.blocks).collect();
    assert_eq!(blocks.len(), 2);
    assert!(blocks.iter().all(|b| !b.runnable()), "{blocks:?}");
}

#[test]
fn details_of_a_step() {
    let scenario = only(
        "# P\n\n## Scenario 1: X\n\n1. **Restore** (5 minutes): run it, then see Scenario B\n   - first\n     - nested\n   - second\n\n   ```bash\n   # Stop\n   a\n\n   # Start\n   b\n   ```\n\n   Expected: it says ok\n2. If the database is down, restart it\n3. Read [the other](other.md#x)\n",
    );
    let restore = &scenario.steps[0];
    assert_eq!(restore.estimate_s, Some(300));
    assert_eq!(
        restore.items.iter().map(|i| i.title.as_str()).collect::<Vec<_>>(),
        ["first", "nested", "second", "Stop", "Start"]
    );
    assert_eq!(restore.expected.as_deref(), Some("Expected: it says ok"));
    assert!(restore.text.starts_with("run it"));
    assert_eq!(restore.links[0].target, "#scenario-b");
    assert_eq!(scenario.steps[1].condition.as_deref(), Some("If the database is down"));
    assert_eq!(scenario.steps[2].links[0].target, "other.md#x");
}

#[test]
fn contacts_escalation_matrix_and_lists() {
    let plan = read(
        "# P\n\n## Scenario 1: X\n\n1. Restore it\n\n## Severity\n\n| Severity | Response Time | Escalation | Communication |\n|---|---|---|---|\n| P0 - Critical | 15 minutes | Immediate | Public within 1 hour |\n| P1 - High | 1 hour | 4 hours | Internal within 2 hours |\n\n## Emergency Contacts\n\n| Role | Name | Phone |\n|---|---|---|\n| CTO | [Name] | +1-XXX-XXX-XXXX |\n| DBA | Ann | 123 |\n\n### Escalation\n\n- **Level 1**: On-call engineer (15 min response)\n- **Level 2**: Manager (30 min response)\n\n## Backup Retention\n\n- Daily: 30 days\n\n## Post-Recovery\n\n- [ ] Write it up\n",
    );
    let matrix: Vec<_> =
        plan.matrix.iter().map(|m| (m.level.as_str(), m.respond_s, m.escalate_s, m.communicate_s)).collect();
    assert_eq!(matrix, [("P0", Some(900), Some(0), Some(3_600)), ("P1", Some(3_600), Some(14_400), Some(7_200))]);
    let contacts: Vec<_> = plan.contacts.iter().map(|c| (c.role.as_str(), c.unfilled)).collect();
    assert_eq!(contacts, [("CTO", true), ("DBA", false), ("Level 1", false), ("Level 2", false)]);
    let levels: Vec<_> = plan.escalation.iter().map(|e| (e.level, e.who.as_str(), e.respond_s)).collect();
    assert_eq!(levels, [(1, "On-call engineer", Some(900)), (2, "Manager", Some(1_800))]);
    let kinds: Vec<_> = plan.extras.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["matrix", "contacts", "escalation", "retention", "checklist"]);
    assert!(plan.notices.iter().any(|n| n.text.contains("still to be filled in")));
}

#[test]
fn other_languages() {
    let pt = read(
        "# Plano\n\n**RTO:** 4 horas\n\n## Cenário 1: Banco corrompido\n\n### Sintomas\n\n- erros\n\n### Procedimento\n\n1. Verificar o backup\n2. Restaurar o banco\n",
    );
    assert_eq!(titles(&pt), ["Banco corrompido"]);
    assert_eq!((pt.objectives.rto_s, steps(&pt.scenarios[0]).len()), (Some(14_400), 2));
    let zh = read("# 灾难恢复\n\n## 场景 1：数据库损坏\n\n**RTO**：30分钟\n\n1. 停止写入\n2. 恢复备份\n");
    assert_eq!((titles(&zh), zh.scenarios[0].rto_s), (vec!["数据库损坏".to_string()], Some(1_800)));
    let ru = read("# План\n\n## Сценарий 1: Потеря базы\n\n1. Остановить запись\n2. Восстановить\n");
    assert_eq!(titles(&ru), ["Потеря базы"]);
}

#[test]
fn what_the_development_set_taught() {
    let titles = |text: &str| -> Vec<String> { read(text).scenarios.into_iter().map(|s| s.title).collect() };
    // Numbered entries of a list of scenarios are no steps, whatever words they begin with.
    let numbered = "# DB\n\n## Recovery Scenarios\n\n### 1. Point-in-Time Recovery\n\n1. Restore\n\n### 2. Snapshot Recovery\n\n1. Restore\n";
    assert_eq!(titles(numbered), ["Point-in-Time Recovery", "Snapshot Recovery"]);
    // An objective beside a title does not make the section one of objectives.
    let beside = "# DR\n\n## Recovery Procedures\n\n### 1. Broker Restore (RTO: 15 minutes)\n\n1. Restart it\n\n### 2. Ledger Restore (RTO: 30 minutes)\n\n1. Restore it\n";
    assert_eq!(titles(beside).len(), 2, "{:?}", titles(beside));
    // What does not work is trouble, even when its name sounds like a description.
    let trouble = "# Guide\n\n## Common Issues\n\n### 1. Dashboard Not Loading\n\n1. Restart it\n\n### 2. Approvals Not Showing\n\n1. Reload\n";
    assert_eq!(titles(trouble), ["Dashboard Not Loading", "Approvals Not Showing"]);
    // A report tells what was done.
    assert!(titles("# Final Report\n\n## Checks\n\n1. Run the tests\n2. Deploy\n").is_empty());
    // In a script without spaces a title is only a phase when little more stands in it.
    let han = "# 手册\n\n## 数据库回滚\n\n### 场景: 迁移失败\n\n1. 停止\n\n## 应用回滚\n\n### 场景: 部署出错\n\n1. 回滚\n\n## 回滚验证\n\n1. 检查\n";
    assert_eq!(titles(han), ["迁移失败", "部署出错"]);
    // "Verify a restore" is a check, not a recovery.
    let check = "# DR\n\n## Verify a restore\n\n1. Look\n\n## Restore for real\n\n1. Restore\n\n## Node failure\n\n1. Replace it\n";
    assert!(!titles(check).contains(&"Verify a restore".to_string()), "{:?}", titles(check));
}

#[test]
fn the_objective_a_scenario_is_held_to() {
    use breakglass::plan::applying::applying;
    let held = |plan: &str, title: &str, metric: &str| {
        let plan = read(plan);
        let scenario = plan.scenarios.iter().find(|s| s.title == title).unwrap();
        applying(&plan, scenario, metric).map(|o| (o.seconds, o.scope.map(str::to_string), o.own))
    };
    let scoped = "# P\n\n## RTO\n\n- **Critical systems**: 15 minutes\n- **Reporting**: 4 hours\n\n## Scenarios\n\n### Scenario 1: Reporting down\n\n1. Look\n\n### Scenario 2: Region lost\n\n1. Look\n\n### Scenario 3: Cache lost\n\n**RTO:** 1 hour\n\n1. Look\n";
    assert_eq!(held(scoped, "Reporting down", "rto"), Some((14_400, Some("Reporting".into()), false)));
    assert_eq!(held(scoped, "Region lost", "rto"), Some((900, Some("Critical systems".into()), false)), "the first");
    assert_eq!(held(scoped, "Cache lost", "rto"), Some((3600, None, true)), "its own");
    assert_eq!(held(scoped, "Region lost", "rpo"), None);
    let whole = "# P\n\n**RTO:** 4 hours\n**RPO:** 1 hour\n\n## Scenario 1: X\n\n1. Look\n";
    assert_eq!(held(whole, "X", "rto"), Some((14_400, None, false)));
    assert_eq!(held(whole, "X", "rpo"), Some((3600, None, false)));
}

#[test]
fn procedures_are_told_from_the_steps_of_one() {
    let block = "```bash\nls\n```\n";
    let found = |text: &str| titles(&read(text));
    // Numbered procedures below a list of them, each naming what it brings back; a look at the backups may stand first.
    let each = format!(
        "# Backups\n\n## 1. Policy\n\nDaily.\n\n## 2. Recovery procedures\n\n### 2.1 List the backups\n\n{block}\n### 2.2 Restore the cache from disk\n\n{block}\n### 2.3 Restore orders from a dump\n\n{block}"
    );
    assert!(
        found(&each).ends_with(&["Restore the cache from disk".into(), "Restore orders from a dump".into()]),
        "{:?}",
        found(&each)
    );
    // "Recover", "Verify" below one procedure stay its steps.
    let one = format!(
        "# X\n\n## Recovery procedures\n\n### 1. Stop writers\n\n{block}\n### 2. Restore\n\n{block}\n### 3. Verify\n\n{block}"
    );
    assert_eq!(found(&one), ["X"]);
    // A heading that holds nothing itself stands for what is below it.
    let over = format!(
        "# X\n\n## Cache failure\n\n{block}\n## Full recovery\n\n### Cluster unavailable\n\n{block}\n### Site failure\n\n{block}"
    );
    assert_eq!(found(&over), ["Cache failure", "Cluster unavailable", "Site failure"]);
    let phases = format!(
        "# X\n\n## Cache failure\n\n{block}\n## Database loss\n\n### Diagnosis\n\n{block}\n### Resolution\n\n{block}"
    );
    assert_eq!(found(&phases), ["Cache failure", "Database loss"]);
    // What lists troubles lists them wherever it stands.
    let quick = format!(
        "# On call\n\n## Quick reference\n\n### Common issues\n\n#### Slow answers\n\n{block}\n#### Queue stuck\n\n{block}\n## Contacts\n\n- Amy\n\n## Links\n\n- x\n\n## Costs\n\n- y\n"
    );
    assert_eq!(found(&quick), ["Slow answers", "Queue stuck"]);
    // A runbook with steps is one; what is for when they fail stays in it.
    let set_up = format!(
        "# Runbook: Move the socket\n\n## Steps\n\n### 1. Enable it\n\n{block}\n## Troubleshooting\n\n### Socket not found\n\n{block}\n### Binary missing\n\n{block}"
    );
    assert_eq!(found(&set_up), ["Move the socket"]);
    // What was done once is no plan.
    assert!(found(&format!("# Restore drill record\n\n## Commands used\n\n{block}")).is_empty());
    // The text of a script that somebody calls is something to do, and nothing to run.
    let script = "```bash\n#!/bin/bash\n# restore.sh\npg_restore -d shop \"$1\"\n```\n";
    let plan = read(&format!(
        "# X\n\n## Restore procedures\n\n### Emergency database restore\n\n{script}\n### Cache rebuild\n\n{block}"
    ));
    assert_eq!(titles(&plan), ["Emergency database restore", "Cache rebuild"]);
    assert_eq!(plan.scenarios[0].steps.len(), 1);
    assert!(plan.scenarios[0].steps[0].blocks.iter().all(|b| !b.runnable()));
}

#[test]
fn what_is_called_a_step_is_one_whatever_its_words_sound_like() {
    let words = ["Note the time", "Impact on users", "Who is affected", "Contact the vendor", "Document the example"];
    let sections: String =
        words.iter().enumerate().map(|(i, w)| format!("### Step {}: {w}\n\nSome text.\n\n", i + 1)).collect();
    let scenario = only(&format!("# P\n\n## Scenario 1: X\n\n{sections}"));
    assert_eq!(steps(&scenario), words);
    // Without the number it informs.
    let scenario = only("# P\n\n## Scenario 1: X\n\n### Impact\n\nUsers wait.\n\n### Restore\n\nDo it.\n");
    assert_eq!(steps(&scenario), ["Restore"]);
}
