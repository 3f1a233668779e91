//! The drill: private PostgreSQL, live traffic, faults, the unattended operator.
