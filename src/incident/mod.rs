//! State as a fold over the journal, and decide: the only place that says what is allowed. Pure: time is an argument.

pub mod clock;
pub mod command;
pub mod decide;
mod fold;
pub mod forecast;
pub mod moment;
pub mod people;
pub mod rules;
pub mod state;
pub mod timers;
pub mod writes;

pub use clock::{Instant, Now, RtoClock};
pub use command::{Command, RunRequest};
pub use decide::{Context, Policy, Refusal, decide};
pub use forecast::{Forecast, StepTimes, forecast};
pub use people::People;
pub use rules::Rules;
pub use state::{Run, RunStatus, State, StepState, StepStatus};
pub use timers::{Deadline, Standing, Timer, deadlines};
