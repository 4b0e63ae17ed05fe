//! Finding the camera's stream when nobody names it: Raptor's ring, an RTSP server on this machine, a V4L2 device that
//! offers H.264, a FIFO of a vendor's firmware, in this order.

use super::settings::{LARGEST, Rtsp};
use super::snapshot::Streamer;
use super::{raptor, v4l2, yi};
use crate::config::{RaptorStream, VideoSource};
use crate::io::runtime::{Fd, now, or, sleep_until};
use crate::sys::connect;
use crate::time::Duration;
use crate::wire::raptor::Codec;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There it is.
    Found,
    /// It is not there.
    Tried,
    /// It is there and of no use.
    Refused,
}

impl Verdict {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Found => "found",
            Verdict::Tried => "tried",
            Verdict::Refused => "refused",
        }
    }
}

/// A source that can be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The main stream.
    pub video: VideoSource,
    /// The small one, when there is one.
    pub live: Option<VideoSource>,
}

/// What a search has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The best first.
    pub found: Vec<Found>,
    /// One line for each look. No passwords.
    pub said: Vec<(Verdict, String)>,
    /// Raptor runs and its ring is yet to come: better waited for than done without.
    pub ring_is_late: bool,
}

/// A server that does not answer by then is none.
const LIMIT: Duration = Duration::from_secs(1);

/// FIFOs of the yi-hack firmwares: large and small pictures. Their sound is known by them.
const FIFOS: [&str; 2] = ["tmp/h264_high_fifo", "tmp/h264_low_fifo"];

/// What cameras of Yi with Allwinner's processors have instead. Its layout goes by the model.
pub const FRAME_BUFFER: &str = "dev/shm/fshare_frame_buf";

/// The V4L2 devices that offer H.264.
fn v4l2_nodes(root: &Path) -> Vec<PathBuf> {
    v4l2::nodes(root).filter(|path| v4l2::offers(path).is_ok_and(|offer| offer.has_h264())).collect()
}

/// Looks for everything on the camera whose file system begins at `root`.
pub async fn look(root: &Path) -> Search {
    let mut search = Search::default();
    if search.look_for_ring(root) {
        search.look_for_server(root).await;
    }
    match v4l2_nodes(root) {
        nodes if nodes.is_empty() => search.say(Verdict::Tried, "v4l2: no device that offers H.264".into()),
        nodes => nodes.into_iter().for_each(|node| search.add(VideoSource::V4l2(node), None)),
    }
    search.look_for_fifos(root);
    search
}

impl Search {
    fn say(&mut self, verdict: Verdict, text: String) {
        self.said.push((verdict, text));
    }

    fn add(&mut self, video: VideoSource, live: Option<VideoSource>) {
        let mut text = video.to_string();
        if let Some(live) = &live {
            text = format!("{text}, for small views {live}");
        }
        self.say(Verdict::Found, text);
        self.found.push(Found { video, live });
    }

    /// `false` when a server would have nothing better.
    fn look_for_ring(&mut self, root: &Path) -> bool {
        let main = VideoSource::Raptor(RaptorStream::Main);
        match raptor::codec(root, RaptorStream::Main) {
            Ok(Codec::H264) => {
                let has_sub = raptor::codec(root, RaptorStream::Sub).is_ok_and(|codec| codec == Codec::H264);
                self.add(main, has_sub.then_some(VideoSource::Raptor(RaptorStream::Sub)));
                true
            }
            Ok(_) => {
                let text = "raptor:main is not H.264: set codec = h264 below [stream0] in /etc/raptor.conf";
                self.say(Verdict::Refused, text.into());
                false
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.ring_is_late = Streamer::find(root) == Some(Streamer::Raptor);
                self.say(Verdict::Tried, "raptor: no ring in /dev/shm".into());
                true
            }
            Err(error) => {
                self.say(Verdict::Refused, format!("raptor: {error}"));
                true
            }
        }
    }

    async fn look_for_server(&mut self, root: &Path) {
        let (rtsp, of) = settings(root);
        let [main, sub] = [0, 1].map(|stream| VideoSource::rtsp(&rtsp.address(stream)));
        let Some(VideoSource::Rtsp(url)) = &main else {
            return self.say(Verdict::Refused, format!("rtsp: port, login or path in {of} make no address"));
        };
        let answer = match url.server() {
            Some(server) => answers(server.port).await,
            None => Err(ErrorKind::InvalidInput.into()),
        };
        match (answer, main) {
            (Ok(()), Some(main)) => self.add(main, sub),
            (Err(error), Some(main)) => self.say(Verdict::Tried, format!("{main} (by {of}): {error}")),
            (_, None) => {}
        }
    }

    fn look_for_fifos(&mut self, root: &Path) {
        let mut usable = Vec::new();
        for path in FIFOS.map(|path| root.join(path)) {
            if !path.metadata().is_ok_and(|there| there.file_type().is_fifo()) {
                continue;
            }
            match yi::codec(&path) {
                Ok(()) => usable.push(VideoSource::YiFifo(path)),
                Err(error) => self.say(Verdict::Refused, format!("fifo+yi: {error}")),
            }
        }
        let mut usable = usable.into_iter();
        match usable.next() {
            Some(video) => self.add(video, usable.next()),
            None => self.say(Verdict::Tried, "fifo+yi: no /tmp/h264_high_fifo or /tmp/h264_low_fifo".into()),
        }
        if root.join(FRAME_BUFFER).exists() {
            let text = "yi: /dev/shm/fshare_frame_buf goes by the camera's model: set video.source to yi:MODEL";
            self.say(Verdict::Refused, text.into());
        }
    }
}

/// Opens what should be a file, to read. If somebody has put a FIFO there, nobody waits for its writer.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// What is in a small file of the firmware.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // A settings file is neither a FIFO nor a device, which may have their own idea of being opened.
    let file = path.metadata().ok().filter(std::fs::Metadata::is_file).and_then(|_| open(path).ok())?;
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The RTSP server of this camera, and who says so.
fn settings(root: &Path) -> (Rtsp, &'static str) {
    use Streamer::{Majestic, Prudynt, Raptor, Timps};
    let has_settings = |streamer: &Streamer| root.join(streamer.settings_file()).is_file();
    let has_no_ring = raptor::codec(root, RaptorStream::Main).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let running = if has_no_ring { Streamer::find(root) } else { Some(Raptor) };
    let streamer = running.or_else(|| [Raptor, Prudynt, Timps, Majestic].into_iter().find(has_settings));
    let file = streamer.and_then(|streamer| Some((streamer, read(&root.join(streamer.settings_file()))?)));
    let of = file.as_ref().map_or("the firmwares' defaults", |(streamer, _)| streamer.settings_file());
    (Rtsp::read(streamer, file.as_ref().map(|(_, file)| file.as_slice())), of)
}

/// The address of one of Raptor's streams, for those whose ring cannot be read.
pub fn raptor_server(root: &Path, stream: RaptorStream) -> Option<VideoSource> {
    let file = read(&root.join(Streamer::Raptor.settings_file()));
    let rtsp = Rtsp::read(Some(Streamer::Raptor), file.as_deref());
    VideoSource::rtsp(&rtsp.address(usize::from(stream == RaptorStream::Sub)))
}

/// Whether somebody listens on this port of this machine.
async fn answers(port: u16) -> io::Result<()> {
    let stream = Fd::new(connect::loopback(port)?)?;
    let late = async {
        sleep_until(now() + LIMIT).await;
        Err(ErrorKind::TimedOut.into())
    };
    or(stream.when_writable(|io| connect::finished(io.as_fd())), late).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::Executor;
    use crate::sys::connect::tests::REFUSALS;
    use std::net::TcpListener;

    /// A camera's file system. It goes with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("hksvd-find-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Root(path)
        }

        fn file(&self, path: &str, bytes: &[u8]) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }

        fn fifo(&self, path: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        }

        fn ring(&self, name: &str, version: u32, codec: u32) {
            let mut ring = vec![0; 4096 + 32 * 4 + 4096];
            for (at, word) in [(12, 4u32), (16, 4096), (28, codec), (52, 0x5253_5352), (56, version), (60, 1)] {
                ring[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            self.file(&format!("dev/shm/rss_ring_{name}"), &ring);
        }

        fn look(&self) -> Search {
            Executor::default().block_on(look(&self.0))
        }

        /// What was found, and what was said without the name of this root.
        fn found(&self) -> (Vec<String>, Vec<String>) {
            let search = self.look();
            let name = self.0.display().to_string();
            let say = |verdict: Verdict, text: &str| format!("{}: {}", verdict.as_str(), text.replace(&name, ""));
            let found = search.found.iter().map(|found| found.video.to_string().replace(&name, "")).collect();
            (found, search.said.iter().map(|(verdict, text)| say(*verdict, text)).collect())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A port of this machine where nobody listens.
    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn settings_with(port: u16) -> String {
        format!("{{\"rtsp\": {{\"port\": {port}, \"username\": \"me\", \"password\": \"s3cret\"}}}}")
    }

    #[test]
    fn an_empty_machine_has_nothing() {
        let root = Root::new("empty");
        root.file("etc/prudynt.json", settings_with(free_port()).as_bytes());
        root.file("dev/video0", b"no device");
        let (found, said) = root.found();
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(said.len(), 4);
        assert_eq!(said[0], "tried: raptor: no ring in /dev/shm");
        assert!(said[1].starts_with("tried: rtsp://…@127.0.0.1:"), "{}", said[1]);
        let refused = |errno: &i32| {
            said[1].ends_with(&format!("/ch0 (by etc/prudynt.json): {}", io::Error::from_raw_os_error(*errno)))
        };
        assert!(REFUSALS.iter().any(refused), "{}", said[1]);
        assert_eq!(said[2], "tried: v4l2: no device that offers H.264");
        assert_eq!(said[3], "tried: fifo+yi: no /tmp/h264_high_fifo or /tmp/h264_low_fifo");
        assert!(!root.look().ring_is_late);
    }

    #[test]
    fn a_ring_is_first_and_a_server_second() {
        let root = Root::new("ring");
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let conf = format!("[rtsp]\nport = {port}\nusername = me\npassword = s3cret\nendpoint_main = ch0\n");
        root.file("etc/raptor.conf", conf.as_bytes());
        root.ring("main", 4, 0);
        let (found, said) = root.found();
        assert_eq!(found, ["raptor:main".to_string(), format!("rtsp://…@127.0.0.1:{port}/ch0")]);
        assert_eq!(said[0], "found: raptor:main");
        assert!(!format!("{said:?}").contains("s3cret"));

        root.ring("sub", 4, 0);
        let search = root.look();
        assert_eq!(search.found[0].live, Some(VideoSource::Raptor(RaptorStream::Sub)));
        assert_eq!(search.found[1].live, VideoSource::rtsp(&format!("rtsp://me:s3cret@127.0.0.1:{port}/stream1")));
        assert_eq!(search.said[0].1, "raptor:main, for small views raptor:sub");

        // A streamer of other times.
        root.ring("main", 3, 0);
        let (found, said) = root.found();
        assert_eq!(found, [format!("rtsp://…@127.0.0.1:{port}/ch0")]);
        assert_eq!(said[0], "refused: raptor: /dev/shm/rss_ring_main has version 3, this hksvd reads version 4");
        assert_eq!(raptor_server(&root.0, RaptorStream::Sub), search.found[1].live);

        // The server would have H.265, too.
        root.ring("main", 4, 1);
        let (found, said) = root.found();
        assert!(found.is_empty(), "{found:?}");
        assert!(said[0].starts_with("refused: raptor:main is not H.264: set codec = h264"), "{}", said[0]);
    }

    #[test]
    fn a_ring_that_is_yet_to_come_is_known() {
        let root = Root::new("late");
        root.file("var/run/rss/rvd.sock", b"");
        root.file("etc/raptor.conf", format!("[rtsp]\nport = {}\n", free_port()).as_bytes());
        assert!(root.look().ring_is_late);
        root.ring("main", 4, 0);
        assert!(!root.look().ring_is_late);
    }

    #[test]
    fn settings_that_make_no_address_are_refused() {
        let root = Root::new("address");
        for settings in ["{\"rtsp\":{\"port\":70000}}", "{\"rtsp\":{\"password\":\"a b\"}}"] {
            root.file("etc/prudynt.json", settings.as_bytes());
            let (found, said) = root.found();
            assert!(found.is_empty());
            assert_eq!(said[1], "refused: rtsp: port, login or path in etc/prudynt.json make no address");
        }
    }

    #[test]
    fn fifos_are_last() {
        let root = Root::new("fifo");
        root.file("etc/prudynt.json", settings_with(free_port()).as_bytes());
        root.file("tmp/h264_high_fifo", b"a file is no FIFO");
        assert!(root.found().0.is_empty());
        std::fs::remove_file(root.0.join("tmp/h264_high_fifo")).unwrap();
        root.fifo("tmp/h264_high_fifo");
        root.fifo("tmp/h264_low_fifo");
        let said = root.found().1.pop().unwrap();
        assert_eq!(said, "found: fifo+yi:/tmp/h264_high_fifo, for small views fifo+yi:/tmp/h264_low_fifo");
        root.file("tmp/highres", b"h265\n");
        root.file("dev/shm/fshare_frame_buf", b"");
        let (found, said) = root.found();
        assert_eq!(found, ["fifo+yi:/tmp/h264_low_fifo"]);
        assert!(said[3].starts_with("refused: fifo+yi: /tmp/h264_high_fifo is H.265, "), "{}", said[3]);
        assert_eq!(said[4], "found: fifo+yi:/tmp/h264_low_fifo");
        assert!(
            said[5].starts_with("refused: yi: /dev/shm/fshare_frame_buf goes by the camera's model"),
            "{}",
            said[5]
        );
    }
}
