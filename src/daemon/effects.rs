//! What the accessory asks of the shell, and what comes back from the worker thread.

use super::shared::Shared;
use super::{advertise, controllers, live, picture, sound, streams};
use crate::hap::ConnectionId;
use crate::hap::accessory::{Effect, Stored};
use crate::hds::Disconnect;
use crate::io::runtime::{now, sleep_until};
use crate::store::Part;
use crate::trace::{Cause, Event};
use crate::wire::Writer;
use std::rc::Rc;

/// What the worker thread brings back.
pub enum Done {
    /// An exponentiation of pair-setup.
    Computed(Option<ConnectionId>, crate::crypto::srp::Done),
    /// A file of the store.
    Stored(Option<ConnectionId>, Stored, Result<(), crate::store::Error>),
    /// A still picture.
    Picture(crate::source::snapshot::FromFile),
}

/// Does everything that the accessory has asked for.
pub fn run(shared: &Rc<Shared>) {
    loop {
        let Some(effect) = shared.accessory.borrow_mut().poll_effect() else { return };
        one(shared, effect);
    }
}

fn one(shared: &Rc<Shared>, effect: Effect) {
    match effect {
        Effect::Compute { connection, job } => compute(shared, connection, job),
        Effect::Store { connection, what } => store(shared, connection, what),
        Effect::Notify => shared.accessory_changed.notify(),
        Effect::TxtChanged => advertise::update(shared),
        Effect::CloseController { id, except } => {
            log::info!(target: "daemon", "a pairing was removed");
            note_pairings(shared);
            let gone: Vec<_> = shared.controllers.borrow().iter().filter(|c| c.is(&id)).cloned().collect();
            for controller in gone {
                streams::close_of(shared, controller.id(), Disconnect::PairingRemoved);
                if Some(controller.id()) != except {
                    controller.finish();
                }
            }
        }
        Effect::CloseAll { except } => {
            log::info!(target: "daemon", "the last admin is gone: not paired any more");
            note_pairings(shared);
            streams::close_where(shared, Disconnect::PairingRemoved, |_| true);
            let all: Vec<_> = shared.controllers.borrow().iter().filter(|c| Some(c.id()) != except).cloned().collect();
            for controller in all {
                controller.finish();
            }
            shared.retain();
        }
        Effect::Identify => identify(shared, Cause::Controller),
        Effect::CameraActive(on) => {
            log::info!(target: "daemon", "camera switched {}", if on { "on" } else { "off" });
            shared.note(Event::CameraActive { on });
            let change = shared.sensor.borrow_mut().handle_camera_active(on, now());
            shared.motion(change, Cause::Controller);
            if !on {
                shared.pictures.forget();
            }
            shared.states_changed.notify();
            shared.retain();
        }
        Effect::RecordingArmed(on) => {
            log::info!(target: "daemon", "recording {}", if on { "armed: the prebuffer fills" } else { "disarmed" });
            shared.note(Event::RecordingArmed { on });
            shared.states_changed.notify();
            shared.retain();
        }
        Effect::StreamingAllowed(_) => {
            shared.states_changed.notify();
            shared.retain();
        }
        Effect::StatusLed(_) | Effect::NightVision(_) => shared.states_changed.notify(),
        Effect::EndLiveView { view } => {
            let is_on = shared.accessory.borrow().state.camera_active();
            live::end(shared, view, if is_on { live::Cause::Disconnected } else { live::Cause::CameraOff });
        }
        Effect::SoundChanged => sound::update(shared),
        Effect::Snapshot { connection, width, reason, .. } => {
            let want = picture::Want { reason, width: Some(width) };
            shared.executor.spawn(picture::answer(shared.clone(), connection, want));
        }
    }
}

/// Lets a person see which camera this is.
pub fn identify(shared: &Shared, cause: Cause) {
    log::info!(target: "daemon", "identify: this camera is \"{}\"", shared.config.name.as_str());
    shared.note(Event::Identify { cause });
}

fn note_pairings(shared: &Shared) {
    // The table holds 32.
    let pairings = shared.accessory.borrow().pairings.len() as u8;
    shared.note(Event::PairingRemoved { pairings });
}

fn compute(shared: &Rc<Shared>, connection: Option<ConnectionId>, job: crate::crypto::srp::Job) {
    let shared = shared.clone();
    shared.executor.clone().spawn(async move {
        sleep_until(job.not_before).await;
        // Whoever leaves before its turn costs nothing.
        if connection.is_some_and(|id| controllers::find(&shared, id).is_none()) {
            return;
        }
        shared.worker.submit(Box::new(move || Done::Computed(connection, job.run())));
    });
}

fn store(shared: &Shared, connection: Option<ConnectionId>, what: Stored) {
    let mut bytes = vec![0; 8 * 1024];
    let mut w = Writer::new(&mut bytes);
    let part = {
        let accessory = shared.accessory.borrow();
        match what {
            Stored::Identity => {
                accessory.identity.emit(&mut w);
                Part::Identity
            }
            Stored::Pairings => {
                accessory.pairings.emit(&mut w);
                Part::Pairings
            }
            Stored::Tries => {
                accessory.setup.emit(&mut w);
                Part::Tries
            }
            Stored::Camera => {
                accessory.state.to_store().emit(&mut w);
                Part::Camera
            }
        }
    };
    debug_assert!(!w.is_full(), "the largest part, 32 pairings, is some 3 KiB");
    let len = w.len();
    bytes.truncate(len);
    let store = shared.store.clone();
    shared.worker.submit(Box::new(move || Done::Stored(connection, what, store.write(part, &bytes))));
}

/// Hands the results of the worker thread to whoever waits for them, for ever.
pub async fn finish(shared: Rc<Shared>) {
    loop {
        match shared.worker.finished().await {
            Done::Computed(connection, done) => match connection.and_then(|id| controllers::find(&shared, id)) {
                Some(controller) => controller.with(|c, accessory, s| c.handle_computed(done, accessory, s)),
                None => shared.accessory.borrow_mut().handle_prepared(done),
            },
            Done::Stored(connection, what, result) => {
                stored(&shared, what, &result);
                if let Some(controller) = connection.and_then(|id| controllers::find(&shared, id)) {
                    controller.with(|c, accessory, s| c.handle_stored(result.is_ok(), accessory, s));
                }
            }
            Done::Picture(result) => shared.pictures.handle_read(result),
        }
        run(&shared);
        // The answer that waited may leave now.
        shared.accessory_changed.notify();
    }
}

fn stored(shared: &Shared, what: Stored, result: &Result<(), crate::store::Error>) {
    match result {
        Ok(()) => {
            if shared.store_failed.replace(false) {
                log::info!(target: "daemon", "state is stored again");
            }
            if what == Stored::Pairings {
                // A removal is told by its own effect.
                let pairings = shared.accessory.borrow().pairings.len() as u8;
                if pairings > shared.known_pairings.replace(pairings) {
                    log::info!(target: "daemon", "a pairing was added: {pairings} now");
                    shared.note(Event::PairingAdded { pairings });
                }
            }
            if what == Stored::Tries {
                let tries = shared.accessory.borrow().setup.tries();
                if tries > 0 {
                    log::warn!(target: "daemon", "somebody tried to pair with a wrong setup code ({tries} of 100)");
                    shared.note(Event::PairingFailed { tries });
                }
            }
        }
        Err(error) => {
            // Said once: a full flash stays full.
            if !shared.store_failed.replace(true) {
                log::error!(target: "daemon", "state not stored: {error}");
                shared.note(Event::StoreFailed);
            }
        }
    }
}
