//! A cluster that archives its log into an encrypted repository through our own executable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breakglass::backup::base::store_base;
use breakglass::backup::keys::KdfCost;
use breakglass::backup::repository::{InitOptions, Repository, Unlocked};
use breakglass::backup::wal::archive_command;
use breakglass::config::{Connection, Settings};
use breakglass::model::Secret;
use breakglass::postgres::BaseBackup;
use breakglass::postgres::configuration::ConfigurationFile;
use breakglass::recovery::range::Route;
use breakglass::recovery::shadow::Request;

use super::cluster::{Cluster, LIMIT, Scratch, programs, server_user};

/// Passphrase of the test repositories.
pub const PASSPHRASE: &str = "correct horse battery staple 0123456789";

/// The cluster and its repository.
pub struct Archived {
    pub cluster: Arc<Cluster>,
    pub repository: PathBuf,
    pub unlocked: Unlocked,
    /// Folder for shadows and scratch files; the server's user can enter it.
    pub room: Scratch,
}

impl Archived {
    /// Starts one; segments are 1 MB.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, |_| Vec::new())
    }

    /// As [`Archived::start`], with settings that may name files, which are made in the folder that is given.
    pub fn start_with(name: &str, more: impl FnOnce(&std::path::Path) -> Vec<(&'static str, String)>) -> Self {
        let room = Scratch::new(&format!("{name}-room"));
        let repository = room.path.join("repository");
        let url = repository.display().to_string();
        let options = InitOptions {
            kdf: KdfCost { memory_kib: 64, passes: 1, lanes: 1 },
            wal_owner: server_user().map(|u| (u.uid, u.gid)),
            system_identifier: None,
        };
        let repo = Repository::init(&url, &Secret::new(PASSPHRASE), &options).unwrap();
        let unlocked = repo.unlock(&Secret::new(PASSPHRASE)).unwrap();
        let command =
            archive_command(std::path::Path::new(env!("CARGO_BIN_EXE_breakglass")), &url, Some(&repo.key_id()));
        let command = command.unwrap();
        let mut settings = vec![("archive_mode", "on".to_string()), ("archive_command", command)];
        settings.extend(more(&room.path));
        let settings: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let cluster = Cluster::create(name, &settings);
        // The cluster's file belongs to the server's user; the repository knows its cluster from the start.
        let control = breakglass::postgres::Control::read(
            &cluster.instance.programs,
            &cluster.instance.layout.data,
            server_user().as_ref(),
        )
        .unwrap();
        repo.bind_cluster(control.system_identifier.parse().unwrap(), Some(1 << 20)).unwrap();
        cluster.instance.start(LIMIT).unwrap();
        Self { cluster: Arc::new(cluster), repository, unlocked, room }
    }

    /// The program, for this cluster and its repository.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(args)
            .env("DATABASE_URL", self.cluster.database("postgres").url())
            .env("BACKUP_DIR", &self.repository)
            .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
            .env("BREAKGLASS_HOME", self.room.path.join("state"))
            .current_dir(&self.room.path);
        c
    }

    /// Runs it; exit code, and everything it said.
    pub fn run(&self, args: &[&str]) -> (i32, String) {
        said(&mut self.command(args))
    }

    /// The settings of whoever recovers it into this folder.
    pub fn settings(&self, instances: &Path) -> Settings {
        let db = self.cluster.database("postgres");
        Settings {
            database: Some(Connection {
                host: db.host().into(),
                port: db.port(),
                user: "postgres".into(),
                database: "postgres".into(),
                sslmode: None,
            }),
            repository: Some(self.repository.display().to_string()),
            run_as: server_user().map(|u| u.name),
            instances_dir: Some(instances.to_path_buf()),
            helper_exe: Some(env!("CARGO_BIN_EXE_breakglass").into()),
            ..Settings::default()
        }
    }

    /// A shadow to be built in this folder of the room.
    pub fn request(&self, name: &str, route: Route, suspects: Vec<u32>) -> Request {
        Request {
            root: self.room.path.join(name),
            route,
            bin_dir: None,
            user: server_user(),
            helper: env!("CARGO_BIN_EXE_breakglass").into(),
            superuser: "postgres".into(),
            suspects,
            ignore_space: false,
            delta: None,
            source_settings: vec![],
            source_front: None,
        }
    }

    /// Takes a base backup into the repository; returns its id.
    pub fn base_backup(&self) -> String {
        self.base_backup_with(&[])
    }

    /// As [`Archived::base_backup`], with these configuration files.
    pub fn base_backup_with(&self, files: &[ConfigurationFile]) -> String {
        let mut stream = BaseBackup::start(&programs(), &self.cluster.database("postgres"), "test", None).unwrap();
        let pending = store_base(&self.unlocked, &mut stream, Some("test"), &mut |_| Ok(())).unwrap();
        stream.finish().unwrap();
        let pending = if files.is_empty() { pending } else { pending.with_configuration(files).unwrap() };
        pending.commit().unwrap().id
    }

    /// Switches the log and waits until the last segment is archived; returns its name.
    pub fn archive_now(&self) -> String {
        self.archive_within(LIMIT)
    }

    /// As [`Archived::archive_now`], for as long as this may take.
    pub fn archive_within(&self, limit: Duration) -> String {
        let segment = self.cluster.sql("postgres", "select pg_walfile_name(pg_switch_wal())");
        let deadline = Instant::now() + limit;
        loop {
            let last = self.cluster.sql("postgres", "select coalesce(last_archived_wal, '') from pg_stat_archiver");
            if last >= segment {
                return segment;
            }
            assert!(
                Instant::now() < deadline,
                "{segment} was not archived; last is {last:?}: {}",
                self.cluster.instance.log_tail(5)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs a command; exit code, and everything it said.
pub fn said(c: &mut Command) -> (i32, String) {
    let out = c.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap(), text)
}
