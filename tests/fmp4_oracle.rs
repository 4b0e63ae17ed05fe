//! The built-in clip, recorded and read by others: an independent demuxer always, ffmpeg where it is.
#![cfg(feature = "demo")]

use hksvd::media::{
    AccessUnit, AudioChoice, AudioParameters, Budget, Prebuffer, Reader, ReaderOptions, Retention, Start, adts, annexb,
};
use hksvd::time::Instant;
use hksvd::wire::Writer;
use shiguredo_mp4::TrackKind;
use shiguredo_mp4::demux::Fmp4SegmentDemuxer;
use std::process::Command;

const VIDEO: &[u8] = include_bytes!("../src/source/demo/video.h264");
const AUDIO: &[u8] = include_bytes!("../src/source/demo/audio.aac");

/// The clip in a prebuffer that holds all of it, 15 pictures a second.
fn prebuffer() -> Prebuffer {
    let mut p = Prebuffer::new(Budget { video_bytes: 3 << 20, audio_bytes: 1 << 18, access_unit_bytes: 1 << 18 });
    p.set_retention(Retention::Everything);
    p.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
    let mut number = 0;
    let mut push = |unit: annexb::Unit<'_>| {
        p.push_video(AccessUnit { annexb: unit.annexb, pts_90k: 90_000 + number * 6000, key: unit.key });
        number += 1;
    };
    let mut assembler = annexb::Assembler::new(1 << 18);
    for piece in VIDEO.chunks(1000) {
        assembler.receive_buffer()[..piece.len()].copy_from_slice(piece);
        assembler.handle_received(piece.len(), Instant::ZERO);
        while let Some(unit) = assembler.poll_unit() {
            push(unit);
        }
    }
    push(assembler.flush().expect("the last picture"));
    let mut assembler = adts::Assembler::default();
    let mut number = 0;
    for piece in AUDIO.chunks(100) {
        assembler.receive_buffer()[..piece.len()].copy_from_slice(piece);
        assembler.handle_received(piece.len(), Instant::ZERO);
        while let Some(frame) = assembler.poll_frame() {
            p.push_audio(frame.raw, 90_000 + number * 5760);
            number += 1;
        }
    }
    p
}

/// Init segment and all fragments.
fn record(p: &Prebuffer, audio: AudioChoice) -> (Vec<u8>, Vec<Vec<u8>>) {
    let options = ReaderOptions { fragment_ms: 4000, audio, audio_rate_hz: 16_000 };
    let mut reader = Reader::start(p, Start::Prebuffered { ms: 60_000 }, options).expect("parameters are known");
    let mut init = [0; 2048];
    let mut w = Writer::new(&mut init);
    reader.init(&mut w);
    let init = w.finish().expect("an init segment below 2 KiB").to_vec();
    reader.finish();
    let mut fragments = Vec::new();
    while let Ok(Some(mut fragment)) = reader.poll_fragment(p) {
        let mut bytes = vec![0; fragment.total_bytes];
        assert_eq!(reader.read(&mut fragment, p, 0, &mut bytes), Ok(fragment.total_bytes));
        fragments.push(bytes);
    }
    (init, fragments)
}

#[test]
fn an_independent_demuxer_reads_what_was_recorded() {
    let p = prebuffer();
    for (audio, tracks) in [(AudioChoice::Live, 2), (AudioChoice::Silent, 2), (AudioChoice::None, 1)] {
        let (init, fragments) = record(&p, audio);
        assert_eq!(fragments.len(), 8, "32 s in fragments of two GOPs");
        let mut demuxer = Fmp4SegmentDemuxer::new();
        demuxer.handle_init_segment(&init).unwrap();
        assert_eq!(demuxer.tracks().unwrap().len(), tracks);
        let (mut video_time, mut audio_time, mut video_samples) = (0, 0, 0);
        for (i, fragment) in fragments.iter().enumerate() {
            let mut first = true;
            for sample in demuxer.handle_media_segment(fragment).unwrap() {
                let data = &fragment[sample.data_offset as usize..][..sample.data_size];
                match sample.track.kind {
                    TrackKind::Video => {
                        assert_eq!((sample.timestamp, sample.duration), (video_time, 6000));
                        assert!(!first || sample.keyframe, "fragment {i} begins with an IDR");
                        assert_eq!(sample.keyframe, data[4] & 0x1f == 5);
                        let length = u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize;
                        assert_eq!(length + 4, data.len());
                        first = false;
                        video_time += u64::from(sample.duration);
                        video_samples += 1;
                    }
                    TrackKind::Audio => {
                        assert_eq!((sample.timestamp, sample.duration), (audio_time, 1024));
                        audio_time += 1024;
                    }
                    TrackKind::Subtitle => panic!("a track that nobody made"),
                }
            }
            let audio_90k = audio_time * 90_000 / 16_000;
            assert!(audio == AudioChoice::None || audio_90k.abs_diff(video_time) <= 5760, "fragment {i}");
        }
        assert_eq!(video_samples, 480);
    }
}

/// `None`, and a word about it, where there is no ffmpeg.
fn ffmpeg(arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new("ffmpeg").args(["-v", "error", "-nostdin"]).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success());
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            Some(output.stdout)
        }
        Err(_) => {
            eprintln!("SKIPPED: ffmpeg is not installed");
            None
        }
    }
}

/// The pitch of each full second of 16 kHz PCM, by its zero crossings in 0.1 s to 0.9 s.
fn pitches(pcm: &[u8]) -> Vec<usize> {
    let samples: Vec<i16> = pcm.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    let crossings = |s: &[i16]| s.windows(2).filter(|w| (w[0] < 0) != (w[1] < 0)).count();
    samples.chunks_exact(16_000).map(|second| crossings(&second[1600..14_400]) * 10 / 16).collect()
}

#[test]
fn ffmpeg_decodes_it_and_the_sound_changes_on_the_second() {
    let p = prebuffer();
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("clip.mp4");
    for audio in [AudioChoice::Live, AudioChoice::Silent] {
        let (init, fragments) = record(&p, audio);
        std::fs::write(&path, [init, fragments.concat()].concat()).unwrap();
        let path = path.to_str().unwrap();
        if ffmpeg(&["-xerror", "-i", path, "-f", "null", "-"]).is_none() {
            return;
        }
        let pcm = ffmpeg(&["-i", path, "-vn", "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]).unwrap();
        if audio == AudioChoice::Silent {
            assert!(pcm.len() > 31 * 32_000 && pcm.iter().all(|&b| b == 0));
            continue;
        }
        let heard = pitches(&pcm);
        assert!(heard.len() >= 31);
        for (second, hz) in heard.iter().enumerate() {
            let played = 300 + 100 * (second % 8);
            assert!(hz.abs_diff(played) <= 10, "second {second}: {hz} Hz instead of {played}");
        }
    }
}
