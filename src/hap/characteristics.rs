//! `/accessories`, `/characteristics` and `/prepare`: the attribute database over HTTP (HAP R2 §6.6,
//! §6.7).

use super::ConnectionId;
use super::camera_tlv::DataStreamAnswer;
use super::database::{self, Characteristic, SERVICES};
use super::events::Subscriptions;
use super::reply::{BODY_MAX, Reply};
use super::state::{Caller, State, put_tlv};
use super::types::{Perms, Status};
use crate::time::{Duration, Instant};
use crate::wire::Writer;
use crate::wire::http::CharacteristicsQuery;
use crate::wire::json::{self, Prepare, Write, Writes};
use core::fmt::Write as _;

/// The accessory stands alone: its aid is 1 (HAP R2 §2.6.1).
const AID: u64 = 1;
/// Room for the whole database: a test fills it to the last text.
const DATABASE_MAX: usize = 16 * 1024;
/// Room for one entry of a read with its metadata and the longest TLV8.
const ENTRY_MAX: usize = 640;
/// A timed write is not kept open for longer.
const TTL_MAX: Duration = Duration::from_secs(3600);

/// A timed write that was announced by `/prepare` (HAP R2 §6.7.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timed {
    pid: u64,
    until: Instant,
}

/// Answers `GET /accessories`.
pub(super) fn accessories(state: &State, connection: ConnectionId) -> Reply {
    Reply::json(200, DATABASE_MAX, |w| {
        let _ = write!(w, "{{\"accessories\":[{{\"aid\":{AID},\"services\":[");
        let services = SERVICES.iter().filter(|service| state.features().have(service.when));
        for (n, service) in services.enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(w, "{comma}{{\"iid\":{},\"type\":\"{}\",\"characteristics\":[", service.iid, service.kind);
            let characteristics = service.characteristics.iter().filter(|c| state.features().have(c.when));
            for (n, c) in characteristics.enumerate() {
                put_characteristic(w, n > 0, c, state, connection);
            }
            w.u8(b']');
            if service.primary {
                w.bytes(b",\"primary\":true");
            }
            if !service.linked.is_empty() {
                w.bytes(b",\"linked\":");
                put_numbers(w, service.linked.iter().map(|iid| u32::from(*iid)));
            }
            w.u8(b'}');
        }
        w.bytes(b"]}]}");
    })
}

fn put_characteristic(w: &mut Writer<'_>, more: bool, c: &Characteristic, state: &State, connection: ConnectionId) {
    let _ = write!(w, "{}{{\"iid\":{},\"type\":\"{}\",\"perms\":", if more { "," } else { "" }, c.iid, c.kind);
    c.perms.put(w);
    put_metadata(w, c, state);
    if c.perms.has(Perms::READ) {
        w.bytes(b",\"value\":");
        // Nothing was selected yet: here that is an empty value, a read of its own would fail.
        if state.read(c.field, connection, w).is_err() {
            w.bytes(b"\"\"");
        }
    }
    w.u8(b'}');
}

/// Appends format, unit and limits.
fn put_metadata(w: &mut Writer<'_>, c: &Characteristic, state: &State) {
    let _ = write!(w, ",\"format\":\"{}\"", c.format.name());
    if let Some(unit) = c.unit {
        let _ = write!(w, ",\"unit\":\"{}\"", unit.name());
    }
    if let Some((min, max)) = c.range {
        let _ = write!(w, ",\"minValue\":{min},\"maxValue\":{max},\"minStep\":1");
    }
    let valid = state.features().valid(c);
    if !valid.is_empty() {
        w.bytes(b",\"valid-values\":");
        put_numbers(w, valid.iter().map(|n| u32::from(*n)));
    }
}

fn put_numbers(w: &mut Writer<'_>, numbers: impl Iterator<Item = u32>) {
    w.u8(b'[');
    for (n, number) in numbers.enumerate() {
        let _ = write!(w, "{}{number}", if n > 0 { "," } else { "" });
    }
    w.u8(b']');
}

/// Answers `GET /characteristics`.
pub(super) fn read(query: &str, state: &State, subscriptions: &Subscriptions, connection: ConnectionId) -> Reply {
    let Ok(query) = CharacteristicsQuery::parse(query) else {
        return Reply::status(400, Status::InvalidValue);
    };
    let room = query.ids().count().saturating_mul(ENTRY_MAX).saturating_add(64).min(BODY_MAX);
    let put = |w: &mut Writer<'_>, with_status: bool| {
        let mut failed = false;
        w.bytes(b"{\"characteristics\":[");
        for (n, (aid, iid)) in query.ids().enumerate() {
            let _ = write!(w, "{}{{\"aid\":{aid},\"iid\":{iid}", if n > 0 { "," } else { "" });
            let status = match put_read(w, aid, iid, &query, state, subscriptions, connection) {
                Ok(()) => Status::Success,
                Err(status) => status,
            };
            failed |= status != Status::Success;
            if with_status {
                let _ = write!(w, ",\"status\":{}", status.code());
            }
            w.u8(b'}');
        }
        w.bytes(b"]}");
        failed
    };
    // One failure gives every entry a status.
    let mut failed = false;
    let reply = Reply::json(200, room, |w| failed = put(w, false));
    if !failed {
        return reply;
    }
    Reply::json(207, room, |w| {
        put(w, true);
    })
}

fn put_read(
    w: &mut Writer<'_>,
    aid: u64,
    iid: u64,
    query: &CharacteristicsQuery<'_>,
    state: &State,
    subscriptions: &Subscriptions,
    connection: ConnectionId,
) -> Result<(), Status> {
    let (place, c) = find(aid, iid, state)?;
    if !c.perms.has(Perms::READ) {
        return Err(Status::WriteOnly);
    }
    let at = w.len();
    w.bytes(b",\"value\":");
    if let Err(status) = state.read(c.field, connection, w) {
        // An overflow must stay one.
        if !w.is_full() {
            w.truncate(at);
        }
        return Err(status);
    }
    if query.meta {
        put_metadata(w, c, state);
    }
    if query.perms {
        w.bytes(b",\"perms\":");
        c.perms.put(w);
    }
    if query.kind {
        let _ = write!(w, ",\"type\":\"{}\"", c.kind);
    }
    if query.ev {
        let _ = write!(w, ",\"ev\":{}", subscriptions.contains(place));
    }
    Ok(())
}

fn find(aid: u64, iid: u64, state: &State) -> Result<(database::Place, &'static Characteristic), Status> {
    if aid != AID {
        return Err(Status::DoesNotExist);
    }
    database::find(state.features(), iid).ok_or(Status::DoesNotExist)
}

/// Answers `PUT /prepare`. A new one replaces the one before.
pub(super) fn prepare(body: &[u8], now: Instant, timed: &mut Option<Timed>) -> Reply {
    match json::parse::<Prepare>(body) {
        Ok(Prepare { ttl, pid }) => {
            *timed = Some(Timed { pid, until: now + Duration::from_millis(ttl).min(TTL_MAX) });
            Reply::status(200, Status::Success)
        }
        Err(_) => Reply::status(400, Status::InvalidValue),
    }
}

/// Answers `PUT /characteristics`.
pub(super) fn write(
    body: &[u8],
    admin: bool,
    now: Instant,
    timed: &mut Option<Timed>,
    state: &mut State,
    subscriptions: &mut Subscriptions,
    caller: &mut Caller<'_>,
) -> Reply {
    let Ok(writes) = json::parse::<Writes<'_>>(body) else {
        return Reply::status(400, Status::InvalidValue);
    };
    let entries = &writes.characteristics;
    let twice = |(n, entry): (usize, &Write<'_>)| entries[..n].iter().any(|e| (e.aid, e.iid) == (entry.aid, entry.iid));
    if entries.iter().enumerate().any(twice) {
        return Reply::status(422, Status::InvalidValue);
    }
    // The first write with a pid uses the prepared one up, whether it is the same or not.
    let permit = writes.pid.map(|pid| timed.take().is_some_and(|timed| timed.pid == pid && now <= timed.until));
    let outcomes: Vec<_> = entries
        .iter()
        .map(|entry| match permit {
            Some(false) => Err(Status::InvalidValue),
            permit => write_one(entry, admin, permit == Some(true), state, subscriptions, caller),
        })
        .collect();
    if outcomes.iter().all(|outcome| matches!(outcome, Ok(None))) {
        return Reply::empty(204);
    }
    Reply::json(207, 64 + entries.len() * 192, |w| {
        w.bytes(b"{\"characteristics\":[");
        for (n, (entry, outcome)) in entries.iter().zip(&outcomes).enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(w, "{comma}{{\"aid\":{},\"iid\":{}", entry.aid, entry.iid);
            if let Ok(Some(answer)) = outcome {
                w.bytes(b",\"value\":");
                put_tlv(w, |w| answer.put(w));
            }
            let status = outcome.as_ref().err().copied().unwrap_or(Status::Success);
            let _ = write!(w, ",\"status\":{}}}", status.code());
        }
        w.bytes(b"]}");
    })
}

/// Carries out one entry; the value of the write response, when it is asked for and there is one.
fn write_one(
    entry: &Write<'_>,
    admin: bool,
    timed: bool,
    state: &mut State,
    subscriptions: &mut Subscriptions,
    caller: &mut Caller<'_>,
) -> Result<Option<DataStreamAnswer>, Status> {
    let (place, c) = find(entry.aid, entry.iid, state)?;
    if entry.value.is_none() && entry.ev.is_none() {
        return Err(Status::InvalidValue);
    }
    if entry.ev.is_some() && !c.perms.has(Perms::EVENT) {
        return Err(Status::NotificationNotSupported);
    }
    let mut answer = None;
    if let Some(value) = &entry.value {
        if !c.perms.has(Perms::WRITE) {
            return Err(Status::ReadOnly);
        }
        if c.perms.has(Perms::ADMIN) && !admin {
            return Err(Status::InsufficientPrivileges);
        }
        if c.perms.has(Perms::TIMED) && !timed {
            return Err(Status::InvalidValue);
        }
        answer = state.write(c.field, value, caller)?;
    }
    if let Some(on) = entry.ev {
        subscriptions.set(place, on, state);
    }
    Ok(answer.filter(|_| entry.r == Some(true) && c.perms.has(Perms::RESPONSE)))
}
