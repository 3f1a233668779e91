//! The people's side from the shell: deadlines, roles, messages through a command, secrets, an exercise at a table.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use breakglass::app::data::SecretRow;
use breakglass::incident::Rules;
use breakglass::model::Time;
use breakglass::model::event::Kind;
use breakglass::plan::{parse, secrets};
use breakglass::runtime::{Opening, Store};

use crate::support::pty::Pty;

const PLAN: &str = "# Shop recovery

Secrets should be rotated every **60 days**.

## Scenario 1: Database down

**Severity:** P0
**RTO:** 1 hour
**RPO:** 10 minutes

### Symptoms

- Orders fail
- The status page is red

### Recovery steps

1. Look at the dashboard
2. Restore the database
3. Verify the orders

## Message to customers

```text
Subject: [Service Name] is not available

Since [Start] orders fail. Impact: [Impact]. Ask [Helpdesk]. Next update: [Next Update].
```

## Post-recovery checklist

- [ ] Thank the team
- [ ] Write the post-mortem

## Secrets rotation

Every 60 days.

| Secret | Rotation procedure | Impact | Last rotated |
|---|---|---|---|
| `DATABASE_URL` | New password | 1 minute | 2026-01-02 |
| API key | New key | none | |
";

struct Desk {
    home: tempfile::TempDir,
}

impl Desk {
    fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("plan.md"), PLAN).unwrap();
        std::fs::write(home.path().join("breakglass.toml"), config).unwrap();
        Self { home }
    }
    fn path(&self) -> &Path {
        self.home.path()
    }
    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_breakglass"))
            .args(words)
            .env_clear()
            .env("BREAKGLASS_HOME", self.path().join("state"))
            .env("HOME", self.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.path())
            .output()
            .unwrap()
    }
    fn ok(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let text = said(&out);
        assert!(out.status.success(), "{words:?}: {text}");
        text
    }
    fn fails(&self, words: &[&str], code: i32) -> String {
        let out = self.run(words);
        assert_eq!(out.status.code(), Some(code), "{words:?}: {}", said(&out));
        said(&out)
    }
    /// A real incident of the plan.
    fn incident(&self) {
        let config = breakglass::config::Config { state_dir: Some(self.path().join("state")), ..Default::default() };
        let store = Store::open(&config).unwrap();
        let plan = parse("plan.md", PLAN.as_bytes()).unwrap();
        let opening = Opening {
            kind: Kind::Real,
            scenario: plan.scenarios[0].slug.clone(),
            plan,
            documents: vec![],
            rto_ms: None,
            rpo_ms: None,
            target: Some("shop @ production".into()),
            expect: Default::default(),
            policy: Default::default(),
        };
        store.create(opening).unwrap();
    }
    /// A command that keeps what it is given, and its arguments.
    fn sender(&self) -> PathBuf {
        let path = self.path().join("send.sh");
        let text =
            "#!/bin/sh\ncat >\"$0.got\"\necho \"$BREAKGLASS_AUDIENCE $*\" >\"$0.how\"\ntest ! -e \"$0.broken\"\n";
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn an_incident_is_led_from_the_shell() {
    let desk = Desk::new("");
    desk.incident();
    let timers = desk.ok(&["incident", "timers"]);
    for word in ["respond", "escalate", "communicate", "update-team", "due in 1"] {
        assert!(timers.contains(word), "{word}: {timers}");
    }
    // Two hours ago: everything is overdue, and the exit code says so.
    desk.ok(&["incident", "impact", "2h ago", "--source", "first failed order"]);
    assert!(desk.fails(&["incident", "timers"], 1).contains("OVERDUE by 1:45:"));
    desk.ok(&["incident", "ack", "respond", "--note", "on it"]);
    desk.ok(&["incident", "assign", "incident lead", "amy"]);
    desk.ok(&["incident", "assign", "lead", "ben", "--note", "amy sleeps"]);
    assert!(desk.ok(&["incident", "escalate"]).contains("call level 2: engineering manager"));
    assert!(desk.fails(&["incident", "escalate", "--level", "9"], 2).contains("levels: 1"));
    desk.ok(&["incident", "answered", "2", "dee"]);
    desk.ok(&["incident", "snooze", "update-team", "--for", "20m", "--reason", "all on the call"]);
    assert!(
        desk.fails(&["incident", "snooze", "lunch", "--for", "20m", "--reason", "x"], 4).contains("is no deadline")
    );
    let json: serde_json::Value =
        serde_json::from_str(&String::from_utf8(desk.run(&["incident", "timers", "--json"]).stdout).unwrap()).unwrap();
    let by = |name: &str| {
        let all = json["timers"].as_array().unwrap();
        all.iter().find(|t| t["timer"] == name).unwrap_or_else(|| panic!("{name}: {json}"))["standing"].clone()
    };
    assert_eq!((by("respond"), by("level-2"), by("update-team")), ("late".into(), "met".into(), "snoozed".into()));
    // The order of the plan, with titles; who leads.
    let shown = desk.ok(&["incident", "show"]);
    assert!(shown.contains("incident commander ben"), "{shown}");
    let at = |word: &str| shown.find(word).unwrap_or_else(|| panic!("{word}: {shown}"));
    assert!(
        at("Look at the dashboard") < at("Restore the database")
            && at("Restore the database") < at("Verify the orders")
    );
    // Afterwards: the plan's own list.
    let list = desk.ok(&["incident", "afterwards"]);
    assert!(list.contains(" 1 [ ] Thank the team") && list.contains(" 2 [ ] Write the post-mortem"), "{list}");
    desk.ok(&["incident", "afterwards", "2"]);
    assert!(desk.ok(&["incident", "afterwards"]).contains(" 2 [x] Write the post-mortem"));
    desk.ok(&["incident", "codename", "Heron"]);
    desk.ok(&["incident", "close", "--summary", "over", "--force"]);
    let all = String::from_utf8(desk.run(&["incident", "list", "--json"]).stdout).unwrap();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let id = all["incidents"][0]["id"].as_str().unwrap().to_string();
    desk.ok(&["incident", "afterwards", "1", "--incident", &id]);
    assert!(desk.fails(&["incident", "assign", "scribe", "cat", "--incident", &id], 4).contains("is closed"));
    // The timeline tells all of it.
    desk.ok(&["export", &id, "--format", "md", "--out", "out"]);
    let folder = std::fs::read_dir(desk.path().join("out")).unwrap();
    let md = folder.map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "md")).unwrap();
    let md = std::fs::read_to_string(md).unwrap();
    for word in
        ["handed over from amy to ben", "Escalated to level 2", "Level 2 answered: dee", "put off for 20:00", "“Heron”"]
    {
        assert!(md.contains(word), "{word}: {md}");
    }
}

#[test]
fn a_message_is_filled_in_and_handed_to_the_command_only_when_a_person_says_so() {
    let desk = Desk::new("");
    let sender = desk.sender();
    let config = format!("[notify]\ncommand = [{:?}, \"--to\", \"{{audience}}\"]\n", sender.display().to_string());
    std::fs::write(desk.path().join("breakglass.toml"), config).unwrap();
    desk.incident();
    let got = || std::fs::read_to_string(desk.path().join("send.sh.got")).ok();
    assert!(desk.ok(&["incident", "tell", "team", "--template", "list"]).contains("Message to customers"));
    let shown = desk.ok(&["incident", "tell", "customers", "--template", "message to customers", "--show"]);
    assert!(shown.contains("Subject: shop is not available") && shown.contains("[Helpdesk]"), "{shown}");
    assert!(shown.contains("Impact: is being looked at") && shown.contains("UTC"), "{shown}");
    // What only a person knows is said with it; a blank that is not there is named.
    let to = ["incident", "tell", "customers", "--template", "message to customers", "--show", "--fill"];
    assert!(desk.ok(&[&to[..], &["helpdesk=+1 555 0100"]].concat()).contains("Ask +1 555 0100."));
    assert!(desk.fails(&[&to[..], &["Hotline=1"]].concat(), 2).contains("[Helpdesk]"));
    // Blanks that are left keep it from going out by itself; printing it is recorded as copied.
    assert!(
        desk.fails(&["incident", "tell", "customers", "--template", "message to customers", "--send"], 2)
            .contains("[Helpdesk]")
    );
    desk.ok(&["incident", "tell", "customers", "--template", "message to customers"]);
    assert_eq!(got(), None, "nothing is sent by itself");
    let out = desk.ok(&["incident", "tell", "team", "--template", "update", "--send"]);
    assert!(out.contains("was taken by the command"), "{out}");
    let text = got().unwrap();
    assert!(
        text.starts_with("Subject: P0 Database down: update of 20") && text.contains("Now: Look at the dashboard"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(desk.path().join("send.sh.how")).unwrap().trim(), "team --to team");
    // A command that fails is an error, and nobody counts as told.
    std::fs::write(desk.path().join("send.sh.broken"), "").unwrap();
    desk.fails(&["incident", "tell", "team", "--text", "again", "--send"], 3);
    let json = String::from_utf8(desk.run(&["incident", "show", "--json"]).stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|r| r["status"].as_str().unwrap()).collect::<Vec<_>>(), ["succeeded", "failed"]);
    std::fs::remove_file(desk.path().join("send.sh.broken")).unwrap();
    std::fs::remove_file(desk.path().join("send.sh.got")).unwrap();
    // Local only: nothing goes out until it is lifted.
    desk.ok(&["incident", "local-only", "on", "--reason", "the intruder may listen"]);
    assert!(desk.fails(&["incident", "tell", "team", "--text", "x", "--send"], 4).contains("local only"));
    assert_eq!(got(), None);
    desk.ok(&["incident", "local-only", "off", "--reason", "channel is clean"]);
    desk.ok(&["incident", "tell", "team", "--text", "x y", "--send"]);
    assert_eq!(got().as_deref(), Some("x y"));
}

#[test]
fn secrets_are_listed_with_last_change_and_due_date() {
    let desk = Desk::new(
        "plans = [\"plan.md\"]\n[[secrets]]\nname = \"pipeline token\"\nevery = \"30d\"\nrotated = \"2026-11-01\"\n",
    );
    let plan = parse("plan.md", PLAN.as_bytes()).unwrap();
    let table = secrets::table(&plan);
    assert_eq!(
        table.iter().map(|s| (s.name.as_str(), s.every_s / 86_400)).collect::<Vec<_>>(),
        [("DATABASE_URL", 60), ("API key", 60)]
    );
    assert_eq!(table[0].rotated, Some(Time::parse("2026-01-02T00:00:00Z").unwrap()));
    assert_eq!((table[0].how.as_str(), table[0].impact.as_str(), table[1].rotated), ("New password", "1 minute", None));
    let list = desk.fails(&["secrets", "list"], 1);
    let row =
        |name: &str| list.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {list}")).to_string();
    assert!(
        row("DATABASE_URL").contains("2026-01-02")
            && row("DATABASE_URL").contains("2026-03-03")
            && row("DATABASE_URL").ends_with("OVERDUE")
    );
    assert!(row("pipeline token").contains("2026-12-01") && row("API key").contains("not recorded"));
    desk.ok(&["secrets", "rotated", "database_url", "--at", "1d ago"]);
    assert!(desk.fails(&["secrets", "rotated", "nobody's"], 2).contains("there are:"));
    let plans = [&plan];
    let at = Time::parse("2026-11-20T00:00:00Z").unwrap();
    let recorded = [("database_url".to_string(), at)].into();
    let in_incidents = [("api key".to_string(), Time::parse("2026-11-19T00:00:00Z").unwrap())].into();
    let rows = SecretRow::all(&plans, &[], &in_incidents, &recorded);
    assert_eq!(
        rows.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["API key", "DATABASE_URL"],
        "what is due first"
    );
    assert_eq!(rows[1].due(), Some(Time::parse("2027-01-19T00:00:00Z").unwrap()));
    assert!(!rows[1].overdue(at) && rows[1].overdue(Time::parse("2027-01-19T00:00:01Z").unwrap()));
    // One that is changed in an incident counts, too.
    desk.incident();
    desk.ok(&["incident", "rotated", "API key"]);
    let list = said(&desk.run(&["secrets", "list"]));
    assert!(!list.lines().find(|l| l.starts_with("API key")).unwrap().contains("not recorded"), "{list}");
}

#[test]
fn any_plan_is_walked_at_a_table_and_nothing_is_executed() {
    let desk = Desk::new("");
    let out = desk.ok(&["drill", "--tabletop", "plan.md", "--unattended", "--report", "out"]);
    for word in [
        "message 1: ALARM: Orders fail",
        "Seen as well: The status page is red",
        "Step 2 “Restore the database” does not work at the first try",
        "half of the RTO has passed (30:00)",
        "the objective is 10:00",
        "step 3: Verify the orders",
        "passed  steps worked           3 of 3 worked",
        "exercise at a table: passed",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&String::from_utf8(desk.run(&["report", "--json"]).stdout).unwrap()).unwrap();
    assert_eq!(report["all"]["tabletops"], serde_json::json!({"good": 1, "of": 1}));
    assert_eq!((&report["all"]["drills"]["of"], &report["all"]["incidents"]), (&0.into(), &0.into()));
    let files = std::fs::read_dir(desk.path().join("out")).unwrap().count();
    assert_eq!(files, 5);
    assert!(desk.fails(&["drill", "--tabletop", "nowhere.md", "--unattended"], 2).contains("nowhere.md"));
    // The plans people really write.
    for (name, text) in breakglass::plan::library::EMBEDDED {
        let plan = parse(name, text.as_bytes()).unwrap();
        let rules = Rules::of(&plan, &plan.scenarios[0]);
        let texts = breakglass::drill::tabletop::messages(&plan, &plan.scenarios[0], &rules);
        assert!(texts.len() >= 6 && texts[0].starts_with("ALARM: "), "{name}: {texts:?}");
        assert!(texts.iter().all(|t| t.chars().count() < 260 && !t.contains("**")), "{name}: {texts:?}");
    }
}

#[test]
fn an_exercise_goes_by_its_own_clock_also_when_the_console_is_left() {
    let desk = Desk::new("");
    let home = desk.path().join("state");
    let (home, plan) = (home.to_str().unwrap(), desk.path().join("plan.md"));
    let envs = [("BREAKGLASS_HOME", home), ("COLORTERM", "truecolor")];
    let args = ["drill", "--tabletop", plan.to_str().unwrap(), "--pace", "2s"];
    let mut first = Pty::breakglass((80, 24), &args, &envs);
    first.wait_text("ALARM: Orders fail");
    first.keys("q");
    first.wait_sane();
    first.wait_text("The exercise");
    assert_eq!(first.wait_exit().code(), Some(0));

    let dir = std::fs::read_dir(desk.path().join("state/incidents")).unwrap().next().unwrap().unwrap().path();
    let brought = || {
        let incident = breakglass::runtime::Incident::open(&dir, Default::default()).unwrap();
        let exercise = incident.state().unwrap().people.tabletop.clone().unwrap();
        (exercise.brought.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), exercise.planned as usize)
    };
    let (left, planned) = brought();
    assert!(!left.is_empty() && left.len() < planned, "left before the end: {left:?} of {planned}");
    // Opened again, also in two consoles at once: all of them come in, each once, in their order.
    let consoles = [(); 2].map(|()| Pty::breakglass((80, 24), &["resume"], &envs));
    let begun = std::time::Instant::now();
    while brought().0.len() < planned {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?} of {planned}", brought().0);
        std::thread::sleep(Duration::from_millis(50));
    }
    let plan = parse("plan.md", PLAN.as_bytes()).unwrap();
    let rules = Rules::of(&plan, &plan.scenarios[0]);
    assert_eq!(brought().0, breakglass::drill::tabletop::messages(&plan, &plan.scenarios[0], &rules));
    consoles[0].wait_text("How do you know");
}
