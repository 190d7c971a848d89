//! The `kytx` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kytx::cli::main()
}
