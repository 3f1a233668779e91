//! A source as distributions set it up: on TCP with TLS, its configuration outside the data directory. The whole way through the
//! program: restore, verify, promote, salvage. Clients find the recovered database where the damaged one was.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use breakglass::action::pitr_restore::Restore;
use breakglass::action::{Action, Ctx, Nowhere};
use breakglass::config::settings::{Connection, REPOSITORY_KEY};
use breakglass::config::{Secrets, Settings};
use breakglass::model::Secret;
use breakglass::postgres::user;
use breakglass::recovery::shadow::Shadow;
use serde_json::Value;

use super::shop::{damage, script, traffic};
use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{LIMIT, block_on, programs, server_user};

const HBA: &str = "local all,replication postgres trust\n\
    hostssl shop app 127.0.0.1/32 scram-sha-256\n\
    host all dba 127.0.0.1/32 scram-sha-256\n";

/// A source with a certificate and rules in a folder of its own, and the key in the data directory.
struct Source {
    a: Archived,
    etc: PathBuf,
    port: u16,
}

impl Source {
    fn start(name: &str) -> Self {
        // Free a moment ago; servers of other tests listen on sockets only.
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut etc = PathBuf::new();
        let a = Archived::start_with(name, |room| {
            etc = room.join("etc");
            std::fs::create_dir(&etc).unwrap();
            std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(0o755)).unwrap();
            let made = Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "2",
                ])
                .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
                .arg("-keyout")
                .arg(etc.join("key"))
                .arg("-out")
                .arg(etc.join("server.crt"))
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert!(made.success());
            let file = |name: &str, text: &str| {
                user::own_file(&etc.join(name), text, server_user().as_ref()).unwrap();
                etc.join(name).display().to_string()
            };
            let certificate = std::fs::read_to_string(etc.join("server.crt")).unwrap();
            vec![
                ("listen_addresses", "127.0.0.1".into()),
                ("port", port.to_string()),
                ("hba_file", file("pg_hba.conf", HBA)),
                ("ident_file", file("pg_ident.conf", "# nobody\n")),
                ("ssl_cert_file", file("server.crt", &certificate)),
                ("ssl_key_file", "server.key".into()),
                ("work_mem", "7MB".into()),
                ("application_name", "of the source".into()),
            ]
        });
        let data = &a.cluster.instance.layout.data;
        let key = std::fs::read_to_string(etc.join("key")).unwrap();
        user::own_file(&data.join("server.key"), &key, server_user().as_ref()).unwrap();
        a.cluster.sql("postgres", "alter system set ssl = on");
        a.cluster.sql("postgres", "select pg_reload_conf()");
        a.cluster.sql("postgres", "create database shop");
        a.cluster.sql(
            "shop",
            "create role app login password 'app-secret'; create role dba superuser login password 'dba-secret'",
        );
        Self { a, etc, port }
    }

    fn url(&self, role: &str) -> String {
        format!("postgres://{role}:{role}-secret@127.0.0.1:{}/shop", self.port)
    }

    /// The program, as an administrator on the database's machine starts it.
    fn breakglass(&self, args: &[&str]) -> (i32, Value, String) {
        self.with_address(Some(self.url("dba")), args)
    }

    /// The same where nothing but the repository and its passphrase is known.
    fn alone(&self, args: &[&str]) -> (i32, Value, String) {
        self.with_address(None, args)
    }

    fn with_address(&self, url: Option<String>, args: &[&str]) -> (i32, Value, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_breakglass"))
            .args(args)
            .arg("--json")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.a.room.path)
            .env("BREAKGLASS_HOME", self.a.room.path.join("state"))
            .envs(url.map(|url| ("DATABASE_URL", url)))
            .env("BACKUP_DIR", &self.a.repository)
            .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
            .current_dir(&self.a.room.path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let json = serde_json::from_slice(&out.stdout).unwrap_or_default();
        (out.status.code().unwrap(), json, said)
    }

    /// What a client sees, with the certificate checked.
    fn client(&self, role: &str, tls: &str, sql: &str) -> Result<String, String> {
        let out = Command::new(programs().path("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "-d"])
            .arg(self.url(role))
            .env_clear()
            .env("PGSSLMODE", tls)
            .env("PGSSLROOTCERT", self.etc.join("server.crt"))
            .current_dir("/")
            .output()
            .unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_string();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }
}

#[test]
fn clients_find_the_recovered_database_where_the_damaged_one_was() {
    let s = Source::start("takeover");
    let db = s.a.cluster.database("shop");
    script(&db, super::shop::SCHEMA);
    script(
        &db,
        "create table tickets (id smallint generated always as identity primary key, what text); \
         create sequence countdown increment -1; create sequence turns maxvalue 5 cycle; select nextval('turns'); \
         grant all on all tables in schema public to app; grant all on all sequences in schema public to app;",
    );
    s.a.base_backup();
    traffic(&db, 5);
    let xid = damage(&db, "id % 3 = 1 and id <= 1000");
    // More than a server jumps ahead by itself when it recovers (32): 1006 to 1045, to be salvaged.
    traffic(&db, 40);
    script(
        &db,
        "select nextval('countdown') from generate_series(1, 9); insert into tickets (what) values ('a'), ('b');",
    );
    s.a.archive_now();
    // From here on nobody comes in but by the network.
    let closed = HBA.replace("local all postgres trust", "local all all reject");
    user::own_file(&s.etc.join("pg_hba.conf"), &closed, server_user().as_ref()).unwrap();
    assert_eq!(s.client("dba", "verify-ca", "select pg_reload_conf()").unwrap(), "t");

    let root = s.a.room.path.join("recovered");
    let (shadow, salvage) = (root.display().to_string(), s.a.room.path.join("salvage"));
    let (code, _, said) = s.breakglass(&["pitr", "restore", "--to", &format!("xid:{xid}"), "--dir", &shadow]);
    assert_eq!(code, 0, "{said}");
    let (code, verified, said) = s.breakglass(&["pitr", "verify", "--shadow", &shadow]);
    assert_eq!(code, 0, "{said}");
    let ids = |v: &Value| {
        let checks = v["checks"].as_array().unwrap();
        let check = checks.iter().find(|c| c["name"] == "ids given out before").unwrap();
        (check["verdict"].as_str().unwrap().to_string(), check["detail"].as_str().unwrap().to_string())
    };
    let (verdict, detail) = ids(&verified);
    assert_eq!(verdict, "passed", "{detail}");
    assert!(detail.contains("public.orders_id_seq stands at ") && detail.contains("stood at 1045"), "{detail}");

    let (code, done, said) = s.breakglass(&["pitr", "promote", "--shadow", &shadow, "--confirm", "shop"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("fenced: server on ") && said.contains("it answers where the damaged one did"), "{said}");
    assert_eq!(done["kept"], s.a.cluster.instance.layout.data.display().to_string());
    assert!(!s.a.cluster.instance.is_running());
    // A person decides about the one sequence that gives its numbers out in turns, if it went on; it did not.
    assert_eq!(done["to_do"], Value::Array(vec![]), "{said}");

    // The same address, role, password, certificate and rules; the same settings.
    let app = |sql: &str| s.client("app", "verify-ca", sql);
    assert_eq!(app("select count(*) from orders where address = 'see invoice'").unwrap(), "0");
    assert_eq!(app("select ssl from pg_stat_ssl where pid = pg_backend_pid()").unwrap(), "t");
    let e = s.client("app", "disable", "select 1").unwrap_err();
    assert!(e.contains("no encryption") || e.contains("no pg_hba.conf entry"), "{e}");
    let e = s.client("app", "verify-ca", "select pg_reload_conf()").unwrap_err();
    assert!(e.contains("permission denied"), "{e}");
    let dba = |sql: &str| s.client("dba", "verify-ca", sql).unwrap();
    assert_eq!(dba("show work_mem"), "7MB");
    assert_eq!(
        dba("show hba_file"),
        s.etc.join("pg_hba.conf").display().to_string(),
        "kept where people look after it"
    );
    assert_eq!(dba("show ssl_key_file"), root.join("conf/taken-ssl_key_file").display().to_string());
    assert_eq!(dba("show data_directory"), root.join("data").display().to_string());
    assert_eq!(dba("select pg_is_in_recovery() || ' ' || current_setting('archive_mode')"), "false on");

    // No number comes twice.
    let new =
        app("insert into orders (customer_id, total_cents, address) values (1, 1, 'after') returning id").unwrap();
    assert!(new.parse::<i64>().unwrap() > 1045, "{new}");
    assert!(dba("select nextval('countdown')").parse::<i64>().unwrap() < -9);
    assert!(dba("insert into tickets (what) values ('c') returning id").parse::<i64>().unwrap() > 2);
    let (code, verified, said) = s.breakglass(&["pitr", "verify", "--shadow", &shadow]);
    assert_eq!(code, 0, "{said}");
    let (verdict, detail) = ids(&verified);
    assert!(verdict == "passed" && detail.contains("at or past"), "{verdict}: {detail}");
    assert!(said.contains("there is no source to compare with"), "its own successor is not its source: {said}");
    dba("select setval('orders_id_seq', 1007)");
    let (code, verified, said) = s.breakglass(&["pitr", "verify", "--shadow", &shadow]);
    assert_eq!((code, ids(&verified).0.as_str()), (1, "failed"), "{said}");

    // The log of the new timeline arrives.
    let segment = dba("select pg_walfile_name(pg_switch_wal())");
    assert!(segment.starts_with("00000002"), "{segment}");
    let end = std::time::Instant::now() + LIMIT;
    while dba("select coalesce(last_archived_wal, '') from pg_stat_archiver") < segment {
        assert!(
            std::time::Instant::now() < end,
            "not archived: {}",
            dba("select last_failed_wal from pg_stat_archiver")
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    // What is left can be asked for again, and the damaged rows come out of the damaged cluster, not out of its successor.
    let (code, _, said) = s.breakglass(&["pitr", "promote", "--shadow", &shadow, "--confirm", "shop"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("in service already"), "{said}");
    let kept = s.a.cluster.instance.layout.data.display().to_string();
    let out = salvage.display().to_string();
    let (code, written, said) = s.breakglass(&["pitr", "salvage", "--shadow", &shadow, "--kept", &kept, "--out", &out]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(written["new"]["public.orders"], 40, "{said}");
    let csv = std::fs::read_to_string(salvage.join("public.orders.csv")).unwrap();
    let saved: Vec<&str> = csv.lines().skip(1).filter_map(|l| l.split(',').nth(3)).collect();
    assert_eq!(saved, (1006..=1045).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(dba("select count(*) from orders where id between 1006 and 1045"), "0", "their numbers are still free");

    let record = Shadow::load(&root).unwrap();
    assert_eq!(record.port, Some(s.port));
    record.instance().unwrap().stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
}

/// The commands that README gives for a primary that is gone, with this folder for its own.
fn readme(shadow: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = text.split("## When the primary is gone").nth(1).unwrap();
    let fence = section.split("```").nth(1).unwrap();
    let ours = fence.lines().filter_map(|l| l.strip_prefix("breakglass "));
    // Every second part is between quotes.
    let words = |line: &str| -> Vec<String> {
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(i, part)| match i % 2 {
                1 => vec![part.to_string()],
                _ => part.split_whitespace().map(|w| w.replace("/srv/recovered", shadow)).collect(),
            })
            .collect()
    };
    ours.map(words).collect()
}

#[test]
fn a_place_that_cannot_be_taken_leaves_the_recovered_database_reachable() {
    let s = Source::start("noplace");
    let db = s.a.cluster.database("shop");
    script(&db, "create table t (n int)");
    s.a.base_backup();
    script(&db, "insert into t values (1)");
    s.a.archive_now();
    let root = s.a.room.path.join("recovered");
    let shadow = root.display().to_string();
    // Nothing says which database is meant: the one that has tables, not the empty one that every cluster has.
    let readme = readme(&shadow);
    let words = |n: usize| readme[n].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(s.alone(&words(0)).0, 0, "what can be recovered: {:?}", readme[0]);
    let (code, _, said) = s.alone(&words(2));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("to look at it: psql ") && said.contains("/shop?"), "{said}");
    let next = format!("breakglass pitr verify --shadow {shadow}");
    assert!(said.contains(&format!("next: {next}; then")), "{said}");
    // Without its folder: the ones that stand where they are built are named.
    let config = s.a.room.path.join("breakglass.toml");
    std::fs::write(&config, format!("[postgres]\ninstances_dir = {:?}\n", s.a.room.path.display().to_string()))
        .unwrap();
    let (code, _, said) = s.alone(&["pitr", "verify"]);
    std::fs::remove_file(&config).unwrap();
    assert!(code == 2 && said.contains(&format!("--shadow {shadow}")) && !said.contains("build one"), "{code}: {said}");
    let (code, _, said) = s.alone(&words(3));
    assert!(code == 0 && said.contains("\"shop\" was looked at as the largest database that has tables"), "{said}");
    assert!(said.contains("if another is meant, name it: DATABASE_URL"), "{said}");
    let empty = s.url("dba").replace("/shop", "/postgres");
    let (code, _, said) = s.with_address(Some(empty), &["pitr", "verify", "--shadow", &shadow]);
    assert!(said.contains("there is no table in \"postgres\": nothing of it could be verified"), "{code}: {said}");
    let nobody = "postgres://postgres@127.0.0.1:1/postgres".to_string();
    let (code, _, said) = s.with_address(Some(nobody), &["pitr", "verify", "--shadow", &shadow]);
    assert!(code == 1 && said.contains("FAILED        tables: there is no table in \"postgres\""), "{code}: {said}");
    // Broken while nobody looked: the running source has it in memory.
    std::fs::write(s.etc.join("server.crt"), "no certificate").unwrap();
    let (code, _, said) = s.breakglass(&["pitr", "promote", "--shadow", &shadow, "--confirm", "shop"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("promoted and stands on its own socket") && said.contains("--own-address"), "{said}");
    assert!(!s.a.cluster.instance.is_running(), "fenced all the same");
    // Gone for good, and nobody knows its address: said so, with what to do, and not needed where a person answers for it.
    let args = ["pitr", "promote", "--shadow", &shadow, "--confirm", "shop"];
    let (code, _, said) = s.alone(&args);
    assert!(code == 2 && said.contains("also when it is dead: postgres://USER@HOST:5432/DATABASE"), "{code}: {said}");
    assert!(said.contains("no address is needed: promote with --source-is-fenced REASON"), "{said}");
    let (code, done, said) = s.alone(&words(4));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the damaged cluster: nothing of it is known to be left (disk is gone)"), "{said}");
    let to_do = done["to_do"].to_string();
    assert!(to_do.contains("point the service at") && done["url"].as_str().unwrap().contains("recovered"), "{to_do}");
    // The line that starts it again does.
    let record = Shadow::load(&root).unwrap();
    record.instance().unwrap().stop(breakglass::postgres::Stop::Fast, LIMIT).unwrap();
    let start = done["start"].as_str().unwrap();
    assert!(said.contains(start), "{said}");
    let start = start
        .strip_prefix("sudo -u ")
        .map_or(start.to_string(), |s| format!("runuser -u {}", s.replacen(' ', " -- ", 1)));
    let mut sh = Command::new("/bin/sh");
    sh.args(["-c", &start]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    assert!(sh.status().unwrap().success(), "{start}");
    let own = record.database("shop").unwrap();
    assert_eq!(crate::support::cluster::psql(&own, "select n, pg_is_in_recovery() from t").unwrap(), "1|f");
    // What is in service now is on timeline 2. Of a recovery along timeline 1 it has no "more": it is another log.
    let connection = Connection {
        host: own.host().into(),
        port: own.port(),
        user: "postgres".into(),
        database: "shop".into(),
        sslmode: None,
    };
    let settings = Settings { database: Some(connection), ..s.a.settings(&s.a.room.path) };
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, Secret::new(PASSPHRASE));
    let ctx = Ctx::new(settings, secrets, Arc::new(Nowhere));
    let preview = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|a| a.to_string()).collect();
        block_on(async { Restore.preview(&ctx, &args).await }).unwrap().lines.join("\n")
    };
    let lines = preview(&["--to", "latest", "--timeline", "1"]);
    assert!(
        lines.contains("the live server is on timeline 2, at ") && lines.contains("to the end of timeline 1"),
        "{lines}"
    );
    assert!(!lines.contains("THE LIVE SERVER HAS MORE"), "{lines}");
    record.instance().unwrap().stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
}
