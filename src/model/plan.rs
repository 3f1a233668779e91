//! A plan as understood: scenarios, objectives, steps and blocks, each with its place in the source.
//!
//! Durations are in seconds, lines count from 1. A field that is `None` was not said by the author.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, StepId};

/// Where something stands in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Document, relative to the library's root.
    pub file: String,
    /// First line, from 1.
    pub line: u32,
    /// Last line, from 1.
    pub line_end: u32,
    /// The reading rule that produced it (docs/formats.md, "Reading rules").
    pub rule: String,
}

/// One Markdown document as understood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// First heading, front-matter title or file name.
    pub title: String,
    /// Document name.
    pub file: String,
    /// SHA-256 of the document's bytes.
    pub digest: Option<Digest>,
    /// Objectives of the whole plan.
    pub objectives: Objectives,
    /// Things that can happen, in document order.
    pub scenarios: Vec<Scenario>,
    /// Every fence of the document, in order.
    pub blocks: Vec<Block>,
    /// What was repaired, not understood or ambiguous.
    pub notices: Vec<Notice>,
    /// Everything else the author wrote that a responder may want (contacts, matrix, templates, checklists, procedures).
    pub extras: Vec<Extra>,
}

/// Recovery objectives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// Recovery time objective in seconds.
    pub rto_s: Option<u64>,
    /// Recovery point objective in seconds.
    pub rpo_s: Option<u64>,
    /// Every objective as written, with its scope.
    #[serde(default)]
    pub all: Vec<Objective>,
}

/// One stated objective.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// `rto`, `rpo` or `mtd`.
    pub metric: String,
    /// What it applies to ("critical systems"); none for the whole plan.
    pub scope: Option<String>,
    /// `=`, `<`, `<=` or `~`.
    pub comparison: String,
    /// Seconds; none when the text gives no number.
    pub seconds: Option<u64>,
    /// The author's words.
    pub raw: String,
    /// Where.
    pub source: Source,
}

/// How bad it is. `level` is P0 to P3, mapped through the document's own scale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severity {
    /// `P0` … `P3`.
    pub level: String,
    /// The author's words.
    pub raw: String,
}

/// One thing that can happen, with what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Identifier within the library: the title in lower-case words joined by `-`.
    pub slug: String,
    /// As written, without numbering.
    pub title: String,
    /// Heading it was grouped under, if any.
    pub group: Option<String>,
    /// Line of its heading.
    pub line: u32,
    /// Severity, if said.
    pub severity: Option<Severity>,
    /// Recovery time objective in seconds, if said here.
    pub rto_s: Option<u64>,
    /// Recovery point objective in seconds, if said here.
    pub rpo_s: Option<u64>,
    /// Prose before the first step, as Markdown.
    pub intro: String,
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// Checks afterwards.
    #[serde(default)]
    pub after: Vec<Item>,
    /// Where.
    pub source: Source,
}

/// The phases of a recovery, in their usual order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Notice and confirm.
    Detect,
    /// Say it is an incident.
    Declare,
    /// Stop the bleeding.
    Contain,
    /// Find out what is damaged.
    Assess,
    /// Choose how and to which moment.
    Decide,
    /// Bring it back.
    Recover,
    /// Check it.
    Verify,
    /// Put it into service.
    Promote,
    /// Back up, salvage, clean up.
    Protect,
    /// Tell people.
    Communicate,
    /// Close.
    Close,
    /// Prevent it from happening again.
    Prevent,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `s1`, `s2`, … or the author's own id.
    pub id: StepId,
    /// As written, without its number.
    pub title: String,
    /// Line where it begins.
    pub line: u32,
    /// Phase, if recognised.
    pub phase: Option<Phase>,
    /// What the author wrote under it, as Markdown, without the blocks.
    pub text: String,
    /// Sub-steps and boxes.
    pub items: Vec<Item>,
    /// Fences, in order.
    pub blocks: Vec<Block>,
    /// The author's estimate in seconds.
    pub estimate_s: Option<u64>,
    /// "If database is down": the condition under which the step applies.
    pub condition: Option<String>,
    /// Where.
    pub source: Source,
}

/// A sub-step or a box to tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// As written.
    pub title: String,
    /// Line.
    pub line: u32,
}

/// What a fence is for. Only `Run` and `Query` may ever be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockRole {
    /// Shell commands, or one of our own command lines.
    Run,
    /// SQL.
    Query,
    /// Expected output or a sample of one.
    Output,
    /// A configuration or data sample.
    Sample,
    /// A message to send.
    Template,
    /// Program source.
    Source,
    /// Instructions only: nothing to run.
    Comment,
    /// Anything else: readable and copyable, never runnable.
    Text,
}

/// What running something can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Reads only.
    Read,
    /// Changes something that can be changed back.
    Change,
    /// Can destroy data or take a service down.
    Destroy,
}

impl Risk {
    /// `read`, `change` or `destroy`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Destroy => "destroy",
        }
    }
}

/// A fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Line of the opening fence.
    pub line: u32,
    /// First word of the info string, lower case; empty when there is none.
    pub lang: String,
    /// What it is for.
    pub role: BlockRole,
    /// The text between the fences, without the final newline.
    pub code: String,
    /// Attributes in braces after the language, as written: `risk=destroy timeout=20m`.
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
    /// When the block is exactly one of our own command lines: its words after `breakglass`, unexpanded (`"$TARGET"` → `$TARGET`).
    #[serde(default)]
    pub own: Option<Vec<Word>>,
    /// `<placeholder>`s to be asked for before it may run.
    #[serde(default)]
    pub placeholders: Vec<String>,
}

/// One word of a recognised command: literal pieces and plain variables, as bash would read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word(pub Vec<Piece>);

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// Taken as it is.
    Text(String),
    /// The value of a variable; asked for when unset.
    Var(String),
}

/// Something worth telling the reader about how the document was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Line, from 1; 0 for the whole document.
    pub line: u32,
    /// What.
    pub text: String,
}

/// A section that is not a scenario but is kept and can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// `contacts`, `escalation`, `matrix`, `template`, `checklist`, `procedure`, `drill`, `retention`, `reference`.
    pub kind: String,
    /// Heading.
    pub title: String,
    /// Markdown.
    pub text: String,
    /// Where.
    pub source: Source,
}
