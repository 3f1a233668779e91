//! `pitr promote`: the damaged primary fenced, the recovered instance put into service, writes on again.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::contain::service_command;
use super::target::{Follow, expected, is_recovered, parse_args, recovered, seen, which_shadow};
use super::{Action, Ctx, Done, Preview, Spec, backend, promote_archive, reach};
use crate::error::{Error, ErrorKind, Result};
use crate::model::event::{Event, NOT_KEPT};
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::model::target::Identity;
use crate::postgres::connect::{query_error, quote_ident, run as run_sql};
use crate::postgres::{Database, identity};
use crate::recovery::health::wait_healthy;
use crate::recovery::promote::{
    Fenced, Inheritance, NewPrimary, already_fenced, collation_mismatches, fence, local_instance, prepared, promote,
    source_settings,
};
use crate::recovery::sequences::{self, Marks};
use crate::recovery::shadow::Shadow;
use crate::recovery::takeover::{self, Front};
use crate::recovery::verify::unlogged::unlogged;

/// How long a command that switches the service may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// The action `pitr promote`.
pub struct Promote;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Folder of the recovered instance; the incident's by default
    #[arg(long, value_name = "DIR")]
    shadow: Option<PathBuf>,
    /// The source cannot be asked, and you made sure yourself that it takes no writes: say how
    #[arg(long, value_name = "REASON")]
    source_is_fenced: Option<String>,
    /// This later timeline of the archive was given up, and whatever ran on it is down and stays down
    #[arg(long, value_name = "N")]
    leave_timeline: Option<u32>,
    /// Promote although text sorts by another version here than where the indexes were built: say why
    #[arg(long, value_name = "REASON")]
    accept_collation: Option<String>,
    /// Leave the recovered instance on its own socket instead of the address the damaged one listened on
    #[arg(long)]
    own_address: bool,
    /// How long health must be good before the service counts as restored
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    good_for: Duration,
    /// Wait at most this long for good health
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    health_timeout: Duration,
}

impl Action for Promote {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr promote",
            about: "Fence the damaged primary and put the recovered instance into service",
            risk: Risk::Destroy,
            fallback: "Stop the damaged server and make sure it is down; SELECT pg_promote() on the recovered one; set \
                       archive_mode = on and restart it; point the service at it; take a base backup.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("promote"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let s = which_shadow(ctx, args.shadow.as_deref()).await?;
            let (at, in_place) = recovered(ctx, &s).await?;
            let there = look_at_shadow(ctx, &at, &args).await?;
            if in_place || before(ctx, &s).is_some() {
                let lines = vec![format!("{at} is in service, as it should be; what is left to do is done")];
                return Ok(Preview { lines, target: Some(there), facts: Vec::new() });
            }
            let mut lines = Vec::new();
            let mut facts = vec![Event::TargetSeen { role: "shadow".into(), identity: there.clone() }];
            let mut target = there;
            let mut marks = Marks::load(&s.root);
            let Some(source) = damaged(ctx, &args)? else {
                promote_archive::alone(ctx, &s, &known(ctx, &target, None), args.leave_timeline).await?;
                lines.push(
                    "no address of the damaged server is known, and nothing is asked there: a person says it is fenced"
                        .into(),
                );
                lines.extend(of_the_new(ctx, &s, &at, &target, marks.as_ref()));
                return Ok(Preview { lines, target: Some(target), facts });
            };
            let asked = seen(ctx, &source).await;
            let answers = asked.as_ref().ok().map(|(_, id)| id);
            promote_archive::alone(ctx, &s, &known(ctx, &target, answers), args.leave_timeline).await?;
            match asked {
                Ok((mut c, id)) => {
                    match local_instance(&id) {
                        Some(i) => {
                            let kept = i.layout.data.display();
                            lines.push(format!("stops the damaged server on {kept} and keeps its files"));
                            if !args.own_address
                                && let Some(front) = takeover::front(&mut c).await?
                            {
                                let to = format!("{}, port {}", front.listen, front.port);
                                lines.push(format!("takes its place at {to}, with its rules, keys and settings"));
                            }
                        }
                        None => {
                            lines.push(format!("makes {source} read-only, closes it and ends its sessions"));
                            lines.push(
                                "it runs elsewhere: its address stays with it, clients must be pointed here".into(),
                            );
                        }
                    }
                    facts.push(Event::TargetSeen { role: "source".into(), identity: id.clone() });
                    target = id;
                    marks = sequences::read(&source).await.ok().or(marks);
                }
                Err(e) => lines.push(format!("the damaged server does not answer: {}", e.why)),
            }
            lines.extend(of_the_new(ctx, &s, &at, &target, marks.as_ref()));
            Ok(Preview { lines, target: Some(target), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

/// What is done with the recovered instance, for people.
fn of_the_new(ctx: &Ctx, s: &Shadow, at: &Database, target: &Identity, marks: Option<&Marks>) -> Vec<String> {
    let mut lines = vec![
        format!("promotes {at}, which stands {}, {}", s.target.stop(s.after), s.reached_lsn),
        "sets its sequences past those of the damaged cluster".into(),
        "archives into the same repository, on a new timeline".into(),
    ];
    lines.extend(marks.map_or_else(
        || vec!["NOT KNOWN where the damaged cluster's sequences stood: ids may be given out twice".into()],
        Marks::warnings,
    ));
    if ctx.settings.service.switch.is_empty() {
        lines.push("no command is configured that switches the service: switch it yourself".into());
    }
    if !target.other_databases.is_empty() {
        lines.push(format!("these databases go back, too: {}", target.other_databases.join(", ")));
    }
    lines
}

/// The recovered instance itself, which an earlier try may have promoted already, and the servers that are fenced first: the one
/// that answers, and those that this incident has seen.
fn known<'a>(ctx: &'a Ctx, own: &'a Identity, there: Option<&'a Identity>) -> Vec<&'a Identity> {
    let facts = ctx.incident.as_ref().map(|i| &i.facts);
    let source = facts.and_then(|f| f.source.as_ref()).map(|(id, _)| id);
    let promoted = facts.and_then(|f| f.promoted.as_ref()).map(|(id, _, _)| id);
    [own].into_iter().chain(there).chain(source).chain(promoted).collect()
}

/// The server that is replaced; none where nobody knows its address and a person says that it is fenced.
///
/// # Errors
/// Its address is not known, and nobody says so.
fn damaged(ctx: &Ctx, args: &Args) -> Result<Option<Database>> {
    match reach::replaced(ctx) {
        Ok(source) => Ok(Some(source)),
        Err(_) if args.source_is_fenced.is_some() => Ok(None),
        Err(e) => Err(Error::config("the address of the damaged server is not known")
            .why(format!("whether it still takes writes is asked there, before anything else takes them; {}", e.what))
            .hint("set DATABASE_URL to the address it had, also when it is dead: postgres://USER@HOST:5432/DATABASE")
            .hint("where it is gone for good, no address is needed: promote with --source-is-fenced REASON")),
    }
}

fn kept_line(kept: &str) -> String {
    match kept.starts_with(NOT_KEPT) {
        true => format!("the damaged cluster: {kept}"),
        false => format!("the damaged cluster is kept: {kept}"),
    }
}

async fn look_at_shadow(ctx: &Ctx, at: &Database, args: &Args) -> Result<Identity> {
    let mut c = at.connect().await?;
    let id = identity(&mut c, at).await?;
    expected(ctx, &id, false)?;
    let different = collation_mismatches(&mut c).await?;
    if !different.is_empty() && args.accept_collation.is_none() {
        return Err(Error::refused("text sorts differently here than where the indexes were built")
            .why(different.join("; "))
            .hint(
                "recover on a machine with the same C library, or promote with --accept-collation REASON and reindex",
            ));
    }
    Ok(id)
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    let s = which_shadow(ctx, args.shadow.as_deref()).await?;
    let source = if before(ctx, &s).is_some() { reach::replaced(ctx).ok() } else { damaged(ctx, args)? };
    let (at, in_place) = recovered(ctx, &s).await?;
    let name = at.name().to_string();
    let there = look_at_shadow(ctx, &at, args).await?;
    let mut facts = Vec::new();
    for (gate, reason) in [("collation", &args.accept_collation), ("fence", &args.source_is_fenced)] {
        if let Some(reason) = reason {
            facts.push(Event::GateWaived { gate: gate.into(), reason: reason.clone(), step: None });
        }
    }
    let recovery = backend::recovery_of(ctx, s.backend).await?;
    let (origin, place) = (backend::origin(&*recovery)?, recovery.place());

    let (fenced, new) = if let Some(fenced) = before(ctx, &s) {
        ctx.out.line("it was promoted before in this incident; what is left to do is done");
        (fenced, NewPrimary { database: at, identity: there, sequences: None, notes: Vec::new() })
    } else if in_place {
        // An earlier promotion came that far and was broken off.
        let fenced = down_already(ctx, args, &s)?;
        (fenced, NewPrimary { database: at, identity: there, sequences: None, notes: Vec::new() })
    } else {
        let (fenced, inheritance) = fence_source(ctx, args, source.as_ref(), &there, &s).await?;
        ctx.out.line(&format!("fenced: {}", fenced.how));
        let new = promote(&s, &name, &there.system_identifier, origin, &inheritance).await?;
        (fenced, new)
    };
    ctx.out.line(&format!("promoted: timeline {}, archiving into {place}", new.identity.timeline));
    let mut left = new.notes.clone();
    if s.backend == crate::config::Backend::PgBackRest {
        left.push(format!(
            "let pg1-path of the stanza name {} in pgBackRest's configuration, then take a backup with it: pgbackrest backup",
            s.root.join("data").display()
        ));
    }
    // Promoted it is: what cannot be seen any more is left to a person.
    left.extend(writes_on(ctx, &new.database).await.unwrap_or_else(|e| {
        let reset = format!("ALTER DATABASE {} RESET default_transaction_read_only", quote_ident(new.database.name()));
        Some(format!(
            "see that it takes writes, which could not be asked ({}: {}); where it does not: {reset}",
            e.what, e.why
        ))
    }));
    let there = |d: &Database| new.identity.host == d.host() && new.identity.port == d.port();
    let taken = in_place || source.as_ref().is_some_and(there);
    match &new.sequences {
        Some(a) => {
            for moved in &a.moved {
                ctx.out.line(&format!("sequence {moved}: past what the damaged cluster gave out"));
            }
            left.extend(a.left.iter().map(|l| format!("see that no id is given out twice: {l}")));
        }
        None if in_place || before(ctx, &s).is_some() => {
            // What an earlier try said and could not do is as open as then.
            let marks = Marks::load(&s.root).unwrap_or_default();
            let open = sequences::unknown(&new.database, &marks).await.unwrap_or_default();
            left.extend(open.into_iter().map(|l| format!("see that no id is given out twice: {l}")));
        }
        None => left
            .push("see that no id is given out twice: nobody knows where the damaged cluster's sequences stood".into()),
    }
    facts.push(Event::TargetSeen { role: "source".into(), identity: new.identity.clone() });
    facts.push(Event::Promoted { identity: new.identity.clone(), kept: fenced.kept.clone() });

    if ctx.settings.service.switch.is_empty() {
        if taken {
            ctx.out.line(&format!("it answers where the damaged one did: {}", new.database.url()));
        } else {
            left.push(format!("point the service at {}", new.database.url()));
        }
        if !taken && source.as_ref().is_none_or(|d| !d.is_socket()) && !args.own_address {
            let conf = s.instance()?.layout.config;
            left.push(format!(
                "it listens on a socket only: before clients of other machines can use it, set listen_addresses in {0} and \
                 their rules in {1}, and restart it",
                conf.join("postgresql.conf").display(),
                conf.join("pg_hba.conf").display()
            ));
        }
    } else {
        service_command(ctx, &filled(&ctx.settings.service.switch, &new.database), COMMAND_LIMIT)
            .await
            .map_err(|e| still_promoted(e, &new.database))?;
        ctx.out.line("service switched");
        if !ctx.settings.service.resume.is_empty() {
            service_command(ctx, &filled(&ctx.settings.service.resume, &new.database), COMMAND_LIMIT)
                .await
                .map_err(|e| still_promoted(e, &new.database))?;
            ctx.out.line("writes resumed");
        }
    }
    // Whether the archive takes the new timeline is found out meanwhile: users do not wait for that.
    let follow = Follow::new(ctx);
    let health = async {
        match &ctx.settings.service.health_url {
            Some(page) => wait_healthy(page, args.good_for, args.health_timeout, &*follow, &ctx.cancel).await.map(Some),
            None => Ok(None),
        }
    };
    let (seen, archive) =
        tokio::join!(health, promote_archive::arrives(ctx, &s, &new.database, new.identity.timeline, &follow));
    let seen = seen?;
    if let Some(seen) = &seen {
        ctx.out.line(&seen.describe());
        facts.push(Event::HealthSeen { healthy: seen.healthy, components: seen.components.clone() });
    }
    let healthy = seen.map(|s| s.healthy);
    let gap = archive.as_ref().is_err_and(|e| e.kind == ErrorKind::Check);
    if let Err(e) = archive {
        ctx.out.line(&e.to_string());
        left.push(match gap {
            true => "take a base backup now: breakglass backup create --physical".into(),
            false => "see that the new timeline is archived: it was not yet".into(),
        });
    }
    if let Ok(mut c) = new.database.connect().await
        && let Ok(list) = prepared(&mut c).await
    {
        left.extend(
            list.into_iter()
                .map(|p| format!("decide on the prepared transaction {p}: COMMIT PREPARED or ROLLBACK PREPARED")),
        );
    }
    left.extend(emptied(&new.database).await);
    for l in &left {
        ctx.out.line(&format!("TO DO: {l}"));
    }
    ctx.out.line(&kept_line(&fenced.kept));
    let earlier = ctx.incident.as_ref().and_then(|s| s.facts.promoted.as_ref()).map(|(_, kept, _)| kept);
    if let Some(first) = earlier.filter(|first| **first != fenced.kept) {
        ctx.out.line(&format!("the cluster that was damaged first is kept, too: {first}"));
    }
    let start = s.instance()?.start_command();
    ctx.out.line(&format!("to start it again later, after the machine was: {start}"));
    ctx.out.line("take a base backup next: the new timeline has none");
    let json = serde_json::json!({
        "identity": new.identity, "url": new.database.url(), "kept": fenced.kept, "fence": fenced.how,
        "healthy": healthy, "to_do": left, "start": start,
    });
    let summary = format!("{} runs on {}, timeline {}", name, new.database.host(), new.identity.timeline);
    let mut done = match healthy {
        _ if gap => Done::check_failed(format!("{summary}; the archive lacks a part of its log")),
        Some(false) => Done::check_failed(format!("{summary}; health is not good yet")),
        _ => Done::ok(summary),
    };
    done.facts = facts;
    Ok(done.json(json))
}

/// That unlogged tables came back empty. Those that were filled since need nothing, and what cannot be asked says nothing.
async fn emptied(at: &Database) -> Option<String> {
    let mut c = at.connect().await.ok()?;
    let mut empty = Vec::new();
    for (schema, name) in unlogged(&mut c).await.ok()? {
        let sql = format!("SELECT EXISTS (SELECT FROM ONLY {}.{})", quote_ident(&schema), quote_ident(&name));
        if !sqlx::query_scalar::<_, bool>(&sql).fetch_one(&mut c).await.unwrap_or(false) {
            empty.push(format!("{schema}.{name}"));
        }
    }
    (!empty.is_empty())
        .then(|| format!("fill the unlogged tables again, which no recovery brings back: {}", empty.join(", ")))
}

/// Containment made new transactions of the damaged database read-only. Where the moment lies behind it, the recovered one was
/// recovered with that setting: it is taken back, because writes resume here. What is left to a person otherwise.
async fn writes_on(ctx: &Ctx, at: &Database) -> Result<Option<String>> {
    let mut c = at.connect().await?;
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s \
               JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
               WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0 \
                 AND 'default_transaction_read_only=on' = ANY (s.setconfig))";
    let off: bool = sqlx::query_scalar(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    if !off {
        return Ok(None);
    }
    let reset = format!("ALTER DATABASE {} RESET default_transaction_read_only", quote_ident(at.name()));
    if ctx.incident.as_ref().is_none_or(|i| i.facts.contained.is_none()) {
        return Ok(Some(format!("it takes no writes, and not by our doing; to change that: {reset}")));
    }
    run_sql(&mut c, "SET default_transaction_read_only = off").await?;
    run_sql(&mut c, &reset).await?;
    ctx.out.line("writes are on here: the moment lies behind the containment, which was recovered along with the rest");
    Ok(None)
}

/// What is known of the fence, when this very instance was promoted before in this incident.
fn before(ctx: &Ctx, s: &Shadow) -> Option<Fenced> {
    let (identity, kept, _) = ctx.incident.as_ref()?.facts.promoted.as_ref()?;
    is_recovered(s, identity).then(|| Fenced { how: "fenced when it was promoted".into(), kept: kept.clone() })
}

/// Fences the source on the connection that sees who it is; learns first what its successor takes over.
async fn fence_source(
    ctx: &Ctx,
    args: &Args,
    source: Option<&Database>,
    there: &Identity,
    s: &Shadow,
) -> Result<(Fenced, Inheritance)> {
    // Clients are sent to its place by its address alone.
    let wanted = |front: Option<Front>| front.filter(|_| !args.own_address).and_then(|f| Some((f, source.cloned()?)));
    let before = || Inheritance {
        settings: s.source_settings.clone(),
        marks: Marks::load(&s.root),
        place: wanted(s.source_front.clone()),
    };
    let said = |reason: &str, at: String| Fenced {
        how: format!("said by a person: {reason}"),
        kept: format!("{NOT_KEPT}{at} ({reason})"),
    };
    let Some(source) = source else {
        promote_archive::alone(ctx, s, &known(ctx, there, None), args.leave_timeline).await?;
        let reason = args.source_is_fenced.as_deref().unwrap_or_default();
        return Ok((said(reason, String::new()), before()));
    };
    let asked = seen(ctx, source).await;
    let answers = asked.as_ref().ok().map(|(_, id)| id);
    promote_archive::alone(ctx, s, &known(ctx, there, answers), args.leave_timeline).await?;
    match asked {
        Ok((mut c, id)) => {
            if id.system_identifier != there.system_identifier {
                return Err(Error::refused(format!("the source is cluster {}", id.system_identifier))
                    .why(format!("the recovered instance is {}", there.system_identifier))
                    .hint("nothing was touched"));
            }
            let settings = source_settings(&mut c).await?;
            // Only a server that we stop leaves its place.
            let place = match local_instance(&id) {
                Some(_) if !args.own_address => wanted(takeover::front(&mut c).await?),
                _ => None,
            };
            drop(c);
            let marks = match sequences::read(source).await {
                Ok(marks) => Some(marks.keep(&s.root, s.user()?.as_ref())?),
                Err(e) => {
                    ctx.out.line(&format!("where the sequences stand cannot be read now: {e}"));
                    Marks::load(&s.root)
                }
            };
            Ok((fence(source, &id).await?, Inheritance { settings, marks, place }))
        }
        Err(e) if e.kind == crate::error::ErrorKind::Refused => Err(e),
        Err(e) => {
            if let Some(fenced) = fenced_before(ctx, source, there).await {
                return Ok((fenced, before()));
            }
            match &args.source_is_fenced {
                Some(reason) => {
                    let at = format!(", and nothing answers at {}:{}", source.host(), source.port());
                    Ok((said(reason, at), before()))
                }
                None => Err(Error::refused(
                    "the damaged server does not answer, so it cannot be proved that it takes no writes",
                )
                .why(e.why)
                .hint("make sure that it is down and stays down, then promote with --source-is-fenced REASON")),
            }
        }
    }
}

/// The damaged server, when its successor answers in its place already: it must be down, by what was last seen of it.
fn down_already(ctx: &Ctx, args: &Args, s: &Shadow) -> Result<Fenced> {
    let last = ctx.incident.as_ref().and_then(|i| i.facts.source.as_ref()).map(|(id, _)| id);
    let instance = last.filter(|id| !is_recovered(s, id)).and_then(local_instance);
    match (instance, &args.source_is_fenced) {
        (Some(i), _) if !i.is_running() => {
            let kept = i.layout.data.display().to_string();
            Ok(Fenced { how: format!("server on {kept} is down, its successor answers in its place"), kept })
        }
        (Some(i), _) => Err(Error::target(format!("the damaged server on {} runs", i.layout.data.display()))
            .why("its successor answers in its place")
            .hint("stop it and what supervises it (systemctl stop postgresql), then promote again")),
        (None, Some(reason)) => {
            Ok(Fenced { how: format!("said by a person: {reason}"), kept: format!("{NOT_KEPT} ({reason})") })
        }
        (None, None) => {
            Err(Error::refused("the recovered instance is in service already, and nothing is known of the damaged one")
                .hint("make sure that it is down and stays down, then promote with --source-is-fenced REASON"))
        }
    }
}

/// A promotion that was broken off after the fence finds the source down: proved by where it was last seen.
async fn fenced_before(ctx: &Ctx, source: &Database, there: &Identity) -> Option<Fenced> {
    let (last, _) = ctx.incident.as_ref()?.facts.source.as_ref()?;
    if last.system_identifier != there.system_identifier {
        return None;
    }
    already_fenced(source, last).await
}

fn still_promoted(e: Error, at: &Database) -> Error {
    e.hint(format!("the recovered instance is promoted: {}; switch the service by hand", at.url()))
}

/// The command with `{host}`, `{port}`, `{database}` replaced.
pub(super) fn filled(argv: &[String], at: &Database) -> Vec<String> {
    argv.iter()
        .map(|a| {
            a.replace("{host}", at.host()).replace("{port}", &at.port().to_string()).replace("{database}", at.name())
        })
        .collect()
}
