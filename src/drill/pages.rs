//! A disk that rots: bytes in pages of tables change below the server, and every page carries a checksum that tells.
//!
//! No transaction does it, so nothing of it is in the log and no query finds who it was: the server refuses the page when it
//! reads it. Which pages of which tables, and when, follows from a seed in this process's memory alone.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::door::PORT;
use super::logs::digest_sql;
use super::random::Choices;
use super::release::Window;
use super::scratch;
use super::service::{Service, now};
use super::shop::SUPERUSER;
use crate::error::{Context, Result};
use crate::model::Time;
use crate::postgres::Layout;
use crate::postgres::connect::{describe, run, sqlstate};

/// Name of the variant.
pub const VARIANT: &str = "pages";
/// File name of the log.
pub const PAGES: &str = "pages.jsonl";
/// The server's memory for pages in this drill: so little that a damaged page is soon read from disk.
pub const SHARED_BUFFERS: &str = "1MB";
/// Bytes of a page and pages of a file, as PostgreSQL is built everywhere.
const PAGE: u64 = 8192;
const PAGES_OF_A_FILE: u64 = 131_072;
/// How often it is looked whether the server sees the damage.
const LOOKS: u32 = 600;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum PageLine {
    /// What was decided, from which seed.
    Plan {
        /// The secret seed in hexadecimal.
        seed: String,
        /// When it was armed.
        armed: Time,
        /// Pages to be damaged per table.
        pages: Vec<(String, u64)>,
    },
    /// A page was damaged.
    Damaged {
        /// `public.orders`, `public.customers`.
        table: String,
        /// Number of the page.
        page: u64,
        /// When.
        at: Time,
        /// What the server said when it read it; none when it was not seen to.
        refused: Option<String>,
        /// The digest is taken of these columns, in this order, joined by `|`.
        columns: Vec<String>,
        /// Id and digest of each row that stood on it.
        rows: Vec<(i64, String)>,
    },
}

/// The rot: armed at most once.
pub struct Rot {
    dir: PathBuf,
    choices: Mutex<Choices>,
    sealed: Arc<Mutex<Vec<PageLine>>>,
    armed: AtomicBool,
}

/// Columns that nothing changes but the damage.
fn columns(table: &str) -> Vec<String> {
    let all: &[&str] = match table {
        "orders" => &["customer_id", "product_id", "quantity", "total_cents", "address"],
        _ => &["name", "email", "region", "address"],
    };
    all.iter().map(|c| (*c).to_string()).collect()
}

impl Rot {
    /// Draws the seed. `dir` is the scratch directory.
    ///
    /// # Errors
    /// State when the operating system gives no random bytes.
    pub fn new(dir: &Path) -> Result<Self> {
        let dir = dir.to_path_buf();
        Ok(Self { dir, choices: Mutex::new(Choices::secret()?), sealed: Arc::default(), armed: AtomicBool::new(false) })
    }
    /// It begins at a random moment of the window. A second call does nothing.
    pub fn arm(&self, service: &Arc<Service>, window: Window) {
        if self.armed.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut c = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = Duration::from_millis(c.between(window.from_ms, window.to_ms.max(window.from_ms)));
        // Recent orders are read by the shop all the time, customers whenever one orders.
        let orders: Vec<u64> = (0..c.between(1, 3)).map(|_| c.below(1 << 32)).collect();
        let customers: Vec<u64> = (0..c.between(0, 2)).map(|_| c.below(1 << 32)).collect();
        let bytes: Vec<u8> = (0..64).map(|_| u8::try_from(1 + c.below(255)).unwrap_or(1)).collect();
        let wanted = vec![("orders", orders), ("customers", customers)];
        let pages = wanted.iter().map(|(t, all)| (format!("public.{t}"), all.len() as u64)).collect();
        let line = PageLine::Plan { seed: c.open(), armed: now(), pages };
        drop(c);
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        let (service, sealed) = (service.clone(), self.sealed.clone());
        let data = Layout::under(&scratch::cluster(&self.dir), PORT).data;
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Err(e) = rot(&service, &data, &wanted, &bytes, &sealed).await {
                tracing::debug!("the disk does not rot: {e}");
            }
        });
    }
    /// Whether it was armed.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }
    /// Opens the log. For the judge only.
    pub fn open(&self) -> Vec<PageLine> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Damages the pages drawn, one after the other. Which there are is read before the first, after it nobody can any more.
fn rot<'a>(
    service: &'a Service,
    data: &'a Path,
    wanted: &'a [(&'static str, Vec<u64>)],
    bytes: &'a [u8],
    sealed: &'a Mutex<Vec<PageLine>>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(rot_all(service, data, wanted, bytes, sealed))
}

async fn rot_all(
    service: &Service,
    data: &Path,
    wanted: &[(&'static str, Vec<u64>)],
    bytes: &[u8],
    sealed: &Mutex<Vec<PageLine>>,
) -> Result<()> {
    let mut c = service.server().await.with_user(SUPERUSER).connect("disk").await?;
    let mut chosen = Vec::new();
    for (table, draws) in wanted {
        let mut all = at_rest(&mut c, table).await?;
        for draw in draws {
            if all.is_empty() {
                break;
            }
            let place = usize::try_from(draw % all.len() as u64).unwrap_or(0);
            chosen.push((*table, all.swap_remove(place)));
        }
    }
    let mut files = Vec::new();
    for (table, page) in chosen {
        files.push(damage(&mut c, (data, table, page), bytes, sealed).await?);
    }
    for (place, file, page, on_it) in files {
        let refused = meet(service, &mut c, (&file, page, &on_it), bytes).await?;
        if let Some(PageLine::Damaged { refused: said, .. }) =
            sealed.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place)
        {
            *said = refused;
        }
    }
    Ok(())
}

/// Pages full of rows from before the traffic, on which nothing is written any more; of orders those of the last day.
async fn at_rest(c: &mut PgConnection, table: &str) -> Result<Vec<i64>> {
    let (recent, own) = match table {
        "orders" => ("AND placed_at > now() - interval '20 hours'", "writer IS NOT NULL"),
        _ => ("", "false"),
    };
    let page = "(ctid::text::point)[0]::int8";
    let sql = format!(
        "SELECT DISTINCT {page} FROM {table} WHERE {page} NOT IN (SELECT {page} FROM {table} WHERE {own}) {recent} ORDER BY 1"
    );
    sqlx::query_scalar(&sql).fetch_all(c).await.target(|| format!("cannot read where the rows of {table} are"))
}

/// A damaged page: its line in the log, its file, its number, and the query that reads it.
type Place = (usize, PathBuf, u64, String);

/// Damages one page.
async fn damage(
    c: &mut PgConnection,
    (data, table, page): (&Path, &str, i64),
    bytes: &[u8],
    sealed: &Mutex<Vec<PageLine>>,
) -> Result<Place> {
    let what = || format!("page {page} of {table} cannot be damaged");
    let columns = columns(table);
    let on_it = format!("{table} t WHERE ctid >= '({page},0)'::tid AND ctid < '({},0)'::tid", page + 1);
    let sql = format!("SELECT id, {} FROM {on_it} ORDER BY id", digest_sql("t", &columns));
    let rows = sqlx::query(&sql).fetch_all(&mut *c).await.target(what)?;
    let rows: Vec<(i64, String)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let file: String = sqlx::query_scalar("SELECT pg_relation_filepath($1::text::regclass)")
        .bind(table)
        .fetch_one(&mut *c)
        .await
        .target(what)?;
    let page = u64::try_from(page).unwrap_or(0);
    let file = match page / PAGES_OF_A_FILE {
        0 => data.join(file),
        n => data.join(format!("{file}.{n}")),
    };
    run(c, "CHECKPOINT").await?;
    overwrite(&file, page, bytes).state(what)?;
    let line = PageLine::Damaged { table: format!("public.{table}"), page, at: now(), refused: None, columns, rows };
    let mut lines = sealed.lock().unwrap_or_else(PoisonError::into_inner);
    lines.push(line);
    Ok((lines.len() - 1, file, page, format!("SELECT count(*) FROM {on_it}")))
}

/// Sees to it that the server meets the page while it is in service; what it says then.
async fn meet(
    service: &Service,
    c: &mut PgConnection,
    (file, page, sql): (&Path, u64, &str),
    bytes: &[u8],
) -> Result<Option<String>> {
    let what = || format!("a page in {} cannot be damaged", file.display());
    for _ in 0..LOOKS {
        if service.generation() > 0 {
            break;
        }
        if let Err(e) = sqlx::query(sql).fetch_one(&mut *c).await {
            return Ok(sqlstate(&e).map(|_| describe(&e)));
        }
        // Still in the server's memory: other pages need its place. If it is written from there, it is damaged again.
        crowd_out(c).await?;
        if !is_damaged(file, page, bytes).state(what)? {
            overwrite(file, page, bytes).state(what)?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}

/// Reads a few hundred other pages one by one, which a small memory holds in place of those it had.
async fn crowd_out(c: &mut PgConnection) -> Result<()> {
    let sql = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; \
               SELECT count(length(prosrc)) FROM pg_catalog.pg_proc WHERE oid > 0; \
               SELECT count(attname) FROM pg_catalog.pg_attribute WHERE attrelid > 0 AND attlen <> 77; \
               RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_indexonlyscan";
    run(c, sql).await
}

/// Where in a page rows lie: not its header, whose damage could be taken for a page that was never written.
fn place(page: u64) -> u64 {
    (page % PAGES_OF_A_FILE) * PAGE + 5_000
}

fn overwrite(file: &Path, page: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    file.seek(SeekFrom::Start(place(page)))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn is_damaged(file: &Path, page: u64, bytes: &[u8]) -> std::io::Result<bool> {
    let mut file = fs::File::open(file)?;
    file.seek(SeekFrom::Start(place(page)))?;
    let mut there = vec![0; bytes.len()];
    file.read_exact(&mut there)?;
    Ok(there == bytes)
}
