//! Whole drills of the other scenarios, unattended, and the same with a wrong decision on the way.

use std::collections::BTreeMap;
use std::path::Path;

use breakglass::drill::judge_release::weigh;
use breakglass::drill::storefront::{ReleaseLine, RequestLine};
use breakglass::model::Time;
use breakglass::model::event::Verdict;
use serde_json::Value;

/// Plays a drill through the real program: exit code, result, and the checks of the judge.
fn play(home: &Path, args: &[&str]) -> (i32, Value, Vec<(String, String)>) {
    std::fs::write(home.join("breakglass.toml"), "[drill]\nsize = 0\n").unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .arg("drill")
        .args(args)
        .args(["--unattended", "--json", "--report", "report"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("BREAKGLASS_HOME", home.join("state"))
        .current_dir(home)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    let result = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    assert!(stderr.contains("the sandbox is removed"), "{stderr}");
    let judged = on_record(home, "drill_judged").pop().unwrap();
    let word = |v: &Value| v.as_str().unwrap().to_string();
    let checks = judged["checks"].as_array().unwrap().iter().map(|c| (word(&c["name"]), word(&c["verdict"]))).collect();
    (out.status.code().unwrap(), result, checks)
}

/// All events of a kind in the report's journal.
fn on_record(home: &Path, kind: &str) -> Vec<Value> {
    let mut report = std::fs::read_dir(home.join("report")).unwrap().map(|e| e.unwrap().path());
    let json = report.find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
    let document: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let lines = document["journal"]["lines"].as_array().unwrap();
    let records = lines.iter().map(|l| serde_json::from_str::<Value>(l.as_str().unwrap()).unwrap());
    let all = records.flat_map(|r| r["events"].as_array().unwrap().clone());
    all.filter(|e| e["type"] == kind).collect()
}

fn goes_well(args: &[&str]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let (code, result, checks) = play(home.path(), args);
    assert_eq!((code, &result["passed"]), (0, &Value::Bool(true)), "{result:#} {checks:?}");
    assert!(checks.len() >= 7 && checks.iter().all(|(_, v)| v == "passed"), "{checks:?}");
    assert_eq!(result["loss"]["window_ms"], 0, "nothing was lost");
    home
}

#[test]
fn a_bad_release_is_rolled_back() {
    goes_well(&["application-failure"]);
}

#[test]
fn without_stopping_the_pipeline_the_drill_fails_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    let shipped =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks/application-failure.md"));
    let wrong = shipped.unwrap().replace("breakglass service autodeploy off\n", "true\n");
    std::fs::create_dir(home.path().join("runbooks")).unwrap();
    std::fs::write(home.path().join("runbooks/application-failure.md"), wrong).unwrap();
    let (code, result, checks) = play(home.path(), &["application-failure"]);
    assert_eq!((code, &result["passed"]), (1, &Value::Bool(false)), "{result:#}");
    // The verification saw it, and so did the judge, who does not ask the verification.
    assert_eq!(result["checks"]["verified"]["met"], false, "{result:#}");
    assert!(checks.contains(&("automatic deploys are stopped".into(), "failed".into())), "{checks:?}");
    assert!(checks.contains(&("the fault was real".into(), "passed".into())), "{checks:?}");
}

#[test]
fn damaged_pages_are_made_again_and_nothing_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let (code, result, checks) = play(home.path(), &["database-corruption", "--variant", "pages"]);
    assert_eq!((code, &result["passed"]), (0, &Value::Bool(true)), "{result:#} {checks:?}");
    assert_eq!(result["target"], "latest", "the log is sound, so all of it is recovered: {result:#}");
    assert_eq!(result["loss"]["rows"], serde_json::json!({}), "{result:#}");
    for judged in [
        "the fault was real",
        "orders are taken again",
        "every page can be read",
        "rows of the damaged pages are right",
    ] {
        assert!(checks.contains(&(judged.into(), "passed".into())), "{checks:?}");
    }
    // The assessment names every page that rotted, and no other: by the log nobody could read before the judgement.
    let rotted = std::fs::read_to_string(home.path().join("report/pages.jsonl")).unwrap();
    let rotted = rotted.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).filter(|l| l["line"] == "damaged");
    let mut pages: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in rotted {
        pages.entry(line["table"].as_str().unwrap().into()).or_default().push(line["page"].as_u64().unwrap());
    }
    let report = report(home.path());
    for (table, mut pages) in pages {
        pages.sort_unstable();
        let list: Vec<String> = pages.iter().map(u64::to_string).collect();
        let word = if pages.len() == 1 { "page" } else { "pages" };
        let named = format!("damaged on disk, by their checksum: {table}: {word} {} of ", list.join(", "));
        assert!(report.contains(&named), "{named:?} is not in the report:\n{report}");
    }
}

#[test]
fn a_truncated_table_comes_back() {
    if soak() {
        goes_well(&["data-deletion", "--variant", "truncate"]);
    }
}

#[test]
fn deleted_rows_come_back_and_newer_ones_stay() {
    goes_well(&["data-deletion", "--variant", "rows"]);
}

/// A drill with a runbook of its own: the shipped one with pieces replaced.
fn with_runbook(name: &str, changes: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks").join(name);
    let mut text = std::fs::read_to_string(shipped).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from:?}");
        text = text.replace(from, to);
    }
    std::fs::create_dir(home.path().join("runbooks")).unwrap();
    std::fs::write(home.path().join("runbooks").join(name), text).unwrap();
    home
}

/// The report in Markdown.
fn report(home: &Path) -> String {
    let all = std::fs::read_dir(home.join("report")).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "md")).map(|p| std::fs::read_to_string(p).unwrap()).collect()
}

/// The whole drills that take longer: `BREAKGLASS_SOAK=1 cargo test drill::scenarios`.
fn soak() -> bool {
    std::env::var_os("BREAKGLASS_SOAK").is_some()
}

#[test]
fn a_lost_region_is_left_and_come_back_to() {
    let home = tempfile::tempdir().unwrap();
    let (code, result, checks) = play(home.path(), &["regional-outage", "--variant", "lagging"]);
    assert_eq!((code, &result["passed"]), (0, &Value::Bool(true)), "{result:#} {checks:?}");
    assert!(checks.len() >= 8 && checks.iter().all(|(_, v)| v == "passed"), "{checks:?}");
    // The line was clogged for seconds: something is lost, counted, and written out.
    assert!(result["loss"]["rows"]["public.orders"].as_u64().unwrap() > 0, "{result:#}");
    let written = std::fs::read_dir(home.path().join("state/incidents")).unwrap().next().unwrap().unwrap().path();
    let orders = std::fs::read_to_string(written.join("old-primary/public.orders.jsonl")).unwrap();
    assert!(orders.lines().all(|l| serde_json::from_str::<Value>(l).unwrap()["total_cents"].is_number()));
}

#[test]
fn an_intruder_is_locked_out_and_nothing_of_it_is_left() {
    let home = goes_well(&["security-breach"]);
    // Traffic went on behind the first act: going back to it as a whole would not be free.
    let moment = on_record(home.path(), "moments_found").pop().unwrap()["candidates"][0].clone();
    assert!(moment["loses"]["window_ms"].as_u64().unwrap() > 0, "{moment:#}");
    // What we did to lock it out is no act of its own.
    let damage = on_record(home.path(), "damage_assessed").pop().unwrap();
    let findings = damage["findings"].as_array().unwrap();
    assert!(!findings.is_empty() && !findings.iter().any(|f| f.as_str().unwrap().contains(": role ")), "{damage:#}");
    // The sandbox's secrets were changed, and none of the team's.
    let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(["--json", "secrets", "list"]).env("BREAKGLASS_HOME", home.path()).current_dir(home.path());
    let (code, text) = crate::support::archived::said(&mut c);
    assert!(code == 0 && text.contains("\"rotated\": null") && !text.contains("\"rotated\": \""), "{text}");
}

#[test]
fn the_other_variants_go_well() {
    if soak() {
        goes_well(&["data-deletion", "--variant", "drop"]);
        // Without a clogged line next to nothing is lost.
        let home = tempfile::tempdir().unwrap();
        let (code, result, checks) = play(home.path(), &["regional-outage"]);
        assert_eq!((code, &result["passed"]), (0, &Value::Bool(true)), "{result:#} {checks:?}");
    }
}

#[test]
fn promoting_before_fencing_is_refused_and_the_report_says_so() {
    if !soak() {
        return;
    }
    let home = with_runbook("regional-outage.md", &[("breakglass failover fence\n", "true\n")]);
    let (code, result, _) = play(home.path(), &["regional-outage"]);
    assert_eq!((code, &result["passed"]), (1, &Value::Bool(false)), "{result:#}");
    assert!(report(home.path()).contains("not proved to be fenced"), "the report says why");
}

#[test]
fn isolating_before_the_evidence_is_refused_and_the_report_says_so() {
    if !soak() {
        return;
    }
    let home = with_runbook("security-breach.md", &[("breakglass evidence collect\n", "true\n")]);
    let (code, result, checks) = play(home.path(), &["security-breach"]);
    assert_eq!((code, &result["passed"]), (1, &Value::Bool(false)), "{result:#}");
    assert!(checks.contains(&("the sessions are in the evidence".into(), "failed".into())), "{checks:?}");
    assert!(report(home.path()).contains("No evidence was collected"), "the report says why");
}

/// Logs of a release that was bad from second 10 to 20 and rolled back properly.
type Logs = (Vec<RequestLine>, Vec<ReleaseLine>, BTreeMap<(u32, u64), i64>);

fn logs() -> Logs {
    let t = |s: i64| Time::from_micros(1_795_183_200_000_000 + s * 1_000_000);
    let requests: Vec<RequestLine> = (0..40)
        .map(|s| {
            let status = if (10..20).contains(&s) { 500 } else { 200 };
            RequestLine { customer: 1_001, n: s as u64 + 1, at: t(s), status: Some(status) }
        })
        .collect();
    let stored = requests.iter().filter(|r| r.status == Some(200)).map(|r| ((r.customer, r.n), 1)).collect();
    let releases = vec![
        ReleaseLine::Plan {
            seed: "00".into(),
            armed: t(0),
            release: "bad".into(),
            flag: "f".into(),
            with_flag: 90,
            without_flag: 20,
            left_behind: 20,
        },
        ReleaseLine::Deployed { at: t(10), release: "bad".into(), pipeline: true },
        ReleaseLine::Flag { at: t(10), flag: "f".into(), on: true },
        ReleaseLine::Autodeploy { at: t(18), on: false },
        ReleaseLine::Deployed { at: t(19), release: "good".into(), pipeline: false },
        ReleaseLine::Flag { at: t(19), flag: "f".into(), on: false },
    ];
    (requests, releases, stored)
}

#[test]
fn the_judge_of_releases_sees_each_thing_that_can_be_wrong() {
    let t = |s: i64| Some(Time::from_micros(1_795_183_200_000_000 + s * 1_000_000));
    let failed = |r: &[RequestLine], l: &[ReleaseLine], s: &BTreeMap<(u32, u64), i64>, refused, at| {
        let j = weigh(r, l, s, refused, at).unwrap();
        j.checks.into_iter().filter(|c| c.verdict != Verdict::Passed).map(|c| c.name).collect::<Vec<_>>()
    };
    let (requests, releases, stored) = logs();
    assert!(failed(&requests, &releases, &stored, 0, t(20)).is_empty());
    assert_eq!(failed(&requests, &releases, &stored, 1, t(20)), ["the judge's own requests"]);
    assert_eq!(failed(&requests, &releases, &stored, 0, t(15)), ["restored when it says so"]);
    assert_eq!(failed(&requests, &releases, &stored, 0, None), ["restored when it says so"]);
    let mut lost = stored.clone();
    lost.remove(&(1_001, 3));
    assert_eq!(failed(&requests, &releases, &lost, 0, t(20)), ["no order is lost"]);
    let without =
        |n: usize| releases.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| l.clone()).collect::<Vec<_>>();
    assert_eq!(failed(&requests, &without(3), &stored, 0, t(20)), ["automatic deploys are stopped"]);
    assert_eq!(failed(&requests, &without(4), &stored, 0, t(20)), ["a good release is in service"]);
    assert_eq!(failed(&requests, &without(5), &stored, 0, t(20)), ["the release's flag is off"]);
    let mut again = releases.clone();
    again.insert(5, ReleaseLine::Deployed { at: t(25).unwrap(), release: "bad".into(), pipeline: true });
    again.push(releases[4].clone());
    assert_eq!(failed(&requests, &again, &stored, 0, t(20)), ["the bad release came only once"]);
}
