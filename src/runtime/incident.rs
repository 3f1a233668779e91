//! One incident as opened by this process: its journal, the state folded from it, its plan.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept_plan::{KeptPlan, plan_of, read_plan};
use crate::error::{Error, Result};
use crate::incident::{Now, Policy, State};
use crate::journal::{Anchors, FileJournal, Head, Journal, Watch};
use crate::model::{Actor, Digest, IncidentId, Plan, Record, RunId, Scenario, Seq};

/// An open incident.
pub struct Incident {
    pub(super) dir: PathBuf,
    pub(super) id: IncidentId,
    pub(super) journal: FileJournal,
    pub(super) head: Head,
    pub(super) records: Vec<Record>,
    pub(super) state: Option<Box<State>>,
    pub(super) plan: Arc<Plan>,
    pub(super) plan_digest: Digest,
    pub(super) scenario: Arc<Scenario>,
    pub(super) plan_damage: Option<String>,
    pub(super) policy: Policy,
    pub(super) actor: Actor,
}

impl Incident {
    /// Opens the incident in `dir`.
    ///
    /// # Errors
    /// State when its journal cannot be read. A damaged plan is replaced: see [`Incident::plan_damage`].
    pub fn open(dir: &Path, policy: Policy) -> Result<Self> {
        let mut journal = journal(dir)?;
        let records = journal.read_from(Seq(1))?;
        let state = State::fold(&records).map(Box::new).ok_or_else(|| {
            Error::state(format!("there is no incident in {dir:?}")).why("its journal does not begin with an opening")
        })?;
        let KeptPlan { plan, scenario, damage } = plan_of(dir, &state);
        Ok(Self {
            dir: dir.to_path_buf(),
            id: state.id.clone(),
            journal,
            head: records.last().map_or_else(Head::empty, Head::after),
            records,
            plan,
            plan_digest: state.plan.clone(),
            scenario,
            plan_damage: damage,
            state: Some(state),
            policy,
            actor: super::actor(),
        })
    }

    /// A new one in `dir`, its plan already written, its journal still empty.
    pub(super) fn create(dir: &Path, id: IncidentId, plan: &Digest, scenario: &str, policy: Policy) -> Result<Self> {
        let kept = read_plan(dir, plan, scenario)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            id,
            journal: journal(dir)?,
            head: Head::empty(),
            records: Vec::new(),
            state: None,
            plan: kept.plan,
            plan_digest: plan.clone(),
            scenario: kept.scenario,
            plan_damage: None,
            policy,
            actor: super::actor(),
        })
    }

    /// Acts as somebody else from here on (the worker and the unattended operator act as the program).
    #[must_use]
    pub fn acting_as(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// Its id.
    pub fn id(&self) -> &IncidentId {
        &self.id
    }
    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Folder of a run.
    pub fn run_dir(&self, run: RunId) -> PathBuf {
        self.dir.join("runs").join(run.to_string())
    }
    /// Its state as of the last look.
    ///
    /// # Errors
    /// State before the first record is written.
    pub fn state(&self) -> Result<&State> {
        self.state.as_deref().ok_or_else(|| Error::state(format!("incident {} has no first record", self.id)))
    }
    /// The plan it works with.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
    /// What is wrong with the plan it keeps, and what stands in for it.
    pub fn plan_damage(&self) -> Option<&str> {
        self.plan_damage.as_deref()
    }
    /// The scenario it works through.
    pub fn scenario(&self) -> &Arc<Scenario> {
        &self.scenario
    }
    /// All records as of the last look.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
    /// Where the journal ended at the last look.
    pub fn head(&self) -> &Head {
        &self.head
    }
    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
    /// Limits in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
    /// Why nothing can be written, when a newer version wrote to it.
    pub fn read_only_because(&self) -> Option<&str> {
        self.journal.read_only_because()
    }
    /// The present, on the clock records are stamped with.
    pub fn now(&self) -> Now {
        let r = self.journal.clock().read();
        Now { time: r.now, up_ms: r.up_ms, boot: r.boot }
    }
    /// Calls back, from a thread of its own, whenever the journal has changed, until the watch is dropped.
    pub fn watch(&self, on_change: impl Fn() + Send + 'static) -> Watch {
        self.journal.watch(on_change)
    }

    /// Looks for what others have written. Returns whether anything was new.
    ///
    /// # Errors
    /// State when the journal cannot be read.
    pub fn refresh(&mut self) -> Result<bool> {
        match self.journal.read_after(&self.head)? {
            Some(new) if new.is_empty() => return Ok(false),
            Some(new) => {
                for record in new {
                    self.take(record);
                }
            }
            // A line that we saw was taken back by its writer: fold again from the start.
            None => {
                let records = self.journal.read_from(Seq(1))?;
                self.state = State::fold(&records).map(Box::new);
                self.head = records.last().map_or_else(Head::empty, Head::after);
                self.records = records;
            }
        }
        self.follow_plan();
        Ok(true)
    }

    /// Adds one verified record to state and list.
    pub(super) fn take(&mut self, record: Record) {
        match &mut self.state {
            Some(state) => state.apply(&record),
            None => self.state = State::fold(std::slice::from_ref(&record)).map(Box::new),
        }
        self.head = Head::after(&record);
        self.records.push(record);
    }

    /// Another plan was adopted: read it.
    pub(super) fn follow_plan(&mut self) {
        let Some(state) = &self.state else { return };
        if state.plan != self.plan_digest {
            let KeptPlan { plan, scenario, damage } = plan_of(&self.dir, state);
            (self.plan, self.scenario, self.plan_damage) = (plan, scenario, damage);
            self.plan_digest = state.plan.clone();
        }
    }
}

fn journal(dir: &Path) -> Result<FileJournal> {
    let journal = FileJournal::open(dir)?;
    Ok(match Anchors::beside(dir) {
        Some(anchors) => journal.with_anchors(anchors),
        None => journal,
    })
}
