//! What the finger on a button means: one press, two, or a long one (HAP R2 §9.75), and a very long one.
//!
//! A change counts when it has lasted long enough ([`Rules::settle`]) and does not follow the last one too
//! closely ([`LOCK`]): contacts bounce. What is down when it is seen for the first time was not pressed: it is
//! stuck, or somebody held it while the camera started.

use crate::time::{Duration, Instant, earliest};

/// Changes within this time of the last are bounces.
pub const LOCK: Duration = Duration::from_millis(30);
/// A second press is awaited for so long after the end of the first.
pub const DOUBLE: Duration = Duration::from_millis(400);
/// Held for so long it is a long press.
pub const LONG: Duration = Duration::from_secs(1);

/// What presses mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// For so long a change has to last: zero when the kernel has debounced.
    pub settle: Duration,
    /// Tell double and long presses from single ones. A single press is then known only [`DOUBLE`] after its
    /// end; otherwise at once.
    pub all: bool,
    /// Held for so long it is [`Meaning::Reset`].
    pub reset: Option<Duration>,
}

/// A kind of press: the values of ProgrammableSwitchEvent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Press {
    /// Once.
    Single = 0,
    /// Twice.
    Double = 1,
    /// Long.
    Long = 2,
}

/// What was meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// A press.
    Press(Press),
    /// Held until the factory reset.
    Reset,
}

/// A button.
#[derive(Debug)]
pub struct Button {
    rules: Rules,
    /// What was seen last, and since when.
    seen: (bool, Instant),
    /// What counts, and since when; nothing before the first look.
    counts: Option<(bool, Instant)>,
    /// Since when it is pressed.
    pressed: Option<Instant>,
    /// The press that lasts has been told.
    told: bool,
    /// The hold that lasts has been told as a reset.
    reset_told: bool,
    /// A press that is single when nothing comes until then.
    single: Option<Instant>,
}

impl Button {
    /// A button that nobody has looked at.
    pub fn new(rules: Rules) -> Self {
        Button {
            rules,
            seen: (false, Instant::ZERO),
            counts: None,
            pressed: None,
            told: false,
            reset_told: false,
            single: None,
        }
    }

    /// It was seen up or down. Ask [`Button::poll`] afterwards.
    pub fn handle_level(&mut self, down: bool, now: Instant) {
        if self.counts.is_none() {
            self.seen = (down, now);
            self.counts = Some((down, now));
        } else if self.seen.0 != down {
            self.seen = (down, now);
        }
    }

    /// Whether it is down, bounces left out; `None` before the first look.
    pub fn is_down(&self) -> Option<bool> {
        self.counts.map(|(down, _)| down)
    }

    /// When what was seen last counts, when it does not already.
    fn counts_at(&self) -> Option<Instant> {
        let (down, since) = self.counts?;
        (self.seen.0 != down).then(|| (self.seen.1 + self.rules.settle).max(since + LOCK))
    }

    /// When the press has lasted for so long. A finger that seems to leave may be a bounce: until that is
    /// known, nothing comes of it.
    fn held(&self, length: Duration) -> Option<Instant> {
        self.pressed.filter(|_| self.seen.0).map(|since| since + length)
    }

    fn long_at(&self) -> Option<Instant> {
        self.held(LONG).filter(|_| self.rules.all && !self.told)
    }

    fn reset_at(&self) -> Option<Instant> {
        self.rules.reset.filter(|_| !self.reset_told).and_then(|length| self.held(length))
    }

    /// When to ask [`Button::poll`] again at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = earliest(self.long_at(), self.reset_at());
        earliest(earliest(self.counts_at(), self.single), held)
    }

    /// What was meant, one thing at a time: ask until there is nothing more.
    pub fn poll(&mut self, now: Instant) -> Option<Meaning> {
        let due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if due(self.counts_at()) {
            self.counts = Some((self.seen.0, now));
            if !self.seen.0 {
                // Nobody pressed what was down from the start.
                if self.pressed.take().is_some() && self.rules.all && !self.told {
                    self.single = Some(now + DOUBLE);
                }
            } else {
                self.pressed = Some(now);
                self.reset_told = false;
                let second = self.single.take().is_some();
                self.told = second || !self.rules.all;
                if self.told {
                    return Some(Meaning::Press(if second { Press::Double } else { Press::Single }));
                }
            }
        }
        if due(self.long_at()) {
            self.told = true;
            return Some(Meaning::Press(Press::Long));
        }
        if due(self.reset_at()) {
            self.reset_told = true;
            return Some(Meaning::Reset);
        }
        if due(self.single) {
            self.single = None;
            return Some(Meaning::Press(Press::Single));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Meaning::Reset;

    const SINGLE: Meaning = Meaning::Press(Press::Single);
    const PAIR: Meaning = Meaning::Press(Press::Double);
    const HELD: Meaning = Meaning::Press(Press::Long);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn rules(all: bool) -> Rules {
        Rules { settle: Duration::from_millis(30), all, reset: None }
    }

    /// Levels by their time in ms, up at 0; what comes of them, with its time.
    fn meant(rules: Rules, levels: &[(u64, bool)]) -> Vec<(u64, Meaning)> {
        let up = [(0, false)];
        told(rules, &[&up, levels].concat())
    }

    fn told(rules: Rules, levels: &[(u64, bool)]) -> Vec<(u64, Meaning)> {
        let (mut button, mut meant, mut levels) = (Button::new(rules), Vec::new(), levels.iter().peekable());
        for _ in 0..10_000 {
            let next = levels.peek().map(|(ms, _)| at(*ms));
            let Some(now) = earliest(next, button.poll_timeout()) else { return meant };
            if next == Some(now) {
                button.handle_level(levels.next().expect("there is one").1, now);
            }
            while let Some(meaning) = button.poll(now) {
                meant.push((now.as_micros() / 1_000, meaning));
            }
            assert!(button.poll_timeout().is_none_or(|due| due > now), "it would spin");
        }
        panic!("it never comes to rest");
    }

    #[test]
    fn a_single_press_rings_at_once() {
        assert_eq!(meant(rules(false), &[(100, true), (200, false)]), [(130, SINGLE)]);
        let debounced = Rules { settle: Duration::ZERO, ..rules(false) };
        assert_eq!(meant(debounced, &[(100, true), (200, false)]), [(100, SINGLE)]);
        // Both were read in one go: a thread that was late must not lose a press.
        assert_eq!(meant(debounced, &[(100, true), (100, false), (500, true)]), [(100, SINGLE), (500, SINGLE)]);
        // Every press is one, however long or close.
        let presses = [(100, true), (200, false), (300, true), (9_000, false), (9_100, true)];
        assert_eq!(meant(rules(false), &presses), [(130, SINGLE), (330, SINGLE), (9_130, SINGLE)]);
    }

    #[test]
    fn bounces_are_one_press() {
        let bouncing: Vec<_> = (0..20).map(|n| (100 + 3 * n, n % 2 == 0)).chain([(160, true)]).collect();
        let released: Vec<_> = (0..20).map(|n| (400 + 3 * n, n % 2 == 1)).chain([(460, false)]).collect();
        assert_eq!(meant(rules(false), &[&bouncing[..], &released[..]].concat()), [(190, SINGLE)]);
        // Without a time to settle the first contact counts, and the rest falls into the lock.
        let debounced = Rules { settle: Duration::ZERO, ..rules(false) };
        assert_eq!(meant(debounced, &bouncing[..10]), [(100, SINGLE)]);
        // A spike is nothing.
        assert_eq!(meant(rules(false), &[(100, true), (120, false)]), []);
    }

    #[test]
    fn two_presses_are_a_double_one() {
        let presses = [(100, true), (200, false), (400, true), (500, false)];
        assert_eq!(meant(rules(true), &presses), [(430, PAIR)]);
        // The second too late.
        let presses = [(100, true), (200, false), (700, true), (800, false)];
        assert_eq!(meant(rules(true), &presses), [(630, SINGLE), (1_230, SINGLE)]);
        // Three are two and one; a second that is held is still a second.
        let presses = [(100, true), (200, false), (300, true), (400, false), (500, true), (600, false)];
        assert_eq!(meant(rules(true), &presses), [(330, PAIR), (1_030, SINGLE)]);
        assert_eq!(meant(rules(true), &[(100, true), (200, false), (300, true), (9_000, false)]), [(330, PAIR)]);
    }

    #[test]
    fn what_is_told_late_is_what_it_was() {
        // A thread that was held up for a second hears of all changes at once; each is taken at its own time.
        let late = |levels: &[(u64, bool)]| {
            let debounced = Rules { settle: Duration::ZERO, ..rules(true) };
            let (mut button, mut meant) = (Button::new(debounced), Vec::new());
            button.handle_level(false, at(0));
            let ends = levels.iter().map(|(ms, down)| (*ms, Some(*down))).chain([(3_000, None)]);
            for (ms, down) in ends {
                meant.extend(core::iter::from_fn(|| button.poll(at(ms))));
                down.into_iter().for_each(|down| button.handle_level(down, at(ms)));
                meant.extend(core::iter::from_fn(|| button.poll(at(ms))));
            }
            meant
        };
        assert_eq!(late(&[(100, true), (160, false), (220, true), (280, false)]), [PAIR]);
        assert_eq!(late(&[(100, true), (160, false)]), [SINGLE]);
        assert_eq!(late(&[(100, true), (160, false), (700, true), (760, false)]), [SINGLE, SINGLE]);
        assert_eq!(late(&[(100, true), (1_200, false)]), [HELD]);
        assert_eq!(late(&[(100, true), (105, false), (110, true), (180, false)]), [SINGLE], "bounces");
        assert_eq!(late(&[(100, true), (105, false), (220, true), (280, false)]), [PAIR], "a short first press");
    }

    #[test]
    fn a_long_press_is_told_while_it_lasts() {
        assert_eq!(meant(rules(true), &[(100, true), (5_000, false)]), [(1_130, HELD)]);
        assert_eq!(meant(rules(true), &[(100, true), (1_110, false)]), [(1_540, SINGLE)], "let go just before");
        // A bounce in between delays it, and ends nothing.
        let bounce = [(100, true), (1_120, false), (1_140, true), (3_000, false)];
        assert_eq!(meant(rules(true), &bounce), [(1_140, HELD)]);
    }

    #[test]
    fn a_stuck_button_rings_once() {
        assert_eq!(meant(rules(false), &[(100, true)]), [(130, SINGLE)]);
        assert_eq!(meant(rules(true), &[(100, true)]), [(1_130, HELD)]);
    }

    #[test]
    fn what_is_down_at_the_start_was_not_pressed() {
        let reset = Rules { reset: Some(Duration::from_secs(5)), ..rules(true) };
        for rules in [rules(false), rules(true), reset] {
            assert_eq!(told(rules, &[(0, true), (20_000, false)]), []);
        }
        assert_eq!(told(rules(false), &[(0, true), (1_000, false), (2_000, true)]), [(2_030, SINGLE)]);
    }

    #[test]
    fn only_a_very_long_hold_resets_and_only_when_it_may() {
        let reset = |all| Rules { reset: Some(Duration::from_secs(10)), ..rules(all) };
        assert_eq!(meant(reset(false), &[(100, true), (10_120, false)]), [(130, SINGLE)]);
        assert_eq!(meant(reset(false), &[(100, true), (99_000, false)]), [(130, SINGLE), (10_130, Reset)]);
        assert_eq!(meant(reset(true), &[(100, true), (99_000, false)]), [(1_130, HELD), (10_130, Reset)]);
        // Twice is twice.
        let twice = [(0, true), (11_000, false), (12_000, true), (23_000, false)];
        assert_eq!(meant(reset(true), &twice).iter().filter(|(_, meaning)| *meaning == Reset).count(), 2);
        assert_eq!(meant(rules(false), &[(100, true), (3_600_000, false)]), [(130, SINGLE)]);
    }

    #[test]
    fn a_switch_is_known_from_the_first_look() {
        let mut switch = Button::new(rules(false));
        assert_eq!((switch.is_down(), switch.poll_timeout()), (None, None));
        switch.handle_level(true, at(0));
        assert_eq!(switch.is_down(), Some(true));
        switch.handle_level(false, at(10));
        assert_eq!((switch.poll(at(29)), switch.is_down()), (None, Some(true)));
        assert_eq!((switch.poll(at(40)), switch.is_down()), (None, Some(false)));
    }
}
