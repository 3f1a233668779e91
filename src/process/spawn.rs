//! How a child is started: its own process group, no terminal, a stated environment, the run's children lock.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::user::UnixUser;

/// Used when `PATH` is not set at all.
pub const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables a clean environment keeps, besides every `LC_*`. Nothing that carries a secret or changes what a tool does to a database.
const KEPT: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE"];

/// What a child reads.
#[derive(Clone, Default)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file. May hold secrets: wiped when dropped.
    Bytes(Zeroizing<Vec<u8>>),
}

/// What a child's environment starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Clean,
    Inherited,
    Bare,
}

/// A child to start. Built like a command line; the environment is clean unless [`ChildSpec::inherit_env`] is called.
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    base: Base,
    cwd: Option<PathBuf>,
    user: Option<UnixUser>,
    pub(super) stdin: Stdin,
    stays: bool,
    passed: Vec<RawFd>,
}

impl ChildSpec {
    /// A child running `program`, looked up in the child's `PATH` when it has no slash.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            base: Base::Clean,
            cwd: None,
            user: None,
            stdin: Stdin::Null,
            stays: false,
            passed: Vec::new(),
        }
    }
    /// Adds an argument. Never a secret: everybody on the machine can read arguments.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_os_string());
        self
    }
    /// Adds arguments. Never a secret.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_os_string()));
        self
    }
    /// Sets a variable of the child.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_os_string(), Some(value.as_ref().to_os_string())));
        self
    }
    /// Sets variables of the child.
    #[must_use]
    pub fn envs(mut self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        for (n, v) in vars {
            self = self.env(n, v);
        }
        self
    }
    /// Takes a variable away from the child.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_os_string(), None));
        self
    }
    /// Gives the child our whole environment (a responder's own commands need their profile); [`ChildSpec::env`] still applies on top.
    #[must_use]
    pub fn inherit_env(mut self) -> Self {
        self.base = Base::Inherited;
        self
    }
    /// Gives the child nothing but what [`ChildSpec::env`] adds.
    #[must_use]
    pub fn bare_env(mut self) -> Self {
        self.base = Base::Bare;
        self
    }
    /// The child's folder; without it a child of ours keeps our folder and one of another user gets `/`.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }
    /// Runs the child as this user (needs root); its `HOME`, `USER` and `LOGNAME` follow. `None` changes nothing.
    #[must_use]
    pub fn user(mut self, user: Option<UnixUser>) -> Self {
        self.user = user;
        self
    }
    /// What the child reads; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(Zeroizing::new(bytes.into()));
        self
    }
    /// The child starts something that is meant to stay: it does not hold the run's `children.lock`.
    #[must_use]
    pub fn stays(mut self) -> Self {
        self.stays = true;
        self
    }
    /// Leaves one of our files open in the child, under the number it has here; tell the child which that is. The file must
    /// stay open until the child is spawned.
    #[must_use]
    pub fn pass_fd(mut self, file: BorrowedFd<'_>) -> Self {
        self.passed.push(file.as_raw_fd());
        self
    }
    /// The program, for messages.
    pub fn program(&self) -> &Path {
        &self.program
    }
    /// Program and arguments as one line for people, quoted as a shell would need them.
    pub fn shown(&self) -> String {
        let mut out = quoted(self.program.as_os_str());
        for a in &self.args {
            out.push(' ');
            out.push_str(&quoted(a));
        }
        out
    }

    /// The standard library's command for it: own process group, null files unless the caller sets others.
    ///
    /// The files given to [`ChildSpec::pass_fd`] must still be open when it is spawned.
    pub fn command(&self) -> Command {
        let mut c = Command::new(&self.program);
        c.args(&self.args);
        if self.base != Base::Inherited {
            c.env_clear();
        }
        if self.base == Base::Clean {
            for (name, value) in std::env::vars_os() {
                let text = name.to_string_lossy();
                if KEPT.contains(&text.as_ref()) || text.starts_with("LC_") {
                    c.env(&name, value);
                }
            }
            if std::env::var_os("PATH").is_none() {
                c.env("PATH", FALLBACK_PATH);
            }
        }
        if let Some(u) = &self.user {
            c.env("HOME", &u.home).env("USER", &u.name).env("LOGNAME", &u.name);
        }
        for (name, value) in &self.env {
            match value {
                Some(v) => c.env(name, v),
                None => c.env_remove(name),
            };
        }
        match (&self.cwd, &self.user) {
            (Some(dir), _) => {
                c.current_dir(dir);
            }
            // Our own folder may be closed to that user, and PostgreSQL's programs complain when it is.
            (None, Some(_)) => {
                c.current_dir("/");
            }
            (None, None) => {}
        }
        c.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.in_child(&mut c);
        c
    }

    /// What happens in the child between fork and exec.
    #[allow(unsafe_code)]
    fn in_child(&self, c: &mut Command) {
        let lock = if self.stays { None } else { super::locks::children_lock_fd() };
        let passed = self.passed.clone();
        let user = self.user.clone();
        #[cfg(not(target_os = "linux"))]
        if let Some(u) = &user {
            c.gid(u.gid).uid(u.uid);
        }
        #[cfg(target_os = "linux")]
        let ids = user.map(|u| {
            let mut groups: Vec<_> = vec![rustix::process::Gid::from_raw(u.gid)];
            groups.extend(u.groups.iter().map(|g| rustix::process::Gid::from_raw(*g)));
            (rustix::process::Uid::from_raw(u.uid), groups)
        });
        #[cfg(not(target_os = "linux"))]
        let ids: Option<()> = None;
        if lock.is_none() && passed.is_empty() && ids.is_none() {
            return; // lets the standard library take its faster way
        }
        let hook = move || {
            for fd in lock.iter().chain(&passed) {
                keep_open(*fd)?;
            }
            #[cfg(target_os = "linux")]
            if let Some((uid, groups)) = &ids {
                // Groups first, user last: afterwards there is no right left to change the others.
                rustix::thread::set_thread_groups(groups)?;
                let gid = groups.first().copied().unwrap_or(rustix::process::Gid::ROOT);
                rustix::thread::set_thread_res_gid(gid, gid, gid)?;
                rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
            }
            Ok(())
        };
        // SAFETY: the closure runs in the forked child before exec, where only async-signal-safe work is allowed. It makes
        // plain system calls (fcntl, setgroups, setresgid, setresuid) on data prepared before the fork; it neither
        // allocates nor takes a lock, and an errno converts into `io::Error` without allocating.
        unsafe {
            c.pre_exec(hook);
        }
    }
}

/// Lets a command that is not made from a [`ChildSpec`] hold the run's `children.lock`, when this process is a worker. Not for
/// what starts a server.
#[allow(unsafe_code)]
pub fn hold_children_lock(c: &mut Command) {
    if let Some(fd) = super::locks::children_lock_fd() {
        // SAFETY: as in `ChildSpec::in_child`: one fcntl on a descriptor that a static keeps open.
        unsafe {
            c.pre_exec(move || keep_open(fd));
        }
    }
}

/// Lets a command that starts a server hold the run's `servers.lock`, when this process is a worker: until the run's end is
/// recorded the server belongs to the run. Returns the number the file has in the child, which must be left open there.
///
/// # Errors
/// Refused when the lock is held by somebody else.
#[allow(unsafe_code)]
pub fn hold_servers_lock(c: &mut Command) -> crate::error::Result<Option<i32>> {
    let held = super::locks::servers_lock_fd()?;
    if let Some(fd) = held {
        // SAFETY: as in `ChildSpec::in_child`: one fcntl on a descriptor that a static keeps open.
        unsafe {
            c.pre_exec(move || keep_open(fd));
        }
    }
    Ok(held)
}

/// Clears close-on-exec of an open descriptor. Used in the child only.
#[allow(unsafe_code)]
fn keep_open(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: the descriptor is owned by a file that the parent keeps open over the fork (a static, or the caller's
    // borrow), so it is open here; it is only borrowed for the length of the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    Ok(())
}

/// One word as a shell needs it written.
pub fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
