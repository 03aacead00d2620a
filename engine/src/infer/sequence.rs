//! The tokens of a conversation and their keys and values, in pages that conversations with a common beginning share.

use std::sync::Arc;

use half::f16;

use super::{Decoder, Options, Precision};
use crate::kernel::{self, Level};

/// Positions per page.
pub(super) const PAGE: usize = 64;

/// Numbers that are rounded to half precision at once.
const RUN: usize = 64;

/// Keys and values of [`PAGE`] positions, for each layer and each key/value head: keys `[head_dim, PAGE]`, then
/// values `[PAGE, head_dim]`. Keys are transposed so that the scores of a page are computed side by side.
#[derive(Clone, Debug)]
enum Page {
    Half(Vec<f16>),
    Full(Vec<f32>),
}

/// The tokens of one conversation and what the model has computed about them. Belongs to the decoder and delta it was
/// first advanced with; mixing models of one shape is not detected.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub(super) ids: Vec<u32>,
    pub(super) cached: usize,
    shape: Shape,
    pages: Vec<Arc<Page>>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    precision: Precision,
    level: Level,
    kv_heads: usize,
    head_dim: usize,
    /// Numbers of a page.
    len: usize,
}

impl Shape {
    fn page(self) -> Arc<Page> {
        Arc::new(match self.precision {
            Precision::Fast => Page::Half(vec![f16::ZERO; self.len]),
            Precision::F32 => Page::Full(vec![0.0; self.len]),
        })
    }
}

impl Sequence {
    /// A sequence that starts with `prompt`.
    pub fn new(decoder: &Decoder, prompt: &[u32]) -> Self {
        let (Options { precision, level, .. }, config) = (decoder.options, &decoder.config);
        let (kv_heads, head_dim) = (config.kv_heads, config.head_dim);
        let len = config.layers * kv_heads * 2 * PAGE * head_dim;
        let shape = Shape { precision, level, kv_heads, head_dim, len };
        Self { ids: prompt.to_vec(), cached: 0, shape, pages: Vec::new() }
    }

    /// Adds a token, to be processed by the next call.
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
    }

    /// All tokens, processed or not.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens have not gone through the model yet.
    pub fn pending(&self) -> usize {
        self.ids.len() - self.cached
    }

    /// How many tokens have gone through the model.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// Bytes that the keys and values take, those that it shares with others included.
    pub fn bytes(&self) -> usize {
        let number =
            if self.shape.precision == Precision::Fast { size_of::<f16>() } else { size_of::<f32>() };
        self.pages.len() * self.shape.len * number
    }

    /// The pages of keys and values: where each is, which tells shared ones apart from others, and its bytes.
    pub fn pages(&self) -> impl Iterator<Item = (*const (), usize)> {
        let bytes = self.bytes().checked_div(self.pages.len()).unwrap_or(0);
        self.pages.iter().map(move |page| (Arc::as_ptr(page).cast(), bytes))
    }

    /// How many of the tokens that have gone through the model fit into so many bytes of keys and values.
    pub fn fitting(&self, bytes: usize) -> usize {
        let page = self.bytes().checked_div(self.pages.len()).unwrap_or(0);
        self.cached.min(bytes.checked_div(page).unwrap_or(0).saturating_mul(PAGE))
    }

    /// A sequence of the first `tokens` tokens, with what was computed about them. Memory is shared with this one,
    /// page by page, until either writes. What the model says next is what it would say had it read the tokens
    /// anew.
    ///
    /// # Panics
    /// When the sequence has fewer tokens.
    pub fn fork(&self, tokens: usize) -> Self {
        let cached = self.cached.min(tokens);
        let pages = self.pages[..cached.div_ceil(PAGE)].to_vec();
        Self { ids: self.ids[..tokens].to_vec(), cached, shape: self.shape, pages }
    }

    /// Makes room for the next `take` tokens in pages of its own and lends all pages.
    pub(super) fn lend(&mut self, take: usize) -> Pages {
        let (first, end) = (self.cached / PAGE, self.cached + take);
        while self.pages.len() * PAGE < end {
            self.pages.push(self.shape.page());
        }
        if take > 0 {
            for page in &mut self.pages[first..] {
                Arc::make_mut(page);
            }
        }
        let cells = |page: &Arc<Page>| match &**page {
            Page::Half(numbers) => Cells::Half(numbers.as_ptr().cast_mut()),
            Page::Full(numbers) => Cells::Full(numbers.as_ptr().cast_mut()),
        };
        Pages { shape: self.shape, cells: self.pages.iter().map(cells).collect() }
    }
}

#[derive(Clone, Copy)]
enum Cells {
    Half(*mut f16),
    Full(*mut f32),
}

/// A sequence's pages during a pass.
pub(super) struct Pages {
    shape: Shape,
    cells: Vec<Cells>,
}

// SAFETY: the pointers are dereferenced in `put`, whose contract forbids overlap, and in `head`, whose contract
// puts it after all writing.
unsafe impl Sync for Pages {}
// SAFETY: as above.
unsafe impl Send for Pages {}

/// Keys `[head_dim, PAGE]` and values `[PAGE, head_dim]` of one page and one head.
#[derive(Clone, Copy)]
pub(super) enum HeadPage<'a> {
    Half(&'a [f16], &'a [f16]),
    Full(&'a [f32], &'a [f32]),
}

impl Pages {
    /// Where the part of a head begins in each page.
    fn start(&self, layer: usize, head: usize) -> usize {
        assert!(head < self.shape.kv_heads);
        let start = (layer * self.shape.kv_heads + head) * 2 * PAGE * self.shape.head_dim;
        assert!(start + 2 * PAGE * self.shape.head_dim <= self.shape.len);
        start
    }

    /// Writes key and value of one position of a head.
    ///
    /// # Safety
    /// The sequence that lent the pages is borrowed; `position` is one of those that room was made for; nobody else
    /// reads or writes it meanwhile.
    pub(super) unsafe fn put(&self, layer: usize, head: usize, position: usize, key: &[f32], value: &[f32]) {
        let (start, slot, dim) = (self.start(layer, head), position % PAGE, self.shape.head_dim);
        assert!(key.len() == dim && value.len() == dim);
        // SAFETY: offsets lie inside the page by the assertions; the rest is the contract.
        unsafe {
            match self.cells[position / PAGE] {
                Cells::Half(page) => {
                    let page = page.add(start);
                    for (i, (key, value)) in key.chunks(RUN).zip(value.chunks(RUN)).enumerate() {
                        let mut halves = [[f16::ZERO; RUN]; 2];
                        let [keys, values] = &mut halves;
                        kernel::narrow(self.shape.level, key, keys);
                        kernel::narrow(self.shape.level, value, values);
                        put(page, i * RUN, slot, dim, &keys[..key.len()], &values[..key.len()]);
                    }
                }
                Cells::Full(page) => put(page.add(start), 0, slot, dim, key, value),
            }
        }
    }

    /// The part of a head in page `page`.
    ///
    /// # Safety
    /// The sequence that lent the pages is borrowed, and nobody writes the page while the result lives.
    pub(super) unsafe fn head(&self, layer: usize, head: usize, page: usize) -> HeadPage<'_> {
        let (start, half) = (self.start(layer, head), PAGE * self.shape.head_dim);
        // SAFETY: inside the page by the assertions of `start`; the rest is the contract.
        unsafe {
            match self.cells[page] {
                Cells::Half(page) => {
                    HeadPage::Half(slice(page.add(start), half), slice(page.add(start + half), half))
                }
                Cells::Full(page) => {
                    HeadPage::Full(slice(page.add(start), half), slice(page.add(start + half), half))
                }
            }
        }
    }
}

/// # Safety
/// As of [`std::slice::from_raw_parts`].
unsafe fn slice<'a, T>(start: *mut T, len: usize) -> &'a [T] {
    // SAFETY: by the contract.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Writes dimensions from `first` of one position.
///
/// # Safety
/// `start` points to the part of a head of `dim` dimensions, where position `slot` may be written.
unsafe fn put<T: Copy>(start: *mut T, first: usize, slot: usize, dim: usize, keys: &[T], values: &[T]) {
    for (i, (key, value)) in (first..).zip(keys.iter().zip(values)) {
        // SAFETY: by the contract.
        unsafe {
            start.add(i * PAGE + slot).write(*key);
            start.add(PAGE * dim + slot * dim + i).write(*value);
        }
    }
}
