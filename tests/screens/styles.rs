//! What text alone does not show: roles, themes, contrast, and that nothing is told by colour only.

use super::shots;
use crate::support::console::*;
use breakglass::tui::theme::{Depth, EMBEDDED, Role, Theme, contrast};
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

fn themes() -> Vec<Theme> {
    EMBEDDED.iter().map(|(name, _)| Theme::named(name, Depth::True).unwrap()).collect()
}

#[test]
fn every_role_can_be_read() {
    for theme in themes().into_iter().filter(|t| t.name != "mono") {
        let page = theme.background.unwrap_or_else(|| panic!("{} has no background", theme.name)).rgb;
        for role in Role::ALL {
            let look = theme.look(role);
            let text = look.fg.or(theme.look(Role::Text).fg).unwrap().rgb;
            let ground = look.bg.map_or(page, |b| b.rgb);
            let least = match (theme.name.as_str(), role) {
                ("high-contrast", _) => 7.0,
                // A line is not text: 3:1 is what WCAG asks of it.
                (_, Role::Border) => 3.0,
                _ => 4.5,
            };
            let ratio = contrast(text, ground);
            assert!(ratio >= least, "{}: {} has {ratio:.1}:1, needs {least}:1", theme.name, role.name());
        }
    }
}

#[test]
fn a_wrong_theme_says_what_is_wrong() {
    let says = |text: &str| Theme::parse(text, "my.toml", Depth::True).unwrap_err().to_string();
    assert!(says("[roles]\nflashy = {}").contains("my.toml: there is no role \"flashy\""));
    assert!(says("[palette]\na = [\"#12\", \"red\"]").contains("#12"));
    assert!(says("[roles]\ntext = { fg = \"nope\" }").contains("the palette has no colour \"nope\""));
    assert!(says("[roles]\ntext = {}").contains("is missing"));
    assert!(Theme::named("neon", Depth::True).unwrap_err().to_string().contains("default, light"));
}

#[test]
fn no_colour_means_no_colour() {
    let theme = Theme::named("light", Depth::Mono).unwrap();
    assert_eq!(theme.name, "mono");
    for shot in shots() {
        let mut app = (shot.make)((80, 24));
        let buffer = render_with(&mut app, &theme);
        let coloured = buffer.content().iter().find(|c| c.fg != Color::Reset || c.bg != Color::Reset);
        assert!(coloured.is_none(), "{}: {coloured:?}", shot.name);
    }
}

/// The row with the mark of the selection, and the rows around it.
fn marked(buffer: &Buffer) -> Vec<u16> {
    (0..buffer.area.height)
        .filter(|y| (0..buffer.area.width).any(|x| matches!(buffer[(x, *y)].symbol(), "▶" | ">")))
        .collect()
}

#[test]
fn the_selected_row_differs_by_more_than_colour() {
    for name in ["home", "plan", "incident", "timeline", "moment", "messages", "dialog-help", "dialog-palette"] {
        let shot = shots().into_iter().find(|s| s.name == name).unwrap();
        for theme in themes() {
            let mut app = (shot.make)((80, 24));
            let buffer = render_with(&mut app, &theme);
            assert!(!marked(&buffer).is_empty(), "{name} in {}: no row is marked", theme.name);
            let strong = marked(&buffer)
                .iter()
                .any(|y| (0..80).any(|x| buffer[(x, *y)].modifier.intersects(Modifier::BOLD | Modifier::REVERSED)));
            assert!(strong, "{name} in {}: the marked row is neither bold nor reversed", theme.name);
        }
    }
}

#[test]
fn real_and_drill_differ_by_word_and_line() {
    let show = |name: &str| {
        let shot = shots().into_iter().find(|s| s.name == name).unwrap();
        text(&render(&mut (shot.make)((80, 24))))
    };
    let (drill, real) = (show("incident"), show("incident-real"));
    assert!(drill.contains("DRILL") && !drill.contains("REAL") && !drill.contains('━'), "{drill}");
    assert!(real.contains("REAL") && !real.contains("DRILL") && real.contains('━'), "{real}");
}

/// Which role is where, as letters: a change of a style is seen in review.
#[test]
fn the_roles_of_a_screen_are_as_they_were() {
    let theme = Theme::named("default", Depth::True).unwrap();
    let letters = "tmbasgwdirDc";
    for name in ["incident-real", "home-open", "dialog-destroy"] {
        let shot = shots().into_iter().find(|s| s.name == name).unwrap();
        let mut app = (shot.make)((80, 24));
        let buffer = render_with(&mut app, &theme);
        let mut map = String::new();
        for y in 0..24 {
            for x in 0..80 {
                let cell = &buffer[(x, y)];
                if cell.symbol() == " " && cell.modifier.is_empty() {
                    map.push(' ');
                    continue;
                }
                let role = Role::ALL.iter().position(|r| {
                    let style = theme.base().patch(theme.style(*r));
                    style.fg == Some(cell.fg) && style.bg == Some(cell.bg) && style.add_modifier == cell.modifier
                });
                map.push(role.and_then(|i| letters.chars().nth(i)).unwrap_or('?'));
            }
            while map.ends_with(' ') {
                map.pop();
            }
            map.push('\n');
        }
        insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(format!("roles-{name}"), map);
        });
    }
}

#[test]
fn ascii_means_ascii() {
    for shot in shots() {
        let mut app = (shot.make)((120, 40));
        app.settings.ascii = true;
        let drawn = text(&render(&mut app));
        // What the plan and the programs say stays as it is; our own signs do not.
        let ours = "▶●✓»✗■█░…→≤─│┬┴├┤━┯┷╭╮╰╯▏–";
        let found: Vec<(usize, &str)> =
            drawn.lines().enumerate().filter(|(_, l)| l.chars().any(|c| ours.contains(c))).collect();
        let found: Vec<_> = found.into_iter().filter(|(_, l)| !l.contains("14:00:21→14:01:07")).collect();
        assert!(found.is_empty(), "{}: {found:?}", shot.name);
    }
}

#[test]
fn a_depth_is_found_from_the_environment() {
    assert_eq!(Depth::detect(true, Some("truecolor"), Some("xterm")), Depth::Mono);
    assert_eq!(Depth::detect(false, Some("truecolor"), Some("xterm")), Depth::True);
    assert_eq!(Depth::detect(false, None, Some("screen-256color")), Depth::Indexed);
    assert_eq!(Depth::detect(false, None, Some("linux")), Depth::Sixteen);
    assert_eq!(Depth::detect(false, None, Some("vt100")), Depth::Mono);
}
