//! What was not seen of the log, or seen and passed over: said, because nobody may take it for nothing.

use serde::Serialize;

use crate::model::Time;
use crate::postgres::Lsn;

/// A stretch of the log that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Segment that it begins in.
    pub segment: String,
    /// Where it begins.
    #[serde(serialize_with = "super::names::lsn_text::serialize")]
    pub from: Lsn,
    /// First record that could be read behind it; none when there was none.
    #[serde(serialize_with = "super::names::lsn_text::optional::serialize")]
    pub to: Option<Lsn>,
    /// What is wrong, in words.
    pub why: String,
    /// Latest commit before it.
    pub after: Option<Time>,
    /// First commit behind it.
    pub before: Option<Time>,
}

impl Gap {
    /// Whether what committed from `since` to `until` may lie in it.
    pub fn concerns(&self, since: Time, until: Option<Time>) -> bool {
        self.before.is_none_or(|b| b >= since) && until.is_none_or(|u| self.after.is_none_or(|a| a <= u))
    }
    /// For people, with the time that it hides.
    pub fn describe(&self) -> String {
        let to = self.to.map_or_else(|| "to its end".to_string(), |to| format!("to {to}"));
        let when = match (self.after, self.before) {
            (Some(a), Some(b)) => format!("between {a} and {b}"),
            (Some(a), None) => format!("after {a}"),
            (None, Some(b)) => format!("before {b}"),
            (None, None) => "there".into(),
        };
        format!(
            "the log was not searched from {} (at {}) {to}: {}; what was committed {when} may be missing here and in the figures",
            self.segment, self.from, self.why
        )
    }
}

/// Transactions that deleted rows, and fewer than make a suspect by the rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Smaller {
    /// How many.
    pub transactions: u64,
    /// Rows that they deleted, over all.
    pub deleted: u64,
}
