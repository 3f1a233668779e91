//! `breakglass drill --tabletop PLAN`: any team's own plan as an exercise; nothing is executed.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{Invocation, console, print};
use crate::drill::tabletop;
use crate::error::{Error, Result};
use crate::export::{self, Format};
use crate::incident::{Rules, State};
use crate::model::event::Verdict;
use crate::plan::library::Library;
use crate::runtime::Store;

/// Runs it.
///
/// # Errors
/// Usage for a plan without scenarios; state when nothing can be recorded.
pub fn run(invocation: &Invocation, m: &ArgMatches, plan: &Path) -> Result<u8> {
    let store = Store::open(&invocation.config)?;
    store.check_writable()?;
    let library = Library::open(&[invocation.env.cwd.join(plan)])?;
    let chosen =
        (m.value_source("scenario") == Some(ValueSource::CommandLine)).then(|| m.get_one::<String>("scenario"));
    let (document, scenario) = match chosen.flatten() {
        Some(name) => library.find(name)?,
        None => library.scenarios().next().ok_or_else(|| {
            Error::usage(format!("{} has no scenario to work through", plan.display()))
                .hint("`breakglass plan show` prints what is understood of it")
        })?,
    };
    let attended = !m.get_flag("unattended") && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let usual = if attended { tabletop::PACE } else { Duration::ZERO };
    let pace = m.get_one::<Duration>("pace").copied().unwrap_or(usual);
    let documents = vec![(document.plan.file.clone(), document.bytes.clone())];
    let incident = tabletop::open(&store, &document.plan, documents, &scenario.slug, pace)?;
    let id = incident.id().clone();
    let texts = tabletop::messages(&document.plan, scenario, &Rules::of(&document.plan, scenario));
    let state = if attended {
        // The console brings the messages in, so that they go on when it is left and opened again.
        drop(incident);
        console::run(invocation, m, console::Start::Resume(Some(id.to_string())))?;
        store.state(&id)?
    } else {
        let json = invocation.json;
        Box::new(tabletop::play(incident, &texts, pace, &mut |line| {
            if !json {
                let _ = print(line);
            }
        })?)
    };
    report(invocation, m, &store, &state)
}

fn report(invocation: &Invocation, m: &ArgMatches, store: &Store, state: &State) -> Result<u8> {
    if let Some(folder) = m.get_one::<PathBuf>("report") {
        let folder = invocation.env.cwd.join(folder);
        for path in export::write(&store.incident_dir(&state.id), &Format::ALL, &folder)? {
            eprintln!("wrote {}", path.display());
        }
    }
    let Some((passed, checks, _)) = &state.facts.judged else {
        print(&format!("The exercise {} is still open; go on with: breakglass resume {}", state.id, state.id))?;
        return Ok(0);
    };
    if invocation.json {
        let rows: Vec<_> = checks
            .iter()
            .map(|c| serde_json::json!({"check": c.name, "verdict": c.verdict, "detail": c.detail}))
            .collect();
        let page = serde_json::json!({"incident": state.id, "kind": "tabletop", "passed": passed, "checks": rows});
        print(&format!("{page:#}"))?;
    } else {
        for c in checks {
            let word = if c.verdict == Verdict::Passed { "passed" } else { "FAILED" };
            print(&format!("{word:<7} {:<22} {}", c.name, c.detail))?;
        }
        print(&format!("exercise at a table: {}", if *passed { "passed" } else { "NOT passed" }))?;
    }
    Ok(u8::from(!passed))
}
