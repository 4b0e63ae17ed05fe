//! A home hub as the tests see it: the data stream client and a reader of what it is sent, written
//! from the protocol and not from the crate, which lends nothing but its crypto. Sans-IO, so that it
//! plays in virtual time as well as over a socket.
//!
//! It is strict: whatever a hub may stumble over is a panic.
#![allow(dead_code)] // each test takes what it needs

use hksvd::crypto::aead::{OpenKey, SealKey};
use hksvd::crypto::{SharedSecret, hkdf_sha512};

const CHUNK: usize = 0x40000;

/// A value of the data format.
#[derive(Clone, PartialEq, Debug)]
pub enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Data(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub fn at(&self, key: &str) -> Option<&Tree> {
        match self {
            Tree::Map(pairs) => pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn int(&self, key: &str) -> i64 {
        match self.at(key) {
            Some(Tree::Int(v)) => *v,
            other => panic!("{key} is {other:?}"),
        }
    }

    pub fn text(&self, key: &str) -> &str {
        match self.at(key) {
            Some(Tree::Text(v)) => v,
            other => panic!("{key} is {other:?}"),
        }
    }

    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.at(key) {
            Some(Tree::Bool(v)) => Some(*v),
            None => None,
            other => panic!("{key} is {other:?}"),
        }
    }

    /// Reads the one value in `bytes`.
    pub fn read(mut bytes: &[u8]) -> Tree {
        let tree = Self::read_one(&mut bytes);
        assert!(bytes.is_empty(), "{} bytes behind the value", bytes.len());
        tree
    }

    fn read_one(rest: &mut &[u8]) -> Tree {
        fn take<'a>(rest: &mut &'a [u8], n: usize) -> &'a [u8] {
            let (taken, behind) = rest.split_at(n);
            *rest = behind;
            taken
        }
        fn number(rest: &mut &[u8], width: usize) -> i64 {
            let bytes = take(rest, width);
            let mut wide = [if bytes[width - 1] & 0x80 != 0 { 0xff } else { 0 }; 8];
            wide[..width].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        }
        fn length(rest: &mut &[u8], width: usize) -> usize {
            take(rest, width).iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
        }
        let text = |bytes: &[u8]| Tree::Text(String::from_utf8(bytes.to_vec()).expect("UTF-8"));
        let list = |rest: &mut &[u8], n| Tree::List((0..n).map(|_| Self::read_one(rest)).collect());
        let map = |rest: &mut &[u8], n| {
            let pair = |_| match Self::read_one(rest) {
                Tree::Text(key) => (key, Self::read_one(rest)),
                other => panic!("{other:?} as a key"),
            };
            Tree::Map((0..n).map(pair).collect())
        };
        match take(rest, 1)[0] {
            0x01 => Tree::Bool(true),
            0x02 => Tree::Bool(false),
            0x04 => Tree::Null,
            tag @ 0x07..=0x2e => Tree::Int(i64::from(tag) - 8),
            tag @ 0x30..=0x33 => Tree::Int(number(rest, 1 << (tag - 0x30))),
            tag @ 0x40..=0x60 => text(take(rest, usize::from(tag - 0x40))),
            tag @ 0x61..=0x64 => {
                let n = length(rest, 1 << (tag - 0x61));
                text(take(rest, n))
            }
            tag @ 0x70..=0x90 => Tree::Data(take(rest, usize::from(tag - 0x70)).to_vec()),
            tag @ 0x91..=0x94 => {
                let n = length(rest, 1 << (tag - 0x91));
                Tree::Data(take(rest, n).to_vec())
            }
            tag @ 0xd0..=0xdc => list(rest, tag - 0xd0),
            tag @ 0xe0..=0xee => map(rest, tag - 0xe0),
            tag => panic!("tag {tag:02x}: nothing that an accessory writes"),
        }
    }

    /// Writes it, with the wide numbers that hubs use.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Tree::Null => out.push(4),
            Tree::Bool(v) => out.push(if *v { 1 } else { 2 }),
            Tree::Int(v) => {
                out.push(0x33);
                out.extend_from_slice(&v.to_le_bytes());
            }
            Tree::Text(v) => {
                out.extend_from_slice(&[0x61, v.len() as u8]);
                out.extend_from_slice(v.as_bytes());
            }
            Tree::Data(v) => {
                out.push(0x93);
                out.extend_from_slice(&(v.len() as u32).to_le_bytes());
                out.extend_from_slice(v);
            }
            Tree::List(v) => {
                out.push(0xdf);
                v.iter().for_each(|v| v.write(out));
                out.push(3);
            }
            Tree::Map(v) => {
                out.push(0xef);
                for (key, value) in v {
                    Tree::Text(key.clone()).write(out);
                    value.write(out);
                }
                out.push(3);
            }
        }
    }
}

pub fn map<const N: usize>(pairs: [(&str, Tree); N]) -> Tree {
    Tree::Map(pairs.map(|(key, value)| (key.to_string(), value)).to_vec())
}

pub fn text(v: &str) -> Tree {
    Tree::Text(v.to_string())
}

/// What the accessory has said.
#[derive(Clone, PartialEq, Debug)]
pub enum Heard {
    Response {
        protocol: String,
        topic: String,
        id: i64,
        status: i64,
        body: Tree,
    },
    /// A whole segment, its chunks put together.
    Segment(Segment),
    Close {
        stream_id: i64,
        reason: i64,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub struct Segment {
    pub stream_id: i64,
    pub sequence: i64,
    pub is_init: bool,
    pub chunks: usize,
    pub bytes: Vec<u8>,
    pub end_of_stream: bool,
}

/// A data stream connection from the hub's side.
pub struct Hub {
    seal: SealKey,
    open: OpenKey,
    received: Vec<u8>,
    next_id: i64,
    segment: Option<(Segment, usize)>,
    /// Sequence of the segment that must come next in the stream that is open.
    expected: i64,
    ended: bool,
}

impl Hub {
    /// The hub's half of what was agreed over HAP.
    pub fn new(shared: &SharedSecret, controller_salt: &[u8; 32], accessory_salt: &[u8; 32]) -> Hub {
        let salt = [&controller_salt[..], accessory_salt].concat();
        let key = |label: &[u8]| hkdf_sha512(shared.as_bytes(), &salt, label);
        Hub {
            seal: SealKey::new(&key(b"HDS-Write-Encryption-Key")),
            open: OpenKey::new(&key(b"HDS-Read-Encryption-Key")),
            received: Vec::new(),
            next_id: 1000,
            segment: None,
            expected: 1,
            ended: false,
        }
    }

    /// A sealed frame of this header and body.
    pub fn frame(&mut self, header: &Tree, body: &Tree) -> Vec<u8> {
        let mut head = Vec::new();
        header.write(&mut head);
        let mut payload = vec![head.len() as u8];
        payload.extend_from_slice(&head);
        body.write(&mut payload);
        self.sealed(payload)
    }

    /// A sealed frame of this payload, sense or not.
    pub fn sealed(&mut self, mut payload: Vec<u8>) -> Vec<u8> {
        let mut frame = (payload.len() as u32 | 0x0100_0000).to_be_bytes().to_vec();
        let tag = self.seal.seal(&frame, &mut payload);
        frame.extend_from_slice(&payload);
        frame.extend_from_slice(&tag);
        frame
    }

    /// A request; its number is one more than that of the last one.
    pub fn request(&mut self, protocol: &str, topic: &str, body: &Tree) -> Vec<u8> {
        self.next_id += 1;
        let header = map([("protocol", text(protocol)), ("request", text(topic)), ("id", Tree::Int(self.next_id))]);
        self.frame(&header, body)
    }

    pub fn event(&mut self, topic: &str, body: &Tree) -> Vec<u8> {
        self.frame(&map([("protocol", text("dataSend")), ("event", text(topic))]), body)
    }

    pub fn hello(&mut self) -> Vec<u8> {
        self.request("control", "hello", &map([]))
    }

    pub fn open(&mut self, stream_id: i64) -> Vec<u8> {
        self.expected = 1;
        self.ended = false;
        self.segment = None;
        self.open_of(stream_id, "ipcamera.recording", "controller")
    }

    /// Another open while a stream is running, or one that makes no sense.
    pub fn open_of(&mut self, stream_id: i64, kind: &str, target: &str) -> Vec<u8> {
        let body = map([
            ("streamId", Tree::Int(stream_id)),
            ("type", text(kind)),
            ("target", text(target)),
            ("reason", text("motion")),
        ]);
        self.request("dataSend", "open", &body)
    }

    pub fn ack(&mut self, stream_id: i64) -> Vec<u8> {
        self.event("ack", &map([("endOfStream", Tree::Bool(true)), ("streamId", Tree::Int(stream_id))]))
    }

    pub fn close(&mut self, stream_id: i64, reason: i64) -> Vec<u8> {
        self.event("close", &map([("streamId", Tree::Int(stream_id)), ("reason", Tree::Int(reason))]))
    }

    /// Number of the last request.
    pub fn last_id(&self) -> i64 {
        self.next_id
    }

    /// Takes bytes of the connection, however they are cut, and says what they amount to.
    pub fn received(&mut self, bytes: &[u8]) -> Vec<Heard> {
        self.received.extend_from_slice(bytes);
        let mut heard = Vec::new();
        while let Some(header) = self.received.first_chunk::<4>() {
            assert_eq!(header[0], 1, "frame type");
            let payload = (u32::from_be_bytes(*header) & 0xff_ffff) as usize;
            assert!(payload <= 0xf_ffff, "a frame of {payload} bytes");
            if self.received.len() < payload + 20 {
                break;
            }
            let mut frame: Vec<u8> = self.received.drain(..payload + 20).collect();
            let (header, rest) = frame.split_at_mut(4);
            let payload = self.open.open(header, rest).expect("a frame that opens");
            let (head, body) = payload[1..].split_at(payload[0].into());
            heard.extend(self.message(&Tree::read(head), Tree::read(body)));
        }
        heard
    }

    fn message(&mut self, header: &Tree, body: Tree) -> Option<Heard> {
        if header.at("response").is_some() {
            assert!(self.segment.is_none() || header.at("event").is_none());
            return Some(Heard::Response {
                protocol: header.text("protocol").to_string(),
                topic: header.text("response").to_string(),
                id: header.int("id"),
                status: header.int("status"),
                body,
            });
        }
        assert_eq!(header.text("protocol"), "dataSend");
        match header.text("event") {
            "close" => {
                self.segment = None;
                Some(Heard::Close { stream_id: body.int("streamId"), reason: body.int("reason") })
            }
            "data" => self.chunk(&body).map(Heard::Segment),
            other => panic!("event {other}"),
        }
    }

    /// Every rule of the data event.
    fn chunk(&mut self, body: &Tree) -> Option<Segment> {
        assert!(!self.ended, "data after the end of the stream");
        let Some(Tree::List(packets)) = body.at("packets") else { panic!("no packets in {body:?}") };
        let [packet] = &packets[..] else { panic!("{} packets in an event", packets.len()) };
        let Some(Tree::Data(data)) = packet.at("data") else { panic!("no data") };
        let metadata = packet.at("metadata").expect("metadata");
        let sequence = metadata.int("dataSequenceNumber");
        let number = metadata.int("dataChunkSequenceNumber");
        let is_last = metadata.bool("isLastDataChunk").expect("isLastDataChunk");
        let is_init = metadata.text("dataType") == "mediaInitialization";
        assert!(is_init || metadata.text("dataType") == "mediaFragment");
        assert_eq!(sequence, self.expected, "dataSequenceNumber");
        assert_eq!(is_init, sequence == 1, "init first and only first");
        assert!(!data.is_empty() && data.len() <= CHUNK);
        assert!(is_last || data.len() == CHUNK, "a short chunk that is not the last");
        assert_eq!(body.bool("endOfStream").is_some(), is_last, "endOfStream belongs into the last chunk");
        assert_eq!(metadata.at("dataTotalSize").is_some(), number == 1, "dataTotalSize belongs into chunk 1");

        let (mut segment, total) = match self.segment.take() {
            Some(running) => running,
            None => {
                let stream_id = body.int("streamId");
                let total = metadata.int("dataTotalSize") as usize;
                let empty =
                    Segment { stream_id, sequence, is_init, chunks: 0, bytes: Vec::new(), end_of_stream: false };
                (empty, total)
            }
        };
        assert_eq!(segment.stream_id, body.int("streamId"));
        segment.chunks += 1;
        assert_eq!(number as usize, segment.chunks, "dataChunkSequenceNumber");
        segment.bytes.extend_from_slice(data);
        if !is_last {
            self.segment = Some((segment, total));
            return None;
        }
        assert_eq!(segment.bytes.len(), total, "dataTotalSize");
        self.expected += 1;
        segment.end_of_stream = body.bool("endOfStream") == Some(true);
        assert!(!(is_init && segment.end_of_stream), "the end of the stream on an init segment");
        self.ended = segment.end_of_stream;
        Some(segment)
    }
}

/// The boxes of `bytes`: type and content.
pub fn boxes(mut bytes: &[u8]) -> Vec<(&str, &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let size = u32::from_be_bytes(*bytes.first_chunk().expect("a box")) as usize;
        all.push((core::str::from_utf8(&bytes[4..8]).expect("a box type"), &bytes[8..size]));
        bytes = &bytes[size..];
    }
    all
}

fn one<'a>(bytes: &'a [u8], name: &str) -> &'a [u8] {
    let found: Vec<_> = boxes(bytes).into_iter().filter(|(n, _)| *n == name).collect();
    assert_eq!(found.len(), 1, "{name}");
    found[0].1
}

/// What one track of a fragment says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub track: u32,
    pub start: u64,
    pub duration: u64,
    pub samples: Vec<Vec<u8>>,
    pub first_is_sync: bool,
}

/// Tracks of an init segment.
pub fn tracks(init: &[u8]) -> usize {
    assert_eq!(boxes(init).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ftyp", "moov"]);
    boxes(one(init, "moov")).iter().filter(|(name, _)| *name == "trak").count()
}

/// The runs of a fragment, which is one `moof` and one `mdat`.
pub fn runs(fragment: &[u8]) -> Vec<Run> {
    assert_eq!(boxes(fragment).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["moof", "mdat"]);
    let word = |b: &[u8], at: usize| u32::from_be_bytes(b[at..at + 4].try_into().unwrap());
    let trafs = boxes(one(fragment, "moof")).into_iter().filter(|(name, _)| *name == "traf");
    trafs
        .map(|(_, traf)| {
            let (tfhd, tfdt, trun) = (one(traf, "tfhd"), one(traf, "tfdt"), one(traf, "trun"));
            assert_eq!(tfdt[0], 1, "version of tfdt");
            let (tfhd_flags, flags) = (word(tfhd, 0) & 0xff_ffff, word(trun, 0) & 0xff_ffff);
            let mut at = 8;
            let mut next = |wanted: u32| {
                (flags & wanted != 0).then(|| {
                    at += 4;
                    word(trun, at - 4)
                })
            };
            let mut defaults = 8;
            let mut default = |wanted: u32| {
                (tfhd_flags & wanted != 0).then(|| {
                    defaults += 4;
                    word(tfhd, defaults - 4)
                })
            };
            let (default_duration, default_size, default_flags) = (default(0x8), default(0x10), default(0x20));
            let mut data_at = next(0x1).expect("a data offset") as usize;
            let first_flags = next(0x4);
            let mut run = Run {
                track: word(tfhd, 4),
                start: u64::from(word(tfdt, 4)) << 32 | u64::from(word(tfdt, 8)),
                duration: 0,
                samples: Vec::new(),
                first_is_sync: false,
            };
            for i in 0..word(trun, 4) {
                let duration = next(0x100).or(default_duration).expect("a duration");
                let size = next(0x200).or(default_size).expect("a size") as usize;
                let sample_flags = next(0x400).or(if i == 0 { first_flags } else { None }).or(default_flags);
                if i == 0 {
                    run.first_is_sync = sample_flags.expect("sample flags") & 0x1_0000 == 0;
                }
                run.duration += u64::from(duration);
                run.samples.push(fragment[data_at..data_at + size].to_vec());
                data_at += size;
            }
            run
        })
        .collect()
}
