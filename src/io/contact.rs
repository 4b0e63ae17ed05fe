//! Buttons and switches: a key of an input device, a pin, a line of a GPIO device.
//!
//! Nothing here wakes the thread while nothing moves, but for a pin without an interrupt: that one is looked at
//! every 20 ms.

use super::gpio::Input;
use super::runtime::{Fd, now, sleep_until, yield_now};
use crate::config::Button;
use crate::sys::epoll::Epoll;
use crate::sys::input::{self, Line};
use crate::time::{Duration, Instant};
use crate::wire::evdev::{self, EVENT_BYTES, Event};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Between two looks at a pin that does not tell of changes.
const LOOK: Duration = Duration::from_millis(20);

/// After so many events that say nothing others get their turn, however many more there are. As few as belong to a press
/// must not: who waits for what follows it within a time would think that nothing does.
const BURST: u32 = 16;

/// Something that is down or up.
pub struct Contact {
    kind: Kind,
    /// What was told last.
    told: Option<bool>,
}

enum Kind {
    Key {
        device: Fd<File>,
        code: u16,
        /// Its events have the time that does not jump.
        stamped: bool,
        /// Events were lost; those that come are worth nothing until a report is complete.
        lost: bool,
    },
    Pin {
        pin: Input,
        low: bool,
        /// The value can always be read, so that waiting for it would never end: a list of its own waits for
        /// what is urgent alone.
        changes: Option<Fd<Epoll>>,
    },
    Line(Fd<Line>),
}

impl Contact {
    /// Opens what the configuration names; `root` is that of the file system.
    ///
    /// # Errors
    /// When it is not there, or is something else.
    pub fn open(root: &Path, button: &Button) -> Result<Self> {
        let kind = match button {
            Button::Evdev { device, key } => {
                let device = match device {
                    Some(path) => open(path)?,
                    None => find(&root.join("dev/input"), *key)?,
                };
                let stamped = input::stamp_monotonic(device.as_fd()).is_ok();
                Kind::Key { device: Fd::new(device)?, code: *key, stamped, lost: false }
            }
            Button::Sysfs(gpio) => {
                let pin = Input::open(&root.join("sys/class/gpio"), gpio.number)?;
                let changes = if pin.has_edges { urgent(pin.file()) } else { None };
                Kind::Pin { pin, low: gpio.low, changes }
            }
            Button::Gpiochip { device, line } => {
                Kind::Line(Fd::new(Line::open(&open(device)?, line.number, line.low)?)?)
            }
        };
        Ok(Contact { kind, told: None })
    }

    /// Whether it is down, and since when: at once the first time, then whenever that has changed. The moment is that of
    /// the change, however late this thread is, where the kernel says so; `None` where it does not. Nothing is lost when
    /// the future is dropped.
    ///
    /// # Errors
    /// When it is gone: open it anew.
    pub async fn changed(&mut self) -> Result<(bool, Option<Instant>)> {
        loop {
            for _ in 0..BURST {
                let (down, since) = match self.told {
                    None => (self.kind.is_down()?, None),
                    Some(told) => self.kind.next(told).await?,
                };
                if self.told.replace(down) != Some(down) {
                    return Ok((down, since));
                }
            }
            yield_now().await;
        }
    }
}

impl Kind {
    fn is_down(&self) -> Result<bool> {
        match self {
            // What cannot be asked stands for an input device that was at rest: a FIFO.
            Kind::Key { device, code, .. } => Ok(input::is_key_down(device.get().as_fd(), *code).unwrap_or(false)),
            Kind::Pin { pin, low, .. } => pin.is_high().map(|high| high != *low),
            Kind::Line(line) => line.get().is_active(),
        }
    }

    /// What it is after something has happened, which need not be a change, and since when.
    async fn next(&mut self, told: bool) -> Result<(bool, Option<Instant>)> {
        let down = match self {
            Kind::Key { device, code, stamped, lost } => {
                let mut event = [0; EVENT_BYTES];
                // A device gives whole events, and a pipe what was written into it at once.
                let read = device.when_readable(|mut device| device.read(&mut event)).await?;
                match evdev::parse(&event[..read]) {
                    None if read == 0 => return Err(ErrorKind::UnexpectedEof.into()),
                    None => return Err(ErrorKind::InvalidData.into()),
                    Some(Event::Dropped) => *lost = true,
                    Some(Event::Report) if *lost => {
                        *lost = false;
                        return Ok((self.is_down()?, None));
                    }
                    Some(Event::Key { code: key, down }) if key == *code && !*lost => {
                        return Ok((down, evdev::stamp(&event[..read]).filter(|_| *stamped).map(moment)));
                    }
                    Some(_) => {}
                }
                told
            }
            Kind::Pin { changes, .. } => {
                match changes {
                    Some(changes) => changes.readable().await?,
                    None => sleep_until(now() + LOOK).await,
                }
                self.is_down()?
            }
            Kind::Line(line) => {
                if !line.get().has_events {
                    sleep_until(now() + LOOK).await;
                } else if let Some((down, stamp)) = line.when_readable(Line::take_event).await? {
                    return Ok((down, Some(moment(stamp))));
                }
                self.is_down()?
            }
        };
        Ok((down, None))
    }
}

/// When it was that the kernel's clock showed this.
fn moment(stamp: core::time::Duration) -> Instant {
    Instant::ZERO + (now() - Instant::ZERO).saturating_sub(input::age(stamp))
}

fn open(path: &Path) -> Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// The first input device with this key. It is not taken from others: the firmware's own buttons are on it, too.
fn find(folder: &Path, key: u16) -> Result<File> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let devices = paths.iter().filter_map(|path| open(path).ok());
    let mut fitting = devices.filter(|device| input::has_key(device.as_fd(), key).unwrap_or(false));
    fitting.next().ok_or_else(|| Error::new(ErrorKind::NotFound, "no input device has this key"))
}

/// Waits for changes of a value of sysfs; `None` for a file of another kind.
fn urgent(value: &File) -> Option<Fd<Epoll>> {
    let list = Epoll::new().ok()?;
    list.add_urgent(value.as_fd()).ok()?;
    Fd::new(list).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Executor, or};
    use std::io::Write;

    fn key(device: Fd<File>) -> Contact {
        Contact { kind: Kind::Key { device, code: 2, stamped: false, lost: false }, told: None }
    }

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0; EVENT_BYTES - 8];
        bytes.extend([kind.to_ne_bytes(), code.to_ne_bytes()].concat());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_key_alone_is_heard() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut contact = key(Fd::new(File::from(std::os::fd::OwnedFd::from(reader))).unwrap());
        Executor::default().block_on(async {
            assert!(!contact.changed().await.unwrap().0, "at once");
            for (kind, code, value) in [(1, 28, 1), (0, 0, 0), (1, 2, 1), (1, 2, 2), (1, 2, 1), (1, 2, 0)] {
                writer.write_all(&event(kind, code, value)).unwrap();
            }
            assert!(contact.changed().await.unwrap().0);
            assert!(!contact.changed().await.unwrap().0);
            let silent = or(async { contact.changed().await.is_err() }, async {
                sleep_until(now() + LOOK).await;
                true
            });
            assert!(silent.await);
            // What comes between a loss and the next report says nothing.
            for (kind, code, value) in [(1, 2, 1), (0, 3, 0), (1, 2, 0), (1, 2, 1), (0, 0, 0), (1, 2, 1)] {
                writer.write_all(&event(kind, code, value)).unwrap();
            }
            assert!(contact.changed().await.unwrap().0);
            assert!(!contact.changed().await.unwrap().0, "asked after the loss");
            assert!(contact.changed().await.unwrap().0);
            writer.write_all(&[0; 5]).unwrap();
            assert_eq!(contact.changed().await.unwrap_err().kind(), ErrorKind::InvalidData);
            drop(writer);
            assert_eq!(contact.changed().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        });
    }

    #[test]
    fn a_flood_of_events_leaves_others_their_turn() {
        // As somebody writes into a FIFO that stands for a device: nearly without end.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let begun = std::time::Instant::now();
        let flood = std::thread::spawn(move || {
            while begun.elapsed().as_secs() < 5 && writer.write_all(&[0; 100 * EVENT_BYTES]).is_ok() {}
        });
        let mut contact = key(Fd::new(File::from(std::os::fd::OwnedFd::from(reader))).unwrap());
        Executor::default().block_on(async {
            assert!(!contact.changed().await.unwrap().0);
            or(async { panic!("{:?}", contact.changed().await) }, async {
                for _ in 0..5 {
                    sleep_until(now() + Duration::from_millis(1)).await;
                }
            })
            .await;
        });
        drop(contact);
        flood.join().unwrap();
    }

    #[test]
    fn a_value_that_does_not_change_wakes_nobody() {
        // Always readable, as a value of sysfs.
        let value = File::open("/proc/self/mounts").unwrap();
        let changes = urgent(&value).unwrap();
        let silent = or(async { changes.readable().await.is_err() }, async {
            sleep_until(now() + LOOK).await;
            true
        });
        assert!(Executor::default().block_on(silent));
        // A file that is none has to be looked at.
        assert!(urgent(&File::open(std::env::current_exe().unwrap()).unwrap()).is_none());
    }

    #[test]
    fn no_device_has_the_key() {
        let folder = std::env::temp_dir().join(format!("hksvd-input-{}", std::process::id()));
        assert_eq!(find(&folder, 2).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("event0"), "").unwrap();
        assert_eq!(find(&folder, 2).unwrap_err().to_string(), "no input device has this key");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
