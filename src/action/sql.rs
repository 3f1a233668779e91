//! SQL blocks: run on the target's connection, one statement after the other, reading only unless the plan says otherwise.
