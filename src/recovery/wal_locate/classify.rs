//! From what a transaction did to whether it took something away.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Rules;
use super::catalog::{BESIDE, Change};
use super::names::{NameMap, Relation};
use super::suspect::{Act, Deed};
use super::xact::Xact;
use crate::postgres::wal::{End, FIRST_USER_OID, RelFile, Version};

/// What a transaction took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// By table, the worst first.
    pub acts: Vec<Act>,
    /// Tables built anew without a row taken away.
    pub rewritten: Vec<String>,
    /// The storage that those were built in.
    pub built: Vec<RelFile>,
    /// Schemas dropped.
    pub schemas: Vec<String>,
    /// Whether it is a suspect by the rules.
    pub suspect: bool,
    /// Its database.
    pub database: u32,
}

struct Judge<'a> {
    xact: &'a Xact,
    end: &'a End,
    names: &'a NameMap,
    version: Version,
    created: HashSet<RelFile>,
    /// OIDs whose storage was built anew beside the old one and swapped in: VACUUM FULL, CLUSTER, ALTER TABLE, REFRESH.
    rewritten: HashSet<u32>,
    /// New storage by OID.
    moved_to: BTreeMap<u32, RelFile>,
    gone: HashSet<u32>,
    /// Names of what was built anew, and the storage it was built in.
    anew: BTreeSet<String>,
    built: Vec<RelFile>,
    by_table: BTreeMap<(u8, String), Act>,
}

/// Judges a transaction by what it did up to its end. `committed` is false for one that was rolled back or is still open:
/// then what it would have taken is told.
pub fn judge(xact: &Xact, end: &End, committed: bool, names: &NameMap, version: Version, rules: &Rules) -> Taken {
    let mut it = Judge {
        xact,
        end,
        names,
        version,
        created: xact.created.iter().copied().collect(),
        rewritten: HashSet::new(),
        moved_to: BTreeMap::new(),
        gone: HashSet::new(),
        anew: BTreeSet::new(),
        built: Vec::new(),
        by_table: BTreeMap::new(),
    };
    it.read_catalog();
    let mut taken = Taken { database: it.database(), ..Taken::default() };
    if committed {
        for file in &end.files {
            it.file_gone(*file);
        }
    } else {
        it.would_go();
    }
    it.rows();
    for d in &xact.drop_databases {
        let table =
            names.database(d.database, xact.first).map_or_else(|| format!("OID {}", d.database), str::to_string);
        it.act(Deed::DropDatabase, (table, None), |_| {});
    }
    for change in &xact.catalog {
        if let Change::SchemaWent(_, name) = change {
            taken.schemas.extend(name.clone());
        }
    }
    taken.rewritten = it.anew.into_iter().collect();
    taken.built = it.built;
    taken.acts = it.by_table.into_values().collect();
    taken.acts.sort_by_key(|a| (std::cmp::Reverse(weight(a)), a.table.clone()));
    taken.suspect = is_suspect(&taken.acts, rules);
    if taken.suspect {
        // What else it did in passing is noise beside it.
        let some = |a: &Act| a.deed != Deed::Rows || a.deleted + a.updated > 0;
        taken.acts.retain(some);
    }
    taken
}

fn weight(a: &Act) -> (u8, u64) {
    let kind = match a.deed {
        Deed::DropDatabase => 4,
        Deed::DropTable => 3,
        Deed::Truncate => 2,
        Deed::Replaced => 1,
        Deed::Rows => 0,
    };
    (kind, a.deleted + a.updated)
}

fn is_suspect(acts: &[Act], rules: &Rules) -> bool {
    let rows: u64 = acts.iter().map(|a| a.deleted + a.updated).sum();
    (rules.percent == 0 && rows > 0 && rows >= rules.min_rows) || acts.iter().any(|a| stands_out(a, rules))
}

fn stands_out(a: &Act, rules: &Rules) -> bool {
    if a.deed != Deed::Rows {
        return true;
    }
    let rows = a.deleted + a.updated;
    let share = a.of.map_or(0, |of| of.saturating_mul(u64::from(rules.percent)) / 100);
    if rows >= rules.min_rows.max(share) && rows > 0 {
        return true;
    }
    // A small table emptied.
    a.deleted >= rules.whole_table && a.of.is_some_and(|of| a.deleted.saturating_mul(10) >= of.saturating_mul(9))
}

impl Judge<'_> {
    fn database(&self) -> u32 {
        let user = self.xact.files.iter().map(|(f, _)| f.database).find(|d| *d != 0);
        user.or(self.end.files.first().map(|f| f.database))
            .or(self.end.database)
            .or(self.xact.locks.first().map(|l| l.database))
            .unwrap_or(0)
    }

    fn read_catalog(&mut self) {
        for change in &self.xact.catalog {
            match change {
                Change::Appeared(row) => {
                    // make_new_heap() calls its table pg_temp_ and the OID it will take the place of.
                    if let Some(oid) = row.relation.name.strip_prefix(BESIDE).and_then(|o| o.parse().ok()) {
                        self.rewritten.insert(oid);
                        self.built.push(row.file);
                    }
                }
                Change::Altered(_, row) => {
                    self.moved_to.insert(row.relation.oid, row.file);
                }
                Change::Went(Some(row)) => {
                    self.gone.insert(row.relation.oid);
                }
                _ => {}
            }
        }
    }

    /// What the file was before this transaction.
    fn known(&self, file: RelFile) -> Option<&Relation> {
        self.names.relation(file, self.xact.first)
    }

    /// Name of the table, and of its part that the file is.
    fn name(&self, file: RelFile, known: Option<&Relation>) -> (String, Option<String>) {
        let Some(r) = known else { return (format!("file {file}"), None) };
        let own = self.names.full_name(file.database, r, self.xact.first);
        match &r.root {
            Some(root) => (root.clone(), Some(own)),
            None => (own, None),
        }
    }

    fn act(&mut self, deed: Deed, (table, partition): (String, Option<String>), fill: impl FnOnce(&mut Act)) {
        let order = if deed == Deed::Rows { 1 } else { 0 };
        let act = self.by_table.entry((order, table.clone())).or_insert_with(|| Act {
            deed,
            table,
            deleted: 0,
            updated: 0,
            inserted: 0,
            of: None,
            parts: 0,
            partitions: Vec::new(),
        });
        act.parts += 1;
        act.partitions.extend(partition.filter(|p| !act.partitions.contains(p)));
        fill(act);
    }

    /// A file the commit removed.
    fn file_gone(&mut self, file: RelFile) {
        if self.created.contains(&file) {
            return; // made in the same transaction: nobody else ever saw it
        }
        let known = self.known(file).cloned();
        match &known {
            Some(r) if !r.is_table() || r.persistence != 'p' => return,
            None if !self.looks_like_table(file) => return,
            _ => {}
        }
        // After the swap of a rewrite the old storage is that of the table built beside it, and may be known by its name alone.
        let beside = known.as_ref().and_then(|r| r.name.strip_prefix(BESIDE)?.parse().ok());
        if beside.is_some_and(|oid: u32| self.rewritten.contains(&oid)) {
            return;
        }
        let oid = known.as_ref().map(|r| r.oid);
        let table = self.name(file, known.as_ref());
        let of = known.as_ref().and_then(|r| r.rows);
        let add = move |a: &mut Act| {
            if let Some(of) = of {
                *a.of.get_or_insert(0) += of;
            }
        };
        if self.was_dropped(file, oid) {
            self.act(Deed::DropTable, table, add);
            return;
        }
        if oid.is_some_and(|o| self.rewritten.contains(&o)) {
            self.anew.insert(table.0);
            return;
        }
        let new = oid.and_then(|o| self.moved_to.get(&o)).copied();
        if self.rewritten.is_empty() && self.transient() && new.is_none_or(|n| self.xact.filled(n).heap_pages > 0) {
            self.anew.insert(table.0);
            return; // a table was built beside it, and which is not told: the swap of a rewrite
        }
        if new.is_some_and(|n| n.tablespace != file.tablespace && self.copied(n, of)) {
            self.anew.insert(table.0);
            return;
        }
        let filled = new.map_or(0, |n| self.xact.filled(n).filled());
        let deed = if filled > 0 { Deed::Replaced } else { Deed::Truncate };
        self.act(deed, table, move |a| {
            add(a);
            a.inserted += filled;
        });
    }

    /// Whether storage that was filled by nothing but whole pages has what was there: SET TABLESPACE. TRUNCATE goes to no other
    /// tablespace, and what is put in after one is put in by rows.
    fn copied(&self, new: RelFile, rows: Option<u64>) -> bool {
        let counts = self.xact.filled(new);
        counts.inserted == 0 && (counts.page_rows > 0 || rows == Some(0))
    }

    fn was_dropped(&self, file: RelFile, oid: Option<u32>) -> bool {
        match oid {
            Some(oid) if self.version >= Version::V15 && !self.end.dropped.is_empty() => {
                self.end.dropped.contains(&(file.database, oid))
            }
            Some(oid) if self.gone.contains(&oid) => true,
            _ => self.created.is_empty(),
        }
    }

    /// Whether a table made in this transaction went again with it: its OID is that of a file created.
    fn transient(&self) -> bool {
        self.end.dropped.iter().any(|(db, oid)| self.created.iter().any(|f| f.database == *db && f.file == *oid))
    }

    /// A file without a name: a table unless what was written to it, or in its place, is of another kind.
    fn looks_like_table(&self, file: RelFile) -> bool {
        if file.file < FIRST_USER_OID {
            return false;
        }
        let counts = self.xact.filled(file);
        counts.other_pages == 0
    }

    /// For a transaction without effect: what its changes of the catalog would have taken.
    fn would_go(&mut self) {
        let mut seen = HashSet::new();
        for change in &self.xact.catalog {
            let (row, deed) = match change {
                Change::Went(Some(row)) => (row, Deed::DropTable),
                Change::Altered(Some(old), new) if old.file != new.file && self.created.contains(&new.file) => {
                    if self.rewritten.contains(&old.relation.oid) {
                        continue;
                    }
                    (old, Deed::Truncate)
                }
                _ => continue,
            };
            let own = self.created.contains(&row.file) || !row.relation.is_table() || row.relation.persistence != 'p';
            if own || !seen.insert(row.relation.oid) {
                continue;
            }
            let known = self.known(row.file).cloned().unwrap_or_else(|| row.relation.clone());
            let (table, of) = (self.name(row.file, Some(&known)), known.rows);
            self.act(deed, table, |a| a.of = of);
        }
    }

    /// Rows deleted and updated in tables that were there before.
    fn rows(&mut self) {
        for (file, counts) in &self.xact.files {
            let (deleted, updated) = (counts.deleted, counts.updated + counts.moved);
            if deleted + updated == 0 || file.file < FIRST_USER_OID || self.created.contains(file) {
                continue;
            }
            let known = self.known(*file).cloned();
            if known.as_ref().is_some_and(|r| r.is_system() || r.kind != 'r') {
                continue;
            }
            let table = self.name(*file, known.as_ref());
            // A table that is gone as a whole needs no count of its rows.
            let gone = self.by_table.get(&(0, table.0.clone()));
            if gone.is_some_and(|a| table.1.as_ref().is_none_or(|p| a.partitions.contains(p))) {
                continue;
            }
            let inserted = counts.inserted;
            self.act(Deed::Rows, table, |a| {
                a.deleted += deleted;
                a.updated += updated;
                a.inserted += inserted;
                if let Some(of) = known.and_then(|r| r.rows) {
                    *a.of.get_or_insert(0) += of;
                }
            });
        }
    }
}
