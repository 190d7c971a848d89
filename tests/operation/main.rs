//! What surrounds the upgrade itself: verification of the service, clusters, what an abort says before it starts, the
//! lines in the product's logs, and the way it is called.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]
#![allow(clippy::print_stdout, reason = "a run says its seed and where it was killed")]

mod asked;
mod chosen;
mod cleaned;
mod difference;
mod nodes;
mod told;
mod verified;
mod whole;

#[path = "../support/mod.rs"]
mod support;
