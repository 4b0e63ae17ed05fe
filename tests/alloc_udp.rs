//! The loop around the sockets of a live view claims no memory for a datagram, counted by the allocator
//! itself.

#[path = "common/allocations.rs"]
mod allocations;

use allocations::ALLOCATIONS;
use hksvd::io::runtime::{Executor, Signal, now, or, sleep_until};
use hksvd::io::udp::{self, Datagram, Ports, View};
use hksvd::time::{Duration, Instant};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;

/// Answers each datagram, and wants to be called every few milliseconds besides.
struct Echo {
    to: SocketAddr,
    owed: Cell<u32>,
    heard: Cell<u32>,
    due: Cell<Instant>,
    counted: Cell<usize>,
    signal: Signal,
}

const WARM: u32 = 200;
const ALL: u32 = 4_200;

impl View for Echo {
    fn handle_datagram(&self, _: usize, _: SocketAddr, _: &mut [u8], _: Instant) {
        self.heard.set(self.heard.get() + 1);
        self.owed.set(self.owed.get() + 1);
        if self.heard.get() == WARM {
            self.counted.set(ALLOCATIONS.get());
        }
    }
    fn poll_transmit(&self, _: Instant, out: &mut [u8]) -> Option<Datagram> {
        self.owed.set(self.owed.get().checked_sub(1)?);
        out[0] = 1;
        Some(Datagram { port: 0, to: self.to, len: 1 })
    }
    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due.get())
    }
    fn handle_timeout(&self, now: Instant) {
        self.due.set(now + Duration::from_millis(2));
    }
    fn signal(&self) -> &Signal {
        &self.signal
    }
    fn handle_lost(&self, error: &std::io::Error) {
        panic!("{error}");
    }
    fn is_over(&self) -> bool {
        self.heard.get() == ALL
    }
}

#[test]
fn a_datagram_claims_no_memory_of_its_own() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let hap = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
    let (ports, at) = Ports::open(hap, to.ip(), [to.port(), to.port()]).unwrap();
    let ours = SocketAddr::new(at.local, at.ports[0]);
    let echo = Rc::new(Echo {
        to,
        owed: Cell::new(0),
        heard: Cell::new(0),
        due: Cell::new(now()),
        counted: Cell::new(0),
        signal: Signal::default(),
    });
    let thread = std::thread::spawn(move || {
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..ALL {
            peer.send_to(&[7; 100], ours).unwrap();
            peer.recv_from(&mut [0; 8]).unwrap();
        }
    });
    let executor = Executor::default();
    let view = echo.clone();
    executor.spawn(async move { udp::serve(&ports, &*view).await });
    executor.block_on(or(
        async {
            while !echo.is_over() {
                sleep_until(now() + Duration::from_millis(5)).await;
            }
        },
        async {
            sleep_until(now() + Duration::from_secs(20)).await;
            panic!("it does not end");
        },
    ));
    let claimed = ALLOCATIONS.get() - echo.counted.get();
    thread.join().unwrap();
    assert_eq!(claimed, 0, "for {} datagrams", ALL - WARM);
}
