//! What has to be asked: the database with its archiving, the repository, the service.

use std::time::{Duration, SystemTime};

use sqlx::Row;

use super::{Checks, Invocation, Level};
use crate::action::target::mismatch;
use crate::backup::anchor::Anchors;
use crate::backup::catalog::{self, BackupKind, Catalog};
use crate::backup::cloud::url::service_of;
use crate::backup::keys::KeyFile;
use crate::backup::repository::{MEND_CLUSTER, Repository, Unlocked};
use crate::backup::seen::{self, Known};
use crate::backup::spool::{disk_full, mounted_read_only};
use crate::backup::wal;
use crate::backup::{damage, dates, pinned};
use crate::config::Backend;
use crate::config::settings::{DATABASE_PASSWORD, REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Context, Error, Result};
use crate::model::target::Identity;
use crate::model::{Time, format_clock};
use crate::postgres::connect::{query_error, quote_literal};
use crate::postgres::{Database, Programs};
use crate::process::detach::own_path;
use crate::recovery::backend::{newest_backup, open_as};
use crate::recovery::segments::{MEND, Segments};
use crate::recovery::{exposure, health, unheld};

/// Looks.
pub async fn look(invocation: &Invocation, checks: &mut Checks) {
    let settings = &invocation.config.settings;
    let ours = settings.backend == Backend::Native;
    let opened = settings.repository.as_ref().filter(|_| ours).map(|url| Repository::open(url));
    let key = opened.as_ref().and_then(|r| r.as_ref().ok()).map(|repository| {
        let known = seen::judge(repository, settings.catalog_heads.as_ref(), &invocation.config.secrets);
        Key { repository: repository.clone(), known }
    });
    let identity = match &settings.database {
        None => {
            checks.problem("database", "none is configured", "set DATABASE_URL, or target.url in breakglass.toml");
            None
        }
        Some(connection) => {
            let at = Database::of(connection, invocation.config.secrets.get(DATABASE_PASSWORD).cloned());
            match database(invocation, &at, key.as_ref(), checks).await {
                Ok(identity) => Some(identity),
                Err(e) => {
                    checks.error("database", &e);
                    None
                }
            }
        }
    };
    match &settings.repository {
        _ if settings.backend != Backend::Native => elsewhere(invocation, identity.as_ref(), checks).await,
        None => {
            checks.problem("repository", "none is configured", "set BACKUP_DIR, or repository.url in breakglass.toml")
        }
        Some(url) => {
            let looked = match (opened, key) {
                (_, Some(key)) => repository(invocation, url, &key, identity.as_ref(), checks),
                (Some(Err(e)), None) => Err(e),
                (_, None) => Ok(()),
            };
            if let Err(e) = looked {
                checks.error("repository", &e);
            }
        }
    }
    if let Some(url) = &settings.service.health_url {
        match health::ask(url).await {
            Ok(seen) if seen.healthy => checks.good("service", format!("{url} answers and is well")),
            Ok(seen) => {
                let bad: Vec<String> = seen.components.iter().map(|(n, s)| format!("{n} {s}")).collect();
                checks.warning("service", format!("{url} answers: {}", bad.join(", ")), "breakglass health");
            }
            Err(e) => checks.error("service", &e),
        }
    }
}

/// What to do about a clock that is wrong.
const CLOCK: &str =
    "see which clock is wrong (timedatectl; date -u) and put it right before the next backup or cleanup";

/// A repository, and what is known of the key that it says it is written for.
struct Key {
    repository: Repository,
    known: Known,
}

impl Key {
    /// What to set so that the log is archived there, and what to check before.
    fn advice(&self) -> Vec<String> {
        if let Known::Stranger(_) = self.known {
            return self.known.advice().into_iter().collect();
        }
        let command = archive_to(&self.repository);
        let set = match command {
            Ok(command) => format!("archive_command = {}", quote_literal(&command)),
            Err(e) => e.to_string(),
        };
        let key = format!("key {}: {}", self.repository.key_id(), self.known.describe());
        [Some(set), Some(key), self.known.advice()].into_iter().flatten().collect()
    }
}

/// [`Key::advice`], or what is missing for it.
fn archive_advice(key: Option<&Key>) -> Vec<String> {
    let missing =
        || vec!["name a repository that opens (BACKUP_DIR), then ask again: the whole command stands here then".into()];
    key.map_or_else(missing, Key::advice)
}

/// Who the database is, and whether its log would let it be recovered.
async fn database(invocation: &Invocation, at: &Database, key: Option<&Key>, checks: &mut Checks) -> Result<Identity> {
    const AREA: &str = "database";
    let settings = &invocation.config.settings;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(10)).await?;
    let id = crate::postgres::identity(&mut c, at).await?;
    let major = id.version_num / 10_000;
    checks.good(
        AREA,
        format!(
            "{} @ {}:{}, PostgreSQL {major}, system {}, timeline {}",
            id.database, id.host, id.port, id.system_identifier, id.timeline
        ),
    );
    if let Some(what) = mismatch(&settings.expect, &id, true) {
        checks.problem(AREA, what, "every action on it is refused; put target.expect or target.url right");
    }
    if let Some(differs) = dates::differs(Time::from_system(SystemTime::now()), crate::postgres::clock(&mut c).await?) {
        checks.problem(AREA, differs, CLOCK);
    }
    if let Err(e) = Programs::find(settings.bin_dir.as_deref(), Some(major)) {
        checks.error("programs", &e);
    }
    let more = crate::postgres::more_tablespaces(&mut c).await?;
    if !more.is_empty() {
        checks.problem(
            AREA,
            format!("tablespaces beside the cluster's own: {}; no base backup is taken of it, and no moment after they were made can be recovered", more.join(", ")),
            "ALTER TABLE ALL IN TABLESPACE … SET TABLESPACE pg_default; DROP TABLESPACE …; then a new base backup",
        );
    }
    let sql = "SELECT current_setting('wal_level') AS wal_level, current_setting('archive_mode') AS archive_mode, \
               coalesce(current_setting('archive_command', true), '') AS archive_command, \
               coalesce(current_setting('archive_library', true), '') AS archive_library, \
               current_setting('data_checksums') AS checksums, current_setting('track_commit_timestamp') AS commit_times, \
               pg_is_in_recovery() AS standby, \
               (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) AS may_backup";
    let row = sqlx::query(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    let text = |name: &str| row.try_get::<String, _>(name).unwrap_or_default();
    let on = |name: &str| row.try_get::<bool, _>(name).unwrap_or_default();
    if on("standby") {
        checks.warning(
            AREA,
            "this is a standby",
            "name the primary in target.url: a standby's archiver says nothing of exposure",
        );
    }
    if text("wal_level") == "minimal" || text("archive_mode") == "off" {
        checks.problem(
            "archiving",
            format!(
                "wal_level is {:?}, archive_mode is {:?}: no point in time can be recovered",
                text("wal_level"),
                text("archive_mode")
            ),
            "ALTER SYSTEM SET wal_level = 'replica'; ALTER SYSTEM SET archive_mode = 'on'; then restart the server",
        );
    } else {
        archiving(invocation, &mut c, &text("archive_command"), &text("archive_library"), on("standby"), key, checks)
            .await?;
        program(at, &mut c, &text("archive_command"), key, checks).await;
    }
    if text("checksums") == "off" {
        checks.warning(
            AREA,
            "data checksums are off: damaged pages are found late",
            "pg_checksums --enable, with the server stopped",
        );
    }
    if text("commit_times") == "off" {
        checks.warning(
            AREA,
            "commit times are not recorded: the moment is found from the log alone",
            "ALTER SYSTEM SET track_commit_timestamp = on; then restart the server",
        );
    }
    if !on("may_backup") {
        checks.problem(
            AREA,
            "this role may not take a base backup",
            "ALTER ROLE … REPLICATION, and let it in by pg_hba.conf",
        );
    }
    Ok(id)
}

/// Whether the log gets into the repository: it is archived at all, by us, there, and for its key.
async fn archiving(
    invocation: &Invocation,
    c: &mut sqlx::PgConnection,
    command: &str,
    library: &str,
    standby: bool,
    key: Option<&Key>,
    checks: &mut Checks,
) -> Result<()> {
    const AREA: &str = "archiving";
    let settings = &invocation.config.settings;
    let native = settings.backend == Backend::Native;
    let received = exposure::received_in(settings.repository.as_ref());
    let measured = exposure::measure(c, &exposure::held_in(settings)).await?;
    let nothing = command.is_empty() && library.is_empty();
    if nothing && !standby {
        let what = "archive_mode is on and archive_command is empty: nothing archives the log, it piles up in pg_wal, and no moment \
                    after the last archived one can be recovered";
        let set = match native {
            true => archive_advice(key),
            false => vec![format!(
                "set the archive_command that {} needs, then SELECT pg_reload_conf()",
                settings.backend.word()
            )],
        };
        match (&measured, received.is_some()) {
            (Some(e), true) => checks.advised(
                AREA,
                Level::Warning,
                format!(
                    "archive_mode is on and archive_command is empty: the log is received (wal receive, exposure {}), and a base backup \
                     would wait for ever",
                    clock(e)
                ),
                set,
            ),
            (Some(e), false) => checks.advised(AREA, Level::Problem, format!("{what} (exposed {})", clock(e)), set),
            (None, _) => checks.advised(AREA, Level::Problem, what, set),
        }
        return Ok(());
    }
    if !standby && library.is_empty() && received.is_none() && seen::stores_nothing(command) {
        let what = format!(
            "archive_command is {command:?}: it says yes to every segment and stores none, so the server removes its log and no moment \
             after a backup can be recovered"
        );
        let set = match native {
            true => archive_advice(key),
            false => {
                vec![format!(
                    "set the archive_command that {} needs, then SELECT pg_reload_conf()",
                    settings.backend.word()
                )]
            }
        };
        checks.advised(AREA, Level::Problem, what, set);
        return Ok(());
    }
    match measured {
        Some(exposure::Exposure { unheld: Some(gap), .. }) => {
            checks.problem(AREA, gap.what(), gap.advice());
            // What else archive_command says is said to another repository.
            if gap.archives_to.is_some() {
                return Ok(());
            }
        }
        Some(e) => match e.failing {
            Some(segment) => checks.problem(
                AREA,
                format!("failing at {segment}"),
                "the server's log says why; breakglass wal status shows what is there",
            ),
            None => checks.good(AREA, format!("exposure {}", clock(&e))),
        },
        None => checks.warning(
            AREA,
            "exposure cannot be measured: nothing was archived yet, or this is a standby",
            "look at pg_stat_archiver; with track_commit_timestamp the age of the last commit is known",
        ),
    }
    if standby {
        return Ok(());
    }
    if !native {
        let tool = settings.backend.word();
        if settings.backend == Backend::PgBackRest && !command.to_lowercase().contains(tool) {
            checks.warning(
                AREA,
                format!("archive_command does not name {tool}: another tool holds the log"),
                "archive_command = 'pgbackrest --stanza=NAME archive-push %p', or set recovery.backend",
            );
        }
        return Ok(());
    }
    if !command.contains("breakglass") && !command.contains("wal archive") {
        let what = "archive_command does not name breakglass: another tool holds the log";
        checks.advised(AREA, Level::Warning, what, archive_advice(key));
        return Ok(());
    }
    if service_of(settings.repository.as_deref().unwrap_or("")).is_some()
        && command.contains("://")
        && !command.contains("credentials=")
    {
        checks.warning(
            AREA,
            "archive_command names a bucket and no credentials: a server has none of our environment",
            "name a file of the server's user, mode 0600, in repository.credentials, or in the URL: ?credentials=/PATH",
        );
    }
    if !command.contains("wal archive") {
        return Ok(());
    }
    if let Some(key) = key
        && let Some(to) = another(&key.repository, command)
    {
        // Which key it names is that one's matter.
        checks.problem(
            AREA,
            format!(
                "archive_command stores the log in {to}, and {} is looked at here: what is archived now does not get there",
                key.repository.store().url()
            ),
            "name one place in both: BACKUP_DIR (or repository.url), and --repository in archive_command",
        );
        return Ok(());
    }
    match (seen::option_in(command, "--key-id"), key) {
        (None, _) => checks.advised(
            AREA,
            Level::Warning,
            "archive_command does not say for which key: who can write to the repository can have the log sealed for a key of their own",
            archive_advice(key),
        ),
        (Some(id), Some(key)) if !key.repository.follows(&id) => checks.problem(
            AREA,
            format!(
                "archive_command is for key {id}, the repository says {}, and nothing signed by the holder of the first leads to the \
                 second: the log is not stored",
                key.repository.key_id()
            ),
            match &key.known {
                Known::Ours => format!("the secret set here opens it: name --key-id {} in archive_command", key.repository.key_id()),
                _ => "compare repository.json and the folder keys with a copy: somebody may have put a key of their own there".into(),
            },
        ),
        (Some(_), _) => {}
    }
    Ok(())
}

/// Whether the program that `archive_command` calls is there, where the server is on this machine: one that was renamed, moved or
/// removed archives nothing.
async fn program(at: &Database, c: &mut sqlx::PgConnection, command: &str, key: Option<&Key>, checks: &mut Checks) {
    let Some(program) = seen::program_in(command).filter(|p| p.starts_with('/')) else { return };
    let sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";
    let data: Option<String> = sqlx::query_scalar(sql).fetch_optional(c).await.ok().flatten();
    let here = at.is_socket() || data.is_some_and(|d| std::path::Path::new(&d).exists());
    let gone = || std::fs::metadata(&program).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    if here && gone() {
        checks.advised(
            "archiving",
            Level::Problem,
            format!("archive_command calls {program}, which is not there: nothing is archived, and the log piles up in pg_wal"),
            archive_advice(key),
        );
    }
}

/// The other repository that `archive_command` stores to, if it is another.
fn another(repository: &Repository, command: &str) -> Option<String> {
    let to = unheld::elsewhere(repository, command)?;
    // A copy has the same id, and what is stored in it is not here.
    let copy = |r: &Repository| r.is_copy().unwrap_or(false);
    let same = Repository::open(&to).is_ok_and(|r| r.id() == repository.id() && copy(&r) == copy(repository));
    (!same).then_some(to)
}

fn clock(e: &exposure::Exposure) -> String {
    format!("{}{}", if e.at_most { "at most " } else { "" }, format_clock(e.exposure))
}

/// Whether each copy is there, is one of this repository, and is as new. A copy is not read through: `backup copy` does that.
fn copies(invocation: &Invocation, repository: &Repository, catalog: &Catalog, checks: &mut Checks) {
    const AREA: &str = "copy";
    let heads = invocation.config.settings.catalog_heads.as_ref();
    for place in &invocation.config.settings.repository_copies {
        let shown = place.split_once('?').map_or(place.as_str(), |(short, _)| short);
        let mut look = || -> Result<Option<String>> {
            let copy = Repository::open(place)?;
            if copy.id() != repository.id() {
                return Ok(Some("holds another repository".into()));
            }
            let entries =
                copy.store().list("catalog/")?.iter().filter(|e| catalog::seq_of(&e.name).is_some()).count() as u64;
            for (id, why) in heads.map(|h| damage::noted(h, &copy)).transpose()?.unwrap_or_default() {
                checks.problem(
                    AREA,
                    format!("{shown}: backup {id}  {why}"),
                    "breakglass backup copy mends what is whole here",
                );
            }
            let behind = catalog.head.seq.saturating_sub(entries);
            Ok((behind > 0).then(|| format!("is {behind} entries of the catalog behind")))
        };
        match look() {
            Ok(None) => checks.good(AREA, format!("{shown} is up to date")),
            Ok(Some(what)) => checks.warning(AREA, format!("{shown} {what}"), "breakglass backup copy"),
            Err(e) => checks.error(AREA, &e),
        }
    }
}

/// The command that archives into our repository, as the server can run it whatever its working directory.
fn archive_to(repository: &Repository) -> Result<String> {
    let url = repository.store().url();
    let place = match url.contains("://") {
        true => url,
        false => std::path::absolute(&url).usage(|| format!("{url:?} is not a folder"))?.display().to_string(),
    };
    // As another process finds it: `/proc/self/exe` would be that one's own.
    wal::archive_command(&own_path()?, &place, Some(&repository.key_id()))
}

/// Whoever else makes the backups: whether it answers, whose they are, and what could be recovered from them.
async fn elsewhere(invocation: &Invocation, of: Option<&Identity>, checks: &mut Checks) {
    const AREA: &str = "repository";
    let config = &invocation.config;
    let scratch = std::env::temp_dir();
    let asked = async {
        let recovery = open_as(config.settings.backend, &config.settings, &config.secrets, scratch)?;
        let cluster = recovery.cluster()?;
        Ok::<_, Error>((recovery.place(), cluster, recovery.range(None).await?))
    };
    let (place, cluster, ranges) = match asked.await {
        Ok(said) => said,
        Err(e) => return checks.error(AREA, &e),
    };
    checks.good(AREA, format!("{place} answers"));
    if let (Some(cluster), Some(id)) = (cluster, of)
        && cluster != id.system_identifier
    {
        checks.problem(
            AREA,
            format!("holds the log of system {cluster}, the database is system {}", id.system_identifier),
            "one repository holds one cluster: name the right one",
        );
    }
    for range in &ranges {
        for hole in &range.holes {
            checks.problem(
                AREA,
                format!("the log has a hole, {} to {}: {}", hole.first, hole.last, hole.why),
                "points behind it cannot be recovered: take a full backup now",
            );
        }
        range.notes.iter().for_each(|note| checks.good(AREA, note.clone()));
    }
    match newest_backup(&ranges) {
        None => checks.problem(AREA, "names no backup with a time", "breakglass backup list; breakglass pitr range"),
        Some((at, id)) => {
            let age = Time::from_system(SystemTime::now()).since(at);
            let limit = Duration::from_secs(config.settings.policy.backup_max_age_s);
            let what = format!("newest backup {id}, {} old", format_clock(age));
            match age > limit {
                true => {
                    checks.problem(AREA, too_old(&what, limit), "take one, and see why the scheduled one did not run")
                }
                false => checks.good(AREA, what),
            }
        }
    }
}

fn too_old(what: &str, limit: Duration) -> String {
    format!("{what}; policy.backup_max_age is {}", format_clock(limit))
}

/// Who a repository is sealed for, and whether anybody else would be refused (`backup.recipients`).
fn sealed_for(invocation: &Invocation, key: &Key, keys: &KeyFile, checks: &mut Checks) {
    const AREA: &str = "repository";
    let (repository, pins) = (&key.repository, &invocation.config.settings.recipients);
    let many = format!("sealed for key {} and {} more recipients", repository.key_id(), keys.recipients());
    let line = pinned::line(&pinned::sealed_for(repository, keys));
    // What nobody has checked is recommended to nobody.
    let ours = matches!(key.known, Known::Ours);
    match pinned::stranger(pins, repository) {
        None if !pins.is_empty() => checks.good(AREA, format!("{many}, all named by backup.recipients")),
        None if ours => checks.advised(
            AREA,
            Level::Good,
            format!("{many}; backup.recipients is not set, so nobody else is refused"),
            vec![format!("to refuse anybody else, {line}")],
        ),
        None => {}
        Some(e) if ours => checks.error(AREA, &e.hint(format!("if all of them are yours, {line}"))),
        Some(e) => checks.error(AREA, &e),
    }
}

/// Segments that lie there and cannot be used, or are not the ones that were read: holes that no name shows.
fn segments(repository: &Repository, unlocked: Option<&Unlocked>, checks: &mut Checks) -> Result<()> {
    const AREA: &str = "repository";
    let seen = Segments::look(repository, unlocked)?;
    for bad in seen.unusable_sentences() {
        checks.problem(AREA, format!("unusable WAL: {bad}"), MEND);
    }
    if let Some(exchanged) = seen.exchanged_sentence() {
        checks.problem(AREA, format!("exchanged WAL: {exchanged}"), "compare it with a copy before you rely on it");
    }
    if let Some(made) = &seen.tablespace {
        checks.problem(AREA, made.sentence(), "breakglass pitr range says what can be recovered to");
    }
    if let Some(left) = seen.not_looked_at() {
        checks.warning(AREA, left, "breakglass wal index reads them once, backup verify --all every time");
    }
    Ok(())
}

/// Whether it opens, whose it is, and what could be restored from it.
fn repository(invocation: &Invocation, url: &str, key: &Key, of: Option<&Identity>, checks: &mut Checks) -> Result<()> {
    const AREA: &str = "repository";
    let repository = &key.repository;
    checks.good(AREA, format!("{url} opens"));
    if let Some(what) = mounted_read_only(&repository.store().url()) {
        // Who only looks may have it so on purpose.
        let level = if invocation.config.settings.read_only { Level::Warning } else { Level::Problem };
        let advice = "see why (dmesg: a disk with errors is remounted so), then mount -o remount,rw";
        checks.advised(AREA, level, what, vec![advice.into()]);
    } else if let Some(full) = disk_full(&repository.store().url()) {
        checks.problem(AREA, full, "breakglass backup cleanup --dry-run says what may go; or give it more room");
    }
    match &key.known {
        Known::Stranger(e) => checks.error(AREA, e),
        Known::Unknown => {
            let what = format!("nothing here says that key {}, which it is written for, is yours", repository.key_id());
            checks.advised(AREA, Level::Warning, what, key.known.advice().into_iter().collect());
        }
        Known::Ours | Known::Since(_) => {}
    }
    let live = of.and_then(|id| id.system_identifier.parse().ok());
    let (cluster, refused) = (repository.cluster()?, live.map(|id| repository.of_cluster(id)).and_then(Result::err));
    if let Some(e) = refused.as_ref().filter(|e| e.hints.iter().any(|h| h == MEND_CLUSTER)) {
        checks.error(AREA, e);
    } else if let (Some(cluster), Some(id)) = (cluster, of)
        && cluster.system_identifier.to_string() != id.system_identifier
    {
        checks.problem(
            AREA,
            format!(
                "holds the log of system {}, the database is system {}",
                cluster.system_identifier, id.system_identifier
            ),
            "one repository holds one cluster: name the right one",
        );
    }
    for t in &wal::status(repository)?.timelines {
        for hole in &t.holes {
            checks.problem(
                AREA,
                format!("timeline {} has a hole, {} to {}: {}", t.timeline, hole.first, hole.last, hole.why),
                "points behind it cannot be recovered: take a base backup now (breakglass backup create)",
            );
        }
    }
    let keys = repository.key_file()?;
    sealed_for(invocation, key, &keys, checks);
    if keys.recipients() == 0 {
        checks.warning(
            AREA,
            "has no second recipient: who loses BACKUP_ENCRYPTION_KEY loses every backup",
            "make a second key and keep it elsewhere: breakglass backup rotate-key --new-recipient FILE",
        );
    }
    let secrets = &invocation.config.secrets;
    let secret = [REPOSITORY_KEY, REPOSITORY_IDENTITY].iter().any(|name| secrets.get(name).is_some());
    if !secret || matches!(key.known, Known::Stranger(_)) {
        return segments(repository, None, checks);
    }
    let unlocked = repository.unlock_with(secrets)?;
    segments(repository, Some(&unlocked), checks)?;
    let mut unread = Vec::new();
    let heads = invocation.config.settings.catalog_heads.as_ref();
    let catalog = damage::load(&unlocked, heads, &mut |line| unread.push(line.to_string()))?;
    for line in unread {
        checks.warning(AREA, line, "breakglass backup verify --all");
    }
    if let Some(e) = catalog.damage() {
        checks.error(AREA, &e);
    }
    // With the database's word on it, it was said above.
    if let Some(e) = unlocked.wrong_cluster(&catalog, true)?.filter(|_| refused.is_none()) {
        checks.error(AREA, &e);
    }
    for line in catalog.stray_lines() {
        checks.warning(AREA, line, "ls the folder `catalog` of the repository");
    }
    for line in catalog.damaged_lines() {
        checks.problem(
            AREA,
            line,
            "put what is damaged back from a copy and verify again, or take another backup and give this one up (backup cleanup \
             --give-up ID)",
        );
    }
    if let Some(heads) = &invocation.config.settings.catalog_heads {
        match Anchors::new(heads).known(&unlocked) {
            Ok(Some(anchor)) if !catalog.holds(&anchor.head) => checks.error(AREA, &anchor.against(&catalog)),
            Ok(Some(anchor)) => {
                checks.good(AREA, format!("the catalog goes on from what was seen {}", anchor.at.date_hms()))
            }
            Ok(None) => {}
            Err(e) => checks.error(AREA, &e),
        }
    }
    copies(invocation, repository, &catalog, checks);
    let now = Time::from_system(SystemTime::now());
    if let Some(behind) = dates::behind(&catalog, now) {
        checks.problem(AREA, behind, CLOCK);
    }
    for line in dates::doubt_lines(&catalog.backups, now) {
        checks.warning(
            AREA,
            line,
            "cleanup removes it only by --give-up ID; which one is the newest says the catalog's order",
        );
    }
    let Some(newest) = catalog.newest(BackupKind::Physical) else {
        checks.problem(AREA, "holds no base backup", "breakglass backup create");
        return Ok(());
    };
    if let Some(why) = dates::doubt(newest, now) {
        let what = format!("newest base backup {}: how old it is is not known: {why}", newest.manifest.id);
        checks.problem(AREA, what, "put the clocks right, then breakglass backup create");
        return Ok(());
    }
    let age = now.since(newest.manifest.finished_at);
    let what = format!("newest base backup {}, {} old", newest.manifest.id, format_clock(age));
    let limit = Duration::from_secs(invocation.config.settings.policy.backup_max_age_s);
    match newest.verified_at {
        _ if age > limit => checks.problem(
            AREA,
            too_old(&what, limit),
            "breakglass backup create, and see why the scheduled one did not run",
        ),
        Some(at) => checks.good(AREA, format!("{what}, verified {}", at.date_hms())),
        // Said above.
        None if newest.damaged.is_some() => {}
        None => checks.problem(AREA, format!("{what}, never verified"), "breakglass backup verify"),
    }
    Ok(())
}
