//! Where the files and the log of a recovered instance come from: our repository, or another tool's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::shadow::Request;
use super::watch::{Phase, Watch, check_cancel};
use crate::backup::base::{RestoreOptions, Reused, restore_base, restore_delta};
use crate::backup::repository::Unlocked;
use crate::backup::wal_service::{ServeOptions, Served, Service, restore_command};
use crate::config::Backend;
use crate::error::{Context, Result};
use crate::postgres::Instance;

/// How a recovering server gets its log. It must be kept for as long as the server is in recovery and moves.
pub struct Log {
    /// For its configuration.
    pub restore_command: String,
    /// Ours, when we serve it ourselves.
    pub service: Option<Service>,
}

impl Log {
    /// What was handed out so far, as far as we are asked.
    pub fn served(&self) -> Served {
        self.service.as_ref().map(Service::served).unwrap_or_default()
    }
}

/// A source of files and log.
pub trait Origin: Send + Sync {
    /// Who recovers, for the record of what is built.
    fn backend(&self) -> Backend;

    /// Restores the base backup of the request's way into the instance's data directory; what of it lay there already, where
    /// that was asked for and is known.
    ///
    /// # Errors
    /// Damage, or not enough space; or stopped on request.
    fn restore_files<'a>(
        &'a self,
        instance: &'a Instance,
        request: &'a Request,
        watch: &'a dyn Watch,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Reused>>>;

    /// Makes the archived log reachable for the instance. `helper` is our executable as its user can run it.
    ///
    /// # Errors
    /// It cannot be made so.
    fn serve(&self, instance: &Instance, helper: &Path) -> Result<Log>;

    /// The `archive_command` of an instance that was promoted, which archives into the same place.
    ///
    /// # Errors
    /// A path cannot stand in such a command.
    fn archive_command(&self, instance: &Instance, helper: &Path) -> Result<String>;

    /// The place, for people.
    fn place(&self) -> String;
}

impl Origin for Unlocked {
    fn backend(&self) -> Backend {
        Backend::Native
    }

    fn restore_files<'a>(
        &'a self,
        instance: &'a Instance,
        request: &'a Request,
        watch: &'a dyn Watch,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Reused>>> {
        Box::pin(restore_files(self, instance, request, watch, cancel))
    }

    fn serve(&self, instance: &Instance, helper: &Path) -> Result<Log> {
        let options = ServeOptions {
            owner: instance.user.as_ref().map(|u| (u.uid, u.gid)),
            data: Some(instance.layout.data.clone()),
            ..ServeOptions::default()
        };
        let service = Service::start(self.clone(), &instance.layout.sockets.join("wal"), &options)?;
        Ok(Log { restore_command: restore_command(helper, service.socket())?, service: Some(service) })
    }

    fn archive_command(&self, _: &Instance, helper: &Path) -> Result<String> {
        crate::backup::wal::archive_command(helper, &self.place(), Some(&self.repository().key_id()))
    }

    fn place(&self) -> String {
        let url = self.repository().store().url();
        // The server runs elsewhere.
        if url.contains("://") {
            return url;
        }
        std::path::absolute(&url).map_or(url, |p| p.display().to_string())
    }
}

async fn restore_files(
    unlocked: &Unlocked,
    instance: &Instance,
    request: &Request,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Option<Reused>> {
    let total = request.route.backup.plain_bytes();
    let (done, same) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let task = {
        let delta = request.delta.clone();
        let (unlocked, id, dest) = (unlocked.clone(), request.route.backup.id.clone(), instance.layout.data.clone());
        let options = RestoreOptions { owner: request.user.as_ref().map(|u| (u.uid, u.gid)), threads: 2 };
        let (done, same, cancel) = (done.clone(), same.clone(), cancel.clone());
        tokio::task::spawn_blocking(move || {
            if delta.is_some() {
                let (_, reused) = restore_delta(&unlocked, &id, &dest, &options, &mut |n, reused| {
                    done.store(n, Ordering::Relaxed);
                    same.store(reused, Ordering::Relaxed);
                    check_cancel(&cancel, "the folder is half rewritten")
                })?;
                return Ok(Some(reused));
            }
            restore_base(&unlocked, &id, &dest, &options, &mut |n| {
                done.store(n, Ordering::Relaxed);
                check_cancel(&cancel, "the files were removed again")
            })
            .map(|_| None)
        })
    };
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tokio::pin!(task);
    let result = loop {
        tokio::select! {
            result = &mut task => break result,
            _ = tick.tick() => {
                let mut phase = bytes_phase(done.load(Ordering::Relaxed), total, began.elapsed());
                phase.text = reused_text(request, same.load(Ordering::Relaxed));
                watch.phase(&phase);
            }
        }
    };
    let reused = result.state(|| "the restore of the files broke off".into())??;
    let mut phase = bytes_phase(total, total, began.elapsed());
    phase.text = reused_text(request, reused.map_or(0, |r: Reused| r.bytes));
    watch.phase(&phase);
    Ok(reused)
}

fn reused_text(request: &Request, bytes: u64) -> String {
    if request.delta.is_some() { format!("{} MB reused", bytes / 1_000_000) } else { String::new() }
}

/// Bytes of files restored.
pub(super) fn bytes_phase(done: u64, total: u64, took: Duration) -> Phase {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1000) / ms;
    Phase {
        name: "files",
        done,
        total: Some(total),
        unit: "bytes",
        text: String::new(),
        rate: (rate > 0).then_some(rate),
        eta_ms: (rate > 0).then(|| total.saturating_sub(done).saturating_mul(1000) / rate),
    }
}
