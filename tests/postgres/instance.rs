//! Instances: created, started, seen, stopped; nothing of ours inherited; isolated from the network.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use breakglass::postgres::instance::{State, socket_path};
use breakglass::postgres::{Control, Instance, Layout, Lsn, Stop, identity};
use breakglass::postgres::{control, programs::data_version};

use crate::support::cluster::{Cluster, LIMIT, Scratch, block_on, programs, psql, server_user};

#[test]
fn an_instance_lives_on_its_socket_alone_and_inherits_nothing() {
    // A file without close-on-exec, as a lock handed on to children is.
    let scratch = Scratch::new("inherit");
    let lock = std::fs::File::create(scratch.path.join("children.lock")).unwrap();
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).unwrap();
    let c = Cluster::start("life", &[]);
    let pid = c.instance.pid().unwrap();
    let ours = std::fs::metadata(scratch.path.join("children.lock")).unwrap();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        if let Ok(m) = std::fs::metadata(entry.unwrap().path()) {
            assert_ne!((m.dev(), m.ino()), (ours.dev(), ours.ino()), "the server holds our lock file");
        }
    }
    assert!(lock.as_raw_fd() > 2);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("CARGO"), "the server inherited our environment");
    if let Some(u) = server_user() {
        assert_eq!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), u.uid);
    }
    assert_eq!(c.instance.state(), State::Ready);
    assert_eq!(c.sql("postgres", "show listen_addresses"), "");
    assert_eq!(c.sql("postgres", "show data_checksums"), "on");
    assert_eq!(std::fs::metadata(&c.instance.layout.sockets).unwrap().mode() & 0o777, 0o700);
    assert!(!c.instance.layout.config.starts_with(&c.instance.layout.data));

    let id = block_on(async {
        let d = c.database("postgres");
        identity(&mut d.connect().await.unwrap(), &d).await.unwrap()
    });
    let control = Control::read(&c.instance.programs, &c.instance.layout.data, server_user().as_ref()).unwrap();
    assert_eq!(id.system_identifier, control.system_identifier);
    assert_eq!((id.timeline, id.in_recovery), (1, false));
    assert_eq!(id.version_num / 10_000, programs().major);
    assert_eq!(id.data_directory.as_deref(), c.instance.layout.data.to_str());
    assert_eq!(control.segment_bytes, 1 << 20);
    assert!(control.checksums && control.track_commit_timestamp);
    assert_eq!(control.max_connections, 30);

    c.instance.stop(Stop::Fast, LIMIT).unwrap();
    assert!(!c.instance.is_running());
    assert!(psql(&c.database("postgres"), "select 1").is_err());
    let control = Control::read(&c.instance.programs, &c.instance.layout.data, server_user().as_ref()).unwrap();
    assert_eq!(control.state, "shut down");
    c.instance.start(LIMIT).unwrap();
    assert_eq!(c.sql("postgres", "select 40 + 2"), "42");
}

#[test]
fn a_server_that_cannot_start_says_why_from_its_own_log() {
    let c = Cluster::create("broken", &[("shared_preload_libraries", "no_such_library")]);
    let e = c.instance.start(LIMIT).unwrap_err();
    assert!(e.why.contains("no_such_library"), "{e}");
    assert!(!c.instance.is_running());
}

#[test]
fn a_wrong_version_of_the_data_is_refused_before_the_start() {
    let c = Cluster::create("version", &[]);
    assert_eq!(data_version(&c.instance.layout.data).unwrap(), programs().major);
    std::fs::write(c.instance.layout.data.join("PG_VERSION"), "9\n").unwrap();
    let e = c.instance.start(LIMIT).unwrap_err();
    assert!(e.what.contains("PostgreSQL 9"), "{e}");
}

#[test]
fn a_socket_path_is_short_or_refused() {
    let long = std::path::PathBuf::from("/tmp").join("x".repeat(120));
    let layout = Layout::under(&long, 5432);
    assert!(socket_path(&layout.sockets, 5432).as_os_str().len() <= 103);
    assert_eq!(layout, Layout::under(&long, 5432), "the same root finds the same socket again");
    let mut i = Instance::new(programs(), &long, server_user()).unwrap();
    i.layout.sockets = long;
    let e = i.make_dirs().unwrap_err();
    assert!(e.why.contains("107") || e.why.contains("103"), "{e}");
    assert_eq!(e.kind.exit_code(), 2);
}

#[test]
fn a_folder_of_somebody_else_is_not_used_for_sockets() {
    let Some(user) = server_user() else { return };
    let scratch = Scratch::new("foreign");
    let i = Instance::new(programs(), &scratch.path, Some(user)).unwrap();
    std::fs::create_dir(&i.layout.sockets).unwrap(); // belongs to root
    let e = i.make_dirs().unwrap_err();
    assert!(e.why.contains("not a directory of the server's user"), "{e}");
}

#[test]
fn settings_with_quotes_survive_and_bad_names_do_not() {
    let c = Cluster::create("quotes", &[("application_name", "it's a \\ test")]);
    c.instance.start(LIMIT).unwrap();
    assert_eq!(
        c.sql("postgres", "select setting from pg_file_settings where name = 'application_name'"),
        "it's a \\ test"
    );
    let e = c.instance.configure(&[("evil\nfsync".into(), "off".into())], None).unwrap_err();
    assert_eq!(e.kind.exit_code(), 2);
}

#[test]
fn control_text_without_a_field_is_an_error() {
    let e = control::Control::parse("Database system identifier: 1\n").unwrap_err();
    assert!(e.why.contains("Database cluster state"), "{e}");
}

#[test]
fn segments_are_named_as_the_server_names_them() {
    for size in [1u64 << 20, 16 << 20, 1 << 30] {
        for at in [0u64, 5, 0xFFFF_FFFF, 0x1_0000_0000, 0x12_3456_789A] {
            let name = Lsn(at).segment(3, size);
            assert_eq!(Lsn::of_segment(&name, size), Some((3, Lsn(at / size * size))), "{name}");
        }
    }
    assert_eq!(Lsn(0x5A2_F118).segment(1, 16 << 20), "000000010000000000000005");
    assert_eq!("0/5A2F118".parse::<Lsn>().unwrap().to_string(), "0/5A2F118");
    assert!("0/5A2F118X".parse::<Lsn>().is_err());
    assert_eq!(Lsn::of_segment("00000002.history", 16 << 20), None);
}
