//! Every mutation keeps its contract: apply and undo reach their end from wherever a crash leaves the machine.
//!
//! The real engine drives one step over a file system that dies, or fails, at every single call in turn.

#![allow(clippy::disallowed_methods, reason = "it builds test machines and looks into them")]

#[macro_use]
mod checks;
mod cases;
mod fault_fs;
mod lab;
mod product;
#[path = "../support/mod.rs"]
mod support;
mod whole;
