//! The `kytx` program.

fn main() {}
