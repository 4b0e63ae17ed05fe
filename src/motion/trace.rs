//! `hksvd motion trace`: a recorded stream through the detector, one line per access unit.

use super::detector::Hundredths;
use super::{AccessUnit, Detector, Meter};
use crate::wire::h264::{NalType, Nals};
use core::fmt::{self, Write};

/// The names of the columns that [`trace`] writes.
///
/// * `frame`: access units from 0; one begins at each slice (NAL unit type 1 or 5) whose first_mb_in_slice is 0
/// * `time_s`: frame / frame rate
/// * `key`: 1 for an IDR picture
/// * `bytes`: slice data
/// * `baseline`: the scene's usual activity in octaves, `log2(bytes + 16) + QP / 4`
/// * `level`: activity above it, averaged over half a second, in parts of what starts motion
/// * `motion`: 0 or 1
pub const HEADER: &str = "frame,time_s,key,bytes,baseline,level,motion";

/// Replays an Annex B stream of `fps` pictures a second and writes a CSV line per access unit, the columns of
/// [`HEADER`]; the header itself is left to the caller.
///
/// # Errors
/// Those of `out`.
pub fn trace(annexb: &[u8], fps: u32, sensitivity: u8, hold_s: u32, out: &mut dyn Write) -> fmt::Result {
    let mut replay = Replay { detector: Detector::new(fps, sensitivity, hold_s), frame: 0, out };
    let mut meter = Meter::new();
    let (mut unit, mut idr) = (None, false);
    for nal in Nals::new(annexb) {
        let slice = matches!(nal.nal_type(), NalType::SLICE | NalType::IDR);
        if slice && nal.starts_picture() {
            if let Some(whole) = unit.take() {
                replay.line(whole, idr)?;
            }
            idr = nal.nal_type() == NalType::IDR;
        } else if slice && unit.is_none() {
            // The rest of a picture whose beginning is not in the file.
            continue;
        }
        meter.handle(nal, &mut unit);
    }
    match unit {
        Some(last) => replay.line(last, idr),
        None => Ok(()),
    }
}

struct Replay<'a> {
    detector: Detector,
    frame: u64,
    out: &'a mut dyn Write,
}

impl Replay<'_> {
    fn line(&mut self, unit: AccessUnit, idr: bool) -> fmt::Result {
        let detector = &mut self.detector;
        detector.push(unit);
        let frame = self.frame;
        self.frame += 1;
        let ms = frame * 1000 / u64::from(detector.fps());
        let last = detector.last();
        writeln!(
            self.out,
            "{frame},{}.{:03},{},{},{},{},{}",
            ms / 1000,
            ms % 1000,
            u8::from(idr),
            unit.bytes,
            Hundredths(last.baseline * 100 / 256),
            Hundredths(last.level_percent),
            u8::from(detector.is_on()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(annexb: &[u8]) -> Vec<String> {
        let mut out = String::new();
        trace(annexb, 15, 50, 2, &mut out).unwrap();
        out.lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_line_per_access_unit() {
        let stream = [
            &b"\0\0\x01\x41\x40rest of a picture"[..], // first_mb_in_slice is not 0
            b"\0\0\0\x01\x09\x10\0\0\0\x01\x06\x05\x01\x80\0\0\x01\x65\x88\x84\0\0\x01\x65\x40\x84\x84",
            b"\0\0\0\x01\x41\x9a\x38",
            b"\0\0\x01\x0c\xff\xff\x80\0\0\x01\x41\x9a\x38\x38\0\0",
        ]
        .concat();
        let lines = lines(&stream);
        let columns: Vec<Vec<&str>> = lines.iter().map(|line| line.split(',').collect()).collect();
        assert_eq!(columns.len(), 3);
        for (line, (time, key, bytes)) in
            columns.iter().zip([("0.000", "1", "7"), ("0.066", "0", "3"), ("0.133", "0", "4")])
        {
            assert_eq!(line.len(), HEADER.split(',').count());
            assert_eq!((line[1], line[2], line[3], line[6]), (time, key, bytes, "0"));
        }
        assert_eq!(columns[2][0], "2");
    }

    #[test]
    fn no_stream_no_lines() {
        for stream in [&b""[..], b"text", b"\0\0\x01", b"\0\0\x01\x67\x42", b"\0\0\x01\x41"] {
            assert!(lines(stream).is_empty());
        }
    }

    #[test]
    fn errors_of_the_output_are_told() {
        struct Full;
        impl Write for Full {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let stream = b"\0\0\x01\x65\x88\x84\0\0\x01\x41\x9a\x38";
        assert!(trace(stream, 15, 50, 2, &mut Full).is_err());
    }
}
