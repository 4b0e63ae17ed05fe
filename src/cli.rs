//! The verbs of the command line.

/// Runs the verb that the arguments name and returns its exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
