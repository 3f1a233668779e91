//! Which of a database's tables come first: names from the configuration, matched with what is there.

use std::collections::BTreeMap;

use super::inventory::TableRecord;
use crate::config::settings::Tiers;
use crate::error::{Error, Result};

/// The tiers, the first to come back first.
pub const NAMES: [&str; 2] = ["critical", "important"];

/// Checks the name of a tier.
///
/// # Errors
/// Usage, with the names there are.
pub fn known(name: &str) -> Result<()> {
    if NAMES.contains(&name) {
        return Ok(());
    }
    Err(Error::usage(format!("there is no tier {name:?}")).hint(format!("There are: {}.", NAMES.join(", "))))
}

/// The names that belong to a tier.
fn of<'t>(tiers: &'t Tiers, tier: &str) -> &'t [String] {
    if tier == NAMES[0] { &tiers.critical } else { &tiers.important }
}

fn fits(name: &str, table: &TableRecord) -> bool {
    match name.strip_suffix(".*") {
        Some(schema) => table.schema == schema,
        None => {
            format!("{}.{}", table.schema, table.name) == name
                || table.sql() == name
                || (table.schema == "public" && table.name == name)
        }
    }
}

/// Gives every table the tier its name says; a partition, and what inherits, has its table's. What a table had from before stays where the
/// configuration says nothing. Returns the names that no table has.
pub fn assign(tables: &mut [TableRecord], tiers: &Tiers) -> Vec<String> {
    let mut unknown = Vec::new();
    // The first tier last: where two patterns fit, it counts.
    for tier in NAMES.iter().rev() {
        for name in of(tiers, tier) {
            let mut some = false;
            for table in tables.iter_mut().filter(|t| fits(name, t)) {
                table.tier = Some((*tier).to_string());
                some = true;
            }
            if !some {
                unknown.push(name.clone());
            }
        }
    }
    let parents: BTreeMap<u32, (Option<u32>, Option<String>)> =
        tables.iter().map(|t| (t.oid, (t.parents().next(), t.tier.clone()))).collect();
    for table in tables.iter_mut().filter(|t| t.tier.is_none()) {
        let mut above = table.parents().next();
        // Partitions of partitions; never deeper than there are tables.
        for _ in 0..parents.len() {
            let Some((next, tier)) = above.and_then(|oid| parents.get(&oid)) else { break };
            if tier.is_some() {
                table.tier.clone_from(tier);
                break;
            }
            above = *next;
        }
    }
    unknown.reverse();
    unknown
}
