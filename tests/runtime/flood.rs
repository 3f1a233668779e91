//! Floods: what an action prints never fills the memory of worker or console. `BREAKGLASS_SOAK=1` prints ten million lines.

use breakglass::action::output::Ring;
use breakglass::incident::RunStatus;
use breakglass::model::event::Outcome;
use breakglass::runtime::Follower;

use super::{Desk, until};

/// Peak memory of a process in KiB (`VmHWM`), while it lives.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().split(' ').next()?.parse().ok()
}

#[test]
fn a_flood_stays_within_bounds() {
    let count: u64 = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 10_000_000 } else { 200_000 };
    let mut d = Desk::new();
    d.job.output_limit = Some(4 * 1024 * 1024);
    let (run, pid) = d.shell(&format!("seq -f 'a line of the flood, number %.0f' {count}; echo over"));
    let mut follower = Follower::new(&d.incident.run_dir(run));
    let mut peak = 0;
    let ended = until_long(|| {
        peak = peak.max(peak_kib(pid).unwrap_or(0));
        follower.poll().unwrap();
        assert!(follower.ring().len() <= Ring::MAX_LINES && follower.ring().bytes() <= Ring::MAX_BYTES);
        let r = d.run(run);
        r.ended.is_some().then_some(r)
    });
    assert_eq!(ended.status, RunStatus::Finished(Outcome::Succeeded));
    assert_eq!(ended.output.lines - 1 + ended.output.dropped_lines, count + 1, "every line is there or counted");
    assert!(ended.output.dropped_lines > 0, "the limit was reached");
    assert!(peak > 0 && peak < 100 * 1024, "the worker took {peak} KiB");
    until("the follower has the end", || {
        follower.poll().unwrap();
        (follower.ring().iter().next_back().map(|l| l.as_str()) == Some("over")).then_some(())
    });
}

fn until_long<T>(mut ok: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(600);
    loop {
        if let Some(found) = ok() {
            return found;
        }
        assert!(std::time::Instant::now() < end, "the flood never ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_follower_that_comes_late_jumps_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..600_000).map(|i| format!("line number {i}\n")).collect();
    std::fs::write(dir.path().join("output.log"), &text).unwrap();
    let mut f = Follower::new(dir.path());
    let mut looks = 0;
    while f.poll().unwrap() {
        looks += 1;
    }
    assert!(looks < 20, "{looks} looks for {} bytes", text.len());
    assert!(f.passed_bytes() > 0);
    assert_eq!(f.ring().iter().next_back().unwrap().as_str(), "line number 599999");
    assert!(f.ring().iter().all(|l| l.as_str().starts_with("line number ")), "a cut line is shown");
}

#[test]
fn a_full_log_is_still_followed() {
    use breakglass::action::output::RunStatusFile;
    let dir = tempfile::tempdir().unwrap();
    let write = |dropped: u64, tail: &[&str]| {
        let tail = tail.iter().map(|t| (*t).into()).collect();
        let status = RunStatusFile { dropped_lines: dropped, tail, ..Default::default() };
        // As the worker does it: another file under the same name.
        let temporary = dir.path().join("temporary");
        std::fs::write(&temporary, serde_json::to_vec(&status).unwrap()).unwrap();
        std::fs::rename(&temporary, dir.path().join("progress.json")).unwrap();
    };
    std::fs::write(dir.path().join("output.log"), "a\n").unwrap();
    let mut f = Follower::new(dir.path());
    f.catch_up().unwrap();
    for (dropped, tail) in [(2, &["b", "c"][..]), (3, &["b", "c", "d"]), (9, &["h", "i", "j"]), (9, &["h", "i", "j"])] {
        write(dropped, tail);
        f.catch_up().unwrap();
    }
    let gap = "[3 lines left out: output.log is full]";
    assert_eq!(super::lines(f.ring()), ["a", "b", "c", "d", gap, "h", "i", "j"]);
}
