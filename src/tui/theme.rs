//! Twelve roles and their styles. Views know roles only; themes are TOML files, embedded.
//!
//! A role's colour is a pair: a true colour and the name of one of the terminal's sixteen. Which is used depends on the
//! terminal; without colour the `mono` theme is used, which tells everything by reverse, bold and underline.

use std::collections::BTreeMap;

use ratatui::style::{Color, Modifier, Style};

use crate::error::{Error, Result};

/// What something on the screen is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Ordinary text.
    Text,
    /// Secondary text.
    Muted,
    /// Lines between panes.
    Border,
    /// Titles, and the pane that has the focus.
    Accent,
    /// The selected row.
    Selected,
    /// Finished, healthy, on course.
    Good,
    /// At risk, changes something, needs attention.
    Warning,
    /// Failed, missed, destroys.
    Danger,
    /// Running, informative.
    Info,
    /// The word REAL and what belongs to it.
    Real,
    /// The word DRILL and what belongs to it.
    Drill,
    /// Commands and values that could be typed; keys in hints.
    Code,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 12] = [
        Self::Text,
        Self::Muted,
        Self::Border,
        Self::Accent,
        Self::Selected,
        Self::Good,
        Self::Warning,
        Self::Danger,
        Self::Info,
        Self::Real,
        Self::Drill,
        Self::Code,
    ];
    /// Name in a theme file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Muted => "muted",
            Self::Border => "border",
            Self::Accent => "accent",
            Self::Selected => "selected",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Danger => "danger",
            Self::Info => "info",
            Self::Real => "real",
            Self::Drill => "drill",
            Self::Code => "code",
        }
    }
}

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// None, or none wanted.
    Mono,
    /// The sixteen named ones.
    Sixteen,
    /// 256.
    Indexed,
    /// 24 bits.
    True,
}

impl Depth {
    /// From the environment, as terminals declare it; `no_color` is `NO_COLOR` (non-empty) or `--no-color`.
    pub fn detect(no_color: bool, colorterm: Option<&str>, term: Option<&str>) -> Self {
        if no_color {
            return Self::Mono;
        }
        let term = term.unwrap_or("");
        match colorterm {
            Some("truecolor" | "24bit") => Self::True,
            _ if term.contains("direct") => Self::True,
            _ if term.contains("256") => Self::Indexed,
            _ if term == "vt100" || term == "vt220" || term.contains("mono") => Self::Mono,
            _ => Self::Sixteen,
        }
    }
}

/// A colour as a theme file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// Red, green, blue.
    pub rgb: (u8, u8, u8),
    /// One of the terminal's sixteen.
    pub ansi: Color,
}

/// A role's style as a theme file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Foreground; none is the terminal's own.
    pub fg: Option<Paint>,
    /// Background; none is the theme's.
    pub bg: Option<Paint>,
    /// Bold, reversed, underlined, dim.
    pub modifier: Modifier,
}

/// A theme: roles to styles, for one colour depth.
#[derive(Debug, Clone)]
pub struct Theme {
    /// Name.
    pub name: String,
    /// One line.
    pub about: String,
    /// Background of the whole screen; none is the terminal's own.
    pub background: Option<Paint>,
    looks: BTreeMap<Role, Look>,
    depth: Depth,
}

/// The themes of the program: name and text.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("default", include_str!("../../themes/default.toml")),
    ("light", include_str!("../../themes/light.toml")),
    ("high-contrast", include_str!("../../themes/high-contrast.toml")),
    ("colour-blind", include_str!("../../themes/colour-blind.toml")),
    ("mono", include_str!("../../themes/mono.toml")),
];

impl Default for Theme {
    /// No colours and no marks: what remains when even the embedded themes could not be read.
    fn default() -> Self {
        let reversed = Look { modifier: Modifier::REVERSED, ..Look::default() };
        Self {
            name: "plain".into(),
            about: String::new(),
            background: None,
            looks: [(Role::Selected, reversed), (Role::Real, reversed)].into(),
            depth: Depth::Mono,
        }
    }
}

impl Theme {
    /// An embedded theme by name. `mono` is taken whatever the name when the depth is [`Depth::Mono`].
    pub fn named(name: &str, depth: Depth) -> Result<Self> {
        let name = if depth == Depth::Mono { "mono" } else { name };
        let name = if name == "color-blind" { "colour-blind" } else { name };
        let Some((_, text)) = EMBEDDED.iter().find(|(n, _)| *n == name) else {
            let names: Vec<&str> = EMBEDDED.iter().map(|(n, _)| *n).collect();
            return Err(Error::config(format!("there is no theme {name:?}"))
                .hint(format!("The themes are {}.", names.join(", "))));
        };
        Self::parse(text, &format!("themes/{name}.toml"), depth)
    }

    /// A theme from its file. Unknown roles, palette names and colours are errors that name them.
    pub fn parse(text: &str, file: &str, depth: Depth) -> Result<Self> {
        let bad = |what: String| Error::config(format!("{file}: {what}"));
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.message().to_string()))?;
        let mut palette = BTreeMap::new();
        for (name, value) in table.get("palette").and_then(toml::Value::as_table).into_iter().flatten() {
            let pair = value.as_array().map(|a| a.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>());
            let paint = match pair.as_deref() {
                Some([hex, ansi]) => {
                    let rgb = parse_hex(hex).ok_or_else(|| bad(format!("palette {name}: {hex:?} is not #rrggbb")))?;
                    let ansi = parse_ansi(ansi)
                        .ok_or_else(|| bad(format!("palette {name}: {ansi:?} is not one of the sixteen colours")))?;
                    Paint { rgb, ansi }
                }
                _ => return Err(bad(format!("palette {name} needs a pair such as [\"#d7dae0\", \"white\"]"))),
            };
            palette.insert(name.clone(), paint);
        }
        let paint = |value: &toml::Value| -> Result<Option<Paint>> {
            match value.as_str() {
                Some("terminal") => Ok(None),
                Some(n) => {
                    palette.get(n).copied().map(Some).ok_or_else(|| bad(format!("the palette has no colour {n:?}")))
                }
                None => Err(bad(format!("{value} is not the name of a palette colour"))),
            }
        };
        let mut looks = BTreeMap::new();
        for (name, value) in table.get("roles").and_then(toml::Value::as_table).into_iter().flatten() {
            let role = Role::ALL
                .into_iter()
                .find(|r| r.name() == name)
                .ok_or_else(|| bad(format!("there is no role {name:?}")))?;
            let mut look = Look::default();
            for (key, v) in value.as_table().into_iter().flatten() {
                let flag = match key.as_str() {
                    "fg" => {
                        look.fg = paint(v)?;
                        continue;
                    }
                    "bg" => {
                        look.bg = paint(v)?;
                        continue;
                    }
                    "bold" => Modifier::BOLD,
                    "reverse" => Modifier::REVERSED,
                    "underline" => Modifier::UNDERLINED,
                    "dim" => Modifier::DIM,
                    other => return Err(bad(format!("role {name}: there is no setting {other:?}"))),
                };
                if v.as_bool() == Some(true) {
                    look.modifier |= flag;
                }
            }
            looks.insert(role, look);
        }
        if let Some(missing) = Role::ALL.into_iter().find(|r| !looks.contains_key(r)) {
            return Err(bad(format!("the role {:?} is missing", missing.name())));
        }
        let text_of = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or("").to_string();
        let background = match table.get("background") {
            Some(v) => paint(v)?,
            None => None,
        };
        Ok(Self { name: text_of("name"), about: text_of("about"), background, looks, depth })
    }

    /// The look of a role as the file has it.
    pub fn look(&self, role: Role) -> Look {
        self.looks.get(&role).copied().unwrap_or_default()
    }

    /// The style of a role for this terminal.
    pub fn style(&self, role: Role) -> Style {
        let look = self.look(role);
        let mut style = Style::new().add_modifier(look.modifier);
        if let Some(fg) = look.fg.and_then(|p| self.colour(p)) {
            style = style.fg(fg);
        }
        if let Some(bg) = look.bg.and_then(|p| self.colour(p)) {
            style = style.bg(bg);
        }
        style
    }

    /// The style the whole screen begins with.
    pub fn base(&self) -> Style {
        // On sixteen colours the terminal's own background is left alone: people choose theirs to be readable.
        let paint = if self.depth >= Depth::Indexed { self.background } else { None };
        let base = self.style(Role::Text);
        match paint.and_then(|p| self.colour(p)) {
            Some(bg) => base.bg(bg),
            None => base,
        }
    }

    fn colour(&self, paint: Paint) -> Option<Color> {
        let (r, g, b) = paint.rgb;
        match self.depth {
            Depth::Mono => None,
            Depth::Sixteen => (paint.ansi != Color::Reset).then_some(paint.ansi),
            Depth::Indexed => Some(Color::Indexed(nearest_256(paint.rgb))),
            Depth::True => Some(Color::Rgb(r, g, b)),
        }
    }
}

fn parse_hex(text: &str) -> Option<(u8, u8, u8)> {
    let digits = text.strip_prefix('#').filter(|d| d.len() == 6)?;
    let n = u32::from_str_radix(digits, 16).ok()?;
    Some(((n >> 16) as u8, (n >> 8) as u8, n as u8))
}

fn parse_ansi(name: &str) -> Option<Color> {
    Some(match name {
        "terminal" => Color::Reset,
        "black" => Color::Black,
        "red" => Color::Red,
        "green" => Color::Green,
        "yellow" => Color::Yellow,
        "blue" => Color::Blue,
        "magenta" => Color::Magenta,
        "cyan" => Color::Cyan,
        "white" => Color::Gray,
        "bright-black" => Color::DarkGray,
        "bright-red" => Color::LightRed,
        "bright-green" => Color::LightGreen,
        "bright-yellow" => Color::LightYellow,
        "bright-blue" => Color::LightBlue,
        "bright-magenta" => Color::LightMagenta,
        "bright-cyan" => Color::LightCyan,
        "bright-white" => Color::White,
        _ => return None,
    })
}

/// The nearest of the fixed 240 of the 256 colours (the 6×6×6 cube and the greys; xterm's values).
fn nearest_256((r, g, b): (u8, u8, u8)) -> u8 {
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let step = |v: u8| (0..6u8).min_by_key(|i| STEPS[*i as usize].abs_diff(v)).unwrap_or(0);
    let distance = |x: (u8, u8, u8)| {
        let d = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
        d(x.0, r) + d(x.1, g) + d(x.2, b)
    };
    let (cr, cg, cb) = (step(r), step(g), step(b));
    let cube = (STEPS[cr as usize], STEPS[cg as usize], STEPS[cb as usize]);
    let mean = (u32::from(r) + u32::from(g) + u32::from(b)) / 3;
    let grey_index = (mean.saturating_sub(3) / 10).min(23) as u8;
    let level = 8 + 10 * grey_index;
    if distance((level, level, level)) < distance(cube) { 232 + grey_index } else { 16 + 36 * cr + 6 * cg + cb }
}

/// Contrast ratio of two colours, 1 to 21 (WCAG 2.2, "contrast ratio").
pub fn contrast(a: (u8, u8, u8), b: (u8, u8, u8)) -> f64 {
    let luminance = |(r, g, b): (u8, u8, u8)| {
        let part = |v: u8| {
            let v = f64::from(v) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b)
    };
    let (x, y) = (luminance(a), luminance(b));
    (x.max(y) + 0.05) / (x.min(y) + 0.05)
}
