//! What of a reply is configuration: files that are by their name, Python modules that only set constants, and constants
//! on top of an app.
//!
//! Sample data is not configuration: an app may carry the rows that it shows.

use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::{Ranged, TextRange};

/// Names that are configuration whatever they contain.
const FILES: &[&str] = &[
    "dockerfile",
    "makefile",
    "procfile",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "pipfile",
    "setup.cfg",
    "docker-compose.yml",
    "config.json",
    "settings.json",
    ".gitignore",
    ".dockerignore",
];
const EXTENSIONS: &[&str] =
    &["toml", "yaml", "yml", "ini", "cfg", "conf", "env", "lock", "properties", "sh", "bat", "editorconfig"];
/// Words in a Python module's name, or in a constant's, that say what it is for.
const WORDS: &[&str] = &["config", "settings", "constants", "environ", "options", "conf"];

/// Configuration by its name: `requirements.txt`, `.env`, `pyproject.toml`, `Dockerfile`...
pub(super) fn is_config_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let requirements = name.starts_with("requirements") && name.ends_with(".txt");
    FILES.contains(&name.as_str())
        || requirements
        || name.starts_with(".env")
        || name.starts_with("dockerfile")
        || extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// A module that sets constants and does nothing else.
pub(super) fn is_config_module(path: &str, body: &[Stmt]) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    if name == "setup.py" {
        return true;
    }
    let sets = body.iter().filter(|stmt| is_setting(stmt)).count();
    let only = body.iter().all(|stmt| is_setting(stmt) || is_frame(stmt));
    let named = WORDS.iter().any(|word| name.contains(word));
    let scalar = body.iter().filter(|stmt| is_scalar_setting(stmt)).count();
    only && sets > 0 && (named || 2 * scalar > sets)
}

/// Constants that configure, among an app's own statements before it begins to do something.
pub(super) fn constants(body: &[Stmt]) -> impl Iterator<Item = TextRange> {
    let top = body.iter().take_while(|stmt| is_setting(stmt) || is_frame(stmt) || is_page_config(stmt));
    top.filter(|stmt| is_scalar_setting(stmt) || is_config_class(stmt) || is_named_config(stmt))
        .map(Ranged::range)
}

/// Imports, texts and passes: what surrounds settings.
fn is_frame(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Import(_) | Stmt::ImportFrom(_) | Stmt::Pass(_) => true,
        Stmt::Expr(expr) => expr.value.is_string_literal_expr() || is_load_dotenv(&expr.value),
        _ => false,
    }
}

fn is_load_dotenv(expr: &Expr) -> bool {
    let Expr::Call(call) = expr else { return false };
    call.func.as_name_expr().is_some_and(|name| name.id.as_str() == "load_dotenv")
}

fn is_page_config(stmt: &Stmt) -> bool {
    let Stmt::Expr(expr) = stmt else { return false };
    let Expr::Call(call) = expr.value.as_ref() else { return false };
    call.func.as_attribute_expr().is_some_and(|f| f.attr.as_str() == "set_page_config")
}

fn is_setting(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::ClassDef(_) => is_config_class(stmt),
        _ => assigned(stmt).is_some_and(|(_, value)| is_constant(value, 0)),
    }
}

/// A class whose body only sets constants.
fn is_config_class(stmt: &Stmt) -> bool {
    let Stmt::ClassDef(class) = stmt else { return false };
    class.body.iter().all(|stmt| is_setting(stmt) || is_frame(stmt))
        && class.body.iter().any(|stmt| assigned(stmt).is_some())
}

fn is_scalar_setting(stmt: &Stmt) -> bool {
    let scalar = |value: &Expr| is_constant(value, 0) && !is_collection(value);
    assigned(stmt).is_some_and(|(name, value)| is_constant_name(name) && scalar(value))
}

fn is_named_config(stmt: &Stmt) -> bool {
    let named = |name: &str| WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word));
    assigned(stmt).is_some_and(|(name, value)| named(name) && is_collection(value) && is_constant(value, 0))
}

/// `NAME`, as constants are written.
fn is_constant_name(name: &str) -> bool {
    !name.chars().any(char::is_lowercase)
}

fn is_collection(value: &Expr) -> bool {
    matches!(value, Expr::List(_) | Expr::Dict(_) | Expr::Tuple(_) | Expr::Set(_))
}

fn assigned(stmt: &Stmt) -> Option<(&str, &Expr)> {
    match stmt {
        Stmt::Assign(assign) => match assign.targets.as_slice() {
            [Expr::Name(name)] => Some((name.id.as_str(), &assign.value)),
            _ => None,
        },
        Stmt::AnnAssign(assign) => match (assign.target.as_ref(), &assign.value) {
            (Expr::Name(name), Some(value)) => Some((name.id.as_str(), value)),
            _ => None,
        },
        _ => None,
    }
}

/// Literals, and reads of the environment and of paths, which stand for literals.
fn is_constant(value: &Expr, depth: usize) -> bool {
    let inner = |value: &Expr| depth < 32 && is_constant(value, depth + 1);
    match value {
        Expr::StringLiteral(_)
        | Expr::BytesLiteral(_)
        | Expr::NumberLiteral(_)
        | Expr::BooleanLiteral(_)
        | Expr::NoneLiteral(_)
        | Expr::Name(_)
        | Expr::Attribute(_)
        | Expr::FString(_) => true,
        Expr::UnaryOp(unary) => inner(&unary.operand),
        Expr::BinOp(binary) => inner(&binary.left) && inner(&binary.right),
        Expr::List(list) => list.elts.iter().all(inner),
        Expr::Tuple(tuple) => tuple.elts.iter().all(inner),
        Expr::Set(set) => set.elts.iter().all(inner),
        Expr::Dict(dict) => dict.items.iter().all(|item| inner(&item.value)),
        Expr::Subscript(subscript) => inner(&subscript.value),
        Expr::Call(call) => is_lookup(&call.func) && call.arguments.args.iter().all(inner),
        _ => false,
    }
}

/// `os.getenv`, `os.environ.get`, `Path`, `int` and the like.
fn is_lookup(func: &Expr) -> bool {
    match func {
        Expr::Name(name) => {
            ["int", "str", "float", "bool", "Path", "getenv", "dict", "list"].contains(&name.id.as_str())
        }
        Expr::Attribute(attribute) => {
            ["getenv", "get", "join", "dirname", "Path"].contains(&attribute.attr.as_str())
        }
        _ => false,
    }
}
