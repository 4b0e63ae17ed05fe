//! Buffers that are claimed once and lent to whoever has something to send.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// The place of one buffer.
#[derive(Clone)]
pub struct Home(Rc<RefCell<Option<Box<[u8]>>>>);

impl Home {
    /// Claims `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Home(Rc::new(RefCell::new(Some(vec![0; bytes].into_boxed_slice()))))
    }

    /// The buffer, unless somebody has it.
    pub fn lend(&self) -> Option<Loan> {
        let buffer = self.0.borrow_mut().take()?;
        Some(Loan { home: self.clone(), buffer, len: 0 })
    }
}

/// A lent buffer and how much of it is filled. Goes home when dropped, also when the task that holds
/// it is.
pub struct Loan {
    home: Home,
    buffer: Box<[u8]>,
    len: usize,
}

impl Loan {
    /// All of the buffer, to be filled.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// The first `len` bytes are what counts.
    pub fn filled(mut self, len: usize) -> Self {
        self.len = len.min(self.buffer.len());
        self
    }
}

impl Deref for Loan {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        *self.home.0.borrow_mut() = Some(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_borrower_at_a_time() {
        let home = Home::new(4);
        let mut loan = home.lend().unwrap();
        assert!(home.lend().is_none());
        loan.room()[..2].copy_from_slice(b"hi");
        let loan = loan.filled(2);
        assert_eq!(&loan[..], b"hi");
        drop(loan);
        assert!(home.lend().is_some());
    }
}
