//! What is at the camera itself: the bell's button and its chime, the switch that turns it off, lamps, and the
//! firmware's tool for night vision. FIFOs stand for input devices, a folder for /sys.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use program::{Client, Folder, Program, eventually, finish, hksvd};
use serde_json::{Value as Json, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// An input device, as `/dev/input/event0` of a kernel with words as wide as ours.
struct Keys {
    path: PathBuf,
    fifo: Option<File>,
}

impl Keys {
    fn new(folder: &Folder) -> Self {
        let path = folder.path("event0");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let mut keys = Keys { path, fifo: None };
        keys.plug();
        keys
    }

    fn plug(&mut self) {
        // Reading and writing: it waits for nobody, and there is always somebody at the other end.
        self.fifo = Some(File::options().read(true).write(true).open(&self.path).expect("a FIFO"));
    }

    /// A key and the report behind it.
    fn set(&mut self, code: u16, value: i32) {
        for (kind, code, value) in [(1u16, code, value), (0, 0, 0)] {
            let mut event = vec![0x5a; 2 * size_of::<usize>()];
            event.extend([kind.to_ne_bytes(), code.to_ne_bytes()].concat());
            event.extend(value.to_ne_bytes());
            self.fifo.as_mut().expect("plugged").write_all(&event).expect("written");
        }
    }

    fn press(&mut self, code: u16, length: Duration) {
        self.set(code, 1);
        // A finger.
        std::thread::sleep(length);
        self.set(code, 0);
    }
}

const KEY_1: u16 = 2;
const KEY_ENTER: u16 = 28;
const SHORT: Duration = Duration::from_millis(60);

/// A pin of /sys/class/gpio below the folder `root`.
fn pin(folder: &Folder, number: u32) -> PathBuf {
    let pin = folder.path(&format!("root/sys/class/gpio/gpio{number}"));
    fs::create_dir_all(&pin).expect("made");
    for (file, content) in [("value", "1\n"), ("direction", "")] {
        fs::write(pin.join(file), content).expect("made");
    }
    pin
}

fn run(folder: &Folder, more: &Json) -> Program {
    let mut config = json!({"video": {"source": format!("fifo:{}", folder.path("video").display())}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Program::run_on(&folder.path("root"), folder, &folder.config(config))
}

/// The presses that a controller is told of, until there are so many.
fn presses(client: &mut Client, count: usize) -> Vec<u64> {
    let iid = client.iid("121", "73");
    let mut told = Vec::new();
    while told.len() < count {
        while let Some(event) = client.controller.events.pop_front() {
            let entries = event.json()["characteristics"].as_array().expect("entries").clone();
            told.extend(entries.iter().filter(|e| e["iid"] == iid).map(|e| e["value"].as_u64().expect("a number")));
        }
        if told.len() < count {
            let bytes = controller::Transport::receive(&mut client.socket);
            assert!(!bytes.is_empty(), "nothing more after {told:?}");
            client.controller.feed(&bytes);
        }
    }
    told
}

#[test]
fn a_press_rings_and_sounds_the_chime_unless_it_is_muted() {
    let folder = Folder::new("bell");
    let mut keys = Keys::new(&folder);
    let chime = pin(&folder, 58).join("direction");
    let program = run(
        &folder,
        &json!({
            "doorbell": {"button": format!("evdev:{}:KEY_1", keys.path.display())},
            "chime": {"output": "sysfs:58", "pulse_ms": 100}, "motion": {"mode": "api"},
        }),
    );
    let (_, mut client) = Client::pair(program.port());
    client.subscribe("121", "73");
    // The pin is written once for each level: what stands there is whole lines of the same length, or less.
    let level = || fs::read_to_string(&chime).expect("read");
    eventually("quiet at the start", || level().starts_with("low").then_some(()));
    let valid = &client.accessories()["accessories"][0]["services"];
    assert!(valid.to_string().contains("\"valid-values\":[0]"), "{valid}");

    // The firmware's own button is on the same device.
    keys.press(KEY_ENTER, SHORT);
    keys.set(KEY_1, 1);
    assert_eq!(presses(&mut client, 1), [0], "told while the finger is there");
    eventually("it sounds", || level().starts_with("high").then_some(()));
    keys.set(KEY_1, 2);
    keys.set(KEY_1, 0);
    eventually("and is quiet again", || level().starts_with("low").then_some(()));
    assert_eq!(program.said("[doorbell] button").len(), 1, "{:?}", program.said("doorbell"));
    assert_eq!(program.status()["motion"]["on"], true);

    client.write("121", "11A", json!(true));
    fs::write(&chime, "").expect("emptied");
    keys.press(KEY_1, SHORT);
    assert_eq!(presses(&mut client, 1), [0], "the event is sent all the same");
    program.wait_said("the chime is muted");
    assert_eq!(level(), "");

    // The device goes away and comes back.
    keys.fifo = None;
    program.wait_said("doorbell.button: unexpected end of file");
    keys.plug();
    eventually("it is opened again", || (program.said("doorbell.button is there").len() == 2).then_some(()));
    keys.press(KEY_1, SHORT);
    assert_eq!(presses(&mut client, 1), [0]);
    program.stop();
}

#[test]
fn double_and_long_presses_are_told_apart_and_a_very_long_one_resets() {
    let folder = Folder::new("presses");
    let mut keys = Keys::new(&folder);
    let program = run(
        &folder,
        &json!({"doorbell": {
            "button": format!("evdev:{}:28", keys.path.display()), "presses": "all", "reset_s": 2,
        }}),
    );
    let (_, mut client) = Client::pair(program.port());
    client.subscribe("121", "73");
    let services = client.accessories()["accessories"][0]["services"].to_string();
    assert!(services.contains("\"valid-values\":[0,1,2]"), "{services}");
    keys.press(KEY_ENTER, SHORT);
    std::thread::sleep(SHORT);
    keys.press(KEY_ENTER, SHORT);
    assert_eq!(presses(&mut client, 1), [1]);
    keys.press(KEY_ENTER, SHORT);
    assert_eq!(presses(&mut client, 1), [0]);
    keys.set(KEY_ENTER, 1);
    assert_eq!(presses(&mut client, 1), [2]);
    program.wait_said("held for 2 s: factory reset");
    eventually("a new life", || (program.said("serves HomeKit on port").len() == 2).then_some(()));
    program.wait_status("nobody is paired", |status| status["pairings"] == 0);
    program.stop();
}

#[test]
fn the_camera_is_switched_off_at_the_camera() {
    let folder = Folder::new("off");
    let pin = pin(&folder, 17);
    let config = json!({"privacy": {"switch": "sysfs:17:low"}, "motion": {"mode": "api"}});
    let program = run(&folder, &config);
    let (who, mut client) = Client::pair(program.port());
    assert_eq!(client.read("21A", "227"), json!(0));
    assert_eq!(fs::read_to_string(pin.join("direction")).unwrap(), "in");
    client.subscribe("21A", "227");
    let refused = |verb: &[&str]| {
        let (code, _, error) = finish(hksvd(["--socket"]).arg(&program.socket).args(verb));
        assert!(code == 1 && error.contains("switched off"), "{verb:?}: {error}");
    };

    fs::write(pin.join("value"), "0\n").unwrap();
    client.wait_event("21A", "227", true);
    assert_eq!(program.wait_status("off", |status| status["state"] == "privacy")["camera_active"], false);
    let file = folder.path("x");
    refused(&["snapshot", file.to_str().unwrap()]);
    refused(&["clip", file.to_str().unwrap()]);
    refused(&["motion", "on"]);
    // The switch is stronger, and Home's own switch stays as it was.
    program.verb(&["privacy", "off"]);
    assert_eq!(program.status()["state"], "privacy");
    assert_eq!(client.read("21A", "21B"), json!(1));
    let body = json!({"aid": 1, "resource-type": "image", "image-width": 640, "image-height": 360}).to_string();
    let answer = client.controller.exchange(&mut client.socket, "POST", "/resource", body.as_bytes());
    assert!(answer.json().to_string().contains("-70412"), "{}", answer.json());
    fs::write(pin.join("value"), "1\n").unwrap();
    client.wait_event("21A", "227", false);
    program.wait_status("on", |status| status["camera_active"] == true);

    // What is said by hand lasts over a power cut.
    program.verb(&["privacy", "on"]);
    client.wait_event("21A", "227", true);
    eventually("stored", || program.status()["state"].as_str().filter(|s| *s == "privacy").map(drop));
    program.stop();
    let program = run(&folder, &config);
    let mut client = Client::verified(program.port(), &who);
    assert_eq!((client.read("21A", "227"), &program.status()["state"]), (json!(1), &json!("privacy")));
    program.verb(&["privacy", "off"]);
    assert_eq!(client.read("21A", "227"), json!(0));
    program.stop();
}

#[test]
fn a_switch_that_cannot_be_read_is_on() {
    let folder = Folder::new("unknown");
    fs::create_dir_all(folder.path("root")).unwrap();
    let said = folder.path("said");
    let hook = format!("echo $HKSVD_PRIVACY >>'{}'", said.display());
    let program = run(&folder, &json!({"privacy": {"switch": "sysfs:17"}, "hooks": {"camera_active": hook}}));
    program.wait_said("privacy.switch: No such file or directory");
    let (_, mut client) = Client::pair(program.port());
    assert_eq!(client.read("21A", "227"), json!(1));
    // It comes late.
    fs::write(pin(&folder, 17).join("value"), "0\n").unwrap();
    client.subscribe("21A", "227");
    client.wait_event("21A", "227", false);
    // Nobody was let look before the switch was looked for.
    eventually("both told", || (fs::read_to_string(&said).ok()? == "on\noff\n").then_some(()));
    program.stop();
}

#[test]
fn a_finger_that_left_while_the_daemon_stood_still_held_no_longer() {
    let folder = Folder::new("late");
    let value = pin(&folder, 17).join("value");
    // In place: a value of the kernel's is never empty.
    let set = |level: &str| {
        let mut file = File::options().write(true).open(&value).unwrap();
        file.write_all(level.as_bytes()).unwrap();
    };
    let program = run(&folder, &json!({"doorbell": {"button": "sysfs:17:low", "presses": "all", "reset_s": 3}}));
    let (_, mut client) = Client::pair(program.port());
    client.subscribe("121", "73");
    set("0");
    assert_eq!(presses(&mut client, 1), [2]);
    program.signal("STOP");
    std::thread::sleep(Duration::from_secs(3));
    set("1");
    program.signal("CONT");
    // Of whatever length it is on a busy machine.
    std::thread::sleep(SHORT * 4);
    set("0");
    std::thread::sleep(SHORT * 4);
    set("1");
    presses(&mut client, 1);
    assert!(program.said("factory reset").is_empty());
    program.stop();
}

#[test]
fn a_lamp_and_the_firmwares_night_vision_follow_home() {
    let folder = Folder::new("lamp");
    let lamp = folder.path("root/sys/class/leds/led_blue");
    let tools = folder.path("root/usr/sbin");
    fs::create_dir_all(&lamp).unwrap();
    fs::create_dir_all(&tools).unwrap();
    for (file, content) in [("trigger", ""), ("brightness", ""), ("max_brightness", "200\n")] {
        fs::write(lamp.join(file), content).unwrap();
    }
    let said = folder.path("said");
    let tool = tools.join("daynight");
    fs::write(&tool, format!("#!/bin/sh\necho \"$1\" >>'{}'\n", said.display())).unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({"led": {"status": "led:led_blue"}, "hooks": {"night_vision": "auto"}});
    let program = run(&folder, &config);
    let (who, mut client) = Client::pair(program.port());
    let reads = |path: &PathBuf, wanted: &str| {
        let what = format!("{}: {wanted:?}", path.display());
        eventually(&what, || (fs::read_to_string(path).ok()? == wanted).then_some(()));
    };
    let brightness = lamp.join("brightness");
    reads(&brightness, "200");
    reads(&said, "auto\n");
    assert_eq!(fs::read_to_string(lamp.join("trigger")).unwrap(), "none");
    // A file keeps what is behind a shorter text.
    fs::write(&brightness, "").unwrap();
    client.write_timed("21A", "21D", json!(false));
    reads(&brightness, "0");
    client.write_timed("21A", "11B", json!(false));
    reads(&said, "auto\nday\n");
    program.stop();

    fs::remove_file(&tool).unwrap();
    let program = run(&folder, &config);
    program.wait_said("hooks.night_vision: this firmware has no daynight");
    let mut client = Client::verified(program.port(), &who);
    let services = client.accessories()["accessories"][0]["services"].to_string();
    assert!(!services.contains("\"type\":\"11B\"") && services.contains("\"type\":\"21D\""), "{services}");
    program.stop();
}
