//! `pitr restore`: an isolated instance beside the damaged one, recovered to just before a moment.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Command, ValueEnum};
use futures::future::BoxFuture;
use sqlx::postgres::PgConnection;

use super::along::{Along, first_damaged, log_bytes, of_cluster, passed_over_json, predicted, source, warnings};
use super::moment::{Moment, moment};
use super::offered::{first_remembered, remembered};
use super::pitr_locate::{Search, search};
use super::target::{Follow, instances_dir, now, parse_args, seen, server_user, superuser};
use super::{Action, Ctx, Done, Preview, Spec, backend, other_base, pitr_overwrite, pitr_tail, reach, target};
use crate::backup::damage::is_damage;
use crate::config::Backend;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::incident::moment as on_record;
use crate::model::event::Event;
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::model::target::{Identity, RecoveryTarget};
use crate::postgres::{Database, identity};
use crate::recovery::backend::{Goal, Order, Verdict};
use crate::recovery::locate::group_of;
use crate::recovery::predict;
use crate::recovery::promote::{local_instance, source_settings as settings_of};
use crate::recovery::range::{Route, Stop};
use crate::recovery::shadow::building::at_work;
use crate::recovery::shadow::{Delta, NAMED, Request, Shadow, unfinished_in, ways_of};
use crate::recovery::verify::committed_here;
use crate::recovery::{sequences, tables, takeover, typed};

/// The action `pitr restore`.
pub struct Restore;

/// Where to recover to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Into {
    /// An instance of its own beside the damaged one, which is not touched
    Beside,
    /// Over the damaged one, by those who run it; what was committed after the moment is gone for good
    Place,
}

/// Whether these arguments overwrite the damaged database.
pub fn overwrites(args: &[String]) -> bool {
    args.iter().any(|a| a == "--into=place") || args.windows(2).any(|w| w[0] == "--into" && w[1] == "place")
}

#[derive(Debug, Clone, clap::Args)]
struct Args {
    #[command(flatten)]
    moment: Moment,
    /// Where to
    #[arg(long, value_enum, default_value = "beside")]
    into: Into,
    /// Folder to build in; must not exist. Default: a new one in postgres.instances_dir, or beside the source
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    along: Along,
    /// Build although the disk may be too small
    #[arg(long)]
    ignore_space: bool,
    /// Rewrite --dir where it differs instead of making everything anew: the folder of an earlier recovery, or the data
    /// directory of this cluster when its server is down
    #[arg(long, requires = "dir")]
    delta: bool,
    /// With --delta: the name of the folder, when what is in it was in service or could be; a data directory is moved away
    #[arg(long, value_name = "NAME", requires = "delta")]
    give_up: Option<String>,
    /// With --into place: ask once more although an earlier request is not known to have ended; say why
    #[arg(long, value_name = "REASON")]
    again: Option<String>,
    /// With --into place: how long to follow it before it counts as stuck
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    deadline: Option<Duration>,
}

impl Action for Restore {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr restore",
            about: "Recover to just before a moment, beside the damaged database",
            risk: Risk::Change,
            fallback: "Restore the base backup into a new folder, set recovery_target_…, recovery_target_inclusive = off, \
                       recovery_target_action = pause, archive_mode = off, touch recovery.signal, start it on a socket.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("restore"))
    }
    fn confirms(&self) -> bool {
        true
    }
    fn risk(&self, args: &[String]) -> Risk {
        if overwrites(args) { Risk::Destroy } else { Risk::Change }
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args = self.given(args)?;
            let (to, after) = moment(&args.moment)?;
            if placed(ctx, &args)? == Into::Place {
                return pitr_overwrite::preview(ctx, &wanted(&args, to, after)).await;
            }
            let source = source(ctx).await?;
            let recovery = backend::recovery(ctx).await?;
            if let Some(id) = &source {
                of_cluster(&recovery, id).await?;
            }
            let goal = args.along.goal(ctx, source.as_ref(), (&to, after), Vec::new());
            let way = backend::way(ctx, &*recovery, &goal).await?;
            let bytes = way.backup.plain_bytes();
            let untouched = if args.gives_up().is_some() { "" } else { "; the damaged database is not touched" };
            let mut lines = warnings(&way);
            lines.extend([
                format!(
                    "base backup {} of {}, {bytes} bytes, timeline {}",
                    way.backup.id, way.backup.finished_at, way.timeline
                ),
                into_line(&args, &root(ctx, &args, source.as_ref())?),
                format!("replays the log {}{untouched}", to.until(after)),
            ]);
            let root = root(ctx, &args, source.as_ref())?;
            lines.push(predicted(&way, &root));
            lines.extend(left_beside(&args, &root, (&to, after)));
            if to == RecoveryTarget::Latest {
                lines.push(pitr_tail::behind(ctx, &*recovery, (way.timeline, way.log_end)).await.line);
            }
            lines.extend(belongs_to(&to, &way));
            lines.extend(keeps(ctx, &to, &way));
            if let Some(c) = &way.first_lost {
                lines.push(format!("first transaction not replayed: {} at {}, position {}", c.xid, c.at, c.lsn));
            }
            let facts =
                source.iter().map(|s| Event::TargetSeen { role: "source".into(), identity: s.clone() }).collect();
            Ok(Preview { lines, target: source, facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &self.given(args)?).await })
    }
}

impl Restore {
    /// The arguments, a folder among them as it is called everywhere: a server changes its own working directory.
    fn given(&self, args: &[String]) -> Result<Args> {
        let mut args: Args = parse_args(self.arguments(), args)?;
        if let Some(dir) = &args.dir {
            let what = || format!("cannot use the folder {:?}", dir.display());
            // What is reused is moved: itself, not a link to it.
            let whole = if args.delta && dir.exists() { dir.canonicalize() } else { std::path::absolute(dir) };
            args.dir = Some(whole.state(what)?);
        }
        Ok(args)
    }
}

impl Args {
    /// Where what is reused comes from.
    fn reuse(&self) -> Option<Delta> {
        let dir = self.dir.as_ref().filter(|_| self.delta)?;
        if dir.join("PG_VERSION").exists() { Some(Delta::Moved(dir.clone())) } else { Some(Delta::Same) }
    }
    /// The name of the cluster that is given up for it.
    fn gives_up(&self) -> Option<String> {
        self.reuse()?.gives_up(self.dir.as_deref()?)
    }
}

fn into_line(args: &Args, root: &std::path::Path) -> String {
    let into = root.display();
    match args.reuse() {
        None => format!("into {into}"),
        Some(Delta::Same) => {
            format!("into {into}, which is rewritten where it differs: the recovery in it is replaced")
        }
        Some(Delta::Moved(old)) => format!(
            "into {into}: MOVES the data directory {} there and rewrites it where it differs; as it is now it is gone then",
            old.display()
        ),
    }
}

/// What is on record as damage and stays in a recovery to this moment, for people.
fn keeps(ctx: &Ctx, to: &RecoveryTarget, way: &Route) -> Option<String> {
    let at = match to {
        RecoveryTarget::Time(t) => Some(*t),
        _ => way.first_lost.as_ref().map(|c| c.at),
    };
    on_record::warning(&ctx.incident.as_ref()?.facts, to, at)
}

/// Where it goes, if whoever recovers can do that.
///
/// # Errors
/// Refused, with what it can do.
fn placed(ctx: &Ctx, args: &Args) -> Result<Into> {
    let recoverer = ctx.settings.backend;
    let in_place = recoverer == Backend::Supabase;
    match (args.into, in_place) {
        (Into::Place, true) | (Into::Beside, false) => {}
        (Into::Beside, true) => {
            return Err(Error::refused("Supabase cannot build an instance beside the damaged database")
                .why("to a moment it restores in place only: what was committed after it is gone for good")
                .hint("into a new project: dashboard, Database, Backups, Restore to new project")
                .hint("to overwrite the database: --into place, once the project's reference was typed"));
        }
        (Into::Place, false) => {
            return Err(Error::refused(format!("{} never overwrites the damaged database", recoverer.word()))
                .why("it is the evidence, and the way back")
                .hint("recover beside it (--into beside), verify there, then breakglass pitr promote"));
        }
    }
    if args.into == Into::Place && args.along.given() {
        return Err(Error::usage("--timeline and --backup belong to --into beside").hint("leave them out"));
    }
    if args.into == Into::Beside && (args.again.is_some() || args.deadline.is_some()) {
        return Err(Error::usage("--again and --deadline belong to --into place").hint("leave them out"));
    }
    if let Some(reason) = &args.again
        && reason.trim().is_empty()
    {
        return Err(Error::usage("--again needs a reason").hint("say how you know that no restore is going on"));
    }
    Ok(args.into)
}

fn wanted(args: &Args, to: RecoveryTarget, after: bool) -> pitr_overwrite::Wanted {
    pitr_overwrite::Wanted { to, after, again: args.again.clone(), deadline: args.deadline }
}

/// A sub-transaction cannot be a target of PostgreSQL's own; the transaction it belongs to is.
fn belongs_to(to: &RecoveryTarget, way: &Route) -> Option<String> {
    let RecoveryTarget::Xid(text) = to else { return None };
    let wanted: u32 = text.parse().ok()?;
    let c = way.first_lost.as_ref().filter(|c| c.subxids.contains(&wanted))?;
    Some(format!("{wanted} is a sub-transaction of {}, which is what recovery stops before", c.xid))
}

/// What other recoveries left beside the folder that this one goes into, where nobody named that: they take room, and one may be
/// what a person wants to go on with.
fn left_beside(args: &Args, root: &std::path::Path, (to, after): (&RecoveryTarget, bool)) -> Vec<String> {
    const MOST: usize = 3;
    let Some(folder) = root.parent().filter(|_| args.dir.is_none()) else { return Vec::new() };
    let left = unfinished_in(folder);
    let mut lines = Vec::new();
    for dir in left.iter().take(MOST) {
        if let Some(by) = at_work(dir) {
            lines.push(format!("{}: {by}", dir.display()));
            continue;
        }
        lines.push(format!("a recovery that is not finished lies in {}: it was broken off", dir.display()));
        lines.extend(ways_of(dir, to, after, args.along.timeline).into_iter().map(|way| format!("  {way}")));
    }
    if left.len() > MOST {
        lines.push(format!("and {} more in {}", left.len() - MOST, folder.display()));
    }
    lines
}

fn root(ctx: &Ctx, args: &Args, source: Option<&Identity>) -> Result<PathBuf> {
    // A data directory that is reused is moved into a folder made for it.
    let moved = matches!(args.reuse(), Some(Delta::Moved(_)));
    match args.dir.as_ref().filter(|_| !moved) {
        Some(dir) => {
            std::path::absolute(dir).map_err(|e| Error::usage(format!("{:?} is not a folder", dir.display())).why(e))
        }
        None => {
            let stamp = now().date_hms().replace([' ', ':', '-'], "");
            // One that is moved stays on its file system where nothing else is said.
            let beside = || Some(args.dir.as_ref().filter(|_| moved)?.parent()?.join("breakglass"));
            let folder = instances_dir(ctx, first_damaged(ctx).or(source)).or_else(|e| beside().ok_or(e))?;
            let first = folder.join(format!("{NAMED}{stamp}"));
            // What a recovery that died this very second left behind is in the way of its repetition, and never overwritten.
            let others = (2..).map(|n| PathBuf::from(format!("{}-{n}", first.display())));
            Ok(std::iter::once(first.clone()).chain(others.take(1000)).find(|d| !d.exists()).unwrap_or(first))
        }
    }
}

/// All transactions of the act that the target belongs to, while the source can still tell.
async fn suspects(ctx: &Ctx, to: &RecoveryTarget, source: Option<&Identity>) -> Vec<u32> {
    if let Some(xids) = remembered(ctx, to) {
        return xids;
    }
    if source.is_none() || !matches!(to, RecoveryTarget::Xid(_)) {
        return Vec::new();
    }
    let all = Search { statement_timeout: Duration::from_secs(300), ..Search::default() };
    match search(ctx, &all).await {
        Ok(found) => group_of(&found.located, to).map(|g| g.xids()).unwrap_or_default(),
        Err(e) => {
            ctx.out.line(&format!("the other transactions of this act are not known: {}", e.what));
            Vec::new()
        }
    }
}

/// Nothing is moved away under a server, also not under one whose processes are not seen from here.
fn not_in_service(args: &Args, live: Option<&Identity>) -> Result<()> {
    let (Some(dir), Some(data)) =
        (args.dir.as_ref().filter(|_| args.delta), live.and_then(|l| l.data_directory.as_ref()))
    else {
        return Ok(());
    };
    let data = std::path::Path::new(data);
    let real = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    if real != *dir && real != dir.join("data") {
        return Ok(());
    }
    Err(Error::refused(format!("rewriting what is in {:?}", dir.display()))
        .why(format!(
            "a server is running on it: the one that answers says that {:?} is its data directory",
            data.display()
        ))
        .hint("stop it first, or recover into a new folder; the running server was not touched"))
}

/// What was in service, or could be, is given up only when its name was said.
fn named(args: &Args) -> Result<()> {
    let Some(name) = args.gives_up() else { return Ok(()) };
    if args.give_up.as_deref() == Some(&*name) {
        return Ok(());
    }
    Err(Error::refused(format!("rewriting what is in {name:?}"))
        .why("it holds a cluster that was in service or could be, which as it is now is gone then")
        .hint(format!("give --give-up {name:?} once you are sure"))
        .hint("or leave --delta out: a new folder is made, and this one stays"))
}

/// How a person looks at what was recovered, and which tables would let a query wait for ever: a recovery that stands before a
/// transaction's end holds its locks.
pub(super) async fn look_at_it(ctx: &Ctx, c: &mut PgConnection, at: &Database) {
    ctx.out.line(&format!("to look at it: psql {}", at.url()));
    let sql = "SELECT string_agg(DISTINCT relation::regclass::text, ', ') FROM pg_catalog.pg_locks \
               WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted AND pid <> pg_catalog.pg_backend_pid() \
                 AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    if let Ok(Some(names)) = sqlx::query_scalar::<_, Option<String>>(sql).fetch_one(c).await {
        ctx.out.line(&format!(
            "locked by what it stands before, so a query on it waits: {names}; opened to be read by breakglass pitr verify \
             --open-shadow"
        ));
    }
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    let (to, after) = moment(&args.moment)?;
    if placed(ctx, args)? == Into::Place {
        return pitr_overwrite::run(ctx, &wanted(args, to, after)).await;
    }
    named(args)?;
    // In service is, after a promotion that has to be gone back on, what was promoted.
    let mut live = match reach::database(ctx) {
        Ok(at) => match seen(ctx, &at).await {
            Ok(found) => Some(found),
            // Another database than expected is a reason to stop; one that is gone is the reason to recover.
            Err(e) if e.kind == ErrorKind::Refused => return Err(e),
            Err(e) => {
                ctx.out.line(&format!("the source does not answer: {}", e.why));
                None
            }
        },
        Err(_) => None,
    };
    not_in_service(args, live.as_ref().map(|(_, id)| id))?;
    let mut front = None;
    let mut marks = None;
    if let Some((c, id)) = &mut live {
        // For the day the source is gone when its successor takes its place. Whoever may not see it can recover all the same.
        if local_instance(id).is_some() {
            front = takeover::front(c).await.ok().flatten();
        }
        marks = sequences::read(&reach::database(ctx)?).await.ok();
        marks.iter().flat_map(sequences::Marks::warnings).for_each(|w| ctx.out.line(&w));
    }
    let (role, id, source_settings) = match live {
        // A role that may not read all settings can recover all the same.
        Some((mut c, id)) => (superuser(&mut c).await?, Some(id), settings_of(&mut c).await.unwrap_or_default()),
        None => ("postgres".to_string(), None, Vec::new()),
    };
    let recovery = backend::recovery(ctx).await?;
    if let Some(id) = &id {
        of_cluster(&recovery, id).await?;
    }
    let mut suspects = if after { Vec::new() } else { suspects(ctx, &to, id.as_ref()).await };
    let goal = args.along.goal(ctx, id.as_ref(), (&to, after), suspects.clone());
    let mut goal = Goal { records: true, ..goal };
    let way = backend::way(ctx, &*recovery, &goal).await?;
    for line in warnings(&way) {
        ctx.out.line(&line);
    }
    if let Some(line) = belongs_to(&to, &way) {
        ctx.out.line(&line);
    }
    if suspects.is_empty()
        && !after
        && let Some(c) = &way.first_lost
        && matches!(to, RecoveryTarget::Xid(_))
    {
        suspects.push(c.xid);
    }
    if suspects.is_empty() && remembered(ctx, &to).is_none() {
        // A moment of a person's own: what is suspected first has to be gone from it.
        suspects = first_remembered(ctx);
    }
    if let Some(warning) = keeps(ctx, &to, &way) {
        ctx.out.line(&warning);
    }
    let behind = match &to {
        RecoveryTarget::Latest => Some(pitr_tail::behind(ctx, &*recovery, (way.timeline, way.log_end)).await),
        _ => None,
    };
    if let Some(b) = &behind {
        ctx.out.line(&b.line);
    }
    let follow = Follow::new(ctx);
    let helper = match &ctx.settings.helper_exe {
        Some(exe) => exe.clone(),
        None => crate::process::detach::own_executable()?,
    };
    let root = root(ctx, args, id.as_ref())?;
    for line in left_beside(args, &root, (&to, after)) {
        ctx.out.line(&line);
    }
    ctx.out.line(&predicted(&way, &root));
    let mut request = Request {
        root: root.clone(),
        route: way,
        bin_dir: ctx.settings.bin_dir.clone(),
        user: server_user(ctx)?,
        helper,
        superuser: role,
        suspects,
        ignore_space: args.ignore_space,
        delta: args.reuse(),
        source_settings,
        source_front: front,
    };
    // Base backups that it was begun with and that could not be read.
    let mut tried: Vec<String> = Vec::new();
    let started = loop {
        match recovery.start(&Order::Beside(Box::new(request.clone())), follow.clone(), &ctx.cancel).await {
            Err(e) if is_damage(&e) && !root.join("data").exists() => {
                let asked = (&args.along, args.dir.as_deref(), args.delta);
                let other = other_base::instead(ctx, &*recovery, asked, &mut goal, &request.route, &root, e).await?;
                tried.push(std::mem::replace(&mut request.route, other).backup.id);
            }
            started => break started?,
        }
    };
    let Verdict::Stands(shadow) = recovery.follow(started, follow, &ctx.cancel).await? else {
        return Err(Error::state("it was built beside and is said to be in place"));
    };
    // The next prediction rests on it; without it that is only less sure.
    if shadow.reused.is_none() {
        let _ = predict::remember(&shadow, log_bytes(&request.route), request.route.stop == Stop::End, now());
    }
    if let Some(marks) = marks {
        marks.keep(&shadow.root, shadow.user()?.as_ref())?;
    }
    let instance = shadow.instance()?;
    let at = instance.database(&target::meant(ctx, &instance.database("postgres")).await?);
    let mut c = at.connect().await?;
    let it = identity(&mut c, &at).await?;
    target::expected(ctx, &it, false)?;
    let (mut summary, built) = built(&shadow, &it, &instance.layout.data);
    // The exact number, now that it can be asked.
    if !shadow.suspects.is_empty() && tables::commit_times(&mut c).await.unwrap_or(false) {
        let (there, all) = (committed_here(&mut c, &shadow.suspects).await?.len(), shadow.suspects.len());
        if there > 0 {
            summary.push_str(&format!("; KEEPS {there} of {all} suspect transactions: choose an earlier moment"));
        }
    }
    if !tried.is_empty() {
        summary.push_str(&format!(
            "; from base backup {}, because {} turned out to be DAMAGED when it was read",
            shadow.backup,
            tried.join(" and ")
        ));
    }
    ctx.out.line(&summary);
    look_at_it(ctx, &mut c, &at).await;
    // In an incident the plan says what comes next, and not every plan puts the whole copy into service.
    if ctx.incident.is_none() {
        ctx.out.line(&format!("next: {}", typed::next(&shadow.root)));
    }
    let mut json = serde_json::json!({
        "shadow": shadow, "url": at.url(), "passed_over": passed_over_json(&request.route), "tried": tried,
        "rolled_back": request.route.rolled_back.is_some(),
    });
    if let Some(b) = &behind {
        json["behind"] = b.document();
    }
    Ok(Done::ok(summary).fact(Event::TargetSeen { role: "shadow".into(), identity: it }).fact(built).json(json))
}

/// A shadow that stands, in one sentence and as a fact.
pub fn built(shadow: &Shadow, it: &Identity, data: &std::path::Path) -> (String, Event) {
    let reused =
        shadow.reused.map_or_else(String::new, |n| format!("; {} MB of its files were there already", n / 1_000_000));
    let summary = format!(
        "stands {}, {}: {}{reused}",
        shadow.target.stop(shadow.after),
        shadow.reached_lsn,
        shadow.reached_time.map_or_else(|| "no commit replayed".to_string(), |t| format!("last commit {t}"))
    );
    let fact = Event::ShadowBuilt {
        host: it.host.clone(),
        port: it.port,
        data_directory: data.display().to_string(),
        target: shadow.target.clone(),
        backup: shadow.backup.clone(),
        reached_lsn: shadow.reached_lsn.clone(),
        reached_time: shadow.reached_time,
        bytes: shadow.bytes,
        files_ms: shadow.files_ms,
        replay_ms: shadow.replay_ms,
    };
    (summary, fact)
}
