//! The only code that touches the machine: file system, other programs, lock, signals.

pub mod doom;
pub mod env_script;
pub mod fs;
pub mod lock;
pub mod os;
pub mod run_log;
pub mod shell;
pub mod signal;
pub mod tree;
