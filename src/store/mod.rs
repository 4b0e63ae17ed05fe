//! What must survive a power cut: four small files in `state_dir`, written whole or not at all.
//!
//! A file is one line of text, `HKSV1 NAME LENGTH CHECKSUM`, and the bytes. It is replaced by
//! writing a temporary beside it, fsync, rename, fsync of the folder, and only when its content
//! changes: the flash behind it is JFFS2 on NOR. A file that does not match its first line is set
//! aside as `NAME.damaged-N` and stays *damaged*, not *absent*, until it is written again: a camera
//! that has lost its identity must not silently turn into another one while controllers know it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Device id, keys, setup id, setup code.
    Identity,
    /// Who is paired.
    Pairings,
    /// What controllers have set: switches, selected configuration, `c#`.
    Camera,
    /// Failed tries to pair.
    Tries,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 4] = [Part::Identity, Part::Pairings, Part::Camera, Part::Tries];

    /// The file's name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Part::Identity => "identity",
            Part::Pairings => "pairings",
            Part::Camera => "camera",
            Part::Tries => "tries",
        }
    }
}

/// What the store holds of one part.
#[derive(Clone, PartialEq, Eq)]
pub enum Held {
    /// It was never written, or a reset has removed it.
    Absent,
    /// The bytes as they were written.
    Whole(Vec<u8>),
    /// It was written once and cannot be read any more; set aside under this name.
    Damaged(PathBuf),
}

impl Held {
    /// The bytes, if they are whole.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Held::Whole(bytes) => Some(bytes),
            Held::Absent | Held::Damaged(_) => None,
        }
    }
}

impl fmt::Debug for Held {
    /// Without the bytes: there are keys among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Absent => f.write_str("Absent"),
            Held::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Held::Damaged(path) => write!(f, "Damaged({})", path.display()),
        }
    }
}

/// Everything that was in the store when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// [`Part::Identity`]
    pub identity: Held,
    /// [`Part::Pairings`]
    pub pairings: Held,
    /// [`Part::Camera`]
    pub camera: Held,
    /// [`Part::Tries`]
    pub tries: Held,
}

impl Contents {
    /// Whether a new identity may be drawn without asking: nothing says that there ever was another.
    pub fn is_new(&self) -> bool {
        self.identity == Held::Absent && self.pairings == Held::Absent
    }
}

/// Why the store did not do it.
#[derive(Debug)]
pub enum Error {
    /// Another process works with this folder.
    InUse(PathBuf),
    /// The file system is full. What was stored before is still there.
    NoSpace(PathBuf),
    /// The file system cannot be written to.
    ReadOnly(PathBuf),
    /// The camera is being reset: what it was is not written any more.
    Reset(PathBuf),
    /// Anything else.
    Io(PathBuf, io::Error),
}

impl Error {
    fn new(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace(path.into()),
            ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(path.into()),
            _ => Error::Io(path.into(), error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InUse(path) => write!(f, "{}: another hksvd works with this folder; stop it first", path.display()),
            Error::NoSpace(path) => write!(f, "{}: no space left; make room on this file system", path.display()),
            Error::ReadOnly(path) => {
                write!(f, "{}: the file system is read-only; set state_dir to one that is not", path.display())
            }
            Error::Reset(path) => write!(f, "{}: the camera is being reset; try again in a moment", path.display()),
            Error::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// The open store. It can be shared with the thread that waits for the flash.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Keeps others out as long as it is open.
    _lock: File,
    /// Whether it was reset; one writes or resets at a time.
    is_reset: Mutex<bool>,
}

/// Longest part that is read: all pairings fit several times.
const LARGEST: usize = 64 * 1024;
/// How many damaged files of one part are kept for a look.
const SET_ASIDE: u32 = 4;

impl Store {
    /// Opens the store, making its folder if need be, and reads it.
    ///
    /// # Errors
    /// The folder cannot be made, read or locked. Damaged files are none: see [`Held::Damaged`].
    pub fn open(dir: &Path) -> Result<(Self, Contents), Error> {
        let failed = |error| Error::new(dir, error);
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        let lock_path = dir.join("lock");
        let lock = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&lock_path)
            // A flash that the kernel has made read-only after an error still says who we are.
            .or_else(|error| match error.kind() {
                ErrorKind::ReadOnlyFilesystem => File::open(&lock_path).map_err(|_| error),
                _ => Err(error),
            })
            .map_err(|error| Error::new(&lock_path, error))?;
        crate::sys::lock::exclusive(&lock).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Error::InUse(dir.into()),
            _ => Error::new(&lock_path, error),
        })?;
        let store = Store { dir: dir.into(), _lock: lock, is_reset: Mutex::new(false) };
        let contents = Contents {
            identity: store.read(Part::Identity)?,
            pairings: store.read(Part::Pairings)?,
            camera: store.read(Part::Camera)?,
            tries: store.read(Part::Tries)?,
        };
        Ok((store, contents))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces a part and returns when it would survive a power cut. The same bytes again cost no write.
    ///
    /// # Errors
    /// The part is then as it was before, or new but not yet sure to survive a power cut.
    pub fn write(&self, part: Part, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(part.file_name());
        let is_reset = self.is_reset();
        if *is_reset {
            return Err(Error::Reset(path));
        }
        let whole = sealed(part, bytes);
        if read_file(&path).is_ok_and(|stored| stored == whole) {
            return Ok(());
        }
        let temporary = self.temporary(part);
        let write = || -> io::Result<()> {
            let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(&temporary)?;
            file.write_all(&whole)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            self.sync_dir()
        };
        write().map_err(|error| {
            // What is half written only takes room.
            let _ = fs::remove_file(&temporary);
            Error::new(&path, error)
        })
    }

    fn is_reset(&self) -> MutexGuard<'_, bool> {
        self.is_reset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes every part, damaged ones included. Afterwards the store is as new, and stays so until it is
    /// opened again: a write that was on its way would leave pairings without the identity they belong to.
    ///
    /// # Errors
    /// Some of it may be gone then. The identity goes last, so that a new one cannot meet old pairings.
    pub fn reset(&self) -> Result<(), Error> {
        let mut is_reset = self.is_reset();
        for part in [Part::Pairings, Part::Tries, Part::Camera, Part::Identity] {
            let aside = (1..=SET_ASIDE).map(|n| self.aside(part, n));
            for path in aside.chain([self.temporary(part), self.dir.join(part.file_name())]) {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::new(&path, error)),
                    _ => {}
                }
            }
        }
        self.sync_dir().map_err(|error| Error::new(&self.dir, error))?;
        *is_reset = true;
        Ok(())
    }

    /// What is held of a part. Leftovers of a write that did not finish are removed.
    fn read(&self, part: Part) -> Result<Held, Error> {
        // A temporary was never renamed, so nobody was told that it is stored.
        let _ = fs::remove_file(self.temporary(part));
        let path = self.dir.join(part.file_name());
        let stored = match read_file(&path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let aside = (1..=SET_ASIDE).rev().map(|n| self.aside(part, n)).find(|path| path.exists());
                return Ok(aside.map_or(Held::Absent, Held::Damaged));
            }
            Err(error) => return Err(Error::new(&path, error)),
        };
        if let Some(bytes) = opened(part, &stored) {
            return Ok(Held::Whole(bytes.to_vec()));
        }
        let aside = (1..SET_ASIDE).map(|n| self.aside(part, n)).find(|path| !path.exists());
        let aside = aside.unwrap_or_else(|| self.aside(part, SET_ASIDE));
        // On a full or read-only file system it stays where it is, and is damaged at the next start, too.
        match fs::rename(&path, &aside).and_then(|()| self.sync_dir()) {
            Ok(()) => Ok(Held::Damaged(aside)),
            Err(_) => Ok(Held::Damaged(path)),
        }
    }

    fn temporary(&self, part: Part) -> PathBuf {
        self.dir.join(format!("{}.tmp", part.file_name()))
    }

    fn aside(&self, part: Part, n: u32) -> PathBuf {
        self.dir.join(format!("{}.damaged-{n}", part.file_name()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        match File::open(&self.dir)?.sync_all() {
            // Some overlays do not know fsync of a folder; there is nothing better to do on them.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            synced => synced,
        }
    }
}

/// Only the owner may look: there are keys inside.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        // Somebody copied it about; on FAT this fails and changes nothing.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    }
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn head(part: Part, bytes: &[u8]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    // The name is under the checksum, so that a copy under another name is no part.
    context.update(part.file_name().as_bytes());
    context.update(bytes);
    let sum = context.finish();
    let mut hex = [0; 32];
    crate::wire::hex::encode(&sum.as_ref()[..16], &mut hex);
    format!("HKSV1 {} {} {}\n", part.file_name(), bytes.len(), core::str::from_utf8(&hex).unwrap_or_default())
}

fn sealed(part: Part, bytes: &[u8]) -> Vec<u8> {
    let mut whole = head(part, bytes).into_bytes();
    whole.extend_from_slice(bytes);
    whole
}

/// The bytes behind the head, if the head is theirs.
fn opened(part: Part, stored: &[u8]) -> Option<&[u8]> {
    let end = stored.iter().take(128).position(|byte| *byte == b'\n')? + 1;
    let (found, bytes) = stored.split_at(end);
    (bytes.len() <= LARGEST && found == head(part, bytes).as_bytes()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hksvd-store-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }

        /// A child that another test starts at this moment has our lock until it is a program of its own.
        fn open(&self) -> (Store, Contents) {
            for _ in 0..200 {
                match Store::open(&self.0) {
                    Err(Error::InUse(_)) => std::thread::sleep(std::time::Duration::from_millis(50)),
                    opened => return opened.expect("the store opens"),
                }
            }
            panic!("{} is in use", self.0.display())
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.join(name), bytes).expect("written");
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("folder");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = Folder::new("roundtrip");
        let (store, contents) = folder.open();
        assert!(contents.is_new());
        store.write(Part::Identity, b"me").expect("written");
        store.write(Part::Pairings, b"").expect("written");
        store.write(Part::Tries, &[0, 10, 255]).expect("written");
        assert_eq!(mode(&folder.0), 0o700);
        assert_eq!(mode(&folder.0.join("identity")), 0o600);
        drop(store);
        let (_store, contents) = folder.open();
        assert_eq!(contents.identity, Held::Whole(b"me".to_vec()));
        assert_eq!(contents.pairings.bytes(), Some(&b""[..]));
        assert_eq!(contents.camera, Held::Absent);
        assert_eq!(contents.tries, Held::Whole(vec![0, 10, 255]));
        assert!(!contents.is_new());
        assert!(!format!("{contents:?}").contains("109"));
    }

    #[test]
    fn the_same_bytes_are_not_written_again() {
        use std::os::unix::fs::MetadataExt;
        let folder = Folder::new("same");
        let (store, _) = folder.open();
        let inode = || fs::metadata(folder.0.join("camera")).expect("exists").ino();
        store.write(Part::Camera, b"one").expect("written");
        let first = inode();
        store.write(Part::Camera, b"one").expect("written");
        assert_eq!(inode(), first);
        store.write(Part::Camera, b"two").expect("written");
        assert_ne!(inode(), first);
    }

    #[test]
    fn a_power_cut_at_any_point_leaves_the_old_or_the_new() {
        let folder = Folder::new("cut");
        let (old, new) = (sealed(Part::Pairings, b"old pairings"), sealed(Part::Pairings, b"new pairings!"));
        fs::create_dir_all(&folder.0).expect("folder");
        for cut in 0..=new.len() {
            // Before the rename: the temporary is there up to some byte.
            folder.put("pairings", &old);
            folder.put("pairings.tmp", &new[..cut]);
            let (_store, contents) = folder.open();
            assert_eq!(contents.pairings.bytes(), Some(&b"old pairings"[..]), "cut at {cut}");
            assert_eq!(folder.names(), ["lock", "pairings"]);
            // The first write of all.
            fs::remove_file(folder.0.join("pairings")).expect("removed");
            folder.put("pairings.tmp", &new[..cut]);
            drop(_store);
            let (_store, contents) = folder.open();
            assert_eq!(contents.pairings, Held::Absent);
        }
        // After it.
        folder.put("pairings", &new);
        assert_eq!(folder.open().1.pairings.bytes(), Some(&b"new pairings!"[..]));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_stays_damaged() {
        let folder = Folder::new("damaged");
        fs::create_dir_all(&folder.0).expect("folder");
        let whole = sealed(Part::Identity, b"keys");
        let mut broken: Vec<Vec<u8>> = (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
        broken.extend((0..whole.len()).map(|at| {
            let mut copy = whole.clone();
            copy[at] ^= 1;
            copy
        }));
        broken.push([&whole[..], b"x"].concat());
        broken.push(sealed(Part::Tries, b"keys"));
        broken.push(vec![0; LARGEST + 200]);
        for bytes in broken {
            folder.put("identity", &bytes);
            let (store, contents) = folder.open();
            let Held::Damaged(aside) = &contents.identity else { panic!("{contents:?}") };
            assert_eq!(fs::read(aside).expect("set aside").len(), bytes.len());
            assert!(!contents.is_new());
            drop(store);
            // The next start still knows that there was an identity.
            let (store, contents) = folder.open();
            assert!(matches!(contents.identity, Held::Damaged(_)) && !contents.is_new());
            drop(store);
        }
        assert_eq!(
            folder.names(),
            ["identity.damaged-1", "identity.damaged-2", "identity.damaged-3", "identity.damaged-4", "lock"]
        );
        let (store, _) = folder.open();
        store.write(Part::Identity, b"new").expect("written");
        drop(store);
        let (store, contents) = folder.open();
        assert_eq!(contents.identity.bytes(), Some(&b"new"[..]));
        store.reset().expect("reset");
        assert!(matches!(store.write(Part::Pairings, b"late"), Err(Error::Reset(_))));
        assert_eq!(folder.names(), ["lock"]);
        drop(store);
        assert!(folder.open().1.is_new());
    }

    #[test]
    fn two_daemons_do_not_share_a_folder() {
        let folder = Folder::new("shared");
        let (_store, _) = folder.open();
        let error = Store::open(&folder.0).expect_err("locked");
        assert!(matches!(error, Error::InUse(_)), "{error}");
    }

    #[test]
    fn a_full_file_system_is_a_value() {
        let error = Error::new(Path::new("/etc/hksvd/pairings"), io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(error, Error::NoSpace(_)));
        assert_eq!(error.to_string(), "/etc/hksvd/pairings: no space left; make room on this file system");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old() {
        let folder = Folder::new("fails");
        let (store, _) = folder.open();
        store.write(Part::Camera, b"old").expect("written");
        // A folder in the temporary's place makes the write fail, also for root.
        fs::create_dir(folder.0.join("camera.tmp")).expect("folder");
        assert!(matches!(store.write(Part::Camera, b"new"), Err(Error::Io(..))));
        drop(store);
        assert_eq!(folder.open().1.camera.bytes(), Some(&b"old"[..]));
    }
}
