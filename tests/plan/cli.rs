//! `plan list|show|lint` as the real program: what is printed, the JSON, the exit codes, what `--preflight` names.

use serde_json::Value;

use crate::bad_input::{Desk, Ran, ran};

/// A plan with one finding of each level, at known places.
const FLAWED: &str = "# Shop recovery\n\n**RTO:** 4 hours\n\n## Scenario 1: Lost database\n\n1. Check it\n\n   ```bash\n   vercel --prod --rollback\n   ```\n2. Verify it\n\n   ```bash\n   # only words\n   ```\n\n## Contacts\n\n| Role | Name |\n|---|---|\n| Lead | [Name] |\n";

/// A plan nothing is wrong with.
const SOUND: &str = "# Shop recovery\n\n**RTO:** 4 hours\n\n## Scenario 1: Lost disk (P1)\n\n**RPO:** < 15 minutes\n\n1. **Check** the mount (5 minutes)\n\n   ```bash\n   df -h\n   ```\n2. Verify with `df`\n";

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("one JSON document on stdout: {e}: {ran:?}"))
}

#[test]
fn lint_exits_1_when_something_must_be_changed_and_0_when_not() {
    let desk = Desk::new();
    desk.file("flawed.md", FLAWED);
    desk.file("sound.md", SOUND);
    // Only a note: nothing must be changed.
    desk.file("noted.md", SOUND.replace("df -h", "# look at the console"));
    let flawed = desk.run(&["plan", "lint", "flawed.md"]);
    assert_eq!(flawed.code, Some(1), "{flawed:?}");
    assert!(flawed.stdout.starts_with("flawed.md:10:18: error[broken-command]: "), "{flawed:?}");
    assert!(flawed.stdout.trim_end().ends_with("1 errors, 1 warnings, 1 notes"), "{flawed:?}");
    let sound = desk.run(&["plan", "lint", "sound.md"]);
    assert_eq!(sound.succeeds().trim(), "0 errors, 0 warnings, 0 notes");
    let noted = desk.run(&["plan", "lint", "noted.md"]);
    assert!(noted.succeeds().contains("note[comments-only]"), "{noted:?}");
    // One flawed document among sound ones is enough.
    assert_eq!(desk.run(&["plan", "lint", "sound.md", "flawed.md"]).code, Some(1));
    assert!(!desk.state().exists(), "reading writes nothing");
}

#[test]
fn lint_json_holds_every_finding_with_its_place() {
    let desk = Desk::new();
    desk.file("flawed.md", FLAWED);
    let ran = desk.run(&["plan", "lint", "flawed.md", "--json"]);
    assert_eq!(ran.code, Some(1));
    let got = json(&ran);
    let found: Vec<(&str, &str, u64, u64)> = got["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            for key in ["file", "message", "why", "hint", "snippet"] {
                assert!(d[key].is_string(), "{key} of {d}");
            }
            (
                d["level"].as_str().unwrap(),
                d["rule"].as_str().unwrap(),
                d["line"].as_u64().unwrap(),
                d["column"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [("error", "broken-command", 10, 18), ("note", "comments-only", 14, 4), ("warning", "blank-contact", 22, 10)]
    );
    assert_eq!((&got["errors"], &got["warnings"], &got["notes"]), (&1.into(), &1.into(), &1.into()));
    let error = &got["diagnostics"][0];
    assert_eq!((&error["file"], &error["width"]), (&"flawed.md".into(), &10.into()));
    assert_eq!(error["snippet"], "   vercel --prod --rollback");
    assert!(error["hint"].as_str().unwrap().contains("vercel rollback"));
}

#[test]
fn preflight_names_what_this_machine_lacks_and_only_then() {
    let desk = Desk::new();
    let plan = SOUND.replace("df -h", "df -h /\n   nosuchtool --now\n   df \"$NOSUCH_FOLDER\" \"$HOME\" \"$SET_HERE\"");
    desk.file("plan.md", plan);
    assert_eq!(desk.run(&["plan", "lint", "plan.md"]).succeeds().trim(), "0 errors, 0 warnings, 0 notes");
    let mut command = desk.command(&["plan", "lint", "plan.md", "--preflight", "--json"]);
    command.env("SET_HERE", "/");
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(1), "a missing tool must be installed: {ran:?}");
    let got = json(&ran);
    let found: Vec<(&str, u64, &str)> = got["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["rule"].as_str().unwrap(), d["line"].as_u64().unwrap(), d["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("missing-tool", 13, "`nosuchtool` is not on this machine's PATH"),
            ("unset-variable", 14, "$NOSUCH_FOLDER is not set here")
        ]
    );
    // A variable alone is asked for when it is needed: nothing must be changed.
    desk.file("asks.md", SOUND.replace("df -h", "df \"$NOSUCH_FOLDER\""));
    let ran = desk.run(&["plan", "lint", "asks.md", "--preflight"]);
    assert!(ran.succeeds().contains("unset-variable"), "{ran:?}");
}

#[test]
fn show_json_holds_every_field_with_its_line_and_rule() {
    let desk = Desk::new();
    desk.file("sound.md", SOUND);
    let got = json(&desk.run(&["plan", "show", "sound.md", "--json"]));
    assert_eq!((&got["title"], &got["objectives"]["rto_s"]), (&"Shop recovery".into(), &14_400.into()));
    let scenario = &got["scenarios"][0];
    assert_eq!((&scenario["title"], &scenario["line"]), (&"Lost disk".into(), &5.into()));
    assert_eq!(scenario["source"]["rule"], "R2");
    assert_eq!(scenario["severity"]["level"], "high", "P1 where P0 may exist");
    assert_eq!((&scenario["rto_s"], &scenario["rpo_s"]), (&Value::Null, &900.into()));
    let steps = scenario["steps"].as_array().unwrap();
    let lines: Vec<(&str, u64)> =
        steps.iter().map(|s| (s["title"].as_str().unwrap(), s["line"].as_u64().unwrap())).collect();
    assert_eq!(lines, [("Check", 9), ("Verify with df", 14)]);
    assert_eq!((&steps[0]["blocks"][0]["role"], &steps[0]["blocks"][0]["line"]), (&"run".into(), &11.into()));
    assert_eq!((&got["blocks"][0]["lang"], &got["blocks"][0]["role"]), (&"bash".into(), &"run".into()));
    // Several documents are one document of JSON all the same.
    desk.file("other.md", FLAWED);
    let both = json(&desk.run(&["plan", "show", "sound.md", "other.md", "--json"]));
    assert_eq!(both["plans"].as_array().unwrap().len(), 2);
    let list = json(&desk.run(&["plan", "list", "sound.md", "other.md", "--json"]));
    let slugs: Vec<&str> = list["scenarios"].as_array().unwrap().iter().map(|s| s["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["lost-disk", "lost-database"]);
}

/// The commands in the real plans that cannot work as written: document, line, and what stands there.
const BROKEN: &[(&str, u64, &str)] = &[
    ("001", 107, "supabase db restore"),
    ("001", 111, "supabase db restore"),
    ("001", 154, "vercel env push"),
    ("002", 56, "vercel env add"),
    ("002", 76, "--rollback"),
    ("003", 202, "pg_create_restore_point"),
    ("004", 34, "s3://"),
];

/// Where the real plans are at hand: the six broken commands (one of them stands twice) are named at their lines, and
/// nothing else is called an error.
#[test]
fn the_broken_commands_of_the_real_plans_are_named_at_their_lines() {
    let Some(folder) = super::real_plans() else { return };
    let desk = Desk::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "md"));
    files.sort();
    let mut found = Vec::new();
    for file in &files {
        let ran = desk.run(&["plan", "lint", "--json", file.to_str().unwrap()]);
        let got = json(&ran);
        let name = file.file_name().unwrap().to_string_lossy()[..3].to_string();
        for d in got["diagnostics"].as_array().unwrap().iter().filter(|d| d["level"] == "error") {
            assert_eq!(d["rule"], "broken-command", "{d}");
            found.push((name.clone(), d["line"].as_u64().unwrap(), d["snippet"].as_str().unwrap().to_string()));
        }
        assert_eq!(ran.code, Some(i32::from(got["errors"] != 0 || got["warnings"] != 0)), "{name}");
    }
    let places: Vec<(&str, u64)> = found.iter().map(|(d, l, _)| (d.as_str(), *l)).collect();
    assert_eq!(places, BROKEN.iter().map(|(d, l, _)| (*d, *l)).collect::<Vec<_>>());
    for ((_, line, snippet), (_, _, needle)) in found.iter().zip(BROKEN) {
        assert!(snippet.contains(needle), "line {line}: {snippet}");
    }
}
