//! The program: see [`hksvd::cli`].

fn main() -> std::process::ExitCode {
    hksvd::cli::main()
}
