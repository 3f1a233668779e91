//! What of a dump: all, some tables, some schemas.

use std::collections::{BTreeMap, BTreeSet};

use super::order::entry;
use crate::error::{Error, Result};
use crate::postgres::inventory::{Inventory, TableRecord};
use crate::postgres::table_needs::some_of;
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
            let table = inventory.tables.iter().find(|t| is_called(t, name)).ok_or_else(|| {
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
        // Rows of a table lie in its partitions and in what inherits from it, and in theirs, whatever schema those are in.
        let mut children: BTreeMap<u32, Vec<&TableRecord>> = BTreeMap::new();
        for table in &inventory.tables {
            table.parents().for_each(|parent| children.entry(parent).or_default().push(table));
        }
        let (mut seen, mut at): (BTreeSet<u32>, usize) = (found.iter().map(|t| t.oid).collect(), 0);
        while let Some(parent) = found.get(at).map(|t| t.oid) {
            found.extend(children.get(&parent).into_iter().flatten().filter(|t| seen.insert(t.oid)));
            at += 1;
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

    /// Those of the selected tables that nobody named, for people: partitions and children of the others. None when there is none.
    pub fn along(&self, selected: &[&TableRecord]) -> Option<String> {
        let named = |t: &TableRecord| {
            self.tables.iter().any(|n| is_called(t, n))
                || self.schemas.contains(&t.schema)
                || t.tier.as_ref().is_some_and(|tier| self.tiers.contains(tier))
        };
        let along: Vec<String> = selected.iter().filter(|t| !named(t)).map(|t| t.sql()).collect();
        (!self.is_all() && !along.is_empty()).then(|| some_of(&along))
    }
}

/// Whether a person means this table by this name.
fn is_called(t: &TableRecord, name: &str) -> bool {
    format!("{}.{}", t.schema, t.name) == name || t.sql() == name || (t.schema == "public" && t.name == name)
}

/// Entries of large objects, and what is said of one: comment, privileges, label.
const LARGE_OBJECTS: [&str; 6] = [
    "BLOB ",
    "BLOBS ",
    "BLOB METADATA ",
    "COMMENT - LARGE OBJECT",
    "ACL - LARGE OBJECT",
    "SECURITY LABEL - LARGE OBJECT",
];

/// The list of contents for `pg_restore --use-list`, and what was taken out of it, for people.
///
/// Definitions all stay: types, functions and sequences that the wanted tables use come along. Rows of other tables do not,
/// nor do foreign keys that point at them or come from them, nor, unless `all` was asked for, large objects.
pub fn filter(list: &str, inventory: &Inventory, selected: &[&TableRecord], all: bool) -> (String, Vec<String>) {
    let wanted: BTreeSet<u32> = selected.iter().map(|t| t.oid).collect();
    // In a dump of some tables a foreign key may point at one that is not in it.
    let outside = |t: &&TableRecord| t.references.iter().any(|[_, other]| !wanted.contains(other));
    let every_table = selected.len() == inventory.tables.len() && !selected.iter().any(outside);
    if every_table && all {
        return (list.to_string(), Vec::new());
    }
    let between = |[constraint, other]: &[u32; 2]| wanted.contains(other).then_some(*constraint);
    let kept: BTreeSet<u32> = selected.iter().flat_map(|t| &t.references).filter_map(between).collect();
    let (mut out, mut large) = (String::new(), false);
    let (mut rows, mut views, mut keys): (Vec<String>, Vec<String>, Vec<String>) = (Vec::new(), Vec::new(), Vec::new());
    let table =
        |what: &str, oid| inventory.tables.iter().find(|t| t.oid == oid).map_or_else(|| what.into(), TableRecord::sql);
    for line in list.lines() {
        let (_, oid, what) = entry(line).unwrap_or((0, 0, ""));
        let drop = if what.starts_with("TABLE DATA ") && !wanted.contains(&oid) {
            rows.push(table(what, oid));
            true
        } else if what.starts_with("FK CONSTRAINT ") && !kept.contains(&oid) {
            keys.push(foreign_key(what, oid, inventory));
            true
        } else if what.starts_with("MATERIALIZED VIEW DATA ") && !every_table {
            views.push(table(what, oid));
            true
        } else if LARGE_OBJECTS.iter().any(|w| what.starts_with(w)) {
            large = true;
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
    let counted = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    if !rows.is_empty() {
        left_out.push(format!("rows of {}: {}", counted(rows.len() as u64, "table"), some_of(&rows)));
    }
    if !keys.is_empty() {
        left_out.push(format!("{}: {}", counted(keys.len() as u64, "foreign key"), some_of(&keys)));
    }
    if large {
        left_out.push(counted(inventory.large_objects, "large object"));
    }
    if !views.is_empty() {
        left_out.push(format!("rows of materialized views, until REFRESH MATERIALIZED VIEW: {}", views.join(", ")));
    }
    (out, left_out)
}

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
