//! `pitr salvage`: what was committed after the moment, listed and written out of the damaged cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::pitr_verify::{loss_text, measured};
use super::target::{Follow, blocking, database_name, instances_dir, is_recovered, parse_args, seen, which_shadow};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::postgres::{Database, Instance, Stop};
use crate::recovery::loss::Later;
use crate::recovery::promote::open_kept;
use crate::recovery::salvage::salvage;
use crate::recovery::shadow::Shadow;
use crate::recovery::verify;

/// The action `pitr salvage`.
pub struct Salvage;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Folder to write into; must not exist or be empty. Relative to the incident's folder, when there is one
    #[arg(long, value_name = "DIR", default_value = "salvage")]
    out: PathBuf,
    /// Folder of the recovered instance; the incident's by default
    #[arg(long, value_name = "DIR")]
    shadow: Option<PathBuf>,
    /// Data directory of the damaged cluster, when its server is down; the incident knows it by default
    #[arg(long, value_name = "DIR")]
    kept: Option<PathBuf>,
}

impl Action for Salvage {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr salvage",
            about: "List and export what came after the moment, out of the damaged cluster",
            risk: Risk::Read,
            fallback: "Start the damaged cluster isolated and read-only; COPY (SELECT * FROM t WHERE \
                       pg_xact_commit_timestamp(xmin) >= the moment) TO STDOUT CSV HEADER, table by table.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("salvage"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let s = which_shadow(ctx, args.shadow.as_deref()).await?;
            let folder = folder(ctx, &args.out)?;
            let line = format!("writes the rows committed since {} into {}", s.target, folder.display());
            Ok(Preview { lines: vec![line], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

fn folder(ctx: &Ctx, out: &Path) -> Result<PathBuf> {
    match &ctx.incident_dir {
        Some(dir) => Ok(dir.join(out)),
        None => {
            std::path::absolute(out).map_err(|e| Error::usage(format!("{:?} is not a folder", out.display())).why(e))
        }
    }
}

/// The damaged cluster as it can be read: as it runs, or opened for us alone.
struct Opened {
    at: Database,
    /// Started by us, to be stopped again.
    ours: Option<Instance>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(i) = &self.ours {
            // Fast, so that its files are as clean as they were.
            let _ = i.stop(Stop::Fast, Duration::from_secs(120));
        }
    }
}

async fn open(ctx: &Ctx, args: &Args, s: &Shadow) -> Result<Opened> {
    let at = reach::source(ctx)?;
    let live = seen(ctx, &at).await;
    match live {
        // The recovered instance may have taken the place of the damaged one.
        Ok((_, id)) if is_recovered(s, &id) => {}
        Ok(_) => return Ok(Opened { at, ours: None }),
        Err(e) if e.kind == crate::error::ErrorKind::Refused => return Err(e),
        Err(_) => {}
    }
    let kept = args.kept.clone().or_else(|| {
        let (_, kept, _) = ctx.incident.as_ref()?.facts.promoted.as_ref()?;
        Some(PathBuf::from(kept))
    });
    let kept = kept.filter(|k| k.join("PG_VERSION").is_file()).ok_or_else(|| {
        Error::target("the damaged cluster is neither running nor known by its folder")
            .hint("name its data directory with --kept")
    })?;
    let room = match instances_dir(ctx, None) {
        Ok(dir) => dir,
        Err(_) => s.root.clone(),
    }
    .join("kept");
    let user = s.user()?;
    ctx.out.line(&format!("opening the kept cluster {} for reading, isolated", kept.display()));
    let role = s.superuser.clone();
    let instance = blocking(move || {
        let mut i = open_kept(&kept, &room, user)?;
        i.superuser = role;
        Ok(i)
    })
    .await?;
    let at = instance.database(&database_name(ctx));
    Ok(Opened { at, ours: Some(instance) })
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    let s = which_shadow(ctx, args.shadow.as_deref()).await?;
    let folder = folder(ctx, &args.out)?;
    let follow = Follow::new(ctx);
    let opened = open(ctx, args, &s).await?;
    let later = match Later::load(&s.root) {
        Ok(later) => later,
        Err(_) => measured(ctx, &opened.at, &s.database(&database_name(ctx))?, &s, &follow).await?,
    };
    let mut c = verify::open(&opened.at, Duration::from_secs(3600)).await?;
    let out = salvage(&mut c, &later, &folder, &*follow, &ctx.cancel).await?;
    let _ = <sqlx::postgres::PgConnection as sqlx::Connection>::close(c).await;
    blocking(move || {
        drop(opened);
        Ok(())
    })
    .await?;
    ctx.out.line(&loss_text(&later));
    let mut rows = out.new.clone();
    for (table, n) in &out.changed {
        *rows.entry(table.clone()).or_default() += n;
    }
    let total: u64 = out.new.values().sum();
    let changed: u64 = out.changed.values().sum();
    let mut summary = format!("{total} new and {changed} changed rows written to {}", folder.display());
    if later.loss.rows != out.new {
        ctx.out.line("the damaged cluster changed since the loss was measured; these figures are the later ones");
        summary.push_str("; more than was measured before");
    }
    let mut loss = later.loss.clone();
    loss.rows.clone_from(&out.new);
    let json =
        serde_json::json!({"folder": folder, "new": out.new, "changed": out.changed, "files": out.files, "loss": loss});
    let written = Event::SalvageWritten { folder: folder.display().to_string(), rows, files: out.files.clone() };
    Ok(Done::ok(summary).fact(Event::LossMeasured { loss }).fact(written).json(json))
}
