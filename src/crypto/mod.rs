//! Derives, signs, seals and opens. Knows keys and bytes, but no message that they belong to.
//!
//! Randomness is an argument everywhere ([`Random`]), so that a whole pairing can be replayed byte
//! for byte. What is secret is overwritten when it is dropped and never shows in `Debug`.

pub mod aead;
#[cfg(test)]
pub(crate) mod fixed;
pub mod md5;
pub mod srp;

use core::hint::black_box;
use ring::signature::KeyPair;
use ring::{digest, hkdf, signature};

/// Where random bytes and ephemeral keys come from.
pub trait Random {
    /// Fills `out` with random bytes fit for keys.
    fn fill(&mut self, out: &mut [u8]);

    /// Agrees on a secret with the X25519 public key `peer`, using a fresh key pair (RFC 7748 §6.1).
    /// `None` when `peer` is a point of low order: the secret would be all zeros, known to everybody.
    ///
    /// One step, because the private key then never leaves the library that made it.
    fn x25519(&mut self, peer: &[u8; 32]) -> Option<Agreement>;
}

/// What [`Random::x25519`] gives.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Our public key, to be sent to the peer.
    pub public: [u8; 32],
    /// The secret that both sides now have.
    pub shared: SharedSecret,
}

/// `N` secret bytes: overwritten when dropped, never shown.
#[derive(Clone)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes. The caller's own copy stays the caller's to overwrite.
    pub fn new(bytes: [u8; N]) -> Self {
        Secret(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to be filled in place so that no copy stays behind.
    pub fn as_mut_bytes(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl<const N: usize> core::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("…")
    }
}

/// The secret of a pair-verify, root of the keys of one connection and of its data streams
/// (HAP R2 §5.7).
#[derive(Clone, Debug)]
pub struct SharedSecret(Secret<32>);

impl SharedSecret {
    /// The secret with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        SharedSecret(Secret::new(bytes))
    }

    /// The bytes, for key derivation only.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// A symmetric key of 32 bytes.
#[derive(Clone, Debug)]
pub struct Key(Secret<32>);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Key(Secret::new(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// Overwrites bytes that were secret. `black_box` makes the zeros an output that the compiler has to
/// write, even where nobody reads them any more.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// Whether `a` and `b` are the same bytes, in a time that depends on their lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| black_box(difference | (x ^ y))) == 0
}

/// SHA-512 of the parts, one after the other (FIPS 180-4).
pub fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = digest::Context::new(&digest::SHA512);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// HKDF with SHA-512, extract and expand, 32 bytes out (RFC 5869 §2): every key of HAP is made by it.
pub fn hkdf_sha512(ikm: &[u8], salt: &[u8], info: &[u8]) -> Key {
    struct Bytes32;
    impl hkdf::KeyType for Bytes32 {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = Key::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA512, salt)
        .extract(ikm)
        .expand(&[info], Bytes32)
        .and_then(|okm| okm.fill(key.0.as_mut_bytes()))
        .expect("32 bytes are asked for and filled, and HKDF gives up to 255 * 64");
    key
}

/// A long-term Ed25519 key (RFC 8032 §5.1), with its seed so that it can be stored.
pub struct SigningKey {
    seed: Secret<32>,
    pair: signature::Ed25519KeyPair,
}

impl SigningKey {
    /// The key that grows from `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        SigningKey { seed: Secret::new(*seed), pair: key_pair(seed) }
    }

    /// The seed, for the store only.
    pub fn seed(&self) -> &[u8; 32] {
        self.seed.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.pair.public_key().as_ref());
        out
    }

    /// Signs `message`; the same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        // ring keeps the expanded key out of reach: overwrite it with that of another seed.
        self.pair = key_pair(&[0; 32]);
        black_box(&self.pair);
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("…")
    }
}

fn key_pair(seed: &[u8; 32]) -> signature::Ed25519KeyPair {
    signature::Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed")
}

/// Whether `signature` is that of `message` by the owner of the Ed25519 key `public`.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ED25519, public).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::fixed::{array, hex, vectors};
    use super::*;

    #[test]
    fn derives_the_keys_of_the_vectors() {
        let session = vectors("session");
        let shared = hex(&session["shared_secret"]);
        for (info, key) in [("info_read", "accessory_to_controller_key"), ("info_write", "controller_to_accessory_key")]
        {
            let derived = hkdf_sha512(&shared, &hex(&session["salt"]), &hex(&session[info]));
            assert_eq!(derived.as_bytes()[..], hex(&session[key]));
        }
    }

    #[test]
    fn signs_and_verifies_as_in_the_vectors() {
        let setup = vectors("pair_setup");
        let key = SigningKey::from_seed(&array(&setup["accessory"]["ltsk_seed"]));
        assert_eq!(key.public(), array(&setup["accessory"]["ltpk"]));
        let message = hex(&setup["accessory_info"]);
        let mut signature = key.sign(&message);
        // The signature is the last item of the sub-TLV.
        assert!(hex(&setup["m6_sub_tlv"]).ends_with(&signature));
        assert!(verify(&key.public(), &message, &signature));
        assert!(!verify(&key.public(), &message[1..], &signature));
        assert!(!verify(&key.public(), &message, &signature[..63]));
        signature[5] ^= 1;
        assert!(!verify(&key.public(), &message, &signature));
    }

    #[test]
    fn hashes_parts_as_one_message() {
        assert_eq!(sha512(&[b"HKSV", b"1A:2B:3C:4D:5E:6F"])[..4], [0x09, 0x51, 0x73, 0x70]);
        assert_eq!(sha512(&[b"ab", b"", b"c"]), sha512(&[b"abc"]));
    }

    #[test]
    fn compares_all_bytes() {
        assert!(equal(b"", b"") && equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abcd") && !equal(b"abc", b"bbc") && !equal(b"abc", b"abd"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secrets = (Key::new([65; 32]), SharedSecret::new([65; 32]), SigningKey::from_seed(&[65; 32]));
        assert_eq!(format!("{secrets:?}"), "(Key(…), SharedSecret(…), …)");
    }

    #[test]
    fn wiping_overwrites() {
        let mut bytes = [7; 40];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 40]);
    }
}
