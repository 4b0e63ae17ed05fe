//! The ring `speaker`, which we write and the streamer's audio program plays: it attaches when the ring appears.

use super::ring;
use crate::sys::shm::Mapping;
use crate::wire::Writer;
use crate::wire::raptor::{self, BUSY, HEADER_BYTES, SLOT_BYTES, SLOTS_AT, Slot};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The streamer expects these sizes.
const SLOTS: u32 = 16;
const DATA_BYTES: u32 = 65_536;
const DATA_AT: u32 = SLOTS_AT + SLOTS * SLOT_BYTES;

/// Whoever may talk may talk: as the streamer makes its own.
const MODE: u32 = 0o666;

/// The ring as long as somebody talks. It goes when dropped: the streamer would attach again and repeat the last word.
pub struct SpeakerRing {
    file: File,
    path: PathBuf,
    header: Mapping,
    incarnation: u32,
    sequence: u64,
    head: u32,
    /// Samples so far.
    samples: u64,
    rate_hz: u32,
}

impl SpeakerRing {
    /// Makes the ring for PCM of one channel at `rate_hz`. Whoever wrote into it before has to stop.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path, rate_hz: u32) -> Result<Self> {
        let path = ring::folder(root).join("rss_ring_speaker");
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(MODE).open(&path)?;
        // Not every umask lets others write. Somebody else's file is as it is.
        let _ = file.set_permissions(Permissions::from_mode(MODE));
        let mut before = [0; 4];
        // 0 of an empty file.
        let _ = file.read_exact_at(&mut before, raptor::INCARNATION.into());
        let incarnation = u32::from_le_bytes(before).wrapping_add(1);
        file.write_all_at(&[0; 4], raptor::MAGIC.into())?;
        file.set_len(u64::from(DATA_AT + DATA_BYTES))?;
        let mut bytes = [0; HEADER_BYTES];
        let mut w = Writer::new(&mut bytes);
        raptor::put_pcm_header(&mut w, SLOTS, DATA_BYTES, rate_hz, incarnation);
        file.write_all_at(w.written(), 0)?;
        file.write_all_at(&[0xff; (SLOTS * SLOT_BYTES) as usize], SLOTS_AT.into())?;
        file.write_all_at(&raptor::MAGIC_VALUE.to_le_bytes(), raptor::MAGIC.into())?;
        let header = Mapping::new(&file, 0, SLOTS_AT as usize, true)?;
        Ok(SpeakerRing { file, path, header, incarnation, sequence: 0, head: 0, samples: 0, rate_hz })
    }

    /// Publishes 16-bit samples, lower byte first.
    ///
    /// # Errors
    /// `BrokenPipe` when somebody else talks now.
    pub fn write(&mut self, pcm: &[u8]) -> Result<usize> {
        let length = u32::try_from(pcm.len()).unwrap_or(u32::MAX);
        if length > DATA_BYTES {
            return Err(ErrorKind::InvalidInput.into());
        }
        if !self.is_ours() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let offset = if self.head + length > DATA_BYTES { 0 } else { self.head };
        self.head = offset + length;
        self.sequence += 1;
        let at = u64::from(SLOTS_AT + SLOT_BYTES * (self.sequence as u32 % SLOTS));
        let timestamp_us = (self.samples * 1_000_000 / u64::from(self.rate_hz.max(1))) as i64;
        self.samples += u64::from(length / 2);
        let slot = Slot { sequence: None, offset, length, timestamp_us, key: true, buffer: 0, filled: 0 };
        let mut fields = [0; SLOT_BYTES as usize - 8];
        slot.put(&mut Writer::new(&mut fields));
        let sequence = self.sequence.to_le_bytes();
        // Each call is done before the next begins, and that is the order in which others see it.
        self.file.write_all_at(&BUSY.to_le_bytes(), at)?;
        self.file.write_all_at(pcm, u64::from(DATA_AT + offset))?;
        self.file.write_all_at(&fields, at + 8)?;
        self.file.write_all_at(&sequence, at)?;
        self.file.write_all_at(&self.head.to_le_bytes(), raptor::DATA_HEAD.into())?;
        self.file.write_all_at(&sequence, raptor::WRITE_SEQ.into())?;
        self.file.write_all_at(&sequence[..4], raptor::FUTEX_SEQ.into())?;
        self.header.wake(raptor::FUTEX_SEQ as usize);
        Ok(pcm.len())
    }

    fn is_ours(&self) -> bool {
        let mut incarnation = [0; 4];
        self.file.read_exact_at(&mut incarnation, raptor::INCARNATION.into()).is_ok()
            && u32::from_le_bytes(incarnation) == self.incarnation
            && match (self.file.metadata(), std::fs::metadata(&self.path)) {
                (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
                _ => false,
            }
    }
}

impl Drop for SpeakerRing {
    fn drop(&mut self) {
        if self.is_ours() {
            // The streamer takes the ring away, too, when it stops.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
