//! SQL blocks, by real workers against a real server.

use std::sync::{Arc, OnceLock};

use breakglass::action::sql::split;
use breakglass::config::Connection;
use breakglass::incident::{Run, RunStatus};
use breakglass::model::RunId;
use breakglass::model::event::Outcome;
use breakglass::model::plan::Risk;
use breakglass::runtime;

use super::{Desk, until};
use crate::support::cluster::Cluster;

fn cluster() -> Arc<Cluster> {
    static ONE: OnceLock<std::sync::Mutex<std::sync::Weak<Cluster>>> = OnceLock::new();
    let mut weak = ONE.get_or_init(Default::default).lock().unwrap();
    if let Some(c) = weak.upgrade() {
        return c;
    }
    let c = Cluster::start("sql-blocks", &[]);
    c.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY, what text); INSERT INTO t VALUES (1, 'one'), (2, NULL), (3, E'three\\nlines')");
    *weak = Arc::downgrade(&c);
    c
}

fn desk(c: &Cluster) -> Desk {
    let mut d = Desk::new();
    let at = c.database("postgres");
    d.job.settings.database = Some(Connection {
        host: at.host().into(),
        port: at.port(),
        user: at.user().into(),
        database: at.name().into(),
        sslmode: None,
    });
    d
}

fn start(d: &mut Desk, code: &str, risk: Risk, more: &[&str]) -> RunId {
    let mut request = d.request(code, &[&["--risk", risk.word()], more].concat());
    request.action = "sql".into();
    request.risk = Risk::Read;
    d.job.code = Some(code.into());
    let (run, started) = runtime::start_run(&mut d.incident, request, &d.job, &d.secrets, &d.program).unwrap();
    started.unwrap();
    run
}

fn ran(d: &mut Desk, code: &str, risk: Risk, more: &[&str]) -> (Run, String) {
    let run = start(d, code, risk, more);
    let ended = d.ended(run);
    let output = d.output(run);
    (ended, output)
}

#[test]
fn rows_are_shown_as_a_table() {
    let c = cluster();
    let mut d = desk(&c);
    let (run, output) =
        ran(&mut d, "SELECT id, what FROM t ORDER BY id; -- all\nSELECT count(*) AS n FROM t;", Risk::Read, &[]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Succeeded), "{output}");
    let want = " id | what\n----+-------------\n 1  | one\n 2  | \n 3  | three↵lines\n(3 rows)\n n\n---\n 3\n(1 row)\n";
    assert_eq!(output, want);
    assert_eq!(run.summary, "2 statements, 4 rows");
    let (_, output) = ran(&mut d, "SELECT generate_series(1, 5000) AS i", Risk::Read, &["--rows", "3"]);
    assert!(output.ends_with("(5000 rows, the first 3 shown)\n") && output.lines().count() == 6, "{output}");
}

#[test]
fn a_reading_block_cannot_write() {
    let c = cluster();
    let mut d = desk(&c);
    for code in [
        "DELETE FROM t",
        "SELECT 1; CREATE TABLE x ()",
        "WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d",
        "SELECT nextval('s')",
    ] {
        let (run, output) = ran(&mut d, code, Risk::Read, &[]);
        assert_eq!(run.status, RunStatus::Finished(Outcome::Failed), "{code}: {output}");
    }
    for code in
        ["COMMIT; DELETE FROM t", "/* x */ rollback; DELETE FROM t", "SET transaction_read_only = off; DELETE FROM t"]
    {
        let (run, _) = ran(&mut d, code, Risk::Read, &[]);
        assert_eq!(run.status, RunStatus::Finished(Outcome::Refused), "{code}");
    }
    assert_eq!(c.sql("postgres", "SELECT count(*) FROM t"), "3");
}

#[test]
fn a_changing_block_stops_at_the_first_error_and_keeps_what_was_done() {
    let c = cluster();
    let mut d = desk(&c);
    let code =
        "CREATE TABLE made (i int); INSERT INTO made VALUES (1), (2); INSERT INTO nowhere VALUES (1); DROP TABLE made";
    let (run, output) = ran(&mut d, code, Risk::Change, &[]);
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished(Outcome::Failed), Some(3)));
    assert!(run.summary.contains("statement 3 of 4") && run.summary.contains("nowhere"), "{}", run.summary);
    assert!(output.contains("INSERT INTO: 2 rows"), "{output}");
    assert_eq!(c.sql("postgres", "SELECT count(*) FROM made"), "2");
    // VACUUM refuses a transaction: each statement stands for itself.
    let (run, output) = ran(&mut d, "VACUUM made; DROP TABLE made", Risk::Change, &[]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Succeeded), "{output}");
}

#[test]
fn a_slow_statement_ends_at_its_limit_or_on_cancel() {
    let c = cluster();
    let mut d = desk(&c);
    let (run, _) = ran(&mut d, "SELECT pg_sleep(600)", Risk::Read, &["--timeout", "200ms"]);
    assert!(run.summary.contains("statement timeout"), "{}", run.summary);
    let run = start(&mut d, "SELECT pg_sleep(601)", Risk::Read, &[]);
    let sleeping =
        || c.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)'") == "1";
    until("the statement runs", || sleeping().then_some(()));
    d.cancel(run);
    assert_eq!(d.ended(run).status, RunStatus::Finished(Outcome::Cancelled));
    let active = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)' AND state = 'active'";
    until("the server ended it", || (c.sql("postgres", active) == "0").then_some(()));
}

#[test]
fn a_destroying_block_sees_who_it_is_connected_to() {
    let c = cluster();
    let mut d = desk(&c);
    d.job.settings.expect = [("system_identifier".to_string(), "1".to_string())].into();
    let (run, _) = ran(&mut d, "DROP TABLE t", Risk::Destroy, &[]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Refused));
    assert!(run.summary.contains("system_identifier"), "{}", run.summary);
    assert_eq!(c.sql("postgres", "SELECT count(*) FROM t"), "3");
}

#[test]
fn psql_commands_and_empty_blocks_are_refused() {
    let c = cluster();
    let mut d = desk(&c);
    for (code, why) in [("\\dt", "psql"), ("-- nothing\n;;", "no statement")] {
        let (run, _) = ran(&mut d, code, Risk::Read, &[]);
        assert!(run.status != RunStatus::Finished(Outcome::Succeeded) && run.summary.contains(why), "{}", run.summary);
    }
}

#[test]
fn blocks_are_split_as_psql_splits_them() {
    let all: [(&str, &[&str]); 12] = [
        ("select 1; select 2;", &["select 1", "select 2"]),
        ("select ';' ; select '''; '", &["select ';'", "select '''; '"]),
        (r"select E'\'; '; select 2", &[r"select E'\'; '", "select 2"]),
        (r"select '\'; select 2", &[r"select '\'", "select 2"]),
        (r"select date'\'; select 2", &[r"select date'\'", "select 2"]),
        ("select \"a;b\"; select 2", &["select \"a;b\"", "select 2"]),
        ("do $$ begin; end $$; select 2", &["do $$ begin; end $$", "select 2"]),
        ("select $a$ $$;$b$; $a$; x", &["select $a$ $$;$b$; $a$", "x"]),
        ("select a$1; select $1;", &["select a$1", "select $1"]),
        (
            "-- one; two\nselect 1 -- three; four\n; /* five; /* six; */ */ select 2",
            &["select 1 -- three; four", "select 2"],
        ),
        (
            "create rule r as on insert to t do (select 1; select 2); x",
            &["create rule r as on insert to t do (select 1; select 2)", "x"],
        ),
        ("select 'é;ü'; ;; ", &["select 'é;ü'"]),
    ];
    for (code, want) in all {
        assert_eq!(split(code), want, "{code}");
    }
}
