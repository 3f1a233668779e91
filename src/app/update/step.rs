//! A step: ticking its items and finishing it, never over the reader's head.

use crate::incident::Command;
use crate::incident::people::untold;
use crate::model::StepId;

use super::super::{App, Effect, IncidentUi, Pane, Tone, words};
use super::motion;

/// Finishing a step that was looked at. Open items are asked about first: pressed again, it is finished all the same.
pub(super) fn finish(app: &mut App, step: StepId) -> Option<Command> {
    if app.step_unsettled() {
        app.say(Tone::Info, "not taken: this step has just come up; read it first".into());
        return None;
    }
    let ui = app.incident.as_mut()?;
    let of = ui.data.scenario.steps.iter().find(|s| s.id == step)?;
    let open: Vec<usize> = (0..of.items.len()).filter(|i| !ui.is_ticked(&step, *i)).collect();
    let untold = untold(&ui.data.state, of);
    let unseen: Vec<usize> = open.iter().copied().filter(|i| !ui.seen.contains(&(step.clone(), *i))).collect();
    let asked = ui.unticked.as_ref() == Some(&step);
    let first = open.first().and_then(|i| of.items.get(*i)).map(|item| words::plain(&item.title));
    // Asked again it is finished, but never over an item that nobody can have read.
    if (!open.is_empty() || untold) && (!asked || !unseen.is_empty()) {
        ui.unticked = Some(step);
        let again = "d again finishes the step all the same";
        let items = words::plural(open.len() as u64, "item");
        let text = match (first, untold) {
            (Some(_), _) if asked => {
                let hidden = words::plural(unseen.len() as u64, "item");
                format!("{hidden} of them could not be seen yet: read on; {again}")
            }
            (Some(first), false) => format!("{items} not ticked: space ticks; {again}; the first: {first}"),
            (Some(_), true) => format!("{items} not ticked, and nothing was told (w); {again}"),
            (None, _) => format!("nothing was told in this step: w tells, or notes that they know; {again}, on record"),
        };
        if let Some(item) = unseen.first().filter(|_| asked).or(open.first()) {
            motion::show_item(app, *item);
        }
        app.say(Tone::Bad, text);
        return None;
    }
    // What it warned of was decided: the next step is not to be read under it.
    if app.incident.as_mut().is_some_and(|ui| ui.unticked.take().is_some()) {
        app.message_over = app.messages.len();
    }
    Some(Command::FinishStep { step })
}

/// Ticks the selected item, or from the list of steps the first one that is not ticked.
pub(super) fn tick(app: &mut App, out: &mut Vec<Effect>) {
    let Some(ui) = &mut app.incident else { return };
    let Some(step) = ui.data.scenario.steps.get(ui.steps.step) else { return };
    let id = step.id.clone();
    // What was asked for a moment ago counts: the next press is for the next item.
    let is = |i: usize| ui.is_ticked(&id, i);
    let item = match ui.steps.pane {
        Pane::Text => Some(ui.steps.item),
        Pane::Steps | Pane::Output => (0..step.items.len()).find(|i| !is(*i)),
    };
    // Nobody ticks what they cannot have read.
    if let Some(hidden) = item.filter(|i| !is(*i) && !ui.seen.contains(&(id.clone(), *i))) {
        if ui.steps.pane == Pane::Output {
            ui.steps.pane = Pane::Steps;
        }
        motion::show_item(app, hidden);
        return app.say(Tone::Info, "not ticked: that item was out of sight; read it, then space ticks it".into());
    }
    // The next press ticks the next one: who presses space twice does not take the first tick back. From an item that was
    // gone to, only one below it: what was passed over was not forgotten.
    let from = if ui.steps.pane == Pane::Text { ui.steps.item } else { 0 };
    let after = (from..step.items.len()).find(|i| Some(*i) != item && !is(*i));
    match item.and_then(|i| u32::try_from(i).ok().map(|n| (n, !is(i)))) {
        Some((item, done)) => {
            if let (true, Some(after)) = (done, after) {
                ui.steps.item = after;
            }
            // The next item comes into sight by itself.
            ui.steps.scrolled &= ui.steps.pane == Pane::Text;
            ui.ticking.insert((id.clone(), item), done);
            let read_on = after.filter(|_| done && ui.steps.pane == Pane::Text);
            if let Some(after) = read_on.filter(|i| !app.shown.seen.1.contains(i)) {
                motion::show_item(app, after);
            }
            out.push(Effect::Submit(Command::Tick { step: id, item, done }, None));
        }
        None => app.say(Tone::Info, "everything is ticked; enter, then space, unticks an item".into()),
    }
}

impl IncidentUi {
    /// Whether an item is ticked, or will be by what was asked for a moment ago.
    fn is_ticked(&self, step: &StepId, item: usize) -> bool {
        let Ok(item) = u32::try_from(item) else { return false };
        let asked = self.ticking.get(&(step.clone(), item)).copied();
        asked.unwrap_or_else(|| self.data.state.step(step).ticked.contains_key(&item))
    }
}
