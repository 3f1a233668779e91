//! Terminal in, terminal out.
pub mod clipboard;
pub mod keymap;
pub mod terminal;
pub mod theme;
pub mod view;
