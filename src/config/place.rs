//! From "line 12, column 19" back to the key: the parser says where it stopped, people want to know
//! which key that was and where it begins.

/// A place in a JSON text that a person can find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Dotted key, empty at the top.
    pub key: String,
}

/// A key, string, number or word of the text.
struct Token<'a> {
    start: usize,
    end: usize,
    is_key: bool,
    /// The keys around it, its own last; arrays add an empty one.
    path: &'a [&'a str],
}

/// Tells `seen` about every token, as far as the text looks like JSON at all.
fn walk(text: &str, mut seen: impl FnMut(Token<'_>)) {
    let bytes = text.as_bytes();
    let mut path: Vec<&str> = Vec::new();
    let mut objects: Vec<bool> = Vec::new();
    let mut key_next = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                key_next = byte == b'{';
                objects.push(key_next);
                path.push("");
            }
            b'}' | b']' => {
                key_next = false;
                objects.pop();
                path.pop();
            }
            b',' => key_next = objects.last() == Some(&true),
            b':' => key_next = false,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                while let Some(&byte) = bytes.get(at) {
                    at += if byte == b'\\' { 2 } else { 1 };
                    if byte == b'"' {
                        break;
                    }
                }
                at = at.min(bytes.len());
                if let (true, Some(last)) = (key_next, path.last_mut()) {
                    // A slice that does not end at a character boundary is no key of ours.
                    *last = text.get(start + 1..at - 1).unwrap_or("");
                }
                seen(Token { start, end: at, is_key: key_next, path: &path });
            }
            _ => {
                while bytes.get(at).is_some_and(|byte| !b" \t\r\n,:{}[]\"".contains(byte)) {
                    at += 1;
                }
                seen(Token { start, end: at, is_key: false, path: &path });
            }
        }
    }
}

fn dotted(path: &[&str]) -> String {
    let mut key = String::new();
    for part in path.iter().filter(|part| !part.is_empty()) {
        if !key.is_empty() {
            key.push('.');
        }
        // An unknown key is the file's own text and goes to a terminal.
        key.extend(part.chars().take(60).flat_map(char::escape_debug));
    }
    key
}

fn place(text: &str, offset: usize, key: String) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, key }
}

/// The last token that begins before the place where the parser stopped (1-based line; column in bytes,
/// which is the number of bytes of the line that it has looked at).
pub fn token_before(text: &str, line: usize, column: usize) -> Place {
    let line_start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let stopped = line_start + column;
    let mut found = place(text, 0, String::new());
    walk(text, |token| {
        if token.start < stopped {
            found = place(text, token.start, dotted(token.path));
        }
    });
    found
}

/// Where the value of that dotted key stands, where the text begins when the key is not in it.
pub fn value_of(text: &str, key: &str) -> Place {
    let mut found = None;
    walk(text, |token| {
        if found.is_none() && !token.is_key && dotted(token.path) == key {
            debug_assert!(token.start < token.end);
            found = Some(token.start);
        }
    });
    place(text, found.unwrap_or(0), key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"näme\": \"a\\\"b\",\n  \"hap\": { \"list\": [1, \"lo\"], \"port\":12 }\n}";

    #[test]
    fn a_stop_is_traced_to_its_token() {
        let at = |line, column| {
            let place = token_before(TEXT, line, column);
            (place.line, place.column, place.key)
        };
        assert_eq!(at(2, 9), (2, 3, "näme".into()));
        assert_eq!(at(2, 17), (2, 11, "näme".into()));
        assert_eq!(at(3, 22), (3, 21, "hap.list".into()));
        assert_eq!(at(3, 30), (3, 24, "hap.list".into()));
        assert_eq!(at(3, 41), (3, 38, "hap.port".into()));
    }

    #[test]
    fn a_value_is_found_by_its_key() {
        let place = value_of(TEXT, "hap.port");
        assert_eq!((place.line, place.column), (3, 38));
        assert_eq!((value_of(TEXT, "video.fps").line, value_of(TEXT, "video.fps").column), (1, 1));
    }

    #[test]
    fn any_text_is_walked_to_its_end() {
        for broken in ["", "\"", "\"\\", "}}]]", "[[[{", "{\"a\":\"", "nul", "\u{feff}{}", "{\"é\\"] {
            for column in 0..12 {
                token_before(broken, 1, column);
            }
            token_before(broken, 9, 9);
            value_of(broken, "a");
        }
    }
}
