//! What is said over the control sockets of the streamer Raptor (RSS): a length of 16 bits in network byte order and
//! JSON; one request and one answer a connection. (raptor-ipc's rss_ctrl.c, `rvd`'s rvd_ctrl.c)

use super::Malformed;
use super::json::read::{Event, Next, read};
use core::ops::Range;

/// What an encoder is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Bits a second.
    pub bitrate_bps: u32,
    /// Pictures from one key frame to the next.
    pub gop: u32,
    /// Pictures a second; 0 when it does not say.
    pub fps: u32,
}

/// Asks for the settings of all channels.
pub const STATUS: &str = r#"{"cmd":"status"}"#;

/// Less than this is no bitrate, or not in bits a second.
const LEAST_BPS: u32 = 32_000;

/// Sets one thing of a channel: `command` is `set-bitrate` (bits a second) or `set-gop` (pictures).
pub fn setting(command: &str, channel: u8, value: u32) -> String {
    format!(r#"{{"cmd":"{command}","channel":{channel},"value":{value}}}"#)
}

/// A request as it is sent.
pub fn request(json: &str) -> Vec<u8> {
    [&(json.len() as u16).to_be_bytes(), json.as_bytes()].concat()
}

/// Finds the JSON in what has come of an answer; `None`: it is not all there.
///
/// # Errors
/// When nothing more will come (`closed`), or it is longer than `most`.
pub fn body(bytes: &[u8], closed: bool, most: usize) -> Result<Option<Range<usize>>, Malformed> {
    if let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match rest.len() {
            _ if length > most => return Err(Malformed("too long an answer")),
            there if there >= length => return Ok(Some(2..2 + length)),
            _ => {}
        }
    }
    if closed { Err(Malformed("the answer ends before its end")) } else { Ok(None) }
}

/// Those of the answer, then those of a stream.
const KEYS: [&str; 7] = ["status", "reason", "streams", "chn", "bitrate", "gop", "fps"];

/// Reads an answer: the settings of `channel` when they are in it.
///
/// # Errors
/// Why the streamer has not done it.
pub fn answer(json: &[u8], channel: u8) -> Result<Option<Settings>, String> {
    let (mut is_ok, mut reason, mut found) = (false, String::new(), None);
    // Of the stream that is being read: channel, bitrate, GOP, rate.
    let mut numbers = [None; 4];
    let (mut depth, mut key) = (0, 0);
    let read = read(json, &mut |event| {
        match event {
            Event::Key(name) => {
                let known = KEYS.iter().position(|known| *known == name);
                key = known.unwrap_or(usize::MAX);
                // Others may hold anything.
                let is_wanted = known.is_some_and(|key| if depth == 1 { key < 3 } else { key >= 3 });
                return Ok(if is_wanted { Next::Into } else { Next::Over });
            }
            Event::Object | Event::Array => {
                depth += 1;
                numbers = [None; 4];
            }
            Event::End => {
                if let (3, [Some(number), Some(bitrate), gop, fps]) = (depth, numbers)
                    && number == u32::from(channel)
                    && bitrate >= LEAST_BPS
                {
                    let (gop, fps) = (gop.unwrap_or(0), fps.unwrap_or(0));
                    found = Some(Settings { bitrate_bps: bitrate, gop, fps });
                }
                depth -= 1;
                numbers = [None; 4];
            }
            Event::Value(value) => match key {
                0 => is_ok = value.text() == Some("ok"),
                1 => reason = value.text().unwrap_or_default().into(),
                _ => {
                    let number = value.unsigned().and_then(|number| u32::try_from(number).ok());
                    if let Some(place) = key.checked_sub(3).and_then(|n| numbers.get_mut(n)) {
                        *place = number;
                    }
                }
            },
            Event::Null => {}
        }
        Ok(Next::Into)
    });
    match read {
        Ok(()) if is_ok => Ok(found),
        Ok(()) if !reason.is_empty() => Err(reason),
        _ => Err("an answer that is not understood".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_length_in_front() {
        let json = setting("set-bitrate", 1, 2_000_000);
        assert_eq!(json, r#"{"cmd":"set-bitrate","channel":1,"value":2000000}"#);
        let request = request(&json);
        assert_eq!((&request[..2], &request[2..]), (&[0, 49][..], json.as_bytes()));
    }

    #[test]
    fn the_settings_are_those_of_the_channel() {
        let json = br#"{"daemon":"rvd","streams":[
            {"chn":0,"w":1920,"h":1080,"codec":"h264","bitrate":3000000,"avg_bitrate":2900000,"gop":30,"fps":25,
             "stream_id":0,"available":true,"more":{"chn":1,"bitrate":[5]}},
            {"chn":1,"w":640,"h":360,"bitrate":1000000.0,"gop":250,"stream_id":1},
            {"chn":2,"bitrate":1000,"gop":1,"fps":1},
            {"chn":3,"bitrate":null,"gop":-1,"fps":"x"}],"status":"ok"}"#;
        let main = Settings { bitrate_bps: 3_000_000, gop: 30, fps: 25 };
        let sub = Settings { bitrate_bps: 1_000_000, gop: 250, fps: 0 };
        for (channel, settings) in [(0, Some(main)), (1, Some(sub)), (2, None), (3, None), (4, None)] {
            assert_eq!(answer(json, channel), Ok(settings), "{channel}");
        }
        assert_eq!(answer(br#"{"status":"ok"}"#, 0), Ok(None));
        let other =
            br#"{"status":"ok","sensors":[[{"chn":0,"bitrate":99000}]],"streams":[[{"chn":0,"bitrate":99000}]]}"#;
        assert_eq!(answer(other, 0), Ok(None), "deeper than it should be");
    }

    #[test]
    fn what_is_no_answer_is_said() {
        assert_eq!(answer(br#"{"status":"error","reason":"no such channel"}"#, 0), Err("no such channel".into()));
        for json in ["", "{", "[]", "{}", "5", r#"{"status":5}"#, r#"{"status":"error"}"#, r#"{"streams":5}"#] {
            assert!(answer(json.as_bytes(), 0).is_err(), "{json}");
        }
        let deep = [br#"{"status":"ok","streams":"#.as_slice(), &[b'['; 5_000]].concat();
        assert!(answer(&deep, 0).is_err());
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let bytes = [&[0, 3][..], b"abcd"].concat();
        for end in 0..5 {
            assert_eq!(body(&bytes[..end], false, 9), Ok(None), "{end}");
            assert!(body(&bytes[..end], true, 9).is_err(), "{end}");
        }
        assert_eq!(body(&bytes, false, 9), Ok(Some(2..5)));
        assert!(body(&[1, 0], false, 9).is_err());
    }
}
