//! Writing so that a reader, or the next run after a kill, sees the old file or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::StoreError;

/// Writes `bytes` to `path` through a temporary file beside it; makes the folder when it is missing.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    stage(path, bytes)?.place()
}

/// A file that is whole on disk, and not yet in its place; dropped, it is gone.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    pub fn place(self) -> Result<(), StoreError> {
        let Self { file, path } = self;
        file.persist(&path).map(drop).map_err(|e| StoreError::new("write", &path, e.error))
    }
}

/// The first half of [`write_atomic`]: what can fail for want of room.
pub fn stage(path: &Path, bytes: &[u8]) -> Result<Staged, StoreError> {
    stage_with(path, |file| file.write_all(bytes))
}

/// Copies a file in the same way: the copy is whole, and nothing that is done to the other changes it.
pub fn copy_atomic(from: &Path, path: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(|e| StoreError::new("read", from, e))?;
    stage_with(path, |file| std::io::copy(&mut source, file).map(drop))?.place()
}

fn stage_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<Staged, StoreError> {
    let fail = |e| StoreError::new("write", path, e);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail)?;
    let mut file = NamedTempFile::new_in(folder).map_err(fail)?;
    fill(file.as_file_mut()).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    make_readable(file.as_file()).map_err(fail)?;
    Ok(Staged { file, path: path.to_owned() })
}

/// Replaces the content of a file that is not ours: it keeps its mode and, where this process may, its owner, and a link
/// goes on leading to it.
pub fn rewrite(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt;
    let fail = |e| StoreError::new("write", path, e);
    let path = fs::canonicalize(path).map_err(fail)?;
    let before = fs::metadata(&path).map_err(fail)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    // Another's file in a folder of ours: the text is what counts.
    let _ = std::os::unix::fs::fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
    file.as_file().set_permissions(before.permissions()).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(&path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// Temporary files are private; what a workspace holds is as readable as any other file.
fn make_readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

/// Writes a value as indented JSON with a final newline.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    stage_json(path, value)?.place()
}

/// The first half of [`write_json`].
pub fn stage_json<T: Serialize>(path: &Path, value: &T) -> Result<Staged, StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| StoreError::new("write", path, std::io::Error::other(e)))?;
    bytes.push(b'\n');
    stage(path, &bytes)
}

/// Renames a file to `<name>.old`, or to `<name>.old2`, `<name>.old3`... where that is taken; returns the new path.
pub fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let named = |suffix: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let others = (2..).map(|n| named(format!(".old{n}")));
    let free = std::iter::once(named(".old".into())).chain(others).find(|path| !path.exists());
    let free = free.unwrap_or_else(|| unreachable!("some number is free"));
    fs::rename(path, &free).map_err(|e| StoreError::new("rename", path, e))?;
    Ok(free)
}

/// Appends one value as a JSON line and flushes it to disk.
///
/// A line that a killed process left unfinished is closed first, so that it spoils itself alone.
pub fn append_line<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let fail = |e| StoreError::new("append to", path, e);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    let mut line = serde_json::to_vec(value).map_err(|e| fail(std::io::Error::other(e)))?;
    line.push(b'\n');
    if ends_unfinished(path).map_err(fail)? {
        line.insert(0, b'\n');
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
    file.write_all(&line).map_err(fail)?;
    file.sync_data().map_err(fail)
}

fn ends_unfinished(path: &Path) -> std::io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last[0] != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_spoils_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/log.jsonl");
        append_line(&path, &1).unwrap();
        fs::write(&path, "1\n{\"half").unwrap();
        append_line(&path, &2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n{\"half\n2\n");
    }

    #[test]
    fn what_is_set_aside_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for (text, name) in [("1", "a.json.old"), ("2", "a.json.old2"), ("3", "a.json.old3")] {
            fs::write(&path, text).unwrap();
            let kept = set_aside(&path).unwrap();
            assert_eq!((kept.file_name().unwrap(), fs::read(&kept).unwrap()), (name.as_ref(), text.into()));
            assert!(!path.exists());
        }
        assert!(set_aside(&path).is_err());
    }

    #[test]
    fn what_is_staged_takes_no_ones_place_until_it_is_placed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"old").unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        drop(stage(&path, b"never").unwrap());
        assert_eq!((fs::read(&path).unwrap(), names()), (b"old".to_vec(), 1));
        let staged = stage(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"old".to_vec(), 2));
        staged.place().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"new".to_vec(), 1));
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic(&path.join("below-a-file"), b"new").unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
