//! `breakglass secrets list|rotated`: which secrets there are, when each was changed and is due. Never a value.

use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::{Invocation, print};
use crate::app::data::SecretRow;
use crate::app::when::parse_when;
use crate::error::{Error, Result};
use crate::model::Time;
use crate::plan::library::Library;
use crate::runtime::rotations::{self, Rotation};
use crate::runtime::{History, Store, actor};

/// The definition.
pub fn command() -> Command {
    Command::new("secrets")
        .about("Secrets of the plans and the configuration: last change and due date; never a value")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All of them; exit 1 when one is overdue"))
        .subcommand(
            Command::new("rotated")
                .about("Write down that one was changed")
                .arg(Arg::new("secret").value_name("NAME").required(true).help("Its name, as `secrets list` has it"))
                .arg(
                    Arg::new("at")
                        .long("at")
                        .value_name("WHEN")
                        .allow_hyphen_values(true)
                        .help("When: 14:03 (UTC), 2d ago, 2026-11-20T14:03:00Z; now when not given"),
                ),
        )
}

/// Runs it.
///
/// # Errors
/// State when the state directory cannot be used; usage for a time that is none or a name that is nobody's.
pub fn run(invocation: &Invocation, m: &ArgMatches) -> Result<u8> {
    let store = Store::open(&invocation.config)?;
    let now = Time::from_system(SystemTime::now());
    let library = Library::runbooks(&super::plan::folders(&invocation.config))?;
    let history = History::read(&store).unwrap_or_default();
    let plans: Vec<_> = library.documents.iter().map(|d| &d.plan).collect();
    let all = SecretRow::all(&plans, &invocation.config.rotations, &history.rotated, &rotations::read(&store));
    if let Some(("rotated", m)) = m.subcommand() {
        let name = m.get_one::<String>("secret").cloned().unwrap_or_default();
        let found = all.iter().find(|s| s.name.eq_ignore_ascii_case(&name));
        let Some(found) = found else {
            let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
            return Err(
                Error::usage(format!("there is no secret {name:?}")).hint(format!("there are: {}", names.join(", ")))
            );
        };
        let at = parse_when(m.get_one::<String>("at").map_or("", String::as_str), now).map_err(Error::usage)?;
        rotations::write(&store, &Rotation { secret: found.name.clone(), at, actor: actor() })?;
        return print(&format!(
            "{}: changed at {} UTC, due again {}",
            found.name,
            at.date_hms(),
            day(at.plus(found.every))
        ))
        .map(|()| 0);
    }
    let overdue = all.iter().any(|s| s.overdue(now));
    if invocation.json {
        let rows: Vec<_> = all
            .iter()
            .map(|s| {
                json!({"name": s.name, "from": s.from, "every_s": s.every.as_secs(), "rotated": s.rotated, "due": s.due(),
                    "overdue": s.overdue(now), "how": s.how, "impact": s.impact})
            })
            .collect();
        print(&format!("{:#}", json!({"secrets": rows})))?;
    } else {
        print(&format!("{:<28} {:<12} {:<12} {}", "secret", "changed", "due", "from"))?;
        for s in &all {
            let changed = s.rotated.map_or("not recorded".into(), day);
            let due = s.due().map_or("-".into(), day);
            let mark = if s.overdue(now) { "  OVERDUE" } else { "" };
            print(&format!("{:<28} {changed:<12} {due:<12} {}{mark}", s.name, s.from))?;
        }
    }
    Ok(u8::from(overdue))
}

fn day(t: Time) -> String {
    t.date_hms().chars().take(10).collect()
}
