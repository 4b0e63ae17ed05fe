//! Pins of the processor through sysfs (Documentation/gpio/sysfs.txt): cameras' kernels are older than the
//! character device.

use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes pin `number` an output of this level. `root` is `/sys/class/gpio`.
///
/// # Errors
/// When there is no such pin, or a driver of the kernel has it.
pub fn set(root: &Path, number: u32, high: bool) -> io::Result<()> {
    let pin = root.join(format!("gpio{number}"));
    let write = |file: &Path, value: &str| {
        // Not `fs::write`: what is not there must not come to be.
        std::fs::File::options().write(true).open(file).and_then(|mut f| io::Write::write_all(&mut f, value.as_bytes()))
    };
    let value = pin.join("value");
    if !value.exists() {
        match write(&root.join("export"), &number.to_string()) {
            // Somebody else has exported it in between.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && value.exists() => {}
            result => result?,
        }
    }
    // "high" and "low" set the direction and the level in one: the light does not flash.
    write(&pin.join("direction"), if high { "high" } else { "low" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_exported_once_and_set() {
        let root = std::env::temp_dir().join(format!("hksvd-gpio-{}", std::process::id()));
        std::fs::create_dir_all(root.join("gpio17")).expect("made");
        let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
        for file in ["export", "gpio17/value", "gpio17/direction"] {
            std::fs::write(root.join(file), "").expect("made");
        }
        set(&root, 17, true).expect("set");
        assert_eq!((read("export"), read("gpio17/direction")), (String::new(), "high".into()));
        // It is there for the kernel only after the export.
        std::fs::remove_file(root.join("gpio17/value")).expect("removed");
        set(&root, 17, false).expect("set");
        assert!(read("export").starts_with("17"));
        assert!(read("gpio17/direction").starts_with("low"));
        assert_eq!(set(&root, 18, true).expect_err("no such pin").kind(), ErrorKind::NotFound);
        std::fs::remove_dir_all(&root).expect("removed");
    }
}
