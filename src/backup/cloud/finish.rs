//! The end of an object in parts, and what is left of those that had none. On S3 the last request says that nothing may be
//! overwritten; the library has no word for it, so we sign that one request ourselves.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{Error as StorageError, ObjectStoreExt};
use reqwest::{Method, StatusCode, header};

use super::{Place, fault, run};
use crate::backup::store::{Committed, Existing};
use crate::error::{Error, Result};
use crate::model::Time;

/// How long a signed request may be under way.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Longest answer to one that is read.
const ANSWER: usize = 4 << 20;

/// An answer of the service: its status, 0 when there was none, and its text.
struct Answer {
    status: u16,
    text: String,
}

/// Sends a request signed by `s3`, again and again while the service fails.
async fn send(
    place: &Place,
    s3: &AmazonS3,
    method: Method,
    path: &Path,
    query: &[(&str, &str)],
    body: Option<&str>,
    only_new: bool,
) -> Result<Answer, StorageError> {
    let client = reqwest::Client::builder().timeout(place.url.timeout).build();
    let generic = |e: reqwest::Error| StorageError::Generic { store: "S3", source: Box::new(e.without_url()) };
    let client = client.map_err(generic)?;
    let mut options = SignedUrlOptions::new().with_query(query.iter().copied());
    if only_new {
        options = options.with_signed_header(header::IF_NONE_MATCH, header::HeaderValue::from_static("*"));
    }
    let begun = std::time::Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let url = s3.signed_url_opts(method.clone(), path, SIGNED_FOR, &options).await?;
        let mut request = client.request(method.clone(), url.as_str());
        if only_new {
            request = request.header(header::IF_NONE_MATCH, "*");
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let failed = match request.send().await {
            Ok(mut answer) => {
                let status = answer.status();
                let mut bytes = Vec::new();
                while let Ok(Some(chunk)) = answer.chunk().await {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > ANSWER {
                        break;
                    }
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                // Having said 200 early, the service may still fail.
                let late = status.is_success() && text.contains("<Error>");
                if !status.is_server_error() && !late && status != StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::NOT_IMPLEMENTED
                {
                    return Ok(Answer { status: status.as_u16(), text });
                }
                Ok(Answer { status: if late { 500 } else { status.as_u16() }, text })
            }
            Err(e) => Err(generic(e)),
        };
        if begun.elapsed() + pause > place.url.patience {
            return failed;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// Makes an object of its parts.
///
/// # Errors
/// As the service answers.
pub fn complete(
    place: &Arc<Place>,
    path: &Path,
    name: &str,
    id: &str,
    parts: Vec<PartId>,
    total: u64,
    existing: Existing,
) -> Result<Committed> {
    let what = format!("writing {name:?}");
    let (work, path, id) = (place.clone(), path.clone(), id.to_string());
    let outcome = run::wait(async move {
        if let (Existing::Keep, Some(s3)) = (existing, &work.client.s3)
            && let Some(done) = complete_new(&work, s3, &path, &id, &parts, total).await?
        {
            return Ok(done);
        }
        // Elsewhere the name is looked at just before. Objects of this size have names that are drawn at random.
        if existing == Existing::Keep && work.client.objects.head(&path).await.is_ok() {
            return Ok(Done::Committed(Committed::Kept));
        }
        match work.client.parts.complete_multipart(&path, &id, parts).await {
            Ok(_) => Ok(Done::Committed(Committed::Stored)),
            Err(e) if is_ours(&work, &path, total, &fault::text_of(&e)).await => Ok(Done::Committed(Committed::Stored)),
            Err(e) => Err(e),
        }
    })?;
    match outcome {
        Ok(Done::Committed(committed)) => Ok(committed),
        Ok(Done::Refused(answer)) => {
            let text = format!("status code: {}\n{}", answer.status, answer.text);
            Err(fault::explain_text(&place.url, &what, &text, "no answer"))
        }
        Err(e) => Err(fault::explain(&place.url, &what, &e)),
    }
}

enum Done {
    Committed(Committed),
    Refused(Answer),
}

/// Whether the parts became the object in an earlier try whose answer was lost: they are gone then, and it is there.
async fn is_ours(place: &Place, path: &Path, total: u64, text: &str) -> bool {
    fault::code_of(text) == Some("NoSuchUpload")
        && place.client.objects.head(path).await.is_ok_and(|there| there.size == total)
}

/// On S3, only if there is no object of that name; `None` when the service does not know that.
async fn complete_new(
    place: &Place,
    s3: &AmazonS3,
    path: &Path,
    id: &str,
    parts: &[PartId],
    total: u64,
) -> Result<Option<Done>, StorageError> {
    // With checksums of its own the library keeps more than a tag, in a form of its own.
    if parts.iter().any(|p| p.content_id.starts_with('<')) {
        return Ok(None);
    }
    let mut body = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (i, part) in parts.iter().enumerate() {
        let etag = part.content_id.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        body.push_str(&format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", i + 1));
    }
    body.push_str("</CompleteMultipartUpload>");
    let mut conflicts = 0;
    loop {
        let answer = send(place, s3, Method::POST, path, &[("uploadId", id)], Some(&body), true).await?;
        return Ok(Some(match answer.status {
            200..=299 => Done::Committed(Committed::Stored),
            412 => Done::Committed(Committed::Kept),
            501 => return Ok(None),
            404 if is_ours(place, path, total, &answer.text).await => Done::Committed(Committed::Stored),
            // Another one is being made at this moment; afterwards it is there or not.
            409 if conflicts < 5 => {
                conflicts += 1;
                tokio::time::sleep(Duration::from_millis(200) * conflicts).await;
                continue;
            }
            _ => Done::Refused(answer),
        }));
    }
}

/// An upload that was begun and neither finished nor given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Whole key of its object.
    pub key: String,
    /// Its id.
    pub id: String,
    /// When it was begun.
    pub begun: Option<Time>,
}

/// The uploads under `prefix` that have no end yet. S3 only: elsewhere they go by themselves, or are the provider's matter.
///
/// # Errors
/// As the service answers.
pub fn unfinished(place: &Arc<Place>) -> Result<Vec<Unfinished>> {
    let Some(s3) = place.client.s3.clone() else { return Ok(Vec::new()) };
    let what = "listing unfinished uploads";
    let (work, mut found) = (place.clone(), Vec::new());
    let mut after: Option<(String, String)> = None;
    loop {
        let (work, s3, prefix, from) = (work.clone(), s3.clone(), place.folder(), after.clone());
        let answer = run::wait(async move {
            let mut query = vec![("uploads", ""), ("prefix", prefix.as_str())];
            if let Some((key, id)) = &from {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
            }
            send(&work, &s3, Method::GET, &Path::default(), &query, None, false).await
        })?
        .map_err(|e| fault::explain(&place.url, what, &e))?;
        match answer.status {
            200..=299 => {}
            // A service that cannot list them has none to show.
            501 => return Ok(found),
            status => {
                let text = format!("status code: {status}\n{}", answer.text);
                return Err(fault::explain_text(&place.url, what, &text, "no answer"));
            }
        }
        for upload in answer.text.split("<Upload>").skip(1) {
            let field = |name: &str| between(upload, name).map(unescaped);
            if let (Some(key), Some(id)) = (field("Key"), field("UploadId")) {
                let begun = field("Initiated").and_then(|t| Time::parse(&t).ok());
                found.push(Unfinished { key, id, begun });
            }
        }
        let next = between(&answer.text, "NextKeyMarker").zip(between(&answer.text, "NextUploadIdMarker"));
        after = match next {
            Some((key, id)) if between(&answer.text, "IsTruncated") == Some("true") => {
                let next = (unescaped(key), unescaped(id));
                if after.as_ref() == Some(&next) {
                    return Err(Error::target(what).why("the service repeats itself"));
                }
                Some(next)
            }
            _ => return Ok(found),
        };
    }
}

fn between<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

/// Gives an upload up; its parts go.
///
/// # Errors
/// As the service answers.
pub fn give_up(place: &Arc<Place>, key: &str, id: &str) -> Result<bool> {
    let path = Path::parse(key).map_err(|e| Error::state(format!("{key:?} is not a key")).why(e))?;
    let (work, id) = (place.clone(), id.to_string());
    match run::wait(async move { work.client.parts.abort_multipart(&path, &id).await })? {
        Ok(()) => Ok(true),
        Err(StorageError::NotFound { .. }) => Ok(false),
        Err(e) => Err(fault::explain(&place.url, "removing an unfinished upload", &e)),
    }
}
