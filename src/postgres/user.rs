//! The Unix user a server runs as: PostgreSQL refuses to run as root.

use std::path::Path;
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::process::UnixUser;
use crate::process::user::{current_uid, lookup, unprivileged};

/// The user server programs must run as: none (the current one) unless we are root; then `configured`, else `postgres`,
/// else `nobody`. A configured user that is the current one is none, too.
///
/// # Errors
/// The configured user does not exist, is root, or we are neither root nor that user; or there is none to fall back on.
pub fn for_server(configured: Option<&str>) -> Result<Option<UnixUser>> {
    let Some(name) = configured else { return unprivileged() };
    let user = lookup(name).map_err(|e| e.hint("set postgres.run_as to a user that exists, such as postgres"))?;
    if user.uid == 0 {
        return Err(Error::config("postgres.run_as is \"root\"").why("PostgreSQL refuses to run as root"));
    }
    match current_uid() {
        0 => Ok(Some(user)),
        current if current == user.uid => Ok(None),
        _ => Err(Error::config(format!("postgres.run_as is {name:?}"))
            .why("only root can run programs as another user")
            .hint(format!("start breakglass as {name} or as root"))),
    }
}

/// Makes the command run as `user`, with that user's group alone.
pub fn apply(command: &mut Command, user: Option<&UnixUser>) {
    use std::os::unix::process::CommandExt;
    if let Some(u) = user {
        // The standard library drops the supplementary groups of root when it sets a user id.
        command.gid(u.gid).uid(u.uid);
    }
}

/// Creates a directory (parents too) of mode 0700 that belongs to `user`; an existing one must be a directory of theirs.
///
/// # Errors
/// It cannot be created, or exists as somebody else's or as something else: never used then, because another user
/// could have put it there.
pub fn own_dir(dir: &Path, user: Option<&UnixUser>) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let what = || format!("cannot make the directory {:?}", dir.display());
    // Whatever the umask: parents that we make must let the server's user pass.
    let missing: Vec<&Path> =
        dir.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for parent in missing.into_iter().rev() {
        match std::fs::create_dir(parent) {
            Ok(()) => std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755)).target(what)?,
            // Somebody else was quicker.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::target(what()).why(e)),
        }
    }
    let uid = user.map_or_else(current_uid, |u| u.uid);
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if let Some(u) = user {
                std::os::unix::fs::chown(dir, Some(u.uid), Some(u.gid)).target(what)?;
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = std::fs::symlink_metadata(dir).target(what)?;
            if !meta.is_dir() || meta.uid() != uid {
                return Err(Error::target(format!("cannot use the directory {:?}", dir.display()))
                    .why("it exists and is not a directory of the server's user")
                    .hint("choose another place, or remove it if you know what it is"));
            }
            if meta.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).target(what)?;
            }
        }
        Err(e) => return Err(Error::target(what()).why(e)),
    }
    Ok(())
}

/// Writes a file that `user` owns, mode 0600, replacing what was there in one step.
///
/// # Errors
/// The file cannot be written.
pub fn own_file(path: &Path, text: &str, user: Option<&UnixUser>) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let what = || format!("cannot write {:?}", path.display());
    let mut scratch = path.as_os_str().to_os_string();
    scratch.push(".new");
    let scratch = std::path::PathBuf::from(scratch);
    if let Err(e) = std::fs::remove_file(&scratch)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::target(what()).why(e));
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch).target(what)?;
    file.write_all(text.as_bytes()).target(what)?;
    file.sync_all().target(what)?;
    if let Some(u) = user {
        std::os::unix::fs::fchown(&file, Some(u.uid), Some(u.gid)).target(what)?;
    }
    std::fs::rename(&scratch, path).target(what)
}
