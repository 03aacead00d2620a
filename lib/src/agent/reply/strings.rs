//! Where Python's string literals are, line by line, without parsing: good enough for code that is cut or broken.

use memchr::{memchr2, memchr3};

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

    /// Reads one line.
    pub fn feed(&mut self, line: &str) {
        self.feed_to(line, |_| {});
    }

    /// Reads one line, of which `outside` gets what is neither string nor comment, piece by piece.
    pub fn feed_to<'a>(&mut self, line: &'a str, mut outside: impl FnMut(&'a str)) {
        let bytes = line.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let from = at;
            if let Some(quote) = self.open {
                at = self.skip_triple(bytes, at, quote);
                continue;
            }
            at = next_mark(bytes, at);
            // Quotes and `#` are ASCII, so both ends are character boundaries.
            outside(&line[from..at]);
            match bytes.get(at) {
                None | Some(b'#') => break,
                Some(&quote) if bytes[at..].starts_with(&[quote; 3]) => {
                    self.open = Some(quote);
                    at += 3;
                }
                Some(&quote) => at = after_short(bytes, at + 1, quote),
            }
        }
    }

    fn skip_triple(&mut self, bytes: &[u8], mut at: usize, quote: u8) -> usize {
        while let Some(found) = next_quote(bytes, at, quote) {
            if bytes[found..].starts_with(&[quote; 3]) {
                self.open = None;
                return found + 3;
            }
            at = found + 1;
        }
        bytes.len()
    }
}

/// Where the next string or comment begins; the end when there is none.
fn next_mark(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(found) = memchr3(b'"', b'\'', b'#', bytes.get(at..).unwrap_or_default()) {
        at += found;
        // `&#39;` is an escaped quote, not a comment.
        let is_escape = bytes[at] == b'#' && at > 0 && bytes[at - 1] == b'&';
        if !is_escape {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// The next of such quotes that no backslash stands before.
fn next_quote(bytes: &[u8], mut at: usize, quote: u8) -> Option<usize> {
    while let Some(found) = memchr2(quote, b'\\', bytes.get(at..)?) {
        at += found;
        if bytes[at] == quote {
            return Some(at);
        }
        at += 2;
    }
    None
}

fn after_short(bytes: &[u8], at: usize, quote: u8) -> usize {
    next_quote(bytes, at, quote).map_or(bytes.len(), |found| found + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, outside: &str, inside_after: bool) {
        let mut strings = Strings::default();
        let mut outside_of = |line| {
            let mut seen = String::new();
            strings.feed_to(line, |piece| seen.push_str(piece));
            seen
        };
        let seen: Vec<String> = code.split('\n').map(&mut outside_of).collect();
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
        check("'''\\", "", true);
        check("'\\", "", false);
        check("a &#39; b # c &# d", "a &#39; b ", false);
    }
}
