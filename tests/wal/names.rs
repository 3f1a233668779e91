//! Names: learnt from the log alone, kept over time, carried through documents.

use breakglass::postgres::Lsn;
use breakglass::postgres::wal::RelFile;
use breakglass::recovery::wal_locate::{NameMap, Relation, Rules, locate};

use super::fixture::{ROUNDS, fixture};

fn relation(oid: u32, name: &str) -> Relation {
    Relation {
        oid,
        schema_oid: 2200,
        schema: Some("public".into()),
        name: name.into(),
        kind: 'r',
        persistence: 'p',
        root: None,
        rows: Some(10),
    }
}

fn file(number: u32) -> RelFile {
    RelFile { tablespace: 1663, database: 5, file: number }
}

#[test]
fn the_name_is_that_of_the_position() {
    let mut map = NameMap::new();
    map.learn(Lsn(100), file(20000), relation(20000, "first"));
    map.learn(Lsn(200), file(20000), relation(20000, "second"));
    map.learn(Lsn(300), file(20001), relation(20000, "second"));
    let name = |lsn| map.relation(file(20000), Lsn(lsn)).unwrap().name.clone();
    assert_eq!([name(50), name(100), name(199), name(200), name(900)], ["first", "first", "first", "second", "second"]);
    assert_eq!(map.file_of(5, 20000), Some(file(20001)));
    assert_eq!(map.relation(file(9), Lsn(1)), None);
    // What only the server knows stays when the log tells the rest.
    let mut told = relation(20000, "third");
    (told.schema, told.rows) = (None, None);
    map.learn(Lsn(400), file(20001), told);
    let r = map.relation(file(20001), Lsn(400)).unwrap();
    assert_eq!((r.rows, map.full_name(5, r, Lsn(400))), (Some(10), "public.third".to_string()));
    let back = NameMap::from_bytes(&map.to_bytes().unwrap()).unwrap();
    assert_eq!(back, map);
    assert!(NameMap::from_bytes(b"{\"v\":2,\"snapshots\":[],\"databases\":[],\"schemas\":[],\"files\":[]}").is_err());
    assert!(NameMap::from_bytes(b"[]").is_err());
}

#[test]
fn a_map_learnt_from_the_server_survives_its_document() {
    let names = &fixture().names;
    assert!(names.len() > 300, "{}", names.len());
    assert_eq!(names.snapshots().len(), 1);
    assert_eq!(&NameMap::from_bytes(&names.to_bytes().unwrap()).unwrap(), names);
}

#[test]
fn the_log_alone_teaches_the_names_of_what_was_made_in_it() {
    // The log begins with initdb's, so every table was made in it: without any map all have their names.
    let f = fixture();
    let (report, learnt) = locate(f.segments().into_iter().map(Ok), NameMap::new(), Rules::default()).unwrap();
    for r in 0..ROUNDS {
        for (label, table) in [
            ("drop", format!("public.dro{r}")),
            ("ephemeral", format!("public.eph{r}")),
            ("truncate", format!("public.tru{r}")),
            ("schema", format!("sch{r}.a")),
            ("renamed", format!("public.renamed{r}")),
            ("delete", format!("public.del{r}")),
        ] {
            let xid = f.xid(&format!("{label}{r}"));
            let s = report.suspects.iter().find(|s| s.xid == xid).unwrap_or_else(|| panic!("{label}{r}"));
            assert!(s.tables().contains(&table), "{label}{r}: {:?}", s.tables());
            assert_eq!(s.database.as_deref(), Some("shop"));
        }
    }
    assert!(learnt.len() > 200, "{}", learnt.len());
    // Nothing harmless is taken for a loss for want of a map.
    let known: Vec<u32> = f.tagged.iter().map(|t| t.xid).collect();
    let wrong: Vec<_> = report
        .suspects
        .iter()
        .filter(|s| !known.contains(&s.xid) && !s.what().contains("DATABASE"))
        .map(|s| s.what())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
