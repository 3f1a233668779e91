//! Unix users: who we are, and an unprivileged one to run a server as when we are root.
//!
//! PostgreSQL refuses to run as root, so a program started as root hands its servers to `postgres`, else to `nobody`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A Unix user as the system knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one not repeated.
    pub groups: Vec<u32>,
    /// Home directory as recorded; it need not exist.
    pub home: PathBuf,
}

/// Users a server may run as when we are root, best first.
pub const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Whether this process runs with effective user id 0.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Effective user id of this process.
pub fn current_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Name of the user this process runs as; the number when the system has no name for it.
pub fn current_name() -> String {
    let uid = current_uid();
    name_of(uid).unwrap_or_else(|| uid.to_string())
}

/// Name of the user of this number; none when the system has no name for it.
pub fn name_of(uid: u32) -> Option<String> {
    let lines = passwd_lines(&uid.to_string());
    lines.iter().filter_map(|l| parse_passwd_line(l)).find(|u| u.uid == uid).map(|u| u.name)
}

/// Name of the group of this number; none when the system has no name for it.
pub fn group_name(gid: u32) -> Option<String> {
    groups(&gid.to_string()).into_iter().find(|(_, id)| *id == gid).map(|(name, _)| name)
}

/// Number of the group of this name; none when there is none.
pub fn gid_of(name: &str) -> Option<u32> {
    groups(name).into_iter().find(|(known, _)| known == name).map(|(_, gid)| gid)
}

/// Groups of group(5), `name:password:gid:members`, followed by what `getent` knows when the key is not among them.
fn groups(key: &str) -> Vec<(String, u32)> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_string(), fields.nth(1)?.parse().ok()?))
    };
    let file = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut all: Vec<(String, u32)> = file.lines().filter_map(parse).collect();
    if !all.iter().any(|(name, gid)| name == key || gid.to_string() == key) {
        all.extend(getent("group", key).iter().filter_map(|line| parse(line)));
    }
    all
}

/// The user this process runs as; none when the system has no name for it.
pub fn current() -> Option<UnixUser> {
    lookup(&current_name()).ok().filter(|u| u.uid == current_uid())
}

/// Looks a user up by name, in `/etc/passwd` and then through `getent` (LDAP, sssd).
///
/// # Errors
/// Usage when there is no such user.
pub fn lookup(name: &str) -> Result<UnixUser> {
    let mut user = passwd_lines(name)
        .iter()
        .filter_map(|l| parse_passwd_line(l))
        .find(|u| u.name == name)
        .ok_or_else(|| Error::usage(format!("there is no Unix user {name:?} on this system")))?;
    user.groups = supplementary(&user);
    Ok(user)
}

/// The user servers run as: none when we are not root (they run as ourselves), else the first of [`UNPRIVILEGED`].
///
/// # Errors
/// Target when we are root and the system has none of them.
pub fn unprivileged() -> Result<Option<UnixUser>> {
    if !is_root() {
        return Ok(None);
    }
    UNPRIVILEGED.iter().find_map(|name| lookup(name).ok().filter(|u| u.uid != 0)).map(Some).ok_or_else(|| {
        Error::target("PostgreSQL refuses to run as root and this system has neither user \"postgres\" nor \"nobody\"")
            .hint("Start breakglass as an ordinary user, or create one: useradd --system postgres")
    })
}

/// The file's lines, followed by what `getent` knows when the key is not among them.
fn passwd_lines(key: &str) -> Vec<String> {
    let file = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines: Vec<String> = file.lines().map(str::to_string).collect();
    let known = lines.iter().any(|l| {
        let mut f = l.split(':');
        f.next() == Some(key) || f.nth(1) == Some(key)
    });
    if !known {
        lines.extend(getent("passwd", key));
    }
    lines
}

fn getent(database: &str, key: &str) -> Vec<String> {
    let Some(program) = find_program("getent") else { return Vec::new() };
    // A directory service that hangs must not hang us: the helper below has a deadline of its own.
    let spec = super::spawn::ChildSpec::new(program).args([database, key]);
    match super::run::capture_blocking(&spec, std::time::Duration::from_secs(3)) {
        Ok(out) => String::from_utf8_lossy(&out.stdout).lines().map(str::to_string).collect(),
        Err(_) => Vec::new(),
    }
}

/// One line of passwd(5): `name:password:uid:gid:comment:home:shell`.
fn parse_passwd_line(line: &str) -> Option<UnixUser> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    Some(UnixUser {
        name: name.to_string(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: Vec::new(),
        home: PathBuf::from(home),
    })
}

/// Supplementary groups from group(5): `name:password:gid:member,member`.
fn supplementary(user: &UnixUser) -> Vec<u32> {
    let file = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut groups: Vec<u32> = file
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members] = fields[..] else { return None };
            members.split(',').any(|m| m == user.name).then(|| gid.parse().ok())?
        })
        .filter(|gid| *gid != user.gid)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// First executable file of that name in `PATH`; a name with a slash is taken as it is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return is_executable(Path::new(name)).then(|| PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(super::spawn::FALLBACK_PATH));
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
