//! Dialogs: what each asks, and its fields. What an accepted one does is in [`super::update`].

use std::collections::BTreeMap;

use crate::incident::rules::{Limits, Rules};
use crate::incident::{Refusal, RunRequest};
use crate::model::plan::Link;
use crate::model::target::{Loss, RecoveryTarget};
use crate::model::{Digest, RunId, StepId, Time, may_hold_secret};

use super::Preview;
use super::command::Context;
use super::field::Line;
use super::words;

/// What a dialog asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What can be done here (`?`).
    Help,
    /// Every command (`:`).
    Palette,
    /// A remark.
    Note,
    /// Why a step is left out.
    Skip(StepId),
    /// Why a step is opened again.
    Reopen(StepId),
    /// Severity and impact of the open incident.
    Declare,
    /// A new real incident: document, scenario, its title.
    Begin {
        /// Document.
        file: String,
        /// Scenario.
        scenario: String,
        /// Its title.
        title: String,
    },
    /// A drill: document, scenario, its title.
    Drill {
        /// Document.
        file: String,
        /// Scenario.
        scenario: String,
        /// Its title.
        title: String,
    },
    /// Values the command needs.
    Values(Vec<String>),
    /// Name and value of a variable.
    Variable,
    /// The command of a step with other options, for one run.
    Edit {
        /// Step.
        step: StepId,
        /// Line of the command in the plan.
        line: u32,
        /// As the plan has it, filled in.
        planned: String,
    },
    /// Run something that changes the world; what it would do was looked at.
    Run(Box<RunRequest>, Preview),
    /// Run something that destroys; the name has to be typed.
    Destroy(Box<RunRequest>, String, Preview),
    /// Something was refused; with a gate it can be waived here.
    Refused(Refusal),
    /// Pass a safety gate.
    Waive,
    /// Restore to this moment.
    Choose {
        /// To just before this.
        target: RecoveryTarget,
        /// Its time.
        at: Option<Time>,
        /// What it loses.
        loses: Option<Loss>,
        /// What it is, for people.
        what: String,
        /// What is dangerous about it.
        warning: Option<String>,
    },
    /// A moment that is not in the list.
    OtherMoment,
    /// Stop a run.
    Cancel(RunId),
    /// What became of a run.
    Unknown(RunId),
    /// The worker died, its processes go on.
    Died(RunId),
    /// The worker is on another host, which may be gone.
    Elsewhere(RunId),
    /// Service is back.
    Restored,
    /// Close the incident.
    Close,
    /// Work with the changed plan.
    Adopt(Digest),
    /// Which link to follow.
    Links(Vec<Link>),
    /// Every deadline, and what to do about the ones that run.
    Deadlines,
    /// Put a deadline off.
    Snooze,
    /// Call a level.
    Escalate,
    /// Who of a level answered.
    Answered(u32),
    /// Why nobody has to be called.
    NoCall,
    /// Give a role to somebody.
    Assign,
    /// Whom to tell, and with which message; the step whose work that is, if any.
    Tell(Option<StepId>),
    /// A message, and how it goes out.
    Send {
        /// It.
        message: Outgoing,
        /// What was typed into its blanks and not accepted yet, by variable.
        typed: BTreeMap<String, String>,
        /// As it was copied, to be sent by hand; told once somebody says that it is out.
        copied: Option<String>,
    },
    /// The blanks of the message below that only a person can fill in.
    Blanks(Vec<String>),
    /// The message has blanks: whether it goes out all the same.
    BlanksLeft {
        /// How.
        how: String,
        /// It.
        message: Outgoing,
    },
    /// The name it goes by.
    Codename,
    /// Whether its title is said again, and not this name.
    LiftCodename(String),
    /// Nothing may leave the machine any more, or it may again.
    LocalOnly(bool),
    /// A secret was changed.
    Rotated,
    /// What is left to do once it is over.
    Afterwards {
        /// The items.
        items: Vec<String>,
        /// Closing comes after it.
        closing: bool,
    },
    /// Leave although actions run.
    Quit,
}

/// A message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub audience: String,
    /// Its text with blanks.
    pub text: String,
    /// The step whose work it is.
    pub step: Option<StepId>,
}

/// Something to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A text.
    Text {
        /// Its name.
        label: String,
        /// What to write, shown while it is empty.
        hint: String,
        /// What was written.
        line: Line,
        /// Shown as dots: a secret.
        hidden: bool,
    },
    /// One of several: word and explanation.
    Choice {
        /// Its name.
        label: String,
        /// The choices.
        options: Vec<(String, String)>,
        /// The one chosen.
        at: usize,
    },
}

impl Field {
    /// A text field.
    pub fn text(label: &str, hint: &str, value: &str) -> Self {
        Self::Text { label: label.into(), hint: hint.into(), line: Line::new(value), hidden: false }
    }
    /// A text field for a value; hidden when its name says that it is a secret.
    pub fn asked(name: &str) -> Self {
        let hidden = may_hold_secret(name);
        let hint = if hidden { "never shown or recorded" } else { "value; \"\" for an empty one" };
        Self::Text { label: name.into(), hint: hint.into(), line: Line::new(""), hidden }
    }
    /// A choice.
    pub fn choice(label: &str, options: &[(&str, &str)], at: usize) -> Self {
        let options = options.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        Self::Choice { label: label.into(), options, at }
    }
    /// What was entered: the text, or the word of the choice.
    pub fn value(&self) -> &str {
        match self {
            Self::Text { line, .. } => line.text().trim(),
            Self::Choice { options, at, .. } => options.get(*at).map_or("", |(word, _)| word),
        }
    }
}

/// A dialog on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    /// What it asks.
    pub ask: Ask,
    /// Fields.
    pub fields: Vec<Field>,
    /// Field that has the focus; of a question its button, 0 is Cancel.
    pub focus: usize,
    /// Selected row of a palette.
    pub selected: usize,
    /// First row of its text on the screen.
    pub scroll: usize,
    /// What is wrong with what was entered.
    pub problem: Option<String>,
}

/// Severities with what they usually mean.
pub const SEVERITIES: [(&str, &str); 4] = [
    ("P0", "critical: service down or data damaged"),
    ("P1", "high: a major part does not work"),
    ("P2", "medium: degraded, there is a way around"),
    ("P3", "low: no harm to users yet"),
];

/// Where the beginning of the impact is known from when nobody says so.
pub const SAID: &str = "said by the responder";

const WHEN: &str = "now; or 14:03, -10m, 2026-11-20 14:03 (UTC)";

/// What a severity asks of the people: `respond within 15 min, tell customers within 1 h`.
fn asks(limits: &Limits) -> String {
    let (respond, tell) = (words::span(limits.respond), words::span(limits.communicate));
    format!("respond within {respond}, tell {} within {tell}", limits.audience)
}

impl Dialog {
    /// A dialog with its fields empty.
    pub fn new(ask: Ask) -> Self {
        let fields = match &ask {
            Ask::Help | Ask::Palette => vec![Field::text("", "type to search", "")],
            Ask::Note => vec![Field::text("Note", "what was seen or done", ""), Field::text("When", WHEN, "")],
            Ask::Skip(_) => vec![Field::text("Reason", "why this step is left out", "")],
            Ask::Reopen(_) => vec![Field::text("Reason", "why it has to be done again", "")],
            Ask::Declare | Ask::Begin { .. } => vec![
                Field::choice("Severity", &SEVERITIES, 0),
                Field::text("Impact began", WHEN, ""),
                Field::text("Known from", "first alert, first report, log line", ""),
            ],
            Ask::Values(names) => names.iter().map(|n| Field::asked(n)).collect(),
            Ask::Edit { planned, .. } => vec![Field::text("", "", planned)],
            Ask::Variable => {
                vec![Field::text("Name", "as the plan writes it", ""), Field::text("Value", "never a secret", "")]
            }
            Ask::Destroy(_, name, _) => vec![Field::text("Type the name", name, "")],
            Ask::Refused(Refusal { gate: Some(_), .. }) => {
                vec![Field::text("Waive, because", "the reason is recorded; esc to leave it", "")]
            }
            Ask::Waive => vec![Field::choice("Gate", &GATES, 0), Field::text("Because", "the reason is recorded", "")],
            Ask::OtherMoment => {
                vec![Field::text("Before", "2026-11-20T14:01:07Z, lsn:0/5A2F118, xid:73114, name:x", "")]
            }
            Ask::Unknown(_) => vec![
                Field::choice(
                    "It",
                    &[
                        ("succeeded", "its effect is there, whole"),
                        ("failed", "its effect is not there, or only in part"),
                        ("was stopped", "it did nothing that remains"),
                    ],
                    1,
                ),
                Field::text("How you know", "what you looked at", ""),
            ],
            Ask::Died(_) => vec![Field::choice(
                "",
                &[
                    ("watch", "let its processes go on and look at them"),
                    ("stop them", "TERM to its processes, KILL after 5 s"),
                ],
                0,
            )],
            Ask::Elsewhere(_) => vec![Field::choice(
                "",
                &[
                    ("watch", "its host lives: wait for what it records"),
                    ("it is gone", "the host is gone for good: then its outcome is unknown"),
                ],
                0,
            )],
            Ask::Restored => {
                vec![Field::text("How you know", "verified and healthy", ""), Field::text("Since", WHEN, "")]
            }
            Ask::Close => vec![Field::text("Summary", "one sentence for whoever reads this first", "")],
            Ask::Links(links) => {
                let options: Vec<(&str, &str)> = links.iter().map(|l| (l.text.as_str(), l.target.as_str())).collect();
                vec![Field::choice("", &options, 0)]
            }
            Ask::Quit => vec![Field::choice(
                "",
                &[
                    ("stay", "go back to the incident"),
                    ("leave", "running actions go on without the console; resume shows them again"),
                ],
                0,
            )],
            Ask::Answered(_) => vec![Field::text("Who", "the name of the person", "")],
            Ask::NoCall | Ask::LocalOnly(_) => vec![Field::text("Because", "the reason is recorded", "")],
            // These are filled by whoever opens them, with what is known.
            Ask::Deadlines
            | Ask::Snooze
            | Ask::Escalate
            | Ask::Assign
            | Ask::Tell(_)
            | Ask::Send { .. }
            | Ask::Blanks(_)
            | Ask::Codename
            | Ask::LiftCodename(_)
            | Ask::Rotated
            | Ask::Afterwards { .. } => vec![],
            Ask::Drill { .. }
            | Ask::Run(..)
            | Ask::Refused(_)
            | Ask::BlanksLeft { .. }
            | Ask::Choose { .. }
            | Ask::Cancel(_)
            | Ask::Adopt(_) => {
                vec![]
            }
        };
        Self { ask, fields, focus: 0, selected: 0, scroll: 0, problem: None }
    }

    /// Preselects a severity, where the first field chooses one: what the plan or an earlier declaration says. Beside each stands
    /// what it asks of the people.
    pub fn choose_severity(&mut self, level: Option<&str>, rules: &Rules) {
        if !matches!(self.ask, Ask::Declare | Ask::Begin { .. }) {
            return;
        }
        if let Some(Field::Choice { at, options, .. }) = self.fields.first_mut() {
            *at = SEVERITIES.iter().position(|(word, _)| Some(*word) == level).unwrap_or(0);
            for (word, about) in options {
                about.push_str(&format!("; {}", asks(rules.limits(Some(word)))));
            }
        }
    }

    /// Adds a field for the name it goes by, where the plan asks for one or it has one.
    pub fn ask_codename(&mut self, asked: bool, now: Option<&str>) {
        if asked || now.is_some() {
            self.fields.push(Field::text("Code name", "says nothing of what happened", now.unwrap_or_default()));
        }
    }

    /// Which keys work in it.
    pub fn context(&self) -> Context {
        match (&self.ask, self.fields.get(self.focus)) {
            (Ask::Help | Ask::Palette, _) => Context::Palette,
            (_, Some(Field::Text { .. })) => Context::Form,
            (_, Some(Field::Choice { .. })) => Context::Choice,
            (_, None) => Context::Confirm,
        }
    }

    /// The text field that has the focus.
    pub fn line(&mut self) -> Option<&mut Line> {
        match self.fields.get_mut(self.focus)? {
            Field::Text { line, .. } => Some(line),
            Field::Choice { .. } => None,
        }
    }

    /// What was entered in a field; empty when there is no such field.
    pub fn value(&self, field: usize) -> &str {
        self.fields.get(field).map_or("", Field::value)
    }
}

/// Gates that can be waived by hand, with what each is for.
pub const GATES: [(&str, &str); 5] = [
    ("identity", "the target was seen live and is the expected one"),
    ("verified_backup", "there is a young, verified backup"),
    ("containment", "writes to the damaged database are off"),
    ("verification", "the recovered instance was verified"),
    ("second_person", "another person approved"),
];
