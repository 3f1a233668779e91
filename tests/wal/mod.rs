//! The write-ahead log read by ourselves: records against `pg_waldump`, damage, suspects among traffic and noise, names.

mod classify;
mod damage;
mod fixture;
mod join;
mod logical;
mod names;
mod records;
mod targets;
mod versions;
