//! What a storage service's refusal means, in words a person can act on. Its own text comes from outside, and may hold the
//! request with its signature: only its code and message are shown.

use object_store::Error as StorageError;

use super::url::{CloudUrl, Credentials, Service};
use crate::error::Error;
use crate::model::CleanText;

/// Longest text of a service that is shown.
const SHOWN: usize = 300;

/// The whole chain of an error as text: where the service's answer is in.
pub fn text_of(e: &(dyn std::error::Error + 'static)) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(source) = next {
        text.push('\n');
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// What stands between `<Name>` and `</Name>`, the first time; for JSON answers, after `"name": "`.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(value, _)| value.trim()).filter(|v| !v.is_empty())
}

/// The service's code for what went wrong, such as `NoSuchBucket`.
pub fn code_of(text: &str) -> Option<&str> {
    element(text, "Code")
}

/// Whether the answer says that the bucket itself is not there.
pub fn bucket_is_missing(text: &str) -> bool {
    matches!(code_of(text), Some("NoSuchBucket" | "ContainerNotFound"))
        || text.contains("The specified bucket does not exist")
}

/// The innermost cause: what the operating system or the library said.
fn innermost(e: &(dyn std::error::Error + 'static)) -> String {
    let mut last = e;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The error of a request on `url`; `what` was being done.
pub fn explain(url: &CloudUrl, what: &str, e: &StorageError) -> Error {
    explain_text(url, what, &text_of(e), &innermost(e))
}

/// As [`explain`], from the text of an answer and the innermost cause.
pub fn explain_text(url: &CloudUrl, what: &str, text: &str, innermost: &str) -> Error {
    let place = url.short();
    let error = Error::target(format!("{what} in {place}"));
    let said = match (code_of(text), element(text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_string(),
        // An answer without a code, a page of a proxy perhaps, is not shown: it may repeat the request.
        _ => match text.split_once("status code: ").and_then(|(_, s)| s.get(..3)) {
            Some(status) => format!("the service answered with status {status}"),
            None => innermost.lines().next().unwrap_or_default().to_string(),
        },
    };
    let said: String = CleanText::line(said.as_bytes()).as_str().chars().take(SHOWN).collect();
    let error = error.why(said);
    let status = |code: &str| text.contains(&format!("status code: {code}"));
    let code = code_of(text).unwrap_or_default();
    let whose = || match (&url.credentials, url.service) {
        (Credentials::File(path), _) => format!("the file {:?}", path.display()),
        (Credentials::Machine, _) => "the role of this machine".into(),
        (Credentials::Environment, Service::S3) => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into(),
        (Credentials::Environment, Service::Gcs) => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_BEARER_TOKEN".into(),
        (Credentials::Environment, Service::Azure) => "AZURE_STORAGE_ACCOUNT_KEY".into(),
    };
    if bucket_is_missing(text) {
        return error.hint(format!(
            "There is no bucket {:?} at this address: look at its name, the region and the endpoint.",
            url.bucket
        ));
    }
    match code {
        "RequestTimeTooSkewed" | "RequestExpired" => {
            error.hint("The clock of this machine is wrong: set it (timedatectl), signatures depend on it.")
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthenticationFailed" | "ExpiredToken" | "InvalidToken"
        | "InvalidAuthenticationInfo" | "NotSignedUp" => {
            error.hint(format!("The credentials were not accepted: look at {}.", whose()))
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            error.hint("The bucket is in another region: name it with ?region=… in the URL, or AWS_REGION.")
        }
        "AccessDenied" | "AuthorizationPermissionMismatch" | "AuthorizationFailure" => error.hint(format!(
            "The holder of {} may not do this: it needs to list, read, write and delete in {place}.",
            whose()
        )),
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => {
            error.hint("Free space there, or let `breakglass backup cleanup --dry-run` say what may go.")
        }
        _ if status("507") => error.hint("The storage is full: `breakglass backup cleanup --dry-run` says what may go."),
        _ if status("401") || status("403") => error.hint(format!(
            "The credentials were not accepted, or do not allow this: look at {} and at their rights in {place}.",
            whose()
        )),
        _ if status("301") || status("307") || text.contains("without LOCATION") => {
            error.hint("The bucket is in another region: name it with ?region=… in the URL, or AWS_REGION.")
        }
        _ if status("501") => error.hint(
            "The service cannot do this. Writing needs conditional requests (If-None-Match): two at the same time would overwrite each other otherwise.",
        ),
        _ if status("5") => error.hint("The service fails. Try again; what was acknowledged is stored."),
        _ => error.hint("Look at the network and the endpoint. Try again; what was acknowledged is stored."),
    }
}
