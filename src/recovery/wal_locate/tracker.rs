//! Follows the log record by record: open transactions, names, commits, and what each end means.

use std::collections::{HashMap, HashSet};

use super::catalog::{BESIDE, Change, Mirror};
use super::classify::{Taken, judge};
use super::gap::{Gap, Smaller};
use super::index::{RestorePoint, SegmentIndex};
use super::names::{NameMap, Relation};
use super::suspect::{Outcome, Suspect, same_act};
use super::xact::{Counts, DropDatabase, Xact};
use super::{Report, Rules};
use crate::model::Time;
use crate::model::target::Loss;
use crate::postgres::Lsn;
use crate::postgres::wal::heap::{self, Kind};
use crate::postgres::wal::record::rmgr;
use crate::postgres::wal::{Content, End, FIRST_USER_OID, Layout, Record, RelFile, Version};

/// Rows changed in a table within a minute, for faults made of many small transactions.
pub type PerMinute = HashMap<(i64, RelFile), Counts>;

/// The state of following a log.
pub struct Tracker {
    rules: Rules,
    names: NameMap,
    mirror: Mirror,
    layout: Layout,
    version: Version,
    timeline: u32,
    open: HashMap<u32, Xact>,
    /// The transaction of the last record, taken out of `open`: most records follow one of their own.
    current: Option<(u32, Xact)>,
    /// Transactions that were running when the log that is read began.
    from_before: Option<HashSet<u32>>,
    commits: u64,
    last_commit: Option<Time>,
    suspects: Vec<Noted>,
    rolled_back: Vec<Suspect>,
    /// Rows inserted, updated and deleted by commits since the last suspect, its own left out.
    changed: HashMap<RelFile, u64>,
    /// Ends of transactions that were open at a suspect: their top-level transaction and whether it committed.
    watched: HashMap<u32, Option<(u32, bool)>>,
    per_minute: PerMinute,
    /// Databases marked invalid, with the position and the commits before it.
    invalid: HashMap<u32, (Lsn, u64)>,
    segment: SegmentIndex,
    last_lsn: Lsn,
    first_lsn: Option<Lsn>,
    changes: Vec<Change>,
    gaps: Vec<Gap>,
    /// Nothing was read yet behind the last gap.
    in_gap: bool,
    smaller: Smaller,
}

struct Noted {
    suspect: Suspect,
    /// A suspect by the rules, and wanted.
    wanted: bool,
    /// Number of the act that it was asked for with.
    asked: Option<usize>,
    commits_before: u64,
    open: Vec<u32>,
    /// Rows that it changed itself.
    own: HashMap<RelFile, u64>,
    /// Rows changed between this suspect and the next.
    changed: HashMap<RelFile, u64>,
}

/// Transactions of one act, from one of them to the end of the log.
struct Later {
    /// Time of the earliest seen so far.
    from: Time,
    transactions: u64,
    own: HashMap<RelFile, u64>,
}

impl Tracker {
    /// A tracker that knows these names.
    pub fn new(rules: Rules, names: NameMap) -> Self {
        let mut mirror = Mirror::default();
        mirror.take_moves(&names);
        Self {
            rules,
            names,
            mirror,
            layout: Layout::default(),
            version: Version::V15,
            timeline: 0,
            open: HashMap::new(),
            current: None,
            from_before: None,
            commits: 0,
            last_commit: None,
            suspects: Vec::new(),
            rolled_back: Vec::new(),
            changed: HashMap::new(),
            watched: HashMap::new(),
            per_minute: HashMap::new(),
            invalid: HashMap::new(),
            segment: SegmentIndex::default(),
            last_lsn: Lsn(0),
            first_lsn: None,
            changes: Vec::new(),
            gaps: Vec::new(),
            in_gap: false,
            smaller: Smaller::default(),
        }
    }

    /// From here on the log cannot be read; what comes next lies behind that. Gaps without a record between them are one.
    pub fn gap(&mut self, segment: String, from: Lsn, why: String) {
        self.put_back();
        // Whatever was open has ended unseen, or goes on with a part unseen. What was prepared waits for a word.
        self.open.retain(|_, x| x.prepared.is_some());
        self.from_before = None;
        self.mirror = Mirror::default();
        self.mirror.take_moves(&self.names);
        if !std::mem::replace(&mut self.in_gap, true) {
            self.gaps.push(Gap { segment, from, to: None, why, after: self.last_commit, before: None });
        }
    }

    /// Names as known by now, with what the log has taught.
    pub fn names(&self) -> &NameMap {
        &self.names
    }

    /// A segment begins.
    pub fn begin_segment(&mut self, name: &str) {
        self.segment = SegmentIndex { v: 1, segment: name.to_string(), ..SegmentIndex::default() };
    }

    /// The segment ends; what is to be kept of it. `ends` when the log ends in it.
    pub fn end_segment(&mut self, ends: bool) -> SegmentIndex {
        self.put_back();
        let mut index = std::mem::take(&mut self.segment);
        index.timeline = self.timeline;
        index.ends = ends;
        index.resume_lsn = self.open.values().map(|x| x.first).min().unwrap_or(index.end_lsn);
        index
    }

    fn put_back(&mut self) {
        if let Some((xid, xact)) = self.current.take() {
            self.open.insert(xid, xact);
        }
    }

    #[inline]
    fn xact(&mut self, xid: u32, lsn: Lsn) -> &mut Xact {
        if self.current.as_ref().is_none_or(|(x, _)| *x != xid) {
            self.put_back();
            let xact = self.open.remove(&xid).unwrap_or_else(|| {
                let mut x = Xact::begin(lsn);
                x.began_earlier = self.from_before.as_ref().is_some_and(|b| b.contains(&xid));
                x
            });
            self.current = Some((xid, xact));
        }
        &mut self.current.get_or_insert_with(|| (xid, Xact::begin(lsn))).1
    }

    fn take(&mut self, xid: u32) -> Option<Xact> {
        self.put_back();
        self.open.remove(&xid)
    }

    /// Takes in a record.
    ///
    /// # Errors
    /// Its parts cannot be read, in words.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), String> {
        let mut layout = std::mem::take(&mut self.layout);
        let result = layout.read(record).and_then(|()| self.laid_out(record, &layout));
        self.layout = layout;
        result
    }

    fn laid_out(&mut self, record: &Record<'_>, layout: &Layout) -> Result<(), String> {
        self.version = record.version;
        self.timeline = record.timeline;
        self.last_lsn = record.lsn;
        if std::mem::take(&mut self.in_gap)
            && let Some(gap) = self.gaps.last_mut()
        {
            gap.to = Some(record.lsn);
        }
        self.first_lsn.get_or_insert(record.lsn);
        if self.segment.records == 0 {
            self.segment.first_lsn = record.lsn;
        }
        self.segment.records += 1;
        self.segment.last_lsn = record.lsn;
        self.segment.end_lsn = record.end;
        let content = Content::read(record, layout)?;
        if matches!(record.rmgr, rmgr::HEAP | rmgr::HEAP2 | rmgr::XLOG) {
            self.catalogs(record, layout);
        }
        let (xid, lsn) = (record.xid, record.lsn);
        if let Some(top) = layout.top_xid.filter(|_| xid != 0) {
            self.xact(xid, lsn).top = Some(top);
        }
        match content {
            Content::Insert { rel, rows } if xid != 0 => self.xact(xid, lsn).file(rel).inserted += u64::from(rows),
            Content::Update { rel } if xid != 0 => self.xact(xid, lsn).file(rel).updated += 1,
            Content::Delete { rel, moved } if xid != 0 => {
                let counts = self.xact(xid, lsn).file(rel);
                if moved { counts.moved += 1 } else { counts.deleted += 1 }
            }
            Content::Pages if xid != 0 => self.pages(record, layout),
            Content::Sequence { rel } if xid != 0 => self.xact(xid, lsn).file(rel).other_pages += 1,
            Content::Create { rel, fork: 0 } if xid != 0 => {
                let xact = self.xact(xid, lsn);
                xact.created.push(rel);
            }
            Content::Locks(locks) => {
                for lock in locks.into_iter().filter(|l| l.xid != 0) {
                    self.xact(lock.xid, lsn).locks.push(lock);
                }
            }
            Content::DropDatabase { database } if xid != 0 => {
                self.xact(xid, lsn).drop_databases.push(DropDatabase { database, lsn });
            }
            Content::Map { database, tablespace, files } => {
                for (oid, file) in files.into_iter().filter(|(oid, file)| oid != file) {
                    let file = RelFile { tablespace, database, file };
                    self.mirror.moved(file, oid);
                    if self.names.relation(file, lsn).is_none_or(|r| r.oid != oid) {
                        self.names.learn(lsn, file, Relation::mapped_catalog(oid));
                    }
                }
            }
            Content::Assignment { top, subs } => {
                for sub in subs {
                    self.xact(sub, lsn).top = Some(top);
                }
            }
            Content::Running { oldest, xids, .. } => self.running(oldest, &xids),
            Content::Prepare(p) => {
                for sub in &p.subxacts {
                    if let Some(sub) = self.take(*sub) {
                        self.xact(p.xid, lsn).merge(sub);
                    }
                }
                self.xact(p.xid, lsn).prepared = Some((p.gid, p.time));
            }
            Content::Commit(end) => self.end(record, *end, true),
            Content::Abort(end) => self.end(record, *end, false),
            Content::RestorePoint { time, name } => {
                self.segment.restore_points.push(RestorePoint { name, lsn, at: time });
            }
            // Anything else a transaction writes shows that it is there.
            _ if xid != 0 => {
                self.xact(xid, lsn);
            }
            _ => {}
        }
        Ok(())
    }

    fn catalogs(&mut self, record: &Record<'_>, layout: &Layout) {
        let Some(catalog) = layout.blocks.first().and_then(|b| self.mirror.catalog(b.rel)) else { return };
        let mut changes = std::mem::take(&mut self.changes);
        if record.rmgr == rmgr::HEAP {
            self.mirror.follow(record, layout, catalog, &mut self.names, &mut changes);
        } else {
            self.mirror.see_images(record, layout, catalog, &mut self.names);
        }
        // What is done in place is done, and often before the transaction has an id.
        changes.retain(|change| match change {
            Change::Invalid(database) => {
                self.invalid.entry(*database).or_insert((record.lsn, self.commits));
                false
            }
            Change::Appeared(row) => {
                self.mirror.note_rewrite(row);
                true
            }
            Change::Estimated(row) => {
                if self.names.relation(row.file, record.lsn).is_some_and(|r| r.oid == row.relation.oid) {
                    self.names.learn(record.lsn, row.file, row.relation.clone());
                }
                false
            }
            _ => true,
        });
        if record.xid != 0 && !changes.is_empty() {
            self.xact(record.xid, record.lsn).catalog.append(&mut changes);
        }
        changes.clear();
        self.changes = changes;
    }

    /// Whole pages, as rewrites and index builds write them.
    fn pages(&mut self, record: &Record<'_>, layout: &Layout) {
        let created_as_table = |k: Kind| !matches!(k, Kind::Other);
        for block in layout.blocks.iter().filter(|b| b.fork == 0) {
            let Some(kind) = heap::image_kind(record, block) else { continue };
            let counts = self.xact(record.xid, record.lsn).file(block.rel);
            if let Kind::Heap(rows) = kind {
                counts.page_rows += u64::from(rows);
            }
            if created_as_table(kind) {
                counts.heap_pages += 1;
            } else {
                counts.other_pages += 1;
            }
        }
    }

    /// The server says what runs: what it does not name and is older than all it names has died without a word.
    fn running(&mut self, oldest: u32, xids: &[u32]) {
        self.put_back();
        self.open.retain(|xid, x| x.prepared.is_some() || !precedes(*xid, oldest));
        if self.from_before.is_none() {
            let before: HashSet<u32> = xids.iter().copied().collect();
            for (xid, x) in &mut self.open {
                x.began_earlier |= before.contains(xid);
            }
            self.from_before = Some(before);
        }
    }

    fn end(&mut self, record: &Record<'_>, end: End, committed: bool) {
        let top = end.prepared.unwrap_or(record.xid);
        let mut xact = self.take(top).unwrap_or_else(|| {
            let mut x = Xact::begin(record.lsn);
            x.began_earlier = self.from_before.as_ref().is_some_and(|b| b.contains(&top));
            x
        });
        for sub in &end.subxacts {
            if let Some(sub) = self.take(*sub) {
                xact.merge(sub);
            }
        }
        for xid in end.subxacts.iter().chain([&top]) {
            if let Some(fate) = self.watched.get_mut(xid) {
                *fate = Some((top, committed));
            }
        }
        let taken = judge(&xact, &end, committed, &self.names, self.version, &self.rules);
        if committed {
            self.committed(record, &end, top, xact, taken);
        } else {
            self.segment.rollbacks += 1;
            if self.rules.rolled_back && taken.suspect && self.rules.in_window(end.time) {
                let suspect = self.suspect(&xact, &end, top, record, taken, Outcome::RolledBack);
                if self.rules.wants(&suspect) {
                    self.rolled_back.push(suspect);
                }
            }
        }
    }

    fn committed(&mut self, record: &Record<'_>, end: &End, top: u32, xact: Xact, taken: Taken) {
        let asked = match self.rules.asked.is_empty() {
            true => None,
            false => end.subxacts.iter().chain([&top]).find_map(|x| self.rules.asked.get(x)).copied(),
        };
        // What a rewrite put into the new storage is nothing that anybody wrote.
        let mut own: HashMap<RelFile, u64> = HashMap::new();
        for (file, c) in xact.files.iter().filter(|(f, _)| f.file >= FIRST_USER_OID && !taken.built.contains(f)) {
            let rows = c.inserted + c.updated + c.deleted;
            if rows > 0 {
                *own.entry(*file).or_default() += rows;
            }
        }
        let mut noted = false;
        if !taken.suspect && asked.is_none() && self.rules.in_window(end.time) {
            let deleted: u64 = taken.acts.iter().map(|a| a.deleted).sum();
            let database = self.names.database(taken.database, xact.first);
            if deleted > 0 && self.rules.wants_acts(database, &taken.acts) {
                self.smaller.transactions += 1;
                self.smaller.deleted += deleted;
            }
        }
        if asked.is_some() || (taken.suspect && self.rules.in_window(end.time)) {
            let is_suspect = taken.suspect && self.rules.in_window(end.time);
            let mut suspect = self.suspect(&xact, end, top, record, taken, Outcome::Committed);
            let mut commits_before = self.commits;
            if let Some(d) = xact.drop_databases.first() {
                // The directory goes when the drop is replayed, and the database is marked invalid in place
                // before that: both happen whether the commit is replayed or not.
                (suspect.target, commits_before) =
                    self.invalid.get(&d.database).copied().unwrap_or((d.lsn, self.commits));
            }
            let wanted = is_suspect && self.rules.wants(&suspect);
            if wanted || asked.is_some() {
                noted = true;
                let open: Vec<u32> = self.open.keys().copied().collect();
                for xid in &open {
                    self.watched.entry(*xid).or_insert(None);
                }
                if let Some(last) = self.suspects.last_mut() {
                    last.changed = std::mem::take(&mut self.changed);
                }
                self.changed.clear();
                if wanted {
                    self.segment.suspects.push(suspect.clone());
                }
                let (own, changed) = (std::mem::take(&mut own), HashMap::new());
                self.suspects.push(Noted { suspect, wanted, asked, commits_before, open, own, changed });
            }
        }
        self.commits += 1;
        for gap in self.gaps.iter_mut().rev().take_while(|g| g.before.is_none()) {
            gap.before = Some(end.time);
        }
        self.last_commit = Some(self.last_commit.map_or(end.time, |t| t.max(end.time)));
        self.segment.commits += 1;
        self.segment.first_commit.get_or_insert(end.time);
        self.segment.last_commit = Some(end.time);
        self.segment.last_commit_lsn = Some(record.lsn);
        self.segment.last_commit_xid = top;
        self.segment.latest_commit = self.segment.latest_commit.max(Some(end.time));
        self.segment.activity.add(end.time);
        let minute = end.time.micros().div_euclid(60_000_000);
        if !noted {
            for (file, rows) in own {
                *self.changed.entry(file).or_default() += rows;
            }
        }
        for (file, counts) in xact.files.iter().filter(|_| self.rules.per_minute) {
            if file.file >= FIRST_USER_OID && *counts != Counts::default() {
                self.per_minute.entry((minute, *file)).or_default().add(counts);
            }
        }
        for change in xact.catalog {
            self.learn(record.lsn, change);
        }
    }

    fn learn(&mut self, lsn: Lsn, change: Change) {
        match change {
            Change::Appeared(row) | Change::Altered(_, row) => {
                if row.file.file == 0 {
                    return; // a view or a mapped catalog
                }
                if row.relation.oid < FIRST_USER_OID {
                    self.mirror.moved(row.file, row.relation.oid);
                }
                self.names.learn(lsn, row.file, row.relation);
            }
            Change::Schema(database, oid, name) => self.names.learn_schema(lsn, database, oid, &name),
            Change::Database(oid, name) => self.names.learn_database(lsn, oid, &name),
            Change::Went(_) | Change::SchemaWent(..) | Change::Invalid(_) | Change::Estimated(_) => {}
        }
    }

    fn suspect(
        &self,
        xact: &Xact,
        end: &End,
        xid: u32,
        record: &Record<'_>,
        taken: Taken,
        outcome: Outcome,
    ) -> Suspect {
        let database = taken.database;
        Suspect {
            xid,
            database_oid: database,
            database: self.names.database(database, xact.first).map(str::to_string),
            outcome,
            at: end.time,
            timeline: record.timeline,
            begun: xact.first,
            end: record.lsn,
            target: record.lsn,
            gid: end.gid.clone().or_else(|| xact.prepared.as_ref().map(|(g, _)| g.clone())),
            schemas: taken.schemas,
            acts: taken.acts,
            rewritten: taken.rewritten,
            began_earlier: xact.began_earlier,
            segment: self.segment.segment.clone(),
            commits_before: self.segment.commits,
            open_at_target: 0,
            loses: Loss::default(),
        }
    }

    /// The log is read; what was found.
    pub fn finish(mut self) -> (Report, NameMap) {
        self.put_back();
        let open = self.still_open();
        if let Some(last) = self.suspects.last_mut() {
            last.changed = std::mem::take(&mut self.changed);
        }
        let last_commit = self.last_commit;
        let mut after: HashMap<RelFile, u64> = HashMap::new();
        let (mut suspects, mut asked) = (Vec::new(), Vec::new());
        let mut acts: HashMap<String, Later> = HashMap::new();
        for noted in std::mem::take(&mut self.suspects).into_iter().rev() {
            for (file, n) in noted.changed {
                *after.entry(file).or_default() += n;
            }
            let mut suspect = noted.suspect;
            // What belongs to the act itself is no loss: the other batches of one deletion, say.
            let name = noted.asked.map_or_else(|| suspect.deeds(), |n| format!("asked {n}"));
            let new = || Later { from: suspect.at, transactions: 0, own: HashMap::new() };
            let act = acts.entry(name).or_insert_with(new);
            if noted.asked.is_none() && !same_act(suspect.at, act.from) {
                *act = new();
            }
            act.from = suspect.at;
            act.transactions += 1;
            let mut rows = std::collections::BTreeMap::new();
            for (file, n) in &after {
                let n = n - act.own.get(file).copied().unwrap_or(0);
                if n > 0
                    && let Some(r) = self.table_of(*file, suspect.end)
                {
                    let mut name =
                        r.root.clone().unwrap_or_else(|| self.names.full_name(file.database, r, suspect.end));
                    if file.database != suspect.database_oid
                        && let Some(of) = self.names.database(file.database, suspect.begun)
                    {
                        name = format!("{of}.{name}");
                    }
                    *rows.entry(name).or_insert(0) += n;
                }
            }
            for (file, n) in noted.own {
                *after.entry(file).or_default() += n;
                *act.own.entry(file).or_default() += n;
            }
            let of_the_act = act.transactions;
            let committed_later: HashSet<u32> = noted
                .open
                .iter()
                .filter_map(|x| self.watched.get(x).copied().flatten())
                .filter(|(top, committed)| *committed && *top != suspect.xid)
                .map(|(top, _)| top)
                .collect();
            suspect.open_at_target = u32::try_from(committed_later.len()).unwrap_or(u32::MAX);
            suspect.loses = Loss {
                window_ms: last_commit
                    .map_or(0, |t| u64::try_from(t.since(suspect.at).as_millis()).unwrap_or(u64::MAX)),
                transactions: Some((self.commits - noted.commits_before).saturating_sub(of_the_act)),
                rows,
                at_most: false,
            };
            if let Some(act) = noted.asked {
                asked.push((act, suspect.clone()));
            }
            if noted.wanted {
                suspects.push(suspect);
            }
        }
        suspects.reverse();
        asked.reverse();
        let report = Report {
            suspects,
            asked,
            rolled_back: self.rolled_back,
            open,
            commits: self.commits,
            last_commit,
            first_lsn: self.first_lsn,
            last_lsn: self.first_lsn.map(|_| self.last_lsn),
            per_minute: self.per_minute,
            indexes: Vec::new(),
            end: None,
            gaps: self.gaps,
            smaller: self.smaller,
        };
        (report, self.names)
    }

    /// The table whose storage the file is, as it was called at `lsn`; storage that a rewrite made later by its name since.
    fn table_of(&self, file: RelFile, lsn: Lsn) -> Option<&Relation> {
        let then = self.names.relation(file, lsn)?;
        let built = then.name.starts_with(BESIDE).then(|| self.names.relation(file, self.last_lsn)).flatten();
        Some(built.unwrap_or(then)).filter(|r| r.is_table())
    }

    /// Transactions without an end that have taken something, or hold the means to.
    fn still_open(&mut self) -> Vec<Suspect> {
        let mut tops: HashMap<u32, Xact> = HashMap::new();
        for (xid, xact) in std::mem::take(&mut self.open) {
            let top = xact.top.unwrap_or(xid);
            match tops.entry(top) {
                std::collections::hash_map::Entry::Occupied(mut e) => e.get_mut().merge(xact),
                std::collections::hash_map::Entry::Vacant(e) => {
                    e.insert(xact);
                }
            }
        }
        let mut open = Vec::new();
        for (xid, xact) in tops {
            let end = End { time: self.last_commit.unwrap_or_default(), ..End::default() };
            let taken = judge(&xact, &end, false, &self.names, self.version, &self.rules);
            if !taken.suspect {
                continue;
            }
            let outcome = if xact.prepared.is_some() { Outcome::Prepared } else { Outcome::Open };
            let database = taken.database;
            let suspect = Suspect {
                xid,
                database_oid: database,
                database: self.names.database(database, xact.first).map(str::to_string),
                outcome,
                at: xact.prepared.as_ref().map_or(end.time, |(_, t)| *t),
                timeline: self.timeline,
                begun: xact.first,
                end: self.last_lsn,
                target: xact.first,
                gid: xact.prepared.as_ref().map(|(g, _)| g.clone()),
                schemas: taken.schemas,
                acts: taken.acts,
                rewritten: taken.rewritten,
                began_earlier: xact.began_earlier,
                segment: String::new(),
                commits_before: 0,
                open_at_target: 0,
                loses: Loss::default(),
            };
            if self.rules.wants(&suspect) {
                open.push(suspect);
            }
        }
        open.sort_by_key(|s| s.begun);
        open
    }
}

/// Whether transaction id `a` is older than `b`, in 32-bit arithmetic that wraps around.
fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b)).cast_signed() < 0
}
