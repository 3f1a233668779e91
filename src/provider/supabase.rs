//! Supabase's Management API, version 1: the few calls a recovery needs.
//!
//! From Supabase's published OpenAPI document and its own command line client: bearer token; a project reference is 20 lower-case
//! letters; errors are `{"message": text}`; 120 requests a minute, then 429 with `X-RateLimit-Reset` or `Retry-After` in seconds.
//! `restore-pitr` takes whole seconds, answers 201 with nothing to recognise the restore by, and knows no idempotency key. So what
//! matters of a failure is whether the request can have had an effect: [`Trouble`] says that first.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Method, StatusCode, Url, header};
use serde::{Deserialize, Serialize};

use super::{http, innermost};
use crate::config::backend::SupabaseSettings;
use crate::error::{Error, Result};
use crate::model::{CleanText, Redactor, Secret, Time};

/// An answer longer than this is none.
const MAX_ANSWER: usize = 1 << 20;
/// Longest wait that a rate limit is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Calls kept for the support packet, the newest.
const KEPT: usize = 400;
/// Headers that name a request.
const IDS: [&str; 4] = ["x-request-id", "sb-request-id", "request-id", "cf-ray"];

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It never left: nothing was done.
    Unsent(String),
    /// A definite no: nothing was done.
    Declined {
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
        /// How long to wait before asking again, when it says so.
        wait: Option<Duration>,
    },
    /// Whether it had an effect is not known.
    Unclear(String),
}

impl Trouble {
    /// Whether what was asked for may be happening all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unclear(_))
    }

    /// For people, in one line.
    pub fn describe(&self) -> String {
        match self {
            Self::Unsent(why) => format!("it could not be reached: {why}"),
            Self::Declined { status, message, .. } => format!("HTTP {status}: {message}"),
            Self::Unclear(why) => why.clone(),
        }
    }
}

/// A call that was made, for the support packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When it was answered, or not.
    pub at: Time,
    /// Method and path.
    pub what: String,
    /// HTTP status, or what went wrong.
    pub answer: String,
    /// What its headers call the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ids: BTreeMap<String, String>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Where it runs.
    #[serde(default)]
    pub region: String,
    /// `ACTIVE_HEALTHY`, `RESTORING`, …; may be a word that is not known here.
    pub status: String,
}

/// A daily backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daily {
    /// Its number.
    #[serde(default)]
    pub id: Option<i64>,
    /// `COMPLETED`, `FAILED`, ….
    #[serde(default)]
    pub status: String,
    /// When it was taken, in their form.
    #[serde(default)]
    pub inserted_at: String,
    /// Whether it is a physical one.
    #[serde(default)]
    pub is_physical_backup: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Physical {
    earliest_physical_backup_date_unix: Option<i64>,
    latest_physical_backup_date_unix: Option<i64>,
}

/// What there is to restore.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Backups {
    /// Whether point-in-time recovery is bought.
    #[serde(default)]
    pub pitr_enabled: bool,
    /// Daily backups; none are taken while point-in-time recovery is on.
    #[serde(default)]
    pub backups: Vec<Daily>,
    #[serde(default)]
    physical_backup_data: Physical,
}

impl Backups {
    /// First and last second that can be restored to.
    pub fn window(&self) -> Option<(i64, i64)> {
        let p = &self.physical_backup_data;
        p.earliest_physical_backup_date_unix.zip(p.latest_physical_backup_date_unix)
    }
}

/// Health of one of a project's services.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Service {
    /// `db`, `auth`, ….
    pub name: String,
    /// `ACTIVE_HEALTHY`, `COMING_UP`, `UNHEALTHY`.
    pub status: String,
}

/// A client for one project.
pub struct Client {
    base: Url,
    reference: String,
    token: Secret,
    timeout: Duration,
    http: reqwest::Client,
    calls: Mutex<Vec<Call>>,
}

/// Whether a host is this very machine.
fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

impl Client {
    /// A client for the project of the settings.
    ///
    /// # Errors
    /// Config: the reference, the URL or the token is missing or cannot be used.
    pub fn new(settings: &SupabaseSettings, token: Option<&Secret>) -> Result<Self> {
        let reference = settings.project_ref.clone().ok_or_else(|| {
            Error::config("no project of Supabase is named").hint("set supabase.project_ref in breakglass.toml")
        })?;
        if reference.len() != 20 || !reference.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(Error::config(format!("{reference:?} is not the reference of a project"))
                .why("it has 20 lower-case letters")
                .hint("it stands in the address of the project's dashboard; put supabase.project_ref right"));
        }
        let url = &settings.api_url;
        let bad = |why: String| {
            Error::config(format!("supabase.api_url {url:?} cannot be used"))
                .why(why)
                .hint("leave it out: https://api.supabase.com is meant")
        };
        let base = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        let local = base.scheme() == "http" && is_loopback(&base);
        if base.scheme() != "https" && !(local && settings.allow_loopback_http) {
            return Err(bad("the token would travel in the clear: only https is taken".into()));
        }
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(bad("it holds more than a host and a path".into()));
        }
        let token = token.cloned().ok_or_else(|| {
            Error::config("there is no access token for Supabase")
                .hint("set SUPABASE_ACCESS_TOKEN (dashboard, Account, Access Tokens)")
        })?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        let http =
            Self::builder(timeout, local).build().map_err(|e| Error::state("no HTTP client can be made").why(e))?;
        Ok(Self { base, reference, token, timeout, http, calls: Mutex::default() })
    }

    fn builder(timeout: Duration, local: bool) -> reqwest::ClientBuilder {
        // Asking again on its own is nobody's business here.
        let b = http().timeout(timeout).connect_timeout(timeout.min(Duration::from_secs(10)));
        let b = b.retry(reqwest::retry::never());
        if local { b.no_proxy() } else { b }
    }

    /// The project's reference.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The API's host.
    pub fn host(&self) -> String {
        self.base.host_str().unwrap_or_default().to_string()
    }

    /// The calls that were made so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The project.
    ///
    /// # Errors
    /// As [`Trouble`].
    pub async fn project(&self) -> Result<Project, Trouble> {
        self.get("").await
    }

    /// What there is to restore.
    ///
    /// # Errors
    /// As [`Trouble`].
    pub async fn backups(&self) -> Result<Backups, Trouble> {
        self.get("/database/backups").await
    }

    /// Health of the services that a database's users depend on.
    ///
    /// # Errors
    /// As [`Trouble`].
    pub async fn health(&self) -> Result<Vec<Service>, Trouble> {
        self.get("/health?services=db,auth,rest,pooler").await
    }

    /// Runs a query that only reads; its rows.
    ///
    /// # Errors
    /// As [`Trouble`]; a query that the server refuses is declined.
    pub async fn query(&self, sql: &str) -> Result<Vec<serde_json::Value>, Trouble> {
        let body = serde_json::json!({"query": sql, "read_only": true});
        let text = self.call(&self.http, Method::POST, "/database/query", Some(body)).await?.1;
        serde_json::from_str(&text).map_err(|e| Trouble::Unclear(format!("its answer cannot be understood: {e}")))
    }

    /// Asks for a restore in place to the end of this second. At most one request leaves, whatever becomes of it.
    ///
    /// # Errors
    /// As [`Trouble`]; only [`Trouble::may_have_happened`] tells whether it may be going on.
    pub async fn restore(&self, unix: i64) -> Result<String, Trouble> {
        // A connection of its own: on a kept one that the other side just closed the request would be sent once more.
        let local = self.base.scheme() == "http";
        let once = Self::builder(self.timeout, local).pool_max_idle_per_host(0).http1_only();
        let once = once.build().map_err(|e| Trouble::Unsent(e.to_string()))?;
        let body = serde_json::json!({"recovery_time_target_unix": unix});
        let (status, _) = self.call(&once, Method::POST, "/database/backups/restore-pitr", Some(body)).await?;
        Ok(format!("HTTP {}", status.as_u16()))
    }

    async fn get<T: for<'d> Deserialize<'d>>(&self, path: &str) -> Result<T, Trouble> {
        let (_, text) = self.call(&self.http, Method::GET, path, None).await?;
        serde_json::from_str(&text).map_err(|e| Trouble::Unclear(format!("its answer cannot be understood: {e}")))
    }

    async fn call(
        &self,
        http: &reqwest::Client,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<(StatusCode, String), Trouble> {
        let base = self.base.as_str().trim_end_matches('/');
        let url = format!("{base}/v1/projects/{}{path}", self.reference);
        let mut request = http.request(method.clone(), url).header(header::ACCEPT, "application/json");
        request = request.bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let shown = format!("{method} /v1/projects/{}{path}", self.reference);
        let mut response = match request.send().await {
            Ok(r) => r,
            Err(e) => {
                // Before there is a connection nothing was sent; later nobody knows.
                let (unsent, slow) = (e.is_connect() || e.is_builder(), e.is_timeout());
                let why = match slow && !unsent {
                    true => format!("no answer within {} s", self.timeout.as_secs_f32()),
                    false => CleanText::text(&innermost(e)).to_string(),
                };
                self.note(&shown, &why, BTreeMap::new());
                return Err(if unsent { Trouble::Unsent(why) } else { Trouble::Unclear(why) });
            }
        };
        let status = response.status();
        let ids = IDS.iter().filter_map(|id| {
            let value = response.headers().get(*id)?.to_str().ok()?;
            Some((id.to_string(), CleanText::line(value.as_bytes()).to_string()))
        });
        let ids: BTreeMap<String, String> = ids.collect();
        let wait = wait(response.headers());
        let (mut bytes, mut cut) = (Vec::new(), None);
        while bytes.len() < MAX_ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(e) => {
                    cut = Some(innermost(e));
                    break;
                }
            }
        }
        // Whatever stands between may echo what it was sent.
        let text = Redactor::new([&self.token]).redact(&String::from_utf8_lossy(&bytes));
        let words = message(&text, status);
        self.note(
            &shown,
            &if status.is_success() { status.as_u16().to_string() } else { format!("{}: {words}", status.as_u16()) },
            ids,
        );
        match (status, cut) {
            // That it was accepted is known, whatever became of the rest of the answer; whoever needs that finds it wanting.
            (s, _) if s.is_success() => Ok((s, text)),
            (s, _) if s.is_server_error() || s == StatusCode::REQUEST_TIMEOUT => {
                Err(Trouble::Unclear(format!("HTTP {}: {words}", s.as_u16())))
            }
            (s, _) => Err(Trouble::Declined { status: s.as_u16(), message: words, wait }),
        }
    }

    fn note(&self, what: &str, answer: &str, ids: BTreeMap<String, String>) {
        let at = Time::from_system(SystemTime::now());
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Call { at, what: what.into(), answer: answer.into(), ids });
        let surplus = calls.len().saturating_sub(KEPT);
        calls.drain(..surplus);
    }

    /// What is told to people when a call that decides something failed.
    pub fn error(&self, doing: &str, trouble: &Trouble) -> Error {
        let project = &self.reference;
        let failed = |kind: fn(String) -> Error| kind(format!("Supabase did not let us {doing} of project {project}"));
        let e = match trouble {
            Trouble::Unsent(why) => {
                return Error::target(format!("Supabase's Management API at {} cannot be reached", self.host()))
                    .why(why)
                    .hint("nothing was sent; look at the network here and at https://status.supabase.com");
            }
            Trouble::Unclear(why) => {
                return Error::target(format!(
                    "Supabase gave no usable answer when asked to {doing} of project {project}"
                ))
                .why(why)
                .hint("look at https://status.supabase.com, then try again");
            }
            Trouble::Declined { status: 401, .. } => failed(Error::config)
                .hint("the access token is not accepted: make a new one and set SUPABASE_ACCESS_TOKEN"),
            Trouble::Declined { status: 403, .. } => failed(Error::config).hint(
                "the token's account has no right to that: use one of an owner or administrator of the organisation, \
                 whose scopes allow reading the project and writing backups",
            ),
            Trouble::Declined { status: 404, .. } => failed(Error::config)
                .hint("there is no such project for this token's account: look at supabase.project_ref"),
            Trouble::Declined { status: 429, wait, .. } => {
                let after = wait.map_or("a minute".to_string(), |w| format!("{} s", w.as_secs()));
                failed(Error::target).hint(format!("it takes 120 requests a minute; try again in {after}"))
            }
            Trouble::Declined { status: 300..=399, .. } => {
                failed(Error::config).hint("it sends us elsewhere, which is never followed: look at supabase.api_url")
            }
            Trouble::Declined { message, .. } => known(failed(Error::target), message),
        };
        e.why(trouble.describe())
    }
}

/// What helps against refusals whose words are known.
fn known(e: Error, message: &str) -> Error {
    let m = message.to_lowercase();
    if m.contains("pitr is not enabled") {
        e.hint("point-in-time recovery is an add-on: without it only a daily backup can be restored (dashboard, Database, Backups)")
    } else if m.contains("within range") {
        e.hint("choose a moment inside the window: breakglass pitr range")
    } else if m.contains("unreachable") {
        e.hint(
            "Supabase asks the database before it restores it, and that one does not answer: restart the project first \
                (dashboard, Settings, General), or write to its support",
        )
    } else {
        e.hint("its words are above; the dashboard (Database, Backups) may say more")
    }
}

/// How long it wants to be left alone.
fn wait(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = ["retry-after", "x-ratelimit-reset"]
        .iter()
        .find_map(|n| headers.get(*n)?.to_str().ok()?.trim().parse::<u64>().ok())?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// The message of an answer: of their envelope, else its first words.
fn message(text: &str, status: StatusCode) -> String {
    let said = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|v| {
        let m = v.get("message").or_else(|| v.get("error")?.get("message")).or_else(|| v.get("error"))?;
        Some(m.as_str()?.to_string())
    });
    let text = said.unwrap_or_else(|| match text.trim_start().starts_with('<') {
        // A page of whatever stands in front of it.
        true => String::new(),
        false => text.chars().take(200).collect(),
    });
    let clean = CleanText::line(text.trim().as_bytes()).to_string();
    if clean.is_empty() { status.canonical_reason().unwrap_or("no words").to_string() } else { clean }
}
