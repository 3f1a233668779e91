//! Commands that open a session: a shell elsewhere, a database client, a terminal of its own. What stands after them in a
//! block was written for the other side and would run here, once the session is left (C4).

use super::shell_words::{Simple, pipelines};

/// What stands after the opening of a session, if anything: the command that opens it. `None` when there is no session,
/// or when nothing follows.
pub fn opened_before_the_end(code: &str) -> Option<String> {
    let all = pipelines(code);
    let (_, before) = all.split_last()?;
    before.iter().filter_map(|p| p.first()).find(|c| opens(c)).map(|c| c.words.join(" "))
}

/// Whether some command of a block opens a session.
pub fn opened(code: &str) -> bool {
    pipelines(code).iter().filter_map(|p| p.first()).any(opens)
}

/// Whether a simple command opens a session: it reads what it does from the terminal.
fn opens(command: &Simple) -> bool {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    !command.fed && session(&words)
}

/// Words that stand before a command without changing what it is.
const LEADING: &[&str] = &[
    "then", "do", "else", "elif", "if", "while", "until", "!", "{", "}", "time", "command", "exec", "nohup", "builtin",
    "eval", "env", "unbuffer", "winpty", "doas", "stdbuf",
];

fn session(words: &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    let assignment =
        first.split_once('=').is_some_and(|(n, _)| !n.is_empty() && n.chars().all(|c| c.is_alphanumeric() || c == '_'));
    if assignment || LEADING.contains(first) {
        return session(rest);
    }
    let program = first.rsplit('/').next().unwrap_or(first);
    let has = |word: &str| rest.contains(&word);
    let sub = rest.iter().find(|w| !w.starts_with('-')).copied().unwrap_or_default();
    match program {
        "sudo" => sudo(rest),
        "timeout" | "nice" | "ionice" | "sshpass" | "watch" => wrapped(rest),
        "ssh" | "slogin" | "autossh" | "mosh" => remote(rest),
        "tsh" | "docker-machine" | "vagrant" if sub == "ssh" => {
            let after = rest.iter().skip_while(|w| **w != "ssh").skip(1).copied().collect::<Vec<_>>();
            let named = !has("-c") && !has("--command");
            named && (program == "vagrant" || remote(&after))
        }
        "telnet" => true,
        "ftp" | "sftp" => !rest.iter().any(|w| w.starts_with("-b")),
        "su" => !rest.iter().any(|w| *w == "-c" || w.starts_with("--command")),
        "aws" => {
            has("start-session") || (has("execute-command") && after_option(rest, "--command").is_none_or(is_shell))
        }
        "gcloud" => {
            let commanded = rest.iter().any(|w| *w == "--" || w.starts_with("--command"));
            (has("ssh") && !commanded) || (sub == "sql" && has("connect"))
        }
        "az" => sub == "ssh" || after_option(rest, "--exec-command").is_some_and(is_shell),
        "kubectl" | "oc" | "docker" | "docker-compose" | "podman" | "nerdctl" | "lxc" | "incus" | "crictl" => {
            container(rest)
        }
        "k3s" | "microk8s" | "minikube" if sub == "ssh" || sub == "kubectl" => sub == "ssh" || session(rest),
        "chroot" | "nsenter" | "unshare" | "arch-chroot" => inside(program, rest),
        "multipass" | "poetry" | "pipenv" => sub == "shell",
        "machinectl" => matches!(sub, "shell" | "login"),
        "virsh" => sub == "console",
        "pct" | "toolbox" | "distrobox" => sub == "enter",
        "railway" | "heroku" | "fly" | "flyctl" => platform(rest),
        "screen" => !rest.iter().any(|w| w.starts_with("-d") || matches!(*w, "-ls" | "-list" | "-X" | "-wipe")),
        "tmux" => !has("-d") && matches!(sub, "" | "a" | "attach" | "attach-session" | "new" | "new-session"),
        "rails" => matches!(sub, "console" | "c" | "dbconsole" | "db"),
        "manage.py" => matches!(sub, "shell" | "dbshell" | "shell_plus") && !has("-c"),
        "python" | "python3" | "node" | "irb" | "pwsh" | "wsl" | "nix-shell" if rest.is_empty() => true,
        "python" | "python3" if sub.ends_with("manage.py") => {
            session(&rest[rest.iter().position(|w| *w == sub).unwrap_or(0)..])
        }
        "cockroach" => {
            sub == "sql" && !rest.iter().any(|w| *w == "-e" || w.starts_with("--execute") || w.starts_with("--file"))
        }
        _ => client(program, rest),
    }
}

/// A shell or the client of a database without anything to do given.
fn client(program: &str, rest: &[&str]) -> bool {
    let positional = || rest.iter().filter(|w| !w.starts_with('-')).count();
    match program {
        "bash" | "sh" | "zsh" | "ash" | "dash" | "fish" | "ksh" => {
            positional() == 0 && !rest.iter().any(|w| !w.starts_with("--") && w.contains('c'))
        }
        "psql" | "mysql" | "mariadb" | "mongosh" | "mongo" | "cqlsh" | "clickhouse-client" => asks(rest),
        "redis-cli" | "valkey-cli" => {
            let mut words = rest.iter();
            while let Some(word) = words.next() {
                if matches!(*word, "-h" | "-p" | "-a" | "-n" | "-u" | "-s" | "--user" | "--pass") {
                    words.next();
                } else if !word.starts_with('-')
                    || matches!(*word, "--eval" | "--scan" | "--bigkeys" | "--rdb" | "--pipe" | "--stat" | "--version")
                {
                    return false;
                }
            }
            true
        }
        "sqlite3" => positional() <= 1,
        _ => false,
    }
}

fn is_shell(command: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    words.split_first().is_some_and(|(p, rest)| client(p.rsplit('/').next().unwrap_or(p), rest))
}

/// The value of an option, in either spelling.
fn after_option<'w>(words: &[&'w str], option: &str) -> Option<&'w str> {
    words.iter().enumerate().find_map(|(i, w)| {
        let tail = w.strip_prefix(option)?;
        if tail.is_empty() { words.get(i + 1).copied() } else { tail.strip_prefix('=') }
    })
}

/// `sudo -u x psql`, `sudo -i`.
fn sudo(words: &[&str]) -> bool {
    let mut shell = false;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match *word {
            "-u" | "-g" | "-h" | "-p" | "-C" | "-D" | "-r" | "-t" | "-U" => at += 1,
            "--" => {
                at += 1;
                break;
            }
            w if w.starts_with("--") => shell |= matches!(w, "--login" | "--shell"),
            w if w.starts_with('-') => shell |= w.contains(['i', 's']),
            _ => break,
        }
        at += 1;
    }
    let rest = words.get(at..).unwrap_or_default();
    if rest.is_empty() { shell } else { session(rest) }
}

/// `timeout 5 x`, `sshpass -p y x`: what it wraps begins at some word.
fn wrapped(words: &[&str]) -> bool {
    (0..words.len().min(4)).any(|at| session(&words[at..]))
}

/// Options of ssh that take a value (ssh(1)).
const SSH_VALUES: &str = "BbcDEeFIiJLlmOopQRSWw";
/// Options of ssh with which it opens no shell.
const SSH_QUIET: &str = "NfWQVOG";

/// ssh without a command for the other side; options may also stand after the host.
fn remote(words: &[&str]) -> bool {
    let mut host = false;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        match word.strip_prefix('-').filter(|o| !o.is_empty()) {
            Some(long) if long.starts_with('-') => {}
            Some(letters) => {
                for (i, letter) in letters.char_indices() {
                    if SSH_QUIET.contains(letter) {
                        return false;
                    }
                    if SSH_VALUES.contains(letter) {
                        at += usize::from(i + letter.len_utf8() == letters.len());
                        break;
                    }
                }
            }
            None if host && !word.is_empty() => return false,
            None => host = true,
        }
    }
    host
}

/// Options of the clients psql, mysql and mongosh that say what to do.
fn asks(words: &[&str]) -> bool {
    !words.iter().any(|w| {
        let short = w.strip_prefix('-').filter(|s| s.len() <= 4 && s.bytes().all(|b| b.is_ascii_alphabetic()));
        // `-Atc`, `-lqt`, `-Ne`; not `-hdb`, whose rest is a value.
        let says = short.is_some_and(|s| {
            !s.starts_with(['h', 'p', 'U', 'd', 'u', 'P', 'D', 'v']) && s.contains(['c', 'f', 'l', 'e', 'V'])
        });
        let joined = ["-c\"", "-c'", "-e\"", "-e'", "-c ", "-e "].iter().any(|p| w.starts_with(p));
        let long = ["--command", "--file", "--execute", "--eval", "--list", "--version", "--help", "--query"]
            .iter()
            .any(|p| w.starts_with(p));
        says || joined || long || w.ends_with(".js") || w.ends_with(".sql")
    })
}

/// `docker exec -it db psql`, `kubectl exec pod -- bash -l`, `docker run -it image`.
fn container(words: &[&str]) -> bool {
    let verbs = ["exec", "run", "debug", "attach", "rsh", "shell", "console"];
    let Some(at) = words.iter().position(|w| verbs.contains(w)) else { return false };
    let rest = &words[at + 1..];
    let tty = rest.iter().any(|w| {
        matches!(*w, "--tty" | "--stdin")
            || w.strip_prefix('-').is_some_and(|o| o.len() <= 3 && o.contains('t') && o.contains('i'))
    }) || (rest.contains(&"-i") && rest.contains(&"-t"));
    match words[at] {
        "attach" | "shell" | "console" => true,
        "rsh" => positional(rest) <= 1,
        verb => {
            // The command inside begins at the first word that is a shell or a client.
            let inner = rest.iter().enumerate().find(|(_, w)| knows(w));
            match inner {
                Some((i, program)) => client(program.rsplit('/').next().unwrap_or(program), &rest[i + 1..]),
                None if verb == "exec" || rest.contains(&"--") => false,
                None => tty && positional(rest) <= 1,
            }
        }
    }
}

/// Whether a word is the name of a shell or of a client.
fn knows(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    let plain = !word.starts_with('-') && (name == word || word.starts_with('/'));
    // What a client takes as nothing to do shows that it is one.
    plain && client(name, &[])
}

/// How many words are neither options nor, as far as can be told, the value of one.
fn positional(words: &[&str]) -> usize {
    let flags = ["-it", "-ti", "-i", "-t", "-d", "--rm", "--tty", "--interactive", "--stdin", "--privileged", "--init"];
    let mut value = false;
    let mut count = 0;
    for word in words {
        if word.starts_with('-') {
            value = !word.contains('=') && !flags.contains(word);
        } else {
            count += usize::from(!std::mem::take(&mut value));
        }
    }
    count
}

/// `chroot /mnt`, `nsenter -t 1 -m bash`.
fn inside(program: &str, words: &[&str]) -> bool {
    match words.iter().position(|w| knows(w)) {
        Some(i) => session(&words[i..]),
        None if program.ends_with("chroot") => positional(words) <= 1,
        None => positional(words) == 0,
    }
}

/// `fly ssh console`, `heroku run bash`, `railway shell`.
fn platform(words: &[&str]) -> bool {
    let commanded = words.iter().any(|w| matches!(*w, "-C" | "-c" | "--") || w.starts_with("--command"));
    let verb = words.iter().find(|w| !w.starts_with('-')).copied().unwrap_or_default();
    let inner = words.iter().position(|w| *w == "run").and_then(|i| words.get(i + 1..)).is_some_and(session);
    let asks = words.iter().any(|w| matches!(*w, "ssh" | "pg:psql" | "ps:exec" | "connect")) || verb == "shell";
    inner || (asks && !commanded)
}
