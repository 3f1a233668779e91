//! Commands that are shown but never run top to bottom: left-out parts, sessions with lines for the other side; and
//! those that need a terminal of their own (C4).

use super::commands::{self, ChunkKind};

/// `...` as a word, or a value that is only an ellipsis: the author left something out.
pub fn elision(code: &str) -> Option<String> {
    let left_out = commands::chunks(code).iter().filter(|c| c.kind == ChunkKind::Command).any(|c| {
        c.text.split_whitespace().any(|w| {
            let w = w.trim_matches(['"', '\'', ',', ';', ')', '(', '[', ']', '{', '}']);
            w == "..."
                || w == "…"
                || w.ends_with("://...")
                || w.ends_with("=...")
                || w.ends_with('…')
                || (w.ends_with("...") && w.contains("://"))
        })
    });
    left_out.then(|| "something was left out here (`...`): fill it in by hand".into())
}

/// A block for a shell that is not bash: bash would read it as something else.
pub fn other_shell(lang: &str) -> Option<String> {
    let name = match lang {
        "powershell" | "pwsh" | "ps1" | "ps" => "PowerShell",
        "cmd" | "bat" | "batch" | "dos" => "the Windows command prompt",
        "fish" => "fish",
        _ => return None,
    };
    Some(format!("this is for {name}, not for bash: run it there"))
}

/// A query in a language PostgreSQL does not speak.
pub fn other_query(lang: &str) -> Option<String> {
    let name = match lang {
        "promql" => "PromQL",
        "logql" => "LogQL",
        "kql" | "kusto" => "KQL",
        "cql" => "CQL",
        "mysql" => "MySQL",
        "tsql" | "mssql" => "T-SQL",
        "mongosh" | "mongodb" | "mongo" => "MongoDB",
        "redis" => "Redis",
        "influxql" | "flux" => "InfluxDB",
        "graphql" => "GraphQL",
        "sparql" | "cypher" => "another database",
        _ => return None,
    };
    Some(format!("this is for {name}, not for PostgreSQL: run it there"))
}

/// A command that opens another shell, with more commands after it that are meant for the other side.
pub fn session(code: &str) -> Option<String> {
    let commands: Vec<String> =
        commands::chunks(code).into_iter().filter(|c| c.kind == ChunkKind::Command).map(|c| c.text).collect();
    let (_, before) = commands.split_last()?;
    let opener = before.iter().find(|c| opens_shell(c))?;
    let shown: String = opener.lines().next().unwrap_or_default().trim().chars().take(60).collect();
    Some(format!(
        "`{shown}` opens another shell and the lines after it are meant for the other side: open it first, then paste them there"
    ))
}

fn opens_shell(command: &str) -> bool {
    let mut joined = command.replace("\\\n", " ");
    // `<db-host>` is a blank, not a redirection: it must not hide the session that it opens.
    for blank in super::placeholders::in_code(&joined, false) {
        joined = joined.replace(&blank, "blank");
    }
    if joined.contains(['|', '<']) {
        return false;
    }
    let words: Vec<&str> = joined
        .split_whitespace()
        .take_while(|w| !w.starts_with('#'))
        .skip_while(|w| matches!(*w, "sudo" | "exec"))
        .collect();
    let last = words.last().copied().unwrap_or_default();
    let shell = |w: &str| {
        matches!(
            w.rsplit('/').next().unwrap_or(w),
            "bash" | "sh" | "zsh" | "ash" | "psql" | "mysql" | "mongosh" | "mongo" | "redis-cli"
        )
    };
    match words.first().copied().unwrap_or_default() {
        "ssh" | "mosh" => ssh_without_command(&words),
        "su" => !words.contains(&"-c"),
        "-i" | "-s" | "-u" => words.contains(&"-i") || last == "-s",
        "kubectl" | "oc" | "docker" | "docker-compose" | "podman" | "nsenter" | "chroot" => {
            (words.contains(&"exec") || words.contains(&"run") || words.first() == Some(&"chroot")) && shell(last)
        }
        "psql" | "mysql" | "mongosh" | "mongo" => interactive_client(&words),
        "redis-cli" => words.len() == 1,
        "bash" | "sh" | "zsh" => words.len() == 1,
        "railway" | "heroku" | "fly" | "flyctl" => {
            words.contains(&"ssh") && !words.contains(&"-C") && !words.contains(&"--command")
                || words.get(1) == Some(&"shell")
        }
        _ => false,
    }
}

/// Options of ssh that take a value (ssh(1)).
const SSH_VALUES: &str = "BbcDEeFIiJLlmOopQRSWw";

fn ssh_without_command(words: &[&str]) -> bool {
    let mut host = false;
    let mut i = 1;
    while let Some(word) = words.get(i) {
        if let Some(option) = word.strip_prefix('-').filter(|_| !host) {
            if option.contains('N') || option.contains('f') {
                return false; // a tunnel
            }
            if option.len() == 1 && SSH_VALUES.contains(option) {
                i += 1;
            }
        } else if host {
            return false; // a command follows the host
        } else {
            host = true;
        }
        i += 1;
    }
    host
}

fn interactive_client(words: &[&str]) -> bool {
    !words.iter().any(|w| {
        matches!(*w, "-c" | "-f" | "-e" | "-l" | "--list" | "--version" | "--eval")
            || w.starts_with("--command")
            || w.starts_with("--file")
            || w.starts_with("--execute")
            || w.starts_with("-c\"")
            || w.starts_with("-e\"")
            || w.starts_with("-c'")
            || (w.starts_with('-') && !w.starts_with("--") && w.ends_with('c') && w.len() <= 5)
            || (w.starts_with('-') && !w.starts_with("--") && w.ends_with('f') && w.len() <= 5)
            || w.ends_with(".js")
    })
}

/// Whether some command needs a terminal of its own.
pub fn interactive(code: &str) -> bool {
    commands::chunks(code).into_iter().filter(|c| c.kind == ChunkKind::Command).any(|c| {
        let words: Vec<&str> = c.text.split_whitespace().collect();
        let program = commands::program(&c.text);
        opens_shell(&c.text)
            || matches!(program, "nano" | "vim" | "vi" | "emacs" | "top" | "htop" | "less" | "more" | "watch" | "k9s")
            || (program == "tail"
                && words.iter().any(|w| {
                    matches!(*w, "-f" | "-F") || (w.starts_with('-') && w.contains('f') && !w.starts_with("--"))
                }))
            || (program == "kubectl" && (words.contains(&"port-forward") || words.contains(&"edit")))
            || (words.contains(&"exec") && words.iter().any(|w| matches!(*w, "-it" | "-ti")))
            || (program == "journalctl" && words.contains(&"-f"))
            || (matches!(program, "kubectl" | "docker")
                && words.contains(&"logs")
                && (words.contains(&"-f") || words.contains(&"--follow")))
    })
}
