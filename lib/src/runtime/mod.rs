//! What a run needs from the machine: Python with Streamlit, the base weights, a sandbox; and the models that were added.
//!
//! Everything that `hone setup` makes lives once per user in a cache folder, in subfolders named by what is in them, so
//! that another version never meets half of an older one. Each part is finished by a marker that is written last: with
//! the marker there, a part is used as it is and nothing is asked of the network.

mod catalog;
mod doctor;
mod identity;
mod python;
mod setup;
mod weights;
mod work;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use tokio::process::Command;

pub use catalog::{Added, Catalog, CatalogError, ModelName};
pub use doctor::{Check, Doctor, Report, doctor};
pub use identity::same_weights;
pub use setup::{SetupError, setup};
pub use weights::{BASE_MODEL, BASE_MODEL_HUB_ID, WeightsSource, sha256_of};

/// The machine as the command line found it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Folders in which programs are looked for, in order.
    pub path: Vec<PathBuf>,
    /// The user's cache folder for Hone.
    pub cache: PathBuf,
    /// Weights that the user has already, instead of those from the package.
    pub weights: Option<PathBuf>,
    /// Variables for Python and pip, for which [`is_for_python`] is true.
    pub environment: Vec<(OsString, OsString)>,
}

/// What Python and pip need to find programs, the network and their own settings.
const FOR_PYTHON: [&str; 17] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];
/// Beginnings of others.
const ALSO_FOR_PYTHON: [&str; 3] = ["LC_", "PIP_", "XDG_"];

/// Whether the programs that set-up runs are handed a variable. They run code of many packages, so they get what they need
/// and nothing else: whatever a key is called, theirs it is not.
pub fn is_for_python(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    FOR_PYTHON.contains(&name.as_str()) || ALSO_FOR_PYTHON.iter().any(|begin| name.starts_with(begin))
}

/// Where distributions and vendors put the program itself. The commands on the path are often scripts that read settings
/// from the home folder, or that ask a package service which no sandbox has. The one without windows comes first: the other
/// makes the parts of a window anew for each page, which costs a quarter of a look.
const CHROMIUMS: &[&str] = &[
    "/usr/lib/chromium/chromium-headless-shell",
    "/usr/lib/chromium/chromium",
    "/usr/lib64/chromium-browser/chromium-browser",
    "/usr/lib/chromium-browser/chromium-browser",
    "/opt/google/chrome/chrome",
    "/opt/chromium.org/chromium/chromium",
    "/opt/microsoft/msedge/msedge",
];

/// The first of those that is there.
pub fn find_chromium() -> Option<PathBuf> {
    CHROMIUMS.iter().map(PathBuf::from).find(|path| is_executable(path))
}

impl Machine {
    /// The first program of that name.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(program)).find(|path| is_executable(path))
    }

    /// A program of set-up, with the environment that such programs get.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn bubblewrap(&self) -> Option<PathBuf> {
        self.find("bwrap")
    }

    /// A Chromium that a sandbox can start.
    pub fn chromium(&self) -> Option<PathBuf> {
        find_chromium()
    }

    /// The base models that the user added.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(&self.cache)
    }

    /// What `hone setup` has made so far.
    pub fn runtime(&self) -> Runtime {
        Runtime { venv: python::venv_folder(&self.cache), gguf: weights::gguf(self) }
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Where the parts of the runtime are, whether or not they are there yet.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The Python environment in which candidates run.
    pub venv: PathBuf,
    /// The base model's weights.
    pub gguf: PathBuf,
}

impl Runtime {
    pub fn python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    pub fn ruff(&self) -> PathBuf {
        self.venv.join("bin/ruff")
    }

    /// Whether everything that `hone setup` makes is there.
    pub fn is_ready(&self) -> bool {
        python::is_ready(&self.venv) && self.gguf.is_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_gets_what_it_needs_and_no_key() {
        for name in ["PATH", "https_proxy", "PIP_INDEX_URL", "LC_ALL", "XDG_CACHE_HOME", "SSL_CERT_FILE"] {
            assert!(is_for_python(name), "{name}");
        }
        for name in
            ["OPENAI_API_KEY", "HF_TOKEN", "HONE_API_KEY", "MY_SECRET", "AWS_SECRET_ACCESS_KEY", "PATHS"]
        {
            assert!(!is_for_python(name), "{name}");
        }
    }
}
