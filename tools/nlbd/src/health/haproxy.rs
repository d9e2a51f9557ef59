// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend of a HAProxy, through its runtime API (the load balancer 1706 of FIG. 17B, which has no cache of its own):
//! what its servers do, and what they are told. The API is that of `stats socket`, described in HAProxy's management
//! guide: a line of commands, divided by semicolons; what each has to say ends with an empty line; then HAProxy closes
//! the connection.

use super::{
    balancer::{Balancer, Refused, Seen, Trouble},
    plan::{Change, Seat},
};
use nlb_netlink::{EndpointState, ServiceKey};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    runtime::Handle,
    time::timeout,
};

/// Longest answer that is read: of some 30,000 servers.
const ANSWER_MAX: usize = 4 << 20;
/// Longest text of HAProxy's that is repeated.
const TEXT_MAX: usize = 200;
/// The format of `show servers state` that is known.
const FORMAT: &str = "1";
/// Bits of `srv_admin_state`: what was forced. Others are of the configuration, of DNS or of a server that is tracked.
const FORCED_MAINT: u32 = 0x01;
const FORCED_DRAIN: u32 = 0x08;

/// Where HAProxy can be told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// Of the loopback.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(at) => at.fmt(f),
        }
    }
}

/// Which backend, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: Address,
    pub(crate) backend: String,
    /// What its servers serve.
    pub(crate) service: ServiceKey,
    /// Whether weights are set.
    pub(crate) has_weights: bool,
    /// For an answer.
    pub(crate) timeout: Duration,
}

/// Whether it may be the name of a backend or a server: what HAProxy takes, and nothing that could be a command.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=255).contains(&name.len()) && name.chars().all(fits)
}

/// A backend that is governed.
pub(crate) struct Haproxy {
    entry: Entry,
    /// Of those that were seen last, in their order.
    servers: Vec<String>,
    /// The process that was seen last.
    process: Option<Process>,
}

/// What tells one process from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    id: String,
    /// When it began; HAProxy before 2.5 does not say so.
    start: Option<String>,
}

/// A server as HAProxy shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) host: IpAddr,
    /// 0: that of the connection.
    pub(crate) port: u16,
    pub(crate) state: EndpointState,
    pub(crate) weight: u32,
}

impl Haproxy {
    pub(crate) fn new(entry: Entry) -> Self {
        Self {
            entry,
            servers: Vec::new(),
            process: None,
        }
    }

    /// Says a line of `count` commands: what each has to say, nothing if all is well. Blocks.
    fn ask(&self, line: &str, count: usize) -> Result<Vec<String>, String> {
        let limit = self.entry.timeout;
        let asked = Handle::current()
            .block_on(async { timeout(limit, ask(&self.entry.address, line)).await });
        // A queue that is full of connections which nobody takes is no answer, either.
        let asked = match asked {
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(asked) => Some(asked),
            Err(_) => None,
        };
        let answer = match asked {
            Some(answer) => answer.map_err(|error| remedy(&error))?,
            None => {
                let limit = limit.as_millis();
                return Err(format!(
                    "no answer within {limit} ms; if that is the machine's load, raise timeout_ms"
                ));
            }
        };
        let text = String::from_utf8(answer).map_err(|_| "the answer is no text".to_owned())?;
        let answers = answers(&text, count).ok_or_else(|| {
            let text = shorten(&text);
            format!("not an answer of HAProxy's, or only a part of one: \"{text}\"")
        })?;
        Ok(answers.into_iter().map(str::to_owned).collect())
    }
}

impl Balancer for Haproxy {
    fn look(&mut self) -> Result<Seen, Trouble> {
        let entry = &self.entry;
        let backend = &entry.backend;
        let answers = self.ask(&format!("show info; show servers state {backend}\n"), 2)?;
        let [info, state] = answers.as_slice() else {
            return Err("no answer".to_owned().into());
        };
        let process = process(info)?;
        let servers = servers(state, backend)?;
        let is_new = self.process.as_ref() != Some(&process);
        let seats = servers.iter().map(|server| Seat {
            service: entry.service,
            host: server.host,
            port: (server.port != 0).then_some(server.port),
            state: server.state,
            weight: entry.has_weights.then_some(server.weight),
        });
        let seen = Seen {
            services: vec![entry.service],
            seats: seats.collect(),
            is_new,
        };
        self.process = Some(process);
        self.servers = servers.into_iter().map(|server| server.name).collect();
        Ok(seen)
    }

    fn set(&mut self, change: &Change) -> Result<(), Refused> {
        let name = self.servers.get(change.number).ok_or(Refused::Gone)?;
        let commands = commands(&self.entry.backend, name, change);
        let line = format!("{}\n", commands.join("; "));
        let answers = self.ask(&line, commands.len()).map_err(Refused::All)?;
        let mut all = commands.iter().zip(answers);
        match all.find(|(_, answer)| !answer.is_empty()) {
            None => Ok(()),
            Some((command, answer)) => Err(refused(command, &answer)),
        }
    }

    fn named(&self, change: &Change) -> String {
        let name = self.servers.get(change.number).map_or("", String::as_str);
        format!("{}/{name} ({})", self.entry.backend, change.host)
    }
}

async fn ask(address: &Address, line: &str) -> io::Result<Vec<u8>> {
    match address {
        Address::Unix(path) => exchange(UnixStream::connect(path).await?, line).await,
        Address::Tcp(at) => exchange(TcpStream::connect(at).await?, line).await,
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
) -> io::Result<Vec<u8>> {
    stream.write_all(line.as_bytes()).await?;
    let mut answer = Vec::new();
    let most = ANSWER_MAX as u64;
    stream.take(most + 1).read_to_end(&mut answer).await?;
    if answer.len() > ANSWER_MAX {
        let what = format!("the answer is longer than {ANSWER_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(answer)
}

/// What somebody can do who reads it.
fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("{error}; does it run, with this `stats socket`?")
        }
        io::ErrorKind::PermissionDenied => format!(
            "{error}; let nlbd write to the socket: `mode` and `group` of `stats socket`, and in nlbd's unit \
             SupplementaryGroups="
        ),
        _ => error.to_string(),
    }
}

fn shorten(text: &str) -> String {
    let short = text.chars().take(TEXT_MAX);
    short.flat_map(char::escape_debug).collect()
}

/// What each of `count` commands has to say.
pub(crate) fn answers(text: &str, count: usize) -> Option<Vec<&str>> {
    let mut rest = text;
    let mut answers = Vec::new();
    for _ in 0..count {
        let (answer, after) = match rest.strip_prefix('\n') {
            Some(after) => ("", after),
            None => rest.split_once("\n\n")?,
        };
        answers.push(answer);
        rest = after;
    }
    rest.is_empty().then_some(answers)
}

/// Which process has answered `show info`.
pub(crate) fn process(info: &str) -> Result<Process, String> {
    let field = |name: &str| {
        let mut fields = info.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    };
    // It gets no new connections, and what it does says nothing of the one that does.
    if field("Stopping").is_some_and(|stopping| stopping != "0") {
        return Err("the process that answers is about to end".to_owned());
    }
    let id =
        field("Pid").ok_or_else(|| format!("no answer to `show info`: \"{}\"", shorten(info)))?;
    let start = field("Start_time_sec");
    Ok(Process { id, start })
}

/// The servers with an IP address, of an answer to `show servers state`.
pub(crate) fn servers(state: &str, backend: &str) -> Result<Vec<Server>, String> {
    let mut lines = state.lines();
    let first = lines.next().unwrap_or_default();
    if first == "Can't find backend." {
        return Err(format!(
            "it has no backend {backend}: name the one that is in its configuration"
        ));
    }
    if first != FORMAT {
        return Err(format!(
            "the format of `show servers state` is not {FORMAT}: \"{}\"",
            shorten(first)
        ));
    }
    let heads = lines.next().and_then(|line| line.strip_prefix("# "));
    let heads: Vec<_> = heads.unwrap_or_default().split(' ').collect();
    let mut servers = Vec::new();
    for line in lines {
        let fields: Vec<_> = line.split(' ').collect();
        let field = |name: &str| -> Option<&str> {
            let at = heads.iter().position(|head| *head == name)?;
            fields.get(at).copied()
        };
        let server = || -> Option<Option<Server>> {
            let (name, own) = (field("srv_name")?, field("be_name")?);
            let admin: u32 = field("srv_admin_state")?.parse().ok()?;
            let weight = field("srv_uweight")?.parse().ok()?;
            let port = field("srv_port")?.parse().ok()?;
            if own != backend || !is_name(name) {
                return None;
            }
            // That of a Unix socket, or of a name that DNS does not know, has none.
            let Ok(host) = field("srv_addr")?.parse() else {
                return Some(None);
            };
            let state = if admin & FORCED_MAINT != 0 {
                EndpointState::Inactive
            } else if admin & FORCED_DRAIN != 0 {
                EndpointState::Draining
            } else {
                EndpointState::Active
            };
            Some(Some(Server {
                name: name.to_owned(),
                host,
                port,
                state,
                weight,
            }))
        };
        let server = server()
            .ok_or_else(|| format!("not a line of `show servers state`: \"{}\"", shorten(line)))?;
        servers.extend(server);
    }
    Ok(servers)
}

/// The commands that make a change.
pub(crate) fn commands(backend: &str, name: &str, change: &Change) -> Vec<String> {
    let server = format!("{backend}/{name}");
    let mut commands = Vec::new();
    if let Some(weight) = change.change.weight {
        commands.push(format!("set server {server} weight {weight}"));
    }
    if let Some(state) = change.change.state {
        let word = match state {
            EndpointState::Active => "ready",
            EndpointState::Draining => "drain",
            _ => "maint",
        };
        commands.push(format!("set server {server} state {word}"));
        if state == EndpointState::Inactive {
            commands.push(format!("shutdown sessions server {server}"));
        }
    }
    commands
}

/// What it means that a command has something to say.
fn refused(command: &str, answer: &str) -> Refused {
    let what = format!("`{command}`: {}", shorten(answer));
    match answer {
        "No such server." | "No such backend." => Refused::Gone,
        "Permission denied" => {
            Refused::All(format!("{what}; write `level admin` behind `stats socket`"))
        }
        _ if answer.contains("static LB algorithm") => Refused::This(format!(
            "{what} Choose a dynamic one, such as `balance roundrobin`, or say weights = false"
        )),
        _ => Refused::This(what),
    }
}
