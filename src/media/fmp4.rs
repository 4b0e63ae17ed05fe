//! Fragmented MP4 (ISO/IEC 14496-12): the init segment, and the `moof` in front of the samples of a
//! fragment. Track 1 is video, track 2 audio.

use super::parameters::VideoParameters;
use crate::wire::Writer;
use crate::wire::aac::{self, FRAME_SAMPLES};

/// Ticks of the video track in a second.
pub const VIDEO_TIMESCALE: u32 = 90_000;

const VIDEO_TRACK: u32 = 1;
const AUDIO_TRACK: u32 = 2;

/// The unity matrix of `mvhd` and `tkhd` (§8.2.2.3).
const UNITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// sample_flags (§8.8.3.1): depends on no other sample.
const SYNC: u32 = 0x0200_0000;
/// sample_flags: depends on others, is no sync sample.
const NON_SYNC: u32 = 0x0101_0000;

/// Writes `ftyp` and `moov`: one video track, and a mono AAC-LC track when there is a rate for it.
pub fn put_init(video: &VideoParameters, audio_rate_hz: Option<u32>, w: &mut Writer<'_>) {
    boxed(w, b"ftyp", |w| {
        w.bytes(b"iso5");
        w.u32_be(512);
        w.bytes(b"iso5iso6mp41");
    });
    boxed(w, b"moov", |w| {
        let next_track = if audio_rate_hz.is_some() { AUDIO_TRACK + 1 } else { VIDEO_TRACK + 1 };
        put_mvhd(w, next_track);
        put_video_trak(video, w);
        if let Some(rate_hz) = audio_rate_hz {
            put_audio_trak(rate_hz, w);
        }
        boxed(w, b"mvex", |w| {
            for track in VIDEO_TRACK..next_track {
                full_box(w, b"trex", 0, 0, |w| words(w, &[track, 1, 0, 0, 0]));
            }
        });
    });
}

/// A box: size, type, content (§4.2).
fn boxed(w: &mut Writer<'_>, kind: &[u8; 4], content: impl FnOnce(&mut Writer<'_>)) {
    w.length_prefixed_u32(|w| {
        w.bytes(kind);
        content(w);
    });
}

/// A box with version and flags (§4.2).
fn full_box(w: &mut Writer<'_>, kind: &[u8; 4], version: u8, flags: u32, content: impl FnOnce(&mut Writer<'_>)) {
    boxed(w, kind, |w| {
        w.u32_be(u32::from(version) << 24 | flags);
        content(w);
    });
}

fn words(w: &mut Writer<'_>, words: &[u32]) {
    words.iter().for_each(|&word| w.u32_be(word));
}

fn put_mvhd(w: &mut Writer<'_>, next_track: u32) {
    full_box(w, b"mvhd", 0, 0, |w| {
        // creation, modification, timescale, duration; rate 1.0, volume 1.0, reserved
        words(w, &[0, 0, 1000, 0, 0x1_0000, 0x0100_0000, 0, 0]);
        words(w, &UNITY);
        words(w, &[0; 6]);
        w.u32_be(next_track);
    });
}

fn put_video_trak(video: &VideoParameters, w: &mut Writer<'_>) {
    boxed(w, b"trak", |w| {
        put_tkhd(w, VIDEO_TRACK, 0, u32::from(video.width()), u32::from(video.height()));
        boxed(w, b"mdia", |w| {
            put_mdhd(w, VIDEO_TIMESCALE);
            put_hdlr(w, b"vide", b"VideoHandler\0");
            boxed(w, b"minf", |w| {
                full_box(w, b"vmhd", 0, 1, |w| words(w, &[0, 0]));
                put_dinf(w);
                put_stbl(w, |w| put_avc1(video, w));
            });
        });
    });
}

fn put_audio_trak(rate_hz: u32, w: &mut Writer<'_>) {
    boxed(w, b"trak", |w| {
        const FULL_VOLUME: u32 = 0x0100;
        put_tkhd(w, AUDIO_TRACK, FULL_VOLUME, 0, 0);
        boxed(w, b"mdia", |w| {
            put_mdhd(w, rate_hz);
            put_hdlr(w, b"soun", b"SoundHandler\0");
            boxed(w, b"minf", |w| {
                full_box(w, b"smhd", 0, 0, |w| w.u32_be(0));
                put_dinf(w);
                put_stbl(w, |w| put_mp4a(rate_hz, w));
            });
        });
    });
}

/// §8.3.2, flags 3: enabled and in the movie. Audio is in alternate group 1.
fn put_tkhd(w: &mut Writer<'_>, track: u32, volume: u32, width: u32, height: u32) {
    full_box(w, b"tkhd", 0, 3, |w| {
        let alternate_group = u32::from(volume != 0);
        words(w, &[0, 0, track, 0, 0, 0, 0, alternate_group, volume << 16]);
        words(w, &UNITY);
        words(w, &[width << 16, height << 16]);
    });
}

fn put_mdhd(w: &mut Writer<'_>, timescale: u32) {
    const UNDETERMINED: u32 = 0x55c4;
    full_box(w, b"mdhd", 0, 0, |w| words(w, &[0, 0, timescale, 0, UNDETERMINED << 16]));
}

fn put_hdlr(w: &mut Writer<'_>, kind: &[u8; 4], name: &[u8]) {
    full_box(w, b"hdlr", 0, 0, |w| {
        w.u32_be(0);
        w.bytes(kind);
        words(w, &[0; 3]);
        w.bytes(name);
    });
}

/// The media is in this file (§8.7.2).
fn put_dinf(w: &mut Writer<'_>) {
    boxed(w, b"dinf", |w| {
        full_box(w, b"dref", 0, 0, |w| {
            w.u32_be(1);
            full_box(w, b"url ", 0, 1, |_| ());
        });
    });
}

/// A sample table that describes the samples and holds none: they are in the fragments.
fn put_stbl(w: &mut Writer<'_>, entry: impl FnOnce(&mut Writer<'_>)) {
    boxed(w, b"stbl", |w| {
        full_box(w, b"stsd", 0, 0, |w| {
            w.u32_be(1);
            entry(w);
        });
        full_box(w, b"stts", 0, 0, |w| w.u32_be(0));
        full_box(w, b"stsc", 0, 0, |w| w.u32_be(0));
        full_box(w, b"stsz", 0, 0, |w| words(w, &[0, 0]));
        full_box(w, b"stco", 0, 0, |w| w.u32_be(0));
    });
}

/// SampleEntry (§8.5.2): reserved bytes and data_reference_index 1.
fn sample_entry(w: &mut Writer<'_>) {
    words(w, &[0, 1]);
}

fn put_avc1(video: &VideoParameters, w: &mut Writer<'_>) {
    boxed(w, b"avc1", |w| {
        sample_entry(w);
        words(w, &[0; 4]);
        w.u16_be(video.width());
        w.u16_be(video.height());
        // 72 dpi both ways, reserved, one frame per sample, no compressor name, depth 24
        words(w, &[0x48_0000, 0x48_0000, 0]);
        w.u16_be(1);
        w.bytes(&[0; 32]);
        words(w, &[0x0018_ffff]);
        put_avcc(video, w);
        boxed(w, b"pasp", |w| words(w, &[1, 1]));
    });
}

/// AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1).
fn put_avcc(video: &VideoParameters, w: &mut Writer<'_>) {
    boxed(w, b"avcC", |w| {
        let sps = &video.parsed;
        w.bytes(&[1, sps.profile_idc, sps.constraint_flags, sps.level_idc]);
        const FOUR_BYTE_LENGTHS: u8 = 0xfc | 3;
        w.bytes(&[FOUR_BYTE_LENGTHS, 0xe0 | 1]);
        w.u16_be(video.sps.len() as u16);
        w.bytes(&video.sps);
        w.u8(video.pps.len() as u8);
        for pps in &video.pps {
            w.u16_be(pps.len() as u16);
            w.bytes(pps);
        }
        const HIGH: u8 = 100;
        if sps.profile_idc == HIGH {
            // Chroma format, eight bits a sample (§A.2.4 knows no more), no SPS extension.
            w.bytes(&[0xfc | sps.chroma_format_idc, 0xf8, 0xf8, 0]);
        }
    });
}

fn put_mp4a(rate_hz: u32, w: &mut Writer<'_>) {
    boxed(w, b"mp4a", |w| {
        sample_entry(w);
        words(w, &[0, 0]);
        w.u16_be(1); // channelcount
        w.u16_be(16); // samplesize
        w.u32_be(0);
        w.u16_be(rate_hz as u16); // 16.16; all four recording rates fit
        w.u16_be(0);
        put_esds(rate_hz, w);
    });
}

/// ES_Descriptor (ISO/IEC 14496-1 §7.2.6.5) with lengths of four bytes.
fn put_esds(rate_hz: u32, w: &mut Writer<'_>) {
    fn descriptor(w: &mut Writer<'_>, tag: u8, length: u8) {
        w.bytes(&[tag, 0x80, 0x80, 0x80, length]);
    }
    full_box(w, b"esds", 0, 0, |w| {
        descriptor(w, 3, 34);
        w.u16_be(0); // ES_ID: 0 in files (ISO/IEC 14496-14 §3.1.2)
        w.u8(0);
        descriptor(w, 4, 20);
        w.bytes(&[0x40, 0x15]); // AAC, audio stream
        w.bytes(&[0; 11]); // bufferSizeDB, maxBitrate, avgBitrate: unknown
        descriptor(w, 5, 2);
        w.bytes(&aac::audio_specific_config(rate_hz, 1).unwrap_or_default());
        descriptor(w, 6, 1);
        w.u8(2);
    });
}

/// A video sample as `trun` describes it.
pub(super) struct VideoSample {
    pub(super) duration_90k: u32,
    pub(super) len: u32,
    pub(super) key: bool,
}

/// What of a `moof` and its `mdat` is known without looking at single samples.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Totals {
    pub(super) sequence: u32,
    pub(super) video_time_90k: u64,
    pub(super) video_samples: u32,
    pub(super) video_bytes: u32,
    /// In audio samples.
    pub(super) audio_time: u64,
    /// AAC frames; with none there is no audio `traf`.
    pub(super) audio_frames: u32,
    pub(super) audio_bytes: u32,
}

impl Totals {
    fn video_traf_len(&self) -> u32 {
        8 + 16 + 20 + 20 + 12 * self.video_samples
    }

    fn audio_traf_len(&self) -> u32 {
        if self.audio_frames == 0 { 0 } else { 8 + 24 + 20 + 20 + 4 * self.audio_frames }
    }

    fn moof_len(&self) -> u32 {
        8 + 16 + self.video_traf_len() + self.audio_traf_len()
    }

    /// Bytes in front of the samples.
    pub(super) fn head_len(&self) -> usize {
        self.moof_len() as usize + 8
    }

    /// Bytes of `moof` and `mdat`.
    pub(super) fn total_len(&self) -> usize {
        self.head_len() + self.video_bytes as usize + self.audio_bytes as usize
    }

    /// Writes `moof` and the header of `mdat`; the samples follow, video first.
    pub(super) fn put_head(
        &self,
        video: impl Iterator<Item = VideoSample>,
        audio_lens: impl Iterator<Item = u32>,
        w: &mut Window<'_>,
    ) {
        let head = self.moof_len() + 8;
        w.head(self.moof_len(), b"moof");
        w.full_head(16, b"mfhd", 0, 0);
        w.u32(self.sequence);

        w.head(self.video_traf_len(), b"traf");
        const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
        w.full_head(16, b"tfhd", 0, DEFAULT_BASE_IS_MOOF);
        w.u32(VIDEO_TRACK);
        w.full_head(20, b"tfdt", 1, 0);
        w.put(&self.video_time_90k.to_be_bytes());
        const OFFSET_DURATION_SIZE_FLAGS: u32 = 0x701;
        w.full_head(20 + 12 * self.video_samples, b"trun", 0, OFFSET_DURATION_SIZE_FLAGS);
        w.u32(self.video_samples);
        w.u32(head);
        for sample in video {
            w.u32(sample.duration_90k);
            w.u32(sample.len);
            w.u32(if sample.key { SYNC } else { NON_SYNC });
        }

        if self.audio_frames > 0 {
            w.head(self.audio_traf_len(), b"traf");
            const DEFAULT_DURATION_AND_FLAGS: u32 = 0x28;
            w.full_head(24, b"tfhd", 0, DEFAULT_BASE_IS_MOOF | DEFAULT_DURATION_AND_FLAGS);
            w.u32(AUDIO_TRACK);
            w.u32(FRAME_SAMPLES);
            w.u32(SYNC);
            w.full_head(20, b"tfdt", 1, 0);
            w.put(&self.audio_time.to_be_bytes());
            const OFFSET_SIZE: u32 = 0x201;
            w.full_head(20 + 4 * self.audio_frames, b"trun", 0, OFFSET_SIZE);
            w.u32(self.audio_frames);
            w.u32(head + self.video_bytes);
            audio_lens.for_each(|len| w.u32(len));
        }
        w.head(8 + self.video_bytes + self.audio_bytes, b"mdat");
    }
}

/// A part of something longer: takes the whole of it piece by piece and keeps what falls into `out`.
pub(super) struct Window<'a> {
    /// Bytes still to pass over.
    skip: usize,
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Window<'a> {
    pub(super) fn new(offset: usize, out: &'a mut [u8]) -> Self {
        Window { skip: offset, out, len: 0 }
    }

    /// Bytes kept so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.len == self.out.len()
    }

    /// Passes over a piece of `len` bytes, if all of it lies in front of the window.
    pub(super) fn skips(&mut self, len: usize) -> bool {
        let skips = len <= self.skip;
        if skips {
            self.skip -= len;
        }
        skips
    }

    pub(super) fn put(&mut self, piece: &[u8]) {
        if self.skips(piece.len()) {
            return;
        }
        let piece = &piece[core::mem::take(&mut self.skip)..];
        let room = &mut self.out[self.len..];
        let n = piece.len().min(room.len());
        room[..n].copy_from_slice(&piece[..n]);
        self.len += n;
    }

    fn u32(&mut self, v: u32) {
        self.put(&v.to_be_bytes());
    }

    fn head(&mut self, len: u32, kind: &[u8; 4]) {
        self.u32(len);
        self.put(kind);
    }

    fn full_head(&mut self, len: u32, kind: &[u8; 4], version: u8, flags: u32) {
        self.head(len, kind);
        self.u32(u32::from(version) << 24 | flags);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ParameterSet;
    use super::*;
    use crate::wire::h264::{Sps, unhex};

    #[test]
    fn a_window_takes_its_part_of_the_whole() {
        let pieces: [&[u8]; 4] = [b"abc", b"", b"defgh", b"i"];
        for offset in 0..12 {
            for room in 0..12 {
                let mut out = [0; 12];
                let mut w = Window::new(offset, &mut out[..room]);
                pieces.iter().for_each(|piece| w.put(piece));
                let n = w.len();
                let whole = b"abcdefghi";
                let from = offset.min(whole.len());
                assert_eq!(out[..n], whole[from..(from + room).min(whole.len())], "{offset} {room}");
            }
        }
    }

    #[test]
    fn high_profile_says_what_the_standard_adds() {
        let sps = unhex("6764001eacd940a063f3e022000003000200000300643e28532c");
        let pps = [unhex("68fba3cb3002c0"), unhex("68fba3cb3002c1")];
        let video = VideoParameters {
            parsed: Sps::parse(&sps).unwrap(),
            sps: ParameterSet::from_slice(&sps).unwrap(),
            pps: pps.iter().map(|pps| ParameterSet::from_slice(pps).unwrap()).collect(),
            epoch: 0,
        };
        let mut buf = [0; 2048];
        let mut w = Writer::new(&mut buf);
        put_avcc(&video, &mut w);
        let avcc = w.finish().unwrap();
        assert_eq!(avcc[8..16], [1, 100, 0, 0x1e, 0xff, 0xe1, 0, sps.len() as u8]);
        let behind_sps = 16 + sps.len();
        assert_eq!(avcc[behind_sps..behind_sps + 3], [2, 0, 7]);
        assert!(avcc.ends_with(&[0xfd, 0xf8, 0xf8, 0]));
    }
}
