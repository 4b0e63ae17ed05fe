//! Talk-back: Opus packets as the network delivers them become PCM as a speaker takes it.

use super::microphone::scale;
use super::opus::Decoder;
use super::resample::Resampler;
use crate::time::{Duration, Instant};
use crate::wire::opus::Packet;

/// Packets that are held: of 20 ms, 320 ms.
const SLOTS: usize = 16;
/// Bytes of a packet: 60 ms at 53 kbit/s. Controllers send a third of that.
const SLOT_BYTES: usize = 400;
/// What is handed out at once.
const STEP: Duration = Duration::from_millis(20);
/// From the first packet of a talk until it is heard.
const DELAY: Duration = Duration::from_millis(80);
/// More sound than this behind the packet whose turn it is is a delay that nobody needs: that packet is left out.
const MOST_HELD_MS: u32 = 120;
/// Nothing has come for so long: the talk is over.
const OVER: Duration = Duration::from_millis(500);
/// Longest that the decoder makes up for packets which have not come; then there is silence.
const CONCEALED_MS: u32 = 100;
/// Behind by more than this, the caller was held up: what should have been heard meanwhile is not caught up on.
const LATE: Duration = Duration::from_millis(200);

/// The buffer between the network and the speaker. All its memory is claimed at construction.
pub struct Jitter {
    slots: Box<[Slot; SLOTS]>,
    decoder: Decoder,
    resampler: Resampler,
    rate_hz: u32,
    sink_rate_hz: u32,
    state: State,
    /// When the last packet came.
    heard: Instant,
    /// PCM of the decoder that was not handed out, at the sink's rate.
    pcm: Box<[i16]>,
    held: usize,
    scratch: Box<[i16]>,
    muted: bool,
    volume_percent: u8,
    counts: Counts,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Sequence number; meaningful when `len` is not 0.
    sequence: u16,
    len: u16,
    duration_ms: u8,
    bytes: [u8; SLOT_BYTES],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Resting,
    Playing {
        /// The packet that is decoded next.
        next: u16,
        /// When the next step is due.
        due: Instant,
        /// Duration of the packet before.
        packet_ms: u32,
        /// Milliseconds that were made up since the last packet that was there.
        concealed_ms: u32,
    },
}

/// What happened to packets, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Packets that came and were put aside for their turn.
    pub received: u32,
    /// Packets whose turn was over.
    pub late: u32,
    /// Packets that came a second time.
    pub duplicate: u32,
    /// Packets that were no Opus, or too long.
    pub malformed: u32,
    /// Packets that did not come in time; the decoder made something up.
    pub lost: u32,
    /// Packets left out because too many waited.
    pub skipped: u32,
}

impl Jitter {
    /// Samples of the largest step: 20 ms at 48 kHz.
    pub const MAX_STEP: usize = 960;

    /// For a sink of that rate, 8,000 to 48,000 Hz.
    pub fn new(sink_rate_hz: u32) -> Self {
        let sink_rate_hz = sink_rate_hz.clamp(8_000, 48_000);
        let rate_hz = Decoder::rate_near(sink_rate_hz);
        Jitter {
            slots: Box::new([Slot { sequence: 0, len: 0, duration_ms: 0, bytes: [0; SLOT_BYTES] }; SLOTS]),
            decoder: Decoder::new(rate_hz),
            resampler: Resampler::new(rate_hz, sink_rate_hz),
            rate_hz,
            sink_rate_hz,
            state: State::Resting,
            heard: Instant::ZERO,
            // A step's remainder and the longest packet.
            pcm: vec![0; sink_rate_hz as usize / 1_000 * 160].into_boxed_slice(),
            held: 0,
            scratch: vec![0; rate_hz as usize / 1_000 * 120].into_boxed_slice(),
            muted: false,
            volume_percent: 100,
            counts: Counts::default(),
        }
    }

    /// The sink's rate in Hz.
    pub fn sink_rate_hz(&self) -> u32 {
        self.sink_rate_hz
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Mute of the speaker: steps of silence come out.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Volume of the speaker, 0 to 100.
    pub fn set_volume(&mut self, percent: u8) {
        self.volume_percent = percent.min(100);
    }

    /// Whether somebody talks.
    pub fn is_playing(&self) -> bool {
        self.state != State::Resting
    }

    /// A packet of the network, authenticated. Its sequence number says where it belongs: one controller's packets all
    /// last equally long, so that the timestamp says no more.
    pub fn push(&mut self, sequence: u16, _timestamp: u32, payload: &[u8], now: Instant) {
        let Some(duration_ms) = duration_ms(payload) else {
            self.counts.malformed = self.counts.malformed.wrapping_add(1);
            return;
        };
        if let State::Playing { next, .. } = self.state {
            let ahead = sequence.wrapping_sub(next) as i16;
            if (-64..0).contains(&ahead) {
                self.counts.late = self.counts.late.wrapping_add(1);
                return;
            }
            if !(0..SLOTS as i16).contains(&ahead) {
                // Another stream, or a hole that nothing can fill.
                self.flush();
            }
        }
        self.heard = now;
        let slot = &mut self.slots[usize::from(sequence) % SLOTS];
        if slot.len != 0 && slot.sequence == sequence {
            self.counts.duplicate = self.counts.duplicate.wrapping_add(1);
            return;
        }
        slot.sequence = sequence;
        slot.len = payload.len() as u16;
        slot.duration_ms = duration_ms;
        slot.bytes[..payload.len()].copy_from_slice(payload);
        self.counts.received = self.counts.received.wrapping_add(1);
        if self.state == State::Resting {
            let packet_ms = u32::from(duration_ms);
            self.state = State::Playing { next: sequence, due: now + DELAY, packet_ms, concealed_ms: 0 };
        }
    }

    /// When [`Jitter::poll_sound`] has something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Resting => None,
            State::Playing { due, .. } => Some(due),
        }
    }

    /// The next 20 ms at the sink's rate, once they are due; call until `None`. A talk that is over leaves nothing.
    pub fn poll_sound(&mut self, now: Instant, out: &mut [i16]) -> Option<usize> {
        let State::Playing { due, .. } = self.state else { return None };
        if now < due {
            return None;
        }
        if now - self.heard >= OVER {
            self.flush();
            return None;
        }
        let step = (self.sink_rate_hz / 50) as usize;
        let out = out.get_mut(..step)?;
        while self.held < step {
            self.refill();
        }
        out.copy_from_slice(&self.pcm[..step]);
        self.pcm.copy_within(step..self.held, 0);
        self.held -= step;
        if self.muted {
            out.fill(0);
        } else {
            scale(out, self.volume_percent);
        }
        if let State::Playing { due, .. } = &mut self.state {
            *due += STEP;
            if now - *due > LATE {
                *due = now;
            }
        }
        Some(step)
    }

    /// Forgets all packets and sound: the next packet begins a talk.
    pub fn flush(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.len = 0);
        self.state = State::Resting;
        self.held = 0;
        self.resampler.reset();
    }

    fn is_there(&self, sequence: u16) -> bool {
        let slot = &self.slots[usize::from(sequence) % SLOTS];
        slot.len != 0 && slot.sequence == sequence
    }

    fn held_ms(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.len != 0).map(|slot| u32::from(slot.duration_ms)).sum()
    }

    /// Decodes the next packet, or makes something up for it.
    fn refill(&mut self) {
        let State::Playing { next, packet_ms, concealed_ms, .. } = &mut self.state else { return };
        let (sequence, lasts_ms, made_up_ms) = (*next, *packet_ms, *concealed_ms);
        if self.held_ms() > MOST_HELD_MS + lasts_ms && self.is_there(sequence) {
            self.slots[usize::from(sequence) % SLOTS].len = 0;
            self.counts.skipped = self.counts.skipped.wrapping_add(1);
            self.advance(0);
            return;
        }
        let samples = if self.is_there(sequence) {
            let slot = &mut self.slots[usize::from(sequence) % SLOTS];
            let len = usize::from(core::mem::take(&mut slot.len));
            let decoded = self.decoder.decode(&slot.bytes[..len], &mut self.scratch);
            let lasts_ms = u32::from(slot.duration_ms);
            if let State::Playing { packet_ms, .. } = &mut self.state {
                *packet_ms = lasts_ms;
            }
            self.advance(0);
            decoded.unwrap_or_else(|| {
                self.counts.malformed = self.counts.malformed.wrapping_add(1);
                silence(&mut self.scratch, self.rate_hz, lasts_ms)
            })
        } else if self.held_ms() > 0 {
            // One that follows is there, so this one is lost.
            self.counts.lost = self.counts.lost.wrapping_add(1);
            self.advance(made_up_ms + lasts_ms);
            self.conceal(lasts_ms, made_up_ms)
        } else {
            // Nothing is there: the network lags behind, or the talk is over. The packet keeps its turn.
            if let State::Playing { concealed_ms, .. } = &mut self.state {
                *concealed_ms = made_up_ms + 20;
            }
            self.conceal(20, made_up_ms)
        };
        let (room, held) = (&mut self.pcm, &mut self.held);
        self.resampler.push(&self.scratch[..samples], |sample| {
            if let Some(place) = room.get_mut(*held) {
                *place = sample;
                *held += 1;
            }
        });
    }

    fn advance(&mut self, made_up_ms: u32) {
        if let State::Playing { next, concealed_ms, .. } = &mut self.state {
            *next = next.wrapping_add(1);
            *concealed_ms = made_up_ms;
        }
    }

    fn conceal(&mut self, ms: u32, made_up_ms: u32) -> usize {
        if made_up_ms >= CONCEALED_MS {
            return silence(&mut self.scratch, self.rate_hz, ms);
        }
        let samples = (self.rate_hz / 1_000 * ms) as usize;
        match self.scratch.get_mut(..samples).and_then(|out| self.decoder.conceal(out)) {
            Some(samples) => samples,
            None => silence(&mut self.scratch, self.rate_hz, ms),
        }
    }
}

fn silence(scratch: &mut [i16], rate_hz: u32, ms: u32) -> usize {
    let samples = ((rate_hz / 1_000 * ms) as usize).min(scratch.len());
    scratch[..samples].fill(0);
    samples
}

/// How long a packet that can be held lasts: whole tens of milliseconds.
fn duration_ms(payload: &[u8]) -> Option<u8> {
    let packet = Packet::parse(payload).ok().filter(|_| payload.len() <= SLOT_BYTES)?;
    let us = packet.duration_us();
    (us % 10_000 == 0 && us <= 120_000).then_some((us / 1_000) as u8)
}

#[cfg(test)]
mod tests {
    use super::super::opus::Encoder;
    use super::super::resample::tests::{amplitude, strongest, tone};
    use super::*;

    /// A tone of some seconds as packets, one after the other.
    fn talk(seconds: usize, packet_ms: usize) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(16_000, 24);
        let pcm = tone(440.0, 16_000, 16_000 * seconds);
        let mut packet = [0; 400];
        let encode = |frame| encoder.encode(frame, &mut packet).map(|len| packet[..len].to_vec()).expect("a frame");
        pcm.chunks_exact(16 * packet_ms).map(encode).collect()
    }

    const fn ms(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    /// What a speaker plays when packet `n` of `(sequence, arrival in ms, payload)` comes, until the talk is over.
    fn played(jitter: &mut Jitter, mut network: Vec<(u16, u64, Vec<u8>)>) -> Vec<i16> {
        network.sort_by_key(|packet| packet.1);
        let mut out = [0; Jitter::MAX_STEP];
        let mut pcm = Vec::new();
        let mut packets = network.into_iter().peekable();
        let mut at = 0;
        while packets.peek().is_some() || jitter.is_playing() {
            while let Some((sequence, _, payload)) = packets.next_if(|packet| packet.1 <= at) {
                jitter.push(sequence, 0, &payload, ms(at));
            }
            while let Some(samples) = jitter.poll_sound(ms(at), &mut out) {
                pcm.extend_from_slice(&out[..samples]);
            }
            at += 1;
            assert!(at < 60_000, "it never ends");
        }
        pcm
    }

    fn in_order(packets: Vec<Vec<u8>>, packet_ms: u64) -> Vec<(u16, u64, Vec<u8>)> {
        packets
            .into_iter()
            .enumerate()
            .map(|(n, p)| (65_500u16.wrapping_add(n as u16), n as u64 * packet_ms, p))
            .collect()
    }

    #[test]
    fn a_tone_comes_out_at_the_sinks_rate() {
        for (rate_hz, packet_ms) in [(8_000, 20), (16_000, 20), (16_000, 60), (44_100, 20), (48_000, 60)] {
            let mut jitter = Jitter::new(rate_hz);
            let pcm = played(&mut jitter, in_order(talk(2, packet_ms), packet_ms as u64));
            let sound = &pcm[rate_hz as usize..][..rate_hz as usize / 10];
            assert_eq!(strongest(sound, rate_hz), 440, "{rate_hz} Hz, {packet_ms} ms");
            assert!(amplitude(sound, 440.0, rate_hz) > 7_000.0);
            let counts = jitter.counts();
            assert_eq!((counts.received, counts.lost, counts.late), ((2_000 / packet_ms) as u32, 0, 0));
            // The talk, and what is made up until it counts as over.
            assert!((2_000..2_600).contains(&(pcm.len() as u32 / (rate_hz / 1_000))), "{}", pcm.len());
        }
    }

    #[test]
    fn it_starts_after_the_delay_and_every_20_ms() {
        let mut jitter = Jitter::new(16_000);
        let mut out = [0; Jitter::MAX_STEP];
        assert_eq!((jitter.poll_timeout(), jitter.poll_sound(ms(0), &mut out)), (None, None));
        jitter.push(1, 0, &talk(1, 20)[0], ms(1_000));
        assert_eq!(jitter.poll_timeout(), Some(ms(1_080)));
        assert_eq!(jitter.poll_sound(ms(1_079), &mut out), None);
        assert_eq!(jitter.poll_sound(ms(1_080), &mut out), Some(320));
        assert_eq!(jitter.poll_sound(ms(1_080), &mut out), None);
        assert_eq!(jitter.poll_timeout(), Some(ms(1_100)));
        assert_eq!(jitter.poll_sound(ms(1_100), &mut [0; 319]), None);
        assert_eq!(jitter.poll_sound(ms(1_499), &mut out), Some(320));
        assert_eq!(jitter.poll_sound(ms(1_500), &mut out), None);
        assert!(!jitter.is_playing());
    }

    #[test]
    fn order_duplicates_and_jitter_do_not_matter() {
        let packets = in_order(talk(2, 20), 20);
        let plain = played(&mut Jitter::new(16_000), packets.clone());
        // Swapped pairs, every fifth one twice, up to 50 ms late.
        let mut shaken = Vec::new();
        for (n, (sequence, at, payload)) in packets.into_iter().enumerate() {
            let late = if n == 0 { 0 } else { (n as u64 * 37) % 50 };
            if n % 5 == 1 {
                shaken.push((sequence, at + late + 3, payload.clone()));
            }
            shaken.push((sequence, at + late, payload));
        }
        let mut jitter = Jitter::new(16_000);
        let shaken = played(&mut jitter, shaken);
        assert_eq!(jitter.counts().duplicate + jitter.counts().late, 20);
        assert_eq!(jitter.counts().lost, 0);
        assert_eq!(plain[..32_000], shaken[..32_000]);
    }

    #[test]
    fn what_is_lost_is_concealed() {
        let mut packets = in_order(talk(3, 20), 20);
        let mut n = 0;
        packets.retain(|_| {
            n += 1;
            n % 10 != 5
        });
        let mut jitter = Jitter::new(16_000);
        let pcm = played(&mut jitter, packets);
        assert_eq!(jitter.counts().lost, 15);
        assert_eq!(strongest(&pcm[16_000..20_000], 16_000), 440);
        // Nowhere a hole of 10 ms.
        assert!(pcm[8_000..40_000].chunks(160).all(|piece| piece.iter().any(|s| s.abs() > 500)));
    }

    #[test]
    fn a_packet_that_comes_too_late_is_dropped() {
        let mut packets = in_order(talk(2, 20), 20);
        packets[20].1 += 200;
        let mut jitter = Jitter::new(16_000);
        played(&mut jitter, packets);
        assert_eq!((jitter.counts().late, jitter.counts().lost), (1, 1));
    }

    #[test]
    fn a_slower_network_is_followed_and_caught_up_with() {
        let mut packets = in_order(talk(4, 20), 20);
        // From one second on everything comes 150 ms later; from two seconds on as before.
        for (n, packet) in packets.iter_mut().enumerate() {
            if (50..100).contains(&n) {
                packet.1 += 150;
            }
        }
        let mut jitter = Jitter::new(16_000);
        let pcm = played(&mut jitter, packets);
        let counts = jitter.counts();
        assert!(counts.late + counts.lost < 10 && counts.skipped > 0, "{counts:?}");
        assert_eq!(strongest(&pcm[16_000 * 3..][..4_000], 16_000), 440);
    }

    #[test]
    fn clocks_that_differ_stay_together() {
        // The controller's clock is 1 % fast, then 1 % slow: far more than real ones.
        for step in [19_800, 20_200] {
            let packets: Vec<_> = talk(20, 20)
                .into_iter()
                .enumerate()
                .map(|(n, payload)| (n as u16, n as u64 * step / 1_000, payload))
                .collect();
            let last = packets.last().unwrap().1;
            let mut jitter = Jitter::new(16_000);
            let pcm = played(&mut jitter, packets);
            let counts = jitter.counts();
            assert!(counts.late == 0 && counts.skipped < 20, "{counts:?}");
            let heard_ms = pcm.len() as u64 / 16;
            assert!(heard_ms.abs_diff(last + 500) < 250, "{heard_ms} {last}");
        }
    }

    #[test]
    fn a_new_talk_and_another_stream_begin_anew() {
        let packets = talk(1, 20);
        let mut network = in_order(packets.clone(), 20);
        network.extend(packets.iter().enumerate().map(|(n, p)| (n as u16, 3_000 + n as u64 * 20, p.clone())));
        // In the middle of a talk: other numbers.
        network.extend(packets.iter().enumerate().map(|(n, p)| (9_000 + n as u16, 4_000 + n as u64 * 20, p.clone())));
        let mut jitter = Jitter::new(16_000);
        let pcm = played(&mut jitter, network);
        assert_eq!(jitter.counts().received, 150);
        assert!(pcm.len() > 16_000 * 29 / 10);
    }

    #[test]
    fn mute_and_volume_act() {
        let packets = in_order(talk(1, 20), 20);
        let mut jitter = Jitter::new(16_000);
        jitter.set_muted(true);
        assert!(played(&mut jitter, packets.clone()).iter().all(|&s| s == 0));
        jitter.set_muted(false);
        jitter.set_volume(25);
        let pcm = played(&mut jitter, packets);
        let level = amplitude(&pcm[8_000..9_600], 440.0, 16_000);
        assert!((1_700.0..3_300.0).contains(&level), "{level}");
    }

    #[test]
    fn who_was_held_up_does_not_catch_up() {
        let mut jitter = Jitter::new(16_000);
        let mut out = [0; Jitter::MAX_STEP];
        for (n, packet) in talk(1, 20).into_iter().take(16).enumerate() {
            jitter.push(n as u16, 0, &packet, ms(n as u64));
        }
        let steps = core::iter::from_fn(|| jitter.poll_sound(ms(450), &mut out)).count();
        assert!(steps < 13, "{steps}");
    }

    #[test]
    fn anything_may_come() {
        let mut state = 11u32;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize
        };
        let good = talk(1, 20);
        let mut jitter = Jitter::new(24_000);
        let mut out = [0; Jitter::MAX_STEP];
        let mut now = 0;
        for n in 0..4_000u16 {
            let mut packet = good[next() % good.len()].clone();
            match next() % 4 {
                0 => packet = (0..next() % 500).map(|_| next() as u8).collect(),
                1 => {
                    let at = next() % packet.len();
                    packet[at] ^= 1 << (next() % 8);
                }
                _ => {}
            }
            let sequence = if next() % 20 == 0 { next() as u16 } else { n };
            jitter.push(sequence, next() as u32, &packet, ms(now));
            now += next() as u64 % 40;
            while let Some(samples) = jitter.poll_sound(ms(now), &mut out) {
                assert_eq!(samples, 480);
            }
        }
        let counts = jitter.counts();
        assert!(counts.malformed > 300 && counts.received > 1_000, "{counts:?}");
    }
}
