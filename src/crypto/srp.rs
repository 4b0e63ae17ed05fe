//! SRP-6a, the accessory's side: the 3072-bit group of RFC 5054 appendix A with SHA-512, as HAP R2
//! §5.5 wants it.
//!
//! An exponentiation takes tenths of a second on a camera. What needs one is a [`Job`]: plain owned
//! data that a worker thread turns into a [`Done`], so that the event loop never waits.
//!
//! Implementations disagree about values that start with a zero byte (one pairing in 128): some hash
//! them at full length, some without the zeros. B is drawn so that the question does not arise; for A
//! and S every reading is tried and the one that fits the controller's proof is kept.

use super::{Secret, equal, sha512, wipe};
use crate::time::Instant;
use core::hint::black_box;
use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{U256, U512, U3072};
use heapless::Vec;

/// Bytes of a group element.
pub const ELEMENT: usize = 384;

/// The user name of every pair-setup (HAP R2 §5.6.2).
const USER: &[u8] = b"Pair-Setup";

crypto_bigint::const_monty_params!(
    Modulus,
    U3072,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    "N of the 3072-bit group (RFC 5054 appendix A)."
);

type Element = ConstMontyForm<Modulus, { U3072::LIMBS }>;

/// What the accessory knows of the setup code: the salt, and the verifier once it was computed.
#[derive(Clone, Debug)]
pub struct Verifier {
    salt: [u8; 16],
    x: Secret<64>,
    v: Option<Secret<ELEMENT>>,
}

impl Verifier {
    /// For the setup code with its dashes. The exponentiation is left to the first
    /// [`Job::prepare`], whose [`Done`] brings back a verifier that never needs it again.
    pub fn new(salt: [u8; 16], setup_code: &[u8]) -> Self {
        Verifier { salt, x: x(&salt, USER, setup_code), v: None }
    }

    /// The salt, as it is sent.
    pub fn salt(&self) -> &[u8; 16] {
        &self.salt
    }

    /// v = g^x, whether it is known already or not.
    fn power(&mut self) -> Element {
        let v = self.v.get_or_insert_with(|| bytes(&generator().pow(&U512::from_be_slice(self.x.as_bytes()))));
        Element::new(&U3072::from_be_slice(v.as_bytes()))
    }
}

/// The accessory's key pair of one procedure.
#[derive(Clone, Debug)]
pub struct Ephemeral {
    b: Secret<32>,
    public: [u8; ELEMENT],
}

impl Ephemeral {
    /// B, whose first byte is never zero.
    pub fn public(&self) -> &[u8; ELEMENT] {
        &self.public
    }
}

/// Work for another thread.
#[derive(Debug)]
pub struct Job {
    /// Comes back in [`Done::ticket`]: which question the answer belongs to.
    pub ticket: u32,
    /// When the work may start, for whoever runs it to wait for: setup codes are eight digits, and
    /// this is what keeps a peer from trying them, and from burning time, as fast as it can.
    pub not_before: Instant,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Prepare(Box<(Verifier, Secret<32>)>),
    Prove(Box<Prove>),
}

#[derive(Debug)]
struct Prove {
    verifier: Verifier,
    ephemeral: Ephemeral,
    /// A as it was received.
    a: Vec<u8, ELEMENT>,
    proof: [u8; 64],
}

/// A job that was done.
#[derive(Debug)]
pub struct Done {
    /// That of the [`Job`].
    pub ticket: u32,
    /// What came out.
    pub answer: Answer,
}

/// What comes out of a [`Job`].
#[derive(Debug)]
pub enum Answer {
    /// Of [`Job::prepare`].
    Prepared(Box<(Verifier, Ephemeral)>),
    /// Of [`Job::prove`]; `None`: the peer does not know the setup code, or A is illegal.
    Proved(Option<Box<Proved>>),
}

/// The peer has shown that it knows the setup code.
#[derive(Debug)]
pub struct Proved {
    /// K, from which the keys of the procedure are derived.
    pub key: Secret<64>,
    /// M2, our proof for the peer.
    pub proof: [u8; 64],
}

impl Job {
    /// Computes B = k·v + g^b, and v on the way if it is not known yet.
    pub fn prepare(ticket: u32, verifier: Verifier, b: Secret<32>) -> Self {
        Job { ticket, not_before: Instant::ZERO, work: Work::Prepare(Box::new((verifier, b))) }
    }

    /// Checks the peer's public key `a` and its proof M1. `None` when `a` is longer than a group
    /// element.
    pub fn prove(ticket: u32, verifier: Verifier, ephemeral: Ephemeral, a: &[u8], proof: [u8; 64]) -> Option<Self> {
        let a = Vec::from_slice(a).ok()?;
        let work = Work::Prove(Box::new(Prove { verifier, ephemeral, a, proof }));
        Some(Job { ticket, not_before: Instant::ZERO, work })
    }

    /// Does the work: one to three exponentiations, tenths of a second each on a camera.
    pub fn run(self) -> Done {
        let answer = match self.work {
            Work::Prepare(work) => {
                let (mut verifier, b) = *work;
                let ephemeral = ephemeral(&mut verifier, b);
                Answer::Prepared(Box::new((verifier, ephemeral)))
            }
            Work::Prove(work) => Answer::Proved(work.run().map(Box::new)),
        };
        Done { ticket: self.ticket, answer }
    }
}

/// The key pair of `b`, or of the next `b` whose B does not start with a zero byte.
fn ephemeral(verifier: &mut Verifier, mut b: Secret<32>) -> Ephemeral {
    let mut kv = Element::new(&wide(&k())).mul(&verifier.power());
    loop {
        let public = *bytes(&kv.add(&power(&generator(), &b))).as_bytes();
        if public[0] != 0 {
            forget(&mut kv);
            return Ephemeral { b, public };
        }
        // The hash of a secret is as hard to guess as the secret, and the job needs no randomness.
        let mut next = sha512(&[b.as_bytes()]);
        b.as_mut_bytes().copy_from_slice(&next[..32]);
        wipe(&mut next);
    }
}

impl Prove {
    fn run(mut self) -> Option<Proved> {
        let mut padded_a = [0; ELEMENT];
        padded_a[ELEMENT - self.a.len()..].copy_from_slice(&self.a);
        let secret = shared(&mut self.verifier, &self.ephemeral.b, &self.ephemeral.public, &padded_a)?;
        let mut found = None;
        // Six hashes, nearly always of the same two inputs; all of them, so that time tells nothing.
        for s in [stripped(secret.as_bytes()), secret.as_bytes()] {
            let key = Secret::new(sha512(&[s]));
            for a in [stripped(&self.a), &self.a[..], &padded_a[..]] {
                let expected = m1(USER, &self.verifier.salt, a, &self.ephemeral.public, &key);
                if equal(&expected, &self.proof) {
                    found.get_or_insert_with(|| key.clone());
                }
            }
        }
        let key = found?;
        let proof = m2(&padded_a, &self.proof, &key);
        Some(Proved { key, proof })
    }
}

/// x = H(salt ‖ H(user ‖ ":" ‖ password)).
fn x(salt: &[u8; 16], user: &[u8], password: &[u8]) -> Secret<64> {
    let mut inner = sha512(&[user, b":", password]);
    let x = Secret::new(sha512(&[salt, &inner]));
    wipe(&mut inner);
    x
}

/// k = H(N ‖ PAD(g)).
fn k() -> [u8; 64] {
    let mut g = [0; ELEMENT];
    g[ELEMENT - 1] = 5;
    sha512(&[&modulus(), &g])
}

/// S = (A · v^u)^b with u = H(PAD(A) ‖ PAD(B)); `None` when A ≡ 0, which would make S known to all.
fn shared(
    verifier: &mut Verifier,
    b: &Secret<32>,
    public: &[u8; ELEMENT],
    a: &[u8; ELEMENT],
) -> Option<Secret<ELEMENT>> {
    let u = sha512(&[a, public]);
    let a = Element::new(&U3072::from_be_slice(a));
    if a == Element::ZERO {
        return None;
    }
    let mut base = a.mul(&verifier.power().pow(&U512::from_be_slice(&u)));
    let mut s = power(&base, b);
    let secret = bytes(&s);
    forget(&mut base);
    forget(&mut s);
    Some(secret)
}

/// M1 = H((H(N) xor H(g)) ‖ H(user) ‖ salt ‖ A ‖ B ‖ K).
fn m1(user: &[u8], salt: &[u8; 16], a: &[u8], b: &[u8], key: &Secret<64>) -> [u8; 64] {
    let mut group = sha512(&[&modulus()]);
    group.iter_mut().zip(sha512(&[&[5]])).for_each(|(n, g)| *n ^= g);
    sha512(&[&group, &sha512(&[user]), salt, a, b, key.as_bytes()])
}

/// M2 = H(PAD(A) ‖ M1 ‖ K).
fn m2(padded_a: &[u8; ELEMENT], m1: &[u8; 64], key: &Secret<64>) -> [u8; 64] {
    sha512(&[padded_a, m1, key.as_bytes()])
}

fn generator() -> Element {
    Element::new(&U3072::from_u8(5))
}

fn power(base: &Element, exponent: &Secret<32>) -> Element {
    base.pow(&U256::from_be_slice(exponent.as_bytes()))
}

fn modulus() -> [u8; ELEMENT] {
    Element::MODULUS.to_be_bytes().into()
}

/// A hash as a number.
fn wide(hash: &[u8; 64]) -> U3072 {
    U512::from_be_slice(hash).resize()
}

fn bytes(element: &Element) -> Secret<ELEMENT> {
    let mut out = Secret::new([0; ELEMENT]);
    out.as_mut_bytes().copy_from_slice(&element.retrieve().to_be_bytes());
    out
}

/// Overwrites a number that was secret.
fn forget(element: &mut Element) {
    *element = Element::ZERO;
    black_box(element);
}

/// Without leading zero bytes.
fn stripped(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&b| b == 0).count();
    &bytes[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{array, hex, vectors};
    use serde_json::Value;

    /// A vector as the accessory would have it: verifier and B given, no redraw.
    fn prove(vector: &Value, a: &[u8], proof: [u8; 64]) -> Option<Proved> {
        let user = vector["username"].as_str().unwrap().as_bytes();
        let salt = array(&vector["salt"]);
        let verifier = Verifier { salt, x: x(&salt, user, vector["password"].as_str().unwrap().as_bytes()), v: None };
        let ephemeral = Ephemeral { b: Secret::new(array(&vector["b"])), public: array(&vector["B"]) };
        match Job::prove(7, verifier, ephemeral, a, proof).unwrap().run() {
            Done { ticket: 7, answer: Answer::Proved(proved) } => proved.map(|p| *p),
            _ => panic!("not the answer to this job"),
        }
    }

    fn hap_vectors() -> std::vec::Vec<Value> {
        vectors("srp")["vectors"].as_array().unwrap()[1..].to_vec()
    }

    #[test]
    fn the_group_is_that_of_the_vectors() {
        let srp = vectors("srp");
        assert_eq!(modulus(), array(&srp["N"]));
        assert_eq!(k(), array(&srp["k"]));
    }

    #[test]
    fn computes_every_quantity_of_the_vectors() {
        for vector in vectors("srp")["vectors"].as_array().unwrap() {
            let name = &vector["name"];
            let text = |field: &str| vector[field].as_str().unwrap().as_bytes();
            let salt: [u8; 16] = array(&vector["salt"]);
            let x = x(&salt, text("username"), text("password"));
            assert_eq!(x.as_bytes(), &array(&vector["x"]), "{name}");
            let mut verifier = Verifier { salt, x, v: None };
            let b = Secret::new(array(&vector["b"]));
            let leading_zero = vector["leading_zero"]["B"].as_bool().unwrap();
            let ephemeral = ephemeral(&mut verifier, b.clone());
            assert_eq!(verifier.v.as_ref().unwrap().as_bytes(), &array(&vector["v"]), "{name}");
            // Only a B that starts with a zero byte is replaced.
            assert_eq!(ephemeral.public == array(&vector["B"]), !leading_zero, "{name}");
            assert_ne!(ephemeral.public[0], 0);

            let (a, public) = (array(&vector["A"]), array(&vector["B"]));
            let s = shared(&mut verifier, &b, &public, &a).unwrap();
            assert_eq!(s.as_bytes(), &array(&vector["S"]), "{name}");
            let key = Secret::new(sha512(&[stripped(s.as_bytes())]));
            assert_eq!(key.as_bytes(), &array(&vector["K"]), "{name}");
            let m1 = m1(text("username"), &salt, stripped(&a), stripped(&public), &key);
            assert_eq!(m1, array(&vector["M1"]), "{name}");
            assert_eq!(m2(&a, &m1, &key), array(&vector["M2"]), "{name}");
        }
    }

    #[test]
    fn accepts_both_readings_of_leading_zeros() {
        let mut both = 0;
        for vector in hap_vectors() {
            // Never happens to us, and M1 is then over a B that we would not have sent.
            if vector["leading_zero"]["B"].as_bool().unwrap() {
                continue;
            }
            let a = hex(&vector["A"]);
            for variant in [&vector, &vector["padded_variant"]] {
                if variant.is_null() {
                    continue;
                }
                both += 1;
                for a in [&a[..], stripped(&a)] {
                    let proved = prove(&vector, a, array(&variant["M1"])).expect("the proof is right");
                    assert_eq!(proved.key.as_bytes(), &array(&variant["K"]), "{}", vector["name"]);
                    assert_eq!(proved.proof, array(&variant["M2"]), "{}", vector["name"]);
                }
            }
        }
        assert_eq!(both, 5);
    }

    #[test]
    fn refuses_a_wrong_proof() {
        let vector = &hap_vectors()[0];
        for byte in [0, 63] {
            let mut proof: [u8; 64] = array(&vector["M1"]);
            proof[byte] ^= 1;
            assert!(prove(vector, &hex(&vector["A"]), proof).is_none());
        }
    }

    #[test]
    fn refuses_an_illegal_a() {
        let srp = vectors("srp");
        for illegal in srp["illegal_A"].as_array().unwrap() {
            let vector = &hap_vectors()[0];
            assert!(prove(vector, &hex(&illegal["A"]), array(&vector["M1"])).is_none(), "{}", illegal["name"]);
            // Even with the proof that anybody could make: S would be zero.
            for key in [sha512(&[]), sha512(&[&[0; ELEMENT]])] {
                let a = hex(&illegal["A"]);
                let proof = m1(USER, &array(&vector["salt"]), &a, &hex(&vector["B"]), &Secret::new(key));
                assert!(prove(vector, &a, proof).is_none());
            }
        }
        let vector = &hap_vectors()[0];
        let ephemeral = Ephemeral { b: Secret::new([1; 32]), public: array(&vector["B"]) };
        let verifier = Verifier::new([0; 16], b"031-45-154");
        assert!(Job::prove(1, verifier.clone(), ephemeral.clone(), &[1; 385], [0; 64]).is_none());
        assert!(Job::prove(1, verifier, ephemeral, &[], [0; 64]).is_some());
    }

    #[test]
    fn a_known_verifier_gives_the_same_key() {
        let vector = &hap_vectors()[0];
        let fresh = Verifier::new(array(&vector["salt"]), b"031-45-154");
        let b = Secret::new(array(&vector["b"]));
        let Answer::Prepared(first) = Job::prepare(1, fresh, b.clone()).run().answer else { panic!() };
        assert!(first.0.v.is_some());
        assert_eq!(first.1.public(), &array(&vector["B"]));
        let Answer::Prepared(second) = Job::prepare(2, first.0, b).run().answer else { panic!() };
        assert_eq!(second.1.public(), &array(&vector["B"]));
    }

    #[test]
    fn a_redraw_is_a_working_key() {
        let vector = hap_vectors().into_iter().find(|v| v["leading_zero"]["B"] == true).unwrap();
        let mut verifier = Verifier::new(array(&vector["salt"]), b"031-45-154");
        let drawn = ephemeral(&mut verifier, Secret::new(array(&vector["b"])));
        assert_ne!(drawn.b.as_bytes(), &array(&vector["b"]));
        // The other side: S = (B - k·v)^(a + u·x), with u·x done as two powers.
        let a = Secret::new(array(&vector["a"]));
        let public_a: [u8; ELEMENT] = array(&vector["A"]);
        let u = sha512(&[&public_a, &drawn.public]);
        let gb =
            Element::new(&U3072::from_be_slice(&drawn.public)).sub(&Element::new(&wide(&k())).mul(&verifier.power()));
        let x = U512::from_be_slice(verifier.x.as_bytes());
        let s = power(&gb, &a).mul(&gb.pow(&x).pow(&U512::from_be_slice(&u)));
        let key = Secret::new(sha512(&[stripped(bytes(&s).as_bytes())]));
        let proof = m1(USER, &verifier.salt, stripped(&public_a), &drawn.public, &key);
        let Answer::Proved(proved) = Job::prove(1, verifier, drawn, &public_a, proof).unwrap().run().answer else {
            panic!()
        };
        assert_eq!(proved.unwrap().key.as_bytes(), key.as_bytes());
    }

    #[test]
    fn jobs_show_nothing_secret() {
        let job = Job::prepare(1, Verifier::new([0; 16], b"031-45-154"), Secret::new([65; 32]));
        let shown = format!("{job:?}");
        assert!(shown.contains('…') && !shown.contains("65"), "{shown}");
    }
}
