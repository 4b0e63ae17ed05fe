//! The responder against another of its kind, and over real sockets against an independent browser.

use hksvd::io::mdns::{Selection, goodbye, run};
use hksvd::io::runtime::{Executor, Signal, now, sleep_until};
use hksvd::mdns::{Address, Event, InterfaceId, PACKET_BYTES, Responder, Service, To, Txt, host_label, instance_label};
use hksvd::time::{Duration, Instant};
use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

fn service(name: &str, device_id: &str) -> Service {
    Service {
        instance: instance_label(name, device_id),
        host: host_label(device_id),
        port: 51826,
        txt: Txt {
            config_number: 1,
            device_id: device_id.try_into().unwrap(),
            model: "hksvd".try_into().unwrap(),
            status_flags: 1,
            category: 17,
            setup_hash: "CVFzcA==".try_into().unwrap(),
        },
    }
}

/// Responders on one virtual network, 192.0.2.0/24, in virtual time. Every packet reaches everybody,
/// its sender included, after a millisecond.
struct Wire {
    hosts: Vec<(Responder, Instant)>,
    now_ms: u64,
}

const LAN: InterfaceId = InterfaceId(2);

impl Wire {
    fn now(&self) -> Instant {
        Instant::from_micros(self.now_ms * 1000)
    }

    fn ip(n: usize) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, 10 + n as u8).into()
    }

    /// Hosts that join at these times.
    fn new(hosts: Vec<(Responder, u64)>) -> Self {
        let hosts = hosts.into_iter().map(|(r, at_ms)| (r, Instant::from_micros(at_ms * 1000))).collect();
        Wire { hosts, now_ms: 0 }
    }

    fn run(&mut self, for_ms: u64) {
        for _ in 0..for_ms {
            let now = self.now();
            let mut under_way = Vec::new();
            for (n, (host, joins)) in self.hosts.iter_mut().enumerate() {
                if *joins == now {
                    host.set_addresses(LAN, &[Address { ip: Wire::ip(n), prefix: 24 }], now);
                }
                host.handle_timeout(now);
                let mut out = [0; PACKET_BYTES];
                while let Some(transmit) = host.poll_transmit(now, &mut out) {
                    under_way.push((n, transmit.to, out[..transmit.len].to_vec()));
                }
            }
            self.now_ms += 1;
            let now = self.now();
            for (from, to, bytes) in under_way {
                let source = SocketAddr::new(Wire::ip(from), 5353);
                for (n, (host, _)) in self.hosts.iter_mut().enumerate() {
                    match to {
                        To::Multicast => host.handle_packet(source, LAN, true, &bytes, now),
                        To::Unicast(peer) if peer.ip() == Wire::ip(n) => {
                            host.handle_packet(source, LAN, false, &bytes, now)
                        }
                        To::Unicast(_) => {}
                    }
                }
            }
        }
    }

    fn instances(&self) -> Vec<&str> {
        self.hosts.iter().map(|(host, _)| host.service().instance.as_str()).collect()
    }
}

/// Two accessories whose names and last four digits are alike, hosts are not.
fn twins() -> [Service; 2] {
    [service("Garden", "1A:2B:3C:4D:5E:6F"), service("Garden", "AA:BB:CC:DD:5E:6F")]
}

#[test]
fn who_comes_second_takes_another_name() {
    let [first, second] = twins();
    let mut wire = Wire::new(vec![(Responder::new(first, 1), 0), (Responder::new(second, 2), 5_000)]);
    wire.run(15_000);
    assert_eq!(wire.instances(), ["Garden 5E6F", "Garden 5E6F (2)"]);
    assert!(wire.hosts.iter().all(|(host, _)| host.is_announced()));
    let instance = "Garden 5E6F (2)".try_into().unwrap();
    assert_eq!(wire.hosts[1].0.poll_event(), Some(Event::Renamed { instance }));
    assert_eq!(wire.hosts[0].0.poll_event(), None);
}

#[test]
fn of_two_who_come_together_exactly_one_takes_another_name() {
    for seed in 1..40 {
        let [first, second] = twins();
        let mut wire = Wire::new(vec![(Responder::new(first, seed), 0), (Responder::new(second, seed * 7919), 0)]);
        wire.run(15_000);
        let mut names = wire.instances();
        names.sort_unstable();
        assert_eq!(names, ["Garden 5E6F", "Garden 5E6F (2)"], "seed {seed}");
        assert!(wire.hosts.iter().all(|(host, _)| host.is_announced()));
    }
}

#[test]
fn the_same_accessory_twice_separates_names_and_hosts() {
    let [one, _] = twins();
    let mut other = one.clone();
    other.port = 4000;
    let mut wire = Wire::new(vec![(Responder::new(one, 1), 0), (Responder::new(other, 5), 0)]);
    wire.run(30_000);
    let services = [wire.hosts[0].0.service(), wire.hosts[1].0.service()];
    assert_ne!(services[0].instance, services[1].instance);
    assert_ne!(services[0].host, services[1].host);
}

#[test]
fn networks_that_are_joined_settle_their_conflict() {
    // Both established the name while they could not hear each other.
    let [first, second] = twins();
    let mut a = Wire::new(vec![(Responder::new(first, 3), 0)]);
    let mut b =
        Wire::new(vec![(Responder::new(second, 4), u64::MAX / 2000), (Responder::new(twins()[1].clone(), 4), 0)]);
    a.run(2_500);
    b.run(2_500);
    let second = b.hosts.remove(1);
    a.hosts.push(second);
    a.run(30_000);
    let mut names = a.instances();
    names.sort_unstable();
    assert_eq!(names, ["Garden 5E6F", "Garden 5E6F (2)"]);
}

/// On loopback, with real sockets on the real port: found, changed, gone.
#[test]
fn an_independent_browser_sees_it_come_change_and_go() {
    let device_id = format!("02:00:00:{:02X}:{:02X}:01", std::process::id() >> 8 & 0xff, std::process::id() & 0xff);
    let service = service("Loopback", &device_id);
    let fullname = format!("{}._hap._tcp.local.", service.instance);

    let browser = ServiceDaemon::new().unwrap();
    browser.disable_interface(IfKind::All).unwrap();
    browser.enable_interface(IfKind::LoopbackV4).unwrap();
    let events = browser.browse("_hap._tcp.local.").unwrap();

    let responder = Rc::new(RefCell::new(Responder::new(service, std::process::id())));
    let changed = Rc::new(Signal::default());
    let selection = Selection { names: vec!["lo".into()], ipv4_only: true };
    let executor = Executor::default();
    executor.spawn(run(responder.clone(), changed.clone(), selection));
    executor.block_on(async {
        let txt_of = |event: &ServiceEvent, key: &str| match event {
            ServiceEvent::ServiceResolved(found) if found.get_fullname() == fullname => {
                Some((found.get_property_val_str(key).unwrap_or_default().to_owned(), found.get_port()))
            }
            _ => None,
        };
        let wait = async |what: &str, wanted: &dyn Fn(&ServiceEvent) -> bool| {
            let patience = now() + Duration::from_secs(20);
            loop {
                while let Ok(event) = events.try_recv() {
                    if wanted(&event) {
                        return;
                    }
                }
                assert!(now() < patience, "not seen: {what}");
                sleep_until(now() + Duration::from_millis(20)).await;
            }
        };
        wait("it comes", &|event| txt_of(event, "sf") == Some(("1".into(), 51826))).await;
        assert!(responder.borrow().is_announced());

        let paired = Txt { status_flags: 0, ..responder.borrow().service().txt.clone() };
        responder.borrow_mut().set_txt(paired, now());
        changed.notify();
        wait("it is paired", &|event| txt_of(event, "sf") == Some(("0".into(), 51826))).await;

        let seen = changed.count();
        goodbye(&responder, &changed).await;
        assert!(!responder.borrow().is_leaving(), "the goodbye was not sent");
        assert!(changed.count() >= seen + 2, "who waits for it is told");
        wait("it goes", &|event| matches!(event, ServiceEvent::ServiceRemoved(_, name) if *name == fullname)).await;
    });
    let _ = browser.shutdown();
}
