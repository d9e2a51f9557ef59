// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration that the kernel has, and its changes.

use std::{
    collections::HashMap,
    ffi::OsString, //
};

use clap::{
    CommandFactory,
    FromArgMatches, //
};
use nlb_netlink::{
    Error,
    Fwd,
    Migrator,
    Tunnel, //
};

use super::{
    plan::{
        Step,
        Words, //
    },
    table::Kind,
    Config,
    Entry, //
};
use crate::{
    cli::Cli,
    command,
    failure::Failure,
    keywords,
    output::Format, //
};

const ENOENT: i32 = 2;

/// What there is of these kinds.
pub(crate) fn read(kinds: &[Kind]) -> Result<Config, Failure> {
    let mut entries = Vec::new();
    for kind in kinds {
        entries.extend(read_kind(*kind)?);
    }
    Ok(Config {
        kinds: kinds.to_vec(),
        entries,
    })
}

/// What there is of all kinds whose modules are loaded.
pub(crate) fn read_all() -> Result<Config, Failure> {
    let mut config = Config::default();
    let mut missing = None;
    for kind in Kind::wholes() {
        match read_kind(kind) {
            Ok(entries) => {
                config.kinds.push(kind);
                config.entries.extend(entries);
            }
            Err(error @ Error::FamilyMissing(_)) => missing = missing.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    match missing {
        Some(error) if config.kinds.is_empty() => Err(error.into()),
        _ => Ok(config),
    }
}

fn read_kind(kind: Kind) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = match kind {
        Kind::Forwarder => from(&Tunnel::open()?.forwarders()?),
        Kind::Peer => from(&Migrator::open()?.peers()?),
        Kind::Keep => from(&Migrator::open()?.keeps()?),
        Kind::Rule => from(&Fwd::open()?.rules()?),
        Kind::Service => {
            let mut fwd = Fwd::open()?;
            let (services, endpoints) = (fwd.services()?, fwd.endpoints(None)?);
            let mut parts: HashMap<_, Vec<Entry>> = HashMap::new();
            for endpoint in &endpoints {
                let parts = parts.entry(endpoint.service()).or_default();
                parts.push(endpoint.into());
            }
            let with_parts = services.iter().map(|service| {
                let mut entry = Entry::from(service);
                entry.parts = parts.remove(&service.key()).unwrap_or_default();
                entry
            });
            with_parts.collect()
        }
        // Parts of others.
        Kind::Key | Kind::Endpoint => Vec::new(),
    };
    // The kernel's tables are in no order, but for rules.
    if kind != Kind::Rule {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
    }
    for entry in &mut entries {
        if entry.kind == Kind::Service {
            entry.parts.sort_by(|a, b| a.id().cmp(&b.id()));
        }
    }
    Ok(entries)
}

fn from<T>(objects: &[T]) -> Vec<Entry>
where
    for<'a> Entry: From<&'a T>,
{
    objects.iter().map(Entry::from).collect()
}

/// Why a plan was not carried out, and what has become of it.
pub(crate) struct Broken {
    /// The step that failed.
    pub(crate) step: Step,
    pub(crate) failure: Failure,
    /// Steps before it that could not be taken back, with the reason where there is one.
    pub(crate) left: Vec<String>,
}

/// Carry out a plan; if a step fails, take back those before it.
pub(crate) fn carry_out(
    steps: &[Step],
    run: &mut dyn FnMut(&Words) -> Result<(), Failure>,
) -> Result<(), Box<Broken>> {
    for (index, step) in steps.iter().enumerate() {
        let Err(failure) = run(&step.words) else {
            continue;
        };
        let removes = step.words.iter().any(|word| word == "del");
        if removes && is_gone(&failure) {
            continue;
        }
        let mut left = Vec::new();
        for done in steps.iter().take(index).rev() {
            let said = match &done.undo {
                None => Some(words_of(&done.words)),
                Some(undo) => undo.iter().find_map(|words| match run(words) {
                    Err(failure) if !is_gone(&failure) => {
                        Some(format!("{}: {}", words_of(words), failure.text()))
                    }
                    _ => None,
                }),
            };
            left.extend(said);
        }
        return Err(Box::new(Broken {
            step: step.clone(),
            failure,
            left,
        }));
    }
    Ok(())
}

/// Whether there was nothing to remove: somebody else has.
fn is_gone(failure: &Failure) -> bool {
    let Failure::Netlink(Error::Refused(refusal)) = failure else {
        return false;
    };
    refusal.errno == ENOENT
}

/// Words as they are typed.
pub(crate) fn words_of(words: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/,=@%+-[]".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    format!("nlb {}", quoted.collect::<Vec<_>>().join(" "))
}

/// Run a command of this program.
pub(crate) fn run(words: &Words) -> Result<(), Failure> {
    let mut command = Cli::command();
    let line = std::iter::once("nlb").chain(words.iter().map(String::as_str));
    let line = keywords::expand(&mut command, line.map(OsString::from));
    let cli = command
        .try_get_matches_from(line)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| Failure::Text(format!("{}: {error}", words_of(words))))?;
    command::run(&cli.object, Format::Text)
}
