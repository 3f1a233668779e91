//! An open incident: submit, watch, spawn and re-adopt, the worker's loop; history over all incidents.

pub mod adopt;
pub mod follow;
pub mod history;
pub mod incident;
pub mod kept_plan;
pub mod request;
pub mod rotations;
pub mod store;
pub mod submit;
pub mod worker;

pub use adopt::{RunHealth, look};
pub use follow::Follower;
pub use history::History;
pub use incident::Incident;
pub use request::{Job, Request};
pub use store::{Entry, Opening, Store};
pub use submit::{SubmitError, Submitted};
pub use worker::{start, start_run, worker_main};

use crate::model::Actor;

/// Who acts in this process: `user@host`. Under `sudo` the person behind it. On a shared account a name, not a proof.
pub fn actor() -> Actor {
    let user = match std::env::var("SUDO_USER") {
        Ok(user) if crate::process::user::is_root() && !user.is_empty() && user != "root" => user,
        _ => crate::process::user::current_name(),
    };
    let clean = crate::model::CleanText::line(user.as_bytes());
    Actor::new(format!("{clean}@{}", crate::journal::lock::host_name()))
}

/// The limits of the safety gates as [`crate::incident::decide`] takes them.
pub fn policy(settings: &crate::config::Settings) -> crate::incident::Policy {
    use std::time::Duration;
    crate::incident::Policy {
        backup_max_age: Duration::from_secs(settings.policy.backup_max_age_s),
        preview_max_age: Duration::from_secs(settings.policy.preview_max_age_s),
        second_person: settings.policy.second_person,
    }
}
