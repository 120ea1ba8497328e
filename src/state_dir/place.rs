//! One file of the state directory: read whole, replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::ids::Deployment;

/// Where the file is.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    pub(super) path: PathBuf,
    pub(super) temporary: PathBuf,
}

impl Place {
    /// Daemons with different names may share a directory.
    pub(super) fn new(dir: &Path, what: &str, deployment: &Deployment) -> Self {
        let path = dir.join(format!("{what}-{deployment}.json"));
        let temporary = path.with_extension("json.new");
        Self { dir: dir.to_owned(), path, temporary }
    }

    /// A file of a folder.
    pub(super) fn at(folder: &Path, path: &Path) -> Self {
        Self { dir: folder.to_owned(), path: path.to_owned(), temporary: path.with_extension("new") }
    }

    /// What it holds, and one byte more than `longest` where that is more; none where there is no file.
    pub(super) fn read(&self, longest: usize) -> io::Result<Option<Vec<u8>>> {
        match read_bounded(&self.path, longest) {
            Ok(text) => Ok(Some(text)),
            // A directory that is none holds no file; that nothing can be written there is told by the first save.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file, so that at any moment it is the old or the new one, also after a power failure.
    pub(super) fn replace(&self, text: &[u8]) -> io::Result<()> {
        let written = self.write(text);
        if written.is_err() {
            // What was written of it takes room; the error is told in any case.
            let _ = fs::remove_file(&self.temporary);
        }
        written
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // `create_new` follows no link that somebody else may have put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        // Some file systems cannot do this for a directory; without it a power failure may bring back the old file.
        let _ = File::open(&self.dir).and_then(|dir| dir.sync_all());
        Ok(())
    }
}

/// Reads a file of a bearable length; a pipe or a device could be without end.
fn read_bounded(path: &Path, longest: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(longest as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}
