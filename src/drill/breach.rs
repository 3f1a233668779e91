//! The drill of a breach: a stolen role with live sessions changes data, makes a second way in, and keeps coming back until it
//! cannot. Which role, what and when follows from a seed in this process's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::deletion;
use super::logs::digest_sql;
use super::random::Choices;
use super::release::Window;
use super::server::Server;
use super::service::{Service, now};
use super::shop::SUPERUSER;
use crate::error::{Context, Error, Result};
use crate::model::{Secret, Time};
use crate::postgres::connect::run;

/// File name of the intruder's log.
pub const INTRUDER: &str = "intruder.jsonl";
/// Roles of people, one of which is stolen.
pub const ROLES: [&str; 3] = ["shop_batch", "shop_reports", "shop_support"];
/// Secrets of the plan's table, and the word the umpire knows each by.
pub const SECRETS: [(&str, &str); 5] = [
    ("Database password", "database-password"),
    ("Session key", "session-key"),
    ("Provider tokens", "provider-tokens"),
    ("Pipeline tokens", "pipeline-tokens"),
    ("Backup key", "backup-key"),
];
/// Who may come in how: people need a password.
pub const RULES: &str = "local all postgres,shop_app trust\nlocal replication all trust\nlocal all all scram-sha-256\n";

/// How often the intruder tries to come back.
const AGAIN: Duration = Duration::from_millis(400);
/// How often it changes something more while it is in.
const TRICKLE: Duration = Duration::from_millis(1_500);

/// One line of the intruder's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum IntruderLine {
    /// What was decided, from which seed.
    Plan {
        /// The secret seed in hexadecimal.
        seed: String,
        /// When it was armed.
        armed: Time,
        /// The stolen role.
        stolen: String,
        /// The role it makes.
        back_door: String,
        /// The function and trigger it makes.
        function: String,
    },
    /// A session began.
    Session {
        /// When.
        at: Time,
        /// Role.
        role: String,
        /// Process of the server.
        pid: i32,
    },
    /// Rows were changed or deleted.
    Changed {
        /// Transaction, as text.
        xid: String,
        /// Table.
        table: String,
        /// Columns of the digest.
        columns: Vec<String>,
        /// Row id and digest of its former values.
        rows: Vec<(i64, String)>,
    },
    /// Something was made in the catalogue.
    Made {
        /// When.
        at: Time,
        /// What.
        what: String,
    },
    /// The sessions were cut.
    Cut {
        /// When that was noticed.
        at: Time,
    },
    /// It tried to come back; written when the answer changes.
    Login {
        /// When.
        at: Time,
        /// Role.
        role: String,
        /// Whether it was let in.
        let_in: bool,
    },
    /// A secret was replaced.
    Rotated {
        /// When.
        at: Time,
        /// Which, in the umpire's word.
        secret: String,
    },
}

/// What the shop has in addition in this drill: people's roles and a trigger that notes what they write.
pub fn extra_sql(key: &Secret) -> String {
    let mut sql = String::from(
        "CREATE FUNCTION note_access() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$\n\
         BEGIN INSERT INTO audit_log (actor, release, action, object, rows) VALUES \
         (session_user, '-', lower(TG_OP), TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 0); RETURN NULL; END $$;\n",
    );
    for table in ["customers", "products", "orders", "payments"] {
        sql.push_str(&format!(
            "CREATE TRIGGER access AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT \
             WHEN (session_user NOT IN ('postgres', 'shop_app')) EXECUTE FUNCTION note_access();\n"
        ));
    }
    for role in ROLES {
        let whose = match role {
            "shop_batch" => "nightly jobs; owner: the data team",
            "shop_reports" => "reports of finance; owner: finance",
            _ => "support desk, looks orders up; owner: head of support",
        };
        sql.push_str(&format!(
            "CREATE ROLE {role} LOGIN CREATEROLE PASSWORD '{}';\n\
             GRANT SELECT, UPDATE, DELETE, TRIGGER ON customers, products, orders, payments TO {role};\n\
             GRANT INSERT ON audit_log TO {role};\n\
             GRANT CREATE, USAGE ON SCHEMA public TO {role};\n\
             COMMENT ON ROLE {role} IS '{whose}';\n",
            password(key, role).expose()
        ));
    }
    sql
}

/// Password of a role: a function of the drill's passphrase, so that only who may read that can know it.
pub fn password(key: &Secret, role: &str) -> Secret {
    let sum = Sha256::digest(format!("{}:{role}", key.expose()).as_bytes());
    Secret::new(sum.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

struct Inner {
    log: Vec<IntruderLine>,
    choices: Choices,
}

/// The intruder.
pub struct Intruder {
    key: Secret,
    inner: Mutex<Inner>,
    armed: AtomicBool,
    over: AtomicBool,
}

struct Scheme {
    stolen: &'static str,
    back_door: String,
    password: Secret,
    function: String,
    modulus: u64,
    rest: u64,
    order: Vec<u8>,
    gaps: Vec<Duration>,
}

impl Intruder {
    /// Draws the seed.
    ///
    /// # Errors
    /// State when the operating system gives no random bytes.
    pub fn new(key: Secret) -> Result<Arc<Self>> {
        let inner = Mutex::new(Inner { log: Vec::new(), choices: Choices::secret()? });
        Ok(Arc::new(Self { key, inner, armed: AtomicBool::new(false), over: AtomicBool::new(false) }))
    }
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn note(&self, line: IntruderLine) {
        self.lock().log.push(line);
    }
    /// Whether it was armed.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }
    /// Opens the log, and ends the intruder. For the judge only.
    pub fn open(&self) -> Vec<IntruderLine> {
        self.over.store(true, Ordering::SeqCst);
        self.lock().log.clone()
    }

    /// It begins at a random moment of the window. A second call does nothing.
    pub fn arm(self: &Arc<Self>, service: &Arc<Service>, window: Window) {
        if self.armed.swap(true, Ordering::SeqCst) {
            return;
        }
        service.release.deploy();
        let (delay, scheme) = self.draw(window);
        let (intruder, service) = (self.clone(), service.clone());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let mut begun = false;
            while !intruder.over.load(Ordering::SeqCst) {
                match intruder.break_in(&service, &scheme, &mut begun).await {
                    Ok(()) => return,
                    Err(e) => tracing::debug!("the intruder failed: {e}"),
                }
                if begun {
                    intruder.come_back(&service, &scheme).await;
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    fn draw(&self, window: Window) -> (Duration, Scheme) {
        let mut inner = self.lock();
        let c = &mut inner.choices;
        let stolen = c.one(&ROLES).copied().unwrap_or(ROLES[0]);
        let names = ["svc_metrics", "svc_backup", "monitor_agent", "etl_sync", "replica_check"];
        let back_door = format!("{}_{}", c.one(&names).copied().unwrap_or(names[0]), c.between(2, 9));
        let functions = ["refresh_totals", "normalize_address", "sync_stats"];
        let function = c.one(&functions).copied().unwrap_or(functions[0]).to_string();
        let password = Secret::new(format!("{:016x}{:016x}", c.below(u64::MAX), c.below(u64::MAX)));
        let mut order = vec![0, 1, 2, 3];
        c.shuffle(&mut order);
        let gaps = order.iter().map(|_| Duration::from_millis(c.between(200, 900))).collect();
        let modulus = c.between(4, 7);
        let rest = c.below(modulus);
        let delay = Duration::from_millis(c.between(window.from_ms, window.to_ms.max(window.from_ms)));
        let line = IntruderLine::Plan {
            seed: c.open(),
            armed: now(),
            stolen: stolen.into(),
            back_door: back_door.clone(),
            function: function.clone(),
        };
        inner.log.push(line);
        (delay, Scheme { stolen, back_door, password, function, modulus, rest, order, gaps })
    }

    async fn session(&self, server: &Server, role: &str, password: &Secret) -> Result<PgConnection> {
        let mut c = server.with_user(role).connect_as("psql", password.expose()).await?;
        let what = || "cannot begin a session".to_string();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut c).await.target(what)?;
        self.note(IntruderLine::Session { at: now(), role: role.into(), pid });
        Ok(c)
    }

    /// Until it is cut off, which is an error.
    async fn break_in(&self, service: &Service, s: &Scheme, begun: &mut bool) -> Result<()> {
        let server = service.server().await;
        let mut quiet = self.session(&server, s.stolen, &password(&self.key, s.stolen)).await?;
        let mut c = self.session(&server, s.stolen, &password(&self.key, s.stolen)).await?;
        *begun = true;
        let mine = format!("id % {} = {}", s.modulus, s.rest);
        for (act, gap) in s.order.iter().zip(&s.gaps) {
            match act {
                0 => {
                    let set = "UPDATE customers SET address = 'PO Box 7, ' || region";
                    self.change(&mut c, "customers", &["address".into()], set, &mine).await?;
                }
                1 => {
                    let rows = format!("{mine} AND writer IS NULL");
                    self.change(&mut c, "payments", &deletion::columns(), "DELETE FROM payments", &rows).await?;
                }
                2 => self.make_role(&mut c, s).await?,
                _ => self.make_trigger(&mut c, s).await?,
            }
            tokio::time::sleep(*gap).await;
        }
        let mut back = self.session(&server, &s.back_door, &s.password).await?;
        let mut n = 0;
        while !self.over.load(Ordering::SeqCst) {
            n += 1;
            let rows = format!("id % 1009 = {n} AND NOT ({mine})");
            let set = "UPDATE customers SET address = 'PO Box 7, ' || region";
            self.change(&mut back, "customers", &["address".into()], set, &rows).await?;
            // The quiet session notices when it is cut, too.
            sqlx::query("SELECT 1").execute(&mut quiet).await.target(|| "cut off".into())?;
            tokio::time::sleep(TRICKLE).await;
        }
        Ok(())
    }

    async fn change(
        &self,
        c: &mut PgConnection,
        table: &str,
        columns: &[String],
        statement: &str,
        rows: &str,
    ) -> Result<()> {
        let what = || "cannot change rows".to_string();
        let mut tx = c.begin().await.target(what)?;
        let digest = digest_sql("t", columns);
        let sql = format!("SELECT id, {digest} FROM {table} t WHERE {rows} ORDER BY id FOR NO KEY UPDATE");
        let old = sqlx::query(&sql).fetch_all(&mut *tx).await.target(what)?;
        sqlx::query(&format!("{statement} WHERE {rows}")).execute(&mut *tx).await.target(what)?;
        let xid: String =
            sqlx::query_scalar("SELECT pg_current_xact_id()::text").fetch_one(&mut *tx).await.target(what)?;
        let rows: Vec<(i64, String)> = old.iter().map(|r| (r.get(0), r.get(1))).collect();
        tx.commit().await.target(what)?;
        self.note(IntruderLine::Changed { xid, table: table.into(), columns: columns.to_vec(), rows });
        Ok(())
    }

    async fn make_role(&self, c: &mut PgConnection, s: &Scheme) -> Result<()> {
        let sql = format!(
            "CREATE ROLE {0} LOGIN PASSWORD '{1}'; GRANT {2} TO {0}",
            s.back_door,
            s.password.expose(),
            s.stolen
        );
        run(c, &sql).await?;
        self.note(IntruderLine::Made { at: now(), what: format!("role {}", s.back_door) });
        Ok(())
    }

    async fn make_trigger(&self, c: &mut PgConnection, s: &Scheme) -> Result<()> {
        let f = &s.function;
        let sql = format!(
            "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
             PERFORM pg_notify('{f}', NEW.id::text); RETURN NULL; END $$; \
             CREATE TRIGGER {f} AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION {f}()"
        );
        run(c, &sql).await?;
        self.note(IntruderLine::Made { at: now(), what: format!("function and trigger {f}") });
        Ok(())
    }

    /// Tries the old ways in, again and again.
    async fn come_back(&self, service: &Service, s: &Scheme) {
        self.note(IntruderLine::Cut { at: now() });
        let ways = [(s.stolen.to_string(), password(&self.key, s.stolen)), (s.back_door.clone(), s.password.clone())];
        let mut last = [None, None];
        while !self.over.load(Ordering::SeqCst) {
            for ((role, password), last) in ways.iter().zip(&mut last) {
                let server = service.server().await.with_user(role);
                let let_in = server.connect_as("psql", password.expose()).await.is_ok();
                if *last != Some(let_in) {
                    *last = Some(let_in);
                    self.note(IntruderLine::Login { at: now(), role: role.clone(), let_in });
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What the settings of the drill call: `rotate SECRET`, `maintenance on`.
    ///
    /// # Errors
    /// Usage when the words are none of these; target when the database refuses.
    pub async fn obey(&self, service: &Service, words: &[String]) -> Result<Value> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["maintenance", state @ ("on" | "off")] => {
                service.maintenance(*state == "on").await;
                Ok(Value::Null)
            }
            ["rotate", secret] if SECRETS.iter().any(|(_, word)| word == secret) => {
                if *secret == "database-password" {
                    let mut fresh = Choices::secret()?;
                    let mut c = service.server().await.with_user(SUPERUSER).connect("rotation").await?;
                    for role in ROLES {
                        let new = format!("{:016x}{:016x}", fresh.below(u64::MAX), fresh.below(u64::MAX));
                        let sql = format!("ALTER ROLE {role} PASSWORD '{new}'");
                        run(&mut c, &sql).await?;
                    }
                }
                self.note(IntruderLine::Rotated { at: now(), secret: (*secret).into() });
                Ok(Value::from(format!("{secret} is replaced")))
            }
            _ => Err(Error::usage(format!("this drill does not know {:?}", words.join(" ")))),
        }
    }
}
