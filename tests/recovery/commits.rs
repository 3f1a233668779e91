//! What `pg_waldump` prints of commits, over versions and kinds.

use breakglass::recovery::commits::{parse_commit, parse_point};

#[test]
fn commits_are_read_with_their_subtransactions_and_everything_else_is_not() {
    let c = parse_commit(
        "rmgr: Transaction len (rec/tot):     46/    46, tx:        738, lsn: 0/017A54F0, prev 0/017A54B0, desc: COMMIT \
         2026-11-21 00:28:08.580794 UTC; subxacts: 739 741; inval msgs: catcache 80 relcache 16389",
    )
    .unwrap();
    assert_eq!((c.xid, c.lsn.to_string().as_str(), c.subxids.as_slice()), (738, "0/17A54F0", &[739, 741][..]));
    assert_eq!(c.at.to_string(), "2026-11-21T00:28:08.580794Z");
    assert!(c.is(738) && c.is(741) && !c.is(740));
    let p = parse_commit(
        "rmgr: Transaction len (rec/tot):     98/    98, tx:          0, lsn: 1A/B0000060, prev 1A/B0000028, desc: \
         COMMIT_PREPARED 812: 2026-11-21 00:28:09.000001 UTC; subxacts: 813",
    )
    .unwrap();
    assert_eq!((p.xid, p.subxids.as_slice(), p.lsn.to_string().as_str()), (812, &[813][..], "1A/B0000060"));
    for other in [
        "rmgr: Transaction len (rec/tot): 34/34, tx: 7, lsn: 0/1, prev 0/0, desc: ABORT 2026-11-21 00:28:08.580794 UTC",
        "rmgr: Transaction len (rec/tot): 34/34, tx: 7, lsn: 0/1, prev 0/0, desc: PREPARE gid g: 2026-11-21 00:28:08 UTC",
        "rmgr: XLOG        len (rec/tot): 24/24, tx: 0, lsn: 0/017A5588, prev 0/017A5520, desc: SWITCH ",
        "pg_waldump: error",
        "",
    ] {
        assert!(parse_commit(other).is_none(), "{other}");
    }
    let r = "rmgr: XLOG len (rec/tot): 98/98, tx: 0, lsn: 0/017A5520, prev 0/017A54F0, desc: RESTORE_POINT rp one";
    let r = parse_point(r).unwrap();
    assert_eq!((r.name.as_str(), r.lsn.to_string().as_str()), ("rp one", "0/17A5520"));
}
