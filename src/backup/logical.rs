//! Dumps of a database: `pg_dump`'s own archive as one sealed stream, the roles of the server and an inventory beside it.
//!
//! ```text
//! backups/<backup>/database.dump.bgo    pg_dump's custom format, not compressed by it
//! backups/<backup>/globals.sql.bgo      roles, memberships, role settings, tablespaces
//! backups/<backup>/definitions.dump.bgo of a dump of some tables: an archive with what they need, no tables and no rows
//! backups/<backup>/inventory.json.bgo   what the database holds and needs (`postgres::inventory`)
//! ```

use std::io::{self, Read, Write};

use super::base::{Progress, new_id};
use super::catalog::{self, BackupKind, Catalog, Manifest, ObjectRecord};
use super::container::{Reader, Spec, Writer, from_io};
use super::repository::{SUFFIX, Unlocked, now, of_object};
use super::spool::Spool;
use super::store::{Access, Committed, Existing, Upload};
use crate::error::{Context, Error, Result};
use crate::postgres::dump_repack::repack;
use crate::postgres::inventory::Inventory;

/// First bytes of `pg_dump`'s custom format.
const DUMP_MAGIC: &[u8; 5] = b"PGDMP";
const MAX_INVENTORY: u64 = 256 << 20;

/// Name of the dump's object.
pub fn dump_name(id: &str) -> String {
    format!("backups/{id}/database.dump{SUFFIX}")
}
/// Name of the object with the server's roles.
pub fn globals_name(id: &str) -> String {
    format!("backups/{id}/globals.sql{SUFFIX}")
}
/// Name of the inventory's object.
pub fn inventory_name(id: &str) -> String {
    format!("backups/{id}/inventory.json{SUFFIX}")
}

/// Name of the object with the definitions that the tables of a part need.
pub fn definitions_name(id: &str) -> String {
    format!("backups/{id}/definitions.dump{SUFFIX}")
}

/// What a dump is of.
#[derive(Debug, Clone)]
pub struct Source {
    /// `Logical` or `SchemaOnly`.
    pub kind: BackupKind,
    /// What its maker calls it.
    pub label: Option<String>,
    /// The cluster.
    pub system_identifier: u64,
    /// Its version, such as `15.20`.
    pub postgres_version: String,
    /// The database.
    pub database: String,
    /// Version of `pg_dump`.
    pub dump_version: String,
    /// What of it alone has rows in the dump; none when it is whole.
    pub part: Option<String>,
}

/// A dump whose bytes are all stored, but which does not exist until [`PendingDump::commit`]: the end of `pg_dump`'s output
/// alone does not say that it is whole.
pub struct PendingDump<'a> {
    unlocked: &'a Unlocked,
    manifest: Manifest,
    dump: Box<dyn Upload>,
}

/// Reads the output of `pg_dump -Fc` to its end and seals it, in bounded memory.
///
/// # Errors
/// Refused when the repository is another cluster's; target when reading or storing fails; whatever `progress` says.
pub fn store_dump<'a>(
    unlocked: &'a Unlocked,
    source: &Source,
    dump: &mut dyn Read,
    progress: Progress<'_>,
) -> Result<PendingDump<'a>> {
    catalog::check_writable(unlocked)?;
    let started_at = now();
    let id = new_id(started_at, source.kind.word())?;
    let repository = unlocked.repository();
    repository.bind_cluster(source.system_identifier, None)?;
    let name = dump_name(&id);
    let mut spec = Spec::new(source.kind.object_type(), repository.id(), &name, started_at);
    spec.system_identifier = source.system_identifier;
    let upload = repository.store().create(&name, Access::Group)?;
    let mut writer = Writer::new(upload, &spec, &[unlocked.own_recipient()?])?.proving();
    let mut buffer = vec![0u8; 1 << 18];
    let (mut total, mut head) = (0u64, Vec::new());
    loop {
        let n = match dump.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(from_io(e, || "reading the dump".into())),
        };
        if head.len() < DUMP_MAGIC.len() {
            head.extend_from_slice(&buffer[..n.min(DUMP_MAGIC.len() - head.len())]);
        }
        writer.write_all(&buffer[..n]).map_err(|e| from_io(e, || "storing the dump".into()))?;
        total += n as u64;
        progress(total)?;
    }
    if head != DUMP_MAGIC {
        // Not an error of its own when pg_dump failed before its first byte: the caller asks it first.
        return Err(Error::check("pg_dump wrote no archive").why("its output does not begin as one"));
    }
    let (upload, summary) = writer.finish()?;
    let manifest = Manifest {
        version: 1,
        id,
        kind: source.kind,
        label: source.label.clone(),
        system_identifier: Some(source.system_identifier.to_string()),
        postgres_version: Some(source.postgres_version.clone()),
        timeline: None,
        start_lsn: None,
        stop_lsn: None,
        wal_segment_size: None,
        database: Some(source.database.clone()),
        dump_version: Some(source.dump_version.clone()),
        part: source.part.clone(),
        tables: None,
        started_at,
        finished_at: now(),
        objects: vec![ObjectRecord::new(&name, &summary)],
    };
    Ok(PendingDump { unlocked, manifest, dump: upload })
}

impl PendingDump<'_> {
    /// Makes the backup exist: its objects durable, then its manifest, then its entry in the catalog.
    ///
    /// # Errors
    /// Storing fails; the backup then does not exist.
    pub fn commit(self, globals: &[u8], definitions: Option<&[u8]>, inventory: &Inventory) -> Result<Manifest> {
        let Self { unlocked, mut manifest, dump } = self;
        manifest.tables = Some(inventory.tables.iter().filter(|t| t.countable()).count() as u64);
        let taken = |name: &str| Error::refused(format!("storing {name:?}")).why("an object of this name exists");
        if dump.commit(Existing::Keep)? == Committed::Kept {
            return Err(taken(&dump_name(&manifest.id)));
        }
        let inventory = serde_json::to_vec(inventory).map_err(|e| Error::state("writing the inventory").why(e))?;
        let mut beside = vec![(globals_name(&manifest.id), globals)];
        beside.extend(definitions.map(|bytes| (definitions_name(&manifest.id), bytes)));
        beside.push((inventory_name(&manifest.id), inventory.as_slice()));
        for (name, bytes) in beside {
            let (committed, summary) = unlocked.write_own(manifest.kind.object_type(), &name, bytes)?;
            if committed == Committed::Kept {
                return Err(taken(&name));
            }
            manifest.objects.push(ObjectRecord::new(&name, &summary));
        }
        manifest.finished_at = now();
        catalog::add(unlocked, &manifest)?;
        Ok(manifest)
    }
}

/// Reads every byte of every object of a backup, authenticated and compared with its manifest, and releases nothing.
///
/// # Errors
/// A check failure that names the object.
pub fn read_objects(unlocked: &Unlocked, manifest: &Manifest, progress: Progress<'_>) -> Result<u64> {
    let mut before = 0;
    for object in &manifest.objects {
        read_object(unlocked, manifest, &object.name, &mut io::sink(), &mut |n| progress(before + n))?;
        before += object.plain_bytes;
    }
    Ok(before)
}

/// Reads one object of a backup into `to`. What was written counts only when this returns `Ok`: a prefix is authentic, but
/// only the whole object is complete and the one its manifest names.
///
/// # Errors
/// A check failure when it is damaged, missing or another one; target when `to` fails.
pub fn read_object(
    unlocked: &Unlocked,
    manifest: &Manifest,
    name: &str,
    to: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<()> {
    let record = manifest.object(name)?;
    let mut reader = open_own(unlocked, manifest, name)?;
    let mut total = 0u64;
    while let Some(bytes) = reader.next_bytes().map_err(|e| of_object(e, name))? {
        to.write_all(bytes).map_err(|e| from_io(e, || "writing what was opened".into()))?;
        total += bytes.len() as u64;
        progress(total)?;
    }
    let (_, summary) = reader.finish().map_err(|e| of_object(e, name))?;
    record.check(&summary)
}

/// Reads the dump of a backup into an empty file that `pg_restore` can seek in, its positions filled in ([`repack`]). What was
/// written counts only when this returns `Ok`, as with [`read_object`].
///
/// # Errors
/// As [`read_object`].
pub fn spool_dump(unlocked: &Unlocked, manifest: &Manifest, to: &mut Spool, progress: Progress<'_>) -> Result<()> {
    let name = dump_name(&manifest.id);
    let record = manifest.object(&name)?;
    let mut reader = open_own(unlocked, manifest, &name)?;
    let mut stopped = Ok(());
    let known = repack(&mut reader, to.file(), &mut |n| {
        if stopped.is_ok() {
            stopped = progress(n);
        }
        stopped.is_ok()
    });
    stopped?;
    let known = known.map_err(|e| of_object(from_io(to.full(e), || "writing what was opened".into()), &name))?;
    if known {
        let (_, summary) = reader.finish().map_err(|e| of_object(e, &name))?;
        return record.check(&summary);
    }
    // Laid out by a newer pg_dump than we know: as it is, which every pg_restore can read, if more slowly.
    to.file().set_len(0).target(|| "emptying a scratch file".into())?;
    read_object(unlocked, manifest, &name, to, progress)
}

/// Opens an object that only a holder of the secret can have written.
pub(super) fn open_own(unlocked: &Unlocked, manifest: &Manifest, name: &str) -> Result<Reader<Box<dyn Read + Send>>> {
    let reader = unlocked
        .open_object(manifest.kind.object_type(), name)?
        .ok_or_else(|| Error::check(format!("object {name:?} of backup {:?} is missing", manifest.id)))?;
    match reader.written_by_holder() {
        true => Ok(reader),
        false => Err(Error::check(format!("{name:?} was not written by a holder of the repository's key"))),
    }
}

/// The inventory of a dump.
///
/// # Errors
/// A check failure when it is damaged or missing.
pub fn inventory(unlocked: &Unlocked, manifest: &Manifest) -> Result<Inventory> {
    let bytes = small_object(unlocked, manifest, &inventory_name(&manifest.id))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::check(format!("the inventory of backup {:?} cannot be understood", manifest.id)).why(e))
}

/// The roles of the server, as SQL.
///
/// # Errors
/// As [`inventory`].
pub fn globals(unlocked: &Unlocked, manifest: &Manifest) -> Result<String> {
    let bytes = small_object(unlocked, manifest, &globals_name(&manifest.id))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn small_object(unlocked: &Unlocked, manifest: &Manifest, name: &str) -> Result<Vec<u8>> {
    let record = manifest.object(name)?;
    let (bytes, summary) = unlocked
        .read_own(manifest.kind.object_type(), name, MAX_INVENTORY)?
        .ok_or_else(|| Error::check(format!("object {name:?} of backup {:?} is missing", manifest.id)))?;
    record.check(&summary)?;
    Ok(bytes)
}

/// The manifest of a backup in the catalog, which must be a dump.
///
/// # Errors
/// Usage when there is none of that id, or it is of another kind.
pub fn find_dump(unlocked: &Unlocked, id: &str) -> Result<Manifest> {
    let manifest = Catalog::load(unlocked)?.find(id)?.manifest.clone();
    if !matches!(manifest.kind, BackupKind::Logical | BackupKind::SchemaOnly) {
        return Err(Error::usage(format!("backup {id:?} is not a dump")).why(format!("it is {}", manifest.kind.word())));
    }
    Ok(manifest)
}
