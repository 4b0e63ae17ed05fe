//! Bitrate and key frames of an encoder, as hubs and viewers want them, and as they were when nobody wants anything
//! any more.

use crate::time::{Duration, Instant};
pub use crate::wire::raptor_control::Settings;

/// What is wanted of an encoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// Bits a second at the most.
    pub bitrate_bps: Option<u32>,
    /// Milliseconds from one key frame to the next at the most.
    pub gop_ms: Option<u32>,
}

/// Viewers far away ask for less than any picture can be made of.
const LEAST_BPS: u32 = 150_000;

/// Between two changes.
const PAUSE: Duration = Duration::from_secs(5);

/// Until the next attempt after one has failed.
const RETRY: Duration = Duration::from_secs(30);

impl Want {
    /// Never more than what the encoder's owner has set.
    fn of(self, own: Settings) -> Settings {
        let bitrate_bps = self.bitrate_bps.map_or(own.bitrate_bps, |most| most.max(LEAST_BPS).min(own.bitrate_bps));
        let most = self.gop_ms.map_or(0, |ms| (u64::from(ms) * u64::from(own.fps) / 1_000) as u32);
        let gop = if most > 0 { own.gop.min(most) } else { own.gop };
        Settings { bitrate_bps, gop, ..own }
    }
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Ask what it is set to: [`Rates::handle_settings`].
    Look,
    /// Set the bitrate, in bits a second: [`Rates::handle_done`].
    Bitrate(u32),
    /// Set the distance of key frames, in pictures: [`Rates::handle_done`].
    Gop(u32),
}

/// What one encoder is set to, by its owner and by us. It is looked at before each change: what others have set
/// meanwhile is theirs and stays.
#[derive(Default)]
pub struct Rates {
    /// By its owner, and by us; `None` as long as nothing is wanted.
    known: Option<(Settings, Settings)>,
    /// `known` is of this moment.
    is_fresh: bool,
    /// It may be another one now.
    is_doubtful: bool,
    not_before: Instant,
}

impl Rates {
    /// Whether there is something to be put back.
    pub fn is_changed(&self) -> bool {
        self.known.is_some_and(|(own, set)| own != set)
    }

    /// What to do; `None`: nothing now.
    pub fn poll(&mut self, want: Want, now: Instant) -> Option<Order> {
        let is_wanted = want != Want::default();
        let Some((own, set)) = self.known else {
            return (is_wanted && now >= self.not_before).then_some(Order::Look);
        };
        let target = want.of(own);
        if !self.is_fresh {
            if target == set && !self.is_doubtful && is_wanted {
                return None;
            }
            if target == set && !self.is_doubtful {
                self.known = None;
                return None;
            }
            return (now >= self.not_before).then_some(Order::Look);
        }
        if target.bitrate_bps != set.bitrate_bps {
            return Some(Order::Bitrate(target.bitrate_bps));
        }
        if target.gop != set.gop {
            return Some(Order::Gop(target.gop));
        }
        self.is_fresh = false;
        if !is_wanted {
            self.known = None;
        }
        None
    }

    /// This is what it is set to.
    pub fn handle_settings(&mut self, seen: Settings, now: Instant) {
        // What we have set is not its owner's.
        let own = self.known.map_or(seen, |(own, set)| Settings {
            bitrate_bps: if seen.bitrate_bps == set.bitrate_bps { own.bitrate_bps } else { seen.bitrate_bps },
            gop: if seen.gop == set.gop { own.gop } else { seen.gop },
            ..seen
        });
        self.known = Some((own, seen));
        self.is_fresh = true;
        self.is_doubtful = false;
        self.not_before = now + PAUSE;
    }

    /// The order was carried out.
    pub fn handle_done(&mut self, order: Order) {
        if let Some((_, set)) = &mut self.known {
            match order {
                Order::Look => {}
                Order::Bitrate(bitrate_bps) => set.bitrate_bps = bitrate_bps,
                Order::Gop(gop) => set.gop = gop,
            }
        }
    }

    /// It was not.
    pub fn handle_failed(&mut self, now: Instant) {
        self.is_fresh = false;
        self.is_doubtful |= self.known.is_some();
        self.not_before = now + RETRY;
    }

    /// The encoder has begun anew, perhaps with other settings.
    pub fn handle_restart(&mut self, now: Instant) {
        self.is_fresh = false;
        self.is_doubtful = self.known.is_some();
        self.not_before = now + PAUSE;
    }

    /// The program ends: what is to be put back is put back without a pause.
    pub fn hurry(&mut self) {
        self.not_before = Instant::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An encoder that obeys.
    struct Rig {
        rates: Rates,
        there: Settings,
        now: Instant,
        orders: Vec<(u64, Order)>,
    }

    impl Rig {
        fn new(bitrate_bps: u32, gop: u32) -> Self {
            let there = Settings { bitrate_bps, gop, fps: 25 };
            Rig { rates: Rates::default(), there, now: Instant::from_micros(1), orders: Vec::new() }
        }

        /// So many seconds of one wish.
        fn run(&mut self, want: Want, seconds: u64) -> Vec<Order> {
            let begun = self.orders.len();
            for _ in 0..seconds {
                while let Some(order) = self.rates.poll(want, self.now) {
                    match order {
                        Order::Look => self.rates.handle_settings(self.there, self.now),
                        Order::Bitrate(bps) => self.there.bitrate_bps = bps,
                        Order::Gop(gop) => self.there.gop = gop,
                    }
                    self.rates.handle_done(order);
                    self.orders.push(((self.now - Instant::ZERO).as_secs(), order));
                }
                self.now += Duration::from_secs(1);
            }
            self.orders[begun..].iter().map(|order| order.1).collect()
        }
    }

    fn want(kbps: u32) -> Want {
        Want { bitrate_bps: Some(kbps * 1_000), gop_ms: None }
    }

    const NOTHING: Want = Want { bitrate_bps: None, gop_ms: None };
    const RECORDING: Want = Want { bitrate_bps: Some(2_000_000), gop_ms: Some(4_000) };

    #[test]
    fn a_wish_is_fulfilled_once_and_undone_once() {
        let mut rig = Rig::new(3_000_000, 30);
        assert!(rig.run(NOTHING, 60).is_empty());
        assert_eq!(rig.run(RECORDING, 600), [Order::Look, Order::Bitrate(2_000_000)], "its GOP is short enough");
        assert!(rig.rates.is_changed());
        assert_eq!(rig.run(NOTHING, 600), [Order::Look, Order::Bitrate(3_000_000)]);
        assert!(!rig.rates.is_changed());
    }

    #[test]
    fn a_long_gop_is_shortened() {
        let mut rig = Rig::new(1_500_000, 250);
        assert_eq!(rig.run(RECORDING, 60), [Order::Look, Order::Gop(100)], "its bitrate is low enough");
        assert_eq!(rig.run(NOTHING, 60), [Order::Look, Order::Gop(250)]);
        // Who knows how long 250 are?
        rig.there.fps = 0;
        assert_eq!(rig.run(RECORDING, 60), [Order::Look]);
        assert_eq!(rig.run(NOTHING, 60), []);
    }

    #[test]
    fn changes_are_seldom() {
        let mut rig = Rig::new(3_000_000, 30);
        for n in 0..60 {
            rig.run(want(1_000 + n), 1);
        }
        let times: Vec<u64> = rig.orders.iter().filter(|o| matches!(o.1, Order::Bitrate(_))).map(|o| o.0).collect();
        assert!(times.len() == 12 && times.windows(2).all(|pair| pair[1] - pair[0] >= 5), "{times:?}");
        // More than its owner wants is given to nobody, and less than makes a picture neither.
        assert_eq!(rig.run(want(9_000), 60), [Order::Look, Order::Bitrate(3_000_000)]);
        assert_eq!(rig.run(want(3), 60), [Order::Look, Order::Bitrate(150_000)]);
    }

    #[test]
    fn what_others_set_is_theirs() {
        let mut rig = Rig::new(3_000_000, 250);
        rig.run(RECORDING, 60);
        rig.there.bitrate_bps = 2_500_000;
        assert_eq!(rig.run(NOTHING, 60), [Order::Look, Order::Gop(250)]);
        assert_eq!(rig.there, Settings { bitrate_bps: 2_500_000, gop: 250, fps: 25 });
    }

    #[test]
    fn a_restart_brings_the_owners_settings_or_ours() {
        let mut rig = Rig::new(3_000_000, 30);
        rig.run(RECORDING, 60);
        // The streamer has started again: by its own configuration.
        rig.there.bitrate_bps = 4_000_000;
        rig.rates.handle_restart(rig.now);
        assert_eq!(rig.run(RECORDING, 60), [Order::Look, Order::Bitrate(2_000_000)]);
        // Its encoder alone: what we have set is kept.
        rig.rates.handle_restart(rig.now);
        assert_eq!(rig.run(RECORDING, 60), [Order::Look]);
        assert_eq!(rig.run(NOTHING, 60), [Order::Look, Order::Bitrate(4_000_000)]);
        // Nothing is wanted: nobody asks.
        rig.rates.handle_restart(rig.now);
        assert_eq!(rig.run(NOTHING, 60), []);
    }

    #[test]
    fn a_failure_is_tried_again_later() {
        let mut rates = Rates::default();
        let mut now = Instant::from_micros(1);
        let mut tries = 0;
        for _ in 0..300 {
            if let Some(order) = rates.poll(RECORDING, now) {
                assert_eq!(order, Order::Look);
                rates.handle_failed(now);
                tries += 1;
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(tries, 10);
        // It fails when it is to be put back: that is not forgotten.
        rates.handle_settings(Settings { bitrate_bps: 3_000_000, gop: 30, fps: 25 }, now);
        rates.handle_done(Order::Bitrate(2_000_000));
        rates.handle_failed(now);
        assert!(rates.is_changed());
        assert_eq!(rates.poll(NOTHING, now + PAUSE), None);
        rates.hurry();
        assert_eq!(rates.poll(NOTHING, now), Some(Order::Look));
    }
}
