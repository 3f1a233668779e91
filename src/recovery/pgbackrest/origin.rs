//! Files restored and log fetched by pgBackRest's own program, into an instance that we isolate.

use std::path::Path;
use std::time::Instant;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{PgBackRest, failure, word};
use crate::backup::base::Reused;
use crate::backup::wal::EXIT_STOP_RECOVERY;
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::model::CleanText;
use crate::postgres::Instance;
use crate::process::{Ending, RunOptions, run};
use crate::recovery::origin::{Log, Origin, bytes_phase};
use crate::recovery::range::Stop;
use crate::recovery::shadow::Request;
use crate::recovery::watch::Watch;

impl PgBackRest {
    /// A command of the server's own: without environment, from any folder.
    fn command(&self, instance: &Instance) -> Result<String> {
        let mut all = vec![word(&self.it.program)?];
        if let Some(config) = &self.it.config {
            all.push(format!("--config={}", word(config)?));
        }
        all.push(format!("--stanza={}", word(Path::new(&self.it.stanza))?));
        all.push(format!("--pg1-path={}", word(&instance.layout.data)?));
        Ok(all.join(" "))
    }

    /// The words that say where recovery stops. What counts is our own configuration; these are for whoever reads its file.
    fn target(stop: &Stop) -> Vec<String> {
        let at = |kind: &str, target: String, exclusive: bool| {
            let mut all = vec![format!("--type={kind}"), format!("--target={target}"), "--target-action=pause".into()];
            if exclusive {
                all.push("--target-exclusive".into());
            }
            all
        };
        let time = |t: &crate::model::Time| t.to_string().replacen('T', " ", 1).replace('Z', "+00");
        match stop {
            Stop::Lsn(lsn) => at("lsn", lsn.to_string(), true),
            Stop::After(lsn) => at("lsn", lsn.to_string(), false),
            Stop::Time(t) => at("time", time(t), true),
            Stop::Including(t) => at("time", time(t), false),
            // Otherwise it would promote itself at whatever it takes for the end.
            Stop::End => vec!["--type=standby".into()],
        }
    }
}

/// The share that is restored, of a line such as `restore file /a/b (8KB, 12.34%) checksum …`, in hundredths of a per cent.
fn share(line: &str) -> Option<u64> {
    let (before, _) = line.split_once("%)")?;
    let number = before.rsplit(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let part: String = format!("{part}00").chars().take(2).collect();
    Some(whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)?.min(10_000))
}

impl Origin for PgBackRest {
    fn backend(&self) -> Backend {
        Backend::PgBackRest
    }

    fn restore_files<'a>(
        &'a self,
        instance: &'a Instance,
        request: &'a Request,
        watch: &'a dyn Watch,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Reused>>> {
        Box::pin(async move {
            // Its own checks want a folder that is there and empty, and belongs to its user.
            crate::postgres::user::own_dir(&instance.layout.data, request.user.as_ref())?;
            let backup = &request.route.backup;
            let child = self
                .it
                .child("detail")
                .arg(format!("--pg1-path={}", instance.layout.data.display()))
                .arg(format!("--repo={}", self.it.repo))
                .arg(format!("--set={}", backup.id))
                .arg(format!("--target-timeline={}", request.route.timeline))
                .arg("--archive-mode=off")
                // Without this they go where the source's are, which may still be there.
                .arg(format!("--tablespace-map-all={}", request.root.join("tablespaces").display()))
                .args(Self::target(&request.route.stop))
                .args(request.delta.as_ref().map(|_| "--delta"))
                .arg("restore");
            let (total, began) = (backup.plain_bytes(), Instant::now());
            let (mut words, mut rest) = (Vec::new(), String::new());
            let options = RunOptions { cancel: cancel.clone(), merge: true, ..RunOptions::default() };
            let end = run(&child, &options, |_, bytes| {
                rest.push_str(&String::from_utf8_lossy(bytes));
                while let Some((line, after)) = rest.split_once('\n') {
                    match share(line) {
                        Some(done) => watch.phase(&bytes_phase(total / 10_000 * done, total, began.elapsed())),
                        None if line.contains("WARN:") => watch.line(CleanText::line(line.as_bytes()).as_str()),
                        None => words.extend([line.as_bytes(), b"\n"].concat()),
                    }
                    rest = after.to_string();
                }
            })
            .await?;
            if end.ending == Ending::Cancelled {
                return Err(Error::interrupted("stopped on request: what was restored so far is left in its folder"));
            }
            if !end.success() {
                let e = failure("restore", &end.describe(), &words);
                return Err(e.hint(format!("what was restored so far is in {}", request.root.display())));
            }
            watch.phase(&bytes_phase(total, total, began.elapsed()));
            Ok(None)
        })
    }

    fn serve(&self, instance: &Instance, _: &Path) -> Result<Log> {
        // 1 says that a file is not there. Anything else is damage or trouble, which PostgreSQL would take for the end of
        // the log. Its asynchronous mode keeps one folder for all who recover of a stanza, so it stays off.
        let get =
            format!("{} --repo={} --no-archive-async archive-get %f \"%p\"", self.command(instance)?, self.it.repo);
        let restore_command =
            format!("{get} || {{ r=$?; if [ $r -eq 1 ]; then exit 1; fi; exit {EXIT_STOP_RECOVERY}; }}");
        Ok(Log { restore_command, service: None })
    }

    fn archive_command(&self, instance: &Instance, _: &Path) -> Result<String> {
        Ok(format!("{} archive-push %p", self.command(instance)?))
    }

    fn place(&self) -> String {
        format!("stanza {} of pgBackRest", self.it.stanza)
    }
}
