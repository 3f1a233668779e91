//! Every record as `pg_waldump` sees it, and every checksum.

use std::process::Command;

use breakglass::postgres::wal::record::rmgr;
use breakglass::postgres::wal::{Layout, Reader, Stop, Tail};

use super::fixture::fixture;
use crate::support::cluster::programs;

/// (resource manager, total length, transaction, position, previous position) of a line of pg_waldump.
fn parse(line: &str) -> (String, usize, u32, String, String) {
    let rmgr = line["rmgr: ".len()..].split_whitespace().next().unwrap().to_string();
    let after = |key: &str| line[line.find(key).unwrap() + key.len()..].trim_start().to_string();
    let total = after("len (rec/tot):");
    let total = total.split_once('/').unwrap().1.trim_start().split(',').next().unwrap().parse().unwrap();
    let tx = after("tx:").split(',').next().unwrap().parse().unwrap();
    let lsn = after("lsn:").split(',').next().unwrap().to_string();
    let prev = after("prev ").split(',').next().unwrap().to_string();
    (rmgr, total, tx, lsn, prev)
}

/// pg_waldump pads the low half to eight digits.
fn padded(lsn: breakglass::postgres::Lsn) -> String {
    format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF)
}

#[test]
fn records_are_those_of_pg_waldump() {
    let f = fixture();
    let segments = f.segments();
    assert!(segments.len() > 5, "{}", segments.len());
    let (first, last) = (&segments[0].name, &segments[segments.len() - 1].name);
    let out = Command::new(programs().path("pg_waldump")).arg("-p").arg(&f.wal).arg(first).arg(last).output().unwrap();
    // The last record of an unfinished log makes it exit 1; its lines are what counts.
    let theirs: Vec<_> = String::from_utf8_lossy(&out.stdout).lines().map(parse).collect();
    let mut ours = Vec::new();
    let mut reader = Reader::new();
    let mut layout = Layout::default();
    let mut stop = Stop::Full;
    let mut last_read = String::new();
    for s in &segments {
        let tail = if s.may_end { Tail::MayEnd } else { Tail::Whole };
        stop = reader
            .segment(&s.name, &s.bytes, tail, |r| {
                layout.read(r)?;
                last_read = r.lsn.to_string();
                let name = rmgr::name(r.rmgr).unwrap().to_string();
                ours.push((name, r.body.len() + 24, r.xid, padded(r.lsn), padded(r.prev)));
                Ok(())
            })
            .unwrap();
    }
    assert!(theirs.len() > 10_000, "{}", theirs.len());
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(a, b);
    }
    assert_eq!(ours.len(), theirs.len());
    // Both see the end at the same place.
    let Stop::End { at, .. } = stop else { panic!("{stop:?}") };
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    // Where a page ends with the log it names the record before, and its errors pad nothing.
    let last = theirs.last().unwrap().3.clone();
    assert!(
        err.contains(&last) || err.contains(&last_read) || err.contains(&padded(at)) || err.contains(&at.to_string()),
        "{err} {at}"
    );
    assert_eq!(reader.version().unwrap().major(), programs().major);
    assert_eq!(reader.segment_bytes(), 1 << 20);
}

#[test]
fn reading_may_begin_at_any_segment() {
    let f = fixture();
    let segments = f.segments();
    let mut all: Vec<u64> = Vec::new();
    let mut reader = Reader::new();
    for s in &segments {
        let tail = if s.may_end { Tail::MayEnd } else { Tail::Whole };
        reader
            .segment(&s.name, &s.bytes, tail, |r| {
                all.push(r.lsn.0);
                Ok(())
            })
            .unwrap();
    }
    for from in [1, segments.len() / 2, segments.len() - 1] {
        let mut part: Vec<u64> = Vec::new();
        let mut reader = Reader::new();
        for s in &segments[from..] {
            let tail = if s.may_end { Tail::MayEnd } else { Tail::Whole };
            reader
                .segment(&s.name, &s.bytes, tail, |r| {
                    part.push(r.lsn.0);
                    Ok(())
                })
                .unwrap();
        }
        let at = all.iter().position(|l| l == &part[0]).unwrap();
        assert_eq!(&all[at..], &part[..], "from segment {from}");
    }
}
