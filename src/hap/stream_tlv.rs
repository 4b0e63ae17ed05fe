//! The set-up and control of a live view: characteristics 117, 118 and 120 (HAP R2 §11).

use super::camera_tlv::{Size, item, list, parse_size, uint};
use crate::crypto::wipe;
use crate::wire::tlv8;
use crate::wire::{Malformed, Writer};
use core::net::IpAddr;

/// The id a controller gives to a live view.
pub type SessionId = [u8; 16];

/// The value of 120, StreamingStatus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum StreamingStatus {
    /// Nobody watches.
    Available = 0,
    /// Somebody watches.
    InUse = 1,
    /// There is no encoder.
    Unavailable = 2,
}

impl StreamingStatus {
    /// Appends the value.
    pub fn put(self, w: &mut Writer<'_>) {
        tlv8::put_u8(w, 0x01, self as u8);
    }
}

/// SRTP crypto suites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Suite {
    /// AES_CM_128_HMAC_SHA1_80
    Aes128 = 0,
    /// AES_256_CM_HMAC_SHA1_80
    Aes256 = 1,
    /// No encryption.
    None = 2,
}

impl Suite {
    /// Bytes of the master key and of the master salt.
    fn lengths(self) -> (usize, usize) {
        match self {
            Suite::Aes128 => (16, 14),
            Suite::Aes256 => (32, 14),
            Suite::None => (0, 0),
        }
    }
}

/// Keys of one direction of one medium (RFC 3711 §3.2.1).
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpParameters {
    /// The suite.
    pub suite: Suite,
    /// Master key: 16 bytes, 32 with AES-256, none without encryption.
    pub key: heapless::Vec<u8, 32>,
    /// Master salt: 14 bytes, none without encryption.
    pub salt: heapless::Vec<u8, 14>,
}

impl core::fmt::Debug for SrtpParameters {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} …", self.suite)
    }
}

impl Drop for SrtpParameters {
    fn drop(&mut self) {
        wipe(&mut self.key);
        wipe(&mut self.salt);
    }
}

impl SrtpParameters {
    fn parse(tlv: &[u8]) -> Result<Self, Malformed> {
        let suite = match uint::<u8>(tlv, 0x01)? {
            0 => Suite::Aes128,
            1 => Suite::Aes256,
            2 => Suite::None,
            _ => return Err(Malformed("an unknown SRTP suite")),
        };
        let bytes = |tag| match tlv8::find(tlv, tag)? {
            None => Ok(&[][..]),
            Some(value) => value.bytes().ok_or(Malformed("an SRTP key is too long")),
        };
        let (key, salt) = (bytes(0x02)?, bytes(0x03)?);
        if (key.len(), salt.len()) != suite.lengths() {
            return Err(Malformed("an SRTP key or salt does not fit its suite"));
        }
        let wrong = |_| Malformed("an SRTP key is too long");
        let key = heapless::Vec::from_slice(key).map_err(wrong)?;
        let salt = heapless::Vec::from_slice(salt).map_err(wrong)?;
        Ok(SrtpParameters { suite, key, salt })
    }

    fn put(&self, w: &mut Writer<'_>) {
        tlv8::put_u8(w, 0x01, self.suite as u8);
        tlv8::put(w, 0x02, &self.key);
        tlv8::put(w, 0x03, &self.salt);
    }
}

/// Where one side receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// UDP port of video.
    pub video_port: u16,
    /// UDP port of audio.
    pub audio_port: u16,
}

impl Endpoint {
    fn parse(tlv: &[u8]) -> Result<Self, Malformed> {
        let text = item(tlv, 0x02)?.bytes().and_then(|text| core::str::from_utf8(text).ok());
        let address = text
            // The interface of a link-local address means nothing on another machine.
            .and_then(|text| text.split('%').next()?.parse::<IpAddr>().ok())
            .ok_or(Malformed("the address is not numeric"))?;
        if uint::<u8>(tlv, 0x01)? != u8::from(address.is_ipv6()) {
            return Err(Malformed("the address is not of the version it says"));
        }
        Ok(Endpoint { address, video_port: uint(tlv, 0x03)?, audio_port: uint(tlv, 0x04)? })
    }

    fn put(&self, w: &mut Writer<'_>) {
        use core::fmt::Write as _;
        tlv8::put_u8(w, 0x01, u8::from(self.address.is_ipv6()));
        let mut text = heapless::String::<45>::new();
        // No address is longer than 45 characters.
        let _ = write!(text, "{}", self.address);
        tlv8::put(w, 0x02, text.as_bytes());
        tlv8::put_u16(w, 0x03, self.video_port);
        tlv8::put_u16(w, 0x04, self.audio_port);
    }
}

/// What a controller writes to 118, SetupEndpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetupRequest {
    /// The live view it is about.
    pub session: SessionId,
    /// Where the controller receives.
    pub controller: Endpoint,
    /// Keys of what the controller sends on the video port.
    pub video: SrtpParameters,
    /// Keys of what the controller sends on the audio port.
    pub audio: SrtpParameters,
}

impl SetupRequest {
    /// Parses the value.
    ///
    /// # Errors
    /// When a part is missing, a key has the wrong length or the address is not numeric.
    pub fn parse(tlv: &[u8]) -> Result<Self, Malformed> {
        Ok(SetupRequest {
            session: session(tlv)?,
            controller: Endpoint::parse(list(tlv, 0x03)?)?,
            video: SrtpParameters::parse(list(tlv, 0x04)?)?,
            audio: SrtpParameters::parse(list(tlv, 0x05)?)?,
        })
    }
}

fn session(tlv: &[u8]) -> Result<SessionId, Malformed> {
    item(tlv, 0x01)?.array().ok_or(Malformed("the session id does not have 16 bytes"))
}

/// What a controller reads from 118 afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetupAnswer {
    /// The camera is ready to send.
    Ready {
        /// The live view it is about.
        session: SessionId,
        /// Where the camera receives.
        accessory: Endpoint,
        /// Keys of the video the camera sends.
        video: SrtpParameters,
        /// Keys of the audio the camera sends.
        audio: SrtpParameters,
        /// SSRC of the video the camera sends.
        video_ssrc: u32,
        /// SSRC of the audio the camera sends.
        audio_ssrc: u32,
    },
    /// Another live view is running.
    Busy(SessionId),
    /// The camera cannot.
    Error(SessionId),
    /// Nothing was set up.
    Idle,
}

impl SetupAnswer {
    /// Appends the value.
    pub fn put(&self, w: &mut Writer<'_>) {
        let status = |w: &mut Writer<'_>, session: &SessionId, status| {
            tlv8::put(w, 0x01, session);
            tlv8::put_u8(w, 0x02, status);
        };
        match self {
            SetupAnswer::Ready { session, accessory, video, audio, video_ssrc, audio_ssrc } => {
                status(w, session, 0);
                tlv8::nested(w, 0x03, |w| accessory.put(w));
                tlv8::nested(w, 0x04, |w| video.put(w));
                tlv8::nested(w, 0x05, |w| audio.put(w));
                tlv8::put_u32(w, 0x06, *video_ssrc);
                tlv8::put_u32(w, 0x07, *audio_ssrc);
            }
            SetupAnswer::Busy(session) => status(w, session, 1),
            SetupAnswer::Error(session) => status(w, session, 2),
            SetupAnswer::Idle => tlv8::put_u8(w, 0x02, 2),
        }
    }
}

/// What a live view shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Command {
    /// Stop for good.
    End = 0,
    /// Send.
    Start = 1,
    /// Stop for a while.
    Suspend = 2,
    /// Send again.
    Resume = 3,
    /// Change size and bitrate.
    Reconfigure = 4,
}

/// RTP parameters of one medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rtp {
    /// Payload type; means nothing in a reconfiguration, as the start has settled it.
    pub payload_type: u8,
    /// SSRC the controller sends with; likewise.
    pub ssrc: u32,
    /// Bitrate in kbit/s at most.
    pub bitrate_kbps: u32,
    /// Shortest time between two reports, in milliseconds.
    pub rtcp_interval_ms: u32,
    /// Largest IP datagram in bytes, when the controller names one.
    pub mtu: Option<u16>,
}

impl Rtp {
    fn parse(tlv: &[u8], command: Command) -> Result<Self, Malformed> {
        let agreed = command == Command::Reconfigure;
        let interval_s =
            f32::from_le_bytes(item(tlv, 0x04)?.array().ok_or(Malformed("the RTCP interval is no float"))?);
        if !(0.0..=3600.0).contains(&interval_s) {
            return Err(Malformed("the RTCP interval is no time"));
        }
        Ok(Rtp {
            payload_type: if agreed { optional(tlv, 0x01)?.unwrap_or(0) } else { uint(tlv, 0x01)? },
            ssrc: if agreed { optional(tlv, 0x02)?.unwrap_or(0) } else { uint(tlv, 0x02)? },
            bitrate_kbps: uint(tlv, 0x03)?,
            rtcp_interval_ms: (interval_s * 1000.0) as u32,
            mtu: optional(tlv, 0x05)?,
        })
    }
}

fn optional<T: TryFrom<u64>>(tlv: &[u8], tag: u8) -> Result<Option<T>, Malformed> {
    match tlv8::find(tlv, tag)? {
        None => Ok(None),
        Some(_) => uint(tlv, tag).map(Some),
    }
}

/// Video of a live view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelectedVideo {
    /// Profile and level codes; a reconfiguration has none.
    pub profile_level: Option<(u8, u8)>,
    /// Size and frame rate.
    pub size: Size,
    /// RTP parameters.
    pub rtp: Rtp,
}

/// Audio of a live view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelectedAudio {
    /// Codec number of 115.
    pub codec: u8,
    /// Channels.
    pub channels: u8,
    /// Sample rate code of 115.
    pub rate_code: u8,
    /// Length of a packet, in milliseconds.
    pub packet_ms: u8,
    /// RTP parameters.
    pub rtp: Rtp,
}

/// What a controller writes to 117, SelectedRTPStreamConfiguration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelectedStream {
    /// The live view it is about.
    pub session: SessionId,
    /// What to do.
    pub command: Command,
    /// Video, with start and reconfigure.
    pub video: Option<SelectedVideo>,
    /// Audio, with start.
    pub audio: Option<SelectedAudio>,
}

impl SelectedStream {
    /// Parses the value.
    ///
    /// # Errors
    /// When a part is missing that the command needs.
    pub fn parse(tlv: &[u8]) -> Result<Self, Malformed> {
        let control = list(tlv, 0x01)?;
        let command = match uint::<u8>(control, 0x02)? {
            0 => Command::End,
            1 => Command::Start,
            2 => Command::Suspend,
            3 => Command::Resume,
            4 => Command::Reconfigure,
            _ => return Err(Malformed("an unknown command")),
        };
        let video = match command {
            Command::Start | Command::Reconfigure => Some(parse_video(list(tlv, 0x02)?, command)?),
            _ => None,
        };
        let audio = match command {
            Command::Start => Some(parse_audio(list(tlv, 0x03)?)?),
            _ => None,
        };
        Ok(SelectedStream { session: session(control)?, command, video, audio })
    }

    /// Appends the value that is read while no live view runs.
    pub fn put_idle(w: &mut Writer<'_>) {
        tlv8::nested(w, 0x01, |w| tlv8::put_u8(w, 0x02, Command::Suspend as u8));
    }
}

fn parse_video(tlv: &[u8], command: Command) -> Result<SelectedVideo, Malformed> {
    let profile_level = if command == Command::Start {
        if uint::<u8>(tlv, 0x01)? != 0 {
            return Err(Malformed("the video codec is not H.264"));
        }
        let h264 = list(tlv, 0x02)?;
        Some((uint(h264, 0x01)?, uint(h264, 0x02)?))
    } else {
        None
    };
    Ok(SelectedVideo {
        profile_level,
        size: parse_size(list(tlv, 0x03)?)?,
        rtp: Rtp::parse(list(tlv, 0x04)?, command)?,
    })
}

fn parse_audio(tlv: &[u8]) -> Result<SelectedAudio, Malformed> {
    let parameters = list(tlv, 0x02)?;
    Ok(SelectedAudio {
        codec: uint(tlv, 0x01)?,
        channels: uint(parameters, 0x01)?,
        rate_code: uint(parameters, 0x03)?,
        packet_ms: uint(parameters, 0x04)?,
        rtp: Rtp::parse(list(tlv, 0x03)?, Command::Start)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::camera_tlv::tests::{emitted, hex, vectors};
    use super::*;
    use serde_json::Value as Json;

    fn srtp(decoded: &Json) -> SrtpParameters {
        let key = heapless::Vec::from_slice(&hex(&decoded["key"])).unwrap();
        SrtpParameters { suite: Suite::Aes128, key, salt: heapless::Vec::from_slice(&hex(&decoded["salt"])).unwrap() }
    }

    fn endpoint(decoded: &Json) -> Endpoint {
        let port = |key: &str| decoded[key].as_u64().unwrap() as u16;
        let address = decoded["ip"].as_str().unwrap().parse().unwrap();
        Endpoint { address, video_port: port("video_port"), audio_port: port("audio_port") }
    }

    fn id(decoded: &Json) -> SessionId {
        hex(&decoded["session"].as_str().unwrap().replace('-', "").into()).try_into().unwrap()
    }

    #[test]
    fn setup_requests_of_the_vectors() {
        let all = vectors();
        for name in ["setup_endpoints_request_v4", "setup_endpoints_request_v6"] {
            let decoded = &all[name]["decoded"];
            let expected = SetupRequest {
                session: id(decoded),
                controller: endpoint(decoded),
                video: srtp(&decoded["video"]),
                audio: srtp(&decoded["audio"]),
            };
            assert_eq!(SetupRequest::parse(&hex(&all[name]["hex"])), Ok(expected), "{name}");
        }
    }

    #[test]
    fn setup_answers_of_the_vectors() {
        let all = vectors();
        let value = |name: &str| hex(&all[name]["hex"]);
        let decoded = &all["setup_endpoints_response_v4"]["decoded"];
        let session = id(decoded);
        let ready = SetupAnswer::Ready {
            session,
            accessory: endpoint(decoded),
            video: srtp(&decoded["video"]),
            audio: srtp(&decoded["audio"]),
            video_ssrc: decoded["video_ssrc"].as_u64().unwrap() as u32,
            audio_ssrc: decoded["audio_ssrc"].as_u64().unwrap() as u32,
        };
        assert_eq!(emitted(|w| ready.put(w)), value("setup_endpoints_response_v4"));
        assert_eq!(emitted(|w| SetupAnswer::Busy(session).put(w)), value("setup_endpoints_busy"));
        assert_eq!(emitted(|w| SetupAnswer::Error(session).put(w)), value("setup_endpoints_error"));
        assert_eq!(emitted(|w| SetupAnswer::Idle.put(w)), value("setup_endpoints_idle_read"));
    }

    #[test]
    fn statuses_and_idle_value_of_the_vectors() {
        let all = vectors();
        for (name, status) in [
            ("streaming_status_available", StreamingStatus::Available),
            ("streaming_status_in_use", StreamingStatus::InUse),
            ("streaming_status_unavailable", StreamingStatus::Unavailable),
        ] {
            assert_eq!(emitted(|w| status.put(w)), hex(&all[name]["hex"]));
        }
        assert_eq!(emitted(SelectedStream::put_idle), hex(&all["selected_rtp_idle_read"]["hex"]));
    }

    #[test]
    fn commands_of_the_vectors() {
        let all = vectors();
        for (name, vector) in all.as_object().unwrap().iter().filter(|(n, _)| n.starts_with("selected_rtp")) {
            if name == "selected_rtp_idle_read" {
                continue;
            }
            let selected = SelectedStream::parse(&hex(&vector["hex"])).unwrap();
            let decoded = &vector["decoded"];
            assert_eq!(selected.session, id(decoded), "{name}");
            let command = format!("{:?}", selected.command).to_lowercase();
            assert_eq!(command, decoded["command"].as_str().unwrap(), "{name}");
            assert_eq!(selected.video.is_some(), decoded["video"].is_object(), "{name}");
            assert_eq!(selected.audio.is_some(), decoded["audio"].is_object(), "{name}");
            if let Some(video) = selected.video {
                let n = |key: &str| decoded["video"][key].as_u64().unwrap_or(0);
                let size = (u64::from(video.size.width), u64::from(video.size.height), u64::from(video.size.fps));
                assert_eq!(size, (n("width"), n("height"), n("fps")), "{name}");
                assert_eq!(u64::from(video.rtp.bitrate_kbps), n("kbps"), "{name}");
                assert_eq!(video.rtp.mtu.map_or(0, u64::from), n("mtu"), "{name}");
                if let Some(seconds) = decoded["video"]["rtcp"].as_f64() {
                    assert_eq!(f64::from(video.rtp.rtcp_interval_ms), seconds * 1000.0, "{name}");
                }
                if let Some(profile) = decoded["video"]["profile"].as_u64() {
                    assert_eq!(video.profile_level, Some((profile as u8, n("level") as u8)));
                    assert_eq!((u64::from(video.rtp.payload_type), u64::from(video.rtp.ssrc)), (n("pt"), n("ssrc")));
                }
            }
            if let Some(audio) = selected.audio {
                let n = |key: &str| decoded["audio"][key].as_u64().unwrap();
                let got = (u64::from(audio.codec), u64::from(audio.rate_code), u64::from(audio.packet_ms));
                assert_eq!(got, (n("codec"), n("rate"), n("ptime")), "{name}");
            }
        }
    }

    /// Every item of a value, with its path of tags, and the value without it. `lists` are the paths
    /// whose items are lists themselves.
    fn without_each(tlv: &[u8], path: &[u8], lists: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < tlv.len() {
            let (tag, len) = (tlv[at], usize::from(tlv[at + 1]));
            let (before, value, after) = (&tlv[..at], &tlv[at + 2..at + 2 + len], &tlv[at + 2 + len..]);
            let path = [path, &[tag]].concat();
            if lists.contains(&&path[..]) {
                for (path, shorter) in without_each(value, &path, lists) {
                    let head = [tag, shorter.len() as u8];
                    out.push((path, [before, &head[..], &shorter[..], after].concat()));
                }
            }
            out.push((path, [before, after].concat()));
            at += 2 + len;
        }
        out
    }

    #[test]
    fn a_value_without_one_of_its_parts_is_refused() {
        let all = vectors();
        for name in ["setup_endpoints_request_v4", "setup_endpoints_request_v6"] {
            let parts = without_each(&hex(&all[name]["hex"]), &[], &[&[3], &[4], &[5]]);
            assert_eq!(parts.len(), 14);
            for (path, tlv) in parts {
                assert!(SetupRequest::parse(&tlv).is_err(), "{name} without {path:x?}");
            }
        }
        let lists: [&[u8]; 8] = [&[1], &[2], &[2, 2], &[2, 3], &[2, 4], &[3], &[3, 2], &[3, 3]];
        // Packetization mode, CVO, MTU; bit-rate mode, comfort noise: there is one of each, or a default.
        let optional: [&[u8]; 6] = [&[2, 2, 3], &[2, 2, 4], &[2, 4, 5], &[3, 2, 2], &[3, 3, 6], &[3, 4]];
        for name in ["start_opus", "start_mtu_eld", "start_watch", "reconfigure", "suspend", "resume", "end"] {
            let parts = without_each(&hex(&all[format!("selected_rtp_{name}")]["hex"]), &[], &lists);
            assert!(parts.len() >= 3);
            for (path, tlv) in parts {
                let is_agreed = name == "reconfigure" && matches!(path[..], [2, 4, 1 | 2]);
                let is_optional = is_agreed || optional.contains(&&path[..]);
                assert_eq!(SelectedStream::parse(&tlv).is_ok(), is_optional, "{name} without {path:x?}");
            }
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        let all = vectors();
        for (name, tlv) in all["_malformed"].as_object().unwrap() {
            assert!(SetupRequest::parse(&hex(tlv)).is_err(), "{name}");
            assert!(SelectedStream::parse(&hex(tlv)).is_err(), "{name}");
        }
        let setup = hex(&all["setup_endpoints_request_v4"]["hex"]);
        let start = hex(&all["selected_rtp_start_opus"]["hex"]);
        for cut in 0..setup.len() {
            assert!(SetupRequest::parse(&setup[..cut]).is_err(), "{cut}");
        }
        for cut in 0..start.len() {
            assert!(SelectedStream::parse(&start[..cut]).is_err(), "{cut}");
        }
        // IPv6 said, IPv4 given.
        let mut bad = setup.clone();
        bad[22] = 1;
        assert!(SetupRequest::parse(&bad).is_err());
        // An RTCP interval that is no number.
        let mut bad = start.clone();
        let at = bad.windows(4).position(|w| w == 0.5f32.to_le_bytes()).unwrap();
        bad[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(SelectedStream::parse(&bad).is_err());
        // An unknown command.
        let mut bad = start;
        bad[22] = 5;
        assert!(SelectedStream::parse(&bad).is_err());
    }
}
