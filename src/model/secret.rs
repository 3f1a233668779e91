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

impl PartialEq for Secret {
    /// Whether both hold the same text (for values inside the console; never an answer to somebody outside).
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}
impl Eq for Secret {}

/// Whether the name of a variable or blank says that its value is a secret: `PGPASSWORD`, `<api-key>`, `DATABASE_URL`.
/// Names that end in `_FILE`, `_PATH`, `_DIR`, `_ID`, `_NAME`, `_ARN` or `_LENGTH` only point to one.
pub fn likely_secret(name: &str) -> bool {
    const PARTS: [&str; 13] = [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "TOKEN",
        "APIKEY",
        "API_KEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
        "ENCRYPTION_KEY",
        "SERVICE_KEY",
        "SERVICE_ROLE_KEY",
        "CREDENTIAL",
    ];
    const POINTERS: [&str; 7] = ["_FILE", "_PATH", "_DIR", "_ID", "_NAME", "_ARN", "_LENGTH"];
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let name = name.trim_matches('_');
    PARTS.iter().any(|part| name.contains(part)) && !POINTERS.iter().any(|end| name.ends_with(end))
}

/// Whether a value of that name is asked for hidden: a secret, or an address that usually holds a password.
pub fn may_hold_secret(name: &str) -> bool {
    let upper: String = name.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_uppercase() }).collect();
    let upper = upper.trim_matches(['<', '>', '[', ']', '{', '}', '_']);
    let address =
        ["DATABASE_URL", "DB_URL", "REDIS_URL", "POSTGRES_URL", "MONGO_URL", "MONGODB_URI", "CONNECTION_STRING"];
    likely_secret(upper) || upper.ends_with("_DSN") || upper == "DSN" || address.iter().any(|a| upper.ends_with(a))
}

/// The password in a URL such as `postgres://user:password@host/db`.
pub fn url_password(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let (login, _) = authority.rsplit_once('@')?;
    login.split_once(':').map(|(_, password)| password).filter(|p| !p.is_empty())
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
