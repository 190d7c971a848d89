//! Everything kytx knows about the product: what a home is, what an operator owns in it, how its service and its
//! metadata tool behave.
//!
//! The product's own tools lie: a backup that failed exits 0, a start that returned 0 has not started, a pid file may
//! name a stranger. So state is established here by looking, and what can be judged from text alone (a version, a
//! merge, a tool's output) is a pure function on that text.

pub mod carry;
pub mod checkup;
pub mod cleaning;
pub mod components;
pub mod default_source;
pub mod home;
pub mod jar;
pub mod java;
pub mod jobs;
pub mod listing;
pub mod loopback;
pub mod merge;
pub mod merge_xml;
pub mod metadata;
pub mod metadata_listing;
pub mod metadata_output;
pub mod metadata_url;
pub mod planner;
pub mod preflight;
pub mod process;
pub mod properties;
pub mod renamed;
pub mod rest;
pub mod scan;
pub mod secrets;
pub mod service;
pub mod smoke;
pub mod survey;
pub mod version;
pub mod xml;
