//! What a habit asks of a reply's source, without the facts that a score needs: for files of a hundred thousand replies.

use ruff_python_ast::Mod;
use ruff_python_parser::Parsed;

use super::{Source, body, config, is_python, parse};
use crate::agent::{SourceFile, imports_streamlit};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Python with Streamlit.
    Ui,
    Config,
    /// Anything else.
    Other,
}

/// A reply's files, looked at quickly.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Glance {
    /// Of each file, in the reply's order.
    pub natures: Vec<Nature>,
    /// The first Python file that does not parse: its place, and why.
    pub broken: Option<(String, String)>,
    /// A Python file larger than [`super::SOURCE_CAP`] that was not read.
    pub unread: bool,
    /// Share of the lines that is configuration, as [`super::super::Statics::config_share`] has it.
    pub config_share: f64,
}

/// To be called with the stack of [`super::STACK`].
pub(crate) fn glance(files: &[SourceFile]) -> Glance {
    let parsed: Vec<_> = files.iter().map(parse).collect();
    let pairs = || files.iter().zip(&parsed);
    let mut glance = Glance {
        natures: pairs().map(|(file, parsed)| nature(file, parsed.as_ref())).collect(),
        broken: pairs().find_map(|(file, parsed)| broken(file, parsed.as_ref()?)),
        unread: pairs().any(|(file, parsed)| parsed.is_none() && is_python(file)),
        config_share: 0.0,
    };
    let settings = |parsed: &Option<Parsed<Mod>>| {
        parsed.as_ref().is_some_and(|parsed| config::constants(body(parsed)).next().is_some())
    };
    if glance.natures.contains(&Nature::Config) || parsed.iter().any(settings) {
        glance.config_share = config_share(files, parsed, &glance.natures);
    }
    glance
}

fn nature(file: &SourceFile, parsed: Option<&Parsed<Mod>>) -> Nature {
    match parsed {
        None if config::is_config_file(&file.path) => Nature::Config,
        Some(_) if imports_streamlit(&file.content) => Nature::Ui,
        Some(parsed) if parsed.has_valid_syntax() && config::is_config_module(&file.path, body(parsed)) => {
            Nature::Config
        }
        _ => Nature::Other,
    }
}

fn broken(file: &SourceFile, parsed: &Parsed<Mod>) -> Option<(String, String)> {
    let error = parsed.errors().first()?;
    let line = 1 + file.content[..error.location.start().to_usize()].matches('\n').count();
    Some((format!("{}:{line}", file.path), error.error.to_string()))
}

/// Counting lines of code costs as much as parsing: it is done only where something is configuration.
fn config_share(files: &[SourceFile], parsed: Vec<Option<Parsed<Mod>>>, natures: &[Nature]) -> f64 {
    let sources = files.iter().zip(parsed).map(|(file, parsed)| Source::with(file, parsed));
    let (mut config, mut all) = (0u32, 0u32);
    for (source, nature) in sources.zip(natures) {
        config += source.config_lines(*nature == Nature::Ui);
        all += source.filled(0..usize::MAX);
    }
    f64::from(config) / f64::from(all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{on_deep_stack, statics::read};

    fn file(path: &str, content: &str) -> SourceFile {
        SourceFile { path: path.into(), content: content.into() }
    }

    /// Checks that the quick look tells what the full facts tell.
    #[track_caller]
    fn check(files: &[SourceFile]) -> Glance {
        let (seen, full) = on_deep_stack(|| (glance(files), read(files))).unwrap();
        assert_eq!(seen.config_share, full.config_share(), "{files:?}");
        let broken = full.files.iter().any(|file| file.python && !file.parses);
        assert_eq!(seen.broken.is_some(), broken, "{files:?}");
        for (nature, full) in seen.natures.iter().zip(&full.files) {
            assert!(*nature == Nature::Ui || !full.ui, "{files:?}: {full:?}");
            assert!(*nature != Nature::Config || full.config_lines == full.lines, "{files:?}: {full:?}");
        }
        seen
    }

    #[test]
    fn it_tells_what_the_full_facts_tell() {
        let app = "import streamlit as st\nTITLE = \"A\"\nst.title(TITLE)\n";
        let mixed = [
            file("requirements.txt", "streamlit\npandas\n"),
            file("config.py", "DEBUG = True\nPORT = 80\n"),
            file("app.py", app),
            file("helpers.py", "def f():\n    return 1\n"),
        ];
        let natures = check(&mixed).natures;
        assert_eq!(natures, [Nature::Config, Nature::Config, Nature::Ui, Nature::Other]);
        let broken = check(&[file("app.py", "import streamlit as st\nst.title(\n")]).broken.unwrap();
        assert!(broken.0.starts_with("app.py:") && !broken.1.is_empty(), "{broken:?}");
        check(&[file("app.py", app)]);
        check(&[]);
    }

    #[test]
    fn it_agrees_on_the_apps_of_the_critic() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/design/critic-apps");
        let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let apps: Vec<_> = folders.filter(|path| path.is_dir()).collect();
        assert!(apps.len() >= 15);
        for app in apps {
            let entries = std::fs::read_dir(app).unwrap().map(|entry| entry.unwrap().path());
            let mut paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
            paths.sort();
            let of = |path: &std::path::PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                file(name, &std::fs::read_to_string(path).unwrap())
            };
            check(&paths.iter().map(of).collect::<Vec<_>>());
        }
    }
}
