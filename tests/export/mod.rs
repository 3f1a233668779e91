//! The timeline in every format: complete, escaped, and true to the journal it was made from.

mod fixture;
mod formats;
mod hostile;
