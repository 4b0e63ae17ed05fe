//! The JSON bodies of HAP (HAP R2 §6.7): requests into types that borrow from the body, answers
//! through a [`Writer`].

pub mod read;

use super::{Malformed, Writer, base64};
use core::fmt::{self, Write as _};
use read::{Event, Fields, Next, read_fields};

/// The value a controller wrote. HAP does not say its type beforehand: the characteristic does.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string where it stands in the body.
    Text(&'a str),
    /// A string that had an escape in it, as in base64 whose `/` came as `\/`.
    Unescaped(String),
    /// An array or an object; no characteristic takes one.
    Other,
}

impl Value<'_> {
    /// The string, when it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Unescaped(text) => Some(text),
            _ => None,
        }
    }

    /// A truth value: `true`, `false`, 1 or 0.
    pub fn truth(&self) -> Option<bool> {
        match *self {
            Value::Bool(truth) => Some(truth),
            Value::Unsigned(n @ 0..=1) => Some(n == 1),
            _ => None,
        }
    }

    /// An integer that is not negative; a truth value counts as 1 or 0, as does 1.0.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Value::Bool(truth) => Some(u64::from(truth)),
            Value::Unsigned(n) => Some(n),
            // Controllers that hold every number as a double.
            Value::Float(x) if x >= 0.0 && x <= f64::from(u32::MAX) && x as u64 as f64 == x => Some(x as u64),
            _ => None,
        }
    }
}

/// A body of a request.
pub trait Body<'a>: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not JSON of this shape. What is not read is skipped without recursion, however deep.
    fn read(body: &'a [u8]) -> Result<Self, Malformed>;
}

const SHAPE: Malformed = Malformed("not the JSON this request needs");

/// An integer as it must be written, neither a truth value nor a fraction.
fn integer<T: TryFrom<u64>>(value: Value<'_>) -> Result<T, String> {
    match value {
        Value::Unsigned(n) => T::try_from(n).map_err(|_| "too large".into()),
        _ => Err("not an integer".into()),
    }
}

fn truth(value: Value<'_>) -> Result<bool, String> {
    value.truth().ok_or_else(|| "neither true nor false".into())
}

/// One entry of a write to `/characteristics`. Keys that change nothing here (`authData`, `remote`)
/// are not read.
#[derive(Clone, PartialEq, Debug)]
pub struct Write<'a> {
    /// The accessory.
    pub aid: u64,
    /// The characteristic.
    pub iid: u64,
    /// What to write.
    pub value: Option<Value<'a>>,
    /// Subscribe or unsubscribe.
    pub ev: Option<bool>,
    /// A write response is asked for.
    pub r: Option<bool>,
}

/// The body of `PUT /characteristics` (HAP R2 §6.7.2).
#[derive(Clone, PartialEq, Debug)]
pub struct Writes<'a> {
    /// The entries in order.
    pub characteristics: Vec<Write<'a>>,
    /// The timed write they belong to.
    pub pid: Option<u64>,
}

/// More entries than any accessory of ours has characteristics.
const WRITES_MAX: usize = 128;

/// An entry as far as it has come.
#[derive(Default)]
struct Entry<'a> {
    keys: Fields,
    aid: Option<u64>,
    iid: Option<u64>,
    value: Option<Value<'a>>,
    ev: Option<bool>,
    r: Option<bool>,
}

impl<'a> Entry<'a> {
    const KEYS: &'static [&'static str] = &["aid", "iid", "value", "ev", "r"];

    fn take(&mut self, value: Value<'a>) -> Result<(), String> {
        match self.keys.name() {
            "aid" => self.aid = Some(integer(value)?),
            "iid" => self.iid = Some(integer(value)?),
            "value" => self.value = Some(value),
            "ev" => self.ev = Some(truth(value)?),
            _ => self.r = Some(truth(value)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Write<'a>, String> {
        let (Some(aid), Some(iid)) = (self.aid, self.iid) else { return Err("aid and iid are needed".into()) };
        Ok(Write { aid, iid, value: self.value, ev: self.ev, r: self.r })
    }
}

impl<'a> Body<'a> for Writes<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        enum Within {
            Nothing,
            Body,
            List,
            Entry,
        }
        let mut within = Within::Nothing;
        let mut keys = Fields::new(&["characteristics", "pid"]);
        let (mut characteristics, mut pid) = (None, None);
        let mut entry = Entry::default();
        read::read(body, &mut |event| {
            match (&within, event) {
                (Within::Nothing, Event::Object) => within = Within::Body,
                (Within::Body, Event::Key(name)) => return keys.key(name),
                (Within::Body, Event::Array) if keys.name() == "characteristics" => {
                    characteristics = Some(Vec::new());
                    within = Within::List;
                }
                (Within::Body, Event::Value(value)) if keys.name() == "pid" => pid = Some(integer(value)?),
                (Within::Body, Event::Null) if keys.name() == "pid" => {}
                (Within::Body, Event::End) => {}
                (Within::List, Event::Object) => {
                    entry = Entry { keys: Fields::new(Entry::KEYS), ..Entry::default() };
                    within = Within::Entry;
                }
                (Within::List, Event::End) => within = Within::Body,
                (Within::Entry, Event::Key(name)) => return entry.keys.key(name),
                (Within::Entry, Event::End) => {
                    let entries = characteristics.get_or_insert_default();
                    // Bounds what a body of `{},{},…` may claim.
                    if entries.len() == WRITES_MAX {
                        return Err("too many writes".into());
                    }
                    entries.push(core::mem::take(&mut entry).finish()?);
                    within = Within::List;
                }
                (Within::Entry, event) => {
                    if let Some(value) = event.into_value() {
                        entry.take(value)?;
                    }
                    return Ok(Next::Over);
                }
                _ => return Err("not a list of writes".into()),
            }
            Ok(Next::Into)
        })
        .map_err(|_| SHAPE)?;
        Ok(Writes { characteristics: characteristics.ok_or(SHAPE)?, pid })
    }
}

/// The body of `PUT /prepare` (HAP R2 §6.7.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepare {
    /// How long the write may take to arrive, in milliseconds.
    pub ttl: u64,
    /// What the write will name.
    pub pid: u64,
}

impl<'a> Body<'a> for Prepare {
    fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let (mut ttl, mut pid) = (None, None);
        read_fields(body, &["ttl", "pid"], &mut |name, value| {
            let field = if name == "ttl" { &mut ttl } else { &mut pid };
            *field = Some(integer(value)?);
            Ok(())
        })
        .map_err(|_| SHAPE)?;
        Ok(Prepare { ttl: ttl.ok_or(SHAPE)?, pid: pid.ok_or(SHAPE)? })
    }
}

/// The body of `POST /resource`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Resource<'a> {
    /// The accessory; 1 when absent.
    pub aid: Option<u64>,
    /// `image` is the only one there is.
    pub kind: Option<Value<'a>>,
    /// Width asked for, in pixels.
    pub width: Option<u32>,
    /// Height asked for, in pixels.
    pub height: Option<u32>,
    /// 0 periodic, 1 event; old controllers and live tiles give none.
    pub reason: Option<u32>,
}

impl<'a> Body<'a> for Resource<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut resource = Resource::default();
        let names = &["aid", "resource-type", "image-width", "image-height", "reason"];
        read_fields(body, names, &mut |name, value| {
            match name {
                "aid" => resource.aid = Some(integer(value)?),
                "resource-type" => resource.kind = Some(value),
                "image-width" => resource.width = Some(integer(value)?),
                "image-height" => resource.height = Some(integer(value)?),
                _ => resource.reason = Some(integer(value)?),
            }
            Ok(())
        })
        .map_err(|_| SHAPE)?;
        Ok(resource)
    }
}

/// Parses a body.
///
/// # Errors
/// Those of [`Body::read`].
pub fn parse<'a, T: Body<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    T::read(body)
}

/// A string with its quotes; what JSON wants escaped is escaped (RFC 8259 §7).
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Appends a string as [`Quoted`].
pub fn put_string(w: &mut Writer<'_>, text: &str) {
    // Writer remembers an overflow by itself.
    let _ = write!(w, "{}", Quoted(text));
}

/// Appends bytes as base64 with its quotes: how `tlv8` and `data` travel.
pub fn put_base64(w: &mut Writer<'_>, bytes: &[u8]) {
    w.u8(b'"');
    base64::put(w, bytes);
    w.u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_write_of_everything() {
        let body = br#"{"characteristics":[
            {"aid":1,"iid":9,"value":true,"ev":true,"authData":"AA==","remote":true,"r":1,"new":{"a":[1,{}]}},
            {"aid":1,"iid":10,"value":"AQ\/B"},
            {"iid":11,"aid":1,"value":"plain","ev":null},
            {"aid":1,"iid":12,"value":-3},{"aid":1,"iid":13,"value":1.5},
            {"aid":1,"iid":14,"value":[1,{"a":2}]},{"aid":1,"iid":15,"value":null},{"aid":1,"iid":16,"ev":0}
        ],"pid":18446744073709551615}"#;
        let writes: Writes<'_> = parse(body).unwrap();
        assert_eq!(writes.pid, Some(u64::MAX));
        let values: Vec<_> = writes.characteristics.iter().map(|w| w.value.clone()).collect();
        assert_eq!(
            values,
            [
                Some(Value::Bool(true)),
                Some(Value::Unescaped("AQ/B".into())),
                Some(Value::Text("plain")),
                Some(Value::Negative(-3)),
                Some(Value::Float(1.5)),
                Some(Value::Other),
                None,
                None
            ]
        );
        let first = &writes.characteristics[0];
        assert_eq!((first.aid, first.iid, first.ev, first.r), (1, 9, Some(true), Some(true)));
        assert_eq!(writes.characteristics[2].ev, None);
        assert_eq!(writes.characteristics[7].ev, Some(false));
    }

    #[test]
    fn what_is_not_a_write_is_refused() {
        for body in [
            "",
            "{}",
            "[]",
            "{\"characteristics\":{}}",
            "{\"characteristics\":[{\"iid\":1}]}",
            "{\"characteristics\":[{\"aid\":1,\"iid\":-1}]}",
            "{\"characteristics\":[{\"aid\":1,\"iid\":1,\"ev\":\"yes\"}]}",
            "{\"characteristics\":[{\"aid\":1,\"iid\":1,\"ev\":2}]}",
            "{\"characteristics\":[{\"aid\":1,\"iid\":1,\"value\":1,\"value\":2}]}",
            "{\"characteristics\":[]} x",
            "{\"characteristics\":[],\"pid\":-1}",
            "{\"characteristics\":[{\"aid\":1,\"iid\":1}",
        ] {
            assert!(parse::<Writes<'_>>(body.as_bytes()).is_err(), "{body}");
        }
        let many =
            format!("{{\"characteristics\":[{}{{\"aid\":1,\"iid\":1}}]}}", "{\"aid\":1,\"iid\":1},".repeat(WRITES_MAX));
        assert!(parse::<Writes<'_>>(many.as_bytes()).is_err());
    }

    #[test]
    fn a_bomb_of_brackets_is_skipped_without_recursion() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let (open, close) = (open.repeat(10_000), close.repeat(10_000));
            let value = format!("{{\"characteristics\":[{{\"aid\":1,\"iid\":1,\"value\":{open}1{close}}}]}}");
            let writes: Writes<'_> = parse(value.as_bytes()).unwrap();
            assert_eq!(writes.characteristics[0].value, Some(Value::Other));
            let ignored = format!("{{\"characteristics\":[],\"x\":{open}1{close}}}");
            assert!(parse::<Writes<'_>>(ignored.as_bytes()).is_ok());
            let unclosed = format!("{{\"characteristics\":{open}");
            assert!(parse::<Writes<'_>>(unclosed.as_bytes()).is_err());
        }
    }

    #[test]
    fn prepare_and_resource() {
        assert_eq!(parse(b"{\"ttl\":2500,\"pid\":11122333}"), Ok(Prepare { ttl: 2500, pid: 11_122_333 }));
        assert!(parse::<Prepare>(b"{\"ttl\":2500}").is_err());
        assert!(parse::<Prepare>(b"{\"ttl\":-1,\"pid\":1}").is_err());
        let body = br#"{"resource-type":"image","image-width":640,"image-height":360,"reason":1}"#;
        let resource: Resource<'_> = parse(body).unwrap();
        assert_eq!(
            (resource.width, resource.height, resource.reason, resource.aid),
            (Some(640), Some(360), Some(1), None)
        );
        assert_eq!(resource.kind.as_ref().and_then(Value::text), Some("image"));
    }

    #[test]
    fn truths_and_numbers() {
        assert_eq!(Value::Unsigned(1).truth(), Some(true));
        assert_eq!(Value::Unsigned(2).truth(), None);
        assert_eq!(Value::Text("1").truth(), None);
        assert_eq!(Value::Bool(true).unsigned(), Some(1));
        assert_eq!(Value::Float(100.0).unsigned(), Some(100));
        for bad in
            [Value::Float(0.5), Value::Float(-1.0), Value::Float(f64::NAN), Value::Negative(-1), Value::Text("1")]
        {
            assert_eq!(bad.unsigned(), None, "{bad:?}");
        }
    }

    #[test]
    fn strings_are_escaped_so_that_a_parser_reads_them_back() {
        let text = "a\"b\\c\n\u{1}\u{7f}é😀/";
        let mut buf = [0; 100];
        let mut w = Writer::new(&mut buf);
        put_string(&mut w, text);
        let back: String = serde_json::from_slice(w.finish().unwrap()).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn base64_has_quotes() {
        let mut buf = [0; 20];
        let mut w = Writer::new(&mut buf);
        put_base64(&mut w, &[1, 3, 1, 1, 0]);
        assert_eq!(w.finish().unwrap(), b"\"AQMBAQA=\"");
    }
}
