//! Durations as plans state them: comparison, number or range, unit, in several languages; zero words and schedules (M5).

/// A duration as stated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `=`, `<`, `<=`, `>`, `>=` or `~`.
    pub op: &'static str,
    /// Seconds; the upper bound of a range.
    pub seconds: u64,
    /// Whether it is a schedule word ("daily") read as its period.
    pub inferred: bool,
}

#[rustfmt::skip]
const COMPARISONS: &[(&str, &str)] = &[
    ("<=", "<="), (">=", ">="), ("≤", "<="), ("≥", ">="), ("<", "<"), (">", ">"), ("~", "~"), ("≈", "~"),
    ("=", "="), ("under ", "<"), ("less than ", "<"), ("within ", "<="), ("up to ", "<="), ("at most ", "<="),
    ("maximum ", "<="), ("maximum of ", "<="), ("max. ", "<="), ("max ", "<="), ("no more than ", "<="),
    ("not more than ", "<="), ("approximately ", "~"), ("approx. ", "~"), ("approx ", "~"), ("about ", "~"),
    ("around ", "~"), ("circa ", "~"), ("ca. ", "~"), ("até ", "<="), ("hasta ", "<="), ("menos de ", "<"),
    ("menor que ", "<"), ("moins de ", "<"), ("unter ", "<"), ("bis zu ", "<="), ("до ", "<="), ("не более ", "<="),
    ("менее ", "<"), ("不高于", "<="), ("小于", "<"), ("不超过", "<="), ("＜", "<"), ("target ", "="), ("a few ", "~"),
];

#[rustfmt::skip]
const UNITS: &[(&str, u64)] = &[
    ("seconds", 1), ("second", 1), ("secs", 1), ("sec", 1), ("s", 1), ("segundos", 1), ("segundo", 1),
    ("sekunden", 1), ("secondes", 1), ("секунд", 1), ("сек", 1), ("秒", 1), ("minutes", 60), ("minute", 60),
    ("mins", 60), ("min", 60), ("m", 60), ("minutos", 60), ("minuto", 60), ("minuten", 60), ("минут", 60),
    ("минуты", 60), ("мин", 60), ("分钟", 60), ("分", 60), ("hours", 3600), ("hour", 3600), ("hrs", 3600),
    ("hr", 3600), ("h", 3600), ("horas", 3600), ("hora", 3600), ("stunden", 3600), ("stunde", 3600),
    ("heures", 3600), ("heure", 3600), ("часов", 3600), ("часа", 3600), ("час", 3600), ("小时", 3600),
    ("business days", 86_400), ("days", 86_400), ("day", 86_400), ("d", 86_400), ("dias", 86_400), ("días", 86_400),
    ("dia", 86_400), ("día", 86_400), ("tage", 86_400), ("tag", 86_400), ("jours", 86_400), ("jour", 86_400),
    ("дней", 86_400), ("дня", 86_400), ("день", 86_400), ("天", 86_400), ("weeks", 604_800), ("week", 604_800),
    ("w", 604_800), ("semanas", 604_800), ("semana", 604_800), ("wochen", 604_800), ("woche", 604_800),
    ("周", 604_800),
];

#[rustfmt::skip]
const ZERO: &[&str] = &[
    "immediate", "immediately", "real-time", "realtime", "real time", "near-zero", "near zero", "zero", "none",
    "no data loss", "continuous", "instant", "imediato", "inmediato", "immédiat", "sofort", "немедленно", "即时",
    "实时",
];

#[rustfmt::skip]
const SCHEDULES: &[(&str, u64)] = &[
    ("hourly", 3600), ("daily", 86_400), ("nightly", 86_400), ("weekly", 604_800), ("diário", 86_400),
    ("diario", 86_400), ("diária", 86_400), ("semanal", 604_800), ("täglich", 86_400), ("quotidien", 86_400),
    ("ежедневно", 86_400), ("每日", 86_400), ("每天", 86_400),
];

/// Reads a duration at the start of `text`; returns it with the rest. Schedule words count only when `schedules` is set.
pub fn at_start(text: &str, schedules: bool) -> Option<(Span, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "*_:：".contains(c));
    let (op, rest) = comparison(text);
    if let Some((seconds, rest)) = number_with_unit(rest) {
        return Some((Span { op, seconds, inferred: false }, rest));
    }
    if let Some(rest) = ZERO.iter().find_map(|w| strip_word(rest, w)) {
        return Some((Span { op, seconds: 0, inferred: false }, rest));
    }
    if let Some(rest) =
        rest.strip_prefix('0').filter(|r| r.chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '.'))
    {
        return Some((Span { op, seconds: 0, inferred: false }, rest));
    }
    if schedules && let Some((seconds, rest)) = SCHEDULES.iter().find_map(|(w, s)| strip_word(rest, w).map(|r| (*s, r)))
    {
        return Some((Span { op, seconds, inferred: true }, rest));
    }
    None
}

/// The first duration anywhere in `text`.
pub fn first(text: &str) -> Option<Span> {
    let lower = text.to_lowercase();
    let mut previous = ' ';
    for (i, c) in lower.char_indices() {
        let starts = c.is_ascii_digit() && !previous.is_alphanumeric() && previous != '.';
        if starts && let Some((seconds, _)) = number_with_unit(&lower[i..]) {
            let op =
                COMPARISONS.iter().find(|(w, _)| lower[..i].trim_end().ends_with(w.trim())).map_or("=", |(_, op)| op);
            return Some(Span { op, seconds, inferred: false });
        }
        previous = c;
    }
    None
}

/// Whether the whole text is a duration or a time window: `5 minutes`, `~2 min`, `0-15 min`, `T+5 min`, `est. 10m`.
pub fn whole(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let lower = [
        "estimated time:",
        "estimated:",
        "estimate:",
        "est. time:",
        "est:",
        "est.",
        "duration:",
        "time:",
        "t+",
        "t +",
        "target:",
        "approx:",
    ]
    .iter()
    .find_map(|p| lower.strip_prefix(p))
    .unwrap_or(&lower)
    .trim();
    let (span, rest) = at_start(lower, false)?;
    let rest = rest.trim_matches(|c: char| !c.is_alphanumeric());
    let fits = rest.is_empty()
        || ["max", "total", "est", "estimated", "after detection", "approx", "each", "target", "sla"].contains(&rest);
    (fits && (span.seconds > 0 || lower.starts_with(|c: char| c.is_ascii_digit()))).then_some(span.seconds)
}

fn comparison(text: &str) -> (&'static str, &str) {
    for (word, op) in COMPARISONS {
        if let Some(head) = text.get(..word.len())
            && head.to_lowercase() == *word
        {
            let rest = text[word.len()..].trim_start();
            let (more, rest2) = comparison(rest);
            return if more == "=" { (op, rest) } else { (more, rest2) };
        }
    }
    ("=", text)
}

fn number_with_unit(text: &str) -> Option<(u64, &str)> {
    let (first, rest) = number(text)?;
    // `4-6 hours`, `4–6h`, `4 to 6 hours`, `30 min - 1 hour`
    let (low_unit, after_unit) = unit(rest).map_or((None, rest), |(u, r)| (Some(u), r));
    if let Some((second, rest)) = range_join(after_unit).and_then(number)
        && let Some((unit, rest)) = unit(rest)
    {
        return Some((seconds(second, unit), rest));
    }
    let total = seconds(first, low_unit?);
    // `1h30m`, `1 hour 30 minutes`
    match number(after_unit.trim_start())
        .filter(|_| after_unit.len() < text.len())
        .and_then(|(n, r)| unit(r).map(|(u, r)| (n, u, r)))
    {
        Some((n, u, rest)) if low_unit.is_some_and(|low| u < low) && !after_unit.trim_start().starts_with('-') => {
            Some((total.saturating_add(seconds(n, u)), rest))
        }
        _ => Some((total, after_unit)),
    }
}

/// A number in thousandths.
fn number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    let digits = text[..end].trim_end_matches(['.', ',']);
    if digits.is_empty() || digits.len() > 9 || !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (whole, fraction) = digits.split_once(['.', ',']).unwrap_or((digits, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(1000)?;
    let mut scale = 100;
    for d in fraction.bytes().take(3) {
        value += u64::from(d.checked_sub(b'0')?) * scale;
        scale /= 10;
    }
    Some((value, &text[digits.len()..]))
}

fn range_join(text: &str) -> Option<&str> {
    let text = text.trim_start();
    ["-", "–", "—", "~", "to ", "до ", "a ", "bis ", "至", "à "]
        .iter()
        .find_map(|j| text.strip_prefix(j))
        .map(str::trim_start)
}

fn unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim_start_matches([' ', '\u{a0}', '-']);
    let mut best: Option<(u64, &str)> = None;
    let mut longest = 0;
    for (word, seconds) in UNITS {
        if word.len() > longest
            && let Some(head) = text.get(..word.len())
            && head.to_lowercase() == *word
        {
            let rest = &text[word.len()..];
            let spaced = !word.starts_with(|c: char| ('\u{3040}'..='\u{9fff}').contains(&c));
            let ends = rest.chars().next().is_none_or(|c| !c.is_alphabetic() || !spaced);
            if ends {
                best = Some((*seconds, rest));
                longest = word.len();
            }
        }
    }
    best
}

fn seconds(thousandths: u64, unit: u64) -> u64 {
    thousandths.saturating_mul(unit) / 1000
}

fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let head = text.get(..word.len())?;
    let rest = &text[word.len()..];
    let ends = rest.chars().next().is_none_or(|c| !c.is_alphanumeric()) || !word.is_ascii();
    (head.to_lowercase() == word && ends).then_some(rest)
}
