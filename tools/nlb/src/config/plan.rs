// SPDX-License-Identifier: MIT OR Apache-2.0

//! What leads from one configuration to another: commands, in an order in which no service is
//! without endpoints on the way.

use std::collections::{
    HashMap,
    HashSet, //
};

use nlb_netlink::ServiceKey;

use super::{
    table::{
        Change,
        Kind, //
    },
    Config,
    Entry,
    Place,
    Setting, //
};

/// As many rules as the kernel takes.
const MAX_RULES: usize = 1024;

/// Words of the command line, without the program.
pub(crate) type Words = Vec<String>;

/// One command of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) words: Words,
    /// What it replaces, for people.
    pub(crate) was: Option<String>,
    /// The entry it is for; `None` for what is not in the file.
    pub(crate) place: Option<Place>,
    /// What takes it back; `None` if nothing does.
    pub(crate) undo: Option<Vec<Words>>,
}

/// A plan that cannot be made, and the entry that is to blame.
#[derive(Debug)]
pub(crate) struct Impossible {
    pub(crate) place: Option<Place>,
    pub(crate) what: String,
}

/// Steps by the time at which they are due.
#[derive(Default)]
struct Phases {
    /// What is new; nobody loses anything.
    add: Vec<Step>,
    /// Settings by which endpoints get connections, and those that are neither.
    open: Vec<Step>,
    /// Settings by which endpoints get none any more.
    close: Vec<Step>,
    /// What cannot be changed in place.
    anew: Vec<Step>,
    /// What is to go, that which cannot be added again at the end.
    remove: Vec<Step>,
    forget: Vec<Step>,
}

/// The steps from `have` to `want`, of the kinds that `want` says everything about.
pub(crate) fn plan(have: &Config, want: &Config) -> Result<Vec<Step>, Impossible> {
    let (mut have, mut want) = (have.clone(), want.clone());
    note_shared_names(&mut have, &mut want);
    let (have, want) = (&have, &want);
    let mut phases = Phases::default();
    for kind in &want.kinds {
        let old: HashMap<_, _> = have.of(*kind).map(|entry| (&entry.name, entry)).collect();
        let new: HashMap<_, _> = want.of(*kind).map(|entry| (&entry.name, entry)).collect();
        let to_go: Vec<_> = have
            .of(*kind)
            .filter(|entry| !new.contains_key(&entry.name))
            .collect();
        let to_come: Vec<_> = want
            .of(*kind)
            .filter(|entry| !old.contains_key(&entry.name))
            .collect();
        for entry in want.of(*kind) {
            if let Some(old) = old.get(&entry.name) {
                phases.change(old, entry)?;
            }
        }
        let no_room = *kind == Kind::Rule && old.len() + to_come.len() > MAX_RULES;
        let excludes = |one: &Entry, other: &Entry| no_room || exclude(one, other);
        for entry in &to_go {
            match to_come.iter().any(|new| excludes(entry, new)) {
                true => phases.make_way(entry),
                false => phases.remove(None, entry),
            }
        }
        for entry in to_come {
            match to_go.iter().any(|old| excludes(old, entry)) {
                true => phases.come_after(entry)?,
                false => phases.add(None, entry)?,
            }
        }
    }
    let Phases {
        add,
        open,
        close,
        anew,
        remove,
        forget,
    } = phases;
    Ok([add, open, close, anew, remove, forget].concat())
}

/// Notes which hosts have several endpoints of a service, before or after or on the way.
fn note_shared_names(have: &mut Config, want: &mut Config) {
    let mut ports: HashMap<(String, String), HashSet<u16>> = HashMap::new();
    for entry in have.entries.iter().chain(&want.entries) {
        for part in &entry.parts {
            let name = (entry.name.clone(), part.name.clone());
            ports.entry(name).or_default().insert(part.port);
        }
    }
    for entry in have.entries.iter_mut().chain(&mut want.entries) {
        for part in &mut entry.parts {
            let name = (entry.name.clone(), part.name.clone());
            part.shares_name = ports.get(&name).is_some_and(|ports| ports.len() > 1);
        }
    }
}

impl Phases {
    fn add(&mut self, owner: Option<&Entry>, entry: &Entry) -> Result<(), Impossible> {
        self.add.extend(added(owner, entry)?);
        Ok(())
    }

    /// An entry that others cannot be beside of, before these.
    fn make_way(&mut self, entry: &Entry) {
        self.anew.push(removed(None, entry, None));
    }

    /// One of these.
    fn come_after(&mut self, entry: &Entry) -> Result<(), Impossible> {
        self.anew.extend(added(None, entry)?);
        Ok(())
    }

    fn remove(&mut self, owner: Option<&Entry>, entry: &Entry) {
        let step = removed(owner, entry, None);
        match entry.kind {
            Kind::Peer | Kind::Key => self.forget.push(step),
            _ => self.remove.push(step),
        }
    }

    /// Steps from an entry to another with its name.
    fn change(&mut self, old: &Entry, new: &Entry) -> Result<(), Impossible> {
        if becomes_authenticated(old, new) {
            return self.authenticate(old, new);
        }
        if must_be_new(old, new) {
            self.anew.push(removed(None, old, Some(new)));
            self.anew.extend(added(None, new)?);
            return Ok(());
        }
        self.set(None, old, new);
        self.parts(old, new)
    }

    /// The settings that can be changed in place.
    fn set(&mut self, owner: Option<&Entry>, old: &Entry, new: &Entry) {
        let differs: Vec<_> = differences(old, new)
            .filter(|(_, wanted)| wanted.change == Change::Set)
            .collect();
        if differs.is_empty() {
            return;
        }
        let words = |settings: Vec<&Setting>| {
            let mut words = about("set", owner, new);
            words.extend(settings.into_iter().flat_map(Setting::words));
            words
        };
        let step = Step {
            words: words(differs.iter().map(|(_, wanted)| *wanted).collect()),
            was: Some(old_values(&differs)),
            place: new.place,
            undo: Some(vec![words(differs.iter().map(|(own, _)| *own).collect())]),
        };
        if new.kind != Kind::Endpoint || takes_connections(new) {
            self.open.push(step);
        } else {
            self.close.push(step);
        }
    }

    /// Endpoints of a service, keys of a peer.
    fn parts(&mut self, old: &Entry, new: &Entry) -> Result<(), Impossible> {
        let theirs: HashMap<_, _> = old.parts.iter().map(|part| (part.id(), part)).collect();
        for part in &new.parts {
            let Some(own) = theirs.get(&part.id()) else {
                self.add(Some(new), part)?;
                continue;
            };
            if !must_be_new(own, part) {
                self.set(Some(new), own, part);
            } else if part.kind == Kind::Key {
                return Err(Impossible {
                    place: part.place,
                    what: format!(
                        "key {} of peer {} has {} there, and keys do not change: \
                         give the new one another id",
                        part.name,
                        new.name,
                        old_values(&differences(own, part).collect::<Vec<_>>())
                    ),
                });
            } else {
                self.anew.push(removed(Some(new), own, Some(part)));
                self.anew.extend(added(Some(new), part)?);
            }
        }
        // The preferred key, once it is there and while the old one is.
        match (old.parts.first(), new.parts.first()) {
            (Some(own), Some(part)) if part.kind == Kind::Key && own.name != part.name => {
                self.open.push(Step {
                    words: about("use", Some(new), part),
                    was: Some(format!("id {}", own.name)),
                    place: part.place,
                    undo: Some(vec![about("use", Some(new), own)]),
                });
            }
            _ => {}
        }
        for own in &old.parts {
            if !new.parts.iter().any(|part| part.id() == own.id()) {
                self.remove(Some(new), own);
            }
        }
        Ok(())
    }

    /// Keys for a peer that had none.
    fn authenticate(&mut self, old: &Entry, new: &Entry) -> Result<(), Impossible> {
        let mut steps = Vec::new();
        for part in &new.parts {
            steps.extend(added(Some(new), part)?);
        }
        if let Some(first) = steps.first_mut() {
            first.was = Some("unauthenticated".to_owned());
            // The last key goes with the peer only.
            first.undo = Some(vec![about("del", None, old), add_words(None, old)]);
        }
        for later in steps.iter_mut().skip(1) {
            later.undo = Some(Vec::new());
        }
        self.open.extend(steps);
        Ok(())
    }
}

/// Whether there cannot be both of two entries of one kind: services with the same port, both of
/// several.
fn exclude(one: &Entry, other: &Entry) -> bool {
    let key = |entry: &Entry| entry.name.parse::<ServiceKey>().ok();
    match (one.kind, key(one), key(other)) {
        (Kind::Service, Some(one), Some(other)) => {
            one.vip == other.vip && one.proto == other.proto && one.ports.exclude(&other.ports)
        }
        _ => false,
    }
}

/// Whether new connections are sent to an endpoint.
fn takes_connections(endpoint: &Entry) -> bool {
    endpoint.get("state") == Some("active") && endpoint.get("weight") != Some("0")
}

/// Settings of `old` that are not as `new` has them, with those.
fn differences<'a>(
    old: &'a Entry,
    new: &'a Entry,
) -> impl Iterator<Item = (&'a Setting, &'a Setting)> {
    let both = old.settings.iter().zip(&new.settings);
    both.filter(|(own, wanted)| !own.satisfies(wanted))
}

fn old_values(differs: &[(&Setting, &Setting)]) -> String {
    let value = |own: &Setting| match own.words() {
        words if words.is_empty() => format!("no {}", own.keyword),
        words => words.join(" "),
    };
    let values: Vec<_> = differs.iter().map(|(own, _)| value(own)).collect();
    values.join(" ")
}

/// Whether an attribute differs that cannot be changed in place.
fn must_be_new(old: &Entry, new: &Entry) -> bool {
    differences(old, new).any(|(_, wanted)| wanted.change == Change::Anew)
}

/// Whether the one difference of two peers is that the new one has keys.
fn becomes_authenticated(old: &Entry, new: &Entry) -> bool {
    let mut differs = differences(old, new);
    old.kind == Kind::Peer
        && !new.parts.is_empty()
        && differs
            .next()
            .is_some_and(|(own, _)| own.keyword == "unauthenticated")
        && differs.next().is_none()
}

/// The words of a command about an entry, before its settings.
fn about(command: &str, owner: Option<&Entry>, entry: &Entry) -> Words {
    let shape = entry.kind.shape();
    let mut words: Words = shape.object.iter().map(|&word| word.to_owned()).collect();
    words.push(command.to_owned());
    words.extend(owner.map(|owner| owner.name.clone()));
    words.extend(shape.keyword.map(str::to_owned));
    words.push(entry.name.clone());
    // What adds it says so anyway.
    if command != "add" && (entry.shares_name || entry.port > 0) {
        words.extend(["port".to_owned(), entry.port.to_string()]);
    }
    words
}

/// The command that adds an entry; a peer with its first key.
fn add_words(owner: Option<&Entry>, entry: &Entry) -> Words {
    let mut words = about("add", owner, entry);
    words.extend(entry.words());
    if let (Kind::Peer, Some(key)) = (entry.kind, entry.parts.first()) {
        words.extend(["key".to_owned(), key.name.clone()]);
        words.extend(key.words());
    }
    words
}

/// The steps that add an entry with its parts.
fn added(owner: Option<&Entry>, entry: &Entry) -> Result<Vec<Step>, Impossible> {
    let keys = match entry.kind {
        Kind::Key => std::slice::from_ref(entry),
        Kind::Peer => &entry.parts,
        _ => &[],
    };
    if let Some(key) = keys.iter().find(|key| key.get("secret-file").is_none()) {
        return Err(Impossible {
            place: key.place,
            what: format!(
                "peer {} has not this key {} yet: name its secret-file",
                owner.unwrap_or(entry).name,
                key.name
            ),
        });
    }
    let mut steps = vec![Step {
        words: add_words(owner, entry),
        was: None,
        place: entry.place,
        undo: Some(vec![about("del", owner, entry)]),
    }];
    let with_first = usize::from(entry.kind == Kind::Peer);
    for part in entry.parts.iter().skip(with_first) {
        let mut part = added(Some(entry), part)?;
        // They go with what they belong to.
        part.iter_mut()
            .for_each(|step| step.undo = Some(Vec::new()));
        steps.extend(part);
    }
    Ok(steps)
}

/// The step that removes an entry, because another one, `new`, is to have its name, or for good.
fn removed(owner: Option<&Entry>, entry: &Entry, new: Option<&Entry>) -> Step {
    let was = new.map(|new| old_values(&differences(entry, new).collect::<Vec<_>>()));
    let back = added(owner, &with_secrets(entry, new));
    Step {
        words: about("del", owner, entry),
        was,
        place: new.and_then(|new| new.place),
        undo: back
            .ok()
            .map(|steps| steps.into_iter().map(|step| step.words).collect()),
    }
}

/// A peer whose keys have the secrets of the new peer's, as far as that has them.
fn with_secrets(entry: &Entry, new: Option<&Entry>) -> Entry {
    let mut entry = entry.clone();
    let keys = new.map_or(&[][..], |new| &new.parts);
    for own in &mut entry.parts {
        let Some(key) = keys.iter().find(|key| key.name == own.name) else {
            continue;
        };
        for (own, wanted) in own.settings.iter_mut().zip(&key.settings) {
            if own.change == Change::Unseen {
                own.value = wanted.value.clone();
            }
        }
    }
    entry
}
