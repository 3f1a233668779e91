//! Supabase's Management API as it is documented, with what was seen of it on bad days. Whoever does not keep the contract gets
//! the documented refusal, and it is counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The project of the tests.
pub const REF: &str = "abcdefghijklmnopqrst";
/// Its token; in the form of a real one.
pub const TOKEN: &str = "sbp_0123456789abcdef0123456789abcdef01234567";

/// How a request for a restore is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 201, nothing in it.
    Created,
    /// This status with this message.
    Refused(u16, &'static str),
    /// 429 with `Retry-After`.
    TooMany,
    /// An error page of whatever stands in front.
    Page(u16),
    /// The connection is cut once the body was read.
    Cut,
    /// No answer at all.
    Silence,
    /// 201, and a body that never ends.
    Drip,
}

/// What happens in it.
pub struct Day {
    /// How a restore is answered.
    pub answer: Answer,
    /// Whether it is begun, whatever the answer says.
    pub begins: bool,
    /// Statuses told one after the other from then on; the last stays.
    pub statuses: VecDeque<&'static str>,
    /// The status as long as nothing was begun.
    pub status: &'static str,
    /// Once the last status was told, the database is that of the target.
    pub restores: bool,
    /// From the request on the database answers no query.
    pub dies: bool,
    /// A service in front that is not well for so many looks after the restore.
    pub slow_service: u32,
    /// Every read is answered like that.
    pub reads: Option<(u16, &'static str)>,
    /// So many reads are limited first.
    pub limited: u32,
    pub pitr: bool,
    pub earliest: i64,
    pub latest: i64,
    /// Seconds that the window moves on at each look.
    pub moves: i64,
    /// The newest row, in seconds.
    pub newest: i64,
    pub slots: Vec<&'static str>,
    // What was seen.
    pub triggers: Vec<Value>,
    pub begun: bool,
    pub restored: bool,
    pub wrong: Vec<String>,
}

/// A day on which all goes well: healthy for two looks more, away for two, back.
impl Default for Day {
    fn default() -> Self {
        Self {
            answer: Answer::Created,
            begins: true,
            statuses: ["ACTIVE_HEALTHY", "ACTIVE_HEALTHY", "RESTORING", "RESTORING", "COMING_UP", "ACTIVE_HEALTHY"]
                .into(),
            status: "ACTIVE_HEALTHY",
            restores: true,
            dies: false,
            slow_service: 0,
            reads: None,
            limited: 0,
            pitr: true,
            earliest: 1_700_000_000,
            latest: 1_700_100_000,
            moves: 0,
            newest: 1_700_099_000,
            slots: Vec::new(),
            triggers: Vec::new(),
            begun: false,
            restored: false,
            wrong: Vec::new(),
        }
    }
}

impl Day {
    fn now(&mut self) -> &'static str {
        if !self.begun {
            return self.status;
        }
        match self.statuses.len() {
            0 => self.status,
            1 => {
                self.restored = self.restores;
                self.statuses[0]
            }
            _ => self.statuses.pop_front().unwrap(),
        }
    }
}

/// The running server. Ends with the test's runtime.
pub struct Hosted {
    pub day: Arc<Mutex<Day>>,
    pub url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Hosted {
    pub fn start(day: Day) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let day = Arc::new(Mutex::new(day));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(day.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { day, url, _runtime: runtime }
    }
    pub fn triggers(&self) -> usize {
        self.day.lock().unwrap().triggers.len()
    }
    /// Nobody broke the contract.
    #[track_caller]
    pub fn kept(&self) {
        assert_eq!(self.day.lock().unwrap().wrong, Vec::<String>::new());
    }
}

fn message(status: u16, words: &str) -> Response {
    let code = StatusCode::from_u16(status).unwrap();
    (code, [("x-request-id", "req-7f3a")], axum::Json(json!({"message": words}))).into_response()
}

/// Whether the head of a request is as documented.
fn contract(method: &Method, path: &str, headers: &HeaderMap) -> Result<String, (u16, String)> {
    let bearer = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if bearer != format!("Bearer {TOKEN}") {
        return Err((401, "Unauthorized".into()));
    }
    if headers.get("user-agent").is_none() {
        return Err((403, "no user agent".into()));
    }
    let rest = path.strip_prefix("/v1/projects/").ok_or((404, format!("Cannot {method} {path}")))?;
    let (project, call) = rest.split_once('/').unwrap_or((rest, ""));
    if project != REF {
        return Err((403, "Your account does not have the necessary privileges to access this endpoint".into()));
    }
    let wanted = match call {
        "" | "health" | "database/backups" => Method::GET,
        "database/backups/restore-pitr" | "database/query" => Method::POST,
        _ => return Err((404, format!("Cannot {method} {path}"))),
    };
    if *method != wanted {
        return Err((404, format!("Cannot {method} {path}")));
    }
    let json = headers.get("content-type").is_some_and(|v| v == "application/json");
    if wanted == Method::POST && !json {
        return Err((400, "Invalid input: expected object, received undefined".into()));
    }
    Ok(call.to_string())
}

async fn answer(State(day): State<Arc<Mutex<Day>>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let (query, headers) = (request.uri().query().unwrap_or_default().to_string(), request.headers().clone());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let call = match contract(&method, &path, &headers) {
        Ok(call) => call,
        Err((status, words)) => {
            day.lock().unwrap().wrong.push(format!("{method} {path}: {status} {words}"));
            return message(status, &words);
        }
    };
    if call == "database/backups/restore-pitr" {
        return restore(&day, &body).await;
    }
    let mut day = day.lock().unwrap();
    if day.limited > 0 {
        day.limited -= 1;
        let headers = [("x-ratelimit-limit", "120"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "0")];
        return (StatusCode::TOO_MANY_REQUESTS, headers, axum::Json(json!({"message": "ThrottlerException"})))
            .into_response();
    }
    if let Some((status, words)) = day.reads {
        return message(status, words);
    }
    match call.as_str() {
        "" => {
            let status = day.now();
            // Members nobody knows are no reason to stop.
            axum::Json(json!({"id": REF, "ref": REF, "name": "shop", "region": "eu-central-1", "status": status,
                              "organization_id": "x", "surprise": {"a": [1]}}))
            .into_response()
        }
        "health" => {
            if !query.contains("services=") {
                day.wrong.push("health without services".into());
                return message(400, "services is required");
            }
            let slow = day.restored && day.slow_service > 0;
            day.slow_service -= u32::from(slow);
            let pooler = if slow { "COMING_UP" } else { "ACTIVE_HEALTHY" };
            axum::Json(json!([{"name": "db", "status": "ACTIVE_HEALTHY"}, {"name": "pooler", "status": pooler}]))
                .into_response()
        }
        "database/backups" => {
            day.latest += day.moves;
            let physical = match day.pitr {
                true => json!({"earliest_physical_backup_date_unix": day.earliest,
                               "latest_physical_backup_date_unix": day.latest}),
                false => json!({}),
            };
            axum::Json(json!({"region": "eu-central-1", "walg_enabled": true, "pitr_enabled": day.pitr,
                "backups": [{"id": 4711, "is_physical_backup": false, "status": "COMPLETED",
                             "inserted_at": "2023-11-14T22:13:20.000Z"}],
                "physical_backup_data": physical}))
            .into_response()
        }
        _ => database(&mut day, &body),
    }
}

/// Asks for a restore: exactly one member, a whole number of seconds.
async fn restore(day: &Arc<Mutex<Day>>, body: &Bytes) -> Response {
    let answer = {
        let mut day = day.lock().unwrap();
        let value: Value = match serde_json::from_slice(body) {
            Ok(v) => v,
            Err(_) => {
                day.wrong.push("a body that is no JSON".into());
                return message(400, "Invalid input: expected object, received string");
            }
        };
        let unix =
            value.as_object().filter(|o| o.len() == 1).and_then(|o| o.get("recovery_time_target_unix")?.as_i64());
        let Some(unix) = unix else {
            day.wrong.push(format!("body {value}"));
            return message(400, "Invalid input: expected number, received string");
        };
        day.triggers.push(value);
        if !matches!(day.answer, Answer::Refused(..) | Answer::TooMany) {
            if !(day.earliest..=day.latest).contains(&unix) {
                let words =
                    format!("Recovery time target must be within range: {} <= t <= {}", day.earliest, day.latest);
                return message(400, &words);
            }
            day.begun = day.begins;
            if day.begins && day.restores {
                // What is there once it is done.
                day.newest = day.newest.min(unix);
            }
        }
        day.answer
    };
    match answer {
        Answer::Created => (StatusCode::CREATED, [("x-request-id", "req-7f3a"), ("cf-ray", "8c1d")]).into_response(),
        Answer::Refused(status, words) => message(status, words),
        Answer::TooMany => {
            let headers = [("retry-after", "17")];
            (StatusCode::TOO_MANY_REQUESTS, headers, axum::Json(json!({"message": "ThrottlerException"})))
                .into_response()
        }
        Answer::Page(status) => {
            let code = StatusCode::from_u16(status).unwrap();
            (code, [("content-type", "text/html")], "<html><body>Bad gateway</body></html>").into_response()
        }
        // The task of the connection ends with the handler's.
        Answer::Cut => panic!("the connection is cut, as this test wants it"),
        Answer::Silence => std::future::pending().await,
        Answer::Drip => {
            let drops = futures::stream::unfold((), |()| async {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>(" "), ()))
            });
            (StatusCode::CREATED, axum::body::Body::from_stream(drops)).into_response()
        }
    }
}

/// The database behind it.
fn database(day: &mut Day, body: &Bytes) -> Response {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(sql) = value.get("query").and_then(Value::as_str) else {
        day.wrong.push(format!("query {value}"));
        return message(400, "Invalid input: expected object");
    };
    if value.get("read_only") != Some(&Value::Bool(true)) {
        day.wrong.push("a query that could write".into());
    }
    if day.begun && day.dies {
        return message(400, "Failed to run sql query: connect ECONNREFUSED");
    }
    let rows = if sql.contains("pg_postmaster_start_time") {
        match day.restored {
            true => json!([{"started": "2023-11-16 02:00:00.5+00", "timeline": "00000004"}]),
            false => json!([{"started": "2023-11-01 00:00:00+00", "timeline": "00000003"}]),
        }
    } else if sql.contains("pg_replication_slots") {
        day.slots.iter().map(|name| json!({"name": name})).collect()
    } else if sql.contains("max(created_at)") {
        let newest = if day.restored || !day.begun { day.newest } else { 1_700_099_000 };
        json!([{"newest": format!("{}+00", jiff::Timestamp::from_second(newest).unwrap().strftime("%Y-%m-%d %H:%M:%S"))}])
    } else {
        return message(400, "Failed to run sql query: syntax error");
    };
    (StatusCode::CREATED, axum::Json(rows)).into_response()
}
