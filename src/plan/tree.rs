//! Markdown to a tree of blocks with their lines. CommonMark comes from the parser; nothing here guesses on raw lines.
//!
//! Containers nested deeper than [`MAX_DEPTH`] are flattened into the one that holds them, so that no later walk over the
//! tree can run out of stack; their content stays.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::inline::Inline;

/// Lists and quotes nested deeper than this are flattened.
pub const MAX_DEPTH: usize = 48;

/// A block of the document.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// First line, from 1.
    pub line: u32,
    /// Last line.
    pub line_end: u32,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

/// The kinds of block.
#[derive(Debug)]
pub enum Kind {
    /// A heading.
    Heading(u8, Inline),
    /// A paragraph, or the text of a tight list item.
    Paragraph(Inline),
    /// A list; ordered when it has a first number.
    List(Option<u64>, Vec<Entry>),
    /// A code block; `usize` is its position among all code blocks of the document.
    Fence(usize),
    /// A block quote or GitHub alert.
    Quote(Vec<Node>),
    /// A table: header and rows.
    Table(Vec<Inline>, Vec<Row>),
    /// A block of HTML.
    Html(String),
    /// A thematic break.
    Rule,
}

/// A list item.
#[derive(Debug)]
pub struct Entry {
    /// What stands in it.
    pub nodes: Vec<Node>,
    /// Whether it has a box, and whether that is ticked.
    pub checked: Option<bool>,
    /// First line.
    pub line: u32,
    /// Last line.
    pub line_end: u32,
}

/// A table row.
#[derive(Debug)]
pub struct Row {
    /// Its cells.
    pub cells: Vec<Inline>,
    /// Its line.
    pub line: u32,
}

/// A code block as it stands in the text.
#[derive(Debug)]
pub struct Fence {
    /// The info string; none for an indented block.
    pub info: Option<String>,
    /// The text in it, without the final newline.
    pub code: String,
    /// Line of the opening fence.
    pub line: u32,
    /// Line of the closing fence.
    pub line_end: u32,
}

/// Maps byte offsets to lines.
#[derive(Debug)]
pub struct Lines(Vec<usize>);

impl Lines {
    /// Indexes a text.
    pub fn new(text: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1))
                .collect(),
        )
    }
    /// Line of a byte, from 1.
    pub fn of(&self, byte: usize) -> u32 {
        u32::try_from(self.0.partition_point(|start| *start <= byte)).unwrap_or(u32::MAX)
    }
}

/// The blocks of a document, its code blocks in order, and its inline links.
pub fn parse(text: &str, lines: &Lines) -> (Vec<Node>, Vec<Fence>) {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_GFM;
    let mut builder = Builder {
        text,
        lines,
        stack: vec![Frame::new(Open::Root, 0..text.len())],
        opened: Vec::new(),
        inline: None,
        fences: Vec::new(),
        code: None,
    };
    for (event, span) in Parser::new_ext(text, options).into_offset_iter() {
        builder.event(event, span);
    }
    builder.close_text();
    while builder.stack.len() > 1 {
        builder.pop();
    }
    let nodes = builder.stack.pop().map(|f| f.nodes).unwrap_or_default();
    (nodes, builder.fences)
}

enum Open {
    Root,
    List(Option<u64>),
    Item(Option<bool>),
    Quote,
    Table,
    Row,
}

struct Frame {
    open: Open,
    span: Range<usize>,
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    rows: Vec<Row>,
    cells: Vec<Inline>,
}

impl Frame {
    fn new(open: Open, span: Range<usize>) -> Self {
        Self { open, span, nodes: Vec::new(), entries: Vec::new(), rows: Vec::new(), cells: Vec::new() }
    }
}

/// Where the text that is being collected goes.
enum Into {
    Heading(u8),
    Paragraph,
    /// Text of a tight list item, without a paragraph of its own.
    Bare,
    Cell,
    Html,
}

struct Builder<'t> {
    text: &'t str,
    lines: &'t Lines,
    stack: Vec<Frame>,
    /// For every open container tag, whether it has a frame (false: flattened).
    opened: Vec<bool>,
    inline: Option<(Into, Range<usize>, Inline)>,
    fences: Vec<Fence>,
    code: Option<(Option<String>, Range<usize>, String)>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Range<usize>) {
        match event {
            Event::Start(tag) => self.start(tag, span),
            Event::End(tag) => self.end(tag),
            Event::Text(t) => match &mut self.code {
                Some((_, _, code)) => code.push_str(&t),
                None => self.inline_at(&span).text(&t),
            },
            Event::Code(t) => self.inline_at(&span).code(&t),
            Event::InlineMath(t) | Event::DisplayMath(t) => self.inline_at(&span).text(&t),
            Event::Html(t) => match &mut self.inline {
                Some((Into::Html, _, inline)) => inline.text(&t),
                _ => self.inline_at(&span).html(&t),
            },
            Event::InlineHtml(t) => self.inline_at(&span).html(&t),
            Event::FootnoteReference(t) => self.inline_at(&span).text(&t),
            Event::SoftBreak | Event::HardBreak => self.inline_at(&span).line_break(),
            Event::Rule => {
                self.close_text();
                self.push(Kind::Rule, span);
            }
            Event::TaskListMarker(done) => {
                if let Some(Frame { open: Open::Item(checked), .. }) = self.stack.last_mut() {
                    *checked = Some(done);
                }
            }
        }
    }

    /// The text being collected; begins that of a tight list item when there is none.
    fn inline_at(&mut self, span: &Range<usize>) -> &mut Inline {
        let (_, range, inline) = self.inline.get_or_insert_with(|| (Into::Bare, span.clone(), Inline::default()));
        range.end = range.end.max(span.end);
        inline
    }

    fn start(&mut self, tag: Tag<'_>, span: Range<usize>) {
        match tag {
            Tag::Paragraph => self.begin(Into::Paragraph, span),
            Tag::Heading { level, .. } => self.begin(Into::Heading(level_number(level)), span),
            Tag::HtmlBlock => self.begin(Into::Html, span),
            Tag::TableCell => self.begin(Into::Cell, span),
            Tag::CodeBlock(kind) => {
                self.close_text();
                let info = match kind {
                    CodeBlockKind::Fenced(info) => Some(info.to_string()),
                    CodeBlockKind::Indented => None,
                };
                self.code = Some((info, span, String::new()));
            }
            Tag::Strong => self.inline_at(&span).open_strong(),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.inline_at(&span).open_link(&dest_url),
            Tag::List(first) => self.open(Open::List(first), span, true),
            Tag::Item => {
                let in_list = matches!(self.stack.last(), Some(Frame { open: Open::List(_), .. }));
                self.open(Open::Item(None), span, in_list);
            }
            Tag::BlockQuote(_) => self.open(Open::Quote, span, true),
            Tag::Table(_) => self.open(Open::Table, span, true),
            Tag::TableHead | Tag::TableRow => self.open(Open::Row, span, true),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::HtmlBlock | TagEnd::TableCell => self.close_text(),
            TagEnd::CodeBlock => {
                if let Some((info, span, mut code)) = self.code.take() {
                    if code.ends_with('\n') {
                        code.pop();
                    }
                    let (line, line_end) = self.line_range(&span);
                    self.push(Kind::Fence(self.fences.len()), span);
                    self.fences.push(Fence { info, code, line, line_end });
                }
            }
            TagEnd::Strong => self.with_inline(Inline::close_strong),
            TagEnd::Link | TagEnd::Image => self.with_inline(Inline::close_link),
            TagEnd::List(_)
            | TagEnd::Item
            | TagEnd::BlockQuote(_)
            | TagEnd::Table
            | TagEnd::TableHead
            | TagEnd::TableRow => {
                self.close_text();
                if self.opened.pop() == Some(true) {
                    self.pop();
                }
            }
            _ => {}
        }
    }

    fn with_inline(&mut self, f: impl FnOnce(&mut Inline)) {
        if let Some((_, _, inline)) = &mut self.inline {
            f(inline);
        }
    }

    fn begin(&mut self, into: Into, span: Range<usize>) {
        self.close_text();
        self.inline = Some((into, span, Inline::default()));
    }

    fn open(&mut self, open: Open, span: Range<usize>, wanted: bool) {
        self.close_text();
        // Items follow their list: only lists and quotes are cut off at the limit.
        let fits = self.stack.len() < MAX_DEPTH || matches!(open, Open::Item(_) | Open::Row | Open::Table);
        let opened = wanted && fits;
        self.opened.push(opened);
        if opened {
            self.stack.push(Frame::new(open, span));
        }
    }

    fn close_text(&mut self) {
        let Some((into, span, mut inline)) = self.inline.take() else { return };
        inline.finish();
        match into {
            Into::Heading(level) => self.push(Kind::Heading(level, inline), span),
            Into::Paragraph | Into::Bare => {
                if !inline.text.trim().is_empty() {
                    self.push(Kind::Paragraph(inline), span);
                }
            }
            Into::Html => self.push(Kind::Html(inline.text), span),
            Into::Cell => {
                if let Some(frame) = self.stack.last_mut() {
                    frame.cells.push(inline);
                }
            }
        }
    }

    fn push(&mut self, kind: Kind, span: Range<usize>) {
        let (line, line_end) = self.line_range(&span);
        if let Some(frame) = self.stack.last_mut() {
            frame.nodes.push(Node { kind, line, line_end, span });
        }
    }

    fn pop(&mut self) {
        let Some(frame) = self.stack.pop() else { return };
        let (line, line_end) = self.line_range(&frame.span);
        match frame.open {
            Open::Root => {}
            Open::List(first) => self.push(Kind::List(first, frame.entries), frame.span),
            Open::Item(checked) => {
                if let Some(list) = self.stack.last_mut() {
                    list.entries.push(Entry { nodes: frame.nodes, checked, line, line_end });
                }
            }
            Open::Quote => self.push(Kind::Quote(frame.nodes), frame.span),
            Open::Row => {
                if let Some(table) = self.stack.last_mut() {
                    table.rows.push(Row { cells: frame.cells, line });
                }
            }
            Open::Table => {
                let mut rows = frame.rows.into_iter();
                let head = rows.next().map(|r| r.cells).unwrap_or_default();
                self.push(Kind::Table(head, rows.collect()), frame.span);
            }
        }
    }

    fn line_range(&self, span: &Range<usize>) -> (u32, u32) {
        let body = self.text.get(span.clone()).unwrap_or_default().trim_end();
        (self.lines.of(span.start), self.lines.of(span.start + body.len().saturating_sub(1)))
    }
}

fn level_number(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}
