//! Identifiers, each a type of its own so that two of them cannot be confused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Position of a record in an incident's journal, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A run's id: the sequence number of the record that requested it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);
        impl $name {
            /// Wraps a text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// An incident: `20261120T1401Z-database-corruption-7f3a`.
    IncidentId
);
text_id!(
    /// A step of a scenario, unique within the scenario and kept in plan.json: `s6` or an author's own id.
    StepId
);
impl StepId {
    /// What steps are listed by when their plan is not at hand: `s2` before `s10`.
    pub fn order(&self) -> (usize, &str) {
        let digits = self.0.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        (digits.get(..end).and_then(|d| d.parse().ok()).unwrap_or(usize::MAX), &self.0)
    }
}
text_id!(
    /// SHA-256 in lower-case hexadecimal, 64 characters.
    Digest
);
text_id!(
    /// Who did something: `user@host`, or `breakglass` for the program itself.
    Actor
);
