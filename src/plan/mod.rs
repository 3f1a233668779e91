//! Markdown to Plan; the library of plans.

pub mod attributes;
pub mod command_line;
pub mod encoding;
pub mod inline;
pub mod outline;
pub mod span;
pub mod text;
pub mod title;
pub mod tree;
pub mod words;
