//! Recovery by others: an installation of pgBackRest with a real repository of a real cluster, and Supabase's Management API as a
//! local server that enforces its contract and has its bad days.

mod hosted;
mod pgbackrest;
mod supabase;

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Our program with nothing of ours in its environment; `home` is its state directory.
pub fn program(home: &Path, config: &Path, words: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("BREAKGLASS_HOME", home).env("HOME", home);
    c.arg("--config").arg(config).args(words).current_dir(home).stdin(Stdio::null());
    c
}

/// What a run said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(out: Output) -> Self {
        Self {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }
    /// Both outputs.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
    /// Its JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
    /// Ended with this code and says all of these.
    #[track_caller]
    pub fn is(self, code: i32, words: &[&str]) -> Self {
        let all = self.all();
        assert_eq!(self.code, code, "{all}");
        for w in words {
            assert!(all.contains(w), "{w:?} is not said: {all}");
        }
        self
    }
}
