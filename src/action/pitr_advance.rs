//! `pitr advance`: the recovered instance moves on to a later moment. `pitr discard`: it is thrown away.

use std::path::PathBuf;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::along::of_cluster;
use super::moment::{Moment, moment};
use super::pitr_restore::{built, look_at_it};
use super::target::{Follow, blocking, expected, meant, parse_args, server_user, which_shadow};
use super::{Action, Ctx, Done, Preview, Spec, backend};
use crate::error::Result;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::RecoveryTarget;
use crate::postgres::{Programs, identity};
use crate::recovery::advance::{advance, discard, discard_unfinished};
use crate::recovery::backend::Goal;
use crate::recovery::range::{Base, Look};
use crate::recovery::shadow::RECORD;

/// The action `pitr advance`.
pub struct Advance;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    #[command(flatten)]
    moment: Moment,
    /// Folder of the recovered instance; the incident's by default
    #[arg(long, value_name = "DIR")]
    shadow: Option<PathBuf>,
}

impl Action for Advance {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr advance",
            about: "Move the recovered instance on to a later moment",
            risk: Risk::Change,
            fallback: "Stop the recovered instance, set the later recovery_target_… in its configuration, start it again.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("advance"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let s = which_shadow(ctx, args.shadow.as_deref()).await?;
            let (to, after) = moment(&args.moment)?;
            let side = if after { "after" } else { "before" };
            let lines = vec![
                format!("stands {}, {}", s.target.stop(s.after), s.reached_lsn),
                format!("replays on to just {side} {to}; back again is only possible with a new restore"),
            ];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    let s = which_shadow(ctx, args.shadow.as_deref()).await?;
    let (to, after) = moment(&args.moment)?;
    let recovery = backend::recovery_of(ctx, s.backend).await?;
    let at = s.database(&meant(ctx, &s.database("postgres")?).await?)?;
    if let Ok(mut c) = at.connect().await {
        of_cluster(&recovery, &identity(&mut c, &at).await?).await?;
    }
    let suspects = super::offered::remembered(ctx, &to).unwrap_or_else(|| match &to {
        RecoveryTarget::Xid(x) if !after => x.parse().into_iter().collect(),
        _ => Vec::new(),
    });
    let goal = Goal {
        after,
        timeline: s.along.or(Some(s.timeline)),
        suspects: suspects.clone(),
        // Its files are there already.
        base: Base { look: Look::Nothing, ..Base::ANY },
        ..Goal::to(to)
    };
    let way = backend::way(ctx, &*recovery, &goal).await?;
    let follow = Follow::new(ctx);
    let moved = advance(&s, way, suspects, backend::origin(&*recovery)?, &*follow, &ctx.cancel).await?;
    let instance = moved.instance()?;
    let mut c = at.connect().await?;
    let it = identity(&mut c, &at).await?;
    expected(ctx, &it, false)?;
    let (summary, fact) = built(&moved, &it, &instance.layout.data);
    look_at_it(ctx, &mut c, &at).await;
    let json = serde_json::json!({"shadow": moved, "url": at.url()});
    Ok(Done::ok(summary).fact(Event::TargetSeen { role: "shadow".into(), identity: it }).fact(fact).json(json))
}

/// The action `pitr discard`.
pub struct Discard;

#[derive(Debug, Clone, clap::Args)]
struct DiscardArgs {
    /// Folder of the recovered instance; the incident's by default
    #[arg(long, value_name = "DIR")]
    shadow: Option<PathBuf>,
    /// Also one that was promoted
    #[arg(long)]
    promoted_too: bool,
}

impl Action for Discard {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr discard",
            about: "Stop the recovered instance and remove its files",
            risk: Risk::Change,
            fallback: "Stop the recovered instance with pg_ctl stop, then remove its folder.",
        }
    }
    fn arguments(&self) -> Command {
        DiscardArgs::augment_args(Command::new("discard"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: DiscardArgs = parse_args(self.arguments(), args)?;
            let root = match unfinished(&args) {
                Some(root) => root,
                None => which_shadow(ctx, args.shadow.as_deref()).await?.root,
            };
            Ok(Preview { lines: vec![format!("stops and removes {}", root.display())], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: DiscardArgs = parse_args(self.arguments(), args)?;
            let (root, kept) = if let Some(root) = unfinished(&args) {
                let (programs, user) = (Programs::find(ctx.settings.bin_dir.as_deref(), None)?, server_user(ctx)?);
                let work = root.clone();
                (root, blocking(move || discard_unfinished(&work, programs, user)).await?)
            } else {
                let s = which_shadow(ctx, args.shadow.as_deref()).await?;
                (s.root.clone(), blocking(move || discard(&s, args.promoted_too)).await?)
            };
            let kept: Vec<String> = kept.iter().map(|p| p.display().to_string()).collect();
            let mut summary = format!("{} is gone", root.display());
            if !kept.is_empty() {
                summary.push_str(&format!(
                    ", but for log of what was there before, which may be archived nowhere: {}; remove it by hand",
                    kept.join(", ")
                ));
            }
            let json = serde_json::json!({"removed": root.display().to_string(), "kept": kept});
            Ok(Done::ok(summary).json(json))
        })
    }
}

/// The folder of a recovery that was broken off before it had a record, when that is what was named.
fn unfinished(args: &DiscardArgs) -> Option<PathBuf> {
    let root = args.shadow.as_ref()?;
    (root.is_dir() && !root.join(RECORD).exists()).then(|| std::path::absolute(root).unwrap_or_else(|_| root.clone()))
}
