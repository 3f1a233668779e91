//! Taking the source's place in the network: the address clients know, the rules by which they are let in, the keys they trust.
//!
//! Where a distribution keeps configuration outside the data directory, neither a base backup nor a log carries it; the running
//! source says where its files are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use crate::error::{Context, Error, Result};
use crate::postgres::connect::query_error;
use crate::postgres::{Instance, user};

/// Settings that name a file clients' trust depends on.
const FILES: [&str; 8] = [
    "hba_file",
    "ident_file",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "krb_server_keyfile",
];

/// How a source meets its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// `listen_addresses`; not empty.
    pub listen: String,
    /// Port.
    pub port: u16,
    /// Folders of its sockets.
    pub sockets: Vec<PathBuf>,
    /// `unix_socket_permissions`.
    pub socket_mode: String,
    /// Whether TLS is on.
    pub ssl: bool,
    /// Its files by the setting that names them, absolute.
    pub files: Vec<(String, PathBuf)>,
    /// Its data directory.
    pub data: PathBuf,
}

/// What of the front could be taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Settings for the successor.
    pub settings: Vec<(String, String)>,
    /// What a person should know, one line each.
    pub notes: Vec<String>,
}

/// Asks a source how it meets its clients. None when it listens on no network address: then its clients are told by other means.
///
/// # Errors
/// The query fails, or the role may not see where the files are.
pub async fn front(c: &mut PgConnection) -> Result<Option<Front>> {
    let sql = "SELECT name::text, setting FROM pg_catalog.pg_settings WHERE name = ANY($1)";
    let mut names: Vec<&str> = FILES.to_vec();
    names.extend([
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "unix_socket_permissions",
        "ssl",
        "data_directory",
    ]);
    let rows: Vec<(String, Option<String>)> =
        sqlx::query_as(sql).bind(&names).fetch_all(c).await.map_err(|e| query_error(sql, &e))?;
    let said = |name: &str| rows.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.clone());
    let listen = said("listen_addresses").unwrap_or_default();
    if listen.trim().is_empty() {
        return Ok(None);
    }
    let (Some(data), Some(_)) = (said("data_directory"), said("hba_file")) else {
        return Err(Error::refused("the role may not see where the source keeps its configuration")
            .why("without it the recovered instance cannot take the source's place")
            .hint("GRANT pg_read_all_settings to the role that DATABASE_URL names")
            .hint("or leave the recovered instance on its own socket: --own-address"));
    };
    let data = PathBuf::from(data);
    let file = |name: &&str| {
        let value = said(name).filter(|v| !v.is_empty())?;
        Some(((*name).to_string(), data.join(value)))
    };
    let sockets = said("unix_socket_directories").unwrap_or_default();
    Ok(Some(Front {
        port: said("port").unwrap_or_default().parse().target(|| "cannot read the port of the source".into())?,
        sockets: sockets
            .split(',')
            .map(|s| s.trim().trim_matches('"'))
            .filter(|s| s.starts_with('/'))
            .map(PathBuf::from)
            .collect(),
        socket_mode: said("unix_socket_permissions").unwrap_or_else(|| "0777".into()),
        ssl: said("ssl").as_deref() == Some("on"),
        files: FILES.iter().filter_map(file).collect(),
        listen,
        data,
    }))
}

/// Makes the files of the front usable for `instance` and says with which settings it takes the place.
///
/// A file outside the source's data directory is used where it is, because that is where people look after it; one inside is
/// copied, because the damaged data directory goes one day; so is one the server's user cannot read.
///
/// # Errors
/// A file that is needed is not there or cannot be copied.
pub fn take(front: &Front, instance: &Instance) -> Result<Taken> {
    let mut out = Taken::default();
    let mut set = |name: &str, value: String| out.settings.push((name.to_string(), value));
    set("listen_addresses", front.listen.clone());
    set("port", front.port.to_string());
    let mut folders = vec![instance.layout.sockets.clone()];
    folders.extend(front.sockets.iter().filter(|f| may(instance, "-w", f)).cloned());
    set("unix_socket_directories", folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(","));
    set("unix_socket_permissions", front.socket_mode.clone());
    set("ssl", if front.ssl { "on" } else { "off" }.into());
    let mut notes = Vec::new();
    for (name, path) in &front.files {
        let tls = name.starts_with("ssl_");
        if tls && !front.ssl {
            continue;
        }
        if !path.is_file() {
            // Kerberos names a file by default that few have.
            if name == "krb_server_keyfile" || name == "ident_file" {
                continue;
            }
            return Err(Error::target(format!("{name} of the source is not there: {:?}", path.display())));
        }
        // A file that was taken over before lies in the folder of a recovery, which goes one day, too.
        let taken = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("taken-"));
        let inside = taken || path.starts_with(&front.data);
        let used = if !inside && may(instance, "-r", path) { path.clone() } else { copy(path, name, instance)? };
        if used != *path && matches!(name.as_str(), "hba_file" | "ident_file") && has_includes(&used) {
            notes.push(format!(
                "{} names other files: see that they are found from {}",
                path.display(),
                used.display()
            ));
        }
        out.settings.push((name.clone(), used.display().to_string()));
    }
    out.notes = notes;
    Ok(out)
}

/// Whether the server's user may read or write it.
fn may(instance: &Instance, how: &str, path: &Path) -> bool {
    let mut c = std::process::Command::new("/bin/sh");
    c.args(["-c", &format!("test {how} \"$1\""), "sh"]).arg(path).env_clear().current_dir("/");
    c.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    user::apply(&mut c, instance.user.as_ref());
    c.status().is_ok_and(|s| s.success())
}

fn copy(path: &Path, name: &str, instance: &Instance) -> Result<PathBuf> {
    let what = || format!("cannot take {name} of the source over from {:?}", path.display());
    let text = std::fs::read_to_string(path).target(what)?;
    let to = instance.layout.config.join(format!("taken-{name}"));
    user::own_file(&to, &text, instance.user.as_ref())?;
    Ok(to)
}

/// `include…` lines and `@file` words: both are looked for beside the file they stand in.
fn has_includes(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    lines.into_iter().any(|l| l.starts_with("include") || l.split([' ', '\t', ',']).any(|w| w.starts_with('@')))
}
