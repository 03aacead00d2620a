//! The second witness: what a browser shows of an app.
//!
//! One Chromium lives as long as the critic, in a sandbox without network. A page of it reaches one thing, the [`proxy`]
//! of its slot, which serves Streamlit's own files and passes on what the candidate's server has to answer. On the way
//! the proxy reads what the server tells the page ([`wire`]), before any script of the page can act on it.

mod baseline;
mod cdp;
mod chromium;
mod look;
mod pixels;
mod press;
mod proxy;
mod rendered;
mod wire;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;

pub use self::baseline::{Baseline, shipped as baseline};
pub use self::rendered::{Layout, Rendered, Violation, Wire};
pub(in crate::critic) use self::{
    chromium::LOCALE,
    look::{Looked, Upload},
    press::Press,
    rendered::Item,
};
use self::{
    chromium::{Chromium, FIRST_PORT, MOST_SLOTS},
    look::Task,
    proxy::{Files, Gate, Upstream},
    wire::Ledger,
};
use super::{error::CriticError, sandbox::SandboxSpec};

/// Of the file beside this one.
pub(super) const AXE_VERSION: &str = "4.14.1";

/// Times a browser may end during one look before the look is given up.
const ATTEMPTS: usize = 2;

/// A browser that shows several pages at once, each in a context and on a port of its own.
pub(super) struct Browser {
    spec: SandboxSpec,
    program: PathBuf,
    files: Arc<Files>,
    slots: usize,
    free: Mutex<Vec<usize>>,
    places: Semaphore,
    running: tokio::sync::Mutex<Option<Arc<Chromium>>>,
    /// Pictures are wanted.
    pictures: bool,
}

impl Browser {
    /// A browser that starts when it is first needed. `package` is Streamlit's folder, for the files that draw a page.
    pub fn new(spec: SandboxSpec, program: &Path, package: &Path, slots: usize, pictures: bool) -> Self {
        let slots = slots.clamp(1, MOST_SLOTS);
        Self {
            spec,
            program: program.to_owned(),
            files: Arc::new(Files::new(package.join("static"))),
            slots,
            free: Mutex::new((0..slots).collect()),
            places: Semaphore::new(slots),
            running: tokio::sync::Mutex::new(None),
            pictures,
        }
    }

    /// The browser's version; starts it if it does not run.
    pub async fn version(&self) -> Result<String, CriticError> {
        Ok(self.running().await?.version.clone())
    }

    /// Looks at the app that answers on `socket`. `ids` are the test ids of what is looked for.
    pub async fn look(&self, socket: &Path, ids: &[&str]) -> Result<Looked, CriticError> {
        let _place = self.places.acquire().await.map_err(|_| CriticError::Cancelled)?;
        let slot = Slot::take(self);
        let port = FIRST_PORT + u16::try_from(slot.number).unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let chromium = self.running().await?;
            let ledger = Arc::new(Mutex::new(Ledger::default()));
            let gate = Gate::new(port);
            let upstream = Upstream {
                gate: gate.clone(),
                files: Arc::clone(&self.files),
                socket: socket.to_owned(),
                ledger: Arc::clone(&ledger),
            };
            let task = Task { gate: &gate, ledger: &ledger, ids, pictures: self.pictures };
            let looked = tokio::select! {
                looked = look::look(&chromium.cdp, &task) => looked,
                () = proxy::serve(&chromium.listeners[slot.number], upstream) => Err(cdp::CdpError::Gone),
            };
            match looked {
                Ok(looked) => return Ok(looked),
                Err(_) => self.discard(&chromium).await,
            }
        }
        let mut looked = Looked::default();
        looked.rendered.detail = Some("the browser ended while it showed the page".to_owned());
        Ok(looked)
    }

    async fn running(&self) -> Result<Arc<Chromium>, CriticError> {
        let mut running = self.running.lock().await;
        match running.as_ref() {
            Some(chromium) if !chromium.cdp.is_gone() => Ok(Arc::clone(chromium)),
            _ => {
                let chromium = Arc::new(Chromium::start(&self.spec, &self.program, self.slots).await?);
                *running = Some(Arc::clone(&chromium));
                Ok(chromium)
            }
        }
    }

    /// Lets go of a browser that ended or does not obey; it dies with the last look at it.
    async fn discard(&self, bad: &Arc<Chromium>) {
        let mut running = self.running.lock().await;
        if running.as_ref().is_some_and(|now| Arc::ptr_eq(now, bad)) {
            *running = None;
        }
    }

    /// Ends the browser.
    pub async fn close(&self) {
        *self.running.lock().await = None;
    }
}

/// A number below `slots` that no other look has.
struct Slot<'a> {
    number: usize,
    browser: &'a Browser,
}

impl<'a> Slot<'a> {
    /// There are as many numbers as places, so one is free for whoever holds a place.
    fn take(browser: &'a Browser) -> Self {
        let number = browser.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Self { number, browser }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.browser.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}
