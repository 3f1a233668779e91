//! Finding the server programs, and the install command where there are none.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use breakglass::postgres::install::command_for;
use breakglass::postgres::programs::{NEEDED, Programs, parse_version, places};

/// A folder of programs that only answer `--version`.
fn fake(dir: &Path, version: &str, names: &[&str]) {
    std::fs::create_dir_all(dir).unwrap();
    for n in names {
        let file = dir.join(n);
        std::fs::write(&file, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn the_newest_wins_unless_a_version_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    fake(&root.path().join("usr/lib/postgresql/15/bin"), "15.20 (Debian 15.20-1)", &NEEDED);
    fake(&root.path().join("usr/pgsql-9.6/bin"), "9.6.24", &NEEDED);
    fake(&root.path().join("opt/homebrew/opt/postgresql@17/bin"), "17.2 (Homebrew)", &NEEDED);
    fake(&root.path().join("Applications/Postgres.app/Contents/Versions/16/bin"), "16.1", &NEEDED);
    let all = places(None, root.path());
    assert_eq!(Programs::find_in(&all, None).unwrap().version(), "17.2");
    for (major, dir) in [(15, "usr/lib/postgresql/15/bin"), (16, "Applications/Postgres.app/Contents/Versions/16/bin")]
    {
        let found = Programs::find_in(&all, Some(major)).unwrap();
        assert_eq!(found.bin_dir, root.path().canonicalize().unwrap().join(dir));
    }
    let none = Programs::find_in(&all, Some(14)).unwrap_err();
    assert!(none.what.contains("PostgreSQL 14"), "{none}");
    assert!(none.why.contains("17.2 in "), "what is there is named: {none}");
}

#[test]
fn a_folder_with_a_lone_postgres_does_not_count_but_a_link_leads_to_the_real_one() {
    let root = tempfile::tempdir().unwrap();
    let wrapper = root.path().join("wrapper");
    fake(&wrapper, "18.1", &["postgres", "initdb", "pg_ctl"]);
    let real = root.path().join("real");
    fake(&real, "15.3", &NEEDED);
    let links = root.path().join("links");
    std::fs::create_dir(&links).unwrap();
    std::os::unix::fs::symlink(real.join("postgres"), links.join("postgres")).unwrap();
    let found = Programs::find_in(&[wrapper.clone(), links], None).unwrap();
    assert_eq!((found.major, found.minor), (15, 3));
    assert_eq!(found.bin_dir, real.canonicalize().unwrap());
    assert!(Programs::find_in(&[wrapper], None).is_err());
}

#[test]
fn pg_config_is_asked_first_and_wins_over_an_equal_version_on_path() {
    let root = tempfile::tempdir().unwrap();
    let on_path = root.path().join("path");
    let by_config = root.path().join("config");
    fake(&on_path, "15.3", &NEEDED);
    fake(&by_config, "15.3", &NEEDED);
    let pg_config = on_path.join("pg_config");
    std::fs::write(&pg_config, format!("#!/bin/sh\necho {}\n", by_config.display())).unwrap();
    std::fs::set_permissions(&pg_config, std::fs::Permissions::from_mode(0o755)).unwrap();
    let all = places(Some(on_path.into_os_string()), &root.path().join("empty"));
    assert_eq!(Programs::find_in(&all, None).unwrap().bin_dir, by_config.canonicalize().unwrap());
}

#[test]
fn none_found_says_how_to_install_here() {
    let e = Programs::find_in(&[PathBuf::from("/nonexistent")], None).unwrap_err();
    assert_eq!(e.kind.exit_code(), 3);
    let hints = e.hints.join("\n");
    assert!(hints.contains("install") && hints.contains("postgres.bin_dir"), "{hints}");
}

#[test]
fn the_install_command_fits_the_system() {
    let text = |release: &str, mac, root| command_for(release, mac, root).map(|c| c.text);
    let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
    assert_eq!(text(debian, false, true).unwrap(), "apt-get update && apt-get install -y postgresql");
    assert_eq!(text(debian, false, false).unwrap(), "sudo apt-get update && sudo apt-get install -y postgresql");
    let mint = "NAME=Pop\nID=pop\nID_LIKE=\"ubuntu debian\"\n";
    assert!(text(mint, false, true).unwrap().contains("apt-get"));
    assert!(text("ID=rocky\nID_LIKE=\"rhel centos fedora\"", false, true).unwrap().starts_with("dnf install"));
    assert!(text("ID=opensuse-leap", false, true).unwrap().starts_with("zypper"));
    assert!(text("ID=alpine", false, true).unwrap().starts_with("apk add"));
    assert!(text("ID=arch", false, true).unwrap().starts_with("pacman"));
    assert!(text("", true, false).unwrap().starts_with("brew install"));
    assert_eq!(text("ID=plan9", false, true), None, "an unknown system gets no guess");
}

#[test]
fn versions_are_read_as_distributions_write_them() {
    assert_eq!(parse_version("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some((15, 20)));
    assert_eq!(parse_version("postgres (PostgreSQL) 17beta1"), Some((17, 0)));
    assert_eq!(parse_version("postgres (PostgreSQL) 18devel"), Some((18, 0)));
    assert_eq!(parse_version("psql 15"), None);
}

/// Debian's `pg_config` is a script that calls others: none of them is given a secret.
#[test]
fn pg_config_gets_nothing_of_the_environment() {
    let root = tempfile::tempdir().unwrap();
    let (d, seen) = (root.path(), root.path().join("seen"));
    std::fs::write(d.join("pg_config"), format!("#!/bin/sh\nenv > '{0}.new' && mv '{0}.new' '{0}'\n", seen.display()))
        .unwrap();
    std::fs::set_permissions(d.join("pg_config"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"));
    doctor.arg("doctor").current_dir(d).env_clear().env("HOME", d).env("BREAKGLASS_HOME", d.join("state"));
    doctor.env("PATH", format!("{}:/usr/bin:/bin", d.display())).env("PGPASSWORD", "hunter2-hunter2");
    doctor.env("BACKUP_ENCRYPTION_KEY", "a secret of thirty-two characters, and more");
    doctor.env("DATABASE_URL", "postgres://x:hunter3-hunter3@127.0.0.1:1/x").output().unwrap();
    let seen = std::fs::read_to_string(&seen).unwrap();
    assert!(seen.contains("PATH=") && seen.contains("/usr/bin"), "{seen}");
    assert!(!seen.contains("hunter") && !seen.contains("ENCRYPTION") && !seen.contains("HOME="), "{seen}");
}
