//! What the real program keeps of the pictures, as the owner switches the camera in Apple Home.
#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use hub::Heard;
use program::{Client, Folder, Program, finish, hksvd};
use serde_json::{Value as Json, json};

/// The demo has a key frame every two seconds.
const GOP_S: f64 = 2.0;

fn held_s(status: &Json) -> f64 {
    status["prebuffer"]["held_s"].as_f64().expect("a number")
}

#[test]
fn each_switch_leaves_no_more_than_it_allows() {
    let folder = Folder::new("privacy");
    let config = folder.config(json!({"video": {"source": "demo"}, "motion": {"mode": "api"}}));
    let program = Program::run(&folder, &config);
    let (_, mut client) = Client::pair(program.port());

    client.arm(true);
    program.wait_status("armed: more than a picture's group", |status| held_s(status) > 1.2 * GOP_S);
    program.verb(&["motion", "on"]);
    let mut stream = client.data_stream();
    stream.open(1);
    stream.segment(1);

    // Recording off: what runs may finish its fragment, and no more than a live view needs is left.
    client.write("204", "B0", json!(0));
    loop {
        let segment = stream.segment(1);
        if segment.end_of_stream {
            assert!(segment.sequence >= 2, "the end comes with a fragment");
            break;
        }
    }
    let ack = stream.hub.ack(1);
    stream.send(&ack);
    let status = program.wait_status("it is over", |status| status["state"] == "idle");
    assert!(held_s(&status) <= GOP_S, "{status}");

    // Live view off as well: motion is still reported, pictures are of no use to anybody.
    client.write("110", "B0", json!(0));
    let second = client.iid_of("110", "B0", 1);
    client.put(json!({"characteristics": [{"aid": 1, "iid": second, "value": 0}]}));
    let status = program.wait_status("nothing is held", |status| status["prebuffer"]["bytes"] == 0);
    assert_eq!((status["motion"]["on"].as_bool(), status["camera_active"].as_bool()), (Some(true), Some(true)));

    // Off in the middle of a recording.
    client.write("204", "B0", json!(1));
    program.wait_status("armed", |status| held_s(status) > 0.5);
    stream.open(2);
    stream.segment(2);
    client.write("21A", "21B", json!(0));
    loop {
        match stream.hear() {
            Some(Heard::Segment(_)) => {}
            Some(Heard::Close { stream_id, reason }) => break assert_eq!((stream_id, reason), (2, 1), "not allowed"),
            other => panic!("{other:?}"),
        }
    }
    let status = program.wait_status("off", |status| status["state"] == "off");
    assert_eq!((&status["prebuffer"]["bytes"], &status["motion"]["on"]), (&json!(0), &json!(false)));
    let clip = folder.path("clip.mp4");
    for verb in [&["clip", clip.to_str().unwrap()][..], &["motion", "on"], &["snapshot", clip.to_str().unwrap()]] {
        let (code, _, error) = finish(hksvd(["--socket"]).arg(&program.socket).args(verb));
        assert_eq!(code, 1, "{verb:?}");
        assert!(error.contains("switched off in Apple Home"), "{error}");
    }
    assert!(!clip.exists() || std::fs::metadata(&clip).unwrap().len() == 0);
}
