//! The data format of HomeKit Data Stream messages: one tag byte per value, integers little-endian,
//! containers counted or terminated (HomeKit Data Stream, data format).
//!
//! Reading is a cursor over the caller's bytes: nothing is copied and nothing is allocated, whatever
//! the input claims about its own size. Emitting is a set of functions on [`Writer`]. Back references
//! are read but never written, because readers disagree on what gets an index.

use super::{Malformed, Writer};

/// How deep containers may be nested.
const DEPTH_MAX: usize = 16;
/// How many values, keys and containers included, one encoding may hold.
const ELEMENTS_MAX: u16 = 4096;
/// A back reference can name the first 48 values only (tags `A0`…`CF`).
const REFERENCES: usize = 48;

const TRUE: u8 = 0x01;
const FALSE: u8 = 0x02;
const TERMINATOR: u8 = 0x03;
const NULL: u8 = 0x04;
const UUID: u8 = 0x05;
const DATE: u8 = 0x06;
const MINUS_ONE: u8 = 0x07;
const INT_0: u8 = 0x08;
/// 39 has a short form as well (`2F`), but one widespread reader stops at 38.
const INT_38: u8 = 0x2e;
const INT_39: u8 = 0x2f;
const INT8: u8 = 0x30;
const INT16: u8 = 0x31;
const INT32: u8 = 0x32;
const INT64: u8 = 0x33;
const FLOAT32: u8 = 0x35;
const FLOAT64: u8 = 0x36;
const TEXT_0: u8 = 0x40;
const TEXT_32: u8 = 0x60;
const TEXT_LENGTH8: u8 = 0x61;
const TEXT_LENGTH64: u8 = 0x64;
const TEXT_NUL: u8 = 0x6f;
const DATA_0: u8 = 0x70;
const DATA_32: u8 = 0x90;
const DATA_LENGTH8: u8 = 0x91;
const DATA_LENGTH64: u8 = 0x94;
const DATA_TERMINATED: u8 = 0x9f;
const REFERENCE_0: u8 = 0xa0;
const REFERENCE_47: u8 = 0xcf;
const ARRAY_0: u8 = 0xd0;
const ARRAY_14: u8 = 0xde;
const ARRAY_TERMINATED: u8 = 0xdf;
const DICTIONARY_0: u8 = 0xe0;
const DICTIONARY_14: u8 = 0xee;
const DICTIONARY_TERMINATED: u8 = 0xef;

/// A value that is not a container, borrowed from the input.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// Tags `01` and `02`.
    Bool(bool),
    /// Tag `04`.
    Null,
    /// Tag `05`: 16 bytes in the order of the text form.
    Uuid(&'a [u8]),
    /// Tag `06`: seconds since 2001-01-01T00:00:00Z.
    Date(f64),
    /// Tags `07`…`33`, signed in every width.
    Int(i64),
    /// Tags `35` and `36`.
    Float(f64),
    /// Tags `40`…`6F`.
    Text(&'a str),
    /// Tags `70`…`9F`.
    Data(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The text, when it is one.
    pub fn text(self) -> Option<&'a str> {
        if let Value::Text(s) = self { Some(s) } else { None }
    }

    /// The integer, when it is one.
    pub fn int(self) -> Option<i64> {
        if let Value::Int(v) = self { Some(v) } else { None }
    }

    /// The truth value, when it is one.
    pub fn bool(self) -> Option<bool> {
        if let Value::Bool(v) = self { Some(v) } else { None }
    }
}

/// What stands next in an encoding.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// A value: an element of the array, or what belongs to the key before it.
    Value(Value<'a>),
    /// A key of the dictionary; its value or container follows.
    Key(&'a str),
    /// An array begins.
    Array,
    /// A dictionary begins.
    Dictionary,
    /// The innermost container ends.
    End,
}

#[derive(Clone, Copy)]
struct Level {
    dictionary: bool,
    /// Elements or pairs still to come; `None`: until the terminator.
    left: Option<u8>,
    /// Whether a key (or the end) comes next; always true in an array.
    at_start: bool,
}

/// A cursor over one encoding.
///
/// Every rule of the format is checked on the way: a caller that reads up to `Ok(None)` knows that the
/// whole input is one well-formed value.
pub struct Reader<'a> {
    bytes: &'a [u8],
    levels: [Level; DEPTH_MAX],
    depth: usize,
    elements: u16,
    references: [Value<'a>; REFERENCES],
    referable: usize,
    started: bool,
}

impl<'a> Reader<'a> {
    /// A cursor before the one value in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader {
            bytes,
            levels: [Level { dictionary: false, left: None, at_start: true }; DEPTH_MAX],
            depth: 0,
            elements: 0,
            references: [Value::Null; REFERENCES],
            referable: 0,
            started: false,
        }
    }

    /// How many containers are open.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// What comes next; `None` behind the last byte of the value. Bytes behind the value are refused.
    #[allow(clippy::should_implement_trait)] // fallible, and an iterator would tempt one to go on after an error
    pub fn next(&mut self) -> Result<Option<Event<'a>>, Malformed> {
        let mut key = false;
        if let Some(level) = self.depth.checked_sub(1).and_then(|top| self.levels.get_mut(top)) {
            if level.at_start {
                let ended = match &mut level.left {
                    Some(0) => true,
                    Some(left) => {
                        *left -= 1;
                        false
                    }
                    None if self.bytes.first() == Some(&TERMINATOR) => {
                        self.bytes = &self.bytes[1..];
                        true
                    }
                    None => false,
                };
                if ended {
                    self.depth -= 1;
                    return Ok(Some(Event::End));
                }
                key = level.dictionary;
            }
            level.at_start = !key;
        } else if self.started {
            return if self.bytes.is_empty() { Ok(None) } else { Err(Malformed("bytes behind the last value")) };
        }
        self.started = true;
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(Malformed("more than 4096 values"));
        }
        let event = self.value()?;
        match event {
            Event::Value(Value::Text(text)) if key => Ok(Some(Event::Key(text))),
            _ if key => Err(Malformed("a key that is not text")),
            event => Ok(Some(event)),
        }
    }

    fn value(&mut self) -> Result<Event<'a>, Malformed> {
        let before = self.bytes.len();
        let tag = self.array::<1>()?[0];
        let value = match tag {
            TRUE => Value::Bool(true),
            FALSE => Value::Bool(false),
            NULL => Value::Null,
            UUID => Value::Uuid(self.take(16)?),
            DATE => Value::Date(f64::from_le_bytes(self.array()?)),
            MINUS_ONE..=INT_39 => Value::Int(i64::from(tag) - i64::from(INT_0)),
            INT8 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            INT16 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            INT32 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            INT64 => Value::Int(i64::from_le_bytes(self.array()?)),
            FLOAT32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            FLOAT64 => Value::Float(f64::from_le_bytes(self.array()?)),
            TEXT_0..=TEXT_32 => text(self.take(usize::from(tag - TEXT_0))?)?,
            TEXT_LENGTH8..=TEXT_LENGTH64 => text(self.counted(tag - TEXT_LENGTH8)?)?,
            TEXT_NUL => text(self.until(0)?)?,
            DATA_0..=DATA_32 => Value::Data(self.take(usize::from(tag - DATA_0))?),
            DATA_LENGTH8..=DATA_LENGTH64 => Value::Data(self.counted(tag - DATA_LENGTH8)?),
            DATA_TERMINATED => Value::Data(self.until(TERMINATOR)?),
            REFERENCE_0..=REFERENCE_47 => *self.references[..self.referable]
                .get(usize::from(tag - REFERENCE_0))
                .ok_or(Malformed("a back reference to nothing"))?,
            ARRAY_0..=ARRAY_14 => return self.open(false, Some(tag - ARRAY_0)),
            ARRAY_TERMINATED => return self.open(false, None),
            DICTIONARY_0..=DICTIONARY_14 => return self.open(true, Some(tag - DICTIONARY_0)),
            DICTIONARY_TERMINATED => return self.open(true, None),
            TERMINATOR => return Err(Malformed("a terminator without a container")),
            _ => return Err(Malformed("an unassigned tag")),
        };
        // Only what took more than one byte has an index, and only once.
        if before - self.bytes.len() > 1
            && let Some(free) = self.references.get_mut(self.referable)
        {
            *free = value;
            if !self.references[..self.referable].contains(&value) {
                self.referable += 1;
            }
        }
        Ok(Event::Value(value))
    }

    fn open(&mut self, dictionary: bool, left: Option<u8>) -> Result<Event<'a>, Malformed> {
        let level = self.levels.get_mut(self.depth).ok_or(Malformed("nested more than 16 deep"))?;
        *level = Level { dictionary, left, at_start: true };
        self.depth += 1;
        Ok(if dictionary { Event::Dictionary } else { Event::Array })
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or(Malformed("a value ends early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Malformed("a value ends early"))?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// Bytes behind a length of `1 << width` bytes.
    fn counted(&mut self, width: u8) -> Result<&'a [u8], Malformed> {
        let mut length = [0; 8];
        let digits = self.take(1 << width)?;
        length[..digits.len()].copy_from_slice(digits);
        // A length that does not even fit the address space is certainly longer than the rest.
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| Malformed("a value ends early"))?;
        self.take(length)
    }

    fn until(&mut self, end: u8) -> Result<&'a [u8], Malformed> {
        let n = self.bytes.iter().position(|b| *b == end).ok_or(Malformed("a value without its terminator"))?;
        let taken = self.take(n)?;
        self.take(1)?;
        Ok(taken)
    }
}

fn text(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    core::str::from_utf8(bytes).map(Value::Text).map_err(|_| Malformed("text that is not UTF-8"))
}

/// Calls `pair` for each key of the dictionary in `bytes` whose value is no container, and checks the
/// whole encoding, containers included.
pub fn walk_dictionary<'a>(bytes: &'a [u8], mut pair: impl FnMut(&'a str, Value<'a>)) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.next()? != Some(Event::Dictionary) {
        return Err(Malformed("not a dictionary"));
    }
    let mut key = None;
    while let Some(event) = reader.next()? {
        match event {
            Event::Key(k) if reader.depth() == 1 => key = Some(k),
            Event::Value(value) if reader.depth() == 1 => {
                if let Some(key) = key.take() {
                    pair(key, value);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Emits a truth value.
pub fn put_bool(w: &mut Writer<'_>, v: bool) {
    w.u8(if v { TRUE } else { FALSE });
}

/// Emits null.
pub fn put_null(w: &mut Writer<'_>) {
    w.u8(NULL);
}

/// Emits a UUID, its bytes in the order of the text form.
pub fn put_uuid(w: &mut Writer<'_>, v: &[u8; 16]) {
    w.u8(UUID);
    w.bytes(v);
}

/// Emits a date in seconds since 2001-01-01T00:00:00Z.
pub fn put_date(w: &mut Writer<'_>, v: f64) {
    w.u8(DATE);
    w.bytes(&v.to_le_bytes());
}

/// Emits a floating-point number in 64 bits.
pub fn put_float(w: &mut Writer<'_>, v: f64) {
    w.u8(FLOAT64);
    w.bytes(&v.to_le_bytes());
}

/// Emits an integer in the narrowest form that signed and unsigned readers agree on.
pub fn put_int(w: &mut Writer<'_>, v: i64) {
    const SHORT_MAX: i64 = (INT_38 - INT_0) as i64;
    if v == -1 {
        w.u8(MINUS_ONE);
    } else if let 0..=SHORT_MAX = v {
        w.u8(INT_0 + v as u8);
    } else if let Ok(v) = i8::try_from(v) {
        w.u8(INT8);
        w.bytes(&v.to_le_bytes());
    } else if let Ok(v) = i16::try_from(v) {
        w.u8(INT16);
        w.bytes(&v.to_le_bytes());
    } else if let Ok(v) = i32::try_from(v) {
        w.u8(INT32);
        w.bytes(&v.to_le_bytes());
    } else {
        put_int64(w, v);
    }
}

/// Emits an integer in 64 bits whatever its value, as `id` and `status` of a header are sent.
pub fn put_int64(w: &mut Writer<'_>, v: i64) {
    w.u8(INT64);
    w.bytes(&v.to_le_bytes());
}

/// Emits text.
pub fn put_text(w: &mut Writer<'_>, v: &str) {
    length(w, v.len(), TEXT_0, TEXT_LENGTH8);
    w.bytes(v.as_bytes());
}

/// Emits data.
pub fn put_data(w: &mut Writer<'_>, v: &[u8]) {
    put_data_length(w, v.len());
    w.bytes(v);
}

/// Emits what stands in front of `n` bytes of data; the caller puts the bytes behind it.
pub fn put_data_length(w: &mut Writer<'_>, n: usize) {
    length(w, n, DATA_0, DATA_LENGTH8);
}

fn length(w: &mut Writer<'_>, n: usize, short: u8, length8: u8) {
    if n <= 32 {
        w.u8(short + n as u8);
    } else if let Ok(n) = u8::try_from(n) {
        w.bytes(&[length8, n]);
    } else if let Ok(n) = u16::try_from(n) {
        w.u8(length8 + 1);
        w.u16_le(n);
    } else if let Ok(n) = u32::try_from(n) {
        w.u8(length8 + 2);
        w.u32_le(n);
    } else {
        w.u8(length8 + 3);
        w.u64_le(n as u64);
    }
}

/// Emits an array of the `n` values that `elements` emits.
pub fn put_array(w: &mut Writer<'_>, n: usize, elements: impl FnOnce(&mut Writer<'_>)) {
    // Two more fit the counted form, but a widespread reader stops at 12.
    container(w, n, 12, ARRAY_0, elements);
}

/// Emits a dictionary of the `n` pairs of [`put_text`] and a value that `pairs` emits.
pub fn put_dictionary(w: &mut Writer<'_>, n: usize, pairs: impl FnOnce(&mut Writer<'_>)) {
    container(w, n, 14, DICTIONARY_0, pairs);
}

fn container(w: &mut Writer<'_>, n: usize, counted_max: usize, counted: u8, body: impl FnOnce(&mut Writer<'_>)) {
    if n <= counted_max {
        w.u8(counted + n as u8);
        body(w);
    } else {
        w.u8(counted + 15);
        body(w);
        w.u8(TERMINATOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn vectors() -> Json {
        serde_json::from_str(include_str!("../../tests/vectors/hds.json")).unwrap()
    }

    fn unhex(v: &Json) -> Vec<u8> {
        let digits = v.as_str().unwrap();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// The value in the notation of the vectors.
    fn read(bytes: &[u8]) -> Result<Json, Malformed> {
        let mut reader = Reader::new(bytes);
        let first = reader.next()?.unwrap();
        let value = tree(&mut reader, first)?;
        assert_eq!(reader.next()?, None);
        Ok(value)
    }

    fn tree(reader: &mut Reader<'_>, event: Event<'_>) -> Result<Json, Malformed> {
        let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
        Ok(match event {
            Event::Value(Value::Bool(v)) => json!({ "bool": v }),
            Event::Value(Value::Null) => json!({ "null": true }),
            Event::Value(Value::Uuid(v)) => {
                let h = hex(v);
                let text = [&h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]].join("-");
                json!({ "uuid": text })
            }
            Event::Value(Value::Date(v)) => json!({ "date": v }),
            Event::Value(Value::Int(v)) => json!({ "int": v }),
            Event::Value(Value::Float(v)) => json!({ "float": v }),
            Event::Value(Value::Text(v)) => json!({ "str": v }),
            Event::Value(Value::Data(v)) => json!({ "data": hex(v) }),
            Event::Array => {
                let mut elements = Vec::new();
                loop {
                    match reader.next()?.unwrap() {
                        Event::End => break json!({ "array": elements }),
                        event => elements.push(tree(reader, event)?),
                    }
                }
            }
            Event::Dictionary => {
                let mut pairs = Vec::new();
                loop {
                    match reader.next()?.unwrap() {
                        Event::End => break json!({ "dict": pairs }),
                        Event::Key(key) => {
                            let event = reader.next()?.unwrap();
                            pairs.push(json!([{ "str": key }, tree(reader, event)?]));
                        }
                        other => panic!("{other:?} instead of a key"),
                    }
                }
            }
            Event::Key(_) | Event::End => panic!("{event:?} instead of a value"),
        })
    }

    fn emit(w: &mut Writer<'_>, value: &Json) {
        let (kind, v) = value.as_object().unwrap().iter().next().unwrap();
        match kind.as_str() {
            "bool" => put_bool(w, v.as_bool().unwrap()),
            "null" => put_null(w),
            "uuid" => put_uuid(w, &unhex(&json!(v.as_str().unwrap().replace('-', ""))).try_into().unwrap()),
            "date" => put_date(w, v.as_f64().unwrap()),
            "int" => put_int(w, v.as_i64().unwrap()),
            "float" => put_float(w, v.as_f64().unwrap()),
            "str" => put_text(w, v.as_str().unwrap()),
            "data" => put_data(w, &unhex(v)),
            "array" => {
                let v = v.as_array().unwrap();
                put_array(w, v.len(), |w| v.iter().for_each(|v| emit(w, v)));
            }
            "dict" => {
                let v = v.as_array().unwrap();
                put_dictionary(w, v.len(), |w| v.iter().for_each(|pair| [0, 1].iter().for_each(|i| emit(w, &pair[i]))));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn golden_values_are_read_and_emitted() {
        let all = vectors();
        let all = all["data_format"].as_array().unwrap();
        assert!(all.len() > 60);
        for v in all {
            let bytes = unhex(&v["hex"]);
            assert_eq!(read(&bytes).unwrap(), v["value"], "{}", v["name"]);
            let mut room = [0; 512];
            let mut w = Writer::new(&mut room);
            emit(&mut w, &v["value"]);
            assert_eq!(w.finish().unwrap() == bytes, v["decode_only"] == false, "{}", v["name"]);
        }
    }

    #[test]
    fn golden_back_references_are_resolved() {
        for v in vectors()["back_references"].as_array().unwrap() {
            match v.get("value") {
                Some(value) => assert_eq!(&read(&unhex(&v["hex"])).unwrap(), value, "{}", v["name"]),
                None => assert!(read(&unhex(&v["hex"])).is_err(), "{}", v["name"]),
            }
        }
    }

    #[test]
    fn golden_errors_are_refused() {
        for v in vectors()["decode_errors"].as_array().unwrap() {
            assert!(read(&unhex(&v["hex"])).is_err(), "{}", v["name"]);
        }
    }

    #[test]
    fn a_repeated_value_gets_no_second_index() {
        // "ab", "ab", "cd", reference 1
        assert_eq!(
            read(b"\xd4\x42ab\x42ab\x42cd\xa1").unwrap(),
            json!({"array": [{"str": "ab"}, {"str": "ab"}, {"str": "cd"}, {"str": "cd"}]})
        );
        // A reference may stand for a key.
        assert_eq!(
            read(b"\xd2\x42ab\xe1\xa0\x09").unwrap(),
            json!({"array": [{"str": "ab"}, {"dict": [[{"str": "ab"}, {"int": 1}]]}]})
        );
    }

    #[test]
    fn more_than_48_values_leave_the_table_alone() {
        let mut bytes = vec![0xdf];
        (0..60u8).for_each(|i| bytes.extend_from_slice(&[INT8, 40 + i]));
        bytes.extend_from_slice(&[REFERENCE_47, TERMINATOR]);
        assert_eq!(read(&bytes).unwrap()["array"][60], json!({"int": 87}));
    }

    #[test]
    fn every_cut_of_every_golden_value_is_refused() {
        for v in vectors()["data_format"].as_array().unwrap() {
            let bytes = unhex(&v["hex"]);
            for n in 0..bytes.len() {
                let mut reader = Reader::new(&bytes[..n]);
                while let Ok(event) = reader.next() {
                    assert!(event.is_some(), "{} cut to {n}", v["name"]);
                }
            }
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |n: usize| [vec![0xd1; n], vec![NULL]].concat();
        assert!(read(&nested(16)).is_ok());
        assert_eq!(read(&nested(17)), Err(Malformed("nested more than 16 deep")));
        let long = |n: usize| [vec![0xdf], vec![NULL; n], vec![TERMINATOR]].concat();
        assert!(read(&long(4095)).is_ok());
        assert_eq!(read(&long(4096)), Err(Malformed("more than 4096 values")));
    }

    #[test]
    fn odd_shapes_are_refused() {
        assert!(read(b"\x09\x09").is_err(), "two values");
        assert!(read(b"\xe1\x09\x09").is_err(), "a number as a key");
        assert!(read(b"\xe1\xd0\x09").is_err(), "an array as a key");
        assert!(read(b"\xef\x41a\x03\x03").is_err(), "a terminator as a value");
        assert!(read(b"\x42\xff\xfe").is_err(), "not UTF-8");
        assert!(read(b"\x64\xff\xff\xff\xff\xff\xff\xff\xff").is_err(), "64-bit length");
    }

    #[test]
    fn a_walk_visits_the_outer_pairs_and_checks_the_inner_ones() {
        let mut seen = Vec::new();
        walk_dictionary(b"\xe3\x41a\xe1\x41x\x09\x41b\x0a\x41c\x41d", |k, v| seen.push((k, v))).unwrap();
        assert_eq!(seen, [("b", Value::Int(2)), ("c", Value::Text("d"))]);
        assert!(walk_dictionary(b"\xe2\x41b\x0a\x41a\xe1\x41x", |_, _| ()).is_err());
        assert!(walk_dictionary(b"\xd0", |_, _| ()).is_err());
        assert!(walk_dictionary(b"", |_, _| ()).is_err());
    }

    #[test]
    fn noise_is_read_to_an_end_without_harm() {
        let mut state = 1u32;
        let mut bytes = [0; 64];
        for _ in 0..20_000 {
            bytes.fill_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            });
            let mut reader = Reader::new(&bytes);
            let mut events = 0;
            while let Ok(Some(_)) = reader.next() {
                events += 1;
            }
            assert!(events <= 2 * bytes.len());
        }
    }
}
