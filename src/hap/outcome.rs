//! What a request comes to, and what follows once the shell has done its part.

use super::ConnectionId;
use super::accessory::{Accessory, Effect, Stored, Surroundings};
use super::pairing::{Context, ControllerId, Pairings, list};
use super::reply::Reply;
use super::types::Status;
use crate::crypto::{SharedSecret, srp};
use crate::wire::Writer;

/// Room for the answer to a pairing request; listing 32 controllers needs 2.5 KiB.
const PAIRING_REPLY_MAX: usize = 4096;

/// What follows when the files are stored.
pub(super) enum Then {
    Nothing,
    /// The first pairing.
    Paired,
    /// A pairing was added or changed.
    Pairings(Undo),
    /// A pairing was removed.
    Removed(Undo, ControllerId),
    /// All were removed.
    RemovedAll(Undo),
}

/// The pairings as they were, and the number of the change that replaced them.
pub(super) struct Undo {
    before: Box<Pairings>,
    epoch: u32,
}

/// What a request comes to.
pub(super) enum Outcome {
    Reply(Reply),
    /// The reply is sent once `files` are stored.
    Store {
        reply: Reply,
        files: &'static [Stored],
        then: Then,
    },
    Compute(srp::Job),
    Snapshot,
    Verified {
        reply: Reply,
        controller: ControllerId,
        shared: SharedSecret,
    },
}

impl Accessory {
    /// The files are stored: what follows is told. Whether the connection has to close.
    pub(super) fn conclude(
        &mut self,
        then: Then,
        connection: ConnectionId,
        controller: Option<&[u8]>,
        s: &mut Surroundings<'_>,
    ) -> bool {
        match then {
            Then::Nothing | Then::Pairings(_) => false,
            Then::Paired => {
                self.state.effect(Effect::TxtChanged);
                false
            }
            Then::Removed(_, id) => {
                let own = controller == Some(&id[..]);
                self.state.end_views_of_controller(&id);
                self.state.effect(Effect::CloseController { id, except: Some(connection) });
                own
            }
            Then::RemovedAll(_) => {
                self.state.forget_settings();
                if self.state.take_unsaved() {
                    self.state.effect(Effect::Store { connection: None, what: Stored::Camera });
                }
                self.state.effect(Effect::CloseAll { except: Some(connection) });
                self.state.effect(Effect::TxtChanged);
                self.prepare_setup(s.random);
                true
            }
        }
    }

    /// The files could not be stored: puts back what is not allowed to be lost, and gives the reply
    /// that says so.
    pub(super) fn undo(&mut self, then: Then, s: &mut Surroundings<'_>) -> Option<Reply> {
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        match then {
            // A switch of the camera stays as it was set.
            Then::Nothing => return None,
            Then::Paired => {
                let mut context = Context { identity: &self.identity, pairings: &mut self.pairings, random: s.random };
                self.setup.not_stored(&mut context, &mut w);
            }
            Then::Pairings(undo) | Then::Removed(undo, _) | Then::RemovedAll(undo) => {
                if undo.epoch == self.pairings_epoch {
                    self.pairings = *undo.before;
                }
                list::not_stored(&mut w);
            }
        }
        // It may have been one of several files that failed: bring the others in line.
        self.state.effect(Effect::Store { connection: None, what: Stored::Pairings });
        Some(Reply::tlv8(w.written()))
    }

    /// Answers a request to `/pairings`.
    pub(super) fn answer_pairings(&mut self, admin: bool, body: &[u8]) -> Outcome {
        let before = Box::new(self.pairings.clone());
        let mut buf = vec![0; PAIRING_REPLY_MAX];
        let mut w = Writer::new(&mut buf);
        let outcome = list::handle(body, admin, &mut self.pairings, &mut w);
        let reply = Reply::tlv8(w.written());
        if self.pairings != *before {
            self.pairings_epoch = self.pairings_epoch.wrapping_add(1);
        }
        let undo = Undo { before, epoch: self.pairings_epoch };
        let then = match outcome {
            list::ListOutcome::Reply => return Outcome::Reply(reply),
            list::ListOutcome::BadRequest => return Outcome::Reply(Reply::status(400, Status::InvalidValue)),
            list::ListOutcome::Changed => Then::Pairings(undo),
            list::ListOutcome::Removed(id) => Then::Removed(undo, id),
            list::ListOutcome::RemovedAll => Then::RemovedAll(undo),
        };
        Outcome::Store { reply, files: &[Stored::Pairings], then }
    }
}
