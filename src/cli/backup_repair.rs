//! `breakglass backup repair`: `repository.json` anew, from the key file that only a holder of the secret can have made, and
//! `wal/cluster.json` by what is stored.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Invocation, print};
use crate::backup::catalog::Catalog;
use crate::backup::repository::{Repository, Unlocked};
use crate::backup::{pinned, seen};
use crate::error::{Error, Result};

/// The definition.
pub fn command() -> Command {
    Command::new("repair")
        .about("Write repository.json and wal/cluster.json anew, when one is lost, damaged or was edited")
        .after_help(
            "The first comes from the key file, the second from what the backups and the log say. Neither holds a secret, and both need one: \
             BACKUP_ENCRYPTION_KEY, or a recipient's key in BACKUP_IDENTITY_FILE. Backups, log and keys stay as they are.",
        )
        .arg(
            Arg::new("accept-keys")
                .long("accept-keys")
                .action(ArgAction::SetTrue)
                .help("Although the key file is not the one that was seen here, or does not open the catalog"),
        )
}

/// Runs it.
///
/// # Errors
/// Refused when the key file is an older one, or none of those that are pinned; as [`Repository::repair`].
pub fn repair(invocation: &Invocation, m: &ArgMatches, url: &str) -> Result<u8> {
    let config = &invocation.config;
    let check = |unlocked: &Unlocked| {
        pinned::key(&config.settings.recipients, unlocked.repository())?;
        if m.get_flag("accept-keys") { Ok(()) } else { newest(invocation, unlocked) }
    };
    let (unlocked, written) = Repository::repair(url, &config.secrets, check)?;
    let mended = unlocked.mend_cluster(&Catalog::load(&unlocked)?)?;
    let repository = unlocked.repository();
    if let Some(heads) = &config.settings.catalog_heads {
        // That it cannot be remembered hinders nothing.
        let _ = seen::remember(heads, repository);
    }
    let (id, place, key) = (unlocked.id(), repository.store().url(), repository.key_id());
    if invocation.json {
        let document = serde_json::json!({"repository": id, "url": place, "key_id": key, "written": written,
            "cluster": repository.cluster()?.map(|c| c.system_identifier.to_string()), "cluster_written": mended.is_some()});
        return print(&format!("{document:#}")).map(|()| 0);
    }
    if let Some(wrong) = &mended {
        let now = match repository.cluster()? {
            Some(c) => format!("wal/cluster.json in {place} was written anew: cluster {}", c.system_identifier),
            None => format!("wal/cluster.json in {place} was removed: the first archived segment writes it anew"),
        };
        print(&format!("{now} ({}: {})", wrong.what, wrong.why))?;
    }
    if !written && mended.is_some() {
        return print(&format!("repository.json in {place} is as the key file says")).map(|()| 0);
    }
    if !written {
        return print(&format!("repository.json in {place} is as the key file says: nothing was written")).map(|()| 0);
    }
    print(&format!("repository.json in {place} was written anew: repository {id}, key {key}"))?;
    print(
        "Find out who changed it. `breakglass wal status` says what of the log cannot be used; a base backup taken now begins anew.",
    )?;
    Ok(0)
}

/// That the key file is the newest that is known of: written for the key of an older one, what the newer ones opened would be forgotten.
fn newest(invocation: &Invocation, unlocked: &Unlocked) -> Result<()> {
    let refused = |why: String| {
        Err(Error::refused("writing repository.json anew from this key file")
            .why(why)
            .hint("Put the folder keys back from a copy of the repository, or from where you keep it; then this command again.")
            .hint("If it is the right one all the same: breakglass backup repair --accept-keys."))
    };
    let heads = invocation.config.settings.catalog_heads.as_ref();
    if let Some(seen) = heads.map(|h| seen::at(h, &unlocked.repository().store().url())).transpose()?.flatten() {
        if seen.repository != unlocked.id() {
            return refused(format!("it is of repository {}, and {} was seen here", unlocked.id(), seen.repository));
        }
        // A key of before there were signatures has another id.
        if !unlocked.has_key(&seen.key_id) {
            return refused(format!("key {} was seen here on {}, and is not in it", seen.key_id, seen.at.date_hms()));
        }
    }
    let broken = Catalog::load(unlocked)?.broken;
    match broken.iter().find(|b| !b.accepted && !b.unreadable && b.why != "missing") {
        Some(b) => refused(format!("the catalog does not open with it: {}", b.describe())),
        None => Ok(()),
    }
}
