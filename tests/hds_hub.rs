//! A home hub and the data stream's state machines play whole recordings in virtual time.

#[path = "common/hub.rs"]
mod hub;

use hksvd::crypto::SharedSecret;
use hksvd::hds::{Busy, Cause, Desk, Disconnect, FRAME_BYTES, Permission, Prepared, Reason, Report};
use hksvd::hds::{Selected, Session, Slot};
use hksvd::media::{AccessUnit, AudioParameters, Budget, Prebuffer, Retention};
use hksvd::time::{Duration, Instant};
use hksvd::wire::h264::AnnexB;
use hub::{Heard, Hub, Run, Segment, Tree, map};

const TICK: Duration = Duration::from_millis(10);
const HAP: u32 = 5;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A socket, the session at one end of it and the hub at the other.
struct Link {
    session: Session,
    hub: Hub,
    hap: u32,
    /// Bytes on their way to the hub.
    pending: Vec<u8>,
    /// How many bytes the socket takes in a tick.
    speed: usize,
    heard: Vec<(Instant, Heard)>,
    reports: Vec<Report>,
}

impl Link {
    fn segments(&self) -> Vec<&Segment> {
        self.heard.iter().filter_map(|(_, h)| if let Heard::Segment(s) = h { Some(s) } else { None }).collect()
    }

    fn fragments(&self) -> Vec<&Segment> {
        self.segments().into_iter().filter(|s| !s.is_init).collect()
    }

    fn closes(&self) -> Vec<i64> {
        let reason = |h: &Heard| if let Heard::Close { reason, .. } = h { Some(*reason) } else { None };
        self.heard.iter().filter_map(|(_, h)| reason(h)).collect()
    }

    /// Reason in the last answer to an open.
    fn opened(&self) -> Option<i64> {
        self.heard.iter().rev().find_map(|(_, h)| match h {
            Heard::Response { topic, body, id, status, .. } if topic == "open" => {
                assert_eq!(*id, self.hub.last_id());
                let reason = body.int("status");
                assert_eq!(*status, if reason == 0 { 0 } else { 6 });
                Some(reason)
            }
            _ => None,
        })
    }

    fn closed(&self) -> Vec<Cause> {
        self.reports
            .iter()
            .filter_map(|r| if let Report::Closed { cause, .. } = r { Some(*cause) } else { None })
            .collect()
    }

    fn disconnected(&self) -> Option<Disconnect> {
        self.reports.iter().find_map(|r| if let Report::Disconnected(why) = r { Some(*why) } else { None })
    }

    /// The pictures that arrived: no gap, each fragment begins with an IDR where the last one ended.
    fn pictures(&self) -> Vec<u32> {
        let mut end = [None; 2];
        let mut pictures = Vec::new();
        for fragment in self.fragments() {
            for run in hub::runs(&fragment.bytes) {
                let Run { track, start, duration, samples, first_is_sync } = run;
                let end = &mut end[track as usize - 1];
                assert!(first_is_sync);
                assert_eq!(end.unwrap_or(start), start, "tfdt of track {track}");
                *end = Some(start + duration);
                if track == 1 {
                    assert_eq!(samples[0][4], 0x65, "an IDR first");
                    pictures.extend(samples.iter().map(|s| digits(&s[5..9])));
                }
            }
        }
        assert!(pictures.windows(2).all(|w| w[1] == w[0] + 1), "a gap in {pictures:?}");
        pictures
    }
}

/// Seven bits in each byte, so that no start code comes out.
fn digits(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 7 | u32::from(b & 0x7f))
}

struct World {
    now: Instant,
    prepared: Prepared,
    slot: Slot,
    prebuffer: Prebuffer,
    permission: Permission,
    motion_since: Option<Instant>,
    links: Vec<Link>,
    room: Vec<u8>,
    salts: u8,
    /// The encoder: ten pictures a second, a GOP of 2 s.
    encoder: bool,
    microphone: bool,
    parameter_sets: Vec<u8>,
    picture: u32,
    picture_due: Instant,
    audio_due: Instant,
    key_bytes: usize,
    woken: bool,
}

fn parameter_sets() -> Vec<u8> {
    let v: serde_json::Value = serde_json::from_str(include_str!("vectors/fmp4.json")).unwrap();
    let mut annexb = Vec::new();
    for name in ["sps", "pps"] {
        let hex = v["params"][name].as_str().unwrap();
        annexb.extend_from_slice(&[0, 0, 0, 1]);
        annexb.extend((0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()));
    }
    annexb
}

impl World {
    fn new() -> World {
        let now = Instant::from_micros(1_000_000_000);
        let budget = Budget { video_bytes: 3_000_000, audio_bytes: 100_000, access_unit_bytes: 1 };
        let mut prebuffer = Prebuffer::new(budget);
        prebuffer.set_retention(Retention::Everything);
        prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
        World {
            now,
            prepared: Prepared::new(),
            slot: Slot::new(),
            prebuffer,
            permission: Permission {
                recording_active: true,
                camera_active: true,
                audio_active: true,
                silent_track: false,
                selected: Some(Selected { fragment_ms: 4000, prebuffer_ms: 4000, audio_rate_hz: 16_000 }),
            },
            motion_since: None,
            links: Vec::new(),
            room: vec![0; FRAME_BYTES],
            salts: 0,
            encoder: true,
            microphone: true,
            parameter_sets: parameter_sets(),
            picture: 0,
            picture_due: now,
            audio_due: now,
            key_bytes: 20_000,
            woken: false,
        }
    }

    /// A world that has run for a while, with one hub that has said hello.
    fn connected() -> World {
        let mut world = World::new();
        world.run(s(20));
        world.connect(HAP);
        world.hello(0);
        world
    }

    /// The same, and the hub has opened stream 1 because of a motion.
    fn recording() -> World {
        let mut world = World::connected();
        world.motion_since = Some(world.now);
        world.open(0, 1);
        assert_eq!(world.links[0].opened(), Some(0));
        world
    }

    /// Prepares over HAP and connects by TCP.
    fn connect(&mut self, hap: u32) -> usize {
        self.salts += 1;
        let (shared, mine, yours) = (SharedSecret::new([7; 32]), [1; 32], [self.salts; 32]);
        self.prepared.prepare(self.now, hap, &shared, &mine, &yours).unwrap();
        let at = self.links.len();
        self.links.push(Link {
            session: Session::new(at as u32, self.now),
            hub: Hub::new(&shared, &mine, &yours),
            hap,
            pending: Vec::new(),
            speed: usize::MAX,
            heard: Vec::new(),
            reports: Vec::new(),
        });
        at
    }

    fn hello(&mut self, at: usize) {
        let hello = self.links[at].hub.hello();
        self.deliver(at, &hello);
        let link = &self.links[at];
        assert!(matches!(&link.heard[..], [(_, Heard::Response { status: 0, topic, .. })] if topic == "hello"));
        assert_eq!(link.session.hap_connection(), Some(link.hap));
    }

    fn open(&mut self, at: usize, stream_id: i64) {
        let open = self.links[at].hub.open(stream_id);
        self.deliver(at, &open);
    }

    /// Calls the session with everything that it shares.
    fn call<T>(&mut self, at: usize, f: impl FnOnce(&mut Session, Instant, &mut Desk<'_>) -> T) -> T {
        let mut desk = Desk {
            prepared: &mut self.prepared,
            slot: &mut self.slot,
            prebuffer: &self.prebuffer,
            permission: &self.permission,
            motion_since: self.motion_since,
        };
        f(&mut self.links[at].session, self.now, &mut desk)
    }

    fn deliver(&mut self, at: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.links[at].session.is_closed() {
            let buffer = self.links[at].session.receive_buffer();
            let n = rest.len().min(buffer.len());
            assert!(n > 0, "the session reads no more");
            buffer[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            self.call(at, |session, now, desk| session.handle_received(n, now, desk));
            self.pump(at);
        }
    }

    /// What the shell does when a session was called.
    fn pump(&mut self, at: usize) {
        loop {
            let link = &mut self.links[at];
            let n = link.pending.len().min(link.speed);
            if n > 0 {
                let sent: Vec<u8> = link.pending.drain(..n).collect();
                link.speed = link.speed.saturating_sub(if link.speed == usize::MAX { 0 } else { n });
                let now = self.now;
                let heard = link.hub.received(&sent);
                link.heard.extend(heard.into_iter().map(|h| (now, h)));
                self.call(at, |session, now, desk| session.handle_transmitted(n, now, desk));
            }
            if !self.links[at].pending.is_empty() {
                break;
            }
            let mut room = std::mem::take(&mut self.room);
            let frame_bytes = self.links[at].session.frame_bytes();
            let n = self.call(at, |session, now, desk| session.poll_transmit(now, desk, &mut room[..frame_bytes]));
            self.links[at].pending.extend_from_slice(&room[..n.unwrap_or(0)]);
            self.room = room;
            if n.is_none() {
                break;
            }
        }
        let link = &mut self.links[at];
        while let Some(report) = link.session.poll_report() {
            link.reports.push(report);
        }
    }

    /// Wakes a session for the reasons that a shell has: its own timer, new media, room in the socket.
    fn tick(&mut self, speed: usize) {
        self.now += TICK;
        let mut woken = std::mem::take(&mut self.woken);
        if self.encoder && self.picture_due <= self.now {
            self.picture_due += Duration::from_millis(100);
            self.push_picture();
            woken = true;
        }
        if self.microphone && self.audio_due <= self.now {
            self.audio_due += Duration::from_millis(64);
            self.prebuffer.push_audio(&[0xaa; 60], self.now.as_90k());
        }
        for at in 0..self.links.len() {
            let due = self.links[at].session.poll_timeout().is_some_and(|t| t <= self.now);
            if due {
                self.call(at, |session, now, desk| session.handle_timeout(now, desk));
            }
            self.links[at].speed = speed;
            if due || woken || !self.links[at].pending.is_empty() {
                self.pump(at);
            }
            let next = self.links[at].session.poll_timeout();
            assert!(next.is_none_or(|t| t > self.now), "a timer that stays due: {:?} {}", next, at);
        }
    }

    fn push_picture(&mut self) {
        let key = self.picture.is_multiple_of(20);
        let mut annexb = if key { self.parameter_sets.clone() } else { Vec::new() };
        annexb.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }]);
        annexb.extend((0..4).rev().map(|i| (self.picture >> (7 * i)) as u8 | 0x80));
        annexb.resize(annexb.len() + if key { self.key_bytes } else { 2000 }, 0xab);
        self.prebuffer.push_video(AccessUnit { annexb: AnnexB::new(&annexb), pts_90k: self.now.as_90k(), key });
        self.picture += 1;
    }

    fn run(&mut self, duration: Duration) {
        self.run_at(duration, usize::MAX);
    }

    fn run_at(&mut self, duration: Duration, speed: usize) {
        let end = self.now + duration;
        while self.now < end {
            self.tick(speed);
        }
    }

    fn change(&mut self, f: impl FnOnce(&mut Permission)) {
        f(&mut self.permission);
        self.woken = true;
    }

    fn assert_free(&self) {
        assert_eq!(self.slot.holder(), None, "the slot leaks");
    }
}

#[test]
fn a_motion_is_recorded_and_the_hub_closes() {
    let mut world = World::recording();
    let opened = world.now;
    let motion_picture = world.picture;

    // Reply, init and the first fragment leave at once.
    let link = &world.links[0];
    let segments = link.segments();
    assert_eq!(segments.len(), 2);
    assert!(segments[0].is_init && link.heard.iter().all(|(at, _)| *at <= opened));
    assert_eq!(hub::tracks(&segments[0].bytes), 2);
    let first = link.pictures()[0];
    assert!((40..=60).contains(&(motion_picture - first)), "{} pictures before the motion", motion_picture - first);

    world.run(s(13));
    world.motion_since = None;
    let at_end = world.links[0].fragments().len();
    world.run(s(5));
    assert!(world.links[0].fragments().len() > at_end, "one more fragment after the motion");
    let close = world.links[0].hub.close(1, 0);
    world.deliver(0, &close);
    let sent = world.links[0].segments().len();
    world.assert_free();
    world.run(s(10));

    let link = &world.links[0];
    assert_eq!(link.segments().len(), sent, "nothing after the close");
    assert!(link.closes().is_empty(), "no close back");
    assert_eq!(link.closed(), [Cause::Hub(Reason::NORMAL)]);
    assert!(!link.session.is_closed());
    // All that was captured from the first picture to the end of the last fragment.
    let pictures = link.pictures();
    assert!(pictures.len() as u32 >= world.picture - 10 * 14 - first, "{}", pictures.len());
    assert!(link.segments().iter().all(|s| !s.end_of_stream && s.stream_id == 1));
    // In real time: the live fragments come about when their last picture was captured.
    for report in &link.reports[4..] {
        if let Report::Fragment { backlog_ms, .. } = report {
            assert!(*backlog_ms <= 2500, "{report}");
        }
    }
    let lines: Vec<String> = link.reports.iter().map(ToString::to_string).collect();
    assert_eq!(lines[..2], ["hello, prepared by hap 5", "open stream 1 (motion)"]);
    assert!(lines[2].starts_with("init ") && lines[3].starts_with("fragment 2: "), "{lines:?}");
    assert!(lines.iter().all(|line| line.len() < 100));
}

#[test]
fn a_late_open_still_gets_what_was_before_the_motion() {
    for (late_s, before) in [(3, 40..=70), (60, 0..=0)] {
        let mut world = World::connected();
        let motion_picture = world.picture;
        world.motion_since = Some(world.now);
        world.run(s(late_s));
        let opened_picture = world.picture;
        world.open(0, 1);
        let first = world.links[0].pictures()[0];
        assert!(before.contains(&motion_picture.saturating_sub(first)), "{late_s} s late: {first}");
        assert!(opened_picture - first <= 40 + 40 + 20, "prebuffer and one fragment, up to its IDR");
    }
}

#[test]
fn audio_keeps_up_with_video() {
    let mut world = World::recording();
    world.run(s(12));
    for fragment in world.links[0].fragments() {
        let runs = hub::runs(&fragment.bytes);
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1].samples[1], [0xaa; 60], "what the microphone said");
        let end_us = |run: &Run, rate: u64| (run.start + run.duration) * 1_000_000 / rate;
        assert!(end_us(&runs[0], 90_000).abs_diff(end_us(&runs[1], 16_000)) <= 64_000);
    }
}

#[test]
fn buffered_fragments_are_paced() {
    // Motion just before the open, a backlog of several fragments.
    let mut world = World::connected();
    world.permission.selected = Some(Selected { fragment_ms: 2000, prebuffer_ms: 8000, audio_rate_hz: 16_000 });
    world.open(0, 1);
    world.run(s(2));
    let link = &world.links[0];
    let times: Vec<_> =
        link.heard.iter().filter(|(_, h)| matches!(h, Heard::Segment(s) if !s.is_init)).map(|(at, _)| *at).collect();
    assert!(times.len() >= 4, "{} fragments", times.len());
    assert!(times.windows(2).all(|w| (100..=2100).contains(&(w[1] - w[0]).as_millis())), "{times:?}");
    assert!(times[2] - times[0] <= Duration::from_millis(400));
}

#[test]
fn large_fragments_leave_in_chunks() {
    let mut world = World::new();
    world.key_bytes = 300_000;
    world.run(s(12));
    world.connect(HAP);
    world.hello(0);
    world.open(0, 1);
    world.run_at(s(9), 20_000);
    let link = &world.links[0];
    assert!(link.fragments().len() >= 3);
    assert!(link.fragments().iter().all(|f| f.chunks >= 2 && f.bytes.len() > 600_000));
    link.pictures();
}

#[test]
fn a_fragment_of_exactly_one_chunk_is_one_chunk() {
    let first_fragment = |key_bytes| {
        let mut world = World::new();
        world.key_bytes = key_bytes;
        world.permission.audio_active = false;
        world.permission.selected = Some(Selected { fragment_ms: 2000, prebuffer_ms: 4000, audio_rate_hz: 16_000 });
        world.run(s(12));
        world.connect(HAP);
        world.hello(0);
        world.open(0, 1);
        (world.links[0].fragments()[0].bytes.len(), world.links[0].fragments()[0].chunks)
    };
    let (bytes, _) = first_fragment(200_000);
    for (more, chunks) in [(0, 1), (1, 2)] {
        let wanted = 0x40000 + more;
        assert_eq!(first_fragment(200_000 + wanted - bytes), (wanted, chunks));
    }
}

#[test]
fn a_hub_that_talks_and_does_not_listen_is_not_read() {
    let mut world = World::connected();
    // The answer to this one stays in the socket.
    world.links[0].speed = 0;
    let hello = world.links[0].hub.hello();
    world.deliver(0, &hello);
    let hub = &mut world.links[0].hub;
    let flood: Vec<u8> = (0..200).flat_map(|_| hub.request("control", "hello", &map([]))).collect();
    let mut rest = &flood[..];
    while !rest.is_empty() && !world.links[0].session.receive_buffer().is_empty() {
        let n = rest.len().min(100).min(world.links[0].session.receive_buffer().len());
        world.deliver(0, &rest[..n]);
        rest = &rest[n..];
    }
    assert!(rest.len() > flood.len() / 2, "all of it was taken");
    world.links[0].speed = usize::MAX;
    world.pump(0);
    world.deliver(0, rest);
    assert_eq!(world.links[0].heard.len(), 2 + 200);
}

#[test]
fn the_cap_ends_with_a_fragment_and_the_hub_acknowledges() {
    let mut world = World::recording();
    let opened = world.now;
    world.run(s(179));
    assert!(world.links[0].fragments().iter().all(|f| !f.end_of_stream));
    world.run(s(6));
    let link = &world.links[0];
    let last = (*link.fragments().last().unwrap()).clone();
    assert!(last.end_of_stream && hub::runs(&last.bytes)[0].samples.len() >= 20);
    let ends = |r: &&Report| matches!(r, Report::EndOfStream { capped: true, seconds: 180..=184 }) && r.wants_reopen();
    assert_eq!(link.reports.iter().filter(ends).count(), 1);
    let left_at = |r: &Report| if let Report::Fragment { after_open_ms, .. } = r { Some(*after_open_ms) } else { None };
    let left: Vec<_> = link.reports.iter().filter_map(left_at).collect();
    assert!(left[left.len() - 2] < 180_000 && left[left.len() - 1] >= 180_000, "the first one after 180 s is the last");
    assert!(world.slot.holder().is_some());
    let ack = world.links[0].hub.ack(1);
    world.deliver(0, &ack);
    world.assert_free();
    assert_eq!(world.links[0].closed(), [Cause::Acknowledged]);
    world.run(s(20));
    assert!(world.links[0].closes().is_empty());
    assert!(world.now - opened < s(210));
    // The hub opens anew over the same connection: a new init, from 1.
    world.open(0, 2);
    assert_eq!(world.links[0].opened(), Some(0));
    assert!(world.links[0].segments().iter().any(|s| s.stream_id == 2 && s.is_init));
}

#[test]
fn an_end_that_nobody_acknowledges_is_closed_after_12_s() {
    let mut world = World::recording();
    world.run(s(186));
    assert!(world.links[0].closes().is_empty());
    world.run(s(12));
    assert_eq!(world.links[0].closes(), [3]);
    assert_eq!(world.links[0].closed(), [Cause::NoAnswer]);
    world.assert_free();
}

#[test]
fn an_ack_before_the_end_and_words_about_other_streams_mean_nothing() {
    let mut world = World::recording();
    let hub = &mut world.links[0].hub;
    let frames = [hub.ack(1), hub.close(2, 0), hub.ack(2)].concat();
    world.deliver(0, &frames);
    world.run(s(5));
    assert!(world.links[0].closed().is_empty());
    assert!(world.links[0].fragments().len() > 1);
}

#[test]
fn a_hub_that_gives_up_frees_the_slot() {
    for reason in [3, 5, 6, 77] {
        let mut world = World::recording();
        let close = world.links[0].hub.close(1, reason);
        world.deliver(0, &close);
        world.assert_free();
        assert_eq!(world.links[0].closed(), [Cause::Hub(Reason(reason))]);
    }
}

#[test]
fn a_slow_hub_loses_its_stream_and_nothing_else() {
    let mut world = World::new();
    world.key_bytes = 300_000;
    world.run(s(12));
    world.connect(HAP);
    world.hello(0);
    world.open(0, 1);
    // 100 KB/s, and the encoder makes some 170 KB/s.
    world.run_at(s(60), 1000);
    assert_eq!(world.links[0].closes(), [6]);
    assert_eq!(world.links[0].closed(), [Cause::Lagged]);
    world.assert_free();
    assert!(!world.links[0].session.is_closed());
}

#[test]
fn a_blocked_socket_is_cut_after_8_s() {
    let mut world = World::recording();
    let other = world.connect(9);
    world.hello(other);
    world.run(s(5));
    let blocked = world.now;
    world.run_at(s(5), 0);
    assert!(!world.links[0].session.is_closed());
    world.run_at(s(8), 0);
    let link = &world.links[0];
    assert!(link.session.is_closed() && link.session.poll_timeout().is_none());
    assert_eq!((link.closed(), link.disconnected()), (vec![Cause::Blocked], Some(Disconnect::Blocked)));
    assert!(world.now - blocked <= s(13));
    world.assert_free();
    assert!(!world.links[other].session.is_closed());
}

#[test]
fn the_rules_of_opening_have_their_order() {
    let mut world = World::connected();
    let armed = world.permission;
    let refused = |world: &mut World, reason| {
        world.open(0, 1);
        assert_eq!(world.links[0].opened(), Some(reason));
        assert!(!world.links[0].session.is_recording());
        world.assert_free();
    };
    for (kind, target) in [("ipcamera.snapshot", "controller"), ("ipcamera.recording", "hub"), ("", "")] {
        let open = world.links[0].hub.open_of(1, kind, target);
        world.deliver(0, &open);
        assert_eq!(world.links[0].opened(), Some(5));
    }
    world.permission = Permission { selected: None, ..armed };
    refused(&mut world, 9);
    world.permission = Permission { camera_active: false, selected: None, ..armed };
    refused(&mut world, 1);
    world.permission = Permission { recording_active: false, selected: None, ..armed };
    refused(&mut world, 1);
    world.permission = armed;
    world.open(0, 1);
    assert_eq!(world.links[0].opened(), Some(0));
}

#[test]
fn a_second_open_is_busy_on_the_same_and_on_another_connection() {
    let mut world = World::recording();
    let open = world.links[0].hub.open_of(2, "ipcamera.recording", "controller");
    world.deliver(0, &open);
    assert_eq!(world.links[0].opened(), Some(2));
    let second = world.connect(9);
    world.hello(second);
    world.open(second, 1);
    assert_eq!(world.links[second].opened(), Some(2));
    // Even without a selected configuration: busy comes first.
    world.permission.selected = None;
    world.open(second, 1);
    assert_eq!(world.links[second].opened(), Some(2));
    // Nor does it help to wait: the stream is well.
    world.run(s(20));
    world.open(second, 1);
    assert_eq!(world.links[second].opened(), Some(2));
    world.links[0].pictures();
    assert!(world.links[0].fragments().len() >= 4 && world.links[second].segments().is_empty());
}

#[test]
fn a_stream_that_waits_for_its_close_is_taken_over() {
    let mut world = World::recording();
    world.run(s(186));
    let second = world.connect(9);
    world.hello(second);
    world.open(second, 8);
    assert_eq!(world.links[second].opened(), Some(0));
    world.run(s(5));
    assert_eq!(world.links[0].closes(), [3]);
    assert_eq!(world.links[0].closed(), [Cause::TakenOver]);
    assert_eq!(world.slot.holder(), Some(second as u32));
    world.links[second].pictures();
    assert!(world.links[second].fragments().len() >= 2);
}

#[test]
fn a_stream_that_waits_for_its_close_is_replaced_on_its_own_connection() {
    let mut world = World::recording();
    world.run(s(186));
    world.open(0, 1);
    assert_eq!(world.links[0].opened(), Some(0));
    world.run(s(5));
    assert!(world.links[0].closes().is_empty(), "a close would hit the new stream of the same number");
    assert_eq!(world.slot.holder(), Some(0));
}

#[test]
fn a_dead_connection_is_taken_over() {
    let mut world = World::recording();
    // Its worker hangs: no timer fires and no byte moves, but the hub comes back.
    world.now += s(8);
    world.connect(9);
    world.hello(1);
    world.open(1, 1);
    assert_eq!(world.links[1].opened(), Some(0));
    world.run(s(1));
    assert_eq!(world.links[0].closed(), [Cause::TakenOver]);
    assert_eq!(world.slot.holder(), Some(1));
}

#[test]
fn a_frame_that_is_half_sent_does_not_keep_the_buffer_from_the_next_hub() {
    let mut world = World::new();
    world.key_bytes = 300_000;
    world.run(s(12));
    world.connect(HAP);
    world.hello(0);
    world.connect(9);
    world.hello(1);
    world.links[0].speed = 100_000;
    world.open(0, 1);
    assert!(!world.links[0].pending.is_empty());
    world.now += s(8);
    world.open(1, 1);
    assert_eq!(world.links[1].opened(), Some(0));
    world.call(0, |session, now, desk| assert_eq!(session.poll_transmit(now, desk, &mut []), None));
    while let Some(report) = world.links[0].session.poll_report() {
        world.links[0].reports.push(report);
    }
    assert_eq!(world.links[0].disconnected(), Some(Disconnect::Evicted));
    assert_eq!(world.links[0].closed(), [Cause::TakenOver]);
    assert_eq!(world.slot.holder(), Some(1));
}

#[test]
fn camera_off_closes_with_not_allowed() {
    let mut world = World::recording();
    world.run(s(3));
    world.change(|p| p.camera_active = false);
    world.prebuffer.set_retention(Retention::Nothing);
    world.run(s(1));
    assert_eq!(world.links[0].closes(), [1]);
    assert_eq!(world.links[0].closed(), [Cause::CameraOff]);
    world.assert_free();
}

#[test]
fn recording_off_lets_the_running_fragment_end_the_stream() {
    let mut world = World::recording();
    world.run(s(3));
    world.change(|p| p.recording_active = false);
    world.run(s(6));
    let link = &world.links[0];
    assert!(link.fragments().last().unwrap().end_of_stream && link.closes().is_empty());
    assert!(link.reports.iter().any(|r| matches!(r, Report::EndOfStream { capped: false, .. }) && !r.wants_reopen()));
    world.run(s(12));
    assert_eq!(world.links[0].closes(), [3]);
    world.assert_free();
}

#[test]
fn recording_off_with_the_prebuffer_gone_cancels() {
    let mut world = World::recording();
    world.run(s(3));
    world.change(|p| p.recording_active = false);
    world.prebuffer.set_retention(Retention::Nothing);
    world.run(s(11));
    assert_eq!(world.links[0].closes(), [3]);
    assert_eq!(world.links[0].closed(), [Cause::RecordingOff]);
    world.assert_free();
}

#[test]
fn audio_off_leaves_the_track_out_or_silent() {
    for (silent_track, tracks) in [(false, 1), (true, 2)] {
        let mut world = World::connected();
        world.change(|p| (p.audio_active, p.silent_track) = (false, silent_track));
        world.open(0, 1);
        // What holds at open counts.
        world.change(|p| p.audio_active = true);
        world.run(s(9));
        let link = &world.links[0];
        assert_eq!(hub::tracks(&link.segments()[0].bytes), tracks);
        for fragment in link.fragments() {
            let runs = hub::runs(&fragment.bytes);
            assert_eq!(runs.len(), tracks);
            assert!(!fragment.bytes.windows(8).any(|w| w == [0xaa; 8]), "sound that was not allowed");
        }
    }
}

#[test]
fn an_encoder_that_changes_closes_after_what_is_there() {
    let mut world = World::recording();
    world.run(s(5));
    // Another level in the SPS.
    let level = world.parameter_sets.iter().position(|b| *b == 0x67).unwrap() + 3;
    world.parameter_sets[level] ^= 1;
    world.run(s(3));
    assert_eq!(world.links[0].closes(), [5]);
    assert_eq!(world.links[0].closed(), [Cause::EncoderRestarted]);
    world.links[0].pictures();
    world.assert_free();
    world.open(0, 2);
    world.run(s(6));
    let link = &world.links[0];
    let inits: Vec<_> = link.segments().into_iter().filter(|s| s.is_init).collect();
    assert_eq!(inits.len(), 2);
    assert_ne!(inits[0].bytes, inits[1].bytes);
}

#[test]
fn a_dead_encoder_closes_after_its_last_pictures() {
    let mut world = World::recording();
    world.run(s(5));
    let before = world.links[0].pictures().len();
    world.encoder = false;
    world.run(s(4));
    assert!(world.links[0].closed().is_empty());
    world.run(s(2));
    let link = &world.links[0];
    assert_eq!(link.closed(), [Cause::EncoderSilent]);
    assert_eq!(link.closes(), [5]);
    assert!(link.pictures().len() > before, "what was captured is not lost");
    assert_eq!(*link.pictures().last().unwrap(), world.picture - 1);
    world.assert_free();
}

#[test]
fn an_encoder_that_is_not_ready_in_time_closes_with_timeout() {
    let mut world = World::new();
    world.encoder = false;
    world.connect(HAP);
    world.hello(0);
    world.open(0, 1);
    assert_eq!(world.links[0].opened(), Some(0));
    world.run(Duration::from_millis(4990));
    assert!(world.links[0].closes().is_empty());
    world.run(s(1));
    assert_eq!(world.links[0].closes(), [6]);
    assert_eq!(world.links[0].closed(), [Cause::NotReady]);
    world.assert_free();
}

#[test]
fn an_encoder_that_starts_late_is_waited_for() {
    let mut world = World::new();
    world.encoder = false;
    world.connect(HAP);
    world.hello(0);
    world.open(0, 1);
    world.run(s(4));
    world.encoder = true;
    world.picture_due = world.now;
    world.run(s(6));
    assert!(world.links[0].closes().is_empty());
    assert_eq!(world.links[0].pictures()[0], 0);
}

#[test]
fn two_hubs_and_three_idle_hours() {
    let mut world = World::connected();
    let second = world.connect(9);
    world.hello(second);
    assert_eq!(world.links[0].session.poll_timeout(), None);
    world.now += s(3 * 3600);
    (world.picture_due, world.audio_due) = (world.now, world.now);
    world.prebuffer.restart();
    world.picture = world.picture.next_multiple_of(20);
    world.run(s(10));
    for at in [0, second] {
        assert!(!world.links[at].session.is_closed());
        world.open(at, 4);
        assert_eq!(world.links[at].opened(), Some(0));
        world.run(s(5));
        world.links[at].pictures();
        let close = world.links[at].hub.close(4, 0);
        world.deliver(at, &close);
        world.assert_free();
    }
}

#[test]
fn every_end_of_the_connection_frees_the_slot() {
    for why in [Disconnect::Peer, Disconnect::HapClosed, Disconnect::PairingRemoved, Disconnect::Evicted] {
        let mut world = World::recording();
        world.call(0, |session, now, desk| session.handle_disconnected(why, now, desk));
        world.assert_free();
        world.pump(0);
        let link = &world.links[0];
        assert!(link.session.is_closed() && !link.session.is_recording());
        assert_eq!((link.closed(), link.disconnected()), (vec![Cause::Disconnected], Some(why)));
        let heard = link.heard.len();
        world.run(s(10));
        assert_eq!(world.links[0].heard.len(), heard);
    }
}

#[test]
fn a_shutdown_tells_the_hub() {
    let mut world = World::recording();
    world.call(0, |session, now, desk| session.handle_disconnected(Disconnect::Shutdown, now, desk));
    world.assert_free();
    assert!(!world.links[0].session.is_closed());
    world.pump(0);
    let link = &world.links[0];
    assert_eq!(link.closes(), [3]);
    assert!(link.session.is_closed());
    assert_eq!(link.disconnected(), Some(Disconnect::Shutdown));
}

#[test]
fn hello_is_due_within_10_s() {
    let mut world = World::new();
    world.connect(HAP);
    world.run(Duration::from_millis(9_990));
    assert!(!world.links[0].session.is_closed());
    world.run(TICK);
    assert_eq!(world.links[0].disconnected(), Some(Disconnect::NoHello));
}

#[test]
fn what_was_prepared_expires_and_ends_with_its_hap_connection() {
    // The TCP connection comes 4 s after the request over HAP and says hello 7 s later.
    let mut world = World::new();
    world.connect(HAP);
    world.run(s(4));
    world.links[0].session = Session::new(0, world.now);
    world.run(s(7));
    let hello = world.links[0].hub.hello();
    world.deliver(0, &hello);
    assert_eq!(world.links[0].disconnected(), Some(Disconnect::UnknownKey));

    let mut world = World::new();
    world.connect(HAP);
    world.prepared.forget(HAP);
    let hello = world.links[0].hub.hello();
    world.deliver(0, &hello);
    assert_eq!(world.links[0].disconnected(), Some(Disconnect::UnknownKey));
}

#[test]
fn one_hap_connection_cannot_take_all_that_can_be_prepared() {
    let mut prepared = Prepared::new();
    let shared = SharedSecret::new([7; 32]);
    let all: Vec<_> = (0..6).map(|i| prepared.prepare(Instant::ZERO, 1, &shared, &[i; 32], &[i; 32])).collect();
    assert_eq!(all, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Busy), Err(Busy)]);
    assert_eq!(prepared.prepare(Instant::ZERO, 2, &shared, &[9; 32], &[9; 32]), Ok(()));
}

#[test]
fn input_may_be_cut_anywhere_and_come_all_at_once() {
    // Byte by byte.
    let mut world = World::connected();
    let open = world.links[0].hub.open(1);
    for byte in open {
        world.deliver(0, &[byte]);
    }
    assert_eq!(world.links[0].opened(), Some(0));
    let close = world.links[0].hub.close(1, 0);
    for byte in close {
        world.deliver(0, &[byte]);
    }
    world.assert_free();

    // Hello, open, close and a request in one segment.
    let mut world = World::new();
    world.run(s(10));
    world.connect(HAP);
    let hub = &mut world.links[0].hub;
    let mut frames = [hub.hello(), hub.open(1), hub.close(1, 0), hub.request("dataSend", "shut", &map([]))].concat();
    (0..20).for_each(|_| frames.extend(hub.request("control", "hello", &map([]))));
    world.deliver(0, &frames);
    let statuses: Vec<_> = world.links[0]
        .heard
        .iter()
        .map(|(_, h)| if let Heard::Response { status, .. } = h { *status } else { panic!("{h:?}") })
        .collect();
    assert_eq!(statuses[..3], [0, 0, 3]);
    assert_eq!(statuses.len(), 23);
    world.assert_free();
}

#[test]
fn unknown_requests_get_a_status_and_unknown_events_nothing() {
    let mut world = World::connected();
    let hub = &mut world.links[0].hub;
    let frames = [
        hub.request("audio", "open", &map([])),
        hub.request("control", "goodbye", &map([])),
        hub.request("dataSend", "open", &map([])),
        hub.event("rewind", &map([("streamId", Tree::Int(1))])),
        hub.sealed(vec![1, 0xd0, 0xe0]),
        hub.sealed(vec![]),
        hub.request(&"x".repeat(33), "open", &map([])),
    ]
    .concat();
    world.deliver(0, &frames);
    let link = &world.links[0];
    let statuses: Vec<_> = link.heard[1..]
        .iter()
        .map(|(_, h)| match h {
            Heard::Response { protocol, topic, id, status, .. } => (protocol.as_str(), topic.as_str(), *id, *status),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(statuses, [("audio", "open", 1002, 5), ("control", "goodbye", 1003, 3), ("dataSend", "open", 1004, 4)]);
    assert_eq!(link.reports.iter().filter(|r| matches!(r, Report::Malformed(_))).count(), 2);
    assert!(!link.session.is_closed());
}

#[test]
fn nonsense_does_not_crowd_out_what_matters() {
    let mut world = World::recording();
    let hub = &mut world.links[0].hub;
    let mut frames: Vec<u8> = (0..60).flat_map(|_| hub.sealed(vec![])).collect();
    frames.extend(hub.close(1, 0));
    world.deliver(0, &frames);
    assert_eq!(world.links[0].closed(), [Cause::Hub(Reason::NORMAL)]);
    world.assert_free();
}

#[test]
fn what_is_no_frame_closes_the_connection() {
    let bad_tag = |world: &mut World| {
        let mut frame = world.links[0].hub.open(1);
        *frame.last_mut().unwrap() ^= 1;
        frame
    };
    for (frame, why) in [
        (bad_tag as fn(&mut World) -> Vec<u8>, Disconnect::BadTag),
        (|_| vec![2, 0, 0, 1], Disconnect::BadFrame),
        (|_| vec![1, 0x10, 0, 0], Disconnect::BadFrame),
        (|_| vec![1, 0xf, 0xff, 0xff], Disconnect::LongFrame { bytes: 0xf_ffff + 20 }),
    ] {
        let mut world = World::recording();
        let frame = frame(&mut world);
        world.deliver(0, &frame);
        assert_eq!(world.links[0].disconnected(), Some(why));
        assert_eq!(world.links[0].closed(), [Cause::Disconnected]);
        world.assert_free();
    }
}

#[test]
fn the_first_message_must_be_a_hello() {
    let mut world = World::new();
    world.connect(HAP);
    let open = world.links[0].hub.open(1);
    world.deliver(0, &open);
    assert_eq!(world.links[0].disconnected(), Some(Disconnect::NotHello));
    assert!(world.links[0].heard.is_empty());
    world.assert_free();
}
