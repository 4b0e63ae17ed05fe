//! The control socket of the encoder: `rvd` of the streamer.

use crate::config::RaptorStream;
use crate::io::http_get::ask;
use crate::io::runtime::{now, or, sleep_until};
use crate::source::encoder::Order;
use crate::sys::connect;
use crate::time::Duration;
use crate::wire::raptor_control::{self, STATUS, Settings, request, setting};
use std::path::Path;

const SOCKET: &str = "var/run/rss/rvd.sock";

/// An answer takes milliseconds; a restart of the encoder may hold it up.
const LIMIT: Duration = Duration::from_secs(2);

/// A status of all channels has some 1,500 bytes.
const MOST_BYTES: usize = 16 * 1024;

/// Has the encoder of a stream do something. The settings, when the order was to look.
///
/// # Errors
/// Why not, in one line.
pub async fn carry_out(root: &Path, stream: RaptorStream, order: Order) -> Result<Option<Settings>, String> {
    let channel = match stream {
        RaptorStream::Main => 0,
        RaptorStream::Sub => 1,
    };
    let json = match order {
        Order::Look => STATUS.into(),
        Order::Bitrate(bps) => setting("set-bitrate", channel, bps),
        Order::Gop(pictures) => setting("set-gop", channel, pictures),
    };
    let answer = async {
        let connection = connect::unix(&root.join(SOCKET)).map_err(|error| format!("rvd.sock: {error}"))?;
        let find = |bytes: &mut [u8], closed, most| Ok(raptor_control::body(bytes, closed, most)?);
        ask(connection, &request(&json), false, find, MOST_BYTES).await.map_err(|error| error.to_string())
    };
    let late = async {
        sleep_until(now() + LIMIT).await;
        Err("no answer in time".into())
    };
    match raptor_control::answer(&or(answer, late).await?, channel)? {
        None if order == Order::Look => Err("no bitrate of this stream in its status".into()),
        settings => Ok(settings),
    }
}
