//! The timeline in every format: complete, escaped, and true to the journal it was made from.

mod command_line;
mod fixture;
mod formats;
mod hostile;
mod redacted;
