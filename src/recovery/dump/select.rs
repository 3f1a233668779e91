//! What of a dump: all, some tables, some schemas.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::postgres::inventory::{Inventory, TableRecord};

/// What is wanted. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Tables, as `schema.table` or `table` in `public`.
    pub tables: Vec<String>,
    /// Schemas.
    pub schemas: Vec<String>,
}

impl Selection {
    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.tables.is_empty() && self.schemas.is_empty()
    }

    /// The tables whose rows are wanted.
    ///
    /// # Errors
    /// Usage when a name is not in the dump; the message lists what is there.
    pub fn tables<'i>(&self, inventory: &'i Inventory) -> Result<Vec<&'i TableRecord>> {
        if self.is_all() {
            return Ok(inventory.tables.iter().collect());
        }
        let mut found: Vec<&TableRecord> = Vec::new();
        for name in &self.tables {
            let fits = |t: &&TableRecord| {
                format!("{}.{}", t.schema, t.name) == *name
                    || t.sql() == *name
                    || (t.schema == "public" && t.name == *name)
            };
            let table = inventory.tables.iter().find(fits).ok_or_else(|| {
                let mut known: Vec<String> =
                    inventory.tables.iter().map(|t| format!("{}.{}", t.schema, t.name)).collect();
                known.truncate(20);
                Error::usage(format!("no table {name:?} in the dump")).hint(format!("There are: {}", known.join(", ")))
            })?;
            found.push(table);
        }
        for schema in &self.schemas {
            let before = found.len();
            found.extend(inventory.tables.iter().filter(|t| t.schema == *schema));
            if found.len() == before {
                let known: BTreeSet<&str> = inventory.tables.iter().map(|t| t.schema.as_str()).collect();
                let known: Vec<&str> = known.into_iter().take(20).collect();
                return Err(Error::usage(format!("no table of a schema {schema:?} in the dump"))
                    .hint(format!("There are tables of: {}", known.join(", "))));
            }
        }
        found.sort_by_key(|t| t.oid);
        found.dedup_by_key(|t| t.oid);
        Ok(found)
    }
}

/// The list of contents for `pg_restore --use-list`, and what was taken out of it, for people.
///
/// Definitions all stay: types, functions and sequences that the wanted tables use come along. Rows of other tables do not,
/// nor do foreign keys, which could point at them, nor large objects.
pub fn filter(list: &str, inventory: &Inventory, selected: &[&TableRecord]) -> (String, Vec<String>) {
    if selected.len() == inventory.tables.len() {
        return (list.to_string(), Vec::new());
    }
    let wanted: BTreeSet<u32> = selected.iter().map(|t| t.oid).collect();
    let (mut out, mut rows, mut keys, mut others) = (String::new(), 0, 0, 0);
    for line in list.lines() {
        // `12; 1259 16389 TABLE DATA public t owner`: the dump's number, the catalog's and the object's, then what it is.
        let entry = line.split_once("; ").filter(|(id, _)| id.bytes().all(|b| b.is_ascii_digit()));
        let mut words = entry.map(|(_, rest)| rest.splitn(3, ' ')).into_iter().flatten();
        let (_, oid, what) =
            (words.next(), words.next().and_then(|o| o.parse::<u32>().ok()), words.next().unwrap_or(""));
        let drop = if what.starts_with("TABLE DATA ") && !oid.is_some_and(|o| wanted.contains(&o)) {
            rows += 1;
            true
        } else if what.starts_with("FK CONSTRAINT ") {
            keys += 1;
            true
        } else if ["BLOB ", "BLOBS ", "BLOB METADATA ", "MATERIALIZED VIEW DATA "].iter().any(|w| what.starts_with(w)) {
            others += 1;
            true
        } else {
            false
        };
        if !drop {
            out.push_str(line);
            out.push('\n');
        }
    }
    let mut left_out = Vec::new();
    for (n, what) in
        [(rows, "tables' rows"), (keys, "foreign keys"), (others, "materialized views' rows or large objects")]
    {
        if n > 0 {
            left_out.push(format!("{n} {what}"));
        }
    }
    (out, left_out)
}
