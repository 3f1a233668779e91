//! A PostgreSQL instance of our own: create, configure, start, stop. Socket only, its configuration outside the data
//! directory, as an unprivileged user when we are root, and inheriting nothing of ours, because a server is meant to stay.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::connect::Database;
use super::programs::{Programs, data_version};
use super::user;
use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::process::UnixUser;

/// Longest path of a Unix socket that all platforms take, in bytes without the final zero (Linux 107, macOS 103).
pub const SOCKET_PATH_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// Where the parts of an instance are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// PGDATA.
    pub data: PathBuf,
    /// postgresql.conf, pg_hba.conf, pg_ident.conf: outside the data directory.
    pub config: PathBuf,
    /// Folder of the socket.
    pub sockets: PathBuf,
    /// Log file of the server.
    pub log: PathBuf,
}

impl Layout {
    /// `data`, `conf`, `log` and `s` below `root`. Where the socket's path would be too long it goes to a short folder in
    /// /tmp, always the same for the same root.
    pub fn under(root: &Path, port: u16) -> Self {
        let mut sockets = root.join("s");
        if socket_path(&sockets, port).as_os_str().len() > SOCKET_PATH_MAX {
            use sha2::Digest;
            let sum = sha2::Sha256::digest(root.as_os_str().as_encoded_bytes());
            let short: String = sum.iter().take(6).map(|b| format!("{b:02x}")).collect();
            sockets = PathBuf::from(format!("/tmp/breakglass-{short}"));
        }
        Self { data: root.join("data"), config: root.join("conf"), sockets, log: root.join("log").join("server.log") }
    }
}

/// Path of the socket file of `port` in `dir`.
pub fn socket_path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// At once, as a crash: replays its log at the next start.
    Immediate,
}

/// What a server is doing, from its own pid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No server.
    Stopped,
    /// Started, not yet accepting connections.
    Starting,
    /// In recovery with `hot_standby` off: up, and accepting nobody.
    Standby,
    /// Accepting connections; in recovery, read-only ones.
    Ready,
    /// Shutting down.
    Stopping,
}

/// A start that was begun: what tells its own log lines from earlier ones.
#[derive(Debug, Clone)]
pub struct Starting {
    log_from: u64,
    began: Instant,
}

/// An instance: its programs, places and user. Dropping this does not stop the server.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Server programs.
    pub programs: Programs,
    /// Places.
    pub layout: Layout,
    /// Port; names the socket file.
    pub port: u16,
    /// User it runs as; none for the current one.
    pub user: Option<UnixUser>,
    /// Name of the superuser role.
    pub superuser: String,
    /// Settings given on the command line: they hold even against `postgresql.auto.conf` in the data directory.
    pub overrides: Vec<(String, String)>,
}

impl Instance {
    /// An instance whose places are below `root`; superuser `postgres`, port 5432 (of its socket; nothing listens on TCP).
    ///
    /// # Errors
    /// The socket path would be too long even in /tmp.
    pub fn new(programs: Programs, root: &Path, user: Option<UnixUser>) -> Result<Self> {
        let it = Self {
            programs,
            layout: Layout::under(root, 5432),
            port: 5432,
            user,
            superuser: "postgres".into(),
            overrides: Vec::new(),
        };
        it.check_socket()?;
        Ok(it)
    }

    fn check_socket(&self) -> Result<()> {
        let path = socket_path(&self.layout.sockets, self.port);
        let len = path.as_os_str().len();
        if len > SOCKET_PATH_MAX {
            return Err(Error::usage(format!("the socket path {:?} is too long", path.display()))
                .why(format!("{len} bytes; a Unix socket path may have {SOCKET_PATH_MAX}"))
                .hint("choose a folder with a shorter path"));
        }
        Ok(())
    }

    /// Makes the folders around the data directory, each of mode 0700 and the server's user.
    ///
    /// # Errors
    /// One cannot be made, or the server's user cannot reach it.
    pub fn make_dirs(&self) -> Result<()> {
        self.check_socket()?;
        let log_dir = self.layout.log.parent().unwrap_or(Path::new("/"));
        for dir in [&self.layout.config, &self.layout.sockets, log_dir] {
            user::own_dir(dir, self.user.as_ref())?;
            self.check_reach(dir)?;
        }
        Ok(())
    }

    /// The server's user may not be able to enter a parent, such as /root.
    fn check_reach(&self, dir: &Path) -> Result<()> {
        let Some(u) = &self.user else { return Ok(()) };
        let mut c = Command::new("ls");
        c.arg("-d")
            .arg(dir.join("."))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        user::apply(&mut c, Some(u));
        if c.status().is_ok_and(|s| s.success()) {
            return Ok(());
        }
        Err(Error::target(format!("user {:?} cannot enter {:?}", u.name, dir.display()))
            .why("a folder above it is closed to that user")
            .hint("choose a place that user can reach, such as below /var/lib or /tmp, or set instances_dir"))
    }

    /// Runs initdb: data checksums, UTF-8 with the C.UTF-8 locale (plain C where there is none), `auth` on the socket.
    /// Then makes the other folders. `wal_segment_mb` is for tests that need many small segments.
    ///
    /// # Errors
    /// A folder cannot be made or initdb fails; its last words are the reason.
    pub fn create(&self, wal_segment_mb: Option<u32>) -> Result<()> {
        self.make_dirs()?;
        user::own_dir(&self.layout.data, self.user.as_ref())?;
        self.check_reach(&self.layout.data)?;
        let attempt = |locale: &str| {
            let mut c = self.programs.command("initdb", self.user.as_ref());
            c.arg("-D").arg(&self.layout.data).args(["-k", "-A", "trust", "-E", "UTF8", "-U", &self.superuser]);
            c.arg(format!("--locale={locale}"));
            if let Some(mb) = wal_segment_mb {
                c.arg(format!("--wal-segsize={mb}"));
            }
            c.output().target(|| "cannot run initdb".to_string())
        };
        let mut out = attempt("C.UTF-8")?;
        if !out.status.success() && String::from_utf8_lossy(&out.stderr).contains("locale") {
            out = attempt("C")?;
        }
        if !out.status.success() {
            return Err(Error::target(format!("initdb failed in {:?}", self.layout.data.display()))
                .why(last_lines(&String::from_utf8_lossy(&out.stderr), 4)));
        }
        Ok(())
    }

    /// Writes the configuration outside the data directory: socket only, log to the file, then `settings`. Access is by
    /// the socket alone, whose folder only the server's user (and root) can enter; `hba` replaces that rule.
    ///
    /// # Errors
    /// A file cannot be written, or a setting's name is not one.
    pub fn configure(&self, settings: &[(String, String)], hba: Option<&str>) -> Result<()> {
        self.make_dirs()?;
        let conf = &self.layout.config;
        let path = |p: &Path| p.display().to_string();
        let mut all: Vec<(String, String)> = [
            ("data_directory", path(&self.layout.data)),
            ("hba_file", path(&conf.join("pg_hba.conf"))),
            ("ident_file", path(&conf.join("pg_ident.conf"))),
            ("listen_addresses", String::new()),
            ("unix_socket_directories", path(&self.layout.sockets)),
            ("unix_socket_permissions", "0700".into()),
            ("port", self.port.to_string()),
            ("logging_collector", "off".into()),
            ("log_timezone", "UTC".into()),
            ("timezone", "UTC".into()),
            ("log_line_prefix", "%m [%p] ".into()),
            ("lc_messages", "C".into()),
        ]
        .map(|(k, v)| (k.to_string(), v))
        .to_vec();
        for (name, value) in settings {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
                return Err(Error::usage(format!("{name:?} is not the name of a setting")));
            }
            all.retain(|(n, _)| n != name);
            all.push((name.clone(), value.clone()));
        }
        let mut text = String::from("# Written by breakglass. Edits are lost.\n");
        for (name, value) in &all {
            text.push_str(&format!("{name} = {}\n", conf_quote(value)));
        }
        let user = self.user.as_ref();
        user::own_file(&conf.join("postgresql.conf"), &text, user)?;
        let hba = hba.unwrap_or("local all all trust\nlocal replication all trust\n");
        user::own_file(&conf.join("pg_hba.conf"), hba, user)?;
        user::own_file(&conf.join("pg_ident.conf"), "", user)
    }

    /// Starts the server and waits until it accepts connections, read-only ones in recovery.
    ///
    /// # Errors
    /// It does not start within `limit`; the last lines of its log are the reason.
    pub fn start(&self, limit: Duration) -> Result<()> {
        self.ready(&self.begin_start()?, limit)
    }

    /// As [`Instance::start`], for a server that belongs to the run of this worker: see [`Instance::begin_start_of_run`].
    ///
    /// # Errors
    /// As [`Instance::start`].
    pub fn start_of_run(&self, limit: Duration) -> Result<()> {
        self.ready(&self.begin_start_of_run()?, limit)
    }

    fn ready(&self, begun: &Starting, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.poll_start(begun)? {
                State::Ready | State::Standby => return Ok(()),
                _ if Instant::now() >= deadline => {
                    return Err(Error::target(format!("{} is not ready after {} s", self.place(), limit.as_secs()))
                        .why(self.log_tail(6))
                        .hint("it goes on starting; look at its log, or stop it"));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Starts the server and returns at once; follow it with [`Instance::poll_start`]. It belongs to nobody: when a worker
    /// that started it dies, nothing tells that it goes on.
    ///
    /// # Errors
    /// Wrong version for the data directory, the log cannot be opened, or `pg_ctl` cannot be run.
    pub fn begin_start(&self) -> Result<Starting> {
        self.launch(false)
    }

    /// As [`Instance::begin_start`], for a server that belongs to the run of this worker until that run's end is recorded:
    /// when the worker dies before, its incident shows that the server goes on. In other processes there is no difference.
    ///
    /// # Errors
    /// As [`Instance::begin_start`].
    pub fn begin_start_of_run(&self) -> Result<Starting> {
        self.launch(true)
    }

    /// The server's own options: its configuration stands outside the data directory.
    fn start_options(&self) -> String {
        let config = self.layout.config.join("postgresql.conf");
        let mut options = format!("-c config_file={}", shell_quote(&config.display().to_string()));
        for (name, value) in &self.overrides {
            options.push_str(&format!(" -c {}", shell_quote(&format!("{name}={value}"))));
        }
        options
    }

    /// How a person starts it again, after the machine was, say: a line for a shell. Without `config_file` it would come up with
    /// settings of another server, or not at all.
    pub fn start_command(&self) -> String {
        let path = |p: &Path| shell_quote(&p.display().to_string());
        let who = self.user.as_ref().map_or_else(String::new, |u| format!("sudo -u {} ", shell_quote(&u.name)));
        format!(
            "{who}{} start -D {} -l {} -o {}",
            path(&self.programs.path("pg_ctl")),
            path(&self.layout.data),
            path(&self.layout.log),
            shell_quote(&self.start_options())
        )
    }

    fn launch(&self, of_run: bool) -> Result<Starting> {
        let major = data_version(&self.layout.data)?;
        if major != self.programs.major {
            return Err(Error::target(format!(
                "{:?} belongs to PostgreSQL {major}, the programs are {}",
                self.layout.data.display(),
                self.programs.version()
            )));
        }
        if self.state() != State::Stopped {
            return Ok(Starting { log_from: 0, began: Instant::now() });
        }
        let options = self.start_options();
        // What earlier runs wrote must not be taken for this one's.
        let log_from = std::fs::metadata(&self.layout.log).map_or(0, |m| m.len());
        let mut pg_ctl = self.programs.detached("pg_ctl", self.user.as_ref(), of_run)?;
        // -W returns at once. The server would keep any pipe of ours open for its whole life, so it gets none.
        let status = pg_ctl
            .args(["start", "-s", "-W", "-D"])
            .arg(&self.layout.data)
            .arg("-l")
            .arg(&self.layout.log)
            .arg("-o")
            .arg(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .target(|| "cannot run pg_ctl".to_string())?;
        if !status.success() {
            return Err(Error::target(format!("pg_ctl cannot start {}", self.place())).why(self.log_tail(6)));
        }
        Ok(Starting { log_from, began: Instant::now() })
    }

    /// Where a start begun has got to.
    ///
    /// # Errors
    /// The server ended again; the last lines of its log are the reason.
    pub fn poll_start(&self, begun: &Starting) -> Result<State> {
        let state = self.state();
        if state != State::Stopped {
            return Ok(state);
        }
        // Between pg_ctl's fork and the pid file there is a moment without one: its log, or time, gives the verdict.
        let log = read_from(&self.layout.log, begun.log_from);
        let ended = log.contains("database system is shut down") || log.contains("FATAL:") || log.contains("PANIC:");
        if (ended || begun.began.elapsed() > Duration::from_secs(20)) && self.state() == State::Stopped {
            return Err(Error::target(format!("{} did not stay up", self.place())).why(last_lines(&log, 6)));
        }
        Ok(State::Starting)
    }

    /// What the server is doing, from `postmaster.pid` (its status line; PostgreSQL 10 and later) and whether that process lives.
    pub fn state(&self) -> State {
        let Some(text) = self.pid_file() else { return State::Stopped };
        let mut lines = text.lines();
        let Some(pid) = lines.next().and_then(|l| l.trim().parse::<i32>().ok()) else { return State::Stopped };
        if !alive(pid) {
            return State::Stopped;
        }
        match lines.nth(6).map(str::trim) {
            Some("ready") => State::Ready,
            Some("standby") => State::Standby,
            Some("stopping") => State::Stopping,
            _ => State::Starting,
        }
    }

    /// Process id of the postmaster, when it lives.
    pub fn pid(&self) -> Option<i32> {
        let pid = self.pid_file()?.lines().next()?.trim().parse().ok()?;
        alive(pid).then_some(pid)
    }

    /// Whether a server runs on the data directory.
    pub fn is_running(&self) -> bool {
        self.state() != State::Stopped
    }

    fn pid_file(&self) -> Option<String> {
        std::fs::read_to_string(self.layout.data.join("postmaster.pid")).ok()
    }

    /// Stops the server and waits for its end; nothing to do when there is none.
    ///
    /// # Errors
    /// It is still there after `limit`.
    pub fn stop(&self, how: Stop, limit: Duration) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let out = self
            .programs
            .command("pg_ctl", self.user.as_ref())
            .args(["stop", "-s", "-m", mode, "-w", "-t", &limit.as_secs().max(1).to_string(), "-D"])
            .arg(&self.layout.data)
            .output()
            .target(|| "cannot run pg_ctl".to_string())?;
        if out.status.success() || !self.is_running() {
            return Ok(());
        }
        Err(Error::target(format!("cannot stop {}", self.place())).why(CleanText::line(out.stderr.trim_ascii())))
    }

    /// Stops a server whose start was begun, also while nothing shows yet that there is one: it would come up behind whoever
    /// only looked for its pid file.
    ///
    /// # Errors
    /// As [`Instance::stop`].
    pub fn stop_begun(&self, begun: &Starting, how: Stop, limit: Duration) -> Result<()> {
        while !self.is_running() && self.poll_start(begun).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stop(how, limit)
    }

    /// Makes the server read its configuration again.
    ///
    /// # Errors
    /// No server, or not ours to signal.
    pub fn reload(&self) -> Result<()> {
        let out = self
            .programs
            .command("pg_ctl", self.user.as_ref())
            .args(["reload", "-s", "-D"])
            .arg(&self.layout.data)
            .output()
            .target(|| "cannot run pg_ctl".to_string())?;
        if out.status.success() {
            return Ok(());
        }
        Err(Error::target(format!("cannot reload {}", self.place())).why(CleanText::line(out.stderr.trim_ascii())))
    }

    /// How a database of this instance is reached, as the superuser.
    pub fn database(&self, name: &str) -> Database {
        Database::at_socket(&self.layout.sockets, self.port, name, &self.superuser)
    }

    /// The last lines of the server's log, cleaned, joined by ` | `.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = read_tail(&self.layout.log, 64 * 1024);
        last_lines(&text, lines)
    }

    fn place(&self) -> String {
        format!("the server on {:?}", self.layout.data.display().to_string())
    }
}

/// The end of a file, at most `max` bytes, as text; empty when it cannot be read.
pub fn read_tail(path: &Path, max: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut f) = std::fs::File::open(path) {
        let len = f.metadata().map_or(0, |m| m.len());
        if f.seek(SeekFrom::Start(len.saturating_sub(max))).is_ok() {
            let _ = f.take(max).read_to_end(&mut bytes);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands in a log file from `offset` on, at most its last 256 KiB.
fn read_from(path: &Path, offset: u64) -> String {
    let len = std::fs::metadata(path).map_or(0, |m| m.len());
    read_tail(path, len.saturating_sub(offset).min(256 * 1024))
}

fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| CleanText::line(l.trim().as_bytes()).to_string())
        .collect();
    lines[lines.len().saturating_sub(n)..].join(" | ")
}

fn alive(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| pid > 1) else { return false };
    // A killed server whose parent does not collect it still answers to signals.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')) {
        return false;
    }
    match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        // It exists and belongs to somebody else.
        Err(e) => e == rustix::io::Errno::PERM,
    }
}

/// A value as postgresql.conf reads it back.
pub fn conf_quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

/// A word as a POSIX shell reads it back.
pub fn shell_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
