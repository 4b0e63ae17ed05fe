//! The setup payload as a QR code that a telnet session or a serial line can show.
//!
//! Terminals are dark, so the *light* modules are what is printed: a phone sees a dark code on a
//! bright field. The four modules of quiet zone are part of it (ISO/IEC 18004 §6.3.8).

use crate::wire::qr::{self, SIDE};

/// How to draw a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Half blocks, two modules a character high: UTF-8 terminals.
    Blocks,
    /// Two `#` a module: terminals that know ASCII only.
    Ascii,
}

/// Modules of light around the symbol.
const QUIET: usize = 4;

/// The lines of the picture, each ending with a line feed; `None` when the text is no setup payload ([`qr::encode`]).
pub fn draw(text: &str, style: Style) -> Option<String> {
    let symbol = qr::encode(text)?;
    // What is outside the symbol is light, left and above by wrapping.
    let light = |x: usize, y: usize| {
        let row = symbol.get(y.wrapping_sub(QUIET)).copied().unwrap_or_default();
        u64::from(row) << QUIET >> x & 1 == 0
    };
    let side = 0..SIDE + 2 * QUIET;
    let mut out = String::with_capacity(4_096);
    match style {
        Style::Ascii => {
            for y in side.clone() {
                side.clone().for_each(|x| out.push_str(if light(x, y) { "##" } else { "  " }));
                out.push('\n');
            }
        }
        Style::Blocks => {
            for y in side.clone().step_by(2) {
                for x in side.clone() {
                    // The side is odd: below the last row there is nothing.
                    let below = y + 1 < side.end && light(x, y + 1);
                    out.push(match (light(x, y), below) {
                        (true, true) => '█',
                        (true, false) => '▀',
                        (false, true) => '▄',
                        (false, false) => ' ',
                    });
                }
                out.push('\n');
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str = "X-HM://00GW95DQAHKSV";

    /// The dark modules of the ASCII picture, quiet zone removed.
    fn modules() -> Vec<Vec<bool>> {
        let picture = draw(PAYLOAD, Style::Ascii).expect("fits");
        let rows: Vec<Vec<bool>> =
            picture.lines().map(|line| line.as_bytes().chunks(2).map(|module| module == b"  ").collect()).collect();
        let side = rows.len();
        assert!(rows.iter().all(|row| row.len() == side));
        for (y, row) in rows.iter().enumerate() {
            for (x, dark) in row.iter().enumerate() {
                let quiet = x < 4 || y < 4 || x >= side - 4 || y >= side - 4;
                assert!(!(quiet && *dark), "quiet zone at {x},{y}");
            }
        }
        rows[4..side - 4].iter().map(|row| row[4..side - 4].to_vec()).collect()
    }

    #[test]
    fn the_symbol_has_the_structure_of_the_standard() {
        let symbol = modules();
        let side = symbol.len();
        // 20 alphanumeric characters at level M fill version 1 exactly (ISO/IEC 18004 table 7).
        assert_eq!(side, 21);
        let finder = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"];
        for (top, left) in [(0, 0), (0, side - 7), (side - 7, 0)] {
            for (dy, row) in finder.iter().enumerate() {
                for (dx, module) in row.bytes().enumerate() {
                    assert_eq!(symbol[top + dy][left + dx], module == b'1', "finder at {left},{top}: {dx},{dy}");
                }
            }
        }
        let row: Vec<bool> = symbol[6][8..side - 8].to_vec();
        let column: Vec<bool> = symbol[8..side - 8].iter().map(|row| row[6]).collect();
        let alternating: Vec<bool> = (8..side - 8).map(|at| at % 2 == 0).collect();
        assert_eq!((&row, &column), (&alternating, &alternating), "timing");
        assert!(symbol[side - 8][8], "the module that is always dark");
    }

    #[test]
    fn both_styles_show_the_same() {
        let (ascii, blocks) = (draw(PAYLOAD, Style::Ascii).expect("fits"), draw(PAYLOAD, Style::Blocks).expect("fits"));
        let ascii: Vec<&[u8]> = ascii.lines().map(str::as_bytes).collect();
        for (row, line) in blocks.lines().enumerate() {
            assert_eq!(line.chars().count(), 29);
            for (x, block) in line.chars().enumerate() {
                let light = |y: usize| ascii.get(y).is_some_and(|line| line[2 * x] == b'#');
                assert_eq!(matches!(block, '█' | '▀'), light(2 * row));
                assert_eq!(matches!(block, '█' | '▄'), light(2 * row + 1));
            }
        }
        assert_eq!(blocks.lines().count(), 15);
    }

    #[test]
    fn a_text_that_does_not_fit_is_none() {
        assert!(draw(&"x".repeat(200), Style::Blocks).is_none());
    }
}
