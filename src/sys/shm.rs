//! Memory that other programs write while we look at it.
//!
//! What can be read and written by pread(2) and pwrite(2) is: a file that its owner cuts short then gives fewer bytes,
//! where a mapping would end the process with SIGBUS. What is left for mappings: words that several programs change,
//! waiting for a word to change, and devices that can be mapped only.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// A part of a file or device in our address space, shared with all who have it in theirs.
#[derive(Debug)]
pub struct Mapping {
    at: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to no thread. Its bytes are touched by atomic operations, by the kernel, and by copying
// out through raw pointers, and others change them anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes from `offset`, which is a multiple of the page size.
    ///
    /// # Errors
    /// When the kernel refuses: the file is not open for that, or cannot be mapped.
    pub fn new(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: no address is demanded, so nothing that is mapped already is touched.
        let at =
            unsafe { libc::mmap(core::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { at, len, writable })
    }

    /// Copies what is there now; the owner may write meanwhile, which the caller has to find out by the owner's
    /// marks. `false`: it is not all within the mapping.
    pub fn copy(&self, offset: usize, out: &mut [u8]) -> bool {
        if offset.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        // SAFETY: the source is within the mapping, checked above, and `out` is elsewhere: nobody gets a reference
        // into a mapping. That another program may write it at the same time is outside the language; no reference is
        // made to it, and any bytes are valid bytes.
        unsafe { core::ptr::copy_nonoverlapping(self.at.as_ptr().add(offset), out.as_mut_ptr(), out.len()) };
        true
    }

    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        if !self.writable || !offset.is_multiple_of(4) || offset.checked_add(4).is_none_or(|end| end > self.len) {
            return None;
        }
        // SAFETY: four bytes within the mapping, which is aligned to pages and lives as long as `self`; they are
        // touched by atomic operations only, on this side by these functions and `copy` of read-only mappings.
        Some(unsafe { AtomicU32::from_ptr(self.at.as_ptr().add(offset).cast()) })
    }

    /// Puts `to` where `from` is; `false` when something else is there.
    pub fn replace(&self, offset: usize, from: u32, to: u32) -> bool {
        let exchange = |word: &AtomicU32| word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.word(offset).is_some_and(exchange)
    }

    /// Changes a count by `by`, but never below zero.
    pub fn count(&self, offset: usize, by: i32) {
        if let Some(word) = self.word(offset) {
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_add_signed(by)));
        }
    }

    /// Waits until the word is no longer `seen`, at most for `limit`, for a wake-up of any process
    /// (futex(2) FUTEX_WAIT, shared). It may also return for no reason.
    ///
    /// # Errors
    /// When there is no such word any more.
    pub fn wait(&self, offset: usize, seen: u32, limit: Duration) -> io::Result<()> {
        // What this system call takes is two longs on all our processors, whatever `time_t` the C library has.
        let limit: [libc::c_long; 2] = [limit.as_secs() as libc::c_long, limit.subsec_nanos() as libc::c_long];
        match self.futex(offset, libc::FUTEX_WAIT, seen, limit.as_ptr()) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Wakes everybody who waits for the word (futex(2) FUTEX_WAKE, shared).
    pub fn wake(&self, offset: usize) {
        // It can fail only for a word that is gone, and then nobody waits for it.
        let _ = self.futex(offset, libc::FUTEX_WAKE, libc::c_int::MAX as u32, core::ptr::null());
    }

    fn futex(&self, offset: usize, what: libc::c_int, value: u32, limit: *const libc::c_long) -> io::Result<()> {
        let word = self.word(offset).ok_or(io::ErrorKind::InvalidInput)?.as_ptr();
        let none = core::ptr::null::<c_void>();
        // SAFETY: the word is aligned and within the mapping; a page that its file has no more is an error, not a
        // signal, for the kernel. `limit` is null or points to two longs that live until the call returns.
        let result = unsafe { libc::syscall(libc::SYS_futex, word, what, value, limit, none, 0u32) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range of `new`, to which no reference outlives `self`.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// A bell for the reactor: 8 bytes written ring it, read silence it (eventfd(2), in Linux since 2.6.27).
///
/// # Errors
/// When no descriptor is free.
pub fn bell() -> io::Result<File> {
    // SAFETY: no pointers; the descriptor that comes back belongs to nobody else.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    fn file(name: &str, len: u64) -> File {
        let path = std::env::temp_dir().join(format!("hksvd-shm-{name}-{}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).expect("a file");
        file.set_len(len).expect("room");
        std::fs::remove_file(path).expect("it was there");
        file
    }

    #[test]
    fn words_are_those_of_the_file() {
        let file = file("words", 8192);
        let mapping = Mapping::new(&file, 0, 4096, true).expect("mapped");
        assert!(mapping.replace(72, 0, 7) && !mapping.replace(72, 0, 8));
        mapping.count(68, 2);
        mapping.count(68, -3);
        mapping.count(68, 1);
        let mut words = [0; 8];
        file.read_exact_at(&mut words, 68).expect("there");
        assert_eq!(words, [1, 0, 0, 0, 7, 0, 0, 0]);
        for outside in [4096, 4094, 70, usize::MAX - 1] {
            assert!(!mapping.replace(outside, 0, 1), "{outside}");
            assert!(mapping.wait(outside, 0, Duration::ZERO).is_err(), "{outside}");
        }
        let fixed = Mapping::new(&file, 0, 4096, false).expect("mapped");
        assert!(!fixed.replace(72, 7, 0), "it is not to be written");
        let mut out = [9; 4];
        assert!(fixed.copy(72, &mut out) && out == [7, 0, 0, 0]);
        assert!(fixed.copy(4092, &mut out) && !fixed.copy(4093, &mut out) && !fixed.copy(usize::MAX, &mut out));
    }

    #[test]
    fn a_wait_ends_with_the_word_the_limit_or_a_call() {
        let file = file("futex", 4096);
        let mapping = Mapping::new(&file, 0, 4096, true).expect("mapped");
        let begun = std::time::Instant::now();
        mapping.wait(8, 1, Duration::from_secs(10)).expect("it is another already");
        mapping.wait(8, 0, Duration::from_millis(20)).expect("nobody calls");
        assert!((20..5_000).contains(&begun.elapsed().as_millis()));
        let other = Mapping::new(&file, 0, 4096, true).expect("mapped elsewhere");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| mapping.wait(8, 0, Duration::from_secs(10)));
            while !waiting.is_finished() {
                other.wake(8);
                std::thread::yield_now();
            }
        });
        assert!(begun.elapsed().as_secs() < 5);
        file.set_len(0).expect("cut");
        assert!(mapping.wait(8, 0, Duration::from_secs(10)).is_err(), "the word is gone");
    }

    #[test]
    fn a_bell_rings_until_it_is_heard() {
        let mut bell = bell().expect("a bell");
        let mut heard = [0; 8];
        assert!(bell.read(&mut heard).is_err());
        for _ in 0..2 {
            bell.write_all(&1u64.to_ne_bytes()).expect("it rings");
        }
        assert_eq!((bell.read(&mut heard).expect("heard"), u64::from_ne_bytes(heard)), (8, 2));
        assert!(bell.read(&mut heard).is_err());
    }
}
