//! Plans, scenarios, configuration and environment as they should not be.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use super::{Desk, PLAN, PROGRAM, apart, can_mount, copy_program, is_root, names_in, ran};

#[test]
fn a_plan_that_is_not_there_or_no_text_is_named() {
    let desk = Desk::new();
    desk.file("plan.pdf", "%PDF-1.7");
    desk.file("bytes.md", [0x7f, b'E', b'L', b'F', 0, 0, 0, 1, 2, 3, 0, 0]);
    std::fs::create_dir(desk.path("cwd").join("empty")).unwrap();
    for command in [["open"].as_slice(), &["plan", "show"], &["plan", "list"]] {
        for (plan, says) in [
            ("nowhere.md", "No such file"),
            ("plan.pdf", "is not Markdown"),
            ("bytes.md", "is not Markdown"),
            ("empty", "holds no Markdown"),
            ("none-*.md", "nothing matches"),
        ] {
            let words: Vec<&str> = command.iter().copied().chain([plan]).collect();
            desk.run(&words).fails(2, &[plan, says]);
        }
    }
    assert!(!desk.state().exists(), "reading writes nothing");
}

#[test]
fn a_drill_that_may_only_look_is_refused() {
    let desk = Desk::new();
    desk.run(&["--read-only", "drill", "--unattended"]).fails(2, &["--read-only only looks"]);
    assert!(!desk.state().exists(), "nothing was made");
}

#[test]
fn a_plan_without_permission_says_so() {
    let desk = Desk::new();
    let plan = desk.file("secret.md", PLAN);
    std::fs::set_permissions(&plan, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = desk.command(&["open", "secret.md"]);
    if is_root() {
        // root reads everything: somebody else must ask. The program itself may be where only root can go.
        let copy = desk.path("breakglass");
        copy_program(&copy);
        std::fs::set_permissions(desk.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        command = desk.other(&copy, &["open", "secret.md"]);
        command.uid(65_534).gid(65_534);
    }
    ran(&mut command).fails(2, &["cannot read plan \"secret.md\"", "Permission denied", "hint: Make it readable"]);
}

#[test]
fn a_plan_that_is_not_utf_8_is_read_all_the_same() {
    let desk = Desk::new();
    let text: Vec<u8> = PLAN.replace("Lost index", "Verlorener Schl\u{fc}ssel").chars().map(|c| c as u8).collect();
    assert!(std::str::from_utf8(&text).is_err());
    desk.file("latin.md", text);
    let shown = desk.run(&["plan", "show", "latin.md"]);
    assert!(shown.succeeds().contains("Verlorener Schlüssel"), "{shown:?}");
    let json = desk.run(&["plan", "show", "--json", "latin.md"]);
    assert!(json.succeeds().contains("not UTF-8"), "it says how it was read: {json:?}");
}

#[test]
fn a_path_that_is_no_text_is_an_error_and_no_panic() {
    let desk = Desk::new();
    let mut command = desk.command(&["open"]);
    command.arg(std::ffi::OsStr::from_bytes(b"b\xffd.md"));
    ran(&mut command).fails(2, &["cannot read plan"]);
}

#[test]
fn an_unknown_scenario_names_those_there_are() {
    let desk = Desk::new();
    desk.run(&["drill", "nosuch"]).fails(2, &["\"nosuch\"", "hint: ", "database-corruption"]);
    assert!(!desk.state().exists() && names_in(&desk.path("tmp")).is_empty(), "nothing was made");
    desk.run(&["resume", "nosuch"]).fails(2, &["\"nosuch\"", "incident list"]);
    desk.run(&["resume"]).fails(2, &["no open incident"]);
    desk.run(&["export", "nosuch"]).fails(2, &["\"nosuch\""]);
}

#[test]
fn the_configuration_is_named_with_file_and_line() {
    let desk = Desk::new();
    for (text, says) in [
        ("theme = \"mono\"\ncolour = true\n", ["bad.toml:2: ", "unknown field `colour`"]),
        ("\n[policy]\nbackup_max_age = \"a while\"\n", ["bad.toml:3: policy.backup_max_age: ", "a while"]),
        ("[drill]\nsize = 1\nrto = \"soon\"\n", ["bad.toml:3: drill.rto: ", "soon"]),
        ("[drill]\n\nrpo = 5\n", ["bad.toml:3: ", "invalid type"]),
        ("[drill]\nproject_size = \"huge\"\n", ["bad.toml:2: drill.project_size: ", "huge"]),
        ("[drill]\nsize = -1\n", ["bad.toml:2: ", "invalid value"]),
        ("theme = \"mono\n", ["bad.toml:1: ", "string"]),
        ("[target]\nurl = \"mysql://shop@db/shop\"\n", ["bad.toml:2: target.url: ", "postgres://"]),
    ] {
        desk.file("bad.toml", text);
        desk.run(&["--config", "bad.toml", "incident", "list"]).fails(2, &says);
        // The same file found by itself.
        desk.file("breakglass.toml", text);
        desk.run(&["incident", "list"]).fails(2, &[&says[0].replace("bad.toml", "breakglass.toml"), says[1]]);
    }
    std::fs::remove_file(desk.path("cwd").join("breakglass.toml")).unwrap();
    desk.run(&["--config", "nowhere.toml", "incident", "list"]).fails(2, &["nowhere.toml", "No such file", "--config"]);
    desk.run(&["drill", "--rto", "soon"]).fails_as_clap(&["--rto", "soon"]);
}

#[test]
fn a_password_in_the_configuration_is_refused_and_never_shown() {
    let desk = Desk::new();
    for text in [
        "[target]\nurl = \"postgres://shop:hunter2@db:5432/shop\"\n",
        "[target]\nurl = \"postgres://shop@db/shop?password=hunter2\"\n",
        // Mistakes around it must not print the line, or what was taken for a port.
        "[target]\nurl = \"postgres://shop:hunter2/shop\"\n",
        "[target]\nurl = \"postgres://shop:hunter2@db:5432/shop\n",
        "target = \"postgres://shop:hunter2@db:5432/shop\"\n",
        "[target]\nurls = \"postgres://shop:hunter2@db:5432/shop\"\n",
    ] {
        desk.file("breakglass.toml", text);
        for args in [["incident", "list"].as_slice(), &["--json", "incident", "list"]] {
            let said = desk.run(args);
            said.fails(2, &["breakglass.toml:"]);
            assert!(!said.stderr.contains("hunter2") && !said.stdout.contains("hunter2"), "{text}: {said:?}");
        }
    }
    desk.file("breakglass.toml", "[target]\nurl = \"postgres://shop:hunter2@db:5432/shop\"\n");
    desk.run(&["incident", "list"]).fails(2, &["breakglass.toml:2: target.url holds a password", "PGPASSWORD"]);
}

#[test]
fn bad_environment_is_named_without_its_value() {
    let desk = Desk::new();
    for (name, value, says) in [
        ("DATABASE_URL", "mysql://shop:hunter2@db/shop", "postgres://"),
        ("DATABASE_URL", "postgres://shop:hunter2/shop", "port"),
        ("DATABASE_URL", "postgres://:hunter2@db/shop", "user"),
        ("DATABASE_URL", "postgres://shop:hunter2%zz@db/shop", "%"),
    ] {
        let said = ran(desk.command(&["incident", "list"]).env(name, value));
        said.fails(2, &[name, says]);
        assert!(!said.stderr.contains("hunter2"), "{said:?}");
    }
}

/// A key that opens nothing must not stand in the way of what needs no key, at 3 a.m. least of all.
#[test]
fn a_short_key_is_said_where_a_key_is_needed() {
    let desk = Desk::new();
    let with = |args: &[&str]| ran(desk.command(args).env("BACKUP_ENCRYPTION_KEY", "hunter2").env("BACKUP_DIR", "b"));
    assert_eq!(with(&["incident", "list"]).code, Some(0));
    let said = with(&["backup", "init"]);
    said.fails(2, &["7 characters", "at least 32", "BACKUP_ENCRYPTION_KEY"]);
    assert!(!said.stderr.contains("hunter2"), "{said:?}");
}

#[test]
fn home_may_be_unset_when_the_state_directory_is_given() {
    let desk = Desk::new();
    let incident = desk.incident();
    let mut command = desk.command(&["incident", "list"]);
    command.env_remove("HOME");
    assert!(ran(&mut command).succeeds().contains(incident.id().as_str()));
}

#[test]
fn without_any_home_it_says_what_to_set() {
    if !is_root() {
        eprintln!("only root can become a user whom the system does not know");
        return;
    }
    let desk = Desk::new();
    let copy = desk.path("breakglass");
    copy_program(&copy);
    std::fs::set_permissions(desk.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    desk.file("plan.md", PLAN);
    for args in [["incident", "list"].as_slice(), &["open", "plan.md"], &["drill", "--unattended"], &[]] {
        let mut command = desk.other(&copy, args);
        // A user id without an entry in the system's list of users, so no home is known for it.
        command.env_remove("HOME").env_remove("BREAKGLASS_HOME").uid(3_141_592).gid(3_141_592);
        ran(&mut command).fails(2, &["HOME is not set", "hint: Set BREAKGLASS_HOME"]);
    }
}

#[test]
fn a_configured_folder_without_server_programs_is_said_with_the_command_that_installs_them() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("cwd").join("nothing")).unwrap();
    desk.file("empty.toml", "[postgres]\nbin_dir = \"nothing\"\n");
    let install = breakglass::postgres::install::install_command().expect("a system whose packages are known");
    let mut command = desk.command(&["drill", "--unattended", "--config", "empty.toml"]);
    command.env("PATH", desk.path("cwd").join("nothing"));
    let said = ran(&mut command);
    said.fails(3, &["no PostgreSQL server programs in", "nothing", "postgres.bin_dir", &install.text]);
    assert!(!said.stderr.contains("[y/N]"), "{said:?}");
    assert!(names_in(&desk.path("tmp")).is_empty(), "nothing was made");
    // With a person at the terminal too: installing would not put the configuration right.
    let mut pty = desk.terminal((100, 30), PROGRAM, &["drill", "--config", &conf(&desk, "empty.toml")], &[]);
    assert_eq!(pty.wait_exit().code(), Some(3));
    let screen = pty.wait_text("no PostgreSQL server programs in");
    assert!(!screen.contains("[y/N]"), "{screen}");
}

fn conf(desk: &Desk, name: &str) -> String {
    desk.path("cwd").join(name).display().to_string()
}

/// Hides every PostgreSQL of this machine from what runs then.
const HIDE: &str = "for d in /usr/lib/postgresql /usr/pgsql-* /usr/local/pgsql; do \
    [ -d \"$d\" ] && { mount -t tmpfs tmpfs \"$d\" || exit 99; }; done; exec \"$@\"";

#[test]
fn without_postgresql_the_command_is_printed_and_offered_to_a_person_in_a_drill_only() {
    let found = breakglass::postgres::Programs::find(None, None).unwrap();
    if !can_mount() || !found.bin_dir.starts_with("/usr/lib/postgresql") {
        return;
    }
    let desk = Desk::new();
    let install = breakglass::postgres::install::install_command().expect("a system whose packages are known");
    // Nobody is asked without a terminal, nor when the drill is to go by itself on one.
    let said = ran(&mut desk.other("unshare", &apart(HIDE, &["drill"])));
    said.fails(3, &["no PostgreSQL server programs found", "looked on PATH", &install.text]);
    let mut pty = desk.terminal((100, 30), "unshare", &apart(HIDE, &["drill", "--unattended"]), &[]);
    assert_eq!(pty.wait_exit().code(), Some(3));
    assert!(!pty.wait_text("no PostgreSQL server programs found").contains("[y/N]"));
    // An incident's own actions never offer to install anything.
    desk.file(
        "breakglass.toml",
        "[target]\nurl = \"postgres://shop@/shop?host=/nowhere\"\n[repository]\nurl = \"repo\"\n",
    );
    let mut pty = desk.terminal((100, 30), "unshare", &apart(HIDE, &["backup", "create"]), &[]);
    assert_ne!(pty.wait_exit().code(), Some(0));
    assert!(!pty.screen().contains("[y/N]"), "{}", pty.screen());
    // A person at a drill is asked, and No is the default.
    let mut pty = desk.terminal((100, 30), "unshare", &apart(HIDE, &["drill"]), &[]);
    let asked = pty.wait_text("[y/N]");
    assert!(asked.contains(&install.text), "{asked}");
    pty.keys("enter");
    assert_eq!(pty.wait_exit().code(), Some(3));
    pty.wait_text("hint: install it on");
    assert!(names_in(&desk.path("tmp")).is_empty(), "nothing was made");
}

impl super::Ran {
    /// As [`Self::fails`], for what the argument parser itself refuses: exit 2 and its own way of saying so.
    fn fails_as_clap(&self, says: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        for text in says {
            assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        }
    }
}
