//! Shell blocks: run by bash as they stand in the plan, with what earlier blocks exported.
//!
//! The block is sourced from a file of its own, below an EXIT trap that reports its variables and folder on a private
//! descriptor. A block that ends without the trap (its own EXIT trap, `exec`, `kill -9`) leaves the old ones, and says so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use futures::future::BoxFuture;

use super::carried::{self, Carried};
use super::output::LineMaker;
use super::{Action, Ctx, Done, Preview, Spec};
use crate::config::settings::DATABASE_PASSWORD;
use crate::error::{Context, Error, Result};
use crate::model::event::Outcome;
use crate::model::plan::Risk;
use crate::model::{Redactor, parse_duration};
use crate::process::user::find_program;
use crate::process::{ChildSpec, Ending, RunOptions, capture, run};

/// The action `shell`.
pub struct Shell;

/// What its arguments say.
struct Options {
    timeout: Option<Duration>,
    expect: Option<String>,
    risk: Risk,
    cwd: Option<PathBuf>,
    vars: Vec<(String, String)>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let m: ArgMatches = Shell.arguments().no_binary_name(true).try_get_matches_from(args).map_err(|e| {
            Error::usage("the attributes of a shell block cannot be used").why(e.to_string().trim_end())
        })?;
        let text = |id: &str| m.get_one::<String>(id).cloned();
        let timeout = text("timeout").map(|t| parse_duration(&t)).transpose().map_err(Error::usage)?;
        let vars = m.get_many::<String>("var").into_iter().flatten().filter_map(|v| v.split_once('='));
        Ok(Self {
            timeout,
            expect: text("expect"),
            risk: risk_word(text("risk").as_deref()).unwrap_or(Risk::Change),
            cwd: text("cwd").map(PathBuf::from),
            vars: vars.map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        })
    }
}

/// The risk named by a word of a plan or command line.
pub(super) fn risk_word(word: Option<&str>) -> Option<Risk> {
    [Risk::Read, Risk::Change, Risk::Destroy].into_iter().find(|r| Some(r.word()) == word)
}

/// Arguments that shell and SQL blocks share: the plan's attributes.
pub(super) fn block_arguments(command: Command) -> Command {
    command
        .arg(
            Arg::new("timeout").long("timeout").value_name("DURATION").help("End it when it takes longer, such as 20m"),
        )
        .arg(Arg::new("risk").long("risk").value_parser(["read", "change", "destroy"]).help("What it can do"))
}

impl Action for Shell {
    fn spec(&self) -> Spec {
        Spec {
            name: "shell",
            about: "Run a shell block of a plan",
            risk: Risk::Change,
            fallback: "Copy the block and run it in a shell of your own; then say in a note what it printed.",
        }
    }

    fn arguments(&self) -> Command {
        block_arguments(Command::new("shell"))
            .arg(
                Arg::new("expect")
                    .long("expect")
                    .value_name("TEXT")
                    .help("Failed unless a line of the output holds this"),
            )
            .arg(Arg::new("cwd").long("cwd").value_name("DIR").help("Folder of the first block"))
            .arg(
                Arg::new("var")
                    .long("var")
                    .value_name("NAME=VALUE")
                    .action(clap::ArgAction::Append)
                    .help("Set a variable"),
            )
    }

    fn risk(&self, args: &[String]) -> Risk {
        Options::parse(args).map_or(Risk::Change, |o| o.risk)
    }

    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let options = Options::parse(args)?;
            let code = code(ctx)?;
            let mut lines =
                vec![format!("runs as user {} with {}", crate::process::user::current_name(), shell()?.display())];
            if let Some(cwd) = folder(ctx, &options)? {
                lines.push(format!("in the folder {}", cwd.display()));
            }
            if let Some(t) = options.timeout {
                lines.push(format!("ended after {}", crate::model::format_clock(t)));
            }
            if let Some(what) = known_destroy(code) {
                lines.push(format!("can destroy: it says {what:?}"));
            }
            let check = ChildSpec::new(shell()?).arg("-n").stdin(code.as_bytes());
            let limit = RunOptions { timeout: Some(Duration::from_secs(5)), ..RunOptions::default() };
            let syntax = capture(&check, &limit).await?;
            if !syntax.end.success() {
                lines.push(format!("not valid shell: {}", syntax.complaint()));
            }
            Ok(Preview { lines, ..Preview::default() })
        })
    }

    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { execute(ctx, &Options::parse(args)?).await })
    }
}

fn code(ctx: &Ctx) -> Result<&str> {
    ctx.code
        .as_deref()
        .ok_or_else(|| Error::usage("there is no block to run").hint("Shell blocks are run from a step of a plan."))
}

/// bash, else sh.
fn shell() -> Result<PathBuf> {
    find_program("bash")
        .or_else(|| find_program("sh"))
        .ok_or_else(|| Error::target("this system has neither bash nor sh in PATH"))
}

async fn execute(ctx: &Ctx, options: &Options) -> Result<Done> {
    let code = code(ctx)?;
    let shell = shell()?;
    let scratch = match &ctx.run_dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir(),
    };
    let block = write_block(&scratch, code)?;
    let mut report = carried::report_file(&scratch)?;
    let carried = match &ctx.incident_dir {
        Some(dir) => Carried::load(dir)?,
        None => Carried::default(),
    };
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    env.extend(connection_env(ctx));
    carried.apply(&mut env);
    if let Some(state) = &ctx.incident {
        env.extend(state.vars.iter().map(|(n, v)| (n.into(), v.into())));
    }
    env.extend(ctx.secrets.held().map(|(n, v)| (n.into(), v.expose().into())));
    env.extend(options.vars.iter().map(|(n, v)| (n.into(), v.into())));

    let mut spec = ChildSpec::new(&shell).bare_env().pass_fd(report.as_fd());
    if shell.file_name() == Some(OsStr::new("bash")) {
        spec = spec.args(["--noprofile", "--norc"]);
    }
    spec = spec.arg("-c").arg(wrapper(report.as_raw_fd())).arg("breakglass").arg(&block.0).envs(&env);
    if let Some(cwd) = folder(ctx, options)? {
        spec = spec.cwd(cwd);
    }
    let run_options =
        RunOptions { timeout: options.timeout, cancel: ctx.cancel.clone(), merge: true, ..RunOptions::default() };
    let mut expected = options.expect.as_ref().map(|text| (text.clone(), LineMaker::new(Redactor::default()), false));
    let end = run(&spec, &run_options, |_, bytes| {
        ctx.out.bytes(bytes);
        if let Some((text, maker, seen)) = &mut expected
            && !*seen
        {
            maker.feed(bytes, |line| *seen |= line.as_str().contains(text.as_str()));
        }
    })
    .await?;
    if let Some((text, maker, seen)) = &mut expected {
        maker.finish(|line| *seen |= line.as_str().contains(text.as_str()));
    }
    // What the block set of the variables we gave it from the incident is not carried: the incident's value is the newer one.
    if let Some(dir) = &ctx.incident_dir {
        let mut bytes = Vec::new();
        report
            .seek(SeekFrom::Start(0))
            .and_then(|_| report.read_to_end(&mut bytes))
            .state(|| "cannot read a block's variables".into())?;
        match carried.after(&env, &bytes) {
            Some(next) => next.save(dir)?,
            None => ctx.out.line("breakglass: the block ended without reporting its variables; the old ones are kept"),
        }
    }
    if end.left_behind {
        ctx.out.line("breakglass: something the block started in the background goes on");
    }
    let missing = expected.filter(|(_, _, seen)| !seen).map(|(text, _, _)| text);
    Ok(match (end.ending, end.code, missing) {
        (Ending::Cancelled, code, _) => Done { outcome: Outcome::Cancelled, exit_code: code, ..Done::ok("cancelled") },
        (Ending::TimedOut, code, _) => {
            let limit = crate::model::format_clock(options.timeout.unwrap_or_default());
            failed(code, format!("stopped after its time limit of {limit}"))
        }
        (Ending::Exited, 0, None) => Done::ok("exit code 0"),
        (Ending::Exited, 0, Some(text)) => failed(1, format!("exit code 0, but no line of the output says {text:?}")),
        (Ending::Exited, code, _) => failed(code, end.describe()),
    })
}

fn failed(code: i32, summary: String) -> Done {
    // A shell that was ended by TERM may still say 0; a failed run never does.
    Done { outcome: Outcome::Failed, exit_code: if code == 0 { 1 } else { code }, ..Done::ok(summary) }
}

/// The block's file; removed when dropped.
struct BlockFile(PathBuf);

impl Drop for BlockFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write_block(folder: &Path, code: &str) -> Result<BlockFile> {
    let path = folder.join(format!("block-{}.sh", std::process::id()));
    let what = || format!("cannot write the block to {}", path.display());
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).state(what)?;
    file.write_all(code.as_bytes()).and_then(|()| file.write_all(b"\n")).state(what)?;
    Ok(BlockFile(path))
}

/// The command given to the shell: the trap is set before the block is read, so that a syntax error or `exit` still reports.
fn wrapper(fd: i32) -> String {
    let env = find_program("env").unwrap_or_else(|| PathBuf::from("/usr/bin/env"));
    let env = crate::process::spawn::quoted(env.as_os_str());
    let mark = carried::END_MARK;
    // `/dev/fd` because a plain `sh` may not know descriptors above 9. Appending, since both commands open it anew.
    format!(
        "trap '__breakglass_code=$?; {{ PWD=\"$PWD\" {env} -0 && {env} -i {mark}=1 {env} -0; }} >>/dev/fd/{fd} 2>/dev/null; \
         exit \"$__breakglass_code\"' EXIT\n__breakglass_block=\"$1\"; set --; . \"$__breakglass_block\"",
    )
}

/// Where the block starts: where the last one ended, else where the plan says.
fn folder(ctx: &Ctx, options: &Options) -> Result<Option<PathBuf>> {
    let carried = match &ctx.incident_dir {
        Some(dir) => Carried::load(dir)?.cwd,
        None => None,
    };
    Ok(carried.filter(|p| p.is_dir()).or_else(|| options.cwd.clone()))
}

/// The target as PostgreSQL's own tools understand it. It replaces whatever the environment says, so that in a drill no block
/// can reach another database.
fn connection_env(ctx: &Ctx) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: &str| env.push((name.into(), value.into()));
    if let Some(c) = &ctx.settings.database {
        set("PGHOST", &c.host);
        set("PGPORT", &c.port.to_string());
        set("PGUSER", &c.user);
        set("PGDATABASE", &c.database);
        if let Some(mode) = &c.sslmode {
            set("PGSSLMODE", mode);
        }
        let password = ctx.secrets.get(DATABASE_PASSWORD).map(|s| s.expose().to_string());
        set("PGPASSWORD", password.as_deref().unwrap_or_default());
        set("DATABASE_URL", &url(c, password.as_deref()));
    }
    if let Some(dir) = &ctx.settings.bin_dir {
        let path = std::env::var_os("PATH").unwrap_or_else(|| crate::process::spawn::FALLBACK_PATH.into());
        let all = std::env::split_paths(&path).chain([dir.clone()]);
        if let Ok(path) = std::env::join_paths(all) {
            env.push(("PATH".into(), path));
        }
    }
    env
}

fn url(c: &crate::config::Connection, password: Option<&str>) -> String {
    let part = |text: &str| -> String {
        text.bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect()
    };
    let login = match password {
        Some(p) => format!("{}:{}", part(&c.user), part(p)),
        None => part(&c.user),
    };
    let ssl = c.sslmode.as_ref().map(|m| format!("sslmode={m}"));
    if c.host.starts_with('/') {
        let query: Vec<String> =
            [Some(format!("host={}&port={}", part(&c.host), c.port)), ssl].into_iter().flatten().collect();
        return format!("postgres://{login}@/{}?{}", part(&c.database), query.join("&"));
    }
    let host = if c.host.contains(':') { format!("[{}]", c.host) } else { c.host.clone() };
    let query = ssl.map_or_else(String::new, |s| format!("?{s}"));
    format!("postgres://{login}@{host}:{}/{}{query}", c.port, part(&c.database))
}

/// Words that a block which can destroy data or take a service down is known by. Such a block is `destroy` whatever else is said.
pub fn known_destroy(code: &str) -> Option<&'static str> {
    const KNOWN: [&str; 24] = [
        "drop database",
        "drop table",
        "drop schema",
        "drop owned",
        "truncate ",
        "dropdb",
        "rm -rf",
        "rm -fr",
        "rm -r ",
        "mkfs",
        "dd of=",
        "wipefs",
        "shred ",
        "pg_resetwal",
        "--clean",
        "terraform destroy",
        "kubectl delete",
        "docker volume rm",
        "aws s3 rm",
        "aws rds delete",
        "gcloud sql instances delete",
        "gsutil rm",
        "redis-cli flushall",
        "zfs destroy",
    ];
    let flat = code.to_lowercase().lines().filter(|l| !l.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let flat = flat.split([' ', '\t']).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ") + " ";
    KNOWN.into_iter().find(|k| flat.contains(k))
}
