//! What a description says about a stream (SDP, RFC 8866), as RTSP servers write it (RFC 2326 §C).
//! Lines that are not known, and those that are broken, are passed over: cameras write both.

/// One stream of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Media<'a> {
    /// `video`, `audio`, `application`.
    pub kind: &'a str,
    /// The payload type of its RTP packets.
    pub payload_type: u8,
    /// The encoding by its name in `a=rtpmap`, in any case; empty for the payload types that have a fixed one.
    pub encoding: &'a str,
    /// Ticks of the RTP clock in a second; 0: not said.
    pub clock_hz: u32,
    /// Channels of sound.
    pub channels: u8,
    /// The parameters of the encoding: `a=1;b=2`.
    pub fmtp: &'a str,
    /// What to append to the address for SETUP, or a whole address.
    pub control: Option<&'a str>,
    /// The server wants to receive this one (`a=sendonly` from where the client stands: ONVIF's back channel).
    pub to_server: bool,
}

/// The streams of a description, each with the payload type that the server prefers.
pub fn media(sdp: &str) -> impl Iterator<Item = Media<'_>> {
    sections(sdp).skip(1).filter_map(|text| section(text, 0))
}

/// The streams of a description with all of their payload types: of one that the server receives, the client chooses.
pub fn choices(sdp: &str) -> impl Iterator<Item = Media<'_>> {
    // Each one reads its part of the description: no more than there are (RFC 3550 §5.1).
    sections(sdp).skip(1).flat_map(|text| (0..128).map_while(move |number| section(text, number)))
}

/// `a=control` of the whole session.
pub fn session_control(sdp: &str) -> Option<&str> {
    lines(sections(sdp).next()?).find_map(|line| line.strip_prefix("a=control:"))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\r', '\n']).map(str::trim)
}

/// What stands in front of the first `m=`, then what begins with each of them.
fn sections(sdp: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(sdp);
    core::iter::from_fn(move || {
        let text = rest?;
        let (section, after) = match text.find("\nm=") {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(section)
    })
}

/// With its payload type of this number.
fn section(text: &str, number: usize) -> Option<Media<'_>> {
    // m=video 0 RTP/AVP 96 97: the first payload type is the one that the server prefers.
    let mut words = lines(text).next()?.strip_prefix("m=")?.split_ascii_whitespace();
    let (kind, payload_type) = (words.next()?, words.nth(2 + number)?.parse().ok()?);
    let mut media =
        Media { kind, payload_type, encoding: "", clock_hz: 0, channels: 1, fmtp: "", control: None, to_server: false };
    for line in lines(text) {
        let Some(attribute) = line.strip_prefix("a=") else { continue };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        let of_payload = || {
            let (number, rest) = value.split_once(' ')?;
            (number.parse() == Ok(payload_type)).then(|| rest.trim())
        };
        match name {
            "control" => media.control = Some(value),
            "sendonly" => media.to_server = true,
            "fmtp" => media.fmtp = of_payload().unwrap_or(media.fmtp),
            "rtpmap" => {
                // H264/90000, MPEG4-GENERIC/16000/1
                let Some(map) = of_payload() else { continue };
                let mut parts = map.split('/');
                media.encoding = parts.next().unwrap_or_default();
                media.clock_hz = parts.next().and_then(|hz| hz.parse().ok()).unwrap_or(0);
                media.channels = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
            }
            _ => {}
        }
    }
    Some(media)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the lines that matter as GStreamer's server and cameras write them.
    const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\na=control:rtsp://127.0.0.1:8554/ch0/\r\nt=0 0\r\n\
        m=video 0 RTP/AVP 96 97\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:97 H265/90000\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IA,aM4=\r\na=control:stream=0\r\n\
        m=audio 0 RTP/AVP 0\na=control:rtsp://127.0.0.1:8554/ch0/stream=1\n\
        m=audio 0 RTP/AVP 98\na=sendonly\na=rtpmap:98 OPUS/48000/2\na=fmtp:98\na=rtpmap:x\na\n";

    #[test]
    fn streams_of_a_description() {
        let all: Vec<_> = media(SDP).collect();
        assert_eq!(session_control(SDP), Some("rtsp://127.0.0.1:8554/ch0/"));
        assert_eq!(all.len(), 3);
        let video = Media {
            kind: "video",
            payload_type: 96,
            encoding: "H264",
            clock_hz: 90_000,
            channels: 1,
            fmtp: "packetization-mode=1;sprop-parameter-sets=Z0IA,aM4=",
            control: Some("stream=0"),
            to_server: false,
        };
        assert_eq!(all[0], video);
        assert_eq!((all[1].kind, all[1].payload_type, all[1].encoding, all[1].clock_hz), ("audio", 0, "", 0));
        assert_eq!(all[1].control, Some("rtsp://127.0.0.1:8554/ch0/stream=1"));
        let back = all[2];
        assert_eq!((back.encoding, back.clock_hz, back.channels, back.to_server), ("OPUS", 48_000, 2, true));
        assert_eq!((back.fmtp, back.control), ("", None));
        let all: Vec<_> = choices(SDP).map(|media| (media.payload_type, media.encoding)).collect();
        assert_eq!(all, [(96, "H264"), (97, "H265"), (0, ""), (98, "OPUS")]);
    }

    #[test]
    fn broken_descriptions_say_less() {
        for cut in 0..SDP.len() {
            let text = &SDP[..cut];
            assert!(media(text).count() <= 3 && choices(text).count() <= 4);
            let _ = session_control(text);
        }
        let many = format!("v=0\nm=audio 0 RTP/AVP{}\n", " 8".repeat(10_000));
        assert_eq!(choices(&many).count(), 128);
        for text in ["", "m=", "m=video", "\nm=video 0 RTP/AVP", "\nm=video 0 RTP/AVP 300", "\nm=\nm=\n"] {
            assert_eq!(media(text).count(), 0, "{text}");
        }
        let wild = "v=0\nm=video 0 RTP/AVP 96\na=rtpmap:96 H264/-1/700\na=control:\n";
        let media = media(wild).next().expect("one");
        assert_eq!((media.clock_hz, media.channels, media.control), (0, 1, Some("")));
    }
}
