//! Pair-verify: a paired controller and the accessory prove who they are and agree on the secret of
//! the session (HAP R2 §5.7).

use super::{Context, ControllerId, Error, controller_id, refuse, tag};
use crate::crypto::aead::{TAG, open_labelled, seal_labelled};
use crate::crypto::{Key, SharedSecret, hkdf_sha512, verify};
use crate::wire::{Malformed, Writer, tlv8};

/// The pair-verify of one connection.
#[derive(Debug, Default)]
pub struct Verify {
    step: Step,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    AwaitM1,
    AwaitM3 {
        ours: [u8; 32],
        theirs: [u8; 32],
        shared: SharedSecret,
        key: Key,
    },
}

/// What a request to `/pair-verify` came to. Except for `BadRequest` the reply was
/// appended to the writer.
#[derive(Debug)]
pub enum VerifyOutcome {
    /// The connection stays as it is.
    Reply,
    /// The reply is M4, in the clear; everything after it, both ways, is sealed with keys from `shared`.
    Verified {
        /// Who it is; paired at this moment.
        controller: ControllerId,
        /// Root of the keys of this connection and its data streams.
        shared: SharedSecret,
    },
    /// Malformed: HTTP 400.
    BadRequest,
}

impl Verify {
    /// Waits for M1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers M1 or M3. Whatever came before, M1 starts again with a fresh key; Method is not looked
    /// at, because a full verify is a valid answer to an attempt to resume.
    pub fn handle(&mut self, request: &[u8], ctx: &mut Context<'_>, out: &mut Writer<'_>) -> VerifyOutcome {
        // Whatever this request is, what was agreed before is used up by it.
        let step = core::mem::take(&mut self.step);
        let state = tlv8::find(request, tag::STATE).map(|v| v.and_then(|v| v.uint()));
        let outcome = match (state, step) {
            (Ok(Some(1)), _) => self.start(request, ctx, out),
            (Ok(Some(3)), Step::AwaitM3 { ours, theirs, shared, key }) => finish(request, &[&theirs, &ours], &key, ctx)
                .map(|controller| match controller {
                    Some(controller) => {
                        tlv8::put_u8(out, tag::STATE, 4);
                        VerifyOutcome::Verified { controller, shared }
                    }
                    None => {
                        refuse(out, 4, Error::Authentication);
                        VerifyOutcome::Reply
                    }
                }),
            (Ok(Some(3)), Step::AwaitM1) => {
                refuse(out, 4, Error::Unknown);
                Ok(VerifyOutcome::Reply)
            }
            _ => Err(Malformed("not a state of pair-verify")),
        };
        outcome.unwrap_or(VerifyOutcome::BadRequest)
    }

    fn start(
        &mut self,
        request: &[u8],
        ctx: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Result<VerifyOutcome, Malformed> {
        let theirs: [u8; 32] =
            tlv8::find(request, tag::PUBLIC_KEY)?.and_then(|v| v.array()).ok_or(Malformed("no public key"))?;
        let Some(agreement) = ctx.random.x25519(&theirs) else {
            refuse(out, 2, Error::Authentication);
            return Ok(VerifyOutcome::Reply);
        };
        let ours = agreement.public;
        let shared = agreement.shared;
        let key = hkdf_sha512(shared.as_bytes(), b"Pair-Verify-Encrypt-Salt", b"Pair-Verify-Encrypt-Info");
        let device_id = ctx.identity.device_id.as_str().as_bytes();

        let mut message = [0; 32 + 17 + 32];
        let mut message = Writer::new(&mut message);
        message.bytes(&ours);
        message.bytes(device_id);
        message.bytes(&theirs);
        let signature = ctx.identity.signing.sign(message.written());

        tlv8::put_u8(out, tag::STATE, 2);
        tlv8::put(out, tag::PUBLIC_KEY, &ours);
        tlv8::nested(out, tag::ENCRYPTED_DATA, |w| {
            let start = w.len();
            tlv8::put(w, tag::IDENTIFIER, device_id);
            tlv8::put(w, tag::SIGNATURE, &signature);
            let sealed = seal_labelled(&key, b"PV-Msg02", &mut w.written_mut()[start..]);
            w.bytes(&sealed);
        });
        self.step = Step::AwaitM3 { ours, theirs, shared, key };
        Ok(VerifyOutcome::Reply)
    }
}

/// Room for the sub-TLV of M3: 104 bytes with an id of 36, and some for items we do not know.
const SUB_TLV: usize = 256 + TAG;

/// The controller that M3 proves to be, if it does. `ends` are the public keys, theirs first.
fn finish(
    request: &[u8],
    ends: &[&[u8; 32]; 2],
    key: &Key,
    ctx: &Context<'_>,
) -> Result<Option<ControllerId>, Malformed> {
    let sealed = tlv8::find(request, tag::ENCRYPTED_DATA)?.ok_or(Malformed("no encrypted data"))?;
    let mut buf = [0; SUB_TLV];
    let Some(len) = sealed.copy_to(&mut buf) else { return Ok(None) };
    Ok(open_labelled(key, b"PV-Msg03", &mut buf[..len]).and_then(|text| {
        let id = tlv8::find(text, tag::IDENTIFIER).ok()??;
        let id = controller_id(id)?;
        let signature: [u8; 64] = tlv8::find(text, tag::SIGNATURE).ok()??.array()?;
        let public = ctx.pairings.find(&id)?.public;
        let mut message = [0; 32 + 36 + 32];
        let mut message = Writer::new(&mut message);
        message.bytes(ends[0]);
        message.bytes(&id);
        message.bytes(ends[1]);
        verify(&public, message.written(), &signature).then_some(id)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{controller, identity};
    use super::super::{Identity, Pairings};
    use super::*;
    use crate::crypto::SigningKey;
    use crate::crypto::fixed::{FixedRandom, array, hex, vectors};
    use serde_json::Value;

    struct Rig {
        v: Value,
        identity: Identity,
        pairings: Pairings,
        random: FixedRandom,
        verify: Verify,
        reply: Vec<u8>,
    }

    impl Rig {
        fn new() -> Self {
            let v = vectors("pair_verify");
            let mut random = FixedRandom::default();
            random.agree(array(&v["accessory"]["eph_public"]), array(&v["shared_secret"]));
            let mut pairings = Pairings::new();
            pairings.add(controller(&v["controller"])).unwrap();
            Rig { v, identity: identity(), pairings, random, verify: Verify::new(), reply: vec![] }
        }

        fn send(&mut self, request: &[u8]) -> VerifyOutcome {
            let mut buf = [0; 512];
            let mut out = Writer::new(&mut buf);
            let Rig { identity, pairings, random, .. } = self;
            let outcome = self.verify.handle(request, &mut Context { identity, pairings, random }, &mut out);
            self.reply = out.finish().unwrap().to_vec();
            outcome
        }

        fn vector(&self, name: &str) -> Vec<u8> {
            hex(&self.v[name])
        }

        fn expect(&mut self, request: &[u8], reply: &[u8]) {
            assert!(matches!(self.send(request), VerifyOutcome::Reply));
            assert_eq!(self.reply, reply);
        }

        /// M3 with another sub-TLV, sealed with the right key.
        fn m3(&self, text: &[u8]) -> Vec<u8> {
            let mut sealed = text.to_vec();
            let tag = seal_labelled(&Key::new(array(&self.v["session_key"])), b"PV-Msg03", &mut sealed);
            sealed.extend(tag);
            let mut buf = [0; 1024];
            let mut out = Writer::new(&mut buf);
            tlv8::put_u8(&mut out, tag::STATE, 3);
            tlv8::put(&mut out, tag::ENCRYPTED_DATA, &sealed);
            out.written().to_vec()
        }
    }

    #[test]
    fn verifies_byte_for_byte_as_in_the_vectors() {
        let mut rig = Rig::new();
        rig.expect(&rig.vector("m1"), &rig.vector("m2"));
        let VerifyOutcome::Verified { controller, shared } = rig.send(&rig.vector("m3")) else { panic!() };
        assert_eq!(rig.reply, rig.vector("m4"));
        assert_eq!(controller, rig.v["controller"]["id"].as_str().unwrap().as_bytes());
        assert_eq!(shared.as_bytes(), &array(&rig.v["shared_secret"]));
        // The same M3 a second time is out of order.
        rig.expect(&rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
    }

    #[test]
    fn an_attempt_to_resume_gets_a_full_verify() {
        let mut rig = Rig::new();
        let resume = [&[0, 1, 6][..], &rig.vector("m1"), &[0x0e, 8], &[1; 8], &[5, 16], &[2; 16]].concat();
        rig.expect(&resume, &rig.vector("m2"));
    }

    #[test]
    fn whoever_is_not_paired_is_refused() {
        let mut rig = Rig::new();
        rig.pairings.clear();
        rig.expect(&rig.vector("m1"), &rig.vector("m2"));
        rig.expect(&rig.vector("m3"), &rig.vector("error_m4"));
        // The same id with another key.
        let mut rig = Rig::new();
        rig.pairings.clear();
        let mut other = controller(&rig.v["controller"]);
        other.public = SigningKey::from_seed(&[1; 32]).public();
        rig.pairings.add(other).unwrap();
        rig.expect(&rig.vector("m1"), &rig.vector("m2"));
        rig.expect(&rig.vector("m3"), &rig.vector("error_m4"));
    }

    #[test]
    fn a_bad_m3_is_refused_and_starts_over() {
        let text = Rig::new().vector("m3_sub_tlv");
        let mut texts: Vec<Vec<u8>> = (0..text.len()).map(|cut| text[..cut].to_vec()).collect();
        let mut other_signature = text.clone();
        *other_signature.last_mut().unwrap() ^= 1;
        let mut other_id = text.clone();
        other_id[2] = b'X';
        texts.extend([other_signature, other_id, [&text[..], &[0x77, 255], &[0; 255]].concat()]);
        for text in texts {
            let mut rig = Rig::new();
            rig.expect(&rig.vector("m1"), &rig.vector("m2"));
            rig.expect(&rig.m3(&text), &rig.vector("error_m4"));
            rig.expect(&rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
        }
        let mut rig = Rig::new();
        rig.expect(&rig.vector("m1"), &rig.vector("m2"));
        let mut bad_tag = rig.vector("m3");
        *bad_tag.last_mut().unwrap() ^= 1;
        rig.expect(&bad_tag, &rig.vector("error_m4"));
    }

    #[test]
    fn m3_belongs_to_its_m1() {
        let mut rig = Rig::new();
        rig.expect(&rig.vector("m1"), &rig.vector("m2"));
        rig.random.agree([7; 32], [8; 32]);
        rig.send(&rig.vector("m1"));
        assert_ne!(rig.reply, rig.vector("m2"));
        rig.expect(&rig.vector("m3"), &rig.vector("error_m4"));
    }

    #[test]
    fn a_point_of_low_order_is_refused() {
        let mut rig = Rig::new();
        rig.random.agreements.clear();
        rig.expect(&rig.vector("m1"), &[6, 1, 2, 7, 1, 2]);
        rig.expect(&rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
    }

    #[test]
    fn malformed_messages_are_bad_requests() {
        let m1 = Rig::new().vector("m1");
        let mut bad: Vec<Vec<u8>> = (0..m1.len()).map(|cut| m1[..cut].to_vec()).collect();
        bad.push([&[6, 1, 1, 3, 31][..], &[1; 31]].concat());
        bad.push(vec![6, 1, 2]);
        bad.push(vec![6, 1, 3, 5]);
        for request in bad {
            let mut rig = Rig::new();
            assert!(matches!(rig.send(&request), VerifyOutcome::BadRequest), "{request:02x?}");
            assert!(rig.reply.is_empty());
        }
        let mut rig = Rig::new();
        rig.expect(&rig.vector("m1"), &rig.vector("m2"));
        assert!(matches!(rig.send(&[6, 1, 3]), VerifyOutcome::BadRequest));
        rig.expect(&rig.vector("m3"), &[6, 1, 4, 7, 1, 1]);
    }
}
