//! Backups that a copy keeps although they were given up where it comes from: there they were damaged, here they are whole.
//!
//! `kept.json` names them with the numbers of the catalog's entries that give them up; whoever reads the catalog of this place passes
//! over those. A later entry counts again.

use std::collections::BTreeMap;

use super::catalog::{Catalog, manifest_name};
use super::copies::Known;
use super::damage::is_damage;
use super::repository::{Repository, Unlocked};
use super::store::{Access, Existing, Store};
use crate::error::{Context, Error, Result};

/// Name of the file.
pub(crate) const KEPT: &str = "kept.json";
const LIMIT: u64 = 1 << 20;

/// A backup that was damaged and given up by hand. Another place may have it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Number of the entry that says so.
    pub seq: u64,
    /// Digest of its manifest, as entered.
    pub manifest: Option<String>,
}

/// Ids of backups, and the entries that give them up and do not count here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept(pub(super) BTreeMap<String, u64>);

impl Kept {
    /// What a place keeps.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(store: &dyn Store) -> Result<Self> {
        let Some(bytes) = store.get(KEPT, LIMIT)? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).map(Self).map_err(|e| {
            Error::check(format!("{KEPT} in {:?} is damaged", store.url())).why(e).hint(
                "It names backups that are whole there and were given up elsewhere; a copy of the file is as good.",
            )
        })
    }

    /// Writes it, where anything is kept, or was.
    ///
    /// # Errors
    /// The place cannot be written.
    pub(super) fn write_if_any(&self, store: &dyn Store) -> Result<()> {
        if self.0.is_empty() && store.size(KEPT)?.is_none() || Self::read(store).is_ok_and(|there| there == *self) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&self.0).state(|| format!("writing {KEPT}"))?;
        store.put(KEPT, Access::Public, &bytes, Existing::Replace).map(|_| ())
    }

    /// What a copy is to keep: what it kept before, what the repository that is copied keeps, and what was given up there and is whole
    /// in the copy. Read whole the first time, then only looked for. `damaged` are on record as damaged in the copy.
    ///
    /// # Errors
    /// A place cannot be read.
    pub(super) fn of_copy(
        here: &Unlocked,
        copy: &Repository,
        catalog: &Catalog,
        damaged: &[(String, String)],
    ) -> Result<Self> {
        let store = &**copy.store();
        let mut kept = Self::read(&**here.repository().store())?;
        let before = Self::read(store)?;
        let copy = here.of_copy(copy.clone())?;
        for (id, up) in &catalog.given_up {
            if damaged.iter().any(|(bad, _)| bad == id) || store.size(&manifest_name(id))?.is_none() {
                continue;
            }
            let manifest = match catalog.manifest_of_given_up(&copy, id) {
                Err(e) if is_damage(&e) => continue,
                read => read?,
            };
            let known = before.0.get(id) == Some(&up.seq);
            let mut whole = true;
            for o in &manifest.objects {
                whole &= store.size(&o.name)? == Some(o.stored_bytes);
                if !whole {
                    break;
                }
            }
            if whole && (known || Known::of_manifest(&manifest).all(store, copy.repository().id())?) {
                kept.0.insert(id.clone(), up.seq);
            }
        }
        Ok(kept)
    }
}
