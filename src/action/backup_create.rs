//! `breakglass backup create`: a dump or a base backup into the repository, read back whole before it counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::reach::{self, Reporter};
use super::{Action, Ctx, Done, Output, Preview, Spec, backup_dump, backup_files, backup_index};
use crate::backup::anchor::head_to_text;
use crate::backup::base::{store_base, verify_written};
use crate::config::settings::REPOSITORY_KEY;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::CleanText;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::postgres::configuration::configuration;
use crate::postgres::{BaseBackup, user};
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// The action.
pub struct BackupCreate;

impl Action for BackupCreate {
    fn spec(&self) -> Spec {
        Spec {
            name: "backup create",
            about: "Take a backup into the repository and read every byte of it back",
            risk: Risk::Change,
            fallback: "pg_basebackup -D DIR -Ft -X none -c fast on the database host (or pg_dump -Fc -f FILE, and pg_dumpall \
                       --globals-only), then copy it to a safe place.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("create")
            .arg(Arg::new("physical").long("physical").action(ArgAction::SetTrue).help(
                "A base backup of the whole cluster, for point-in-time recovery; its log must be archived (default)",
            ))
            .arg(
                Arg::new("logical")
                    .long("logical")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("physical")
                    .help("A dump of the database, with the roles of its server"),
            )
            .arg(
                Arg::new("schema-only")
                    .long("schema-only")
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(["physical", "logical"])
                    .help("A dump of the database's definitions, without rows"),
            )
            .arg(
                Arg::new("table")
                    .long("table")
                    .value_name("PATTERN")
                    .action(ArgAction::Append)
                    .conflicts_with("physical")
                    .help("Only these tables (NAME or SCHEMA.NAME, with * and ?), with the types, functions and sequences they use; may be repeated"),
            )
            .arg(
                Arg::new("tier")
                    .long("tier")
                    .value_name("TIER")
                    .action(ArgAction::Append)
                    .value_parser(crate::postgres::tiers::NAMES)
                    .conflicts_with_all(["physical", "schema-only", "table"])
                    .help("A dump with the rows of this tier's tables only, and all definitions (backup.tiers); may be repeated"),
            )
            .arg(
                Arg::new("files")
                    .long("files")
                    .value_name("DIR")
                    .action(ArgAction::Append)
                    .value_parser(clap::value_parser!(std::path::PathBuf))
                    .conflicts_with_all(["physical", "logical", "schema-only", "table", "tier"])
                    .help("This folder, and what the machine is like, without secrets; may be repeated"),
            )
            .arg(
                Arg::new("fingerprints")
                    .long("fingerprints")
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(["physical", "schema-only"])
                    .help("Also sum the hashes of every table's rows, to be compared after each restore; reads them twice"),
            )
            .arg(Arg::new("label").long("label").value_name("TEXT").help("A label to find it by"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let m = super::parse_matches(self.arguments(), args)?;
            if let Some(folders) = folders(&m) {
                let lines = folders.iter().map(|f| format!("reads the folder {}", f.display())).collect();
                return Ok(Preview { lines, ..Preview::default() });
            }
            let dump = backup_dump::wanted(&m).is_some();
            let at = reach::database(ctx)?;
            let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(30)).await?;
            let identity = crate::postgres::identity(&mut c, &at).await?;
            let bytes = cluster_bytes(&mut c).await?;
            let lines = vec![
                match dump {
                    true => format!("reads {at} with pg_dump"),
                    false => format!("reads all of {at} with pg_basebackup, about {} MB", bytes / 1_000_000),
                },
                format!("writes it, encrypted, to {}", ctx.settings.repository.as_deref().unwrap_or("(no repository)")),
                "reads it back and checks every byte".into(),
            ];
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: identity.clone() }];
            Ok(Preview { lines, target: Some(identity), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let m = super::parse_matches(self.arguments(), args)?;
            // Before a server is asked for anything.
            if let Some(key) = ctx.secrets.get(REPOSITORY_KEY) {
                crate::backup::keys::check_passphrase(key)?;
            }
            if let Some(folders) = folders(&m) {
                return backup_files::create(ctx, folders, m.get_one::<String>("label").cloned()).await;
            }
            match backup_dump::wanted(&m) {
                Some(wanted) => backup_dump::create(ctx, wanted).await,
                None => create(ctx, m.get_one::<String>("label").cloned()).await,
            }
        })
    }
}

/// Folders to store, when it is files that are wanted.
fn folders(m: &clap::ArgMatches) -> Option<Vec<std::path::PathBuf>> {
    m.get_many::<std::path::PathBuf>("files").map(|all| all.cloned().collect())
}

/// A base backup ends only when its log is archived, and waits for ever where that fails: said once for each failing segment.
async fn say_failing_archiver(mut c: sqlx::PgConnection, out: Arc<dyn Output>) {
    let sql = "SELECT CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal END \
               FROM pg_catalog.pg_stat_archiver";
    let mut said = None;
    // A server that does not answer says so to the backup itself.
    while let Ok(failing) = sqlx::query_scalar::<_, Option<String>>(sql).fetch_one(&mut c).await {
        if failing.is_some() && failing != said {
            out.line(&format!(
                "archiving fails at {}: the backup ends only when the log is archived; the server's log says why, \
                 `breakglass wal status` what it means; stop the backup with ctrl-C, nothing is kept of it then",
                failing.as_deref().unwrap_or_default()
            ));
            said = failing;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn cluster_bytes(c: &mut sqlx::PgConnection) -> Result<u64> {
    let sql = "SELECT sum(pg_database_size(oid))::int8 FROM pg_database";
    let bytes: i64 =
        sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| crate::postgres::connect::query_error(sql, &e))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// One stream carries one tablespace: others are named before anything is read.
async fn one_tablespace(c: &mut sqlx::PgConnection) -> Result<()> {
    let more = crate::postgres::more_tablespaces(c).await?;
    if more.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = more.iter().map(|n| format!("{n:?}")).collect();
    Err(Error::refused("cannot take a base backup of this cluster")
        .why(format!("it has more than one tablespace: {}", names.join(", ")))
        .hint("move what is in them: ALTER TABLE ALL IN TABLESPACE … SET TABLESPACE pg_default; then DROP TABLESPACE")
        .hint("a dump of each database carries them: breakglass backup create --help"))
}

/// A base backup ends when its log is archived: where archiving is on and nothing archives, it would wait for ever.
async fn can_archive(c: &mut sqlx::PgConnection) -> Result<()> {
    // Without the log of its own time a base backup is not consistent. On a standby it is the primary that archives; `wal receive`
    // needs no archiver.
    let sql = "SELECT current_setting('archive_mode') = 'off' AND NOT pg_is_in_recovery() AND NOT EXISTS \
               (SELECT FROM pg_catalog.pg_stat_replication WHERE application_name = 'pg_receivewal')";
    let off: bool =
        sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| crate::postgres::connect::query_error(sql, &e))?;
    if off {
        return Err(Error::refused("cannot take a base backup of this cluster")
            .why("archive_mode is off, and nothing receives its log: without the log a base backup cannot become consistent")
            .hint("ALTER SYSTEM SET archive_mode = 'on', and the archive_command that breakglass doctor prints; then restart the server.")
            .hint("Or let breakglass wal receive run: it needs no restart.")
            .hint("A dump needs no log: breakglass backup create --logical"));
    }
    // A standby archives, and waits for it, only with `always`.
    let sql = "SELECT current_setting('archive_mode') = ANY (CASE WHEN pg_is_in_recovery() THEN '{always}' ELSE '{on,always}' END::text[]) \
               AND coalesce(current_setting('archive_command', true), '') = '' \
               AND coalesce(current_setting('archive_library', true), '') = ''";
    let nothing: bool =
        sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| crate::postgres::connect::query_error(sql, &e))?;
    if !nothing {
        return Ok(());
    }
    Err(Error::refused("cannot take a base backup of this cluster")
        .why("archive_mode is on and archive_command is empty: the server would wait for ever for the end of its log")
        .hint("breakglass doctor prints the archive_command; a dump needs none: breakglass backup create --logical"))
}

async fn create(ctx: &Ctx, label: Option<String>) -> Result<Done> {
    let at = reach::database(ctx)?;
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(30)).await?;
    let identity = crate::postgres::identity(&mut c, &at).await?;
    super::target::expected(ctx, &identity, true)?;
    reach::say_clock(ctx, &mut c).await?;
    let expected = cluster_bytes(&mut c).await?;
    one_tablespace(&mut c).await?;
    can_archive(&mut c).await?;
    let configuration = match configuration(&mut c).await {
        Ok(files) => Some(files),
        Err(e) => {
            ctx.out.line(&format!("without the server's configuration files: {}", CleanText::text(&e.why)));
            None
        }
    };
    let (unlocked, new) = reach::unlocked_or_new(ctx, Some(&identity.system_identifier)).await?;
    let (kept, server) = (unlocked.clone(), at.clone());
    let programs = reach::programs(ctx, Some(identity.version_num / 10_000))?;
    // Over a socket with peer authentication only the server's own user may connect.
    let run_as = if at.is_socket() { user::for_server(ctx.settings.run_as.as_deref())? } else { None };
    let (out, cancel) = (ctx.out.clone(), ctx.cancel.clone());
    ctx.out.line(&format!("base backup of {at}, timeline {}", identity.timeline));
    // Reading, sealing and verifying block: off the loop they go, so that a cancel is still heard.
    let watcher = tokio::spawn(say_failing_archiver(c, ctx.out.clone()));
    let work = tokio::task::spawn_blocking(move || -> Result<_> {
        let reporter = Reporter::new(&*out);
        let begun = Instant::now();
        let mut backup = BaseBackup::start(&programs, &at, label.as_deref().unwrap_or("breakglass"), run_as.as_ref())?;
        let (ended, watched) = (backup.ended_by(&cancel), cancel.clone());
        let stored = {
            let mut progress = |bytes: u64| {
                reporter.phase(&Phase::bytes("store", bytes, Some(expected.max(bytes)), begun));
                check_cancel(&watched, "the backup was not taken")
            };
            store_base(&unlocked, &mut backup, label.as_deref(), &mut progress)
        };
        // What pg_basebackup says explains a stream that broke off better than the break itself.
        let finished = backup.finish();
        drop(ended);
        let pending = match (stored, finished) {
            (Ok(pending), Ok(_)) => pending,
            // Except when it was our side that broke off: what the repository says of a full disk is the cause.
            (Err(e), Err(_)) if matches!(e.kind, ErrorKind::Target | ErrorKind::Refused) => {
                check_cancel(&cancel, "the backup was not taken")?;
                return Err(e);
            }
            (_, Err(e)) | (Err(e), Ok(_)) => {
                check_cancel(&cancel, "the backup was not taken")?;
                return Err(e);
            }
        };
        check_cancel(&cancel, "the backup was not taken")?;
        let pending = match &configuration {
            Some(files) => pending.with_configuration(files)?,
            None => pending,
        };
        let manifest = pending.commit()?;
        out.line(&format!("stored {} in {:.1} s, reading it back", manifest.id, begun.elapsed().as_secs_f64()));
        let (begun, plain) = (Instant::now(), manifest.plain_bytes());
        let verified = verify_written(&unlocked, &manifest, &mut |bytes| {
            reporter.phase(&Phase::bytes("verify", bytes, Some(plain), begun));
            check_cancel(&cancel, "the backup is stored but was not read back")
        })?;
        verified.warning().iter().for_each(|line| out.line(line));
        Ok((manifest, verified))
    });
    let worked = work.await;
    watcher.abort();
    let (manifest, _) = worked.state(|| "the backup's thread ended early".into())??;
    backup_index::refresh(ctx, &kept, &server).await;
    let head = head_to_text(&super::backup_copy::after_backup(ctx, &kept).await?);
    let bytes = manifest.stored_bytes();
    let summary = format!(
        "backup {} on timeline {}: {} MB stored, every byte verified; catalog head {head}",
        manifest.id,
        identity.timeline,
        bytes / 1_000_000
    );
    let document = json!({
        "catalog_head": head, "id": manifest.id, "bytes": bytes, "timeline": identity.timeline, "verified": true,
        "new_repository": new,
    });
    let timeline = manifest.timeline.ok_or_else(|| Error::state("the backup names no timeline"))?;
    Ok(Done::ok(summary)
        .json(document)
        .fact(Event::TargetSeen { role: "source".into(), identity })
        .fact(Event::BackupTaken { id: manifest.id.clone(), bytes, timeline, verified: true, taken_at: None }))
}
