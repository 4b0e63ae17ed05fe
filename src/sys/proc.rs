//! What the kernel says in `/proc` about memory and about this process.

/// Memory in KiB that could be had without driving anything out; `None` when the kernel does not say.
pub fn available_kb() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// Kernels before 3.14 do not estimate what could be freed. It is about the page cache, without the
/// files that exist in memory alone: on a camera those are all of /tmp and the streamer's rings.
fn available(meminfo: &str) -> Option<u64> {
    figure(meminfo, "MemAvailable").or_else(|| {
        let or_none = |name| figure(meminfo, name).unwrap_or(0);
        let cache = (or_none("Cached") + or_none("Buffers")).saturating_sub(or_none("Shmem"));
        Some(figure(meminfo, "MemFree")? + cache)
    })
}

/// Resident memory of this process in KiB, 0 when the kernel does not say.
pub fn rss_kb() -> u32 {
    own("VmRSS")
}

/// Threads of this process, 0 when the kernel does not say.
pub fn threads() -> u32 {
    own("Threads")
}

/// Whether no process has this number, by all that the kernel says.
pub fn is_gone(pid: u32) -> bool {
    match libc::pid_t::try_from(pid) {
        // 0 would mean ourselves.
        Ok(0) => false,
        // SAFETY: no signal is sent, and no pointer taken.
        Ok(pid) => unsafe {
            libc::kill(pid, 0) < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
        },
        Err(_) => true,
    }
}

fn own(name: &str) -> u32 {
    // The file is short and the call rare.
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    figure(&text, name).and_then(|figure| figure.try_into().ok()).unwrap_or(0)
}

/// The number in the line `NAME: number`.
fn figure(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_threads() {
        assert!(rss_kb() > 100);
        let before = threads();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        // Other tests' threads come and go; ours and this one are there.
        assert!(before >= 1 && threads() >= 2);
        drop(hold);
        assert!(thread.join().expect("no panic").is_err());
    }

    #[test]
    fn old_kernels_have_free_memory_too() {
        let new = "MemTotal:  38000 kB\nMemFree:   900 kB\nMemAvailable:  5000 kB\nCached:  1600 kB\n";
        assert_eq!(available(new), Some(5_000));
        let old = "MemTotal:  38000 kB\nMemFree:   900 kB\nBuffers:  300 kB\nCached:  1600 kB\n\
                   SwapCached:  7 kB\nShmem:   1000 kB\n";
        assert_eq!(available(old), Some(1_800));
        assert_eq!(available("MemFree: 900 kB\nCached: 10 kB\nShmem: 20 kB\n"), Some(900));
        for nonsense in ["", "MemFree\n", "MemFree: much\n", "MemFreeze: 5 kB\nCached: 3 kB\n"] {
            assert_eq!(available(nonsense), None, "{nonsense}");
        }
        assert!(available_kb().is_some_and(|kb| kb > 0));
    }
}
