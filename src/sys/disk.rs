//! How much room a file system has.

use std::ffi::CString;
use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Kilobytes that an ordinary user may still write to the file system that holds `path`.
///
/// # Errors
/// As `statvfs(3)`.
pub fn free_kb(path: &Path) -> Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with NUL and `stat` is as large as the call expects; both outlive it.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let stat = unsafe { stat.assume_init() };
    // The fields are 32 bits wide on some of our targets and 64 on others.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64) / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temporary_folder_has_room() {
        assert!(free_kb(&std::env::temp_dir()).expect("statvfs") > 0);
        assert!(free_kb(Path::new("/no/such/folder")).is_err());
    }
}
