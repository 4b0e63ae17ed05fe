//! The QR code of a setup payload (ISO/IEC 18004): version 1 at level M in alphanumeric mode, which is what its 20
//! characters fill exactly. Nothing else is drawn, so nothing else is here: 3 kB on MIPS, where a crate was 10 kB.

/// Modules a side.
pub const SIDE: usize = 21;
/// Rows from the top, the left module in the lowest bit; dark is 1.
pub type Modules = [u32; SIDE];

/// The characters in the order of their values (ISO/IEC 18004 §7.4.4).
const CHARACTERS: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
/// As many are held (table 7).
const LONGEST: usize = 20;
/// Codewords of the text, and of its error correction (table 9).
const DATA: usize = 16;
const CORRECTION: usize = 10;
/// The polynomial that the error correction is the remainder of, without its leading 1.
const DIVISOR: [u8; CORRECTION] = divisor();

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1.
const fn product(a: u8, b: u8) -> u8 {
    let (mut product, mut bit) = (0_u16, 8);
    while bit > 0 {
        bit -= 1;
        product = (product << 1) ^ ((product >> 7) * 0x11d);
        product ^= (b >> bit & 1) as u16 * a as u16;
    }
    product as u8
}

const fn divisor() -> [u8; CORRECTION] {
    let (mut divisor, mut root, mut times) = ([0; CORRECTION], 1, 0);
    divisor[CORRECTION - 1] = 1;
    while times < CORRECTION {
        let mut at = 0;
        while at < CORRECTION {
            divisor[at] = product(divisor[at], root);
            if at + 1 < CORRECTION {
                divisor[at] ^= divisor[at + 1];
            }
            at += 1;
        }
        root = product(root, 2);
        times += 1;
    }
    divisor
}

/// The symbol of `text`, in the mask that is easiest to read; `None` when it is too long or has other characters than
/// digits, capitals and ` $%*+-./:`.
pub fn encode(text: &str) -> Option<Modules> {
    let codewords = codewords(text.as_bytes())?;
    (0..8).map(|mask| modules(&codewords, mask)).min_by_key(penalty)
}

/// The text and its error correction, one block (ISO/IEC 18004 §7.4, §7.5).
fn codewords(text: &[u8]) -> Option<[u8; DATA + CORRECTION]> {
    if text.len() > LONGEST {
        return None;
    }
    let mut words = [0; DATA + CORRECTION];
    let mut at = 0;
    let mut put = |value: usize, width: usize| {
        for bit in (0..width).rev() {
            words[at / 8] |= ((value >> bit & 1) << (7 - at % 8)) as u8;
            at += 1;
        }
    };
    put(0b0010, 4);
    put(text.len(), 9);
    let value = |character: &u8| CHARACTERS.iter().position(|known| known == character);
    for pair in text.chunks(2) {
        match pair {
            [a, b] => put(value(a)? * 45 + value(b)?, 11),
            rest => put(value(rest.first()?)?, 6),
        }
    }
    // The terminator is 4 zeros, or what there is room for; then whole codewords of padding.
    for (word, padding) in words[..DATA].iter_mut().skip((at + 4).div_ceil(8)).zip([0xec, 0x11].into_iter().cycle()) {
        *word = padding;
    }
    let mut remainder = [0; CORRECTION];
    for word in &words[..DATA] {
        let factor = word ^ remainder[0];
        remainder.rotate_left(1);
        remainder[CORRECTION - 1] = 0;
        for (coefficient, divisor) in remainder.iter_mut().zip(DIVISOR) {
            *coefficient ^= product(divisor, factor);
        }
    }
    words[DATA..].copy_from_slice(&remainder);
    Some(words)
}

/// Finder patterns with their separators and timing patterns (ISO/IEC 18004 §6.3.3 to §6.3.5): whether that module of
/// theirs is dark. What format information stands in counts as light here.
fn pattern(x: usize, y: usize) -> Option<bool> {
    const CENTRES: [(usize, usize); 3] = [(3, 3), (SIDE - 4, 3), (3, SIDE - 4)];
    for (centre_x, centre_y) in CENTRES {
        let distance = x.abs_diff(centre_x).max(y.abs_diff(centre_y));
        if distance <= 4 {
            return Some(distance != 2 && distance != 4);
        }
    }
    let format = (x == 8 && !(9..SIDE - 8).contains(&y)) || (y == 8 && !(9..SIDE - 8).contains(&x));
    if x == 6 || y == 6 { Some((x + y).is_multiple_of(2)) } else { format.then_some(false) }
}

/// ISO/IEC 18004 §7.8.2.
fn is_inverted(mask: u32, x: usize, y: usize) -> bool {
    let (sum, product) = (x + y, x * y);
    0 == match mask {
        0 => sum % 2,
        1 => y % 2,
        2 => x % 3,
        3 => sum % 3,
        4 => (x / 3 + y / 2) % 2,
        5 => product % 2 + product % 3,
        6 => (product % 2 + product % 3) % 2,
        _ => (sum % 2 + product % 3) % 2,
    }
}

/// The symbol in one of the masks (ISO/IEC 18004 §7.7, §7.8).
fn modules(codewords: &[u8], mask: u32) -> Modules {
    let mut rows = [0; SIDE];
    let mut put = |x: usize, y: usize, dark: bool| rows[y] |= u32::from(dark) << x;
    let mut bits = codewords.iter().flat_map(|word| (0..8).rev().map(move |bit| word >> bit & 1 == 1));
    // Pairs of columns from the right, upwards and downwards in turns; the timing pattern's column is left out.
    for pair in 0..SIDE / 2 {
        let right = if pair < 7 { SIDE - 1 - 2 * pair } else { SIDE - 2 - 2 * pair };
        for step in 0..SIDE {
            let y = if pair % 2 == 0 { SIDE - 1 - step } else { step };
            for x in [right, right - 1] {
                if pattern(x, y).is_none() {
                    put(x, y, bits.next().unwrap_or_default() ^ is_inverted(mask, x, y));
                }
            }
        }
    }
    for (x, y) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y))) {
        put(x, y, pattern(x, y).unwrap_or_default());
    }
    // Level M is 00; with its BCH code, twice (ISO/IEC 18004 §7.9).
    let rest = (0..10).fold(mask, |rest, _| (rest << 1) ^ ((rest >> 9) * 0x537));
    let format = (mask << 10 | rest) ^ 0x5412;
    for bit in 0..15 {
        let dark = format >> bit & 1 == 1;
        match bit {
            0..=5 => put(8, bit, dark),
            6..=7 => put(8, bit + 1, dark),
            8 => put(7, 8, dark),
            _ => put(14 - bit, 8, dark),
        }
        if bit < 8 { put(SIDE - 1 - bit, 8, dark) } else { put(8, SIDE - 15 + bit, dark) }
    }
    put(8, SIDE - 8, true);
    rows
}

/// How hard it is to read (ISO/IEC 18004 §7.8.3).
fn penalty(rows: &Modules) -> u32 {
    let mut columns = [0; SIDE];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = rows.iter().rev().fold(0, |column, row| column << 1 | row >> x & 1);
    }
    let mut penalty = 0;
    for line in rows.iter().chain(&columns) {
        // Five and more of one colour.
        let (mut run, mut last) = (0, 2);
        for at in 0..SIDE {
            let module = line >> at & 1;
            run = if module == last { run + 1 } else { 1 };
            last = module;
            penalty += match run {
                ..5 => 0,
                5 => 3,
                _ => 1,
            };
        }
        // What looks like a finder pattern.
        let finders = (0..=SIDE - 11).filter(|at| matches!(line >> at & 0x7ff, 0b101_1101_0000 | 0b000_0101_1101));
        penalty += 40 * finders.count() as u32;
    }
    // Blocks of two by two.
    for (a, b) in rows.iter().zip(&rows[1..]) {
        let across = a ^ b;
        penalty += 3 * (!(across | across >> 1 | (a ^ a >> 1)) & ((1 << (SIDE - 1)) - 1)).count_ones();
    }
    // Each 5 % that are dark or light beyond a half.
    let dark: u32 = rows.iter().map(|row| row.count_ones()).sum();
    let all = (SIDE * SIDE) as u32;
    penalty + 10 * ((20 * dark).abs_diff(10 * all) / all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qrcodegen_no_heap::{Mask, QrCode, QrCodeEcc, Version};

    fn in_mask(text: &str, mask: u32) -> Modules {
        modules(&codewords(text.as_bytes()).expect(text), mask)
    }

    /// The same from another encoder.
    fn theirs(text: &str, mask: u32) -> Modules {
        let (mut scratch, mut symbol) = ([0; Version::MIN.buffer_len()], [0; Version::MIN.buffer_len()]);
        let (version, mask) = (Version::MIN, Some(Mask::new(mask as u8)));
        let code =
            QrCode::encode_text(text, &mut scratch, &mut symbol, QrCodeEcc::Medium, version, version, mask, false)
                .expect(text);
        assert_eq!(code.size(), SIDE as i32);
        let row = |y| (0..SIDE).fold(0, |row, x| row | u32::from(code.get_module(x as i32, y as i32)) << x);
        core::array::from_fn(row)
    }

    /// Texts of the first so many characters.
    fn texts(characters: usize, lengths: core::ops::RangeInclusive<usize>) -> impl Iterator<Item = String> {
        let mut random = 1_u64;
        let mut below = move |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit
        };
        (0..500).map(move |_| {
            let length = lengths.start() + below(lengths.end() - lengths.start() + 1);
            (0..length).map(|_| char::from(CHARACTERS[below(characters)])).collect()
        })
    }

    /// Setup payloads (HAP R2 §4.8).
    fn payloads() -> impl Iterator<Item = String> {
        texts(36, 13..=13).map(|rest| format!("X-HM://{rest}"))
    }

    #[test]
    fn every_payload_is_drawn_as_by_another_encoder_in_every_mask() {
        for text in payloads() {
            for mask in 0..8 {
                assert_eq!(in_mask(&text, mask), theirs(&text, mask), "{text} {mask}");
            }
        }
    }

    #[test]
    fn every_length_is_drawn_as_by_another_encoder() {
        for length in 1..=LONGEST {
            for start in [0, 13, 25] {
                let text = core::str::from_utf8(&CHARACTERS[start..start + length]).unwrap();
                // Digits alone it packs closer.
                if text.bytes().any(|byte| !byte.is_ascii_digit()) {
                    assert_eq!(in_mask(text, 3), theirs(text, 3), "{text}");
                }
            }
        }
    }

    /// ISO/IEC 18004 §7.8.3 module by module.
    fn plain_penalty(rows: &Modules) -> u32 {
        let dark = |x: usize, y: usize| rows[y] >> x & 1 == 1;
        let mut penalty = 0;
        for (line, turned) in (0..SIDE).flat_map(|line| [(line, false), (line, true)]) {
            let text: String = (0..SIDE)
                .map(|at| if turned { dark(line, at) } else { dark(at, line) })
                .map(|dark| if dark { '#' } else { '.' })
                .collect();
            for run in text.replace("#.", "# .").replace(".#", ". #").split(' ').filter(|run| run.len() >= 5) {
                penalty += run.len() as u32 - 2;
            }
            for eleven in text.as_bytes().windows(11) {
                if eleven == b"#.###.#...." || eleven == b"....#.###.#" {
                    penalty += 40;
                }
            }
        }
        for (x, y) in (1..SIDE).flat_map(|y| (1..SIDE).map(move |x| (x, y))) {
            let of = dark(x, y);
            if [dark(x - 1, y), dark(x, y - 1), dark(x - 1, y - 1)].iter().all(|other| *other == of) {
                penalty += 3;
            }
        }
        let percent = f64::from(rows.iter().map(|row| row.count_ones()).sum::<u32>()) * 100.0 / (SIDE * SIDE) as f64;
        penalty + 10 * ((percent - 50.0).abs() / 5.0) as u32
    }

    #[test]
    fn the_mask_is_the_one_of_the_lowest_penalty_and_all_eight_are_taken() {
        let mut taken = [0; 8];
        for text in payloads().chain(texts(45, 1..=LONGEST)) {
            let all: Vec<u32> = (0..8).map(|mask| plain_penalty(&in_mask(&text, mask))).collect();
            let best = (0..8).min_by_key(|mask| all[*mask]).unwrap();
            assert_eq!(encode(&text).expect("fits"), in_mask(&text, best as u32), "{text}: {all:?}");
            taken[best] += 1;
        }
        assert!(taken.iter().all(|times| *times > 0), "{taken:?}");
    }

    #[test]
    fn penalties_are_those_of_the_standard() {
        // Rows, columns and blocks of one colour: 2 * 21 * (3 + 16) + 3 * 400 + 10 * 10.
        for rows in [[0; SIDE], [(1 << SIDE) - 1; SIDE]] {
            assert_eq!((penalty(&rows), plain_penalty(&rows)), (2_098, 2_098));
        }
        let chequered = core::array::from_fn(|y| if y % 2 == 0 { 0x0a_aaaa } else { 0x15_5555 });
        assert_eq!((penalty(&chequered), plain_penalty(&chequered)), (0, 0));
        for text in payloads() {
            for mask in 0..8 {
                let rows = in_mask(&text, mask);
                assert_eq!(penalty(&rows), plain_penalty(&rows), "{text} {mask}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_none() {
        assert!(encode("X-HM://00GW95DQAHKSV0").is_none());
        for text in ["x", "é", "A\n", "A#", "0\0", "X-HM://00GW95DQAhKSV"] {
            assert!(encode(text).is_none(), "{text}");
        }
        assert!(encode("").is_some());
    }
}
