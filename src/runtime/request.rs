//! request.json: everything a worker needs except secrets, which come through a pipe.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::error::{Context, Error, Result};
use crate::journal::files;
use crate::model::{IncidentId, RunId};

/// Name of the file in a run's folder.
pub const REQUEST_FILE: &str = "request.json";

/// Version of the format written by this program. A worker refuses a newer one.
pub const VERSION: u32 = 1;

/// What to run with which settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Version of the format.
    pub v: u32,
    /// Version of the program that asked.
    pub program: String,
    /// The incident.
    pub incident: IncidentId,
    /// Its folder, absolute.
    pub incident_dir: PathBuf,
    /// The run.
    pub run: RunId,
    /// Registered name of the action.
    pub action: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Text of a shell or SQL block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Name typed to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
    /// All settings.
    pub settings: Settings,
    /// Limit of output.log in bytes.
    pub output_limit: u64,
}

/// The part of a request that is not in the journal.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Settings in force.
    pub settings: Settings,
    /// Text of a shell or SQL block.
    pub code: Option<String>,
    /// Limit of output.log in bytes; the default when none.
    pub output_limit: Option<u64>,
}

impl Request {
    /// Writes it into the run's folder and returns its path.
    ///
    /// # Errors
    /// State when it cannot be written.
    pub fn write(&self, run_dir: &Path) -> Result<PathBuf> {
        files::create_dir(run_dir)?;
        let path = run_dir.join(REQUEST_FILE);
        let json = serde_json::to_vec_pretty(self).state(|| "the request cannot be written as JSON".into())?;
        files::write_atomic(&path, &json)?;
        Ok(path)
    }

    /// Reads one.
    ///
    /// # Errors
    /// State when it cannot be read, refused when a newer program wrote it.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot read the request {path:?}");
        let bytes = std::fs::read(path).state(what)?;
        #[derive(Deserialize)]
        struct Version {
            v: u32,
            program: String,
        }
        // The version first: a newer format need not be readable otherwise.
        let version: Version = serde_json::from_slice(&bytes).state(what)?;
        if version.v > VERSION {
            return Err(Error::refused(format!("the request {path:?} was written by breakglass {}", version.program))
                .why(format!("this is {}, which does not know its format {}", env!("CARGO_PKG_VERSION"), version.v))
                .hint("Start the worker with the version that wrote it."));
        }
        serde_json::from_slice(&bytes).state(what)
    }
}
