//! How to install PostgreSQL on this system: the exact command, for a person or a drill to run. Nothing here runs it.

use std::path::Path;

/// An install command, as text for people and as arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallCommand {
    /// The system it is for, such as `Debian GNU/Linux 12 (bookworm)`.
    pub system: String,
    /// As one types it, with `sudo` when not root.
    pub text: String,
    /// Commands to run one after the other, without `sudo`.
    pub argv: Vec<Vec<String>>,
}

/// The install command for the system we run on; none when the system is not one we know.
pub fn install_command() -> Option<InstallCommand> {
    let release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| std::fs::read_to_string(p).ok());
    let mac = cfg!(target_os = "macos") || Path::new("/System/Library/CoreServices/SystemVersion.plist").exists();
    command_for(release.as_deref().unwrap_or(""), mac, crate::process::user::is_root())
}

/// The install command for a system described by its os-release text (the freedesktop.org format).
pub fn command_for(os_release: &str, mac: bool, root: bool) -> Option<InstallCommand> {
    let field = |name: &str| {
        os_release.lines().find_map(|l| {
            let (key, value) = l.split_once('=')?;
            (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']).to_string())
        })
    };
    if mac {
        return Some(build("macOS".into(), &[&["brew", "install", "postgresql@17"]], true));
    }
    let name = field("PRETTY_NAME").or_else(|| field("NAME")).unwrap_or_else(|| "this system".into());
    let ids = format!("{} {}", field("ID").unwrap_or_default(), field("ID_LIKE").unwrap_or_default());
    let commands: &[&[&str]] = ids.split_whitespace().find_map(|id| -> Option<&'static [&'static [&'static str]]> {
        Some(match id {
            "debian" | "ubuntu" | "linuxmint" | "raspbian" => {
                &[&["apt-get", "update"], &["apt-get", "install", "-y", "postgresql"]]
            }
            "fedora" | "rhel" | "centos" | "rocky" | "almalinux" | "amzn" | "ol" => {
                &[&["dnf", "install", "-y", "postgresql-server", "postgresql-contrib"]]
            }
            "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" | "sles" | "suse" => {
                &[&["zypper", "--non-interactive", "install", "postgresql-server", "postgresql-contrib"]]
            }
            "alpine" => &[&["apk", "add", "postgresql", "postgresql-contrib"]],
            "arch" | "archlinux" | "manjaro" => &[&["pacman", "-S", "--noconfirm", "--needed", "postgresql"]],
            _ => return None,
        })
    })?;
    Some(build(name, commands, root))
}

fn build(system: String, commands: &[&[&str]], plain: bool) -> InstallCommand {
    let argv: Vec<Vec<String>> = commands.iter().map(|c| c.iter().map(|w| (*w).to_string()).collect()).collect();
    let sudo = if plain { "" } else { "sudo " };
    let text = argv.iter().map(|c| format!("{sudo}{}", c.join(" "))).collect::<Vec<_>>().join(" && ");
    InstallCommand { system, text, argv }
}
