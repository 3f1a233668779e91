//! Credentials in the text of a plan.

use super::{Level, Sheet};

/// Prefix, length of what follows, and name. From the issuers' published formats.
#[rustfmt::skip]
const TOKENS: &[(&str, usize, &str)] = &[
    ("AKIA", 16, "an AWS access key"), ("ASIA", 16, "an AWS session key"), ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"), ("github_pat_", 22, "a GitHub token"), ("sk_live_", 16, "a Stripe secret key"),
    ("rk_live_", 16, "a Stripe restricted key"), ("xoxb-", 20, "a Slack token"), ("xoxp-", 20, "a Slack token"),
    ("glpat-", 20, "a GitLab token"), ("sbp_", 40, "a Supabase token"), ("rnd_", 24, "a Render key"),
    ("AIza", 35, "a Google API key"),
];

/// Looks at every line, code and prose alike.
pub fn check(sheet: &mut Sheet<'_>) {
    let lines = sheet.lines().to_vec();
    for (line, number) in lines.iter().zip(1u32..) {
        if let Some((needle, what)) = token(line) {
            sheet.say(
                Level::Error,
                "secret",
                (number, &needle),
                format!("this looks like {what}"),
                "everybody who can read the plan can use it, and it stays in the history of the repository",
                "Revoke it, and name the variable or vault entry instead.",
            );
        } else if line.contains("PRIVATE KEY-----") && line.contains("-----BEGIN") {
            sheet.say(
                Level::Error,
                "secret",
                (number, "-----BEGIN"),
                "a private key in a plan",
                "everybody who can read the plan can use it",
                "Revoke it, and name the vault entry instead.",
            );
        } else if let Some(needle) = url_password(line) {
            sheet.say(
                Level::Warning,
                "secret",
                (number, &needle),
                "a password in a URL",
                "on a command line it also shows in the process list and in shell histories",
                "Take it from the environment: `$DATABASE_URL`.",
            );
        }
    }
}

fn token(line: &str) -> Option<(String, &'static str)> {
    TOKENS.iter().find_map(|(prefix, length, what)| {
        let at = line.find(prefix)?;
        let boundary = line[..at].chars().next_back().is_none_or(|c| !c.is_ascii_alphanumeric());
        let tail: String =
            line[at + prefix.len()..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
        let varied = tail.chars().collect::<std::collections::BTreeSet<_>>().len() > 6;
        let example = tail.to_lowercase().contains("example")
            || tail.to_lowercase().contains("xxx")
            || tail.contains("1234567890");
        (boundary && tail.len() >= *length && varied && !example).then(|| (format!("{prefix}{tail}"), *what))
    })
}

/// `scheme://user:password@host` with a password that is neither a variable nor a blank.
fn url_password(line: &str) -> Option<String> {
    let at = line.find("://")?;
    let tail = &line[at + 3..];
    let end = tail.find(|c: char| c.is_whitespace() || "/\"'`)".contains(c)).unwrap_or(tail.len());
    let (user, host) = tail[..end].rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    let blank = password.is_empty() || password.contains(['$', '<', '[', '{', '*', '…']) || password.contains("...");
    let lower = password.to_lowercase();
    let stand_in = ["pass", "pwd", "pw", "secret", "xxx", "your", "changeme", "example", "redacted"]
        .iter()
        .any(|w| lower.starts_with(w));
    // A database somebody started on this very machine for a try: everybody knows its password.
    let here = ["localhost", "127.0.0.1", "[::1]"].iter().any(|h| host == *h || host.starts_with(&format!("{h}:")));
    let user_name = user.split_once(':').map_or(user, |(u, _)| u);
    let well_known = lower == user_name.to_lowercase()
        || matches!(lower.as_str(), "postgres" | "test" | "root" | "admin" | "dev" | "password" | "secret");
    if here && well_known {
        return None;
    }
    // A stand-in like `password` gives nothing away, but in a command it still ends up in argv.
    let command = line.contains("export ")
        || line.contains("--")
        || line.trim_start().starts_with(|c: char| c.is_ascii_lowercase());
    (!host.is_empty() && !blank && (!stand_in || command)).then(|| format!("{user}@"))
}
