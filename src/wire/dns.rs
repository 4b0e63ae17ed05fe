//! DNS messages as multicast DNS uses them: RFC 1035 §4, RFC 6762 §18.
//!
//! [`Message::parse`] walks the whole message once, so that what its iterators yield has been
//! checked; names stay where they are and are followed through their compression pointers each time.
//! [`Emitter`] writes records with name compression and takes back what does not fit.

use super::{Malformed, Writer};
use nom::number::complete::{be_u16, be_u32};
use nom::{IResult, Parser};

/// Longest name, length bytes and the root included (RFC 1035 §2.3.4).
pub const NAME_BYTES: usize = 255;
/// Longest label (RFC 1035 §2.3.4).
pub const LABEL_BYTES: usize = 63;
/// Bytes of the header (RFC 1035 §4.1.1).
pub const HEADER_BYTES: usize = 12;

/// IPv4 address record.
pub const TYPE_A: u16 = 1;
/// Pointer record.
pub const TYPE_PTR: u16 = 12;
/// Text record.
pub const TYPE_TXT: u16 = 16;
/// IPv6 address record.
pub const TYPE_AAAA: u16 = 28;
/// Service record (RFC 2782).
pub const TYPE_SRV: u16 = 33;
/// Record that tells which types a name has (RFC 6762 §6.1).
pub const TYPE_NSEC: u16 = 47;
/// Question for all types.
pub const TYPE_ANY: u16 = 255;
/// Internet class.
pub const CLASS_IN: u16 = 1;
/// Question for all classes.
pub const CLASS_ANY: u16 = 255;
/// Top bit of the class: cache flush in a record (RFC 6762 §10.2), unicast response wanted in a
/// question (RFC 6762 §5.4).
pub const CLASS_TOP_BIT: u16 = 0x8000;

/// Flags: this is a response (QR).
pub const FLAG_RESPONSE: u16 = 0x8000;
/// Flags: authoritative (AA).
pub const FLAG_AUTHORITATIVE: u16 = 0x0400;
/// Flags: truncated (TC), more known answers follow (RFC 6762 §7.2).
pub const FLAG_TRUNCATED: u16 = 0x0200;
/// Flags: operation code and response code, both zero in multicast DNS (RFC 6762 §18.3, §18.11).
pub const FLAGS_MUST_BE_ZERO: u16 = 0x780f;

/// Pointers followed for one name. A sane encoder needs one per label; the rule that they point
/// backwards already ends every loop, this bounds the work for chains of pointers.
const POINTERS: usize = 32;

type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

/// The fixed part of a message (RFC 1035 §4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Identifier, zero but in legacy queries.
    pub id: u16,
    /// Flags: `FLAG_…`.
    pub flags: u16,
    /// Number of questions, answers, authority and additional records.
    pub counts: [u16; 4],
}

impl Header {
    fn parse(input: &[u8]) -> Parsed<'_, Header> {
        let (rest, (id, flags, questions, answers, authorities, additionals)) =
            (be_u16, be_u16, be_u16, be_u16, be_u16, be_u16).parse(input)?;
        Ok((rest, Header { id, flags, counts: [questions, answers, authorities, additionals] }))
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }
}

/// Where in a message a record stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Section {
    /// Answers; known answers in a query.
    Answer,
    /// Authority records: what a probe proposes (RFC 6762 §8.2).
    Authority,
    /// Additional records.
    Additional,
}

/// A checked message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The fixed part.
    pub header: Header,
    bytes: &'a [u8],
    records_at: usize,
}

impl<'a> Message<'a> {
    /// Checks every question, name and record of `bytes`; bytes behind the last record are ignored.
    ///
    /// # Errors
    /// [`Malformed`] when something is cut short, too long, or a name does not end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (_, header) = Header::parse(bytes).map_err(|_| Malformed("DNS header is cut short"))?;
        let mut at = HEADER_BYTES;
        for _ in 0..header.counts[0] {
            at = question(bytes, at)?.1;
        }
        let records_at = at;
        for _ in 0..record_count(&header) {
            at = record(bytes, at, Section::Answer)?.1;
        }
        Ok(Message { header, bytes, records_at })
    }

    /// The questions.
    pub fn questions(&self) -> impl Iterator<Item = Question<'a>> + use<'a> {
        let (bytes, mut at) = (self.bytes, HEADER_BYTES);
        (0..self.header.counts[0]).map_while(move |_| {
            let (question, next) = question(bytes, at).ok()?;
            at = next;
            Some(question)
        })
    }

    /// The records of all sections in their order.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let (bytes, mut at, header) = (self.bytes, self.records_at, self.header);
        let [_, answers, authorities, _] = header.counts.map(u32::from);
        (0..record_count(&header)).map_while(move |n| {
            let section = match n {
                n if n < answers => Section::Answer,
                n if n < answers + authorities => Section::Authority,
                _ => Section::Additional,
            };
            let (record, next) = record(bytes, at, section).ok()?;
            at = next;
            Some(record)
        })
    }
}

fn record_count(header: &Header) -> u32 {
    header.counts[1..].iter().map(|n| u32::from(*n)).sum()
}

/// One question (RFC 1035 §4.1.2).
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name asked for.
    pub name: Name<'a>,
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for, without its top bit.
    pub class: u16,
    /// Whether a unicast response is wanted (QU, RFC 6762 §5.4).
    pub unicast: bool,
}

fn question(bytes: &[u8], at: usize) -> Result<(Question<'_>, usize), Malformed> {
    let (name, at) = Name::parse(bytes, at)?;
    let rest = bytes.get(at..).unwrap_or_default();
    let fields: Parsed<'_, (u16, u16)> = (be_u16, be_u16).parse(rest);
    let (_, (qtype, class)) = fields.map_err(|_| Malformed("DNS question is cut short"))?;
    let (class, unicast) = (class & !CLASS_TOP_BIT, class & CLASS_TOP_BIT != 0);
    Ok((Question { name, qtype, class, unicast }, at + 4))
}

/// One resource record (RFC 1035 §4.1.3).
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it stands.
    pub section: Section,
    /// Its owner.
    pub name: Name<'a>,
    /// Its type.
    pub rtype: u16,
    /// Its class, without its top bit.
    pub class: u16,
    /// Whether the cache-flush bit is set (RFC 6762 §10.2).
    pub cache_flush: bool,
    /// How long it may be kept; zero says goodbye (RFC 6762 §10.1).
    pub ttl_s: u32,
    bytes: &'a [u8],
    rdata_at: usize,
    rdata_len: usize,
}

fn record(bytes: &[u8], at: usize, section: Section) -> Result<(Record<'_>, usize), Malformed> {
    const SHORT: Malformed = Malformed("DNS record is cut short");
    let (name, at) = Name::parse(bytes, at)?;
    let rest = bytes.get(at..).unwrap_or_default();
    let fields: Parsed<'_, (u16, u16, u32, u16)> = (be_u16, be_u16, be_u32, be_u16).parse(rest);
    let (rest, (rtype, class, ttl_s, length)) = fields.map_err(|_| SHORT)?;
    let (rdata_at, rdata_len) = (at + 10, usize::from(length));
    if rest.len() < rdata_len {
        return Err(SHORT);
    }
    let (class, cache_flush) = (class & !CLASS_TOP_BIT, class & CLASS_TOP_BIT != 0);
    let record = Record { section, name, rtype, class, cache_flush, ttl_s, bytes, rdata_at, rdata_len };
    // RFC 6762 §18.14: these carry names that may be compressed. What follows no such rule is opaque.
    match rtype {
        TYPE_PTR => record.rdata_name(0).map(drop)?,
        TYPE_SRV => record.rdata_name(6).map(drop)?,
        TYPE_A if rdata_len != 4 => return Err(Malformed("A record is not 4 bytes long")),
        TYPE_AAAA if rdata_len != 16 => return Err(Malformed("AAAA record is not 16 bytes long")),
        _ => {}
    }
    Ok((record, rdata_at + rdata_len))
}

impl<'a> Record<'a> {
    /// The record data as it stands in the message: names in it may be compressed.
    pub fn rdata(&self) -> &'a [u8] {
        self.bytes.get(self.rdata_at..self.rdata_at + self.rdata_len).unwrap_or_default()
    }

    /// The name that starts `skip` bytes into the record data and fills the rest of it.
    ///
    /// # Errors
    /// [`Malformed`] when there is none or it ends elsewhere.
    pub fn rdata_name(&self, skip: usize) -> Result<Name<'a>, Malformed> {
        let (name, end) = Name::parse(self.bytes, self.rdata_at + skip)?;
        match end == self.rdata_at + self.rdata_len {
            true => Ok(name),
            false => Err(Malformed("DNS name does not fill its record")),
        }
    }

    /// Writes the record data with its name expanded, the form that RFC 6762 §8.2 compares.
    pub fn expand_rdata(&self, w: &mut Writer<'_>) {
        let skip = match self.rtype {
            TYPE_PTR => 0,
            TYPE_SRV => 6,
            _ => return w.bytes(self.rdata()),
        };
        w.bytes(self.rdata().get(..skip).unwrap_or_default());
        if let Ok(name) = self.rdata_name(skip) {
            name.labels().for_each(|label| put_label(w, label));
            w.u8(0);
        }
    }
}

/// A name inside a message.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Name<'a> {
    /// Checks the name at `at` and returns the offset behind it.
    fn parse(bytes: &'a [u8], at: usize) -> Result<(Self, usize), Malformed> {
        let mut walk = Walk { bytes, at, limit: at, pointers: 0, end: None };
        let mut length = 1;
        while let Some(label) = walk.step()? {
            length += 1 + label.len();
            if length > NAME_BYTES {
                return Err(Malformed("DNS name is longer than 255 bytes"));
            }
        }
        Ok((Name { bytes, at }, walk.end.unwrap_or(walk.at)))
    }

    /// The labels, without the root.
    pub fn labels(self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let mut walk = Walk { bytes: self.bytes, at: self.at, limit: self.at, pointers: 0, end: None };
        core::iter::from_fn(move || walk.step().ok().flatten())
    }

    /// Whether these are its labels, compared as DNS does: ASCII letters without case (RFC 6762 §16).
    pub fn is(self, labels: &[&[u8]]) -> bool {
        let mut mine = self.labels();
        labels.iter().all(|label| mine.next().is_some_and(|m| m.eq_ignore_ascii_case(label))) && mine.next().is_none()
    }
}

impl core::fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.labels().try_for_each(|label| write!(f, "{}.", label.escape_ascii()))
    }
}

#[derive(Clone)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A pointer must lead to before this: the start of the part of the name that holds it.
    limit: usize,
    pointers: usize,
    /// Behind the first pointer, where the message goes on.
    end: Option<usize>,
}

impl<'a> Walk<'a> {
    fn step(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        const SHORT: Malformed = Malformed("DNS name is cut short");
        loop {
            let first = usize::from(*self.bytes.get(self.at).ok_or(SHORT)?);
            match first >> 6 {
                0 if first == 0 => {
                    self.at += 1;
                    return Ok(None);
                }
                0 => {
                    let label = self.bytes.get(self.at + 1..self.at + 1 + first).ok_or(SHORT)?;
                    self.at += 1 + first;
                    return Ok(Some(label));
                }
                3 => {
                    let low = usize::from(*self.bytes.get(self.at + 1).ok_or(SHORT)?);
                    let target = (first & 0x3f) << 8 | low;
                    self.pointers += 1;
                    if target < HEADER_BYTES || target >= self.limit || self.pointers > POINTERS {
                        return Err(Malformed("DNS name pointer does not lead back"));
                    }
                    self.end = self.end.or(Some(self.at + 2));
                    (self.at, self.limit) = (target, target);
                }
                _ => return Err(Malformed("DNS label of unknown kind")),
            }
        }
    }
}

fn put_label(w: &mut Writer<'_>, label: &[u8]) {
    let label = &label[..label.len().min(LABEL_BYTES)];
    w.u8(label.len() as u8);
    w.bytes(label);
}

/// Writes one message.
pub struct Emitter<'a> {
    w: Writer<'a>,
    counts: [u16; 4],
    /// Where names and their tails start, for later names to point to.
    names: heapless::Vec<u16, 24>,
}

impl<'a> Emitter<'a> {
    /// A message with this identifier and these flags at the start of `out`.
    pub fn new(out: &'a mut [u8], id: u16, flags: u16) -> Self {
        let mut w = Writer::new(out);
        w.u16_be(id);
        w.u16_be(flags);
        w.u64_be(0);
        Emitter { w, counts: [0; 4], names: heapless::Vec::new() }
    }

    /// Appends a question; all questions come before the first record. `false`: it did not fit.
    pub fn question(&mut self, name: &[&[u8]], qtype: u16, class: u16) -> bool {
        self.whole(0, |e| {
            e.name(name);
            e.w.u16_be(qtype);
            e.w.u16_be(class);
        })
    }

    /// Appends a record, sections in order. `false`: it did not fit, and the message is as before.
    pub fn record(
        &mut self,
        section: Section,
        name: &[&[u8]],
        rtype: u16,
        class: u16,
        ttl_s: u32,
        rdata: impl FnOnce(&mut Self),
    ) -> bool {
        self.whole(1 + section as usize, |e| {
            e.name(name);
            e.w.u16_be(rtype);
            e.w.u16_be(class);
            e.w.u32_be(ttl_s);
            let at = e.w.len();
            e.w.u16_be(0);
            rdata(e);
            let length = e.w.len().saturating_sub(at + 2);
            e.w.patch_u16_be(at, length as u16);
        })
    }

    fn whole(&mut self, section: usize, body: impl FnOnce(&mut Self)) -> bool {
        let (length, names) = (self.w.len(), self.names.len());
        let count = self.counts[section];
        body(self);
        if self.w.is_full() {
            self.w.truncate(length);
            self.names.truncate(names);
            return false;
        }
        self.counts[section] = count.saturating_add(1);
        true
    }

    /// Appends a name, as short as what was written before allows.
    pub fn name(&mut self, labels: &[&[u8]]) {
        for n in 0..labels.len() {
            if let Some(at) = self.find(&labels[n..]) {
                return self.w.u16_be(0xc000 | at);
            }
            let at = self.w.len();
            if at < 0x4000 {
                // A full table only means less compression.
                let _ = self.names.push(at as u16);
            }
            put_label(&mut self.w, labels[n]);
        }
        self.w.u8(0);
    }

    /// Appends a name without pointers, as the SRV target of a legacy answer (RFC 6762 §18.14).
    pub fn whole_name(&mut self, labels: &[&[u8]]) {
        labels.iter().for_each(|label| put_label(&mut self.w, label));
        self.w.u8(0);
    }

    fn find(&self, labels: &[&[u8]]) -> Option<u16> {
        let bytes = self.w.written();
        self.names.iter().copied().find(|at| Name { bytes, at: usize::from(*at) }.labels().eq(labels.iter().copied()))
    }

    /// The writer, for record data.
    pub fn writer(&mut self) -> &mut Writer<'a> {
        &mut self.w
    }

    /// Fills in the counts and returns the length of the message; zero when not even the header fit.
    pub fn finish(mut self) -> usize {
        for (n, count) in self.counts.into_iter().enumerate() {
            self.w.patch_u16_be(4 + 2 * n, count);
        }
        self.w.finish().map_or(0, |message| message.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[&[u8]] = &[b"cam", b"local"];
    const SERVICE: &[&[u8]] = &[b"_hap", b"_tcp", b"local"];
    const INSTANCE: &[&[u8]] = &[b"Garden 5E6F", b"_hap", b"_tcp", b"local"];

    fn sample(out: &mut [u8]) -> usize {
        let mut e = Emitter::new(out, 7, FLAG_RESPONSE | FLAG_AUTHORITATIVE);
        assert!(e.question(SERVICE, TYPE_PTR, CLASS_IN | CLASS_TOP_BIT));
        assert!(e.record(Section::Answer, SERVICE, TYPE_PTR, CLASS_IN, 4500, |e| e.name(INSTANCE)));
        assert!(e.record(Section::Additional, INSTANCE, TYPE_SRV, CLASS_IN | CLASS_TOP_BIT, 120, |e| {
            e.writer().bytes(&[0, 0, 0, 0, 0xca, 0x72]);
            e.name(HOST);
        }));
        assert!(e.record(Section::Additional, HOST, TYPE_A, CLASS_IN | CLASS_TOP_BIT, 120, |e| {
            e.writer().bytes(&[192, 0, 2, 7])
        }));
        e.finish()
    }

    #[test]
    fn what_is_emitted_parses_back_compressed() {
        let mut out = [0; 512];
        let n = sample(&mut out);
        // Header, question, then every repeated tail is two bytes.
        assert_eq!(n, 12 + (5 + 5 + 6 + 1 + 4) + (2 + 10 + 12 + 2) + (2 + 10 + 6 + 4 + 2) + (2 + 10 + 4));
        let message = Message::parse(&out[..n]).unwrap();
        assert_eq!(message.header, Header { id: 7, flags: 0x8400, counts: [1, 1, 0, 2] });
        let question = message.questions().next().unwrap();
        assert!(question.name.is(SERVICE) && question.unicast && question.qtype == TYPE_PTR);
        let records: Vec<_> = message.records().collect();
        assert_eq!(records.len(), 3);
        assert_eq!((records[0].section, records[0].ttl_s, records[0].cache_flush), (Section::Answer, 4500, false));
        assert!(records[0].rdata_name(0).unwrap().is(INSTANCE));
        assert_eq!((records[1].section, records[1].cache_flush), (Section::Additional, true));
        assert!(records[1].rdata_name(6).unwrap().is(HOST));
        assert_eq!(records[2].rdata(), [192, 0, 2, 7]);
        assert!(records[2].name.is(&[b"CAM", b"Local"]), "case does not matter");
        assert!(!records[2].name.is(&[b"cam"]) && !records[2].name.is(&[b"cam", b"local", b"x"]));
    }

    #[test]
    fn record_data_expands_for_comparison() {
        let mut out = [0; 512];
        let n = sample(&mut out);
        let message = Message::parse(&out[..n]).unwrap();
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        message.records().nth(1).unwrap().expand_rdata(&mut w);
        assert_eq!(w.written(), b"\0\0\0\0\xca\x72\x03cam\x05local\0");
    }

    #[test]
    fn every_cut_is_refused() {
        let mut out = [0; 512];
        let n = sample(&mut out);
        for cut in 0..n {
            assert!(Message::parse(&out[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn no_change_of_one_byte_panics() {
        let mut out = [0; 512];
        let n = sample(&mut out);
        for at in 0..n {
            for value in [0, 1, 12, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut bytes = out[..n].to_vec();
                bytes[at] = value;
                if let Ok(message) = Message::parse(&bytes) {
                    message.questions().for_each(|q| drop(format!("{q:?}")));
                    message.records().for_each(|r| drop(format!("{r:?}")));
                }
            }
        }
    }

    fn with_question(name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        bytes
    }

    fn refusal(bytes: &[u8]) -> &'static str {
        Message::parse(bytes).unwrap_err().0
    }

    #[test]
    fn pointers_must_lead_back() {
        let back = "DNS name pointer does not lead back";
        assert_eq!(refusal(&with_question(&[0xc0, 12])), back, "to itself");
        assert_eq!(refusal(&with_question(&[1, b'a', 0xc0, 12])), back, "to its own start");
        assert_eq!(refusal(&with_question(&[0xc0, 14])), back, "forward");
        assert_eq!(refusal(&with_question(&[0xff, 0xff])), back, "outside");
        assert_eq!(refusal(&with_question(&[0xc0, 0])), back, "into the header");
        assert_eq!(refusal(&with_question(&[0xc0])), back, "the pointer takes the type's first byte");
    }

    #[test]
    fn a_chain_of_pointers_is_bounded() {
        // Root name, then n questions whose name is a pointer to the one before.
        let chain = |n: usize| {
            let mut bytes = with_question(&[0]);
            bytes[5] = n as u8 + 1;
            let mut last = 12;
            for _ in 0..n {
                let at = bytes.len();
                bytes.extend_from_slice(&[0xc0, last as u8, 0, 1, 0, 1]);
                last = at;
            }
            bytes
        };
        assert!(Message::parse(&chain(POINTERS)).is_ok());
        assert!(Message::parse(&chain(POINTERS + 1)).is_err());
    }

    #[test]
    fn names_are_at_most_255_bytes() {
        let name = |last: usize| {
            let mut name = Vec::new();
            for length in [63, 63, 63, last] {
                name.push(length as u8);
                name.extend(vec![b'x'; length]);
            }
            name.push(0);
            name
        };
        assert!(Message::parse(&with_question(&name(61))).is_ok());
        assert_eq!(refusal(&with_question(&name(62))), "DNS name is longer than 255 bytes");
    }

    #[test]
    fn label_kinds_of_old_drafts_are_refused() {
        assert_eq!(refusal(&with_question(&[0x41, 0, 0])), "DNS label of unknown kind");
        assert_eq!(refusal(&with_question(&[0x80, 0, 0])), "DNS label of unknown kind");
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused() {
        let mut bytes = with_question(b"\x01a\0");
        assert!(Message::parse(&bytes).is_ok());
        bytes[4..12].fill(0xff);
        assert!(Message::parse(&bytes).is_err());
    }

    fn with_record(rtype: u8, rdata: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend_from_slice(b"\x01a\0");
        bytes.extend_from_slice(&[0, rtype, 0, 1, 0, 0, 0, 120, 0, rdata.len() as u8]);
        bytes.extend_from_slice(rdata);
        bytes
    }

    #[test]
    fn record_data_must_have_the_shape_of_its_type() {
        assert!(Message::parse(&with_record(1, &[1, 2, 3, 4])).is_ok());
        assert!(Message::parse(&with_record(1, &[1, 2, 3])).is_err());
        assert!(Message::parse(&with_record(28, &[0; 15])).is_err());
        assert!(Message::parse(&with_record(12, b"\x01b\0")).is_ok());
        assert!(Message::parse(&with_record(12, b"\x01b\0\0")).is_err(), "bytes behind the name");
        assert!(Message::parse(&with_record(12, b"\x05b\0")).is_err());
        assert!(Message::parse(&with_record(33, b"\0\0\0\0\0")).is_err());
        assert!(Message::parse(&with_record(33, b"\0\0\0\0\0\x01\xc0\x0c")).is_ok());
        assert!(Message::parse(&with_record(99, b"")).is_ok(), "unknown types are opaque");
    }

    #[test]
    fn what_does_not_fit_is_taken_back() {
        let mut out = [0; 60];
        let mut e = Emitter::new(&mut out, 0, 0);
        assert!(e.record(Section::Answer, HOST, TYPE_A, CLASS_IN, 1, |e| e.writer().bytes(&[1; 4])));
        assert!(!e.record(Section::Answer, SERVICE, TYPE_PTR, CLASS_IN, 1, |e| e.name(INSTANCE)));
        // Still room for a short one, and nothing points into what was taken back.
        assert!(e.record(Section::Additional, HOST, TYPE_A, CLASS_IN, 1, |e| e.writer().bytes(&[2; 4])));
        let n = e.finish();
        let message = Message::parse(&out[..n]).unwrap();
        assert_eq!(message.header.counts, [0, 1, 0, 1]);
        assert!(message.records().all(|r| r.name.is(HOST)));
        assert_eq!(Emitter::new(&mut [0; 11], 0, 0).finish(), 0);
    }

    #[test]
    fn a_name_can_be_kept_whole() {
        let mut out = [0; 128];
        let mut e = Emitter::new(&mut out, 0, 0);
        e.record(Section::Answer, HOST, TYPE_PTR, CLASS_IN, 1, |e| e.whole_name(HOST));
        let n = e.finish();
        assert!(out[..n].ends_with(b"\x03cam\x05local\0"));
    }
}
