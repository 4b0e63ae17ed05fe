//! TLV8: items of one tag byte, one length byte and up to 255 bytes of value (HAP R2 §14.1).
//!
//! A longer value is cut into items of the same tag that follow each other, all but the last exactly
//! 255 bytes long; a value of a multiple of 255 bytes ends with a full item. Nothing is copied here:
//! a [`Value`] points at its fragments as they came.

use super::{Malformed, Writer};

/// The longest value one fragment can hold.
const FRAGMENT: usize = 255;

/// The items of a TLV8 list, fragments merged. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

/// One item: a tag and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What the value means; each list has its own table of tags.
    pub tag: u8,
    /// What it carries.
    pub value: Value<'a>,
}

/// The value of an item, possibly in several fragments.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// The fragments with their headers; checked when the value was made.
    wire: &'a [u8],
    len: usize,
}

impl core::fmt::Debug for Value<'_> {
    /// The length alone: values may be keys and proofs.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

impl<'a> Items<'a> {
    /// The items in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Items { rest: bytes }
    }
}

/// The first fragment in `bytes` and what follows it.
fn fragment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, len], rest) = bytes.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(len))?;
    Some((tag, value, rest))
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest;
        let &tag = start.first()?;
        let (mut rest, mut len) = (start, 0);
        loop {
            let Some((_, value, after)) = fragment(rest) else {
                self.rest = &[];
                return Some(Err(Malformed("TLV8 item runs past the end")));
            };
            rest = after;
            len += value.len();
            // Only a full fragment is continued; two short ones of one tag are two values.
            if value.len() < FRAGMENT || rest.first() != Some(&tag) {
                break;
            }
        }
        self.rest = rest;
        let wire = &start[..start.len() - rest.len()];
        Some(Ok(Item { tag, value: Value { wire, len } }))
    }
}

impl<'a> Value<'a> {
    /// Bytes of the value, all fragments together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value has no bytes, as separators have.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fragments in order.
    fn fragments(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.wire;
        core::iter::from_fn(move || {
            let (_, value, after) = fragment(rest)?;
            rest = after;
            Some(value)
        })
    }

    /// The value where it stands, when it is a single fragment (at most 255 bytes).
    pub fn bytes(&self) -> Option<&'a [u8]> {
        let mut fragments = self.fragments();
        let first = fragments.next()?;
        fragments.next().is_none().then_some(first)
    }

    /// Copies the value to the start of `out` and says how long it is; `None`, and `out` untouched,
    /// when it does not fit.
    pub fn copy_to(&self, out: &mut [u8]) -> Option<usize> {
        let mut out = out.get_mut(..self.len)?;
        for value in self.fragments() {
            let (room, rest) = out.split_at_mut(value.len());
            room.copy_from_slice(value);
            out = rest;
        }
        Some(self.len)
    }

    /// The value as a little-endian integer. Any length is taken, whatever the field's own: 1, 2, 4
    /// and 8 bytes are all in use. `None` for no bytes and for what exceeds 64 bits.
    pub fn uint(&self) -> Option<u64> {
        let bytes = self.bytes().filter(|bytes| !bytes.is_empty())?;
        let (low, high) = bytes.split_at(bytes.len().min(8));
        let mut word = [0; 8];
        word[..low.len()].copy_from_slice(low);
        high.iter().all(|&b| b == 0).then_some(u64::from_le_bytes(word))
    }

    /// The value as an array, when it has exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        let mut out = [0; N];
        if self.len != N {
            return None;
        }
        self.copy_to(&mut out)?;
        Some(out)
    }
}

/// The first item of `tag` in `bytes`.
///
/// # Errors
/// When `bytes` is malformed anywhere, also behind the item.
pub fn find(bytes: &[u8], tag: u8) -> Result<Option<Value<'_>>, Malformed> {
    let mut found = None;
    for item in Items::new(bytes) {
        let item = item?;
        if item.tag == tag && found.is_none() {
            found = Some(item.value);
        }
    }
    Ok(found)
}

/// Appends an item, in fragments when `value` is longer than 255 bytes.
pub fn put(w: &mut Writer<'_>, tag: u8, value: &[u8]) {
    if value.is_empty() {
        return separator(w, tag);
    }
    for fragment in value.chunks(FRAGMENT) {
        // `chunks` never gives more than fits the length byte.
        w.bytes(&[tag, fragment.len() as u8]);
        w.bytes(fragment);
    }
}

/// Appends an item of one byte.
pub fn put_u8(w: &mut Writer<'_>, tag: u8, v: u8) {
    put(w, tag, &[v]);
}

/// Appends an item of two bytes, little-endian.
pub fn put_u16(w: &mut Writer<'_>, tag: u8, v: u16) {
    put(w, tag, &v.to_le_bytes());
}

/// Appends an item of four bytes, little-endian.
pub fn put_u32(w: &mut Writer<'_>, tag: u8, v: u32) {
    put(w, tag, &v.to_le_bytes());
}

/// Appends an item of eight bytes, little-endian.
pub fn put_u64(w: &mut Writer<'_>, tag: u8, v: u64) {
    put(w, tag, &v.to_le_bytes());
}

/// Appends an item without a value: what stands between two values of one tag, `0xff` in lists of
/// pairings, `0x00` in the configurations of cameras.
pub fn separator(w: &mut Writer<'_>, tag: u8) {
    w.bytes(&[tag, 0]);
}

/// Appends an item whose value `body` writes. The value is written where its first fragment starts
/// and spread out afterwards, so that no second buffer is needed.
pub fn nested<'a>(w: &mut Writer<'a>, tag: u8, body: impl FnOnce(&mut Writer<'a>)) {
    let start = w.len();
    w.bytes(&[tag, 0]);
    body(w);
    if w.is_full() {
        return;
    }
    let len = w.len() - start - 2;
    let fragments = len.div_ceil(FRAGMENT).max(1);
    if w.reserve(2 * (fragments - 1)).is_none() {
        return;
    }
    let item = &mut w.written_mut()[start..];
    // From the last fragment to the first: each moves towards the end, over what has moved already.
    for n in (0..fragments).rev() {
        let from = 2 + n * FRAGMENT;
        let part = (len - n * FRAGMENT).min(FRAGMENT);
        let to = from + 2 * n;
        item.copy_within(from..from + part, to);
        item[to - 2] = tag;
        item[to - 1] = part as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Full;
    use data_encoding::HEXLOWER;
    use serde_json::Value as Json;

    fn vectors() -> Json {
        serde_json::from_str(include_str!("../../tests/vectors/tlv8.json")).unwrap()
    }

    fn hex(v: &Json) -> Vec<u8> {
        let text = v.as_str().unwrap().as_bytes();
        let mut bytes = vec![0; text.len() / 2];
        HEXLOWER.decode_mut(text, &mut bytes).unwrap();
        bytes
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, Malformed> {
        Items::new(bytes)
            .map(|item| {
                let Item { tag, value } = item?;
                let mut copy = vec![0; value.len()];
                assert_eq!(value.copy_to(&mut copy), Some(copy.len()));
                Ok((tag, copy))
            })
            .collect()
    }

    #[test]
    fn reads_and_writes_the_vectors() {
        let all = vectors();
        let all = all["vectors"].as_array().unwrap();
        assert!(all.len() >= 9);
        for vector in all {
            let encoded = hex(&vector["encoded"]);
            let items: Vec<(u8, Vec<u8>)> = vector["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| (i[0].as_u64().unwrap() as u8, hex(&i[1])))
                .collect();
            assert_eq!(decoded(&encoded).unwrap(), items, "{}", vector["name"]);

            let mut buf = [0xaa; 2048];
            let mut w = Writer::new(&mut buf);
            items.iter().for_each(|(tag, value)| put(&mut w, *tag, value));
            assert_eq!(w.finish().unwrap(), encoded, "{}", vector["name"]);

            let mut buf = [0xaa; 2048];
            let mut w = Writer::new(&mut buf);
            items.iter().for_each(|(tag, value)| nested(&mut w, *tag, |w| w.bytes(value)));
            assert_eq!(w.finish().unwrap(), encoded, "{}, nested", vector["name"]);
        }
    }

    #[test]
    fn every_edge_case_of_the_vectors() {
        let all = vectors();
        let edge = |name: &str| {
            let all = all["malformed_or_edge"].as_array().unwrap();
            hex(&all.iter().find(|v| v["name"] == name).unwrap()["encoded"])
        };
        assert!(decoded(&edge("truncated header")).is_err());
        assert!(decoded(&edge("value past the end")).is_err());
        let items = decoded(&edge("second fragment of another type")).unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].1.len(), 255);
    }

    #[test]
    fn every_truncation_of_a_fragmented_value_is_an_error_or_a_shorter_list() {
        let mut buf = [0; 800];
        let mut w = Writer::new(&mut buf);
        put(&mut w, 3, &[7; 384]);
        let whole = w.finish().unwrap();
        for cut in 1..whole.len() {
            match decoded(&whole[..cut]) {
                // Cut exactly behind the first fragment: a complete value of 255 bytes.
                Ok(items) => assert_eq!((cut, items.len()), (257, 1)),
                Err(_) => assert!(find(&whole[..cut], 9).is_err()),
            }
        }
    }

    #[test]
    fn an_error_ends_the_list() {
        let mut items = Items::new(&[1, 1, 5, 2, 9, 0]);
        assert!(items.next().unwrap().is_ok());
        assert!(items.next().unwrap().is_err());
        assert!(items.next().is_none());
    }

    #[test]
    fn short_neighbours_of_one_tag_are_two_values() {
        assert_eq!(decoded(&[1, 1, 5, 1, 1, 6]).unwrap(), [(1, vec![5]), (1, vec![6])]);
        assert_eq!(find(&[1, 1, 5, 1, 1, 6], 1).unwrap().unwrap().uint(), Some(5));
    }

    #[test]
    fn integers_of_any_length() {
        let uint = |wire: &[u8]| find(wire, 1).unwrap().unwrap().uint();
        assert_eq!(uint(&[1, 0]), None);
        assert_eq!(uint(&[1, 1, 0x80]), Some(0x80));
        assert_eq!(uint(&[1, 2, 0x34, 0x12]), Some(0x1234));
        assert_eq!(uint(&[1, 3, 1, 2, 3]), Some(0x03_02_01));
        assert_eq!(uint(&[1, 8, 255, 255, 255, 255, 255, 255, 255, 255]), Some(u64::MAX));
        assert_eq!(uint(&[1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1));
        assert_eq!(uint(&[1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1]), None);
    }

    #[test]
    fn arrays_and_copies_have_one_length() {
        let value = find(&[1, 2, 3, 4], 1).unwrap().unwrap();
        assert_eq!(value.array::<2>(), Some([3, 4]));
        assert_eq!(value.array::<1>(), None);
        assert_eq!(value.array::<3>(), None);
        assert_eq!(value.bytes(), Some(&[3, 4][..]));
        let mut short = [9];
        assert_eq!(value.copy_to(&mut short), None);
        assert_eq!(short, [9]);
        assert!(find(&[1, 0], 1).unwrap().unwrap().is_empty());
    }

    #[test]
    fn a_value_in_two_fragments_has_no_single_slice() {
        let mut wire = vec![1, 255];
        wire.extend([5; 255]);
        wire.extend([1, 0]);
        let value = find(&wire, 1).unwrap().unwrap();
        assert_eq!((value.len(), value.bytes()), (255, None));
        assert_eq!(value.array::<255>(), Some([5; 255]));
    }

    #[test]
    fn nested_lists_and_integers() {
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        nested(&mut w, 1, |w| {
            put_u8(w, 2, 7);
            nested(w, 3, |w| put_u16(w, 1, 640));
        });
        put_u32(&mut w, 4, 4000);
        put_u64(&mut w, 5, 1);
        nested(&mut w, 6, |_| ());
        let expected = [1, 9, 2, 1, 7, 3, 4, 1, 2, 0x80, 2, 4, 4, 0xa0, 0x0f, 0, 0, 5, 8, 1, 0, 0, 0, 0, 0, 0, 0, 6, 0];
        assert_eq!(w.finish().unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for room in 0..261 {
            let mut buf = [0; 300];
            let mut w = Writer::new(&mut buf[..room]);
            nested(&mut w, 1, |w| w.bytes(&[0; 257]));
            assert_eq!(w.finish(), Err(Full), "{room}");
            let mut w = Writer::new(&mut buf[..room]);
            put(&mut w, 1, &[0; 257]);
            assert_eq!(w.finish(), Err(Full), "{room}");
        }
        let mut buf = [0; 261];
        let mut w = Writer::new(&mut buf);
        nested(&mut w, 1, |w| w.bytes(&[0; 257]));
        assert_eq!(w.finish().map(|b| b.len()), Ok(261));
    }
}
