//! Which request is answered by what, before pair-verify and after it (HAP R2 §6.2.3, table 6-1).

use super::ConnectionId;
use super::accessory::{Accessory, Effect, Stored, Surroundings};
use super::characteristics::{self, Timed};
use super::events::Subscriptions;
use super::outcome::{Outcome, Then};
use super::pairing::{self, Context, ControllerId, Verify, VerifyOutcome};
use super::reply::Reply;
use super::resource;
use super::state::Caller;
use super::types::Status;
use crate::crypto::{SharedSecret, srp};
use crate::wire::Writer;

/// Something a request may be about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    PairSetup,
    PairVerify,
    Pairings,
    Identify,
    Accessories,
    ReadCharacteristics,
    WriteCharacteristics,
    Prepare,
    Resource,
}

/// Room for a reply of pair-setup or pair-verify: M2 has a public key of 384 bytes.
const PAIR_REPLY_MAX: usize = 1024;

/// A request that is about nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unknown {
    Path,
    Method,
}

impl Unknown {
    pub fn reply(self) -> Reply {
        match self {
            Unknown::Path => Reply::status(404, Status::DoesNotExist),
            Unknown::Method => Reply::empty(405),
        }
    }
}

/// What a request is about.
///
/// # Errors
/// When it is about nothing.
pub(super) fn find(method: &str, path: &str) -> Result<Endpoint, Unknown> {
    let by_method: &[(&str, Endpoint)] = match path {
        "/pair-setup" => &[("POST", Endpoint::PairSetup)],
        "/pair-verify" => &[("POST", Endpoint::PairVerify)],
        "/pairings" => &[("POST", Endpoint::Pairings)],
        "/identify" => &[("POST", Endpoint::Identify)],
        "/accessories" => &[("GET", Endpoint::Accessories)],
        "/characteristics" => &[("GET", Endpoint::ReadCharacteristics), ("PUT", Endpoint::WriteCharacteristics)],
        "/prepare" => &[("PUT", Endpoint::Prepare)],
        "/resource" => &[("POST", Endpoint::Resource)],
        _ => return Err(Unknown::Path),
    };
    let endpoint = by_method.iter().find(|(name, _)| *name == method).map(|(_, endpoint)| *endpoint);
    endpoint.ok_or(Unknown::Method)
}

/// A verified controller that asks for something.
pub(super) struct Verified<'a> {
    pub id: ConnectionId,
    pub controller: &'a ControllerId,
    pub admin: bool,
    pub shared: &'a SharedSecret,
    pub subscriptions: &'a mut Subscriptions,
    pub timed: &'a mut Option<Timed>,
}

fn bad_request() -> Outcome {
    Outcome::Reply(Reply::status(400, Status::InvalidValue))
}

/// The request is legal, but not on a connection in this state.
fn wrong_state() -> Outcome {
    Outcome::Reply(Reply::status(400, Status::NotAllowedNow))
}

impl Accessory {
    /// Answers a request of a controller that is not verified.
    pub(super) fn answer_plain(
        &mut self,
        endpoint: Endpoint,
        id: ConnectionId,
        verify: &mut Verify,
        body: &[u8],
        s: &mut Surroundings<'_>,
    ) -> Outcome {
        let mut buf = [0; PAIR_REPLY_MAX];
        let mut w = Writer::new(&mut buf);
        match endpoint {
            Endpoint::PairSetup => {
                let mut context = Context { identity: &self.identity, pairings: &mut self.pairings, random: s.random };
                let tries = self.setup.tries();
                let outcome = self.setup.handle(id, body, s.now, &mut context, &mut w);
                self.setup_outcome(outcome, tries, w.written())
            }
            Endpoint::PairVerify => {
                let mut context = Context { identity: &self.identity, pairings: &mut self.pairings, random: s.random };
                match verify.handle(body, &mut context, &mut w) {
                    VerifyOutcome::Reply => Outcome::Reply(Reply::tlv8(w.written())),
                    VerifyOutcome::BadRequest => bad_request(),
                    VerifyOutcome::Verified { controller, shared } => {
                        Outcome::Verified { reply: Reply::tlv8(w.written()), controller, shared }
                    }
                }
            }
            Endpoint::Identify => self.answer_identify(),
            Endpoint::Pairings
            | Endpoint::Accessories
            | Endpoint::ReadCharacteristics
            | Endpoint::WriteCharacteristics
            | Endpoint::Prepare
            | Endpoint::Resource => Outcome::Reply(Reply::status(470, Status::InsufficientPrivileges)),
        }
    }

    /// Answers a request of a verified controller.
    pub(super) fn answer_verified(
        &mut self,
        endpoint: Endpoint,
        by: Verified<'_>,
        query: &str,
        body: &[u8],
        s: &mut Surroundings<'_>,
    ) -> Outcome {
        let reply = match endpoint {
            Endpoint::PairSetup | Endpoint::PairVerify => return wrong_state(),
            Endpoint::Pairings => return self.answer_pairings(by.admin, body),
            Endpoint::Identify => return self.answer_identify(),
            Endpoint::Accessories => characteristics::accessories(&self.state, by.id),
            Endpoint::ReadCharacteristics => characteristics::read(query, &self.state, by.subscriptions, by.id),
            Endpoint::Prepare => characteristics::prepare(body, s.now, by.timed),
            Endpoint::WriteCharacteristics => {
                let mut caller = Caller {
                    connection: by.id,
                    controller: by.controller,
                    shared: by.shared,
                    data_streams: s.data_streams,
                    live_views: s.live_views,
                };
                let (state, subscriptions) = (&mut self.state, by.subscriptions);
                let reply = characteristics::write(body, by.admin, s.now, by.timed, state, subscriptions, &mut caller);
                if self.state.take_unsaved() {
                    return Outcome::Store { reply, files: &[Stored::Camera], then: Then::Nothing };
                }
                reply
            }
            Endpoint::Resource => match resource::handle(body, &self.state) {
                Ok(resource::Snapshot { width, height, reason }) => {
                    self.state.effect(Effect::Snapshot { connection: by.id, width, height, reason });
                    return Outcome::Snapshot;
                }
                Err(resource::Refused { http, status }) => Reply::status(http, status),
            },
        };
        Outcome::Reply(reply)
    }

    /// Anybody may ask an unpaired accessory which one it is; paired ones have a characteristic.
    fn answer_identify(&mut self) -> Outcome {
        if self.is_paired() {
            return Outcome::Reply(Reply::status(400, Status::InsufficientPrivileges));
        }
        self.state.effect(Effect::Identify);
        Outcome::Reply(Reply::empty(204))
    }

    pub(super) fn setup_computed(&mut self, id: ConnectionId, done: srp::Done, s: &mut Surroundings<'_>) -> Outcome {
        let mut buf = [0; PAIR_REPLY_MAX];
        let mut w = Writer::new(&mut buf);
        let tries = self.setup.tries();
        let outcome = self.setup.handle_computed(id, done, s.now, &mut w);
        self.setup_outcome(outcome, tries, w.written())
    }

    fn setup_outcome(&mut self, outcome: pairing::Outcome, tries_before: u8, reply: &[u8]) -> Outcome {
        let reply = || Reply::tlv8(reply);
        match outcome {
            pairing::Outcome::Reply => Outcome::Reply(reply()),
            pairing::Outcome::Compute(job) => Outcome::Compute(job),
            pairing::Outcome::Paired => {
                self.pairings_epoch = self.pairings_epoch.wrapping_add(1);
                let files: &[Stored] = match self.setup.tries() == tries_before {
                    true => &[Stored::Pairings],
                    false => &[Stored::Pairings, Stored::Tries],
                };
                Outcome::Store { reply: reply(), files, then: Then::Paired }
            }
            pairing::Outcome::TriesChanged => {
                Outcome::Store { reply: reply(), files: &[Stored::Tries], then: Then::Nothing }
            }
            pairing::Outcome::BadRequest => bad_request(),
        }
    }
}
