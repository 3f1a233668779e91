//! `breakglass journal verify DIR`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Invocation, print};
use crate::error::{Error, Result};
use crate::export::redact::verify_copy;
use crate::journal::{Anchor, Anchors, Clock, verify};

/// The definition.
pub fn command() -> Command {
    Command::new("journal").about("The journal of an incident").subcommand_required(true).subcommand(
        Command::new("verify")
            .about("Check that a journal is as it was written; exit 1 names the record where it is not")
            .arg(
                Arg::new("dir")
                    .value_name("DIR")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("Incident directory or journal file"),
            )
            .arg(
                Arg::new("head")
                    .long("head")
                    .value_name("SEQ:HASH")
                    .action(ArgAction::Append)
                    .help("A head you hold from elsewhere, such as a printed export"),
            )
            .arg(
                Arg::new("redacted")
                    .long("redacted")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("Also check that this is the redacted copy of it"),
            ),
    )
}

/// Runs it.
pub fn run(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let Some(("verify", matches)) = matches.subcommand() else {
        return Err(Error::usage("journal needs a subcommand").hint("breakglass journal verify DIR"));
    };
    let dir = matches.get_one::<PathBuf>("dir").cloned().unwrap_or_default();
    let mut anchors = Vec::new();
    // The incident's name comes from its journal, so a first look finds which anchors are about it.
    let first = verify(&dir, &[])?;
    if let Some(incident) = &first.incident {
        let known = match Anchors::beside(&dir) {
            Some(known) => Some(known),
            None => invocation.config.state_dir.as_ref().map(Anchors::new),
        };
        if let Some(known) = known {
            anchors.extend(known.of(incident)?);
        }
        for text in matches.get_many::<String>("head").unwrap_or_default() {
            let anchor = Anchor::given(incident.clone(), text, Clock::new().now()).map_err(Error::usage)?;
            anchors.push(anchor);
        }
    }
    let report = verify(&dir, &anchors)?;
    if let Some(copy) = matches.get_one::<PathBuf>("redacted") {
        let records = verify_copy(copy, &dir)?;
        if !invocation.json {
            print(&format!("{} is the redacted copy of its first {records} records", copy.display()))?;
        }
    }
    if invocation.json {
        print(&format!(
            "{:#}",
            serde_json::json!({
                "file": report.file,
                "ok": report.ok(),
                "incident": report.incident,
                "records": report.records,
                "head": report.head.to_string(),
                "withheld": report.withheld,
                "anchor": report.anchor_held_against.as_ref().map(|a| serde_json::json!({
                    "seq": a.seq, "hash": a.hash, "at": a.at, "why": a.why,
                })),
                "notices": report.notices,
                "problem": report.problem.as_ref().map(|p| serde_json::json!({"record": p.record, "why": p.why})),
            })
        ))?;
    } else {
        print(&report.lines().join("\n"))?;
    }
    Ok(u8::from(!report.ok()))
}
