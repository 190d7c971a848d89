//! The only code that touches the machine: file system, other programs, lock, signals.

pub mod fs;
pub mod os;
pub mod shell;
pub mod tree;
