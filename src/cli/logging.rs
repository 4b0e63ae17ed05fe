//! Log lines on standard error, without time and colour: syslog or the serial terminal adds what it wants.

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::os::fd::AsFd;

/// The init script pipes the log to another program, and that program may die. Printing would then
/// panic, and the camera would stop recording because nobody reads its log.
struct Logger(SimpleLogger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !crate::sys::pipe::reader_gone(std::io::stderr().as_fd()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {}
}

/// Starts the log at that level; [`log::set_max_level`] changes it later.
pub fn start(level: LevelFilter) {
    let logger = SimpleLogger::new()
        .with_level(LevelFilter::Trace)
        // The reactor tells of every wake-up.
        .with_module_level("async_io", LevelFilter::Warn)
        .with_module_level("polling", LevelFilter::Warn);
    // It fails when there is a logger already: then that one is meant.
    let _ = log::set_boxed_logger(Box::new(Logger(logger)));
    log::set_max_level(level);
}
