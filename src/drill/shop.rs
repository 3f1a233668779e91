//! The shop: customers, products, orders, payments and an audit log, made up from a seed.

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::error::{Context, Result};
use crate::model::Time;

/// Name of the shop's database.
pub const DATABASE: &str = "shop";
/// Role that owns the cluster.
pub const SUPERUSER: &str = "postgres";
/// Role the service and its traffic work as; it may not change the schema.
pub const APP_ROLE: &str = "shop_app";
/// The release that is good and runs when the drill begins.
pub const GOOD_RELEASE: &str = "2026.11.2";

const SQL: &str = include_str!("shop.sql");

/// How many rows there are before the traffic begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Customers.
    pub customers: u64,
    /// Products.
    pub products: u64,
    /// Orders; payments and audit rows follow from them.
    pub orders: u64,
}

impl Scale {
    /// `--size N`: N times 60 000 orders, about 40 MB each. 0 is a toy of 2 000 orders for a quick look.
    pub fn of(size: u32) -> Self {
        match u64::from(size) {
            0 => Self { customers: 400, products: 60, orders: 2_000 },
            n => Self { customers: 12_000 * n, products: 600 * n.min(20), orders: 60_000 * n },
        }
    }
}

/// Creates and fills the shop in the connected, empty database; returns the size of the database in bytes.
///
/// The rows are a function of `scale`, `seed` and `now` (the time the newest order is from).
///
/// # Errors
/// `Target` when the database refuses; nothing is left then, it is one transaction.
pub async fn load(conn: &mut PgConnection, scale: Scale, seed: u32, now: Time) -> Result<u64> {
    let sql = SQL
        .replace("{seed}", &seed.to_string())
        .replace("{customers}", &scale.customers.to_string())
        .replace("{products}", &scale.products.to_string())
        .replace("{orders}", &scale.orders.to_string())
        .replace("{now}", &(now.micros() / 1_000_000).to_string())
        .replace("{release}", GOOD_RELEASE);
    // One multi-statement query is one transaction for the server.
    sqlx::raw_sql(&sql).execute(&mut *conn).await.target(|| "cannot load the shop".into())?;
    let row = sqlx::query("SELECT pg_database_size(current_database())")
        .fetch_one(conn)
        .await
        .target(|| "cannot read the size of the database".into())?;
    Ok(u64::try_from(row.get::<i64, _>(0)).unwrap_or(0))
}
