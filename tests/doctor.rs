//! `breakglass doctor` through the real program, against a real cluster with its repository.

use serde_json::Value;

use crate::bad_input::Desk;
use crate::support::archived::{Archived, PASSPHRASE};

fn database_url(a: &Archived) -> String {
    let at = a.cluster.database("postgres");
    format!("postgres://{}@localhost:{}/postgres?host={}", at.user(), at.port(), at.host())
}

/// The findings of one level, as `area: what`.
fn of(report: &Value, level: &str) -> Vec<String> {
    let all = report["checks"].as_array().unwrap();
    all.iter()
        .filter(|c| c["level"] == level)
        .map(|c| format!("{}: {}", c["area"].as_str().unwrap(), c["what"].as_str().unwrap()))
        .collect()
}

fn doctor(desk: &Desk, env: &[(&str, &str)]) -> (Option<i32>, Value, String) {
    let out = desk.command(&["doctor", "--json"]).envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}")), text)
}

#[test]
fn with_nothing_configured_it_says_what_is_missing_and_how_to_set_it() {
    let desk = Desk::new();
    let ran = desk.run(&["doctor"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for text in ["✗ database", "set DATABASE_URL", "✗ repository", "set BACKUP_DIR", "! configuration", "not ready: "]
    {
        assert!(ran.stdout.contains(text), "{text:?} is not in {ran:?}");
    }
}

#[test]
fn a_cluster_that_can_be_recovered_is_ready_and_what_is_not_is_a_problem() {
    let a = Archived::start("doctor");
    let desk = Desk::new();
    let url = database_url(&a);
    let repository = a.repository.display().to_string();
    let env = |key: &'static str| {
        vec![
            ("DATABASE_URL", url.clone()),
            ("BACKUP_DIR", repository.clone()),
            ("BACKUP_ENCRYPTION_KEY", key.to_string()),
        ]
    };
    let ask = |key: &'static str| {
        let env = env(key);
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        doctor(&desk, &env)
    };

    // Archiving works, and there is no backup to begin from.
    a.archive_now();
    let (code, report, _) = ask(PASSPHRASE);
    assert_eq!(
        (code, of(&report, "problem")),
        (Some(1), vec!["repository: holds no base backup".to_string()]),
        "{report:#}"
    );

    // A backup that nobody has verified does not count.
    let id = a.base_backup();
    a.archive_now();
    let (code, report, _) = ask(PASSPHRASE);
    let problems = of(&report, "problem");
    assert!(code == Some(1) && problems.len() == 1 && problems[0].contains("never verified"), "{report:#}");

    let env_pairs = env(PASSPHRASE);
    let verified =
        desk.command(&["backup", "verify", &id]).envs(env_pairs.iter().map(|(k, v)| (*k, v))).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stderr));
    let (code, report, text) = ask(PASSPHRASE);
    assert_eq!((code, &report["ready"]), (Some(0), &Value::Bool(true)), "{report:#}");
    // The service itself was not asked: that all else is well says nothing of it.
    let health = desk.command(&["health"]).envs(env_pairs.iter().map(|(k, v)| (*k, v))).output().unwrap();
    let said = String::from_utf8_lossy(&health.stdout);
    assert!(health.status.code() == Some(0) && said.contains("no health check of the service is configured"), "{said}");
    let alone = |report: &Value| of(report, "warning").iter().any(|w| w.contains("no second recipient"));
    assert!(alone(&report), "{report:#}");
    let second = desk
        .command(&["backup", "rotate-key", "--new-recipient", "second.key"])
        .envs(env_pairs.iter().map(|(k, v)| (*k, v)))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(!alone(&ask(PASSPHRASE).1), "there is one now");
    assert!(!text.contains(PASSPHRASE), "the key is shown");

    // Somebody puts a key of their own into repository.json: whoever asks, with the key or without it, hears of it, and it is
    // recommended to nobody.
    let info = a.repository.join("repository.json");
    let ours = std::fs::read(&info).unwrap();
    let strangers = desk.path("cwd").join("strangers").display().to_string();
    let made = breakglass::backup::repository::Repository::init(
        &strangers,
        &breakglass::model::Secret::new("the passphrase of somebody else altogether"),
        &breakglass::backup::repository::InitOptions::default(),
    );
    made.unwrap();
    let mut edited: Value = serde_json::from_slice(&ours).unwrap();
    let theirs: Value =
        serde_json::from_slice(&std::fs::read(format!("{strangers}/repository.json")).unwrap()).unwrap();
    for member in ["recipient", "signer"] {
        edited[member] = theirs[member].clone();
    }
    std::fs::write(&info, serde_json::to_vec(&edited).unwrap()).unwrap();
    let stranger = breakglass::backup::repository::Repository::open(&repository).unwrap().key_id();
    let without = [("DATABASE_URL", url.as_str()), ("BACKUP_DIR", repository.as_str())];
    let (code, report, text) = doctor(&desk, &without);
    let problems = of(&report, "problem").join("\n");
    assert_eq!(code, Some(1), "{report:#}");
    assert!(
        problems.contains("names another key than the one known here") && problems.contains(&stranger),
        "{report:#}"
    );
    assert!(problems.contains("archive_command is for key"), "{report:#}");
    assert!(!text.contains(&format!("--key-id {stranger}")), "a stranger's key is recommended: {report:#}");
    let (_, report, text) = ask(PASSPHRASE);
    assert!(of(&report, "problem").join("\n").contains("none of the key file's"), "{report:#}");
    assert!(!text.contains(&format!("--key-id {stranger}")), "{report:#}");
    let status = desk.command(&["wal", "status"]).envs(without).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.code() == Some(1) && said.contains("PROBLEM") && said.contains("another key"), "{said}");
    std::fs::write(&info, ours).unwrap();
    let status = desk.command(&["wal", "status"]).envs(without).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.code() == Some(0) && said.contains("as it was seen here on"), "{said}");
    // Who has never seen it is told how to check it before it is named anywhere.
    let stranger_to_it = Desk::new();
    let (_, report, _) = doctor(&stranger_to_it, &without);
    let unknown = of(&report, "warning").join("\n");
    assert!(
        unknown.contains("nothing here says that key") && report.to_string().contains("before you name it"),
        "{report:#}"
    );

    // Nothing archives: that is said, with what to set, and no exposure of zero.
    a.cluster.sql("postgres", "alter system set archive_command = ''");
    a.cluster.sql("postgres", "select pg_reload_conf()");
    let deadline = std::time::Instant::now() + crate::support::cluster::LIMIT;
    while !a.cluster.sql("postgres", "show archive_command").is_empty() {
        assert!(std::time::Instant::now() < deadline, "the setting is not taken");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (code, report, text) = ask(PASSPHRASE);
    let problems = of(&report, "problem").join("\n");
    assert!(code == Some(1) && problems.contains("nothing archives the log"), "{report:#}");
    assert!(!text.contains("exposure 0:00") && !text.contains("another tool"), "{report:#}");
    assert!(
        report.to_string().contains("archive_command = 'exec")
            || report.to_string().contains("wal archive --repository"),
        "{report:#}"
    );
    let status = desk.command(&["wal", "status"]).envs(without).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.code() == Some(1) && said.contains("archive_command is empty"), "{said}");
    // The program under another name: it recommends itself by that, and a command that calls one that is gone is told; one that calls
    // it by its new name is no other tool's.
    let program = std::path::Path::new(crate::bad_input::PROGRAM);
    let renamed = program.with_file_name(format!("bg-{}", std::process::id()));
    std::fs::hard_link(program, &renamed).unwrap();
    for (called, told) in [("/gone/breakglass", true), (renamed.to_str().unwrap(), false)] {
        let command = format!("''{called}'' wal archive --repository {repository} %p");
        a.cluster.sql("postgres", &format!("alter system set archive_command = '{command}'"));
        a.cluster.sql("postgres", "select pg_reload_conf()");
        while !a.cluster.sql("postgres", "show archive_command").contains(called) {
            assert!(std::time::Instant::now() < deadline, "the setting is not taken");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut c = std::process::Command::new(&renamed);
        c.args(["doctor", "--json"]).env_clear().envs(desk.envs()).envs(env_pairs.iter().map(|(k, v)| (*k, v)));
        let out = c.current_dir(desk.path("cwd")).output().unwrap();
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        let gone = of(&report, "problem").iter().any(|p| p.contains("calls /gone/breakglass, which is not there"));
        assert_eq!(gone, told, "{report:#}");
        assert!(report.to_string().contains(&format!("'{}'", renamed.display())), "{report:#}");
        assert!(!report.to_string().contains("another tool"), "{report:#}");
    }
    std::fs::remove_file(&renamed).unwrap();
    a.cluster.sql("postgres", "alter system reset archive_command");
    a.cluster.sql("postgres", "select pg_reload_conf()");
    while a.cluster.sql("postgres", "show archive_command").is_empty() {
        assert!(std::time::Instant::now() < deadline, "the setting is not taken");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    // The key of another repository.
    let (code, report, _) = ask("another key that is long enough 0123456789");
    assert_eq!(code, Some(1));
    assert!(of(&report, "problem").iter().any(|p| p.starts_with("repository: ")), "{report:#}");

    // A hole, and a database that is gone.
    let lost = a.archive_now();
    a.cluster.sql("postgres", "select pg_logical_emit_message(true, 'doctor', 'more log')");
    a.archive_now();
    let mut gone = 0;
    for entry in walk(&a.repository) {
        if entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&lost)) {
            std::fs::remove_file(&entry).unwrap();
            gone += 1;
        }
    }
    assert!(gone > 0, "{lost} is not in the repository");
    a.cluster.instance.stop(breakglass::postgres::Stop::Fast, crate::support::cluster::LIMIT).unwrap();
    let (code, report, _) = ask(PASSPHRASE);
    let problems = of(&report, "problem").join("\n");
    assert_eq!(code, Some(1));
    assert!(problems.contains("has a hole") && problems.contains(&lost), "{report:#}");
    assert!(problems.contains("cannot connect"), "{report:#}");
}

/// Wherever the log goes that is not here: nowhere, or into a copy of the repository.
#[test]
fn a_log_that_is_kept_nowhere_or_elsewhere_is_a_problem() {
    use crate::support::cluster::{Cluster, LIMIT};
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("repository").display().to_string();
    let (repository, ..) = crate::backup::repository(dir.path());
    std::fs::rename(dir.path().join("repo"), &place).unwrap();
    drop(repository);
    let c = Cluster::start("nowhere", &[("archive_mode", "on"), ("archive_command", "/bin/true")]);
    c.sql("postgres", "create table t (n int); insert into t values (1)");
    c.sql("postgres", "select pg_switch_wal()");
    let until = |sql: &str| {
        let deadline = std::time::Instant::now() + LIMIT;
        while c.sql("postgres", sql) != "t" {
            assert!(std::time::Instant::now() < deadline, "{sql}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    until("select archived_count > 0 from pg_stat_archiver");
    let desk = Desk::new();
    let at = c.database("postgres");
    let url = format!("postgres://{}@localhost:{}/postgres?host={}", at.user(), at.port(), at.host());
    let env =
        [("DATABASE_URL", url.as_str()), ("BACKUP_DIR", &place), ("BACKUP_ENCRYPTION_KEY", crate::backup::PASSPHRASE)];
    for command in ["/bin/true", ":", "exit 0", "true # %p"] {
        c.sql("postgres", &format!("alter system set archive_command = '{command}'"));
        c.sql("postgres", "select pg_reload_conf()");
        until(&format!("select current_setting('archive_command') = '{command}'"));
        let (code, report, text) = doctor(&desk, &env);
        let problems = of(&report, "problem").join("\n");
        assert!(code == Some(1) && problems.contains("stores none"), "{command}: {report:#}");
        assert!(
            text.contains("wal archive --repository") && !text.contains("exposure at most"),
            "{command}: {report:#}"
        );
        let status = desk.command(&["wal", "status"]).envs(env).output().unwrap();
        let said = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.code() == Some(1) && said.contains("stores none"), "{command}: {said}");
    }
    // Another tool's: what it stores is not here.
    c.sql("postgres", "alter system set archive_command = 'test -f %p'");
    c.sql("postgres", "select pg_reload_conf()");
    until("select current_setting('archive_command') = 'test -f %p'");
    let (_, report, _) = doctor(&desk, &env);
    assert!(of(&report, "problem").join("\n").contains("the repository holds nothing of its log"), "{report:#}");
    // A copy has the same id.
    let copied = desk.command(&["backup", "copy", "--to", "copy"]).envs(env).output().unwrap();
    assert_eq!(copied.status.code(), Some(0), "{}", String::from_utf8_lossy(&copied.stderr));
    let copy = desk.path("cwd").join("copy").display().to_string();
    c.sql("postgres", &format!("alter system set archive_command = 'breakglass wal archive --repository {copy} %p'"));
    c.sql("postgres", "select pg_reload_conf()");
    until(&format!("select current_setting('archive_command') like '%{copy}%'"));
    let (_, report, _) = doctor(&desk, &env);
    assert!(of(&report, "problem").join("\n").contains(&copy), "{report:#}");
}

#[test]
fn the_configuration_counts_where_people_ask() {
    let a = Archived::start("configured");
    a.archive_now();
    let desk = Desk::new();
    desk.file("corr.md", "# Ours\n\n## Scenario 1: Lost index\n\n**RTO**: 1 hour\n\n1. Look\n2. Build it again\n");
    let toml = |more: &str| {
        let url = a.repository.display();
        desk.file(
            "breakglass.toml",
            format!("plans = [\"corr.md\", \"gone.md\"]\n[repository]\nurl = \"{url}\"\n{more}"),
        );
    };
    toml("");
    // A plan that is named and not there is said; the others are listed, with the built-in ones.
    let ran = desk.run(&["plan", "list"]);
    assert!(
        ran.code == Some(0) && ran.stdout.contains("lost-index") && ran.stdout.contains("database-corruption"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("gone.md"), "{ran:?}");
    let ran = desk.run(&["wal", "status"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("timeline 1"), "{ran:?}");

    // Healthy is not enough when it is another one than is meant.
    let url = database_url(&a);
    toml("[target.expect]\ndatabase = \"shop\"\n");
    let out = desk.command(&["health", "--json"]).env("DATABASE_URL", &url).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.code() == Some(1) && text.contains("unexpected") && text.contains("shop"), "{text}");

    // Where the log cannot be looked at, no suspect is offered, unless a person says from when to search the rows.
    toml("");
    a.base_backup();
    a.archive_now();
    let locate = |more: &[&str]| {
        let args: Vec<&str> = ["pitr", "locate", "--json"].iter().chain(more).copied().collect();
        let mut command = desk.command(&args);
        command.env("DATABASE_URL", &url).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).env("TMPDIR", desk.path("nowhere"));
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, said) = locate(&[]);
    assert!(
        code == Some(3) && said.contains("nowhere") && said.contains("--since") && !said.contains("candidates"),
        "{code:?} {said}"
    );
    let (code, said) = locate(&["--since", "1h"]);
    assert!(code == Some(1) && said.contains("candidates"), "{code:?} {said}");
}

#[test]
fn an_incident_that_lost_its_journal_is_not_passed_over() {
    let desk = Desk::new();
    let incident = desk.incident();
    let dir = desk.store().incident_dir(incident.id());
    std::fs::create_dir_all(dir.join("runs")).unwrap();
    drop(incident);
    std::fs::remove_file(dir.join("journal.jsonl")).unwrap();
    let ran = desk.run(&["incident", "list"]);
    assert!(ran.stdout.contains(&dir.file_name().unwrap().to_string_lossy().into_owned()), "{ran:?}");
    assert!(!ran.stdout.contains("no incidents") && ran.stdout.contains("journal"), "{ran:?}");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { out.extend(walk(&path)) } else { out.push(path) }
    }
    out
}
