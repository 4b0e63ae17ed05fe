//! Audio on the time line of the video: which AAC frame of the ring fills which 1024 samples of a
//! recording, and where silence must.

use super::prebuffer::Prebuffer;
use crate::time::Pts90k;
use crate::wire::aac::{FRAME_SAMPLES, SILENT_MONO};
use heapless::Vec;

/// Consecutive audio samples of a fragment from one origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// Number of the first one in the ring; `None`: silence.
    pub(super) ring: Option<u64>,
    pub(super) count: u32,
}

/// More changes between sound and silence than any fragment of a working microphone has; behind them
/// a fragment goes on in silence.
const MAX_RUNS: usize = 32;

/// The audio of one fragment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Plan {
    pub(super) runs: Vec<Run, MAX_RUNS>,
    /// AAC frames in all runs.
    pub(super) frames: u32,
    /// Their bytes.
    pub(super) bytes: u32,
    /// AAC frames of the recording in front of this fragment.
    pub(super) first: u64,
    /// The ring ended before the fragment did: what is missing may still come.
    pub(super) starved: bool,
}

impl Plan {
    /// One item per AAC frame: its number in the ring, `None` for silence.
    pub(super) fn frames(&self) -> impl Iterator<Item = Option<u64>> + '_ {
        self.runs.iter().flat_map(|run| (0..u64::from(run.count)).map(|i| run.ring.map(|first| first + i)))
    }

    fn push(&mut self, frame: Option<(u64, u32)>) {
        let room = self.runs.len() < MAX_RUNS - 1;
        let (ring, len) = match (frame, self.runs.last_mut()) {
            (Some((number, len)), Some(run))
                if run.ring.is_some_and(|first| first + u64::from(run.count) == number) =>
            {
                run.count += 1;
                self.frames += 1;
                self.bytes += len;
                return;
            }
            (Some((number, len)), _) if room => (Some(number), len),
            _ => (None, SILENT_MONO.len() as u32),
        };
        self.frames += 1;
        self.bytes += len;
        match self.runs.last_mut() {
            Some(Run { ring: None, count }) if ring.is_none() => *count += 1,
            // There is room: sound leaves the last place to silence.
            _ => drop(self.runs.push(Run { ring, count: 1 })),
        }
    }
}

/// Fills the time of a recording with AAC frames without gap and overlap, 1024 samples each.
#[derive(Clone, Copy)]
pub(super) struct Aligner {
    rate_hz: u32,
    /// Time of the first sample of the recording.
    origin_90k: Pts90k,
    /// Frames placed so far.
    placed: u64,
    /// The next frame of the ring that was not placed or dropped.
    next: u64,
    /// The frame before came from the ring, so this one may be off by a frame; else by half of one.
    settled: bool,
}

impl Aligner {
    pub(super) fn new(rate_hz: u32, origin_90k: Pts90k) -> Self {
        Aligner { rate_hz: rate_hz.max(1), origin_90k, placed: 0, next: 0, settled: false }
    }

    /// Ticks of 90 kHz that `frames` AAC frames last.
    fn ticks(&self, frames: u64) -> u64 {
        frames * u64::from(FRAME_SAMPLES) * 90_000 / u64::from(self.rate_hz)
    }

    /// AAC frames that come nearest to the time from the origin until `end_90k`.
    fn frames_until(&self, end_90k: Pts90k) -> u64 {
        let frame = u64::from(FRAME_SAMPLES) * 90_000;
        (end_90k.saturating_sub(self.origin_90k) * u64::from(self.rate_hz) + frame / 2) / frame
    }

    /// Places audio until `end_90k`: from the ring of `live`, else silence.
    pub(super) fn place(&mut self, end_90k: Pts90k, live: Option<&Prebuffer>) -> Plan {
        let mut plan = Plan { first: self.placed, ..Plan::default() };
        while self.placed < self.frames_until(end_90k) {
            let frame = live.and_then(|prebuffer| self.take(prebuffer, &mut plan.starved));
            self.settled = frame.is_some();
            plan.push(frame);
            self.placed += 1;
        }
        plan
    }

    /// The frame of the ring that belongs to the next place: number and length.
    fn take(&mut self, prebuffer: &Prebuffer, starved: &mut bool) -> Option<(u64, u32)> {
        let place = self.origin_90k + self.ticks(self.placed);
        self.next = self.next.max(prebuffer.audio_numbers().start);
        loop {
            let tolerance = if self.settled { self.ticks(1) } else { self.ticks(1) / 2 };
            let Some(entry) = prebuffer.audio_entry(self.next) else {
                *starved = true;
                return None;
            };
            if entry.pts_90k > place + tolerance {
                return None;
            }
            let number = self.next;
            self.next += 1;
            if entry.pts_90k + tolerance >= place {
                return Some((number, entry.len));
            }
            self.settled = false;
        }
    }
}
