//! Yi's cameras: the frame buffer, written by another process as it is documented, and the FIFOs of yi-hack.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[allow(dead_code)]
#[path = "common/feeder.rs"]
mod feeder;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/playable.rs"]
mod playable;
#[path = "common/program.rs"]
mod program;
#[path = "yi_stand_in/mod.rs"]
mod yi_stand_in;

use feeder::{Feeder, access_units, adts_frames};
use hksvd::io::runtime::{Executor, now, or, sleep_until};
use hksvd::source::{Sink, Track, Trouble, yi};
use hksvd::time::Instant;
use hksvd::wire::h264::AnnexB;
use hksvd::wire::yi::{Kind, Layout};
use program::{Client, Folder, Program};
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use yi_stand_in::{AUDIO, LARGE, SMALL, StandIn};

/// No test but the process that the others write their buffer with.
#[test]
#[ignore = "started by the other tests"]
fn the_other_process() {
    yi_stand_in::serve();
}

/// Takes in what a stream delivers and holds it against what was written.
#[derive(Default)]
struct Judge {
    pictures: HashSet<Vec<u8>>,
    sounds: HashSet<Vec<u8>>,
    seen: Vec<Instant>,
    heard: usize,
    troubles: Vec<Trouble>,
    lost: bool,
}

struct Bench(Rc<RefCell<Judge>>);

impl Sink for Bench {
    fn access_unit(&mut self, annexb: AnnexB<'_>, key: bool, arrival: Instant) {
        let mut judge = self.0.borrow_mut();
        assert!(judge.pictures.contains(annexb.bytes()), "a picture that nobody wrote");
        assert!(key || !judge.lost, "the first picture after a loss is a key frame");
        assert!(arrival <= now() && judge.seen.last().is_none_or(|last| arrival >= *last));
        judge.lost = false;
        judge.seen.push(arrival);
    }

    fn aac(&mut self, raw_frame: &[u8], rate_hz: u32, channels: u8, _: Instant) {
        let mut judge = self.0.borrow_mut();
        assert!(judge.sounds.contains(raw_frame) && (rate_hz, channels) == (16_000, 1));
        judge.heard += 1;
    }

    fn l16(&mut self, _: &[i16], _: u32, _: Instant) {}

    fn opus(&mut self, _: &[u8], _: Instant) {}

    fn trouble(&mut self, track: Track, trouble: Trouble) {
        let mut judge = self.0.borrow_mut();
        judge.lost |= track == Track::Video && trouble == Trouble::Overrun;
        judge.troubles.push(trouble);
    }
}

/// Reads from the stand-in until `done`.
fn read(stand_in: &StandIn, model: &str, kind: Kind, done: impl Fn(&Judge) -> bool) -> Judge {
    let clip = access_units(if kind == Kind::High { LARGE } else { SMALL });
    let judge = Rc::new(RefCell::new(Judge {
        pictures: clip.iter().cloned().collect(),
        sounds: adts_frames(AUDIO).iter().map(|frame| frame[7..].to_vec()).collect(),
        lost: true,
        ..Judge::default()
    }));
    let mut bench = Bench(judge.clone());
    Executor::default().block_on(or(
        async {
            let layout = Layout::of(model).expect("a model");
            panic!("it ends: {}", yi::play(&stand_in.root, layout, kind, true, 200_000, &mut bench).await);
        },
        async {
            let end = now() + Duration::from_secs(20);
            while !done(&judge.borrow()) {
                assert!(now() < end, "{} pictures, {:?}", judge.borrow().seen.len(), judge.borrow().troubles);
                sleep_until(now() + Duration::from_millis(5)).await;
            }
        },
    ));
    drop(bench);
    Rc::into_inner(judge).expect("nobody else has it").into_inner()
}

#[test]
fn frames_of_all_models_come_through() {
    for (model, order, kind) in [
        ("y20ga", "22 300 400000 units 10", Kind::High),
        ("y501gc", "24 368 400001 nals 10", Kind::High),
        ("r40ga", "26 300 400002 nals 10", Kind::Low),
        ("y623", "28 368 400003 units 10", Kind::High),
    ] {
        let stand_in = StandIn::start(model, order);
        let judge = read(&stand_in, model, kind, |judge| judge.seen.len() >= 100 && judge.heard > 10);
        let lost = judge.troubles.iter().filter(|trouble| **trouble == Trouble::Overrun).count();
        // A machine that is busy may keep the reader away for a whole circle.
        assert!(lost < 5, "{model}: {lost}");
    }
}

#[test]
fn a_reader_that_is_too_slow_loses_pictures_and_makes_up_none() {
    // More than a circle at once.
    let stand_in = StandIn::start("burst", "22 300 100000 units 0");
    let judge = read(&stand_in, "y20ga", Kind::High, |judge| {
        judge.troubles.contains(&Trouble::Overrun) && judge.seen.len() > 20
    });
    assert!(
        judge.troubles.iter().all(|trouble| matches!(trouble, Trouble::Missing | Trouble::Overrun)),
        "{:?}",
        judge.troubles
    );
}

#[test]
fn a_hub_records_from_the_frame_buffer() {
    let folder = Folder::new("yi");
    let stand_in = StandIn::start("hub", "28 368 1500000 nals 33");
    let config = folder.config(json!({"video": {"source": "yi:y21ga", "fps": 30}, "motion": {"mode": "api"}}));
    let buffer = stand_in.root.join("dev/shm/fshare_frame_buf");
    program::eventually("the buffer", || buffer.metadata().is_ok_and(|there| there.len() > 0).then_some(()));
    let check = &mut program::hksvd(["check", "--config"]);
    let (_, out, _) = program::finish(check.arg(&config).env("HKSVD_ROOT", &stand_in.root));
    assert!(
        out.contains("\nok       video: H.264 Main, 1280x720, ") && out.contains("\nok       audio: AAC-LC, 16000"),
        "{out}"
    );
    let program = Program::run_on(&stand_in.root, &folder, &config);
    program.wait_status("the sound", |s| s["source"]["audio"] == "AAC-LC 16000 Hz");
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    program.wait_status("the prebuffer fills", |s| s["prebuffer"]["held_s"].as_f64() > Some(4.0));
    client.motion(&program);
    let mut stream = client.data_stream();
    stream.open(1);
    let init = stream.segment(1);
    let fragments = [stream.segment(1).bytes, stream.segment(1).bytes];
    let played = playable::check(&init.bytes, &fragments, 4_000, Some(16_000));
    assert!(played.video_90k >= 4 * 90_000 && played.audio_frames > 40, "{played:?}");
    assert_eq!(playable::size(&init.bytes), (1280, 720));
    stream.close(1);
    program.stop();
}

#[test]
fn fifos_of_yi_hack_are_known_by_their_names() {
    let folder = Folder::new("yi-fifo");
    let path = folder.path("h264_high_fifo");
    let interval = Duration::from_millis(33);
    // The camera's own remarks are in front of each picture.
    let remark = b"\0\0\0\x01\x06\xf0\x06remark\x80";
    let clip = access_units(LARGE).iter().map(|unit| [&remark[..], unit].concat()).collect();
    let clip = Arc::new(clip);
    let video = Feeder::new(path.clone(), interval);
    video.play(&clip);
    let speaker = format!("fifo+yi:{}", folder.path("audio_in_fifo").display());
    let config = folder.config(json!({
        "video": {"source": format!("fifo+yi:{}", path.display()), "fps": 20},
        "speaker": {"sink": if cfg!(feature = "opus") { speaker.as_str() } else { "none" }},
        "motion": {"mode": "api"},
    }));
    let program = Program::run(&folder, &config);
    program.wait_status("pictures come", |s| s["frames"].as_u64() > Some(10));
    assert!(folder.path("audio_fifo.requested").exists());
    assert_eq!(folder.path("audio_in_fifo.requested").exists(), cfg!(feature = "opus"));
    // The sound comes later than the pictures, and as AAC later than as samples.
    let samples = Feeder::new(folder.path("audio_fifo"), Duration::from_millis(20));
    samples.play(&Arc::new(vec![vec![0; 320]]));
    let is_warned = |s: &Json| s["warnings"].to_string().contains("cannot be recorded");
    program.wait_status("samples", |s| s["source"]["audio"] != "none" && is_warned(s));
    let audio = Feeder::new(folder.path("aac_audio_fifo"), Duration::from_millis(64));
    audio.play(&adts_frames(AUDIO));
    program.wait_status("the sound", |s| s["source"]["audio"] == "AAC-LC 16000 Hz" && !is_warned(s));
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    program.wait_status("the prebuffer fills", |s| s["prebuffer"]["held_s"].as_f64() > Some(3.0));
    let file = folder.path("clip.mp4");
    program.verb(&["clip", file.to_str().expect("a path"), "--seconds", "2"]);
    let clip_file = std::fs::read(&file).expect("a clip");
    let (init, fragments) = playable::split(&clip_file);
    assert!(playable::check(init, &fragments, 4_000, Some(16_000)).video_90k >= 2 * 90_000);
    assert!(!clip_file.windows(6).any(|bytes| bytes == b"remark"), "not for those who watch");

    // The grabber starts again: it makes its FIFO anew.
    drop(video);
    std::fs::remove_file(&path).expect("it was there");
    let video = Feeder::new(path, interval);
    video.play(&clip);
    let frames = program.status()["frames"].as_u64().expect("a number");
    program.wait_status("it goes on", |s| s["frames"].as_u64() > Some(frames + 60));
    program.stop();
}
