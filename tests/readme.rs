//! The README says what the program says.

use std::process::Command;

/// The block of the README that follows the comment `<!-- NAME: ... -->`.
fn block(name: &str) -> String {
    let readme = include_str!("../README.md");
    let after = readme.split_once(&format!("<!-- {name}:")).expect("the README has the mark").1;
    let fenced = after.split_once("```\n").expect("a block follows the mark").1;
    fenced.split_once("```").expect("the block ends").0.to_string()
}

#[test]
fn the_configuration_is_what_print_config_prints() {
    let out = Command::new(env!("CARGO_BIN_EXE_hksvd")).arg("print-config").output().unwrap();
    assert!(out.status.success());
    assert_eq!(block("print-config"), String::from_utf8(out.stdout).unwrap());
}

#[test]
fn every_configuration_is_accepted() {
    let examples: Vec<&str> = include_str!("../README.md").split("```json\n").skip(1).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        let json = example.split_once("```").unwrap().0;
        let path = std::env::temp_dir().join(format!("hksvd-readme-{}.json", std::process::id()));
        std::fs::write(&path, json).unwrap();
        let out =
            Command::new(env!("CARGO_BIN_EXE_hksvd")).args(["check", "--offline", "--config"]).arg(&path).output();
        std::fs::remove_file(&path).unwrap();
        let out = out.unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}
