//! The console in a real terminal: start, resize, suspend, signals, a dead terminal, colours, the byte stream.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::console as desk;
use crate::support::pty::Pty;
use breakglass::model::event::Kind;
use breakglass::tui::terminal::Screen;
use breakglass::tui::theme::{Depth, Theme};
use breakglass::tui::view::{Look, draw};
use rustix::process::Signal;

/// A state directory of its own, removed at the end.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
    fn console(&self, size: (u16, u16), args: &[&str]) -> Pty {
        Pty::breakglass(size, args, &[("BREAKGLASS_HOME", self.path()), ("COLORTERM", "truecolor")])
    }
}

#[test]
fn opens_on_home_and_leaves_a_sane_terminal() {
    let home = Home::new();
    let mut pty = home.console((80, 24), &[]);
    pty.wait_text("Database corruption");
    assert!(pty.alternate() && pty.cursor_hidden() && !pty.is_sane());
    pty.keys("q");
    let status = pty.wait_exit();
    assert_eq!(status.code(), Some(0));
    pty.wait_sane();
}

#[test]
fn a_resize_is_followed() {
    let home = Home::new();
    let pty = home.console((80, 24), &[]);
    pty.wait_text("Database corruption");
    pty.resize((50, 10));
    pty.wait_text("at least 60x16, this is 50x10");
    // Keys do nothing in a window that is too small.
    pty.keys("d y");
    pty.resize((120, 40));
    let drawn = |s: &str| s.contains("SCENARIOS") && s.lines().last().is_some_and(|l| l.contains("q quit"));
    let screen = pty.wait("the whole screen at its new size", drawn);
    assert!(!screen.contains("private PostgreSQL in a scratch"), "{screen}");
}

#[test]
fn a_signal_leaves_a_sane_terminal_and_says_how_to_come_back() {
    for (signal, name, code) in
        [(Signal::TERM, "SIGTERM", 143), (Signal::INT, "SIGINT", 130), (Signal::HUP, "SIGHUP", 129)]
    {
        let home = Home::new();
        let mut pty = home.console((80, 24), &[]);
        pty.wait_text("Database corruption");
        pty.keys("D");
        pty.wait_text("declare a REAL incident");
        pty.keys("enter");
        pty.wait_text("STEPS");
        pty.signal(signal);
        let status = pty.wait_exit();
        assert_eq!(status.code(), Some(code), "{name}");
        pty.wait_sane();
        pty.wait(&format!("{name} and how to come back"), |s| s.contains(name) && s.contains("breakglass resume"));
    }
}

#[test]
fn ctrl_z_goes_back_to_the_shell_and_fg_returns() {
    let home = Home::new();
    let shell = Pty::spawn(
        (80, 24),
        "bash",
        &["--norc", "--noprofile", "-i"],
        &[("BREAKGLASS_HOME", home.path()), ("PS1", "ready> "), ("COLORTERM", "truecolor")],
    );
    shell.wait_text("ready>");
    shell.send(format!("{}\r", env!("CARGO_BIN_EXE_breakglass")).as_bytes());
    shell.wait_text("SCENARIOS");
    let prompt = |s: &str| s.trim_end().ends_with("ready>");
    for round in 1..=2 {
        shell.keys("ctrl-z");
        shell.wait("the shell is back", |s| s.matches("Stopped").count() == round && prompt(s));
        assert!(!shell.alternate() && !shell.cursor_hidden());
        shell.send(b"echo al\"\"ive\r");
        shell.wait("the shell answers", |s| s.matches("\nalive").count() == round && prompt(s));
        shell.send(b"fg\r");
        shell.wait_text("SCENARIOS");
        assert!(shell.alternate());
        shell.wait("all of it is drawn", |s| s.trim_end().ends_with("q quit"));
    }
    shell.keys("q");
    shell.wait("the shell is back for good", |s| prompt(s) && !s.contains("SCENARIOS"));
    assert!(!shell.alternate());
}

#[test]
fn without_a_shell_there_is_nothing_to_suspend_to() {
    let home = Home::new();
    let pty = home.console((80, 24), &[]);
    pty.wait_text("SCENARIOS");
    pty.keys("ctrl-z");
    pty.wait_text("there is no shell to go back to");
    assert!(pty.alternate());
}

#[test]
fn a_terminal_that_goes_away_ends_the_console() {
    let home = Home::new();
    let mut pty = home.console((80, 24), &[]);
    pty.wait_text("SCENARIOS");
    pty.signal(Signal::HUP);
    assert!(!pty.wait_exit().success());
}

#[test]
fn no_terminal_is_said() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .env("BREAKGLASS_HOME", Home::new().path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("not a terminal") && said.contains("hint"), "{said}");
}

#[test]
fn a_dumb_terminal_is_said() {
    let home = Home::new();
    let mut pty = Pty::breakglass((80, 24), &[], &[("BREAKGLASS_HOME", home.path()), ("TERM", "dumb")]);
    assert_eq!(pty.wait_exit().code(), Some(2));
    pty.wait_text("TERM=dumb");
}

#[test]
fn nothing_is_drawn_while_nothing_changes() {
    let home = Home::new();
    let pty = home.console((80, 24), &[]);
    pty.wait_text("Database corruption");
    // A key that changes something, so that everything before it has been drawn.
    pty.keys("?");
    pty.wait_text("what can be done here");
    pty.keys("esc");
    pty.wait("the help is gone", |s| !s.contains("what can be done here"));
    let frames = pty.frames();
    // Another process's work is the measure of time passing: the console could have drawn many frames in it.
    for _ in 0..40 {
        std::process::Command::new("true").status().unwrap();
    }
    assert_eq!(pty.frames(), frames);
}

#[test]
fn no_color_writes_no_colour_and_keeps_the_selection() {
    let home = Home::new();
    let pty = Pty::breakglass(
        (80, 24),
        &[],
        &[("BREAKGLASS_HOME", home.path()), ("NO_COLOR", "1"), ("COLORTERM", "truecolor")],
    );
    pty.wait_text("Database corruption");
    pty.wait_text("can be drilled");
    let bytes = pty.bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("\x1b[38;") && !text.contains("\x1b[48;"), "a colour was written");
    assert!(!text.contains("\x1b[m"), "a reset in the middle of a style erases the selection");
    assert!(text.contains("\x1b[7m"), "nothing is reversed");
}

/// The bytes of frames as a terminal gets them, drawn into a vector.
fn stream(theme: &Theme, apps: &mut [breakglass::app::App]) -> (Vec<u8>, vt100::Parser) {
    let keymap = Default::default();
    let look = Look { theme, keymap: &keymap, ascii: false };
    let mut screen = Screen::new(Vec::new(), 80, 24).unwrap();
    for app in apps {
        screen.draw(|frame| drop(draw(frame.buffer_mut(), app, &look))).unwrap();
    }
    let bytes = screen.sink().clone();
    let mut parser = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
    parser.process(&bytes);
    (bytes, parser)
}

#[test]
fn in_mono_the_selected_row_is_reversed_on_a_real_terminal() {
    let theme = Theme::named("mono", Depth::Mono).unwrap();
    let mut first = desk::with_incident((80, 24), 343, desk::recovering_data(Kind::Real));
    let mut second = first.clone();
    desk::press(&mut second, "k k");
    let (_, parser) = stream(&theme, &mut [first.clone(), second.clone()]);
    let reversed: Vec<u16> = (0..24).filter(|y| parser.screen().cell(*y, 3).is_some_and(|c| c.inverse())).collect();
    let row = desk::text(&desk::render(&mut second)).lines().position(|l| l.starts_with('▶')).unwrap() as u16;
    assert!(reversed.contains(&row), "row {row} is not among the reversed rows {reversed:?}");
    desk::render(&mut first);
}

#[test]
fn every_frame_is_one_synchronized_update() {
    let theme = Theme::named("default", Depth::True).unwrap();
    let app = desk::with_incident((80, 24), 343, desk::recovering_data(Kind::Real));
    let mut next = app.clone();
    desk::press(&mut next, "t");
    let (bytes, parser) = stream(&theme, &mut [app, next.clone()]);
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(text.matches("\x1b[?2026h").count(), 2);
    assert_eq!(text.matches("\x1b[?2026l").count(), 2);
    assert!(text.starts_with("\x1b[?2026h") && text.ends_with("\x1b[?2026l"));
    // What an emulator makes of it is what was meant.
    let shown: String = parser.screen().rows(0, 80).map(|r| format!("{}\n", r.trim_end())).collect();
    assert_eq!(shown, desk::text(&desk::render(&mut next)));
}

#[test]
fn output_cannot_reach_the_terminal_raw() {
    let mut data = desk::recovering_data(Kind::Real);
    let run = *data.outputs.keys().next().unwrap();
    let nasty = ["\x1b[2J\x1b[31mgone", "\x1b]52;c;ZXZpbA==\x07title", "a\u{202e}b\u{200b}c", "tab\there\rover"];
    data.outputs.get_mut(&run).unwrap().lines = desk::Memory::of(0, &nasty);
    let mut scenario = (*data.scenario).clone();
    // Even what did not pass the border, such as a plan's title, is kept off the terminal.
    scenario.steps[5].title = "\x1b[2JEvil \u{9b}31m title".into();
    data.scenario = scenario.into();
    let app = desk::with_incident((80, 24), 343, data);
    let theme = Theme::named("mono", Depth::Mono).unwrap();
    let (bytes, _) = stream(&theme, &mut [app]);
    let text = String::from_utf8_lossy(&bytes);
    for raw in ["\x1b[2J", "\x1b]52", "\u{202e}", "\u{9b}", "\x07"] {
        assert!(!text.contains(raw), "{raw:?} was written");
    }
}

static PANICS: AtomicU32 = AtomicU32::new(0);

/// Run as a program of its own by [`a_panic_leaves_a_sane_terminal`]; does nothing otherwise.
#[test]
fn panics_when_asked() {
    if std::env::var_os("BREAKGLASS_TEST_PANIC").is_none() {
        return;
    }
    PANICS.fetch_add(1, Ordering::SeqCst);
    let mut terminal = breakglass::tui::terminal::Terminal::enter(false).unwrap();
    breakglass::tui::terminal::set_farewell("Come back with: breakglass resume x");
    terminal
        .screen()
        .draw(|frame| frame.buffer_mut().set_string(0, 0, "before the fault", ratatui::style::Style::new()))
        .unwrap();
    panic!("a fault of its own");
}

#[test]
fn a_panic_leaves_a_sane_terminal() {
    let me = std::env::current_exe().unwrap();
    let args = ["terminal::panics_when_asked", "--exact", "--nocapture", "--test-threads=1"];
    let mut pty = Pty::spawn((80, 24), &me, &args, &[("BREAKGLASS_TEST_PANIC", "1")]);
    pty.wait_exit();
    pty.wait_sane();
    // The last thing it says: what comes before it has been read then.
    pty.wait_text("breakglass resume x");
    let bytes = pty.bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("before") && text.contains("a fault of its own"), "{text}");
    assert!(text.contains("breakglass resume x"), "{text}");
    let left = text.find("\x1b[?1049l").unwrap();
    assert!(text.find("a fault of its own").unwrap() > left, "the message came before the terminal was given back");
}
