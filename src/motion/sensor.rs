//! The motion sensor as HomeKit knows it: on or off, whoever raised it.

use super::{AccessUnit, Detector, Motion};
use crate::time::{Duration, Instant, earliest};

/// Who raises motion by itself. A POST and a doorbell press do in every mode but [`Mode::Off`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The detector.
    Detect,
    /// Always on, for hubs that shall look for themselves: see [`Sensor`].
    Continuous,
    /// Nobody else.
    Api,
    /// Nobody at all.
    Off,
}

/// Joins all origins into one state.
///
/// Every method that may change the state returns the change; only one change at a time, and none that is none. After
/// each of them [`Sensor::poll_timeout`] says when [`Sensor::handle_timeout`] is due.
///
/// **Pulses.** A hub opens a recording on a *change* to true. To make it open anew the state must fall and rise in two
/// separate events, so a pulse is [`Motion::Stop`] now and [`Motion::Start`] after [`PULSE`], which leaves every
/// connection the time to send the first.
///
/// **Continuous.** Motion is on. While no recording runs it pulses every [`CONTINUOUS_PULSE`], so that a hub that
/// missed the change, or closed, opens again. While one runs a pulse would only end it; when it has ended the hub gets
/// [`REOPEN`] to come back by itself before the next pulse. Without pictures there is nothing to look at: motion falls
/// at the pulse that is due and rises within [`STALLED`] of the first picture.
#[derive(Clone, Debug)]
pub struct Sensor {
    mode: Mode,
    hold: Duration,
    detector: Detector,
    /// HomeKitCameraActive.
    active: bool,
    /// A recording runs.
    recording: bool,
    /// What was reported last.
    on: bool,
    /// The last POST keeps motion on until then.
    posted_until: Option<Instant>,
    /// The last doorbell press keeps motion on until then.
    rung_until: Option<Instant>,
    /// The detector is on; unless pictures go on coming, until then.
    detected_until: Option<Instant>,
    /// Motion is forced off until then.
    gap_until: Option<Instant>,
    /// Mode continuous: the next pulse; `None` while a recording runs.
    next_pulse: Option<Instant>,
    /// Mode continuous: cleared by hand, or for lack of pictures, until the next pulse.
    cleared: bool,
}

const _: () = assert!(size_of::<Sensor>() <= 560);

/// How long a pulse holds motion off.
pub const PULSE: Duration = Duration::from_secs(1);
/// Mode continuous: from pulse to pulse.
pub const CONTINUOUS_PULSE: Duration = Duration::from_secs(30);
/// Mode continuous: how long a hub may take to open the next recording before it is reminded by a pulse.
pub const REOPEN: Duration = Duration::from_secs(10);
/// The least time without pictures that counts as a stalled source; mode continuous looks for them this often.
pub const STALLED: Duration = Duration::from_secs(3);

impl Sensor {
    /// A sensor at `now`, with the camera active. The detector takes `fps`, `sensitivity` (0..=100) and the hold;
    /// `hold_s` (0 counts as 1) also is how long a POST and a doorbell press last.
    ///
    /// In mode continuous the first [`Motion::Start`] comes from [`Sensor::handle_timeout`], due at once and until
    /// there are pictures.
    pub fn new(mode: Mode, fps: u32, sensitivity: u8, hold_s: u32, now: Instant) -> Self {
        let hold_s = hold_s.max(1);
        Sensor {
            mode,
            hold: Duration::from_secs(hold_s.into()),
            detector: Detector::new(fps, sensitivity, hold_s),
            active: true,
            recording: false,
            on: false,
            posted_until: None,
            rung_until: None,
            detected_until: None,
            gap_until: None,
            next_pulse: (mode == Mode::Continuous).then_some(now),
            cleared: mode == Mode::Continuous,
        }
    }

    /// Whether motion is on, as it was reported last.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// What raises motion.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The detector, for its figures. It sees pictures in mode detect only.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// A picture has come. Those of a camera that is switched off are learned from and not reported.
    pub fn handle_access_unit(&mut self, unit: AccessUnit, now: Instant) -> Option<Motion> {
        if self.mode != Mode::Detect {
            return None;
        }
        self.detector.push(unit);
        self.detected_until = self.detector.is_on().then(|| now + self.hold.max(STALLED));
        self.settle(now)
    }

    /// A POST (`on`) or DELETE of motion. A POST lasts for `hold`, or for the configured hold, counted from the last
    /// one; a DELETE ends motion at once, whoever raised it.
    pub fn handle_api(&mut self, on: bool, hold: Option<Duration>, now: Instant) -> Option<Motion> {
        if on {
            if self.may_rise() {
                self.posted_until = Some(now + hold.unwrap_or(self.hold));
                self.cleared = false;
            }
        } else {
            self.clear();
        }
        self.settle(now)
    }

    /// The doorbell was pressed. Hubs are offered the doorbell as a trigger and select motion only.
    pub fn handle_ring(&mut self, now: Instant) -> Option<Motion> {
        if self.may_rise() {
            self.rung_until = Some(now + self.hold);
            self.cleared = false;
        }
        self.settle(now)
    }

    /// HomeKitCameraActive was written. While it is false motion is off, and what happens then is forgotten.
    pub fn handle_camera_active(&mut self, active: bool, now: Instant) -> Option<Motion> {
        if active != self.active {
            self.active = active;
            self.clear();
            self.gap_until = None;
            self.cleared = false;
            self.restart_pulses(CONTINUOUS_PULSE, now);
        }
        self.settle(now)
    }

    /// A recording has begun or ended. Only mode continuous wants to know.
    pub fn handle_recording(&mut self, running: bool, now: Instant) {
        if running != self.recording {
            self.recording = running;
            self.restart_pulses(REOPEN, now);
        }
    }

    /// Lets motion that is on fall, and rise again after [`PULSE`], so that hubs open a new recording: for one that
    /// was cut at its longest while motion goes on. Nothing happens while motion is off.
    pub fn pulse(&mut self, now: Instant) -> Option<Motion> {
        if self.on {
            self.gap_until = Some(now + PULSE);
            self.restart_pulses(CONTINUOUS_PULSE, now);
        }
        self.settle(now)
    }

    /// The encoder was changed (bitrate, GOP, frame rate, resolution), or day has turned into night.
    pub fn relearn(&mut self) {
        self.detector.relearn();
    }

    /// Another stream has begun: nothing that was learned holds.
    pub fn restart(&mut self) {
        self.detector.restart();
    }

    /// The frame rate of the pictures, as far as it is known by now.
    pub fn set_fps(&mut self, fps: u32) {
        self.detector.set_fps(fps);
    }

    /// When [`Sensor::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.posted_until, self.rung_until, self.detected_until, self.gap_until, self.next_pulse];
        timers.into_iter().fold(None, earliest).filter(|_| self.active)
    }

    /// Lets what is due happen. `delivers`: pictures come.
    pub fn handle_timeout(&mut self, delivers: bool, now: Instant) -> Option<Motion> {
        if self.detected_until.is_some_and(|t| t <= now) {
            // No pictures any more: the detector cannot count its hold down.
            self.detector.clear();
            self.detected_until = None;
        }
        if self.next_pulse.is_some_and(|t| t <= now) {
            // After a pause of the whole system one pulse is enough.
            self.next_pulse = Some(now + if delivers { CONTINUOUS_PULSE } else { STALLED });
            self.gap_until = (self.on && delivers).then(|| now + PULSE);
            self.cleared = !delivers;
        }
        self.settle(now)
    }

    fn may_rise(&self) -> bool {
        self.active && self.mode != Mode::Off
    }

    fn clear(&mut self) {
        self.detector.clear();
        self.posted_until = None;
        self.rung_until = None;
        self.detected_until = None;
        self.gap_until = None;
        self.cleared = true;
    }

    fn restart_pulses(&mut self, after: Duration, now: Instant) {
        if self.mode == Mode::Continuous {
            self.next_pulse = (!self.recording).then(|| now + after);
        }
    }

    /// Brings the reported state in line with the origins.
    fn settle(&mut self, now: Instant) -> Option<Motion> {
        for timer in [&mut self.posted_until, &mut self.rung_until, &mut self.gap_until] {
            *timer = timer.filter(|t| *t > now);
        }
        let raised = self.posted_until.is_some()
            || self.rung_until.is_some()
            || self.detected_until.is_some()
            || (self.mode == Mode::Continuous && !self.cleared);
        let on = self.active && self.gap_until.is_none() && raised;
        let was_on = core::mem::replace(&mut self.on, on);
        match (was_on, on) {
            (false, true) => Some(Motion::Start),
            (true, false) => Some(Motion::Stop),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const FPS: u32 = 10;

    fn at(s: u64) -> Instant {
        Instant::ZERO + s as u32 * S
    }

    fn sensor(mode: Mode) -> Sensor {
        Sensor::new(mode, FPS, 50, 10, at(0))
    }

    /// Lets time pass up to and including `until`; the changes with their seconds.
    fn run(sensor: &mut Sensor, until: u64) -> Vec<(u64, Motion)> {
        run_with(sensor, true, until)
    }

    /// The same, with or without pictures.
    fn run_with(sensor: &mut Sensor, delivers: bool, until: u64) -> Vec<(u64, Motion)> {
        let mut changes = Vec::new();
        while let Some(due) = sensor.poll_timeout().filter(|due| *due <= at(until)) {
            if let Some(change) = sensor.handle_timeout(delivers, due) {
                changes.push((due.as_micros() / 1_000_000, change));
            }
            assert!(sensor.poll_timeout().is_none_or(|next| next > due), "a timer that is due stays due");
        }
        changes
    }

    /// Pictures from second `from` to second `to`; the changes with their seconds.
    fn pictures(sensor: &mut Sensor, from: u64, to: u64, bytes: u32) -> Vec<(u64, Motion)> {
        let mut changes = Vec::new();
        for frame in from * u64::from(FPS)..to * u64::from(FPS) {
            let now = Instant::from_micros(frame * 1_000_000 / u64::from(FPS));
            let unit = AccessUnit { key: frame % 20 == 0, bytes, qp: Some(30) };
            changes.extend(sensor.handle_access_unit(unit, now).map(|m| (frame / u64::from(FPS), m)));
        }
        changes
    }

    #[test]
    fn a_post_lasts_for_its_hold_and_another_only_extends() {
        for mode in [Mode::Api, Mode::Detect] {
            let mut s = sensor(mode);
            assert_eq!(s.handle_api(true, None, at(0)), Some(Motion::Start));
            assert_eq!(run(&mut s, 9), []);
            assert_eq!(s.handle_api(true, None, at(9)), None);
            assert_eq!(run(&mut s, 100), [(19, Motion::Stop)]);
            assert!(!s.is_on());
            assert_eq!(s.poll_timeout(), None);
        }
    }

    #[test]
    fn the_last_post_says_how_long() {
        let mut s = sensor(Mode::Api);
        s.handle_api(true, Some(3600 * S), at(0));
        assert_eq!(s.handle_api(true, Some(2 * S), at(1)), None);
        assert_eq!(run(&mut s, 4000), [(3, Motion::Stop)]);
    }

    #[test]
    fn a_delete_ends_motion_at_once_whoever_raised_it() {
        let mut s = sensor(Mode::Detect);
        s.handle_api(true, Some(3600 * S), at(0));
        s.handle_ring(at(1));
        assert_eq!(s.handle_api(false, None, at(2)), Some(Motion::Stop));
        assert_eq!(s.handle_api(false, None, at(3)), None);
        assert_eq!(run(&mut s, 4000), []);

        let mut s = sensor(Mode::Detect);
        assert_eq!(pictures(&mut s, 0, 20, 1000), []);
        assert_eq!(pictures(&mut s, 20, 22, 9000), [(20, Motion::Start)]);
        assert_eq!(s.handle_api(false, None, at(22)), Some(Motion::Stop));
        assert_eq!(pictures(&mut s, 22, 30, 1000), []);
    }

    #[test]
    fn a_press_raises_motion_and_a_post_does_not_cut_it_short() {
        let mut s = sensor(Mode::Api);
        assert_eq!(s.handle_ring(at(0)), Some(Motion::Start));
        assert_eq!(s.handle_api(true, Some(S), at(1)), None);
        assert_eq!(run(&mut s, 60), [(10, Motion::Stop)]);
    }

    #[test]
    fn off_is_off() {
        let mut s = sensor(Mode::Off);
        assert_eq!(s.handle_api(true, None, at(0)), None);
        assert_eq!(s.handle_ring(at(0)), None);
        assert_eq!(s.pulse(at(0)), None);
        assert_eq!(pictures(&mut s, 0, 20, 1000), []);
        assert_eq!(pictures(&mut s, 20, 30, 9000), []);
        assert_eq!(s.poll_timeout(), None);
    }

    #[test]
    fn the_detector_is_heard_in_mode_detect_only() {
        let mut s = sensor(Mode::Api);
        assert_eq!(pictures(&mut s, 0, 20, 1000), []);
        assert_eq!(pictures(&mut s, 20, 30, 9000), []);
        let mut s = sensor(Mode::Detect);
        assert_eq!(pictures(&mut s, 0, 20, 1000), []);
        assert_eq!(pictures(&mut s, 20, 22, 9000), [(20, Motion::Start)]);
        let stop = pictures(&mut s, 22, 60, 1000);
        assert!(matches!(stop[..], [(31..=32, Motion::Stop)]), "{stop:?}");
    }

    #[test]
    fn a_source_that_stalls_does_not_leave_motion_on() {
        let mut s = sensor(Mode::Detect);
        pictures(&mut s, 0, 20, 1000);
        assert_eq!(pictures(&mut s, 20, 22, 9000), [(20, Motion::Start)]);
        // The last picture came at 21.9 s.
        assert_eq!(run(&mut s, 100), [(31, Motion::Stop)]);
        assert_eq!(pictures(&mut s, 100, 110, 1000), []);
    }

    #[test]
    fn a_camera_that_is_off_reports_nothing_and_remembers_nothing() {
        let mut s = sensor(Mode::Detect);
        s.handle_api(true, Some(60 * S), at(0));
        assert_eq!(s.handle_camera_active(false, at(1)), Some(Motion::Stop));
        assert_eq!(s.handle_camera_active(false, at(1)), None);
        assert_eq!(s.handle_api(true, Some(60 * S), at(2)), None);
        assert_eq!(s.handle_ring(at(2)), None);
        assert_eq!(pictures(&mut s, 2, 20, 1000), []);
        assert_eq!(pictures(&mut s, 20, 22, 9000), []);
        assert_eq!(s.poll_timeout(), None);
        assert_eq!(s.handle_camera_active(true, at(22)), None);
        assert_eq!(run(&mut s, 100), []);
        assert_eq!(s.handle_ring(at(101)), Some(Motion::Start));
    }

    #[test]
    fn a_pulse_is_two_changes() {
        let mut s = sensor(Mode::Api);
        assert_eq!(s.pulse(at(0)), None);
        s.handle_api(true, Some(60 * S), at(0));
        assert_eq!(s.pulse(at(5)), Some(Motion::Stop));
        // Nothing may come between the two.
        assert_eq!(s.handle_api(true, Some(60 * S), at(5)), None);
        assert_eq!(run(&mut s, 300), [(6, Motion::Start), (65, Motion::Stop)]);
        // Motion that ends within the pulse does not rise again.
        s.handle_api(true, Some(S), at(300));
        assert_eq!(s.pulse(at(300)), Some(Motion::Stop));
        assert_eq!(run(&mut s, 400), []);
    }

    #[test]
    fn continuous_pulses_while_nobody_records() {
        let mut s = sensor(Mode::Continuous);
        let first =
            [(0, Motion::Start), (30, Motion::Stop), (31, Motion::Start), (60, Motion::Stop), (61, Motion::Start)];
        assert_eq!(run(&mut s, 62), first);
        s.handle_recording(true, at(62));
        assert_eq!(run(&mut s, 242), []);
        s.handle_recording(false, at(242));
        assert_eq!(run(&mut s, 260), [(252, Motion::Stop), (253, Motion::Start)]);
        // The hub comes back by itself.
        s.handle_recording(true, at(260));
        s.handle_recording(false, at(300));
        s.handle_recording(true, at(305));
        assert_eq!(run(&mut s, 400), []);
    }

    #[test]
    fn continuous_calls_nobody_while_no_pictures_come() {
        let mut s = sensor(Mode::Continuous);
        // The source is yet to come.
        assert_eq!(run_with(&mut s, false, 100), []);
        assert_eq!(run(&mut s, 120), [(102, Motion::Start)]);
        // It dies, for a long time.
        assert_eq!(run_with(&mut s, false, 2000), [(132, Motion::Stop)]);
        // A POST and a press still count.
        assert_eq!(s.handle_ring(at(2000)), Some(Motion::Start));
        assert_eq!(run_with(&mut s, false, 2100), [(2010, Motion::Stop)]);
        assert_eq!(run(&mut s, 2110), [(2103, Motion::Start)]);
        // While a hub records: the stream has ended by then.
        s.handle_recording(true, at(2110));
        s.handle_recording(false, at(2130));
        assert_eq!(run_with(&mut s, false, 2400), [(2140, Motion::Stop)]);
    }

    #[test]
    fn continuous_follows_the_camera_switch_and_a_delete() {
        let mut s = sensor(Mode::Continuous);
        run(&mut s, 5);
        assert_eq!(s.handle_camera_active(false, at(5)), Some(Motion::Stop));
        assert_eq!(run(&mut s, 500), []);
        assert_eq!(s.handle_camera_active(true, at(500)), Some(Motion::Start));
        assert_eq!(s.handle_api(false, None, at(510)), Some(Motion::Stop));
        assert_eq!(run(&mut s, 531), [(530, Motion::Start)]);
        assert_eq!(s.handle_api(false, None, at(540)), Some(Motion::Stop));
        assert_eq!(s.handle_api(true, None, at(541)), Some(Motion::Start));
    }

    #[test]
    fn a_late_timer_pulses_once() {
        let mut s = sensor(Mode::Continuous);
        run(&mut s, 0);
        assert_eq!(s.handle_timeout(true, at(1000)), Some(Motion::Stop));
        assert_eq!(run(&mut s, 1030), [(1001, Motion::Start), (1030, Motion::Stop)]);
    }
}
