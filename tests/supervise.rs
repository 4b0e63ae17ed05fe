//! `hksvd run --supervise`: the real parent, the real daemon, and signals to either.
#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use program::{Client, Folder, PATIENCE, Program, eventually};
use serde_json::json;
use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A port that nobody has had lately, and a daemon that wants it.
fn camera(folder: &Folder) -> (u16, PathBuf) {
    let port = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|l| l.local_addr()).expect("a port").port();
    let config = folder.config(json!({
        "video": {"source": "demo"}, "hap": {"port": port, "mdns": false}, "motion": {"mode": "api"},
    }));
    (port, config)
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, process group.
fn stat(pid: u32) -> Option<(String, u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.into(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Gone, or dead and only not yet buried by whoever inherited it.
fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, ..)| state == "Z" || state == "X")
}

fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| stat(*pid).is_some_and(|(state, of, _)| of == parent && state != "Z")).collect()
}

/// The one child of the parent.
fn daemon_of(program: &Program) -> u32 {
    let all = children(program.pid());
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill").success());
}

fn oom_score_adj(pid: u32) -> i32 {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("there").trim().parse().expect("a number")
}

/// Sizes of the stacks beside the first thread's, those for signals among them: memory without a file right
/// above a small guard.
fn stacks_kb(pid: u32) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("there");
    let mut guard_end = 0;
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights, place) = (words.next().unwrap(), words.next().unwrap(), words.nth(3));
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        if rights == "rw-p" && place.is_none() && from == guard_end {
            found.push((to - from) / 1024);
        }
        guard_end = if rights == "---p" && to - from <= 64 * 1024 { to } else { 0 };
    }
    found
}

/// Nobody listens there any more.
fn wait_free(port: u16, socket: &Path) {
    eventually("the port is free", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).ok());
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err(), "the control socket is free, too");
}

#[test]
fn a_crashed_daemon_comes_back_to_its_port() {
    let folder = Folder::new("supervise-crash");
    let (port, config) = camera(&folder);
    let mut program = Program::supervise(&folder, &config);
    assert_eq!(program.port(), port);
    let (who, client) = Client::pair(port);
    let first = daemon_of(&program);
    let group = stat(program.pid()).expect("it runs").2;
    assert_eq!(stat(first).expect("it runs").2, group, "they share the process group");
    let own = oom_score_adj(std::process::id());
    assert_eq!((oom_score_adj(first), oom_score_adj(program.pid())), (own.max(800), own));

    kill("-KILL", first);
    let said = eventually("the end is told", || program.said("[supervise]").pop());
    assert!(said.starts_with("ERROR [supervise] the daemon was killed by SIGKILL after "), "{said}");
    assert!(said.ends_with(" s; next start in 1 s"), "{said}");
    drop(client);
    eventually("it serves again", || (program.said("serves HomeKit").len() == 2).then_some(()));
    assert_eq!(program.port(), port);
    let second = daemon_of(&program);
    assert!(first != second && is_gone(first));
    Client::verified(port, &who);
    assert!(program.status()["threads"].as_u64() >= Some(2));
    // An emulator of another processor has stacks of its own.
    if cfg!(target_arch = "x86_64") {
        let stacks = stacks_kb(second);
        assert!(stacks.len() >= 2 && stacks.iter().all(|kb| *kb <= 256), "{stacks:?}");
    }

    // The init script's way to stop it.
    program.terminate();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
    assert!(is_gone(second), "the parent waits for the daemon");
    wait_free(port, &program.socket);
    assert!(!program.socket.exists(), "the daemon has cleaned up behind itself");
    eventually("a line each", || (program.said("[supervise]").len() == 2).then_some(()));
    assert_eq!(program.said("[daemon] stopping").len(), 1);
    let said = program.said("[supervise]").pop().expect("a line");
    assert!(said.starts_with("INFO  [supervise] the daemon ended with exit code 0 after "), "{said}");
}

#[test]
fn a_daemon_does_not_outlive_its_parent() {
    let folder = Folder::new("supervise-orphan");
    let (port, config) = camera(&folder);
    let mut program = Program::supervise(&folder, &config);
    assert_eq!(program.port(), port);
    let daemon = daemon_of(&program);
    kill("-KILL", program.pid());
    program.ended(PATIENCE);
    eventually("the daemon is gone", || is_gone(daemon).then_some(()));
    wait_free(port, &program.socket);
}

#[test]
fn a_reset_keeps_process_and_parent() {
    let folder = Folder::new("supervise-reset");
    let (port, config) = camera(&folder);
    let mut program = Program::supervise(&folder, &config);
    assert_eq!(program.port(), port);
    let (_, client) = Client::pair(port);
    let daemon = daemon_of(&program);
    program.verb(&["reset", "--yes"]);
    drop(client);
    eventually("it serves again", || (program.said("serves HomeKit").len() == 2).then_some(()));
    assert_eq!((daemon_of(&program), children(daemon)), (daemon, vec![]), "the same process, with no child of its own");
    let said = program.said("[supervise]");
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(program.status()["paired"], false);
    Client::pair(port);

    // The tie to the parent has lasted.
    kill("-KILL", program.pid());
    program.ended(PATIENCE);
    eventually("the daemon is gone", || is_gone(daemon).then_some(()));
    wait_free(port, &program.socket);
}

#[test]
fn a_wrong_configuration_is_said_once() {
    let folder = Folder::new("supervise-wrong");
    let config = folder.config(json!({"video": {"source": "demo", "fsp": 25}}));
    let mut program = Program::supervise(&folder, &config);
    assert_eq!(program.ended(PATIENCE).code(), Some(2));
    eventually("told", || (!program.said("[supervise]").is_empty()).then_some(()));
    assert_eq!(program.said("video.fsp: unknown key").len(), 1);
    let said = program.said("[supervise]");
    assert!(said[0].starts_with("ERROR [supervise] the daemon ended with exit code 2 after "), "{said:?}");
    assert!(said.len() == 1 && !said[0].contains("next start"), "{said:?}");
}

#[test]
fn what_fails_again_is_tried_again_later_and_can_be_stopped() {
    let folder = Folder::new("supervise-again");
    // There is no folder for the socket: exit code 1.
    let config = folder.config(json!({
        "video": {"source": "demo"}, "control": {"socket": folder.path("none/socket")},
    }));
    let mut program = Program::supervise(&folder, &config);
    program.wait_said("next start in 2 s");
    let said = program.said("[supervise] the daemon ended with exit code 1 after ");
    assert!(said.len() == 2 && said[0].ends_with(" s; next start in 1 s"), "{said:?}");
    assert_eq!(program.said("control.socket").len(), 2);
    assert!(children(program.pid()).is_empty());
    // Only one of them means it.
    kill("-CHLD", program.pid());
    program.terminate();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
}
