// SPDX-License-Identifier: MIT OR Apache-2.0

//! HTTP, as far as somebody who scrapes needs it: GET and HEAD of `/metrics`, one of a connection.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, Mutex, Semaphore},
    time::timeout,
};
use tracing::{debug, error, info, warn};

/// Where a page goes.
pub type Scrape = oneshot::Sender<String>;

/// Connections at a time; others wait until one of them ends.
pub(super) const CONNECTIONS_MAX: usize = 8;
/// Longest head of a request, in bytes.
pub(super) const HEAD_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;
/// How long a connection may take in all.
const TIME_MAX: Duration = Duration::from_secs(10);
/// So long a page is used for all who ask: to make one takes the daemon's time.
const FRESH: Duration = Duration::from_secs(1);
/// After so long it is tried again to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers at `address`, for ever; pages are asked for by `queue`. The daemon has more to do than that: if the port is
/// taken, or the address is not there yet, it is tried again.
pub async fn serve(address: SocketAddr, queue: mpsc::Sender<Scrape>) {
    let mut trouble = None;
    let server = loop {
        match Server::bind(address) {
            Ok(server) => break server,
            Err(error) => {
                let what = Some(error.to_string());
                if trouble != what {
                    error!("cannot listen on {address}/tcp for metrics: {error}");
                }
                trouble = what;
            }
        }
        tokio::time::sleep(AGAIN).await;
    };
    if trouble.is_some() {
        info!("metrics are answered at {address}/tcp");
    }
    server.serve(queue).await;
}

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Server(TcpListener);

/// What connections share.
struct Shared {
    queue: mpsc::Sender<Scrape>,
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Shared {
    /// A page; nothing, if the daemon ends.
    async fn page(&self) -> Option<Arc<str>> {
        let mut last = self.last.lock().await;
        if let Some((made, page)) = &*last {
            if made.elapsed() < FRESH {
                return Some(page.clone());
            }
        }
        let (sender, page) = oneshot::channel();
        self.queue.send(sender).await.ok()?;
        let page: Arc<str> = page.await.ok()?.into();
        *last = Some((Instant::now(), page.clone()));
        Some(page)
    }
}

impl Server {
    /// Listens at `address`.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self)
    }

    /// Answers, for ever.
    pub(super) async fn serve(self, queue: mpsc::Sender<Scrape>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shared = Arc::new(Shared {
            queue,
            last: Mutex::new(None),
        });
        // It is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            let stream = match self.0.accept().await {
                Ok((stream, _)) => stream,
                // Out of descriptors: not for ever.
                Err(error) => {
                    warn!("accept for metrics: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                let ended = timeout(TIME_MAX, connection(stream, &shared)).await;
                debug!("connection for metrics ended: {ended:?}");
                drop(place);
            });
        }
    }

    /// Where it listens.
    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The page, with or without the body.
    Page { is_head: bool },
    /// What there is not, with the status that says so.
    Other(&'static str),
}

/// What the beginning of a request asks for, as soon as that is clear.
pub(super) fn asked(bytes: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Asked::Other("431 Request Header Fields Too Large"));
        }
        Err(_) => return Some(Asked::Other("400 Bad Request")),
    }
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    Some(match (request.method, path) {
        (Some("GET"), "/metrics") => Asked::Page { is_head: false },
        (Some("HEAD"), "/metrics") => Asked::Page { is_head: true },
        (Some("GET" | "HEAD"), _) => Asked::Other("404 Not Found"),
        _ => Asked::Other("405 Method Not Allowed"),
    })
}

async fn connection(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    let asked = loop {
        if let Some(asked) = asked(&head) {
            break asked;
        }
        let room = part.len().min(HEAD_MAX - head.len());
        let part = part.get_mut(..room).unwrap_or_default();
        match stream.read(part).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            len => head.extend_from_slice(part.get(..len).unwrap_or_default()),
        }
    };
    let none: Arc<str> = "".into();
    let (status, page, is_head) = match asked {
        Asked::Page { is_head } => match shared.page().await {
            Some(page) => ("200 OK", page, is_head),
            None => ("503 Service Unavailable", none, false),
        },
        Asked::Other(status) => (status, none, false),
    };
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    if !is_head {
        stream.write_all(page.as_bytes()).await?;
    }
    stream.shutdown().await
}
