//! T1 to T5: encodings, line ends, front matter, damage.

use super::read;
use breakglass::plan::encoding::{Encoding, repair};
use breakglass::plan::parse;

/// Damages a text as the encoding would: UTF-8 bytes read as that encoding.
fn damage(text: &str, encoding: Encoding) -> String {
    text.bytes().map(|b| if b < 0x80 { char::from(b) } else { encoding.char_of(b) }).collect()
}

#[test]
fn double_encoding_is_undone_and_said() {
    for (encoding, name) in [(Encoding::MacRoman, "Mac OS Roman"), (Encoding::Windows1252, "Windows-1252")] {
        let whole = "# Plan 🚨\n\n## Scenario A: Región perdida → failover\n\n1. Wait ⏱️\n";
        let damaged = damage(whole, encoding);
        assert_ne!(damaged, whole);
        let plan = read(&damaged);
        assert_eq!(plan.scenarios[0].title, "Región perdida → failover", "{name}");
        assert!(plan.notices.iter().any(|n| n.text.contains(name)), "{:?}", plan.notices);
        assert_eq!(repair(&damaged).unwrap().0, whole);
    }
}

#[test]
fn healthy_text_is_never_repaired() {
    for text in [
        "§3–§5 see §7",
        "≤ 30 minutes, naïve café",
        "×–× 10×",
        "Ünïcödé → ✓ 🚨 — “quoted”",
        "плана нет — §4",
        "场景 1：数据库",
    ] {
        assert!(repair(text).is_none(), "{text}");
    }
}

#[test]
fn bytes_that_may_run_are_not_changed_by_a_repair() {
    let whole = "# 🚨 Plan →\n\n## Scenario 1: Lost → found\n\n```bash\necho '→ done'\n```\n";
    let damaged = damage(whole, Encoding::Windows1252);
    let plan = read(&damaged);
    assert_eq!(plan.scenarios[0].title, "Lost → found");
    assert!(plan.blocks[0].code.contains("â†’"), "{}", plan.blocks[0].code);
    assert!(plan.notices.iter().any(|n| n.line == 5 && n.text.contains("left as it stands")));
}

#[test]
fn encodings_and_line_ends() {
    let text = "# Plan\r\n\r\n## Scenario 1: Caf\u{e9} down\r\n\r\n1. Restart\r\n";
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let utf16_be: Vec<u8> = [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let bom: Vec<u8> = b"\xef\xbb\xbf".iter().copied().chain(text.bytes()).collect();
    let latin1: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let old_mac = text.replace("\r\n", "\r");
    for bytes in [text.as_bytes(), &utf16, &utf16_be, &bom, &latin1, old_mac.as_bytes()] {
        let plan = parse("plan.md", bytes).unwrap();
        assert_eq!(plan.scenarios[0].title, "Café down");
        assert_eq!(plan.scenarios[0].line, 3);
    }
    let notices = parse("plan.md", &latin1).unwrap().notices;
    assert!(notices.iter().any(|n| n.line == 3 && n.text.contains("Windows-1252")), "{notices:?}");
}

#[test]
fn front_matter_gives_title_and_defaults_and_keeps_lines() {
    let plan = read("---\ntitle: \"Losing the region\"\nrto: 4h\nrpo: 15m\n---\n\n1. Fail over\n2. Verify\n");
    assert_eq!(plan.title, "Losing the region");
    assert_eq!((plan.objectives.rto_s, plan.objectives.rpo_s), (Some(14_400), Some(900)));
    assert_eq!(plan.scenarios[0].steps[0].line, 7);
    let toml = read("+++\ntitle = 'X'\n+++\n# Heading\n\n1. Do it\n");
    assert_eq!(toml.title, "Heading");
}

#[test]
fn front_matter_that_does_not_parse_is_named_and_the_plan_opens() {
    let plan = read("---\ntitle: ok\n{{broken\n---\n\n# Plan\n\n1. Restart it\n");
    assert_eq!(plan.scenarios[0].steps.len(), 1);
    assert!(plan.notices.iter().any(|n| n.line == 3 && n.text.contains("front matter")), "{:?}", plan.notices);
    // A thematic break at the top is no front matter.
    let plan = read("---\n\nSome text here\n\n---\n\n# Plan\n\n1. Restart it\n");
    assert_eq!(plan.title, "Plan");
}

#[test]
fn template_tags_of_erb_documents_go() {
    let plan =
        parse("runbook.md.erb", b"---\ntitle: Alerts\n---\n# <%= current_page.data.title %>\n\n1. Restart\n").unwrap();
    assert_eq!(plan.title, "Alerts");
}
