//! Who may speak to the accessory: its own identity, the controllers it is paired with, and the
//! procedures by which they come and go (HAP R2 §5).

pub mod list;
pub mod setup;
pub mod verify;

pub use list::ListOutcome;
pub use setup::{Outcome, Setup};
pub use verify::{Verify, VerifyOutcome};

use super::setup_code::{self, SetupCode};
use crate::crypto::{Random, Secret, SigningKey};
use crate::wire::{Malformed, Writer, tlv8};
use heapless::Vec;

/// Pairings the table holds. 16 are demanded (HAP R2 §5.10); every hub and every member of a home
/// takes one.
pub const MAX_PAIRINGS: usize = 32;

/// Bytes that are enough for any reply of this module: a list of all pairings is the longest.
pub const MAX_REPLY: usize = Pairings::STORED;

/// What a controller calls itself: up to 36 bytes of UTF-8, by habit a UUID.
pub type ControllerId = Vec<u8, 36>;

/// Everything of the accessory that the procedures use.
pub struct Context<'a> {
    /// Who we are.
    pub identity: &'a Identity,
    /// Whom we know.
    pub pairings: &'a mut Pairings,
    /// Where keys come from.
    pub random: &'a mut dyn Random,
}

/// Tags of the pairing messages (HAP R2 table 5-6).
mod tag {
    pub const METHOD: u8 = 0x00;
    pub const IDENTIFIER: u8 = 0x01;
    pub const SALT: u8 = 0x02;
    pub const PUBLIC_KEY: u8 = 0x03;
    pub const PROOF: u8 = 0x04;
    pub const ENCRYPTED_DATA: u8 = 0x05;
    pub const STATE: u8 = 0x06;
    pub const ERROR: u8 = 0x07;
    pub const SIGNATURE: u8 = 0x0a;
    pub const PERMISSIONS: u8 = 0x0b;
    pub const SEPARATOR: u8 = 0xff;
}

/// Tags of what is stored; those of the messages where they mean the same.
mod stored {
    /// The format's version, first in every file.
    pub const FORMAT: u8 = 0xf0;
    pub const SEED: u8 = 0xf1;
    pub const SETUP_ID: u8 = 0xf2;
    pub const SETUP_CODE: u8 = 0xf3;
    pub const TRIES: u8 = 0xf4;
    /// The version this program writes and reads.
    pub const VERSION: u8 = 1;

    /// Refuses what another version wrote.
    pub fn check(bytes: &[u8]) -> Result<(), super::Malformed> {
        match super::tlv8::find(bytes, FORMAT)?.and_then(|v| v.uint()) {
            Some(version) if version == u64::from(VERSION) => Ok(()),
            Some(_) => Err(super::Malformed("written by another version of this program")),
            None => Err(super::Malformed("no format version")),
        }
    }
}

/// Errors of the pairing messages (HAP R2 table 5-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Error {
    Unknown = 1,
    Authentication = 2,
    MaxPeers = 4,
    MaxTries = 5,
    Unavailable = 6,
    Busy = 7,
}

/// Writes the reply that is nothing but an error. It travels with HTTP status 200.
fn refuse(out: &mut Writer<'_>, state: u8, error: Error) {
    tlv8::put_u8(out, tag::STATE, state);
    tlv8::put_u8(out, tag::ERROR, error as u8);
}

/// The accessory's name on the network and in signatures: six bytes as `1A:2B:3C:4D:5E:6F`, upper case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceId([u8; 17]);

impl DeviceId {
    /// Reads the text form.
    ///
    /// # Errors
    /// When it is not six pairs of upper-case hex digits with colons between them.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const ERROR: Malformed = Malformed("a device id is six pairs of upper-case hex digits with colons");
        let bytes: [u8; 17] = text.as_bytes().try_into().map_err(|_| ERROR)?;
        let shape = |(at, &b): (usize, &u8)| match at % 3 {
            2 => b == b':',
            _ => b.is_ascii_digit() || (b'A'..=b'F').contains(&b),
        };
        if bytes.iter().enumerate().all(shape) { Ok(DeviceId(bytes)) } else { Err(ERROR) }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("hex digits and colons, checked by parse")
    }

    /// Draws one.
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut bytes = [0; 6];
        random.fill(&mut bytes);
        let mut text = [b':'; 17];
        for (pair, byte) in text.chunks_mut(3).zip(bytes) {
            crate::wire::hex::encode(&[byte], &mut pair[..2]);
        }
        text.make_ascii_uppercase();
        DeviceId(text)
    }
}

/// What makes this accessory the one it is. Lost, every controller says "No Response" for ever.
#[derive(Debug)]
pub struct Identity {
    /// Its name, the TXT entry `id`.
    pub device_id: DeviceId,
    /// Its long-term key.
    pub signing: SigningKey,
    /// Four characters that the setup hash is made of.
    pub setup_id: [u8; 4],
    /// What a person types to pair.
    pub setup_code: SetupCode,
}

impl Identity {
    /// Bytes that are enough for [`Identity::emit`].
    pub const STORED: usize = 96;

    /// A new accessory. `setup_code` is the one of the configuration, if it has one; otherwise one is
    /// drawn.
    pub fn generate(random: &mut dyn Random, setup_code: Option<SetupCode>) -> Self {
        let device_id = DeviceId::generate(random);
        let mut seed = Secret::new([0; 32]);
        random.fill(seed.as_mut_bytes());
        let signing = SigningKey::from_seed(seed.as_bytes());
        let setup_id = setup_code::generate_setup_id(random);
        let setup_code = setup_code.unwrap_or_else(|| SetupCode::generate(random));
        Identity { device_id, signing, setup_id, setup_code }
    }

    /// Writes the identity for the store.
    pub fn emit(&self, out: &mut Writer<'_>) {
        tlv8::put_u8(out, stored::FORMAT, stored::VERSION);
        tlv8::put(out, tag::IDENTIFIER, self.device_id.as_str().as_bytes());
        tlv8::put(out, stored::SEED, self.signing.seed());
        tlv8::put(out, stored::SETUP_ID, &self.setup_id);
        tlv8::put(out, stored::SETUP_CODE, self.setup_code.as_str().as_bytes());
    }

    /// Reads what [`Identity::emit`] wrote.
    ///
    /// # Errors
    /// When anything is missing or out of shape. The caller must not make a new identity then: the
    /// home would take it for another accessory.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        stored::check(bytes)?;
        let text = |tag, error| -> Result<&str, Malformed> {
            let value = tlv8::find(bytes, tag)?.and_then(|v| v.bytes()).ok_or(error)?;
            core::str::from_utf8(value).map_err(|_| error)
        };
        let device_id = DeviceId::parse(text(tag::IDENTIFIER, Malformed("no device id"))?)?;
        let seed = tlv8::find(bytes, stored::SEED)?.and_then(|v| v.array().map(Secret::<32>::new));
        let setup_id = tlv8::find(bytes, stored::SETUP_ID)?.and_then(|v| v.array::<4>());
        let setup_code = SetupCode::parse(text(stored::SETUP_CODE, Malformed("no setup code"))?)
            .map_err(|_| Malformed("the setup code is not one"))?;
        Ok(Identity {
            device_id,
            signing: SigningKey::from_seed(seed.ok_or(Malformed("no key of 32 bytes"))?.as_bytes()),
            setup_id: setup_id.filter(|id| setup_code::is_setup_id(id)).ok_or(Malformed("no setup id"))?,
            setup_code,
        })
    }
}

/// A controller that may open a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pairing {
    /// What it calls itself.
    pub id: ControllerId,
    /// Its long-term Ed25519 key.
    pub public: [u8; 32],
    /// Whether it may change the list of pairings.
    pub admin: bool,
}

/// Why a pairing was not added or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAdded {
    /// The table is full.
    Full,
    /// The id is there with another key.
    OtherKey,
    /// It is the last admin and would be one no longer; nobody could manage the accessory any more.
    LastAdmin,
}

/// The controllers the accessory is paired with. Empty, or with at least one admin among them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pairings {
    table: Vec<Pairing, MAX_PAIRINGS>,
}

impl Pairings {
    /// Bytes that are enough for [`Pairings::emit`].
    pub const STORED: usize = 3 + MAX_PAIRINGS * (2 + 2 + 36 + 2 + 32 + 3);

    /// Paired with nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pairing of the controller `id`.
    pub fn find(&self, id: &[u8]) -> Option<&Pairing> {
        self.table.iter().find(|p| p.id == id)
    }

    /// Whether the controller `id` is paired and admin.
    pub fn is_admin(&self, id: &[u8]) -> bool {
        self.find(id).is_some_and(|p| p.admin)
    }

    /// The pairings, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Pairing> {
        self.table.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the accessory is unpaired: open to pair-setup, `sf=1`.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds a pairing, or changes the permissions of one that is there with the same key. Says whether
    /// that changed anything.
    ///
    /// # Errors
    /// See [`NotAdded`]; the table is as it was.
    pub fn add(&mut self, new: Pairing) -> Result<bool, NotAdded> {
        let admins = self.admins();
        match self.table.iter_mut().find(|p| p.id == new.id) {
            None => self.table.push(new).map(|()| true).map_err(|_| NotAdded::Full),
            Some(old) if old.public != new.public => Err(NotAdded::OtherKey),
            Some(old) if old.admin && !new.admin && admins == 1 => Err(NotAdded::LastAdmin),
            Some(old) => Ok(core::mem::replace(&mut old.admin, new.admin) != new.admin),
        }
    }

    /// Removes the pairing of `id`, and with the last admin all of them (HAP R2 §5.11). Says whether
    /// there was one.
    pub fn remove(&mut self, id: &[u8]) -> bool {
        let before = self.len();
        self.table.retain(|p| p.id != id);
        if self.admins() == 0 {
            self.clear();
        }
        self.len() != before
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    fn admins(&self) -> usize {
        self.iter().filter(|p| p.admin).count()
    }

    /// Writes the table for the store.
    pub fn emit(&self, out: &mut Writer<'_>) {
        tlv8::put_u8(out, stored::FORMAT, stored::VERSION);
        self.emit_list(out);
    }

    /// Identifier, public key and permissions of each, separated: the reply to "list", too.
    fn emit_list(&self, out: &mut Writer<'_>) {
        for (n, pairing) in self.iter().enumerate() {
            if n > 0 {
                tlv8::separator(out, tag::SEPARATOR);
            }
            tlv8::put(out, tag::IDENTIFIER, &pairing.id);
            tlv8::put(out, tag::PUBLIC_KEY, &pairing.public);
            tlv8::put_u8(out, tag::PERMISSIONS, pairing.admin.into());
        }
    }

    /// Reads what [`Pairings::emit`] wrote.
    ///
    /// # Errors
    /// When a pairing is incomplete, there twice or one too many, or none is admin.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        stored::check(bytes)?;
        let mut pairings = Self::new();
        let mut id: Option<ControllerId> = None;
        let mut public = None;
        for item in tlv8::Items::new(bytes) {
            let item = item?;
            match item.tag {
                tag::IDENTIFIER => id = Some(controller_id(item.value).ok_or(Malformed("no id of a controller"))?),
                tag::PUBLIC_KEY => public = item.value.array(),
                // The last item of each pairing.
                tag::PERMISSIONS => {
                    let (Some(id), Some(public)) = (id.take(), public.take()) else {
                        return Err(Malformed("a pairing without id or key"));
                    };
                    if pairings.find(&id).is_some() {
                        return Err(Malformed("a controller is paired twice"));
                    }
                    let admin = is_admin(item.value).ok_or(Malformed("permissions are no number"))?;
                    pairings.add(Pairing { id, public, admin }).map_err(|_| Malformed("more than 32 pairings"))?;
                }
                _ => {}
            }
        }
        if id.is_some() || public.is_some() {
            return Err(Malformed("the last pairing is cut off"));
        }
        if !pairings.is_empty() && pairings.admins() == 0 {
            return Err(Malformed("pairings without an admin"));
        }
        Ok(pairings)
    }
}

/// The id of a controller, if the value can be one.
fn controller_id(value: tlv8::Value<'_>) -> Option<ControllerId> {
    let bytes = value.bytes().filter(|b| !b.is_empty() && core::str::from_utf8(b).is_ok())?;
    Vec::from_slice(bytes).ok()
}

/// The admin bit of permissions (HAP R2 §5.10).
fn is_admin(value: tlv8::Value<'_>) -> Option<bool> {
    value.uint().map(|permissions| permissions & 1 == 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::crypto::fixed::{FixedRandom, array, hex, vectors};
    use serde_json::Value;

    /// The accessory of the vectors.
    pub fn identity() -> Identity {
        let setup = vectors("pair_setup");
        Identity {
            device_id: DeviceId::parse(setup["accessory"]["id"].as_str().unwrap()).unwrap(),
            signing: SigningKey::from_seed(&array(&setup["accessory"]["ltsk_seed"])),
            setup_id: *b"HKSV",
            setup_code: SetupCode::parse(setup["setup_code"].as_str().unwrap()).unwrap(),
        }
    }

    /// A controller of the vectors, as admin.
    pub fn controller(v: &Value) -> Pairing {
        let id = Vec::from_slice(v["id"].as_str().unwrap().as_bytes()).unwrap();
        Pairing { id, public: array(&v["ltpk"]), admin: true }
    }

    fn emitted(emit: impl FnOnce(&mut Writer<'_>), room: usize) -> std::vec::Vec<u8> {
        let mut buf = vec![0; room];
        let mut out = Writer::new(&mut buf);
        emit(&mut out);
        out.finish().expect("the promised room is enough").to_vec()
    }

    fn full() -> Pairings {
        let mut pairings = Pairings::new();
        for n in 0..MAX_PAIRINGS {
            let id = Vec::from_slice(format!("{n:036}").as_bytes()).unwrap();
            pairings.add(Pairing { id, public: [n as u8; 32], admin: n == 7 }).unwrap();
        }
        pairings
    }

    #[test]
    fn an_identity_survives_the_store() {
        let mut random = FixedRandom::default();
        let identity = Identity::generate(&mut random, None);
        let bytes = emitted(|out| identity.emit(out), Identity::STORED);
        let read = Identity::parse(&bytes).unwrap();
        assert_eq!(read.device_id, identity.device_id);
        assert_eq!(read.signing.public(), identity.signing.public());
        assert_eq!((read.setup_id, read.setup_code.as_str()), (identity.setup_id, identity.setup_code.as_str()));
        // All of it is needed.
        for cut in 0..bytes.len() {
            assert!(Identity::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        let another = Identity::generate(&mut random, Some(SetupCode::parse("031-45-154").unwrap()));
        assert_ne!(another.device_id, identity.device_id);
        assert_eq!(another.setup_code.as_str(), "031-45-154");
    }

    #[test]
    fn nothing_secret_of_an_identity_is_shown() {
        let shown = format!("{:?}", identity());
        assert!(shown.contains("DeviceId"));
        assert!(!shown.contains("031") && !shown.contains("78, e4") && !shown.contains("120, 228"), "{shown}");
    }

    #[test]
    fn device_ids_have_one_shape() {
        assert_eq!(
            DeviceId::generate(&mut FixedRandom::new(&[vec![0x1a, 0, 0xff, 9, 0xb0, 7]])).as_str(),
            "1A:00:FF:09:B0:07"
        );
        for text in
            ["", "1A:2B:3C:4D:5E:6", "1a:2B:3C:4D:5E:6F", "1A-2B-3C-4D-5E-6F", "1A:2B:3C:4D:5E:6F:", "1A:2B:3C:4D:5E:é"]
        {
            assert!(DeviceId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_full_table_survives_the_store() {
        let bytes = emitted(|out| full().emit(out), Pairings::STORED);
        assert_eq!(Pairings::parse(&bytes), Ok(full()));
        let empty = emitted(|out| Pairings::new().emit(out), 3);
        assert_eq!(Pairings::parse(&empty), Ok(Pairings::new()));
    }

    #[test]
    fn a_damaged_table_is_refused() {
        let bytes = emitted(|out| full().emit(out), Pairings::STORED);
        let entry = bytes.len() / MAX_PAIRINGS;
        for cut in 0..bytes.len() {
            // Only the borders between pairings can go unnoticed here, behind the admin; the store has a
            // checksum for that.
            if let Ok(shorter) = Pairings::parse(&bytes[..cut]) {
                assert!(shorter.is_empty() || (shorter.len() > 7 && cut % entry <= 3), "{cut}");
            }
        }
        let mut other_version = bytes.clone();
        other_version[2] = 2;
        assert!(Pairings::parse(&other_version).is_err());
        let twice = [&bytes[..3 + 75], &[0xff, 0], &bytes[3..]].concat();
        assert!(Pairings::parse(&twice).is_err());
        let pairing = |n: u8| [&[1, 1, n, 3, 32][..], &[0; 32], &[11, 1, 1, 0xff, 0]].concat();
        let many = |count: u8| [vec![0xf0, 1, 1], (0..count).flat_map(|n| pairing(n + 48)).collect()].concat();
        assert_eq!(Pairings::parse(&many(32)).map(|p| p.len()), Ok(32));
        assert!(Pairings::parse(&many(33)).is_err());
        let no_admin = [&[0xf0, 1, 1, 1, 1, 65, 3, 32][..], &[0; 32], &[11, 1, 0]].concat();
        assert!(Pairings::parse(&no_admin).is_err());
        assert!(Pairings::parse(&hex(&vectors("pairings")["list_response"])).is_err());
    }
}
