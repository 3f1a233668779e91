//! `breakglass backup create --logical|--schema-only`: a dump at one snapshot, with roles and an inventory, into the
//! repository and read back.

use std::io::Read;
use std::time::Instant;

use clap::ArgMatches;
use serde_json::json;

use super::reach::{self, Reporter};
use super::{Ctx, Done};
use crate::backup::anchor::head_to_text;
use crate::backup::base::verify_written;
use crate::backup::catalog::{BackupKind, Manifest};
use crate::backup::logical::{Source, store_dump};
use crate::backup::repository::Unlocked;
use crate::config::settings::Tiers;
use crate::error::{Context, Error, Result};
use crate::model::event::Event;
use crate::postgres::connect::query_error;
use crate::postgres::dump_archive::Scanning;
use crate::postgres::inventory::{Inventory, TableRecord, begin_snapshot, count_rows, inventory, schemas};
use crate::postgres::table_needs::Need;
use crate::postgres::table_pattern::Chosen;
use crate::postgres::{Client, Database, ToolStream, table_needs, table_pattern, tiers, user};
use crate::process::UnixUser;
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// What was asked for.
pub struct Wanted {
    kind: BackupKind,
    label: Option<String>,
    tables: Vec<String>,
    tiers: Vec<String>,
    fingerprints: bool,
}

/// What was asked for, when it is a dump.
pub fn wanted(m: &ArgMatches) -> Option<Wanted> {
    let tables: Vec<String> = m.get_many::<String>("table").map(|t| t.cloned().collect()).unwrap_or_default();
    let tiers: Vec<String> = m.get_many::<String>("tier").map(|t| t.cloned().collect()).unwrap_or_default();
    let kind = match (m.get_flag("logical"), m.get_flag("schema-only")) {
        (_, true) => BackupKind::SchemaOnly,
        (false, false) if tables.is_empty() && tiers.is_empty() => return None,
        _ => BackupKind::Logical,
    };
    Some(Wanted {
        kind,
        label: m.get_one::<String>("label").cloned(),
        tables,
        tiers,
        fingerprints: m.get_flag("fingerprints"),
    })
}

const NOT_TAKEN: &str = "the dump was not taken";

/// The programs and the user that make a dump.
struct Tools {
    client: Client,
    run_as: Option<UnixUser>,
    at: Database,
}

impl Tools {
    fn stream(&self, program: &'static str, args: &[String]) -> Result<ToolStream> {
        let mut c = self.client.command(program, self.run_as.as_ref());
        c.args(args);
        for (name, value) in self.at.tool_env() {
            c.env(name, value.expose());
        }
        ToolStream::start(program, c)
    }
    /// All that a program prints; `what` it is, for an error. It is ended by `cancel`.
    fn read(
        &self,
        program: &'static str,
        args: &[String],
        what: &str,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<Vec<u8>> {
        let mut stream = self.stream(program, args)?;
        let ended = stream.ended_by(cancel);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).target(|| format!("reading {what}"))?;
        let finished = stream.finish();
        drop(ended);
        check_cancel(cancel, NOT_TAKEN)?;
        finished.map(|_| bytes)
    }
}

/// Takes the dump.
///
/// # Errors
/// Nothing suitable to dump with, not reachable, not allowed, or it cannot be stored; the catalog is then as before.
pub async fn create(ctx: &Ctx, wanted: Wanted) -> Result<Done> {
    let at = reach::database(ctx)?;
    let (mut c, snapshot) = begin_snapshot(&at).await?;
    let identity = crate::postgres::identity(&mut c, &at).await?;
    super::target::expected(ctx, &identity, true)?;
    reach::say_clock(ctx, &mut c).await?;
    let client = Client::find(ctx.settings.bin_dir.as_deref(), identity.version_num / 10_000)?;
    let system_identifier = identity
        .system_identifier
        .parse()
        .map_err(|e| Error::target(format!("the server says it is {:?}", identity.system_identifier)).why(e))?;
    // Named one by one, partitions along: what is counted is what is dumped. Before anything is made.
    let chosen = match wanted.tables.is_empty() {
        true => None,
        false => {
            let named = table_pattern::resolve(&mut c, &wanted.tables).await?;
            Some(with_needs(&mut c, named).await?)
        }
    };
    // Deriving the key takes a core's tenth of a second: the server is asked meanwhile.
    let asked = async {
        let mut contents = inventory(&mut c).await?;
        let tiers = by_tier(ctx, &wanted, &mut contents)?;
        Ok::<_, Error>((contents, tiers, is_superuser(&mut c).await?, size_of(&mut c).await?))
    };
    let opened = reach::unlocked_or_new(ctx, Some(&identity.system_identifier));
    let (unlocked, asked) = match wanted.tiers.is_empty() {
        true => tokio::join!(opened, asked),
        // A tier that is not there as it is named is refused before a repository is made.
        false => {
            let asked = asked.await?;
            (opened.await, Ok(asked))
        }
    };
    let ((unlocked, new), (mut contents, tiers, superuser, expected)) = (unlocked?, asked?);
    let source = Source {
        kind: wanted.kind,
        label: wanted.label.clone(),
        system_identifier,
        postgres_version: format!("{}.{}", identity.version_num / 10_000, identity.version_num % 10_000),
        database: identity.database.clone(),
        dump_version: client.version(),
        part: match (wanted.tiers.is_empty(), wanted.tables.is_empty()) {
            (false, _) => Some(format!("tier {}", wanted.tiers.join(", "))),
            (true, false) => Some(format!("tables {}", wanted.tables.join(", "))),
            (true, true) => None,
        },
    };
    // Over a socket with peer authentication only the server's own user may connect.
    let run_as = if at.is_socket() { user::for_server(ctx.settings.run_as.as_deref())? } else { None };
    ctx.out.line(&format!("{} dump of {at} with pg_dump {}", source.kind.word(), client.version()));
    let tools = Tools { client, run_as, at };
    let mut args: Vec<String> = ["-Fc", "-Z0", "--no-password", "--lock-wait-timeout=60s", "--quote-all-identifiers"]
        .map(String::from)
        .to_vec();
    args.push(format!("--snapshot={snapshot}"));
    if source.kind == BackupKind::SchemaOnly {
        args.push("--schema-only".into());
    }
    let mut definitions = None;
    let (mut lacking, mut not_followed) = (Vec::new(), Vec::new());
    if let Some((chosen, needs)) = chosen {
        let (relations, needs): (Vec<Need>, Vec<Need>) = needs.into_iter().partition(Need::is_relation);
        lacking = relations.into_iter().map(|n| n.what).collect();
        if !lacking.is_empty() {
            ctx.out.line(&format!(
                "WARNING: this dump does not come back by itself: what was chosen is made from {}; choose that, too (--table), or dump the \
                 whole database",
                lacking.join(", ")
            ));
        }
        if !needs.is_empty() {
            let names: Vec<&str> = needs.iter().map(|n| n.what.as_str()).collect();
            ctx.out.line(&format!("with what these tables need: {}", names.join(", ")));
            not_followed = needs.iter().filter(|n| n.body).map(|n| n.what.clone()).collect();
            table_needs::not_followed(&needs).iter().for_each(|line| ctx.out.line(line));
            // No table among them: other tables need not even be readable.
            let mut only = args.clone();
            only.extend(["--schema-only", "--exclude-table=*.*"].map(String::from));
            definitions = Some(only);
        }
        let along: Vec<String> = chosen.iter().filter(|k| k.along).map(Chosen::sql).collect();
        if !along.is_empty() {
            let along = table_needs::some_of(&along);
            ctx.out.line(&format!("along come the rows of {along}: they are rows of what was chosen"));
        }
        let names = needs.iter().filter_map(|n| n.schema.clone());
        let schemas_of: Vec<String> = chosen.iter().map(|k| k.schema().to_string()).chain(names).collect();
        contents.needs = needs;
        contents.tables.retain(|t| chosen.iter().any(|k| k.oid == t.oid));
        // pg_dump leaves the schemas of chosen tables out.
        contents.schemas = schemas(&mut c, &schemas_of).await?;
        args.extend(chosen.iter().map(|k| format!("--table={}", k.sql())));
    }
    args.extend(tiers.args);
    let (out, cancel) = (ctx.out.clone(), ctx.cancel.clone());
    let kept = unlocked.clone();
    let total = if source.kind == BackupKind::SchemaOnly { None } else { Some(expected) };
    let (send, counted) = tokio::sync::oneshot::channel::<Result<Inventory>>();
    let work = tokio::task::spawn_blocking(move || -> Result<(Manifest, u64)> {
        let reporter = Reporter::new(&*out);
        take(&tools, &args, definitions.as_deref(), superuser, &unlocked, &source, total, &reporter, &cancel, counted)
    });
    // Rows are counted in the snapshot's own transaction, which pg_dump needs open to its end anyway.
    let count = async {
        if wanted.kind == BackupKind::Logical {
            let (only, fingerprints) = (contents.only_tiers.clone(), wanted.fingerprints);
            let rows = |t: &TableRecord| only.is_empty() || t.tier.as_ref().is_some_and(|tier| only.contains(tier));
            count_rows(&mut c, &mut contents.tables, fingerprints, rows, |_, _| check_cancel(&ctx.cancel, NOT_TAKEN))
                .await?;
        }
        Ok(contents)
    };
    // It may wait for a lock; nobody waits for it who wants to stop.
    let count = async {
        tokio::select! {
            counted = count => counted,
            () = ctx.cancel.cancelled() => Err(Error::interrupted("stopped on request: the dump was not taken")),
        }
    };
    let (_, done) = tokio::join!(async { send.send(count.await) }, work);
    drop(c);
    let (manifest, plain) = done.state(|| "the backup's thread ended early".into())??;
    let head = head_to_text(&super::backup_copy::after_backup(ctx, &kept).await?);
    let bytes = manifest.stored_bytes();
    let summary = format!(
        "backup {} of database {:?}: {} MB in {} MB stored, every byte verified; catalog head {head}",
        manifest.id,
        identity.database,
        plain / 1_000_000,
        bytes / 1_000_000
    );
    let document = json!({
        "catalog_head": head, "id": manifest.id, "kind": manifest.kind, "database": identity.database, "bytes": bytes, "plain_bytes": plain,
        "verified": true, "new_repository": new, "lacks": lacking, "not_followed": not_followed,
        "unknown_in_tiers": tiers.unknown,
    });
    let timeline = identity.timeline;
    let done = Done::ok(summary).json(document).fact(Event::TargetSeen { role: "source".into(), identity });
    if !manifest.is_whole() {
        // It is no way back for the whole: what asks for a backup before something is destroyed must not be content with it.
        return Ok(done);
    }
    Ok(done.fact(Event::BackupTaken { id: manifest.id.clone(), bytes, timeline, verified: true, taken_at: None }))
}

/// The chosen tables with the sequences that they use and that belong to no chosen table, and what else they need.
async fn with_needs(c: &mut sqlx::PgConnection, mut chosen: Vec<Chosen>) -> Result<(Vec<Chosen>, Vec<Need>)> {
    let oids: Vec<u32> = chosen.iter().map(|k| k.oid).collect();
    let (sequences, needs): (Vec<Need>, Vec<Need>) =
        table_needs::needs(c, &oids).await?.into_iter().partition(Need::is_sequence);
    for sequence in sequences {
        chosen.push(Chosen::of(c, sequence.oid).await?);
    }
    Ok((chosen, needs))
}

/// What the tiers of the configuration make of a dump.
struct ByTier {
    /// For `pg_dump`.
    args: Vec<String>,
    /// Names of the configuration that no table has.
    unknown: Vec<String>,
}

/// Writes down which tables come first, and, when rows of some tiers alone are wanted, leaves out those of the others. Their
/// definitions stay: what has rows must be able to come back by itself.
///
/// # Errors
/// Refused when a name of a wanted tier, or the whole tier, is not there: a backup that lacks a critical table is none.
fn by_tier(ctx: &Ctx, wanted: &Wanted, contents: &mut Inventory) -> Result<ByTier> {
    let unknown = tiers::assign(&mut contents.tables, &ctx.settings.tiers);
    if wanted.tiers.is_empty() {
        // All rows are in it: that a name is misspelt costs an order, and refusing would cost the backup.
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|n| format!("{n:?}")).collect();
            ctx.out.line(&format!(
                "WARNING: backup.tiers names {}, which is not in the database: put it right in breakglass.toml, or nothing of that \
                 name comes first in a restore, and --tier refuses",
                names.join(", ")
            ));
        }
        return Ok(ByTier { args: Vec::new(), unknown });
    }
    let named = |n: &&String| {
        let Tiers { critical, important } = &ctx.settings.tiers;
        wanted.tiers.iter().any(|t| if t == tiers::NAMES[0] { critical.contains(n) } else { important.contains(n) })
    };
    let missing: Vec<String> = unknown.iter().filter(named).map(|n| format!("{n:?}")).collect();
    if !missing.is_empty() {
        return Err(Error::refused(format!("no table {} in the database", missing.join(", ")))
            .why(format!(
                "backup.tiers names it, and a backup of tier {} without it would be none",
                wanted.tiers.join(", ")
            ))
            .hint("Put the name right in breakglass.toml: \"schema.table\", or \"schema.*\"."));
    }
    for tier in &wanted.tiers {
        if !contents.tables.iter().any(|t| t.tier.as_ref() == Some(tier)) {
            return Err(Error::config(format!("no table is of the tier {tier:?}"))
                .hint("Name its tables in breakglass.toml: [backup.tiers] critical = [\"public.orders\"]"));
        }
    }
    contents.only_tiers.clone_from(&wanted.tiers);
    contents.only_tiers.dedup();
    let left_out = |t: &&TableRecord| t.countable() && !t.tier.as_ref().is_some_and(|tier| wanted.tiers.contains(tier));
    let mut args: Vec<String> =
        contents.tables.iter().filter(left_out).map(|t| format!("--exclude-table-data={}", t.sql())).collect();
    args.push("--no-blobs".into());
    Ok(ByTier { args, unknown })
}

/// Runs `pg_dump` and `pg_dumpall`, stores what they write, and reads it back.
fn take(
    tools: &Tools,
    args: &[String],
    definitions: Option<&[String]>,
    superuser: bool,
    unlocked: &Unlocked,
    source: &Source,
    total: Option<u64>,
    reporter: &Reporter<'_>,
    cancel: &tokio_util::sync::CancellationToken,
    mut counted: tokio::sync::oneshot::Receiver<Result<Inventory>>,
) -> Result<(Manifest, u64)> {
    let begun = Instant::now();
    // It reads the definitions meanwhile, and then waits for its reader.
    let mut dump = tools.stream("pg_dump", args)?;
    // First, because it is small: what a role may not read should be known before an hour of rows.
    let mut globals_args = vec!["--globals-only".to_string(), "--no-password".into(), "--quote-all-identifiers".into()];
    globals_args.push(format!("--database={}", as_conninfo(&source.database)));
    if !superuser {
        reporter.line("roles are kept without their passwords: only a superuser may read those");
        globals_args.push("--no-role-passwords".into());
    }
    let globals = tools.read("pg_dumpall", &globals_args, "the roles", cancel)?;
    let needed = |args: &[String]| {
        tools.read("pg_dump", args, "the definitions that the tables need", cancel).map_err(explained)
    };
    let definitions = definitions.map(needed).transpose()?;

    let ended = dump.ended_by(cancel);
    let mut scanned = Scanning::new(&mut dump);
    let stored = {
        let mut progress = |bytes: u64| {
            reporter.phase(&Phase::bytes("dump", bytes, total.map(|t| t.max(bytes)), begun));
            check_cancel(cancel, NOT_TAKEN)
        };
        store_dump(unlocked, source, &mut scanned, &mut progress)
    };
    let blocks = scanned.finish();
    // What pg_dump says explains an archive that broke off better than the break itself; what the repository says of a
    // full disk explains better than pg_dump, whose reader went away.
    let (stored, finished) = (stored, dump.finish());
    drop(ended);
    // A count that failed ended the transaction, and with it the snapshot that pg_dump then misses.
    if (stored.is_err() || finished.is_err())
        && let Ok(Err(e)) = counted.try_recv()
    {
        return Err(explained(e));
    }
    let pending = match (stored, finished) {
        (Ok(pending), Ok(_)) => pending,
        (Err(e), Err(_)) if e.kind == crate::error::ErrorKind::Target || e.kind == crate::error::ErrorKind::Refused => {
            check_cancel(cancel, NOT_TAKEN)?;
            return Err(e);
        }
        (_, Err(e)) | (Err(e), Ok(_)) => {
            check_cancel(cancel, NOT_TAKEN)?;
            return Err(explained(e));
        }
    };
    reporter.phase(&Phase { name: "count", unit: "tables", text: "counting rows".into(), ..Phase::default() });
    let mut contents = counted.blocking_recv().state(|| "nobody counted the rows".into())??;
    check_cancel(cancel, NOT_TAKEN)?;
    contents.blocks = blocks;
    let manifest = pending.commit(&globals, definitions.as_deref(), &contents)?;
    let plain = manifest.plain_bytes();
    reporter.line(&format!("stored {} in {:.1} s, reading it back", manifest.id, begun.elapsed().as_secs_f64()));
    let begun = Instant::now();
    let verified = verify_written(unlocked, &manifest, &mut |bytes| {
        reporter.phase(&Phase::bytes("verify", bytes, Some(plain), begun));
        check_cancel(cancel, "the backup is stored but was not read back")
    })?;
    verified.warning().iter().for_each(|line| reporter.line(line));
    Ok((manifest, plain))
}

/// A database's name as pg_dumpall takes it: it reads anything with `=` in it as connection parameters.
fn as_conninfo(name: &str) -> String {
    if name.contains('=') || name.contains("://") {
        return format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"));
    }
    name.to_string()
}

/// Adds what to do to what `pg_dump` said.
fn explained(mut error: Error) -> Error {
    for (words, hint) in [
        ("permission denied", "dump as the owner, a superuser, or a role with pg_read_all_data"),
        ("row-level security", "dump as a role with BYPASSRLS: a dump of some rows is not a backup"),
        ("lock", "something holds a lock that conflicts with reading; look at pg_stat_activity"),
    ] {
        if error.why.contains(words) {
            error = error.hint(hint);
        }
    }
    error
}

async fn is_superuser(c: &mut sqlx::PgConnection) -> Result<bool> {
    let sql = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
    sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

async fn size_of(c: &mut sqlx::PgConnection) -> Result<u64> {
    let sql = "SELECT pg_catalog.pg_database_size(current_database())";
    let bytes: i64 = sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
