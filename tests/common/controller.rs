//! A controller without sockets: it makes the bytes to send and takes the bytes that came. With a
//! [`Transport`] it plays whole exchanges, over a socket or against the state machines.

use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{U256, U512, U3072};
use hksvd::crypto::aead::{OpenKey, SealKey, open_labelled, seal_labelled};
use hksvd::crypto::{Key, SharedSecret, SigningKey, hkdf_sha512, sha512, verify};
use hksvd::wire::{Writer, tlv8};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value as Json;
use std::collections::VecDeque;

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

/// How bytes reach the accessory and come back.
pub trait Transport {
    /// Sends all of them.
    fn send(&mut self, bytes: &[u8]);
    /// Waits for some; nothing means that the accessory closed the connection, or stays silent.
    fn receive(&mut self) -> Vec<u8>;
}

/// A message of the accessory.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// The header lines.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }
    pub fn is_event(&self) -> bool {
        self.line.starts_with("EVENT/1.0 ")
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
    }
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or(Json::Null)
    }
    /// The value of a TLV8 item in the body.
    pub fn item(&self, tag: u8) -> Option<Vec<u8>> {
        item(&self.body, tag)
    }
}

fn item(tlv: &[u8], tag: u8) -> Option<Vec<u8>> {
    let value = tlv8::find(tlv, tag).unwrap()?;
    let mut out = vec![0; value.len()];
    value.copy_to(&mut out).unwrap();
    Some(out)
}

/// TLV8 of these items.
pub fn tlv(items: &[(u8, &[u8])]) -> Vec<u8> {
    let mut buf = vec![0; 4096];
    let mut w = Writer::new(&mut buf);
    items.iter().for_each(|(tag, value)| tlv8::put(&mut w, *tag, value));
    w.finish().unwrap().to_vec()
}

fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).unwrap();
    out
}

struct Session {
    seal: SealKey,
    open: OpenKey,
    shared: SharedSecret,
}

/// Who the controller is, and whom it is paired with: lives longer than a connection.
pub struct Identity {
    pub id: String,
    key: SigningKey,
    accessory: Option<(Vec<u8>, [u8; 32])>,
}

impl Identity {
    /// A new controller.
    pub fn new(id: &str) -> Self {
        Identity { id: id.into(), key: SigningKey::from_seed(&random()), accessory: None }
    }

    /// Its long-term public key.
    pub fn public(&self) -> [u8; 32] {
        self.key.public()
    }

    /// Another controller of the same home, that `self` told of the accessory.
    pub fn friend(&self, id: &str) -> Self {
        Identity { accessory: self.accessory.clone(), ..Identity::new(id) }
    }
}

/// One connection of a controller.
#[derive(Default)]
pub struct Controller {
    session: Option<Session>,
    /// Sealed bytes that are no whole record yet.
    sealed: Vec<u8>,
    text: Vec<u8>,
    /// Events that came so far.
    pub events: VecDeque<Message>,
    responses: VecDeque<Message>,
}

impl Controller {
    pub fn new() -> Self {
        Self::default()
    }

    /// The secret of pair-verify, which the keys of data streams come from.
    pub fn shared(&self) -> Option<&SharedSecret> {
        self.session.as_ref().map(|session| &session.shared)
    }

    pub fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// The bytes of a request.
    pub fn request(&mut self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: hksvd\r\n").into_bytes();
        if !body.is_empty() {
            text.extend(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        text.extend(b"\r\n");
        text.extend(body);
        self.seal(&text)
    }

    /// What has to be sent so that `text` arrives.
    pub fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        let Some(session) = &mut self.session else { return text.to_vec() };
        let mut out = Vec::new();
        for part in text.chunks(1024) {
            let length = (part.len() as u16).to_le_bytes();
            let mut sealed = part.to_vec();
            let tag = session.seal.seal(&length, &mut sealed);
            out.extend(length);
            out.extend(sealed);
            out.extend(tag);
        }
        out
    }

    /// Takes what the accessory sent.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.session {
            None => self.text.extend(bytes),
            Some(session) => {
                self.sealed.extend(bytes);
                while let Some((&length, rest)) = self.sealed.split_first_chunk::<2>() {
                    let len = usize::from(u16::from_le_bytes(length));
                    assert!((1..=1024).contains(&len), "a record of {len} bytes");
                    let Some(record) = rest.get(..len + 16) else { break };
                    let mut record = record.to_vec();
                    let text = session.open.open(&length, &mut record).expect("the record opens");
                    self.text.extend(&*text);
                    self.sealed.drain(..2 + len + 16);
                }
            }
        }
        while let Some(message) = self.take_message() {
            if message.is_event() { self.events.push_back(message) } else { self.responses.push_back(message) }
        }
    }

    fn take_message(&mut self) -> Option<Message> {
        let end = self.text.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8(self.text[..end].to_vec()).expect("a head is text");
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let headers: Vec<_> = lines.map(|l| l.split_once(": ").unwrap()).map(|(n, v)| (n.into(), v.into())).collect();
        let mut message = Message { line, headers, body: Vec::new() };
        let length = message.header("Content-Length").map_or(0, |n| n.parse().unwrap());
        message.body = self.text.get(end + 4..end + 4 + length)?.to_vec();
        self.text.drain(..end + 4 + length);
        Some(message)
    }

    /// The next response that has come.
    pub fn take_response(&mut self) -> Option<Message> {
        self.responses.pop_front()
    }

    /// Sends a request and waits for its response; `None` when the accessory is silent.
    pub fn try_exchange(&mut self, t: &mut dyn Transport, method: &str, target: &str, body: &[u8]) -> Option<Message> {
        t.send(&self.request(method, target, body));
        self.wait(t)
    }

    /// Waits for a response.
    pub fn wait(&mut self, t: &mut dyn Transport) -> Option<Message> {
        loop {
            if let Some(response) = self.take_response() {
                return Some(response);
            }
            let bytes = t.receive();
            if bytes.is_empty() {
                return None;
            }
            self.feed(&bytes);
        }
    }

    /// Sends a request and waits for its response.
    pub fn exchange(&mut self, t: &mut dyn Transport, method: &str, target: &str, body: &[u8]) -> Message {
        self.try_exchange(t, method, target, body).unwrap_or_else(|| panic!("no response to {method} {target}"))
    }

    /// Pair-setup with the setup code.
    ///
    /// # Errors
    /// The number in the accessory's Error item.
    pub fn pair_setup(&mut self, t: &mut dyn Transport, who: &mut Identity, code: &str) -> Result<(), u8> {
        let m2 = self.pair(t, "/pair-setup", &tlv(&[(6, &[1]), (0, &[0])]), 2)?;
        let srp = Srp::new(code, &m2.item(2).unwrap(), &m2.item(3).unwrap());
        let m4 = self.pair(t, "/pair-setup", &tlv(&[(6, &[3]), (3, &srp.public), (4, &srp.proof)]), 4)?;
        assert_eq!(m4.item(4).unwrap(), srp.expected, "the accessory knows the setup code");

        let key = hkdf_sha512(&srp.key, b"Pair-Setup-Encrypt-Salt", b"Pair-Setup-Encrypt-Info");
        let x = hkdf_sha512(&srp.key, b"Pair-Setup-Controller-Sign-Salt", b"Pair-Setup-Controller-Sign-Info");
        let signature = who.key.sign(&[&x.as_bytes()[..], who.id.as_bytes(), &who.key.public()].concat());
        let sub = tlv(&[(1, who.id.as_bytes()), (3, &who.key.public()), (10, &signature)]);
        let m6 = self.pair(t, "/pair-setup", &tlv(&[(6, &[5]), (5, &sealed(&key, b"PS-Msg05", &sub))]), 6)?;

        let mut sub = m6.item(5).unwrap();
        let sub = open_labelled(&key, b"PS-Msg06", &mut sub).expect("M6 opens");
        let (id, public) = (item(sub, 1).unwrap(), item(sub, 3).unwrap());
        let public: [u8; 32] = public.try_into().unwrap();
        let x = hkdf_sha512(&srp.key, b"Pair-Setup-Accessory-Sign-Salt", b"Pair-Setup-Accessory-Sign-Info");
        let message = [&x.as_bytes()[..], &id, &public].concat();
        assert!(verify(&public, &message, &item(sub, 10).unwrap()), "M6 is signed");
        who.accessory = Some((id, public));
        Ok(())
    }

    /// Pair-verify; the connection is secure afterwards.
    ///
    /// # Errors
    /// The number in the accessory's Error item.
    pub fn pair_verify(&mut self, t: &mut dyn Transport, who: &Identity) -> Result<(), u8> {
        let (m3, session) = self.begin_verify(t, who)?;
        self.pair(t, "/pair-verify", &m3, 4)?;
        self.session = Some(session);
        Ok(())
    }

    /// Pair-verify and, in the same write as M3, a first request in the session: controllers do not
    /// wait for M4.
    pub fn pair_verify_eagerly(&mut self, t: &mut dyn Transport, who: &Identity, target: &str) -> Message {
        let (m3, session) = self.begin_verify(t, who).expect("M2");
        let mut bytes = self.request("POST", "/pair-verify", &m3);
        self.session = Some(session);
        bytes.extend(self.request("GET", target, &[]));
        t.send(&bytes);
        let received = t.receive();
        // M4 comes in the clear.
        let end = received.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4 + 3;
        assert_eq!(received[end - 3..end], [6, 1, 4]);
        self.feed(&received[end..]);
        self.wait(t).expect("the response to the first request")
    }

    fn begin_verify(&mut self, t: &mut dyn Transport, who: &Identity) -> Result<(Vec<u8>, Session), u8> {
        let (accessory_id, accessory_public) = who.accessory.as_ref().expect("paired");
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
        let ours = private.compute_public_key().unwrap();
        let m2 = self.pair(t, "/pair-verify", &tlv(&[(6, &[1]), (3, ours.as_ref())]), 2)?;
        let theirs = m2.item(3).unwrap();
        let shared = agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, &theirs), |s| s.to_vec()).unwrap();
        let shared = SharedSecret::new(shared.try_into().unwrap());
        let key = hkdf_sha512(shared.as_bytes(), b"Pair-Verify-Encrypt-Salt", b"Pair-Verify-Encrypt-Info");
        let mut sub = m2.item(5).unwrap();
        let sub = open_labelled(&key, b"PV-Msg02", &mut sub).expect("M2 opens");
        assert_eq!(&item(sub, 1).unwrap(), accessory_id);
        let message = [&theirs, accessory_id, ours.as_ref()].concat();
        assert!(verify(accessory_public, &message, &item(sub, 10).unwrap()), "M2 is signed");

        let signature = who.key.sign(&[ours.as_ref(), who.id.as_bytes(), &theirs].concat());
        let sub = tlv(&[(1, who.id.as_bytes()), (10, &signature)]);
        let m3 = tlv(&[(6, &[3]), (5, &sealed(&key, b"PV-Msg03", &sub))]);
        let control = |info: &[u8]| hkdf_sha512(shared.as_bytes(), b"Control-Salt", info);
        let seal = SealKey::new(&control(b"Control-Write-Encryption-Key"));
        let open = OpenKey::new(&control(b"Control-Read-Encryption-Key"));
        Ok((m3, Session { seal, open, shared }))
    }

    /// One message of a pairing, whose answer must be of this state.
    fn pair(&mut self, t: &mut dyn Transport, path: &str, body: &[u8], state: u8) -> Result<Message, u8> {
        let message = self.exchange(t, "POST", path, body);
        assert_eq!((message.status(), message.header("Content-Type")), (200, Some("application/pairing+tlv8")));
        assert_eq!(message.item(6), Some(vec![state]));
        match message.item(7) {
            Some(error) => Err(error[0]),
            None => Ok(message),
        }
    }

    /// `POST /pairings` add; the Error item of the answer, if any.
    pub fn add_pairing(&mut self, t: &mut dyn Transport, whom: &Identity, admin: bool) -> Option<u8> {
        let items: &[(u8, &[u8])] =
            &[(6, &[1]), (0, &[3]), (1, whom.id.as_bytes()), (3, &whom.public()), (11, &[u8::from(admin)])];
        self.exchange(t, "POST", "/pairings", &tlv(items)).item(7).map(|error| error[0])
    }

    /// `POST /pairings` remove; the Error item of the answer, if any.
    pub fn remove_pairing(&mut self, t: &mut dyn Transport, id: &str) -> Option<u8> {
        let body = tlv(&[(6, &[1]), (0, &[4]), (1, id.as_bytes())]);
        self.exchange(t, "POST", "/pairings", &body).item(7).map(|error| error[0])
    }

    /// `PUT /characteristics` with this body.
    pub fn put(&mut self, t: &mut dyn Transport, body: &str) -> Message {
        self.exchange(t, "PUT", "/characteristics", body.as_bytes())
    }

    /// `GET /characteristics` of one characteristic: its value, or null.
    pub fn get(&mut self, t: &mut dyn Transport, iid: u64) -> Json {
        let message = self.exchange(t, "GET", &format!("/characteristics?id=1.{iid}"), &[]);
        message.json()["characteristics"][0]["value"].clone()
    }
}

fn sealed(key: &Key, label: &[u8; 8], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let tag = seal_labelled(key, label, &mut text);
    text.extend(tag);
    text
}

/// The controller's side of SRP-6a (RFC 5054, with SHA-512 and unpadded hashes as HAP has them).
struct Srp {
    public: Vec<u8>,
    proof: [u8; 64],
    expected: [u8; 64],
    key: [u8; 64],
}

fn bytes(element: &Element) -> Vec<u8> {
    element.retrieve().to_be_bytes().as_ref().to_vec()
}

fn stripped(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len())..]
}

impl Srp {
    fn new(code: &str, salt: &[u8], b: &[u8]) -> Self {
        let wide = |bytes: &[u8]| {
            let mut out = [0; 384];
            out[384 - bytes.len()..].copy_from_slice(bytes);
            Element::new(&U3072::from_be_slice(&out))
        };
        let n = {
            let minus_one = wide(&[0]).sub(&wide(&[1]));
            U3072::from_be_slice(&bytes(&minus_one)).wrapping_add(&U3072::ONE).to_be_bytes().as_ref().to_vec()
        };
        let mut g = [0; 384];
        g[383] = 5;
        let k = sha512(&[&n, &g]);
        let x = U512::from_be_slice(&sha512(&[salt, &sha512(&[b"Pair-Setup:", code.as_bytes()])]));
        let a = U256::from_be_slice(&random::<32>());
        let public = bytes(&wide(&[5]).pow(&a));
        let u = U512::from_be_slice(&sha512(&[&public, b]));
        // S = (B - k·v)^(a + u·x)
        let base = wide(b).sub(&wide(&k).mul(&wide(&[5]).pow(&x)));
        let s = bytes(&base.pow(&a).mul(&base.pow(&x).pow(&u)));
        let key = sha512(&[stripped(&s)]);
        let (hn, hg) = (sha512(&[&n]), sha512(&[&[5]]));
        let mixed: Vec<u8> = hn.iter().zip(hg).map(|(a, b)| a ^ b).collect();
        let proof = sha512(&[&mixed, &sha512(&[b"Pair-Setup"]), salt, stripped(&public), b, &key]);
        let expected = sha512(&[&public, &proof, &key]);
        Srp { public, proof, expected, key }
    }
}
