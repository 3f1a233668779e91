//! What a shell block leaves to the next: measured against bash itself.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use breakglass::action::carried::{Carried, END_MARK};
use breakglass::action::shell::known_destroy;
use breakglass::incident::{Command, RunStatus};
use breakglass::model::event::Outcome;
use breakglass::model::likely_secret;

use super::Desk;

const SHOW: &str = "echo \"A=${A-unset} B=${B-unset}\"; pwd";

#[test]
fn exports_and_folder_carry_over() {
    let mut d = Desk::new();
    let folder = d.home.path().join("with space");
    std::fs::create_dir(&folder).unwrap();
    d.ran(&format!("export A='1 \"two\"\nthree'; B=not-exported; cd '{}'", folder.display()), &[]);
    let (_, output) = d.ran(SHOW, &[]);
    assert_eq!(output, format!("A=1 \"two\"\nthree B=unset\n{}\n", folder.display()));
    d.ran("unset A; export B=2; unset HOME", &[]);
    let (_, output) = d.ran("echo \"A=${A-unset} B=${B-unset} HOME=${HOME-unset}\"", &[]);
    assert_eq!(output, "A=unset B=2 HOME=unset\n");
    // A folder that is gone is not the next block's.
    std::fs::remove_dir(&folder).unwrap();
    let (run, _) = d.ran("pwd", &[]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Succeeded));
}

#[test]
fn they_carry_however_the_block_ends_well_or_badly() {
    for (how, code, exit) in [
        ("exit", "export A=new; exit 3", 3),
        ("set -e", "set -e; export A=new; false; export A=never", 1),
        ("set -u", "set -u; export A=new; echo $NOT_SET", 127),
        ("a failed command last", "export A=new; false", 1),
        ("a background job", "export A=new; sleep 0.2 & true", 0),
        ("a subshell with a trap of its own", "export A=new; (trap 'echo x' EXIT; exit 5)", 5),
        ("a changed PATH", "export A=new PATH=/nowhere", 0),
    ] {
        let mut d = Desk::new();
        let (run, output) = d.ran(code, &[]);
        assert_eq!(run.exit_code, Some(exit), "{how}: {output}");
        let kept = Carried::load(d.incident.dir()).unwrap();
        assert_eq!(kept.set.get(std::ffi::OsStr::new("A")).map(|v| v.to_str()), Some(Some("new")), "{how}");
        assert!(!output.contains("old ones"), "{how}: {output}");
    }
}

#[test]
fn a_block_that_loses_the_trap_keeps_the_old_ones_and_says_so() {
    for (how, code) in [
        ("its own EXIT trap", "export A=new; trap 'true' EXIT"),
        ("exec", "export A=new; exec true"),
        ("kill -9", "export A=new; kill -9 $$"),
    ] {
        let mut d = Desk::new();
        d.ran("export A=old", &[]);
        let (_, output) = d.ran(code, &[]);
        assert!(output.contains("the old ones are kept"), "{how}: {output}");
        let (_, output) = d.ran("echo $A", &[]);
        assert_eq!(output, "old\n", "{how}");
    }
}

#[test]
fn a_variable_of_the_incident_wins_over_what_a_block_left() {
    let mut d = Desk::new();
    d.ran("export TARGET=from-block", &[]);
    d.incident.submit(Command::SetVariable { name: "TARGET".into(), value: "lsn:0/1".into() }).unwrap();
    assert_eq!(d.ran("echo $TARGET", &[]).1, "lsn:0/1\n");
}

#[test]
fn what_somebody_else_could_have_written_is_refused() {
    let mut d = Desk::new();
    d.ran("export A=1", &[]);
    let folder = Carried::folder(d.incident.dir());
    let file = folder.join("carried");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert_eq!(Carried::load(d.incident.dir()).unwrap_err().kind.exit_code(), 4);
    let (run, _) = d.ran("echo $A", &[]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Refused));
    // A link to a file of ours is refused too.
    let elsewhere = d.home.path().join("elsewhere");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(Carried::load(d.incident.dir()).is_err());
    Carried::forget(d.incident.dir());
    assert!(!d.incident.dir().join("env").exists());
}

#[test]
fn what_was_carried_is_gone_when_the_incident_is_closed() {
    let mut d = Desk::new();
    d.ran("export A=1", &[]);
    assert!(Carried::folder(d.incident.dir()).join("carried").exists());
    d.incident.submit(Command::Close { summary: "done".into(), force: true }).unwrap();
    assert!(!d.incident.dir().join("env").exists());
}

#[test]
fn a_report_that_was_cut_is_not_used() {
    let given: BTreeMap<_, _> = [("A".into(), "1".into()), ("PWD".into(), "/".into())].into();
    let whole = format!("A=2\0B=x=y\0PWD=/tmp\0{END_MARK}=1\0");
    let kept = Carried::default().after(&given, whole.as_bytes()).unwrap();
    assert_eq!((kept.set.len(), kept.unset.len(), kept.cwd), (2, 0, Some("/tmp".into())));
    for cut in 0..whole.len() - 3 {
        assert_eq!(Carried::default().after(&given, &whole.as_bytes()[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn names_that_look_like_secrets() {
    for name in ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "BACKUP_ENCRYPTION_KEY", "db_passwd"] {
        assert!(likely_secret(name), "{name}");
    }
    for name in ["PATH", "HOME", "AWS_ACCESS_KEY_ID", "SSH_AUTH_SOCK", "TOKEN_FILE", "KEYBOARD"] {
        assert!(!likely_secret(name), "{name}");
    }
}

#[test]
fn blocks_that_destroy_are_known() {
    for code in [
        "rm  -rf /x",
        "psql -c 'DROP   DATABASE shop'",
        "TRUNCATE orders;",
        "dropdb shop",
        "terraform destroy",
        "pg_restore --clean x",
    ] {
        assert!(known_destroy(code).is_some(), "{code}");
    }
    for code in ["# rm -rf /", "select 1", "rm file", "echo dropped tables", "git rm x"] {
        assert_eq!(known_destroy(code), None, "{code}");
    }
}
