//! What the tests of several modules share: the golden vectors and randomness without chance.

use super::{Agreement, Random, SharedSecret};
use serde_json::Value;
use std::collections::VecDeque;

/// A file of golden vectors by name.
pub fn vectors(name: &str) -> Value {
    let text = match name {
        "pair_setup" => include_str!("../../tests/vectors/pair_setup.json"),
        "pair_verify" => include_str!("../../tests/vectors/pair_verify.json"),
        "pairings" => include_str!("../../tests/vectors/pairings.json"),
        "session" => include_str!("../../tests/vectors/session.json"),
        "setup" => include_str!("../../tests/vectors/setup.json"),
        "srp" => include_str!("../../tests/vectors/srp.json"),
        "srtp" => include_str!("../../tests/vectors/srtp.json"),
        _ => panic!("no vectors named {name}"),
    };
    serde_json::from_str(text).unwrap()
}

/// The bytes of a hex string of the vectors.
pub fn hex(v: &Value) -> Vec<u8> {
    let text = v.as_str().expect("a hex string").as_bytes();
    let mut bytes = vec![0; text.len() / 2];
    data_encoding::HEXLOWER.decode_mut(text, &mut bytes).unwrap();
    bytes
}

/// The same, of a known length.
pub fn array<const N: usize>(v: &Value) -> [u8; N] {
    hex(v).try_into().expect("as many bytes as asked for")
}

/// Gives the bytes it was made with, piece by piece, then the bytes of a counter.
#[derive(Default)]
pub struct FixedRandom {
    /// What the next calls of `fill` give; each piece has to have the length that is asked for.
    pub pieces: VecDeque<Vec<u8>>,
    /// What the next calls of `x25519` give; nothing: the peer's point is of low order.
    pub agreements: VecDeque<Agreement>,
    count: u64,
}

impl FixedRandom {
    /// Gives `pieces` in order.
    pub fn new(pieces: &[Vec<u8>]) -> Self {
        FixedRandom { pieces: pieces.iter().cloned().collect(), ..Default::default() }
    }

    /// Lets the next `x25519` give this agreement.
    pub fn agree(&mut self, public: [u8; 32], shared: [u8; 32]) {
        self.agreements.push_back(Agreement { public, shared: SharedSecret::new(shared) });
    }
}

impl Random for FixedRandom {
    fn fill(&mut self, out: &mut [u8]) {
        match self.pieces.pop_front() {
            Some(piece) => out.copy_from_slice(&piece),
            None => out.fill_with(|| {
                self.count += 1;
                super::sha512(&[&self.count.to_le_bytes()])[0]
            }),
        }
    }

    fn x25519(&mut self, _: &[u8; 32]) -> Option<Agreement> {
        self.agreements.pop_front()
    }
}

/// Bytes that look random and are the same in every run (xorshift).
pub struct Noise(u64);

impl Noise {
    /// A sequence of its own for every seed but 0.
    pub fn new(seed: u64) -> Self {
        Noise(seed)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    /// Fewer than `bound` bytes.
    pub fn bytes(&mut self, bound: u64) -> Vec<u8> {
        (0..self.below(bound)).map(|_| self.below(256) as u8).collect()
    }
}
