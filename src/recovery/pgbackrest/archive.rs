//! Its repository as an archive: names listed once, files read by its own `repo-get` and held against the digest in their name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Contents, Installation, PgBackRest, Stanza, name_of};
use crate::backup::catalog::Manifest;
use crate::backup::wal::{DEFAULT_SEGMENT_SIZE, Depth, Listing, Segment, WalName};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::process::{ChildSpec, capture_data};
use crate::recovery::archive::Archive;

/// What `repo-ls --output=json` says of one name.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
}

impl Installation {
    /// Lists it.
    pub(super) fn contents(&self) -> Result<Contents> {
        let stanza = Stanza::read(self)?;
        let segment_bytes = stanza.segment_bytes().unwrap_or(DEFAULT_SEGMENT_SIZE);
        let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut files = Vec::new();
        if let Some(id) = stanza.archive_id() {
            let folder = format!("archive/{}/{id}", self.stanza);
            let repo = format!("--repo={}", self.repo);
            let out = self.ask(&["repo-ls", "--output=json", "--recurse", &repo, &folder])?;
            let all: BTreeMap<String, Entry> = serde_json::from_slice(&out)
                .target(|| "what pgbackrest repo-ls says cannot be understood".to_string())?;
            for (path, entry) in all.into_iter().filter(|(_, e)| e.kind == "file") {
                let Some(name) = name_of(&path) else { continue };
                // The beginning of a segment is kept at a promotion; its own program never uses it, either.
                if matches!(name, WalName::Partial(_)) {
                    continue;
                }
                paths.entry(name.to_string()).or_default().push(format!("{folder}/{path}"));
                files.push((name, entry.size));
            }
        }
        let backups = stanza.manifests(segment_bytes);
        Ok(Contents { backups, segment_bytes, listing: Listing::of(segment_bytes, files), paths, stanza })
    }

    /// A file of the repository, decrypted and unpacked.
    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let repo = format!("--repo={}", self.repo);
        let packed = self.ask(&["repo-get", &repo, path])?;
        let unpack = |program: &str| -> Result<Vec<u8>> {
            let child = ChildSpec::new(program).arg("-dc").stdin(packed.clone()).cwd("/");
            let out = capture_data(&child, Duration::from_secs(120), super::MOST, &self.cancel)?;
            match out.end.success() {
                true => Ok(out.stdout),
                false => Err(Error::check(format!("{path:?} cannot be unpacked")).why(out.complaint())),
            }
        };
        match path.rsplit_once('.').map(|(_, kind)| kind) {
            Some("zst") => zstd::decode_all(packed.as_slice())
                .map_err(|e| Error::check(format!("{path:?} cannot be unpacked")).why(e)),
            Some("gz") => unpack("gzip"),
            Some("lz4") => unpack("lz4"),
            Some("bz2") => unpack("bzip2"),
            _ => Ok(packed),
        }
    }

    /// A file that is damaged shows itself in decrypting it, too, which its program calls an error like any other: of a network,
    /// of permissions. What it can still say of the same name tells them apart.
    fn blamed(&self, path: &str, e: Error) -> Error {
        let repo = format!("--repo={}", self.repo);
        let answers = self.ask_within(&["repo-ls", &repo, path], super::SMALL).is_ok();
        let kind = if answers { ErrorKind::Check } else { e.kind };
        Error { kind, what: format!("{path:?} cannot be read: {}", e.what), ..e }
    }
}

/// The digest in the name of an archived segment: SHA-1 over its plain bytes.
fn digest_of(path: &str) -> Option<&str> {
    let (_, rest) = path.rsplit('/').next()?.split_once('-')?;
    let digest = rest.split('.').next()?;
    (digest.len() == 40 && digest.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digest)
}

/// Whether bytes are those that were archived.
fn proved(path: &str, bytes: &[u8]) -> Result<()> {
    let Some(wanted) = digest_of(path) else { return Ok(()) };
    let got = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    if crate::backup::container::hex(got.as_ref()) == wanted.to_ascii_lowercase() {
        return Ok(());
    }
    Err(Error::check(format!("{path:?} is damaged")).why("its content does not match the digest in its name"))
}

impl Archive for PgBackRest {
    fn segment_bytes(&self) -> Result<u32> {
        Ok(self.contents()?.segment_bytes)
    }
    fn listing(&self) -> Result<Listing> {
        Ok(self.contents()?.listing.clone())
    }
    fn read(&self, name: &WalName) -> Result<Option<Vec<u8>>> {
        let contents = self.contents()?;
        let Some(paths) = contents.paths.get(&name.to_string()) else { return Ok(None) };
        match paths.as_slice() {
            [path] => {
                let bytes = self.it.get(path).map_err(|e| match e.kind {
                    ErrorKind::Target => self.it.blamed(path, e),
                    _ => e,
                })?;
                proved(path, &bytes)?;
                Ok(Some(bytes))
            }
            more => Err(Error::check(format!("{name} is archived {} times, with different content", more.len()))
                .why(more.join(", "))),
        }
    }
    fn inspect(&self, segment: Segment, _: bool, depth: Depth) -> Result<Option<String>> {
        // Its objects say nothing of their lengths.
        if matches!(depth, Depth::Names | Depth::Ends) {
            return Ok(None);
        }
        match self.read(&WalName::Segment(segment)) {
            Ok(Some(_)) => Ok(None),
            Ok(None) => Ok(Some("vanished while it was checked".into())),
            // What it says of a single file, without what to do about an error of its program.
            Err(e) if e.kind == ErrorKind::Check => Ok(Some(format!("{}: {}", e.what, e.why))),
            Err(e) => Err(e),
        }
    }
    fn beginning(&self, _: Segment) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn backups(&self) -> Result<Vec<Manifest>> {
        Ok(self.contents()?.backups.clone())
    }
}
