//! A moment that keeps damage, promoted all the same; then an earlier one of the same repository, promoted in its place.

use std::path::Path;
use std::sync::Arc;

use breakglass::action::pitr_promote::Promote;
use breakglass::action::pitr_restore::Restore;
use breakglass::action::pitr_verify::Verify;
use breakglass::action::{Action, Ctx, Done, Nowhere, Preview, look};
use breakglass::backup::base::verify_backup;
use breakglass::config::Secrets;
use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::incident::{Now, State};
use breakglass::model::event::{Check, Event, Kind, Verdict};
use breakglass::model::plan::Risk;
use breakglass::model::target::{Candidate, Loss, RecoveryTarget};
use breakglass::model::{Actor, Digest, IncidentId, Record, Secret};
use breakglass::postgres::Stop;
use breakglass::recovery::shadow::Shadow;

use super::shop::{SCHEMA, damage, now, script, traffic};
use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{LIMIT, block_on, psql, server_user};
use crate::support::records::next;

/// An incident without a worker: what the actions learn is folded at once.
struct Desk {
    ctx: Ctx,
    records: Vec<Record>,
}

impl Desk {
    fn record(&mut self, events: Vec<Event>) {
        let n = self.records.len() as u64 + 1;
        let now = Now { time: Default::default(), up_ms: n, boot: "b".into() };
        self.records.push(next(&self.records, &now, &Actor::new("amy@bastion"), "observe", events));
        self.ctx.incident = State::fold(&self.records).map(Arc::new);
    }
    fn run(&mut self, action: &dyn Action, args: &[&str]) -> Done {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let done = block_on(action.run(&self.ctx, &args)).unwrap();
        self.record(done.facts.clone());
        done
    }
    fn state(&self) -> &State {
        self.ctx.incident.as_ref().unwrap()
    }
    fn choose(&mut self, target: RecoveryTarget) {
        self.record(vec![Event::MomentChosen { target, at: None, loses: None }]);
    }
    fn checks(&self) -> &[Check] {
        &self.state().facts.verified.as_ref().unwrap().1
    }
    fn check(&self, name: &str) -> &Check {
        self.checks().iter().find(|c| c.name == name).unwrap()
    }
    fn shadow(&self) -> Shadow {
        Shadow::load(Path::new(&self.state().facts.shadow.as_ref().unwrap().data_directory).parent().unwrap()).unwrap()
    }
}

#[test]
fn a_wrong_moment_in_service_is_seen_and_replaced_by_an_earlier_one() {
    let a = Archived::start("again");
    let db = a.cluster.database("postgres");
    script(&db, SCHEMA);
    let backup = a.base_backup();
    traffic(&db, 3);
    let before = now(&db);
    let first = damage(&db, "id % 3 = 1 and id <= 500");
    traffic(&db, 2);
    let between = now(&db);
    let second = damage(&db, "id % 3 = 1 and id > 500 and id <= 1000");
    traffic(&db, 1);
    a.archive_now();

    let instances = a.room.path.join("instances");
    breakglass::postgres::user::own_dir(&instances, server_user().as_ref()).unwrap();
    let folder = a.room.path.join("incident");
    std::fs::create_dir(&folder).unwrap();
    let target = RecoveryTarget::Xid(first.clone());
    let xids: Vec<u32> = [&first, &second].iter().map(|x| x.parse().unwrap()).collect();
    std::fs::write(folder.join("moments.json"), serde_json::to_string(&vec![(target.clone(), &xids)]).unwrap())
        .unwrap();
    let settings = a.settings(&instances);
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, Secret::new(PASSPHRASE));
    let ctx = Ctx {
        incident_dir: Some(folder),
        confirmed: Some("postgres".into()),
        ..Ctx::new(settings, secrets, Arc::new(Nowhere))
    };
    let mut d = Desk { ctx, records: Vec::new() };
    let candidate = Candidate {
        target: target.clone(),
        at: before,
        xid: Some(first.clone()),
        lsn: None,
        tables: vec!["public.orders".into()],
        rows: 333,
        what: "333 rows by 2 transactions".into(),
        loses: Loss::default(),
    };
    let opened = Event::IncidentOpened {
        id: IncidentId::new("20261120T1400Z-database-corruption-7f3a"),
        kind: Kind::Drill,
        scenario: "database-corruption".into(),
        title: "Database corruption".into(),
        plan: Digest::new("d".repeat(64)),
        severity: None,
        rto_ms: None,
        rpo_ms: None,
        program: "0.1.0".into(),
        target: None,
        expect: Default::default(),
    };
    d.record(vec![opened, Event::MomentsFound { candidates: vec![candidate] }]);

    // A look at what destroys sees who the target is, and the repository's backup once it was read back.
    let destroys = |d: &Desk| {
        let mut preview = Preview::default();
        block_on(look::complete(&d.ctx, Risk::Destroy, &mut preview));
        preview
    };
    let preview = destroys(&d);
    assert!(preview.target.is_some_and(|t| t.database == "postgres"));
    assert!(matches!(&preview.facts[..], [Event::TargetSeen { role, .. }] if role == "source"), "{:?}", preview.facts);
    assert!(preview.lines.iter().any(|l| l.contains("no verified backup")), "{:?}", preview.lines);
    verify_backup(&a.unlocked, &backup, &mut |_| Ok(())).unwrap();
    let facts = destroys(&d).facts;
    let young = facts.iter().any(
        |f| matches!(f, Event::BackupTaken { id, verified: true, taken_at: Some(at), .. } if *id == backup && *at < before),
    );
    assert!(young, "{facts:?}");
    d.record(facts);
    assert_eq!(destroys(&d).facts.len(), 1, "what is known is not looked up again");

    // Typed by hand, between the two batches: said when it stands there, and the verification fails.
    let wrong = format!("time:{between}");
    d.choose(wrong.parse().unwrap());
    let preview = block_on(Restore.preview(&d.ctx, &["--to".into(), wrong.clone()])).unwrap();
    assert!(preview.lines.iter().any(|l| l.contains("KEEPS DAMAGE")), "{:?}", preview.lines);
    let done = d.run(&Restore, &["--to", &wrong]);
    assert!(done.summary.contains("KEEPS 1 of 2 suspect transactions"), "{}", done.summary);
    let done = d.run(&Verify, &[]);
    assert_eq!(done.exit_code, 1, "{}", done.summary);
    assert_eq!(d.check("damage gone").verdict, Verdict::Failed);

    // Promoted all the same; orders are taken on it.
    d.run(&Promote, &[]);
    let first_shadow = d.shadow();
    let in_service = first_shadow.database("postgres").unwrap();
    let count = "select count(*) from orders where address = 'see invoice'";
    assert_ne!(psql(&in_service, count).unwrap(), "0");
    traffic(&in_service, 2);
    let done = d.run(&Promote, &[]);
    assert_eq!(done.exit_code, 0, "a second time it only looks after it: {}", done.summary);
    assert!(first_shadow.instance().unwrap().is_running());

    // Back to the right moment, out of the same repository.
    d.choose(target.clone());
    assert!(d.state().facts.going_back);
    let done = d.run(&Restore, &["--to", &target.to_string()]);
    assert!(!done.summary.contains("KEEPS"), "{}", done.summary);
    assert!(first_shadow.instance().unwrap().is_running(), "until the promotion nobody takes anything out of service");
    let done = d.run(&Verify, &[]);
    assert_eq!(done.exit_code, 0, "{}: {:?}", done.summary, d.checks());
    assert_eq!(d.check("damage gone").verdict, Verdict::Passed);
    assert_eq!(d.check("rows").verdict, Verdict::Passed, "compared with what is in service");
    let preview = block_on(Promote.preview(&d.ctx, &[])).unwrap();
    let stops = first_shadow.root.join("data").display().to_string();
    assert!(preview.lines.iter().any(|l| l.contains("stops") && l.contains(&stops)), "{:?}", preview.lines);
    let done = d.run(&Promote, &[]);
    assert_eq!(done.exit_code, 0, "{}", done.summary);
    assert!(!first_shadow.instance().unwrap().is_running(), "the wrong one is fenced");
    assert!(!a.cluster.instance.is_running(), "the damaged one still is");
    let shadow = d.shadow();
    let right = shadow.database("postgres").unwrap();
    assert_eq!(psql(&right, count).unwrap(), "0");
    let (identity, kept, _) = d.state().facts.promoted.clone().unwrap();
    assert_eq!((identity.timeline, kept), (3, stops));
    let most = "select max(id) from orders";
    traffic(&right, 1);
    assert!(psql(&right, most).unwrap().parse::<u32>().unwrap() > 1007, "no number of the wrong one comes twice");
    shadow.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}
