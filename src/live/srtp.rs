//! SRTP and SRTCP (RFC 3711) with the one suite that every controller offers, AES_CM_128_HMAC_SHA1_80, without master
//! key identifier and with a key derivation rate of 0.
//!
//! A [`Sealer`] and an [`Opener`] are one direction of one medium: audio, video, here and there all have keys of their
//! own. Neither claims memory after it was made, nor does the work of a key twice.

use super::replay::Window;
use crate::crypto::{Random, Secret, equal};
use crate::wire::rtp::Header;
use aes::Aes128Enc;
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit, ParBlocks,
};
use core::hint::black_box;
use ring::hmac;

/// Bytes that sealing adds to an RTP packet: the tag.
pub const TAG_BYTES: usize = 10;

/// Bytes that sealing adds to an RTCP packet: index and tag.
pub const RTCP_TRAILER_BYTES: usize = INDEX_BYTES + TAG_BYTES;

const INDEX_BYTES: usize = 4;

/// The part of an RTCP packet that stays in the clear: header and sender (RFC 3711 §3.4).
const RTCP_CLEAR_BYTES: usize = 8;

/// Says in the word of the index that the packet is encrypted (RFC 3711 §3.4).
const ENCRYPTED: u32 = 1 << 31;

const SALT_BYTES: usize = 14;
const AUTH_KEY_BYTES: usize = 20;

/// What the keys of one direction of one medium grow from, as it is exchanged in SetupEndpoints.
#[derive(Clone, Debug)]
pub struct MasterKey {
    key: Secret<16>,
    salt: Secret<SALT_BYTES>,
}

impl MasterKey {
    /// The master key and salt with these bytes.
    pub fn new(key: &[u8; 16], salt: &[u8; 14]) -> Self {
        MasterKey { key: Secret::new(*key), salt: Secret::new(*salt) }
    }

    /// A fresh one.
    pub fn random(random: &mut dyn Random) -> Self {
        let mut master = MasterKey::new(&[0; 16], &[0; SALT_BYTES]);
        random.fill(master.key.as_mut_bytes());
        random.fill(master.salt.as_mut_bytes());
        master
    }

    /// The key, to be told to the controller.
    pub fn key(&self) -> &[u8; 16] {
        self.key.as_bytes()
    }

    /// The salt, to be told to the controller.
    pub fn salt(&self) -> &[u8; 14] {
        self.salt.as_bytes()
    }
}

/// Seals what we send of one medium: one RTP stream, and the reports on it.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
    /// SSRC and index of the last packet.
    last: Option<(u32, u64)>,
    /// Index of the next RTCP packet.
    rtcp_index: u32,
}

impl Sealer {
    /// Starts with rollover counter and RTCP index 0.
    pub fn new(master: &MasterKey) -> Self {
        Sealer { keys: Keys::derive(master), last: None, rtcp_index: 0 }
    }

    /// Seals the RTP packet in `packet[..len]` in place; [`TAG_BYTES`] of room have to follow it. Returns the length of
    /// the whole. When the sequence number wraps, the rollover counter goes up.
    ///
    /// `None`, and nothing changed: no room; not an RTP packet; another SSRC than that of the first packet, or a
    /// sequence number that is not ahead of the last one's by less than 2¹⁵. The keystream of an index that was used
    /// would give both packets away (RFC 3711 §9.1), so a packet is sent again as it was sealed, or not at all.
    pub fn seal_rtp(&mut self, packet: &mut [u8], len: usize) -> Option<usize> {
        let (header, text_at) = Header::parse(packet.get(..len)?).ok()?;
        let (text, rest) = packet.split_at_mut_checked(len)?;
        let room = rest.first_chunk_mut::<TAG_BYTES>()?;
        let index = match self.last {
            None => u64::from(header.sequence),
            Some((ssrc, last)) => {
                let ahead = header.sequence.wrapping_sub(last as u16);
                if ssrc != header.ssrc || !(1..1 << 15).contains(&ahead) {
                    return None;
                }
                last + u64::from(ahead)
            }
        };
        let roc = roc(index)?;
        self.keys.rtp.apply_keystream(header.ssrc, index, text.get_mut(text_at..)?);
        *room = self.keys.rtp.tag(text, &roc);
        self.last = Some((header.ssrc, index));
        Some(len + TAG_BYTES)
    }

    /// Seals the RTCP packet, compound or not, in `packet[..len]` in place; [`RTCP_TRAILER_BYTES`] of room have to
    /// follow it. Returns the length of the whole.
    ///
    /// `None`, and nothing changed: no room, no whole header, or 2³¹ packets were sealed.
    pub fn seal_rtcp(&mut self, packet: &mut [u8], len: usize) -> Option<usize> {
        let (body, rest) = packet.split_at_mut_checked(len)?;
        let ssrc = rtcp_sender(body)?;
        let (room, _) = rest.split_first_chunk_mut::<RTCP_TRAILER_BYTES>()?;
        if self.rtcp_index >= ENCRYPTED {
            return None;
        }
        self.keys.rtcp.apply_keystream(ssrc, u64::from(self.rtcp_index), body.get_mut(RTCP_CLEAR_BYTES..)?);
        let word = (ENCRYPTED | self.rtcp_index).to_be_bytes();
        room[..INDEX_BYTES].copy_from_slice(&word);
        room[INDEX_BYTES..].copy_from_slice(&self.keys.rtcp.tag(body, &word));
        self.rtcp_index += 1;
        Some(len + RTCP_TRAILER_BYTES)
    }
}

/// Opens what a controller sends of one medium. It is one sender: a packet of another SSRC takes the place of the old
/// stream, but only once its tag has proved it.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
    rtp: Option<Stream>,
    rtcp: Option<Stream>,
}

/// Whose packets, and which of them have come.
#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    window: Window,
}

impl Opener {
    /// Expects the stream to start with rollover counter 0.
    pub fn new(master: &MasterKey) -> Self {
        Opener { keys: Keys::derive(master), rtp: None, rtcp: None }
    }

    /// Opens an RTP packet in place and returns it without its tag. `None`, and neither the packet nor what is known
    /// of the stream has changed: not RTP, not sealed with this key, seen before, or too old to tell.
    pub fn open_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let (text, tag) = packet.split_last_chunk_mut::<TAG_BYTES>()?;
        let (header, text_at) = Header::parse(text).ok()?;
        let mut stream = Stream::of(self.rtp, header.ssrc);
        let index = stream.window.guess(header.sequence)?;
        if !stream.window.accept(index) || !equal(&self.keys.rtp.tag(text, &roc(index)?), tag) {
            return None;
        }
        self.rtp = Some(stream);
        self.keys.rtp.apply_keystream(header.ssrc, index, text.get_mut(text_at..)?);
        Some(text)
    }

    /// Opens an RTCP packet in place and returns it without index and tag. `None` as with [`Opener::open_rtp`].
    pub fn open_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let (rest, tag) = packet.split_last_chunk_mut::<TAG_BYTES>()?;
        let (body, word) = rest.split_last_chunk_mut::<INDEX_BYTES>()?;
        let ssrc = rtcp_sender(body)?;
        let index = u64::from(u32::from_be_bytes(*word) & !ENCRYPTED);
        let mut stream = Stream::of(self.rtcp, ssrc);
        if !stream.window.accept(index) || !equal(&self.keys.rtcp.tag(body, word), tag) {
            return None;
        }
        self.rtcp = Some(stream);
        if u32::from_be_bytes(*word) & ENCRYPTED != 0 {
            self.keys.rtcp.apply_keystream(ssrc, index, body.get_mut(RTCP_CLEAR_BYTES..)?);
        }
        Some(body)
    }
}

impl Stream {
    /// The known stream if it is that of `ssrc`, else a new one.
    fn of(known: Option<Stream>, ssrc: u32) -> Stream {
        known.filter(|stream| stream.ssrc == ssrc).unwrap_or(Stream { ssrc, window: Window::new() })
    }
}

/// The upper 32 of the 48 bits of an index, as they are authenticated; `None` when it has more: the key is used up.
fn roc(index: u64) -> Option<[u8; 4]> {
    u32::try_from(index >> 16).ok().map(u32::to_be_bytes)
}

/// The SSRC of the sender of an RTCP packet, which has to be there with its header.
fn rtcp_sender(packet: &[u8]) -> Option<u32> {
    match packet.first_chunk::<RTCP_CLEAR_BYTES>() {
        Some(&[b0, _, _, _, s0, s1, s2, s3]) if b0 >> 6 == 2 => Some(u32::from_be_bytes([s0, s1, s2, s3])),
        _ => None,
    }
}

/// All session keys of one direction.
#[derive(Debug)]
struct Keys {
    rtp: Half,
    rtcp: Half,
}

impl Keys {
    fn derive(master: &MasterKey) -> Self {
        Keys { rtp: Half::derive(master, 0), rtcp: Half::derive(master, 3) }
    }
}

/// The session keys of RTP or of RTCP, made ready: round keys, and the state of the HMAC behind its key.
struct Half {
    aes: Aes128Enc,
    auth: hmac::Key,
    salt: Secret<SALT_BYTES>,
}

impl Half {
    /// Derives the keys with the labels `label`, `label + 1` and `label + 2` (RFC 3711 §4.3.2).
    fn derive(master: &MasterKey, label: u8) -> Self {
        let mut prf = Aes128Enc::new(master.key().into());
        let mut key = Secret::new([0; 16]);
        let mut auth = Secret::new([0; AUTH_KEY_BYTES]);
        let mut salt = Secret::new([0; SALT_BYTES]);
        derive(&prf, master.salt(), label, key.as_mut_bytes());
        derive(&prf, master.salt(), label + 1, auth.as_mut_bytes());
        derive(&prf, master.salt(), label + 2, salt.as_mut_bytes());
        let half = Half { aes: Aes128Enc::new(key.as_bytes().into()), auth: auth_key(auth.as_bytes()), salt };
        prf = no_key();
        black_box(&prf);
        half
    }

    /// Encrypts or decrypts with the keystream of this packet (RFC 3711 §4.1.1).
    fn apply_keystream(&self, ssrc: u32, index: u64, text: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT_BYTES].copy_from_slice(self.salt.as_bytes());
        let of_packet = u128::from(ssrc) << 64 | u128::from(index) << 16;
        for (byte, other) in iv.iter_mut().zip(of_packet.to_be_bytes()) {
            *byte ^= other;
        }
        apply_keystream(&self.aes, &iv, text);
    }

    /// The first 80 bits of the HMAC over `packet` and the bytes that are not or no longer in it.
    fn tag(&self, packet: &[u8], behind: &[u8; 4]) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.auth);
        context.update(packet);
        context.update(behind);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_BYTES]);
        tag
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // Both libraries keep what grew from the key out of reach: overwrite it with that of a known one.
        self.aes = no_key();
        self.auth = auth_key(&[0; AUTH_KEY_BYTES]);
        black_box((&self.aes, &self.auth));
    }
}

impl core::fmt::Debug for Half {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("…")
    }
}

fn no_key() -> Aes128Enc {
    Aes128Enc::new(&[0; 16].into())
}

fn auth_key(bytes: &[u8; AUTH_KEY_BYTES]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, bytes)
}

/// The keystream that `label` and the master salt select (RFC 3711 §4.3.1, §4.3.3), over the zeros of `out`.
fn derive(prf: &Aes128Enc, salt: &[u8; SALT_BYTES], label: u8, out: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..SALT_BYTES].copy_from_slice(salt);
    iv[7] ^= label;
    apply_keystream(prf, &iv, out);
}

/// AES in counter mode (RFC 3711 §4.1.1). Only the lowest 16 bits of the counter ever count: `iv` ends with two zeros
/// and no text has 2²⁰ bytes.
fn apply_keystream(aes: &Aes128Enc, iv: &[u8; 16], text: &mut [u8]) {
    aes.encrypt_with_backend(Counter { iv, text });
}

/// All blocks of a text at one call, which is when the cipher unpacks its round keys, and as many at a time as it
/// takes: a second way for those that are left over would be a second copy of it.
struct Counter<'a> {
    iv: &'a [u8; 16],
    text: &'a mut [u8],
}

impl BlockSizeUser for Counter<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Counter<'_> {
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut count = 0u16;
        let mut blocks = ParBlocks::<B>::default();
        for text in self.text.chunks_mut(blocks.len() * 16) {
            for block in &mut blocks {
                *block = (*self.iv).into();
                block[SALT_BYTES..].copy_from_slice(&count.to_be_bytes());
                count = count.wrapping_add(1);
            }
            backend.encrypt_par_blocks_inplace(&mut blocks);
            for (byte, key) in text.iter_mut().zip(blocks.as_flattened()) {
                *byte ^= key;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{FixedRandom, Noise, array, hex, vectors};
    use crate::wire::Writer;
    use serde_json::Value;

    fn master(v: &Value) -> MasterKey {
        MasterKey::new(&array(&v["master_key"]), &array(&v["master_salt"]))
    }

    fn ours() -> MasterKey {
        master(&vectors("srtp"))
    }

    /// The packets of a list, in the clear and sealed.
    fn pairs(list: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let v = vectors("srtp");
        v[list].as_array().unwrap().iter().map(|p| (hex(&p["plain"]), hex(&p["protected"]))).collect()
    }

    /// The RTP packets as runs of one stream each: the vectors leap from 1001 to 65535 and to another SSRC.
    fn rtp_runs() -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
        let all = pairs("rtp");
        assert_eq!(all.len(), 5);
        vec![all[..2].to_vec(), all[2..4].to_vec(), all[4..].to_vec()]
    }

    /// The RTCP packets by sender, each with indices from 0.
    fn rtcp_runs() -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
        let all = pairs("srtcp");
        assert_eq!(all.len(), 8);
        let (mine, theirs) = all.into_iter().partition(|(plain, _)| plain[4] == 0x1a);
        vec![mine, theirs]
    }

    fn sealed(sealer: &mut Sealer, plain: &[u8], rtcp: bool) -> Option<Vec<u8>> {
        let mut room = plain.to_vec();
        room.resize(plain.len() + RTCP_TRAILER_BYTES, 0xee);
        let seal = if rtcp { Sealer::seal_rtcp } else { Sealer::seal_rtp };
        let len = seal(sealer, &mut room, plain.len());
        assert!(room[len.unwrap_or(plain.len())..].iter().all(|b| *b == 0xee));
        if len.is_none() {
            assert_eq!(&room[..plain.len()], plain);
        }
        len.map(|len| room[..len].to_vec())
    }

    /// What comes out, if anything; what is refused must be left as it was.
    fn opened(opener: &mut Opener, sealed: &[u8], rtcp: bool) -> Option<Vec<u8>> {
        let mut copy = sealed.to_vec();
        let open = if rtcp { Opener::open_rtcp } else { Opener::open_rtp };
        let text = open(opener, &mut copy).map(<[u8]>::to_vec);
        if text.is_none() {
            assert_eq!(copy, sealed);
        }
        text
    }

    fn packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut room = [0; 1500];
        let mut w = Writer::new(&mut room);
        let timestamp = u32::from(sequence).wrapping_mul(3000);
        Header { marker: true, payload_type: 99, sequence, timestamp, ssrc }.put(&mut w);
        w.bytes(payload);
        w.finish().unwrap().to_vec()
    }

    #[test]
    fn derives_the_session_keys_of_the_standard_and_of_the_vectors() {
        let v = vectors("srtp");
        for (root, keys) in [(&v["rfc3711_b3"], &v["rfc3711_b3"]), (&v, &v["derived"])] {
            let master = master(root);
            let prf = Aes128Enc::new(master.key().into());
            let names = ["rtp_key", "rtp_auth", "rtp_salt", "rtcp_key", "rtcp_auth", "rtcp_salt"];
            for (label, name) in names.into_iter().enumerate() {
                let want = hex(&keys[name]);
                let mut got = vec![0; want.len()];
                derive(&prf, master.salt(), label as u8, &mut got);
                assert_eq!(got, want, "{name}");
            }
        }
    }

    #[test]
    fn seals_the_packets_of_the_vectors() {
        for (runs, rtcp) in [(rtp_runs(), false), (rtcp_runs(), true)] {
            for run in runs {
                let mut sealer = Sealer::new(&ours());
                for (plain, protected) in run {
                    assert_eq!(sealed(&mut sealer, &plain, rtcp), Some(protected));
                }
            }
        }
    }

    #[test]
    fn opens_the_packets_of_the_vectors_once() {
        for (runs, rtcp) in [(rtp_runs(), false), (rtcp_runs(), true)] {
            for run in runs {
                let mut opener = Opener::new(&ours());
                for (plain, protected) in &run {
                    assert_eq!(opened(&mut opener, protected, rtcp).as_ref(), Some(plain));
                }
                for (_, protected) in &run {
                    assert_eq!(opened(&mut opener, protected, rtcp), None);
                }
            }
        }
    }

    #[test]
    fn rejects_what_the_vectors_reject() {
        let v = vectors("srtp");
        let (altered, again) = (hex(&v["rejects"][0]["protected"]), hex(&v["rejects"][1]["protected"]));
        let mut opener = Opener::new(&ours());
        assert_eq!(opened(&mut opener, &altered, false), None);
        assert!(opened(&mut opener, &again, false).is_some());
        assert_eq!(opened(&mut opener, &again, false), None);
    }

    #[test]
    fn refuses_truncated_and_altered_packets_and_forgets_them() {
        for (runs, rtcp) in [(rtp_runs(), false), (rtcp_runs(), true)] {
            for run in runs {
                let mut opener = Opener::new(&ours());
                for (plain, protected) in run {
                    for n in 0..protected.len() {
                        assert_eq!(opened(&mut opener, &protected[..n], rtcp), None, "{n} bytes");
                    }
                    for at in 0..protected.len() {
                        let mut altered = protected.clone();
                        altered[at] ^= 1 << (at % 8);
                        assert_eq!(opened(&mut opener, &altered, rtcp), None, "byte {at}");
                    }
                    assert_eq!(opened(&mut opener, &protected, rtcp), Some(plain));
                }
            }
        }
    }

    #[test]
    fn refuses_other_keys() {
        let (key, salt) = (*ours().key(), *ours().salt());
        let altered = |mut key: [u8; 16], mut salt: [u8; 14], in_key: u8, in_salt: u8| {
            key[15] ^= in_key;
            salt[13] ^= in_salt;
            MasterKey::new(&key, &salt)
        };
        for (in_key, in_salt, fine) in [(0, 0, true), (1, 0, false), (0, 1, false)] {
            let mut opener = Opener::new(&altered(key, salt, in_key, in_salt));
            assert_eq!(opened(&mut opener, &pairs("rtp")[0].1, false).is_some(), fine);
            assert_eq!(opened(&mut opener, &pairs("srtcp")[0].1, true).is_some(), fine);
        }
        // RTP and RTCP have keys of their own.
        let mut opener = Opener::new(&ours());
        assert_eq!(opened(&mut opener, &pairs("rtp")[0].1, true), None);
        assert_eq!(opened(&mut opener, &pairs("srtcp")[0].1, false), None);
    }

    #[test]
    fn noise_opens_nothing() {
        let mut noise = Noise::new(3);
        let mut opener = Opener::new(&ours());
        for _ in 0..5000 {
            let mut bytes = noise.bytes(80);
            if let Some(b) = bytes.first_mut() {
                *b = *b & 0x3f | 0x80;
            }
            assert_eq!(opened(&mut opener, &bytes, false), None);
            assert_eq!(opened(&mut opener, &bytes, true), None);
        }
    }

    #[test]
    fn only_the_payload_is_encrypted() {
        let mut plain = packet(7, 1, &[]);
        plain[0] |= 0x12;
        plain.extend([0x55; 8]);
        plain.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        let text_at = plain.len();
        plain.extend([0; 40]);
        let sealed = sealed(&mut Sealer::new(&ours()), &plain, false).unwrap();
        assert_eq!(sealed[..text_at], plain[..text_at]);
        assert!(sealed[text_at..].chunks(10).all(|c| c != [0; 10]));
        assert_eq!(opened(&mut Opener::new(&ours()), &sealed, false), Some(plain));
        // The extension is not there: nothing to seal.
        let short = [&[0x90][..], &packet(7, 1, &[])[1..]].concat();
        assert_eq!(super::tests::sealed(&mut Sealer::new(&ours()), &short, false), None);
    }

    #[test]
    fn keeps_the_rollover_counter_through_loss_reorder_and_duplicates() {
        let mut noise = Noise::new(4);
        let (mut sealer, mut opener) = (Sealer::new(&ours()), Opener::new(&ours()));
        let mut on_the_way: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut sequence, mut wraps, mut arrived, mut sent) = (32_000u16, 0, 0, 0);
        while wraps < 4 {
            // Most steps are 1; leaps bring the next wrap near.
            let step = if noise.below(300) == 0 { 20_000 } else { 1 };
            let next = sequence.wrapping_add(step);
            wraps += u32::from(next < sequence);
            sequence = next;
            let plain = packet(9, sequence, &[wraps as u8; 20]);
            let protected = sealed(&mut sealer, &plain, false).unwrap();
            if step > 1 {
                on_the_way.clear();
            }
            sent += 1;
            on_the_way.push((plain, protected));
            while on_the_way.len() > 20 {
                let (plain, protected) = on_the_way.remove(noise.below(20) as usize);
                if noise.below(10) == 0 {
                    continue;
                }
                // Anything older than the window may be refused; 20 on the way never are that old for long.
                if let Some(text) = opened(&mut opener, &protected, false) {
                    assert_eq!(text, plain);
                    arrived += 1;
                }
                assert_eq!(opened(&mut opener, &protected, false), None);
            }
        }
        assert!(sent > 1000 && arrived * 10 > sent * 7, "{arrived} of {sent}");
    }

    #[test]
    fn a_packet_from_before_the_wrap_opens_after_it() {
        let mut sealer = Sealer::new(&ours());
        let all: Vec<_> = (0..20u16)
            .map(|i| {
                let plain = packet(9, 65_526u16.wrapping_add(i), b"payload");
                (sealed(&mut sealer, &plain, false).unwrap(), plain)
            })
            .collect();
        let mut opener = Opener::new(&ours());
        // 65526, then 3 (across the wrap), and now all the others, backwards.
        for i in [0, 13].into_iter().chain((1..20).rev().filter(|i| *i != 13)) {
            assert_eq!(opened(&mut opener, &all[i].0, false).as_ref(), Some(&all[i].1), "{i}");
        }
        for (protected, _) in &all {
            assert_eq!(opened(&mut opener, protected, false), None);
        }
    }

    #[test]
    fn another_stream_takes_over_only_with_a_valid_tag() {
        let seal = |ssrc, sequence| {
            let mut report = vec![0x80, 201, 0, 1];
            report.extend(u32::to_be_bytes(ssrc));
            report.extend([sequence as u8; 4]);
            let mut sealer = Sealer::new(&ours());
            sealer.rtcp_index = u32::from(sequence);
            let rtp = sealed(&mut sealer, &packet(ssrc, sequence, b"payload"), false).unwrap();
            [rtp, sealed(&mut sealer, &report, true).unwrap()]
        };
        for (rtcp, i) in [(false, 0), (true, 1)] {
            let mut opener = Opener::new(&ours());
            let first = &seal(1, 500)[i];
            assert!(opened(&mut opener, first, rtcp).is_some());
            let mut forged = seal(2, 100)[i].clone();
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(opened(&mut opener, &forged, rtcp), None);
            assert_eq!(opened(&mut opener, first, rtcp), None, "the window was kept");
            assert!(opened(&mut opener, &seal(1, 501)[i], rtcp).is_some());
            // Its own numbers, far below those of the old stream.
            assert!(opened(&mut opener, &seal(2, 100)[i], rtcp).is_some());
            assert_eq!(opened(&mut opener, &seal(2, 100)[i], rtcp), None);
            assert!(opened(&mut opener, &seal(2, 99)[i], rtcp).is_some());
        }
    }

    #[test]
    fn never_uses_an_index_twice() {
        let mut sealer = Sealer::new(&ours());
        let mut seal = |ssrc, sequence| sealed(&mut sealer, &packet(ssrc, sequence, b"payload"), false).is_some();
        assert!(seal(1, 40_000));
        for (ssrc, sequence, fine) in [
            (1, 40_000, false),
            (1, 39_999, false),
            (2, 40_001, false),
            (1, 40_000u16.wrapping_add(0x8000), false),
            (1, 40_000u16.wrapping_add(0x7fff), true),
            (1, 40_001, false),
            (1, 7232, true),
        ] {
            assert_eq!(seal(ssrc, sequence), fine, "{ssrc} {sequence}");
        }
        assert_eq!(sealer.last, Some((1, 65_536 + 7232)));
    }

    #[test]
    fn a_used_up_key_seals_no_more() {
        let mut sealer = Sealer::new(&ours());
        sealer.last = Some((1, (1 << 48) - 2));
        assert!(sealed(&mut sealer, &packet(1, 0xffff, b"last"), false).is_some());
        assert_eq!(sealed(&mut sealer, &packet(1, 0, b"no more"), false), None);
        let report = &pairs("srtcp")[0].0;
        sealer.rtcp_index = ENCRYPTED - 1;
        let last = sealed(&mut sealer, report, true).unwrap();
        assert_eq!(sealed(&mut sealer, report, true), None);
        assert_eq!(opened(&mut Opener::new(&ours()), &last, true).as_ref(), Some(report));
    }

    #[test]
    fn without_room_nothing_is_sealed() {
        let (plain, protected) = &pairs("rtp")[0];
        let (report, protected_report) = &pairs("srtcp")[0];
        let mut sealer = Sealer::new(&ours());
        for room in 0..TAG_BYTES {
            let mut bytes = plain.clone();
            bytes.resize(plain.len() + room, 0);
            assert_eq!(sealer.seal_rtp(&mut bytes, plain.len()), None);
            assert!(bytes.starts_with(plain));
        }
        for room in 0..RTCP_TRAILER_BYTES {
            let mut bytes = report.clone();
            bytes.resize(report.len() + room, 0);
            assert_eq!(sealer.seal_rtcp(&mut bytes, report.len()), None);
            assert!(bytes.starts_with(report));
        }
        for len in [0, 7, usize::MAX] {
            assert_eq!(sealer.seal_rtp(&mut [0x80; 40], len), None);
            assert_eq!(sealer.seal_rtcp(&mut [0x80; 40], len), None);
        }
        // Neither counted.
        assert_eq!(sealed(&mut sealer, plain, false).as_ref(), Some(protected));
        assert_eq!(sealed(&mut sealer, report, true).as_ref(), Some(protected_report));
    }

    #[test]
    fn the_keystream_is_that_of_the_rfc_up_to_its_end() {
        // RFC 3711 §B.2, with its longest packet.
        let aes = Aes128Enc::new(&0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes().into());
        let iv = 0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_0000_u128.to_be_bytes();
        let mut text = vec![0; 16 * 0xff02];
        apply_keystream(&aes, &iv, &mut text);
        for (block, keystream) in [
            (0, 0xe03e_ad09_35c9_5e80_e166_b16d_d92b_4eb4_u128),
            (1, 0xd235_1316_2b02_d0f7_2a43_a2fe_4a5f_97ab),
            (2, 0x41e9_5b3b_b0a2_e8dd_4779_01e4_fca8_94c0),
            (0xfeff, 0xec8c_df73_9860_7cb0_f2d2_1675_ea9e_a1e4),
            (0xff00, 0x362b_7c3c_6773_5163_18a0_77d7_fc50_73ae),
            (0xff01, 0x6a2c_c378_7889_374f_beb4_c81b_17ba_6c44),
        ] {
            assert_eq!(text[16 * block..][..16], keystream.to_be_bytes(), "{block:x}");
        }
        // Wherever a text ends.
        for len in 0..200 {
            let mut short = vec![0; len];
            apply_keystream(&aes, &iv, &mut short);
            assert_eq!(short, text[..len], "{len}");
        }
    }

    #[test]
    fn a_report_that_is_only_authenticated_is_read_as_it_is() {
        let (report, _) = &pairs("srtcp")[2];
        let index = 77u32.to_be_bytes();
        let mut protected = report.clone();
        protected.extend(index);
        protected.extend(Keys::derive(&ours()).rtcp.tag(report, &index));
        assert_eq!(opened(&mut Opener::new(&ours()), &protected, true).as_ref(), Some(report));
    }

    #[test]
    fn draws_master_keys_and_shows_none() {
        let mut random = FixedRandom::new(&[vec![65; 16], vec![66; 14]]);
        let drawn = MasterKey::random(&mut random);
        assert_eq!((drawn.key(), drawn.salt()), (&[65; 16], &[66; 14]));
        assert_ne!(MasterKey::random(&mut random).key(), MasterKey::random(&mut random).key());
        assert_eq!(format!("{drawn:?}"), "MasterKey { key: …, salt: … }");
        assert_eq!(
            format!("{:?}", Sealer::new(&drawn)),
            "Sealer { keys: Keys { rtp: …, rtcp: … }, last: None, rtcp_index: 0 }"
        );
        assert!(format!("{:?}", Opener::new(&drawn)).starts_with("Opener { keys: Keys { rtp: …, rtcp: … }, rtp: None"));
    }
}
