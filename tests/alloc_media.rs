//! The media path does not allocate: 10,000 pictures from the byte stream through the prebuffer into
//! fragments, counted by the allocator itself.

#[path = "common/allocations.rs"]
mod allocations;

use allocations::ALLOCATIONS;
use hksvd::media::{
    AccessUnit, AudioChoice, AudioParameters, Budget, Prebuffer, Reader, ReaderOptions, Retention, Start, annexb,
    clock::{AudioClock, VideoClock},
};
use hksvd::motion::{Meter, Mode, Sensor};
use hksvd::rtsp::{Client, Event, REQUEST_BYTES};
use hksvd::time::{Duration, Instant};
use std::cell::Cell;

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

/// Puts a packet of RTP between the messages of an RTSP connection (RFC 2326 §10.12).
fn put_packet(client: &mut Client, channel: u8, sequence: u16, timestamp: u32, payloads: &[&[u8]], now: Instant) {
    let length: usize = payloads.iter().map(|payload| payload.len()).sum();
    let [s1, s0] = sequence.to_be_bytes();
    let [l1, l0] = (12 + length as u16).to_be_bytes();
    let mut head = [b'$', channel, l1, l0, 0x80, 0x60 + channel / 2, s1, s0, 0, 0, 0, 0, 0, 0, 0, 1];
    head[8..12].copy_from_slice(&timestamp.to_be_bytes());
    for piece in [&head[..]].iter().chain(payloads) {
        client.receive_buffer()[..piece.len()].copy_from_slice(piece);
        client.handle_received(piece.len(), now);
    }
}

#[test]
fn pictures_of_an_rtsp_server_without_an_allocation() {
    const SDP: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
        m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/16000/1\r\na=fmtp:97 config=1408\r\n";
    let mut client = Client::new("rtsp://127.0.0.1/ch0", Some("a:b"), true, 100_000, 1);
    let mut request = [0; REQUEST_BYTES];
    client.start();
    for (cseq, body) in (1..).zip(["", SDP, "", "", ""]) {
        assert!(client.poll_transmit(Instant::ZERO, &mut request).is_some());
        let length = body.len();
        let answer = format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Length: {length}\r\n\r\n{body}");
        client.receive_buffer()[..answer.len()].copy_from_slice(answer.as_bytes());
        client.handle_received(answer.len(), Instant::ZERO);
        while client.poll_event().is_some() {}
    }

    let before = ALLOCATIONS.with(Cell::get);
    let (mut pictures, mut frames, mut signs_of_life, mut sequence) = (0, 0, 0, 0u16);
    for picture in 0..2000u32 {
        let now = Instant::ZERO + Duration::from_millis(40) * picture;
        let header = if picture % 50 == 0 { 0x65 } else { 0x41 };
        for part in 0..6u8 {
            // FU-A: start, middle, end.
            let fragment = header & 0x1f | u8::from(part == 0) << 7 | u8::from(part == 5) << 6;
            let payloads: [&[u8]; 2] = [&[0x7c, fragment], &[0x88; 1300]];
            // Without a marker, so that the next picture ends this one.
            put_packet(&mut client, 0, sequence, picture * 3600, &payloads, now);
            sequence = sequence.wrapping_add(1);
            put_packet(&mut client, 2, 0, 0, &[&[0, 16, 0, 32], b"aacs"], now);
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Picture { .. } => pictures += 1,
                    Event::Aac { .. } => frames += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        if client.poll_timeout().is_some_and(|when| when <= now) {
            client.handle_timeout(now);
            signs_of_life += usize::from(client.poll_transmit(now, &mut request).is_some());
        }
    }
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!((pictures, frames, signs_of_life, client.failure()), (1999, 12_000, 2, None));
    assert_eq!(allocations, 0);
}
