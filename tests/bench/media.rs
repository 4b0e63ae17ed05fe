//! What a picture costs on its way from the encoder into a fragment.
//!
//! The pictures are those of a 2 Mbit/s stream at 20 pictures a second: 12,500 bytes of noise behind a
//! real slice header, so that a search for start codes has as much to look at as on a camera.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use hksvd::media::{AccessUnit, AudioChoice, Budget, Prebuffer, Reader, ReaderOptions, Retention, Start, annexb};
use hksvd::motion::{Meter, Mode, Sensor};
use hksvd::time::{Duration, Instant};
use hksvd::wire::h264::AnnexB;

fn main() {
    divan::main();
}

const PICTURE: usize = 12_500;
const GOP: u32 = 40;
const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x16, 0xd9, 0x00, 0xc0, 0x37, 0xa6, 0xa0, 0xc0, 0xc0, 0xc8, 0x00, 0x00, 0x03, 0x00, 0x08, 0x00,
    0x00, 0x03, 0x00, 0xa0, 0x78, 0xb1, 0x72, 0x40,
];
const PPS: &[u8] = &[0x68, 0xcb, 0x8c, 0xb2];
const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x13, 0xff, 0xe5, 0xfe, 0xa0, 0x59, 0xc0];
const P: &[u8] = &[0x41, 0x9a, 0x38, 0x5e, 0x05, 0x17, 0x89, 0xc0, 0x81, 0x84];

/// One access unit as an encoder writes it.
fn picture(key: bool) -> Vec<u8> {
    let nals: &[&[u8]] = if key { &[&[9, 0x10], SPS, PPS, IDR] } else { &[&[9, 0x30], P] };
    let mut unit: Vec<u8> = nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect();
    let mut state = 1u32;
    // No zeros, so no start codes, but as many ones as in any picture: those stop the search.
    unit.resize_with(PICTURE, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) as u8).max(2 - (state >> 23 & 1) as u8)
    });
    unit
}

/// With its start codes, as the assembler hands it out.
fn starts(unit: &[u8]) -> Vec<u32> {
    (0..unit.len()).filter(|&at| unit[at..].starts_with(&[0, 0, 1])).map(|at| at as u32).collect()
}

fn at(number: u64) -> Instant {
    Instant::from_micros(1_000_000 + number * 50_000)
}

/// Size, slice header, detector and sensor: everything that motion asks of a picture.
#[divan::bench]
fn motion_per_picture(bencher: Bencher<'_, '_>) {
    let (key, delta) = (picture(true), picture(false));
    let (key_starts, delta_starts) = (starts(&key), starts(&delta));
    let mut meter = Meter::new();
    meter.measure(AnnexB::indexed(&key, &key_starts, key.len()));
    let mut sensor = Sensor::new(Mode::Detect, 20, 50, 10, at(0));
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let unit = meter.measure(black_box(AnnexB::indexed(&delta, &delta_starts, delta.len())));
        unit.and_then(|unit| sensor.handle_access_unit(unit, at(number)))
    });
}

/// The same where nobody has searched for the start codes.
#[divan::bench]
fn motion_per_picture_with_search(bencher: Bencher<'_, '_>) {
    let (key, delta) = (picture(true), picture(false));
    let mut meter = Meter::new();
    meter.measure(AnnexB::new(&key));
    let mut sensor = Sensor::new(Mode::Detect, 20, 50, 10, at(0));
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let unit = meter.measure(black_box(AnnexB::new(&delta)));
        unit.and_then(|unit| sensor.handle_access_unit(unit, at(number)))
    });
}

/// Finding the pictures in the byte stream: the one search there is.
#[divan::bench]
fn assemble_picture(bencher: Bencher<'_, '_>) {
    let stream = [picture(true), picture(false)].concat();
    let mut assembler = annexb::Assembler::new(160 * 1024);
    bencher.counter(BytesCount::new(stream.len())).bench_local(|| {
        assembler.receive_buffer()[..stream.len()].copy_from_slice(&stream);
        assembler.handle_received(stream.len(), at(0));
        let mut units = 0;
        while let Some(unit) = assembler.poll_unit() {
            units += black_box(unit.annexb.bytes().len());
        }
        units
    });
}

fn prebuffer() -> Prebuffer {
    let mut prebuffer = Prebuffer::new(Budget::from_memory(2560, 2000, 0));
    prebuffer.set_retention(Retention::Everything);
    prebuffer
}

/// From Annex B into the ring, the only copy on the way in.
#[divan::bench]
fn ring_push(bencher: Bencher<'_, '_>) {
    let (key, delta) = (picture(true), picture(false));
    let (key_starts, delta_starts) = (starts(&key), starts(&delta));
    let mut prebuffer = prebuffer();
    let mut number = 0;
    bencher.counter(BytesCount::new(PICTURE)).bench_local(|| {
        let is_key = number % u64::from(GOP) == 0;
        let annexb = if is_key {
            AnnexB::indexed(&key, &key_starts, key.len())
        } else {
            AnnexB::indexed(&delta, &delta_starts, delta.len())
        };
        prebuffer.push_video(AccessUnit { annexb, pts_90k: at(number).as_90k(), key: is_key });
        number += 1;
    });
}

/// The plan of a fragment of 80 pictures and the bytes of its head: what is computed, not what is copied.
#[divan::bench]
fn fragment_header(bencher: Bencher<'_, '_>) {
    let (key, delta) = (picture(true), picture(false));
    let mut prebuffer = prebuffer();
    for number in 0..5 * u64::from(GOP) {
        let is_key = number % u64::from(GOP) == 0;
        let annexb = AnnexB::new(if is_key { &key } else { &delta });
        prebuffer.push_video(AccessUnit { annexb, pts_90k: at(number).as_90k(), key: is_key });
    }
    assert!(prebuffer.held() > Duration::from_secs(6));
    let options = ReaderOptions { fragment_ms: 4000, audio: AudioChoice::None, audio_rate_hz: 16_000 };
    let mut head = [0; 1024];
    bencher.bench_local(|| {
        let mut reader = Reader::start(&prebuffer, Start::Prebuffered { ms: 8000 }, options).expect("parameters");
        let mut fragment = reader.poll_fragment(&prebuffer).expect("held").expect("whole");
        reader.read(&mut fragment, &prebuffer, 0, black_box(&mut head)).expect("held")
    });
}
