//! One live view from SetupEndpoints to its end.

use super::audio_track::AudioTrack;
use super::setup::{AudioChoice, Begin, Setup, VideoChoice};
use super::stream::Stream;
use super::video_track::VideoTrack;
use super::{Cause, Figures, Medium, NtpNow, Report, Talk, Transmit, VOICE_BYTES};
use crate::media::Prebuffer;
use crate::time::{Duration, Instant, Pts90k, earliest};
use crate::wire::{Writer, rtcp, rtp};
use core::net::SocketAddr;

/// A live view. After each call, and when a picture has come into the prebuffer, ask
/// [`Session::poll_transmit`] until it has nothing more, then [`Session::poll_report`] likewise, then
/// [`Session::poll_timeout`] when to come back.
pub struct Session {
    id: [u8; 16],
    phase: Phase,
    /// What is done when it is not heard from the controller until then.
    alive_until: Instant,
    at_silence: Cause,
    video: Stream,
    audio: Stream,
    choice: Option<VideoChoice>,
    pictures: VideoTrack,
    voice: AudioTrack,
    talk: heapless::Deque<Heard, TALK_WAITING>,
    /// What the last [`Session::poll_talk`] handed out.
    taken: Heard,
    pending: Pending,
    /// When a key frame was asked for last.
    key_asked: Option<Instant>,
    /// The last FIR, and when it came.
    fir: Option<(u8, Instant)>,
    hint_kbps: Option<u32>,
    figures: Figures,
    /// The number that the next picture of the source gets, and when it was another one last.
    source: (u64, Instant),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    SetUp,
    Running {
        /// Of the first picture, while that has not been sent.
        started: Option<Instant>,
    },
    Suspended,
    Ended {
        /// Which streams are still to be told.
        byes: [bool; 2],
    },
}

/// What the shell has not been told yet.
#[derive(Default)]
struct Pending {
    key_frame: bool,
    hint_kbps: Option<u32>,
    first_picture_ms: Option<u32>,
    lagged: bool,
    ended: Option<Cause>,
}

#[derive(Default)]
struct Heard {
    sequence: u16,
    timestamp: u32,
    payload: heapless::Vec<u8, VOICE_BYTES>,
}

impl Session {
    /// Set up, but not started. A picture's packets leave within `pacing_percent` of the time to the next.
    pub fn new(setup: Setup, pacing_percent: u8, now: Instant) -> Session {
        let stream = |medium: Medium| {
            let (keys, ssrc) = match medium {
                Medium::Video => (&setup.video, setup.video_ssrc),
                Medium::Audio => (&setup.audio, setup.audio_ssrc),
            };
            let i = medium as usize;
            Stream::new(keys, setup.remote[i], ssrc, setup.sequences[i], setup.timestamps[i])
        };
        Session {
            id: setup.id,
            phase: Phase::SetUp,
            alive_until: now + SILENCE,
            at_silence: Cause::NotStarted,
            video: stream(Medium::Video),
            audio: stream(Medium::Audio),
            choice: None,
            pictures: VideoTrack::new(pacing_percent),
            voice: AudioTrack::new(),
            talk: heapless::Deque::new(),
            taken: Heard::default(),
            pending: Pending::default(),
            key_asked: None,
            fir: None,
            hint_kbps: None,
            figures: Figures::default(),
            source: (0, now),
        }
    }

    /// The controller's id of it.
    pub fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Whether it was started and has not ended, suspended or not.
    pub fn is_started(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Suspended)
    }

    /// What the controller selected last.
    pub fn video(&self) -> Option<&VideoChoice> {
        self.choice.as_ref()
    }

    /// Starts to send. Does nothing when it was started before.
    pub fn start(&mut self, video: VideoChoice, audio: AudioChoice, begin: Begin, now: Instant) {
        if self.phase != Phase::SetUp {
            return;
        }
        self.video.select(video.payload_type, video.rtcp_interval_ms, VIDEO_REPORTS_MS);
        self.audio.select(audio.payload_type, audio.rtcp_interval_ms, AUDIO_REPORTS_MS);
        self.voice.select(audio.rate_hz);
        self.choice = Some(video);
        self.pictures.begin(begin);
        self.phase = Phase::Running { started: Some(now) };
        self.source.1 = now;
        self.heard(now);
    }

    /// Goes on with another size and bitrate; payload type, SSRC, sequence numbers and RTP time continue. When that
    /// means another prebuffer, [`Session::switch_source`] says so.
    pub fn reconfigure(&mut self, video: VideoChoice, now: Instant) {
        let Some(before) = self.choice.filter(|_| self.is_started()) else { return };
        let VideoChoice { payload_type, ssrc, .. } = before;
        self.video.select(payload_type, video.rtcp_interval_ms, self.video.report_interval_ms());
        self.choice = Some(VideoChoice { payload_type, ssrc, mtu: video.mtu.or(before.mtu), ..video });
        self.want_key(now);
    }

    /// The prebuffer of the calls that follow is another one than before: begins anew in it.
    pub fn switch_source(&mut self, begin: Begin) {
        if let Phase::Running { .. } = self.phase {
            self.pictures.begin(begin);
        } else {
            self.pictures.stop();
        }
    }

    /// Sends no further picture and no sound until [`Session::resume`]; reports go on.
    pub fn suspend(&mut self) {
        if let Phase::Running { .. } = self.phase {
            self.phase = Phase::Suspended;
            self.pictures.finish();
            self.voice.clear();
        }
    }

    /// Sends again, from the newest IDR picture on.
    pub fn resume(&mut self, now: Instant) {
        if self.phase == Phase::Suspended {
            self.phase = Phase::Running { started: None };
            self.source.1 = now;
            self.pictures.begin(Begin::FromPrebuffer);
            self.heard(now);
        }
    }

    /// Ends it: good-byes are sent, nothing else. Only the first cause counts.
    pub fn end(&mut self, cause: Cause) {
        if let Phase::Ended { .. } = self.phase {
            return;
        }
        self.phase = Phase::Ended { byes: [self.video.has_sent(), self.audio.has_sent()] };
        self.pictures.stop();
        self.voice.clear();
        self.talk.clear();
        self.pending = Pending { ended: Some(cause), ..Pending::default() };
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Takes a datagram that came in on the port of `medium`, and decrypts it in place. What is not the
    /// controller's, was there before or makes no sense changes nothing but a counter.
    pub fn handle_datagram(&mut self, medium: Medium, from: SocketAddr, bytes: &mut [u8], now: Instant) {
        if self.is_ended() {
            return;
        }
        let is_rtcp = rtp::is_rtcp(bytes);
        let stream = match medium {
            Medium::Video => &mut self.video,
            Medium::Audio => &mut self.audio,
        };
        let Some(opened) = stream.open(from, is_rtcp, bytes) else { return };
        let payload_type = stream.payload_type();
        if !self.is_started() {
            return;
        }
        self.heard(now);
        if is_rtcp {
            for item in rtcp::Items::new(opened).map_while(Result::ok) {
                self.handle_item(medium, &item, now);
            }
        } else if medium == Medium::Audio
            && let Ok(packet) = rtp::Packet::parse(opened)
            && packet.header.payload_type == payload_type
            && !packet.payload.is_empty()
        {
            self.handle_talk(&packet);
        }
    }

    fn handle_item(&mut self, medium: Medium, item: &rtcp::Item, now: Instant) {
        match *item {
            rtcp::Item::ReceiverBlock { .. } => {
                self.video.handle_receiver_block(item, now);
                self.audio.handle_receiver_block(item, now);
            }
            rtcp::Item::Pli { .. } => {
                self.figures.keys_wanted = self.figures.keys_wanted.saturating_add(1);
                self.want_key(now);
            }
            rtcp::Item::Fir { sequence, .. } => {
                // The same number again is the same request: it may have been sent again to be sure.
                let again = self.fir.is_some_and(|(last, at)| last == sequence && now.since(at) < FIR_REPEATS);
                self.fir = Some((sequence, now));
                if !again {
                    self.figures.keys_wanted = self.figures.keys_wanted.saturating_add(1);
                    self.want_key(now);
                }
            }
            rtcp::Item::Nack { media_ssrc, following, .. } => {
                self.video.handle_nack(media_ssrc, following);
                self.audio.handle_nack(media_ssrc, following);
            }
            rtcp::Item::MaxBitrate { bps } => {
                let kbps = u32::try_from(bps / 1000).unwrap_or(u32::MAX);
                if self.hint_kbps.replace(kbps) != Some(kbps) {
                    self.pending.hint_kbps = Some(kbps);
                }
            }
            // On the port of the audio this is the end of the talk-back. On that of the video the
            // controller leaves: it has a moment to prove otherwise.
            rtcp::Item::Bye { .. } if medium == Medium::Video => {
                self.alive_until = now + AFTER_BYE;
                self.at_silence = Cause::Left;
            }
            rtcp::Item::Bye { .. } | rtcp::Item::SenderReport { .. } => {}
        }
    }

    fn handle_talk(&mut self, packet: &rtp::Packet<'_>) {
        self.figures.talk = self.figures.talk.wrapping_add(1);
        let Ok(payload) = heapless::Vec::from_slice(packet.payload) else {
            self.drop_sound();
            return;
        };
        if self.talk.is_full() {
            self.talk.pop_front();
            self.drop_sound();
        }
        let heard = Heard { sequence: packet.header.sequence, timestamp: packet.header.timestamp, payload };
        // There is room now.
        let _ = self.talk.push_back(heard);
    }

    fn drop_sound(&mut self) {
        self.figures.sound_dropped = self.figures.sound_dropped.saturating_add(1);
    }

    /// The controller is there.
    fn heard(&mut self, now: Instant) {
        self.alive_until = now + SILENCE;
        self.at_silence = Cause::Silence;
    }

    fn want_key(&mut self, now: Instant) {
        if self.key_asked.is_none_or(|at| now.since(at) >= BETWEEN_KEYS) {
            self.key_asked = Some(now);
            self.pending.key_frame = true;
        }
    }

    /// Takes an Opus packet of the microphone: `samples` of it at the negotiated rate, the first of
    /// which was captured at `pts_90k`.
    pub fn push_audio(&mut self, payload: &[u8], samples: u32, pts_90k: Pts90k) {
        if let Phase::Running { .. } = self.phase
            && !self.voice.push(payload, samples, pts_90k)
        {
            self.drop_sound();
        }
    }

    /// The next packet of the talk-back, in the order of arrival. Four are kept.
    pub fn poll_talk(&mut self) -> Option<Talk<'_>> {
        self.taken = self.talk.pop_front()?;
        let Heard { sequence, timestamp, payload } = &self.taken;
        Some(Talk { sequence: *sequence, timestamp: *timestamp, payload })
    }

    /// Writes the next datagram into `out`, which has room for [`super::DATAGRAM_BYTES`]. `wall` is the
    /// wall clock of this moment. Until `None`, after each other call and when a picture came in.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        wall: NtpNow,
        prebuffer: &Prebuffer,
        out: &mut [u8],
    ) -> Option<Transmit> {
        match &mut self.phase {
            Phase::SetUp => return None,
            Phase::Ended { byes } => {
                let medium = [Medium::Video, Medium::Audio].into_iter().find(|medium| byes[*medium as usize])?;
                byes[medium as usize] = false;
                return self.put_report(medium, now, wall, true, out);
            }
            Phase::Running { .. } | Phase::Suspended => {}
        }
        let next = prebuffer.video_numbers().end;
        if next != self.source.0 {
            self.source = (next, now);
        }
        for medium in [Medium::Video, Medium::Audio] {
            let due = match medium {
                Medium::Video => self.video.report_due(),
                Medium::Audio => self.audio.report_due(),
            };
            if due.is_some_and(|due| due <= now) {
                return self.put_report(medium, now, wall, false, out);
            }
        }
        // Sound first: it is small, and more is heard of a delay than is seen.
        self.put_voice(now, out).or_else(|| self.put_picture(now, prebuffer, out))
    }

    fn put_report(
        &mut self,
        medium: Medium,
        now: Instant,
        wall: NtpNow,
        bye: bool,
        out: &mut [u8],
    ) -> Option<Transmit> {
        let (stream, ticks) = match medium {
            Medium::Video => (&mut self.video, now.as_90k() as u32),
            Medium::Audio => (&mut self.audio, self.voice.ticks_at(now)),
        };
        let len = stream.seal_report(now, wall, ticks, bye, out)?;
        Some(Transmit { medium, to: stream.remote(), len })
    }

    fn put_voice(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let voice = self.voice.front()?;
        let payload = voice.payload.len();
        Stream::payload_room(out)?.get_mut(..payload)?.copy_from_slice(&voice.payload);
        let len = self.audio.seal(false, voice.ticks, payload, now, out)?;
        self.voice.pop();
        Some(Transmit { medium: Medium::Audio, to: self.audio.remote(), len })
    }

    fn put_picture(&mut self, now: Instant, prebuffer: &Prebuffer, out: &mut [u8]) -> Option<Transmit> {
        let ipv6 = self.video.remote().ip().to_canonical().is_ipv6();
        let limit = self.choice?.payload_bytes(ipv6);
        let mut w = Writer::new(Stream::payload_room(out)?);
        let written = self.pictures.put_next(now, prebuffer, limit, &mut w);
        let payload = w.len();
        if self.pictures.take_key_wanted() {
            self.want_key(now);
        }
        if self.pictures.take_lagged() {
            self.figures.lagged = self.figures.lagged.saturating_add(1);
            self.pending.lagged = true;
        }
        let written = written?;
        let len = self.video.seal(written.marker, written.rtp_90k as u32, payload, now, out)?;
        if written.marker {
            self.figures.pictures = self.figures.pictures.wrapping_add(1);
            if let Phase::Running { started } = &mut self.phase
                && let Some(started) = started.take()
            {
                self.pending.first_picture_ms = Some(now.since(started).as_millis() as u32);
            }
        }
        Some(Transmit { medium: Medium::Video, to: self.video.remote(), len })
    }

    /// When to call [`Session::handle_timeout`], if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_ended() {
            return None;
        }
        let reports = earliest(self.video.report_due(), self.audio.report_due());
        let source = self.source_gone_at();
        earliest(earliest(Some(self.alive_until), reports), earliest(source, self.pictures.poll_timeout()))
    }

    fn source_gone_at(&self) -> Option<Instant> {
        matches!(self.phase, Phase::Running { .. }).then(|| self.source.1 + SOURCE_LIMIT)
    }

    /// Ends it when nothing was heard for too long. Packets and reports that are due come from
    /// [`Session::poll_transmit`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.alive_until <= now {
            self.end(self.at_silence);
        } else if self.source_gone_at().is_some_and(|at| at <= now) {
            self.end(Cause::SourceGone);
        }
    }

    /// What the shell should do or tell.
    pub fn poll_report(&mut self) -> Option<Report> {
        let pending = &mut self.pending;
        if core::mem::take(&mut pending.key_frame) {
            return Some(Report::KeyFrameWanted);
        }
        if core::mem::take(&mut pending.lagged) {
            return Some(Report::Lagged);
        }
        if let Some(kbps) = pending.hint_kbps.take() {
            return Some(Report::BitrateHint { kbps });
        }
        if let Some(after_ms) = pending.first_picture_ms.take() {
            return Some(Report::FirstPicture { after_ms });
        }
        pending.ended.take().map(Report::Ended)
    }

    /// What has happened so far.
    pub fn figures(&self) -> Figures {
        Figures { video: self.video.figures(), audio: self.audio.figures(), ..self.figures }
    }
}

/// Without anything from the controller, and between set-up and start.
const SILENCE: Duration = Duration::from_secs(30);

/// Without any picture of the source: who watches should see that it is over. A streamer that starts again takes less.
const SOURCE_LIMIT: Duration = Duration::from_secs(10);

/// The controller said good-bye; something that was on its way may still come.
const AFTER_BYE: Duration = Duration::from_secs(2);

/// Encoders take their time, and each key frame takes bits from the pictures behind it.
const BETWEEN_KEYS: Duration = Duration::from_millis(400);

const FIR_REPEATS: Duration = Duration::from_secs(2);

const VIDEO_REPORTS_MS: u32 = 500;
const AUDIO_REPORTS_MS: u32 = 5000;

/// Packets of talk-back that may wait for [`Session::poll_talk`].
const TALK_WAITING: usize = 4;

/// Claimed for each live view that may be.
const _: () = assert!(size_of::<Session>() <= 16 * 1024);
