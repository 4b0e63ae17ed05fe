//! The fixed ring of one track: media bytes and an index over them.

use super::Gone;
use crate::time::Pts90k;
use crate::wire::Writer;

/// A sample in the ring: video with 4-byte lengths, or one raw AAC frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample<'a> {
    /// When it was captured.
    pub pts_90k: Pts90k,
    /// A decoder can start here. Every audio sample is one.
    pub key: bool,
    /// The epoch of the parameters that it belongs to.
    pub epoch: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) pts_90k: Pts90k,
    at: u32,
    pub(super) len: u32,
    pub(super) epoch: u32,
    pub(super) key: bool,
}

/// Bytes that [`Ring::new`] claims for each entry of its index.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

/// Samples in the order in which they came, each in one piece, numbered from 0 since the start. The
/// newest always gets its place: the writer evicts the oldest, a reader that still wanted it is told
/// [`Gone`].
pub(super) struct Ring {
    bytes: Box<[u8]>,
    index: Box<[Entry]>,
    /// Number of the oldest sample held.
    first: u64,
    /// Number that the next sample gets.
    next: u64,
    /// Where the next sample goes, if it fits in front of the end.
    head: usize,
    evictions: u32,
    /// All that is free is overwritten.
    wiped: bool,
}

impl Ring {
    /// Claims everything there will ever be.
    pub(super) fn new(bytes: usize, entries: usize) -> Self {
        Ring {
            bytes: vec![0; bytes].into_boxed_slice(),
            index: vec![Entry::default(); entries.max(1)].into_boxed_slice(),
            first: 0,
            next: 0,
            head: 0,
            evictions: 0,
            wiped: true,
        }
    }

    /// The numbers of the samples held.
    pub(super) fn numbers(&self) -> core::ops::Range<u64> {
        self.first..self.next
    }

    /// Samples that had to make room.
    pub(super) fn evictions(&self) -> u32 {
        self.evictions
    }

    /// Appends a sample of `len` bytes that `fill` writes; `false` when it is larger than the ring.
    pub(super) fn push(
        &mut self,
        len: usize,
        pts_90k: Pts90k,
        key: bool,
        epoch: u32,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> bool {
        if len > self.bytes.len() {
            return false;
        }
        while self.next - self.first == self.index.len() as u64 {
            self.evict();
        }
        let at = loop {
            match self.room(len) {
                Some(at) => break at,
                None => self.evict(),
            }
        };
        let mut w = Writer::new(&mut self.bytes[at..at + len]);
        fill(&mut w);
        debug_assert_eq!(w.len(), len);
        let slot = self.slot(self.next);
        self.index[slot] = Entry { pts_90k, at: at as u32, len: len as u32, epoch, key };
        self.next += 1;
        self.head = at + len;
        true
    }

    /// Where `len` contiguous free bytes begin.
    fn room(&self, len: usize) -> Option<usize> {
        let Some(oldest) = self.entry(self.first) else { return Some(0) };
        let tail = oldest.at as usize;
        if self.head <= tail {
            // The samples wrap: what is free lies between the newest and the oldest.
            (len <= tail - self.head).then_some(self.head)
        } else if len <= self.bytes.len() - self.head {
            Some(self.head)
        } else {
            (len <= tail).then_some(0)
        }
    }

    fn evict(&mut self) {
        self.first += 1;
        self.evictions = self.evictions.saturating_add(1);
        self.wiped = false;
    }

    /// Lets go of everything in front of sample `number`, and overwrites it and what was evicted before.
    pub(super) fn discard_before(&mut self, number: u64) {
        let number = number.clamp(self.first, self.next);
        if self.wiped {
            // Nothing lies about but what is let go of now: this comes once a GOP, and the ring is large.
            for gone in self.first..number {
                let Entry { at, len, .. } = self.index[self.slot(gone)];
                self.bytes[at as usize..][..len as usize].fill(0);
            }
            self.first = number;
            return;
        }
        self.first = number;
        let Some(oldest) = self.entry(self.first) else { return self.clear() };
        let tail = oldest.at as usize;
        if self.head <= tail {
            let ends = self.entries_from(self.first).map(|(_, e)| (e.at + e.len) as usize);
            let end = ends.max().unwrap_or(tail);
            self.bytes[self.head..tail].fill(0);
            self.bytes[end..].fill(0);
        } else {
            self.bytes[..tail].fill(0);
            self.bytes[self.head..].fill(0);
        }
        self.wiped = true;
    }

    /// Lets go of everything and overwrites it, what was evicted before included.
    pub(super) fn clear(&mut self) {
        self.bytes.fill(0);
        self.first = self.next;
        self.head = 0;
        self.wiped = true;
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.index.len() as u64) as usize
    }

    /// The index entry of a sample, when it is held.
    pub(super) fn entry(&self, number: u64) -> Option<Entry> {
        self.numbers().contains(&number).then(|| self.index[self.slot(number)])
    }

    /// The newest entry.
    pub(super) fn newest(&self) -> Option<Entry> {
        self.next.checked_sub(1).and_then(|number| self.entry(number))
    }

    /// The entries held with their numbers, from number `from` on.
    pub(super) fn entries_from(&self, from: u64) -> impl Iterator<Item = (u64, Entry)> + '_ {
        (from.max(self.first)..self.next).filter_map(|number| Some((number, self.entry(number)?)))
    }

    /// Sample `number`; `None` when it is still to come.
    ///
    /// # Errors
    /// [`Gone::Overrun`] when it was evicted.
    pub(super) fn sample(&self, number: u64) -> Result<Option<Sample<'_>>, Gone> {
        if number < self.first {
            return Err(Gone::Overrun);
        }
        Ok(self.entry(number).map(|e| Sample {
            pts_90k: e.pts_90k,
            key: e.key,
            epoch: e.epoch,
            bytes: &self.bytes[e.at as usize..][..e.len as usize],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Clear,
        DiscardBefore(u64),
        Read(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (1usize..70).prop_map(Step::Push),
            1 => Just(Step::Clear),
            1 => (0u64..400).prop_map(Step::DiscardBefore),
            10 => (0u64..400).prop_map(Step::Read),
        ]
    }

    proptest! {
        /// Whatever happens, the ring holds the newest samples of a queue without limits, whole and in
        /// order, and evicts only when it must.
        #[test]
        fn holds_the_newest_of_an_endless_queue(
            steps in prop::collection::vec(step(), 1..400),
            capacity in 1usize..200,
            entries in 1usize..12,
        ) {
            let mut ring = Ring::new(capacity, entries);
            let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
            let mut number = 0u64;
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let bytes: Vec<u8> = (0..len).map(|i| (i as u64 * 7 + number + 1) as u8 | 1).collect();
                        let evictions = ring.evictions();
                        let fits = ring.push(len, number * 10, len % 3 == 0, number as u32, |w| w.bytes(&bytes));
                        prop_assert_eq!(fits, len <= capacity);
                        if fits {
                            model.push_back((number, bytes));
                            number += 1;
                        }
                        let evicted = (ring.evictions() - evictions) as usize;
                        if evicted > 0 {
                            // The last one evicted stood in the way: of the index, or of contiguous bytes.
                            let kept: usize = model.iter().skip(evicted - 1).map(|(_, b)| b.len()).sum();
                            prop_assert!(model.len() - evicted + 1 > entries || kept + 2 * 69 > capacity);
                        }
                        model.drain(..evicted);
                    }
                    Step::Clear => {
                        ring.clear();
                        model.clear();
                        prop_assert!(ring.bytes.iter().all(|&b| b == 0));
                    }
                    Step::DiscardBefore(n) => {
                        ring.discard_before(n);
                        model.retain(|(number, _)| *number >= n);
                        let held: usize = model.iter().map(|(_, b)| b.len()).sum();
                        prop_assert_eq!(ring.bytes.iter().filter(|&&b| b != 0).count(), held);
                    }
                    Step::Read(n) => match ring.sample(n) {
                        Err(gone) => {
                            prop_assert_eq!(gone, Gone::Overrun);
                            prop_assert!(n < number && model.front().is_none_or(|(first, _)| n < *first));
                        }
                        Ok(None) => prop_assert!(n >= number),
                        Ok(Some(sample)) => {
                            prop_assert_eq!(sample.pts_90k, n * 10);
                            prop_assert_eq!(sample.epoch, n as u32);
                        }
                    },
                }
                prop_assert_eq!(ring.numbers().count(), model.len());
                for (number, bytes) in &model {
                    prop_assert_eq!(ring.sample(*number).unwrap().unwrap().bytes, &bytes[..]);
                }
            }
        }
    }

    #[test]
    fn a_sample_as_large_as_the_ring_fits() {
        let mut ring = Ring::new(8, 4);
        for fill in 1..5 {
            assert!(ring.push(8, 0, true, 0, |w| w.bytes(&[fill; 8])));
            assert_eq!(ring.numbers().count(), 1);
        }
        assert!(!ring.push(9, 0, true, 0, |_| ()));
        assert_eq!(ring.sample(3).unwrap().unwrap().bytes, [4; 8]);
        assert_eq!(ring.sample(2), Err(Gone::Overrun));
        assert_eq!(ring.sample(4), Ok(None));
    }
}
