//! Whole exchanges between a controller and the accessory, in virtual time.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "accessory/live_view.rs"]
mod live_view;
#[allow(dead_code)]
#[path = "common/world.rs"]
mod world;

use controller::{Controller, Identity, Transport, tlv};
use hksvd::hap::accessory::Refusal;
use hksvd::hap::database::Features;
use hksvd::hap::pairing::Pairings;
use hksvd::hap::press::Press;
use hksvd::hap::stream_tlv::Endpoint;
use hksvd::hap::types::Status;
use hksvd::wire::base64;
use serde_json::{Value as Json, json};
use std::rc::Rc;
use world::{CODE, Client, Link, Store, World, paired, paired_with};

mod iid {
    pub const IDENTIFY: u64 = 0x02;
    pub const NAME: u64 = 0x05;
    pub const STREAMING_STATUS: u64 = 0x21;
    pub const SETUP_ENDPOINTS: u64 = 0x25;
    pub const SELECTED_RTP: u64 = 0x26;
    pub const STREAM_ACTIVE: u64 = 0x27;
    pub const STREAM_ACTIVE_2: u64 = 0x37;
    pub const MUTE: u64 = 0x41;
    pub const VOLUME: u64 = 0x42;
    pub const MOTION: u64 = 0x61;
    pub const STATUS_ACTIVE: u64 = 0x62;
    pub const EVENT_SNAPSHOTS: u64 = 0x71;
    pub const CAMERA_ACTIVE: u64 = 0x72;
    pub const PERIODIC_SNAPSHOTS: u64 = 0x73;
    pub const MANUALLY_DISABLED: u64 = 0x76;
    pub const CHIME_MUTE: u64 = 0xa2;
    pub const RECORDING_ACTIVE: u64 = 0x81;
    pub const SUPPORTED_AUDIO: u64 = 0x84;
    pub const SELECTED_RECORDING: u64 = 0x85;
    pub const RECORDING_AUDIO: u64 = 0x86;
    pub const SETUP_DATA_STREAM: u64 = 0x92;
    pub const SWITCH_EVENT: u64 = 0xa1;
}

/// Told at every start.
const LIGHTS: [&str; 2] = ["StatusLed(true)", "NightVision(true)"];

fn vector(file: &str) -> Json {
    let text = match file {
        "camera_tlv" => include_str!("vectors/camera_tlv.json"),
        "transcript" => include_str!("vectors/transcript_hapnodejs.json"),
        _ => include_str!("vectors/accessories.json"),
    };
    serde_json::from_str(text).unwrap()
}

fn tlv_vector(name: &str) -> String {
    vector("camera_tlv")[name]["base64"].as_str().unwrap().into()
}

/// Our iid for one of the transcript.
fn ours(theirs: u64) -> u64 {
    match theirs {
        2 => iid::IDENTIFY,
        5 => iid::NAME,
        15 => iid::MOTION,
        16 => iid::STATUS_ACTIVE,
        18 => iid::RECORDING_ACTIVE,
        19 => iid::SELECTED_RECORDING,
        23 => iid::RECORDING_AUDIO,
        26 => iid::CAMERA_ACTIVE,
        29 => iid::SETUP_DATA_STREAM,
        33 => iid::SELECTED_RTP,
        34 => iid::SETUP_ENDPOINTS,
        35 => iid::STREAMING_STATUS,
        other => other,
    }
}

/// The entries of a body with our iids, by iid.
fn by_iid(body: &Json, map: fn(u64) -> u64) -> Json {
    let Some(entries) = body["characteristics"].as_array() else { return body.clone() };
    let mut entries = entries.clone();
    for entry in &mut entries {
        entry["iid"] = map(entry["iid"].as_u64().unwrap()).into();
        if let Some(perms) = entry["perms"].as_array_mut() {
            perms.sort_by_key(|p| p.to_string());
        }
    }
    entries.sort_by_key(|entry| entry["iid"].as_u64());
    json!({ "characteristics": entries })
}

/// Plays the recorded run of a deployed accessory; where we differ, it is meant.
#[test]
fn answers_as_deployed_accessories_do() {
    let (mut world, _, mut client) = paired();
    let address = "127.0.0.1".parse().unwrap();
    world.views.accessory = Some(Endpoint { address, video_port: 40100, audio_port: 40102 });
    let mut plain = Client::plain(&mut world);
    let mut unpaired = World::new();
    let mut played = 0;
    for exchange in vector("transcript")["exchanges"].as_array().unwrap() {
        let name = exchange["name"].as_str().unwrap();
        let (method, target) = exchange["request"].as_str().unwrap().split_once(' ').unwrap();
        match name {
            // Removal and lists have their own tests.
            "list pairings" | "remove last admin" => continue,
            "snapshot without reason, event snapshots off" => {
                assert_eq!(client.write(&mut world, iid::EVENT_SNAPSHOTS, json!(0)), 0);
            }
            _ => {}
        }
        let target = match target.split_once("?id=") {
            None => target.to_owned(),
            Some((path, query)) => {
                let (ids, extras) = query.split_once('&').map_or((query, None), |(ids, extras)| (ids, Some(extras)));
                let ids: Vec<String> =
                    ids.split(',').map(|id| format!("1.{}", ours(id[2..].parse().unwrap()))).collect();
                let extras = extras.map_or(String::new(), |extras| format!("&{extras}"));
                format!("{path}?id={}{extras}", ids.join(","))
            }
        };
        let body = exchange["request_body"].as_str().unwrap_or("");
        let body = match serde_json::from_str::<Json>(body) {
            Ok(mut json) if json["characteristics"].is_array() => {
                for entry in json["characteristics"].as_array_mut().unwrap() {
                    entry["iid"] = ours(entry["iid"].as_u64().unwrap()).into();
                }
                json.to_string().into_bytes()
            }
            Ok(json) if json.is_object() => json.to_string().into_bytes(),
            _ => data_encoding::HEXLOWER_PERMISSIVE.decode_len(body.len()).map_or(vec![], |n| {
                let mut out = vec![0; n];
                data_encoding::HEXLOWER_PERMISSIVE.decode_mut(body.as_bytes(), &mut out).unwrap();
                out
            }),
        };
        let (world, client) = match name {
            "identify unpaired" => {
                let client = Client::plain(&mut unpaired);
                (&mut unpaired, &mut { client })
            }
            "accessories before verify"
            | "read before verify"
            | "pairings before verify"
            | "pair-setup when paired" => (&mut world, &mut plain),
            _ => (&mut world, &mut client),
        };
        let answer = client.controller.exchange(&mut Link(world, client.id), method, &target, &body);
        let mut status: u16 = exchange["response_head"].as_str().unwrap()[9..12].parse().unwrap();
        let mut expected = exchange["response_body"].as_str().unwrap_or("");
        if name == "stream end again" {
            // What is over may be ended.
            (status, expected) = (204, "");
        }
        assert_eq!(answer.status(), status, "{name}");
        match serde_json::from_str::<Json>(expected) {
            Ok(expected) if expected.is_object() => {
                let mut expected = by_iid(&expected, ours);
                let mut got = by_iid(&answer.json(), |iid| iid);
                match name {
                    "read with unknown iid" => expected["characteristics"][1]["status"] = json!(-70409),
                    "write unknown iid" => expected["characteristics"][0]["status"] = json!(-70409),
                    "setup data stream" | "read data stream setup later" => {
                        // Ports and salts are drawn.
                        for json in [&mut expected, &mut got] {
                            let value = json["characteristics"][0]["value"].as_str().unwrap().len();
                            json["characteristics"][0]["value"] = value.into();
                        }
                    }
                    _ => {}
                }
                assert_eq!(got, expected, "{name}");
            }
            _ if name == "snapshot" => assert_eq!(answer.body, b"\xff\xd8JPEG"),
            _ => assert_eq!(data_encoding::HEXLOWER.encode_len(answer.body.len()), expected.len(), "{name}"),
        }
        if answer.status() != 204 {
            assert!(answer.header("Content-Type").is_some(), "{name}");
        } else {
            assert!(answer.headers.is_empty(), "{name}");
        }
        played += 1;
    }
    assert_eq!(played, 43);
}

#[test]
fn the_database_is_the_golden_one() {
    let doorbell =
        Features { doorbell: true, speaker: false, status_led: true, night_vision: true, ..Features::default() };
    let golden = vector("accessories");
    for (name, features) in [("camera", Features::default()), ("doorbell", doorbell)] {
        let (mut world, _, mut client) = paired_with(World::with(features, Pairings::new(), None));
        let answer = client.ask(&mut world, "GET", "/accessories", "");
        assert_eq!((answer.status(), answer.header("Content-Type")), (200, Some("application/hap+json")));
        assert_eq!(answer.json(), golden[name], "{name}");
    }
}

#[test]
fn the_longest_database_fits() {
    let features =
        Features { doorbell: true, speaker: true, status_led: true, night_vision: true, ..Features::default() };
    let (mut world, _, mut client) = paired_with(World::with(features, Pairings::new(), None));
    // Every character of the name is escaped to six.
    world.acc.state.set_name(&"\u{1}".repeat(64));
    assert_eq!(client.write(&mut world, iid::SELECTED_RECORDING, json!(longest_selection())), 0);
    let answer = client.ask(&mut world, "GET", "/accessories", "");
    assert_eq!(answer.status(), 200);
    let services = answer.json()["accessories"][0]["services"].as_array().unwrap().len();
    assert_eq!(services, 11);
    assert_eq!(client.read(&mut world, iid::SELECTED_RECORDING), json!(longest_selection()));
}

/// A selection of 256 bytes: an unknown item behind a usual one.
fn longest_selection() -> String {
    let mut raw = vec![0; 256];
    let usual = base64::decode(&tlv_vector("recording_selected_1080p"), &mut raw).unwrap().len();
    raw[usual] = 0x7f;
    raw[usual + 1] = (256 - usual - 2) as u8;
    let mut text = vec![0; 344];
    data_encoding::BASE64.encode_mut(&raw, &mut text);
    String::from_utf8(text).unwrap()
}

// ---- sessions

#[test]
fn a_request_behind_m3_is_opened_and_m4_goes_out_in_the_clear() {
    let (mut world, who, _) = paired();
    let mut client = Client::plain(&mut world);
    let name = format!("/characteristics?id=1.{}", iid::NAME);
    let answer = client.controller.pair_verify_eagerly(&mut Link(&mut world, client.id), &who, &name);
    assert_eq!(answer.json()["characteristics"][0]["value"], "Garden Camera");
    assert_eq!(world.connections[&client.id].0.controller(), Some(who.id.as_bytes()));
}

#[test]
fn requests_in_one_segment_are_answered_in_order() {
    let (mut world, _, mut client) = paired();
    world.picture = None;
    let mut bytes = client.controller.request("POST", "/resource", br#"{"resource-type":"image"}"#);
    bytes.extend(client.controller.request("GET", "/characteristics?id=1.5", b""));
    bytes.extend(client.controller.request("GET", "/nothing", b""));
    let mut link = Link(&mut world, client.id);
    link.send(&bytes);
    // The picture is not there yet: nobody overtakes it.
    assert!(link.receive().is_empty());
    world.on(client.id, |c, acc, _| c.handle_snapshot(Ok(Rc::from(*b"J")), acc));
    let mut link = Link(&mut world, client.id);
    let statuses: Vec<u16> = (0..3).map(|_| client.controller.wait(&mut link).unwrap().status()).collect();
    assert_eq!(statuses, [200, 200, 404]);
}

#[test]
fn a_request_that_comes_while_another_is_answered_waits_its_turn() {
    let (mut world, _, mut client) = paired();
    world.picture = None;
    let picture = client.controller.request("POST", "/resource", br#"{"resource-type":"image"}"#);
    let (name, nothing) = (format!("/characteristics?id=1.{}", iid::NAME), "/nothing");
    let name = client.controller.request("GET", &name, b"");
    let nothing = client.controller.request("GET", nothing, b"");
    for request in [picture, name, nothing] {
        Link(&mut world, client.id).send(&request);
    }
    world.on(client.id, |c, acc, _| c.handle_snapshot(Ok(Rc::from(*b"J")), acc));
    // Nothing more is received, and nothing more is needed.
    let mut link = Link(&mut world, client.id);
    let statuses: Vec<u16> = (0..3).map(|_| client.controller.wait(&mut link).unwrap().status()).collect();
    assert_eq!(statuses, [200, 200, 404]);
}

#[test]
fn a_request_may_come_byte_by_byte_and_in_chunks() {
    let (mut world, _, mut client) = paired();
    let body = format!("{{\"characteristics\":[{{\"aid\":1,\"iid\":{},\"value\":7}}]}}", iid::VOLUME);
    let (first, second) = body.split_at(20);
    let text = format!(
        "PUT /characteristics HTTP/1.1\nTRANSFER-ENCODING: chunked\n\n{:x}\r\n{first}\r\n{:X};x=y\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    for byte in client.controller.seal(text.as_bytes()) {
        world.receive(client.id, &[byte]);
    }
    let answer = client.controller.wait(&mut Link(&mut world, client.id)).unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(client.read(&mut world, iid::VOLUME), json!(7));
}

#[test]
fn a_bad_record_ends_the_connection_without_a_word() {
    for broken in [&[0u8, 0, 1][..], &[1, 4, 0], &[5, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        let (mut world, _, client) = paired();
        world.receive(client.id, broken);
        assert!(world.lost.is_some());
        assert!(!world.connections.contains_key(&client.id));
    }
}

#[test]
fn behind_a_bad_record_neither_response_nor_event_goes_out() {
    for pending in ["response", "event"] {
        let (mut world, _, mut client) = paired();
        client.subscribe(&mut world, &[iid::MOTION]);
        let request = client.controller.request("GET", "/accessories", b"");
        world.on(client.id, |c, acc, s| {
            let mut deliver = |bytes: &[u8], acc: &mut _| {
                c.receive_buffer()[..bytes.len()].copy_from_slice(bytes);
                c.handle_received(bytes.len(), acc, s)
            };
            match pending {
                "response" => assert_eq!(deliver(&request, acc), Ok(())),
                _ => acc.state.set_motion(true),
            }
            assert!(deliver(&[0, 0, 1], acc).is_err());
            assert_eq!(c.poll_transmit(s.now, acc, &mut [0; 2000]), None, "{pending}");
            assert!(c.should_close());
        });
    }
}

#[test]
fn what_is_not_http_is_answered_and_ends_the_connection() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000));
    let body = "POST /pair-setup HTTP/1.1\r\nContent-Length: 30000\r\n\r\n";
    for (text, status) in [("nonsense\r\n\r\n", 400), (&long[..], 413), (body, 413)] {
        let mut world = World::new();
        let mut client = Client::plain(&mut world);
        let mut link = Link(&mut world, client.id);
        link.send(text.as_bytes());
        assert_eq!(client.controller.wait(&mut link).unwrap().status(), status, "{text:.20}");
        world.pump();
        assert!(!world.connections.contains_key(&client.id));
    }
}

#[test]
fn methods_paths_and_states() {
    let (mut world, who, mut client) = paired();
    let mut plain = Client::plain(&mut world);
    for (method, path, status) in [
        ("GET", "/pair-setup", 405),
        ("get", "/accessories", 405),
        ("POST", "/characteristics", 405),
        ("GET", "/", 404),
        ("POST", "/config", 404),
        ("PUT", "/prepare", 470),
        ("POST", "/resource", 470),
        ("PUT", "/characteristics", 470),
    ] {
        assert_eq!(plain.ask(&mut world, method, path, "").status(), status, "{method} {path}");
    }
    for (path, body) in [("/pair-verify", &[6, 1, 1][..]), ("/pair-setup", &[6, 1, 1, 0, 1, 0]), ("/pairings", &[6, 1])]
    {
        let mut link = Link(&mut world, client.id);
        assert_eq!(client.controller.exchange(&mut link, "POST", path, body).status(), 400, "{path}");
    }
    for path in ["/pair-setup", "/pair-verify"] {
        let mut link = Link(&mut world, plain.id);
        assert_eq!(plain.controller.exchange(&mut link, "POST", path, b"").status(), 400, "{path}");
    }
    // Still of use.
    assert_eq!(client.read(&mut world, iid::NAME), json!("Garden Camera"));
    plain.controller.pair_verify(&mut Link(&mut world, plain.id), &who).unwrap();
}

#[test]
fn large_bodies_share_two_buffers() {
    let (mut world, who, mut first) = paired();
    let mut clients = [Client::verified(&mut world, &who), Client::verified(&mut world, &who)];
    let spaces = " ".repeat(60_000);
    let body = format!("{{{spaces}\"characteristics\":[{{\"aid\":1,\"iid\":{},\"value\":5}}]}}", iid::VOLUME);
    let bytes: Vec<Vec<u8>> =
        clients.iter_mut().map(|c| c.controller.request("PUT", "/characteristics", body.as_bytes())).collect();
    for (client, bytes) in clients.iter().zip(&bytes) {
        world.receive(client.id, &bytes[..40_000]);
    }
    // Both are taken: the third has to go.
    assert_eq!(first.ask(&mut world, "PUT", "/characteristics", &body).status(), 503);
    for (client, bytes) in clients.iter_mut().zip(&bytes) {
        world.receive(client.id, &bytes[40_000..]);
        let mut link = Link(&mut world, client.id);
        assert_eq!(client.controller.wait(&mut link).unwrap().status(), 204);
    }
    // And free again, also when a connection is lost in the middle.
    world.receive(clients[0].id, &bytes[0][..40_000]);
    world.close(clients[0].id);
    for _ in 0..3 {
        let mut again = Client::verified(&mut world, &who);
        assert_eq!(again.ask(&mut world, "PUT", "/characteristics", &body).status(), 204);
    }
}

#[test]
fn a_read_of_too_much_is_refused() {
    let (mut world, _, mut client) = paired();
    let ids = |n: usize| vec!["1.130"; n].join(",");
    let answer = client.ask(&mut world, "GET", &format!("/characteristics?id={}&meta=1", ids(200)), "");
    assert_eq!(answer.json()["characteristics"].as_array().unwrap().len(), 200);
    let answer = client.ask(&mut world, "GET", &format!("/characteristics?id={}&meta=1", ids(1300)), "");
    assert_eq!((answer.status(), answer.json()), (503, json!({"status":-70407})));
}

/// Whatever comes, the accessory goes on: requests with wrong bytes in them, before and after
/// pair-verify.
#[test]
fn garbage_harms_nobody() {
    let requests: [(&str, &str, Vec<u8>); 7] = [
        (
            "PUT",
            "/characteristics",
            br#"{"characteristics":[{"aid":1,"iid":66,"value":5,"ev":true,"r":true}],"pid":7}"#.to_vec(),
        ),
        ("GET", "/characteristics?id=1.5,1.6%2C1.133&meta=1&perms=1&type=1&ev=1", vec![]),
        ("PUT", "/prepare", br#"{"ttl":2500,"pid":7}"#.to_vec()),
        ("POST", "/resource", br#"{"resource-type":"image","image-width":640,"image-height":360,"reason":1}"#.to_vec()),
        ("POST", "/pairings", tlv(&[(6, &[1]), (0, &[3]), (1, b"friend"), (3, &[7; 32]), (11, &[0])])),
        ("POST", "/pair-setup", tlv(&[(6, &[1]), (0, &[0])])),
        ("POST", "/pair-verify", tlv(&[(6, &[1]), (3, &[9; 32])])),
    ];
    let (mut world, who, mut client) = paired();
    let mut seed = 1u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    let mut answered = 0;
    for round in 0..1500 {
        let (method, target, body) = &requests[random(requests.len())];
        let mut text = Controller::new().request(method, target, body);
        for _ in 0..=random(3) {
            let at = random(text.len());
            text[at] = random(256) as u8;
        }
        if round % 2 == 0 {
            let plain = Client::plain(&mut world);
            world.receive(plain.id, &text);
            answered += usize::from(!Link(&mut world, plain.id).receive().is_empty());
            world.close(plain.id);
        } else {
            let bytes = client.controller.seal(&text);
            let mut link = Link(&mut world, client.id);
            link.send(&bytes);
            let bytes = link.receive();
            client.controller.feed(&bytes);
            answered += usize::from(client.controller.take_response().is_some());
            // A request that never ends, or one that ended the connection.
            world.close(client.id);
            client = Client::verified(&mut world, &who);
        }
    }
    assert!(answered > 1000, "{answered}");
    assert_eq!(client.read(&mut world, iid::NAME), json!("Garden Camera"));
}

// ---- pairings

#[test]
fn the_first_pairing_needs_the_code_and_a_store() {
    let mut world = World::new();
    let mut who = Identity::new("first");
    let mut client = Client::plain(&mut world);
    let wrong = client.controller.pair_setup(&mut Link(&mut world, client.id), &mut who, "111-22-333");
    assert_eq!(wrong, Err(2));
    assert_eq!(world.acc.setup.tries(), 1);
    assert!(world.log().iter().any(|e| e.contains("what: Tries")));

    world.store = Store::Fails;
    assert_eq!(client.controller.pair_setup(&mut Link(&mut world, client.id), &mut who, CODE), Err(1));
    assert!(!world.acc.is_paired());
    let log = world.log();
    assert!(!log.iter().any(|e| e.contains("TxtChanged")));
    // What the flash holds may be the pairing all the same: it is written again.
    assert_eq!(log.last().unwrap(), "Store { connection: None, what: Pairings }");

    world.store = Store::Works;
    client.controller.pair_setup(&mut Link(&mut world, client.id), &mut who, CODE).unwrap();
    assert!(world.acc.is_paired());
    assert!(world.log().iter().any(|e| e == "TxtChanged"));
    Client::verified(&mut world, &who);
}

#[test]
fn pairings_are_stored_before_they_are_confirmed() {
    let (mut world, who, mut client) = paired();
    let friend = who.friend("friend");
    world.store = Store::Waits;
    let body = tlv(&[(6, &[1]), (0, &[3]), (1, b"friend"), (3, &friend.public()), (11, &[0])]);
    let mut link = Link(&mut world, client.id);
    assert!(client.controller.try_exchange(&mut link, "POST", "/pairings", &body).is_none());
    world.on(client.id, |c, acc, s| c.handle_stored(true, acc, s));
    assert_eq!(client.controller.wait(&mut Link(&mut world, client.id)).unwrap().body, [6, 1, 2]);

    world.store = Store::Fails;
    let other = who.friend("other");
    assert_eq!(client.controller.add_pairing(&mut Link(&mut world, client.id), &other, false), Some(1));
    assert_eq!(world.acc.pairings.len(), 2);
    assert_eq!(client.controller.remove_pairing(&mut Link(&mut world, client.id), "friend"), Some(1));
    assert_eq!(world.acc.pairings.len(), 2);
    assert_eq!(client.controller.remove_pairing(&mut Link(&mut world, client.id), &who.id), Some(1));
    assert_eq!(world.acc.pairings.len(), 2);
    assert_eq!(client.read(&mut world, iid::NAME), json!("Garden Camera"));
}

#[test]
fn a_user_may_not_what_an_admin_may() {
    let (mut world, who, mut admin) = paired();
    let user = who.friend("user");
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &user, false), None);
    let mut client = Client::verified(&mut world, &user);
    assert_eq!(client.controller.remove_pairing(&mut Link(&mut world, client.id), "user"), Some(2));
    let selection = tlv_vector("recording_selected_1080p");
    for (iid, value) in [
        (iid::STREAM_ACTIVE, json!(0)),
        (iid::STREAM_ACTIVE_2, json!(0)),
        (iid::EVENT_SNAPSHOTS, json!(0)),
        (iid::CAMERA_ACTIVE, json!(0)),
        (iid::PERIODIC_SNAPSHOTS, json!(0)),
        (iid::RECORDING_ACTIVE, json!(1)),
        (iid::SELECTED_RECORDING, json!(selection)),
    ] {
        assert_eq!(client.write(&mut world, iid, value), -70401, "{iid:#x}");
    }
    assert_eq!(client.write(&mut world, iid::MUTE, json!(true)), 0);
    // The permission of this moment counts.
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &user, true), None);
    assert_eq!(client.write(&mut world, iid::CAMERA_ACTIVE, json!(0)), 0);
}

#[test]
fn removing_a_controller_ends_its_sessions() {
    let (mut world, who, mut admin) = paired();
    let second = who.friend("second");
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &second, true), None);
    Client::verified(&mut world, &second);
    Client::verified(&mut world, &second);
    // By another controller.
    assert_eq!(admin.controller.remove_pairing(&mut Link(&mut world, admin.id), "second"), None);
    world.pump();
    assert_eq!(world.connections.keys().copied().collect::<Vec<_>>(), [1, admin.id]);
    // By itself: the answer comes first.
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &second, true), None);
    let mut theirs = [Client::verified(&mut world, &second), Client::verified(&mut world, &second)];
    assert_eq!(theirs[0].controller.remove_pairing(&mut Link(&mut world, theirs[0].id), "second"), None);
    world.pump();
    assert_eq!(world.connections.keys().copied().collect::<Vec<_>>(), [1, admin.id]);
}

#[test]
fn removing_the_last_admin_removes_everything() {
    let (mut world, who, mut admin) = paired();
    let user = who.friend("user");
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &user, false), None);
    Client::verified(&mut world, &user);
    let selection = tlv_vector("recording_selected_1080p");
    assert_eq!(admin.write(&mut world, iid::SELECTED_RECORDING, json!(selection)), 0);
    assert_eq!(admin.write(&mut world, iid::RECORDING_ACTIVE, json!(1)), 0);
    let number = world.acc.state.configuration_number();
    world.log();
    assert_eq!(admin.controller.remove_pairing(&mut Link(&mut world, admin.id), &who.id), None);
    world.pump();
    assert!(world.connections.is_empty() && world.acc.pairings.is_empty());
    let log = world.log();
    for effect in ["TxtChanged", "RecordingArmed(false)", "Store { connection: None, what: Camera }"] {
        assert!(log.iter().any(|e| e == effect), "{effect} in {log:?}");
    }
    let settings = world.acc.state.settings();
    assert!(settings.selection.is_none() && !settings.recording_active && settings.camera_active);
    assert_eq!(world.acc.state.configuration_number(), number);
    // And the setup code works again.
    paired_with(world);
}

#[test]
fn a_factory_reset_makes_another_accessory() {
    let (mut world, who, mut client) = paired();
    assert_eq!(client.write(&mut world, iid::CAMERA_ACTIVE, json!(0)), 0);
    assert!(world.acc.state.set_audio_rate(16_000));
    world.pump();
    world.log();
    let identity = hksvd::hap::pairing::Identity::generate(&mut world.random, None);
    let id = identity.device_id;
    world.acc.factory_reset(identity, &mut world.random);
    world.pump();
    assert!(world.connections.is_empty() && !world.acc.is_paired());
    assert_eq!((world.acc.identity.device_id, world.acc.state.configuration_number()), (id, 1));
    assert!(world.acc.state.camera_active());
    let log = world.log();
    for what in ["Identity", "Pairings", "Tries", "Camera"] {
        assert!(log.contains(&format!("Store {{ connection: None, what: {what} }}")), "{what} in {log:?}");
    }
    let mut client = Client::plain(&mut world);
    let code = world.acc.identity.setup_code.as_str().to_owned();
    let mut who = Identity::new(&who.id);
    client.controller.pair_setup(&mut Link(&mut world, client.id), &mut who, &code).unwrap();
}

#[test]
fn a_change_whose_connection_is_lost_is_still_told() {
    let (mut world, who, mut admin) = paired();
    let second = who.friend("second");
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &second, true), None);
    let theirs = Client::verified(&mut world, &second);
    world.store = Store::Waits;
    let body = tlv(&[(6, &[1]), (0, &[4]), (1, b"second")]);
    assert!(admin.controller.try_exchange(&mut Link(&mut world, admin.id), "POST", "/pairings", &body).is_none());
    world.close(admin.id);
    world.pump();
    assert!(!world.connections.contains_key(&theirs.id));
}

// ---- characteristics

/// Every writable characteristic takes one legal value and refuses an illegal one.
#[test]
fn writable_characteristics_know_their_values() {
    let features =
        Features { doorbell: true, speaker: true, status_led: true, night_vision: true, ..Features::default() };
    let (mut world, _, mut client) = paired_with(World::with(features, Pairings::new(), None));
    let database = client.ask(&mut world, "GET", "/accessories", "").json();
    let setup = tlv_vector("setup_endpoints_request_v4");
    let selection = tlv_vector("recording_selected_1080p");
    let mut writable = 0;
    for service in database["accessories"][0]["services"].as_array().unwrap() {
        for c in service["characteristics"].as_array().unwrap() {
            let perms = c["perms"].as_array().unwrap();
            let iid = c["iid"].as_u64().unwrap();
            let mut write = |world: &mut World, value: Json| {
                let pid = perms.contains(&json!("tw")).then_some(77);
                if pid.is_some() {
                    assert_eq!(client.ask(world, "PUT", "/prepare", "{\"ttl\":1000,\"pid\":77}").status(), 200);
                }
                let entry = json!({"aid":1,"iid":iid,"value":value,"r":true});
                let answer = client.put(world, json!({"characteristics":[entry],"pid":pid}));
                match answer.status() {
                    204 => 0,
                    _ => answer.json()["characteristics"][0]["status"].as_i64().unwrap(),
                }
            };
            if !perms.contains(&json!("pw")) {
                assert_eq!(write(&mut world, json!(1)), -70404, "{iid:#x}");
                continue;
            }
            writable += 1;
            let (legal, illegal) = match (c["format"].as_str().unwrap(), c["type"].as_str().unwrap()) {
                ("bool", _) => {
                    (vec![json!(true), json!(false), json!(0), json!(1)], vec![json!(2), json!("1"), json!(0.5)])
                }
                ("uint8", "119") => (vec![json!(0), json!(100)], vec![json!(101), json!(-1), json!("7"), json!(0.5)]),
                ("uint8", _) => (
                    vec![json!(1), json!(0), json!(true), json!(false)],
                    vec![json!(2), json!(-1), json!("1"), json!([1])],
                ),
                (_, "118") => (vec![json!(setup)], vec![json!("AAAA"), json!("!"), json!(1), json!("")]),
                (_, "209") => (vec![json!(selection)], vec![json!("AAAA"), json!("!"), json!(1), json!("")]),
                (_, "131") => (
                    vec![json!("AQEAAgEAAyD/whBdcFUJ+lYtBs/9nkYjgGsAlC+BgJCktgmNdTxsUA==")],
                    vec![json!("AQEBAgEAAyD/whBdcFUJ+lYtBs/9nkYjgGsAlC+BgJCktgmNdTxsUA=="), json!(""), json!({})],
                ),
                // The one that was set up by the legal value of 118.
                (_, "117") => (
                    ["start_opus", "end", "end"].map(|c| json!(tlv_vector(&format!("selected_rtp_{c}")))).to_vec(),
                    vec![json!(tlv_vector("selected_rtp_suspend")), json!(""), json!("A")],
                ),
                other => panic!("{other:?}"),
            };
            for value in illegal {
                assert_eq!(write(&mut world, value.clone()), -70410, "{iid:#x} {value}");
            }
            for value in legal {
                assert_eq!(write(&mut world, value.clone()), 0, "{iid:#x} {value}");
                if iid == iid::CAMERA_ACTIVE || iid == iid::STREAM_ACTIVE || iid == iid::STREAM_ACTIVE_2 {
                    write(&mut world, json!(1));
                }
            }
        }
    }
    assert_eq!(writable, 20);
}

/// A write reaches its own value and no other, and comes back from the store.
#[test]
fn a_switch_switches_itself_alone() {
    let features =
        Features { doorbell: true, speaker: true, status_led: true, night_vision: true, ..Features::default() };
    let (mut world, _, mut client) = paired_with(World::with(features, Pairings::new(), None));
    const TIMED: [u64; 3] = [0x74, 0x75, iid::RECORDING_AUDIO];
    let switches = [
        iid::STREAM_ACTIVE,
        iid::STREAM_ACTIVE_2,
        iid::MUTE,
        iid::VOLUME,
        0x51,
        0x52,
        iid::EVENT_SNAPSHOTS,
        iid::CAMERA_ACTIVE,
        iid::PERIODIC_SNAPSHOTS,
        0x74,
        0x75,
        iid::RECORDING_ACTIVE,
        iid::RECORDING_AUDIO,
    ];
    let values = |world: &mut World, client: &mut Client| switches.map(|iid| client.read(world, iid));
    let mut expected = values(&mut world, &mut client);
    for (n, iid) in switches.into_iter().enumerate() {
        let value = if expected[n] == json!(100) { json!(42) } else { json!(1 - expected[n].as_i64().unwrap()) };
        let mut pid = None;
        if TIMED.contains(&iid) {
            pid = Some(5);
            client.ask(&mut world, "PUT", "/prepare", "{\"ttl\":1000,\"pid\":5}");
        }
        let body = json!({"characteristics":[{"aid":1,"iid":iid,"value":value}],"pid":pid});
        assert_eq!(client.put(&mut world, body).status(), 204, "{iid:#x}");
        expected[n] = value;
        assert_eq!(values(&mut world, &mut client), expected, "{iid:#x}");
        assert_eq!(&world.stored(), world.acc.state.to_store(), "{iid:#x}");
    }
    let log = world.log();
    for effect in ["StatusLed(false)", "NightVision(false)", "CameraActive(false)", "StreamingAllowed(false)"] {
        assert_eq!(log.iter().filter(|e| *e == effect).count(), 1, "{effect} in {log:?}");
    }
    assert_eq!(log.iter().filter(|e| e.contains("what: Camera")).count(), switches.len());
}

#[test]
fn bodies_that_are_no_writes() {
    let (mut world, _, mut client) = paired();
    for body in ["", "{", "[]", "{}", "{\"characteristics\":1}", "nonsense", "{\"characteristics\":[{}]}"] {
        let answer = client.ask(&mut world, "PUT", "/characteristics", body);
        assert_eq!((answer.status(), answer.json()), (400, json!({"status":-70410})), "{body}");
    }
    for body in ["", "{}", "{\"ttl\":1}", "{\"pid\":1}"] {
        assert_eq!(client.ask(&mut world, "PUT", "/prepare", body).status(), 400, "{body}");
    }
    let twice = json!({"characteristics":[{"aid":1,"iid":65,"value":1},{"aid":1,"iid":65,"value":0}]});
    let answer = client.put(&mut world, twice);
    assert_eq!((answer.status(), answer.json()), (422, json!({"status":-70410})));
    assert_eq!(client.read(&mut world, 65), json!(0));
    let neither =
        json!({"characteristics":[{"aid":1,"iid":65},{"aid":2,"iid":65,"value":1},{"aid":1,"iid":66,"value":3}]});
    let answer = client.put(&mut world, neither);
    assert_eq!(answer.status(), 207);
    let statuses: Vec<_> =
        answer.json()["characteristics"].as_array().unwrap().iter().map(|e| e["status"].clone()).collect();
    assert_eq!(statuses, [json!(-70410), json!(-70409), json!(0)]);
}

#[test]
fn timed_writes_are_used_once_in_time_on_their_connection() {
    let (mut world, who, mut client) = paired();
    let mut other = Client::verified(&mut world, &who);
    let prepare = |client: &mut Client, world: &mut World| {
        assert_eq!(client.ask(world, "PUT", "/prepare", "{\"ttl\":2500,\"pid\":18446744073709551615}").status(), 200);
    };
    let write = |client: &mut Client, world: &mut World, pid: Option<u64>, iid: u64| {
        let body = json!({"characteristics":[{"aid":1,"iid":iid,"value":1}],"pid":pid});
        let answer = client.put(world, body);
        if answer.status() == 204 { 0 } else { answer.json()["characteristics"][0]["status"].as_i64().unwrap() }
    };
    let (audio, snapshots) = (iid::RECORDING_AUDIO, iid::EVENT_SNAPSHOTS);
    assert_eq!(write(&mut client, &mut world, None, audio), -70410);
    prepare(&mut client, &mut world);
    assert_eq!(write(&mut other, &mut world, Some(u64::MAX), audio), -70410);
    assert_eq!(write(&mut client, &mut world, Some(u64::MAX), audio), 0);
    assert_eq!(write(&mut client, &mut world, Some(u64::MAX), audio), -70410);
    // A wrong pid uses it up.
    prepare(&mut client, &mut world);
    assert_eq!(write(&mut client, &mut world, Some(1), audio), -70410);
    assert_eq!(write(&mut client, &mut world, Some(u64::MAX), audio), -70410);
    // Without a pid it stays.
    prepare(&mut client, &mut world);
    assert_eq!(write(&mut client, &mut world, None, snapshots), 0);
    assert_eq!(write(&mut client, &mut world, Some(u64::MAX), snapshots), 0);
    // Too late.
    prepare(&mut client, &mut world);
    world.advance(2501);
    assert_eq!(write(&mut client, &mut world, Some(u64::MAX), snapshots), -70410);
}

#[test]
fn data_streams_are_prepared_or_refused() {
    let (mut world, _, mut client) = paired();
    let value = "AQEAAgEAAyD/whBdcFUJ+lYtBs/9nkYjgGsAlC+BgJCktgmNdTxsUA==";
    let mut answer = |world: &mut World, r: bool| {
        let entry = json!({"aid":1,"iid":iid::SETUP_DATA_STREAM,"value":value,"r":r});
        client.put(world, json!({"characteristics":[entry]}))
    };
    assert_eq!(answer(&mut world, false).status(), 204);
    let text = answer(&mut world, true).json()["characteristics"][0]["value"].as_str().unwrap().to_owned();
    assert!(text.starts_with("AQEAAgQBAnPKAyAJCQkJ"), "{text}");
    world.streams.refuse = Some(Refusal::Busy);
    assert_eq!(answer(&mut world, true).json()["characteristics"][0]["value"], "AQEC");
    world.streams.refuse = Some(Refusal::Error);
    assert_eq!(answer(&mut world, true).json()["characteristics"][0]["value"], "AQEB");
    assert_eq!(world.streams.prepared, 2);
}

#[test]
fn identify_is_passed_on() {
    let (mut world, _, mut client) = paired();
    assert_eq!(client.write(&mut world, iid::IDENTIFY, json!(true)), 0);
    assert_eq!(world.log(), ["Identify"]);
    assert_eq!(client.write(&mut world, iid::IDENTIFY, json!(false)), 0);
    assert!(world.log().is_empty());
}

// ---- events

#[test]
fn motion_is_told_at_once_and_each_turn_on_its_own() {
    let (mut world, _, mut client) = paired();
    client.subscribe(&mut world, &[iid::MOTION]);
    world.acc.state.set_motion(true);
    world.acc.state.set_motion(true);
    assert_eq!(client.events(&mut world), [[(iid::MOTION, json!(1))]]);
    // A pulse.
    world.acc.state.set_motion(false);
    world.acc.state.set_motion(true);
    assert_eq!(client.events(&mut world), [[(iid::MOTION, json!(0))], [(iid::MOTION, json!(1))]]);
    for n in 0..9 {
        world.acc.state.set_motion(n % 2 == 1);
    }
    assert_eq!(client.events(&mut world).last(), Some(&vec![(iid::MOTION, json!(0))]));
    assert!(world.log().is_empty(), "nothing is stored for motion");
    let body = json!({"characteristics":[{"aid":1,"iid":iid::MOTION,"ev":false}]});
    assert_eq!(client.put(&mut world, body).status(), 204);
    world.acc.state.set_motion(true);
    world.advance(1000);
    assert!(client.events(&mut world).is_empty());
}

#[test]
fn changes_are_collected_and_never_told_to_who_made_them() {
    let (mut world, who, mut writer) = paired();
    let mut other = Client::verified(&mut world, &who);
    let watched = [iid::CAMERA_ACTIVE, iid::STATUS_ACTIVE, iid::MUTE, iid::VOLUME, iid::MOTION];
    writer.subscribe(&mut world, &watched);
    other.subscribe(&mut world, &watched);
    world.acc.state.set_motion(true);
    writer.events(&mut world);
    other.events(&mut world);

    assert_eq!(writer.write(&mut world, iid::VOLUME, json!(20)), 0);
    world.advance(100);
    assert_eq!(writer.write(&mut world, iid::MUTE, json!(1)), 0);
    assert_eq!(writer.write(&mut world, iid::VOLUME, json!(30)), 0);
    assert!(other.events(&mut world).is_empty());
    world.advance(149);
    assert!(other.events(&mut world).is_empty());
    world.advance(1);
    assert_eq!(other.events(&mut world), [[(iid::MUTE, json!(1)), (iid::VOLUME, json!(30))]]);
    // Nothing changes: nothing is told, nothing stored.
    world.log();
    assert_eq!(writer.write(&mut world, iid::VOLUME, json!(30)), 0);
    world.advance(1000);
    assert!(other.events(&mut world).is_empty() && world.log().is_empty());

    // Off: motion ends at once; StatusActive is a consequence, so the writer hears of it, too.
    assert_eq!(writer.write(&mut world, iid::CAMERA_ACTIVE, json!(0)), 0);
    assert_eq!(other.events(&mut world), [[(iid::MOTION, json!(0))]]);
    world.advance(250);
    assert_eq!(other.events(&mut world), [[(iid::STATUS_ACTIVE, json!(0)), (iid::CAMERA_ACTIVE, json!(0))]]);
    assert_eq!(writer.events(&mut world), [[(iid::MOTION, json!(0))], [(iid::STATUS_ACTIVE, json!(0))]]);
    // Motion that goes on is reported once the camera is on again.
    assert_eq!(other.write(&mut world, iid::CAMERA_ACTIVE, json!(1)), 0);
    world.advance(250);
    assert_eq!(
        writer.events(&mut world),
        [vec![(iid::MOTION, json!(1))], vec![(iid::STATUS_ACTIVE, json!(1)), (iid::CAMERA_ACTIVE, json!(1))]]
    );
}

#[test]
fn an_event_waits_for_the_response() {
    let (mut world, _, mut client) = paired();
    client.subscribe(&mut world, &[iid::MOTION]);
    world.picture = None;
    let request = client.controller.request("POST", "/resource", br#"{"resource-type":"image"}"#);
    let mut link = Link(&mut world, client.id);
    link.send(&request);
    world.acc.state.set_motion(true);
    assert!(Link(&mut world, client.id).receive().is_empty());
    world.advance(8000);
    let mut link = Link(&mut world, client.id);
    let answer = client.controller.wait(&mut link).unwrap();
    assert_eq!((answer.status(), answer.json()), (207, json!({"status":-70408})));
    assert_eq!(client.events(&mut world), [[(iid::MOTION, json!(1))]]);
    // The picture that comes now is nobody's.
    world.on(client.id, |c, acc, _| c.handle_snapshot(Ok(Rc::from(*b"J")), acc));
    assert!(Link(&mut world, client.id).receive().is_empty());
}

#[test]
fn a_press_of_the_button_is_told_each_time() {
    let features = Features { doorbell: true, ..Features::default() };
    let (mut world, _, mut client) = paired_with(World::with(features, Pairings::new(), None));
    world.acc.state.ring(Press::Single);
    client.subscribe(&mut world, &[iid::SWITCH_EVENT]);
    for _ in 0..2 {
        world.acc.state.ring(Press::Single);
        assert_eq!(client.events(&mut world), [[(iid::SWITCH_EVENT, json!(0))]]);
    }
    // Each as what it was, also when several are told late.
    for press in [Press::Double, Press::Long, Press::Single] {
        world.acc.state.ring(press);
    }
    let told = [1, 2, 0].map(|value| vec![(iid::SWITCH_EVENT, json!(value))]);
    assert_eq!(client.events(&mut world), told);
    assert_eq!(client.read(&mut world, iid::SWITCH_EVENT), Json::Null);
    assert_eq!(world.acc.category(), 18);
    let (mut camera, _, mut client) = paired();
    camera.acc.state.ring(Press::Single);
    let body = json!({"characteristics":[{"aid":1,"iid":iid::SWITCH_EVENT,"ev":true}]});
    assert_eq!(client.put(&mut camera, body).json()["characteristics"][0]["status"], -70409);
}

#[test]
fn a_chime_can_be_muted_and_is_another_database() {
    let plain = Features { doorbell: true, ..Features::default() };
    let (world, _, _) = paired_with(World::with(plain, Pairings::new(), None));
    let number = world.acc.state.configuration_number();
    let chime = Features { chime: true, ..plain };
    let with_chime = World::with(chime, Pairings::new(), Some(world.stored()));
    assert_eq!(with_chime.acc.state.configuration_number(), number + 1);
    let all = World::with(Features { all_presses: true, ..plain }, Pairings::new(), Some(world.stored()));
    assert_eq!(all.acc.state.configuration_number(), number + 1);
    let (mut world, _, mut client) = paired_with(with_chime);
    assert!(!world.acc.state.settings().chime_mute);
    assert_eq!(client.read(&mut world, iid::CHIME_MUTE), json!(0));
    assert_eq!(client.write(&mut world, iid::CHIME_MUTE, json!(true)), 0);
    assert!(world.acc.state.settings().chime_mute && world.stored().settings.chime_mute);
}

// ---- states, storing, configuration number

#[test]
fn off_at_the_camera_is_what_its_switch_or_somebody_says() {
    let (mut world, _, mut client) = paired();
    client.subscribe(&mut world, &[iid::MANUALLY_DISABLED]);
    world.acc.state.set_privacy(true);
    world.acc.state.set_manually_disabled(true);
    world.pump();
    let off = ["Store { connection: None, what: Camera }", "CameraActive(false)", "StreamingAllowed(false)"];
    assert_eq!(world.log()[..3], off);
    world.advance(250);
    assert_eq!(client.events(&mut world), [[(iid::MANUALLY_DISABLED, json!(1))]]);
    world.acc.state.set_manually_disabled(false);
    assert!(!world.acc.state.camera_active());
    // Known from the first moment on after a restart.
    let mut again = World::with(Features::default(), Pairings::new(), Some(world.stored()));
    assert!(again.log().contains(&"CameraActive(false)".into()) && again.acc.state.manually_disabled());
    world.acc.state.set_privacy(false);
    world.pump();
    assert!(world.acc.state.camera_active() && !world.stored().privacy);
    assert!(world.log().contains(&"CameraActive(true)".into()));
}

#[test]
fn recording_is_armed_by_three_things() {
    let (mut world, _, mut client) = paired();
    let selection = json!(tlv_vector("recording_selected_1080p"));
    assert_eq!(client.write(&mut world, iid::RECORDING_ACTIVE, json!(1)), 0);
    assert_eq!(client.write(&mut world, iid::SELECTED_RECORDING, selection), 0);
    assert!(world.log().contains(&"RecordingArmed(true)".into()));
    assert!(world.acc.state.recording_permission().armed());
    world.acc.state.set_manually_disabled(true);
    world.pump();
    assert_eq!(
        world.log(),
        ["CameraActive(false)", "RecordingArmed(false)", "StreamingAllowed(false)", "StatusLed(false)"]
    );
    assert_eq!(client.read(&mut world, iid::MANUALLY_DISABLED), json!(1));
    assert_eq!(client.read(&mut world, iid::CAMERA_ACTIVE), json!(1));
    assert_eq!(client.read(&mut world, iid::STATUS_ACTIVE), json!(1));
    world.acc.state.set_manually_disabled(false);
    world.pump();
    assert_eq!(
        world.log(),
        ["CameraActive(true)", "RecordingArmed(true)", "StreamingAllowed(true)", "StatusLed(true)"]
    );
    let permission = world.acc.state.recording_permission();
    assert_eq!(permission.selected.map(|s| (s.fragment_ms, s.audio_rate_hz)), Some((4000, 32_000)));
}

#[test]
fn settings_survive_a_restart_and_wait_for_the_store() {
    let (mut world, who, mut client) = paired();
    let selection = json!(tlv_vector("recording_selected_1080p"));
    assert_eq!(client.write(&mut world, iid::SELECTED_RECORDING, selection.clone()), 0);
    assert_eq!(client.write(&mut world, iid::RECORDING_ACTIVE, json!(1)), 0);
    world.store = Store::Waits;
    let body = json!({"characteristics":[{"aid":1,"iid":iid::STREAM_ACTIVE_2,"value":0}]}).to_string();
    let mut link = Link(&mut world, client.id);
    assert!(client.controller.try_exchange(&mut link, "PUT", "/characteristics", body.as_bytes()).is_none());
    world.on(client.id, |c, acc, s| c.handle_stored(true, acc, s));
    assert_eq!(client.controller.wait(&mut Link(&mut world, client.id)).unwrap().status(), 204);
    // A full flash does not take the camera away.
    world.store = Store::Fails;
    assert_eq!(client.write(&mut world, iid::VOLUME, json!(11)), 0);

    let (stored, pairings) = (world.stored(), world.acc.pairings.clone());
    let mut again = World::with(Features { speaker: true, ..Features::default() }, pairings, Some(stored));
    assert_eq!(again.log(), ["RecordingArmed(true)", LIGHTS[0], LIGHTS[1]]);
    again.acc.identity = world.acc.identity;
    let mut client = Client::verified(&mut again, &who);
    assert_eq!(client.read(&mut again, iid::SELECTED_RECORDING), selection);
    assert_eq!(client.read(&mut again, iid::RECORDING_ACTIVE), json!(1));
    assert_eq!(client.read(&mut again, iid::STREAM_ACTIVE_2), json!(0));
    assert_eq!(client.read(&mut again, iid::VOLUME), json!(11));
}

#[test]
fn another_audio_rate_is_another_offer() {
    let (mut world, _, mut client) = paired();
    client.subscribe(&mut world, &[iid::SUPPORTED_AUDIO]);
    let selection = json!(tlv_vector("recording_selected_1080p"));
    assert_eq!(client.write(&mut world, iid::SELECTED_RECORDING, selection.clone()), 0);
    let number = world.acc.state.configuration_number();
    world.log();
    // The rate that was offered: it is kept, and nothing changes.
    assert!(world.acc.state.set_audio_rate(32_000));
    world.pump();
    assert_eq!(world.log(), ["Store { connection: None, what: Camera }"]);
    assert!(!world.acc.state.set_audio_rate(22_050));
    assert!(world.acc.state.set_audio_rate(16_000));
    world.pump();
    assert!(world.log().contains(&"TxtChanged".into()));
    assert_eq!(world.acc.state.configuration_number(), number + 1);
    assert_eq!(client.read(&mut world, iid::SELECTED_RECORDING), Json::Null);
    world.advance(250);
    assert_eq!(client.events(&mut world), [[(iid::SUPPORTED_AUDIO, json!("AQ4BAQACCQEBAQIBAAMBAQ=="))]]);

    // After a restart the rate that was seen is offered from the start: the number stays.
    let mut again =
        World::with(Features { speaker: true, ..Features::default() }, Pairings::new(), Some(world.stored()));
    assert_eq!(again.acc.state.configuration_number(), number + 1);
    assert!(again.acc.state.set_audio_rate(16_000));
    again.pump();
    assert_eq!(again.log(), LIGHTS);
}

#[test]
fn another_database_has_another_number_and_after_65535_comes_1() {
    let mut world = World::new();
    assert_eq!(world.acc.state.configuration_number(), 1);
    assert_eq!(world.log(), ["Store { connection: None, what: Camera }", LIGHTS[0], LIGHTS[1]]);
    let mut stored = world.stored();
    let speaker = Features { speaker: true, ..Features::default() };
    let mut same = World::with(speaker, Pairings::new(), Some(stored.clone()));
    assert_eq!((same.acc.state.configuration_number(), same.log().len()), (1, LIGHTS.len()));
    let other = World::with(Features { status_led: true, ..speaker }, Pairings::new(), Some(stored.clone()));
    assert_eq!(other.acc.state.configuration_number(), 2);
    stored.configuration_number = 65535;
    let wrapped = World::with(Features::default(), Pairings::new(), Some(stored));
    assert_eq!(wrapped.acc.state.configuration_number(), 1);
}

// ---- snapshots

#[test]
fn snapshots_are_refused_in_the_order_of_the_rules() {
    let (mut world, _, mut client) = paired();
    let image =
        |reason: &str| format!("{{\"resource-type\":\"image\",\"image-width\":640,\"image-height\":360{reason}}}");
    let ask = |world: &mut World, client: &mut Client, body: &str| {
        let answer = client.ask(world, "POST", "/resource", body);
        (answer.status(), answer.json()["status"].as_i64().unwrap_or(0))
    };
    let (none, periodic, event) = (image(""), image(",\"reason\":0"), image(",\"reason\":1"));
    for body in [&none, &periodic, &event] {
        assert_eq!(ask(&mut world, &mut client, body), (200, 0));
    }
    for body in ["", "[]", "{}", "{\"resource-type\":\"sound\"}", "{\"resource-type\":1}", &image(",\"reason\":2")] {
        assert_eq!(ask(&mut world, &mut client, body), (400, -70410), "{body}");
    }
    assert_eq!(ask(&mut world, &mut client, &image(",\"aid\":2")), (404, -70409));
    client.write(&mut world, iid::EVENT_SNAPSHOTS, json!(0));
    assert_eq!(ask(&mut world, &mut client, &none), (207, -70401));
    assert_eq!(ask(&mut world, &mut client, &periodic), (200, 0));
    assert_eq!(ask(&mut world, &mut client, &event), (207, -70412));
    assert_eq!(ask(&mut world, &mut client, "nonsense"), (207, -70401));
    assert_eq!(ask(&mut world, &mut client, &image(",\"aid\":2,\"reason\":0")), (404, -70409));
    client.write(&mut world, iid::EVENT_SNAPSHOTS, json!(1));
    client.write(&mut world, iid::PERIODIC_SNAPSHOTS, json!(0));
    assert_eq!(ask(&mut world, &mut client, &none), (207, -70401));
    assert_eq!(ask(&mut world, &mut client, &periodic), (207, -70412));
    assert_eq!(ask(&mut world, &mut client, &event), (200, 0));
    // One stream is enough; the state comes before everything else.
    client.write(&mut world, iid::STREAM_ACTIVE, json!(0));
    assert_eq!(ask(&mut world, &mut client, &event), (200, 0));
    client.write(&mut world, iid::STREAM_ACTIVE_2, json!(0));
    for body in [&event, &none, "nonsense"] {
        assert_eq!(ask(&mut world, &mut client, body), (207, -70412));
    }
    world.log();
    world.picture = Some(Err(Status::UnableToCommunicate));
    client.write(&mut world, iid::STREAM_ACTIVE, json!(1));
    assert_eq!(ask(&mut world, &mut client, &event), (207, -70402));
    let wanted = "width: 640, height: 360, reason: Some(Event)";
    assert!(world.log().last().unwrap().contains(wanted));
}
