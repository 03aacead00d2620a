//! What a critique says in words: issues with places and guidelines, strengths, and what to do next.
//!
//! Every sentence comes from evidence; an issue says what to do, not only what is wrong.

use super::{
    Action, Call, Evidence, Fault, Guidelines, Habit, Issue, Kept, Level, Rendered, RunStatus, Severity,
    SubScores, lint,
    score::{self, Content, caps, seen},
};

/// More than this many issues help nobody.
const MOST: usize = 20;

/// Builds issues in the order in which a reader should mend them.
struct Issues(Vec<Issue>);

impl Issues {
    fn add(&mut self, severity: Severity, message: impl Into<String>) -> &mut Issue {
        let issue = Issue { severity, message: message.into(), at: None, guideline: None };
        let index = self.0.len();
        self.0.push(issue);
        &mut self.0[index]
    }

    fn add_faults(&mut self, severity: Severity, faults: &[Fault], guideline: Option<&str>) {
        for fault in faults {
            let issue = self.add(severity, &fault.message);
            issue.at.clone_from(&fault.at);
            issue.guideline = guideline.map(str::to_owned);
        }
    }
}

trait Cites {
    fn cites(&mut self, guideline: &str) -> &mut Self;
    fn at(&mut self, place: Option<&String>) -> &mut Self;
}

impl Cites for Issue {
    fn cites(&mut self, guideline: &str) -> &mut Self {
        self.guideline = Some(guideline.to_owned());
        self
    }

    fn at(&mut self, place: Option<&String>) -> &mut Self {
        self.at = place.cloned();
        self
    }
}

pub(super) fn issues(evidence: &Evidence, content: &Content, habits: &[Habit], kept: &[Kept]) -> Vec<Issue> {
    let mut issues = Issues(Vec::new());
    about_reply(evidence, &mut issues);
    about_habits(habits, kept, &mut issues);
    about_run(evidence, content, &mut issues);
    about_actions(evidence, &mut issues);
    about_brief(evidence, content, &mut issues);
    about_access(evidence, &mut issues);
    about_looks(evidence, &mut issues);
    about_code(evidence, &mut issues);
    // What is about the page as a whole stands at the start of the file that makes it.
    let files = &evidence.statics.files;
    let whole = files.iter().find(|file| file.ui).or(files.first()).map(|file| format!("{}:1:1", file.path));
    for issue in issues.0.iter_mut().filter(|issue| issue.at.is_none()) {
        issue.at.clone_from(&whole);
    }
    issues.0.sort_by_key(|issue| std::cmp::Reverse(issue.severity));
    issues.0.truncate(MOST);
    issues.0
}

fn about_reply(evidence: &Evidence, issues: &mut Issues) {
    let statics = &evidence.statics;
    if statics.lines() == 0 {
        issues
            .add(
                Severity::Critical,
                "the reply holds no code: answer with one Python file that builds the UI",
            )
            .cites("g280");
        return;
    }
    issues.add_faults(Severity::Critical, &statics.errors, Some("g275"));
    issues.add_faults(Severity::Critical, &statics.tamper, Some("g276"));
    if !statics.files.iter().any(|file| file.ui) && statics.errors.is_empty() {
        issues
            .add(
                Severity::Critical,
                "no file calls Streamlit: import streamlit as st and build the page with it",
            )
            .cites("g280");
    }
    let config = |f: &&super::FileFacts| !f.ui && f.config_lines * 2 > f.lines;
    if let Some(first) = statics.files.first().filter(config) {
        let message = format!("`{}` is configuration: put the Streamlit app first", first.path);
        issues.add(Severity::Critical, message).cites("g224").at = Some(format!("{}:1:1", first.path));
    }
    let share = statics.config_share();
    if share > 0.25 {
        let message = format!(
            "{:.0}% of the lines are configuration: keep it below 25% and write the UI instead",
            100.0 * share
        );
        issues.add(Severity::Critical, message).cites("g224");
    }
}

/// The built-in habit is what the reply's own findings are about; those of the user speak for themselves.
fn about_habits(habits: &[Habit], kept: &[Kept], issues: &mut Issues) {
    let own = habits.iter().zip(kept).filter(|(habit, _)| habit.name != Habit::ui_first().name);
    for (habit, kept) in own {
        for check in habit.checks.iter().filter(|check| kept.missed.contains(&check.message)) {
            let message = format!("{} (habit `{}`)", check.message, habit.name);
            issues.add(Severity::Major, message).guideline.clone_from(&check.guideline);
        }
    }
}

fn about_run(evidence: &Evidence, content: &Content, issues: &mut Issues) {
    let Some(run) = &evidence.run else { return };
    let detail = run.detail.as_deref().unwrap_or("no more is known");
    match run.status {
        RunStatus::Died => {
            let message = format!("the app ends its own process ({detail}): let the script run to its end");
            issues.add(Severity::Critical, message).cites("g281");
        }
        RunStatus::TimedOut => {
            let message = format!(
                "the first run does not end ({detail}): remove endless loops and long waits; Streamlit reruns \
                 the script by itself"
            );
            issues.add(Severity::Critical, message).cites("g096");
        }
        RunStatus::TooLarge => {
            let message =
                format!("the page is too large to show ({detail}): show a page or a summary of the data");
            issues.add(Severity::Critical, message).cites("g034");
        }
        RunStatus::Ready | RunStatus::Error | RunStatus::Skipped => {}
    }
    if !evidence.statics.errors.is_empty() {
        return;
    }
    for exception in &run.exceptions {
        let message =
            format!("the first run raises {}", raised(evidence, &exception.kind, &exception.message));
        let guideline = behind(&exception.kind, &exception.message);
        issues.add(Severity::Critical, message).at(exception.at.as_ref()).cites(guideline);
    }
    about_pages(evidence, issues);
    if run.status == RunStatus::Ready && content.unique < 3.0 {
        issues
            .add(
                Severity::Critical,
                "almost nothing is on the page: add the controls and the data that the brief asks for",
            )
            .cites("g280");
    }
    if caps::flooded(evidence) {
        let message =
            "most of the page is out of sight or the same again and again: keep what the task needs";
        issues.add(Severity::Major, message).cites("g283");
    }
    if run.hiding || caps::hides_controls(evidence) {
        let message = "styles hide content: remove them and show what users need";
        issues.add(Severity::Major, message).cites("g105");
    }
}

fn about_pages(evidence: &Evidence, issues: &mut Issues) {
    for page in &evidence.pages {
        for exception in &page.exceptions {
            let said = raised(evidence, &exception.kind, &exception.message);
            let guideline = behind(&exception.kind, &exception.message);
            let message = format!("the page `{}` raises {said}", page.path);
            issues.add(Severity::Critical, message).at(exception.at.as_ref()).cites(guideline);
        }
        if page.exceptions.is_empty() && page.status != RunStatus::Ready {
            let detail = page.detail.as_deref().unwrap_or("no more is known");
            let message = format!("the page `{}` does not come up ({detail})", page.path);
            issues.add(Severity::Critical, message).cites("g035");
        }
    }
}

/// An exception with what mends it, where that is known.
fn raised(evidence: &Evidence, kind: &str, message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let own = |module: &str| {
        let folder = format!("{module}/");
        let inside = |path: &str| {
            path.split_once(&folder).is_some_and(|(before, _)| before.is_empty() || before.ends_with('/'))
        };
        evidence.statics.files.iter().any(|file| inside(&file.path) || file.path == format!("{module}.py"))
    };
    // A package of the app's own is never to be had from elsewhere: whoever has its name there is somebody else.
    if let Some(module) = missing(kind, line).filter(|module| !own(module)) {
        let package =
            PACKAGES.iter().find(|(name, _)| *name == module).map_or(module, |(_, package)| *package);
        return format!(
            "{kind}: the package `{package}` is not installed where the app ran: use streamlit, pandas, numpy and \
             altair, or run the app in an environment that has it (`--python`)"
        );
    }
    let advice = match kind {
        "ModuleNotFoundError" if missing(kind, line).is_some() => "the app's own files do not have it",
        "ModuleNotFoundError" | "ImportError" => "use what is installed: streamlit, pandas, numpy and altair",
        "FileNotFoundError" => "build sample data in the script, or keep the file beside it",
        "StreamlitDuplicateElementId" | "StreamlitDuplicateElementKey" => {
            "give each control a `key` of its own"
        }
        "NameError" => "define the name before it is used",
        "KeyError" | "AttributeError" if line.contains("session_state") => {
            "set the session state's value before it is read"
        }
        _ => "mend the line that it names",
    };
    format!("{kind}: {}; {advice}", clip(line.trim_end_matches('.'), 160))
}

/// Packages whose name is not what is imported.
const PACKAGES: &[(&str, &str)] = &[
    ("sklearn", "scikit-learn"),
    ("cv2", "opencv-python"),
    ("PIL", "pillow"),
    ("yaml", "PyYAML"),
    ("bs4", "beautifulsoup4"),
    ("dotenv", "python-dotenv"),
    ("dateutil", "python-dateutil"),
    ("skimage", "scikit-image"),
    ("fitz", "PyMuPDF"),
    ("serial", "pyserial"),
    ("docx", "python-docx"),
    ("pptx", "python-pptx"),
    ("jwt", "PyJWT"),
];

/// The top of the module that an import did not find.
fn missing<'a>(kind: &str, line: &'a str) -> Option<&'a str> {
    let module = line.strip_prefix("No module named '").filter(|_| kind == "ModuleNotFoundError")?;
    module.split(['\'', '.']).next()
}

/// The guideline that an exception speaks of: by default, that users never meet one.
fn behind(kind: &str, message: &str) -> &'static str {
    match kind {
        "StreamlitDuplicateElementId" | "StreamlitDuplicateElementKey" => "g103",
        "NameError" => "g138",
        "KeyError" | "AttributeError" if message.contains("session_state") => "g097",
        _ => "g035",
    }
}

fn about_actions(evidence: &Evidence, issues: &mut Issues) {
    for action in evidence.actions.iter().filter(|action| action.hostile && !action.ok) {
        let error = clip(action.error.as_deref().unwrap_or("an exception"), 160);
        let message = format!(
            "values that nobody expects (empty, extreme, markup) end in {error}: check what is entered"
        );
        issues.add(Severity::Major, message).at(action.at.as_ref()).cites("g031");
    }
    for action in evidence.tried().filter(|action| !action.ok) {
        let error = action.error.as_deref().unwrap_or("an exception");
        let message = format!("using {} ends in {}", name(action), clip(error, 160));
        issues.add(Severity::Critical, message).at(action.at.as_ref()).cites("g035");
    }
    for action in evidence.tried().filter(|action| action.ok && !action.effect) {
        let message = format!("{} changes nothing: show a result of it, or remove it", name(action));
        let severity = if action.is_trigger() { Severity::Major } else { Severity::Minor };
        issues.add(severity, message).at(place(evidence, &action.kind, &action.label).as_ref()).cites("g027");
    }
}

/// Where the source makes an element: by its command and its label, or the only call of the command.
fn place(evidence: &Evidence, kind: &str, label: &str) -> Option<String> {
    let path = format!("st.{kind}");
    let calls: Vec<&Call> =
        evidence.statics.calls.iter().filter(|call| call.path == path && !call.dead).collect();
    let named = calls.iter().find(|call| call.label.as_deref() == Some(label));
    let only = calls.first().filter(|_| calls.len() == 1);
    named.or(only).map(|call| call.at.clone())
}

fn name(action: &Action) -> String {
    let kind = action.kind.replace('_', " ");
    let label =
        if action.label.is_empty() { String::new() } else { format!(" `{}`", clip(&action.label, 60)) };
    let page = action.page.as_ref().map(|page| format!(" of the page `{page}`")).unwrap_or_default();
    format!("the {kind}{label}{page}")
}

fn about_brief(evidence: &Evidence, content: &Content, issues: &mut Issues) {
    let brief = &evidence.brief;
    if evidence.run.as_ref().is_none_or(|run| run.visible() == 0) {
        return;
    }
    if score::shown_of_brief(evidence).is_some_and(|part| part < 1.0) {
        let missing: Vec<String> =
            brief.wanted.iter().filter(|w| !brief.found.contains(w)).cloned().collect();
        let list: Vec<&str> = missing.iter().take(8).map(String::as_str).collect();
        let message = format!("the brief asks for what the page does not show: {}", list.join(", "));
        issues.add(Severity::Major, message).cites("g007");
    }
    if brief.interactive && content.controls == 0 {
        issues
            .add(Severity::Major, "the brief asks for something to operate: add the controls it names")
            .cites("g280");
    }
}

fn about_access(evidence: &Evidence, issues: &mut Issues) {
    issues.add_faults(Severity::Major, &evidence.statics.empty_labels, Some("g010"));
    let Some(run) = evidence.run.as_ref().filter(|run| run.visible() > 0) else { return };
    let unlabelled = run.elements.iter().filter(|e| e.unlabelled).count();
    if unlabelled > evidence.statics.empty_labels.len() {
        let first = run.elements.iter().find(|e| e.unlabelled);
        let at = first.and_then(|element| place(evidence, &element.kind, &element.label));
        let message = format!("{unlabelled} controls have no visible label: name each of them");
        issues.add(Severity::Major, message).at(at.as_ref()).cites("g009");
    }
    match score::top_headings(evidence) {
        0 => {
            issues.add(Severity::Major, "the page has no title: start it with `st.title`").cites("g128");
        }
        1 => {}
        n => {
            let message = format!("the page has {n} headings of the first level: keep one `st.title`");
            issues.add(Severity::Minor, message).cites("g173");
        }
    }
    if score::skipped_levels(evidence) > 0 {
        let message = "headings skip a level: use `st.title`, then `st.header`, then `st.subheader`";
        issues.add(Severity::Minor, message).cites("g129");
    }
    if !evidence.statics.page_title {
        let message = "the browser's tab has no name: call `st.set_page_config(page_title=...)` first";
        issues.add(Severity::Minor, message).cites("g081");
    }
}

fn about_looks(evidence: &Evidence, issues: &mut Issues) {
    for contradiction in &evidence.agreement.contradictions {
        let message = format!("what the app tells of itself is not what it shows: {contradiction}");
        issues.add(Severity::Critical, message).cites("g278");
    }
    let Some(rendered) = &evidence.browser else { return };
    if let Some(detail) = rendered.detail.as_ref().filter(|_| !rendered.ready) {
        issues
            .add(Severity::Major, format!("{detail}: let the script end, and the page come to rest"))
            .cites("g027");
    }
    for layout in [&rendered.wide, &rendered.narrow].into_iter().filter(|layout| layout.overflow() > 4.0) {
        let message = format!(
            "at {} pixels the page is {:.0} pixels too wide: drop fixed widths and use fewer columns",
            layout.width,
            layout.overflow()
        );
        issues.add(Severity::Major, message).cites("g017");
    }
    about_accessibility(rendered, evidence, issues);
    if rendered.wide.small_text() > 0.1 {
        let message =
            format!("{:.0}% of the text is smaller than 12 pixels", 100.0 * rendered.wide.small_text());
        issues.add(Severity::Minor, message).cites("g058");
    }
    if rendered.wide.controls_per_screen > 24.0 {
        let message = "controls crowd the page: group them in tabs or expanders, or ask in steps";
        issues.add(Severity::Minor, message).cites("g038");
    }
    if rendered.wide.clipped > 0 {
        let message = format!(
            "{} names or figures do not fit their place and end in dots: use fewer columns",
            rendered.wide.clipped
        );
        issues.add(Severity::Major, message).cites("g087");
    }
    if rendered.wide.overlaps.max(rendered.narrow.overlaps) > 0 {
        issues
            .add(Severity::Major, "elements cover each other: remove the styles that move them")
            .cites("g105");
    }
    if !rendered.external_requests.is_empty() {
        let list: Vec<&str> = rendered.external_requests.iter().take(3).map(String::as_str).collect();
        let message = format!("the page asks other addresses for what it shows: {}", list.join(", "));
        issues.add(Severity::Minor, message).cites("g279");
    }
}

fn about_accessibility(rendered: &Rendered, evidence: &Evidence, issues: &mut Issues) {
    for violation in seen::authored(rendered) {
        let severity = match violation.impact.as_str() {
            "critical" | "serious" => Severity::Major,
            _ => Severity::Minor,
        };
        let text = if violation.text.is_empty() {
            String::new()
        } else {
            format!(" (`{}`)", clip(&violation.text, 40))
        };
        let times = if violation.nodes == 1 { String::new() } else { format!("{} times ", violation.nodes) };
        let message = format!("{}: {times}in {}{text}", violation.help, violation.kind);
        let said = evidence.statics.calls.iter().find(|call| call.label.as_deref() == Some(&violation.text));
        let issue = issues.add(severity, message).at(said.map(|call| &call.at));
        issue.guideline = behind_rule("axe", &violation.rule);
    }
}

/// The guideline behind a rule of a tool.
fn behind_rule(tool: &str, rule: &str) -> Option<String> {
    Guidelines::embedded().checked_by(tool, rule).map(|guideline| guideline.id.clone())
}

fn about_code(evidence: &Evidence, issues: &mut Issues) {
    let statics = &evidence.statics;
    if !statics.errors.is_empty() {
        return;
    }
    let (cache, other): (Vec<Fault>, Vec<Fault>) =
        statics.removed.iter().cloned().partition(|fault| fault.message.starts_with("`st.cache`"));
    issues.add_faults(Severity::Major, &statics.secrets, Some("g102"));
    issues.add_faults(Severity::Major, &cache, Some("g092"));
    issues.add_faults(Severity::Major, &other, Some("g274"));
    let dead = if caps::unreachable(statics) { Severity::Major } else { Severity::Minor };
    issues.add_faults(dead, &statics.dead, Some("g277"));
    for found in &statics.lint {
        let severity = match found.code.as_str() {
            "F821" | lint::REFUSED => Severity::Critical,
            code if lint::names_secret(code) => Severity::Major,
            _ => Severity::Minor,
        };
        let issue = issues.add(severity, format!("{} ({})", found.message, found.code));
        issue.at = Some(found.at.clone());
        issue.guideline = behind_rule("ruff", &found.code);
    }
}

pub(super) fn strengths(evidence: &Evidence, content: &Content) -> Vec<String> {
    let mut strengths = Vec::new();
    if evidence.runs() {
        strengths.push("it runs without an exception".to_owned());
    }
    if evidence.ui_first() && evidence.level != Level::Static {
        strengths.push("the first file is the user interface itself".to_owned());
    }
    if content.kinds >= 6.0 {
        strengths.push(format!("{} kinds of elements are on the page", content.kinds));
    }
    let tried = evidence.tried().count();
    if tried > 0 && evidence.actions.iter().all(|action| action.ok && action.effect) {
        strengths.push(format!("each of the {tried} controls tried does something"));
    }
    if evidence.run.is_some() && score::shown_of_brief(evidence) == Some(1.0) {
        strengths.push("it shows what the brief asks for".to_owned());
    }
    if evidence.run.is_some() && score::compiles(evidence) && evidence.statics.lint.is_empty() {
        strengths.push("the linter finds nothing".to_owned());
    }
    strengths
}

/// What would raise each sub-score that has room, most room first.
pub(super) fn improvements(evidence: &Evidence, content: &Content, scores: &SubScores) -> Vec<String> {
    let advice = |part: Option<f64>, text: &str| part.filter(|p| *p < 8.0).map(|p| (p, text.to_owned()));
    let behaviour = if content.unique < 10.0 {
        "add more of what the task needs: inputs with sensible defaults, results, figures, a table or a chart"
    } else {
        "let every control change something that the user sees"
    };
    let mut list: Vec<(f64, String)> = [
        advice(scores.executes, "make the script run to its end without an exception, after every click too"),
        advice(scores.behaviour, behaviour),
        advice(scores.accessibility, "give the page one title, headings in order, and every control a label"),
        advice(scores.visual, "let the page fit narrow windows, and keep text readable and elements apart"),
        advice(scores.match_, "use the words of the brief in titles, labels and columns"),
        advice(scores.code, "mend what the linter names and put long scripts into functions"),
    ]
    .into_iter()
    .flatten()
    .collect();
    list.sort_by(|a, b| a.0.total_cmp(&b.0));
    if evidence.statics.config_share() > 0.0 && !evidence.ui_first() {
        list.insert(0, (0.0, "answer with the app itself; leave configuration files out".to_owned()));
    }
    list.into_iter().map(|(_, text)| text).collect()
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most).collect();
    format!("{start}...")
}
