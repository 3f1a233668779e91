//! A private PostgreSQL cluster. It is stopped and removed when dropped, and also when the test process dies in any
//! way: a small shell waits on a pipe for that.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakglass::postgres::{Database, Instance, Programs, Stop, user};
use breakglass::process::UnixUser;

/// How long a server may take on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(120);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder the server's user can enter, removed when dropped or when the test process dies.
pub struct Scratch {
    pub path: PathBuf,
    reaper: Option<Child>,
}

impl Scratch {
    /// A fresh folder. `name` shows in its path, for people who find it.
    pub fn new(name: &str) -> Self {
        Self::below(&std::env::temp_dir(), name)
    }

    /// As [`Scratch::new`], in memory where there is such a place: for tools that make every small file durable.
    pub fn quick(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let there = std::fs::metadata(memory).is_ok_and(|m| m.is_dir() && !m.permissions().readonly());
        if there { Self::below(memory, name) } else { Self::new(name) }
    }

    fn below(place: &Path, name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = place.join(format!("bg-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Every server that ever ran below the folder is stopped by the pid in its own pid file.
        let script = r#"read -r _; find "$1" -maxdepth 6 -name postmaster.pid 2>/dev/null | while read -r f; do
                        kill -QUIT "$(head -n 1 "$f")" 2>/dev/null; done
                        n=0; while [ $n -lt 50 ]; do n=$((n+1)); rm -rf "$1" 2>/dev/null && break; sleep 0.1; done"#;
        let reaper = Command::new("/bin/sh")
            .args(["-c", script, "reaper"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .unwrap();
        Self { path, reaper: Some(reaper) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut r) = self.reaper.take() {
            drop(r.stdin.take());
            let _ = r.wait();
        }
    }
}

/// A running cluster with checksums, commit timestamps and fsync off.
pub struct Cluster {
    pub instance: Instance,
    pub scratch: Scratch,
}

/// Programs of this machine.
pub fn programs() -> Programs {
    Programs::find(None, None).unwrap()
}

/// User that servers run as in tests: none unless root.
pub fn server_user() -> Option<UnixUser> {
    user::for_server(None).unwrap()
}

impl Cluster {
    /// Creates and starts a cluster; `settings` come on top of what tests want (small, quick, commit times).
    pub fn start(name: &str, settings: &[(&str, &str)]) -> Arc<Self> {
        let it = Self::create(name, settings);
        it.instance.start(LIMIT).unwrap();
        Arc::new(it)
    }

    /// As [`Cluster::start`] without the start. Segments of the log are 1 MB, so that tests fill some.
    pub fn create(name: &str, settings: &[(&str, &str)]) -> Self {
        Self::create_in(Scratch::new(name), settings)
    }

    /// As [`Cluster::create`], in this folder.
    pub fn create_in(scratch: Scratch, settings: &[(&str, &str)]) -> Self {
        let mut instance = Instance::new(programs(), &scratch.path, server_user()).unwrap();
        if let Some((_, port)) = settings.iter().find(|(name, _)| *name == "port") {
            instance.port = port.parse().unwrap();
        }
        instance.create(Some(1)).unwrap();
        let mut all: Vec<(String, String)> = [
            ("fsync", "off"),
            ("shared_buffers", "16MB"),
            ("max_connections", "30"),
            ("track_commit_timestamp", "on"),
            ("wal_level", "replica"),
            ("max_wal_senders", "4"),
            ("autovacuum", "off"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .to_vec();
        all.extend(settings.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        instance.configure(&all, None).unwrap();
        Self { instance, scratch }
    }

    /// How a database of it is reached.
    pub fn database(&self, name: &str) -> Database {
        self.instance.database(name)
    }

    /// Runs SQL with psql; returns its unaligned output without the last newline.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        psql(&self.database(database), sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Folder everything of it is in.
    pub fn root(&self) -> &Path {
        &self.scratch.path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.instance.stop(Stop::Immediate, LIMIT);
    }
}

/// Runs SQL with psql against a database.
pub fn psql(at: &Database, sql: &str) -> Result<String, String> {
    let mut c = Command::new(programs().path("psql"));
    c.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]).env_clear().current_dir("/");
    for (name, value) in at.tool_env() {
        c.env(name, value.expose());
    }
    let out = c.stdin(Stdio::null()).output().unwrap();
    if out.status.success() {
        Ok(String::from_utf8(out.stdout).unwrap().trim_end_matches('\n').to_string())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

/// Runs a future on a runtime of its own.
pub fn block_on<F: Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}
