//! The Python environment in which candidates run: pinned, hash-checked, never half made.

use std::path::{Path, PathBuf};

use super::{Machine, setup::SetupError, work::Work};
use crate::store;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Every package with every hash; see the head of the file for how it is made.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// Oldest Python that the pinned packages accept.
pub const OLDEST: (u32, u32) = (3, 11);
/// Names under which a new enough interpreter may go, newest first, the plain one before all.
const NAMES: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];
const MARKER: &str = "hone-ready.json";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    requirements_sha256: String,
    python: String,
}

/// The environment's folder, named by what is in it.
pub fn venv_folder(cache: &Path) -> PathBuf {
    cache.join(format!("venv-{}", &requirements_hash()[..12]))
}

/// Whether the environment is complete.
pub fn is_ready(venv: &Path) -> bool {
    store::read_text(&venv.join(MARKER))
        .ok()
        .and_then(|text| serde_json::from_str::<Marker>(&text).ok())
        .is_some_and(|marker| marker.requirements_sha256 == requirements_hash())
        && venv.join("bin/python").exists()
}

fn requirements_hash() -> String {
    crate::text::hex(&Sha256::digest(REQUIREMENTS))
}

fn packages() -> usize {
    REQUIREMENTS.lines().filter(|line| !line.starts_with('#') && line.contains("==")).count()
}

/// The first interpreter that is new enough and can make environments; otherwise why none will do.
pub async fn find(machine: &Machine) -> Result<(PathBuf, String), SetupError> {
    let mut seen = Vec::new();
    for path in NAMES.iter().filter_map(|name| machine.find(name)) {
        match version(machine, &path).await {
            Some((version, true)) if version >= OLDEST => {
                return Ok((path, format!("{}.{}", version.0, version.1)));
            }
            Some((version, true)) => {
                seen.push(format!("`{}` is {}.{}", path.display(), version.0, version.1))
            }
            Some((_, false)) => seen.push(format!("`{}` lacks the `venv` module", path.display())),
            None => seen.push(format!("`{}` does not run", path.display())),
        }
    }
    Err(SetupError::NoPython { seen })
}

/// Version of an interpreter, and whether it can make environments with pip.
async fn version(machine: &Machine, python: &Path) -> Option<((u32, u32), bool)> {
    const ASK: &str = "import sys\ntry:\n import venv, ensurepip\n ok = 1\nexcept ImportError:\n ok = 0\nprint(*sys.version_info[:2], ok)";
    // A group of its own: the terminal's Ctrl-C must not make it look like a Python that does not run.
    let output = machine.command(python).args(["-I", "-c", ASK]).process_group(0).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().map(|word| word.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    Some((version, numbers.next()?? == 1))
}

/// Makes the environment. One that was left half made is thrown away first: a package that was being unpacked when the
/// process died cannot be told from a whole one.
pub async fn install(machine: &Machine, work: &Work<'_>) -> Result<(), SetupError> {
    let (python, version) = find(machine).await?;
    let venv = venv_folder(&machine.cache);
    if venv.exists() {
        std::fs::remove_dir_all(&venv).map_err(|e| store::StoreError::new("clear", &venv, e))?;
    }
    std::fs::create_dir_all(&machine.cache).map_err(|e| store::StoreError::new("make", &machine.cache, e))?;
    work.step(0, None, format!("making a Python {version} environment"));
    work.run(machine.command(&python).args(["-m", "venv"]).arg(&venv), |_| {}).await?;

    let requirements = venv.join("requirements.txt");
    store::write_atomic(&requirements, REQUIREMENTS.as_bytes())?;
    let total = packages() as u64;
    let mut done = 0;
    let mut pip = machine.command(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--require-hashes"]);
    pip.args(["--no-deps", "--only-binary=:all:", "-r"]).arg(&requirements);
    work.run(&mut pip, |line| {
        if let Some(package) = line.strip_prefix("Collecting ") {
            done += 1;
            let name = package.split("==").next().unwrap_or(package);
            work.step(done, Some(total), format!("downloading {name}"));
        } else if line.starts_with("Installing collected") {
            work.step(total, Some(total), "installing packages".into());
        }
    })
    .await?;
    let mut check = machine.command(venv.join("bin/python"));
    check.args(["-I", "-c", "import streamlit, pandas, pyarrow, altair"]);
    work.run(&mut check, |_| {}).await?;
    let marker = Marker { requirements_sha256: requirements_hash(), python: version };
    store::write_json(&venv.join(MARKER), &marker)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_and_hashed() {
        let lines: Vec<&str> = REQUIREMENTS.lines().filter(|l| !l.starts_with('#')).collect();
        let joined = lines.join("\n").replace("\\\n", " ");
        for requirement in joined.lines().filter(|l| !l.trim().is_empty()) {
            assert!(requirement.contains("=="), "{requirement}");
            assert!(requirement.contains("--hash=sha256:"), "{requirement}");
        }
        assert!(REQUIREMENTS.contains("streamlit==1.67.0"));
        assert!(packages() > 20);
    }

    #[test]
    fn an_environment_without_its_marker_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let venv = venv_folder(folder.path());
        std::fs::create_dir_all(venv.join("bin")).unwrap();
        std::fs::write(venv.join("bin/python"), "").unwrap();
        assert!(!is_ready(&venv));
        std::fs::write(venv.join(MARKER), "{\"requirements_sha256\":").unwrap();
        assert!(!is_ready(&venv));
        let marker = Marker { requirements_sha256: requirements_hash(), python: "3.11".into() };
        store::write_json(&venv.join(MARKER), &marker).unwrap();
        assert!(is_ready(&venv));
    }
}
