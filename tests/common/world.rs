//! The accessory and its shell in virtual time: what the daemon does, without sockets, files or
//! clocks.

use crate::controller::{Controller, Identity, Message, Transport};
use hksvd::crypto::SharedSecret;
use hksvd::hap::ConnectionId;
use hksvd::hap::accessory::{
    Accessory, AccessoryConfig, DataStreams, Effect, Information, LiveViews, Refusal, Surroundings,
};
use hksvd::hap::camera_tlv::LiveAudioOffer;
use hksvd::hap::connection::{Close, Connection, TRANSMIT_BYTES_MIN};
use hksvd::hap::database::Features;
use hksvd::hap::pairing::{self, Pairings, Setup};
use hksvd::hap::settings::StoredCamera;
use hksvd::hap::setup_code::SetupCode;
use hksvd::hap::stream_tlv::{Endpoint, SelectedStream, SetupAnswer, SetupRequest};
use hksvd::hap::types::Status;
use hksvd::io::random::SystemRandom;
use hksvd::time::{Duration, Instant};
use hksvd::wire::Writer;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::rc::Rc;

pub const CODE: &str = "031-45-154";

/// Prepares data streams that nobody connects to.
#[derive(Default)]
pub struct Streams {
    pub prepared: usize,
    pub refuse: Option<Refusal>,
}

impl DataStreams for Streams {
    fn prepare(&mut self, _: ConnectionId, _: &SharedSecret, _: &[u8; 32]) -> Result<(u16, [u8; 32]), Refusal> {
        if let Some(refusal) = self.refuse {
            return Err(refusal);
        }
        self.prepared += 1;
        Ok((51827, [9; 32]))
    }
}

/// Sets up live views that send nothing; the keys are those of the controller.
#[derive(Default)]
pub struct Views {
    /// Where it receives; nothing: where the controller does.
    pub accessory: Option<Endpoint>,
    pub refuse: Option<Refusal>,
    /// What was asked, in order: connection and service first.
    pub asked: Vec<String>,
}

impl LiveViews for Views {
    fn set_up(&mut self, id: ConnectionId, view: u8, request: &SetupRequest) -> Result<SetupAnswer, Refusal> {
        let Endpoint { address, video_port, audio_port } = request.controller;
        self.asked.push(format!("{id}.{view} set up for {address} {video_port} {audio_port}"));
        match self.refuse {
            Some(refusal) => Err(refusal),
            None => Ok(SetupAnswer::Ready {
                session: request.session,
                accessory: self.accessory.unwrap_or(request.controller),
                video: request.video.clone(),
                audio: request.audio.clone(),
                video_ssrc: 439_041_101,
                audio_ssrc: 1_432_778_632,
            }),
        }
    }
    fn select(&mut self, id: ConnectionId, view: u8, selected: &SelectedStream) -> Result<(), Refusal> {
        self.asked.push(format!("{id}.{view} {:?}", selected.command));
        self.refuse.map_or(Ok(()), Err)
    }
}

/// The accessory and its shell.
pub struct World {
    pub acc: Accessory,
    pub now: Instant,
    pub random: SystemRandom,
    pub streams: Streams,
    pub views: Views,
    pub connections: BTreeMap<ConnectionId, (Connection, Vec<u8>)>,
    pub next: ConnectionId,
    /// What was asked of the shell, except for exponentiations and looks at events.
    pub log: Vec<String>,
    pub store: Store,
    pub picture: Option<Result<Rc<[u8]>, Status>>,
    /// How the last connection that was lost ended.
    pub lost: Option<Close>,
}

/// What becomes of a file that shall be stored.
#[derive(Clone, Copy, PartialEq)]
pub enum Store {
    Works,
    Fails,
    /// Nothing yet: the test answers.
    Waits,
}

pub fn config(features: Features) -> AccessoryConfig {
    let information = Information::new("Garden Camera", "hksvd", "hksvd-1", "A1B2C3D4", "1.0.0");
    AccessoryConfig { information, features, audio_rate_hz: 32_000, live_audio: LiveAudioOffer::Both }
}

impl World {
    pub fn new() -> Self {
        Self::with(Features { speaker: true, ..Features::default() }, Pairings::new(), None)
    }

    pub fn with(features: Features, pairings: Pairings, camera: Option<StoredCamera>) -> Self {
        let mut random = SystemRandom::new();
        let identity = pairing::Identity::generate(&mut random, Some(SetupCode::parse(CODE).unwrap()));
        let acc = Accessory::new(&config(features), identity, pairings, Setup::new(0), camera);
        let mut world = World {
            acc,
            now: Instant::from_micros(1_000_000),
            random,
            streams: Streams::default(),
            views: Views::default(),
            connections: BTreeMap::new(),
            next: 0,
            log: Vec::new(),
            store: Store::Works,
            picture: Some(Ok(Rc::from(*b"\xff\xd8JPEG"))),
            lost: None,
        };
        world.pump();
        world
    }

    pub fn accept(&mut self) -> ConnectionId {
        self.next += 1;
        self.connections.insert(self.next, (Connection::new(self.next, self.now), Vec::new()));
        self.next
    }

    /// Calls into one connection.
    pub fn on<R>(
        &mut self,
        id: ConnectionId,
        f: impl FnOnce(&mut Connection, &mut Accessory, &mut Surroundings<'_>) -> R,
    ) -> Option<R> {
        let (connection, _) = self.connections.get_mut(&id)?;
        let mut s = Surroundings {
            now: self.now,
            random: &mut self.random,
            data_streams: &mut self.streams,
            live_views: &mut self.views,
        };
        Some(f(connection, &mut self.acc, &mut s))
    }

    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        for part in bytes.chunks(1448) {
            let mut rest = part;
            while !rest.is_empty() {
                let Some(n) = self.on(id, |c, _, _| {
                    let room = c.receive_buffer();
                    let n = rest.len().min(room.len());
                    room[..n].copy_from_slice(&rest[..n]);
                    n
                }) else {
                    return;
                };
                let result = self.on(id, |c, acc, s| c.handle_received(n, acc, s));
                self.ended(id, result);
                self.pump();
                if n == 0 {
                    return;
                }
                rest = &rest[n..];
            }
        }
    }

    pub fn ended(&mut self, id: ConnectionId, result: Option<Result<(), Close>>) {
        if let Some(Err(close)) = result {
            self.lost = Some(close);
            self.close(id);
        }
    }

    pub fn close(&mut self, id: ConnectionId) {
        self.on(id, |c, acc, s| c.handle_closed(acc, s));
        self.connections.remove(&id);
    }

    /// Lets everything happen that can happen now.
    pub fn pump(&mut self) {
        loop {
            let mut idle = true;
            while let Some(effect) = self.acc.poll_effect() {
                idle = false;
                self.carry_out(effect);
            }
            for id in self.connections.keys().copied().collect::<Vec<_>>() {
                let due = self.on(id, |c, _, _| c.poll_timeout()).flatten();
                if due.is_some_and(|due| due <= self.now) {
                    let result = self.on(id, |c, acc, s| c.handle_timeout(acc, s));
                    self.ended(id, result);
                }
                let mut buf = [0; TRANSMIT_BYTES_MIN + 500];
                while let Some(n) = self.on(id, |c, acc, s| c.poll_transmit(s.now, acc, &mut buf)).flatten() {
                    idle = false;
                    self.connections.get_mut(&id).unwrap().1.extend(&buf[..n]);
                }
                let (connection, out) = match self.connections.get(&id) {
                    Some(entry) => entry,
                    None => continue,
                };
                if connection.should_close() && out.is_empty() {
                    self.close(id);
                }
            }
            if idle {
                return;
            }
        }
    }

    pub fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Notify => return,
            Effect::Compute { connection, job } => {
                let done = job.run();
                match connection {
                    Some(id) => {
                        self.on(id, |c, acc, s| c.handle_computed(done, acc, s));
                    }
                    None => self.acc.handle_prepared(done),
                }
                return;
            }
            Effect::Store { connection: Some(id), .. } if self.store != Store::Waits => {
                let ok = self.store == Store::Works;
                self.on(id, |c, acc, s| c.handle_stored(ok, acc, s));
            }
            Effect::Snapshot { connection, .. } => {
                if let Some(picture) = self.picture.clone() {
                    self.on(connection, |c, acc, _| c.handle_snapshot(picture, acc));
                }
            }
            Effect::CloseAll { except } => {
                let others = self.connections.iter_mut().filter(|(id, _)| Some(**id) != except);
                others.for_each(|(_, (c, _))| c.finish());
            }
            Effect::CloseController { ref id, except } => {
                let others = self.connections.iter_mut().filter(|(n, _)| Some(**n) != except);
                others.filter(|(_, (c, _))| c.controller() == Some(&id[..])).for_each(|(_, (c, _))| c.finish());
            }
            _ => {}
        }
        self.log.push(format!("{effect:?}"));
    }

    pub fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.pump();
    }

    pub fn stored(&self) -> StoredCamera {
        let mut buf = [0; 512];
        let mut w = Writer::new(&mut buf);
        self.acc.state.to_store().emit(&mut w);
        StoredCamera::parse(w.finish().unwrap()).unwrap()
    }

    pub fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

/// One connection of a controller to a [`World`].
pub struct Link<'a>(pub &'a mut World, pub ConnectionId);

impl Transport for Link<'_> {
    fn send(&mut self, bytes: &[u8]) {
        self.0.receive(self.1, bytes);
    }
    fn receive(&mut self) -> Vec<u8> {
        self.0.pump();
        let out = self.0.connections.get_mut(&self.1).map(|(_, out)| std::mem::take(out)).unwrap_or_default();
        self.0.pump();
        out
    }
}

/// A verified connection.
pub struct Client {
    pub id: ConnectionId,
    pub controller: Controller,
}

impl Client {
    pub fn plain(world: &mut World) -> Self {
        Client { id: world.accept(), controller: Controller::new() }
    }
    pub fn verified(world: &mut World, who: &Identity) -> Self {
        let mut client = Self::plain(world);
        client.controller.pair_verify(&mut Link(world, client.id), who).unwrap();
        client
    }
    pub fn ask(&mut self, world: &mut World, method: &str, target: &str, body: &str) -> Message {
        self.controller.exchange(&mut Link(world, self.id), method, target, body.as_bytes())
    }
    pub fn put(&mut self, world: &mut World, body: Json) -> Message {
        self.ask(world, "PUT", "/characteristics", &body.to_string())
    }
    /// Writes one value; the status of the entry, 0 for 204.
    pub fn write(&mut self, world: &mut World, iid: u64, value: Json) -> i64 {
        let message = self.put(world, json!({"characteristics":[{"aid":1,"iid":iid,"value":value}]}));
        if message.status() == 204 { 0 } else { message.json()["characteristics"][0]["status"].as_i64().unwrap() }
    }
    pub fn subscribe(&mut self, world: &mut World, iids: &[u64]) {
        let entries: Vec<Json> = iids.iter().map(|iid| json!({"aid":1,"iid":iid,"ev":true})).collect();
        assert_eq!(self.put(world, json!({"characteristics":entries})).status(), 204);
    }
    pub fn read(&mut self, world: &mut World, iid: u64) -> Json {
        self.controller.get(&mut Link(world, self.id), iid)
    }
    /// The events that have come: (iid, value) of each message.
    pub fn events(&mut self, world: &mut World) -> Vec<Vec<(u64, Json)>> {
        let bytes = Link(world, self.id).receive();
        self.controller.feed(&bytes);
        let one = |e: &Json| (e["iid"].as_u64().unwrap(), e["value"].clone());
        let entries = |m: Message| m.json()["characteristics"].as_array().unwrap().iter().map(one).collect();
        self.controller.events.drain(..).map(entries).collect()
    }
}

/// A paired world: the admin and a connection of it.
pub fn paired() -> (World, Identity, Client) {
    paired_with(World::new())
}

pub fn paired_with(mut world: World) -> (World, Identity, Client) {
    let mut who = Identity::new("AD0BE000-0000-4000-8000-000000000001");
    let mut client = Client::plain(&mut world);
    client.controller.pair_setup(&mut Link(&mut world, client.id), &mut who, CODE).unwrap();
    let client = Client::verified(&mut world, &who);
    world.log();
    (world, who, client)
}
