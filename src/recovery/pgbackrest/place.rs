//! Whether its repository is on this machine, by its configuration files. There is no question to its program that says so
//! without asking the repository itself.

use std::path::{Path, PathBuf};

use crate::config::backend::PgBackRestSettings;
use crate::model::CleanText;

/// What it reads when it is told no file: its defaults, the older one last.
const FILES: [&str; 2] = ["/etc/pgbackrest/pgbackrest.conf", "/etc/pgbackrest.conf"];
/// And every file of this folder.
const FOLDER: &str = "/etc/pgbackrest/conf.d";

/// What says that its repository may be on another machine; none when it is a folder on this one, as without a setting.
pub fn elsewhere(settings: &PgBackRestSettings) -> Option<String> {
    let files = match &settings.config {
        Some(file) => vec![file.clone()],
        None => {
            let more = std::fs::read_dir(FOLDER).into_iter().flatten().flatten().map(|e| e.path());
            FILES.iter().map(PathBuf::from).chain(more).filter(|f| f.is_file()).collect()
        }
    };
    let stanza = settings.stanza.as_deref().unwrap_or_default();
    files.iter().find_map(|f| elsewhere_by(f, stanza, settings.repo.unwrap_or(1)))
}

fn elsewhere_by(file: &Path, stanza: &str, repo: u32) -> Option<String> {
    let Ok(text) = std::fs::read_to_string(file) else {
        return Some(format!("{:?} cannot be read", file.display()));
    };
    let mut ours = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            // Also those for one command, such as [global:archive-get].
            let of = section.split(':').next().unwrap_or(section);
            ours = of == "global" || of == stanza;
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| ours) else { continue };
        let (key, value) = (key.trim(), value.trim());
        let host = key == format!("repo{repo}-host");
        // A share of Windows is one on a network.
        if host || key == format!("repo{repo}-type") && value != "posix" {
            return Some(format!("{key}={}", CleanText::line(value.as_bytes())));
        }
    }
    None
}
