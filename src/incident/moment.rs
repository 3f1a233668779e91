//! What a moment means beside the damage on record: whether restoring to it keeps transactions that are suspected.

use crate::model::event::{Check, Verdict};
use crate::model::plan::{Piece, Word};
use crate::model::target::{Candidate, RecoveryTarget};
use crate::model::{Scenario, Time};

use super::State;
use super::state::Facts;

/// Name of the check that says whether suspect transactions were replayed.
pub const DAMAGE_GONE: &str = "damage gone";

/// Whether a recovery to `target` replays the first transaction of a suspect act; `at` is the target's time, if known.
/// `None` when it cannot be told from what is on record.
pub fn keeps(c: &Candidate, target: &RecoveryTarget, at: Option<Time>) -> Option<bool> {
    if c.target == *target {
        return Some(false);
    }
    match target {
        RecoveryTarget::Latest => Some(true),
        RecoveryTarget::Xid(x) if c.xid.as_ref() == Some(x) => Some(false),
        RecoveryTarget::Lsn(l) => match (c.lsn.as_deref().and_then(position), position(l)) {
            (Some(there), Some(stop)) => Some(there < stop),
            _ => at.map(|t| c.at < t),
        },
        RecoveryTarget::Time(t) => Some(c.at < *t),
        RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => at.map(|t| c.at < t),
    }
}

/// The suspect acts on record, best first, that a recovery to this moment would bring back, whole or in part.
pub fn kept<'a>(facts: &'a Facts, target: &RecoveryTarget, at: Option<Time>) -> Vec<&'a Candidate> {
    facts.candidates.iter().filter(|c| keeps(c, target, at) == Some(true)).collect()
}

/// Whether the first suspect of all would be brought back.
pub fn keeps_damage(facts: &Facts, target: &RecoveryTarget, at: Option<Time>) -> bool {
    facts.candidates.first().is_some_and(|c| keeps(c, target, at) == Some(true))
}

/// Whether the moment that was chosen brings damage on record back: then what was lost is not all that is wrong.
pub fn chosen_keeps_damage(facts: &Facts) -> bool {
    facts.chosen.as_ref().is_some_and(|(target, at, _)| keeps_damage(facts, target, *at))
}

/// What a person must know before a moment is taken, one sentence; none when it lies before all damage on record.
pub fn warning(facts: &Facts, target: &RecoveryTarget, at: Option<Time>) -> Option<String> {
    let kept = kept(facts, target, at);
    if let Some(first) = facts.candidates.first().filter(|_| keeps_damage(facts, target, at)) {
        return Some(format!(
            "KEEPS DAMAGE: it lies after {}, {} UTC ({}). To be rid of it choose a moment not later than {}",
            first.target,
            first.at.hms(),
            first.what,
            first.at.hms(),
        ));
    }
    if let Some(lesser) = kept.first() {
        let (target, at) = (&lesser.target, lesser.at.hms());
        return Some(format!("Keeps a lesser suspect, {target}, {at} UTC ({}): see that it is no damage", lesser.what));
    }
    let unknown = facts.candidates.first().is_some_and(|c| keeps(c, target, at).is_none());
    unknown.then(|| {
        "Whether it lies before or after the damage on record is not known: the verification will tell".to_string()
    })
}

/// Whether the verification saw that damage was recovered along: only another moment helps.
pub fn damage_stays(facts: &Facts) -> bool {
    let Some((false, checks)) = &facts.verified else { return false };
    checks.iter().any(|c| c.name == DAMAGE_GONE && c.verdict == Verdict::Failed)
}

/// The check that keeps a verification without a failure from being whole: whether the damage is gone could not be seen.
/// Where all that is archived was wanted and nothing is suspected, there is no damage to look for.
pub fn damage_unseen(facts: &Facts) -> Option<&Check> {
    let (_, checks) = facts.verified.as_ref()?;
    let everything = facts.shadow.as_ref().is_some_and(|s| s.target == RecoveryTarget::Latest);
    if everything && facts.candidates.is_empty() {
        return None;
    }
    checks.iter().find(|c| c.name == DAMAGE_GONE && c.verdict == Verdict::NotAvailable)
}

/// Whether what came after the moment stays where it is: the plan takes rows out of a copy beside (`pitr partial`), puts no copy
/// into service (`pitr promote`) and restores nothing in place, and nobody did so all the same.
pub fn keeps_newer(scenario: &Scenario, state: &State) -> bool {
    let own = || scenario.steps.iter().flat_map(|s| &s.blocks).filter_map(|b| b.own.as_deref());
    let says = |wanted: &[&str]| own().any(|words| begins(words, wanted));
    let place = |word: &Word| matches!(word.0.as_slice(), [Piece::Text(t)] if t == "place" || t == "--into=place");
    let in_place = own().any(|words| begins(words, &["pitr", "restore"]) && words.iter().any(place));
    let done = |action: &str, with: &dyn Fn(&[String]) -> bool| {
        let mut runs = state.runs.values().filter(|r| r.is_open() || r.succeeded());
        runs.any(|r| r.action == action && with(&r.args))
    };
    let promoted = state.facts.promoted.is_some() || done("pitr promote", &|_| true);
    let overwritten = done("pitr restore", &|args| args.iter().any(|a| a == "place" || a == "--into=place"));
    says(&["pitr", "partial"]) && !says(&["pitr", "promote"]) && !in_place && !promoted && !overwritten
}

/// Whether a command of ours begins with these words.
pub(super) fn begins(words: &[Word], with: &[&str]) -> bool {
    let literal = |(word, want): (&Word, &&str)| matches!(word.0.as_slice(), [Piece::Text(t)] if t == want);
    words.len() >= with.len() && words.iter().zip(with).all(literal)
}

/// `0/5A2F118` as a number.
fn position(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?)
}
