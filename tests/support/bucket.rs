//! An S3 service in this process, over HTTP on the loopback. The protocol with its signatures, errors and documents is `s3s`,
//! which is made from Amazon's own model; what is stored is ours, in memory, with the rules the real service has: conditions
//! hold atomically, parts but the last have 5 MiB, an upload lives until it is completed or aborted. In front of it faults can
//! be set: refusals, answers that never come, connections cut in the middle of a request or an answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};

pub const ACCESS_KEY: &str = "AKIAEXAMPLEEXAMPLE00";
pub const SECRET_KEY: &str = "never/shown+to/anybody/SECRETSECRETSECRET0";
pub const BUCKET: &str = "backups";
/// Least bytes of a part that is not the last one.
const LEAST_PART: usize = 5 << 20;

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service answers with this status and does nothing.
    Refuse(u16),
    /// As [`Fault::Refuse`], with a code of S3's.
    Say(u16, &'static str),
    /// The service does what was asked, and answers with this status all the same.
    DoAndRefuse(u16),
    /// The service does what was asked, and the connection ends without an answer.
    DoAndCut,
    /// No answer, ever.
    Silence,
    /// The service does what was asked, and never answers.
    DoAndSilence,
    /// The connection ends after so many bytes of the request's body.
    CutRequest(usize),
    /// The connection ends after so many bytes of the answer's body.
    CutAnswer(usize),
    /// One bit of the answer's body is flipped.
    FlipAnswer,
    /// The service says that it did what was asked, and did nothing.
    Lie,
}

/// A request as the faults see it.
pub struct Seen<'r> {
    pub method: &'r Method,
    /// Key, without the bucket.
    pub key: &'r str,
    pub query: &'r str,
    /// How many requests came before this one.
    pub number: usize,
}

type Rule = Box<dyn FnMut(&Seen<'_>) -> Option<Fault> + Send>;

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    etag: String,
}

struct Begun {
    key: String,
    at: SystemTime,
    parts: BTreeMap<i32, (Bytes, String)>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Begun>,
    made: u64,
}

#[derive(Clone, Default)]
struct Storage {
    state: Arc<Mutex<State>>,
    /// What an upload begun now says of its beginning: so long ago.
    age: Arc<Mutex<Duration>>,
}

/// A running service. Ends when dropped.
pub struct Bucket {
    storage: Storage,
    rule: Arc<Mutex<Option<Rule>>>,
    requests: Arc<AtomicUsize>,
    /// Bytes of the bodies of answers.
    sent: Arc<AtomicUsize>,
    at: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

fn etag(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

impl Bucket {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let storage = Storage::default();
        let service = {
            let mut b = S3ServiceBuilder::new(storage.clone());
            b.set_auth(s3s::auth::SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
            b.build()
        };
        let rule: Arc<Mutex<Option<Rule>>> = Arc::default();
        let requests = Arc::new(AtomicUsize::new(0));
        let sent = Arc::new(AtomicUsize::new(0));
        let sending = sent.clone();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        let (rules, count) = (rule.clone(), requests.clone());
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, rules, count, sent) = (service.clone(), rules.clone(), count.clone(), sending.clone());
                let answer = hyper::service::service_fn(move |r| {
                    answer(service.clone(), rules.clone(), count.clone(), sent.clone(), r)
                });
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { storage, rule, requests, sent, at, _runtime: runtime }
    }

    /// What befalls requests from now on.
    pub fn rule(&self, rule: impl FnMut(&Seen<'_>) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }
    /// Nothing befalls them any more.
    pub fn calm(&self) {
        *self.rule.lock().unwrap() = None;
    }
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
    /// Bytes of the bodies of all answers so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
    /// Uploads begun from now on say that they were begun so long ago.
    pub fn uploads_are_old(&self, age: Duration) {
        *self.storage.age.lock().unwrap() = age;
    }
    /// Uploads neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        self.storage.state.lock().unwrap().uploads.len()
    }
    pub fn keys(&self) -> Vec<String> {
        self.storage.state.lock().unwrap().objects.keys().cloned().collect()
    }
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.storage.state.lock().unwrap().objects.get(key).map(|o| o.bytes.to_vec())
    }
    pub fn set(&self, key: &str, bytes: Vec<u8>) {
        let object = Object { etag: etag(&bytes), bytes: bytes.into() };
        self.storage.state.lock().unwrap().objects.insert(key.into(), object);
    }
    pub fn remove(&self, key: &str) {
        self.storage.state.lock().unwrap().objects.remove(key);
    }
    /// Everything that is stored, to be put back with [`Bucket::put_back`].
    pub fn copy(&self) -> BTreeMap<String, Vec<u8>> {
        self.storage.state.lock().unwrap().objects.iter().map(|(k, o)| (k.clone(), o.bytes.to_vec())).collect()
    }
    pub fn put_back(&self, copy: BTreeMap<String, Vec<u8>>) {
        self.storage.state.lock().unwrap().objects.clear();
        for (key, bytes) in copy {
            self.set(&key, bytes);
        }
    }
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.at)
    }
    /// URL of a repository in it, with the credentials in a file under `dir`.
    pub fn url(&self, dir: &Path, prefix: &str) -> String {
        let file = credentials(dir, "credentials", ACCESS_KEY, SECRET_KEY);
        self.url_with(prefix, &format!("&credentials={file}"))
    }
    pub fn url_with(&self, prefix: &str, more: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}{more}", self.endpoint())
    }
}

/// A file of credentials.
pub fn credentials(dir: &Path, name: &str, key: &str, secret: &str) -> String {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "# of the backups\nAWS_ACCESS_KEY_ID={key}\nexport AWS_SECRET_ACCESS_KEY=\"{secret}\"").unwrap();
    path.display().to_string()
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>>;

fn body(bytes: Bytes) -> http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error> {
    http_body_util::Full::new(bytes).map_err(|e: Infallible| match e {}).boxed_unsync()
}

fn refusal(status: u16, code: &str) -> Answer {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>set by the test</Message></Error>");
    Response::builder().status(status).body(body(text.into())).unwrap()
}

async fn answer(
    service: S3Service,
    rules: Arc<Mutex<Option<Rule>>>,
    count: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    mut request: Request<Incoming>,
) -> Result<Answer, std::io::Error> {
    let number = count.fetch_add(1, Ordering::SeqCst);
    let fault = {
        let path = request.uri().path().trim_start_matches('/').to_string();
        let query = request.uri().query().unwrap_or_default().to_string();
        let key = path.split_once('/').map_or("", |(_, key)| key);
        let seen = Seen { method: &request.method().clone(), key, query: &query, number };
        rules.lock().unwrap().as_mut().and_then(|rule| rule(&seen))
    };
    let cut = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    match fault {
        Some(Fault::Refuse(status)) => {
            // Read first: a real service answers a request it has taken.
            let _ = request.body_mut().collect().await;
            return Ok(refusal(status, "InternalError"));
        }
        Some(Fault::Say(status, code)) => {
            let _ = request.body_mut().collect().await;
            return Ok(refusal(status, code));
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Lie) => {
            let _ = request.body_mut().collect().await;
            return Ok(Response::builder().status(200).header("ETag", "\"0\"").body(body(Bytes::new())).unwrap());
        }
        Some(Fault::CutRequest(after)) => {
            let mut read = 0;
            while read < after {
                match request.body_mut().frame().await {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                    _ => break,
                }
            }
            return Err(cut());
        }
        _ => {}
    }
    let answered = hyper::service::Service::call(&service, request).await;
    let answered = answered.map_err(|e| std::io::Error::other(format!("{e:?}")))?;
    let (parts, answered) = answered.into_parts();
    match fault {
        Some(Fault::DoAndRefuse(status)) => return Ok(refusal(status, "InternalError")),
        Some(Fault::DoAndCut) => return Err(cut()),
        Some(Fault::DoAndSilence) => std::future::pending().await,
        _ => {}
    }
    let bytes = BodyExt::collect(answered).await.map_err(|e| std::io::Error::other(e.to_string()))?.to_bytes();
    sent.fetch_add(bytes.len(), Ordering::SeqCst);
    let content = match fault {
        Some(Fault::CutAnswer(after)) if bytes.len() > after => {
            let first = Ok(Frame::data(bytes.slice(..after)));
            let frames = futures::stream::iter([first, Err(cut())]);
            http_body_util::StreamBody::new(frames).boxed_unsync()
        }
        Some(Fault::FlipAnswer) if !bytes.is_empty() => {
            let mut flipped = bytes.to_vec();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            body(flipped.into())
        }
        // An answer to HEAD has a length and no body.
        _ if bytes.is_empty() => http_body_util::Empty::new().map_err(|e: Infallible| match e {}).boxed_unsync(),
        _ => body(bytes),
    };
    Ok(Response::from_parts(parts, content))
}

async fn whole(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
    }
    Ok(all.into())
}

fn bucket(name: &str) -> S3Result<()> {
    if name == BUCKET {
        Ok(())
    } else {
        Err(S3Error::with_message(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist"))
    }
}

/// Whether what is there lets a write pass. Called with the state locked, so that it holds until the write.
fn may_write(
    there: Option<&Object>,
    if_match: Option<&ETagCondition>,
    if_none: Option<&ETagCondition>,
) -> S3Result<()> {
    if if_none.is_some_and(ETagCondition::is_any) && there.is_some() {
        return Err(s3_error!(PreconditionFailed));
    }
    match (if_match.and_then(ETagCondition::as_etag), there) {
        (Some(_), None) => Err(s3_error!(NoSuchKey)),
        (Some(wanted), Some(there)) if wanted.value() != there.etag => Err(s3_error!(PreconditionFailed)),
        _ => Ok(()),
    }
}

#[async_trait::async_trait]
impl S3 for Storage {
    async fn put_object(&self, r: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let r = r.input;
        bucket(&r.bucket)?;
        let bytes = whole(r.body).await?;
        let object = Object { etag: etag(&bytes), bytes };
        let e_tag = Some(ETag::Strong(object.etag.clone()));
        let mut state = self.state.lock().unwrap();
        may_write(state.objects.get(&r.key), r.if_match.as_ref(), r.if_none_match.as_ref())?;
        state.objects.insert(r.key, object);
        Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn get_object(&self, r: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let r = r.input;
        bucket(&r.bucket)?;
        let found = self.state.lock().unwrap().objects.get(&r.key).cloned();
        let object = found.ok_or_else(|| s3_error!(NoSuchKey))?;
        if r.if_match.as_ref().and_then(ETagCondition::as_etag).is_some_and(|e| e.value() != object.etag) {
            return Err(s3_error!(PreconditionFailed));
        }
        let size = object.bytes.len() as u64;
        let (bytes, content_range) = match r.range {
            None => (object.bytes, None),
            Some(range) => {
                let range = range.check(size)?;
                let said = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (object.bytes.slice(range.start as usize..range.end as usize), Some(said))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(bytes.len() as i64),
            content_range,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(SystemTime::now().into()),
            body: Some(StreamingBlob::wrap(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]))),
            ..Default::default()
        }))
    }

    async fn head_object(&self, r: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        bucket(&r.input.bucket)?;
        let found = self.state.lock().unwrap().objects.get(&r.input.key).cloned();
        let object = found.ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.bytes.len() as i64),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(SystemTime::now().into()),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, r: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        bucket(&r.input.bucket)?;
        self.state.lock().unwrap().objects.remove(&r.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, r: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        bucket(&r.input.bucket)?;
        let mut state = self.state.lock().unwrap();
        let gone = r.input.delete.objects.into_iter().map(|o| {
            state.objects.remove(&o.key);
            DeletedObject { key: Some(o.key), ..Default::default() }
        });
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(gone.collect()), ..Default::default() }))
    }

    async fn list_objects_v2(&self, r: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let r = r.input;
        bucket(&r.bucket)?;
        let prefix = r.prefix.unwrap_or_default();
        // Small pages, so that every listing has several.
        let most = r.max_keys.unwrap_or(7).clamp(1, 7) as usize;
        let after = r.continuation_token.clone().or(r.start_after.clone()).unwrap_or_default();
        let state = self.state.lock().unwrap();
        let mut contents = Vec::new();
        let mut folders: Vec<String> = Vec::new();
        let mut last = String::new();
        let mut more = false;
        for (key, object) in state.objects.iter().filter(|(k, _)| k.starts_with(&prefix) && **k > after) {
            let folder = r
                .delimiter
                .as_deref()
                .and_then(|d| key[prefix.len()..].find(d).map(|i| &key[..prefix.len() + i + d.len()]));
            if folder.is_some_and(|f| folders.last().is_some_and(|l| l == f) || after.starts_with(f)) {
                last.clone_from(key);
                continue;
            }
            if contents.len() + folders.len() == most {
                more = true;
                break;
            }
            last.clone_from(key);
            match folder {
                Some(folder) => folders.push(folder.into()),
                None => contents.push(s3s::dto::Object {
                    key: Some(key.clone()),
                    size: Some(object.bytes.len() as i64),
                    e_tag: Some(ETag::Strong(object.etag.clone())),
                    last_modified: Some(SystemTime::now().into()),
                    ..Default::default()
                }),
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            is_truncated: Some(more),
            next_continuation_token: more.then_some(last),
            key_count: Some((contents.len() + folders.len()) as i32),
            contents: Some(contents),
            common_prefixes: Some(folders.into_iter().map(|f| CommonPrefix { prefix: Some(f) }).collect()),
            name: Some(r.bucket),
            prefix: Some(prefix),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        r: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        bucket(&r.input.bucket)?;
        let at = SystemTime::now() - *self.age.lock().unwrap();
        let mut state = self.state.lock().unwrap();
        state.made += 1;
        // With what an id may hold and a name may not.
        let id = format!("upload~{}/+=&<x>", state.made);
        state.uploads.insert(id.clone(), Begun { key: r.input.key.clone(), at, parts: BTreeMap::new() });
        let (bucket, key) = (Some(r.input.bucket), Some(r.input.key));
        Ok(S3Response::new(CreateMultipartUploadOutput { bucket, key, upload_id: Some(id), ..Default::default() }))
    }

    async fn upload_part(&self, r: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let r = r.input;
        bucket(&r.bucket)?;
        if !(1..=10_000).contains(&r.part_number) {
            return Err(s3_error!(InvalidArgument));
        }
        let bytes = whole(r.body).await?;
        let tag = etag(&bytes);
        let mut state = self.state.lock().unwrap();
        let begun = state.uploads.get_mut(&r.upload_id).filter(|b| b.key == r.key);
        begun.ok_or_else(|| s3_error!(NoSuchUpload))?.parts.insert(r.part_number, (bytes, tag.clone()));
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(tag)), ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        r: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let r = r.input;
        bucket(&r.bucket)?;
        let mut state = self.state.lock().unwrap();
        let begun = state.uploads.get(&r.upload_id).filter(|b| b.key == r.key);
        let begun = begun.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let wanted = r.multipart_upload.and_then(|m| m.parts).unwrap_or_default();
        if wanted.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let mut all = Vec::new();
        let mut before = 0;
        for (i, part) in wanted.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            let there = begun.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().is_none_or(|e| e.value() != there.1) {
                return Err(s3_error!(InvalidPart));
            }
            if number <= before {
                return Err(s3_error!(InvalidPartOrder));
            }
            if i + 1 < wanted.len() && there.0.len() < LEAST_PART {
                return Err(s3_error!(EntityTooSmall));
            }
            before = number;
            all.extend_from_slice(&there.0);
        }
        may_write(state.objects.get(&r.key), r.if_match.as_ref(), r.if_none_match.as_ref())?;
        let tag = format!("{}-{}", etag(&all), wanted.len());
        state.uploads.remove(&r.upload_id);
        state.objects.insert(r.key.clone(), Object { bytes: all.into(), etag: tag.clone() });
        let (bucket, key, e_tag) = (Some(r.bucket), Some(r.key), Some(ETag::Strong(tag)));
        Ok(S3Response::new(CompleteMultipartUploadOutput { bucket, key, e_tag, ..Default::default() }))
    }

    async fn abort_multipart_upload(
        &self,
        r: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        bucket(&r.input.bucket)?;
        let gone = self.state.lock().unwrap().uploads.remove(&r.input.upload_id);
        gone.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), StatusCode::NO_CONTENT))
    }

    async fn list_multipart_uploads(
        &self,
        r: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let r = r.input;
        bucket(&r.bucket)?;
        let prefix = r.prefix.clone().unwrap_or_default();
        let from = (r.key_marker.clone().unwrap_or_default(), r.upload_id_marker.clone().unwrap_or_default());
        let state = self.state.lock().unwrap();
        let mut all: Vec<(&String, &String, SystemTime)> =
            state.uploads.iter().map(|(id, b)| (&b.key, id, b.at)).collect();
        all.retain(|(key, id, _)| key.starts_with(&prefix) && ((*key).clone(), (*id).clone()) > from);
        all.sort();
        // One to a page.
        let more = all.len() > 1;
        all.truncate(1);
        let last = all.last().filter(|_| more);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(r.bucket),
            is_truncated: Some(more),
            next_key_marker: last.map(|l| l.0.clone()),
            next_upload_id_marker: last.map(|l| l.1.clone()),
            uploads: Some(
                all.into_iter()
                    .map(|(key, id, at)| MultipartUpload {
                        key: Some(key.clone()),
                        upload_id: Some(id.clone()),
                        initiated: Some(at.into()),
                        ..Default::default()
                    })
                    .collect(),
            ),
            ..Default::default()
        }))
    }
}
