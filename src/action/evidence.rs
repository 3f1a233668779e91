//! `evidence collect|verify`: what the server can tell of whoever is inside, written down and sealed before it is disturbed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args as _, Command};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::target::{now, parse_args, seen};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Context, Error, Result};
use crate::journal::files::{create_dir, write_atomic};
use crate::journal::record::sha256_hex;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::{Digest, Time};

/// Folder below the incident's.
const FOLDER: &str = "evidence/seized";
/// Name of the list of all digests.
const SEAL: &str = "seal.json";
/// Most bytes taken of the end of one log file.
const LOG_LIMIT: u64 = 64 * 1024 * 1024;

/// What is asked: file name and query. Each answers one JSON document.
const QUESTIONS: [(&str, &str); 12] = [
    ("activity", "SELECT a.*, now() AS seen FROM pg_catalog.pg_stat_activity a ORDER BY backend_start"),
    ("locks", "SELECT * FROM pg_catalog.pg_locks"),
    ("roles", "SELECT r.oid, r.*, r.xmin::text AS xid FROM pg_catalog.pg_authid r ORDER BY r.oid"),
    (
        "members",
        "SELECT m.*, m.member::regrole::text AS who, m.roleid::regrole::text AS of FROM pg_catalog.pg_auth_members m",
    ),
    ("settings", "SELECT name, setting, source, sourcefile FROM pg_catalog.pg_settings WHERE source <> 'default'"),
    ("role_settings", "SELECT * FROM pg_catalog.pg_db_role_setting"),
    ("rules", "SELECT * FROM pg_catalog.pg_hba_file_rules"),
    (
        "functions",
        "SELECT p.oid::regprocedure::text AS name, p.proowner::regrole::text AS owner, p.prosecdef, p.prosrc, p.xmin::text AS xid \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')",
    ),
    (
        "triggers",
        "SELECT t.tgrelid::regclass::text AS on, pg_catalog.pg_get_triggerdef(t.oid) AS definition, t.tgenabled, t.xmin::text AS xid \
         FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal",
    ),
    ("extensions", "SELECT * FROM pg_catalog.pg_extension"),
    ("replication", "SELECT * FROM pg_catalog.pg_stat_replication"),
    (
        "log_range",
        "SELECT now() AS seen, pg_catalog.pg_current_wal_lsn()::text AS position, \
           pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) AS segment, a.*, \
           (SELECT json_agg(w ORDER BY w.name) FROM pg_catalog.pg_ls_waldir() w) AS files FROM pg_catalog.pg_stat_archiver a",
    ),
];

/// The list of all digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Format, 1.
    pub v: u32,
    /// When it was sealed.
    pub at: Time,
    /// Whether sessions had been cut before.
    pub after_isolation: bool,
    /// File → SHA-256.
    pub files: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, clap::Args)]
struct CollectArgs {
    /// Folder for the evidence; below the incident's by default
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `evidence collect`.
pub struct Collect;

impl Action for Collect {
    fn spec(&self) -> Spec {
        Spec {
            name: "evidence collect",
            about: "Write down sessions, locks, roles, rules, functions, logs and the range of the log, and seal it all",
            risk: Risk::Read,
            fallback: "psql --csv: pg_stat_activity, pg_locks, pg_authid, pg_auth_members, pg_hba_file_rules, pg_proc, \
                       pg_trigger; copy the logs; sha256sum them; write the sums down elsewhere.",
        }
    }
    fn arguments(&self) -> Command {
        CollectArgs::augment_args(Command::new("collect"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: CollectArgs = parse_args(self.arguments(), args)?;
            let mut lines =
                vec![format!("asks {} and writes into {}", reach::database(ctx)?, place(ctx, &args)?.display())];
            lines.extend(ctx.settings.breach.logs.iter().map(|l| format!("copies {}", l.display())));
            if isolated(ctx) {
                lines
                    .push("WARNING: the suspects were isolated already; what their sessions could tell is gone".into());
            }
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { collect(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

fn isolated(ctx: &Ctx) -> bool {
    ctx.incident.as_ref().is_some_and(|s| s.facts.isolated.is_some())
}

fn place(ctx: &Ctx, args: &CollectArgs) -> Result<PathBuf> {
    let stamp = now().compact();
    match (&args.out, &ctx.incident_dir) {
        (Some(out), _) => std::path::absolute(out).map_err(|e| Error::usage("--out is not a folder").why(e)),
        (None, Some(dir)) if !dir.join(FOLDER).exists() => Ok(dir.join(FOLDER)),
        // A second collection does not touch the first.
        (None, Some(dir)) => Ok(dir.join(format!("{FOLDER}-{stamp}"))),
        (None, None) => {
            Ok(std::env::current_dir().state(|| "there is no current folder".into())?.join(format!("evidence-{stamp}")))
        }
    }
}

async fn collect(ctx: &Ctx, args: &CollectArgs) -> Result<Done> {
    let folder = place(ctx, args)?;
    if folder.exists() {
        return Err(
            Error::refused(format!("{:?} exists already", folder.display())).hint("name a new folder with --out")
        );
    }
    let at = reach::database(ctx)?;
    let (mut c, id) = seen(ctx, &at).await?;
    create_dir(&folder)?;
    let mut files = BTreeMap::new();
    let mut keep = |name: String, bytes: &[u8]| -> Result<()> {
        write_atomic(&folder.join(&name), bytes)?;
        ctx.out.line(&format!("{name:<20} {} bytes", bytes.len()));
        files.insert(name, Digest::new(sha256_hex(bytes)));
        Ok(())
    };
    for (name, query) in QUESTIONS {
        match ask(&mut c, query).await {
            Ok(text) => keep(format!("{name}.json"), text.as_bytes())?,
            // Less rights, an older server: the rest is worth having.
            Err(e) => ctx.out.line(&format!("{name:<20} NOT collected: {}", e.why)),
        }
    }
    for (i, log) in ctx.settings.breach.logs.iter().enumerate() {
        match tail(log) {
            Ok(bytes) => {
                let short = log.file_name().and_then(|n| n.to_str()).unwrap_or("log");
                keep(format!("{}-{short}", i + 1), &bytes)?;
            }
            Err(e) => ctx.out.line(&format!("{} NOT collected: {e}", log.display())),
        }
    }
    let after_isolation = isolated(ctx);
    let seal = Seal { v: 1, at: now(), after_isolation, files: files.clone() };
    let text = serde_json::to_vec_pretty(&seal).state(|| "cannot word the seal".into())?;
    write_atomic(&folder.join(SEAL), &text)?;
    let digest = Digest::new(sha256_hex(&text));
    let shown = match ctx.incident_dir.as_deref().and_then(|d| folder.strip_prefix(d).ok()) {
        Some(inside) => inside.display().to_string(),
        None => folder.display().to_string(),
    };
    let mut facts = vec![Event::TargetSeen { role: "source".into(), identity: id }];
    // Names are relative to the folder of attached files, where that is where they are.
    let base = shown.strip_prefix("evidence/").unwrap_or(&shown).to_string();
    facts.extend(files.iter().map(|(f, d)| Event::EvidenceAdded { file: format!("{base}/{f}"), sha256: d.clone() }));
    facts.push(Event::EvidenceAdded { file: format!("{base}/{SEAL}"), sha256: digest.clone() });
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    facts.push(Event::EvidenceSealed { folder: shown, files: count, seal: digest.clone(), after_isolation });
    let json =
        serde_json::json!({"folder": folder, "files": files, "seal": digest, "after_isolation": after_isolation});
    let mut summary = format!("{count} files sealed");
    if after_isolation {
        ctx.out.line("WARNING: collected only after the suspects were isolated: their sessions are not in it");
        summary.push_str(", but only after isolation: the sessions are not in them");
    }
    // Last and in short rows: whole on a narrow screen, and it is to be written down by hand.
    ctx.out.line("seal, to be written down outside (paper, another system):");
    grouped(digest.as_str()).iter().for_each(|row| ctx.out.line(row));
    Ok(Done { facts, ..Done::ok(summary).json(json) })
}

/// A digest as people copy it: groups of eight characters, four to a row.
pub fn grouped(digest: &str) -> Vec<String> {
    let characters: Vec<char> = digest.chars().collect();
    let groups: Vec<String> = characters.chunks(8).map(|g| g.iter().collect()).collect();
    groups.chunks(4).map(|row| row.join(" ")).collect()
}

async fn ask(c: &mut PgConnection, query: &str) -> Result<String> {
    let sql = format!("SELECT coalesce(json_agg(row_to_json(q)), '[]')::text FROM ({query}) q");
    sqlx::query_scalar(&sql).fetch_one(c).await.map_err(|e| crate::postgres::connect::query_error(query, &e))
}

fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_LIMIT)))?;
    let mut bytes = Vec::new();
    file.take(LOG_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Debug, Clone, clap::Args)]
struct VerifyArgs {
    /// Folder of the evidence; the incident's by default
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The seal as it was written down outside
    #[arg(long, value_name = "SHA256")]
    seal: Option<String>,
}

/// `evidence verify`.
pub struct Verify;

impl Action for Verify {
    fn spec(&self) -> Spec {
        Spec {
            name: "evidence verify",
            about: "Whether every sealed file is as it was collected; exit 1 names what is not",
            risk: Risk::Read,
            fallback: "sha256sum the files and compare with seal.json; sha256sum seal.json and compare with the journal.",
        }
    }
    fn arguments(&self) -> Command {
        VerifyArgs::augment_args(Command::new("verify"))
    }
    fn preview<'a>(&'a self, _: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async { Ok(Preview { lines: vec!["reads the sealed files".into()], ..Preview::default() }) })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: VerifyArgs = parse_args(self.arguments(), args)?;
            let folder = match (&args.folder, &ctx.incident_dir) {
                (Some(folder), _) => folder.clone(),
                (None, Some(dir)) => dir.join(FOLDER),
                (None, None) => {
                    return Err(Error::usage("which evidence is meant is not known").hint("name its folder"));
                }
            };
            let text = std::fs::read(folder.join(SEAL))
                .target(|| format!("cannot read the seal in {:?}", folder.display()))?;
            let digest = sha256_hex(&text);
            // As it was written down: in groups and rows, in any case.
            let typed = args.seal.as_ref().map(|s| s.split_whitespace().collect::<String>().to_lowercase());
            let wanted = typed.or_else(|| journaled(ctx, &folder));
            let mut wrong = Vec::new();
            if wanted.as_ref().is_some_and(|w| *w != digest) {
                wrong.push(format!("{SEAL}: not the one that was sealed"));
            }
            let seal: Seal = serde_json::from_slice(&text).target(|| "the seal cannot be read".into())?;
            for (name, digest) in &seal.files {
                match std::fs::read(folder.join(name)) {
                    Ok(bytes) if sha256_hex(&bytes) == digest.as_str() => {}
                    Ok(_) => wrong.push(format!("{name}: changed")),
                    Err(e) => wrong.push(format!("{name}: {e}")),
                }
            }
            wrong.iter().for_each(|w| ctx.out.line(w));
            let json = serde_json::json!({"files": seal.files.len(), "wrong": wrong, "held_against": wanted});
            let against =
                if wanted.is_some() { "held against the seal on record" } else { "held against its own list only" };
            Ok(match wrong.is_empty() {
                true => Done::ok(format!("{} files are as they were sealed, {against}", seal.files.len())),
                false => Done::check_failed(format!("not as it was sealed: {}", wrong.join("; "))),
            }
            .json(json))
        })
    }
}

/// The seal of this folder as the journal has it.
fn journaled(ctx: &Ctx, folder: &Path) -> Option<String> {
    let (state, dir) = (ctx.incident.as_ref()?, ctx.incident_dir.as_ref()?);
    let inside = folder.strip_prefix(dir.join("evidence")).ok()?.join(SEAL).display().to_string();
    state.evidence.iter().rev().find(|(f, _)| *f == inside).map(|(_, d)| d.as_str().to_string())
}
