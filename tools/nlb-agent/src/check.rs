// SPDX-License-Identifier: MIT OR Apache-2.0

//! External checks: whether an application answers, asked again and again.

use nlb_health::row::Health;
use std::{
    fmt,
    io,
    net::SocketAddr,
    process::Stdio,
    time::Duration, //
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::mpsc,
    time::{interval, timeout, MissedTickBehavior},
};

/// As much of an answer to HTTP is looked at.
const ANSWER_MAX: u64 = 64 * 1024;

/// How an application is looked at, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) probe: Probe,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// So many good results in a row, and it is healthy.
    pub(crate) rise: u64,
    /// So many bad ones, and it is failing.
    pub(crate) fall: u64,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It accepts a connection.
    Tcp(SocketAddr),
    /// It answers a GET with one of these statuses (200 to 299 if none is named), and with that text somewhere.
    Http {
        address: SocketAddr,
        path: String,
        host: String,
        status: Vec<u16>,
        body: Option<String>,
    },
    /// The command succeeds.
    Command(Vec<String>),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Http { address, path, .. } => write!(f, "http {address}{path}"),
            Self::Command(words) => write!(f, "command {}", words.join(" ")),
        }
    }
}

/// What a check has found, when that has changed.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The name of the application.
    pub(crate) app: String,
    /// Which of its checks.
    pub(crate) index: usize,
    /// Since when checks are these: each reading of the configuration counts.
    pub(crate) generation: u64,
    pub(crate) health: Health,
    /// Why it is not healthy.
    pub(crate) why: Option<String>,
}

/// Results in a row make a verdict.
#[derive(Debug)]
pub(crate) struct Hysteresis {
    healthy: Option<bool>,
    others: u64,
}

impl Hysteresis {
    /// Goes on from what is known.
    pub(crate) fn after(health: Health) -> Self {
        let healthy = match health {
            Health::Unknown => None,
            Health::Healthy => Some(true),
            Health::Failing => Some(false),
        };
        Self { healthy, others: 0 }
    }

    /// The new verdict, if this result makes one. The first result does, if nothing was known.
    pub(crate) fn take(&mut self, check: &Check, is_good: bool) -> Option<bool> {
        if self.healthy == Some(is_good) {
            self.others = 0;
            return None;
        }
        self.others += 1;
        let needed = if is_good { check.rise } else { check.fall };
        if self.healthy.is_some() && self.others < needed {
            return None;
        }
        self.others = 0;
        self.healthy = Some(is_good);
        self.healthy
    }
}

impl Check {
    /// Looks for ever, and tells what changes from what was known `before`.
    pub(crate) async fn watch(
        self,
        app: String,
        index: usize,
        generation: u64,
        before: Health,
        verdicts: mpsc::Sender<Verdict>,
    ) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hysteresis = Hysteresis::after(before);
        loop {
            ticks.tick().await;
            let result = match timeout(self.timeout, self.probe.look()).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer in {} ms", self.timeout.as_millis())),
            };
            let Some(is_healthy) = hysteresis.take(&self, result.is_ok()) else {
                continue;
            };
            let verdict = Verdict {
                app: app.clone(),
                index,
                generation,
                health: if is_healthy {
                    Health::Healthy
                } else {
                    Health::Failing
                },
                why: result.err().map(|why| format!("{}: {why}", self.probe)),
            };
            if verdicts.send(verdict).await.is_err() {
                return;
            }
        }
    }
}

impl Probe {
    /// Looks once. What is wrong is said in words.
    async fn look(&self) -> Result<(), String> {
        match self {
            Self::Tcp(address) => {
                let connected = TcpStream::connect(address).await;
                connected.map(drop).map_err(|error| error.to_string())
            }
            Self::Http {
                address,
                path,
                host,
                status,
                body,
            } => {
                let answer = get(*address, path, host).await;
                let answer = answer.map_err(|error| error.to_string())?;
                judge(&answer, status, body.as_deref())
            }
            Self::Command(words) => {
                let Some((program, arguments)) = words.split_first() else {
                    return Ok(());
                };
                let ended = Command::new(program)
                    .args(arguments)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    // One that takes too long is dropped with what waits for it.
                    .kill_on_drop(true)
                    .status()
                    .await
                    .map_err(|error| error.to_string())?;
                if ended.success() {
                    Ok(())
                } else {
                    Err(ended.to_string())
                }
            }
        }
    }
}

/// The answer to a GET, as far as it is looked at.
async fn get(address: SocketAddr, path: &str, host: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: nlb-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Whether an answer is as it shall be.
pub(crate) fn judge(answer: &[u8], status: &[u16], body: Option<&str>) -> Result<(), String> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(answer) {
        Ok(httparse::Status::Complete(head)) => head,
        _ => return Err("no answer in HTTP/1.x".to_owned()),
    };
    let code = response.code.unwrap_or(0);
    let is_wanted = if status.is_empty() {
        (200..300).contains(&code)
    } else {
        status.contains(&code)
    };
    if !is_wanted {
        return Err(format!("status {code}"));
    }
    let Some(text) = body.map(str::as_bytes).filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    let rest = answer.get(head..).unwrap_or_default();
    if rest.windows(text.len()).any(|part| part == text) {
        Ok(())
    } else {
        Err("the text is not in the body".to_owned())
    }
}
