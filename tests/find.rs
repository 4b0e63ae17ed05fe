//! The real program on cameras whose streams it has to find: on one that boots slowly, on one with another Raptor, on
//! one with FIFOs, on one with nothing. And what `hksvd check` says there.

#[allow(dead_code)] // the program takes what it needs
#[path = "common/controller.rs"]
mod controller;
#[allow(dead_code)]
#[path = "common/feeder.rs"]
mod feeder;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;
#[allow(dead_code)]
#[path = "raptor_stand_in/mod.rs"]
mod raptor_stand_in;

use feeder::Feeder;
use program::{Folder, PATIENCE, Program, finish, hksvd};
use raptor_stand_in::{AUDIO, LARGE, SMALL, StandIn};
use serde_json::{Value as Json, json};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// No test but the process that the others write their rings with.
#[test]
#[ignore = "started by the other tests"]
fn the_other_process() {
    raptor_stand_in::serve();
}

/// Nothing else of this machine is to be found below this root.
fn shut(root: &Path, settings: &str) {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    std::fs::create_dir_all(root.join("etc")).expect("a folder");
    let text = match settings {
        "raptor.conf" => format!("[rtsp]\nport = {port}\nusername = me\npassword = s3cret\n"),
        _ => format!("{{\"rtsp\": {{\"port\": {port}, \"password\": \"s3cret\"}}}}"),
    };
    std::fs::write(root.join("etc").join(settings), text).expect("settings");
}

/// Exit code and output of `hksvd check` there.
fn check(root: &Path, config: &Path) -> (i32, String) {
    let (code, out, err) = finish(hksvd(["check", "--config"]).arg(config).env("HKSVD_ROOT", root));
    assert_eq!(err, "", "{out}");
    assert!(!out.contains("s3cret"), "{out}");
    (code, out.replace(root.to_str().expect("UTF-8"), ""))
}

/// The frames a second and the seconds from key frame to key frame that were measured.
fn measured(out: &str) -> (f32, f32) {
    let video = out.lines().find(|line| line.contains("video: H.264 ")).expect(out);
    let part = |before: &str, behind: &str| {
        let number = video.split_once(behind).and_then(|(number, _)| number.rsplit_once(before));
        number.and_then(|(_, number)| number.parse().ok()).expect(out)
    };
    (part(", ", " frames/s"), part("a key frame every ", " s"))
}

/// What is proposed at the end, as a configuration that is good.
fn proposed(out: &str) -> Json {
    let json = out.split_once("beside what is set there:\n").expect("a proposal").1;
    hksvd::config::Config::parse(json).expect(json);
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn an_empty_machine_is_told_what_was_tried() {
    let folder = Folder::new("find-empty");
    shut(&folder.path("root"), "prudynt.json");
    let (code, out) = check(&folder.path("root"), &folder.config(json!({})));
    let said: Vec<&str> = out.lines().collect();
    assert_eq!(code, 1);
    assert_eq!(said[1], "tried    raptor: no ring in /dev/shm", "{out}");
    assert!(said[2].starts_with("tried    rtsp://…@127.0.0.1:"), "{out}");
    assert!(said[2].contains("/ch0 (by etc/prudynt.json): Connection refused"), "{out}");
    assert_eq!(said[5], "missing  video.source: not set, and nothing was found that gives H.264: name one", "{out}");
    assert!(!out.contains("proposed"));
}

#[test]
fn a_ring_is_found_measured_and_proposed() {
    let folder = Folder::new("find-ring");
    let mut stand_in = StandIn::start("find-ring");
    shut(&stand_in.root, "raptor.conf");
    stand_in.order("main embedded 32 1000000 large 0");
    stand_in.order("audio 97");
    let config = folder.config(json!({}));
    // What a machine that is held up does not publish in time it never does: then it is measured again.
    let mut tries = 0;
    let (code, out, fps) = loop {
        let (code, out) = check(&stand_in.root, &config);
        let (fps, key_every_s) = measured(&out);
        if (26.0..31.0).contains(&fps) && (0.9..1.3).contains(&key_every_s) {
            break (code, out, fps);
        }
        tries += 1;
        assert!(tries < 4, "30 frames/s, and as many from key frame to key frame: {out}");
    };
    assert!(out.contains("\nfound    raptor:main\n"), "{out}");
    assert!(out.contains("\nok       video: H.264 Main, 1280x720, "), "{out}");
    assert!(out.contains("\nok       audio: AAC-LC, 16000 Hz, 1 channel\n"), "{out}");
    // Between the two there is the tenth that is told.
    let proposed_fps = proposed(&out)["video"]["fps"].as_f64().expect("a number");
    assert!((proposed_fps - f64::from(fps)).abs() <= 0.55, "{out}");
    assert_eq!(proposed(&out)["speaker"]["sink"] == "raptor", cfg!(feature = "opus"));
    assert_eq!(code, i32::from(out.contains("warning")), "{out}");

    // The daemon is asked, and its source left alone.
    let program = Program::run_on(&stand_in.root, &folder, &config);
    program.wait_status("a GOP", |status| status["source"]["gop_s"].as_f64() > Some(0.9));
    let (_, out) = check(&stand_in.root, &config);
    assert!(out.contains("ok       video: H.264, 1280x720, "), "{out}");
    assert!(out.contains("ok       audio: AAC-LC 16000 Hz\n"), "{out}");
    assert!(out.contains("a daemon is running"), "{out}");
}

#[test]
fn a_camera_that_boots_slowly_is_waited_for() {
    let folder = Folder::new("find-slow");
    let mut stand_in = StandIn::start("find-slow");
    shut(&stand_in.root, "raptor.conf");
    let program = Program::run_on(&stand_in.root, &folder, &folder.config(json!({})));
    program.wait_said("video.source: tried: raptor: no ring in /dev/shm");
    assert_eq!(program.status()["source"]["state"], "waiting");
    stand_in.order("main embedded 32 1000000 large 0");
    let status = program.wait_status("pictures", |status| status["source"]["state"] == "running");
    assert_eq!((&status["source"]["spec"], &status["source"]["width"]), (&json!("raptor:main"), &json!(1280)));
    assert_eq!(program.said("video.source: found: raptor:main").len(), 1);
    assert_eq!(program.said("video.source: tried: raptor").len(), 1);
    assert!(program.said("s3cret").is_empty());
}

#[test]
fn a_ring_of_another_version_leads_to_the_server() {
    for source in [Json::Null, json!("raptor:main")] {
        let folder = Folder::new("find-version");
        let mut stand_in = StandIn::start("find-version");
        shut(&stand_in.root, "raptor.conf");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let settings = format!("[rtsp]\nport = {port}\nusername = me\npassword = s3cret\nendpoint_main = ch0\n");
        std::fs::write(stand_in.root.join("etc/raptor.conf"), settings).expect("settings");
        stand_in.order("main embedded 32 1000000 large 0");
        stand_in.order("version 3");
        let config = folder.config(json!({"video": {"source": source}}));
        let program = Program::run_on(&stand_in.root, &folder, &config);
        program.wait_said("rss_ring_main has version 3, this hksvd reads version 4");
        assert_eq!(program.said("refused").len(), 1, "{:?}", program.said(""));
        // Its server is asked for the stream, by the names of its own settings.
        listener.set_nonblocking(false).expect("it waits");
        let asked = (0..).find_map(|_| {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
            let mut request = [0; 512];
            let len = std::io::Read::read(&mut stream, &mut request).expect("a request");
            // The look says nothing, and the small stream may be asked for first.
            let asked = String::from_utf8_lossy(&request[..len]).into_owned();
            asked.contains(&format!("rtsp://127.0.0.1:{port}/ch0 RTSP/1.0")).then_some(asked)
        });
        assert!(asked.is_some());
        assert!(program.said("s3cret").is_empty());
    }
}

#[test]
fn fifos_are_found_with_their_sound() {
    let folder = Folder::new("find-fifo");
    let root = folder.path("root");
    shut(&root, "prudynt.json");
    std::fs::create_dir_all(root.join("tmp")).expect("a folder");
    let feeders = [("h264_high_fifo", 33), ("h264_low_fifo", 33), ("aac_audio_fifo", 64)]
        .map(|(name, ms)| Feeder::new(root.join("tmp").join(name), Duration::from_millis(ms)));
    feeders[0].play(&feeder::access_units(LARGE));
    feeders[1].play(&feeder::access_units(SMALL));
    feeders[2].play(&feeder::adts_frames(AUDIO));
    let program = Program::run_on(&root, &folder, &folder.config(json!({})));
    program.wait_said("video.source: found: fifo+yi:");
    let status = program.wait_status("pictures and sound", |status| {
        status["source"]["state"] == "running" && status["source"]["audio"] != "none"
    });
    assert_eq!(status["source"]["audio"], "AAC-LC 16000 Hz");
}
