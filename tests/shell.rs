//! The real program against those who connect and do nothing, signals, and a log that nobody reads.

#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use hub::Heard;
use program::{CODE, Client, Folder, PATIENCE, Program, eventually, finish, hksvd, within};
use serde_json::json;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An init system waits about half as long before it kills; this is a debug build beside other tests.
const STOP: Duration = Duration::from_secs(4);

fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("a process").count()
}

/// Processor time that it has used, in ticks of a hundredth of a second.
fn ticks(program: &Program) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).expect("a process");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection")
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let folder = Folder::new("come-and-go");
    let program = Program::demo(&folder);
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    let mut stream = client.data_stream();
    let data_streams = stream.port();
    let before = descriptors(&program);
    for port in [program.port(), data_streams] {
        for _ in 0..500 {
            drop(connect(port));
        }
        // More than there is room for.
        let held: Vec<TcpStream> = (0..40).map(|_| connect(port)).collect();
        drop(held);
        eventually("all descriptors are closed", || (descriptors(&program) == before).then_some(()));
    }
    program.wait_status("only the hub is left", |status| status["data_streams"] == 1);
    stream.open(1);
    stream.segment(1);
    // The hub's data stream lives no longer than what it was prepared on.
    drop(client);
    while stream.hear().is_some() {}
}

#[test]
fn sixteen_verified_controllers_stay_whoever_else_comes() {
    let folder = Folder::new("sixteen");
    let program = Program::demo(&folder);
    let (who, first) = Client::pair(program.port());
    let mut verified = vec![first];
    // Before, between and after those who only sit there.
    let mut idle: Vec<TcpStream> = (0..20).map(|_| connect(program.port())).collect();
    while verified.len() < 16 {
        verified.push(Client::verified(program.port(), &who));
        idle.push(connect(program.port()));
    }
    idle.extend((0..20).map(|_| connect(program.port())));
    for client in &mut verified {
        client.read("3E", "23");
    }
    assert_eq!(program.status()["controllers"], 16);
}

#[test]
fn a_camera_that_waits_uses_no_processor() {
    let folder = Folder::new("waits");
    let config = folder.config(json!({
        "video": {"source": format!("fifo:{}", folder.path("nobody").display())},
        "audio": {"source": format!("fifo:{}", folder.path("no-sound").display())},
    }));
    let program = Program::run(&folder, &config);
    let (_, mut client) = Client::pair(program.port());
    let _stream = client.data_stream();
    let before = ticks(&program);
    std::thread::sleep(Duration::from_secs(2));
    let used = ticks(&program) - before;
    assert!(used <= 10, "{used} ticks in two seconds");
}

#[test]
fn sigterm_ends_it_in_time_whatever_goes_on() {
    let folder = Folder::new("in-time");
    let mut program = Program::demo(&folder);
    let (_, mut client) = Client::pair(program.port());
    client.arm(true);
    let mut stream = client.data_stream();
    stream.open(7);
    stream.segment(7);
    // Neither the hub nor the controller reads any more, and others have said nothing yet.
    let _silent: Vec<TcpStream> = (0..5).map(|_| connect(program.port())).collect();
    let start = Instant::now();
    program.terminate();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
    assert!(start.elapsed() < STOP, "{:?}", start.elapsed());
    loop {
        match stream.hear() {
            Some(Heard::Close { reason, .. }) => break assert_eq!(reason, 3, "cancelled"),
            Some(_) => {}
            None => panic!("closed without a word"),
        }
    }
    client.wait_closed();
    assert!(!folder.path("state").join("hksvd.sock").exists());
}

/// A daemon whose standard error is not the test's.
struct Bare(Child, PathBuf);

impl Bare {
    fn start(folder: &Folder, mut command: Command, stderr: Stdio) -> Self {
        let state = folder.path("state");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let bare = Bare(command.spawn().expect("the program starts"), state.join("hksvd.sock"));
        eventually("it serves", || bare.call("status").then_some(()));
        bare
    }

    fn call(&self, verb: &str) -> bool {
        finish(hksvd(["--socket"]).arg(&self.1).args(verb.split(' '))).0 == 0
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    fn stop(&mut self) {
        self.signal("-TERM");
        let ended = within(PATIENCE, "it ends", &mut || self.0.try_wait().expect("a child"));
        assert_eq!(ended.code(), Some(0));
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn demo(folder: &Folder) -> Vec<String> {
    let state = folder.path("state");
    let arguments = ["demo", "--no-mdns", "--port", "0", "--setup-code", CODE, "--state-dir"];
    arguments.iter().map(|s| s.to_string()).chain([state.to_str().expect("UTF-8").to_string()]).collect()
}

#[test]
fn a_hangup_ends_it_unless_nohup_says_otherwise() {
    let folder = Folder::new("hangup");
    // Whoever runs the tests under nohup has the program inherit that.
    let own = std::fs::read_to_string("/proc/self/status").expect("a process");
    let ignored = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a set of signals");
    if u64::from_str_radix(ignored.trim(), 16).expect("a number") & 1 == 0 {
        let mut bare = Bare::start(&folder, hksvd(demo(&folder)), Stdio::null());
        bare.signal("-HUP");
        assert_eq!(within(STOP, "it ends", &mut || bare.0.try_wait().expect("a child")).code(), Some(0));
    }

    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hksvd")]).args(demo(&folder));
    let mut bare = Bare::start(&folder, shell, Stdio::null());
    bare.signal("-HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert!(bare.call("status"), "it has ended");
    bare.stop();
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    let folder = Folder::new("full-disk");
    let full = File::options().write(true).open("/dev/full").expect("the device that is always full");
    let mut bare = Bare::start(&folder, hksvd(demo(&folder)), full.into());
    assert!(bare.call("log debug") && bare.call("motion on") && bare.call("identify") && bare.call("status"));
    bare.stop();
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let folder = Folder::new("stuck-log");
    let mut bare = Bare::start(&folder, hksvd(demo(&folder)), Stdio::piped());
    let unread = bare.0.stderr.take();
    assert!(bare.call("log debug"));
    // Far more lines than fit into a pipe.
    for _ in 0..1_500 {
        let mut stream = std::os::unix::net::UnixStream::connect(&bare.1).expect("a connection");
        let request = b"POST /identify HTTP/1.1\r\nHost: camera\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).expect("taken");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let answer = std::io::read_to_string(stream).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    bare.stop();
    drop(unread);
}
