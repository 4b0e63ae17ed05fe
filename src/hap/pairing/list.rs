//! `/pairings`: an admin adds, removes and lists controllers (HAP R2 §5.10–§5.12).

use super::{ControllerId, Error, NotAdded, Pairing, Pairings, controller_id, is_admin, refuse, tag};
use crate::wire::{Malformed, Writer, tlv8};

const ADD: u64 = 3;
const REMOVE: u64 = 4;
const LIST: u64 = 5;

/// What a request to `/pairings` came to. Except for `BadRequest` the reply was appended to the writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListOutcome {
    /// Nothing changed.
    Reply,
    /// A pairing was added or its permissions changed: store before the reply leaves.
    Changed,
    /// The pairing of this controller is gone: store, reply, then close all its sessions.
    Removed(ControllerId),
    /// The last admin went, and everybody with it: store, reply, close all sessions, announce `sf=1`.
    RemovedAll,
    /// Malformed: HTTP 400.
    BadRequest,
}

/// Answers `request` of a controller that is or is not `admin` at this moment.
pub fn handle(request: &[u8], admin: bool, pairings: &mut Pairings, out: &mut Writer<'_>) -> ListOutcome {
    answer(request, admin, pairings, out).unwrap_or(ListOutcome::BadRequest)
}

/// The reply when the changed table could not be stored. The caller has put the old one back.
pub fn not_stored(out: &mut Writer<'_>) {
    refuse(out, 2, Error::Unknown);
}

fn answer(
    request: &[u8],
    admin: bool,
    pairings: &mut Pairings,
    out: &mut Writer<'_>,
) -> Result<ListOutcome, Malformed> {
    let uint = |tag| tlv8::find(request, tag).map(|value| value.and_then(|v| v.uint()));
    if uint(tag::STATE)? != Some(1) {
        return Err(Malformed("not the first message of a procedure"));
    }
    let method = uint(tag::METHOD)?.ok_or(Malformed("no method"))?;
    if !matches!(method, ADD | REMOVE | LIST) {
        return Err(Malformed("not a method of pairings"));
    }
    if !admin {
        refuse(out, 2, Error::Authentication);
        return Ok(ListOutcome::Reply);
    }
    if method == LIST {
        tlv8::put_u8(out, tag::STATE, 2);
        pairings.emit_list(out);
        return Ok(ListOutcome::Reply);
    }
    let id = tlv8::find(request, tag::IDENTIFIER)?.and_then(controller_id).ok_or(Malformed("no identifier"))?;
    if method == ADD {
        return add(request, id, pairings, out);
    }
    tlv8::put_u8(out, tag::STATE, 2);
    Ok(remove(id, pairings))
}

fn add(
    request: &[u8],
    id: ControllerId,
    pairings: &mut Pairings,
    out: &mut Writer<'_>,
) -> Result<ListOutcome, Malformed> {
    let public = tlv8::find(request, tag::PUBLIC_KEY)?.and_then(|v| v.array()).ok_or(Malformed("no public key"))?;
    let admin = tlv8::find(request, tag::PERMISSIONS)?.and_then(is_admin).ok_or(Malformed("no permissions"))?;
    let changed = match pairings.add(Pairing { id, public, admin }) {
        Ok(changed) => changed,
        Err(why) => {
            refuse(out, 2, if why == NotAdded::Full { Error::MaxPeers } else { Error::Unknown });
            return Ok(ListOutcome::Reply);
        }
    };
    tlv8::put_u8(out, tag::STATE, 2);
    Ok(if changed { ListOutcome::Changed } else { ListOutcome::Reply })
}

fn remove(id: ControllerId, pairings: &mut Pairings) -> ListOutcome {
    match (pairings.remove(&id), pairings.is_empty()) {
        // Somebody else's removal came first: what was asked for is so.
        (false, _) => ListOutcome::Reply,
        (true, false) => ListOutcome::Removed(id),
        (true, true) => ListOutcome::RemovedAll,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{array, hex, vectors};
    use crate::hap::pairing::{MAX_PAIRINGS, MAX_REPLY};
    use heapless::Vec;

    fn pairing(id: &str, public: [u8; 32], admin: bool) -> Pairing {
        Pairing { id: Vec::from_slice(id.as_bytes()).unwrap(), public, admin }
    }

    /// The admin of the vectors.
    fn paired() -> Pairings {
        let admin = &vectors("pairings")["admin"];
        let mut pairings = Pairings::new();
        pairings.add(pairing(admin["id"].as_str().unwrap(), array(&admin["ltpk"]), true)).unwrap();
        pairings
    }

    fn ask(request: &[u8], admin: bool, pairings: &mut Pairings) -> (ListOutcome, std::vec::Vec<u8>) {
        let mut buf = [0; MAX_REPLY];
        let mut out = Writer::new(&mut buf);
        let outcome = handle(request, admin, pairings, &mut out);
        (outcome, out.finish().unwrap().to_vec())
    }

    #[test]
    fn adds_lists_and_removes_as_in_the_vectors() {
        let v = vectors("pairings");
        let second: ControllerId = Vec::from_slice(v["second"]["id"].as_str().unwrap().as_bytes()).unwrap();
        let mut pairings = paired();
        assert_eq!(ask(&hex(&v["add_request"]), true, &mut pairings), (ListOutcome::Changed, hex(&v["ok"])));
        assert_eq!(pairings.find(&second).unwrap().public, array(&v["second"]["ltpk"]));
        // The same again changes nothing.
        assert_eq!(ask(&hex(&v["add_request"]), true, &mut pairings), (ListOutcome::Reply, hex(&v["ok"])));
        let list = ask(&hex(&v["list_request"]), true, &mut pairings);
        assert_eq!(list, (ListOutcome::Reply, hex(&v["list_response"])));
        let remove = hex(&v["remove_request"]);
        assert_eq!(ask(&remove, true, &mut pairings), (ListOutcome::Removed(second), hex(&v["ok"])));
        assert_eq!(ask(&remove, true, &mut pairings), (ListOutcome::Reply, hex(&v["ok"])));
        assert_eq!(pairings, paired());
    }

    #[test]
    fn refuses_whoever_is_no_admin() {
        let v = vectors("pairings");
        for request in ["add_request", "remove_request", "list_request"] {
            let mut pairings = paired();
            let answer = ask(&hex(&v[request]), false, &mut pairings);
            assert_eq!(answer, (ListOutcome::Reply, hex(&v["unauthorized"])));
            assert_eq!(pairings, paired());
        }
    }

    #[test]
    fn a_known_id_keeps_its_key() {
        let v = vectors("pairings");
        let mut pairings = paired();
        pairings.add(pairing(v["second"]["id"].as_str().unwrap(), [9; 32], true)).unwrap();
        let before = pairings.clone();
        let answer = ask(&hex(&v["add_request"]), true, &mut pairings);
        assert_eq!(answer, (ListOutcome::Reply, hex(&v["unknown_key_mismatch"])));
        assert_eq!(pairings, before);
    }

    #[test]
    fn the_table_has_an_end() {
        let v = vectors("pairings");
        let mut pairings = paired();
        for n in 1..MAX_PAIRINGS {
            pairings.add(pairing(&n.to_string(), [n as u8; 32], false)).unwrap();
        }
        let answer = ask(&hex(&v["add_request"]), true, &mut pairings);
        assert_eq!(answer, (ListOutcome::Reply, hex(&v["max_peers"])));
        let (outcome, list) = ask(&hex(&v["list_request"]), true, &mut pairings);
        assert_eq!(outcome, ListOutcome::Reply);
        assert_eq!(tlv8::Items::new(&list).filter(|i| i.as_ref().unwrap().tag == tag::SEPARATOR).count(), 31);
    }

    #[test]
    fn the_last_admin_takes_everybody_along() {
        let mut pairings = paired();
        let admin = pairings.iter().next().unwrap().clone();
        pairings.add(pairing("guest", [1; 32], false)).unwrap();
        let mut request = [0; 64];
        let mut w = Writer::new(&mut request);
        w.bytes(&[6, 1, 1, 0, 1, 4]);
        tlv8::put(&mut w, tag::IDENTIFIER, &admin.id);
        assert_eq!(ask(w.written(), true, &mut pairings), (ListOutcome::RemovedAll, vec![6, 1, 2]));
        assert!(pairings.is_empty());
    }

    #[test]
    fn permissions_change_but_an_admin_stays() {
        let mut pairings = paired();
        let admin = pairings.iter().next().unwrap().clone();
        let demoted = Pairing { admin: false, ..admin.clone() };
        assert_eq!(pairings.add(demoted.clone()), Err(NotAdded::LastAdmin));
        pairings.add(pairing("second", [1; 32], true)).unwrap();
        assert_eq!(pairings.add(demoted), Ok(true));
        assert!(!pairings.is_admin(&admin.id) && pairings.is_admin(b"second"));
    }

    #[test]
    fn malformed_requests_change_nothing() {
        let v = vectors("pairings");
        let add = hex(&v["add_request"]);
        let mut requests: std::vec::Vec<std::vec::Vec<u8>> = (0..add.len()).map(|cut| add[..cut].to_vec()).collect();
        requests.push(vec![6, 1, 1, 0, 1, 9]);
        requests.push(vec![6, 1, 3, 0, 1, 5]);
        requests.push(vec![6, 1, 1, 0, 1, 4, 1, 0]);
        requests.push([&[6, 1, 1, 0, 1, 4, 1, 37][..], &[b'a'; 37]].concat());
        requests.push(vec![6, 1, 1, 0, 1, 4, 1, 1, 0xff]);
        for request in requests {
            let mut pairings = paired();
            let answer = ask(&request, true, &mut pairings);
            assert_eq!(answer, (ListOutcome::BadRequest, vec![]), "{request:02x?}");
            assert_eq!(pairings, paired());
        }
    }

    #[test]
    fn what_cannot_be_stored_is_told() {
        let mut buf = [0; 8];
        let mut out = Writer::new(&mut buf);
        not_stored(&mut out);
        assert_eq!(out.written(), hex(&vectors("pairings")["unknown_key_mismatch"]));
    }
}
