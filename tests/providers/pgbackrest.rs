//! A real repository of pgBackRest of a real cluster: range, restore, verify with the lies taken out, promotion.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use breakglass::postgres::{Database, Lsn, Stop, user};
use breakglass::process::UnixUser;
use breakglass::recovery::shadow::Shadow;

use super::{Said, program};
use crate::support::cluster::{Cluster, LIMIT, Scratch, psql, server_user};

/// A cluster that pgBackRest archives and backs up, with a history that ends in damage.
struct Stand {
    cluster: Arc<Cluster>,
    room: Scratch,
    /// Just before the damage.
    before: Lsn,
    /// The time of that, on the server.
    time: String,
    /// The damage itself.
    xid: String,
    /// Label of the backup.
    label: String,
}

fn pgbackrest() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|d| d.join("pgbackrest")).find(|p| p.is_file());
    found.expect("pgbackrest is needed for these tests: apt-get install pgbackrest")
}

/// Runs it as the server's user.
fn own(config: &Path, words: &[&str]) {
    let mut c = Command::new(pgbackrest());
    c.arg(format!("--config={}", config.display())).arg("--stanza=main").args(words).current_dir("/");
    user::apply(&mut c, server_user().as_ref());
    let out = c.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{words:?}: {out:?}");
}

fn mine(path: &Path) {
    if let Some(u) = server_user() {
        std::os::unix::fs::chown(path, Some(u.uid), Some(u.gid)).unwrap();
    }
}

impl Stand {
    fn start(name: &str, compress: &str) -> Self {
        let room = Scratch::quick(&format!("{name}-room"));
        let place = Scratch::quick(name);
        for dir in ["repo", "log", "lock"] {
            user::own_dir(&room.path.join(dir), server_user().as_ref()).unwrap();
        }
        let config = room.path.join("pgbackrest.conf");
        let command = format!("{} --config={} --stanza=main archive-push %p", pgbackrest().display(), config.display());
        let cluster = Cluster::create_in(place, &[("archive_mode", "on"), ("archive_command", &command)]);
        let r = room.path.display();
        let (data, sockets) = (cluster.instance.layout.data.display(), cluster.instance.layout.sockets.display());
        let text = format!(
            "[global]\nrepo1-path={r}/repo\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=not-for-anybody\n\
             compress-type={compress}\nlog-path={r}/log\nlock-path={r}/lock\nstart-fast=y\n\
             repo1-retention-full=9\n[main]\npg1-path={data}\npg1-socket-path={sockets}\npg1-port=5432\n\
             pg1-user=postgres\n"
        );
        std::fs::write(&config, text).unwrap();
        mine(&config);
        cluster.instance.start(LIMIT).unwrap();
        let cluster = Arc::new(cluster);
        own(&config, &["stanza-create"]);
        cluster.sql("postgres", "create database shop");
        cluster.sql("shop", "create table orders(id int primary key, total int)");
        let elsewhere = room.path.join("fast-disk");
        user::own_dir(&elsewhere, server_user().as_ref()).unwrap();
        cluster.sql("shop", &format!("create tablespace fast location '{}'", elsewhere.display()));
        cluster
            .sql("shop", "create table prices tablespace fast as select i id, 1 price from generate_series(1, 50) i");
        own(&config, &["--type=full", "backup"]);
        // Its times are whole seconds and may lie after the moment they name: what is recovered to lies behind them.
        cluster.sql("shop", "select pg_sleep_until(date_trunc('second', clock_timestamp()) + interval '2 seconds')");
        let one = |sql: &str| cluster.sql("shop", sql);
        cluster.sql("shop", "update prices set price = 2");
        // Three segments and more, each with orders of its own.
        for n in 0..4 {
            one(&format!("insert into orders select i, i from generate_series({}, {}) i", n * 100 + 1, n * 100 + 100));
            one("select pg_switch_wal()");
        }
        let before: Lsn = one("select pg_current_wal_insert_lsn()").parse().unwrap();
        one("select pg_sleep(0.01)");
        let time = one("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        let xid = one("with w as (update orders set total = 0 where id <= 300 returning 1) select txid_current()");
        one("select pg_create_restore_point('after_damage')");
        one("insert into orders select i, i from generate_series(401, 410) i");
        let it = Self { cluster, room, before, time, xid, label: String::new() };
        it.archive();
        let labels = it.run(&["backup", "list", "--json"]).is(0, &[]).json();
        let label = labels["backups"][0]["id"].as_str().unwrap().to_string();
        Self { label, ..it }
    }

    /// Switches the log and waits until it is archived.
    fn archive(&self) {
        let wanted = self.cluster.sql("postgres", "select pg_walfile_name(pg_switch_wal())");
        let deadline = Instant::now() + LIMIT;
        while self.cluster.sql("postgres", "select coalesce(max(last_archived_wal), '') from pg_stat_archiver") < wanted
        {
            assert!(Instant::now() < deadline, "{wanted} is not archived: {}", self.cluster.instance.log_tail(5));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Another repository with the same content, and a configuration for it.
    fn copy(&self, name: &str) -> (PathBuf, PathBuf) {
        let (from, to) = (self.room.path.join("repo"), self.room.path.join(name));
        let ok = Command::new("cp").arg("-a").args([&from, &to]).status().unwrap().success();
        assert!(ok);
        let config = self.room.path.join(format!("{name}.conf"));
        let text = std::fs::read_to_string(self.room.path.join("pgbackrest.conf")).unwrap();
        std::fs::write(&config, text.replace(&format!("{}\n", from.display()), &format!("{}\n", to.display())))
            .unwrap();
        mine(&config);
        (to, config)
    }

    fn with(&self, stanza: &str, config: &Path, words: &[&str]) -> Said {
        self.with_as(None, stanza, config, words)
    }

    fn with_as(&self, user: Option<&UnixUser>, stanza: &str, config: &Path, words: &[&str]) -> Said {
        self.through(&pgbackrest(), user, stanza, config, words)
    }

    fn through(&self, tool: &Path, user: Option<&UnixUser>, stanza: &str, config: &Path, words: &[&str]) -> Said {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("breakglass.toml");
        let instances = self.room.path.join("instances");
        let text = format!(
            "[recovery]\nbackend = \"pgbackrest\"\n[pgbackrest]\nstanza = \"{stanza}\"\nconfig = \"{}\"\n\
             program = \"{}\"\n[postgres]\ninstances_dir = \"{}\"\n",
            config.display(),
            tool.display(),
            instances.display()
        );
        std::fs::write(&file, text).unwrap();
        if user.is_some() {
            mine(home.path());
        }
        let mut c = program(home.path(), &file, words);
        c.env("DATABASE_URL", self.cluster.database("shop").url());
        user::apply(&mut c, user);
        let said = Said::of(c.output().unwrap());
        assert!(!said.all().contains("not-for-anybody"), "{said:?}");
        said
    }

    fn run(&self, words: &[&str]) -> Said {
        self.with("main", &self.room.path.join("pgbackrest.conf"), words)
    }

    /// As the server's user: root may do what nobody else may.
    fn run_as_owner(&self, words: &[&str]) -> Said {
        self.with_as(server_user().as_ref(), "main", &self.room.path.join("pgbackrest.conf"), words)
    }

    fn shadow(&self, dir: &Path) -> Database {
        Shadow::load(dir).unwrap().database("shop").unwrap()
    }
}

/// One for all that leave its cluster alone.
fn shared() -> &'static Stand {
    static STAND: OnceLock<Stand> = OnceLock::new();
    STAND.get_or_init(|| Stand::start("pgbr", "zst"))
}

/// The first file of a segment in a repository.
fn segment(repo: &Path, nth_from_last: usize) -> PathBuf {
    let folder = repo.join("archive/main/15-1/0000000100000000");
    let folder = if folder.is_dir() { folder } else { glob(&repo.join("archive/main")) };
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| !p.to_string_lossy().contains(".backup"));
    all.sort();
    all[all.len() - 1 - nth_from_last].clone()
}

/// The folder of timeline 1 below `archive/main/<version>-1`.
fn glob(main: &Path) -> PathBuf {
    let id = std::fs::read_dir(main).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    id.join("0000000100000000")
}

/// Changes one byte in the middle.
fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x55;
    std::fs::write(file, bytes).unwrap();
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy()[..24].to_string()
}

#[test]
fn a_position_and_a_time_are_recovered_to_and_the_shadow_is_promoted_as_any_other() {
    let s = Stand::start("pgbr-story", "gz");
    let there = |name: &str| s.room.path.join(name).display().to_string();
    let content = "select count(*), sum(total), min(total) from orders";
    let right = format!("400|{}|1", 400 * 401 / 2);

    let lsn = format!("lsn:{}", s.before);
    user::own_dir(Path::new(&there("own")), server_user().as_ref()).unwrap();
    let by_lsn = there("own/by-lsn");
    let said = s.run(&["pitr", "restore", "--to", &lsn, "--dir", &by_lsn, "--json"]);
    let json = said.is(0, &["restoring base backup", "to look at it"]).json();
    assert_eq!(json["shadow"]["backend"], "pgbackrest");
    assert_eq!(psql(&s.shadow(Path::new(&by_lsn)), content).unwrap(), right);
    // The live database is as it was.
    assert_eq!(s.cluster.sql("shop", "select count(*) from orders where total = 0"), "300");

    // Isolated as a shadow of ours, whatever was restored into its folder.
    let at = s.shadow(Path::new(&by_lsn));
    assert_eq!(
        psql(&at, "select current_setting('archive_mode'), current_setting('listen_addresses')").unwrap(),
        "off|"
    );
    assert_eq!(psql(&at, "select pg_get_wal_replay_pause_state()").unwrap(), "paused");

    // Tablespaces are its own, too.
    let place = psql(&at, "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'").unwrap();
    assert!(place.starts_with(&by_lsn), "{place}");
    assert_eq!(psql(&at, "select sum(price) from prices").unwrap(), "100");

    // It is rewritten, links to tablespaces and all, by whoever may no more than its server.
    Shadow::load(Path::new(&by_lsn)).unwrap().instance().unwrap().stop(Stop::Fast, LIMIT).unwrap();
    // As after a crash: pgBackRest by itself refuses for the file alone.
    let stale = Path::new(&by_lsn).join("data/postmaster.pid");
    std::fs::write(&stale, "999999999\n").unwrap();
    mine(&stale);
    s.run_as_owner(&["pitr", "restore", "--to", &lsn, "--dir", &by_lsn, "--delta"]).is(0, &["stands before lsn:"]);
    assert_eq!(psql(&s.shadow(Path::new(&by_lsn)), content).unwrap(), right);

    // It moves on to a name, past the damage, and no further, also when root takes over.
    s.run(&["pitr", "advance", "--to", "name:after_damage", "--shadow", &by_lsn])
        .is(0, &["stands before name:after_damage"]);
    assert_eq!(psql(&at, "select count(*), count(*) filter (where total = 0) from orders").unwrap(), "400|300");

    // And it is thrown away by its own user.
    s.run_as_owner(&["pitr", "discard", "--shadow", &by_lsn]).is(0, &["is gone"]);
    assert!(!Path::new(&by_lsn).exists());

    let (time, by_time) = (format!("time:{}", s.time), there("by-time"));
    s.run(&["pitr", "restore", "--to", &time, "--dir", &by_time]).is(0, &["stands before time:"]);
    assert_eq!(psql(&s.shadow(Path::new(&by_time)), content).unwrap(), right);
    s.run(&["pitr", "verify", "--shadow", &by_time]).is(0, &["checks passed", "lost:"]);

    let said = s.run(&["pitr", "promote", "--shadow", &by_time, "--confirm", "shop", "--own-address"]);
    said.is(0, &["promoted: timeline 2, archiving into stanza main of pgBackRest", "let pg1-path of the stanza name"]);
    let at = s.shadow(Path::new(&by_time));
    assert_eq!(psql(&at, "insert into orders values (9000, 1) returning id").unwrap(), "9000");
    // The new timeline is in the same repository, with the history that leads there.
    let range = s.run(&["pitr", "range", "--json"]).json();
    let timelines: Vec<i64> =
        range["timelines"].as_array().unwrap().iter().filter_map(|t| t["timeline"].as_i64()).collect();
    assert_eq!(timelines, [1, 2], "{range}");
}

#[test]
fn the_range_is_that_of_its_repository() {
    let s = shared();
    let said = s.run(&["pitr", "range", "--json"]).is(0, &["timeline  1", &s.label, "cannot    overwrite"]);
    let json = said.json();
    assert_eq!(json["backups"][0], s.label.as_str());
    assert_eq!(json["holes"], serde_json::json!([]));
    let newest = s.cluster.sql("shop", "select to_char(max(pg_xact_commit_timestamp(xmin)) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') from orders");
    assert!(json["latest"].as_str().unwrap().starts_with(&newest), "{newest}: {json}");
    s.run(&["pitr", "check", "--to", &format!("lsn:{}", s.before)]).is(0, &[&s.label, "can be recovered to"]);
    s.run(&["pitr", "check", "--to", &format!("xid:{}", s.xid)]).is(0, &["can be recovered to"]);
    s.run(&["backup", "list"]).is(0, &[&s.label, "full", "complete at"]);
    s.run(&["backup", "verify"]).is(0, &["right: pgbackrest says valid", "log  right"]);
    for ours in [&["--anchor", "1:00"][..], &["--deep"], &["--pick", "random"]] {
        s.run(&[&["backup", "verify"], ours].concat()).is(2, &[ours[0], "is for a repository of ours"]);
    }
}

#[test]
fn health_and_doctor_look_at_its_repository() {
    let s = shared();
    let said = s.run(&["health", "--json"]);
    let json = said.json();
    assert_eq!(json["components"]["repository"], "operational", "{said:?}");
    assert_eq!(json["components"]["backup"], "operational", "{said:?}");
    assert!(json["backup_age_ms"].is_u64(), "{said:?}");
    let said = s.run(&["doctor"]);
    assert!(said.all().contains("stanza main of pgBackRest answers"), "{said:?}");
    assert!(said.all().contains(&format!("newest backup {}", s.label)), "{said:?}");
    assert!(!said.all().contains("another tool holds the log"), "{said:?}");
    assert!(!said.all().contains("set BACKUP_DIR"), "{said:?}");

    let (repo, config) = s.copy("health");
    let gone = segment(&repo, 1);
    std::fs::remove_file(&gone).unwrap();
    let said = s.with("main", &config, &["health", "--json"]);
    assert_eq!(said.json()["components"]["log"], "hole", "{said:?}");
    s.with("main", &config, &["doctor"]).is(1, &["the log has a hole", &name_of(&gone)]);
    let said = s.with("main", Path::new("/nowhere.conf"), &["health", "--json"]);
    assert_eq!(said.json()["components"]["repository"], "down", "{said:?}");
}

#[test]
fn targets_out_of_range_are_refused_with_what_can_be_reached() {
    let s = shared();
    let dir = s.room.path.join("never");
    let to = |moment: &str| s.run(&["pitr", "restore", "--to", moment, "--dir", &dir.display().to_string()]);
    to("lsn:7/0").is(4, &["cannot recover to lsn:7/0", "beyond the end of the archived log"]);
    to("lsn:0/10").is(4, &["before the oldest base backup was complete", "the earliest point is"]);
    to("time:2001-01-01T00:00:00Z").is(4, &["before the oldest base backup was complete"]);
    to("time:2999-01-01T00:00:00Z").is(4, &["in the future"]);
    to("name:nobody_made_it").is(4, &["no restore point of this name"]);
    to("xid:4000000000").is(4, &["its commit is not in the archived log"]);
    s.run(&["pitr", "restore", "--to", "latest", "--into", "place", "--confirm", "shop"]).is(4, &["never overwrites"]);
    assert!(!dir.exists());
}

#[test]
fn what_is_not_there_is_said_although_its_exit_code_is_0() {
    let s = shared();
    let config = s.room.path.join("pgbackrest.conf");
    for words in [["pitr", "range"], ["backup", "list"], ["backup", "verify"]] {
        s.with("other", &config, &words).is(2, &["no stanza \"other\"", "missing stanza path"]);
        s.with("main", &s.room.path.join("none.conf"), &words).is(2, &["none.conf", "pgbackrest.config"]);
    }
    let (_, wrong) = s.copy("wrong-pass");
    let text = std::fs::read_to_string(&wrong).unwrap();
    std::fs::write(&wrong, text.replace("not-for-anybody", "something-else")).unwrap();
    s.with("main", &wrong, &["pitr", "range"]).is(3, &["cannot be read", "unable to load info file"]);
    s.with("../main", &config, &["pitr", "range"]).is(2, &["not the name of a stanza"]);
}

#[test]
fn a_damaged_backup_fails_although_its_own_verify_ends_with_0() {
    let s = shared();
    let (repo, config) = s.copy("damaged-backup");
    let base = repo.join(format!("backup/main/{}/pg_data/base", s.label));
    let files = walk(&base);
    let largest = files.iter().max_by_key(|p| std::fs::metadata(p).unwrap().len()).unwrap();
    flip(largest);
    own(&config, &["--output=text", "--verbose", "verify"]);
    let said = s.with("main", &config, &["backup", "verify", "--json"]).is(1, &[&s.label, "invalid"]);
    assert_eq!(said.json()["ok"], false);
    assert_eq!(said.json()["backups"][0]["error"]["kind"], "check");
    // And a restore of it does not stand.
    let dir = s.room.path.join("of-damage");
    s.with(
        "main",
        &config,
        &["pitr", "restore", "--to", &format!("lsn:{}", s.before), "--dir", &dir.display().to_string()],
    )
    .is(3, &["pgbackrest restore failed"]);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn damage_in_the_log_is_found_before_anything_is_restored() {
    let s = shared();
    let to = |config: &Path, moment: &str, dir: &Path| {
        s.with("main", config, &["pitr", "restore", "--to", moment, "--dir", &dir.display().to_string()])
    };
    let lsn = format!("lsn:{}", s.before);
    let never = s.room.path.join("never-built");
    // One byte in a segment on the way.
    let (repo, config) = s.copy("flipped");
    let bad = segment(&repo, 3);
    flip(&bad);
    own(&config, &["verify"]);
    s.with("main", &config, &["backup", "verify"]).is(1, &["log  WRONG", "checksum invalid: 1"]);
    to(&config, &lsn, &never).is(4, &["the log is broken at segment", &name_of(&bad), "the last good segment is"]);
    to(&config, "latest", &never).is(4, &[&name_of(&bad)]);
    // A segment that is not there: its own verify says "ok" of that.
    let (repo, config) = s.copy("hole");
    let gone = segment(&repo, 3);
    std::fs::remove_file(&gone).unwrap();
    own(&config, &["verify"]);
    s.with("main", &config, &["backup", "verify"]).is(1, &["log  WRONG", &name_of(&gone), "is missing"]);
    s.with("main", &config, &["pitr", "range"]).is(1, &["HOLE", &name_of(&gone), "the log has holes"]);
    to(&config, "latest", &never).is(4, &["the log is broken at segment", &name_of(&gone)]);
    // Cut short.
    let (repo, config) = s.copy("cut");
    let short = segment(&repo, 3);
    let bytes = std::fs::read(&short).unwrap();
    std::fs::write(&short, &bytes[..bytes.len() / 2]).unwrap();
    to(&config, &lsn, &never).is(4, &["the log is broken at segment", &name_of(&short)]);
    // The log that the backup itself needs: its own verify says "valid" of that backup.
    let (repo, config) = s.copy("first");
    let list = s.with("main", &config, &["backup", "list", "--json"]).json();
    let needed = list["backups"][0]["first_segment"].as_str().unwrap().to_string();
    let all = walk(&repo.join("archive/main"));
    for file in all.iter().filter(|p| p.to_string_lossy().contains(&format!("{needed}-"))) {
        std::fs::remove_file(file).unwrap();
    }
    own(&config, &["verify"]);
    s.with("main", &config, &["backup", "verify"]).is(1, &["the log it needs is missing", &needed]);
    assert!(!never.exists());
}

/// The repository goes away between two questions: that is no damage. A single file that cannot be had is.
#[test]
fn what_cannot_be_asked_is_not_called_damaged() {
    let s = shared();
    let dir = s.room.path.join("severed");
    user::own_dir(&dir, server_user().as_ref()).unwrap();
    let (tool, down) = (dir.join("pgbackrest"), dir.join("down"));
    for (cut, code, says) in [
        (format!("touch '{}'", down.display()), 3, "unable to connect to 'repository:8432'"),
        (":".to_string(), 4, "the log is broken at segment"),
    ] {
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *repo-get*) {cut}; down=1;; esac\n\
             if [ -n \"$down\" ] || [ -e '{}' ]; then echo \"ERROR: [049]: unable to connect to 'repository:8432'\" >&2; exit 49; fi\n\
             exec '{}' \"$@\"\n",
            down.display(),
            pgbackrest().display()
        );
        let _ = std::fs::remove_file(&down);
        std::fs::write(&tool, text).unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let never = s.room.path.join("never-severed").display().to_string();
        let words = ["pitr", "restore", "--to", "latest", "--dir", &never];
        let said = s.through(&tool, None, "main", &s.room.path.join("pgbackrest.conf"), &words);
        let said = said.is(code, &[says, "cannot be read", "unable to connect"]);
        assert_eq!(said.all().contains("the log is broken"), code == 4, "{said:?}");
    }
}

/// One that answers nothing, and one that verifies without end: both are left when they are told to.
#[test]
fn a_signal_ends_what_waits_for_it() {
    let room = Scratch::new("pgbr-silent");
    mine(&room.path);
    let stand_in = |name: &str, info: &str| {
        let (path, begun) = (room.path.join(name), room.path.join(format!("{name}-begun")));
        let text = format!(
            "#!/bin/sh\nhang() {{ echo $$ > '{0}-new'; mv '{0}-new' '{0}'; exec sleep 600; }}\n\
             case \"$*\" in *repo-ls*) echo '{{}}';; *verify*) hang;; *info*) {info};; esac\n",
            begun.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        (path, begun)
    };
    let info = "echo '[{\"name\":\"main\",\"status\":{\"code\":0,\"message\":\"ok\"},\"db\":[{\"id\":1,\"system-id\":7,\
                \"version\":\"15\"}],\"archive\":[{\"database\":{\"id\":1},\"id\":\"15-1\",\"min\":null,\"max\":null}],\"backup\":\
                [{\"label\":\"20260101-000000F\",\"type\":\"full\",\"database\":{\"id\":1},\"archive\":null,\"lsn\":null,\
                \"timestamp\":{\"start\":1,\"stop\":2},\"info\":{\"size\":1}}]}]'";
    for (name, info, words, says) in [
        ("silent", "hang", "list", ""),
        ("mute", "hang", "verify", "stopped on request: pgbackrest info had not answered yet"),
        ("endless", info, "verify", "stopped on request: the backups were not verified"),
    ] {
        let (path, begun) = stand_in(name, info);
        let file = room.path.join(format!("{name}.toml"));
        let text = format!(
            "[recovery]\nbackend = \"pgbackrest\"\n[pgbackrest]\nstanza = \"main\"\nprogram = \"{}\"\n",
            path.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut c = program(&room.path, &file, &["backup", words]);
        let child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while !begun.exists() {
            assert!(Instant::now() < deadline, "{name}: it is never asked");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let (send, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(child.wait_with_output().unwrap()));
        let out = ended.recv_timeout(LIMIT);
        let asked = std::fs::read_to_string(&begun).unwrap().trim().parse().unwrap();
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(asked).unwrap(),
            rustix::process::Signal::KILL,
        );
        let out = out.unwrap_or_else(|_| panic!("backup {words} does not end"));
        let status =
            std::os::unix::process::ExitStatusExt::signal(&out.status).map_or(out.status.code(), |s| Some(128 + s));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(status == Some(143) && said.contains(says), "{words}: {status:?} {said}");
    }
}

#[test]
fn a_segment_that_breaks_while_it_is_replayed_stops_the_recovery() {
    // What the server is told to run: damage must never look like the end of the log to it.
    let s = shared();
    let (repo, config) = s.copy("rot");
    let bytes = std::fs::read(segment(&repo, 2)).unwrap();
    std::fs::write(segment(&repo, 2), &bytes[..bytes.len() / 2]).unwrap();
    let command = format!(
        "'{}' --config='{}' --stanza='main' --pg1-path='{}' --repo=1 --no-archive-async archive-get {} \"{}\" || \
         {{ r=$?; if [ $r -eq 1 ]; then exit 1; fi; exit 200; }}",
        pgbackrest().display(),
        config.display(),
        s.cluster.instance.layout.data.display(),
        name_of(&segment(&repo, 2)),
        s.room.path.join("repo/got").display()
    );
    let run = |command: &str| {
        let mut c = Command::new("/bin/sh");
        c.args(["-c", command]).env_clear().current_dir("/");
        user::apply(&mut c, server_user().as_ref());
        c.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(run(&command), Some(200));
    assert_eq!(run(&command.replace(&name_of(&segment(&repo, 2)), "0000000100000000000000FF")), Some(1));
    assert_eq!(run(&command.replace(&name_of(&segment(&repo, 2)), &name_of(&segment(&repo, 1)))), Some(0));
}
