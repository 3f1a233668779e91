//! Everything a step can run: the trait, the registry, recognition, one file per family.
//!
//! An action is registered under the words of its command line (`pitr restore`); its clap arguments serve the shell, the
//! recogniser and lint alike. `preview` reads only; `run` happens in a worker (or in the foreground from the shell) and
//! checks again first. What it learned comes back as facts, which the journal keeps.

mod along;
pub mod assess;
mod assess_deleted;
pub mod backend;
pub mod backup_cleanup;
pub mod backup_copy;
pub mod backup_create;
pub mod backup_dump;
pub mod backup_files;
mod backup_index;
pub mod backup_list;
pub mod backup_restore;
pub mod blanks;
pub mod breach;
pub mod breach_clean;
pub mod carried;
pub mod compare;
pub mod contain;
mod contain_chain;
pub mod edited;
pub mod evidence;
pub mod failover;
pub mod failover_promote;
pub mod failover_rebuild;
pub mod health;
pub mod latest;
mod log_suspects;
pub mod look;
pub mod message;
pub mod moment;
pub mod named;
pub mod notify;
pub mod offered;
mod other_base;
pub mod output;
pub mod pitr_advance;
pub mod pitr_check;
pub mod pitr_locate;
pub mod pitr_overwrite;
pub mod pitr_partial;
mod pitr_partial_said;
pub mod pitr_promote;
pub mod pitr_range;
pub mod pitr_restore;
pub mod pitr_salvage;
pub mod pitr_tail;
pub mod pitr_verify;
mod promote_archive;
pub mod reach;
pub mod recognise;
pub mod runnable;
pub mod service;
pub mod shell;
pub mod sql;
pub mod target;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::config::{Secrets, Settings};
use crate::error::{Error, Result};
use crate::incident::State;
use crate::model::Event;
use crate::model::event::Outcome;
use crate::model::plan::Risk;
use crate::model::target::Identity;

/// What an action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Words of the command line after `breakglass`, such as `pitr restore`; `shell` and `sql` for blocks.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What it can do at worst.
    pub risk: Risk,
    /// What to do by hand when it cannot run.
    pub fallback: &'static str,
}

/// How far a running action is. One value per phase, the current one last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Phases begun so far.
    pub phases: Vec<ProgressPhase>,
    /// Milliseconds until the action is done, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
}

/// One phase of a running action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressPhase {
    /// `files`, `replay`, …
    pub name: String,
    /// Done so far, in `unit`.
    pub done: u64,
    /// In all, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `bytes`, `rows`, `ms` (of replayed time), …
    pub unit: String,
    /// For people: `14:00:21→14:01:07`.
    #[serde(default)]
    pub text: String,
    /// Per second, when measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// Where an action writes what people read. Lines are redacted and cleaned behind it.
pub trait Output: Send + Sync {
    /// One line of our own.
    fn line(&self, text: &str);
    /// Bytes of a child, as they come.
    fn bytes(&self, bytes: &[u8]);
    /// How far it is.
    fn progress(&self, progress: &Progress);
}

/// An output nobody reads, for previews: they say what they have to say in what they return.
pub struct Nowhere;

impl Output for Nowhere {
    fn line(&self, _: &str) {}
    fn bytes(&self, _: &[u8]) {}
    fn progress(&self, _: &Progress) {}
}

/// What an action gets.
#[derive(Clone)]
pub struct Ctx {
    /// Settings.
    pub settings: Arc<Settings>,
    /// Secrets.
    pub secrets: Arc<Secrets>,
    /// The incident it runs in, as of its start; none from the shell.
    pub incident: Option<Arc<State>>,
    /// Folder of the incident, for salvage, evidence and carried variables; none from the shell.
    pub incident_dir: Option<PathBuf>,
    /// Folder of the run (`runs/<seq>`), where scratch files may go; none from the shell.
    pub run_dir: Option<PathBuf>,
    /// File that children inherit so that their survival can be seen; none from the shell.
    pub children_lock: Option<Arc<std::fs::File>>,
    /// Output.
    pub out: Arc<dyn Output>,
    /// Cancelled when somebody asks it to stop.
    pub cancel: CancellationToken,
    /// The text of a `shell` or `sql` block.
    pub code: Option<String>,
    /// Name given to confirm a `destroy` (typed in the console, `--confirm` in the shell).
    pub confirmed: Option<String>,
}

impl Ctx {
    /// A context outside of any incident, with nothing confirmed.
    pub fn new(settings: Settings, secrets: Secrets, out: Arc<dyn Output>) -> Self {
        Self {
            settings: Arc::new(settings),
            secrets: Arc::new(secrets),
            incident: None,
            incident_dir: None,
            run_dir: None,
            children_lock: None,
            out,
            cancel: CancellationToken::new(),
            code: None,
            confirmed: None,
        }
    }

    /// The target database as configured.
    ///
    /// # Errors
    /// Config when none is.
    pub fn database(&self) -> Result<crate::postgres::Database> {
        let connection = self.settings.database.as_ref().ok_or_else(|| {
            Error::config("no database is configured")
                .hint("Set DATABASE_URL, or url in the section [target] of breakglass.toml.")
        })?;
        let password = self.secrets.get(crate::config::settings::DATABASE_PASSWORD);
        Ok(crate::postgres::Database::from_config(connection, password))
    }

    /// Runs a tool with its output shown as it comes, ended when the action is cancelled or the limit has passed.
    ///
    /// # Errors
    /// Target when it cannot be started; how it ended is in the result.
    pub async fn tool(
        &self,
        child: &crate::process::ChildSpec,
        timeout: Option<std::time::Duration>,
    ) -> Result<crate::process::Finished> {
        let options = crate::process::RunOptions {
            timeout,
            cancel: self.cancel.clone(),
            merge: true,
            ..crate::process::RunOptions::default()
        };
        crate::process::run(child, &options, |_, bytes| self.out.bytes(bytes)).await
    }
}

/// What a preview found, read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// What would happen, one line each.
    pub lines: Vec<String>,
    /// Identity of the target as seen live.
    pub target: Option<Identity>,
    /// Facts for the journal.
    pub facts: Vec<Event>,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Outcome.
    pub outcome: Outcome,
    /// Exit code.
    pub exit_code: i32,
    /// One sentence.
    pub summary: String,
    /// Facts for the journal.
    pub facts: Vec<Event>,
    /// What `--json` prints.
    pub json: serde_json::Value,
}

impl Done {
    /// Success with a sentence.
    pub fn ok(summary: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Succeeded,
            exit_code: 0,
            summary: summary.into(),
            facts: Vec::new(),
            json: serde_json::Value::Null,
        }
    }
    /// The thing checked is not as it should be (exit 1).
    pub fn check_failed(summary: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, exit_code: 1, ..Self::ok(summary) }
    }
    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, event: Event) -> Self {
        self.facts.push(event);
        self
    }
    /// Sets what `--json` prints.
    #[must_use]
    pub fn json(mut self, value: serde_json::Value) -> Self {
        self.json = value;
        self
    }
}

/// Something a step can run.
pub trait Action: Send + Sync {
    /// What it is.
    fn spec(&self) -> Spec;
    /// Its arguments, for the shell's help, the recogniser and lint. The command's name is the last word of the spec's.
    fn arguments(&self) -> clap::Command;
    /// What it would do; reads only.
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>>;
    /// Does it. An `Err` is a failed run whose kind decides the exit code; `Refused` means nothing was touched.
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>>;
    /// Whether some of its calls need the target's name to be confirmed.
    fn confirms(&self) -> bool {
        self.spec().risk == Risk::Destroy
    }
    /// Risk of this call; never below what the arguments imply.
    fn risk(&self, _args: &[String]) -> Risk {
        self.spec().risk
    }
}

/// All actions by name.
#[derive(Default, Clone)]
pub struct Registry {
    actions: Vec<Arc<dyn Action>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.actions.iter().map(|a| a.spec().name)).finish()
    }
}

impl Registry {
    /// Adds an action.
    pub fn add(&mut self, action: impl Action + 'static) {
        self.actions.push(Arc::new(action));
    }
    /// By its full name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Action>> {
        self.actions.iter().find(|a| a.spec().name == name).cloned()
    }
    /// The action whose name the words begin with (longest wins), and the words left over.
    pub fn find<'w>(&self, words: &'w [String]) -> Option<(Arc<dyn Action>, &'w [String])> {
        let mut best: Option<(usize, Arc<dyn Action>)> = None;
        for action in &self.actions {
            let name: Vec<&str> = action.spec().name.split(' ').collect();
            let fits = words.len() >= name.len() && name.iter().zip(words).all(|(n, w)| n == w);
            if fits && best.as_ref().is_none_or(|(len, _)| name.len() > *len) {
                best = Some((name.len(), action.clone()));
            }
        }
        best.map(|(len, action)| (action, &words[len..]))
    }
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Action>> {
        self.actions.iter()
    }
}

/// In an incident that is local only nothing leaves this machine by our doing: whoever keeps backups elsewhere (a repository,
/// pgBackRest's, Supabase) is asked, and a message is handed on, only after asking here. What a person wrote or configured as a
/// command, and the database itself, are that person's doing. `what` names what would have left.
///
/// # Errors
/// Refused when the incident is local only.
pub fn may_leave(ctx: &Ctx, what: &str) -> Result<()> {
    if !ctx.incident.as_ref().is_some_and(|s| s.people.local_only) {
        return Ok(());
    }
    Err(Error::refused(format!("this incident is local only: {what} does not leave this machine"))
        .why("somebody switched local-only on, so that nothing is sent by our doing")
        .hint("do it by hand, or switch local-only off with a reason: breakglass incident local-only off --reason …"))
}

/// Parses an action's arguments with its clap definition.
///
/// # Errors
/// Usage, with clap's own explanation.
pub fn parse_matches(command: clap::Command, args: &[String]) -> Result<clap::ArgMatches> {
    let name = command.get_name().to_string();
    command
        .no_binary_name(true)
        .try_get_matches_from(args)
        .map_err(|e| Error::usage(format!("the arguments of {name:?} cannot be used")).why(e.to_string().trim_end()))
}
