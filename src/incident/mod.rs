//! State as a fold over the journal, and decide: the only place that says what is allowed. Pure.
