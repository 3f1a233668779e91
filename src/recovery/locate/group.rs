//! Which transactions are suspects, and which of them belong to one act. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::audit::Keys;
use crate::model::Time;
use crate::recovery::tables::Transaction;

/// Transactions further apart than this are not one act unless the audit log says they are.
pub const GAP: Duration = Duration::from_secs(600);

/// A transaction is a suspect from so many times the usual rows on.
const TIMES_USUAL: u64 = 10;
/// And never below this.
const AT_LEAST: u64 = 20;

/// What decides.
#[derive(Debug, Clone)]
pub struct Rules<'a> {
    /// Rows from which on a transaction is a suspect.
    pub threshold: u64,
    /// Suspects committed before this.
    pub until: Option<Time>,
    /// Tables that count.
    pub families: &'a BTreeSet<String>,
    /// The audit log, whose own rows are no damage.
    pub trail: Option<&'a str>,
}

/// The transactions of one act: batches of one faulty release, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Who, as the audit log says.
    pub who: Option<String>,
    /// Its transactions, earliest first; never empty.
    pub suspects: Vec<Transaction>,
    /// The audit log, if any: not counted among the rows.
    pub trail: Option<String>,
}

impl Group {
    /// Commit time of the first.
    pub fn moment(&self) -> Option<Time> {
        self.suspects.first().map(|t| t.at)
    }
    /// Commit time of the last.
    pub fn end(&self) -> Option<Time> {
        self.suspects.last().map(|t| t.at)
    }
    /// All ids, subtransactions too.
    pub fn xids(&self) -> Vec<u32> {
        self.suspects.iter().flat_map(|t| t.xids.iter().copied()).collect()
    }
    /// Rows marked per table, the audit log's own left out.
    pub fn rows(&self) -> BTreeMap<String, u64> {
        let mut out: BTreeMap<String, u64> = BTreeMap::new();
        for t in &self.suspects {
            for (table, n) in t.rows.iter().filter(|(table, _)| Some(table.as_str()) != self.trail.as_deref()) {
                *out.entry(table.clone()).or_default() += n;
            }
        }
        out
    }
    /// Most rows marked by one of its transactions.
    pub fn largest(&self) -> u64 {
        self.suspects.iter().map(|t| weight(t, self.trail.as_deref())).max().unwrap_or(0)
    }
    /// For people: `wrote 1204 rows of public.orders and 310 of public.customers in 5 transactions, 14:01:07 to 14:01:12 …`.
    pub fn describe(&self) -> String {
        let tables: Vec<String> = self.rows().iter().map(|(t, n)| format!("{n} of {t}")).collect();
        let n = self.suspects.len();
        let mut text = format!("wrote rows: {} in {n} transaction{}", tables.join(", "), if n == 1 { "" } else { "s" });
        if let (Some(a), Some(b)) = (self.moment(), self.end())
            && a != b
        {
            text.push_str(&format!(", {} to {}", a.hms(), b.hms()));
        }
        if let Some(w) = &self.who {
            text.push_str(&format!(" ({w})"));
        }
        text
    }
}

fn weight(t: &Transaction, trail: Option<&str>) -> u64 {
    t.rows.iter().filter(|(table, _)| Some(table.as_str()) != trail).map(|(_, n)| n).sum()
}

/// From how many rows on a transaction is a suspect: ten times the median, at least 20, or what the caller says.
pub fn threshold(transactions: &[Transaction], trail: Option<&str>, asked: Option<u64>) -> u64 {
    if let Some(n) = asked {
        return n.max(1);
    }
    let mut sizes: Vec<u64> = transactions.iter().map(|t| weight(t, trail)).filter(|n| *n > 0).collect();
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0);
    // A handful of transactions says nothing about what is usual.
    if sizes.len() < 10 { AT_LEAST } else { (median * TIMES_USUAL).max(AT_LEAST) }
}

/// The suspects, grouped into acts; the act with the largest transaction first.
///
/// A transaction is a suspect when it marks at least the threshold of rows, or its audit rows say it changed that many (they
/// stay when good traffic has overwritten the rows since). With an audit log the suspects of one key (who) are one act; the
/// smaller transactions of that key belong to it, too, when the key was never seen before its first large one. Without,
/// suspects on the same tables and of similar size are one act, as long as no gap is longer than [`GAP`].
pub fn suspects(transactions: &[Transaction], keys: &Keys, rules: &Rules<'_>) -> Vec<Group> {
    let key_of = |t: &Transaction| t.xids.iter().find_map(|x| keys.by_xid.get(x)).map(|(who, _)| who.clone());
    let said = |t: &Transaction| t.xids.iter().filter_map(|x| keys.by_xid.get(x)).map(|(_, n)| *n).sum::<u64>();
    let concerns = |t: &Transaction| {
        t.rows.keys().any(|f| rules.families.contains(f) && Some(f.as_str()) != rules.trail)
            || (rules.trail.is_some_and(|trail| rules.families.contains(trail) && t.rows.contains_key(trail))
                && said(t) >= rules.threshold)
    };
    let large = |t: &Transaction| weight(t, rules.trail).max(said(t)) >= rules.threshold;
    let in_time = |t: &Transaction| rules.until.is_none_or(|u| t.at < u);

    let mut by_key: BTreeMap<String, Vec<&Transaction>> = BTreeMap::new();
    let mut keyless: Vec<&Transaction> = Vec::new();
    for t in transactions {
        match key_of(t) {
            Some(k) => by_key.entry(k).or_default().push(t),
            None if large(t) && in_time(t) && concerns(t) => keyless.push(t),
            None => {}
        }
    }
    let group = |who: Option<String>, list: Vec<&Transaction>| Group {
        who,
        suspects: list.into_iter().cloned().collect(),
        trail: rules.trail.map(str::to_string),
    };
    let mut groups = Vec::new();
    for (who, list) in by_key {
        let Some(first) = list.iter().position(|t| large(t) && in_time(t) && concerns(t)) else { continue };
        let members: Vec<&Transaction> = if first == 0 {
            list
        } else {
            list.into_iter().filter(|t| large(t) && in_time(t) && concerns(t)).collect()
        };
        groups.push(group(Some(who), members));
    }
    let tables =
        |t: &Transaction| t.rows.keys().filter(|f| Some(f.as_str()) != rules.trail).cloned().collect::<Vec<_>>();
    let mut open: Vec<Vec<&Transaction>> = Vec::new();
    for t in keyless {
        let n = weight(t, rules.trail);
        let fits = |g: &Vec<&Transaction>| {
            g.last().is_some_and(|last| {
                let m = weight(last, rules.trail);
                tables(last) == tables(t) && t.at.since(last.at) <= GAP && n <= m * 8 && m <= n * 8
            })
        };
        match open.iter_mut().find(|g| fits(g)) {
            Some(g) => g.push(t),
            None => open.push(vec![t]),
        }
    }
    groups.extend(open.into_iter().map(|list| group(None, list)));
    groups.sort_by_key(|g| (std::cmp::Reverse(g.largest()), g.moment()));
    groups
}
