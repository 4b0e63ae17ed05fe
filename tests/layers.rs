//! The direction of the arrows between the layers, the words that have no place in the core, and where `unsafe` is.
//!
//! Reads the sources as text: a `use crate::…` (or a path in the code) that goes against the table of the layers, a
//! socket, a file, a clock or an executor in the core, and `unsafe` outside `sys` are findings. The checker is tested
//! against samples of each.

use std::fs;
use std::path::{Path, PathBuf};

/// Module of the first level → the modules it may name, besides itself. A module that is missing here may name
/// anything: that is `daemon`, `cli` and `main`, which wire the rest together.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("wire", &["time"]),
    ("crypto", &["wire", "time"]),
    ("hap", &["wire", "crypto", "time"]),
    ("media", &["wire", "crypto", "time"]),
    ("mdns", &["wire", "crypto", "time"]),
    ("motion", &["wire", "crypto", "time"]),
    ("rtsp", &["wire", "crypto", "time", "media"]),
    ("hds", &["wire", "crypto", "time", "media"]),
    ("live", &["wire", "crypto", "time", "media"]),
    ("sys", &[]),
    ("trace", &["time"]),
    ("config", CORE),
    ("source", SHELL),
    ("io", SHELL),
    ("store", SHELL),
    ("control", SHELL),
];

/// No sockets, files, clocks, randomness, executor, globals or unsafe in here.
const CORE: &[&str] = &["wire", "crypto", "hap", "hds", "media", "live", "mdns", "motion", "rtsp", "time"];

/// What the shell may see: everything but the wiring.
const SHELL: &[&str] = &[
    "wire", "crypto", "hap", "hds", "media", "live", "mdns", "motion", "rtsp", "time", "trace", "config", "sys",
    "source", "io", "store", "control",
];

/// Words that touch the world. `std::net::IpAddr` and its kin are values, `TcpStream` and its kin are sockets.
const FORBIDDEN_IN_CORE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "futures_lite",
    "libc",
    "std::time::Instant",
    "Instant::now",
    "SystemTime",
    "async fn",
    ".await",
    "log::",
    "println!",
    "eprintln!",
    "thread_local!",
    "static mut",
    "AtomicU64",
    "SystemRandom",
];

/// The executor and the clock have one home.
const ONLY_IN_RUNTIME: &[&str] = &["futures_lite", "Instant::now", "SystemTime::now", "thread::sleep"];

#[test]
fn the_layers_keep_their_direction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "only {} source files under {}", files.len(), root.display());
    let mut found = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a source file that was just listed");
        let name = file.strip_prefix(&root).expect("a file below src").to_string_lossy().replace('\\', "/");
        found.extend(findings(&name, &text));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_violation_is_found() {
    let seen = |name: &str, text: &str| findings(name, text).len();
    assert_eq!(seen("wire/tlv8.rs", "use crate::crypto::Key;"), 1);
    assert_eq!(seen("wire/tlv8.rs", "use crate::time::Instant;"), 0);
    assert_eq!(seen("hap/state.rs", "use crate::{wire::Writer, hds::Session};"), 1);
    assert_eq!(seen("hap/state.rs", "use crate::{\n    hds::Session,\n    wire::{Writer, tlv8},\n};"), 1);
    assert_eq!(seen("hap/state.rs", "fn f() { crate::media::fmp4::init() }"), 1);
    assert_eq!(seen("hds/recording.rs", "use crate::media::Reader; use crate::hap::State;"), 1);
    assert_eq!(seen("hap/mod.rs", "pub(crate) mod state; pub(in crate::hap) fn f() {}"), 0);
    assert_eq!(seen("media/mod.rs", "let now = std::time::Instant::now();"), 2);
    assert_eq!(seen("motion/mod.rs", "pub async fn poll() {}"), 1);
    assert_eq!(seen("mdns/mod.rs", "use std::net::{IpAddr, Ipv4Addr};"), 0);
    assert_eq!(seen("mdns/mod.rs", "use std::net::UdpSocket;"), 1);
    assert_eq!(seen("control/mod.rs", "use crate::daemon::Shared;"), 1);
    assert_eq!(seen("io/hap.rs", "use crate::hap::Connection; use std::net::TcpStream;"), 0);
    assert_eq!(seen("io/hap.rs", "futures_lite::future::block_on(f);"), 1);
    assert_eq!(seen("store/mod.rs", "let t = std::time::SystemTime::now();"), 1);
    assert_eq!(seen("control/mod.rs", "std::thread::sleep(d);"), 1);
    assert_eq!(seen("supervise.rs", "std::thread::sleep(d);"), 0);
    assert_eq!(seen("io/runtime.rs", "use futures_lite::future::or;"), 0);
    assert_eq!(seen("io/hap.rs", "let x = unsafe { f() };"), 1);
    assert_eq!(seen("sys/map.rs", "// SAFETY: mapped above\nlet x = unsafe { f() };"), 0);
    assert_eq!(seen("daemon.rs", "use crate::control::Server; use std::fs;"), 0);
    assert_eq!(seen("daemon.rs", "#[allow(unsafe_code)]"), 1);
    assert_eq!(seen("lib.rs", "#[allow(unsafe_code)]\npub mod sys;"), 0);
}

#[test]
fn words_in_comments_texts_and_tests_are_no_violation() {
    for text in [
        "// unlike std::fs, this keeps nothing\n/* SystemTime /* nested */ unsafe */ fn f() {}",
        "//! The caller's `Instant::now` is an argument.",
        "const HINT: &str = \"std::fs and \\\" unsafe\";",
        "const HINT: &str = r#\"a \"quoted\" unsafe\"#;",
        "const SLASHES: &str = \"http://\"; const QUOTE: char = '\"'; const ALSO: char = '\\''; fn f<'a>(x: &'a u8) {}",
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    use crate::daemon::Shared;\n}\n",
    ] {
        assert_eq!(findings("wire/x.rs", text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(findings("wire/x.rs", "const A: char = '\"'; use std::fs; const B: char = '\"';").len(), 1);
    assert_eq!(findings("wire/x.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;").len(), 1);
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is wrong in one file, a line each. `name` is relative to `src`.
fn findings(name: &str, text: &str) -> Vec<String> {
    let module = name.split(['/', '.']).next().expect("split gives at least one part");
    let code = without_tests(&without_comments_and_texts(text));
    let mut found = Vec::new();
    if let Some((_, allowed)) = MAY_NAME.iter().find(|(m, _)| *m == module) {
        for named in named_modules(&code) {
            if named != module && !allowed.contains(&named.as_str()) && is_module(&named) {
                found.push(format!("src/{name}: {module} must not name {named}"));
            }
        }
    }
    if CORE.contains(&module) {
        for word in FORBIDDEN_IN_CORE {
            if contains_word(&code, word) {
                found.push(format!("src/{name}: `{word}` has no place in the core"));
            }
        }
    }
    if name != "io/runtime.rs" && !CORE.contains(&module) {
        for word in ONLY_IN_RUNTIME {
            // The parent of `--supervise` has no executor: it sleeps between two starts.
            let supervises = name == "supervise.rs" && *word == "thread::sleep";
            if contains_word(&code, word) && !supervises {
                found.push(format!("src/{name}: only io/runtime.rs names `{word}`"));
            }
        }
    }
    let declares_sys = name == "lib.rs" && code.matches("allow(unsafe_code)").count() == 1;
    if module != "sys" && (contains_word(&code, "unsafe") || (code.contains("allow(unsafe_code)") && !declares_sys)) {
        found.push(format!("src/{name}: `unsafe` outside src/sys"));
    }
    found
}

/// Is this a module of the first level? Items of lib.rs and macros are not.
fn is_module(name: &str) -> bool {
    ["daemon", "cli", "supervise"].contains(&name) || MAY_NAME.iter().any(|(module, _)| *module == name)
}

/// First path segments after `crate::`, also inside braces.
fn named_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `pub(in crate::hap)` is a visibility of the module itself and harmless: it names itself.
        let rest = code[at + "crate::".len()..].trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut segment = String::new();
            let mut first = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(std::mem::take(&mut segment));
                        first = true;
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 && first && is_identifier(c) {
                    segment.push(c);
                } else if !segment.is_empty() {
                    first = false;
                }
            }
            found.push(segment);
        } else {
            found.push(rest.chars().take_while(|c| is_identifier(*c)).collect());
        }
    }
    found.retain(|s| !s.is_empty());
    found
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Does `word` occur with no identifier character on either side?
fn contains_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts = word.starts_with(is_identifier);
        let ends = word.ends_with(is_identifier);
        !(starts && before.is_some_and(is_identifier) || ends && after.is_some_and(is_identifier))
    })
}

/// The code without what follows a `#[cfg(test)]`, up to the end of the item that it marks.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item.find(['{', ';']).map_or(item.len(), |open| {
            let mut depth = 0;
            for (i, c) in item[open..].char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return open + i + c.len_utf8();
                }
            }
            item.len()
        });
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

/// The code with every comment, text and character literal taken out.
fn without_comments_and_texts(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut kept = String::new();
    let mut at = 0;
    let next = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        match (chars[at], next(at + 1)) {
            ('/', '/') => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (next(at), next(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            ('r', '"' | '#') if !kept.ends_with(is_identifier) || kept.ends_with('b') => {
                let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                if next(at + 1 + hashes) != '"' {
                    kept.push('r');
                    at += 1;
                    continue;
                }
                at += 2 + hashes;
                while at < chars.len()
                    && !(chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes)
                {
                    at += 1;
                }
                at += 1 + hashes;
            }
            ('"', _) => {
                at += 1;
                while at < chars.len() && chars[at] != '"' {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                at += 1;
            }
            // A character literal, not a lifetime: closed by a quote after one (escaped) character.
            ('\'', '\\') => {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            ('\'', _) if next(at + 2) == '\'' => at += 3,
            (c, _) => {
                kept.push(c);
                at += 1;
            }
        }
    }
    kept
}
