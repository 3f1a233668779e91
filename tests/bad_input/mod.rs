//! Bad input through the real program: what it says, its exit code, and that nothing is lost.

mod command_line;
mod consoles;
mod disks;
mod drills;
mod journals;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use breakglass::incident::Policy;
use breakglass::model::event::Kind;
use breakglass::plan::library::Library;
use breakglass::runtime::{Incident, Opening, Store};

use crate::support::pty::Pty;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_breakglass");

/// A plan as a team writes one.
pub const PLAN: &str = "# Recovery plan\n\n## Scenario 1: Lost index\n\n**Severity:** P1\n**RTO**: 1 hour\n**RPO**: 5 minutes\n\n\
    1. Look whether it is gone\n2. Build it again\n3. Tell people\n";

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts exit code and, one by one, what the error says.
    pub fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("breakglass: "), "{self:?}");
        for text in says {
            assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
    pub fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }
}

/// A folder to be in, a home, a state directory. The environment of what runs in it is empty but for PATH and these.
pub struct Desk {
    pub dir: tempfile::TempDir,
}

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bg-bad").tempdir().unwrap();
        for sub in ["home", "cwd", "tmp"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self { dir }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }
    /// Writes a file in the folder it is run in.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("cwd").join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
    pub fn envs(&self) -> Vec<(String, String)> {
        let of = |name: &str| self.path(name).display().to_string();
        vec![
            ("PATH".into(), std::env::var("PATH").unwrap()),
            ("HOME".into(), of("home")),
            ("BREAKGLASS_HOME".into(), of("state")),
            ("TMPDIR".into(), of("tmp")),
        ]
    }
    /// The program with these words, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.other(PROGRAM, args)
    }
    /// Another program in the same surroundings.
    pub fn other(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut c = Command::new(program);
        c.args(args).env_clear().envs(self.envs()).current_dir(self.path("cwd")).stdin(Stdio::null());
        c
    }
    pub fn run(&self, args: &[&str]) -> Ran {
        ran(&mut self.command(args))
    }
    /// The console in a terminal, `args` after the program's name.
    pub fn console(&self, size: (u16, u16), args: &[&str]) -> Pty {
        self.terminal(size, PROGRAM, args, &[])
    }
    pub fn terminal(&self, size: (u16, u16), program: &str, args: &[&str], more: &[(&str, &str)]) -> Pty {
        let envs = self.envs();
        let envs: Vec<(&str, &str)> =
            envs.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain(more.iter().copied()).collect();
        Pty::spawn(size, program, args, &envs)
    }
    /// The store of the state directory.
    pub fn store(&self) -> Store {
        Store::at(self.state())
    }
    /// A real incident that is open, of the plan above.
    pub fn incident(&self) -> Incident {
        let plan = self.file("lost-index.md", PLAN);
        let library = Library::open(&[plan]).unwrap();
        let document = &library.documents[0];
        self.store()
            .create(Opening {
                kind: Kind::Real,
                plan: document.plan.clone(),
                documents: vec![("lost-index.md".into(), document.bytes.clone())],
                scenario: document.plan.scenarios[0].slug.clone(),
                rto_ms: None,
                rpo_ms: None,
                target: None,
                expect: Default::default(),
                policy: Policy::default(),
            })
            .unwrap()
    }
}

pub fn ran(command: &mut Command) -> Ran {
    let out = command.output().unwrap();
    Ran {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A copy of the program elsewhere. Written by a process of its own: were the file open for writing here, a child that
/// another test starts at that moment would hold it open, and it could not be executed.
pub fn copy_program(to: &Path) {
    assert!(Command::new("cp").arg(PROGRAM).arg(to).status().unwrap().success());
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Names in a folder; none when there is no such folder.
pub fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether a process may have file systems of its own here (root, and not in a container that forbids it).
pub fn can_mount() -> bool {
    let can = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("not allowed to mount: this case is not tested here");
    }
    can
}

/// Words that run `script`, with our program's path as `$1`, among file systems of its own. What it mounts ends with it.
pub fn apart<'a>(script: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["-m", "sh", "-c", script, "sh", PROGRAM];
    words.extend(args);
    words
}
