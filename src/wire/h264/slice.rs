//! The slice header as far as the QP (ITU-T H.264 §7.3.3): what motion detection reads of a picture.

use super::{Bits, Nal, NalType, Pps, Sps};
use crate::wire::Malformed;

/// The beginning of a slice header, readable without parameter sets.
#[derive(Clone)]
pub struct SliceHeader<'a> {
    /// first_mb_in_slice: 0 in the first slice of a picture.
    pub first_mb_in_slice: u32,
    /// What the slice may be predicted from.
    pub slice_type: SliceType,
    /// pic_parameter_set_id, 0..=255: the PPS that [`SliceHeader::qp`] wants.
    pub pps_id: u8,
    idr: bool,
    reference: bool,
    rest: Bits<'a>,
}

/// slice_type modulo 5 (Table 7-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SliceType {
    /// Predicted from earlier pictures.
    P,
    /// Predicted from two lists of pictures.
    B,
    /// Intra: predicted from itself.
    I,
    /// SP or SI, of the extended profile.
    Switching,
}

impl<'a> SliceHeader<'a> {
    /// Reads the first three fields of a slice (NAL unit type 1 or 5).
    ///
    /// # Errors
    /// When it is another NAL unit, or a field is missing or out of its range.
    pub fn parse(nal: Nal<'a>) -> Result<Self, Malformed> {
        let idr = nal.nal_type() == NalType::IDR;
        if !idr && nal.nal_type() != NalType::SLICE {
            return Err(Malformed("not a slice"));
        }
        let mut rest = Bits::new(nal.bytes().get(1..).unwrap_or_default());
        let first_mb_in_slice = rest.ue()?;
        let slice_type = match rest.ue()? {
            0 | 5 => SliceType::P,
            1 | 6 => SliceType::B,
            2 | 7 => SliceType::I,
            3 | 4 | 8 | 9 => SliceType::Switching,
            _ => return Err(Malformed("slice_type is above 9")),
        };
        let pps_id = u8::try_from(rest.ue()?).map_err(|_| Malformed("pic_parameter_set_id is above 255"))?;
        Ok(SliceHeader { first_mb_in_slice, slice_type, pps_id, idr, reference: nal.ref_idc() != 0, rest })
    }

    /// The QP that the slice starts with, 0..=51 (equation 7-30), of I and P slices.
    ///
    /// `pps` must have the id [`SliceHeader::pps_id`] and `sps` be the one that it belongs to; others give a wrong
    /// number or an error.
    ///
    /// # Errors
    /// For other slice types, and when a field is missing or out of its range.
    pub fn qp(&self, sps: &Sps, pps: &Pps) -> Result<u8, Malformed> {
        let predicted = match self.slice_type {
            SliceType::P => true,
            SliceType::I => false,
            _ => return Err(Malformed("the QP is read of I and P slices only")),
        };
        let bits = &mut self.rest.clone();
        if sps.separate_colour_plane {
            bits.u(2)?; // colour_plane_id
        }
        bits.u(sps.log2_max_frame_num.into())?; // frame_num
        let mut field = false;
        if !sps.frame_mbs_only {
            field = bits.flag()?;
            if field {
                bits.flag()?; // bottom_field_flag
            }
        }
        if self.idr {
            bits.ue()?; // idr_pic_id
        }
        let bottom = pps.bottom_field_pic_order_in_frame_present && !field;
        match sps.pic_order_cnt_type {
            0 => {
                bits.u(sps.log2_max_pic_order_cnt_lsb.into())?;
                if bottom {
                    bits.se()?; // delta_pic_order_cnt_bottom
                }
            }
            1 if !sps.delta_pic_order_always_zero => {
                bits.se()?; // delta_pic_order_cnt[0]
                if bottom {
                    bits.se()?; // delta_pic_order_cnt[1]
                }
            }
            _ => {}
        }
        if pps.redundant_pic_cnt_present {
            bits.ue()?;
        }
        if predicted {
            let references = references(bits, pps)?;
            skip_ref_pic_list_modification(bits)?;
            if pps.weighted_pred {
                let chroma = sps.chroma_format_idc != 0 && !sps.separate_colour_plane;
                skip_pred_weight_table(bits, references, chroma)?;
            }
        }
        if self.reference {
            self.skip_dec_ref_pic_marking(bits)?;
        }
        if predicted && pps.entropy_coding_mode {
            bits.ue()?; // cabac_init_idc
        }
        let delta = i64::from(bits.se()?);
        match 26 + i64::from(pps.pic_init_qp_minus26) + delta {
            qp @ 0..=51 => Ok(qp as u8),
            _ => Err(Malformed("the QP is not within 0 and 51")),
        }
    }

    /// §7.3.3.3.
    fn skip_dec_ref_pic_marking(&self, bits: &mut Bits<'_>) -> Result<(), Malformed> {
        if self.idr {
            bits.u(2)?; // no_output_of_prior_pics_flag, long_term_reference_flag
            return Ok(());
        }
        if !bits.flag()? {
            return Ok(());
        }
        // Ends with the bits at the latest: every round reads one.
        loop {
            let operands = match bits.ue()? {
                0 => return Ok(()),
                5 => 0,
                1 | 2 | 4 | 6 => 1,
                3 => 2,
                _ => return Err(Malformed("memory_management_control_operation is above 6")),
            };
            for _ in 0..operands {
                bits.ue()?;
            }
        }
    }
}

/// Number of reference pictures in list 0.
fn references(bits: &mut Bits<'_>, pps: &Pps) -> Result<u32, Malformed> {
    let minus1 = if bits.flag()? { bits.ue()? } else { pps.num_ref_idx_l0_default_active_minus1.into() };
    if minus1 <= 31 { Ok(minus1 + 1) } else { Err(Malformed("more than 32 reference pictures")) }
}

/// §7.3.3.1, list 0.
fn skip_ref_pic_list_modification(bits: &mut Bits<'_>) -> Result<(), Malformed> {
    if !bits.flag()? {
        return Ok(());
    }
    loop {
        match bits.ue()? {
            0..=2 => bits.ue()?,
            3 => return Ok(()),
            _ => return Err(Malformed("modification_of_pic_nums_idc is above 3")),
        };
    }
}

/// §7.3.3.2, list 0.
fn skip_pred_weight_table(bits: &mut Bits<'_>, references: u32, chroma: bool) -> Result<(), Malformed> {
    bits.ue()?; // luma_log2_weight_denom
    if chroma {
        bits.ue()?; // chroma_log2_weight_denom
    }
    for _ in 0..references {
        for weights in if chroma { &[2, 4][..] } else { &[2] } {
            if bits.flag()? {
                for _ in 0..*weights {
                    bits.se()?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPS, PPS and the first bytes of slices: type, first_mb_in_slice, QP.
    type Stream = (&'static str, &'static str, &'static str, &'static [(&'static str, SliceType, u32, u8)]);

    /// As x264 writes them, cut to 26 bytes; types and QPs as an independent parser reads them.
    const X264: [Stream; 6] = [
        // POC type 2, CAVLC, three slices; the second of them has an emulation-prevention byte close by.
        (
            "baseline",
            "6742c016d900c037a6a0c0c0c8000003000800000300a078b17240",
            "68cb8cb2",
            &[
                ("65888413ffe5fea059c00ec6ff7ddde9f78e18e0c2784c41d1ff", SliceType::I, 0, 22),
                ("419a385e051789c081843c6788820cd1f88f11c4e12931b927c0", SliceType::P, 0, 24),
                ("4100d89a384ea12ffff8e93fffffffc27199bc23f3c4c4e2a3cf", SliceType::P, 432, 28),
                ("41006c268e1784b3408dd08940ff8e832e8f2acd030e220c7aca", SliceType::P, 864, 24),
            ],
        ),
        (
            "main, weighted, reordered references",
            "674d4016d940c037a6a0c0c0c8000003000800000300a078b172c0",
            "68e9332c80",
            &[
                ("6588843ffed907c0a5fdaa1ca8824e442be57355fbb948d1b600", SliceType::I, 0, 23),
                ("419a93784210fc87340550b8148092058030c0550d0024ff1e70", SliceType::P, 0, 28),
                ("419ab3784210fc8cf142602681a809a06b142c009fffdfbb58d6", SliceType::P, 0, 23),
            ],
        ),
        (
            "high, weighted, four slices, 16 references",
            "67640028ac4c220601bd3506060640000003004000000503c60c8460",
            "68e84332c8b0",
            &[
                ("6588821ffffed907c0a5fdaa1ca8824e442be57355fbb948d1b6", SliceType::I, 0, 23),
                ("419a397c104107911e608c062008901d403566098049ff0e1528", SliceType::P, 0, 28),
                ("4100a89a397c104107911e608c062008901d403566098049ff09", SliceType::P, 336, 28),
                ("410054268e5f041041e44798230188022407500d5982601097bf", SliceType::P, 672, 35),
            ],
        ),
        (
            "high, interlaced frames",
            "67640016ace40301cfcb3506060640000003004000000507c50a92",
            "68fb8cb22c",
            &[
                ("6588822c13fff1b324b0c30114275f32b33868be4b6ef266ab96", SliceType::I, 0, 22),
                ("419a23797f00061aa7fc5ca4d3d6f65f6e40c1435719991fb051", SliceType::P, 0, 25),
                ("419a67626f008564602c7e6776a03f3b22e78890869a167f23fe", SliceType::P, 0, 29),
            ],
        ),
        (
            "high 4:4:4, weighted",
            "67f40016919640300de9a8303032000003000200000300281e2c5c90",
            "68ebcc448440",
            &[
                ("6588843ffed45f814bfb566ea274418ea0000003000003037880", SliceType::I, 0, 23),
                ("419a92f84210f21cd01542e05202481600c3015434024f7bfb82", SliceType::P, 0, 28),
            ],
        ),
        (
            "monochrome, weighted: no chroma weights",
            "67640016f2c80601bd3706060240000003004000000503c58b92",
            "68ebccb22c",
            &[
                ("6588843ffed45f814c4464149d0986433721361f6b7751c00000", SliceType::I, 0, 23),
                ("419a52784210c8486943515f394358e8e9660001839db47452c9", SliceType::P, 0, 27),
                ("419a72f84210f2160cb064c2bf00592a76344a0cd22c63ed6d01", SliceType::P, 0, 27),
            ],
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn agrees_with_an_independent_parser() {
        for (name, sps, pps, slices) in X264 {
            let (sps, pps) = (Sps::parse(&bytes(sps)).unwrap(), Pps::parse(&bytes(pps)).unwrap());
            for (slice, slice_type, first_mb, qp) in slices {
                let slice = bytes(slice);
                let header = SliceHeader::parse(Nal::new(&slice).unwrap()).unwrap();
                assert_eq!((header.slice_type, header.first_mb_in_slice), (*slice_type, *first_mb), "{name}");
                assert_eq!(header.qp(&sps, &pps), Ok(*qp), "{name}");
            }
        }
    }

    #[test]
    fn cut_short_anywhere_is_refused_or_right() {
        for (name, sps, pps, slices) in X264 {
            let (sps, pps) = (Sps::parse(&bytes(sps)).unwrap(), Pps::parse(&bytes(pps)).unwrap());
            for (slice, _, _, qp) in slices {
                let slice = bytes(slice);
                let mut refused = 0;
                for n in 1..slice.len() {
                    match SliceHeader::parse(Nal::new(&slice[..n]).unwrap()).and_then(|h| h.qp(&sps, &pps)) {
                        Ok(read) => assert_eq!(read, *qp, "{name}"),
                        Err(_) => refused += 1,
                    }
                }
                assert!(refused >= 2, "{name}");
            }
        }
    }

    /// Bits as text; `ue`/`se` as in the standard.
    #[derive(Default)]
    struct Text(String);

    impl Text {
        fn u(mut self, bits: &str) -> Self {
            self.0 += bits;
            self
        }
        fn ue(mut self, v: u32) -> Self {
            let code = format!("{:b}", v + 1);
            self.0 += &"0".repeat(code.len() - 1);
            self.0 += &code;
            self
        }
        fn se(self, v: i32) -> Self {
            self.ue(if v > 0 { 2 * v.unsigned_abs() - 1 } else { 2 * v.unsigned_abs() })
        }
        fn nal(mut self, header: u8) -> Vec<u8> {
            self.0 += "1";
            let mut nal = vec![header];
            let mut zeros = 0;
            for byte in self.0.as_bytes().chunks(8) {
                let text = format!("{:0<8}", std::str::from_utf8(byte).unwrap());
                let byte = u8::from_str_radix(&text, 2).unwrap();
                if zeros >= 2 && byte <= 3 {
                    nal.push(3);
                    zeros = 0;
                }
                zeros = if byte == 0 { zeros + 1 } else { 0 };
                nal.push(byte);
            }
            nal
        }
    }

    fn sets() -> (Sps, Pps) {
        let mut sps = Sps::parse(&bytes(X264[0].1)).unwrap();
        sps.log2_max_frame_num = 4;
        sps.pic_order_cnt_type = 2;
        let pps = Pps {
            id: 0,
            sps_id: 0,
            entropy_coding_mode: false,
            bottom_field_pic_order_in_frame_present: false,
            num_ref_idx_l0_default_active_minus1: 0,
            weighted_pred: false,
            pic_init_qp_minus26: 0,
            redundant_pic_cnt_present: false,
        };
        (sps, pps)
    }

    fn read(nal: &[u8], sps: &Sps, pps: &Pps) -> Result<u8, Malformed> {
        SliceHeader::parse(Nal::new(nal).unwrap()).and_then(|h| h.qp(sps, pps))
    }

    #[test]
    fn every_optional_field_is_stepped_over() {
        let (mut sps, mut pps) = sets();
        sps.separate_colour_plane = true;
        sps.chroma_format_idc = 3;
        sps.frame_mbs_only = false;
        sps.pic_order_cnt_type = 1;
        pps.bottom_field_pic_order_in_frame_present = true;
        pps.redundant_pic_cnt_present = true;
        pps.weighted_pred = true;
        pps.entropy_coding_mode = true;
        pps.pic_init_qp_minus26 = -6;
        let start = || Text::default().ue(0).ue(5).ue(0).u("10").u("0101");
        let end = |t: Text| {
            t.ue(0) // redundant_pic_cnt
                .u("1")
                .ue(1) // two references
                .u("1")
                .ue(0)
                .ue(7)
                .ue(2)
                .ue(1)
                .ue(3) // modifications
                .ue(5)
                .u("1")
                .se(-12)
                .se(3)
                .u("0") // weights, luma only
                .u("1")
                .ue(1)
                .ue(4)
                .ue(2)
                .ue(0)
                .ue(3)
                .ue(1)
                .ue(2)
                .ue(4)
                .ue(9)
                .ue(5)
                .ue(6)
                .ue(300)
                .ue(0) // memory management
                .ue(2) // cabac_init_idc
                .se(-9)
        };
        // A frame has the second delta_pic_order_cnt, a field has bottom_field_flag instead.
        assert_eq!(read(&end(start().u("0").se(-3).se(4)).nal(0x61), &sps, &pps), Ok(11));
        assert_eq!(read(&end(start().u("11").se(-3)).nal(0x61), &sps, &pps), Ok(11));
        sps.delta_pic_order_always_zero = true;
        assert_eq!(read(&end(start().u("0")).nal(0x61), &sps, &pps), Ok(11));
        sps.pic_order_cnt_type = 0;
        sps.log2_max_pic_order_cnt_lsb = 6;
        assert_eq!(read(&end(start().u("0").u("110011").se(1)).nal(0x61), &sps, &pps), Ok(11));
    }

    #[test]
    fn emulation_prevention_inside_the_header() {
        let (mut sps, pps) = sets();
        sps.log2_max_frame_num = 16;
        sps.pic_order_cnt_type = 0;
        sps.log2_max_pic_order_cnt_lsb = 16;
        let nal = Text::default().ue(0).ue(0).ue(0).u(&"0".repeat(32)).u("00").se(7).nal(0x01);
        assert!(nal.windows(3).any(|w| w == [0, 0, 3]));
        assert_eq!(read(&nal, &sps, &pps), Ok(33));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let (sps, mut pps) = sets();
        let plain = |delta| Text::default().ue(0).ue(0).ue(0).u("0000").u("00").se(delta).nal(0x01);
        assert_eq!(read(&plain(25), &sps, &pps), Ok(51));
        assert_eq!(read(&plain(-26), &sps, &pps), Ok(0));
        assert!(read(&plain(26), &sps, &pps).is_err());
        assert!(read(&plain(-27), &sps, &pps).is_err());
        assert!(read(&plain(i32::MAX / 2), &sps, &pps).is_err());
        // Slice type 10, PPS 256, another NAL unit, a B slice, nothing at all.
        assert!(read(&Text::default().ue(0).ue(10).ue(0).nal(1), &sps, &pps).is_err());
        assert!(read(&Text::default().ue(0).ue(0).ue(256).nal(1), &sps, &pps).is_err());
        assert!(SliceHeader::parse(Nal::new(&bytes(X264[0].1)).unwrap()).is_err());
        assert!(read(&Text::default().ue(0).ue(1).ue(0).u("00000000").nal(1), &sps, &pps).is_err());
        assert!(read(&[0x41], &sps, &pps).is_err());
        // 33 references, unknown modification, unknown operation.
        assert!(read(&Text::default().ue(0).ue(0).ue(0).u("0000").u("1").ue(32).nal(1), &sps, &pps).is_err());
        assert!(read(&Text::default().ue(0).ue(0).ue(0).u("0000").u("01").ue(4).nal(1), &sps, &pps).is_err());
        assert!(read(&Text::default().ue(0).ue(0).ue(0).u("0000").u("001").ue(7).nal(0x21), &sps, &pps).is_err());
        // Modifications and operations without an end stop with the bits.
        let start = || Text::default().ue(0).ue(0).ue(0).u("0000").u("0");
        assert!(read(&start().u("1").u(&"11".repeat(999)).nal(0x01), &sps, &pps).is_err());
        assert!(read(&start().u("0").u("1").u(&"0101".repeat(999)).nal(0x21), &sps, &pps).is_err());
        // 32 references with all weights, and the QP is missing.
        pps.weighted_pred = true;
        let weights = "1111111".repeat(32) + "1";
        let nal = Text::default().ue(0).ue(0).ue(0).u("0000").u("1").ue(31).u("0").ue(0).ue(0).u(&weights);
        assert!(read(&nal.nal(0x01), &sps, &pps).is_err());
    }

    #[test]
    fn noise_never_panics() {
        let (mut sps, mut pps) = sets();
        let mut state = 7u32;
        for round in 0..20_000u32 {
            let mut noise = [0u8; 48];
            for b in &mut noise {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *b = (state >> 24) as u8 & (state >> 16) as u8;
            }
            noise[0] = [0x41, 0x65, 0x01, 0x25][round as usize % 4];
            sps.pic_order_cnt_type = (round / 4 % 3) as u8;
            pps.weighted_pred = round & 16 != 0;
            pps.entropy_coding_mode = round & 32 != 0;
            if let Ok(qp) = read(&noise, &sps, &pps) {
                assert!(qp <= 51);
            }
        }
    }
}
