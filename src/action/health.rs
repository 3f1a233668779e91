//! `breakglass health`: what the service says of itself, who the database is, and what would be lost right now.

use clap::Command;
use futures::future::BoxFuture;
use serde_json::json;

use super::target::{blocking, now};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::backup::catalog::Catalog;
use crate::config::settings::REPOSITORY_KEY;
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::format_clock;
use crate::model::plan::Risk;
use crate::recovery::{exposure, health};

/// The action.
pub struct Health;

impl Action for Health {
    fn spec(&self) -> Spec {
        Spec {
            name: "health",
            about: "Ask service and database how they are; exit 1 when something is not well",
            risk: Risk::Read,
            fallback: "Open the service's health page; connect with psql and look at pg_stat_activity and pg_stat_archiver.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("health")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            if let Some(url) = &ctx.settings.service.health_url {
                lines.push(format!("asks {url}"));
            }
            if let Some(c) = &ctx.settings.database {
                lines.push(format!("connects to {c} and reads"));
            }
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(check(ctx))
    }
}

/// Whether the repository is looked at: from the shell and the scheduler. Within an incident it is the service that is asked
/// about, again and again, and opening a repository takes its time.
fn looks_at_repository(ctx: &Ctx) -> bool {
    ctx.incident.is_none() && ctx.settings.repository.is_some() && ctx.secrets.get(REPOSITORY_KEY).is_some()
}

/// Status and detail of the repository, of its newest backup, and of the chain of its catalog when that was rolled back.
fn repository(ctx: &Ctx) -> Vec<(&'static str, String, String)> {
    let down = |e: &Error| vec![("repository", "down".to_string(), e.what.clone() + ": " + &e.why)];
    let (unlocked, catalog) = match reach::unlocked(ctx).and_then(|u| Ok((Catalog::load(&u)?, u))) {
        Ok((catalog, unlocked)) => (unlocked, catalog),
        Err(e) => return down(&e),
    };
    let mut out = vec![("repository", "operational".to_string(), format!("{} backups", catalog.backups.len()))];
    if let Some(e) = reach::rolled_back(ctx, &unlocked, &catalog) {
        out.push(("catalog", "rolled back".into(), e.what));
    }
    let limit = std::time::Duration::from_secs(ctx.settings.policy.backup_max_age_s);
    let newest = catalog.backups.iter().filter(|b| b.verified_at.is_some()).max_by_key(|b| b.manifest.finished_at);
    out.push(match newest {
        None => ("backup", "missing".into(), "no verified backup".into()),
        Some(b) => {
            let age = now().since(b.manifest.finished_at);
            let word = if age > limit { "too old" } else { "operational" };
            ("backup", word.into(), format!("{}, verified, {} old", b.manifest.id, format_clock(age)))
        }
    });
    out
}

async fn check(ctx: &Ctx) -> Result<Done> {
    let nothing = ctx.settings.service.health_url.is_none() && ctx.settings.database.is_none();
    if nothing && !looks_at_repository(ctx) {
        return Err(Error::config("nothing to look at: neither a health URL nor a database is configured")
            .hint("set service.health_url and target.url in breakglass.toml, or DATABASE_URL"));
    }
    let mut components = std::collections::BTreeMap::new();
    let mut details = std::collections::BTreeMap::new();
    let mut healthy = true;
    if let Some(url) = &ctx.settings.service.health_url {
        let seen = health::ask(url).await?;
        healthy &= seen.healthy;
        for (name, status) in &seen.components {
            let detail = seen.details.get(name).map(|d| format!("  {d}")).unwrap_or_default();
            ctx.out.line(&format!("{name:<12} {status}{detail}"));
        }
        components = seen.components;
        details = seen.details;
    }
    let mut facts = Vec::new();
    let mut sample = None;
    if ctx.settings.database.is_some() {
        let at = reach::database(ctx)?;
        match look(ctx, &at).await {
            Ok((identity, exposed)) => {
                ctx.out.line(&format!(
                    "{:<12} {} on {}:{}, system {}, timeline {}{}",
                    "postgresql",
                    identity.database,
                    identity.host,
                    identity.port,
                    identity.system_identifier,
                    identity.timeline,
                    if identity.in_recovery { ", in recovery" } else { "" }
                ));
                components.insert("postgresql".into(), "operational".into());
                // Well or not, it is not the one that is meant.
                if let Err(e) = super::target::expected(ctx, &identity, at.host() == identity.host) {
                    healthy = false;
                    ctx.out.line(&format!("{:<12} {}", "identity", e.what));
                    components.insert("identity".into(), "unexpected".into());
                    details.insert("identity".into(), e.what);
                }
                facts.push(Event::TargetSeen { role: "source".into(), identity });
                if let Some(e) = &exposed {
                    let bound = if e.at_most { "≤ " } else { "" };
                    ctx.out.line(&format!("{:<12} {bound}{} ({})", "exposure", format_clock(e.exposure), e.source));
                    if let Some(wal) = &e.failing {
                        healthy = false;
                        components.insert("archiving".into(), format!("failing at {wal}"));
                        ctx.out.line(&format!("{:<12} failing at {wal}", "archiving"));
                    }
                    facts.push(e.fact());
                }
                sample = exposed;
            }
            Err(e) => {
                healthy = false;
                ctx.out.line(&format!("{:<12} {e}", "postgresql"));
                components.insert("postgresql".into(), "down".into());
                details.insert("postgresql".into(), e.to_string());
            }
        }
    }
    if looks_at_repository(ctx) {
        let work = ctx.clone();
        for (name, status, detail) in blocking(move || Ok(repository(&work))).await? {
            ctx.out.line(&format!("{name:<12} {status}  {detail}"));
            healthy &= health::is_good(&status);
            if !health::is_good(&status) {
                details.insert(name.into(), detail);
            }
            components.insert(name.into(), status);
        }
    }
    let bad: Vec<String> = components
        .iter()
        .filter(|(_, status)| !health::is_good(status))
        .map(|(name, status)| match details.get(name) {
            Some(d) => format!("{name} {status} ({d})"),
            None => format!("{name} {status}"),
        })
        .collect();
    let document = json!({
        "healthy": healthy,
        "components": components,
        "details": details,
        "exposure_ms": sample.as_ref().map(|e| e.exposure.as_millis() as u64),
        "exposure_at_most": sample.as_ref().map(|e| e.at_most),
    });
    facts.push(Event::HealthSeen { healthy, components });
    let done =
        if healthy { Done::ok("healthy") } else { Done::check_failed(format!("not healthy: {}", bad.join(", "))) };
    Ok(Done { facts, ..done.json(document) })
}

async fn look(
    ctx: &Ctx,
    at: &crate::postgres::Database,
) -> Result<(crate::model::target::Identity, Option<exposure::Exposure>)> {
    let timeout = std::time::Duration::from_secs(10);
    let mut c = at.connect_read_only(std::time::Duration::from_secs(2), timeout).await?;
    let identity = crate::postgres::identity(&mut c, at).await?;
    let exposed = exposure::measure(&mut c, exposure::received_in(ctx.settings.repository.as_ref()).as_ref()).await?;
    Ok((identity, exposed))
}
