//! `breakglass backup rotate-key`: another passphrase, other recipients, another key pair. Objects are not touched.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Invocation, print};
use crate::backup::container::{Identity, hex, unhex};
use crate::backup::keys::{Opener, identity_from_text, identity_to_text};
use crate::backup::repository::Repository;
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Context, Error, Result};
use crate::model::{Secret, Time};

/// The definition.
pub fn command() -> Command {
    Command::new("rotate-key")
        .about("Change what opens the repository: passphrase (from BACKUP_NEW_ENCRYPTION_KEY), recipients, key pair")
        .after_help(
            "Old backups stay readable. A copy of the old key file still opens with the old passphrase: keep none.\n\
             Without the passphrase, a recipient's key in the file BACKUP_IDENTITY_FILE opens the repository, too.",
        )
        .arg(
            Arg::new("new-key-pair")
                .long("new-key-pair")
                .action(ArgAction::SetTrue)
                .help("Write for a new key pair from now on; the old ones stay, to read what is there"),
        )
        .arg(
            Arg::new("new-recipient")
                .long("new-recipient")
                .value_name("FILE")
                .help("Make a key that opens the repository as well, and write it to this new file (0600)"),
        )
        .arg(
            Arg::new("add-recipient")
                .long("add-recipient")
                .value_name("PUBLIC")
                .action(ArgAction::Append)
                .help("Let the holder of this public key open the repository as well (64 hexadecimal digits)"),
        )
        .arg(
            Arg::new("remove-recipient")
                .long("remove-recipient")
                .value_name("PUBLIC")
                .action(ArgAction::Append)
                .help("Take a recipient away"),
        )
}

/// Runs it.
pub fn rotate(invocation: &Invocation, m: &ArgMatches, url: &str) -> Result<u8> {
    let secrets = &invocation.config.secrets;
    let identity = secrets.get(REPOSITORY_IDENTITY).map(identity_from_text).transpose()?;
    let opener = match (secrets.get(REPOSITORY_KEY), &identity) {
        (Some(key), _) => Opener::Passphrase(key),
        (None, Some(identity)) => Opener::Identity(identity),
        (None, None) => {
            return Err(Error::config("the repository's key is not set")
                .hint("Set BACKUP_ENCRYPTION_KEY, or BACKUP_IDENTITY_FILE to the file of a recipient's key."));
        }
    };
    let mut new = invocation.env.get("BACKUP_NEW_ENCRYPTION_KEY").map(Secret::new);
    let list = |name: &str| -> Result<Vec<[u8; 32]>> {
        m.get_many::<String>(name).into_iter().flatten().map(|text| public_key(text)).collect()
    };
    let (add, remove) = (list("add-recipient")?, list("remove-recipient")?);
    let file = m.get_one::<String>("new-recipient");
    let pair = m.get_flag("new-key-pair");
    let repository = Repository::open(url)?;
    let unlocked = repository.unlock_by(opener)?;
    // An earlier rotation died between the key file and repository.json: finish that one.
    let newest = unlocked.identities().last().map(Identity::public);
    let unfinished = newest.filter(|n| *n != repository.public_key());
    if new.is_none() && add.is_empty() && remove.is_empty() && file.is_none() && !pair && unfinished.is_none() {
        return Err(Error::usage("nothing to rotate")
            .hint("Set BACKUP_NEW_ENCRYPTION_KEY to the new passphrase, or see breakglass backup rotate-key --help."));
    }
    let was = repository.key_file()?;
    // The one it has already: nothing would change, and saying that it did would let an old passphrase live on.
    let same = new.as_ref().is_some_and(|new| match opener {
        Opener::Passphrase(key) => key == new,
        Opener::Identity(_) => was.unlock_by(Opener::Passphrase(new)).is_ok(),
    });
    if same && unfinished.is_none() {
        return Err(Error::usage("the new passphrase is the one that the repository has already")
            .why("BACKUP_NEW_ENCRYPTION_KEY opens it as it is; nothing was changed")
            .hint("Set BACKUP_NEW_ENCRYPTION_KEY to another one, at least 32 characters: head -c 32 /dev/urandom | base64")
            .hint("If an earlier run was interrupted, it had come that far: set BACKUP_ENCRYPTION_KEY to the new one everywhere.")
            .hint("To change recipients or the key pair alone, leave BACKUP_NEW_ENCRYPTION_KEY unset."));
    }
    if same {
        // What is left of an interrupted rotation.
        new = None;
    }
    let mut keys = was.clone();
    let mut done = Vec::new();
    for public in &add {
        keys.add_recipient(opener, *public)?;
        done.push(format!("recipient {} added", hex(public)));
    }
    for public in &remove {
        keys.remove_recipient(public)?;
        done.push(format!("recipient {} removed", hex(public)));
    }
    if let Some(path) = file {
        let made = Identity::generate()?;
        write_new(&invocation.env.cwd.join(path), &identity_to_text(&made))?;
        keys.add_recipient(opener, made.public())?;
        done.push(format!(
            "recipient {} added; its key is in {path:?}: keep it apart from the passphrase",
            hex(&made.public())
        ));
    }
    let made = if pair {
        Some(keys.add_identity(opener, Time::from_system(std::time::SystemTime::now()))?.public())
    } else {
        None
    };
    if let Some(new) = &new {
        let cost = keys.cost();
        keys.change_passphrase(opener, new, cost)?;
        done.push("passphrase changed: set BACKUP_ENCRYPTION_KEY to the new one everywhere".into());
    }
    // What cannot be opened must never be stored.
    let check = new.as_ref().map_or(opener, Opener::Passphrase);
    if !remove.is_empty() && matches!(check, Opener::Identity(i) if remove.contains(&i.public())) {
        return Err(Error::refused("removing the recipient whose key opened the repository")
            .hint("Open it with the passphrase, or set a new one with BACKUP_NEW_ENCRYPTION_KEY."));
    }
    let identities = keys.unlock_by(check)?;
    repository.store_key_file(&was, &keys)?;
    let next = made.or(unfinished).and_then(|public| identities.iter().find(|i| i.public() == public));
    if let Some(next) = next {
        let public = next.public();
        repository.write_for(&identities, next)?;
        done.push(format!("objects are written for the new key {} from now on", hex(&public)));
    }
    // Read back from where it now is: the catalog opens, so every backup does.
    let unlocked = Repository::open(url)?.unlock_by(check)?;
    let backups = crate::backup::catalog::Catalog::load(&unlocked)?.backups.len();
    let recipients = keys.recipients();
    if invocation.json {
        let document = serde_json::json!({"done": done, "backups": backups, "recipients": recipients});
        print(&format!("{document:#}"))?;
        return Ok(0);
    }
    for line in &done {
        print(line)?;
    }
    print(&format!("{backups} backups open with it; {recipients} recipients besides the passphrase"))?;
    Ok(0)
}

fn public_key(text: &str) -> Result<[u8; 32]> {
    unhex(text.trim()).ok_or_else(|| {
        Error::usage(format!("{text:?} is not a recipient's public key")).why("64 hexadecimal digits are expected")
    })
}

fn write_new(path: &Path, text: &Secret) -> Result<()> {
    let what = || format!("writing the recipient's key to {:?}", path.display());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).target(what)?;
    file.write_all(text.expose().as_bytes()).target(what)?;
    file.sync_all().target(what)
}
