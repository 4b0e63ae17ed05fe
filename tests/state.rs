//! What survives: restarts, power cuts, damaged files, a full disk and a factory reset of the real program.
#![cfg(feature = "demo")]

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use program::{CODE, Client, Folder, Program, eventually, finish, hksvd};
use serde_json::{Value as Json, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A camera that plays the demo clip, with a configuration of its own.
fn config(folder: &Folder) -> PathBuf {
    folder.config(json!({"video": {"source": "demo"}}))
}

/// What cannot start says why in one line.
fn refuses(config: &Path) -> String {
    let (code, _, err) = finish(hksvd(["run", "--config"]).arg(config));
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    err
}

fn serial(client: &mut Client) -> Json {
    client.read("3E", "30")
}

/// Changes a byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).expect("damaged");
}

/// What a controller can set and a restart must not change.
const KEPT: [(&str, &str); 7] =
    [("204", "B0"), ("204", "209"), ("204", "226"), ("21A", "223"), ("21A", "21B"), ("21A", "225"), ("110", "B0")];

fn kept(client: &mut Client) -> Vec<Json> {
    KEPT.iter().map(|(service, characteristic)| client.read(service, characteristic)).collect()
}

#[test]
fn a_restart_changes_nothing() {
    let folder = Folder::new("restart");
    let config = config(&folder);
    let program = Program::run(&folder, &config);
    let (who, mut client) = Client::pair(program.port());
    let fresh = kept(&mut client);
    client.arm(true);
    client.write("21A", "223", json!(0));
    client.write("21A", "225", json!(0));
    let before = (serial(&mut client), client.accessories().clone(), kept(&mut client));
    assert!(fresh.iter().zip(&before.2).filter(|(a, b)| a != b).count() >= 5, "{:?}", before.2);
    program.stop();
    assert!(!folder.path("socket").exists());

    let program = Program::run(&folder, &config);
    // Verifying compares identifier and key of the accessory with those of the pairing.
    let mut client = Client::verified(program.port(), &who);
    assert_eq!((serial(&mut client), kept(&mut client)), (before.0, before.2));
    let iids = |database: &Json| {
        let services = database["accessories"][0]["services"].as_array().unwrap().clone();
        let all = services.into_iter().flat_map(|s| s["characteristics"].as_array().unwrap().clone());
        all.map(|c| (c["iid"].clone(), c["type"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(iids(client.accessories()), iids(&before.1));
    let status = program.status();
    assert_eq!((&status["pairings"], &status["recording_armed"]), (&json!(1), &json!(true)));
    // Nobody is subscribed after a restart, and hubs know.
    client.subscribe("85", "22");
    client.motion(&program);
    program.stop();
}

#[test]
fn a_power_cut_after_pairing_loses_nothing() {
    let folder = Folder::new("cut");
    let config = config(&folder);
    let program = Program::run(&folder, &config);
    // At the moment in which pair-setup is answered.
    let mut who = controller::Identity::new("AD0BE000-0000-4000-8000-000000000002");
    let mut client = Client::plain(program.port());
    client.controller.pair_setup(&mut client.socket, &mut who, CODE).expect("pair-setup");
    program.kill();
    assert!(folder.path("socket").exists(), "the stale socket is replaced");

    let program = Program::run(&folder, &config);
    let mut client = Client::verified(program.port(), &who);
    // And the moment in which a write is answered.
    client.write("21A", "21B", json!(0));
    program.kill();

    let program = Program::run(&folder, &config);
    let mut client = Client::verified(program.port(), &who);
    assert_eq!(client.read("21A", "21B"), json!(0));
    assert_eq!(program.status()["state"], "off");
    program.stop();
}

#[test]
fn a_lost_identity_is_no_new_camera_and_reset_works_without_a_daemon() {
    let folder = Folder::new("identity");
    let config = config(&folder);
    let program = Program::run(&folder, &config);
    let (_, mut client) = Client::pair(program.port());
    let before = serial(&mut client);
    program.stop();
    let state = folder.path("state");
    let whole = fs::read(state.join("identity")).expect("the identity");
    damage(&state.join("identity"));
    // The second time nothing is left of the file itself.
    for _ in 0..2 {
        let said = refuses(&config);
        assert!(said.contains("the identity of this camera is lost") && said.contains("hksvd reset --yes"), "{said}");
        assert!(!state.join("identity").exists() && state.join("identity.damaged-1").exists());
        assert!(!folder.path("socket").exists());
    }
    // Whoever has a copy of it goes on as before.
    fs::write(state.join("identity"), &whole).expect("restored");
    let program = Program::run(&folder, &config);
    assert_eq!(program.status()["pairings"], 1);
    program.stop();

    fs::remove_file(state.join("identity")).expect("removed");
    let said = refuses(&config);
    assert!(said.contains("the identity of this camera is lost"), "{said}");

    let (code, out, err) = finish(hksvd(["reset", "--yes", "--config"]).arg(&config));
    assert_eq!((code, &out[..], &err[..]), (0, "", ""));
    let left: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    let program = Program::run(&folder, &config);
    assert_eq!(program.status()["paired"], false);
    let (_, mut client) = Client::pair(program.port());
    assert_ne!(serial(&mut client), before);
    program.stop();
}

#[test]
fn damaged_switches_start_from_the_defaults() {
    let folder = Folder::new("switches");
    let config = config(&folder);
    let program = Program::run(&folder, &config);
    let (who, mut client) = Client::pair(program.port());
    let defaults = kept(&mut client);
    client.arm(true);
    client.write("21A", "223", json!(0));
    program.stop();
    let state = folder.path("state");
    damage(&state.join("camera"));

    let program = Program::run(&folder, &config);
    let said = program.said("the camera's switches could not be read");
    assert!(said.len() == 1 && said[0].contains("camera.damaged-1"), "{said:?}");
    assert!(state.join("camera.damaged-1").exists());
    let mut client = Client::verified(program.port(), &who);
    assert_eq!(kept(&mut client), defaults);
    // What is set now is kept again.
    client.write("21A", "223", json!(0));
    program.stop();
    let program = Program::run(&folder, &config);
    assert_eq!(program.said("the camera's switches could not be read"), [""; 0]);
    assert_eq!(Client::verified(program.port(), &who).read("21A", "223"), json!(0));
    program.stop();
}

#[test]
fn one_folder_serves_one_daemon() {
    let folder = Folder::new("twice");
    let config = config(&folder);
    let program = Program::run(&folder, &config);
    let other = folder.config(json!({
        "video": {"source": "demo"}, "control": {"socket": folder.path("other")},
    }));
    let said = refuses(&other);
    assert!(said.contains("another hksvd works with this folder"), "{said}");
    // A reset that does not find the daemon does not pull the folder away from under it.
    let (code, _, err) = finish(hksvd(["reset", "--yes", "--config"]).arg(&other));
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert_eq!(program.status()["paired"], false);
    let _ = Client::pair(program.port());
    program.stop();
}

#[test]
fn a_reset_makes_another_camera_that_serves_at_once() {
    let folder = Folder::new("reset");
    let mut program = Program::demo(&folder);
    let (_, mut client) = Client::pair(program.port());
    let before = serial(&mut client);
    program.verb(&["reset", "--yes"]);
    client.wait_closed();
    eventually("it serves again", || (program.said("serves HomeKit on port").len() == 2).then_some(()));
    assert_eq!(program.said("all pairings are forgotten").len(), 1);
    assert_eq!(program.status()["paired"], false);
    let (_, mut client) = Client::pair(program.port());
    assert_ne!(serial(&mut client), before);
    assert_eq!(program.status()["pairings"], 1);
    // Signals still reach it in its second life.
    program.terminate();
    assert_eq!(program.ended(program::PATIENCE).code(), Some(0));
    assert!(!program.socket.exists());
}

/// A file system of 64 KiB, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and a word about it, for users who may not mount anything.
    fn mount(path: PathBuf) -> Option<Self> {
        if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
            eprintln!("SKIPPED: only root can mount a small file system");
            return None;
        }
        fs::create_dir_all(&path).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(SmallDisk(path)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        panic!("this test needs a small file system, and root may not mount one here (CAP_SYS_ADMIN): {why}");
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let written = (0..).map_while(|n| fs::write(self.0.join(format!("fill-{n}")), [0; 4096]).ok());
        assert!(written.take(64).count() < 64, "it fills up");
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("mount").success());
    }

    fn make_room(&self) {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("fill-");
        files.filter(ours).for_each(|path| fs::remove_file(path).unwrap());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Switches, none of which comes back to what is stored.
const SWITCHES: [&str; 3] = ["21B", "223", "225"];

fn switch_off(client: &mut Client) {
    for switch in SWITCHES {
        client.write("21A", switch, json!(0));
        assert_eq!(client.read("21A", switch), json!(0));
    }
}

#[test]
fn a_full_disk_stops_nothing_but_pairing() {
    let folder = Folder::new("full");
    let Some(disk) = SmallDisk::mount(folder.path("state")) else { return };
    let config = config(&folder);

    // From the beginning: an identity that could not be kept is none.
    disk.fill();
    let said = refuses(&config);
    assert!(said.contains("no space left; make room on this file system"), "{said}");
    disk.make_room();

    let program = Program::run(&folder, &config);
    disk.fill();
    let mut who = controller::Identity::new("AD0BE000-0000-4000-8000-000000000003");
    let mut client = Client::plain(program.port());
    let refused = client.controller.pair_setup(&mut client.socket, &mut who, CODE);
    assert!(refused.is_err(), "a pairing that would be lost is none");
    assert_eq!(program.status()["paired"], false);
    assert_eq!(program.said("state not stored").len(), 1);
    disk.make_room();
    let (who, mut client) = Client::pair(program.port());
    program.wait_said("state is stored again");

    // Switches work all the same, and the log says it once.
    disk.fill();
    switch_off(&mut client);
    assert_eq!(program.status()["state"], "off");
    let said = program.said("state not stored");
    assert!(said.len() == 2 && said[1].contains("no space left"), "{said:?}");
    program.kill();

    // What was stored before is whole.
    disk.make_room();
    let program = Program::run(&folder, &config);
    let mut client = Client::verified(program.port(), &who);
    assert_eq!(SWITCHES.map(|switch| client.read("21A", switch)), [1, 1, 1]);
    program.stop();
}

#[test]
fn a_read_only_disk_serves_whoever_is_paired() {
    let folder = Folder::new("readonly");
    let Some(disk) = SmallDisk::mount(folder.path("state")) else { return };
    let config = config(&folder);
    disk.remount("ro");
    let said = refuses(&config);
    assert!(said.contains("the file system is read-only; set state_dir to one that is not"), "{said}");
    disk.remount("rw");
    let program = Program::run(&folder, &config);
    let (who, _) = Client::pair(program.port());
    program.stop();

    disk.remount("ro");
    let program = Program::run(&folder, &config);
    let mut client = Client::verified(program.port(), &who);
    switch_off(&mut client);
    assert_eq!(program.status()["state"], "off");
    let said = program.said("state not stored");
    assert!(said.len() == 1 && said[0].contains("read-only"), "{said:?}");
    // A second daemon is kept out all the same.
    let other = folder.config(json!({
        "video": {"source": "demo"}, "control": {"socket": folder.path("other")},
    }));
    assert!(refuses(&other).contains("another hksvd works with this folder"));
    program.stop();
}
