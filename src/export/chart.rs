//! The steps over time as an SVG: planned against actual, runs, and the marks on the way.

use std::fmt::Write as _;
use std::time::Duration;

use crate::incident::StepStatus;
use crate::model::Time;

use super::html::escape;
use super::timeline::{StepRow, Timeline, duration, offset};

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 318.0;
const RIGHT: f64 = 132.0;
const ROW: f64 = 30.0;

/// From when to when the chart goes, and how that maps to the page.
struct Axis {
    from: Time,
    to: Time,
}

impl Axis {
    fn of(t: &Timeline) -> Self {
        let mut from = t.zero.min(t.state.opened.at);
        let mut to = from;
        for step in &t.steps {
            for (a, b) in &step.spans {
                from = from.min(*a);
                to = to.max(*b);
            }
        }
        if let Some(r) = &t.state.restored {
            to = to.max(r.at);
        }
        // The objective belongs in the picture when that does not squeeze the rest.
        if let Some(due) = t.state.rto.map(|rto| t.zero.plus(rto))
            && due.since(from) <= to.since(from).mul_f64(1.35)
        {
            to = to.max(due);
        }
        if to.since(from) < Duration::from_secs(1) {
            to = t.until.max(from.plus(Duration::from_secs(1)));
        }
        Self { from, to: to.plus(to.since(from).mul_f64(0.03)) }
    }
    fn x(&self, t: Time) -> f64 {
        let span = (self.to.micros() - self.from.micros()).max(1) as f64;
        let at = (t.micros() - self.from.micros()) as f64 / span;
        LEFT + at.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
    fn holds(&self, t: Time) -> bool {
        t >= self.from && t <= self.to
    }
    /// Round distances between ticks, in seconds.
    fn tick(&self) -> i64 {
        let span = self.to.since(self.from).as_secs().max(1);
        let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];
        let fits = steps.into_iter().find(|s| span / s <= 8);
        i64::try_from(fits.unwrap_or_else(|| span.div_ceil(8).next_multiple_of(86_400))).unwrap_or(86_400)
    }
}

/// The chart; nothing when there are no steps.
pub(super) fn chart(t: &Timeline) -> String {
    if t.steps.is_empty() {
        return String::new();
    }
    let axis = Axis::of(t);
    let marks = marks(t, &axis);
    let lanes = marks.iter().map(|m| m.lane + 1).max().unwrap_or(0);
    let top = 10.0 + lanes as f64 * 17.0;
    let bottom = top + t.steps.len() as f64 * ROW;
    let height = bottom + 30.0;
    let mut out = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Steps over time, planned and actual; the table below says the same\">\n\
         <defs><pattern id=\"over\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"5\" height=\"5\" class=\"over\"/><rect width=\"1.6\" height=\"5\" class=\"over-line\"/></pattern></defs>\n"
    );
    grid(&mut out, t, &axis, top, bottom);
    for (i, step) in t.steps.iter().enumerate() {
        row(&mut out, step, &axis, top + i as f64 * ROW);
    }
    for m in &marks {
        let y = 10.0 + m.lane as f64 * 17.0;
        let _ = writeln!(
            out,
            "<line class=\"mark {0}\" x1=\"{1:.1}\" y1=\"{2:.1}\" x2=\"{1:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"mark-text {0}\" x=\"{3:.1}\" y=\"{4:.1}\" text-anchor=\"{5}\">{6}</text>",
            m.class,
            m.x,
            y - 6.0,
            if m.end { m.x - 5.0 } else { m.x + 5.0 },
            y + 3.0,
            if m.end { "end" } else { "start" },
            escape(&m.label),
        );
    }
    out.push_str("</svg>\n");
    out
}

struct Mark {
    x: f64,
    class: &'static str,
    label: String,
    /// Whether the label stands before the line.
    end: bool,
    lane: usize,
}

fn marks(t: &Timeline, axis: &Axis) -> Vec<Mark> {
    let s = &t.state;
    let mut points: Vec<(Time, &'static str, &'static str)> = Vec::new();
    match &s.impact {
        Some(i) => points.push((i.at, "bad", "impact")),
        None => points.push((s.opened.at, "plain", "opened")),
    }
    points.extend(s.declared.as_ref().map(|d| (d.at, "plain", "declared")));
    points.extend(s.restored.as_ref().map(|r| (r.at, "good", "restored")));
    points.extend(s.rto.map(|rto| (t.zero.plus(rto), "bad", "RTO objective")));
    points.retain(|(at, _, _)| axis.holds(*at));
    points.sort_by_key(|p| p.0);
    let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
    points
        .into_iter()
        .map(|(at, class, label)| {
            let x = axis.x(at);
            let label = format!("{label} {}", offset(at.diff_ms(t.zero)));
            let wide = label.chars().count() as f64 * 7.3 + 12.0;
            let end = x + wide > WIDTH - 6.0;
            let (a, b) = if end { (x - wide, x) } else { (x, x + wide) };
            let lane = (0..)
                .find(|lane| taken.get(*lane).is_none_or(|l| l.iter().all(|(c, d)| b < *c || a > *d)))
                .unwrap_or(0);
            taken.resize_with(taken.len().max(lane + 1), Vec::new);
            taken[lane].push((a, b));
            Mark { x, class, label, end, lane }
        })
        .collect()
}

fn grid(out: &mut String, t: &Timeline, axis: &Axis, top: f64, bottom: f64) {
    for i in (0..t.steps.len()).step_by(2) {
        let y = top + i as f64 * ROW;
        let _ = writeln!(out, "<rect class=\"band\" x=\"0\" y=\"{y:.1}\" width=\"{WIDTH}\" height=\"{ROW}\"/>");
    }
    let tick = axis.tick();
    let first = axis.from.diff_ms(t.zero).div_euclid(tick * 1000);
    for n in first..first + 40 {
        let ms = n * tick * 1000;
        let at = Time::from_micros(t.zero.micros() + ms * 1000);
        if axis.holds(at) {
            let x = axis.x(at);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 17.0,
                offset(ms)
            );
        }
    }
}

fn row(out: &mut String, step: &StepRow, axis: &Axis, y: f64) {
    let (glyph, class) = match step.status {
        StepStatus::Done => ("✓", "good"),
        StepStatus::Skipped => ("–", "faint"),
        StepStatus::Active => ("●", "warn"),
        StepStatus::Open => ("·", "faint"),
    };
    let title = shorten(&step.title, 34);
    let _ = writeln!(
        out,
        "<text class=\"glyph {class}\" x=\"8\" y=\"{0:.1}\">{glyph}</text><text class=\"number\" x=\"46\" y=\"{0:.1}\" text-anchor=\"end\">{1}</text>\
         <text class=\"title\" x=\"56\" y=\"{0:.1}\">{2}</text>",
        y + 19.5,
        step.number,
        escape(&title),
    );
    if let (Some(planned), Some((start, _))) = (step.planned, step.spans.first()) {
        let end = start.plus(planned);
        let (a, b) = (axis.x(*start), axis.x(end));
        let cut = if axis.holds(end) { "" } else { " cut" };
        let _ = writeln!(
            out,
            "<rect class=\"planned{cut}\" x=\"{a:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"18\" rx=\"4\"/>",
            y + 6.0,
            (b - a).max(2.0)
        );
    }
    let mut left = step.planned;
    for (from, to) in &step.spans {
        if step.status == StepStatus::Skipped && from == to {
            continue;
        }
        // Up to the plan in one colour, beyond it in another, hatched.
        let within = left.map_or(*to, |l| from.plus(l).min(*to));
        left = left.map(|l| l.saturating_sub(to.since(*from)));
        let (a, m, b) = (axis.x(*from), axis.x(within), axis.x(*to));
        let _ = writeln!(
            out,
            "<rect class=\"actual\" x=\"{a:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"8\" rx=\"2\"/>",
            y + 9.0,
            (m - a).max(2.0)
        );
        if b - m > 0.5 {
            let _ = writeln!(
                out,
                "<rect fill=\"url(#over)\" x=\"{m:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"8\"/>",
                y + 9.0,
                b - m
            );
        }
    }
    for run in &step.runs {
        if let Some((from, to)) = run.span {
            let (a, b) = (axis.x(from), axis.x(to));
            let class = if run.ok { "run" } else { "run bad" };
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{a:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"3\"/>",
                y + 19.0,
                (b - a).max(2.0)
            );
        }
    }
    let (says, class) = match (step.status, step.actual, step.planned) {
        (StepStatus::Skipped, None, _) => ("skipped".to_string(), "faint"),
        (_, None, None) => ("not begun".into(), "faint"),
        (_, None, Some(p)) => (format!("not begun, ~{}", duration(p)), "faint"),
        (_, Some(a), Some(p)) if a > p => (format!("{} of ~{}", duration(a), duration(p)), "warn"),
        (_, Some(a), Some(p)) => (format!("{} of ~{}", duration(a), duration(p)), ""),
        (_, Some(a), None) => (duration(a), ""),
    };
    let _ = writeln!(
        out,
        "<text class=\"says {class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        WIDTH - 8.0,
        y + 19.5,
        escape(&says)
    );
}

fn shorten(text: &str, most: usize) -> String {
    let one_line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if one_line.chars().count() <= most {
        return one_line;
    }
    let mut out: String = one_line.chars().take(most - 1).collect();
    out.truncate(out.trim_end().len());
    out + "…"
}
