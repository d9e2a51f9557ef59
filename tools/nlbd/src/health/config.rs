// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration file of `nlbd health`.

use nlb_daemon::{
    config::{Fixed, Mistake, Source},
    keys::{self, KeyEntry},
};
use nlb_health::{lbu::LbuConfig, seal::Keys};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// A configuration that was found to be right.
pub(crate) struct Config {
    /// How the protocol is spoken; the life is not chosen yet.
    pub(crate) lbu: LbuConfig,
    pub(crate) keys: Keys,
    /// Where hosts are heard; at every address, if none is named.
    pub(crate) listen: Option<Vec<SocketAddr>>,
    pub(crate) socket: PathBuf,
    pub(crate) state: PathBuf,
    /// Users who may ask what is known, beside root.
    pub(crate) users: BTreeSet<u32>,
    pub(crate) panic: Panic,
}

/// When health counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panic {
    /// If more than so many percent of a service's endpoints that should get connections are not healthy.
    pub(crate) threshold: u64,
    /// Whether those of which nothing is known any more get connections when no other endpoint is healthy.
    pub(crate) stale: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    lbu: Spanned<u32>,
    listen: Option<Spanned<Vec<SocketAddr>>>,
    socket: Option<PathBuf>,
    state: Option<PathBuf>,
    #[serde(default)]
    users: BTreeSet<u32>,
    panic_threshold: Option<Spanned<u64>>,
    panic_stale: Option<bool>,
    age_limit_ms: Option<Spanned<u64>>,
    #[serde(default)]
    key: Vec<KeyEntry>,
}

impl Config {
    /// Reads and checks a file, and the secrets that it names.
    pub(crate) fn load(path: &Path) -> Result<Self, Mistake> {
        Self::parse(&Source::read(path)?, path)
    }

    /// What another reading does not change, by its key.
    pub(crate) fn fixed(&self) -> Vec<Fixed> {
        vec![
            ("lbu", self.lbu.lbu.to_string()),
            ("listen", format!("{:?}", self.listen)),
            ("socket", format!("{:?}", self.socket)),
            ("state", format!("{:?}", self.state)),
            ("age_limit_ms", format!("{:?}", self.lbu.age_limit)),
        ]
    }

    /// Checks what is in a file at `path`.
    pub(crate) fn parse(source: &Source, path: &Path) -> Result<Self, Mistake> {
        let file: File = source.parse()?;
        let lbu = *file.lbu.get_ref();
        if lbu == 0 {
            let what = "lbu is 0; choose a number that no other load balancing unit has";
            return Err(source.mistake(Some(file.lbu.span()), what));
        }
        let listen = match file.listen {
            None => None,
            Some(listen) => {
                let v6 = listen.get_ref().iter().filter(|own| own.is_ipv6()).count();
                let v4 = listen.get_ref().len() - v6;
                let is_open = |own: &SocketAddr| own.port() == 0;
                if v4 + v6 == 0 || v4 > 1 || v6 > 1 || listen.get_ref().iter().any(is_open) {
                    let what = "listen names an address and port for each address family, \
                        such as \"0.0.0.0:4771\"; or leave it out";
                    return Err(source.mistake(Some(listen.span()), what));
                }
                Some(listen.into_inner())
            }
        };
        let age_limit =
            source.milliseconds("age_limit_ms", &file.age_limit_ms, 30_000, 200..=600_000)?;
        let threshold = source.number("panic_threshold", &file.panic_threshold, 50, 0..=100)?;
        Ok(Self {
            lbu: LbuConfig {
                age_limit,
                ..LbuConfig::new(lbu, 1)
            },
            keys: keys::load(source, &file.key, path)?,
            listen,
            socket: file.socket.unwrap_or_else(|| "/run/nlbd/health".into()),
            state: file
                .state
                .unwrap_or_else(|| "/var/lib/nlbd/health.json".into()),
            users: file.users,
            panic: Panic {
                threshold,
                stale: file.panic_stale.unwrap_or(true),
            },
        })
    }
}
