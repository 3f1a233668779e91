//! Google Cloud Storage (its XML interface) and Azure Blob Storage in this process, as far as a repository uses them: written
//! from the published interfaces, with their authorization, conditions, versions, parts and pages enforced. Not the services
//! themselves: what they do beyond their description is not here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};

pub const TOKEN: &str = "ya29.never-shown-to-anybody";
pub const ACCOUNT: &str = "examplestore";
/// 64 bytes, as Azure makes them.
pub const ACCOUNT_KEY: &str = "bmV2ZXIgc2hvd24gdG8gYW55Ym9keSwgbmV2ZXIgc2hvd24gdG8gYW55Ym9keSwgbmV2ZXIgc2hvd24hIQ==";
pub const CONTAINER: &str = "backups";
const MODIFIED: &str = "Fri, 20 Nov 2026 14:01:07 GMT";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Google,
    Azure,
}

#[derive(Default)]
struct State {
    /// Content and generation.
    objects: BTreeMap<String, (Bytes, u64)>,
    /// Parts by upload and number, or blocks by object and id.
    parts: BTreeMap<(String, String), Bytes>,
    uploads: Vec<String>,
    made: u64,
}

/// A running service.
pub struct Other {
    state: Arc<Mutex<State>>,
    pub endpoint: String,
    _runtime: tokio::runtime::Runtime,
}

struct Asked {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

type Answer = Response<Full<Bytes>>;

fn say(status: u16, code: &str) -> Answer {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as described</Message></Error>");
    Response::builder().status(status).body(Full::from(text)).unwrap()
}

fn xml(text: String) -> Answer {
    Response::builder()
        .status(200)
        .body(Full::from(format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>{text}")))
        .unwrap()
}

impl Other {
    pub fn start(kind: Kind) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = shared.clone();
                let answer = hyper::service::service_fn(move |r: Request<Incoming>| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(answer(kind, &shared, r).await) }
                });
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { state, endpoint, _runtime: runtime }
    }
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }
    /// Flips one bit of an object.
    pub fn flip(&self, key: &str) {
        let mut state = self.state.lock().unwrap();
        let (bytes, _) = state.objects.get_mut(key).unwrap();
        let mut bad = bytes.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        *bytes = bad.into();
    }
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match (first, more) {
            (b'%', [a, b, ..]) => {
                out.push(u8::from_str_radix(std::str::from_utf8(&[*a, *b]).unwrap(), 16).unwrap());
                rest = &more[2..];
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
    }
    String::from_utf8(out).unwrap()
}

async fn answer(kind: Kind, state: &Mutex<State>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return say(400, "IncompleteBody"),
    };
    let path = parts.uri.path().to_string();
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (decoded(k), decoded(v)))
        .collect();
    let (container, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let (container, key) = (container.to_string(), decoded(key));
    let asked = Asked { method: parts.method.to_string(), key, query, headers: parts.headers, body };
    let allowed = match kind {
        Kind::Google => asked.headers.get("authorization").is_some_and(|a| a == &format!("Bearer {TOKEN}")),
        Kind::Azure => asked
            .headers
            .get("authorization")
            .is_some_and(|a| *a == azure_signature(&asked.method, &asked.headers, &path, &asked.query)),
    };
    if !allowed {
        return say(403, if kind == Kind::Google { "AccessDenied" } else { "AuthenticationFailed" });
    }
    if container != CONTAINER {
        return say(404, if kind == Kind::Google { "NoSuchBucket" } else { "ContainerNotFound" });
    }
    let mut state = state.lock().unwrap();
    match kind {
        Kind::Google => google(&mut state, &asked),
        Kind::Azure => azure(&mut state, &asked),
    }
}

/// "Authorize with Shared Key" of Azure's documentation.
fn azure_signature(method: &str, headers: &HeaderMap, path: &str, query: &BTreeMap<String, String>) -> String {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let length = Some(header("content-length")).filter(|l| *l != "0").unwrap_or_default();
    let mut text = format!("{method}\n");
    for value in [
        header("content-encoding"),
        header("content-language"),
        length,
        header("content-md5"),
        header("content-type"),
        header("date"),
    ] {
        text.push_str(&format!("{value}\n"));
    }
    for name in ["if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"] {
        text.push_str(&format!("{}\n", header(name)));
    }
    let mut own: Vec<(&str, &str)> = headers
        .iter()
        .map(|(k, v)| (k.as_str(), v.to_str().unwrap()))
        .filter(|(k, _)| k.starts_with("x-ms-"))
        .collect();
    own.sort_unstable();
    own.iter().for_each(|(k, v)| text.push_str(&format!("{k}:{v}\n")));
    text.push_str(&format!("/{ACCOUNT}{path}"));
    query.iter().for_each(|(k, v)| text.push_str(&format!("\n{}:{v}", k.to_lowercase())));
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(ACCOUNT_KEY).unwrap()).unwrap();
    mac.update(text.as_bytes());
    format!("SharedKey {ACCOUNT}:{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn tag(bytes: &[u8], generation: u64) -> String {
    let digest: String = Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("\"{digest}-{generation}\"")
}

/// An object, or the part of it that was asked for.
fn read(state: &State, asked: &Asked, missing: &str) -> Answer {
    let Some((bytes, generation)) = state.objects.get(&asked.key) else { return say(404, missing) };
    let etag = tag(bytes, *generation);
    if asked.headers.get("if-match").is_some_and(|m| *m != etag) {
        return say(412, "ConditionNotMet");
    }
    let mut answer = Response::builder()
        .header("etag", &etag)
        .header("last-modified", MODIFIED)
        .header("x-goog-generation", *generation)
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-type", "application/octet-stream");
    let size = bytes.len();
    let range = asked.headers.get("range").and_then(|r| r.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let mut content = bytes.clone();
    if let Some((from, to)) = range {
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap_or(usize::MAX));
        if from >= size {
            return say(416, "InvalidRange");
        }
        let to = to.min(size - 1);
        content = bytes.slice(from..=to);
        answer = answer.status(206).header("content-range", format!("bytes {from}-{to}/{size}"));
    }
    if asked.method == "HEAD" {
        return answer.header("content-length", size).body(Full::default()).unwrap();
    }
    answer.body(Full::from(content)).unwrap()
}

fn store(state: &mut State, key: &str, bytes: Bytes) -> Answer {
    state.made += 1;
    let etag = tag(&bytes, state.made);
    let answer = Response::builder()
        .status(201)
        .header("etag", etag)
        .header("x-goog-generation", state.made)
        .header("last-modified", MODIFIED);
    state.objects.insert(key.into(), (bytes, state.made));
    answer.body(Full::default()).unwrap()
}

/// Keys with size and tag, folders, and where the next page begins.
type Page<'s> = (Vec<(&'s String, usize, String)>, Vec<String>, Option<String>);

fn page<'s>(state: &'s State, asked: &Asked, after: Option<&String>) -> Page<'s> {
    let prefix = asked.query.get("prefix").cloned().unwrap_or_default();
    let delimiter = asked.query.get("delimiter");
    let (mut keys, mut folders, mut last) = (Vec::new(), Vec::<String>::new(), String::new());
    for (key, (bytes, generation)) in
        state.objects.iter().filter(|(k, _)| k.starts_with(&prefix) && after.is_none_or(|a| *k > a))
    {
        if keys.len() + folders.len() == 5 {
            return (keys, folders, Some(last));
        }
        last.clone_from(key);
        match delimiter.and_then(|d| key[prefix.len()..].find(d.as_str())) {
            Some(at) => {
                let folder = key[..=prefix.len() + at].to_string();
                if folders.last() != Some(&folder) {
                    folders.push(folder);
                }
            }
            None => keys.push((key, bytes.len(), tag(bytes, *generation))),
        }
    }
    (keys, folders, None)
}

fn google(state: &mut State, asked: &Asked) -> Answer {
    let upload = asked.query.get("uploadId").cloned();
    let wanted = asked.headers.get("x-goog-if-generation-match").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    match (asked.method.as_str(), asked.key.is_empty(), upload) {
        ("GET", true, _) => {
            let (keys, folders, next) = page(state, asked, asked.query.get("continuation-token"));
            let mut text = String::from("<ListBucketResult>");
            for (key, size, etag) in keys {
                let etag = etag.replace('"', "&quot;");
                text.push_str(&format!("<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-11-20T14:01:07.000Z</LastModified><ETag>{etag}</ETag></Contents>"));
            }
            folders
                .iter()
                .for_each(|f| text.push_str(&format!("<CommonPrefixes><Prefix>{f}</Prefix></CommonPrefixes>")));
            next.iter().for_each(|n| text.push_str(&format!("<NextContinuationToken>{n}</NextContinuationToken>")));
            xml(text + "</ListBucketResult>")
        }
        ("GET" | "HEAD", ..) => read(state, asked, "NoSuchKey"),
        ("DELETE", _, None) => match state.objects.remove(&asked.key) {
            Some(_) => Response::builder().status(204).body(Full::default()).unwrap(),
            None => say(404, "NoSuchKey"),
        },
        ("POST", _, None) if asked.query.contains_key("uploads") => {
            state.made += 1;
            let id = format!("upload-{}", state.made);
            state.uploads.push(id.clone());
            xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        (_, _, Some(id)) if !state.uploads.contains(&id) => say(404, "NoSuchUpload"),
        ("PUT", _, Some(id)) => {
            let number: u32 = asked.query["partNumber"].parse().unwrap();
            state.parts.insert((id, format!("{number:06}")), asked.body.clone());
            Response::builder().header("etag", tag(&asked.body, 0)).body(Full::default()).unwrap()
        }
        ("POST", _, Some(id)) => {
            let said = String::from_utf8(asked.body.to_vec()).unwrap();
            let parts: Vec<Bytes> = state
                .parts
                .range((id.clone(), String::new())..=(id.clone(), "~".into()))
                .map(|(_, b)| b.clone())
                .collect();
            let whole = said.matches("<PartNumber>").count() == parts.len()
                && parts.iter().all(|p| said.contains(tag(p, 0).trim_matches('"')));
            if !whole {
                return say(400, "InvalidPart");
            }
            if parts.iter().rev().skip(1).any(|p| p.len() < 5 << 20) {
                return say(400, "EntityTooSmall");
            }
            state.uploads.retain(|u| *u != id);
            store(state, &asked.key, parts.concat().into());
            xml("<CompleteMultipartUploadResult><ETag>\"joined\"</ETag></CompleteMultipartUploadResult>".into())
        }
        ("DELETE", _, Some(id)) => {
            state.uploads.retain(|u| *u != id);
            Response::builder().status(204).body(Full::default()).unwrap()
        }
        ("PUT", ..) => {
            let there = state.objects.get(&asked.key).map_or(0, |(_, generation)| *generation);
            if wanted.is_some_and(|w| w != there) {
                return say(412, "PreconditionFailed");
            }
            store(state, &asked.key, asked.body.clone())
        }
        _ => say(405, "MethodNotAllowed"),
    }
}

fn azure(state: &mut State, asked: &Asked) -> Answer {
    let comp = asked.query.get("comp").map(String::as_str);
    match (asked.method.as_str(), comp) {
        ("GET", Some("list")) => {
            let (keys, folders, next) = page(state, asked, asked.query.get("marker"));
            let mut text = String::from("<EnumerationResults><Blobs>");
            for (key, size, etag) in keys {
                let etag = etag.replace('"', "&quot;");
                text.push_str(&format!("<Blob><Name>{key}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified><Etag>{etag}</Etag><Content-Length>{size}</Content-Length><Content-Type>application/octet-stream</Content-Type></Properties></Blob>"));
            }
            folders.iter().for_each(|f| text.push_str(&format!("<BlobPrefix><Name>{f}</Name></BlobPrefix>")));
            xml(format!("{text}</Blobs><NextMarker>{}</NextMarker></EnumerationResults>", next.unwrap_or_default()))
        }
        ("POST", Some("batch")) => {
            // Of each request inside only its first line matters here; each is answered in the same form.
            let said = String::from_utf8_lossy(&asked.body).into_owned();
            let mut text = String::new();
            for (i, line) in said.lines().filter(|l| l.starts_with("DELETE ")).enumerate() {
                let key = decoded(line.split(' ').nth(1).unwrap().trim_start_matches('/').split_once('/').unwrap().1);
                let status = if state.objects.remove(&key).is_some() {
                    "202 Accepted"
                } else {
                    "404 The specified blob does not exist."
                };
                text.push_str(&format!("--answer\r\nContent-Type: application/http\r\nContent-ID: {i}\r\n\r\nHTTP/1.1 {status}\r\nx-ms-version: 2023-11-03\r\n\r\n\r\n"));
            }
            Response::builder()
                .status(202)
                .header("content-type", "multipart/mixed; boundary=answer")
                .body(Full::from(text + "--answer--\r\n"))
                .unwrap()
        }
        ("GET" | "HEAD", _) => read(state, asked, "BlobNotFound"),
        ("PUT", Some("block")) => {
            state.parts.insert((asked.key.clone(), asked.query["blockid"].clone()), asked.body.clone());
            Response::builder().status(201).body(Full::default()).unwrap()
        }
        ("PUT", Some("blocklist")) => {
            let said = String::from_utf8(asked.body.to_vec()).unwrap();
            let mut all = Vec::new();
            for id in said.split("<Uncommitted>").skip(1).map(|s| s.split('<').next().unwrap()) {
                match state.parts.remove(&(asked.key.clone(), id.to_string())) {
                    Some(block) => all.extend_from_slice(&block),
                    None => return say(400, "InvalidBlockList"),
                }
            }
            store(state, &asked.key, all.into())
        }
        ("PUT", None) => {
            if asked.headers.get("x-ms-blob-type").is_none_or(|t| t != "BlockBlob") {
                return say(400, "MissingRequiredHeader");
            }
            let there = state.objects.get(&asked.key).map(|(bytes, generation)| tag(bytes, *generation));
            if asked.headers.get("if-none-match").is_some_and(|m| m == "*") && there.is_some() {
                return say(409, "BlobAlreadyExists");
            }
            if asked.headers.get("if-match").is_some_and(|m| there.as_ref().is_none_or(|t| m != t)) {
                return say(412, "ConditionNotMet");
            }
            store(state, &asked.key, asked.body.clone())
        }
        _ => say(405, "UnsupportedHttpVerb"),
    }
}
