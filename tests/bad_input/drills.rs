//! One real drill in surroundings as bad as they get.

use std::os::unix::fs::PermissionsExt;

use super::{Desk, copy_program, names_in, ran};

/// The program where only its owner may go, no HOME, paths too long for a socket, a strict umask, no terminal, no colour.
#[test]
fn a_drill_works_from_a_closed_folder_without_home_and_with_paths_too_long_for_sockets() {
    let desk = Desk::new();
    let closed = desk.path("closed");
    std::fs::create_dir(&closed).unwrap();
    let copy = closed.join("breakglass");
    copy_program(&copy);
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let long = desk.path("tmp").join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let mut command = desk.other("sh", &["-c", "umask 077; exec \"$@\"", "sh"]);
    command.arg(&copy).args(["drill", "--unattended", "--size", "1"]);
    command.env_remove("HOME").env("TMPDIR", &long).env("XDG_RUNTIME_DIR", &long).env("NO_COLOR", "1");
    command.current_dir(&closed);
    let said = ran(&mut command);
    assert_eq!(said.code, Some(0), "{}\n{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("PASSED") && !said.stdout.contains('\x1b'), "{said:?}");
    assert!(said.stderr.contains("the sandbox is removed"), "{said:?}");
    let scratch = said.stderr.split_whitespace().find(|w| w.contains("/bg-")).expect("where it was made is said");
    assert!(!std::path::Path::new(scratch).exists(), "{scratch} is left");
    assert!(names_in(&long).is_empty());
    assert!(!desk.path("home").join(".local").exists());
    let ids = desk.store().ids().unwrap();
    assert_eq!(ids.len(), 1);
    assert!(breakglass::journal::verify(&desk.store().incident_dir(&ids[0]), &[]).unwrap().ok());
}
