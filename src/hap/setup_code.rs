//! The setup code and what a label shows of it: setup id, setup hash, payload of the QR code
//! (HAP R2 §4.2.1).

use super::pairing::DeviceId;
use crate::crypto::{Random, Secret, sha512};
use crate::wire::Writer;
use core::fmt::Write;

/// Characters of a setup id, and digits of the payload's number.
const BASE36: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Eight digits that a person types to pair, as `XXX-XX-XXX`. Hidden in `Debug`, overwritten when
/// dropped.
#[derive(Clone, Debug)]
pub struct SetupCode(Secret<10>);

/// Why a text is no setup code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidSetupCode {
    /// Not `XXX-XX-XXX` with digits for X.
    Shape,
    /// One that anybody would try first (HAP R2 §4.2.1.2).
    Trivial,
}

impl core::fmt::Display for InvalidSetupCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            InvalidSetupCode::Shape => "a setup code is eight digits, written XXX-XX-XXX",
            InvalidSetupCode::Trivial => "HomeKit forbids this setup code because it is too easy to guess",
        })
    }
}

impl SetupCode {
    /// Reads `XXX-XX-XXX`.
    ///
    /// # Errors
    /// When the text has another shape, or is one of the twelve codes that HomeKit forbids.
    pub fn parse(text: &str) -> Result<Self, InvalidSetupCode> {
        let bytes: &[u8; 10] = text.as_bytes().try_into().map_err(|_| InvalidSetupCode::Shape)?;
        let shape = |(at, &b): (usize, &u8)| if at == 3 || at == 6 { b == b'-' } else { b.is_ascii_digit() };
        if !bytes.iter().enumerate().all(shape) {
            return Err(InvalidSetupCode::Shape);
        }
        let code = SetupCode(Secret::new(*bytes));
        // The eight equal digits are the multiples of 11,111,111.
        if code.number().is_multiple_of(11_111_111) || matches!(code.number(), 12_345_678 | 87_654_321) {
            return Err(InvalidSetupCode::Trivial);
        }
        Ok(code)
    }

    /// Draws a code; every permitted one is equally likely.
    pub fn generate(random: &mut dyn Random) -> Self {
        loop {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            // 27 bits are the least that hold 10^8; what lies above is drawn again, not folded in.
            let number = u32::from_le_bytes(bytes) >> 5;
            let mut text = Secret::<10>::new([0; 10]);
            let (first, middle, last) = (number / 100_000, number / 1000 % 100, number % 1000);
            let written = write!(Writer::new(text.as_mut_bytes()), "{first:03}-{middle:02}-{last:03}");
            let text = core::str::from_utf8(text.as_bytes()).ok().filter(|_| written.is_ok());
            let code = text.and_then(|text| Self::parse(text).ok());
            if let Some(code) = code {
                return code;
            }
        }
    }

    /// The code with its dashes, as it is shown and as SRP takes it.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.0.as_bytes()).expect("digits and dashes, checked by parse")
    }

    /// The eight digits as one number.
    fn number(&self) -> u32 {
        self.0.as_bytes().iter().filter(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + u32::from(b - b'0'))
    }
}

/// Draws the four characters that tell one accessory's QR code from another's.
pub fn generate_setup_id(random: &mut dyn Random) -> [u8; 4] {
    let mut id = [0; 4];
    for character in &mut id {
        *character = loop {
            let mut byte = [0];
            random.fill(&mut byte);
            // 252 is the last multiple of 36 in a byte.
            if byte[0] < 252 {
                break BASE36[usize::from(byte[0] % 36)];
            }
        };
    }
    id
}

/// Whether these are four characters that a setup id may have.
pub fn is_setup_id(id: &[u8]) -> bool {
    id.len() == 4 && id.iter().all(|c| BASE36.contains(c))
}

/// The TXT entry `sh`: by it a controller knows the accessory whose code it has scanned
/// (HAP R2 §6.4, table 6-7). Base64 of four bytes.
pub fn setup_hash(setup_id: &[u8; 4], device_id: &DeviceId) -> heapless::String<8> {
    let hash = sha512(&[setup_id, device_id.as_str().as_bytes()]);
    let mut text = [0; 8];
    crate::wire::base64::encode(&hash[..4], &mut text);
    text.iter().map(|&b| char::from(b)).collect()
}

/// The content of the QR code, `X-HM://` and 13 characters, for an accessory of HAP category
/// `category` that speaks over IP.
pub fn setup_uri(code: &SetupCode, setup_id: &[u8; 4], category: u8) -> heapless::String<20> {
    const IP: u64 = 1 << 28;
    payload(code, setup_id, category, IP)
}

fn payload(code: &SetupCode, setup_id: &[u8; 4], category: u8, transports: u64) -> heapless::String<20> {
    let mut number = u64::from(category) << 31 | transports | u64::from(code.number());
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit = BASE36[(number % 36) as usize];
        number /= 36;
    }
    b"X-HM://".iter().chain(&digits).chain(setup_id).map(|&b| char::from(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{FixedRandom, vectors};
    use serde_json::Value;

    fn text(v: &Value) -> &str {
        v.as_str().unwrap()
    }

    fn id(v: &Value) -> [u8; 4] {
        text(v).as_bytes().try_into().unwrap()
    }

    #[test]
    fn hashes_as_in_the_vectors() {
        for vector in vectors("setup")["setup_hash"].as_array().unwrap() {
            let device = DeviceId::parse(text(&vector["device_id"])).unwrap();
            assert_eq!(setup_hash(&id(&vector["setup_id"]), &device), text(&vector["sh"]));
        }
    }

    #[test]
    fn makes_the_payloads_of_the_vectors() {
        for vector in vectors("setup")["setup_uri"].as_array().unwrap() {
            let code = SetupCode::parse(text(&vector["setup_code"])).unwrap();
            let (setup_id, category) = (id(&vector["setup_id"]), vector["category"].as_u64().unwrap() as u8);
            let bit = |name: &str, at: u32| u64::from(vector[name].as_bool().unwrap()) << at;
            let uri = payload(&code, &setup_id, category, bit("ip", 28) | bit("ble", 29));
            assert_eq!(uri, text(&vector["uri"]));
            if vector["ip"] == true && vector["ble"] == false {
                assert_eq!(setup_uri(&code, &setup_id, category), text(&vector["uri"]));
            }
        }
    }

    #[test]
    fn refuses_trivial_and_malformed_codes() {
        let setup = vectors("setup");
        for code in setup["invalid_setup_codes"].as_array().unwrap() {
            assert_eq!(SetupCode::parse(text(code)).unwrap_err(), InvalidSetupCode::Trivial);
        }
        for code in setup["malformed_setup_codes"].as_array().unwrap() {
            assert_eq!(SetupCode::parse(text(code)).unwrap_err(), InvalidSetupCode::Shape);
        }
        for code in ["031-45-1545", "031-45-15é", "031-4５-154", " 31-45-154", "031 45 154"] {
            assert_eq!(SetupCode::parse(code).unwrap_err(), InvalidSetupCode::Shape);
        }
        assert_eq!(SetupCode::parse("000-00-001").unwrap().as_str(), "000-00-001");
    }

    #[test]
    fn draws_again_what_is_no_code() {
        let draw = |number: u32| (number << 5).to_le_bytes().to_vec();
        let mut random = FixedRandom::new(&[draw(100_000_000), draw(0), draw(12_345_678), draw(3_145_154)]);
        assert_eq!(SetupCode::generate(&mut random).as_str(), "031-45-154");
        assert!(random.pieces.is_empty());
    }

    #[test]
    fn setup_ids_are_drawn_evenly() {
        let mut random = FixedRandom::new(&[vec![255], vec![251], vec![0], vec![252], vec![10], vec![36]]);
        let id = generate_setup_id(&mut random);
        assert_eq!(&id, b"Z0A0");
        assert!(is_setup_id(&id));
        assert!(!is_setup_id(b"abcd") && !is_setup_id(b"ABC") && !is_setup_id(b"AB-C"));
    }

    #[test]
    fn the_code_is_hidden() {
        let code = SetupCode::parse("031-45-154").unwrap();
        assert_eq!(format!("{code:?}"), "SetupCode(…)");
    }
}
