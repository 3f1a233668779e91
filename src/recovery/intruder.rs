//! Somebody inside: which roles are suspect, what they wrote, and what they left behind in the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::locate::audit::find_trail;
use super::tables::{require_commit_times, user_tables};
use crate::error::{Context, Result};
use crate::model::Time;
use crate::postgres::connect::{query_error, quote_ident};

/// A role that may be an intruder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Name.
    pub role: String,
    /// Sessions it has now.
    pub sessions: i64,
    /// Statements that changed rows, by the audit log, since.
    pub writes: i64,
    /// When it was made or changed last, if that was since.
    pub changed: Option<Time>,
    /// What its comment in the catalogue says; an intruder may have written it.
    pub comment: Option<String>,
}

impl Suspect {
    /// Why, one line.
    pub fn why(&self) -> String {
        let mut why = Vec::new();
        if let Some(at) = self.changed {
            why.push(format!("made or changed at {} UTC", at.date_hms()));
        }
        if self.writes > 0 {
            why.push(format!("changed rows by hand, {} statements", self.writes));
        }
        why.push(format!("{} sessions", self.sessions));
        if let Some(said) = &self.comment {
            why.push(format!("its comment says: {said}"));
        }
        format!("{:<18} {}", self.role, why.join(", "))
    }
}

/// SQL: whether a transaction id, which may have been frozen, was committed since $1 (microseconds).
const SINCE: &str = "CASE WHEN {x}::text::int8 >= 3 THEN \
    coalesce(pg_catalog.pg_xact_commit_timestamp({x}) >= pg_catalog.to_timestamp($1::numeric / 1000000), false) ELSE false END";

fn since(column: &str) -> String {
    SINCE.replace("{x}", column)
}

/// Roles that are neither the application's nor ours and that wrote, or were made or changed, since a time.
///
/// # Errors
/// A query fails, or commit times are not recorded.
pub async fn suspects(c: &mut PgConnection, from: Time, trusted: &[String]) -> Result<Vec<Suspect>> {
    require_commit_times(c).await?;
    let trail = find_trail(&user_tables(c).await?);
    // Audit rows name who wrote; the session's role where a trigger fills them in.
    let writes = match &trail {
        Some(t) => {
            let who: Vec<String> = t.who.iter().map(|w| format!("a.{} = r.rolname", quote_ident(w))).collect();
            let sql = format!(
                "(SELECT count(*) FROM ONLY {} a WHERE ({}) AND {})",
                t.table.sql,
                who.join(" OR "),
                since("a.xmin")
            );
            sql
        }
        None => "0::int8".into(),
    };
    let changed = since("r.xmin");
    let sql = format!(
        "SELECT r.rolname::text AS role, {writes} AS writes, {changed} AS changed, \
           CASE WHEN {changed} THEN (extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(r.xmin)) * 1000000)::int8 END AS at, \
           (SELECT count(*) FROM pg_catalog.pg_stat_activity s WHERE s.usesysid = r.oid) AS sessions, \
           pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment \
         FROM pg_catalog.pg_authid r WHERE r.rolname !~ '^pg_' AND r.oid <> 10 AND r.rolname <> current_user \
           AND r.rolname <> ALL ($2) ORDER BY changed DESC, writes DESC, 1"
    );
    let rows = sqlx::query(&sql).bind(from.micros()).bind(trusted).fetch_all(&mut *c).await;
    let rows = rows.map_err(|e| query_error(&sql, &e))?;
    let all = rows.iter().map(|r| Suspect {
        role: r.get("role"),
        sessions: r.get("sessions"),
        writes: r.get("writes"),
        changed: r.get::<Option<i64>, _>("at").map(Time::from_micros),
        comment: r.get("comment"),
    });
    Ok(all.filter(|s| s.changed.is_some() || s.writes > 0).collect())
}

/// A transaction of an intruder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Transaction.
    pub xid: u32,
    /// When it was committed.
    pub at: Time,
    /// What is known of it.
    pub what: String,
}

/// Transactions of these roles since a time: by the audit log, and by what of the catalogue is theirs or is they. In the order
/// of their commits.
///
/// # Errors
/// A query fails.
pub async fn acts(c: &mut PgConnection, from: Time, roles: &[String]) -> Result<Vec<Act>> {
    require_commit_times(c).await?;
    let mut parts = vec![
        format!(
            "SELECT xmin, 'role ' || rolname FROM pg_catalog.pg_authid WHERE rolname = ANY ($2) AND {}",
            since("xmin")
        ),
        format!(
            "SELECT m.xmin, 'member ' || m.member::regrole || ' of ' || m.roleid::regrole FROM pg_catalog.pg_auth_members m \
             WHERE (m.member::regrole::text = ANY ($2) OR m.grantor::regrole::text = ANY ($2)) AND {}",
            since("m.xmin")
        ),
        format!(
            "SELECT xmin, 'function ' || oid::regprocedure FROM pg_catalog.pg_proc WHERE proowner::regrole::text = ANY ($2) AND {}",
            since("xmin")
        ),
        format!(
            "SELECT t.xmin, 'trigger ' || t.tgname || ' on ' || t.tgrelid::regclass FROM pg_catalog.pg_trigger t \
             WHERE NOT t.tgisinternal AND {}",
            since("t.xmin")
        ),
        format!(
            "SELECT xmin, 'relation ' || oid::regclass FROM pg_catalog.pg_class WHERE relowner::regrole::text = ANY ($2) AND {}",
            since("xmin")
        ),
    ];
    if let Some(t) = find_trail(&user_tables(c).await?) {
        let who: Vec<String> = t.who.iter().map(|w| format!("{} = ANY ($2)", quote_ident(w))).collect();
        parts.push(format!(
            "SELECT xmin, 'rows, by the audit log' FROM ONLY {} WHERE ({}) AND {}",
            t.table.sql,
            who.join(" OR "),
            since("xmin")
        ));
    }
    let sql = format!(
        "SELECT x::int8 AS xid, (extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(x::xid)) * 1000000)::int8 AS at, \
           string_agg(DISTINCT what, ', ' ORDER BY what) AS what \
         FROM (SELECT xmin::text, what FROM ({}) b(xmin, what)) a(x, what) GROUP BY x ORDER BY at, 1",
        parts.join(" UNION ALL ")
    );
    let rows = sqlx::query(&sql).bind(from.micros()).bind(roles).fetch_all(&mut *c).await;
    let rows = rows.map_err(|e| query_error(&sql, &e))?;
    let what = || "cannot read what the roles did".to_string();
    rows.iter()
        .map(|r| {
            let xid = u32::try_from(r.try_get::<i64, _>("xid").target(what)?).target(what)?;
            Ok(Act { xid, at: Time::from_micros(r.get("at")), what: r.get("what") })
        })
        .collect()
}

/// Tables with rows that these transactions wrote last, and how many.
///
/// # Errors
/// A query fails.
pub async fn marks(c: &mut PgConnection, xids: &[u32], skip: Option<&str>) -> Result<BTreeMap<String, u64>> {
    let ids: Vec<i64> = xids.iter().map(|x| i64::from(*x)).collect();
    let mut out = BTreeMap::new();
    for table in user_tables(c).await? {
        if skip == Some(table.family.as_str()) {
            continue;
        }
        let sql = format!("SELECT count(*) FROM ONLY {} WHERE xmin::text::int8 = ANY ($1)", table.sql);
        let n: i64 = sqlx::query_scalar(&sql).bind(&ids).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
        if n > 0 {
            *out.entry(table.family.clone()).or_default() += u64::try_from(n).unwrap_or(0);
        }
    }
    Ok(out)
}

/// The audit log's table, when there is one.
///
/// # Errors
/// A query fails.
pub async fn trail_name(c: &mut PgConnection) -> Result<Option<String>> {
    Ok(find_trail(&user_tables(c).await?).map(|t| t.table.family))
}

/// Something in the catalogue that gives somebody power.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// `role`, `member`, `function`, `trigger`, `event trigger`, `extension`, `setting`, `grant`, `policy`, `server`, `publication`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Definition: what must be the same on both sides.
    pub detail: String,
    /// Statement that takes it away; none where a person has to decide.
    pub drop: Option<String>,
}

/// Whether an attribute may log in is left out: isolation changes that.
const OBJECTS: &str = "
SELECT 'role' AS kind, rolname::text AS name,
       concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
         CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
         CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
         CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END) AS detail,
       format('DROP OWNED BY %1$I; DROP ROLE %1$I', rolname) AS drop
FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_'
UNION ALL SELECT 'member', format('%s of %s', m.member::regrole, m.roleid::regrole), m.admin_option::text,
       format('REVOKE %s FROM %s', m.roleid::regrole, m.member::regrole)
FROM pg_catalog.pg_auth_members m WHERE m.roleid::regrole::text !~ '^pg_' OR m.member::regrole::text !~ '^pg_'
UNION ALL SELECT 'function', p.oid::regprocedure::text, concat_ws(' ', p.proowner::regrole::text, p.prosecdef::text, p.proconfig::text, p.proacl::text, p.prosrc),
       format('DROP FUNCTION %s', p.oid::regprocedure)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(temp|toast)'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL SELECT 'trigger', format('%s on %s', t.tgname, t.tgrelid::regclass), pg_catalog.pg_get_triggerdef(t.oid) || t.tgenabled::text,
       format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
UNION ALL SELECT 'event trigger', evtname::text, evtfoid::regproc::text || ' ' || evtevent::text || evtenabled::text, format('DROP EVENT TRIGGER %I', evtname)
FROM pg_catalog.pg_event_trigger
UNION ALL SELECT 'extension', extname::text, extversion, format('DROP EXTENSION %I', extname) FROM pg_catalog.pg_extension
UNION ALL SELECT 'setting', coalesce((SELECT datname::text FROM pg_catalog.pg_database WHERE oid = s.setdatabase), 'all databases') || ' '
       || CASE WHEN s.setrole = 0 THEN 'all roles' ELSE s.setrole::regrole::text END, s.setconfig::text, NULL
FROM pg_catalog.pg_db_role_setting s
UNION ALL SELECT 'grant', c.oid::regclass::text, coalesce(c.relacl::text, ''), NULL
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(temp|toast)'
UNION ALL SELECT 'grant', 'schema ' || nspname, nspowner::regrole::text || coalesce(nspacl::text, ''), NULL
FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_(temp|toast)'
UNION ALL SELECT 'grant', 'database ' || datname, datdba::regrole::text || coalesce(datacl::text, ''), NULL FROM pg_catalog.pg_database
UNION ALL SELECT 'policy', format('%s on %s', polname, polrelid::regclass), polcmd::text, format('DROP POLICY %I ON %s', polname, polrelid::regclass)
FROM pg_catalog.pg_policy
UNION ALL SELECT 'server', srvname::text, coalesce(srvoptions::text, ''), NULL FROM pg_catalog.pg_foreign_server
UNION ALL SELECT 'publication', pubname::text, pubowner::regrole::text, format('DROP PUBLICATION %I', pubname) FROM pg_catalog.pg_publication
ORDER BY 1, 2, 3";

/// Everything in the catalogue that gives somebody power.
///
/// # Errors
/// The query fails.
pub async fn objects(c: &mut PgConnection) -> Result<BTreeSet<Object>> {
    let rows = sqlx::query(OBJECTS).fetch_all(&mut *c).await.map_err(|e| query_error("the catalogue", &e))?;
    let object = |r: &sqlx::postgres::PgRow| Object {
        kind: r.get("kind"),
        name: r.get("name"),
        detail: r.get::<Option<String>, _>("detail").unwrap_or_default(),
        drop: r.get("drop"),
    };
    Ok(rows.iter().map(object).collect())
}

/// A difference between the live catalogue and the clean one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// For people.
    pub what: String,
    /// What takes it away, in order; none where a person has to decide.
    pub cure: Option<String>,
    /// Where in the order: what depends comes before what it depends on.
    rank: u8,
}

/// What the live catalogue has that the clean one has not, or has otherwise; in the order in which it is taken away.
pub fn leftovers(live: &BTreeSet<Object>, clean: &BTreeSet<Object>) -> Vec<Leftover> {
    let key = |o: &Object| (o.kind.clone(), o.name.clone());
    let before: BTreeMap<_, _> = clean.iter().map(|o| (key(o), o)).collect();
    let after: BTreeMap<_, _> = live.iter().map(|o| (key(o), o)).collect();
    let rank = |kind: &str| match kind {
        "trigger" | "event trigger" | "policy" => 0,
        "function" => 1,
        "extension" | "publication" => 2,
        "member" => 3,
        "role" => 4,
        _ => 5,
    };
    let mut out = Vec::new();
    for (k, o) in &after {
        let name = format!("{} {}", o.kind, o.name);
        let left = match before.get(k) {
            None => Leftover { what: format!("new: {name}"), cure: o.drop.clone(), rank: rank(&o.kind) },
            Some(b) if b.detail != o.detail => {
                let cure = (o.kind == "role").then(|| format!("ALTER ROLE {} {}", quote_ident(&o.name), b.detail));
                Leftover { what: format!("changed: {name}"), cure, rank: rank(&o.kind) }
            }
            Some(_) => continue,
        };
        out.push(left);
    }
    for k in before.keys().filter(|k| !after.contains_key(*k)) {
        out.push(Leftover { what: format!("gone: {} {}", k.0, k.1), cure: None, rank: 9 });
    }
    out.sort_by(|a, b| (a.rank, &a.what).cmp(&(b.rank, &b.what)));
    out
}
