//! The conversation, from OPTIONS to the last sign of life.

use super::login::Login;
use super::pictures::Pictures;
use super::sound::{Codec, Format, Sound};
use super::talk::{RATE_HZ, Talk};
use super::{Event, Failure, Loss};
use crate::time::{Duration, Instant, earliest};
use crate::wire::rtp::Packet;
use crate::wire::rtsp::{FRAME_MAX, Frame, Head, parameter};
use crate::wire::sdp::{self, Media};
use crate::wire::{Malformed, Writer};
use core::fmt::Write;

/// For the answer to a request: some servers start their encoder first.
const ANSWER: Duration = Duration::from_secs(10);

/// Media that stay away for so long are worth a word.
const STALL: Duration = Duration::from_secs(2);

/// And for so long, another connection.
const SILENCE: Duration = Duration::from_secs(10);

/// Packets that make no picture for so long are of another codec by now: the description will tell.
const NO_PICTURE: Duration = Duration::from_secs(30);

/// For the answer to the last request of a talk.
const FAREWELL: Duration = Duration::from_secs(1);

/// What makes a server describe its back channel (ONVIF Streaming Specification §5.3.1).
const BACK_CHANNEL: &[u8] = b"Require: www.onvif.org/ver20/backchannel\r\n";

/// Between two signs of life at the most, and at the least.
const KEEP_ALIVE: core::ops::RangeInclusive<u32> = 5..=30;

/// What a server takes for the end of a session when it does not say (RFC 2326 §12.37), in seconds.
const SESSION_S: u32 = 60;

/// Addresses and session names above this are no addresses.
const TEXT_MAX: usize = 1024;

/// Room for a request.
pub const REQUEST_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Options,
    Describe,
    SetupVideo,
    SetupSound,
    Play,
    KeepAlive,
    Teardown,
}

/// A stream that was agreed on.
struct Track {
    /// Address for SETUP.
    url: String,
    /// Payload type and channel of its packets.
    payload_type: u8,
    channel: u8,
}

/// What is to be told before anything else.
enum Told {
    VideoLoss(Loss),
    SoundLoss,
    Stalled,
    Playing,
}

enum Ready {
    Picture,
    Frame,
    Told(Told),
}

/// One stream of one server, over one connection after the other. Buffers are claimed by [`Client::new`]; what
/// comes with media allocates nothing.
pub struct Client {
    /// Of the stream, without name and password.
    url: String,
    login: Login,
    wants_sound: bool,
    received: Box<[u8]>,
    /// What of it is to be read.
    from: usize,
    len: usize,
    /// When the last bytes came.
    arrival: Instant,
    cseq: u32,
    to_send: Option<Request>,
    /// Waits for the answer.
    sent: Option<(Request, Instant)>,
    /// A request of the server that wants its answer.
    asked: Option<u32>,
    /// Of PLAY and signs of life.
    aggregate: String,
    session: String,
    session_s: u32,
    /// The server knows GET_PARAMETER.
    get_parameter: bool,
    keep_alive: Option<Instant>,
    video: Option<Track>,
    sound_track: Option<Track>,
    pictures: Pictures,
    sound: Sound,
    refused_sound: String,
    /// Instead of watching.
    talk: Option<Box<Talk>>,
    playing: bool,
    /// Bytes since the last thing that could be read.
    skipped: usize,
    /// Since PLAY was answered.
    last_media: Instant,
    last_picture: Instant,
    told_stall: bool,
    told: Option<Told>,
    failure: Option<Failure>,
}

impl Client {
    /// A client for the stream at `url` (`rtsp://…` without login), with `name:password`, for access units of up to
    /// `access_unit_bytes`. `cnonce` should be another one each time.
    pub fn new(url: &str, login: Option<&str>, wants_sound: bool, access_unit_bytes: usize, cnonce: u32) -> Self {
        Client {
            url: url.into(),
            login: Login::new(login, cnonce),
            wants_sound,
            received: vec![0; FRAME_MAX].into_boxed_slice(),
            from: 0,
            len: 0,
            arrival: Instant::ZERO,
            cseq: 0,
            to_send: None,
            sent: None,
            asked: None,
            aggregate: String::new(),
            session: String::new(),
            session_s: SESSION_S,
            get_parameter: false,
            keep_alive: None,
            video: None,
            sound_track: None,
            pictures: Pictures::new(access_unit_bytes),
            sound: Sound::default(),
            refused_sound: String::new(),
            talk: None,
            playing: false,
            skipped: 0,
            last_media: Instant::ZERO,
            last_picture: Instant::ZERO,
            told_stall: false,
            told: None,
            failure: None,
        }
    }

    /// A client that talks to the server's loudspeaker, through the back channel of the stream at `url`.
    pub fn talking(url: &str, login: Option<&str>, cnonce: u32) -> Self {
        Client { talk: Some(Box::new(Talk::new(cnonce))), ..Client::new(url, login, false, 0, cnonce) }
    }

    /// Says these samples of one channel at [`RATE_HZ`](super::talk::RATE_HZ).
    pub fn say(&mut self, pcm: &[i16]) {
        if let Some(talk) = &mut self.talk {
            talk.push(pcm);
        }
    }

    /// Ends the talk; the [failure](Client::failure) that follows says how that went.
    pub fn hang_up(&mut self) {
        if self.session.is_empty() {
            self.failure = Some(Failure::Ended);
        }
        (self.playing, self.to_send) = (false, Some(Request::Teardown));
    }

    /// Cameras without sound have nobody who talks.
    fn is_talking(&self) -> bool {
        cfg!(feature = "opus") && self.talk.is_some()
    }

    /// A connection stands: forgets the one before and begins.
    pub fn start(&mut self) {
        (self.from, self.len) = (0, 0);
        self.to_send = Some(Request::Options);
        (self.sent, self.asked, self.keep_alive, self.told, self.failure) = (None, None, None, None, None);
        (self.video, self.sound_track) = (None, None);
        (self.playing, self.told_stall, self.session_s, self.skipped) = (false, false, SESSION_S, 0);
        self.session.clear();
        self.login.restart();
        self.pictures.restart(None);
    }

    /// Where the next bytes belong; never empty as long as [`Client::poll_event`] was called until `None`.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        self.received.copy_within(self.from..self.len, 0);
        self.len -= core::mem::take(&mut self.from);
        &mut self.received[self.len..]
    }

    /// `n` bytes were put into the [receive buffer](Client::receive_buffer).
    pub fn handle_received(&mut self, n: usize, now: Instant) {
        self.len = (self.len + n).min(self.received.len());
        self.arrival = now;
    }

    /// What has come; call until `None` after everything that happens. Then [`Client::failure`] tells whether to go on.
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        let event = match self.advance()? {
            Ready::Picture => {
                self.last_picture = self.arrival;
                let picture = self.pictures.current();
                Event::Picture { annexb: picture.annexb, key: picture.key, arrival: picture.arrival }
            }
            Ready::Frame => {
                let Format { codec, rate_hz, channels, .. } = self.sound.format();
                let (frame, arrival) = (self.sound.frame(), self.arrival);
                match codec {
                    Codec::Aac => Event::Aac { raw_frame: frame, rate_hz, channels, arrival },
                    Codec::Opus => Event::Opus { packet: frame, arrival },
                    Codec::L16 | Codec::Pcmu | Codec::Pcma => Event::Pcm { pcm: self.sound.pcm(), rate_hz, arrival },
                }
            }
            Ready::Told(Told::VideoLoss(loss)) => Event::VideoLoss(loss),
            Ready::Told(Told::SoundLoss) => Event::SoundLoss,
            Ready::Told(Told::Stalled) => Event::Stalled,
            Ready::Told(Told::Playing) => {
                let refused = &self.refused_sound;
                Event::Playing { refused_sound: (!refused.is_empty()).then_some(refused) }
            }
        };
        Some(event)
    }

    /// Why the connection is to be closed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Writes the next request into `out`, [`REQUEST_BYTES`] of it; call until `None` after everything that happens.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        if let Some(cseq) = self.asked.take() {
            // A writer that is full says so at its end.
            let _ = write!(w, "RTSP/1.0 501 Not Implemented\r\nCSeq: {cseq}\r\n\r\n");
            return w.finish().ok().map(|text| text.len());
        }
        if self.failure.is_some() {
            return None;
        }
        let Some(request) = self.to_send.take() else {
            let talk = self.talk.as_mut().filter(|_| cfg!(feature = "opus") && self.playing)?;
            let track = self.sound_track.as_ref()?;
            return talk.put(&mut w, track.channel, track.payload_type, now).then_some(w.len());
        };
        let track = match request {
            Request::SetupVideo => self.video.as_ref(),
            Request::SetupSound => self.sound_track.as_ref(),
            _ => None,
        };
        let url = match request {
            Request::Options | Request::Describe => &self.url,
            Request::SetupVideo | Request::SetupSound => &track?.url,
            Request::Play | Request::KeepAlive | Request::Teardown => &self.aggregate,
        };
        let method = self.method(request);
        self.cseq += 1;
        let _ = write!(w, "{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: hksvd\r\n", self.cseq);
        self.login.put(&mut w, method, url);
        if !self.session.is_empty() {
            let _ = write!(w, "Session: {}\r\n", self.session);
        }
        if self.is_talking() {
            w.bytes(BACK_CHANNEL);
        }
        match (request, track) {
            (Request::Describe, _) => w.bytes(b"Accept: application/sdp\r\n"),
            (Request::Play, _) => w.bytes(b"Range: npt=0.000-\r\n"),
            (_, Some(Track { channel, .. })) => {
                let _ = write!(w, "Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n", channel + 1);
            }
            _ => {}
        }
        w.bytes(b"\r\n");
        self.sent = Some((request, now + if request == Request::Teardown { FAREWELL } else { ANSWER }));
        match w.finish() {
            Ok(text) => Some(text.len()),
            Err(full) => {
                self.failure = Some(Failure::Malformed(full.into()));
                None
            }
        }
    }

    /// When [`Client::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = if self.told_stall { SILENCE } else { STALL };
        let timers = earliest(self.sent.map(|(_, until)| until), self.keep_alive);
        if self.is_talking() {
            let due = self.talk.as_ref().filter(|_| self.playing).and_then(|talk| talk.poll_timeout());
            return earliest(timers, due);
        }
        let watched = self.playing.then(|| (self.last_media + silence).min(self.last_picture + NO_PICTURE));
        earliest(timers, watched)
    }

    /// A timer is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.sent {
            // There are servers that do not answer a sign of life; media tell whether this one lives.
            Some((Request::KeepAlive, until)) if until <= now => self.sent = None,
            Some((_, until)) if until <= now => self.failure = Some(Failure::NoAnswer),
            _ => {}
        }
        if self.keep_alive.is_some_and(|when| when <= now) {
            self.to_send = Some(Request::KeepAlive);
            self.keep_alive = Some(now + self.keep_alive_after());
        }
        if !self.playing || self.is_talking() {
            return;
        }
        if now - self.last_media >= SILENCE || now - self.last_picture >= NO_PICTURE {
            self.failure = Some(Failure::NoMedia);
        } else if now - self.last_media >= STALL && !self.told_stall {
            self.told_stall = true;
            self.told = Some(Told::Stalled);
        }
    }

    fn keep_alive_after(&self) -> Duration {
        Duration::from_secs((self.session_s / 2).clamp(*KEEP_ALIVE.start(), *KEEP_ALIVE.end()).into())
    }

    fn method(&self, request: Request) -> &'static str {
        match request {
            Request::KeepAlive if self.get_parameter => "GET_PARAMETER",
            Request::Options | Request::KeepAlive => "OPTIONS",
            Request::Describe => "DESCRIBE",
            Request::SetupVideo | Request::SetupSound => "SETUP",
            Request::Play => "PLAY",
            Request::Teardown => "TEARDOWN",
        }
    }

    /// Reads on until there is something to hand out.
    fn advance(&mut self) -> Option<Ready> {
        loop {
            if let Some(told) = self.told.take() {
                return Some(Ready::Told(told));
            }
            if self.pictures.take() {
                return Some(Ready::Picture);
            }
            if self.failure.is_some() {
                return None;
            }
            // Taken out while it is read, since what is read goes into other parts of this.
            let received = core::mem::take(&mut self.received);
            let ready = self.read(&received[self.from..self.len]);
            self.received = received;
            match ready {
                Ok(Some(taken)) => self.from += taken,
                Ok(None) => return None,
                Err(ready) => return Some(ready),
            }
        }
    }

    /// Takes in what stands at the front, and says how many bytes of it are done with; `Err`: something is to be
    /// handed out first, and the same bytes are to be read again.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Ready> {
        let (frame, taken) = match Frame::parse(bytes) {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            // Stray bytes between two packets cost less than another connection.
            Err(_) if self.playing && self.skipped < FRAME_MAX => {
                let begins = |at: &usize| bytes[*at] == b'$' && bytes.get(at + 1).is_none_or(|c| self.has_channel(*c));
                let next = (1..bytes.len()).find(begins).unwrap_or(bytes.len());
                self.skipped += next;
                return Ok(Some(next));
            }
            Err(malformed) => {
                self.failure = Some(Failure::Malformed(malformed));
                return Ok(None);
            }
        };
        self.skipped = 0;
        match frame {
            Frame::Interleaved { .. } if self.is_talking() => {}
            Frame::Interleaved { channel, packet } => self.handle_media(channel, packet)?,
            Frame::Response { status, head, body } => {
                if let Err(failure) = self.handle_response(status, head, body) {
                    self.failure = Some(failure);
                }
            }
            Frame::Request { head } => self.asked = head.field("CSeq").and_then(|n| n.parse().ok()),
        }
        Ok(Some(taken))
    }

    /// One of a stream that was agreed on, or of its RTCP.
    fn has_channel(&self, channel: u8) -> bool {
        let of = |track: &Option<Track>| track.as_ref().is_some_and(|t| t.channel & !1 == channel & !1);
        of(&self.video) || of(&self.sound_track)
    }

    fn handle_media(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Ready> {
        let of = |track: &Option<Track>| track.as_ref().filter(|t| t.channel == channel).map(|t| t.payload_type);
        if let Some(payload_type) = of(&self.video) {
            let result = match Packet::parse(bytes) {
                Ok(packet) if packet.header.payload_type == payload_type => {
                    if self.pictures.ends_before(&packet) && self.pictures.take() {
                        return Err(Ready::Picture);
                    }
                    (self.last_media, self.told_stall) = (self.arrival, false);
                    self.pictures.handle_packet(&packet, self.arrival)
                }
                // Not of the stream that was described, as repeated packets are not, or no packet at all: where one is
                // missing, the number of the next one tells.
                _ => Ok(()),
            };
            self.told = result.err().map(Told::VideoLoss);
        } else if let Some(payload_type) = of(&self.sound_track) {
            let Ok(packet) = Packet::parse(bytes) else { return Ok(()) };
            if packet.header.payload_type == payload_type {
                match self.sound.poll(packet.payload, packet.header.marker) {
                    Some(Ok(())) => return Err(Ready::Frame),
                    Some(Err(_)) => return Err(Ready::Told(Told::SoundLoss)),
                    None => {}
                }
            }
        }
        // Everything else is RTCP.
        Ok(())
    }

    fn handle_response(&mut self, status: u16, head: Head<'_>, body: &[u8]) -> Result<(), Failure> {
        let cseq = head.field("CSeq").and_then(|n| n.parse().ok());
        let Some((request, _)) = self.sent.filter(|_| cseq.is_none_or(|n: u32| n == self.cseq)) else {
            // Too late, or to nobody.
            return Ok(());
        };
        if status < 200 {
            // 100: the answer follows.
            return Ok(());
        }
        self.sent = None;
        if status == 401 {
            self.login.handle_challenge(head).map_err(Failure::Login)?;
            self.to_send = Some(request);
            return Ok(());
        }
        self.login.handle_accepted();
        if let Some(field) = head.field("Session").filter(|_| status == 200) {
            let name = field.split(';').next().unwrap_or_default().trim();
            if name.len() < TEXT_MAX / 4 {
                name.clone_into(&mut self.session);
            }
            let timeout = parameter(field, "timeout").and_then(|s| s.parse().ok());
            self.session_s = timeout.unwrap_or(self.session_s);
        }
        let refused = || Failure::Status { method: self.method(request), status };
        match (request, status) {
            (Request::Options, _) => {
                // Who does not say what it knows gets the request that everybody knows.
                self.get_parameter = head.fields("Public").any(|all| all.contains("GET_PARAMETER"));
                self.to_send = Some(Request::Describe);
            }
            (Request::Describe, 200) => {
                let base = head.field("Content-Base").or_else(|| head.field("Content-Location"));
                self.handle_description(base.filter(|base| base.contains("://")), body)?;
                self.to_send = Some(if self.is_talking() { Request::SetupSound } else { Request::SetupVideo });
            }
            (Request::SetupVideo, 200) => {
                accept(&mut self.video, head);
                self.to_send = Some(if self.sound_track.is_some() { Request::SetupSound } else { Request::Play });
            }
            (Request::SetupSound, 200) => {
                accept(&mut self.sound_track, head);
                self.to_send = Some(Request::Play);
            }
            // Video alone is better than nothing.
            (Request::SetupSound, _) if !self.is_talking() => {
                self.sound_track = None;
                self.refused_sound = "refused".into();
                self.to_send = Some(Request::Play);
            }
            (Request::Play, 200) => {
                (self.playing, self.last_media, self.last_picture) = (true, self.arrival, self.arrival);
                self.keep_alive = Some(self.arrival + self.keep_alive_after());
                self.told = Some(Told::Playing);
            }
            (Request::Teardown, _) => return Err(Failure::Ended),
            (Request::KeepAlive, 200) => {}
            // 454: the session is over.
            (Request::KeepAlive, 454) => return Err(refused()),
            // The server does not know what it says it knows.
            (Request::KeepAlive, _) => self.get_parameter = false,
            _ => return Err(refused()),
        }
        Ok(())
    }

    fn handle_description(&mut self, base: Option<&str>, body: &[u8]) -> Result<(), Failure> {
        let text =
            core::str::from_utf8(body).map_err(|_| Failure::Malformed(Malformed("a description that is no text")))?;
        let base = base.filter(|base| base.len() < TEXT_MAX).unwrap_or(&self.url);
        let track = |media: &Media<'_>, channel| Track {
            url: join(base, media.control.unwrap_or("*")),
            payload_type: media.payload_type,
            channel,
        };
        self.aggregate = join(base, sdp::session_control(text).unwrap_or("*"));
        self.sound_track = None;
        if let Some(talk) = self.talk.as_mut().filter(|_| cfg!(feature = "opus")) {
            let mut best = Codec::Pcma;
            for media in sdp::choices(text).filter(|media| media.kind == "audio" && media.to_server) {
                let Some(Format { codec, rate_hz: RATE_HZ, channels: 1, .. }) = Format::of(&media) else { continue };
                // µ-law is what every device has to take.
                if matches!(codec, Codec::Pcma | Codec::Pcmu) && (codec > best || self.sound_track.is_none()) {
                    best = codec;
                    self.sound_track = Some(track(&media, 0));
                    talk.set_alaw(codec == Codec::Pcma);
                }
            }
            return if self.sound_track.is_some() { Ok(()) } else { Err(Failure::NoTalk) };
        }
        let is =
            |media: &Media<'_>, encoding: &str| media.kind == "video" && media.encoding.eq_ignore_ascii_case(encoding);
        let Some(video) = sdp::media(text).find(|media| is(media, "H264")) else {
            return Err(Failure::NoH264 { h265: sdp::media(text).any(|media| is(&media, "H265")) });
        };
        self.video = Some(track(&video, 0));
        self.pictures.restart(parameter(video.fmtp, "sprop-parameter-sets"));
        self.refused_sound.clear();
        let mut best = None;
        for media in sdp::media(text).filter(|media| self.wants_sound && media.kind == "audio" && !media.to_server) {
            let format = Format::of(&media);
            if let Some(format) = format.filter(|format| best.is_none_or(|best| format.codec > best)) {
                best = Some(format.codec);
                self.sound_track = Some(track(&media, 2));
                self.sound.restart(format);
            } else if format.is_none() {
                self.refused_sound = media.encoding.chars().take(16).collect();
            }
        }
        if best.is_some() {
            self.refused_sound.clear();
        }
        Ok(())
    }
}

/// Takes note of the channel that the server has chosen, if it has.
fn accept(track: &mut Option<Track>, head: Head<'_>) {
    let chosen = head.field("Transport").and_then(|field| parameter(field, "interleaved"));
    let channel = chosen.and_then(|range| range.split('-').next()?.parse().ok());
    if let (Some(track), Some(channel)) = (track, channel) {
        track.channel = channel;
    }
}

/// The address of a stream: `control` by itself, or behind the base (RFC 2326 §C.1.1). As servers expect it, the
/// base is cut nowhere.
fn join(base: &str, control: &str) -> String {
    if control.contains("://") {
        return control.into();
    }
    let mut url = String::from(base);
    if control != "*" && !control.is_empty() {
        if !url.ends_with('/') && !control.starts_with('/') {
            url.push('/');
        }
        url.push_str(control);
    }
    url
}

#[cfg(test)]
mod tests;
