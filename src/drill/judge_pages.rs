//! The judge of a drill with damaged pages: from the log of what rotted, the writers' log and the recovered database, whether
//! every row of those pages is there as it was and no order is lost that need not be.

use std::collections::HashMap;
use std::path::Path;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::judge::{
    Claim, Logs, after, before, between, check, dense, known, loss, moment, moment_check, paid, since_switch, some,
    traffic_rows,
};
use super::logs::{WRITERS, digest_sql, read};
use super::pages::{PAGES, PageLine};
use super::server::Server;
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::model::event::Check;
use crate::postgres::connect::describe;

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Each check.
    pub checks: Vec<Check>,
    /// When the first page was damaged.
    pub at: Option<Time>,
}

/// Judges by the logs in `dir` and the database the service runs on now; no order may be in flight.
///
/// # Errors
/// The logs cannot be read or the database does not answer.
pub async fn judge(dir: &Path, recovered: &Server, claim: &Claim) -> Result<Judgement> {
    let logs = Logs { orders: read(&dir.join(WRITERS))?, damage: Vec::new() };
    let pages: Vec<PageLine> = read(&dir.join(PAGES))?;
    let mut conn = recovered.connect("judge").await?;
    let mut checks = vec![real(&pages)];
    checks.push(readable(&mut conn).await?);
    checks.push(rows(&mut conn, &pages).await?);
    let found = match traffic_rows(&mut conn).await {
        Ok(found) => found,
        Err(e) => {
            checks.push(check("the orders can be read", false, e.why));
            return Ok(Judgement { checks, at: first(&pages) });
        }
    };
    let moment = moment(&logs, &claim.target)?;
    checks.push(moment_check(&moment, claim));
    checks.push(before(&logs, &found, &moment)?);
    checks.push(after(&logs, &found, &moment)?);
    checks.push(dense(&logs, &found));
    let last = logs.last(claim);
    checks.push(since_switch(&logs, &found, last));
    let taken = logs.orders.iter().filter(|l| l.generation >= last).count();
    checks.push(check("orders are taken again", taken > 0, format!("{taken} since the switch")));
    checks.extend(between(&logs, &found, last));
    checks.push(known(&logs, &found));
    checks.push(paid(&mut conn).await?);
    checks.push(loss(&logs, &found, claim, last).1);
    Ok(Judgement { checks, at: first(&pages) })
}

fn first(pages: &[PageLine]) -> Option<Time> {
    let at = |line: &PageLine| match line {
        PageLine::Damaged { at, .. } => Some(*at),
        PageLine::Plan { .. } => None,
    };
    pages.iter().filter_map(at).min()
}

/// Every page was refused by the server that held it.
fn real(pages: &[PageLine]) -> Check {
    let (mut all, mut refused) = (Vec::new(), 0);
    for line in pages {
        if let PageLine::Damaged { table, page, refused: said, .. } = line {
            all.push(format!("{table} {page}"));
            refused += usize::from(said.is_some());
        }
    }
    let detail =
        format!("{} pages damaged, {refused} refused by the server when it read them: {}", all.len(), all.join(", "));
    check("the fault was real", !all.is_empty() && refused == all.len(), detail)
}

/// Every table of the recovered database can be read to its end.
async fn readable(conn: &mut PgConnection) -> Result<Check> {
    let what = || "the judge cannot list the tables".to_string();
    let sql = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables \
               WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *conn).await.target(what)?;
    let mut bad = Vec::new();
    for table in &tables {
        // All columns as text, so that what lies out of line is read, too.
        if let Err(e) = sqlx::query(&format!("SELECT sum(length(t::text)) FROM {table} t")).fetch_one(&mut *conn).await
        {
            bad.push(format!("{table}: {}", describe(&e)));
        }
    }
    let detail = if bad.is_empty() { format!("{} tables", tables.len()) } else { bad.join("; ") };
    Ok(check("every page can be read", bad.is_empty() && !tables.is_empty(), detail))
}

/// What stood on the damaged pages is there as it was.
async fn rows(conn: &mut PgConnection, pages: &[PageLine]) -> Result<Check> {
    let (mut right, mut wrong) = (0usize, Vec::new());
    for line in pages {
        let PageLine::Damaged { table, columns, rows, .. } = line else { continue };
        // The table's name comes from our own log; it is checked all the same, because it becomes SQL.
        if !matches!(table.as_str(), "public.orders" | "public.customers") {
            return Err(Error::state(format!("the log of what rotted names a table {table:?}")));
        }
        let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
        let sql = format!("SELECT id, {} FROM {table} t WHERE id = ANY($1)", digest_sql("t", columns));
        let now: HashMap<i64, String> = match sqlx::query(&sql).bind(&ids).fetch_all(&mut *conn).await {
            Ok(now) => now.iter().map(|r| (r.get(0), r.get(1))).collect(),
            Err(e) => return Ok(check("rows of the damaged pages are right", false, describe(&e))),
        };
        for (id, digest) in rows {
            match now.get(id) == Some(digest) {
                true => right += 1,
                false => wrong.push((table.clone(), *id)),
            }
        }
    }
    let detail = match wrong.is_empty() {
        true => format!("{right} rows are as they were"),
        false => format!("{} rows are wrong or missing: {}", wrong.len(), some(&wrong)),
    };
    Ok(check("rows of the damaged pages are right", wrong.is_empty() && right > 0, detail))
}
