//! Nouns and facts. Pure: no I/O, no clock, no async, nothing of ours outside this folder.

pub mod duration;
pub mod event;
pub mod ids;
pub mod plan;
pub mod record;
pub mod secret;
pub mod target;
pub mod text;
pub mod time;

pub use duration::{format_clock, parse_duration};
pub use event::{Event, Kind};
pub use ids::{Actor, Digest, IncidentId, RunId, Seq, StepId};
pub use plan::{Block, BlockRole, Phase, Plan, Risk, Scenario, Severity, Step};
pub use record::Record;
pub use secret::{Redactor, Secret, likely_secret, may_hold_secret, url_password};
pub use text::CleanText;
pub use time::Time;
