//! All tests, one binary. Each module says what belongs in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// Children: start, output, end.
mod process;

// The direction of imports, and what pure rooms may not touch.
mod layers;

// Finding the moment, shadows, verification, promotion, salvage.
mod recovery;

// Server programs, instances, connections, identity, base backup.
mod postgres;

// Real clusters for all topics.
mod support;
// The fold, decide, clocks and forecast: pure, in tables.
mod incident;
// The journal: bytes, damage, several writers, disks that fail.
mod journal;
// The drill: sandbox, umpire, judge.
mod drill;
// The repository: container, keys, store, WAL archive, base backups.
mod backup;
// Incidents, workers, and what survives them.
mod runtime;
// The timeline in every format, hostile text included.
mod export;

// Every screen and dialog, at every size.
mod screens;
// The write-ahead log: records, damage, suspects, names.
mod wal;
// Reading plans.
mod plan;

// The console without a terminal: keys, dialogs, what they ask of the world.
mod console;

// What guides a person through a step: keys that say what they do, runs that go on, options that are changed.
mod guide;

// The console in a real terminal: start, resize, suspend, signals, panic, colours.
mod terminal;
// Documents are true: README commands, links, help.
mod docs;

// The whole drill through the real program, unattended.
mod story;

// Bad input through the real program: message, exit code, nothing lost.
mod bad_input;

// Readiness, from the shell.
mod doctor;

// What a command ends with that was told to stop.
mod exit_codes;

// Health as a scheduler asks for it, and as home shows it.
mod health;

// Runs that lost their worker, in a real terminal.
mod left_behind;

// The whole drill by keys, in a real terminal.
mod by_hand;

// A plan worked through in the console: five shapes of plans, questions, secrets, links, a plan that changes.
mod plan_work;
// Deadlines of the people's side, on a clock that only the test moves.
mod timers;
// The people's side from the shell: deadlines, roles, messages, secrets, an exercise at a table.
mod desk;
// Figures over many incidents, computed twice.
mod figures;
// Those who recover for us: pgBackRest for real, Supabase as a server that keeps its contract and has its bad days.
mod providers;
