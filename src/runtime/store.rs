//! The state directory: where incidents live, which there are, how a new one is made.
//!
//! `<state>/incidents/<id>/` holds the plan as opened, the journal, the runs, carried variables and evidence
//! (docs/formats.md, "State directory"). Reading never writes: a full or read-only disk still lists and opens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Incident;
use super::kept_plan::write_plan;
use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::incident::{Command, Policy, State};
use crate::journal::files;
use crate::model::{IncidentId, Kind, Plan, Time};

/// A state directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What an incident is opened with.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Real or drill.
    pub kind: Kind,
    /// The plan as understood.
    pub plan: Plan,
    /// The documents as they are on disk: name and bytes.
    pub documents: Vec<(String, Vec<u8>)>,
    /// Slug of the scenario in the plan.
    pub scenario: String,
    /// Objective overriding the scenario's, milliseconds.
    pub rto_ms: Option<u64>,
    /// Objective overriding the scenario's, milliseconds.
    pub rpo_ms: Option<u64>,
    /// Target as people call it.
    pub target: Option<String>,
    /// Expected live identity.
    pub expect: BTreeMap<String, String>,
    /// Limits of the safety gates.
    pub policy: Policy,
}

/// An incident in a list.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id: the name of its folder.
    pub id: IncidentId,
    /// Its state, or why it cannot be read.
    pub state: Result<Box<State>>,
}

impl Entry {
    /// Whether it can be resumed.
    pub fn is_open(&self) -> bool {
        self.state.as_ref().is_ok_and(|s| s.closed.is_none())
    }
}

impl Store {
    /// The state directory of this configuration: `BREAKGLASS_HOME`, else `state_dir`, else the user's. Creates nothing.
    ///
    /// # Errors
    /// Config when there is none to be found or it is on a network file system and that is not allowed.
    pub fn open(config: &Config) -> Result<Self> {
        let root = match &config.state_dir {
            Some(dir) => dir.clone(),
            None => default_root()?,
        };
        if !config.allow_network_state
            && let Some(kind) = network_file_system(&root)
        {
            return Err(Error::config(format!("the state directory {root:?} is on a network file system ({kind})"))
                .why("locks and durable writes are not dependable there, and it may be part of what fails")
                .hint("Set BREAKGLASS_HOME or state_dir to a local folder, or allow_network_state = true in breakglass.toml."));
        }
        Ok(Self { root })
    }

    /// The state directory at this path, unchecked.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where incidents are.
    pub fn incidents_dir(&self) -> PathBuf {
        self.root.join("incidents")
    }

    /// Where one incident is.
    pub fn incident_dir(&self, id: &IncidentId) -> PathBuf {
        self.incidents_dir().join(id.as_str())
    }

    /// Whether something can be recorded here.
    ///
    /// # Errors
    /// State, with the reason: read-only, full, no permission.
    pub fn check_writable(&self) -> Result<()> {
        use std::io::Write;
        let hint = "Plans still open and read; nothing is recorded until this is put right (BREAKGLASS_HOME chooses another folder).";
        let what = || format!("the state directory {:?} cannot be written", self.root);
        files::create_dir(&self.incidents_dir()).map_err(|e| Error::state(what()).why(e.why).hint(hint))?;
        // A full disk still makes empty files: it takes bytes to find out.
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::tempfile_in(&self.root)?;
            file.write_all(&[0u8; 4096])?;
            file.sync_data()
        };
        write().state(what).map_err(|e| e.hint(hint))
    }

    /// Ids of all incidents, newest first.
    ///
    /// # Errors
    /// State when the directory exists and cannot be read.
    pub fn ids(&self) -> Result<Vec<IncidentId>> {
        let dir = self.incidents_dir();
        let entries = match std::fs::read_dir(&dir) {
            Ok(e) => e,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).state(|| format!("cannot list {dir:?}")),
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            // A folder with runs or plans and no journal is an incident that lost its record: shown, never passed over.
            .filter(|name| {
                let has = |part: &str| dir.join(name).join(part).exists();
                !name.starts_with('.') && (has(crate::journal::file::JOURNAL_FILE) || has("runs") || has("plan"))
            })
            .collect();
        // The id begins with the time in a form that sorts.
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids.into_iter().map(IncidentId::new).collect())
    }

    /// All incidents with their state, newest first. One that cannot be read is listed with the reason.
    ///
    /// # Errors
    /// State when the directory exists and cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let ids = self.ids()?;
        Ok(ids.into_iter().map(|id| Entry { state: self.state(&id), id }).collect())
    }

    /// The state of one incident, without its plan.
    ///
    /// # Errors
    /// State when the journal cannot be read or does not begin as one.
    pub fn state(&self, id: &IncidentId) -> Result<Box<State>> {
        use crate::journal::{FileJournal, Journal};
        let records = FileJournal::open(self.incident_dir(id))?.read_from(crate::model::Seq(1))?;
        State::fold(&records)
            .map(Box::new)
            .ok_or_else(|| Error::state(format!("the journal of {id} does not begin with an opening")))
    }

    /// The incident a person means: a whole id, the beginning of one or its last four characters. Without a name the newest
    /// that is open.
    ///
    /// # Errors
    /// Usage when there is none or more than one; state when no open one can be read and some other cannot be read at all.
    pub fn find(&self, name: Option<&str>) -> Result<IncidentId> {
        let ids = self.ids()?;
        let Some(name) = name else {
            let mut unreadable = None;
            for id in ids {
                match self.state(&id) {
                    Ok(state) if state.closed.is_none() => return Ok(id),
                    Ok(_) => {}
                    Err(e) => unreadable = unreadable.or(Some(e)),
                }
            }
            // One that cannot be read may well be the one that is meant: never "there is none".
            return Err(match unreadable {
                Some(e) => e.hint("No other incident is open; `breakglass incident list` shows all of them."),
                None => Error::usage("there is no open incident").hint("`breakglass incident list` shows all of them."),
            });
        };
        if let Some(id) = ids.iter().find(|id| id.as_str() == name) {
            return Ok(id.clone());
        }
        let fits: Vec<&IncidentId> = ids
            .iter()
            .filter(|id| id.as_str().starts_with(name) || id.as_str().ends_with(&format!("-{name}")))
            .collect();
        match fits[..] {
            [one] => Ok(one.clone()),
            [] => Err(Error::usage(format!("there is no incident {name:?}"))
                .hint("`breakglass incident list` shows all of them.")),
            _ => {
                let all = fits.iter().map(|i| i.as_str()).collect::<Vec<_>>().join(", ");
                Err(Error::usage(format!("{name:?} fits {} incidents", fits.len())).why(all))
            }
        }
    }

    /// Makes a new incident: its folder, the plan, the first record.
    ///
    /// # Errors
    /// Usage when the plan has no such scenario; state when it cannot be written.
    pub fn create(&self, opening: Opening) -> Result<Incident> {
        let scenario = opening
            .plan
            .scenarios
            .iter()
            .find(|s| s.slug == opening.scenario)
            .ok_or_else(|| Error::usage(format!("the plan has no scenario {:?}", opening.scenario)))?;
        // A scenario that states none is held to the plan's objectives.
        let held = |metric: &str| {
            let seconds = crate::plan::applying::applying(&opening.plan, scenario, metric)?.seconds;
            Some(seconds.saturating_mul(1000))
        };
        let (rto_ms, rpo_ms) = (opening.rto_ms.or_else(|| held("rto")), opening.rpo_ms.or_else(|| held("rpo")));
        files::create_dir(&self.incidents_dir())?;
        let now = Time::from_system(std::time::SystemTime::now());
        let (id, dir) = self.new_folder(now, &scenario.slug)?;
        let digest = write_plan(&dir, &opening.plan, &opening.documents)?;
        let mut incident = Incident::create(&dir, id.clone(), &digest, &opening.scenario, opening.policy.clone())?;
        incident.submit(Command::Open {
            id,
            kind: opening.kind,
            plan: digest,
            rto_ms,
            rpo_ms,
            program: env!("CARGO_PKG_VERSION").to_string(),
            target: opening.target,
            expect: opening.expect,
        })?;
        Ok(incident)
    }

    /// Opens an existing incident.
    ///
    /// # Errors
    /// State when its journal or plan cannot be read or is not what its digest says.
    pub fn incident(&self, id: &IncidentId, policy: Policy) -> Result<Incident> {
        Incident::open(&self.incident_dir(id), policy)
    }

    fn new_folder(&self, now: Time, slug: &str) -> Result<(IncidentId, PathBuf)> {
        let slug: String = slug.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
        for _ in 0..100 {
            let mut random = [0u8; 2];
            getrandom::fill(&mut random).state(|| "the system gives no random numbers".into())?;
            let id = format!("{}-{}-{:02x}{:02x}", now.compact(), slug.trim_matches('-'), random[0], random[1]);
            let dir = self.incidents_dir().join(&id);
            if !dir.exists() {
                files::create_dir(&dir)?;
                return Ok((IncidentId::new(id), dir));
            }
        }
        Err(Error::state("no free name for a new incident was found"))
    }
}

fn default_root() -> Result<PathBuf> {
    directories::ProjectDirs::from("", "", "breakglass")
        .map(|d| d.state_dir().unwrap_or_else(|| d.data_local_dir()).to_path_buf())
        .ok_or_else(|| {
            Error::config(
                "there is no place for the state directory: HOME is not set and the system knows no home for this user",
            )
            .hint("Set BREAKGLASS_HOME to a folder where incidents can be kept.")
        })
}

/// Name of the network file system the path (or its nearest existing parent) is on, if it is on one.
///
/// The numbers are the magic numbers of statfs(2).
pub fn network_file_system(path: &Path) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    {
        let existing = path.ancestors().find(|p| p.exists())?;
        let kind = rustix::fs::statfs(existing).ok()?.f_type as u32;
        let known: [(u32, &str); 9] = [
            (0x6969, "NFS"),
            (0x517b, "SMB"),
            (0xff53_4d42, "CIFS"),
            (0xfe53_4d42, "SMB2"),
            (0x5346_414f, "AFS"),
            (0x0102_1997, "9P"),
            (0x00c3_6400, "Ceph"),
            (0x0bd0_0bd0, "Lustre"),
            (0x4750_4653, "GPFS"),
        ];
        known.into_iter().find(|(k, _)| *k == kind).map(|(_, name)| name)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}
