//! Our structures and numbers of Video4Linux against those of the C compiler with the kernel's own header.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use hksvd::sys::v4l2::*;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::process::Command;

#[test]
fn the_kernels_header_says_the_same() {
    let mut wanted = Vec::new();
    let mut program =
        String::from("#include <linux/videodev2.h>\n#include <stddef.h>\n#include <stdio.h>\nint main() {\n");
    let mut compare = |name: String, ours: usize| {
        let _ = writeln!(program, "printf(\"%zu {name}\\n\", (size_t){name});");
        wanted.push(format!("{ours} {name}"));
    };
    let number = |request: Request<'_>| request.number() as usize;
    for (name, ours) in [
        ("VIDIOC_QUERYCAP", number(Request::Capability(&mut Default::default()))),
        ("VIDIOC_ENUM_FMT", number(Request::FormatDescription(&mut Default::default()))),
        ("VIDIOC_G_FMT", number(Request::GetFormat(&mut Default::default()))),
        ("VIDIOC_S_FMT", number(Request::SetFormat(&mut Default::default()))),
        ("VIDIOC_ENUM_FRAMESIZES", number(Request::FrameSize(&mut Default::default()))),
        ("VIDIOC_ENUM_FRAMEINTERVALS", number(Request::FrameInterval(&mut Default::default()))),
        ("VIDIOC_G_PARM", number(Request::GetParameters(&mut Default::default()))),
        ("VIDIOC_S_PARM", number(Request::SetParameters(&mut Default::default()))),
        ("VIDIOC_QUERYCTRL", number(Request::QueryControl(&mut Default::default()))),
        ("VIDIOC_G_CTRL", number(Request::GetControl(&mut Default::default()))),
        ("VIDIOC_S_CTRL", number(Request::SetControl(&mut Default::default()))),
        ("VIDIOC_REQBUFS", number(Request::Buffers(&mut Default::default()))),
        ("VIDIOC_QUERYBUF", number(Request::QueryBuffer(&mut Default::default()))),
        ("VIDIOC_QBUF", number(Request::Queue(&mut Default::default()))),
        ("VIDIOC_DQBUF", number(Request::Dequeue(&mut Default::default()))),
        ("VIDIOC_STREAMON", number(Request::On(&mut 0))),
        ("V4L2_BUF_TYPE_VIDEO_CAPTURE", CAPTURE as usize),
        ("V4L2_MEMORY_MMAP", MMAP as usize),
        ("V4L2_CAP_VIDEO_CAPTURE", CAP_VIDEO_CAPTURE as usize),
        ("V4L2_CAP_STREAMING", CAP_STREAMING as usize),
        ("V4L2_CAP_DEVICE_CAPS", CAP_DEVICE_CAPS as usize),
        ("V4L2_CAP_TIMEPERFRAME", CAP_TIME_PER_FRAME as usize),
        ("V4L2_BUF_FLAG_ERROR", FLAG_ERROR as usize),
        ("V4L2_BUF_FLAG_TIMESTAMP_MASK", FLAG_TIMESTAMP as usize),
        ("V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC", FLAG_TIMESTAMP_MONOTONIC as usize),
        ("V4L2_CTRL_FLAG_DISABLED", CONTROL_DISABLED as usize),
    ] {
        compare(name.into(), ours);
    }
    macro_rules! structure {
        ($ours:ident = $theirs:ident: $($field:ident = $their_field:expr),*) => {
            compare(format!("sizeof(struct {})", stringify!($theirs)), size_of::<$ours>());
            $(compare(
                format!("offsetof(struct {}, {})", stringify!($theirs), $their_field),
                offset_of!($ours, $field),
            );)*
        };
    }
    structure!(Capability = v4l2_capability: driver = "driver", card = "card", bus = "bus_info",
        capabilities = "capabilities", device_caps = "device_caps");
    structure!(FormatDescription = v4l2_fmtdesc: index = "index", kind = "type", description = "description",
        pixel_format = "pixelformat");
    structure!(Format = v4l2_format: kind = "type", width = "fmt.pix.width", height = "fmt.pix.height",
        pixel_format = "fmt.pix.pixelformat", field = "fmt.pix.field", size_image = "fmt.pix.sizeimage");
    structure!(FrameSize = v4l2_frmsizeenum: index = "index", pixel_format = "pixel_format", kind = "type",
        sizes = "discrete");
    structure!(FrameInterval = v4l2_frmivalenum: width = "width", height = "height", kind = "type",
        intervals = "discrete");
    structure!(StreamParameters = v4l2_streamparm: capability = "parm.capture.capability",
        numerator = "parm.capture.timeperframe.numerator", denominator = "parm.capture.timeperframe.denominator");
    structure!(QueryControl = v4l2_queryctrl: id = "id", minimum = "minimum", maximum = "maximum",
        default = "default_value", flags = "flags");
    structure!(Control = v4l2_control: id = "id", value = "value");
    structure!(RequestBuffers = v4l2_requestbuffers: count = "count", kind = "type", memory = "memory");
    structure!(Buffer = v4l2_buffer: index = "index", bytes_used = "bytesused", flags = "flags",
        timestamp = "timestamp", sequence = "sequence", memory = "memory", place = "m", length = "length");
    program.push_str("return 0; }\n");

    let folder = std::env::temp_dir().join(format!("hksvd-v4l2-oracle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (source, built) = (folder.join("oracle.c"), folder.join("oracle"));
    std::fs::write(&source, &program).expect("written");
    let compiled = Command::new("cc").arg("-o").arg(&built).arg(&source).status().expect("cc, which ring needs, too");
    assert!(compiled.success(), "{program}");
    let said = Command::new(&built).output().expect("it runs").stdout;
    std::fs::remove_dir_all(&folder).expect("removed");
    let said = String::from_utf8(said).expect("text");
    assert!(wanted.len() > 60);
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
}
