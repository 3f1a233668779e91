//! Damage of a repository's files, generated, taken through the restore itself: every one ends with an error, and nothing of it
//! reaches the server. A sample by default; at least 10,000:
//! `BREAKGLASS_SOAK=1 cargo test --locked backup::mutated -- --nocapture`

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use breakglass::action::backup_restore::BackupRestore;
use breakglass::action::{Action, Ctx, Nowhere};
use breakglass::backup::catalog::Catalog;
use breakglass::backup::container::{FOOTER, Header, TAG};
use breakglass::config::settings::{Connection, REPOSITORY_KEY};
use breakglass::config::{Secrets, Settings};

use super::logical::{cluster, json, program, text, url};
use super::mutations::{Rng, mend};
use super::{passphrase, repository};
use crate::support::cluster::{block_on, server_user};

/// Mutations of each class, at least.
fn per_class() -> usize {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { 720 } else { 3 }
}

const CLASSES: [&str; 14] = [
    "bit of the core",
    "bit of a stanza",
    "bit of the header's MAC",
    "bit of a chunk",
    "bit of the footer",
    "bit of a chunk, checksums mended",
    "cut at a chunk's border",
    "cut one byte beside a border",
    "cut anywhere",
    "chunks swapped, checksums mended",
    "chunk doubled, checksums mended",
    "chunk dropped, checksums mended",
    "header edited, checksums mended",
    "object of another backup or of another name",
];

/// One object of a backup as it is on disk.
struct Object {
    path: PathBuf,
    bytes: Vec<u8>,
    head: usize,
    chunk: usize,
}

impl Object {
    fn read(path: PathBuf) -> Self {
        let bytes = std::fs::read(&path).unwrap();
        let header = Header::read(&mut Cursor::new(&bytes)).unwrap();
        let (head, chunk) = (usize::try_from(header.len).unwrap(), header.spec.chunk_size as usize + TAG);
        Self { path, bytes, head, chunk }
    }
    fn end(&self) -> usize {
        self.bytes.len() - FOOTER
    }
    fn chunks(&self) -> Vec<&[u8]> {
        self.bytes[self.head..self.end()].chunks(self.chunk).collect()
    }
    /// The object with these of its chunks, its plain checksums made right again.
    fn spliced(&self, order: &[usize]) -> Vec<u8> {
        let chunks = self.chunks();
        let mut out = self.bytes[..self.head].to_vec();
        order.iter().for_each(|i| out.extend_from_slice(chunks[*i]));
        out.extend_from_slice(&self.bytes[self.end()..]);
        mend(&mut out, self.head);
        out
    }
}

/// The bytes of a damaged object; none when this one has nothing of the kind to damage.
fn mutation(class: usize, o: &Object, others: &[Object], rng: &mut Rng) -> Option<Vec<u8>> {
    let (len, end) = (o.bytes.len(), o.end());
    let core = usize::from(u16::from_be_bytes([o.bytes[10], o.bytes[11]]));
    let flipped = |rng: &mut Rng, range: std::ops::Range<usize>| {
        let mut b = o.bytes.clone();
        b[range.start + rng.below(range.len())] ^= 1 << rng.below(8);
        b
    };
    let n = o.chunks().len();
    let all: Vec<usize> = (0..n).collect();
    let border = |rng: &mut Rng| (o.head + rng.below(n + 1) * o.chunk).min(end);
    let changed = match class {
        0 => flipped(rng, 0..core),
        1 => flipped(rng, core..o.head - 40),
        2 => flipped(rng, o.head - 40..o.head),
        3 => flipped(rng, o.head..end),
        4 => flipped(rng, end..len),
        5 => {
            let mut b = flipped(rng, o.head..end);
            mend(&mut b, o.head);
            b
        }
        6 => o.bytes[..border(rng)].to_vec(),
        7 => o.bytes[..(border(rng) + 2 * rng.below(2)).saturating_sub(1)].to_vec(),
        8 => o.bytes[..rng.below(len)].to_vec(),
        9 => {
            let (i, j) = (rng.below(n), rng.below(n));
            let mut order = all;
            order.swap(i, j);
            o.spliced(&order)
        }
        10 => {
            let mut order = all;
            order.insert(rng.below(n), rng.below(n));
            o.spliced(&order)
        }
        11 => {
            let mut order = all;
            order.remove(rng.below(n));
            o.spliced(&order)
        }
        12 => {
            let mut b = o.bytes.clone();
            // The format's number, then every field of the core.
            let at = 8 + rng.below(core - 8);
            b[at] = b[at].wrapping_add(1 + u8::try_from(rng.below(254)).unwrap());
            mend(&mut b, o.head);
            b
        }
        _ => others[rng.below(others.len())].bytes.clone(),
    };
    (changed != o.bytes).then_some(changed)
}

fn objects(folder: &Path) -> Vec<Object> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    found.into_iter().map(Object::read).collect()
}

#[test]
fn no_damage_gets_past_the_restore() {
    let c = cluster();
    c.sql("postgres", "create database mutated");
    c.sql(
        "mutated",
        "create table t as select n, md5(n::text) || md5((n * 7)::text) as x from generate_series(1, 30000) n",
    );
    let dir = tempfile::tempdir().unwrap();
    let (d, url) = (dir.path(), url(&c, "mutated"));
    let (_, unlocked, _) = repository(d);
    let made = |n: usize| {
        c.sql("mutated", &format!("insert into t values ({n}, 'before the next one')"));
        json(d, &url, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string()
    };
    let (first, second) = (made(1), made(2));
    let folder = |id: &str| d.join("repo/backups").join(id);
    let mut targets = objects(&folder(&second));
    assert_eq!(targets.len(), 4, "dump, globals, inventory, manifest");
    targets.extend(objects(&d.join("repo/catalog")));
    let others = objects(&folder(&first));

    let at = c.database("mutated");
    let settings = Settings {
        database: Some(Connection {
            host: at.host().into(),
            port: at.port(),
            user: "postgres".into(),
            database: "mutated".into(),
            sslmode: None,
        }),
        repository: Some(d.join("repo").display().to_string()),
        run_as: server_user().map(|u| u.name),
        ..Settings::default()
    };
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, passphrase());
    let ctx = Ctx::new(settings, secrets, Arc::new(Nowhere));
    let args = [second.clone(), "--into".into(), "mutated_back".into()];
    let there = || c.sql("postgres", "select count(*) from pg_database where datname like '%mutated_back%'");

    // A damaged entry keeps nobody from a backup that is whole; every reader says so, and nobody writes.
    let entry = |o: &Object| o.path.parent().is_some_and(|folder| folder.ends_with("catalog"));
    let seen = || Catalog::load(&unlocked).unwrap().damage().is_some();
    let mut rng = Rng::new();
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for (class, name) in CLASSES.iter().enumerate() {
        let mut tried = 0;
        while made.get(name).copied().unwrap_or(0) < per_class() {
            let o = &targets[(tried + class) % targets.len()];
            tried += 1;
            assert!(tried < 40 * per_class(), "{name}: nothing to damage");
            let Some(bytes) = mutation(class, o, &others, &mut rng) else { continue };
            let n = made.entry(name).or_default();
            *n += 1;
            std::fs::write(&o.path, &bytes).unwrap();
            if entry(o) {
                assert!(seen(), "{name} of {:?}: unseen", o.path);
                std::fs::write(&o.path, &o.bytes).unwrap();
                continue;
            }
            let end = block_on(BackupRestore.run(&ctx, &args));
            assert!(end.is_err(), "{name} of {:?}: restored", o.path);
            assert_eq!(there(), "0", "{name} of {:?}: {:?}", o.path, end.err());
            // The whole program, once a class: its exit code.
            if *n == 1 {
                let out = program(d, &url, &[], &["backup", "restore", &second, "--into", "mutated_back"]);
                assert!(out.status.code().is_some_and(|code| code != 0), "{name}: {}", text(&out));
            }
            std::fs::write(&o.path, &o.bytes).unwrap();
        }
    }
    let sum: usize = made.values().sum();
    println!("{sum} mutations, each refused: {made:?}");
    assert!(sum >= CLASSES.len() * per_class(), "{made:?}");
    // An object that is gone, an entry of the catalog that is gone. Without its last entry, which says that the backup was
    // verified, it is as it was a moment before that: what notices is the anchor (`backup::catalog`), the backup is whole.
    let (last, gone) = targets.split_last().unwrap();
    assert!(last.path.ends_with("catalog/00000004.bgo"), "{:?}", last.path);
    for o in gone {
        std::fs::remove_file(&o.path).unwrap();
        assert!(if entry(o) { seen() } else { block_on(BackupRestore.run(&ctx, &args)).is_err() }, "{:?}", o.path);
        std::fs::write(&o.path, &o.bytes).unwrap();
    }
    assert_eq!(there(), "0");
    block_on(BackupRestore.run(&ctx, &args)).unwrap();
    assert_eq!(c.sql("mutated_back", "select count(*) from t"), "30002", "the undamaged one restores");
}
