//! Cut, flipped, swapped and missing segments: always a clear error with segment and position, never a silent end.

use breakglass::postgres::wal::{Reader, Stop, Tail};
use breakglass::recovery::wal_locate::{NameMap, Rules, Segment, locate};

use super::fixture::fixture;

fn whole() -> Vec<Segment> {
    let mut segments = fixture().segments();
    // The last one ends somewhere; all before it are as an archive holds them.
    segments.pop();
    segments
}

fn read(segments: &[Segment]) -> Result<u64, breakglass::postgres::wal::Damage> {
    let mut reader = Reader::new();
    let mut records = 0;
    for s in segments {
        let stop = reader.segment(&s.name, &s.bytes, Tail::Whole, |_| {
            records += 1;
            Ok(())
        })?;
        assert_eq!(stop, Stop::Full);
    }
    Ok(records)
}

/// Where the records of a segment stand, and where its void after a switch begins.
fn used(segments: &[Segment], which: usize) -> usize {
    let mut reader = Reader::new();
    let mut end = 0;
    for (i, s) in segments.iter().enumerate().take(which + 2) {
        let base = breakglass::postgres::Lsn::of_segment(&s.name, 1 << 20).unwrap().1.0;
        reader
            .segment(&s.name, &s.bytes, Tail::Whole, |r| {
                if i == which {
                    end = (r.end.0 - base) as usize;
                } else if i == which + 1 && r.lsn.0 < base {
                    end = 1 << 20;
                }
                Ok(())
            })
            .unwrap();
    }
    end.min(1 << 20)
}

#[test]
fn every_flipped_bit_in_a_finished_segment_is_seen() {
    let segments = whole();
    assert!(segments.len() >= 3);
    read(&segments).unwrap();
    let which = 1;
    let three = &segments[..3];
    let used = used(three, which);
    assert!(used > 1 << 19, "{used}");
    let mut seen = 0;
    // A prime step walks over headers, lengths, bodies, padding and page headers alike.
    for at in (0..used).step_by(4099) {
        let mut copy = three.to_vec();
        copy[which].bytes[at] ^= 1 << (at % 8);
        match read(&copy) {
            Err(d) => {
                seen += 1;
                let base = breakglass::postgres::Lsn::of_segment(&copy[which].name, 1 << 20).unwrap().1.0;
                assert!(!d.why.is_empty());
                // Named where it is, or at the record that holds it, which may have begun in the segment before; a record
                // that crosses into the next is seen to be wrong there.
                assert!(d.lsn.0 <= base + at as u64, "{d:?} {at}");
                assert!(copy.iter().any(|s| s.name == d.segment), "{d:?}");
                let text = breakglass::error::Error::from(d.clone()).to_string();
                assert!(text.contains(&d.segment) && text.contains(&d.lsn.to_string()), "{text}");
            }
            // Alignment gaps and unused header bytes carry nothing.
            Ok(n) => assert_eq!(n, read(three).unwrap(), "byte {at} was flipped and records were lost in silence"),
        }
    }
    assert!(seen > used / 4099 * 9 / 10, "only {seen} of {} flips seen", used / 4099);
}

#[test]
fn cut_missing_swapped_and_foreign_segments_are_named() {
    let segments = whole();
    for keep in [0, 1, 39, 8191, 8192, 100_000, (1 << 20) - 1] {
        let mut copy = segments[..3].to_vec();
        copy[1].bytes.truncate(keep);
        let d = read(&copy).unwrap_err();
        assert_eq!(d.segment, copy[1].name, "cut to {keep}");
        let base = breakglass::postgres::Lsn::of_segment(&copy[1].name, 1 << 20).unwrap().1.0;
        assert!(d.lsn.0 >= base && d.lsn.0 <= base + keep as u64, "cut to {keep}: {d:?}");
    }
    // One left out.
    let d = read(&[segments[0].clone(), segments[2].clone()]).unwrap_err();
    assert!(d.why.contains(&segments[1].name), "{d:?}");
    // The bytes of another under its name.
    let mut copy = segments[..3].to_vec();
    copy[1].bytes = segments[2].bytes.clone();
    let d = read(&copy).unwrap_err();
    assert_eq!(d.segment, segments[1].name);
    assert!(d.why.contains("the page says it is"), "{d:?}");
    // Another cluster's.
    let mut copy = segments[..3].to_vec();
    copy[1].bytes[24] ^= 1;
    assert!(read(&copy).unwrap_err().why.contains("of cluster"));
    // Zeros in the middle, as a file system after a crash leaves them.
    let mut copy = segments[..3].to_vec();
    copy[1].bytes[8192 * 40..8192 * 60].fill(0);
    let d = read(&copy).unwrap_err();
    assert!(d.why.contains("never written") || d.why.contains("continued"), "{d:?}");
    // Bytes too many.
    let mut copy = segments[..2].to_vec();
    copy[1].bytes.push(0);
    assert!(read(&copy).unwrap_err().why.contains("bytes"));
}

#[test]
fn where_the_log_may_end_damage_before_more_log_is_still_damage() {
    let segments = whole();
    let mut copy = segments[1].clone();
    copy.bytes[8192 * 50 + 3000] ^= 0x10;
    let d = Reader::new().segment(&copy.name, &copy.bytes, Tail::MayEnd, |_| Ok(())).unwrap_err();
    assert!(d.why.contains("goes on"), "{d:?}");
    // Cut at a page with zeros after it, as a crash leaves it: an end, and said where.
    let mut copy = segments[1].clone();
    copy.bytes[8192 * 50..].fill(0);
    let stop = Reader::new().segment(&copy.name, &copy.bytes, Tail::MayEnd, |_| Ok(())).unwrap();
    let Stop::End { at, why } = stop else { panic!() };
    assert!(!why.is_empty() && at.0 > 0);
}

#[test]
fn locate_goes_on_behind_damage_and_names_it() {
    let mut segments = whole();
    segments[2].bytes[500_000] ^= 0x20;
    segments.iter_mut().for_each(|s| s.may_end = false);
    let (name, start, last) = (segments[2].name.clone(), segments[2].start, segments.last().unwrap().name.clone());
    let report = locate(segments.into_iter().map(Ok), NameMap::new(), Rules::default()).unwrap().0;
    let [gap] = report.gaps.as_slice() else { panic!("{:?}", report.gaps) };
    assert_eq!(gap.segment, name);
    assert!(gap.from > start && gap.to.is_some() && gap.after.is_some() && gap.before >= gap.after, "{gap:?}");
    assert!(report.indexes.iter().any(|i| i.segment == last), "nothing behind it was read");
}
