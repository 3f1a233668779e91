//! The program under strace, which befalls it at a system call.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use breakglass::backup::catalog::{self, BackupKind, Change};
use breakglass::backup::repository::Unlocked;
use breakglass::model::Time;

use super::{PASSPHRASE, add, manifest, repository};

/// The passphrase a key is changed to.
pub const NEW: &str = "the new passphrase, which has thirty-two characters too";

/// Whether strace is there and works; said loudly where it does not.
pub fn strace() -> bool {
    // Some containers have the program and forbid what it needs.
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let works = works.is_ok_and(|s| s.success());
    if !works {
        eprintln!("NOT TESTED: faults at system calls need strace, which .ci/run installs");
    }
    works
}

/// The program under strace with these options of it.
pub fn traced(dir: &Path, url: &str, more: &[(&str, &str)], options: &[&str], args: &[&str]) -> ExitStatus {
    let mut c = command(dir, url, more, options, args);
    c.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

/// As [`traced`], not started.
pub fn command(dir: &Path, url: &str, more: &[(&str, &str)], options: &[&str], args: &[&str]) -> Command {
    let mut c = Command::new("strace");
    c.args(["-f", "-qq"]).args(options).arg(env!("CARGO_BIN_EXE_breakglass")).args(args).env_clear();
    c.env("PATH", "/usr/bin:/bin").env("HOME", dir).env("BREAKGLASS_HOME", dir.join("state"));
    c.env("BACKUP_DIR", dir.join("repo")).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).env("DATABASE_URL", url);
    c.envs(more.iter().copied()).current_dir(dir);
    c
}

/// A repository with four backups of files of one year, of which the policy keeps one.
pub fn old_backups(dir: &Path) -> Unlocked {
    let (_, unlocked, _) = repository(dir);
    for i in 0..4i64 {
        let at = Time::from_micros(1_577_836_800_000_000 + i * 86_400_000_000);
        add(&unlocked, manifest(&format!("2020010{}T0000Z-files-{i:06x}", i + 1), BackupKind::Files, at));
    }
    let change = Change::Verified { backup: "20200104T0000Z-files-000003".into(), how: "read".into() };
    catalog::append(&unlocked, &change).unwrap();
    unlocked
}
