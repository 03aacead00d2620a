//! What a block is written in: by its tag, its path, or its content.

use super::unfenced;

/// A language as far as naming and reading a block depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Toml,
    Requirements,
    Yaml,
    Json,
    Css,
    Html,
    Markdown,
    Sql,
    Csv,
    Ini,
    JavaScript,
    Docker,
    /// Commands to type and what they print: no file unless the reply names one.
    Shell,
    /// No tag, or one that says nothing.
    Unknown,
}

impl Language {
    /// The path of a block that has none, when it is the first of its language.
    pub fn default_path(self, content: &str) -> &'static str {
        match self {
            Self::Python => "script.py",
            Self::Toml if content.contains("[theme]") || content.contains("[server]") => {
                ".streamlit/config.toml"
            }
            Self::Toml => "config.toml",
            Self::Requirements => "requirements.txt",
            Self::Yaml => "config.yaml",
            Self::Json => "data.json",
            Self::Css => "style.css",
            Self::Html => "index.html",
            Self::Markdown => "README.md",
            Self::Sql => "query.sql",
            Self::Csv => "data.csv",
            Self::Ini => "config.ini",
            Self::JavaScript => "script.js",
            Self::Docker => "Dockerfile",
            Self::Shell => "run.sh",
            Self::Unknown => "notes.txt",
        }
    }

    /// Whether a block without a name is a file at all.
    pub fn is_a_file(self) -> bool {
        !matches!(self, Self::Shell | Self::Unknown)
    }
}

/// The language of a fence's tag; `None` for a word that is no tag.
pub(super) fn of_tag(tag: &str) -> Option<Language> {
    let tag = tag.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    Some(match tag.as_str() {
        "python" | "py" | "python3" | "py3" | "streamlit" | "python2" | "pycon" | "ipython" | "st" => {
            Language::Python
        }
        "toml" => Language::Toml,
        "requirements" | "pip" | "requirements.txt" => Language::Requirements,
        "yaml" | "yml" => Language::Yaml,
        "json" | "jsonc" | "json5" => Language::Json,
        "css" | "scss" => Language::Css,
        "html" | "xml" | "htm" | "svg" => Language::Html,
        "markdown" | "md" | "mdx" => Language::Markdown,
        "sql" => Language::Sql,
        "csv" | "tsv" => Language::Csv,
        "ini" | "cfg" | "conf" | "env" | "dotenv" | "properties" => Language::Ini,
        "javascript" | "js" | "typescript" | "ts" | "jsx" | "tsx" => Language::JavaScript,
        "dockerfile" | "docker" => Language::Docker,
        "bash" | "sh" | "shell" | "zsh" | "console" | "terminal" | "cmd" | "powershell" | "ps1" | "bat"
        | "output" | "log" | "shellsession" | "diff" | "mermaid" | "tree" => Language::Shell,
        "text" | "txt" | "plaintext" | "plain" | "code" | "none" => Language::Unknown,
        _ => return None,
    })
}

/// The language of a file by its path.
pub(super) fn of_path(path: &str) -> Language {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path).to_ascii_lowercase();
    match name.rsplit_once('.').map_or(name.as_str(), |(_, extension)| extension) {
        "py" | "pyi" => Language::Python,
        "toml" | "lock" => Language::Toml,
        "txt" if name.starts_with("requirements") => Language::Requirements,
        "yaml" | "yml" => Language::Yaml,
        "json" | "ipynb" => Language::Json,
        "css" | "scss" => Language::Css,
        "html" | "htm" | "svg" | "xml" => Language::Html,
        "md" | "rst" => Language::Markdown,
        "sql" => Language::Sql,
        "csv" | "tsv" => Language::Csv,
        "ini" | "cfg" | "env" | "conf" | "example" => Language::Ini,
        "js" | "ts" | "jsx" | "tsx" => Language::JavaScript,
        "dockerfile" => Language::Docker,
        "sh" | "bat" => Language::Shell,
        _ => Language::Unknown,
    }
}

/// The tag that a fence around a file carries.
pub(crate) fn tag_of_path(path: &str) -> &'static str {
    match of_path(path) {
        Language::Python => "python",
        Language::Toml => "toml",
        Language::Yaml => "yaml",
        Language::Json => "json",
        Language::Css => "css",
        Language::Html => "html",
        Language::Markdown => "markdown",
        Language::Sql => "sql",
        Language::Csv => "csv",
        Language::Ini => "ini",
        Language::JavaScript => "javascript",
        Language::Docker => "dockerfile",
        Language::Shell => "bash",
        Language::Requirements | Language::Unknown => "text",
    }
}

/// The language of a block without tag and name.
pub(super) fn of_content(content: &str) -> Language {
    if unfenced::is_python(content) {
        return Language::Python;
    }
    let start = content.trim_start();
    let lower: String = start.chars().take(20).collect::<String>().to_ascii_lowercase();
    if lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<div") {
        Language::Html
    } else if is_requirements(content) {
        Language::Requirements
    } else if start.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(content).is_ok()
    {
        Language::Json
    } else if is_toml(content) {
        Language::Toml
    } else {
        Language::Unknown
    }
}

/// Every line is a package, and at least one has a version or is Streamlit.
pub(super) fn is_requirements(content: &str) -> bool {
    let mut telling = false;
    for line in content.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name_end =
            line.find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))).unwrap_or(line.len());
        let (name, version) = line.split_at(name_end);
        let version = version.trim_start();
        if name.is_empty() || !(version.is_empty() || version.starts_with(['=', '>', '<', '~', '!', '['])) {
            return false;
        }
        // `key = value` is a setting, `name==1.0` a requirement.
        if version.starts_with('=') && !version.starts_with("==") {
            return false;
        }
        telling |= !version.is_empty() || name == "streamlit";
    }
    telling
}

fn is_toml(content: &str) -> bool {
    let mut lines = content.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.next().is_some_and(|l| l.starts_with('[') && l.ends_with(']')) && lines.any(|l| l.contains(" = "))
}
