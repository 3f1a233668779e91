//! One cluster for the topic: destructive transactions of every kind among traffic and noise, and its log.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use breakglass::postgres::{Stop, user};
use breakglass::recovery::wal_locate::{NameMap, Report, Rules, Segment, locate, snapshot, source};

use crate::support::cluster::{Cluster, LIMIT, block_on, programs};

/// What a tagged transaction was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    pub label: String,
    pub xid: u32,
}

/// The log and what is in it.
pub struct Fixture {
    /// Its folder holds the rest; removed with it.
    #[allow(dead_code)]
    pub cluster: Arc<Cluster>,
    /// Copies of all segments, as an archive would hold them (the last one may end), readable by the server's user.
    pub wal: PathBuf,
    /// Names as of after the set-up: nothing of what was created later.
    pub names: NameMap,
    pub tagged: Vec<Tagged>,
    /// A base backup taken after the set-up.
    pub base: PathBuf,
    /// Transactions that wrote to the table `ledger`, as it stood at the end.
    pub ledger: Vec<u32>,
}

pub const ROUNDS: usize = 6;

/// The fixture, made once.
pub fn fixture() -> &'static Fixture {
    static ONCE: OnceLock<Fixture> = OnceLock::new();
    ONCE.get_or_init(make)
}

impl Fixture {
    pub fn segments(&self) -> Vec<Segment> {
        source::in_folder(&self.wal, None, None, true).unwrap().map(|s| s.unwrap()).collect()
    }
    /// What is found with the names of the set-up and the usual rules, found once.
    pub fn report(&self) -> &'static Report {
        static ONCE: OnceLock<Report> = OnceLock::new();
        ONCE.get_or_init(|| {
            locate(self.segments().into_iter().map(Ok), self.names.clone(), Rules::default()).unwrap().0
        })
    }
    pub fn xid(&self, label: &str) -> u32 {
        self.tagged.iter().find(|t| t.label == label).unwrap_or_else(|| panic!("no {label}")).xid
    }
}

/// Runs a script with psql, each statement by itself, and returns its output.
pub fn script(c: &Cluster, database: &str, sql: &str) -> String {
    let mut child = psql(c, database);
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{err}");
    String::from_utf8(out.stdout).unwrap()
}

fn psql(c: &Cluster, database: &str) -> std::process::Child {
    let mut p = Command::new(programs().path("psql"));
    p.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]).env_clear().current_dir("/");
    for (name, value) in c.database(database).tool_env() {
        p.env(name, value.expose());
    }
    p.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn make() -> Fixture {
    let c = Cluster::start(
        "wal",
        &[
            ("max_prepared_transactions", "4"),
            ("autovacuum", "on"),
            ("autovacuum_naptime", "1s"),
            ("autovacuum_vacuum_threshold", "20"),
            ("min_wal_size", "512MB"),
            ("max_wal_size", "1GB"),
            ("wal_keep_size", "512MB"),
        ],
    );
    let mut setup = String::from("create database shop strategy file_copy;\n\\c shop\n");
    setup.push_str("create table traffic (w int, n int, note text, primary key (w, n));\n");
    setup.push_str("create table ledger (x bigint default pg_current_xact_id()::text::bigint, w int);\n");
    setup.push_str("create table locked as select g id, 'x' p from generate_series(1, 500) g;\n");
    setup.push_str("create table fat (id serial primary key, p text, k int default 1);\n");
    setup.push_str("insert into fat (p) select repeat('y', 100) from generate_series(1, 800);\n");
    setup.push_str("create index fat_k on fat (k);\ncreate materialized view mv as select id, p from fat;\n");
    for r in 0..ROUNDS {
        setup.push_str(&round_setup(r));
    }
    setup.push_str("analyze;\n");
    script(&c, "postgres", &setup);
    let mut names = NameMap::new();
    block_on(snapshot::update(&mut names, &c.database("postgres"))).unwrap();

    let base = c.root().join("base");
    let mut p = programs().command("pg_basebackup", c.instance.user.as_ref());
    for (name, value) in c.database("postgres").tool_env() {
        p.env(name, value.expose());
    }
    // The folder is made first: the server's user may not write beside it.
    user::own_dir(&base, c.instance.user.as_ref()).unwrap();
    let out = p.args(["-c", "fast", "-X", "none", "-D"]).arg(&base).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    // Two writers of small transactions, all the while, each at some hundreds a second.
    let stop = Arc::new(AtomicBool::new(false));
    let traffic: Vec<_> = (0..2)
        .map(|w| {
            let mut child = psql(&c, "shop");
            let mut stdin = child.stdin.take().unwrap();
            let stop = stop.clone();
            let feeder = std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut sql = format!("insert into traffic values ({w}, {n}, 'a');\nselect pg_sleep(0.002);\n");
                    sql.push_str(&format!("insert into ledger (w) values ({w});\n"));
                    if n % 3 == 0 {
                        sql.push_str(&format!("update traffic set note = 'b' where w = {w} and n = {n};\n"));
                    }
                    if n % 7 == 0 {
                        sql.push_str(&format!("delete from traffic where w = {w} and n = {n};\n"));
                    }
                    stdin.write_all(sql.as_bytes()).unwrap();
                }
            });
            // It waits for nobody: what it says is read as it comes, or its pipe would fill.
            let mut stdout = child.stdout.take().unwrap();
            let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()).unwrap());
            (child, feeder, reader)
        })
        .collect();
    let mut out = String::new();
    for r in 0..ROUNDS {
        out.push_str(&script(&c, "shop", &round(r)));
    }
    script(&c, "postgres", "create database doomed strategy file_copy;\ncreate database doomed2 strategy file_copy;\n");
    script(&c, "doomed", "create table inside as select generate_series(1, 10) id;\n");
    script(&c, "postgres", "drop database doomed;\n");
    script(&c, "postgres", "drop database doomed2;\n");
    stop.store(true, Ordering::Relaxed);
    for (child, feeder, reader) in traffic {
        feeder.join().unwrap();
        reader.join().unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    out.push_str(&script(
        &c,
        "shop",
        "begin;\nselect 'tag undecided', pg_current_xact_id()::xid;\ndelete from locked where id > 350;\n\
         prepare transaction 'undecided';\n",
    ));
    // And one that is still at it when the server dies.
    let mut open = psql(&c, "shop");
    let mut stdin = open.stdin.take().unwrap();
    stdin
        .write_all(b"begin;\nselect 'tag open', pg_current_xact_id()::xid;\ndelete from locked where id <= 200;\n\\echo done\n")
        .unwrap();
    let mut lines = std::io::BufReader::new(open.stdout.take().unwrap()).lines();
    for line in lines.by_ref().map(|l| l.unwrap()).take_while(|l| l != "done") {
        out.push_str(&line);
        out.push('\n');
    }
    let ledger = script(&c, "shop", "select x from ledger;\n").lines().map(|l| l.parse().unwrap()).collect();
    let tagged = out
        .lines()
        .filter_map(|l| l.strip_prefix("tag ")?.split_once('|'))
        .map(|(label, xid)| Tagged { label: label.to_string(), xid: xid.parse().unwrap() })
        .collect();
    // What is written is what a crash leaves: no shutdown checkpoint, the log ends where it ends.
    script(&c, "postgres", "select pg_switch_wal();\nselect pg_create_restore_point('the end');\ncheckpoint;\n");
    c.instance.stop(Stop::Immediate, LIMIT).unwrap();
    drop(stdin);
    open.wait().unwrap();
    let wal = c.root().join("wal");
    std::fs::create_dir(&wal).unwrap();
    for entry in std::fs::read_dir(c.instance.layout.data.join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let copy = wal.join(entry.file_name());
            std::fs::copy(entry.path(), &copy).unwrap();
            std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        }
    }
    Fixture { cluster: c, wal, names, tagged, base, ledger }
}

fn table(name: &str, rows: usize) -> String {
    format!("create table {name} as select g id, repeat('x', 20) p from generate_series(1, {rows}) g;\n")
}

fn round_setup(r: usize) -> String {
    let mut s = String::new();
    for (name, rows) in [
        ("del", 300),
        ("upd", 300),
        ("hot", 300),
        ("tru", 300),
        ("dro", 300),
        ("sav", 300),
        ("pre", 300),
        ("abo", 300),
        ("vac", 300),
        ("rep", 300),
        ("sma", 40),
        ("mt1", 200),
        ("mt2", 200),
        ("pl", 300),
        ("few", 5000),
    ] {
        s.push_str(&table(&format!("{name}{r}"), rows));
    }
    s.push_str(&format!(
        "create schema sch{r};\n{}{}",
        table(&format!("sch{r}.a"), 50),
        table(&format!("sch{r}.b"), 50)
    ));
    s.push_str(&format!(
        "create table par{r} (id int primary key);\ninsert into par{r} select generate_series(1, 20);\n\
         create table chi{r} (id int, p int references par{r} on delete cascade);\n\
         insert into chi{r} select g, g % 20 + 1 from generate_series(1, 400) g;\n\
         create table pt{r} (id int, p text) partition by range (id);\n\
         create table pt{r}_1 partition of pt{r} for values from (0) to (100);\n\
         create table pt{r}_2 partition of pt{r} for values from (100) to (1000);\n\
         insert into pt{r} select g, 'p' from generate_series(0, 299) g;\n\
         create table toa{r} (id int, p text);\nalter table toa{r} alter p set storage external;\n\
         insert into toa{r} select g, repeat('t', 5000) from generate_series(1, 120) g;\n"
    ));
    s
}

/// A transaction that says its id.
fn tag(label: &str, body: &str) -> String {
    format!("begin;\nselect 'tag {label}', pg_current_xact_id()::xid;\n{body}\ncommit;\n")
}

fn round(r: usize) -> String {
    // Every way page images come: whole, and compressed in each manner. The first rounds begin with a
    // checkpoint, so that they come.
    let mut s = format!("set wal_compression = {};\n", ["off", "pglz", "lz4", "zstd"][r % 4]);
    if r < 4 {
        s.push_str("checkpoint;\n");
    }
    s.push_str(&noise(r));
    s.push_str(&tag(&format!("delete{r}"), &format!("delete from del{r} where id <= 200;")));
    s.push_str(&tag(&format!("update{r}"), &format!("update upd{r} set p = 'changed ' || id;")));
    s.push_str(&tag(&format!("part of hot{r}"), &format!("update hot{r} set p = 'z' where id % 2 = 0;")));
    s.push_str(&tag(&format!("truncate{r}"), &format!("truncate tru{r};")));
    s.push_str(&tag(&format!("drop{r}"), &format!("drop table dro{r};")));
    s.push_str(&tag(&format!("schema{r}"), &format!("drop schema sch{r} cascade;")));
    s.push_str(&tag(&format!("cascade{r}"), &format!("delete from par{r};")));
    s.push_str(&tag(&format!("partition{r}"), &format!("delete from pt{r};")));
    s.push_str(&tag(&format!("toast{r}"), &format!("delete from toa{r};")));
    s.push_str(&tag(
        &format!("savepoint{r}"),
        &format!(
            "savepoint a;\ndelete from sav{r} where id <= 150;\nrelease a;\nsavepoint b;\ndelete from sav{r} where id > 250;\n\
             rollback to b;\nsavepoint c;\ndelete from sav{r} where id = 151;\nrelease c;"
        ),
    ));
    s.push_str(&format!(
        "begin;\nselect 'tag prepared{r}', pg_current_xact_id()::xid;\nsavepoint a;\ndelete from pre{r} where id <= 250;\n\
         prepare transaction 'p{r}';\nselect 1 from traffic limit 0;\ncommit prepared 'p{r}';\n"
    ));
    s.push_str(&format!("vacuum full vac{r};\n"));
    s.push_str(&tag(
        &format!("vacuumed{r}"),
        &match r % 3 {
            0 => format!("delete from vac{r};"),
            1 => format!("truncate vac{r};"),
            _ => format!("drop table vac{r};"),
        },
    ));
    s.push_str(&table(&format!("eph{r}"), 250));
    s.push_str(&tag(&format!("ephemeral{r}"), &format!("drop table eph{r};")));
    s.push_str(&tag(
        &format!("replaced{r}"),
        &format!("truncate rep{r};\ninsert into rep{r} select g, 'new' from generate_series(1, 3) g;"),
    ));
    s.push_str(&tag(&format!("small{r}"), &format!("delete from sma{r};")));
    s.push_str(&tag(&format!("two tables{r}"), &format!("truncate mt1{r}, mt2{r};")));
    s.push_str(&tag(
        &format!("plpgsql{r}"),
        &format!(
            "do $$ begin begin delete from pl{r} where id <= 120; exception when others then null; end;\n\
             begin delete from pl{r} where id > 120; raise 'no'; exception when others then null; end; end $$;"
        ),
    ));
    s.push_str(&format!("alter table upd{r} rename to renamed{r};\n"));
    s.push_str(&tag(&format!("renamed{r}"), &format!("delete from renamed{r} where id > 100;")));
    s.push_str(&format!(
        "begin;\nselect 'tag aborted delete{r}', pg_current_xact_id()::xid;\ndelete from abo{r};\nrollback;\n\
         begin;\nselect 'tag aborted truncate{r}', pg_current_xact_id()::xid;\ntruncate abo{r};\nrollback;\n\
         begin;\nselect 'tag aborted drop{r}', pg_current_xact_id()::xid;\ndrop table abo{r};\nrollback;\n"
    ));
    s
}

/// What must not be a suspect.
fn noise(r: usize) -> String {
    let mut s = String::new();
    s.push_str("vacuum full fat;\ncluster fat using fat_pkey;\nreindex table fat;\nvacuum fat;\nanalyze fat;\n");
    s.push_str("alter table fat alter k type bigint;\nalter table fat alter k type int;\n");
    s.push_str("refresh materialized view mv;\n");
    s.push_str("begin;\nselect 1 from (select 1 from locked for update) x limit 0;\ncommit;\n");
    s.push_str("begin;\ndo $$ begin perform 1 from locked for update; end $$;\ncommit;\n");
    s.push_str(&format!("create table cop{r} (id int, p text);\ncopy cop{r} from stdin;\n"));
    for i in 0..400 {
        s.push_str(&format!("{i}\tcopied\n"));
    }
    s.push_str("\\.\n");
    s.push_str(&format!("insert into cop{r} select g, 'i' from generate_series(1, 500) g;\n"));
    s.push_str(&format!("begin;\n{}truncate tmp{r};\ndrop table tmp{r};\ncommit;\n", table(&format!("tmp{r}"), 300)));
    s.push_str(&format!(
        "begin;\n{}delete from own{r};\ninsert into own{r} values (1);\ncommit;\n",
        table(&format!("own{r}"), 300)
    ));
    s.push_str(&format!("create index noi{r} on cop{r} (id);\ndrop index noi{r};\n"));
    s.push_str(&format!("create sequence seq{r};\nalter sequence seq{r} restart;\ndrop sequence seq{r};\n"));
    s.push_str(&format!(
        "create temp table te{r} as select generate_series(1, 500) id;\ndelete from te{r};\ndrop table te{r};\n\
         create unlogged table ul{r} as select generate_series(1, 500) id;\ndelete from ul{r};\ndrop table ul{r};\n"
    ));
    s.push_str(&format!("create view v{r} as select id from fat;\ndrop view v{r};\n"));
    s.push_str(&format!("delete from few{r} where id <= 40;\n"));
    s
}
