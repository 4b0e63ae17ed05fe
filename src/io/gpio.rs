//! Pins of the processor through sysfs (Documentation/gpio/sysfs.txt): cameras' kernels are older than the
//! character device.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Makes pin `number` an output of this level. `root` is `/sys/class/gpio`.
///
/// # Errors
/// When there is no such pin, or a driver of the kernel has it.
pub fn set(root: &Path, number: u32, high: bool) -> io::Result<()> {
    // "high" and "low" set the direction and the level in one: the light does not flash.
    write(&exported(root, number)?.join("direction"), if high { "high" } else { "low" })
}

/// Not `fs::write`: what is not there must not come to be.
fn write(file: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(file).and_then(|mut file| file.write_all(value.as_bytes()))
}

/// The folder of a pin.
fn exported(root: &Path, number: u32) -> io::Result<PathBuf> {
    let pin = root.join(format!("gpio{number}"));
    let value = pin.join("value");
    if !value.exists() {
        match write(&root.join("export"), &number.to_string()) {
            // Somebody else has exported it in between.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && value.exists() => {}
            result => result?,
        }
    }
    Ok(pin)
}

/// A pin that is an input.
pub struct Input {
    value: File,
    /// Whether its interrupt tells of changes: then [`Input::is_high`] resets what [`Input::file`] says of them.
    pub has_edges: bool,
}

impl Input {
    /// Makes pin `number` an input that tells of changes, if it can.
    ///
    /// # Errors
    /// As [`set`].
    pub fn open(root: &Path, number: u32) -> io::Result<Self> {
        let pin = exported(root, number)?;
        match write(&pin.join("direction"), "in") {
            // A pin that can only be an input has no such file.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result?,
        }
        // Refused, or not there, where the pin has no interrupt.
        let has_edges = write(&pin.join("edge"), "both").is_ok();
        Ok(Input { value: File::open(pin.join("value"))?, has_edges })
    }

    /// The level.
    ///
    /// # Errors
    /// When the pin is gone.
    pub fn is_high(&self) -> io::Result<bool> {
        let mut digit = [0];
        match self.value.read_at(&mut digit, 0)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(digit[0] != b'0'),
        }
    }

    /// What has urgent data when the level has changed.
    pub fn file(&self) -> &File {
        &self.value
    }
}

/// Lights a lamp of `/sys/class/leds` (Documentation/leds/leds-class.rst), or puts it out. `lamp` is its folder.
///
/// # Errors
/// When there is none.
pub fn light(lamp: &Path, on: bool) -> io::Result<()> {
    // The kernel's own blinking would go on; a lamp without triggers needs no word.
    match write(&lamp.join("trigger"), "none") {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        result => result?,
    }
    let brightness = if on { std::fs::read_to_string(lamp.join("max_brightness")).ok() } else { Some("0".into()) };
    write(&lamp.join("brightness"), brightness.as_deref().map_or("1", str::trim_ascii))
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
        std::fs::write(root.join("gpio17/value"), "1\n").expect("made");
        let input = Input::open(&root, 17).expect("an input");
        assert!(read("gpio17/direction").starts_with("in"));
        assert!(!input.has_edges && input.is_high().expect("a level"));
        std::fs::write(root.join("gpio17/value"), "0\n").expect("made");
        assert!(!input.is_high().expect("a level"));
        std::fs::write(root.join("gpio17/edge"), "").expect("made");
        assert!(Input::open(&root, 17).expect("an input").has_edges);
        assert_eq!(read("gpio17/edge"), "both");
        std::fs::write(root.join("gpio17/value"), "").expect("made");
        assert!(input.is_high().is_err());
        assert_eq!(set(&root, 18, true).expect_err("no such pin").kind(), ErrorKind::NotFound);
        std::fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn a_lamp_is_taken_from_the_kernel_and_lit_as_brightly_as_it_can() {
        let lamp = std::env::temp_dir().join(format!("hksvd-lamp-{}", std::process::id()));
        assert!(light(&lamp, true).is_err());
        std::fs::create_dir_all(&lamp).expect("made");
        let file = |name: &str| lamp.join(name);
        std::fs::write(file("brightness"), "").expect("made");
        let lit = |on| {
            light(&lamp, on).expect("lit");
            std::fs::read_to_string(file("brightness")).expect("read")
        };
        assert_eq!((lit(true), lit(false)), ("1".into(), "0".into()));
        std::fs::write(file("max_brightness"), "255\n").expect("made");
        std::fs::write(file("trigger"), "").expect("made");
        std::fs::write(file("brightness"), "").expect("made");
        assert_eq!(lit(true), "255");
        assert_eq!(std::fs::read_to_string(file("trigger")).expect("read"), "none");
        std::fs::remove_dir_all(&lamp).expect("removed");
    }
}
