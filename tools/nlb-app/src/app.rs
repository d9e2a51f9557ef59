// SPDX-License-Identifier: MIT OR Apache-2.0

//! An application that reports, and goes on to do so when the agent was restarted.

use crate::{
    request::up_to,
    status::{accepted, Status},
    Closed, Connection, Error, Health, Registration, Request, DEFAULT_SOCKET,
};
use std::{path::PathBuf, time::Duration};

/// How long an answer is waited for, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest numbers that can be said.
const LOAD_MAX: u8 = 100;
const CAPACITY_MAX: u8 = 99;

/// An application of this host, as long as this is there; with [`Registration::hold`] off, longer.
///
/// Nothing is said before the first call, so that a program starts whether the agent is there or not. Each call connects
/// and registers if that has to be done: at first, when the agent was restarted or its configuration does not know the
/// application any more, and when somebody has unregistered it. What was reported last is reported again then. A call
/// that fails is to be made again later, and the program to go on meanwhile; programs that have nothing to report call
/// [`register`](Self::register) every few seconds.
///
/// The connection is the program's own: a child that goes on with it after `fork` would keep the application there.
#[derive(Debug)]
pub struct App {
    name: String,
    /// None of one that is in the agent's configuration file.
    registration: Option<Registration>,
    /// What was reported last, of one that does not register.
    health: Option<Health>,
    capacity: Option<u8>,
    load: Option<u8>,
    socket: PathBuf,
    timeout: Duration,
    connection: Option<Connection>,
    /// The agent at the other end has been told all of the above.
    is_told: bool,
}

impl App {
    /// An application that registers.
    pub fn new(registration: Registration) -> Self {
        Self {
            registration: Some(registration.clone()),
            ..Self::of_file(registration.app)
        }
    }

    /// An application that the agent's configuration file has, with the user of this program as its `uid`.
    pub fn of_file(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            registration: None,
            health: None,
            capacity: None,
            load: None,
            socket: DEFAULT_SOCKET.into(),
            timeout: TIMEOUT,
            connection: None,
            is_told: false,
        }
    }

    /// With an agent that listens elsewhere than at [`DEFAULT_SOCKET`].
    #[must_use]
    pub fn at(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = socket.into();
        self
    }

    /// How long each answer is waited for, and to be heard at all, instead of two seconds. A call waits for five of these
    /// at most, and for ten if the agent ends meanwhile.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Registers, or says again that it is there.
    ///
    /// # Errors
    ///
    /// As all calls: [`Error::Agent`] and [`Error::Timeout`] if the agent is not there, [`Error::Refused`] with its
    /// reason, [`Error::Answer`] if it is not understood. [`Error::Argument`] if something is out of its range; then
    /// nothing was sent.
    pub fn register(&mut self) -> Result<Status, Error> {
        self.say(|own| match &own.registration {
            Some(registration) => Request::Register(registration),
            None => Request::Show(Some(&own.name)),
        })
    }

    /// Reports whether it works.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn health(&mut self, health: Health) -> Result<Status, Error> {
        match &mut self.registration {
            Some(registration) => registration.health = health,
            None => self.health = Some(health),
        }
        self.say(|own| Request::Health(&own.name, health))
    }

    /// Reports how busy it is, in percent of its capacity, 0 to 100. The agent averages it, and tells it one to four
    /// times a minute, so that it may be reported as often as is convenient.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn load(&mut self, load: u8) -> Result<Status, Error> {
        self.load = Some(up_to(LOAD_MAX, "load", load)?);
        self.say(|own| Request::Load(&own.name, load))
    }

    /// Reports what it can take, compared with others of its kind, 0 to 99.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn capacity(&mut self, capacity: u8) -> Result<Status, Error> {
        let capacity = up_to(CAPACITY_MAX, "capacity", capacity)?;
        match &mut self.registration {
            Some(registration) => registration.capacity = Some(capacity),
            None => self.capacity = Some(capacity),
        }
        self.say(|own| Request::Capacity(&own.name, capacity))
    }

    /// Asks for no new connections. [`Status::current`] says when none comes any more.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn drain(&mut self, state: Closed) -> Result<Status, Error> {
        self.say(|own| Request::Drain(&own.name, state))
    }

    /// Asks for them again.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn undo(&mut self) -> Result<Status, Error> {
        self.say(|own| Request::Undo(&own.name))
    }

    /// What is known of it.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn status(&mut self) -> Result<Status, Error> {
        self.say(|own| Request::Show(Some(&own.name)))
    }

    /// Says that it is not there any more. What is called later registers it anew.
    ///
    /// # Errors
    ///
    /// See [`register`](Self::register).
    pub fn unregister(&mut self) -> Result<(), Error> {
        self.is_told = false;
        let request = Request::Unregister(&self.name).to_string();
        self.perhaps_again(|own| {
            let line = own.ask(&request)?;
            accepted(&line).map(drop)
        })
    }

    /// A request to an agent that knows the application.
    fn say(&mut self, request: impl Fn(&Self) -> Request<'_>) -> Result<Status, Error> {
        let request = request(self).to_string();
        self.perhaps_again(|own| {
            if own.is_told {
                match own.ask_status(&request) {
                    // It may be that it does not know the application any more.
                    Err(Error::Refused(_)) => own.is_told = false,
                    said => return said,
                }
            }
            own.tell()?;
            own.ask_status(&request)
        })
    }

    /// If the agent has ended since the last call, there may be another one.
    fn perhaps_again<T>(
        &mut self,
        call: impl Fn(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let was_open = self.connection.is_some();
        match call(self) {
            Err(Error::Agent { .. }) if was_open => call(self),
            said => said,
        }
    }

    /// Has the agent know the application, and what was reported of it.
    fn tell(&mut self) -> Result<(), Error> {
        let name = self.name.as_str();
        let register = self.registration.as_ref().map(Request::Register);
        let health = self.health.map(|health| Request::Health(name, health));
        let capacity = self.capacity.map(|own| Request::Capacity(name, own));
        let load = self.load.map(|load| Request::Load(name, load));
        let all = [register, health, capacity, load];
        let all = all.into_iter().flatten().map(|own| own.to_string());
        for request in all.collect::<Vec<_>>() {
            self.ask_status(&request)?;
        }
        self.is_told = true;
        Ok(())
    }

    fn ask_status(&mut self, request: &str) -> Result<Status, Error> {
        self.ask(request).and_then(|line| Status::read(&line))
    }

    fn ask(&mut self, request: &str) -> Result<String, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.socket, self.timeout)?),
        };
        let answer = connection.ask(request);
        if matches!(answer, Err(Error::Agent { .. } | Error::Answer(_))) {
            self.connection = None;
            self.is_told = false;
        }
        answer
    }
}
