//! The text of a paragraph, heading or cell as plain words, with what was bold, code or a link in it.

use std::ops::Range;

/// Plain text; soft and hard breaks are newlines. Ranges are bytes of `text`.
#[derive(Debug, Default, Clone)]
pub struct Inline {
    /// The words, without markup.
    pub text: String,
    /// What was bold.
    pub strong: Vec<Range<usize>>,
    /// What was code.
    pub code: Vec<Range<usize>>,
    /// Links and where they point.
    pub links: Vec<(Range<usize>, String)>,
    open_strong: Vec<usize>,
    open_links: Vec<(usize, String)>,
}

impl Inline {
    pub(super) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }
    pub(super) fn code(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.code.push(start..self.text.len());
    }
    pub(super) fn line_break(&mut self) {
        self.text.push('\n');
    }
    /// Comments and ordinary HTML are markup; an unknown tag is a `<placeholder>` and stays.
    pub(super) fn html(&mut self, html: &str) {
        let name: String =
            html.trim_start_matches(['<', '/']).chars().take_while(char::is_ascii_alphanumeric).collect();
        if name.eq_ignore_ascii_case("br") {
            self.text.push('\n');
        } else if !html.starts_with("<!") && !is_html_tag(&name) {
            self.text.push_str(html);
        }
    }
    pub(super) fn open_strong(&mut self) {
        self.open_strong.push(self.text.len());
    }
    pub(super) fn close_strong(&mut self) {
        // Nested bold is one bold: only the outermost counts.
        if let Some(start) = self.open_strong.pop()
            && self.open_strong.is_empty()
        {
            self.strong.push(start..self.text.len());
        }
    }
    pub(super) fn open_link(&mut self, target: &str) {
        self.open_links.push((self.text.len(), target.to_string()));
    }
    pub(super) fn close_link(&mut self) {
        if let Some((start, target)) = self.open_links.pop() {
            self.links.push((start..self.text.len(), target));
        }
    }
    pub(super) fn finish(&mut self) {
        while !self.open_strong.is_empty() {
            self.close_strong();
        }
        while !self.open_links.is_empty() {
            self.close_link();
        }
    }
    /// The text on one line.
    pub fn flat(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
    /// The bold words it begins with, and what follows them.
    pub fn bold_lead(&self) -> Option<(&str, &str)> {
        let first = self.strong.first()?;
        let before = self.text.get(..first.start)?;
        // An emoji or a warning sign may stand before the bold words.
        let bare = before.chars().all(|c| !c.is_alphanumeric());
        let lead = self.text.get(first.clone())?.trim();
        (bare && !lead.is_empty()).then_some((lead, self.text.get(first.end..)?))
    }
    /// Whether everything in it is a link (a line of a table of contents).
    pub fn only_links(&self) -> bool {
        let linked: usize = self.links.iter().map(|(r, _)| r.len()).sum();
        let words = self.text.trim();
        !self.links.is_empty() && linked + 4 >= words.len()
    }
}

fn is_html_tag(name: &str) -> bool {
    const TAGS: &[&str] = &[
        "a",
        "abbr",
        "b",
        "blockquote",
        "center",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "font",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "ins",
        "kbd",
        "li",
        "mark",
        "ol",
        "p",
        "picture",
        "pre",
        "s",
        "small",
        "source",
        "span",
        "strike",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "tt",
        "u",
        "ul",
        "video",
    ];
    TAGS.contains(&name.to_ascii_lowercase().as_str())
}
