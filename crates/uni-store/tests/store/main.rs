//! The store's tests from outside: one program, so that what they share is shared by all of them.

mod behaviour;
mod carry;
mod common;
mod crash;
mod fixtures;
mod limits;
mod lines;
mod logs;
mod model;
mod power;
mod power_changes;
mod tiers;
