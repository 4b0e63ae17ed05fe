//! Keys as the kernel's input devices report them (Documentation/input/input.rst, linux/input.h).

use crate::time::Duration;

/// Bytes of one `struct input_event`: two words of time as wide as those of the program, then type, code and
/// value. A 32-bit program gets 16 of every kernel, those with 64-bit time included.
pub const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;

/// When it was, on the clock that was asked for, of an event of either size.
pub fn stamp(event: &[u8]) -> Option<Duration> {
    let (seconds, micros) = match event.len() {
        16 => {
            let (seconds, rest) = event.split_first_chunk()?;
            (u64::from(u32::from_ne_bytes(*seconds)), u32::from_ne_bytes(*rest.first_chunk()?))
        }
        24 => {
            let (seconds, rest) = event.split_first_chunk()?;
            (u64::from_ne_bytes(*seconds), u64::from_ne_bytes(*rest.first_chunk()?) as u32)
        }
        _ => return None,
    };
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros.into()))
}

/// Something that a device reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A key went down or up.
    Key {
        /// Which (linux/input-event-codes.h).
        code: u16,
        /// Down.
        down: bool,
    },
    /// What belongs together is complete (`SYN_REPORT`).
    Report,
    /// Events are lost, and those up to the next [`Event::Report`] are worth nothing (`SYN_DROPPED`).
    Dropped,
    /// A key repeats itself, or something that is no key.
    Other,
}

/// Reads one event, of either size; `None` when it is neither.
pub fn parse(event: &[u8]) -> Option<Event> {
    let (_, event) = match event.len() {
        16 | 24 => event.split_last_chunk::<8>()?,
        _ => return None,
    };
    let [a, b, c, d, value @ ..] = *event;
    Some(match (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), i32::from_ne_bytes(value)) {
        (EV_SYN, SYN_REPORT, _) => Event::Report,
        (EV_SYN, SYN_DROPPED, _) => Event::Dropped,
        (EV_KEY, code, value @ (0 | 1)) => Event::Key { code, down: value == 1 },
        _ => Event::Other,
    })
}

const EV_SYN: u16 = 0;
/// Keys and buttons.
pub const EV_KEY: u16 = 1;
const SYN_REPORT: u16 = 0;
const SYN_DROPPED: u16 = 3;
/// The highest code (`KEY_MAX`).
pub const KEY_MAX: u16 = 0x2ff;

/// Names without a row of their own.
const NAMES: &[(&str, u16)] = &[
    ("0", 11),
    ("ENTER", 28),
    ("F11", 87),
    ("F12", 88),
    ("HOME", 102),
    ("POWER", 116),
    ("PROG1", 148),
    ("CAMERA", 212),
    ("RESTART", 408),
    ("WPS_BUTTON", 529),
];

/// The code of a key by its name, `KEY_1`, or by its number.
pub fn key_code(name: &str) -> Option<u16> {
    let Some(name) = name.strip_prefix("KEY_") else {
        return name.parse().ok().filter(|code| (1..=KEY_MAX).contains(code));
    };
    if let Some((_, code)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*code);
    }
    // KEY_1 to KEY_9 and KEY_F1 to KEY_F10 stand in a row.
    let (digits, most, before) = name.strip_prefix('F').map_or((name, 9, 1), |digits| (digits, 10, 58));
    let number = digits.parse::<u16>().ok().filter(|number| (1..=most).contains(number))?;
    (!digits.starts_with(['0', '+'])).then_some(before + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event as a kernel with words of so many bytes writes it.
    fn event(word: usize, kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0x5a; 2 * word];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn both_sizes_are_read() {
        for word in [4, 8] {
            for (kind, code, value, read) in [
                (1, 2, 1, Event::Key { code: 2, down: true }),
                (1, 2, 0, Event::Key { code: 2, down: false }),
                (1, 529, 1, Event::Key { code: 529, down: true }),
                (1, 2, 2, Event::Other),
                (1, 2, -1, Event::Other),
                (0, 0, 0, Event::Report),
                (0, 3, 0, Event::Dropped),
                (0, 1, 0, Event::Other),
                (3, 2, 1, Event::Other),
                (4, 4, 1, Event::Other),
            ] {
                assert_eq!(parse(&event(word, kind, code, value)), Some(read), "{word} {kind} {code} {value}");
            }
        }
    }

    #[test]
    fn another_size_is_no_event() {
        for len in (0..=48).filter(|len| ![16, 24].contains(len)) {
            assert_eq!(parse(&vec![1; len]), None, "{len}");
            assert_eq!(stamp(&vec![1; len]), None, "{len}");
        }
        assert!(parse(&[0; EVENT_BYTES]).is_some());
    }

    #[test]
    fn both_sizes_have_a_stamp() {
        let rest = event(0, 1, 2, 1);
        let narrow = [&4_000_000_000_u32.to_ne_bytes()[..], &7_u32.to_ne_bytes(), &rest].concat();
        let wide = [&4_000_000_000_u64.to_ne_bytes()[..], &7_u64.to_ne_bytes(), &rest].concat();
        for event in [narrow, wide] {
            assert_eq!(stamp(&event), Some(Duration::from_micros(4_000_000_000_000_007)));
        }
        assert_eq!(stamp(&[0xff; 24]), None, "no such moment");
    }

    #[test]
    fn keys_have_the_codes_of_the_kernel() {
        for (name, code) in [
            ("KEY_1", 2),
            ("KEY_9", 10),
            ("KEY_0", 11),
            ("KEY_ENTER", 28),
            ("KEY_F1", 59),
            ("KEY_F10", 68),
            ("KEY_F11", 87),
            ("KEY_F12", 88),
            ("KEY_POWER", 116),
            ("KEY_WPS_BUTTON", 0x211),
            ("148", 148),
            ("767", 767),
        ] {
            assert_eq!(key_code(name), Some(code), "{name}");
        }
        for wrong in
            ["", "KEY_", "KEY_10", "KEY_01", "KEY_+1", "KEY_F0", "KEY_F13", "KEY_F", "key_1", "0", "768", "-1", "A"]
        {
            assert_eq!(key_code(wrong), None, "{wrong}");
        }
    }
}
