//! When secrets were changed, outside of incidents: `<state>/rotations.jsonl`. Never their values.

use std::collections::BTreeMap;
use std::io::Write;

use serde::{Deserialize, Serialize};

use super::Store;
use crate::error::{Context, Result};
use crate::journal::files;
use crate::model::{Actor, Time};

/// Name of the file in the state directory.
pub const FILE: &str = "rotations.jsonl";

/// A secret was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Its name, as the plan's table or the configuration has it.
    pub secret: String,
    /// When.
    pub at: Time,
    /// Who wrote it down.
    pub actor: Actor,
}

/// The last change of each secret on record, by its name in lower case. Lines that are none are passed over.
pub fn read(store: &Store) -> BTreeMap<String, Time> {
    let text = std::fs::read_to_string(store.root().join(FILE)).unwrap_or_default();
    let mut out = BTreeMap::new();
    for r in text.lines().filter_map(|l| serde_json::from_str::<Rotation>(l).ok()) {
        let last = out.entry(r.secret.to_lowercase()).or_insert(r.at);
        *last = r.at.max(*last);
    }
    out
}

/// Writes one down, durably.
///
/// # Errors
/// State when the state directory cannot be written to.
pub fn write(store: &Store, rotation: &Rotation) -> Result<()> {
    let path = store.root().join(FILE);
    let what = || format!("cannot write {path:?}");
    let mut line = serde_json::to_vec(rotation).state(what)?;
    line.push(b'\n');
    files::create_dir(store.root())?;
    files::open_or_create(&path).state(what)?;
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).state(what)?;
    file.write_all(&line).and_then(|()| file.sync_data()).state(what)
}
