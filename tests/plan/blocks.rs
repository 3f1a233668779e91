//! C1 to C6: what a fence is for, and what stands before running it. Uncertain code is never runnable.

use breakglass::action::runnable;
use breakglass::model::Risk;
use breakglass::model::plan::{Block, BlockRole};
use breakglass::plan::{attributes, commands, risk};

use super::{only, read};

/// The first block of a document with this info string and code below a step.
fn block(info: &str, code: &str) -> Block {
    let plan = read(&format!("# P\n\n1. Step\n2. Other\n\n```{info}\n{code}\n```\n"));
    plan.blocks[0].clone()
}

#[test]
fn roles() {
    use BlockRole::{Comment, Output, Query, Run, Sample, Source, Template, Text};
    let cases: &[(&str, &str, BlockRole)] = &[
        ("bash", "kubectl get pods", Run),
        ("BASH", "ls", Run),
        ("powershell", "Get-Service", Run),
        ("bash", "# only\n# comments", Comment),
        ("bash", "", Text),
        ("bash", "SELECT * FROM t;", Query),
        ("bash", "BEGIN;\nUPDATE t SET a = 1;\nCOMMIT;", Query),
        ("bash", "update-ca-certificates", Run),
        ("bash", "create table --help", Run),
        ("bash", "{\"a\": 1}", Sample),
        ("bash", "│ tree │", Sample),
        ("sql", "SELECT 1;", Query),
        ("sql", "-- export\npg_dump --host=x --file=y", Run),
        ("sql", "-- only a remark", Comment),
        ("promql", "up == 0", Query),
        ("yaml", "rm: -rf /", Sample),
        ("json", "{\"run\": \"rm -rf /\"}", Sample),
        ("env", "A=1", Sample),
        ("javascript", "exec('rm -rf /')", Source),
        ("python", "import os", Source),
        ("mermaid", "graph TD; A-->B", Text),
        ("output", "rm -rf /", Output),
        ("text", "rm -rf /", Text),
        ("markdown", "# Title\n- [ ] box", Text),
        ("", "kubectl get pods -A", Run),
        ("", "kubectl get pods\nNAME READY STATUS\nweb 1/1 Running", Text),
        ("", "find the last good backup and restore it", Text),
        ("", "make sure that nobody writes.", Text),
        ("", "Dashboard > Backups > Restore", Text),
        ("", "web\n├── api\n└── db", Text),
        ("", "Subject: Outage\n\nDear customers, [Service Name] is down", Template),
        ("", "Status: Investigating\nImpact: all users", Template),
        ("text", "Severity: [P0/P1]\nStarted: [Time]", Template),
        ("console", "$ ls\nfile", Run),
        ("console", "ls -l\ntotal 0\ndrwx root", Output),
        ("unheard-of", "rm -rf /", Text),
    ];
    for (info, code, want) in cases {
        assert_eq!(block(info, code).role, *want, "{info:?} {code:?}");
    }
}

#[test]
fn a_template_section_makes_untagged_text_a_message() {
    let plan = read("# P\n\n## Communication templates\n\n### First\n\n```\nWe are on it, [Name].\n```\n");
    assert_eq!(plan.blocks[0].role, BlockRole::Template);
    assert_eq!(plan.blocks[0].placeholders, ["[Name]"]);
    assert!(plan.extras.iter().any(|e| e.kind == "template" && e.title == "First"));
}

#[test]
fn what_stands_below_expected_output_is_output() {
    let plan = read("# P\n\n1. Check\n\n   Expected output:\n\n   ```\n   kubectl get pods\n   ```\n2. Go on\n");
    assert_eq!(plan.blocks[0].role, BlockRole::Output);
}

#[test]
fn of_a_transcript_only_the_commands_are_kept_to_run() {
    let block = block("console", "$ kubectl get pods \\\n  -A\nNAME READY\n$ kubectl get nodes\nok");
    assert_eq!(block.code, "kubectl get pods \\\n  -A\nkubectl get nodes");
    assert!(block.raw.as_deref().is_some_and(|r| r.contains("NAME READY")));
    assert_eq!(self::block("bash", "root@db1:~# pg_ctl stop\nok").code, "pg_ctl stop");
}

#[test]
fn never_wins_over_everything_and_an_author_may_ask_for_an_untagged_block() {
    assert_eq!(block("bash { run=never }", "ls").role, BlockRole::Sample);
    assert_eq!(block("bash {\"ignore\":\"true\"}", "ls").role, BlockRole::Sample);
    assert_eq!(block("sql {run=never}", "SELECT 1").role, BlockRole::Sample);
    assert_eq!(block("yaml { run=confirm }", "a: 1").role, BlockRole::Sample, "a sample never becomes runnable");
    assert_eq!(block("{ run=confirm }", "deploy-tool --now").role, BlockRole::Run);
}

#[test]
fn a_blank_does_not_hide_the_session_it_opens() {
    for code in ["ssh operator@<db-host>\nsudo reboot", "ssh <host>\nrm -rf /var/lib/x", "ssh YOUR_HOST\nreboot"] {
        let b = block("bash", code);
        assert!(!b.runnable(), "{code:?} would run its later lines here");
        assert!(b.blocked.as_ref().is_some_and(|w| w.contains("the other side")), "{code:?}: {:?}", b.blocked);
    }
    assert!(block("bash", "ssh <host> uptime\ndate").runnable(), "a command for the other side stands on its line");
}

#[test]
fn a_session_with_lines_for_the_other_side_is_never_run_top_to_bottom() {
    for code in [
        "ssh prod-db-1\nsudo systemctl stop postgresql\nrm -rf /var/lib/postgresql",
        "ssh -i key.pem -p 22 admin@host\nls",
        "kubectl exec -it pod -- bash\npsql",
        "docker exec -it db psql\nSELECT 1;",
        "sudo su - postgres\npg_ctl stop",
        "psql $DATABASE_URL\n\\dt",
    ] {
        let block = block("bash", code);
        assert_eq!(block.role, BlockRole::Run);
        assert!(!block.runnable(), "{code:?}");
        assert!(block.blocked.as_deref().is_some_and(|b| b.contains("other side")), "{code:?}");
    }
    for code in [
        "ssh host uptime\nls",
        "ssh -N -L 1:2:3 host\nls",
        "ssh host",
        "psql -c 'SELECT 1'\nls",
        "psql -f a.sql\nls",
        "psql < a.sql\nls",
        "kubectl exec pod -- ls\nls",
    ] {
        assert!(block("bash", code).blocked.is_none(), "{code:?}");
    }
    assert!(block("bash", "ssh host").interactive);
}

#[test]
fn what_was_left_out_is_not_run() {
    assert!(!block("bash", "curl -X POST ... -d @body").runnable());
    assert!(!block("bash", "REDIS_URL=rediss://... tsx flush.ts").runnable());
    assert!(block("bash", "go test ./...").runnable());
    assert!(block("bash", "git log a...b").runnable());
}

#[test]
fn blanks_become_questions() {
    let cases: &[(&str, &[&str])] = &[
        ("kubectl delete pod <pod-name> -n <ns>", &["<pod-name>", "<ns>"]),
        ("curl https://x/services/YOUR_SERVICE_ID/restart", &["YOUR_SERVICE_ID"]),
        ("psql -h db.your-project.supabase.co", &["your-project"]),
        ("restore --at YYYY-MM-DD", &["YYYY-MM-DD"]),
        ("aws ec2 start --id i-xxxxxxxx", &["i-xxxxxxxx"]),
        ("deploy [Service Name]", &["[Service Name]"]),
        ("kubectl get pods -o go-template='{{.status}}' && curl -w '%{http_code}'", &[]),
        ("cat < in > out; diff <(a) <(b); cat <<EOF\nx\nEOF", &[]),
        ("awk '{print $2}' | grep '[A-Z]' | tr '[a-z]' '[A-Z]'", &[]),
        ("date +%Y%m%d; mktemp /tmp/x.XXXXXX", &[]),
        ("[ -f a ] && [[ $x == y ]]; echo ${arr[Name]}", &[]),
    ];
    for (code, want) in cases {
        assert_eq!(block("bash", code).placeholders, *want, "{code:?}");
    }
    assert!(block("sql", "SELECT * FROM t WHERE a <b AND c> d").placeholders.is_empty());
    assert_eq!(block("sql", "SELECT * FROM <table>").placeholders, ["<table>"]);
}

#[test]
fn variables_no_earlier_block_sets_are_asked_for() {
    let scenario = only(
        "# P\n\n1. A\n   ```bash\n   export URL=x\n   echo $URL $HOME ${OTHER} '$quoted' ${D:-1}\n   ```\n2. B\n   ```bash\n   psql \"$URL\" -v t=\"$TARGET\"\n   ```\n",
    );
    assert_eq!(scenario.steps[0].blocks[0].variables, ["OTHER"]);
    assert_eq!(scenario.steps[1].blocks[0].variables, ["TARGET"]);
}

#[test]
fn risks() {
    for code in [
        "rm -rf /data",
        "sudo rm -r x",
        "dropdb shop",
        "kubectl delete ns prod",
        "terraform destroy",
        "psql -c 'DROP TABLE x'",
        "pg_restore --clean -d x f",
        "redis-cli FLUSHALL",
        "a=1 && /bin/rm -rf x",
    ] {
        assert_eq!(block("bash", code).risk, Some(Risk::Destroy), "{code:?}");
    }
    for code in ["ls", "echo firm -r", "kubectl get pods", "pg_restore -l f", "terraform plan"] {
        assert_eq!(block("bash", code).risk, None, "{code:?}");
    }
    for (code, want) in [
        ("SELECT count(*) FROM t", Risk::Read),
        ("-- drop\nSELECT 'drop table x'", Risk::Read),
        ("SELECT pg_create_restore_point('x')", Risk::Change),
        ("SELECT pg_terminate_backend(1)", Risk::Change),
        ("WITH d AS (DELETE FROM t WHERE a = 1 RETURNING *) SELECT * FROM d", Risk::Change),
        ("UPDATE t SET a = 1 WHERE b = 2", Risk::Change),
        ("UPDATE t SET a = 1", Risk::Destroy),
        ("DELETE FROM t", Risk::Destroy),
        ("SELECT 1; DROP TABLE t", Risk::Destroy),
        ("EXPLAIN ANALYZE DELETE FROM t WHERE a = 1", Risk::Change),
        ("SELECT * INTO x FROM t", Risk::Change),
        ("INSERT INTO t VALUES (1)", Risk::Change),
    ] {
        assert_eq!(risk::sql(code), want, "{code:?}");
    }
}

#[test]
fn an_author_sets_the_risk_but_cannot_talk_a_destructive_pattern_down() {
    assert_eq!(block("bash { risk=read }", "breakglass assess").risk, Some(Risk::Read));
    assert_eq!(block("bash { risk=destroy }", "ls").risk, Some(Risk::Destroy));
    assert_eq!(block("bash { risk=read }", "rm -rf /").risk, Some(Risk::Destroy));
}

#[test]
fn what_our_own_command_gives_up_or_overwrites_is_destroyed() {
    let actions = [("pitr restore", Risk::Change), ("backup cleanup", Risk::Change)];
    let actions = actions.map(|(name, risk)| (name.to_string(), risk)).into();
    for (code, want) in [
        ("breakglass pitr restore --to latest", Risk::Change),
        ("breakglass pitr restore --to latest --into place", Risk::Destroy),
        ("breakglass pitr restore --to latest --delta --give-up \"$NAME\"", Risk::Destroy),
        ("breakglass backup cleanup", Risk::Change),
        ("breakglass backup cleanup --give-up=20260101T0000Z-physical-aaaaaa", Risk::Destroy),
    ] {
        assert_eq!(runnable::risk(&block("bash", code), &actions), want, "{code:?}");
    }
}

#[test]
fn our_own_command_is_recognised_in_a_block() {
    assert!(block("bash { risk=change }", "breakglass contain").own.is_some());
    assert!(block("bash", "breakglass contain | tee log").own.is_none());
    assert!(block("text", "breakglass contain").own.is_none());
}

#[test]
fn attributes_are_read_in_all_their_spellings() {
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
    let cases: &[Case] = &[
        ("bash", "bash", &[]),
        (
            "bash { run=confirm risk=destroy timeout=20m }",
            "bash",
            &[("run", "confirm"), ("risk", "destroy"), ("timeout", "20m")],
        ),
        ("bash {\"name\":\"x\",\"background\":true}", "bash", &[("name", "x"), ("background", "true")]),
        (
            "sh {expect=\"two words, \\\"quoted\\\"\", cwd='/a b'}",
            "sh",
            &[("expect", "two words, \"quoted\""), ("cwd", "/a b")],
        ),
        ("bash name=x", "bash", &[("name", "x")]),
        ("js filename with spaces", "js", &[]),
        ("bash { interactive }", "bash", &[("interactive", "")]),
        ("bash {=}", "bash", &[]),
    ];
    for (info, lang, want) in cases {
        let (got_lang, attrs, _) = attributes::parse(info);
        assert_eq!(got_lang, *lang);
        let got: Vec<(&str, &str)> = attrs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut want = want.to_vec();
        want.sort_unstable();
        assert_eq!(got, want, "{info:?}");
    }
}

#[test]
fn logical_commands() {
    let count = |code: &str| commands::chunks(code).iter().filter(|c| c.kind == commands::ChunkKind::Command).count();
    for (code, want) in [
        ("a\nb", 2),
        ("a \\\n b", 1),
        ("a |\n b", 1),
        ("a &&\n b", 1),
        ("if x; then\n  y\nfi\nz", 2),
        ("for i in 1 2; do\n  if a; then b; fi\ndone", 1),
        ("f() {\n  a\n}\nf", 2),
        ("cat <<EOF\n# not a comment\n1. not a step\nEOF\nb", 2),
        ("cat <<-'END'\n\tx\n\tEND\nb", 2),
        ("echo \"a\n# b\nc\"\nd", 2),
        ("# comment\na # it's fine\nb", 2),
        ("case $x in\n a) b;;\nesac\nc", 2),
        ("echo $(\n a\n)\nb", 2),
        ("cat <<< x\nb", 2),
    ] {
        assert_eq!(count(code), want, "{code:?}");
    }
}

#[test]
fn a_script_that_wants_arguments_is_shown_and_not_run() {
    for code in [
        "TARGET_TIME=$1\npg_restore --to \"$TARGET_TIME\"",
        "ARCHIVE=${1:-latest}\nborg extract $ARCHIVE",
        "exec psql \"$@\"",
    ] {
        let b = block("bash", code);
        assert_eq!(b.role, BlockRole::Sample, "{code:?} is called with arguments");
    }
    let own = [
        "ps aux | awk '{print $1}'",
        "f() {\n  echo $1\n}\nf now",
        "echo \"costs \\$1\"",
        "# it's $1\nls /backup",
        "psql -c 'select $1'",
    ];
    for code in own {
        assert_eq!(block("bash", code).role, BlockRole::Run, "{code:?} wants none");
    }
}

#[test]
fn what_only_looks_like_a_command_is_never_run() {
    for code in ["0 3 * * * /usr/local/bin/backup.sh", "*/15 * * * * backup >> log", "@daily backup.sh"] {
        let b = block("bash", code);
        assert_eq!(b.role, BlockRole::Sample, "{code:?} is a crontab's line");
        assert!(!b.runnable());
    }
    let tail = block("bash", "--include '/mnt/library/**' \\\n  --target /restore");
    assert_eq!((tail.role, tail.runnable()), (BlockRole::Text, false), "the tail of a command");
    assert!(block("bash", "date -u\n").runnable());
}

#[test]
fn another_shell_and_another_query_language_are_shown_and_not_given_to_bash_or_postgresql() {
    for (lang, code, says) in [
        ("powershell", "Restart-Service postgresql", "PowerShell"),
        ("cmd", "net stop postgresql", "Windows"),
        ("promql", "up{job=\"db\"} == 0", "PromQL"),
        ("kql", "requests | take 5", "KQL"),
    ] {
        let b = block(lang, code);
        assert!(!b.runnable(), "{lang}");
        assert!(b.blocked.as_ref().is_some_and(|w| w.contains(says)), "{lang}: {:?}", b.blocked);
    }
    assert!(block("sql", "select 1").runnable());
}

#[test]
fn a_blank_alone_is_no_command() {
    for code in ["[the commands that were run]", "<command>", "# what was run\n[commands]"] {
        let b = block("bash", code);
        assert_eq!((b.role, b.runnable()), (BlockRole::Text, false), "{code:?}");
    }
    for code in ["[ -f /etc/x ]", "[[ -f /etc/x ]]", "< in.sql psql -f x >out"] {
        assert_ne!(block("bash", code).role, BlockRole::Text, "{code:?}");
    }
}
