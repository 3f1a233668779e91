//! `breakglass notify`: hands one message to the configured command, on its standard input. Never by itself: a person reads
//! the message and says yes.

use std::time::Duration;

use clap::{Arg, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::{Action, Ctx, Done, Preview, Spec, parse_matches};
use crate::error::{Error, Result};
use crate::model::StepId;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::process::{ChildSpec, RunOptions, capture};

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest message read from standard input, in bytes.
const LONGEST: u64 = 64 * 1024;

/// The action.
pub struct Notify;

impl Action for Notify {
    fn spec(&self) -> Spec {
        Spec {
            name: "notify",
            about: "Hand a message, read from standard input, to the command of [notify]",
            risk: Risk::Change,
            fallback: "Copy the message and send it by hand.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("notify")
            .arg(
                Arg::new("audience")
                    .long("audience")
                    .value_name("WHO")
                    .required(true)
                    .help("Whom it is for: team, customers, …"),
            )
            // Set by the console: the step whose message this is.
            .arg(Arg::new("step").long("step").value_name("ID").hide(true))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        let lines = vec![format!("runs {}", super::contain::shown(&ctx.settings.notify))];
        Box::pin(async move { Ok(Preview { lines, ..Preview::default() }) })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(send(ctx, args))
    }
}

async fn send(ctx: &Ctx, args: &[String]) -> Result<Done> {
    let matches = parse_matches(Notify.arguments(), args)?;
    let audience = matches.get_one::<String>("audience").cloned().unwrap_or_default();
    super::may_leave(ctx, "the message to the configured command")?;
    let Some((program, words)) = ctx.settings.notify.split_first() else {
        return Err(Error::config("no command is configured that takes messages")
            .hint("set command in the section [notify] of breakglass.toml, or send the message by hand"));
    };
    let text = match (&ctx.code, &ctx.incident) {
        (Some(text), _) => text.clone(),
        (None, Some(_)) => return Err(Error::usage("the message is missing")),
        (None, None) => from_stdin()?,
    };
    if text.trim().is_empty() {
        return Err(Error::usage("the message is empty"));
    }
    let fill = |w: &String| w.replace("{audience}", &audience);
    let mut child = ChildSpec::new(fill(program))
        .args(words.iter().map(fill))
        .inherit_env()
        .env("BREAKGLASS_AUDIENCE", &audience)
        .stdin(text.as_bytes());
    if let Some(lock) = &ctx.children_lock {
        child = child.pass_fd(std::os::fd::AsFd::as_fd(&**lock));
    }
    let options = RunOptions { timeout: Some(LIMIT), cancel: ctx.cancel.clone(), ..RunOptions::default() };
    let captured = capture(&child, &options).await?;
    let said = captured.text();
    said.lines().filter(|l| !l.trim().is_empty()).for_each(|l| ctx.out.line(l));
    captured.ok(&child)?;
    let summary = format!("the message to {audience} was taken by the command");
    let step = matches.get_one::<String>("step").map(StepId::new);
    let fact = Event::MessageSent { audience: audience.clone(), text, how: Some("command".into()), step };
    Ok(Done::ok(summary).json(json!({"audience": audience, "sent": true})).fact(fact))
}

fn from_stdin() -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::io::stdin()
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|e| Error::usage("the message cannot be read from standard input").why(e))?;
    if text.len() as u64 > LONGEST {
        return Err(Error::usage(format!("the message is longer than {LONGEST} bytes")));
    }
    Ok(text)
}
