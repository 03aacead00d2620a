//! What a brief is about: the page's name, the thing that it shows, and the sort of page.

use super::{bank, lexicon, read::Shape, text};

/// Words that name pages and their parts, not what they are about.
const PAGE: &str = "form page screen app tool dashboard table list directory register registry wizard settings chat board \
    upload calculator quiz monitor inventory survey comparison report calendar search tracker planner gallery overview \
    view catalogue editor viewer ledger statement summary questionnaire preferences assistant chatbot kanban display \
    finder converter profile site portal ui interface menu flow check feed timeline map diary intake request builder \
    generator sign-up signup registration booking reservation reservations entry log browser picker checklist card cards \
    history details statistics stats manager management test dropdown step steps grid widget helper online live";

/// Leads that come before what is asked for.
const LEADS: &[&str] = &[
    "hello",
    "hi",
    "hey",
    "please",
    "many thanks",
    "could you",
    "can you",
    "could we",
    "can we",
    "would you",
    "would be great",
    "i'd like to",
    "i'd like",
    "i would like to",
    "i would like",
    "i want to",
    "i want",
    "i need to",
    "i need",
    "i am looking for",
    "we'd like",
    "we would like",
    "we want to",
    "we want",
    "we need to",
    "we need",
    "need to",
    "need",
    "wanted",
    "want",
    "build",
    "make",
    "create",
    "design",
    "give",
    "write",
    "develop",
    "implement",
    "prepare",
    "generate",
    "show",
    "have",
    "set up",
    "set",
    "register",
    "report",
    "manage",
    "put together",
    "help me to",
    "help me",
    "help us",
    "let me",
    "let users",
    "let people",
    "let",
    "me",
    "us",
    "a",
    "an",
    "the",
    "our",
    "my",
    "some",
    "simple",
    "small",
    "little",
    "nice",
    "quick",
    "basic",
    "new",
    "something to",
    "something",
    "one",
    "page for",
    "page to",
    "page where",
    "app for",
    "app to",
    "app where",
    "screen for",
    "tool for",
    "guide",
    "choose",
    "see",
    "talk to",
    "keep track of",
    "track of",
    "be able to",
    "track",
    "find",
    "plan",
    "compare",
    "fun",
];

const STOPS: &[&str] = &[
    "with", "where", "that", "which", "who", "showing", "show", "shows", "so", "they", "i", "we", "it", "by",
    "to", "and", "in", "on", "from", "before", "is", "as", "when", "whose", "please", "are", "using", "now",
    "just", "can",
];

/// Shapes by their cues: kinds of UI as well as words.
const SHAPES: &[(Shape, &str)] = &[
    (Shape::Quiz, "quiz flashcards flashcard trivia exam questions multiple-choice"),
    (Shape::Chat, "chat chatbot conversation bot talk"),
    (Shape::Board, "board kanban lanes lane cards swimlanes retro"),
    (Shape::Converter, "converter convert conversion converts"),
    (Shape::Calculator, "calculator calculate calculates estimator compute estimate splitter"),
    (Shape::Wizard, "wizard step-by-step guided onboarding stages steps multi-step"),
    (Shape::Upload, "upload uploads drop uploader import"),
    (Shape::Survey, "survey questionnaire questionaire feedback poll"),
    (Shape::Settings, "settings preferences options configure configuration account profile"),
    (Shape::Form, "form registration sign-up signup intake request register apply contact"),
    (
        Shape::Ledger,
        "tracker planner inventory stock diary habit tracking log booking bookings calendar budget editor todo add",
    ),
    (
        Shape::Records,
        "table list directory search gallery catalogue compare comparison finder browse viewer listing showcase",
    ),
    (
        Shape::Dashboard,
        "dashboard monitor monitoring overview report kpi kpis status metrics live watch summary",
    ),
];

const KINDS: &[(&str, Shape)] = &[
    ("form", Shape::Form),
    ("survey", Shape::Survey),
    ("settings", Shape::Settings),
    ("dashboard", Shape::Dashboard),
    ("monitoring", Shape::Dashboard),
    ("report", Shape::Dashboard),
    ("table", Shape::Records),
    ("search", Shape::Records),
    ("gallery", Shape::Records),
    ("comparison", Shape::Records),
    ("inventory", Shape::Ledger),
    ("tracker", Shape::Ledger),
    ("planner", Shape::Ledger),
    ("calendar", Shape::Ledger),
    ("wizard", Shape::Wizard),
    ("chat", Shape::Chat),
    ("board", Shape::Board),
    ("upload", Shape::Upload),
    ("calculator", Shape::Calculator),
    ("quiz", Shape::Quiz),
];

/// `TICKET LOG-482: text` without its number.
pub(super) fn without_ticket(tidy: &str) -> String {
    match tidy.split_once(": ") {
        Some((head, rest))
            if head.chars().any(|c| c.is_ascii_digit()) && head.len() < 20 && head.contains('-') =>
        {
            rest.to_owned()
        }
        _ => tidy.to_owned(),
    }
}

/// The name of the page: the noun phrase that the brief begins with, or the first that names a sort of page.
pub(super) fn title(sentences: &[String], words: &[String]) -> String {
    let phrase = |sentence: &String| noun_phrase(sentence, 7);
    let first = sentences.first().and_then(phrase).or_else(|| page_phrase(words));
    first.or_else(|| sentences.iter().skip(1).take(2).find_map(phrase)).unwrap_or_else(|| {
        let content = words.iter().filter(|word| !text::is_glue(word) && word.len() > 2).take(3).cloned();
        let content = content.collect::<Vec<_>>().join(" ");
        if content.is_empty() { "Overview".to_owned() } else { text::capital(&content) }
    })
}

/// The leading noun phrase, of at most `most` words; none when the sentence begins with a clause.
fn noun_phrase(sentence: &str, most: usize) -> Option<String> {
    let mut rest = sentence.trim();
    if rest.to_lowercase().starts_with("as ") {
        rest = after_role(rest)?;
    }
    loop {
        let low = rest.to_lowercase();
        let lead = LEADS
            .iter()
            .filter(|lead| low.strip_prefix(*lead).is_some_and(|after| after.starts_with([' ', ','])))
            .max_by_key(|l| l.len());
        let Some(lead) = lead else { break };
        rest = rest.get(lead.len()..)?.trim_start_matches([' ', ',', ':']);
    }
    let mut kept = Vec::new();
    for word in rest.split_whitespace() {
        let bare = word.trim_matches(|c: char| !(c.is_alphanumeric() || c == '%'));
        let low = bare.to_lowercase();
        if STOPS.contains(&low.as_str()) || word.starts_with('(') || kept.len() == most || bare.is_empty() {
            break;
        }
        kept.push(bare);
        if word.ends_with([',', ':', '.', ')', '?', '!', ';']) {
            break;
        }
    }
    if kept.len() == most {
        // Cut at a preposition rather than in the middle of what it leads to.
        let before = kept
            .iter()
            .skip(2)
            .rposition(|word| ["for", "of", "at", "about"].contains(&word.to_lowercase().as_str()));
        kept.truncate(before.map_or(5, |at| at + 2));
    }
    while kept.last().is_some_and(|word| text::is_glue(&word.to_lowercase())) {
        kept.pop();
    }
    let verbs = "at underneath ask only dispatchers while after since list: staff team guide members repair types type pick set drop look record search users user people residents engineers \
        visitors guests parents buyers members geologists finance regulator given dispatcher what's where how hand i'm we're";
    let start = kept.first()?.to_lowercase();
    let clause =
        verbs.split_whitespace().any(|verb| verb == start) || start.chars().all(|c| c.is_ascii_digit());
    let enough = kept.len() >= 2 || (kept.len() == 1 && start.len() > 4);
    (enough && !clause).then(|| text::capital(&kept.join(" ")))
}

/// `As a tenant I want to set the heating`: what comes after the wish.
fn after_role(sentence: &str) -> Option<&str> {
    [" want to ", " need to ", " want ", " need ", " can "]
        .iter()
        .find_map(|wish| sentence.split_once(wish).map(|(_, rest)| rest))
}

/// A word that names a sort of page, with what describes it.
fn page_phrase(words: &[String]) -> Option<String> {
    let at = words.iter().position(|word| lexicon::says(std::slice::from_ref(word), PAGE))?;
    let describes = |word: &&String| {
        !text::is_glue(word)
            && word.chars().all(|c| c.is_alphabetic() || c == '-')
            && !LEADS.contains(&word.as_str())
            && !STOPS.contains(&word.as_str())
            && !lexicon::says(
                std::slice::from_ref(*word),
                "users user people parents wants want single each needs team they everybody users' of-the",
            )
    };
    let mut before: Vec<&str> =
        words[..at].iter().rev().take_while(describes).take(2).map(String::as_str).collect();
    before.reverse();
    before.push(&words[at]);
    if before.len() == 1 {
        let after = words[at + 1..].iter().filter(describes).take(2).map(String::as_str);
        before.extend(after);
    }
    Some(text::capital(&before.join(" ")))
}

/// What the page is about: the last noun of its title that is not a word for a page.
pub(super) fn entity(title: &str, words: &[String], shape: Shape) -> String {
    let of_title = text::words(title);
    let about = |word: &&String| {
        !lexicon::says(std::slice::from_ref(*word), PAGE)
            && !text::is_glue(word)
            && word.chars().all(char::is_alphabetic)
            && word.len() > 2
    };
    let head = of_title.iter().position(|word| word == "for" || word == "of").map_or(of_title.len(), |at| at);
    let known = |word: &&String| about(word) && (bank::things(word).is_some() || bank::is_person(word));
    if shape == Shape::Ledger {
        // What is added, not whom it is for.
        return of_title[..head]
            .iter()
            .rev()
            .find(known)
            .map_or_else(|| "entry".to_owned(), |word| text::singular(word));
    }
    let known = of_title[..head]
        .iter()
        .rev()
        .find(known)
        .or_else(|| of_title.iter().find(known))
        .or_else(|| words.iter().find(known));
    let found = known
        .or_else(|| of_title[..head].iter().rev().find(about))
        .or_else(|| of_title.iter().rev().find(about));
    let found = found.or_else(|| words.iter().find(about));
    found.map_or_else(|| "item".to_owned(), |word| text::singular(word))
}

pub(super) fn shape(kind: &str, words: &[String], title: &[String]) -> Shape {
    let of_kind = KINDS.iter().find(|(name, _)| *name == kind).map(|(_, shape)| *shape);
    if let Some(shape) = of_kind {
        return shape;
    }
    let score = |cues: &str| {
        let among = |list: &[String]| {
            list.iter().filter(|word| lexicon::says(std::slice::from_ref(*word), cues)).count()
        };
        3 * among(title).min(1) + 2 * among(&words[..words.len().min(8)]).min(1) + among(words).min(2)
    };
    // The first of equals wins: the table goes from the particular to the general.
    let best = SHAPES.iter().rev().max_by_key(|(_, cues)| score(cues));
    best.filter(|(_, cues)| score(cues) > 0).map_or(Shape::Dashboard, |(shape, _)| *shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_noun_phrases() {
        let check = |text: &str, expected: &str| {
            assert_eq!(title(&text::sentences(&text::tidy(text)), &text::words(text)), expected);
        };
        check("I need a membership form for our gym: name, email", "Membership form for our gym");
        check("Please build a dashboard for a 12 MW solar park: current power", "Dashboard for a 12 MW");
        check("kanban board with todo, doing, done", "Kanban board");
        check("As a tenant I want to set the heating of my flat, so that", "Heating of my flat");
    }

    #[test]
    fn shapes_come_from_words_when_the_kind_is_unknown() {
        let check = |text: &str, expected: Shape| assert_eq!(shape("", &text::words(text), &[]), expected);
        check("currency converter for euro and dollar", Shape::Converter);
        check("log viewer with levels and search", Shape::Records);
        check("sign-up form for a run", Shape::Form);
        check("something blue", Shape::Dashboard);
    }
}
