//! The one way in for JSON: the parser tells a sink what it meets, piece by piece.
//!
//! A type that derives `Deserialize` takes a copy of the parser for itself, 1 to 3 kB on MIPS for each section of the
//! configuration and each body of HAP, 50 kB in all. Here is the only visitor; sinks are called through a pointer.

use super::Value;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What the parser meets.
#[derive(Clone, PartialEq, Debug)]
pub enum Event<'k, 'a> {
    /// The key of the value that comes next.
    Key(&'k str),
    /// `null`.
    Null,
    /// A truth value, a number or a string; never [`Value::Other`].
    Value(Value<'a>),
    /// An object begins.
    Object,
    /// An array begins.
    Array,
    /// The object or array ends that the sink went into last.
    End,
}

impl<'a> Event<'_, 'a> {
    /// The value that is met, of an object or array only that it is one: `None` is `null`. Neither a key nor an end
    /// is a value.
    pub fn into_value(self) -> Option<Value<'a>> {
        match self {
            Event::Value(value) => Some(value),
            Event::Object | Event::Array => Some(Value::Other),
            Event::Null | Event::Key(_) | Event::End => None,
        }
    }
}

/// What to do with the object or array that begins, or with the value behind the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Tell what is in it.
    Into,
    /// Skip it, however deep it is, without recursion.
    Over,
}

/// Takes in a document. The text of an `Err` becomes the error's, which gets the place from the parser. What is said
/// to a value or to an end does not matter.
pub type Sink<'s, 'a> = dyn FnMut(Event<'_, 'a>) -> Result<Next, String> + 's;

/// Tells `sink` what is in the document, in its order.
///
/// # Errors
/// What is wrong with the JSON, or what the sink said, and where. Nesting that the sink goes into ends at 128 levels.
pub fn read<'a>(document: &'a [u8], sink: &mut Sink<'_, 'a>) -> Result<(), serde_json::Error> {
    // Slices only: text would be another copy of the parser.
    let mut parser = serde_json::Deserializer::from_slice(document);
    Walk(sink).deserialize(&mut parser)?;
    parser.end()
}

struct Walk<'w, 's, 'a>(&'w mut Sink<'s, 'a>);

impl<'a> DeserializeSeed<'a> for Walk<'_, '_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.tell(Event::Null)
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<(), E> {
        self.tell(Event::Value(Value::Bool(v)))
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        self.tell(Event::Value(Value::Unsigned(v)))
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
        self.tell(Event::Value(Value::Negative(v)))
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<(), E> {
        self.tell(Event::Value(Value::Float(v)))
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, v: &'a str) -> Result<(), E> {
        self.tell(Event::Value(Value::Text(v)))
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<(), E> {
        self.tell(Event::Value(Value::Unescaped(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        match (self.0)(Event::Array).map_err(A::Error::custom)? {
            Next::Into => {
                while seq.next_element_seed(Walk(self.0))?.is_some() {}
                self.tell(Event::End)
            }
            Next::Over => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        match (self.0)(Event::Object).map_err(A::Error::custom)? {
            Next::Into => {
                while let Some(next) = map.next_key_seed(Key(self.0))? {
                    match next {
                        Next::Into => map.next_value_seed(Walk(self.0))?,
                        Next::Over => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                self.tell(Event::End)
            }
            Next::Over => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

impl<'a> Walk<'_, '_, 'a> {
    fn tell<E: serde::de::Error>(self, event: Event<'_, 'a>) -> Result<(), E> {
        (self.0)(event).map(drop).map_err(E::custom)
    }
}

struct Key<'w, 's, 'a>(&'w mut Sink<'s, 'a>);

impl<'a> DeserializeSeed<'a> for Key<'_, '_, 'a> {
    type Value = Next;
    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Next, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key<'_, '_, 'a> {
    type Value = Next;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Next, E> {
        (self.0)(Event::Key(key)).map_err(E::custom)
    }
}

/// Which of an object's keys have come.
#[derive(Default)]
pub struct Fields {
    names: &'static [&'static str],
    seen: u32,
    at: usize,
}

impl Fields {
    /// An object of these keys, 32 at most. Others are skipped.
    pub fn new(names: &'static [&'static str]) -> Self {
        Fields { names, seen: 0, at: 0 }
    }

    /// A key has come.
    ///
    /// # Errors
    /// When it is there a second time.
    pub fn key(&mut self, name: &str) -> Result<Next, String> {
        let Some(at) = self.names.iter().position(|known| *known == name) else { return Ok(Next::Over) };
        if self.seen >> at & 1 == 1 {
            return Err("the same key twice".into());
        }
        self.seen |= 1 << at;
        self.at = at;
        Ok(Next::Into)
    }

    /// The name of the key that came last.
    pub fn name(&self) -> &'static str {
        self.names.get(self.at).copied().unwrap_or_default()
    }
}

/// Reads an object of plain values: `take` gets each of the keys that are there with its value, in their order, unless
/// that is `null`.
///
/// # Errors
/// When it is none, or has a key twice, or `take` does not like a value.
pub fn read_fields<'a>(
    document: &'a [u8],
    names: &'static [&'static str],
    take: &mut dyn FnMut(&str, Value<'a>) -> Result<(), String>,
) -> Result<(), serde_json::Error> {
    let (mut fields, mut within) = (Fields::new(names), false);
    read(document, &mut |event| match (within, event) {
        (false, Event::Object) => {
            within = true;
            Ok(Next::Into)
        }
        (false, _) => Err("not an object".into()),
        (true, Event::Key(name)) => fields.key(name),
        (true, event) => {
            if let Some(value) = event.into_value() {
                take(fields.name(), value)?;
            }
            Ok(Next::Over)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sink is told that goes into everything but what stands under "over".
    fn told(document: &str) -> Result<Vec<String>, String> {
        let mut told = Vec::new();
        let mut key = String::new();
        read(document.as_bytes(), &mut |event| {
            told.push(format!("{event:?}"));
            match event {
                Event::Key(name) => key = name.into(),
                Event::Value(Value::Text("refuse")) => return Err("refused".into()),
                _ => {}
            }
            Ok(if key == "over" { Next::Over } else { Next::Into })
        })
        .map_err(|error| error.to_string())?;
        Ok(told)
    }

    #[test]
    fn every_piece_is_told_in_order() {
        let document = r#"{"a":[1,-2,1.5,true,null,"t","\n"],"over":{"x":[[]]},"b\"":{}}"#;
        let expected = [
            "Object",
            "Key(\"a\")",
            "Array",
            "Value(Unsigned(1))",
            "Value(Negative(-2))",
            "Value(Float(1.5))",
            "Value(Bool(true))",
            "Null",
            "Value(Text(\"t\"))",
            "Value(Unescaped(\"\\n\"))",
            "End",
            "Key(\"over\")",
            "Key(\"b\\\"\")",
            "Object",
            "End",
            "End",
        ];
        assert_eq!(told(document).unwrap(), expected);
        assert_eq!(told("7").unwrap(), ["Value(Unsigned(7))"]);
    }

    #[test]
    fn what_the_sink_refuses_is_told_with_its_place() {
        assert_eq!(told("{\n \"a\": \"refuse\"}").unwrap_err(), "refused at line 2 column 14");
        assert!(told("{} x").unwrap_err().starts_with("trailing characters"));
        assert!(told("").unwrap_err().starts_with("EOF"));
        assert!(told(&"[".repeat(1000)).unwrap_err().starts_with("recursion limit exceeded"));
        assert!(told(&format!("{{\"over\":{}1{}}}", "[".repeat(9000), "]".repeat(9000))).is_ok());
    }

    #[test]
    fn fields_are_found_by_name() {
        let fields = |document: &str| {
            let mut found = Vec::new();
            read_fields(document.as_bytes(), &["a", "b"], &mut |name, value| {
                found.push(format!("{name} {value:?}"));
                if value == Value::Unsigned(9) { Err("nine".into()) } else { Ok(()) }
            })
            .map(|()| found)
        };
        assert_eq!(fields(r#"{"x":{"a":1},"b":[1,{"a":2}],"a":null}"#).unwrap(), ["b Other"]);
        assert_eq!(fields(r#"{"b":"t","a":{}}"#).unwrap(), ["b Text(\"t\")", "a Other"]);
        for wrong in ["[]", "1", "null", r#"{"a":1,"a":2}"#, r#"{"a":9}"#, r#"{"a":1"#, "{} {}"] {
            assert!(fields(wrong).is_err(), "{wrong}");
        }
    }
}
