//! Where Python's string literals are, line by line, without parsing: good enough for code that is cut or broken.

use std::borrow::Cow;

/// Follows triple-quoted strings over lines. Other strings end with their line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strings {
    open: Option<u8>,
}

impl Strings {
    /// Whether the next line begins inside a triple-quoted string.
    pub fn inside(self) -> bool {
        self.open.is_some()
    }

    /// The quotes that end the string that is open now.
    pub fn end(self) -> Option<&'static str> {
        self.open.map(|quote| if quote == b'"' { "\"\"\"" } else { "'''" })
    }

    /// Reads one line; returns what of it is neither string nor comment.
    pub fn feed<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        let bytes = line.as_bytes();
        if self.open.is_none() && !bytes.iter().any(|b| matches!(b, b'"' | b'\'' | b'#')) {
            return Cow::Borrowed(line);
        }
        let mut outside = String::new();
        let mut at = 0;
        while at < bytes.len() {
            let from = at;
            if let Some(quote) = self.open {
                at = self.skip_triple(bytes, at, quote);
                continue;
            }
            while at < bytes.len() && !matches!(bytes[at], b'"' | b'\'') && !is_comment(bytes, at) {
                at += 1;
            }
            // Quotes and `#` are ASCII, so both ends are character boundaries.
            outside.push_str(&line[from..at]);
            match bytes.get(at) {
                None | Some(b'#') => break,
                Some(&quote) if bytes[at..].starts_with(&[quote; 3]) => {
                    self.open = Some(quote);
                    at += 3;
                }
                Some(&quote) => at = after_short(bytes, at + 1, quote),
            }
        }
        Cow::Owned(outside)
    }

    fn skip_triple(&mut self, bytes: &[u8], mut at: usize, quote: u8) -> usize {
        while at < bytes.len() {
            match bytes[at] {
                b'\\' => at += 2,
                _ if bytes[at..].starts_with(&[quote; 3]) => {
                    self.open = None;
                    return at + 3;
                }
                _ => at += 1,
            }
        }
        bytes.len()
    }
}

/// `&#39;` is an escaped quote, not a comment.
fn is_comment(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b'#' && (at == 0 || bytes[at - 1] != b'&')
}

fn after_short(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, outside: &str, inside_after: bool) {
        let mut strings = Strings::default();
        let seen: Vec<String> = code.split('\n').map(|l| strings.feed(l).into_owned()).collect();
        assert_eq!((seen.join("\n").as_str(), strings.inside()), (outside, inside_after), "{code}");
    }

    #[test]
    fn strings_and_comments_are_left_out() {
        check("a = 1", "a = 1", false);
        check("a = 'x' + \"y\" # it's", "a =  +  ", false);
        check("'''", "", true);
        check("s = '''one\n# two\n''' + t", "s = \n\n + t", false);
        check(r#"s = "\"" + '"""' + t"#, "s =  +  + t", false);
        check("s = 'never closed\nt", "s = \nt", false);
        check("é = 'ü' + ö", "é =  + ö", false);
        check("'''\\'''\nx", "\n", true);
    }
}
