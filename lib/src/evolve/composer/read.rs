//! A brief's text as phrases with roles: what it names, which list it stood in, what options it came with.
//!
//! Nothing here knows a particular brief. Lists are found by the words before them (`with`, `columns:`, `ask for`), items
//! by commas, options in brackets, and each item may override the role of its list (`a trend chart`, `export button`).

use super::{
    lexicon::{self, Role},
    subject::{entity, shape, title, without_ticket},
    text,
};
use crate::brief::Brief;

/// One phrase of an enumeration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Fit for a label.
    pub label: String,
    /// The whole phrase and what stood in brackets, lower-case.
    pub hint: String,
    pub options: Vec<String>,
    pub role: Option<Role>,
    /// The list it stood in, counted from 0.
    pub list: usize,
}

/// What sort of page a brief wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Form,
    Survey,
    Settings,
    Dashboard,
    Records,
    /// Records that the user adds to.
    Ledger,
    Wizard,
    Chat,
    Board,
    Upload,
    Calculator,
    Converter,
    Quiz,
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub title: String,
    /// What the page is about, in the singular where it is a thing.
    pub entity: String,
    pub shape: Shape,
    pub items: Vec<Item>,
    /// Every word, lower-case.
    pub words: Vec<String>,
}

impl Reading {
    pub fn of(brief: &Brief) -> Self {
        let tidy = text::tidy(&brief.description);
        let tidy = without_ticket(&tidy);
        let tidy = tidy.replace(" / ", ", ");
        let sentences = text::sentences(&tidy);
        let mut words = text::words(&tidy);
        for requirement in &brief.requirements {
            words.extend(text::words(requirement));
        }
        let title = title(&sentences, &words);
        let shape = shape(&brief.kind, &words, &text::words(&title));
        let mut reading =
            Self { entity: entity(&title, &words, shape), title, shape, items: Vec::new(), words };
        let bullets: Vec<&str> =
            tidy.lines().filter(|line| text::is_bullet(line)).map(text::unbulleted).collect();
        for (list, sentence) in sentences.iter().take(30).enumerate() {
            let mut items = phrases(sentence, list);
            if items.is_empty() && bullets.contains(&sentence.as_str()) {
                // A line of a list is an item of it, whatever it holds.
                items = read_item(sentence, None, list);
            }
            reading.items.extend(items);
        }
        reading.drop_story(sentences.first().map(String::as_str).unwrap_or_default());
        reading.items.truncate(60);
        reading
    }

    /// A first sentence that only tells a story, before others that list what is wanted, lists nothing.
    fn drop_story(&mut self, first: &str) {
        let strong = TRIGGERS.first().is_some_and(|strong| lexicon::says(&text::words(first), strong));
        let mut later = self.items.iter().filter(|item| item.list > 0).map(|item| item.list);
        let listed =
            (1..30).any(|list| later.clone().filter(|of| *of == list).count() >= 3) || later.nth(3).is_some();
        if listed && !strong && colon(first).is_none() {
            self.items.retain(|item| item.list > 0 || item.role.is_some());
        }
    }

    pub fn says(&self, list: &str) -> bool {
        lexicon::says(&self.words, list)
    }

    /// Items of a role; `None` asks for those of no particular role.
    pub fn of_role(&self, role: Option<Role>) -> Vec<&Item> {
        self.items.iter().filter(|item| item.role == role).collect()
    }
}

/// Words before a list, the clear ones first.
const TRIGGERS: &[&str] = &[
    "with fields: columns lanes through inputs field shows show showing display displays carry carries asks ask: enter enters including includes",
    "by rate set choose pick takes see are has have gives give record about from for of needs need adds lists draw",
];

/// Beginnings of a phrase that tell what to do with the thing, not what it is.
const LEADS: &str = "a tick box for|tick box for|a checkbox for|checkbox for|a switch to|a note on|a note of|the number of|\
    whether they've had|whether they|whether the|whether|if they|how|optionally|an optional|choose|pick|\
    select|show|shows|see|with|set|enter|type|step 1|step 2|step 3|step 4|step 5|what|since when|and|where|\
    record|lanes for|columns for|columns|its|rate|user types|users type|types|picks the|picks|sees the|sees|\
    gets|each enters|enters|what they paid for|rows for|on|filter by|group by|selector for|ask for|then|\
    finally|underneath|at the top|first|could";

/// Beginnings of a phrase that is a rule about the page.
const RULES: &str = "must|should|so |because|don't|do not|i |we |they |it |you |warn|highlight|flag |block|refuse|check |\
    say |says|please|out of scope|not |but |no |if |when |nothing|there|anything with|move |delete |add a|\
    sorted|sort by|sortable|older than|one tap|gets |approves|press |then press|get a|makes the|compare |\
    complains|open it|offer |only |tell |forget|thank|work out|gets|compute the|count |who gets|cap at|\
    list the|print a|anything else is|ideally|maybe|perhaps|thanks|use |keep |let |make |can |is |are ";

/// The enumerated phrases of a sentence.
fn phrases(sentence: &str, list: usize) -> Vec<Item> {
    let (head, tail) = split_head(sentence);
    let Some(tail) = tail else { return Vec::new() };
    if let Some(item) = choice(&head, &tail, list) {
        return vec![item];
    }
    let listed = lexicon::list_role(&head);
    let stage = text::words(&head).iter().any(|word| ["board", "kanban"].contains(&word.as_str()));
    let role = if stage && listed.is_none() { Some(Role::Stage) } else { listed };
    let searches = text::words(&head).iter().any(|word| word.starts_with("search"));
    let mut items: Vec<Item> =
        text::items(&tail).iter().flat_map(|phrase| read_item(phrase, role, list)).collect();
    if searches {
        items
            .iter_mut()
            .filter(|item| item.role == Some(Role::Filter))
            .for_each(|item| item.hint = format!("search by {}", item.hint));
    }
    items
}

/// `since when: days, weeks, months` is one thing to choose, not three.
fn choice(head: &str, tail: &str, list: usize) -> Option<Item> {
    let short = head.split_whitespace().count() <= 3
        && list > 0
        && head.ends_with(' ')
        && lexicon::list_role(head).is_none();
    let options = options(tail);
    let page = lexicon::says(
        &text::words(head),
        "required optional acceptance sections steps ticket scope outputs kpis",
    );
    if !short || options.len() < 2 || page || tail.contains('(') {
        return None;
    }
    let label = text::label(head, 3).unwrap_or_else(|| text::capital(head.trim()));
    Some(Item { label, hint: head.to_lowercase(), options, role: None, list })
}

/// The words before a list and the list; no list when the sentence has none.
fn split_head(sentence: &str) -> (String, Option<String>) {
    if let Some((head, tail)) = colon(sentence) {
        return (head, Some(tail));
    }
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let items = text::items(sentence);
    let plain =
        items.len() >= 3 && items.iter().all(|item| text::bracketed(item).0.split_whitespace().count() <= 4);
    for (strength, triggers) in TRIGGERS.iter().enumerate() {
        if strength > 0 && plain {
            break;
        }
        for at in 0..words.len() {
            let word = words[at].to_lowercase();
            let word = if word == "for" && at > 0 && words[at - 1].to_lowercase().starts_with("ask") {
                "ask:".to_owned()
            } else {
                word
            };
            if !triggers.split_whitespace().any(|trigger| trigger == word) {
                continue;
            }
            let tail = words[at + 1..].join(" ");
            let items = text::items(&tail);
            let short =
                items.first().is_some_and(|first| text::bracketed(first).0.split_whitespace().count() <= 5);
            if short && items.len() >= 2 {
                return (words[..=at].join(" "), Some(tail));
            }
        }
    }
    let plain =
        items.len() >= 2 && items.iter().all(|item| text::bracketed(item).0.split_whitespace().count() <= 6);
    let alone = items.len() == 1 && (sentence.contains('(') || lexicon::own_role(sentence).is_some());
    (String::new(), (plain || alone || items.len() > 3).then(|| sentence.to_owned()))
}

fn colon(sentence: &str) -> Option<(String, String)> {
    let parts = text::split_outside(sentence, ':');
    let (head, tail) = parts.split_first()?;
    let tail = tail.join(",");
    if tail.trim().is_empty() || !tail.starts_with(' ') {
        return None;
    }
    // `order display: tickets in columns received, ready`: the list begins after the columns.
    let inner = [" columns ", " lanes ", " through "]
        .iter()
        .find_map(|cue| tail.split_once(cue).map(|(before, after)| (before, cue, after)));
    match inner {
        Some((before, cue, after)) if !before.contains(',') => {
            Some((format!("{head}{before}{cue}"), after.to_owned()))
        }
        _ => Some((format!("{head} "), tail)),
    }
}

/// Items that a phrase makes: one, or one for each part in its brackets.
fn read_item(phrase: &str, role: Option<Role>, list: usize) -> Vec<Item> {
    let low = phrase.to_lowercase();
    let (outer, inner) = text::bracketed(phrase);
    // `a gym assistant about classes`: what it is about is what is named.
    let outer = outer.split_once(" about ").map_or(outer.clone(), |(_, about)| about.to_owned());
    let own = lexicon::own_role(&outer);
    let parts = inner.as_deref().map(options).unwrap_or_default();
    if (own.is_none() && is_rule(&low))
        || ["no ", "not ", "please no", "without "].iter().any(|start| low.trim_start().starts_with(start))
    {
        return Vec::new();
    }
    let asks = ["where", "what", "how", "which", "who", "when"]
        .iter()
        .any(|word| low.starts_with(&format!("{word} ")));
    let question = (asks && parts.len() >= 2)
        .then(|| text::capital(outer.trim()))
        .filter(|q| q.split_whitespace().count() <= 5);
    let counted = strip_ask(&outer).trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let Some(label) = question.or_else(|| text::label(counted, 4)) else { return Vec::new() };
    let Some(label) = without_widget(&label, parts.is_empty()) else { return Vec::new() };
    if ["Free text", "Total", "Chart", "Table", "List", "Data", "Result", "Results"].contains(&label.as_str())
        && parts.is_empty()
    {
        return Vec::new();
    }
    let item = |label: String, options: Vec<String>| Item {
        label,
        hint: low.clone(),
        options,
        role: own.or(role),
        list,
    };
    if parts.len() >= 2 && parts.iter().filter(|part| is_field(part)).count() * 2 > parts.len() {
        let group = text::words(&label).last().cloned().unwrap_or_default();
        let named = |part: &String| text::capital(&format!("{group} {}", text::small(part)));
        let inside =
            parts.iter().map(|part| Item { hint: part.to_lowercase(), ..item(named(part), Vec::new()) });
        return inside.collect();
    }
    vec![item(label, parts)]
}

/// `a tick box for the waiver`, `choose the room`, `whether they rent shoes`: what it is about.
fn strip_ask(phrase: &str) -> &str {
    let mut rest = phrase.trim();
    while let Some(lead) = LEADS.split('|').find(|lead| {
        rest.get(..lead.len()).is_some_and(|start| start.eq_ignore_ascii_case(lead))
            && rest[lead.len()..].starts_with(' ')
    }) {
        let after = rest[lead.len()..].trim_start_matches([' ', ':', ',']);
        if text::label(after, 4).is_none() {
            break;
        }
        rest = after;
    }
    rest
}

/// `Style checkboxes` is about styles; a `progress bar` is about nothing that is entered.
fn without_widget(label: &str, bare: bool) -> Option<String> {
    let Some((before, last)) = label.rsplit_once(' ') else {
        let part = "sidebar thumbnails sliders button buttons tabs columns minus plus export";
        return (!lexicon::says(&text::words(label), part)).then(|| label.to_owned());
    };
    let last = [last.to_lowercase()];
    if lexicon::says(
        &last,
        "slider sliders checkbox checkboxes dropdown dropdowns toggle toggles switch field fields selector",
    ) {
        return Some(before.to_owned());
    }
    let part = lexicon::says(&last, "box bar panel sidebar page screen tab list grid");
    let aside = !lexicon::says(&last, "list")
        || lexicon::says(&text::words(before), "ranked shopping stop check results");
    if part && bare && aside {
        return None;
    }
    Some(if part && !bare { before.to_owned() } else { label.to_owned() })
}

/// A rule about the page rather than a part of it.
fn is_rule(low: &str) -> bool {
    let starts = RULES.split('|').any(|start| low.trim_start().starts_with(start));
    let words: Vec<&str> = low.split_whitespace().collect();
    starts && !low.starts_with("if they rent") || words.len() > 12
}

/// Options in brackets: short phrases parted by commas, slashes, `and`, `or`.
fn options(inner: &str) -> Vec<String> {
    if text::range(inner).is_some() || ["y/n", "yes/no"].contains(&inner) {
        return Vec::new();
    }
    let parts: Vec<String> = inner.split(['/', '|']).flat_map(text::items).collect();
    let trimmed = |part: &String| {
        let part = part
            .trim()
            .trim_matches(|c: char| ".'…".contains(c))
            .trim_start_matches("e.g. ")
            .trim_start_matches("i.e. ")
            .to_owned();
        (!part.is_empty()).then(|| text::capital(&part))
    };
    let parts: Vec<String> = parts.iter().filter_map(trimmed).collect();
    let short = parts.iter().all(|part| part.split_whitespace().count() <= 3);
    // `mm/s` is a unit, `g, kg` are options.
    let unit = !inner.contains(',') && parts.iter().all(|part| part.chars().count() <= 2);
    if parts.len() >= 2 && short && !unit { parts.into_iter().take(6).collect() } else { Vec::new() }
}

/// Parts in brackets that are things to enter themselves, as in `contact (name, phone)`.
fn is_field(part: &str) -> bool {
    let fields = "name phone email price location type address currency age weight amount date time rate start end text from to id diet rsvp table +1 \
        incomes kids debts title quantity number country city street owner size min max year years term income";
    lexicon::says(&text::words(part), fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(sentence: &str) -> Vec<String> {
        phrases(sentence, 0).into_iter().map(|item| item.label).collect()
    }

    #[test]
    fn lists_are_found_by_what_comes_before_them() {
        assert_eq!(labels("A contact form with name, email and message"), ["Name", "Email", "Message"]);
        assert_eq!(labels("Columns: shipment no, origin, weight kg"), ["Shipment no", "Origin", "Weight kg"]);
        assert_eq!(labels("Bill, tip %, number of people"), ["Bill", "Tip %", "Number of people"]);
    }

    #[test]
    fn brackets_hold_options_or_fields() {
        let items = phrases("Form with plan (off-peak, full, family) and contact (name and phone)", 0);
        assert_eq!(items[0].options, ["Off-peak", "Full", "Family"]);
        assert_eq!(items[1].label, "Contact name");
        assert_eq!(items[2].label, "Contact phone");
    }
}
