//! The command line as its users meet it: the real binary, its output and its exit codes.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What came out.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hksvd"));
    command.args(args).stdin(Stdio::null()).env_remove("HKSVD_SOCKET");
    command
}

fn hksvd(args: &[&str]) -> Ran {
    finish(command(args))
}

fn finish(mut command: Command) -> Ran {
    let output = command.output().expect("the program starts");
    Ran {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hksvd-cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("folder");
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").into()
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).expect("written");
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon that answers each of so many requests with the same bytes and returns what it was asked.
fn daemon(path: &Path, answers: &'static [&'static str]) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).expect("bound");
    std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1_024];
            let len = stream.read(&mut request).expect("request");
            requests.push(String::from_utf8_lossy(&request[..len]).lines().next().unwrap_or("").to_string());
            stream.write_all(answer.as_bytes()).expect("sent");
        }
        requests
    })
}

const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"ok\":true}\n";

#[test]
fn version_and_help() {
    let version = format!("hksvd {}\n", env!("CARGO_PKG_VERSION"));
    for args in [&["version"][..], &["--version"], &["-V"]] {
        let ran = hksvd(args);
        assert_eq!((ran.code, &ran.out, ran.err.as_str()), (0, &version, ""));
    }
    for args in [&["--help"][..], &["help"], &["run", "--help"], &["motion", "-h"], &["clip", "x", "--help"]] {
        let ran = hksvd(args);
        assert!(ran.code == 0 && ran.out.contains("Usage: hksvd") && ran.err.is_empty(), "{args:?}");
    }
}

#[test]
fn wrong_arguments_are_one_line_and_2() {
    for args in [
        &["staus"][..],
        &["--nonsense"],
        &["run", "--config"],
        &["log"],
        &["log", "loud"],
        &["motion", "sideways"],
        &["motion", "on", "--fps", "5"],
        &["motion", "trace"],
        &["motion", "trace", "x"],
        &["clip", "x", "--seconds", "0"],
        &["demo", "--setup-code", "111-11-111"],
        &["demo", "--port", "65536"],
        &["reset"],
    ] {
        let ran = hksvd(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert!(ran.out.is_empty() && ran.err.starts_with("hksvd: ") && ran.err.lines().count() == 1, "{}", ran.err);
    }
}

#[test]
fn print_config_knows_every_key() {
    let text = hksvd(&["print-config"]);
    let schema = hksvd(&["print-config", "--schema"]);
    assert_eq!((text.code, schema.code), (0, 0));
    let schema: serde_json::Value = serde_json::from_str(&schema.out).expect("JSON");
    for key in hksvd::config::keys::KEYS {
        assert!(text.out.contains(key.path) && text.out.contains(key.description), "{}", key.path);
        let place = match key.path.split_once('.') {
            Some((section, name)) => &schema["properties"][section]["properties"][name],
            None => &schema["properties"][key.path],
        };
        assert_eq!(place["description"], key.description, "{}", key.path);
    }
}

#[test]
fn check_names_line_column_and_key() {
    let folder = Folder::new("check");
    for (text, said) in [
        (
            "{\n  \"name\": \"Door\",\n  \"video\": { \"source\": \"demo\", \"fsp\": 25 }\n}",
            "3:32: video.fsp: unknown key, did you mean \"fps\"?",
        ),
        ("{ \"hap\": { \"port\": 70000 } }", "1:20: hap.port: must be a whole number from 0 to 65535"),
        ("{ \"hap\": { \"port\": 1, \"port\": 2 } }", "1:23: hap.port: stands here a second time"),
        ("{ \"name\": 5 }", "1:11: name: wrong type, expected a text"),
        (
            "{ \"setup_code\": \"123-45-678\" }",
            "1:17: setup_code: HomeKit forbids this setup code because it is too easy to guess",
        ),
        (
            "{ \"video\": { \"source\": \"demo\" },\n  \"motion\": { \"mode\": \"onvif\" } }",
            "2:23: motion.mode: \"onvif\" comes with a later version of hksvd",
        ),
    ] {
        let file = folder.file("hksvd.json", text);
        for args in
            [&["check", "--config", &file][..], &["check", "--offline", "--config", &file], &["--config", &file]]
        {
            let ran = hksvd(args);
            assert_eq!((ran.code, ran.err.trim_end()), (2, format!("{file}:{said}").as_str()), "{args:?}");
            assert!(ran.out.is_empty(), "{}", ran.out);
        }
    }
    let none = folder.path("none.json");
    let ran = hksvd(&["check", "--config", &none]);
    assert!(ran.code == 2 && ran.err.starts_with(&format!("{none}: no such file")), "{}", ran.err);
}

#[test]
fn check_tells_what_the_camera_lacks() {
    let folder = Folder::new("lacks");
    let fifo = folder.path("video");
    let text = format!(
        "{{ \"video\": {{ \"source\": \"fifo:{fifo}\" }}, \"hap\": {{ \"port\": 0 }}, \"state_dir\": \"{}\",\n  \
         \"control\": {{ \"socket\": \"{}\" }} }}",
        folder.path("state"),
        folder.path("s")
    );
    let file = folder.file("hksvd.json", &text);
    let offline = hksvd(&["check", "--offline", "--config", &file]);
    assert_eq!((offline.code, offline.err.as_str()), (0, ""), "{}", offline.out);
    let lacking = hksvd(&["check", "--config", &file]);
    let line = format!("missing  video.source: there is no {fifo}: make it with mkfifo\n");
    assert!(lacking.code == 1 && lacking.out.contains(&line) && lacking.err.is_empty(), "{}", lacking.out);
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let silent = hksvd(&["check", "--config", &file]);
    let line = format!("missing  fifo:{fifo}: no pictures come\n");
    assert!(silent.code == 1 && silent.out.contains(&line), "{}", silent.out);
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/src/source/demo/video.h264");
    let played = text.replace("fifo:", "file:").replace(&fifo, clip);
    let played = played.replace("\"hap\"", "\"audio\": { \"source\": \"none\" }, \"hap\"");
    let file_config = folder.file("file.json", &played);
    let all_well = hksvd(&["check", "--config", &file_config]);
    assert!(all_well.out.contains("ok       video: H.264 Main, 1280x720, 25."), "{}", all_well.out);
    assert_eq!(all_well.code, 0, "{}", all_well.out);
    let findings = all_well.out.lines().take_while(|line| !line.starts_with("proposed"));
    assert!(findings.into_iter().all(|line| line.starts_with("ok ")), "{}", all_well.out);

    // What the running daemon warns of is missing, too.
    const WARNS: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n{\"state\":\"idle\",\"warnings\":[\"key frames are rare\"]}";
    let daemon = daemon(&folder.0.join("s"), &[WARNS]);
    let warned = hksvd(&["check", "--config", &file]);
    assert!(warned.code == 1 && warned.out.contains("missing  key frames are rare\n"), "{}", warned.out);
    assert_eq!(daemon.join().expect("daemon"), ["GET /status HTTP/1.1"]);
}

#[test]
fn without_a_daemon_verbs_fail_in_one_line() {
    let folder = Folder::new("alone");
    let socket = folder.path("none.sock");
    for args in [
        &["status"][..],
        &["qr"],
        &["log", "debug"],
        &["identify"],
        &["motion", "on"],
        &["ring"],
        &["events"],
        &["snapshot", "x.jpg"],
        &["clip", "x.mp4"],
        &["reset", "--yes"],
    ] {
        let ran = hksvd(&[args, &["--socket", &socket]].concat());
        let line = format!("hksvd: no daemon answers at {socket}: start hksvd, or name its socket with --socket\n");
        assert_eq!((ran.code, ran.err, ran.out.as_str()), (1, line, ""), "{args:?}");
    }
    let mut by_environment = command(&["status"]);
    by_environment.env("HKSVD_SOCKET", &socket);
    let ran = finish(by_environment);
    assert!(ran.code == 1 && ran.err.contains(&socket), "{}", ran.err);
}

#[test]
fn verbs_become_requests() {
    let folder = Folder::new("requests");
    let socket = folder.path("s");
    let daemon = daemon(&folder.0.join("s"), &[DONE; 8]);
    for args in [
        &["--socket", &socket, "motion", "on"][..],
        &["motion", "off", "--socket", &socket],
        &["ring", "--socket", &socket],
        &["identify", "--socket", &socket],
        &["log", "debug", "--socket", &socket],
        &["reset", "--yes", "--socket", &socket],
    ] {
        let ran = hksvd(args);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{args:?}");
    }
    let ran = hksvd(&["status", "--json", "--socket", &socket]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "{\"ok\":true}\n"));
    assert_eq!(hksvd(&["events", "--history", "--socket", &socket]).out, "{\"ok\":true}\n");
    assert_eq!(
        daemon.join().expect("daemon"),
        [
            "POST /motion HTTP/1.1",
            "DELETE /motion HTTP/1.1",
            "POST /doorbell HTTP/1.1",
            "POST /identify HTTP/1.1",
            "PUT /log?level=debug HTTP/1.1",
            "POST /reset HTTP/1.1",
            "GET /status HTTP/1.1",
            "GET /events?history=1 HTTP/1.1"
        ]
    );
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0004\r\nclip\r\n0\r\n\r\n";
    const CUT: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0004\r\nclip\r\n";
    const REFUSED: &str = "HTTP/1.1 409 Conflict\r\nContent-Length: 30\r\n\r\n{\"error\":\"nothing to be seen\"}";
    let folder = Folder::new("file");
    let (socket, clip) = (folder.path("s"), folder.path("a.mp4"));
    let daemon = daemon(&folder.0.join("s"), &[CUT, WHOLE, CUT, WHOLE, REFUSED]);
    let ask = |to: &str| hksvd(&["clip", to, "--seconds", "5", "--socket", &socket]);
    let names = || {
        let entries = std::fs::read_dir(&folder.0).expect("folder");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name() != "s")).count()
    };
    let cut = ask(&clip);
    assert!(cut.code == 1 && cut.err.contains("broke off"), "{}", cut.err);
    assert_eq!(names(), 0);
    assert_eq!(ask(&clip).code, 0);
    assert_eq!((std::fs::read_to_string(&clip).expect("clip").as_str(), names()), ("clip", 1));
    // The old file survives a failure.
    assert_eq!(ask(&clip).code, 1);
    assert_eq!((std::fs::read_to_string(&clip).expect("clip").as_str(), names()), ("clip", 1));
    assert_eq!(ask("-").out, "clip");
    let refused = ask(&clip);
    assert_eq!((refused.code, refused.err.as_str()), (1, "hksvd: nothing to be seen\n"));
    assert!(daemon.join().expect("daemon").iter().all(|line| line == "GET /clip?seconds=5 HTTP/1.1"));
}

#[test]
fn the_qr_code_is_drawn() {
    const QR: &str = "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n\
                      {\"setup_uri\":\"X-HM://00GW95DQAHKSV\",\"setup_code\":\"031-45-154\",\"paired\":false}";
    let folder = Folder::new("qr");
    let daemon = daemon(&folder.0.join("s"), &[QR, QR]);
    let blocks = hksvd(&["qr", "--socket", &folder.path("s")]);
    assert!(
        blocks.code == 0 && blocks.out.ends_with("\nsetup code 031-45-154   X-HM://00GW95DQAHKSV\n"),
        "{}",
        blocks.err
    );
    assert!(blocks.out.contains('█') && blocks.out.lines().count() == 17);
    let ascii = hksvd(&["qr", "--ascii", "--socket", &folder.path("s")]);
    assert!(ascii.out.is_ascii() && ascii.out.lines().count() == 31);
    daemon.join().expect("daemon");
}

#[test]
fn reset_without_a_daemon_empties_the_folder() {
    let folder = Folder::new("reset");
    let state = folder.path("state");
    let text = format!(
        "{{ \"video\": {{ \"source\": \"demo\" }}, \"state_dir\": \"{state}\", \"control\": {{ \"socket\": \"{}\" }} }}",
        folder.path("s")
    );
    let file = folder.file("hksvd.json", &text);
    // Nothing there is nothing to do.
    assert_eq!(hksvd(&["reset", "--yes", "--config", &file]).code, 0);
    let (store, _) = hksvd::store::Store::open(Path::new(&state)).expect("store");
    store.write(hksvd::store::Part::Pairings, b"somebody").expect("written");
    // A daemon that holds the folder and does not answer is not robbed.
    let ran = hksvd(&["reset", "--yes", "--config", &file]);
    assert!(ran.code == 1 && ran.err.contains("another hksvd works with this folder"), "{}", ran.err);
    drop(store);
    let ran = hksvd(&["reset", "--config", &file]);
    assert!(ran.code == 2 && ran.err.contains("--yes"), "{}", ran.err);
    // A child that another test starts at this moment had our lock until it was a program of its own.
    let mut runs = (0..100).map(|_| hksvd(&["reset", "--yes", "--config", &file]));
    let ran = runs.find(|ran| !ran.err.contains("another hksvd")).expect("nobody works with it");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(hksvd::store::Store::open(Path::new(&state)).expect("store").1.is_new());
}

/// A daemon without a camera behind the real server.
struct Fake;

/// The same four bytes three times.
struct Clip(u8, hksvd::io::runtime::Signal);

impl hksvd::control::Chunks for Clip {
    fn poll(&mut self, _now: hksvd::time::Instant, out: &mut [u8]) -> hksvd::control::Chunk {
        self.0 += 1;
        out[..4].copy_from_slice(b"clip");
        if self.0 > 3 { hksvd::control::Chunk::End } else { hksvd::control::Chunk::Some(4) }
    }

    fn signal(&self) -> &hksvd::io::runtime::Signal {
        &self.1
    }
}

impl hksvd::control::Daemon for Fake {
    fn status(&self) -> hksvd::control::Status {
        hksvd::control::Status { name: "Fake".into(), state: "idle", ..Default::default() }
    }

    fn call(&self, call: hksvd::control::Call) -> hksvd::control::Answer {
        use hksvd::control::events::EventLines;
        use hksvd::control::{Answer, Call, Media};
        use hksvd::trace::{Event, Trace};
        match call {
            Call::Ring => Answer::Refused(409, "this camera has no bell".into()),
            Call::Snapshot => Answer::Jpeg(vec![0xff; 200_000].into()),
            Call::Clip { .. } => Answer::Stream(Media::Mp4, Box::new(Clip(0, Default::default()))),
            Call::Events { history } => {
                let mut trace = Trace::default();
                trace.push(hksvd::time::Instant::ZERO, Event::Ready);
                let trace = std::rc::Rc::new(std::cell::RefCell::new(trace));
                Answer::Stream(Media::Lines, Box::new(EventLines::new(trace, Default::default(), history)))
            }
            _ => Answer::Done,
        }
    }
}

#[test]
fn client_and_server_understand_each_other() {
    let folder = Folder::new("both");
    let (socket, file) = (folder.path("s"), folder.path("f"));
    let (listener, _place) = hksvd::control::socket::listen(Path::new(&socket)).expect("listening");
    std::thread::spawn(move || {
        let listener = std::rc::Rc::new(hksvd::control::server::Listener::unix(listener).expect("listener"));
        let executor = hksvd::io::runtime::Executor::default();
        executor.spawn(hksvd::control::server::serve(listener.clone(), std::rc::Rc::new(Fake)));
        executor.block_on(hksvd::control::server::serve(listener, std::rc::Rc::new(Fake)));
    });
    let ask = |args: &[&str]| hksvd(&[args, &["--socket", &socket]].concat());
    assert!(ask(&["status"]).out.starts_with("camera     Fake: idle"));
    let json: serde_json::Value = serde_json::from_str(&ask(&["status", "--json"]).out).expect("JSON");
    assert_eq!(json["name"], "Fake");
    for args in [&["motion", "on"][..], &["motion", "off"], &["identify"], &["log", "warn"], &["reset", "--yes"]] {
        assert_eq!(ask(args).code, 0, "{args:?}");
    }
    let refused = ask(&["ring"]);
    assert_eq!((refused.code, refused.err.as_str()), (1, "hksvd: this camera has no bell\n"));
    assert_eq!(ask(&["snapshot", &file]).code, 0);
    assert_eq!(std::fs::read(&file).expect("picture"), [0xff; 200_000]);
    assert_eq!(ask(&["clip", &file]).code, 0);
    assert_eq!(std::fs::read(&file).expect("clip"), b"clipclipclip");

    let mut events = command(&["events", "--history", "--socket", &socket]);
    let mut events = events.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut line = [0; 39];
    events.stdout.as_mut().expect("piped").read_exact(&mut line).expect("a line");
    assert_eq!(&line, b"{\"seq\":0,\"at_s\":0.000,\"event\":\"ready\"}\n");
    events.kill().expect("killed");
    events.wait().expect("ended");
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let mut running =
        command(&["print-config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    drop(running.stdout.take());
    let output = running.wait_with_output().expect("ended");
    assert!(output.stderr.is_empty() && output.status.code() == Some(0), "{output:?}");
}

#[test]
fn motion_trace_is_a_line_per_access_unit() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/src/source/demo/video.h264");
    let ran = hksvd(&["motion", "trace", clip, "--fps", "15", "--sensitivity", "70", "--hold", "5"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let mut lines = ran.out.lines();
    assert_eq!(lines.next(), Some("frame,time_s,key,bytes,baseline,level,motion"));
    assert!(lines.clone().count() > 400);
    for (frame, line) in lines.enumerate() {
        let columns: Vec<&str> = line.split(',').collect();
        assert_eq!((columns.len(), columns[0]), (7, frame.to_string().as_str()), "{line}");
        assert!(matches!(columns[6], "0" | "1"), "{line}");
    }
    let ran = hksvd(&["motion", "trace", "/no/such/file", "--fps", "15"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "hksvd: /no/such/file: No such file or directory (os error 2)\n"));
}
