//! Secrets, and the redactor that keeps them out of everything that is shown or kept.

use std::fmt;

use zeroize::Zeroizing;

/// A secret value. Never printed: `Debug` and `Display` show `•••`. Zeroized when dropped. Not serialisable.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }
    /// The value, for the one place that hands it to a tool by pipe, environment or 0600 file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("•••")
    }
}
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("•••")
    }
}

/// What replaces a secret in anything shown or kept.
pub const MASK: &str = "•••";

/// Knows every secret before the first output and replaces each by [`MASK`], also across the borders of chunks.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret containing another is replaced whole.
    secrets: Vec<Zeroizing<String>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    /// Secrets shorter than this are not looked for: replacing "a" everywhere would destroy the evidence.
    pub const MIN_LEN: usize = 4;

    /// A redactor that knows these secrets, and their percent-encoded forms as they stand in URLs.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut all = Self::default();
        for s in secrets {
            all.add(s);
        }
        all
    }
    /// Adds a secret.
    pub fn add(&mut self, secret: &Secret) {
        let plain = secret.expose();
        if plain.len() < Self::MIN_LEN {
            return;
        }
        let encoded: String = plain
            .bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect();
        for form in [plain.to_string(), encoded] {
            for line in form.lines() {
                if line.len() >= Self::MIN_LEN && !self.secrets.iter().any(|s| s.as_str() == line) {
                    self.secrets.push(Zeroizing::new(line.to_string()));
                }
            }
        }
        self.secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
    }
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }
    /// Longest secret in bytes: a reader of chunks holds back this many minus one.
    pub fn longest(&self) -> usize {
        self.secrets.first().map_or(0, |s| s.len())
    }
    /// The text with every known secret replaced.
    pub fn redact(&self, text: &str) -> String {
        let mut out = text.to_string();
        for s in &self.secrets {
            if out.contains(s.as_str()) {
                out = out.replace(s.as_str(), MASK);
            }
        }
        out
    }
}
