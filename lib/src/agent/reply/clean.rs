//! What transport and chat templates add to a reply, taken away.

use std::borrow::Cow;

use super::{MAX_REPLY, strings::Strings};

/// The reply with plain newlines, without byte-order marks, thoughts, NUL characters or a template's end tokens, cut at
/// [`MAX_REPLY`].
pub(super) fn clean(reply: &str) -> Cow<'_, str> {
    match plain(cut(reply, MAX_REPLY)) {
        Cow::Borrowed(text) => Cow::Borrowed(answer(text)),
        Cow::Owned(text) => Cow::Owned(answer(&text).to_owned()),
    }
}

fn answer(text: &str) -> &str {
    without_end_tokens(without_thoughts(text))
}

/// Text with plain newlines, without byte-order marks and NUL characters. Most text is plain already, and is not copied.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    /// What the UTF-8 of a byte-order mark begins with.
    const MARK: u8 = 0xef;
    match memchr::memchr3(b'\r', b'\0', MARK, text.as_bytes()) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let text = text.replace("\r\n", "\n").replace('\r', "\n");
            Cow::Owned(text.replace(['\0', '\u{feff}'], ""))
        }
    }
}

fn cut(text: &str, at: usize) -> &str {
    let mut end = at.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A reasoning model's thoughts come first; an unclosed thought is all there is.
fn without_thoughts(text: &str) -> &str {
    for (open, close) in [("<think>", "</think>"), ("<thinking>", "</thinking>")] {
        if let Some(rest) = text.trim_start().strip_prefix(open) {
            return rest.split_once(close).map_or("", |(_, answer)| answer);
        }
    }
    text
}

const END_TOKENS: [&str; 6] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "</s>", "<eos>"];

fn without_end_tokens(mut text: &str) -> &str {
    loop {
        let trimmed = text.trim_end();
        match END_TOKENS.iter().find_map(|token| trimmed.strip_suffix(token)) {
            Some(shorter) => text = shorter,
            None => return text,
        }
    }
}

const ENTITIES: [(&str, &str); 7] = [
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#39;", "'"),
    ("&#x27;", "'"),
    ("&apos;", "'"),
    ("&amp;", "&"),
];

/// Python code that went through an HTML escaper, as it was before; any other code unchanged.
///
/// Escaped code has no `<` or `>` of its own and has entities where Python has none: outside string literals.
pub(super) fn unescape(code: String) -> String {
    if !code.contains('&') || code.contains(['<', '>']) || !has_entity_outside_strings(&code) {
        return code;
    }
    let mut plain = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let (entity, character) = ENTITIES.iter().find(|(e, _)| rest.starts_with(e)).unwrap_or(&("&", "&"));
        plain.push_str(character);
        rest = &rest[entity.len()..];
    }
    plain.push_str(rest);
    plain
}

fn has_entity_outside_strings(code: &str) -> bool {
    let mut strings = Strings::default();
    code.split('\n').any(|line| {
        let mut found = false;
        strings.feed_to(line, |outside| found |= ENTITIES.iter().any(|(entity, _)| outside.contains(entity)));
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, expected: &str) {
        assert_eq!(unescape(code.to_owned()), expected);
    }

    #[test]
    fn escaped_code_is_told_from_code_about_html() {
        check("if a &gt; 1:\n    st.write(&quot;x&quot;)", "if a > 1:\n    st.write(\"x\")");
        check("st.title(&#39;A &amp;amp; B&#39;)", "st.title('A &amp; B')");
        check("st.markdown('a &lt; b')", "st.markdown('a &lt; b')");
        check(
            "st.markdown(\"\"\"\n&copy; &lt;b&gt;\n\"\"\")",
            "st.markdown(\"\"\"\n&copy; &lt;b&gt;\n\"\"\")",
        );
        check("if a > 1 and b &gt; 2: pass", "if a > 1 and b &gt; 2: pass");
        check("mask = a & b", "mask = a & b");
    }

    #[test]
    fn thoughts_and_end_tokens_go() {
        assert_eq!(clean("\u{feff}<think>\n```py\nx\n```\n</think>a\r\nb<|im_end|>\n</s>"), "a\nb");
        assert_eq!(clean("<think>for ever"), "");
        assert_eq!(clean("a\rb\r\n\0c\u{feff}\u{ff0c}\r"), "a\nb\nc\u{ff0c}\n");
    }

    #[test]
    fn the_cut_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
    }
}
