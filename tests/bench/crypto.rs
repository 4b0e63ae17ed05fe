//! What sealing costs, against ring doing nothing else, and what pairing costs.

#[path = "../common/hub.rs"]
mod hub;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use hksvd::crypto::srp::{Answer, Job, Verifier};
use hksvd::crypto::{Secret, SharedSecret};
use hksvd::hap::record::Sealer;
use hksvd::hds::{Desk, FRAME_BYTES, Permission, Prepared, Selected, Session, Slot};
use hksvd::live::srtp::{MasterKey, Opener, Sealer as RtpSealer, TAG_BYTES};
use hksvd::media::{AccessUnit, Budget, Prebuffer, Retention};
use hksvd::time::{Duration, Instant};
use hksvd::wire::Writer;
use hksvd::wire::h264::AnnexB;
use hksvd::wire::rtp::{HEADER_BYTES, Header};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

fn main() {
    divan::main();
}

/// A chunk of a fragment, its event around it and its frame: about this many bytes.
const CHUNK: usize = 256 * 1024;

/// ring alone, over the bytes of one chunk.
#[divan::bench]
fn ring_seals_a_chunk(bencher: Bencher<'_, '_>) {
    let mut text = vec![0xab; CHUNK];
    bencher.counter(BytesCount::new(CHUNK)).bench_local(|| {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("32 bytes"));
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        key.seal_in_place_separate_tag(nonce, Aad::from([1, 4, 0, 0]), black_box(&mut text)).expect("short enough")
    });
}

/// A hub that records what the prebuffer holds, again and again.
struct Recording {
    prebuffer: Prebuffer,
    permission: Permission,
    prepared: Prepared,
    slot: Slot,
    session: Session,
    now: Instant,
}

impl Recording {
    /// One fragment of a single picture of 10 chunks, twice.
    fn new() -> Self {
        let v: serde_json::Value = serde_json::from_str(include_str!("../vectors/fmp4.json")).expect("JSON");
        let mut key = Vec::new();
        for name in ["sps", "pps"] {
            let hex = v["params"][name].as_str().expect("hex");
            key.extend_from_slice(&[0, 0, 0, 1]);
            key.extend((0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")));
        }
        key.extend_from_slice(&[0, 0, 0, 1, 0x65]);
        key.resize(10 * CHUNK, 0xab);
        let budget = Budget { video_bytes: 40 * CHUNK, audio_bytes: 0, access_unit_bytes: 0 };
        let mut prebuffer = Prebuffer::new(budget);
        prebuffer.set_retention(Retention::Everything);
        let mut now = Instant::from_micros(5_000_000);
        for _ in 0..3 {
            prebuffer.push_video(AccessUnit { annexb: AnnexB::new(&key), pts_90k: now.as_90k(), key: true });
            now += Duration::from_secs(4);
        }
        let permission = Permission {
            recording_active: true,
            camera_active: true,
            selected: Some(Selected { fragment_ms: 4000, prebuffer_ms: 12_000, audio_rate_hz: 16_000 }),
            ..Permission::default()
        };
        Recording {
            prebuffer,
            permission,
            prepared: Prepared::new(),
            slot: Slot::new(),
            session: Session::new(1, now),
            now,
        }
    }

    fn call<R>(&mut self, act: impl FnOnce(&mut Session, &mut Desk<'_>, Instant) -> R) -> R {
        let mut desk = Desk {
            prepared: &mut self.prepared,
            slot: &mut self.slot,
            prebuffer: &self.prebuffer,
            permission: &self.permission,
            motion_since: Some(self.now),
        };
        act(&mut self.session, &mut desk, self.now)
    }

    fn open(&mut self) {
        let (shared, mine, yours) = (SharedSecret::new([1; 32]), [2; 32], [3; 32]);
        self.slot = Slot::new();
        self.prepared = Prepared::new();
        self.prepared.prepare(self.now, 1, &shared, &mine, &yours).expect("room");
        self.session = Session::new(1, self.now);
        let mut hub = hub::Hub::new(&shared, &mine, &yours);
        let frames = [hub.hello(), hub.open(1)].concat();
        self.call(|session, desk, now| {
            session.receive_buffer()[..frames.len()].copy_from_slice(&frames);
            session.handle_received(frames.len(), now, desk);
        });
    }

    /// The next frame of at least a chunk.
    fn chunk(&mut self, room: &mut [u8]) -> usize {
        for _ in 0..100 {
            let sent = self.call(|session, desk, now| {
                let n = session.poll_transmit(now, desk, room);
                session.handle_transmitted(n.unwrap_or(0), now, desk);
                while session.poll_report().is_some() {}
                n
            });
            match sent {
                Some(n) if n > CHUNK => return n,
                Some(_) => {}
                None if self.session.is_recording() && self.session.poll_timeout().is_some() => {
                    self.now += Duration::from_millis(200);
                    let early = self.now - Instant::from_micros(5_000_000) < Duration::from_secs(20);
                    if !early {
                        self.now = Instant::from_micros(17_000_000);
                        self.open();
                    }
                }
                None => self.open(),
            }
        }
        panic!("no chunk came");
    }
}

/// The event around a chunk, its bytes out of the ring and the seal: all that is done for it.
#[divan::bench]
fn session_sends_a_chunk(bencher: Bencher<'_, '_>) {
    let mut recording = Recording::new();
    let mut room = vec![0; FRAME_BYTES];
    bencher.counter(BytesCount::new(CHUNK)).bench_local(|| recording.chunk(&mut room));
}

/// The frame alone: header, seal and tag.
#[divan::bench]
fn frame_seals_a_chunk(bencher: Bencher<'_, '_>) {
    let mut key = hksvd::crypto::aead::SealKey::new(&hksvd::crypto::Key::new([7; 32]));
    let mut frame = vec![0xab; CHUNK + hksvd::hds::frame::OVERHEAD_BYTES];
    bencher
        .counter(BytesCount::new(CHUNK))
        .bench_local(|| hksvd::hds::frame::seal(&mut key, black_box(&mut frame), CHUNK));
}

/// One record of the control channel, full.
#[divan::bench]
fn record_seal(bencher: Bencher<'_, '_>) {
    let mut sealer = Sealer::new(&SharedSecret::new([1; 32]));
    let (text, mut out) = ([0xab; 1024], [0; 1100]);
    bencher.counter(BytesCount::new(1024usize)).bench_local(|| sealer.seal(black_box(&text), &mut out));
}

/// A full RTP packet over IPv4, without its tag: about 200 of them a second are 2 Mbit/s.
const RTP_BYTES: usize = HEADER_BYTES + 1328;

/// One RTP packet with the next sequence number, and room for the tag.
fn rtp_packet(sequence: &mut u16) -> [u8; RTP_BYTES + TAG_BYTES] {
    let mut packet = [0xab; RTP_BYTES + TAG_BYTES];
    *sequence = sequence.wrapping_add(1);
    Header { marker: false, payload_type: 99, sequence: *sequence, timestamp: 0, ssrc: 1 }
        .put(&mut Writer::new(&mut packet));
    packet
}

/// A packet of the live picture: AES in counter mode and HMAC-SHA1.
#[divan::bench]
fn srtp_seals_a_packet(bencher: Bencher<'_, '_>) {
    let mut sealer = RtpSealer::new(&MasterKey::new(&[1; 16], &[2; 14]));
    let mut sequence = 0;
    bencher.counter(BytesCount::new(RTP_BYTES)).bench_local(|| {
        let mut packet = rtp_packet(&mut sequence);
        sealer.seal_rtp(black_box(&mut packet), RTP_BYTES).expect("a number that was not used")
    });
}

/// One that comes in, as talk-back does.
#[divan::bench]
fn srtp_opens_a_packet(bencher: Bencher<'_, '_>) {
    let master = MasterKey::new(&[1; 16], &[2; 14]);
    let mut sealer = RtpSealer::new(&master);
    let mut sealed = rtp_packet(&mut 0);
    sealer.seal_rtp(&mut sealed, RTP_BYTES).expect("the first number");
    bencher
        .with_inputs(|| (Opener::new(&master), sealed))
        .counter(BytesCount::new(RTP_BYTES))
        .bench_local_values(|(mut opener, mut packet)| opener.open_rtp(black_box(&mut packet)).expect("valid").len());
}

/// M3 of pair-setup: the exponentiations between the controller's proof and ours.
#[divan::bench(sample_count = 20)]
fn srp_prove(bencher: Bencher<'_, '_>) {
    let verifier = Verifier::new([5; 16], b"031-45-154");
    let Answer::Prepared(prepared) = Job::prepare(1, verifier, Secret::new([9; 32])).run().answer else {
        panic!("not the answer to this job");
    };
    let (verifier, ephemeral) = *prepared;
    let a = [0x77; 384];
    bencher
        .with_inputs(|| Job::prove(2, verifier.clone(), ephemeral.clone(), &a, [0; 64]).expect("short enough"))
        .bench_local_values(Job::run);
}
