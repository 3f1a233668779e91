//! From settings and secrets to what actions touch: the database, the repository, the server programs.

use crate::backup::anchor;
use crate::backup::catalog::Catalog;
use crate::backup::cloud::url::service_of;
use crate::backup::container::hex;
use crate::backup::repository::{InitOptions, Repository, Unlocked};
use crate::backup::store::open_place;
use crate::backup::{damage, dates, pinned, seen};
use crate::config::settings::{DATABASE_PASSWORD, REPOSITORY_KEY};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::{Database, Programs, WhenNeeded};

use super::{Ctx, Output};
use crate::action::{Progress, ProgressPhase};
use crate::recovery::{Phase, Watch};

/// The database in service: the one of the settings, or what was promoted in its place in this incident.
///
/// # Errors
/// Config when none is set.
pub fn database(ctx: &Ctx) -> Result<Database> {
    let source = source(ctx)?;
    Ok(match ctx.incident.as_ref().and_then(|s| s.facts.promoted.as_ref()) {
        Some((identity, ..)) if identity.host == source.host() && identity.port == source.port() => source,
        Some((identity, ..)) => source.moved_to(std::path::Path::new(&identity.host), identity.port),
        None => source,
    })
}

/// The database of the settings: the damaged one, also after another was promoted.
///
/// # Errors
/// Config when none is set.
pub fn source(ctx: &Ctx) -> Result<Database> {
    let connection = ctx.settings.database.as_ref().ok_or_else(|| {
        Error::config("no database is configured").hint("set DATABASE_URL, or target.url in breakglass.toml")
    })?;
    Ok(Database::of(connection, ctx.secrets.get(DATABASE_PASSWORD).cloned()))
}

/// The database that the recovered instance at hand replaces: the one of the settings, or, when what was promoted before was
/// the wrong moment, that.
///
/// # Errors
/// As [`database`].
pub fn replaced(ctx: &Ctx) -> Result<Database> {
    let again = ctx.incident.as_ref().is_some_and(|s| s.facts.promoted.is_some() && !s.facts.shadow_promoted);
    if again { database(ctx) } else { source(ctx) }
}

/// The repository of the settings, unlocked with `BACKUP_ENCRYPTION_KEY`: to be read where `repository.json` cannot be relied on, or
/// with `--read-only`.
///
/// # Errors
/// Config when it or its key is not set; refused when the key is not its key; target when it cannot be read.
pub fn unlocked(ctx: &Ctx) -> Result<Unlocked> {
    let (url, heads) = (repository_url(ctx)?, ctx.settings.catalog_heads.as_deref());
    let unlocked = Repository::open_to_read(&url, &ctx.secrets).map_err(|e| seen::or_elsewhere(&url, heads, e))?;
    Ok(unlocked.looked_at_if(ctx.settings.read_only))
}

/// As [`unlocked`], and makes the repository when there is none: the first backup needs no other command before it. The second
/// value says so in a JSON document. `system` is the cluster that is backed up, when it is one. One that is there is to be written
/// to: its catalog is looked at first ([`goes_on`]).
///
/// # Errors
/// As [`unlocked`] and [`goes_on`]; refused where a new one is evidently a mistake; when it cannot be made.
pub async fn unlocked_or_new(ctx: &Ctx, system: Option<&str>) -> Result<(Unlocked, serde_json::Value)> {
    let (ctx, system) = (ctx.clone(), system.map(str::to_string));
    // Deriving the key and, elsewhere, the network take their time: off the loop.
    super::target::blocking(move || {
        let url = repository_url(&ctx)?;
        if Repository::exists(&url)? {
            let unlocked = unlocked(&ctx)?;
            // A backup entered in a catalog that was put back would be followed by nothing but questions.
            let catalog = Catalog::load(&unlocked)?;
            goes_on(&ctx, &unlocked, &catalog)
                .map_err(|e| e.hint("Nothing was stored; once that is done: this command again."))?;
            if let Some(system) = system.as_deref().and_then(|s| s.parse().ok()) {
                unlocked.repository().of_cluster(system)?;
            }
            pinned::check(&ctx.settings.recipients, unlocked.repository())?;
            if let Some(behind) = dates::behind(&catalog, super::target::now()) {
                ctx.out.line(&format!("WARNING: {behind}; the age of this backup will be in doubt"));
            }
            if unlocked.repository().stop_being_a_copy()? {
                ctx.out.line("this was a copy of the repository in another place; from now on it goes its own way");
            }
            return Ok((unlocked, serde_json::Value::Null));
        }
        let key = key(&ctx)?;
        // One that lost its repository.json is no place for a new one.
        if let Err(e) = Repository::open(&url)
            && e.kind == ErrorKind::Check
        {
            return Err(Error { kind: ErrorKind::Refused, ..e });
        }
        meant(&ctx, &url, system.as_deref())?;
        let options = InitOptions::archived_by(ctx.settings.run_as.as_deref());
        let repository = match Repository::init(&url, key, &options) {
            // Another first backup was quicker.
            Err(e) if e.kind == ErrorKind::Refused && Repository::exists(&url)? => {
                return Ok((unlocked(&ctx)?, serde_json::Value::Null));
            }
            made => made?,
        };
        let (id, at, key_id) = (hex(&repository.id()), repository.store().url(), repository.key_id());
        ctx.out.line(&format!("NEW REPOSITORY: there was none in {at}, so one was made there ({id}, key {key_id})"));
        ctx.out.line(
            "  if you expected your backups there, BACKUP_DIR or repository.url is wrong, or a disk is not mounted",
        );
        ctx.out.line(
            "  keep BACKUP_ENCRYPTION_KEY and a copy of its folder `keys` elsewhere: without both nothing can be read",
        );
        let made = serde_json::json!({"repository": id, "url": at, "key_id": key_id});
        Ok((repository.unlock(key)?, made))
    })
    .await
}

/// Whether a new repository can be meant. A first backup by a scheduler must work; one that begins anew because a disk is not mounted
/// or a name is misspelt would look like a success for weeks.
fn meant(ctx: &Ctx, url: &str, system: Option<&str>) -> Result<()> {
    let store = open_place(url, false)?;
    let at = store.url();
    let refused = |why: String| Error::refused(format!("making a new repository in {at:?}")).why(why);
    const ANEW: &str = "If a new one is meant: breakglass backup init, then this command again.";
    if !ctx.settings.recipients.is_empty() {
        return Err(refused("backup.recipients names who anything may be sealed for, and a new one has a key of its own".into())
            .hint("Is BACKUP_DIR right, is the disk mounted?")
            .hint("If a new one is meant: breakglass backup init, breakglass doctor for the line to set, then this command again."));
    }
    if let Some(heads) = &ctx.settings.catalog_heads {
        if let Some(seen) = seen::at(heads, &at)? {
            return Err(refused(seen::was_there(&seen))
                .hint("Is the disk mounted, is the folder the right one?")
                .hint("If a new one is meant: breakglass backup init --new-place, then this command again."));
        }
        let same = |s: &seen::Seen| system.is_some() && s.system_identifier.as_deref() == system;
        if let Some(other) = seen::all(heads)?.into_iter().find(same) {
            let why = format!(
                "this cluster has its repository in {:?}, as seen from here since {}",
                other.place,
                other.at.date_hms()
            );
            return Err(refused(why).hint(format!("Set BACKUP_DIR={}.", other.place)).hint(ANEW));
        }
    }
    if service_of(url).is_some() {
        return Ok(());
    }
    let folder = std::path::absolute(&at).usage(|| format!("{at:?} is not a folder"))?;
    match folder.parent() {
        Some(parent) if !folder.exists() && !parent.is_dir() => {
            Err(refused(format!("there is no folder {:?} either", parent.display()))
                .hint("Is BACKUP_DIR right, is the disk mounted? Make the folder if it is.")
                .hint(ANEW))
        }
        _ => Ok(()),
    }
}

/// Says that the clock of a server that is backed up is another one than ours.
///
/// # Errors
/// The server does not answer.
pub async fn say_clock(ctx: &Ctx, c: &mut sqlx::PgConnection) -> Result<()> {
    let differs = dates::differs(super::target::now(), crate::postgres::clock(c).await?);
    differs.iter().for_each(|line| ctx.out.line(&format!("WARNING: {line}")));
    Ok(())
}

fn key(ctx: &Ctx) -> Result<&crate::model::Secret> {
    ctx.secrets.get(REPOSITORY_KEY).ok_or_else(|| {
        Error::config("the repository's key is not set").hint("set BACKUP_ENCRYPTION_KEY, at least 32 characters")
    })
}

/// Where the repository is.
///
/// # Errors
/// Config when none is set; refused when it is elsewhere and the incident is local only.
pub fn repository_url(ctx: &Ctx) -> Result<String> {
    if ctx.settings.repository.is_none() {
        // Those elsewhere are none of the settings any more.
        super::may_leave(ctx, "a question to a repository elsewhere").map_err(|e| {
            e.why("no repository on this machine is configured").hint("or use one on this machine: BACKUP_DIR")
        })?;
    }
    ctx.settings.repository.clone().ok_or_else(|| {
        Error::config("no repository is configured").hint("set BACKUP_DIR, or repository.url in breakglass.toml")
    })
}

/// The repository of the settings.
///
/// # Errors
/// Config when none is set; target when it cannot be read.
pub fn repository(ctx: &Ctx) -> Result<Repository> {
    let (url, heads) = (repository_url(ctx)?, ctx.settings.catalog_heads.as_deref());
    Repository::open(&url).map_err(|e| seen::or_elsewhere(&url, heads, e))
}

/// The catalog, with what verifications found from this machine ([`damage::load`]).
///
/// # Errors
/// The repository cannot be read.
pub fn catalog(ctx: &Ctx, unlocked: &Unlocked) -> Result<Catalog> {
    damage::load(unlocked, ctx.settings.catalog_heads.as_ref(), &mut |line| ctx.out.line(line))
}

/// Holds a catalog against its head as it was last seen from here ([`anchor::check`]).
pub fn rolled_back(ctx: &Ctx, unlocked: &Unlocked, catalog: &Catalog) -> Option<Error> {
    anchor::check(ctx.settings.catalog_heads.as_ref(), unlocked, catalog, &mut |line| ctx.out.line(line))
}

/// That nothing is missing from a catalog, and that it goes on from what was seen of it from here: before anything is written or
/// removed on its word.
///
/// # Errors
/// Refused, with [`rolled_back`].
pub fn goes_on(ctx: &Ctx, unlocked: &Unlocked, catalog: &Catalog) -> Result<()> {
    match rolled_back(ctx, unlocked, catalog) {
        Some(e) => Err(Error { kind: ErrorKind::Refused, ..e }),
        None => Ok(()),
    }
}

/// The server programs of the settings, of this major version if one is given.
///
/// # Errors
/// Target when none are found.
pub fn programs(ctx: &Ctx, major: Option<u32>) -> Result<Programs> {
    Programs::find(ctx.settings.bin_dir.as_deref(), major)
}

/// As [`programs`], of any version, for work that mostly needs none.
pub fn programs_when_needed(ctx: &Ctx) -> WhenNeeded {
    WhenNeeded::new(ctx.settings.bin_dir.as_deref())
}

/// Passes what a recovery tells on to the action's output, one phase after the other.
pub struct Reporter<'a> {
    out: &'a dyn Output,
    phases: std::sync::Mutex<Progress>,
}

impl<'a> Reporter<'a> {
    /// For this output.
    pub fn new(out: &'a dyn Output) -> Self {
        Self { out, phases: std::sync::Mutex::default() }
    }
}

impl Watch for Reporter<'_> {
    fn line(&self, text: &str) {
        self.out.line(text);
    }
    fn phase(&self, phase: &Phase) {
        let mut progress = self.phases.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = ProgressPhase {
            name: phase.name.into(),
            done: phase.done,
            total: phase.total,
            unit: phase.unit.into(),
            text: phase.text.clone(),
            rate: phase.rate,
        };
        match progress.phases.last_mut() {
            Some(last) if last.name == now.name => *last = now,
            _ => progress.phases.push(now),
        }
        progress.eta_ms = phase.eta_ms;
        self.out.progress(&progress);
    }
}
