//! Talking to the umpire: one JSON line asks, one answers, over a unix socket in the scratch directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::release::Window;
use super::server::Server;
use super::service::Health;
use crate::error::{Context, Error, ErrorKind, Result};

/// A request to the umpire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Ask {
    /// How it stands, without anything of the secret.
    Status,
    /// Deploy the faulty release; its damage begins at a random moment of the window. Again: nothing happens.
    Inject {
        /// When.
        window: Window,
    },
    /// Refuse orders, wait until none is in flight, stop the release for good.
    Contain,
    /// Stop the release for good.
    StopRelease,
    /// Refuse orders, or take them again.
    Maintenance {
        /// Refuse.
        on: bool,
    },
    /// Use another database from now on.
    Switch {
        /// Which; its role is replaced by the application's.
        server: Server,
    },
    /// Hold the writers back until none is inside an order.
    Drain,
    /// Let them go on.
    Resume,
    /// End the traffic and write both logs into this directory. Only after a switch, or when the drill is given up.
    Judge {
        /// Absolute path of an existing directory.
        into: PathBuf,
        /// Open the logs although the service never switched.
        given_up: bool,
    },
    /// Something that only the drill of one scenario has, in the words of its command line.
    Tell {
        /// Words, such as `rollback 2026.11.2`.
        words: Vec<String>,
    },
    /// End.
    Shutdown,
}

/// How the umpire stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// Where `/api/health` is.
    pub health_url: String,
    /// Whether the faulty release was ordered; not whether its damage has begun.
    pub armed: bool,
    /// Whether the release was stopped.
    pub release_stopped: bool,
    /// Whether both logs were opened.
    pub judged: bool,
    /// Switches of the database so far.
    pub generation: u32,
    /// Whether the writers are held back.
    pub held: bool,
    /// Health of the service.
    pub health: Health,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    pub ok: bool,
    #[serde(default)]
    pub value: Value,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub what: String,
    #[serde(default)]
    pub why: String,
    #[serde(default)]
    pub hints: Vec<String>,
}

impl From<Result<Value>> for Answer {
    fn from(result: Result<Value>) -> Self {
        match result {
            Ok(value) => Self {
                ok: true,
                value,
                kind: String::new(),
                what: String::new(),
                why: String::new(),
                hints: Vec::new(),
            },
            Err(e) => Self {
                ok: false,
                value: Value::Null,
                kind: e.kind.name().into(),
                what: e.what,
                why: e.why,
                hints: e.hints,
            },
        }
    }
}

/// A client of the umpire. Every call is a connection of its own, so it survives the umpire's silence between calls.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// The umpire of this scratch directory.
    pub fn new(scratch: &Path) -> Self {
        Self { socket: super::scratch::control_socket(scratch) }
    }

    /// Asks, and waits up to `patience` for the answer. Blocks.
    ///
    /// # Errors
    /// `Target` when nobody answers, else what the umpire says.
    pub fn ask(&self, ask: &Ask, patience: Duration) -> Result<Value> {
        let what = || "the drill's umpire does not answer".to_string();
        let mut stream = UnixStream::connect(&self.socket).map_err(|e| {
            Error::target(what())
                .why(e)
                .hint("the drill is over, or its umpire was killed: `breakglass drill` makes a new one")
        })?;
        stream.set_read_timeout(Some(patience)).target(what)?;
        stream.set_write_timeout(Some(patience)).target(what)?;
        let mut line = serde_json::to_vec(ask).state(what)?;
        line.push(b'\n');
        stream.write_all(&line).target(what)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).target(what)?;
        if answer.is_empty() {
            return Err(Error::target(what()).why("it closed the connection"));
        }
        let answer: Answer = serde_json::from_str(&answer).target(what)?;
        if answer.ok {
            return Ok(answer.value);
        }
        let kinds = [
            ErrorKind::Check,
            ErrorKind::Usage,
            ErrorKind::Config,
            ErrorKind::Target,
            ErrorKind::State,
            ErrorKind::Refused,
            ErrorKind::Interrupted,
        ];
        let kind = kinds.into_iter().find(|k| k.name() == answer.kind).unwrap_or(ErrorKind::Target);
        let mut error = Error::new(kind, answer.what);
        error.why = answer.why;
        error.hints = answer.hints;
        Err(error)
    }

    /// How it stands.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn status(&self) -> Result<Status> {
        let value = self.ask(&Ask::Status, Duration::from_secs(15))?;
        serde_json::from_value(value).target(|| "the umpire's status is not understood".into())
    }
    /// Deploys the faulty release.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn inject(&self, window: Window) -> Result<()> {
        self.ask(&Ask::Inject { window }, Duration::from_secs(15)).map(drop)
    }
    /// Refuses orders, waits for those in flight, stops the release.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn contain(&self) -> Result<()> {
        self.ask(&Ask::Contain, Duration::from_secs(60)).map(drop)
    }
    /// Stops the release.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn stop_release(&self) -> Result<()> {
        self.ask(&Ask::StopRelease, Duration::from_secs(60)).map(drop)
    }
    /// Refuses orders, or takes them again.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn maintenance(&self, on: bool) -> Result<()> {
        self.ask(&Ask::Maintenance { on }, Duration::from_secs(60)).map(drop)
    }
    /// Uses another database.
    ///
    /// # Errors
    /// As [`Control::ask`]; refused for another cluster or one in recovery.
    pub fn switch(&self, server: &Server) -> Result<()> {
        self.ask(&Ask::Switch { server: server.clone() }, Duration::from_secs(60)).map(drop)
    }
    /// Holds the writers back until none is inside an order; whether that was reached within 20 s.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn drain(&self) -> Result<bool> {
        Ok(self.ask(&Ask::Drain, Duration::from_secs(60))? == Value::Bool(true))
    }
    /// Lets the writers go on.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn resume(&self) -> Result<()> {
        self.ask(&Ask::Resume, Duration::from_secs(15)).map(drop)
    }
    /// Ends the traffic and has both logs written into a directory.
    ///
    /// # Errors
    /// As [`Control::ask`]; refused while the drill is not over.
    pub fn judge(&self, into: &Path, given_up: bool) -> Result<()> {
        self.ask(&Ask::Judge { into: into.to_path_buf(), given_up }, Duration::from_secs(60)).map(drop)
    }
    /// Something that only the drill of one scenario has; returns its answer.
    ///
    /// # Errors
    /// As [`Control::ask`]; usage when the words are not understood.
    pub fn tell(&self, words: &[String]) -> Result<Value> {
        self.ask(&Ask::Tell { words: words.to_vec() }, Duration::from_secs(120))
    }
    /// Ends the umpire; returns when it no longer answers, at the latest after 10 s.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn shutdown(&self) -> Result<()> {
        self.ask(&Ask::Shutdown, Duration::from_secs(10))?;
        let until = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&self.socket).is_ok() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
