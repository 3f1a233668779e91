//! SQL blocks: run on the target's connection, one statement after the other as psql does, reading only unless the plan says
//! otherwise.
//!
//! A block of risk `read` runs in one read-only transaction and may not end it. Every block has a limit for locks and
//! statements, because a paused recovery or a stuck session would otherwise hold it for ever, and a limit of rows shown.

use std::time::Duration;

use clap::{Arg, Command};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Column, Either, Executor, Row, ValueRef};
use unicode_width::UnicodeWidthStr;

use super::shell::{block_arguments, risk_word};
use super::{Action, Ctx, Done, Preview, Spec};
use crate::error::{Error, Result};
use crate::model::event::{Event, Outcome};
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::postgres::connect::{describe, query_error, run};
use crate::postgres::{Database, identity};

/// The action `sql`.
pub struct Sql;

/// Rows shown of one statement unless said otherwise.
const ROWS: u64 = 1000;
/// Time for one statement unless said otherwise.
const STATEMENT: Duration = Duration::from_secs(300);
/// Time waited for a lock.
const LOCK: Duration = Duration::from_secs(10);
/// Rows laid out together: their columns are as wide as they need.
const BATCH: usize = 200;
/// Longest cell shown, in characters.
const CELL: usize = 400;

struct Options {
    timeout: Duration,
    risk: Risk,
    rows: u64,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let m =
            Sql.arguments().no_binary_name(true).try_get_matches_from(args).map_err(|e| {
                Error::usage("the attributes of an SQL block cannot be used").why(e.to_string().trim_end())
            })?;
        let text = |id: &str| m.get_one::<String>(id).map(String::as_str);
        let timeout = text("timeout").map(parse_duration).transpose().map_err(Error::usage)?;
        Ok(Self {
            timeout: timeout.unwrap_or(STATEMENT),
            risk: risk_word(text("risk")).unwrap_or(Risk::Read),
            rows: m.get_one::<u64>("rows").copied().unwrap_or(ROWS),
        })
    }
}

impl Action for Sql {
    fn spec(&self) -> Spec {
        Spec {
            name: "sql",
            about: "Run an SQL block of a plan",
            risk: Risk::Read,
            fallback: "Copy the block and run it with psql; then say in a note what it printed.",
        }
    }

    fn arguments(&self) -> Command {
        block_arguments(Command::new("sql")).arg(
            Arg::new("rows")
                .long("rows")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help("Show at most so many rows of a statement"),
        )
    }

    fn risk(&self, args: &[String]) -> Risk {
        Options::parse(args).map_or(Risk::Change, |o| o.risk)
    }

    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let options = Options::parse(args)?;
            let statements = block(ctx, options.risk)?;
            let at = ctx.database()?;
            let mut c = at.connect_read_only(LOCK, LOCK).await?;
            let seen = identity(&mut c, &at).await?;
            let mode = if options.risk == Risk::Read {
                "in one read-only transaction"
            } else {
                "each for itself, as psql does"
            };
            let lines = vec![
                format!("runs {} on {at}, {mode}", count(statements.len() as u64, "statement")),
                format!("server {} is system {}", seen.host, seen.system_identifier),
            ];
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: seen.clone() }];
            Ok(Preview { lines, target: Some(seen), facts })
        })
    }

    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { execute(ctx, &Options::parse(args)?).await })
    }
}

async fn execute(ctx: &Ctx, options: &Options) -> Result<Done> {
    let statements = block(ctx, options.risk)?;
    let at = ctx.database()?;
    let mut c = at.connect().await?;
    if options.risk == Risk::Destroy {
        check_identity(ctx, &mut c, &at).await?;
    }
    let limits =
        format!("SET lock_timeout = {}; SET statement_timeout = {}", LOCK.as_millis(), options.timeout.as_millis());
    run(&mut c, &limits).await?;
    if options.risk == Risk::Read {
        // Also for what a function might begin by itself.
        run(&mut c, "SET default_transaction_read_only = on").await?;
        run(&mut c, "BEGIN READ ONLY").await?;
    }
    let pid: i32 = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()")
        .fetch_one(&mut c)
        .await
        .map_err(|e| query_error("SELECT pg_backend_pid()", &e))?;
    let mut rows = 0;
    for (i, statement) in statements.iter().enumerate() {
        let done = tokio::select! {
            done = one(ctx, &mut c, statement, options.rows) => Some(done),
            () = ctx.cancel.cancelled() => None,
        };
        match done {
            Some(Ok(n)) => rows += n,
            Some(Err(e)) => {
                ctx.out.line(&e.to_string());
                let which = format!("statement {} of {} failed: {}", i + 1, statements.len(), e.why);
                return Ok(Done { outcome: Outcome::Failed, exit_code: 3, ..Done::ok(which) });
            }
            None => {
                // Dropping the connection alone would let the statement run on.
                cancel_backend(&at, pid).await;
                let which = format!("cancelled at statement {} of {}", i + 1, statements.len());
                return Ok(Done { outcome: Outcome::Cancelled, exit_code: 130, ..Done::ok(which) });
            }
        }
    }
    if options.risk == Risk::Read {
        run(&mut c, "ROLLBACK").await?;
    }
    Ok(Done::ok(format!("{}, {}", count(statements.len() as u64, "statement"), count(rows, "row"))))
}

/// The live identity on this very connection must be the expected one.
async fn check_identity(ctx: &Ctx, c: &mut PgConnection, at: &Database) -> Result<()> {
    let seen = identity(c, at).await?;
    for (key, want) in &ctx.settings.expect {
        let got = match key.as_str() {
            "system_identifier" => &seen.system_identifier,
            "database" => &seen.database,
            "host" => &seen.host,
            _ => continue,
        };
        if got != want {
            return Err(Error::refused(format!("the target's {key} is {got:?}, but {want:?} is expected"))
                .hint("Check that this is the right server; nothing was touched."));
        }
    }
    Ok(())
}

async fn cancel_backend(at: &Database, pid: i32) {
    if let Ok(mut c) = at.connect_within(Duration::from_secs(5)).await {
        let _ = sqlx::query("SELECT pg_catalog.pg_cancel_backend($1)").bind(pid).execute(&mut c).await;
    }
}

/// Runs one statement and prints what it gives. Returns the rows given or affected.
async fn one(ctx: &Ctx, c: &mut PgConnection, statement: &str, limit: u64) -> Result<u64> {
    let mut table = Table::default();
    let (mut shown, mut given, mut affected) = (0u64, 0u64, 0u64);
    let mut selects = false;
    // The simple protocol: every value comes as text, as psql shows it.
    let mut results = c.fetch_many(sqlx::raw_sql(statement));
    while let Some(result) = results.try_next().await.map_err(|e| query_error(statement, &e))? {
        match result {
            Either::Right(row) => {
                selects = true;
                given += 1;
                if shown < limit {
                    shown += 1;
                    table.add(&row, statement)?;
                    if table.rows.len() >= BATCH {
                        table.print(ctx);
                    }
                }
            }
            Either::Left(done) => affected += done.rows_affected(),
        }
    }
    drop(results);
    table.print(ctx);
    if selects {
        let more = if given > shown { format!(", the first {shown} shown") } else { String::new() };
        ctx.out.line(&format!("({}{more})", count(given, "row")));
        return Ok(given);
    }
    let words: Vec<&str> = statement.split_whitespace().take(2).collect();
    let verb = if affected > 0 { format!("{}: {}", words.join(" "), count(affected, "row")) } else { words.join(" ") };
    ctx.out.line(&verb);
    Ok(affected)
}

/// Rows waiting to be laid out.
#[derive(Default)]
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn add(&mut self, row: &PgRow, statement: &str) -> Result<()> {
        if self.head.is_empty() {
            self.head = row.columns().iter().map(|c| c.name().to_string()).collect();
        }
        let mut cells = Vec::with_capacity(row.len());
        for i in 0..row.len() {
            let value = row.try_get_raw(i).map_err(|e| query_error(statement, &e))?;
            cells.push(if value.is_null() {
                String::new()
            } else {
                let text = value
                    .as_str()
                    .map_err(|e| Error::target("a value is not text").why(describe(&sqlx::Error::Decode(e))))?;
                cell(text)
            });
        }
        self.rows.push(cells);
        Ok(())
    }

    fn print(&mut self, ctx: &Ctx) {
        if self.rows.is_empty() {
            return;
        }
        let mut wide: Vec<usize> = self.head.iter().map(|h| h.width()).collect();
        for row in &self.rows {
            for (w, cell) in wide.iter_mut().zip(row) {
                *w = (*w).max(cell.width());
            }
        }
        let line = |cells: &[String]| {
            let mut out = String::new();
            for (i, (cell, w)) in cells.iter().zip(&wide).enumerate() {
                out.push_str(if i == 0 { " " } else { " | " });
                out.push_str(cell);
                // The last column is not padded: nobody wants trailing blanks in a record.
                if i + 1 < cells.len() {
                    out.push_str(&" ".repeat(w - cell.width()));
                }
            }
            out
        };
        let mut text = line(&self.head);
        text.push('\n');
        text.push_str(&wide.iter().map(|w| "-".repeat(w + 2)).collect::<Vec<_>>().join("+"));
        for row in &self.rows {
            text.push('\n');
            text.push_str(&line(row));
        }
        ctx.out.line(&text);
        self.rows.clear();
    }
}

/// A value on one line, of bounded length.
fn cell(text: &str) -> String {
    let flat = text.replace('\n', "↵");
    let clean = crate::model::CleanText::line(flat.as_bytes()).to_string();
    match clean.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// The statements of the block, checked against what its risk allows.
fn block(ctx: &Ctx, risk: Risk) -> Result<Vec<String>> {
    let code = ctx
        .code
        .as_deref()
        .ok_or_else(|| Error::usage("there is no block to run").hint("SQL blocks are run from a step of a plan."))?;
    if let Some(line) = code.lines().find(|l| l.trim_start().starts_with('\\')) {
        return Err(Error::usage(format!("{:?} is a command of psql, not SQL", line.trim()))
            .hint("Write it as a bash block that calls psql."));
    }
    // What is shown and recorded names a secret, `${NEW_PASSWORD}`; only here does its value come in.
    let mut whole = code.to_string();
    for (name, secret) in ctx.secrets.held() {
        whole = super::blanks::fill_sql(&whole, &format!("${{{name}}}"), secret.expose());
    }
    let statements = split(&whole);
    if statements.is_empty() {
        return Err(Error::usage("the block holds no statement"));
    }
    if risk == Risk::Read
        && let Some(word) = statements.iter().find_map(|s| ends_transaction(s))
    {
        return Err(Error::refused(format!(
            "a block of risk read says {word}, which would end its read-only transaction"
        ))
        .hint("Leave it out, or give the block risk=change."));
    }
    Ok(statements)
}

/// The word by which a statement controls the transaction or the settings that keep it read-only.
fn ends_transaction(statement: &str) -> Option<String> {
    let first =
        statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|w| !w.is_empty())?.to_uppercase();
    let words = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE", "SET", "RESET", "DISCARD"];
    words.contains(&first.as_str()).then_some(first)
}

/// Splits a block at its semicolons, as psql does: not in quotes, dollar quotes, comments or parentheses. Comments before a
/// statement are left out; empty statements too.
pub fn split(code: &str) -> Vec<String> {
    let b = code.as_bytes();
    let (mut out, mut start, mut i, mut depth) = (Vec::new(), 0usize, 0usize, 0usize);
    // Whether anything but blanks and comments was met since `start`.
    let mut any = false;
    while i < b.len() {
        let next = match b[i] {
            b'-' if b.get(i + 1) == Some(&b'-') => {
                let end = code[i..].find('\n').map_or(b.len(), |n| i + n);
                if !any {
                    start = end;
                }
                end
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                let end = block_comment(b, i);
                if !any {
                    start = end;
                }
                end
            }
            b'\'' => {
                let before = &b[..i];
                let escapes = matches!(before.last(), Some(b'e' | b'E'))
                    && !before
                        .len()
                        .checked_sub(2)
                        .is_some_and(|n| before[n].is_ascii_alphanumeric() || before[n] == b'_');
                quoted(b, i, b'\'', escapes)
            }
            b'"' => quoted(b, i, b'"', false),
            b'$' if i == 0 || !(b[i - 1].is_ascii_alphanumeric() || b[i - 1] == b'_') => dollar(code, i),
            b'(' => {
                depth += 1;
                i + 1
            }
            b')' => {
                depth = depth.saturating_sub(1);
                i + 1
            }
            b';' if depth == 0 => {
                if any {
                    out.push(code[start..i].trim().to_string());
                }
                start = i + 1;
                any = false;
                i += 1;
                continue;
            }
            _ => i + 1,
        };
        let comment = b[i..].starts_with(b"--") || b[i..].starts_with(b"/*");
        any |= !comment && !b[i].is_ascii_whitespace();
        i = next;
    }
    if any {
        out.push(code[start..].trim().to_string());
    }
    out
}

fn block_comment(b: &[u8], at: usize) -> usize {
    let (mut depth, mut i) = (0usize, at);
    while i < b.len() {
        if b[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if b[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    b.len()
}

fn quoted(b: &[u8], at: usize, quote: u8, escapes: bool) -> usize {
    let mut i = at + 1;
    while i < b.len() {
        match b[i] {
            b'\\' if escapes => i += 2,
            c if c == quote && b.get(i + 1) == Some(&quote) => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    b.len()
}

/// The end of a dollar quote that begins at `at`, or the next byte when none does.
fn dollar(code: &str, at: usize) -> usize {
    let rest = &code[at + 1..];
    let Some(len) = rest.find('$') else { return at + 1 };
    let tag = &rest[..len];
    let name = tag.chars().enumerate().all(|(i, c)| c == '_' || c.is_alphabetic() || (i > 0 && c.is_ascii_digit()));
    if !name {
        return at + 1;
    }
    let open = at + 1 + len + 1;
    let close = format!("${tag}$");
    code[open..].find(&close).map_or(code.len(), |n| open + n + close.len())
}
