//! What the URL of a bucket says: `s3://bucket/prefix?endpoint=…`. It never holds a secret, so that it may stand in an
//! `archive_command`, in a configuration and on the screen.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Whose interface the storage speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// S3 or something compatible with it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage; a bucket is a container there.
    Azure,
}

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The environment variables of the service's own tools.
    Environment,
    /// A file: `NAME=value` lines with those variables, or for Google the JSON file of an account.
    File(PathBuf),
    /// The role of the machine, asked of its metadata service.
    Machine,
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudUrl {
    /// Whose interface.
    pub service: Service,
    /// Bucket or container.
    pub bucket: String,
    /// Folder in it, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Address of the service, `http://…` or `https://…`; the provider's own when not given.
    pub endpoint: Option<String>,
    /// Region, of S3.
    pub region: Option<String>,
    /// Whether the bucket stands in the path rather than in the host name, of S3.
    pub path_style: Option<bool>,
    /// Storage account, of Azure.
    pub account: Option<String>,
    /// Where the credentials come from.
    pub credentials: Credentials,
    /// How long one request may take; a large object takes many.
    pub timeout: Duration,
    /// How long a failing request is tried again.
    pub patience: Duration,
    text: String,
}

impl std::fmt::Display for CloudUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

const FORM: &str = "Write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, with options such as \
                    ?endpoint=https://HOST&region=NAME (docs/formats.md, \"Places of a repository\").";

/// The service of a URL's scheme; `None` when it is no bucket's.
pub fn service_of(url: &str) -> Option<Service> {
    match url.split_once("://")?.0 {
        "s3" => Some(Service::S3),
        "gs" => Some(Service::Gcs),
        "az" | "azure" => Some(Service::Azure),
        _ => None,
    }
}

impl CloudUrl {
    /// Reads one.
    ///
    /// # Errors
    /// Usage, saying what is wrong; what may be a secret is not repeated.
    pub fn parse(url: &str) -> Result<Self> {
        let Some((service, (_, rest))) = service_of(url).zip(url.split_once("://")) else {
            return Err(Error::usage("not the URL of a bucket").hint(FORM));
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.contains('@') {
            return Err(Error::usage("the URL of the repository holds a login")
                .why("it would be seen by everybody who lists processes")
                .hint(
                    "Put the credentials into the environment, or into a file named by ?credentials=/absolute/path.",
                ));
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let bad = |what: String| Error::usage(what).hint(FORM);
        let named = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=63).contains(&bucket.len()) || !bucket.bytes().all(named) {
            return Err(bad(format!("{bucket:?} is not the name of a bucket")));
        }
        let prefix = prefix.trim_matches('/');
        let whole = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !prefix.is_empty()
            && !(prefix.split('/').all(whole) && prefix.bytes().all(|b| named(b) || b"/=+,".contains(&b)))
        {
            return Err(bad(format!("{prefix:?} is not a folder in a bucket")).why("letters, digits and ._-=+, only"));
        }
        let mut read = Self {
            service,
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            path_style: None,
            account: None,
            credentials: Credentials::Environment,
            timeout: Duration::from_secs(60),
            patience: Duration::from_secs(120),
            text: String::new(),
        };
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = super::super::store::percent_decoded(value);
            let Some(value) = value.to_str().filter(|v| !v.is_empty()) else {
                return Err(bad(format!("option {name:?} of the repository's URL has no value")));
            };
            read.option(name, value)?;
        }
        read.text = read.canonical(url);
        Ok(read)
    }

    fn option(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = |why: &str| Error::usage(format!("option {name:?} of the repository's URL")).why(why).hint(FORM);
        let seconds = || match crate::model::parse_duration(value) {
            Ok(d) if !d.is_zero() => Ok(d),
            _ => Err(bad("a duration such as 30s is expected")),
        };
        match (name, self.service) {
            ("endpoint", _) => {
                let host = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
                if host.is_none_or(|h| h.is_empty() || h.contains('@')) {
                    return Err(bad("https://HOST[:PORT] is expected"));
                }
                self.endpoint = Some(value.trim_end_matches('/').into());
            }
            ("region", Service::S3) => self.region = Some(value.into()),
            ("path_style", Service::S3) => {
                self.path_style = Some(value.parse().map_err(|_| bad("true or false is expected"))?);
            }
            ("account", Service::Azure) => self.account = Some(value.into()),
            ("credentials", _) if value == "machine" => self.credentials = Credentials::Machine,
            ("credentials", _) if value.starts_with('/') => self.credentials = Credentials::File(value.into()),
            // Whatever it is, it may be the secret itself.
            ("credentials", _) => return Err(bad("the absolute path of a file, or \"machine\", is expected")),
            ("timeout", _) => self.timeout = seconds()?,
            ("patience", _) => self.patience = seconds()?,
            _ => {
                let known = "endpoint, credentials, timeout, patience";
                let more = match self.service {
                    Service::S3 => ", region, path_style",
                    Service::Gcs => "",
                    Service::Azure => ", account",
                };
                return Err(bad(&format!("there is no such option; there are {known}{more}")));
            }
        }
        Ok(())
    }

    /// Without what two ways of writing the same place may differ in.
    fn canonical(&self, url: &str) -> String {
        let scheme = match self.service {
            Service::S3 => "s3",
            Service::Gcs => "gs",
            Service::Azure => "az",
        };
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let query =
            url.split_once('?').map_or(String::new(), |(_, q)| if q.is_empty() { q.into() } else { format!("?{q}") });
        format!("{scheme}://{}{slash}{}{query}", self.bucket, self.prefix)
    }

    /// The place without options, for messages.
    pub fn short(&self) -> &str {
        self.text.split_once('?').map_or(self.text.as_str(), |(short, _)| short)
    }
}
