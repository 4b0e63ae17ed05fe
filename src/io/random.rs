//! The kernel's randomness.

use super::runtime::Fd;
use crate::crypto::{Agreement, Random, SharedSecret};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::SecureRandom;

/// The kernel's random numbers, and keys made of them.
///
/// ring asks `getrandom` and falls back to `/dev/urandom`, which kernel 3.10 has alone. The fallback
/// does not wait for the pool to be seeded: whoever makes a key that lasts awaits [`seeded`] first.
pub struct SystemRandom(ring::rand::SystemRandom);

impl SystemRandom {
    /// Opens nothing yet.
    pub fn new() -> Self {
        SystemRandom(ring::rand::SystemRandom::new())
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemRandom {
    /// # Panics
    /// When the kernel has neither `getrandom` nor `/dev/urandom`: every key would be known.
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out).expect("the kernel gives random bytes (is /dev/urandom there?)");
    }

    fn x25519(&mut self, peer: &[u8; 32]) -> Option<Agreement> {
        let private = EphemeralPrivateKey::generate(&X25519, &self.0)
            .expect("the kernel gives random bytes (is /dev/urandom there?)");
        let mut public = [0; 32];
        public.copy_from_slice(private.compute_public_key().expect("a fresh key has a public half").as_ref());
        agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, peer), |shared| <[u8; 32]>::try_from(shared).ok())
            .ok()
            .flatten()
            .map(|shared| Agreement { public, shared: SharedSecret::new(shared) })
    }
}

/// Waits until the kernel has gathered enough entropy for `/dev/random` to be readable. A camera that
/// boots for the first time has next to none, and its identity is made of what there is.
///
/// # Errors
/// When `/dev/random` cannot be opened or polled; the caller may well go on without the wait.
pub async fn seeded() -> std::io::Result<()> {
    Fd::new(std::fs::File::open("/dev/random")?)?.readable().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_point_gives_our_own_public_key() {
        let mut random = SystemRandom::new();
        let mut base = [0; 32];
        base[0] = 9;
        let (a, b) = (random.x25519(&base).unwrap(), random.x25519(&base).unwrap());
        // RFC 7748 §6.1: both are X25519(private, 9).
        assert_eq!(a.shared.as_bytes(), &a.public);
        assert_ne!(a.public, b.public);
    }

    #[test]
    fn points_of_low_order_are_refused() {
        let mut one = [0; 32];
        assert!(SystemRandom::new().x25519(&one).is_none());
        one[0] = 1;
        assert!(SystemRandom::new().x25519(&one).is_none());
    }

    #[test]
    fn fills_all_bytes() {
        let mut bytes = [0; 64];
        SystemRandom::new().fill(&mut bytes);
        assert!(bytes.iter().filter(|&&b| b == 0).count() < 16);
    }

    #[test]
    fn the_pool_of_a_running_machine_is_seeded() {
        crate::io::runtime::Executor::default().block_on(seeded()).unwrap();
    }
}
