//! Whether a fine-tuning file, ours or a stranger's, would be accepted, and what it would teach: every problem at once, with
//! line, field, reason and remedy.
//!
//! Reading order: [`lines`] cuts the file into blocks for the workers, [`row`] reads a line quickly and [`rules`] (with
//! [`keys`], [`tools`] and [`vision`]) in full, [`local`] is what the trainer of this machine makes of it, [`code`] (with
//! [`typed`]) reads the code inside the answers, [`duplicates`] finds equal rows,
//! [`problem`] names what can be wrong, [`report`] gathers it. [`fix`] writes a corrected copy,
//! [`sample`] draws answers to be run.
//!
//! Memory does not grow with the file, but for 16 bytes a row for duplicates.

mod code;
mod duplicates;
mod fix;
mod keys;
mod lines;
mod local;
mod problem;
mod report;
mod row;
mod rules;
mod sample;
mod tools;
mod typed;
mod vision;

use std::{fs::File, io::Read, path::Path};

pub use self::{
    code::{CodeTally, TOLERATED},
    fix::{Fixed, fix},
    local::{Example, Speaker, Turn, example},
    problem::{Code, Problem, Severity},
    report::{Lengths, Report, RunTally, TokenCounts},
    row::{Format, Place},
    sample::{Sampled, examples, sample},
};
use self::{
    duplicates::Prints,
    lines::{Block, Blocks, Stopped},
    report::Collected,
    row::{Part, Row},
};
use super::tokens::{self, Counts, Local, Meter};
use crate::{
    cancel::Cancel,
    error::{Explain, Kind},
    model::wire::MIN_EXAMPLES,
    store::StoreError,
    text,
};

/// The model that a file is measured for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub model: String,
    /// Tokens of an example that training reads; the rest is cut off.
    pub context: u64,
    /// Whether it counts by the local tokeniser.
    pub local: bool,
}

/// Models with a shorter training context than [`LONG`], by the beginning of their names.
const SHORT: [(&str, u64); 3] = [("gpt-3.5-turbo-0613", 4_096), ("gpt-3.5", 16_385), ("babbage", 16_384)];
/// What OpenAI's gpt-4o and gpt-4.1 families train on.
const LONG: u64 = 65_536;
/// Rows that show what a file is.
const FIRST: usize = 32;

impl Target {
    /// A hosted model, or one tuned from it.
    pub fn hosted(model: &str) -> Self {
        let base = tokens::base_of(model);
        let short = SHORT.iter().find(|(beginning, _)| base.starts_with(beginning));
        Self { model: model.to_owned(), context: short.map_or(LONG, |(_, context)| *context), local: false }
    }
}

/// How a file is looked at.
#[derive(Clone)]
pub struct Options {
    /// What the file is for; by its first rows when it is not said.
    pub format: Option<Format>,
    pub target: Target,
    /// Whose rules hold beside those of the format.
    pub place: Place,
    /// The local model's tokeniser, where it is to count too.
    pub local: Option<Local>,
    /// Whether the code inside the answers is read.
    pub code: bool,
    /// Whether answers have to begin with the user interface.
    pub ui_first: bool,
    /// Problems of each code that are listed.
    pub most: usize,
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: None,
            target: Target::hosted("gpt-4.1"),
            place: Place::Hosted,
            local: None,
            code: true,
            ui_first: true,
            most: 20,
            workers: 2,
        }
    }
}

/// Why a file could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("stopped before the file's end")]
    Cancelled,
}

impl ValidateError {
    fn of(stopped: Stopped, file: &Path) -> Self {
        match stopped {
            Stopped::Read(e) => StoreError::new("read", file, e).into(),
            Stopped::Thread(e) => Self::Thread(e),
            Stopped::Cancelled => Self::Cancelled,
        }
    }
}

impl Explain for ValidateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Thread(_) => Kind::Environment,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Thread(_) => Some("free memory, then run the same command again".into()),
            Self::Cancelled => None,
        }
    }
}

/// Looks at a file.
///
/// # Errors
/// It cannot be read, no thread can be started, or the user stopped it.
pub fn validate(file: &Path, options: &Options, cancel: &Cancel) -> Result<Report, ValidateError> {
    let source = File::open(file).map_err(|e| StoreError::new("read", file, e))?;
    validate_from(source, options, cancel).map_err(|stopped| ValidateError::of(stopped, file))
}

/// [`validate`] for whatever can be read; it is named `-` in errors.
///
/// # Errors
/// As [`validate`].
pub fn validate_stream(
    source: impl Read,
    options: &Options,
    cancel: &Cancel,
) -> Result<Report, ValidateError> {
    validate_from(source, options, cancel).map_err(|stopped| ValidateError::of(stopped, Path::new("-")))
}

fn validate_from(source: impl Read, options: &Options, cancel: &Cancel) -> Result<Report, Stopped> {
    text::load_tokens();
    let mut blocks = Blocks::new(source);
    let first = blocks.beginning(FIRST).map_err(Stopped::Read)?;
    let format = shown(&first, options.format).or(options.format).unwrap_or_default();
    let mut whole = Whole::new(format, options);
    let look = Look { format, options };
    lines::each_block(&mut blocks, first, options.workers, cancel, &look, |seen| whole.take(seen))?;
    Ok(whole.report())
}

/// What a file is by its first rows: what is wanted, where any of them may be that, else what most of them are, on a tie the
/// earlier; none when none can be read. So a stray row is a problem of its own line, wherever it stands, and not of all others.
fn shown(first: &[Block], wanted: Option<Format>) -> Option<Format> {
    let lines = first.iter().flat_map(Block::lines);
    let texts = lines.filter_map(|(_, line)| std::str::from_utf8(without_mark(line)).ok()).map(str::trim);
    let rows: Vec<_> = texts.filter_map(rules::Shown::of_row).take(FIRST).collect();
    if let Some(wanted) = wanted.filter(|wanted| rows.iter().any(|row| row.may_be(*wanted))) {
        return Some(wanted);
    }
    let votes = |shown: &rules::Shown| rows.iter().filter(|other| other.format == shown.format).count();
    // The last of equals is taken.
    rows.iter().rev().max_by_key(|shown| votes(shown)).map(|shown| shown.format)
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
}

/// What one row adds to the whole.
struct SeenRow {
    line: u64,
    print: Option<u64>,
    is_example: bool,
    has_system: bool,
    has_user: bool,
    tokens: Counts,
    item: Option<String>,
}

/// What a block of lines adds to the whole.
struct Seen {
    rows: Vec<SeenRow>,
    problems: Collected,
    code: CodeTally,
}

/// What is done with every block. The table of tokens is being loaded while the first rows are read.
struct Look<'o> {
    format: Format,
    options: &'o Options,
}

impl lines::Work for Look<'_> {
    type Read = (Seen, Vec<(u64, Row<'static>)>);
    type Done = Seen;

    fn read(&self, block: Block) -> Self::Read {
        let problems = Collected::new(self.options.most);
        let mut seen = Seen { rows: Vec::new(), problems, code: CodeTally::default() };
        if block.too_long {
            let message = format!("the line has more than {} MiB", lines::LONGEST >> 20);
            seen.problems.add(Problem::new(Code::LineTooLong, message).on(block.first));
        }
        let mut rows = Vec::new();
        for (number, line) in block.lines() {
            let row = seen.line(number, line, self.format, self.options);
            rows.extend(row.map(|row| (number, row.into_owned())));
        }
        (seen, rows)
    }

    fn finish(&self, (mut seen, rows): Self::Read) -> Seen {
        let mut meter = Meter::new(self.options.local.as_ref());
        for (number, row) in rows {
            seen.count(number, row, self.options, &mut meter);
        }
        seen
    }

    fn may_finish(&self) -> bool {
        text::tokens_are_loaded()
    }
}

impl Seen {
    /// Reads a line and the code in it; none when it is no row at all.
    fn line<'b>(
        &mut self,
        number: u64,
        line: &'b [u8],
        format: Format,
        options: &Options,
    ) -> Option<Row<'b>> {
        let mut add = |code, message: String| self.problems.add(Problem::new(code, message).on(number));
        let body = if number == 1 { without_mark(line) } else { line };
        if body.len() < line.len() {
            add(Code::ByteOrderMark, "the file begins with a byte-order mark".into());
        }
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(e) => {
                add(Code::NotUtf8, format!("byte {} is not valid UTF-8", e.valid_up_to() + 1));
                return None;
            }
        };
        if text.trim().is_empty() {
            add(Code::BlankLine, "the line is empty".into());
            return None;
        }
        let mut row = row::read(text, format, options.place);
        if options.code {
            let (code, problems) = read_code(&row, options.ui_first);
            self.code += code;
            row.problems.extend(problems);
        }
        Some(row)
    }

    fn count(&mut self, number: u64, row: Row<'_>, options: &Options, meter: &mut Meter<'_>) {
        let tokens = count(&row, row.said.len(), meter);
        let too_long = too_long(&row, tokens, &options.target, meter);
        let fails = |problem: &Problem| {
            problem.severity == Severity::Error || problem.code == Code::NothingLeftToTrain
        };
        let has = |role: &[&str]| row.said.iter().any(|said| role.contains(&said.role.as_ref()));
        self.rows.push(SeenRow {
            line: number,
            print: row.print,
            is_example: !row.problems.iter().chain(&too_long).any(fails),
            has_system: has(&["system", "developer"]),
            has_user: has(&["user"]),
            tokens,
            item: row.item,
        });
        row.problems.into_iter().chain(too_long).for_each(|problem| self.problems.add(problem.on(number)));
    }
}

/// The code of the answers that are trained on.
fn read_code(row: &Row<'_>, ui_first: bool) -> (CodeTally, Vec<Problem>) {
    let mut tally = CodeTally::default();
    let mut problems = Vec::new();
    for said in row.said.iter().filter(|said| said.part == Part::Answer && said.role == "assistant") {
        let (of_answer, found) = code::look(&said.text, ui_first);
        tally += of_answer;
        problems.extend(found);
    }
    (tally, problems)
}

/// Tokens of the first so many messages of an example.
fn count(row: &Row<'_>, messages: usize, meter: &mut Meter<'_>) -> Counts {
    let mut counts = meter.example();
    counts += meter.text(&row.tools);
    for said in &row.said[..messages] {
        counts += meter.message(&said.role, &said.text, &said.more);
    }
    counts
}

/// What training cuts off, and whether it leaves anything to learn.
fn too_long(row: &Row<'_>, tokens: Counts, target: &Target, meter: &mut Meter<'_>) -> Option<Problem> {
    let of = |counts: Counts| if target.local { counts.local } else { counts.o200k };
    let all = of(tokens);
    if all <= target.context {
        return None;
    }
    let first = row.said.iter().position(|said| said.part == Part::Answer)?;
    let before = of(count(row, first, meter));
    let reads = format!("{} trains on {}", target.model, target.context);
    Some(if before >= target.context {
        let message = format!("{before} tokens come before the answer, {reads}: nothing of it is learnt");
        Problem::new(Code::NothingLeftToTrain, message)
    } else {
        Problem::new(Code::OverLong, format!("{all} tokens, {reads}: the end is cut off"))
    })
}

/// A provider counts examples; one that is there ten times teaches what it teaches once.
fn too_few(examples: u64, repeated: u64) -> Option<Problem> {
    let different = examples - repeated;
    let of = if repeated > 0 {
        format!("{different} different ones of {examples}")
    } else {
        different.to_string()
    };
    let message = format!("{of} usable examples, at least {MIN_EXAMPLES} are needed");
    (different < MIN_EXAMPLES as u64).then(|| Problem::new(Code::TooFewExamples, message))
}

/// The whole file, as far as it has been read.
struct Whole<'o> {
    options: &'o Options,
    report: Report,
    problems: Collected,
    prints: Prints,
    rows: u64,
    sum: Counts,
    /// Each example no longer than what training reads of it.
    read: Counts,
    /// Of the first task, and its line.
    item: Option<(String, u64)>,
}

impl<'o> Whole<'o> {
    fn new(format: Format, options: &'o Options) -> Self {
        let mut problems = Collected::new(options.most);
        if let Some(wanted) = options.format.filter(|wanted| *wanted != format) {
            let (wanted, format) = (rules::name(wanted), rules::name(format));
            let message = format!("a {format} file, where the method needs a {wanted} file");
            problems.add(Problem::new(Code::WrongMethod, message));
        }
        if options.place == Place::Local && options.format.unwrap_or(format) == Format::Rft {
            problems.add(local::tasks());
        }
        let report = Report { format, model: options.target.model.clone(), ..Report::default() };
        Self {
            options,
            report,
            problems,
            prints: Prints::new(),
            rows: 0,
            sum: Counts::default(),
            read: Counts::default(),
            item: None,
        }
    }

    fn take(&mut self, seen: Seen) {
        self.problems.merge(seen.problems);
        self.report.code += seen.code;
        for mut row in seen.rows {
            if let Some(item) = row.item.take() {
                self.take_item(item, row.line);
            }
            self.take_row(&row);
        }
    }

    /// A grader asks every row for the same.
    fn take_item(&mut self, item: String, line: u64) {
        match &self.item {
            None => self.item = Some((item, line)),
            Some((first, _)) if *first == item => {}
            Some((first, of)) => {
                let message = format!("its grader finds {item}, where line {of} has {first}");
                self.problems.add(Problem::new(Code::MixedItems, message).on(line));
            }
        }
    }

    fn take_row(&mut self, row: &SeenRow) {
        let report = &mut self.report;
        report.examples += u64::from(row.is_example);
        report.without_system += u64::from(!row.has_system);
        report.without_user += u64::from(!row.has_user);
        let own = if self.options.target.local { row.tokens.local } else { row.tokens.o200k };
        let Lengths { min, max, .. } = &mut report.lengths;
        *min = if self.rows == 0 { own } else { own.min(*min) };
        *max = own.max(*max);
        self.rows += 1;
        self.sum += row.tokens;
        let context = self.options.local.as_ref().map_or(0, |local| local.context);
        self.read += Counts { o200k: row.tokens.o200k.min(LONG), local: row.tokens.local.min(context) };
        if let Some(print) = row.print {
            self.prints.add(print, row.line, row.is_example);
        }
    }

    fn report(self) -> Report {
        let Self { options, mut report, mut problems, prints, rows, sum, read, .. } = self;
        let repeated = prints.repeated(|problem| problems.add(problem));
        report.duplicates = repeated.rows;
        too_few(report.examples, repeated.examples).into_iter().for_each(|problem| problems.add(problem));
        report.code.verdict().into_iter().for_each(|problem| problems.add(problem));
        let of_target = if options.target.local { sum.local } else { sum.o200k };
        report.lengths.mean = of_target as f64 / rows.max(1) as f64;
        report.tokens = sum.o200k;
        report.read = read;
        report.token_counts =
            TokenCounts { o200k_base: sum.o200k, local: options.local.as_ref().map(|_| sum.local) };
        let (counts, kept) = problems.sorted();
        report.ok = counts.keys().all(|code| code.severity() != Severity::Error);
        report.more = counts.values().sum::<u64>() - kept.len() as u64;
        (report.counts, report.problems) = (counts, kept);
        report
    }
}

#[cfg(test)]
mod tests;
