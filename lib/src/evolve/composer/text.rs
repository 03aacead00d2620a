//! Text into sentences, lists and labels: what the reader needs of English, without a grammar.

/// Words that carry no content of their own: a label neither starts nor ends with one.
const GLUE: &str = "a an the their our my his her its your this that these those each every some any all also then and \
    or plus with of for to in on at as by per from into via just only about over under between after before \
    please both one two three us me them i we you they he she it optional optionally simple own several \
    more most many few which what whose is are was be been same next other another using";

/// Words after which a phrase turns into a clause.
const CLAUSE: &str = "that which who whom where when because so if while until unless since but although than via \
    whichever without instead like such please needs need must should would could can cannot will shall may might \
    is are was were be been has have had does do did i we they you he she it there here";

/// Python's, as far as they are in lower case.
const KEYWORDS: &str = "and as assert async await break class continue def del elif else except finally for from global if \
    import in is lambda nonlocal not or pass raise return try while with yield";

/// Abbreviations whose full stop ends no sentence.
const ABBREVIATIONS: &[&str] = &[
    "no", "e.g", "i.e", "p.a", "approx", "min", "max", "vs", "etc", "nr", "incl", "dr", "mr", "mrs", "st",
    "cas",
];

pub(super) fn is_glue(word: &str) -> bool {
    GLUE.split_whitespace().any(|glue| glue == word)
}

fn is_clause(word: &str) -> bool {
    CLAUSE.split_whitespace().any(|clause| clause == word)
}

/// Lower-case words, digits and inner hyphens, apostrophes and percent signs kept.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_alphanumeric() || "-'%/²³°€$".contains(c)))
        .map(|word| word.trim_matches(|c: char| "-'/".contains(c)).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// One spelling for what people write in many ways: dashes, arrows, `w/`, `&`, quotes, line ends.
pub(super) fn tidy(text: &str) -> String {
    let mut tidy = text.replace("\r\n", "\n").replace('\t', " ");
    for (from, to) in [
        ("’", "'"),
        ("‘", "'"),
        ("“", "\""),
        ("”", "\""),
        ("\"", ""),
        ("->", ","),
        ("→", ","),
        (" – ", ": "),
        (" — ", ": "),
        (" - ", ": "),
        ("–", "-"),
        (" w/ ", " with "),
        (" w ", " with "),
        (" & ", " and "),
        (" + ", ", "),
        (" or not", " yes/no"),
        ("First and last name", "First name, last name"),
        ("first and last name", "first name, last name"),
        (" as well as ", ", "),
        (" together with ", ", "),
    ] {
        tidy = tidy.replace(from, to);
    }
    tidy
}

/// Sentences of a tidy text; a line, a bullet and what a semicolon parts are sentences too.
pub(super) fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let chars: Vec<char> = text.chars().collect();
    let mut depth = 0_u32;
    for (at, c) in chars.iter().copied().enumerate() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let spaced = chars.get(at + 1).is_none_or(|next| next.is_whitespace());
        let current = sentences.last().map(String::as_str).unwrap_or_default();
        let ends = match c {
            '\n' => true,
            ';' => depth == 0,
            '!' | '?' => spaced,
            '.' => spaced && !abbreviates(current),
            _ => false,
        };
        if ends {
            depth = 0;
            sentences.push(String::new());
        } else if let Some(last) = sentences.last_mut() {
            last.push(c);
        }
    }
    sentences.iter().map(|s| unbulleted(s).to_owned()).filter(|s| !s.is_empty()).collect()
}

fn abbreviates(before: &str) -> bool {
    let last =
        before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default().to_lowercase();
    ABBREVIATIONS.contains(&last.as_str())
}

/// Whether a line is one of a list of lines: a bullet or a number stands before it.
pub(super) fn is_bullet(line: &str) -> bool {
    let line = line.trim();
    unbulleted(line).len() < line.len()
}

pub(super) fn unbulleted(line: &str) -> &str {
    let line = line.trim().trim_start_matches(['-', '*', '•', '+']).trim_start();
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let numbered =
        digits > 0 && line[digits..].starts_with([')', '.']) && line[digits + 1..].starts_with(' ');
    if numbered { line[digits + 1..].trim() } else { line }
}

/// Items of an enumeration: commas, `and`, `or`, `then` and `plus` outside brackets part them.
pub(super) fn items(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    for part in split_outside(text, ',') {
        items.extend(split_words(&part, &["and", "or", "then", "plus", "versus", "vs"]));
    }
    items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// Splits at a character outside brackets.
pub(super) fn split_outside(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == at && depth == 0 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn split_words(text: &str, at: &[&str]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_i32;
    for word in text.split_whitespace() {
        if depth == 0 && at.contains(&word.to_lowercase().as_str()) {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
        for c in word.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
        }
    }
    parts
}

/// What stands in the first pair of brackets, and the text without it.
pub(super) fn bracketed(text: &str) -> (String, Option<String>) {
    let Some(open) = text.find('(') else { return (text.to_owned(), None) };
    let close = text[open..].find(')').map_or(text.len(), |close| open + close);
    let inner = text[open + 1..close].trim().to_owned();
    let rest = text.get(close + 1..).unwrap_or_default();
    let outer = format!("{} {}", text[..open].trim(), bracketed(rest).0.trim());
    (outer.trim().to_owned(), Some(inner).filter(|inner| !inner.is_empty()))
}

/// A noun phrase fit for a label, of at most `most` words: what surrounds it is cut away. None when nothing is left.
pub(super) fn label(text: &str, most: usize) -> Option<String> {
    let (outer, _) = bracketed(text);
    let clean: String = outer.chars().filter(|c| !"\"'`\\{}[]<>|*#_".contains(*c) || *c == '\'').collect();
    let mut kept: Vec<&str> = Vec::new();
    for word in clean.split_whitespace() {
        let bare = word.trim_matches(|c: char| !(c.is_alphanumeric() || "%°²³€$".contains(c)));
        let low = bare.to_lowercase();
        if bare.is_empty() || (kept.is_empty() && is_glue(&low)) {
            continue;
        }
        if kept.len() == most || is_clause(&low) {
            break;
        }
        kept.push(bare);
        if word.ends_with(['.', ':', '!', '?', ';']) {
            break;
        }
    }
    while kept.last().is_some_and(|word| is_glue(&word.to_lowercase())) {
        kept.pop();
    }
    let label = kept.join(" ");
    label.chars().any(char::is_alphabetic).then(|| capital(&label))
}

/// The first letter upper-case, the rest as it is.
pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The first letter lower-case unless the word is an abbreviation.
pub(super) fn small(text: &str) -> String {
    let upper = text.chars().take(2).filter(|c| c.is_uppercase()).count() == 2;
    let mut chars = text.chars();
    if upper {
        return text.to_owned();
    }
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A plural noun's singular, by spelling.
pub(super) fn singular(word: &str) -> String {
    let keep = [
        "status", "gas", "news", "series", "bus", "lens", "address", "glass", "class", "progress", "species",
    ];
    if keep.contains(&word) || word.ends_with("ss") || word.ends_with("us") || word.len() < 4 {
        return word.to_owned();
    }
    if let Some(stem) = word.strip_suffix("ies") {
        return format!("{stem}y");
    }
    for ending in ["shes", "ches", "xes", "sses", "zes"] {
        if word.ends_with(ending) {
            return word[..word.len() - 2].to_owned();
        }
    }
    word.strip_suffix('s').unwrap_or(word).to_owned()
}

/// A Python name for a label: `Tip %` is `tip`, `Number of people` is `number_of_people`.
pub(super) fn variable(label: &str) -> String {
    let plain: String =
        label.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' }).collect();
    let name = plain.split_whitespace().take(3).collect::<Vec<_>>().join("_");
    // What composed apps call otherwise.
    let taken = ["", "max", "min", "round", "sum", "st", "data", "choice", "rows", "result"];
    if taken.contains(&name.as_str())
        || KEYWORDS.split_whitespace().any(|word| word == name)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        format!("value_{name}").trim_end_matches('_').to_owned()
    } else {
        name
    }
}

/// `1-5`, `0 to 10` or `from 1 to 6` as bounds.
pub(super) fn range(text: &str) -> Option<(i64, i64)> {
    let spaced = text.replace('-', " - ");
    let parts: Vec<&str> = spaced.split_whitespace().collect();
    parts.windows(3).find_map(|three| {
        let [low, dash, high] = three else { return None };
        let high = high.trim_end_matches(|c: char| !c.is_ascii_digit());
        let (low, high) = (low.parse::<i64>().ok()?, high.parse::<i64>().ok()?);
        (["-", "to"].contains(dash) && low < high && high <= 10_000 && low >= 0).then_some((low, high))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_end_where_people_end_them() {
        let parts = sentences("Chart of rate 2.5 p.a. in bars. One\n- two (a; b)\n3) three; four!");
        assert_eq!(parts, ["Chart of rate 2.5 p.a. in bars", "One", "two (a; b)", "three", "four"]);
    }

    #[test]
    fn lists_are_split_outside_brackets() {
        assert_eq!(
            items("name, plan (off-peak, full and family), start date and a note"),
            ["name", "plan (off-peak, full and family)", "start date", "a note"]
        );
    }

    #[test]
    fn labels_are_noun_phrases() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(label(text, 4).as_deref(), expected);
        check("an optional email for updates", Some("Email for updates"));
        check("the doctor who knows what to expect", Some("Doctor"));
        check("pain (0-10)", Some("Pain"));
        check("they", None);
        check("tip %", Some("Tip %"));
    }

    #[test]
    fn ranges_and_names() {
        assert_eq!(range("pain 0-10"), Some((0, 10)));
        assert_eq!(range("rated 1 to 5"), Some((1, 5)));
        assert_eq!(range("10-1"), None);
        assert_eq!(variable("Number of people"), "number_of_people");
        assert_eq!(variable("Tip %"), "tip");
        assert_eq!([variable("Yield"), variable("max")], ["value_yield", "value_max"]);
        assert_eq!(singular("batteries"), "battery");
        assert_eq!(singular("boxes"), "box");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,200}") {
            let tidy = tidy(&text);
            for sentence in sentences(&tidy) {
                for item in items(&sentence) {
                    label(&item, 4);
                    variable(&item);
                    range(&item);
                }
            }
        }
    }
}
