//! The terminal: taken over and given back, whatever happens in between.
//!
//! It is given back on drop, on a panic, before a suspend and before the process ends by a signal. Each frame is one
//! write, bracketed as a synchronized update, so that no half-drawn screen shows.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, queue};
use ratatui::Frame;
use ratatui::backend::CrosstermBackend;
use rustix::termios::{Termios, tcgetattr};

use crate::error::{Context, Error, Result};

/// Whether the terminal is ours at the moment; read by the panic hook.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// A panic happened on some thread while the terminal was ours: it has been given back already, the loop has to end.
pub(super) static PANIC: tokio::sync::Notify = tokio::sync::Notify::const_new();
/// What is printed after the terminal was given back in an emergency: how to come back.
static FAREWELL: Mutex<String> = Mutex::new(String::new());

/// A buffer that ratatui writes a frame into and that is sent in one piece.
#[derive(Debug, Clone, Default)]
struct FrameBuffer(Rc<RefCell<Vec<u8>>>);

impl Write for FrameBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A screen that frames are drawn on and whose bytes go to `W`: the real terminal, or a vector in a test.
pub struct Screen<W: Write> {
    inner: ratatui::Terminal<CrosstermBackend<FrameBuffer>>,
    buffer: FrameBuffer,
    sink: W,
    size: (u16, u16),
}

/// A screen on which nothing was drawn yet.
fn blank(buffer: &FrameBuffer, width: u16, height: u16) -> Result<ratatui::Terminal<CrosstermBackend<FrameBuffer>>> {
    let area = ratatui::layout::Rect::new(0, 0, width, height);
    ratatui::Terminal::with_options(
        CrosstermBackend::new(buffer.clone()),
        ratatui::TerminalOptions { viewport: ratatui::Viewport::Fixed(area) },
    )
    .state(|| "cannot prepare the screen".into())
}

impl<W: Write> Screen<W> {
    /// A screen of a size, writing to `sink`. Colour is always written as asked for: what to ask is decided by the
    /// theme, because crossterm's own handling of `NO_COLOR` (0.29) writes a reset in the middle of a style, which
    /// erases the reverse video of a selected row.
    pub fn new(sink: W, width: u16, height: u16) -> Result<Self> {
        crossterm::style::force_color_output(true);
        let buffer = FrameBuffer::default();
        let inner = blank(&buffer, width, height)?;
        Ok(Self { inner, buffer, sink, size: (width, height) })
    }

    /// Draws one frame and sends it in one write. Returns how long that took.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> Result<Duration> {
        let begun = Instant::now();
        let failed = || "cannot write to the terminal".to_string();
        queue!(self.buffer, BeginSynchronizedUpdate).state(failed)?;
        self.inner.draw(render).state(failed)?;
        queue!(self.buffer, EndSynchronizedUpdate).state(failed)?;
        self.send().state(failed)?;
        Ok(begun.elapsed())
    }

    /// Takes another size; the next frame is drawn whole.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        self.size = (width, height);
        self.redraw()
    }

    /// Forgets what is on the terminal: the next frame is drawn whole. The library's own way would ask the terminal
    /// where its cursor is and wait for the answer, which not every terminal gives.
    pub fn redraw(&mut self) -> Result<()> {
        self.inner = blank(&self.buffer, self.size.0, self.size.1)?;
        queue!(self.buffer, crossterm::terminal::Clear(crossterm::terminal::ClearType::All))
            .state(|| "cannot clear the screen".into())
    }

    /// Writes a sequence that is not part of a frame (clipboard, bell).
    pub fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.0.borrow_mut().extend_from_slice(bytes);
        self.send().state(|| "cannot write to the terminal".into())
    }

    fn send(&mut self) -> io::Result<()> {
        let mut bytes = self.buffer.0.borrow_mut();
        let result = self.sink.write_all(&bytes).and_then(|()| self.sink.flush());
        bytes.clear();
        result
    }

    /// What the frames were written to.
    pub fn sink(&self) -> &W {
        &self.sink
    }
}

/// The real terminal, taken over. Given back on drop.
pub struct Terminal {
    screen: Screen<std::fs::File>,
    mouse: bool,
    /// How the terminal was set before; kept only to know that there was one.
    _before: Termios,
}

impl Terminal {
    /// Takes the terminal over. `farewell` is printed when it has to be given back in an emergency.
    pub fn enter(mouse: bool) -> Result<Self> {
        let no_terminal = || {
            Error::usage("this is not a terminal").hint(
                "The console needs one; without it use the commands with --json, or `breakglass drill --unattended`.",
            )
        };
        let before = tcgetattr(io::stdin()).map_err(|_| no_terminal())?;
        tcgetattr(io::stdout()).map_err(|_| no_terminal())?;
        if std::env::var("TERM").as_deref() == Ok("dumb") {
            return Err(Error::usage("the terminal cannot place text (TERM=dumb)")
                .hint("Set TERM to what it is, such as xterm-256color, or use the commands with --json."));
        }
        let out = rustix::io::dup(io::stdout()).state(|| "cannot write to the terminal".into())?;
        let (width, height) = size();
        install_panic_hook();
        let mut terminal =
            Self { screen: Screen::new(std::fs::File::from(out), width, height)?, mouse, _before: before };
        terminal.take()?;
        Ok(terminal)
    }

    fn take(&mut self) -> Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode().target(|| "cannot set the terminal to raw mode".into())?;
        let failed = || "cannot write to the terminal".to_string();
        queue!(self.screen.buffer, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide).state(failed)?;
        if self.mouse {
            queue!(self.screen.buffer, EnableMouseCapture).state(failed)?;
        }
        self.screen.send().state(failed)?;
        let (width, height) = size();
        self.screen.resize(width, height)
    }

    /// The screen to draw on.
    pub fn screen(&mut self) -> &mut Screen<std::fs::File> {
        &mut self.screen
    }

    /// Switches the mouse on or off.
    pub fn set_mouse(&mut self, on: bool) -> Result<()> {
        self.mouse = on;
        let failed = || "cannot write to the terminal".to_string();
        if on {
            queue!(self.screen.buffer, EnableMouseCapture).state(failed)?;
        } else {
            queue!(self.screen.buffer, DisableMouseCapture).state(failed)?;
        }
        self.screen.send().state(failed)
    }

    /// Gives the terminal back, stops this process group, and takes the terminal again when it is continued.
    ///
    /// # Errors
    /// Refuses when no shell could continue us: we are the session's own group (started by ssh or tmux directly).
    pub fn suspend(&mut self) -> Result<()> {
        let group = rustix::process::getpgrp();
        let session = rustix::process::getsid(None).target(|| "cannot read the session".into())?;
        if group == session {
            return Err(Error::refused("there is no shell to go back to")
                .hint("The console was started as the session's own program; use another window."));
        }
        give_back();
        // The whole group, as a shell's job: under `cargo run` the shell waits for cargo, not for us.
        rustix::process::kill_current_process_group(rustix::process::Signal::STOP)
            .target(|| "cannot stop the process".into())?;
        // Continued from here on. The shell may still be setting the terminal up: try a few times.
        let mut tries = 0;
        loop {
            match self.take() {
                Ok(()) => return Ok(()),
                Err(e) if tries >= 20 => return Err(e),
                Err(_) => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// The terminal's size; 80×24 when it does not say.
pub fn size() -> (u16, u16) {
    match crossterm::terminal::size() {
        Ok((w, h)) if w > 0 && h > 0 => (w, h),
        _ => (80, 24),
    }
}

/// What to print after an emergency: where the incident is and the command that resumes it.
pub fn set_farewell(text: &str) {
    if let Ok(mut farewell) = FAREWELL.lock() {
        farewell.clear();
        farewell.push_str(text);
    }
}

/// The text set by [`set_farewell`].
pub fn farewell() -> String {
    FAREWELL.lock().map(|f| f.clone()).unwrap_or_default()
}

/// Gives the terminal back if it is ours. Safe to call at any time and twice; errors are of no use here.
pub fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut bytes = Vec::new();
    // An unfinished synchronized update would keep the terminal from showing anything.
    let _ = queue!(
        bytes,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        crossterm::style::SetAttribute(crossterm::style::Attribute::Reset),
        LeaveAlternateScreen,
        cursor::Show
    );
    let mut out = io::stdout();
    let _ = out.write_all(&bytes);
    let _ = out.flush();
    let _ = disable_raw_mode();
}

/// On a panic: terminal first, then the message, then how to come back.
fn install_panic_hook() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::SeqCst) {
        return;
    }
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let ours = TAKEN.load(Ordering::SeqCst);
        give_back();
        previous(info);
        if ours {
            PANIC.notify_one();
            let _ =
                writeln!(io::stderr(), "breakglass stopped because of a fault of its own; nothing recorded is lost.");
            let text = farewell();
            if !text.is_empty() {
                let _ = writeln!(io::stderr(), "{text}");
            }
        }
    }));
}
