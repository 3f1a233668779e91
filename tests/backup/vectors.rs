//! Version 1 for good: objects written once and committed, which must open for ever, here and with a reader that
//! shares no code. `BREAKGLASS_WRITE_VECTORS=1` wrote them; a changed format must fail here, not be written anew.

use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use breakglass::backup::container::{Compression, Identity, ObjectType, Recipient, Spec, Writer, check_stored, hex};
use breakglass::backup::keys::KeyFile;
use breakglass::model::{Secret, Time};

use super::container::{REPO, expect, open, sample};
use super::{CHEAP, PASSPHRASE};

const SECRET: [u8; 32] = *b"a secret key that everyone knows";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/backup/vectors").join(name)
}

/// Name of the file, spec and plain bytes of each vector.
fn vectors() -> Vec<(&'static str, Spec, Vec<u8>)> {
    let make = |object, name: &str, compression, frame| {
        let mut spec = Spec::new(object, REPO, name, Time::from_micros(1_795_183_267_000_000));
        (spec.chunk_size, spec.frame_size, spec.compression) = (4096, frame, compression);
        (spec.system_identifier, spec.timeline) = (7_300_000_000_000_000_001, 3);
        spec
    };
    vec![
        (
            "stored.hex",
            make(ObjectType::WalHistory, "wal/history/00000003.history.bgo", Compression::None, 4096),
            b"1\t0/5A2F118\tno recovery target specified\n2\t0/6000000\tbefore 2026-11-20 14:01:07+00\n".to_vec(),
        ),
        (
            "zstd.hex",
            make(
                ObjectType::BaseBackup,
                "backups/20261120T1330Z-physical-7f3a19/base.tar.bgo",
                Compression::Zstd,
                8192,
            ),
            sample(20_000, 42),
        ),
        ("empty.hex", make(ObjectType::Files, "backups/x/files.bgo", Compression::Zstd, 4096), Vec::new()),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

#[test]
fn committed_objects_open() {
    let identity = Identity::from_secret(&SECRET);
    let write = std::env::var_os("BREAKGLASS_WRITE_VECTORS").is_some();
    for (i, (file, spec, plain)) in vectors().into_iter().enumerate() {
        if write {
            let to = if i == 1 { Recipient::Own(identity.clone()) } else { Recipient::Public(identity.public()) };
            let (salt, key) = ([0xA0 + i as u8; 32], [0xC0 + i as u8; 32]);
            let mut writer = Writer::with_key(Vec::new(), &spec, &[to], &salt, &key).unwrap();
            writer.write_all(&plain).unwrap();
            let (bytes, _) = writer.finish().unwrap();
            let lines: Vec<String> = bytes.chunks(60).map(hex).collect();
            std::fs::create_dir_all(path("")).unwrap();
            std::fs::write(path(file), lines.join("\n") + "\n").unwrap();
        }
        let bytes = unhex(&std::fs::read_to_string(path(file)).unwrap());
        let (out, end) = open(&bytes, std::slice::from_ref(&identity), &expect(&spec));
        end.unwrap();
        assert!(out == plain, "{file}");
        let stored = check_stored(Cursor::new(&bytes)).unwrap();
        let said = &stored.header.spec;
        assert_eq!((said.timeline, said.system_identifier), (spec.timeline, spec.system_identifier));
        assert_eq!(said.created_at, spec.created_at);
        // The deterministic one must also come out of today's writer byte for byte: readers of old releases read it.
        if i == 1 && !write {
            let to = [Recipient::Own(identity.clone())];
            let mut writer = Writer::with_key(Vec::new(), &spec, &to, &[0xA1; 32], &[0xC1; 32]).unwrap();
            writer.write_all(&plain).unwrap();
            let (again, _) = writer.finish().unwrap();
            let core = usize::from(u16::from_be_bytes([bytes[10], bytes[11]]));
            assert_eq!(again[..core + 130], bytes[..core + 130], "core, stanza and MAC");
        }
    }
}

#[test]
fn the_committed_key_file_unlocks() {
    let file = path("keys.json");
    if std::env::var_os("BREAKGLASS_WRITE_VECTORS").is_some() {
        let now = Time::from_micros(1_795_183_267_000_000);
        let (keys, _) = KeyFile::create(REPO, &Secret::new(PASSPHRASE), CHEAP, now).unwrap();
        std::fs::create_dir_all(path("")).unwrap();
        std::fs::write(&file, keys.to_bytes().unwrap()).unwrap();
    }
    let keys = KeyFile::parse(&std::fs::read(&file).unwrap(), &REPO).unwrap();
    assert_eq!(keys.unlock(&Secret::new(PASSPHRASE)).unwrap().len(), 1);
}

#[test]
fn an_independent_reader_reads_them() {
    // Debian's own interpreter has the module even where another comes first on the path.
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let imports = Command::new(python).args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
        imports.is_ok_and(|s| s.success())
    });
    let (Some(python), true) = (python, Command::new("zstd").arg("-V").stdout(Stdio::null()).status().is_ok()) else {
        eprintln!("NOT TESTED: the independent reader needs python3-cryptography and zstd, which .ci/run installs");
        return;
    };
    let reader = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/container_reader.py");
    assert!(std::fs::read_to_string(&reader).unwrap().lines().count() <= 80);
    let dir = tempfile::tempdir().unwrap();
    let object = dir.path().join("object");
    let run = |bytes: &[u8], name: &str, secret: &str| {
        std::fs::write(&object, bytes).unwrap();
        Command::new(python).arg(&reader).arg(&object).args([name, secret]).output().unwrap()
    };
    for (file, spec, plain) in vectors() {
        let bytes = unhex(&std::fs::read_to_string(path(file)).unwrap());
        let out = run(&bytes, &spec.name, &hex(&SECRET));
        assert!(out.status.success(), "{file}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout == plain, "{file}");
        assert!(!run(&bytes, &spec.name, &"11".repeat(32)).status.success(), "{file}: another key");
        // It must be able to fail: one bit in each part.
        for at in [40, bytes.len() - 200, bytes.len() - 1] {
            let mut b = bytes.clone();
            b[at] ^= 1;
            let out = run(&b, &spec.name, &hex(&SECRET));
            assert!(!out.status.success() && out.stdout.is_empty(), "{file}: byte {at}");
        }
    }
    // And what today's writer writes.
    let identity = Identity::from_secret(&SECRET);
    let mut spec = Spec::new(ObjectType::WalSegment, REPO, "wal/a.bgo", Time::from_micros(0));
    spec.chunk_size = 1 << 16;
    let plain = sample(3_000_000, 9);
    let bytes = super::container::seal(&spec, &[Recipient::Public(identity.public())], &plain);
    let out = run(&bytes, &spec.name, &hex(&SECRET));
    assert!(out.status.success() && out.stdout == plain, "{}", String::from_utf8_lossy(&out.stderr));
}
