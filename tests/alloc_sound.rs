//! Live sound does not allocate: the built-in clip's AAC through two live views of different packet times and back out
//! of two loudspeakers, and linear PCM through one, counted by the allocator itself.
#![cfg(all(feature = "opus", feature = "demo"))]

#[path = "common/allocations.rs"]
mod allocations;

use allocations::ALLOCATIONS;
use hksvd::live::jitter::Jitter;
use hksvd::live::microphone::Microphone;
use hksvd::live::voice::Voice;
use hksvd::media::clock::AudioClock;
use hksvd::media::l16;
use hksvd::time::{Duration, Instant};
use hksvd::wire::aac::Adts;
use std::cell::Cell;

/// A live view that talks to itself: what its microphone sends comes out of its loudspeaker.
struct View {
    voice: Voice,
    jitter: Jitter,
    sequence: u16,
    packets: u32,
    steps: u32,
    loudest: i16,
}

impl View {
    fn new(rate_hz: u32, packet_ms: u32, sink_rate_hz: u32) -> Self {
        let (voice, jitter) = (Voice::new(rate_hz, packet_ms, 24), Jitter::new(sink_rate_hz));
        View { voice, jitter, sequence: 0, packets: 0, steps: 0, loudest: 0 }
    }

    fn pass_on(&mut self, now: Instant) {
        let mut packet = [0; 400];
        while let Some(written) = self.voice.poll_packet(&mut packet) {
            self.packets += 1;
            self.sequence = self.sequence.wrapping_add(1);
            // One in 20 is lost on the way.
            if !self.packets.is_multiple_of(20) {
                self.jitter.push(self.sequence, 0, &packet[..written.len], now);
            }
        }
        let mut pcm = [0; Jitter::MAX_STEP];
        while let Some(samples) = self.jitter.poll_sound(now, &mut pcm) {
            self.steps += 1;
            self.loudest = pcm[..samples].iter().copied().fold(self.loudest, i16::max);
        }
    }
}

#[test]
fn half_a_minute_of_sound_without_an_allocation() {
    let mut clip = &include_bytes!("../src/source/demo/audio.aac")[..];
    let mut microphone = Microphone::default();
    let mut views = [View::new(16_000, 20, 16_000), View::new(24_000, 60, 44_100)];
    let (mut frames, mut before) = (0u32, 0);
    while let Ok(adts) = Adts::parse(clip) {
        let (frame, rest) = clip.split_at(adts.frame_len);
        clip = rest;
        // The first frame says what the sound is like: then the decoder is made.
        if frames == 1 {
            before = ALLOCATIONS.with(Cell::get);
        }
        let now = Instant::ZERO + Duration::from_millis(64) * frames;
        microphone.set_muted(frames / 50 % 4 == 3);
        microphone.set_volume(100 - (frames / 100 % 3 * 20) as u8);
        let sound = microphone.push_aac(&frame[adts.header_len..], adts.rate_hz, adts.channels, now.as_90k());
        for view in &mut views {
            view.voice.push(&sound);
            view.pass_on(now);
        }
        frames += 1;
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert_eq!(frames, 500);
    for (view, packets) in views.iter().zip([1_600, 533]) {
        assert!(view.packets.abs_diff(packets) < 10, "{}", view.packets);
        assert!(view.steps.abs_diff(1_600) < 20 && view.loudest > 1_000, "{} {}", view.steps, view.loudest);
    }
}

#[test]
fn half_a_minute_of_samples_without_an_allocation() {
    let tone = |i: u32| (f64::from(i) * 440.0 * std::f64::consts::TAU / 44_100.0).sin() * 8_000.0;
    let second: Vec<u8> = (0..44_100).flat_map(|i| (tone(i) as i16).to_le_bytes()).collect();
    let (mut assembler, mut clock) = (l16::Assembler::new(44_100), AudioClock::of_frames(882, 44_100));
    let (mut microphone, mut view) = (Microphone::default(), View::new(24_000, 30, 16_000));
    let (mut frames, mut before) = (0u32, 0);
    while frames < 1_500 {
        for piece in second.chunks(1_763) {
            assembler.receive_buffer()[..piece.len()].copy_from_slice(piece);
            let now = Instant::ZERO + Duration::from_millis(20) * frames;
            assembler.handle_received(piece.len(), now);
            while let Some(frame) = assembler.poll_frame() {
                // The first one made the filter for its rate.
                if frames == 1 {
                    before = ALLOCATIONS.with(Cell::get);
                }
                let pts_90k = clock.stamp(frame.arrival).expect("on time");
                view.voice.push(&microphone.push_l16(frame.pcm, 44_100, pts_90k));
                view.pass_on(now);
                frames += 1;
            }
        }
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert!(view.packets.abs_diff(1_000) < 10, "{}", view.packets);
    assert!(view.steps.abs_diff(1_500) < 20 && view.loudest > 7_000, "{} {}", view.steps, view.loudest);
}
