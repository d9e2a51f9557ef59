// SPDX-License-Identifier: MIT OR Apache-2.0

//! The classifier: accept, peek, place, migrate.

use crate::{
    config::{
        Config,
        Failed, //
    },
    endpoints::{
        Endpoints,
        Reader, //
    },
    migrate::{
        Kernel,
        Migrate,
        Workers, //
    },
    peek::{
        peek,
        Peeked, //
    },
    pool::Pool,
    stats::{
        count,
        Counters, //
    }, //
};
use rustix::{
    net::{
        sockopt,
        AddressFamily,
        SocketFlags,
        SocketType, //
    },
    process::{
        Resource,
        Rlimit, //
    },
};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        RwLock, //
    },
    thread,
    time::Duration, //
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpListener,
        TcpStream, //
    },
    signal::unix::{
        signal,
        SignalKind, //
    },
    sync::Semaphore, //
};
use tracing::{
    debug,
    error,
    info,
    warn, //
};

/// Connections that the kernel may hold for each VIP before we accept them; it may allow fewer.
const BACKLOG: i32 = 4096;

/// The answer where no endpoint took the connection.
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";

/// How much of a request that was refused is read, and for how long, so that closing does not take
/// the answer away with a RST.
const DRAIN_BYTES: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How often the weights of endpoints are read.
const READ_EVERY: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Classifier {
    config: RwLock<Arc<Config>>,
    pub(crate) endpoints: Endpoints,
    workers: Workers,
    pub(crate) counters: Counters,
}

/// Runs until a signal says to end.
pub(crate) fn run(path: &Path, config: Config) -> io::Result<()> {
    raise_file_limit(config.max_connections);
    let migrators = (0..config.workers)
        .map(|_| Box::new(Kernel::default()) as Box<dyn Migrate>)
        .collect();
    let classifier = Classifier::new(config, migrators)?;
    classifier.clone().follow_endpoints()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(classifier.serve(path));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

impl Classifier {
    /// A classifier whose connections are moved by `migrators`.
    pub(crate) fn new(config: Config, migrators: Vec<Box<dyn Migrate>>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            workers: Workers::start(migrators)?,
            config: RwLock::new(Arc::new(config)),
            endpoints: Endpoints::default(),
            counters: Counters::default(),
        }))
    }

    fn config(&self) -> Arc<Config> {
        match self.config.read() {
            Ok(config) => Arc::clone(&config),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    /// Reads what endpoints can take, now and from time to time, while a pool goes by it.
    fn follow_endpoints(self: Arc<Self>) -> io::Result<()> {
        let mut reader = Reader::default();
        let mut read = move || {
            if self.config().follows() {
                reader.read(&self.endpoints);
            }
        };
        read();
        let forever = move || loop {
            thread::sleep(READ_EVERY);
            read();
        };
        thread::Builder::new()
            .name("endpoints".into())
            .spawn(forever)?;
        Ok(())
    }

    async fn serve(self: Arc<Self>, path: &Path) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut user = signal(SignalKind::user_defined1())?;
        let config = self.config();
        let room = Arc::new(Semaphore::new(config.max_connections));
        for addr in &config.listen {
            let listener = listen(*addr).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
            })?;
            info!(%addr, "listening");
            tokio::spawn(Arc::clone(&self).accept(listener, Arc::clone(&room)));
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => self.reload(path),
                _ = user.recv() => info!("{}", self.counters),
            }
        }
        info!("{}", self.counters);
        Ok(())
    }

    fn reload(&self, path: &Path) {
        match Config::load(path) {
            Ok(config) => {
                let config = Arc::new(config);
                match self.config.write() {
                    Ok(mut old) => *old = config,
                    Err(poisoned) => *poisoned.into_inner() = config,
                }
                info!("configuration read again");
            }
            Err(mistake) => error!("the old configuration stays: {mistake}"),
        }
    }

    /// Takes connections for as long as there is room; the others wait in the kernel's queue.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, room: Arc<Semaphore>) {
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        this.connection(stream, client).await;
                        drop(permit);
                    });
                }
                // The client went away, or we are out of descriptors: neither is for ever.
                Err(error) => {
                    debug!("accept: {error}");
                    drop(permit);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream, client: SocketAddr) {
        let config = self.config();
        let counters = &self.counters;
        count(&counters.accepted);
        let pool = match peek(&stream, config.peek_bytes, config.peek_timeout).await {
            Peeked::Request(request) => {
                count(&counters.placed);
                debug!(%client, method = request.method, path = request.path, host = request.host);
                config.rules.place(&request)
            }
            other => {
                count(match other {
                    Peeked::TooLong => &counters.too_long,
                    Peeked::Late { silent: true } => &counters.silent,
                    Peeked::Late { silent: false } => &counters.slow,
                    Peeked::Ended => &counters.ended,
                    _ => &counters.not_http,
                });
                debug!(%client, "can not be placed: {other:?}");
                match other {
                    // Nobody is there to be served.
                    Peeked::Ended => None,
                    _ => config.rules.unplaced.as_ref(),
                }
            }
        };
        match pool {
            Some(pool) => self.migrate(stream, client, pool, &config).await,
            None => count(&counters.closed),
        }
    }

    async fn migrate(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        pool: &Arc<Pool>,
        config: &Config,
    ) {
        let endpoints = stream
            .local_addr()
            .ok()
            .and_then(|vip| self.endpoints.of(vip));
        let mut hosts = pool.turn(endpoints.as_deref());
        // A pool that fails may still leave the default.
        if let Some(default) = config
            .rules
            .default
            .as_ref()
            .filter(|other| !Arc::ptr_eq(other, pool))
        {
            let more = default
                .turn(endpoints.as_deref())
                .into_iter()
                .filter(|host| !hosts.contains(host));
            hosts.extend(more.collect::<Vec<_>>());
        }
        let Ok(socket) = stream.into_std() else {
            return;
        };
        let outcome = self
            .workers
            .hand_over(socket, hosts, config.migrate_timeout)
            .await;
        let Some(outcome) = outcome else {
            return;
        };
        for (host, reason) in outcome.refusals {
            count(&self.counters.refused);
            warn!(%client, %host, "stayed here: {reason}");
        }
        match outcome.end {
            Ok(host) => {
                count(&self.counters.migrated);
                debug!(%client, %host, "moved");
            }
            Err(socket) => {
                count(&self.counters.failed);
                if config.failed == Failed::Answer {
                    unavailable(socket).await;
                }
            }
        }
    }
}

/// Says that nobody is there to serve the request.
async fn unavailable(socket: std::net::TcpStream) {
    let Ok(mut stream) = TcpStream::from_std(socket) else {
        return;
    };
    let answer = async {
        stream.write_all(UNAVAILABLE).await?;
        stream.shutdown().await?;
        let mut scrap = vec![0; 16 * 1024];
        let mut left = DRAIN_BYTES;
        while left > 0 {
            stream.readable().await?;
            match stream.try_read(&mut scrap) {
                Ok(0) => break,
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(DRAIN_TIME, answer).await;
}

/// A listener on a VIP, which the machine may get later.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match addr {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Allows as many descriptors as connections may need, as far as we are allowed to.
fn raise_file_limit(connections: usize) {
    let wanted = connections as u64 + 256;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let both = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum.map(|maximum| maximum.max(wanted)),
    };
    let soft = Rlimit {
        current: limit.maximum.map(|maximum| maximum.min(wanted)),
        maximum: limit.maximum,
    };
    if rustix::process::setrlimit(Resource::Nofile, both).is_err()
        && rustix::process::setrlimit(Resource::Nofile, soft).is_err()
    {
        warn!("cannot raise the limit of open files to {wanted}");
    }
}
