//! The parent of `hksvd run --supervise`: starts the daemon again when it has crashed.
//!
//! A camera's init does not. The parent is forked off before anything else is done, and does nothing
//! but wait: what it holds is what a program holds that has only just begun. It shares the daemon's
//! process group, and the kernel kills the daemon when the parent ends, so that nothing is left that
//! holds the port.
//!
//! [`Supervisor`] decides, in whatever time it is told; [`run`] does.

use crate::io::runtime::now;
use crate::sys::fork::{Child, End, Side, fork};
use crate::sys::pipe;
use crate::sys::signals::{self, Notice, Supervision};
use crate::time::{Duration, Instant};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::fd::AsFd;

/// The pause after the first crash; each one that follows doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A daemon that has lived so long was well: its crash counts as the first again.
const WELL: Duration = Duration::from_secs(5 * 60);

/// Which process this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The daemon: go on and serve.
    Daemon,
    /// The parent, and all is over: end with this exit code.
    Parent(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// There is no daemon; it is to be started then.
    Due(Instant),
    /// It runs since then.
    Running(Instant),
    /// It is not to be started any more; the exit code for it.
    Over(u8),
}

/// When a daemon is started, and with which code all of it ends.
#[derive(Debug)]
pub struct Supervisor {
    life: Life,
    pause: Duration,
    told_to_end: bool,
}

impl Supervisor {
    /// The first start is due at once.
    pub fn new(now: Instant) -> Self {
        Supervisor { life: Life::Due(now), pause: FIRST_PAUSE, told_to_end: false }
    }

    /// When [`Supervisor::is_due`] will be so, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.life {
            Life::Due(when) => Some(when),
            Life::Running(_) | Life::Over(_) => None,
        }
    }

    /// Whether the daemon is to be started now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|when| when <= now)
    }

    /// All is over, with this exit code.
    pub fn exit_code(&self) -> Option<u8> {
        match self.life {
            Life::Over(code) => Some(code),
            Life::Due(_) | Life::Running(_) => None,
        }
    }

    /// The daemon runs.
    pub fn handle_started(&mut self, now: Instant) {
        self.life = Life::Running(now);
    }

    /// It could not be started: no memory, no process. As bad as a crash.
    pub fn handle_not_started(&mut self, now: Instant) {
        self.again(now);
    }

    /// The daemon has ended.
    pub fn handle_end(&mut self, end: End, now: Instant) {
        if self.lived(now) >= WELL {
            self.pause = FIRST_PAUSE;
        }
        self.life = match end {
            // It was told to end, or its configuration is wrong and would be the next time.
            End::Exited(code @ (0 | 2)) => Life::Over(code),
            End::Exited(code) if self.told_to_end => Life::Over(code),
            // As shells have it.
            End::Killed(signal) if self.told_to_end => Life::Over(128 + signal.clamp(0, 127) as u8),
            End::Exited(_) | End::Killed(_) => return self.again(now),
        };
    }

    /// Somebody wants all of it to end. A daemon that runs is told the same and is waited for.
    pub fn handle_terminate(&mut self) {
        self.told_to_end = true;
        if let Life::Due(_) = self.life {
            self.life = Life::Over(0);
        }
    }

    /// How long the daemon has run, or ran if it has just ended.
    pub fn lived(&self, now: Instant) -> Duration {
        match self.life {
            Life::Running(since) => now - since,
            Life::Due(_) | Life::Over(_) => Duration::ZERO,
        }
    }

    fn again(&mut self, now: Instant) {
        self.life = Life::Due(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Divides the process in two and returns at once in the daemon; in the parent when all is over. To be
/// called before anything is opened, started or claimed: the parent keeps it.
///
/// # Errors
/// In the parent, when signals or the child cannot be waited for. A daemon that cannot be forked is
/// tried again.
pub fn run() -> std::io::Result<Role> {
    let signals = Supervision::start()?;
    let mut supervisor = Supervisor::new(now());
    let mut daemon: Option<Child> = None;
    loop {
        if let Some(code) = supervisor.exit_code() {
            return Ok(Role::Parent(code));
        }
        if supervisor.is_due(now()) {
            match fork() {
                Ok(Side::Child(tied)) => {
                    signals.leave();
                    if let Err(error) = tied {
                        say("WARN", format_args!("the daemon would outlive its parent: {error}"));
                    }
                    return Ok(Role::Daemon);
                }
                Ok(Side::Parent(child)) => {
                    supervisor.handle_started(now());
                    daemon = Some(child);
                }
                Err(error) => {
                    supervisor.handle_not_started(now());
                    say("ERROR", format_args!("the daemon cannot be started: {error}{}", Next(&supervisor)));
                }
            }
        }
        match signals.wait(supervisor.poll_timeout().map(|due| due - now()))? {
            Some(Notice::Terminate(signal)) => {
                supervisor.handle_terminate();
                if let Some(child) = &daemon {
                    child.signal(signal);
                }
            }
            Some(Notice::Child) | None => {}
        }
        if let Some(end) = daemon.as_ref().map_or(Ok(None), Child::ended)? {
            daemon = None;
            let lived = supervisor.lived(now()).as_secs();
            supervisor.handle_end(end, now());
            let level = if end == End::Exited(0) { "INFO" } else { "ERROR" };
            say(level, format_args!("the daemon {} after {lived} s{}", How(end), Next(&supervisor)));
        }
    }
}

/// The end of the daemon in words.
struct How(End);

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            End::Exited(code) => write!(f, "ended with exit code {code}"),
            End::Killed(signal) => match signals::name(signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// What comes next in words.
struct Next<'a>(&'a Supervisor);

impl fmt::Display for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.poll_timeout() {
            // Rounded: a moment has passed since it was set.
            Some(due) => write!(f, "; next start in {} s", (due - now() + Duration::from_millis(500)).as_secs()),
            None => Ok(()),
        }
    }
}

/// A line in the manner of the daemon's log, which the parent does not have: it does not read the
/// configuration either. No heap, and no wait for a reader that does not read.
fn say(level: &str, text: fmt::Arguments<'_>) {
    let mut line = heapless::String::<256>::new();
    // What does not fit is cut off: better than no line.
    let _ = write!(line, "{level:<5} [supervise] {text}");
    let mut stderr = std::io::stderr().lock();
    if pipe::has_room(stderr.as_fd()) {
        // In one piece, so that it does not mix with the daemon's. Nobody can be told that it failed.
        let _ = line.push('\n');
        let _ = stderr.write_all(line.as_bytes());
    }
}

/// Of 1000. The kernel adds this to the memory that a process uses, in thousandths of all: the one with
/// the highest sum is killed when memory runs out.
const OOM_SCORE_ADJ: i32 = 800;

/// Makes this process the one to kill when memory runs out: the streamer is to outlive the daemon, which
/// is started again. The parent keeps the score it was started with; killing it would free nothing.
pub fn offer_to_oom_killer() {
    let file = "/proc/self/oom_score_adj";
    let raised = std::fs::read_to_string(file).and_then(|own| match own.trim().parse::<i32>() {
        // Whoever started it knows better, and going back takes a privilege.
        Ok(own) if own >= OOM_SCORE_ADJ => Ok(()),
        _ => std::fs::write(file, OOM_SCORE_ADJ.to_string()),
    });
    if let Err(error) = raised {
        log::debug!("{file}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: End = End::Killed(11);

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Lets the daemon start when it is due and end after that life; the pause before the start.
    fn live(supervisor: &mut Supervisor, clock: &mut Instant, life: Duration, end: End) -> Duration {
        let due = supervisor.poll_timeout().expect("a start is due");
        let pause = due - *clock;
        assert!(pause.is_zero() || !supervisor.is_due(Instant::from_micros(due.as_micros() - 1)));
        assert!(supervisor.is_due(due));
        *clock = due;
        supervisor.handle_started(*clock);
        assert!(supervisor.poll_timeout().is_none() && !supervisor.is_due(*clock + secs(1_000_000)));
        *clock += life;
        assert_eq!(supervisor.lived(*clock), life);
        supervisor.handle_end(end, *clock);
        pause
    }

    #[test]
    fn each_crash_doubles_the_pause_up_to_a_minute() {
        let mut clock = Instant::from_micros(7);
        let mut supervisor = Supervisor::new(clock);
        let pauses: Vec<u64> = (0..9).map(|_| live(&mut supervisor, &mut clock, secs(3), CRASH).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_long_life_is_a_new_beginning() {
        let mut clock = Instant::ZERO;
        let mut supervisor = Supervisor::new(clock);
        for _ in 0..5 {
            live(&mut supervisor, &mut clock, secs(1), End::Exited(1));
        }
        let just_short = WELL - Duration::from_millis(1);
        assert_eq!(live(&mut supervisor, &mut clock, just_short, CRASH), secs(16));
        assert_eq!(live(&mut supervisor, &mut clock, WELL, CRASH), secs(32));
        assert_eq!(live(&mut supervisor, &mut clock, secs(1), CRASH), secs(1));
        assert_eq!(live(&mut supervisor, &mut clock, secs(1), CRASH), secs(2));
    }

    #[test]
    fn a_start_that_fails_waits_as_a_crash_does() {
        let mut clock = Instant::ZERO;
        let mut supervisor = Supervisor::new(clock);
        for pause in [1, 2, 4] {
            supervisor.handle_not_started(clock);
            assert_eq!(supervisor.poll_timeout(), Some(clock + secs(pause)));
            clock += secs(pause);
        }
        assert_eq!(live(&mut supervisor, &mut clock, WELL * 2, CRASH), Duration::ZERO);
        assert_eq!(supervisor.poll_timeout(), Some(clock + FIRST_PAUSE));
    }

    #[test]
    fn only_crashes_are_started_again() {
        for (end, code) in [
            (End::Exited(0), Some(0)),
            (End::Exited(2), Some(2)),
            (End::Exited(1), None),
            (End::Exited(101), None),
            (CRASH, None),
            (End::Killed(15), None),
        ] {
            let mut clock = Instant::ZERO;
            let mut supervisor = Supervisor::new(clock);
            live(&mut supervisor, &mut clock, secs(1), end);
            assert_eq!(supervisor.exit_code(), code, "{end:?}");
            assert_eq!(supervisor.poll_timeout().is_some(), code.is_none(), "{end:?}");
        }
    }

    #[test]
    fn told_to_end_it_waits_for_the_daemon_and_takes_its_code() {
        for (end, code) in [(End::Exited(0), 0), (End::Exited(1), 1), (End::Exited(2), 2), (CRASH, 139)] {
            let mut supervisor = Supervisor::new(Instant::ZERO);
            supervisor.handle_started(Instant::ZERO);
            supervisor.handle_terminate();
            assert_eq!(supervisor.exit_code(), None);
            supervisor.handle_end(end, Instant::ZERO);
            assert_eq!(supervisor.exit_code(), Some(code), "{end:?}");
        }
        // In a pause there is nobody to wait for.
        let mut clock = Instant::ZERO;
        let mut supervisor = Supervisor::new(clock);
        live(&mut supervisor, &mut clock, secs(1), CRASH);
        supervisor.handle_terminate();
        assert_eq!((supervisor.exit_code(), supervisor.is_due(clock + secs(100))), (Some(0), false));
    }

    #[test]
    fn ends_are_put_into_words() {
        assert_eq!(How(End::Exited(1)).to_string(), "ended with exit code 1");
        assert_eq!(How(End::Killed(9)).to_string(), "was killed by SIGKILL");
        assert_eq!(How(End::Killed(60)).to_string(), "was killed by signal 60");
        let mut supervisor = Supervisor::new(now());
        supervisor.handle_not_started(now());
        supervisor.handle_not_started(now());
        assert_eq!(Next(&supervisor).to_string(), "; next start in 2 s");
        supervisor.handle_terminate();
        assert_eq!(Next(&supervisor).to_string(), "");
    }
}
