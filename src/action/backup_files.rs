//! `breakglass backup create --files DIR`: folders and a redacted description of the environment into the repository; and
//! back into a new folder, with a comparison of every file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::reach::{self, Reporter};
use super::target::blocking;
use super::{Ctx, Done};
use crate::backup::anchor::head_to_text;
use crate::backup::base::verify_backup;
use crate::backup::catalog::{Manifest, READ};
use crate::backup::damage;
use crate::backup::files::{restore_files, store_files};
use crate::backup::part::restore_some;
use crate::backup::repository::Unlocked;
use crate::error::{Context, Result};
use crate::model::CleanText;
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// Variables whose values say something about the machine and nothing secret.
const SHOWN: [&str; 10] = ["PATH", "LANG", "LC_ALL", "TZ", "SHELL", "USER", "HOME", "PGHOST", "PGPORT", "PGDATABASE"];

/// Stores folders.
///
/// # Errors
/// A folder cannot be read, or the repository not be written.
pub async fn create(ctx: &Ctx, folders: Vec<PathBuf>, label: Option<String>) -> Result<Done> {
    let (unlocked, new) = reach::unlocked_or_new(ctx, None).await?;
    let (kept, here) = (unlocked.clone(), ctx.clone());
    let ctx = ctx.clone();
    let (manifest, listing) = blocking(move || {
        let reporter = Reporter::new(&*ctx.out);
        let begun = Instant::now();
        let environment = environment(&ctx);
        let stored = store_files(&unlocked, &folders, &environment, label.as_deref(), &mut |n| {
            reporter.phase(&Phase::bytes("files", n, None, begun));
            check_cancel(&ctx.cancel, "the files were not stored")
        })?;
        for path in &stored.1.skipped {
            ctx.out.line(&format!("not stored, because it is no file: {path}"));
        }
        let begun = Instant::now();
        verify_backup(&unlocked, &stored.0.id, &mut |n| {
            reporter.phase(&Phase::bytes("verify", n, None, begun));
            check_cancel(&ctx.cancel, "the backup is stored but was not read back")
        })
        .inspect_err(|e| {
            if damage::is_damage(e) {
                damage::found(&unlocked, ctx.settings.catalog_heads.as_ref(), &stored.0.id, READ, e);
            }
        })?;
        Ok(stored)
    })
    .await?;
    let head = head_to_text(&super::backup_copy::after_backup(&here, &kept).await?);
    let bytes = manifest.stored_bytes();
    let summary = format!(
        "backup {} of {} entries: {} MB in {} MB stored, every byte verified; catalog head {head}",
        manifest.id,
        listing.entries.len(),
        manifest.plain_bytes() / 1_000_000,
        bytes / 1_000_000
    );
    Ok(Done::ok(summary).json(json!({
        "catalog_head": head, "id": manifest.id, "kind": manifest.kind, "bytes": bytes, "plain_bytes": manifest.plain_bytes(),
        "entries": listing.entries.len(), "skipped": listing.skipped, "verified": true,
        "new_repository": new,
    })))
}

/// Names what could not be given back; gives what to say of it in the end.
fn not_set(ctx: &Ctx, all: &[String]) -> String {
    const MOST: usize = 10;
    for line in all.iter().take(MOST) {
        ctx.out.line(&format!("not as it was: {}", CleanText::line(line.as_bytes())));
    }
    if all.len() > MOST {
        ctx.out.line(&format!("not as it was: {} more, which --json names", all.len() - MOST));
    }
    if all.is_empty() {
        return String::new();
    }
    format!("; {} without their owner, mode or link as it was (root may set owners)", all.len())
}

/// Restores files.
///
/// # Errors
/// Damage, or the folder is there.
pub async fn restore(ctx: &Ctx, unlocked: Unlocked, manifest: Manifest, into: &str, wanted: &[String]) -> Result<Done> {
    let dest = std::path::absolute(into).usage(|| format!("{into:?} is not a folder"))?;
    if !wanted.is_empty() {
        return some(ctx, unlocked, manifest, dest, wanted.to_vec()).await;
    }
    let (work, id, to) = (ctx.clone(), manifest.id.clone(), dest.clone());
    let parity = blocking(move || {
        let reporter = Reporter::new(&*work.out);
        let begun = Instant::now();
        let bytes = manifest.plain_bytes();
        verify_backup(&unlocked, &manifest.id, &mut |n| {
            reporter.phase(&Phase::bytes("verify", n, Some(bytes), begun));
            check_cancel(&work.cancel, "nothing was restored")
        })?;
        let begun = Instant::now();
        restore_files(&unlocked, &manifest, &to, &mut |n| {
            reporter.phase(&Phase::bytes("files", n, Some(bytes), begun));
            check_cancel(&work.cancel, "nothing was restored")
        })
    })
    .await?;
    for path in &parity.changed {
        ctx.out.line(&format!("was being written while it was stored: {path}"));
    }
    let summary = format!(
        "restored {id} into {:?}: {} files, {} bytes, each read again and the same as when it was stored{}",
        dest.display(),
        parity.same,
        parity.bytes,
        not_set(ctx, &parity.not_set)
    );
    Ok(Done::ok(summary).json(json!({"backup": id, "folder": dest, "parity": parity})))
}

/// Some files, read without the rest of the backup: what is read is authenticated, and each file compared with its digest.
async fn some(ctx: &Ctx, unlocked: Unlocked, manifest: Manifest, dest: PathBuf, wanted: Vec<String>) -> Result<Done> {
    let (work, id, to) = (ctx.clone(), manifest.id.clone(), dest.clone());
    let done = blocking(move || {
        let reporter = Reporter::new(&*work.out);
        let begun = Instant::now();
        restore_some(&unlocked, &manifest, &wanted, &to, &mut |n| {
            reporter.phase(&Phase::bytes("files", n, None, begun));
            check_cancel(&work.cancel, "nothing was restored")
        })
    })
    .await?;
    let summary = format!(
        "restored {} files of {id} into {:?}, {} bytes, each the same as when it was stored; {} of the {} bytes of the backup were read{}",
        done.parity.same,
        dest.display(),
        done.parity.bytes,
        done.fetched,
        done.stored,
        not_set(ctx, &done.parity.not_set)
    );
    let document = json!({
        "backup": id, "folder": dest, "parity": done.parity, "fetched_bytes": done.fetched, "stored_bytes": done.stored,
    });
    Ok(Done::ok(summary).json(document))
}

/// What the machine is like. Of most variables only the names: their values could be secret.
fn environment(ctx: &Ctx) -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|t| t.trim().to_string());
    let os = read("/etc/os-release")
        .and_then(|t| t.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=").map(|v| v.trim_matches('"').to_string())));
    let mut shown = serde_json::Map::new();
    let mut names = Vec::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if SHOWN.contains(&name.as_str()) {
            shown.insert(name, value.to_string_lossy().into_owned().into());
        } else {
            names.push(name);
        }
    }
    names.sort();
    let s = &ctx.settings;
    json!({
        "v": 1,
        "program": env!("CARGO_PKG_VERSION"),
        "host": read("/proc/sys/kernel/hostname"),
        "system": os,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "variables": shown,
        "variables_without_values": names,
        "target": s.target,
        "database": s.database.as_ref().map(ToString::to_string),
        "repository": s.repository.as_deref().map(Path::new),
        "retention": s.retention,
    })
}
