//! The Elm core of the console.
pub mod command;
pub mod key;
