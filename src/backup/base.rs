//! Base backups: a cluster's files as one sealed tar stream, with PostgreSQL's own manifest beside it.

pub mod delta;
mod log;
pub mod manifest;
pub mod restore;
mod stream;

pub use delta::{Reused, restore_delta};
pub use log::needed_log;
pub use restore::{RestoreOptions, Verified, read_backup, restore_base, stand_alone, verify_backup, verify_written};

use std::io::{self, Read, Write};

use super::catalog::{self, BackupKind, Manifest, ObjectRecord};
use super::container::{ObjectType, Spec, Writer, from_io, hex, seal, to_io};
use super::repository::{SUFFIX, Unlocked, now};
use super::store::{Access, Committed, Existing, Upload};
use crate::error::{Error, Result};
use crate::model::Time;
use crate::postgres::configuration::ConfigurationFile;
use manifest::PgManifest;
use stream::{Label, Scan};

/// Told the plain bytes done so far; an error from it stops the work.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Name of the tar stream's object.
fn tar_name(id: &str) -> String {
    format!("backups/{id}/base.tar{SUFFIX}")
}

/// Name of the object that holds the server's configuration files, as a tar of their paths without the leading slash.
fn configuration_name(id: &str) -> String {
    format!("backups/{id}/configuration.tar{SUFFIX}")
}

/// Name of the object that holds PostgreSQL's `backup_manifest`.
fn pg_manifest_name(id: &str) -> String {
    format!("backups/{id}/backup_manifest{SUFFIX}")
}

/// A base backup whose bytes are all read and checked, but which does not exist until [`PendingBase::commit`].
///
/// Between the two the caller asks `pg_basebackup` whether it succeeded: the end of its output alone does not say so.
pub struct PendingBase<'a> {
    unlocked: &'a Unlocked,
    manifest: Manifest,
    tar: Box<dyn Upload>,
    pg_manifest: Vec<u8>,
    configuration: Option<Vec<u8>>,
}

/// Reads a plain tar stream of `pg_basebackup -D - -Ft -X none` (manifest included) to its end and seals it.
///
/// Sizes are checked against the backup's own manifest on the way, checksums too when they are CRC-32C, its default.
///
/// # Errors
/// A check failure when the stream is cut, carries no manifest or differs from it; refused when it is of another
/// cluster than the repository's or has a second tablespace.
pub fn store_base<'a>(
    unlocked: &'a Unlocked,
    tar: &mut dyn Read,
    label: Option<&str>,
    progress: Progress<'_>,
) -> Result<PendingBase<'a>> {
    catalog::check_writable(unlocked)?;
    let started_at = now();
    let id = new_id(started_at, "physical")?;
    let repository = unlocked.repository();
    let name = tar_name(&id);
    let mut spec = Spec::new(ObjectType::BaseBackup, repository.id(), &name, started_at);
    spec.system_identifier = repository.cluster()?.map_or(0, |c| c.system_identifier);
    let upload = repository.store().create(&name, Access::Group)?;
    let mut writer = Writer::new(upload, &spec, &[unlocked.own_recipient()?])?.proving();
    let mut tee = Tee { input: tar, output: &mut writer, progress, total: 0 };
    let scan = Scan::read(&mut tee, None)?;
    // What stands behind the tar's end is part of the stream and nothing else reads it.
    io::copy(&mut tee, &mut io::sink()).map_err(|e| from_io(e, || "reading the base backup".into()))?;
    let (upload, summary) = writer.finish()?;

    let missing = |what: &str| {
        Error::check(format!("the base backup carries no {what}")).why("the stream was cut, or made with other options")
    };
    let pg_manifest = scan.pg_manifest.ok_or_else(|| missing("backup_manifest"))?;
    let parsed = PgManifest::parse(&pg_manifest)?;
    scan.sums.compare(&parsed, "the base backup")?;
    let label_file = Label::parse(&scan.label.ok_or_else(|| missing("backup_label"))?)?;
    let system_identifier = scan.system_identifier.ok_or_else(|| missing("global/pg_control"))?;
    if parsed.system_identifier.is_some_and(|s| s != system_identifier) {
        return Err(Error::check("pg_control and backup_manifest name different clusters"));
    }
    let range = parsed.wal.ok_or_else(|| missing("range of log positions"))?;
    repository.bind_cluster(system_identifier, None)?;
    let manifest = Manifest {
        version: 1,
        id,
        kind: BackupKind::Physical,
        label: label.map(str::to_string).or(label_file.label),
        system_identifier: Some(system_identifier.to_string()),
        postgres_version: scan.version,
        timeline: Some(range.timeline),
        start_lsn: Some(range.start),
        stop_lsn: Some(range.end),
        wal_segment_size: repository.cluster()?.and_then(|c| c.wal_segment_size),
        database: None,
        dump_version: None,
        part: None,
        tables: None,
        started_at,
        finished_at: now(),
        objects: vec![ObjectRecord::new(&name, &summary)],
    };
    Ok(PendingBase { unlocked, manifest, tar: upload, pg_manifest, configuration: None })
}

impl PendingBase<'_> {
    /// What will be in the catalog.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Adds the server's configuration files, which may lie outside its data directory.
    ///
    /// # Errors
    /// A path that a tar cannot hold.
    pub fn with_configuration(mut self, files: &[ConfigurationFile]) -> Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        for file in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(file.bytes.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, file.path.trim_start_matches('/'), file.bytes.as_slice())
                .map_err(|e| Error::target(format!("storing configuration file {:?}", file.path)).why(e))?;
        }
        self.configuration = Some(tar.into_inner().map_err(|e| from_io(e, || "storing the configuration".into()))?);
        Ok(self)
    }

    /// Makes the backup exist: its objects durable, then its manifest, then its entry in the catalog.
    pub fn commit(self) -> Result<Manifest> {
        let Self { unlocked, mut manifest, tar, pg_manifest, configuration } = self;
        let taken = |name: &str| Error::refused(format!("storing {name:?}")).why("an object of this name exists");
        if tar.commit(Existing::Keep)? == Committed::Kept {
            return Err(taken(&tar_name(&manifest.id)));
        }
        let mut beside = vec![(pg_manifest_name(&manifest.id), pg_manifest)];
        beside.extend(configuration.map(|tar| (configuration_name(&manifest.id), tar)));
        for (name, bytes) in beside {
            let (committed, summary) = unlocked.write_own(ObjectType::BaseBackup, &name, &bytes)?;
            if committed == Committed::Kept {
                return Err(taken(&name));
            }
            manifest.objects.push(ObjectRecord::new(&name, &summary));
        }
        // The segment size is known at the latest once the log this backup needs was archived.
        manifest.wal_segment_size = unlocked.repository().cluster()?.and_then(|c| c.wal_segment_size);
        manifest.finished_at = now();
        catalog::add(unlocked, &manifest)?;
        Ok(manifest)
    }
}

/// A new backup's id: `20261120T1330Z-physical-7f3a19`.
pub fn new_id(at: Time, kind: &str) -> Result<String> {
    let mut unique = [0u8; 3];
    seal::random(&mut unique)?;
    Ok(format!("{}-{kind}-{}", at.compact(), hex(&unique)))
}

/// Hands on what it reads, after sealing it.
struct Tee<'a, W: Write> {
    input: &'a mut dyn Read,
    output: &'a mut W,
    progress: Progress<'a>,
    total: u64,
}

impl<W: Write> Read for Tee<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.output.write_all(&buffer[..n])?;
        self.total += n as u64;
        (self.progress)(self.total).map_err(to_io)?;
        Ok(n)
    }
}
