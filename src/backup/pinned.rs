//! Who a repository may be sealed for, where a team says so (`backup.recipients`): the key id of the repository, and the public keys of
//! its extra recipients. Who may write there can put another key into `repository.json`, and who holds the passphrase can let somebody
//! in; neither goes unseen where the list is kept elsewhere.

use super::keys::KeyFile;
use super::repository::Repository;
use crate::error::{Error, Result};

/// What is said to whoever was about to store something.
const NOTHING_STORED: &str = "Nothing was stored.";

/// Everybody that the repository is sealed for: its key id, then the public keys of the extra recipients.
pub fn sealed_for(repository: &Repository, keys: &KeyFile) -> Vec<String> {
    std::iter::once(repository.key_id()).chain(keys.publics().map(String::from)).collect()
}

/// The line of the configuration that names exactly these.
pub fn line(all: &[String]) -> String {
    let quoted: Vec<String> = all.iter().map(|r| format!("{r:?}")).collect();
    format!("under [backup] in breakglass.toml: recipients = [{}]", quoted.join(", "))
}

/// The pinned one that objects are written for, or that leads there by the signatures of its holders; none when nothing is pinned.
///
/// # Errors
/// Refused when it is none of them.
pub fn key<'p>(pinned: &'p [String], repository: &Repository) -> Result<Option<&'p str>> {
    if pinned.is_empty() {
        return Ok(None);
    }
    if let Some(id) = pinned.iter().find(|id| repository.follows(id)) {
        return Ok(Some(id));
    }
    Err(Error::refused(format!("sealing for key {} into {:?}", repository.key_id(), repository.store().url()))
        .why("backup.recipients does not name it, and nothing signed by the holder of one that it names leads there")
        .hint(
            "Somebody may have put a key of their own into repository.json: compare it and the folder keys with a copy. `breakglass \
             doctor`, with BACKUP_ENCRYPTION_KEY, says whether it is the right one, and prints the line to set.",
        )
        .hint(NOTHING_STORED))
}

/// That nobody opens the key file who is not pinned.
///
/// # Errors
/// Refused, naming who does.
pub fn recipients(pinned: &[String], keys: &KeyFile) -> Result<()> {
    let others: Vec<&str> = keys.publics().filter(|p| !pinned.iter().any(|known| known == p)).collect();
    let Some(first) = others.first().filter(|_| !pinned.is_empty()) else { return Ok(()) };
    Err(Error::refused(format!("sealing for recipient {}", others.join(", ")))
        .why("the key file of the repository lets it in, and backup.recipients does not name it")
        .hint(format!(
            "If nobody knows it: breakglass backup rotate-key --remove-recipient {first}, and ask who added it."
        ))
        .hint("If it is one of yours: add it to backup.recipients in breakglass.toml.")
        .hint(NOTHING_STORED))
}

/// Who a repository is sealed for that is not pinned, for those who only look: none when nobody is, or nothing is pinned. Who may not
/// read the key file hears of the key alone.
pub fn stranger(pinned: &[String], repository: &Repository) -> Option<Error> {
    let recipients = || repository.key_file().ok().map_or(Ok(()), |keys| recipients(pinned, &keys));
    let mut found = key(pinned, repository).and_then(|_| recipients()).err()?;
    found.hints.retain(|h| h != NOTHING_STORED);
    Some(found)
}

/// [`key`] and [`recipients`] of a repository as it is.
///
/// # Errors
/// As those; the key file cannot be read.
pub fn check(pinned: &[String], repository: &Repository) -> Result<()> {
    if pinned.is_empty() {
        return Ok(());
    }
    key(pinned, repository)?;
    recipients(pinned, &repository.key_file()?)
}
