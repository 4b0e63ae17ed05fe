//! What is said, to the loudspeaker of the camera's streamer: through a connection of its own, as long as somebody talks.
//!
//! Not through the one that brings the pictures: a server that refuses a back channel (551), or stumbles over it, would
//! end the recording with the talk.

use super::{End, RETRY_REFUSED, address, converse, random};
use crate::config::Url;
use crate::io::runtime::{Signal, now, sleep_until};
use crate::rtsp::{Client, Event, Failure, REQUEST_BYTES};
use crate::time::Duration;
use crate::trace::Repeats;
use std::cell::{Cell, RefCell};

/// Between two connections of one talk.
const RETRY: Duration = Duration::from_secs(2);

/// Samples between two turns of the task: 120 ms.
const SAMPLES: usize = 960;

/// From whoever speaks to the connection that is made for it.
#[derive(Default)]
pub struct Line {
    pcm: RefCell<heapless::Vec<i16, SAMPLES>>,
    open: Cell<bool>,
    changed: Signal,
}

impl Line {
    /// Says samples of one channel at [`RATE_HZ`](crate::rtsp::talk::RATE_HZ); what is too much is lost.
    pub fn say(&self, pcm: &[i16]) {
        self.open.set(true);
        let _ = self.pcm.borrow_mut().extend_from_slice(pcm);
        self.changed.notify();
    }

    /// Nobody talks any more.
    pub fn hang_up(&self) {
        self.open.set(false);
        self.pcm.borrow_mut().clear();
        self.changed.notify();
    }

    async fn when_open(&self) {
        loop {
            let seen = self.changed.count();
            if self.open.get() {
                return;
            }
            self.changed.changed(seen).await;
        }
    }
}

/// Serves the line for ever, with the server of the stream at `url`.
pub async fn talk(url: &Url, line: &Line) {
    let mut failures = Repeats::default();
    loop {
        line.when_open().await;
        let Some(server) = url.server() else { return std::future::pending().await };
        // Claimed for one talk: there are few.
        let mut client = Client::talking(&address(server), server.login, random());
        let mut request = vec![0; REQUEST_BYTES];
        let mut over = false;
        let mut turn = |client: &mut Client| {
            while let Some(event) = client.poll_event() {
                if matches!(event, Event::Playing { .. }) {
                    log::debug!("{url}: its loudspeaker is ours");
                }
            }
            let mut pcm = line.pcm.borrow_mut();
            client.say(&pcm);
            pcm.clear();
            if !line.open.get() && !core::mem::replace(&mut over, true) {
                client.hang_up();
            }
        };
        let end = converse(&mut client, &mut request, server, &line.changed, &mut turn).await;
        if over {
            continue;
        }
        let refused = matches!(end, End::Refused(Failure::Login(_) | Failure::NoTalk | Failure::Status { .. }));
        failures.note(now(), end.to_string(), |end, repeated| {
            log::warn!("{url}: {end}{repeated}; what is said is lost");
        });
        sleep_until(now() + if refused { RETRY_REFUSED } else { RETRY }).await;
        line.pcm.borrow_mut().clear();
    }
}

#[cfg(all(test, feature = "opus"))]
mod tests {
    use super::*;
    use crate::config::{Config, VideoSource};
    use crate::io::runtime::{Executor, or};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    const SDP: &str = "v=0\r\nm=audio 0 RTP/AVP 0\r\na=sendonly\r\na=control:back\r\n";

    /// Answers requests until the connection ends, and tells what came: methods, and the first byte of each packet's sound.
    fn serve(mut stream: TcpStream, sdp: &str, came: &mpsc::Sender<String>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut method, mut cseq) = (String::new(), String::new());
        while let Ok(&[first, ..]) = reader.fill_buf() {
            if first == b'$' {
                let mut packet = [0; 4 + 12 + 160];
                reader.read_exact(&mut packet).unwrap();
                came.send(packet[16].to_string()).unwrap();
                continue;
            }
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(number) = line.strip_prefix("CSeq: ") {
                cseq = number.trim().into();
            } else if line.ends_with("RTSP/1.0\r\n") {
                method = line.split(' ').next().unwrap().into();
                came.send(method.clone()).unwrap();
            } else if line == "\r\n" {
                let body = if method == "DESCRIBE" { sdp } else { "" };
                let length = body.len();
                let fields = format!("CSeq: {cseq}\r\nSession: 1\r\nContent-Length: {length}");
                write!(stream, "RTSP/1.0 200 OK\r\n{fields}\r\n\r\n{body}").unwrap();
            }
        }
        came.send("closed".into()).unwrap();
    }

    #[test]
    fn a_connection_for_each_talk() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("rtsp://{}/x", listener.local_addr().unwrap());
        let config = Config::parse(&format!("{{\"video\":{{\"source\":\"{address}\"}}}}")).unwrap();
        let Some(VideoSource::Rtsp(url)) = config.video.source else { panic!("{address}") };
        let (sender, came) = mpsc::channel();
        let server = std::thread::spawn(move || {
            for sdp in [SDP, SDP, "v=0\r\n"] {
                serve(listener.accept().unwrap().0, sdp, &sender);
            }
        });
        let line = Line::default();
        let mut all: Vec<String> = Vec::new();
        let speak = async {
            for end in ["TEARDOWN", "TEARDOWN", "closed"] {
                let begun = now();
                let before = all.len();
                let mut packets = 0;
                while all[before..].iter().all(|what| what != "closed") {
                    assert!(now() - begun < Duration::from_secs(20), "{all:?}");
                    if packets < 10 {
                        line.say(&[0x1000; 160]);
                    } else {
                        line.hang_up();
                    }
                    sleep_until(now() + Duration::from_millis(20)).await;
                    all.extend(came.try_iter());
                    packets = all[before..].iter().filter(|what| what.len() < 4).count();
                }
                assert!(all[before..].iter().any(|what| what == end), "{all:?}");
                line.hang_up();
            }
        };
        Executor::default().block_on(or(talk(&url, &line), speak));
        server.join().unwrap();
        let methods: Vec<_> = all.iter().filter(|what| what.len() > 3).map(String::as_str).collect();
        let talk = ["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN", "closed"];
        assert_eq!(methods, [&talk[..], &talk, &["OPTIONS", "DESCRIBE", "closed"]].concat());
        let sound = crate::media::g711::to_ulaw(0x1000).to_string();
        assert!(all.iter().filter(|what| what.len() <= 3).all(|byte| *byte == sound));
    }
}
