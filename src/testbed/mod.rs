//! Machines to try kytx on: homes, packages, metadata stores and a stand-in for the product.
//!
//! `kytx demo` and the tests build their installations here. The stand-in's scripts are those of `testbed/product`,
//! in this program as text, because a demo must run on a machine that has nothing but kytx; its service is
//! [`service`], in this program too. A stand-in that is friendlier than the real thing proves nothing, so it does
//! what was observed of the real one, and each of its dangers has a [`Knob`].
//!
//! Nothing here is used on a customer's installation, which is why `std::fs` may be called for writing: what is built
//! here is built once, in a scratch directory, and needs to survive no crash.

mod content;
mod customise;
mod knobs;
mod package;
mod scenario;
pub mod service;
mod stand_in;
mod store;
pub mod typed;
mod wire;

pub use content::{Content, Seed};
pub use knobs::{Knob, Knobs, Settings};
pub use package::{Age, Layout, Member, Package, Release, Size};
pub use scenario::{MetadataUrl, Nasty, Options, Scenario, end_processes_below, processes_below};
pub use stand_in::StandIn;
pub use store::{Store, StoreContent};
