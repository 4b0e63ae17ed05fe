//! How much the stacks of threads claim.

use super::proc;

/// What the standard library reads when it starts its first thread.
const VARIABLE: &str = "RUST_MIN_STACK";

/// Gives this size to the stacks of threads that are started without one, by libraries that is: the
/// default of 2 MiB is address space that a kernel with strict overcommit takes for spent. Does nothing
/// when somebody has set the variable already, or when there are other threads.
pub fn set_default(bytes: usize) {
    if proc::threads() > 1 || std::env::var_os(VARIABLE).is_some() {
        return;
    }
    // SAFETY: this is the only thread, so nobody reads the environment meanwhile. Without /proc the
    // threads cannot be counted; then it is the caller's place at the start of the program that there
    // are none.
    unsafe { std::env::set_var(VARIABLE, bytes.to_string()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_changed_beside_other_threads() {
        let before = std::env::var_os(VARIABLE);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        set_default(12_345);
        assert_eq!(std::env::var_os(VARIABLE), before);
        drop(hold);
        assert!(thread.join().expect("no panic").is_err());
    }
}
