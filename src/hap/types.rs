//! The vocabulary of the attribute database (HAP R2 §6.3, §6.7): formats, permissions, units, short
//! UUIDs and status codes.

use crate::wire::Writer;
use core::fmt::Write as _;

/// A service or characteristic type whose UUID ends in `-0000-1000-8000-0026BB765291`, by its first
/// group: it travels as hexadecimal digits without leading zeros (HAP R2 §6.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u16);

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:X}", self.0)
    }
}

/// The form of a characteristic's value (HAP R2 §6.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A truth value.
    Bool,
    /// 0 to 255.
    Uint8,
    /// UTF-8 text.
    String,
    /// TLV8 in base64.
    Tlv8,
}

impl Format {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Bool => "bool",
            Format::Uint8 => "uint8",
            Format::String => "string",
            Format::Tlv8 => "tlv8",
        }
    }
}

/// The unit of a value (HAP R2 §6.3.3, table 6-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Hundredths.
    Percentage,
}

impl Unit {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Percentage => "percentage",
        }
    }
}

/// What may be done with a characteristic (HAP R2 §6.3.3, table 6-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Perms(u8);

impl Perms {
    /// `pr`: verified controllers may read it.
    pub const READ: Perms = Perms(1);
    /// `pw`: verified controllers may write it.
    pub const WRITE: Perms = Perms(2);
    /// `ev`: it may be subscribed to.
    pub const EVENT: Perms = Perms(4);
    /// `tw`: it is only written inside a timed write.
    pub const TIMED: Perms = Perms(8);
    /// `wr`: a write may be answered with a value.
    pub const RESPONSE: Perms = Perms(16);
    /// Only admin controllers may write it; the wire has no name for that.
    pub const ADMIN: Perms = Perms(32);

    /// Read and events.
    pub const READ_EVENT: Perms = Perms::READ.and(Perms::EVENT);
    /// Read and write.
    pub const READ_WRITE: Perms = Perms::READ.and(Perms::WRITE);
    /// Read, write and events.
    pub const ALL: Perms = Perms::READ_WRITE.and(Perms::EVENT);
    /// Read and events for everybody, writes by admin controllers.
    pub const ALL_ADMIN: Perms = Perms::ALL.and(Perms::ADMIN);
    /// Read and events, writes inside a timed write.
    pub const ALL_TIMED: Perms = Perms::ALL.and(Perms::TIMED);

    /// Both.
    pub const fn and(self, other: Perms) -> Perms {
        Perms(self.0 | other.0)
    }

    /// Whether everything in `other` is permitted.
    pub const fn has(self, other: Perms) -> bool {
        self.0 & other.0 == other.0
    }

    /// Appends the JSON array of names.
    pub fn put(self, w: &mut Writer<'_>) {
        let names = [
            (Perms::EVENT, "ev"),
            (Perms::READ, "pr"),
            (Perms::WRITE, "pw"),
            (Perms::TIMED, "tw"),
            (Perms::RESPONSE, "wr"),
        ];
        let mut separator = '[';
        for (_, name) in names.iter().filter(|(perm, _)| self.has(*perm)) {
            let _ = write!(w, "{separator}\"{name}\"");
            separator = ',';
        }
        w.u8(b']');
    }
}

/// The outcome of reading or writing one characteristic (HAP R2 §6.7.1.4, table 6-11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Success,
    /// The controller may not.
    InsufficientPrivileges,
    /// What stands behind the characteristic failed.
    UnableToCommunicate,
    /// In use by somebody else.
    ResourceBusy,
    /// It cannot be written.
    ReadOnly,
    /// It cannot be read.
    WriteOnly,
    /// It has no events.
    NotificationNotSupported,
    /// No room left.
    OutOfResources,
    /// It took too long.
    TimedOut,
    /// There is no such accessory or characteristic.
    DoesNotExist,
    /// The value is not one it can take.
    InvalidValue,
    /// The additional authorisation is missing.
    InsufficientAuthorization,
    /// Not now.
    NotAllowedNow,
}

impl Status {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Status::Success => 0,
            Status::InsufficientPrivileges => -70401,
            Status::UnableToCommunicate => -70402,
            Status::ResourceBusy => -70403,
            Status::ReadOnly => -70404,
            Status::WriteOnly => -70405,
            Status::NotificationNotSupported => -70406,
            Status::OutOfResources => -70407,
            Status::TimedOut => -70408,
            Status::DoesNotExist => -70409,
            Status::InvalidValue => -70410,
            Status::InsufficientAuthorization => -70411,
            Status::NotAllowedNow => -70412,
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let text = match self {
            Status::Success => "done",
            Status::InsufficientPrivileges => "the controller lacks the privilege",
            Status::UnableToCommunicate => "the camera did not answer",
            Status::ResourceBusy => "in use",
            Status::ReadOnly => "cannot be written",
            Status::WriteOnly => "cannot be read",
            Status::NotificationNotSupported => "has no events",
            Status::OutOfResources => "out of resources",
            Status::TimedOut => "took too long",
            Status::DoesNotExist => "does not exist",
            Status::InvalidValue => "invalid value",
            Status::InsufficientAuthorization => "authorisation missing",
            Status::NotAllowedNow => "not allowed in this state",
        };
        write!(f, "{text} ({})", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_uuids_have_no_leading_zeros() {
        assert_eq!((Kind(0x3e).to_string(), Kind(0x11a).to_string()), ("3E".into(), "11A".into()));
    }

    #[test]
    fn permissions_are_named() {
        let text = |perms: Perms| {
            let mut buf = [0; 64];
            let mut w = Writer::new(&mut buf);
            perms.put(&mut w);
            String::from_utf8(w.finish().unwrap().to_vec()).unwrap()
        };
        assert_eq!(text(Perms::WRITE), "[\"pw\"]");
        assert_eq!(text(Perms::ALL_ADMIN), "[\"ev\",\"pr\",\"pw\"]");
        assert_eq!(text(Perms::ALL_TIMED.and(Perms::RESPONSE)), "[\"ev\",\"pr\",\"pw\",\"tw\",\"wr\"]");
        assert!(!Perms::READ.has(Perms::READ_EVENT));
    }

    #[test]
    fn a_status_shows_its_number() {
        assert_eq!(Status::NotAllowedNow.to_string(), "not allowed in this state (-70412)");
    }
}
