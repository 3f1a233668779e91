//! `compare SOURCE SHADOW`: whether two databases are the same: rows, definitions, sequences, roles, privileges.

use std::path::Path;
use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::target::{Follow, database_name, parse_args, shadow};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::plan::Risk;
use crate::model::{CleanText, Secret, parse_duration};
use crate::postgres::{Database, identity};
use crate::recovery::compare::{Options, compare, objects::CATEGORIES};
use crate::recovery::shadow::Shadow;
use crate::recovery::verify;

/// The action `compare`.
pub struct Compare;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// `source` (the configured database), `shadow` (the incident's), the folder of a recovered instance, or a URL without a password
    #[arg(value_name = "SOURCE")]
    source: String,
    /// As SOURCE
    #[arg(value_name = "SHADOW")]
    shadow: String,
    /// Compare only this table: its rows, columns, constraints, indexes, triggers, policies, privileges and the sequences that feed
    /// it; as often as needed
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Leave something out: rows, columns, indexes, sequences, roles, privileges, …; as often as needed
    #[arg(long, value_name = "CATEGORY")]
    skip: Vec<String>,
    /// Compare rows by their text also where the quicker form would do
    #[arg(long)]
    text: bool,
    /// Longest time for one statement
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2h")]
    statement_timeout: Duration,
}

impl Action for Compare {
    fn spec(&self) -> Spec {
        Spec {
            name: "compare",
            about: "Compare two databases: rows, definitions, sequences, roles, privileges; exit 1 on a difference",
            risk: Risk::Read,
            fallback: "pg_dump --schema-only of both and diff; count rows and sum hashtextextended(t::text, 0) per table.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("compare"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let (a, b) = (side(ctx, &args.source)?, side(ctx, &args.shadow)?);
            Ok(Preview { lines: vec![format!("reads every row of {a} and of {b}")], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

fn side(ctx: &Ctx, word: &str) -> Result<Database> {
    match word {
        "source" => reach::source(ctx),
        "shadow" => shadow(ctx, None)?.database(&database_name(ctx)),
        url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            let at = Database::from_url(&Secret::new(url))?;
            if at.password().is_some() {
                return Err(Error::usage("a password on the command line can be read by everybody on this machine")
                    .hint("leave it out of the URL and set PGPASSWORD, or use a password file")
                    .hint("the configured database is called source here"));
            }
            Ok(at)
        }
        folder if Path::new(folder).is_dir() => Shadow::load(Path::new(folder))?.database(&database_name(ctx)),
        other => Err(Error::usage(format!("{other:?} names no database"))
            .hint("say source, shadow, the folder of a recovered instance, or postgres://user@host:5432/database")),
    }
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    if let Some(s) = args.skip.iter().find(|s| *s != "rows" && !CATEGORIES.iter().any(|(c, _)| c == s)) {
        let all: Vec<&str> = CATEGORIES.iter().map(|(c, _)| *c).collect();
        return Err(
            Error::usage(format!("there is no category {s:?}")).hint(format!("there are rows, {}", all.join(", ")))
        );
    }
    let (at, beside) = (side(ctx, &args.source)?, side(ctx, &args.shadow)?);
    let mut here = verify::open(&at, args.statement_timeout).await?;
    let mut there = verify::open(&beside, args.statement_timeout).await?;
    let (one, two) = (identity(&mut here, &at).await?, identity(&mut there, &beside).await?);
    // A database beside another in one cluster has the same identifier and is no copy of its files.
    let physical = one.system_identifier == two.system_identifier
        && one.database == two.database
        && one.version_num / 10000 == two.version_num / 10000;
    let options = Options { tables: args.tables.clone(), skip: args.skip.clone(), text: args.text };
    let follow = Follow::new(ctx);
    let result = compare(&mut here, &mut there, physical, &options, &*follow, &ctx.cancel).await?;
    for d in &result.differences {
        let said = |s: &Option<String>| {
            let text = s.clone().unwrap_or_else(|| "not there".into());
            CleanText::line(text.chars().take(300).collect::<String>().as_bytes()).to_string()
        };
        ctx.out.line(&format!("{:<13} {}: {} | {}", d.category, d.name, said(&d.source), said(&d.shadow)));
    }
    for unread in &result.unread {
        ctx.out.line(&format!("{:<13} {unread}", "not compared"));
    }
    let rows: u64 = result.tables.iter().map(|t| t.source_rows).sum();
    let json = serde_json::json!({
        "equal": result.equal, "source": one, "shadow": two, "tables": result.tables,
        "differences": result.differences, "unread": result.unread, "compared": result.compared, "not_compared": result.not_compared,
    });
    let bad = result.tables.iter().filter(|t| t.equal != Some(true)).count();
    let left = match result.not_compared.as_slice() {
        [] => String::new(),
        some => format!("; rows not compared: {}", some.join("; ")),
    };
    let done = if result.equal {
        Done::ok(format!("equal: {rows} rows in {} tables{left}", result.tables.len()))
    } else {
        Done::check_failed(format!(
            "{bad} of {} tables and {} other things differ{}{left}",
            result.tables.len(),
            result.differences.len(),
            match result.unread.len() {
                0 => String::new(),
                n => format!("; {n} categories could not be read"),
            }
        ))
    };
    Ok(done.json(json))
}
