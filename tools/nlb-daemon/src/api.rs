// SPDX-License-Identifier: MIT OR Apache-2.0

//! Local sockets for requests: streams of the Unix domain, on which each request is a line, and each answer. What is
//! in the lines is the daemon's; here is who may send them, and how much.
//!
//! Only users who are admitted get an answer, as the kernel names them (`SO_PEERCRED`). Lines, and connections of a
//! user, have bounds, and of the answers to a user one is there at a time; there are as many users as the configuration
//! names. A connection may be idle for as long as it likes: applications hold it to say that they are there.
//!
//! After some requests a connection is for what happens alone ([`crate::feed`]).

use crate::feed::Watch;
use rustix::{
    fs::{flock, FlockOperation},
    io::Errno,
    net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch, Semaphore},
};
use tracing::{debug, warn};

/// Longest request, in bytes, with its newline.
pub const LINE_MAX: usize = 4096;
/// Connections of one user at a time. Users are few: those that the configuration names.
const OF_USER_MAX: usize = 128;
/// How long a client may take to read an answer.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// Counts the connections.
    pub connection: u64,
}

/// What comes from clients.
#[derive(Debug)]
pub enum Message {
    /// A request, and where its answer goes.
    Line(Caller, String, oneshot::Sender<Answer>),
    /// The connection has ended.
    Closed(Caller),
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// A line, without the newline.
    Line(String),
    /// A line, and behind it all that happens, until the connection ends.
    Feed(String, Watch),
}

impl From<String> for Answer {
    fn from(line: String) -> Self {
        Self::Line(line)
    }
}

/// Users who get an answer.
pub type Admitted = std::collections::BTreeSet<u32>;

/// Those who are admitted everywhere: root, and the user that the daemon runs as.
pub fn trusted() -> Admitted {
    [0, rustix::process::geteuid().as_raw()].into()
}

/// A socket that listens. It is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it is.
    identity: (u64, u64),
    /// Whoever has it may take the path. The file stays: who waits for one that is removed has nothing.
    _lock: File,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody may have put another one there.
        if identity(&self.path).is_ok_and(|own| own == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// The right to listen at `path`, until it is closed.
fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(name)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ErrorKind::AddrInUse.into()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the socket of a daemon that has ended, and nothing else.
fn remove_old(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        let what = "there is a file that is no socket";
        return Err(io::Error::new(ErrorKind::AlreadyExists, what));
    }
    match is_answered(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        // Somebody is there; to listen says what is wrong.
        _ => Ok(()),
    }
}

/// Whether somebody listens there, who need not accept: that is not waited for.
fn is_answered(path: &Path) -> rustix::io::Result<()> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

impl Server {
    /// Listens at `path`. What is left of a daemon that has ended is replaced. Everybody may connect.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            let what = format!("cannot listen on {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        };
        let lock = lock(path).map_err(named)?;
        remove_old(path).map_err(named)?;
        let listener = UnixListener::bind(path).map_err(named)?;
        let server = Self {
            listener,
            path: path.to_owned(),
            identity: identity(path).map_err(named)?,
            _lock: lock,
        };
        fs::set_permissions(path, PermissionsExt::from_mode(0o666)).map_err(named)?;
        Ok(server)
    }

    /// Passes on what comes, for ever.
    pub async fn serve(self, admitted: watch::Receiver<Admitted>, queue: mpsc::Sender<Message>) {
        let connections = AtomicU64::new(0);
        let of_users = Arc::new(Mutex::new(BTreeMap::new()));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                // Out of descriptors: not for ever.
                Err(error) => {
                    warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(peer) = stream.peer_cred() else {
                continue;
            };
            let caller = Caller {
                uid: peer.uid(),
                connection: connections.fetch_add(1, Ordering::Relaxed),
            };
            if !admitted.borrow().contains(&caller.uid) {
                debug!(uid = caller.uid, "refused");
                refuse(stream, STRANGER);
                continue;
            }
            let Some(place) = Place::take(&of_users, caller.uid) else {
                refuse(stream, "too many connections of this user");
                continue;
            };
            let (queue, admitted) = (queue.clone(), admitted.clone());
            tokio::spawn(async move {
                let ended = connection(stream, caller, &place.turn, &admitted, &queue).await;
                debug!(?caller, "connection ended: {ended:?}");
                let _ = queue.send(Message::Closed(caller)).await;
                drop(place);
            });
        }
    }
}

/// What users are told who are not admitted.
const STRANGER: &str = "this user may not ask here";

/// A line that is an error, as JSON: `text` has nothing that would have to be escaped.
fn error(text: &str) -> String {
    format!("{{\"error\":\"{text}\"}}\n")
}

fn refuse(stream: UnixStream, text: &str) {
    // There is room for it in a connection that is new.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(error(text).as_bytes());
    }
}

/// A user who has connections.
struct User {
    connections: usize,
    /// Whose request is answered: an answer may be long, and is kept until it was read.
    turn: Arc<Semaphore>,
}

type Users = Arc<Mutex<BTreeMap<u32, User>>>;

/// One of the connections that a user may have.
struct Place {
    users: Users,
    uid: u32,
    turn: Arc<Semaphore>,
}

impl Place {
    fn take(of_users: &Users, uid: u32) -> Option<Self> {
        let mut users = of_users.lock().unwrap_or_else(PoisonError::into_inner);
        let user = users.entry(uid).or_insert_with(|| User {
            connections: 0,
            turn: Arc::new(Semaphore::new(1)),
        });
        if user.connections >= OF_USER_MAX {
            return None;
        }
        user.connections += 1;
        Some(Self {
            users: of_users.clone(),
            uid,
            turn: user.turn.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = users.get_mut(&self.uid) {
            user.connections -= 1;
            if user.connections == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

async fn connection(
    stream: UnixStream,
    caller: Caller,
    turn: &Semaphore,
    admitted: &watch::Receiver<Admitted>,
    queue: &mpsc::Sender<Message>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(LINE_MAX, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LINE_MAX as u64);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        // Nobody closes it.
        let own_turn = turn.acquire().await;
        // A new configuration may not admit who was admitted when the connection was made.
        let is_stranger = !admitted.borrow().contains(&caller.uid);
        let is_long = line.len() == LINE_MAX && line.last() != Some(&b'\n');
        let text = String::from_utf8(std::mem::take(&mut line));
        let mut feed = None;
        let answer = match text {
            _ if is_stranger => error(STRANGER),
            Ok(text) if !is_long => {
                let (sender, answer) = oneshot::channel();
                let message = Message::Line(caller, text, sender);
                if queue.send(message).await.is_err() {
                    return Ok(());
                }
                match answer.await {
                    Ok(Answer::Line(answer)) => answer + "\n",
                    Ok(Answer::Feed(answer, watch)) => {
                        feed = Some(watch);
                        answer + "\n"
                    }
                    Err(_) => return Ok(()),
                }
            }
            _ => error("a request is a line of UTF-8, of up to 4096 bytes"),
        };
        match tokio::time::timeout(WRITE_TIME, writer.write_all(answer.as_bytes())).await {
            Ok(written) => written?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        // What is left of it is no request.
        if is_long || is_stranger {
            return Ok(());
        }
        if let Some(feed) = feed {
            drop(own_turn);
            return follow(reader, writer, caller, admitted, feed).await;
        }
    }
}

/// Passes on what happens. Who reads slowly is waited for here, and by nobody else.
async fn follow(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    caller: Caller,
    admitted: &watch::Receiver<Admitted>,
    mut feed: Watch,
) -> io::Result<()> {
    let mut more = [0];
    loop {
        let line = tokio::select! {
            line = feed.next() => line,
            // It ends; or it asks for something else, for which it takes another connection.
            read = reader.read(&mut more) => return read.map(drop),
        };
        if !admitted.borrow().contains(&caller.uid) {
            return writer.write_all(error(STRANGER).as_bytes()).await;
        }
        let line = format!("{line}\n");
        writer.write_all(line.as_bytes()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, Read},
        os::unix::net::UnixStream as StdStream,
    };

    fn say(path: &Path, bytes: &[u8]) -> String {
        let mut stream = StdStream::connect(path).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        std::io::BufReader::new(&stream)
            .read_line(&mut answer)
            .unwrap();
        answer
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn who_stands_still_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("nlb-api-full-{}", std::process::id()));
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // Room for one, which is taken.
        rustix::net::listen(&other, 0).unwrap();
        let _first = StdStream::connect(&path).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let there = path.clone();
        std::thread::spawn(move || {
            let bound = runtime().block_on(async { Server::bind(&there).map(drop) });
            let _ = told.send(bound);
        });
        let bound = heard.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrInUse);
        // It is somebody else's.
        assert!(path.exists());
        let lock = PathBuf::from(format!("{}.lock", path.display()));
        for file in [path, lock] {
            fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn lines_have_answers_and_bounds() {
        let path = std::env::temp_dir().join(format!("nlb-api-{}", std::process::id()));
        let runtime = runtime();
        let (admit, admitted) = watch::channel(trusted());
        let (queue, mut messages) = mpsc::channel(4);
        runtime.block_on(async {
            // One that is left, and one that is used.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let server = Server::bind(&path).unwrap();
            assert!(Server::bind(&path).is_err());
            tokio::spawn(server.serve(admitted, queue));
        });
        runtime.spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Message::Line(caller, line, answer) = message {
                    let _ = answer.send(format!("{} {}", caller.uid, line.trim()).into());
                }
            }
        });
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(say(&path, b"a line\n"), format!("{uid} a line\n"));
        assert!(say(&path, b"\xff\n").contains("a line of UTF-8"));
        assert!(say(&path, &[b'a'; LINE_MAX]).contains("a line of UTF-8"));
        let whole = [&[b'a'; LINE_MAX - 1][..], b"\n"].concat();
        assert!(say(&path, &whole).starts_with(&format!("{uid} aaa")));
        let known = StdStream::connect(&path).unwrap();
        let mut answers = std::io::BufReader::new(&known).lines();
        let mut ask = |line: &[u8]| {
            (&known).write_all(line).unwrap();
            answers.next().map(Result::unwrap)
        };
        assert_eq!(ask(b"one\n"), Some(format!("{uid} one")));
        // One more than there may be; some of those before may still count.
        let crowd: Vec<_> = (0..=OF_USER_MAX)
            .map(|_| StdStream::connect(&path).unwrap())
            .collect();
        let is_told = |mut stream: &StdStream| {
            stream.set_nonblocking(true).unwrap();
            let mut told = [0; 100];
            let len = stream.read(&mut told).unwrap_or(0);
            String::from_utf8_lossy(&told[..len]).contains("too many connections")
        };
        let mut looks = 0..1000;
        while !crowd.iter().any(is_told) {
            looks.next().expect("the bound is no bound");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(crowd);
        admit.send_replace(Admitted::new());
        // Neither who is there already nor who comes.
        assert!(ask(b"two\n").unwrap().contains("may not ask"));
        assert!(answers.next().is_none());
        let mut told = String::new();
        let mut stranger = StdStream::connect(&path).unwrap();
        stranger.read_to_string(&mut told).unwrap();
        assert!(told.contains("may not ask"), "{told}");
        fs::remove_file(path.with_extension("lock")).unwrap();
    }

    /// Who watches keeps nobody of the same user from being answered, and is told nothing any more when it may not ask.
    #[test]
    fn what_happens_is_passed_on() {
        let path = std::env::temp_dir().join(format!("nlb-api-feed-{}", std::process::id()));
        let runtime = runtime();
        let (admit, admitted) = watch::channel(trusted());
        let (queue, mut messages) = mpsc::channel(4);
        runtime.block_on(async {
            let server = Server::bind(&path).unwrap();
            tokio::spawn(server.serve(admitted, queue));
        });
        let (told, closed) = std::sync::mpsc::channel();
        let (happen, mut happens) = mpsc::channel(4);
        runtime.spawn(async move {
            let mut feed = crate::feed::Feed::default();
            loop {
                tokio::select! {
                    Some(line) = happens.recv() => feed.tell(line),
                    Some(message) = messages.recv() => match message {
                        Message::Line(_, line, answer) if line == "watch\n" => {
                            let watch = feed.watch().unwrap();
                            let _ = answer.send(Answer::Feed("watching".to_owned(), watch));
                        }
                        Message::Line(_, line, answer) => {
                            let _ = answer.send(line.trim().to_owned().into());
                        }
                        Message::Closed(caller) => told.send(caller.connection).unwrap(),
                    },
                }
            }
        });
        let begin = || {
            let mut stream = StdStream::connect(&path).unwrap();
            stream.write_all(b"watch\n").unwrap();
            let mut lines = std::io::BufReader::new(stream).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "watching");
            lines
        };
        let (mut first, second) = (begin(), begin());
        for line in ["one", "two"] {
            happen.blocking_send(line).unwrap();
            assert_eq!(first.next().unwrap().unwrap(), line);
            assert_eq!(say(&path, b"another\n"), "another\n");
        }
        // One that has gone is noticed.
        drop(second);
        while closed.recv().unwrap() != 1 {}
        admit.send_replace(Admitted::new());
        happen.blocking_send("three").unwrap();
        assert!(first.next().unwrap().unwrap().contains("may not ask"));
        assert!(first.next().is_none());
        fs::remove_file(path.with_extension("lock")).unwrap();
        runtime.shutdown_background();
    }

    #[test]
    fn answers_to_a_user_come_one_by_one() {
        let users = Users::default();
        let take = |uid| Place::take(&users, uid).unwrap();
        let (one, again, other) = (take(1), take(1), take(2));
        let turn = one.turn.try_acquire().unwrap();
        assert!(again.turn.try_acquire().is_err());
        assert!(other.turn.try_acquire().is_ok());
        drop(turn);
        assert!(again.turn.try_acquire().is_ok());
        drop((one, again, other));
        assert!(users.lock().unwrap().is_empty());
    }

    #[test]
    fn only_its_own_socket_is_removed() {
        let folder = std::env::temp_dir().join(format!("nlb-api-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        fs::write(&path, "precious").unwrap();
        let error = Server::bind(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let server = Server::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // It is there, although nobody finds it.
        let error = Server::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        fs::write(&path, "of somebody else").unwrap();
        drop(server);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        drop(Server::bind(&path).unwrap());
        assert!(!path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
