//! Encoders that write into a FIFO, with all that they do to it, and the real program behind it.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/feeder.rs"]
mod feeder;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/playable.rs"]
mod playable;
#[path = "common/program.rs"]
mod program;

use feeder::{Clip, Feeder, access_units, adts_frames};
use hub::Heard;
use program::{Client, Folder, Program};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::time::Duration;

/// 1280x720, 480 pictures with an IDR picture every 30; and its sound.
const LARGE: &[u8] = include_bytes!("../src/source/demo/video.h264");
const AUDIO: &[u8] = include_bytes!("../src/source/demo/audio.aac");
/// 320x180, 30 pictures with an IDR picture every 15.
const SMALL: &[u8] = include_bytes!("media/small.h264");

/// Pictures a second: the large clip has its key frames a second apart then.
const FPS: u32 = 30;

fn video(folder: &Folder) -> Feeder {
    Feeder::new(folder.path("video"), Duration::from_secs(1) / FPS)
}

/// 1024 samples at 16 kHz.
fn audio(folder: &Folder) -> Feeder {
    let feeder = Feeder::new(folder.path("audio"), Duration::from_millis(64));
    feeder.play(&adts_frames(AUDIO));
    feeder
}

fn config(folder: &Folder) -> PathBuf {
    folder.config(json!({
        "video": {"source": format!("fifo:{}", folder.path("video").display()), "fps": FPS},
        "audio": {"source": format!("fifo:{}", folder.path("audio").display())},
        "motion": {"mode": "api"},
    }))
}

fn number(value: &Json) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Waits until pictures come in, and come out of the assembler, again.
fn wait_running(program: &Program) -> Json {
    let frames = number(&program.status()["frames"]);
    program.wait_status("pictures come", |s| {
        s["source"]["state"] == "running" && number(&s["frames"]) > frames + u64::from(FPS) / 2
    })
}

/// The middle of the slice of an access unit.
fn halves(clip: &Clip, unit: usize) -> (&[u8], &[u8]) {
    clip[unit].split_at(clip[unit].len() - clip[unit].len() / 4)
}

#[test]
fn access_units_are_cut_where_they_begin() {
    let clip = access_units(LARGE);
    assert_eq!((clip.len(), access_units(SMALL).len()), (480, 30));
    let is_key = |unit: &Vec<u8>| unit.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 5);
    assert!(clip.iter().enumerate().all(|(i, unit)| is_key(unit) == (i % 30 == 0)));
    assert_eq!(adts_frames(AUDIO).len(), 500);
}

#[test]
fn what_encoders_do_to_a_fifo_is_survived_and_counted() {
    let folder = Folder::new("fifo");
    let (video, _audio) = (video(&folder), audio(&folder));
    let large = access_units(LARGE);
    let program = Program::run(&folder, &config(&folder));
    let status = program.status();
    assert_eq!((&status["source"]["state"], &status["frames"]), (&json!("waiting"), &json!(0)));

    // From the middle of a NAL unit.
    video.write(halves(&large, 0).1);
    video.play(&large);
    let status = wait_running(&program);
    assert_eq!((&status["source"]["width"], &status["source"]["height"]), (&json!(1280), &json!(720)));
    program.wait_status("the sound", |s| s["source"]["audio"] == "AAC-LC 16000 Hz");
    let fps = program.wait_status("the rate is measured", |s| s["source"]["gop_s"].as_f64() > Some(0.0));
    let fps = fps["source"]["fps"].as_f64().unwrap();
    assert!((20.0..40.0).contains(&fps), "{fps} pictures a second");
    let quiet = number(&program.status()["resyncs"]);
    assert_eq!(quiet, 0, "a start in the middle is none");

    // The writer goes away in the middle of a NAL unit, and the next begins in the middle of another.
    video.write(halves(&large, 7).0);
    video.leave();
    program.wait_said("its writer has gone away");
    program.wait_status("counted", |s| number(&s["resyncs"]) > quiet);
    video.write(halves(&large, 3).1);
    video.play(&large);
    let gone = number(&wait_running(&program)["resyncs"]);

    // Bytes that are no H.264, in the middle of a picture.
    let garbage = [halves(&large, 5).0, b"\0\0\x01\xffHTTP/1.1 404 Not Found\r\n\r\n\0\0\x01\x9c" as &[u8]].concat();
    video.write(&garbage);
    video.play(&large);
    program.wait_status("counted", |s| number(&s["resyncs"]) > gone);
    let garbled = number(&wait_running(&program)["resyncs"]);

    // Somebody sets the encoder to H.265, and back.
    let h265 = [0x40, 0x42, 0x44, 0x26, 0x02, 0x02].map(|header| [&[0, 0, 0, 1, header, 1][..], &[0x55; 900]].concat());
    video.write(&h265.concat().repeat(20));
    program.wait_said("H.265, and HomeKit takes H.264 only: set the encoder to H.264, or name another stream");
    video.play(&large);
    wait_running(&program);

    // Silence, though the FIFO is open.
    video.write(&large[0]);
    let stalled = program.wait_status("it is stalled", |s| s["source"]["state"] == "stalled");
    assert_eq!(stalled["state"], "unpaired");
    program.wait_said("its writer is silent");

    // A pause within a picture: what came before it is taken for all of it.
    let frames = number(&program.status()["frames"]);
    video.write(halves(&large, 1).0);
    program.wait_status("taken for whole", |s| number(&s["frames"]) == frames + 1);
    video.write(halves(&large, 1).1);
    video.play(&large);
    program.wait_status("counted", |s| number(&s["resyncs"]) > garbled);
    let torn = number(&wait_running(&program)["resyncs"]);

    // A second time nothing of it is worth a line in the log, and all of it is counted.
    video.write(halves(&large, 7).0);
    video.leave();
    program.wait_status("counted", |s| number(&s["resyncs"]) > torn);
    video.write(&garbage);
    video.play(&large);
    program.wait_status("counted", |s| number(&s["resyncs"]) > torn + 1);
    wait_running(&program);
    for once in ["its writer has gone away", "its writer is silent", "not H.264", "a picture broke off", "H.265"] {
        assert_eq!(program.said("WARN").iter().filter(|line| line.contains(once)).count(), 1, "{once}");
    }

    // Nobody has armed recording: a clip begins with the next key frame.
    let file = folder.path("clip.mp4");
    program.verb(&["clip", file.to_str().unwrap(), "--seconds", "2"]);
    let clip = std::fs::read(file).expect("a clip");
    let (init, fragments) = playable::split(&clip);
    assert_eq!(playable::size(init), (1280, 720));
    let played = playable::check(init, &fragments, 4_000, Some(16_000));
    assert!(played.video_90k >= 2 * 90_000, "{played:?}");
    program.stop();
}

#[test]
fn a_recording_ends_where_the_pictures_change_and_the_next_shows_the_new_ones() {
    let folder = Folder::new("sps");
    let (video, _audio) = (video(&folder), audio(&folder));
    let program = Program::run(&folder, &config(&folder));
    video.play(&access_units(LARGE));
    program.wait_status("the sound", |s| s["source"]["audio"] == "AAC-LC 16000 Hz");
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    program.wait_status("the prebuffer fills", |s| s["prebuffer"]["held_s"].as_f64() > Some(4.0));
    client.motion(&program);
    let mut stream = client.data_stream();
    stream.open(1);
    let init = stream.segment(1);
    assert!(init.is_init);
    let mut fragments = vec![stream.segment(1).bytes];
    video.play(&access_units(SMALL));
    let reason = loop {
        match stream.hear() {
            Some(Heard::Segment(segment)) => {
                fragments.push(segment.bytes);
                assert!(!segment.end_of_stream && fragments.len() < 5, "the change is seen");
            }
            Some(Heard::Close { stream_id: 1, reason }) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, 5);
    let played = playable::check(&init.bytes, &fragments, 4_000, Some(16_000));
    assert!(played.video_90k >= 4 * 90_000, "{played:?}");
    assert_eq!(playable::size(&init.bytes), (1280, 720));
    let status = program.status();
    assert_eq!((&status["recording"]["active"], &status["source"]["width"]), (&json!(false), &json!(320)));

    // The motion goes on: the hub opens anew.
    stream.open(2);
    let second = stream.segment(2);
    assert!(second.is_init);
    assert_eq!(playable::size(&second.bytes), (320, 180));
    let fragments = [stream.segment(2).bytes, stream.segment(2).bytes];
    playable::check(&second.bytes, &fragments, 4_000, Some(16_000));
    stream.close(2);
    program.wait_status("the recording ends", |s| s["recording"]["active"] == false);

    // Armed, a clip is what a hub would get.
    let file = folder.path("clip.mp4");
    program.verb(&["clip", file.to_str().unwrap(), "--seconds", "3"]);
    let clip = std::fs::read(file).expect("a clip");
    let (init, fragments) = playable::split(&clip);
    assert_eq!(playable::size(init), (320, 180));
    assert!(playable::check(init, &fragments, 4_000, Some(16_000)).video_90k >= 3 * 90_000);
    program.stop();
}

#[test]
fn motion_needs_no_pictures() {
    let folder = Folder::new("api");
    let program = Program::run(&folder, &config(&folder));
    program.wait_said("cannot be opened");
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    client.motion(&program);
    assert_eq!(program.status()["motion"]["on"], true);
    assert_eq!(program.status()["source"]["state"], "waiting");
    // A hub is told in time that nothing comes.
    let mut stream = client.data_stream();
    stream.open(1);
    assert_eq!(stream.hear(), Some(Heard::Close { stream_id: 1, reason: 6 }));
    program.verb(&["motion", "off"]);
    client.wait_event("85", "22", false);
    program.stop();
}
