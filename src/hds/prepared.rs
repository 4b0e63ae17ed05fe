//! Data streams that a hub has asked for over HAP and not connected to yet.
//!
//! The TCP connection does not say which of them it is: its first frame opens under the keys of one
//! and no other (HomeKit Data Stream, keys).

use super::frame;
use crate::crypto::aead::{OpenKey, SealKey};
use crate::crypto::{Key, SharedSecret, hkdf_sha512};
use crate::hds::ConnectionId;
use crate::time::{Duration, Instant};

/// Prepared data streams at one time.
pub const PREPARED_MAX: usize = 8;
/// How many of them one HAP connection may hold: a hub repeats the request now and then, but must not
/// lock out the others.
pub const PREPARED_PER_CONNECTION_MAX: usize = 4;
/// How long a prepared data stream waits for its TCP connection.
pub const PREPARED_LIFETIME: Duration = Duration::from_secs(10);
/// The longest first frame that is tried: a hello takes about 70 bytes.
pub const FIRST_FRAME_MAX: usize = 512;

/// Too many data streams are prepared; the answer on the wire is "busy".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// What a TCP connection gets when its first frame opened: the keys of both directions, unused yet.
#[derive(Debug)]
pub struct Claimed {
    /// The HAP connection whose end is the end of the data stream, too.
    pub connection: ConnectionId,
    /// For what we send.
    pub seal: SealKey,
    /// For what the hub sends.
    pub open: OpenKey,
}

/// The table of prepared data streams.
#[derive(Default)]
pub struct Prepared {
    entries: heapless::Vec<Entry, PREPARED_MAX>,
}

struct Entry {
    connection: ConnectionId,
    expires: Instant,
    seal: Key,
    open: Key,
}

impl Prepared {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Derives and keeps the keys of one data stream. `shared` is the secret of the pair-verify of
    /// `connection`. An older one of the same connection stays valid: hubs ask twice and then use
    /// either.
    ///
    /// # Errors
    /// [`Busy`] when the connection or all of them together hold too many.
    pub fn prepare(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        shared: &SharedSecret,
        controller_salt: &[u8; 32],
        accessory_salt: &[u8; 32],
    ) -> Result<(), Busy> {
        self.handle_timeout(now);
        if self.entries.iter().filter(|e| e.connection == connection).count() >= PREPARED_PER_CONNECTION_MAX {
            return Err(Busy);
        }
        let mut salt = [0; 64];
        salt[..32].copy_from_slice(controller_salt);
        salt[32..].copy_from_slice(accessory_salt);
        // "Read" and "write" are the controller's words: what it reads we seal.
        let entry = Entry {
            connection,
            expires: now + PREPARED_LIFETIME,
            seal: hkdf_sha512(shared.as_bytes(), &salt, b"HDS-Read-Encryption-Key"),
            open: hkdf_sha512(shared.as_bytes(), &salt, b"HDS-Write-Encryption-Key"),
        };
        self.entries.push(entry).map_err(|_| Busy)
    }

    /// Tries `frame`, the first one of a TCP connection, under every key. The one that opens it is
    /// taken out of the table; `frame` itself is left sealed, so that the stream opens it as its first.
    pub fn claim(&mut self, now: Instant, frame: &[u8]) -> Option<Claimed> {
        self.handle_timeout(now);
        let (header, rest) = frame.split_first_chunk::<{ frame::HEADER_BYTES }>()?;
        let at = self.entries.iter().position(|entry| {
            // A failed trial destroys the buffer it works on.
            let mut copy = [0; FIRST_FRAME_MAX];
            copy.get_mut(..rest.len()).is_some_and(|copy| {
                copy.copy_from_slice(rest);
                OpenKey::new(&entry.open).try_open(header, copy).is_some()
            })
        })?;
        let entry = self.entries.swap_remove(at);
        Some(Claimed { connection: entry.connection, seal: SealKey::new(&entry.seal), open: OpenKey::new(&entry.open) })
    }

    /// Forgets what `connection` has prepared: it is closed or its pairing is gone.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.entries.retain(|e| e.connection != connection);
    }

    /// Forgets what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.entries.retain(|e| now < e.expires);
    }

    /// When to call [`Prepared::handle_timeout`] at the latest, so that keys do not stay in memory.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.iter().map(|e| e.expires).min()
    }

    /// How many data streams are prepared.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hds::vectors::{unhex, vectors};

    const NOW: Instant = Instant::from_micros(7_000_000);

    fn salts() -> (SharedSecret, [u8; 32], [u8; 32]) {
        let keys = &vectors()["keys"];
        let of = |name: &str| -> [u8; 32] { unhex(&keys[name]).try_into().unwrap() };
        (SharedSecret::new(of("shared_secret")), of("controller_key_salt"), of("accessory_key_salt"))
    }

    fn hello() -> Vec<u8> {
        unhex(&vectors()["session"][0]["frame"])
    }

    #[test]
    fn the_keys_are_those_of_the_vectors() {
        let (shared, controller, accessory) = salts();
        let mut prepared = Prepared::new();
        prepared.prepare(NOW, 3, &shared, &controller, &accessory).unwrap();
        let v = vectors();
        assert_eq!(&prepared.entries[0].seal.as_bytes()[..], unhex(&v["keys"]["a2c_key"]));
        assert_eq!(&prepared.entries[0].open.as_bytes()[..], unhex(&v["keys"]["c2a_key"]));
    }

    #[test]
    fn the_first_frame_finds_its_keys_and_stays_sealed() {
        let (shared, controller, accessory) = salts();
        let mut prepared = Prepared::new();
        for (connection, salt) in [(1, [1; 32]), (2, accessory), (1, [2; 32])] {
            prepared.prepare(NOW, connection, &shared, &controller, &salt).unwrap();
        }
        let mut first = hello();
        let mut claimed = prepared.claim(NOW, &first).unwrap();
        assert_eq!((claimed.connection, prepared.len()), (2, 2));
        assert_eq!(first, hello());
        assert!(frame::open(&mut claimed.open, &mut first).is_some());
        assert!(prepared.claim(NOW, &hello()).is_none(), "claimed once");
    }

    #[test]
    fn what_is_no_first_frame_claims_nothing() {
        let (shared, controller, accessory) = salts();
        let mut prepared = Prepared::new();
        prepared.prepare(NOW, 1, &shared, &controller, &accessory).unwrap();
        for wrong in [&hello()[..40], &[1, 0, 0][..], &[][..], &[1, 0, 0, 4, 9, 9][..], &[1; 4096][..]] {
            assert!(prepared.claim(NOW, wrong).is_none());
        }
        assert!(prepared.claim(NOW, &hello()).is_some());
    }

    #[test]
    fn expires_after_ten_seconds() {
        let (shared, controller, accessory) = salts();
        let mut prepared = Prepared::new();
        prepared.prepare(NOW, 1, &shared, &controller, &accessory).unwrap();
        assert_eq!(prepared.poll_timeout(), Some(NOW + Duration::from_secs(10)));
        prepared.handle_timeout(NOW + Duration::from_millis(9_999));
        assert_eq!(prepared.len(), 1);
        assert!(prepared.claim(NOW + Duration::from_secs(10), &hello()).is_none());
        assert!(prepared.is_empty());
    }

    #[test]
    fn the_table_is_bounded_for_all_and_for_each() {
        let (shared, controller, accessory) = salts();
        let mut prepared = Prepared::new();
        let prepare = |p: &mut Prepared, now, c| p.prepare(now, c, &shared, &controller, &accessory);
        for _ in 0..4 {
            assert_eq!(prepare(&mut prepared, NOW, 1), Ok(()));
        }
        assert_eq!(prepare(&mut prepared, NOW, 1), Err(Busy));
        for _ in 0..4 {
            assert_eq!(prepare(&mut prepared, NOW, 2), Ok(()));
        }
        assert_eq!(prepare(&mut prepared, NOW, 3), Err(Busy));
        prepared.forget(1);
        assert_eq!(prepared.len(), 4);
        assert_eq!(prepare(&mut prepared, NOW, 3), Ok(()));
        assert_eq!(prepare(&mut prepared, NOW + Duration::from_secs(10), 2), Ok(()), "the old ones are gone");
    }
}
