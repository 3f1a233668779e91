//! What the benchmarks beside other tools share: wall times by what was measured, and the data they work on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use breakglass::postgres::Instance;

use crate::cluster::psql;

/// What one kind of measurement took.
#[derive(Default)]
struct Taken {
    wall: Vec<Duration>,
    /// Highest resident memory in KiB.
    memory: u64,
    /// Of that, by name and in the order they came.
    parts: Vec<(String, Vec<Duration>)>,
}

/// Wall times and memory, by what was measured.
#[derive(Default)]
pub struct Times(BTreeMap<&'static str, Taken>);

fn median(all: &[Duration]) -> f64 {
    let mut all = all.to_vec();
    all.sort();
    all.get(all.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

impl Times {
    /// One more round of `what`; `memory` is 0 where it was not looked at.
    pub fn add(&mut self, what: &'static str, took: Duration, memory: u64) {
        let taken = self.0.entry(what).or_default();
        taken.wall.push(took);
        taken.memory = memory.max(taken.memory);
    }
    /// What a part of a round of `what` took.
    pub fn part(&mut self, what: &'static str, part: &str, took: Duration) {
        let parts = &mut self.0.entry(what).or_default().parts;
        match parts.iter_mut().find(|(name, _)| name == part) {
            Some((_, all)) => all.push(took),
            None => parts.push((part.into(), vec![took])),
        }
    }
    /// Seconds of the round in the middle.
    pub fn median(&self, what: &str) -> Option<f64> {
        self.0.get(what).map(|t| median(&t.wall))
    }
    /// A line for each: median, least and most; its parts below it.
    pub fn print(&self) {
        for (what, t) in &self.0 {
            let (least, most) = (t.wall.iter().min().unwrap(), t.wall.iter().max().unwrap());
            let (least, most) = (least.as_secs_f64(), most.as_secs_f64());
            let memory = if t.memory > 0 { format!(", {} MiB", t.memory / 1024) } else { String::new() };
            println!("{what:<52} {:6.2} s [{least:.2}-{most:.2}]{memory}", median(&t.wall));
            for (part, took) in &t.parts {
                println!("    {part:<48} {:6.2} s", median(took));
            }
        }
    }
    /// Median by median, beside the goal; and of each round, too: both halves of it met the same machine.
    pub fn ratio(&self, ours: &str, theirs: &str, goal: f64) {
        let (Some(a), Some(b)) = (self.0.get(ours), self.0.get(theirs)) else { return };
        let mut each: Vec<f64> = a.wall.iter().zip(&b.wall).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        each.sort_by(f64::total_cmp);
        let (least, most) = (each.first().unwrap_or(&0.0), each.last().unwrap_or(&0.0));
        let of = median(&a.wall) / median(&b.wall);
        println!("{ours} / {theirs}: {of:.2} [{least:.2}-{most:.2} by round] (goal at most {goal:.2})");
    }
}

/// Highest resident size of a process in KiB, as the system kept it; 0 once it is gone.
pub fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Runs a command that must succeed and keeps how long it took and its memory.
pub fn timed(times: &mut Times, what: &'static str, mut c: Command) {
    let begun = Instant::now();
    let mut child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut memory = 0;
    while child.try_wait().unwrap().is_none() {
        memory = memory.max(peak(child.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stderr));
    times.add(what, took, memory);
}

/// Runs a command that must succeed.
pub fn run(mut c: Command) -> Output {
    let out = c.stdin(Stdio::null()).output().unwrap();
    let said = [&out.stdout[..], &out.stderr[..]].concat();
    assert!(out.status.success(), "{c:?}: {}", String::from_utf8_lossy(&said));
    out
}

/// Whether a peer is there; says so when it is not.
pub fn installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|s| s.success());
    if !found {
        println!("{program} is not installed: not compared with");
    }
    found
}

/// A number from the environment.
pub fn number(name: &str, or: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

/// Address of the database `shop` behind a folder of sockets.
pub fn url(sockets: &str, port: u16) -> String {
    format!("postgres://postgres@{}:{port}/shop", sockets.replace('/', "%2F"))
}

/// pgbench's tables, and 8 750 events per unit of scale with prose, uuid and jsonb in them.
pub fn fill(instance: &Instance, scale: usize) {
    let at = instance.database("shop");
    pgbench(instance, &["-i", "-q", "-s", &scale.to_string()]);
    psql(
        &at,
        &format!(
            "create table events (id bigserial primary key, at timestamptz, kind text, who uuid, prose text, doc jsonb); \
             insert into events (at, kind, who, prose, doc) \
             select now() - g * interval '1 second', (array['order','login','refund','search'])[1 + g % 4], \
             gen_random_uuid(), \
             (select string_agg((array['invoice','shipped','the','customer','parcel','and','later','asked','for','a', \
             'refund','of','damaged','goods','by','phone'])[1 + (hashint4(g * 31 + w) & 15)], ' ') \
             from generate_series(1, 40) w), \
             jsonb_build_object('ip', '10.' || g % 250 || '.' || g / 250 % 250 || '.1', 'ua', 'agent/' || g % 17, \
             'tags', jsonb_build_array('a' || g % 7, 'b' || g % 11), 'session', md5(g::text)) \
             from generate_series(1, {}) g; \
             create index on events (at); create index on events (who); analyze",
            scale * 8750
        ),
    )
    .unwrap();
}

/// Runs pgbench on the database `shop`.
pub fn pgbench(instance: &Instance, args: &[&str]) {
    let mut c = Command::new(instance.programs.bin_dir.join("pgbench"));
    c.args(args).env_clear().current_dir("/");
    for (name, value) in instance.database("shop").tool_env() {
        c.env(name, value.expose());
    }
    run(c);
}
