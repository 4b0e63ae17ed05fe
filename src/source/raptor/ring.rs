//! One ring: opening it, and taking frames out of it before their bytes are written over.
//!
//! Its owner neither waits for readers nor knows them. So each frame is copied first, and then looked at whether it was
//! still the same one when that was done. All is read by pread(2): see [`crate::sys::shm`].

use crate::io::runtime::Fd;
use crate::source::find;
use crate::sys::shm::{self, Mapping};
use crate::time::Duration;
use crate::wire::raptor::{self, HEADER_BYTES, Header, Refused, SLOT_BYTES, SLOTS_AT, SLOTS_MAX, Slot};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Where the rings lie, from the root of the file system.
pub fn folder(root: &Path) -> PathBuf {
    root.join("dev/shm")
}

/// Where the bytes of the frames are.
enum Frames {
    /// Behind the slots.
    Ring,
    /// In the encoder's memory, as a file.
    File(File),
    /// In the encoder's memory, as a device.
    Device(Mapping),
}

/// A ring that is open.
pub struct Ring {
    file: File,
    path: PathBuf,
    frames: Frames,
    /// As it was at the opening, or when codec and rate last changed.
    header: Header,
    /// The sequence of the next frame to read.
    next: u32,
    is_left: bool,
}

/// What a look into the ring finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The next frame: to be copied at once.
    Frame(Slot),
    /// No new one.
    Nothing,
    /// Frames were written over before they were read. The newest is next.
    Lost,
    /// The ring or the encoder's memory is another one now: open it again.
    Replaced,
}

/// Opens the file of a ring and reads its header.
pub fn open_file(path: &Path) -> Result<(File, Header)> {
    let file = File::options().read(true).write(true).open(path)?;
    let header = read_header(&file).map_err(|refused| match refused {
        Refused::NotReady => Error::from(ErrorKind::NotFound),
        Refused::Version(version) => Error::new(
            ErrorKind::Unsupported,
            format!("{} has version {version}, this hksvd reads version {}", path.display(), raptor::VERSION),
        ),
        Refused::Malformed(why) => Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display())),
    })?;
    if file.metadata()?.len() < header.ring_bytes() {
        // It is being made.
        return Err(ErrorKind::NotFound.into());
    }
    Ok((file, header))
}

fn read_header(file: &File) -> core::result::Result<Header, Refused> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|_| Refused::NotReady)?;
    // Nothing behind it is to be read from before it.
    fence(Ordering::SeqCst);
    Header::parse(&bytes)
}

impl Ring {
    /// Opens `rss_ring_NAME`, with its end as the beginning.
    ///
    /// # Errors
    /// `NotFound` when it is not there (yet), `Unsupported` when it has another version.
    pub fn open(root: &Path, name: &str) -> Result<Self> {
        let path = folder(root).join(["rss_ring_", name].concat());
        let (file, header) = open_file(&path)?;
        let frames = match header.encoder {
            None => Frames::Ring,
            Some(encoder) => match find::open(&folder(root).join(["rss_enc_", name].concat())) {
                Ok(file) => Frames::File(file),
                Err(_) => {
                    let device = File::open(root.join("dev/rmem"))?;
                    Frames::Device(Mapping::new(&device, encoder.offset.into(), encoder.bytes as usize, false)?)
                }
            },
        };
        Ok(Ring { file, path, frames, header, next: header.newest.wrapping_add(1), is_left: false })
    }

    /// What it said of itself the last time.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Asks for a key frame.
    pub fn request_key_frame(&self) {
        request_key_frame(&self.file);
    }

    /// Whether the path leads elsewhere by now, or nowhere.
    pub fn is_replaced(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => {
                (held.dev(), held.ino()) != (there.dev(), there.ino())
                    || read_header(&self.file).map(|now| now.incarnation) != Ok(self.header.incarnation)
            }
            _ => true,
        }
    }

    /// Whether the last look found that the writer goes. What the path leads to is another thing: it takes the ring away
    /// afterwards.
    pub fn is_left(&self) -> bool {
        self.is_left
    }

    /// Looks for the next frame.
    pub fn poll(&mut self) -> Found {
        let Ok(header) = read_header(&self.file) else { return Found::Replaced };
        let moved = |header: &Header| header.encoder.map(|e| (e.generation, e.bytes, e.offset));
        if header.incarnation != self.header.incarnation || moved(&header) != moved(&self.header) {
            return Found::Replaced;
        }
        if header.generation != self.header.generation {
            // Half of it may be old: it is looked at twice.
            match read_header(&self.file) {
                Ok(again) if again.generation == header.generation && header.generation.is_multiple_of(2) => {
                    self.header = again;
                }
                _ => return Found::Nothing,
            }
        }
        self.is_left = header.is_left;
        let behind = header.newest.wrapping_sub(self.next) as i32;
        match behind {
            ..0 => return Found::Nothing,
            _ if behind >= header.slots as i32 => return self.lost(header.newest),
            _ => {}
        }
        match self.slot() {
            Some(slot) if slot.sequence == Some(self.next) => Found::Frame(slot),
            _ => self.lost(header.newest),
        }
    }

    fn lost(&mut self, newest: u32) -> Found {
        // The one that was to be read may be the newest and be written over just now.
        self.next = if newest == self.next { newest.wrapping_add(1) } else { newest };
        Found::Lost
    }

    fn slot(&self) -> Option<Slot> {
        let mut bytes = [0; SLOT_BYTES as usize];
        self.file.read_exact_at(&mut bytes, self.header.slot_at(self.next).into()).ok()?;
        fence(Ordering::SeqCst);
        Some(Slot::parse(&bytes))
    }

    /// Whether the frame was still there a moment ago. That its slot is still its own is not enough where the frames
    /// lie in the ring: one after another they may fill it before the slots come round.
    fn is_untouched(&self, slot: &Slot) -> bool {
        let mut table = [0; (SLOTS_MAX * SLOT_BYTES) as usize];
        let (slots, _) = table.as_chunks_mut::<{ SLOT_BYTES as usize }>();
        let Some(slots) = slots.get_mut(..self.header.slots as usize) else { return false };
        if self.file.read_exact_at(slots.as_flattened_mut(), SLOTS_AT.into()).is_err() {
            return false;
        }
        if !matches!(self.frames, Frames::Ring) {
            return slots.iter().any(|there| Slot::parse(there) == *slot);
        }
        let (mut newest, mut is_there) = (*slot, false);
        for there in slots.iter().map(Slot::parse) {
            let Some((sequence, ours)) = there.sequence.zip(slot.sequence) else { continue };
            is_there |= there == *slot;
            let after = sequence.wrapping_sub(ours);
            if after != 0 && after < self.header.slots {
                if slot.overlaps(there.offset, there.length) {
                    return false;
                }
                if after > newest.sequence.map_or(0, |newest| newest.wrapping_sub(ours)) {
                    newest = there;
                }
            }
        }
        // What no slot shows yet lies from the newest to the head, which is read last: all that was begun is in front
        // of it.
        fence(Ordering::SeqCst);
        let Ok(Header { data_head, data_bytes, .. }) = read_header(&self.file) else { return false };
        let end = newest.offset.saturating_add(newest.length);
        let is_written = match data_head.checked_sub(end) {
            Some(bytes) => slot.overlaps(end, bytes),
            None => slot.overlaps(end, data_bytes.saturating_sub(end)) || slot.overlaps(0, data_head),
        };
        is_there && !is_written
    }

    /// Leaves a frame alone.
    pub fn skip(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// Copies the frame that was found and goes on to the next. `out` is as long as the frame.
    pub fn copy(&mut self, slot: &Slot, out: &mut [u8]) -> Found {
        let end = u64::from(slot.offset) + out.len() as u64;
        let copied = match (&self.frames, self.header.encoder) {
            (Frames::Ring, _) => {
                let at = u64::from(self.header.data_at()) + u64::from(slot.offset);
                end <= u64::from(self.header.data_bytes) && self.file.read_exact_at(out, at).is_ok()
            }
            (Frames::File(file), _) => file.read_exact_at(out, slot.offset.into()).is_ok(),
            (Frames::Device(mapping), _) => mapping.copy(slot.offset as usize, out),
        };
        fence(Ordering::SeqCst);
        let Ok(header) = read_header(&self.file) else { return Found::Replaced };
        let is_current = header.encoder.is_none_or(|encoder| slot.is_current(&encoder));
        if !copied || !is_current || !self.is_untouched(slot) {
            return self.lost(header.newest);
        }
        self.next = self.next.wrapping_add(1);
        Found::Frame(*slot)
    }
}

/// Stores the request where the encoder looks for it before each frame. It is a word that both sides write as a whole.
pub fn request_key_frame(file: &File) {
    // Without an answer the next key frame comes when it comes.
    let _ = file.write_all_at(&1u32.to_le_bytes(), raptor::IDR_REQUEST.into());
}

/// The wait for frames: a thread that owns no data turns wake-ups of the ring into those of the reactor.
pub struct Waiter {
    bell: Fd<File>,
    header: Arc<Mapping>,
    ended: Arc<AtomicBool>,
}

/// The thread looks this often whether it is needed, if nothing else happens.
const LOOK: Duration = Duration::from_secs(2);

/// It calls the kernel and nothing else.
const STACK_BYTES: usize = 32 * 1024;

impl Waiter {
    /// Starts to wait for the ring.
    ///
    /// # Errors
    /// When the kernel has no thread, no descriptor or no memory for it.
    pub fn start(ring: &Ring) -> Result<Self> {
        let bell = shm::bell()?;
        let (file, mut ringing) = (ring.file.try_clone()?, bell.try_clone()?);
        let header = Arc::new(Mapping::new(&file, 0, SLOTS_AT as usize, true)?);
        let ended = Arc::new(AtomicBool::new(false));
        let waiter = Waiter { bell: Fd::new(bell)?, header: header.clone(), ended: ended.clone() };
        let wait = move || {
            let mut seen = [0; 4];
            while !ended.load(Ordering::Acquire) {
                let mut there = [0; 4];
                if file.read_exact_at(&mut there, raptor::FUTEX_SEQ.into()).is_err() {
                    return;
                }
                if there != seen {
                    seen = there;
                    let _ = ringing.write_all(&1u64.to_ne_bytes());
                }
                if header.wait(raptor::FUTEX_SEQ as usize, u32::from_le_bytes(there), LOOK).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("raptor".into()).stack_size(STACK_BYTES).spawn(wait)?;
        Ok(waiter)
    }

    /// Waits for more frames; it may return without any.
    pub async fn changed(&self) {
        // An error here would mean that our own bell is broke: then frames come with the timer.
        if self.bell.when_readable(|mut bell| bell.read(&mut [0; 8])).await.is_err() {
            core::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Others who wait for frames look, find none, and wait again.
        self.header.wake(raptor::FUTEX_SEQ as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of two slots in a root of its own, which goes with the test.
    struct Rig {
        root: PathBuf,
        file: File,
    }

    impl Rig {
        fn new(name: &str, with_encoder: bool) -> Rig {
            let root = std::env::temp_dir().join(format!("hksvd-ring-{name}-{}", std::process::id()));
            std::fs::create_dir_all(folder(&root)).unwrap();
            let path = folder(&root).join("rss_ring_main");
            let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
            file.set_len(4096 + 64 + 100).unwrap();
            let rig = Rig { root, file };
            for (at, value) in [(12, 2), (16, 100), (52, 0x5253_5352), (56, 4), (60, 1)] {
                rig.put(at, value);
            }
            if with_encoder {
                rig.put(88, 1);
                rig.put(96, 100);
                std::fs::write(folder(&rig.root).join("rss_enc_main"), [7; 100]).unwrap();
            }
            rig
        }

        fn put(&self, at: u64, value: u32) {
            self.file.write_all_at(&value.to_le_bytes(), at).unwrap();
        }

        /// The frame of this sequence is at `offset`, `length` bytes long.
        fn publish(&self, sequence: u32, offset: u32, length: u32) {
            let at = 4096 + 32 * u64::from(sequence % 2);
            self.put(20, offset.wrapping_add(length));
            for (n, value) in [sequence, 0, offset, length, 0, 0, 0x0001_0013, 0].into_iter().enumerate() {
                self.put(at + 4 * n as u64, value);
            }
            self.put(0, sequence);
            self.put(8, sequence);
        }

        fn open(&self) -> Ring {
            Ring::open(&self.root, "main").unwrap()
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }

    fn frame(ring: &mut Ring) -> Slot {
        match ring.poll() {
            Found::Frame(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_over_during_the_copy_is_lost() {
        let rig = Rig::new("over", false);
        let mut ring = rig.open();
        assert_eq!(ring.poll(), Found::Nothing);
        rig.publish(1, 0, 10);
        let slot = frame(&mut ring);
        assert!(slot.key);
        // The writer comes round: busy first, then another frame in its place.
        rig.put(4096 + 32, u32::MAX);
        rig.put(4096 + 36, u32::MAX);
        assert_eq!(ring.copy(&slot, &mut [0; 10]), Found::Lost);
        rig.publish(2, 10, 10);
        let slot = frame(&mut ring);
        rig.publish(3, 20, 10);
        rig.publish(4, 30, 10);
        assert_eq!(ring.copy(&slot, &mut [0; 10]), Found::Lost);
        // The newest comes next, and what was left alone meanwhile is not missed.
        assert_eq!(frame(&mut ring).sequence, Some(4));
        ring.skip();
        assert_eq!(ring.poll(), Found::Nothing);
        // Another frame lies where this one lay, though its slot is its own.
        rig.publish(5, 0, 10);
        let slot = frame(&mut ring);
        rig.publish(6, 9, 10);
        assert_eq!(ring.copy(&slot, &mut [0; 10]), Found::Lost);
        ring.skip();
        rig.publish(7, 60, 40);
        let slot = frame(&mut ring);
        // The one that is being written has begun anew, and no slot shows it.
        rig.put(20, 61);
        assert_eq!(ring.copy(&slot, &mut [0; 40]), Found::Lost);
        rig.publish(8, 0, 10);
        ring.skip();
        // Its place was written again, but not yet announced.
        rig.put(4096 + 32, 11);
        rig.put(0, 9);
        assert_eq!([ring.poll(), ring.poll()], [Found::Lost, Found::Nothing]);
    }

    #[test]
    fn the_head_shows_what_is_being_written() {
        let rig = Rig::new("head", false);
        let mut ring = rig.open();
        rig.publish(1, 40, 20);
        let slot = frame(&mut ring);
        let heads = |heads: &[u32]| -> Vec<bool> {
            let at = |head: &u32| {
                rig.put(20, *head);
                ring.is_untouched(&slot)
            };
            heads.iter().map(at).collect()
        };
        // Behind it, and from the beginning on.
        assert_eq!(heads(&[60, 61, 100, 0, 40]), [true; 5]);
        assert_eq!(heads(&[41, 59]), [false; 2]);
        // Behind the newest, and then from the beginning on: perhaps only the second of them began anew.
        rig.publish(2, 0, 30);
        assert_eq!(heads(&[30, 40]), [true; 2]);
        assert_eq!(heads(&[41, 60, 100, 29]), [false; 4]);
    }

    #[test]
    fn sequences_begin_anew_after_the_last() {
        let rig = Rig::new("wrap", false);
        rig.publish(u32::MAX - 1, 0, 10);
        let mut ring = rig.open();
        for sequence in [u32::MAX, 0, 1] {
            rig.publish(sequence, 0, 10);
            let slot = frame(&mut ring);
            assert!(matches!(ring.copy(&slot, &mut [0; 10]), Found::Frame(_)), "{sequence}");
        }
        assert_eq!(ring.poll(), Found::Nothing);
    }

    #[test]
    fn a_writer_that_goes_takes_no_frame_along() {
        let rig = Rig::new("goes", false);
        let mut ring = rig.open();
        rig.publish(1, 0, 10);
        rig.put(8, 2);
        let slot = frame(&mut ring);
        assert!(matches!(ring.copy(&slot, &mut [0; 10]), Found::Frame(_)));
        assert_eq!((ring.poll(), ring.is_left()), (Found::Nothing, true));
        rig.publish(2, 10, 10);
        frame(&mut ring);
        assert!(!ring.is_left(), "it has thought better of it");
    }

    #[test]
    fn what_lies_outside_is_lost() {
        let rig = Rig::new("outside", false);
        let mut ring = rig.open();
        for (n, (offset, length)) in [(91, 10), (100, 1), (u32::MAX, 10), (0, 101)].into_iter().enumerate() {
            rig.publish(n as u32 + 1, offset, length);
            let slot = frame(&mut ring);
            assert_eq!(ring.copy(&slot, &mut vec![0; length as usize]), Found::Lost, "{offset} {length}");
        }
        rig.publish(5, 90, 10);
        let slot = frame(&mut ring);
        assert!(matches!(ring.copy(&slot, &mut [0; 10]), Found::Frame(_)));
    }

    #[test]
    fn the_encoder_may_fill_its_buffer_again() {
        let rig = Rig::new("encoder", true);
        let mut ring = rig.open();
        rig.publish(1, 90, 10);
        let (slot, mut out) = (frame(&mut ring), [0; 10]);
        assert_eq!((ring.copy(&slot, &mut out), out), (Found::Frame(slot), [7; 10]));
        rig.publish(2, 0, 10);
        let slot = frame(&mut ring);
        rig.put(108, 1);
        assert_eq!(ring.copy(&slot, &mut out), Found::Lost);
        rig.put(144, 0x100);
        assert_eq!(ring.poll(), Found::Replaced, "its memory is another");
    }

    #[test]
    fn a_ring_that_is_no_ring_is_not_read() {
        let rig = Rig::new("none", false);
        let kind = || Ring::open(&rig.root, "main").map(|_| ()).unwrap_err().kind();
        rig.put(56, 3);
        assert_eq!(kind(), ErrorKind::Unsupported);
        rig.put(56, 4);
        rig.put(12, 3);
        assert_eq!(kind(), ErrorKind::InvalidData);
        rig.put(12, 64);
        assert_eq!(kind(), ErrorKind::NotFound, "more than there is");
        rig.put(12, 2);
        let mut ring = rig.open();
        rig.put(52, 0);
        assert_eq!(kind(), ErrorKind::NotFound);
        assert_eq!(ring.poll(), Found::Replaced);
        rig.file.set_len(0).unwrap();
        assert_eq!(kind(), ErrorKind::NotFound);
        assert!(ring.is_replaced() && ring.poll() == Found::Replaced);
    }

    #[test]
    fn another_codec_is_seen_when_it_is_complete() {
        let rig = Rig::new("codec", false);
        let mut ring = rig.open();
        rig.put(48, 1 << 16);
        rig.put(28, 1);
        rig.publish(1, 0, 10);
        assert_eq!(ring.poll(), Found::Nothing, "it is being changed");
        rig.put(48, 2 << 16);
        assert!(matches!(ring.poll(), Found::Frame(_)));
        assert_eq!(ring.header().codec, raptor::Codec::H265);
    }
}
