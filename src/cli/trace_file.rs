//! `hksvd motion trace`: a recorded stream through the detector, to standard output as CSV.

use super::{Args, Failure, print, read};
use crate::motion::trace;
use std::fmt::{self, Write};
use std::path::Path;

/// The verb.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Some(file) = args.operands.get(1) else {
        return Err(Failure::usage("motion trace needs FILE, see `hksvd motion --help`"));
    };
    let Some(fps) = args.number("fps", 1, 60)? else {
        return Err(Failure::usage("motion trace needs --fps N, the frame rate of the stream"));
    };
    let sensitivity = args.number("sensitivity", 0, 100)?.unwrap_or(50);
    let hold_s = args.number("hold", 1, 3_600)?.unwrap_or(10);
    let annexb = read(Path::new(file))?;
    let mut out = Output { text: String::new(), failure: None };
    let written = writeln!(out, "{}", trace::HEADER)
        .and_then(|()| trace::trace(&annexb, fps, sensitivity as u8, hold_s, &mut out));
    match out.failure {
        Some(failure) => Err(failure),
        None if written.is_err() => Err(Failure::run("the detector cannot read this stream")),
        None => print(&out.text),
    }
}

/// Standard output for the detector, a page at a time.
struct Output {
    text: String,
    failure: Option<Failure>,
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        if self.text.len() < 4_096 {
            return Ok(());
        }
        let printed = print(&self.text);
        self.text.clear();
        printed.map_err(|failure| {
            self.failure = Some(failure);
            fmt::Error
        })
    }
}
