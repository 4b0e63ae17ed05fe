//! `rtp+unix:PATH`: RTP packets in the datagrams of a Unix socket that we bind, as OpenIPC's majestic sends them
//! (`outgoing.servers: unix:/tmp/rtpstream.sock`). There is no description: parameter sets come in band, and the payload
//! type is that of the first of them.

use super::rtsp::trouble;
use super::{Sink, Track, Trouble, Troubles};
use crate::io::runtime::{Fd, now, or, sleep_until, yield_now};
use crate::rtsp::Loss;
use crate::rtsp::pictures::Pictures;
use crate::time::{Duration, Instant};
use crate::wire::h264::NalType;
use crate::wire::rtp::Packet;
use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The largest packet. By default they have 1,200 bytes.
const PACKET_BYTES: usize = 16 * 1024;

/// Nothing for so long is worth a word, and a look whether the path still leads to this socket.
const STALL: Duration = Duration::from_secs(2);

/// Packets in a row before anybody else gets a turn.
const BURST: u32 = 16;

/// Receives for ever. Ends when the socket cannot be bound. Where it is bound is noted in `places`, for the end of the
/// program, which nothing that waits here sees.
pub async fn play(path: &Path, access_unit_bytes: usize, places: &Places, sink: &mut dyn Sink) -> Error {
    let mut stream = Stream {
        pictures: Pictures::new(access_unit_bytes),
        payload_type: None,
        troubles: Troubles::new(Track::Video, format!("rtp+unix:{}", path.display())),
    };
    // One more byte tells a packet that was cut.
    let mut buffer = vec![0; PACKET_BYTES + 1].into_boxed_slice();
    loop {
        let bound = Place::bind(path).and_then(|(socket, place)| Ok((Fd::new(socket)?, place)));
        let (socket, place) = match bound {
            Ok(bound) => bound,
            Err(error) => return error,
        };
        let place = Rc::new(place);
        places.borrow_mut().retain(|other| other.path != path);
        places.borrow_mut().push(place.clone());
        let mut latest = now();
        let mut burst = 0u32;
        loop {
            let received = async { Some(socket.when_readable(|socket| socket.recv(&mut buffer)).await) };
            let silence = async {
                sleep_until(latest + STALL).await;
                None
            };
            match or(received, silence).await {
                Some(Ok(n)) => {
                    latest = now();
                    stream.take(&buffer[..n], latest, sink);
                }
                Some(Err(error)) => return error,
                None => {
                    latest = now();
                    stream.troubles.report(Trouble::Stalled, sink);
                    // Whoever comes next may count otherwise.
                    stream.payload_type = None;
                    if !place.is_ours() {
                        break;
                    }
                }
            }
            burst = burst.wrapping_add(1);
            if burst.is_multiple_of(BURST) {
                yield_now().await;
            }
        }
    }
}

struct Stream {
    pictures: Pictures,
    /// Of H.264, once it is known.
    payload_type: Option<u8>,
    troubles: Troubles,
}

impl Stream {
    /// One datagram.
    fn take(&mut self, bytes: &[u8], arrival: Instant, sink: &mut dyn Sink) {
        if bytes.len() > PACKET_BYTES {
            return self.troubles.report(Trouble::Oversized, sink);
        }
        // Reports (RTCP) have payload types that no stream has.
        let Ok(packet) = Packet::parse(bytes) else { return };
        if self.payload_type.is_none() {
            if !has_sps(packet.payload) {
                if Loss::of_h265(packet.payload) {
                    self.troubles.report(Trouble::H265, sink);
                }
                return;
            }
            self.payload_type = Some(packet.header.payload_type);
            self.pictures.restart(None);
        }
        if self.payload_type != Some(packet.header.payload_type) {
            return;
        }
        if self.pictures.ends_before(&packet) {
            self.hand_over(sink);
        }
        if let Err(loss) = self.pictures.handle_packet(&packet, arrival) {
            self.troubles.report(trouble(loss), sink);
        }
        self.hand_over(sink);
    }

    fn hand_over(&mut self, sink: &mut dyn Sink) {
        if self.pictures.take() {
            let picture = self.pictures.current();
            sink.access_unit(picture.annexb, picture.key, picture.arrival);
        }
    }
}

/// Whether this is H.264 beyond doubt: a sequence parameter set of a profile that encoders have, by itself or in a
/// STAP-A (RFC 6184 §5.7.1).
fn has_sps(payload: &[u8]) -> bool {
    const STAP_A: NalType = NalType(24);
    let is_sps = |nal: &[u8]| {
        matches!(nal, [header, 66 | 77 | 88 | 100 | 110 | 122, _, ..]
            if header & 0x80 == 0 && header & 0x60 != 0 && NalType::of(*header) == NalType::SPS)
    };
    let Some((&first, mut rest)) = payload.split_first() else { return false };
    if NalType::of(first) != STAP_A {
        return is_sps(payload);
    }
    while let Some((size, after)) = rest.split_first_chunk::<2>() {
        let Some((nal, after)) = after.split_at_checked(u16::from_be_bytes(*size).into()) else { return false };
        if is_sps(nal) {
            return true;
        }
        rest = after;
    }
    false
}

/// The sockets that are bound.
pub type Places = Rc<RefCell<Vec<Rc<Place>>>>;

/// Where a socket is.
pub struct Place {
    path: PathBuf,
    /// Device and inode: somebody else may have put another one there since.
    own: (u64, u64),
}

impl Place {
    /// A socket that nobody receives from is replaced.
    fn bind(path: &Path) -> Result<(UnixDatagram, Place)> {
        match std::fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(Error::new(ErrorKind::AlreadyExists, "something else than a socket is in the way"));
            }
            Ok(_) if UnixDatagram::unbound()?.connect(path).is_ok() => {
                return Err(Error::new(ErrorKind::AddrInUse, "another program receives there"));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        let socket = UnixDatagram::bind(path)?;
        let file = std::fs::metadata(path)?;
        Ok((socket, Place { path: path.into(), own: (file.dev(), file.ino()) }))
    }

    fn is_ours(&self) -> bool {
        let is_own = |file: std::fs::Metadata| file.file_type().is_socket() && (file.dev(), file.ino()) == self.own;
        std::fs::symlink_metadata(&self.path).is_ok_and(is_own)
    }

    /// Takes the file away, unless it is somebody else's.
    pub fn remove(&self) {
        if self.is_ours() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::io::runtime::Executor;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, payload_type];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend([0, 0, 0, 9]);
        bytes.extend(payload);
        bytes
    }

    const SPS: &[u8] = b"\x67\x42\x00\x1e";
    const STAP: &[u8] = b"\x78\0\x02\x09\xf0\0\x04\x67\x4d\x00\x1e\0\x02\x68\xce";
    const IDR: &[u8] = b"\x65\x88\x01";
    const P: &[u8] = b"\x41\x9a\x01";

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("hksvd-rtp-unix-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn what_is_h264_beyond_doubt() {
        assert!(has_sps(SPS) && has_sps(STAP));
        for other in
            [&b""[..], b"\x67", IDR, P, b"\x07\x42\0", b"\xe7\x42\0", b"\x67\x43\0", b"\x78\0\x09\x67", b"\x42\x01\x01"]
        {
            assert!(!has_sps(other), "{other:?}");
        }
    }

    #[test]
    fn pictures_of_the_first_stream_with_parameter_sets() {
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let troubles = Troubles::new(Track::Video, "test".into());
        let mut stream = Stream { pictures: Pictures::new(60), payload_type: None, troubles };
        let h265 = rtp(98, 1, 0, b"\x40\x01\x0c");
        let sound = rtp(97, 7, 0, b"\xf8\xff\xfe");
        let packets = [
            h265,
            sound.clone(),
            // In the middle of a GOP.
            rtp(96, 9, 1, P),
            rtp(96, 10, 2, SPS),
            rtp(96, 11, 2, b"\x68\xce"),
            sound,
            rtp(96, 12, 2, IDR),
            rtp(96, 13, 3, P),
            // 14 is lost, maybe the rest of this picture: nothing up to the next key frame.
            rtp(96, 15, 4, P),
            b"\x80\xc8\0\x06".to_vec(),
            rtp(96, 16, 5, STAP),
            rtp(96, 17, 5, IDR),
            rtp(96, 18, 6, P),
            vec![0x80; PACKET_BYTES + 1],
            b"\0".to_vec(),
            rtp(96, 19, 7, P),
        ];
        for packet in packets {
            stream.take(&packet, Instant::ZERO, &mut sink);
        }
        let recorder = recorder.borrow();
        let pictures: Vec<_> = recorder.pictures.iter().map(|p| (p.0, p.1)).collect();
        assert_eq!(pictures, [(21, true), (27, true), (7, false)]);
        let troubles: Vec<_> = recorder.troubles.iter().map(|(_, trouble)| *trouble).collect();
        assert_eq!(troubles, [Trouble::H265, Trouble::Torn, Trouble::Oversized]);
    }

    #[test]
    fn a_socket_that_is_stale_or_taken_away() {
        let path = place("stale");
        // As a daemon that was killed leaves it.
        drop(UnixDatagram::bind(&path).unwrap());
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let feed = async {
            let sender = UnixDatagram::unbound().unwrap();
            for round in 1..=2u16 {
                let begun = now();
                while recorder.borrow().pictures.len() < usize::from(round) {
                    assert!(now() - begun < Duration::from_secs(10));
                    for (n, payload) in [(0, SPS), (1, IDR), (2, P)] {
                        let packet = rtp(95 + round as u8, round * 100 + n, u32::from(n > 1), payload);
                        let _ = sender.send_to(&packet, &path);
                    }
                    sleep_until(now() + Duration::from_millis(50)).await;
                }
                assert_eq!(Place::bind(&path).map(|_| ()).unwrap_err().kind(), ErrorKind::AddrInUse);
                std::fs::remove_file(&path).unwrap();
                recorder.borrow_mut().pictures.truncate(usize::from(round));
            }
        };
        let places = Places::default();
        Executor::default().block_on(or(async { panic!("{}", play(&path, 1000, &places, &mut sink).await) }, feed));
        assert!(recorder.borrow().troubles.contains(&(Track::Video, Trouble::Stalled)));
        // The one that was bound last was taken away, and another one has come.
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(places.borrow().len(), 1);
        places.borrow()[0].remove();
        assert_eq!(Place::bind(&path).map(|_| ()).unwrap_err().kind(), ErrorKind::AlreadyExists);
        std::fs::remove_file(&path).unwrap();
        let (_socket, own) = Place::bind(&path).unwrap();
        own.remove();
        assert!(!path.exists());
    }
}
