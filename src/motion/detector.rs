//! Motion from what the encoder spent on each picture: bytes and QP, no pixels.
//!
//! The idea, in the order of [`Detector::push`]:
//!
//! 1. Activity is counted in octaves: `x = log2(bytes + 16) + QP / 4`. An encoder that answers motion with a
//!    coarser QP instead of more bytes (CBR) moves `x` all the same.
//! 2. What a QP step is worth differs between noise and texture, so an offset per QP is learned while all is quiet.
//!    The table also absorbs what the encoder does after each key picture.
//! 3. `r` is `x` less that offset and less the running median, the *baseline*, which never freezes: it only goes at
//!    half speed while motion is on. What stays becomes normal.
//! 4. The running median of `|r|` in quiet is the scene's own *unrest*: leaves and noise raise it by themselves.
//! 5. `r` is measured against the unrest or against a third of the recent peak, whichever is larger, so that the
//!    refinement after a strong event does not keep motion on.
//! 6. That quotient, clipped, averaged over half a second, is the *level*. Clipping and averaging together make it
//!    impossible for one picture, or for a burst of 0.3 s, to reach the threshold: a clock burnt into the picture
//!    and an exposure step are such bursts.
//! 7. A level that is merely new (IR cut, light, bitrate) is steady in itself: after 3 s of that, or after 20 s
//!    whatever happens, the detector learns anew for 1.5 s.
//!
//! Everything is an integer and every duration a number of pictures: a recorded stream gives the same events on any
//! machine. Q8 is a number times 256, Q16 times 65,536; products are taken in 64 bits and `>>` rounds down.

use super::{AccessUnit, Motion};
use core::fmt;

/// The detector: about 400 bytes, no heap, some 200 instructions a picture.
///
/// Key pictures are left out of the statistics; [`super::Meter`] leaves out B pictures, too. P pictures whose
/// macroblocks are all skipped (20 bytes) need no rule of their own, as adding 16 tames them. Intra refresh needs none
/// either: the baseline holds it, though small motion drowns in its bytes.
///
/// A stream without P pictures (an encoder that writes key pictures only) is measured on these, once two seconds have
/// brought nothing else. Intra pictures grow with texture, not with change: only what changes the size of the whole
/// picture by a fifth is seen. Such a camera needs another origin of motion.
#[derive(Clone, Debug)]
pub struct Detector {
    rates: Rates,
    fps: u32,
    threshold: i32,
    hold_s: u32,
    scale: Scale,
    /// Pictures counted since the start, saturating.
    counted: u32,
    /// P pictures in a row without a readable QP.
    unreadable: u32,
    /// Key pictures in a row.
    keys: u32,
    /// Pictures until motion runs out.
    hold: u32,
    /// Pictures for which motion has been on.
    on_for: u32,
    /// Pictures for which the detector still learns anew.
    learn: u32,
    /// `g`, Q16.
    baseline: i32,
    /// `d`, Q16.
    unrest: i32,
    /// `B`, Q16: r averaged over 0.2 s, the input of the peak.
    burst: i32,
    /// `pk`, Q16.
    peak: i32,
    /// `E`, Q16.
    level: i32,
    /// `F`, Q16: x averaged over 0.7 s.
    steady: i32,
    /// `V`, Q16: mean deviation of x from `steady`.
    deviation: i32,
    /// Q16.
    qp_offset: [i32; QPS],
    /// One bit for each QP that has an offset.
    qp_seen: u64,
    /// x, r and QP of the last picture that was counted.
    last: (i32, i32, Option<u8>),
}

const _: () = assert!(size_of::<Detector>() <= 400);

/// What the detector made of the last picture that it counted: for `status`, and as text for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Activity in octaves, Q8.
    pub x: i32,
    /// Activity above the baseline and the offset of its QP in octaves, Q8.
    pub r: i32,
    /// The running median of the activity in octaves, Q8.
    pub baseline: i32,
    /// The scene's own unrest in octaves, Q8.
    pub unrest: i32,
    /// The level in hundredths of what starts motion: above 100 it does. Below zero the scene has become calmer.
    pub level_percent: i32,
    /// The QP of its first slice, unless the stream is measured by sizes alone.
    pub qp: Option<u8>,
}

impl fmt::Display for Observation {
    /// `x 13.02 r 0.25 baseline 12.71 unrest 0.18 level 41% qp 31`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octaves = |q8: i32| Hundredths(q8 * 100 / 256);
        write!(
            f,
            "x {} r {} baseline {} unrest {} level {}%",
            octaves(self.x),
            octaves(self.r),
            octaves(self.baseline),
            octaves(self.unrest),
            self.level_percent,
        )?;
        match self.qp {
            Some(qp) => write!(f, " qp {qp}"),
            None => f.write_str(" no qp"),
        }
    }
}

/// A number of hundredths as a decimal fraction.
pub(super) struct Hundredths(pub(super) i32);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let v = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", v / 100, v % 100)
    }
}

/// Whether the QP is part of the measure. Decided by the first P picture and kept: the two are never mixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scale {
    Undecided,
    SizeAndQp,
    SizeOnly,
}

/// Per-picture rates in Q16, computed once from the frame rate.
#[derive(Clone, Debug)]
struct Rates {
    up: i32,
    up_on: i32,
    up_warm: i32,
    unrest: i32,
    qp: i32,
    fast: i32,
    level: i32,
    burst: i32,
    steady: i32,
    peak: i32,
}

const QPS: usize = 52;
/// No picture counts for less than 0.12 octave of unrest.
const UNREST_FLOOR: i32 = 30;
/// 0.35 in Q8: the share of the recent peak that a picture is measured against.
const PEAK_SHARE: i32 = 89;
/// 0.4 octave in Q16, below which x counts as steady in itself.
const STEADY_BELOW: i32 = 102 << 8;
/// 0.1 octave in Q16, added to twice the unrest for the same purpose.
const STEADY_MARGIN: i32 = 26 << 8;
const UNREST_MIN: i32 = 8 << 8;
const UNREST_MAX: i32 = 153 << 8;

impl Detector {
    /// A detector for a stream of `fps` pictures a second (0 counts as 1). `sensitivity` is 0..=100, more is more
    /// sensitive; motion stays on for `hold_s` seconds after the last evidence.
    pub fn new(fps: u32, sensitivity: u8, hold_s: u32) -> Self {
        let fps = fps.clamp(1, MAX_FPS);
        Detector {
            rates: Rates::new(fps),
            fps,
            threshold: 640 - 256 * i32::from(sensitivity.min(100)) / 100,
            hold_s: hold_s.min(MAX_HOLD_S),
            scale: Scale::Undecided,
            counted: 0,
            unreadable: 0,
            keys: 0,
            hold: 0,
            on_for: 0,
            learn: 0,
            baseline: 0,
            unrest: 77 << 8,
            burst: 0,
            peak: 0,
            level: 0,
            steady: 0,
            deviation: 128 << 8,
            qp_offset: [0; QPS],
            qp_seen: 0,
            last: (0, 0, None),
        }
    }

    /// Takes the next picture and says whether motion started or stopped with it.
    pub fn push(&mut self, unit: AccessUnit) -> Option<Motion> {
        let was_on = self.is_on();
        self.hold = self.hold.saturating_sub(1);
        if self.counts(unit) {
            self.observe(unit.bytes, unit.qp);
        }
        match (was_on, self.is_on()) {
            (false, true) => Some(Motion::Start),
            (true, false) => Some(Motion::Stop),
            _ => None,
        }
    }

    /// Whether motion is on.
    pub fn is_on(&self) -> bool {
        self.hold > 0
    }

    /// Takes the present level for normal: nothing new is reported for 1.5 s and the baseline follows fast. To be
    /// called when bitrate, frame rate, resolution or GOP are changed and when day turns into night.
    pub fn relearn(&mut self) {
        self.learn = self.frames(3, 2);
        self.on_for = 0;
        self.unrest = (self.unrest + self.unrest / 2).min(UNREST_MAX);
    }

    /// Forgets everything learned, for another stream; as after a start nothing is reported for 4 s. Motion that
    /// is on runs out by its hold.
    pub fn restart(&mut self) {
        *self = Detector { threshold: self.threshold, hold: self.hold, ..Detector::new(self.fps, 0, self.hold_s) };
    }

    /// Ends motion at once; it starts again on new evidence of the usual length only.
    pub fn clear(&mut self) {
        self.hold = 0;
        self.on_for = 0;
        self.level = 0;
    }

    /// Another frame rate. A mere refinement of the same rate changes the durations; a step of more than an eighth (and
    /// of more than one, which is how a measured rate wavers) also changes what a picture is worth and is learned anew.
    pub fn set_fps(&mut self, fps: u32) {
        let fps = fps.clamp(1, MAX_FPS);
        if fps == self.fps {
            return;
        }
        let scaled = |frames: u32| (u64::from(frames) * u64::from(fps)).div_ceil(u64::from(self.fps)) as u32;
        (self.hold, self.on_for, self.learn) = (scaled(self.hold), scaled(self.on_for), scaled(self.learn));
        let by = fps.abs_diff(self.fps);
        let step = by > 1 && by * 8 > self.fps;
        self.rates = Rates::new(fps);
        self.fps = fps;
        if step && self.counted > 0 {
            self.relearn();
        }
    }

    /// Pictures a second that the durations are counted with.
    pub fn fps(&self) -> u32 {
        self.fps
    }

    /// What the last counted picture was, and what it is measured against.
    pub fn last(&self) -> Observation {
        let (x, r, qp) = self.last;
        Observation {
            x,
            r,
            baseline: self.baseline >> 8,
            unrest: self.unrest >> 8,
            level_percent: (self.level >> 8) * 100 / self.threshold,
            qp,
        }
    }

    /// Whether the detector has learned enough to report anything.
    pub fn is_ready(&self) -> bool {
        self.counted > self.frames(4, 1) && self.learn == 0
    }

    /// Which pictures make the statistics, and on which scale.
    fn counts(&mut self, unit: AccessUnit) -> bool {
        let patience = self.frames(2, 1).max(8);
        if unit.key {
            self.keys = self.keys.saturating_add(1);
            if self.keys < patience {
                return false;
            }
            if self.keys == patience {
                self.restart();
                self.keys = patience;
            }
        } else {
            if self.keys >= patience {
                self.restart();
            }
            self.keys = 0;
        }
        match (self.scale, unit.qp) {
            (Scale::Undecided, Some(_)) => self.scale = Scale::SizeAndQp,
            (Scale::Undecided, None) => self.scale = Scale::SizeOnly,
            (Scale::SizeAndQp, None) => {
                // One damaged picture must not cost the better measure, a stream that has changed must.
                self.unreadable += 1;
                if self.unreadable < self.frames(1, 1) {
                    return false;
                }
                self.restart();
                self.scale = Scale::SizeOnly;
            }
            _ => {}
        }
        self.unreadable = 0;
        true
    }

    fn observe(&mut self, bytes: u32, qp: Option<u8>) {
        let qp = match self.scale {
            Scale::SizeAndQp => qp.map(|qp| qp.min(QPS as u8 - 1)),
            _ => None,
        };
        self.counted = self.counted.saturating_add(1);
        let raw = log2_q8(bytes.saturating_add(16)) + qp.map_or(0, |qp| i32::from(qp) * 64);
        let offset = qp.map_or(0, |qp| self.offset(qp));
        let x = raw - (offset >> 8);
        if self.counted == 1 {
            self.baseline = x << 8;
            self.steady = x << 8;
        }
        let r = x - (self.baseline >> 8);
        self.last = (raw, r, qp);

        let away = (x << 8) - self.steady;
        self.deviation += scale(away.abs() - self.deviation, self.rates.steady);
        self.steady += scale(away, self.rates.steady);
        self.burst += scale((r << 8) - self.burst, self.rates.burst);
        self.peak -= scale(self.peak, self.rates.peak);
        self.peak = self.peak.max(self.burst);
        let limit = (self.unrest >> 8).max(UNREST_FLOOR).max(((self.peak >> 8) * PEAK_SHARE) >> 8);
        // Rounds down: `limit` is positive.
        let z = (r * 256).div_euclid(limit).clamp(-512, 768);
        self.level += scale((z << 8) - self.level, self.rates.level);

        let warm = self.counted < self.frames(4, 1);
        if self.learn > 0 {
            self.learn -= 1;
            self.baseline += (r.clamp(-384, 384) * self.rates.fast) >> 8;
            self.level = 0;
            self.burst = 0;
        } else if self.counted > self.frames(4, 1) && self.level >> 8 > self.threshold {
            // At least one picture, or a hold of 0 s would never report.
            self.hold = (self.hold_s * self.fps).max(1);
        }
        let on = self.is_on();
        if on {
            self.on_for += 1;
            let steady = self.deviation < STEADY_BELOW && self.deviation < 2 * self.unrest + STEADY_MARGIN;
            if self.on_for > self.frames(20, 1) || (self.on_for > self.frames(3, 1) && steady) {
                self.relearn();
            }
        } else {
            self.on_for = 0;
        }
        self.learn_from(r, qp, offset, on, warm);
    }

    /// Moves the baseline, and in quiet the unrest and the offset of this QP.
    fn learn_from(&mut self, r: i32, qp: Option<u8>, offset: i32, on: bool, warm: bool) {
        let step = r.abs().min((self.unrest >> 8).max(20));
        let rate = match (warm, on) {
            (true, _) => self.rates.up_warm,
            (_, true) => self.rates.up_on,
            _ => self.rates.up,
        };
        self.baseline += (if r > 0 { step } else { -step } * rate) >> 8;
        if self.learn > 0 {
            return;
        }
        if !on && self.counted > 15 {
            let step = scale(self.unrest, self.rates.unrest);
            let step = if r.abs() > self.unrest >> 8 { step } else { -step };
            self.unrest = (self.unrest + step).clamp(UNREST_MIN, UNREST_MAX);
        }
        if let Some(qp) = qp
            && (!on || warm)
        {
            let v = offset + ((r.clamp(-256, 256) * self.rates.qp) >> 8);
            if let Some(slot) = self.qp_offset.get_mut(usize::from(qp)) {
                *slot = v - (v >> 12);
                self.qp_seen |= 1 << qp;
            }
        }
    }

    /// The offset of this QP, of the nearest one that was seen, or 0.
    fn offset(&self, qp: u8) -> i32 {
        let qp = u32::from(qp);
        // Distance to the nearest bit below (or at) and above.
        let below = (self.qp_seen << (63 - qp)).leading_zeros();
        let above = (self.qp_seen >> qp).trailing_zeros();
        let nearest = match (below < 64, above < 64) {
            (true, _) if below <= above => qp - below,
            (_, true) => qp + above,
            _ => return 0,
        };
        self.qp_offset.get(nearest as usize).copied().unwrap_or(0)
    }

    /// `seconds / per` in pictures.
    fn frames(&self, seconds: u32, per: u32) -> u32 {
        self.fps * seconds / per
    }
}

impl Rates {
    fn new(fps: u32) -> Self {
        // A rate of `per_mille` at 15 pictures a second, the same change per second at any other frame rate; never 0,
        // and never beyond 1, where an average would overshoot.
        let at_15 = |per_mille: u32| rounded(65_536 * 15 * per_mille / 1000, fps, 65_536);
        Rates {
            up: at_15(20),
            up_on: at_15(10),
            up_warm: at_15(120),
            unrest: at_15(8),
            qp: at_15(30),
            fast: at_15(100),
            // 0.5 s. Half at most, or below 4 pictures a second a single one could start motion.
            level: rounded(131_072, fps, 32_768),
            burst: rounded(327_680, fps, 65_536),
            steady: rounded(93_623, fps, 65_536),
            peak: rounded(8_192, fps, 65_536),
        }
    }
}

fn rounded(dividend: u32, fps: u32, max: u32) -> i32 {
    ((dividend + fps / 2) / fps).clamp(1, max) as i32
}

/// `v * rate` with the rate in Q16.
fn scale(v: i32, rate: i32) -> i32 {
    ((i64::from(v) * i64::from(rate)) >> 16) as i32
}

/// log2 in Q8, from the position of the highest bit and the six bits after it.
fn log2_q8(v: u32) -> i32 {
    let top = 31 - v.max(1).leading_zeros();
    let next = if top >= 6 { v >> (top - 6) } else { v << (6 - top) };
    ((top << 8) + u32::from(LOG2_Q8[(next & 63) as usize])) as i32
}

/// `round(256 * log2(1 + i / 64))`.
const LOG2_Q8: [u8; 64] = [
    0, 6, 11, 17, 22, 28, 33, 38, 44, 49, 54, 59, 63, 68, 73, 78, 82, 87, 92, 96, 100, 105, 109, 113, 118, 122, 126,
    130, 134, 138, 142, 146, 150, 154, 157, 161, 165, 169, 172, 176, 179, 183, 186, 190, 193, 197, 200, 203, 207, 210,
    213, 216, 220, 223, 226, 229, 232, 235, 238, 241, 244, 247, 250, 253,
];

/// Beyond these the products of durations would not fit.
const MAX_FPS: u32 = 240;
const MAX_HOLD_S: u32 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    const FPS: u32 = 15;
    const HOLD_S: u32 = 2;

    /// A detector and the stream it is fed with: noise of a fixed seed around a size and a QP.
    struct Scene {
        detector: Detector,
        frame: u32,
        seed: u32,
        /// Bytes of a quiet P picture.
        bytes: u32,
        /// Percent that sizes vary to either side.
        noise: u32,
        qp: Option<u8>,
        /// Seconds at which motion started and stopped.
        starts: Vec<f32>,
        stops: Vec<f32>,
    }

    impl Scene {
        fn new(bytes: u32, qp: Option<u8>) -> Self {
            Self::at(FPS, bytes, qp)
        }

        fn at(fps: u32, bytes: u32, qp: Option<u8>) -> Self {
            let detector = Detector::new(fps, 50, HOLD_S);
            Scene { detector, frame: 0, seed: 1, bytes, noise: 10, qp, starts: vec![], stops: vec![] }
        }

        fn chance(&mut self, below: u32) -> u32 {
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.seed >> 8) % below
        }

        fn push(&mut self, key: bool, bytes: u32, qp: Option<u8>) {
            let t = self.frame as f32 / self.detector.fps() as f32;
            match self.detector.push(AccessUnit { key, bytes, qp }) {
                Some(Motion::Start) => self.starts.push(t),
                Some(Motion::Stop) => self.stops.push(t),
                None => {}
            }
            self.frame += 1;
        }

        fn noisy(&mut self, bytes: u32) -> u32 {
            let span = bytes * self.noise / 100;
            bytes - span + self.chance(2 * span + 1)
        }

        /// `seconds` of pictures whose sizes `shape` makes from the quiet size and the number of the frame, a key
        /// picture every 2 s.
        fn shaped(&mut self, seconds: f32, shape: impl Fn(u32, u32) -> u32) {
            for i in 0..(seconds * self.detector.fps() as f32) as u32 {
                let key = self.frame.is_multiple_of(2 * self.detector.fps());
                let bytes = if key { self.bytes * 12 } else { shape(self.bytes, i) };
                let bytes = self.noisy(bytes);
                self.push(key, bytes, self.qp);
            }
        }

        fn quiet(&mut self, seconds: f32) {
            self.shaped(seconds, |bytes, _| bytes);
        }

        fn times(&mut self, factor: u32, seconds: f32) {
            self.shaped(seconds, |bytes, _| bytes * factor);
        }
    }

    #[test]
    fn log2_is_right_to_a_hundredth() {
        for v in (1..2000).chain([65_535, 65_536, 1 << 20, u32::MAX / 3, u32::MAX]) {
            let error = f64::from(log2_q8(v)) / 256.0 - f64::from(v).log2();
            assert!(error.abs() < 0.025, "{v}: {error}");
        }
        assert_eq!(log2_q8(0), 0);
    }

    #[test]
    fn something_that_moves_is_reported_once_and_runs_out_by_its_hold() {
        for qp in [None, Some(32)] {
            let mut s = Scene::new(400, qp);
            s.quiet(30.0);
            // Uneven, as steps are.
            s.shaped(6.0, |bytes, i| bytes * if i % 12 < 6 { 16 } else { 4 });
            s.quiet(30.0);
            assert_eq!((s.starts.len(), s.stops.len()), (1, 1), "{:?} {:?}", s.starts, s.stops);
            assert!((30.2..31.0).contains(&s.starts[0]), "{:?}", s.starts);
            assert!((37.0..38.8).contains(&s.stops[0]), "{:?}", s.stops);
        }
    }

    #[test]
    fn it_does_so_at_every_frame_rate() {
        for fps in [3, 5, 8, 10, 20, 25, 30, 60, 240] {
            let mut s = Scene::at(fps, 400, Some(32));
            s.quiet(30.0);
            s.times(5, 6.0);
            s.quiet(30.0);
            assert_eq!((s.starts.len(), s.stops.len()), (1, 1), "{fps}: {:?} {:?}", s.starts, s.stops);
            assert!((30.2..31.5).contains(&s.starts[0]), "{fps}: {:?}", s.starts);
        }
    }

    #[test]
    fn what_is_shorter_than_half_a_second_is_not_reported() {
        let mut s = Scene::new(400, Some(32));
        s.quiet(30.0);
        for _ in 0..10 {
            s.times(20, 0.27);
            s.quiet(8.0);
        }
        assert!(s.starts.is_empty(), "{:?}", s.starts);
        s.times(20, 0.8);
        s.quiet(8.0);
        assert_eq!(s.starts.len(), 1);
    }

    #[test]
    fn a_clock_in_the_picture_is_no_motion() {
        for fps in [2, 5, 10, 15, 25] {
            let mut s = Scene::at(fps, 60, Some(34));
            s.shaped(120.0, |bytes, i| if i % fps == 0 { bytes * 15 } else { bytes });
            assert!(s.starts.is_empty(), "{fps}: {:?}", s.starts);
        }
    }

    #[test]
    fn cbr_answers_motion_with_the_qp() {
        let mut s = Scene::new(2000, Some(28));
        s.quiet(30.0);
        s.qp = Some(36);
        s.times(1, 4.0);
        s.qp = Some(28);
        s.quiet(20.0);
        assert_eq!(s.starts.len(), 1, "{:?}", s.starts);
        assert!((30.2..31.0).contains(&s.starts[0]), "{:?}", s.starts);
    }

    #[test]
    fn qp_steps_of_noise_are_learned() {
        // One octave of bytes a step, as noise at night has it: four times what the slope expects.
        let mut s = Scene::new(2000, Some(30));
        let mut late = 0;
        for round in 0..120 {
            let step = s.chance(3) as u8;
            s.qp = Some(30 + step);
            let before = s.starts.len();
            s.shaped(2.0, |bytes, _| bytes >> step);
            if round > 30 {
                late += s.starts.len() - before;
            }
        }
        assert_eq!(late, 0, "{:?}", s.starts);
    }

    #[test]
    fn a_new_level_is_relearned() {
        // An IR cut: everything is four times as large from now on, and stays so.
        let mut s = Scene::new(400, Some(32));
        s.quiet(30.0);
        s.bytes *= 4;
        s.quiet(60.0);
        assert_eq!(s.starts.len(), 1, "{:?}", s.starts);
        assert!(s.stops[0] - s.starts[0] < 6.0, "{:?} {:?}", s.starts, s.stops);
        // It sees on the new level, too, and on the old one.
        s.times(5, 3.0);
        s.quiet(20.0);
        assert_eq!(s.starts.len(), 2, "{:?}", s.starts);
        s.bytes /= 4;
        s.quiet(60.0);
        s.times(5, 3.0);
        s.quiet(20.0);
        assert_eq!(s.starts.len(), 3, "{:?}", s.starts);
    }

    #[test]
    fn a_change_of_our_own_is_no_motion() {
        let mut s = Scene::new(400, Some(32));
        s.quiet(30.0);
        s.bytes *= 4;
        s.detector.relearn();
        assert!(!s.detector.is_ready());
        s.quiet(60.0);
        assert!(s.starts.is_empty(), "{:?}", s.starts);
        assert!(s.detector.is_ready());
    }

    #[test]
    fn after_twenty_seconds_motion_is_normal() {
        let mut s = Scene::new(400, Some(32));
        s.quiet(30.0);
        // Far from steady: up and down by three octaves, twice a second.
        s.shaped(24.0, |bytes, i| if i % 8 < 4 { bytes * 40 } else { bytes * 5 });
        assert_eq!(s.starts.len(), 1, "{:?}", s.starts);
        assert!((21.0..23.5).contains(&(s.stops[0] - s.starts[0])), "{:?} {:?}", s.starts, s.stops);
    }

    #[test]
    fn leaves_raise_the_unrest() {
        let mut s = Scene::new(400, Some(32));
        s.noise = 5;
        s.quiet(60.0);
        let calm = s.detector.last().unrest;
        s.noise = 70;
        s.quiet(30.0);
        assert!(s.detector.last().unrest > 2 * calm);
        // The wind itself may be reported, its blowing on is not.
        let before = s.starts.len();
        assert!(before <= 1, "{:?}", s.starts);
        s.quiet(120.0);
        assert_eq!(s.starts.len(), before, "{:?}", s.starts);
    }

    #[test]
    fn nothing_is_reported_in_the_first_four_seconds() {
        let mut s = Scene::new(400, Some(32));
        s.quiet(1.0);
        s.times(30, 2.0);
        s.quiet(20.0);
        assert!(s.starts.is_empty(), "{:?}", s.starts);
        s.detector.restart();
        s.times(30, 3.0);
        assert!(s.starts.is_empty(), "{:?}", s.starts);
    }

    #[test]
    fn a_damaged_picture_does_not_cost_the_qp() {
        let mut s = Scene::new(2000, Some(28));
        s.quiet(30.0);
        s.push(false, 1900, None);
        s.quiet(5.0);
        assert_eq!(s.detector.last().qp, Some(28));
        assert!(s.starts.is_empty());
    }

    #[test]
    fn a_stream_without_qp_is_never_mixed() {
        // The QP becomes unreadable, without motion: the detector starts again on sizes and stays there.
        let mut s = Scene::new(2000, Some(28));
        s.quiet(30.0);
        s.qp = None;
        s.quiet(30.0);
        assert_eq!(s.detector.last().qp, None);
        s.qp = Some(28);
        s.quiet(30.0);
        assert_eq!(s.detector.last().qp, None);
        assert!(s.starts.is_empty(), "{:?}", s.starts);
        s.times(5, 3.0);
        assert_eq!(s.starts.len(), 1, "{:?}", s.starts);
        s.detector.restart();
        s.quiet(10.0);
        assert_eq!(s.detector.last().qp, Some(28));
    }

    #[test]
    fn a_stream_of_key_pictures_is_measured_on_these() {
        let mut s = Scene::new(9000, Some(28));
        for _ in 0..30 * FPS {
            let bytes = s.noisy(9000);
            s.push(true, bytes, Some(28));
        }
        assert!(s.detector.is_ready() && s.starts.is_empty(), "{:?}", s.starts);
        for _ in 0..3 * FPS {
            let bytes = s.noisy(27_000);
            s.push(true, bytes, Some(28));
        }
        assert_eq!(s.starts.len(), 1, "{:?}", s.starts);
        // P pictures again: another stream.
        s.bytes = 400;
        s.quiet(20.0);
        s.times(5, 3.0);
        assert_eq!(s.starts.len(), 2, "{:?}", s.starts);
    }

    #[test]
    fn a_refined_frame_rate_keeps_what_was_learned() {
        let mut s = Scene::new(400, Some(32));
        s.quiet(30.0);
        s.times(5, 3.0);
        assert!(s.detector.is_on());
        let baseline = s.detector.last().baseline;
        s.detector.set_fps(16);
        assert!(s.detector.is_ready() && s.detector.is_on());
        assert_eq!(s.detector.last().baseline, baseline);
        for fps in [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 6, 5] {
            s.detector.set_fps(fps);
        }
        assert!(s.detector.is_ready() && s.detector.is_on());
        s.detector.set_fps(16);
        s.quiet(5.0);
        s.times(5, 3.0);
        // Another rate is another level.
        s.detector.set_fps(8);
        assert!(!s.detector.is_ready() && s.detector.is_on());
    }

    #[test]
    fn clear_ends_motion_and_asks_for_new_evidence() {
        let mut s = Scene::new(400, Some(32));
        s.quiet(30.0);
        s.times(5, 1.5);
        assert!(s.detector.is_on());
        s.detector.clear();
        assert!(!s.detector.is_on());
        s.times(5, 0.15);
        assert!(!s.detector.is_on());
        s.times(5, 0.8);
        assert!(s.detector.is_on());
    }

    #[test]
    fn sensitivity_orders_the_thresholds() {
        // An octave and a bit in a scene of some unrest.
        let seen = |sensitivity| {
            let mut s = Scene::new(400, None);
            s.detector = Detector::new(FPS, sensitivity, HOLD_S);
            s.noise = 50;
            s.quiet(60.0);
            (0..10).for_each(|_| {
                s.shaped(2.0, |bytes, _| bytes * 17 / 10);
                s.quiet(10.0);
            });
            s.starts.len()
        };
        let (low, high) = (seen(0), seen(100));
        assert!(low < high, "{low} {high}");
    }

    #[test]
    fn no_input_overflows() {
        // Debug builds panic when an integer does.
        for fps in [0, 1, 2, 25, 240, u32::MAX] {
            for sensitivity in [0, 100, 255] {
                let mut detector = Detector::new(fps, sensitivity, u32::MAX);
                let mut seed = 5u32;
                for i in 0..20_000u32 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let bytes = [0, 1, u32::MAX, seed >> (seed & 31)][(seed >> 9) as usize % 4];
                    let qp = [Some((seed >> 20) as u8), Some(30), None][(i >> 12) as usize % 3];
                    detector.push(AccessUnit { key: seed >> 30 == 0, bytes, qp });
                    match seed >> 12 & 0xfff {
                        0 => detector.relearn(),
                        1 => detector.set_fps(seed >> 24),
                        2 => detector.set_fps(u32::MAX),
                        3 => detector.restart(),
                        _ => {}
                    }
                    let _ = detector.last().to_string();
                }
            }
        }
    }

    #[test]
    fn an_observation_is_one_line_of_the_log() {
        let mut last = Observation { x: 3333, r: -64, baseline: 3397, unrest: 46, level_percent: -12, qp: Some(31) };
        assert_eq!(last.to_string(), "x 13.01 r -0.25 baseline 13.26 unrest 0.17 level -12% qp 31");
        last.qp = None;
        assert!(last.to_string().ends_with("-12% no qp"));
        let text = |v| Hundredths(v).to_string();
        assert_eq!([text(0), text(5), text(-5), text(1234)], ["0.00", "0.05", "-0.05", "12.34"]);
    }

    #[test]
    fn the_nearest_qp_lends_its_offset() {
        let mut detector = Detector::new(FPS, 50, HOLD_S);
        assert_eq!(detector.offset(30), 0);
        for (qp, offset) in [(0, 1), (20, 2), (51, 3)] {
            detector.qp_seen |= 1 << qp;
            detector.qp_offset[qp] = offset;
        }
        for (qp, offset) in [(0, 1), (10, 1), (11, 2), (20, 2), (35, 2), (36, 3), (51, 3)] {
            assert_eq!(detector.offset(qp), offset, "{qp}");
        }
    }
}
