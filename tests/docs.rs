//! Documents are true: README's commands parse and its size is kept, links lead somewhere, words are used as defined.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The command lines of every ```bash and ```text fence that begin with our program.
fn command_lines(markdown: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut fence: Option<String> = None;
    for line in markdown.lines() {
        if let Some(info) = line.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(info.trim().to_string()),
            };
        } else if matches!(fence.as_deref(), Some("bash" | "text")) {
            let line = line.trim();
            if line.starts_with("breakglass") || line.starts_with("cargo ") {
                out.push(line.to_string());
            }
        }
    }
    out
}

/// Whether a usage line such as `breakglass pitr locate|restore --out DIR   words` names commands and options that exist.
fn check_usage(line: &str) -> Result<(), String> {
    let usage = line.split("  ").next().unwrap_or(line);
    for alternative in usage.split(" | ") {
        let words: Vec<&str> = alternative.split_whitespace().filter(|w| *w != "breakglass").collect();
        let mut command = breakglass::cli::command();
        let mut path = String::from("breakglass");
        let mut rest = words.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            let names: Vec<&str> = first.split('|').collect();
            if names
                .iter()
                .any(|n| n.starts_with(['-', '[', '<', '.', '/']) || n.chars().all(|c| c.is_ascii_uppercase()))
            {
                break;
            }
            for name in &names {
                if command.find_subcommand(name).is_none() {
                    return Err(format!("{path} has no subcommand {name:?}"));
                }
            }
            let Some(next) = command.find_subcommand(names[0]).cloned() else { break };
            path = format!("{path} {}", names[0]);
            command = next;
            rest = tail;
            // Several alternatives are leaves; only a single name leads further down.
            if names.len() > 1 {
                break;
            }
        }
        for word in rest {
            let option = word.trim_matches(['[', ']', '.']);
            if let Some(long) = option.strip_prefix("--") {
                let known = command.get_arguments().any(|a| a.get_long() == Some(long));
                if !known && !matches!(long, "json" | "config" | "help") {
                    return Err(format!("{path} has no option --{long}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn readme_is_short_and_its_commands_exist() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 150, "README has {} lines, at most 150 are wanted", readme.lines().count());
    let lines = command_lines(&readme);
    assert!(lines.iter().any(|l| l == "cargo run --release -- drill"), "the first command is missing");
    assert!(lines.iter().any(|l| l == "cargo test"), "the second command is missing");
    let mut wrong = Vec::new();
    for line in &lines {
        let ours = match line.strip_prefix("cargo run --release -- ") {
            Some(rest) => format!("breakglass {rest}"),
            None if line.starts_with("cargo ") => continue,
            None => line.clone(),
        };
        if let Err(e) = check_usage(&ours) {
            wrong.push(format!("{line}: {e}"));
        }
    }
    assert!(wrong.is_empty(), "README promises what is not there:\n{}", wrong.join("\n"));
}

#[test]
fn the_configuration_in_readme_can_be_read() {
    let readme = read("README.md");
    let toml =
        readme.split("```toml\n").nth(1).and_then(|t| t.split("```").next()).expect("README shows a breakglass.toml");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("breakglass.toml");
    std::fs::write(&file, toml).unwrap();
    let env = breakglass::config::Environment { vars: Default::default(), cwd: dir.path().to_path_buf() };
    let config = breakglass::config::Config::load(&env, Some(&file)).unwrap();
    assert!(config.settings.database.is_some() && config.settings.repository.is_some() && !config.plans.is_empty());
}

#[test]
fn the_usage_check_can_fail() {
    assert!(check_usage("breakglass journal verify DIR").is_ok());
    assert!(check_usage("breakglass journal verfy DIR").is_err());
    assert!(check_usage("breakglass journal verify DIR --hed X").is_err());
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut files = vec!["README.md".to_string(), "CHANGELOG.md".to_string()];
    for dir in ["docs", "docs/decisions", "runbooks"] {
        for entry in std::fs::read_dir(root().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                files.push(format!("{dir}/{name}"));
            }
        }
    }
    let mut dead = Vec::new();
    for file in &files {
        let text = read(file);
        let dir = Path::new(file).parent().unwrap().to_path_buf();
        for part in text.split("](").skip(1) {
            let link = part.split([')', ' ']).next().unwrap_or("");
            if link.starts_with("http") || link.starts_with('#') || link.is_empty() {
                continue;
            }
            let path = link.split('#').next().unwrap_or(link);
            if !root().join(&dir).join(path).exists() {
                dead.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn every_subcommand_has_help_and_says_what_it_does() {
    fn walk(command: &clap::Command, path: &str, silent: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            if sub.is_hide_set() {
                continue;
            }
            let name = format!("{path} {}", sub.get_name());
            if sub.get_about().is_none_or(|a| a.to_string().is_empty()) {
                silent.push(name.clone());
            }
            for arg in sub.get_arguments() {
                if !arg.is_hide_set()
                    && arg.get_help().is_none()
                    && !matches!(arg.get_id().as_str(), "help" | "version")
                {
                    silent.push(format!("{name} {}", arg.get_id()));
                }
            }
            walk(sub, &name, silent);
        }
    }
    let mut silent = Vec::new();
    walk(&breakglass::cli::command(), "breakglass", &mut silent);
    assert!(silent.is_empty(), "without a word of help:\n{}", silent.join("\n"));
    breakglass::cli::command().debug_assert();
}

/// Every key the configuration knows stands in its reference.
#[test]
fn every_key_of_the_configuration_is_documented() {
    let documented = read("docs/formats.md");
    let mut keys = Vec::new();
    let sources = ["load", "settings", "health", "backend"].map(|f| read(&format!("src/config/{f}.rs"))).join(
        "
",
    );
    for (structure, section) in [
        ("File", ""),
        ("FileTarget", "target."),
        ("FileRepository", "repository."),
        ("FileRecovery", "recovery."),
        ("PgBackRestSettings", "pgbackrest."),
        ("FileSupabase", "supabase."),
        ("FilePostgres", "postgres."),
        ("ServiceSettings", "service."),
        ("FileFailover", "failover."),
        ("BreachSettings", "breach."),
        ("FilePolicy", "policy."),
        ("FileDrill", "drill."),
        ("FileNotify", "notify."),
        ("FileHealth", "health."),
        ("FileTiers", "backup.tiers."),
    ] {
        let from = sources.find(&format!("struct {structure} {{")).unwrap_or_else(|| panic!("{structure} is gone"));
        let body = &sources[from..from + sources[from..].find("\n}").unwrap()];
        let fields = body.lines().skip(1).filter_map(|l| l.trim().trim_start_matches("pub ").split_once(':'));
        keys.extend(fields.filter(|(f, _)| !f.starts_with('/')).map(|(field, _)| format!("{section}{field}")));
    }
    assert!(keys.len() > 30, "{keys:?}");
    let tables = [
        "recovery",
        "pgbackrest",
        "supabase",
        "target",
        "repository",
        "postgres",
        "service",
        "failover",
        "breach",
        "policy",
        "drill",
        "notify",
        "health",
        "backup",
    ];
    keys.retain(|key| !tables.contains(&key.as_str()));
    for key in keys {
        assert!(documented.contains(&format!("`{key}`")) || documented.contains(&format!("`{key} =")), "{key}");
    }
}
