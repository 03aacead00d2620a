//! An app as people keep it: a file, or a folder with modules, pages and data beside it.
//!
//! Reading never hangs and never leaves the folder: pipes and devices are refused, links are followed only to files within, and
//! there are limits on everything. What is left out is said.

mod needs;

use std::{
    collections::VecDeque,
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

use crate::{
    agent::{Candidate, SourceFile, imports_streamlit},
    error::{Explain, Kind},
    store::StoreError,
};

/// Largest file that is read at all, in bytes.
const LARGEST: u64 = 16 << 20;
/// All files beside the sources together, in bytes: they live in the memory of the sandbox.
const MOST_BYTES: u64 = 24 << 20;
/// Entries of a folder that are looked at.
const MOST_ENTRIES: usize = 5000;
/// Files that go along.
const MOST_FILES: usize = 200;
/// Folders within folders.
const DEEPEST: usize = 8;
/// What the folder of an app may be full of that is no part of it.
const FOREIGN: &[&str] = &["venv", "env", "__pycache__", "node_modules", "site-packages"];
/// What the file that is run is called, most usual first.
const ENTRIES: &[&str] = &["streamlit_app.py", "app.py", "main.py", "Home.py"];

/// An app to be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Project {
    /// Python, the file that is run first.
    pub candidate: Candidate,
    /// Everything else that the app may read.
    pub assets: Vec<Asset>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A file that is no source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Relative path.
    pub path: String,
    pub bytes: Vec<u8>,
}

/// There is no app to judge at a path.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    #[error("`{}` is neither a file nor a folder", .0.display())]
    Special(PathBuf),
    #[error("`{}` is larger than {} MiB", .0.display(), LARGEST >> 20)]
    TooLarge(PathBuf),
    #[error("`{}` is not text in UTF-8: byte {at} cannot be read", path.display())]
    NotText { path: PathBuf, at: usize },
    #[error("`{}` has no Python file", .0.display())]
    NoPython(PathBuf),
    #[error("`{}` has several files that call Streamlit: {}", path.display(), files.join(", "))]
    Ambiguous { path: PathBuf, files: Vec<String> },
    #[error("`{}` has no file `{entry}`", path.display())]
    NoEntry { path: PathBuf, entry: String },
}

impl Explain for ProjectError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            _ => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(e) => return e.hint(),
            Self::Missing(_) | Self::Special(_) => "name a Python file, or the folder of an app".into(),
            Self::TooLarge(_) => "name the app's source; sources are a few kilobytes".into(),
            Self::NotText { .. } => "name a Python file, and save it as UTF-8".into(),
            Self::NoPython(_) => "name the app's file or its folder".into(),
            Self::Ambiguous { .. } => "`--entry FILE` says which one is run".into(),
            Self::NoEntry { .. } => "`--entry` takes a path within the folder".into(),
        })
    }
}

impl Project {
    /// Reads a file, or a folder whose `entry` is run; without one, what it is usually called, or the only file at its top
    /// that imports Streamlit.
    ///
    /// # Errors
    /// There is no app at the path, or it cannot be read.
    pub fn read(path: &Path, entry: Option<&str>) -> Result<Self, ProjectError> {
        let metadata = fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ProjectError::Missing(path.to_owned()),
            _ => StoreError::new("read", path, e).into(),
        })?;
        if metadata.is_dir() {
            return Self::of_folder(path, entry);
        }
        let name =
            path.file_name().map_or_else(|| "app.py".into(), |name| name.to_string_lossy().into_owned());
        let content = text(path, read(path, &metadata)?)?;
        let mut project = Self { candidate: Candidate::single(name, content), ..Self::default() };
        project.notes.extend(pages_beside(path));
        project.take_along(path.parent().filter(|folder| !folder.as_os_str().is_empty()));
        Ok(project)
    }

    /// What a lone file needs of its folder: modules that it imports and files that it names, and what those need in turn.
    fn take_along(&mut self, folder: Option<&Path>) {
        let folder = folder.unwrap_or(Path::new("."));
        let Ok(whole) = fs::canonicalize(folder) else { return };
        let mut room = MOST_BYTES;
        let mut next = 0;
        while next < self.candidate.files.len() {
            let file = &self.candidate.files[next];
            let names = needs::names(&file.path, &file.content);
            next += 1;
            for name in names {
                let taken = self.candidate.files.iter().any(|file| file.path == name)
                    || self.assets.iter().any(|asset| asset.path == name);
                if taken || self.candidate.files.len() + self.assets.len() >= MOST_FILES {
                    continue;
                }
                let path = folder.join(&name);
                let inside = fs::canonicalize(&path).is_ok_and(|path| path.starts_with(&whole));
                let Some(metadata) = fs::metadata(&path).ok().filter(|_| inside) else { continue };
                let Some(bytes) = read(&path, &metadata).ok().filter(|bytes| bytes.len() as u64 <= room)
                else {
                    continue;
                };
                room -= bytes.len() as u64;
                match String::from_utf8(bytes) {
                    Ok(content) if name.ends_with(".py") => {
                        self.candidate.files.push(SourceFile { path: name, content });
                    }
                    Ok(content) => self.assets.push(Asset { path: name, bytes: content.into_bytes() }),
                    Err(e) => self.assets.push(Asset { path: name, bytes: e.into_bytes() }),
                }
            }
        }
    }

    fn of_folder(root: &Path, entry: Option<&str>) -> Result<Self, ProjectError> {
        let mut walk = Walk::over(root)?;
        walk.files.sort();
        let mut project = Self { notes: walk.notes, ..Self::default() };
        let mut room = MOST_BYTES;
        for name in walk.files {
            let path = root.join(&name);
            let metadata = fs::metadata(&path).map_err(|e| StoreError::new("read", &path, e))?;
            if project.candidate.files.len() + project.assets.len() >= MOST_FILES {
                project
                    .notes
                    .push(format!("more than {MOST_FILES} files: the rest is left out, from `{name}` on"));
                break;
            }
            if metadata.len() > room.min(LARGEST) {
                project
                    .notes
                    .push(format!("`{name}` is left out: the files are more than {} MiB", MOST_BYTES >> 20));
                continue;
            }
            let bytes = match read(&path, &metadata) {
                Ok(bytes) => bytes,
                Err(e) => {
                    project.notes.push(format!("`{name}` is left out: {e}"));
                    continue;
                }
            };
            room -= metadata.len().min(room);
            match String::from_utf8(bytes) {
                Ok(content) if name.ends_with(".py") => {
                    project.candidate.files.push(SourceFile { path: name, content });
                }
                Ok(content) => project.assets.push(Asset { path: name, bytes: content.into_bytes() }),
                Err(e) => project.assets.push(Asset { path: name, bytes: e.into_bytes() }),
            }
        }
        let at = project.entry(root, entry)?;
        project.candidate.files[..=at].rotate_right(1);
        Ok(project)
    }

    /// Place of the file that is run.
    fn entry(&self, root: &Path, wanted: Option<&str>) -> Result<usize, ProjectError> {
        let files = &self.candidate.files;
        let place = |name: &str| files.iter().position(|file| file.path == name);
        if let Some(wanted) = wanted {
            let name = wanted.strip_prefix("./").unwrap_or(wanted);
            let no_entry = || ProjectError::NoEntry { path: root.to_owned(), entry: wanted.to_owned() };
            return place(name).ok_or_else(no_entry);
        }
        if let Some(at) = ENTRIES.iter().find_map(|name| place(name)) {
            return Ok(at);
        }
        let top = |at: &usize| !files[*at].path.contains('/');
        let calling: Vec<usize> =
            (0..files.len()).filter(top).filter(|at| imports_streamlit(&files[*at].content)).collect();
        match calling[..] {
            [at] => Ok(at),
            // Nothing imports Streamlit: which file is judged makes no difference.
            [] if files.is_empty() => Err(ProjectError::NoPython(root.to_owned())),
            [] => Ok(0),
            _ => {
                let files = calling.iter().map(|at| files[*at].path.clone()).collect();
                Err(ProjectError::Ambiguous { path: root.to_owned(), files })
            }
        }
    }
}

/// Streamlit finds pages beside the file that is run.
fn pages_beside(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let pages = if folder.as_os_str().is_empty() { PathBuf::from("pages") } else { folder.join("pages") };
    pages
        .is_dir()
        .then(|| format!("`{}` is not looked at: name the folder to judge the whole app", pages.display()))
}

/// The bytes of a regular file of a size that a source can have.
fn read(path: &Path, metadata: &Metadata) -> Result<Vec<u8>, ProjectError> {
    // Opening a pipe waits for whoever writes to it.
    if !metadata.is_file() {
        return Err(ProjectError::Special(path.to_owned()));
    }
    if metadata.len() > LARGEST {
        return Err(ProjectError::TooLarge(path.to_owned()));
    }
    Ok(fs::read(path).map_err(|e| StoreError::new("read", path, e))?)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, ProjectError> {
    String::from_utf8(bytes)
        .map_err(|e| ProjectError::NotText { path: path.to_owned(), at: e.utf8_error().valid_up_to() })
}

/// Names of the files of a folder, relative to it.
struct Walk {
    root: PathBuf,
    files: Vec<String>,
    notes: Vec<String>,
    seen: usize,
}

impl Walk {
    fn over(root: &Path) -> Result<Self, ProjectError> {
        let whole = fs::canonicalize(root).map_err(|e| StoreError::new("read", root, e))?;
        let mut walk = Self { root: whole, files: Vec::new(), notes: Vec::new(), seen: 0 };
        let mut folders = VecDeque::from([(String::new(), 0)]);
        while let Some((folder, depth)) = folders.pop_front() {
            let path = root.join(&folder);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(e) if depth == 0 => return Err(StoreError::new("read", &path, e).into()),
                Err(e) => {
                    walk.notes.push(format!("`{folder}` is left out: {e}"));
                    continue;
                }
            };
            for entry in entries.flatten() {
                walk.seen += 1;
                if walk.seen > MOST_ENTRIES {
                    walk.notes.push(format!("more than {MOST_ENTRIES} files: the rest is left out"));
                    return Ok(walk);
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                let relative = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    let own =
                        !FOREIGN.contains(&name.as_str()) && (!name.starts_with('.') || name == ".streamlit");
                    if own && depth < DEEPEST {
                        folders.push_back((relative, depth + 1));
                    }
                } else if !name.starts_with('.') {
                    walk.file(&entry.path(), relative, kind.is_symlink());
                }
            }
        }
        Ok(walk)
    }

    fn file(&mut self, path: &Path, name: String, link: bool) {
        if name == ".streamlit/secrets.toml" {
            self.notes.push("`.streamlit/secrets.toml` stays where it is: no app gets secrets here".into());
        } else if link && !fs::canonicalize(path).is_ok_and(|to| to.starts_with(&self.root) && to.is_file()) {
            self.notes.push(format!("`{name}` is left out: a link to what is not a file of this folder"));
        } else if !link && !path.is_file() {
            self.notes.push(format!("`{name}` is left out: it is neither a file nor a folder"));
        } else if !name.ends_with(".pyc") {
            self.files.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const APP: &str = "import streamlit as st\nst.title('x')\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn names(project: &Project) -> Vec<&str> {
        project.candidate.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn the_file_that_is_run_comes_first() {
        let check = |files: &[(&str, &str)], entry: Option<&str>, expected: &[&str]| {
            let root = folder(files);
            let project = Project::read(root.path(), entry).unwrap();
            assert_eq!(names(&project), expected);
        };
        check(
            &[("a.py", "x = 1"), ("app.py", APP), ("pages/1_b.py", APP)],
            None,
            &["app.py", "a.py", "pages/1_b.py"],
        );
        check(&[("a.py", "x = 1"), ("tool.py", APP)], None, &["tool.py", "a.py"]);
        check(&[("a.py", APP), ("b.py", APP)], Some("./b.py"), &["b.py", "a.py"]);
        check(&[("app.py", APP), ("src/ui.py", APP)], Some("src/ui.py"), &["src/ui.py", "app.py"]);
        check(&[("a.py", "x = 1")], None, &["a.py"]);
    }

    #[test]
    fn what_has_no_app_is_an_error_with_a_hint() {
        let check = |files: &[(&str, &str)], entry: Option<&str>, expected: &str| {
            let root = folder(files);
            let error = Project::read(root.path(), entry).unwrap_err();
            assert!(error.to_string().contains(expected) && error.hint().is_some(), "{error}");
        };
        check(&[], None, "no Python file");
        check(&[("data.csv", "a,b")], None, "no Python file");
        check(&[("a.py", APP), ("b.py", APP)], None, "a.py, b.py");
        check(&[("app.py", APP)], Some("../app.py"), "no file `../app.py`");
        let root = folder(&[("app.py", APP)]);
        fs::write(root.path().join("bad.py"), [b'x', b' ', 0xff]).unwrap();
        let error = Project::read(&root.path().join("bad.py"), None).unwrap_err().to_string();
        assert!(error.contains("byte 2 cannot be read"), "{error}");
        assert!(Project::read(&root.path().join("none.py"), None).is_err());
    }

    #[test]
    fn a_lone_file_takes_along_what_it_needs() {
        let root = folder(&[
            (
                "app.py",
                "import streamlit as st\nfrom helpers import total\nimport parts.table as t\nst.write(open('data/a.csv'))\n",
            ),
            ("helpers.py", "from deeper import x\nBAD = '../../etc/passwd'\n"),
            ("deeper.py", "x = 1\n"),
            ("parts/__init__.py", ""),
            ("parts/table.py", "from . import cells\nfrom .cells import y\n"),
            ("parts/cells.py", "y = 1\n"),
            ("data/a.csv", "a,b\n"),
            ("data/other.csv", "a,b\n"),
            ("unrelated.py", "x = 1\n"),
        ]);
        symlink("/etc/passwd", root.path().join("streamlit.py")).unwrap();
        let project = Project::read(&root.path().join("app.py"), None).unwrap();
        let mut files = names(&project);
        assert_eq!(files.remove(0), "app.py");
        files.sort_unstable();
        assert_eq!(
            files,
            ["deeper.py", "helpers.py", "parts/__init__.py", "parts/cells.py", "parts/table.py"]
        );
        assert_eq!(project.assets.iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), ["data/a.csv"]);
    }

    #[test]
    fn other_files_go_along_as_they_are() {
        let root = folder(&[
            ("app.py", APP),
            ("data/a.csv", "a,b"),
            (".streamlit/config.toml", "[theme]"),
            (".streamlit/secrets.toml", "key = 1"),
            (".git/config", "x"),
            (".env", "KEY=1"),
            ("venv/lib/x.py", "x"),
            ("__pycache__/app.pyc", "x"),
        ]);
        fs::write(root.path().join("pixel.png"), [0x89, 0xff]).unwrap();
        let project = Project::read(root.path(), None).unwrap();
        let assets: Vec<&str> = project.assets.iter().map(|asset| asset.path.as_str()).collect();
        assert_eq!(assets, [".streamlit/config.toml", "data/a.csv", "pixel.png"]);
        assert_eq!(names(&project), ["app.py"]);
        assert!(project.notes.len() == 1 && project.notes[0].contains("secrets.toml"), "{:?}", project.notes);
    }

    #[test]
    fn links_and_pipes_lead_nowhere() {
        let root = folder(&[("app.py", APP), ("part.py", "x = 1")]);
        let inside = root.path();
        symlink("/etc/passwd", inside.join("passwd.py")).unwrap();
        symlink(inside, inside.join("loop")).unwrap();
        symlink("nowhere", inside.join("gone.py")).unwrap();
        symlink(inside.join("part.py"), inside.join("same.py")).unwrap();
        let pipe = inside.join("pipe.py");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let project = Project::read(inside, None).unwrap();
        assert_eq!(names(&project), ["app.py", "part.py", "same.py"]);
        assert_eq!(project.notes.len(), 4, "{:?}", project.notes);
        assert!(matches!(Project::read(&pipe, None), Err(ProjectError::Special(_))));
        assert!(matches!(Project::read(Path::new("/dev/zero"), None), Err(ProjectError::Special(_))));
    }

    #[test]
    fn there_are_limits() {
        let root = folder(&[("app.py", APP)]);
        for n in 0..300 {
            fs::write(root.path().join(format!("f{n:03}.txt")), "x").unwrap();
        }
        let project = Project::read(root.path(), None).unwrap();
        assert_eq!(project.assets.len() + names(&project).len(), MOST_FILES);
        assert!(project.notes[0].contains("more than 200 files"), "{:?}", project.notes);
        let big = folder(&[("app.py", APP)]);
        let file = fs::File::create(big.path().join("data.bin")).unwrap();
        file.set_len(LARGEST + 1).unwrap();
        let project = Project::read(big.path(), None).unwrap();
        assert!(project.assets.is_empty() && project.notes[0].contains("data.bin"), "{:?}", project.notes);
        assert!(matches!(Project::read(&big.path().join("data.bin"), None), Err(ProjectError::TooLarge(_))));
    }
}
