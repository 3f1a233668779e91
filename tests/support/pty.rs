//! A program in a terminal of its own: keys go in, a terminal emulator shows what a person would see. Waits are for a
//! predicate with a deadline; when it passes, the last screen is in the message.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use breakglass::app::key::{Code, parse_keys};

/// How long something may take that a loaded machine has to do.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The end of a synchronized update: one for each frame.
const FRAME_END: &[u8] = b"\x1b[?2026l";
/// The beginning of one: what comes until its end is half a screen, which nobody sees.
const FRAME_BEGIN: &[u8] = b"\x1b[?2026h";

/// After this long without a byte half a frame is all there is: the program died in the middle of it.
const ABANDONED: Duration = Duration::from_secs(1);

struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
    frames: usize,
    /// In the middle of a frame, and when the last byte came.
    inside: bool,
    last: Instant,
    ended: bool,
}

impl Seen {
    fn whole(&self) -> bool {
        !self.inside || self.ended || self.last.elapsed() > ABANDONED
    }
}

/// A program in its terminal. Dropping it kills the program.
pub struct Pty {
    master: File,
    slave: OwnedFd,
    child: Child,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Pty {
    /// Starts `program` as the leader of a session with this terminal. The environment is empty but for `envs` and PATH.
    pub fn spawn<S: AsRef<OsStr>>(size: (u16, u16), program: S, args: &[&str], envs: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program).args(args).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("TERM", "xterm-256color");
        for (k, v) in envs {
            command.env(k, v);
        }
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        tcsetwinsize(&master, winsize(size)).unwrap();
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("setsid of util-linux");
        let seen = Arc::new((
            Mutex::new(Seen {
                parser: emulator(size),
                bytes: Vec::new(),
                frames: 0,
                inside: false,
                last: Instant::now(),
                ended: false,
            }),
            Condvar::new(),
        ));
        let master = File::from(master);
        let (mut reader, shared) = (master.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0u8; 65536];
            loop {
                let n = reader.read(&mut buffer).unwrap_or(0);
                let Ok(mut s) = shared.0.lock() else { return };
                if n == 0 {
                    s.ended = true;
                    shared.1.notify_all();
                    return;
                }
                s.parser.process(&buffer[..n]);
                s.bytes.extend_from_slice(&buffer[..n]);
                // The end of a frame may lie across two reads.
                let from = s.bytes.len().saturating_sub(n + FRAME_END.len() - 1);
                s.frames += count(&s.bytes[from..], FRAME_END);
                let at = |what: &[u8]| s.bytes[from..].windows(what.len()).rposition(|w| w == what);
                match (at(FRAME_BEGIN), at(FRAME_END)) {
                    (None, None) => {}
                    (begin, end) => s.inside = begin > end,
                }
                s.last = Instant::now();
                shared.1.notify_all();
            }
        });
        Self { master, slave, child, seen }
    }

    /// Starts our own program.
    pub fn breakglass(size: (u16, u16), args: &[&str], envs: &[(&str, &str)]) -> Self {
        Self::spawn(size, env!("CARGO_BIN_EXE_breakglass"), args, envs)
    }

    /// Writes bytes as if typed.
    pub fn send(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    /// Types keys written as in the key file: `j j enter ctrl-z`.
    pub fn keys(&self, keys: &str) {
        for key in parse_keys(keys).unwrap() {
            let bytes: Vec<u8> = match key.code {
                Code::Char(c) if key.ctrl => vec![(c.to_ascii_lowercase() as u8) & 0x1f],
                Code::Char(c) => c.to_string().into_bytes(),
                Code::Enter => b"\r".to_vec(),
                Code::Esc => b"\x1b".to_vec(),
                Code::Tab => b"\t".to_vec(),
                Code::BackTab => b"\x1b[Z".to_vec(),
                Code::Backspace => b"\x7f".to_vec(),
                Code::Delete => b"\x1b[3~".to_vec(),
                Code::Up => b"\x1b[A".to_vec(),
                Code::Down => b"\x1b[B".to_vec(),
                Code::Right => b"\x1b[C".to_vec(),
                Code::Left => b"\x1b[D".to_vec(),
                Code::Home => b"\x1b[H".to_vec(),
                Code::End => b"\x1b[F".to_vec(),
                Code::PageUp => b"\x1b[5~".to_vec(),
                Code::PageDown => b"\x1b[6~".to_vec(),
                Code::F(n) => vec![0x1b, b'O', b'P' + n - 1],
            };
            self.send(&bytes);
        }
    }

    /// What the terminal shows, rows without blanks at their ends.
    pub fn screen(&self) -> String {
        let mut s = self.seen.0.lock().unwrap();
        while !s.whole() {
            s = self.seen.1.wait_timeout(s, ABANDONED).unwrap().0;
        }
        shown(&s.parser)
    }

    /// Waits until the screen is as wanted and returns it.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for(what, DEADLINE, |s| wanted(&shown(&s.parser)))
    }

    /// Waits until the screen holds a text and returns the screen.
    pub fn wait_text(&self, text: &str) -> String {
        self.wait(&format!("{text:?} on the screen"), |s| s.contains(text))
    }

    /// As [`Pty::wait`], with another deadline.
    pub fn wait_long(&self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for(what, limit, |s| wanted(&shown(&s.parser)))
    }

    fn wait_for(&self, what: &str, limit: Duration, done: impl Fn(&Seen) -> bool) -> String {
        let begun = Instant::now();
        let mut s = self.seen.0.lock().unwrap();
        while !(s.whole() && done(&s)) {
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() || s.ended {
                let why = if s.ended { "the program ended" } else { "time is up" };
                panic!("waited for {what}, but {why}; the screen:\n{}", shown(&s.parser));
            }
            s = self.seen.1.wait_timeout(s, left.min(Duration::from_millis(500))).unwrap().0;
        }
        shown(&s.parser)
    }

    /// Whether the terminal is on its alternate screen.
    pub fn alternate(&self) -> bool {
        self.seen.0.lock().unwrap().parser.screen().alternate_screen()
    }

    /// Whether the cursor is hidden.
    pub fn cursor_hidden(&self) -> bool {
        self.seen.0.lock().unwrap().parser.screen().hide_cursor()
    }

    /// Whether the terminal echoes and edits lines, as a shell needs it.
    pub fn is_sane(&self) -> bool {
        let modes = tcgetattr(self.slave.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits until the terminal is given back: lines edited, main screen, cursor shown.
    pub fn wait_sane(&self) {
        let begun = Instant::now();
        while !(self.is_sane() && !self.alternate() && !self.cursor_hidden()) {
            assert!(begun.elapsed() < DEADLINE, "the terminal was not given back; the screen:\n{}", self.screen());
            std::thread::yield_now();
        }
    }

    /// All bytes the program wrote so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.0.lock().unwrap().bytes.clone()
    }

    /// Frames drawn so far.
    pub fn frames(&self) -> usize {
        self.seen.0.lock().unwrap().frames
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, size: (u16, u16)) {
        self.seen.0.lock().unwrap().parser.screen_mut().set_size(nonzero(size.1), nonzero(size.0));
        tcsetwinsize(&self.master, winsize(size)).unwrap();
    }

    /// Process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the program has ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the program does not end; the screen:\n{}", self.screen());
            std::thread::yield_now();
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shown(parser: &vt100::Parser) -> String {
    let screen = parser.screen();
    let columns = screen.size().1.get();
    screen.rows(0, columns).map(|r| format!("{}\n", r.trim_end())).collect()
}

fn winsize((columns, rows): (u16, u16)) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|w| *w == what).count()
}

fn nonzero(n: u16) -> std::num::NonZero<u16> {
    std::num::NonZero::new(n).expect("a size above zero")
}

fn emulator((columns, rows): (u16, u16)) -> vt100::Parser {
    vt100::Parser::new(nonzero(rows), nonzero(columns), 0)
}
