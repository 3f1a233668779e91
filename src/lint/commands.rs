//! Commands that are known not to work as written, with the one that does; our own commands; where each fact is from.

use crate::model::plan::{Block, BlockRole, Phase, Piece};
use crate::plan::commands::{self, ChunkKind};

use super::{Level, Options, Sheet};

/// A command that does not work: the words that show it, and what to say.
struct Broken {
    needle: String,
    message: String,
    why: &'static str,
    hint: String,
}

/// Checks every block that would run.
pub fn check(sheet: &mut Sheet<'_>, options: &Options<'_>) {
    let blocks = sheet.document.plan.blocks.clone();
    for block in &blocks {
        match block.role {
            BlockRole::Run => shell(sheet, block, options),
            BlockRole::Query => sql(sheet, block),
            _ => {}
        }
    }
}

fn shell(sheet: &mut Sheet<'_>, block: &Block, options: &Options<'_>) {
    for chunk in commands::chunks(&block.code).into_iter().filter(|c| c.kind == ChunkKind::Command) {
        let joined = chunk.text.replace("\\\n", " ").replace('\n', " ");
        let words: Vec<&str> = joined.split_whitespace().collect();
        for broken in [supabase(&words), vercel(&words), pg_restore(&words)].into_iter().flatten() {
            let from = block.line + 1 + u32::try_from(chunk.first).unwrap_or(0);
            let line = sheet.line_with(
                &broken.needle,
                from,
                from + u32::try_from(chunk.text.lines().count()).unwrap_or(1) - 1,
            );
            sheet.say(Level::Error, "broken-command", (line, &broken.needle), broken.message, broken.why, broken.hint);
        }
    }
    own(sheet, block, options);
}

/// Our own command lines: the words must parse, and the block must be exactly one of them.
fn own(sheet: &mut Sheet<'_>, block: &Block, options: &Options<'_>) {
    let mentions = block.code.lines().any(|l| l.trim_start().starts_with("breakglass "));
    let Some(words) = &block.own else {
        if mentions {
            let line = sheet.line_with("breakglass", block.line + 1, block.line_end);
            sheet.say(
                Level::Note,
                "own-command-in-shell",
                (line, "breakglass"),
                "run as shell, without preview, progress and cancel",
                "only a block that is exactly one simple `breakglass …` command becomes a step's own action",
                "Give the command a fence of its own.",
            );
        }
        return;
    };
    // A variable's value is not known yet: only the words around it are judged.
    let variable = words.iter().any(|w| w.0.iter().any(|p| !matches!(p, Piece::Text(_))));
    let plain: Vec<String> = words
        .iter()
        .map(|w| w.0.iter().map(|p| if let Piece::Text(t) = p { t.as_str() } else { "latest" }).collect())
        .collect();
    if let Some(why) = (options.own_command)(&plain) {
        let level = if variable { Level::Note } else { Level::Error };
        sheet.say(
            level,
            "own-command",
            (block.line + 1, "breakglass"),
            "this command line is not understood",
            &why,
            "`breakglass help` lists the commands.",
        );
    }
}

/// Subcommands of `supabase db` (supabase/cli, `cmd/db.go`).
#[rustfmt::skip]
const SUPABASE_DB: &[&str] = &[
    "branch", "diff", "dump", "push", "pull", "remote", "reset", "lint", "start", "test", "query", "advisors",
    "--help", "-h", "schema",
];

fn supabase(words: &[&str]) -> Option<Broken> {
    let at = words.iter().position(|w| *w == "supabase")?;
    let ["db", sub, ..] = words.get(at + 1..)? else { return None };
    (!SUPABASE_DB.contains(sub) && sub.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')).then(|| Broken {
        needle: format!("supabase db {sub}"),
        message: format!("`supabase db {sub}` does not exist"),
        why: "the db subcommands are branch, diff, dump, push, pull, remote, reset, lint, start, test, query and advisors",
        hint: "For point-in-time recovery of a hosted project: `supabase backups restore --timestamp <unix seconds>`; to load a dump: `psql` or `pg_restore` against the project's URL.".into(),
    })
}

/// Subcommands of `vercel env` (vercel/vercel CLI).
const VERCEL_ENV: &[&str] = &["ls", "list", "add", "rm", "remove", "pull", "run", "update", "--help", "-h"];

fn vercel(words: &[&str]) -> Option<Broken> {
    let at = words.iter().position(|w| *w == "vercel" || *w == "vc")?;
    let rest = words.get(at + 1..)?;
    if rest.contains(&"--rollback") {
        return Some(Broken {
            needle: "--rollback".into(),
            message: "`vercel --rollback` is not a flag".into(),
            why: "rolling back is a command of its own, and it takes the deployment to return to",
            hint: "`vercel rollback <deployment id or url>`; changed environment variables are not rolled back.".into(),
        });
    }
    let ["env", sub, args @ ..] = rest else { return None };
    if !VERCEL_ENV.contains(sub) && sub.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
        return Some(Broken {
            needle: format!("vercel env {sub}"),
            message: format!("`vercel env {sub}` does not exist"),
            why: "the env subcommands are ls, add, rm, pull, run and update",
            hint: "Set each variable with `vercel env add NAME production`, its value on standard input.".into(),
        });
    }
    let positional: Vec<&&str> = args
        .iter()
        .take_while(|a| !matches!(**a, "<" | "|" | "<<<" | "&&" | ";"))
        .filter(|a| !a.starts_with('-'))
        .collect();
    if *sub == "add"
        && let [name, value, ..] = positional.as_slice()
    {
        let environment = ["production", "preview", "development"].contains(&value.trim_matches('"'));
        let is_value = value.contains('$') || value.contains("://") || value.contains('=');
        if !environment && is_value {
            return Some(Broken {
                needle: (**value).to_string(),
                message: format!("`vercel env add {name}` takes the environment here, not the value"),
                why: "the value is read from standard input; as an argument it would also show in the process list",
                hint: format!(
                    "`printf %s {value} | vercel env add {name} production`, after `vercel env rm {name} production`."
                ),
            });
        }
    }
    None
}

fn pg_restore(words: &[&str]) -> Option<Broken> {
    let at = words.iter().position(|w| *w == "pg_restore")?;
    let rest: Vec<&str> = words
        .get(at + 1..)?
        .iter()
        .take_while(|w| !matches!(**w, "|" | "&&" | ";" | "||"))
        .map(|w| w.trim_matches(['"', '\'']))
        .collect();
    if let Some(url) =
        rest.iter().find(|w| ["s3://", "gs://", "az://", "https://", "http://"].iter().any(|p| w.starts_with(p)))
    {
        return Some(Broken {
            needle: (*url).to_string(),
            message: "pg_restore cannot read a URL".into(),
            why: "it reads a file, a directory or standard input",
            hint: format!("Fetch it first: `aws s3 cp {url} backup.dump`, then `pg_restore … backup.dump`."),
        });
    }
    if let Some(file) = rest.iter().find(|w| !w.starts_with('-') && (w.ends_with(".sql") || w.ends_with(".sql.gz"))) {
        return Some(Broken {
            needle: (*file).to_string(),
            message: "pg_restore cannot read an SQL script".into(),
            why: "it reads archives made with pg_dump's custom, directory or tar format; a plain dump is run with psql",
            hint: format!("`psql -v ON_ERROR_STOP=1 -f {}`", file.trim_end_matches(".gz")),
        });
    }
    let piped = at > 0 && words.get(..at).is_some_and(|b| b.last() == Some(&"|"));
    let parallel = rest.iter().any(|w| (w.starts_with("-j") && !w.starts_with("-j1")) || w.starts_with("--jobs"));
    (piped && parallel).then(|| Broken {
        needle: "pg_restore".into(),
        message: "pg_restore cannot restore in parallel from a pipe".into(),
        why: "parallel restore needs to seek in the archive",
        hint: "Write the archive to a file first, or leave out -j.".into(),
    })
}

/// `pg_create_restore_point()` given as the way to restore: it only names a place in the log for later.
fn sql(sheet: &mut Sheet<'_>, block: &Block) {
    let lower = block.code.to_lowercase();
    let recovering = sheet
        .document
        .plan
        .scenarios
        .iter()
        .flat_map(|s| &s.steps)
        .any(|s| s.phase == Some(Phase::Recover) && s.blocks.iter().any(|b| b.line == block.line))
        || lower.contains("restore to");
    if lower.contains("pg_create_restore_point") && recovering {
        let line = sheet.line_with("pg_create_restore_point", block.line + 1, block.line_end);
        sheet.say(
            Level::Error,
            "broken-command",
            (line, "pg_create_restore_point"),
            "this restores nothing",
            "pg_create_restore_point() only writes a named mark into the log, to be recovered to later",
            "Recover with the provider's point-in-time restore, or `breakglass pitr restore --to TIME --into beside`.",
        );
    }
}
