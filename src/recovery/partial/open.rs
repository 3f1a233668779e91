//! Opening the isolated shadow: paused before the commit of a DROP or TRUNCATE, it holds that table locked. Opened, the
//! unfinished transaction is rolled back there and the table can be read.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use crate::error::{Context, Error, Result};
use crate::postgres::connect::query_error;
use crate::postgres::user;
use crate::recovery::origin::Origin;
use crate::recovery::promote::end_recovery;
use crate::recovery::shadow::Shadow;

const FILE: &str = "opened.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Opened {
    /// First transaction id not given out when it was opened.
    next_transaction: String,
}

const NEXT: &str = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";

/// Ends the shadow's recovery where it stands. It stays isolated: socket only, nothing archived. It cannot be moved forward
/// afterwards.
///
/// # Errors
/// It does not end its recovery.
pub async fn open(shadow: &Shadow, name: &str, origin: &dyn Origin) -> Result<()> {
    let instance = shadow.instance()?;
    // The server asks for the histories of later timelines, so as to choose a new one.
    let service = origin.serve(&instance, &shadow.helper)?;
    let mut c = instance.database(name).connect_within(Duration::from_secs(10)).await?;
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    let recovering: bool = sqlx::query_scalar(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    if recovering {
        end_recovery(&mut c, &instance).await?;
    }
    drop(service);
    if recovering {
        let next: String = sqlx::query_scalar(NEXT).fetch_one(&mut c).await.map_err(|e| query_error(NEXT, &e))?;
        let text = serde_json::to_string(&Opened { next_transaction: next }).state(|| "opened.json".into())?;
        user::own_file(&shadow.root.join(FILE), &text, shadow.user()?.as_ref())?;
    }
    Ok(())
}

/// Refuses a shadow in which anything was written since it stood at its moment: those rows would be taken for old ones.
///
/// # Errors
/// Refused; or a query fails.
pub async fn untouched(shadow: &Shadow, c: &mut PgConnection) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    if sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))? {
        return Ok(());
    }
    let no = |why: &str| {
        Err(Error::refused(format!("the recovered instance in {:?} was promoted or written to", shadow.root.display()))
            .why(why.to_string())
            .hint("build another one at the same moment: breakglass pitr restore --to …"))
    };
    let Ok(text) = std::fs::read_to_string(shadow.root.join(FILE)) else {
        return no("rows written since would be taken for old ones");
    };
    let opened: Opened = serde_json::from_str(&text).state(|| format!("cannot understand {FILE}"))?;
    let sql = "SELECT count(*) FROM pg_catalog.generate_series($1::text::int8, \
               pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8 - 1) x \
               WHERE pg_catalog.pg_xact_status(x::text::xid8) <> 'aborted'";
    let n: i64 = sqlx::query_scalar(sql)
        .bind(&opened.next_transaction)
        .fetch_one(&mut *c)
        .await
        .map_err(|e| query_error(sql, &e))?;
    if n > 0 { no(&format!("{n} transactions wrote since it was opened")) } else { Ok(()) }
}
