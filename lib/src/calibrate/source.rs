//! A Python app as something to spoil: its page's statements, its inputs, and what its buttons do.

use std::collections::BTreeSet;
use std::ops::Range;

use ruff_python_ast::{
    Expr, ExprCall, Stmt, StmtIf,
    visitor::{self, Visitor},
};
use ruff_python_parser::parse_module;
use ruff_text_size::{Ranged, TextRange};

use crate::critic::SOURCE_CAP;

/// Commands with a label that a user gives a value to.
const INPUTS: &[&str] = &[
    "text_input",
    "number_input",
    "selectbox",
    "slider",
    "text_area",
    "multiselect",
    "radio",
    "checkbox",
    "date_input",
    "toggle",
    "time_input",
    "file_uploader",
    "select_slider",
    "color_picker",
];
const BUTTONS: &[&str] = &["button", "form_submit_button"];
/// Commands that put nothing on the page by themselves.
const SILENT: &[&str] =
    &["set_page_config", "columns", "tabs", "container", "form", "expander", "session_state"];

/// A source with what degraders need to know of it; offsets are in bytes.
pub(super) struct Source<'a> {
    pub text: &'a str,
    /// Statements of the block that makes the page: the module, or the function with the most of it.
    pub page: Vec<Statement>,
    pub inputs: Vec<Input>,
    /// Bodies of `if st.button(...)`, and of `if sent` where `sent` is such a button.
    pub handlers: Vec<Handler>,
}

/// A statement of the page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub range: Range<usize>,
    pub import: bool,
    /// Calls in it that put something on the page.
    pub shows: usize,
    /// It is `st.title(...)`.
    pub title: bool,
}

/// An input whose label is a literal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Input {
    pub label: Range<usize>,
    /// Where further arguments go, before the closing parenthesis.
    pub end: usize,
    pub keyed: bool,
    /// It says how its label is shown.
    pub shown: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Handler {
    pub body: Range<usize>,
    pub indent: usize,
}

impl<'a> Source<'a> {
    /// None for what does not parse or is too large. To be called where the stack is deep.
    pub fn parse(text: &'a str) -> Option<Self> {
        // The stack is deep enough for sources up to this.
        if text.len() > SOURCE_CAP {
            return None;
        }
        let parsed = parse_module(text).ok()?;
        let mut walk = Walk::default();
        walk.block(&parsed.syntax().body);
        walk.visit_body(&parsed.syntax().body);
        let page = walk.blocks.into_iter().max_by_key(|block| {
            // Of equals the outer one, which was found first.
            (
                block.iter().filter(|statement| statement.shows > 0).count(),
                std::cmp::Reverse(block[0].range.start),
            )
        })?;
        let mut inputs = walk.inputs;
        inputs.sort_by_key(|input| input.label.start);
        Some(Self { text, page, inputs, handlers: walk.handlers })
    }

    /// Start of the line that an offset is on.
    pub fn line_start(&self, offset: usize) -> usize {
        self.text[..offset].rfind('\n').map_or(0, |at| at + 1)
    }

    /// End of the line that an offset is on, with its line break.
    pub fn line_end(&self, offset: usize) -> usize {
        self.text[offset..].find('\n').map_or(self.text.len(), |at| offset + at + 1)
    }

    /// Indentation of the page's statements.
    pub fn indent(&self) -> &'a str {
        let first = self.page[0].range.start;
        let line = &self.text[self.line_start(first)..first];
        if line.trim().is_empty() { line } else { "" }
    }

    /// The text with lines before the page's statement `at`, or after the last one.
    pub fn with(&self, at: usize, lines: &str) -> String {
        let offset = match self.page.get(at) {
            Some(statement) => self.line_start(statement.range.start),
            None => self.line_end(self.page[self.page.len() - 1].range.end),
        };
        let (before, after) = self.text.split_at(offset);
        let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        let lines: String = lines.lines().map(|line| format!("{}{line}\n", self.indent())).collect();
        format!("{before}{gap}{lines}{after}")
    }

    /// The text with lines after the page.
    pub fn and(&self, lines: &str) -> String {
        self.with(usize::MAX, lines)
    }

    /// The text with ranges replaced; they must not overlap.
    pub fn replaced(&self, mut edits: Vec<(Range<usize>, String)>) -> String {
        edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        edits.into_iter().fold(self.text.to_owned(), |mut text, (range, new)| {
            text.replace_range(range, &new);
            text
        })
    }

    /// The place among the page's statements that has at least `shows` elements before it; none when there are fewer.
    pub fn after_elements(&self, shows: usize) -> Option<usize> {
        let mut seen = 0;
        let place = self.page.iter().position(|statement| {
            seen += statement.shows;
            seen >= shows
        });
        place.map(|at| at + 1)
    }
}

#[derive(Default)]
struct Walk {
    blocks: Vec<Vec<Statement>>,
    inputs: Vec<Input>,
    handlers: Vec<Handler>,
    /// Names bound to a button.
    buttons: BTreeSet<String>,
    depth: usize,
}

/// Deeper than people write.
const DEPTH: usize = 200;

impl<'a> Visitor<'a> for Walk {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if self.depth > DEPTH {
            return;
        }
        self.depth += 1;
        match stmt {
            Stmt::FunctionDef(function) => self.block(&function.body),
            Stmt::If(branch) if guards_main(&branch.test) => self.block(&branch.body),
            Stmt::Assign(assign) if presses(&assign.value) => {
                let names = assign.targets.iter().filter_map(Expr::as_name_expr);
                self.buttons.extend(names.map(|name| name.id.to_string()));
            }
            Stmt::If(branch) => self.branch(branch),
            _ => {}
        }
        visitor::walk_stmt(self, stmt);
        self.depth -= 1;
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if self.depth > DEPTH {
            return;
        }
        self.depth += 1;
        if let Expr::Call(call) = expr {
            self.inputs.extend(input(call));
        }
        visitor::walk_expr(self, expr);
        self.depth -= 1;
    }
}

impl Walk {
    /// A block that may be what makes the page.
    fn block(&mut self, body: &[Stmt]) {
        if !body.is_empty() {
            self.blocks.push(body.iter().map(statement).collect());
        }
    }

    fn branch(&mut self, branch: &StmtIf) {
        let named = |expr: &Expr| expr.as_name_expr().is_some_and(|n| self.buttons.contains(n.id.as_str()));
        let pressed = match branch.test.as_ref() {
            Expr::BoolOp(all) => all.values.iter().any(|e| presses(e) || named(e)),
            test => presses(test) || named(test),
        };
        let (Some(first), Some(last)) = (branch.body.first(), branch.body.last()) else { return };
        if pressed {
            let indent = usize::from(branch.range.start());
            let body = usize::from(first.range().start())..usize::from(last.range().end());
            self.handlers.push(Handler { body, indent });
        }
    }
}

/// `__name__ == "__main__"`
fn guards_main(test: &Expr) -> bool {
    let left = test.as_compare_expr().and_then(|compare| compare.left.as_name_expr());
    left.is_some_and(|name| name.id.as_str() == "__name__")
}

fn command(call: &ExprCall) -> Option<&str> {
    call.func.as_attribute_expr().map(|attribute| attribute.attr.as_str())
}

fn presses(expr: &Expr) -> bool {
    expr.as_call_expr().and_then(command).is_some_and(|name| BUTTONS.contains(&name))
}

fn input(call: &ExprCall) -> Option<Input> {
    command(call).filter(|name| INPUTS.contains(name))?;
    let label = call.arguments.find_argument_value("label", 0)?.as_string_literal_expr()?;
    let has = |name: &str| call.arguments.find_keyword(name).is_some();
    Some(Input {
        label: bytes(label.range()),
        end: usize::from(call.arguments.range().end()) - 1,
        keyed: has("key"),
        shown: has("label_visibility"),
    })
}

fn statement(stmt: &Stmt) -> Statement {
    let mut shows = Shows::default();
    shows.visit_stmt(stmt);
    let title = matches!(stmt, Stmt::Expr(expr)
        if expr.value.as_call_expr().and_then(command) == Some("title"));
    Statement {
        range: bytes(stmt.range()),
        import: matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_)),
        shows: shows.count,
        title,
    }
}

/// Counts calls of Streamlit's commands by their form, `st.name(...)`; definitions show nothing by themselves.
#[derive(Default)]
struct Shows {
    count: usize,
    depth: usize,
}

impl<'a> Visitor<'a> for Shows {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if self.depth < DEPTH && !matches!(stmt, Stmt::FunctionDef(_) | Stmt::ClassDef(_)) {
            self.depth += 1;
            visitor::walk_stmt(self, stmt);
            self.depth -= 1;
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        let called = expr.as_call_expr().and_then(|call| call.func.as_attribute_expr());
        let of_streamlit =
            called.filter(|f| f.value.as_name_expr().is_some_and(|name| name.id.as_str() == "st"));
        self.count += usize::from(of_streamlit.is_some_and(|f| !SILENT.contains(&f.attr.as_str())));
        if self.depth < DEPTH {
            self.depth += 1;
            visitor::walk_expr(self, expr);
            self.depth -= 1;
        }
    }
}

fn bytes(range: TextRange) -> Range<usize> {
    usize::from(range.start())..usize::from(range.end())
}
