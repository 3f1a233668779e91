//! Somebody at work in the folder of a recovery: a lock that is held as long as it is built or moved, with who and since when.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Context, Error, Result};
use crate::model::{CleanText, Time, format_clock};

/// Name of the lock in the folder.
const LOCK: &str = "building.lock";
/// How long one who asks may hold it: whoever takes it insists for longer.
const INSIST: Duration = Duration::from_millis(20);

/// Held while this process works in the folder.
#[derive(Debug)]
pub struct Building {
    path: PathBuf,
    file: File,
}

impl Building {
    /// Takes the lock; `what` says in one word what is done.
    ///
    /// # Errors
    /// Refused when another process holds it; the file cannot be made.
    pub fn take(root: &Path, what: &str) -> Result<Self> {
        let path = root.join(LOCK);
        let name = || format!("cannot lock {:?}", path.display());
        let begun = Instant::now();
        loop {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).target(name)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // One that was deleted since keeps nobody out.
                if !same_file(&file, &path) {
                    continue;
                }
                file.set_len(0).target(name)?;
                // Whoever may enter the folder may ask.
                file.set_permissions(std::fs::Permissions::from_mode(0o644)).target(name)?;
                let now = Time::from_system(SystemTime::now());
                write!(file, "{} {now} {what}", std::process::id()).target(name)?;
                return Ok(Self { path, file });
            }
            if begun.elapsed() > INSIST {
                let by = at_work(root).unwrap_or_else(|| "another process is at work in it".into());
                return Err(busy(root, &by));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if same_file(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: std::fs::Metadata| (m.dev(), m.ino());
    let (here, there) = (file.metadata().map(id), std::fs::metadata(path).map(id));
    matches!((here, there), (Ok(a), Ok(b)) if a == b)
}

/// Who is at work in this folder, in a sentence; none when nobody is.
pub fn at_work(root: &Path) -> Option<String> {
    let path = root.join(LOCK);
    let file = File::open(&path).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    let mut words = said.splitn(3, ' ');
    let (pid, since, what) = (words.next()?, words.next().and_then(|t| Time::parse(t).ok()), words.next());
    let long = since.map_or_else(String::new, |t| {
        let long = Time::from_system(SystemTime::now()).since(t);
        format!(", since {} ({})", t.hms(), format_clock(long))
    });
    let what = CleanText::line(what.unwrap_or("works on").as_bytes()).to_string();
    Some(format!("process {} {what} the recovery in it just now{long}", CleanText::line(pid.as_bytes())))
}

/// That this folder is somebody's at the moment.
pub fn busy(root: &Path, by: &str) -> Error {
    Error::refused(format!("somebody else is at work in {:?}", root.display()))
        .why(by)
        .hint("nothing was touched; wait for it, or end it where it runs")
}
