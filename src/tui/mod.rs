//! Terminal in, terminal out.
