//! Addresses: taken apart, put together, and kept out of messages.

use super::Connection;
use crate::model::Secret;

/// Splits `postgres://user:password@host:port/database?sslmode=…&host=/socket/dir` into connection and password.
///
/// The message of an error never holds the URL, which may contain a password.
pub fn parse_database_url(url: &str) -> std::result::Result<(Connection, Option<Secret>), String> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("it does not begin with postgres://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match login.split_once(':') {
        Some((u, p)) => (percent_decode(u)?, Some(Secret::new(percent_decode(p)?))),
        None => (percent_decode(login)?, None),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((h, p)) if !h.ends_with(':') && !p.contains(']') => (h, p),
        _ => (address, ""),
    };
    // Not quoted: in `user:password` without a host, this is the password.
    let port_of = |p: &str| p.parse::<u16>().map_err(|_| "what follows the last : is not a port".to_string());
    let mut connection = Connection {
        host: percent_decode(host.trim_start_matches('[').trim_end_matches(']'))?,
        port: if port.is_empty() { 5432 } else { port_of(port)? },
        user,
        database: percent_decode(database)?,
        sslmode: None,
    };
    let mut secret = password;
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(value)?;
        match key {
            "host" => connection.host = value,
            "port" => connection.port = port_of(&value)?,
            "user" => connection.user = value,
            "password" => secret = Some(Secret::new(value)),
            "dbname" => connection.database = value,
            "sslmode" => connection.sslmode = Some(value),
            _ => {}
        }
    }
    if connection.host.is_empty() {
        connection.host = "localhost".into();
    }
    if connection.user.is_empty() {
        return Err("it names no user".into());
    }
    if connection.database.is_empty() {
        connection.database.clone_from(&connection.user);
    }
    Ok((connection, secret))
}

/// Whether a repository's URL is that of a bucket.
pub(super) fn in_bucket(url: &str) -> bool {
    ["s3://", "gs://", "az://", "azure://"].iter().any(|scheme| url.starts_with(scheme))
}

/// A path as the value of an option in a URL.
pub(super) fn percent_encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut out, b| {
        match b {
            b if b.is_ascii_alphanumeric() || b"/._-".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
        out
    })
}

/// A message about a configuration without what may be the login of a URL in it.
pub(super) fn without_password(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, url)) = rest.split_once("://") {
        let end = url.find(|c: char| c.is_whitespace() || "\"'`".contains(c)).unwrap_or(url.len());
        out.push_str(before);
        out.push_str("://");
        match url[..end].rsplit_once('@') {
            Some((_, host)) => out.push_str(&format!("…@{host}")),
            None if url[..end].contains(':') => out.push('…'),
            None => out.push_str(&url[..end]),
        }
        rest = &url[end..];
    }
    out.push_str(rest);
    out
}

fn percent_decode(text: &str) -> std::result::Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let hex: Vec<u8> = bytes.by_ref().take(2).collect();
            let value =
                std::str::from_utf8(&hex).ok().filter(|h| h.len() == 2).and_then(|h| u8::from_str_radix(h, 16).ok());
            out.push(value.ok_or("a % is not followed by two hexadecimal digits")?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).map_err(|_| "it is not UTF-8 after decoding".into())
}
