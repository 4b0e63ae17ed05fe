//! The one loop around everything that speaks to a TCP peer: HAP connections and data streams.
//!
//! The core type behind a [`Peer`] decides what to say; the loop moves bytes, keeps its timers and
//! gives up on a peer that takes nothing. Who does not read costs itself, nobody else.

use super::loan::Loan;
use super::runtime::{Fd, Signal, now, or, sleep_until, sleep_until_some, yield_now};
use crate::time::{Duration, Instant};
use std::net::{Shutdown, TcpStream};

/// A conversation as the loop sees it. Every method borrows the shared state, does one thing with
/// the core type, and lets go of it: nothing is borrowed across an await point.
pub trait Peer {
    /// Whether nothing can be received now, because what came before waits to be answered. Looked at
    /// again when [`Peer::signal`] fires or a timer is due.
    fn is_full(&self) -> bool;

    /// Lets `read` fill the receive buffer, which is not full; its result is the number of new bytes.
    fn receive(&self, read: &mut dyn FnMut(&mut [u8]) -> std::io::Result<usize>) -> std::io::Result<usize>;

    /// `n` bytes were received. `Err` ends the conversation after what is still to be sent.
    fn handle_received(&self, n: usize, now: Instant) -> Result<(), Closed>;

    /// The next bytes to send; called until `None` after everything that happens.
    fn poll_transmit(&self, now: Instant) -> Option<Loan>;

    /// The kernel took `n` more bytes of the last frame.
    fn handle_transmitted(&self, n: usize, now: Instant);

    /// When [`Peer::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// A timer of the core type is due. `Err` as for [`Peer::handle_received`].
    fn handle_timeout(&self, now: Instant) -> Result<(), Closed>;

    /// Fires when the shared state may have something new for this peer.
    fn signal(&self) -> &Signal;

    /// Whether the conversation is over as soon as everything is sent.
    fn is_over(&self) -> bool;

    /// Whether this peer has to go at once.
    fn is_cut(&self) -> bool;

    /// Fires when [`Peer::is_cut`] has changed.
    fn cut(&self) -> &Signal;
}

/// The conversation is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

/// Why a conversation ended, for the log.
#[derive(Debug)]
pub enum End {
    /// We ended it: protocol error, end of the session, eviction.
    Ours,
    /// The peer closed its side.
    Theirs,
    /// Nothing could be written for [`STALLED`].
    Stalled,
    /// The network failed.
    Failed(std::io::Error),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Ours => f.write_str("closed by us"),
            End::Theirs => f.write_str("closed by the peer"),
            End::Stalled => write!(f, "peer took nothing for {} s", STALLED.as_secs()),
            End::Failed(e) => write!(f, "{e}"),
        }
    }
}

/// A socket that takes no byte for this long is given up.
pub const STALLED: Duration = Duration::from_secs(8);

/// A frame that takes longer than this is given up, too: a peer that reads a byte now and then would
/// hold its buffer for ever.
const FRAME_LIMIT: Duration = Duration::from_secs(30);

enum Woke {
    Received(std::io::Result<usize>),
    Look,
    Cut,
}

/// For the peer to see our end and close its own.
const PARTING: Duration = Duration::from_millis(300);

/// Talks until one side has enough.
pub async fn talk(stream: &Fd<TcpStream>, peer: &dyn Peer) -> End {
    let end = exchange(stream, peer).await;
    if let End::Ours = end {
        or(part(stream), or(cut(peer), sleep_until(now() + PARTING))).await;
    }
    end
}

/// Says that we are done and takes in what is still under way to us: the kernel would answer that with a
/// reset, which overtakes our last word (RFC 9112 §9.6).
async fn part(stream: &Fd<TcpStream>) {
    let _ = stream.get().shutdown(Shutdown::Write);
    let mut scrap = [0; 256];
    while let Ok(1..) = stream.read(&mut scrap).await {
        yield_now().await;
    }
}

/// Waits until this peer has to go at once.
async fn cut(peer: &dyn Peer) {
    while !peer.is_cut() {
        peer.cut().changed(peer.cut().count()).await;
    }
}

async fn exchange(stream: &Fd<TcpStream>, peer: &dyn Peer) -> End {
    loop {
        let seen = peer.signal().count();
        if let Err(end) = send_all(stream, peer).await {
            return end;
        }
        if peer.is_over() {
            return End::Ours;
        }
        let received = async {
            if peer.is_full() {
                // The kernel would say "readable" again and again.
                std::future::pending::<()>().await;
            }
            Woke::Received(stream.when_readable(|mut s| peer.receive(&mut |b| std::io::Read::read(&mut s, b))).await)
        };
        let look = async {
            or(peer.signal().changed(seen), sleep_until_some(peer.poll_timeout())).await;
            Woke::Look
        };
        let cut = async {
            cut(peer).await;
            Woke::Cut
        };
        let closed = match or(cut, or(received, look)).await {
            Woke::Received(Ok(0)) => return End::Theirs,
            Woke::Received(Ok(n)) => peer.handle_received(n, now()),
            Woke::Received(Err(e)) => return End::Failed(e),
            Woke::Look => match peer.poll_timeout() {
                Some(when) if when <= now() => peer.handle_timeout(now()),
                _ => Ok(()),
            },
            Woke::Cut => return End::Ours,
        };
        if closed == Err(Closed) {
            // The last word (an error reply, a close event) still goes out.
            return send_all(stream, peer).await.err().unwrap_or(End::Ours);
        }
        // Who sends faster than we look must not keep the media waiting.
        yield_now().await;
    }
}

async fn send_all(stream: &Fd<TcpStream>, peer: &dyn Peer) -> Result<(), End> {
    while let Some(frame) = peer.poll_transmit(now()) {
        let mut left = &frame[..];
        let limit = now() + FRAME_LIMIT;
        while !left.is_empty() {
            let wrote = async { Some(stream.write(left).await) };
            let cut = async {
                cut(peer).await;
                Some(Err(std::io::ErrorKind::Interrupted.into()))
            };
            let stalled = async {
                sleep_until(limit.min(now() + STALLED)).await;
                None
            };
            match or(cut, or(wrote, stalled)).await {
                Some(Ok(0)) => return Err(End::Theirs),
                Some(Ok(n)) => {
                    left = &left[n..];
                    peer.handle_transmitted(n, now());
                }
                Some(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => return Err(End::Ours),
                Some(Err(e)) => return Err(End::Failed(e)),
                None => return Err(End::Stalled),
            }
        }
        drop(frame);
        yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::loan::Home;
    use crate::io::runtime::Executor;
    use std::cell::Cell;
    use std::io::Write;
    use std::net::TcpListener;

    /// Takes one byte at a time and never answers.
    #[derive(Default)]
    struct Listener {
        full: Cell<bool>,
        looked: Cell<u32>,
        heard: Cell<usize>,
        signal: Signal,
        /// Says so and hangs up after the first byte.
        curt: Cell<bool>,
    }

    impl Peer for Listener {
        fn is_full(&self) -> bool {
            self.looked.set(self.looked.get() + 1);
            self.full.get()
        }

        fn receive(&self, read: &mut dyn FnMut(&mut [u8]) -> std::io::Result<usize>) -> std::io::Result<usize> {
            assert!(!self.full.get());
            read(&mut [0])
        }

        fn handle_received(&self, n: usize, _: Instant) -> Result<(), Closed> {
            self.heard.set(self.heard.get() + n);
            assert!(self.heard.get() < 1_000_000, "nobody else gets a turn");
            if self.curt.get() { Err(Closed) } else { Ok(()) }
        }

        fn poll_transmit(&self, _: Instant) -> Option<Loan> {
            (self.heard.get() > 0 && self.curt.take()).then(|| {
                let mut loan = Home::new(20).lend().expect("a buffer of its own");
                loan.room()[..8].copy_from_slice(b"too long");
                loan.filled(8)
            })
        }

        fn handle_transmitted(&self, _: usize, _: Instant) {}

        fn poll_timeout(&self) -> Option<Instant> {
            None
        }

        fn handle_timeout(&self, _: Instant) -> Result<(), Closed> {
            Ok(())
        }

        fn signal(&self) -> &Signal {
            &self.signal
        }

        fn is_over(&self) -> bool {
            false
        }

        fn is_cut(&self) -> bool {
            false
        }

        fn cut(&self) -> &Signal {
            &self.signal
        }
    }

    fn pair() -> (TcpStream, Fd<TcpStream>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (theirs, Fd::new(listener.accept().unwrap().0).unwrap())
    }

    #[test]
    fn a_full_peer_is_left_alone_until_the_signal() {
        let (mut theirs, ours) = pair();
        theirs.write_all(b"abc").unwrap();
        let peer = Listener::default();
        peer.full.set(true);
        Executor::default().block_on(or(async { panic!("{}", talk(&ours, &peer).await) }, async {
            sleep_until(now() + Duration::from_millis(50)).await;
            assert_eq!((peer.heard.get(), peer.looked.get()), (0, 1), "no looking again and again");
            peer.full.set(false);
            peer.signal.notify();
            while peer.heard.get() < 3 {
                yield_now().await;
            }
        }));
    }

    #[test]
    fn the_last_word_is_heard_by_who_was_still_talking() {
        let is_heard = || {
            let (mut theirs, ours) = pair();
            theirs.write_all(&[0; 50_000]).unwrap();
            let peer = Listener::default();
            peer.curt.set(true);
            let client = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                theirs.write_all(&[0; 1_000])?;
                std::thread::sleep(Duration::from_millis(50));
                std::io::read_to_string(theirs)
            });
            let start = now();
            let end = Executor::default().block_on(talk(&ours, &peer));
            let took = now() - start;
            drop(ours);
            let heard = client.join().unwrap();
            assert!(matches!(end, End::Ours), "{end}");
            // Else it ended because nobody waits for longer: they were held up, and may have heard nothing.
            let is_theirs = took < PARTING;
            assert!(!is_theirs || heard.as_ref().is_ok_and(|heard| heard == "too long"), "{heard:?}");
            is_theirs
        };
        assert!((0..5).any(|_| is_heard()), "their end is not waited for");
    }

    #[test]
    fn who_never_stops_sending_does_not_starve_the_others() {
        let (mut theirs, ours) = pair();
        // More than is read, a byte at a time, before the timer below is due.
        let sender = std::thread::spawn(move || while theirs.write_all(&[0; 4096]).is_ok() {});
        let peer = Listener::default();
        let start = now();
        Executor::default().block_on(or(
            async {
                while now() - start < Duration::from_secs(5) {
                    sleep_until(now() + Duration::from_millis(1)).await;
                    if peer.heard.get() > 100 {
                        return;
                    }
                }
            },
            async { panic!("{}", talk(&ours, &peer).await) },
        ));
        assert!(now() - start < Duration::from_secs(5));
        drop(ours);
        sender.join().unwrap();
    }
}
