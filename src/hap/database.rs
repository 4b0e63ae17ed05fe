//! The attribute database of the camera as data (HAP R2 §6.3, §8 and §9).
//!
//! A service sits at iid `0x…0` and its characteristics follow; AccessoryInformation has iid 1, as
//! HAP R2 §2.6.1 wants. Numbers are never given to something else, so a service or characteristic
//! that a camera lacks leaves a gap: controllers keep iids for the life of a pairing.

use super::types::{Format, Kind, Perms, Unit};

/// Where a service or a characteristic exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// On every camera.
    Always,
    /// On a video doorbell.
    Doorbell,
    /// On a doorbell, and on a camera with a speaker.
    Talkback,
    /// On a camera whose status light can be switched.
    StatusLed,
    /// On a camera whose night vision can be switched.
    NightVision,
    /// On a doorbell with a chime of its own.
    Chime,
}

/// What this camera has: answers [`When`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// There is a button: the accessory is a video doorbell.
    pub doorbell: bool,
    /// There is a speaker.
    pub speaker: bool,
    /// The status light can be switched.
    pub status_led: bool,
    /// Night vision can be switched.
    pub night_vision: bool,
    /// The bell has a chime that can be silenced.
    pub chime: bool,
    /// Double and long presses of the button are told from single ones.
    pub all_presses: bool,
}

impl Features {
    /// Whether what exists `when` exists here.
    pub fn have(&self, when: When) -> bool {
        match when {
            When::Always => true,
            When::Doorbell => self.doorbell,
            When::Talkback => self.doorbell || self.speaker,
            When::StatusLed => self.status_led,
            When::NightVision => self.night_vision,
            When::Chime => self.chime,
        }
    }

    /// The only values that the characteristic takes here.
    pub fn valid(&self, c: &Characteristic) -> &'static [u8] {
        match c.field {
            Field::ProgrammableSwitchEvent if self.all_presses => &[0, 1, 2],
            _ => c.valid,
        }
    }
}

/// One of the two CameraRTPStreamManagement services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// The first instance.
    First,
    /// The second instance.
    Second,
}

/// What a characteristic shows. Each stands in [`SERVICES`] exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are those of HAP R2 §9")]
pub enum Field {
    Identify,
    Manufacturer,
    Model,
    Name,
    SerialNumber,
    FirmwareRevision,
    ProtocolVersion,
    StreamingStatus(Stream),
    SupportedVideoStreamConfiguration(Stream),
    SupportedAudioStreamConfiguration(Stream),
    SupportedRtpConfiguration(Stream),
    SetupEndpoints(Stream),
    SelectedRtpStreamConfiguration(Stream),
    StreamActive(Stream),
    MicrophoneMute,
    MicrophoneVolume,
    SpeakerMute,
    SpeakerVolume,
    MotionDetected,
    StatusActive,
    EventSnapshotsActive,
    HomeKitCameraActive,
    PeriodicSnapshotsActive,
    CameraOperatingModeIndicator,
    NightVision,
    ManuallyDisabled,
    RecordingActive,
    SupportedCameraRecordingConfiguration,
    SupportedVideoRecordingConfiguration,
    SupportedAudioRecordingConfiguration,
    SelectedCameraRecordingConfiguration,
    RecordingAudioActive,
    SupportedDataStreamTransportConfiguration,
    SetupDataStreamTransport,
    DataStreamVersion,
    ProgrammableSwitchEvent,
    ChimeMute,
}

/// A service.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its instance id.
    pub iid: u16,
    /// Its type.
    pub kind: Kind,
    /// Where it exists.
    pub when: When,
    /// It is what the accessory is mainly for.
    pub primary: bool,
    /// Instance ids of the services it is linked to.
    pub linked: &'static [u16],
    /// Its characteristics.
    pub characteristics: &'static [Characteristic],
}

/// A characteristic.
#[derive(Clone, Copy, Debug)]
pub struct Characteristic {
    /// Its instance id.
    pub iid: u16,
    /// Its type.
    pub kind: Kind,
    /// The form of its value.
    pub format: Format,
    /// What may be done with it.
    pub perms: Perms,
    /// What it shows.
    pub field: Field,
    /// Where it exists; its service has to exist, too.
    pub when: When,
    /// The unit of its value.
    pub unit: Option<Unit>,
    /// Least and greatest value; the step is 1.
    pub range: Option<(u8, u8)>,
    /// The only values it takes, unless [`Features::valid`] knows more.
    pub valid: &'static [u8],
}

const fn characteristic(iid: u16, kind: u16, format: Format, perms: Perms, field: Field) -> Characteristic {
    let when = When::Always;
    Characteristic { iid, kind: Kind(kind), format, perms, field, when, unit: None, range: None, valid: &[] }
}

const fn boolean(iid: u16, kind: u16, perms: Perms, field: Field) -> Characteristic {
    characteristic(iid, kind, Format::Bool, perms, field)
}

/// An `uint8` that is 0 or 1.
const fn switch(iid: u16, kind: u16, perms: Perms, field: Field) -> Characteristic {
    let c = characteristic(iid, kind, Format::Uint8, perms, field);
    Characteristic { range: Some((0, 1)), valid: &[0, 1], ..c }
}

const fn volume(iid: u16, field: Field) -> Characteristic {
    let c = characteristic(iid, 0x119, Format::Uint8, Perms::ALL, field);
    Characteristic { range: Some((0, 100)), unit: Some(Unit::Percentage), ..c }
}

const fn string(iid: u16, kind: u16, field: Field) -> Characteristic {
    characteristic(iid, kind, Format::String, Perms::READ, field)
}

const fn tlv8(iid: u16, kind: u16, perms: Perms, field: Field) -> Characteristic {
    characteristic(iid, kind, Format::Tlv8, perms, field)
}

impl Characteristic {
    const fn when(self, when: When) -> Self {
        Characteristic { when, ..self }
    }
}

const fn service(iid: u16, kind: u16, when: When, characteristics: &'static [Characteristic]) -> Service {
    Service { iid, kind: Kind(kind), when, primary: false, linked: &[], characteristics }
}

const fn stream(iid: u16, characteristics: &'static [Characteristic]) -> Service {
    service(iid, 0x110, When::Always, characteristics)
}

/// The characteristics of one CameraRTPStreamManagement (HAP R2 §11).
macro_rules! stream_characteristics {
    ($base:literal, $stream:expr) => {
        &[
            tlv8($base + 1, 0x120, Perms::READ_EVENT, Field::StreamingStatus($stream)),
            tlv8($base + 2, 0x114, Perms::READ, Field::SupportedVideoStreamConfiguration($stream)),
            tlv8($base + 3, 0x115, Perms::READ, Field::SupportedAudioStreamConfiguration($stream)),
            tlv8($base + 4, 0x116, Perms::READ, Field::SupportedRtpConfiguration($stream)),
            tlv8($base + 5, 0x118, Perms::READ_WRITE, Field::SetupEndpoints($stream)),
            tlv8($base + 6, 0x117, Perms::READ_WRITE, Field::SelectedRtpStreamConfiguration($stream)),
            switch($base + 7, 0xb0, Perms::ALL_ADMIN, Field::StreamActive($stream)),
        ]
    };
}

const MOTION_SENSOR: u16 = 0x60;
const DATA_STREAM: u16 = 0x90;

/// Every service hksvd can have, by ascending iid.
pub static SERVICES: &[Service] = &[
    service(
        0x01,
        0x3e,
        When::Always,
        &[
            boolean(0x02, 0x14, Perms::WRITE, Field::Identify),
            string(0x03, 0x20, Field::Manufacturer),
            string(0x04, 0x21, Field::Model),
            string(0x05, 0x23, Field::Name),
            string(0x06, 0x30, Field::SerialNumber),
            string(0x07, 0x52, Field::FirmwareRevision),
        ],
    ),
    service(0x10, 0xa2, When::Always, &[string(0x11, 0x37, Field::ProtocolVersion)]),
    stream(0x20, stream_characteristics!(0x20, Stream::First)),
    stream(0x30, stream_characteristics!(0x30, Stream::Second)),
    service(
        0x40,
        0x112,
        When::Always,
        &[boolean(0x41, 0x11a, Perms::ALL, Field::MicrophoneMute), volume(0x42, Field::MicrophoneVolume)],
    ),
    service(
        0x50,
        0x113,
        When::Talkback,
        &[boolean(0x51, 0x11a, Perms::ALL, Field::SpeakerMute), volume(0x52, Field::SpeakerVolume)],
    ),
    service(
        MOTION_SENSOR,
        0x85,
        When::Always,
        &[
            boolean(0x61, 0x22, Perms::READ_EVENT, Field::MotionDetected),
            boolean(0x62, 0x75, Perms::READ_EVENT, Field::StatusActive),
        ],
    ),
    service(
        0x70,
        0x21a,
        When::Always,
        &[
            switch(0x71, 0x223, Perms::ALL_ADMIN, Field::EventSnapshotsActive),
            switch(0x72, 0x21b, Perms::ALL_ADMIN, Field::HomeKitCameraActive),
            switch(0x73, 0x225, Perms::ALL_ADMIN, Field::PeriodicSnapshotsActive),
            boolean(0x74, 0x21d, Perms::ALL_TIMED, Field::CameraOperatingModeIndicator).when(When::StatusLed),
            boolean(0x75, 0x11b, Perms::ALL_TIMED, Field::NightVision).when(When::NightVision),
            boolean(0x76, 0x227, Perms::READ_EVENT, Field::ManuallyDisabled),
        ],
    ),
    // The link to the motion sensor is what makes a hub record.
    Service {
        linked: &[DATA_STREAM, MOTION_SENSOR],
        ..service(
            0x80,
            0x204,
            When::Always,
            &[
                switch(0x81, 0xb0, Perms::ALL_ADMIN, Field::RecordingActive),
                tlv8(0x82, 0x205, Perms::READ_EVENT, Field::SupportedCameraRecordingConfiguration),
                tlv8(0x83, 0x206, Perms::READ_EVENT, Field::SupportedVideoRecordingConfiguration),
                tlv8(0x84, 0x207, Perms::READ_EVENT, Field::SupportedAudioRecordingConfiguration),
                tlv8(0x85, 0x209, Perms::ALL_ADMIN, Field::SelectedCameraRecordingConfiguration),
                switch(0x86, 0x226, Perms::ALL_TIMED, Field::RecordingAudioActive),
            ],
        )
    },
    service(
        DATA_STREAM,
        0x129,
        When::Always,
        &[
            tlv8(0x91, 0x130, Perms::READ, Field::SupportedDataStreamTransportConfiguration),
            tlv8(0x92, 0x131, Perms::READ_WRITE.and(Perms::RESPONSE), Field::SetupDataStreamTransport),
            string(0x93, 0x37, Field::DataStreamVersion),
        ],
    ),
    Service {
        primary: true,
        ..service(
            0xa0,
            0x121,
            When::Doorbell,
            &[
                Characteristic {
                    range: Some((0, 2)),
                    valid: &[0],
                    ..characteristic(0xa1, 0x73, Format::Uint8, Perms::READ_EVENT, Field::ProgrammableSwitchEvent)
                },
                boolean(0xa2, 0x11a, Perms::ALL, Field::ChimeMute).when(When::Chime),
            ],
        )
    },
];

/// A place in [`characteristics`]: the index of a bit set or of a table with one slot each.
pub type Place = usize;

/// Slots that such a table needs.
pub const PLACES: usize = 64;

/// All characteristics in order, with the service they belong to.
pub fn characteristics() -> impl Iterator<Item = (&'static Service, &'static Characteristic)> {
    SERVICES.iter().flat_map(|service| service.characteristics.iter().map(move |c| (service, c)))
}

/// The characteristic with this instance id, where it exists.
pub fn find(features: &Features, iid: u64) -> Option<(Place, &'static Characteristic)> {
    let (place, (service, c)) = characteristics().enumerate().find(|(_, (_, c))| u64::from(c.iid) == iid)?;
    (features.have(service.when) && features.have(c.when)).then_some((place, c))
}

/// The place of a field.
pub fn place(field: Field) -> Place {
    characteristics().position(|(_, c)| c.field == field).expect("every field stands in SERVICES, which a test checks")
}

/// The characteristic at a place.
pub fn at(place: Place) -> Option<&'static Characteristic> {
    characteristics().nth(place).map(|(_, c)| c)
}

/// Every field there is, for tests that must miss none.
#[cfg(test)]
pub(crate) fn fields() -> Vec<Field> {
    characteristics().map(|(_, c)| c.field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    const DOORBELL: Features = Features {
        doorbell: true,
        speaker: true,
        status_led: false,
        night_vision: false,
        chime: false,
        all_presses: false,
    };

    #[test]
    fn instance_ids_are_unique_and_ascending() {
        let mut last = 0;
        for service in SERVICES {
            assert!(service.iid > last, "{:#x}", service.iid);
            last = service.iid;
            for c in service.characteristics {
                assert!(c.iid > last, "{:#x}", c.iid);
                last = c.iid;
            }
        }
        assert_eq!(SERVICES[0].iid, 1);
    }

    /// What is released keeps its number: this list only grows.
    #[test]
    fn instance_ids_do_not_move() {
        let iids: Vec<String> = characteristics().map(|(s, c)| format!("{}.{}={:x}", s.kind, c.kind, c.iid)).collect();
        let expected = "3E.14=2 3E.20=3 3E.21=4 3E.23=5 3E.30=6 3E.52=7 A2.37=11 \
            110.120=21 110.114=22 110.115=23 110.116=24 110.118=25 110.117=26 110.B0=27 \
            110.120=31 110.114=32 110.115=33 110.116=34 110.118=35 110.117=36 110.B0=37 \
            112.11A=41 112.119=42 113.11A=51 113.119=52 85.22=61 85.75=62 \
            21A.223=71 21A.21B=72 21A.225=73 21A.21D=74 21A.11B=75 21A.227=76 \
            204.B0=81 204.205=82 204.206=83 204.207=84 204.209=85 204.226=86 129.130=91 129.131=92 129.37=93 121.73=a1 121.11A=a2";
        assert_eq!(iids.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn a_field_stands_once_and_its_place_fits_the_tables() {
        let fields = fields();
        assert!(fields.len() <= PLACES);
        for (n, field) in fields.iter().enumerate() {
            assert_eq!(place(*field), n);
            assert_eq!(at(n).unwrap().field, *field);
        }
    }

    #[test]
    fn links_lead_to_services() {
        for service in SERVICES {
            for linked in service.linked {
                assert!(SERVICES.iter().any(|s| s.iid == *linked && s.when == When::Always));
            }
        }
    }

    #[test]
    fn what_the_camera_lacks_is_not_found() {
        let plain = Features::default();
        for iid in [0x51, 0x74, 0x75, 0xa1, 0x60, 0, 0x999, u64::MAX] {
            assert!(find(&plain, iid).is_none(), "{iid:#x}");
        }
        assert_eq!(find(&plain, 0x61).unwrap().1.field, Field::MotionDetected);
        assert!(find(&Features { doorbell: true, ..plain }, 0x51).is_some());
        assert!(find(&Features { speaker: true, ..plain }, 0x51).is_some());
        assert!(find(&Features { status_led: true, ..plain }, 0x74).is_some());
        assert!(find(&Features { night_vision: true, ..plain }, 0x75).is_some());
        assert!(find(&Features { doorbell: true, ..plain }, 0xa2).is_none());
        assert!(find(&Features { chime: true, ..plain }, 0xa2).is_none(), "there is no bell");
        assert!(find(&Features { doorbell: true, chime: true, ..plain }, 0xa2).is_some());
    }

    /// Services, types, permissions, formats and limits are those of a camera and a doorbell that
    /// thousands of homes have paired. Two differences are meant: a single press alone is offered,
    /// and ManuallyDisabled is there.
    #[test]
    fn equals_what_deployed_cameras_publish() {
        let golden: Json =
            serde_json::from_str(include_str!("../../tests/vectors/accessories_hapnodejs.json")).unwrap();
        for (name, features) in [("camera", Features { speaker: true, ..Features::default() }), ("doorbell", DOORBELL)]
        {
            let services = golden[name]["accessories"][0]["services"].as_array().unwrap();
            let mut theirs: Vec<(String, Vec<String>)> = services.iter().map(described).collect();
            let mut ours: Vec<(String, Vec<String>)> =
                SERVICES.iter().filter(|s| features.have(s.when)).map(|s| described_own(s, &features)).collect();
            theirs.sort();
            ours.sort();
            assert_eq!(ours, theirs, "{name}");
        }
    }

    fn described(service: &Json) -> (String, Vec<String>) {
        let mut list: Vec<String> = service["characteristics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| {
                let mut perms: Vec<&str> = c["perms"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
                perms.sort_unstable();
                let kind = c["type"].as_str().unwrap();
                let valid = if kind == "73" { "[0]".into() } else { c["valid-values"].to_string() };
                let unit = c["unit"].as_str().unwrap_or("");
                // Where a switch has limits differs from one to the next there; the valid values do not.
                let max = if valid == "[0,1]" { String::new() } else { c["maxValue"].to_string() };
                format!("{kind} {} {} {valid} {unit} {max}", c["format"].as_str().unwrap(), perms.join(","))
            })
            .collect();
        list.sort();
        (service["type"].as_str().unwrap().into(), list)
    }

    fn described_own(service: &Service, features: &Features) -> (String, Vec<String>) {
        let mut list: Vec<String> = service
            .characteristics
            .iter()
            .filter(|c| features.have(c.when) && c.field != Field::ManuallyDisabled)
            .map(|c| {
                let mut buf = [0; 64];
                let mut w = Writer::new(&mut buf);
                c.perms.put(&mut w);
                let perms: Vec<String> = serde_json::from_slice(w.written()).unwrap();
                let valid = if c.valid.is_empty() { "null".into() } else { format!("{:?}", c.valid).replace(' ', "") };
                let max = match c.range {
                    Some((_, max)) if valid != "[0,1]" => max.to_string(),
                    _ if valid == "[0,1]" => String::new(),
                    _ => "null".into(),
                };
                let unit = c.unit.map_or("", Unit::name);
                format!("{} {} {} {valid} {unit} {max}", c.kind, c.format.name(), perms.join(","))
            })
            .collect();
        list.sort();
        (service.kind.to_string(), list)
    }

    use crate::wire::Writer;
}
