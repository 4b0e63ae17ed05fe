//! A home hub records from the real program over loopback: from the setup code to the second clip.
#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/playable.rs"]
mod playable;
#[path = "common/program.rs"]
mod program;

use hub::Heard;
use program::{CODE, Client, Folder, Program, eventually};
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// The database without what differs from camera to camera: the values.
fn shape(mut database: Json) -> Json {
    for service in database["accessories"][0]["services"].as_array_mut().expect("services") {
        for characteristic in service["characteristics"].as_array_mut().expect("characteristics") {
            if let Some(value) = characteristic.get_mut("value") {
                *value = json!("a value");
            }
        }
    }
    database
}

/// Receives until the recording has so many fragments.
fn record(stream: &mut program::DataStream, id: i64, fragments: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let init = stream.segment(id);
    assert!(init.is_init);
    let mut next = || {
        let segment = stream.segment(id);
        assert!(!segment.end_of_stream, "the hub ends it");
        segment.bytes
    };
    (init.bytes, (0..fragments).map(|_| next()).collect())
}

/// What comes behind the segments that were under way.
fn behind_segments(stream: &mut program::DataStream) -> Option<Heard> {
    for _ in 0..4 {
        match stream.hear() {
            Some(Heard::Segment(segment)) => assert!(!segment.end_of_stream),
            other => return other,
        }
    }
    panic!("the recording goes on");
}

#[test]
fn a_hub_pairs_records_twice_and_unpairs() {
    let folder = Folder::new("recording");
    let program = Program::demo(&folder);
    let (who, mut client) = Client::pair(program.port());
    let known: Json = serde_json::from_str(include_str!("vectors/accessories.json")).unwrap();
    assert_eq!(shape(client.accessories().clone()), shape(known["camera"].clone()));

    let selection = client.arm(true);
    assert_eq!((selection.fragment_ms, selection.prebuffer_ms, selection.audio_rate_hz), (4_000, 4_000, 16_000));
    assert_eq!(program.status()["recording_armed"], true);
    program.wait_status("the prebuffer fills", |s| s["prebuffer"]["held_s"].as_f64() > Some(4.0));
    let moved = Instant::now();
    client.motion(&program);

    let mut stream = client.data_stream();
    let opened = Instant::now();
    stream.open(1);
    let (init, fragments) = record(&mut stream, 1, 4);
    // The last fragment came when it was whole: what is more than the time since then was before.
    let [moved, opened] = [moved, opened].map(|then| then.elapsed().as_millis() as u64);
    let played = playable::check(&init, &fragments, 4_000, Some(16_000));
    let played_ms = played.video_90k / 90;
    // 4 s of prebuffer. A slow machine takes its time for the last fragment, and from the motion until it opens.
    assert!(played_ms >= opened + 2_500, "opened {opened} ms ago: {played:?}");
    assert!(played_ms > moved, "motion {moved} ms ago: {played:?}");
    assert_eq!(playable::size(&init), (1280, 720));
    let status = program.status();
    assert_eq!((&status["state"], &status["recording"]["active"]), (&json!("recording"), &json!(true)));
    assert_eq!(status["recording"]["hub"], who.id);

    program.verb(&["motion", "off"]);
    client.wait_event("85", "22", false);
    stream.close(1);
    program.wait_status("the recording ends", |s| s["recording"]["active"] == false);

    // Again on the same data stream.
    client.motion(&program);
    stream.open(2);
    let (again, fragments) = record(&mut stream, 2, 1);
    assert_eq!(again, init, "the same parameters, the same init segment");
    let played = playable::check(&again, &fragments, 4_000, Some(16_000));
    assert!(played.video_90k >= 3 * 90_000, "with its own prebuffer: {played:?}");
    stream.close(2);

    assert_eq!(client.controller.remove_pairing(&mut client.socket, &who.id), None);
    client.wait_closed();
    assert_eq!(stream.hear(), None, "the data stream goes with the pairing");
    let status = program.wait_status("unpaired", |s| s["paired"] == false);
    assert_eq!((&status["state"], &status["recording_armed"]), (&json!("unpaired"), &json!(false)));
    program.stop();
}

#[test]
fn no_sound_leaves_the_camera_and_sigterm_ends_a_recording() {
    let folder = Folder::new("silent");
    let mut program = Program::demo(&folder);
    let (_, mut client) = Client::pair(program.port());
    client.arm(false);
    client.motion(&program);
    let mut stream = client.data_stream();
    stream.open(5);
    let (init, fragments) = record(&mut stream, 5, 1);
    assert_eq!(playable::check(&init, &fragments, 4_000, None).audio_frames, 0);
    assert!(!init.windows(4).any(|w| w == b"soun" || w == b"mp4a"));

    // Another connection, which has nothing to do with the recording, and one that never said anything.
    let mut idle = Client::plain(program.port());
    let told = Instant::now();
    program.terminate();
    assert_eq!(behind_segments(&mut stream), Some(Heard::Close { stream_id: 5, reason: 3 }), "cancelled");
    assert_eq!(stream.hear(), None);
    client.wait_closed();
    idle.wait_closed();
    assert_eq!(program.ended(Duration::from_secs(5)).code(), Some(0));
    // A debug build beside other tests; the release build is held to half of it.
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    assert!(!program.socket.exists());
}

#[test]
fn one_hub_records_and_the_camera_is_free_when_it_leaves() {
    let folder = Folder::new("hubs");
    let program = Program::demo(&folder);
    let (who, mut first) = Client::pair(program.port());
    first.arm(true);
    let mut second = Client::verified(program.port(), &who);
    first.motion(&program);
    let mut stream = first.data_stream();
    stream.open(1);
    assert!(stream.segment(1).is_init);

    let mut other = second.data_stream();
    let open = other.hub.open(9);
    let (status, body) = other.ask(&open);
    assert_eq!((status, body.int("status")), (6, 2), "busy");

    // A data stream goes with the connection that prepared it, whatever was under way.
    drop(first);
    assert_eq!(behind_segments(&mut stream), None);
    program.wait_status("the camera is free", |s| s["recording"]["active"] == false);
    other.open(10);
    assert!(other.segment(10).is_init);

    // Switched off: the recording ends, and nothing is kept of what was held.
    second.write("21A", "21B", json!(0));
    assert_eq!(behind_segments(&mut other), Some(Heard::Close { stream_id: 10, reason: 1 }), "not allowed");
    let status = program.status();
    assert_eq!((&status["state"], &status["prebuffer"]["bytes"]), (&json!("off"), &json!(0)));
    let open = other.hub.open(11);
    let (status, body) = other.ask(&open);
    assert_eq!((status, body.int("status")), (6, 1), "not allowed");
    program.stop();
}

/// Both ends of a terminal.
fn terminal() -> (File, File) {
    // SAFETY: no pointers; whoever gets the descriptor owns it.
    let ours = unsafe { File::from_raw_fd(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY)) };
    let mut name = [0; 64];
    // SAFETY: the descriptor is open, and the name has as much room as is said.
    unsafe {
        assert_eq!(libc::unlockpt(ours.as_raw_fd()), 0);
        assert_eq!(libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr(), name.len()), 0);
    }
    let name: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    let path = String::from_utf8(name).expect("a path");
    (ours, File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).expect("a terminal"))
}

#[test]
fn the_code_is_shown_to_a_person_and_not_to_a_log() {
    let folder = Folder::new("code");
    let config = folder.config(json!({"video": {"source": "demo"}}));
    let program = Program::run(&folder, &config);
    program.wait_said("`hksvd qr` shows the code to pair with");
    assert!(program.said(CODE).is_empty() && program.said("█").is_empty());
    program.stop();
    let (ours, theirs) = terminal();
    let mut daemon = program::hksvd(["run", "--config"]).arg(&config).stderr(theirs).spawn().expect("it starts");
    let lines: Vec<_> =
        BufReader::new(ours).lines().map_while(Result::ok).take_while(|l| !l.contains("code")).collect();
    daemon.kill().expect("killed");
    daemon.wait().expect("a child");
    assert!(lines.iter().filter(|line| line.contains("█")).count() > 10, "{lines:?}");
}

#[test]
fn continuous_motion_is_on_from_the_start() {
    let folder = Folder::new("continuous");
    let config = folder.config(json!({"video": {"source": "demo"}, "motion": {"mode": "continuous"}}));
    let program = Program::run(&folder, &config);
    let (_, mut client) = Client::pair(program.port());
    eventually("motion at the controller", || {
        let value = client.read("85", "22");
        (value == json!(1) || value == json!(true)).then_some(())
    });
    program.stop();
}
