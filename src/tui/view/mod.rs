//! What is seen: one file per screen or panel. Views take the app by shared reference and change nothing; [`draw`] hands
//! back what was where, for page moves and the mouse.
//!
//! ```text
//! every screen    header (1 to 4 rows)
//!                 body
//!                 rule with the last message
//!                 the one obvious next thing
//!                 keys that are valid now
//! ```

pub mod axis;
pub mod canvas;
mod detail;
mod dialog;
mod dialog_fields;
mod dialog_people;
mod header;
mod hints;
mod home;
mod incident;
mod messages;
mod moment;
mod output;
mod palette;
mod reference;
mod status;
mod timeline;
mod waiting;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::{App, MIN_SIZE, Screen, Shown};
use crate::tui::keymap::Keymap;
use crate::tui::theme::{Role, Theme};
use canvas::{ASCII, Canvas, Glyphs, UNICODE, p};

/// How things are shown.
#[derive(Debug)]
pub struct Look<'a> {
    /// Styles.
    pub theme: &'a Theme,
    /// Keys.
    pub keymap: &'a Keymap,
    /// Glyphs and borders in ASCII.
    pub ascii: bool,
}

impl Look<'_> {
    /// Glyphs.
    pub fn glyphs(&self) -> &'static Glyphs {
        if self.ascii { &ASCII } else { &UNICODE }
    }
}

/// Draws the whole screen.
pub fn draw(buf: &mut Buffer, app: &App, look: &Look<'_>) -> Shown {
    let mut canvas = Canvas::new(buf, look);
    let area = canvas.area();
    canvas.clear(area);
    let mut shown = Shown::default();
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        too_small(&mut canvas);
        return shown;
    }
    let foot = 3;
    let body = Rect { height: area.height - foot, ..area };
    match app.screen() {
        Screen::Home => home::draw(&mut canvas, body, app, &mut shown),
        Screen::Plan => incident::draw_plan(&mut canvas, body, app, &mut shown),
        Screen::Incident => incident::draw(&mut canvas, body, app, &mut shown),
        Screen::Timeline => timeline::draw(&mut canvas, body, app, &mut shown),
        Screen::Moment => moment::draw(&mut canvas, body, app, &mut shown),
        Screen::Reference => reference::draw(&mut canvas, body, app, &mut shown),
        Screen::Waiting => waiting::draw(&mut canvas, body, app),
        Screen::Messages => messages::draw(&mut canvas, body, app, &mut shown),
    }
    hints::draw(&mut canvas, Rect { y: area.bottom() - foot, height: foot, ..area }, app);
    canvas.weld();
    if let Some(open) = app.dialogs.last() {
        dialog::draw(&mut canvas, Rect { height: area.height - 1, ..area }, app, open, &mut shown);
    }
    shown
}

/// The window cannot show what a key would do, so keys do nothing; it says what it needs.
fn too_small(canvas: &mut Canvas<'_>) {
    let area = canvas.area();
    let lines = [
        "breakglass needs a larger window".to_string(),
        format!("at least {}x{}, this is {}x{}", MIN_SIZE.0, MIN_SIZE.1, area.width, area.height),
        "keys do nothing until then; actions go on".to_string(),
        "ctrl-c twice leaves".to_string(),
    ];
    let top = area.height.saturating_sub(lines.len() as u16) / 2;
    for (i, text) in lines.iter().enumerate() {
        let indent = (area.width as usize).saturating_sub(canvas::width(text)) / 2;
        let role = if i == 0 { Role::Accent } else { Role::Text };
        let at = Rect { x: area.x + indent as u16, width: area.width - indent as u16, ..area };
        canvas.line(at, top + i as u16, &[p(role, text.clone())]);
    }
}

/// The first row to show of a list, so that the selected one is in sight with a row around it where there is room.
fn scroll_to(selected: usize, rows: usize, len: usize) -> usize {
    if len <= rows || rows == 0 {
        return 0;
    }
    let centre = selected.saturating_sub(rows / 2);
    centre.min(len - rows)
}
