//! Terminals that are too small or none at all, and two consoles on one incident.

use breakglass::model::event::Event;

use super::{Desk, PLAN, PROGRAM, ran};

#[test]
fn a_terminal_that_is_too_small_says_what_it_needs_and_does_nothing_else() {
    let desk = Desk::new();
    let plan = desk.file("lost-index.md", PLAN).display().to_string();
    let mut pty = desk.terminal((40, 10), PROGRAM, &["open", &plan], &[("NO_COLOR", "1"), ("COLORTERM", "truecolor")]);
    let small = pty.wait_text("at least 60x16, this is 40x10");
    assert!(small.contains("ctrl-c twice leaves"), "{small}");
    // Keys that would declare a real incident.
    pty.keys("D enter enter");
    pty.resize((50, 12));
    pty.wait_text("this is 50x12");
    pty.resize((100, 30));
    let home = pty.wait_text("Lost index");
    assert!(!home.contains("REAL"), "{home}");
    assert!(desk.store().ids().unwrap().is_empty(), "nothing was opened");
    pty.resize((20, 3));
    pty.wait_text("60x16");
    pty.keys("ctrl-c ctrl-c");
    assert_eq!(pty.wait_exit().code(), Some(0));
    pty.wait_sane();
    let bytes = String::from_utf8_lossy(&pty.bytes()).into_owned();
    assert!(!bytes.contains("\x1b[38;") && !bytes.contains("\x1b[48;"), "NO_COLOR is set and a colour was written");
}

#[test]
fn without_a_terminal_it_points_to_the_plain_commands() {
    let desk = Desk::new();
    let id = desk.incident().id().to_string();
    desk.file("plan.md", PLAN);
    for args in [[].as_slice(), &["open", "plan.md"], &["resume", &id]] {
        desk.run(args).fails(2, &["not a terminal", "hint: ", "--json", "drill --unattended"]);
        let said = ran(desk.command(args).env("TERM", "dumb"));
        said.fails(2, &["hint: "]);
    }
    for args in [[].as_slice(), &["resume", &id]] {
        let mut pty = desk.terminal((100, 30), PROGRAM, args, &[("TERM", "dumb")]);
        assert_eq!(pty.wait_exit().code(), Some(2));
        // The hint comes after what is wrong.
        let screen = pty.wait_text("xterm-256color");
        assert!(screen.contains("TERM=dumb") && !pty.alternate(), "{screen}");
    }
    // What is plain works in both.
    assert!(ran(desk.command(&["incident", "list"]).env("TERM", "dumb")).succeeds().contains(&id));
}

#[test]
fn two_consoles_see_each_other_and_start_a_step_once() {
    let desk = Desk::new();
    let id = desk.incident().id().to_string();
    let consoles = [0, 1].map(|_| desk.console((100, 30), &["resume", &id]));
    for pty in &consoles {
        pty.wait_text("STEPS");
    }
    // Both start the first step without seeing the other do it, then write a note.
    for pty in &consoles {
        pty.keys("b");
    }
    for (pty, text) in consoles.iter().zip(["amywashere", "benwashere"]) {
        pty.keys("n");
        pty.wait_text("what was seen or done");
        pty.send(text.as_bytes());
        pty.wait_text(text);
        pty.keys("enter");
    }
    for pty in &consoles {
        pty.keys("t");
        pty.wait("both notes", |s| s.contains("amywashere") && s.contains("benwashere"));
    }
    let store = desk.store();
    let incident = store.incident(&store.find(Some(&id)).unwrap(), Default::default()).unwrap();
    let events: Vec<&Event> = incident.records().iter().flat_map(|r| &r.events).collect();
    assert_eq!(events.iter().filter(|e| matches!(e, Event::StepStarted { .. })).count(), 1, "{events:?}");
    assert_eq!(events.iter().filter(|e| matches!(e, Event::NoteAdded { .. })).count(), 2, "{events:?}");
    assert!(breakglass::journal::verify(incident.dir(), &[]).unwrap().ok());
}
