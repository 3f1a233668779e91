//! What the actions on a PostgreSQL target share: who it is, the repository, the shadow of the incident, and how a recovery's
//! progress becomes an action's.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sqlx::postgres::PgConnection;

use super::{Ctx, Output, Progress, ProgressPhase, reach};
use crate::backup::repository::Unlocked;
use crate::error::{Error, ErrorKind, Result};
use crate::model::target::Identity;
use crate::model::{RunId, Time};
use crate::postgres::connect::query_error;
use crate::postgres::{Database, identity, user};
use crate::process::UnixUser;
use crate::process::spawn::quoted;
use crate::recovery::shadow::{RECORD, Shadow};
use crate::recovery::tables::user_tables;
use crate::recovery::{Phase, Watch};

/// The time now. Actions touch the world; they may read its clock.
pub fn now() -> Time {
    Time::from_system(SystemTime::now())
}

/// Connects and sees who it is on that very connection; refused when it is not who the plan or configuration expects.
///
/// # Errors
/// Not reachable, or another one than expected.
pub async fn seen(ctx: &Ctx, at: &Database) -> Result<(PgConnection, Identity)> {
    let mut c = at.connect().await?;
    let id = identity(&mut c, at).await?;
    expected(ctx, &id, at.host() == id.host)?;
    Ok((c, id))
}

/// Compares an identity with what the incident and the configuration expect. `host` is left out where a recovered instance
/// is looked at: it is the same cluster in another place.
///
/// # Errors
/// Refused, naming what differs, unless the gate was waived for the step this runs in.
pub fn expected(ctx: &Ctx, id: &Identity, host: bool) -> Result<()> {
    let incident = ctx.incident.as_ref().map(|s| s.expect.clone()).unwrap_or_default();
    let moved = ctx.incident.as_ref().is_some_and(|s| s.facts.promoted.is_some());
    match mismatch(ctx.settings.expect.iter().chain(&incident), id, host && !moved) {
        Some(what) if !waived(ctx) => Err(Error::refused(what)
            .why("this is another database than the one the plan or configuration names")
            .hint("nothing was touched; if the expectation is wrong, change it in breakglass.toml")
            .hint("in an incident the gate \"identity\" can be waived with a reason")),
        _ => Ok(()),
    }
}

/// The first expectation an identity does not meet, in words.
pub fn mismatch<'a>(
    expect: impl IntoIterator<Item = (&'a String, &'a String)>,
    id: &Identity,
    host: bool,
) -> Option<String> {
    expect.into_iter().find_map(|(key, want)| {
        let got = match key.as_str() {
            "system_identifier" => &id.system_identifier,
            "database" => &id.database,
            "host" if host => &id.host,
            _ => return None,
        };
        (got != want).then(|| format!("the target's {key} is {got:?}, but {want:?} is expected"))
    })
}

/// Whether the identity gate is waived for the step of this run; before there is a run, for any.
fn waived(ctx: &Ctx) -> bool {
    let Some(state) = &ctx.incident else { return false };
    let number = ctx.run_dir.as_ref().and_then(|d| d.file_name()?.to_str()?.parse().ok());
    match number.and_then(|n| state.runs.get(&RunId(n))) {
        Some(run) => state.waived_for("identity", run.step.as_ref()),
        None => state.waived("identity"),
    }
}

/// The repository, unlocked, and its URL in the absolute form that commands of a server need.
///
/// # Errors
/// As [`reach::unlocked`].
pub fn unlock(ctx: &Ctx) -> Result<(Unlocked, String)> {
    let unlocked = reach::unlocked(ctx)?;
    let url = ctx.settings.repository.clone().unwrap_or_default();
    let absolute = match url.contains("://") {
        true => url,
        false => std::path::absolute(&url).map_or(url, |p| p.display().to_string()),
    };
    Ok((unlocked, absolute))
}

/// The Unix user servers run as.
///
/// # Errors
/// There is none.
pub fn server_user(ctx: &Ctx) -> Result<Option<UnixUser>> {
    user::for_server(ctx.settings.run_as.as_deref())
}

/// A folder for scratch files.
pub fn scratch(ctx: &Ctx) -> PathBuf {
    ctx.run_dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// The folder below which instances are built: as configured, else beside the source's data directory.
///
/// # Errors
/// Neither is known.
pub fn instances_dir(ctx: &Ctx, source: Option<&Identity>) -> Result<PathBuf> {
    if let Some(dir) = &ctx.settings.instances_dir {
        return Ok(dir.clone());
    }
    let data = source.and_then(|s| s.data_directory.as_ref()).map(PathBuf::from);
    data.as_deref().and_then(Path::parent).filter(|p| p.is_dir()).map(|p| p.join("breakglass")).ok_or_else(|| {
        Error::config("where to build the recovered instance is not known")
            .hint("give --dir, or set postgres.instances_dir in breakglass.toml")
    })
}

/// The shadow a person named, else the incident's.
///
/// # Errors
/// There is none.
pub fn shadow(ctx: &Ctx, named: Option<&Path>) -> Result<Shadow> {
    if let Some(root) = named {
        return Shadow::load(root);
    }
    let built = ctx.incident.as_ref().and_then(|s| s.facts.shadow.as_ref());
    let root = built.and_then(|s| Path::new(&s.data_directory).parent().map(Path::to_path_buf)).ok_or_else(|| {
        Error::usage("which recovered instance is meant is not known")
            .hint("build one with breakglass pitr restore --to …, or name its folder with --shadow")
    })?;
    Shadow::load(&root)
}

/// As [`shadow`]. Where nobody said which, those that stand in the folder for instances are named.
///
/// # Errors
/// There is none, or it is not known which is meant.
pub async fn which_shadow(ctx: &Ctx, named: Option<&Path>) -> Result<Shadow> {
    let mut e = match shadow(ctx, named) {
        Err(e) if named.is_none() && e.kind == ErrorKind::Usage => e,
        done => return done,
    };
    let source = match reach::source(ctx) {
        Ok(at) => seen(ctx, &at).await.ok().map(|(_, id)| id),
        Err(_) => None,
    };
    let standing = instances_dir(ctx, source.as_ref()).map(|folder| standing_in(&folder)).unwrap_or_default();
    if !standing.is_empty() {
        let named = |root: &PathBuf| format!("one stands here: --shadow {}", quoted(root.as_os_str()));
        e.hints = standing.iter().rev().take(3).map(named).collect();
    }
    Err(e)
}

/// Recovered instances in the folders below this one, the newest last.
fn standing_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.join(RECORD).is_file()).collect();
    found.sort();
    found
}

/// Whether this is the recovered instance itself: after a promotion it may answer where the damaged one did.
pub fn is_recovered(s: &Shadow, id: &Identity) -> bool {
    id.data_directory.as_deref().is_some_and(|d| Path::new(d) == s.root.join("data"))
}

/// Where the recovered instance answers: on its own socket, or, once it took the source's place, where the source did. The
/// second says whether it is in that place.
///
/// # Errors
/// Its programs or user are gone, or another database answers than expected.
pub async fn recovered(ctx: &Ctx, s: &Shadow) -> Result<(Database, bool)> {
    if let Ok(source) = reach::source(ctx) {
        match seen(ctx, &source).await {
            Ok((_, id)) if is_recovered(s, &id) => return Ok((source, true)),
            Err(e) if e.kind == ErrorKind::Refused => return Err(e),
            _ => {}
        }
    }
    Ok((s.database(&meant(ctx, &s.database(MAINTENANCE)?).await?)?, false))
}

/// The database that every cluster has, and that is empty in most.
const MAINTENANCE: &str = "postgres";

/// Name of the database that is meant in a recovered instance: the one that is configured or expected, else the largest that has
/// tables. On a new machine nothing but the instance itself knows which.
///
/// # Errors
/// It has to be asked, and cannot be.
pub async fn meant(ctx: &Ctx, any: &Database) -> Result<String> {
    let configured = ctx.settings.database.as_ref().map(|d| d.database.clone());
    if let Some(name) = configured.or_else(|| ctx.settings.expect.get("database").cloned()) {
        return Ok(name);
    }
    Ok(with_tables(any).await?.into_iter().next().unwrap_or_else(|| MAINTENANCE.to_string()))
}

/// The databases of an instance that have tables of somebody's, the largest first; those that cannot be looked into last.
///
/// # Errors
/// A query fails.
pub async fn with_tables(any: &Database) -> Result<Vec<String>> {
    let (lock, statement) = (Duration::from_secs(2), Duration::from_secs(30));
    let mut c = any.connect_read_only(lock, statement).await?;
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2 \
               AND NOT datistemplate ORDER BY pg_catalog.pg_database_size(oid) DESC, datname";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut c).await.map_err(|e| query_error(sql, &e))?;
    let (mut out, mut unread) = (Vec::new(), Vec::new());
    for name in names {
        let has = async {
            let mut c = any.with_name(&name).connect_read_only(lock, statement).await?;
            Ok::<bool, Error>(!user_tables(&mut c).await?.is_empty())
        };
        match has.await {
            Ok(true) => out.push(name),
            Ok(false) => {}
            // Whoever looks into it is told why that does not work.
            Err(_) => unread.push(name),
        }
    }
    out.append(&mut unread);
    Ok(out)
}

/// Name of the database that is recovered, where its instance need not be asked.
pub fn database_name(ctx: &Ctx) -> String {
    ctx.settings.database.as_ref().map_or_else(|| MAINTENANCE.to_string(), |d| d.database.clone())
}

/// The bootstrap superuser's name; `postgres` when it cannot be asked.
///
/// # Errors
/// The query fails.
pub async fn superuser(c: &mut PgConnection) -> Result<String> {
    let sql = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE oid = 10";
    let name: Option<String> = sqlx::query_scalar(sql).fetch_optional(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(name.unwrap_or_else(|| "postgres".into()))
}

/// Hands a recovery's lines and phases to an action's output, five times a second at most.
pub struct Follow {
    out: Arc<dyn Output>,
    state: Mutex<(Progress, Option<Instant>)>,
}

impl Follow {
    /// Follows into the context's output.
    pub fn new(ctx: &Ctx) -> Arc<Self> {
        Arc::new(Self { out: ctx.out.clone(), state: Mutex::default() })
    }
}

impl Watch for Follow {
    fn line(&self, text: &str) {
        self.out.line(text);
    }
    fn phase(&self, phase: &Phase) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, last) = &mut *state;
        let new = ProgressPhase {
            name: phase.name.into(),
            done: phase.done,
            total: phase.total,
            unit: phase.unit.into(),
            text: phase.text.clone(),
            rate: phase.rate,
        };
        let known = progress.phases.iter_mut().find(|p| p.name == phase.name);
        let changed = match known {
            Some(p) => {
                *p = new;
                false
            }
            None => {
                progress.phases.push(new);
                true
            }
        };
        progress.eta_ms = phase.eta_ms;
        let due = last.is_none_or(|t| t.elapsed() >= Duration::from_millis(200));
        if changed || due || phase.total == Some(phase.done) {
            *last = Some(Instant::now());
            self.out.progress(progress);
        }
    }
}

/// Runs what blocks on a thread of its own, so that a request to stop is heard meanwhile.
///
/// # Errors
/// What the work says.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::state("the work broke off").why(e))?
}

/// Parses an action's arguments with its clap definition.
///
/// # Errors
/// Usage, with what clap says.
pub fn parse_args<T: clap::FromArgMatches>(command: clap::Command, args: &[String]) -> Result<T> {
    let name = command.get_name().to_string();
    let bad = |e: clap::Error| {
        Error::usage(format!("the arguments of {name:?} cannot be used")).why(e.to_string().trim_end())
    };
    let matches = command.no_binary_name(true).try_get_matches_from(args).map_err(bad)?;
    T::from_arg_matches(&matches).map_err(bad)
}
