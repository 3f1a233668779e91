//! The whole world of a drill: a private cluster with a shop in it, its encrypted repository, and the umpire with the traffic.
//!
//! Everything here is made for this drill. Its settings are generated; nothing of the caller's configuration or environment
//! reaches it, so no step of a drill can touch a real target.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::{Connection, Row};
use tokio_util::sync::CancellationToken;

use super::breach;
use super::control::Control;
use super::door::PORT;
use super::leftovers;
use super::pages;
use super::region;
use super::release::Window;
use super::scratch::{self, Facts, ProcessId, Scratch};
use super::server::{self, Server};
use super::service::now;
use super::shop::{self, APP_ROLE, DATABASE, SUPERUSER, Scale};
use super::traffic::Shape;
use super::umpire;
use crate::backup::base::store_base;
use crate::backup::repository::{InitOptions, Repository, Unlocked};
use crate::backup::wal::archive::archive_command;
use crate::config::settings::{BreachSettings, FailoverSettings};
use crate::config::{Connection as Target, Secrets, ServiceSettings, Settings};
use crate::error::{Context, Error, Result};
use crate::model::Secret;
use crate::postgres::{BaseBackup, Instance, Layout, Programs, user};
use crate::process::UnixUser;
use crate::process::detach::own_executable;

/// How long the server may take to start; a loaded machine is slow.
const START: Duration = Duration::from_secs(60);
/// How long the base backup may take; the log it needs must be archived within this time.
const BACKUP: Duration = Duration::from_secs(600);
/// How long until the traffic must have placed its first orders.
const FIRST_ORDERS: Duration = Duration::from_secs(20);
/// Disk space a drill of size 1 needs at most: cluster, repository, recovered cluster, WAL. Each further size adds less.
const NEED: (u64, u64) = (900_000_000, 400_000_000);

/// How a sandbox is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Slug of the scenario that is drilled, one of [`super::session::DRILLS`].
    pub scenario: String,
    /// What of the scenario is given and not drawn, one of [`super::session::VARIANTS`].
    pub variant: Option<String>,
    /// `--size`, see [`Scale::of`].
    pub size: u32,
    /// Leave everything when the drill ends.
    pub keep: bool,
    /// The traffic.
    pub shape: Shape,
    /// Seed of the shop's data and of what is ordered.
    pub seed: u32,
    /// Directories a scratch directory may be made in, best first.
    pub places: Vec<PathBuf>,
    /// Directory of the server programs; found when not given.
    pub bin_dir: Option<PathBuf>,
    /// Unix user of the server when we are root.
    pub run_as: Option<String>,
    /// The program that becomes umpire and archive_command: ours.
    pub executable: PathBuf,
    /// The umpire clears the drill away when nobody asked it anything for this long.
    pub orphan_after: Duration,
    /// Database size for which the report projects the recovery time.
    pub project_size_bytes: Option<u64>,
    /// Cancelled when somebody does not want the drill any more: what was made so far is removed.
    pub cancel: CancellationToken,
}

impl Options {
    /// The defaults: size 1, four writers, our own executable.
    ///
    /// # Errors
    /// `State` when our own executable cannot be found.
    pub fn new() -> Result<Self> {
        Ok(Self {
            scenario: super::session::CORRUPTION.into(),
            variant: None,
            size: 1,
            keep: false,
            shape: Shape::default(),
            seed: 1,
            places: scratch::places(),
            bin_dir: None,
            run_as: None,
            executable: own_executable()?,
            orphan_after: Duration::from_secs(4 * 3600),
            project_size_bytes: None,
            cancel: CancellationToken::new(),
        })
    }
}

/// A sandbox that runs. Dropping it leaves it running: [`Sandbox::teardown`] removes it.
#[derive(Debug)]
pub struct Sandbox {
    alive: Scratch,
    facts: Facts,
    health_url: String,
    setup: Duration,
}

impl Sandbox {
    /// Makes everything, saying what it does. Blocks; not to be called inside an async runtime's own thread.
    ///
    /// # Errors
    /// What could not be made, or `Interrupted`; nothing is left then.
    pub fn make(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let begun = Instant::now();
        for dir in leftovers::clean(&options.places) {
            say(&format!("removed what a crashed drill left in {}", dir.display()));
        }
        let programs = Programs::find(options.bin_dir.as_deref(), None)?;
        let server_user = user::for_server(options.run_as.as_deref())?;
        let need = NEED.0 + NEED.1 * u64::from(options.size);
        let alive = Scratch::make(&options.places, need, server_user.is_some())?;
        let dir = alive.dir().to_path_buf();
        if !options.keep {
            // From here on a killed set-up leaves nothing. What cannot be guarded is cleared away by the next drill.
            let _ = umpire::spawn_guard(&options.executable, &dir);
        }
        match fill(options, &alive, programs, server_user, say) {
            Ok((facts, health_url)) => Ok(Self { alive, facts, health_url, setup: begun.elapsed() }),
            Err(e) => {
                drop(alive);
                if options.keep {
                    return Err(e.hint(format!("what was made so far is kept in {}", dir.display())));
                }
                match leftovers::remove(&dir) {
                    Ok(()) => Err(e),
                    Err(left) => Err(e.hint(left.to_string())),
                }
            }
        }
    }

    /// Joins a sandbox that runs, after the console that made it has died.
    ///
    /// # Errors
    /// `State` when the directory is not one, `Target` when its umpire no longer answers.
    pub fn join(dir: &Path) -> Result<Self> {
        let alive = Scratch::join(dir)?;
        let facts = scratch::read_facts(dir)?;
        let health_url = Control::new(dir).status()?.health_url;
        Ok(Self { alive, facts, health_url, setup: Duration::ZERO })
    }

    /// Its scratch directory.
    pub fn dir(&self) -> &Path {
        self.alive.dir()
    }
    /// What it is made of.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
    /// How long making it took; zero after [`Sandbox::join`].
    pub fn setup(&self) -> Duration {
        self.setup
    }
    /// The umpire.
    pub fn control(&self) -> Control {
        Control::new(self.dir())
    }
    /// Deploys the faulty release.
    ///
    /// # Errors
    /// As [`Control::inject`].
    pub fn inject(&self, window: Window) -> Result<()> {
        self.control().inject(window)
    }

    /// Settings under which every action of the drill runs. They hold no secret and name nothing outside the sandbox.
    pub fn settings(&self) -> Settings {
        settings(self.dir(), &self.facts, &self.health_url)
    }
    /// The secrets that belong to the settings.
    ///
    /// # Errors
    /// `State` when the passphrase cannot be read.
    pub fn secrets(&self) -> Result<Secrets> {
        let mut secrets = Secrets::default();
        secrets.set(crate::config::settings::REPOSITORY_KEY, scratch::read_passphrase(self.dir())?);
        Ok(secrets)
    }

    /// Removes everything, unless the sandbox was made to be kept; says whether it did.
    ///
    /// # Errors
    /// `State` naming what is left.
    pub fn teardown(self) -> Result<bool> {
        if self.facts.keep {
            return Ok(false);
        }
        let dir = self.dir().to_path_buf();
        leftovers::remove(&dir)?;
        Ok(true)
    }
}

/// Settings of a drill; see [`Sandbox::settings`].
pub fn settings(dir: &Path, facts: &Facts, health_url: &str) -> Settings {
    let exe = scratch::executable(dir).display().to_string();
    let inner = |what: &[&str]| {
        let mut command = vec![exe.clone(), "sandbox".into(), "--dir".into(), dir.display().to_string()];
        command.extend(what.iter().map(|w| (*w).to_string()));
        command
    };
    let front = |what: &[&str]| match facts.scenario == super::session::RELEASE {
        true => inner(&[&["tell"], what].concat()),
        false => Vec::new(),
    };
    Settings {
        target: Some(format!("{DATABASE} @ sandbox")),
        database: Some(Target {
            host: facts.server.socket.clone(),
            port: facts.server.port,
            user: SUPERUSER.into(),
            database: facts.server.database.clone(),
            sslmode: None,
        }),
        expect: BTreeMap::from([
            ("system_identifier".to_string(), facts.system_identifier.clone()),
            ("database".to_string(), DATABASE.to_string()),
        ]),
        repository: Some(repository_url(dir)),
        bin_dir: Some(facts.bin_dir.clone()),
        run_as: facts.run_as.clone(),
        instances_dir: Some(scratch::instances(dir)),
        helper_exe: Some(scratch::executable(dir)),
        service: ServiceSettings {
            health_url: Some(health_url.to_string()),
            release_stop: match facts.scenario == super::session::DELETION {
                true => inner(&["stop-release"]),
                false => inner(&["contain"]),
            },
            switch: inner(&["switch", "--host", "{host}", "--port", "{port}", "--database", "{database}"]),
            resume: inner(&["resume"]),
            roles: vec![APP_ROLE.into()],
            probe_url: (facts.scenario == super::session::RELEASE)
                .then(|| health_url.replace("/api/health", "/internal/checkout")),
            releases: front(&["releases"]),
            maintenance: match facts.scenario.as_str() {
                super::session::BREACH | super::session::REGION | super::session::RELEASE => {
                    inner(&["tell", "maintenance", "{state}"])
                }
                _ => Vec::new(),
            },
            autodeploy: front(&["autodeploy", "{state}"]),
            rollback: front(&["rollback", "{release}"]),
            flag: front(&["flag", "{flag}", "{state}"]),
        },
        failover: match facts.scenario == super::session::REGION {
            true => failover(dir, facts, &inner),
            false => FailoverSettings::default(),
        },
        breach: match facts.scenario == super::session::BREACH {
            true => BreachSettings {
                logs: vec![Layout::under(&scratch::cluster(dir), PORT).log],
                rotate: breach::SECRETS.map(|(name, word)| (name.to_string(), inner(&["tell", "rotate", word]))).into(),
            },
            false => BreachSettings::default(),
        },
        project_size_bytes: facts.project_size_bytes,
        ..Settings::default()
    }
}

/// Two regions as a team would have written them down.
fn failover(dir: &Path, facts: &Facts, inner: &dyn Fn(&[&str]) -> Vec<String>) -> FailoverSettings {
    let at = |root: &Path| Target {
        host: Layout::under(root, PORT).sockets.display().to_string(),
        port: PORT,
        user: SUPERUSER.into(),
        database: facts.server.database.clone(),
        sslmode: None,
    };
    let near = scratch::cluster(dir);
    FailoverSettings {
        standby: Some(at(&region::far_root(dir))),
        primary: Some(at(&near)),
        fence: inner(&["tell", "fence"]),
        monitor: inner(&["tell", "sample"]),
        outside: ["north", "overseas"].map(|place| inner(&["tell", "look", place])).to_vec(),
        old_data: Some(Layout::under(&near, PORT).data),
    }
}

fn repository_url(dir: &Path) -> String {
    format!("file://{}", scratch::repository(dir).display())
}

fn fill(
    options: &Options,
    alive: &Scratch,
    programs: Programs,
    server_user: Option<UnixUser>,
    say: &mut dyn FnMut(&str),
) -> Result<(Facts, String)> {
    let dir = alive.dir();
    let mut say = |text: &str| match options.cancel.is_cancelled() {
        true => Err(Error::interrupted("the drill was stopped while its sandbox was made")),
        false => {
            say(text);
            Ok(())
        }
    };
    place_executable(&options.executable, dir)?;
    let passphrase = passphrase()?;
    alive.write_passphrase(&passphrase)?;
    user::own_dir(&scratch::instances(dir), server_user.as_ref())?;

    say(&format!("making a private PostgreSQL {} in {}", programs.version(), dir.display()))?;
    let bin_dir = programs.bin_dir.clone();
    let instance = Instance::new(programs, &scratch::cluster(dir), server_user.clone())?;
    instance.create(None)?;
    let repository = Repository::init(
        &repository_url(dir),
        &passphrase,
        &InitOptions { wal_owner: server_user.as_ref().map(|u| (u.uid, u.gid)), ..InitOptions::default() },
    )?;
    let breach = options.scenario == super::session::BREACH;
    instance.configure(&server_settings(dir, options.variant.as_deref())?, breach.then_some(breach::RULES))?;
    instance.start(START)?;

    let superuser = Server {
        socket: instance.layout.sockets.display().to_string(),
        port: instance.port,
        user: SUPERUSER.into(),
        database: DATABASE.into(),
    };
    let scale = Scale::of(options.size);
    say(&format!("loading the shop: {} orders of {} customers", scale.orders, scale.customers))?;
    let (bytes, system_identifier) = block_on(load(&superuser, scale, options.seed))??;
    if breach {
        block_on(people(&superuser, &passphrase))??;
    }
    say(&format!("taking a base backup of {} MB into an encrypted repository", bytes / 1_000_000))?;
    back_up(&repository.unlock(&passphrase)?, &instance)?;

    let lost_region = options.scenario == super::session::REGION;
    if lost_region {
        say("making a streaming standby in another region")?;
        region::make_far(dir, &instance, server_user.as_ref(), &server_settings(dir, None)?)?;
    }

    let mut facts = Facts {
        v: 1,
        program: env!("CARGO_PKG_VERSION").into(),
        made: now(),
        keep: options.keep,
        scenario: options.scenario.clone(),
        variant: options.variant.clone(),
        size: options.size,
        scale,
        seed: options.seed,
        shape: options.shape,
        server: match lost_region {
            true => region::door(dir, APP_ROLE),
            false => superuser.with_user(APP_ROLE),
        },
        system_identifier,
        bytes,
        run_as: server_user.map(|u| u.name),
        bin_dir,
        orphan_after_s: options.orphan_after.as_secs(),
        project_size_bytes: options.project_size_bytes,
        umpire: None,
        maker: Some(ProcessId::own()),
    };
    alive.write_facts(&facts)?;
    say("starting the service and its traffic")?;
    let pid = umpire::spawn(&scratch::executable(dir), dir)?;
    facts.umpire = Some(ProcessId::of(pid));
    alive.write_facts(&facts)?;
    let health_url = wait_for_orders(&Control::new(dir), options.shape)?;
    Ok((facts, health_url))
}

/// Our executable where the server's user may run it: the checkout or HOME may be closed to it.
fn place_executable(from: &Path, dir: &Path) -> Result<()> {
    let to = scratch::executable(dir);
    let what = || format!("cannot place a copy of this program in {}", dir.display());
    let bin = to.parent().unwrap_or(dir);
    fs::create_dir(bin).state(what)?;
    fs::set_permissions(bin, Permissions::from_mode(0o755)).state(what)?;
    // A copy, not a link: whoever replaces the program during the drill must not replace this one.
    fs::copy(from, &to).state(what)?;
    fs::set_permissions(&to, Permissions::from_mode(0o755)).state(what)
}

/// 64 hexadecimal digits from the operating system's randomness.
fn passphrase() -> Result<Secret> {
    let mut bytes = zeroize::Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut()).state(|| "the operating system gives no random bytes".into())?;
    Ok(Secret::new(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()))
}

fn server_settings(dir: &Path, variant: Option<&str>) -> Result<Vec<(String, String)>> {
    let key = Repository::open(&repository_url(dir))?.key_id();
    let archive = archive_command(&scratch::executable(dir), &repository_url(dir), Some(&key))?;
    Ok([
        ("archive_mode", "on".to_string()),
        ("archive_command", archive),
        // A quiet shop must not have an unlimited exposure.
        ("archive_timeout", "15s".into()),
        ("wal_level", "replica".into()),
        ("max_wal_senders", "8".into()),
        // A standby that was away for a while goes on from here.
        ("wal_keep_size", "256MB".into()),
        ("wal_retrieve_retry_interval", "200ms".into()),
        ("track_commit_timestamp", "on".into()),
        ("max_connections", "60".into()),
        ("shared_buffers", if variant == Some(pages::VARIANT) { pages::SHARED_BUFFERS } else { "64MB" }.into()),
        ("max_wal_size", "1GB".into()),
        ("wal_compression", "on".into()),
        ("log_checkpoints", "off".into()),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .to_vec())
}

/// Takes the base backup every recovery of this drill starts from.
fn back_up(unlocked: &Unlocked, instance: &Instance) -> Result<()> {
    let mut stream = BaseBackup::start(
        &instance.programs,
        &instance.database("postgres"),
        "before the drill",
        instance.user.as_ref(),
    )?;
    // At its end it waits for the archive; an archive_command that fails would keep it waiting for ever.
    let cancel = stream.canceller();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = ended.recv_timeout(BACKUP) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            cancel();
        }
        late
    });
    let stored = store_base(unlocked, &mut stream, Some("before the drill"), &mut |_| Ok(()));
    let finished = stored.and_then(|pending| stream.finish().map(|_| pending));
    drop(done);
    let late = watchdog.join().unwrap_or(false);
    let pending = finished.map_err(|e| {
        if !late {
            return e;
        }
        e.why(format!("no end after {} s; the server's log: {}", BACKUP.as_secs(), instance.log_tail(3)))
            .hint("its log is not archived: run the archive_command of the log by hand to see why")
    })?;
    pending.commit().map(drop)
}

async fn load(superuser: &Server, scale: Scale, seed: u32) -> Result<(u64, String)> {
    let mut conn = superuser.with_database("postgres").connect("sandbox").await?;
    let (system_identifier, _) = server::identify(&mut conn).await?;
    sqlx::raw_sql(&format!("CREATE DATABASE {DATABASE}"))
        .execute(&mut conn)
        .await
        .target(|| "cannot create the shop's database".into())?;
    let _ = conn.close().await;
    let mut conn = superuser.connect("sandbox").await?;
    let bytes = shop::load(&mut conn, scale, seed, now()).await?;
    // Installed beforehand because a server in recovery cannot install it; not every system has the package.
    let there = sqlx::query("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'")
        .fetch_one(&mut conn)
        .await
        .target(|| "cannot list extensions".into())?;
    if there.get::<i64, _>(0) > 0 {
        sqlx::raw_sql("CREATE EXTENSION amcheck")
            .execute(&mut conn)
            .await
            .target(|| "cannot install amcheck".into())?;
    }
    let _ = conn.close().await;
    Ok((bytes, system_identifier))
}

/// The roles of people, for a drill in which one is stolen.
async fn people(superuser: &Server, key: &Secret) -> Result<()> {
    let mut conn = superuser.connect("sandbox").await?;
    let sql = breach::extra_sql(key);
    sqlx::raw_sql(&sql).execute(&mut conn).await.target(|| "cannot make the roles of people".into())?;
    Ok(())
}

/// Waits until every writer has had its turn; returns where health is.
fn wait_for_orders(control: &Control, shape: Shape) -> Result<String> {
    let until = Instant::now() + FIRST_ORDERS;
    loop {
        let status = control.status()?;
        if status.health.orders_taken >= u64::from(shape.writers) * 2 && status.health.healthy {
            return Ok(status.health_url);
        }
        if Instant::now() >= until {
            return Err(Error::target("the sandbox's traffic does not start").why(format!(
                "{} orders after {} s, {}",
                status.health.orders_taken,
                FIRST_ORDERS.as_secs(),
                status.health.status
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs async work on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().state(|| "cannot start a runtime".into())?;
    Ok(runtime.block_on(work))
}
