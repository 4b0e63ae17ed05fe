//! Still pictures: where `/resource` and `hksvd snapshot` get their JPEG from.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What is answered when the camera gives no picture: 640x360, baseline JPEG.
pub static PLACEHOLDER: &[u8] = include_bytes!("placeholder.jpg");

/// The largest picture that is passed on, in bytes: Home asks for tiles, not for prints, and the
/// picture lives in the memory of a small camera while it is sent.
pub const MAX_BYTES: u64 = 512 * 1024;

/// Why there is no picture.
#[derive(Debug)]
pub enum NoPicture {
    /// The file could not be opened or read.
    Unreadable(std::io::Error),
    /// The file is larger than [`MAX_BYTES`].
    TooLarge,
    /// The file is not a complete JPEG: perhaps it is being written just now.
    NotJpeg,
}

impl fmt::Display for NoPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPicture::Unreadable(e) => write!(f, "{e}"),
            NoPicture::TooLarge => write!(f, "larger than {} KiB", MAX_BYTES / 1024),
            NoPicture::NotJpeg => f.write_str("not a complete JPEG picture"),
        }
    }
}

/// Reads the JPEG at `path`.
///
/// # Errors
/// [`NoPicture`] when there is none, it is too large, or it does not begin and end as JPEG does
/// (ITU-T T.81 §B.1.1.3: SOI and EOI).
pub fn read(path: &Path) -> Result<Vec<u8>, NoPicture> {
    let file = File::open(path).map_err(NoPicture::Unreadable)?;
    let mut jpeg = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut jpeg).map_err(NoPicture::Unreadable)?;
    if jpeg.len() as u64 > MAX_BYTES {
        return Err(NoPicture::TooLarge);
    }
    if !is_jpeg(&jpeg) {
        return Err(NoPicture::NotJpeg);
    }
    Ok(jpeg)
}

fn is_jpeg(bytes: &[u8]) -> bool {
    // Cameras pad the end of a picture with zeros.
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    bytes.starts_with(&[0xff, 0xd8, 0xff]) && bytes[..end].ends_with(&[0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placeholder_is_a_jpeg_of_640x360() {
        assert!(is_jpeg(PLACEHOLDER));
        // SOF0 (ITU-T T.81 §B.2.2): marker, length, precision, height, width.
        let sof0 = PLACEHOLDER.windows(9).find(|w| w[..2] == [0xff, 0xc0]).expect("a baseline frame");
        assert_eq!(sof0[5..9], [0x01, 0x68, 0x02, 0x80]);
    }

    #[test]
    fn refuses_what_is_no_picture() {
        let dir = std::env::temp_dir().join(format!("hksvd-snapshot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("snap.jpg");
        assert!(matches!(read(&path), Err(NoPicture::Unreadable(_))));
        for bad in [&b""[..], b"\xff\xd8\xff", b"<html>", &PLACEHOLDER[..PLACEHOLDER.len() - 2]] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path), Err(NoPicture::NotJpeg)));
        }
        std::fs::write(&path, vec![0xff; MAX_BYTES as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(NoPicture::TooLarge)));
        let padded = [PLACEHOLDER, &[0; 7]].concat();
        std::fs::write(&path, &padded).unwrap();
        assert_eq!(read(&path).unwrap(), padded);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
