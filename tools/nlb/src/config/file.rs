// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file, checked as far as it can be without the kernel.

use std::{
    collections::HashMap,
    error::Error as _,
    ffi::OsString,
    fmt,
    ops::Range, //
};

use clap::{
    error::{
        ContextKind,
        ContextValue,
        ErrorKind, //
    },
    ArgMatches,
    CommandFactory, //
};
use nlb_netlink::ServiceKey;
use toml::{
    de::{
        DeTable,
        DeValue, //
    },
    Spanned,
};

use super::{
    table::{
        Kind,
        Shape,
        BARE,
        LIMITS, //
    },
    Config,
    Entry,
    Place, //
};
use crate::{
    cli::Cli,
    failure::Failure, //
};

/// The configuration in the text of a file called `name`.
pub(crate) fn parse(name: &str, text: &str) -> Result<Config, Failure> {
    let mut source = Source {
        name,
        text,
        command: Cli::command(),
    };
    source.command.build();
    let file = DeTable::parse(text)
        .map_err(|error| source.mistake(&error.span().unwrap_or(0..0), error.message()))?;
    let mut config = Config::default();
    for (key, value) in file.get_ref() {
        let kind = Kind::wholes().find(|kind| kind.shape().table == key.get_ref());
        let Some(kind) = kind else {
            let kinds: Vec<_> = Kind::wholes().map(|kind| kind.shape().table).collect();
            let what = format!(
                "unknown key `{}`; there are {}",
                key.get_ref(),
                list(&kinds)
            );
            return Err(source.mistake(&key.span(), what));
        };
        config.kinds.push(kind);
        let entries = source.tables(kind.shape(), None, value)?;
        config.entries.extend(entries);
    }
    Ok(config)
}

/// A text with a name, and the parser of its entries.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
    command: clap::Command,
}

/// A key of a table: the text of its value, and where that is.
struct Given {
    value: String,
    span: Range<usize>,
}

impl Source<'_> {
    fn place(&self, at: &Range<usize>) -> Place {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }

    fn mistake(&self, at: &Range<usize>, what: impl fmt::Display) -> Failure {
        Failure::Text(format!("{}:{}: {what}", self.name, self.place(at)))
    }

    /// The entries of an array of tables; `owner` is whose parts they are.
    fn tables(
        &mut self,
        shape: &'static Shape,
        owner: Option<&str>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<Entry>, Failure> {
        let DeValue::Array(array) = value.get_ref() else {
            let header = match shape.kind.owner() {
                Some(owner) => format!("{}.{}", owner.shape().table, shape.table),
                None => shape.table.to_owned(),
            };
            let what = format!("there may be several of them: begin each with [[{header}]]");
            return Err(self.mistake(&value.span(), what));
        };
        let mut entries: Vec<Entry> = Vec::with_capacity(array.len());
        let mut seen: HashMap<(String, u16), Place> = HashMap::new();
        for element in array {
            let DeValue::Table(table) = element.get_ref() else {
                let what = format!("{} is a table with {}", shape.noun, shape.name.0);
                return Err(self.mistake(&element.span(), what));
            };
            let entry = self.entry(shape, owner, &element.span(), table)?;
            let place = self.place(&element.span());
            if let Some(first) = seen.insert((entry.name.clone(), entry.port), place) {
                let what = format!(
                    "{} {} is in line {} already; remove one of them",
                    shape.table, entry.name, first.line
                );
                return Err(self.mistake(&element.span(), what));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// One entry.
    fn entry(
        &mut self,
        shape: &'static Shape,
        owner: Option<&str>,
        span: &Range<usize>,
        table: &DeTable<'_>,
    ) -> Result<Entry, Failure> {
        let part = shape.part.map(Kind::shape);
        let mut given = HashMap::new();
        for (key, value) in table {
            let (key, at) = (key.get_ref().as_ref(), key.span());
            if part.is_some_and(|part| part.table == key) {
                continue;
            }
            let keywords = shape.attributes.keywords();
            if key != shape.name.0 && !keywords.contains(&key) {
                let mut all = vec![shape.name.0];
                all.extend(keywords);
                all.extend(part.map(|part| part.table));
                let what = format!("unknown key `{key}`; {} has {}", shape.noun, list(&all));
                return Err(self.mistake(&at, what));
            }
            let value = self.value(key, value)?;
            given.insert(key.to_owned(), value);
        }
        let Some(name) = given.remove(shape.name.0) else {
            let (key, example) = shape.name;
            let what = format!("{} needs its {key}, like {key} = {example}", shape.noun);
            return Err(self.mistake(span, what));
        };
        self.limits(&given)?;
        let matches = self.matches(shape, owner, span, &name, &given)?;
        let id = |keyword: &str| {
            let command = find(&self.command, shape)?;
            let mut arguments = command.get_arguments();
            let argument = arguments.find(|argument| is_it(argument, keyword))?;
            Some(argument.get_id().to_string())
        };
        let text = (shape.given)(&matches).unwrap_or(name.value);
        let settings = shape.attributes.given(&text, &matches, &id);
        let mut entry = Entry {
            kind: shape.kind,
            name: text,
            port: 0,
            shares_name: false,
            settings,
            parts: Vec::new(),
            place: Some(self.place(span)),
        };
        // The parser was given what a file need not say; see `matches`.
        for own in &mut entry.settings {
            let is_said = given
                .get(own.keyword)
                .is_some_and(|own| own.value != "false");
            if ["secret-file", "unauthenticated"].contains(&own.keyword) && !is_said {
                own.value = None;
            }
        }
        if entry.kind == Kind::Endpoint {
            let port = entry.get("port").and_then(|port| port.parse().ok());
            entry.note_port(owner, port.filter(|port| *port > 0));
            for own in &mut entry.settings {
                if own.keyword == "port" {
                    // One with another port is another endpoint, and 0 is the same as nothing.
                    own.any = true;
                    own.value.take_if(|port| port == "0");
                }
            }
        }
        self.rules(&entry, span, &given)?;
        let parts = part.and_then(|part| Some((part, table.get(part.table)?)));
        if let Some((part, value)) = parts {
            entry.parts = self.tables(part, Some(&entry.name), value)?;
        }
        let is_open = entry.get("unauthenticated").is_some();
        if entry.kind == Kind::Peer && entry.parts.is_empty() != is_open {
            let what = "a peer has either keys ([[peer.key]]) or unauthenticated = true";
            return Err(self.mistake(span, what));
        }
        Ok(entry)
    }

    /// The text of a value.
    fn value(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Given, Failure> {
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| number.to_string()),
            DeValue::Boolean(flag) => Some(flag.to_string()),
            _ => None,
        };
        let span = value.span();
        match text {
            Some(value) => Ok(Given { value, span }),
            None => Err(self.mistake(&span, format!("{key} is a text, a number, true or false"))),
        }
    }

    /// Numbers that the parser would pass on to the kernel.
    fn limits(&self, given: &HashMap<String, Given>) -> Result<(), Failure> {
        for (keyword, most) in LIMITS {
            let Some(given) = given.get(*keyword) else {
                continue;
            };
            if given.value.parse().is_ok_and(|number: u64| number > *most) {
                let what = format!("{keyword} is {}; the most is {most}", given.value);
                return Err(self.mistake(&given.span, what));
            }
        }
        Ok(())
    }

    /// What the command `add` makes of an entry.
    fn matches(
        &mut self,
        shape: &Shape,
        owner: Option<&str>,
        span: &Range<usize>,
        name: &Given,
        given: &HashMap<String, Given>,
    ) -> Result<ArgMatches, Failure> {
        let mut line = vec!["nlb".to_owned()];
        line.extend(shape.object.iter().map(|&word| word.to_owned()));
        line.push("add".to_owned());
        line.extend(owner.map(str::to_owned));
        match shape.keyword {
            Some(keyword) => line.push(format!("--{keyword}={}", name.value)),
            None => line.push(name.value.clone()),
        }
        let command = find(&self.command, shape);
        for (keyword, given) in given {
            let mut arguments = command.iter().flat_map(|command| command.get_arguments());
            let argument = arguments.find(|argument| is_it(argument, keyword));
            if argument.is_some_and(clap::Arg::is_positional) {
                line.push(given.value.clone());
                continue;
            }
            let takes = argument.is_some_and(|argument| argument.get_action().takes_values());
            match (takes, given.value.as_str()) {
                (true, value) => line.push(format!("--{keyword}={value}")),
                (false, "true") => line.push(format!("--{keyword}")),
                (false, "false") => {}
                (false, value) => {
                    let what = format!("{keyword} is `{value}`; it is true or false");
                    return Err(self.mistake(&given.span, what));
                }
            }
        }
        // What `add` insists on and a file need not say, or says by parts.
        match shape.kind {
            Kind::Key if !given.contains_key("secret-file") => {
                line.push("--secret-file=none".to_owned());
            }
            Kind::Peer if !line.iter().any(|word| word == "--unauthenticated") => {
                line.push("--unauthenticated".to_owned());
            }
            _ => {}
        }
        let line = line.into_iter().map(OsString::from);
        match self.command.try_get_matches_from_mut(line) {
            Ok(mut matches) => {
                while let Some((_, below)) = matches.remove_subcommand() {
                    matches = below;
                }
                Ok(matches)
            }
            Err(error) => Err(self.refused(shape, span, name, given, &error)),
        }
    }

    /// Why the command line did not take an entry.
    fn refused(
        &self,
        shape: &Shape,
        span: &Range<usize>,
        name: &Given,
        given: &HashMap<String, Given>,
        error: &clap::Error,
    ) -> Failure {
        let context = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            Some(ContextValue::Strings(texts)) => texts.join(", "),
            _ => String::new(),
        };
        let argument = context(ContextKind::InvalidArg);
        let bare = format!("<{}>", BARE.to_uppercase());
        let keyword = argument
            .strip_prefix("--")
            .and_then(|text| text.split([' ', '=', ',']).next())
            .or((argument == bare).then_some(BARE));
        if error.kind() == ErrorKind::MissingRequiredArgument {
            // One of several, like <--from <PREFIX>|--to <VIP>>.
            let any: Vec<_> = argument
                .split(['<', '>', '|', ' '])
                .filter_map(|word| word.strip_prefix("--"))
                .collect();
            let missing = match any.split_last() {
                Some((last, others @ [_, ..])) => format!("{} or {last}", others.join(", ")),
                _ => keyword.unwrap_or(&argument).to_owned(),
            };
            return self.mistake(span, format!("{} needs {missing}", shape.noun));
        }
        let (key, at) = match keyword.and_then(|keyword| Some((keyword, given.get(keyword)?))) {
            Some((keyword, given)) => (keyword, given),
            None => (shape.name.0, name),
        };
        let valid = context(ContextKind::ValidValue);
        let what = match error.source() {
            _ if !valid.is_empty() => format!("`{}` for {key} is none of {valid}", at.value),
            Some(source) if source.to_string().contains(&format!("`{}`", at.value)) => {
                source.to_string()
            }
            Some(source) => format!("`{}` for {key}: {source}", at.value),
            None => {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                line.trim_start_matches("error: ").to_owned()
            }
        };
        self.mistake(&at.span, what)
    }

    /// What the kernel would refuse of an entry, whatever it has.
    fn rules(
        &self,
        entry: &Entry,
        span: &Range<usize>,
        given: &HashMap<String, Given>,
    ) -> Result<(), Failure> {
        let only = |keyword: &str, mode: &str| match given.get(keyword) {
            Some(given) if entry.get("mode") != Some(mode) => {
                Err(self.mistake(&given.span, format!("only mode {mode} has a {keyword}")))
            }
            _ => Ok(()),
        };
        match entry.kind {
            Kind::Service => {
                for keyword in ["scheduler", "affinity", "prefix", "slow-start"] {
                    only(keyword, "l4")?;
                }
                only("classifier", "peek")?;
                for keyword in ["fin-timeout", "syn-timeout", "miss-timeout"] {
                    match given.get(keyword) {
                        Some(given) if !entry.name.ends_with("/tcp") => {
                            let what = format!("only TCP has a {keyword}");
                            return Err(self.mistake(&given.span, what));
                        }
                        _ => {}
                    }
                }
                if let Some(given) = given.get("one-packet") {
                    if !entry.name.ends_with("/udp") {
                        let what = "only UDP is scheduled packet by packet".to_owned();
                        return Err(self.mistake(&given.span, what));
                    }
                }
                if entry.get("mode") == Some("peek") && !entry.name.ends_with("/tcp") {
                    return Err(self.mistake(span, "mode peek needs TCP"));
                }
                let is_wide = entry
                    .name
                    .parse()
                    .is_ok_and(|key: ServiceKey| key.socket().is_none());
                if entry.get("mode") == Some("peek") && entry.get("classifier").is_none() && is_wide
                {
                    let what = "mode peek with several ports needs a classifier";
                    return Err(self.mistake(span, what));
                }
                Ok(())
            }
            Kind::Rule if entry.get("to").is_some_and(|to| to.contains('/')) => {
                match given.get("proto") {
                    Some(given) => {
                        let what = "proto is for rules without a port, which has one already";
                        Err(self.mistake(&given.span, what))
                    }
                    None => Ok(()),
                }
            }
            Kind::Key if entry.get("secret-file") == Some("-") => {
                let what = "the secret cannot come from standard input; name a file";
                let at = given.get("secret-file").map_or(span, |given| &given.span);
                Err(self.mistake(at, what))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a keyword of a file is an argument's.
fn is_it(argument: &clap::Arg, keyword: &str) -> bool {
    match argument.get_long() {
        Some(long) => long == keyword,
        None => argument.get_id() == keyword && keyword == BARE,
    }
}

/// The command that adds objects of a kind.
fn find<'a>(root: &'a clap::Command, shape: &Shape) -> Option<&'a clap::Command> {
    let mut command = root;
    for word in shape.object.iter().chain(&["add"]) {
        command = command.find_subcommand(word)?;
    }
    Some(command)
}

/// Words, the last after "and".
fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
