//! How long a document of ten thousand lines takes to be read as a plan.
//! `cargo bench --bench plan [-- LINES]`; the smallest of five, in milliseconds, and how it grows from a tenth of the size.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use breakglass::plan::parse;

/// A section with everything a plan holds, twenty-five lines of it.
fn section(n: usize) -> String {
    format!(
        "## Scenario {n}: Service {n} is lost\n\n**Severity:** P{}\n**RTO:** {} minutes | **RPO:** 5 minutes\n\n\
         1. **Detect** it\n   - Alerts of service {n}\n   - [ ] Confirmed by a person\n2. **Restore** it (10 minutes)\n\n   \
         ```bash\n   # 1. Stop the writers\n   systemctl stop app-{n}\n   # 2. Restore\n   pg_restore -d \"$DATABASE_URL\" <dump-file>\n   ```\n\n\
         3. Verify, see [the contacts](#contacts-{n})\n\n### Contacts {n}\n\n| Role | Name | Phone |\n|---|---|---|\n| Lead | Amy | +1 555 0100 |\n\n",
        n % 4,
        n % 50 + 5
    )
}

fn document(lines: usize) -> String {
    let mut text = String::from("# A plan for everything\n\n");
    let mut n = 0;
    while text.lines().count() < lines {
        for _ in 0..20 {
            n += 1;
            text.push_str(&section(n));
        }
    }
    text
}

fn best(text: &str) -> Duration {
    (0..5)
        .map(|_| {
            let begun = Instant::now();
            let plan = parse("plan.md", text.as_bytes()).unwrap();
            assert!(plan.scenarios.len() > 10);
            begun.elapsed()
        })
        .min()
        .unwrap()
}

fn main() {
    let lines = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(10_000);
    let (whole, tenth) = (document(lines), document(lines / 10));
    let (long, short) = (best(&whole), best(&tenth));
    println!(
        "{} lines, {} KB: {:.1} ms; {} lines: {:.1} ms; ratio {:.1}",
        whole.lines().count(),
        whole.len() / 1000,
        long.as_secs_f64() * 1e3,
        tenth.lines().count(),
        short.as_secs_f64() * 1e3,
        long.as_secs_f64() / short.as_secs_f64()
    );
}
