//! Names from the log itself: the rows of `pg_class`, `pg_namespace` and `pg_database` as the log writes them.
//!
//! A page of a catalog comes whole with its first change after each checkpoint, and each change after that comes as
//! the new row or the part of it that differs. Following both gives the name of a table that was made and dropped between
//! two looks at the live server, which nothing else remembers.

use std::collections::HashMap;

use super::names::{NameMap, Relation};
use crate::postgres::Lsn;
use crate::postgres::wal::heap::{self, Row};
use crate::postgres::wal::{FIRST_USER_OID, Layout, Record, RelFile, Version};

/// A catalog that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catalog {
    /// `pg_class`.
    Class,
    /// `pg_namespace`.
    Namespace,
    /// `pg_database`.
    Database,
}

/// OID of the tablespace of shared catalogs.
const PG_GLOBAL: u32 = 1664;
/// How a rewrite calls the table that it builds beside the one whose OID follows (`make_new_heap`).
pub const BESIDE: &str = "pg_temp_";
const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
const PG_DATABASE: u32 = 1262;

/// A change a transaction made to a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A relation appeared.
    Appeared(ClassRow),
    /// A relation's row changed; what it was, when known.
    Altered(Option<ClassRow>, ClassRow),
    /// A relation went; what it was, when known.
    Went(Option<ClassRow>),
    /// A schema appeared or was renamed.
    Schema(u32, u32, String),
    /// A schema went; its name, when known.
    SchemaWent(u32, Option<String>),
    /// A database appeared or was renamed.
    Database(u32, String),
    /// A database was marked invalid where its row stands, as the first act of dropping it: at once, whatever becomes of
    /// the transaction.
    Invalid(u32),
    /// A relation's row was changed where it stands (its estimates): at once.
    Estimated(ClassRow),
}

/// A row of `pg_class`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRow {
    /// Its storage, the tablespace resolved.
    pub file: RelFile,
    /// What it is.
    pub relation: Relation,
}

/// The catalogs' pages as far as the log has shown them.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    pages: HashMap<(RelFile, u32), HashMap<u16, Row>>,
    /// Catalogs that no longer stand in the file that bears their OID.
    moved: HashMap<RelFile, u32>,
}

impl Mirror {
    /// Which catalog `rel` is the storage of.
    pub fn catalog(&self, rel: RelFile) -> Option<Catalog> {
        let oid = if rel.file < FIRST_USER_OID {
            rel.file
        } else if self.moved.is_empty() {
            return None;
        } else {
            *self.moved.get(&rel)?
        };
        match oid {
            PG_CLASS if rel.database != 0 => Some(Catalog::Class),
            PG_NAMESPACE if rel.database != 0 => Some(Catalog::Namespace),
            PG_DATABASE if rel.database == 0 => Some(Catalog::Database),
            _ => None,
        }
    }
    /// Notes that catalog `oid` stands in `rel`.
    pub fn moved(&mut self, rel: RelFile, oid: u32) {
        if rel.file != oid {
            self.moved.insert(rel, oid);
        }
    }
    /// A catalog is about to be rewritten (VACUUM FULL): from now on its rows also appear in the storage of the table built
    /// beside it, which is `pg_temp_` and the catalog's OID. That storage is nobody else's even if the rewrite fails.
    pub fn note_rewrite(&mut self, beside: &ClassRow) {
        let oid = beside.relation.name.strip_prefix(BESIDE).and_then(|o| o.parse::<u32>().ok());
        let Some(oid) = oid.filter(|o| *o < FIRST_USER_OID) else { return };
        let mut file = beside.file;
        if file.file == 0 {
            file.file = beside.relation.oid; // mapped: its number is not in pg_class, and at first it is the OID
        }
        if file.tablespace == PG_GLOBAL {
            file.database = 0;
        }
        self.moved(file, oid);
    }
    /// Takes over from a name map which catalogs have moved.
    pub fn take_moves(&mut self, map: &NameMap) {
        for (file, oid) in map.moved_catalogs() {
            self.moved(file, oid);
        }
    }

    /// Takes the page images of a record that changes no row.
    pub fn see_images(&mut self, record: &Record<'_>, layout: &Layout, catalog: Catalog, names: &mut NameMap) {
        for block in layout.blocks.iter().filter(|b| b.fork == 0) {
            if block.init {
                self.pages.remove(&(block.rel, block.block));
            }
            let rows = if block.applies { heap::image_rows(record, block) } else { Vec::new() };
            if !rows.is_empty() {
                for (_, row) in &rows {
                    hint(names, record.lsn, catalog, block.rel, row);
                }
                self.pages.insert((block.rel, block.block), rows.into_iter().collect());
            }
        }
    }

    /// Follows a heap record on a catalog; what it changes is appended to `out`. `names` learns at once what a page image
    /// shows and nobody knew.
    pub fn follow(
        &mut self,
        record: &Record<'_>,
        layout: &Layout,
        catalog: Catalog,
        names: &mut NameMap,
        out: &mut Vec<Change>,
    ) {
        // Rows as they were before this record, for what it deletes or changes.
        let op = record.info & 0x70;
        let (Some(new), Some(old)) = (layout.blocks.first(), layout.blocks.last()) else { return };
        let old_key = (old.rel, old.block);
        let mut before = None;
        if op == 0x10 {
            before = heap::deleted(record, layout).and_then(|line| self.pages.get(&old_key)?.get(&line).cloned());
        }
        let update = (op == 0x20 || op == 0x40).then(|| heap::Updated::read(record, layout)).flatten();
        if let Some(u) = &update {
            before = self.pages.get(&old_key).and_then(|p| p.get(&u.old_line).cloned());
        }
        self.see_images(record, layout, catalog, names);
        let key = (new.rel, new.block);
        match op {
            0x00 => {
                let Some((line, row)) = heap::inserted(record, layout) else { return };
                if let Some(row) = row {
                    self.pages.entry(key).or_default().insert(line, row);
                }
                if let Some(row) = self.pages.get(&key).and_then(|p| p.get(&line)) {
                    push(out, catalog, new.rel, None, Some(row));
                }
            }
            0x10 => {
                // A page image shows the row as it goes: it stays on the page until a vacuum.
                let line = heap::deleted(record, layout);
                let seen = line.and_then(|l| self.pages.get(&old_key)?.get(&l));
                push(out, catalog, new.rel, seen.cloned().or(before).as_deref(), None);
            }
            0x20 | 0x40 => {
                let Some(u) = update else { return };
                let old_row = self.pages.get(&old_key).and_then(|p| p.get(&u.old_line).cloned()).or(before);
                if let Some(row) = u.row(old_row.as_ref()) {
                    self.pages.entry(key).or_default().insert(u.new_line, row);
                } else if !new.applies {
                    // Without the old row the new one cannot be known.
                    if let Some(p) = self.pages.get_mut(&key) {
                        p.remove(&u.new_line);
                    }
                }
                if let Some(row) = self.pages.get(&key).and_then(|p| p.get(&u.new_line)) {
                    push(out, catalog, new.rel, old_row.as_deref(), Some(row));
                }
            }
            0x70 => {
                let Some((line, row)) = heap::in_place(record, layout) else { return };
                let page = self.pages.entry(key).or_default();
                if let Some(row) = row {
                    page.insert(line, row);
                }
                let Some(row) = page.get(&line) else { return };
                match catalog {
                    Catalog::Class => out.extend(class_row(new.rel, row).map(Change::Estimated)),
                    Catalog::Database => out.extend(invalid_database(row, record.version).map(Change::Invalid)),
                    Catalog::Namespace => {}
                }
            }
            _ => {}
        }
    }
}

fn push(out: &mut Vec<Change>, catalog: Catalog, rel: RelFile, old: Option<&[u8]>, new: Option<&[u8]>) {
    let change = match (catalog, new) {
        (Catalog::Class, Some(row)) => {
            let Some(row) = class_row(rel, row) else { return };
            match old {
                Some(old) => Change::Altered(class_row(rel, old), row),
                None => Change::Appeared(row),
            }
        }
        (Catalog::Class, None) => Change::Went(old.and_then(|r| class_row(rel, r))),
        (Catalog::Namespace, Some(row)) => match named(row) {
            Some((oid, name)) => Change::Schema(rel.database, oid, name),
            None => return,
        },
        (Catalog::Namespace, None) => {
            let gone = old.and_then(named);
            Change::SchemaWent(rel.database, gone.map(|(_, n)| n))
        }
        (Catalog::Database, Some(row)) => match named(row) {
            Some((oid, name)) => Change::Database(oid, name),
            None => return,
        },
        (Catalog::Database, None) => return,
    };
    out.push(change);
}

fn hint(names: &mut NameMap, lsn: Lsn, catalog: Catalog, rel: RelFile, row: &[u8]) {
    match catalog {
        Catalog::Class => {
            if let Some(c) = class_row(rel, row)
                && c.file.file != 0
                && names.relation(c.file, lsn).is_none()
            {
                names.learn(lsn, c.file, c.relation);
            }
        }
        Catalog::Namespace => {
            if let Some((oid, name)) = named(row)
                && names.schema(rel.database, oid, lsn).is_none()
            {
                names.learn_schema(lsn, rel.database, oid, &name);
            }
        }
        Catalog::Database => {
            if let Some((oid, name)) = named(row)
                && names.database(oid, lsn).is_none()
            {
                names.learn_database(lsn, oid, &name);
            }
        }
    }
}

/// OID and name: the first two columns of `pg_namespace` and `pg_database`.
fn named(row: &[u8]) -> Option<(u32, String)> {
    let oid = u32::from_le_bytes(*row.first_chunk()?);
    Some((oid, text(row.get(4..68)?)?))
}

/// The OID in a row of `pg_database` whose connection limit is −2, which means invalid (`DATCONNLIMIT_INVALID_DB`, in all
/// minor releases since August 2023).
fn invalid_database(row: &[u8], version: Version) -> Option<u32> {
    // Up to version 14 two names of 64 bytes stood before it.
    let at = if version >= Version::V15 { 80 } else { 208 };
    let limit = i32::from_le_bytes(*row.get(at..)?.first_chunk()?);
    (limit == -2).then(|| row.first_chunk().map(|b| u32::from_le_bytes(*b))).flatten()
}

/// A `name` column: 64 bytes, zero-padded.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0)?;
    let name = bytes.get(..end).filter(|n| !n.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// A row of `pg_class`. Its columns up to `relkind` have fixed places, the same in versions 13 to 17 (`catalog/pg_class.h`).
fn class_row(catalog: RelFile, row: &[u8]) -> Option<ClassRow> {
    let number = |at: usize| Some(u32::from_le_bytes(*row.get(at..)?.first_chunk()?));
    let letter = |at: usize| row.get(at).map(|b| char::from(*b));
    let space = number(92)?;
    let rows = f32::from_bits(number(100)?);
    let file = RelFile {
        // A catalog's own tablespace is the database's default, which 0 stands for.
        tablespace: if space == 0 { catalog.tablespace } else { space },
        database: catalog.database,
        file: number(88)?,
    };
    let relation = Relation {
        oid: number(0)?,
        schema_oid: number(68)?,
        schema: None,
        name: text(row.get(4..68)?)?,
        kind: letter(115)?,
        persistence: letter(114)?,
        root: None,
        rows: (rows >= 1.0).then_some(rows as u64),
    };
    Some(ClassRow { file, relation })
}
