//! `backup list` as a command of a step: the backups with their times, read where a plan asks for them.

use clap::Command;
use futures::future::BoxFuture;

use super::{Action, Ctx, Done, Preview, Spec, backend};
use crate::error::Result;
use crate::model::plan::Risk;

/// The action `backup list`.
pub struct BackupList;

impl Action for BackupList {
    fn spec(&self) -> Spec {
        Spec {
            name: "backup list",
            about: "The backups of a repository, oldest first",
            risk: Risk::Read,
            fallback: "Look into the repository's folder or bucket: every backup has a name that begins with its time.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("list")
    }
    fn preview<'a>(&'a self, _: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(
            async move { Ok(Preview { lines: vec!["reads the catalog of backups".into()], ..Preview::default() }) },
        )
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let all = backend::recovery(ctx).await?.backups().await?;
            all.warnings.iter().chain(&all.lines).for_each(|line| ctx.out.line(line));
            let summary = match all.lines.len() {
                0 => "no backups".to_string(),
                1 => "1 backup".to_string(),
                n => format!("{n} backups"),
            };
            let done =
                if all.damaged || all.lines.is_empty() { Done::check_failed(summary) } else { Done::ok(summary) };
            Ok(done.json(all.json))
        })
    }
}
