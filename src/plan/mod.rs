//! Markdown to Plan; the library of plans.
//!
//! A document goes through these files in order: [`text`] decodes and repairs, [`tree`] parses CommonMark, [`outline`]
//! makes sections and labels, [`roles`] says what each section is for, [`blocks`] what each fence is for, [`scenario`]
//! finds the scenarios, [`steps`] their steps, [`objective`] and [`severity`] their figures, [`extras`] keeps the rest.
//! Every rule is named in `docs/formats.md`, "Reading rules"; the names stand in each field's source.

pub mod adopt;
pub mod applying;
pub mod attributes;
pub mod blocks;
pub mod command_line;
pub mod commands;
pub mod doc;
pub mod encoding;
pub mod extras;
pub mod freeze;
pub mod gates;
pub mod group;
pub mod inline;
pub mod library;
pub mod lists;
pub mod make;
pub mod objective;
pub mod outline;
pub mod placeholders;
pub mod risk;
pub mod roles;
pub mod scenario;
pub mod secrets;
pub mod sessions;
pub mod severity;
pub mod shell_words;
pub mod show;
pub mod span;
pub mod steps;
pub mod text;
pub mod title;
pub mod tree;
pub mod understand;
pub mod watch;
pub mod words;

pub use freeze::{digest, freeze, thaw};
pub use understand::parse;
