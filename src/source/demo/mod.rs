//! `demo`: the built-in clip (README.md beside this file).

use super::Sink;
use std::io;

/// Whether this build has the clip in it.
pub const AVAILABLE: bool = cfg!(feature = "demo");

/// Pictures a second.
pub const FPS: u32 = 15;

/// Plays the clip again and again, in real time. Ends only with an error.
#[cfg(feature = "demo")]
pub async fn play(access_unit_bytes: usize, sink: &mut dyn Sink) -> io::Error {
    use super::file::{Format, replay};
    use std::io::Cursor;
    let video = Cursor::new(&include_bytes!("video.h264")[..]);
    let audio = (Cursor::new(&include_bytes!("audio.aac")[..]), Format::Adts);
    replay(video, Some(audio), FPS, access_unit_bytes, "demo", sink).await
}

/// Says that there is no clip.
#[cfg(not(feature = "demo"))]
pub async fn play(_: usize, _: &mut dyn Sink) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this build has no built-in clip; name a video.source")
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;
    use crate::media::{adts, annexb};
    use crate::time::Instant;
    use crate::wire::h264::{Nal, NalType, Nals, Sps};

    #[test]
    fn the_clip_is_what_its_readme_says() {
        let (mut video, mut audio) = (&include_bytes!("video.h264")[..], &include_bytes!("audio.aac")[..]);
        assert!(video.len() + audio.len() < 2_000_000);
        let sps = Nals::new(video).map(Nal::bytes).find(|n| NalType::of(n[0]) == NalType::SPS).unwrap();
        let sps = Sps::parse(sps).unwrap();
        assert_eq!((sps.width, sps.height, sps.profile_idc, sps.may_reorder()), (1280, 720, 77, false));

        let mut assembler = annexb::Assembler::new(160 * 1024);
        let mut keys = Vec::new();
        while !video.is_empty() {
            let n = io::Read::read(&mut video, assembler.receive_buffer()).unwrap();
            assembler.handle_received(n, Instant::ZERO);
            while let Some(unit) = assembler.poll_unit() {
                keys.push(unit.key);
            }
        }
        keys.extend(assembler.flush().map(|unit| unit.key));
        assert_eq!(keys.len(), 480);
        assert!(keys.iter().enumerate().all(|(i, key)| *key == (i % 30 == 0)));

        let mut assembler = adts::Assembler::default();
        let mut frames = 0;
        while !audio.is_empty() {
            let n = io::Read::read(&mut audio, assembler.receive_buffer()).unwrap();
            assembler.handle_received(n, Instant::ZERO);
            while let Some(frame) = assembler.poll_frame() {
                assert_eq!((frame.rate_hz, frame.channels), (16_000, 1));
                frames += 1;
            }
        }
        assert_eq!(frames * 1024, 32 * 16_000);
    }
}
