//! An hour of a camera's life in virtual time claims no memory for good: pictures and sound through the
//! assembler, the prebuffer and the meter, a hub that records every few minutes, HAP connections that
//! get the events of motion. The heap holds afterwards what it held after the first of them.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[allow(dead_code)]
#[path = "common/world.rs"]
mod world;

use hksvd::crypto::SharedSecret;
use hksvd::hds::{Desk, FRAME_BYTES, Permission, Prepared, Report, Selected, Session, Slot};
use hksvd::media::{AccessUnit, AudioParameters, Budget, Prebuffer, Retention, annexb, clock::VideoClock};
use hksvd::motion::{Meter, Mode, Sensor};
use hksvd::time::{Duration, Instant};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn note(allocations: u64, bytes: i64) {
    // Not there any more while the thread ends.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + allocations));
    let _ = LIVE.try_with(|n| n.set(n.get() + bytes));
}

// SAFETY: all it adds to the system's allocator are counts in constant-initialised thread locals, which
// do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as i64 - layout.size() as i64);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const FPS: u64 = 20;
const SETS: &[u8] = b"\0\0\0\x01\x67\x4d\x40\x28\xd9\x02\x0b\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x14\x0f\x18\x32\x48\
    \0\0\0\x01\x68\xeb\xc0\xe4\xb2";

/// Everything that media passes through.
struct Camera {
    assembler: annexb::Assembler,
    clock: VideoClock,
    prebuffer: Prebuffer,
    meter: Meter,
    sensor: Sensor,
    prepared: Prepared,
    slot: Slot,
    session: Option<Session>,
    room: Vec<u8>,
    fragments: u32,
    pictures: u32,
}

impl Camera {
    fn new(now: Instant) -> Self {
        let budget = Budget::from_memory(2560, 2000, 32);
        let mut prebuffer = Prebuffer::new(budget);
        prebuffer.set_retention(Retention::Everything);
        prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
        Camera {
            assembler: annexb::Assembler::new(budget.access_unit_bytes),
            clock: VideoClock::new(Some(FPS as u32)),
            prebuffer,
            meter: Meter::new(),
            sensor: Sensor::new(Mode::Detect, FPS as u32, 50, 10, now),
            prepared: Prepared::new(),
            slot: Slot::new(),
            session: None,
            room: vec![0; FRAME_BYTES],
            fragments: 0,
            pictures: 0,
        }
    }

    /// One picture in, and all frames out that it makes due.
    fn picture(&mut self, bytes: &[u8], now: Instant) {
        self.assembler.receive_buffer()[..bytes.len()].copy_from_slice(bytes);
        self.assembler.handle_received(bytes.len(), now);
        while let Some(unit) = self.assembler.poll_unit() {
            let pts_90k = self.clock.stamp(unit.arrival);
            self.prebuffer.push_video(AccessUnit { annexb: unit.annexb, pts_90k, key: unit.key });
            let measured = self.meter.measure(unit.annexb);
            measured.and_then(|unit| self.sensor.handle_access_unit(unit, now));
            self.pictures += 1;
        }
        self.call(now, |_, _| ());
    }

    /// Calls into the data stream, then sends what is due to nowhere.
    fn call(&mut self, now: Instant, act: impl FnOnce(&mut Session, &mut Desk<'_>)) {
        let Some(session) = &mut self.session else { return };
        let permission = Permission {
            recording_active: true,
            camera_active: true,
            audio_active: true,
            silent_track: false,
            selected: Some(Selected { fragment_ms: 4000, prebuffer_ms: 4000, audio_rate_hz: 16_000 }),
        };
        let mut desk = Desk {
            prepared: &mut self.prepared,
            slot: &mut self.slot,
            prebuffer: &self.prebuffer,
            permission: &permission,
            motion_since: Some(now),
        };
        act(session, &mut desk);
        if session.poll_timeout().is_some_and(|due| due <= now) {
            session.handle_timeout(now, &mut desk);
        }
        while let Some(n) = session.poll_transmit(now, &mut desk, &mut self.room) {
            session.handle_transmitted(n, now, &mut desk);
        }
        while let Some(report) = session.poll_report() {
            self.fragments += u32::from(matches!(report, Report::Fragment { .. }));
        }
    }
}

#[test]
fn an_hour_leaves_the_heap_as_it_was() {
    let key = [b"\0\0\0\x01\x09\x10", SETS, b"\0\0\0\x01\x65\x88", &[0xab; 8_000][..]].concat();
    let delta = [&b"\0\0\0\x01\x09\x30\0\0\0\x01\x41\x9a"[..], &[0xab; 1_000]].concat();
    let (mut world, who, _) = world::paired();
    let mut now = world.now;
    let mut camera = Camera::new(now);
    let (shared, mine, yours) = (SharedSecret::new([1; 32]), [2; 32], [3; 32]);

    let (mut after_first, mut on_media_path) = (0, 0);
    // Twenty times three minutes: a hub connects, is told of motion, records for half a minute and goes.
    for round in 0..20 {
        let mut client = world::Client::verified(&mut world, &who);
        client.subscribe(&mut world, &[0x61]);
        for picture in 0..180 * FPS {
            now += Duration::from_micros(1_000_000 / FPS);
            if picture == 60 * FPS {
                world.now = now;
                world.acc.state.set_motion(true);
                world.pump();
                assert_eq!(client.events(&mut world).len(), 1);
                camera.prepared.prepare(now, 1, &shared, &mine, &yours).unwrap();
                camera.session = Some(Session::new(1, now));
                let mut hub = hub::Hub::new(&shared, &mine, &yours);
                let frames = [hub.hello(), hub.open(1)].concat();
                camera.call(now, |session, desk| {
                    session.receive_buffer()[..frames.len()].copy_from_slice(&frames);
                    session.handle_received(frames.len(), now, desk);
                });
                assert!(camera.session.as_ref().is_some_and(Session::is_recording));
            }
            if picture == 90 * FPS {
                camera.call(now, |session, desk| {
                    session.handle_disconnected(hksvd::hds::Disconnect::Peer, now, desk);
                });
                camera.session = None;
                world.now = now;
                world.acc.state.set_motion(false);
                world.pump();
            }
            let before = ALLOCATIONS.get();
            camera.picture(if picture % (2 * FPS) == 0 { &key } else { &delta }, now);
            if picture % 5 == 0 {
                camera.prebuffer.push_audio(&[0xcd; 250], now.as_90k());
            }
            on_media_path += ALLOCATIONS.get() - before;
        }
        world.now = now;
        world.close(client.id);
        world.log();
        drop(client);
        world.pump();
        world.log = Vec::new();
        if round == 0 {
            after_first = LIVE.get();
        }
    }
    assert_eq!(LIVE.get(), after_first, "bytes on the heap");
    assert_eq!(on_media_path, 0, "allocations for pictures and sound");
    // It was a camera at work.
    assert!(camera.pictures >= 3600 * FPS as u32 - 1, "{}", camera.pictures);
    assert!((20 * 6..=20 * 9).contains(&camera.fragments), "{}", camera.fragments);
}
