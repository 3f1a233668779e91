//! Links that lead nowhere: anchors in the document, and other documents on disk.

use crate::plan::library::Library;

use super::{Level, Sheet, folder};

/// Checks the links of a document. Addresses on the web are left alone: a plan is read when the web is down.
pub fn check(sheet: &mut Sheet<'_>, library: &Library) {
    let anchors = anchors(sheet);
    let folder = folder(sheet.document);
    let links = sheet.document.plan.links.clone();
    // A document taken out of its repository has no neighbours: then its links cannot be judged.
    let neighbours = library.documents.len() > 1
        || links
            .iter()
            .any(|l| target(&l.target).is_some_and(|(p, _)| folder.as_ref().is_some_and(|f| f.join(p).exists())));
    let mut said = std::collections::BTreeSet::new();
    for link in links.iter().filter(|l| said.insert(l.target.clone())) {
        if let Some(anchor) = link.target.strip_prefix('#') {
            if !anchor.is_empty() && !anchors.iter().any(|a| a.eq_ignore_ascii_case(anchor)) {
                let near = nearest(anchor, &anchors).map(|a| format!("Did you mean `#{a}`?")).unwrap_or_default();
                sheet.say(
                    Level::Warning,
                    "dead-link",
                    (link.line, &link.target),
                    format!("no heading {:?} in this document", link.target),
                    "",
                    near,
                );
            }
            continue;
        }
        let (Some((path, _)), Some(folder)) = (target(&link.target), &folder) else { continue };
        if !folder.join(path).exists() {
            let level = if neighbours { Level::Warning } else { Level::Note };
            sheet.say(
                level,
                "dead-link",
                (link.line, path),
                format!("no file {path:?} beside this document"),
                "",
                "Correct the path, or name where the document is kept.",
            );
        }
    }
}

/// Path and anchor of a link to another document; none for addresses, mail, and absolute paths of a site.
fn target(link: &str) -> Option<(&str, &str)> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let scheme = path.split_once(':').is_some_and(|(s, _)| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+'));
    (!path.is_empty()
        && !scheme
        && !path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains(['{', '<', '%', '?']))
    .then_some((path, anchor))
}

/// GitHub's anchors of the headings, and those given in HTML.
fn anchors(sheet: &Sheet<'_>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for section in sheet.doc.sections.iter().filter(|s| s.level > 0) {
        let base = slug(&section.raw);
        let mut name = base.clone();
        let mut n = 1;
        while out.contains(&name) {
            name = format!("{base}-{n}");
            n += 1;
        }
        out.push(name);
    }
    for line in sheet.lines() {
        for key in ["name=\"", "id=\"", "{#"] {
            if let Some((_, tail)) = line.split_once(key) {
                out.push(tail.split(['"', '}']).next().unwrap_or_default().to_string());
            }
        }
    }
    out
}

/// GitHub's way: lower case, letters, digits, `-` and `_` kept, spaces become `-`, everything else goes.
fn slug(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .flat_map(char::to_lowercase)
        .filter_map(|c| {
            if c == ' ' {
                Some('-')
            } else if c.is_alphanumeric() || c == '-' || c == '_' {
                Some(c)
            } else {
                None
            }
        })
        .collect()
}

fn nearest<'a>(wanted: &str, anchors: &'a [String]) -> Option<&'a String> {
    let strip = |t: &str| t.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let wanted = strip(wanted);
    anchors.iter().find(|a| {
        let a = strip(a);
        !a.is_empty() && !wanted.is_empty() && (a.contains(&wanted) || wanted.contains(&a))
    })
}
