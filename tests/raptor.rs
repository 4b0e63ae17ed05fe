//! Raptor's rings, written by another process: what comes out of them is what was put in, whatever happens to them,
//! and the real program records from them.

#[allow(dead_code)] // the hub takes what it needs
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
#[path = "raptor_stand_in/mod.rs"]
mod raptor_stand_in;
#[path = "common/viewer.rs"]
mod viewer;

use hksvd::config::RaptorStream;
use hksvd::io::runtime::{Executor, now, or, sleep_until};
use hksvd::media::g711;
use hksvd::source::raptor::{self, SpeakerRing};
use hksvd::source::{Sink, Track, Trouble};
use hksvd::time::Instant;
use hksvd::wire::h264::AnnexB;
use hksvd::wire::opus;
use program::{Client, Folder, PATIENCE, Program, within};
use raptor_stand_in::{AUDIO, LARGE, SMALL, StandIn};
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use viewer::{AT_HOME, Viewer, Wish};

/// No test but the process that the others write their rings with.
#[test]
#[ignore = "started by the other tests"]
fn the_other_process() {
    raptor_stand_in::serve();
}

/// Takes in what a stream delivers and holds it against what was published.
#[derive(Default)]
struct Judge {
    known: HashSet<Vec<u8>>,
    sounds: HashSet<Vec<u8>>,
    pictures: usize,
    keys: usize,
    sound: usize,
    /// Of other kinds: samples and their rate, Opus packets.
    pcm: Vec<(Vec<i16>, u32)>,
    opus: Vec<Vec<u8>>,
    troubles: Vec<(Track, Trouble)>,
    last: Option<Instant>,
    /// After a loss nothing but a key frame may come.
    lost: bool,
}

impl Judge {
    fn new() -> Rc<RefCell<Self>> {
        let units = [LARGE, SMALL].map(feeder::access_units);
        let known = units.iter().flat_map(|clip| clip.iter().cloned()).collect();
        let sounds = feeder::adts_frames(AUDIO).iter().map(|frame| frame[7..].to_vec()).collect();
        Rc::new(RefCell::new(Judge { known, sounds, lost: true, ..Judge::default() }))
    }

    fn count(&self, trouble: Trouble) -> usize {
        self.troubles.iter().filter(|t| t.1 == trouble).count()
    }
}

struct Bench(Rc<RefCell<Judge>>);

impl Sink for Bench {
    fn access_unit(&mut self, annexb: AnnexB<'_>, key: bool, arrival: Instant) {
        let mut judge = self.0.borrow_mut();
        assert!(judge.known.contains(annexb.bytes()), "a picture that nobody published");
        assert!(key || !judge.lost, "the first picture after a loss is a key frame");
        assert!(judge.last.is_none_or(|last| arrival >= last) && arrival <= now());
        judge.last = Some(arrival);
        judge.lost = false;
        judge.pictures += 1;
        judge.keys += usize::from(key);
    }

    fn aac(&mut self, raw_frame: &[u8], rate_hz: u32, channels: u8, _: Instant) {
        let mut judge = self.0.borrow_mut();
        assert!(judge.sounds.contains(raw_frame), "sound that nobody published");
        assert_eq!((rate_hz, channels), (16_000, 1));
        judge.sound += 1;
    }

    fn l16(&mut self, pcm: &[i16], rate_hz: u32, _: Instant) {
        self.0.borrow_mut().pcm.push((pcm.to_vec(), rate_hz));
    }

    fn opus(&mut self, packet: &[u8], _: Instant) {
        self.0.borrow_mut().opus.push(packet.to_vec());
    }

    fn trouble(&mut self, track: Track, trouble: Trouble) {
        let mut judge = self.0.borrow_mut();
        judge.lost |= track == Track::Video && !matches!(trouble, Trouble::Stalled);
        judge.troubles.push((track, trouble));
    }
}

/// Reads from the stand-in while `script` gives it orders.
fn judge(stand_in: &mut StandIn, script: impl AsyncFnOnce(&mut StandIn, &RefCell<Judge>)) {
    let judge = Judge::new();
    let root = stand_in.root.clone();
    let mut bench = Bench(judge.clone());
    Executor::default().block_on(or(
        async {
            let error = raptor::play(&root, RaptorStream::Main, true, 200_000, &mut bench).await;
            panic!("it ends: {error}");
        },
        script(stand_in, &judge),
    ));
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let end = now() + Duration::from_secs(20);
    while !so() {
        assert!(now() < end, "{what}");
        sleep_until(now() + Duration::from_millis(5)).await;
    }
}

async fn more(judge: &RefCell<Judge>, pictures: usize) {
    let before = judge.borrow().pictures;
    until("pictures", || judge.borrow().pictures >= before + pictures).await;
}

#[test]
fn frames_come_through_whole_or_not_at_all() {
    for kind in ["embedded", "shm", "rmem"] {
        let mut stand_in = StandIn::start(&format!("whole-{kind}"));
        judge(&mut stand_in, async |stand_in, judge| {
            until("it is missing", || judge.borrow().count(Trouble::Missing) > 0).await;
            stand_in.order(&format!("main {kind} 32 1000000 large 0"));
            stand_in.order("audio 97");
            more(judge, 20).await;
            until("sound", || judge.borrow().sound > 10).await;
            assert!(stand_in.count("key frame requested") >= 1);

            // Slots that are written over while they are announced. A busy machine loses some of its own.
            for order in ["torn", "stale"] {
                if (kind, order) == ("embedded", "stale") {
                    continue;
                }
                let (asked, losses) = (stand_in.count("key frame requested"), judge.borrow().count(Trouble::Overrun));
                stand_in.order(order);
                until("the loss is seen", || judge.borrow().count(Trouble::Overrun) > losses).await;
                more(judge, 5).await;
                let losses = judge.borrow().count(Trouble::Overrun) - losses;
                let asked = stand_in.count("key frame requested") - asked;
                assert!((1..=losses).contains(&asked), "{losses} losses, {asked} requests");
            }

            // A writer that never rests laps every reader.
            let losses = judge.borrow().count(Trouble::Overrun);
            stand_in.order("burst 20000");
            until("the loss is seen", || judge.borrow().count(Trouble::Overrun) > losses).await;
            more(judge, 20).await;
            assert!(judge.borrow().keys >= 3);
            // Frames that fill the ring before its slots come round.
            stand_in.order(&format!("main {kind} 64 131072 large 0"));
            more(judge, 5).await;
            let losses = judge.borrow().count(Trouble::Overrun);
            stand_in.order("burst 20000");
            until("the loss is seen", || judge.borrow().count(Trouble::Overrun) > losses).await;
            more(judge, 20).await;
        });
    }
}

#[test]
fn rings_are_made_anew_in_place_and_elsewhere() {
    let mut stand_in = StandIn::start("anew");
    judge(&mut stand_in, async |stand_in, judge| {
        stand_in.order("main embedded 32 1000000 large 0");
        more(judge, 10).await;
        let asked = stand_in.count("key frame requested");
        raptor::request_key_frame(&stand_in.root, RaptorStream::Sub);
        raptor::request_key_frame(&stand_in.root, RaptorStream::Main);
        // A busy machine loses pictures by itself, and each time asks once more.
        until("it is heard", || stand_in.count("key frame requested") > asked).await;
        // Smaller, in the same file, which is cut short.
        stand_in.order("main embedded 8 100000 small 0");
        until("it is noticed", || judge.borrow().count(Trouble::WriterGone) == 1).await;
        more(judge, 10).await;
        // With the frames elsewhere.
        stand_in.order("main shm 16 0 large 0");
        until("it is noticed", || judge.borrow().count(Trouble::WriterGone) == 2).await;
        more(judge, 10).await;
        stand_in.order("moved");
        until("it is noticed", || judge.borrow().count(Trouble::WriterGone) == 3).await;
        more(judge, 10).await;
        // Another file under the same name.
        stand_in.order("again");
        until("it is noticed", || judge.borrow().count(Trouble::WriterGone) == 4).await;
        more(judge, 10).await;
        // Nothing under it for a while: that is heard, and no loss.
        stand_in.order("pause");
        sleep_until(now() + Duration::from_millis(50)).await;
        let (begun, losses) = (now(), judge.borrow().count(Trouble::Overrun));
        stand_in.order("vanish");
        until("it is noticed", || judge.borrow().count(Trouble::WriterGone) == 5).await;
        assert!(now() - begun < Duration::from_millis(1900), "sooner than one that is silent");
        assert_eq!(judge.borrow().count(Trouble::Overrun), losses);
        stand_in.order("main embedded 32 1000000 large 0");
        stand_in.order("go");
        more(judge, 10).await;
        // The file is emptied under our hands.
        stand_in.order("cut");
        until("it is noticed", || judge.borrow().count(Trouble::WriterGone) == 6).await;
        stand_in.order("main embedded 32 1000000 large 0");
        more(judge, 10).await;
        // A rest is none of these.
        stand_in.order("pause");
        let losses = judge.borrow().count(Trouble::Overrun);
        until("it is silent", || judge.borrow().count(Trouble::Stalled) >= 1).await;
        assert_eq!(judge.borrow().count(Trouble::Overrun), losses);
        stand_in.order("go");
        more(judge, 10).await;
        assert_eq!(judge.borrow().count(Trouble::WriterGone), 6);
        // Recordings cannot have H.265; it is said, and over when it is.
        stand_in.order("main embedded 32 1000000 large 1");
        until("it is told", || judge.borrow().count(Trouble::Garbage) == 1).await;
        let before = judge.borrow().pictures;
        sleep_until(now() + Duration::from_millis(300)).await;
        assert_eq!(judge.borrow().pictures, before);
        assert_eq!(judge.borrow().count(Trouble::Garbage), 1, "once");
        stand_in.order("main embedded 32 1000000 large 0");
        more(judge, 10).await;
    });
}

#[test]
fn sound_comes_in_each_codec() {
    let mut stand_in = StandIn::start("codecs");
    judge(&mut stand_in, async |stand_in, judge| {
        stand_in.order("main embedded 32 1000000 small 0");
        // As `raptorctl rad set-codec` does it: the ring is made anew each time.
        let ramp: Vec<i16> = (0..320).map(|n| n * 100 - 16_000).collect();
        let decoded = |decode: fn(u8) -> i16| (0..160).map(decode).collect::<Vec<_>>();
        let pcm = [(11, 16_000, ramp), (0, 8_000, decoded(g711::from_ulaw)), (8, 8_000, decoded(g711::from_alaw))];
        for (codec, rate_hz, samples) in pcm {
            judge.borrow_mut().pcm.clear();
            stand_in.order(&format!("audio {codec}"));
            until("samples", || judge.borrow().pcm.len() > 20).await;
            assert!(judge.borrow().pcm.iter().all(|came| *came == (samples.clone(), rate_hz)), "codec {codec}");
        }
        stand_in.order("audio 111");
        let published = raptor_stand_in::sound(111).0;
        // When this process is held up for longer than the ring lasts, some are lost: then it is tried again.
        for tries in 1.. {
            until("packets", || judge.borrow().opus.len() > 20).await;
            let came = std::mem::take(&mut judge.borrow_mut().opus);
            let first = published.iter().position(|packet| *packet == came[0]).expect("it was published");
            if published.iter().cycle().skip(first).zip(&came).all(|(published, came)| published == came) {
                break;
            }
            assert!(tries < 3, "one after the other: {came:?}");
        }
        stand_in.order("audio 97");
        until("frames", || judge.borrow().sound > 10).await;
        assert_eq!(judge.borrow().count(Trouble::Garbage), 0);
        // Nobody knows what this is.
        stand_in.order("audio 4");
        until("it is told", || judge.borrow().count(Trouble::Garbage) == 1).await;
    });
}

#[test]
fn viewers_get_the_opus_packets_of_the_ring() {
    let folder = Folder::new("raptor-opus");
    let mut stand_in = StandIn::start("opus");
    stand_in.order("main shm 32 0 large 0");
    stand_in.order("audio 111");
    let program = Program::run_on(&stand_in.root, &folder, &config(&folder));
    program.wait_status("the sound", |s| s["source"]["audio"] == "Opus 48000 Hz, live view alone");
    program.wait_said("raptorctl rad set-codec aac");
    let (_, mut client) = Client::pair(program.port());
    let published = raptor_stand_in::sound(111).0;
    for (packet_ms, frames) in [(20, 1), (60, 3)] {
        let mut viewer = Viewer::set_up(&mut client, 0).expect("it is free");
        viewer.start(&mut client, Wish { rate_code: 1, packet_ms, ..AT_HOME });
        // When the other process is held up, time passes without sound: then it is tried again.
        let (mut next, mut in_step, mut packets) = (None, 0, 0);
        while in_step < 20 {
            let (header, payload) = viewer.audio.packet();
            let packet = opus::Packet::parse(&payload).expect("Opus");
            assert_eq!((packet.toc.kind(), packet.frames.len()), (0x08, frames), "{packet_ms} ms");
            let number = published.iter().position(|p| p[1..] == *packet.frames[0]).expect("it was published");
            for (n, frame) in packet.frames.iter().enumerate() {
                assert_eq!(published[(number + n) % 250][1..], **frame, "one after the other");
            }
            let (sequence, timestamp) = (header.sequence, header.timestamp);
            if let Some((follows, due, expected)) = next {
                assert_eq!(sequence, follows);
                in_step = if (timestamp, number) == (due, expected) { in_step + 1 } else { 0 };
            }
            packets += 1;
            assert!(packets < 500, "the packets do not follow each other");
            let due = timestamp.wrapping_add(16 * u32::from(packet_ms));
            next = Some((sequence.wrapping_add(1), due, (number + frames) % 250));
        }
        viewer.command(&mut client, 0);
        // Nobody has read the pictures, and their socket may be full.
        viewer.audio.wait_bye();
        program.wait_status("nobody watches", |status| status["live_sessions"] == 0);
    }
    // The other codecs come and go while it runs.
    stand_in.order("audio 8");
    program.wait_status("the sound", |s| s["source"]["audio"] == "L16 8000 Hz, live view alone");
    stand_in.order("audio 97");
    program.wait_status("the sound", |s| s["source"]["audio"] == "AAC-LC 16000 Hz");
    stand_in.order("audio 11");
    program.wait_status("the sound", |s| s["source"]["audio"] == "L16 16000 Hz, live view alone");
    program.stop();
}

#[test]
fn the_encoder_is_set_as_hub_and_viewers_want_and_back() {
    let folder = Folder::new("raptor-rates");
    let mut stand_in = StandIn::start("rates");
    stand_in.order("main shm 32 0 large 0");
    stand_in.order("sub shm 32 0 small 0");
    stand_in.order("control 3000000 250");
    let video = json!({"source": "raptor:main", "live_source": "raptor:sub", "fps": 30});
    let config = folder.config(json!({"video": video, "motion": {"mode": "api"}}));
    let program = Program::run_on(&stand_in.root, &folder, &config);
    program.wait_status("pictures", |s| s["frames"].as_u64() > Some(40));
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    let told = |stand_in: &StandIn, what: &str| stand_in.wait(what, |s| s.count(what) == 1);
    told(&stand_in, "set-bitrate 0 2000000");
    told(&stand_in, "set-gop 0 100");
    // Whoever watches the small stream changes that alone.
    let mut viewer = Viewer::set_up(&mut client, 0).expect("it is free");
    viewer.start(&mut client, Wish { width: 640, height: 360, kbps: 299, ..AT_HOME });
    told(&stand_in, "set-bitrate 1 299000");
    viewer.reconfigure(&mut client, Wish { width: 640, height: 360, kbps: 450, ..AT_HOME });
    told(&stand_in, "set-bitrate 1 400000");
    // Nobody has read the pictures: where the socket is full the last word would be lost.
    while viewer.video.hear_within(Duration::from_millis(1)).is_some() {}
    viewer.command(&mut client, 0);
    viewer.video.wait_bye();
    told(&stand_in, "set-bitrate 1 3000000");
    // The streamer starts again, with what its owner has set meanwhile.
    stand_in.order("set 0 4000000");
    stand_in.order("again");
    stand_in.wait("once more", |s| s.count("set-bitrate 0 2000000") == 2);
    program.stop();
    told(&stand_in, "set-bitrate 0 4000000");
    told(&stand_in, "set-gop 0 250");
}

#[test]
fn another_version_is_refused() {
    let mut stand_in = StandIn::start("version");
    stand_in.order("main embedded 32 1000000 large 0");
    stand_in.order("version 3");
    let root = stand_in.root.clone();
    let mut bench = Bench(Judge::new());
    let error = Executor::default().block_on(raptor::play(&root, RaptorStream::Main, false, 200_000, &mut bench));
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("version 3") && !text.contains('\n'), "{text}");
}

#[test]
fn stills_wake_the_encoder_and_let_it_sleep() {
    let mut stand_in = StandIn::start("jpeg");
    let executor = Executor::default();
    let root = stand_in.root.clone();
    let take = |most| executor.block_on(raptor::picture(&root, true, most));
    assert_eq!(take(100).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    stand_in.order("jpeg");
    let is_asleep = |stand_in: &StandIn, times| {
        stand_in.wait("it wakes", |s| s.count("readers: 1") == times);
        stand_in.wait("it sleeps", |s| s.count("readers: 0") == times);
        let header = std::fs::read(stand_in.shm("rss_ring_jpeg0")).expect("the ring");
        assert_eq!(header[68..88], [0; 20], "the count and the places");
    };
    let jpeg = take(100).expect("a picture");
    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.windows(8).any(|w| w == b"the ring"));
    is_asleep(&stand_in, 1);
    // It ends before there is one, by an error and by being dropped.
    assert_eq!(take(10).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    is_asleep(&stand_in, 2);
    executor.block_on(or(
        async {
            let _ = raptor::picture(&root, true, 100).await;
            panic!("not before the encoder wakes");
        },
        async {
            let file = std::fs::File::open(stand_in.shm("rss_ring_jpeg0")).expect("the ring");
            let mut count = [0; 1];
            file.read_exact_at(&mut count, 68).expect("there");
            assert_eq!(count, [1]);
        },
    ));
    let header = std::fs::read(stand_in.shm("rss_ring_jpeg0")).expect("the ring");
    assert_eq!(header[68..88], [0; 20]);
    // Four others: no place is left, and nothing is changed.
    let file = std::fs::File::options().write(true).open(stand_in.shm("rss_ring_jpeg0")).expect("the ring");
    let others = [4u32, 1, 1, 1, 1].map(u32::to_le_bytes).concat();
    file.write_all_at(&others, 68).expect("written");
    assert_eq!(take(100).unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    let header = std::fs::read(stand_in.shm("rss_ring_jpeg0")).expect("the ring");
    assert_eq!(header[68..88], others);
    // One of them was killed: its place is free, and the encoder works for three.
    let mut killed = std::process::Command::new("true").spawn().expect("a process");
    killed.wait().expect("it ends");
    file.write_all_at(&killed.id().to_le_bytes(), 80).expect("written");
    assert!(take(100).expect("a picture").starts_with(&[0xff, 0xd8]));
    let header = std::fs::read(stand_in.shm("rss_ring_jpeg0")).expect("the ring");
    assert_eq!(header[68..88], [3u32, 1, 1, 0, 1].map(u32::to_le_bytes).concat());
}

#[test]
fn talk_goes_into_a_ring_of_its_own() {
    let stand_in = StandIn::start("speaker");
    let path = stand_in.shm("rss_ring_speaker");
    let mut ring = SpeakerRing::open(&stand_in.root, 16_000).expect("the ring");
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let bytes = std::fs::read(&path).expect("the ring");
    assert_eq!(bytes.len(), 4096 + 16 * 32 + 65_536);
    let header = [0, 4, 8, 12, 16, 40, 44, 52, 56, 60].map(|at| word(&bytes, at));
    assert_eq!(header, [0, 0, 0, 16, 65_536, 16_000, 1, 0x5253_5352, 4, 1]);
    assert!(bytes[4096..4608].iter().all(|b| *b == 0xff));
    for n in 0..120u8 {
        ring.write(&[n; 640]).expect("published");
    }
    // The 120th of 16 slots; 102 pieces fill the data, the rest begins anew.
    let bytes = std::fs::read(&path).expect("the ring");
    let slot = &bytes[4096 + 32 * (120 % 16)..][..32];
    assert_eq!([0, 4, 8, 12].map(|at| word(slot, at)), [120, 0, 17 * 640, 640]);
    assert_eq!(u64::from_le_bytes(slot[16..24].try_into().unwrap()), 119 * 20_000);
    assert_eq!([0, 4, 8].map(|at| word(&bytes, at)), [120, 0, 120]);
    assert!(bytes[4608 + 17 * 640..][..640].iter().all(|b| *b == 119));
    // Another one talks now: this one stops and takes nothing away.
    let second = SpeakerRing::open(&stand_in.root, 16_000).expect("the ring");
    assert_eq!(word(&std::fs::read(&path).expect("the ring"), 60), 2);
    assert_eq!(ring.write(&[0; 640]).unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    drop(ring);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

fn config(folder: &Folder) -> PathBuf {
    folder.config(json!({"video": {"source": "raptor:main", "fps": 30}, "motion": {"mode": "api"}}))
}

#[test]
fn a_hub_records_from_rings() {
    let folder = Folder::new("raptor");
    let mut stand_in = StandIn::start("hub");
    let program = Program::run_on(&stand_in.root, &folder, &config(&folder));
    program.wait_said("raptor:main: cannot be opened; waiting for it");
    stand_in.order("main shm 32 0 large 0");
    stand_in.order("audio 97");
    stand_in.order("jpeg");
    program.wait_status("the sound", |s| s["source"]["audio"] == "AAC-LC 16000 Hz");
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    program.wait_status("the prebuffer fills", |s| s["prebuffer"]["held_s"].as_f64() > Some(4.0));
    client.motion(&program);
    let mut stream = client.data_stream();
    stream.open(1);
    let init = stream.segment(1);
    assert!(init.is_init);
    let fragments = [stream.segment(1).bytes, stream.segment(1).bytes];
    let played = playable::check(&init.bytes, &fragments, 4_000, Some(16_000));
    assert!(played.video_90k >= 4 * 90_000 && played.audio_frames > 40, "{played:?}");
    assert_eq!(playable::size(&init.bytes), (1280, 720));
    stream.close(1);
    program.wait_status("the recording ends", |s| s["recording"]["active"] == false);

    // Losses show as such, and the recording afterwards is whole. A busy machine loses pictures by itself.
    let resyncs = |status: &Json| status["resyncs"].as_u64().expect("a number");
    let before = resyncs(&program.status());
    stand_in.order("stale");
    program.wait_status("counted", |s| resyncs(s) > before);
    program.wait_said("pictures were lost");
    // The streamer starts again with another size.
    stand_in.order("main embedded 16 500000 small 0");
    program.wait_status("the new size", |s| s["source"]["width"] == 320);
    let file = folder.path("clip.mp4");
    program.verb(&["clip", file.to_str().unwrap(), "--seconds", "2"]);
    let clip = std::fs::read(file).expect("a clip");
    let (init, fragments) = playable::split(&clip);
    assert_eq!(playable::size(init), (320, 180));
    assert!(playable::check(init, &fragments, 4_000, Some(16_000)).video_90k >= 2 * 90_000);

    // The streamer shows that it is there by its socket; its web server is not.
    std::fs::create_dir_all(stand_in.root.join("var/run/rss")).expect("a folder");
    std::fs::write(stand_in.root.join("var/run/rss/rvd.sock"), "").expect("a mark");
    let file = folder.path("snapshot.jpg");
    program.verb(&["snapshot", file.to_str().unwrap()]);
    assert!(std::fs::read(&file).expect("a picture").windows(8).any(|w| w == b"the ring"));

    // What nobody can record is said once, and what to do.
    stand_in.order("main embedded 16 500000 small 1");
    program.wait_said("H.265");
    stand_in.order("audio 11");
    program.wait_said("raptorctl rad set-codec aac");
    // So is another layout; when there is one that is known, it goes on.
    stand_in.order("version 3");
    program.wait_said("rss_ring_main has version 3, this hksvd reads version 4");
    stand_in.order("main embedded 16 500000 small 0");
    program.wait_status("it goes on", |s| s["source"]["state"] == "running");
    for once in ["H.265", "has version 3", "set-codec aac", "cannot be opened", "has gone away", "pictures were lost"] {
        assert_eq!(program.said(once).len(), 1, "{once}");
    }
    // Waiting for the ring takes a thread, for those before it none.
    within(3 * PATIENCE, "three threads", &mut || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid())).expect("its threads");
        (tasks.count() == 3).then_some(())
    });
    program.stop();
}
