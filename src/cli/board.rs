//! The preset of `board/` that fits the camera.

/// File names in `board/`, without `.json`, one a line and in order.
pub const PRESETS: &str = "\
aobocam_a12_t23dl_jxh63p_txw901u
atom_cam2_t31x_gc2053_atbm6031
cinnado_d1_t23n_sc2336_atbm6012bx
cinnado_d1_t31l_sc2336_atbm6031
eufy_t8410x_t31x_sc3338_syn4343
galayou_g2_t23n_sc2336_atbm6012bx
iget_c5pt_t41lq_gc4023_jl1101
jooan_a2r_t23n_sc1a4t_atbm6012bx
okam_qc3_t23n_gc2083_aic8800u
sonoff_b1p_t23n_sc2336_atbm6012bx
sonoff_s2_t23n_sc2336_atbm6012bx
tplink_tapo_c100_t23n_sc2336p_wq9001
tplink_tapo_c200_t23n_sc2336p_rtl8188ftv
wansview_q5_t21n_os02b10_mt7601u
wuuk_y0510_t31x_sc4336p_ssv6158
wyze_cam2_t20x_jxf23_rtl8189ftv
wyze_cam3_t31x_gc2053_atbm6031
wyze_camfl1_t31x_gc2053_atbm6031
wyze_campan3_t31x_gc2053_atbm6031
wyze_vdb1_t30x_sc4236_rtl8189ftv
wyze_vdb1_t31x_sc4236_rtl8189ftv
wyze_vdb2_t31x_sc301iot_atbm6031
xiaomi_mjsxj03hl_t31n_jxq03_rtl8189ftv";

/// What to say about this camera; `None` where no firmware says which one it is.
pub fn preset() -> Option<String> {
    named(&std::fs::read_to_string(crate::daemon::root().join("etc/os-release")).ok()?)
}

/// The same for the text of `/etc/os-release`.
fn named(os_release: &str) -> Option<String> {
    let image = os_release.lines().find_map(|line| line.strip_prefix("IMAGE_ID="))?.trim_matches('"');
    // Older images have their kernel's version behind it.
    let image = image.strip_suffix("-3.10").or_else(|| image.strip_suffix("-4.4")).unwrap_or(image);
    if PRESETS.lines().any(|preset| preset == image) {
        return Some(format!("this camera is {image}: board/{image}.json fits"));
    }
    // Maker, model and SoC: what is left is the sensor and the radio.
    let model = |name: &'static str| name.match_indices('_').nth(2).map(|(at, _)| &name[..=at]);
    let near = PRESETS.lines().find(|preset| model(preset).is_some_and(|model| image.starts_with(model)))?;
    Some(format!("this camera is {image}: board/{near}.json is of one with another sensor or radio"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_known_by_its_image() {
        let said = |image: &str| named(&format!("NAME=Thingino\nIMAGE_ID={image}\nIMAGE_NAME=\"x\"\n"));
        let vdb2 = "this camera is wyze_vdb2_t31x_sc301iot_atbm6031: board/wyze_vdb2_t31x_sc301iot_atbm6031.json fits";
        for image in ["wyze_vdb2_t31x_sc301iot_atbm6031", "\"wyze_vdb2_t31x_sc301iot_atbm6031-3.10\""] {
            assert_eq!(said(image).as_deref(), Some(vdb2));
        }
        assert_eq!(
            said("wyze_cam3_t31x_gc2053_rtl8189ftv").as_deref(),
            Some(
                "this camera is wyze_cam3_t31x_gc2053_rtl8189ftv: board/wyze_cam3_t31x_gc2053_atbm6031.json is of one \
                 with another sensor or radio"
            )
        );
        for image in ["", "wyze_cam3", "wyze_cam3_t20x_gc2053_atbm6031", "wyze_cam4_t41nq_gc4653_atbm6062", "_", "___"]
        {
            assert_eq!(said(image), None, "{image}");
        }
        assert_eq!(named("NAME=Debian\n"), None);
    }
}
