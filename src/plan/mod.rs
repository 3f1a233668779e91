//! Markdown to Plan; the library of plans.
