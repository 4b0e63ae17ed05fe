//! Commands of the configuration, run by the shell: hooks, pictures, lights, and where sound goes.
//!
//! None of them can stop the daemon: nothing here blocks, each has its time, and what does not end in time
//! is killed with everything it has started. A process that cannot even be killed (it waits for a dead
//! network share) costs its place among [`AT_ONCE`] and nothing else.

use super::runtime::{Executor, Fd, now, or, sleep_until};
use crate::sys::fork::End;
use crate::sys::signals;
use crate::sys::spawn::{Group, shell};
use crate::time::{Duration, Instant};
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Commands that may run at the same time. Each user of them runs one at a time, and there are fewer users.
pub const AT_ONCE: usize = 8;

/// What to run.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// For `/bin/sh -c`.
    pub command: &'a str,
    /// Environment variables, besides those of the daemon.
    pub variables: &'a [(&'a str, &'a str)],
    /// How long it may take.
    pub limit: Duration,
}

/// Why a command has not done what it was to do.
#[derive(Debug)]
pub enum Failed {
    /// [`AT_ONCE`] others run, or cannot be ended.
    Busy,
    /// No process, no pipe.
    NotStarted(io::Error),
    /// It did not end in time.
    TooLong(Duration),
    /// It has printed more than this many bytes.
    TooMuch(usize),
    /// It has ended, and not with exit code 0.
    Ended(End),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Busy => write!(f, "was not run: {AT_ONCE} others run already"),
            Failed::NotStarted(error) => write!(f, "was not run: {error}"),
            Failed::TooLong(limit) => write!(f, "did not end within {} s", limit.as_secs()),
            Failed::TooMuch(most) => write!(f, "printed more than {} KiB", most / 1024),
            Failed::Ended(End::Exited(127)) => f.write_str("ended with exit code 127 (no such command?)"),
            Failed::Ended(End::Exited(code)) => write!(f, "ended with exit code {code}"),
            Failed::Ended(End::Killed(signal)) => match signals::name(*signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// Where commands are started, and seen to their end.
#[derive(Clone)]
pub struct Commands(Rc<Inner>);

struct Inner {
    executor: Executor,
    null: File,
    /// Those that have not been reaped.
    live: RefCell<Vec<Rc<Group>>>,
}

impl Commands {
    /// None so far.
    ///
    /// # Errors
    /// When there is no `/dev/null`.
    pub fn new(executor: Executor) -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Commands(Rc::new(Inner { executor, null, live: RefCell::default() })))
    }

    /// Runs a command without input; what it prints is dropped. What it leaves running in the background
    /// when it ends in time is its own business.
    ///
    /// # Errors
    /// [`Failed`]; it is dead by then, or about to be. The same when this future is dropped.
    pub async fn run(&self, order: Order<'_>) -> Result<(), Failed> {
        let running = self.start(order.command, order.variables, self.0.null.as_fd(), self.0.null.as_fd())?;
        if !running.ended(now() + order.limit).await {
            return Err(Failed::TooLong(order.limit));
        }
        running.succeeded()
    }

    /// Runs a command without input and takes what it prints, at most so many bytes. Nothing of it is left
    /// when it has ended.
    ///
    /// # Errors
    /// As [`Commands::run`].
    pub async fn capture(&self, order: Order<'_>, most: usize) -> Result<Vec<u8>, Failed> {
        let (reader, writer) = io::pipe().map_err(Failed::NotStarted)?;
        let running = self.start(order.command, order.variables, self.0.null.as_fd(), writer.as_fd())?;
        drop(writer);
        let output = Fd::new(File::from(OwnedFd::from(reader))).map_err(Failed::NotStarted)?;
        let until = now() + order.limit;
        let mut printed = Vec::new();
        // What it has started may hold the pipe open after its own end.
        let reading = async {
            while printed.len() <= most && output.when_readable(|io| take(io, &mut printed)).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let watching = async {
            running.ended(until).await;
            Ok(())
        };
        or(reading, watching).await.map_err(Failed::NotStarted)?;
        if printed.len() <= most && !running.ended(until).await {
            return Err(Failed::TooLong(order.limit));
        }
        while printed.len() <= most && take(output.get(), &mut printed).is_ok_and(|read| read > 0) {}
        if printed.len() > most {
            return Err(Failed::TooMuch(most));
        }
        running.group.kill();
        running.succeeded()?;
        Ok(printed)
    }

    /// Starts a command that reads what is written to it, for as long as the [`Feeding`] lives.
    ///
    /// # Errors
    /// [`Failed::Busy`] and [`Failed::NotStarted`].
    pub fn feed(&self, command: &str, variables: &[(&str, &str)]) -> Result<Feeding, Failed> {
        let (reader, writer) = io::pipe().map_err(Failed::NotStarted)?;
        let running = self.start(command, variables, reader.as_fd(), self.0.null.as_fd())?;
        drop(reader);
        let input = Fd::new(File::from(OwnedFd::from(writer))).map_err(Failed::NotStarted)?;
        Ok(Feeding { input: Some(input), running: Some(running) })
    }

    /// How many run, or have been killed and not yet ended.
    pub fn running(&self) -> usize {
        self.0.live.borrow().len()
    }

    /// Kills all that run and waits a moment for their ends: before this process ends or becomes another.
    pub async fn end_all(&self) {
        for group in self.0.live.borrow().iter() {
            group.kill();
        }
        let patience = now() + Duration::from_millis(500);
        while now() < patience && !self.0.live.borrow().iter().all(|group| group.reap().is_some()) {
            sleep_until(now() + Duration::from_millis(2)).await;
        }
    }

    fn start(
        &self,
        command: &str,
        variables: &[(&str, &str)],
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
    ) -> Result<Running, Failed> {
        let mut live = self.0.live.borrow_mut();
        if live.len() >= AT_ONCE {
            return Err(Failed::Busy);
        }
        let group = Rc::new(shell(command, variables, input, output).map_err(Failed::NotStarted)?);
        live.push(group.clone());
        Ok(Running { commands: self.clone(), group })
    }

    fn forget(&self, group: &Rc<Group>) {
        self.0.live.borrow_mut().retain(|other| !Rc::ptr_eq(other, group));
    }
}

/// Appends what is there; 0 is the end.
fn take(mut io: &File, to: &mut Vec<u8>) -> io::Result<usize> {
    /// A pipe is four times as large, and most output is shorter.
    const ROOM: usize = 16 * 1024;
    let len = to.len();
    to.resize(len + ROOM, 0);
    let read = io.read(&mut to[len..]);
    to.truncate(len + *read.as_ref().unwrap_or(&0));
    read
}

/// Ends the command when it is dropped, unless it has ended.
struct Running {
    commands: Commands,
    group: Rc<Group>,
}

impl Running {
    /// Waits for its end until then; whether it has ended.
    ///
    /// Looks now and then: an end has no descriptor before Linux 5.3, and the signal for it would have to be
    /// taken from every thread. Nobody waits for these commands so eagerly.
    async fn ended(&self, until: Instant) -> bool {
        let mut pause = Duration::from_millis(2);
        loop {
            if self.group.has_ended() {
                return true;
            }
            let now = now();
            if now >= until {
                return false;
            }
            sleep_until(until.min(now + pause)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// How it has ended.
    fn succeeded(&self) -> Result<(), Failed> {
        match self.group.reap() {
            Some(End::Exited(0)) => Ok(()),
            Some(end) => Err(Failed::Ended(end)),
            // It has not; nobody asks then.
            None => Err(Failed::Busy),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
        if self.group.reap().is_some() {
            return self.commands.forget(&self.group);
        }
        // It has been killed, but that takes its time, and nobody waits for it any more.
        let (commands, group) = (self.commands.clone(), self.group.clone());
        self.commands.0.executor.spawn(async move {
            let mut pause = Duration::from_millis(1);
            while group.reap().is_none() {
                sleep_until(now() + pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            commands.forget(&group);
        });
    }
}

/// A command that is written to. Dropped, its input ends, and a second later the command does.
pub struct Feeding {
    input: Option<Fd<File>>,
    running: Option<Running>,
}

impl Feeding {
    /// Writes as much as the pipe takes now, and says how much.
    ///
    /// # Errors
    /// `WouldBlock` when the pipe is full; `BrokenPipe` when the command does not read any more.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.input {
            Some(input) => input.get().write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Whether the command has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.group.has_ended())
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.input = None;
        if let Some(running) = self.running.take() {
            let executor = running.commands.0.executor.clone();
            executor.spawn(async move {
                running.ended(now() + Duration::from_secs(1)).await;
            });
        }
    }
}
