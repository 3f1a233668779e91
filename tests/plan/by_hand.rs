//! What a person reads in the plans we ship, written down by hand, against what `plan show --json` says.

use std::process::Command;

use breakglass::plan::library::EMBEDDED;
use serde_json::Value;

/// A plan as a person reads it.
struct Read {
    file: &'static str,
    level: &'static str,
    rto_s: u64,
    rpo_s: u64,
    /// Title, phase, minutes.
    steps: &'static [(&'static str, &'static str, u64)],
    roles: &'static [&'static str],
    /// Who has to answer, within minutes.
    levels: &'static [(&'static str, u64)],
    /// The gravest row: minutes to respond, to escalate, to tell.
    gravest: [u64; 3],
    afterwards: usize,
}

const USUAL: &[(&str, u64)] = &[("On-call engineer", 15), ("Engineering manager", 30), ("CTO", 60)];

const PLANS: [Read; 5] = [
    Read {
        file: "database-corruption.md",
        level: "critical",
        rto_s: 4 * 3600,
        rpo_s: 3600,
        steps: &[
            ("Detect", "detect", 2),
            ("Declare", "declare", 1),
            ("Stop the bleeding", "contain", 2),
            ("Assess", "assess", 10),
            ("Choose the moment", "decide", 5),
            ("Recover beside", "recover", 30),
            ("Verify", "verify", 10),
            ("Promote", "promote", 5),
            ("Take a new base backup", "protect", 15),
            ("Salvage what came after", "protect", 15),
            ("Tell", "communicate", 5),
            ("Close", "close", 5),
        ],
        roles: &["Incident lead", "Keyboard", "Scribe", "Communications"],
        levels: USUAL,
        gravest: [15, 15, 60],
        afterwards: 8,
    },
    Read {
        file: "regional-outage.md",
        level: "high",
        rto_s: 2 * 3600,
        rpo_s: 15 * 60,
        steps: &[
            ("Detect: confirm from outside", "detect", 5),
            ("Declare", "declare", 1),
            ("Assess the standby", "assess", 5),
            ("Contain: fence the old primary", "contain", 5),
            ("Promote the standby", "promote", 5),
            ("Switch traffic over", "promote", 10),
            ("Verify", "verify", 10),
            ("Take a new base backup", "protect", 15),
            ("Rebuild the old primary as standby", "recover", 60),
            ("Tell", "communicate", 5),
            // A failover in the other direction, later and in quiet: no phase of this recovery.
            ("Fail back", "", 10),
            ("Close", "close", 10),
        ],
        roles: &["Incident lead", "Keyboard", "Network", "Communications"],
        levels: USUAL,
        gravest: [15, 15, 60],
        afterwards: 7,
    },
    Read {
        file: "security-breach.md",
        level: "critical",
        rto_s: 3600,
        rpo_s: 0,
        steps: &[
            ("Detect", "detect", 5),
            ("Declare", "declare", 1),
            ("Preserve the evidence", "assess", 5),
            ("Isolate", "contain", 3),
            ("Investigate", "assess", 10),
            ("Contain: rotate every secret", "contain", 10),
            ("Recover beside", "recover", 10),
            ("Restore what was changed, take away what was left", "recover", 8),
            ("Verify", "verify", 5),
            // Only after the check: no phase of its own.
            ("Open the doors again", "", 2),
            ("Take a new base backup", "protect", 15),
            ("Tell", "communicate", 15),
            ("Close", "close", 10),
        ],
        roles: &["Security lead", "Incident lead", "Keyboard", "Communications"],
        levels: &[("On-call engineer", 15), ("Security lead", 30), ("CTO and legal", 60)],
        gravest: [15, 15, 30],
        afterwards: 8,
    },
    Read {
        file: "data-deletion.md",
        level: "high",
        rto_s: 6 * 3600,
        rpo_s: 24 * 3600,
        steps: &[
            ("Detect", "detect", 5),
            ("Declare", "declare", 1),
            ("Stop the bleeding", "contain", 3),
            ("Assess", "assess", 10),
            ("Choose the moment", "decide", 10),
            ("Recover beside", "recover", 60),
            ("Verify the copy", "verify", 10),
            ("Restore what was lost", "recover", 20),
            ("Verify the live database", "verify", 10),
            ("Take a new base backup", "protect", 15),
            ("Tell", "communicate", 5),
            ("Close", "close", 5),
        ],
        roles: &["Incident lead", "Keyboard", "Data owner", "Communications"],
        levels: USUAL,
        gravest: [15, 15, 60],
        afterwards: 7,
    },
    Read {
        file: "application-failure.md",
        level: "high",
        rto_s: 15 * 60,
        rpo_s: 0,
        steps: &[
            ("Detect", "detect", 1),
            ("Declare", "declare", 1),
            ("Assess: compare the releases", "assess", 2),
            ("Contain: maintenance mode", "contain", 1),
            ("Stop automatic deploys", "contain", 1),
            ("Roll back", "recover", 2),
            ("Disable the flag", "contain", 1),
            ("Verify", "verify", 2),
            ("Take traffic again: switch maintenance mode off", "promote", 1),
            ("Tell", "communicate", 2),
            ("Close", "close", 5),
        ],
        roles: &["Incident lead", "Keyboard", "Communications", "Support"],
        levels: USUAL,
        gravest: [15, 15, 60],
        afterwards: 6,
    },
];

fn breakglass(words: &[&str]) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(words)
        .env_clear()
        .env("BREAKGLASS_HOME", home.path())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/runbooks"))
        .output()
        .unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.success(), format!("{}{}", text(&out.stdout), text(&out.stderr)))
}

#[test]
fn every_objective_step_and_role_is_what_a_person_reads() {
    assert_eq!(PLANS.len(), EMBEDDED.len());
    for read in &PLANS {
        let (ok, shown) = breakglass(&["plan", "show", read.file, "--json"]);
        assert!(ok, "{}: {shown}", read.file);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        // One document for one plan, or a list of them.
        let plan = if shown["plans"].is_array() { &shown["plans"][0] } else { &shown };
        let s = &plan["scenarios"][0];
        let file = read.file;
        assert_eq!(
            (&s["severity"]["level"], &s["rto_s"], &s["rpo_s"]),
            (&read.level.into(), &read.rto_s.into(), &read.rpo_s.into()),
            "{file}"
        );
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        let steps: Vec<(String, String, u64)> = s["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| (text(&s["title"]), text(&s["phase"]), s["estimate_s"].as_u64().unwrap() / 60))
            .collect();
        let wanted: Vec<(String, String, u64)> =
            read.steps.iter().map(|(t, p, m)| (t.to_string(), p.to_string(), *m)).collect();
        assert_eq!(steps, wanted, "{file}");
        let contacts = plan["contacts"].as_array().unwrap().iter();
        let roles: Vec<String> = contacts.filter(|c| c["section"] == "Roles").map(|c| text(&c["role"])).collect();
        assert_eq!(roles, read.roles, "{file}");
        let levels: Vec<(String, u64)> = plan["escalation"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| (text(&l["who"]), l["respond_s"].as_u64().unwrap() / 60))
            .collect();
        let wanted: Vec<(String, u64)> = read.levels.iter().map(|(w, m)| (w.to_string(), *m)).collect();
        assert_eq!(levels, wanted, "{file}");
        let row = &plan["matrix"][0];
        let minutes = ["respond_s", "escalate_s", "communicate_s"].map(|k| row[k].as_u64().unwrap() / 60);
        assert_eq!((&row["level"], minutes), (&"P0".into(), read.gravest), "{file}");
        assert_eq!(s["after"].as_array().unwrap().len(), read.afterwards, "{file}");
    }
}

#[test]
fn the_linter_has_nothing_to_say_from_the_shell_either() {
    for read in &PLANS {
        let (ok, said) = breakglass(&["plan", "lint", read.file]);
        assert!(ok && !said.contains(read.file), "{}: {said}", read.file);
    }
}
