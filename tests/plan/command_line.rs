//! Our own command line as bash reads it: bash itself is the judge.

use std::process::Command;

use breakglass::action::recognise::{Unexpanded, expand, recognise, variables};
use breakglass::plan::command_line::words;

fn plain(code: &str) -> Option<Vec<String>> {
    expand(&recognise(code)?, |name| Some(format!("value-of-{name}"))).ok()
}

#[test]
fn what_is_recognised() {
    let cases: &[(&str, Option<&[&str]>)] = &[
        ("breakglass health", Some(&["health"])),
        ("  breakglass health  \n", Some(&["health"])),
        (
            "breakglass pitr restore --to \"$TARGET\" --into beside",
            Some(&["pitr", "restore", "--to", "value-of-TARGET", "--into", "beside"]),
        ),
        ("breakglass pitr restore \\\n  --to ${TARGET}", Some(&["pitr", "restore", "--to", "value-of-TARGET"])),
        ("breakglass note 'it''s $HOME' \"a\\\"b\" c\\ d \"\"", Some(&["note", "its $HOME", "a\"b", "c d", ""])),
        ("breakglass", Some(&[])),
        ("breakglassy health", None),
        ("echo breakglass", None),
        ("sudo breakglass health", None),
        ("X=1 breakglass health", None),
        ("breakglass health | tee log", None),
        ("breakglass health; rm -rf /", None),
        ("breakglass health && true", None),
        ("breakglass health > out.txt", None),
        ("breakglass health &", None),
        ("breakglass note $(date)", None),
        ("breakglass note `date`", None),
        ("breakglass note $1", None),
        ("breakglass note ${X:-y}", None),
        ("breakglass note $'a'", None),
        ("breakglass note *.md", None),
        ("breakglass note {a,b}", None),
        ("breakglass note ~/x", None),
        ("breakglass note # comment", None),
        ("# comment\nbreakglass health", None),
        ("breakglass health\nbreakglass health", None),
        ("breakglass note 'open", None),
        ("breakglass note $A\\\nB", None),
        ("breakglass note \"$A\\\nB\"", None),
        ("breakglass note \"open", None),
        ("breakglass note \\", None),
        ("breakglass note <file>", None),
    ];
    for (code, want) in cases {
        let want = want.map(|w| w.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(plain(code), want, "{code:?}");
    }
}

#[test]
fn variables_are_asked_for_and_bare_ones_must_be_one_word() {
    let words = recognise("breakglass x \"$A\" $B \"$A\"").unwrap();
    assert_eq!(variables(&words), ["A", "B"]);
    assert_eq!(expand(&words, |_| None), Err(Unexpanded::Unset("A".into())));
    let two = |name: &str| Some(if name == "A" { "two words".to_string() } else { "one".into() });
    assert_eq!(expand(&words, two).unwrap(), ["x", "two words", "one", "two words"]);
    let bad = |_: &str| Some("two words".to_string());
    assert_eq!(expand(&words, bad), Err(Unexpanded::NeedsQuotes("B".into())));
}

/// A small generator: the same numbers every time.
struct Numbers(u64);
impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

fn line(numbers: &mut Numbers) -> String {
    const PIECES: &[&str] = &[
        "a",
        "b-c",
        "--to",
        "=",
        "'",
        "\"",
        "\\",
        " ",
        "  ",
        "\t",
        "$A",
        "${B}",
        "$SP",
        "\"$SP\"",
        "\"$EMPTY\"",
        "$EMPTY",
        "|",
        ";",
        "&",
        "<",
        ">",
        "(",
        ")",
        "`",
        "$(",
        "$",
        "*",
        "?",
        "[x]",
        "{a,b}",
        "~",
        "#",
        "!",
        "\n",
        "\\\n",
        "'x y'",
        "\"x  y\"",
        "\\ ",
        "\\$A",
        "'$A'",
        "\"\\\"\"",
        "é",
        "日本",
        "%",
        ",",
        ":",
        "/",
        "..",
        "^",
        "}",
        "]",
        "@",
        "+",
        "''",
        "\"\"",
        "\"\\$A\"",
        "\"a\\b\"",
        "\"'\"",
        "'\"'",
        "$A$B",
        "${A}b",
        "$Ab",
        "0",
        "1>",
        "\\'",
        "\\\"",
    ];
    let mut out = "breakglass ".to_string();
    for _ in 0..1 + numbers.below(9) {
        out.push_str(PIECES[numbers.below(PIECES.len())]);
        if numbers.below(3) == 0 {
            out.push(' ');
        }
    }
    out
}

#[test]
fn agrees_with_bash_or_declines() {
    let soak = std::env::var_os("BREAKGLASS_SOAK").is_some();
    let count = if soak { 200_000 } else { 10_000 };
    let mut numbers = Numbers(20_261_120);
    let values = [("A", "alpha"), ("B", "b/e:t=a"), ("SP", "two  words"), ("EMPTY", ""), ("Ab", "ab")];
    let accepted: Vec<(String, Vec<String>)> = (0..count)
        .map(|_| line(&mut numbers))
        .filter_map(|l| {
            let words = words(&l)?;
            let lookup = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
            expand(&words, lookup).ok().map(|w| (l, w))
        })
        .collect();
    assert!(accepted.len() * 20 > count, "only {} of {count} accepted: the test says little", accepted.len());
    // One bash reads them all: each in a function of its own name that prints its words, NUL between and after.
    let mut script = String::from("breakglass() { printf '%s\\0' \"$@\"; printf '\\1\\0'; }\ncd /\n");
    for (name, value) in values {
        script.push_str(&format!("{name}='{value}'\n"));
    }
    for (line, _) in &accepted {
        script.push_str(line.trim_end_matches('\n'));
        script.push('\n');
    }
    // By way of a file: an argument may not be as long.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &script).unwrap();
    let out =
        Command::new("bash").arg("--norc").arg(file.path()).env_clear().env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut parts = text.split('\0');
    for (line, want) in &accepted {
        // printf '%s\0' without arguments still prints one empty word: bash's own convention.
        let mut got: Vec<String> = parts.by_ref().take_while(|p| *p != "\u{1}").map(str::to_string).collect();
        let want = &want[1..];
        if want.is_empty() && got == [""] {
            got.clear();
        }
        assert_eq!(&got, want, "{line:?}");
    }
    println!("{count} lines, {} accepted, each as bash reads it; the others declined", accepted.len());
}
