//! The bell's button and what sounds when it is pressed, and the switch that turns the camera off.

use super::shared::Shared;
use super::{effects, states};
use crate::config::{Button, Output};
use crate::hap::press::{self, Meaning, Rules};
use crate::io::contact::Contact;
use crate::io::runtime::{now, or, sleep_until, sleep_until_some};
use crate::time::{Duration, Instant};
use crate::trace::{Cause, Repeats};
use std::rc::Rc;

/// Starts what the configuration asks for.
pub fn start(shared: &Rc<Shared>) {
    let config = &shared.config;
    for (key, button) in [(BELL, &config.doorbell.button), ("privacy.switch", &config.privacy.switch)] {
        if let Some(button) = button {
            shared.executor.spawn(watch(shared.clone(), key, button.clone()));
        }
    }
    if config.chime.output.is_some() {
        shared.executor.spawn(sound(shared.clone()));
    }
}

const BELL: &str = "doorbell.button";
const CHIME: &str = "chime.output";

fn rules(shared: &Shared, button: &Button) -> Rules {
    let doorbell = &shared.config.doorbell;
    // The kernel debounces keys; a pin is as it is.
    let settle = if matches!(button, Button::Evdev { .. }) { Duration::ZERO } else { press::LOCK };
    let reset = Some(Duration::from_secs(doorbell.reset_s.into())).filter(|length| !length.is_zero());
    Rules { settle, all: doorbell.all_presses, reset }
}

/// Follows a button or a switch, for ever; waits longer each time it cannot be opened, half a minute at the most.
async fn watch(shared: Rc<Shared>, key: &'static str, button: Button) {
    let mut failures = Repeats::default();
    let mut pause = Duration::from_secs(1);
    let mut state = press::Button::new(rules(&shared, &button));
    loop {
        let opened = Contact::open(&shared.root, &button);
        let error = match opened {
            Ok(contact) => {
                log::debug!(target: "doorbell", "{key} is there");
                pause = Duration::from_secs(1);
                follow(&shared, key, contact, &mut state).await
            }
            Err(error) => error,
        };
        states::failed(key, error.to_string(), &mut failures);
        if key == BELL {
            // Nobody holds what is gone. A camera that was switched off stays off.
            state = press::Button::new(rules(&shared, &button));
        } else if state.is_down().is_none() {
            // Nobody knows whether somebody may look: nobody may.
            switch_camera_off(&shared, true);
        }
        sleep_until(now() + pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

async fn follow(shared: &Rc<Shared>, key: &str, mut contact: Contact, state: &mut press::Button) -> std::io::Error {
    loop {
        let due = state.poll_timeout();
        let changed = or(async { Some(contact.changed().await) }, async {
            sleep_until_some(due).await;
            None
        });
        let then = match changed.await {
            // A change may be told late, with others behind it: no more time has gone by than up to it. Where nobody
            // says when it was, it may have been right after the last look: a finger that is gone held no longer.
            Some(Ok((down, since))) => {
                if let Some(since) = since {
                    act(shared, key, state, since);
                }
                let since = since.unwrap_or_else(now);
                state.handle_level(down, since);
                since
            }
            Some(Err(error)) => return error,
            None => now(),
        };
        act(shared, key, state, then);
        if key != BELL
            && let Some(off) = state.is_down()
        {
            switch_camera_off(shared, off);
        }
    }
}

/// Does what was meant up to `then`.
fn act(shared: &Rc<Shared>, key: &str, state: &mut press::Button, then: Instant) {
    while let Some(meaning) = state.poll(then) {
        match meaning {
            _ if key != BELL => {}
            Meaning::Press(press) => shared.ring(Cause::Button, press),
            Meaning::Reset => {
                log::warn!(target: "doorbell", "held for {} s: factory reset", shared.config.doorbell.reset_s);
                if let Err(why) = shared.reset() {
                    log::error!(target: "doorbell", "{why}");
                }
            }
        }
    }
}

fn switch_camera_off(shared: &Rc<Shared>, off: bool) {
    shared.accessory.borrow_mut().state.set_manually_disabled(off);
    effects::run(shared);
}

/// Sounds the chime for each ring, for ever; rings while it sounds are one more.
async fn sound(shared: Rc<Shared>) {
    let Some(chime) = &shared.config.chime.output else { return };
    let pulse = Duration::from_millis(shared.config.chime.pulse_ms.into());
    let mut failures = Repeats::default();
    let mut seen = shared.rang.count();
    silence(&shared);
    loop {
        shared.rang.changed(seen).await;
        seen = shared.rang.count();
        if shared.accessory.borrow().state.settings().chime_mute {
            log::debug!(target: "doorbell", "the chime is muted");
        } else if let Output::Exec(command) = chime {
            states::run(&shared, CHIME, command, &[], &mut failures).await;
        } else {
            match states::set(&shared.root, chime, true) {
                Ok(()) => sleep_until(now() + pulse).await,
                Err(error) => states::failed(CHIME, error.to_string(), &mut failures),
            }
            silence(&shared);
        }
    }
}

/// The chime is quiet. When that fails, so did making it sound.
pub fn silence(shared: &Shared) {
    if let Some(chime) = &shared.config.chime.output {
        let _ = states::set(&shared.root, chime, false);
    }
}
