//! Live views do not allocate: two of them and a recording, ten minutes in virtual time, with key frames
//! that are asked for, talk-back and a change of the size, counted by the allocator itself.

#[path = "common/allocations.rs"]
mod allocations;

use allocations::ALLOCATIONS;
use hksvd::crypto::{Agreement, Random};
use hksvd::live::srtp::{MasterKey, Sealer};
use hksvd::live::{AudioChoice, Begin, DATAGRAM_BYTES, Medium, NtpNow, Report, Session, Setup, VideoChoice};
use hksvd::media::{AccessUnit, AudioChoice as Track, Budget, Prebuffer, Reader, ReaderOptions, Retention, Start};
use hksvd::time::{Duration, Instant};
use hksvd::wire::h264::AnnexB;
use std::cell::Cell;
use std::net::SocketAddr;

const SETS: &[u8] = b"\0\0\0\x01\x67\x4d\x40\x28\xd9\x02\x0b\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x14\x0f\x18\x32\x48\
    \0\0\0\x01\x68\xeb\xc0\xe4\xb2";

const FPS: u32 = 20;

struct Numbers(u8);

impl Random for Numbers {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| {
            self.0 = self.0.wrapping_mul(77).wrapping_add(13);
            self.0
        });
    }
    fn x25519(&mut self, _: &[u8; 32]) -> Option<Agreement> {
        None
    }
}

/// A live view, and the controller's half of its keys.
struct View {
    session: Session,
    sealers: [Sealer; 2],
    sequence: u16,
    datagrams: u64,
    bytes: u64,
    keys: u32,
    talk: u32,
}

fn remote(medium: Medium) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 50_000 + 2 * medium as u16))
}

fn video() -> VideoChoice {
    VideoChoice {
        payload_type: 99,
        ssrc: 1,
        bitrate_kbps: 299,
        rtcp_interval_ms: 500,
        mtu: None,
        width: 1280,
        height: 720,
        fps: 30,
    }
}

impl View {
    fn new(seed: u8, now: Instant) -> View {
        let keys = || [MasterKey::new(&[1; 16], &[2; 14]), MasterKey::new(&[3; 16], &[4; 14])];
        let sealers = keys().each_ref().map(Sealer::new);
        let [video, audio] = keys();
        let remotes = [remote(Medium::Video), remote(Medium::Audio)];
        let setup = Setup::draw(&mut Numbers(seed), [seed; 16], remotes, video, audio);
        let session = Session::new(setup, 50, now);
        View { session, sealers, sequence: 0, datagrams: 0, bytes: 0, keys: 0, talk: 0 }
    }

    fn start(&mut self, now: Instant) {
        let audio = AudioChoice {
            payload_type: 110,
            ssrc: 2,
            rate_hz: 16_000,
            packet_ms: 20,
            rtcp_interval_ms: 5000,
            bitrate_kbps: 24,
        };
        self.session.start(video(), audio, Begin::FromPrebuffer, now);
    }

    /// A report that asks for a key frame, and a packet of talk-back.
    fn hear(&mut self, now: Instant) {
        let mut bytes = [0; 64];
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9];
        bytes[..pli.len()].copy_from_slice(&pli);
        let len = self.sealers[0].seal_rtcp(&mut bytes, pli.len()).unwrap();
        self.session.handle_datagram(Medium::Video, remote(Medium::Video), &mut bytes[..len], now);
        self.sequence += 1;
        let [high, low] = self.sequence.to_be_bytes();
        bytes[..16].copy_from_slice(&[0x80, 110, high, low, 0, 0, 0, 0, 0, 0, 0, 2, 0x48, 1, 2, 3]);
        let len = self.sealers[1].seal_rtp(&mut bytes, 16).unwrap();
        self.session.handle_datagram(Medium::Audio, remote(Medium::Audio), &mut bytes[..len], now);
        self.talk += u32::from(self.session.poll_talk().is_some_and(|talk| talk.payload == [0x48, 1, 2, 3]));
    }

    /// Lets time pass up to `until` and sends what is due.
    fn pass(&mut self, now: Instant, until: Instant, prebuffer: &Prebuffer, out: &mut [u8]) {
        let mut now = now;
        loop {
            let wall = NtpNow(now.as_micros() << 12);
            while let Some(sent) = self.session.poll_transmit(now, wall, prebuffer, out) {
                self.datagrams += 1;
                self.bytes += sent.len as u64;
            }
            while let Some(report) = self.session.poll_report() {
                assert!(!matches!(report, Report::Ended(_) | Report::Lagged), "{report:?}");
                self.keys += u32::from(report == Report::KeyFrameWanted);
            }
            match self.session.poll_timeout() {
                Some(due) if due < until => {
                    now = due;
                    self.session.handle_timeout(now);
                }
                _ => return,
            }
        }
    }
}

#[test]
fn two_live_views_and_a_recording_without_an_allocation() {
    let mut prebuffer = Prebuffer::new(Budget::from_memory(2560, 2000, 32));
    prebuffer.set_retention(Retention::Everything);
    let mut out = [0; DATAGRAM_BYTES];
    let mut chunk = vec![0u8; Budget::CHUNK_BYTES];
    let key = [SETS, b"\0\0\0\x01\x65\x88", &[0x77; 8_000]].concat();
    let delta = [&b"\0\0\0\x01\x41\x9a"[..], &[0x77; 1_500]].concat();
    let options = ReaderOptions { fragment_ms: 4000, audio: Track::None, audio_rate_hz: 16_000 };
    let frame = Duration::from_micros(1_000_000 / u64::from(FPS));
    let mut now = Instant::from_micros(1_000_000);
    let mut views = [View::new(1, now), View::new(2, now)];
    let mut reader: Option<Reader> = None;
    let (mut fragments, mut recorded) = (0, 0);

    let before = ALLOCATIONS.with(Cell::get);
    for picture in 0..600 * FPS {
        let is_key = picture.is_multiple_of(2 * FPS);
        let annexb = AnnexB::new(if is_key { &key } else { &delta });
        prebuffer.push_video(AccessUnit { annexb, pts_90k: now.as_90k(), key: is_key });
        for (view, begin) in views.iter_mut().zip([30, 55]) {
            match picture {
                at if at == begin => view.start(now),
                at if at == 100 * FPS => view.session.suspend(),
                at if at == 103 * FPS => view.session.resume(now),
                at if at == 200 * FPS => {
                    view.session.reconfigure(VideoChoice { width: 640, bitrate_kbps: 132, ..video() }, now);
                }
                at if at > begin && at.is_multiple_of(FPS) => view.hear(now),
                _ => {}
            }
            view.session.push_audio(&[0x48; 120], 800, now.as_90k());
            view.pass(now, now + frame, &prebuffer, &mut out);
        }
        now += frame;
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
            recorded += fragment.frames();
        }
    }
    let allocations = ALLOCATIONS.with(Cell::get) - before;

    assert_eq!(allocations, 0);
    for view in &views {
        let figures = view.session.figures();
        assert!(figures.pictures > 597 * FPS - 60, "{figures:?}");
        assert!(view.datagrams > 35_000 && view.bytes > 20_000_000, "{} {}", view.datagrams, view.bytes);
        assert!(view.keys > 590 && view.talk > 590, "{} {}", view.keys, view.talk);
    }
    assert!(fragments >= 148, "{fragments}");
    assert!(recorded > 592 * FPS, "no picture is missing in the recording: {recorded}");
}
