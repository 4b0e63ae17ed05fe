//! The presets of `board/`: the program accepts each, the table beside them has each, and a camera is told its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("board")
}

/// Board and file, in order.
fn presets() -> Vec<(String, PathBuf)> {
    let files = std::fs::read_dir(folder()).expect("board/").map(|file| file.expect("entry").path());
    let mut presets: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8").to_owned(), path))
        .collect();
    presets.sort();
    presets
}

fn check(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hksvd"));
    command.arg("check").args(args).env("HKSVD_ROOT", root).stdin(Stdio::null()).env_remove("HKSVD_SOCKET");
    command.output().expect("the program starts")
}

/// Here and not in the module, whose tests run on emulated cameras, too: there is no `board/` there.
#[test]
fn the_list_is_the_folder() {
    let presets = presets();
    let files: Vec<&str> = presets.iter().map(|(board, _)| board.as_str()).collect();
    assert_eq!(files, hksvd::cli::board::PRESETS.lines().collect::<Vec<_>>());
}

#[test]
fn every_preset_is_accepted() {
    let presets = presets();
    assert!(presets.len() >= 14);
    assert_eq!(presets.iter().filter(|(board, _)| board.starts_with("wyze_vdb")).count(), 3, "doorbells");
    for (board, path) in presets {
        let said = check(Path::new("/"), &["--offline", "--config", path.to_str().expect("UTF-8")]);
        assert!(said.status.success(), "{board}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

/// The figures in the table are those that the presets follow from.
#[test]
fn the_table_agrees() {
    let table = std::fs::read_to_string(folder().join("README.md")).expect("README.md");
    let rows = table.lines().filter(|line| line.starts_with("| `") && line.contains("_t")).count();
    let presets = presets();
    assert_eq!(rows, presets.len());
    for (board, path) in presets {
        let preset: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON, not only what the program takes");
        let row = table.lines().find(|line| line.starts_with(&format!("| `{board}` |"))).expect(&board);
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, _, _, soc, ram, _, kernel, light, button, _] = cells[..] else { panic!("{row}") };
        assert!(board.contains(&format!("_{}_", soc.to_lowercase())), "{row}");
        assert_eq!(kernel, if soc.starts_with("T4") { "4.4" } else { "3.10" }, "{row}");
        let memory = match ram {
            "128" => 6144,
            "64" => 2560,
            "32" => 768,
            other => panic!("{other} MB"),
        };
        assert_eq!(preset["memory_kb"], memory, "{row}");
        assert_eq!(preset["video"]["source"] == "raptor:sub", ram == "32", "{row}");
        assert_eq!(preset["led"].is_object(), light != "-", "{row}");
        assert_eq!(preset["doorbell"].is_object(), button == "`KEY_1`", "{row}");
    }
}

#[test]
fn check_names_the_preset_of_the_camera() {
    let root = std::env::temp_dir().join(format!("hksvd-boards-{}", std::process::id()));
    std::fs::create_dir_all(root.join("etc")).expect("folder");
    let config = root.join("hksvd.json");
    std::fs::write(&config, format!("{{\"state_dir\":{root:?}}}")).expect("written");
    std::fs::write(root.join("etc/os-release"), "ID=thingino\nIMAGE_ID=galayou_g2_t23n_sc2336_atbm6012bx\n")
        .expect("written");
    let said = check(&root, &["--config", config.to_str().expect("UTF-8")]);
    std::fs::remove_dir_all(&root).expect("removed");
    let out = String::from_utf8(said.stdout).expect("UTF-8");
    let wanted = "this camera is galayou_g2_t23n_sc2336_atbm6012bx: board/galayou_g2_t23n_sc2336_atbm6012bx.json fits";
    assert!(out.lines().any(|line| line.ends_with(wanted)), "{out}");
}
