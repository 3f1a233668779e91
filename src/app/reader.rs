//! Where the reader is: which screen, which pane, what is selected, filtered and searched for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::data::{Incident, Live, ScenarioRow};
use crate::model::{Plan, RunId, Scenario, Seq, StepId, Time};
use crate::recovery::axis::Axis;

/// A screen; the stack of them begins with home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Screen {
    /// Scenarios and open incidents.
    Home,
    /// A scenario that is read, without an incident.
    Plan,
    /// An incident.
    Incident,
    /// What happened in it.
    Timeline,
    /// Which moment to restore to.
    Moment,
    /// What the plan says beside the steps: contacts, matrix, templates, checklists, links.
    Reference,
    /// A drill's sandbox is being made.
    Waiting,
    /// All messages of this session.
    Messages,
}

/// A pane of the incident's screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pane {
    /// The list of steps.
    #[default]
    Steps,
    /// The selected step's text.
    Text,
    /// The output of its run.
    Output,
}

/// Selection, scroll and filter of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListUi {
    /// Selected row among those shown.
    pub selected: usize,
    /// The filter, as typed; `!` at its beginning inverts.
    pub filter: String,
}

impl ListUi {
    /// Whether a row with this text passes the filter.
    pub fn passes(&self, text: &str) -> bool {
        passes(&self.filter, text)
    }
}

/// Whether a text passes a filter: all words of it are found, in any case; `!` at the beginning inverts.
pub fn passes(filter: &str, text: &str) -> bool {
    let (invert, filter) = match filter.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, filter),
    };
    let text = text.to_lowercase();
    let found = filter.to_lowercase().split_whitespace().all(|word| text.contains(word));
    found != (invert && !filter.trim().is_empty())
}

/// Where the reader is in the output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputUi {
    /// Run that is shown; `None` until one is.
    pub run: Option<RunId>,
    /// First line on the screen when not following.
    pub top: u64,
    /// Stay at the end.
    pub follow: bool,
    /// Lines there were when following was left: what came since is counted on the screen.
    pub left_at: u64,
    /// Columns scrolled to the right.
    pub column: usize,
    /// What is searched for; empty when nothing is.
    pub search: String,
    /// Line of the current match.
    pub hit: Option<u64>,
    /// A result that is read from its beginning was put there.
    pub begun: bool,
}

/// The scenario that is being read.
#[derive(Debug, Clone)]
pub struct PlanUi {
    /// It.
    pub row: ScenarioRow,
    /// Steps and text.
    pub steps: StepsUi,
}

/// Where the reader is in what the plan says beside the steps.
#[derive(Debug, Clone)]
pub struct ReferenceUi {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The scenario its pages begin with.
    pub scenario: Option<Arc<Scenario>>,
    /// Selected page.
    pub page: usize,
    /// First row of its text on the screen.
    pub scroll: usize,
    /// The page that was to be copied with blanks: asked again, it is.
    pub unfilled: Option<usize>,
}

/// Where the reader is among the steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepsUi {
    /// The pane that has the focus.
    pub pane: Pane,
    /// Selected step.
    pub step: usize,
    /// Selected item of the step.
    pub item: usize,
    /// Selected command among the step's runnable blocks.
    pub block: usize,
    /// First row of the text on the screen, once the reader scrolled.
    pub scroll: usize,
    /// The reader scrolled: the text stays there and follows nothing.
    pub scrolled: bool,
}

/// A run, or a change of its options, that waits for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Step.
    pub step: StepId,
    /// Line of its command.
    pub line: u32,
    /// Its options are to be changed first.
    pub edit: bool,
    /// What was asked for.
    pub names: Vec<String>,
}

/// The open incident and where the reader is in it.
#[derive(Debug, Clone)]
pub struct IncidentUi {
    /// What is known.
    pub data: Incident,
    /// Steps and text.
    pub steps: StepsUi,
    /// Go along when the work moves on to the next step, until the reader moves elsewhere.
    pub along: bool,
    /// Output.
    pub output: OutputUi,
    /// Timeline.
    pub timeline: ListUi,
    /// Moments.
    pub moment: ListUi,
    /// Ticks that were asked for and are not in the journal yet, and what each item will be.
    pub ticking: BTreeMap<(StepId, u32), bool>,
    /// Items that were on the screen, by step and place: only these can be ticked or passed over.
    pub seen: BTreeSet<(StepId, usize)>,
    /// When the work moved the selection to another step by itself.
    pub came_up: Option<Time>,
    /// Exposure as it was measured last.
    pub live: Live,
    /// The log over time, once it was read.
    pub axis: Option<Axis>,
    /// Where the cursor was put on it; none where the selected moment is.
    pub axis_at: Option<Time>,
    /// What was asked for and goes on once what it needs has a value.
    pub wanted: Option<Wanted>,
    /// Commands that ran with other options, by step and line: as the plan had them then, and as they were changed.
    pub edited: BTreeMap<(StepId, u32), (String, String)>,
    /// The step with open items that was asked to be finished: asked again, it is.
    pub unticked: Option<StepId>,
    /// How far the journal went that was exported last.
    pub exported: Option<Seq>,
}
