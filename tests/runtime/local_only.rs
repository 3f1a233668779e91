//! An incident that is local only: nothing leaves this machine by our doing, and what does not is said.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use breakglass::action::{Ctx, Nowhere, may_leave};
use breakglass::config::Backend;
use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::incident::Command;
use breakglass::incident::RunStatus;
use breakglass::model::Secret;
use breakglass::model::event::Outcome;
use breakglass::model::plan::Risk;
use breakglass::runtime;

use super::Desk;

/// A service that nobody is to call: whether somebody did.
struct Outside(TcpListener);

impl Outside {
    fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }
    fn url(&self, folder: &Path) -> String {
        let file = folder.join("credentials");
        std::fs::write(&file, "AWS_ACCESS_KEY_ID=nobody\nAWS_SECRET_ACCESS_KEY=nothing\n").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let (at, file) = (self.0.local_addr().unwrap(), file.display());
        format!("s3://backups/team?endpoint=http://{at}&region=none&patience=1s&timeout=1s&credentials={file}")
    }
    fn called(&self) -> bool {
        match self.0.accept() {
            Ok(_) => true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Runs an action of ours to its end; how, and its last word.
fn run(d: &mut Desk, action: &str, args: &[&str]) -> (RunStatus, String) {
    let mut request = d.request(&format!("breakglass {action}"), args);
    (request.action, request.risk) = (action.into(), Risk::Read);
    d.job.code = None;
    let (run, started) = runtime::start_run(&mut d.incident, request, &d.job, &d.secrets, &d.program).unwrap();
    started.unwrap();
    let ended = d.ended(run);
    (ended.status, ended.summary)
}

fn local_only(d: &mut Desk, on: bool) {
    d.incident.submit(Command::SetLocalOnly { on, reason: "the intruder may listen".into() }).unwrap();
}

#[test]
fn nothing_leaves_and_what_does_not_is_said() {
    let outside = Outside::new();
    let mut d = Desk::new();
    d.job.settings.repository = Some(outside.url(d.home.path()));
    d.job.settings.repository_copies = vec![outside.url(d.home.path())];
    d.job.settings.notify = vec!["touch".into(), d.home.path().join("sent").display().to_string()];
    d.secrets.set(REPOSITORY_KEY, Secret::new("a passphrase of the tests, long enough".to_string()));

    local_only(&mut d, true);
    // The repository elsewhere.
    let (status, said) = run(&mut d, "pitr range", &[]);
    assert_eq!(status, RunStatus::Finished(Outcome::Refused), "{said}");
    assert!(said.contains("local only"), "{said}");
    assert!(!outside.called(), "nobody was asked");
    // Those of others.
    let conf = d.home.path().join("pgbackrest.conf");
    std::fs::write(&conf, "[other]\nrepo1-host=x\n[global]\nrepo1-path=/a\nrepo2-type = s3\n").unwrap();
    d.job.settings.pgbackrest.config = Some(conf);
    for (backend, repo, says) in [
        (Backend::Supabase, None, "a request to Supabase does not leave this machine"),
        (Backend::PgBackRest, Some(2), "repo2-type=s3"),
        (Backend::PgBackRest, None, "no stanza"),
    ] {
        (d.job.settings.backend, d.job.settings.pgbackrest.repo) = (backend, repo);
        let (status, said) = run(&mut d, "pitr range", &[]);
        assert!(said.contains(says), "{backend:?}: {status:?} {said}");
    }
    d.job.settings.backend = Backend::Native;
    // A message to the configured command is refused before anything runs.
    let mut request = d.request("we are on it", &["--audience", "team"]);
    request.action = "notify".into();
    d.job.code = Some("we are on it".into());
    let refused = runtime::start_run(&mut d.incident, request, &d.job, &d.secrets, &d.program).unwrap_err();
    assert!(refused.to_string().contains("local only"), "{refused}");
    assert!(!d.home.path().join("sent").exists());
    // Whatever speaks to a service of somebody else asks here.
    let ctx = |d: &Desk| {
        let state = Arc::new(d.incident.state().unwrap().clone());
        Ctx { incident: Some(state), ..Ctx::new(d.job.settings.clone(), d.secrets.clone(), Arc::new(Nowhere)) }
    };
    let refused = may_leave(&ctx(&d), "the request to the provider").unwrap_err();
    assert!(refused.what.contains("the request to the provider does not leave this machine"), "{refused}");
    assert!(refused.hints.iter().any(|h| h.contains("local-only off")), "{refused}");
    // What stays here goes on as always.
    let (ended, said) = d.ran("echo here", &[]);
    assert!(ended.succeeded() && said.contains("here"), "{said}");

    local_only(&mut d, false);
    assert!(may_leave(&ctx(&d), "the request to the provider").is_ok());
    let (status, said) = run(&mut d, "pitr range", &[]);
    assert!(!said.contains("local only") && status != RunStatus::Finished(Outcome::Succeeded), "{status:?} {said}");
    assert!(outside.called(), "switched off, it is asked again: {said}");
}
