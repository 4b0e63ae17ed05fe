//! The client in virtual time, against a server that says what it is told to.

use super::*;
use crate::rtsp::login::Refused;

const URL: &str = "rtsp://127.0.0.1:554/ch0";

/// As raptor and prudynt describe themselves: absolute and relative addresses, parameter sets only here.
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=ch0\r\nt=0 0\r\na=control:*\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IR,aM4=\r\n\
    a=control:track1\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/16000/1\r\n\
    a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1408\r\na=control:rtsp://h/x/track2\r\n";

struct World {
    client: Client,
    now: Instant,
    events: Vec<String>,
}

impl World {
    fn new(login: Option<&str>) -> World {
        let mut client = Client::new(URL, login, true, 1000, 7);
        client.start();
        World { client, now: Instant::ZERO, events: Vec::new() }
    }

    /// The request that the client sends now.
    fn sent(&mut self) -> String {
        let mut room = [0; REQUEST_BYTES];
        match self.client.poll_transmit(self.now, &mut room) {
            Some(len) => String::from_utf8(room[..len].to_vec()).unwrap(),
            None => String::new(),
        }
    }

    /// The first line of it, without the version.
    fn line(&mut self) -> String {
        self.sent().split(" RTSP/1.0").next().unwrap_or_default().to_string()
    }

    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.events.push(match event {
                Event::Picture { annexb, key, arrival } => {
                    format!("picture of {}, {key}, {} ms", annexb.bytes().len(), arrival.as_micros() / 1000)
                }
                Event::Aac { raw_frame, rate_hz, channels, .. } => format!("{raw_frame:?} {rate_hz}/{channels}"),
                other => format!("{other:?}"),
            });
        }
    }

    /// The server sends bytes; they come in pieces of `step`.
    fn receive(&mut self, mut bytes: &[u8], step: usize) {
        while !bytes.is_empty() {
            let room = self.client.receive_buffer();
            let n = step.min(bytes.len()).min(room.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.client.handle_received(n, self.now);
            self.drain();
        }
    }

    fn answer(&mut self, status: u16, fields: &str, body: &str) {
        let cseq = self.client.cseq;
        let text =
            format!("RTSP/1.0 {status} x\r\nCSeq: {cseq}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len());
        self.receive(text.as_bytes(), text.len());
    }

    /// Up to the answer to PLAY.
    fn play(&mut self, timeout: &str) {
        assert_eq!(self.line(), format!("OPTIONS {URL}"));
        self.answer(200, "Public: DESCRIBE, GET_PARAMETER\r\n", "");
        self.line();
        self.answer(200, "", SDP);
        self.line();
        self.answer(200, &format!("Session: 5A{timeout}\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n"), "");
        self.line();
        self.answer(200, "Session: 5A\r\nTransport: RTP/AVP/TCP;unicast;interleaved=4-5\r\n", "");
        self.line();
        self.answer(200, "Session: 5A\r\n", "");
        assert_eq!((self.client.failure(), self.line()), (None, String::new()));
        assert_eq!(self.events.pop().as_deref(), Some("Playing { refused_sound: None }"));
    }

    fn wait(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(when) = self.client.poll_timeout().filter(|when| *when <= until) {
            assert!(when >= self.now && self.client.failure().is_none(), "a timer that is due for ever");
            self.now = when;
            self.client.handle_timeout(when);
            self.drain();
            if self.client.failure().is_some() || self.client.to_send.is_some() {
                return;
            }
        }
        self.now = until;
    }
}

fn rtp(channel: u8, payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'$', channel];
    bytes.extend((12 + payload.len() as u16).to_be_bytes());
    bytes.extend([0x80, 0x80 | payload_type]);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend([0, 0, 0, 1]);
    bytes.extend(payload);
    bytes
}

const IDR: &[u8] = b"\x65\x88\x01";

#[test]
fn a_session_from_the_first_request_to_media() {
    let mut world = World::new(None);
    let options = world.sent();
    assert_eq!(options, format!("OPTIONS {URL} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: hksvd\r\n\r\n"));
    assert_eq!(world.sent(), "", "one at a time");
    world.answer(200, "Public: OPTIONS, DESCRIBE\r\n", "");
    let describe = world.sent();
    assert!(describe.starts_with("DESCRIBE ") && describe.contains("\r\nAccept: application/sdp\r\n"), "{describe}");
    world.answer(200, "Content-Base: rtsp://127.0.0.1/base/\r\n", SDP);
    let setup = world.sent();
    assert!(setup.starts_with("SETUP rtsp://127.0.0.1/base/track1 RTSP/1.0\r\n"), "{setup}");
    assert!(setup.contains("\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n") && !setup.contains("Session"));
    world.answer(200, "Session: 5A;timeout=30\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", "");
    let setup = world.sent();
    assert!(setup.starts_with("SETUP rtsp://h/x/track2 RTSP/1.0\r\n"), "{setup}");
    assert!(setup.contains("interleaved=2-3\r\n") && setup.contains("\r\nSession: 5A\r\n"), "{setup}");
    world.answer(200, "Session: 5A\r\nTransport: RTP/AVP/TCP;unicast;interleaved=4-5;ssrc=1\r\n", "");
    let play = world.sent();
    assert!(
        play.starts_with("PLAY rtsp://127.0.0.1/base/ RTSP/1.0\r\nCSeq: 5\r\n") && play.contains("Range: npt=0.000-")
    );
    // Media may overtake the answer, and anything may be cut anywhere.
    let media = [
        rtp(0, 96, 9, 90, IDR),
        rtp(1, 72, 0, 0, b""),
        rtp(4, 97, 1, 16, b"\0\x20\0\x10\0\x08abc"),
        b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nSession: 5A\r\n\r\n".to_vec(),
        rtp(0, 96, 10, 3690, b"\x41\x9a\x01"),
        rtp(4, 77, 2, 16, b"other"),
        rtp(9, 96, 2, 16, b"other"),
    ]
    .concat();
    let want = [
        "picture of 20, true, 0 ms",
        "[97, 98] 16000/1",
        "[99] 16000/1",
        "Playing { refused_sound: None }",
        "picture of 7, false, 0 ms",
    ];
    let begun = world;
    for step in 1..media.len() {
        let mut world = World::new(None);
        world.client.url.clone_from(&begun.client.url);
        world.line();
        world.answer(200, "", "");
        world.line();
        world.answer(200, "Content-Base: rtsp://127.0.0.1/base/\r\n", SDP);
        world.line();
        world.answer(200, "Session: 5A;timeout=30\r\n", "");
        world.line();
        world.answer(200, "Session: 5A\r\nTransport: RTP/AVP/TCP;unicast;interleaved=4-5;ssrc=1\r\n", "");
        world.line();
        world.receive(&media, step);
        assert_eq!(world.events, want, "pieces of {step}");
        assert_eq!(world.client.failure(), None);
    }
}

#[test]
fn logs_in_once_and_again_when_the_nonce_is_old() {
    let mut world = World::new(Some("me:secret"));
    let challenge = "WWW-Authenticate: Digest realm=\"R\", nonce=\"N1\"\r\n";
    assert!(!world.sent().contains("Authorization"));
    world.answer(401, challenge, "");
    let again = world.sent();
    assert!(again.starts_with("OPTIONS ") && again.contains("CSeq: 2\r\n"), "{again}");
    assert!(again.contains("Authorization: Digest username=\"me\", realm=\"R\", nonce=\"N1\""), "{again}");
    world.answer(200, "", "");
    assert!(world.sent().contains("nonce=\"N1\""));
    world.answer(401, "WWW-Authenticate: Digest realm=\"R\", nonce=\"N2\", stale=TRUE\r\n", "");
    let again = world.sent();
    assert!(again.starts_with("DESCRIBE ") && again.contains("nonce=\"N2\"") && !again.contains("secret"), "{again}");
    world.answer(401, challenge, "");
    assert_eq!(world.client.failure(), Some(Failure::Login(Refused::Wrong)));
    assert_eq!(world.sent(), "");
    // The next connection begins anew.
    world.client.start();
    assert!(!world.sent().contains("Authorization"));
    world.answer(401, challenge, "");
    assert_eq!(world.client.failure(), None);
}

#[test]
fn signs_of_life() {
    let mut world = World::new(None);
    world.play(";timeout=16");
    let mut sequence = 0;
    let mut second = |world: &mut World| {
        sequence += 1;
        world.receive(&rtp(0, 96, sequence, u32::from(sequence) * 90_000, IDR), 2000);
        world.wait(1);
    };
    for _ in 0..9 {
        second(&mut world);
    }
    let request = world.sent();
    assert!(request.starts_with(&format!("GET_PARAMETER {URL} ")) && request.contains("Session: 5A\r\n"), "{request}");
    // The server says it does not know that one, then answers nothing at all.
    world.answer(451, "", "");
    for _ in 0..8 {
        second(&mut world);
    }
    assert_eq!(world.line(), format!("OPTIONS {URL}"));
    for _ in 0..8 {
        second(&mut world);
    }
    assert_eq!((world.line(), world.client.failure()), (format!("OPTIONS {URL}"), None));
    world.answer(454, "", "");
    let over = Failure::Status { method: "OPTIONS", status: 454 };
    assert_eq!(world.client.failure(), Some(over));
}

#[test]
fn a_server_that_falls_silent() {
    let mut world = World::new(None);
    world.line();
    world.wait(11);
    assert_eq!((world.client.failure(), world.now), (Some(Failure::NoAnswer), Instant::ZERO + ANSWER));

    let mut world = World::new(None);
    world.play("");
    world.receive(&rtp(0, 96, 1, 0, IDR), 2000);
    world.wait(5);
    world.receive(&rtp(0, 96, 2, 1, IDR), 2000);
    // Sound alone is no sign of life.
    world.receive(&rtp(4, 97, 1, 16, b"\0\x10\0\x08a"), 2000);
    world.wait(9);
    world.wait(9);
    let begun = Instant::ZERO + Duration::from_secs(5);
    assert_eq!((world.client.failure(), world.now), (Some(Failure::NoMedia), begun + SILENCE));
    let stalls = world.events.iter().filter(|event| *event == "Stalled").count();
    assert_eq!(stalls, 2, "{:?}", world.events);
}

#[test]
fn what_the_server_has_is_said() {
    let described = |sdp: &str| {
        let mut world = World::new(None);
        world.line();
        world.answer(404, "", "");
        world.line();
        world.answer(200, "", sdp);
        world
    };
    let h265 = described(&SDP.replace("H264", "H265"));
    assert_eq!(h265.client.failure(), Some(Failure::NoH264 { h265: true }));
    assert_eq!(described("v=0\r\n").client.failure(), Some(Failure::NoH264 { h265: false }));
    for (audio, name) in
        [("a=rtpmap:97 mpeg4-generic/16000/1", "\"mpeg4-generic\""), ("a=rtpmap:97 G726-32/8000", "\"G726-32\"")]
    {
        // HE-AAC is described as object type 5.
        let sdp = SDP.replace("a=rtpmap:97 mpeg4-generic/16000/1", audio).replace("config=1408", "config=2c08");
        let mut world = described(&sdp);
        assert_eq!(world.line(), format!("SETUP {URL}/track1"));
        world.answer(200, "Session: 1\r\n", "");
        assert_eq!(world.line(), format!("PLAY {URL}"));
        world.answer(200, "", "");
        assert_eq!(world.events, [format!("Playing {{ refused_sound: Some({name}) }}")]);
    }
    // ONVIF's back channel is no sound of the camera's.
    let mut world = described(&SDP.replace("a=control:rtsp", "a=sendonly\r\na=control:rtsp"));
    world.line();
    world.answer(200, "Session: 1\r\n", "");
    assert_eq!(world.line(), format!("PLAY {URL}"));
}

#[test]
fn the_best_sound_is_taken() {
    let sound = |map: &str| {
        format!("m=audio 0 RTP/AVP 98\r\na=rtpmap:98 {map}\r\na=control:{}\r\n", map.split('/').next().unwrap())
    };
    let chosen = |sounds: &[String], rtp_payload: &[u8]| {
        let (video, aac) = SDP.split_at(SDP.find("m=audio").unwrap());
        let sdp = [video, &sounds.concat().replace("AAC", aac)].concat();
        let mut world = World::new(None);
        world.line();
        world.answer(200, "", "");
        world.line();
        world.answer(200, "", &sdp);
        world.line();
        world.answer(200, "Session: 1\r\n", "");
        let line = world.line();
        world.answer(200, "", "");
        world.line();
        world.answer(200, "", "");
        world.receive(&rtp(2, 98, 1, 0, rtp_payload), 1000);
        assert_eq!(world.events.remove(0), "Playing { refused_sound: None }");
        (line.rsplit('/').next().unwrap().to_string(), world.events)
    };
    let [pcmu, opus, l16] = ["PCMU/8000", "opus/48000/2", "L16/8000"].map(sound);
    let all = [pcmu.clone(), l16.clone(), opus.clone()];
    assert_eq!(chosen(&[&all[..], &["AAC".into()]].concat(), b"").0, "track2");
    let (line, events) = chosen(&all, b"\xf8\xff\xfe");
    assert_eq!((line.as_str(), events[0].starts_with("Opus { packet: [248, 255, 254]")), ("opus", true), "{events:?}");
    let (line, events) = chosen(&[pcmu.clone(), l16], &[0; 320]);
    assert_eq!(line, "L16");
    assert!(events.len() == 1 && events[0].starts_with("Pcm { pcm: [0, 0"), "{events:?}");
    let (line, events) = chosen(&[sound("G726-32/8000"), pcmu], &[0; 320]);
    assert_eq!((line.as_str(), events.len()), ("PCMU", 2));
    assert!(events[1].starts_with("Pcm { pcm: [-32124, -32124"), "{events:?}");
}

/// A client that talks, up to the answer to DESCRIBE.
#[cfg(feature = "opus")]
fn talking(sdp: &str) -> World {
    let mut world = World::new(None);
    world.client = Client::talking(URL, Some("me:secret"), 7);
    world.client.start();
    world.line();
    world.answer(200, "", "");
    let describe = world.sent();
    assert!(describe.contains("\r\nRequire: www.onvif.org/ver20/backchannel\r\n"), "{describe}");
    world.answer(200, "", sdp);
    world
}

/// The back channel as ONVIF's specification has it, with the payload types that follow `m=audio 0 RTP/AVP`.
#[cfg(feature = "opus")]
fn back_channel(types: &str) -> String {
    format!("{SDP}m=audio 0 RTP/AVP {types}\r\na=rtpmap:97 L16/8000\r\na=control:back\r\na=sendonly\r\n")
}

#[cfg(feature = "opus")]
#[test]
fn a_talk() {
    let mut world = talking(&back_channel("97 8 0"));
    let setup = world.sent();
    assert!(setup.starts_with(&format!("SETUP {URL}/back RTSP/1.0\r\n")), "{setup}");
    assert!(setup.contains("Require: ") && setup.contains("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"));
    world.client.say(&[-32_000; 400]);
    world.answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
    assert!(world.sent().contains("Authorization: Basic "));
    world.answer(200, "Session: 5A;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n", "");
    assert_eq!(world.line(), format!("PLAY {URL}"));
    assert_eq!(world.client.poll_timeout(), Some(world.now + ANSWER), "nothing leaves before the answer");
    world.answer(200, "", "");
    // µ-law, although it is named last; one packet each 20 ms.
    let mut room = [0; REQUEST_BYTES];
    let mut packets = Vec::new();
    let mut send = |world: &mut World| {
        while let Some(len) = world.client.poll_transmit(world.now, &mut room) {
            packets.push((world.now.as_micros() / 1000, room[..len].to_vec()));
        }
    };
    send(&mut world);
    world.receive(&rtp(2, 0, 1, 0, b"of no use"), 5);
    world.now = world.client.poll_timeout().unwrap();
    world.client.handle_timeout(world.now);
    send(&mut world);
    assert_eq!(packets.iter().map(|p| p.0).collect::<Vec<_>>(), [0, 20]);
    assert!(packets.iter().all(|(_, p)| p[..4] == [b'$', 2, 0, 172] && p[5] & 0x7f == 0 && p[16..] == [0; 160]));
    // The connection lives without media from the server, and ends when both say so.
    world.wait(31);
    assert_eq!((world.line(), world.client.failure()), (format!("OPTIONS {URL}"), None));
    world.client.hang_up();
    let teardown = world.sent();
    assert!(teardown.starts_with(&format!("TEARDOWN {URL} ")) && teardown.contains("Session: 5A\r\n"), "{teardown}");
    world.client.say(&[0; 160]);
    assert_eq!(world.sent(), "");
    world.answer(200, "", "");
    assert_eq!(world.client.failure(), Some(Failure::Ended));
    // A server that does not answer is not waited for.
    let mut world = talking(&back_channel("8"));
    world.line();
    world.answer(200, "Session: 1\r\n", "");
    world.client.hang_up();
    assert_eq!(world.line(), format!("TEARDOWN {URL}"));
    world.wait(2);
    assert_eq!((world.client.failure(), world.now), (Some(Failure::NoAnswer), Instant::ZERO + FAREWELL));
}

#[cfg(feature = "opus")]
#[test]
fn a_server_without_back_channel() {
    for sdp in [SDP, &back_channel("97"), &SDP.replace("a=control:rtsp", "a=sendonly\r\na=control:rtsp")] {
        let world = talking(sdp);
        assert_eq!(world.client.failure(), Some(Failure::NoTalk), "{sdp}");
    }
    let mut world = talking(&back_channel("0"));
    world.line();
    world.answer(551, "Unsupported: www.onvif.org/ver20/backchannel\r\n", "");
    assert_eq!(world.client.failure().unwrap().to_string(), "it has no back channel (ONVIF) for PCMU or PCMA");
    // It ends before it has begun.
    let mut world = talking(&back_channel("0"));
    world.client.hang_up();
    assert_eq!((world.client.failure(), world.sent().as_str()), (Some(Failure::Ended), ""));
}

#[test]
fn stray_bytes_between_packets() {
    let mut world = World::new(None);
    world.play("");
    world.receive(&rtp(0, 96, 1, 0, IDR), 2000);
    let stray: [&[u8]; 4] = [b"\0\0", b"$\0\0\x02ab", b"ab\xff", b"$\x07\0\0RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"];
    for (n, stray) in stray.into_iter().enumerate() {
        let n = n as u16;
        let picture = rtp(0, 96, n + 2, u32::from(n) + 1, b"\x41\x9a\x01");
        for step in [1, 2000] {
            let mut world = World::new(None);
            world.play("");
            world.receive(&rtp(0, 96, n + 1, 0, IDR), 2000);
            world.receive(&[stray, &picture].concat(), step);
            let want = ["picture of 20, true, 0 ms", "picture of 7, false, 0 ms"];
            assert_eq!((&world.events[..], world.client.failure()), (&want.map(String::from)[..], None), "{stray:?}");
        }
    }
    // Nothing but noise is another protocol.
    world.receive(&[b'x'; 2 * FRAME_MAX], 4000);
    assert!(matches!(world.client.failure(), Some(Failure::Malformed(_))), "{:?}", world.client.failure());
}

/// The encoder was switched to H.265 under way: its packets come, and make no picture.
#[test]
fn packets_that_make_no_picture() {
    let mut world = World::new(None);
    world.play("");
    let mut sequence = 0;
    while world.client.failure().is_none() {
        assert!(sequence < 40);
        for nal in [&b"\x40\x01\x0c"[..], b"\x42\x01\x01", b"\x26\x01\xaf", b"\x62\x01\x93\x10", b"\x02\x01\xd0"] {
            world.receive(&rtp(0, 96, sequence, u32::from(sequence), nal), 100);
            sequence += 1;
        }
        world.wait(5);
    }
    assert_eq!(world.client.failure(), Some(Failure::NoMedia));
    assert!(world.events.iter().any(|event| event == "VideoLoss(H265)"), "{:?}", world.events);
    assert!(!world.events.iter().any(|event| event.starts_with("picture")));
}

#[test]
fn refusals_end_it() {
    let mut world = World::new(None);
    world.line();
    world.answer(200, "", "");
    world.line();
    world.answer(404, "", "");
    let failure = world.client.failure().unwrap();
    assert_eq!(failure.to_string(), "DESCRIBE: there is no such stream (404): see its path");

    // Sound may be refused.
    let mut world = World::new(None);
    world.line();
    world.answer(200, "", "");
    world.line();
    world.answer(200, "", SDP);
    world.line();
    world.answer(200, "Session: 1\r\n", "");
    world.line();
    world.answer(500, "", "");
    assert_eq!((world.line(), world.client.failure()), (format!("PLAY {URL}"), None));

    let mut world = World::new(None);
    world.line();
    world.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", 9);
    assert!(matches!(world.client.failure(), Some(Failure::Malformed(_))));
    let mut world = World::new(None);
    world.line();
    world.answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
    assert_eq!(world.client.failure().unwrap().to_string(), "it wants a login: rtsp://NAME:PASSWORD@…");
}

#[test]
fn requests_of_the_server_and_answers_to_nobody() {
    let mut world = World::new(None);
    world.play("");
    world.receive(b"OPTIONS * RTSP/1.0\r\nCSeq: 77\r\n\r\nRTSP/1.0 500 x\r\nCSeq: 1\r\n\r\n", 100);
    assert_eq!(world.sent(), "RTSP/1.0 501 Not Implemented\r\nCSeq: 77\r\n\r\n");
    assert_eq!((world.sent().as_str(), world.client.failure()), ("", None));
}

#[test]
fn the_largest_packet_fits_the_buffer() {
    let mut world = World::new(None);
    world.play("");
    let mut large = rtp(0, 96, 1, 0, &[0xe5; 0xffff - 12]);
    large[2..4].fill(0xff);
    world.receive(&large, 4000);
    world.receive(&rtp(0, 96, 2, 1, IDR), 4000);
    assert_eq!(world.events, ["VideoLoss(Oversized)", "picture of 20, true, 0 ms"]);
}

#[test]
fn noise_ends_in_a_failure_at_worst() {
    let mut noise = crate::crypto::fixed::Noise::new(11);
    for _ in 0..300 {
        let mut world = World::new(Some("a:b"));
        for _ in 0..12 {
            world.sent();
            let mut fields = SDP.as_bytes().to_vec();
            for _ in 0..noise.below(4) {
                let at = noise.below(fields.len() as u64) as usize;
                fields[at] = noise.below(128) as u8;
            }
            let body = String::from_utf8(fields).unwrap();
            let status = [200, 200, 200, 200, 401, 404][noise.below(6) as usize];
            world.answer(status, "Session: 1\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n", &body);
            if world.client.failure().is_some() {
                break;
            }
            let payload = noise.bytes(30);
            world.receive(&rtp(noise.below(6) as u8, 96 + noise.below(2) as u8, 1, 1, &payload), 40);
        }
    }
}
