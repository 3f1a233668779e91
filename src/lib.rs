//! breakglass: a full-screen terminal console for disaster recovery.
//!
//! The rooms, from the bottom up; a room imports only from rooms above it in this list (`tests/layers.rs`):
//!
//! ```text
//! model       nouns and facts (pure)
//! error       what failed, why, what to do next
//! incident    state as a fold, decide, clocks, forecast (pure)
//! config      breakglass.toml and environment
//! journal     append-only, hash-chained log
//! plan        Markdown to Plan, library of plans
//! process     children: groups, locks, cancel, output
//! postgres    server programs, identity, instances
//! backup      repository: container, keys, catalog, WAL archive
//! provider    clients of hosted services
//! recovery    point-in-time recovery, locate, verify
//! action      everything a step can run
//! lint        what in a plan will not work
//! runtime     an open incident: submit, watch, workers
//! export      timeline as md, html, json, csv
//! drill       private PostgreSQL, live traffic, faults, the unattended operator
//! app         Elm core of the console
//! tui         terminal in, terminal out
//! cli         one file per subcommand
//! ```

pub mod action;
pub mod app;
pub mod backup;
pub mod cli;
pub mod config;
pub mod drill;
pub mod error;
pub mod export;
pub mod incident;
pub mod journal;
pub mod lint;
pub mod model;
pub mod plan;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod recovery;
pub mod runtime;
pub mod tui;
