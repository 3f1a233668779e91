//! Text that wants to be more than text: it stays text in every format.

use breakglass::export::{self, Options};
use breakglass::model::{Event, StepId};
use pulldown_cmark::{Event as Md, Options as MdOptions, Parser, Tag};

use super::fixture::{Pen, plan};

/// What people, programs and attackers write.
const HOSTILE: [&str; 16] = [
    "</td></tr></table><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</style><svg onload=alert(1)>",
    "<!-- --><!--",
    "| a | b | c |\n|---|---|---|\n# heading\n- item\n1. one\n> quote\n---\n    code",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "http://evil.example www.evil.example @everyone mail@evil.example #1 :warning: $x$ ~~no~~ **b** _i_ `c`",
    "=HYPERLINK(\"http://evil.example\",\"x\")",
    "+1-2@SUM(A1)",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "-2+3",
    "\t=1+1",
    "\u{1b}[31mred\u{1b}[0m\u{7}\u{202e}gnp.exe \u{0}\u{8}",
    "&lt;b&gt; &amp; &#60;script&#62;",
    "back\\slash \\| pipe `tick` ``two`` $(rm -rf /)",
];

fn hostile() -> (Pen, String) {
    let all = HOSTILE.join(" / ");
    let mut pen = Pen::new(&plan(&all));
    pen.open(&all, &all);
    for (i, text) in HOSTILE.iter().enumerate() {
        let i = i64::try_from(i).unwrap();
        pen.record(10 + i, text, vec![Event::NoteAdded { text: (*text).into() }]);
        pen.run(1, (40 + i, 41 + i), "amy@bastion", (text, breakglass::model::Risk::Read), 1, vec![]);
        pen.record(60 + i, "amy", vec![Event::StepSkipped { step: StepId::new("s1"), reason: (*text).into() }]);
    }
    pen.record(99, "amy", vec![Event::IncidentClosed { summary: all.clone() }]);
    (pen, all)
}

#[test]
fn html_has_no_element_we_did_not_write() {
    let (pen, _) = hostile();
    let html = export::html(&export::load(&pen.dir, &Options::default()).unwrap());
    assert_eq!(html.matches("<script").count() + html.matches("<img").count() + html.matches("<!--").count(), 0);
    assert_eq!(html.matches("<style").count(), 1);
    assert_eq!(html.matches("<svg").count(), 1);
    assert!(!html.contains("\u{1b}") && !html.contains('\u{202e}') && !html.contains('\u{0}'));
    // Tags, read by a scanner that knows nothing of the page: every attribute is one we write, no handler among them.
    let body = html.split_once("</style>").unwrap().1;
    let mut rest = body;
    let mut open: Vec<String> = vec!["html".into(), "head".into()];
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        assert!(!tag.contains('<'), "{tag}");
        let name: String = tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
        let mut outside = String::new();
        tag.split('"').step_by(2).for_each(|part| outside.push_str(part));
        assert!(!outside.contains(" on") && !outside.contains("href") && !outside.contains("src"), "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "nesting");
        } else if !tag.ends_with('/') && !["br", "meta"].contains(&name.as_str()) {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn markdown_has_no_structure_we_did_not_write() {
    let (pen, _) = hostile();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    let md = export::markdown(&t);
    let options = MdOptions::ENABLE_TABLES
        | MdOptions::ENABLE_STRIKETHROUGH
        | MdOptions::ENABLE_MATH
        | MdOptions::ENABLE_FOOTNOTES;
    let (mut headings, mut cells, mut row, mut rows) = (0, 0, Vec::new(), Vec::new());
    for event in Parser::new_ext(&md, options) {
        match event {
            Md::Start(Tag::Heading { .. }) => headings += 1,
            Md::Start(
                Tag::Link { .. }
                | Tag::Image { .. }
                | Tag::Strikethrough
                | Tag::Emphasis
                | Tag::HtmlBlock
                | Tag::BlockQuote(_),
            ) => {
                panic!("structure from text: {event:?}")
            }
            Md::InlineHtml(html) => assert!(["<br>", "<!-- -->", "<code>", "</code>"].contains(&&*html), "{html}"),
            Md::InlineMath(_) | Md::DisplayMath(_) | Md::Html(_) | Md::Rule => panic!("{event:?}"),
            Md::Start(Tag::TableRow) => row = Vec::new(),
            Md::Start(Tag::TableCell) => {
                cells += 1;
                row.push(());
            }
            Md::End(pulldown_cmark::TagEnd::TableRow) => rows.push(row.len()),
            _ => {}
        }
    }
    // Title, objectives, steps, timeline, people, findings, lessons, changes, limits, integrity, approval.
    assert_eq!(headings, 11, "{md}");
    assert!(cells > 0 && rows.iter().filter(|n| **n == 6).count() >= t.rows.len());
    // Nothing GitHub would turn into a mention or a link by itself.
    for bad in [" @everyone", "|@", "http://", "https://", "www."] {
        let spans: String = md.split('`').step_by(2).collect();
        assert!(!spans.contains(bad), "{bad}");
    }
}

#[test]
fn markdown_says_what_the_journal_says() {
    let (pen, _) = hostile();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    let md = export::markdown(&t);
    let mut said = String::new();
    for event in Parser::new_ext(&md, MdOptions::ENABLE_TABLES) {
        match event {
            Md::Text(text) | Md::Code(text) => said.push_str(&text),
            Md::InlineHtml(html) if &*html == "<br>" => said.push('\n'),
            Md::End(_) | Md::SoftBreak => said.push(' '),
            _ => {}
        }
    }
    for row in t.rows.iter().filter(|r| r.event == "note_added") {
        assert!(said.contains(row.what.trim_end()), "{:?} is not in the text", row.what);
        assert!(said.contains(row.actor.trim_end()), "{:?}", row.actor);
    }
    for command in t.rows.iter().filter_map(|r| r.command.as_ref()) {
        let squeezed = |t: &str| t.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&said).contains(&squeezed(command)), "{command:?}");
    }
}

#[test]
fn csv_has_no_formula() {
    let (pen, _) = hostile();
    let csv = export::csv(&export::load(&pen.dir, &Options::default()).unwrap());
    let script = "import csv,sys,json; print(json.dumps(list(csv.reader(sys.stdin))))";
    let path = pen.state.path().join("x.csv");
    std::fs::write(&path, &csv).unwrap();
    let input = std::fs::File::open(&path).unwrap();
    let out = std::process::Command::new("python3")
        .env("PYTHONUTF8", "1")
        .args(["-c", script])
        .stdin(input)
        .output()
        .unwrap();
    let rows: Vec<Vec<String>> = serde_json::from_slice(&out.stdout).unwrap();
    let mut formulas = 0;
    for row in &rows {
        assert_eq!(row.len(), 18, "{row:?}");
        for cell in row {
            let begins = cell.trim_start().chars().next();
            assert!(cell.parse::<i64>().is_ok() || !begins.is_some_and(|c| "=+-@\t\r|%".contains(c)), "{cell:?}");
            formulas += usize::from(cell.starts_with('\''));
        }
    }
    assert!(formulas >= 10, "the hostile cells are there, defused: {formulas}");
}

#[test]
fn json_and_paths_are_plain() {
    let (pen, _) = hostile();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    let document: serde_json::Value = serde_json::from_str(&export::json(&t).unwrap()).unwrap();
    let texts = document["timeline"].as_array().unwrap();
    let all: String =
        texts.iter().map(|r| format!("{}{}", r["what"].as_str().unwrap(), r["actor"].as_str().unwrap())).collect();
    assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}') && !all.contains('\u{0}'));
    assert!(all.contains("<U+202E>"), "shown, not hidden");

    // An id that wants out of the folder.
    let mut pen = Pen::new(&plan("Detect"));
    pen.open("x", "y");
    let path = pen.dir.join("journal.jsonl");
    let text = std::fs::read_to_string(&path).unwrap().replace(super::fixture::ID, "../../../../tmp/evil");
    let body = text.trim_end().strip_suffix("\"}").unwrap();
    let body = &body[..body.len() - 64 - 9];
    let hash = breakglass::journal::record::sha256_hex(body.as_bytes());
    std::fs::write(&path, format!("{body},\"hash\":\"{hash}\"}}\n")).unwrap();
    let out = pen.state.path().join("out");
    let files = export::write(&pen.dir, &export::Format::ALL, &out).unwrap();
    assert!(files.iter().all(|f| f.parent() == Some(&out)), "{files:?}");
}
