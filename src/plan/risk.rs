//! What a block can do, from known patterns: destructive commands, statements that change data, secrets in the text (C4).

use crate::model::plan::Risk;

use super::commands::{self, ChunkKind};

/// Shell text that destroys: two words that must both stand in one command, the first as its program or anywhere before.
#[rustfmt::skip]
const DESTRUCTIVE: &[(&str, &str)] = &[
    ("rm ", " -r"), ("rm ", " -fr"), ("rm ", " -R"), ("dropdb ", ""), ("mkfs", ""), ("dd ", " of="), ("shred ", ""),
    ("wipefs ", ""), ("terraform ", " destroy"), ("terraform ", " state rm"), ("tofu ", " destroy"),
    ("pulumi ", " destroy"), ("cdk ", " destroy"), ("kubectl ", " delete "), ("kubectl ", " drain "),
    ("oc ", " delete "), ("helm ", " uninstall"), ("helm ", " delete"), ("pg_restore ", " --clean"),
    ("pg_restore ", " -c "), ("supabase ", " db reset"), ("prisma ", " migrate reset"), ("redis-cli ", " flush"),
    ("redis-cli ", " FLUSH"), ("aws ", " s3 rm"), ("aws ", " s3 rb"), ("aws ", " delete-"), ("aws ", " terminate-"),
    ("gsutil ", " rm"), ("gcloud ", " delete"), ("az ", " delete"), ("docker ", " volume rm"),
    ("docker ", " system prune"), ("docker ", " volume prune"), ("docker-compose ", " down -v"),
    ("docker compose ", " down -v"), ("git ", " push --force"), ("git ", " push -f"), ("git ", " reset --hard"),
    ("git ", " clean -"), ("reboot", ""), ("shutdown", ""), ("poweroff", ""), ("kill ", " -9"), ("pkill ", ""),
    ("killall ", ""), ("etcdctl ", " del"), ("zfs ", " destroy"), ("zpool ", " destroy"), ("lvremove ", ""),
    ("vgremove ", ""), ("fly ", " destroy"), ("flyctl ", " destroy"), ("heroku ", " pg:reset"),
    ("heroku ", " destroy"), ("mysqladmin ", " drop"), ("mc ", " rm "), ("velero ", " delete"), ("ceph ", " purge"),
    ("ceph ", " destroy"), ("crontab ", " -r"), ("truncate ", " -s 0"), ("pg_resetwal ", ""),
    ("rsync ", " --delete"), ("sed ", "/d' -i"),
];

/// The risk of a shell text when a pattern tells: `destroy`, else none (the caller's default is `change`).
pub fn shell(code: &str) -> Option<Risk> {
    for chunk in commands::chunks(code).into_iter().filter(|c| c.kind == ChunkKind::Command) {
        let text = format!(" {} ", chunk.text.replace(['\n', '\t', '\\'], " "));
        let hit = DESTRUCTIVE.iter().any(|(program, argument)| {
            find_word(&text, program)
                .is_some_and(|at| argument.is_empty() || text[at + program.trim_end().len()..].contains(argument))
        });
        let sql = ["drop table", "drop database", "drop schema", "truncate table", "truncate "].iter().any(|s| {
            let lower = text.to_ascii_lowercase();
            lower.contains(s)
                && ["psql", "mysql", "sqlite3", "cockroach", "clickhouse"].iter().any(|p| lower.contains(p))
        });
        if hit || sql {
            return Some(Risk::Destroy);
        }
    }
    None
}

/// Position of a program's name where a command may begin: after a space, a slash, or an operator.
fn find_word(text: &str, program: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find(program) {
        let at = from + at;
        if text[..at].ends_with([' ', '/', ';', '|', '&', '(']) {
            return Some(at);
        }
        from = at + program.len();
    }
    None
}

/// Functions that only read. A call of any other makes a `SELECT` a change.
#[rustfmt::skip]
const READING: &[&str] = &[
    "count", "sum", "min", "max", "avg", "now", "coalesce", "nullif", "greatest", "least", "round", "abs", "ceil",
    "floor", "lower", "upper", "length", "substring", "substr", "trim", "concat", "format", "to_char",
    "to_timestamp", "to_date", "date_trunc", "date_part", "extract", "age", "current_setting", "current_database",
    "current_user", "version", "array_agg", "string_agg", "json_agg", "jsonb_agg", "json_build_object",
    "jsonb_build_object", "row_number", "rank", "lag", "lead", "first_value", "last_value", "over", "md5",
    "hashtext", "row", "array", "unnest", "generate_series", "cast", "exists", "in", "any", "all", "values", "and",
    "or", "not", "as", "from", "where", "on", "interval", "filter", "numeric", "varchar", "decimal", "bool_and",
    "bool_or", "pg_size_pretty", "pg_database_size", "pg_total_relation_size", "pg_relation_size", "pg_table_size",
    "pg_indexes_size", "pg_xact_commit_timestamp", "pg_last_committed_xact", "pg_is_in_recovery",
    "pg_last_wal_replay_lsn", "pg_last_wal_receive_lsn", "pg_last_xact_replay_timestamp", "pg_current_wal_lsn",
    "pg_wal_lsn_diff", "pg_postmaster_start_time", "pg_blocking_pids", "pg_stat_get_activity",
    "pg_get_constraintdef", "pg_get_indexdef", "txid_current_if_assigned", "pg_control_system", "pg_walfile_name",
    "to_regclass", "has_table_privilege", "pg_encoding_to_char", "obj_description", "quote_ident", "quote_literal",
    "split_part", "replace", "regexp_replace", "left", "right", "using", "by", "union", "select", "with", "when",
    "then", "else", "case", "is", "distinct", "having", "join", "lateral",
];

/// The risk of SQL: `read` when it only selects, `destroy` when it drops, truncates or touches every row, else `change`.
pub fn sql(code: &str) -> Risk {
    statements(code).iter().map(|s| statement(s)).max().unwrap_or(Risk::Change)
}

fn statement(words: &str) -> Risk {
    let first = words.split_whitespace().next().unwrap_or_default();
    let whole = format!(" {} ", words.replace(['(', ')', ','], " ").split_whitespace().collect::<Vec<_>>().join(" "));
    match first {
        "drop" | "truncate" => Risk::Destroy,
        "delete" | "update" if !whole.contains(" where ") => Risk::Destroy,
        "alter" if whole.contains(" drop ") => Risk::Destroy,
        "select" | "with" | "table" | "values" | "explain" => {
            let writes = [
                " insert ",
                " update ",
                " delete ",
                " merge ",
                " into ",
                " analyze ",
                " for update",
                " for share",
                "truncate ",
            ]
            .iter()
            .any(|w| whole.contains(w));
            let calls = words.match_indices('(').all(|(i, _)| {
                let name =
                    words[..i].trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                name.is_empty() || READING.contains(&name)
            });
            if writes || !calls { Risk::Change } else { Risk::Read }
        }
        "show" | "begin" | "commit" | "rollback" | "start" | "end" => Risk::Read,
        w if w.starts_with('\\') => {
            if ["\\d", "\\l", "\\c", "\\x", "\\t", "\\p", "\\q", "\\s"].iter().any(|m| w.starts_with(m)) {
                Risk::Read
            } else {
                Risk::Change
            }
        }
        _ => Risk::Change,
    }
}

/// Statements in lower case, comments and the insides of literals removed.
fn statements(code: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(last) = out.last_mut() else { break };
        match c {
            '-' if chars.peek() == Some(&'-') => while chars.next_if(|c| *c != '\n').is_some() {},
            '/' if chars.peek() == Some(&'*') => {
                let mut star = false;
                chars.next();
                for c in chars.by_ref() {
                    if star && c == '/' {
                        break;
                    }
                    star = c == '*';
                }
            }
            '\'' | '"' => {
                last.push(c);
                while chars.next_if(|x| *x != c).is_some() {}
                chars.next();
                last.push(c);
            }
            ';' => out.push(String::new()),
            c => last.extend(c.to_lowercase()),
        }
    }
    out.into_iter().map(|s| s.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|s| !s.is_empty()).collect()
}
