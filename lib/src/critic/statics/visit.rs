//! One walk over a module: Streamlit's calls by whatever name, what can never run, and what reaches too far.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::{
    Expr, ExprCall, Stmt, StmtFunctionDef,
    visitor::{self, Visitor},
};
use ruff_text_size::{Ranged, TextRange, TextSize};

use super::secrets;

/// Deeper than people write: the walk goes no further.
pub(super) const DEPTH: usize = 400;

/// Modules of the machinery that observes a candidate, and of the machine.
const FORBIDDEN_MODULES: &[&str] = &[
    "streamlit.testing",
    "streamlit.runtime",
    "streamlit.web",
    "streamlit.proto",
    "streamlit.elements",
    "streamlit.starlette",
    "streamlit.delta_generator",
    "starlette",
    "uvicorn",
    "ctypes",
    "gc",
    "inspect",
    "socket",
    "subprocess",
    "multiprocessing",
    "pty",
    "signal",
];
const FORBIDDEN_OS: &[&str] = &[
    "_exit",
    "abort",
    "fork",
    "forkpty",
    "kill",
    "killpg",
    "system",
    "popen",
    "execv",
    "execve",
    "execl",
    "execvp",
    "spawnl",
    "spawnv",
    "posix_spawn",
    "setuid",
    "chroot",
];
const FORBIDDEN_CALLS: &[&str] = &["exec", "eval", "compile", "__import__"];

/// Objects to which elements can be added.
const CONTAINERS: &[&str] = &[
    "columns",
    "tabs",
    "container",
    "sidebar",
    "expander",
    "form",
    "empty",
    "popover",
    "status",
    "chat_message",
    "grid",
    "bottom",
];
/// Names that do not make an element.
const SILENT: &[&str] = &[
    "set_page_config",
    "session_state",
    "cache_data",
    "cache_resource",
    "fragment",
    "stop",
    "rerun",
    "columns",
    "tabs",
    "container",
    "empty",
    "column_config",
    "secrets",
    "query_params",
    "Page",
    "navigation",
    "form",
    "expander",
    "popover",
    "sidebar",
    "context",
    "get_option",
    "set_option",
    "connection",
    "switch_page",
];
/// Ways of asking a session state for all that it holds.
const WHOLE: &[&str] =
    &["to_dict", "items", "values", "keys", "copy", "__dict__", "__repr__", "__len__", "session_state"];
/// Functions that make a text or a number of what they are given.
const TELLING: &[&str] = &["repr", "str", "hash", "len", "format", "dumps", "md5", "sha1", "sha256", "crc32"];
/// Controls whose first argument is a label.
const LABELLED: &[&str] = &[
    "button",
    "checkbox",
    "color_picker",
    "date_input",
    "datetime_input",
    "download_button",
    "file_uploader",
    "form_submit_button",
    "multiselect",
    "number_input",
    "pills",
    "radio",
    "segmented_control",
    "select_slider",
    "selectbox",
    "slider",
    "text_area",
    "text_input",
    "time_input",
    "toggle",
];
/// What Streamlit once had, and what takes its place.
const REMOVED: &[(&str, &str)] = &[
    ("cache", "cache_data"),
    ("add_rows", "the chart with all its rows"),
    ("experimental_rerun", "rerun"),
    ("experimental_memo", "cache_data"),
    ("experimental_singleton", "cache_resource"),
    ("experimental_data_editor", "data_editor"),
    ("experimental_get_query_params", "query_params"),
    ("experimental_set_query_params", "query_params"),
    ("experimental_dialog", "dialog"),
    ("experimental_fragment", "fragment"),
    ("experimental_user", "user"),
    ("experimental_show", "write"),
    ("beta_columns", "columns"),
    ("beta_container", "container"),
    ("beta_expander", "expander"),
];

/// A call of Streamlit, by offset.
pub(super) struct CallAt {
    pub path: String,
    pub label: Option<String>,
    pub offset: TextSize,
    pub dead: bool,
}

/// What one module's walk found, by offset.
#[derive(Default)]
pub(super) struct Facts {
    /// It imports Streamlit.
    pub streamlit: bool,
    pub imports: Vec<String>,
    pub calls: Vec<CallAt>,
    pub other_calls: BTreeSet<String>,
    pub tamper: Vec<(TextSize, String)>,
    pub secrets: Vec<(TextSize, String)>,
    pub removed: Vec<(TextSize, String)>,
    pub audience: Vec<(TextSize, String)>,
    pub whole_state: Vec<(TextSize, String)>,
    pub empty_labels: Vec<(TextSize, String)>,
    pub dead: Vec<(TextSize, String)>,
    pub functions: u32,
    pub page_title: bool,
}

/// Walks a module's statements. `used` are the names that any file of the reply reads.
pub(super) fn facts(body: &[Stmt], used: &BTreeSet<String>) -> Facts {
    let mut walk = Walk::empty(used);
    walk.visit_body(body);
    walk.facts
}

/// Every name that is read, and every attribute that is asked for.
pub(super) fn names_used(body: &[Stmt]) -> BTreeSet<String> {
    let mut names = Names::default();
    names.visit_body(body);
    names.used
}

/// Strings that are a statement of their own: docstrings, and text that was commented out.
pub(super) fn unused_strings(body: &[Stmt]) -> Vec<TextRange> {
    let mut strings = Strings::default();
    strings.visit_body(body);
    strings.found
}

#[derive(Default)]
struct Strings {
    found: Vec<TextRange>,
    depth: usize,
}

impl<'a> Visitor<'a> for Strings {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if let Stmt::Expr(expr) = stmt
            && expr.value.is_string_literal_expr()
        {
            self.found.push(expr.range());
        }
        if self.depth < DEPTH {
            self.depth += 1;
            visitor::walk_stmt(self, stmt);
            self.depth -= 1;
        }
    }

    fn visit_expr(&mut self, _: &'a Expr) {}
}

#[derive(Default)]
struct Names {
    used: BTreeSet<String>,
    depth: usize,
}

impl<'a> Visitor<'a> for Names {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if self.depth < DEPTH {
            self.depth += 1;
            visitor::walk_stmt(self, stmt);
            self.depth -= 1;
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) if name.ctx.is_load() => {
                self.used.insert(name.id.to_string());
            }
            Expr::Attribute(attribute) => {
                self.used.insert(attribute.attr.to_string());
            }
            _ => {}
        }
        if self.depth < DEPTH {
            self.depth += 1;
            visitor::walk_expr(self, expr);
            self.depth -= 1;
        }
    }

    fn visit_alias(&mut self, alias: &'a ruff_python_ast::Alias) {
        self.used.insert(alias.name.to_string());
    }
}

struct Walk<'u> {
    facts: Facts,
    used: &'u BTreeSet<String>,
    /// Names bound to modules, with the module.
    modules: BTreeMap<String, String>,
    /// Names imported from Streamlit, with the command.
    commands: BTreeMap<String, String>,
    /// Names bound to columns, tabs and the like.
    containers: BTreeSet<String>,
    /// Names bound to the session state.
    states: BTreeSet<String>,
    /// Session states of which one value is asked for.
    parts: Vec<TextRange>,
    /// Depth of calls that show, or make a text or a number of, what they are given.
    telling: usize,
    depth: usize,
    /// Depth of blocks that can never run.
    dead: usize,
}

impl<'u> Walk<'u> {
    fn empty(used: &'u BTreeSet<String>) -> Self {
        Self {
            facts: Facts::default(),
            used,
            modules: BTreeMap::new(),
            commands: BTreeMap::new(),
            containers: BTreeSet::new(),
            states: BTreeSet::new(),
            parts: Vec::new(),
            telling: 0,
            depth: 0,
            dead: 0,
        }
    }

    fn is_streamlit(&self, expr: &Expr) -> bool {
        expr.as_name_expr().is_some_and(|n| self.modules.get(n.id.as_str()).is_some_and(|m| m == "streamlit"))
    }

    /// `st`, `st.sidebar`, `col`, `cols[0]`, `st.columns(2)[0]`...
    fn takes_elements(&self, expr: &Expr, depth: usize) -> bool {
        if depth > 16 {
            return false;
        }
        match expr {
            Expr::Name(name) => self.is_streamlit(expr) || self.containers.contains(name.id.as_str()),
            Expr::Attribute(attribute) => {
                CONTAINERS.contains(&attribute.attr.as_str())
                    && self.takes_elements(&attribute.value, depth + 1)
            }
            Expr::Subscript(subscript) => self.takes_elements(&subscript.value, depth + 1),
            Expr::Call(call) => self.makes_container(call, depth + 1),
            _ => false,
        }
    }

    fn makes_container(&self, call: &ExprCall, depth: usize) -> bool {
        let name = self.command(call, depth);
        name.is_some_and(|name| CONTAINERS.contains(&name.as_str()))
    }

    /// The Streamlit command that a call is, if it is one.
    fn command(&self, call: &ExprCall, depth: usize) -> Option<String> {
        match call.func.as_ref() {
            Expr::Name(name) => self.commands.get(name.id.as_str()).cloned(),
            Expr::Attribute(attribute) if self.takes_elements(&attribute.value, depth + 1) => {
                Some(attribute.attr.to_string())
            }
            _ => None,
        }
    }

    fn import(&mut self, module: &str, name: &str, at: TextSize) {
        self.facts.imports.push(module.to_owned());
        self.modules.insert(name.to_owned(), module.to_owned());
        self.facts.streamlit |= module == "streamlit" || module.starts_with("streamlit.");
        self.forbid_module(module, at);
    }

    fn forbid_module(&mut self, module: &str, at: TextSize) {
        let within = |forbidden: &&&str| {
            module == **forbidden
                || module.strip_prefix(**forbidden).is_some_and(|rest| rest.starts_with('.'))
        };
        if FORBIDDEN_MODULES.iter().find(within).is_some() {
            self.tamper(at, format!("imports `{module}`, which a user interface has no use for: remove it"));
        }
    }

    fn tamper(&mut self, at: TextSize, message: String) {
        self.facts.tamper.push((at, message));
    }

    fn import_from(&mut self, import: &ruff_python_ast::StmtImportFrom) {
        let Some(module) = import.module.as_ref().filter(|_| import.level == 0) else { return };
        let module = module.as_str();
        self.facts.imports.push(module.to_owned());
        self.facts.streamlit |= module == "streamlit" || module.starts_with("streamlit.");
        self.forbid_module(module, import.range.start());
        for alias in &import.names {
            let name = alias.asname.as_ref().unwrap_or(&alias.name).to_string();
            if module == "streamlit" {
                self.forbid_module(&format!("streamlit.{}", alias.name), alias.range.start());
                self.note_removed(alias.name.as_str(), alias.range.start());
                if alias.name.as_str() == "context" {
                    self.reads_audience(alias.range.start());
                }
                if alias.name.as_str() == "session_state" {
                    self.states.insert(name.clone());
                }
                if alias.name.as_str() == "sidebar" {
                    self.containers.insert(name.clone());
                }
                self.commands.insert(name, alias.name.to_string());
            } else if module == "os" && FORBIDDEN_OS.contains(&alias.name.as_str()) {
                self.tamper(alias.range.start(), format!("imports `os.{}`: remove it", alias.name));
            }
        }
    }

    fn note_removed(&mut self, name: &str, at: TextSize) {
        let old = REMOVED.iter().find(|(old, _)| *old == name);
        if let Some((old, new)) = old {
            self.facts.removed.push((at, format!("`st.{old}` is no longer in Streamlit: use {new}")));
        }
    }

    fn reads_audience(&mut self, at: TextSize) {
        let message = "reads `st.context`, by which an app can tell who looks at it".to_owned();
        self.facts.audience.push((at, message));
    }

    /// The session state as a whole, by any name.
    fn is_state(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Attribute(a) => a.attr.as_str() == "session_state" && self.is_streamlit(&a.value),
            Expr::Name(name) => self.states.contains(name.id.as_str()),
            _ => false,
        }
    }

    /// Notes a state of which one value is asked for, and one that is told as a whole.
    fn state(&mut self, expr: &Expr) {
        let part = match expr {
            Expr::Attribute(a) if !WHOLE.contains(&a.attr.as_str()) => Some(a.value.as_ref()),
            Expr::Subscript(subscript) => Some(subscript.value.as_ref()),
            // `name in st.session_state`
            Expr::Compare(compare) => compare.comparators.last(),
            _ => None,
        };
        self.parts.extend(part.filter(|inner| self.is_state(inner)).map(Ranged::range));
        if self.telling > 0 && self.is_state(expr) && !self.parts.contains(&expr.range()) {
            let message = "shows the whole session state, which changes with everything".to_owned();
            self.facts.whole_state.push((expr.range().start(), message));
        }
    }

    /// Whether an expression shows, or makes a text or a number of, what it is given.
    fn tells(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Call(call) => {
                let shows = self.command(call, 0).is_some_and(|name| !SILENT.contains(&name.as_str()));
                let makes = match call.func.as_ref() {
                    Expr::Name(name) => TELLING.contains(&name.id.as_str()),
                    Expr::Attribute(f) => TELLING.contains(&f.attr.as_str()),
                    _ => false,
                };
                shows || makes
            }
            Expr::FString(_) => true,
            _ => false,
        }
    }

    fn call(&mut self, call: &ExprCall) {
        self.check_reach(call);
        let Some(name) = self.command(call, 0) else {
            self.facts.other_calls.extend(called(call).filter(|_| self.dead == 0));
            return;
        };
        self.note_removed(&name, call.range().start());
        if name == "set_page_config" {
            self.facts.page_title |= argument(call, "page_title", 0).is_some();
        }
        let label = ["label", "body"].iter().find_map(|key| argument(call, key, 0)).and_then(text);
        let dead = self.dead > 0;
        if LABELLED.contains(&name.as_str()) && label.as_deref().is_some_and(|l| l.trim().is_empty()) {
            let message = format!("this {} has an empty label: name it", name.replace('_', " "));
            self.facts.empty_labels.push((call.range().start(), message));
        }
        if !SILENT.contains(&name.as_str()) {
            let path = format!("st.{name}");
            self.facts.calls.push(CallAt { path, label, offset: call.range().start(), dead });
        }
    }

    /// What a user interface has no business with.
    fn check_reach(&mut self, call: &ExprCall) {
        let at = call.range().start();
        match call.func.as_ref() {
            Expr::Name(name) if FORBIDDEN_CALLS.contains(&name.id.as_str()) => {
                self.tamper(
                    at,
                    format!("calls `{}`, which runs text as code: write the code itself", name.id),
                );
            }
            Expr::Attribute(f)
                if FORBIDDEN_OS.contains(&f.attr.as_str()) && self.is_module(&f.value, "os") =>
            {
                self.tamper(at, format!("calls `os.{}`: remove it", f.attr));
            }
            _ => {}
        }
        let script = argument(call, "unsafe_allow_javascript", usize::MAX);
        if script.is_some_and(|value| value.as_boolean_literal_expr().is_some_and(|b| b.value)) {
            self.tamper(at, "runs JavaScript in the page: remove `unsafe_allow_javascript`".to_owned());
        }
    }

    fn is_module(&self, expr: &Expr, module: &str) -> bool {
        expr.as_name_expr().is_some_and(|n| self.modules.get(n.id.as_str()).is_some_and(|m| m == module))
    }

    /// `module.name = ...` changes what others see.
    fn check_target(&mut self, target: &Expr) {
        let Expr::Attribute(attribute) = target else { return };
        let Some(name) = attribute.value.as_name_expr() else { return };
        if self.modules.contains_key(name.id.as_str()) {
            let message =
                format!("assigns to `{}.{}`, a part of a module: remove it", name.id, attribute.attr);
            self.tamper(target.range().start(), message);
        }
    }

    /// Names that a statement binds to columns, tabs and the like.
    fn bind(&mut self, target: &Expr, value: &Expr) {
        if !self.mentions_container(value, 0) {
            return;
        }
        let mut names = Vec::new();
        bound(target, &mut names, 0);
        self.containers.extend(names);
    }

    fn mentions_container(&self, value: &Expr, depth: usize) -> bool {
        let inner = |value: &Expr| depth < 8 && self.mentions_container(value, depth + 1);
        match value {
            Expr::Call(call) if self.makes_container(call, depth) => true,
            // `zip(columns, ...)` and `enumerate(st.columns(3))` hand out what they were given.
            Expr::Call(call) => {
                let hands_out = |n: &str| ["zip", "enumerate", "list", "iter", "reversed"].contains(&n);
                call.func.as_name_expr().is_some_and(|name| hands_out(name.id.as_str()))
                    && call.arguments.args.iter().any(inner)
            }
            Expr::List(list) => list.elts.iter().any(inner),
            Expr::Tuple(tuple) => tuple.elts.iter().any(inner),
            Expr::Name(_) => !self.is_streamlit(value) && self.takes_elements(value, 0),
            Expr::Attribute(_) | Expr::Subscript(_) => self.takes_elements(value, 0),
            _ => false,
        }
    }

    fn function(&mut self, function: &StmtFunctionDef) -> bool {
        self.facts.functions += 1;
        let name = function.name.as_str();
        let decorated = !function.decorator_list.is_empty();
        let called = self.used.contains(name) || decorated || name.starts_with("__");
        if !called {
            let message = format!("`{name}` is never called: call it or remove it");
            self.facts.dead.push((function.range().start(), message));
        }
        called
    }

    fn suite(&mut self, body: &[Stmt]) {
        let mut ended = 0;
        for stmt in body {
            self.visit_stmt(stmt);
            if ended == 0 && ends(stmt) && self.dead == 0 {
                ended = 1;
                self.dead += 1;
                if !std::ptr::eq(stmt, &raw const body[body.len() - 1]) {
                    let message = "what follows can never run: remove it".to_owned();
                    self.facts.dead.push((stmt.range().end(), message));
                }
            }
        }
        self.dead -= ended;
    }

    fn never(&mut self, body: &[Stmt], at: TextSize) {
        self.facts.dead.push((at, "this block can never run: remove it or mend its condition".to_owned()));
        self.dead += 1;
        self.suite(body);
        self.dead -= 1;
    }
}

impl<'a> Visitor<'a> for Walk<'_> {
    fn visit_body(&mut self, body: &'a [Stmt]) {
        self.suite(body);
    }

    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if self.depth >= DEPTH {
            return;
        }
        self.depth += 1;
        match stmt {
            Stmt::Import(import) => {
                for alias in &import.names {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
                    let root =
                        if alias.asname.is_some() { name } else { name.split('.').next().unwrap_or(name) };
                    self.import(alias.name.as_str(), root, alias.range.start());
                }
            }
            Stmt::ImportFrom(import) => self.import_from(import),
            Stmt::FunctionDef(function) => {
                let live = self.function(function);
                self.dead += usize::from(!live);
                visitor::walk_stmt(self, stmt);
                self.dead -= usize::from(!live);
            }
            Stmt::If(branch) if is_false(&branch.test) => {
                self.never(&branch.body, stmt.range().start());
                branch.elif_else_clauses.iter().for_each(|clause| self.suite(&clause.body));
            }
            Stmt::While(branch) if is_false(&branch.test) => {
                self.never(&branch.body, stmt.range().start());
            }
            _ => {
                self.binding(stmt);
                visitor::walk_stmt(self, stmt);
            }
        }
        self.depth -= 1;
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if self.depth >= DEPTH {
            return;
        }
        self.depth += 1;
        match expr {
            Expr::Call(call) => self.call(call),
            Expr::StringLiteral(literal) => {
                let secret = secrets::given_away(literal.value.to_str());
                self.facts.secrets.extend(secret.map(|message| (literal.range().start(), message)));
            }
            Expr::Attribute(a) if a.attr.as_str() == "modules" && self.is_module(&a.value, "sys") => {
                self.tamper(expr.range().start(), "reaches into `sys.modules`: remove it".to_owned());
            }
            // A decorator such as `@st.cache` is no call.
            Expr::Attribute(a) if self.is_streamlit(&a.value) && a.attr.as_str() == "cache" => {
                self.note_removed("cache", expr.range().start());
            }
            Expr::Attribute(a) if self.is_streamlit(&a.value) && a.attr.as_str() == "context" => {
                self.reads_audience(expr.range().start());
            }
            _ => {}
        }
        self.state(expr);
        let tells = usize::from(self.tells(expr));
        self.telling += tells;
        visitor::walk_expr(self, expr);
        self.telling -= tells;
        self.depth -= 1;
    }
}

impl Walk<'_> {
    fn binding(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Assign(assign) => {
                assign.targets.iter().for_each(|target| {
                    self.check_target(target);
                    self.bind(target, &assign.value);
                });
                if self.is_state(&assign.value) {
                    let names = assign.targets.iter().filter_map(Expr::as_name_expr);
                    self.states.extend(names.map(|name| name.id.to_string()));
                }
            }
            Stmt::AugAssign(assign) => self.check_target(&assign.target),
            Stmt::For(each) => self.bind(&each.target, &each.iter),
            Stmt::With(with) => {
                for item in &with.items {
                    if let Some(name) = &item.optional_vars {
                        self.bind(name, &item.context_expr);
                    }
                }
            }
            _ => {}
        }
    }
}

fn bound(target: &Expr, names: &mut Vec<String>, depth: usize) {
    match target {
        Expr::Name(name) => names.push(name.id.to_string()),
        Expr::Starred(starred) if depth < 8 => bound(&starred.value, names, depth + 1),
        Expr::Tuple(tuple) if depth < 8 => tuple.elts.iter().for_each(|e| bound(e, names, depth + 1)),
        Expr::List(list) if depth < 8 => list.elts.iter().for_each(|e| bound(e, names, depth + 1)),
        _ => {}
    }
}

fn is_false(test: &Expr) -> bool {
    match test {
        Expr::BooleanLiteral(literal) => !literal.value,
        Expr::NumberLiteral(literal) => matches!(
            &literal.value,
            ruff_python_ast::Number::Int(int) if int.as_u8() == Some(0)
        ),
        Expr::NoneLiteral(_) => true,
        Expr::StringLiteral(literal) => literal.value.is_empty(),
        _ => false,
    }
}

/// Nothing after this statement in the same block runs.
fn ends(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Return(_) | Stmt::Raise(_) | Stmt::Break(_) | Stmt::Continue(_) => true,
        Stmt::Expr(expr) => match expr.value.as_ref() {
            Expr::Call(call) => call.func.as_attribute_expr().is_some_and(|f| {
                f.value.as_name_expr().is_some_and(|n| {
                    (n.id.as_str() == "st" && f.attr.as_str() == "stop")
                        || (n.id.as_str() == "sys" && f.attr.as_str() == "exit")
                })
            }),
            _ => false,
        },
        _ => false,
    }
}

/// The name that is called, without what it belongs to.
fn called(call: &ExprCall) -> Option<String> {
    match call.func.as_ref() {
        Expr::Name(name) => Some(name.id.to_string()),
        Expr::Attribute(attribute) => Some(attribute.attr.to_string()),
        _ => None,
    }
}

/// A call's argument by name or, when it is not past `position`, by position.
fn argument<'a>(call: &'a ExprCall, name: &str, position: usize) -> Option<&'a Expr> {
    call.arguments.find_argument_value(name, position)
}

fn text(expr: &Expr) -> Option<String> {
    expr.as_string_literal_expr().map(|literal| literal.value.to_str().to_owned())
}
