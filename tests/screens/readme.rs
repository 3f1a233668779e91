//! The picture and the key table of the README are made from the program, and are current.

use crate::support::console::*;
use breakglass::app::command::{COMMANDS, readme_table};
use breakglass::model::event::Kind;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

const CELL: (f64, f64) = (8.4, 18.0);

/// The screen as a picture: one rectangle for each run of one background, one text for each run of one style.
fn svg(buffer: &Buffer) -> String {
    let (w, h) = (buffer.area.width, buffer.area.height);
    let (width, height) = (f64::from(w) * CELL.0, f64::from(h) * CELL.1);
    let colour = |c: Color, or: &str| match c {
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        _ => or.to_string(),
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-12 -12 {:.0} {:.0}\" role=\"img\" aria-label=\"The console during a drill\">\n\
         <rect x=\"-12\" y=\"-12\" width=\"{:.0}\" height=\"{:.0}\" rx=\"8\" fill=\"#12151c\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">\n",
        width + 24.0,
        height + 24.0,
        width + 24.0,
        height + 24.0
    );
    for y in 0..h {
        let mut x = 0;
        while x < w {
            let first = &buffer[(x, y)];
            let mut end = x + 1;
            let same = |x: u16| {
                let c = &buffer[(x, y)];
                c.fg == first.fg && c.bg == first.bg && c.modifier == first.modifier
            };
            while end < w && same(end) {
                end += 1;
            }
            let text: String = (x..end).map(|x| buffer[(x, y)].symbol()).collect();
            let (left, top) = (f64::from(x) * CELL.0, f64::from(y) * CELL.1);
            let ground = colour(first.bg, "#12151c");
            if ground != "#12151c" {
                out.push_str(&format!(
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{ground}\"/>\n",
                    f64::from(end - x) * CELL.0,
                    CELL.1
                ));
            }
            if !text.trim().is_empty() {
                let bold = if first.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                // The length is given, so that columns line up whatever font is found.
                out.push_str(&format!(
                    "<text x=\"{left:.1}\" y=\"{:.1}\" fill=\"{}\"{bold} textLength=\"{:.1}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>\n",
                    top + 13.5, colour(first.fg, "#d6dbe6"), f64::from(end - x) * CELL.0
                ));
            }
            x = end;
        }
    }
    out.push_str("</g>\n</svg>\n");
    out
}

/// `BREAKGLASS_UPDATE=1 cargo test picture` writes it.
#[test]
fn the_picture_is_current() {
    let mut app = with_incident((80, 24), 343, recovering_data(Kind::Drill));
    let picture = svg(&render(&mut app));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/screen.svg");
    if std::env::var_os("BREAKGLASS_UPDATE").is_some() {
        std::fs::write(path, &picture).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == picture, "docs/screen.svg is not what the program draws; BREAKGLASS_UPDATE=1 cargo test picture");
}

#[test]
fn the_key_table_leads_through_a_drill() {
    assert_eq!(COMMANDS.iter().filter(|c| c.essential).count(), 21);
    assert_eq!(readme_table().lines().count(), 13, "{}", readme_table());
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap_or_default();
    assert!(readme.contains(&readme_table()), "README's key table is not current; it is:\n{}", readme_table());
}
