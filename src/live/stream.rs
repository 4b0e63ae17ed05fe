//! One RTP stream of a live view with its RTCP: numbers, keys, counters.

use super::NtpNow;
use super::setup::Keys;
use super::srtp::{Opener, RTCP_TRAILER_BYTES, Sealer, TAG_BYTES};
use crate::time::{Duration, Instant};
use crate::wire::rtcp::{Item, SenderReport, put_bye, put_cname};
use crate::wire::{Writer, rtp};
use core::net::{IpAddr, SocketAddr};

/// What has happened in one stream.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct StreamFigures {
    /// RTP packets sent.
    pub packets: u32,
    /// Bytes of payload in them.
    pub octets: u32,
    /// Sender reports sent.
    pub reports: u32,
    /// Receiver reports about it.
    pub receiver_reports: u32,
    /// Lost since the report before, in 1/256, as the controller says.
    pub fraction_lost: u8,
    /// Lost since the start, as the controller says.
    pub lost: u32,
    /// Jitter of the arrival in units of the RTP clock, as the controller says.
    pub jitter: u32,
    /// From here to the controller and back (RFC 3550 §6.4.1), in microseconds.
    pub round_trip_us: Option<u32>,
    /// Packets that the controller asked for again. They are not sent again.
    pub missed: u32,
    /// Datagrams that were not the controller's, or came twice.
    pub refused: u32,
}

/// One medium: what it is sent with, and what comes in on its port.
pub(super) struct Stream {
    remote: SocketAddr,
    ssrc: u32,
    sequence: u16,
    /// What RTP time 0 is sent as.
    offset: u32,
    payload_type: u8,
    sealer: Sealer,
    opener: Opener,
    report_interval: Duration,
    /// When the next sender report is due, once there is a stream.
    report_due: Option<Instant>,
    /// The NTP time of the last one, as the controller repeats it, and when that was.
    last_report: Option<(u32, Instant)>,
    figures: StreamFigures,
}

impl Stream {
    pub(super) fn new(keys: &Keys, remote: SocketAddr, ssrc: u32, sequence: u16, offset: u32) -> Stream {
        Stream {
            remote,
            ssrc,
            sequence,
            offset,
            payload_type: 0,
            sealer: Sealer::new(&keys.ours),
            opener: Opener::new(&keys.theirs),
            report_interval: Duration::from_secs(5),
            report_due: None,
            last_report: None,
            figures: StreamFigures::default(),
        }
    }

    /// Sets what the controller selected. `interval_ms` 0 is `usual_ms`.
    pub(super) fn select(&mut self, payload_type: u8, interval_ms: u32, usual_ms: u32) {
        self.payload_type = payload_type & 0x7f;
        let ms = if interval_ms == 0 { usual_ms } else { interval_ms.clamp(100, 10_000) };
        self.report_interval = Duration::from_millis(u64::from(ms));
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(super) fn payload_type(&self) -> u8 {
        self.payload_type
    }

    pub(super) fn figures(&self) -> StreamFigures {
        self.figures
    }

    /// Whether anything was sent, so that there is something to say good-bye to.
    pub(super) fn has_sent(&self) -> bool {
        self.figures.packets > 0
    }

    /// Time between two reports.
    pub(super) fn report_interval_ms(&self) -> u32 {
        self.report_interval.as_millis() as u32
    }

    /// When the next report is due, once there is a stream.
    pub(super) fn report_due(&self) -> Option<Instant> {
        self.report_due
    }

    /// Makes an RTP packet of the payload that stands in `out` behind the room for a header. The first
    /// one makes a report due.
    pub(super) fn seal(
        &mut self,
        marker: bool,
        ticks: u32,
        payload: usize,
        now: Instant,
        out: &mut [u8],
    ) -> Option<usize> {
        let header = rtp::Header {
            marker,
            payload_type: self.payload_type,
            sequence: self.sequence,
            timestamp: self.offset.wrapping_add(ticks),
            ssrc: self.ssrc,
        };
        header.put(&mut Writer::new(out.get_mut(..rtp::HEADER_BYTES)?));
        let sealed = self.sealer.seal_rtp(out, rtp::HEADER_BYTES + payload)?;
        self.sequence = self.sequence.wrapping_add(1);
        self.report_due = self.report_due.or(Some(now));
        self.figures.packets = self.figures.packets.wrapping_add(1);
        self.figures.octets = self.figures.octets.wrapping_add(payload as u32);
        Some(sealed)
    }

    /// Room for a payload in a datagram of [`super::DATAGRAM_BYTES`].
    pub(super) fn payload_room(out: &mut [u8]) -> Option<&mut [u8]> {
        let end = out.len().checked_sub(TAG_BYTES)?;
        out.get_mut(rtp::HEADER_BYTES..end)
    }

    /// Makes a sender report: at this wall clock it was that RTP time. With `bye` it is the last one.
    pub(super) fn seal_report(
        &mut self,
        now: Instant,
        wall: NtpNow,
        ticks: u32,
        bye: bool,
        out: &mut [u8],
    ) -> Option<usize> {
        // Whoever was late does not make up for it with reports in a row.
        self.report_due = Some(now + self.report_interval);
        let room = out.len().checked_sub(RTCP_TRAILER_BYTES)?;
        let mut w = Writer::new(out.get_mut(..room)?);
        let report = SenderReport {
            ssrc: self.ssrc,
            ntp: wall.0,
            rtp_timestamp: self.offset.wrapping_add(ticks),
            packets: self.figures.packets,
            octets: self.figures.octets,
        };
        report.put(&mut w);
        put_cname(&mut w, self.ssrc, CNAME);
        if bye {
            put_bye(&mut w, self.ssrc);
        }
        let len = w.finish().ok()?.len();
        let sealed = self.sealer.seal_rtcp(out, len)?;
        self.last_report = Some((wall.middle(), now));
        self.figures.reports = self.figures.reports.wrapping_add(1);
        Some(sealed)
    }

    /// The plain text of an SRTP or SRTCP packet, if it is the controller's and came for the first time.
    /// Only then `from` says where the answers go: a port may change on the way, the address not, so
    /// that nobody else can have the stream sent to another machine.
    pub(super) fn open<'a>(&mut self, from: SocketAddr, rtcp: bool, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        let opened = if rtcp { self.opener.open_rtcp(bytes) } else { self.opener.open_rtp(bytes) };
        match opened {
            Some(_) if canonical(from) == canonical(self.remote) => self.remote.set_port(from.port()),
            Some(_) => {}
            None => self.figures.refused = self.figures.refused.saturating_add(1),
        }
        opened
    }

    /// Takes note of a receiver's report if it is about this stream.
    pub(super) fn handle_receiver_block(&mut self, item: &Item, now: Instant) {
        let Item::ReceiverBlock { ssrc, fraction_lost, lost, jitter, last_sr, delay, .. } = *item else { return };
        if ssrc != self.ssrc {
            return;
        }
        self.figures.receiver_reports = self.figures.receiver_reports.wrapping_add(1);
        (self.figures.fraction_lost, self.figures.lost, self.figures.jitter) = (fraction_lost, lost, jitter);
        if let Some((middle, sent)) = self.last_report
            && middle == last_sr
        {
            let held = Duration::from_micros(u64::from(delay) * 1_000_000 / 65_536);
            let round_trip = now.since(sent).saturating_sub(held).as_micros();
            self.figures.round_trip_us = Some(u32::try_from(round_trip).unwrap_or(u32::MAX));
        }
    }

    /// Takes note of a request for packets (RFC 4585 §6.2.1).
    pub(super) fn handle_nack(&mut self, media_ssrc: u32, following: u16) {
        if media_ssrc == self.ssrc {
            self.figures.missed = self.figures.missed.saturating_add(1 + following.count_ones());
        }
    }
}

/// An address without what depends on the socket it was received with.
fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Both streams of an accessory have the same one: that is what keeps lips and voice together
/// (RFC 3550 §6.5.1).
const CNAME: &str = "hksvd";
