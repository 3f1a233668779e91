//! What lint says, where, and what it keeps quiet about.

use breakglass::lint::{Diagnostic, Level, Options, failed, lint, render};
use breakglass::plan::library::Library;

fn look(text: &str) -> Vec<Diagnostic> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.md");
    std::fs::write(&path, text).unwrap();
    let library = Library::open(&[path]).unwrap();
    let own =
        |words: &[String]| words.first().is_some_and(|w| w != "health").then(|| "unrecognized subcommand".to_string());
    lint(&library, &Options { own_command: &own, preflight: false })
}

/// A scenario that is complete, with a block in its first step.
fn with(info: &str, code: &str) -> String {
    let body: String = code.lines().map(|l| format!("   {l}\n")).collect();
    format!(
        "# P\n\n**RTO:** 4 hours\n\n## Scenario 1: X\n\n1. Check the target\n2. Restore it\n\n   ```{info}\n{body}   ```\n3. Verify it\n4. Take a base backup\n"
    )
}

fn rules(text: &str) -> Vec<(&'static str, u32, u32)> {
    look(text).into_iter().map(|d| (d.rule, d.line, d.column)).collect()
}

#[test]
fn commands_that_cannot_work_are_named_at_their_place() {
    let cases: &[(&str, &str, u32, u32)] = &[
        ("bash", "supabase db restore --db-url \"$URL\" \\\n  --point-in-time x", 11, 4),
        ("bash", "vercel env pull .env\nvercel env push .env", 12, 4),
        ("bash", "vercel --prod --rollback", 11, 18),
        ("bash", "vercel env add DATABASE_URL $URL", 11, 32),
        ("bash", "pg_restore --clean \\\n  -d x \\\n  s3://bucket/latest.dump", 13, 6),
        ("bash", "pg_restore -d x dump.sql", 11, 20),
        ("bash", "cat x | pg_restore -j 4 -d y", 11, 12),
        ("sql", "SELECT pg_create_restore_point('x');", 11, 11),
    ];
    for (info, code, line, column) in cases {
        let found = look(&with(info, code));
        let broken: Vec<_> = found.iter().filter(|d| d.rule == "broken-command").collect();
        assert_eq!(broken.len(), 1, "{code:?}: {found:?}");
        assert_eq!((broken[0].line, broken[0].column, broken[0].level), (*line, *column, Level::Error), "{code:?}");
        assert!(!broken[0].hint.is_empty() && !broken[0].why.is_empty());
    }
}

#[test]
fn commands_that_work_are_left_alone() {
    for code in [
        "supabase db push",
        "supabase backups restore --timestamp 1",
        "vercel rollback dpl_1",
        "vercel env add NAME production",
        "vercel env add NAME production < value.txt",
        "pg_restore -j 4 -d x latest.dump",
        "aws s3 cp s3://b/x - | pg_restore -d y",
        "psql -f dump.sql",
        "kubectl get pods -n <namespace>",
        "for i in 1 2; do\n  echo $i\ndone",
        "breakglass health",
    ] {
        assert_eq!(look(&with("bash", code)), [], "{code:?}");
    }
}

#[test]
fn gaps_in_a_plan() {
    assert_eq!(rules("# P\n\n## Scenario 1: X\n\n1. Check it\n"), [("no-objective", 3, 1)]);
    let rto = "# P\n\n**RTO:** 1h\n\n";
    assert_eq!(
        rules(&format!("{rto}## Scenario 1: X\n\n1. Restore the files\n2. Reopen\n")),
        [("no-verification", 5, 1)]
    );
    assert_eq!(rules(&format!("{rto}## Scenario 1: X\n\n## Scenario 2: Y\n\n1. Check it\n")), [("stub", 5, 1)]);
    assert_eq!(
        rules(&format!("{rto}## Scenario 1: X\n\n1. Clean up\n\n   ```bash\n   rm -rf /data\n   ```\n2. Verify\n")),
        [("destroys-first", 10, 4)]
    );
    assert_eq!(
        rules(&format!("{rto}## Scenario 1: X\n\n1. Check\n2. PITR to before it\n3. Verify\n")),
        [("no-backup-after-restore", 8, 1)]
    );
    assert_eq!(
        rules(&format!(
            "{rto}## Scenario 1: X\n\n1. Check\n\n## Contacts\n\n| Role | Name |\n|---|---|\n| CTO | [Name] |\n"
        )),
        [("blank-contact", 13, 9)]
    );
    assert_eq!(rules(&with("bash", "# only words")), [("comments-only", 10, 4)]);
    assert_eq!(rules(&with("sql", "pg_dump -f x y")), [("wrong-tag", 10, 7)]);
    assert_eq!(rules(&with("bash", "SELECT 1;")), [("wrong-tag", 10, 7)]);
    assert_eq!(rules(&with("bash", "ssh db1\nuptime")), [("not-run", 10, 4)]);
}

#[test]
fn shell_that_bash_cannot_read() {
    assert_eq!(rules(&with("bash", "echo ok\nif true; then\n  echo x")), [("shell-syntax", 13, 6)]);
    assert_eq!(rules(&with("bash", "echo ok\necho )")), [("shell-syntax", 12, 4)]);
    // Nothing is run to find that out.
    let mark = std::env::temp_dir().join(format!("breakglass-lint-{}", std::process::id()));
    look(&with("bash", &format!("touch {}", mark.display())));
    assert!(!mark.exists());
}

#[test]
fn secrets_in_the_text() {
    let url = with("bash", "export URL=postgresql://app:hunter22@db:5432/x");
    assert_eq!(rules(&url), [("secret", 11, 28)]);
    assert_eq!(rules("# P\n\nkey AKIAQ3ZT7MPLW2XKVB4R here\n").first(), Some(&("secret", 3, 5)));
    for fine in [
        "export URL=postgresql://app:$PW@db/x",
        "export URL=postgresql://app:<password>@db/x",
        "curl https://user@host/x",
        "export URL=postgresql://postgres:postgres@localhost:5433/try",
        "export URL=postgresql://app:test@127.0.0.1/try",
    ] {
        assert_eq!(look(&with("bash", fine)), [], "{fine:?}");
    }
    let elsewhere = with("bash", "export URL=postgresql://postgres:postgres@db:5432/x");
    assert_eq!(rules(&elsewhere), [("secret", 11, 28)]);
}

#[test]
fn what_is_never_run_is_not_read_as_bash() {
    let found = look(&with("bash", "railway connect postgres\nSELECT COUNT(*) FROM orders;"));
    assert_eq!(found.iter().map(|d| d.rule).collect::<Vec<_>>(), ["not-run"]);
}

#[test]
fn links_that_lead_nowhere() {
    let text = "# P\n\n**RTO:** 1h\n\n[a](#scenario-1-x) [b](#nowhere) [c](https://example.com) [d](/site)\n\n## Scenario 1: X\n\n1. Check\n";
    assert_eq!(rules(text), [("dead-link", 5, 24)]);
    let found = look("# P\n\n**RTO:** 1h\n\n[a](gone.md#x)\n\n## Scenario 1: X\n\n1. Check\n");
    assert_eq!((found[0].rule, found[0].level), ("dead-link", Level::Note), "alone, its links cannot be judged");
}

#[test]
fn our_own_command_lines() {
    assert_eq!(rules(&with("bash", "breakglass helth")), [("own-command", 11, 4)]);
    assert_eq!(rules(&with("bash", "breakglass health | tee x")), [("own-command-in-shell", 11, 4)]);
}

#[test]
fn findings_read_like_a_compilers() {
    let found = look(&with("bash", "vercel --prod --rollback"));
    assert!(failed(&found));
    let text = render(&found);
    let want = "plan.md:11:18: error[broken-command]: `vercel --rollback` is not a flag\n   |\n11 |    vercel --prod --rollback\n   |                  ^^^^^^^^^^\n   = why: ";
    assert!(text.starts_with(want), "{text}");
    assert!(text.ends_with("1 errors, 0 warnings, 0 notes"));
    assert!(!failed(&look(&with("bash", "ls"))));
}

#[test]
fn the_runbooks_we_ship_have_no_findings() {
    let library = Library::runbooks(&[]).unwrap();
    let found = lint(&library, &Options { own_command: &|_| None, preflight: false });
    assert!(found.is_empty(), "{}", render(&found));
}

#[test]
fn a_check_elsewhere_and_a_sample_are_no_gap() {
    let two = "1. Restore the dump\n2. Restart\n";
    let alone = format!("# P\n\n**RTO:** 4 hours\n\n## Scenario 1: X\n\n{two}");
    assert!(look(&alone).iter().any(|d| d.rule == "no-verification" && d.level == Level::Warning));
    let beside = format!("{alone}\n## Verification after a recovery\n\n- rows are there\n");
    assert!(
        !look(&beside).iter().any(|d| d.rule == "no-verification" && d.level == Level::Warning),
        "{:?}",
        look(&beside)
    );
    // A queue that is drained brings nothing back that could be looked at.
    let queue = "# P\n\n**RTO:** 4 hours\n\n## Scenario 1: Backlog\n\n1. Scale the workers\n2. Drain it\n";
    assert!(!look(queue).iter().any(|d| d.rule == "no-verification"));
    let sample =
        "# P\n\n**RTO:** 4 hours\n\n## Scenario 1: Y\n\n1. Look\n\n## Scenario 2: X\n\n```python\nprint(1)\n```\n";
    assert!(!look(sample).iter().any(|d| d.rule == "stub"), "{:?}", look(sample));
    let empty = "# P\n\n**RTO:** 4 hours\n\n## Scenario 1: Y\n\n1. Look\n\n## Scenario 2: X\n";
    assert!(look(empty).iter().any(|d| d.rule == "stub"));
}
