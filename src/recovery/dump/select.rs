//! What of a dump: all, some tables, some schemas.

use std::collections::BTreeSet;

use super::order::entry;
use crate::error::{Error, Result};
use crate::postgres::inventory::{Inventory, TableRecord};
use crate::postgres::tiers;

/// What is wanted. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Tables, as `schema.table` or `table` in `public`.
    pub tables: Vec<String>,
    /// Schemas.
    pub schemas: Vec<String>,
    /// Tiers (`postgres::tiers`).
    pub tiers: Vec<String>,
}

impl Selection {
    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.tables.is_empty() && self.schemas.is_empty() && self.tiers.is_empty()
    }

    /// The tables whose rows are wanted.
    ///
    /// # Errors
    /// Usage when a name is not in the dump; the message lists what is there.
    pub fn tables<'i>(&self, inventory: &'i Inventory) -> Result<Vec<&'i TableRecord>> {
        let has_rows = |t: &TableRecord| {
            inventory.only_tiers.is_empty() || t.tier.as_ref().is_some_and(|tier| inventory.only_tiers.contains(tier))
        };
        if self.is_all() {
            return Ok(inventory.tables.iter().filter(|t| has_rows(t)).collect());
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
        // Rows of a partitioned table lie in its partitions, and in theirs.
        let mut at = 0;
        while let Some(parent) = found.get(at).map(|t| t.oid) {
            found.extend(inventory.tables.iter().filter(|t| t.partition_of == Some(parent)));
            at += 1;
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
        for tier in &self.tiers {
            tiers::known(tier)?;
            let before = found.len();
            found.extend(inventory.tables.iter().filter(|t| t.tier.as_ref() == Some(tier)));
            if found.len() == before {
                return Err(Error::usage(format!("no table of the tier {tier:?} in the dump"))
                    .hint("Tiers are named in breakglass.toml: backup.tiers (docs/formats.md)."));
            }
        }
        if let Some(t) = found.iter().find(|t| !has_rows(t)) {
            return Err(Error::usage(format!("no rows of table {} in the dump", t.sql()))
                .why(format!(
                    "it was taken with --tier {}: of other tables it has the definitions",
                    inventory.only_tiers.join(" --tier ")
                ))
                .hint("Look for another one: breakglass backup list."));
        }
        found.sort_by_key(|t| t.oid);
        found.dedup_by_key(|t| t.oid);
        Ok(found)
    }
}

/// The list of contents for `pg_restore --use-list`, and what was taken out of it, for people.
///
/// Definitions all stay: types, functions and sequences that the wanted tables use come along. Rows of other tables do not,
/// nor do foreign keys that point at them or come from them, nor large objects.
pub fn filter(list: &str, inventory: &Inventory, selected: &[&TableRecord]) -> (String, Vec<String>) {
    let wanted: BTreeSet<u32> = selected.iter().map(|t| t.oid).collect();
    // In a dump of some tables a foreign key may point at one that is not in it.
    let outside = |t: &&TableRecord| t.references.iter().any(|[_, other]| !wanted.contains(other));
    if selected.len() == inventory.tables.len() && !selected.iter().any(outside) {
        return (list.to_string(), Vec::new());
    }
    let between = |[constraint, other]: &[u32; 2]| wanted.contains(other).then_some(*constraint);
    let kept: BTreeSet<u32> = selected.iter().flat_map(|t| &t.references).filter_map(between).collect();
    let (mut out, mut rows, mut others) = (String::new(), 0, 0);
    let (mut views, mut keys): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for line in list.lines() {
        let (_, oid, what) = entry(line).unwrap_or((0, 0, ""));
        let drop = if what.starts_with("TABLE DATA ") && !wanted.contains(&oid) {
            rows += 1;
            true
        } else if what.starts_with("FK CONSTRAINT ") && !kept.contains(&oid) {
            keys.push(foreign_key(what, oid, inventory));
            true
        } else if what.starts_with("MATERIALIZED VIEW DATA ") {
            let view =
                inventory.tables.iter().find(|t| t.oid == oid).map_or_else(|| what.to_string(), TableRecord::sql);
            views.push(view);
            true
        } else if ["BLOB ", "BLOBS ", "BLOB METADATA "].iter().any(|w| what.starts_with(w)) {
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
    if rows > 0 {
        left_out.push(format!("{rows} tables' rows"));
    }
    if !keys.is_empty() {
        let (count, more) = (keys.len(), keys.len().saturating_sub(MOST));
        keys.truncate(MOST);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let word = if count == 1 { "foreign key" } else { "foreign keys" };
        left_out.push(format!("{count} {word}: {}{more}", keys.join(", ")));
    }
    if others > 0 {
        left_out.push(format!("{others} lists of large objects"));
    }
    if !views.is_empty() {
        left_out.push(format!("rows of materialized views, until REFRESH MATERIALIZED VIEW: {}", views.join(", ")));
    }
    (out, left_out)
}

/// Most foreign keys that are named.
const MOST: usize = 10;

/// A foreign key of the list by its name, with the table that has it and, where the dump knows it, the one it points at.
fn foreign_key(what: &str, oid: u32, inventory: &Inventory) -> String {
    let mut all = inventory.tables.iter().flat_map(|t| t.references.iter().map(move |[key, other]| (t, *key, *other)));
    let Some((table, _, other)) = all.find(|(_, key, _)| *key == oid) else {
        return what.trim_start_matches("FK CONSTRAINT ").to_string();
    };
    // `FK CONSTRAINT schema table name owner`.
    let name = what.strip_prefix(&format!("FK CONSTRAINT {} {} ", table.schema, table.name)).unwrap_or(what);
    let name = name.rsplit_once(' ').map_or(name, |(name, _)| name);
    let to = inventory.tables.iter().find(|t| t.oid == other).map_or_else(String::new, |t| format!(" to {}", t.sql()));
    format!("{name} of {}{to}", table.sql())
}
