//! Commands that are shown but never run top to bottom: left-out parts, sessions with lines for the other side; and
//! those that need a terminal of their own (C4).

use super::commands::{self, ChunkKind};
use super::sessions;

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
    let opener = sessions::opened_before_the_end(code)?;
    let shown: String = opener.trim().chars().take(60).collect();
    Some(format!(
        "`{shown}` opens another shell and the lines after it are meant for the other side: open it first, then paste them there"
    ))
}

/// Whether some command needs a terminal of its own.
pub fn interactive(code: &str) -> bool {
    let by_program = commands::chunks(code).into_iter().filter(|c| c.kind == ChunkKind::Command).any(|c| {
        let words: Vec<&str> = c.text.split_whitespace().collect();
        let program = commands::program(&c.text);
        matches!(program, "nano" | "vim" | "vi" | "emacs" | "top" | "htop" | "less" | "more" | "watch" | "k9s")
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
    });
    by_program || sessions::opened(code)
}
