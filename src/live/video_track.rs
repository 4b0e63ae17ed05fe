//! The pictures of a live view: a position in the prebuffer.

use super::catch_up::CatchUp;
use super::pacer::Pacer;
use super::packets::{Packets, count};
use super::setup::Begin;
use crate::media::{Prebuffer, Sample};
use crate::time::{Duration, Instant, Pts90k};
use crate::wire::Writer;

/// What [`VideoTrack::put_next`] wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Payload {
    /// The last packet of a picture.
    pub(super) marker: bool,
    /// RTP time without the stream's offset.
    pub(super) rtp_90k: u64,
}

/// Where in the prebuffer a live view is. Holds nothing back: what is overwritten before it was sent
/// is skipped up to the newest IDR picture.
#[derive(Debug)]
pub(super) struct VideoTrack {
    phase: Phase,
    /// Pictures are spread over this part of the time from one to the next.
    pacing_percent: u32,
    /// Number of the picture in hand, or of the next one.
    number: u64,
    /// What the IDR picture before it belonged to.
    epoch: u32,
    /// There is a picture in hand: it has its RTP time.
    in_hand: bool,
    packets: Packets,
    /// RTP time of the picture in hand, or of the one before.
    rtp_90k: u64,
    /// When the one before was captured.
    before_90k: Option<Pts90k>,
    catch_up: CatchUp,
    /// Pictures are waiting that were captured before it began.
    is_behind: bool,
    pacer: Pacer,
    /// When the packet in hand may leave.
    due: Option<Instant>,
    key_wanted: bool,
    lagged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing is sent.
    Off,
    /// It begins when the prebuffer is there to be looked at.
    Chosen(Begin),
    /// An IDR picture has to come, of this number or a later one; after this moment an older one will do.
    AwaitKey { from: u64, patience: Option<Instant>, asked: bool },
    /// One picture after the other.
    Sending,
    /// The rest of the picture in hand, and then nothing.
    Finishing,
}

impl Phase {
    fn await_key(from: u64) -> Phase {
        Phase::AwaitKey { from, patience: None, asked: false }
    }
}

impl VideoTrack {
    pub(super) fn new(pacing_percent: u8) -> VideoTrack {
        VideoTrack {
            phase: Phase::Off,
            pacing_percent: u32::from(pacing_percent.min(100)),
            number: 0,
            epoch: 0,
            in_hand: false,
            packets: Packets::default(),
            rtp_90k: 0,
            before_90k: None,
            catch_up: CatchUp::new(0, 0, 0),
            is_behind: false,
            pacer: Pacer::new(),
            due: None,
            key_wanted: false,
            lagged: false,
        }
    }

    /// Begins, or begins anew, perhaps with another prebuffer. RTP time goes on.
    pub(super) fn begin(&mut self, begin: Begin) {
        self.phase = Phase::Chosen(begin);
        self.due = None;
    }

    /// Sends nothing any more but the rest of a picture of which packets have left: else the last one that is seen would
    /// be torn.
    pub(super) fn finish(&mut self) {
        if self.phase == Phase::Sending && !self.packets.is_at_start() {
            self.phase = Phase::Finishing;
        } else {
            self.stop();
        }
    }

    /// Sends nothing any more.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Off;
        self.due = None;
    }

    /// Whether it has begun to wait for an IDR picture since it was asked last.
    pub(super) fn take_key_wanted(&mut self) -> bool {
        core::mem::take(&mut self.key_wanted)
    }

    /// Whether pictures were lost since it was asked last.
    pub(super) fn take_lagged(&mut self) -> bool {
        core::mem::take(&mut self.lagged)
    }

    /// When to ask again though nothing came in.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::AwaitKey { patience, .. } => patience,
            _ => self.due,
        }
    }

    /// Writes the payload of the next packet, if it may leave now.
    pub(super) fn put_next(
        &mut self,
        now: Instant,
        prebuffer: &Prebuffer,
        limit: usize,
        w: &mut Writer<'_>,
    ) -> Option<Payload> {
        self.due = None;
        while self.find_key(now, prebuffer) {
            let Ok(sample) = prebuffer.video_sample(self.number) else {
                if self.phase == Phase::Finishing {
                    self.stop();
                    return None;
                }
                // A prebuffer that keeps no more than the newest group of pictures lets go of what is in
                // front of a key frame when that comes. A viewer misses nothing then.
                let skipped = prebuffer.newest_key().map_or(u64::MAX, |key| key.saturating_sub(self.number));
                self.lagged |= !self.is_behind && skipped > UNNOTICED;
                self.phase = Phase::await_key(0);
                continue;
            };
            let Some(sample) = sample else {
                self.is_behind = false;
                return None;
            };
            let sets = prebuffer.video().filter(|sets| sample.key && sets.epoch == sample.epoch);
            if self.packets.is_at_start() {
                // What cannot be decoded: its parameter sets were replaced before it was sent, or the
                // IDR picture that it belongs to never came.
                if sample.key && sets.is_none() || !sample.key && sample.epoch != self.epoch {
                    self.phase = Phase::await_key(self.number + 1);
                    continue;
                }
                if !self.in_hand {
                    self.take_in_hand(&sample, now, prebuffer, limit);
                }
            }
            if !self.pacer.is_due(now) {
                self.due = Some(self.pacer.due());
                return None;
            }
            let written = self.packets.put_next(sample.bytes, sets, limit, w);
            if written != Some(false) {
                self.before_90k = Some(sample.pts_90k);
                self.let_go(self.number + 1);
                if self.phase == Phase::Finishing {
                    self.stop();
                }
            }
            if let Some(marker) = written {
                self.pacer.sent();
                return Some(Payload { marker, rtp_90k: self.rtp_90k });
            }
        }
        None
    }

    /// Whether pictures can be sent; looks for where to begin when that is open.
    fn find_key(&mut self, now: Instant, prebuffer: &Prebuffer) -> bool {
        let coming = prebuffer.video_numbers().end;
        let (from, patience, asked) = match self.phase {
            Phase::Off => return false,
            Phase::Sending | Phase::Finishing => return true,
            Phase::Chosen(Begin::FromPrebuffer) => (0, None, false),
            Phase::Chosen(Begin::FreshKey) => (coming, Some(now + FRESH_KEY_PATIENCE), false),
            Phase::AwaitKey { from, patience, asked } => (from, patience, asked),
        };
        let (from, patience) = if patience.is_some_and(|at| at <= now) { (0, None) } else { (from, patience) };
        if self.begin_at_key(from, now, prebuffer) {
            self.phase = Phase::Sending;
            return true;
        }
        self.key_wanted |= !asked;
        self.phase = Phase::AwaitKey { from, patience, asked: true };
        false
    }

    /// Goes to the newest IDR picture, if that has number `from` or a later one.
    fn begin_at_key(&mut self, from: u64, now: Instant, prebuffer: &Prebuffer) -> bool {
        let sample_of = |number| prebuffer.video_sample(number).ok().flatten();
        let Some(number) = prebuffer.newest_key().filter(|number| *number >= from) else { return false };
        let Some(key) = sample_of(number) else { return false };
        if prebuffer.video().is_none_or(|sets| sets.epoch != key.epoch) {
            return false;
        }
        let bytes = (number..prebuffer.video_numbers().end).filter_map(sample_of).map(|sample| sample.bytes.len());
        self.catch_up = CatchUp::new(key.pts_90k, now.as_90k().max(self.rtp_90k + 1), bytes.sum());
        self.pacer.reset(now);
        self.before_90k = None;
        self.is_behind = true;
        self.let_go(number);
        true
    }

    /// The next picture is `number`.
    fn let_go(&mut self, number: u64) {
        self.number = number;
        self.packets = Packets::default();
        self.in_hand = false;
    }

    fn take_in_hand(&mut self, sample: &Sample<'_>, now: Instant, prebuffer: &Prebuffer, limit: usize) {
        self.in_hand = true;
        self.epoch = sample.epoch;
        // Never back, not even by a tick, whatever the clock of the source did.
        self.rtp_90k = self.catch_up.rtp_90k(sample.pts_90k).max(self.rtp_90k + 1);
        let packets = count(sample.bytes, limit) + u32::from(sample.key);
        let interval_90k = self.before_90k.map_or(USUAL_INTERVAL_90K, |before| sample.pts_90k.saturating_sub(before));
        let interval_us = interval_90k.clamp(SHORTEST_INTERVAL_90K, LONGEST_INTERVAL_90K) * 100 / 9;
        let share = Duration::from_micros(interval_us * u64::from(self.pacing_percent) / 100);
        if self.is_behind {
            self.pacer.follow(packets, self.catch_up.time_of(sample.bytes.len(), share));
        } else {
            // Whoever asks too seldom has pictures waiting, and has to hurry.
            let waiting = prebuffer.video_numbers().end.saturating_sub(self.number + 1).min(1000) as u32;
            self.pacer.begin(packets, share / (1 + waiting), now);
        }
    }
}

/// How long to wait for the IDR picture that was asked for.
const FRESH_KEY_PATIENCE: Duration = Duration::from_secs(1);

/// Pictures in front of a key frame that nobody misses.
const UNNOTICED: u64 = 5;

/// 30 pictures a second, 200, and 5.
const USUAL_INTERVAL_90K: u64 = 3000;
const SHORTEST_INTERVAL_90K: u64 = 450;
const LONGEST_INTERVAL_90K: u64 = 18_000;
