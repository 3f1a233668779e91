//! How long a recovery will take: lines through what was measured, and how near they come on this machine
//! (`BREAKGLASS_SOAK=1 cargo test recovery::predict`).

use std::time::Duration;

use breakglass::model::Time;
use breakglass::recovery::predict::{Run, Throughput};

use crate::support::archived::{Archived, said};
use crate::support::console::axis;

fn run(bytes: u64, files_ms: u64, log_bytes: u64, replay_ms: u64) -> Run {
    Run { at: Time::from_micros(0), bytes, files_ms, log_bytes, replay_ms }
}

#[test]
fn a_prediction_follows_what_was_measured_and_never_runs_backwards() {
    let ms = Duration::from_millis;
    // Two sizes on a line: 500 ms and 2 ms a megabyte; 1 s and 10 ms a megabyte.
    let two =
        Throughput::of(vec![run(100_000_000, 700, 50_000_000, 1500), run(1_000_000_000, 2500, 500_000_000, 6000)]);
    let p = two.predict(500_000_000, 200_000_000, false);
    assert_eq!((p.files, p.replay, p.runs), (ms(1500), ms(3000), 2));
    assert_eq!(two.predict(500_000_000, 200_000_000, true).replay, ms(6000), "the end of the log is watched for 3 s");
    // One size: what was measured there is predicted there, and more takes longer.
    let one = Throughput::of(vec![run(400_000_000, 2000, 100_000_000, 4000)]);
    assert_eq!(one.predict(400_000_000, 100_000_000, false).total(), ms(6000));
    assert!(one.predict(800_000_000, 200_000_000, false).total() > ms(6000));
    assert!(one.predict(0, 0, false).total() < ms(6000));
    // Nothing measured: assumed, and said so.
    let none = Throughput::default().predict(1_700_000_000, 1_200_000_000, false);
    assert!(none.runs == 0 && none.total() > ms(1000) && none.total() < ms(60_000), "{none:?}");
    // One bad run among good ones is no prediction, and a disk that got slower is believed once most of the last say so.
    let of = |took: &[u64]| Throughput::of(took.iter().map(|t| run(100_000_000, 300, 130_000_000, *t)).collect());
    let replay = |took: &[u64]| of(took).predict(100_000_000, 130_000_000, false).replay;
    assert_eq!(replay(&[2000, 2100, 9000, 1900, 2050]), ms(2050));
    assert_eq!(replay(&[9000, 9100, 9200, 9300, 2000, 2100, 1900]), ms(2100));
    // Between two sizes lies what is between them, whatever a third took.
    let three = Throughput::of(vec![
        run(0, 0, 100_000_000, 1000),
        run(0, 0, 500_000_000, 9000),
        run(0, 0, 1_500_000_000, 11_000),
    ]);
    assert_eq!(three.predict(0, 300_000_000, false).replay, ms(5000));
    assert_eq!(three.predict(0, 1_000_000_000, false).replay, ms(10_000));
    assert!(three.predict(0, 2_000_000_000, false).replay > ms(11_500));
    assert!(three.predict(0, 50_000_000, false).replay < ms(1000));
    // A smaller one that took longer bends no line down, nor does an empty log.
    let odd = Throughput::of(vec![run(100_000_000, 9000, 0, 900), run(1_000_000_000, 1000, 0, 1100)]);
    assert!(odd.predict(2_000_000_000, 0, false).files >= odd.predict(1_000_000, 0, false).files);
    assert!(odd.predict(1, u64::MAX, false).total() > ms(1000));
}

#[test]
fn a_moment_on_the_axis_costs_what_lies_behind_it() {
    let axis = axis();
    let (first, last) = axis.span.unwrap();
    let time = |text: &str| Time::parse(&format!("2026-11-20T{text}Z")).unwrap();
    let all: u64 = axis.activity.commits.iter().map(|n| u64::from(*n)).sum();
    assert_eq!(axis.cost(first).transactions, all);
    assert_eq!((axis.cost(last).window, axis.cost(first).window), (Duration::ZERO, Duration::from_secs(2800)));
    let (early, late) = (axis.cost(time("13:59:00")), axis.cost(time("14:02:00")));
    assert!(early.transactions > late.transactions && early.window > late.window);
    // Commits of the last 280 seconds are five a second on average: within one interval of that.
    let width = u64::from(axis.activity.seconds);
    assert!(late.transactions.abs_diff(280 * 5) <= 17 * width, "{late:?}, intervals of {width} s");
    // More log from the backup on takes longer; the next backup makes it short again.
    let takes = |text: &str| axis.cost(time(text)).takes.map(|t| t.total());
    assert!(takes("14:05:00") > takes("13:57:00"), "{:?} {:?}", takes("14:05:00"), takes("13:57:00"));
    assert!(takes("13:57:00") < takes("13:42:00"), "{:?} {:?}", takes("13:57:00"), takes("13:42:00"));
    // Not before the first backup, not behind a gap; behind the gap from the next backup on.
    assert!(axis.cost(time("13:25:00")).unreachable.unwrap().contains("first base backup"));
    assert!(axis.cost(time("13:50:00")).unreachable.unwrap().contains("missing"));
    assert_eq!(axis.cost(time("13:56:30")).unreachable, None);
    // Columns and steps.
    assert_eq!((axis.column(first, 80), axis.column(last, 80)), (Some(0), Some(79)));
    assert_eq!(axis.column(time("12:00:00"), 80), None);
    assert_eq!(axis.moved(last, -1, 80), Time::from_micros(last.micros() - 2800 * 1_000_000 / 79));
    assert_eq!(axis.moved(last, 1, 80), last);
    assert_eq!(axis.moved(first, -9, 80), first);
    let bars = axis.bars(280);
    assert!(bars[122..136].iter().all(|n| *n < bars[245]), "the pause is lower than the rush: {bars:?}");
}

/// Sizes in megabytes of data; the last one is never used to learn from.
const SIZES: [u64; 3] = [100, 1600, 500];

#[test]
fn predictions_come_near_on_this_machine() {
    if std::env::var_os("BREAKGLASS_SOAK").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let learnt = folder.path().join("throughput.json");
    for (i, mb) in SIZES.iter().enumerate() {
        let a = Archived::start(&format!("predict{mb}"));
        let sql = |text: &str| a.cluster.sql("postgres", text);
        sql("create table big (i int, p text)");
        sql(&format!("insert into big select g, repeat(md5(g::text), 30) from generate_series(1, {mb} * 1000) g"));
        a.base_backup();
        sql(&format!("update big set i = i + 1 where i <= {mb} * 300"));
        a.archive_within(Duration::from_secs(1800));
        if let Ok(text) = std::fs::read(&learnt) {
            std::fs::write(a.room.path.join("throughput.json"), text).unwrap();
        }
        let mut errors = Vec::new();
        for round in 0..6 {
            let dir = a.room.path.join(format!("s{round}"));
            // What the one before left to be written is not this one's.
            rustix::fs::sync();
            let known = Throughput::load(&a.room.path);
            let go = |args: &[&str]| {
                let (code, text) = said(a.command(args).env_remove("DATABASE_URL"));
                assert_eq!(code, 0, "{text}");
            };
            let shown = dir.display().to_string();
            go(&["pitr", "restore", "--to", "latest", "--dir", &shown]);
            go(&["pitr", "discard", "--shadow", &shown]);
            let now = Throughput::load(&a.room.path);
            let last = now.runs().last().unwrap();
            let p = known.predict(last.bytes, last.log_bytes, false).total().as_millis() as u64;
            let took = last.files_ms + last.replay_ms;
            let error = p.abs_diff(took) * 100 / took;
            println!(
                "{mb} MB, round {round}: predicted {p} ms, took {took} ms, {error} % off, {} runs known",
                known.runs().len()
            );
            // The very first of all rests on nothing.
            if i > 0 || round > 0 {
                errors.push(error);
            }
            if i == 2 {
                // The middle size is never learnt from.
                std::fs::write(a.room.path.join("throughput.json"), serde_json::to_string(&known).unwrap()).unwrap();
            }
        }
        if i != 2 {
            std::fs::copy(a.room.path.join("throughput.json"), &learnt).unwrap();
        }
        errors.sort_unstable();
        let median = errors[errors.len() / 2];
        println!("{mb} MB: median error {median} %");
        assert!(median <= 30, "{mb} MB: {errors:?}");
    }
}
