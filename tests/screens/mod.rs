//! Every screen and dialog as it is seen, at every size. A screen or dialog without a snapshot does not compile here.

mod readme;
mod sizes;
mod styles;

use crate::support::console::*;
use breakglass::app::data::{Process, Recording, Worker};
use breakglass::app::dialog::Ask;
use breakglass::app::{App, Effect, Msg, Preview, Screen, Tone};
use breakglass::model::event::{Event, Kind, Outcome, Verdict};
use breakglass::model::plan::Risk;
use breakglass::model::target::RecoveryTarget;
use breakglass::model::{CleanText, RunId, StepId};

/// The sizes every screen is kept at.
const SIZES: [(u16, u16); 4] = [(80, 24), (120, 40), (200, 60), (60, 16)];

/// A screen in a state worth keeping.
pub struct Shot {
    /// Name of the snapshot.
    pub name: &'static str,
    /// Makes it at a size.
    pub make: fn((u16, u16)) -> App,
}

fn recovering_app(size: (u16, u16)) -> App {
    with_incident(size, 343, recovering_data(Kind::Drill))
}

fn real(size: (u16, u16)) -> App {
    with_incident(size, 343, recovering_data(Kind::Real))
}

/// Whether a moment can be reached, what it loses and how long it takes are never what is left out.
#[test]
fn the_cost_of_a_moment_is_whole_on_the_smallest_screen() {
    let shown = |keys: &str| text(&render(&mut on_axis((80, 24), keys)));
    let at_suspect = shown("");
    for part in ["before 14:01:07 UTC", "loses 5:33", "takes about", "goes back as well: billing, postgres"] {
        assert!(at_suspect.contains(part), "{part}: {at_suspect}");
    }
    let far = shown(&"left ".repeat(300));
    assert!(far.contains("cannot be reached: before the first base backup"), "{far}");
    let mut app = on_axis((80, 24), &"left ".repeat(25));
    let behind_a_gap = text(&render(&mut app));
    assert!(behind_a_gap.contains("cannot be reached: log before it is missing"), "{behind_a_gap}");
    // The moment under the cursor is what Enter asks about.
    press(&mut app, "enter");
    let at = app.incident.as_ref().unwrap().axis_at.unwrap();
    let dialog = app.dialogs.last().unwrap();
    assert!(matches!(&dialog.ask, Ask::OtherMoment));
    assert!(text(&render(&mut app)).contains(&at.to_string()));
}

/// A moment's transactions are counted by one source: as the log was read where that was done, else by its index on the axis;
/// where nobody counted them nothing is said of them.
#[test]
fn transactions_are_counted_once() {
    let shown = |keys: &str| text(&render(&mut on_axis((80, 24), keys)));
    let first = shown("");
    assert!(first.contains("loses 5:33, 4 120 transactions  takes"), "the axis says what the row says: {first}");
    assert!(!first.contains("not known") && first.contains("at most 18:00, about "), "{first}");
    let without = text(&render(&mut pressed(real((80, 24)), "m")));
    assert!(without.contains("at most 18:00 ") || without.contains("at most 18:00\n"), "{without}");
    assert!(!without.contains("not known"), "{without}");
}

/// The choice of the moment with the log over time, keys pressed once it is on the screen.
fn on_axis(size: (u16, u16), keys: &str) -> App {
    let mut data = recovering_data(Kind::Real);
    data.state.facts.source.as_mut().unwrap().0.other_databases = vec!["billing".into(), "postgres".into()];
    let mut app = pressed(with_incident(size, 343, data), "m");
    app.incident.as_mut().unwrap().axis = Some(axis());
    render(&mut app);
    pressed(app, keys)
}

fn pressed(mut app: App, keys: &str) -> App {
    press(&mut app, keys);
    app
}

/// The story up to a verified shadow, the promotion ahead.
fn verified(kind: Kind) -> Story {
    let (mut s, run) = recovering(kind);
    s.finish(
        run,
        350,
        Outcome::Succeeded,
        "recovered to 14:01:07, 1.71 GB",
        vec![Event::ShadowBuilt {
            host: "/run/drill/shadow".into(),
            port: 5433,
            data_directory: "/var/tmp/shadow".into(),
            target: candidates()[0].target.clone(),
            backup: "20261120T1330Z".into(),
            reached_lsn: "0/5A2F0F8".into(),
            reached_time: Some(candidates()[0].at),
            bytes: 1_710_000_000,
            files_ms: 62_000,
            replay_ms: 19_000,
        }],
    );
    s.add(352, vec![Event::StepDone { step: StepId::new("s6") }]);
    let run = s.run(7, "pitr verify", "breakglass pitr verify", Risk::Read, 353);
    s.finish(
        run,
        380,
        Outcome::Succeeded,
        "12 checks passed",
        vec![Event::ShadowVerified {
            passed: true,
            checks: vec![check("rows", Verdict::Passed), check("constraints", Verdict::Passed)],
        }],
    );
    s.add(381, vec![Event::TargetSeen { role: "source".into(), identity: identity() }]);
    s.add(382, vec![Event::StepDone { step: StepId::new("s7") }]);
    s
}

/// A mutating run whose worker vanished.
fn lost(size: (u16, u16)) -> App {
    let (mut s, run) = recovering(Kind::Real);
    s.add(340, vec![Event::RunOutcomeUnknown { run }]);
    with_incident(size, 343, s.data())
}

fn died(size: (u16, u16)) -> App {
    let mut data = recovering_data(Kind::Real);
    let run = *data.workers.keys().next().unwrap();
    let process = |pid, command| Process { pid, command: CleanText::text(command) };
    let left = vec![
        process(4720, "/usr/lib/postgresql/15/bin/postgres -D /var/tmp/shadow"),
        process(
            4733,
            "sh -c breakglass wal fetch --repository file:///backups %f %p --and a very long command line of it",
        ),
        process(4734, "tar -x"),
    ];
    data.workers.insert(run, Worker::ChildrenOnly(left));
    with_incident(size, 343, data)
}

/// A run whose worker is on another host.
fn elsewhere(size: (u16, u16)) -> App {
    let mut data = recovering_data(Kind::Real);
    let run = *data.workers.keys().next().unwrap();
    data.workers.insert(run, Worker::Elsewhere(CleanText::text("bastion2")));
    with_incident(size, 343, data)
}

fn ended(kind: Kind, restored: bool, closed: bool) -> Story {
    let mut s = verified(kind);
    let run = s.run(8, "pitr promote", "breakglass pitr promote", Risk::Destroy, 400);
    let mut facts = vec![
        Event::Promoted { identity: identity(), kept: "/var/lib/postgresql/damaged".into() },
        Event::LossMeasured { loss: candidates()[0].loses.clone() },
    ];
    facts.push(Event::HealthSeen { healthy: true, components: [("api".to_string(), "ok".to_string())].into() });
    s.finish(run, 412, Outcome::Succeeded, "the service runs on the recovered database", facts);
    s.add(413, vec![Event::StepDone { step: StepId::new("s8") }]);
    if restored {
        s.add(413, vec![Event::ServiceRestored { at: now(412).time, how: "verified and healthy for 5 s".into() }]);
    }
    if closed {
        s.step(9, 416, 430);
        s.add(
            440,
            vec![Event::IncidentClosed {
                summary: "faulty release rewrote order totals; recovered to 14:01:07".into(),
            }],
        );
    }
    s
}

fn with_preview(mut app: App, action: &str) -> App {
    // The look that the driver would have answered with.
    let effects = press(&mut app, "r");
    let request = effects.into_iter().find_map(|e| match e {
        Effect::Preview(r) => Some(r),
        _ => None,
    });
    let request = request.unwrap_or_else(|| panic!("{action} was not looked at; {:?}", app.dialogs));
    assert_eq!(request.action, action);
    let preview = Preview {
        lines: vec![
            "switches the service to the recovered instance".into(),
            "stops the damaged cluster and keeps it".into(),
        ],
        database: Some("shop".into()),
        failed: None,
    };
    let now = app.now.clone();
    breakglass::app::update::update(&mut app, Msg::Previewed(request, preview), now);
    app
}

/// All shots.
pub fn shots() -> Vec<Shot> {
    let shot = |name, make| Shot { name, make };
    vec![
        shot("home", |size| app(size, 343)),
        shot("home-open", |size| {
            let mut a = app(size, 343);
            a.home.incidents = incidents();
            a
        }),
        shot("home-empty", |size| {
            let mut a = app(size, 343);
            a.home = Default::default();
            a.home.problems = vec!["cannot read \"runbooks/x.md\": permission denied".into()];
            a
        }),
        shot("home-problems", |size| {
            let mut a = app(size, 343);
            a.home.incidents = incidents();
            a.home.problems = vec![
                "the state directory /srv/shared/breakglass cannot be written: read-only file system (name another one with BREAKGLASS_HOME or state_dir)".into(),
                "cannot read \"runbooks/payments.md\": permission denied".into(),
                "incident 20261102T0812Z-region-outage-11aa cannot be read: record 17 does not fit the one before".into(),
                "cannot read \"runbooks/x.md\": it is not UTF-8".into(),
            ];
            a
        }),
        shot("home-loading", |size| {
            let mut a = app(size, 343);
            a.home = Default::default();
            a.home_loaded = false;
            a
        }),
        shot("waiting", |size| {
            let mut a = pressed(app(size, 343), "d y");
            for (second, text) in [
                (343, "making a private PostgreSQL with a small shop"),
                (345, "loading the shop: 20000 orders of 2000 customers"),
                (349, "taking a base backup of 31 MB into an encrypted repository"),
            ] {
                breakglass::app::update::update(&mut a, Msg::Busy(Some(text.into())), now(second));
            }
            a.now = now(352);
            a
        }),
        shot("home-filter", |size| pressed(app(size, 343), "/ \"security\"")),
        shot("plan", |size| pressed(app(size, 343), "enter")),
        shot("incident-new", |size| with_incident(size, 20, Story::open(Kind::Real).data())),
        shot("incident", recovering_app),
        shot("incident-real", real),
        shot("incident-output", |size| {
            let mut a = recovering_app(size);
            press(&mut a, "3 up up");
            a
        }),
        shot("incident-failed", |size| {
            let (mut s, run) = recovering(Kind::Drill);
            s.finish(run, 330, Outcome::Failed, "base backup 20261120T1330Z: object 17 does not authenticate", vec![]);
            with_incident(size, 343, s.data())
        }),
        shot("incident-late", |size| with_incident(size, 343 + 4 * 3600, recovering_data(Kind::Real))),
        shot("incident-verified", |size| with_incident(size, 383, verified(Kind::Drill).data())),
        shot("incident-promoted", |size| with_incident(size, 414, ended(Kind::Drill, false, false).data())),
        shot("incident-damage-kept", |size| {
            let mut data = ended(Kind::Drill, false, false).data();
            let facts = &mut data.state.facts;
            let late = facts.candidates[0].at.plus(std::time::Duration::from_secs(60));
            facts.chosen = Some((RecoveryTarget::Time(late), Some(late), None));
            with_incident(size, 414, data)
        }),
        shot("incident-closed", |size| with_incident(size, 460, ended(Kind::Real, true, true).data())),
        shot("incident-ascii", |size| {
            let mut a = recovering_app(size);
            a.settings.ascii = true;
            a
        }),
        shot("not-recorded", |size| {
            let mut data = recovering_data(Kind::Real);
            data.recording = Recording::NotRecorded("the disk of /var/lib/breakglass is full".into());
            with_incident(size, 343, data)
        }),
        shot("read-only", |size| {
            let mut data = recovering_data(Kind::Real);
            data.recording = Recording::ReadOnly("the journal holds records of a newer version".into());
            with_incident(size, 343, data)
        }),
        shot("plan-damaged", |size| {
            let mut data = recovering_data(Kind::Real);
            data.plan_damage = Some(
                "the kept plan cannot be used (plan.json is not the one the journal names); read anew from the document \
                 \"plan.md\" kept beside it"
                    .into(),
            );
            with_incident(size, 343, data)
        }),
        shot("outcome-unknown", lost),
        shot("worker-died", died),
        shot("elsewhere", elsewhere),
        shot("message-good", |size| {
            let mut a = recovering_app(size);
            a.say(Tone::Good, "pitr locate succeeded: 2 moments found".into());
            a
        }),
        shot("message-bad", |size| {
            let mut a = recovering_app(size);
            a.say(Tone::Bad, "the target did not answer: connection refused at /run/drill:5432".into());
            a
        }),
        shot("pending-key", |size| pressed(recovering_app(size), "g")),
        shot("search", |size| pressed(recovering_app(size), "/ \"replay\" enter")),
        shot("timeline", |size| pressed(real(size), "t")),
        shot("timeline-filter", |size| pressed(real(size), "t / \"run\" enter")),
        shot("moment", |size| pressed(real(size), "m")),
        shot("moment-axis", |size| on_axis(size, "")),
        shot("moment-axis-moved", |size| on_axis(size, "left left left left left left left left")),
        shot("moment-axis-unreachable", |size| on_axis(size, &"left ".repeat(300))),
        shot("moment-other", |size| pressed(real(size), "m G")),
        shot("messages", |size| {
            let mut a = recovering_app(size);
            a.say(Tone::Good, "pitr locate succeeded: 2 moments found".into());
            a.say(Tone::Bad, "the target did not answer: connection refused at /run/drill:5432".into());
            pressed(a, "M")
        }),
        shot("dialog-help", |size| pressed(recovering_app(size), "?")),
        shot("dialog-palette", |size| pressed(recovering_app(size), ": \"note\"")),
        shot("dialog-palette-refused", |size| pressed(recovering_app(size), ": \"adopt\" enter")),
        shot("dialog-note", |size| pressed(real(size), "n \"support has 3 tickets\" tab \"-10m\"")),
        shot("dialog-note-wrong", |size| pressed(real(size), "n \"too late\" tab \"tomorrow\" enter")),
        shot("dialog-skip", |size| pressed(with_incident(size, 383, verified(Kind::Real).data()), "s")),
        shot("dialog-reopen", |size| pressed(real(size), "up u")),
        shot("dialog-declare", |size| pressed(real(size), "D")),
        shot("dialog-begin", |size| pressed(app(size, 343), "D")),
        shot("dialog-drill", |size| pressed(app(size, 343), "d")),
        shot("dialog-values", |size| {
            let mut data = verified(Kind::Real).data();
            let mut scenario = (*data.scenario).clone();
            scenario.steps[7].blocks[0].placeholders = vec!["<backup-id>".into()];
            data.scenario = scenario.into();
            pressed(with_incident(size, 383, data), "r")
        }),
        shot("dialog-variable", |size| pressed(real(size), "v")),
        shot("dialog-run", |size| {
            let mut s = Story::open(Kind::Real);
            s.step(1, 5, 20);
            s.step(2, 21, 30);
            with_preview(with_incident(size, 40, s.data()), "contain")
        }),
        shot("dialog-edit", |size| {
            let mut s = Story::open(Kind::Real);
            s.step(1, 5, 20);
            s.step(2, 21, 30);
            pressed(with_incident(size, 40, s.data()), "e \" --keep-writes\"")
        }),
        shot("dialog-edit-wrong", |size| {
            let mut s = Story::open(Kind::Real);
            s.step(1, 5, 20);
            s.step(2, 21, 30);
            pressed(with_incident(size, 40, s.data()), "e \" --kep-writes\" enter")
        }),
        shot("dialog-destroy", |size| {
            with_preview(with_incident(size, 383, verified(Kind::Real).data()), "pitr promote")
        }),
        shot("dialog-destroy-wrong", |size| {
            pressed(
                with_preview(with_incident(size, 383, verified(Kind::Real).data()), "pitr promote"),
                "\"shap\" enter",
            )
        }),
        shot("dialog-refused", |size| {
            pressed(with_incident(size, 20, Story::open(Kind::Real).data()), "down down down down down down r")
        }),
        shot("dialog-refused-gate", |size| {
            let mut data = verified(Kind::Real).data();
            data.state.facts.verified = None;
            pressed(with_incident(size, 383, data), "r")
        }),
        shot("dialog-waive", |size| pressed(real(size), "W")),
        shot("dialog-choose", |size| pressed(real(size), "m enter")),
        shot("dialog-other-moment", |size| pressed(real(size), "m G enter")),
        shot("dialog-cancel", |size| pressed(real(size), "x")),
        shot("dialog-unknown", |size| pressed(lost(size), "o")),
        shot("dialog-died", |size| pressed(died(size), "o")),
        shot("dialog-elsewhere", |size| pressed(elsewhere(size), "o")),
        shot("dialog-restored", |size| pressed(with_incident(size, 414, ended(Kind::Real, false, false).data()), "R")),
        shot("dialog-close", |size| pressed(real(size), "C enter")),
        shot("dialog-afterwards", |size| pressed(real(size), "C")),
        shot("dialog-deadlines", |size| pressed(real(size), "p")),
        shot("dialog-snooze", |size| pressed(real(size), "z")),
        shot("dialog-escalate", |size| pressed(real(size), "P")),
        shot("dialog-no-call", |size| pressed(real(size), "i")),
        shot("dialog-answered", |size| pressed(with_incident(size, 403, called().data()), "i")),
        shot("dialog-assign", |size| pressed(with_incident(size, 403, called().data()), "a")),
        shot("dialog-tell", |size| pressed(real(size), "w")),
        shot("dialog-send", |size| pressed(real(size), "w enter")),
        shot("dialog-send-blank", |size| {
            pressed(with_incident(size, 414, ended(Kind::Real, true, false).data()), "w enter")
        }),
        shot("dialog-send-copied", |size| pressed(real(size), "w enter enter")),
        shot("dialog-blanks", |size| {
            pressed(with_incident(size, 414, ended(Kind::Real, true, false).data()), "w enter e \"a post-mortem\"")
        }),
        shot("dialog-blanks-left", |size| {
            pressed(with_incident(size, 414, ended(Kind::Real, true, false).data()), "w enter enter")
        }),
        shot("dialog-codename", |size| pressed(real(size), "V")),
        shot("dialog-lift-codename", |size| {
            let mut s = called();
            s.add(402, vec![Event::CodenameSet { codename: "Heron".into() }]);
            pressed(with_incident(size, 403, s.data()), "V")
        }),
        shot("dialog-local-only", |size| pressed(real(size), "Z")),
        shot("dialog-rotated", |size| pressed(real(size), "I")),
        shot("incident-called", |size| with_incident(size, 403, called().data())),
        shot("incident-overdue", |size| with_incident(size, 2000, called().data())),
        shot("incident-codename", |size| {
            let mut s = called();
            s.add(
                402,
                vec![
                    Event::CodenameSet { codename: "Heron".into() },
                    Event::LocalOnlySet { on: true, reason: "the intruder may read our chat".into() },
                ],
            );
            with_incident(size, 403, s.data())
        }),
        shot("dialog-adopt", |size| {
            let mut data = recovering_data(Kind::Real);
            data.state.plan_offered = Some(breakglass::model::Digest::new("e".repeat(64)));
            pressed(with_incident(size, 343, data), "A")
        }),
        shot("dialog-links", |size| {
            let mut data = recovering_data(Kind::Real);
            let mut scenario = (*data.scenario).clone();
            let link = |text: &str, target: &str| breakglass::model::plan::Link {
                text: text.into(),
                target: target.into(),
                line: 50,
            };
            for step in &mut scenario.steps {
                step.links =
                    vec![link("the region plan", "region.md#region-outage"), link("Scenario 2", "#scenario-2")];
            }
            data.scenario = scenario.into();
            pressed(with_incident(size, 343, data), "L")
        }),
        shot("dialog-values-secret", |size| {
            let mut data = verified(Kind::Real).data();
            let mut scenario = (*data.scenario).clone();
            scenario.steps[7].blocks[0].own = None;
            scenario.steps[7].blocks[0].code = "psql -h <host> -c 'select 1'".into();
            scenario.steps[7].blocks[0].placeholders = vec!["<host>".into()];
            scenario.steps[7].blocks[0].variables = vec!["PGPASSWORD".into()];
            data.scenario = scenario.into();
            pressed(with_incident(size, 383, data), "r \"hunter2\"")
        }),
        shot("reference", |size| pressed(real(size), "c")),
        shot("reference-template", |size| pressed(real(size), "T")),
        shot("dialog-quit", |size| pressed(real(size), "q")),
    ]
}

/// An incident with people in it: roles, a level that was called, a deadline put off.
fn called() -> Story {
    let (mut s, _) = recovering(Kind::Real);
    s.add(
        350,
        vec![Event::RoleAssigned {
            role: "incident commander".into(),
            person: "amy".into(),
            from: None,
            note: String::new(),
        }],
    );
    s.add(
        351,
        vec![Event::RoleAssigned { role: "operations".into(), person: "ben".into(), from: None, note: String::new() }],
    );
    s.add(360, vec![Event::Escalated { level: 2, who: "engineering manager".into(), within_ms: 1_800_000 }]);
    s.add(
        370,
        vec![Event::TimerSnoozed {
            timer: "update-team".into(),
            for_ms: 1_200_000,
            reason: "all of them are on the call".into(),
        }],
    );
    s
}

/// The shot of a screen. No wildcard: a new screen needs one.
fn shot_of_screen(screen: Screen) -> &'static str {
    match screen {
        Screen::Home => "home",
        Screen::Plan => "plan",
        Screen::Incident => "incident",
        Screen::Timeline => "timeline",
        Screen::Moment => "moment",
        Screen::Messages => "messages",
        Screen::Reference => "reference",
        Screen::Waiting => "waiting",
    }
}

/// The shot of a dialog. No wildcard: a new dialog needs one.
fn shot_of_dialog(ask: &Ask) -> &'static str {
    match ask {
        Ask::Help => "dialog-help",
        Ask::Palette => "dialog-palette",
        Ask::Note => "dialog-note",
        Ask::Skip(_) => "dialog-skip",
        Ask::Reopen(_) => "dialog-reopen",
        Ask::Declare => "dialog-declare",
        Ask::Begin { .. } => "dialog-begin",
        Ask::Drill { .. } => "dialog-drill",
        Ask::Values(_) => "dialog-values",
        Ask::Variable => "dialog-variable",
        Ask::Edit { .. } => "dialog-edit",
        Ask::Run(..) => "dialog-run",
        Ask::Destroy(..) => "dialog-destroy",
        Ask::Refused(_) => "dialog-refused",
        Ask::Waive => "dialog-waive",
        Ask::Choose { .. } => "dialog-choose",
        Ask::OtherMoment => "dialog-other-moment",
        Ask::Cancel(_) => "dialog-cancel",
        Ask::Unknown(_) => "dialog-unknown",
        Ask::Died(_) => "dialog-died",
        Ask::Elsewhere(_) => "dialog-elsewhere",
        Ask::Restored => "dialog-restored",
        Ask::Close => "dialog-close",
        Ask::Adopt(_) => "dialog-adopt",
        Ask::Links(_) => "dialog-links",
        Ask::Quit => "dialog-quit",
        Ask::Deadlines => "dialog-deadlines",
        Ask::Snooze => "dialog-snooze",
        Ask::Escalate => "dialog-escalate",
        Ask::Answered(_) => "dialog-answered",
        Ask::NoCall => "dialog-no-call",
        Ask::Assign => "dialog-assign",
        Ask::Tell(_) => "dialog-tell",
        Ask::Send { .. } => "dialog-send",
        Ask::Blanks(_) => "dialog-blanks",
        Ask::BlanksLeft { .. } => "dialog-blanks-left",
        Ask::Codename => "dialog-codename",
        Ask::LiftCodename(_) => "dialog-lift-codename",
        Ask::LocalOnly(_) => "dialog-local-only",
        Ask::Rotated => "dialog-rotated",
        Ask::Afterwards { .. } => "dialog-afterwards",
    }
}

#[test]
fn every_shot_is_as_it_was_and_names_the_next_thing_and_how_to_leave() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for shot in shots() {
            for size in SIZES {
                let mut app = (shot.make)(size);
                let text = text(&render(&mut app));
                names_the_next_thing_and_how_to_leave(shot.name, size, &text);
                insta::assert_snapshot!(format!("{}-{}x{}", shot.name, size.0, size.1), text);
            }
        }
    });
}

#[test]
fn a_shot_shows_what_its_name_says() {
    let mut screens = std::collections::BTreeSet::new();
    let mut dialogs = std::collections::BTreeSet::new();
    for shot in shots() {
        let app = (shot.make)((80, 24));
        match app.dialogs.last() {
            Some(d) => {
                let wanted = shot_of_dialog(&d.ask);
                assert!(shot.name.starts_with(wanted), "{} shows {wanted}", shot.name);
                dialogs.insert(wanted);
            }
            None => {
                assert!(
                    !shot.name.starts_with("dialog-"),
                    "{} shows no dialog; messages: {:?}",
                    shot.name,
                    app.messages
                );
                screens.insert(shot_of_screen(app.screen()));
            }
        }
    }
    assert_eq!(screens.len(), 8, "screens with a shot: {screens:?}");
    assert_eq!(dialogs.len(), 41, "dialogs with a shot: {dialogs:?}");
}

fn names_the_next_thing_and_how_to_leave(name: &str, size: (u16, u16), text: &str) {
    let rows: Vec<&str> = text.lines().collect();
    let (next, keys) = (rows[rows.len() - 2], rows[rows.len() - 1]);
    let typing = next.contains("search the output") || next.contains("show only lines with");
    assert!(next.contains("next ") || typing, "{name} at {size:?} has no next thing: {next:?}");
    let leaves = ["q quit", "cancel", "close", "esc clear", "first", "esc back", "n back"];
    let leaves = leaves.iter().any(|w| keys.contains(w));
    assert!(leaves, "{name} at {size:?} does not say how to leave: {keys:?}");
}

#[test]
fn the_command_that_will_run_is_whole_in_its_dialog() {
    for size in SIZES {
        let mut app = with_preview(with_incident(size, 383, verified(Kind::Real).data()), "pitr promote");
        let text = text(&render(&mut app));
        assert!(text.contains("breakglass pitr promote"), "at {size:?}:\n{text}");
        assert!(text.contains("shop @ db1.example"), "at {size:?}:\n{text}");
    }
}

#[test]
fn a_run_is_known_by_what_it_runs() {
    let data = recovering_data(Kind::Drill);
    let mut app = with_incident((80, 24), 343, data);
    assert!(text(&render(&mut app)).contains("output of pitr restore"));
}

#[test]
fn what_is_to_be_ticked_is_in_sight() {
    for size in [(80, 24), (60, 16)] {
        let mut s = Story::open(Kind::Drill);
        let run = s.run(1, "health", "breakglass health", Risk::Read, 3);
        s.finish(run, 5, Outcome::Succeeded, "healthy", vec![]);
        // The other command of the step, too: nothing is left but to tick.
        let (step, line) = (Some(StepId::new("s1")), Some(14));
        let (action, shown) = ("shell".to_string(), "pg_isready".to_string());
        let wish = Event::RunRequested {
            step,
            block_line: line,
            action,
            shown,
            args: vec![],
            risk: Risk::Read,
            confirmed: None,
        };
        let run = RunId(s.add(6, vec![wish]));
        s.add(6, vec![Event::RunStarted { run, pid: 1, host: "bastion".into(), program: "0.1.0".into() }]);
        s.finish(run, 7, Outcome::Succeeded, "accepting connections", vec![]);
        let look = |s: &Story| text(&render(&mut with_incident(size, 12, s.data())));
        assert!(look(&s).contains("[ ] Two wrong"), "at {size:?}:\n{}", look(&s));
        s.add(8, vec![Event::ItemTicked { step: StepId::new("s1"), item: 0, done: true }]);
        assert!(look(&s).contains("[ ] Not explained"), "at {size:?}:\n{}", look(&s));
        s.add(9, vec![Event::ItemTicked { step: StepId::new("s1"), item: 1, done: true }]);
        assert!(look(&s).contains("[✓] Not explained"), "at {size:?}:\n{}", look(&s));
    }
}

#[test]
fn a_long_command_is_folded_between_words_and_nothing_is_lost() {
    use breakglass::tui::view::canvas::fold;
    let line = "breakglass pitr restore --to \"lsn:0/5A2F118\"   --into beside --label 'two  blanks'";
    for columns in 1..100 {
        let rows = fold(line, columns);
        assert_eq!(rows.concat(), line, "at {columns}");
        assert!(rows.iter().all(|r| r.trim_end().chars().count() <= columns.max(1)), "at {columns}: {rows:?}");
    }
    assert_eq!(fold(line, 43)[0], "breakglass pitr restore --to ");
    assert_eq!(fold("", 10), [""]);
    assert_eq!(fold("0123456789abc", 10), ["0123456789", "abc"]);
}
