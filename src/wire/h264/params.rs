//! Sequence and picture parameter sets (ITU-T H.264 §7.3.2.1, §7.3.2.2, Annex E): what the picture
//! measures, and what a slice header cannot be read without.

use super::Bits;
use crate::wire::Malformed;

/// A sequence parameter set. Fields carry the names of the standard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sps {
    /// 66 baseline, 77 main, 100 high.
    pub profile_idc: u8,
    /// constraint_set0_flag (most significant bit) to constraint_set5_flag, two zero bits.
    pub constraint_flags: u8,
    /// Ten times the level: 31 is level 3.1.
    pub level_idc: u8,
    /// seq_parameter_set_id, 0..=31.
    pub id: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// separate_colour_plane_flag: slices carry colour_plane_id.
    pub separate_colour_plane: bool,
    /// Bits of frame_num in a slice header, 4..=16.
    pub log2_max_frame_num: u8,
    /// pic_order_cnt_type, 0..=2. With 2, output order is decoding order: no B-frames.
    pub pic_order_cnt_type: u8,
    /// Bits of pic_order_cnt_lsb in a slice header, 4..=16; 0 unless the type is 0.
    pub log2_max_pic_order_cnt_lsb: u8,
    /// delta_pic_order_always_zero_flag; false unless the type is 1.
    pub delta_pic_order_always_zero: bool,
    /// max_num_ref_frames.
    pub max_num_ref_frames: u8,
    /// frame_mbs_only_flag: no fields, no interlacing.
    pub frame_mbs_only: bool,
    /// Width of the picture after cropping, in luma samples.
    pub width: u16,
    /// Height of the picture after cropping, in luma samples.
    pub height: u16,
    /// The clock of the VUI, where there is one.
    pub timing: Option<Timing>,
    /// max_num_reorder_frames of the VUI, where there is one: 0 promises that there are no B-frames.
    pub max_num_reorder_frames: Option<u8>,
}

/// Frame timing in the VUI (§E.2.1). A frame lasts two ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Units of the clock in a tick, not 0.
    pub num_units_in_tick: u32,
    /// Units of the clock in a second, not 0.
    pub time_scale: u32,
    /// The frame rate does not vary.
    pub fixed_frame_rate: bool,
}

impl Timing {
    /// The time from frame to frame in ticks of 90 kHz; `None` when it makes no sense for a camera
    /// (below 1 or above 240 frames a second).
    pub fn frame_90k(&self) -> Option<u32> {
        let ticks = 2 * u64::from(self.num_units_in_tick) * 90_000 / u64::from(self.time_scale);
        (90_000 / 240..=90_000).contains(&ticks).then_some(ticks as u32)
    }
}

/// Profiles whose SPS says more about chroma (§7.3.2.1.1).
const WITH_CHROMA: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

impl Sps {
    /// Reads an SPS NAL unit, its header byte included, without start code.
    ///
    /// A VUI that breaks off is ignored, not refused: encoders on cameras get it wrong, and nothing
    /// in it is needed.
    ///
    /// # Errors
    /// When a field in front of the VUI is missing or out of its range.
    pub fn parse(nal: &[u8]) -> Result<Self, Malformed> {
        let bits = &mut payload(nal, super::NalType::SPS)?;
        let profile_idc = bits.u(8)? as u8;
        let constraint_flags = bits.u(8)? as u8;
        let level_idc = bits.u(8)? as u8;
        let id = at_most(bits.ue()?, 31, "seq_parameter_set_id is above 31")?;
        let (chroma_format_idc, separate_colour_plane) =
            if WITH_CHROMA.contains(&profile_idc) { chroma(bits)? } else { (1, false) };
        let log2_max_frame_num = 4 + at_most(bits.ue()?, 12, "log2_max_frame_num is above 16")?;
        let pic_order_cnt_type = at_most(bits.ue()?, 2, "pic_order_cnt_type is above 2")?;
        let mut log2_max_pic_order_cnt_lsb = 0;
        let mut delta_pic_order_always_zero = false;
        match pic_order_cnt_type {
            0 => log2_max_pic_order_cnt_lsb = 4 + at_most(bits.ue()?, 12, "log2_max_pic_order_cnt_lsb is above 16")?,
            1 => {
                delta_pic_order_always_zero = bits.flag()?;
                bits.se()?; // offset_for_non_ref_pic
                bits.se()?; // offset_for_top_to_bottom_field
                for _ in 0..at_most(bits.ue()?, 255, "num_ref_frames_in_pic_order_cnt_cycle is above 255")? {
                    bits.se()?;
                }
            }
            _ => {}
        }
        let max_num_ref_frames = at_most(bits.ue()?, 16, "max_num_ref_frames is above 16")?;
        bits.flag()?; // gaps_in_frame_num_value_allowed_flag
        let width_mbs = 1 + at_most_u32(bits.ue()?, 1023, "the picture is wider than 16384")?;
        let height_map_units = 1 + at_most_u32(bits.ue()?, 1023, "the picture is higher than 16384")?;
        let frame_mbs_only = bits.flag()?;
        if !frame_mbs_only {
            bits.flag()?; // mb_adaptive_frame_field_flag
        }
        bits.flag()?; // direct_8x8_inference_flag
        let fields = 2 - u32::from(frame_mbs_only);
        let (mut width, mut height) = (width_mbs * 16, height_map_units * 16 * fields);
        if bits.flag()? {
            // Table 6-1 and equations 7-19 to 7-22: crop units count chroma samples.
            let (sub_width, sub_height) = match (chroma_format_idc, separate_colour_plane) {
                (1, _) => (2, 2),
                (2, _) => (2, 1),
                _ => (1, 1),
            };
            width = cropped(width, sub_width, bits.ue()?, bits.ue()?)?;
            height = cropped(height, sub_height * fields, bits.ue()?, bits.ue()?)?;
        }
        let vui = if bits.flag()? { Vui::parse(bits) } else { Vui::default() };
        Ok(Sps {
            profile_idc,
            constraint_flags,
            level_idc,
            id,
            chroma_format_idc,
            separate_colour_plane,
            log2_max_frame_num,
            pic_order_cnt_type,
            log2_max_pic_order_cnt_lsb,
            delta_pic_order_always_zero,
            max_num_ref_frames,
            frame_mbs_only,
            width: width as u16,
            height: height as u16,
            timing: vui.timing,
            max_num_reorder_frames: vui.max_num_reorder_frames,
        })
    }

    /// Whether the parameters leave room for pictures that are shown in another order than they are
    /// sent in. Many encoders leave it open and never do; `false` is a promise, `true` is not.
    pub fn may_reorder(&self) -> bool {
        // Baseline has no B slices (§A.2.1).
        self.profile_idc != 66 && self.pic_order_cnt_type != 2 && self.max_num_reorder_frames != Some(0)
    }
}

/// A picture parameter set. Fields carry the names of the standard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pps {
    /// pic_parameter_set_id, 0..=255.
    pub id: u8,
    /// The SPS it belongs to, 0..=31.
    pub sps_id: u8,
    /// entropy_coding_mode_flag: CABAC instead of CAVLC.
    pub entropy_coding_mode: bool,
    /// bottom_field_pic_order_in_frame_present_flag.
    pub bottom_field_pic_order_in_frame_present: bool,
    /// num_ref_idx_l0_default_active_minus1, 0..=31.
    pub num_ref_idx_l0_default_active_minus1: u8,
    /// weighted_pred_flag.
    pub weighted_pred: bool,
    /// pic_init_qp_minus26; below -26 only with more than eight bits a sample.
    pub pic_init_qp_minus26: i8,
    /// redundant_pic_cnt_present_flag.
    pub redundant_pic_cnt_present: bool,
}

impl Pps {
    /// Reads a PPS NAL unit, its header byte included, without start code.
    ///
    /// # Errors
    /// When a field is missing or out of its range, and for slice groups (FMO), which no camera has.
    pub fn parse(nal: &[u8]) -> Result<Self, Malformed> {
        let bits = &mut payload(nal, super::NalType::PPS)?;
        let id = at_most(bits.ue()?, 255, "pic_parameter_set_id is above 255")?;
        let sps_id = at_most(bits.ue()?, 31, "seq_parameter_set_id is above 31")?;
        let entropy_coding_mode = bits.flag()?;
        let bottom_field_pic_order_in_frame_present = bits.flag()?;
        at_most(bits.ue()?, 0, "slice groups are not supported")?;
        let num_ref_idx_l0_default_active_minus1 = at_most(bits.ue()?, 31, "more than 32 reference pictures")?;
        at_most(bits.ue()?, 31, "more than 32 reference pictures")?;
        let weighted_pred = bits.flag()?;
        bits.u(2)?; // weighted_bipred_idc
        let qp = bits.se()?;
        if !(-62..=25).contains(&qp) {
            return Err(Malformed("pic_init_qp is out of range"));
        }
        bits.se()?; // pic_init_qs_minus26
        bits.se()?; // chroma_qp_index_offset
        bits.flag()?; // deblocking_filter_control_present_flag
        bits.flag()?; // constrained_intra_pred_flag
        let redundant_pic_cnt_present = bits.flag()?;
        Ok(Pps {
            id,
            sps_id,
            entropy_coding_mode,
            bottom_field_pic_order_in_frame_present,
            num_ref_idx_l0_default_active_minus1,
            weighted_pred,
            pic_init_qp_minus26: qp as i8,
            redundant_pic_cnt_present,
        })
    }
}

#[derive(Default)]
struct Vui {
    timing: Option<Timing>,
    max_num_reorder_frames: Option<u8>,
}

impl Vui {
    /// §E.1.1; keeps what it had when the bits run out.
    fn parse(bits: &mut Bits<'_>) -> Vui {
        let mut vui = Vui::default();
        let _ = vui.read(bits);
        vui
    }

    fn read(&mut self, bits: &mut Bits<'_>) -> Result<(), Malformed> {
        const EXTENDED_SAR: u32 = 255;
        if bits.flag()? && bits.u(8)? == EXTENDED_SAR {
            bits.u(32)?;
        }
        if bits.flag()? {
            bits.flag()?; // overscan_appropriate_flag
        }
        if bits.flag()? {
            bits.u(4)?; // video_format, video_full_range_flag
            if bits.flag()? {
                bits.u(24)?; // colour_primaries, transfer_characteristics, matrix_coefficients
            }
        }
        if bits.flag()? {
            bits.ue()?; // chroma_sample_loc_type_top_field
            bits.ue()?; // chroma_sample_loc_type_bottom_field
        }
        if bits.flag()? {
            let (num_units_in_tick, time_scale) = (bits.u(32)?, bits.u(32)?);
            let fixed_frame_rate = bits.flag()?;
            self.timing = (num_units_in_tick != 0 && time_scale != 0).then_some(Timing {
                num_units_in_tick,
                time_scale,
                fixed_frame_rate,
            });
        }
        let nal_hrd = bits.flag()?;
        if nal_hrd {
            skip_hrd(bits)?;
        }
        let vcl_hrd = bits.flag()?;
        if vcl_hrd {
            skip_hrd(bits)?;
        }
        if nal_hrd || vcl_hrd {
            bits.flag()?; // low_delay_hrd_flag
        }
        bits.flag()?; // pic_struct_present_flag
        if bits.flag()? {
            bits.flag()?; // motion_vectors_over_pic_boundaries_flag
            for _ in 0..4 {
                bits.ue()?; // max_bytes_per_pic_denom .. log2_max_mv_length_vertical
            }
            self.max_num_reorder_frames = u8::try_from(bits.ue()?).ok();
        }
        Ok(())
    }
}

/// hrd_parameters(), §E.1.2.
fn skip_hrd(bits: &mut Bits<'_>) -> Result<(), Malformed> {
    let count = 1 + at_most(bits.ue()?, 31, "cpb_cnt is above 32")?;
    bits.u(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        bits.ue()?; // bit_rate_value_minus1
        bits.ue()?; // cpb_size_value_minus1
        bits.flag()?; // cbr_flag
    }
    bits.u(20)?; // four delay and offset lengths
    Ok(())
}

/// chroma_format_idc, separate_colour_plane_flag, and past the bit depths and scaling lists.
fn chroma(bits: &mut Bits<'_>) -> Result<(u8, bool), Malformed> {
    let format = at_most(bits.ue()?, 3, "chroma_format_idc is above 3")?;
    let separate = format == 3 && bits.flag()?;
    bits.ue()?; // bit_depth_luma_minus8
    bits.ue()?; // bit_depth_chroma_minus8
    bits.flag()?; // qpprime_y_zero_transform_bypass_flag
    if bits.flag()? {
        for list in 0..if format == 3 { 12 } else { 8 } {
            if bits.flag()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok((format, separate))
}

/// scaling_list(), §7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Result<(), Malformed> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?.rem_euclid(256)) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

fn cropped(size: u32, unit: u32, before: u32, after: u32) -> Result<u32, Malformed> {
    let cut = u64::from(unit) * (u64::from(before) + u64::from(after));
    match u64::from(size).checked_sub(cut) {
        Some(left) if left > 0 => Ok(left as u32),
        _ => Err(Malformed("cropping leaves nothing of the picture")),
    }
}

fn payload(nal: &[u8], want: super::NalType) -> Result<Bits<'_>, Malformed> {
    match nal.split_first() {
        Some((&header, payload)) if super::NalType::of(header) == want => Ok(Bits::new(payload)),
        _ => Err(Malformed("not a parameter set of the expected type")),
    }
}

fn at_most_u32(value: u32, limit: u32, rule: &'static str) -> Result<u32, Malformed> {
    if value <= limit { Ok(value) } else { Err(Malformed(rule)) }
}

fn at_most(value: u32, limit: u8, rule: &'static str) -> Result<u8, Malformed> {
    at_most_u32(value, limit.into(), rule).map(|v| v as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h264::unhex;
    use h264_reader::nal::{pps, sps};
    use h264_reader::rbsp::{BitReader, decode_nal};

    /// Parameter sets as x264 writes them, by what was asked of it.
    const X264: [(&str, &str, &str); 5] = [
        ("vectors", "674d4028d9020bf97011000003000100000300140f183248", "68ebc0e4b2"),
        ("baseline, CAVLC", "6742c01fd9005005bb011000000300100000030320f1832480", "68cb83cb20"),
        (
            "main with HRD, cropped",
            "674d4028eca03c0113f2e02200000300020000030064c4c001e848003d09c98600f1831960",
            "68ebecb2",
        ),
        (
            "high with scaling lists, interlaced",
            "6764001eacd940a063f3e022000003000200000300643e28532c",
            "68fba3cb3002c0",
        ),
        ("high 4:4:4, cropped", "67f4000d919b282810fc7e0220000003002000000641e28532c0", "68ebe3c44844"),
    ];

    fn oracle(sps_nal: &[u8], pps_nal: &[u8]) -> (sps::SeqParameterSet, pps::PicParameterSet) {
        let mut context = h264_reader::Context::default();
        let rbsp = decode_nal(sps_nal).unwrap();
        let sps = sps::SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).unwrap();
        context.put_seq_param_set(sps.clone());
        let rbsp = decode_nal(pps_nal).unwrap();
        let pps = pps::PicParameterSet::from_bits(&context, BitReader::new(&rbsp[..])).unwrap();
        (sps, pps)
    }

    #[test]
    fn agrees_with_an_independent_parser() {
        for (name, sps_hex, pps_hex) in X264 {
            let (sps_nal, pps_nal) = (unhex(sps_hex), unhex(pps_hex));
            let (sps, pps) = (Sps::parse(&sps_nal).unwrap(), Pps::parse(&pps_nal).unwrap());
            let (their_sps, their_pps) = oracle(&sps_nal, &pps_nal);
            assert_eq!((u32::from(sps.width), u32::from(sps.height)), their_sps.pixel_dimensions().unwrap(), "{name}");
            assert_eq!(sps.profile_idc, u8::from(their_sps.profile_idc), "{name}");
            assert_eq!(sps.constraint_flags, u8::from(their_sps.constraint_flags), "{name}");
            assert_eq!(sps.level_idc, their_sps.level_idc, "{name}");
            assert_eq!(sps.log2_max_frame_num, their_sps.log2_max_frame_num(), "{name}");
            match their_sps.pic_order_cnt {
                sps::PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4 } => {
                    assert_eq!(sps.log2_max_pic_order_cnt_lsb, log2_max_pic_order_cnt_lsb_minus4 + 4, "{name}")
                }
                sps::PicOrderCntType::TypeOne { .. } => assert_eq!(sps.pic_order_cnt_type, 1, "{name}"),
                sps::PicOrderCntType::TypeTwo => assert_eq!(sps.pic_order_cnt_type, 2, "{name}"),
            }
            assert_eq!(sps.frame_mbs_only, their_sps.frame_mbs_flags == sps::FrameMbsFlags::Frames, "{name}");
            let their_vui = their_sps.vui_parameters.unwrap();
            let timing = sps.timing.unwrap();
            let theirs = their_vui.timing_info.unwrap();
            assert_eq!((timing.num_units_in_tick, timing.time_scale), (theirs.num_units_in_tick, theirs.time_scale));
            assert_eq!(
                sps.max_num_reorder_frames.map(u32::from),
                their_vui.bitstream_restrictions.map(|r| r.max_num_reorder_frames),
                "{name}"
            );
            assert_eq!(pps.entropy_coding_mode, their_pps.entropy_coding_mode_flag, "{name}");
            assert_eq!(
                u32::from(pps.num_ref_idx_l0_default_active_minus1),
                their_pps.num_ref_idx_l0_default_active_minus1,
                "{name}"
            );
            assert_eq!(pps.weighted_pred, their_pps.weighted_pred_flag, "{name}");
            assert_eq!(i32::from(pps.pic_init_qp_minus26), their_pps.pic_init_qp_minus26, "{name}");
            assert_eq!(pps.redundant_pic_cnt_present, their_pps.redundant_pic_cnt_present_flag, "{name}");
            assert_eq!(
                pps.bottom_field_pic_order_in_frame_present, their_pps.bottom_field_pic_order_in_frame_present_flag,
                "{name}"
            );
        }
    }

    #[test]
    fn frame_time_and_reordering() {
        let vector = Sps::parse(&unhex(X264[0].1)).unwrap();
        assert_eq!(vector.timing.unwrap().frame_90k(), Some(9000));
        assert!(!vector.may_reorder());
        let senseless = Timing { num_units_in_tick: 1, time_scale: 90_000, fixed_frame_rate: true };
        assert_eq!(senseless.frame_90k(), None);
    }

    #[test]
    fn cut_short_anywhere_is_refused_or_lacks_only_vui() {
        let sps = unhex(X264[0].1);
        let whole = Sps::parse(&sps).unwrap();
        for n in 0..sps.len() {
            if let Ok(cut) = Sps::parse(&sps[..n]) {
                assert!(n > 8, "{n} bytes are no SPS");
                assert_eq!(Sps { timing: whole.timing, max_num_reorder_frames: Some(0), ..cut }, whole);
            }
        }
        assert!(Pps::parse(b"\x68").is_err());
        assert!(Pps::parse(b"\x68\xff").is_err());
    }

    #[test]
    fn the_wrong_unit_and_wrong_values_are_refused() {
        assert!(Sps::parse(b"").is_err());
        assert!(Sps::parse(b"\x68\xeb\xc0").is_err());
        assert!(Pps::parse(b"\x67\x4d\x40").is_err());
        // seq_parameter_set_id 32: 00000 100001
        assert!(Sps::parse(b"\x67\x4d\x40\x28\x04\x20\xff\xff").is_err());
        // Any bits at all must not panic.
        let mut state = 1u32;
        for _ in 0..20_000 {
            let mut noise = [0u8; 40];
            for b in &mut noise {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *b = (state >> 24) as u8 & (state >> 16) as u8;
            }
            noise[0] = 0x67;
            noise[1] = if state & 1 == 0 { 100 } else { 77 };
            let _ = Sps::parse(&noise);
            noise[0] = 0x68;
            let _ = Pps::parse(&noise);
        }
    }
}
