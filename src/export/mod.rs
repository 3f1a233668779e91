//! The timeline as documents: rows built once, one file per format.
