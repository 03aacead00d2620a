//! Sample content: what to put into a table, a chart or a quiz that a brief only names.

use super::{lexicon, text};

/// A value in a table or a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(i64),
}

/// A seeded source of small numbers; splitmix64, so that the same seed gives the same bytes on every machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, text: &str) -> Self {
        // FNV-1a, which mixes the text's bytes into the seed.
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }
}

const PEOPLE: &str = "employee staff contractor patient guest member student pupil applicant driver nurse customer client \
    contact volunteer player candidate person tenant farmer team operator analyst teacher user owner author artist name \
    colleague visitor researcher technician inspector doctor crew mechanic supplier borrower pumper pilot coach";
const NAMES: &[&str] =
    &["Ana", "Ben", "Chloe", "David", "Eva", "Finn", "Grace", "Hugo", "Iris", "Jonas", "Kira", "Leo"];
const TOWNS: &[&str] = &["Lisbon", "Oslo", "Paris", "Porto", "Bergen", "Lyon", "Kyoto", "Quito", "Leeds"];

/// Things by the word that names them (singular).
const THINGS: &[(&str, &str)] = &[
    (
        "recipe dish meal menu food dinner lunch breakfast course",
        "Lentil soup,Pasta,Fried rice,Salad,Curry,Omelette",
    ),
    ("ingredient grocery groceries", "Rice,Tomato,Onion,Flour,Egg"),
    ("beer brewery", "Night Stout,Gold Lager,Hop IPA,Red Sour"),
    ("wine grape", "Merlot,Riesling,Syrah,Malbec"),
    ("book catalogue library title isbn", "Deep Water,The Long Road,Night Train,Green Hills"),
    ("film movie", "Red Moon,Silent Sea,Last Stop"),
    ("song track album music", "Blue Hour,Slow Rain,Homeward"),
    ("crop vegetable plant seed sowing harvest garden", "Carrot,Lettuce,Onion,Bean,Pea"),
    ("tomato variety", "Roma,Black Cherry,Brandywine,Tigerella"),
    ("flower", "Rose,Tulip,Lily"),
    ("cattle cow animal pet dog cat horse", "Bella,Luna,Max,Rosa,Daisy"),
    ("medicine drug medication", "Ibuprofen,Insulin,Aspirin,Heparin"),
    ("chemical substance", "Acetone,Ethanol,Nitric acid,Ammonia"),
    ("part spare component", "Valve,Seal,Gauge,Flange,Chain"),
    ("tool equipment asset machine", "Drill,Ladder,Saw,Pump,Press"),
    ("task todo to-do action work", "Write report,Call client,Fix login,Order paper"),
    ("idea", "New jerseys,Open day,Night run,Club bus"),
    ("bug issue incident", "Late load,Broken login,Wrong total,Slow page"),
    ("habit", "Walk,Read,Stretch,Drink water"),
    ("goal", "Run 5 km,Save money,Learn Spanish"),
    ("well field oil", "Well A1,Well B4,Well C7,Well D2"),
    ("pump", "Pump 1,Pump 2,Pump 3,Pump 4"),
    ("station", "Hill,Harbour,Mill,North"),
    ("van vehicle truck car bus fleet", "Van 1,Van 2,Van 3,Van 4"),
    ("room", "Blue room,Green room,Hall,Studio"),
    ("flat apartment house home property", "Mill Road 4,Lake View 9,Hill Street 2"),
    ("laptop computer", "Aero 13,Nova 14,Titan 16"),
    ("phone tariff plan contract", "Basic,Plus,Premium,Family"),
    ("product item article stock goods", "Lamp,Desk,Chair,Mug,Bag"),
    ("bike bicycle repair", "City bike,Race bike,E-bike"),
    ("ski rental", "Skis,Boots,Helmet"),
    ("invoice bill", "INV-1,INV-2,INV-3"),
    ("order ticket parcel shipment delivery cargo", "Order 101,Order 102,Order 103"),
    ("project", "Website,Brand book,Kiosk,Field guide"),
    ("event talk session concert", "Choir night,Book talk,Chess day,Yoga"),
    ("class subject lesson", "Maths,History,Physics"),
    ("city town stop trip place", "Lisbon,Porto,Faro,Evora"),
    ("hero character", "Knight,Mage,Ranger,Thief"),
    ("pipeline job topic", "Orders,Payments,Clicks,Users"),
    ("server service host rack", "web-1,web-2,db-1"),
    ("sensor inverter device meter fridge", "Unit 1,Unit 2,Unit 3"),
    ("alarm alert", "High level,No contact,Low battery"),
    ("sample test specimen", "S-101,S-102,S-103"),
    ("document report paper file", "Annual report,Core study,Test log"),
    ("photo picture image gallery sculpture", "Sunrise,Old bridge,Market day,Forest"),
    ("job vacancy position", "Nurse,Welder,Clerk,Baker"),
    ("course training school programme club", "Chess club,Art club,Judo"),
    ("game match", "Game 1,Game 2,Game 3"),
    ("expense budget cost", "Hotel,Food,Fuel,Train"),
    ("message mail email log", "Backup ok,Disk full,Login failed"),
    ("exercise workout", "Squat,Row,Plank"),
    (
        "crew supplier company carrier employer vendor insurer client customer firm bid",
        "Nordwind,Bluefield,Oakline,Redstone",
    ),
    ("shop store branch depot warehouse", "Main Street,Station,Market"),
    ("building site facility", "School,Library,Town hall"),
    ("lure phishing", "Prize win,Parcel fee,Invoice"),
    ("source energy", "Gas,Power,Heat"),
    ("measure", "New windows,Roof insulation,LED lights"),
    ("round quiz question", "Round 1,Round 2,Round 3"),
    ("shift", "Early,Late,Night"),
    ("bridge", "Mill Bridge,Old Bridge,Rail Bridge"),
];

fn listed(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|one| one == word)
}

/// Whether a noun names people.
pub(super) fn is_person(noun: &str) -> bool {
    text::words(noun).iter().any(|word| listed(PEOPLE, &text::singular(word)))
}

/// Names of things that a noun stands for, when they are known.
pub(super) fn things(noun: &str) -> Option<Vec<&'static str>> {
    let words = text::words(noun);
    let known = |word: &String| {
        let single = text::singular(word);
        THINGS.iter().find(|(names, _)| listed(names, &single))
    };
    words.iter().rev().find_map(known).map(|(_, things)| things.split(',').collect())
}

/// Three different samples of what a noun stands for.
pub(super) fn samples(noun: &str, dice: &mut Dice) -> Vec<String> {
    let start = dice.below(9);
    let cycle = |list: &[&str]| (0..3).map(|i| list[(start + i) % list.len()].to_owned()).collect();
    if is_person(noun) {
        return cycle(NAMES);
    }
    if let Some(things) = things(noun) {
        return cycle(&things);
    }
    let single = text::words(noun)
        .last()
        .map_or_else(|| "Item".to_owned(), |word| text::capital(&text::singular(word)));
    ["A", "B", "C"].map(|letter| format!("{single} {letter}")).to_vec()
}

/// Three cells of a column; `entity` is what a row is about, and the column of its name holds samples of it.
pub(super) fn column(label: &str, options: &[String], entity: &str, dice: &mut Dice) -> Vec<Cell> {
    let texts = |list: Vec<String>| list.into_iter().map(Cell::Text).collect();
    let low = label.to_lowercase();
    let words = text::words(label);
    let said = |list: &str| words.iter().any(|word| listed(list, word));
    if !options.is_empty() {
        let most = options.len();
        return (0..3).map(|i| Cell::Text(options[i % most].clone())).collect();
    }
    if low == entity {
        return texts(samples(entity, dice));
    }
    let start = dice.below(7);
    if said("name title item what") {
        let noun = if words.len() > 1 && !said("first last full") { low.as_str() } else { entity };
        return texts(samples(if is_person(&low.replace("name", "")) { "person" } else { noun }, dice));
    }
    if said(
        "date day birth due expiry expires since received eta deadline best-before calving posted start end",
    ) && !said("days")
    {
        let day = 2 + start * 3;
        let month = ["May", "June", "Sept"][dice.below(3)];
        return (0..3).map(|i| Cell::Text(format!("{} {month}", day + i * 3))).collect();
    }
    if (said("time window") || ["from", "to", "from-to"].contains(&low.as_str())) && !said("minutes hours") {
        return (0..3).map(|i| Cell::Text(format!("{}:00", 8 + start % 3 + i * 2))).collect();
    }
    if said("year vintage") {
        return [3, 0, 5].map(|i| Cell::Number(2016 + i64::try_from(start % 3).unwrap_or(0) + i)).to_vec();
    }
    if said("email mail") {
        return texts(["ana", "ben", "eva"].map(|name| format!("{name}@mail.org")).to_vec());
    }
    if said("phone") {
        return (0..3).map(|i| Cell::Text(format!("555-01{}{}", start, i + 2))).collect();
    }
    if said("code id sku barcode badge plate isbn serial")
        || low.ends_with(" tag")
        || low.ends_with(" no")
        || low.contains(" no.")
    {
        let letter = words.first().and_then(|w| w.chars().next()).unwrap_or('a').to_uppercase().to_string();
        return (1..4).map(|i| Cell::Text(format!("{letter}-{}", 100 + start * 10 + i))).collect();
    }
    if said("city town location origin destination office country address street postcode") {
        return texts((0..3).map(|i| TOWNS[(start + i) % TOWNS.len()].to_owned()).collect());
    }
    by_type(label, start, dice)
}

/// Cells of a column of which only the type of its entries is known, if that.
fn by_type(label: &str, start: usize, dice: &mut Dice) -> Vec<Cell> {
    let texts = |list: Vec<String>| list.into_iter().map(Cell::Text).collect();
    match lexicon::entry(label, "") {
        lexicon::Entry::Choice(options) => {
            texts((0..3).map(|i| options[i % options.len()].clone()).collect())
        }
        lexicon::Entry::Number(usual) => {
            let step = (usual / 8).max(1);
            let first = usual + step * i64::try_from(start).unwrap_or(0);
            [0, 2, -1].map(|i| Cell::Number((first + i * step).max(1))).to_vec()
        }
        lexicon::Entry::Slider(low, high) => [high - 1, high, low + 1].map(Cell::Number).to_vec(),
        lexicon::Entry::YesNo => texts(["Yes", "No", "Yes"].map(str::to_owned).to_vec()),
        lexicon::Entry::Long => texts(["Fine", "Check again", "New"].map(str::to_owned).to_vec()),
        _ if is_person(label) || things(label).is_some() => texts(samples(label, dice)),
        // Nothing is known of it: a number says least that is wrong.
        _ => {
            (0..3).map(|i| Cell::Number(10 + i64::try_from(start).unwrap_or(0) * 2 + [0, 5, 3][i])).collect()
        }
    }
}

/// A figure for a metric.
pub(super) fn figure(label: &str, dice: &mut Dice) -> Cell {
    let words = text::words(label);
    let said = |list: &str| words.iter().any(|word| listed(list, word));
    if said("best seller top worst peak last status who name estimated finish") {
        return samples(label, dice).into_iter().next().map_or(Cell::Number(1), Cell::Text);
    }
    let roll = i64::try_from(dice.below(40)).unwrap_or(0);
    let with = |unit: &str, n: i64| Cell::Text(format!("{n}{unit}"));
    if said(
        "% percent rate ratio share cut uptime resolution csat occupancy humidity charge progress utilisation performance \
        self-consumption percentage",
    ) {
        return with("%", 55 + roll);
    }
    if said("revenue sales savings saved income cost costs amount price spend budget € value") {
        return with(" €", 120 + roll * 10);
    }
    if said("time handling duration minutes lag") {
        return with(" min", 3 + roll);
    }
    if said("temperature °c temp") {
        return with(" °C", 4 + roll / 2);
    }
    if said("mwh energy") {
        return with(" MWh", 12 + roll);
    }
    if said("kwh consumption") {
        return with(" kWh", 120 + roll);
    }
    Cell::Number(8 + roll)
}

/// A short run of numbers for a chart.
pub(super) fn run(dice: &mut Dice, most: usize) -> Vec<i64> {
    let base = 6 + dice.below(30);
    (0..most).map(|_| i64::try_from(base + dice.below(base / 2 + 4)).unwrap_or(9)).collect()
}

/// A question, its right answer, and two wrong ones.
pub(super) type Question = (&'static str, &'static str, [&'static str; 2]);

const QUESTIONS: &[(&str, &[Question])] = &[
    (
        "fire evacuation safety",
        &[
            ("What do you do first in a fire?", "Raise the alarm", ["Hide", "Open windows"]),
            ("Which way out do you take?", "The stairs", ["The lift", "The roof"]),
            ("Where do you meet outside?", "Assembly point", ["Car park bar", "At home"]),
        ],
    ),
    (
        "h2s gas rig crew awareness",
        &[
            ("What does H2S smell like?", "Rotten eggs", ["Roses", "Petrol"]),
            ("Where do you go on an alarm?", "Upwind", ["Downwind", "Into a pit"]),
            ("What do you wear near H2S?", "Gas detector", ["Sunglasses", "Nothing"]),
        ],
    ),
    (
        "capital capitals geography country europe",
        &[
            ("What is the capital of France?", "Paris", ["Rome", "Oslo"]),
            ("What is the capital of Kenya?", "Nairobi", ["Accra", "Cairo"]),
            ("What is the capital of Japan?", "Tokyo", ["Seoul", "Hanoi"]),
        ],
    ),
    (
        "spanish vocabulary flashcard flashcards translation word words",
        &[
            ("What does casa mean?", "House", ["Dog", "Bread"]),
            ("What does perro mean?", "Dog", ["House", "Sun"]),
            ("What does pan mean?", "Bread", ["Water", "Chair"]),
        ],
    ),
    (
        "wine grape vintage",
        &[
            ("Which grape makes Chablis?", "Chardonnay", ["Merlot", "Syrah"]),
            ("Which country makes Rioja?", "Spain", ["Chile", "Italy"]),
            ("Which grape makes Barolo?", "Nebbiolo", ["Riesling", "Malbec"]),
        ],
    ),
    (
        "phishing email mail security password",
        &[
            ("A prize mail asks for your password", "Suspicious", ["Safe", "Not sure"]),
            ("A colleague sends the agenda", "Safe", ["Suspicious", "Not sure"]),
            ("A parcel mail asks for a fee", "Suspicious", ["Safe", "Not sure"]),
        ],
    ),
    (
        "maths math arithmetic number multiplication",
        &[
            ("What is 7 times 8?", "56", ["54", "63"]),
            ("What is 12 plus 19?", "31", ["29", "33"]),
            ("What is half of 90?", "45", ["40", "50"]),
        ],
    ),
    (
        "first aid medical health nurse hygiene",
        &[
            ("What do you do for a burn?", "Cool it", ["Butter it", "Ignore it"]),
            ("How do you clean your hands?", "Soap and water", ["Cold air", "A cloth"]),
            ("Whom do you call first?", "Emergency line", ["A friend", "Nobody"]),
        ],
    ),
    (
        "history war ancient king",
        &[
            ("Who built the pyramids?", "Egyptians", ["Romans", "Vikings"]),
            ("When did the Berlin Wall fall?", "1989", ["1945", "1961"]),
            ("Where did the Olympics begin?", "Greece", ["Italy", "France"]),
        ],
    ),
    (
        "science physics chemistry biology planet space",
        &[
            ("Which planet is red?", "Mars", ["Venus", "Saturn"]),
            ("What do plants breathe in?", "Carbon dioxide", ["Helium", "Iron"]),
            ("What freezes at 0 °C?", "Water", ["Oil", "Iron"]),
        ],
    ),
    (
        "driving traffic road car",
        &[
            ("What does a red light mean?", "Stop", ["Go", "Turn"]),
            ("Who goes first at a zebra crossing?", "Pedestrians", ["Cars", "Nobody"]),
            ("What do you wear in a car?", "Seat belt", ["Hat", "Gloves"]),
        ],
    ),
];

/// Questions on a topic, when the topic is known.
pub(super) fn questions(topic: &str) -> Option<&'static [Question]> {
    let words = text::words(topic);
    let score = |names: &str| words.iter().filter(|word| listed(names, word)).count();
    let best = QUESTIONS.iter().max_by_key(|(names, _)| (score(names), std::cmp::Reverse(names.len())))?;
    (score(best.0) > 0).then_some(best.1)
}

/// Factors of conversion: what is converted, and by what a number is multiplied.
const FACTORS: &[(&str, &[(&str, &str)])] = &[
    (
        "temperature celsius fahrenheit",
        &[("Celsius to Fahrenheit steps", "1.8"), ("Fahrenheit to Celsius steps", "0.556")],
    ),
    (
        "weight mass kg pound pounds grams",
        &[("kg to pounds", "2.205"), ("pounds to kg", "0.454"), ("kg to grams", "1000")],
    ),
    (
        "currency euro dollar money exchange",
        &[("EUR to USD", "1.08"), ("EUR to GBP", "0.85"), ("USD to EUR", "0.93")],
    ),
    (
        "volume litre litres gallon gallons barrel barrels",
        &[("barrels to litres", "159"), ("gallons to litres", "3.785")],
    ),
    ("cooking cup cups spoon", &[("cups to ml", "240"), ("spoons to ml", "15"), ("ml to cups", "0.004")]),
    ("time hours minutes", &[("hours to minutes", "60"), ("days to hours", "24")]),
    ("energy kwh joule", &[("kWh to MJ", "3.6"), ("MJ to kWh", "0.278")]),
    (
        "length distance km mile miles metre feet",
        &[("km to miles", "0.621"), ("miles to km", "1.609"), ("m to feet", "3.281")],
    ),
];

/// Conversions that a topic wants; lengths when it is not known.
pub(super) fn factors(topic: &str) -> Vec<(String, String)> {
    let words = text::words(topic);
    let score = |names: &str| words.iter().filter(|word| listed(names, word)).count();
    let best = FACTORS.iter().max_by_key(|(names, _)| score(names)).or_else(|| FACTORS.last());
    best.map(|(_, factors)| factors.iter().map(|(name, by)| ((*name).to_owned(), (*by).to_owned())).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_hold_what_their_label_says() {
        let mut dice = Dice::new(1, "x");
        assert!(matches!(column("Price", &[], "lamp", &mut dice)[0], Cell::Number(_)));
        assert!(
            matches!(&column("Name", &[], "employee", &mut dice)[0], Cell::Text(name) if NAMES.contains(&name.as_str()))
        );
        let options = ["Open".to_owned(), "Shut".to_owned()];
        assert_eq!(column("Door", &options, "gate", &mut dice)[1], Cell::Text("Shut".into()));
    }

    #[test]
    fn unknown_things_are_numbered_letters() {
        assert_eq!(samples("zorbs", &mut Dice::new(1, "x")), ["Zorb A", "Zorb B", "Zorb C"]);
    }

    #[test]
    fn dice_repeat_themselves() {
        assert_eq!(Dice::new(7, "a").next(), Dice::new(7, "a").next());
        assert_ne!(Dice::new(7, "a").next(), Dice::new(8, "a").next());
    }

    #[test]
    fn quizzes_are_known_by_topic() {
        assert_eq!(questions("fire safety quiz").unwrap()[0].1, "Raise the alarm");
        assert!(questions("quiz on zorbs").is_none());
    }
}
