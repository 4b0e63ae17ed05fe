//! The one way in for JSON (RFC 8259): the parser tells a sink what it meets, piece by piece.
//!
//! Sinks are called through a pointer and nothing here is generic: 7 kB on MIPS, where serde_json was 20 kB and a type
//! that derives `Deserialize` 1 to 3 kB each, 50 kB in all. What is taken and refused, and the text and place of each
//! error are serde_json's, which the tests compare with; only that UTF-8 is looked at first, and everywhere.

use super::Value;
use core::fmt;

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
    /// Skip it, however deep it is, without recursion. It must be JSON, but numbers of any size and halves of surrogate
    /// pairs may be in it.
    Over,
}

/// Takes in a document. The text of an `Err` becomes the error's, which gets the place from the parser. What is said
/// to a value or to an end does not matter.
pub type Sink<'s, 'a> = dyn FnMut(Event<'_, 'a>) -> Result<Next, String> + 's;

/// Why a document was not read to its end.
#[derive(Debug)]
pub struct Error {
    /// What is wrong.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
    /// How many bytes of that line were looked at.
    pub column: usize,
    /// The sink said it: what there is so far is JSON.
    pub is_data: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.text, self.line, self.column)
    }
}

impl Error {
    /// After so many bytes, or at the end.
    #[cold]
    fn new(document: &[u8], bytes: usize, text: String) -> Self {
        let before = document.get(..bytes).unwrap_or(document);
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Error { text, line, column: before.len() - line_start, is_data: false }
    }
}

/// So many levels are not gone into (RFC 8259 §9 lets a parser say how many).
const LEVELS: usize = 128;

/// Tells `sink` what is in the document, in its order.
///
/// # Errors
/// What is wrong with the JSON, or what the sink said, and where. Nesting that the sink goes into ends at 128 levels.
pub fn read<'a>(document: &'a [u8], sink: &mut Sink<'_, 'a>) -> Result<(), Error> {
    // RFC 8259 §8.1: it is UTF-8 as a whole.
    match core::str::from_utf8(document) {
        Ok(document) => Parser { document, at: 0 }.walk(sink),
        Err(error) => Err(Error::new(document, error.valid_up_to() + 1, "invalid unicode code point".into())),
    }
}

struct Parser<'a> {
    document: &'a str,
    /// All before it was taken.
    at: usize,
}

const END_IN_VALUE: &str = "EOF while parsing a value";
const END_IN_STRING: &str = "EOF while parsing a string";
const END_IN_OBJECT: &str = "EOF while parsing an object";
const NO_NUMBER: &str = "invalid number";

impl<'a> Parser<'a> {
    /// `open` instead of recursion: what is skipped may be nested as deep as it likes.
    fn walk(&mut self, sink: &mut Sink<'_, 'a>) -> Result<(), Error> {
        // How each array and object begins that has not ended; the first `told` of them the sink went into.
        let (mut open, mut told) = (Vec::new(), 0);
        // The sink does not want the value behind this key.
        let mut unwanted = false;
        loop {
            let Some(byte) = self.token() else { return Err(self.before(END_IN_VALUE)) };
            let over = unwanted || open.len() > told;
            unwanted = false;
            let event = match byte {
                b'n' => self.word(b"null", Event::Null)?,
                b't' => self.word(b"true", Event::Value(Value::Bool(true)))?,
                b'f' => self.word(b"false", Event::Value(Value::Bool(false)))?,
                b'-' | b'0'..=b'9' => Event::Value(self.number(over)?),
                b'"' => Event::Value(self.string(over)?),
                b'[' | b'{' => {
                    if !over && told + 1 == LEVELS {
                        return Err(self.before("recursion limit exceeded"));
                    }
                    self.at += 1;
                    if byte == b'[' { Event::Array } else { Event::Object }
                }
                _ => return Err(self.before("expected value")),
            };
            let mut begun = matches!(event, Event::Array | Event::Object);
            if begun {
                open.push(byte);
            }
            if !over && self.tell(sink, event)? == Next::Into && begun {
                told += 1;
            }
            loop {
                let Some(&kind) = open.last() else {
                    return if self.token().is_some() { Err(self.before("trailing characters")) } else { Ok(()) };
                };
                let (array, end) = (kind == b'[', kind + 2);
                let Some(mut next) = self.token() else {
                    return Err(self.before(if array { "EOF while parsing a list" } else { END_IN_OBJECT }));
                };
                if next == end {
                    self.at += 1;
                    open.pop();
                    if open.len() < told {
                        told -= 1;
                        self.tell(sink, Event::End)?;
                    }
                    begun = false;
                    continue;
                }
                if !begun {
                    if next != b',' {
                        return Err(self.before(if array { "expected `,` or `]`" } else { "expected `,` or `}`" }));
                    }
                    self.at += 1;
                    next = self.token().ok_or_else(|| self.before(END_IN_VALUE))?;
                    if next == end {
                        return Err(self.before("trailing comma"));
                    }
                }
                if !array {
                    if next != b'"' {
                        return Err(self.before("key must be a string"));
                    }
                    let over = open.len() > told;
                    let key = self.string(over)?;
                    unwanted = !over && self.tell(sink, Event::Key(key.text().unwrap_or_default()))? == Next::Over;
                    match self.token() {
                        Some(b':') => self.at += 1,
                        Some(_) => return Err(self.before("expected `:`")),
                        None => return Err(self.before(END_IN_OBJECT)),
                    }
                }
                break;
            }
        }
    }

    fn tell(&self, sink: &mut Sink<'_, 'a>, event: Event<'_, 'a>) -> Result<Next, Error> {
        sink(event).map_err(|text| Error { is_data: true, ..Error::new(self.document.as_bytes(), self.at, text) })
    }

    /// It is the byte that comes next.
    #[cold]
    fn before(&self, text: &str) -> Error {
        Error::new(self.document.as_bytes(), self.at + 1, text.into())
    }

    /// It is the byte that was taken last.
    #[cold]
    fn behind(&self, text: &str) -> Error {
        Error::new(self.document.as_bytes(), self.at, text.into())
    }

    fn peek(&self) -> Option<u8> {
        self.document.as_bytes().get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The first byte that is not white space (RFC 8259 §2), not taken.
    fn token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    fn word<'k>(&mut self, word: &[u8], event: Event<'k, 'a>) -> Result<Event<'k, 'a>, Error> {
        for &letter in word {
            match self.take() {
                None => return Err(self.behind(END_IN_VALUE)),
                Some(byte) if byte != letter => return Err(self.behind("expected ident")),
                Some(_) => {}
            }
        }
        Ok(event)
    }

    /// Takes digits, those behind a point as `fraction`; how many there were.
    fn digits(&mut self, number: &mut Decimal, fraction: bool) -> usize {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            self.at += 1;
            let more = number.significand.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit - b'0')));
            match more {
                Some(more) if !number.full => {
                    number.significand = more;
                    number.exponent -= i32::from(fraction);
                }
                // The rest is below what a double holds.
                _ => {
                    number.full = true;
                    number.exponent += i32::from(!fraction);
                }
            }
        }
        self.at - start
    }

    /// RFC 8259 §6; one that is skipped may be as large as it likes.
    fn number(&mut self, over: bool) -> Result<Value<'a>, Error> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let mut number = Decimal::default();
        match self.peek() {
            None => return Err(self.behind(END_IN_VALUE)),
            Some(b'0') => {
                self.at += 1;
                if let Some(b'0'..=b'9') = self.peek() {
                    return Err(self.before(NO_NUMBER));
                }
            }
            Some(_) => {
                if self.digits(&mut number, false) == 0 {
                    return Err(self.before(NO_NUMBER));
                }
            }
        }
        let mut whole = !number.full;
        if self.peek() == Some(b'.') {
            self.at += 1;
            whole = false;
            if self.digits(&mut number, true) == 0 {
                return Err(self.before(if self.peek().is_some() { NO_NUMBER } else { END_IN_VALUE }));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            whole = false;
            let below_one = self.peek() == Some(b'-');
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            let mut by = Decimal::default();
            if self.digits(&mut by, false) == 0 {
                return Err(if self.peek().is_some() { self.before(NO_NUMBER) } else { self.behind(END_IN_VALUE) });
            }
            // No document has as many digits as could make up for what is cut here.
            let by = i32::try_from(by.significand).unwrap_or(i32::MAX);
            number.exponent = number.exponent.saturating_add(if below_one { -by } else { by });
        }
        if whole {
            match number.significand.cast_signed().wrapping_neg() {
                _ if !negative => return Ok(Value::Unsigned(number.significand)),
                n @ ..=-1 => return Ok(Value::Negative(n)),
                // -0, and what is below 64 bits.
                _ => {}
            }
        }
        let number = number.to_float();
        if number.is_infinite() && !over {
            return Err(self.behind("number out of range"));
        }
        Ok(Value::Float(if negative { -number } else { number }))
    }

    /// What stands between quotation marks (RFC 8259 §7); of one that is skipped only where it ends.
    fn string(&mut self, over: bool) -> Result<Value<'a>, Error> {
        self.at += 1;
        let mut unescaped = String::new();
        loop {
            let rest = self.document.as_bytes().get(self.at..).unwrap_or_default();
            let special = |&(_, byte): &(usize, &u8)| matches!(byte, b'"' | b'\\' | ..0x20);
            let Some((length, byte)) = rest.iter().enumerate().find(special) else {
                self.at = self.document.len();
                return Err(self.behind(END_IN_STRING));
            };
            // Both ends are at an ASCII character.
            let plain = self.document.get(self.at..self.at + length).unwrap_or_default();
            self.at += length + 1;
            match byte {
                b'"' if over => return Ok(Value::Other),
                // An escape stands for a character at least.
                b'"' if unescaped.is_empty() => return Ok(Value::Text(plain)),
                b'"' => {
                    unescaped.push_str(plain);
                    return Ok(Value::Unescaped(unescaped));
                }
                b'\\' => {
                    let character = self.escaped(over)?;
                    if !over {
                        unescaped.push_str(plain);
                        unescaped.push(character);
                    }
                }
                _ => return Err(self.behind("control character (\\u0000-\\u001F) found while parsing a string")),
            }
        }
    }

    /// The character that a `\` stands for, which was taken.
    fn escaped(&mut self, over: bool) -> Result<char, Error> {
        Ok(match self.take() {
            None => return Err(self.behind(END_IN_STRING)),
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut code = self.hex()?;
                if let (0xd800..=0xdbff, false) = (code, over) {
                    // The other half of a surrogate pair.
                    for expected in *b"\\u" {
                        match self.take() {
                            None => return Err(self.behind(END_IN_STRING)),
                            Some(byte) if byte != expected => return Err(self.behind("unexpected end of hex escape")),
                            Some(_) => {}
                        }
                    }
                    code = match self.hex()? {
                        low @ 0xdc00..=0xdfff => 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00),
                        _ => code,
                    };
                }
                match char::from_u32(code) {
                    Some(character) => character,
                    None if over => char::REPLACEMENT_CHARACTER,
                    None => return Err(self.behind("lone leading surrogate in hex escape")),
                }
            }
            Some(_) => return Err(self.behind("invalid escape")),
        })
    }

    fn hex(&mut self) -> Result<u32, Error> {
        let Some(four) = self.document.as_bytes().get(self.at..self.at + 4) else {
            self.at = self.document.len();
            return Err(self.behind(END_IN_STRING));
        };
        self.at += 4;
        let digits = four.iter().try_fold(0, |code, &byte| Some(code << 4 | char::from(byte).to_digit(16)?));
        digits.ok_or_else(|| self.behind("invalid escape"))
    }
}

/// `significand * 10^exponent`.
#[derive(Default)]
struct Decimal {
    significand: u64,
    exponent: i32,
    /// A digit was left out.
    full: bool,
}

impl Decimal {
    /// To the last bit for 15 digits and exponents to 22, else nearly.
    fn to_float(&self) -> f64 {
        let (mut number, mut left) = (self.significand as f64, self.exponent.unsigned_abs());
        while left > 0 && number != 0.0 && number.is_finite() {
            // 10^22 is the last power that a double holds to the last bit.
            let step = left.min(22);
            let power = (0..step).fold(1.0, |power, _| power * 10.0);
            number = if self.exponent < 0 { number / power } else { number * power };
            left -= step;
        }
        number
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
) -> Result<(), Error> {
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
        // Right behind, where serde_json looks for what comes next.
        let refusing = |wanted: Event| {
            read(b"{\n \"a\" \n : \n [ \n 1 ] }", &mut |event| {
                if event == wanted { Err("refused".into()) } else { Ok(Next::Into) }
            })
            .map_err(|error| error.to_string())
            .unwrap_err()
        };
        assert_eq!(refusing(Event::Object), "refused at line 1 column 1");
        assert_eq!(refusing(Event::Key("a")), "refused at line 2 column 4");
        assert_eq!(refusing(Event::Array), "refused at line 4 column 2");
        assert_eq!(refusing(Event::End), "refused at line 5 column 4");
        assert!(told("{} x").unwrap_err().starts_with("trailing characters"));
        assert!(told("").unwrap_err().starts_with("EOF"));
        assert!(told(&"[".repeat(1000)).unwrap_err().starts_with("recursion limit exceeded"));
        assert!(told(&format!("{{\"over\":{}1{}}}", "[".repeat(9000), "]".repeat(9000))).is_ok());
    }

    /// The same from serde_json.
    mod serde {
        use super::super::{Event, Next, Sink, Value, fmt};
        use ::serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

        pub fn read<'a>(document: &'a [u8], sink: &mut Sink<'_, 'a>) -> Result<(), serde_json::Error> {
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
            fn visit_unit<E: ::serde::de::Error>(self) -> Result<(), E> {
                self.tell(Event::Null)
            }
            fn visit_bool<E: ::serde::de::Error>(self, v: bool) -> Result<(), E> {
                self.tell(Event::Value(Value::Bool(v)))
            }
            fn visit_u64<E: ::serde::de::Error>(self, v: u64) -> Result<(), E> {
                self.tell(Event::Value(Value::Unsigned(v)))
            }
            fn visit_i64<E: ::serde::de::Error>(self, v: i64) -> Result<(), E> {
                self.tell(Event::Value(Value::Negative(v)))
            }
            fn visit_f64<E: ::serde::de::Error>(self, v: f64) -> Result<(), E> {
                self.tell(Event::Value(Value::Float(v)))
            }
            fn visit_borrowed_str<E: ::serde::de::Error>(self, v: &'a str) -> Result<(), E> {
                self.tell(Event::Value(Value::Text(v)))
            }
            fn visit_str<E: ::serde::de::Error>(self, v: &str) -> Result<(), E> {
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
            fn tell<E: ::serde::de::Error>(self, event: Event<'_, 'a>) -> Result<(), E> {
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
            fn visit_str<E: ::serde::de::Error>(self, key: &str) -> Result<Next, E> {
                (self.0)(Event::Key(key)).map_err(E::custom)
            }
        }
    }

    /// The last bits of a fraction may differ, and how small it may be.
    fn rounded(number: f64) -> String {
        if number.abs() < 1e-290 {
            format!("{}0", if number.is_sign_negative() { "-" } else { "" })
        } else {
            format!("{number:.13e}")
        }
    }

    /// What a sink is told that wants everything but what stands under "over" and refuses a "refuse", and what the
    /// parser says.
    fn pieces(
        parser: impl for<'s, 'a> Fn(&'a [u8], &mut Sink<'s, 'a>) -> Result<(), String>,
        document: &[u8],
    ) -> (Vec<String>, Result<(), String>) {
        let (mut told, mut over) = (Vec::new(), false);
        let end = parser(document, &mut |event| {
            let next = if over { Next::Over } else { Next::Into };
            over = event == Event::Key("over");
            if event == Event::Value(Value::Text("refuse")) {
                return Err("refused".into());
            }
            told.push(match event {
                Event::Value(Value::Float(x)) => rounded(x),
                other => format!("{other:?}"),
            });
            Ok(if over { Next::Over } else { next })
        });
        (told, end)
    }

    fn compare(document: &[u8]) {
        let text = String::from_utf8_lossy(document);
        let (told, end) = pieces(
            |document, sink| {
                read(document, sink).map_err(|error| {
                    assert_eq!(error.is_data, error.text == "refused", "{error}");
                    error.to_string()
                })
            },
            document,
        );
        let (expected, expected_end) =
            pieces(|document, sink| serde::read(document, sink).map_err(|error| error.to_string()), document);
        if core::str::from_utf8(document).is_err() {
            // It looks at strings only, and at those that are skipped not even then.
            let said = end.unwrap_err();
            assert!(said.starts_with("invalid unicode code point at line"), "{said}");
            assert!(expected_end.is_err() || text.contains("over"), "{text}");
            return;
        }
        if text.contains("over") {
            // What is skipped it looks at in another order.
            assert_eq!(end.is_ok(), expected_end.is_ok(), "{text}: {end:?} {expected_end:?}");
            if end.is_err() {
                return;
            }
        }
        assert_eq!((told, end), (expected, expected_end), "{text}");
    }

    #[test]
    fn it_reads_what_serde_json_reads_and_refuses_what_it_refuses() {
        for document in [
            "0",
            "-0",
            "-1",
            "01",
            "-",
            "-x",
            "1.",
            "1.x",
            "1.5",
            "1e",
            "1e+",
            "1ex",
            "1E-3",
            "1e5",
            "0e999",
            "1e999",
            "-1e400",
            "100.0",
            "0.001",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "123456789012345678901234567890.5e-7",
            "0.1234567890123456789012345678",
            "nul",
            "nulx",
            "tru",
            "fals",
            "true",
            "false",
            "\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12",
            "\"\\u12xy\"",
            "\"\\ud834\\udd1e\"",
            "\"\\ud834\"",
            "\"\\ud834\\n\"",
            "\"\\ud834\\ud834\"",
            "\"\\udd1e\"",
            "\"\\ud834\\",
            "\"\n\"",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "[1 2]",
            "[]",
            "[]]",
            "[}",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{1:2}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1,2}",
            "{]",
            "{}x",
            " \n\t\r 1 \n ",
            "",
            " \n",
            "\u{feff}1",
            "x",
            "{\n\"a\": [1,\n 2,\n x]}",
            "{\"a\":{\"b\":[{}]}}",
            "{\"a\":1,\"a\":2}",
            "{\"over\":1e999,\"over\":\"\\ud834\",\"over\":\"\\udd1e\\u00zz\"}",
            "{\"over\":[1e999,\"\\ud834\",\"\\udd1e\\\"\",{\"\\ud834\":-1E400}],\"b\":1}",
            "{\"over\":\"\n\"}",
            "{\"over\":[1,]}",
            "{\"over\":01}",
            "{\"over\":{\"a\":tru}}",
            "{\n \"a\" : \n \"refuse\" }",
            "[[\"refuse\"",
            "\"refuse\" x",
            "\t\"\u{7f}\"",
            "\"\t\"",
            "\"\u{0}\"",
            "\u{b}1",
            "\u{a0}1",
            "+1",
            ".5",
            "0x10",
            "1_0",
            "NaN",
            "-Infinity",
            "1e-",
            "1e-x",
            "1.e5",
            "-.5",
            "-01",
            "-0.0",
            "-0e5",
            "1e-400",
            "1e-99999999999999999999",
            "0e99999999999999999999",
            "1e00000000000000000000000000000000005",
            "18446744073709551616.5",
            "1844674407370955161999.0e-20",
            "1.7976931348623157e308",
            "1.8e308",
            "184467440737095516150e-320",
            "'a'",
            "{'a':1}",
            "{a:1}",
            "// no\n1",
            "{\"a\"::1}",
            "{\"a\":1,,\"b\":2}",
            "[1,,2]",
            "[1]2",
            "\"a\" \"b\"",
            "\"\\U0041\"",
            "\"\\'\"",
            "\"\\0\"",
            "\"\\uD834\\uDD1E\\u0000\"",
            "\"\\ud834x\"",
            "\"\\ud834\\u\"",
            "\"\\ud834\\u0041\"",
            "\"\\u+123\"",
        ] {
            compare(document.as_bytes());
        }
        for broken in [
            &b"\"\xff\""[..],
            b"[\"a\xc3\"]",
            b"\"\\n\xe4bc\"",
            b"{\"\xff\":1}",
            b"\xff",
            // A surrogate, more bytes than needed, and what is above Unicode (RFC 3629 §3).
            b"\"\xed\xa0\x80\"",
            b"\"\xc0\x80\"",
            b"\"\xf4\x90\x80\x80\"",
            b"{\"over\":[\"\xff\", {\"\xff\":1}]}",
        ] {
            compare(broken);
        }
        for depth in [126, 127, 128, 129] {
            compare(format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
            compare("{\"a\":".repeat(depth).as_bytes());
            compare(format!("{}{{\"over\":[[]]}}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
        }
    }

    #[test]
    fn short_numbers_are_right_to_the_last_bit() {
        for (text, number) in
            [("0.1", 0.1), ("2.3", 2.3), ("-0.7", -0.7), ("9.81e-3", 9.81e-3), ("123456.789012345", 123456.789012345)]
        {
            assert_eq!(told(text).unwrap(), [format!("Value(Float({number:?}))")]);
        }
        assert_eq!(told("1e22").unwrap(), ["Value(Float(1e22))"]);
        assert_eq!(told("-0").unwrap(), ["Value(Float(-0.0))"]);
        // serde_json stops in the middle of the exponent.
        assert_eq!(told("1e99999999999999999999").unwrap_err(), "number out of range at line 1 column 22");
    }

    #[test]
    fn time_and_memory_grow_with_the_document_only() {
        // Each would take minutes if each of its pieces looked back to the beginning.
        let n = 500_000;
        let long = [
            format!("\"{}\"", "\\n".repeat(n)),
            format!("[{}1]", "1,".repeat(n)),
            format!("{{\"over\":{}1{}}}", "[".repeat(n), "]".repeat(n)),
            "9".repeat(300),
            format!("0.{}1", "0".repeat(n)),
            format!("{}1", " ".repeat(n)),
        ];
        for document in long {
            assert!(told(&document).is_ok());
            assert!(told(&document[..document.len() - 1]).is_err() || document.ends_with(['1', '9']));
        }
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_serde_json_on_damaged_documents(
            damage in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY, 0..4u8), 0..4),
        ) {
            const PIECES: &[u8] = b"{}[]\":,\\u0123456789eE+-.ntrfalse \n\xc3\xa9";
            let whole = br#"{"a":[1,-2.50,3e2,{"b\u00e9":"\ud834\udd1e\n"},[]], "c" : {"d":null,"e":[true,false]},"f":"g"}"#;
            for inner in [&whole[..], &whole[5..55], br#"{"over":[1,{"a":[{},"\u1234"]},2.5e6],"over":null,"a":"b"}"#] {
                let mut document = inner.to_vec();
                for &(at, byte, how) in &damage {
                    if document.is_empty() {
                        break;
                    }
                    let at = at % document.len();
                    let piece = PIECES[usize::from(byte) % PIECES.len()];
                    match how {
                        0 => document[at] = piece,
                        1 => document.insert(at, piece),
                        2 => drop(document.remove(at)),
                        _ => document.truncate(at + 1),
                    }
                }
                compare(&document);
            }
        }
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
