//! Still pictures from everything that they can come from, and what hooks and the status light make of the
//! camera's states: the real program with sources that do what sources do, good and bad.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use program::{Client, Folder, Program, eventually, within};
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const PLACEHOLDER: &[u8] = include_bytes!("../src/source/placeholder.jpg");

/// What passes for a picture: it begins and ends as one.
fn jpeg(content: &str) -> Vec<u8> {
    [&[0xff, 0xd8, 0xff, 0xe0][..], content.as_bytes(), &[0xff, 0xd9]].concat()
}

/// `hksvd snapshot FILE`
fn snapshot(program: &Program, folder: &Folder) -> Vec<u8> {
    let file = folder.path("snapshot.jpg");
    program.verb(&["snapshot", file.to_str().unwrap()]);
    std::fs::read(&file).expect("the picture")
}

fn config(folder: &Folder, more: Json) -> std::path::PathBuf {
    // No video ever comes.
    let video = format!("fifo:{}", folder.path("video").display());
    let mut config = json!({"motion": {"mode": "api"}, "video": {"source": video}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    folder.config(config)
}

fn run(folder: &Folder, source: String) -> Program {
    Program::run(folder, &config(folder, json!({"snapshot": {"source": source}})))
}

/// `POST /resource`
fn resource(client: &mut Client, reason: Option<u8>, width: u32) -> (u16, Vec<u8>) {
    let mut body = json!({"aid": 1, "resource-type": "image", "image-width": width, "image-height": width / 16 * 9});
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    let answer = client.controller.exchange(&mut client.socket, "POST", "/resource", body.to_string().as_bytes());
    (answer.status(), answer.body)
}

/// As another program would: whole or not at all.
fn write(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

/// State letters of the program's children.
fn children(program: &Program) -> Vec<char> {
    let mut states = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name is in parentheses and may hold anything.
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let mut fields = fields.split(' ');
        let state = fields.next().unwrap().chars().next().unwrap();
        if fields.next().unwrap() == program.pid().to_string() {
            states.push(state);
        }
    }
    states
}

/// Whether a process with this in its arguments runs.
fn runs(argument: &str) -> bool {
    std::fs::read_dir("/proc").expect("proc").flatten().any(|entry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.split(|&b| b == 0).any(|one| one == argument.as_bytes())
    })
}

#[test]
fn a_file_is_read_when_somebody_asks() {
    let folder = Folder::new("snapshot-file");
    let path = folder.path("snap.jpg");
    let program = run(&folder, format!("file:{}", path.display()));
    let (_, mut client) = Client::pair(program.port());
    assert_eq!(snapshot(&program, &folder), PLACEHOLDER);
    program.wait_said("snapshot.source: No such file");

    write(&path, &jpeg("one"));
    eventually("the first", || (snapshot(&program, &folder) == jpeg("one")).then_some(()));
    write(&path, &jpeg("two"));
    eventually("the second", || (snapshot(&program, &folder) == jpeg("two")).then_some(()));
    assert_eq!(resource(&mut client, None, 640), (200, jpeg("two")));
    assert_eq!(resource(&mut client, Some(1), 640), (200, jpeg("two")));

    // Nobody renews it: a tile shows it all the same, a notification would mislead.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(3_600)).unwrap();
    eventually("too old for a notification", || {
        (resource(&mut client, Some(1), 640) == (200, PLACEHOLDER.to_vec())).then_some(())
    });
    assert_eq!(resource(&mut client, Some(0), 640), (200, jpeg("two")));

    // A FIFO without a writer, where a file is expected.
    std::fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    eventually("it is refused", || {
        snapshot(&program, &folder);
        (!program.said("not a regular file").is_empty()).then_some(())
    });

    // Off: nothing of what was seen is told.
    client.write("21A", "21B", json!(0));
    let (status, body) = resource(&mut client, None, 640);
    assert_eq!((status, serde_json::from_slice::<Json>(&body).unwrap()), (207, json!({"status": -70412})));
    client.write("21A", "21B", json!(1));
    assert_eq!(resource(&mut client, None, 640), (200, PLACEHOLDER.to_vec()));
    program.stop();
}

/// What the server does with a request.
#[derive(Clone)]
enum Does {
    /// Answers so, and closes.
    Says(Vec<u8>),
    /// Says so and nothing more.
    Hangs(&'static [u8]),
    /// Sends a byte now and then, for ever.
    Trickles,
    /// Sends 100 MB.
    Floods(&'static str),
}

struct Server {
    port: u16,
    does: Arc<Mutex<Does>>,
    requests: Arc<Mutex<Vec<String>>>,
    /// Answers under way; the most at any time. While the first is locked, none goes out.
    gate: Arc<(Mutex<bool>, Condvar)>,
    busiest: Arc<Mutex<(u32, u32)>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            does: Arc::new(Mutex::new(Does::Says(Vec::new()))),
            requests: Arc::default(),
            gate: Arc::new((Mutex::new(true), Condvar::new())),
            busiest: Arc::default(),
        };
        let (does, requests, gate, busiest) =
            (server.does.clone(), server.requests.clone(), server.gate.clone(), server.busiest.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (does, requests, gate, busiest) = (does.clone(), requests.clone(), gate.clone(), busiest.clone());
                std::thread::spawn(move || {
                    {
                        let mut busy = busiest.lock().unwrap();
                        busy.0 += 1;
                        busy.1 = busy.1.max(busy.0);
                    }
                    Self::answer(stream, &does, &requests, &gate);
                    busiest.lock().unwrap().0 -= 1;
                });
            }
        });
        server
    }

    fn answer(mut stream: TcpStream, does: &Mutex<Does>, requests: &Mutex<Vec<String>>, gate: &(Mutex<bool>, Condvar)) {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
            request.push(byte[0]);
        }
        requests.lock().unwrap().push(String::from_utf8(request).unwrap());
        drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open).unwrap());
        let does = does.lock().unwrap().clone();
        // The program hangs up when it has enough.
        let _ = match does {
            Does::Says(text) => stream.write_all(&text),
            Does::Hangs(text) => stream.write_all(text).map(|()| while stream.read(&mut byte).is_ok_and(|n| n > 0) {}),
            Does::Trickles => {
                let mut result = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff");
                while result.is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                    result = stream.write_all(b"x");
                }
                result
            }
            Does::Floods(head) => stream
                .write_all(head.as_bytes())
                .and_then(|()| (0..1600).try_for_each(|_| stream.write_all(&[b'x'; 65_536]))),
        };
    }

    fn will(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn open(&self, open: bool) {
        *self.gate.0.lock().unwrap() = open;
        self.gate.1.notify_all();
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn with(fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n{fields}\r\n").as_bytes(), body].concat()
}

#[test]
fn a_server_that_misbehaves_costs_one_answer() {
    let folder = Folder::new("snapshot-http");
    let server = Server::start();
    let program = run(&folder, format!("http://me:secret@127.0.0.1:{}/snap.jpg?x=1", server.port));

    for (does, said) in [
        (Does::Says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()), "the server answers 404"),
        (Does::Says(b"HTTP/1.1 401 No\r\n\r\n".to_vec()), "the server answers 401: it wants a login"),
        (Does::Says(b"SSH-2.0-dropbear\r\n\r\n".to_vec()), "the answer is not HTTP: no status"),
        (Does::Says(Vec::new()), "the answer is not HTTP: it ends before its end"),
        (Does::Says(with("Content-Length: 3\r\n", b"abc")), "not a complete JPEG picture"),
        (Does::Says(with("Content-Length: 100000000\r\n", b"")), "the answer is too large"),
        (Does::Hangs(b""), "no picture within 5 s"),
        (Does::Floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6400000\r\n"), "the answer is too large"),
        (Does::Trickles, "no picture within 5 s"),
        (Does::Floods("HTTP/1.1 200 OK\r\n\r\n"), "the answer is too large"),
    ] {
        server.will(does);
        let before = program.said(&format!("snapshot.source: {said}")).len();
        within(Duration::from_secs(30), said, &mut || {
            assert_eq!(snapshot(&program, &folder), PLACEHOLDER, "{said}");
            (program.said(&format!("snapshot.source: {said}")).len() > before).then_some(())
        });
    }

    let half = jpeg("chunks").len() / 2;
    let (first, second) = (&jpeg("chunks")[..half], &jpeg("chunks")[half..]);
    let chunked = [
        format!("{:x}\r\n", first.len()).as_bytes(),
        first,
        format!("\r\n{:X};a=b\r\n", second.len()).as_bytes(),
        second,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for (does, content) in [
        (Does::Says(with("content-length: 12\r\n", &jpeg("length"))), "length"),
        (Does::Says(with("Transfer-Encoding: chunked\r\n", &chunked)), "chunks"),
        (Does::Says(with("", &jpeg("until it closes"))), "until it closes"),
    ] {
        server.will(does);
        eventually(content, || (snapshot(&program, &folder) == jpeg(content)).then_some(()));
    }
    // A server that does not close after its answer.
    let kept: &'static [u8] = with("Content-Length: 10\r\n", &jpeg("kept")).leak();
    server.will(Does::Hangs(kept));
    eventually("kept", || (snapshot(&program, &folder) == jpeg("kept")).then_some(()));

    // It fails: the last one is still good.
    server.will(Does::Says(b"HTTP/1.1 503 Busy\r\n\r\n".to_vec()));
    eventually("busy", || {
        assert_eq!(snapshot(&program, &folder), jpeg("kept"));
        (!program.said("answers 503").is_empty()).then_some(())
    });

    let request = server.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with(&format!("GET /snap.jpg?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", server.port)));
    assert!(request.contains("\r\nAuthorization: Basic bWU6c2VjcmV0\r\n"), "{request}");
    assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
    assert!(program.said("secret").is_empty(), "a password is not logged");
    program.stop();
}

#[test]
fn one_is_taken_at_a_time_and_serves_all_who_ask() {
    let folder = Folder::new("snapshot-cache");
    let server = Server::start();
    let program = run(&folder, format!("http://127.0.0.1:{}/", server.port));
    let (_, mut client) = Client::pair(program.port());
    server.will(Does::Says(with("", &jpeg("x"))));

    server.open(false);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (program, file) = (&program, folder.path(&format!("{n}.jpg")));
            scope.spawn(move || {
                program.verb(&["snapshot", file.to_str().unwrap()]);
                assert_eq!(std::fs::read(&file).expect("a picture"), jpeg("x"));
            });
        }
        eventually("the first is asked for", || (server.asked() > 0).then_some(()));
        server.open(true);
    });

    let (start, before) = (Instant::now(), server.asked());
    for _ in 0..40 {
        assert_eq!(resource(&mut client, Some(0), 640), (200, jpeg("x")));
    }
    // One a second at the most, however many ask.
    let most = start.elapsed().as_secs() as usize + 1;
    assert!(server.asked() - before <= most, "{} in {:?}", server.asked() - before, start.elapsed());
    assert_eq!(server.busiest.lock().unwrap().1, 1, "one at a time");
    program.stop();
}

#[test]
fn a_notification_gets_a_picture_of_what_raised_it() {
    let folder = Folder::new("snapshot-event");
    let count = folder.path("count");
    let command = format!(
        "exec:n=$(cat {count} 2>/dev/null || echo 0); n=$((n + 1)); echo $n >{count}; printf '\\377\\330\\377%s\\377\\331' $n",
        count = count.display()
    );
    let program = run(&folder, command);
    let (_, mut client) = Client::pair(program.port());
    let number = |(status, body): (u16, Vec<u8>)| {
        assert_eq!(status, 200);
        String::from_utf8_lossy(&body[3..body.len() - 2]).parse::<u32>().expect("a number")
    };
    // Right behind one that was taken for a tile, within the second.
    for _ in 0..3 {
        let tile = number(resource(&mut client, Some(0), 640));
        program.verb(&["motion", "on"]);
        let event = number(resource(&mut client, Some(1), 640));
        assert!(event > tile, "{event} is from before the motion");
        program.verb(&["motion", "off"]);
    }
    program.stop();
}

#[test]
fn a_command_that_misbehaves_costs_one_answer() {
    let folder = Folder::new("snapshot-exec");
    let script = folder.path("script");
    let program = run(&folder, format!("exec:. {}", script.display()));
    let sleeps = format!("4{}", program.pid());
    for (does, said) in [
        ("true".to_string(), "not a complete JPEG picture"),
        ("echo oops; exit 3".into(), "the command ended with exit code 3"),
        ("kill -SEGV $$".into(), "the command was killed by SIGSEGV"),
        ("no-such-program 2>/dev/null".into(), "the command ended with exit code 127 (no such command?)"),
        ("head -c 100000000 /dev/zero".into(), "the command printed more than 512 KiB"),
        (format!("sleep {sleeps} & sleep {sleeps}"), "no picture within 5 s"),
        (format!("trap '' TERM HUP; exec >&-; sleep {sleeps}"), "the command did not end"),
    ] {
        write(&script, does.as_bytes());
        let seen = |said: &str| !program.said(&format!("snapshot.source: {said}")).is_empty();
        within(Duration::from_secs(30), said, &mut || {
            assert_eq!(snapshot(&program, &folder), PLACEHOLDER, "{said}");
            // Both limits are the same five seconds: either may come first.
            (seen(said) || does.contains("sleep") && (seen("no picture within 5 s") || seen("the command did not end")))
                .then_some(())
        });
        eventually("nothing is left of it", || (children(&program).is_empty() && !runs(&sleeps)).then_some(()));
    }
    // What stays in the background holds the output open.
    write(&script, format!("sleep {sleeps} & printf '\\377\\330\\377x\\377\\331'").as_bytes());
    let good = [0xff, 0xd8, 0xff, b'x', 0xff, 0xd9];
    eventually("a picture", || (snapshot(&program, &folder) == good).then_some(()));
    eventually("nothing is left of it", || (children(&program).is_empty() && !runs(&sleeps)).then_some(()));

    // The daemon ends in the middle of one, one way or the other.
    write(&script, format!("sleep {sleeps}; true").as_bytes());
    let asking = std::thread::spawn({
        let (socket, file) = (program.socket.clone(), folder.path("snapshot.jpg"));
        let ask =
            move || program::hksvd(["--socket"]).arg(&socket).arg("snapshot").arg(&file).output().expect("it ends");
        // Until nobody answers.
        move || while ask().status.success() {}
    });
    eventually("it runs", || runs(&sleeps).then_some(()));
    program.stop();
    eventually("it is killed", || (!runs(&sleeps)).then_some(()));
    asking.join().unwrap();
}

#[test]
fn a_streamer_is_found_and_gives_the_size_that_is_asked_for() {
    let folder = Folder::new("snapshot-auto");
    let root = folder.path("root");
    let program = Program::run_on(&root, &folder, &config(&folder, json!({})));
    let (_, mut client) = Client::pair(program.port());
    assert_eq!(resource(&mut client, None, 640), (200, PLACEHOLDER.to_vec()));
    assert!(program.said("snapshot.source").is_empty(), "no streamer is no fault");

    // It starts later than we do. It reads its request until the end of the connection.
    std::fs::create_dir_all(root.join("run/prudynt")).unwrap();
    let listener = UnixListener::bind(root.join("run/prudynt/prudynt.sock")).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = String::new();
            stream.read_to_string(&mut request).unwrap();
            let picture = match request.as_str() {
                "SNAPSHOT ch=0 q=75" => jpeg("large"),
                "SNAPSHOT ch=1 q=75" => PLACEHOLDER.iter().copied().chain([0; 3]).collect(),
                other => panic!("{other}"),
            };
            stream.write_all(format!("OK {}\n", picture.len()).as_bytes()).unwrap();
            stream.write_all(&picture).unwrap();
        }
    });
    let small = [PLACEHOLDER, &[0; 3]].concat();
    eventually("the small one", || (resource(&mut client, Some(0), 640) == (200, small.clone())).then_some(()));
    assert_eq!(resource(&mut client, Some(0), 1280), (200, jpeg("large")));
    eventually("the small one again", || (resource(&mut client, Some(0), 320) == (200, small.clone())).then_some(()));
    assert_eq!(snapshot(&program, &folder), jpeg("large"));
    program.stop();
}

#[test]
fn hooks_and_the_light_follow_the_states() {
    let folder = Folder::new("states");
    let root = folder.path("root");
    let gpio = root.join("sys/class/gpio");
    std::fs::create_dir_all(gpio.join("gpio38")).unwrap();
    for file in ["export", "gpio38/direction", "gpio38/value"] {
        std::fs::write(gpio.join(file), "").unwrap();
    }
    let (active, night) = (folder.path("active"), folder.path("night"));
    let lock = folder.path("lock");
    let config = config(
        &folder,
        json!({
            "led": {"status": "sysfs:38:low"},
            "hooks": {
                // Two at a time would be seen.
                "camera_active": format!(
                    "mkdir {lock} || echo twice >>{active}; echo $HKSVD_CAMERA_ACTIVE $HKSVD_PRIVACY >>{active}; \
                     sleep 0.2; rmdir {lock}",
                    lock = lock.display(), active = active.display()
                ),
                "night_vision": format!("echo $HKSVD_NIGHT_VISION $HKSVD_DAYNIGHT >>{}; exit 3", night.display()),
            },
        }),
    );
    let program = Program::run_on(&root, &folder, &config);
    let lines = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(String::from).collect::<Vec<_>>()
    };
    let wait_last = |path: &Path, wanted: &str| {
        eventually(wanted, || (lines(path).last().map(String::as_str) == Some(wanted)).then_some(()));
    };
    // sysfs takes each write for itself; this file keeps what is behind.
    let wait_light = |level: &str| {
        let direction = gpio.join("gpio38/direction");
        eventually(level, || std::fs::read_to_string(&direction).unwrap().starts_with(level).then_some(()));
    };
    wait_last(&active, "1 off");
    wait_last(&night, "1 auto");
    wait_light("low");

    let (_, mut client) = Client::pair(program.port());
    client.write_timed("21A", "11B", json!(false));
    wait_last(&night, "0 day");
    client.write_timed("21A", "21D", json!(false));
    wait_light("high");
    client.write_timed("21A", "21D", json!(true));
    wait_light("low");
    client.write("21A", "21B", json!(0));
    wait_light("high");
    wait_last(&active, "0 on");
    // Faster than the hook: the last one counts.
    for value in [1, 0, 1, 0, 1] {
        client.write("21A", "21B", json!(value));
    }
    wait_last(&active, "1 off");
    wait_light("low");
    let ran = lines(&active);
    assert!(!ran.contains(&"twice".into()) && ran.windows(2).all(|two| two[0] != two[1]), "{ran:?}");
    assert_eq!(lines(&night).len(), 2, "on changes only");
    eventually("its failure is said", || {
        (!program.said("hooks.night_vision: the command ended").is_empty()).then_some(())
    });
    assert_eq!(program.said("hooks.night_vision: the command ended with exit code 3").len(), 1, "once");
    eventually("no zombie", || children(&program).is_empty().then_some(()));
    program.stop();
    wait_light("high");
}

#[test]
fn a_light_may_be_a_command_and_tells_the_state() {
    let folder = Folder::new("light");
    let light = folder.path("light");
    let command = format!("exec:echo $HKSVD_LED $HKSVD_STATE >{}", light.display());
    let program = Program::run(&folder, &config(&folder, json!({"led": {"status": command}})));
    let wait = |wanted: &str| {
        eventually(wanted, || {
            (std::fs::read_to_string(&light).unwrap_or_default() == format!("{wanted}\n")).then_some(())
        });
    };
    wait("1 stream");
    let (_, mut client) = Client::pair(program.port());
    client.arm(false);
    wait("1 record");
    client.write_timed("21A", "21D", json!(false));
    wait("0 record");
    client.write_timed("21A", "21D", json!(true));
    client.write("204", "B0", json!(0));
    wait("1 stream");
    for stream in 0..2 {
        let iid = client.iid_of("110", "B0", stream);
        client.put(json!({"characteristics": [{"aid": 1, "iid": iid, "value": 0}]}));
    }
    wait("1 detect");
    client.write("21A", "21B", json!(0));
    wait("0 off");
    client.write("21A", "21B", json!(1));
    wait("1 detect");
    program.stop();
    wait("0 off");
}
