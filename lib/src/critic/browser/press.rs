//! Pressing a page's buttons as a person does, to see whether the agent API is told the same as people.
//!
//! What comes of a press is read where the proxy reads it, so that neither a script of the page nor the time that drawing
//! takes has a say in it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    cdp::CdpError,
    look::{Task, World},
    wire::Progress,
};

/// Buttons that are pressed.
const MOST: usize = 5;
/// For the run that a press starts.
const EACH: Duration = Duration::from_secs(4);
/// For all of them.
const ALL: Duration = Duration::from_secs(8);
/// Between two looks at what passed the proxy.
const POLL: Duration = Duration::from_millis(10);
/// A run that starts another one (`st.rerun`) ends twice.
const QUIET: Duration = Duration::from_millis(60);

/// A button that was pressed in the browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::critic) struct Press {
    /// `button` or `form_submit_button`.
    pub kind: String,
    pub label: String,
    /// The exception that the page was then told to show.
    pub error: Option<String>,
    /// The page was told to hold something new. What an earlier press showed goes away by itself.
    pub changed: bool,
}

#[derive(Clone, Deserialize)]
struct Button {
    kind: String,
    label: String,
}

/// Presses the page's first buttons, one after the other. A page that goes away meanwhile ends it.
pub(super) async fn all(world: &World<'_>, task: &Task<'_>, end: Instant) -> Vec<Press> {
    let mut presses = Vec::new();
    let end = end.min(Instant::now() + ALL);
    let told = task.wire().exceptions;
    let Ok(buttons) = world.ask::<Vec<Button>>("hone.buttons()").await else { return presses };
    for button in buttons.into_iter().take(MOST) {
        if Instant::now() >= end {
            break;
        }
        match press(world, task, button, &told, end).await {
            Ok(press) => presses.extend(press),
            Err(_) => break,
        }
    }
    presses
}

/// Presses one; none when it is not there any more or starts nothing.
async fn press(
    world: &World<'_>,
    task: &Task<'_>,
    button: Button,
    told: &[(String, String)],
    end: Instant,
) -> Result<Option<Press>, CdpError> {
    let before = task.progress();
    let asked = format!("hone.press({}, {})", json!(button.kind), json!(button.label));
    if !world.ask::<bool>(&asked).await? {
        return Ok(None);
    }
    let end = end.min(Instant::now() + EACH);
    let mut after = task.progress();
    while after.finished == before.finished && Instant::now() < end {
        tokio::time::sleep(POLL).await;
        after = task.progress();
    }
    let error = match (after.begun > before.begun, after.finished > before.finished) {
        (false, _) => return Ok(None),
        (true, false) => Some(format!("no answer within {} s", EACH.as_secs())),
        (true, true) => {
            after = rest(task, after, end).await;
            let raised = task.wire().exceptions.into_iter().find(|exception| !told.contains(exception));
            raised.map(|(kind, message)| format!("{kind}: {message}"))
        }
    };
    let changed = !after.elements.is_subset(&before.elements);
    Ok(Some(Press { kind: button.kind, label: button.label, error, changed }))
}

/// Where the page has come to when nothing more comes.
async fn rest(task: &Task<'_>, mut last: Progress, end: Instant) -> Progress {
    loop {
        tokio::time::sleep(QUIET).await;
        let now = task.progress();
        if now == last || Instant::now() >= end {
            return now;
        }
        last = now;
    }
}
