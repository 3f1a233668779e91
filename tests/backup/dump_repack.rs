//! A dump's archive with its positions filled in: pg_restore reads from it what it reads from the original.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Command;

use breakglass::postgres::dump_repack::repack;

use super::logical::cluster;
use crate::support::cluster::{Cluster, programs};

/// `pg_dump -Fc -Z0` through a pipe, as `backup create` takes it.
fn piped_dump(c: &Cluster, name: &str) -> Vec<u8> {
    let mut command = Command::new(programs().path("pg_dump"));
    command.args(["-Fc", "-Z0"]).env_clear().current_dir("/");
    for (key, value) in c.database(name).tool_env() {
        command.env(key, value.expose());
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// What `pg_restore` makes of an archive, as SQL.
fn script(archive: &Path) -> String {
    let out = Command::new(programs().path("pg_restore")).arg("-f").arg("-").arg(archive).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter(|l| !l.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

fn repacked(archive: &[u8], to: &Path) -> bool {
    let out = File::options().read(true).write(true).create(true).truncate(true).open(to).unwrap();
    // A small buffer: lengths, states and rows lie across its ends.
    repack(&mut BufReader::with_capacity(1009, archive), &out, &mut |_| true).unwrap()
}

#[test]
fn the_same_archive_with_positions() {
    let c = cluster();
    let name = "archive positions";
    c.sql("postgres", &format!("create database \"{name}\""));
    c.sql(
        name,
        "create table small as select n, 'row ' || n as t from generate_series(1, 5000) n; create table empty (x int); \
         create table long (id int, t text); \
         insert into long values (1, 'begins' || repeat('x', 300000)), (2, repeat('y', 262144)), (3, repeat('z', 700001)), (4, 'ends'); \
         select lo_from_bytea(0, convert_to(repeat('large object ', 50000), 'UTF8')), lo_from_bytea(0, ''), lo_from_bytea(0, 'x'); \
         create index on small (n)",
    );
    let archive = piped_dump(&c, name);
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (dir.path().join("piped"), dir.path().join("positions"));
    std::fs::write(&before, &archive).unwrap();
    assert!(repacked(&archive, &after), "the installed pg_dump's archive is known");
    let original = script(&before);
    assert!(original.contains("row 4999") && original.contains("begins") && original.contains("lo_create"));
    assert!(original == script(&after), "pg_restore reads the same from both");

    // Each block stands where its entry says: a block begins eleven bytes before its first row's text.
    let mut bytes = Vec::new();
    File::open(&after).unwrap().read_to_end(&mut bytes).unwrap();
    for first in [&b"1\trow 1\n"[..], b"1\tbeginsxxx"] {
        let at = bytes.windows(first.len()).position(|w| w == first).unwrap() - 11;
        let mut state = vec![2u8];
        state.extend_from_slice(&(at as u64).to_le_bytes());
        assert!(bytes[..at].windows(9).any(|w| w == state), "no entry names {at}");
    }
    // Five thousand rows are no longer five thousand pieces.
    assert!(bytes.len() + 4990 * 5 < archive.len(), "{} of {}", bytes.len(), archive.len());
}

#[test]
fn what_is_not_known_is_left_alone() {
    let c = cluster();
    let name = "archive unknown";
    c.sql("postgres", &format!("create database \"{name}\""));
    c.sql(name, "create table t as select n from generate_series(1, 50) n");
    let archive = piped_dump(&c, name);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    for (at, value) in [(0, b'X'), (5, 2), (6, 11), (6, 99), (8, 8), (9, 4), (10, 3)] {
        let mut other = archive.clone();
        assert_ne!(other[at], value);
        other[at] = value;
        assert!(!repacked(&other, &to), "byte {at} is {value}");
    }
    // Cut inside a block or the contents it is not understood; cut between blocks it would be an archive of less.
    let whole = repacked(&archive, &to);
    assert!(whole);
    let blocks = archive.len() - 50 * 7;
    for n in (0..archive.len()).step_by(97).chain(blocks..archive.len() - 1) {
        let _ = repacked(&archive[..n], &to);
    }
    assert!(!repacked(&archive[..archive.len() - 1], &to));
    let mut longer = archive.clone();
    longer.push(9);
    assert!(!repacked(&longer, &to), "a block of an unknown kind");
    // Who stops it is obeyed.
    let out = File::options().write(true).create(true).truncate(true).open(&to).unwrap();
    assert!(repack(&mut &archive[..], &out, &mut |_| false).is_err());
}
