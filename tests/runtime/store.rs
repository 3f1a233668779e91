//! The state directory: making, listing and finding incidents, plans and their digests, history.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use breakglass::config::Config;
use breakglass::incident::Command;
use breakglass::model::{StepId, Time};
use breakglass::runtime::{History, Incident, Opening, Store};

use super::{Desk, opening};

#[test]
fn an_incident_is_a_directory() {
    let d = Desk::new();
    let id = d.incident.id().as_str();
    let (time, rest) = id.split_once('-').unwrap();
    assert!(time.len() == 14 && time.ends_with('Z') && time.contains('T'), "{id}");
    let tail = rest.strip_prefix("test-scenario-").unwrap();
    assert!(tail.len() == 4 && tail.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let state = d.incident.state().unwrap();
    let folder = d.incident.dir().join("plan").join(state.plan.as_str());
    assert_eq!(std::fs::read(folder.join("plan.md")).unwrap(), b"# Plan\n");
    assert!(folder.join("plan.json").is_file());
    assert_eq!(d.store.ids().unwrap(), [d.incident.id().clone()]);
    let again = d.store.incident(d.incident.id(), Default::default()).unwrap();
    assert_eq!(again.state().unwrap(), state);
    assert_eq!(again.plan(), d.incident.plan());
}

#[test]
fn incidents_are_found_by_any_clear_name() {
    let d = Desk::new();
    let second = d.store.create(opening()).unwrap();
    let id = second.id().as_str();
    assert_eq!(d.store.find(Some(id)).unwrap().as_str(), id);
    assert_eq!(d.store.find(Some(&id[id.len() - 4..])).unwrap().as_str(), id);
    let e = d.store.find(Some("20")).unwrap_err();
    assert!(e.kind.exit_code() == 2 && e.why.contains(id), "{e}");
    assert_eq!(d.store.find(Some("nothing")).unwrap_err().kind.exit_code(), 2);
    assert!(d.store.find(None).is_ok());
    assert!(Store::at(d.home.path().join("empty")).find(None).is_err());
}

#[test]
fn a_changed_or_lost_plan_is_replaced_by_the_best_there_is() {
    let document = "# Plan\n\n## Scenario: Test Scenario\n\n1. Look at it\n2. Repair it\n";
    let mut plan = breakglass::plan::parse("plan.md", document.as_bytes()).unwrap();
    assert_eq!((plan.scenarios.len(), plan.scenarios[0].steps.len()), (1, 2), "{:?}", plan.scenarios);
    plan.scenarios[0].slug = "test-scenario".into();
    let slug = plan.scenarios[0].slug.clone();
    let mut d = Desk::new();
    let opening = |plan: &breakglass::model::Plan| Opening {
        plan: plan.clone(),
        documents: vec![("docs/plan.md".into(), document.as_bytes().to_vec())],
        scenario: slug.clone(),
        ..opening()
    };
    d.incident = d.store.create(opening(&plan)).unwrap();
    for id in ["s1", "s2"] {
        d.incident.submit(Command::StartStep { step: StepId::new(id) }).unwrap();
    }
    assert_eq!(d.incident.plan_damage(), None);
    let folder = d.incident.dir().join("plan").join(d.incident.state().unwrap().plan.as_str());
    let json = std::fs::read_to_string(folder.join("plan.json")).unwrap();
    let titles = |i: &Incident| i.scenario().steps.iter().map(|s| s.title.clone()).collect::<Vec<_>>();
    let open = || Incident::open(d.incident.dir(), Default::default()).unwrap();

    for broken in [Some(json.replace("Repair it", "Remove it")), Some(json[..json.len() / 2].into()), None] {
        match &broken {
            Some(text) => std::fs::write(folder.join("plan.json"), text).unwrap(),
            None => std::fs::remove_file(folder.join("plan.json")).unwrap(),
        }
        let found = open();
        assert_eq!(titles(&found), ["Look at it", "Repair it"], "from the document beside it");
        let damage = found.plan_damage().unwrap();
        assert!(damage.contains("plan.json") && damage.contains("\"plan.md\""), "{damage}");
        // A timeline claims only the plan the journal names.
        let exported = breakglass::export::load(d.incident.dir(), &Default::default()).unwrap();
        assert!(exported.notices.iter().any(|n| n.starts_with("without the plan")), "{:?}", exported.notices);
    }
    std::fs::remove_file(folder.join("plan.md")).unwrap();
    let mut found = open();
    assert_eq!(titles(&found), ["Step s1", "Step s2"], "what the journal knows");
    assert!(found.plan_damage().unwrap().contains("your own copy of the plan"));
    found.submit(Command::FinishStep { step: StepId::new("s1") }).unwrap();
    std::fs::write(folder.join("plan.json"), json).unwrap();
    assert_eq!(open().plan_damage(), None);
}

#[test]
fn another_plan_is_worked_with_once_it_is_adopted() {
    let mut d = Desk::new();
    let mut other = super::plan();
    other.scenarios[0].title = "Renamed".into();
    let digest = breakglass::runtime::kept_plan::write_plan(d.incident.dir(), &other, &[]).unwrap();
    d.incident.submit(Command::OfferPlan { plan: digest.clone() }).unwrap();
    assert_eq!(d.incident.scenario().title, "Test");
    let mut second = Incident::open(d.incident.dir(), Default::default()).unwrap();
    second.submit(Command::AdoptPlan { plan: digest }).unwrap();
    assert_eq!(second.scenario().title, "Renamed");
    assert!(d.incident.refresh().unwrap());
    assert_eq!(d.incident.scenario().title, "Renamed");
}

#[test]
fn two_consoles_lose_nothing() {
    let d = Desk::new();
    let dir = d.incident.dir().to_path_buf();
    std::thread::scope(|s| {
        for who in 0..4 {
            let dir = &dir;
            s.spawn(move || {
                let mut i = Incident::open(dir, Default::default()).unwrap();
                for n in 0..25 {
                    i.submit(Command::Note { text: format!("{who}-{n}") }).unwrap();
                }
            });
        }
    });
    let all = Incident::open(&dir, Default::default()).unwrap();
    let mut texts: Vec<&str> = all.state().unwrap().notes.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(texts.len(), 100);
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 100);
}

#[test]
fn a_note_can_be_back_dated() {
    let mut d = Desk::new();
    let then = Time::parse("2026-01-02T03:04:05Z").unwrap();
    d.incident.submit_at(Command::Note { text: "the pager went off".into() }, Some(then)).unwrap();
    let note = &d.incident.state().unwrap().notes[0];
    assert_eq!(note.when.at, then);
    assert!(note.when.recorded > then);
}

#[test]
fn a_directory_that_cannot_be_written_still_reads() {
    let d = Desk::new();
    d.store.check_writable().unwrap();
    let blocked = d.home.path().join("blocked");
    std::fs::write(&blocked, b"a file, not a folder").unwrap();
    let e = Store::at(&blocked).check_writable().unwrap_err();
    assert!(e.kind.exit_code() == 3 && e.to_string().contains("BREAKGLASS_HOME"), "{e}");
    if breakglass::process::user::is_root() {
        return; // modes do not stop root
    }
    let open = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(d.home.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let denied = d.store.check_writable();
    let read = d.store.incident(d.incident.id(), Default::default()).map(|_| ());
    std::fs::set_permissions(d.home.path(), open).unwrap();
    assert!(denied.is_err() && read.is_ok());
}

#[test]
fn the_state_directory_follows_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { state_dir: Some(dir.path().join("s")), ..Config::default() };
    let store = Store::open(&config).unwrap();
    assert_eq!(store.root(), dir.path().join("s"));
    assert!(!store.root().exists(), "opening creates nothing");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn history_tells_how_it_went() {
    let mut d = Desk::new();
    for step in ["s1", "s2"] {
        let step = StepId::new(step);
        d.incident.submit(Command::StartStep { step: step.clone() }).unwrap();
        d.incident.submit(Command::FinishStep { step }).unwrap();
    }
    assert!(
        History::read(&d.store).unwrap().scenarios["test-scenario"].step_times.is_empty(),
        "open ones do not count"
    );
    let now = Time::from_system(std::time::SystemTime::now());
    d.incident.submit(Command::SetImpact { at: now.minus(Duration::from_secs(50)), source: "pager".into() }).unwrap();
    d.incident.submit(Command::RestoreService { at: now, how: "seen".into() }).unwrap();
    d.incident.submit(Command::Close { summary: "done".into(), force: false }).unwrap();
    // One that cannot be read is named and stops nothing.
    let bad = d.store.create(opening()).unwrap();
    std::fs::write(bad.dir().join("journal.jsonl"), b"{}\n").unwrap();
    let history = History::read(&d.store).unwrap();
    let scenario = &history.scenarios["test-scenario"];
    let last = scenario.last_drill().unwrap();
    assert_eq!((last.rto, last.rto_met, last.went_well()), (Some(Duration::from_secs(50)), Some(true), true));
    assert_eq!(scenario.step_times.len(), 2);
    assert_eq!(history.unreadable.len(), 1);
    assert!(history.open.is_empty());
}
