//! The sockets of the control interface. One request a connection, then it is closed.
//!
//! [`serve`] is one worker: as many clients are served at a time as workers run. A client that is slow,
//! silent or hostile holds its worker for a few timeouts and then loses it; streams may hold half of
//! them, so that `hksvd status` gets through.

use super::request::{self, LARGEST, Refusal};
use super::{Answer, Call, Chunk, Chunks, Daemon, Media};
use crate::config::Token;
use crate::io::runtime::{Fd, now, or, sleep_until, sleep_until_some};
use crate::time::Duration;
use crate::wire::json::Quoted;
use std::cell::Cell;
use std::io::{Error, ErrorKind, Result};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

/// Workers to run for each listener.
pub const WORKERS: usize = 4;
/// How many of them may stream at a time.
const STREAMS: usize = 2;
/// For the request to arrive, and for each write to move.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// For the daemon to have acted: flash may be slow.
const ACTION: Duration = Duration::from_secs(25);
/// Bytes that a stream sends at a time.
const CHUNK: usize = 8 * 1024;

/// A socket that clients connect to.
pub struct Listener {
    socket: Socket,
    streams: Cell<usize>,
}

enum Socket {
    Unix(Fd<UnixListener>),
    Tcp(Fd<TcpListener>, Option<Token>),
}

impl Listener {
    /// Serves those who may open the Unix socket.
    ///
    /// # Errors
    /// When the descriptor cannot be waited for.
    pub fn unix(listener: UnixListener) -> Result<Self> {
        Ok(Listener { socket: Socket::Unix(Fd::new(listener)?), streams: Cell::new(0) })
    }

    /// Serves those who present the token, everybody when there is none.
    ///
    /// # Errors
    /// When the descriptor cannot be waited for.
    pub fn tcp(listener: TcpListener, token: Option<Token>) -> Result<Self> {
        Ok(Listener { socket: Socket::Tcp(Fd::new(listener)?, token), streams: Cell::new(0) })
    }
}

/// One worker: serves one client after the other, for ever. Run [`WORKERS`] of them for a listener.
pub async fn serve(listener: Rc<Listener>, daemon: Rc<dyn Daemon>) {
    loop {
        // The calls that send and receive are the same for both: one type, or all of this would be there twice.
        let (accepted, token) = match &listener.socket {
            Socket::Unix(socket) => {
                (socket.when_readable(|socket| socket.accept()).await.map(|(stream, _)| stream), None)
            }
            Socket::Tcp(socket, token) => {
                let accepted = socket.when_readable(|socket| socket.accept()).await;
                (accepted.map(|(stream, _)| OwnedFd::from(stream).into()), token.as_ref())
            }
        };
        let served = match accepted {
            Ok(stream) => client(stream, token.map(Token::as_bytes), &listener.streams, &*daemon).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            log::debug!("control: {error}");
            // Out of descriptors is an error that comes at once, again and again.
            if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::TimedOut) {
                sleep_until(now() + Duration::from_millis(100)).await;
            }
        }
    }
}

/// One of the streams that may run, given back when dropped.
struct Slot<'a>(&'a Cell<usize>);

impl<'a> Slot<'a> {
    fn take(running: &'a Cell<usize>) -> Option<Self> {
        (running.get() < STREAMS).then(|| {
            running.set(running.get() + 1);
            Slot(running)
        })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn within<R>(patience: Duration, work: impl Future<Output = Result<R>>) -> Result<R> {
    let end = now() + patience;
    or(work, async {
        sleep_until(end).await;
        Err(Error::new(ErrorKind::TimedOut, "the client is too slow"))
    })
    .await
}

async fn client(stream: UnixStream, token: Option<&[u8]>, streams: &Cell<usize>, daemon: &dyn Daemon) -> Result<()> {
    let stream = Fd::new(stream)?;
    let call = match within(PATIENCE, receive(&stream, token)).await? {
        Ok(Some(call)) => call,
        Ok(None) => return Ok(()),
        Err(refusal) => return refuse(&stream, &refusal).await,
    };
    let mut answer = match call {
        Call::Status { text: true } => {
            return reply(&stream, 200, "text/plain; charset=utf-8", "", daemon.status().to_string().as_bytes()).await;
        }
        Call::Status { text: false } => Answer::Json(daemon.status().json().into_bytes()),
        Call::Log(level) => {
            log::set_max_level(level.0);
            Answer::Done
        }
        call => daemon.call(call),
    };
    if let Answer::Later(later) = answer {
        let late = async {
            sleep_until(now() + ACTION).await;
            Answer::Refused(504, "the daemon has not finished; look at `hksvd status`".into())
        };
        answer = or(later, late).await;
    }
    match answer {
        Answer::Done => reply(&stream, 200, "application/json", "", b"{\"ok\":true}\n").await,
        Answer::Json(json) => reply(&stream, 200, "application/json", "", &json).await,
        Answer::Jpeg(jpeg) => reply(&stream, 200, "image/jpeg", "", &jpeg).await,
        Answer::Refused(status, text) => refuse(&stream, &Refusal::new(status, text)).await,
        Answer::Later(_) => refuse(&stream, &Refusal::new(500, "an answer that is later than later")).await,
        Answer::Stream(media, chunks) => match Slot::take(streams) {
            Some(_slot) => send_stream(&stream, media, chunks).await,
            None => refuse(&stream, &Refusal::new(503, "two clients stream already; try again later")).await,
        },
    }
}

/// The call; `None` when the client hangs up before it has said anything, as the probe of a socket does.
async fn receive(stream: &Fd<UnixStream>, token: Option<&[u8]>) -> Result<std::result::Result<Option<Call>, Refusal>> {
    let mut buffer = vec![0; LARGEST];
    let mut len = 0;
    loop {
        let read = stream.read(&mut buffer[len..]).await?;
        if read == 0 {
            return Ok(match len {
                0 => Ok(None),
                _ => Err(Refusal::new(400, "the request ends before its end")),
            });
        }
        len += read;
        match request::parse(&buffer[..len], token) {
            Ok(Some(call)) => return Ok(Ok(Some(call))),
            Ok(None) if len == LARGEST => return Ok(Err(Refusal::new(413, "the request is longer than 8 KiB"))),
            Ok(None) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
}

async fn send(stream: &Fd<UnixStream>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = within(PATIENCE, stream.write(bytes)).await?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

async fn refuse(stream: &Fd<UnixStream>, refusal: &Refusal) -> Result<()> {
    let body = format!("{{\"error\":{}}}\n", Quoted(&refusal.text));
    let more = match refusal.status {
        401 => "WWW-Authenticate: Bearer\r\n".into(),
        405 => format!("Allow: {}\r\n", refusal.allow),
        _ => String::new(),
    };
    reply(stream, refusal.status, "application/json", &more, body.as_bytes()).await
}

async fn reply(stream: &Fd<UnixStream>, status: u16, media: &str, more: &str, body: &[u8]) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n{more}Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        reason(status),
        body.len()
    );
    // The whole answer has one patience for each 64 KiB of it, or a client that takes a byte every nine
    // seconds would hold its worker for a day.
    let patience = PATIENCE * (1 + (body.len() / 65_536) as u32);
    within(patience, async {
        send(stream, head.as_bytes()).await?;
        send(stream, body).await
    })
    .await
}

/// RFC 9110 §15
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}

/// Sends a body in chunks (RFC 9112 §7.1). Without the last, empty one the client knows that it broke off.
async fn send_stream(stream: &Fd<UnixStream>, media: Media, mut chunks: Box<dyn Chunks>) -> Result<()> {
    let media = match media {
        Media::Lines => "application/x-ndjson",
        Media::Mp4 => "video/mp4",
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n"
    );
    send(stream, head.as_bytes()).await?;
    // Four digits and a line's end in front, a line's end behind.
    const FRONT: usize = 6;
    let mut buffer = vec![0; FRONT + CHUNK + 2];
    loop {
        let seen = chunks.signal().count();
        match chunks.poll(now(), &mut buffer[FRONT..FRONT + CHUNK]) {
            Chunk::Some(len) => {
                let len = len.min(CHUNK);
                buffer[..FRONT].copy_from_slice(format!("{len:04x}\r\n").as_bytes());
                buffer[FRONT + len..FRONT + len + 2].copy_from_slice(b"\r\n");
                // For the whole chunk: a client that takes a byte now and then must not hold the stream.
                within(PATIENCE, send(stream, &buffer[..FRONT + len + 2])).await?;
            }
            Chunk::Wait(until) => {
                let look_again = async {
                    or(chunks.signal().changed(seen), sleep_until_some(until)).await;
                    Result::Ok(true)
                };
                // Anything that the client does now is that it hangs up.
                let hung_up = async {
                    stream.read(&mut [0; 16]).await?;
                    Ok(false)
                };
                if !or(look_again, hung_up).await? {
                    return Ok(());
                }
            }
            Chunk::End => return send(stream, b"0\r\n\r\n").await,
            Chunk::Failed => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Status, socket};
    use crate::io::runtime::{Executor, Signal};
    use crate::time::Instant;
    use std::cell::RefCell;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    struct Fake {
        calls: RefCell<Vec<Call>>,
        signal: Rc<Signal>,
    }

    impl Daemon for Fake {
        fn status(&self) -> Status {
            Status { name: "Fake".into(), ..Status::default() }
        }

        fn call(&self, call: Call) -> Answer {
            self.calls.borrow_mut().push(call);
            match call {
                Call::MotionOn => Answer::Done,
                Call::Ring => Answer::Refused(409, "not a \"doorbell\"".into()),
                Call::Snapshot => Answer::Jpeg(vec![0xff; 300_000].into()),
                Call::Reset => Answer::Later(Box::pin(async {
                    sleep_until(now() + Duration::from_millis(20)).await;
                    Answer::Done
                })),
                Call::Clip { seconds } => Answer::Stream(
                    Media::Mp4,
                    Box::new(Count { left: seconds, fail: seconds == 13, signal: self.signal.clone() }),
                ),
                Call::Events { .. } => {
                    Answer::Stream(Media::Lines, Box::new(Count { left: 0, fail: false, signal: self.signal.clone() }))
                }
                _ => Answer::Json(b"{}".to_vec()),
            }
        }
    }

    /// A clip of some chunks that ends or fails; with none from the start: events that never come.
    struct Count {
        left: u16,
        fail: bool,
        signal: Rc<Signal>,
    }

    impl Chunks for Count {
        fn poll(&mut self, now: Instant, out: &mut [u8]) -> Chunk {
            match self.left {
                0 => Chunk::Wait(None),
                1 if self.fail => Chunk::Failed,
                1 => Chunk::End,
                n if n % 2 == 0 => {
                    self.left -= 1;
                    Chunk::Wait(Some(now + Duration::from_millis(1)))
                }
                _ => {
                    self.left -= 1;
                    out[..3].copy_from_slice(b"abc");
                    Chunk::Some(3)
                }
            }
        }

        fn signal(&self) -> &Signal {
            &self.signal
        }
    }

    /// A server on its own thread; the test speaks to it as any client would.
    fn server(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("hksvd-server-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let (listener, file) = socket::listen(&path).expect("listening");
        std::thread::spawn(move || {
            let executor = Executor::default();
            let listener = Rc::new(Listener::unix(listener).expect("listener"));
            let daemon = Rc::new(Fake { calls: RefCell::default(), signal: Rc::default() });
            for _ in 1..WORKERS {
                executor.spawn(serve(listener.clone(), daemon.clone()));
            }
            executor.block_on(serve(listener, daemon));
            drop(file);
        });
        path
    }

    fn ask(path: &std::path::Path, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(path).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_string())
    }

    #[test]
    fn calls_are_answered() {
        let path = server("calls");
        let get = |line: &str| ask(&path, &format!("{line} HTTP/1.1\r\n\r\n"));
        let (status, body) = get("GET /status");
        assert!(status == 200 && body.starts_with("{\"version\":") && body.contains("\"name\":\"Fake\""), "{body}");
        let (_, body) = ask(&path, "GET /status HTTP/1.1\r\nAccept: text/plain\r\n\r\n");
        assert!(body.starts_with("camera     Fake"), "{body}");
        assert_eq!(get("POST /motion"), (200, "{\"ok\":true}\n".into()));
        assert_eq!(get("POST /doorbell"), (409, "{\"error\":\"not a \\\"doorbell\\\"\"}\n".into()));
        assert_eq!(get("POST /reset"), (200, "{\"ok\":true}\n".into()));
        assert_eq!(get("GET /nothing").0, 404);
        assert_eq!(get("GET /motion").0, 405);
        assert_eq!(ask(&path, "rubbish\r\n\r\n").0, 400);
        let (status, body) = get("GET /snapshot");
        assert_eq!((status, body.chars().count()), (200, 300_000));
    }

    #[test]
    fn a_stream_that_breaks_off_has_no_end() {
        let path = server("stream");
        assert_eq!(ask(&path, "GET /clip?seconds=4 HTTP/1.1\r\n\r\n"), (200, "0003\r\nabc\r\n0\r\n\r\n".into()));
        let (status, body) = ask(&path, "GET /clip?seconds=13 HTTP/1.1\r\n\r\n");
        assert_eq!((status, body.ends_with("0\r\n\r\n")), (200, false));
    }

    #[test]
    fn listeners_leave_room_for_others() {
        let path = server("room");
        let listen = || {
            let mut stream = UnixStream::connect(&path).expect("connected");
            stream.write_all(b"GET /events HTTP/1.1\r\n\r\n").expect("sent");
            let mut head = [0; 12];
            stream.read_exact(&mut head).expect("answer");
            (stream, head)
        };
        let (first, second, third) = (listen(), listen(), listen());
        assert_eq!((&first.1, &second.1), (b"HTTP/1.1 200", b"HTTP/1.1 200"));
        assert_eq!(&third.1, b"HTTP/1.1 503");
        // One that says nothing holds a worker, and the last one still serves.
        let _silent = UnixStream::connect(&path).expect("connected");
        assert_eq!(ask(&path, "POST /motion HTTP/1.1\r\n\r\n").0, 200);
        drop(first);
        let mut tries = 0;
        while listen().1 != *b"HTTP/1.1 200" {
            tries += 1;
            assert!(tries < 100, "a stream that was hung up keeps its place");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn the_slow_and_the_silent_lose_their_worker() {
        let path = server("slow");
        let connect = || UnixStream::connect(&path).expect("connected");
        let mut held: Vec<UnixStream> = (0..WORKERS).map(|_| connect()).collect();
        // One says nothing, one half a word, one does not read, one listens to nothing.
        for (client, said) in held.iter_mut().skip(1).zip(["GET /sta", "GET /snapshot HTTP/1.1\r\n\r\n", "\r\n"]) {
            client.write_all(said.as_bytes()).expect("sent");
        }
        assert_eq!(ask(&path, "POST /motion HTTP/1.1\r\n\r\n").0, 200);
    }

    #[test]
    fn tcp_asks_for_the_token() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("address");
        let config = "{\"control\":{\"token\":\"opensesame\"}}";
        let token = crate::config::Config::parse(config).expect("legal").control.token;
        std::thread::spawn(move || {
            let daemon = Rc::new(Fake { calls: RefCell::default(), signal: Rc::default() });
            let listener = Rc::new(Listener::tcp(listener, token).expect("listener"));
            Executor::default().block_on(serve(listener, daemon));
        });
        let ask = |field: &str| {
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.write_all(format!("POST /motion HTTP/1.1\r\n{field}\r\n").as_bytes()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answer");
            answer
        };
        let refused = ask("");
        assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("WWW-Authenticate: Bearer"), "{refused}");
        assert!(ask("Authorization: Bearer opensesame\r\n").starts_with("HTTP/1.1 200"));
    }
}
