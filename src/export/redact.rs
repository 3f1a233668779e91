//! A copy of an incident for outsiders: what happened, when and how it ended, without names, words, commands or data.
//!
//! What may be shown is listed here; everything else is withheld. The copy is a journal of its own, in the same format, so it
//! verifies as such; every record names the hash of the record it was made from (docs/formats.md, "Redacted copies").
//! Nothing random goes into it: made again from the same journal it is the same, byte for byte.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::timeline::Timeline;
use crate::error::{Context, Error, Result};
use crate::incident::State;
use crate::journal::record::{self, sha256_hex};
use crate::journal::{FileJournal, Head, Line};
use crate::model::{Actor, Digest, Event, Record, Seq, Time};

/// What stands where something was withheld.
pub const WITHHELD: &str = "[withheld]";

/// Text members whose values are words of the format or of ours.
const WORDS: [&str; 10] =
    ["type", "kind", "severity", "action", "risk", "outcome", "gate", "verdict", "program", "command"];
/// Text members that are positions in a log or transaction numbers, which name nobody.
const POSITIONS: [&str; 4] = ["lsn", "archived_lsn", "reached_lsn", "xid"];
/// Members that hold a person.
const PEOPLE: [&str; 5] = ["person", "from", "by", "requested_by", "actor"];
/// Numbers that say something of the machine.
const NUMBERS: [&str; 2] = ["pid", "port"];

/// A redacted copy.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Its lines.
    pub lines: Vec<Line>,
    /// Head of the journal it was made from.
    pub of: Head,
    /// Records whose hash is not protected by a salt.
    pub unsalted: usize,
    /// Under which name it is spoken of.
    pub name: String,
}

impl Copy {
    /// Makes the copy of a journal's lines.
    ///
    /// # Errors
    /// State when a record cannot be written.
    pub fn of(lines: &[Line]) -> Result<Self> {
        let records: Vec<Record> = lines.iter().map(|l| l.record.clone()).collect();
        let state = State::fold(&records).ok_or_else(|| Error::state("the journal does not begin with an opening"))?;
        let mut names = Names::new(&records);
        let mut head = Head::empty();
        let mut out = Vec::with_capacity(lines.len());
        for line in lines {
            let mut copy = names.record(&line.record)?;
            copy.prev = head.hash.clone();
            let bytes = record::encode_copy(&mut copy, &line.record.hash)?;
            head = Head::after(&copy);
            let raw = String::from_utf8_lossy(&bytes).trim_end().to_string();
            out.push(Line { record: copy, raw, future: None });
        }
        let unsalted = lines.iter().filter(|l| !l.raw.contains("],\"salt\":\"")).count();
        Ok(Self { lines: out, of: Head { seq: state.seq, hash: state.head.clone() }, unsalted, name: names.title })
    }

    /// The copy as a journal file.
    pub fn journal(&self) -> String {
        self.lines.iter().map(|l| format!("{}\n", l.raw)).collect()
    }

    /// The copy as a timeline, for the documents.
    ///
    /// # Errors
    /// State when it does not fold.
    pub fn timeline(&self, exported_at: Time) -> Result<Timeline> {
        let records: Vec<Record> = self.lines.iter().map(|l| l.record.clone()).collect();
        let state = State::fold(&records).ok_or_else(|| Error::state("the redacted copy does not fold"))?;
        let mut timeline = Timeline::build(&self.lines, state, None, None, exported_at);
        timeline.journal.verified = vec![
            "this is a redacted copy: names, words, commands and data are withheld".into(),
            format!("made from a journal whose head is {}", self.of),
        ];
        if self.unsalted > 0 {
            timeline.notices.push(format!(
                "{} records of the original have no salt: who knows nearly all of one can test guesses at the rest",
                self.unsalted
            ));
        }
        Ok(timeline)
    }
}

/// Compares a redacted copy with the journal it claims to be made from. The error names the first record that differs.
///
/// # Errors
/// Check failed when it is not the copy of this journal; state when one of them cannot be read.
pub fn verify_copy(copy: &Path, incident: &Path) -> Result<usize> {
    let text = std::fs::read_to_string(copy).state(|| format!("cannot read {copy:?}"))?;
    let lines = FileJournal::open(incident)?.lines_from(Seq(1))?;
    let given: Vec<&str> = text.lines().collect();
    // A copy is made of what there was then; the journal may have grown since.
    let then = lines
        .get(..given.len())
        .ok_or_else(|| Error::check(format!("the copy has {} records, the journal {}", given.len(), lines.len())))?;
    let made = Copy::of(then)?;
    for (n, (given, made)) in given.iter().zip(&made.lines).enumerate() {
        if *given != made.raw {
            return Err(Error::check(format!("record {} is not the redacted copy of the journal's record", n + 1)));
        }
    }
    Ok(given.len())
}

/// Names that stand for others, in the order in which they appear.
struct Names {
    title: String,
    id: String,
    people: BTreeMap<String, String>,
    boots: BTreeMap<String, String>,
    things: BTreeMap<String, String>,
}

impl Names {
    fn new(records: &[Record]) -> Self {
        // Also one that was lifted: whoever may not read the title may know the name it was heard by.
        let named = |e: &Event| match e {
            Event::CodenameSet { codename } => Some(codename.clone()),
            _ => None,
        };
        let title = records.iter().rev().flat_map(|r| r.events.iter().rev()).find_map(named);
        let title = title.unwrap_or_else(|| "incident".into());
        // The hash of the first record is salted, so this says nothing of the real id.
        let first = records.first().map_or("", |r| r.hash.as_str());
        let id = format!("redacted-{}", &sha256_hex(format!("redacted {first}").as_bytes())[..8]);
        Self { title, id, people: BTreeMap::new(), boots: BTreeMap::new(), things: BTreeMap::new() }
    }

    fn record(&mut self, r: &Record) -> Result<Record> {
        let events: Result<Vec<Event>> = r.events.iter().map(|e| self.event(e)).collect();
        Ok(Record {
            v: r.v,
            seq: r.seq,
            command: r.command.clone(),
            occurred_at: r.occurred_at,
            recorded_at: r.recorded_at,
            up_ms: r.up_ms,
            boot: number(&mut self.boots, &r.boot, "boot"),
            actor: Actor::new(self.person(r.actor.as_str())),
            events: events?,
            prev: r.prev.clone(),
            hash: Digest::new(""),
        })
    }

    fn event(&mut self, event: &Event) -> Result<Event> {
        let what = || "an event cannot be redacted".to_string();
        let value = serde_json::to_value(event).state(what)?;
        let Value::Object(members) = value else { return Err(Error::state(what())) };
        let kind = members.get("type").and_then(Value::as_str).unwrap_or_default().to_string();
        let mut out = Map::new();
        for (name, value) in members {
            let value = self.member(&kind, &name, value);
            out.insert(name, value);
        }
        serde_json::from_value(Value::Object(out)).state(what)
    }

    fn member(&mut self, kind: &str, name: &str, value: Value) -> Value {
        match (kind, name) {
            ("incident_opened", "title") => return Value::String(self.title.clone()),
            ("incident_opened", "id") => return Value::String(self.id.clone()),
            // The name it goes by is meant to be heard.
            ("codename_set", "codename") => return value,
            ("role_assigned", "role") => return Value::String(role_word(value.as_str().unwrap_or_default())),
            ("target_seen", "role") => return value,
            // An author's own id of a step may say what it is about.
            (_, "step") => {
                let id = value.as_str().unwrap_or_default();
                let ours = id.strip_prefix('s').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
                return Value::String(if ours { id.into() } else { number(&mut self.things, id, "step") });
            }
            (_, "timer") => return Value::String(timer_word(value.as_str().unwrap_or_default())),
            // Digests of something short can be guessed.
            (_, "sha256") => {
                return if kind == "evidence_added" { Value::String(WITHHELD.into()) } else { Value::Null };
            }
            _ => {}
        }
        match value {
            Value::String(text) => Value::String(self.text(name, &text)),
            Value::Number(_) if NUMBERS.contains(&name) => Value::from(0),
            Value::Array(_) if name == "args" => Value::Array(vec![]),
            Value::Array(items) => Value::Array(items.into_iter().map(|v| self.member("", name, v)).collect()),
            Value::Object(members) => self.object(name, members),
            other => other,
        }
    }

    fn text(&mut self, name: &str, text: &str) -> String {
        let keep = WORDS.contains(&name)
            || text.is_empty()
            || Time::parse(text).is_ok()
            || (POSITIONS.contains(&name) && text.chars().all(|c| c.is_ascii_hexdigit() || c == '/'))
            || (name == "how" && matches!(text, "copied" | "command" | "said"));
        if keep {
            text.to_string()
        } else if PEOPLE.contains(&name) {
            self.person(text)
        } else {
            WITHHELD.to_string()
        }
    }

    fn object(&mut self, name: &str, members: Map<String, Value>) -> Value {
        // Where recovery stops: a time, a position, a transaction.
        if let (Some(by), 1..=2) = (members.get("by").and_then(Value::as_str), members.len())
            && matches!(by, "time" | "lsn" | "xid" | "name" | "latest")
        {
            let mut out = members.clone();
            if by == "name" {
                out.insert("value".into(), Value::String(WITHHELD.into()));
            }
            return Value::Object(out);
        }
        let listed = matches!(name, "rows" | "components" | "expect" | "files");
        let mut out = Map::new();
        for (key, value) in members {
            if listed {
                // The names are the database's: the same one has the same number everywhere.
                let key = number(&mut self.things, &key, "item");
                let value = if value.is_number() { value } else { Value::String(WITHHELD.into()) };
                out.insert(key, value);
            } else if name == "checks" && key == "name" {
                let first = value.as_str().unwrap_or_default().split(' ').next().unwrap_or_default().to_string();
                out.insert(key, Value::String(first));
            } else {
                let value = self.member("", &key, value);
                out.insert(key, value);
            }
        }
        Value::Object(out)
    }

    /// `person 1`, the same for `amy` and `amy@bastion`. The program itself is named.
    fn person(&mut self, name: &str) -> String {
        let name = name.split('@').next().unwrap_or(name).trim().to_lowercase();
        if name == "breakglass" { name } else { number(&mut self.people, &name, "person") }
    }
}

fn number(known: &mut BTreeMap<String, String>, name: &str, word: &str) -> String {
    let next = known.len() + 1;
    known.entry(name.to_string()).or_insert_with(|| format!("{word} {next}")).clone()
}

/// A role, when it is one of the usual.
fn role_word(role: &str) -> String {
    if crate::incident::people::ROLES.contains(&role) { role.into() } else { "another role".into() }
}

/// A deadline without the name of an audience that is not one of the usual.
fn timer_word(timer: &str) -> String {
    match timer.strip_prefix("update-") {
        Some("team" | "customers") | None => timer.into(),
        Some(_) => "update-others".into(),
    }
}
