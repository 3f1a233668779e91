//! The exposure on the screen: measured by itself while an incident is open, and the last sample with its age once the server
//! is gone, in this console and in the next one.

use std::time::{Duration, Instant};

use breakglass::app::data::Live;
use breakglass::app::driver::{Plans, Port, World, port, start};
use breakglass::app::update::update;
use breakglass::app::{Effect, Msg};
use breakglass::config::load::Config;
use breakglass::config::url::parse_database_url;
use breakglass::incident::Now;
use breakglass::postgres::Stop;
use breakglass::runtime::Store;

use crate::support::archived::Archived;
use crate::support::cluster::{LIMIT, block_on};
use crate::support::console::{recovering_data, render, text, with_incident};

fn world(a: &Archived) -> World {
    let mut config = Config::default();
    let (connection, _) = parse_database_url(&a.cluster.database("postgres").url()).unwrap();
    config.settings.database = Some(connection);
    config.settings.repository = Some(a.repository.display().to_string());
    World {
        config,
        store: Store::at(a.room.path.join("state")),
        registry: Default::default(),
        plans: Plans::Runbooks(Vec::new()),
        program: env!("CARGO_BIN_EXE_breakglass").into(),
        keep: false,
    }
}

fn console(a: &Archived, first: Effect) -> Port {
    let (port, side) = port();
    start(world(a), side).unwrap();
    port.effects.blocking_send(first).unwrap();
    port
}

/// The next message for which `wanted` has something.
fn wait<T>(port: &mut Port, what: &str, mut wanted: impl FnMut(Msg) -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    block_on(async {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let msg = tokio::time::timeout(left, port.messages.recv()).await;
            let msg = msg.unwrap_or_else(|_| panic!("{what} did not come")).expect("the driver is there");
            if let Some(found) = wanted(msg) {
                return found;
            }
        }
    })
}

fn live(port: &mut Port, what: &str, wanted: impl Fn(&Live) -> bool) -> Live {
    wait(port, what, |m| match m {
        Msg::Exposure(_, l) if wanted(&l) => Some(*l),
        _ => None,
    })
}

#[test]
fn the_exposure_is_sampled_by_itself_and_outlives_the_server_and_the_console() {
    let a = Archived::start("exposure");
    a.cluster.sql("postgres", "create table t (i int)");
    a.archive_now();
    a.cluster.sql("postgres", "insert into t values (1)");
    let library = world(&a).plans.read().unwrap();
    let (document, scenario) = library.scenarios().next().unwrap();
    let begin = Effect::Begin {
        file: document.plan.file.clone(),
        scenario: scenario.slug.clone(),
        severity: "P1".into(),
        impact: None,
        codename: None,
    };
    let mut port = console(&a, begin);
    let opened = wait(&mut port, "the incident", |m| match m {
        Msg::Opened(data) => Some(data),
        _ => None,
    });
    let id = opened.state.id.clone();
    let seen = live(&mut port, "a sample", |l| l.gone.is_none() && l.sample.is_some()).sample.unwrap();
    assert!(!seen.exposure.is_zero() && seen.at_most, "a commit is behind the archive: {seen:?}");
    assert!(seen.source.contains("segment") || seen.source.contains("archiving"), "{seen:?}");
    // Again, without being asked, and within ten seconds of the machine's own clock.
    let next =
        live(&mut port, "the next sample", |l| l.sample.as_ref().is_some_and(|s| s.when.up_ms > seen.when.up_ms));
    let next = next.sample.unwrap();
    assert!(next.exposure > seen.exposure, "it grows while nothing is archived: {seen:?} {next:?}");

    a.cluster.instance.stop(Stop::Immediate, LIMIT).unwrap();
    let gone = live(&mut port, "word that it is gone", |l| l.gone.is_some());
    let last = gone.sample.clone().expect("the last sample stays");
    assert!(last.when.up_ms >= next.when.up_ms);
    // It is in the journal, as of when it was seen.
    let store = Store::at(a.room.path.join("state"));
    let deadline = Instant::now() + LIMIT;
    let kept = loop {
        if let Some(e) = store.state(&id).unwrap().facts.exposure {
            break e;
        }
        assert!(Instant::now() < deadline, "the last sample is not on record");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((kept.when.at, kept.exposure, kept.source), (last.when.at, last.exposure, last.source.clone()));
    drop(port);

    // Another console, the server still gone: the sample of before, at once.
    let mut port = console(&a, Effect::Open(id.clone()));
    let again = live(&mut port, "the sample of before", |_| true);
    assert_eq!(again.sample.unwrap(), last);
    assert!(again.gone.is_some());
}

#[test]
fn the_header_says_how_old_the_last_sample_is_and_that_the_server_is_gone() {
    let mut data = recovering_data(breakglass::model::event::Kind::Real);
    let sample = data.state.facts.exposure.clone().unwrap();
    data.state.facts.chosen = None;
    data.state.facts.exposure = None;
    let id = data.state.id.clone();
    let mut app = with_incident((200, 60), 343, data);
    assert!(text(&render(&mut app)).contains("exposure not measured yet"));
    let mut show = |gone: Option<&str>, later: u64| {
        let at: Now = crate::support::console::now(343 + later);
        let mut sample = sample.clone();
        let now = crate::support::console::now(343);
        (sample.when.at, sample.when.recorded, sample.when.up_ms) = (now.time, now.time, now.up_ms);
        let live = Live { sample: Some(sample), gone: gone.map(String::from) };
        update(&mut app, Msg::Exposure(id.clone(), Box::new(live)), at);
        text(&render(&mut app)).lines().nth(2).unwrap_or_default().to_string()
    };
    let line = show(None, 3);
    assert!(line.contains("exposed ≤0:08") && line.contains("seen 3 s ago") && line.contains("archiver"), "{line}");
    let line = show(Some("connection refused"), 125);
    assert!(line.contains("exposed ≤0:08") && line.contains("last seen 2 min ago"), "{line}");
    // Never a sample of another incident.
    let other = breakglass::model::IncidentId::new("20261120T1401Z-other-0000");
    update(&mut app, Msg::Exposure(other, Box::default()), crate::support::console::now(470));
    assert!(text(&render(&mut app)).contains("last seen 2 min ago"));
}
