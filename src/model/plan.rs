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
    /// People and services to reach.
    #[serde(default)]
    pub contacts: Vec<Contact>,
    /// Escalation levels, in order.
    #[serde(default)]
    pub escalation: Vec<Escalation>,
    /// The severity matrix: what each level asks for.
    #[serde(default)]
    pub matrix: Vec<MatrixRow>,
    /// Links to other documents, as written.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// A person, team or service that can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Role, service or name in the first column.
    pub role: String,
    /// The rest of what the author wrote: name, phone, address.
    pub reach: Vec<String>,
    /// Whether it still holds a blank to fill in, such as `[Name]` or `+1-XXX-XXX-XXXX`.
    pub unfilled: bool,
    /// Heading it stands under.
    pub section: String,
    /// Line.
    pub line: u32,
    /// The reading rule that produced it.
    pub rule: String,
}

/// A level of escalation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// Its number, from 1.
    pub level: u32,
    /// Who.
    pub who: String,
    /// Seconds until they must have answered, if said.
    pub respond_s: Option<u64>,
    /// Line.
    pub line: u32,
    /// The reading rule that produced it.
    pub rule: String,
}

/// What one level of the document's severity scale asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixRow {
    /// `P0` … `P3`, mapped through the document's own scale.
    pub level: String,
    /// The author's name for it.
    pub raw: String,
    /// Seconds until somebody must respond.
    pub respond_s: Option<u64>,
    /// Seconds until it is escalated.
    pub escalate_s: Option<u64>,
    /// Who is told, and by when, as written.
    pub communicate: Option<String>,
    /// Seconds until people must have been told.
    pub communicate_s: Option<u64>,
    /// Line.
    pub line: u32,
    /// The reading rule that produced it.
    pub rule: String,
}

/// A link as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its text.
    pub text: String,
    /// Where it points: a document, an anchor or both.
    pub target: String,
    /// Line.
    pub line: u32,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severity {
    /// `P0` … `P3`.
    pub level: String,
    /// The author's words.
    pub raw: String,
    /// Line; 0 when not from a document.
    #[serde(default)]
    pub line: u32,
    /// The reading rule that produced it.
    #[serde(default)]
    pub rule: String,
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
    /// Every objective stated for it, with line and rule.
    #[serde(default)]
    pub objectives: Vec<Objective>,
    /// The author's estimate of the whole recovery in seconds ("Estimated recovery time"); never an objective.
    #[serde(default)]
    pub estimate_s: Option<u64>,
    /// How it shows itself.
    #[serde(default)]
    pub symptoms: Vec<Item>,
    /// What must be there before the first step.
    #[serde(default)]
    pub prerequisites: Vec<Item>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What the author says should be seen afterwards.
    #[serde(default)]
    pub expected: Option<String>,
    /// Links and jumps ("see Scenario B").
    #[serde(default)]
    pub links: Vec<Link>,
    /// Where.
    pub source: Source,
}

/// A sub-step or a box to tick.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// As written.
    pub title: String,
    /// Line.
    pub line: u32,
    /// The reading rule that produced it.
    #[serde(default)]
    pub rule: String,
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
    /// The text between the fences, without the final newline; of a console transcript only the commands.
    pub code: String,
    /// The text as written, when `code` is not all of it.
    #[serde(default)]
    pub raw: Option<String>,
    /// Attributes in braces after the language, as written: `risk=destroy timeout=20m`.
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
    /// When the block is exactly one of our own command lines: its words after `breakglass`, unexpanded (`"$TARGET"` → `$TARGET`).
    #[serde(default)]
    pub own: Option<Vec<Word>>,
    /// `<placeholder>`s to be asked for before it may run.
    #[serde(default)]
    pub placeholders: Vec<String>,
    /// Variables it uses that no earlier block of the scenario sets: taken from the environment, else asked for.
    #[serde(default)]
    pub variables: Vec<String>,
    /// What it can do, from the author or from known patterns; none when only the action or the reader can tell.
    #[serde(default)]
    pub risk: Option<Risk>,
    /// Why it is shown and copied but never run by the console, although its role is `run` or `query`.
    #[serde(default)]
    pub blocked: Option<String>,
    /// Whether it needs a terminal of its own (an editor, `psql` without a command, `ssh`).
    #[serde(default)]
    pub interactive: bool,
    /// Line of the closing fence.
    #[serde(default)]
    pub line_end: u32,
    /// The reading rule that decided its role.
    #[serde(default)]
    pub rule: String,
    /// The paragraph right above it, as it stands in the step's text too: it says what the block is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

impl Block {
    /// Whether the console may run it at all: its role allows it and nothing blocks it.
    pub fn runnable(&self) -> bool {
        matches!(self.role, BlockRole::Run | BlockRole::Query) && self.blocked.is_none()
    }
}

impl Default for Block {
    /// An empty block that is never run.
    fn default() -> Self {
        Self {
            line: 0,
            lang: String::new(),
            role: BlockRole::Text,
            code: String::new(),
            raw: None,
            attrs: BTreeMap::new(),
            own: None,
            placeholders: Vec::new(),
            variables: Vec::new(),
            risk: None,
            blocked: None,
            interactive: false,
            line_end: 0,
            rule: String::new(),
            caption: None,
        }
    }
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
    /// The value of a variable in double quotes; asked for when unset.
    Var(String),
    /// The value of an unquoted variable: only one plain word will do, because the shell would split anything else.
    Bare(String),
}

/// Something worth telling the reader about how the document was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Line, from 1; 0 for the whole document.
    pub line: u32,
    /// What.
    pub text: String,
}

/// A section that is not a scenario but is kept and can be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// `contacts`, `escalation`, `matrix`, `template`, `checklist`, `procedure`, `process`, `drill`, `retention`,
    /// `rotation`, `schedule`, `channels`, `objectives`, `reference`.
    pub kind: String,
    /// Heading.
    pub title: String,
    /// Markdown.
    pub text: String,
    /// Boxes, bullets or table rows below it, one line each.
    #[serde(default)]
    pub items: Vec<Item>,
    /// Where.
    pub source: Source,
}
