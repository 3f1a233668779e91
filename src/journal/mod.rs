//! Append-only, hash-chained log behind a small trait.
