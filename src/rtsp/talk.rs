//! What is said on its way to the server's loudspeaker (ONVIF Streaming Specification §5.3, back channel): G.711 in RTP
//! packets of 20 ms.

use crate::media::g711;
use crate::time::{Duration, Instant};
use crate::wire::Writer;
use crate::wire::rtp::{HEADER_BYTES, Header};

/// Samples a second of what a back channel takes: each ONVIF device has G.711, and that is its rate.
pub const RATE_HZ: u32 = 8_000;

/// Samples of a packet, one byte each.
const PACKET: usize = 160;

/// How long a packet lasts.
const PACKET_TIME: Duration = Duration::from_millis(20);

/// Samples that wait while the connection comes about: 250 ms. Of more, the oldest are given up; who talks is in the
/// present.
const HELD: usize = 2_000;

/// Later than this, time begins anew.
const LATE: Duration = Duration::from_millis(100);

/// One talk.
pub struct Talk {
    held: heapless::Deque<i16, HELD>,
    /// A-law, not µ-law.
    alaw: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    /// When the next packet may leave.
    due: Instant,
    /// A packet has left, and the next follows it.
    flows: bool,
}

impl Talk {
    /// `seed` should be another one each time (RFC 3550 §5.1).
    pub fn new(seed: u32) -> Self {
        Talk {
            held: heapless::Deque::new(),
            alaw: false,
            sequence: (seed >> 16) as u16,
            timestamp: seed.rotate_left(9),
            ssrc: !seed,
            due: Instant::ZERO,
            flows: false,
        }
    }

    /// Which of the two laws the server wants.
    pub fn set_alaw(&mut self, alaw: bool) {
        self.alaw = alaw;
    }

    /// Says these samples at [`RATE_HZ`].
    pub fn push(&mut self, pcm: &[i16]) {
        for sample in pcm {
            if self.held.is_full() {
                self.held.pop_front();
            }
            // There is room.
            let _ = self.held.push_back(*sample);
        }
    }

    /// When [`Talk::put`] has something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.held.len() >= PACKET).then_some(self.due)
    }

    /// Emits the next packet, framed for `channel` (RFC 2326 §10.12), when it is due.
    pub fn put(&mut self, w: &mut Writer<'_>, channel: u8, payload_type: u8, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return false;
        }
        let late = now - self.due > LATE;
        self.due = if late { now } else { self.due } + PACKET_TIME;
        // The first one after a rest (RFC 3551 §4.1).
        let marker = !core::mem::replace(&mut self.flows, true) || late;
        w.u8(b'$');
        w.u8(channel);
        w.u16_be((HEADER_BYTES + PACKET) as u16);
        Header { marker, payload_type, sequence: self.sequence, timestamp: self.timestamp, ssrc: self.ssrc }.put(w);
        let encode = if self.alaw { g711::to_alaw } else { g711::to_ulaw };
        for sample in (0..PACKET).map_while(|_| self.held.pop_front()) {
            w.u8(encode(sample));
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(PACKET as u32);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtp::Packet;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(1_000_000 + ms * 1000)
    }

    /// What leaves at this moment: first byte decoded, marker, time.
    fn sent(talk: &mut Talk, now: Instant) -> Vec<(i16, bool, u32)> {
        let mut out = Vec::new();
        loop {
            let mut room = [0; 300];
            let mut w = Writer::new(&mut room);
            if !talk.put(&mut w, 2, 8, now) {
                return out;
            }
            let bytes = w.finish().unwrap();
            assert_eq!((&bytes[..4], bytes.len()), (&[b'$', 2, 0, 172][..], 176));
            let packet = Packet::parse(&bytes[4..]).unwrap();
            assert_eq!((packet.header.payload_type, packet.payload.len()), (8, 160));
            out.push((g711::from_alaw(packet.payload[0]), packet.header.marker, packet.header.timestamp));
        }
    }

    #[test]
    fn a_packet_every_20_ms() {
        let mut talk = Talk::new(1);
        talk.set_alaw(true);
        let begun = 1u32.rotate_left(9);
        assert_eq!((talk.poll_timeout(), sent(&mut talk, at(0))), (None, vec![]));
        // What was said before the connection stood: the newest 250 ms of it, one packet after the other.
        for n in 0..50i16 {
            talk.push(&[n * 512 + 8; 100]);
        }
        let mut all = sent(&mut talk, at(0));
        assert_eq!(all, [(30 * 512 + 256, true, begun)]);
        for ms in 1..400 {
            let out = sent(&mut talk, at(ms));
            assert!(out.len() <= 1 && (out.is_empty() || ms % 20 == 0), "{ms} {out:?}");
            all.extend(out);
        }
        assert_eq!(all.len(), 12, "80 samples wait for more");
        assert!(all[1..].iter().all(|(_, marker, _)| !marker));
        assert!(all.windows(2).all(|w| w[1].2 - w[0].2 == 160));
        // After a rest.
        talk.push(&[0; 160]);
        assert_eq!(sent(&mut talk, at(800)).iter().map(|p| p.1).collect::<Vec<_>>(), [true]);
        talk.push(&[0; 80]);
        assert_eq!(talk.poll_timeout(), Some(at(820)));
        // Timers that are a little late do not add up.
        assert_eq!(sent(&mut talk, at(828)).len(), 1);
        talk.push(&[0; 160]);
        assert_eq!(talk.poll_timeout(), Some(at(840)));
    }
}
