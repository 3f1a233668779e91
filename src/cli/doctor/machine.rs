//! What can be seen without connecting anywhere: state directory, configuration, secrets, plans, PostgreSQL's programs.

use super::{Checks, Invocation};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::lint::Level as Finding;
use crate::plan::library::Library;
use crate::postgres::{Programs, install, user};
use crate::recovery::shadow::free_space;
use crate::runtime::{Store, store};

/// A state directory with less room than this cannot keep the output of a long incident.
const ROOM: u64 = 1 << 30;

/// Looks.
pub fn look(invocation: &Invocation, checks: &mut Checks) {
    state(invocation, checks);
    configuration(invocation, checks);
    plans(invocation, checks);
    programs(invocation, checks);
}

fn state(invocation: &Invocation, checks: &mut Checks) {
    const AREA: &str = "state";
    let store = match Store::open(&invocation.config) {
        Ok(store) => store,
        Err(e) => return checks.error(AREA, &e),
    };
    if let Err(e) = store.check_writable() {
        return checks.error(AREA, &e);
    }
    let root = store.root().display();
    match free_space(store.root()) {
        Ok(free) if free < ROOM => checks.warning(
            AREA,
            format!("{root} can be written, only {} MB are free", free / 1_000_000),
            "make room: output of a long incident is kept there, and nothing is recorded on a full disk",
        ),
        _ => checks.good(AREA, format!("{root} can be written")),
    }
    if let Some(kind) = store::network_file_system(store.root()) {
        checks.warning(
            AREA,
            format!("{root} is on {kind}: locks and fsync of a network file system may not hold"),
            "set state_dir to a local folder",
        );
    }
    match store.list() {
        Ok(all) => {
            let open = all.iter().filter(|e| e.is_open()).count();
            if open > 0 {
                checks.warning(AREA, format!("{open} of {} incidents are open", all.len()), "breakglass incident list");
            }
        }
        Err(e) => checks.error(AREA, &e),
    }
}

fn configuration(invocation: &Invocation, checks: &mut Checks) {
    const AREA: &str = "configuration";
    match &invocation.config.file {
        Some(file) => checks.good(AREA, format!("read from {}", file.display())),
        None => checks.warning(
            AREA,
            "no breakglass.toml here or in the user's configuration; the environment alone counts",
            "put one beside the plans (README, \"In production\")",
        ),
    }
    let settings = &invocation.config.settings;
    if settings.database.is_some() && settings.expect.is_empty() {
        checks.warning(
            AREA,
            "nothing says which database is meant: whatever answers there would be recovered",
            "set target.expect.system_identifier or target.expect.database",
        );
    }
    let key = invocation.config.secrets.get(REPOSITORY_KEY);
    match (key, settings.repository.is_some()) {
        (Some(key), _) => match crate::backup::keys::check_passphrase(key) {
            Ok(()) => checks.good("secrets", "BACKUP_ENCRYPTION_KEY is set"),
            Err(e) => checks.error("secrets", &e),
        },
        (None, true) if invocation.config.secrets.get(REPOSITORY_IDENTITY).is_some() => {
            checks.good("secrets", "BACKUP_IDENTITY_FILE is set")
        }
        (None, true) => checks.problem(
            "secrets",
            "BACKUP_ENCRYPTION_KEY is not set: backups cannot be read from here",
            "set it in the environment of whoever recovers; keep it where it survives the disaster",
        ),
        (None, false) => {}
    }
}

fn plans(invocation: &Invocation, checks: &mut Checks) {
    const AREA: &str = "plans";
    let paths = &invocation.config.plans;
    let library = match Library::runbooks(&crate::cli::plan::folders(&invocation.config)) {
        Ok(library) => library,
        Err(e) => return checks.error(AREA, &e),
    };
    let found = crate::lint::lint(
        &library,
        &crate::lint::Options { own_command: &crate::cli::plan::own_command, preflight: true },
    );
    let errors = found.iter().filter(|d| d.level == Finding::Error).count();
    let counted = format!("{} scenarios in {} documents", library.scenarios().count(), library.documents.len());
    if errors > 0 {
        checks.problem(
            AREA,
            format!("{counted}; {errors} things in them will not work"),
            "breakglass plan lint --preflight PLAN",
        );
    } else if paths.is_empty() {
        checks.warning(
            AREA,
            format!("{counted}, the built-in ones"),
            "name your team's in breakglass.toml: plans = [\"…\"]",
        );
    } else {
        checks.good(AREA, counted);
    }
    for notice in &library.notices {
        checks.warning(AREA, notice.clone(), "breakglass plan show PLAN");
    }
}

fn programs(invocation: &Invocation, checks: &mut Checks) {
    const AREA: &str = "programs";
    match Programs::find(invocation.config.settings.bin_dir.as_deref(), None) {
        Ok(p) => checks.good(AREA, format!("PostgreSQL {} in {}", p.version(), p.bin_dir.display())),
        Err(e) => {
            checks.error(AREA, &e);
            if let Some(install) = install::install_command() {
                checks.warning(AREA, format!("this is {}", install.system), install.text);
            }
        }
    }
    match user::for_server(invocation.config.settings.run_as.as_deref()) {
        Ok(Some(u)) => checks.good(AREA, format!("started by root, servers run as {}", u.name)),
        Ok(None) => {}
        Err(e) => checks.error(AREA, &e),
    }
}
