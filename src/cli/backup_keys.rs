//! `breakglass backup rotate-key`: another passphrase, other recipients, another key pair. Objects are not touched.

use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::stoppable::{self, Gate};
use super::{Invocation, print};
use crate::backup::catalog::Catalog;
use crate::backup::container::{Identity, hex, unhex};
use crate::backup::keys::{Opener, check_passphrase_of, identity_from_text};
use crate::backup::repository::{Repository, Unlocked};
use crate::backup::{anchor, pinned};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Secret, Time};

/// The definition.
pub fn command() -> Command {
    Command::new("rotate-key")
        .about("Change what opens the repository: passphrase (from BACKUP_NEW_ENCRYPTION_KEY), recipients, key pair")
        .after_help(
            "Old backups stay readable. A copy of the old key file still opens with the old passphrase: keep none.\n\
             A run that died goes on when the same command is given again, with the same variables.\n\
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

/// What is asked for.
struct Ask {
    url: String,
    passphrase: Option<Secret>,
    identity: Option<Identity>,
    new: Option<Secret>,
    add: Vec<[u8; 32]>,
    remove: Vec<[u8; 32]>,
    /// The new recipient's file.
    file: Option<PathBuf>,
    pair: bool,
    pins: Vec<String>,
    heads: Option<PathBuf>,
}

/// What was done.
struct Done {
    lines: Vec<String>,
    /// What to do with copies of the folder `keys`.
    copies: String,
    backups: usize,
    recipients: usize,
}

/// Runs it.
///
/// # Errors
/// Usage when there is nothing to change or the key does not open it; refused where the catalog was rolled back or somebody is not
/// pinned; interrupted, which says how far it came; target when the repository cannot be written.
pub fn rotate(invocation: &Invocation, m: &ArgMatches, url: String) -> Result<u8> {
    let secrets = &invocation.config.secrets;
    let new = invocation.env.get("BACKUP_NEW_ENCRYPTION_KEY").map(Secret::new);
    if let Some(new) = &new {
        check_passphrase_of("BACKUP_NEW_ENCRYPTION_KEY", new)?;
    }
    let list = |name: &str| -> Result<Vec<[u8; 32]>> {
        m.get_many::<String>(name).into_iter().flatten().map(|text| public_key(text)).collect()
    };
    let ask = Ask {
        url,
        passphrase: secrets.get(REPOSITORY_KEY).cloned(),
        identity: secrets.get(REPOSITORY_IDENTITY).map(identity_from_text).transpose()?,
        new,
        add: list("add-recipient")?,
        remove: list("remove-recipient")?,
        file: m.get_one::<String>("new-recipient").map(|path| invocation.env.cwd.join(path)),
        pair: m.get_flag("new-key-pair"),
        pins: invocation.config.settings.recipients.clone(),
        heads: invocation.config.settings.catalog_heads.clone(),
    };
    let json = invocation.json;
    let (done, stop) = stoppable::changing(move |gate| ask.work(gate))?;
    let done = match done {
        Ok(done) => done,
        Err(e) => return stoppable::ended(e, stop, json),
    };
    if stop.is_some() {
        let said = Error::interrupted("stopped on request")
            .why("what had begun was finished, and nothing of it is left to do");
        return stoppable::ended(done.lines.into_iter().fold(said, Error::hint).hint(done.copies), stop, json);
    }
    let Done { lines, copies, backups, recipients } = done;
    if json {
        let document = serde_json::json!({"done": lines, "backups": backups, "recipients": recipients});
        print(&format!("{document:#}"))?;
        return Ok(0);
    }
    for line in &lines {
        print(line)?;
    }
    print(&format!("{backups} backups open with it; {recipients} recipients besides the passphrase"))?;
    print(&copies)?;
    Ok(0)
}

/// What is to be done when the passphrase is another one by now.
const TELL: &str = "set BACKUP_ENCRYPTION_KEY to the new one everywhere";

impl Ask {
    /// Opens the repository; `true` when only the new passphrase does: an earlier run came as far as that.
    fn open(&self, repository: &Repository) -> Result<(Unlocked, Opener<'_>, bool)> {
        let opener = match (&self.passphrase, &self.identity) {
            (Some(key), _) => Opener::Passphrase(key),
            (None, Some(identity)) => Opener::Identity(identity),
            (None, None) => {
                return Err(Error::config("the repository's key is not set")
                    .hint("Set BACKUP_ENCRYPTION_KEY, or BACKUP_IDENTITY_FILE to the file of a recipient's key."));
            }
        };
        let e = match repository.unlock_by(opener) {
            Ok(unlocked) => return Ok((unlocked, opener, false)),
            Err(e) => e,
        };
        let Some(new) = self.new.as_ref().filter(|_| e.kind == ErrorKind::Usage && self.passphrase.is_some()) else {
            return Err(e);
        };
        match repository.unlock_by(Opener::Passphrase(new)) {
            Ok(unlocked) => Ok((unlocked, Opener::Passphrase(new), true)),
            Err(_) => Err(e),
        }
    }

    fn work(&self, gate: &Gate) -> Result<Done> {
        let repository = Repository::open(&self.url)?;
        let (unlocked, opener, resumed) = self.open(&repository)?;
        pinned::key(&self.pins, &repository)?;
        // What follows would be taken for a whole repository: as before a backup, somebody looks first.
        let catalog = Catalog::load(&unlocked)?;
        let mut told = |line: &str| {
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        if let Some(e) = anchor::check(self.heads.as_ref(), &unlocked, &catalog, &mut told) {
            let e = Error { kind: ErrorKind::Refused, ..e };
            return Err(e.hint("Nothing was changed; once that is done: this command again."));
        }
        // An earlier rotation died between the key file and repository.json: finish that one.
        let newest = unlocked.identities().last().map(Identity::public);
        let unfinished = newest.filter(|n| *n != repository.public_key());
        let asked = self.new.is_some() || self.pair || self.file.is_some();
        if !asked && self.add.is_empty() && self.remove.is_empty() && unfinished.is_none() {
            return Err(Error::usage("nothing to rotate").hint(
                "Set BACKUP_NEW_ENCRYPTION_KEY to the new passphrase, or see breakglass backup rotate-key --help.",
            ));
        }
        let was = repository.key_file()?;
        let mut new = self.new.as_ref().filter(|_| !resumed);
        // The one it has already: nothing would change, and saying that it did would let an old passphrase live on.
        let same = new.is_some_and(|new| match opener {
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
        if resumed {
            done.push(format!("the passphrase was changed already, by an earlier run: {TELL}"));
        }
        for public in &self.add {
            let there = resumed && keys.has_recipient(public);
            if !there {
                keys.add_recipient(opener, *public)?;
            }
            done.push(format!("recipient {} {}", hex(public), if there { "is there already" } else { "added" }));
        }
        for public in &self.remove {
            let gone = resumed && !keys.has_recipient(public);
            if !gone {
                keys.remove_recipient(public)?;
            }
            done.push(format!("recipient {} {}", hex(public), if gone { "is gone already" } else { "removed" }));
        }
        let (recipient, write) = match &self.file {
            None => (None, None),
            Some(path) => {
                let found = recipient_file::left(path)?;
                let write = found.is_none();
                let made = found.map_or_else(Identity::generate, Ok)?;
                let (public, file) = (made.public(), path.display().to_string());
                let there = keys.has_recipient(&public);
                if !there {
                    keys.add_recipient(opener, public)?;
                }
                done.push(format!(
                    "recipient {} {}; its key is in {file:?}{}: keep it apart from the passphrase",
                    hex(&public),
                    if there { "is there already" } else { "added" },
                    if write || there { "" } else { ", which an earlier run wrote" },
                ));
                (Some((public, file)), write.then_some((made, path)))
            }
        };
        let next = match unfinished {
            // It was made and never written for: no second one.
            Some(public) => Some(public),
            None if self.pair => {
                Some(keys.add_identity(opener, Time::from_system(std::time::SystemTime::now()))?.public())
            }
            None => None,
        };
        if let Some(new) = new {
            let cost = keys.cost();
            keys.change_passphrase(opener, new, cost)?;
            done.push(format!("passphrase changed: {TELL}"));
        }
        // What cannot be opened must never be stored.
        let check = new.map_or(opener, Opener::Passphrase);
        if matches!(check, Opener::Identity(i) if self.remove.contains(&i.public())) {
            return Err(Error::refused("removing the recipient whose key opened the repository")
                .hint("Open it with the passphrase, or set a new one with BACKUP_NEW_ENCRYPTION_KEY."));
        }
        let identities = keys.unlock_by(check)?;
        gate.enter()?;
        if let Some((made, path)) = &write {
            recipient_file::write(path, made)?;
        }
        pinned::recipients(&self.pins, &keys).map_err(|e| match &recipient {
            Some((public, file)) => e.hint(format!(
                "The new recipient's key is in {file:?}. Once backup.recipients names it: breakglass backup rotate-key --add-recipient {}",
                hex(public)
            )),
            None => e,
        })?;
        if keys != was {
            repository.store_key_file(&was, &keys).map_err(|e| match e.kind {
                ErrorKind::Refused => e,
                _ => e.hint("Whether the keys were changed is not known: the same command again sees it, and goes on."),
            })?;
        }
        let changed = new.is_some() || resumed;
        let late = |e: Error| {
            let e = if changed { e.hint(format!("The passphrase is changed already: {TELL}.")) } else { e };
            e.hint("The same command again goes on from here.")
        };
        if let Some(next) = next.and_then(|public| identities.iter().find(|i| i.public() == public)) {
            repository.write_for(&identities, next).map_err(late)?;
            done.push(format!("objects are written for the new key {} from now on", hex(&next.public())));
        }
        // Read back from where it now is: the catalog opens, so every backup does.
        let read = || Catalog::load(&Repository::open(&self.url)?.unlock_by(check)?);
        let backups = read().map_err(late)?.backups.len();
        let copies = format!(
            "replace every copy of the folder `keys` kept elsewhere by the one in {}, and destroy the old: a copy from before opens \
             with what was valid then, and not with what is valid now",
            repository.store().url()
        );
        Ok(Done { lines: done, copies, backups, recipients: keys.recipients() })
    }
}

fn public_key(text: &str) -> Result<[u8; 32]> {
    unhex(text.trim()).ok_or_else(|| {
        Error::usage(format!("{text:?} is not a recipient's public key")).why("64 hexadecimal digits are expected")
    })
}

/// The file that a new recipient's key is written to.
mod recipient_file {
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use crate::backup::container::Identity;
    use crate::backup::keys::{identity_from_text, identity_to_text};
    use crate::error::{Context, Error, Result};
    use crate::model::Secret;

    /// The key that is there already: of an earlier run that did not come to its end. None when there is no file.
    ///
    /// # Errors
    /// Refused when something else is there, or what somebody else may have put there.
    pub fn left(path: &Path) -> Result<Option<Identity>> {
        let what = || format!("writing the recipient's key to {:?}", path.display());
        let other = |why: &str| Err(Error::refused(what()).why(why).hint("Name a new file."));
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).state(what)?;
        let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::target(what()).why(e).hint("Name a new file.")),
        };
        let meta = file.metadata().target(what)?;
        if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return other("something is there already that is not a file of yours alone");
        }
        let mut text = String::new();
        let read = file.take(1024).read_to_string(&mut text);
        match read.ok().and_then(|_| identity_from_text(&Secret::new(text)).ok()) {
            Some(identity) => Ok(Some(identity)),
            None => other("the file is there already, and holds no recipient's key"),
        }
    }

    /// Writes it (0600), whole or not at all.
    ///
    /// # Errors
    /// There is something by now, or it cannot be written.
    pub fn write(path: &Path, made: &Identity) -> Result<()> {
        let what = || format!("writing the recipient's key to {:?}", path.display());
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new().prefix(".breakglass-recipient-").tempfile_in(folder).target(what)?;
        file.write_all(identity_to_text(made).expose().as_bytes()).target(what)?;
        file.as_file().sync_all().target(what)?;
        file.persist_noclobber(path).map_err(|e| e.error).target(what)?;
        std::fs::File::open(folder).and_then(|f| f.sync_all()).target(what)
    }
}
