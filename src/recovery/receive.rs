//! `wal receive`: the log as the server writes it, through a replication slot, into the repository; the segment that is not
//! full yet every few seconds. What can be lost with the server is then seconds instead of a segment.
//!
//! `pg_receivewal` does the receiving, into a folder of its own. It may outlive us and the server may outlive both: nothing is
//! lost as long as either the slot or that folder has it, and a new start takes up both.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::watch::Watch;
use crate::backup::repository::Repository;
use crate::backup::wal::received::{self, Received};
use crate::backup::wal::{DEFAULT_SEGMENT_SIZE, Segment, WalName, archive_into, format_lsn};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::{CleanText, Time};
use crate::postgres::connect::query_error;
use crate::postgres::{Database, Lsn, Programs};
use crate::process::ChildSpec;
use crate::process::locks::{self, RunLocks};

/// What to receive, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server; its role needs REPLICATION.
    pub server: Database,
    /// Name of the physical replication slot; made when there is none, and kept.
    pub slot: String,
    /// Folder for what was received and is not stored yet.
    pub spool: PathBuf,
    /// How often the segment that is not full is stored.
    pub every: Duration,
    /// Programs of the server's version, or a newer one.
    pub programs: Programs,
}

/// Samples of the server's position that are kept to say up to which moment everything is stored.
const SAMPLES: usize = 4096;
/// How long after `pg_receivewal` ended another one is started.
const AGAIN: Duration = Duration::from_secs(1);

/// Receives until asked to stop.
///
/// # Errors
/// Another receiver works in the same folder; the repository is another cluster's or cannot be written; the slot cannot be
/// made because the role may not. That the server is away is no error: it is tried again.
pub async fn run(
    repository: &Repository,
    options: &Options,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<()> {
    let wal = options.spool.join("wal");
    std::fs::create_dir_all(&wal).state(|| format!("making the folder {:?}", wal.display()))?;
    // One that was left behind by a killed receiver holds the slot.
    let gone = locks::stop_orphans(&options.spool).map_err(|e| match e.kind {
        ErrorKind::Refused => Error::refused(format!("another receiver works in {:?}", options.spool.display()))
            .why(e.why)
            .hint("one is enough; for another server give another --spool and --slot"),
        _ => e,
    })?;
    if !gone {
        return Err(Error::state(format!("a pg_receivewal that was left in {:?} goes on", options.spool.display()))
            .hint("end it, then start again"));
    }
    let locks = RunLocks::take(&options.spool)?;
    let mut it = Receiver {
        repository,
        options,
        wal,
        child: None,
        ended: None,
        server: None,
        samples: VecDeque::new(),
        stored: None,
        covered_at: None,
        system: repository.cluster()?.map(|c| c.system_identifier),
        said: String::new(),
        watch,
    };
    let result = it.follow(cancel).await;
    it.stop_child();
    // What came in while it ended.
    let result = result.and_then(|()| it.store());
    locks.release();
    result
}

struct Receiver<'a> {
    repository: &'a Repository,
    options: &'a Options,
    wal: PathBuf,
    child: Option<Child>,
    ended: Option<Instant>,
    server: Option<PgConnection>,
    samples: VecDeque<(Time, Lsn)>,
    /// The segment whose beginning was stored last, when its file was changed, and where its log ends.
    stored: Option<(Segment, SystemTime, u64)>,
    covered_at: Option<Time>,
    system: Option<u64>,
    said: String,
    watch: &'a dyn Watch,
}

impl Receiver<'_> {
    async fn follow(&mut self, cancel: &CancellationToken) -> Result<()> {
        loop {
            if let Err(e) = self.ask().await {
                if matches!(e.kind, ErrorKind::Refused | ErrorKind::Config) {
                    return Err(e);
                }
                self.server = None;
                self.say(format!("the server does not answer: {}; {}", e.what, e.why));
            }
            self.keep_child()?;
            if let Err(e) = self.store() {
                // A full disk may be emptied; another cluster's log stays another's.
                if !matches!(e.kind, ErrorKind::Target | ErrorKind::State) {
                    return Err(e);
                }
                self.say(format!("not stored: {}; {}", e.what, e.why));
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.every) => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// Once, until something else is to be said.
    fn say(&mut self, text: String) {
        if self.said != text {
            self.watch.line(&text);
            self.said = text;
        }
    }

    /// Asks the server where it is; on a new connection also who it is, and makes the slot.
    async fn ask(&mut self) -> Result<()> {
        let mut c = match self.server.take() {
            Some(c) => c,
            None => {
                let mut c = self.options.server.connect_within(Duration::from_secs(5)).await?;
                self.check_cluster(&mut c).await?;
                self.make_slot(&mut c).await?;
                c
            }
        };
        // The time before the position: what committed by then is not behind it.
        let sql = "SELECT (extract(epoch FROM t) * 1000000)::int8, \
                   (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_insert_lsn() END)::text \
                   FROM (SELECT clock_timestamp() AS t OFFSET 0) s";
        let asked = sqlx::query_as(sql).fetch_one(&mut c);
        let (at, lsn): (i64, Option<String>) = tokio::time::timeout(Duration::from_secs(5), asked)
            .await
            .map_err(|_| Error::target("the server did not say its position within 5 s"))?
            .map_err(|e| query_error(sql, &e))?;
        if let Some(lsn) = lsn.and_then(|l| l.parse().ok()) {
            self.samples.push_back((Time::from_micros(at), lsn));
            if self.samples.len() > SAMPLES {
                self.samples.pop_front();
            }
        }
        self.server = Some(c);
        Ok(())
    }

    async fn check_cluster(&mut self, c: &mut PgConnection) -> Result<()> {
        let sql = "SELECT system_identifier::text, (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size') \
                   FROM pg_control_system()";
        let (system, size): (String, i64) =
            sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        let system: u64 = system.parse().target(|| "the server's system identifier".into())?;
        self.repository.bind_cluster(system, u32::try_from(size).ok())?;
        self.system = Some(system);
        Ok(())
    }

    async fn make_slot(&mut self, c: &mut PgConnection) -> Result<()> {
        let slot = &self.options.slot;
        let sql = "SELECT slot_type::text, active FROM pg_replication_slots WHERE slot_name = $1";
        let found: Option<(String, bool)> =
            sqlx::query_as(sql).bind(slot).fetch_optional(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        match found {
            Some((kind, _)) if kind != "physical" => {
                Err(Error::refused(format!("slot {slot:?} is a {kind} one")).hint("name another one with --slot"))
            }
            Some(_) => Ok(()),
            None => {
                // Reserved at once: from its making on the server keeps the log, also before anybody reads.
                let sql = "SELECT pg_create_physical_replication_slot($1, true)::text";
                let made: std::result::Result<Option<String>, _> =
                    sqlx::query_scalar(sql).bind(slot).fetch_one(&mut *c).await;
                made.map_err(|e| {
                    let code = crate::postgres::connect::sqlstate(&e);
                    let error = query_error(sql, &e);
                    // insufficient_privilege and configuration_limit_exceeded: trying again will not help.
                    match code.as_deref() {
                        Some("42501") => Error::config(format!("slot {slot:?} cannot be made")).why(error.why),
                        Some("53400") => Error::config(format!("slot {slot:?} cannot be made"))
                            .why(error.why)
                            .hint("raise max_replication_slots"),
                        _ => error,
                    }
                })?;
                self.say(format!("made the replication slot {slot:?}; drop it when nothing receives any more"));
                Ok(())
            }
        }
    }

    /// Starts `pg_receivewal`, and starts it again when it ended.
    fn keep_child(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            if child.try_wait().state(|| "following pg_receivewal".into())?.is_none() {
                return Ok(());
            }
            self.child = None;
            self.ended = Some(Instant::now());
            let words = last_words(&self.options.spool.join("pg_receivewal.log"));
            self.say(format!("pg_receivewal ended and is started again: {words}"));
        }
        if self.ended.is_some_and(|t| t.elapsed() < AGAIN) || self.server.is_none() {
            return Ok(());
        }
        let log = self.options.spool.join("pg_receivewal.log");
        let out = File::create(&log).state(|| format!("writing {:?}", log.display()))?;
        let mut spec = ChildSpec::new(self.options.programs.path("pg_receivewal"))
            .args(["--no-loop", "--no-password", "--status-interval=1", "--slot", &self.options.slot, "-D"])
            .arg(&self.wal);
        for (name, value) in self.options.server.tool_env() {
            spec = spec.env(name, value.expose());
        }
        let mut c = spec.command();
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        self.child = Some(c.spawn().target(|| format!("cannot start {}", spec.program().display()))?);
        Ok(())
    }

    fn stop_child(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(5) {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Puts what was received into the repository.
    fn store(&mut self) -> Result<()> {
        let size = self.repository.cluster()?.and_then(|c| c.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE);
        let mut whole: Vec<(Segment, PathBuf)> = Vec::new();
        let mut begun: Vec<(Segment, PathBuf)> = Vec::new();
        let reading = || format!("reading the folder {:?}", self.wal.display());
        for entry in std::fs::read_dir(&self.wal).state(reading)? {
            let entry = entry.state(reading)?;
            let path = entry.path();
            match WalName::parse(&entry.file_name().to_string_lossy()) {
                Ok(WalName::Segment(s)) => whole.push((s, path)),
                Ok(WalName::Partial(s)) => begun.push((s, path)),
                Ok(name @ WalName::History(_)) => archive_into(self.repository, &path, &name).map(|_| ())?,
                _ => {}
            }
        }
        whole.sort();
        begun.sort();
        // The newest whole one stays: with an empty folder a server before version 15 would be asked from its present position.
        let keep = whole.last().map(|(s, _)| *s);
        for (segment, path) in &whole {
            archive_into(self.repository, path, &WalName::Segment(*segment))?;
            received::remove(self.repository, *segment)?;
            if Some(*segment) != keep {
                std::fs::remove_file(path).state(|| format!("removing {:?}", path.display()))?;
            }
        }
        let mut end = keep.map(|s| (s, s.start_lsn(size) + u64::from(size)));
        if let Some((segment, path)) = begun.last() {
            let changed = std::fs::metadata(path).and_then(|m| m.modified());
            match changed {
                Ok(changed) => {
                    let known = self.stored.filter(|(s, t, _)| s == segment && *t == changed);
                    match known {
                        Some((.., lsn)) => end = Some((*segment, lsn)),
                        None => {
                            if let Some(lsn) = self.store_beginning(*segment, path, size)? {
                                self.stored = Some((*segment, changed, lsn));
                                end = Some((*segment, lsn));
                            }
                        }
                    }
                }
                // Finished since the folder was read: the next round has it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::state(format!("looking at {:?}", path.display())).why(e)),
            }
        }
        match end {
            Some((segment, lsn)) => self.note(segment, lsn),
            None => Ok(()),
        }
    }

    fn store_beginning(&self, segment: Segment, path: &Path, size: u32) -> Result<Option<u64>> {
        let mut bytes = Vec::new();
        let reading = || format!("reading {:?}", path.display());
        match File::open(path) {
            Ok(file) => file.take(u64::from(size)).read_to_end(&mut bytes).state(reading)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::state(reading()).why(e)),
        };
        bytes.resize(size as usize, 0);
        let Some(end) = received::cut(segment, size, &mut bytes) else { return Ok(None) };
        received::store(self.repository, segment, &bytes)?;
        Ok(Some(end))
    }

    /// Says how far the repository is: everything committed before the newest sample that is not behind the end is in it.
    fn note(&mut self, segment: Segment, end: u64) -> Result<()> {
        while self.samples.front().is_some_and(|(_, lsn)| covers(end, lsn.0)) {
            if let Some((at, _)) = self.samples.pop_front() {
                self.covered_at = Some(at);
            }
        }
        received::note(
            self.repository,
            &Received {
                v: 1,
                system_identifier: self.system.map(|s| s.to_string()).unwrap_or_default(),
                slot: self.options.slot.clone(),
                segment: segment.to_string(),
                end_lsn: format_lsn(end),
                covered_at: self.covered_at,
                at: Time::from_system(SystemTime::now()),
            },
        )
    }
}

/// Whether a log that ends at `end` has everything before `lsn`. The position of what comes next lies behind a page's header.
fn covers(end: u64, lsn: u64) -> bool {
    lsn <= end || (end.is_multiple_of(PAGE) && lsn - end <= LONG_HEADER)
}

/// Size of a page of the log and of the header that the first page of a segment has, in bytes (`access/xlog_internal.h`).
const PAGE: u64 = 8192;
const LONG_HEADER: u64 = 40;

fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    CleanText::line(text.lines().last().unwrap_or("it said nothing").as_bytes()).to_string()
}
