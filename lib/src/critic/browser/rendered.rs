//! What Chromium showed of an app: plain data, as all evidence is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::wire::Wire;
use crate::critic::evidence::Heading;

/// One look at the app's page in a browser session of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rendered {
    /// The page settled within the time limit.
    pub ready: bool,
    /// Streamlit's own word for its state: `notRunning`, `compilationError`, `running`...
    pub state: String,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Exception boxes in sight.
    pub exceptions: u32,
    /// Elements in sight, all tabs opened.
    pub visible: u32,
    /// At 1280 by 800 pixels.
    pub wide: Layout,
    /// At 375 by 812 pixels.
    pub narrow: Layout,
    /// Headings in sight, in the order of the document.
    pub headings: Vec<Heading>,
    /// Tabs opened.
    pub tabs: u32,
    /// What axe found, after each tab was opened too.
    pub audit: Vec<Violation>,
    pub console_errors: Vec<String>,
    /// Addresses outside the app that the page asked for; none was reached.
    pub external_requests: Vec<String>,
    /// Names of the screenshots, where they are kept.
    pub screenshots: Vec<String>,
    /// What the server told the page.
    pub wire: Wire,
}

/// Sizes and places at one width, in CSS pixels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layout {
    pub width: u32,
    /// How far the document is wider than the window.
    pub page_overflow: f64,
    /// How far the main part's content is wider than itself; what the document does not show.
    pub main_overflow: f64,
    /// Elements of the app in its main part.
    pub elements: u32,
    pub controls: u32,
    pub controls_per_screen: f64,
    /// Controls of which one side is shorter.
    pub targets_under_24: u32,
    pub targets_under_44: u32,
    /// Different left edges of elements, on a grid of 4 pixels.
    pub left_edges: u32,
    /// Length of the page in windows.
    pub screens: f64,
    /// Share of the first screen's content area that elements cover, 0-1.
    pub fill: f64,
    /// Pairs of elements that cover each other.
    pub overlaps: u32,
    /// Names of controls and figures that do not fit and end in dots.
    pub clipped: u32,
    /// Characters in sight by size of their font in pixels.
    pub text_sizes: BTreeMap<String, u32>,
}

/// A rule of axe that elements of one kind break.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Violation {
    pub rule: String,
    /// `minor`, `moderate`, `serious` or `critical`.
    pub impact: String,
    pub help: String,
    /// Test id of the element that encloses what breaks it, or `page`.
    pub kind: String,
    pub nodes: u32,
    /// A selector of the first.
    pub target: String,
    /// Text of the first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Streamlit's own gallery breaks it in elements of this kind too: not the author's doing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
}

impl Layout {
    /// Share of the text that is smaller than 12 pixels, 0-1.
    pub fn small_text(&self) -> f64 {
        let all: u32 = self.text_sizes.values().sum();
        let small: u32 = self
            .text_sizes
            .iter()
            .filter(|(size, _)| size.parse::<f64>().is_ok_and(|size| size < 12.0))
            .map(|(_, characters)| characters)
            .sum();
        f64::from(small) / f64::from(all.max(1))
    }

    /// Overflow of the page or of its main part.
    pub fn overflow(&self) -> f64 {
        self.page_overflow.max(self.main_overflow)
    }
}

/// Something in sight: the test id of its kind, and its text with the names of its controls.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::critic) struct Item {
    pub id: String,
    pub text: String,
    /// Places of the screenshot, each of which has to show something: left, top, width, height. None when the screenshot
    /// does not hold it, or when what it would show comes from an address that is not there.
    pub boxes: Vec<[f64; 4]>,
}
