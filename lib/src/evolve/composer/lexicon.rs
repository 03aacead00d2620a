//! What words mean for a UI: which widget a label wants, and what a phrase is in a page.

use super::text;

/// What a person enters, as the widget that takes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Text,
    Long,
    Secret,
    /// With the value that it starts from.
    Number(i64),
    /// Bounds; it starts at the lower one.
    Slider(i64, i64),
    /// One of these.
    Choice(Vec<String>),
    /// One of these few, all of them in sight.
    Radio(Vec<String>),
    /// Any of these.
    Several(Vec<String>),
    YesNo,
    Date,
    Time,
    File,
}

/// What a phrase of a brief is in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A person enters it.
    Input,
    /// A column of a table, a line on a card.
    Column,
    /// A figure that is shown.
    Metric,
    Chart,
    Filter,
    Action,
    /// A stage of work: a lane of a board, a step of a wizard.
    Stage,
}

/// Words that say what a field takes.
const LONG: &str = "note notes comment comments message description describe symptoms feedback text story anything \
    reason summary interpretation instructions medication allergies details explanation answer bio about remarks \
    steps ingredients body";
const DATES: &str = "date day birth birthday deadline due expiry expires until since dob arrival departure checkin \
    checkout calving";
const TIMES: &str = "time hour start end begin opening closing alarm";
const FILES: &str = "photo photos picture pictures file files document documents image images attachment upload csv pdf \
    scan proof payslips letter logo thumbnail portrait cv resume";
const YESNO: &str = "agree consent waiver accept terms confirm confirmed vaccinated insured active subscribe newsletter \
    whether tick checkbox switch toggle mode y/n yes/no on/off vsync subtitles urgent available vegetarian boost \
    balcony pets included print enabled enable remember reminder push email-on meter cash card voucher sms acknowledged \
    leaks repeats repeat mute dark notifications contact-me metered shared public private";
const RATINGS: &str = "rating rate rated satisfaction stars score recommend cleanliness listened food service noise value \
    manager pay workload venue catering programme mood felt quality experience difficulty pain importance likelihood \
    priority-level energy-level stress sleep-quality graphics";
const NUMBERS: &str = "age amount price cost quantity qty weight height length width number count hours minutes seconds \
    income debt debts salary rent budget km kg kwh psi bar bbl barrels temperature humidity volume level limit size area \
    distance speed percent % rate fee total term months years year days people guests persons portions servings nights \
    rooms seats capacity stock pressure vibration flow m² ha hectares mm cm mg ml doses dose concentration principal \
    payment bill tip discount tax vat grams calories steps-count glasses points systolic diastolic pulse kids incomes \
    spend units share interest royalty decline yield load usage consumption mileage litres liters gallons watts value_";
const PLAIN: &str = "name email mail phone address id street house city town title serial plate barcode sku isbn url \
    link website code reference owner operator contact username user card-number badge company employer insurer";

/// Words whose choices are known without the brief's help.
const CHOICES: &[(&str, &[&str])] = &[
    ("priority", &["Low", "Medium", "High"]),
    ("severity", &["Low", "Medium", "High"]),
    ("urgent", &["Not urgent", "Soon", "Urgent"]),
    ("urgency", &["Low", "Medium", "High"]),
    ("difficulty", &["Easy", "Normal", "Hard"]),
    ("graphics", &["Low", "Medium", "High"]),
    ("resolution", &["1280x720", "1920x1080", "2560x1440"]),
    ("quality", &["Low", "Medium", "High"]),
    ("size", &["Small", "Medium", "Large"]),
    ("shift", &["Day", "Evening", "Night"]),
    ("department", &["Sales", "Support", "Finance"]),
    ("currency", &["EUR", "USD", "GBP"]),
    ("language", &["English", "German", "French"]),
    ("country", &["Portugal", "Norway", "Japan"]),
    ("gender", &["Female", "Male", "Other"]),
    ("frequency", &["Daily", "Weekly", "Monthly"]),
    ("schedule", &["Hourly", "Daily", "Weekly"]),
    ("payment method", &["Card", "Cash", "Invoice"]),
    ("unit", &["kg", "litre", "piece"]),
    ("theme", &["Light", "Dark", "System"]),
    ("tone", &["Bell", "Chime", "Buzzer"]),
    ("contract", &["Permanent", "Temporary", "Freelance"]),
    ("diet", &["Any", "Vegetarian", "Vegan"]),
    ("rsvp", &["Yes", "No", "Waiting"]),
    ("condition", &["New", "Good", "Worn"]),
    ("colour", &["Red", "Green", "Blue"]),
    ("color", &["Red", "Green", "Blue"]),
    ("status", &["Open", "In progress", "Done"]),
    ("state", &["Open", "In progress", "Done"]),
    ("category", &["General", "Special", "Other"]),
    ("type", &["Standard", "Special", "Other"]),
    ("topic", &["General", "Technical", "Other"]),
    ("role", &["Member", "Editor", "Admin"]),
    ("region", &["North", "South", "West"]),
    ("district", &["Centre", "Harbour", "Hill"]),
    ("area", &["North", "South", "West"]),
    ("shop", &["Main Street", "Station", "Market"]),
    ("room", &["Blue room", "Green room", "Hall"]),
    ("court", &["Court 1", "Court 2", "Court 3"]),
    ("month", &["May", "June", "July"]),
    ("weekday", &["Monday", "Tuesday", "Wednesday"]),
    ("week", &["Week 1", "Week 2", "Week 3"]),
    ("period", &["Today", "This week", "This month"]),
    ("crop", &["Wheat", "Barley", "Maize"]),
    ("crops", &["Wheat", "Barley", "Maize"]),
    ("cuisine", &["Italian", "Thai", "Mexican"]),
    ("material", &["Stone", "Bronze", "Wood"]),
    ("species", &["Dog", "Cat", "Rabbit"]),
    ("plan", &["Basic", "Plus", "Premium"]),
    ("format", &["Book", "Audio", "Film"]),
    ("tag", &["City", "Nature", "People"]),
    ("subject", &["Maths", "Physics", "History"]),
    ("genre", &["Drama", "Comedy", "Thriller"]),
    ("level", &["Beginner", "Intermediate", "Advanced"]),
    ("team", &["Red team", "Blue team", "Green team"]),
    ("carrier", &["Swift", "Harbour Line", "Road One"]),
    ("method", &["Standard", "Quick", "Careful"]),
];

fn has(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|one| one == word)
}

/// What a label that the brief gave no options for wants to be entered with.
pub(super) fn entry(label: &str, hint: &str) -> Entry {
    let words = text::words(label);
    let all = text::words(&format!("{label} {hint}"));
    let last = words.last().map(String::as_str).unwrap_or_default();
    let any = |list: &str| words.iter().any(|word| has(list, word));
    if let Some((low, high)) = text::range(hint) {
        return Entry::Slider(low, high);
    }
    if all.iter().any(|w| ["password", "secret", "pin", "token"].contains(&w.as_str())) {
        return Entry::Secret;
    }
    if ["y/n", "yes/no", "on/off", "whether", "tick", "checkbox"]
        .iter()
        .any(|cue| all.iter().any(|w| w == cue))
    {
        return Entry::YesNo;
    }
    if any("quantity qty number count %") {
        return if has(PLAIN, &words[0]) || label_is_code(&words) { Entry::Text } else { number(label) };
    }
    if let Some(options) = choices(label).filter(|_| !any(NUMBERS) || has("size area", last)) {
        return Entry::Choice(options);
    }
    if any(FILES) {
        return Entry::File;
    }
    if has(PLAIN, last) {
        return Entry::Text;
    }
    if any(NUMBERS) {
        return number(label);
    }
    if any(DATES) {
        return Entry::Date;
    }
    if any(YESNO) {
        return Entry::YesNo;
    }
    if any(RATINGS) && words.len() <= 2 {
        return Entry::Slider(1, 5);
    }
    if any(TIMES) {
        return Entry::Time;
    }
    if any(LONG) { Entry::Long } else { Entry::Text }
}

/// `serial number`, `house number`, `insurance number`: a code, not a quantity.
fn label_is_code(words: &[String]) -> bool {
    let codes = "serial house insurance phone order badge account policy tag flight room part invoice ticket customer \
        table shipment tracking licence license registration vat passport card lot batch id";
    words.windows(2).any(|pair| has("number no nr", &pair[1]) && has(codes, &pair[0]))
}

fn number(label: &str) -> Entry {
    Entry::Number(usual(label))
}

/// A sensible amount for what a label counts.
pub(super) fn usual(label: &str) -> i64 {
    let amounts: &[(&str, i64)] = &[
        ("% percent rate share interest tax vat tip discount royalty decline humidity", 10),
        ("income salary", 3000),
        ("rent revenue budget", 900),
        ("price cost fee amount bill payment spend total debts debt value", 120),
        ("people persons guests servings portions kids incomes doses rooms", 4),
        ("months term", 36),
        ("years year age", 12),
        ("weight kg", 60),
        ("temperature °c", 21),
        ("minutes seconds", 30),
        ("km distance mileage", 8),
        ("systolic", 128),
        ("diastolic", 82),
        ("pulse", 70),
        ("barrels bbl pressure psi kwh", 80),
    ];
    let words = text::words(label);
    let known = amounts.iter().find(|(list, _)| words.iter().any(|word| has(list, word)));
    known.map_or(5, |(_, amount)| *amount)
}

/// Options for words whose choices everybody knows.
pub(super) fn choices(label: &str) -> Option<Vec<String>> {
    let words = text::words(label);
    let last = words.last()?;
    let single = text::singular(last);
    let known = |name: &str| {
        let name: Vec<&str> = name.split(' ').collect();
        if name.len() > 1 {
            words.len() >= 2 && words[words.len() - 2..] == name[..]
        } else {
            name[0] == last || name[0] == single
        }
    };
    CHOICES
        .iter()
        .find(|(name, _)| known(name))
        .map(|(_, options)| options.iter().map(|o| (*o).to_owned()).collect())
}

/// Whether a list of words, given as text, holds any of `words`.
pub(super) fn says(words: &[String], list: &str) -> bool {
    words.iter().any(|word| has(list, word))
}

const CHARTS: &str = "chart charts plot plots graph graphs trend trends curve curves histogram pie sparkline line lines \
    draw distribution radar";
const FILTERS: &str = "filter filters filtered filterable search searchable narrow narrowed selector sort sortable \
    dropdown dropdowns";
const VERBS: &str = "save export download reset refresh submit apply retry clear print send undo acknowledge approve \
    confirm cancel restore merge load publish share archive revert delete";

/// The role that an item's own words give it, whatever list it stands in.
pub(super) fn own_role(item: &str) -> Option<Role> {
    let words = text::words(item);
    let first = words.iter().find(|word| !text::is_glue(word))?;
    if says(&words, FILTERS) {
        return Some(Role::Filter);
    }
    if says(&words, CHARTS) {
        return Some(Role::Chart);
    }
    if has(VERBS, first) || words.last().is_some_and(|last| ["button", "buttons"].contains(&last.as_str())) {
        return Some(Role::Action);
    }
    None
}

/// The role that the words before a list give its items.
pub(super) fn list_role(head: &str) -> Option<Role> {
    let cues: &[(&str, Role)] = &[
        ("columns column lanes lane stages stage through", Role::Stage),
        ("filter filters filtered filterable search narrow find", Role::Filter),
        (
            "field fields input inputs enter enters enters: ask asks asked record records register fill type takes ask: \
          settings set personal need asking",
            Role::Input,
        ),
        ("rate rated rating", Role::Input),
        ("rows row table list lists listing card cards hit hits each every result", Role::Column),
        (
            "output outputs show shows showing display displays top kpi kpis metric metrics give gives compute see sees \
          tell number numbers overview dashboard view report",
            Role::Metric,
        ),
        ("pick choose choosing select selecting option options", Role::Input),
        ("step steps flow guide", Role::Stage),
    ];
    let words = text::words(head);
    words.iter().rev().find_map(|word| cues.iter().find(|(list, _)| has(list, word)).map(|(_, role)| *role))
}

/// What a button says when it has done its work.
pub(super) fn done(action: &str) -> String {
    let verbs: &[(&str, &str)] = &[
        ("save", "Saved"),
        ("export", "Exported"),
        ("reset", "Reset to the stored values"),
        ("refresh", "Refreshed"),
        ("submit", "Submitted, thank you"),
        ("apply", "Applied"),
        ("retry", "Ready for another try"),
        ("clear", "Cleared"),
        ("print", "Ready to print"),
        ("send", "Sent, thank you"),
        ("undo", "Last entry undone"),
        ("acknowledge", "Acknowledged"),
        ("approve", "Approved"),
        ("confirm", "Confirmed"),
        ("cancel", "Cancelled"),
        ("restore", "Defaults restored"),
        ("merge", "Merged"),
        ("load", "Loaded"),
        ("delete", "Deleted"),
        ("book", "Booked"),
        ("add", "Added"),
        ("create", "Created"),
        ("join", "Welcome"),
        ("publish", "Published"),
        ("start", "Started"),
        ("stop", "Stopped"),
        ("check", "Checked"),
        ("calculate", "Calculated"),
    ];
    let words = text::words(action);
    let known = verbs.iter().find(|(verb, _)| words.iter().any(|word| word == verb));
    known.map_or_else(|| format!("{action}: done"), |(_, done)| (*done).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(label: &str, hint: &str, expected: Entry) {
        assert_eq!(entry(label, hint), expected);
    }

    #[test]
    fn labels_have_types() {
        check("Email", "", Entry::Text);
        check("Start date", "", Entry::Date);
        check("Pain", "0-10", Entry::Slider(0, 10));
        check("Age in years", "", Entry::Number(12));
        check("Serial number", "", Entry::Text);
        check("Number of people", "", Entry::Number(4));
        check("Any leaks", "y/n", Entry::YesNo);
        check("Photo", "", Entry::File);
        check("Notes for next crew", "", Entry::Long);
        check("Password", "", Entry::Secret);
        check("Start time", "", Entry::Time);
        check("Priority", "", Entry::Choice(vec!["Low".into(), "Medium".into(), "High".into()]));
    }

    #[test]
    fn phrases_have_roles() {
        assert_eq!(own_role("a trend chart for the last 30 days"), Some(Role::Chart));
        assert_eq!(own_role("download as CSV"), Some(Role::Action));
        assert_eq!(own_role("barrels per day"), None);
        assert_eq!(list_role("Lanes for"), Some(Role::Stage));
        assert_eq!(list_role("Filter by"), Some(Role::Filter));
        assert_eq!(list_role("hello"), None);
    }
}
