//! `pitr range|check|restore`, `backup list|verify` through Supabase: asked once, followed, believed on evidence.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use breakglass::action::pitr_restore::Restore;
use breakglass::action::{Action, Ctx, Nowhere};
use breakglass::config::Backend;
use breakglass::config::backend::SupabaseSettings;
use breakglass::config::settings::SUPABASE_TOKEN;
use breakglass::incident::{Command as IncidentCommand, RunRequest, RunStatus};
use breakglass::model::event::{Kind, Outcome};
use breakglass::model::plan::Risk;
use breakglass::model::{Secret, StepId};
use breakglass::runtime::{Opening, RunHealth};
use serde_json::{Value, json};

use super::hosted::{Answer, Day, Hosted, REF, TOKEN};
use super::{Said, program};
use crate::support::cluster::block_on;

/// A responder's machine.
struct Desk {
    dir: tempfile::TempDir,
    hosted: Hosted,
    /// `DATABASE_URL`, when there is one.
    database: Option<String>,
}

/// Quick enough for a test, and no less patient than it must be on a loaded machine.
const PACE: &str = "poll = \"15ms\"\ntimeout = \"60s\"\nsettle = \"60s\"\ndeadline = \"120s\"\n";
/// For those that have to wait in vain.
const IN_VAIN: &str = "poll = \"15ms\"\ntimeout = \"60s\"\nsettle = \"700ms\"\ndeadline = \"900ms\"\n";
const NEWEST: &str = "newest = \"SELECT max(created_at) FROM orders\"\n";
/// A moment in the window, as it is typed.
const MOMENT: &str = "time:2023-11-15T20:00:00.5Z";
/// The last whole second before it.
const SECOND: i64 = 1_700_078_400;

impl Desk {
    fn new(day: Day) -> Self {
        Self::paced(day, &format!("{PACE}{NEWEST}"))
    }
    fn paced(day: Day, pace: &str) -> Self {
        let it = Self { dir: tempfile::tempdir().unwrap(), hosted: Hosted::start(day), database: None };
        it.configure(REF, pace);
        it
    }
    fn configure(&self, project: &str, pace: &str) {
        let text = format!(
            "[recovery]\nbackend = \"supabase\"\n[supabase]\nproject_ref = \"{project}\"\napi_url = \"{}\"\n\
             allow_loopback_http = true\n{pace}",
            self.hosted.url
        );
        std::fs::write(self.config(), text).unwrap();
    }
    fn config(&self) -> PathBuf {
        self.dir.path().join("breakglass.toml")
    }
    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut c = program(self.dir.path(), &self.config(), words);
        c.env("SUPABASE_ACCESS_TOKEN", TOKEN);
        c.envs(self.database.iter().map(|url| ("DATABASE_URL", url)));
        c
    }
    fn run(&self, words: &[&str]) -> Said {
        let said = Said::of(self.command(words).output().unwrap());
        assert!(!said.all().contains(TOKEN) && !said.all().contains("panicked at src"), "{said:?}");
        said
    }
    /// The restore to [`MOMENT`], confirmed.
    fn restore(&self, more: &[&str]) -> Said {
        let mut words = vec!["pitr", "restore", "--to", MOMENT, "--into", "place", "--confirm", REF, "--json"];
        words.extend(more);
        self.run(&words)
    }
    fn record(&self) -> Value {
        let file = self.dir.path().join("requests").join(format!("supabase-{REF}.json"));
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }
    fn change(&self, change: impl FnOnce(&mut Day)) {
        change(&mut self.hosted.day.lock().unwrap());
    }
    /// Begins a restore and waits until it was asked for.
    fn begin(&self) -> Child {
        let words = ["pitr", "restore", "--to", MOMENT, "--into", "place", "--confirm", REF];
        let child = self.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it is asked for", || self.hosted.triggers() > 0);
        child
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_restore_is_asked_for_once_and_believed_when_the_database_proves_it() {
    let d = Desk::new(Day { slow_service: 2, slots: vec!["warehouse"], ..Day::default() });
    let said = d.restore(&[]).is(
        0,
        &[
            "OVERWRITES project abcdefghijklmnopqrst (shop) IN PLACE",
            "everything committed after 2023-11-15T20:00:00",
            "DROP FIRST",
            "warehouse",
            "files of Storage do not come back",
            "accepted (HTTP 201)",
            "waiting for pooler COMING_UP",
        ],
    );
    let json = said.json();
    assert_eq!(json["ending"], "restored", "{json}");
    // Before the moment, in whole seconds; as a number.
    assert_eq!(d.hosted.day.lock().unwrap().triggers, [json!({"recovery_time_target_unix": SECOND})]);
    let checks: Vec<&str> = json["checks"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(checks, ["begun", "status", "database", "server start", "newest row", "connection", "services"]);
    assert_eq!(json["loss"]["window_ms"], (1_700_099_000 - SECOND) * 1000);
    let seen: Vec<&str> = json["seen"].as_array().unwrap().iter().filter_map(|n| n["what"].as_str()).collect();
    assert!(
        seen.contains(&"status RESTORING")
            && seen.contains(&"their name of the request: cf-ray 8c1d, x-request-id req-7f3a"),
        "{seen:?}"
    );
    d.hosted.kept();

    // The very same once more is followed to its known end; only a reason makes it a new request.
    d.restore(&[]).is(0, &["was restored to 2023-11-15T20:00:00", "--again REASON"]);
    assert_eq!(d.hosted.triggers(), 1);
    d.change(|day| day.begun = false);
    d.change(|day| day.statuses = Day::default().statuses);
    d.change(|day| day.restored = false);
    d.restore(&["--again", "the wrong rows were back after an hour"]).is(0, &["ASKS AGAIN"]);
    assert_eq!(d.hosted.triggers(), 2);
}

#[test]
fn whole_seconds_keep_to_their_side_of_the_moment() {
    let to = |words: &[&str]| {
        let d = Desk::new(Day::default());
        let mut all = vec!["pitr", "restore", "--into", "place", "--confirm", REF];
        all.extend(words);
        d.run(&all).is(0, &["is restored to"]);
        let day = d.hosted.day.lock().unwrap();
        day.triggers[0]["recovery_time_target_unix"].as_i64().unwrap()
    };
    // On the second itself a commit of that very instant would be kept.
    assert_eq!(to(&["--to", "time:2023-11-15T20:00:00Z"]), SECOND - 1);
    assert_eq!(to(&["--to-after", "time:2023-11-15T20:00:00.5Z"]), SECOND + 1);
    assert_eq!(to(&["--to", "latest"]), 1_700_100_000);
}

#[test]
fn nothing_is_asked_without_its_name_and_without_saying_in_place() {
    let d = Desk::new(Day::default());
    let at = ["pitr", "restore", "--to", MOMENT];
    d.run(&at).is(4, &["cannot build an instance beside", "--into place"]);
    d.run(&[&at[..], &["--into", "place"]].concat()).is(4, &["no terminal can ask", REF]);
    d.run(&[&at[..], &["--into", "place", "--confirm", "shop"]].concat()).is(4, &["\"shop\"", REF]);
    d.run(&["pitr", "restore", "--to", "xid:73114", "--into", "place", "--confirm", REF])
        .is(2, &["cannot recover to xid:73114", "only time and latest", "time just before the damage"]);
    d.run(&["pitr", "restore", "--to", "time:2999-01-01T00:00:00Z", "--into", "place", "--confirm", REF])
        .is(4, &["in the future"]);
    d.run(&["pitr", "restore", "--to", "2023-11-15 20:00:00", "--into", "place", "--confirm", REF])
        .is(2, &["time zone"]);
    assert_eq!(d.hosted.triggers(), 0);
    // The word alone is not believed from a plan, either.
    let out = d.run(&["pitr", "restore", "--to", MOMENT, "--again", "x"]);
    out.is(4, &["cannot build an instance beside"]);
}

#[test]
fn range_check_and_list_say_what_there_is() {
    let d = Desk::new(Day::default());
    let range = d
        .run(&["pitr", "range", "--json"])
        .is(0, &["2023-11-14T22:13:20", "idle database", "cannot    build an instance"]);
    assert_eq!(range.json()["latest"], "2023-11-16T02:00:00.000000Z");
    assert_eq!(range.json()["abilities"]["in_place"], true);
    d.run(&["pitr", "check", "--to", MOMENT]).is(0, &["IN PLACE", "can be recovered to"]);
    d.run(&["pitr", "check", "--to", "time:2023-11-01T00:00:00Z"])
        .is(1, &["before the earliest moment", "2023-11-14T22:13:20"]);
    d.run(&["pitr", "check", "--to", "time:2023-11-17T00:00:00Z"])
        .is(1, &["after the latest moment", "2023-11-16T02:00:00"]);
    let list = d.run(&["backup", "list", "--json"]).is(0, &[]);
    assert_eq!(list.json()["backups"][0]["id"], 4711);
    d.run(&["backup", "verify"]).is(2, &["cannot be verified from outside", "new project"]);
    d.change(|day| day.pitr = false);
    d.run(&["pitr", "check", "--to", MOMENT]).is(1, &["not enabled", "1 daily backups"]);
    d.run(&["pitr", "range"]).is(1, &["only a daily backup", "4711"]);
    d.hosted.kept();
}

#[test]
fn a_window_that_lags_is_waited_for_and_one_that_stands_still_is_said() {
    let late = ["pitr", "restore", "--to", "time:2023-11-16T02:00:30.5Z", "--into", "place", "--confirm", REF];
    // The preview does not wait, so what is asked for is looked at once more before it is asked.
    let d = Desk::new(Day { moves: 10, latest: 1_700_100_015, ..Day::default() });
    d.run(&late).is(0, &["is restored to 2023-11-16T02:00:30"]);
    assert_eq!(d.hosted.triggers(), 1);
    let d = Desk::paced(Day::default(), IN_VAIN);
    d.run(&late).is(4, &["after the latest moment", "stands still", "--to time:2023-11-16T02:00:01"]);
    assert_eq!(d.hosted.triggers(), 0);
}

#[test]
fn every_refusal_has_words_of_its_own_and_leaves_nothing_open() {
    for (answer, code, words) in [
        (Answer::Refused(400, "PITR is not enabled for this project."), 3, "is an add-on"),
        (Answer::Refused(400, "Recovery time target must be within range: 1 <= t <= 2"), 3, "inside the window"),
        (
            Answer::Refused(400, "Failed to check for major version of database. Database appears to be unreachable"),
            3,
            "restart the project first",
        ),
        (Answer::Refused(401, "Unauthorized"), 2, "make a new one"),
        (Answer::Refused(403, "Forbidden"), 2, "owner or administrator"),
        (Answer::Refused(404, "Not Found"), 2, "no such project"),
        (Answer::TooMany, 3, "try again in 17 s"),
        (Answer::Page(302), 2, "never followed"),
    ] {
        let d = Desk::new(Day { answer, begins: false, ..Day::default() });
        d.restore(&[]).is(code, &[words, "nothing was restored"]);
        assert_eq!(d.hosted.triggers(), 1, "{answer:?}");
        assert_eq!(d.record()["stage"], "declined");
        d.hosted.kept();
        // A definite no does not stand in the way of another try.
        d.change(|day| day.answer = Answer::Created);
        d.change(|day| day.begins = true);
        d.restore(&[]).is(0, &["is restored to"]);
        assert_eq!(d.hosted.triggers(), 2);
    }
}

#[test]
fn reads_that_fail_are_said_and_a_rate_limit_is_waited_for() {
    for (reads, code, words) in [
        ((401, "Unauthorized"), 2, "SUPABASE_ACCESS_TOKEN"),
        ((403, "Forbidden"), 2, "owner or administrator"),
        ((500, "Internal"), 3, "status.supabase.com"),
        ((502, "Bad gateway"), 3, "status.supabase.com"),
    ] {
        let d = Desk::new(Day { reads: Some(reads), ..Day::default() });
        d.restore(&[]).is(code, &[words]);
        assert_eq!(d.hosted.triggers(), 0);
    }
    let d = Desk::new(Day { limited: 2, ..Day::default() });
    d.run(&["pitr", "range"]).is(0, &["2023-11-16"]);
    let d = Desk::new(Day { limited: 1000, ..Day::default() });
    d.run(&["pitr", "range"]).is(3, &["120 requests a minute"]);
    for (status, words) in
        [("INACTIVE", "paused"), ("RESTORING", "being restored already"), ("UPGRADING", "its status is UPGRADING")]
    {
        let d = Desk::new(Day { status, ..Day::default() });
        d.restore(&[]).is(4, &[words]);
        assert_eq!(d.hosted.triggers(), 0);
    }
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_sent() {
    let d = Desk::new(Day::default());
    d.configure("not-a-project", PACE);
    d.run(&["pitr", "range"]).is(2, &["\"not-a-project\"", "20 lower-case letters"]);
    d.configure("zzzzzzzzzzzzzzzzzzzz", PACE);
    d.run(&["pitr", "range"]).is(2, &["owner or administrator"]);
    let text = std::fs::read_to_string(d.config()).unwrap();
    std::fs::write(d.config(), text.replace("allow_loopback_http = true\n", "")).unwrap();
    d.run(&["pitr", "range"]).is(2, &["only https"]);
    std::fs::write(d.config(), text.replace(&d.hosted.url, "http://api.example.org")).unwrap();
    d.run(&["pitr", "range"]).is(2, &["only https"]);
    std::fs::write(d.config(), text.replace(&d.hosted.url, "http://127.0.0.1:1")).unwrap();
    d.run(&["pitr", "range"]).is(3, &["cannot be reached", "nothing was sent"]);
    std::fs::write(d.config(), "[recovery]\nbackend = \"supabse\"\n").unwrap();
    d.run(&["pitr", "range"]).is(2, &["breakglass.toml:2", "native, pgbackrest, supabase"]);
    d.configure(REF, PACE);
    let mut c = program(d.dir.path(), &d.config(), &["pitr", "range"]);
    Said::of(c.output().unwrap()).is(2, &["SUPABASE_ACCESS_TOKEN"]);
    // Another token is told from ours by the server.
    c.env("SUPABASE_ACCESS_TOKEN", "sbp_ffffffffffffffffffffffffffffffffffffffff");
    Said::of(c.output().unwrap()).is(2, &["not accepted"]);
}

#[test]
fn a_lost_answer_is_looked_up_and_never_asked_again() {
    // The restore goes on although the answer was lost, in each of the ways it can be.
    for answer in
        [Answer::Cut, Answer::Refused(500, "Internal"), Answer::Page(502), Answer::Refused(504, "Gateway timeout")]
    {
        let d = Desk::new(Day { answer, ..Day::default() });
        d.change(|day| day.begun = false);
        if let Answer::Refused(..) = answer {
            // An error after the effect.
            d.change(|day| {
                day.answer = Answer::Page(if answer == Answer::Refused(500, "Internal") { 500 } else { 504 })
            });
        }
        d.restore(&[]).is(0, &["NO CLEAR ANSWER", "is restored to"]);
        assert_eq!(d.hosted.triggers(), 1, "{answer:?}");
        d.hosted.kept();
    }
    // And when nothing came of it nobody claims to know.
    let d = Desk::paced(Day { answer: Answer::Cut, begins: false, ..Day::default() }, IN_VAIN);
    d.restore(&[]).is(3, &["NOT KNOWN", "--again REASON", "no_sign"]);
    assert_eq!(d.record()["stage"], "unclear");
    // Once more looks, and does not ask.
    d.restore(&[]).is(3, &["nothing is sent", "NOT KNOWN"]);
    // Nor for another moment.
    let other = ["pitr", "restore", "--to", "time:2023-11-15T00:00:00Z", "--into", "place", "--confirm", REF];
    d.run(&other).is(
        4,
        &[
            "asked for a restore already",
            "is not known to have ended",
            "--to time:2023-11-15T20:00:01",
            "--again REASON",
        ],
    );
    assert_eq!(d.hosted.triggers(), 1);
    // Asked again and declined: what was asked first may be going on still, and is what is followed.
    let first = d.record();
    d.change(|day| day.answer = Answer::Refused(403, "Forbidden"));
    d.restore(&["--again", "it is quiet"])
        .is(2, &["nothing was restored", "on record as before", "to follow that one"]);
    let record = d.record();
    assert_eq!((&record["stage"], &record["requested_at"]), (&first["stage"], &first["requested_at"]), "{record}");
    assert!(record["seen"].to_string().contains("it is quiet") && record["seen"].to_string().contains("declined"));
    d.restore(&[]).is(3, &["nothing is sent", "NOT KNOWN"]);
    assert_eq!(d.hosted.triggers(), 2);
    // A person who knows better says so, and that is kept.
    d.change(|day| day.answer = Answer::Created);
    d.change(|day| day.begins = true);
    d.restore(&["--again", "support says nothing was begun"]).is(0, &["is restored to"]);
    assert_eq!(d.hosted.triggers(), 3);
    assert!(d.record()["seen"].to_string().contains("support says nothing was begun"));
}

#[test]
fn a_server_that_never_answers_costs_one_request() {
    let pace = PACE.replace("timeout = \"60s\"", "timeout = \"5s\"");
    let d = Desk::paced(Day { answer: Answer::Silence, ..Day::default() }, &format!("{pace}{NEWEST}"));
    d.restore(&[]).is(0, &["no answer within 5 s", "is restored to"]);
    assert_eq!(d.hosted.triggers(), 1);
    // One that never stops answering said yes all the same.
    let d = Desk::paced(Day { answer: Answer::Drip, ..Day::default() }, &format!("{pace}{NEWEST}"));
    d.restore(&[]).is(0, &["accepted (HTTP 201)", "is restored to"]);
    assert_eq!(d.hosted.triggers(), 1);
}

#[test]
fn a_status_that_stays_healthy_proves_nothing() {
    // Accepted, and nothing ever happens.
    let still = || Day { begins: false, ..Day::default() };
    let d = Desk::paced(still(), IN_VAIN);
    let said = d
        .restore(&[])
        .is(3, &["STUCK", "nothing shows that a restore was begun", "PLAN B", "packet for Supabase's support"]);
    let json = said.json();
    let packet = std::fs::read_to_string(json["packet"].as_str().unwrap()).unwrap();
    for part in [
        REF,
        "recovery_time_target_unix`: 1700078400",
        "status ACTIVE_HEALTHY",
        "x-request-id req-7f3a",
        "restore-pitr → 201",
        "asked at (UTC): 20",
    ] {
        assert!(packet.contains(part), "{part:?} is not in {packet}");
    }
    assert!(!packet.contains(TOKEN) && !packet.contains("sbp_"), "{packet}");
    // To look on is not to ask.
    d.restore(&[]).is(3, &["nothing is sent", "STUCK"]);
    assert_eq!(d.hosted.triggers(), 1);

    // It was away in another way, and its server was started anew: a restart is no restore.
    let restart = ["ACTIVE_HEALTHY", "RESTARTING", "ACTIVE_HEALTHY"].into();
    let d = Desk::paced(Day { statuses: restart, restores: false, ..Day::default() }, &format!("{IN_VAIN}{NEWEST}"));
    d.restore(&[]).is(3, &["STUCK", "begun"]);

    // Never told away, and yet the database proves it: a quick restore between two looks.
    let quick = ["ACTIVE_HEALTHY"].into();
    let d = Desk::new(Day { statuses: quick, ..Day::default() });
    d.restore(&[]).is(0, &["is restored to", "the timeline is 4"]);
}

#[test]
fn a_dead_host_and_rows_from_after_the_moment_are_no_success() {
    let d = Desk::paced(Day { dies: true, ..Day::default() }, IN_VAIN);
    d.restore(&[]).is(3, &["STUCK", "database (does not answer)"]);
    // Its status was away and is back, its server is as it was: nothing was restored.
    let d = Desk::paced(Day { restores: false, ..Day::default() }, &format!("{IN_VAIN}{NEWEST}"));
    d.restore(&[]).is(3, &["STUCK", "server start", "newest row"]);
    // The API says so, but the database's users do not reach it.
    let mut d = Desk::paced(Day::default(), &format!("{IN_VAIN}{NEWEST}"));
    d.database = Some("postgres://postgres:hunter22@127.0.0.1:1/postgres".into());
    let said = d.restore(&[]).is(3, &["STUCK", "connection"]);
    assert!(!said.all().contains("hunter22"));
}

#[test]
fn a_restore_that_fails_or_hangs_leads_to_plan_b() {
    let failed = ["RESTORING", "RESTORE_FAILED"].into();
    let d = Desk::new(Day { statuses: failed, restores: false, ..Day::default() });
    d.restore(&[]).is(3, &["FAILED", "RESTORE_FAILED", "PLAN B", "new project"]);
    assert_eq!(d.record()["stage"], "failed");
    let said = d.restore(&[]).is(4, &["which failed", "--again REASON"]);
    assert!(!said.all().contains("to follow that one"), "{said:?}");
    assert_eq!(d.hosted.triggers(), 1);

    let hangs = ["RESTORING"].into();
    let d = Desk::paced(Day { statuses: hangs, restores: false, ..Day::default() }, IN_VAIN);
    d.restore(&[]).is(3, &["STUCK", "RESTORING", "PLAN B", "dashboard/support/new"]);
    // After a day it ends after all: whoever looks on sees it.
    d.change(|day| day.statuses = ["ACTIVE_HEALTHY"].into());
    d.change(|day| day.restores = true);
    d.restore(&["--deadline", "2m"]).is(0, &["is restored to"]);
    assert_eq!(d.hosted.triggers(), 1);
    // A word that nobody knows is neither good nor bad.
    let odd = ["RESTORING", "DEFROSTING", "ACTIVE_HEALTHY"].into();
    let d = Desk::new(Day { statuses: odd, ..Day::default() });
    d.restore(&[]).is(0, &["DEFROSTING", "is restored to"]);
}

#[test]
fn whoever_dies_while_asking_or_following_asks_no_second_time() {
    // Killed before the answer was there: on record is only what was about to be sent.
    let d = Desk::new(Day { answer: Answer::Silence, ..Day::default() });
    let mut child = d.begin();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(d.record()["stage"], "intended");
    d.restore(&[]).is(0, &["asked for at", "nothing is sent", "is restored to"]);
    assert_eq!(d.hosted.triggers(), 1);

    // Killed while following; the token is taken away meanwhile, too.
    let d = Desk::new(Day { statuses: ["RESTORING"].into(), restores: false, ..Day::default() });
    let mut child = d.begin();
    until("it is seen to restore", || d.record()["seen_restoring"] == true);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(d.record()["stage"], "accepted");
    d.change(|day| day.statuses = ["ACTIVE_HEALTHY"].into());
    d.change(|day| day.restores = true);
    d.change(|day| day.newest = SECOND);
    d.restore(&[]).is(0, &["nothing is sent", "is restored to"]);
    assert_eq!(d.hosted.triggers(), 1);
}

#[test]
fn in_an_incident_the_gates_stand_before_it_and_a_dead_worker_is_followed_not_repeated() {
    let hosted = Hosted::start(Day { answer: Answer::Silence, ..Day::default() });
    let mut d = crate::runtime::Desk::new();
    d.incident = d.store.create(Opening { kind: Kind::Real, ..crate::runtime::opening() }).unwrap();
    let settings = &mut d.job.settings;
    settings.backend = Backend::Supabase;
    settings.requests = Some(d.home.path().join("requests"));
    settings.supabase = SupabaseSettings {
        project_ref: Some(REF.into()),
        api_url: hosted.url.clone(),
        allow_loopback_http: true,
        newest: Some("SELECT max(created_at) FROM orders".into()),
        poll_ms: 15,
        ..SupabaseSettings::default()
    };
    d.secrets.set(SUPABASE_TOKEN, Secret::new(TOKEN));
    let args: Vec<String> = ["--to", MOMENT, "--into", "place"].map(String::from).into();
    let request = |confirmed: &str| RunRequest {
        action: "pitr restore".into(),
        shown: "breakglass pitr restore".into(),
        args: args.clone(),
        risk: Restore.risk(&args),
        confirmed: Some(confirmed.into()),
        step: Some(StepId::new("s1")),
        block_line: None,
    };
    assert_eq!(Restore.risk(&args), Risk::Destroy);
    // What is looked at first says whom it is about.
    let ctx = Ctx::new(d.job.settings.clone(), d.secrets.clone(), Arc::new(Nowhere));
    let preview = block_on(Restore.preview(&ctx, &args)).unwrap();
    assert_eq!(preview.target.unwrap().database, REF);
    d.incident.submit(IncidentCommand::Observe { facts: preview.facts }).unwrap();
    let start = |d: &mut crate::runtime::Desk, name: &str| {
        breakglass::runtime::start_run(&mut d.incident, request(name), &d.job, &d.secrets, &d.program)
    };
    // No verified backup, then the wrong name: nothing is started.
    let refused = format!("{:?}", start(&mut d, REF).unwrap_err());
    assert!(refused.contains("verified_backup"), "{refused}");
    let reason = "Supabase keeps the backups".to_string();
    d.incident.submit(IncidentCommand::Waive { gate: "verified_backup".into(), reason, step: None }).unwrap();
    let refused = format!("{:?}", start(&mut d, "shop").unwrap_err());
    assert!(refused.contains(REF), "{refused}");
    assert_eq!(hosted.triggers(), 0);

    let (run, pid) = start(&mut d, REF).unwrap();
    until("it is asked for", || hosted.triggers() > 0);
    crate::runtime::kill_9(pid.unwrap());
    until("its worker is missed", || d.health(run, Duration::ZERO).is_some_and(|h| h == RunHealth::Unknown));
    // Nobody takes it for done or for undone.
    let found = d.incident.state().unwrap().runs.get(&run).unwrap().status;
    assert_eq!(found, RunStatus::Unknown);
    let resolve = IncidentCommand::ResolveRun { run, outcome: Outcome::Failed, reason: "its worker died".into() };
    d.incident.submit(resolve).unwrap();
    let (again, started) = start(&mut d, REF).unwrap();
    started.unwrap();
    let ended = d.ended(again);
    let output = d.output(again);
    assert!(output.contains("nothing is sent") && output.contains("server start"), "{output}");
    assert_eq!(ended.status, RunStatus::Finished(Outcome::Succeeded), "{output}");
    assert!(!output.contains(TOKEN));
    assert_eq!(hosted.triggers(), 1);
    let facts = &d.incident.state().unwrap().facts;
    assert!(facts.loss.is_some(), "the loss is on record");
}

#[test]
fn two_who_ask_at_once_ask_once() {
    let d = Desk::new(Day::default());
    let words = ["pitr", "restore", "--to", MOMENT, "--into", "place", "--confirm", REF];
    let both: Vec<Child> =
        (0..4).map(|_| d.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    for child in both {
        Said::of(child.wait_with_output().unwrap()).is(0, &["restored to 2023-11-15T20:00:00"]);
    }
    assert_eq!(d.hosted.triggers(), 1);
}

#[test]
fn whoever_follows_an_older_request_leaves_the_record_to_the_newer_one() {
    let d = Desk::new(Day { begins: false, ..Day::default() });
    let words = ["pitr", "restore", "--to", MOMENT, "--into", "place", "--confirm", REF];
    let start = |more: &[&str]| {
        d.command(&[&words[..], more].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let older = start(&[]);
    until("it is followed", || d.hosted.triggers() == 1 && d.record()["stage"] == "accepted");
    let newer = start(&["--again", "nothing was begun"]);
    until("it is asked again", || d.hosted.triggers() == 2 && d.record()["stage"] == "accepted");
    let asked = d.record()["requested_at"].clone();
    // Now it begins, and both see it.
    d.change(|day| (day.newest, day.begun) = (SECOND, true));
    Said::of(older.wait_with_output().unwrap()).is(3, &["was asked again meanwhile", "to follow that one"]);
    Said::of(newer.wait_with_output().unwrap()).is(0, &["is restored to"]);
    assert_eq!((&d.record()["requested_at"], &d.record()["stage"]), (&asked, &"restored".into()), "{}", d.record());
    assert_eq!(d.hosted.triggers(), 2);
}

#[test]
fn a_record_that_cannot_be_read_keeps_anybody_from_asking() {
    let d = Desk::new(Day::default());
    std::fs::create_dir(d.dir.path().join("requests")).unwrap();
    std::fs::write(d.dir.path().join("requests").join(format!("supabase-{REF}.json")), "{").unwrap();
    d.restore(&[]).is(3, &["record of an earlier request", "move that file away"]);
    assert_eq!(d.hosted.triggers(), 0);
}
