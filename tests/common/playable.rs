//! What a hub would make of a recording: judged by the hub's own parser and by an independent demuxer.
#![allow(dead_code)] // each test takes what it needs

use crate::hub;
use shiguredo_mp4::TrackKind;
use shiguredo_mp4::demux::Fmp4SegmentDemuxer;

/// What was found to be playable.
#[derive(Debug, PartialEq)]
pub struct Played {
    pub video_90k: u64,
    pub pictures: usize,
    pub audio_frames: usize,
}

/// Width and height in the sample entry of the video.
pub fn size(init: &[u8]) -> (u16, u16) {
    let at = init.windows(4).position(|w| w == b"avc1").expect("avc1");
    // `ftyp` names it as a brand, too.
    let at = init[at + 4..].windows(4).position(|w| w == b"avc1").map_or(at, |next| at + 4 + next);
    let number = |at: usize| u16::from_be_bytes([init[at], init[at + 1]]);
    (number(at + 28), number(at + 30))
}

/// Checks a recording: fragments that begin with an IDR picture, no longer than selected, without a gap
/// between them, both tracks together.
pub fn check<B: AsRef<[u8]>>(init: &[u8], fragments: &[B], fragment_ms: u64, audio_rate_hz: Option<u32>) -> Played {
    let tracks = 1 + usize::from(audio_rate_hz.is_some());
    assert_eq!(hub::tracks(init), tracks);
    let mut demuxer = Fmp4SegmentDemuxer::new();
    demuxer.handle_init_segment(init).expect("an init segment");
    assert_eq!(demuxer.tracks().expect("tracks").len(), tracks);

    let (mut ends, mut first_video) = ([None; 2], None);
    let mut played = Played { video_90k: 0, pictures: 0, audio_frames: 0 };
    for (number, fragment) in fragments.iter().enumerate() {
        let fragment = fragment.as_ref();
        let runs = hub::runs(fragment);
        assert_eq!(runs.len(), tracks, "fragment {number}");
        let video = &runs[0];
        assert!(video.track == 1 && video.first_is_sync, "fragment {number} begins with an IDR picture");
        assert!(video.duration <= (fragment_ms + 150) * 90, "fragment {number} lasts {}/90000 s", video.duration);
        for (run, end) in runs.iter().zip(&mut ends) {
            assert!(end.is_none_or(|end| end == run.start), "fragment {number}, track {}: a gap", run.track);
            *end = Some(run.start + run.duration);
        }
        first_video.get_or_insert(video.start);
        if let (Some(rate), Some(video_end), [_, audio]) = (audio_rate_hz, ends[0], &runs[..]) {
            assert!(audio.samples.iter().all(|frame| !frame.is_empty()));
            let audio_end = (audio.start + audio.duration) * 90_000 / u64::from(rate);
            let frame = 1024 * 90_000 / u64::from(rate);
            assert!(audio_end.abs_diff(video_end) <= frame, "fragment {number}: audio {audio_end}, video {video_end}");
            played.audio_frames += audio.samples.len();
        }

        let mut pictures = Vec::new();
        let mut frames = Vec::new();
        for sample in demuxer.handle_media_segment(fragment).expect("a fragment") {
            let bytes = &fragment[sample.data_offset as usize..][..sample.data_size];
            match sample.track.kind {
                TrackKind::Video => {
                    let types = nal_types(bytes);
                    assert!(types.iter().any(|t| matches!(t, 1 | 5)), "a picture");
                    assert_eq!(sample.keyframe, types.contains(&5), "a picture that says what it is");
                    pictures.push(bytes.to_vec());
                }
                TrackKind::Audio => frames.push(bytes.to_vec()),
                TrackKind::Subtitle => panic!("a track that nobody made"),
            }
        }
        assert_eq!(pictures, video.samples, "both parsers see the same pictures");
        assert_eq!(frames, runs.get(1).map(|run| run.samples.clone()).unwrap_or_default(), "and the same sound");
        played.pictures += pictures.len();
    }
    played.video_90k = ends[0].unwrap_or_default() - first_video.unwrap_or_default();
    played
}

/// The types of the NAL units of a sample; their lengths fill it.
fn nal_types(mut sample: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let Some((length, rest)) = sample.split_first_chunk::<4>() {
        let (nal, behind) = rest.split_at(u32::from_be_bytes(*length) as usize);
        types.push(nal[0] & 0x1f);
        sample = behind;
    }
    assert!(sample.is_empty(), "{} bytes behind the last NAL unit", sample.len());
    types
}

/// A file of `hksvd clip`: its init segment and its fragments.
pub fn split(file: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let mut at = 0;
    let mut starts = Vec::new();
    for (name, content) in hub::boxes(file) {
        if name == "moof" {
            starts.push(at);
        }
        at += 8 + content.len();
    }
    starts.push(file.len());
    (&file[..starts[0]], starts.windows(2).map(|w| &file[w[0]..w[1]]).collect())
}
