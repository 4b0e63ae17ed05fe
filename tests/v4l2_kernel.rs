//! A real kernel's Video4Linux: `vivid`, its test driver, which has raw formats only. Not run by `cargo test`, but in a
//! guest that has the module: `scripts/test --only v4l2-mipsel`, `--only v4l2-armhf`.

use hksvd::io::runtime::{Executor, now, or, sleep_until};
use hksvd::source::v4l2::{Capture, H264, fourcc, offers};
use hksvd::time::Duration;
use std::io::ErrorKind;
use std::path::Path;

const NODE: &str = "/dev/video0";
const DRIVER: &str = "/sys/bus/platform/drivers/vivid";
const YUYV: u32 = fourcc(b"YUYV");
/// Frames of YUYV, of which each pixel has two bytes.
const FRAMES: u32 = 50;

/// The next buffer's length, within a second.
async fn read(capture: &mut Capture, out: &mut [u8]) -> std::io::Result<Option<usize>> {
    let late = async {
        sleep_until(now() + Duration::from_secs(1)).await;
        Err(ErrorKind::TimedOut.into())
    };
    or(capture.read(out), late).await
}

#[test]
#[ignore = "needs vivid: scripts/test --only v4l2-mipsel"]
fn a_real_driver_streams_and_is_unplugged() {
    let node = Path::new(NODE);
    let offer = offers(node).expect("vivid");
    println!("{NODE}: {offer}");
    assert!(offer.driver == "vivid" && offer.formats.contains(&YUYV) && !offer.has_h264(), "{offer}");

    let refused = Capture::open(node, &[H264], 25).map(|_| ()).expect_err("it has no H.264");
    println!("refused: {refused}");
    assert!(refused.to_string().starts_with("no H264, but vivid (vivid): "), "{refused}");

    Executor::default().block_on(async {
        // What was refused has left nothing behind.
        let mut capture = Capture::open(node, &[H264, YUYV], 25).expect("it streams");
        let (width, height) = capture.size();
        let mut out = vec![0; capture.largest()];
        let began = now();
        for n in 0..FRAMES {
            let length = read(&mut capture, &mut out).await.expect("a frame");
            assert_eq!(length, Some((width * height * 2) as usize), "frame {n}");
            assert!(out.iter().any(|&b| b != out[0]), "frame {n} is a test picture");
        }
        let took = now() - began;
        println!("{FRAMES} frames of {width}x{height} in {} ms", took.as_millis());
        // Emulated processors may be late, but the rate is the driver's.
        assert!(took >= Duration::from_secs(1) * (FRAMES - 5) / 50, "{took:?}");

        let busy = Capture::open(node, &[YUYV], 25).map(|_| ()).expect_err("it streams already");
        println!("a second one: {busy}");
        assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
        assert!(offers(node).is_ok(), "looking is allowed");
        assert!(read(&mut capture, &mut out).await.is_ok(), "the first goes on");

        // Less room than a picture needs.
        assert_eq!(read(&mut capture, &mut out[..1000]).await.expect("a frame"), None);

        std::fs::write(format!("{DRIVER}/unbind"), "vivid.0").expect("unplugged");
        // What was ready already may still come.
        let error = loop {
            match read(&mut capture, &mut out).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        println!("unplugged while it streams: {error}");
        assert_ne!(error.kind(), ErrorKind::TimedOut, "the end is told");
        let gone = offers(node).expect_err("there is none");
        println!("then: {gone}");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        drop(capture);

        std::fs::write(format!("{DRIVER}/bind"), "vivid.0").expect("plugged in");
        let mut capture = Capture::open(node, &[YUYV], 10).expect("it streams again");
        assert_eq!(read(&mut capture, &mut out).await.expect("a frame"), Some((width * height * 2) as usize));
    });
}
