//! `breakglass backup init|list|verify` and `wal status` as a script sees them: output, `--json`, exit codes.

use std::path::Path;
use std::process::{Command, Output};

use super::base::{files, stream};
use super::logical::program;
use super::wal::{SYSTEM, object_path, segment, write_segment};
use super::{NOBODY, PASSPHRASE, passphrase};
use breakglass::backup::base::store_base;
use breakglass::backup::repository::Repository;

fn breakglass(dir: &Path, key: Option<&str>, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(args)
        .env_clear()
        .env("HOME", dir)
        .env("BREAKGLASS_HOME", dir.join("state"))
        .env("BACKUP_DIR", dir.join("repo"));
    if let Some(key) = key {
        c.env("BACKUP_ENCRYPTION_KEY", key);
    }
    c.current_dir(dir).output().unwrap()
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn init_list_verify_by_environment_alone() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let run = |args: &[&str]| breakglass(d, Some(PASSPHRASE), args);
    let missing = run(&["backup", "list"]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing));
    assert!(text(&missing).contains("backup init"), "{}", text(&missing));
    for (key, code) in [(None, 2), (Some("too short"), 2)] {
        let out = breakglass(d, key, &["backup", "init"]);
        assert_eq!(out.status.code(), Some(code), "{}", text(&out));
        assert!(!text(&out).contains("too short"), "a key is never shown");
    }
    assert!(!d.join("repo").exists());
    let out = run(&["backup", "init"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert_eq!(run(&["backup", "init"]).status.code(), Some(4), "there is one already");
    assert!(text(&run(&["backup", "list"])).contains("no backups"));
    assert_eq!(run(&["backup", "verify"]).status.code(), Some(1), "nothing to verify is not right");
    let wrong = breakglass(d, Some("another passphrase, thirty-two characters and more"), &["backup", "list"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));

    let unlocked = Repository::open(d.join("repo").to_str().unwrap()).unwrap().unlock(&passphrase()).unwrap();
    let manifest =
        store_base(&unlocked, &mut &stream(&files(1))[..], Some("nightly"), &mut |_| Ok(())).unwrap().commit().unwrap();
    for n in [5, 6] {
        let path = write_segment(d, segment(1, n), SYSTEM, n);
        let out = run(&["wal", "archive", "--repository", d.join("repo").to_str().unwrap(), path.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    }
    assert!(text(&run(&["backup", "list"])).contains("never verified"));
    let out = run(&["backup", "verify", &manifest.id]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let out = run(&["--json", "backup", "list"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["backups"][0]["manifest"]["label"], "nightly");
    assert!(json["backups"][0]["verified_at"].is_string());
    assert_eq!(json["head"]["seq"], 2);
    let out = run(&["--json", "wal", "status"]);
    assert_eq!(out.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["timelines"][0]["segments"], 2);

    std::fs::remove_file(object_path(d, segment(1, 6))).unwrap();
    let out = run(&["--json", "backup", "verify", "--all"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["backups"][0]["error"]["why"].as_str().unwrap().contains(&segment(1, 6).to_string()), "{json}");
}

/// On a terminal a long look says how far it is and how fast; elsewhere it says nothing but its result.
#[test]
fn verification_shows_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content ".repeat(1 << 19)).unwrap();
    let made = program(d, NOBODY, &[], &["backup", "create", "--files", "data"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made));
    let (home, repo) = (d.display().to_string(), d.join("repo").display().to_string());
    let env = [("HOME", home.as_str()), ("BACKUP_DIR", repo.as_str()), ("BACKUP_ENCRYPTION_KEY", PASSPHRASE)];
    let mut pty = crate::support::pty::Pty::breakglass((80, 24), &["backup", "verify"], &env);
    assert!(pty.wait_exit().success());
    pty.wait_text("right: ");
    let shown = String::from_utf8_lossy(&pty.bytes()).into_owned();
    assert!(shown.contains("verify  4.2 MB") && shown.contains(" %"), "{shown:?}");
    let quiet = program(d, NOBODY, &[], &["backup", "verify"]);
    assert!(!text(&quiet).contains("MB"), "{}", text(&quiet));
}

/// An `archive_command` is a line for a shell: what it names is what the shell would make of it.
#[test]
fn an_archive_command_is_read_as_the_shell_reads_it() {
    use breakglass::backup::seen::{option_in, program_in};
    use breakglass::backup::wal::archive_command;
    for command in [
        "breakglass wal archive --repository \"/a b/c\" --key-id k %p",
        "breakglass wal archive --repository '/a b/c' --key-id k %p",
        "breakglass wal archive --repository=/a\\ b/c --key-id=k %p",
        "breakglass wal archive --repository=\"/a b\"/c --key-id 'k' %p",
        "test ! -f /stop && exec '/opt/b g/breakglass' wal archive --key-id k --repository '/a b/c' %p",
        "TZ=UTC breakglass wal archive --key-id k --repository '/a b/c' \"%p\" || logger failed",
    ] {
        assert_eq!(option_in(command, "--repository").as_deref(), Some("/a b/c"), "{command}");
        assert_eq!(option_in(command, "--key-id").as_deref(), Some("k"), "{command}");
    }
    // What the server makes of a percent sign, what is another option or another program's, and a blank that stays one.
    for (command, to) in [
        ("breakglass wal archive --repository s3://b/p?x=a%%2Fb %p", Some("s3://b/p?x=a%2Fb")),
        ("breakglass wal archive --repository '/a <b> YOUR_NAME' %p", Some("/a <b> YOUR_NAME")),
        ("breakglass wal archive --repository-of /x %p", None),
        ("breakglass wal archive %p '--repository /x'", None),
        ("aws s3 cp %p s3://b/ --repository /x", None),
        ("breakglass wal archive %p", None),
    ] {
        assert_eq!(option_in(command, "--repository").as_deref(), to, "{command}");
    }
    let exe = Path::new("/opt/it's \"here\"/100%/breakglass");
    let ours = archive_command(exe, "/a b/it's 5%", Some("k")).unwrap();
    assert_eq!(option_in(&ours, "--repository").as_deref(), Some("/a b/it's 5%"), "{ours}");
    assert_eq!(program_in(&ours).as_deref(), exe.to_str(), "{ours}");
    assert_eq!(program_in("cd / && /x/y wal archive %p").as_deref(), Some("/x/y"));
    assert_eq!(program_in("cp %p /y"), None);
}
