//! Owner, group and mode of what is stored and restored: names beside numbers, since another machine may number them otherwise.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::{Kind, Listed};
use crate::error::{Context, Result};
use crate::process::user;

/// Permission bits without those that give whoever runs a file the rights of its owner or group.
const PLAIN: u32 = 0o1777;

/// Names of users and groups, each asked for once.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl Names {
    /// Notes whose it is.
    pub(super) fn note(&mut self, entry: &mut Listed, meta: &fs::Metadata) {
        let (uid, gid) = (meta.uid(), meta.gid());
        (entry.uid, entry.gid) = (Some(uid), Some(gid));
        entry.user = self.users.entry(uid).or_insert_with(|| user::name_of(uid)).clone();
        entry.group = self.groups.entry(gid).or_insert_with(|| user::group_name(gid)).clone();
    }
}

/// The same for the tar stream, which other programs read, too.
pub(super) fn in_header(header: &mut tar::Header, entry: &Listed) {
    header.set_uid(entry.uid.unwrap_or(0).into());
    header.set_gid(entry.gid.unwrap_or(0).into());
    // A longer name than a header takes stands in the listing alone.
    let _ = entry.user.as_deref().map(|name| header.set_username(name));
    let _ = entry.group.as_deref().map(|name| header.set_groupname(name));
}

/// Gives back owner, group and mode, as far as whoever restores may.
#[derive(Default)]
pub(in super::super) struct Owners {
    users: HashMap<String, Option<u32>>,
    groups: HashMap<String, Option<u32>>,
    /// What could not be given back, for people.
    pub(in super::super) not_set: Vec<String>,
}

impl Owners {
    /// Sets them for something that was restored to `path`. Who may not give it to its owner gives nobody his rights either.
    ///
    /// # Errors
    /// The mode cannot be set.
    pub(in super::super) fn set(&mut self, path: &Path, listed: &Listed) -> Result<()> {
        // An earlier breakglass did not store whose it is.
        let mut mode = listed.mode & 0o777;
        if let (Some(uid), Some(gid)) = (listed.uid, listed.gid) {
            let owner = self.user(listed.user.as_deref()).unwrap_or(uid);
            let group = self.group(listed.group.as_deref()).unwrap_or(gid);
            mode = listed.mode;
            if let Err(e) = lchown(path, Some(owner), Some(group)) {
                mode &= PLAIN;
                let name = |name: &Option<String>, id: u32| name.clone().unwrap_or_else(|| id.to_string());
                let special =
                    if listed.mode & !PLAIN == 0 { String::new() } else { format!(", mode {:o}", listed.mode) };
                let (owner, group) = (name(&listed.user, uid), name(&listed.group, gid));
                self.not_set.push(format!("{}: owner {owner}:{group}{special} ({e})", listed.path));
            }
        }
        if listed.kind == Kind::Link {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .target(|| format!("setting the mode of {:?}", path.display()))
    }

    fn user(&mut self, name: Option<&str>) -> Option<u32> {
        let name = name?;
        let ask = || user::lookup(name).ok().map(|u| u.uid);
        *self.users.entry(name.to_string()).or_insert_with(ask)
    }

    fn group(&mut self, name: Option<&str>) -> Option<u32> {
        let name = name?;
        *self.groups.entry(name.to_string()).or_insert_with(|| user::gid_of(name))
    }
}
