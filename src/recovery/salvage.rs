//! What came after the moment, written out of the damaged cluster, so that its owners can decide what is entered again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::loss::{Later, join_key, key_text};
use super::pages::{by_ranges, found_more, readable, unreadable};
use super::tables::{Table, user_tables};
use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Context, Error, Result};
use crate::model::{Digest, Time};
use crate::postgres::connect::{query_error, quote_ident, quote_literal};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Rows that the recovered database does not have, per table.
    pub new: BTreeMap<String, u64>,
    /// Rows it has in an older form, per table: they may be built on damaged ones, a person must look.
    pub changed: BTreeMap<String, u64>,
    /// SHA-256 per file.
    pub files: BTreeMap<String, Digest>,
}

/// Writes the later rows of every table as CSV and as JSON lines into `folder` (made, mode 0700), with `SHA256SUMS`.
///
/// Each row says whether it is `new`, `changed`, or `new-damaged` (made by good traffic, then changed by a suspect: its values
/// are wrong, but it was there), when it was committed and by which transaction. Other rows of the suspects are damage and
/// not written.
///
/// # Errors
/// The folder holds something already, a query fails, the disk is full, or stopped on request.
pub async fn salvage(
    source: &mut PgConnection,
    later: &Later,
    folder: &Path,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Salvaged> {
    make_folder(folder)?;
    let mut out = Salvaged::default();
    let condition = format!("NOT {}", later.boundary().sql());
    let suspects: BTreeSet<u32> = later.suspects.iter().copied().collect();
    let tables = user_tables(source).await?;
    for (i, table) in tables.iter().enumerate() {
        check_cancel(cancel, "the salvage is not complete")?;
        watch.phase(&Phase {
            name: "tables",
            done: i as u64,
            total: Some(tables.len() as u64),
            unit: "tables",
            text: table.name.clone(),
            ..Phase::default()
        });
        let none = BTreeSet::new();
        let known = Known {
            suspects: &suspects,
            changed: later.changed.get(&table.name).unwrap_or(&none),
            damaged: later.damaged.get(&table.name).unwrap_or(&none),
        };
        let mut damaged = unreadable(source, table).await?;
        let (new, old) = loop {
            let parts = readable(damaged.as_ref());
            by_ranges(source, damaged.is_some()).await?;
            let conditions: Vec<String> = parts.iter().map(|part| format!("{condition} AND {part}")).collect();
            match write_table(source, table, &conditions, &known, folder, &mut out.files).await {
                Err(e) if !found_more(source, table, &mut damaged).await? => return Err(e),
                Err(_) => check_cancel(cancel, "the salvage is not complete")?,
                Ok(counts) => break counts,
            }
        };
        if let Some(d) = &damaged {
            watch.line(&format!("damaged on disk, so not salvaged: {}", d.describe()));
        }
        if new + old > 0 {
            watch.line(&format!("{}: {new} new, {old} changed", table.name));
        }
        if new > 0 {
            *out.new.entry(table.family.clone()).or_default() += new;
        }
        if old > 0 {
            *out.changed.entry(table.family.clone()).or_default() += old;
        }
    }
    by_ranges(source, false).await?;
    let mut sums = Sums::create(&folder.join("SHA256SUMS"))?;
    for (file, digest) in &out.files {
        sums.write(format!("{digest}  {file}\n").as_bytes())?;
    }
    sums.finish()?;
    Ok(out)
}

fn make_folder(folder: &Path) -> Result<()> {
    let what = || format!("cannot make the folder {:?}", folder.display());
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).target(what)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => return other.target(what),
    }
    if std::fs::read_dir(folder).target(what)?.next().is_some() {
        return Err(Error::refused(format!("cannot write into {:?}", folder.display()))
            .why("the folder is not empty")
            .hint("name another one with --out; what was salvaged before is kept"));
    }
    Ok(())
}

/// A file that knows its digest.
struct Sums {
    path: PathBuf,
    file: BufWriter<File>,
    sum: Sha256,
}

impl Sums {
    /// In a folder of ours, where a try that failed may have left a part.
    fn create(path: &Path) -> Result<Self> {
        let what = || format!("cannot write {:?}", path.display());
        let file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).target(what)?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file), sum: Sha256::new() })
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sum.update(bytes);
        self.file.write_all(bytes).target(|| format!("cannot write {:?}", self.path.display()))
    }
    fn finish(mut self) -> Result<Digest> {
        let what = || format!("cannot write {:?}", self.path.display());
        self.file.flush().target(what)?;
        self.file.get_ref().sync_all().target(what)?;
        let hex: String = self.sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Digest::new(hex))
    }
}

/// One field as RFC 4180 writes it; what a spreadsheet would run as a formula is not our business to change.
fn csv_field(text: Option<&str>) -> String {
    match text {
        // An empty text is quoted, a null is not: they stay apart.
        None => String::new(),
        Some(t) if t.is_empty() || t.contains([',', '"', '\n', '\r']) => format!("\"{}\"", t.replace('"', "\"\"")),
        Some(t) => t.to_string(),
    }
}

/// What was measured of one table while the shadow stood at the moment.
struct Known<'a> {
    suspects: &'a BTreeSet<u32>,
    changed: &'a BTreeSet<String>,
    damaged: &'a BTreeSet<String>,
}

impl Known<'_> {
    /// What a row is; none for one that is nothing but damage.
    fn class(&self, xid: &str, key: Option<&[String]>) -> Option<&'static str> {
        let key = key.map(join_key);
        let among = |set: &BTreeSet<String>| key.as_ref().is_some_and(|k| set.contains(k));
        if xid.parse().is_ok_and(|x| self.suspects.contains(&x)) {
            return among(self.damaged).then_some("new-damaged");
        }
        Some(if among(self.changed) { "changed" } else { "new" })
    }
}

/// Name of a table's files, without their ending.
fn file_name(table: &Table) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = table.name.chars().map(safe).collect();
    // Two tables whose names differ in such characters only must not share a file.
    if name == table.name { name } else { format!("{name}-{}", table.oid) }
}

async fn write_table(
    c: &mut PgConnection,
    table: &Table,
    conditions: &[String],
    known: &Known<'_>,
    folder: &Path,
    files: &mut BTreeMap<String, Digest>,
) -> Result<(u64, u64)> {
    let columns: Vec<String> = table.columns.iter().map(|c| format!("t.{}::text", quote_ident(&c.name))).collect();
    let object: Vec<String> =
        table.columns.iter().map(|c| format!("{}, t.{}", quote_literal(&c.name), quote_ident(&c.name))).collect();
    // A function takes at most 100 arguments; wide tables go by the whole row.
    let json = if object.len() <= 50 {
        format!("json_build_object({})::text", object.join(", "))
    } else {
        "row_to_json(t.*)::text".to_string()
    };
    let key = key_text(table).unwrap_or_else(|| "NULL::text[]".into());
    let sql_of = |condition: &String| {
        format!(
            "SELECT xmin::text, (extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(xmin)) * 1000000)::int8, {key}, \
         ARRAY[{}]::text[], {json} FROM ONLY {} t WHERE {condition} \
         ORDER BY pg_catalog.pg_xact_commit_timestamp(xmin), ctid",
            columns.join(", "),
            table.sql
        )
    };
    let what = || format!("cannot read {}", table.name);
    let mut open: Option<(Sums, Sums, String)> = None;
    let (mut new, mut old) = (0u64, 0u64);
    for sql in conditions.iter().map(sql_of) {
        let mut rows = sqlx::query(&sql).fetch(&mut *c);
        while let Some(row) = rows.try_next().await.map_err(|e| query_error(&sql, &e))? {
            let xid: String = row.try_get(0).target(what)?;
            let at: Option<i64> = row.try_get(1).target(what)?;
            let key: Option<Vec<String>> = row.try_get(2).target(what)?;
            let values: Vec<Option<String>> = row.try_get(3).target(what)?;
            let json: String = row.try_get(4).target(what)?;
            let at = at.map(|us| Time::from_micros(us).to_string()).unwrap_or_default();
            let Some(class) = known.class(&xid, key.as_deref()) else { continue };
            if class == "changed" {
                old += 1;
            } else {
                new += 1;
            }
            if open.is_none() {
                let name = file_name(table);
                let mut csv = Sums::create(&folder.join(format!("{name}.csv")))?;
                let heads: Vec<String> = ["salvage_class", "salvage_committed_at", "salvage_transaction"]
                    .iter()
                    .map(|s| (*s).to_string())
                    .chain(table.columns.iter().map(|c| csv_field(Some(&c.name))))
                    .collect();
                csv.write(format!("{}\r\n", heads.join(",")).as_bytes())?;
                open = Some((csv, Sums::create(&folder.join(format!("{name}.jsonl")))?, name));
            }
            if let Some((csv, lines, _)) = &mut open {
                let mut fields = vec![class.to_string(), at.clone(), xid.clone()];
                fields.extend(values.iter().map(|v| csv_field(v.as_deref())));
                csv.write(format!("{}\r\n", fields.join(",")).as_bytes())?;
                let head = serde_json::json!({"class": class, "committed_at": at, "transaction": xid}).to_string();
                let head = head.trim_end_matches('}');
                lines.write(format!("{head},\"row\":{json}}}\n").as_bytes())?;
            }
        }
    }
    if let Some((csv, lines, name)) = open {
        files.insert(format!("{name}.csv"), csv.finish()?);
        files.insert(format!("{name}.jsonl"), lines.finish()?);
    }
    Ok((new, old))
}
