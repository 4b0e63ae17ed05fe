//! RTP payloads of H.264 in packetization mode 1 (RFC 6184 §5.6 to §5.8).

use crate::media::VideoParameters;
use crate::wire::Writer;

/// A position in the packets of one picture, whose NAL units have 4-byte lengths in front of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Packets {
    /// Parameter sets that have been sent, SPS first.
    sets: usize,
    /// Where in the picture the length of the next NAL unit stands.
    at: usize,
    /// Bytes of that NAL unit that have been sent, its header included.
    sent: usize,
}

impl Packets {
    /// Nothing of the picture has been sent.
    pub(super) fn is_at_start(&self) -> bool {
        *self == Packets::default()
    }

    /// Writes the payload of the next packet, `limit` bytes at most; whether it is the last one of the
    /// picture. `None` when there is no more. `sets` goes in front of an IDR picture, so that a decoder
    /// can begin at each.
    pub(super) fn put_next(
        &mut self,
        picture: &[u8],
        sets: Option<&VideoParameters>,
        limit: usize,
        w: &mut Writer<'_>,
    ) -> Option<bool> {
        if let Some(sets) = sets
            && self.put_sets(sets, limit, w)
        {
            return Some(false);
        }
        let nal = nal_at(picture, self.at)?;
        let end = self.at + LENGTH_BYTES + nal.len();
        if nal.len() <= limit {
            w.bytes(nal);
            (self.at, self.sent) = (end, 0);
        } else {
            self.put_fragment(nal, limit, w);
            if self.sent == nal.len() {
                (self.at, self.sent) = (end, 0);
            }
        }
        Some(self.sent == 0 && nal_at(picture, self.at).is_none())
    }

    /// As many parameter sets as fit, as one STAP-A (RFC 6184 §5.7.1); whether there was one left.
    fn put_sets(&mut self, sets: &VideoParameters, limit: usize, w: &mut Writer<'_>) -> bool {
        let left = || core::iter::once(&sets.sps).chain(&sets.pps).skip(self.sets);
        let Some(first) = left().next() else { return false };
        let mut bytes = 1;
        let fitting = left().take_while(|set| {
            bytes += 2 + set.len();
            bytes <= limit
        });
        let fitting = fitting.count();
        if fitting < 2 {
            w.bytes(first);
            self.sets += 1;
            return true;
        }
        // The type of the aggregate, with the highest importance of what is in it: that of parameter sets.
        w.u8(0x60 | STAP_A);
        for set in left().take(fitting) {
            w.u16_be(set.len() as u16);
            w.bytes(set);
        }
        self.sets += fitting;
        true
    }

    /// The next piece of a NAL unit that is too long, as FU-A (RFC 6184 §5.8). The header of the NAL
    /// unit is not repeated: it is divided among the two bytes in front of each piece.
    fn put_fragment(&mut self, nal: &[u8], limit: usize, w: &mut Writer<'_>) {
        let Some((&header, body)) = nal.split_first() else { return };
        let begin = self.sent.saturating_sub(1).min(body.len());
        let end = (begin + limit.saturating_sub(FU_BYTES).max(1)).min(body.len());
        w.u8(header & 0xe0 | FU_A);
        w.u8(u8::from(begin == 0) << 7 | u8::from(end == body.len()) << 6 | header & 0x1f);
        w.bytes(&body[begin..end]);
        self.sent = end + 1;
    }
}

/// How many packets [`Packets::put_next`] makes of a picture, parameter sets left out.
pub(super) fn count(picture: &[u8], limit: usize) -> u32 {
    let (mut at, mut packets) = (0, 0);
    while let Some(nal) = nal_at(picture, at) {
        at += LENGTH_BYTES + nal.len();
        let fragments = (nal.len() - 1).div_ceil(limit.saturating_sub(FU_BYTES).max(1));
        packets += if nal.len() <= limit { 1 } else { fragments as u32 };
    }
    packets
}

/// The NAL unit whose length stands at `at`. What does not add up ends the picture.
fn nal_at(picture: &[u8], at: usize) -> Option<&[u8]> {
    let (length, rest) = picture.get(at..)?.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize).filter(|nal| !nal.is_empty())
}

const LENGTH_BYTES: usize = 4;
const FU_BYTES: usize = 2;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{hex, vectors};
    use crate::wire::h264::unhex;

    fn parameters(sps: &[u8], pps: &[&[u8]]) -> VideoParameters {
        let parsed = crate::wire::h264::Sps::parse(&unhex("674d4028d9020bf97011000003000100000300140f183248")).unwrap();
        VideoParameters {
            sps: heapless::Vec::from_slice(sps).unwrap(),
            pps: pps.iter().map(|pps| heapless::Vec::from_slice(pps).unwrap()).collect(),
            parsed,
            epoch: 1,
        }
    }

    fn picture(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
    }

    fn all(picture: &[u8], sets: Option<&VideoParameters>, limit: usize) -> Vec<(Vec<u8>, bool)> {
        let (mut packets, mut out) = (Packets::default(), Vec::new());
        loop {
            let mut room = [0; 1500];
            let mut w = Writer::new(&mut room);
            let Some(marker) = packets.put_next(picture, sets, limit, &mut w) else { return out };
            out.push((w.finish().unwrap().to_vec(), marker));
            assert!(out.len() < 100_000, "it ends");
        }
    }

    #[test]
    fn the_packets_of_the_vectors() {
        let vectors = vectors("srtp");
        let h264 = &vectors["h264"];
        let limit = h264["max_payload"].as_u64().unwrap() as usize;
        let sets = parameters(&hex(&h264["sps"]), &[&hex(&h264["pps"])]);
        let expected: Vec<(Vec<u8>, bool)> = h264["payloads"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (hex(&p["hex"]), p["marker"].as_bool().unwrap()))
            .collect();
        assert_eq!(expected.len(), 4);
        assert_eq!(all(&picture(&[&hex(&h264["idr"])]), Some(&sets), limit), expected);
        let single = &h264["single"];
        let expected = [(hex(&single["payload"]), single["marker"].as_bool().unwrap())];
        assert_eq!(all(&picture(&[&hex(&single["nal"])]), None, limit), expected);
    }

    #[test]
    fn every_length_around_the_limit() {
        for limit in [20, 21, 100] {
            for length in 1..3 * limit {
                let nal: Vec<u8> = (0..length).map(|i| if i == 0 { 0x41 } else { i as u8 }).collect();
                let other = [0x41, 0x9a];
                let picture = picture(&[&nal, &other]);
                let packets = all(&picture, None, limit);
                assert_eq!(packets.len() as u32, count(&picture, limit), "{limit} {length}");
                assert!(packets.iter().all(|(p, _)| p.len() <= limit));
                let markers: Vec<bool> = packets.iter().map(|(_, marker)| *marker).collect();
                assert_eq!(markers.iter().position(|m| *m), Some(packets.len() - 1));
                let (last, fragments) = packets.split_last().unwrap();
                assert_eq!(last.0, other);
                if length <= limit {
                    assert_eq!(fragments[0].0, nal);
                    continue;
                }
                let mut whole = vec![0x41];
                for (i, (p, _)) in fragments.iter().enumerate() {
                    assert_eq!(p[0], 0x40 | 28);
                    assert_eq!(p[1] & 0x80 != 0, i == 0);
                    assert_eq!(p[1] & 0x40 != 0, i == fragments.len() - 1);
                    assert_eq!(p[1] & 0x3f, 1);
                    whole.extend(&p[2..]);
                }
                assert_eq!(whole, nal);
            }
        }
    }

    #[test]
    fn parameter_sets_that_do_not_fit_one_packet() {
        let (sps, pps) = ([0x67; 100], [0x68; 60]);
        let sets = parameters(&sps, &[&pps, &pps, &pps]);
        let idr = picture(&[&[0x65, 0x88]]);
        let lengths = |limit| all(&idr, Some(&sets), limit).iter().map(|(p, _)| p.len()).collect::<Vec<_>>();
        assert_eq!(lengths(1200), [1 + 102 + 3 * 62, 2]);
        assert_eq!(lengths(170), [1 + 102 + 62, 1 + 2 * 62, 2]);
        assert_eq!(lengths(130), [100, 1 + 2 * 62, 60, 2]);
        assert_eq!(lengths(110), [100, 60, 60, 60, 2]);
    }

    #[test]
    fn lengths_that_do_not_add_up_end_the_picture() {
        let good = picture(&[&[0x41, 1, 2]]);
        for tail in [&b"\0\0\0"[..], b"\0\0\0\x09\x41", b"\xff\xff\xff\xff\x41", b"\0\0\0\0\x41\x41"] {
            assert_eq!(all(&[&good[..], tail].concat(), None, 1200), [(vec![0x41, 1, 2], true)]);
            assert_eq!(all(tail, None, 1200), []);
            assert_eq!(count(&[&good[..], tail].concat(), 1200), 1);
        }
    }
}
