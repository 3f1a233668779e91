//! A second process: this test binary run again, with what to do in the environment.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use breakglass::journal::{Append, FileJournal, FileLock, Journal};

use super::note;

const TASK: &str = "BREAKGLASS_TEST_TASK";

/// A command that runs [`task`] with these words.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "journal::helper::task", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(TASK, words.join("\u{1f}")).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// A child that is killed and reaped when its test ends, however that ends.
pub struct Helper(pub Child);

impl Helper {
    pub fn start(words: &[&str]) -> Self {
        Self(command(words).spawn().unwrap())
    }
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
    pub fn finish(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: what the second process does.
#[test]
#[ignore = "run by other tests as a second process"]
fn task() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split('\u{1f}').collect();
    let number = |i: usize| words[i].parse::<u64>().unwrap();
    let dir = Path::new(words[1]);
    match words[0] {
        // append DIR NAME COUNT: one note each, never giving up
        "append" => {
            let mut journal = FileJournal::open(dir).unwrap().with_deadline(Duration::from_secs(60));
            for i in 0..number(3) {
                super::append(&mut journal, note(&format!("{} {i}", words[2])));
            }
        }
        // try DIR COUNT FILE: appends and writes to FILE, one line each, how that went
        "try" => {
            let mut journal = FileJournal::open(dir).unwrap();
            let mut log = std::fs::File::create(words[3]).unwrap();
            for i in 0..number(2) {
                let head = journal.head().unwrap();
                match journal.append_if(&head, note(&format!("{i} {}", "x".repeat(300)))) {
                    Ok(Append::Appended(r)) => writeln!(log, "ok {}", r.seq).unwrap(),
                    Ok(Append::Conflict(_)) => writeln!(log, "conflict").unwrap(),
                    Err(e) => writeln!(log, "error {}", e.to_string().replace('\n', " ")).unwrap(),
                }
            }
        }
        // hold LOCK: takes the lock and keeps it until stdin ends
        "hold" => {
            let _held = FileLock::acquire(dir, Duration::from_secs(10), "holding it for a test").unwrap();
            let _ = std::io::stdin().read(&mut [0]);
        }
        // tear DIR: takes the journal's lock, writes half a line, and waits to be killed
        "tear" => {
            let _held = FileLock::acquire(dir.join("journal.lock"), Duration::from_secs(10), "tearing").unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(dir.join("journal.jsonl")).unwrap();
            let end = file.metadata().unwrap().len();
            file.write_all_at(b"{\"v\":1,\"seq\":4,\"command", end).unwrap();
            let _ = std::io::stdin().read(&mut [0]);
        }
        other => panic!("no task {other}"),
    }
}
