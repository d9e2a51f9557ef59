// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of the agent must not lose: the applications that have registered, their health, what shall get no
//! new connections; and the number of this life.

use crate::{
    app::Spec,
    request::{ClosedName, HealthName},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// After this it is tried again to write what could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Saved {
    pub(crate) epoch: u64,
    /// Which boot of the machine it was.
    pub(crate) boot: String,
    pub(crate) apps: BTreeMap<String, SavedApp>,
}

/// What is kept of an application.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct SavedApp {
    /// If it is not in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<Registered>,
    /// What was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthName>,
    /// If it shall get no new connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<ClosedName>,
}

/// An application that has registered.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Registered {
    pub(crate) uid: u32,
    pub(crate) spec: Spec,
}

/// Which boot of the machine this is, as the kernel names it.
pub(crate) fn boot() -> io::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let read = fs::read_to_string(path);
    read.map(|boot| boot.trim().to_owned())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))
}

impl Saved {
    /// What of it holds in this boot. Applications of an earlier one have ended: what they have reported says nothing
    /// of those that are there now.
    pub(crate) fn in_boot(mut self, boot: &str) -> Self {
        if self.boot != boot {
            self.boot = boot.to_owned();
            self.apps.values_mut().for_each(|app| app.health = None);
        }
        self
    }

    /// Reads it. A file that is not there is empty.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            let what = format!("cannot read {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let what = format!(
                    "{}: {error}; remove the file, and applications have to register again",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, what)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(named(error)),
        }
    }

    /// Writes it, wholly or not at all.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let write = || {
            let next = path.with_extension("new");
            let mut file = File::create(&next)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
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
}

/// Writes what is kept, without anybody waiting for the disk: one version after the other, and the last one in any
/// case.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    /// What is in the file, if that is known.
    written: Option<Saved>,
    writing: Option<JoinHandle<(Saved, io::Result<()>)>>,
    /// Something may be another.
    is_due: bool,
    not_before: Instant,
}

impl Keeper {
    /// `written` is in the file.
    pub(crate) fn new(path: PathBuf, written: Saved) -> Self {
        Self {
            path,
            written: Some(written),
            writing: None,
            is_due: false,
            not_before: Instant::now(),
        }
    }

    /// Something may be another.
    pub(crate) fn note(&mut self) {
        self.is_due = true;
    }

    /// When to call [`Self::begin`].
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.is_due && self.writing.is_none()).then_some(self.not_before)
    }

    /// Begins to write what is there now, if it is time and something is another.
    pub(crate) fn begin(&mut self, now: Instant, saved: impl FnOnce() -> Saved) {
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
            let outcome = saved.save(&path);
            (saved, outcome)
        }));
    }

    /// What has come of it; never, if nothing is being written.
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let ended = writing.await;
        self.writing = None;
        let error = match ended {
            Ok((saved, Ok(()))) => {
                self.written = Some(saved);
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
    pub(crate) async fn end(mut self, saved: Saved) -> io::Result<()> {
        if self.writing.is_some() {
            // The last one says what is wrong.
            let _ = self.ended().await;
        }
        if self.written.as_ref() == Some(&saved) {
            return Ok(());
        }
        saved.save(&self.path)
    }
}
