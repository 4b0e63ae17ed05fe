//! What controllers read before they connect: the TXT record and the name.

use super::effects;
use super::shared::Shared;
use crate::hap::accessory::Accessory;
use crate::hap::setup_code::{setup_hash, setup_uri};
use crate::io::runtime::now;
use crate::mdns::{Event, Service, Txt, host_label, instance_label};
use std::rc::Rc;

/// `sf`, bit 0: nobody is paired (HAP R2 §6.4, table 6-8).
const NOT_PAIRED: u8 = 1;

fn txt(accessory: &Accessory) -> Txt {
    let identity = &accessory.identity;
    Txt {
        config_number: accessory.state.configuration_number(),
        // Seventeen characters, by its type.
        device_id: identity.device_id.as_str().try_into().unwrap_or_default(),
        model: accessory.state.information().model.clone(),
        status_flags: if accessory.is_paired() { 0 } else { NOT_PAIRED },
        category: accessory.category(),
        setup_hash: setup_hash(&identity.setup_id, &identity.device_id),
    }
}

/// The service of this accessory on `port`.
pub fn service(accessory: &Accessory, name: &str, port: u16) -> Service {
    let device_id = accessory.identity.device_id.as_str();
    Service { instance: instance_label(name, device_id), host: host_label(device_id), port, txt: txt(accessory) }
}

/// `c#` or `sf` may have changed.
pub fn update(shared: &Shared) {
    let txt = txt(&shared.accessory.borrow());
    log::debug!(target: "mdns", "c#={} sf={}", txt.config_number, txt.status_flags);
    shared.responder.borrow_mut().set_txt(txt, now());
    shared.responder_changed.notify();
}

/// Follows what the responder finds out, for ever.
pub async fn follow(shared: Rc<Shared>) {
    loop {
        let seen = shared.responder_changed.count();
        loop {
            let Some(event) = shared.responder.borrow_mut().poll_event() else { break };
            match event {
                Event::Renamed { instance } => {
                    log::warn!(target: "mdns", "the name is taken on this network; now \"{instance}\"");
                    // HAP R2 §6.4.4: the Name characteristic is the advertised name.
                    shared.accessory.borrow_mut().state.set_name(&instance);
                    effects::run(&shared);
                }
                Event::HostRenamed { host } => log::info!(target: "mdns", "host name is {host}.local"),
            }
        }
        shared.responder_changed.changed(seen).await;
    }
}

/// The setup payload: what the QR code says.
pub fn setup_payload(accessory: &Accessory) -> heapless::String<20> {
    setup_uri(&accessory.identity.setup_code, &accessory.identity.setup_id, accessory.category())
}
