//! Input from anywhere: no parser may panic, run away or take what it does not understand.

use std::io::Cursor;

use breakglass::backup::base::manifest::PgManifest;
use breakglass::backup::base::store_base;
use breakglass::backup::container::{Compression, Header, Identity, ObjectType, Reader, Recipient, check_stored};
use breakglass::backup::keys::KeyFile;
use breakglass::backup::store::directory_of;
use breakglass::backup::wal::{Segment, WalName, format_lsn, parse_lsn};
use proptest::prelude::*;

use super::base::{files, stream};
use super::container::{REPO, expect, seal, spec};
use super::repository;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_object(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Header::read(&mut Cursor::new(&bytes)).is_err());
        prop_assert!(check_stored(Cursor::new(&bytes)).is_err());
        prop_assert!(PgManifest::parse(&bytes).is_err());
        prop_assert!(KeyFile::parse(&bytes, &REPO).is_err());
    }

    /// Lengths and counts are what a parser trips over: several bytes of a real header replaced.
    #[test]
    fn edited_headers_are_refused(edits in prop::collection::vec((0usize..330, any::<u8>()), 1..6)) {
        let identity = Identity::from_secret(&[5; 32]);
        let spec = spec(ObjectType::WalSegment, "wal/a.bgo", 4096, 4096, Compression::None);
        let good = seal(&spec, &[Recipient::Public(identity.public())], b"plain");
        let mut bytes = good.clone();
        for (at, b) in edits {
            let at = at % bytes.len();
            bytes[at] = b;
        }
        if bytes != good {
            prop_assert!(check_stored(Cursor::new(&bytes)).is_err());
            let opened = Reader::open(Cursor::new(&bytes), &[identity], &expect(&spec)).and_then(Reader::finish);
            prop_assert!(opened.is_err());
        }
    }

    #[test]
    fn names_are_taken_as_written_or_not_at_all(text in "[0-9A-Fa-fé.xhistorypalbcku/]{0,40}", n: u64, lsn: u64) {
        if let Ok(name) = WalName::parse(&text) {
            prop_assert_eq!(name.to_string(), text.clone());
            prop_assert_eq!(WalName::from_object(&name.object()), Some(name));
        }
        let _ = (Segment::parse(&text), parse_lsn(&text), directory_of(&text, true));
        prop_assert_eq!(parse_lsn(&format_lsn(lsn)), Some(lsn));
        for size in [1u32 << 20, 16 << 20, 1 << 30] {
            let number = n % (u64::MAX / u64::from(size));
            let s = Segment::from_number(7, number, size);
            prop_assert_eq!(s.number(size), number);
            prop_assert_eq!(Segment::parse(&s.to_string()), Some(s));
            prop_assert_eq!(Segment::at(7, s.start_lsn(size), size), s);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A tar stream with a few bytes replaced is a whole backup of right files, or none.
    #[test]
    fn edited_streams_are_refused_or_right(edits in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let (repository, unlocked, _) = repository(dir.path());
        let mut tar = stream(&files(1));
        for (at, b) in edits {
            let at = at % tar.len();
            tar[at] = b;
        }
        // What is not covered by a checksum is times, owners and padding: such a stream may be taken.
        let _ = store_base(&unlocked, &mut Cursor::new(&tar), None, &mut |_| Ok(()));
        prop_assert!(repository.store().list("backups/").unwrap().is_empty());
    }
}

#[test]
fn names_that_are_not_ascii_are_no_segments() {
    for text in ["éééééééééééé", "0000000é000000000000000", "00000001000000000000000+", "0000000100000000000000ff"]
    {
        assert!(WalName::parse(text).is_err(), "{text}");
        assert!(Segment::parse(text).is_none(), "{text}");
    }
    for text in ["+1/0", "0/", "/", "1/000000001", "0x1/0"] {
        assert_eq!(parse_lsn(text), None, "{text}");
    }
}
