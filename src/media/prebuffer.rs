//! The prebuffer: the last seconds of video and audio, in one fixed ring each.

use super::parameters::{AudioParameters, Collector, VideoParameters};
use super::ring::{ENTRY_BYTES, Entry, Ring, Sample};
use super::{Gone, ms_to_90k};
use crate::time::{Duration, Pts90k};
use crate::wire::h264::{AnnexB, length_prefixed_len, put_length_prefixed};

/// One picture as the encoder handed it out.
#[derive(Clone, Copy, Debug)]
pub struct AccessUnit<'a> {
    /// NAL units with start codes, parameter sets and all.
    pub annexb: AnnexB<'a>,
    /// When it was captured.
    pub pts_90k: Pts90k,
    /// It is an IDR picture.
    pub key: bool,
}

/// How much of what comes in may be kept (privacy).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// Camera off, or nobody may look: parameters only.
    Nothing,
    /// Only live view is allowed: from the newest IDR on, no more. Too little for a [`super::Reader`],
    /// which takes whole GOPs.
    CurrentGop,
    /// Recording is armed: all that fits.
    Everything,
}

/// Sizes of the rings, made from what the whole media path may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Bytes for video samples.
    pub video_bytes: usize,
    /// Bytes for audio samples.
    pub audio_bytes: usize,
    /// Largest access unit that an assembler takes ([`super::annexb::Assembler`]).
    pub access_unit_bytes: usize,
}

impl Budget {
    /// Entries in each index: 34 s at 30 frames a second, 21 s of AAC at 48 kHz.
    pub const ENTRIES: usize = 1024;
    /// Bytes of the two indexes.
    pub const INDEX_BYTES: usize = 2 * Self::ENTRIES * ENTRY_BYTES;
    /// The buffer for one chunk that the data stream keeps (HDS, 0x40000 bytes).
    pub const CHUNK_BYTES: usize = 256 * 1024;

    /// Divides `memory_kb` KiB: what is fixed first, then audio by its share of the bitrate (and a
    /// quarter more, so that it never runs out before the video), the rest for video. A budget that
    /// is too small for anything still gives rings of 64 KiB and 8 KiB.
    pub fn from_memory(memory_kb: u32, video_kbps: u32, audio_kbps: u32) -> Budget {
        let memory = memory_kb as usize * 1024;
        let access_unit_bytes = (memory / 12).clamp(64 * 1024, 512 * 1024);
        let fixed = Self::CHUNK_BYTES + access_unit_bytes + Self::INDEX_BYTES;
        let rings = memory.saturating_sub(fixed) as u64;
        let audio_share = u64::from(audio_kbps) * 5 / 4;
        let audio = rings * audio_share / (u64::from(video_kbps) + audio_share).max(1);
        let audio_bytes = if audio_kbps == 0 { 0 } else { (audio as usize).max(8 * 1024) };
        let video_bytes = (rings as usize).saturating_sub(audio_bytes).max(64 * 1024);
        Budget { video_bytes, audio_bytes, access_unit_bytes }
    }

    /// How long the video ring reaches back at this bitrate.
    pub fn seconds_held(&self, video_kbps: u32) -> u32 {
        (self.video_bytes as u64 * 8 / (u64::from(video_kbps.max(1)) * 1000)) as u32
    }
}

/// What has happened since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Access units that were taken.
    pub frames: u32,
    /// Bytes of video and audio that were taken.
    pub bytes: u64,
    /// Audio frames that were taken.
    pub audio_frames: u32,
    /// Samples that had to make room for newer ones.
    pub evictions: u32,
    /// Access units and audio frames larger than their ring.
    pub oversized: u32,
    /// Access units dropped because the IDR before them was missing.
    pub awaiting_key: u32,
    /// Parameter sets that could not be read.
    pub bad_parameters: u32,
}

/// What the video that is held amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measured {
    /// Frame rate times 1000.
    pub frames_per_1000_s: u32,
    /// Bitrate in kbit/s.
    pub video_kbps: u32,
}

/// The last seconds of video and audio. Claims its memory in [`Prebuffer::new`] and never again;
/// pushing copies the only copy that is made on the way in.
pub struct Prebuffer {
    video: Ring,
    audio: Ring,
    collector: Collector,
    parameters: Option<VideoParameters>,
    audio_parameters: Option<AudioParameters>,
    epoch: u32,
    retention: Retention,
    /// Nothing can be decoded until an IDR comes.
    awaiting_key: bool,
    newest_key: Option<(u64, Pts90k)>,
    /// When the last IDR came in, whether it was kept or not.
    last_key_90k: Option<Pts90k>,
    gop_90k: Option<u64>,
    counters: Counters,
}

impl Prebuffer {
    /// Claims the rings of `budget`. Nothing is kept until [`Prebuffer::set_retention`] allows it.
    pub fn new(budget: Budget) -> Self {
        Prebuffer {
            video: Ring::new(budget.video_bytes, Budget::ENTRIES),
            audio: Ring::new(budget.audio_bytes, Budget::ENTRIES),
            collector: Collector::default(),
            parameters: None,
            audio_parameters: None,
            epoch: 0,
            retention: Retention::Nothing,
            awaiting_key: true,
            newest_key: None,
            last_key_90k: None,
            gop_90k: None,
            counters: Counters::default(),
        }
    }

    /// Takes a picture. Times that do not move forward are moved by one tick. After a lost or
    /// oversized picture everything up to the next IDR is dropped.
    pub fn push_video(&mut self, unit: AccessUnit<'_>) {
        self.take_parameters(unit.annexb);
        let len = length_prefixed_len(unit.annexb);
        if len == 0 {
            return;
        }
        if unit.key {
            self.gop_90k = self.last_key_90k.map(|before| unit.pts_90k.saturating_sub(before)).or(self.gop_90k);
            self.last_key_90k = Some(unit.pts_90k);
        }
        if self.retention == Retention::Nothing {
            return;
        }
        if self.parameters.is_none() || self.awaiting_key && !unit.key {
            self.counters.awaiting_key = self.counters.awaiting_key.saturating_add(1);
            return;
        }
        let pts_90k = self.video.newest().map_or(unit.pts_90k, |newest| unit.pts_90k.max(newest.pts_90k + 1));
        let number = self.video.numbers().end;
        if !self.video.push(len, pts_90k, unit.key, self.epoch, |w| put_length_prefixed(unit.annexb, w)) {
            self.counters.oversized = self.counters.oversized.saturating_add(1);
            self.awaiting_key = true;
            return;
        }
        if unit.key {
            self.awaiting_key = false;
            self.newest_key = Some((number, pts_90k));
            if self.retention == Retention::CurrentGop {
                self.discard_before_newest_key();
            }
        }
        self.counters.frames = self.counters.frames.wrapping_add(1);
        self.counters.bytes = self.counters.bytes.wrapping_add(len as u64);
    }

    fn take_parameters(&mut self, annexb: AnnexB<'_>) {
        let mut changed = false;
        for nal in annexb.nals() {
            // Parameter sets stand in front of the slices: no need to search those.
            if nal.nal_type().is_vcl() {
                break;
            }
            match self.collector.push(nal) {
                Ok(new) => changed |= new,
                Err(_) => self.counters.bad_parameters = self.counters.bad_parameters.saturating_add(1),
            }
        }
        if changed {
            self.restart();
            self.parameters = self.collector.complete(self.epoch);
        }
    }

    /// Takes one raw AAC frame. One that goes back in time is moved forward by a tick.
    pub fn push_audio(&mut self, raw_aac: &[u8], pts_90k: Pts90k) {
        if self.audio_parameters.is_none() || self.retention == Retention::Nothing || raw_aac.is_empty() {
            return;
        }
        let pts_90k = self.audio.newest().map_or(pts_90k, |newest| pts_90k.max(newest.pts_90k + 1));
        if !self.audio.push(raw_aac.len(), pts_90k, true, 0, |w| w.bytes(raw_aac)) {
            self.counters.oversized = self.counters.oversized.saturating_add(1);
            return;
        }
        self.counters.audio_frames = self.counters.audio_frames.wrapping_add(1);
        self.counters.bytes = self.counters.bytes.wrapping_add(raw_aac.len() as u64);
    }

    /// Says what the audio frames that follow are, or that there will be none. A change drops what is
    /// held: it cannot be mixed. Recordings go on, with silence where frames are missing.
    pub fn set_audio(&mut self, parameters: Option<AudioParameters>) {
        if parameters != self.audio_parameters {
            self.audio_parameters = parameters;
            self.audio.clear();
        }
    }

    /// The source has restarted: what comes next does not continue what is held. Running readers end
    /// after what is there.
    pub fn restart(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.awaiting_key = true;
        self.last_key_90k = None;
        self.parameters = self.parameters.take().map(|p| VideoParameters { epoch: self.epoch, ..p });
    }

    /// Pictures are missing in front of the next one: the distance of its key frame to the last one says nothing.
    pub fn handle_gap(&mut self) {
        self.last_key_90k = None;
    }

    /// Sets how much may be kept; what no longer may be is overwritten at once.
    pub fn set_retention(&mut self, retention: Retention) {
        if retention == self.retention {
            return;
        }
        self.retention = retention;
        match retention {
            Retention::Nothing => self.clear(),
            Retention::CurrentGop => self.discard_before_newest_key(),
            Retention::Everything => {}
        }
    }

    /// How much may be kept.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    fn discard_before_newest_key(&mut self) {
        let Some((number, pts_90k)) = self.newest_key else { return self.clear() };
        self.video.discard_before(number);
        let audio = self.audio.entries_from(0).find(|(_, e)| e.pts_90k >= pts_90k).map(|(number, _)| number);
        self.audio.discard_before(audio.unwrap_or(self.audio.numbers().end));
    }

    /// Overwrites everything that is held. The parameters stay; the next IDR starts anew.
    pub fn clear(&mut self) {
        if !self.video.numbers().is_empty() || !self.audio.numbers().is_empty() {
            self.video.clear();
            self.audio.clear();
        }
        self.awaiting_key = true;
        self.newest_key = None;
    }

    /// The parameters of the pictures that come in now, once SPS and PPS were seen.
    pub fn video(&self) -> Option<&VideoParameters> {
        self.parameters.as_ref()
    }

    /// What the audio source delivers.
    pub fn audio(&self) -> Option<AudioParameters> {
        self.audio_parameters
    }

    /// The time between the oldest IDR and the newest picture held.
    pub fn held(&self) -> Duration {
        let oldest = self.video.entries_from(0).find(|(_, e)| e.key);
        let ticks = match (oldest, self.video.newest()) {
            (Some((_, oldest)), Some(newest)) => newest.pts_90k - oldest.pts_90k,
            _ => 0,
        };
        Duration::from_micros(ticks * 100 / 9)
    }

    /// Bytes of video and audio held.
    pub fn bytes_held(&self) -> usize {
        let sum = |ring: &Ring| ring.entries_from(0).map(|(_, e)| e.len as usize).sum::<usize>();
        sum(&self.video) + sum(&self.audio)
    }

    /// The time from IDR to IDR, as last seen. Above 5 s a hub may give up waiting for a fragment.
    pub fn gop(&self) -> Option<Duration> {
        self.gop_90k.map(|ticks| Duration::from_micros(ticks * 100 / 9))
    }

    /// Frame rate and bitrate of the video, over what is held; `None` below one second.
    pub fn measured(&self) -> Option<Measured> {
        let mut entries = self.video.entries_from(0).map(|(_, e)| e);
        let oldest = entries.next()?;
        let (count, bytes) = entries.fold((0u64, 0u64), |(count, bytes), e| (count + 1, bytes + u64::from(e.len)));
        let ticks = self.video.newest()?.pts_90k - oldest.pts_90k;
        (ticks >= 90_000).then(|| Measured {
            frames_per_1000_s: (count * 90_000_000 / ticks) as u32,
            video_kbps: (bytes * 8 * 90 / ticks) as u32,
        })
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        Counters { evictions: self.video.evictions().saturating_add(self.audio.evictions()), ..self.counters }
    }

    /// Numbers of the video samples held: `end` is the number that the next one gets.
    pub fn video_numbers(&self) -> core::ops::Range<u64> {
        self.video.numbers()
    }

    /// Video sample `number`; `None` when it is still to come.
    ///
    /// # Errors
    /// [`Gone::Overrun`] when it was overwritten.
    pub fn video_sample(&self, number: u64) -> Result<Option<Sample<'_>>, Gone> {
        self.video.sample(number)
    }

    /// The number of the newest IDR picture held.
    pub fn newest_key(&self) -> Option<u64> {
        self.newest_key.map(|(number, _)| number).filter(|number| self.video.numbers().contains(number))
    }

    /// Numbers of the audio samples held.
    pub fn audio_numbers(&self) -> core::ops::Range<u64> {
        self.audio.numbers()
    }

    /// Audio sample `number`, as [`Prebuffer::video_sample`].
    ///
    /// # Errors
    /// [`Gone::Overrun`] when it was overwritten.
    pub fn audio_sample(&self, number: u64) -> Result<Option<Sample<'_>>, Gone> {
        self.audio.sample(number)
    }

    /// The newest IDR of the current epoch that is at least `ms` older than the newest picture, else
    /// the oldest IDR of the epoch.
    pub(super) fn key_before(&self, ms: u32) -> Option<u64> {
        let newest = self.video.newest()?.pts_90k;
        let keys = || self.video.entries_from(0).filter(|(_, e)| e.key && e.epoch == self.epoch);
        keys().filter(|(_, e)| e.pts_90k + ms_to_90k(ms) <= newest).last().or_else(|| keys().next()).map(|(n, _)| n)
    }

    pub(super) fn video_entries(&self, from: u64) -> impl Iterator<Item = (u64, Entry)> + '_ {
        self.video.entries_from(from)
    }

    pub(super) fn video_entry(&self, number: u64) -> Option<Entry> {
        self.video.entry(number)
    }

    pub(super) fn newest_video(&self) -> Option<Entry> {
        self.video.newest()
    }

    pub(super) fn audio_entry(&self, number: u64) -> Option<Entry> {
        self.audio.entry(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h264::unhex;

    const SPS: &str = "674d4028d9020bf97011000003000100000300140f183248";
    const OTHER_SPS: &str = "6742c01fd9005005bb011000000300100000030320f1832480";
    const PPS: &str = "68ebc0e4b2";

    fn prebuffer(video_bytes: usize) -> Prebuffer {
        let mut p = Prebuffer::new(Budget { video_bytes, audio_bytes: 100, access_unit_bytes: 100 });
        p.set_retention(Retention::Everything);
        p.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
        p
    }

    fn idr(sps: &str) -> Vec<u8> {
        [&[0, 0, 0, 1][..], &unhex(sps), &[0, 0, 0, 1], &unhex(PPS), b"\0\0\0\x01\x65\x88\x11\x22"].concat()
    }

    const P: &[u8] = b"\0\0\x01\x41\x9a\x11\x22\x33\x44";

    fn push(p: &mut Prebuffer, annexb: &[u8], pts_90k: u64, key: bool) {
        p.push_video(AccessUnit { annexb: AnnexB::new(annexb), pts_90k, key });
    }

    #[test]
    fn start_codes_become_lengths_and_parameter_sets_stay_out() {
        let mut p = prebuffer(1000);
        push(&mut p, P, 0, false);
        assert_eq!((p.video(), p.counters().awaiting_key), (None, 1));
        push(&mut p, &idr(SPS), 9000, true);
        push(&mut p, P, 18_000, false);
        assert_eq!(p.video_sample(0).unwrap().unwrap().bytes, b"\0\0\0\x04\x65\x88\x11\x22");
        assert_eq!(p.video_sample(1).unwrap().unwrap().bytes, b"\0\0\0\x06\x41\x9a\x11\x22\x33\x44");
        assert_eq!(p.video_sample(2), Ok(None));
        let parameters = p.video().unwrap();
        assert_eq!((parameters.width(), parameters.height()), (128, 72));
        assert_eq!(p.held(), Duration::from_millis(100));
        assert_eq!((p.counters().frames, p.counters().bytes), (2, 18));
    }

    #[test]
    fn parameter_sets_may_come_alone() {
        let mut p = prebuffer(1000);
        let whole = idr(SPS);
        let (sets, slice) = whole.split_at(whole.len() - 8);
        push(&mut p, sets, 0, false);
        assert_eq!(p.counters().frames, 0);
        push(&mut p, slice, 1, true);
        assert_eq!(p.counters().frames, 1);
    }

    #[test]
    fn other_parameters_are_another_epoch() {
        let mut p = prebuffer(1000);
        push(&mut p, &idr(SPS), 0, true);
        push(&mut p, &idr(SPS), 10, true);
        let before = p.video().unwrap().epoch;
        assert_eq!(p.video_sample(1).unwrap().unwrap().epoch, before);
        push(&mut p, &idr(OTHER_SPS), 20, true);
        let after = p.video().unwrap();
        assert_eq!((after.width(), after.epoch), (1280, before + 1));
        assert_eq!(p.video_sample(2).unwrap().unwrap().epoch, before + 1);
        assert_eq!(p.key_before(1000), Some(2));
        // A restart without a change, and no IDR yet.
        p.restart();
        push(&mut p, P, 30, false);
        assert_eq!((p.video_numbers().end, p.key_before(0)), (3, None));
    }

    #[test]
    fn a_picture_that_is_too_large_is_counted_and_the_next_idr_awaited() {
        let mut p = prebuffer(40);
        push(&mut p, &idr(SPS), 0, true);
        push(&mut p, &[b"\0\0\x01\x41", &[0x9a; 50][..]].concat(), 10, false);
        push(&mut p, P, 20, false);
        assert_eq!(p.video_numbers(), 0..1);
        push(&mut p, &idr(SPS), 30, true);
        assert_eq!(p.video_numbers(), 0..2);
        assert_eq!((p.counters().oversized, p.counters().awaiting_key), (1, 1));
        p.push_audio(&[1; 101], 0);
        assert_eq!((p.counters().oversized, p.audio_numbers().end), (2, 0));
    }

    #[test]
    fn time_never_goes_back() {
        let mut p = prebuffer(1000);
        for pts in [100, 100, 50, 200] {
            push(&mut p, &idr(SPS), pts, true);
            p.push_audio(b"aac", pts);
        }
        let video: Vec<_> = p.video_entries(0).map(|(_, e)| e.pts_90k).collect();
        assert_eq!(video, [100, 101, 102, 200]);
        let audio: Vec<_> = (0..4).map(|n| p.audio_sample(n).unwrap().unwrap().pts_90k).collect();
        assert_eq!(audio, video);
    }

    #[test]
    fn retention_is_privacy() {
        let mut p = prebuffer(1000);
        for gop in 0..3u64 {
            push(&mut p, &idr(SPS), gop * 18_000, true);
            push(&mut p, P, gop * 18_000 + 9000, false);
            p.push_audio(b"aac", gop * 18_000 + 4000);
        }
        assert_eq!(p.gop(), Some(Duration::from_millis(200)));
        // What was missed says nothing of the encoder.
        let mut gappy = prebuffer(1000);
        for (n, pts_90k) in [0, 18_000, 900_000, 918_000].into_iter().enumerate() {
            if n == 2 {
                gappy.handle_gap();
            }
            push(&mut gappy, &idr(SPS), pts_90k, true);
            assert_eq!(gappy.gop(), (n > 0).then_some(Duration::from_millis(200)));
        }
        p.set_retention(Retention::CurrentGop);
        assert_eq!((p.video_numbers(), p.audio_numbers()), (4..6, 2..3));
        assert_eq!(p.video_sample(3), Err(Gone::Overrun));
        push(&mut p, &idr(SPS), 54_000, true);
        assert_eq!((p.video_numbers(), p.audio_numbers(), p.newest_key()), (6..7, 3..3, Some(6)));
        p.set_retention(Retention::Nothing);
        assert_eq!((p.video_numbers(), p.newest_key(), p.held()), (7..7, None, Duration::ZERO));
        push(&mut p, &idr(SPS), 72_000, true);
        p.push_audio(b"aac", 72_000);
        assert_eq!((p.video_numbers().end, p.audio_numbers().end), (7, 3));
        assert!(p.video().is_some(), "the parameters are still known");
        p.set_retention(Retention::Everything);
        push(&mut p, P, 81_000, false);
        assert_eq!(p.video_numbers(), 7..7, "not before an IDR");
    }

    #[test]
    fn another_audio_rate_drops_what_cannot_be_mixed() {
        let mut p = prebuffer(1000);
        p.push_audio(b"aac", 0);
        p.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
        assert_eq!(p.audio_numbers(), 0..1);
        p.set_audio(Some(AudioParameters { rate_hz: 8000, channels: 1 }));
        assert_eq!(p.audio_numbers(), 1..1);
        p.set_audio(None);
        p.push_audio(b"aac", 9);
        assert_eq!(p.audio_numbers(), 1..1);
    }

    #[test]
    fn the_default_budget_holds_a_prebuffer_and_a_fragment() {
        let budget = Budget::from_memory(2560, 2000, 32);
        assert!((8..=9).contains(&budget.seconds_held(2000)), "{budget:?}");
        let fixed = Budget::CHUNK_BYTES + budget.access_unit_bytes + 2 * Budget::ENTRIES * ENTRY_BYTES;
        assert_eq!(budget.video_bytes + budget.audio_bytes + fixed, 2560 * 1024);
        // Audio reaches back as far as video does.
        assert!(budget.audio_bytes as u64 * 8 / 32_000 >= u64::from(budget.seconds_held(2000)));
        assert_eq!(Budget::from_memory(2560, 2000, 0).audio_bytes, 0);
        assert_eq!(Budget::from_memory(0, 2000, 32).video_bytes, 64 * 1024);
    }

    #[test]
    fn measures_what_it_holds() {
        let mut p = prebuffer(10_000);
        for i in 0..31u64 {
            push(&mut p, if i == 0 { idr(SPS) } else { P.to_vec() }.as_slice(), i * 6000, i == 0);
        }
        assert_eq!(p.measured(), Some(Measured { frames_per_1000_s: 15_000, video_kbps: 1 }));
    }
}
