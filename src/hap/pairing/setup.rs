//! Pair-setup: a controller that knows the setup code becomes the first admin (HAP R2 §5.6).

use super::{Context, Error, Pairing, controller_id, refuse, stored, tag};
use crate::crypto::aead::{TAG, open_labelled, seal_labelled};
use crate::crypto::srp::{Answer, Done, ELEMENT, Ephemeral, Job, Verifier};
use crate::crypto::{Secret, hkdf_sha512, verify};
use crate::hap::ConnectionId;
use crate::time::{Duration, Instant};
use crate::wire::{Malformed, Writer, tlv8};

/// Wrong setup codes until the accessory wants a factory reset (HAP R2 §5.6.2).
pub const MAX_TRIES: u8 = 100;

/// A procedure whose connection is silent for so long gives way to another's.
const SILENCE: Duration = Duration::from_secs(30);

/// Proofs are checked, and key pairs made for an M1, no faster than this.
const INTERVAL: Duration = Duration::from_secs(1);

/// The pair-setup of the accessory: one procedure at a time, whatever the number of connections.
#[derive(Debug, Default)]
pub struct Setup {
    /// Wrong setup codes since the last success.
    tries: u8,
    /// Kept over restarts of the procedure, dropped once paired.
    verifier: Option<Verifier>,
    /// Computed ahead of the next M1.
    ahead: Option<Ephemeral>,
    procedure: Option<Procedure>,
    /// The ticket of the job that is out for the current procedure or for [`Setup::prepare`].
    ticket: u32,
    proofs: Pace,
    key_pairs: Pace,
}

#[derive(Debug)]
struct Procedure {
    who: ConnectionId,
    heard: Instant,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// M1 was received, B is being computed.
    Preparing,
    AwaitM3(Box<Ephemeral>),
    /// M3 was received, its proof is being checked.
    Proving,
    AwaitM5 {
        /// K of SRP.
        key: Secret<64>,
    },
}

/// What a request to `/pair-setup` came to. Except for `Compute` and `BadRequest` the reply was
/// appended to the writer.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing that lasts has changed.
    Reply,
    /// No reply yet. Run the job, not before [`Job::not_before`] and not on the event loop, and give
    /// what comes out to [`Setup::handle_computed`]. A job whose connection closes before that moment
    /// is dropped, so that there are never more of them than connections.
    Compute(Job),
    /// The reply is M6. The pairings have changed, and the count of tries if there were any: both must
    /// be durable before it leaves; if that fails, call [`Setup::not_stored`] instead.
    Paired,
    /// A setup code was wrong: the count of tries must be durable before the reply leaves.
    TriesChanged,
    /// Malformed: HTTP 400.
    BadRequest,
}

impl Setup {
    /// With the tries that were counted before the restart.
    pub fn new(tries: u8) -> Self {
        Setup { tries, ..Self::default() }
    }

    /// Wrong setup codes since the last success or factory reset.
    pub fn tries(&self) -> u8 {
        self.tries
    }

    /// Writes the count of tries for the store.
    pub fn emit(&self, out: &mut Writer<'_>) {
        tlv8::put_u8(out, stored::FORMAT, stored::VERSION);
        tlv8::put_u8(out, stored::TRIES, self.tries);
    }

    /// Reads what [`Setup::emit`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        stored::check(bytes)?;
        let tries = tlv8::find(bytes, stored::TRIES)?.and_then(|v| v.uint());
        tries.and_then(|n| u8::try_from(n).ok()).map(Self::new).ok_or(Malformed("no count of tries"))
    }

    /// Work that can be done ahead, so that the first M1 is answered at once: at start and after the
    /// last pairing is gone. Give what comes out to [`Setup::handle_prepared`]. `None` when there is
    /// nothing to do.
    pub fn prepare(&mut self, ctx: &mut Context<'_>) -> Option<Job> {
        let idle = ctx.pairings.is_empty() && self.procedure.is_none() && self.ahead.is_none();
        idle.then(|| self.prepare_job(ctx))
    }

    /// Takes the result of [`Setup::prepare`], or of a procedure that has ended meanwhile.
    pub fn handle_prepared(&mut self, done: Done) {
        // A procedure that began meanwhile waits for a job of its own.
        if let (true, Answer::Prepared(prepared)) = (done.ticket == self.ticket, done.answer) {
            let (verifier, ephemeral) = *prepared;
            self.verifier = Some(verifier);
            self.ahead = Some(ephemeral);
        }
    }

    /// Answers M1, M3 or M5 of the connection `who`. Method 1 is answered like method 0, without a
    /// certificate; Flags are not looked at.
    pub fn handle(
        &mut self,
        who: ConnectionId,
        request: &[u8],
        now: Instant,
        ctx: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Outcome {
        let state = tlv8::find(request, tag::STATE).map(|v| v.and_then(|v| v.uint()));
        let outcome = match state {
            Ok(Some(1)) => Ok(self.handle_m1(who, now, ctx, out)),
            Ok(Some(3)) => self.handle_m3(who, request, now, out),
            Ok(Some(5)) => self.handle_m5(who, request, ctx, out),
            Ok(_) => Err(Malformed("not a state of pair-setup")),
            Err(malformed) => Err(malformed),
        };
        outcome.unwrap_or_else(|_| {
            self.handle_closed(who);
            Outcome::BadRequest
        })
    }

    /// Takes what came out of the job of `who` and writes the reply it was waiting for. May also be
    /// called when the connection is gone: then only what is of further use is kept.
    pub fn handle_computed(&mut self, who: ConnectionId, done: Done, now: Instant, out: &mut Writer<'_>) -> Outcome {
        let ours = done.ticket == self.ticket && self.procedure.as_ref().is_some_and(|p| p.who == who);
        let state = if matches!(done.answer, Answer::Prepared(_)) { 2 } else { 4 };
        match (ours, self.procedure.take_if(|_| ours).map(|p| p.step), done.answer) {
            (true, Some(Step::Preparing), Answer::Prepared(prepared)) => {
                let (verifier, ephemeral) = *prepared;
                self.send_m2(who, verifier, ephemeral, now, out);
                Outcome::Reply
            }
            (true, Some(Step::Proving), Answer::Proved(Some(proved))) => {
                tlv8::put_u8(out, tag::STATE, 4);
                tlv8::put(out, tag::PROOF, &proved.proof);
                self.procedure = Some(Procedure { who, heard: now, step: Step::AwaitM5 { key: proved.key } });
                Outcome::Reply
            }
            (true, Some(Step::Proving), Answer::Proved(None)) => {
                self.tries = self.tries.saturating_add(1);
                refuse(out, 4, Error::Authentication);
                Outcome::TriesChanged
            }
            (_, _, answer) => {
                self.handle_prepared(Done { ticket: done.ticket, answer });
                refuse(out, state, Error::Unknown);
                Outcome::Reply
            }
        }
    }

    /// Drops the procedure of a connection that is gone.
    pub fn handle_closed(&mut self, who: ConnectionId) {
        self.procedure.take_if(|p| p.who == who);
    }

    /// The pairing that [`Outcome::Paired`] told of could not be stored: forgets it and replies so.
    pub fn not_stored(&mut self, ctx: &mut Context<'_>, out: &mut Writer<'_>) {
        ctx.pairings.clear();
        refuse(out, 6, Error::Unknown);
    }

    /// Factory reset: no tries, no procedure, a new salt.
    pub fn reset(&mut self) {
        // The ticket goes on, so that a job that is out finds nobody waiting.
        *self = Setup { ticket: self.ticket.wrapping_add(1), ..Self::default() };
    }

    fn handle_m1(&mut self, who: ConnectionId, now: Instant, ctx: &mut Context<'_>, out: &mut Writer<'_>) -> Outcome {
        let busy = self.procedure.as_ref().is_some_and(|p| p.who != who && now < p.heard + SILENCE);
        let error = match (ctx.pairings.is_empty(), self.tries < MAX_TRIES, busy) {
            (false, ..) => Error::Unavailable,
            (_, false, _) => Error::MaxTries,
            (.., true) => Error::Busy,
            _ => {
                return match (self.verifier.take(), self.ahead.take()) {
                    (Some(verifier), Some(ephemeral)) => {
                        self.send_m2(who, verifier, ephemeral, now, out);
                        Outcome::Reply
                    }
                    (verifier, _) => {
                        self.verifier = verifier;
                        self.procedure = Some(Procedure { who, heard: now, step: Step::Preparing });
                        let mut job = self.prepare_job(ctx);
                        job.not_before = self.key_pairs.next(now);
                        Outcome::Compute(job)
                    }
                };
            }
        };
        refuse(out, 2, error);
        Outcome::Reply
    }

    fn prepare_job(&mut self, ctx: &mut Context<'_>) -> Job {
        let verifier = self.verifier.get_or_insert_with(|| {
            let mut salt = [0; 16];
            ctx.random.fill(&mut salt);
            Verifier::new(salt, ctx.identity.setup_code.as_str().as_bytes())
        });
        let mut b = Secret::new([0; 32]);
        ctx.random.fill(b.as_mut_bytes());
        self.ticket = self.ticket.wrapping_add(1);
        Job::prepare(self.ticket, verifier.clone(), b)
    }

    fn send_m2(
        &mut self,
        who: ConnectionId,
        verifier: Verifier,
        ephemeral: Ephemeral,
        now: Instant,
        out: &mut Writer<'_>,
    ) {
        tlv8::put_u8(out, tag::STATE, 2);
        tlv8::put(out, tag::PUBLIC_KEY, ephemeral.public());
        tlv8::put(out, tag::SALT, verifier.salt());
        self.verifier = Some(verifier);
        self.procedure = Some(Procedure { who, heard: now, step: Step::AwaitM3(Box::new(ephemeral)) });
    }

    fn handle_m3(
        &mut self,
        who: ConnectionId,
        request: &[u8],
        now: Instant,
        out: &mut Writer<'_>,
    ) -> Result<Outcome, Malformed> {
        let step = self.procedure.take_if(|p| p.who == who).map(|p| p.step);
        let (Some(Step::AwaitM3(ephemeral)), Some(verifier)) = (step, &self.verifier) else {
            refuse(out, 4, Error::Unknown);
            return Ok(Outcome::Reply);
        };
        let a = tlv8::find(request, tag::PUBLIC_KEY)?.ok_or(Malformed("no public key"))?;
        let proof =
            tlv8::find(request, tag::PROOF)?.and_then(|v| v.array()).ok_or(Malformed("no proof of 64 bytes"))?;
        let mut buf = [0; ELEMENT];
        self.ticket = self.ticket.wrapping_add(1);
        let job = a
            .copy_to(&mut buf)
            .and_then(|len| Job::prove(self.ticket, verifier.clone(), *ephemeral, &buf[..len], proof));
        let Some(mut job) = job else {
            refuse(out, 4, Error::Authentication);
            return Ok(Outcome::Reply);
        };
        job.not_before = self.proofs.next(now);
        self.procedure = Some(Procedure { who, heard: now, step: Step::Proving });
        Ok(Outcome::Compute(job))
    }

    fn handle_m5(
        &mut self,
        who: ConnectionId,
        request: &[u8],
        ctx: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Result<Outcome, Malformed> {
        let step = self.procedure.take_if(|p| p.who == who).map(|p| p.step);
        let Some(Step::AwaitM5 { key }) = step else {
            refuse(out, 6, Error::Unknown);
            return Ok(Outcome::Reply);
        };
        let sealed = tlv8::find(request, tag::ENCRYPTED_DATA)?.ok_or(Malformed("no encrypted data"))?;
        let Some(pairing) = exchange(sealed, &key) else {
            refuse(out, 6, Error::Authentication);
            return Ok(Outcome::Reply);
        };
        // M1 has seen to it that nobody is paired, and nobody can be added without an admin.
        if ctx.pairings.add(pairing).is_err() {
            refuse(out, 6, Error::MaxPeers);
            return Ok(Outcome::Reply);
        }
        send_m6(&key, ctx, out);
        self.reset();
        Ok(Outcome::Paired)
    }
}

/// Spaces the work that a peer can ask for.
#[derive(Debug, Default)]
struct Pace {
    next: Instant,
}

impl Pace {
    /// When what is asked for `now` may start. Who waits for each answer is never further behind than
    /// one interval. Who closes and comes back instead learns nothing, and must not pile up a delay
    /// for others.
    fn next(&mut self, now: Instant) -> Instant {
        let start = self.next.clamp(now, now + INTERVAL);
        self.next = start + INTERVAL;
        start
    }
}

/// Room for the sub-TLV of M5: 138 bytes with an id of 36, and some for items we do not know.
const SUB_TLV: usize = 256 + TAG;

/// The controller that introduces itself in M5, if its signature is right. It becomes admin.
fn exchange(sealed: tlv8::Value<'_>, key: &Secret<64>) -> Option<Pairing> {
    let session = session_key(key);
    let mut buf = [0; SUB_TLV];
    let len = sealed.copy_to(&mut buf)?;
    let text = open_labelled(&session, b"PS-Msg05", &mut buf[..len])?;
    let find = |tag| tlv8::find(text, tag).ok().flatten();
    let id = controller_id(find(tag::IDENTIFIER)?)?;
    let public: [u8; 32] = find(tag::PUBLIC_KEY)?.array()?;
    let signature: [u8; 64] = find(tag::SIGNATURE)?.array()?;
    let x = hkdf_sha512(key.as_bytes(), b"Pair-Setup-Controller-Sign-Salt", b"Pair-Setup-Controller-Sign-Info");
    let mut message = [0; 32 + 36 + 32];
    let mut message = Writer::new(&mut message);
    message.bytes(x.as_bytes());
    message.bytes(&id);
    message.bytes(&public);
    verify(&public, message.written(), &signature).then_some(Pairing { id, public, admin: true })
}

/// The accessory introduces itself.
fn send_m6(key: &Secret<64>, ctx: &Context<'_>, out: &mut Writer<'_>) {
    let device_id = ctx.identity.device_id.as_str().as_bytes();
    let public = ctx.identity.signing.public();
    let x = hkdf_sha512(key.as_bytes(), b"Pair-Setup-Accessory-Sign-Salt", b"Pair-Setup-Accessory-Sign-Info");
    let mut message = [0; 32 + 17 + 32];
    let mut message = Writer::new(&mut message);
    message.bytes(x.as_bytes());
    message.bytes(device_id);
    message.bytes(&public);
    let signature = ctx.identity.signing.sign(message.written());
    tlv8::put_u8(out, tag::STATE, 6);
    tlv8::nested(out, tag::ENCRYPTED_DATA, |w| {
        let start = w.len();
        tlv8::put(w, tag::IDENTIFIER, device_id);
        tlv8::put(w, tag::PUBLIC_KEY, &public);
        tlv8::put(w, tag::SIGNATURE, &signature);
        let sealed = seal_labelled(&session_key(key), b"PS-Msg06", &mut w.written_mut()[start..]);
        w.bytes(&sealed);
    });
}

fn session_key(key: &Secret<64>) -> crate::crypto::Key {
    hkdf_sha512(key.as_bytes(), b"Pair-Setup-Encrypt-Salt", b"Pair-Setup-Encrypt-Info")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{controller, identity};
    use super::super::{Identity, Pairings};
    use super::*;
    use crate::crypto::Key;
    use crate::crypto::fixed::{FixedRandom, array, hex, vectors};
    use heapless::Vec;
    use serde_json::Value;

    /// An accessory with the randomness of the vectors, and what it answers.
    struct Rig {
        v: Value,
        identity: Identity,
        pairings: Pairings,
        random: FixedRandom,
        setup: Setup,
        now: Instant,
        reply: std::vec::Vec<u8>,
    }

    impl Rig {
        fn new() -> Self {
            let v = vectors("pair_setup");
            let random = FixedRandom::new(&[hex(&v["salt"]), hex(&v["b"])]);
            let (identity, pairings) = (identity(), Pairings::new());
            Rig { v, identity, pairings, random, setup: Setup::new(0), now: Instant::ZERO, reply: vec![] }
        }

        fn call<R>(&mut self, f: impl FnOnce(&mut Setup, Instant, &mut Context<'_>, &mut Writer<'_>) -> R) -> R {
            let mut buf = [0; 1024];
            let mut out = Writer::new(&mut buf);
            let Rig { identity, pairings, random, .. } = self;
            let result = f(&mut self.setup, self.now, &mut Context { identity, pairings, random }, &mut out);
            self.reply = out.finish().unwrap().to_vec();
            result
        }

        /// One request, without doing the work it asks for.
        fn ask(&mut self, who: ConnectionId, request: &[u8]) -> Outcome {
            self.call(|setup, now, ctx, out| setup.handle(who, request, now, ctx, out))
        }

        /// One request, and the work it asks for.
        fn send(&mut self, who: ConnectionId, request: &[u8]) -> Outcome {
            match self.ask(who, request) {
                Outcome::Compute(job) => {
                    assert!(self.reply.is_empty());
                    let done = job.run();
                    self.call(|setup, now, _, out| setup.handle_computed(who, done, now, out))
                }
                outcome => outcome,
            }
        }

        fn vector(&self, name: &str) -> std::vec::Vec<u8> {
            hex(&self.v[name])
        }

        fn error(&self, name: &str) -> std::vec::Vec<u8> {
            hex(&self.v["errors"][name])
        }

        /// Up to M4, as the controller of the vectors does.
        fn up_to_m4(&mut self, who: ConnectionId) {
            assert!(matches!(self.send(who, &self.vector("m1")), Outcome::Reply));
            assert_eq!(self.reply, self.vector("m2"));
            assert!(matches!(self.send(who, &self.vector("m3")), Outcome::Reply));
            assert_eq!(self.reply, self.vector("m4"));
        }

        /// Where M4 leaves the procedure, without the work.
        fn at_m5(who: ConnectionId) -> Self {
            let mut rig = Rig::new();
            let step = Step::AwaitM5 { key: Secret::new(array(&rig.v["K"])) };
            rig.setup.procedure = Some(Procedure { who, heard: rig.now, step });
            rig
        }

        fn expect(&mut self, who: ConnectionId, request: &[u8], reply: &[u8]) {
            assert!(matches!(self.send(who, request), Outcome::Reply));
            assert_eq!(self.reply, reply);
        }

        /// M3 with a proof of another setup code.
        fn wrong_m3(&self) -> std::vec::Vec<u8> {
            let mut m3 = self.vector("m3");
            *m3.last_mut().unwrap() ^= 1;
            m3
        }
    }

    #[test]
    fn pairs_byte_for_byte_as_in_the_vectors() {
        let mut rig = Rig::new();
        rig.up_to_m4(5);
        assert!(matches!(rig.send(5, &rig.vector("m5")), Outcome::Paired));
        assert_eq!(rig.reply, rig.vector("m6"));
        assert_eq!(rig.pairings.iter().collect::<std::vec::Vec<_>>(), [&controller(&rig.v["controller"])]);
        // Nothing of the setup code is kept.
        assert!(rig.setup.verifier.is_none() && rig.setup.procedure.is_none());
        rig.expect(5, &rig.vector("m1"), &rig.error("already_paired"));
        rig.expect(6, &rig.vector("m1"), &rig.error("already_paired"));
    }

    #[test]
    fn flags_and_method_1_change_nothing() {
        for m1 in [hex(&Rig::new().v["m1_with_split_transient_flags"]), vec![6, 1, 1, 0, 1, 1], vec![6, 1, 1]] {
            let mut rig = Rig::new();
            rig.expect(1, &m1, &rig.vector("m2"));
        }
    }

    #[test]
    fn what_was_computed_ahead_is_sent_at_once() {
        let mut rig = Rig::new();
        let job = rig.call(|setup, _, ctx, _| setup.prepare(ctx)).unwrap();
        rig.setup.handle_prepared(job.run());
        assert!(rig.call(|setup, _, ctx, _| setup.prepare(ctx)).is_none());
        assert!(matches!(rig.ask(1, &rig.vector("m1")), Outcome::Reply));
        assert_eq!(rig.reply, rig.vector("m2"));
        // One b serves one procedure.
        assert!(matches!(rig.ask(1, &rig.vector("m1")), Outcome::Compute(_)));
    }

    #[test]
    fn a_restart_keeps_the_salt_and_draws_a_new_b() {
        let mut rig = Rig::new();
        rig.send(1, &rig.vector("m1"));
        let first = rig.reply.clone();
        rig.send(1, &rig.vector("m1"));
        let find = |reply: &[u8], tag| {
            let mut value = vec![0; 384];
            let len = tlv8::find(reply, tag).unwrap().unwrap().copy_to(&mut value).unwrap();
            value.truncate(len);
            value
        };
        assert_eq!(find(&rig.reply, tag::SALT), find(&first, tag::SALT));
        assert_ne!(find(&rig.reply, tag::PUBLIC_KEY), find(&first, tag::PUBLIC_KEY));
    }

    #[test]
    fn a_wrong_code_counts_and_ends_the_procedure() {
        let mut rig = Rig::new();
        rig.send(1, &rig.vector("m1"));
        assert!(matches!(rig.send(1, &rig.wrong_m3()), Outcome::TriesChanged));
        assert_eq!(rig.reply, rig.error("wrong_code"));
        assert_eq!(rig.setup.tries(), 1);
        // The right proof comes too late: it needs a new M1.
        rig.expect(1, &rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
        // The user types again, on the same connection.
        rig.random.pieces.push_back(rig.vector("b"));
        rig.up_to_m4(1);
        assert!(matches!(rig.send(1, &rig.vector("m5")), Outcome::Paired));
        assert_eq!(rig.setup.tries(), 0);
    }

    #[test]
    fn a_hundred_tries_are_the_end_even_over_a_restart() {
        let mut rig = Rig::new();
        rig.setup = Setup::new(99);
        rig.send(1, &rig.vector("m1"));
        rig.send(1, &rig.wrong_m3());
        let mut buf = [0; 16];
        let mut out = Writer::new(&mut buf);
        rig.setup.emit(&mut out);
        rig.setup = Setup::parse(out.written()).unwrap();
        rig.expect(1, &rig.vector("m1"), &rig.error("max_tries"));
        rig.setup.reset();
        assert!(matches!(rig.ask(1, &rig.vector("m1")), Outcome::Compute(_)));
        for cut in 0..6 {
            assert!(Setup::parse(&[0xf0, 1, 1, 0xf4, 1, 7][..cut]).is_err());
        }
    }

    #[test]
    fn a_second_connection_waits_for_the_first() {
        let mut rig = Rig::new();
        rig.send(1, &rig.vector("m1"));
        rig.now += SILENCE - Duration::from_micros(1);
        rig.expect(2, &rig.vector("m1"), &rig.error("busy"));
        // And has not disturbed it, not even with messages out of order or malformed.
        rig.expect(2, &rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
        assert!(matches!(rig.send(2, &[6]), Outcome::BadRequest));
        rig.send(1, &rig.vector("m3"));
        assert_eq!(rig.reply, rig.vector("m4"));
        // M3 was heard: the silence starts anew.
        rig.now += SILENCE - Duration::from_micros(1);
        rig.expect(2, &rig.vector("m1"), &rig.error("busy"));
        rig.now += Duration::from_micros(1);
        assert!(matches!(rig.send(2, &rig.vector("m1")), Outcome::Reply));
        assert_eq!(rig.reply[..4], [6, 1, 2, 3]);
        rig.expect(1, &rig.vector("m5"), &[6, 1, 6, 7, 1, 1]);
    }

    #[test]
    fn a_closed_connection_frees_the_procedure() {
        let mut rig = Rig::new();
        rig.send(1, &rig.vector("m1"));
        rig.setup.handle_closed(9);
        rig.expect(2, &rig.vector("m1"), &rig.error("busy"));
        rig.setup.handle_closed(1);
        assert!(matches!(rig.ask(2, &rig.vector("m1")), Outcome::Compute(_)));
    }

    #[test]
    fn work_for_a_closed_connection_is_kept_for_the_next() {
        let mut rig = Rig::new();
        let Outcome::Compute(job) = rig.ask(1, &rig.vector("m1")) else { panic!() };
        rig.setup.handle_closed(1);
        rig.call(|setup, now, _, out| setup.handle_computed(1, job.run(), now, out));
        assert_eq!(rig.reply, [6, 1, 2, 7, 1, 1]);
        assert!(matches!(rig.ask(2, &rig.vector("m1")), Outcome::Reply));
        assert_eq!(rig.reply, rig.vector("m2"));
    }

    #[test]
    fn a_late_proof_helps_nobody() {
        let mut rig = Rig::new();
        rig.send(1, &rig.vector("m1"));
        let Outcome::Compute(job) = rig.ask(1, &rig.vector("m3")) else { panic!() };
        rig.setup.handle_closed(1);
        let Outcome::Compute(other) = rig.ask(2, &rig.vector("m1")) else { panic!() };
        let done = job.run();
        assert!(matches!(done.answer, Answer::Proved(Some(_))));
        rig.call(|setup, now, _, out| setup.handle_computed(1, done, now, out));
        assert_eq!(rig.reply, [6, 1, 4, 7, 1, 1]);
        // The one that waits gets its own.
        rig.call(|setup, now, _, out| setup.handle_computed(2, other.run(), now, out));
        assert_eq!(rig.reply[..4], [6, 1, 2, 3]);
        rig.expect(1, &rig.vector("m5"), &[6, 1, 6, 7, 1, 1]);
    }

    #[test]
    fn a_reset_makes_work_that_is_out_worthless() {
        let mut rig = Rig::new();
        let job = rig.call(|setup, _, ctx, _| setup.prepare(ctx)).unwrap();
        rig.setup.reset();
        rig.setup.handle_prepared(job.run());
        assert!(rig.setup.ahead.is_none() && rig.setup.verifier.is_none());
    }

    #[test]
    fn proofs_are_checked_once_a_second() {
        let mut rig = Rig::new();
        let second = Duration::from_secs(1);
        rig.now = Instant::ZERO + 5 * second;
        let start = rig.now;
        for wait in [0, 1, 1, 1] {
            let before = rig.now;
            rig.send(1, &rig.vector("m1"));
            let Outcome::Compute(job) = rig.ask(1, &rig.wrong_m3()) else { panic!() };
            rig.now = job.not_before;
            assert_eq!(rig.now, before + wait * second);
            let done = job.run();
            assert!(matches!(rig.call(|s, now, _, out| s.handle_computed(1, done, now, out)), Outcome::TriesChanged));
        }
        assert_eq!(rig.now, start + 3 * second);
        rig.now += 60 * second;
        rig.send(1, &rig.vector("m1"));
        let Outcome::Compute(job) = rig.ask(1, &rig.wrong_m3()) else { panic!() };
        assert_eq!(job.not_before, rig.now);
    }

    #[test]
    fn key_pairs_are_made_once_a_second() {
        let mut rig = Rig::new();
        for (who, wait) in [(1, 0), (2, 1), (3, 1)] {
            let before = rig.now;
            let Outcome::Compute(job) = rig.ask(who, &rig.vector("m1")) else { panic!() };
            assert_eq!(job.not_before, before + wait * INTERVAL);
            rig.now = job.not_before;
            rig.setup.handle_closed(who);
        }
    }

    #[test]
    fn proofs_nobody_waits_for_delay_nobody() {
        let mut rig = Rig::new();
        for who in 1..6 {
            rig.send(who, &rig.vector("m1"));
            let Outcome::Compute(job) = rig.ask(who, &rig.wrong_m3()) else { panic!() };
            assert!(job.not_before <= rig.now + INTERVAL);
            rig.setup.handle_closed(who);
        }
    }

    #[test]
    fn messages_out_of_order_are_refused() {
        let mut rig = Rig::new();
        rig.expect(1, &rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
        rig.expect(1, &rig.vector("m5"), &[6, 1, 6, 7, 1, 1]);
        rig.send(1, &rig.vector("m1"));
        rig.expect(1, &rig.vector("m5"), &[6, 1, 6, 7, 1, 1]);
        // That was the end of it.
        rig.expect(1, &rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
    }

    #[test]
    fn an_illegal_public_key_is_refused() {
        let (zero, n) = ([0; 384], hex(&vectors("srp")["N"]));
        for a in [&zero[..], &n, &[0], &[], &[1; 385], &[1; 700]] {
            let mut rig = Rig::new();
            rig.send(1, &rig.vector("m1"));
            let mut buf = [0; 1024];
            let mut m3 = Writer::new(&mut buf);
            tlv8::put_u8(&mut m3, tag::STATE, 3);
            tlv8::put(&mut m3, tag::PUBLIC_KEY, a);
            tlv8::put(&mut m3, tag::PROOF, &[0; 64]);
            rig.send(1, m3.written());
            assert_eq!(rig.reply, rig.error("wrong_code"), "{} bytes", a.len());
        }
    }

    #[test]
    fn malformed_messages_end_the_procedure() {
        let m3 = Rig::new().vector("m3");
        let short_proof = [&m3[..m3.len() - 65], &[63], &m3[m3.len() - 63..]].concat();
        let no_proof = m3[..m3.len() - 66].to_vec();
        let no_key = [&m3[..3], &m3[m3.len() - 66..]].concat();
        for bad in [short_proof, no_proof, no_key, vec![], vec![6, 1, 2], vec![6, 0], vec![6, 1, 3, 3, 9, 1]] {
            let mut rig = Rig::new();
            rig.send(1, &rig.vector("m1"));
            assert!(matches!(rig.send(1, &bad), Outcome::BadRequest), "{bad:02x?}");
            assert!(rig.setup.procedure.is_none());
            assert_eq!(rig.setup.tries(), 0);
        }
        let mut rig = Rig::at_m5(1);
        assert!(matches!(rig.send(1, &[6, 1, 5]), Outcome::BadRequest));
        assert!(rig.setup.procedure.is_none());
    }

    /// M5 with another sub-TLV, sealed with the right key.
    fn m5(rig: &Rig, text: &[u8]) -> std::vec::Vec<u8> {
        let mut sealed = text.to_vec();
        let tag = seal_labelled(&Key::new(array(&rig.v["session_key"])), b"PS-Msg05", &mut sealed);
        sealed.extend(tag);
        let mut buf = [0; 1024];
        let mut out = Writer::new(&mut buf);
        tlv8::put_u8(&mut out, tag::STATE, 5);
        tlv8::put(&mut out, tag::ENCRYPTED_DATA, &sealed);
        out.written().to_vec()
    }

    #[test]
    fn a_bad_m5_pairs_nobody() {
        let text = Rig::new().vector("m5_sub_tlv");
        let mut texts: std::vec::Vec<std::vec::Vec<u8>> = (0..text.len()).map(|cut| text[..cut].to_vec()).collect();
        let mut other_key = text.clone();
        other_key[45] ^= 1;
        let mut other_signature = text.clone();
        *other_signature.last_mut().unwrap() ^= 1;
        let mut other_id = text.clone();
        other_id[2] = b'X';
        let long_id = [&[1, 37][..], &[b'a'; 37], &text[38..]].concat();
        let long = [&text[..], &[0x77, 255], &[0; 255]].concat();
        texts.extend([other_key, other_signature, other_id, long_id, long]);
        for text in &texts {
            let mut rig = Rig::at_m5(1);
            rig.expect(1, &m5(&rig, text), &rig.error("m5_bad"));
            assert!(rig.pairings.is_empty() && rig.setup.procedure.is_none());
        }
        let mut rig = Rig::at_m5(1);
        let mut bad_tag = rig.vector("m5");
        *bad_tag.last_mut().unwrap() ^= 1;
        rig.expect(1, &bad_tag, &rig.error("m5_bad"));
    }

    #[test]
    fn unknown_items_in_m5_are_ignored() {
        let mut rig = Rig::at_m5(1);
        let text = [&[0x55, 1, 0][..], &rig.vector("m5_sub_tlv")].concat();
        assert!(matches!(rig.send(1, &m5(&rig, &text)), Outcome::Paired));
    }

    #[test]
    fn a_full_table_is_told() {
        let mut rig = Rig::at_m5(1);
        for n in 0..super::super::MAX_PAIRINGS as u8 {
            rig.pairings.add(Pairing { id: Vec::from_slice(&[n]).unwrap(), public: [n; 32], admin: true }).unwrap();
        }
        rig.expect(1, &rig.vector("m5"), &rig.error("max_peers"));
    }

    #[test]
    fn a_pairing_that_cannot_be_stored_is_none() {
        let mut rig = Rig::at_m5(1);
        rig.send(1, &rig.vector("m5"));
        rig.call(|setup, _, ctx, out| setup.not_stored(ctx, out));
        assert_eq!(rig.reply, [6, 1, 6, 7, 1, 1]);
        assert!(rig.pairings.is_empty());
    }
}
