//! Writing on the screen: clean, clipped text in roles; lines between panes; wrapping.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::Look;
use crate::tui::theme::Role;

/// A piece of a line.
pub type Piece = (Role, String);

/// A piece.
pub fn p(role: Role, text: impl Into<String>) -> Piece {
    (role, text.into())
}

/// Columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Columns of a line of pieces.
pub fn pieces_width(pieces: &[Piece]) -> usize {
    pieces.iter().map(|(_, t)| width(t)).sum()
}

/// Glyphs, in Unicode or ASCII.
#[derive(Debug, Clone, Copy)]
pub struct Glyphs {
    /// Mark of the selected row.
    pub cursor: &'static str,
    /// A step that is open.
    pub open: &'static str,
    /// Being worked on or running.
    pub active: &'static str,
    /// Done, succeeded, passed.
    pub done: &'static str,
    /// Left out.
    pub skipped: &'static str,
    /// Failed.
    pub failed: &'static str,
    /// Outcome unknown.
    pub unknown: &'static str,
    /// Stopped.
    pub stopped: &'static str,
    /// Full part of a bar.
    pub full: &'static str,
    /// Empty part of a bar.
    pub empty: &'static str,
    /// Something was cut off.
    pub more: &'static str,
    /// From here to there.
    pub arrow: &'static str,
    /// At most.
    pub at_most: &'static str,
    /// Between parts of a line.
    pub dot: &'static str,
    /// From–to.
    pub dash: &'static str,
    /// Cursor of a text field.
    pub caret: &'static str,
    /// Horizontal, vertical, and the joints: down, up, right, left, and all.
    pub lines: [&'static str; 7],
    /// The same horizontal line, heavy: for what is real; its joints down and up.
    pub heavy: [&'static str; 3],
    /// Corners of a box: top left, top right, bottom left, bottom right.
    pub corners: [&'static str; 4],
    /// A ticked and an open box.
    pub boxes: [&'static str; 2],
}

/// Unicode glyphs, all of them one column wide and in the fonts of consoles.
pub const UNICODE: Glyphs = Glyphs {
    cursor: "▶",
    open: "·",
    active: "●",
    done: "✓",
    skipped: "»",
    failed: "✗",
    unknown: "?",
    stopped: "■",
    full: "█",
    empty: "░",
    more: "…",
    arrow: "→",
    at_most: "≤",
    dot: "·",
    dash: "–",
    caret: "▏",
    lines: ["─", "│", "┬", "┴", "├", "┤", "┼"],
    heavy: ["━", "┯", "┷"],
    corners: ["╭", "╮", "╰", "╯"],
    boxes: ["[✓]", "[ ]"],
};

/// The same in ASCII.
pub const ASCII: Glyphs = Glyphs {
    cursor: ">",
    open: ".",
    active: "*",
    done: "+",
    skipped: "-",
    failed: "x",
    unknown: "?",
    stopped: "#",
    full: "#",
    empty: ".",
    more: "~",
    arrow: ">",
    at_most: "<=",
    dot: "-",
    dash: "-",
    caret: "_",
    lines: ["-", "|", "+", "+", "+", "+", "+"],
    heavy: ["=", "+", "+"],
    corners: ["+", "+", "+", "+"],
    boxes: ["[x]", "[ ]"],
};

/// A buffer and how it is written on.
pub struct Canvas<'a> {
    buf: &'a mut Buffer,
    /// Walls drawn: column, first row, row after the last.
    walls: Vec<(u16, u16, u16)>,
    /// Rules drawn: first column, column after the last, row, role, heavy.
    rules: Vec<(u16, u16, u16, Role, bool)>,
    /// Theme, keys, glyphs.
    pub look: &'a Look<'a>,
}

impl<'a> Canvas<'a> {
    /// A canvas on a buffer.
    pub fn new(buf: &'a mut Buffer, look: &'a Look<'a>) -> Self {
        Self { buf, walls: Vec::new(), rules: Vec::new(), look }
    }

    /// The whole screen.
    pub fn area(&self) -> Rect {
        self.buf.area
    }

    /// Glyphs.
    pub fn glyphs(&self) -> &'static Glyphs {
        self.look.glyphs()
    }

    /// Empties an area in the theme's base style.
    pub fn clear(&mut self, area: Rect) {
        let base = self.look.theme.base();
        let area = area.intersection(self.buf.area);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                self.buf[(x, y)].reset();
                self.buf[(x, y)].set_style(base);
            }
        }
    }

    /// Lays a role over an area, keeping its text.
    pub fn tint(&mut self, area: Rect, role: Role) {
        let style = self.look.theme.style(role);
        self.buf.set_style(area.intersection(self.buf.area), style);
    }

    /// Writes one line of pieces into a row of an area, cut with `…` where it does not fit. Returns the columns used.
    pub fn line(&mut self, area: Rect, row: u16, pieces: &[Piece]) -> u16 {
        if row >= area.height || area.width == 0 {
            return 0;
        }
        let (y, right) = (area.y + row, area.right());
        let fits = pieces_width(pieces) <= area.width as usize;
        let mut x = area.x;
        for (role, text) in pieces {
            let style = self.look.theme.style(*role);
            let end = if fits { right } else { right.saturating_sub(1) };
            let (next, cut) = self.put(x, y, end, text, style);
            x = next;
            if cut {
                let more = self.glyphs().more;
                self.put(x, y, right, more, style);
                return area.width;
            }
        }
        x - area.x
    }

    /// Writes a line of pieces at the right end of a row; nothing when it does not fit. Returns the columns used.
    pub fn right(&mut self, area: Rect, row: u16, pieces: &[Piece]) -> u16 {
        let w = pieces_width(pieces) as u16;
        if w > area.width {
            return 0;
        }
        self.line(Rect { x: area.right() - w, width: w, ..area }, row, pieces)
    }

    /// Writes clean text up to the column `end`. Returns where it stopped and whether something was cut.
    fn put(&mut self, x: u16, y: u16, end: u16, text: &str, style: Style) -> (u16, bool) {
        let screen = self.buf.area;
        if y < screen.top() || y >= screen.bottom() {
            return (x, false);
        }
        let end = end.min(screen.right());
        let mut x = x;
        for grapheme in text.graphemes(true) {
            let w = grapheme.width() as u16;
            // Whatever is not printable was cleaned at the border already; this keeps a mistake there off the terminal.
            if w == 0 || grapheme.chars().any(char::is_control) {
                continue;
            }
            if x + w > end {
                return (x, true);
            }
            self.buf[(x, y)].set_symbol(grapheme).set_style(style);
            for i in 1..w {
                self.buf[(x + i, y)].reset();
                self.buf[(x + i, y)].set_style(style);
            }
            x += w;
        }
        (x, false)
    }

    /// A horizontal line through a row, with a title and something at its right end.
    pub fn rule(&mut self, area: Rect, row: u16, role: Role, heavy: bool, title: &[Piece], right: &[Piece]) {
        if row >= area.height {
            return;
        }
        let g = self.glyphs();
        let dash = if heavy { g.heavy[0] } else { g.lines[0] };
        self.rules.push((area.x, area.right(), area.y + row, role, heavy));
        self.line(area, row, &[p(role, dash.repeat(area.width as usize))]);
        let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
        let mut used = 0;
        if !title.is_empty() && inner.width > 4 {
            let mut pieces = vec![p(role, " ")];
            pieces.extend_from_slice(title);
            pieces.push(p(role, " "));
            used = self.line(inner, row, &pieces);
        }
        if !right.is_empty() {
            let mut pieces = vec![p(role, " ")];
            pieces.extend_from_slice(right);
            pieces.push(p(role, " "));
            if pieces_width(&pieces) + used as usize + 1 <= inner.width as usize {
                self.right(inner, row, &pieces);
            }
        }
    }

    /// A vertical line at column `x` of the screen from row `top` to before `bottom`.
    pub fn wall(&mut self, x: u16, top: u16, bottom: u16, role: Role) {
        let g = self.glyphs();
        let style = self.look.theme.style(role);
        for y in top..bottom {
            self.put(x, y, x + 1, g.lines[1], style);
        }
        self.walls.push((x, top, bottom));
    }

    /// Joins walls and rules where they meet.
    pub fn weld(&mut self) {
        let g = self.glyphs();
        let (walls, rules) = (std::mem::take(&mut self.walls), std::mem::take(&mut self.rules));
        let both = |x: u16, y: u16| {
            let at = |end: &dyn Fn(u16, u16) -> bool| rules.iter().any(|r| r.2 == y && end(r.0, r.1));
            at(&|from, _| from == x + 1) && at(&|_, to| to == x)
        };
        for (x, top, bottom) in walls {
            for &(from, to, y, role, heavy) in &rules {
                let over = from <= x && x < to;
                let symbol = match (over, heavy) {
                    (true, false) if y + 1 == top => g.lines[2],
                    (true, true) if y + 1 == top => g.heavy[1],
                    (true, false) if y == bottom => g.lines[3],
                    (true, true) if y == bottom => g.heavy[2],
                    // Rules of both sides in one row: neither end of them is to be seen.
                    (false, _) if (top..bottom).contains(&y) && (from == x + 1 || to == x) && both(x, y) => g.lines[6],
                    (false, _) if (top..bottom).contains(&y) && from == x + 1 => g.lines[4],
                    (false, _) if (top..bottom).contains(&y) && to == x => g.lines[5],
                    _ => continue,
                };
                // A rule's title may stand where the wall meets it: words stay.
                let there = self.buf.cell((x, y)).map_or("", |c| c.symbol());
                if there == g.lines[0] || there == g.lines[1] || there == g.heavy[0] {
                    let style = self.look.theme.style(role);
                    self.put(x, y, x + 1, symbol, style);
                }
            }
        }
    }

    /// An empty box with a title.
    pub fn frame(&mut self, area: Rect, role: Role, title: &[Piece]) {
        self.clear(area);
        let g = self.glyphs();
        let n = area.width.saturating_sub(2) as usize;
        let edge = |l: &str, r: &str| vec![p(role, format!("{l}{}{r}", g.lines[0].repeat(n)))];
        self.line(area, 0, &edge(g.corners[0], g.corners[1]));
        self.line(area, area.height.saturating_sub(1), &edge(g.corners[2], g.corners[3]));
        for row in 1..area.height.saturating_sub(1) {
            self.line(area, row, &[p(role, g.lines[1])]);
            self.right(area, row, &[p(role, g.lines[1])]);
        }
        if area.width > 6 && !title.is_empty() {
            let mut pieces = vec![p(role, " ")];
            pieces.extend_from_slice(title);
            pieces.push(p(role, " "));
            self.line(Rect { x: area.x + 2, width: area.width - 4, ..area }, 0, &pieces);
        }
    }
}

/// The pieces that fit, the least important left out first. Each part has a rank: higher stays longer.
pub fn fit(parts: Vec<(u8, Vec<Piece>)>, gap: &str, room: usize) -> Vec<Piece> {
    let mut parts: Vec<(u8, Vec<Piece>)> = parts.into_iter().filter(|(_, p)| !p.is_empty()).collect();
    let total = |parts: &[(u8, Vec<Piece>)]| {
        parts.iter().map(|(_, p)| pieces_width(p)).sum::<usize>() + width(gap) * parts.len().saturating_sub(1)
    };
    while parts.len() > 1 && total(&parts) > room {
        let Some(worst) = parts.iter().enumerate().rev().min_by_key(|(_, (rank, _))| *rank).map(|(i, _)| i) else {
            break;
        };
        parts.remove(worst);
    }
    let mut out = Vec::new();
    for (i, (_, part)) in parts.into_iter().enumerate() {
        if i > 0 {
            out.push(p(Role::Muted, gap));
        }
        out.extend(part);
    }
    out
}

/// Words wrapped into lines of at most `columns`; a word that is longer is broken. `hang` columns are left free in all
/// lines but the first.
pub fn wrap(text: &str, columns: usize, hang: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let indent = " ".repeat(hang.min(columns / 2));
    for word in text.split_whitespace() {
        let mut word = word;
        loop {
            let gap = usize::from(!line.trim().is_empty());
            if width(&line) + gap + width(word) <= columns {
                if gap == 1 {
                    line.push(' ');
                }
                line.push_str(word);
                break;
            }
            if !line.trim().is_empty() {
                lines.push(std::mem::replace(&mut line, indent.clone()));
                continue;
            }
            // Alone on its line and still too long: break it where the column ends.
            let room = columns - width(&line);
            let mut used = 0;
            let mut cut = word.len();
            for (at, g) in word.grapheme_indices(true) {
                if used + g.width() > room && at > 0 {
                    cut = at;
                    break;
                }
                used += g.width();
            }
            line.push_str(&word[..cut]);
            word = &word[cut..];
            if word.is_empty() {
                break;
            }
            lines.push(std::mem::replace(&mut line, indent.clone()));
        }
    }
    if !line.trim().is_empty() {
        lines.push(line);
    }
    lines
}

/// Lines cut into rows of at most `columns`, nothing trimmed: for commands and output, which are shown as they are.
pub fn chop(line: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut rows = vec![String::new()];
    let mut used = 0;
    for g in line.graphemes(true) {
        let w = g.width();
        if used + w > columns && used > 0 {
            rows.push(String::new());
            used = 0;
        }
        if let Some(last) = rows.last_mut() {
            last.push_str(g);
        }
        used += w;
    }
    rows
}

/// A line of code as rows: nothing is lost or added, and rows end behind a blank where one lies in their second half, so
/// that words stay whole.
pub fn fold(line: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut rows = Vec::new();
    let mut rest = line;
    loop {
        let Some(row) = chop(rest, columns).into_iter().next().filter(|row| row.len() < rest.len()) else {
            rows.push(rest.to_string());
            return rows;
        };
        let blank = row.rfind(' ').map(|at| at + 1).filter(|at| width(&row[..*at]) * 2 > columns);
        let at = if rest[row.len()..].starts_with(' ') { row.len() } else { blank.unwrap_or(row.len()) };
        let (head, tail) = rest.split_at(at);
        rows.push(head.to_string());
        rest = tail;
    }
}

/// Markdown as rows of plain text: paragraphs wrapped, list items with a hanging indent, tables as they are.
pub fn prose(markdown: &str, columns: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut paragraph = String::new();
    let flush = |paragraph: &mut String, out: &mut Vec<String>| {
        if !paragraph.trim().is_empty() {
            let text = crate::app::words::plain(paragraph);
            let hang = list_mark(&text);
            out.extend(wrap(&text, columns, hang));
        }
        paragraph.clear();
    };
    for line in markdown.lines() {
        let trimmed = line.trim();
        let begins = list_mark(trimmed) > 0 || trimmed.starts_with(['|', '#', '>']);
        if trimmed.is_empty() || begins {
            flush(&mut paragraph, &mut out);
        }
        if trimmed.is_empty() {
            if out.last().is_some_and(|l| !l.is_empty()) {
                out.push(String::new());
            }
        } else if trimmed.starts_with('|') {
            out.push(trimmed.to_string());
        } else {
            paragraph.push_str(trimmed.trim_start_matches(['#', '>']).trim_start());
            paragraph.push(' ');
        }
    }
    flush(&mut paragraph, &mut out);
    while out.last().is_some_and(String::is_empty) {
        out.pop();
    }
    out
}

/// Columns of a list mark at the beginning of a line; 0 when there is none.
fn list_mark(text: &str) -> usize {
    if text.starts_with("- ") || text.starts_with("* ") || text.starts_with("+ ") {
        return 2;
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let after = &text[digits..];
    if digits > 0 && (after.starts_with(". ") || after.starts_with(") ")) { digits + 2 } else { 0 }
}

/// A bar of `columns` columns, filled to so many thousandths.
pub fn bar(g: &Glyphs, permille: u64, columns: usize) -> (String, String) {
    let full = (permille.min(1000) as usize * columns).div_ceil(1000).min(columns);
    let full = if permille < 1000 { full.min(columns.saturating_sub(1)) } else { full };
    (g.full.repeat(full), g.empty.repeat(columns - full))
}
