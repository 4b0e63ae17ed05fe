//! HAP connections: the sockets behind [`hap::connection::Connection`] and who may have one.

use super::live::Watching;
use super::shared::{Preparing, Shared};
use super::{effects, streams};
use crate::hap::accessory::{Accessory, Surroundings};
use crate::hap::capacity::{MAX_CONNECTIONS, Seat, victim};
use crate::hap::connection::{Close, Connection};
use crate::hap::types::Status;
use crate::hap::{self, ConnectionId};
use crate::io::loan::{Home, Loan};
use crate::io::peer::{self, Closed, Peer};
use crate::io::random::SystemRandom;
use crate::io::runtime::{Fd, Signal, now};
use crate::sys;
use crate::time::Instant;
use crate::trace::Event;
use std::cell::{Cell, RefCell};
use std::io::Result;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;

/// Held by the kernel for a controller that does not read.
const SEND_BUFFER: u32 = 16 * 1024;

/// Bytes sealed at a time: four records.
const TRANSMIT_BYTES: usize = 4 * 1042;

/// One HAP connection.
pub struct Controller {
    shared: Rc<Shared>,
    id: ConnectionId,
    local: SocketAddr,
    connection: RefCell<Connection>,
    transmit: Home,
    was_verified: Cell<bool>,
    cut: Signal,
    is_cut: Cell<bool>,
}

impl Controller {
    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Our end of it.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Lends the connection what all of them share, then does what they ask for.
    pub fn with<R>(&self, act: impl FnOnce(&mut Connection, &mut Accessory, &mut Surroundings<'_>) -> R) -> R {
        let result = {
            let mut surroundings = Surroundings {
                now: now(),
                random: &mut SystemRandom::new(),
                data_streams: &mut Preparing(&self.shared),
                live_views: &mut Watching(&self.shared),
            };
            let mut accessory = self.shared.accessory.borrow_mut();
            act(&mut self.connection.borrow_mut(), &mut accessory, &mut surroundings)
        };
        effects::run(&self.shared);
        self.look_verified();
        result
    }

    fn look_verified(&self) {
        let verified = self.connection.borrow().is_verified();
        if verified && !self.was_verified.replace(true) {
            let connected = verified_count(&self.shared);
            log::debug!(target: "hap", "{}: verified", self.id);
            self.shared.note(Event::ControllerConnected { connected });
        }
    }

    /// The picture it waits for.
    pub fn handle_snapshot(&self, picture: std::result::Result<Rc<[u8]>, Status>) {
        self.with(|connection, accessory, _| connection.handle_snapshot(picture, accessory));
    }

    /// Ends it once its request is answered.
    pub fn finish(&self) {
        self.connection.borrow_mut().finish();
        self.shared.accessory_changed.notify();
    }

    /// Ends it now.
    pub fn cut_off(&self) {
        self.is_cut.set(true);
        self.cut.notify();
    }

    /// Whether this controller is at the other end.
    pub fn is(&self, controller: &[u8]) -> bool {
        self.connection.borrow().controller() == Some(controller)
    }

    /// The controller's pairing identifier.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.connection.borrow().controller().unwrap_or_default()).into_owned()
    }

    /// Whether pair-verify is done.
    pub fn is_verified(&self) -> bool {
        self.connection.borrow().is_verified()
    }

    fn seat(&self) -> Seat {
        let connection = self.connection.borrow();
        let records = self.shared.running.get().is_some_and(|r| r.connection == Some(self.id));
        let busy = records || self.shared.accessory.borrow().state.has_live_view(self.id);
        Seat { connection: self.id, verified: connection.is_verified(), idle_since: connection.idle_since(), busy }
    }
}

/// How many verified connections there are.
pub fn verified_count(shared: &Shared) -> u8 {
    // Twenty at the most.
    shared.controllers.borrow().iter().filter(|c| c.is_verified()).count() as u8
}

impl Peer for Controller {
    fn is_full(&self) -> bool {
        self.connection.borrow_mut().receive_buffer().is_empty()
    }

    fn receive(&self, read: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<usize> {
        read(self.connection.borrow_mut().receive_buffer())
    }

    fn handle_received(&self, n: usize, _now: Instant) -> std::result::Result<(), Closed> {
        self.tell(self.with(|connection, accessory, s| connection.handle_received(n, accessory, s)))
    }

    fn poll_transmit(&self, now: Instant) -> Option<Loan> {
        let mut loan = self.transmit.lend()?;
        let len = self.with(|connection, accessory, _| connection.poll_transmit(now, accessory, loan.room()))?;
        Some(loan.filled(len))
    }

    fn handle_transmitted(&self, _n: usize, _now: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        self.connection.borrow().poll_timeout()
    }

    fn handle_timeout(&self, _now: Instant) -> std::result::Result<(), Closed> {
        self.tell(self.with(|connection, accessory, s| connection.handle_timeout(accessory, s)))
    }

    fn signal(&self) -> &Signal {
        &self.shared.accessory_changed
    }

    fn is_over(&self) -> bool {
        self.connection.borrow().should_close()
    }

    fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    fn cut(&self) -> &Signal {
        &self.cut
    }
}

impl Controller {
    fn tell(&self, result: std::result::Result<(), Close>) -> std::result::Result<(), Closed> {
        result.map_err(|close| {
            log::debug!(target: "hap", "{}: {close}", self.id);
            Closed
        })
    }
}

/// Accepts HAP connections for ever.
pub async fn serve(shared: Rc<Shared>, listener: TcpListener) {
    let listener = match Fd::new(listener) {
        Ok(listener) => listener,
        Err(e) => return log::error!(target: "hap", "the kernel cannot wait for connections: {e}"),
    };
    let mut next = 1;
    loop {
        let Some((socket, from)) = super::accept(&listener, "hap").await else { continue };
        let id: ConnectionId = next;
        next = next.wrapping_add(1).max(1);
        if !make_room(&shared) {
            log::debug!(target: "hap", "{id}: refused {from}, all {MAX_CONNECTIONS} connections are taken");
            continue;
        }
        // Of a socket that is gone already; then nothing will come of it.
        let Ok(local) = socket.local_addr() else { continue };
        log::debug!(target: "hap", "{id}: connect from {from}");
        let controller = Rc::new(Controller {
            shared: shared.clone(),
            id,
            local,
            connection: RefCell::new(Connection::new(id, now())),
            transmit: Home::new(TRANSMIT_BYTES),
            was_verified: Cell::new(false),
            cut: Signal::default(),
            is_cut: Cell::new(false),
        });
        shared.controllers.borrow_mut().push(controller.clone());
        shared.executor.spawn(talk(controller, socket));
    }
}

fn make_room(shared: &Shared) -> bool {
    if shared.controllers.borrow().len() < MAX_CONNECTIONS {
        return true;
    }
    let victim = {
        let controllers = shared.controllers.borrow();
        let Some(id) = victim(controllers.iter().map(|c| c.seat()), now()) else { return false };
        controllers.iter().find(|c| c.id == id).cloned()
    };
    let Some(victim) = victim else { return false };
    log::debug!(target: "hap", "{}: its place is needed", victim.id);
    victim.cut_off();
    shared.controllers.borrow_mut().retain(|c| c.id != victim.id);
    true
}

async fn talk(controller: Rc<Controller>, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sys::tcp::keep_alive(&socket);
    let _ = sys::tcp::bound_send_buffer(&socket, SEND_BUFFER);
    if let Ok(socket) = Fd::new(socket) {
        let end = peer::talk(&socket, &*controller).await;
        log::debug!(target: "hap", "{}: {end}", controller.id);
    }
    let shared = &controller.shared;
    controller.with(|connection, accessory, s| connection.handle_closed(accessory, s));
    shared.controllers.borrow_mut().retain(|c| c.id != controller.id);
    // A data stream lives no longer than the connection that prepared it.
    shared.prepared.borrow_mut().forget(controller.id);
    streams::close_of(shared, controller.id, crate::hds::Disconnect::HapClosed);
    if controller.was_verified.get() {
        let connected = verified_count(shared);
        shared.note(Event::ControllerClosed { connected });
    }
}

/// The connection with this number, if it is still there.
pub fn find(shared: &Shared, id: hap::ConnectionId) -> Option<Rc<Controller>> {
    shared.controllers.borrow().iter().find(|c| c.id == id).cloned()
}
