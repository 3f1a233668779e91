//! The drill's world: shop, traffic, faulty release, umpire, judge and what is left afterwards, on real clusters.

mod judge;
mod killed;
mod regions;
mod sandbox;
mod scenarios;
