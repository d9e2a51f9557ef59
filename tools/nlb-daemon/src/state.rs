// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of a daemon must not lose: a file of JSON, which is written wholly or not at all.

use serde::{de::DeserializeOwned, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// After this it is tried again to write what could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads a file. One that is not there is empty; `remedy` is what helps against one that is not understood.
pub fn load<T: DeserializeOwned + Default>(path: &Path, remedy: &str) -> io::Result<T> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!("{}: {error}; {remedy}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => {
            let what = format!("cannot read {}: {error}", path.display());
            Err(io::Error::new(error.kind(), what))
        }
    }
}

/// Writes a file, wholly or not at all. Blocks until it is on the disk.
pub fn save<T: Serialize>(saved: &T, path: &Path) -> io::Result<()> {
    let write = || {
        let next = path.with_extension("new");
        let mut file = io::BufWriter::new(File::create(&next)?);
        serde_json::to_writer(&mut file, saved)?;
        file.write_all(b"\n")?;
        file.into_inner()?.sync_all()?;
        fs::rename(&next, path)?;
        // After a crash of the machine the name is there, too.
        let folder = path.parent().filter(|own| !own.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| {
        let what = format!("cannot write {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    })
}

/// Writes what is kept, without anybody waiting for the disk: one version after the other, and the last one in any
/// case.
#[derive(Debug)]
pub struct Keeper<T> {
    path: PathBuf,
    /// What is in the file, if that is known.
    written: Option<T>,
    writing: Option<JoinHandle<(T, io::Result<()>)>>,
    /// Something may be another.
    is_due: bool,
    not_before: Instant,
    pause: Duration,
}

impl<T: Serialize + PartialEq + Send + 'static> Keeper<T> {
    /// `written` is in the file, if that is known. Between two versions there is a pause.
    pub fn new(path: PathBuf, written: Option<T>, pause: Duration) -> Self {
        Self {
            path,
            written,
            writing: None,
            is_due: false,
            not_before: Instant::now(),
            pause,
        }
    }

    /// Something may be another.
    pub fn note(&mut self) {
        self.is_due = true;
    }

    /// When to call [`Self::begin`].
    pub fn due(&self) -> Option<Instant> {
        (self.is_due && self.writing.is_none()).then_some(self.not_before)
    }

    /// Begins to write what is there now, if it is time and something is another.
    pub fn begin(&mut self, now: Instant, saved: impl FnOnce() -> T) {
        if self.due().is_none_or(|at| at > now) {
            return;
        }
        self.is_due = false;
        let saved = saved();
        if self.written.as_ref() == Some(&saved) {
            return;
        }
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let outcome = save(&saved, &path);
            (saved, outcome)
        }));
    }

    /// What has come of it; never, if nothing is being written.
    pub async fn ended(&mut self) -> io::Result<()> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let ended = writing.await;
        self.writing = None;
        let error = match ended {
            Ok((saved, Ok(()))) => {
                self.written = Some(saved);
                self.not_before = Instant::now() + self.pause;
                return Ok(());
            }
            Ok((_, Err(error))) => error,
            Err(error) => io::Error::other(error),
        };
        self.written = None;
        self.is_due = true;
        self.not_before = Instant::now() + AGAIN;
        Err(error)
    }

    /// Writes the last version, and waits for it.
    pub async fn end(mut self, saved: T) -> io::Result<()> {
        if self.writing.is_some() {
            // The last one says what is wrong.
            let _ = self.ended().await;
        }
        if self.written.as_ref() == Some(&saved) {
            return Ok(());
        }
        save(&saved, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("nlb-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn files_are_written_wholly() {
        let folder = folder("state");
        let file = folder.join("state.json");
        assert_eq!(load::<u64>(&file, "").unwrap(), 0);
        save(&3_u64, &file).unwrap();
        assert_eq!(load::<u64>(&file, "").unwrap(), 3);
        fs::write(&file, "{").unwrap();
        let error = load::<u64>(&file, "remove the file").unwrap_err();
        assert!(error.to_string().contains("remove the file"), "{error}");
        assert!(save(&3_u64, Path::new("/none/at/all")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_changes_is_written_by_and_by() {
        let folder = folder("keeper");
        let file = folder.join("kept.json");
        let write = async {
            let mut keeper = Keeper::new(file.clone(), Some(1), Duration::ZERO);
            let now = Instant::now();
            keeper.begin(now, || panic!("nothing has changed"));
            keeper.note();
            keeper.begin(now, || 1);
            assert!(keeper.due().is_none() && !file.exists());
            keeper.note();
            keeper.begin(now, || 2);
            // One at a time.
            keeper.note();
            assert_eq!(keeper.due(), None);
            keeper.begin(now, || panic!("it is being written"));
            keeper.ended().await.unwrap();
            assert_eq!(load::<u64>(&file, "").unwrap(), 2);
            keeper.begin(Instant::now(), || 3);
            keeper.end(4).await.unwrap();
            assert_eq!(load::<u64>(&file, "").unwrap(), 4);
            // What could not be written is written later, even if it is what was there at first.
            let mut keeper = Keeper::new("/none/at/all".into(), Some(1), Duration::ZERO);
            let now = Instant::now();
            keeper.note();
            keeper.begin(now, || 2);
            assert!(keeper.ended().await.is_err());
            assert!(keeper.due().is_some_and(|at| at > now));
            keeper.begin(now, || panic!("not at once"));
            keeper.begin(now + Duration::from_secs(600), || 1);
            assert!(keeper.ended().await.is_err());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(write);
        fs::remove_dir_all(&folder).unwrap();
    }
}
