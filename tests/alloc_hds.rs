//! The media path of a recording claims no memory: 10,000 samples through the prebuffer, the reader,
//! the chunks and the seal.

#[path = "common/hub.rs"]
mod hub;

use hksvd::crypto::SharedSecret;
use hksvd::hds::{Desk, FRAME_BYTES, Permission, Prepared, Report, Selected, Session, Slot};
use hksvd::media::{AccessUnit, AudioParameters, Budget, Prebuffer, Retention};
use hksvd::time::{Duration, Instant};
use hksvd::wire::h264::AnnexB;
use hub::Hub;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

fn count() {
    // Not there any more while the thread ends.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: all it adds to the system's allocator is a count in a constant-initialised thread local,
// which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u32 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn ten_thousand_samples_claim_no_memory() {
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations(), before + 1, "the count counts");

    let v: serde_json::Value = serde_json::from_str(include_str!("vectors/fmp4.json")).unwrap();
    let mut key = Vec::new();
    for name in ["sps", "pps"] {
        let hex = v["params"][name].as_str().unwrap();
        key.extend_from_slice(&[0, 0, 0, 1]);
        key.extend((0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()));
    }
    key.extend_from_slice(&[0, 0, 0, 1, 0x65]);
    key.resize(60_000, 0xab);
    let mut delta = vec![0, 0, 0, 1, 0x41];
    delta.resize(4_000, 0xab);

    let mut prebuffer =
        Prebuffer::new(Budget { video_bytes: 4_000_000, audio_bytes: 100_000, access_unit_bytes: 100_000 });
    prebuffer.set_retention(Retention::Everything);
    prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
    let permission = Permission {
        recording_active: true,
        camera_active: true,
        audio_active: true,
        silent_track: false,
        selected: Some(Selected { fragment_ms: 4000, prebuffer_ms: 4000, audio_rate_hz: 16_000 }),
    };

    let mut now = Instant::from_micros(5_000_000);
    let (shared, mine, yours) = (SharedSecret::new([1; 32]), [2; 32], [3; 32]);
    let (mut prepared, mut slot) = (Prepared::new(), Slot::new());
    prepared.prepare(now, 1, &shared, &mine, &yours).unwrap();
    let mut hub = Hub::new(&shared, &mine, &yours);
    let mut session = Session::new(1, now);
    let frames = [hub.hello(), hub.open(1)].concat();
    let mut room = vec![0; FRAME_BYTES];

    let before = allocations();
    let (mut samples, mut fragments, mut bytes) = (0, 0, 0);
    let mut audio_due = now;
    for picture in 0u32.. {
        if samples >= 10_000 {
            break;
        }
        now += Duration::from_micros(16_667);
        let is_key = picture.is_multiple_of(120);
        let annexb = if is_key { &key } else { &delta };
        prebuffer.push_video(AccessUnit { annexb: AnnexB::new(annexb), pts_90k: now.as_90k(), key: is_key });
        samples += 1;
        if audio_due <= now {
            audio_due += Duration::from_millis(64);
            prebuffer.push_audio(&[0xcd; 100], now.as_90k());
            samples += 1;
        }
        let mut desk = Desk {
            prepared: &mut prepared,
            slot: &mut slot,
            prebuffer: &prebuffer,
            permission: &permission,
            motion_since: Some(now),
        };
        // The hub says hello and opens in the tenth second.
        if picture == 600 {
            session = Session::new(1, now);
            desk.prepared.prepare(now, 1, &shared, &mine, &yours).unwrap();
            session.receive_buffer()[..frames.len()].copy_from_slice(&frames);
            session.handle_received(frames.len(), now, &mut desk);
        }
        if session.poll_timeout().is_some_and(|t| t <= now) {
            session.handle_timeout(now, &mut desk);
        }
        while let Some(n) = session.poll_transmit(now, &mut desk, &mut room) {
            bytes += n;
            session.handle_transmitted(n, now, &mut desk);
        }
        while let Some(report) = session.poll_report() {
            fragments += u32::from(matches!(report, Report::Fragment { .. }));
        }
    }
    assert_eq!(allocations() - before, 0);
    // It was a recording and not a silence.
    assert!(session.is_recording());
    assert!(fragments > 30 && bytes > 30_000_000, "{fragments} fragments, {bytes} bytes");
}
