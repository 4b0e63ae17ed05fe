//! The media path does not allocate: 10,000 pictures from the byte stream through the prebuffer into
//! fragments, counted by the allocator itself.

use hksvd::media::{
    AccessUnit, AudioChoice, AudioParameters, Budget, Prebuffer, Reader, ReaderOptions, Retention, Start, annexb,
    clock::{AudioClock, VideoClock},
};
use hksvd::motion::{Meter, Mode, Sensor};
use hksvd::time::{Duration, Instant};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread alone: the test's harness has one of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SETS: &[u8] = b"\0\0\0\x01\x67\x4d\x40\x28\xd9\x02\x0b\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x14\x0f\x18\x32\x48\
    \0\0\0\x01\x68\xeb\xc0\xe4\xb2";

#[test]
fn ten_thousand_pictures_without_an_allocation() {
    let budget = Budget::from_memory(2560, 2000, 32);
    let mut assembler = annexb::Assembler::new(budget.access_unit_bytes);
    let mut prebuffer = Prebuffer::new(budget);
    prebuffer.set_retention(Retention::Everything);
    prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
    let mut video_clock = VideoClock::new(Some(25));
    let mut audio_clock = AudioClock::new(16_000);
    let (mut meter, mut sensor) = (Meter::new(), Sensor::new(Mode::Detect, 25, 50, 10, Instant::ZERO));
    let options = ReaderOptions { fragment_ms: 4000, audio: AudioChoice::Live, audio_rate_hz: 16_000 };
    let mut chunk = vec![0u8; Budget::CHUNK_BYTES];
    let mut reader: Option<Reader> = None;
    let (mut fragments, mut bytes, mut audio_frames, mut pictures_measured) = (0u32, 0usize, 0u64, 0u32);

    let before = ALLOCATIONS.with(Cell::get);
    for picture in 0..10_000u32 {
        let now = Instant::ZERO + Duration::from_millis(40) * picture;
        let key = picture % 50 == 0;
        let mut put = |piece: &[u8]| {
            assembler.receive_buffer()[..piece.len()].copy_from_slice(piece);
            assembler.handle_received(piece.len(), now);
            while let Some(unit) = assembler.poll_unit() {
                let pts_90k = video_clock.stamp(unit.arrival);
                prebuffer.push_video(AccessUnit { annexb: unit.annexb, pts_90k, key: unit.key });
                // A tenth of them: unoptimised, searching for NAL units takes most of the time.
                if picture % 10 == 0
                    && let Some(measured) = meter.measure(unit.annexb)
                {
                    pictures_measured += 1;
                    sensor.handle_access_unit(measured, now);
                }
            }
        };
        if key {
            put(SETS);
        }
        put(if key { b"\0\0\0\x01\x65\x88" } else { b"\0\0\0\x01\x41\x9a" });
        put(&[0x77; 8000]);
        while audio_frames * 64 <= u64::from(picture) * 40 {
            if let Some(pts_90k) = audio_clock.stamp(now) {
                prebuffer.push_audio(&[0x21; 250], pts_90k);
            }
            audio_frames += 1;
        }
        if reader.is_none() {
            reader = Reader::start(&prebuffer, Start::Prebuffered { ms: 4000 }, options).ok();
        }
        let Some(reader) = &mut reader else { continue };
        if let Some(mut fragment) = reader.poll_fragment(&prebuffer).expect("the reader keeps up") {
            let mut at = 0;
            while at < fragment.total_bytes {
                at += reader.read(&mut fragment, &prebuffer, at, &mut chunk).expect("the reader keeps up");
            }
            fragments += 1;
            bytes += at;
        }
    }
    let allocations = ALLOCATIONS.with(Cell::get) - before;

    assert_eq!(allocations, 0);
    assert!(pictures_measured > 900, "{pictures_measured}");
    assert_eq!(fragments, 100);
    assert!(bytes > 9_700 * 8000, "{bytes}");
    assert!(prebuffer.counters().evictions > 0, "the ring went round");
}
