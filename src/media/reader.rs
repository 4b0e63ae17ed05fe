//! From the prebuffer to what a hub is sent: where a recording starts, where its fragments end, and
//! their bytes.

use super::audio::{Aligner, Plan};
use super::fmp4::{self, Totals, VideoSample, Window};
use super::parameters::VideoParameters;
use super::prebuffer::Prebuffer;
use super::ring::Entry;
use super::{Gone, ms_to_90k};
use crate::time::{Duration, Pts90k};
use crate::wire::Writer;
use crate::wire::aac::{FRAME_SAMPLES, SILENT_MONO};

/// A fragment may be this much longer than asked for: an encoder's 4 s are not exactly 4 s.
const TOLERANCE_MS: u32 = 150;

/// How far the video may run ahead of a fragment whose audio has not come.
const AUDIO_PATIENCE_MS: u32 = 300;

/// Where a recording begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At the newest IDR that lies at least `ms` back, or the oldest that is held.
    Prebuffered {
        /// The prebuffer length that the hub selected.
        ms: u32,
    },
    /// At the next IDR that comes in.
    NextKey,
}

/// What the audio track of a recording carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AudioChoice {
    /// There is no audio track.
    None,
    /// What the microphone delivers, silence where it does not.
    Live,
    /// Silence and nothing else.
    Silent,
}

/// What a recording was selected to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReaderOptions {
    /// Fragment length in milliseconds.
    pub fragment_ms: u32,
    /// What the audio track carries.
    pub audio: AudioChoice,
    /// Rate of the audio track in Hz; a source with another rate is silence.
    pub audio_rate_hz: u32,
}

/// A recording cannot start: no SPS and PPS have come in yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotReady;

impl core::fmt::Display for NotReady {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the video source has not delivered SPS and PPS yet")
    }
}

/// One `moof` and its `mdat`: a plan over samples in the prebuffer, no bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// 1 for the first fragment of a recording.
    pub sequence: u32,
    /// Length of `moof` and `mdat` together.
    pub total_bytes: usize,
    /// Where it begins on the recording's own time line, which starts at 0.
    pub start_90k: u64,
    /// How long it lasts.
    pub duration_90k: u64,
    /// When its last picture ended, on the time line of the prebuffer: tells how far behind it is.
    pub end_pts_90k: Pts90k,
    /// Number of its first video sample and the number behind its last.
    numbers: core::ops::Range<u64>,
    totals: Totals,
    audio: Plan,
    /// Where the last read stopped.
    mark: Option<Mark>,
}

/// A video sample of a fragment and the offset at which it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    offset: usize,
    number: u64,
}

impl Fragment {
    /// Pictures in it.
    pub fn frames(&self) -> u32 {
        self.totals.video_samples
    }

    /// How long it lasts.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration_90k * 100 / 9)
    }

    /// `moof` and the header of `mdat`: every sample must be there.
    fn put_head(&self, prebuffer: &Prebuffer, window: &mut Window<'_>) -> Result<(), Gone> {
        let oldest_audio = self.audio.frames().flatten().next();
        if self.numbers.start < prebuffer.video_numbers().start
            || oldest_audio.is_some_and(|number| number < prebuffer.audio_numbers().start)
        {
            return Err(Gone::Overrun);
        }
        let video = self.numbers.clone().filter_map(|number| {
            let entry = prebuffer.video_entry(number)?;
            let following = prebuffer.video_entry(number + 1).filter(|_| number + 1 < self.numbers.end);
            let end_pts_90k = following.map_or(self.end_pts_90k, |e| e.pts_90k);
            Some(VideoSample { duration_90k: (end_pts_90k - entry.pts_90k) as u32, len: entry.len, key: entry.key })
        });
        let audio_lens = self.audio.frames().map(|frame| match frame {
            Some(number) => prebuffer.audio_entry(number).map_or(0, |e| e.len),
            None => SILENT_MONO.len() as u32,
        });
        self.totals.put_head(video, audio_lens, window);
        Ok(())
    }
}

/// A recording in progress: a position in the prebuffer. Holds nothing back and costs nothing when
/// dropped; a reader that is too slow is told [`Gone`].
pub struct Reader {
    options: ReaderOptions,
    parameters: VideoParameters,
    /// Number of the next video sample.
    next: u64,
    /// Time of the first sample of the recording, once there is one.
    origin_90k: Option<Pts90k>,
    aligner: Aligner,
    sequence: u32,
    finishing: bool,
}

impl Reader {
    /// Starts a recording.
    ///
    /// # Errors
    /// While SPS and PPS are unknown there can be no init segment.
    pub fn start(prebuffer: &Prebuffer, start: Start, options: ReaderOptions) -> Result<Reader, NotReady> {
        let parameters = prebuffer.video().ok_or(NotReady)?.clone();
        let coming = prebuffer.video_numbers().end;
        let next = match start {
            Start::Prebuffered { ms } => prebuffer.key_before(ms).unwrap_or(coming),
            Start::NextKey => coming,
        };
        let aligner = Aligner::new(options.audio_rate_hz, 0);
        Ok(Reader { options, parameters, next, origin_90k: None, aligner, sequence: 1, finishing: false })
    }

    /// The video parameters of this recording.
    pub fn parameters(&self) -> &VideoParameters {
        &self.parameters
    }

    /// Writes the init segment, `ftyp` and `moov`: below 2 KiB.
    pub fn init(&self, out: &mut Writer<'_>) {
        let rate_hz = (self.options.audio != AudioChoice::None).then_some(self.options.audio_rate_hz);
        fmp4::put_init(&self.parameters, rate_hz, out);
    }

    /// Closes the recording with what is there: the next fragment ends at the newest picture, whether
    /// its GOP is whole or not; then comes [`Gone::Ended`]. For a source that has died.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// The next fragment, as soon as all of it is in the prebuffer.
    ///
    /// It is as many whole GOPs as fit the fragment length, or one GOP that is longer. The first one
    /// is what is there, so that a hub need not wait for it.
    ///
    /// # Errors
    /// [`Gone`]; the recording is over.
    pub fn poll_fragment(&mut self, prebuffer: &Prebuffer) -> Result<Option<Fragment>, Gone> {
        let epoch = self.parameters.epoch;
        if self.next < prebuffer.video_numbers().start {
            return Err(Gone::Overrun);
        }
        let Some(origin_90k) = self.origin(prebuffer)? else {
            return Ok(None);
        };
        let Some(end) = self.end(prebuffer) else {
            let dry = prebuffer.video_entry(self.next).is_none_or(|e| e.epoch != epoch);
            return if dry && self.is_ending(prebuffer) { Err(Gone::Ended) } else { Ok(None) };
        };
        let mut aligner = self.aligner;
        let audio = match self.options.audio {
            AudioChoice::None => Plan::default(),
            AudioChoice::Silent => aligner.place(end.pts_90k, None),
            AudioChoice::Live => aligner.place(end.pts_90k, self.live(prebuffer)),
        };
        if audio.starved && !self.finishing && !self.audio_is_overdue(prebuffer, &end) {
            return Ok(None);
        }
        self.aligner = aligner;
        Ok(Some(self.cut(prebuffer, origin_90k, end, audio)))
    }

    /// The time of the first picture, which is an IDR of the right epoch.
    fn origin(&mut self, prebuffer: &Prebuffer) -> Result<Option<Pts90k>, Gone> {
        if self.origin_90k.is_none() {
            let epoch = self.parameters.epoch;
            match prebuffer.video_entries(self.next).find(|(_, e)| e.key || e.epoch != epoch) {
                Some((_, e)) if e.epoch != epoch => return Err(Gone::Ended),
                Some((number, e)) => {
                    self.next = number;
                    self.origin_90k = Some(e.pts_90k);
                    self.aligner = Aligner::new(self.options.audio_rate_hz, e.pts_90k);
                }
                None if self.is_ending(prebuffer) => return Err(Gone::Ended),
                None => {}
            }
        }
        Ok(self.origin_90k)
    }

    /// No picture of this recording will come any more.
    fn is_ending(&self, prebuffer: &Prebuffer) -> bool {
        self.finishing || prebuffer.video().is_none_or(|v| v.epoch != self.parameters.epoch)
    }

    /// Where the fragment that begins at `self.next` ends; `None` while that is open.
    fn end(&self, prebuffer: &Prebuffer) -> Option<End> {
        let epoch = self.parameters.epoch;
        let first = prebuffer.video_entry(self.next).filter(|e| e.epoch == epoch)?;
        let limit = first.pts_90k + ms_to_90k(self.options.fragment_ms + TOLERANCE_MS);
        let mut fits: Option<End> = None;
        let mut gop_start = first.pts_90k;
        let mut gop_90k = 0;
        let mut newest = first;
        let mut before = first;
        for (number, entry) in prebuffer.video_entries(self.next + 1).take_while(|(_, e)| e.epoch == epoch) {
            if entry.key {
                if entry.pts_90k > limit {
                    return Some(fits.unwrap_or(End::at(number, &entry)));
                }
                gop_90k = entry.pts_90k - gop_start;
                gop_start = entry.pts_90k;
                fits = Some(End::at(number, &entry));
            } else if entry.pts_90k > limit && fits.is_some() {
                return fits;
            }
            (before, newest) = (newest, entry);
        }
        if let Some(end) = fits
            // The next GOP, if it is like the last one, will not fit.
            && (self.sequence == 1 || end.pts_90k + gop_90k > limit)
        {
            return Some(end);
        }
        self.is_ending(prebuffer).then(|| {
            // Nobody knows how long the last picture was shown; as long as the one before it.
            let number = prebuffer.video_entries(self.next).take_while(|(_, e)| e.epoch == epoch).count() as u64;
            let last_90k = (newest.pts_90k - before.pts_90k).max(1);
            End { number: self.next + number, pts_90k: newest.pts_90k + last_90k }
        })
    }

    /// The prebuffer as a source of audio, when its audio is what this recording was selected to be.
    fn live<'a>(&self, prebuffer: &'a Prebuffer) -> Option<&'a Prebuffer> {
        let usable = |a: super::AudioParameters| a.is_recordable() && a.rate_hz == self.options.audio_rate_hz;
        prebuffer.audio().is_some_and(usable).then_some(prebuffer)
    }

    fn audio_is_overdue(&self, prebuffer: &Prebuffer, end: &End) -> bool {
        let overdue = end.pts_90k + ms_to_90k(AUDIO_PATIENCE_MS);
        prebuffer.newest_video().is_some_and(|newest| newest.pts_90k >= overdue)
    }

    fn cut(&mut self, prebuffer: &Prebuffer, origin_90k: Pts90k, end: End, audio: Plan) -> Fragment {
        let numbers = self.next..end.number;
        let samples = || numbers.clone().filter_map(|number| prebuffer.video_entry(number));
        let start_pts_90k = samples().next().map_or(end.pts_90k, |e| e.pts_90k);
        let totals = Totals {
            sequence: self.sequence,
            video_time_90k: start_pts_90k - origin_90k,
            video_samples: samples().count() as u32,
            video_bytes: samples().map(|e| e.len).sum(),
            audio_time: audio.first * u64::from(FRAME_SAMPLES),
            audio_frames: audio.frames,
            audio_bytes: audio.bytes,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.next = end.number;
        Fragment {
            sequence: totals.sequence,
            total_bytes: totals.total_len(),
            start_90k: totals.video_time_90k,
            duration_90k: end.pts_90k - start_pts_90k,
            end_pts_90k: end.pts_90k,
            numbers,
            totals,
            audio,
            mark: None,
        }
    }

    /// Copies bytes of the fragment from `offset` on into `out`; how many. Fewer than `out` holds only
    /// at the end of the fragment. Whoever reads front to back needs only what is still ahead to be in
    /// the prebuffer.
    ///
    /// # Errors
    /// [`Gone::Overrun`] when samples were overwritten meanwhile.
    pub fn read(
        &self,
        fragment: &mut Fragment,
        prebuffer: &Prebuffer,
        offset: usize,
        out: &mut [u8],
    ) -> Result<usize, Gone> {
        let head_len = fragment.totals.head_len();
        let mut window = Window::new(offset, out);
        if offset < head_len {
            fragment.put_head(prebuffer, &mut window)?;
        } else {
            window.skips(head_len);
        }
        let start = Mark { offset: head_len, number: fragment.numbers.start };
        let mut mark = fragment.mark.filter(|mark| mark.offset <= offset).unwrap_or(start);
        window.skips(mark.offset - head_len);
        while mark.number < fragment.numbers.end && !window.is_full() {
            let bytes = prebuffer.video_sample(mark.number)?.ok_or(Gone::Overrun)?.bytes;
            window.put(bytes);
            if !window.is_full() {
                mark = Mark { offset: mark.offset + bytes.len(), number: mark.number + 1 };
            }
        }
        fragment.mark = Some(mark);
        for frame in fragment.audio.frames() {
            if window.is_full() {
                break;
            }
            match frame {
                Some(number) => window.put(prebuffer.audio_sample(number)?.ok_or(Gone::Overrun)?.bytes),
                None => window.put(&SILENT_MONO),
            }
        }
        Ok(window.len())
    }
}

/// Behind the last sample of a fragment.
#[derive(Clone, Copy)]
struct End {
    number: u64,
    pts_90k: Pts90k,
}

impl End {
    fn at(number: u64, entry: &Entry) -> End {
        End { number, pts_90k: entry.pts_90k }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccessUnit, AudioParameters, Budget, Retention};
    use super::*;
    use crate::wire::h264::AnnexB;
    use crate::wire::h264::unhex;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/fmp4.json")).unwrap()
    }

    fn hex(value: &Value) -> Vec<u8> {
        unhex(value.as_str().unwrap())
    }

    fn options(audio: AudioChoice) -> ReaderOptions {
        ReaderOptions { fragment_ms: 4000, audio, audio_rate_hz: 16_000 }
    }

    fn annexb(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
    }

    /// A prebuffer that is armed, has 16 kHz audio and takes synthetic pictures.
    struct Rig {
        prebuffer: Prebuffer,
        parameter_sets: Vec<u8>,
    }

    impl Rig {
        fn new() -> Rig {
            Rig::with_budget(Budget { video_bytes: 100_000, audio_bytes: 20_000, access_unit_bytes: 1000 })
        }

        fn with_budget(budget: Budget) -> Rig {
            let v = vectors();
            let mut prebuffer = Prebuffer::new(budget);
            prebuffer.set_retention(Retention::Everything);
            prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
            let parameter_sets = annexb(&[&hex(&v["params"]["sps"]), &hex(&v["params"]["pps"])]);
            Rig { prebuffer, parameter_sets }
        }

        fn picture(&mut self, ms: u64, key: bool) {
            let mut unit = if key { self.parameter_sets.clone() } else { Vec::new() };
            unit.extend(annexb(&[&[if key { 0x65 } else { 0x41 }, 0x80, ms as u8 | 1, 0x11, 0x22]]));
            self.prebuffer.push_video(AccessUnit { annexb: AnnexB::new(&unit), pts_90k: ms * 90, key });
        }

        /// Ten pictures a second in `ms`, one IDR every `gop_ms`.
        fn video(&mut self, ms: core::ops::Range<u64>, gop_ms: u64) {
            ms.step_by(100).for_each(|t| self.picture(t, t % gop_ms == 0));
        }

        /// AAC frames of 64 ms from `ms` on.
        fn audio(&mut self, ms: core::ops::Range<u64>) {
            ms.step_by(64).for_each(|t| self.prebuffer.push_audio(&[0xaa, 0xbb, 0xcc], t * 90));
        }

        fn read(&mut self, options: ReaderOptions) -> Reader {
            Reader::start(&self.prebuffer, Start::Prebuffered { ms: 4000 }, options).unwrap()
        }

        /// Lengths in ms of all fragments that are complete, checked for gaps.
        fn fragments(&self, reader: &mut Reader) -> Vec<u64> {
            let mut lengths = Vec::new();
            while let Ok(Some(fragment)) = reader.poll_fragment(&self.prebuffer) {
                lengths.push(fragment.duration_90k / 90);
            }
            lengths
        }
    }

    fn whole(reader: &Reader, fragment: &mut Fragment, prebuffer: &Prebuffer, step: usize) -> Vec<u8> {
        let mut bytes = vec![0; fragment.total_bytes + 10];
        let mut at = 0;
        while at < fragment.total_bytes {
            let end = (at + step).min(bytes.len());
            let n = reader.read(fragment, prebuffer, at, &mut bytes[at..end]).unwrap();
            assert!(n > 0);
            at += n;
        }
        bytes.truncate(at);
        bytes
    }

    /// The clip of the vectors: frames of 9000 ticks, GOPs of four, 13 AAC frames.
    fn golden(audio: AudioChoice) -> (Prebuffer, Reader) {
        let v = vectors();
        let mut rig = Rig::new();
        for (i, frame) in v["audio_frames"].as_array().unwrap().iter().enumerate() {
            rig.prebuffer.push_audio(&hex(frame), 90_000 + i as u64 * 5760);
        }
        let nals: Vec<Vec<u8>> = v["video_nals"].as_array().unwrap().iter().map(hex).collect();
        for i in 0..=8 {
            let key = i % 4 == 0;
            let mut unit = if key { rig.parameter_sets.clone() } else { Vec::new() };
            unit.extend(annexb(&[&nals[i % 8]]));
            rig.prebuffer.push_video(AccessUnit { annexb: AnnexB::new(&unit), pts_90k: 90_000 + i as u64 * 9000, key });
        }
        let options = ReaderOptions { fragment_ms: 400, ..options(audio) };
        let reader = Reader::start(&rig.prebuffer, Start::Prebuffered { ms: 800 }, options).unwrap();
        (rig.prebuffer, reader)
    }

    #[test]
    fn init_segments_are_those_of_the_vectors() {
        for (audio, name) in [(AudioChoice::Live, "init_video_audio"), (AudioChoice::None, "init_video_only")] {
            let (_, reader) = golden(audio);
            let mut buf = [0; 2048];
            let mut w = Writer::new(&mut buf);
            reader.init(&mut w);
            assert_eq!(w.finish().unwrap(), hex(&vectors()[name]), "{name}");
        }
    }

    #[test]
    fn fragments_are_those_of_the_vectors_in_pieces_of_any_size() {
        for (audio, name) in [(AudioChoice::Live, "fragments_video_audio"), (AudioChoice::None, "fragments_video_only")]
        {
            for step in [1, 7, 100, 240, 241, 1 << 20] {
                let (prebuffer, mut reader) = golden(audio);
                for (i, want) in vectors()[name].as_array().unwrap().iter().enumerate() {
                    let mut fragment = reader.poll_fragment(&prebuffer).unwrap().unwrap();
                    assert_eq!(fragment.sequence, i as u32 + 1);
                    assert_eq!(whole(&reader, &mut fragment, &prebuffer, step), hex(&want["hex"]), "{name} {i} {step}");
                    // Again from the front, against the mark.
                    assert_eq!(whole(&reader, &mut fragment, &prebuffer, 1 << 20), hex(&want["hex"]));
                }
                assert_eq!(reader.poll_fragment(&prebuffer), Ok(None));
            }
        }
    }

    #[test]
    fn whole_gops_fill_a_fragment() {
        // GOP, fragments of 4 s in 20 s
        for (gop_ms, want) in [(4000, 4000), (2000, 4000), (1200, 3600), (1000, 4000), (4100, 4100), (5000, 5000)] {
            let mut rig = Rig::new();
            rig.video(0..100, gop_ms);
            let mut reader =
                Reader::start(&rig.prebuffer, Start::Prebuffered { ms: 4000 }, options(AudioChoice::None)).unwrap();
            let mut lengths = Vec::new();
            for t in (100..20_100).step_by(100) {
                rig.video(t..t + 100, gop_ms);
                for length in rig.fragments(&mut reader) {
                    lengths.push(length);
                    assert_eq!(lengths.iter().sum::<u64>(), t, "out as soon as the next IDR is in, GOP {gop_ms}");
                }
            }
            assert_eq!(lengths[0], gop_ms, "the first does not wait");
            assert!(lengths[1..].iter().all(|&l| l == want), "{gop_ms}: {lengths:?}");
        }
    }

    #[test]
    fn starts_at_the_newest_idr_that_lies_far_enough_back() {
        let mut rig = Rig::new();
        rig.video(0..9600, 2000);
        let mut reader = rig.read(options(AudioChoice::None));
        let first = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        // 9500 - 4000 = 5500: the IDR at 4000
        assert_eq!((first.start_90k, first.end_pts_90k), (0, 8000 * 90));
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Ok(None));
    }

    #[test]
    fn less_than_a_fragment_at_open_is_the_first_fragment() {
        let mut rig = Rig::new();
        rig.video(0..3000, 1000);
        let mut reader = rig.read(options(AudioChoice::None));
        assert_eq!(rig.fragments(&mut reader), [2000]);
        rig.video(3000..6200, 1000);
        assert_eq!(rig.fragments(&mut reader), [4000]);
    }

    #[test]
    fn without_prebuffer_the_next_idr_starts() {
        let mut rig = Rig::new();
        rig.video(0..3000, 2000);
        let mut reader = Reader::start(&rig.prebuffer, Start::NextKey, options(AudioChoice::None)).unwrap();
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Ok(None));
        rig.video(3000..6100, 2000);
        let first = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        assert_eq!((first.start_90k, first.end_pts_90k), (0, 6000 * 90));
    }

    #[test]
    fn nothing_starts_without_parameter_sets() {
        let rig = Rig::new();
        let start = Reader::start(&rig.prebuffer, Start::NextKey, options(AudioChoice::None));
        assert_eq!(start.err(), Some(NotReady));
    }

    #[test]
    fn a_new_epoch_ends_the_recording_after_what_is_there() {
        let mut rig = Rig::new();
        rig.video(0..2500, 2000);
        let mut reader = rig.read(options(AudioChoice::None));
        assert_eq!(rig.fragments(&mut reader), [2000]);
        rig.prebuffer.restart();
        rig.video(4000..5000, 2000);
        assert_eq!(rig.fragments(&mut reader), [500]);
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Err(Gone::Ended));
        let mut reader = rig.read(options(AudioChoice::None));
        reader.finish();
        assert_eq!(rig.fragments(&mut reader), [1000], "the old epoch is no part of a new recording");
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Err(Gone::Ended));
    }

    #[test]
    fn a_slow_reader_is_told() {
        let mut rig = Rig::with_budget(Budget { video_bytes: 300, audio_bytes: 0, access_unit_bytes: 100 });
        rig.video(0..2100, 1000);
        let mut reader = rig.read(options(AudioChoice::None));
        let mut fragment = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        let mut all = vec![0; fragment.total_bytes];
        let cut = fragment.total_bytes - 9;
        assert_eq!(reader.read(&mut fragment, &rig.prebuffer, 0, &mut all[..cut]), Ok(cut));
        // Its first samples are overwritten, the last one is still there.
        rig.video(2100..3900, 1000);
        assert!(fragment.numbers.start < rig.prebuffer.video_numbers().start);
        assert_eq!(reader.read(&mut fragment, &rig.prebuffer, cut, &mut all[cut..]), Ok(9));
        assert_eq!(reader.read(&mut fragment, &rig.prebuffer, 0, &mut all), Err(Gone::Overrun));
        rig.video(3900..9000, 1000);
        assert_eq!(reader.read(&mut fragment, &rig.prebuffer, cut, &mut all), Err(Gone::Overrun));
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Err(Gone::Overrun));
    }

    #[test]
    fn a_fragment_waits_for_its_audio_but_not_for_ever() {
        let mut rig = Rig::new();
        rig.video(0..4100, 2000);
        rig.audio(0..3500);
        let mut reader = rig.read(options(AudioChoice::Live));
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Ok(None), "audio is still to come");
        rig.audio(3520..4200);
        let fragment = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        assert_eq!(
            fragment.audio.runs[..].iter().map(|r| (r.ring.is_some(), r.count)).collect::<Vec<_>>(),
            [(true, 63)]
        );
        // The microphone dies: 300 ms later the fragment goes out with silence.
        rig.video(4100..8300, 2000);
        assert_eq!(reader.poll_fragment(&rig.prebuffer), Ok(None));
        rig.video(8300..8400, 2000);
        let fragment = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        assert_eq!(fragment.audio.runs.last().map(|r| r.ring), Some(None));
        assert_eq!(fragment.audio.first + u64::from(fragment.audio.frames), 125);
    }

    #[test]
    fn a_gap_in_the_audio_is_filled_and_time_is_kept() {
        let mut rig = Rig::new();
        rig.audio(0..1000);
        // A gap of about 1.5 s, then frames that are off the grid by 20 ms.
        rig.audio(2500..8100);
        rig.video(0..8100, 4000);
        let mut reader =
            Reader::start(&rig.prebuffer, Start::Prebuffered { ms: 8000 }, options(AudioChoice::Live)).unwrap();
        let fragment = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        let runs: Vec<_> = fragment.audio.runs.iter().map(|r| (r.ring, r.count)).collect();
        assert_eq!(runs, [(Some(0), 16), (None, 23), (Some(16), 24)]);
        let second = reader.poll_fragment(&rig.prebuffer).unwrap().unwrap();
        assert_eq!(second.audio.first + u64::from(second.audio.frames), 125);
        assert_eq!(second.audio.runs.len(), 1);
    }

    #[test]
    fn audio_that_runs_fast_or_slow_stays_within_a_frame() {
        for spacing_90k in [5700, 5730, 5790, 5820] {
            let mut rig = Rig::new();
            (0..).map(|i| i * spacing_90k).take_while(|t| *t < 40_000 * 90).for_each(|t| {
                rig.prebuffer.push_audio(&[1, 2, 3], t);
            });
            rig.video(0..38_100, 2000);
            let mut reader =
                Reader::start(&rig.prebuffer, Start::Prebuffered { ms: 38_000 }, options(AudioChoice::Live)).unwrap();
            while let Some(fragment) = reader.poll_fragment(&rig.prebuffer).unwrap() {
                for (i, number) in fragment.audio.frames().enumerate() {
                    let place = (fragment.audio.first + i as u64) * 5760;
                    if let Some(number) = number {
                        let pts = rig.prebuffer.audio_entry(number).unwrap().pts_90k;
                        assert!(place.abs_diff(pts) <= 5760, "{spacing_90k}: {place} {pts}");
                    }
                }
                let end = (fragment.audio.first + u64::from(fragment.audio.frames)) * 5760;
                assert!(end.abs_diff(fragment.end_pts_90k) <= 5760);
                let silent = fragment.audio.frames().filter(Option::is_none).count();
                assert!(silent <= 1 + fragment.audio.frames as usize / 50);
            }
            assert_eq!(reader.sequence, 10);
        }
    }

    #[test]
    fn a_microphone_that_is_not_what_was_selected_is_silence() {
        for audio in [
            None,
            Some(AudioParameters { rate_hz: 48_000, channels: 1 }),
            Some(AudioParameters { rate_hz: 16_000, channels: 2 }),
        ] {
            let mut rig = Rig::new();
            rig.prebuffer.set_audio(audio);
            rig.audio(0..8000);
            rig.video(0..4100, 4000);
            let fragment = rig.read(options(AudioChoice::Live)).poll_fragment(&rig.prebuffer).unwrap().unwrap();
            assert_eq!(fragment.audio.runs[..], [super::super::audio::Run { ring: None, count: 63 }]);
        }
    }

    #[test]
    fn sound_and_silence_in_endless_turns_stay_bounded() {
        let mut rig = Rig::new();
        (0..100u64).for_each(|i| rig.audio(i * 192..i * 192 + 64));
        rig.video(0..16_100, 16_000);
        let fragment = rig.read(options(AudioChoice::Live)).poll_fragment(&rig.prebuffer).unwrap().unwrap();
        assert_eq!(fragment.audio.frames, 250);
        assert_eq!(fragment.audio.frames().count(), 250);
        assert_eq!(fragment.audio.frames().flatten().count(), 16, "then silence, for want of places");
    }
}
