//! `breakglass health` as a scheduler runs it: addresses, queries, disks, backups and exposure from the configuration; and the
//! same on the console's first screen.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakglass::app::Msg;
use breakglass::app::data::HealthRow;
use breakglass::app::update::update;
use breakglass::recovery::health::wait_healthy;
use breakglass::recovery::{Phase, Watch};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::backup::logical::{cluster, text, url};
use crate::backup::wal::{SYSTEM, segment, write_segment};
use crate::backup::{PASSPHRASE, repository as backup_repository};
use crate::support::archived::{self, Archived};
use crate::support::console;
use crate::support::pty::Pty;

/// Path, status and body of an answer.
type Answers = Arc<Mutex<Vec<(&'static str, u16, String)>>>;

/// A service that answers by path; paths it does not know get 404. Ends with the test process.
struct Service {
    at: String,
    answers: Answers,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let answers: Answers = Arc::default();
        let known = answers.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let mut request = Vec::new();
                let mut buffer = [0u8; 1024];
                while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                    match socket.read(&mut buffer) {
                        Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                        _ => break,
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or("").to_string();
                let all = known.lock().unwrap();
                let (status, body) =
                    all.iter().find(|(p, ..)| *p == path).map_or((404, String::new()), |(_, s, b)| (*s, b.clone()));
                let _ = write!(
                    socket,
                    "HTTP/1.1 {status} X\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    if status == 302 { format!("Location: {body}\r\n") } else { String::new() },
                    body.len()
                );
            }
        });
        Self { at, answers }
    }
    fn says(&self, path: &'static str, status: u16, body: &str) {
        let mut all = self.answers.lock().unwrap();
        all.retain(|(p, ..)| *p != path);
        all.push((path, status, body.into()));
    }
}

/// As cron runs it: no terminal, no environment but what is named, another folder than home.
fn health(dir: &Path, env: &[(&str, &str)]) -> (Option<i32>, Value, String) {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(["--json", "health"]).env_clear().env("HOME", dir).env("BREAKGLASS_HOME", dir.join("state"));
    let out = c.envs(env.iter().copied()).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_default(), text(&out))
}

fn write(dir: &Path, config: &str) {
    std::fs::write(dir.join("breakglass.toml"), config).unwrap();
}

#[test]
fn addresses_queries_and_disks() {
    let c = cluster();
    c.sql("postgres", "create database healthdb");
    c.sql("healthdb", "create schema app; create table app.orders (id int); insert into app.orders values (1), (2)");
    let at = url(&c, "healthdb");
    let env = [("DATABASE_URL", at.as_str())];
    let service = Service::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let base = &service.at;
    let config = format!(
        "[service]\nhealth_url = \"{base}/own\"\n\
         [[health.url]]\nname = \"shop\"\nurl = \"{base}/shop\"\n\
         [[health.url]]\nname = \"payments\"\nurl = \"{base}/pay\"\npath = \"parts.1.state\"\nis = \"green\"\n\
         [[health.url]]\nname = \"door\"\nurl = \"{base}/door\"\nstatus = 401\n\
         [[health.url]]\nname = \"login\"\nurl = \"{base}/login\"\nstatus = 302\n\
         [[health.sql]]\nname = \"orders\"\nquery = \"select count(*) from app.orders; \"\nexpect = \">= 2\"\n\
         [[health.sql]]\nname = \"mode\"\nquery = \"show transaction_read_only -- a remark\"\n\
         [[health.sql]]\nname = \"true\"\nquery = \"select 1 = 1\"\n\
         [[health.disk]]\npath = \".\"\nmin_free = \"1 kB\"\n"
    );
    write(
        d,
        &config.replace(
            "show transaction_read_only -- a remark",
            "select current_setting('transaction_read_only') = 'on' -- a remark",
        ),
    );
    service.says("/own", 200, r#"{"status": "ok", "components": {"database": "operational"}}"#);
    service.says("/shop", 200, r#"{"components": {"cart": {"status": "up"}}}"#);
    service.says("/pay", 200, r#"{"parts": [{"state": "red"}, {"state": "green"}]}"#);
    service.says("/door", 401, "who are you");
    service.says("/login", 302, "/shop");
    let (code, said, all) = health(d, &env);
    assert_eq!(code, Some(0), "{all}");
    for name in ["database", "shop", "payments", "door", "login", "orders", "mode", "true", "disk .", "postgresql"] {
        assert_eq!(said["components"][name], "operational", "{name}: {said:#}");
    }
    assert_eq!(said["healthy"], true);

    // Each of them can be unwell, and says how.
    service.says("/shop", 200, r#"{"components": {"cart": "degraded"}, "details": {"cart": "slow"}}"#);
    service.says("/pay", 200, r#"{"parts": [{"state": "green"}, {"state": "\u001b[31mred"}]}"#);
    service.says("/door", 200, "come in");
    c.sql("healthdb", "delete from app.orders where id = 2");
    let worse = config.replace("1 kB", "99%").replace("show transaction_read_only -- a remark", "select 1 / 0 = 1");
    write(d, &worse.replace("select 1 = 1", "select n = 1 from generate_series(1, 2) n"));
    let (code, said, all) = health(d, &env);
    assert_eq!(code, Some(1), "{all}");
    assert_eq!(said["healthy"], false);
    for (name, status, detail) in [
        ("shop", "degraded", "cart degraded (slow)"),
        ("payments", "degraded", "parts.1.state is \"red\""),
        ("door", "down", "status 200, 401 is expected"),
        ("orders", "unexpected", "\"1\", >= 2 is expected"),
        ("mode", "failed", "division by zero"),
        ("true", "unexpected", "more than one row"),
        ("disk .", "low", "at least 99 % are wanted"),
    ] {
        assert_eq!(said["components"][name], status, "{name}: {said:#}");
        let seen = said["details"][name].as_str().unwrap();
        assert!(seen.contains(detail) && !seen.contains('\u{1b}'), "{name}: {seen}");
    }
    service.says("/pay", 200, "<html>");
    service.says("/shop", 503, "");
    // What leads to a page that answers does not answer itself.
    service.says("/own", 302, "/elsewhere");
    service.says("/elsewhere", 200, r#"{"status": "ok"}"#);
    let gone = worse
        .replace(&format!("{base}/door"), "http://127.0.0.1:9/")
        .replace("min_free = \"99%\"", "min_free = \"1%\"");
    write(d, &gone.replace("path = \".\"", "path = \"/no/such/place\"").replace("app.orders; ", "app.none"));
    let nobody = at.replace("healthdb", "nosuchdb");
    let (code, said, all) = health(d, &env);
    assert_eq!((code, &said["components"]["http"]), (Some(1), &"302".into()), "{all}");
    for (name, detail) in [
        ("payments", "not JSON"),
        ("shop", "status 503"),
        ("door", "refused"),
        ("orders", "does not exist"),
        ("disk /no/such/place", "cannot be looked at"),
    ] {
        assert!(said["details"][name].as_str().is_some_and(|s| s.contains(detail)), "{name}: {said:#}");
    }
    // Without a database its queries were not asked: that is not well either.
    let (code, said, all) = health(d, &[("DATABASE_URL", &nobody)]);
    assert_eq!((code, &said["components"]["orders"]), (Some(1), &"not asked".into()), "{all}");
    // A query can change nothing.
    write(
        d,
        "[[health.sql]]\nname = \"sly\"\nquery = \"with x as (delete from app.orders returning id) select id = 1 from x\"\n",
    );
    let (code, said, all) = health(d, &env);
    assert!(code == Some(1) && said["components"]["sly"] == "failed", "{all}");
    assert_eq!(c.sql("healthdb", "select count(*) from app.orders"), "1");
    // Nor without a database at all.
    assert!(health(d, &[]).2.contains("health.sql has queries, and no database is configured"));
}

#[test]
fn what_is_wrong_in_the_configuration_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let url = "url = \"http://localhost\"";
    for (config, line, says) in [
        (format!("[[health.url]]\nname = \"backup\"\n{url}"), 1, "health reports by that name already"),
        (format!("[[health.url]]\nname = \"log\"\n{url}"), 1, "health reports by that name already"),
        (format!("[[health.url]]\nname = \"a\"\n{url}\n[[health.url]]\nname = \"a\"\n{url}"), 4, "of its own"),
        ("[[health.url]]\nname = \"a\"\nurl = \"http://u:secret@host/\"".into(), 1, "holds a login"),
        ("[[health.url]]\nname = \"a\"\nurl = \"localhost\"".into(), 1, "begin with http://"),
        (format!("[[health.url]]\nname = \"a\"\n{url}\nstatus = 42"), 1, "from 100 to 599"),
        (format!("[[health.url]]\nname = \"a\"\n{url}\nis = \"up\""), 1, "\"is\" needs \"path\""),
        (format!("[[health.url]]\nname = \"a\\u0007\"\n{url}"), 1, "letters, digits"),
        ("[[health.sql]]\nname = \"a\"\nquery = \" ; \"".into(), 1, "query is empty"),
        ("[[health.sql]]\nname = \"a\"\nquery = \"select 1\"\nexpect = \"about 3\"".into(), 1, "does not begin with"),
        ("[[health.sql]]\nname = \"a\"\nquery = \"select 1\"\nexpect = \"> many\"".into(), 1, "is not a number"),
        ("[[health.disk]]\npath = \"/\"\nmin_free = \"0%\"".into(), 1, "1% to 99%"),
        ("[[health.disk]]\npath = \"/\"\nmin_free = \"much\"".into(), 1, "is not a size"),
        (
            "[backup.tiers]\ncritical = [\"a\", \"orders\"]\nimportant = [\n\"b\",\n\"public.\\\"orders\\\"\"]".into(),
            5,
            "both critical and important",
        ),
        ("[backup.tiers]\ncritical = [\"pay.a\"]\nimportant = [\"pay.a\"]".into(), 3, "\"pay.a\" is both"),
        ("[health]\nexposure_max = \"5\"".into(), 2, "health.exposure_max"),
        ("[health]\nproven_max_age = \"soon\"".into(), 2, "health.proven_max_age"),
        ("[[health.sql]]\nname = \"a\"".into(), 1, "query"),
    ] {
        write(dir.path(), &config);
        let (code, _, said) = health(dir.path(), &[]);
        assert_eq!(code, Some(2), "{config}: {said}");
        assert!(said.contains(&format!("breakglass.toml:{line}")) && said.contains(says), "{config}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn backups_and_exposure_have_limits() {
    let a = Archived::start("health");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let repository = d.join("repo").display().to_string();
    let at = url(&a.cluster, "postgres");
    let keys = [("BACKUP_DIR", repository.as_str()), ("BACKUP_ENCRYPTION_KEY", PASSPHRASE)];
    let run = |args: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(args).env_clear().env("HOME", d).env("BREAKGLASS_HOME", d.join("state")).envs(keys);
        let out = c.current_dir(d).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    };
    write(d, "[health]\nproven_max_age = \"35d\"\n");
    run(&["backup", "create", "--files", "data"]);
    // A scheduler has not our environment: a limit that cannot be looked at is no well-being.
    let (code, said, all) = health(d, &keys[..1]);
    assert_eq!((code, &said["components"]["backup"]), (Some(1), &"not asked".into()), "{all}");
    assert!(said["details"]["backup"].as_str().unwrap().contains("BACKUP_ENCRYPTION_KEY"), "{said}");
    // Nor are backups that nobody looks at, where no limit is configured: the default one holds.
    write(d, "");
    let (code, said, all) = health(d, &keys[..1]);
    assert_eq!((code, &said["components"]["backup"]), (Some(1), &"not asked".into()), "{all}");
    assert!(said["details"]["backup"].as_str().unwrap().contains("were not looked at"), "{said}");
    assert_eq!(said["components"]["repository"], "operational", "{said}");
    write(d, "[health]\nproven_max_age = \"35d\"\n");
    let (code, said, all) = health(d, &keys);
    assert_eq!(code, Some(1), "{all}");
    assert_eq!(
        (&said["components"]["backup"], &said["components"]["proven"]),
        (&"operational".into(), &"missing".into())
    );
    assert!(said["details"]["proven"].as_str().unwrap().contains("backup verify --deep"), "{said}");
    // Restored and compared once: that stands, also when it is only read later.
    run(&["backup", "verify", "--deep", "--scratch", d.to_str().unwrap()]);
    run(&["backup", "verify"]);
    let (code, said, all) = health(d, &keys);
    assert_eq!(code, Some(0), "{all}");
    assert_eq!(said["components"]["proven"], "operational", "{said}");
    assert!(said["backup_age_ms"].is_u64() && said["proven_age_ms"].is_u64(), "{said}");
    write(d, "[health]\nproven_max_age = \"1ms\"\nbackup_max_age = \"1ms\"\n");
    let (code, said, all) = health(d, &keys);
    assert_eq!(code, Some(1), "{all}");
    assert_eq!((&said["components"]["backup"], &said["components"]["proven"]), (&"too old".into(), &"too old".into()));

    // Each hole of the log is named.
    let (_, _, holey) = backup_repository(&d.join("holey"));
    for n in [1, 3, 5] {
        breakglass::backup::wal::archive(&holey, &write_segment(&d.join("holey"), segment(1, n), SYSTEM, n), None)
            .unwrap();
    }
    let (code, said, all) = health(d, &[("BACKUP_DIR", holey.as_str()), keys[1]]);
    assert_eq!((code, &said["components"]["log"]), (Some(1), &"hole".into()), "{all}");
    let named = said["details"]["log"].as_str().unwrap();
    assert!([2, 4].iter().all(|n| named.contains(&segment(1, *n).to_string())), "{named}");

    // Proof is of the database that is watched, as a whole: four bytes of files, another database, or a part of it are none.
    write(d, "[health]\nproven_max_age = \"35d\"\n");
    a.cluster.sql("postgres", "create table kept (n int); create table other (n int)");
    a.cluster.sql("postgres", "create database beside");
    let of = |name: &str| url(&a.cluster, name);
    let on = |name: &str, args: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(args).env_clear().env("HOME", d).env("BREAKGLASS_HOME", d.join("state")).envs(keys);
        let out = c.env("DATABASE_URL", of(name)).current_dir(d).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out));
        text(&out)
    };
    let (_, said, all) = health(d, &[keys[0], keys[1], ("DATABASE_URL", at.as_str())]);
    assert_eq!(said["components"]["backup"], "missing", "files alone are no backup of the database: {all}");
    let proven = || health(d, &[keys[0], keys[1], ("DATABASE_URL", at.as_str())]).1["components"]["proven"].clone();
    assert_eq!(proven(), "missing", "files");
    let scratch = crate::support::cluster::Scratch::new("proofs");
    std::fs::set_permissions(&scratch.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let deep = ["backup", "verify", "--deep", "--scratch", scratch.path.to_str().unwrap()];
    on("postgres", &["backup", "create", "--table", "kept"]);
    let said = on("postgres", &deep);
    assert!(said.contains("no whole backup of database \"postgres\""), "{said}");
    on("postgres", &["backup", "create", "--schema-only"]);
    on("postgres", &deep);
    on("beside", &["backup", "create", "--logical"]);
    on("beside", &deep);
    assert_eq!(proven(), "missing", "a part, definitions, another database");
    // The one that is asked for is picked, although newer ones of other sorts are there.
    on("postgres", &["backup", "create", "--logical"]);
    on("beside", &["backup", "create", "--logical"]);
    on("postgres", &["backup", "create", "--schema-only"]);
    on("postgres", &deep);
    assert_eq!(proven(), "operational");

    // Exposure: within its limit after an archived segment, beyond it when a commit waits, unknown where nothing is archived.
    let both = [keys[0], keys[1], ("DATABASE_URL", at.as_str())];
    a.archive_now();
    write(d, "[health]\nexposure_max = \"1h\"\n");
    let (_, said, all) = health(d, &both);
    assert_eq!(said["components"]["exposure"], "operational", "{all}");
    a.cluster.sql("postgres", "create table waits (n int)");
    write(d, "[health]\nexposure_max = \"1ms\"\n");
    let (code, said, all) = health(d, &both);
    assert_eq!((code, &said["components"]["exposure"]), (Some(1), &"too long".into()), "{all}");
    let other = url(&cluster(), "postgres");
    let (code, said, all) = health(d, &[("DATABASE_URL", other.as_str())]);
    assert_eq!((code, &said["components"]["exposure"]), (Some(1), &"unknown".into()), "{all}");

    // A repository that is there, opens and is full, and is of another cluster: no help to the one that is watched. With its key or
    // without: whose it is stands outside of what the key opens.
    write(d, "");
    let theirs = a.repository.display().to_string();
    let full = [("BACKUP_DIR", theirs.as_str()), ("BACKUP_ENCRYPTION_KEY", archived::PASSPHRASE)];
    for keys in [&full[..], &full[..1]] {
        let (code, said, all) = health(d, &[keys, &[("DATABASE_URL", other.as_str())]].concat());
        assert_eq!((code, &said["components"]["repository"]), (Some(1), &"of another cluster".into()), "{all}");
        assert!(said["details"]["repository"].as_str().unwrap().contains(&theirs), "{said}");
        let (_, said, all) = health(d, &[keys, &[("DATABASE_URL", at.as_str())]].concat());
        assert!(said["components"]["repository"] != "of another cluster", "{all}");
    }
}

#[test]
fn home_shows_what_health_says() {
    let document = serde_json::json!({
        "healthy": false,
        "components": {"shop": "degraded", "backup": "too old", "postgresql": "operational", "disk /": "operational"},
        "details": {"shop": "cart degraded (slow)", "backup": "20261101T0000Z-logical-abcdef, verified, 26 h old"},
    });
    let row = HealthRow::of(console::start(), &document);
    let mut app = console::app((80, 24), 90);
    update(&mut app, Msg::Health(Box::new(row)), console::now(90));
    let shown = console::text(&console::render(&mut app));
    for word in
        ["HEALTH", "shop degraded: cart degraded (slow)", "backup too old: 2026", "2 checks well, seen", "SCENARIOS"]
    {
        assert!(shown.contains(word), "{word:?} is not in:\n{shown}");
    }
    let good = serde_json::json!({"healthy": true, "components": {"shop": "operational"}, "details": {}});
    update(&mut app, Msg::Health(Box::new(HealthRow::of(console::start(), &good))), console::now(95));
    let shown = console::text(&console::render(&mut app));
    assert!(shown.contains("all well, seen") && shown.contains(": shop") && !shown.contains("too old"), "{shown}");
}

#[test]
fn the_console_looks_by_itself() {
    let service = Service::start();
    service.says("/shop", 200, r#"{"components": {"cart": "degraded"}}"#);
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let config = d.join("breakglass.toml");
    std::fs::write(&config, format!("[[health.url]]\nname = \"shop\"\nurl = \"{}/shop\"\n", service.at)).unwrap();
    let state = d.join("state").display().to_string();
    let pty =
        Pty::breakglass((100, 30), &["--config", config.to_str().unwrap()], &[("BREAKGLASS_HOME", state.as_str())]);
    let shown = pty.wait_text("shop degraded: cart degraded");
    assert!(shown.contains("HEALTH"), "{shown}");
    pty.keys("q");
}

/// Whoever waits for the service sees what it is that is not well, and for how long at most it is waited for.
#[test]
fn what_a_wait_for_health_waits_for_is_said() {
    struct Seen(Mutex<Vec<String>>);
    impl Watch for Seen {
        fn line(&self, _: &str) {}
        fn phase(&self, phase: &Phase) {
            assert!(phase.name == "health" && phase.total.is_none(), "{phase:?}");
            self.0.lock().unwrap().push(phase.text.clone());
        }
    }
    let service = Service::start();
    let body =
        r#"{"components": {"billing": "degraded", "database": "ok"}, "details": {"billing": "3 of 9 invoices wrong"}}"#;
    service.answers.lock().unwrap().push(("/health", 200, body.into()));
    let (seen, url) = (Seen(Mutex::default()), format!("{}/health", service.at));
    let limit = Duration::from_millis(400);
    let cancel = CancellationToken::new();
    let waited = wait_healthy(&url, Duration::ZERO, limit, &seen, &cancel);
    let health = crate::support::cluster::block_on(waited).unwrap();
    assert!(!health.healthy);
    let said = seen.0.into_inner().unwrap();
    assert_eq!(
        said[0], "waiting for the service, at most 0:00 more: billing degraded (3 of 9 invoices wrong)",
        "{said:?}"
    );
}
