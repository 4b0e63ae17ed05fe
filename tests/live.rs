//! Live view by the real program: what a controller that watches gets, from the answer to its endpoints to the end.
#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[allow(dead_code)]
#[path = "common/feeder.rs"]
mod feeder;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;
#[path = "common/viewer.rs"]
mod viewer;

use hksvd::wire::rtp;
use program::{Client, Folder, PATIENCE, Program, bytes_of, eventually};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use viewer::{AT_HOME, AUDIO_SSRC, Came, Depacketiser, VIDEO_SSRC, Viewer, Wish, types};

const AVAILABLE: [u8; 3] = [1, 1, 0];
const IN_USE: [u8; 3] = [1, 1, 1];

/// The demo has a key frame every two seconds, so one is there after this; the camera has no other way to say so.
fn watchable(program: &Program) {
    program.wait_status("a key frame is held", |status| status["prebuffer"]["bytes"].as_u64() > Some(0));
}

fn demo(name: &str, more: Json) -> (Folder, Program) {
    let folder = Folder::new(name);
    let mut config = json!({"video": {"source": "demo"}, "motion": {"mode": "api"}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config = folder.config(config);
    let program = Program::run(&folder, &config);
    watchable(&program);
    (folder, program)
}

/// Waits for an event of 120 with this value.
fn wait_streaming(client: &mut Client, service: usize, value: [u8; 3]) {
    let iid = client.iid_of("110", "120", service);
    loop {
        while let Some(event) = client.controller.events.pop_front() {
            let event = event.json();
            let mut entries = event["characteristics"].as_array().expect("entries").iter();
            if entries.any(|entry| entry["iid"] == iid && bytes_of(&entry["value"]) == value) {
                return;
            }
        }
        let bytes = program_bytes(client);
        client.controller.feed(&bytes);
    }
}

fn program_bytes(client: &mut Client) -> Vec<u8> {
    use controller::Transport;
    let bytes = client.socket.receive();
    assert!(!bytes.is_empty(), "the connection is closed instead of an event");
    bytes
}

fn streaming(client: &mut Client, service: usize) -> Vec<u8> {
    let iid = client.iid_of("110", "120", service);
    bytes_of(&client.controller.get(&mut client.socket, iid))
}

#[test]
fn the_picture_is_there_at_once() {
    let (_folder, program) = demo("live-at-once", json!({}));
    let (who, mut client) = Client::pair(program.port());
    let mut other = Client::verified(program.port(), &who);
    other.subscribe("110", "120");
    // In the middle of a GOP: nothing would come for a second otherwise.
    let first = program.status()["frames"].as_u64().unwrap();
    program.wait_status("some pictures later", |status| status["frames"].as_u64() > Some(first + 5));

    let mut viewer = Viewer::set_up(&mut client, 0).expect("it is free");
    assert_eq!(streaming(&mut client, 0), IN_USE);
    wait_streaming(&mut other, 0, IN_USE);
    let start = Instant::now();
    viewer.start(&mut client, AT_HOME);
    let Came::Packet { header, payload } = viewer.video.hear() else { panic!("a report before the picture") };
    // The report that keeps picture and sound together, with the first packet.
    let Came::Reports { bye: false, rtp_timestamp, .. } = viewer.video.hear() else { panic!("no report") };
    let ahead = rtp_timestamp.wrapping_sub(header.timestamp) as i32;
    assert!((-45_000..45_000).contains(&ahead), "the report is {ahead} ticks ahead of the picture");
    assert_eq!((header.payload_type, header.marker, payload[0] & 31), (99, false, 24), "SPS and PPS in one packet");
    let mut depacketiser = Depacketiser::default();
    assert_eq!(depacketiser.push(header, &payload), None);
    let (_, key) = viewer.video.picture(&mut depacketiser);
    assert_eq!(types(&key)[..3], [7, 8, 5]);
    println!("first picture after {:?}", start.elapsed());
    // Every picture since, faster than they were captured, and then as they come.
    for _ in 0..45 {
        let (_, picture) = viewer.video.picture(&mut depacketiser);
        assert!(types(&picture).iter().all(|t| [1, 5, 7, 8].contains(t)), "{:?}", types(&picture));
    }
    let status = program.status();
    assert_eq!((status["state"].as_str(), status["live_sessions"].as_u64()), (Some("live"), Some(1)));
    let live = &status["live"][0];
    assert_eq!((live["width"].as_u64(), live["height"].as_u64()), (Some(1280), Some(720)));
    assert!(live["packets"].as_u64() > Some(45) && live["bitrate_kbps"].as_u64() > Some(50), "{live}");
    assert!(live["to"].as_str().unwrap().starts_with("127.0.0.1:"), "{live}");
    assert!(!program.said("live view 1: 1280x720 for 127.0.0.1").is_empty());

    viewer.command(&mut client, 0);
    viewer.video.wait_bye();
    wait_streaming(&mut other, 0, AVAILABLE);
    assert_eq!(streaming(&mut client, 0), AVAILABLE);
    eventually("the ports are free", || viewer.ports_are_free().then_some(()));
    program.wait_status("nobody watches", |status| status["live_sessions"] == 0);
    assert_eq!(program.said("live view 1 ended").len(), 1);
    let mut stream = UnixStream::connect(&program.socket).expect("the control socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"GET /events?history=1 HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    lines.find(|l| l.contains("\"live_started\",\"view\":0,\"width\":1280,\"height\":720")).expect("the start");
    lines.find(|l| l.contains("\"live_ended\",\"view\":0,\"cause\":\"controller\"")).expect("the end");
}

#[test]
fn two_watch_and_the_third_is_told_so() {
    let (_folder, program) = demo("live-two", json!({}));
    let (who, mut first) = Client::pair(program.port());
    let mut second = Client::verified(program.port(), &who);
    let mut third = Client::verified(program.port(), &who);
    let mut views = [Viewer::set_up(&mut first, 0).unwrap(), Viewer::set_up(&mut second, 1).unwrap()];
    views[0].start(&mut first, AT_HOME);
    views[1].start(&mut second, AT_HOME);
    for service in 0..2 {
        assert_eq!(Viewer::set_up(&mut third, service).err(), Some(1), "busy");
    }
    for view in &mut views {
        let mut depacketiser = Depacketiser::default();
        for _ in 0..20 {
            view.video.picture(&mut depacketiser);
        }
    }
    assert_eq!(program.status()["live_sessions"], 2);
    // The end of one is nothing to the other.
    views[0].command(&mut first, 0);
    views[0].video.wait_bye();
    let mut depacketiser = Depacketiser::default();
    for _ in 0..20 {
        views[1].video.picture(&mut depacketiser);
    }
    let mut view = Viewer::set_up(&mut third, 0).expect("free again");
    view.start(&mut third, AT_HOME);
    view.video.packet();
}

#[test]
fn it_ends_with_its_connection_with_the_camera_and_with_the_program() {
    let (_folder, mut program) = demo("live-ends", json!({}));
    let (who, mut client) = Client::pair(program.port());

    let mut watching = Client::verified(program.port(), &who);
    let mut viewer = Viewer::set_up(&mut watching, 0).unwrap();
    viewer.start(&mut watching, AT_HOME);
    viewer.video.packet();
    drop(watching);
    viewer.video.wait_bye();
    assert_eq!(streaming(&mut client, 0), AVAILABLE);
    eventually("the ports are free", || viewer.ports_are_free().then_some(()));
    program.wait_said("live view 1 ended: its HAP connection is gone");

    let mut viewer = Viewer::set_up(&mut client, 1).unwrap();
    viewer.start(&mut client, AT_HOME);
    viewer.video.packet();
    client.write("21A", "21B", json!(0));
    viewer.video.wait_bye();
    program.wait_said("live view 2 ended: the camera was switched off");
    assert_eq!(viewer.video.hear_within(Duration::from_millis(300)), None);
    client.write("21A", "21B", json!(1));
    watchable(&program);

    let mut viewer = Viewer::set_up(&mut client, 1).unwrap();
    viewer.start(&mut client, AT_HOME);
    viewer.video.packet();
    program.terminate();
    viewer.video.wait_bye();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
}

#[test]
fn media_takes_the_family_that_was_asked_for() {
    let ip = std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    let interfaces = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    if !interfaces.lines().any(|line| line.starts_with("00000000000000000000000000000001 ")) {
        // What a test that passes prints is kept from everybody; this is not.
        return std::io::stderr().write_all(b"NOT TESTED: this host has no IPv6\n").expect("said");
    }
    let (_folder, program) = demo("live-ipv6", json!({}));
    // HomeKit itself comes by IPv4.
    let (_, mut client) = Client::pair(program.port());
    let mut viewer = Viewer::set_up_at(&mut client, 0, ip).unwrap();
    viewer.start(&mut client, AT_HOME);
    let mut depacketiser = Depacketiser::default();
    for _ in 0..10 {
        viewer.video.picture(&mut depacketiser);
    }
}

#[test]
fn an_encoder_that_makes_key_frames_is_asked_for_one() {
    let folder = Folder::new("live-key");
    let asked = folder.path("asked");
    let config = folder.config(json!({
        "video": {"source": "demo"}, "motion": {"mode": "api"},
        "hooks": {"keyframe": format!("touch {}", asked.display())},
    }));
    let program = Program::run(&folder, &config);
    watchable(&program);
    let (_, mut client) = Client::pair(program.port());
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    eventually("the hook has run", || asked.exists().then_some(()));
    // The demo makes none: the prebuffer will do after a second.
    assert_eq!(viewer.video.packet().1[0] & 31, 24);
}

#[test]
fn suspended_it_sends_no_pictures() {
    let (_folder, program) = demo("live-suspend", json!({}));
    let (_, mut client) = Client::pair(program.port());
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    let before = viewer.video.packet().0;
    viewer.command(&mut client, 2);
    let mut last = before;
    // What is under way still comes; then there are reports and no picture between them.
    let mut reports = 0;
    while reports < 2 {
        match viewer.video.hear() {
            Came::Packet { header, .. } => (last, reports) = (header, 0),
            Came::Reports { bye, .. } => {
                assert!(!bye);
                reports += 1;
            }
        }
    }
    viewer.command(&mut client, 3);
    let (after, payload) = viewer.video.packet();
    assert_eq!(payload[0] & 31, 24, "it goes on with a key frame");
    assert_eq!((after.sequence, after.ssrc), (last.sequence.wrapping_add(1), before.ssrc));
    assert!((1..1 << 31).contains(&after.timestamp.wrapping_sub(last.timestamp)));
    // A smaller picture is asked for, which the camera does not have: it goes on with what there is.
    viewer.reconfigure(&mut client, Wish { width: 640, height: 360, kbps: 132, ..AT_HOME });
    let mut depacketiser = Depacketiser::default();
    depacketiser.push(after, &payload);
    for _ in 0..20 {
        viewer.video.picture(&mut depacketiser);
    }
}

#[test]
fn garbage_and_other_peoples_packets_change_nothing() {
    let (_folder, program) = demo("live-garbage", json!({}));
    let (who, mut client) = Client::pair(program.port());
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..2_000_usize {
        let bytes: Vec<u8> = (0..n % 1_700).map(|i| (i * 31 + n) as u8).collect();
        let to = if n % 2 == 0 { viewer.video.camera } else { viewer.audio.camera };
        stranger.send_to(&bytes, to).unwrap();
    }
    // The keys of the first service do not open anything of the second.
    let header = rtp::Header { marker: false, payload_type: 110, sequence: 1, timestamp: 2, ssrc: AUDIO_SSRC };
    let mut other = Client::verified(program.port(), &who);
    let mut second = Viewer::set_up(&mut other, 1).unwrap();
    second.start(&mut other, AT_HOME);
    second.audio.camera = viewer.audio.camera;
    second.audio.send(&header, &[0x48; 20]);
    viewer.video.send_report(VIDEO_SSRC);
    viewer.audio.send(&header, &[0x48; 20]);
    let mut depacketiser = Depacketiser::default();
    for _ in 0..20 {
        viewer.video.picture(&mut depacketiser);
    }
    // The second one never heard on its own audio port that anything is wrong.
    second.video.packet();
}

#[test]
fn setting_up_again_and_again_does_not_use_up_the_descriptors() {
    let (_folder, program) = demo("live-again", json!({}));
    let (_, mut client) = Client::pair(program.port());
    let open = || std::fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("a process").count();
    let before = open();
    let most = (0..40).map(|_| {
        Viewer::set_up(&mut client, 0).unwrap();
        open() - before
    });
    // Two for the last one, two for each whose ports are still open for a moment.
    let most = most.max().unwrap();
    assert!(most <= 14, "{most}");
}

/// A stream of another size than the demo's, with a key frame every second.
fn small_clip() -> Vec<u8> {
    let vectors: Json = serde_json::from_str(include_str!("vectors/fmp4.json")).expect("JSON");
    let unhex = |name: &str| {
        let hex = vectors["params"][name].as_str().expect("hex");
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let mut clip = Vec::new();
    for n in 0..30 {
        let slice = if n % 10 == 0 { [0x65, 0x88] } else { [0x41, 0x9a] };
        let sets: &[Vec<u8>] = if n % 10 == 0 { &[unhex("sps"), unhex("pps")] } else { &[] };
        for nal in sets.iter().cloned().chain([[&slice[..], &[0x55; 700]].concat()]) {
            clip.extend([0, 0, 0, 1]);
            clip.extend(nal);
        }
    }
    clip
}

#[test]
fn who_asks_for_little_gets_the_small_stream() {
    let folder = Folder::new("live-small");
    let clip = folder.path("small.h264");
    std::fs::write(&clip, small_clip()).expect("written");
    let config = folder.config(json!({
        "video": {"source": "demo", "live_source": format!("file:{}", clip.display()), "fps": 10},
        "motion": {"mode": "api"},
    }));
    let program = Program::run(&folder, &config);
    watchable(&program);
    let (_, mut client) = Client::pair(program.port());
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    let remote = Wish { width: 640, height: 360, kbps: 132, ..AT_HOME };
    viewer.start(&mut client, remote);
    let mut depacketiser = Depacketiser::default();
    depacketiser.may_be_cut = true;
    let mut sets = |viewer: &mut Viewer| loop {
        let (_, picture) = viewer.video.picture(&mut depacketiser);
        if types(&picture)[0] == 7 {
            return picture[0].clone();
        }
    };
    let small = sets(&mut viewer);
    let status = program.status();
    let (width, height) = (status["live"][0]["width"].as_u64(), status["live"][0]["height"].as_u64());
    assert!(width < Some(1280) && height < Some(720), "{status}");
    viewer.reconfigure(&mut client, AT_HOME);
    // In the middle of the small stream's GOP, with the same numbers and the same line of time.
    eventually("the large stream", || (sets(&mut viewer) != small).then_some(()));
    assert_eq!(program.status()["live"][0]["width"], 1280);
    viewer.reconfigure(&mut client, remote);
    eventually("the small stream", || (sets(&mut viewer) == small).then_some(()));
}

#[test]
fn a_small_stream_that_has_fallen_silent_is_nothing_to_watch() {
    let folder = Folder::new("live-silent");
    let fifo = folder.path("small");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let config = folder.config(json!({
        "video": {"source": "demo", "live_source": format!("fifo:{}", fifo.display())}, "motion": {"mode": "api"},
    }));
    let program = Program::run(&folder, &config);
    watchable(&program);
    let (_, mut client) = Client::pair(program.port());
    let mut width = || {
        let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
        viewer.start(&mut client, Wish { width: 640, height: 360, kbps: 132, ..AT_HOME });
        viewer.video.packet();
        let width = program.status()["live"][0]["width"].as_u64();
        viewer.command(&mut client, 0);
        width
    };
    let mut writer = std::fs::File::options().write(true).open(fifo).expect("the FIFO");
    writer.write_all(&small_clip()).expect("taken");
    assert!(eventually("the small stream", || width().filter(|width| *width < 1280)) > 0);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(width(), Some(1280), "its last picture is there still, but nothing comes after it");

    // Nor is it while somebody watches it.
    let is_small = || program.status()["live"][0]["width"].as_u64() < Some(1280);
    let (enough, feeding) = std::sync::mpsc::channel::<()>();
    let camera = std::thread::spawn(move || {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        while feeding.recv_timeout(Duration::from_millis(300)) == Err(Timeout) {
            writer.write_all(&small_clip()).expect("taken");
        }
        writer
    });
    let mut viewer = eventually("the small stream again", || {
        let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
        viewer.start(&mut client, Wish { width: 640, height: 360, kbps: 132, ..AT_HOME });
        viewer.video.packet();
        if is_small() {
            return Some(viewer);
        }
        viewer.command(&mut client, 0);
        None
    });
    drop(enough);
    let _still_open = camera.join().expect("it has written");
    eventually("the full size instead", || (!is_small()).then_some(()));
    assert_eq!(program.said("the small stream has stopped, full size instead").len(), 1);
    let mut depacketiser = Depacketiser::default();
    while types(&viewer.video.picture(&mut depacketiser).1)[0] != 7 {}
}

#[test]
fn a_source_that_dies_ends_recording_and_view() {
    let folder = Folder::new("source-dies");
    let clip = feeder::access_units(include_bytes!("../src/source/demo/video.h264"));
    let camera = feeder::Feeder::new(folder.path("video"), Duration::from_millis(33));
    let config = folder.config(json!({
        "video": {"source": format!("fifo:{}", folder.path("video").display()), "fps": 30},
        "motion": {"mode": "api", "hold_s": 120},
    }));
    let program = Program::run(&folder, &config);
    camera.play(&clip);
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    client.subscribe("110", "120");
    program.wait_status("the prebuffer fills", |s| s["prebuffer"]["held_s"].as_f64() > Some(4.0));
    client.motion(&program);
    let mut stream = client.data_stream();
    stream.open(1);
    assert!(stream.segment(1).is_init);
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    viewer.video.packet();
    assert_eq!(streaming(&mut client, 0), IN_USE);

    // The encoder is killed. Hub and viewer are told in time, and not before it could have come back.
    camera.leave();
    let gone = Instant::now();
    let reason = loop {
        match stream.hear() {
            Some(hub::Heard::Close { stream_id: 1, reason }) => break reason,
            Some(hub::Heard::Segment(segment)) => assert!(!segment.end_of_stream),
            other => panic!("{other:?}"),
        }
    };
    let closed = gone.elapsed().as_secs();
    viewer.video.wait_bye();
    let ended = gone.elapsed().as_secs();
    assert!(reason == 5 && (4..9).contains(&closed) && (9..14).contains(&ended), "{reason}, {closed} s, {ended} s");
    wait_streaming(&mut client, 0, AVAILABLE);
    program.wait_said("live view 1 ended: the source is gone");
    // Motion that nobody can record is over, although its hold is not.
    let status = program.wait_status("no motion", |s| s["motion"]["on"] == false);
    assert_eq!((&status["recording"]["active"], &status["source"]["state"]), (&json!(false), &json!("stalled")));

    // It comes back, and so does everything else.
    camera.play(&clip);
    program.wait_status("pictures", |s| s["source"]["state"] == "running");
    program.verb(&["motion", "on"]);
    stream.open(2);
    assert!(stream.segment(2).is_init);
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    viewer.video.packet();
    program.stop();
}

/// In front of the C library: the wall clock is off by the seconds in the file `JUMP`. Whoever is told so leaves a trace.
#[cfg(target_env = "gnu")]
const JUMPING_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    int result = syscall(SYS_clock_gettime, id, t);
    const char *path = getenv("JUMP");
    char text[32] = {0};
    int file = id == CLOCK_REALTIME && path ? open(path, O_RDWR) : -1;
    if (file >= 0) {
        if (read(file, text, 12) > 0) t->tv_sec += atol(text);
        pwrite(file, " told", 5, 20);
        close(file);
    }
    return result;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"#;

#[cfg(target_env = "gnu")]
#[test]
fn the_wall_clock_may_jump() {
    let folder = Folder::new("live-clock");
    let [source, library, jump] = ["clock.c", "clock.so", "jump"].map(|name| folder.path(name));
    std::fs::write(&source, JUMPING_CLOCK).expect("written");
    let mut cc = std::process::Command::new("cc");
    let built = cc.args(["-shared", "-fPIC", "-w", "-o"]).args([&library, &source]).status();
    assert!(built.expect("a C compiler, as for linking").success());
    let config = folder.config(json!({"video": {"source": "demo"}, "motion": {"mode": "api", "hold_s": 120}}));
    let program = Program::run_with(&folder, &config, &[("LD_PRELOAD", &library), ("JUMP", &jump)]);
    watchable(&program);
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    client.motion(&program);
    let mut stream = client.data_stream();
    stream.open(1);
    assert!(stream.segment(1).is_init);
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    let mut depacketiser = Depacketiser::default();
    let mut last = viewer.video.picture(&mut depacketiser).0;
    // A year on, as NTP does after a power cut; and back.
    for by in ["34560000    ", "-34560000   "] {
        std::fs::write(&jump, by).expect("written");
        for _ in 0..30 {
            let (time, _) = viewer.video.picture(&mut depacketiser);
            let step = time.wrapping_sub(last);
            assert!(step < 45_000, "{step} ticks after {by}");
            last = time;
        }
        let fragment = stream.segment(1);
        assert!(!fragment.is_init && !fragment.end_of_stream);
        let lasted = hub::runs(&fragment.bytes)[0].duration;
        assert!((90_000..900_000).contains(&lasted), "{lasted}");
        // Whoever begins now is told the time as it is.
        let mut other = Viewer::set_up(&mut client, 1).unwrap();
        other.start(&mut client, AT_HOME);
        other.video.packet();
        other.command(&mut client, 0);
        assert!(std::fs::read(&jump).expect("there").ends_with(b" told"), "the program saw the jump");
    }
    assert_eq!(program.status()["recording"]["active"], true);
    program.stop();
}

#[cfg(feature = "opus")]
mod sound {
    use super::*;
    use hksvd::live::opus::{Decoder, Encoder};
    use std::io::Read;

    /// Sound of the camera: so many packets without a gap, decoded.
    fn listen(viewer: &mut Viewer, packets: usize, step: u32) -> Vec<i16> {
        let (pcm, steps) = hear(viewer, packets);
        assert!(steps.iter().all(|other| *other == step), "the negotiated packet time: {steps:?}");
        pcm
    }

    /// Sound of the camera, and the steps of its time from packet to packet.
    fn hear(viewer: &mut Viewer, packets: usize) -> (Vec<i16>, Vec<u32>) {
        let mut decoder = Decoder::new(24_000);
        let (mut pcm, mut steps, mut last) = (Vec::new(), Vec::new(), None::<rtp::Header>);
        for _ in 0..packets {
            let (header, payload) = viewer.audio.packet();
            assert_eq!(header.payload_type, 110);
            if let Some(last) = last {
                assert_eq!(header.sequence, last.sequence.wrapping_add(1));
                steps.push(header.timestamp.wrapping_sub(last.timestamp));
            }
            last = Some(header);
            let mut room = [0; 2_880];
            let n = decoder.decode(&payload, &mut room).expect("Opus");
            pcm.extend_from_slice(&room[..n]);
        }
        (pcm, steps)
    }

    fn loudness(pcm: &[i16]) -> u64 {
        pcm.iter().map(|s| i64::from(*s).pow(2) as u64).sum::<u64>() / pcm.len() as u64
    }

    #[test]
    fn the_microphone_is_heard_and_its_switch_obeyed() {
        let (_folder, program) = demo("live-sound", json!({}));
        let (who, mut client) = Client::pair(program.port());
        let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
        viewer.start(&mut client, AT_HOME);
        let pcm = listen(&mut viewer, 50, 480);
        // A second, and at the rate of the clock.
        assert_eq!(pcm.len(), 24_000);
        assert!(loudness(&pcm[4_800..]) > 1_000, "{}", loudness(&pcm));
        assert_eq!(program.status()["live"][0]["audio"], "opus 24000 Hz");

        // Another one at another rate, 60 ms a packet.
        let mut other = Client::verified(program.port(), &who);
        let mut slow = Viewer::set_up(&mut other, 1).unwrap();
        slow.start(&mut other, Wish { rate_code: 1, packet_ms: 60, ..AT_HOME });
        assert!(loudness(&listen(&mut slow, 15, 960)[4_800..]) > 1_000);

        client.write("112", "11A", json!(1));
        eventually("silence", || (loudness(&listen(&mut viewer, 10, 480)) < 10).then_some(()));
        client.write("112", "11A", json!(0));
        eventually("sound", || (loudness(&listen(&mut viewer, 10, 480)) > 1_000).then_some(()));
    }

    /// Oscillations a second, by the zero crossings.
    fn frequency_hz(pcm: &[i16], rate_hz: usize) -> usize {
        let rising = pcm.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        rising * rate_hz / pcm.len()
    }

    /// A second of 440 Hz at 16 kHz in S16LE, in pieces of so many bytes. It joins on to itself.
    fn tone(piece: usize) -> feeder::Clip {
        let sample = |i: u32| (f64::from(i) * 440.0 * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0;
        let bytes: Vec<u8> = (0..16_000).flat_map(|i| (sample(i) as i16).to_le_bytes()).collect();
        bytes.chunks(piece).map(<[u8]>::to_vec).collect::<Vec<_>>().into()
    }

    /// Listens until half a second in a row is the tone and nothing else, without a gap.
    fn wait_tone(viewer: &mut Viewer) {
        eventually("a tone of 440 Hz", || {
            let (pcm, steps) = hear(viewer, 25);
            let is_whole = steps.iter().all(|step| *step == 480);
            let is_tone = (435..445).contains(&frequency_hz(&pcm, 24_000)) && loudness(&pcm) > 20_000_000;
            (is_whole && is_tone).then_some(())
        });
    }

    #[test]
    fn samples_from_a_fifo_are_heard_and_not_recorded() {
        let folder = Folder::new("live-pcm");
        let path = folder.path("pcm");
        let feeder = feeder::Feeder::new(path.clone(), Duration::from_millis(20));
        let config = folder.config(json!({
            "video": {"source": "demo"}, "motion": {"mode": "api"},
            "audio": {"source": format!("fifo:{}", path.display()), "codec": "l16", "rate_hz": 16_000},
        }));
        let program = Program::run(&folder, &config);
        watchable(&program);
        let (_, mut client) = Client::pair(program.port());
        let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
        viewer.start(&mut client, AT_HOME);
        // Not that of the clip, which is not asked for.
        viewer.video.packet();
        assert_eq!(program.status()["source"]["audio"], "none");
        // Pieces of 20 ms that end in the middle of samples.
        let torn = tone(641);
        feeder.play(&torn);
        wait_tone(&mut viewer);
        let status = program.status();
        assert_eq!(status["source"]["audio"], "L16 16000 Hz, live view alone");
        assert_eq!(status["live"][0]["audio"], "opus 24000 Hz");

        // The writer goes away in the middle of a sample; what comes next is not shifted by it.
        feeder.write(&[7; 333]);
        feeder.leave();
        program.wait_said("its writer has gone away");
        feeder.play(&torn);
        wait_tone(&mut viewer);
        // It falls silent in the middle of a sample and begins anew, with a second of sound at once: of that a fifth is
        // heard, and then what is on time. One that delivers in blocks is heard as well as any.
        feeder.write(&[7; 333]);
        program.wait_said("its writer is silent");
        feeder.write(&torn.concat());
        // Blocks of 100 ms.
        let blocks =
            tone(3_200).iter().flat_map(|block| [&block[..], b"", b"", b"", b""].map(<[u8]>::to_vec)).collect();
        feeder.play(&std::sync::Arc::new(blocks));
        wait_tone(&mut viewer);
        viewer.video.packet();

        let warned = "audio: L16 cannot be recorded, that takes AAC-LC; silence instead";
        assert_eq!(program.said(warned).len(), 1);
        assert_eq!(program.status()["warnings"], json!([warned]));
        let file = folder.path("clip.mp4");
        program.verb(&["clip", file.to_str().unwrap(), "--seconds", "2"]);
        let clip = std::fs::read(file).expect("a clip");
        assert!(!clip.windows(4).any(|kind| kind == b"mp4a"), "no track of sound");
    }

    #[test]
    fn what_is_said_comes_out_of_the_speaker() {
        let folder = Folder::new("live-talk");
        let path = folder.path("speaker");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let config = folder.config(json!({
            "video": {"source": "demo"}, "motion": {"mode": "api"},
            "speaker": {"sink": format!("fifo:{}", path.display()), "rate_hz": 16_000},
        }));
        let program = Program::run(&folder, &config);
        watchable(&program);
        let (_, mut client) = Client::pair(program.port());
        let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
        viewer.start(&mut client, AT_HOME);
        viewer.video.packet();
        // Nobody reads yet: what is said is lost, nothing else.
        let mut talk = Talker::default();
        talk.say(&mut viewer, 10);
        program.wait_said("speaker.sink: nobody reads it");
        std::thread::sleep(Duration::from_millis(600));
        let (sender, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut fifo = std::fs::File::open(path).expect("the FIFO");
            let mut bytes = [0; 640];
            while fifo.read_exact(&mut bytes).is_ok() && sender.send(bytes.to_vec()).is_ok() {}
        });
        std::thread::sleep(Duration::from_millis(200));
        talk.say(&mut viewer, 60);
        let mut pcm = Vec::new();
        while pcm.len() < 16_000 {
            let bytes = heard.recv_timeout(PATIENCE).expect("what was said");
            pcm.extend(bytes.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])));
        }
        let middle = &pcm[4_000..14_000];
        assert!((430..450).contains(&frequency_hz(middle, 16_000)), "{} Hz", frequency_hz(middle, 16_000));
        assert!(loudness(middle) > 1_000_000, "{}", loudness(middle));
        // The speaker is switched off in Home.
        std::thread::sleep(Duration::from_millis(800));
        client.write("113", "11A", json!(1));
        while heard.try_recv().is_ok() {}
        talk.say(&mut viewer, 30);
        for _ in 0..20 {
            assert!(heard.recv_timeout(PATIENCE).expect("silence").iter().all(|byte| *byte == 0));
        }
    }

    /// A tone of 440 Hz in packets of 20 ms: sampled at 16 kHz, with the RTP clock that was negotiated.
    #[derive(Default)]
    struct Talker {
        sequence: u16,
        encoder: Option<Encoder>,
    }

    impl Talker {
        fn say(&mut self, viewer: &mut Viewer, packets: u32) {
            let encoder = self.encoder.get_or_insert_with(|| Encoder::new(16_000, 24));
            let start = Instant::now();
            for n in 0..packets {
                let at = u32::from(self.sequence) * 320;
                let tone = |i: u32| ((at + i) as f64 * 440.0 * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0;
                let pcm: Vec<i16> = (0..320).map(|i| tone(i) as i16).collect();
                let mut packet = [0; 600];
                let len = encoder.encode(&pcm, &mut packet).expect("encoded");
                let header = rtp::Header {
                    marker: n == 0,
                    payload_type: 110,
                    sequence: self.sequence,
                    timestamp: at / 2 * 3,
                    ssrc: AUDIO_SSRC,
                };
                viewer.audio.send(&header, &packet[..len]);
                self.sequence += 1;
                std::thread::sleep(Duration::from_millis(20 * u64::from(n + 1)).saturating_sub(start.elapsed()));
            }
        }
    }
}
