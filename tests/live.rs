//! Live view by the real program: what a controller that watches gets, from the answer to its endpoints to the end.
#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[allow(dead_code)]
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
fn suspended_it_sends_no_pictures() {
    let (_folder, program) = demo("live-suspend", json!({}));
    let (_, mut client) = Client::pair(program.port());
    let mut viewer = Viewer::set_up(&mut client, 0).unwrap();
    viewer.start(&mut client, AT_HOME);
    let before = viewer.video.packet().0;
    viewer.command(&mut client, 2);
    let mut last = before;
    // What is under way still comes.
    while let Some(came) = viewer.video.hear_within(Duration::from_millis(400)) {
        match came {
            Came::Packet { header, .. } => last = header,
            Came::Reports { bye, .. } => {
                assert!(!bye);
                if viewer.video.hear_within(Duration::from_millis(300)).is_none() {
                    break;
                }
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
