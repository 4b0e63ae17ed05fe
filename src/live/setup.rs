//! What a live view is made of, before it is one.

use super::srtp::MasterKey;
use crate::crypto::Random;
use core::net::SocketAddr;

/// The SRTP master keys of one medium, one for each direction.
#[derive(Debug)]
pub struct Keys {
    /// Of what the accessory sends: what it answers to SetupEndpoints.
    pub ours: MasterKey,
    /// Of what the controller sends: what it wrote.
    pub theirs: MasterKey,
}

/// The answer to SetupEndpoints, as far as it concerns the packets (HAP R2 §11.86).
#[derive(Debug)]
pub struct Setup {
    /// The controller's id of this live view.
    pub id: [u8; 16],
    /// Where the controller receives video and audio.
    pub remote: [SocketAddr; 2],
    /// Keys of the video.
    pub video: Keys,
    /// Keys of the audio.
    pub audio: Keys,
    /// The SSRC that the video is sent with.
    pub video_ssrc: u32,
    /// The SSRC that the audio is sent with.
    pub audio_ssrc: u32,
    /// First sequence number of video and audio, below 2^15: a receiver that loses the first packets
    /// still guesses the rollover counter (RFC 3711 §3.3.1).
    pub sequences: [u16; 2],
    /// What RTP time 0 of video and audio stands for (RFC 3550 §5.1).
    pub timestamps: [u32; 2],
}

impl Setup {
    /// Draws everything that has to be random: own keys, SSRCs, sequence numbers and time offsets.
    pub fn draw(
        random: &mut dyn Random,
        id: [u8; 16],
        remote: [SocketAddr; 2],
        video_theirs: MasterKey,
        audio_theirs: MasterKey,
    ) -> Setup {
        let mut word = || {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            u32::from_be_bytes(bytes)
        };
        let (video_ssrc, audio) = (word(), word());
        // Nobody could tell two equal ones apart; not that this were likely.
        let audio_ssrc = if audio == video_ssrc { !audio } else { audio };
        let sequences = [word() as u16 & 0x7fff, word() as u16 & 0x7fff];
        let timestamps = [word(), word()];
        let video = Keys { ours: MasterKey::random(random), theirs: video_theirs };
        let audio = Keys { ours: MasterKey::random(random), theirs: audio_theirs };
        Setup { id, remote, video, audio, video_ssrc, audio_ssrc, sequences, timestamps }
    }
}

/// What the controller selected of video (HAP R2 §11.85).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoChoice {
    /// RTP payload type, 99 in practice.
    pub payload_type: u8,
    /// The SSRC of what the controller sends.
    pub ssrc: u32,
    /// What it would like to get, in kbit/s.
    pub bitrate_kbps: u32,
    /// Time between two sender reports; 0 is what is usual.
    pub rtcp_interval_ms: u32,
    /// Largest IP datagram, when it names one.
    pub mtu: Option<u16>,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Pictures a second.
    pub fps: u8,
}

impl VideoChoice {
    /// Whether the way to the controller looks thin: somebody on the road, or a watch.
    pub fn is_remote(&self) -> bool {
        self.width <= 640 && self.bitrate_kbps <= 500
    }

    /// RTP payload that fits a datagram. Without an MTU it is that of the field: 1378 bytes with IPv4
    /// and 1228 with IPv6. What is remote gets smaller packets: there are tunnels on its way.
    pub(super) fn payload_bytes(&self, ipv6: bool) -> usize {
        let (usual, ip) = if ipv6 { (1228, 40) } else { (1378, 20) };
        // What IPv4 guarantees, and what Ethernet carries.
        let mtu = usize::from(self.mtu.unwrap_or(usual)).clamp(576, super::DATAGRAM_BYTES);
        let payload = mtu - ip - UDP_BYTES - crate::wire::rtp::HEADER_BYTES - super::srtp::TAG_BYTES;
        if self.is_remote() { payload.min(REMOTE_PAYLOAD_BYTES) } else { payload }
    }
}

/// What the controller selected of audio (HAP R2 §11.85).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioChoice {
    /// RTP payload type, 110 in practice.
    pub payload_type: u8,
    /// The SSRC of what the controller sends.
    pub ssrc: u32,
    /// The rate of the RTP clock in Hz: that of the codec's input, not the 48 kHz of RFC 7587 §4.1.
    pub rate_hz: u32,
    /// Duration of a packet.
    pub packet_ms: u8,
    /// Time between two sender reports; 0 is what is usual.
    pub rtcp_interval_ms: u32,
    /// What it would like to get, in kbit/s.
    pub bitrate_kbps: u32,
}

/// Where a live view begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// At the newest IDR picture that is held, at once; the pictures since then follow faster than they
    /// were captured.
    FromPrebuffer,
    /// At an IDR picture that is still to come: the source makes one when it is asked, or the way to
    /// the controller is too thin for the pictures since the last one. After a second without one it
    /// is the prebuffer nevertheless.
    FreshKey,
}

const UDP_BYTES: usize = 8;
const REMOTE_PAYLOAD_BYTES: usize = 1200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::FixedRandom;

    fn choice(mtu: Option<u16>) -> VideoChoice {
        VideoChoice {
            payload_type: 99,
            ssrc: 1,
            bitrate_kbps: 299,
            rtcp_interval_ms: 500,
            mtu,
            width: 1280,
            height: 720,
            fps: 30,
        }
    }

    #[test]
    fn packets_fit_the_datagram_that_was_agreed_on() {
        assert_eq!(choice(None).payload_bytes(false), 1328);
        assert_eq!(choice(None).payload_bytes(true), 1158);
        assert_eq!(choice(Some(1378)).payload_bytes(false), 1328);
        assert_eq!(choice(Some(1400)).payload_bytes(true), 1330);
        // Neither nonsense nor more than there is room for.
        assert_eq!(choice(Some(0)).payload_bytes(true), 506);
        assert_eq!(choice(Some(u16::MAX)).payload_bytes(false), 1450);
        let remote = VideoChoice { width: 640, height: 360, bitrate_kbps: 132, ..choice(None) };
        assert_eq!((remote.payload_bytes(false), remote.payload_bytes(true)), (1200, 1158));
        assert!(!VideoChoice { width: 640, bitrate_kbps: 501, ..remote }.is_remote());
    }

    #[test]
    fn what_is_drawn_is_random_and_in_range() {
        let remote = [SocketAddr::from(([192, 0, 2, 1], 5000)), SocketAddr::from(([192, 0, 2, 1], 5002))];
        let theirs = || MasterKey::new(&[7; 16], &[8; 14]);
        let mut random = FixedRandom::default();
        let mut draw = || Setup::draw(&mut random, [9; 16], remote, theirs(), theirs());
        let (a, b) = (draw(), draw());
        assert_ne!(a.video_ssrc, a.audio_ssrc);
        assert_ne!(a.video_ssrc, b.video_ssrc);
        assert_ne!(a.timestamps, b.timestamps);
        assert_ne!(a.video.ours.key(), a.audio.ours.key());
        assert_ne!(a.video.ours.key(), b.video.ours.key());
        for setup in [a, b] {
            assert!(setup.sequences.iter().all(|&s| s < 1 << 15));
            assert_eq!((setup.id, setup.remote), ([9; 16], remote));
            assert_eq!(setup.video.theirs.salt(), &[8; 14]);
        }
    }
}
