//! The two CameraRTPStreamManagement services: characteristics 117, 118 and 120 (HAP R2 §11.3).
//!
//! A live view belongs to the connection that set it up: to every other one it does not exist, except
//! that the service is in use.

use super::write::tlv;
use super::{Caller, State, TLV_MAX};
use crate::hap::ConnectionId;
use crate::hap::accessory::{Effect, Refusal};
use crate::hap::camera_tlv::STREAM_OPUS;
use crate::hap::database::{Field, Stream};
use crate::hap::pairing::ControllerId;
use crate::hap::stream_tlv::{Command, SelectedStream, SessionId, SetupAnswer, SetupRequest, StreamingStatus, Suite};
use crate::hap::types::Status;
use crate::wire::Writer;
use crate::wire::json::Value;

/// The longest value of 117 that is kept to be read back; controllers write about 120 bytes.
const SELECTED_MAX: usize = 256;
/// Refused set-ups whose answer was not read yet, at most: the oldest goes.
const REFUSED_MAX: usize = 8;

const STREAMS: [Stream; 2] = [Stream::First, Stream::Second];

/// A live view, from its set-up to its end.
struct View {
    connection: ConnectionId,
    controller: ControllerId,
    session: SessionId,
    answer: SetupAnswer,
    /// What was written to 117 last; empty before the start.
    selected: heapless::Vec<u8, SELECTED_MAX>,
}

impl View {
    fn is_running(&self) -> bool {
        !self.selected.is_empty()
    }
}

/// A set-up that was refused, for the connection that reads why.
struct Refused {
    connection: ConnectionId,
    stream: Stream,
    session: SessionId,
    why: Refusal,
}

/// What the two services have.
#[derive(Default)]
pub(super) struct Views {
    views: [Option<Box<View>>; 2],
    refused: heapless::Vec<Refused, REFUSED_MAX>,
}

impl State {
    /// The value of 120. A service is in use from the set-up on.
    pub(super) fn streaming_status(&self, stream: Stream) -> StreamingStatus {
        match self.live.views[stream as usize] {
            None => StreamingStatus::Available,
            Some(_) => StreamingStatus::InUse,
        }
    }

    /// Appends the value of 118 as `connection` sees it.
    pub(super) fn put_setup_answer(&self, stream: Stream, connection: ConnectionId, w: &mut Writer<'_>) {
        let live = &self.live;
        if let Some(refused) = live.refused.iter().find(|r| (r.connection, r.stream) == (connection, stream)) {
            return match refused.why {
                Refusal::Busy => SetupAnswer::Busy(refused.session).put(w),
                Refusal::Error => SetupAnswer::Error(refused.session).put(w),
            };
        }
        match &live.views[stream as usize] {
            Some(view) if view.connection == connection => view.answer.put(w),
            _ => SetupAnswer::Idle.put(w),
        }
    }

    /// Appends the value of 117.
    pub(super) fn put_selected_stream(&self, stream: Stream, w: &mut Writer<'_>) {
        match &self.live.views[stream as usize] {
            Some(view) if view.is_running() => w.bytes(&view.selected),
            _ => SelectedStream::put_idle(w),
        }
    }

    /// Whether the connection has set up a live view.
    pub fn has_live_view(&self, connection: ConnectionId) -> bool {
        self.live.views.iter().flatten().any(|view| view.connection == connection)
    }

    /// The live view on this service (0 or 1) has ended without being asked to: the service is free
    /// again. Nothing happens when it is.
    pub fn live_view_ended(&mut self, view: u8) {
        if let Some(stream) = STREAMS.get(usize::from(view)) {
            self.free(*stream);
        }
    }

    /// A write to 118. What became of it is read afterwards: a refusal is no failed write.
    pub(super) fn set_up_endpoints(
        &mut self,
        stream: Stream,
        value: &Value<'_>,
        caller: &mut Caller<'_>,
    ) -> Result<(), Status> {
        let mut buf = [0; TLV_MAX];
        let tlv = tlv(value, &mut buf)?;
        if !self.stream_allowed(stream) {
            return Err(Status::NotAllowedNow);
        }
        let request = SetupRequest::parse(tlv).map_err(|_| Status::InvalidValue)?;
        let (connection, session) = (caller.connection, request.session);
        let before = self.live.views[stream as usize].as_deref();
        // Whoever sets the same one up again before the start means the later keys.
        let again = |view: &View| !view.is_running() && (view.connection, view.session) == (connection, session);
        let in_use = before.is_some_and(|view| !again(view));
        let answer = if in_use {
            Err(Refusal::Busy)
        } else if request.video.suite != Suite::Aes128 || request.audio.suite != Suite::Aes128 {
            // Not offered.
            Err(Refusal::Error)
        } else {
            caller.live_views.set_up(connection, stream as u8, &request)
        };
        self.live.refused.retain(|r| (r.connection, r.stream) != (connection, stream));
        let why = match answer {
            Ok(answer @ SetupAnswer::Ready { .. }) => {
                let (controller, selected) = (caller.controller.clone(), heapless::Vec::new());
                let view = View { connection, controller, session, answer, selected };
                if self.live.views[stream as usize].replace(Box::new(view)).is_none() {
                    self.changed(Field::StreamingStatus(stream), None);
                }
                return Ok(());
            }
            Ok(SetupAnswer::Busy(_)) | Err(Refusal::Busy) => Refusal::Busy,
            Ok(SetupAnswer::Error(_) | SetupAnswer::Idle) | Err(Refusal::Error) => Refusal::Error,
        };
        if !in_use {
            self.end_views(&|n, _| n == stream);
        }
        if self.live.refused.is_full() {
            self.live.refused.remove(0);
        }
        // There is room now.
        let _ = self.live.refused.push(Refused { connection, stream, session, why });
        Ok(())
    }

    /// A write to 117.
    pub(super) fn select_stream(
        &mut self,
        stream: Stream,
        value: &Value<'_>,
        caller: &mut Caller<'_>,
    ) -> Result<(), Status> {
        let mut buf = [0; TLV_MAX];
        let tlv = tlv(value, &mut buf)?;
        let selected = SelectedStream::parse(tlv).map_err(|_| Status::InvalidValue);
        let connection = caller.connection;
        let own =
            |view: &View, selected: &SelectedStream| (view.connection, view.session) == (connection, selected.session);
        if let Ok(selected @ SelectedStream { command: Command::End, .. }) = &selected {
            // Also for what has ended already, or may not be: the controller wants it gone, and it is.
            if self.live.views[stream as usize].as_deref().is_some_and(|view| own(view, selected)) {
                let _ = caller.live_views.select(connection, stream as u8, selected);
                self.free(stream);
            }
            return Ok(());
        }
        if !self.stream_allowed(stream) {
            return Err(Status::NotAllowedNow);
        }
        let selected = selected?;
        let raw = heapless::Vec::from_slice(tlv).map_err(|_| Status::InvalidValue)?;
        let view = self.live.views[stream as usize].as_deref_mut().filter(|view| own(view, &selected));
        let view = view.ok_or(Status::InvalidValue)?;
        if view.selected == raw {
            return Ok(());
        }
        // A start comes once, and everything else after it.
        if view.is_running() == (selected.command == Command::Start) {
            return Err(Status::InvalidValue);
        }
        let rates = self.offer.stream_audio.rates();
        if selected.audio.is_some_and(|a| a.codec != STREAM_OPUS || !rates.contains(&a.rate_code)) {
            return Err(Status::InvalidValue);
        }
        caller.live_views.select(connection, stream as u8, &selected).map_err(|_| Status::InvalidValue)?;
        view.selected = raw;
        Ok(())
    }

    /// Ends the live views of a connection that is gone.
    pub(super) fn end_views_of_connection(&mut self, connection: ConnectionId) {
        self.end_views(&|_, view| view.connection == connection);
        self.live.refused.retain(|refused| refused.connection != connection);
    }

    /// Ends the live views of a controller whose pairing is removed.
    pub(in crate::hap) fn end_views_of_controller(&mut self, controller: &ControllerId) {
        self.end_views(&|_, view| view.controller == *controller);
    }

    /// Ends the live views that may not be any more.
    pub(super) fn end_views_not_allowed(&mut self) {
        for stream in STREAMS {
            if !self.stream_allowed(stream) {
                self.end_views(&|n, _| n == stream);
                self.live.refused.retain(|refused| refused.stream != stream);
            }
        }
    }

    /// Ends every live view.
    pub(super) fn end_all_views(&mut self) {
        self.end_views(&|_, _| true);
        self.live.refused.clear();
    }

    fn end_views(&mut self, which: &dyn Fn(Stream, &View) -> bool) {
        for stream in STREAMS {
            if self.live.views[stream as usize].as_deref().is_some_and(|view| which(stream, view)) {
                self.free(stream);
                self.effect(Effect::EndLiveView { view: stream as u8 });
            }
        }
    }

    /// The service is free again: 117 and 118 have their idle values.
    fn free(&mut self, stream: Stream) {
        if self.live.views[stream as usize].take().is_some() {
            self.live.refused.retain(|refused| refused.stream != stream);
            self.changed(Field::StreamingStatus(stream), None);
        }
    }
}
