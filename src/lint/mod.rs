//! What in a plan will not work.
