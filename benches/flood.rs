//! How fast a flood of output goes from a child to output.log and from there into a console's ring, and what memory it takes.
//! `cargo bench --bench flood [-- LINES]`; ten million lines unless said otherwise.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use breakglass::action::Output;
use breakglass::action::output::{LOG_LIMIT, OutputLog};
use breakglass::model::{Redactor, Secret};
use breakglass::process::{ChildSpec, RunOptions, run};
use breakglass::runtime::Follower;

fn main() {
    let lines: u64 = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(10_000_000);
    let dir = tempfile::tempdir().unwrap();
    let redactor = Redactor::new([&Secret::new("correct horse battery staple")]);
    let log = OutputLog::create(&dir.path().join("output.log"), 0o600, redactor, LOG_LIMIT).unwrap();
    let child = ChildSpec::new("seq").args(["-f", "a line of the flood, number %.0f", &lines.to_string()]);
    let options = RunOptions { merge: true, ..RunOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut follower = Follower::new(dir.path());
    let (mut slowest, mut bytes) = (std::time::Duration::ZERO, 0u64);
    let begin = Instant::now();
    runtime
        .block_on(run(&child, &options, |_, chunk| {
            bytes += chunk.len() as u64;
            log.bytes(chunk);
            let look = Instant::now();
            follower.poll().unwrap();
            slowest = slowest.max(look.elapsed());
        }))
        .unwrap();
    let seal = log.seal();
    let took = begin.elapsed();
    follower.catch_up().unwrap();
    let rate = |n: u64| (n as f64 / took.as_secs_f64()) as u64;
    println!(
        "{lines} lines, {} MB in {:.2} s: {} lines/s, {} MB/s",
        bytes / 1_000_000,
        took.as_secs_f64(),
        rate(lines),
        rate(bytes) / 1_000_000
    );
    println!(
        "kept {} lines, counted {} more; ring {} lines; slowest look {:?}",
        seal.lines,
        seal.dropped_lines,
        follower.ring().len(),
        slowest
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find(|l| l.starts_with("VmHWM")) {
        println!("peak memory {}", peak.trim_start_matches("VmHWM:").trim());
    }
}
