//! A live view of the demo clip over a network that loses, reorders and doubles packets, in virtual time.
#![cfg(feature = "demo")]

#[path = "common/feeder.rs"]
#[allow(dead_code)]
mod feeder;
#[path = "common/receiver.rs"]
mod receiver;

use hksvd::crypto::{Agreement, Random};
use hksvd::live::srtp::MasterKey;
use hksvd::live::{AudioChoice, Begin, Cause, DATAGRAM_BYTES, Medium, NtpNow, Report, Session, Setup, VideoChoice};
use hksvd::media::{AccessUnit, Budget, Prebuffer, Retention};
use hksvd::time::{Duration, Instant};
use hksvd::wire::h264::{AnnexB, Nals};
use receiver::Viewer;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

const CLIP: &[u8] = include_bytes!("../src/source/demo/video.h264");
const FRAME: Duration = Duration::from_micros(66_667);
const VOICE: Duration = Duration::from_millis(20);
/// Pictures from one key frame of the clip to the next.
const GOP: usize = 30;

/// The same chance in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

impl Random for Chance {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.below(256) as u8);
    }
    fn x25519(&mut self, _: &[u8; 32]) -> Option<Agreement> {
        None
    }
}

/// What a network does to one packet in so many.
#[derive(Clone, Copy)]
struct Weather {
    lost_per_1000: u64,
    doubled_per_1000: u64,
    /// Packets take 10 ms, and up to so much longer.
    jitter_us: u64,
}

struct World {
    now: Instant,
    chance: Chance,
    weather: Weather,
    clip: feeder::Clip,
    /// Slices of each unit of the clip → its number.
    known: HashMap<Vec<Vec<u8>>, usize>,
    at: usize,
    makes_keys: bool,
    prebuffer: Prebuffer,
    session: Session,
    viewer: Viewer,
    /// Packets on their way: to the viewer or to the camera.
    wire: BTreeMap<(Instant, u64), (bool, Medium, Vec<u8>)>,
    sent: u64,
    lost: [u64; 2],
    doubled: u64,
    /// Capture time of each picture by the clip's number, newest.
    captured: Vec<(u64, usize)>,
    next_picture: Instant,
    next_voice: Instant,
    next_report: Instant,
    asked: Vec<Instant>,
    reports: Vec<Report>,
    offset: u32,
    voices: u32,
}

impl World {
    fn new(weather: Weather, makes_keys: bool, begin: Begin) -> World {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let now = Instant::from_micros(5_000_000);
        let clip = feeder::access_units(CLIP);
        assert_eq!(clip.len(), 480);
        let slices = |unit: &[u8]| -> Vec<Vec<u8>> {
            Nals::new(unit).filter(|nal| nal.nal_type().is_vcl()).map(|nal| nal.bytes().to_vec()).collect()
        };
        let known = clip.iter().enumerate().map(|(i, unit)| (slices(unit), i)).collect();
        let mut prebuffer =
            Prebuffer::new(Budget { video_bytes: 1_000_000, audio_bytes: 0, access_unit_bytes: 200_000 });
        prebuffer.set_retention(Retention::CurrentGop);
        let theirs = || [MasterKey::new(&[1; 16], &[2; 14]), MasterKey::new(&[3; 16], &[4; 14])];
        let [video, audio] = theirs();
        let remote = [SocketAddr::from(([192, 0, 2, 7], 50_000)), SocketAddr::from(([192, 0, 2, 7], 50_002))];
        let setup = Setup::draw(&mut chance, [5; 16], remote, video, audio);
        let ssrcs = [setup.video_ssrc, setup.audio_ssrc];
        let theirs = theirs();
        let viewer = Viewer::new([&setup.video.ours, &setup.audio.ours], [&theirs[0], &theirs[1]], ssrcs);
        let offset = setup.timestamps[0];
        let mut world = World {
            now,
            chance,
            weather,
            clip,
            known,
            at: 0,
            makes_keys,
            prebuffer,
            session: Session::new(setup, 50, now),
            viewer,
            wire: BTreeMap::new(),
            sent: 0,
            lost: [0; 2],
            doubled: 0,
            captured: Vec::new(),
            next_picture: now,
            next_voice: now,
            next_report: now + Duration::from_millis(700),
            asked: Vec::new(),
            reports: Vec::new(),
            offset,
            voices: 0,
        };
        // In the middle of a group of pictures.
        for _ in 0..45 {
            world.picture();
            world.now += FRAME;
        }
        world.next_picture = world.now;
        world.next_voice = world.now;
        world.next_report = world.now + Duration::from_millis(700);
        let video = VideoChoice {
            payload_type: 99,
            ssrc: world.viewer.ssrc,
            bitrate_kbps: 299,
            rtcp_interval_ms: 500,
            mtu: Some(1378),
            width: 1280,
            height: 720,
            fps: 30,
        };
        let audio = AudioChoice {
            payload_type: 110,
            ssrc: world.viewer.ssrc,
            rate_hz: 16_000,
            packet_ms: 20,
            rtcp_interval_ms: 5000,
            bitrate_kbps: 24,
        };
        world.session.start(video, audio, begin, world.now);
        world.drain();
        world
    }

    fn picture(&mut self) {
        let unit = &self.clip[self.at];
        let key = self.at.is_multiple_of(GOP);
        self.captured.push((self.now.as_90k(), self.at));
        self.at = (self.at + 1) % self.clip.len();
        self.prebuffer.push_video(AccessUnit { annexb: AnnexB::new(unit), pts_90k: self.now.as_90k(), key });
    }

    /// Puts a packet on its way.
    fn carry(&mut self, to_viewer: bool, medium: Medium, bytes: &[u8]) {
        let Weather { lost_per_1000, doubled_per_1000, jitter_us } = self.weather;
        if self.chance.below(1000) < lost_per_1000 {
            self.lost[medium as usize] += u64::from(to_viewer);
            return;
        }
        let copies = 1 + u64::from(self.chance.below(1000) < doubled_per_1000);
        self.doubled += (copies - 1) * u64::from(to_viewer);
        for _ in 0..copies {
            let delay = Duration::from_micros(10_000 + self.chance.below(jitter_us + 1));
            self.sent += 1;
            self.wire.insert((self.now + delay, self.sent), (to_viewer, medium, bytes.to_vec()));
        }
    }

    fn drain(&mut self) {
        let mut out = [0; DATAGRAM_BYTES];
        loop {
            let us = self.now.as_micros();
            let wall = NtpNow::from_unix(1_780_000_000 + us / 1_000_000, (us % 1_000_000) as u32 * 1000);
            let Some(sent) = self.session.poll_transmit(self.now, wall, &self.prebuffer, &mut out) else { break };
            assert!(sent.len + 28 <= 1378);
            self.carry(true, sent.medium, &out[..sent.len]);
        }
        while let Some(report) = self.session.poll_report() {
            if report == Report::KeyFrameWanted {
                self.asked.push(self.now);
                // The encoder begins a new group of pictures.
                if self.makes_keys {
                    self.at = self.at.next_multiple_of(GOP) % self.clip.len();
                }
            }
            self.reports.push(report);
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timeout = self.session.poll_timeout();
            let next = [Some(self.next_picture), Some(self.next_voice), Some(self.next_report), wire, timeout];
            let next = next.into_iter().flatten().min().unwrap();
            if next >= until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            if timeout.is_some_and(|due| due <= self.now) {
                self.session.handle_timeout(self.now);
            }
            if self.next_picture <= self.now {
                self.picture();
                self.next_picture += FRAME;
            }
            if self.next_voice <= self.now {
                let payload = [&[0x48][..], &self.voices.to_be_bytes()].concat();
                self.session.push_audio(&payload, 320, self.now.as_90k());
                self.voices += 1;
                self.next_voice += VOICE;
            }
            if self.next_report <= self.now {
                for medium in [Medium::Video, Medium::Audio] {
                    let packet = self.viewer.report(medium, self.now);
                    self.carry(false, medium, &packet);
                }
                self.next_report += Duration::from_millis(500);
            }
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to_viewer, medium, mut bytes) = entry.remove();
                if to_viewer {
                    self.viewer.receive(medium, bytes, self.now);
                } else {
                    let from = SocketAddr::from(([192, 0, 2, 7], 50_000 + 2 * medium as u16));
                    self.session.handle_datagram(medium, from, &mut bytes, self.now);
                }
            }
            self.drain();
        }
    }

    /// Number in the clip of each picture seen, all of which must be the clip's, bit for bit.
    fn seen(&self) -> Vec<usize> {
        let number = |picture: &receiver::Picture| {
            let slices: Vec<Vec<u8>> =
                picture.nals.iter().filter(|nal| matches!(nal[0] & 0x1f, 1..=5)).cloned().collect();
            *self.known.get(&slices).expect("a picture of the clip, bit for bit")
        };
        self.viewer.pictures.iter().map(number).collect()
    }
}

const CALM: Weather = Weather { lost_per_1000: 0, doubled_per_1000: 0, jitter_us: 0 };

#[test]
fn a_calm_network_brings_everything() {
    let mut world = World::new(CALM, false, Begin::FromPrebuffer);
    world.run(Duration::from_secs(20));
    let seen = world.seen();
    assert_eq!(seen[..4], [30, 31, 32, 33], "from the newest key frame on");
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert!(seen.len() >= 314, "{}", seen.len());
    assert!(world.viewer.pictures.iter().all(|picture| picture.decodable));
    // From the end of the time-lapse on RTP time is the time of the capture.
    let first = world.viewer.pictures[0].arrived;
    let captured = world.captured.iter().filter(|(_, number)| *number >= 30);
    for (picture, (pts_90k, number)) in world.viewer.pictures.iter().zip(captured) {
        assert_eq!(
            world.known[&picture.nals.iter().filter(|n| n[0] & 0x1f <= 5).cloned().collect::<Vec<_>>()],
            *number
        );
        if *pts_90k >= (first + Duration::from_millis(300)).as_90k() {
            assert_eq!(picture.timestamp, world.offset.wrapping_add(*pts_90k as u32));
        }
    }
    // 15 pictures were behind.
    let caught_up = world.viewer.pictures.iter().filter(|p| p.arrived <= first + Duration::from_millis(300)).count();
    assert!(caught_up >= 15, "{caught_up}");
    assert!(world.viewer.plis.is_empty() && world.asked.is_empty());
    assert_eq!(world.viewer.voice.len(), 1000);
    assert!(world.viewer.voice.windows(2).all(|pair| pair[1].0.wrapping_sub(pair[0].0) == 320));
    let figures = world.session.figures();
    assert_eq!((figures.video.lost, figures.video.fraction_lost, figures.audio.lost), (0, 0, 0));
    assert!(figures.video.round_trip_us.unwrap().abs_diff(20_000) < 100, "{figures:?}");
    assert_eq!(
        figures.video.receiver_reports as usize + figures.audio.receiver_reports as usize,
        world.viewer.blocks_sent
    );
    assert_eq!(figures.lagged, 0);
    world.session.end(Cause::Controller);
    world.drain();
    world.run(Duration::from_millis(100));
    assert_eq!(world.viewer.byes, [1, 1]);
}

#[test]
fn loss_order_and_doubles() {
    let weather = Weather { lost_per_1000: 10, doubled_per_1000: 20, jitter_us: 25_000 };
    for makes_keys in [true, false] {
        let mut world = World::new(weather, makes_keys, Begin::FromPrebuffer);
        world.run(Duration::from_secs(120));
        // What came out whole is right, and in order.
        let seen = world.seen();
        assert!(seen.len() > 1300, "{}", seen.len());
        assert!(world.lost[0] > 30 && world.viewer.holes > 30, "the weather was bad");
        assert!(
            world.viewer.refused as u64 >= world.doubled.saturating_sub(5) && world.doubled > 50,
            "doubles are refused"
        );
        // Pictures that can be decoded come in runs; each begins with a key frame and has no hole.
        let pictures = world.viewer.pictures.iter().zip(&seen);
        let mut before: Option<usize> = None;
        let (mut decodable, mut runs) = (0, 0);
        for (picture, &number) in pictures {
            if !picture.decodable {
                before = None;
                continue;
            }
            decodable += 1;
            match before {
                _ if number % GOP == 0 => runs += usize::from(before.is_none()),
                Some(before) => assert_eq!(number, before + 1),
                None => panic!("a run that begins with picture {number}"),
            }
            before = Some(number);
        }
        assert!(runs > 10, "{runs}");
        // A request that arrives is passed on, at most every 400 ms, and gets its key frame soon.
        assert!(world.viewer.plis.len() > 20, "{}", world.viewer.plis.len());
        assert!(world.asked.len() as u64 >= world.viewer.plis.len() as u64 * 9 / 10);
        assert!(world.asked.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(400)));
        for asked in world.asked.iter().filter(|_| makes_keys) {
            let key = world.captured.iter().find(|(pts_90k, _)| *pts_90k >= asked.as_90k());
            assert!(key.is_none_or(|(_, number)| number % GOP == 0));
        }
        if makes_keys {
            assert!(decodable * 10 > seen.len() * 8, "{decodable} of {}", seen.len());
        }
        // The statistics agree: the last report tells all but what was lost since.
        let figures = world.session.figures();
        let (lost, told) = (world.viewer.lost(Medium::Video), u64::from(figures.video.lost));
        assert!(told <= lost + 12 && told + 12 >= lost, "{told} {lost}");
        assert!(lost.abs_diff(world.lost[0]) <= 12, "{lost} {:?}", world.lost);
        assert!((20_000..75_000).contains(&figures.video.round_trip_us.unwrap()), "{figures:?}");
        assert!((90..2500).contains(&figures.video.jitter), "{figures:?}");
        assert!(figures.video.refused > 0, "doubles of what the viewer sent");
        assert!(!world.session.is_ended());
    }
}

#[test]
fn a_fresh_key_frame_is_what_a_camera_gives_that_can() {
    let mut world = World::new(CALM, true, Begin::FreshKey);
    world.run(Duration::from_secs(3));
    let seen = world.seen();
    assert_eq!(seen[0], 60, "asked for at 45, and nothing of before was sent");
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn nobody_listens() {
    let mut world = World::new(Weather { lost_per_1000: 1000, ..CALM }, false, Begin::FromPrebuffer);
    world.run(Duration::from_secs(31));
    assert_eq!(world.reports.last(), Some(&Report::Ended(Cause::Silence)));
}
