//! The one way to emit bytes: into a slice that the caller owns.

use super::Malformed;

/// The slice given to a [`Writer`] was too small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl From<Full> for Malformed {
    fn from(_: Full) -> Self {
        Malformed("does not fit the buffer")
    }
}

/// Appends to a slice. Running out of room is remembered and told once, by [`Writer::finish`], so
/// that an emitter reads as the list of its fields. Nothing is written after the first overflow.
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Writer { buf, len: 0, full: false }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether something did not fit.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        &self.buf[..self.len]
    }

    /// What was written so far, to be changed in place (back-patched lengths, encryption).
    pub fn written_mut(&mut self) -> &mut [u8] {
        &mut self.buf[..self.len]
    }

    /// The next `n` bytes, zeroed; `None` (and full) when they do not fit.
    pub fn reserve(&mut self, n: usize) -> Option<&mut [u8]> {
        let room = self.next(n)?;
        room.fill(0);
        Some(room)
    }

    /// The next `n` bytes with what happens to be in them.
    fn next(&mut self, n: usize) -> Option<&mut [u8]> {
        if self.full || n > self.buf.len() - self.len {
            self.full = true;
            return None;
        }
        let at = self.len;
        self.len += n;
        Some(&mut self.buf[at..at + n])
    }

    /// Appends bytes.
    pub fn bytes(&mut self, b: &[u8]) {
        if let Some(room) = self.next(b.len()) {
            room.copy_from_slice(b);
        }
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes(&[v]);
    }

    /// Appends 16 bits, big-endian.
    pub fn u16_be(&mut self, v: u16) {
        self.bytes(&v.to_be_bytes());
    }

    /// Appends 32 bits, big-endian.
    pub fn u32_be(&mut self, v: u32) {
        self.bytes(&v.to_be_bytes());
    }

    /// Appends 64 bits, big-endian.
    pub fn u64_be(&mut self, v: u64) {
        self.bytes(&v.to_be_bytes());
    }

    /// Appends 16 bits, little-endian.
    pub fn u16_le(&mut self, v: u16) {
        self.bytes(&v.to_le_bytes());
    }

    /// Appends 32 bits, little-endian.
    pub fn u32_le(&mut self, v: u32) {
        self.bytes(&v.to_le_bytes());
    }

    /// Appends 64 bits, little-endian.
    pub fn u64_le(&mut self, v: u64) {
        self.bytes(&v.to_le_bytes());
    }

    /// Writes 16 bits big-endian over what stands at `at`; out of range counts as full.
    pub fn patch_u16_be(&mut self, at: usize, v: u16) {
        self.patch(at, &v.to_be_bytes());
    }

    /// Writes 32 bits big-endian over what stands at `at`; out of range counts as full.
    pub fn patch_u32_be(&mut self, at: usize, v: u32) {
        self.patch(at, &v.to_be_bytes());
    }

    fn patch(&mut self, at: usize, b: &[u8]) {
        match self.buf[..self.len].get_mut(at..at + b.len()) {
            Some(room) => room.copy_from_slice(b),
            None => self.full = true,
        }
    }

    /// A box or list whose 32-bit big-endian length (its own four bytes included) stands in front of
    /// it and is known only afterwards (ISO/IEC 14496-12 §4.2).
    pub fn length_prefixed_u32(&mut self, body: impl FnOnce(&mut Self)) {
        let at = self.len;
        self.u32_be(0);
        body(self);
        let length = (self.len - at) as u32;
        self.patch_u32_be(at, length);
    }

    /// Forgets everything after the first `len` bytes and that something did not fit.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.full = false;
    }

    /// What was written, or [`Full`] when something did not fit.
    pub fn finish(self) -> Result<&'a mut [u8], Full> {
        if self.full { Err(Full) } else { Ok(&mut self.buf[..self.len]) }
    }
}

impl core::fmt::Write for Writer<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.bytes(s.as_bytes());
        if self.full { Err(core::fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_that_something_did_not_fit() {
        let mut b = [0; 3];
        let mut w = Writer::new(&mut b);
        w.u16_be(0x0102);
        w.u16_be(0x0304);
        w.u8(9);
        assert_eq!(w.written(), [1, 2]);
        assert_eq!(w.finish(), Err(Full));
    }

    #[test]
    fn back_patches_a_length() {
        let mut b = [0xff; 16];
        let mut w = Writer::new(&mut b);
        w.length_prefixed_u32(|w| w.bytes(b"abcd"));
        assert_eq!(w.finish().unwrap(), b"\0\0\0\x08abcd");
    }

    #[test]
    fn a_patch_outside_is_an_overflow() {
        let mut b = [0; 4];
        let mut w = Writer::new(&mut b);
        w.u8(1);
        w.patch_u32_be(0, 1);
        assert!(w.is_full());
    }
}
