//! The console under a flood, in a real terminal: an action prints ten million lines while keys are pressed.
//! `cargo bench --bench console [-- LINES]`. Prints the time to the first frame, key-to-frame times, peak memory of the
//! console, and the frames drawn while nothing changes (which must be none).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

#[path = "../tests/support/pty.rs"]
mod pty;

use std::time::{Duration, Instant};

use pty::Pty;

const SIZE: (u16, u16) = (120, 40);

fn main() {
    let lines: u64 = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(10_000_000);
    let home = tempfile::tempdir().unwrap();
    let plan = home.path().join("flood.md");
    let text = format!(
        "# Flood\n\n## Scenario: Flood\n\n**RTO**: 1 hour\n\n### Step 1: Print\n\n```bash {{ risk=change timeout=30m }}\nseq -f 'a line of the flood, number %.0f' {lines}\n```\n"
    );
    std::fs::write(&plan, text).unwrap();
    let envs = [("BREAKGLASS_HOME", home.path().to_str().unwrap()), ("COLORTERM", "truecolor")];
    let open = ["open", plan.to_str().unwrap()];

    // Once to warm the page cache, then the one that counts.
    for counts in [false, true] {
        let begun = Instant::now();
        let mut pty = Pty::breakglass(SIZE, &open, &envs);
        while pty.frames() == 0 {
            std::thread::yield_now();
        }
        let first = begun.elapsed();
        if counts {
            println!("first frame after {first:?}");
        }
        pty.wait_text("SCENARIOS");
        pty.wait_text("Flood");
        pty.keys("q");
        pty.wait_exit();
    }

    let pty = Pty::breakglass(SIZE, &open, &envs);
    pty.wait_text("flood.md");
    std::thread::sleep(Duration::from_millis(500));
    let before = pty.frames();
    std::thread::sleep(Duration::from_secs(5));
    println!("frames in 5 s of nothing: {}", pty.frames() - before);

    pty.keys("D");
    pty.wait_text("declare a REAL incident");
    pty.keys("enter");
    pty.wait_text("STEPS");
    pty.keys("r");
    pty.wait_text("will run, exactly");
    let begun = Instant::now();
    pty.keys("y");
    // A line of the output, not the command that prints it: a key pressed earlier would mean nothing yet.
    let printed = |s: &str| s.lines().any(|l| l.contains("│ a line of the flood"));
    pty.wait("it prints", |s| printed(s) && s.contains("following"));
    let mut times = Vec::new();
    let mut following = true;
    let frames = pty.frames();
    loop {
        let screen = pty.screen();
        if screen.contains("succeeded:") || screen.contains("failed") {
            break;
        }
        following = !following;
        let pressed = Instant::now();
        pty.keys("f");
        pty.wait("the key is seen", |s| s.contains("following") == following || s.contains("succeeded:"));
        times.push(pressed.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    times.sort();
    // The nearest rank from above: with few keys the 99th is the slowest.
    let at = |percent: usize| times[((times.len() * percent).div_ceil(100)).saturating_sub(1)];
    println!(
        "{lines} lines in {took:.1?}; {} frames ({:.0}/s)",
        pty.frames() - frames,
        (pty.frames() - frames) as f64 / took.as_secs_f64()
    );
    println!("key to frame, {} keys: p50 {:?}, p99 {:?}, slowest {:?}", times.len(), at(50), at(99), at(100));
    let status = std::fs::read_to_string(format!("/proc/{}/status", pty.pid())).unwrap_or_default();
    if let Some(peak) = status.lines().find(|l| l.starts_with("VmHWM")) {
        println!("peak memory of the console {}", peak.trim_start_matches("VmHWM:").trim());
    }
}
