//! The rings `jpeg0` and `jpeg1`: their encoder sleeps as long as nobody reads.

use super::ring::{self, Found, Ring};
use crate::io::runtime::{now, sleep_until};
use crate::sys::proc;
use crate::sys::shm::Mapping;
use crate::time::Duration;
use crate::wire::raptor::{READER_COUNT, READER_PIDS, READERS_MAX, SLOTS_AT};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Between two looks: a thread for one picture is not worth it.
const LOOK: Duration = Duration::from_millis(30);

/// Keeps the encoder awake, and lets it sleep again however this ends.
struct Demand {
    header: Mapping,
    place: usize,
    pid: u32,
}

/// Where a reader's process number stands.
fn places() -> impl Iterator<Item = usize> {
    (0..READERS_MAX).map(|n| (READER_PIDS + 4 * n) as usize)
}

/// Opens a ring of pictures. Readers that were killed are taken out: the encoder would work for them for ever.
fn open(path: &Path) -> Result<Mapping> {
    let (file, _) = ring::open_file(path)?;
    let header = Mapping::new(&file, 0, SLOTS_AT as usize, true)?;
    for place in places() {
        let mut pid = [0; 4];
        file.read_exact_at(&mut pid, place as u64)?;
        let pid = u32::from_le_bytes(pid);
        if proc::is_gone(pid) && header.replace(place, pid, 0) {
            header.count(READER_COUNT as usize, -1);
        }
    }
    Ok(header)
}

/// Takes readers that were killed out of both rings.
pub fn bury(root: &Path) {
    for name in ["rss_ring_jpeg0", "rss_ring_jpeg1"] {
        // Not there: nothing to do.
        let _ = open(&ring::folder(root).join(name));
    }
}

impl Demand {
    fn new(path: &Path) -> Result<Self> {
        let header = open(path)?;
        let pid = std::process::id();
        let free = places().find(|&place| header.replace(place, 0, pid));
        let place = free.ok_or_else(|| Error::new(ErrorKind::ResourceBusy, "four others take pictures already"))?;
        header.count(READER_COUNT as usize, 1);
        Ok(Demand { header, place, pid })
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        // In a ring that was made anew meanwhile nobody knows of us, and nothing is to be taken back.
        if self.header.replace(self.place, self.pid, 0) {
            self.header.count(READER_COUNT as usize, -1);
        }
    }
}

/// Waits for the next picture of the main stream (`large`) or of the small one. There is no limit of time: drop it.
///
/// # Errors
/// `NotFound` without such a ring, and whatever else is wrong with it.
pub async fn picture(root: &Path, large: bool, most: usize) -> Result<Vec<u8>> {
    let name = if large { "jpeg0" } else { "jpeg1" };
    let mut ring = Ring::open(root, name)?;
    let _demand = Demand::new(&ring::folder(root).join(["rss_ring_", name].concat()))?;
    loop {
        match ring.poll() {
            Found::Frame(slot) if slot.length as usize > most => return Err(ErrorKind::FileTooLarge.into()),
            Found::Frame(slot) => {
                let mut jpeg = vec![0; slot.length as usize];
                if let Found::Frame(_) = ring.copy(&slot, &mut jpeg) {
                    return Ok(jpeg);
                }
            }
            Found::Replaced => return Err(ErrorKind::ConnectionReset.into()),
            Found::Lost => {}
            Found::Nothing => sleep_until(now() + LOOK).await,
        }
    }
}
