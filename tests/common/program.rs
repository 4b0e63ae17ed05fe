//! The real program: a process of it with its log, and the sockets of a controller and of a hub.
//!
//! Nothing here sleeps and hopes: whatever takes time is polled for, up to a limit that only a program
//! that does not work reaches.
#![allow(dead_code)] // each test takes what it needs

use crate::controller::{Controller, Identity, Message, Transport, tlv};
use crate::hub::{Heard, Hub, Segment, Tree};
use data_encoding::BASE64;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const CODE: &str = "031-45-154";

/// A hub gives up after this long without data; so does every wait here that says nothing else.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Looks until there is something to see.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, &mut look)
}

/// As [`eventually`], with another limit.
pub fn within<T>(limit: Duration, what: &str, look: &mut dyn FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hksvd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a configuration with everything that keeps tests apart; `more` wins.
    pub fn config(&self, more: Json) -> PathBuf {
        let mut config = json!({
            "name": "Test Camera", "setup_code": CODE, "log": "debug", "state_dir": self.path("state"),
            "hap": {"port": 0, "mdns": false}, "control": {"socket": self.path("socket")},
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = self.path("hksvd.json");
        std::fs::write(&path, config.to_string()).expect("the configuration is written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program with these arguments and nothing of the caller's surroundings.
pub fn hksvd<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hksvd"));
    command.args(args).stdin(Stdio::null()).env_remove("HKSVD_SOCKET");
    command
}

/// Runs it to its end, which comes by itself: exit code, output, errors.
pub fn finish(command: &mut Command) -> (i32, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let end = Instant::now() + 2 * PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > end {
            child.kill().expect("killed");
            let output = child.wait_with_output().expect("its output");
            panic!("{command:?} does not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// A daemon.
pub struct Program {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub socket: PathBuf,
}

impl Program {
    fn start(mut command: Command, socket: PathBuf) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), BufReader::new(child.stderr.take().expect("a pipe")));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        Program { child, log, socket }
    }

    /// `hksvd demo` with its state in `folder`, until it serves.
    pub fn demo(folder: &Folder) -> Self {
        let state = folder.path("state");
        let mut command = hksvd(["demo", "--no-mdns", "--port", "0", "--setup-code", CODE, "--state-dir"]);
        command.arg(&state);
        let program = Self::start(command, state.join("hksvd.sock"));
        program.port();
        program
    }

    /// `hksvd run` with this configuration, until it serves.
    pub fn run(folder: &Folder, config: &Path) -> Self {
        let mut command = hksvd(["run", "--config"]);
        command.arg(config);
        let program = Self::start(command, folder.path("socket"));
        program.port();
        program
    }

    /// As [`Program::run`], with the camera's own things below `root`.
    pub fn run_on(root: &Path, folder: &Folder, config: &Path) -> Self {
        let mut command = hksvd(["run", "--config"]);
        command.arg(config).env("HKSVD_ROOT", root);
        let program = Self::start(command, folder.path("socket"));
        program.port();
        program
    }

    /// As [`Program::run`], with more in its environment.
    pub fn run_with(folder: &Folder, config: &Path, environment: &[(&str, &Path)]) -> Self {
        let mut command = hksvd(["run", "--config"]);
        command.arg(config).envs(environment.iter().copied());
        let program = Self::start(command, folder.path("socket"));
        program.port();
        program
    }

    /// `hksvd run --supervise`; it need not come to serve.
    pub fn supervise(folder: &Folder, config: &Path) -> Self {
        let mut command = hksvd(["run", "--supervise", "--config"]);
        command.arg(config);
        Self::start(command, folder.path("socket"))
    }

    /// Lines of the log with this in them.
    pub fn said(&self, part: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    pub fn wait_said(&self, part: &str) {
        eventually(part, || (!self.said(part).is_empty()).then_some(()));
    }

    /// The HomeKit port, of the latest life when a reset has begun another.
    pub fn port(&self) -> u16 {
        let serves = "serves HomeKit on port ";
        let line = eventually(serves, || self.said(serves).pop());
        let port = line.split(serves).nth(1).unwrap().split(',').next().unwrap();
        port.parse().expect("a port")
    }

    /// A verb over the control socket, which must do what it was told.
    pub fn verb(&self, args: &[&str]) -> String {
        let (code, out, err) = finish(hksvd(["--socket"]).arg(&self.socket).args(args));
        assert_eq!((code, err.as_str()), (0, ""), "hksvd {args:?}");
        out
    }

    pub fn status(&self) -> Json {
        serde_json::from_str(&self.verb(&["status", "--json"])).expect("JSON")
    }

    /// Looks at the status until it is so.
    pub fn wait_status(&self, what: &str, so: impl Fn(&Json) -> bool) -> Json {
        eventually(what, || Some(self.status()).filter(&so))
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `SIGTERM`.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "the program ends", &mut || self.child.try_wait().expect("a child"))
    }

    /// Ends it as an init script does.
    pub fn stop(mut self) {
        self.terminate();
        assert_eq!(self.ended(PATIENCE).code(), Some(0));
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a child");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the program's log\n{}\n---", self.log.lock().unwrap().join("\n"));
        }
    }
}

/// A TCP connection to the program.
pub struct Socket(TcpStream);

impl Socket {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Socket(stream)
    }
}

impl Transport for Socket {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the program takes it");
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 64 * 1024];
        match self.0.read(&mut buffer) {
            Ok(n) => buffer[..n].to_vec(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("nothing came for {PATIENCE:?}"),
            Err(e) => panic!("the connection breaks instead of ending: {e}"),
        }
    }
}

/// A controller's connection.
pub struct Client {
    pub controller: Controller,
    pub socket: Socket,
    database: Json,
}

impl Client {
    pub fn plain(port: u16) -> Self {
        Client { controller: Controller::new(), socket: Socket::connect(port), database: Json::Null }
    }

    /// Pairs a new controller; a verified connection of it.
    pub fn pair(port: u16) -> (Identity, Self) {
        let mut who = Identity::new("AD0BE000-0000-4000-8000-000000000001");
        let mut client = Client::plain(port);
        client.controller.pair_setup(&mut client.socket, &mut who, CODE).expect("pair-setup");
        client.controller.pair_verify(&mut client.socket, &who).expect("pair-verify");
        (who, client)
    }

    /// A connection of a controller that is paired.
    pub fn verified(port: u16, who: &Identity) -> Self {
        let mut client = Client::plain(port);
        client.controller.pair_verify(&mut client.socket, who).expect("pair-verify");
        client
    }

    pub fn accessories(&mut self) -> &Json {
        if self.database.is_null() {
            let message = self.controller.exchange(&mut self.socket, "GET", "/accessories", &[]);
            assert_eq!(message.status(), 200);
            self.database = message.json();
        }
        &self.database
    }

    /// The first characteristic of this type in a service of that type, by their short UUIDs.
    pub fn iid(&mut self, service: &str, characteristic: &str) -> u64 {
        self.iid_of(service, characteristic, 0)
    }

    /// As [`Client::iid`], in the service that comes after so many others of its type.
    pub fn iid_of(&mut self, service: &str, characteristic: &str, after: usize) -> u64 {
        let services = self.accessories()["accessories"][0]["services"].as_array().unwrap();
        let service = services.iter().filter(|s| s["type"] == service).nth(after).expect("the service");
        let mut all = service["characteristics"].as_array().unwrap().iter();
        all.find(|c| c["type"] == characteristic).expect("the characteristic")["iid"].as_u64().unwrap()
    }

    pub fn read(&mut self, service: &str, characteristic: &str) -> Json {
        let iid = self.iid(service, characteristic);
        self.controller.get(&mut self.socket, iid)
    }

    /// The TLV8 in a value.
    pub fn read_tlv(&mut self, service: &str, characteristic: &str) -> Vec<u8> {
        let value = self.read(service, characteristic);
        bytes_of(&value)
    }

    pub fn put(&mut self, body: Json) -> Message {
        self.controller.put(&mut self.socket, &body.to_string())
    }

    pub fn write(&mut self, service: &str, characteristic: &str, value: Json) {
        let iid = self.iid(service, characteristic);
        let message = self.put(json!({"characteristics": [{"aid": 1, "iid": iid, "value": value}]}));
        assert_eq!(message.status(), 204, "{service}.{characteristic}: {}", message.json());
    }

    /// As [`Client::write`], prepared by `/prepare`.
    pub fn write_timed(&mut self, service: &str, characteristic: &str, value: Json) {
        let iid = self.iid(service, characteristic);
        let prepare = json!({"ttl": 5000, "pid": 11}).to_string();
        let prepared = self.controller.exchange(&mut self.socket, "PUT", "/prepare", prepare.as_bytes());
        assert_eq!(prepared.json(), json!({"status": 0}));
        let message = self.put(json!({"pid": 11, "characteristics": [{"aid": 1, "iid": iid, "value": value}]}));
        assert_eq!(message.status(), 204, "{service}.{characteristic}: {}", message.json());
    }

    pub fn subscribe(&mut self, service: &str, characteristic: &str) {
        let iid = self.iid(service, characteristic);
        let message = self.put(json!({"characteristics": [{"aid": 1, "iid": iid, "ev": true}]}));
        assert_eq!(message.status(), 204);
    }

    /// Waits for an event with this value; those with others are skipped.
    pub fn wait_event(&mut self, service: &str, characteristic: &str, value: bool) {
        let iid = self.iid(service, characteristic);
        loop {
            while let Some(event) = self.controller.events.pop_front() {
                for entry in event.json()["characteristics"].as_array().expect("entries") {
                    let on = entry["value"] == json!(true) || entry["value"] == json!(1);
                    if entry["iid"] == iid && on == value {
                        return;
                    }
                }
            }
            let bytes = self.socket.receive();
            assert!(!bytes.is_empty(), "the connection is closed instead of an event");
            self.controller.feed(&bytes);
        }
    }

    /// Does what a controller does before a hub records: selects from what is offered, and switches on.
    /// What was selected.
    pub fn arm(&mut self, audio: bool) -> Selection {
        let offer = ["205", "206", "207"].map(|kind| self.read_tlv("204", kind));
        let selection = Selection::from_offer(&offer);
        self.write("204", "209", base64(&selection.tlv));
        assert_eq!(self.read_tlv("204", "209"), selection.tlv, "209 is kept as it was written");
        self.write("204", "B0", json!(1));
        self.write_timed("204", "226", json!(u8::from(audio)));
        self.subscribe("85", "22");
        selection
    }

    /// Raises motion over the control socket and waits for the event. The demo's own detector may have
    /// raised it already, and only a change is an event.
    pub fn motion(&mut self, program: &Program) {
        program.verb(&["motion", "off"]);
        let iid = self.iid("85", "22");
        self.controller.get(&mut self.socket, iid);
        self.controller.events.clear();
        program.verb(&["motion", "on"]);
        self.wait_event("85", "22", true);
    }

    /// Prepares a data stream, connects and says hello.
    pub fn data_stream(&mut self) -> DataStream {
        let iid = self.iid("129", "131");
        let ours = [0x5a; 32];
        let value = base64(&tlv(&[(1, &[0]), (2, &[0]), (3, &ours)]));
        let answer = self.put(json!({"characteristics": [{"aid": 1, "iid": iid, "value": value, "r": true}]}));
        assert_eq!(answer.status(), 207);
        let entry = &answer.json()["characteristics"][0];
        assert_eq!(entry["status"], 0);
        let answer = bytes_of(&entry["value"]);
        assert_eq!(value_of(&answer, 1), [0]);
        let port = u16::from_le_bytes(value_of(&value_of(&answer, 2), 1).try_into().expect("two bytes"));
        let theirs: [u8; 32] = value_of(&answer, 3).try_into().expect("a salt of 32 bytes");
        let hub = Hub::new(self.controller.shared().expect("verified"), &ours, &theirs);
        let mut stream = DataStream { hub, socket: Socket::connect(port), heard: VecDeque::new() };
        let hello = stream.hub.hello();
        assert_eq!(stream.ask(&hello).0, 0, "hello");
        stream
    }

    /// The accessory closes the connection as one does: with a FIN, all that was sent before it.
    pub fn wait_closed(&mut self) {
        while !self.socket.receive().is_empty() {}
    }
}

/// A data stream from the hub's side.
pub struct DataStream {
    pub hub: Hub,
    socket: Socket,
    heard: VecDeque<Heard>,
}

impl DataStream {
    /// Where it is connected to.
    pub fn port(&self) -> u16 {
        self.socket.0.peer_addr().expect("connected").port()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.send(bytes);
    }

    /// What comes next; `None`: the accessory has closed the connection.
    pub fn hear(&mut self) -> Option<Heard> {
        while self.heard.is_empty() {
            let bytes = self.socket.receive();
            if bytes.is_empty() {
                return None;
            }
            self.heard.extend(self.hub.received(&bytes));
        }
        self.heard.pop_front()
    }

    /// Sends a request; the status and the body of its answer. Segments that are under way come first.
    pub fn ask(&mut self, request: &[u8]) -> (i64, Tree) {
        self.send(request);
        loop {
            match self.hear().expect("an answer") {
                Heard::Response { id, status, body, .. } => {
                    assert_eq!(id, self.hub.last_id());
                    return (status, body);
                }
                Heard::Segment(_) => {}
                Heard::Close { reason, .. } => panic!("closed with reason {reason} instead of an answer"),
            }
        }
    }

    pub fn open(&mut self, stream_id: i64) {
        let open = self.hub.open(stream_id);
        let (status, body) = self.ask(&open);
        assert_eq!((status, body.int("status")), (0, 0), "open is accepted");
    }

    /// The next segment of this recording.
    pub fn segment(&mut self, stream_id: i64) -> Segment {
        match self.hear() {
            Some(Heard::Segment(segment)) => {
                assert_eq!(segment.stream_id, stream_id);
                segment
            }
            other => panic!("{other:?} instead of a segment"),
        }
    }

    /// The hub is content.
    pub fn close(&mut self, stream_id: i64) {
        let close = self.hub.close(stream_id, 0);
        self.send(&close);
    }
}

/// A TLV8 value in JSON.
pub fn base64(bytes: &[u8]) -> Json {
    let mut text = vec![0; BASE64.encode_len(bytes.len())];
    BASE64.encode_mut(bytes, &mut text);
    json!(core::str::from_utf8(&text).unwrap())
}

pub fn bytes_of(value: &Json) -> Vec<u8> {
    let text = value.as_str().expect("text").as_bytes();
    let mut bytes = vec![0; BASE64.decode_len(text.len()).expect("Base64")];
    let n = BASE64.decode_mut(text, &mut bytes).expect("Base64");
    bytes.truncate(n);
    bytes
}

/// A value of TLV8.
pub fn value_of(tlv: &[u8], tag: u8) -> Vec<u8> {
    items(tlv).into_iter().find(|(t, _)| *t == tag).unwrap_or_else(|| panic!("no item {tag} in {tlv:02x?}")).1
}

/// The items of TLV8: fragments put together, separators left out.
pub fn items(mut tlv: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut items: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut continues = false;
    while let [tag, len, rest @ ..] = tlv {
        let (value, behind) = rest.split_at((*len).into());
        match items.last_mut().filter(|(t, _)| continues && t == tag) {
            Some((_, whole)) => whole.extend(value),
            None => items.push((*tag, value.to_vec())),
        }
        continues = *len == 255;
        tlv = behind;
    }
    assert!(tlv.is_empty(), "a byte too many");
    items.retain(|(tag, value)| *tag != 0 || !value.is_empty());
    items
}

/// A recording configuration that a hub makes from what it is offered.
pub struct Selection {
    pub tlv: Vec<u8>,
    pub fragment_ms: u32,
    pub prebuffer_ms: u32,
    pub audio_rate_hz: u32,
}

impl Selection {
    fn from_offer([general, video, audio]: &[Vec<u8>; 3]) -> Self {
        let number = |bytes: Vec<u8>| bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
        let container = value_of(general, 3);
        let triggers = value_of(general, 2);
        assert_eq!((triggers.len(), triggers[0] & 1), (8, 1), "motion is offered as a trigger");
        let selected_general = tlv(&[(1, &value_of(general, 1)), (2, &[1, 0, 0, 0, 0, 0, 0, 0]), (3, &container)]);

        let codec = value_of(video, 1);
        let parameters = value_of(&codec, 2);
        let sizes: Vec<_> = items(&codec).into_iter().filter(|(tag, _)| *tag == 3).map(|(_, size)| size).collect();
        let size = sizes.iter().find(|size| number(value_of(size, 1)) == 1280).expect("1280 pixels are offered");
        assert_eq!(number(value_of(size, 2)), 720);
        let parameters = tlv(&[
            (1, &value_of(&parameters, 1)),
            (2, &value_of(&parameters, 2)),
            (3, &2_000_u32.to_le_bytes()),
            (4, &4_000_u32.to_le_bytes()),
        ]);
        let selected_video = tlv(&[(1, &value_of(&codec, 1)), (2, &parameters), (3, size)]);

        let codec = value_of(audio, 1);
        let parameters = value_of(&codec, 2);
        let rate = value_of(&parameters, 3);
        let rates = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000];
        let audio_rate_hz = rates[usize::from(*rate.first().expect("one rate"))];
        let parameters = tlv(&[
            (1, &value_of(&parameters, 1)),
            (2, &value_of(&parameters, 2)),
            (3, &rate),
            (4, &24_u32.to_le_bytes()),
        ]);
        let selected_audio = tlv(&[(1, &value_of(&codec, 1)), (2, &parameters)]);

        Selection {
            tlv: tlv(&[(1, &selected_general), (2, &selected_video), (3, &selected_audio)]),
            fragment_ms: number(value_of(&value_of(&container, 2), 1)),
            prebuffer_ms: number(value_of(general, 1)),
            audio_rate_hz,
        }
    }
}
