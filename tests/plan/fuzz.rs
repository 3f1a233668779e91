//! Nothing a document can hold makes the reader fail, loop, or invent something to run.

use std::fmt::Write as _;

use breakglass::model::CleanText;
use breakglass::model::plan::BlockRole;
use breakglass::plan::{freeze, parse, show, thaw};
use proptest::prelude::*;

/// Pieces that meet in plans, put together at random.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "# ",
        "## ",
        "### ",
        "#### 2. ",
        "Scenario 1: ",
        "Recovery Procedures",
        "Symptoms",
        "Step 2: ",
        "(P0)",
        "(5 min)",
        "**RTO**: ",
        "4 hours",
        "RPO: < 1h / ",
        "**Severity:** ",
        "SEV-1/2",
        "\n",
        "\n\n",
        "\n    ",
        "1. ",
        "2) ",
        "- ",
        "- [ ] ",
        "* **Procedure**:",
        "```bash\n",
        "```\n",
        "~~~",
        "``` { risk=destroy x=\"",
        "# 1. a\n",
        "$ ls\n",
        "breakglass health",
        "ssh host\n",
        "<pod-name>",
        "[Name]",
        "YYYY",
        "| a | b |\n|---|---|\n| RTO | 4h |\n",
        "> ",
        "<!-- runbook: steps -->",
        "<details>",
        "[x](y.md)",
        "---\n",
        "+++\n",
        "title: x",
        "\u{202e}",
        "\u{1b}[31m",
        "\u{0}",
        "é",
        "场景：",
        "🚨",
        "â†’",
        "\t",
        "\r\n",
        "\\",
        "`",
        "**",
        "_",
        ":",
        "：",
        "&nbsp;",
        "4-",
        "–",
        "99999999999999999999 hours",
        "1️⃣ ",
    ]);
    prop::collection::vec(
        prop_oneof![4 => piece.prop_map(str::to_string), 1 => any::<char>().prop_map(String::from)],
        0..60,
    )
    .prop_map(|v| v.concat())
}

fn holds(text: &[u8]) {
    let Ok(plan) = parse("plan.md", text) else { return };
    let (bytes, digest) = freeze(&plan).unwrap();
    assert_eq!(thaw(&bytes, Some(&digest)).unwrap(), plan);
    show::to_show_json(&plan).unwrap();
    let shown = CleanText::text(&show::to_text(&plan)).to_string();
    assert!(!shown.contains(['\u{1b}', '\u{202e}']));
    for block in plan.scenarios.iter().flat_map(|s| &s.steps).flat_map(|s| &s.blocks) {
        let fence = plan.blocks.iter().find(|b| b.line == block.line).expect("a step's block is one of the document's");
        assert_eq!(fence.role, block.role);
        if block.runnable() && block.raw.is_none() {
            for line in block.code.lines() {
                assert!(fence.code.contains(line), "every line to run stands in the document");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("BREAKGLASS_SOAK").is_some() { 20_000 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_fail(text in pieces()) {
        holds(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        holds(&bytes);
    }

    #[test]
    fn no_step_is_lost_or_invented(names in prop::collection::vec("[A-Z][a-z]{2,8} (the|our) [a-z]{3,9}", 1..12), style in 0..3u8) {
        let mut text = String::from("# Plan\n\n## Scenario 1: X\n\n");
        for (i, name) in names.iter().enumerate() {
            match style {
                0 => writeln!(text, "{}. {name}", i + 1).unwrap(),
                1 => writeln!(text, "### Step {}: {name}\n\nSome text.\n", i + 1).unwrap(),
                _ => writeln!(text, "{}. {name}\n\n```bash\nls {i}\n```\n", i + 1).unwrap(),
            }
        }
        let plan = parse("plan.md", text.as_bytes()).unwrap();
        let got: Vec<&str> = plan.scenarios[0].steps.iter().map(|s| s.title.as_str()).collect();
        prop_assert_eq!(got, names.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn pathological_nesting_is_flattened_and_its_content_stays() {
    for nested in [
        "> ".repeat(5_000),
        "- ".repeat(5_000),
        (0..3_000).map(|i| format!("{}- x\n", "  ".repeat(i))).collect(),
        "[".repeat(50_000),
        "*a **b ".repeat(20_000),
        format!("a {}", "`".repeat(100_000)),
        "<".repeat(100_000),
    ] {
        let text = format!("# P\n\n{nested}deep\n\n## Scenario 1: X\n\n1. Restore it\n");
        let plan = parse("plan.md", text.as_bytes()).unwrap();
        let start: String = nested.chars().take(12).collect();
        assert_eq!(plan.scenarios.len(), 1, "{start:?}");
    }
}

#[test]
fn a_line_of_megabytes_is_only_long() {
    // Unoptimised, ten megabytes take minutes on a loaded machine: the default run takes one, the soak all ten.
    let unit = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 2_500_000 } else { 250_000 };
    let text = format!(
        "# P\n\n## Scenario 1: X\n\n1. Restore {}\n\n```bash\necho {}\n```\n",
        "a ".repeat(unit),
        "b".repeat(2 * unit)
    );
    let plan = parse("plan.md", text.as_bytes()).unwrap();
    assert_eq!(plan.scenarios[0].steps.len(), 1);
    assert_eq!(plan.blocks[0].role, BlockRole::Run);
}

#[test]
fn a_huge_document_is_refused_by_size_not_by_patience() {
    let error = parse("plan.md", &vec![b'a'; breakglass::plan::text::MAX_BYTES + 1]).unwrap_err();
    assert!(error.to_string().contains("too large"));
}
