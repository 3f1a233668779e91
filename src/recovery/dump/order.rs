//! In which order a dump is loaded: the tables that come first with all that belongs to them, then the next, then the rest.

use std::collections::{BTreeMap, BTreeSet};

use crate::postgres::inventory::TableRecord;
use crate::postgres::tiers::NAMES;

/// A part of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Tier whose tables are back after it; none: the rest.
    pub tier: Option<&'static str>,
    /// For `pg_restore --use-list`.
    pub list: String,
    /// Oids of the tables whose rows it brings.
    pub tables: BTreeSet<u32>,
}

/// Entries that wait for the rest when they belong to no table that comes first: they need rows, or what is made after them.
const LATE: [&str; 24] = [
    "TABLE DATA ",
    "BLOB ",
    "BLOBS ",
    "BLOB METADATA ",
    "LARGE OBJECT",
    "INDEX ",
    "INDEX ATTACH ",
    "STATISTICS ",
    "CONSTRAINT ",
    "CHECK CONSTRAINT ",
    "FK CONSTRAINT ",
    "TRIGGER ",
    "EVENT TRIGGER ",
    "RULE ",
    "POLICY ",
    "ROW SECURITY ",
    "MATERIALIZED VIEW DATA ",
    "PUBLICATION",
    "SUBSCRIPTION",
    "ACL ",
    "DEFAULT ACL ",
    "COMMENT ",
    "SECURITY LABEL ",
    "STATISTICS DATA ",
];

/// Splits a list of contents by the tiers of the tables in it. One part when no table of it has a tier.
pub fn parts(list: &str, tables: &[&TableRecord]) -> Vec<Part> {
    let rank = |t: &TableRecord| NAMES.iter().position(|n| t.tier.as_deref() == Some(n)).unwrap_or(NAMES.len());
    let ranks: BTreeMap<u32, usize> = tables.iter().map(|t| (t.oid, rank(t))).collect();
    let partitioned: BTreeSet<u32> = tables.iter().filter(|t| t.kind == "p").map(|t| t.oid).collect();
    // What belongs to a table, by the catalog it stands in and its oid there.
    let mut belongs: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for t in tables {
        for [catalog, oid] in &t.parts {
            belongs.insert((*catalog, *oid), rank(t));
        }
        for [constraint, other] in &t.references {
            // A foreign key can be checked once both tables are there. One to a partitioned table needs the indexes of all its
            // partitions attached first, and the entries that do that name neither catalog nor oid: they come with the rest.
            let other = ranks.get(other).copied().filter(|_| !partitioned.contains(other)).unwrap_or(NAMES.len());
            belongs.insert((PG_CONSTRAINT, *constraint), rank(t).max(other));
        }
    }
    let first = ranks.values().copied().min().unwrap_or(NAMES.len());
    let mut out: Vec<Part> = (0..=NAMES.len())
        .map(|n| Part {
            tier: NAMES.get(n).copied(),
            list: String::new(),
            tables: ranks.iter().filter(|(_, r)| **r == n).map(|(oid, _)| *oid).collect(),
        })
        .collect();
    for line in list.lines() {
        let Some((catalog, oid, what)) = entry(line) else { continue };
        let late = LATE.iter().any(|w| what.starts_with(w));
        let at = match what.starts_with("TABLE DATA ") {
            true => ranks.get(&oid).copied().unwrap_or(NAMES.len()),
            false if late => belongs.get(&(catalog, oid)).copied().unwrap_or(NAMES.len()),
            false => first,
        };
        if let Some(part) = out.get_mut(at) {
            part.list.push_str(line);
            part.list.push('\n');
        }
    }
    out.retain(|p| !p.list.is_empty());
    out
}

/// Oid of the catalog `pg_constraint`, fixed in PostgreSQL's source (`catalog/pg_constraint.h`).
const PG_CONSTRAINT: u32 = 2606;

/// `12; 1259 16389 TABLE DATA public t owner`: the catalog, the oid in it, and the rest of an entry; none for a remark.
pub fn entry(line: &str) -> Option<(u32, u32, &str)> {
    let (_, rest) = line.split_once("; ").filter(|(id, _)| id.bytes().all(|b| b.is_ascii_digit()))?;
    let mut words = rest.splitn(3, ' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next().unwrap_or("")))
}
