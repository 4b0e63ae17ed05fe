//! From one sampling rate to another: a windowed sinc in fixed point, one set of taps for each phase.
//!
//! Flat within 0.5 dB up to 0.8 of the lower of the two Nyquist frequencies; from 1.05 of it on nothing comes through at
//! more than -50 dB. A copy when the rates are equal.

/// Zero crossings of the sinc on each side.
const CROSSINGS: u32 = 16;

/// The -6 dB point, as a part of the lower Nyquist frequency.
const CUTOFF: f64 = 0.9;

/// Taps are Q14: their sum is 1, the sum of their magnitudes below 2, so that 16-bit samples cannot overflow 32 bits.
const SHIFT: u32 = 14;

/// A converter between two rates; the samples so far are in its memory.
pub struct Resampler {
    /// Samples out for every `step` samples in, both without common divisor.
    phases: usize,
    step: usize,
    phase: usize,
    /// `phases` sets of `taps` coefficients.
    coefficients: Box<[i16]>,
    taps: usize,
    /// The last `taps` samples twice over, so that they always lie in one piece.
    history: Box<[i16]>,
    at: usize,
}

impl Resampler {
    /// Between two rates of 8,000 to 96,000 Hz, which are brought into these bounds.
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        let (from, to) = (from_hz.clamp(8_000, 96_000), to_hz.clamp(8_000, 96_000));
        let divisor = gcd(from, to);
        let (phases, step) = ((to / divisor) as usize, (from / divisor) as usize);
        if phases == step {
            return Resampler { phases, step, phase: 0, coefficients: [].into(), taps: 0, history: [].into(), at: 0 };
        }
        // Towards a lower rate the filter is as much longer as it is narrower.
        let stretch = f64::from(from.max(to)) / f64::from(to);
        let taps = (f64::from(2 * CROSSINGS) * stretch) as usize;
        let mut coefficients = vec![0; phases * taps].into_boxed_slice();
        for (phase, set) in coefficients.chunks_exact_mut(taps).enumerate() {
            fill(set, phase as f64 / phases as f64, CUTOFF / stretch);
        }
        Resampler { phases, step, phase: 0, coefficients, taps, history: vec![0; 2 * taps].into(), at: 0 }
    }

    /// Converts `input` and hands each sample of the result to `output`.
    pub fn push(&mut self, input: &[i16], mut output: impl FnMut(i16)) {
        if self.taps == 0 {
            return input.iter().copied().for_each(output);
        }
        for &sample in input {
            self.history[self.at] = sample;
            self.history[self.at + self.taps] = sample;
            self.at = (self.at + 1) % self.taps;
            while self.phase < self.phases {
                let set = &self.coefficients[self.phase * self.taps..][..self.taps];
                let held = &self.history[self.at..][..self.taps];
                let sum: i32 = set.iter().zip(held).map(|(&c, &s)| i32::from(c) * i32::from(s)).sum();
                let rounded = (sum + (1 << (SHIFT - 1))) >> SHIFT;
                output(rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16);
                self.phase += self.step;
            }
            self.phase -= self.phases;
        }
    }

    /// Forgets the samples so far.
    pub fn reset(&mut self) {
        self.history.fill(0);
        self.phase = 0;
        self.at = 0;
    }
}

/// The taps for an output that lies `fraction` of an input sample behind the middle of the window, oldest first.
fn fill(set: &mut [i16], fraction: f64, cutoff: f64) {
    use core::f64::consts::PI;
    let (len, middle) = (set.len() as f64, set.len() as f64 / 2.0);
    let tap = |n: usize| {
        let x = n as f64 + 1.0 - middle - fraction;
        let sinc = if x == 0.0 { 1.0 } else { (PI * cutoff * x).sin() / (PI * cutoff * x) };
        // Blackman, over the window of this phase.
        let at = ((x + middle) / len).clamp(0.0, 1.0) * 2.0 * PI;
        sinc * (0.42 - 0.5 * at.cos() + 0.08 * (2.0 * at).cos())
    };
    let sum: f64 = (0..set.len()).map(tap).sum();
    let one = f64::from(1 << SHIFT);
    for (n, place) in set.iter_mut().enumerate() {
        *place = (tap(n) / sum * one).round() as i16;
    }
    // What rounding took away belongs to the largest tap: a constant level must stay what it is.
    let left: i32 = (1 << SHIFT) - set.iter().map(|&c| i32::from(c)).sum::<i32>();
    if let Some(largest) = set.iter_mut().max_by_key(|c| **c) {
        *largest += left as i16;
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every rate of AAC-LC that cameras have, and those of sinks.
    const FROM: [u32; 10] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000];
    const TO: [u32; 5] = [8_000, 16_000, 24_000, 44_100, 48_000];

    /// A sine of amplitude 10,000.
    pub fn tone(hz: f64, rate_hz: u32, samples: usize) -> Vec<i16> {
        let step = 2.0 * core::f64::consts::PI * hz / f64::from(rate_hz);
        (0..samples).map(|n| (10_000.0 * (step * n as f64).sin()) as i16).collect()
    }

    /// Amplitude of the part of `pcm` that has this frequency (Goertzel).
    pub fn amplitude(pcm: &[i16], hz: f64, rate_hz: u32) -> f64 {
        let turn = 2.0 * (2.0 * core::f64::consts::PI * hz / f64::from(rate_hz)).cos();
        let (mut last, mut before) = (0.0, 0.0);
        for &sample in pcm {
            (last, before) = (f64::from(sample) + turn * last - before, last);
        }
        2.0 * (last * last + before * before - turn * last * before).max(0.0).sqrt() / pcm.len() as f64
    }

    /// The strongest frequency, to 10 Hz.
    pub fn strongest(pcm: &[i16], rate_hz: u32) -> u32 {
        let loudness = |hz: &u32| amplitude(pcm, f64::from(*hz), rate_hz) as u64;
        (100..rate_hz / 2).step_by(10).max_by_key(loudness).unwrap_or(0)
    }

    fn converted(input: &[i16], from: u32, to: u32) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to);
        let mut output = Vec::new();
        for piece in input.chunks(1024) {
            resampler.push(piece, |sample| output.push(sample));
        }
        output
    }

    #[test]
    fn a_second_stays_a_second() {
        for from in FROM {
            for to in TO {
                let output = converted(&vec![0; from as usize], from, to);
                assert_eq!(output.len() as u32, to, "{from} -> {to}");
            }
        }
    }

    #[test]
    fn a_tone_keeps_its_frequency_and_its_level() {
        for from in FROM {
            for to in TO {
                for part in [0.1, 0.5, 0.8] {
                    let hz = (f64::from(from.min(to)) / 2.0 * part / 10.0).round() * 10.0;
                    let output = converted(&tone(hz, from, from as usize / 2), from, to);
                    let middle = &output[output.len() / 4..output.len() / 4 + to as usize / 10];
                    let level = 20.0 * (amplitude(middle, hz, to) / 10_000.0).log10();
                    assert!(level.abs() < 0.5, "{from} -> {to}: {hz} Hz at {level:.2} dB");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_below_half_the_rate_does_not_come_through() {
        for from in FROM {
            for to in TO.into_iter().filter(|to| *to < from) {
                for part in [1.05, 1.2] {
                    let hz = f64::from(to) / 2.0 * part;
                    if hz > f64::from(from) * 0.49 {
                        continue;
                    }
                    let output = converted(&tone(hz, from, from as usize / 2), from, to);
                    let middle = &output[output.len() / 4..output.len() / 2];
                    let rms = (middle.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / middle.len() as f64).sqrt();
                    let level = 20.0 * (rms * 1.414 / 10_000.0 + 1e-9).log10();
                    assert!(level < -50.0, "{from} -> {to}: {hz} Hz at {level:.1} dB");
                }
            }
        }
    }

    #[test]
    fn the_loudest_input_does_not_wrap() {
        for to in TO {
            let square: Vec<i16> = (0..4_800).map(|n| if n / 24 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
            let output = converted(&square, 44_100, to);
            // Wrapped, some samples in the middle of a half wave would have the other sign.
            let (high, low) = (output.iter().max().unwrap(), output.iter().min().unwrap());
            assert!(*high > 30_000 && *low < -30_000);
            let constant = converted(&[i16::MIN; 2_000], 44_100, to);
            assert!(constant[constant.len() / 2..].iter().all(|&s| s == i16::MIN), "{to}");
        }
        for from in FROM {
            for to in TO.into_iter().filter(|to| *to != from) {
                let resampler = Resampler::new(from, to);
                for set in resampler.coefficients.chunks_exact(resampler.taps) {
                    let magnitude: i64 = set.iter().map(|&c| i64::from(c).abs()).sum();
                    assert!(magnitude * 32_768 + (1 << 13) < i64::from(i32::MAX), "{from} -> {to}: {magnitude}");
                }
            }
        }
    }

    #[test]
    fn equal_rates_are_a_copy() {
        let input = tone(440.0, 16_000, 100);
        assert_eq!(converted(&input, 16_000, 16_000), input);
    }
}
