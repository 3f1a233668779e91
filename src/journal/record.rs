//! The bytes of a record: one JSON object on one line, its hash over the line's own bytes.
//!
//! `hash` is the last member and is SHA-256 of everything on the line before `,"hash":`. Hashing the bytes as they stand
//! needs no canonical form of JSON, and leaves no second spelling of a record that would verify too.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{Context, Error, Result};
use crate::model::{Actor, Digest, Event, Record, Seq, Time};

/// The format version this program writes.
pub const VERSION: u32 = 1;

/// What stands between a record's hashed bytes and its hash.
const SEAM: &[u8] = b",\"hash\":\"";
/// How a withheld record begins (see [`withheld_line`]).
const WITHHELD: &[u8] = b"{\"withheld\":";

/// A record with the line it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// As understood.
    pub record: Record,
    /// The line's bytes without the newline: what the hash vouches for, also where this version understands only part of it.
    pub raw: String,
    /// What in it this version does not know ("event type \"x\""); such a journal is read-only here.
    pub future: Option<String>,
}

/// A verified line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A record.
    Record(Line),
    /// The place of a record whose content was withheld from this copy.
    Withheld {
        /// Its number.
        seq: Seq,
        /// Hash of the record before.
        prev: Digest,
        /// Hash of the record that is not shown.
        hash: Digest,
        /// Why it is not shown.
        reason: String,
    },
}

/// The members of a record before `hash`, in the format's order.
#[derive(Serialize)]
struct Body<'a> {
    v: u32,
    seq: Seq,
    command: &'a str,
    occurred_at: Time,
    recorded_at: Time,
    up_ms: u64,
    boot: &'a str,
    actor: &'a Actor,
    events: &'a [Event],
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    /// Of a redacted copy: the hash of the record it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<&'a Digest>,
    prev: &'a Digest,
}

/// The line of a record, newline included; sets the record's hash.
///
/// # Errors
/// Of kind state, when the record would not read back as it is: such a line must never reach a journal.
pub fn encode(record: &mut Record) -> Result<Vec<u8>> {
    write(record, None, None)
}

/// As [`encode`], with 16 random bytes beside the content: without them a short remark could be guessed from the hash that a
/// redacted or withheld copy shows.
///
/// # Errors
/// As [`encode`]; also when the system gives no random numbers.
pub fn encode_salted(record: &mut Record) -> Result<Vec<u8>> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).state(|| "the system gives no random numbers".into())?;
    write(record, Some(random.iter().map(|b| format!("{b:02x}")).collect()), None)
}

/// As [`encode`], for a redacted copy of the record with the hash `of`.
///
/// # Errors
/// As [`encode`].
pub fn encode_copy(record: &mut Record, of: &Digest) -> Result<Vec<u8>> {
    write(record, None, Some(of))
}

fn write(record: &mut Record, salt: Option<String>, of: Option<&Digest>) -> Result<Vec<u8>> {
    let what = format!("cannot write the command {:?} as a journal record", record.command);
    if record.events.is_empty() || record.events.contains(&Event::Unknown) {
        return Err(Error::state(what).why("it has no events, or one that this version does not know"));
    }
    let body = Body {
        v: record.v,
        seq: record.seq,
        command: &record.command,
        occurred_at: record.occurred_at,
        recorded_at: record.recorded_at,
        up_ms: record.up_ms,
        boot: &record.boot,
        actor: &record.actor,
        events: &record.events,
        salt,
        of,
        prev: &record.prev,
    };
    let mut line = serde_json::to_vec(&body).state(|| what.clone())?;
    line.pop(); // the closing brace comes back after the hash
    record.hash = Digest::new(sha256_hex(&line));
    line.extend_from_slice(SEAM);
    line.extend_from_slice(record.hash.as_str().as_bytes());
    line.extend_from_slice(b"\"}");
    match decode(&line) {
        Ok(Decoded::Record(read)) if read.record == *record && read.future.is_none() => {}
        Ok(_) => return Err(Error::state(what).why("it does not read back as it was written")),
        Err(why) => return Err(Error::state(what).why(why)),
    }
    line.push(b'\n');
    Ok(line)
}

/// Reads and verifies one line without its newline: its hash, its shape, its own members. The error says what is wrong, as a clause.
///
/// Whether `prev` and `seq` fit the record before is the caller's to check ([`follows`]).
pub fn decode(line: &[u8]) -> Result<Decoded, String> {
    let (body, hash) = split(line).ok_or("does not end with a hash")?;
    if sha256_hex(body) != hash {
        if line.starts_with(WITHHELD) {
            return decode_withheld(line);
        }
        return Err("does not match its hash".into());
    }
    let raw = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_string())?;
    // The usual case: everything is known.
    if let Ok(record) = serde_json::from_str::<Record>(raw)
        && record.v == VERSION
        && !record.events.contains(&Event::Unknown)
    {
        check(&record)?;
        return Ok(Decoded::Record(Line { record, raw: raw.to_string(), future: None }));
    }
    decode_slowly(raw)
}

/// Says why `record` cannot stand right after `head`, if it cannot.
pub fn follows(head: &super::Head, seq: Seq, prev: &Digest) -> Result<(), String> {
    if seq.0 != head.seq.0 + 1 {
        return Err(format!("carries number {seq} where {} was expected", head.seq.0 + 1));
    }
    if *prev != head.hash {
        return Err("does not name the hash of the record before it".into());
    }
    Ok(())
}

/// A line that stands for a record whose content is not shown: chain and count stay verifiable, the content does not.
///
/// # Errors
/// Of kind state, when the reason cannot be written as JSON.
pub fn withheld_line(record: &Record, reason: &str) -> Result<Vec<u8>> {
    let reason = serde_json::to_string(reason).state(|| "cannot write a withheld record".to_string())?;
    let mut line = WITHHELD.to_vec();
    line.extend_from_slice(reason.as_bytes());
    line.extend_from_slice(
        format!(",\"seq\":{},\"prev\":\"{}\",\"hash\":\"{}\"}}\n", record.seq, record.prev, record.hash).as_bytes(),
    );
    Ok(line)
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for b in Sha256::digest(bytes) {
        out.push(char::from_digit(u32::from(b >> 4), 16).unwrap_or('0'));
        out.push(char::from_digit(u32::from(b & 15), 16).unwrap_or('0'));
    }
    out
}

/// Whether this is 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hashed bytes and the hash.
fn split(line: &[u8]) -> Option<(&[u8], &str)> {
    let rest = line.strip_suffix(b"\"}")?;
    let (body, hash) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    let hash = std::str::from_utf8(hash).ok().filter(|h| is_digest(h))?;
    Some((body.strip_suffix(SEAM)?, hash))
}

fn check(record: &Record) -> Result<(), String> {
    if record.events.is_empty() {
        return Err("holds no event".into());
    }
    if !is_digest(record.prev.as_str()) {
        return Err("names no hash of the record before it".into());
    }
    Ok(())
}

/// Reads a record of which this version does not know everything.
fn decode_slowly(raw: &str) -> Result<Decoded, String> {
    #[derive(Deserialize)]
    struct Minimum {
        v: u32,
        seq: Seq,
        prev: Digest,
        hash: Digest,
    }
    #[derive(Deserialize)]
    struct Known {
        command: String,
        occurred_at: Time,
        recorded_at: Time,
        up_ms: u64,
        boot: String,
        actor: Actor,
        events: Vec<Value>,
    }
    impl Default for Known {
        fn default() -> Self {
            let (time, text) = (Time::default(), String::new());
            let actor = Actor::new("");
            Self {
                command: text.clone(),
                occurred_at: time,
                recorded_at: time,
                up_ms: 0,
                boot: text,
                actor,
                events: vec![],
            }
        }
    }
    let minimum: Minimum = serde_json::from_str(raw).map_err(|e| format!("is not a record: {e}"))?;
    if minimum.v == 0 {
        return Err("has version 0".into());
    }
    let known = serde_json::from_str::<Known>(raw);
    let (known, future, events) = match known {
        Ok(mut known) if minimum.v == VERSION => {
            let (future, events) = read_events(std::mem::take(&mut known.events))?;
            (known, future, events)
        }
        Err(e) if minimum.v == VERSION => return Err(format!("is not a record: {e}")),
        // Only the chain is promised to stay; what else a newer version says, and what it means by it, is not ours to guess.
        known => (known.unwrap_or_default(), Some(format!("record version {}", minimum.v)), vec![Event::Unknown]),
    };
    let record = Record {
        v: minimum.v,
        seq: minimum.seq,
        command: known.command,
        occurred_at: known.occurred_at,
        recorded_at: known.recorded_at,
        up_ms: known.up_ms,
        boot: known.boot,
        actor: known.actor,
        events,
        prev: minimum.prev,
        hash: minimum.hash,
    };
    check(&record)?;
    Ok(Decoded::Record(Line { record, raw: raw.to_string(), future }))
}

/// The events of a record of our version, and the first thing in them that we do not know.
fn read_events(values: Vec<Value>) -> Result<(Option<String>, Vec<Event>), String> {
    let mut future = None;
    let mut events = Vec::with_capacity(values.len());
    for value in values {
        let name = value.get("type").and_then(Value::as_str).map(str::to_string);
        match (serde_json::from_value::<Event>(value), name) {
            (Ok(event), _) if event != Event::Unknown => events.push(event),
            (_, Some(name)) => {
                future.get_or_insert_with(|| format!("event type {name:?}"));
                events.push(Event::Unknown);
            }
            (_, None) => return Err("holds an event without a type".into()),
        }
    }
    Ok((future, events))
}

fn decode_withheld(line: &[u8]) -> Result<Decoded, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Withheld {
        withheld: String,
        seq: Seq,
        prev: Digest,
        hash: Digest,
    }
    let w: Withheld = serde_json::from_slice(line).map_err(|_| "does not match its hash".to_string())?;
    if !is_digest(w.prev.as_str()) {
        return Err("names no hash of the record before it".into());
    }
    Ok(Decoded::Withheld { seq: w.seq, prev: w.prev, hash: w.hash, reason: w.withheld })
}
