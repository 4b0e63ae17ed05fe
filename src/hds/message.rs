//! What is said over a data stream: requests, responses and events of the protocols `control` and
//! `dataSend`, each a header and a body in the data format (HomeKit Data Stream, messages).

use super::frame::OVERHEAD_BYTES;
use crate::wire::hdsdata::{self, Value, put_bool, put_dictionary, put_int, put_int64, put_text};
use crate::wire::{Malformed, Writer};

/// A segment leaves in chunks of this size; only the last one is shorter.
pub const CHUNK_BYTES: usize = 0x4_0000;
/// Room for every frame but the data events.
pub const SMALL_FRAME_BYTES: usize = 256;
/// Room for a frame with a full chunk, whatever the numbers in it.
pub const FRAME_BYTES: usize = OVERHEAD_BYTES + DATA_HEAD_MAX + CHUNK_BYTES + DATA_TAIL_MAX;

/// The longest protocol or topic that is answered by name; what is longer is none that we know of.
pub const NAME_MAX: usize = 32;

const CONTROL: &str = "control";
const DATA_SEND: &str = "dataSend";
const HELLO: &str = "hello";
const OPEN: &str = "open";
const DATA: &str = "data";
const ACK: &str = "ack";
const CLOSE: &str = "close";

/// The status in the header of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Success = 0,
    /// The header lacks something, or its topic is unknown.
    HeaderError = 3,
    /// The body cannot be read or lacks something.
    PayloadError = 4,
    /// The protocol is missing or unknown.
    MissingProtocol = 5,
    /// The body says why, as a [`Reason`].
    ProtocolSpecific = 6,
}

/// Why a recording is refused or closed: the number on the wire, known or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reason(pub i64);

impl Reason {
    /// Nothing went wrong.
    pub const NORMAL: Reason = Reason(0);
    /// The camera is off or does not record.
    pub const NOT_ALLOWED: Reason = Reason(1);
    /// Another recording is running.
    pub const BUSY: Reason = Reason(2);
    /// Given up on purpose.
    pub const CANCELLED: Reason = Reason(3);
    /// Something that is not offered.
    pub const UNSUPPORTED: Reason = Reason(4);
    /// The encoder failed, or the request makes no sense.
    pub const UNEXPECTED_FAILURE: Reason = Reason(5);
    /// Not in time.
    pub const TIMEOUT: Reason = Reason(6);
    /// Media that cannot be read.
    pub const BAD_DATA: Reason = Reason(7);
    /// Against the rules of the protocol.
    pub const PROTOCOL_ERROR: Reason = Reason(8);
    /// No recording configuration was selected.
    pub const INVALID_CONFIGURATION: Reason = Reason(9);
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const NAMES: [&str; 10] = [
            "normal",
            "not allowed",
            "busy",
            "cancelled",
            "unsupported",
            "unexpected failure",
            "timeout",
            "bad data",
            "protocol error",
            "invalid configuration",
        ];
        let name = usize::try_from(self.0).ok().and_then(|at| NAMES.get(at)).unwrap_or(&"unknown");
        write!(f, "{} {name}", self.0)
    }
}

/// A message of the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// `control/hello`: must be the first one, is answered with success.
    Hello {
        /// Number of the request.
        id: i64,
    },
    /// `dataSend/open`: the hub wants a recording.
    Open {
        /// Number of the request.
        id: i64,
        /// The hub's number for the stream; each event of it carries it.
        stream_id: i64,
        /// What is to be sent, `ipcamera.recording`.
        kind: &'a str,
        /// Who takes it, `controller`.
        target: &'a str,
        /// The hub's words, for the log.
        reason: &'a str,
    },
    /// `dataSend/ack`: the hub has all of the stream.
    Ack {
        /// The stream.
        stream_id: i64,
        /// Whether the end was seen.
        end_of_stream: bool,
    },
    /// `dataSend/close`: the hub wants no more.
    Close {
        /// The stream.
        stream_id: i64,
        /// Why.
        reason: Reason,
    },
    /// A request that gets nothing but a status.
    Refused {
        /// Number of the request.
        id: i64,
        /// As in the request, empty when missing.
        protocol: &'a str,
        /// As in the request.
        topic: &'a str,
        /// What is wrong with it.
        status: Status,
    },
    /// An event that means nothing to us, or a response: we ask nothing.
    Ignored,
}

/// Reads the payload of a frame.
///
/// # Errors
/// What cannot even be answered: a header that is no header, or an event whose body is broken.
pub fn parse(payload: &[u8]) -> Result<Message<'_>, Malformed> {
    let (&n, rest) = payload.split_first().ok_or(Malformed("an empty payload"))?;
    let (header, body) = rest.split_at_checked(n.into()).ok_or(Malformed("a header longer than its frame"))?;

    let (mut protocol, mut request, mut event, mut response, mut id) = ("", None, None, false, None);
    hdsdata::walk_dictionary(header, |key, value| match key {
        "protocol" => protocol = value.text().unwrap_or(""),
        "request" => request = value.text(),
        "event" => event = value.text(),
        "response" => response = true,
        "id" => id = value.int(),
        _ => {}
    })?;
    match (request, event) {
        (Some(topic), _) => {
            let id = id.ok_or(Malformed("a request without a number"))?;
            Ok(parse_request(id, protocol, topic, body))
        }
        (None, Some(topic)) => parse_event(protocol, topic, body),
        (None, None) if response => Ok(Message::Ignored),
        (None, None) => Err(Malformed("neither a request nor an event nor a response")),
    }
}

fn parse_request<'a>(id: i64, protocol: &'a str, topic: &'a str, body: &'a [u8]) -> Message<'a> {
    let refused = |status| Message::Refused { id, protocol, topic, status };
    match (protocol, topic) {
        (CONTROL, HELLO) => match hdsdata::walk_dictionary(body, |_, _| ()) {
            Ok(()) => Message::Hello { id },
            Err(_) => refused(Status::PayloadError),
        },
        (DATA_SEND, OPEN) => {
            let (mut stream_id, mut kind, mut target, mut reason) = (None, "", "", "");
            let walked = hdsdata::walk_dictionary(body, |key, value| match key {
                "streamId" => stream_id = value.int(),
                "type" => kind = value.text().unwrap_or(""),
                "target" => target = value.text().unwrap_or(""),
                "reason" => reason = value.text().unwrap_or(""),
                _ => {}
            });
            match (walked, stream_id) {
                (Ok(()), Some(stream_id)) => Message::Open { id, stream_id, kind, target, reason },
                _ => refused(Status::PayloadError),
            }
        }
        (CONTROL | DATA_SEND, _) => refused(Status::HeaderError),
        _ => refused(Status::MissingProtocol),
    }
}

fn parse_event<'a>(protocol: &str, topic: &str, body: &[u8]) -> Result<Message<'a>, Malformed> {
    if protocol != DATA_SEND || !matches!(topic, ACK | CLOSE) {
        return Ok(Message::Ignored);
    }
    let (mut stream_id, mut end_of_stream, mut reason) = (None, false, Reason::NORMAL);
    hdsdata::walk_dictionary(body, |key, value| match (key, value) {
        ("streamId", Value::Int(v)) => stream_id = Some(v),
        ("endOfStream", Value::Bool(v)) => end_of_stream = v,
        ("reason", Value::Int(v)) => reason = Reason(v),
        _ => {}
    })?;
    let stream_id = stream_id.ok_or(Malformed("an event of no stream"))?;
    Ok(if topic == ACK { Message::Ack { stream_id, end_of_stream } } else { Message::Close { stream_id, reason } })
}

/// Emits the answer to a hello.
pub fn put_hello(w: &mut Writer<'_>, id: i64) {
    put_response(w, CONTROL, HELLO, id, Status::Success);
    put_dictionary(w, 0, |_| ());
}

/// Emits the answer to an open: [`Reason::NORMAL`] accepts, anything else refuses.
pub fn put_open(w: &mut Writer<'_>, id: i64, reason: Reason) {
    let status = if reason == Reason::NORMAL { Status::Success } else { Status::ProtocolSpecific };
    put_response(w, DATA_SEND, OPEN, id, status);
    put_dictionary(w, 1, |w| {
        put_text(w, "status");
        put_int(w, reason.0);
    });
}

/// Emits the answer to a request that gets nothing but a status.
pub fn put_refused(w: &mut Writer<'_>, protocol: &str, topic: &str, id: i64, status: Status) {
    put_response(w, protocol, topic, id, status);
    put_dictionary(w, 0, |_| ());
}

/// Emits the event that closes a stream.
pub fn put_close(w: &mut Writer<'_>, stream_id: i64, reason: Reason) {
    put_event(w, CLOSE);
    put_dictionary(w, 2, |w| {
        put_text(w, "streamId");
        put_int(w, stream_id);
        put_text(w, "reason");
        put_int(w, reason.0);
    });
}

/// One chunk of a segment, as the metadata of its data event tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The stream.
    pub stream_id: i64,
    /// `dataSequenceNumber`: 1 is the initialization segment, all others are fragments.
    pub sequence: u32,
    /// `dataChunkSequenceNumber`, from 1 in each segment.
    pub number: u32,
    /// Length of the chunk in bytes.
    pub bytes: usize,
    /// Length of the whole segment in bytes; told in its first chunk.
    pub total_bytes: usize,
    /// `Some` in the last chunk of the segment: whether the stream ends with it.
    pub end_of_stream: Option<bool>,
}

/// Emits what stands before the bytes of a chunk.
pub fn put_data_head(w: &mut Writer<'_>, chunk: &Chunk) {
    put_event(w, DATA);
    // The containers stay open: their counts stand in front, and the rest is the tail.
    put_dictionary(w, if chunk.end_of_stream.is_some() { 3 } else { 2 }, |_| ());
    put_text(w, "streamId");
    put_int(w, chunk.stream_id);
    put_text(w, "packets");
    hdsdata::put_array(w, 1, |_| ());
    put_dictionary(w, 2, |_| ());
    put_text(w, "data");
    hdsdata::put_data_length(w, chunk.bytes);
}

/// Emits what stands behind the bytes of a chunk.
pub fn put_data_tail(w: &mut Writer<'_>, chunk: &Chunk) {
    put_text(w, "metadata");
    put_dictionary(w, if chunk.number == 1 { 5 } else { 4 }, |w| {
        put_text(w, "dataType");
        put_text(w, if chunk.sequence == 1 { "mediaInitialization" } else { "mediaFragment" });
        put_text(w, "dataSequenceNumber");
        put_int(w, chunk.sequence.into());
        put_text(w, "isLastDataChunk");
        put_bool(w, chunk.end_of_stream.is_some());
        put_text(w, "dataChunkSequenceNumber");
        put_int(w, chunk.number.into());
        if chunk.number == 1 {
            put_text(w, "dataTotalSize");
            put_int(w, chunk.total_bytes as i64);
        }
    });
    if let Some(end) = chunk.end_of_stream {
        put_text(w, "endOfStream");
        put_bool(w, end);
    }
}

/// Header of a data event (with its length), then the body up to the data, in the widest forms.
const DATA_HEAD_MAX: usize = 1 + 30 + 1 + (9 + 9) + 8 + 1 + 1 + 5 + 5;
/// The metadata with a fragment's or an init's type and five numbers, then `endOfStream`.
const DATA_TAIL_MAX: usize = 9 + 1 + (9 + 20) + (19 + 9) + (16 + 1) + (24 + 9) + (14 + 9) + (12 + 1);

fn put_response(w: &mut Writer<'_>, protocol: &str, topic: &str, id: i64, status: Status) {
    put_header(w, 4, |w| {
        put_text(w, "protocol");
        put_text(w, protocol);
        put_text(w, "response");
        put_text(w, topic);
        put_text(w, "id");
        put_int64(w, id);
        put_text(w, "status");
        put_int64(w, (status as u8).into());
    });
}

fn put_event(w: &mut Writer<'_>, topic: &str) {
    put_header(w, 2, |w| {
        put_text(w, "protocol");
        put_text(w, DATA_SEND);
        put_text(w, "event");
        put_text(w, topic);
    });
}

fn put_header(w: &mut Writer<'_>, pairs: usize, body: impl FnOnce(&mut Writer<'_>)) {
    let at = w.len();
    w.u8(0);
    put_dictionary(w, pairs, body);
    let n = w.len() - at;
    // Two names of NAME_MAX and all the rest stay below 255.
    if let Some(length) = w.written_mut().get_mut(at) {
        *length = (n - 1) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Key;
    use crate::crypto::aead::SealKey;
    use crate::hds::frame;
    use crate::hds::vectors::{unhex, vectors};

    fn emit(f: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut room = vec![0; FRAME_BYTES];
        let mut w = Writer::new(&mut room);
        f(&mut w);
        w.finish().unwrap().to_vec()
    }

    #[test]
    fn golden_messages_of_the_hub_are_read() {
        let v = vectors();
        let read: Vec<_> = v["session"].as_array().unwrap().iter().filter(|m| m["direction"] == "c2a").collect();
        let payloads: Vec<_> = read.iter().map(|m| unhex(&m["payload"])).collect();
        let read: Vec<_> = payloads.iter().map(|p| parse(p).unwrap()).collect();
        assert_eq!(
            read,
            [
                Message::Hello { id: 0xb2d0_5e01 },
                Message::Open {
                    id: 42,
                    stream_id: 1,
                    kind: "ipcamera.recording",
                    target: "controller",
                    reason: "motion"
                },
                Message::Ack { stream_id: 1, end_of_stream: true },
                Message::Close { stream_id: 1, reason: Reason::NORMAL },
            ]
        );
    }

    #[test]
    fn golden_answers_are_emitted() {
        let v = vectors();
        let payload = |at: usize| unhex(&v["session"][at]["payload"]);
        assert_eq!(emit(|w| put_hello(w, 0xb2d0_5e01)), payload(1));
        assert_eq!(emit(|w| put_open(w, 42, Reason::NORMAL)), payload(3));
        assert_eq!(emit(|w| put_close(w, 1, Reason::NOT_ALLOWED)), payload(10));
        for refused in v["open_rejections"].as_array().unwrap() {
            let reason = Reason(refused["reason"].as_i64().unwrap());
            assert_eq!(emit(|w| put_open(w, 42, reason)), unhex(&refused["payload"]), "{}", refused["name"]);
        }
    }

    /// The whole session of the vectors, one counter over all frames, compared frame by frame.
    #[test]
    fn golden_data_events_are_emitted_and_sealed() {
        let v = vectors();
        let mut key = SealKey::new(&Key::new(unhex(&v["keys"]["a2c_key"]).try_into().unwrap()));
        let mut out = vec![0; FRAME_BYTES];
        let mut sealed = |payload: &[u8]| {
            out[frame::HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
            let n = frame::seal(&mut key, &mut out, payload.len()).unwrap();
            out[..n].to_vec()
        };
        sealed(&emit(|w| put_hello(w, 0xb2d0_5e01)));
        sealed(&emit(|w| put_open(w, 42, Reason::NORMAL)));

        let chunk = |sequence, number, bytes: &[u8], total_bytes, end_of_stream| {
            let chunk = Chunk { stream_id: 1, sequence, number, bytes: bytes.len(), total_bytes, end_of_stream };
            emit(|w| {
                put_data_head(w, &chunk);
                w.bytes(bytes);
                put_data_tail(w, &chunk);
            })
        };
        let init = chunk(1, 1, &unhex(&v["session_inputs"]["init"]), 900, Some(false));
        assert_eq!(init, unhex(&v["session"][4]["payload"]));
        assert_eq!(sealed(&init), unhex(&v["session"][4]["frame"]));

        let fragment = fragment_of_the_vectors();
        let total = fragment.len();
        for (at, payload) in [
            (5, chunk(2, 1, &fragment[..CHUNK_BYTES], total, None)),
            (6, chunk(2, 2, &fragment[CHUNK_BYTES..], total, Some(false))),
        ] {
            let expected = &v["session"][at];
            assert_eq!(payload.len(), expected["payload_len"].as_u64().unwrap() as usize);
            assert!(payload.starts_with(&unhex(&expected["payload_head"])));
            let frame = sealed(&payload);
            assert!(frame.starts_with(&unhex(&expected["frame_head"])));
            assert!(frame.ends_with(&unhex(&expected["frame_tag"])));
            assert_eq!(ring::digest::digest(&ring::digest::SHA256, &frame).as_ref(), unhex(&expected["frame_sha256"]));
        }

        let last = chunk(3, 1, &unhex(&v["session_inputs"]["last_fragment"]), 700, Some(true));
        assert_eq!(sealed(&last), unhex(&v["session"][7]["frame"]));
        assert_eq!(sealed(&emit(|w| put_close(w, 1, Reason::NOT_ALLOWED))), unhex(&v["session"][10]["frame"]));
    }

    /// "det('fragment', n)" of the vectors: SHA-256 of the name and a counter, one after the other.
    fn fragment_of_the_vectors() -> Vec<u8> {
        let n = vectors()["session_inputs"]["fragment_len"].as_u64().unwrap() as usize;
        let block = |i: u32| {
            let seed = [b"hksvd-vector:fragment", &i.to_le_bytes()[..]].concat();
            ring::digest::digest(&ring::digest::SHA256, &seed).as_ref().to_vec()
        };
        let mut bytes: Vec<u8> = (0..n.div_ceil(32) as u32).flat_map(block).collect();
        bytes.truncate(n);
        bytes
    }

    #[test]
    fn the_frame_buffer_is_exactly_as_large_as_the_widest_event() {
        let widest = Chunk {
            stream_id: i64::MAX,
            sequence: u32::MAX,
            number: 1,
            bytes: CHUNK_BYTES,
            total_bytes: usize::MAX >> 1,
            end_of_stream: Some(true),
        };
        let (head, tail) = (emit(|w| put_data_head(w, &widest)), emit(|w| put_data_tail(w, &widest)));
        assert_eq!(head.len(), DATA_HEAD_MAX);
        // Only the sequence numbers are less wide here: chunk 1 is a small number, an init sequence 1.
        // With 32-bit addresses a total takes four bytes less, too.
        let narrower = 8 - size_of::<usize>();
        assert_eq!(tail.len() + 8 + 6 + narrower, DATA_TAIL_MAX);
        const { assert!(FRAME_BYTES < frame::PAYLOAD_MAX) };
        let name = "n".repeat(NAME_MAX);
        let refused = emit(|w| put_refused(w, &name, &name, i64::MIN, Status::MissingProtocol));
        assert!(refused.len() + OVERHEAD_BYTES <= SMALL_FRAME_BYTES);
        assert_eq!(usize::from(refused[0]) + 2, refused.len());
    }

    fn message(header: &[u8], body: &[u8]) -> Vec<u8> {
        [&[header.len() as u8], header, body].concat()
    }

    #[test]
    fn what_is_asked_wrongly_gets_a_status() {
        let status = |header: &[u8], body: &[u8]| match parse(&message(header, body)).unwrap() {
            Message::Refused { id: 7, status, .. } => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(b"\xe3\x48protocol\x41x\x47request\x44open\x42id\x0f", b"\xe0"), Status::MissingProtocol);
        assert_eq!(status(b"\xe2\x47request\x44open\x42id\x0f", b"\xe0"), Status::MissingProtocol);
        let data_send = b"\xe3\x48protocol\x48dataSend\x47request\x44open\x42id\x0f";
        assert_eq!(status(data_send, b"\xe0"), Status::PayloadError, "no stream");
        assert_eq!(status(data_send, b"\xe1\x48streamId\x41a"), Status::PayloadError, "a stream that is no number");
        assert_eq!(status(data_send, b"\xe1\x48streamId"), Status::PayloadError, "cut");
        assert_eq!(status(b"\xe3\x48protocol\x48dataSend\x47request\x44shut\x42id\x0f", b"\xe0"), Status::HeaderError);
        assert_eq!(status(b"\xe3\x48protocol\x47control\x47request\x45hello\x42id\x0f", b"\xe1"), Status::PayloadError);
    }

    #[test]
    fn what_cannot_be_answered_is_malformed_or_ignored() {
        for (header, body) in [
            (&b""[..], &b"\xe0"[..]),
            (b"\xe0", b"\xe0"),
            (b"\xe2\x48protocol\x47control\x47request\x45hello", b"\xe0"),
            (b"\xe2\x48protocol\x48dataSend\x45event\x45close", b"\xe0"),
            (b"\xe2\x48protocol\x48dataSend\x45event\x43ack", b"\xe1\x48streamId"),
            (b"\xd0", b"\xe0"),
        ] {
            assert!(parse(&message(header, body)).is_err(), "{header:?}");
        }
        assert!(parse(&[]).is_err());
        assert!(parse(&[5, 0xe0]).is_err());
        for header in [&b"\xe2\x48protocol\x48dataSend\x45event\x44data"[..], b"\xe1\x48response\x44open"] {
            assert_eq!(parse(&message(header, b"\xe0")), Ok(Message::Ignored));
        }
    }

    #[test]
    fn keys_in_any_order_and_unknown_ones_are_read() {
        let header = b"\xe5\x42id\x0f\x41x\xd1\xe0\x47request\x45hello\x41y\x04\x48protocol\x47control";
        assert_eq!(parse(&message(header, b"\xef\x03")), Ok(Message::Hello { id: 7 }));
    }
}
