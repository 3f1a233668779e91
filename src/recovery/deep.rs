//! Proof that a backup can be restored: into a private server made for it, looked at with amcheck, compared with what was
//! recorded when it was taken, tried with the team's own smoke test, and thrown away again.

pub mod left;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::left::Room;
use super::dump::{self, Request, Selection};
use super::verify::indexes::check_indexes;
use super::verify::{check, passed};
use super::watch::check_cancel;
use super::{Phase, Watch};
use crate::backup::base::{RestoreOptions, needed_log, read_backup, restore_base, verify_backup};
use crate::backup::catalog::{self, BackupKind, Change, Manifest};
use crate::backup::damage::{self, is_damage};
use crate::backup::files::restore_files;
use crate::backup::repository::Unlocked;
use crate::backup::spool::{NO_SPACE, check_space};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::event::{Check, Verdict};
use crate::model::{CleanText, Time};
use crate::postgres::connect::query_error;
use crate::postgres::{Database, Instance, Programs, Stop, user};
use crate::process::{ChildSpec, Ending, RunOptions, UnixUser};

/// How to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder in which the private server is made; removed afterwards.
    pub scratch: PathBuf,
    /// Folder of the server programs, when configured.
    pub bin_dir: Option<PathBuf>,
    /// User the server runs as, when we are root.
    pub run_as: Option<UnixUser>,
    /// A shell command that gets `DATABASE_URL` of the copy; it must exit 0.
    pub smoke: Option<String>,
    /// How long the smoke test may take.
    pub smoke_limit: Duration,
    /// Where what was found is remembered when the catalog cannot be told.
    pub heads: Option<PathBuf>,
    /// What was found is written down.
    pub record: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The backup.
    pub backup: String,
    /// What sort.
    pub kind: BackupKind,
    /// When the test began.
    pub at: Time,
    /// Milliseconds it took.
    pub took_ms: u64,
    /// Milliseconds of it until the copy accepted connections.
    pub restored_ms: Option<u64>,
    /// Each check.
    pub checks: Vec<Check>,
    /// No check failed, and some passed.
    pub ok: bool,
    /// Why the catalog could not be told what was found, where it was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
}

impl Report {
    /// For people.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "# Restore test of `{}`\n\n{} backup, tested {} UTC, {:.1} s. Result: **{}**\n\n| check | result | seen |\n|---|---|---|\n",
            self.backup,
            self.kind.word(),
            self.at.date_hms(),
            self.took_ms as f64 / 1000.0,
            if self.ok { "restorable" } else { "NOT RESTORABLE" }
        );
        for c in &self.checks {
            let word = match c.verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::NotAvailable => "not checked",
            };
            out.push_str(&format!("| {} | {word} | {} |\n", cell(&c.name), cell(&c.detail)));
        }
        out
    }
}

fn cell(text: &str) -> String {
    CleanText::line(text.replace('\n', " ").as_bytes()).as_str().replace('|', "\\|")
}

/// A private server that goes with the value.
struct Private {
    instance: Instance,
    // After the server, which is stopped first.
    room: Room,
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.instance.stop(Stop::Immediate, Duration::from_secs(60));
    }
}

/// Restores a backup into a private server and looks at it. What is wrong with the backup is in the report; when all is
/// right the catalog says that it was restored.
///
/// # Errors
/// The test itself cannot be made: no server programs, no space, stopped.
pub async fn deep(
    unlocked: &Unlocked,
    manifest: &Manifest,
    options: &Options,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Report> {
    let (at, begun) = (Time::from_system(std::time::SystemTime::now()), Instant::now());
    if let Some(command) = options.smoke.as_deref().filter(|_| manifest.kind != BackupKind::Files) {
        readable(command, cancel).await?;
    }
    let (scratch, bin_dir, run_as) = (options.scratch.clone(), options.bin_dir.clone(), options.run_as.clone());
    let swept = blocking(move || Ok(left::sweep(&scratch, bin_dir.as_deref(), run_as.as_ref()))).await?;
    swept.iter().for_each(|line| watch.line(line));
    let mut checks = Vec::new();
    let mut restored_ms = None;
    let tested = run_checks(unlocked, manifest, options, watch, cancel, &mut checks, &mut restored_ms).await;
    // A machine that cannot restore says nothing of the backup: that is in the report, and not in the catalog.
    let mut wrong: Option<(&str, Error)> = None;
    match tested {
        Ok(()) => {}
        Err(Broke::Machine(e)) => {
            check_cancel(cancel, "the restore test was not finished")?;
            return Err(untried(e, manifest, options));
        }
        Err(Broke::Smoke(e)) => return Err(e),
        Err(Broke::Test(e)) if e.kind == ErrorKind::Target && lacks_room(&e) => {
            return Err(untried(e, manifest, options));
        }
        // It could not be read, which says nothing of what is there.
        Err(Broke::Test(e)) if e.kind == ErrorKind::Target && checks.is_empty() && !is_damage(&e) => return Err(e),
        // What a damaged backup or a failing restore says is the result, not a failure of the test.
        Err(Broke::Test(e)) if matches!(e.kind, ErrorKind::Check | ErrorKind::Target | ErrorKind::Refused) => {
            check_cancel(cancel, "the restore test was not finished")?;
            let (name, how) = match checks.is_empty() {
                true => ("every byte", catalog::READ),
                false => ("restore", catalog::RESTORED),
            };
            checks.push(check(name, Verdict::Failed, e.to_string().replace('\n', " ")));
            // A server that started and would not take it is not the machine's fault.
            let refused = dump::does_not_come_back(&e);
            wrong = refused.or_else(|| is_damage(&e).then_some(e)).map(|e| (how, e));
        }
        Err(Broke::Test(e)) => return Err(e),
    }
    let ok = passed(&checks);
    if let Some(c) =
        checks.iter().find(|c| c.verdict == Verdict::Failed).filter(|_| wrong.is_none() && restored_ms.is_some())
    {
        wrong = Some((catalog::RESTORED, Error::check(format!("{}: {}", c.name, c.detail))));
    }
    let (work, id, heads, record) = (unlocked.clone(), manifest.id.clone(), options.heads.clone(), options.record);
    let unrecorded = blocking(move || {
        if !record {
            return Ok(None);
        }
        if ok {
            let change = Change::Verified { backup: id.clone(), how: catalog::RESTORED.into() };
            let untold = catalog::append(&work, &change).err().map(|e| format!("{}: {}", e.what, e.why));
            damage::right(&work, heads.as_ref(), &id, catalog::RESTORED, untold.as_deref());
            return Ok(untold);
        }
        Ok(wrong.and_then(|(how, e)| damage::found(&work, heads.as_ref(), &id, how, &e)))
    })
    .await?;
    if let Some(why) = &unrecorded {
        watch.line(&format!("WARNING: the catalog could not be told what was found: {why}"));
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Report { backup: manifest.id.clone(), kind: manifest.kind, at, took_ms, restored_ms, checks, ok, unrecorded })
}

/// Why the checks broke off.
enum Broke {
    /// By the backup, as far as can be seen.
    Test(Error),
    /// Before the backup had its say: the private server could not be made.
    Machine(Error),
    /// By the smoke test, which did not run: all that was looked at by then was right.
    Smoke(Error),
}

impl From<Error> for Broke {
    fn from(e: Error) -> Self {
        Self::Test(e)
    }
}

/// That the restore did not happen for want of room: a dump that is refused, a copy that does not start, a file that ends early.
fn lacks_room(e: &Error) -> bool {
    ["No space left on device", "Disk quota exceeded", "could not extend file"].iter().any(|w| e.why.contains(w))
        || e.what.starts_with(NO_SPACE)
}

/// What to say when this machine could not make the test.
fn untried(e: Error, manifest: &Manifest, options: &Options) -> Error {
    if !matches!(e.kind, ErrorKind::Target | ErrorKind::Refused) {
        return e;
    }
    let scratch = options.scratch.display().to_string();
    let said = Error::target(format!("the restore of backup {} could not be tried in {scratch:?}", manifest.id));
    let said = said.why(e.what).why(e.why);
    // There is no such option here.
    let hints = e.hints.into_iter().filter(|h| !h.contains("--ignore-space"));
    hints.fold(said, Error::hint).hint(format!(
        "Nothing is held against the backup: every byte of it was read and is right. Make room in {scratch:?}, or name another folder \
         with --scratch, then this command again."
    ))
}

async fn run_checks(
    unlocked: &Unlocked,
    manifest: &Manifest,
    options: &Options,
    watch: &dyn Watch,
    cancel: &CancellationToken,
    checks: &mut Vec<Check>,
    restored_ms: &mut Option<u64>,
) -> Result<(), Broke> {
    let begun = Instant::now();
    watch.phase(&Phase { name: "read", unit: "bytes", text: "every byte".into(), ..Phase::default() });
    let bytes = {
        let (u, id, stop, record) = (unlocked.clone(), manifest.id.clone(), cancel.clone(), options.record);
        let read = if record { verify_backup } else { read_backup };
        blocking(move || read(&u, &id, &mut |_| check_cancel(&stop, "nothing was restored"))).await?.plain_bytes
    };
    checks.push(check("every byte", Verdict::Passed, format!("{bytes} bytes authentic and as the manifest says")));
    if manifest.kind == BackupKind::Files {
        checks.push(files(unlocked, manifest, options, cancel).await?);
        *restored_ms = u64::try_from(begun.elapsed().as_millis()).ok();
        return Ok(());
    }
    let private = private_server(unlocked, manifest, options, cancel).await?;
    let looked = async {
        let databases = match manifest.kind {
            BackupKind::Physical => databases(&private.instance).await?,
            _ => {
                let target = private.instance.database(manifest.database.as_deref().unwrap_or("restored"));
                let request = Request {
                    // The private server has databases of its own; one of their names is no reason to fail.
                    overwrite: true,
                    partial: true,
                    detach_replication: false,
                    target: target.clone(),
                    selection: Selection::default(),
                    tiers: Default::default(),
                    jobs: 2,
                    no_owner: false,
                    no_privileges: false,
                    create_roles: true,
                    scratch: options.scratch.clone(),
                    ignore_space: false,
                    bin_dir: options.bin_dir.clone(),
                    run_as: options.run_as.clone(),
                };
                let done = dump::restore(unlocked, manifest, &request, watch, cancel).await?;
                checks.push(match (done.tables, manifest.kind) {
                    (0, BackupKind::Logical) => check(
                        "rows",
                        Verdict::NotAvailable,
                        manifest.without_rows().unwrap_or("none of its tables was counted when the dump was taken"),
                    ),
                    (tables, _) => {
                        let detail = format!("{tables} tables, {} rows: as many as when the dump was taken", done.rows);
                        check("rows", Verdict::Passed, detail)
                    }
                });
                vec![target]
            }
        };
        *restored_ms = u64::try_from(begun.elapsed().as_millis()).ok();
        checks.push(check("starts", Verdict::Passed, format!("{} databases accept connections", databases.len())));
        if manifest.kind == BackupKind::Physical {
            checks.push(check(
                "rows",
                Verdict::NotAvailable,
                "a base backup records no counts: it is not of one moment",
            ));
        }
        for at in &databases {
            check_cancel(cancel, "the restore test was not finished")?;
            let mut c = at.connect().await?;
            let mut found = check_indexes(&mut c, watch, cancel).await?;
            found.name = format!("{} {}", found.name, at.name());
            checks.push(found);
        }
        if let Some(command) = &options.smoke {
            let at = databases.first().ok_or_else(|| Error::check("the copy holds no database"))?;
            checks.push(smoke(command, at, options, manifest, cancel).await?);
        }
        Ok::<(), Broke>(())
    };
    // A server that died on a full disk says that it is gone, and seldom why: as long as its files are there, it shows.
    looked.await.map_err(|e| no_room(e, &private.room.path))
}

/// What a server needs at least to start and to work: a segment of its log.
const LEAST: u64 = 16 << 20;

fn no_room(e: Broke, at: &Path) -> Broke {
    match (e, check_space(at, LEAST, "the private server")) {
        (Broke::Test(e), Err(room)) if e.kind == ErrorKind::Target && !is_damage(&e) => {
            Broke::Machine(room.why(e.what).why(e.why))
        }
        (e, _) => e,
    }
}

/// Files into a folder of their own, each compared with what was stored.
async fn files(
    unlocked: &Unlocked,
    manifest: &Manifest,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Check> {
    let (u, m, stop, scratch) = (unlocked.clone(), manifest.clone(), cancel.clone(), options.scratch.clone());
    blocking(move || {
        let room = Room::new(&scratch, None)?;
        let parity =
            restore_files(&u, &m, &room.path.join("files"), &mut |_| check_cancel(&stop, "nothing was restored"))?;
        let detail = format!("{} files, {} bytes: the same as when they were stored", parity.same, parity.bytes);
        Ok(check("files", Verdict::Passed, detail))
    })
    .await
}

/// The server: empty for a dump, the backup's own files for a base backup.
async fn private_server(
    unlocked: &Unlocked,
    manifest: &Manifest,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Private, Broke> {
    let major = manifest.postgres_version.as_deref().and_then(|v| v.split('.').next()).and_then(|v| v.parse().ok());
    let programs = Programs::find(options.bin_dir.as_deref(), major).map_err(Broke::Machine)?;
    let room = Room::new(&options.scratch, options.run_as.as_ref()).map_err(Broke::Machine)?;
    let instance = Instance::new(programs, &room.path, options.run_as.clone()).map_err(Broke::Machine)?;
    let private = Private { instance, room };
    let (u, m, stop, instance) = (unlocked.clone(), manifest.clone(), cancel.clone(), private.instance.clone());
    let owner = options.run_as.as_ref().map(|u| (u.uid, u.gid));
    blocking(move || {
        let data = instance.layout.data.clone();
        if m.kind == BackupKind::Physical {
            let options = RestoreOptions { owner, threads: 2 };
            restore_base(&u, &m.id, &data, &options, &mut |_| check_cancel(&stop, "nothing was restored"))?;
            needed_log(&u, &m, &data, owner)?;
            // It must not archive, replicate or listen as the server did that it is a copy of.
            user::own_file(&data.join("postgresql.auto.conf"), "", instance.user.as_ref())?;
            for name in ["standby.signal", "recovery.signal"] {
                match std::fs::remove_file(data.join(name)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::target(format!("removing {name:?}")).why(e));
                    }
                    _ => {}
                }
            }
        } else {
            instance.create(None)?;
        }
        let settings = [
            ("fsync", "off"),
            ("autovacuum", "off"),
            ("archive_mode", "off"),
            ("max_wal_senders", "0"),
            ("wal_level", "replica"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()));
        instance.configure(&settings, None)?;
        instance.start(Duration::from_secs(600))
    })
    .await
    .map_err(|e| match manifest.kind {
        // Nothing of the backup is in it yet.
        BackupKind::Logical | BackupKind::SchemaOnly if !is_damage(&e) => Broke::Machine(e),
        _ => no_room(Broke::Test(e), &private.room.path),
    })?;
    Ok(private)
}

async fn databases(instance: &Instance) -> Result<Vec<Database>> {
    let mut c = instance.database("postgres").connect().await?;
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate \
               ORDER BY datname = 'postgres', datname";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut c).await.map_err(|e| query_error(sql, &e))?;
    Ok(names.iter().map(|n| instance.database(n)).collect())
}

/// That the shell can read the smoke test: a slip of the pen is seen before the backup is restored for it.
///
/// # Errors
/// Usage when it cannot; target when there is no shell.
async fn readable(command: &str, cancel: &CancellationToken) -> Result<()> {
    let spec = ChildSpec::new("/bin/sh").arg("-n").arg("-c").arg(command);
    let limits = RunOptions { cancel: cancel.clone(), timeout: Some(READ_LIMIT), ..RunOptions::default() };
    let out = crate::process::capture(&spec, &limits).await?;
    check_cancel(cancel, "the restore test was not begun")?;
    match out.end.success() {
        true => Ok(()),
        false => Err(Error::usage(format!("the smoke test {command:?} cannot be read by /bin/sh"))
            .why(out.complaint().trim())
            .hint("Put --smoke right. Nothing was restored, and nothing is held against the backup.")),
    }
}

/// How long a shell may take to read a command.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// Exit codes of a shell for a command that cannot be executed, and one that is not found (POSIX 2.8.2).
const NOT_RUN: [i32; 2] = [126, 127];

async fn smoke(
    command: &str,
    at: &Database,
    options: &Options,
    manifest: &Manifest,
    cancel: &CancellationToken,
) -> Result<Check, Broke> {
    let spec = ChildSpec::new("/bin/sh").arg("-c").arg(command).env("DATABASE_URL", at.url());
    let limits = RunOptions { cancel: cancel.clone(), timeout: Some(options.smoke_limit), ..RunOptions::default() };
    let out = crate::process::capture(&spec, &limits).await.map_err(Broke::Smoke)?;
    check_cancel(cancel, "the restore test was not finished")?;
    let said = CleanText::line(out.complaint().replace('\n', " | ").as_bytes()).to_string();
    if out.end.ending == Ending::Exited && out.end.signal.is_none() && NOT_RUN.contains(&out.end.code) {
        let id = &manifest.id;
        let e = Error::target(format!("the smoke test of backup {id} could not be tried: {command:?}"));
        return Err(Broke::Smoke(e.why(format!("{}: {said}", out.end.describe())).hint(format!(
            "A command in it was not found here, or cannot be executed. Put --smoke right, then: breakglass backup verify {id} --deep --smoke CMD"
        ))
        .hint("Nothing is held against the backup: every byte of it is right, it was restored and starts.")));
    }
    Ok(match out.end.success() {
        true => check("smoke test", Verdict::Passed, if said.is_empty() { "exit code 0".into() } else { said }),
        false => check("smoke test", Verdict::Failed, format!("{}: {said}", out.end.describe())),
    })
}

/// Writes a report as `<folder>/<backup>.md` and `.json`.
///
/// # Errors
/// They cannot be written.
pub fn write_report(report: &Report, dir: &Path) -> Result<()> {
    let what = || format!("writing the report into {:?}", dir.display());
    std::fs::create_dir_all(dir).target(what)?;
    std::fs::write(dir.join(format!("{}.md", report.backup)), report.markdown()).target(what)?;
    let json = serde_json::to_vec_pretty(report).state(what)?;
    std::fs::write(dir.join(format!("{}.json", report.backup)), json).target(what)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.state(|| "the work broke off".into())?
}
