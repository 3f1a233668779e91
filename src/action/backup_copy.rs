//! `breakglass backup copy`: the repository in further places, each object read back there.

use clap::{Arg, ArgAction, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::reach::{self, Reporter};
use super::target::blocking;
use super::{Action, Ctx, Done, Preview, Spec};
use crate::backup::catalog::{Catalog, Head};
use crate::backup::copies::{Copied, CopyOptions, copy_to};
use crate::backup::repository::{CopyOf, Unlocked};
use crate::backup::store::open_place;
use crate::error::{Error, ErrorKind, Result};
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
        Command::new("copy")
            .arg(
                Arg::new("to")
                    .long("to")
                    .value_name("URL")
                    .action(ArgAction::Append)
                    .help("A place; may be repeated. repository.copies of the configuration when not given"),
            )
            .arg(
                Arg::new("remove-given-up")
                    .long("remove-given-up")
                    .action(ArgAction::SetTrue)
                    .help("Remove there what was given up here as damaged, also where it is whole there"),
            )
            .arg(
                Arg::new("as-copy")
                    .long("as-copy")
                    .action(ArgAction::SetTrue)
                    .help("Make a copy of what is a repository of its own there: it follows this one from now on"),
            )
            .arg(
                Arg::new("new-place")
                    .long("new-place")
                    .action(ArgAction::SetTrue)
                    .help("Make a copy anew in a place where one is known to have been, and nothing is now"),
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
            let m = super::parse_matches(self.arguments(), args)?;
            let places = places(ctx, &m)?;
            let options = CopyOptions {
                remove_given_up: m.get_flag("remove-given-up"),
                as_copy: m.get_flag("as-copy"),
                new_place: m.get_flag("new-place"),
            };
            let work = ctx.clone();
            let unlocked = blocking(move || reach::unlocked(&work)).await?;
            let copies = copy_all(ctx, &unlocked, places, options).await?;
            let objects: u64 = copies.iter().map(|c| c.objects).sum();
            let damage: Vec<Error> = copies.iter().filter_map(Copied::damage).collect();
            let known = copies.iter().flat_map(|c| &c.on_record).find(|o| !o.in_copy);
            let done = match damage.first() {
                None if known.is_some() => Done::check_failed(format!(
                    "{} places are as this one, {objects} objects copied and read back, and backup {} is on record here as {}; the copies are the same",
                    copies.len(),
                    known.map_or("", |o| o.backup.as_str()),
                    known.map_or("", |o| o.why.as_str())
                )),
                None => Done::ok(format!("{} places up to date, {objects} objects copied and read back", copies.len())),
                Some(e) => Done::check_failed(format!(
                    "{} of {} places did not get what is damaged or missing here, {objects} objects copied and read back: {e}",
                    damage.len(),
                    copies.len()
                )),
            };
            Ok(done.json(json!({"copies": copies})))
        })
    }
}

/// Whether a copy was begun there and broken off by this error, which does not say so itself.
fn unfinished(to: &str, e: &Error) -> bool {
    let begun = || open_place(to, false).and_then(|store| CopyOf::read(&*store));
    e.kind == ErrorKind::Target && begun().is_ok_and(|copy| copy.is_some_and(|c| c.unfinished))
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
pub async fn copy_all(
    ctx: &Ctx,
    unlocked: &Unlocked,
    places: Vec<String>,
    options: CopyOptions,
) -> Result<Vec<Copied>> {
    let (ctx, unlocked) = (ctx.clone(), unlocked.clone());
    blocking(move || {
        let reporter = Reporter::new(&*ctx.out);
        let (mut copies, mut failed) = (Vec::new(), None);
        for to in places {
            let heads = ctx.settings.catalog_heads.as_ref();
            let copied = copy_to(&unlocked, &to, heads, options, &mut |done, all| {
                let text = to.clone();
                reporter.phase(&Phase {
                    name: "copy",
                    done,
                    total: Some(all),
                    unit: "objects",
                    text,
                    ..Phase::default()
                });
                check_cancel(
                    &ctx.cancel,
                    &format!("{done} of {all} objects were gone through, what was copied is in {to:?}; the same command goes on from there"),
                )
            });
            match copied {
                Ok(c) => {
                    ctx.out.line(&format!("copy in {}: {} objects copied, {} present", c.to, c.objects, c.present));
                    for o in &c.not_copied {
                        let there = if o.whole_there { "; the copy has it whole: put it back from there" } else { "" };
                        ctx.out.line(&format!("  NOT COPIED {}: in the repository: {}{there}", o.name, o.why));
                    }
                    if c.own {
                        ctx.out.line(
                            "  it is a repository of its own there, no copy, and stays one: keys and whatever is newer there were left as \
                             they are; --as-copy makes it a copy of this one",
                        );
                    }
                    if !c.removed_backups.is_empty() {
                        ctx.out.line(&format!(
                            "  REMOVED there: {} objects of {} backups that were given up here: {}",
                            c.removed,
                            c.removed_backups.len(),
                            c.removed_backups.join(", ")
                        ));
                    }
                    for id in &c.kept {
                        ctx.out.line(&format!(
                            "  KEPT there: backup {id} was given up here as damaged, and is whole there: breakglass backup restore {id} \
                             with BACKUP_DIR={to} brings it back; --remove-given-up removes it there, too"
                        ));
                    }
                    for name in &c.mended {
                        ctx.out.line(&format!("  MENDED {name}: it was damaged there, on record, and is replaced"));
                    }
                    for o in &c.on_record {
                        let place = if o.in_copy { "there" } else { "in the repository" };
                        ctx.out.line(&format!("  ON RECORD {place}: backup {}  {}", o.backup, o.why));
                    }
                    for name in &c.left_out {
                        ctx.out.line(&format!("  left out {name}: damaged, and accepted (--accept-catalog)"));
                    }
                    copies.push(c);
                }
                Err(e) => {
                    let e = match unfinished(&to, &e) {
                        true => e.hint(format!("What was copied stays in {to:?}; the same command goes on from there.")),
                        false => e,
                    };
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
    let copied = copy_all(ctx, unlocked, places, CopyOptions::default()).await;
    match copied.and_then(|copies| copies.iter().find_map(Copied::damage).map_or(Ok(()), Err)) {
        Ok(()) => Ok(head),
        Err(e) => Err(e.hint("The backup itself is complete and verified.")),
    }
}
