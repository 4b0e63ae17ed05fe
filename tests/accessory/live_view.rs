//! Live views as controllers see them: characteristics 117, 118 and 120 of both services.

use super::world::{Client, Link, World, paired, paired_with};
use super::{iid, tlv_vector};
use crate::controller::Transport as _;
use data_encoding::BASE64;
use hksvd::hap::accessory::Refusal;
use hksvd::hap::camera_tlv::LiveAudioOffer;
use hksvd::hap::types::Status;
use serde_json::{Value as Json, json};
use std::rc::Rc;

/// The instance ids of one service.
#[derive(Clone, Copy)]
struct Service {
    status: u64,
    setup: u64,
    selected: u64,
    active: u64,
}

const FIRST: Service = Service {
    status: iid::STREAMING_STATUS,
    setup: iid::SETUP_ENDPOINTS,
    selected: iid::SELECTED_RTP,
    active: iid::STREAM_ACTIVE,
};
const SECOND: Service = Service { status: 0x31, setup: 0x35, selected: 0x36, active: iid::STREAM_ACTIVE_2 };

const AVAILABLE: &str = "AQEA";
const IN_USE: &str = "AQEB";

fn decoded(text: &str) -> Vec<u8> {
    let mut out = vec![0; BASE64.decode_len(text.len()).unwrap()];
    let len = BASE64.decode_mut(text.as_bytes(), &mut out).unwrap();
    out.truncate(len);
    out
}

fn encoded(tlv: &[u8]) -> Json {
    let mut out = vec![0; BASE64.encode_len(tlv.len())];
    BASE64.encode_mut(tlv, &mut out);
    String::from_utf8(out).unwrap().into()
}

/// A value of the vectors for the live view number `n`: the last byte of the session id.
fn value(name: &str, n: u8) -> Json {
    let mut tlv = decoded(&tlv_vector(name));
    let id = &decoded(&tlv_vector("setup_endpoints_busy"))[2..18];
    let at = tlv.windows(16).position(|w| w == id).unwrap();
    tlv[at + 15] = n;
    encoded(&tlv)
}

fn request(n: u8) -> Json {
    value("setup_endpoints_request_v4", n)
}

fn command(name: &str, n: u8) -> Json {
    value(&format!("selected_rtp_{name}"), n)
}

/// Status and session of what is read from 118.
fn answer(world: &mut World, client: &mut Client, service: Service) -> (u8, Option<u8>) {
    let text = client.read(world, service.setup);
    let tlv = decoded(text.as_str().unwrap());
    match tlv[..] {
        [2, 1, status] => (status, None),
        _ => {
            assert_eq!((&tlv[..2], &tlv[18..20]), (&[1, 16][..], &[2, 1][..]));
            assert_eq!(tlv.len() > 21, tlv[20] == 0, "only what succeeded has endpoints");
            (tlv[20], Some(tlv[17]))
        }
    }
}

const IDLE: (u8, Option<u8>) = (2, None);

/// 117, 118 and 120 as they are when nothing is set up.
fn assert_free(world: &mut World, client: &mut Client, service: Service) {
    assert_eq!(answer(world, client, service), IDLE);
    assert_eq!(client.read(world, service.selected), json!(tlv_vector("selected_rtp_idle_read")));
    assert_eq!(client.read(world, service.status), json!(AVAILABLE));
}

fn set_up(world: &mut World, client: &mut Client, service: Service, n: u8) {
    assert_eq!(client.write(world, service.setup, request(n)), 0);
    assert_eq!(answer(world, client, service), (0, Some(n)));
}

fn start(world: &mut World, client: &mut Client, service: Service, n: u8) {
    set_up(world, client, service, n);
    assert_eq!(client.write(world, service.selected, command("start_opus", n)), 0);
}

fn ended(world: &mut World) -> Vec<String> {
    world.pump();
    world.log().into_iter().filter(|effect| effect.starts_with("EndLiveView")).collect()
}

fn end_of(view: u8) -> Vec<String> {
    vec![format!("EndLiveView {{ view: {view} }}")]
}

#[test]
fn a_live_view_from_its_set_up_to_its_end() {
    let (mut world, who, mut client) = paired();
    let mut other = Client::verified(&mut world, &who);
    for one in [&mut client, &mut other] {
        one.subscribe(&mut world, &[FIRST.status, SECOND.status]);
    }
    let mut told = |world: &mut World, client: &mut Client, status: &str| {
        world.advance(300);
        for one in [client, &mut other] {
            assert_eq!(one.events(world), [[(FIRST.status, json!(status))]]);
        }
        assert_eq!(other.read(world, FIRST.status), json!(status));
        assert_eq!(answer(world, &mut other, FIRST), IDLE, "it is nobody else's");
    };
    set_up(&mut world, &mut client, FIRST, 7);
    told(&mut world, &mut client, IN_USE);
    assert_eq!(client.read(&mut world, FIRST.selected), json!(tlv_vector("selected_rtp_idle_read")));
    for name in ["start_opus", "reconfigure", "suspend", "resume"] {
        assert_eq!(client.write(&mut world, FIRST.selected, command(name, 7)), 0, "{name}");
        assert_eq!(client.read(&mut world, FIRST.selected), command(name, 7));
    }
    assert_eq!(answer(&mut world, &mut client, FIRST), (0, Some(7)));
    assert_free(&mut world, &mut client, SECOND);
    assert_eq!(client.write(&mut world, FIRST.selected, command("end", 7)), 0);
    told(&mut world, &mut client, AVAILABLE);
    assert_free(&mut world, &mut client, FIRST);
    let asked = ["set up for 192.0.2.20 50210 50211", "Start", "Reconfigure", "Suspend", "Resume", "End"];
    assert_eq!(world.views.asked, asked.map(|what| format!("{}.0 {what}", client.id)));
    assert!(ended(&mut world).is_empty(), "the shell knows of the end");
}

#[test]
fn commands_need_a_live_view_of_ones_own() {
    let (mut world, who, mut client) = paired();
    let mut other = Client::verified(&mut world, &who);
    let all = ["start_opus", "reconfigure", "suspend", "resume"];
    for name in all {
        assert_eq!(client.write(&mut world, FIRST.selected, command(name, 7)), -70410, "{name}");
    }
    assert_eq!(client.write(&mut world, FIRST.selected, command("end", 7)), 0);
    set_up(&mut world, &mut client, FIRST, 7);
    world.views.asked.clear();
    for name in &all[1..] {
        assert_eq!(client.write(&mut world, FIRST.selected, command(name, 7)), -70410, "{name} before the start");
    }
    // AAC-ELD was not offered.
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_mtu_eld", 7)), -70410);
    assert!(world.views.asked.is_empty());
    // What the camera cannot do is no start.
    world.views.refuse = Some(Refusal::Error);
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_opus", 7)), -70410);
    assert_eq!(client.read(&mut world, FIRST.selected), json!(tlv_vector("selected_rtp_idle_read")));
    world.views.refuse = None;
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_opus", 7)), 0);
    world.views.asked.clear();
    // Again the same is no news, another start is none.
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_opus", 7)), 0);
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_watch", 7)), -70410);
    // Another session, another service, another connection.
    for name in all {
        assert_eq!(client.write(&mut world, FIRST.selected, command(name, 8)), -70410, "{name}");
        assert_eq!(client.write(&mut world, SECOND.selected, command(name, 7)), -70410, "{name}");
        assert_eq!(other.write(&mut world, FIRST.selected, command(name, 7)), -70410, "{name}");
    }
    assert_eq!(client.write(&mut world, FIRST.selected, command("end", 8)), 0);
    for service in [FIRST, SECOND] {
        assert_eq!(other.write(&mut world, service.selected, command("end", 7)), 0);
    }
    assert!(world.views.asked.is_empty(), "{:?}", world.views.asked);
    assert_eq!(client.read(&mut world, FIRST.selected), command("start_opus", 7));
    // An end succeeds in any case.
    world.views.refuse = Some(Refusal::Error);
    assert_eq!(client.write(&mut world, FIRST.selected, command("end", 7)), 0);
    assert_free(&mut world, &mut client, FIRST);
    assert_eq!(client.write(&mut world, FIRST.selected, command("end", 7)), 0);
    assert_eq!(world.views.asked.len(), 1);
}

#[test]
fn only_offered_rates_are_started() {
    let (mut world, _, mut client) = paired();
    let number = world.acc.state.configuration_number();
    world.acc.state.set_live_audio(LiveAudioOffer::Only16kHz);
    assert_eq!(world.acc.state.configuration_number(), number + 1);
    set_up(&mut world, &mut client, FIRST, 1);
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_opus", 1)), -70410, "24 kHz");
    world.acc.state.set_live_audio(LiveAudioOffer::Only24kHz);
    assert_eq!(client.write(&mut world, FIRST.selected, command("start_opus", 1)), 0);
}

#[test]
fn two_at_once_and_one_more_is_busy() {
    let (mut world, who, mut client) = paired();
    let mut hub = Client::verified(&mut world, &who);
    let mut third = Client::verified(&mut world, &who);
    start(&mut world, &mut client, FIRST, 1);
    start(&mut world, &mut hub, SECOND, 2);
    let mut running = |world: &mut World| {
        let values = [(FIRST, 1), (SECOND, 2)].map(|(service, n)| (service, command("start_opus", n)));
        for (service, value) in values {
            assert_eq!(client.read(world, service.selected), value);
            assert_eq!(client.read(world, service.status), json!(IN_USE));
        }
    };
    running(&mut world);
    world.views.asked.clear();
    for (service, n) in [(FIRST, 3), (SECOND, 4)] {
        assert_eq!(third.write(&mut world, service.setup, request(n)), 0);
    }
    assert_eq!(hub.write(&mut world, FIRST.setup, request(5)), 0);
    // Each reads its own refusal, and whoever was not refused what it had.
    assert_eq!(answer(&mut world, &mut third, FIRST), (1, Some(3)));
    assert_eq!(answer(&mut world, &mut third, SECOND), (1, Some(4)));
    assert_eq!(answer(&mut world, &mut hub, FIRST), (1, Some(5)));
    assert_eq!(answer(&mut world, &mut hub, SECOND), (0, Some(2)));
    running(&mut world);
    // Even with the id of its own that runs.
    assert_eq!(hub.write(&mut world, SECOND.setup, request(2)), 0);
    assert_eq!(answer(&mut world, &mut hub, SECOND), (1, Some(2)));
    running(&mut world);
    assert!(world.views.asked.is_empty() && ended(&mut world).is_empty());
    // Its end is still its own.
    assert_eq!(hub.write(&mut world, SECOND.selected, command("end", 2)), 0);
    assert_free(&mut world, &mut hub, SECOND);
    assert_free(&mut world, &mut third, SECOND);
    start(&mut world, &mut third, SECOND, 6);
    assert_eq!(answer(&mut world, &mut third, FIRST), (1, Some(3)));
}

/// More refusals than are kept: the latest are right, and the oldest reads as nothing.
#[test]
fn refusals_are_bounded() {
    let (mut world, who, mut client) = paired();
    start(&mut world, &mut client, FIRST, 0);
    let mut others: Vec<Client> = (0..9).map(|_| Client::verified(&mut world, &who)).collect();
    for (other, n) in others.iter_mut().zip(1..) {
        assert_eq!(other.write(&mut world, FIRST.setup, request(n)), 0);
    }
    let seen: Vec<_> = others.iter_mut().map(|other| answer(&mut world, other, FIRST)).collect();
    let expected: Vec<_> = (1..=9).map(|n| if n == 1 { IDLE } else { (1, Some(n)) }).collect();
    assert_eq!(seen, expected);
    // Refused twice counts once, and who leaves makes room.
    assert_eq!(others[8].write(&mut world, FIRST.setup, request(10)), 0);
    assert_eq!(answer(&mut world, &mut others[1], FIRST), (1, Some(2)));
    world.close(others[5].id);
    assert_eq!(others[0].write(&mut world, FIRST.setup, request(11)), 0);
    assert_eq!(answer(&mut world, &mut others[0], FIRST), (1, Some(11)));
    assert_eq!(answer(&mut world, &mut others[1], FIRST), (1, Some(2)));
}

#[test]
fn a_second_set_up_before_the_start_replaces_the_first() {
    let (mut world, who, mut client) = paired();
    let mut other = Client::verified(&mut world, &who);
    set_up(&mut world, &mut client, FIRST, 1);
    client.subscribe(&mut world, &[FIRST.status]);
    assert_eq!(client.write(&mut world, FIRST.setup, value("setup_endpoints_request_v6", 1)), 0);
    assert_eq!(answer(&mut world, &mut client, FIRST), (0, Some(1)));
    assert_eq!(world.views.asked.last(), Some(&format!("{}.0 set up for 2001:db8::20 50210 50211", client.id)));
    world.advance(300);
    assert!(client.events(&mut world).is_empty(), "it was in use, and is");
    // Not for others, and not for something else.
    for client in [&mut client, &mut other] {
        assert_eq!(client.write(&mut world, FIRST.setup, request(2)), 0);
        assert_eq!(answer(&mut world, client, FIRST), (1, Some(2)));
    }
    assert_eq!(other.write(&mut world, FIRST.setup, request(1)), 0);
    assert_eq!(answer(&mut world, &mut other, FIRST), (1, Some(1)));
    assert_eq!(world.views.asked.len(), 2);
    // One that fails leaves nothing.
    world.views.refuse = Some(Refusal::Error);
    assert_eq!(client.write(&mut world, FIRST.setup, request(1)), 0);
    assert_eq!(answer(&mut world, &mut client, FIRST), (2, Some(1)));
    assert_eq!(client.read(&mut world, FIRST.status), json!(AVAILABLE));
    assert_eq!(ended(&mut world), end_of(0));
    world.views.refuse = None;
    start(&mut world, &mut client, FIRST, 1);
}

#[test]
fn what_cannot_be_set_up_is_told_by_the_answer() {
    let (mut world, _, mut client) = paired();
    for (refusal, status) in [(Refusal::Busy, 1), (Refusal::Error, 2)] {
        world.views.refuse = Some(refusal);
        assert_eq!(client.write(&mut world, FIRST.setup, request(1)), 0);
        assert_eq!(answer(&mut world, &mut client, FIRST), (status, Some(1)));
        assert_eq!(client.read(&mut world, FIRST.status), json!(AVAILABLE));
        assert_eq!(client.write(&mut world, FIRST.selected, command("start_opus", 1)), -70410);
    }
    world.views.refuse = None;
    world.views.asked.clear();
    // Suites that are not offered, for either medium: 256 bits and none.
    let usual = decoded(request(1).as_str().unwrap());
    let (head, rest) = usual.split_at(usual.len() - 2 * 39);
    let (video, audio) = rest.split_at(39);
    let long = [&[4, 53, 1, 1, 1, 2, 32][..], &[7; 32], &[3, 14], &[8; 14]].concat();
    let none = [4, 7, 1, 1, 2, 2, 0, 3, 0].to_vec();
    for other in [long, none] {
        let as_audio = [&[5][..], &other[1..]].concat();
        for tlv in [[head, &other[..], audio].concat(), [head, video, &as_audio[..]].concat()] {
            assert_eq!(client.write(&mut world, FIRST.setup, encoded(&tlv)), 0);
            assert_eq!(answer(&mut world, &mut client, FIRST), (2, Some(1)));
        }
    }
    assert!(world.views.asked.is_empty() && ended(&mut world).is_empty());
    set_up(&mut world, &mut client, FIRST, 1);
}

#[test]
fn nothing_is_set_up_where_streaming_is_off() {
    let (mut world, _, mut client) = paired();
    let refused = |world: &mut World, client: &mut Client, service: Service| {
        for value in [request(1), json!("AQ==")] {
            assert_eq!(client.write(world, service.setup, value), -70412);
        }
        assert_eq!(client.write(world, service.selected, command("start_opus", 1)), -70412);
        assert_eq!(client.write(world, service.selected, json!("AQ==")), -70412);
        assert_eq!(client.write(world, service.selected, command("end", 1)), 0);
        assert_free(world, client, service);
    };
    client.write(&mut world, FIRST.active, json!(0));
    refused(&mut world, &mut client, FIRST);
    set_up(&mut world, &mut client, SECOND, 1);
    client.write(&mut world, FIRST.active, json!(1));
    client.write(&mut world, iid::CAMERA_ACTIVE, json!(0));
    refused(&mut world, &mut client, FIRST);
    refused(&mut world, &mut client, SECOND);
    client.write(&mut world, iid::CAMERA_ACTIVE, json!(1));
    world.acc.state.set_manually_disabled(true);
    refused(&mut world, &mut client, FIRST);
    refused(&mut world, &mut client, SECOND);
    world.acc.state.set_manually_disabled(false);
    set_up(&mut world, &mut client, FIRST, 1);
}

#[test]
fn switching_off_ends_live_views() {
    let (mut world, who, mut client) = paired();
    let mut other = Client::verified(&mut world, &who);
    other.subscribe(&mut world, &[FIRST.status, SECOND.status]);
    let both = [end_of(0), end_of(1)].concat();
    type Off<'a> = &'a dyn Fn(&mut World, &mut Client);
    let all: [(Off<'_>, &[String]); 4] = [
        (&|world, client| assert_eq!(client.write(world, FIRST.active, json!(0)), 0), &both[..1]),
        (&|world, client| assert_eq!(client.write(world, SECOND.active, json!(0)), 0), &both[1..]),
        (&|world, client| assert_eq!(client.write(world, iid::CAMERA_ACTIVE, json!(0)), 0), &both),
        (&|world, _| world.acc.state.set_manually_disabled(true), &both),
    ];
    for (off, expected) in all {
        start(&mut world, &mut client, FIRST, 1);
        // Set up is enough.
        set_up(&mut world, &mut client, SECOND, 2);
        world.advance(300);
        other.events(&mut world);
        ended(&mut world);
        off(&mut world, &mut other);
        assert_eq!(ended(&mut world), expected);
        world.advance(300);
        let events: Vec<u64> = other.events(&mut world).into_iter().flatten().map(|(iid, _)| iid).collect();
        for (service, view) in [(FIRST, 0), (SECOND, 1)] {
            let over = expected.contains(&both[view]);
            assert_eq!(events.contains(&service.status), over);
            match over {
                true => assert_free(&mut world, &mut client, service),
                false => assert_eq!(client.read(&mut world, service.status), json!(IN_USE)),
            }
        }
        for iid in [FIRST.active, SECOND.active, iid::CAMERA_ACTIVE] {
            other.write(&mut world, iid, json!(1));
        }
        world.acc.state.set_manually_disabled(false);
        for (service, n) in [(FIRST, 1), (SECOND, 2)] {
            client.write(&mut world, service.selected, command("end", n));
        }
    }
}

#[test]
fn a_live_view_ends_with_its_connection() {
    let (mut world, who, mut client) = paired();
    let mut other = Client::verified(&mut world, &who);
    other.subscribe(&mut world, &[FIRST.status]);
    start(&mut world, &mut client, FIRST, 1);
    assert!(world.acc.state.has_live_view(client.id) && !world.acc.state.has_live_view(other.id));
    start(&mut world, &mut other, SECOND, 2);
    world.advance(300);
    other.events(&mut world);
    ended(&mut world);
    world.close(client.id);
    assert_eq!(ended(&mut world), end_of(0));
    assert!(!world.acc.state.has_live_view(client.id));
    world.advance(300);
    assert_eq!(other.events(&mut world), [[(FIRST.status, json!(AVAILABLE))]]);
    assert_eq!(other.read(&mut world, SECOND.selected), command("start_opus", 2));
    start(&mut world, &mut other, FIRST, 3);
}

#[test]
fn a_live_view_ends_with_its_pairing() {
    let (mut world, who, mut admin) = paired();
    let second = who.friend("second");
    assert_eq!(admin.controller.add_pairing(&mut Link(&mut world, admin.id), &second, false), None);
    let mut user = Client::verified(&mut world, &second);
    start(&mut world, &mut user, FIRST, 1);
    start(&mut world, &mut admin, SECOND, 2);
    ended(&mut world);
    assert_eq!(admin.controller.remove_pairing(&mut Link(&mut world, admin.id), "second"), None);
    // Before the connection is closed: that takes as long as its controller likes.
    let log = world.log();
    let at = |what: &str| log.iter().position(|effect| effect.starts_with(what)).unwrap();
    assert!(at("EndLiveView { view: 0 }") < at("CloseController"), "{log:?}");
    assert_free(&mut world, &mut admin, FIRST);
    assert_eq!(admin.read(&mut world, SECOND.status), json!(IN_USE));
    // And with the last one all.
    assert_eq!(admin.controller.remove_pairing(&mut Link(&mut world, admin.id), &who.id), None);
    assert_eq!(ended(&mut world), end_of(1));
}

#[test]
fn a_factory_reset_ends_live_views() {
    let (mut world, _, mut client) = paired();
    start(&mut world, &mut client, FIRST, 1);
    set_up(&mut world, &mut client, SECOND, 2);
    ended(&mut world);
    let identity = hksvd::hap::pairing::Identity::generate(&mut world.random, None);
    world.acc.factory_reset(identity, &mut world.random);
    assert_eq!(ended(&mut world), [end_of(0), end_of(1)].concat());
}

#[test]
fn an_end_that_the_shell_tells_frees_the_service() {
    let (mut world, _, mut client) = paired();
    client.subscribe(&mut world, &[FIRST.status, SECOND.status]);
    start(&mut world, &mut client, FIRST, 1);
    world.advance(300);
    client.events(&mut world);
    for view in [1, 2, 255] {
        world.acc.state.live_view_ended(view);
    }
    assert_eq!(client.read(&mut world, FIRST.status), json!(IN_USE));
    world.acc.state.live_view_ended(0);
    assert_free(&mut world, &mut client, FIRST);
    world.advance(300);
    assert_eq!(client.events(&mut world), [[(FIRST.status, json!(AVAILABLE))]]);
    assert!(ended(&mut world).is_empty());
    // The controller does not know yet.
    assert_eq!(client.write(&mut world, FIRST.selected, command("reconfigure", 1)), -70410);
    assert_eq!(client.write(&mut world, FIRST.selected, command("end", 1)), 0);
}

#[test]
fn sound_is_told_when_it_changes() {
    let (mut world, _, mut client) = paired();
    let told = |world: &mut World| world.log().iter().filter(|effect| *effect == "SoundChanged").count();
    for (iid, value) in [(iid::MUTE, 1), (iid::VOLUME, 30), (0x51, 1), (0x52, 40)] {
        assert_eq!(client.write(&mut world, iid, json!(value)), 0);
        assert_eq!(told(&mut world), 1, "{iid:#x}");
        assert_eq!(client.write(&mut world, iid, json!(value)), 0);
        assert_eq!(told(&mut world), 0, "{iid:#x} is what it was");
    }
    let state = &world.acc.state;
    let [microphone, speaker] = [state.microphone(), state.speaker()];
    assert_eq!([(microphone.mute, microphone.volume), (speaker.mute, speaker.volume)], [(true, 30), (true, 40)]);
    let stored = world.stored();
    let mut again = paired_with(World::with(*world.acc.state.features(), Default::default(), Some(stored))).0;
    assert_eq!([again.acc.state.microphone(), again.acc.state.speaker()], [microphone, speaker]);
    assert_eq!(told(&mut again), 0);
    let identity = hksvd::hap::pairing::Identity::generate(&mut again.random, None);
    again.acc.factory_reset(identity, &mut again.random);
    again.pump();
    assert_eq!(told(&mut again), 1);
}

/// Every status that a picture can end with reaches the controller.
#[test]
fn why_there_is_no_picture() {
    let (mut world, _, mut client) = paired();
    let image = "{\"resource-type\":\"image\",\"image-width\":640,\"image-height\":360,\"reason\":0}";
    for status in [Status::UnableToCommunicate, Status::ResourceBusy, Status::TimedOut, Status::NotAllowedNow] {
        world.picture = Some(Err(status));
        let answer = client.ask(&mut world, "POST", "/resource", image);
        assert_eq!((answer.status(), answer.json()), (207, json!({ "status": status.code() })));
    }
    // A camera that was switched off meanwhile shows nothing any more.
    world.picture = None;
    let request = client.controller.request("POST", "/resource", image.as_bytes());
    Link(&mut world, client.id).send(&request);
    world.acc.state.set_manually_disabled(true);
    world.on(client.id, |c, acc, _| c.handle_snapshot(Ok(Rc::from(*b"J")), acc));
    let answer = client.controller.wait(&mut Link(&mut world, client.id)).unwrap();
    assert_eq!((answer.status(), answer.json()), (207, json!({"status":-70412})));
}
