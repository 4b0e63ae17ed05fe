//! `rtsp://NAME:PASSWORD@127.0.0.1:554/PATH`: the RTSP server of the camera's streamer. It starts later than we do,
//! and again when somebody changes its settings.

mod talk;

pub use talk::{Line, talk};

use super::{Sink, Track, Trouble, Troubles};
use crate::config::{Server, Url};
use crate::crypto::Random;
use crate::io::random::SystemRandom;
use crate::io::runtime::{Fd, Signal, now, or, sleep_until, sleep_until_some, yield_now};
use crate::rtsp::{Client, Event, Failure, Loss, REQUEST_BYTES};
use crate::sys::connect;
use crate::time::Duration;
use crate::trace::Repeats;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Between two attempts to connect: doubled each time, up to the second.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// The same when a person has to change something first; some streamers lock out who tries too often.
const RETRY_REFUSED: Duration = Duration::from_secs(30);

/// For a connection to come about, and for a request to be taken.
const LIMIT: Duration = Duration::from_secs(5);

/// Why a connection is over.
enum End {
    Failed(io::Error),
    Closed,
    Refused(Failure),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Failed(error) => error.fmt(f),
            End::Closed => f.write_str("the server has closed the connection"),
            End::Refused(failure) => failure.fmt(f),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Failed(error)
    }
}

/// Plays the stream for ever: connects again whenever the connection is over. Ends only with an address that is none.
pub async fn play(url: &Url, wants_sound: bool, access_unit_bytes: usize, sink: &mut dyn Sink) -> io::Error {
    let Some(server) = url.server() else { return io::ErrorKind::InvalidInput.into() };
    let mut client = Client::new(&address(server), server.login, wants_sound, access_unit_bytes, random());
    let mut request = vec![0; REQUEST_BYTES].into_boxed_slice();
    let mut player = Player {
        troubles: Troubles::new(Track::Video, url.to_string()),
        told_sound: Repeats::default(),
        pictures: false,
    };
    let nothing = Signal::default();
    let mut failures = Repeats::default();
    let mut pause = RETRY[0];
    loop {
        player.pictures = false;
        let end =
            converse(&mut client, &mut request, server, &nothing, &mut |client| player.hand_over(client, sink)).await;
        if player.pictures {
            pause = RETRY[0];
        }
        sink.trouble(Track::Video, if player.pictures { Trouble::WriterGone } else { Trouble::Missing });
        failures.note(now(), end.to_string(), |end, repeated| log::warn!("{url}: {end}{repeated}; trying again"));
        if matches!(end, End::Refused(Failure::Login(_) | Failure::NoH264 { .. })) {
            pause = RETRY_REFUSED;
        }
        sleep_until(now() + pause).await;
        pause = (pause * 2).min(RETRY[1]);
    }
}

/// The address for requests: without the login.
fn address(server: Server<'_>) -> String {
    ["rtsp://", server.host, server.target].concat()
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// One connection, from its beginning to its end. `turn` takes what has come and gives what is to be sent, whenever
/// something has happened and whenever `changed` fires.
async fn converse(
    client: &mut Client,
    request: &mut [u8],
    server: Server<'_>,
    changed: &Signal,
    turn: &mut dyn FnMut(&mut Client),
) -> End {
    let conversation = async {
        let stream = Fd::new(connect::ipv4(server.address, server.port)?)?;
        within_limit(stream.when_writable(|io| connect::finished(io.as_fd()))).await?;
        client.start();
        loop {
            let seen = changed.count();
            turn(client);
            send(client, request, &stream).await?;
            if let Some(failure) = client.failure() {
                return Err(End::Refused(failure));
            }
            let timeout = client.poll_timeout();
            let buffer = client.receive_buffer();
            let read = async { Some(stream.read(buffer).await) };
            let otherwise = async {
                or(sleep_until_some(timeout), changed.changed(seen)).await;
                None
            };
            match or(read, otherwise).await {
                Some(Ok(0)) => return Err(End::Closed),
                Some(Ok(n)) => client.handle_received(n, now()),
                Some(Err(error)) => return Err(error.into()),
                None => client.handle_timeout(now()),
            }
            yield_now().await;
        }
    };
    let Err::<std::convert::Infallible, End>(end) = conversation.await;
    end
}

async fn send(client: &mut Client, request: &mut [u8], stream: &Fd<File>) -> Result<(), End> {
    while let Some(len) = client.poll_transmit(now(), request) {
        let mut rest = &request[..len];
        while !rest.is_empty() {
            let sent = within_limit(stream.write(rest)).await?;
            rest = rest.get(sent..).unwrap_or_default();
        }
    }
    Ok(())
}

struct Player {
    troubles: Troubles,
    told_sound: Repeats<String>,
    /// This connection has brought some.
    pictures: bool,
}

impl Player {
    fn hand_over(&mut self, client: &mut Client, sink: &mut dyn Sink) {
        while let Some(event) = client.poll_event() {
            match event {
                Event::Picture { annexb, key, arrival } => {
                    self.pictures = true;
                    sink.access_unit(annexb, key, arrival);
                }
                Event::Aac { raw_frame, rate_hz, channels, arrival } => sink.aac(raw_frame, rate_hz, channels, arrival),
                Event::Opus { packet, arrival } => sink.opus(packet, arrival),
                Event::Pcm { pcm, rate_hz, arrival } => sink.l16(pcm, rate_hz, arrival),
                Event::VideoLoss(loss) => self.troubles.report(trouble(loss), sink),
                Event::SoundLoss => sink.trouble(Track::Audio, Trouble::Garbage),
                Event::Stalled => self.troubles.report(Trouble::Stalled, sink),
                Event::Playing { refused_sound: None } => {}
                Event::Playing { refused_sound: Some(codec) } => {
                    let name = &self.troubles.name;
                    self.told_sound.note(now(), codec.into(), |codec, repeated| {
                        log::warn!(
                            "{name}: its sound ({codec}) cannot be taken: set the streamer's sound to AAC{repeated}"
                        );
                    });
                }
            }
        }
    }
}

/// As sources call it.
pub(super) fn trouble(loss: Loss) -> Trouble {
    match loss {
        Loss::Torn => Trouble::Torn,
        Loss::Garbage => Trouble::Garbage,
        Loss::H265 => Trouble::H265,
        Loss::Oversized => Trouble::Oversized,
    }
}

async fn within_limit<R>(work: impl Future<Output = io::Result<R>>) -> io::Result<R> {
    let limit = async {
        sleep_until(now() + LIMIT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    or(work, limit).await
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::config::{Config, VideoSource};
    use crate::io::runtime::Executor;
    use std::cell::RefCell;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::rc::Rc;

    const SDP: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:v\r\n";

    /// Answers up to PLAY, sends an IDR picture of 7 bytes, and closes.
    fn serve_one_picture(listener: &TcpListener) {
        let mut stream = listener.accept().unwrap().0;
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut cseq = String::new();
        let mut method = String::new();
        while let Some(Ok(line)) = lines.next() {
            if let Some(number) = line.strip_prefix("CSeq: ") {
                cseq = number.into();
            } else if line.ends_with("RTSP/1.0") {
                method = line.split(' ').next().unwrap().into();
            }
            if !line.is_empty() {
                continue;
            }
            let body = if method == "DESCRIBE" { SDP } else { "" };
            let length = body.len();
            write!(stream, "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            if method == "PLAY" {
                stream.write_all(b"$\0\0\x0f\x80\xe0\0\x01\0\0\0\0\0\0\0\x01\x65\x88\x01").unwrap();
                return;
            }
        }
    }

    #[test]
    fn connects_again_and_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("rtsp://me:secret@{}/x", listener.local_addr().unwrap());
        let config = Config::parse(&format!("{{\"video\":{{\"source\":\"{address}\"}}}}")).unwrap();
        let Some(VideoSource::Rtsp(url)) = config.video.source else { panic!("{address}") };
        let server = std::thread::spawn(move || {
            serve_one_picture(&listener);
            // Something else listens there for a while.
            let mut stranger = listener.accept().unwrap().0;
            stranger.write_all(b"SSH-2.0-dropbear\r\n").unwrap();
            serve_one_picture(&listener);
        });
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let begun = now();
        Executor::default().block_on(or(async { panic!("{}", play(&url, true, 1000, &mut sink).await) }, async {
            while recorder.borrow().troubles.len() < 3 && now() - begun < Duration::from_secs(20) {
                sleep_until(now() + Duration::from_millis(10)).await;
            }
        }));
        server.join().unwrap();
        let recorder = recorder.borrow();
        assert_eq!(recorder.pictures.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(7, true); 2]);
        let troubles: Vec<_> = recorder.troubles.iter().map(|(_, trouble)| *trouble).collect();
        assert_eq!(troubles, [Trouble::WriterGone, Trouble::Missing, Trouble::WriterGone]);
        assert_eq!(url.to_string(), address.replace("me:secret", "…"));
    }
}
