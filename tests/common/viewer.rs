//! A controller that watches: the endpoints it offers, the ports it receives on, and what it understands of what
//! comes there.
#![allow(dead_code)] // each test takes what it needs

use crate::controller::tlv;
use crate::program::{Client, PATIENCE, base64, bytes_of, value_of};
use hksvd::live::srtp::{MasterKey, Opener, Sealer};
use hksvd::wire::{Writer, rtcp, rtp};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What the controller sends with.
pub const VIDEO_SSRC: u32 = 0x1111_1111;
pub const AUDIO_SSRC: u32 = 0x2222_2222;

/// One medium of a live view from the controller's side.
pub struct Port {
    pub socket: UdpSocket,
    /// Where the camera receives.
    pub camera: SocketAddr,
    /// The camera's SSRC.
    pub ssrc: u32,
    open: Opener,
    seal: Sealer,
}

/// Asks for room for what is not read yet, by this option: whether it was allowed.
fn make_room(socket: &UdpSocket, option: libc::c_int) -> bool {
    let bytes: libc::c_int = 8 << 20;
    let len = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: an open socket, and an int that is as long as is said.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const bytes).cast(), len) == 0 }
}

/// What came.
#[derive(Debug, PartialEq, Clone)]
pub enum Came {
    Packet { header: rtp::Header, payload: Vec<u8> },
    Reports { sender_ssrc: u32, rtp_timestamp: u32, bye: bool },
}

impl Port {
    /// A test looks elsewhere for seconds, and what is usual holds a hundred packets.
    fn bind(ip: IpAddr) -> UdpSocket {
        let socket = UdpSocket::bind((ip, 0)).expect("a port");
        // Without CAP_NET_ADMIN net.core.rmem_max is the limit.
        if !make_room(&socket, libc::SO_RCVBUFFORCE) {
            assert!(make_room(&socket, libc::SO_RCVBUF), "{}", std::io::Error::last_os_error());
        }
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    /// The next datagram; `None` when none comes for this long.
    pub fn hear_within(&mut self, limit: Duration) -> Option<Came> {
        self.socket.set_read_timeout(Some(limit)).expect("a timeout");
        let mut buffer = [0; 2048];
        let (n, from) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from, self.camera, "from the port of the answer");
        let bytes = &mut buffer[..n];
        if !rtp::is_rtcp(bytes) {
            let packet = self.open.open_rtp(bytes).expect("the packet opens");
            let rtp::Packet { header, payload } = rtp::Packet::parse(packet).expect("RTP");
            assert_eq!(header.ssrc, self.ssrc);
            return Some(Came::Packet { header, payload: payload.to_vec() });
        }
        let compound = self.open.open_rtcp(bytes).expect("the reports open");
        let (mut report, mut bye) = (None, false);
        for item in rtcp::Items::new(compound) {
            match item.expect("RTCP") {
                rtcp::Item::SenderReport { ssrc, rtp_timestamp, .. } => report = Some((ssrc, rtp_timestamp)),
                rtcp::Item::Bye { ssrc } => bye = ssrc == self.ssrc,
                _ => {}
            }
        }
        let (sender_ssrc, rtp_timestamp) = report.expect("a sender report in front");
        assert_eq!(sender_ssrc, self.ssrc);
        Some(Came::Reports { sender_ssrc, rtp_timestamp, bye })
    }

    pub fn hear(&mut self) -> Came {
        self.hear_within(PATIENCE).expect("something comes")
    }

    /// The next RTP packet.
    pub fn packet(&mut self) -> (rtp::Header, Vec<u8>) {
        loop {
            if let Came::Packet { header, payload } = self.hear() {
                return (header, payload);
            }
        }
    }

    /// Whether the camera says good-bye.
    pub fn wait_bye(&mut self) {
        while !matches!(self.hear(), Came::Reports { bye: true, .. }) {}
    }

    /// Sends an RTP packet.
    pub fn send(&mut self, header: &rtp::Header, payload: &[u8]) {
        let mut buffer = [0; 1500];
        let mut w = Writer::new(&mut buffer);
        header.put(&mut w);
        w.bytes(payload);
        let len = w.len();
        let len = self.seal.seal_rtp(&mut buffer, len).expect("sealed");
        self.socket.send_to(&buffer[..len], self.camera).expect("sent");
    }

    /// Sends an empty receiver report: still here.
    pub fn send_report(&mut self, ssrc: u32) {
        let mut buffer = [0; 200];
        let mut w = Writer::new(&mut buffer);
        rtcp::put_empty_receiver_report(&mut w, ssrc);
        let len = w.len();
        let len = self.seal.seal_rtcp(&mut buffer, len).expect("sealed");
        self.socket.send_to(&buffer[..len], self.camera).expect("sent");
    }
}

/// A live view.
pub struct Viewer {
    service: usize,
    pub id: [u8; 16],
    pub video: Port,
    pub audio: Port,
}

/// The video and the sound that are asked for.
#[derive(Clone, Copy)]
pub struct Wish {
    pub width: u16,
    pub height: u16,
    pub kbps: u16,
    /// 1: 16 kHz, 2: 24 kHz.
    pub rate_code: u8,
    pub packet_ms: u8,
}

/// What a telephone at home asks for.
pub const AT_HOME: Wish = Wish { width: 1280, height: 720, kbps: 2_000, rate_code: 2, packet_ms: 20 };

impl Viewer {
    /// Writes 118 and reads the answer.
    ///
    /// # Errors
    /// The status in the answer.
    pub fn set_up(client: &mut Client, service: usize) -> Result<Viewer, u8> {
        Viewer::set_up_at(client, service, Ipv4Addr::LOCALHOST.into())
    }

    /// As [`Viewer::set_up`], with media to this address, which is one of the loopback interface.
    pub fn set_up_at(client: &mut Client, service: usize, ip: IpAddr) -> Result<Viewer, u8> {
        let id = [0xa0 + service as u8; 16];
        let sockets = [Port::bind(ip), Port::bind(ip)];
        let [video_port, audio_port] = [0, 1].map(|n: usize| sockets[n].local_addr().unwrap().port().to_le_bytes());
        let address =
            tlv(&[(1, &[u8::from(ip.is_ipv6())]), (2, ip.to_string().as_bytes()), (3, &video_port), (4, &audio_port)]);
        let keys = |n: u8| ([n; 16], [n + 1; 14]);
        let srtp = |(key, salt): ([u8; 16], [u8; 14])| tlv(&[(1, &[0]), (2, &key), (3, &salt)]);
        let (video, audio) = (keys(0x10), keys(0x20));
        let request = tlv(&[(1, &id), (3, &address), (4, &srtp(video)), (5, &srtp(audio))]);
        let iid = client.iid_of("110", "118", service);
        let message = client.put(json!({"characteristics": [{"aid": 1, "iid": iid, "value": base64(&request)}]}));
        assert_eq!(message.status(), 204, "{}", message.json());
        let answer = bytes_of(&client.controller.get(&mut client.socket, iid));
        let status = value_of(&answer, 2)[0];
        if status != 0 {
            return Err(status);
        }
        assert_eq!(value_of(&answer, 1), id);
        let address = value_of(&answer, 3);
        assert_eq!(value_of(&address, 1), [u8::from(ip.is_ipv6())]);
        assert_eq!(value_of(&address, 2), ip.to_string().as_bytes());
        let port = |socket, number: u8, theirs: u8, ssrc: u8, (key, salt): ([u8; 16], [u8; 14])| {
            let number = u16::from_le_bytes(value_of(&address, number).try_into().unwrap());
            let keys = value_of(&answer, theirs);
            assert_eq!(value_of(&keys, 1), [0]);
            let master = MasterKey::new(
                &value_of(&keys, 2).try_into().expect("a key of 16 bytes"),
                &value_of(&keys, 3).try_into().expect("a salt of 14 bytes"),
            );
            Port {
                socket,
                camera: (ip, number).into(),
                ssrc: u32::from_le_bytes(value_of(&answer, ssrc).try_into().unwrap()),
                open: Opener::new(&master),
                seal: Sealer::new(&MasterKey::new(&key, &salt)),
            }
        };
        let [v, a] = sockets;
        let (video, audio) = (port(v, 3, 4, 6, video), port(a, 4, 5, 7, audio));
        assert_ne!(video.ssrc, audio.ssrc);
        Ok(Viewer { service, id, video, audio })
    }

    fn select(&self, client: &mut Client, value: &[u8]) {
        let iid = client.iid_of("110", "117", self.service);
        let message = client.put(json!({"characteristics": [{"aid": 1, "iid": iid, "value": base64(value)}]}));
        assert_eq!(message.status(), 204, "{}", message.json());
    }

    fn selected_video(&self, wish: Wish, start: bool) -> Vec<u8> {
        let parameters = tlv(&[(1, &[1]), (2, &[2]), (3, &[0])]);
        let size = tlv(&[(1, &wish.width.to_le_bytes()), (2, &wish.height.to_le_bytes()), (3, &[30])]);
        let mtu = 1378_u16.to_le_bytes();
        let (ssrc, kbps, interval) = (VIDEO_SSRC.to_le_bytes(), wish.kbps.to_le_bytes(), 0.5_f32.to_le_bytes());
        let rtp = tlv(&[(1, &[99]), (2, &ssrc), (3, &kbps), (4, &interval), (5, &mtu)]);
        match start {
            true => tlv(&[(1, &[0]), (2, &parameters), (3, &size), (4, &rtp)]),
            false => tlv(&[(3, &size), (4, &rtp)]),
        }
    }

    /// Writes 117: start.
    pub fn start(&self, client: &mut Client, wish: Wish) {
        let control = tlv(&[(1, &self.id), (2, &[1])]);
        let parameters = tlv(&[(1, &[1]), (2, &[0]), (3, &[wish.rate_code]), (4, &[wish.packet_ms])]);
        let (ssrc, kbps, interval) = (AUDIO_SSRC.to_le_bytes(), 24_u16.to_le_bytes(), 5.0_f32.to_le_bytes());
        let rtp = tlv(&[(1, &[110]), (2, &ssrc), (3, &kbps), (4, &interval), (6, &[13])]);
        let audio = tlv(&[(1, &[3]), (2, &parameters), (3, &rtp), (4, &[0])]);
        self.select(client, &tlv(&[(1, &control), (2, &self.selected_video(wish, true)), (3, &audio)]));
    }

    /// Writes 117: reconfigure.
    pub fn reconfigure(&self, client: &mut Client, wish: Wish) {
        let control = tlv(&[(1, &self.id), (2, &[4])]);
        self.select(client, &tlv(&[(1, &control), (2, &self.selected_video(wish, false))]));
    }

    /// Writes 117: end, suspend, resume (0, 2, 3).
    pub fn command(&self, client: &mut Client, command: u8) {
        let control = tlv(&[(1, &self.id), (2, &[command])]);
        self.select(client, &tlv(&[(1, &control)]));
    }

    /// Looks whether the camera has given its ports back.
    pub fn ports_are_free(&self) -> bool {
        [self.video.camera, self.audio.camera].iter().all(|port| UdpSocket::bind(port).is_ok())
    }
}

/// NAL units of the RTP payloads of pictures (RFC 6184, packetization mode 1).
#[derive(Default)]
pub struct Depacketiser {
    fragment: Vec<u8>,
    picture: Vec<Vec<u8>>,
    last: Option<rtp::Header>,
    /// A change of the stream leaves the picture that was on its way unfinished; an IDR picture follows.
    pub may_be_cut: bool,
}

impl Depacketiser {
    /// Takes the next packet; the picture that it completes.
    pub fn push(&mut self, header: rtp::Header, payload: &[u8]) -> Option<(u32, Vec<Vec<u8>>)> {
        if let Some(last) = self.last {
            assert_eq!(header.sequence, last.sequence.wrapping_add(1), "a packet is missing");
            let step = header.timestamp.wrapping_sub(last.timestamp);
            if self.may_be_cut && !last.marker && step != 0 {
                self.picture.clear();
                self.fragment.clear();
            }
            let starts = last.marker || self.may_be_cut && step != 0;
            assert!(if starts { (1..1 << 31).contains(&step) } else { step == 0 }, "RTP time steps by {step}");
        }
        self.last = Some(header);
        match payload[0] & 31 {
            24 => {
                let mut rest = &payload[1..];
                while let [a, b, tail @ ..] = rest {
                    let (nal, behind) = tail.split_at(usize::from(u16::from_be_bytes([*a, *b])));
                    self.picture.push(nal.to_vec());
                    rest = behind;
                }
            }
            28 => {
                if payload[1] & 0x80 != 0 {
                    assert!(self.fragment.is_empty());
                    self.fragment.push(payload[0] & 0xe0 | payload[1] & 31);
                }
                assert!(!self.fragment.is_empty(), "a fragment without its start");
                self.fragment.extend(&payload[2..]);
                if payload[1] & 0x40 != 0 {
                    self.picture.push(std::mem::take(&mut self.fragment));
                }
            }
            1..=23 => self.picture.push(payload.to_vec()),
            other => panic!("a packet of type {other}"),
        }
        header.marker.then(|| (header.timestamp, std::mem::take(&mut self.picture)))
    }
}

/// The types of the NAL units of a picture.
pub fn types(picture: &[Vec<u8>]) -> Vec<u8> {
    picture.iter().map(|nal| nal[0] & 31).collect()
}

impl Port {
    /// The next picture.
    pub fn picture(&mut self, depacketiser: &mut Depacketiser) -> (u32, Vec<Vec<u8>>) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let (header, payload) = self.packet();
            if let Some(picture) = depacketiser.push(header, &payload) {
                return picture;
            }
        }
        panic!("no picture");
    }
}
