//! `breakglass backup cleanup`: gives up what retention no longer needs, and says of everything why.

use clap::{Arg, ArgAction, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::reach::{self, Reporter};
use super::target::{blocking, now};
use super::{Action, Ctx, Done, Preview, Spec};
use crate::backup::catalog::{Catalog, READ};
use crate::backup::cleanup::{Plan, execute, plan_looking};
use crate::backup::repository::Unlocked;
use crate::backup::{damage, seen};
use crate::error::{Error, Result};
use crate::model::plan::Risk;
use crate::postgres::user;
use crate::recovery::deep::left;
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// The action.
pub struct BackupCleanup;

impl Action for BackupCleanup {
    fn spec(&self) -> Spec {
        Spec {
            name: "backup cleanup",
            about: "Remove the backups and the log that retention no longer needs; never the newest verified ones",
            risk: Risk::Change,
            fallback: "Leave everything where it is: too many backups only cost space.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("cleanup")
            .arg(
                Arg::new("dry-run")
                    .long("dry-run")
                    .action(ArgAction::SetTrue)
                    .help("Show what would go, and why; remove nothing"),
            )
            .arg(
                Arg::new("give-up")
                    .long("give-up")
                    .value_name("ID")
                    .help("A damaged backup that nothing can bring back: it goes, and holds the log no longer."),
            )
            .arg(
                Arg::new("even-if-copied")
                    .long("even-if-copied")
                    .action(ArgAction::SetTrue)
                    .requires("give-up")
                    .help("Give it up although a copy has it whole, or one that was made from here is not there now"),
            )
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let m = super::parse_matches(self.arguments(), args)?;
            let give_up = m.get_one::<String>("give-up").cloned();
            let (plan, mut seen) = planned(ctx, give_up, m.get_flag("even-if-copied"), false).await?;
            seen.extend(lines(&plan, "would go"));
            Ok(Preview { lines: seen, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let m = super::parse_matches(self.arguments(), args)?;
            let (dry, give_up) = (m.get_flag("dry-run"), m.get_one::<String>("give-up").cloned());
            let (plan, seen) = planned(ctx, give_up, m.get_flag("even-if-copied"), !dry).await?;
            for line in seen.into_iter().chain(lines(&plan, if dry { "would go" } else { "goes" })) {
                ctx.out.line(&line);
            }
            if !dry {
                let work = ctx.clone();
                let swept = blocking(move || {
                    let run_as = user::for_server(work.settings.run_as.as_deref())?;
                    Ok(left::sweep(&std::env::temp_dir(), work.settings.bin_dir.as_deref(), run_as.as_ref()))
                });
                // A machine without a server's user has none of these.
                swept.await.unwrap_or_default().iter().for_each(|line| ctx.out.line(line));
            }
            let (count, bytes) = (plan.removed().count(), plan.bytes());
            let document = json!({"dry_run": dry, "plan": plan, "bytes": bytes});
            if dry {
                let text =
                    format!("{count} backups and {} objects would go, {} MB", plan.objects.len(), bytes / 1_000_000);
                return Ok(Done::ok(text).json(document));
            }
            let text = format!("{count} backups and {} objects removed, {} MB", plan.objects.len(), bytes / 1_000_000);
            let ctx = ctx.clone();
            blocking(move || {
                let reporter = Reporter::new(&*ctx.out);
                let unlocked = reach::unlocked(&ctx)?;
                execute(&unlocked, &plan, &mut |done, all| {
                    let total = Some(all as u64);
                    reporter.phase(&Phase { name: "remove", done: done as u64, total, unit: "objects", ..Phase::default() });
                    let left = all - done;
                    check_cancel(
                        &ctx.cancel,
                        &format!(
                            "{done} objects were removed, {left} are left; the catalog is right, and the same command, or the next \
                             cleanup, removes the rest"
                        ),
                    )
                })?;
                // Remembers the head that the removals left.
                let _ = reach::rolled_back(&ctx, &unlocked, &Catalog::load(&unlocked)?);
                Ok(())
            })
            .await?;
            Ok(Done::ok(text).json(document))
        })
    }
}

/// The plan, after a look at what stays; and what that found, for people. `record`: what is damaged is written down.
async fn planned(
    ctx: &Ctx,
    give_up: Option<String>,
    even_if_copied: bool,
    record: bool,
) -> Result<(Plan, Vec<String>)> {
    let ctx = ctx.clone();
    blocking(move || {
        let unlocked = reach::unlocked(&ctx)?;
        let catalog = reach::catalog(&ctx, &unlocked)?;
        // What is not in it may be what must stay.
        reach::goes_on(&ctx, &unlocked, &catalog)?;
        let (give_up, copies) = (give_up.as_slice(), copies(&ctx, &unlocked, even_if_copied));
        let (mut count, mut out) = (0, Vec::new());
        let mut seen = |id: &str, wrong: Option<&Error>| {
            check_cancel(&ctx.cancel, "nothing was removed")?;
            count += 1;
            let Some(e) = wrong else { return Ok(()) };
            let untold = match record {
                true => damage::found(&unlocked, ctx.settings.catalog_heads.as_ref(), id, READ, e),
                false => None,
            };
            let said = match (record, untold) {
                (false, _) => format!("not recorded by a try; backup verify {id} records it"),
                (true, None) => "recorded".to_string(),
                (true, Some(why)) => format!("the catalog could not be told: {why}"),
            };
            out.push(format!(
                "WARNING: backup {id}, which was to stay, is DAMAGED: {e}; it stands for no other ({said})"
            ));
            Ok(())
        };
        let plan = plan_looking(&unlocked, catalog, ctx.settings.retention, now(), give_up, &copies, &mut seen)?;
        if count > 0 {
            let recorded = if record { "" } else { ", and nothing was recorded" };
            out.push(format!("before anything goes, the ends of {count} backups that stay were looked at{recorded}"));
        }
        Ok((plan, out))
    })
    .await
}

/// Where the repository was copied to, by the configuration and by what is remembered on this machine.
fn copies(ctx: &Ctx, unlocked: &Unlocked, even_if_copied: bool) -> Vec<String> {
    if even_if_copied {
        return Vec::new();
    }
    let mut all = ctx.settings.repository_copies.clone();
    let known = ctx.settings.catalog_heads.as_ref().and_then(|heads| seen::copies(heads, unlocked.repository()).ok());
    let elsewhere = super::may_leave(ctx, "a look at a copy elsewhere").is_ok();
    for place in known.unwrap_or_default() {
        let same = |c: &String| seen::place(c) == place;
        if (elsewhere || !place.contains("://")) && !all.iter().any(same) {
            all.push(place);
        }
    }
    all
}

fn lines(plan: &Plan, goes: &str) -> Vec<String> {
    let mut out: Vec<String> = plan
        .backups
        .iter()
        .map(|v| format!("{}  {}: {}", v.backup, if v.keep { "stays" } else { goes }, v.why))
        .collect();
    // Objects of a backup follow from its verdict; the others need their own reason.
    let mut others: Vec<(&str, usize, u64)> = Vec::new();
    for o in plan.objects.iter().filter(|o| o.why != "of a backup that goes") {
        match others.iter_mut().find(|(why, ..)| *why == o.why) {
            Some((_, n, bytes)) => {
                *n += 1;
                *bytes += o.bytes;
            }
            None => others.push((&o.why, 1, o.bytes)),
        }
    }
    out.extend(others.iter().map(|(why, n, bytes)| format!("{n} objects ({} MB) {goes}: {why}", bytes / 1_000_000)));
    out.push(plan.log.clone());
    out
}
