//! The old primary as a standby of the new one: what only it had is written out first, then `pg_rewind` takes it back to where
//! both went apart, or a new base backup replaces it. It never takes a write on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::postgres::PgConnection;

use super::commits::{Commit, parse_commit};
use super::promote::open_kept;
use super::tables::user_tables;
use crate::error::{Context, Error, Result};
use crate::journal::record::sha256_hex;
use crate::model::{CleanText, Digest, Time};
use crate::postgres::connect::query_error;
use crate::postgres::{Control, Database, Instance, Lsn, Stop, user};

/// Longest time for a server to start or stop.
const LIMIT: Duration = Duration::from_secs(300);

/// Where the new primary's timeline left the old one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The old timeline.
    pub timeline: u32,
    /// The first position that both do not share.
    pub lsn: Lsn,
}

/// What only the old primary had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Transactions committed there after the fork.
    pub transactions: u64,
    /// Time of the last of them.
    pub last: Option<Time>,
    /// Rows that were made there after the fork, per table.
    pub new: BTreeMap<String, u64>,
    /// Older rows that were changed there after the fork, per table.
    pub changed: BTreeMap<String, u64>,
    /// SHA-256 per file written.
    pub files: BTreeMap<String, Digest>,
}

/// The fork of the timeline that a primary is on, from that timeline's history.
///
/// # Errors
/// The history cannot be read: the role must be a superuser or may read server files.
pub async fn fork_of(c: &mut PgConnection, timeline: u32) -> Result<Fork> {
    let sql = "SELECT pg_catalog.pg_read_file($1)";
    let file = format!("pg_wal/{timeline:08X}.history");
    let text: String = sqlx::query_scalar(sql).bind(file).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
    let last = text.lines().rfind(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or_default();
    let mut words = last.split_whitespace();
    let fork = words.next().and_then(|t| t.parse().ok()).zip(words.next().and_then(|l| l.parse().ok()));
    fork.map(|(timeline, lsn)| Fork { timeline, lsn }).ok_or_else(|| {
        Error::target("the history of the new timeline is not understood").why(CleanText::line(last.as_bytes()))
    })
}

/// What a stopped server's own log says of the time after a fork.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apart {
    /// Committed transactions, in the order of the log.
    pub commits: Vec<Commit>,
    /// Rows that these inserted, by database and file of the table.
    pub inserted: BTreeMap<(u32, u32), u64>,
}

/// Reads what the stopped old primary did after the fork.
///
/// # Errors
/// `pg_waldump` cannot be run or fails.
pub fn apart_after(old: &Instance, fork: Fork) -> Result<Apart> {
    let mut c = old.programs.command("pg_waldump", old.user.as_ref());
    c.arg("-p").arg(old.layout.data.join("pg_wal")).args(["-t", &fork.timeline.to_string(), "-s"]);
    let run = c.arg(fork.lsn.to_string()).output().target(|| "cannot run pg_waldump".to_string())?;
    let words = CleanText::line(run.stderr.trim_ascii()).to_string();
    // The end of the log is where it stops; it calls that an error. So it does when nothing at all came after the fork.
    let usual = ["could not find file", "error in WAL record", "could not find a valid record", "could not open file"];
    if !run.status.success() && !usual.iter().any(|u| words.contains(u)) {
        return Err(Error::target("pg_waldump failed").why(words));
    }
    let text = String::from_utf8_lossy(&run.stdout);
    let commits: Vec<Commit> = text.lines().filter_map(parse_commit).collect();
    let done: BTreeSet<u32> = commits.iter().flat_map(|c| c.subxids.iter().chain([&c.xid])).copied().collect();
    let mut inserted = BTreeMap::new();
    for (xid, table, rows) in text.lines().filter_map(parse_insert) {
        if done.contains(&xid) {
            *inserted.entry(table).or_default() += rows;
        }
    }
    Ok(Apart { commits, inserted })
}

/// Parses a line of `pg_waldump` that inserts rows: transaction, database and file of the table, rows.
pub fn parse_insert(line: &str) -> Option<(u32, (u32, u32), u64)> {
    let (head, rest) = line.split_once(", desc: ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let rows = match kind.strip_suffix("+INIT").unwrap_or(kind) {
        "INSERT" if head.starts_with("rmgr: Heap ") => 1,
        // `3 tuples flags 0x02` up to version 15, `ntuples: 3, flags: 0x02` later.
        "MULTI_INSERT" => {
            let number = rest.strip_prefix("ntuples: ").unwrap_or(rest);
            number.split([' ', ',']).next()?.parse().ok()?
        }
        _ => return None,
    };
    let (_, tx) = head.split_once(" tx:")?;
    let xid = tx.trim_start().split(',').next()?.parse().ok()?;
    let (_, rel) = rest.split_once("blkref #0: rel ")?;
    let mut parts = rel.split([' ', ',']).next()?.split('/').skip(1);
    Some((xid, (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?), rows))
}

/// Writes the rows of these transactions, as the old primary has them, into `folder`: one file of JSON lines for each table.
/// The old primary is opened for that as a standby of nobody, on a socket of its own below `room`, and stopped again.
///
/// # Errors
/// It does not open, a query fails, or a file cannot be written.
pub async fn write_orphans(old: &Instance, name: &str, room: &Path, apart: &Apart, folder: &Path) -> Result<Orphans> {
    let commits = &apart.commits;
    let mut out =
        Orphans { transactions: commits.len() as u64, last: commits.iter().map(|c| c.at).max(), ..Orphans::default() };
    if commits.is_empty() {
        return Ok(out);
    }
    if !old.layout.data.join("standby.signal").exists() {
        return Err(
            Error::refused("the old primary is not marked as a standby").why("it would take writes when opened")
        );
    }
    let (data, place, owner) = (old.layout.data.clone(), room.to_path_buf(), old.user.clone());
    let blocked = tokio::task::spawn_blocking(move || open_kept(&data, &place, owner));
    let opened = Opened(blocked.await.map_err(|e| Error::state("the work broke off").why(e))??);
    let mut c = opened.0.database(name).connect().await?;
    let xids: Vec<i64> = commits.iter().flat_map(|c| c.subxids.iter().chain([&c.xid])).map(|x| i64::from(*x)).collect();
    std::fs::create_dir_all(folder).target(|| format!("cannot make the folder {:?}", folder.display()))?;
    let sql = "SELECT oid::int8 FROM pg_catalog.pg_database WHERE datname = current_database()";
    let database: i64 = sqlx::query_scalar(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    let database = u32::try_from(database).unwrap_or(0);
    for table in user_tables(&mut c).await? {
        let sql = format!("SELECT row_to_json(t)::text FROM ONLY {} t WHERE xmin::text::int8 = ANY ($1)", table.sql);
        let rows: Vec<String> = sqlx::query_scalar(&sql)
            .bind(&xids)
            .fetch(&mut c)
            .try_collect()
            .await
            .map_err(|e| query_error(&sql, &e))?;
        if rows.is_empty() {
            continue;
        }
        // Its log tells new rows from changed ones. Keys do not: the new primary gives the same numbers out again.
        let made = apart.inserted.get(&(database, table.filenode)).copied().unwrap_or(0).min(rows.len() as u64);
        for (count, n) in [(&mut out.new, made), (&mut out.changed, rows.len() as u64 - made)] {
            if n > 0 {
                *count.entry(table.family.clone()).or_default() += n;
            }
        }
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let file = format!("{}.jsonl", table.name.replace(['/', '\0'], "_"));
        crate::journal::files::write_atomic(&folder.join(&file), text.as_bytes())?;
        out.files.insert(file, Digest::new(sha256_hex(text.as_bytes())));
    }
    drop(c);
    tokio::task::spawn_blocking(move || drop(opened)).await.map_err(|e| Error::state("the work broke off").why(e))?;
    Ok(out)
}

/// Stops what we started.
struct Opened(Instance);

impl Drop for Opened {
    fn drop(&mut self) {
        // Fast, so that its files are clean for what comes next.
        let _ = self.0.stop(Stop::Fast, LIMIT);
    }
}

/// Lets a server that was killed replay its own log, as a standby of nobody on a socket below `room`, and stops it cleanly:
/// `pg_rewind` wants that, and would itself look for the configuration in the data directory.
///
/// # Errors
/// It does not open or stop.
pub async fn settle(old: &Instance, room: &Path) -> Result<()> {
    let control = Control::read(&old.programs, &old.layout.data, old.user.as_ref())?;
    if control.state.starts_with("shut down") {
        return Ok(());
    }
    let (data, place, owner) = (old.layout.data.clone(), room.to_path_buf(), old.user.clone());
    let run = move || open_kept(&data, &place, owner).map(|i| drop(Opened(i)));
    tokio::task::spawn_blocking(run).await.map_err(|e| Error::state("the work broke off").why(e))?
}

/// Takes the stopped old primary back to the fork and makes it follow the new primary. Not yet started.
///
/// # Errors
/// `pg_rewind` cannot do it; its words are the reason. Where it began to copy, the directory must be replaced by a base backup.
pub async fn rewind(old: &Instance, new: &Database, line: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    // Its control file tells the timeline; before the first checkpoint on it that would be the old one.
    let mut c = new.connect().await?;
    crate::postgres::connect::run(&mut c, "CHECKPOINT").await?;
    drop(c);
    let mut tool = old.programs.command("pg_rewind", old.user.as_ref());
    tool.arg("--target-pgdata").arg(&old.layout.data).arg("--source-server").arg(conninfo(new));
    for (name, value) in new.tool_env() {
        tool.env(name, value.expose());
    }
    let run = output(tool, "pg_rewind").await?;
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    said.lines().for_each(|l| line(&format!("pg_rewind: {}", CleanText::line(l.as_bytes()))));
    if !run.status.success() {
        let why = said.lines().rev().find(|l| l.contains("error") || l.contains("fatal")).unwrap_or("no reason given");
        return Err(Error::target("pg_rewind cannot take the old primary back").why(CleanText::line(why.as_bytes())));
    }
    follow(old, new)
}

/// Replaces the stopped old primary by a new base backup of the new one. The old files are kept beside it; returns where.
///
/// # Errors
/// They cannot be moved, or `pg_basebackup` fails; then they are put back.
pub async fn base_backup(old: &Instance, new: &Database, stamp: &str) -> Result<PathBuf> {
    let data = &old.layout.data;
    let what = || format!("cannot replace {:?}", data.display());
    let mut name = data.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{stamp}"));
    let kept = data.with_file_name(name);
    std::fs::rename(data, &kept).target(what)?;
    let made = async {
        user::own_dir(data, old.user.as_ref())?;
        let mut tool = old.programs.command("pg_basebackup", old.user.as_ref());
        tool.arg("-D").arg(data).args(["-X", "stream", "-c", "fast", "--no-password", "-d"]).arg(conninfo(new));
        for (name, value) in new.tool_env() {
            if name != "PGDATABASE" {
                tool.env(name, value.expose());
            }
        }
        let run = output(tool, "pg_basebackup").await?;
        if !run.status.success() {
            return Err(Error::target("pg_basebackup failed").why(CleanText::line(run.stderr.trim_ascii())));
        }
        follow(old, new)
    }
    .await;
    if let Err(e) = made {
        let _ = std::fs::remove_dir_all(data);
        std::fs::rename(&kept, data).target(what)?;
        return Err(e);
    }
    Ok(kept)
}

/// Makes a stopped server follow this primary when it is started.
///
/// # Errors
/// A file cannot be written.
pub fn follow(old: &Instance, new: &Database) -> Result<()> {
    let data = &old.layout.data;
    let auto = data.join("postgresql.auto.conf");
    let before = std::fs::read_to_string(&auto).unwrap_or_default();
    let mut text: String =
        before.lines().filter(|l| !l.trim_start().starts_with("primary_conninfo")).map(|l| format!("{l}\n")).collect();
    let value = crate::postgres::instance::conf_quote(&conninfo(new));
    text.push_str(&format!("primary_conninfo = {value}\n"));
    user::own_file(&auto, &text, old.user.as_ref())?;
    user::own_file(&data.join("standby.signal"), "", old.user.as_ref())
}

async fn output(mut tool: std::process::Command, name: &str) -> Result<std::process::Output> {
    let ran = tokio::task::spawn_blocking(move || tool.output())
        .await
        .map_err(|e| Error::state("the work broke off").why(e))?;
    ran.target(|| format!("cannot run {name}"))
}

/// A libpq connection string without a secret.
fn conninfo(at: &Database) -> String {
    let word = |t: &str| format!("'{}'", t.replace('\\', "\\\\").replace('\'', "\\'"));
    format!("host={} port={} user={} dbname=postgres", word(at.host()), at.port(), word(at.user()))
}
