//! Paths that a reply names, made safe to write below a folder.

/// Longest part of a path, and longest path, in bytes.
const MAX_PART: usize = 100;
const MAX_PATH: usize = 200;
/// Deepest nesting that is kept; of deeper paths the innermost folders stay.
const MAX_DEPTH: usize = 8;

/// A relative path without `.`, `..`, empty parts, control characters or characters that a file system refuses; `None`
/// when nothing is left. Safe paths come back unchanged.
pub(super) fn safe(path: &str) -> Option<String> {
    let parts: Vec<String> = path.split(['/', '\\']).filter_map(safe_part).collect();
    let mut kept = &parts[parts.len().saturating_sub(MAX_DEPTH)..];
    while kept.len() > 1 && kept.iter().map(|p| p.len() + 1).sum::<usize>() > MAX_PATH {
        kept = &kept[1..];
    }
    (!kept.is_empty()).then(|| kept.join("/"))
}

fn safe_part(part: &str) -> Option<String> {
    // Drive letters say where a disk is, not what a file is called.
    if part.len() == 2 && part.ends_with(':') {
        return None;
    }
    let allowed =
        |c: char| !c.is_control() && !matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '`' | '\'');
    let mut part: String = part.chars().filter(|c| allowed(*c) && !is_invisible(*c)).collect();
    // What is cut off may uncover an end or a name that is not allowed either. Each turn shortens or is the last but one.
    loop {
        let next = mended(&part)?;
        if next == part {
            return Some(part);
        }
        part = next;
    }
}

fn mended(part: &str) -> Option<String> {
    // Windows drops spaces and dots at the end, so two names could be one file; `~` is a home folder.
    let part = part.trim().trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if part.is_empty() || part == "~" {
        return None;
    }
    Some(shortened(&if is_device(part) { format!("_{part}") } else { part.to_owned() }))
}

/// Characters that make two names look alike or turn text round.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn shortened(part: &str) -> String {
    if part.len() <= MAX_PART {
        return part.to_owned();
    }
    let (stem, extension) = match part.rsplit_once('.') {
        Some((stem, extension)) if extension.len() <= 10 => (stem, format!(".{extension}")),
        _ => (part, String::new()),
    };
    let mut end = (MAX_PART - extension.len()).min(stem.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let stem = stem[..end].trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    format!("{stem}{extension}")
}

/// Names that Windows keeps for devices, whatever their extension.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_lowercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit())
    };
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

const EXTENSIONS: [&str; 31] = [
    "py", "pyi", "toml", "txt", "cfg", "ini", "env", "yaml", "yml", "json", "css", "html", "htm", "js", "ts",
    "jsx", "tsx", "md", "rst", "sh", "sql", "csv", "xml", "svg", "lock", "conf", "bat", "scss", "ipynb",
    "example", "tsv",
];

/// Whether a word is written like the path of a source file: no spaces, and an ending or a name that such files have.
pub(super) fn is_file_name(word: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '\\' | '+' | '@' | '~');
    if word.is_empty() || word.len() > MAX_PATH || !word.chars().all(plain) || word.starts_with('-') {
        return false;
    }
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    if matches!(name, "Dockerfile" | "Makefile" | "Procfile" | ".env" | ".gitignore" | ".dockerignore") {
        return true;
    }
    name.rsplit_once('.').is_some_and(|(stem, extension)| {
        EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
            && stem.chars().any(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(safe(path).as_deref().unwrap_or("none"), expected, "{path:?}");
    }

    #[test]
    fn unsafe_paths_are_made_safe() {
        check("app.py", "app.py");
        check("./src/app.py", "src/app.py");
        check("/etc/passwd", "etc/passwd");
        check("../../app.py", "app.py");
        check("src\\pages\\a.py", "src/pages/a.py");
        check("C:\\Users\\me\\app.py", "Users/me/app.py");
        check("~/app.py", "app.py");
        check(".streamlit/config.toml", ".streamlit/config.toml");
        check("a\u{202e}yp.py", "ayp.py");
        check("a\nb\u{7}.py", "ab.py");
        check("con.py", "_con.py");
        check("COM1", "_COM1");
        check("app.py. ", "app.py");
        check("...", "none");
        check("/", "none");
        check(&format!("~{}x", " ".repeat(200)), "none");
        check(&format!("con{}x", " ".repeat(200)), "_con");
        check("a/b/c/d/e/f/g/h/i/j.py", "c/d/e/f/g/h/i/j.py");
        check(&format!("{}.py", "x".repeat(300)), &format!("{}.py", "x".repeat(97)));
    }

    #[test]
    fn words_that_name_files() {
        for word in
            ["app.py", "src/app.py", ".streamlit/config.toml", ".env", "Dockerfile", "a-b_c.yml", "1.py"]
        {
            assert!(is_file_name(word), "{word}");
        }
        for word in [
            "",
            "app",
            ".py",
            "e.g.",
            "streamlit",
            "https://a.b/c.py",
            "1.28.0",
            "st.title",
            "-x.py",
            "a b.py",
        ] {
            assert!(!is_file_name(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn safe_paths_stay_as_they_are(path in any::<String>()) {
            if let Some(once) = safe(&path) {
                prop_assert!(once.len() <= MAX_PATH);
                prop_assert!(!once.starts_with('/') && !once.contains(['\\', '\0', '\n']));
                prop_assert!(once.split('/').all(|p| !p.is_empty() && p != "." && p != ".."));
                prop_assert_eq!(safe(&once), Some(once.clone()));
            }
        }
    }
}
