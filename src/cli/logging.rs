//! Log lines on standard error, without time and colour: syslog or the serial terminal adds them if wanted.

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who is heard at which level is [`SimpleLogger`]'s; its printing is not. The init script pipes the log
/// to another program, or into a file on a small disk: that program may die or hang and the disk fill up.
/// `eprintln!` panics or waits then, and the camera would stop recording because of its log.
struct Logger {
    levels: SimpleLogger,
    /// Lines that found no room since the last one that did.
    lost: AtomicU32,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.levels.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        if !crate::sys::pipe::has_room(stderr.as_fd()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let text = line(record, lost);
        // In one piece. Nobody can be told that it failed.
        let _ = stderr.write_all(text.as_bytes());
    }

    fn flush(&self) {}
}

/// `INFO  [feed] video: 1280x720`: the last part of the module's path says enough, and lines are to
/// stay below 120 columns.
fn line(record: &Record<'_>, lost: u32) -> String {
    let place = record.target().rsplit(':').next().unwrap_or_default();
    let lost = if lost > 0 { format!("({lost} lines lost) ") } else { String::new() };
    format!("{:<5} [{place}] {lost}{}\n", record.level(), record.args())
}

/// Starts the log at that level; [`log::set_max_level`] changes it later.
pub fn start(level: LevelFilter) {
    let levels = SimpleLogger::new().with_level(LevelFilter::Trace);
    // It fails when there is a logger already: then that one is meant.
    let _ = log::set_boxed_logger(Box::new(Logger { levels, lost: AtomicU32::new(0) }));
    log::set_max_level(level);
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn a_line_says_where_it_comes_from_in_one_word() {
        let mut record = Record::builder();
        record.level(Level::Info).target("hksvd::daemon::feed");
        assert_eq!(line(&record.args(format_args!("video")).build(), 0), "INFO  [feed] video\n");
        record.level(Level::Error).target("polling");
        assert_eq!(line(&record.args(format_args!("no")).build(), 3), "ERROR [polling] (3 lines lost) no\n");
    }
}
