//! What a fence is for (C1, C2), and the gates in front of running it (C4). When in doubt it is readable and copyable,
//! never runnable.

use crate::model::plan::{Block, BlockRole, Notice, Risk};

use super::commands::{self, ChunkKind};
use super::tree::Fence;
use super::{attributes, command_line, gates, placeholders, risk, words};

/// Where a fence stands, as far as its role depends on it.
#[derive(Debug, Default, Clone)]
pub struct Context {
    /// The paragraph or label directly above it.
    pub above: String,
    /// Whether it stands in a section of message templates.
    pub templates: bool,
}

#[rustfmt::skip]
const SHELL: &[&str] = &[
    "bash", "sh", "shell", "zsh", "console", "terminal", "shell-session", "shellsession", "sh-session",
    "powershell", "pwsh", "ps1", "ps", "cmd", "bat", "batch", "fish", "ksh", "dos",
];
const TRANSCRIPT: &[&str] = &["console", "terminal", "shell-session", "shellsession", "sh-session"];
#[rustfmt::skip]
const QUERY: &[&str] = &[
    "sql", "postgresql", "postgres", "pgsql", "psql", "plpgsql", "mysql", "kql", "kusto", "promql", "logql", "cql",
    "redis", "mongodb", "mongosh", "mongo", "tsql",
];
#[rustfmt::skip]
const SAMPLE: &[&str] = &[
    "yaml", "yml", "json", "jsonc", "json5", "toml", "ini", "env", "dotenv", "hcl", "terraform", "tf", "xml",
    "properties", "conf", "config", "nginx", "cron", "crontab", "dockerfile", "docker", "csv", "apache", "systemd",
    "makefile", "graphql", "http", "html", "css", "diff", "patch",
];
#[rustfmt::skip]
const SOURCE: &[&str] = &[
    "javascript", "js", "jsx", "typescript", "ts", "tsx", "python", "py", "ruby", "rb", "go", "golang", "rust",
    "rs", "java", "kotlin", "swift", "c", "cpp", "c++", "csharp", "cs", "c#", "php", "perl", "lua", "scala",
    "groovy", "elixir", "clojure", "r", "dart", "solidity", "vue",
];
const OUTPUT: &[&str] = &["output", "log", "logs", "stdout"];

/// Programs whose name at the start of an untagged block makes it shell (C1, C7).
#[rustfmt::skip]
const PROGRAMS: &[&str] = &[
    "ansible", "ansible-playbook", "apt", "apt-get", "aws", "az", "brew", "breakglass", "bundle", "cat", "cd",
    "certbot", "chmod", "chown", "consul", "cp", "createdb", "crictl", "crontab", "curl", "cypher-shell", "date",
    "df", "dig", "docker", "docker-compose", "doctl", "dropdb", "du", "echo", "etcdctl", "export", "find", "fly",
    "flyctl", "free", "gcloud", "gh", "git", "go", "gpg", "grep", "gsutil", "gunzip", "gzip", "helm", "heroku",
    "host", "initdb", "iptables", "istioctl", "journalctl", "kill", "kubectl", "k3s", "ls", "lsof", "make", "mc",
    "mkdir", "mongo", "mongodump", "mongorestore", "mongosh", "mount", "mv", "mysql", "mysqldump", "nc", "netlify",
    "netstat", "node", "nomad", "npm", "npx", "nslookup", "oc", "openssl", "pg_basebackup", "pg_ctl",
    "pg_ctlcluster", "pg_dump", "pg_dumpall", "pg_isready", "pg_restore", "pg_verifybackup", "pgbackrest", "php",
    "ping", "pip", "pm2", "pnpm", "poetry", "ps", "psql", "pulumi", "python", "python3", "railway", "rake",
    "rclone", "redis-cli", "restic", "rm", "rsync", "rustc", "cargo", "scp", "sed", "set", "sh", "bash", "sleep",
    "source", "sqlite3", "ss", "ssh", "stellar", "sudo", "su", "supabase", "systemctl", "tail", "head", "tar",
    "tee", "terraform", "tofu", "timeout", "top", "touch", "traceroute", "tsx", "umount", "unzip", "vault",
    "velero", "vercel", "wal-g", "barman", "patronictl", "repmgr", "watch", "wget", "wrangler", "xargs", "yarn",
    "zcat", "zfs", "zip", "nano", "vim", "vi",
];

#[rustfmt::skip]
const SQL_STARTS: &[&str] = &[
    "select", "begin", "update", "delete", "insert", "create", "alter", "drop", "truncate", "with", "grant",
    "revoke", "vacuum", "reindex", "explain",
];

/// Reads a fence: role, code, gates. Notices go to `notices`.
pub fn read(fence: &Fence, unrepaired: Option<&str>, context: &Context, notices: &mut Vec<Notice>) -> Block {
    let (lang, attrs, odd) = fence.info.as_deref().map(attributes::parse).unwrap_or_default();
    let mut block = Block { line: fence.line, line_end: fence.line_end, lang, attrs, ..Block::default() };
    let say = |text: String| Notice { line: fence.line, text };
    notices.extend(odd.into_iter().map(|o| say(format!("cannot read {o:?} among the attributes of this fence"))));
    for key in block.attrs.keys() {
        if !attributes::KNOWN.contains(&key.to_lowercase().as_str()) {
            notices.push(say(format!("unknown attribute {key:?}: ignored")));
        }
    }
    let (role, rule, commands_only) = role(&block, &fence.code, context);
    block.role = role;
    block.rule = rule.into();
    block.code = fence.code.clone();
    if let Some(only) = commands_only {
        block.raw = Some(std::mem::replace(&mut block.code, only));
    } else if let (Some(original), BlockRole::Run | BlockRole::Query) = (unrepaired, role) {
        // Bytes that may run are never changed by a repair.
        block.code = original.to_string();
        notices.push(say("this block holds text that was damaged by a wrong encoding: it is left as it stands".into()));
    }
    decide_gates(&mut block, notices);
    block
}

/// C1, first match wins; the last value is the commands of a transcript.
fn role(block: &Block, code: &str, context: &Context) -> (BlockRole, &'static str, Option<String>) {
    let attr = |key: &str| block.attrs.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_str());
    let never =
        attr("run").is_some_and(|v| v.eq_ignore_ascii_case("never")) || attr("ignore").is_some_and(|v| v != "false");
    let (role, rule, only) = inferred(&block.lang, code, context);
    if never && matches!(role, BlockRole::Run | BlockRole::Query) {
        return (BlockRole::Sample, "C1 run=never", None);
    }
    // An author may say that an untagged block is to be run.
    let wanted = attr("run").is_some_and(|v| ["auto", "confirm", "manual"].iter().any(|w| v.eq_ignore_ascii_case(w)));
    if wanted && role == BlockRole::Text && block.lang.is_empty() && has_command(code) {
        return (BlockRole::Run, "C1 run=", None);
    }
    (role, rule, only)
}

fn inferred(lang: &str, code: &str, context: &Context) -> (BlockRole, &'static str, Option<String>) {
    if code.trim().is_empty() {
        return (BlockRole::Text, "C1 empty", None);
    }
    let above = words::norm(&context.above);
    let output_above = [
        "expected output",
        "sample output",
        "example output",
        "output",
        "expected result",
        "you should see",
        "returns",
        "should look like",
    ]
    .iter()
    .any(|w| above.ends_with(w) || above.starts_with(w));
    if SHELL.contains(&lang) {
        return shell(lang, code, output_above);
    }
    if QUERY.contains(&lang) {
        let commands: Vec<_> = commands::chunks(code)
            .into_iter()
            .filter(|c| c.kind == ChunkKind::Command && !c.text.trim_start().starts_with("--"))
            .collect();
        let all_shell = !commands.is_empty()
            && commands.iter().all(|c| {
                let program = commands::program(&c.text);
                PROGRAMS.contains(&program)
                    && !SQL_STARTS.contains(&program.to_lowercase().as_str())
                    && !matches!(program, "set")
            });
        if all_shell {
            return (BlockRole::Run, "C1 shell under a query tag", None);
        }
        let only_comments = code.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with("--"));
        return if only_comments {
            (BlockRole::Comment, "C1 comments only", None)
        } else if output_above {
            (BlockRole::Output, "C1 output", None)
        } else {
            (BlockRole::Query, "C1 query", None)
        };
    }
    if SAMPLE.contains(&lang) {
        return (BlockRole::Sample, "C1 configuration", None);
    }
    if SOURCE.contains(&lang) {
        return (BlockRole::Source, "C1 source", None);
    }
    if OUTPUT.contains(&lang) {
        return (BlockRole::Output, "C1 output", None);
    }
    let prose =
        matches!(lang, "" | "text" | "txt" | "plain" | "plaintext" | "markdown" | "md" | "email" | "mail" | "slack");
    if prose && (context.templates || is_message(code)) && !(lang.is_empty() && untagged_shell(code)) {
        return (BlockRole::Template, "C1 template", None);
    }
    if output_above {
        return (BlockRole::Output, "C1 output", None);
    }
    if lang.is_empty() {
        if let Some(only) = transcript(code) {
            return (BlockRole::Run, "C2 transcript", Some(only));
        }
        if untagged_shell(code) {
            return (BlockRole::Run, "C1 untagged shell", None);
        }
    }
    (BlockRole::Text, "C1 text", None)
}

fn shell(lang: &str, code: &str, output_above: bool) -> (BlockRole, &'static str, Option<String>) {
    if !has_command(code) {
        return (BlockRole::Comment, "C1 comments only", None);
    }
    if only_blanks(code) {
        return (BlockRole::Text, "C1 only a blank", None);
    }
    if let Some(only) = transcript(code) {
        return (BlockRole::Run, "C2 transcript", Some(only));
    }
    let first =
        commands::chunks(code).into_iter().find(|c| c.kind == ChunkKind::Command).map(|c| c.text).unwrap_or_default();
    let trimmed = first.trim_start();
    let word = trimmed.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase();
    let upper = trimmed.starts_with(|c: char| c.is_ascii_uppercase());
    if SQL_STARTS.contains(&word.as_str()) && (upper || code.trim_end().ends_with(';')) && sql_shape(trimmed) {
        return (BlockRole::Query, "C1 query under a shell tag", None);
    }
    if trimmed.starts_with("-- ") {
        return (BlockRole::Query, "C1 query under a shell tag", None);
    }
    // A crontab's line, and the tail of a command whose beginning stands elsewhere: neither is a command.
    if is_cron_line(trimmed) {
        return (BlockRole::Sample, "C1 schedule", None);
    }
    if trimmed.starts_with('-') {
        return (BlockRole::Text, "C1 part of a command", None);
    }
    if trimmed.starts_with(['│', '┌', '├', '└', '╔', '|', '→', '↓', '"', '{', '<', '•', '✓', '✅'])
        && !trimmed.starts_with("{ ")
        && !trimmed.starts_with("\"$")
    {
        return (BlockRole::Sample, "C1 not shell", None);
    }
    if wants_arguments(code) {
        return (BlockRole::Sample, "C1 script with arguments", None);
    }
    let known_first = PROGRAMS.contains(&commands::program(&first));
    if (TRANSCRIPT.contains(&lang) || output_above)
        && !all_known(code)
        && !(known_first && !output_above && commands::chunks(code).len() == 1)
    {
        return (BlockRole::Output, "C1 output", None);
    }
    (BlockRole::Run, "C1 shell", None)
}

/// `[the commands that were run]`, `<command>`: nothing but a blank somebody has to fill in. `[ -f x ]` is a test.
fn only_blanks(code: &str) -> bool {
    commands::chunks(code).into_iter().filter(|c| c.kind == ChunkKind::Command).all(|c| {
        let text = c.text.trim();
        let inner = [('[', ']'), ('<', '>')].iter().find_map(|(a, b)| text.strip_prefix(*a)?.strip_suffix(*b));
        inner.is_some_and(|t| t.starts_with(char::is_alphabetic) && !t.contains(['[', ']', '<', '>']))
    })
}

/// Whether a block is something to do: it runs, or it is the text of a script that somebody calls.
pub(super) fn acts(block: &Block) -> bool {
    matches!(block.role, BlockRole::Run | BlockRole::Query | BlockRole::Comment)
        || block.role == BlockRole::Sample && block.rule == "C1 script with arguments"
}

/// Whether it is the text of a script that is called with arguments (`$1`, `${2:-x}`, `"$@"`): run as it stands, they would
/// be empty. Inside single quotes they are another program's (`awk '{print $1}'`), inside a function they are its own.
fn wants_arguments(code: &str) -> bool {
    if code.lines().any(|l| l.contains("() {") || l.contains("(){") || l.trim_start().starts_with("function ")) {
        return false;
    }
    let (mut single, mut double) = (false, false);
    let mut rest = code.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' if !single => drop(rest.next()),
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '#' if !single && !double => while rest.next_if(|c| *c != '\n').is_some() {},
            '$' if !single => {
                rest.next_if_eq(&'{');
                if rest.peek().is_some_and(|c| matches!(c, '1'..='9' | '@')) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// `0 3 * * * command`, `@daily command`.
fn is_cron_line(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let field = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_digit() || c == '*')
            && w.bytes().all(|b| b.is_ascii_digit() || b"*/,-".contains(&b))
    };
    (words.len() >= 6 && words.iter().take(5).all(|w| field(w)))
        || (words.len() >= 2
            && matches!(words.first(), Some(&("@daily" | "@hourly" | "@weekly" | "@monthly" | "@reboot" | "@yearly"))))
}

/// `SELECT … `, `UPDATE … SET`: not a program that happens to be called `select` or `update`.
fn sql_shape(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut tokens = lower.split_whitespace();
    let (first, second) = (tokens.next().unwrap_or_default().trim_end_matches(';'), tokens.next().unwrap_or_default());
    match first {
        "begin" | "select" | "with" | "explain" | "vacuum" | "reindex" | "truncate" | "grant" | "revoke" => true,
        "update" => lower.contains(" set "),
        "delete" => second == "from",
        "insert" => second == "into",
        "create" | "alter" | "drop" => [
            "table",
            "database",
            "index",
            "role",
            "user",
            "schema",
            "view",
            "extension",
            "function",
            "unique",
            "or",
            "publication",
            "subscription",
            "materialized",
            "type",
            "policy",
            "trigger",
        ]
        .contains(&second),
        _ => false,
    }
}

fn has_command(code: &str) -> bool {
    commands::chunks(code).iter().any(|c| c.kind == ChunkKind::Command)
}

/// Every logical command begins with a known program, an assignment or a keyword.
fn all_known(code: &str) -> bool {
    let mut any = false;
    for chunk in commands::chunks(code).into_iter().filter(|c| c.kind == ChunkKind::Command) {
        any = true;
        let program = commands::program(&chunk.text);
        let path = chunk.text.trim_start().starts_with("./");
        let keyword = matches!(program, "if" | "for" | "while" | "until" | "case");
        if !(program.is_empty() || PROGRAMS.contains(&program) || path || keyword) {
            return false;
        }
    }
    any
}

fn untagged_shell(code: &str) -> bool {
    let first =
        commands::chunks(code).into_iter().find(|c| c.kind == ChunkKind::Command).map(|c| c.text).unwrap_or_default();
    let program = commands::program(&first);
    // Words that also begin English sentences need more than themselves.
    let english = [
        "find", "make", "set", "watch", "date", "host", "head", "top", "go", "source", "touch", "mount", "kill",
        "export", "echo", "sleep", "node", "free", "timeout", "az", "fly", "stellar", "tee", "ping",
    ]
    .contains(&program);
    PROGRAMS.contains(&program)
        && (!english || first.contains(['-', '/', '$', '=', '|', '*']))
        && all_known(code)
        && !first.trim_end().ends_with(['.', ':'])
}

/// C2: when lines carry a prompt, only those (and their continuations) are commands; the rest is sample output.
fn transcript(code: &str) -> Option<String> {
    let prompt = |line: &str| -> Option<String> {
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("PS> ")) {
            return Some(rest.to_string());
        }
        let (head, rest) = line.split_once("# ").or_else(|| line.split_once("$ "))?;
        let at = head.contains('@')
            && !head.contains(' ')
            && (head.starts_with("root@") || head.ends_with([']', '~', ':']) || head.contains(':'));
        at.then(|| rest.to_string())
    };
    let mut out = String::new();
    let mut continued = false;
    let mut any = false;
    for line in code.lines() {
        let command = if continued { Some(line.trim_start_matches("> ").to_string()) } else { prompt(line) };
        if let Some(command) = command {
            any = true;
            continued = command.trim_end().ends_with('\\');
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&command);
        }
    }
    any.then_some(out)
}

/// `Subject: …`, `Status: …`: a message with header-like lines, or blanks in brackets.
fn is_message(code: &str) -> bool {
    const HEADERS: &[&str] = &[
        "subject",
        "status",
        "severity",
        "impact",
        "started",
        "start time",
        "service",
        "summary",
        "eta",
        "incident",
        "to",
        "from",
        "next update",
        "time",
        "affected",
        "date",
        "duration",
        "root cause",
        "description",
        "update",
        "dear",
        "issue",
        "assunto",
        "asunto",
        "title",
        "current status",
        "what happened",
        "incident commander",
    ];
    let headers = code
        .lines()
        .filter_map(|l| l.split_once(':'))
        .filter(|(h, _)| HEADERS.contains(&words::norm(h).as_str()))
        .count();
    let subject = code.lines().any(|l| l.trim_start().to_lowercase().starts_with("subject:"));
    subject || headers >= 2 || (headers >= 1 && !placeholders::in_message(code).is_empty())
}

/// Decides the gates again, for a part of a block.
pub fn regate(block: &mut Block) {
    block.own = None;
    block.risk = None;
    block.blocked = None;
    decide_gates(block, &mut Vec::new());
}

/// C4: what stands before running. All are cumulative.
fn decide_gates(block: &mut Block, notices: &mut Vec<Notice>) {
    match block.role {
        BlockRole::Template => block.placeholders = placeholders::in_message(&block.code),
        BlockRole::Query => {
            block.placeholders = placeholders::in_code(&block.code, true);
            block.risk = Some(risk::sql(&block.code));
            block.blocked = gates::other_query(&block.lang);
        }
        BlockRole::Run => {
            block.placeholders = placeholders::in_code(&block.code, false);
            if SHELL.contains(&block.lang.as_str()) || block.lang.is_empty() {
                block.own = command_line::own(&block.code);
            }
            block.risk = risk::shell(&block.code);
            let session = gates::session(&block.code);
            block.blocked =
                session.clone().or_else(|| gates::elision(&block.code)).or_else(|| gates::other_shell(&block.lang));
            block.interactive = session.is_none() && gates::interactive(&block.code);
        }
        _ => {}
    }
    if block.blocked.is_none() && block.role == BlockRole::Query && gates::elision(&block.code).is_some() {
        block.blocked = gates::elision(&block.code);
    }
    let said = block.attrs.get("risk").map(String::as_str);
    let stated = match said {
        Some("read") => Some(Risk::Read),
        Some("change") => Some(Risk::Change),
        Some("destroy") => Some(Risk::Destroy),
        Some(other) => {
            notices.push(Notice {
                line: block.line,
                text: format!("risk={other:?} is not read, change or destroy: ignored"),
            });
            None
        }
        None => None,
    };
    // An author's word sets the risk, but a known destructive pattern cannot be talked down.
    if let Some(stated) = stated {
        let pattern = block.risk.filter(|r| *r == Risk::Destroy);
        block.risk = Some(pattern.map_or(stated, |p| p.max(stated)));
    }
    if let Some(value) = block.attrs.get("interactive") {
        block.interactive = value != "false";
    }
}
