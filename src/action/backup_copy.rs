//! `breakglass backup copy`: the repository in further places, each object read back there.

use clap::{Arg, ArgAction, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::reach::{self, Reporter};
use super::target::blocking;
use super::{Action, Ctx, Done, Preview, Spec};
use crate::backup::catalog::{Catalog, Head};
use crate::backup::copies::{Copied, copy_to};
use crate::backup::repository::Unlocked;
use crate::error::{Error, Result};
use crate::model::plan::Risk;
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// The action.
pub struct BackupCopy;

impl Action for BackupCopy {
    fn spec(&self) -> Spec {
        Spec {
            name: "backup copy",
            about: "Bring the repository's copies in other places up to date, and read back what was copied",
            risk: Risk::Change,
            fallback: "Copy the repository's folder with rsync -a; the folder `keys` and repository.json belong to it.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("copy").arg(
            Arg::new("to")
                .long("to")
                .value_name("URL")
                .action(ArgAction::Append)
                .help("A place; may be repeated. repository.copies of the configuration when not given"),
        )
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let lines = places(ctx, &super::parse_matches(self.arguments(), args)?)?;
            Ok(Preview { lines: lines.iter().map(|to| format!("copies to {to}")).collect(), ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let places = places(ctx, &super::parse_matches(self.arguments(), args)?)?;
            let work = ctx.clone();
            let unlocked = blocking(move || reach::unlocked(&work)).await?;
            let copies = copy_all(ctx, &unlocked, places).await?;
            let objects: u64 = copies.iter().map(|c| c.objects).sum();
            let damage: Vec<Error> = copies.iter().filter_map(Copied::damage).collect();
            let done = match damage.first() {
                None => Done::ok(format!("{} places up to date, {objects} objects copied and read back", copies.len())),
                Some(e) => Done::check_failed(format!(
                    "{} of {} places lack what is damaged or cannot be read here, {objects} objects copied and read back: {e}",
                    damage.len(),
                    copies.len()
                )),
            };
            Ok(done.json(json!({"copies": copies})))
        })
    }
}

fn places(ctx: &Ctx, m: &clap::ArgMatches) -> Result<Vec<String>> {
    let given: Vec<String> = m.get_many::<String>("to").map(|t| t.cloned().collect()).unwrap_or_default();
    let places = if given.is_empty() { ctx.settings.repository_copies.clone() } else { given };
    if places.is_empty() {
        return Err(Error::usage("no place to copy to").hint("Give --to, or set repository.copies in breakglass.toml."));
    }
    Ok(places)
}

/// Copies to every place; one that fails does not keep the others from getting theirs. What is damaged in the repository is
/// said, and in [`Copied::not_copied`].
///
/// # Errors
/// The first failure, after all were tried.
pub async fn copy_all(ctx: &Ctx, unlocked: &Unlocked, places: Vec<String>) -> Result<Vec<Copied>> {
    let (ctx, unlocked) = (ctx.clone(), unlocked.clone());
    blocking(move || {
        let reporter = Reporter::new(&*ctx.out);
        let (mut copies, mut failed) = (Vec::new(), None);
        for to in places {
            let copied = copy_to(&unlocked, &to, &mut |done, all| {
                let text = to.clone();
                reporter.phase(&Phase {
                    name: "copy",
                    done,
                    total: Some(all),
                    unit: "objects",
                    text,
                    ..Phase::default()
                });
                check_cancel(&ctx.cancel, "the copy is not complete")
            });
            match copied {
                Ok(c) => {
                    ctx.out.line(&format!("copy in {}: {} objects copied, {} present", c.to, c.objects, c.present));
                    for o in &c.not_copied {
                        let there = if o.whole_there { "; it is whole there" } else { "" };
                        ctx.out.line(&format!(
                            "  NOT COPIED {}: damaged in the repository, or cannot be read there{there}: {}",
                            o.name, o.why
                        ));
                    }
                    for name in &c.left_out {
                        ctx.out.line(&format!("  left out {name}: damaged, and accepted (--accept-catalog)"));
                    }
                    copies.push(c);
                }
                Err(e) => {
                    ctx.out.line(&format!("copy in {to} FAILED: {e}"));
                    failed.get_or_insert(e);
                }
            }
        }
        match failed {
            Some(e) => Err(e),
            None => Ok(copies),
        }
    })
    .await
}

/// After a backup: the catalog's head is remembered, the copies of the configuration are made, and a word is said on keys. The
/// backup exists whatever happens here.
///
/// # Errors
/// A copy failed, or lacks what is damaged in the repository.
pub async fn after_backup(ctx: &Ctx, unlocked: &Unlocked) -> Result<Head> {
    let (work, read) = (ctx.clone(), unlocked.clone());
    let head = blocking(move || {
        let catalog = Catalog::load(&read)?;
        if let Some(e) = reach::rolled_back(&work, &read, &catalog) {
            work.out.line(&format!("WARNING: {e}"));
        }
        Ok(catalog.head)
    })
    .await?;
    if unlocked.repository().key_file()?.recipients() == 0 {
        ctx.out.line(
            "only BACKUP_ENCRYPTION_KEY opens this repository: if it is lost, so is every backup; \
             make a second key with breakglass backup rotate-key --new-recipient FILE",
        );
    }
    let places = ctx.settings.repository_copies.clone();
    if places.is_empty() {
        return Ok(head);
    }
    let copied = copy_all(ctx, unlocked, places).await;
    match copied.and_then(|copies| copies.iter().find_map(Copied::damage).map_or(Ok(()), Err)) {
        Ok(()) => Ok(head),
        Err(e) => Err(e.hint("The backup itself is complete and verified.")),
    }
}
