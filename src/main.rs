//! Arguments to command to exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    breakglass::cli::main()
}
