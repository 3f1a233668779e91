//! An open incident: submit, watch, spawn and re-adopt, the worker's loop.
