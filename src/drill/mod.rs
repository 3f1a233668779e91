//! The drill's world: a private PostgreSQL made on the spot, live traffic, a faulty release, and the umpire that keeps its secret.
//!
//! One detached process, the [`umpire`], owns service, traffic and injector, so that a console that dies takes nothing
//! with it and cannot know what it is supposed to find out. What the console needs it asks over [`control`].

pub mod breach;
pub mod control;
pub mod deletion;
pub mod door;
pub mod judge;
pub mod judge_breach;
pub mod judge_deletion;
pub mod judge_pages;
pub mod judge_region;
pub mod judge_release;
pub mod leftovers;
pub mod logs;
pub mod operator;
pub mod pages;
pub mod random;
pub mod region;
pub mod release;
pub mod sandbox;
pub mod scratch;
pub mod server;
pub mod service;
pub mod session;
pub mod shop;
pub mod storefront;
pub mod tabletop;
pub mod traffic;
pub mod umpire;
pub mod unattended;
