//! Which packets of a stream have come (RFC 3711 §3.3.2), and what the full number of one is that carries only its
//! lowest 16 bits (RFC 3711 §3.3.1).

/// Packets behind the highest one that are still told apart.
const PACKETS: u64 = u64::BITS as u64;

/// The highest index that has come and which of the [`PACKETS`] up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    highest: u64,
    /// Bit *i*: `highest - i` has come. 0: nothing has.
    seen: u64,
}

impl Window {
    /// Nothing has come.
    pub(super) fn new() -> Self {
        Window { highest: 0, seen: 0 }
    }

    /// The index nearest to the highest one that ends with `sequence`; the first packet is in the first round.
    /// `None`: it would lie before the beginning.
    pub(super) fn guess(&self, sequence: u16) -> Option<u64> {
        if self.seen == 0 {
            return Some(u64::from(sequence));
        }
        let ahead = sequence.wrapping_sub(self.highest as u16) as i16;
        self.highest.checked_add_signed(i64::from(ahead))
    }

    /// Notes that `index` has come. `false`: it had before, or it is too old to tell.
    pub(super) fn accept(&mut self, index: u64) -> bool {
        if self.seen == 0 || index > self.highest {
            let by = index - if self.seen == 0 { index } else { self.highest };
            self.seen = self.seen.checked_shl(u32::try_from(by).unwrap_or(u32::MAX)).unwrap_or(0) | 1;
            self.highest = index;
            return true;
        }
        let age = self.highest - index;
        let fresh = age < PACKETS && self.seen >> age & 1 == 0;
        if fresh {
            self.seen |= 1 << age;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Every index that was accepted, for ever.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn accept(&mut self, index: u64) -> bool {
            let old = self.0.last().is_some_and(|highest| index + 64 <= *highest);
            !old && self.0.insert(index)
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(start in 0u64..200, steps in prop::collection::vec(-70i64..70, 1..300)) {
            let (mut window, mut model) = (Window::new(), Model::default());
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                prop_assert_eq!(window.accept(at), model.accept(at), "{}", at);
            }
        }

        /// RFC 3711 appendix A, which knows the rollover counter and the highest sequence number.
        #[test]
        fn guesses_as_the_standard_does(highest in 0u64..1 << 48, sequence: u16) {
            let mut window = Window::new();
            window.accept(highest);
            let (roc, s_l, seq) = ((highest >> 16) as i64, (highest & 0xffff) as i64, i64::from(sequence));
            prop_assume!((s_l - seq).abs() != 0x8000);
            let v = if s_l < 0x8000 {
                if seq - s_l > 0x8000 { roc - 1 } else { roc }
            } else if s_l - 0x8000 > seq {
                roc + 1
            } else {
                roc
            };
            prop_assert_eq!(window.guess(sequence), u64::try_from(v << 16 | seq).ok());
        }
    }

    #[test]
    fn the_window_ends_64_packets_back() {
        let mut window = Window::new();
        assert!(window.accept(100) && !window.accept(100));
        assert!(window.accept(163) && !window.accept(100));
        assert!(window.accept(101));
        let mut window = Window::new();
        assert!(window.accept(100) && window.accept(162));
        assert!(window.accept(99) && !window.accept(98));
        // A leap forgets all, without a shift by more than there is.
        assert!(window.accept(162 + 64) && !window.accept(162) && window.accept(163));
        assert!(window.accept(u64::MAX) && !window.accept(226) && window.accept(u64::MAX - 63));
    }

    #[test]
    fn the_first_index_may_be_any() {
        for first in [0, 1, 63, 64, u64::MAX] {
            let mut window = Window::new();
            assert!(window.accept(first) && !window.accept(first));
        }
    }

    #[test]
    fn nothing_lies_before_the_beginning() {
        let mut window = Window::new();
        assert_eq!(window.guess(0xffff), Some(0xffff));
        window.accept(3);
        assert_eq!((window.guess(2), window.guess(0xffff)), (Some(2), None));
    }
}
