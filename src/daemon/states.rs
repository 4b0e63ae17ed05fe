//! What follows the camera's states outside of HomeKit: the hooks and the status light.
//!
//! One task for each looks at the state, does what it takes and waits until the state has changed: there is
//! no queue, so the latest value wins, and each runs once at start.

use super::shared::Shared;
use crate::config::{Command, Config, Output, RaptorStream, VideoSource};
use crate::io::command::Order;
use crate::io::gpio;
use crate::io::runtime::{now, sleep_until};
use crate::source::raptor;
use crate::time::Duration;
use crate::trace::Repeats;
use std::path::Path;
use std::rc::Rc;

/// A hook that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(10);
/// The same, for the last command: whoever stops the daemon waits.
const LAST: Duration = Duration::from_secs(1);
/// Encoders make a key frame of any size out of a request: not more of them than this.
const KEY_FRAME_PAUSE: Duration = Duration::from_secs(1);

/// The row of Home's settings that is in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Detect,
    Stream,
    Record,
}

impl Mode {
    fn of(shared: &Shared) -> Self {
        let state = &shared.accessory.borrow().state;
        match () {
            () if !state.camera_active() => Mode::Off,
            () if state.recording_permission().armed() => Mode::Record,
            () if state.streaming_allowed() => Mode::Stream,
            () => Mode::Detect,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Detect => "detect",
            Mode::Stream => "stream",
            Mode::Record => "record",
        }
    }
}

/// Two environment variables: a digit for scripts, and a word that the tools of Thingino take.
type Variables = [(&'static str, &'static str); 2];

fn camera_active(shared: &Shared) -> Variables {
    match shared.accessory.borrow().state.camera_active() {
        true => [("HKSVD_CAMERA_ACTIVE", "1"), ("HKSVD_PRIVACY", "off")],
        false => [("HKSVD_CAMERA_ACTIVE", "0"), ("HKSVD_PRIVACY", "on")],
    }
}

fn night_vision(shared: &Shared) -> Variables {
    match shared.accessory.borrow().state.settings().night_vision {
        true => [("HKSVD_NIGHT_VISION", "1"), ("HKSVD_DAYNIGHT", "auto")],
        false => [("HKSVD_NIGHT_VISION", "0"), ("HKSVD_DAYNIGHT", "day")],
    }
}

/// The light is on while the camera is, unless Home wants it dark.
fn is_lit(shared: &Shared) -> bool {
    let state = &shared.accessory.borrow().state;
    state.camera_active() && state.settings().indicator
}

fn light(shared: &Shared) -> Variables {
    [("HKSVD_LED", if is_lit(shared) { "1" } else { "0" }), ("HKSVD_STATE", Mode::of(shared).as_str())]
}

/// Starts what the configuration asks for.
pub fn start(shared: &Rc<Shared>) {
    let config = &shared.config;
    for (key, command, variables) in [
        ("hooks.camera_active", &config.hooks.camera_active, camera_active as fn(&Shared) -> Variables),
        ("hooks.night_vision", &config.hooks.night_vision, night_vision),
    ] {
        if let Some(command) = command {
            shared.executor.spawn(hook(shared.clone(), key, command.clone(), variables));
        }
    }
    match &config.led.status {
        Some(Output::Exec(command)) => {
            shared.executor.spawn(hook(shared.clone(), "led.status", command.clone(), light));
        }
        Some(output) => shared.executor.spawn(status_light(shared.clone(), output.clone())),
        None => {}
    }
    // A source that takes requests may be found later.
    shared.executor.spawn(key_frames(shared.clone()));
}

/// Runs a command for each state, for ever.
async fn hook(shared: Rc<Shared>, key: &'static str, command: Command, variables: fn(&Shared) -> Variables) {
    let mut done = None;
    let mut failures = Repeats::default();
    loop {
        let seen = shared.states_changed.count();
        let wanted = variables(&shared);
        if done != Some(wanted) {
            run(&shared, key, &command, &wanted, &mut failures).await;
            // A command that has failed is not tried again: it would fail for as long as nobody mends it.
            done = Some(wanted);
        }
        shared.states_changed.changed(seen).await;
    }
}

/// Runs a command and tells of its failure.
pub async fn run(
    shared: &Shared,
    key: &str,
    command: &Command,
    variables: &[(&str, &str)],
    failures: &mut Repeats<String>,
) {
    match shared.commands.run(Order { command: &command.0, variables, limit: LIMIT }).await {
        Ok(()) => failures.over(|_, _| {}),
        Err(why) => failed(key, format!("the command {why}"), failures),
    }
}

/// Tells of a failure, and seldom of one that comes again.
pub fn failed(key: &str, why: String, failures: &mut Repeats<String>) {
    failures.note(now(), why, |why, repeated| log::warn!("{key}: {why}{repeated}"));
}

/// Switches what has no command. These files of the kernel are no files: nothing waits for a disk.
pub fn set(root: &Path, output: &Output, on: bool) -> std::io::Result<()> {
    match output {
        Output::Sysfs(pin) => gpio::set(&root.join("sys/class/gpio"), pin.number, on != pin.low),
        Output::Led(name) => gpio::light(&root.join("sys/class/leds").join(name), on),
        Output::Exec(_) => Ok(()),
    }
}

/// Puts the firmware's own tool in the place of `"hooks.night_vision": "auto"`, or nothing where there is none:
/// then there is no such switch in Home either.
pub fn resolve_night_vision(config: &mut Config, root: &Path) {
    if config.hooks.night_vision.as_ref().is_some_and(|command| command.0 == "auto") {
        let tools = ["usr/sbin", "usr/bin", "sbin", "bin"].map(|folder| root.join(folder).join("daynight"));
        let tool = tools.iter().find(|tool| tool.is_file());
        if tool.is_none() {
            log::warn!("hooks.night_vision: this firmware has no daynight: name a command, or take the key out");
        }
        // "auto" or "day", as the tool has it.
        config.hooks.night_vision = tool.map(|tool| Command(format!("'{}' $HKSVD_DAYNIGHT", tool.display())));
    }
}

/// Switches the light for each state, for ever.
async fn status_light(shared: Rc<Shared>, output: Output) {
    let mut done = None;
    let mut failures = Repeats::default();
    loop {
        let seen = shared.states_changed.count();
        let lit = is_lit(&shared);
        if done != Some(lit) {
            match set(&shared.root, &output, lit) {
                Ok(()) => done = Some(lit),
                Err(error) => failed("led.status", error.to_string(), &mut failures),
            }
        }
        shared.states_changed.changed(seen).await;
    }
}

/// The light goes out with the daemon.
pub async fn stop(shared: &Shared) {
    match &shared.config.led.status {
        Some(Output::Exec(command)) => {
            let variables = [("HKSVD_LED", "0"), ("HKSVD_STATE", Mode::Off.as_str())];
            let order = Order { command: &command.0, variables: &variables, limit: LAST };
            if let Err(why) = shared.commands.run(order).await {
                log::warn!("led.status: the command {why}");
            }
        }
        // What is wrong with it was said before.
        Some(output) => drop(set(&shared.root, output, false)),
        None => {}
    }
}

/// The sources that take a request for a key frame by themselves.
fn raptor_streams(shared: &Shared) -> impl Iterator<Item = RaptorStream> {
    let sources = shared.playing.borrow().clone();
    sources.into_iter().filter_map(|source| match source {
        // A ring of another version takes none.
        Some(VideoSource::Raptor(stream)) => raptor::codec(&shared.root, stream).is_ok().then_some(stream),
        _ => None,
    })
}

/// Whether there is a way to ask the encoder for key frames.
pub fn asks_for_key_frames(shared: &Shared) -> bool {
    shared.config.hooks.keyframe.is_some() || raptor_streams(shared).next().is_some()
}

/// Asks the encoder for key frames, whenever somebody wants one, for ever.
async fn key_frames(shared: Rc<Shared>) {
    let mut failures = Repeats::default();
    let mut seen = shared.key_frame_wanted.count();
    loop {
        shared.key_frame_wanted.changed(seen).await;
        seen = shared.key_frame_wanted.count();
        raptor_streams(&shared).for_each(|stream| raptor::request_key_frame(&shared.root, stream));
        if let Some(command) = &shared.config.hooks.keyframe {
            run(&shared, "hooks.keyframe", command, &[], &mut failures).await;
        }
        sleep_until(now() + KEY_FRAME_PAUSE).await;
    }
}
