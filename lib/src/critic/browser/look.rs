//! One look at one page: opened in a context of its own, waited for, measured, audited, photographed, used, closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle, time::Instant};

use super::{
    baseline,
    cdp::{Cdp, CdpError, Event},
    pixels::Picture,
    press::Press,
    proxy::Gate,
    rendered::{Item, Layout, Rendered, Violation},
    wire::{Ledger, Progress, Wire},
};
use crate::critic::evidence::Heading;

const MEASURE: &str = include_str!("measure.js");
const AXE: &str = include_str!("axe/axe.min.js");

/// For everything about one page.
const WHOLE: Duration = Duration::from_secs(30);
/// For the page to settle at first, from when the last of Streamlit's own files came.
const FIRST: Duration = Duration::from_secs(10);
/// For what follows on a page that does not settle.
const REST: Duration = Duration::from_secs(10);
/// For it to settle after a change of width.
const NEXT: Duration = Duration::from_secs(2);
/// For it to settle after an upload.
const UPLOAD: Duration = Duration::from_secs(4);
/// Uploaders that get a file.
const MOST_UPLOADS: u32 = 3;
/// For closing a page.
const CLOSE: Duration = Duration::from_secs(3);
/// No window is made higher than this, in pixels.
const HIGHEST: u32 = 6000;
/// Tabs that are opened.
const MOST_TABS: u32 = 8;
/// Messages of each sort kept.
const MOST_MESSAGES: usize = 20;
/// Files under way at once that are waited for.
const MOST_LOADS: usize = 500;

/// Between two looks at whether a page rests.
const POLL: Duration = Duration::from_millis(40);
/// Looks in a row that have to find a page at rest.
const RESTS: u32 = 4;

/// For what is drawn late: charts and tables come after their places.
const DRAWN: Duration = Duration::from_millis(300);
/// Times that something without any drawing is waited for.
const REDRAWS: u32 = 2;

/// What is looked at, and for what.
pub(super) struct Task<'a> {
    pub gate: &'a Gate,
    /// What passes the proxy meanwhile.
    pub ledger: &'a Mutex<Ledger>,
    /// Test ids of what is looked for.
    pub ids: &'a [&'a str],
    pub pictures: bool,
}

impl Task<'_> {
    pub fn wire(&self) -> Wire {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).wire()
    }

    pub fn progress(&self) -> Progress {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).progress()
    }
}

/// What a look brought.
#[derive(Debug, Default)]
pub(in crate::critic) struct Looked {
    pub rendered: Rendered,
    pub items: Vec<Item>,
    /// What came of pressing the page's buttons.
    pub presses: Vec<Press>,
    /// What came of giving a small file to each uploader.
    pub uploads: Vec<Upload>,
    /// WebP images by width.
    pub shots: Vec<(u32, Vec<u8>)>,
}

/// A file given to an uploader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::critic) struct Upload {
    pub label: String,
    /// Null when the uploader takes no file of a kind that there is a sample of.
    pub file: Option<String>,
    /// What the page then raised.
    pub error: Option<String>,
    /// Something else on the page changed.
    pub effect: bool,
}

/// Looks at the app behind a slot's port. An error says that the browser is gone or may not be used again; a page that
/// hangs, leaves or fails is part of what was seen.
pub(super) async fn look(cdp: &Cdp, task: &Task<'_>) -> Result<Looked, CdpError> {
    let page = Page::open(cdp, Instant::now() + WHOLE).await?;
    let mut looked = Looked::default();
    let fault = match page.see(task, &mut looked).await {
        Ok(()) => None,
        Err(CdpError::Gone) => return Err(CdpError::Gone),
        Err(CdpError::Silent) => Some("the page does not answer".to_owned()),
        Err(CdpError::Refused(why)) => Some(format!("the page went away: {why}")),
    };
    if fault.is_some() {
        looked.rendered.ready = false;
        looked.rendered.detail = fault;
    }
    page.note(&mut looked.rendered, &task.gate.origin());
    page.close().await?;
    Ok(looked)
}

/// What a page said and asked for while it was open.
#[derive(Debug, Default)]
struct Heard {
    errors: BTreeSet<String>,
    requests: BTreeSet<String>,
    files: Loads,
}

/// Streamlit's own files that a page asked for: what they draw is not there before they are, and how long they take is
/// the machine's doing and not the app's. They come from us, so that no app can keep them back.
#[derive(Debug, Default)]
struct Loads {
    under_way: BTreeSet<String>,
    ended: usize,
}

impl Loads {
    fn hear(&mut self, event: &Event) {
        let request = event.params["requestId"].as_str().unwrap_or_default();
        match event.method.as_str() {
            "Network.requestWillBeSent" => {
                let address = event.params["request"]["url"].as_str().unwrap_or_default();
                if is_own_file(address) && self.under_way.len() < MOST_LOADS {
                    self.under_way.insert(request.to_owned());
                }
            }
            "Network.loadingFinished" | "Network.loadingFailed" if self.under_way.remove(request) => {
                self.ended += 1;
            }
            _ => {}
        }
    }
}

fn is_own_file(address: &str) -> bool {
    let own = address.starts_with("http://127.0.0.1") || address.starts_with("ws://127.0.0.1");
    own && address.contains("/static/")
}

/// A page in a context of its own: no cookie, storage, worker or cache of another.
struct Page<'a> {
    cdp: &'a Cdp,
    context: String,
    session: String,
    end: Instant,
    heard: Arc<Mutex<Heard>>,
    dialogs: tokio::sync::Mutex<UnboundedReceiver<()>>,
    listener: JoinHandle<()>,
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        self.listener.abort();
        self.cdp.forget(&self.session);
    }
}

impl<'a> Page<'a> {
    async fn open(cdp: &'a Cdp, end: Instant) -> Result<Self, CdpError> {
        let call = |method, params| cdp.call(None, method, params, CLOSE);
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let made = call("Target.createBrowserContext", json!({ "disposeOnDetach": true })).await?;
        let context = text(&made, "browserContextId");
        let made =
            call("Target.createTarget", json!({ "url": "about:blank", "browserContextId": context })).await?;
        let attach = json!({ "targetId": text(&made, "targetId"), "flatten": true });
        let session = text(&call("Target.attachToTarget", attach).await?, "sessionId");
        let deny = json!({ "behavior": "deny", "browserContextId": context });
        call("Browser.setDownloadBehavior", deny).await?;
        let heard = Arc::default();
        let (asked, dialogs) = tokio::sync::mpsc::unbounded_channel();
        let listener = tokio::spawn(listen(cdp.listen(&session), Arc::clone(&heard), asked));
        let dialogs = tokio::sync::Mutex::new(dialogs);
        Ok(Self { cdp, context, session, end, heard, dialogs, listener })
    }

    /// A command to the page. Whatever it asks its user meanwhile is declined, because it waits for the answer.
    async fn call(&self, method: &str, params: Value) -> Result<Value, CdpError> {
        let left = self.end.saturating_duration_since(Instant::now());
        let decline = async {
            let mut dialogs = self.dialogs.lock().await;
            while dialogs.recv().await.is_some() {
                let answer = json!({ "accept": false });
                let _ =
                    self.cdp.call(Some(&self.session), "Page.handleJavaScriptDialog", answer, CLOSE).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = self.cdp.call(Some(&self.session), method, params, left) => answer,
            () = decline => Err(CdpError::Gone),
        }
    }

    async fn size(&self, width: u32, height: u32) -> Result<(), CdpError> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await.map(|_| ())
    }

    /// Gives the look's secret to this page's context, where no script can read it, and opens the app.
    async fn enter(&self, gate: &Gate) -> Result<World<'_>, CdpError> {
        for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
            self.call(domain, json!({})).await?;
        }
        self.size(1280, 800).await?;
        let cookie = json!({
            "name": Gate::COOKIE, "value": gate.secret(), "url": gate.origin(), "httpOnly": true, "sameSite": "Strict",
        });
        let cookies = json!({ "browserContextId": self.context, "cookies": [cookie] });
        self.cdp.call(None, "Storage.setCookies", cookies, CLOSE).await?;
        let went = self.call("Page.navigate", json!({ "url": format!("{}/", gate.origin()) })).await?;
        let place = json!({ "frameId": went["frameId"], "worldName": "hone" });
        let world = self.call("Page.createIsolatedWorld", place).await?;
        let world = World { page: self, context: world["executionContextId"].clone() };
        world.run(MEASURE).await?;
        Ok(world)
    }

    async fn see(&self, task: &Task<'_>, looked: &mut Looked) -> Result<(), CdpError> {
        let world = self.enter(task.gate).await?;
        let settled = world.settle(FIRST).await?;
        let rendered = &mut looked.rendered;
        (rendered.ready, rendered.state) = (settled.ready, settled.state);
        if !settled.ready {
            rendered.detail = Some(format!("the page does not settle within {} s", FIRST.as_secs()));
        }
        // Before anything is used: what comes later is another page than the snapshot's.
        rendered.wire = task.wire();
        rendered.wide = world.ask("hone.layout()").await?;
        rendered.headings = world.ask::<Vec<Heading>>("hone.headings()").await?;
        // Axe tells nothing about text that would have to be scrolled to.
        self.unroll(&world, 1280, 800, &rendered.wide).await?;
        self.picture(1280, task, looked).await?;
        world.run(AXE).await?;
        self.read(&world, task, looked).await?;
        looked.uploads = world.upload_all(task.ids).await?;
        self.size(375, 812).await?;
        world.settle(NEXT).await?;
        looked.rendered.narrow = world.ask::<Layout>("hone.layout()").await?;
        self.unroll(&world, 375, 812, &looked.rendered.narrow).await?;
        self.picture(375, task, looked).await?;
        // A page that goes away now was seen all the same.
        looked.presses = super::press::all(&world, task, self.end).await;
        Ok(())
    }

    /// What is in sight and what axe says of it, on every tab.
    async fn read(&self, world: &World<'_>, task: &Task<'_>, looked: &mut Looked) -> Result<(), CdpError> {
        let audited = format!("hone.audit({})", json!(task.ids));
        looked.items = self.items(world, task.ids).await?;
        let mut audit = Audit::default();
        audit.add(world.ask(&audited).await?);
        let tabs: u32 = world.ask("hone.tabs()").await?;
        // The first tab of each row is open already.
        for at in 1..tabs.min(MOST_TABS) {
            if !world.ask::<bool>(&format!("hone.tab({at})")).await? {
                break;
            }
            world.settle(NEXT).await?;
            looked.items.extend(self.items(world, task.ids).await?);
            audit.add(world.ask(&audited).await?);
            looked.rendered.tabs += 1;
        }
        looked.rendered.audit = audit.found.into_values().map(baseline::mark).collect();
        Ok(())
    }

    /// What can be seen now: not hidden, not covered, and not of one colour.
    async fn items(&self, world: &World<'_>, ids: &[&str]) -> Result<Vec<Item>, CdpError> {
        let mut items: Vec<Item> = world.ask(&format!("hone.items({})", json!(ids))).await?;
        let asked = json!({ "format": "png", "optimizeForSpeed": true });
        for again in 0..=REDRAWS {
            let taken = self.call("Page.captureScreenshot", asked.clone()).await?;
            // A picture that cannot be read says nothing against anything.
            let Some(picture) = Picture::read(&decoded(&taken)) else { break };
            if again == REDRAWS {
                items.retain(|item| picture.shows(item));
            }
            if items.iter().all(|item| picture.shows(item)) {
                break;
            }
            tokio::time::sleep(DRAWN).await;
        }
        Ok(items)
    }

    /// Makes the window as high as the page, so that nothing has to be scrolled to.
    async fn unroll(
        &self,
        world: &World<'_>,
        width: u32,
        height: u32,
        layout: &Layout,
    ) -> Result<(), CdpError> {
        if layout.screens <= 1.0 {
            return Ok(());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let whole = (layout.screens * f64::from(height)).ceil().clamp(0.0, f64::from(HIGHEST)) as u32;
        self.size(width, whole).await?;
        world.settle(NEXT).await?;
        Ok(())
    }

    async fn picture(&self, width: u32, task: &Task<'_>, looked: &mut Looked) -> Result<(), CdpError> {
        if task.pictures {
            let asked = json!({ "format": "webp", "quality": 80 });
            let taken = self.call("Page.captureScreenshot", asked).await?;
            looked.shots.push((width, decoded(&taken)));
        }
        Ok(())
    }

    /// How many files of Streamlit's came or failed, and how many are under way; one of them changes with every file.
    fn files(&self) -> (usize, usize) {
        let files = &self.heard.lock().unwrap_or_else(PoisonError::into_inner).files;
        (files.ended, files.under_way.len())
    }

    /// Writes down what was heard; the page's own address is left out.
    fn note(&self, rendered: &mut Rendered, origin: &str) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let outside = |url: &&String| {
            !["data:", "blob:", "about:"].iter().any(|own| url.starts_with(own))
                && !url.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && !url
                    .strip_prefix(&origin.replace("http:", "ws:"))
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        rendered.external_requests = heard.requests.iter().filter(outside).cloned().collect();
        rendered.console_errors = heard.errors.iter().map(|error| error.replace(origin, "")).collect();
    }

    /// An error here leaves a page behind that does not close: the browser has to go.
    async fn close(self) -> Result<(), CdpError> {
        let context = json!({ "browserContextId": self.context });
        self.cdp.call(None, "Target.disposeBrowserContext", context, CLOSE).await.map(|_| ())
    }
}

fn decoded(taken: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(taken["data"].as_str().unwrap_or_default()).unwrap_or_default()
}

#[derive(serde::Deserialize)]
struct Given {
    label: String,
    file: Option<String>,
}

impl Given {
    fn compare(self, before: &[Item], after: &[Item]) -> Upload {
        let raised = |items: &[Item]| items.iter().filter(|item| item.id == "stException").count();
        let newest = after.iter().rfind(|item| item.id == "stException");
        let error = newest.filter(|_| raised(after) > raised(before)).map(|item| item.text.clone());
        let others = |items: &[Item]| -> Vec<Item> {
            items.iter().filter(|item| item.id != "stFileUploader").cloned().collect()
        };
        let effect = error.is_none() && others(before) != others(after);
        Upload { label: self.label, file: self.file, error, effect }
    }
}

/// How a page stands at one moment.
#[derive(serde::Deserialize)]
struct Rest {
    /// Nothing is under way.
    quiet: bool,
    /// Changes with what the page shows.
    size: String,
    state: String,
}

/// How a page stood when nothing came any more, or the time was up.
struct Settled {
    ready: bool,
    state: String,
}

/// Functions beside the page's own, which its scripts cannot touch.
pub(super) struct World<'a> {
    page: &'a Page<'a>,
    context: Value,
}

impl World<'_> {
    async fn evaluate(&self, expression: &str, by_value: bool) -> Result<Value, CdpError> {
        let asked = json!({
            "expression": expression, "contextId": self.context, "awaitPromise": by_value, "returnByValue": by_value,
        });
        let answer = self.page.call("Runtime.evaluate", asked).await?;
        if let Some(fault) = answer.get("exceptionDetails") {
            let text = fault["exception"]["description"].as_str().or(fault["text"].as_str());
            return Err(CdpError::Refused(text.unwrap_or_default().chars().take(200).collect()));
        }
        Ok(answer["result"]["value"].clone())
    }

    async fn run(&self, script: &str) -> Result<(), CdpError> {
        self.evaluate(script, false).await.map(|_| ())
    }

    /// Waits until the page rests: it is quiet, keeps its size over some looks, and none of Streamlit's files came
    /// meanwhile. The time limit starts anew with each of those.
    async fn settle(&self, limit: Duration) -> Result<Settled, CdpError> {
        let last = self.page.end.checked_sub(REST).unwrap_or(self.page.end);
        let mut end = Instant::now() + limit;
        let (mut size, mut files, mut rests) = (String::new(), self.page.files(), 0);
        loop {
            let now: Rest = self.ask("hone.rest()").await?;
            let came @ (_, under_way) = self.page.files();
            if came != files {
                end = Instant::now() + limit;
            }
            let rests_still = now.quiet && now.size == size && came == files && under_way == 0;
            rests = if rests_still { rests + 1 } else { 0 };
            (size, files) = (now.size, came);
            if rests >= RESTS || Instant::now() >= end.min(last) {
                return Ok(Settled { ready: rests >= RESTS, state: now.state });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Gives a small file to every uploader, one after the other.
    async fn upload_all(&self, ids: &[&str]) -> Result<Vec<Upload>, CdpError> {
        let texts = format!("hone.contents({})", json!(ids));
        let mut uploads = Vec::new();
        let mut before: Vec<Item> = self.ask(&texts).await?;
        for at in 0..MOST_UPLOADS {
            let Some(given) = self.ask::<Option<Given>>(&format!("hone.upload({at})")).await? else { break };
            self.settle(UPLOAD).await?;
            let after: Vec<Item> = self.ask(&texts).await?;
            uploads.push(given.compare(&before, &after));
            before = after;
        }
        Ok(uploads)
    }

    pub async fn ask<T: DeserializeOwned>(&self, expression: &str) -> Result<T, CdpError> {
        let value = self.evaluate(expression, true).await?;
        serde_json::from_value(value).map_err(|e| CdpError::Refused(format!("{expression:.40}: {e}")))
    }
}

/// Violations of several looks at one page: the worst count of each.
#[derive(Default)]
struct Audit {
    found: BTreeMap<(String, String), Violation>,
}

impl Audit {
    fn add(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            let kept = self.found.entry((violation.rule.clone(), violation.kind.clone())).or_default();
            if violation.nodes > kept.nodes {
                *kept = violation;
            }
        }
    }
}

async fn listen(
    mut events: UnboundedReceiver<Event>,
    heard: Arc<Mutex<Heard>>,
    dialogs: tokio::sync::mpsc::UnboundedSender<()>,
) {
    while let Some(event) = events.recv().await {
        if event.method == "Page.javascriptDialogOpening" {
            let _ = dialogs.send(());
            continue;
        }
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.files.hear(&event);
        if let Some(error) = console_error(&event) {
            keep(&mut heard.errors, &error);
        } else if event.method == "Network.requestWillBeSent" {
            keep(&mut heard.requests, event.params["request"]["url"].as_str().unwrap_or_default());
        } else if event.method == "Network.webSocketCreated" {
            keep(&mut heard.requests, event.params["url"].as_str().unwrap_or_default());
        }
    }
}

fn console_error(event: &Event) -> Option<String> {
    let params = &event.params;
    let text = match event.method.as_str() {
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            details["exception"]["description"].as_str().or(details["text"].as_str())
        }
        "Runtime.consoleAPICalled" if params["type"] == "error" => {
            params["args"][0]["value"].as_str().or(params["args"][0]["description"].as_str())
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => params["entry"]["text"].as_str(),
        _ => return None,
    };
    Some(text.unwrap_or("an error without text").to_owned())
}

fn keep(list: &mut BTreeSet<String>, text: &str) {
    if list.len() < MOST_MESSAGES && !is_own_file(text) {
        list.insert(text.lines().next().unwrap_or_default().chars().take(200).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(method: &str, request: &str, url: &str) -> Event {
        Event { method: method.into(), params: json!({ "requestId": request, "request": { "url": url } }) }
    }

    #[test]
    fn a_file_of_our_own_is_under_way_until_it_came_or_failed() {
        let mut files = Loads::default();
        let mut hear = |method: &str, request: &str, url: &str| {
            files.hear(&event(method, request, url));
            (files.under_way.len(), files.ended)
        };
        assert_eq!(hear("Network.requestWillBeSent", "1", "http://127.0.0.1:7001/static/js/a.js"), (1, 0));
        assert_eq!(
            hear("Network.requestWillBeSent", "2", "http://127.0.0.1:7001/static/media/f.woff2"),
            (2, 0)
        );
        // What the app serves can take for ever, and other places are not there.
        assert_eq!(hear("Network.requestWillBeSent", "3", "http://127.0.0.1:7001/media/a.png"), (2, 0));
        assert_eq!(hear("Network.requestWillBeSent", "4", "https://example.org/static/a.js"), (2, 0));
        assert_eq!(hear("Network.loadingFinished", "3", ""), (2, 0));
        assert_eq!(hear("Network.loadingFinished", "1", ""), (1, 1));
        assert_eq!(hear("Network.loadingFinished", "1", ""), (1, 1));
        assert_eq!(hear("Network.loadingFailed", "2", ""), (0, 2));
    }
}
