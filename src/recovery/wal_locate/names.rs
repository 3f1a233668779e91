//! Which name belonged to which file, over time: the log names files, people name tables, and a dropped table is in no
//! catalog any more.
//!
//! One small document per cluster. It is filled from the live server ([`super::snapshot`]) and carried forward by what the
//! log says of the catalogs ([`super::catalog`]); each entry says from which position on it holds.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::postgres::Lsn;
use crate::postgres::wal::{FIRST_USER_OID, RelFile};

/// A relation as a catalog described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The catalog's OID, which stays.
    pub oid: u32,
    /// OID of its schema.
    #[serde(default)]
    pub schema_oid: u32,
    /// Schema, when known.
    #[serde(default)]
    pub schema: Option<String>,
    /// Name without the schema.
    pub name: String,
    /// `relkind`: r table, m materialized view, i index, S sequence, t TOAST table, p partitioned table.
    pub kind: char,
    /// `relpersistence`: p permanent, u unlogged, t temporary.
    pub persistence: char,
    /// Topmost partitioned table it is a part of, `schema.name`.
    #[serde(default)]
    pub root: Option<String>,
    /// The planner's estimate of its rows; none when never analysed.
    #[serde(default)]
    pub rows: Option<u64>,
}

impl Relation {
    /// A catalog of PostgreSQL's own whose storage only the relation map knows.
    pub fn mapped_catalog(oid: u32) -> Self {
        Self {
            oid,
            schema_oid: 11,
            schema: Some("pg_catalog".into()),
            name: format!("catalog with OID {oid}"),
            kind: 'r',
            persistence: 'p',
            root: None,
            rows: None,
        }
    }
    /// PostgreSQL's own.
    pub fn is_system(&self) -> bool {
        self.oid < FIRST_USER_OID
    }
    /// Holds rows that people put there: an ordinary table, or a materialized view.
    pub fn is_table(&self) -> bool {
        matches!(self.kind, 'r' | 'm') && !self.is_system()
    }
}

/// What holds from a position on until the next entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Since<T> {
    #[serde(with = "lsn_text")]
    lsn: Lsn,
    is: T,
}

/// Entries of one thing in the order of their positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct History<T>(Vec<Since<T>>);

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> History<T> {
    /// What held at `lsn`; before the first entry, the first: a name learnt late is better than none.
    fn at(&self, lsn: Lsn) -> Option<&T> {
        let after = self.0.partition_point(|e| e.lsn <= lsn);
        self.0.get(after.saturating_sub(1)).map(|e| &e.is)
    }
    fn learn(&mut self, lsn: Lsn, is: T) {
        let after = self.0.partition_point(|e| e.lsn <= lsn);
        if after > 0 && self.0.get(after - 1).is_some_and(|e| e.is == is) {
            return;
        }
        if self.0.get(after).is_some_and(|e| e.is == is) {
            if let Some(e) = self.0.get_mut(after) {
                e.lsn = lsn;
            }
            return;
        }
        self.0.insert(after, Since { lsn, is });
    }
}

/// Names of a cluster over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameMap {
    databases: BTreeMap<u32, History<String>>,
    schemas: BTreeMap<(u32, u32), History<String>>,
    relations: HashMap<RelFile, History<Relation>>,
    /// Files of a relation by database and OID, newest last.
    by_oid: HashMap<(u32, u32), Vec<RelFile>>,
    snapshots: Vec<Lsn>,
}

impl NameMap {
    /// A map that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }
    /// Positions at which the live server was asked, in order.
    pub fn snapshots(&self) -> &[Lsn] {
        &self.snapshots
    }
    /// How many files it can name.
    pub fn len(&self) -> usize {
        self.relations.len()
    }
    /// Whether it knows no file.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }
    /// Notes that the live server was asked at `lsn`.
    pub fn note_snapshot(&mut self, lsn: Lsn) {
        let at = self.snapshots.partition_point(|l| *l < lsn);
        if self.snapshots.get(at) != Some(&lsn) {
            self.snapshots.insert(at, lsn);
        }
    }
    /// From `lsn` on, database `oid` has this name.
    pub fn learn_database(&mut self, lsn: Lsn, oid: u32, name: &str) {
        self.databases.entry(oid).or_default().learn(lsn, name.to_string());
    }
    /// From `lsn` on, schema `oid` of `database` has this name.
    pub fn learn_schema(&mut self, lsn: Lsn, database: u32, oid: u32, name: &str) {
        self.schemas.entry((database, oid)).or_default().learn(lsn, name.to_string());
    }
    /// From `lsn` on, `file` is the storage of this relation. What only the live server knows (the partition root, the
    /// estimate of rows) is taken over from what was known of the same OID.
    pub fn learn(&mut self, lsn: Lsn, file: RelFile, mut relation: Relation) {
        let old = self.relations.get(&file).and_then(|h| h.at(lsn)).filter(|r| r.oid == relation.oid).cloned();
        let old = old.or_else(|| {
            let known = self.by_oid.get(&(file.database, relation.oid))?;
            known.iter().rev().find_map(|f| self.relations.get(f)?.at(lsn)).cloned()
        });
        if let Some(old) = old {
            relation.root = relation.root.or(old.root);
            relation.rows = relation.rows.or(old.rows);
            if relation.schema_oid == old.schema_oid {
                relation.schema = relation.schema.or(old.schema);
            }
        }
        if let Some(now) = self.relations.get(&file).and_then(|h| h.at(lsn)) {
            // The estimate changes with every autovacuum; a history of it is not worth keeping.
            if let (Some(a), Some(b)) = (now.rows, relation.rows)
                && a.abs_diff(b) <= a / 4
            {
                relation.rows = now.rows;
            }
        }
        let files = self.by_oid.entry((file.database, relation.oid)).or_default();
        if files.last() != Some(&file) {
            files.retain(|f| *f != file);
            files.push(file);
        }
        self.relations.entry(file).or_default().learn(lsn, relation);
    }
    /// What the file was at `lsn`.
    pub fn relation(&self, file: RelFile, lsn: Lsn) -> Option<&Relation> {
        self.relations.get(&file)?.at(lsn)
    }
    /// The newest storage known of the relation with this OID.
    pub fn file_of(&self, database: u32, oid: u32) -> Option<RelFile> {
        self.by_oid.get(&(database, oid))?.last().copied()
    }
    /// The database's name at `lsn`.
    pub fn database(&self, oid: u32, lsn: Lsn) -> Option<&str> {
        self.databases.get(&oid)?.at(lsn).map(String::as_str)
    }
    /// The schema's name at `lsn`. `public` and PostgreSQL's own have fixed OIDs (`pg_namespace.dat`).
    pub fn schema(&self, database: u32, oid: u32, lsn: Lsn) -> Option<&str> {
        match self.schemas.get(&(database, oid)) {
            Some(h) => h.at(lsn).map(String::as_str),
            None => match oid {
                2200 => Some("public"),
                11 => Some("pg_catalog"),
                99 => Some("pg_toast"),
                _ => None,
            },
        }
    }
    /// `schema.name` of a relation at `lsn`.
    pub fn full_name(&self, database: u32, relation: &Relation, lsn: Lsn) -> String {
        let named = self.schema(database, relation.schema_oid, lsn).or(relation.schema.as_deref());
        match named {
            Some(schema) => format!("{schema}.{}", relation.name),
            None => relation.name.clone(),
        }
    }
    /// Catalogs of PostgreSQL's own whose storage bears another number than their OID.
    pub fn moved_catalogs(&self) -> impl Iterator<Item = (RelFile, u32)> + '_ {
        let all = self.relations.iter().flat_map(|(f, h)| h.0.iter().map(|e| (*f, e.is.oid)));
        all.filter(|(f, oid)| *oid < FIRST_USER_OID && f.file >= FIRST_USER_OID)
    }

    /// The map as a JSON document.
    ///
    /// # Errors
    /// It cannot be written as JSON, which would be a defect.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut files: Vec<_> = self
            .relations
            .iter()
            .map(|(f, h)| FileDoc { ts: f.tablespace, db: f.database, file: f.file, is: h.clone() })
            .collect();
        files.sort_by_key(|f| (f.db, f.ts, f.file));
        let doc = Doc {
            v: 1,
            snapshots: self.snapshots.iter().map(Lsn::to_string).collect(),
            databases: self.databases.iter().map(|(o, h)| (*o, h.clone())).collect(),
            schemas: self.schemas.iter().map(|((d, o), h)| (*d, *o, h.clone())).collect(),
            files,
        };
        serde_json::to_vec(&doc).state(|| "writing the name map".into())
    }
    /// Reads a map back.
    ///
    /// # Errors
    /// Not such a document, or one of a newer version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let what = || "reading the name map".to_string();
        let doc: Doc = serde_json::from_slice(bytes).target(what)?;
        if doc.v != 1 {
            return Err(Error::target(what()).why(format!("it is of version {}, this program knows 1", doc.v)));
        }
        let mut map = Self::default();
        for lsn in &doc.snapshots {
            map.note_snapshot(lsn.parse().target(what)?);
        }
        map.databases = doc.databases.into_iter().collect();
        map.schemas = doc.schemas.into_iter().map(|(d, o, h)| ((d, o), h)).collect();
        let mut order: Vec<(Lsn, u32, RelFile)> = Vec::new();
        for f in doc.files {
            let file = RelFile { tablespace: f.ts, database: f.db, file: f.file };
            order.extend(f.is.0.iter().map(|e| (e.lsn, e.is.oid, file)));
            map.relations.insert(file, f.is);
        }
        order.sort();
        for (_, oid, file) in order {
            let files = map.by_oid.entry((file.database, oid)).or_default();
            files.retain(|f| *f != file);
            files.push(file);
        }
        Ok(map)
    }
}

#[derive(Serialize, Deserialize)]
struct Doc {
    v: u32,
    snapshots: Vec<String>,
    databases: Vec<(u32, History<String>)>,
    schemas: Vec<(u32, u32, History<String>)>,
    files: Vec<FileDoc>,
}

#[derive(Serialize, Deserialize)]
struct FileDoc {
    ts: u32,
    db: u32,
    file: u32,
    is: History<Relation>,
}

/// Positions as text in documents: they exceed 2^53.
pub(super) mod lsn_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::postgres::Lsn;

    pub fn serialize<S: Serializer>(lsn: &Lsn, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(lsn)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Lsn, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }

    /// The same for one that may be missing.
    pub mod optional {
        use serde::{Deserialize, Deserializer, Serializer};

        use crate::postgres::Lsn;

        pub fn serialize<S: Serializer>(lsn: &Option<Lsn>, s: S) -> Result<S::Ok, S::Error> {
            match lsn {
                Some(lsn) => s.collect_str(lsn),
                None => s.serialize_none(),
            }
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Lsn>, D::Error> {
            let text: Option<String> = Option::deserialize(d)?;
            text.map(|t| t.parse().map_err(serde::de::Error::custom)).transpose()
        }
    }
}
