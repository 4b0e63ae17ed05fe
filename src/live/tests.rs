//! Live views in virtual time, against a controller that has only what it sent and what came out.

use super::srtp::{MasterKey, Opener, Sealer};
use super::*;
use crate::crypto::fixed::FixedRandom;
use crate::media::{AccessUnit, Budget, Prebuffer, Retention};
use crate::time::{Duration, Instant};
use crate::wire::h264::{AnnexB, unhex};
use crate::wire::rtp::{self, Packet};
use crate::wire::{Writer, rtcp};

const SPS: &str = "674d4028d9020bf97011000003000100000300140f183248";
const OTHER_SPS: &str = "6742c01fd9005005bb011000000300100000030320f1832480";
const PPS: &str = "68ebc0e4b2";
const FRAME: Duration = Duration::from_micros(33_333);
const CONTROLLER_SSRC: u32 = 0x0bad_f00d;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A datagram, decrypted.
#[derive(Clone)]
struct Sent {
    at: Instant,
    medium: Medium,
    to: SocketAddr,
    /// As it was sent.
    len: usize,
    plain: Vec<u8>,
}

impl Sent {
    fn is_rtcp(&self) -> bool {
        rtp::is_rtcp(&self.plain)
    }

    fn rtp(&self) -> Packet<'_> {
        Packet::parse(&self.plain).expect("what we send can be read")
    }
}

/// A picture as a receiver sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    at: Instant,
    timestamp: u32,
    nals: Vec<Vec<u8>>,
}

struct Rig {
    now: Instant,
    prebuffer: Prebuffer,
    session: Session,
    openers: [Opener; 2],
    sealers: [Sealer; 2],
    remote: [SocketAddr; 2],
    ssrc: u32,
    offset: u32,
    frame: u64,
    gop: u64,
    idr_bytes: usize,
    sps: &'static str,
    pushed: Vec<(Pts, Vec<u8>)>,
    sent: Vec<Sent>,
    reports: Vec<(Instant, Report)>,
}

type Pts = u64;

impl Rig {
    fn new() -> Rig {
        Rig::with(&|setup| setup, 8_000_000)
    }

    fn with(change: &dyn Fn(Setup) -> Setup, video_bytes: usize) -> Rig {
        let now = Instant::from_micros(77_000_000);
        let mut prebuffer = Prebuffer::new(Budget { video_bytes, audio_bytes: 0, access_unit_bytes: 500_000 });
        prebuffer.set_retention(Retention::Everything);
        let theirs = [MasterKey::new(&[1; 16], &[2; 14]), MasterKey::new(&[3; 16], &[4; 14])];
        let sealers = [Sealer::new(&theirs[0]), Sealer::new(&theirs[1])];
        let [video, audio] = theirs;
        let remote = [SocketAddr::from(([192, 0, 2, 7], 50_000)), SocketAddr::from(([192, 0, 2, 7], 50_002))];
        let setup = change(Setup::draw(&mut FixedRandom::default(), [5; 16], remote, video, audio));
        let openers = [Opener::new(&setup.video.ours), Opener::new(&setup.audio.ours)];
        Rig {
            now,
            prebuffer,
            openers,
            sealers,
            remote: setup.remote,
            ssrc: setup.video_ssrc,
            offset: setup.timestamps[0],
            session: Session::new(setup, 50, now),
            frame: 0,
            gop: 120,
            idr_bytes: 60_000,
            sps: SPS,
            pushed: Vec::new(),
            sent: Vec::new(),
            reports: Vec::new(),
        }
    }

    fn choice() -> VideoChoice {
        VideoChoice {
            payload_type: 99,
            ssrc: CONTROLLER_SSRC,
            bitrate_kbps: 299,
            rtcp_interval_ms: 500,
            mtu: Some(1378),
            width: 1280,
            height: 720,
            fps: 30,
        }
    }

    fn start(&mut self, begin: Begin) {
        let audio = AudioChoice {
            payload_type: 110,
            ssrc: CONTROLLER_SSRC + 1,
            rate_hz: 16_000,
            packet_ms: 20,
            rtcp_interval_ms: 0,
            bitrate_kbps: 24,
        };
        self.session.start(Self::choice(), audio, begin, self.now);
        self.drain();
    }

    fn wall(&self) -> NtpNow {
        NtpNow::from_unix(
            1_780_000_000 + self.now.as_micros() / 1_000_000,
            (self.now.as_micros() % 1_000_000) as u32 * 1000,
        )
    }

    fn drain(&mut self) {
        let mut out = [0; DATAGRAM_BYTES];
        loop {
            let wall = self.wall();
            let Some(sent) = self.session.poll_transmit(self.now, wall, &self.prebuffer, &mut out) else { break };
            let bytes = &mut out[..sent.len];
            let opener = &mut self.openers[sent.medium as usize];
            let plain = if rtp::is_rtcp(bytes) { opener.open_rtcp(bytes) } else { opener.open_rtp(bytes) };
            let plain = plain.expect("it is encrypted with the key of the answer").to_vec();
            self.sent.push(Sent { at: self.now, medium: sent.medium, to: sent.to, len: sent.len, plain });
        }
        while let Some(report) = self.session.poll_report() {
            self.reports.push((self.now, report));
        }
    }

    /// Lets time pass, without pictures.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.drain();
            match self.session.poll_timeout() {
                Some(due) if due <= until => {
                    assert!(due > self.now, "what is due was done");
                    self.now = due;
                    self.session.handle_timeout(due);
                }
                _ => break,
            }
        }
        self.now = until;
        self.drain();
    }

    /// A picture comes in now; then time passes until the next.
    fn picture(&mut self) {
        self.put_picture(self.frame.is_multiple_of(self.gop));
    }

    fn put_picture(&mut self, key: bool) {
        self.push_picture(key);
        self.pass(FRAME);
    }

    fn push_picture(&mut self, key: bool) {
        // Nothing that looks like a start code.
        let tag = [self.pushed.len() / 100 + 9, self.pushed.len() % 100 + 9].map(|n| n as u8);
        let nal = if key {
            [&[0x65, 0x88][..], &tag, &vec![0x77; self.idr_bytes]].concat()
        } else {
            [&[0x41, 0x9a][..], &tag, &[0x55; 3000]].concat()
        };
        let mut annexb = Vec::new();
        if key {
            for set in [self.sps, PPS] {
                annexb.extend([&b"\0\0\0\x01"[..], &unhex(set)].concat());
            }
        }
        annexb.extend([&b"\0\0\0\x01"[..], &nal].concat());
        let pts_90k = self.now.as_90k();
        self.prebuffer.push_video(AccessUnit { annexb: AnnexB::new(&annexb), pts_90k, key });
        self.pushed.push((pts_90k, nal));
        self.frame += 1;
    }

    fn pictures(&mut self, count: u64) {
        for _ in 0..count {
            self.picture();
        }
    }

    /// A compound packet of the controller.
    fn rtcp(&mut self, medium: Medium, packet: &[u8]) {
        let mut bytes = packet.to_vec();
        bytes.resize(packet.len() + super::srtp::RTCP_TRAILER_BYTES, 0);
        self.sealers[medium as usize].seal_rtcp(&mut bytes, packet.len()).unwrap();
        self.session.handle_datagram(medium, self.remote[medium as usize], &mut bytes, self.now);
        self.drain();
    }

    fn empty_report(&mut self) {
        let mut room = [0; 64];
        let mut w = Writer::new(&mut room);
        rtcp::put_empty_receiver_report(&mut w, CONTROLLER_SSRC);
        let packet = w.written().to_vec();
        self.rtcp(Medium::Video, &packet);
    }

    fn pli(&mut self) {
        let packet = [&[0x81, 206, 0, 2][..], &CONTROLLER_SSRC.to_be_bytes(), &self.ssrc.to_be_bytes()].concat();
        self.rtcp(Medium::Video, &packet);
    }

    fn fir(&mut self, sequence: u8) {
        let entry = [&self.ssrc.to_be_bytes()[..], &[sequence, 0, 0, 0]].concat();
        let packet = [&[0x84, 206, 0, 4][..], &CONTROLLER_SSRC.to_be_bytes(), &[0; 4], &entry].concat();
        self.rtcp(Medium::Video, &packet);
    }

    fn video(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| sent.medium == Medium::Video && !sent.is_rtcp())
    }

    fn sender_reports(&self, medium: Medium) -> Vec<(Instant, u64, u32)> {
        let reports = self.sent.iter().filter(|sent| sent.medium == medium && sent.is_rtcp());
        reports
            .map(|sent| match rtcp::Items::new(&sent.plain).next() {
                Some(Ok(rtcp::Item::SenderReport { ntp, rtp_timestamp, .. })) => (sent.at, ntp, rtp_timestamp),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn count(&self, report: Report) -> usize {
        self.reports.iter().filter(|(_, r)| *r == report).count()
    }

    /// All pictures that came out whole, put together by the rules of RFC 6184 alone.
    fn seen(&self) -> Vec<Seen> {
        let mut pictures = Vec::new();
        let (mut nals, mut fragments): (Vec<Vec<u8>>, Vec<u8>) = Default::default();
        let mut begun: Option<u32> = None;
        let mut expected = None;
        for sent in self.video() {
            let Packet { header, payload } = sent.rtp();
            assert_eq!((header.payload_type, header.ssrc), (99, self.ssrc));
            assert_eq!(expected.unwrap_or(header.sequence), header.sequence, "the sequence has no hole");
            expected = Some(header.sequence.wrapping_add(1));
            if begun.is_some_and(|timestamp| timestamp != header.timestamp) {
                nals.clear();
                fragments.clear();
            }
            begun = Some(header.timestamp);
            match payload[0] & 0x1f {
                1..=23 => nals.push(payload.to_vec()),
                24 => {
                    let mut rest = &payload[1..];
                    while !rest.is_empty() {
                        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                        nals.push(rest[2..2 + len].to_vec());
                        rest = &rest[2 + len..];
                    }
                }
                28 => {
                    if payload[1] & 0x80 != 0 {
                        fragments = vec![payload[0] & 0xe0 | payload[1] & 0x1f];
                    }
                    fragments.extend(&payload[2..]);
                    if payload[1] & 0x40 != 0 {
                        nals.push(core::mem::take(&mut fragments));
                    }
                }
                other => panic!("packet type {other}"),
            }
            if header.marker {
                pictures.push(Seen { at: sent.at, timestamp: header.timestamp, nals: core::mem::take(&mut nals) });
                begun = None;
            }
        }
        pictures
    }
}

/// The pictures from number `first` on are all there, and nothing else; parameter sets in front of each key.
fn assert_whole(seen: &[Seen], pushed: &[(Pts, Vec<u8>)], sps: &str) {
    assert_eq!(seen.len(), pushed.len());
    for (seen, (_, nal)) in seen.iter().zip(pushed) {
        let (last, sets) = seen.nals.split_last().unwrap();
        assert!(last == nal);
        let expected = if nal[0] == 0x65 { vec![unhex(sps), unhex(PPS)] } else { vec![] };
        assert_eq!(sets, expected);
    }
    for pair in seen.windows(2) {
        assert!((pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32) > 0, "RTP time never goes back");
    }
}

#[test]
fn every_picture_since_the_key_frame_leaves_within_300_ms() {
    for before in [1, 7, 60, 119, 120, 121, 200] {
        let mut rig = Rig::new();
        rig.pictures(before);
        let (start, key) = (rig.now, (before - 1) / 120 * 120);
        rig.start(Begin::FromPrebuffer);
        let first = rig.sent.first().expect("a packet at once").clone();
        assert_eq!(first.rtp().payload[0], 0x78, "parameter sets first");
        assert!(rig.sent[1].is_rtcp(), "and a sender report");
        rig.pass(ms(300));
        let caught_up = rig.seen();
        assert_eq!(caught_up.len() as u64, before - key, "all of them, {before} held");
        // Not all in one burst.
        if before - key > 10 {
            assert!(caught_up.last().unwrap().at > start + ms(15));
        }
        rig.pictures(60);
        let seen = rig.seen();
        assert_whole(&seen, &rig.pushed[key as usize..], SPS);
        assert_eq!(rig.reports.iter().filter(|(_, r)| matches!(r, Report::FirstPicture { .. })).count(), 1);
        assert_eq!(rig.count(Report::KeyFrameWanted), 0);
        // The time-lapse begins now and ends 300 ms later at the latest; then time is itself.
        let line = |pts: Pts| rig.offset.wrapping_add(pts as u32);
        for (seen, (pts, _)) in seen.iter().zip(&rig.pushed[key as usize..]) {
            let ahead = seen.timestamp.wrapping_sub(line(*pts));
            let real_time = *pts >= (start + ms(300)).as_90k();
            assert!(if real_time { ahead == 0 } else { ahead <= (before as u32 + 9) * 3000 }, "{ahead}");
            // And what is sent is not later than its RTP time says, give or take the lapse.
            let due = seen.timestamp.wrapping_sub(line(start.as_90k()));
            let sent = (seen.at.as_90k() - start.as_90k()) as u32;
            assert!(sent.abs_diff(due) <= 27_000, "{sent} {due}");
        }
        assert!(rig.video().all(|sent| sent.len + 20 + 8 <= 1378));
    }
}

#[test]
fn two_pictures_a_second_are_no_trouble() {
    let mut rig = Rig::new();
    rig.gop = 8;
    for _ in 0..7 {
        rig.picture();
        rig.pass(ms(467));
    }
    rig.start(Begin::FromPrebuffer);
    rig.pass(ms(300));
    assert_eq!(rig.seen().len(), 7);
    for _ in 0..20 {
        rig.picture();
        rig.pass(ms(467));
    }
    assert_whole(&rig.seen(), &rig.pushed, SPS);
}

#[test]
fn a_fresh_key_frame_is_awaited_for_a_second() {
    let mut rig = Rig::new();
    rig.pictures(60);
    rig.start(Begin::FreshKey);
    assert_eq!(rig.count(Report::KeyFrameWanted), 1);
    rig.pictures(5);
    assert!(rig.sent.is_empty());
    rig.put_picture(true);
    rig.pictures(20);
    assert_whole(&rig.seen(), &rig.pushed[65..], SPS);
    let line = rig.offset.wrapping_add(rig.pushed[65].0 as u32);
    assert!(rig.seen()[0].timestamp.wrapping_sub(line) < 90, "nothing to catch up with");

    // A camera that cannot.
    let mut rig = Rig::new();
    rig.pictures(60);
    let start = rig.now;
    rig.start(Begin::FreshKey);
    rig.pictures(29);
    assert!(rig.sent.is_empty());
    rig.pictures(20);
    assert_eq!(rig.sent[0].at, start + ms(1000));
    assert_whole(&rig.seen(), &rig.pushed, SPS);
    assert_eq!(rig.count(Report::KeyFrameWanted), 1);
}

#[test]
fn an_empty_prebuffer_begins_with_the_first_key_frame() {
    let mut rig = Rig::new();
    rig.start(Begin::FromPrebuffer);
    rig.pass(ms(3000));
    assert_eq!((rig.sent.len(), rig.count(Report::KeyFrameWanted)), (0, 1));
    rig.pictures(30);
    assert_whole(&rig.seen(), &rig.pushed, SPS);
}

#[test]
fn a_key_frame_is_spread_over_half_of_its_time() {
    let mut rig = Rig::new();
    rig.start(Begin::FromPrebuffer);
    rig.idr_bytes = 100_000;
    rig.gop = 30;
    rig.pictures(61);
    let seen = rig.seen();
    let begun = rig.video().filter(|sent| sent.rtp().header.timestamp == seen[60].timestamp);
    let at: Vec<u64> = begun.map(|sent| (sent.at - seen[60].at).as_micros() as u64 + sent.at.as_micros()).collect();
    assert!(at.len() > 70);
    let (first, last) = (at[0], *at.last().unwrap());
    assert!((10_000..=16_700).contains(&(last - first)), "{}", last - first);
    let burst = |at_once: &u64| at.iter().filter(|at| *at == at_once).count();
    assert!(at.iter().map(burst).max().unwrap() <= 14);
}

#[test]
fn whoever_does_not_start_and_whoever_falls_silent_is_ended() {
    let mut rig = Rig::new();
    let begin = rig.now;
    rig.pass(ms(29_999));
    assert_eq!(rig.reports, []);
    rig.pass(ms(100));
    assert_eq!(rig.reports, [(begin + ms(30_000), Report::Ended(Cause::NotStarted))]);
    assert!(rig.sent.is_empty());
    assert_eq!(rig.session.poll_timeout(), None);

    let mut rig = Rig::new();
    rig.pictures(10);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(600);
    rig.empty_report();
    let heard = rig.now;
    rig.pictures(890);
    assert!(!rig.session.is_ended());
    rig.pictures(30);
    assert_eq!(rig.reports.last(), Some(&(heard + ms(30_000), Report::Ended(Cause::Silence))));
    let bye = rig.sent.last().unwrap();
    let items: Vec<_> = rtcp::Items::new(&bye.plain).map(Result::unwrap).collect();
    assert!(items.contains(&rtcp::Item::Bye { ssrc: rig.ssrc }), "{items:?}");
    assert_eq!(bye.at, heard + ms(30_000));
    let sent = rig.sent.len();
    rig.pictures(30);
    rig.session.end(Cause::Controller);
    rig.drain();
    assert_eq!(rig.sent.len(), sent, "nothing after the good-bye");
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn key_frames_are_asked_for_at_most_every_400_ms() {
    let mut rig = Rig::new();
    rig.start(Begin::FromPrebuffer);
    rig.pictures(60);
    let before = rig.count(Report::KeyFrameWanted);
    rig.pli();
    rig.pli();
    rig.pass(ms(399));
    rig.pli();
    assert_eq!(rig.count(Report::KeyFrameWanted), before + 1);
    rig.pass(ms(1));
    rig.pli();
    assert_eq!(rig.count(Report::KeyFrameWanted), before + 2);
    // A request that is repeated is one; another one is another.
    rig.pass(ms(500));
    rig.fir(7);
    rig.pass(ms(500));
    rig.fir(7);
    assert_eq!(rig.count(Report::KeyFrameWanted), before + 3);
    rig.fir(8);
    assert_eq!(rig.count(Report::KeyFrameWanted), before + 4);
    assert_eq!(rig.session.figures().keys_wanted, 6);
}

#[test]
fn what_the_controller_reports_is_told() {
    let mut rig = Rig::new();
    rig.pictures(10);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(30);
    let (_, ntp, _) = *rig.sender_reports(Medium::Video).last().unwrap();
    let sent_at = rig.sender_reports(Medium::Video).last().unwrap().0;
    // 250 ms later, of which it had the report for 200.
    rig.now = sent_at + ms(250);
    let block = [
        &rig.ssrc.to_be_bytes()[..],
        &[64, 0, 0, 9],
        &77u32.to_be_bytes(),
        &900u32.to_be_bytes(),
        &((ntp >> 16) as u32).to_be_bytes(),
        &(65536u32 / 5).to_be_bytes(),
    ]
    .concat();
    let report = [&[0x81, 201, 0, 7][..], &CONTROLLER_SSRC.to_be_bytes(), &block].concat();
    let nack =
        [&[0x81, 205, 0, 3][..], &CONTROLLER_SSRC.to_be_bytes(), &rig.ssrc.to_be_bytes(), &[0, 9, 0, 5]].concat();
    // 500 kbit/s: mantissa 125, exponent 12 → 512,000.
    let limit = (12u32 << 26 | 125 << 9 | 40).to_be_bytes();
    let tmmbr =
        [&[0x83, 205, 0, 4][..], &CONTROLLER_SSRC.to_be_bytes(), &[0; 4], &rig.ssrc.to_be_bytes(), &limit].concat();
    rig.rtcp(Medium::Video, &[report, nack, tmmbr.clone()].concat());
    let figures = rig.session.figures().video;
    assert_eq!((figures.fraction_lost, figures.lost, figures.jitter, figures.missed), (64, 9, 900, 3));
    assert!(figures.round_trip_us.unwrap().abs_diff(50_000) < 50);
    assert_eq!(figures.receiver_reports, 1);
    assert_eq!(rig.count(Report::BitrateHint { kbps: 512 }), 1);
    rig.rtcp(Medium::Video, &tmmbr);
    assert_eq!(rig.count(Report::BitrateHint { kbps: 512 }), 1, "that was known");
}

#[test]
fn reports_say_what_time_it_was() {
    let mut rig = Rig::new();
    rig.pictures(10);
    rig.start(Begin::FromPrebuffer);
    let start = rig.now;
    for i in 0..500u64 {
        rig.session.push_audio(&[0x48, i as u8], 320, rig.now.as_90k());
        rig.drain();
        rig.pass(ms(20));
        if i % 100 == 0 {
            rig.empty_report();
        }
    }
    for (medium, rate, interval, count) in [(Medium::Video, 90_000, 500, 20), (Medium::Audio, 16_000, 5000, 2)] {
        let reports = rig.sender_reports(medium);
        assert!((count..=count + 1).contains(&reports.len()), "{medium:?} {}", reports.len());
        assert_eq!(reports[0].0, start);
        for pair in reports.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, ms(interval));
            let seconds = (pair[1].1 - pair[0].1) as f64 / f64::powi(2.0, 32);
            let ticks = f64::from(pair[1].2.wrapping_sub(pair[0].2));
            assert!((ticks / seconds - f64::from(rate)).abs() < 50.0, "{ticks} in {seconds} s");
        }
    }
    // Lips and voice: what was captured at one moment has the same wall clock in both streams.
    let voice: Vec<u32> = rig
        .sent
        .iter()
        .filter(|sent| sent.medium == Medium::Audio && !sent.is_rtcp())
        .map(|sent| sent.rtp().header.timestamp)
        .collect();
    assert_eq!(voice.len(), 500);
    assert!(voice.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == 320));
    let (at, _, ticks) = rig.sender_reports(Medium::Audio)[1];
    let captured = voice[((at - start).as_micros() / 20_000) as usize];
    assert!((ticks.wrapping_sub(captured) as i32).abs() <= 1);
}

#[test]
fn suspending_and_reconfiguring_keep_the_lines() {
    let mut rig = Rig::new();
    rig.gop = 30;
    rig.pictures(40);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(20);
    rig.session.suspend();
    let sent = rig.video().count();
    rig.pictures(45);
    rig.session.push_audio(&[1], 320, rig.now.as_90k());
    rig.drain();
    assert_eq!(rig.video().count(), sent);
    assert!(rig.sent.last().unwrap().is_rtcp(), "reports go on");
    rig.session.resume(rig.now);
    rig.pictures(40);
    let wanted = rig.count(Report::KeyFrameWanted);
    // What was settled at the start need not be said again.
    let narrow = VideoChoice {
        payload_type: 0,
        ssrc: 0,
        bitrate_kbps: 132,
        rtcp_interval_ms: 0,
        mtu: None,
        width: 640,
        height: 360,
        ..Rig::choice()
    };
    rig.session.reconfigure(narrow, rig.now);
    rig.pictures(1);
    assert_eq!(rig.count(Report::KeyFrameWanted), wanted + 1);
    let before = rig.video().count();
    rig.pictures(40);
    assert!(rig.video().skip(before).all(|sent| sent.rtp().payload.len() <= 1200));
    assert!(rig.video().all(|sent| sent.rtp().header.payload_type == Rig::choice().payload_type));
    // One line of sequence numbers (checked in `seen`) and of time, in which only the pause is missing.
    let seen = rig.seen();
    assert_whole(&seen, &[&rig.pushed[30..60], &rig.pushed[90..]].concat(), SPS);
    let last = rig.offset.wrapping_add(rig.pushed.last().unwrap().0 as u32);
    assert_eq!(seen.last().unwrap().timestamp, last);
    let interval = rig.sender_reports(Medium::Video);
    let last_two = &interval[interval.len() - 2..];
    assert_eq!(last_two[1].0 - last_two[0].0, ms(500), "0 leaves it as it was");
}

#[test]
fn suspended_within_a_picture() {
    let within = || {
        let mut rig = Rig::new();
        rig.pictures(1);
        rig.start(Begin::FromPrebuffer);
        rig.pictures(20);
        rig.push_picture(true);
        rig.pass(ms(5));
        assert!(rig.video().last().is_some_and(|sent| !sent.rtp().header.marker), "it has begun to leave");
        rig.session.suspend();
        rig
    };
    let mut rig = within();
    rig.pictures(10);
    assert_whole(&rig.seen(), &rig.pushed[..22], SPS);
    let sent = rig.video().count();
    // What is suspended between pictures sends nothing more; and it goes on.
    rig.session.resume(rig.now);
    rig.frame = 0;
    rig.pictures(10);
    rig.session.suspend();
    let again = rig.video().count();
    rig.pictures(10);
    assert!(again > sent && rig.video().count() == again);

    // What has gone cannot be finished.
    let mut rig = within();
    let sent = rig.video().count();
    let reports = rig.reports.len();
    rig.prebuffer.clear();
    rig.pictures(10);
    assert_eq!((rig.video().count(), rig.reports.len()), (sent, reports));
    // The same number in another prebuffer is another picture.
    let mut rig = within();
    let sent = rig.video().count();
    let mut other = Rig::new();
    other.pictures(40);
    core::mem::swap(&mut other.prebuffer, &mut rig.prebuffer);
    rig.session.switch_source(Begin::FreshKey);
    rig.pass(FRAME);
    assert_eq!(rig.video().count(), sent);
}

#[test]
fn another_source_continues_the_stream() {
    let mut rig = Rig::new();
    rig.pictures(40);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(40);
    // Its numbers begin anew.
    let mut other = Rig::new();
    core::mem::swap(&mut other.prebuffer, &mut rig.prebuffer);
    rig.sps = OTHER_SPS;
    rig.frame = 0;
    rig.session.switch_source(Begin::FreshKey);
    let from = rig.pushed.len();
    rig.pictures(40);
    let seen = rig.seen();
    assert_whole(&seen[from..], &rig.pushed[from..], OTHER_SPS);
    assert!((seen[from].timestamp.wrapping_sub(seen[from - 1].timestamp) as i32) > 0);
}

#[test]
fn new_parameters_in_mid_view_come_with_their_key_frame() {
    let mut rig = Rig::new();
    rig.start(Begin::FromPrebuffer);
    rig.pictures(30);
    rig.sps = OTHER_SPS;
    rig.frame = 0;
    rig.pictures(30);
    // The source restarts: what comes before a key frame is kept by nobody.
    rig.prebuffer.restart();
    rig.pictures(10);
    let lost = rig.pushed.len();
    rig.frame = 0;
    rig.pictures(30);
    let seen = rig.seen();
    assert_whole(&seen[..30], &rig.pushed[..30], SPS);
    assert_whole(&seen[30..60], &rig.pushed[30..60], OTHER_SPS);
    assert_whole(&seen[60..], &rig.pushed[lost..], OTHER_SPS);
    assert_eq!(rig.count(Report::Lagged), 0);
}

#[test]
fn a_key_frame_whose_parameters_are_gone_is_not_sent() {
    let mut rig = Rig::new();
    rig.pictures(30);
    // The key frame that is held belongs to what was before.
    rig.prebuffer.restart();
    rig.start(Begin::FromPrebuffer);
    rig.pass(ms(500));
    assert!(rig.sent.is_empty());
    rig.frame = 0;
    rig.pictures(10);
    assert_whole(&rig.seen(), &rig.pushed[30..], SPS);
}

#[test]
fn whoever_is_overrun_goes_on_at_the_newest_key_frame() {
    let mut rig = Rig::with(&|setup| setup, 200_000);
    rig.gop = 15;
    rig.pictures(20);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(40);
    let before = rig.pushed.len();
    // Nobody asks for three seconds; the ring holds less than that.
    let parked = core::mem::replace(&mut rig.session, Rig::new().session);
    rig.pictures(93);
    rig.session = parked;
    rig.sent.retain(|sent| sent.medium == Medium::Video);
    rig.pictures(20);
    assert_eq!((rig.count(Report::Lagged), rig.session.figures().lagged), (1, 1));
    let seen = rig.seen();
    let key = (before..=before + 93).rev().find(|&i| rig.pushed[i].1[0] == 0x65).unwrap();
    assert_whole(&seen, &[&rig.pushed[15..before], &rig.pushed[key..]].concat(), SPS);
}

#[test]
fn a_key_frame_in_the_middle_of_catching_up_is_the_better_beginning() {
    let mut rig = Rig::new();
    rig.prebuffer.set_retention(Retention::CurrentGop);
    rig.pictures(116);
    rig.start(Begin::FromPrebuffer);
    // The key frame comes 133 ms after the start: nothing in front of it is held any more.
    rig.pictures(60);
    let seen = rig.seen();
    let skipped = rig.pushed.len() - seen.len();
    assert!((30..100).contains(&skipped), "{skipped} were still to be sent");
    assert_whole(&seen, &[&rig.pushed[..120 - skipped], &rig.pushed[120..]].concat(), SPS);
    let last = rig.offset.wrapping_add(rig.pushed.last().unwrap().0 as u32);
    assert_eq!(seen.last().unwrap().timestamp, last);
    assert_eq!(rig.count(Report::Lagged), 0);
    // Two pictures at once, the second a key frame: the first is gone, and not missed.
    rig.frame = 239;
    let (at, gap) = (rig.pushed.len(), rig.session.figures().lagged);
    let parked = core::mem::replace(&mut rig.session, Rig::new().session);
    rig.sent.clear();
    rig.pictures(1);
    rig.session = parked;
    rig.pictures(10);
    assert_whole(&rig.seen(), &rig.pushed[at + 1..], SPS);
    assert_eq!((rig.count(Report::Lagged), rig.session.figures().lagged), (0, gap));
}

#[test]
fn only_the_controller_is_heard_and_only_once() {
    let mut rig = Rig::new();
    rig.pictures(3);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(3);
    let from = rig.remote[0];
    let elsewhere = SocketAddr::from(([198, 51, 100, 1], 9));
    let wanted = rig.count(Report::KeyFrameWanted);
    let pli = [&[0x81, 206, 0, 2][..], &CONTROLLER_SSRC.to_be_bytes(), &rig.ssrc.to_be_bytes()].concat();
    let seal = |sealer: &mut Sealer| {
        let mut bytes = pli.clone();
        bytes.resize(pli.len() + 14, 0);
        sealer.seal_rtcp(&mut bytes, pli.len()).unwrap();
        bytes
    };
    // Wrong keys, plain text, and noise of every length and kind.
    let mut wrong = seal(&mut Sealer::new(&MasterKey::new(&[9; 16], &[9; 14])));
    rig.session.handle_datagram(Medium::Video, elsewhere, &mut wrong, rig.now);
    rig.session.handle_datagram(Medium::Video, from, &mut pli.clone(), rig.now);
    let mut noise = crate::crypto::fixed::FixedRandom::default();
    let mut refused = 2;
    for length in 0..200 {
        for second in [None, Some(200), Some(206), Some(99)] {
            let mut bytes = vec![0; length];
            crate::crypto::Random::fill(&mut noise, &mut bytes);
            if let (Some(second), [first, place, ..]) = (second, &mut bytes[..]) {
                (*first, *place) = (0x80 | *first & 0x3f, second);
            }
            rig.session.handle_datagram(Medium::Video, elsewhere, &mut bytes, rig.now);
            refused += 1;
        }
    }
    assert_eq!(rig.session.figures().video.refused, refused);
    rig.drain();
    assert_eq!(rig.count(Report::KeyFrameWanted), wanted);
    let silent_since = rig.session.poll_timeout();
    assert!(silent_since.is_some());
    // Its own: counted once, and answered at the port it came from.
    let good = seal(&mut rig.sealers[0]);
    let moved = SocketAddr::new(from.ip(), 61_000);
    rig.session.handle_datagram(Medium::Video, moved, &mut good.clone(), rig.now);
    rig.pass(ms(450));
    for _ in 0..3 {
        rig.session.handle_datagram(Medium::Video, elsewhere, &mut good.clone(), rig.now);
    }
    rig.drain();
    assert_eq!(rig.count(Report::KeyFrameWanted), wanted + 1);
    rig.pictures(1);
    assert_eq!(rig.sent.last().unwrap().to, moved);
    // From another address it is heard, but nothing goes there.
    let mut good = seal(&mut rig.sealers[0]);
    rig.session.handle_datagram(Medium::Video, elsewhere, &mut good, rig.now);
    rig.pictures(1);
    assert_eq!(rig.count(Report::KeyFrameWanted), wanted + 2);
    assert_eq!(rig.sent.last().unwrap().to, moved);
}

#[test]
fn talk_back_comes_out_in_the_clear() {
    let mut rig = Rig::new();
    rig.start(Begin::FromPrebuffer);
    let send = |rig: &mut Rig, medium: Medium, payload_type: u8, sequence: u16, payload: &[u8]| {
        let mut bytes = vec![0; 12 + payload.len() + 10];
        let header =
            rtp::Header { marker: false, payload_type, sequence, timestamp: 320 * u32::from(sequence), ssrc: 77 };
        let mut w = Writer::new(&mut bytes);
        header.put(&mut w);
        w.bytes(payload);
        rig.sealers[medium as usize].seal_rtp(&mut bytes, 12 + payload.len()).unwrap();
        rig.session.handle_datagram(medium, rig.remote[medium as usize], &mut bytes, rig.now);
    };
    send(&mut rig, Medium::Audio, 110, 5, b"hello");
    send(&mut rig, Medium::Audio, 13, 6, b"comfort noise");
    send(&mut rig, Medium::Audio, 110, 7, b"");
    send(&mut rig, Medium::Video, 110, 8, b"no pictures from there");
    send(&mut rig, Medium::Audio, 110, 9, &[7; 641]);
    assert_eq!(rig.session.poll_talk(), Some(Talk { sequence: 5, timestamp: 1600, payload: b"hello" }));
    assert_eq!(rig.session.poll_talk(), None);
    for sequence in 10..16 {
        send(&mut rig, Medium::Audio, 110, sequence, &[sequence as u8]);
    }
    let mut kept = Vec::new();
    while let Some(talk) = rig.session.poll_talk() {
        kept.push(talk.sequence);
    }
    assert_eq!(kept, [12, 13, 14, 15], "the newest");
    let figures = rig.session.figures();
    assert_eq!((figures.talk, figures.sound_dropped), (8, 3));
}

#[test]
fn a_good_bye_on_the_video_port_ends_it_soon() {
    let mut rig = Rig::new();
    rig.pictures(3);
    rig.start(Begin::FromPrebuffer);
    let bye =
        [&[0x80, 201, 0, 1][..], &CONTROLLER_SSRC.to_be_bytes(), &[0x81, 203, 0, 1], &CONTROLLER_SSRC.to_be_bytes()]
            .concat();
    rig.rtcp(Medium::Audio, &bye);
    rig.pass(ms(5000));
    assert!(!rig.session.is_ended(), "only the talk-back ended");
    rig.rtcp(Medium::Video, &bye);
    rig.pass(ms(1000));
    rig.empty_report();
    rig.pictures(150);
    assert!(!rig.session.is_ended(), "it is still there");
    rig.rtcp(Medium::Video, &bye);
    rig.pass(ms(2000));
    assert_eq!(rig.reports.last().unwrap().1, Report::Ended(Cause::Left));
}

#[test]
fn a_source_that_is_gone_ends_it() {
    let mut rig = Rig::new();
    rig.pictures(10);
    rig.start(Begin::FromPrebuffer);
    rig.pictures(600);
    // The last came one frame ago.
    let gone_at = rig.now + (ms(10_000) - FRAME);
    rig.pass(ms(9_900));
    rig.empty_report();
    assert!(!rig.session.is_ended());
    rig.pass(ms(200));
    let ended = Report::Ended(Cause::SourceGone);
    assert_eq!(rig.reports.last(), Some(&(gone_at, ended)));
    let bye: Vec<_> = rtcp::Items::new(&rig.sent.last().unwrap().plain).map(Result::unwrap).collect();
    assert!(bye.contains(&rtcp::Item::Bye { ssrc: rig.ssrc }), "{bye:?}");

    // Who has suspended it expects no pictures, and who resumes it has the same patience again.
    let mut rig = Rig::new();
    rig.pictures(10);
    rig.start(Begin::FromPrebuffer);
    rig.session.suspend();
    rig.pass(ms(20_000));
    rig.empty_report();
    rig.session.resume(rig.now);
    rig.pass(ms(9_900));
    assert!(!rig.session.is_ended());
    rig.pass(ms(200));
    assert_eq!(rig.reports.last().unwrap().1, ended);

    // There never was one.
    let mut rig = Rig::new();
    rig.start(Begin::FromPrebuffer);
    rig.pass(ms(10_100));
    assert_eq!(rig.reports.last().unwrap().1, ended);
}

#[test]
fn ipv6_and_a_wrap_of_the_sequence() {
    let mut rig = Rig::with(
        &|setup| {
            let remote = [SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 5000)); 2];
            Setup { remote, sequences: [65_500, 65_535], timestamps: [u32::MAX - 5, 0], ..setup }
        },
        8_000_000,
    );
    rig.pictures(60);
    let choice = VideoChoice { mtu: None, ..Rig::choice() };
    rig.start(Begin::FromPrebuffer);
    rig.session.reconfigure(choice, rig.now);
    rig.pictures(60);
    // They could not be opened otherwise.
    assert_whole(&rig.seen(), &rig.pushed, SPS);
    assert!(rig.video().map(|sent| sent.rtp().header.sequence).any(|sequence| sequence < 100));

    let mapped = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0207], 5000));
    let mut rig = Rig::with(&|setup| Setup { remote: [mapped; 2], ..setup }, 8_000_000);
    rig.pictures(3);
    rig.start(Begin::FromPrebuffer);
    rig.pass(ms(100));
    assert_eq!(rig.video().map(|sent| sent.len).max(), Some(1328 + 22), "an IPv4 path under an IPv6 socket");
}

#[test]
fn nothing_secret_is_shown() {
    let keys = || Keys { ours: MasterKey::new(&[65; 16], &[65; 14]), theirs: MasterKey::new(&[65; 16], &[65; 14]) };
    let shown = format!("{:?}", keys());
    assert!(!shown.contains("65") && !shown.contains("41"), "{shown}");
}

#[test]
fn the_wall_clock_of_the_vectors() {
    let vectors = crate::crypto::fixed::vectors("srtp");
    let ntp = &vectors["ntp"];
    let now = NtpNow::from_unix(ntp["unix_seconds"].as_u64().unwrap(), 500_000_000);
    assert_eq!(now.0 >> 32, ntp["sr_ntp"][0].as_u64().unwrap());
    assert_eq!(now.0 & 0xffff_ffff, ntp["sr_ntp"][1].as_u64().unwrap());
    assert_eq!(format!("{:08x}", now.middle()), ntp["lsr"].as_str().unwrap());
    // Hours later, past where 32 bits of microseconds end.
    let later = now.after(Duration::from_micros(3 * 3_600_000_000 + 750_000));
    assert_eq!(later, NtpNow::from_unix(ntp["unix_seconds"].as_u64().unwrap() + 10_801, 250_000_000));
}
