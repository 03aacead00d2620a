//! Running one candidate: the first page, then each control, then the end of everything it started.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Action, Element, Exception, PageFacts, Run, RunStatus,
    agent_api::{AgentApi, Answer, Silence},
    browser::Upload,
    interact::{self, Step},
    page::{self, Page, Snapshot},
    used::After,
};

/// For using one candidate.
const WHOLE: Duration = Duration::from_secs(20);
/// For the first page.
const FIRST: Duration = Duration::from_secs(8);
/// For each rerun after it.
const EACH: Duration = Duration::from_secs(4);
/// The server's own patience, below the first page's.
pub(super) const WAIT_SECONDS: u64 = 6;
/// Elements that evidence keeps; all of them are counted.
const MOST_ELEMENTS: usize = 200;
/// Buttons that are pressed again after the inputs are set.
const AGAIN: usize = 2;

/// What came of running a candidate.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub run: Run,
    pub page: Page,
    pub pages: Vec<PageFacts>,
    pub actions: Vec<Action>,
    pub untried: u32,
    pub first_ms: u64,
}

impl Observed {
    /// Takes in what came of giving files to uploaders, which the agent API cannot do.
    pub fn uploads(&mut self, uploads: Vec<Upload>) {
        for upload in uploads {
            let Some(file) = upload.file else { continue };
            self.actions.push(Action {
                kind: "file_uploader".to_owned(),
                label: upload.label,
                value: file.into(),
                ok: upload.error.is_none(),
                effect: upload.effect,
                error: upload.error,
                ..Action::default()
            });
        }
    }

    /// Nothing came.
    pub fn silent(silence: Silence) -> Self {
        let (status, detail) = match silence {
            Silence::Died(detail) => (RunStatus::Died, detail),
            Silence::TimedOut(detail) => (RunStatus::TimedOut, detail),
            Silence::TooLarge(detail) => (RunStatus::TooLarge, detail),
            Silence::Refused(code) => (RunStatus::Died, format!("the server refused: {code}")),
        };
        Self { run: Run { status, detail: Some(detail), ..Run::default() }, ..Self::default() }
    }
}

/// The first page of an app in a session of its own.
#[derive(Debug)]
pub(super) struct First {
    snapshot: Snapshot,
    /// Exceptions on it, those included that the app shows by itself.
    pub boxes: usize,
    pub observed: Observed,
}

/// Opens the app behind a worker's server; what came of it when no page did.
pub(super) async fn open(api: &AgentApi) -> Result<First, Observed> {
    let start = Instant::now();
    let answer = api.open(FIRST).await.map_err(Observed::silent)?;
    let page = answer.snapshot.page();
    let observed = Observed {
        run: run(&answer, &page),
        first_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        page,
        ..Observed::default()
    };
    Ok(First { boxes: answer.snapshot.boxes(), snapshot: answer.snapshot, observed })
}

/// Pages beyond the first that are visited.
const MOST_PAGES: usize = 12;

/// Controls of another page that are tried.
const ON_OTHER_PAGES: usize = 6;

/// Visits the app's other pages, each in a session of its own; also what those that came up held.
async fn visit(api: &AgentApi, first: &Snapshot, end: Instant) -> (Vec<PageFacts>, Vec<(String, Snapshot)>) {
    let (mut visited, mut up) = (Vec::new(), Vec::new());
    for page in first.pages.iter().filter(|page| **page != first.page).take(MOST_PAGES) {
        let left = FIRST.min(end.saturating_duration_since(Instant::now()));
        let path = page.url_path.clone();
        let run = match api.open_page(&path, left).await {
            Ok(answer) => {
                let run = run(&answer, &answer.snapshot.page());
                up.push((path.clone(), answer.snapshot));
                run
            }
            Err(silence) => Observed::silent(silence).run,
        };
        let Run { status, detail, exceptions, total, .. } = run;
        visited.push(PageFacts { path, status, detail, exceptions, total });
    }
    (visited, up)
}

/// Uses the app, from its first page on, at most `most` controls of it.
pub(super) async fn use_page(api: &AgentApi, first: First, most: usize) -> Observed {
    let First { snapshot, mut observed, .. } = first;
    let plan = interact::plan(&snapshot, most);
    let end = Instant::now() + WHOLE;
    // Before anything is used, because an app may keep what it was given.
    let (pages, up) = visit(api, &snapshot, end).await;
    observed.pages = pages;
    let mut user = User::new(api, end, snapshot, None);
    // Uploaders were tried in the browser, if at all.
    let uploads = observed.actions.len() as u32;
    observed.untried = user.use_all(plan, most).await.saturating_sub(uploads);
    observed.actions.extend(user.actions);
    for (path, snapshot) in up {
        let plan = interact::plan(&snapshot, ON_OTHER_PAGES.min(most));
        let mut user = User::new(api, end, snapshot, Some(path));
        observed.untried += user.use_all(plan, ON_OTHER_PAGES.min(most)).await;
        observed.actions.extend(user.actions);
    }
    observed
}

/// Reads the app behind a worker's server and uses it.
pub(super) async fn observe(api: &AgentApi) -> Observed {
    match open(api).await {
        Ok(first) => use_page(api, first, interact::SOME).await,
        Err(nothing) => nothing,
    }
}

fn run(answer: &Answer, page: &Page) -> Run {
    let failed = answer.snapshot.status != "ready" || !page.exceptions.is_empty();
    let elements: Vec<Element> =
        page.shown.iter().take(MOST_ELEMENTS).map(|shown| shown.element.clone()).collect();
    let mut exceptions: Vec<Exception> = page.exceptions.clone();
    exceptions.truncate(5);
    Run {
        status: if failed { RunStatus::Error } else { RunStatus::Ready },
        detail: None,
        exceptions,
        elements,
        total: page.total,
        tucked: page.tucked,
        most_repeated: page.most_repeated,
        containers: page.containers.clone(),
        headings: page.headings.clone(),
        hiding: page.hiding,
        bytes: answer.bytes,
    }
}

/// A form that no button sends.
fn unsendable() -> Action {
    Action {
        kind: "form".to_owned(),
        error: Some("a form without a submit button: add `st.form_submit_button`".to_owned()),
        ..Action::default()
    }
}

/// Someone who uses the page, one control after the other, and notices what changes.
struct User<'a> {
    api: &'a AgentApi,
    end: Instant,
    first: Snapshot,
    now: Snapshot,
    volatile: BTreeSet<String>,
    actions: Vec<Action>,
    /// Indices of actions that set an input and changed nothing, with what was sent.
    pending: Vec<(usize, Step)>,
    /// Indices of buttons that changed nothing, because there was nothing to reset or clear yet.
    quiet: Vec<(usize, Step)>,
    /// Buttons with an effect: index, and what the page held after them.
    pressed: Vec<(usize, Step, BTreeMap<String, u32>)>,
    /// Keys of all inputs: their own values are no effect of a button.
    inputs: BTreeSet<String>,
    /// The page holds what a button showed for this one run.
    unsettled: bool,
    /// What was planned or tried, by kind and label.
    known: BTreeSet<(String, String)>,
    /// Controls that may still be tried of those that others bring up.
    room: usize,
    /// The page of the app that is used; none for the first.
    page: Option<String>,
}

/// Controls that other controls bring up, one behind the other.
const DEEPEST: usize = 3;

impl<'a> User<'a> {
    fn new(api: &'a AgentApi, end: Instant, first: Snapshot, page: Option<String>) -> Self {
        Self {
            api,
            end,
            known: BTreeSet::new(),
            room: 0,
            page,
            now: first.clone(),
            first,
            volatile: BTreeSet::new(),
            actions: Vec::new(),
            pending: Vec::new(),
            quiet: Vec::new(),
            pressed: Vec::new(),
            inputs: BTreeSet::new(),
            unsettled: false,
        }
    }

    /// Follows a plan, and what its steps bring up, with at most `most` controls in all; returns how many were left out.
    async fn use_all(&mut self, plan: interact::Plan, most: usize) -> u32 {
        let interact::Plan { steps, untried, forms_without_submit, hostile } = plan;
        if !steps.is_empty() {
            self.learn_volatile().await;
        }
        self.room = most.saturating_sub(steps.len());
        self.known = steps.iter().map(name).collect();
        let left = self.try_all(steps).await;
        self.try_hostile(&hostile).await;
        self.actions.extend((0..forms_without_submit).map(|_| unsendable()));
        for action in &mut self.actions {
            action.page.clone_from(&self.page);
        }
        untried + left
    }

    /// What changes by itself from run to run is no effect of anything.
    async fn learn_volatile(&mut self) {
        if let Ok(answer) = self.api.rerun(&self.now.session_id, self.left()).await {
            self.volatile = page::volatile(&self.first, &answer.snapshot);
            self.now = answer.snapshot;
        }
    }

    fn left(&self) -> Duration {
        EACH.min(self.end.saturating_duration_since(Instant::now()))
    }

    fn out_of_time(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Tries every step; returns how many there was no time for or that were gone.
    async fn try_all(&mut self, steps: Vec<Step>) -> u32 {
        self.inputs = steps.iter().filter(|step| step.is_value()).flat_map(Step::keys).collect();
        let mut untried = 0;
        for step in steps {
            if self.out_of_time() || !self.attempt(&step).await {
                untried += 1;
            } else {
                untried += self.try_revealed(&mut vec![step]).await;
            }
        }
        self.press_again().await;
        self.press_quiet().await;
        untried
    }

    /// Tries controls that the last of `path` brought to the page, which may be there for as long as nothing else is used:
    /// a dialog, the next step of a wizard. Returns how many there was no time or room for.
    async fn try_revealed(&mut self, path: &mut Vec<Step>) -> u32 {
        let has_effect = self.actions.last().is_some_and(|action| action.ok && action.effect);
        if !has_effect || path.len() > DEEPEST {
            return 0;
        }
        let mut steps = interact::plan(&self.now, usize::MAX / 8).steps;
        steps.retain(|step| self.known.insert(name(step)));
        let mut untried = 0;
        for step in steps {
            if self.out_of_time() || self.room == 0 || !self.attempt_behind(path, &step).await {
                untried += 1;
                continue;
            }
            self.room -= 1;
            path.push(step);
            untried += Box::pin(self.try_revealed(path)).await;
            path.pop();
        }
        untried
    }

    /// Tries a control that is there after `path`; false when it is not.
    async fn attempt_behind(&mut self, path: &[Step], step: &Step) -> bool {
        let mut answer = self.send(step).await;
        if matches!(&answer, Err(Silence::Refused(_))) || self.actions.last().is_some_and(|last| !last.ok) {
            self.start_over().await;
            for step in path {
                let Ok(answer) = self.send(step).await else { return false };
                self.now = answer.snapshot;
            }
            answer = self.send(step).await;
        }
        match answer {
            Ok(answer) => self.note(step, answer.snapshot),
            Err(Silence::Refused(_)) => return false,
            Err(silence) => {
                let error = Observed::silent(silence).run.detail;
                self.actions.push(Action { error, ..action(step) });
            }
        }
        // It is not on the first page, where others are pressed again.
        let index = self.actions.len() - 1;
        self.pressed.retain(|(at, ..)| *at != index);
        self.quiet.retain(|(at, _)| *at != index);
        true
    }

    /// Gives every input what nobody expects, all at once, and presses what there is to press. What comes of each is noted.
    async fn try_hostile(&mut self, rounds: &[Vec<Step>]) {
        for steps in rounds {
            self.start_over().await;
            for step in steps {
                if self.out_of_time() {
                    return;
                }
                match self.send(step).await {
                    Ok(answer) => {
                        if let Some((error, at)) = self.fault(&answer.snapshot) {
                            self.note_crash(Action { error: Some(error), at, ..action(step) });
                            break;
                        }
                        let keys = step.keys();
                        let of = |page: &Snapshot| page::contents(page, &keys, &self.volatile);
                        let effect = of(&self.now) != of(&answer.snapshot);
                        self.actions.push(Action { ok: true, effect, hostile: true, ..action(step) });
                        self.now = answer.snapshot;
                    }
                    // The input is not there any more, or takes no such value: that is well.
                    Err(Silence::Refused(_)) => {}
                    Err(silence) => {
                        let error = Observed::silent(silence).run.detail;
                        self.note_crash(Action { error, ..action(step) });
                        break;
                    }
                }
            }
        }
    }

    /// A crash by what nobody expects says nothing new about a control that crashes anyhow.
    fn note_crash(&mut self, crash: Action) {
        let is_same = |known: &Action| !known.ok && known.kind == crash.kind && known.label == crash.label;
        if !self.actions.iter().any(is_same) {
            self.actions.push(Action { hostile: true, ..crash });
        }
    }

    /// Tries one control; false when it is not there any more.
    async fn attempt(&mut self, step: &Step) -> bool {
        self.settle().await;
        let mut answer = self.send(step).await;
        if matches!(&answer, Err(Silence::Refused(code)) if code == "not_on_page" || code == "unknown_key") {
            // An earlier action took it away: a fresh page has it.
            self.start_over().await;
            answer = self.send(step).await;
        }
        match answer {
            Ok(answer) => self.note(step, answer.snapshot),
            Err(Silence::Refused(code)) if code == "invalid_value" => {
                self.actions.push(Action { ok: true, ..action(step) });
            }
            Err(Silence::Refused(_)) => return false,
            Err(silence) => {
                let error = Observed::silent(silence).run.detail;
                self.actions.push(Action { error, ..action(step) });
                self.start_over().await;
                return true;
            }
        }
        if self.actions.last().is_some_and(|action| !action.ok) {
            self.start_over().await;
        }
        true
    }

    /// What a button showed for one run goes away with the next: that is no effect of the next control.
    async fn settle(&mut self) {
        if !std::mem::take(&mut self.unsettled) {
            return;
        }
        if let Ok(answer) = self.api.rerun(&self.now.session_id, self.left()).await {
            self.now = answer.snapshot;
        }
    }

    async fn send(&self, step: &Step) -> Result<Answer, Silence> {
        self.api.act(&self.now.session_id, &step.values, step.trigger.as_ref(), self.left()).await
    }

    async fn start_over(&mut self) {
        self.unsettled = false;
        let opened = match &self.page {
            Some(path) => self.api.open_page(path, self.left()).await,
            None => self.api.open(self.left()).await,
        };
        if let Ok(answer) = opened {
            self.now = answer.snapshot;
        }
    }

    /// The exception that an action brought up: its text and place.
    fn fault(&self, after: &Snapshot) -> Option<(String, Option<String>)> {
        let known: Vec<Exception> = self.first.exceptions();
        let raised = after.exceptions().into_iter().find(|exception| !known.contains(exception));
        // A page that raises by itself cannot show that this control did.
        let failed = after.status != "ready" && self.first.status == "ready";
        if raised.is_none() && !failed {
            return None;
        }
        let exception = raised.unwrap_or_default();
        Some((format!("{}: {}", exception.kind, exception.message), exception.at))
    }

    /// Sends a step again and notes when it fails this time.
    async fn send_again(&mut self, index: usize, step: &Step) -> Option<Snapshot> {
        let after = self.send(step).await.ok()?.snapshot;
        if let Some((error, at)) = self.fault(&after) {
            let action = &mut self.actions[index];
            (action.ok, action.effect, action.error, action.at) = (false, false, Some(error), at);
            return None;
        }
        self.unsettled = true;
        self.now = after.clone();
        Some(after)
    }

    fn note(&mut self, step: &Step, after: Snapshot) {
        if let Some((error, at)) = self.fault(&after) {
            self.actions.push(Action { error: Some(error), at, ..action(step) });
            return;
        }
        let keys = step.keys();
        let before = page::contents(&self.now, &keys, &self.volatile);
        let held = page::contents(&after, &keys, &self.volatile);
        let effect = step.download || before != held;
        let index = self.actions.len();
        let changed = page::changed(&self.now, &after, &keys, &self.volatile);
        let after_it = After { boxes: after.boxes(), changed };
        self.actions.push(Action { ok: true, effect, after: after_it, ..action(step) });
        if !effect {
            let list = if step.is_value() { &mut self.pending } else { &mut self.quiet };
            list.push((index, step.clone()));
        }
        if effect && !step.is_value() {
            self.unsettled = true;
            self.credit_shown(&before, &held);
            if step.kind == "button" {
                let masked = page::contents(&after, &self.inputs, &self.volatile);
                self.pressed.push((index, step.clone(), masked));
            }
        }
        self.now = after;
    }

    /// Inputs whose value a later button or form brings to the page had their effect.
    fn credit_shown(&mut self, before: &BTreeMap<String, u32>, after: &BTreeMap<String, u32>) {
        let new: Vec<&String> = after.keys().filter(|content| !before.contains_key(*content)).collect();
        let actions = &mut self.actions;
        self.pending.retain(|(index, step)| {
            let shown =
                says(&step.sent()).is_some_and(|text| new.iter().any(|content| content.contains(&text)));
            actions[*index].effect |= shown;
            !shown
        });
    }

    /// Inputs that a button reads: it gives something else than it gave with the page's defaults, and the same when it
    /// is pressed once more, so that it is the inputs and not the pressing.
    async fn press_again(&mut self) {
        for (index, step, with_defaults) in std::mem::take(&mut self.pressed).into_iter().take(AGAIN) {
            if self.pending.is_empty() || self.out_of_time() {
                return;
            }
            let of = |user: &Self, page: &Snapshot| page::contents(page, &user.inputs, &user.volatile);
            let before = of(self, &self.now);
            let Some(once) = self.send_again(index, &step).await else { return };
            let Some(twice) = self.send_again(index, &step).await else { return };
            let (once, twice) = (of(self, &once), of(self, &twice));
            self.credit_shown(&before, &once);
            if once == twice && once != with_defaults {
                let read = std::mem::take(&mut self.pending);
                read.iter().for_each(|(index, _)| self.actions[*index].effect = true);
            }
        }
    }

    /// Buttons that changed nothing at first may do so now that the page was used: reset, clear, undo.
    async fn press_quiet(&mut self) {
        for (index, step) in std::mem::take(&mut self.quiet).into_iter().take(AGAIN) {
            if self.out_of_time() {
                return;
            }
            self.settle().await;
            let keys = step.keys();
            let before = page::contents(&self.now, &keys, &self.volatile);
            let Some(after) = self.send_again(index, &step).await else { return };
            self.actions[index].effect = before != page::contents(&after, &keys, &self.volatile);
        }
    }
}

/// What tells a control from another on any page that it is on.
fn name(step: &Step) -> (String, String) {
    (step.kind.clone(), step.label.clone())
}

fn action(step: &Step) -> Action {
    Action { kind: step.kind.clone(), label: step.label.clone(), value: step.sent(), ..Action::default() }
}

/// A sent value as a page would say it, when it is long enough to be recognised.
fn says(sent: &Value) -> Option<String> {
    let text = match sent {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (text.len() >= 2).then_some(text)
}
