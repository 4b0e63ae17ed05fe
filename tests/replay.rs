//! Replays of the motion detector: sizes, key flags and QPs of real streams in, motion at the right time out.
//!
//! The traces are cut from streams that `scripts/score-motion` scores whole. Each file begins with the frame rate, the
//! moments at which something moves (`events`), those around them at which somebody is in the picture (`busy`), both in
//! seconds from the start of the trace, and the moments at which light or IR-cut filter switch.
//!
//! The footage behind them is "one-by-one-person-detection.mp4" (CC BY 4.0); noise, light and wind are modelled.

use hksvd::motion::{AccessUnit, Detector, Motion};

const HOLD_S: u32 = 2;

struct Trace {
    fps: u32,
    events: Vec<(f32, f32)>,
    busy: Vec<(f32, f32)>,
    switches: Vec<f32>,
    units: Vec<AccessUnit>,
}

impl Trace {
    fn parse(text: &str) -> Trace {
        let (head, rows) = text.split_once("key,bytes,qp\n").expect("a trace has its columns named");
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name} is missing")).split_whitespace()
        };
        let number = |text: &str| text.parse::<f32>().unwrap();
        let spans =
            |name| field(name).map(|s| s.split_once('-').map(|(a, b)| (number(a), number(b))).unwrap()).collect();
        let unit = |row: &str| {
            let columns: Vec<i64> = row.split(',').map(|v| v.parse().unwrap()).collect();
            let [key, bytes, qp] = columns[..] else { panic!("{row}") };
            AccessUnit { key: key == 1, bytes: bytes as u32, qp: u8::try_from(qp).ok() }
        };
        Trace {
            fps: field("fps").map(|v| v.parse().unwrap()).next().unwrap(),
            events: spans("events"),
            busy: spans("busy"),
            switches: field("switch").map(number).collect(),
            units: rows.lines().map(unit).collect(),
        }
    }

    /// Whether motion is on, picture by picture.
    fn replay(&self, sensitivity: u8) -> Vec<bool> {
        let mut detector = Detector::new(self.fps, sensitivity, HOLD_S);
        let mut on = false;
        let picture = |unit: &AccessUnit| {
            match detector.push(*unit) {
                Some(Motion::Start) if !on => on = true,
                Some(Motion::Stop) if on => on = false,
                None => {}
                twice => panic!("{twice:?} while motion is {on}"),
            }
            assert_eq!(on, detector.is_on());
            on
        };
        self.units.iter().map(picture).collect()
    }

    /// Events that are found: motion is on within 2.5 s of their start.
    fn found(&self, on: &[bool]) -> usize {
        let at = |s: f32| (s * self.fps as f32) as usize;
        self.events.iter().filter(|(start, end)| on[at(*start)..at((start + 2.5).min(*end))].contains(&true)).count()
    }

    /// Seconds at which motion is on although nothing moved for the hold and a second, and nothing switched for the
    /// hold and 3 s.
    fn wrong(&self, on: &[bool]) -> Vec<f32> {
        let hold = HOLD_S as f32;
        let seconds = (0..on.len()).filter(|i| on[*i]).map(|i| i as f32 / self.fps as f32);
        seconds
            .filter(|t| !self.busy.iter().any(|(a, b)| (a - 1.0..b + hold + 1.0).contains(t)))
            .filter(|t| !self.switches.iter().any(|s| (s - 1.0..s + hold + 3.0).contains(t)))
            .collect()
    }
}

fn finds_everything_and_nothing_else(text: &str, events: usize) {
    let trace = Trace::parse(text);
    assert_eq!(trace.events.len(), events);
    let on = trace.replay(50);
    assert_eq!(trace.found(&on), events);
    assert_eq!(trace.wrong(&on), [0.0; 0]);
    // More sensitive finds no less, less sensitive is never wrong more often.
    assert_eq!(trace.found(&trace.replay(75)), events);
    assert_eq!(trace.wrong(&trace.replay(25)), [0.0; 0]);
}

#[test]
fn day() {
    finds_everything_and_nothing_else(include_str!("traces/day.csv"), 3);
}

#[test]
fn night() {
    finds_everything_and_nothing_else(include_str!("traces/night.csv"), 3);
}

#[test]
fn an_ir_cut_is_relearned() {
    finds_everything_and_nothing_else(include_str!("traces/ircut.csv"), 2);
}

#[test]
fn leaves() {
    finds_everything_and_nothing_else(include_str!("traces/leaf.csv"), 2);
}

#[test]
fn sizes_alone_see_less_and_invent_nothing() {
    for text in [include_str!("traces/day.csv"), include_str!("traces/leaf.csv")] {
        let mut trace = Trace::parse(text);
        trace.units.iter_mut().for_each(|unit| unit.qp = None);
        let on = trace.replay(50);
        assert!(trace.found(&on) > 0);
        assert_eq!(trace.wrong(&on), [0.0; 0]);
    }
}

#[test]
fn a_trace_that_is_wrong_fails() {
    // The measure itself: motion all the time is wrong, none at all finds nothing.
    let trace = Trace::parse(include_str!("traces/day.csv"));
    let all = vec![true; trace.units.len()];
    assert!(trace.wrong(&all).len() > 300);
    let none = vec![false; trace.units.len()];
    assert_eq!((trace.found(&none), trace.wrong(&none).len()), (0, 0));
}
