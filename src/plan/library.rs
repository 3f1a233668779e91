//! The plans at hand: the runbooks we ship, those on disk that override them, and the documents a person opens.

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::model::Plan;
use crate::model::plan::{Notice, Scenario};

use super::understand::parse;

/// The runbooks in the binary: file name and text.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("database-corruption.md", include_str!("../../runbooks/database-corruption.md")),
    ("application-failure.md", include_str!("../../runbooks/application-failure.md")),
    ("data-deletion.md", include_str!("../../runbooks/data-deletion.md")),
    ("regional-outage.md", include_str!("../../runbooks/regional-outage.md")),
    ("security-breach.md", include_str!("../../runbooks/security-breach.md")),
];

/// Folders nested deeper than this are not searched.
const MAX_DEPTH: usize = 12;
/// More documents than this in one folder are refused: somebody gave `/`.
const MAX_DOCUMENTS: usize = 2_000;

/// Where a document came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the binary.
    Embedded,
    /// On disk.
    File(PathBuf),
}

/// A document of the library.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it came from.
    pub origin: Origin,
    /// Its bytes as read.
    pub bytes: Vec<u8>,
    /// What was understood.
    pub plan: Plan,
}

/// Several documents as one library; slugs are unique over all of them.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// The documents, in the order they were given.
    pub documents: Vec<Document>,
    /// What could not be read, and scenarios of one name.
    pub notices: Vec<String>,
}

impl Library {
    /// The runbooks in the binary; a file of the same name in one of `folders` (first wins) takes its place, and other
    /// Markdown files there are added. Documents may be named one by one, too.
    ///
    /// # Errors
    /// None for what is on disk: a file that cannot be read becomes a notice and the embedded runbook stays.
    pub fn runbooks(folders: &[PathBuf]) -> Result<Self> {
        let mut library = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for path in folders {
            let files = match resolve(path) {
                Ok(found) => found.files,
                // A folder of runbooks need not hold any.
                Err(_) if path.is_dir() => Vec::new(),
                Err(e) => {
                    library.notices.push(e.to_string());
                    Vec::new()
                }
            };
            for path in files {
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                if seen.contains(&name) {
                    continue;
                }
                match read_document(&path, &name) {
                    Ok(document) => {
                        seen.push(name);
                        library.documents.push(document);
                    }
                    Err(e) => library.notices.push(e.to_string()),
                }
            }
        }
        for (name, text) in EMBEDDED {
            if !seen.iter().any(|s| s == name) {
                library.documents.push(Document {
                    origin: Origin::Embedded,
                    bytes: text.as_bytes().to_vec(),
                    plan: parse(name, text.as_bytes())?,
                });
            }
        }
        library.documents.sort_by(|a, b| a.plan.file.cmp(&b.plan.file));
        library.distinct_slugs();
        Ok(library)
    }

    /// Files, folders and globs (`*` and `?` in the last part of a path) as one library.
    ///
    /// # Errors
    /// A usage error when a path cannot be read, is not Markdown, or a folder holds no plan.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut library = Self::default();
        for path in paths {
            let found = resolve(path)?;
            let root = if path.is_dir() { Some(path.as_path()) } else { None };
            for file in found.files {
                let name = shown_name(&file, root);
                let read = read_document(&file, &name);
                match read {
                    Ok(document) => library.documents.push(document),
                    // One bad file among many must not keep the others shut.
                    Err(e) if found.several => library.notices.push(e.to_string()),
                    Err(e) => return Err(e),
                }
            }
        }
        if library.documents.is_empty() {
            let first = library.notices.first().cloned().unwrap_or_default();
            return Err(Error::usage("no plan could be opened").why(first));
        }
        library.distinct_slugs();
        Ok(library)
    }

    /// All scenarios with their documents.
    pub fn scenarios(&self) -> impl Iterator<Item = (&Document, &Scenario)> {
        self.documents.iter().flat_map(|d| d.plan.scenarios.iter().map(move |s| (d, s)))
    }

    /// The scenario of a slug, or of a title in any spelling.
    ///
    /// # Errors
    /// A usage error that names the scenarios there are.
    pub fn find(&self, wanted: &str) -> Result<(&Document, &Scenario)> {
        let norm = super::words::norm(wanted);
        self.scenarios()
            .find(|(_, s)| s.slug == wanted)
            .or_else(|| self.scenarios().find(|(_, s)| super::words::norm(&s.title) == norm))
            .ok_or_else(|| {
                let known: Vec<&str> = self.scenarios().map(|(_, s)| s.slug.as_str()).collect();
                let hint = if known.is_empty() {
                    "No document of this library holds a scenario.".to_string()
                } else {
                    format!("Known scenarios: {}.", known.join(", "))
                };
                Error::usage(format!("there is no scenario {wanted:?}")).hint(hint)
            })
    }

    /// Two scenarios of one slug in different documents: the later one is named after its document as well.
    fn distinct_slugs(&mut self) {
        let mut seen: Vec<(String, String)> = Vec::new();
        for document in &mut self.documents {
            let file = document.plan.file.clone();
            for scenario in &mut document.plan.scenarios {
                if let Some((_, other)) = seen.iter().find(|(slug, _)| *slug == scenario.slug) {
                    let stem = super::understand::slug(&super::understand::file_title(&file));
                    let mut fresh = format!("{stem}-{}", scenario.slug);
                    let mut n = 2;
                    while seen.iter().any(|(slug, _)| *slug == fresh) {
                        fresh = format!("{stem}-{}-{n}", scenario.slug);
                        n += 1;
                    }
                    let text = format!(
                        "two scenarios are called {:?}: the other is in {other}; this one is {fresh}",
                        scenario.title
                    );
                    self.notices.push(format!("{file}:{}: {text}", scenario.line));
                    document.plan.notices.push(Notice { line: scenario.line, text });
                    scenario.slug = fresh;
                }
                seen.push((scenario.slug.clone(), file.clone()));
            }
        }
    }
}

struct Resolved {
    files: Vec<PathBuf>,
    several: bool,
}

fn resolve(path: &Path) -> Result<Resolved> {
    if path.is_dir() {
        let files = markdown_in(path)?;
        if files.is_empty() {
            return Err(Error::usage(format!("no plan in folder {:?}", path.display().to_string()))
                .why("it holds no Markdown file (.md, .markdown)")
                .hint("Give the folder that holds the documents, or a document itself."));
        }
        return Ok(Resolved { files, several: true });
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !path.exists() && name.contains(['*', '?']) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .usage(|| format!("cannot read folder {:?}", folder.display().to_string()))?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.is_file() && p.file_name().is_some_and(|n| matches_glob(&name, &n.to_string_lossy())))
            .collect();
        files.sort();
        if files.is_empty() {
            return Err(Error::usage(format!("nothing matches {:?}", path.display().to_string())));
        }
        return Ok(Resolved { files, several: true });
    }
    Ok(Resolved { files: vec![path.to_path_buf()], several: false })
}

/// `*` any characters, `?` one.
fn matches_glob(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < n.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || n.get(j) == Some(c) => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    i = at + 1;
                    j = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    p.get(i..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// Markdown files below a folder, sorted; hidden folders and those of package managers are left out.
fn markdown_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let entries =
            std::fs::read_dir(&dir).usage(|| format!("cannot read folder {:?}", dir.display().to_string()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if depth < MAX_DEPTH
                    && !name.starts_with('.')
                    && !matches!(name.as_str(), "node_modules" | "target" | "vendor")
                {
                    open.push((entry.path(), depth + 1));
                }
            } else if is_markdown(&name) {
                out.push(entry.path());
                if out.len() > MAX_DOCUMENTS {
                    return Err(Error::usage(format!(
                        "more than {MAX_DOCUMENTS} Markdown files below {:?}",
                        folder.display().to_string()
                    ))
                    .hint("Give the folder that holds the plans."));
                }
            }
        }
    }
    out.sort();
    Ok(out)
}

fn is_markdown(name: &str) -> bool {
    let lower = name.to_lowercase();
    [".md", ".markdown", ".mdx", ".md.erb", ".md.j2"].iter().any(|e| lower.ends_with(e))
}

/// The name a document is shown and kept under: relative to the folder that was given, else its file name.
fn shown_name(file: &Path, root: Option<&Path>) -> String {
    let relative = root.and_then(|r| file.strip_prefix(r).ok());
    relative.map_or_else(
        || file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        |p| p.display().to_string(),
    )
}

/// Extensions that are certainly something else.
#[rustfmt::skip]
const FOREIGN: &[&str] = &[
    "pdf", "docx", "doc", "odt", "html", "htm", "json", "yaml", "yml", "toml", "png", "jpg", "jpeg", "svg", "gz",
    "zip", "tar", "xlsx", "csv", "sql", "sh", "py", "js", "ts", "rs", "go", "exe",
];

fn read_document(path: &Path, name: &str) -> Result<Document> {
    let shown = path.display().to_string();
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let bytes = std::fs::read(path).map_err(|e| {
        let error = Error::usage(format!("cannot read plan {shown:?}")).why(&e);
        match e.kind() {
            std::io::ErrorKind::PermissionDenied => error.hint("Make it readable for the user this runs as."),
            std::io::ErrorKind::NotFound => {
                error.hint("Check the path; `breakglass plan list` shows the runbooks that are built in.")
            }
            _ => error,
        }
    })?;
    if FOREIGN.contains(&extension.as_str()) {
        return Err(Error::usage(format!("{shown:?} is not Markdown"))
            .why(format!("it is a .{extension} file"))
            .hint("Give the Markdown source of the plan."));
    }
    let plan = parse(name, &bytes)?;
    Ok(Document { origin: Origin::File(path.to_path_buf()), bytes, plan })
}
