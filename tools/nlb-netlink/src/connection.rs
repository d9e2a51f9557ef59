// SPDX-License-Identifier: MIT OR Apache-2.0

//! A netlink socket that speaks with one generic netlink family.

use std::{
    io,
    os::fd::AsFd,
    time::Duration, //
};

use netlink_sys::{
    protocols::NETLINK_GENERIC,
    Socket,
    SocketAddr, //
};
use rustix::{
    event::{
        poll,
        PollFd,
        PollFlags,
        Timespec, //
    },
    io::Errno, //
};

use crate::{
    attr::{
        self,
        Attrs, //
    },
    error::{
        Error,
        Malformed,
        Result, //
    },
    message::{
        Message,
        Messages,
        Request,
        NLMSG_DONE,
        NLMSG_ERROR,
        NLMSG_MIN_TYPE,
        NLM_F_DUMP_INTR, //
    },
};

/// The kernel works on a request inside of the call that sends it, or that receives the answer, and has
/// queued what comes first before the former returns; only a lost answer takes this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a dump is made again when the table changed meanwhile.
const DUMP_ATTEMPTS: usize = 16;

/// More than the kernel ever puts into one datagram of a dump (32 KiB).
const RECEIVE_LEN: usize = 64 * 1024;

/// What [`Error::Io`] says when an answer was not received.
const RECEIVE: &str = "cannot receive from netlink";

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_DELFAMILY: u8 = 2;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
/// The family of families, and its group for those that come and go.
pub(crate) const CTRL: (&str, &str) = ("nlctrl", "notify");
const CTRL_NAMES: &[&str] = &["family-id", "family-name"];
const ENOENT: i32 = 2;
const ENOBUFS: i32 = 105;

/// A netlink socket of the generic family with all wanted options.
pub(crate) struct Endpoint {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Endpoint {
    /// Open a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self> {
        Self::open_protocol(NETLINK_GENERIC)
    }

    /// Open a socket of another netlink protocol.
    pub(crate) fn open_protocol(protocol: isize) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.set_ext_ack(true)?;
            // Acknowledgements need not echo the request.
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|error| Error::Io("cannot open a netlink socket", error))?,
            seq: 0,
            buffer: Vec::with_capacity(RECEIVE_LEN),
        })
    }

    /// The socket, for its options.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next datagram from the kernel, or `None` when the time is over. No time means for ever.
    pub(crate) fn receive(&mut self, timeout: Option<Duration>) -> Result<Option<&[u8]>> {
        let failed = |error| Error::Io(RECEIVE, error);
        loop {
            if !self.wait(timeout).map_err(failed)? {
                return Ok(None);
            }
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                // Another process may send to us; only the kernel, port 0, is listened to.
                Ok((_, from)) if from.port_number() == 0 => return Ok(Some(&self.buffer)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Wait until something can be received; `false` when the time is over.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Send a request and pass each answered object's command and attributes to `take`.
    pub(crate) fn request(
        &mut self,
        family: u16,
        request: &Request,
        names: &[&'static str],
        take: &mut dyn FnMut(u8, &[u8]) -> Result<()>,
    ) -> Result<Consistency> {
        self.exchange(|seq| request.finish(family, seq), names, &mut |message| {
            let (cmd, attrs) = message.genl()?;
            take(cmd, attrs)
        })
    }

    /// Send the message that `build` makes of a sequence number, and pass each answered one to
    /// `take`.
    pub(crate) fn exchange(
        &mut self,
        build: impl FnOnce(u32) -> Result<Vec<u8>>,
        names: &[&'static str],
        take: &mut dyn FnMut(&Message<'_>) -> Result<()>,
    ) -> Result<Consistency> {
        self.seq = self.seq.wrapping_add(1).max(1);
        let seq = self.seq;
        let bytes = build(seq)?;
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map_err(|error| Error::Io("cannot send to netlink", error))?;
        let mut consistency = Consistency::Whole;
        loop {
            let Some(datagram) = self.receive(Some(ANSWER_TIMEOUT))? else {
                return Err(Error::NoAnswer);
            };
            for message in Messages::new(datagram) {
                let message = message?;
                // What an earlier request left behind when it ended with an error.
                if message.seq != seq {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    consistency = Consistency::Interrupted;
                }
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        message.outcome(&bytes, names)?;
                        return Ok(consistency);
                    }
                    kind if kind < NLMSG_MIN_TYPE => {}
                    _ => take(&message)?,
                }
            }
        }
    }

    /// Ask the kernel for a family's id and groups.
    pub(crate) fn resolve(&mut self, family: &str) -> Result<Resolved> {
        let mut name = family.as_bytes().to_vec();
        name.push(0);
        let request = Request::new(CTRL_CMD_GETFAMILY)
            .version(2)
            .put(CTRL_ATTR_FAMILY_NAME, &name);
        let mut resolved = None;
        let outcome = self.request(GENL_ID_CTRL, &request, CTRL_NAMES, &mut |_, attrs| {
            resolved = Some(Resolved::parse(attrs)?);
            Ok(())
        });
        match outcome {
            Err(Error::Refused(refusal)) if refusal.errno == ENOENT => {
                Err(Error::FamilyMissing(family.to_owned()))
            }
            Err(error) => Err(error),
            Ok(_) => resolved.ok_or(Malformed::Empty.into()),
        }
    }
}

/// Whether a dump shows one state of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// It does, or it was no dump.
    Whole,
    /// The table changed between two parts.
    Interrupted,
}

/// What the kernel says about a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The id, the type of its messages.
    pub(crate) id: u16,
    /// Multicast groups by name.
    pub(crate) groups: Vec<(String, u32)>,
}

impl Resolved {
    fn parse(attrs: &[u8]) -> Result<Self, Malformed> {
        let (mut id, mut groups) = (None, Vec::new());
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.id {
                CTRL_ATTR_FAMILY_ID => {
                    id = Some(attr::u16(attr.payload).ok_or(Malformed::Value("family-id"))?);
                }
                CTRL_ATTR_MCAST_GROUPS => {
                    for group in Attrs::new(attr.payload) {
                        groups.extend(parse_group(group?.payload)?);
                    }
                }
                _ => {}
            }
        }
        Ok(Self {
            id: id.ok_or(Malformed::Missing("family-id"))?,
            groups,
        })
    }
}

fn parse_group(attrs: &[u8]) -> Result<Option<(String, u32)>, Malformed> {
    let (mut name, mut id) = (None, None);
    for attr in Attrs::new(attrs) {
        let attr = attr?;
        match attr.id {
            CTRL_ATTR_MCAST_GRP_NAME => name = attr::string(attr.payload),
            CTRL_ATTR_MCAST_GRP_ID => id = attr::u32(attr.payload),
            _ => {}
        }
    }
    Ok(name.zip(id))
}

/// The family of which a message from the kernel says that it is gone, by its id.
pub(crate) fn gone_family(message: &Message<'_>) -> Result<Option<u16>, Malformed> {
    if message.kind != GENL_ID_CTRL {
        return Ok(None);
    }
    let (cmd, attrs) = message.genl()?;
    if cmd != CTRL_CMD_DELFAMILY {
        return Ok(None);
    }
    for attr in Attrs::new(attrs) {
        let attr = attr?;
        if attr.id == CTRL_ATTR_FAMILY_ID {
            let id = attr::u16(attr.payload).ok_or(Malformed::Value("family-id"))?;
            return Ok(Some(id));
        }
    }
    Err(Malformed::Missing("family-id"))
}

/// Whether the kernel has a family, that is, whether its module is loaded.
pub fn family_is_loaded(family: &str) -> Result<bool> {
    match Endpoint::open()?.resolve(family) {
        Ok(_) => Ok(true),
        Err(Error::FamilyMissing(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A socket and the family it speaks with.
pub(crate) struct Connection {
    endpoint: Endpoint,
    family: u16,
}

impl Connection {
    /// Open a socket and resolve the family.
    pub(crate) fn open(family: &str) -> Result<Self> {
        let mut endpoint = Endpoint::open()?;
        let family = endpoint.resolve(family)?.id;
        Ok(Self { endpoint, family })
    }

    /// Send a request that is only acknowledged.
    pub(crate) fn execute(&mut self, request: &Request, names: &[&'static str]) -> Result<()> {
        self.endpoint
            .request(self.family, request, names, &mut |_, _| Ok(()))
            .map(drop)
    }

    /// Send a request that is answered by one object.
    pub(crate) fn get<T>(
        &mut self,
        request: &Request,
        names: &[&'static str],
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T> {
        let mut object = None;
        self.endpoint
            .request(self.family, request, names, &mut |_, attrs| {
                object = Some(decode(attrs)?);
                Ok(())
            })?;
        object.ok_or(Malformed::Empty.into())
    }

    /// Send a request that the kernel works on while it is sent, and answers by a dump: of empty
    /// objects and, if one is answered, of one more, which may come with an error.
    ///
    /// After an error that is no refusal the connection has to be dropped: the kernel may be in the
    /// middle of its answer.
    pub(crate) fn work<T>(
        &mut self,
        request: Request,
        names: &[&'static str],
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> (Option<T>, Result<()>) {
        let request = request.dump();
        let (mut object, mut begun) = (None, false);
        let outcome = self
            .endpoint
            .request(self.family, &request, names, &mut |_, attrs| {
                begun = true;
                if !attrs.is_empty() {
                    object = Some(decode(attrs)?);
                }
                Ok(())
            });
        let outcome = match outcome {
            // Not by the family, which says why: the kernel had no memory for the first object, and has
            // the dump begun, but nothing else.
            Err(Error::Refused(refusal)) if refusal.errno == ENOBUFS && refusal.code.is_none() => {
                Err(Error::Io(RECEIVE, io::Error::from_raw_os_error(ENOBUFS)))
            }
            // It has done what it was asked for, or not.
            Err(Error::Io(..)) if begun => Err(Error::NoAnswer),
            outcome => outcome,
        };
        (object, outcome.map(drop))
    }

    /// Read a table; read it again if it changed meanwhile.
    pub(crate) fn dump<T>(
        &mut self,
        request: Request,
        names: &[&'static str],
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<T>> {
        let request = request.dump();
        for _ in 0..DUMP_ATTEMPTS {
            let mut objects = Vec::new();
            let consistency =
                self.endpoint
                    .request(self.family, &request, names, &mut |_, attrs| {
                        objects.push(decode(attrs)?);
                        Ok(())
                    })?;
            if consistency == Consistency::Whole {
                return Ok(objects);
            }
        }
        Err(Error::DumpInterrupted)
    }

    /// Send a request and keep the answer as it is.
    pub(crate) fn bytes(
        &mut self,
        request: &Request,
        names: &[&'static str],
    ) -> Result<Vec<Vec<u8>>> {
        let mut objects = Vec::new();
        self.endpoint
            .request(self.family, request, names, &mut |_, attrs| {
                objects.push(attrs.to_vec());
                Ok(())
            })?;
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The kernel's own family `nlctrl` is always there: these tests cross the real socket.

    #[test]
    fn the_control_family_is_resolved() {
        let resolved = Endpoint::open().unwrap().resolve("nlctrl").unwrap();
        assert_eq!(resolved.id, GENL_ID_CTRL);
        assert!(resolved.groups.iter().any(|(name, _)| name == "notify"));
    }

    #[test]
    fn a_missing_family_says_so() {
        match Endpoint::open().unwrap().resolve("nlb-not-there") {
            Err(Error::FamilyMissing(family)) => assert_eq!(family, "nlb-not-there"),
            other => panic!("{other:?}"),
        }
        assert!(!family_is_loaded("nlb-not-there").unwrap());
        assert!(family_is_loaded("nlctrl").unwrap());
    }

    #[test]
    fn the_kernel_names_the_bad_attribute() {
        let mut connection = Connection::open("nlctrl").unwrap();
        let wrong_length = Request::new(CTRL_CMD_GETFAMILY).put(CTRL_ATTR_FAMILY_ID, &[1]);
        match connection.execute(&wrong_length, CTRL_NAMES) {
            Err(Error::Refused(refusal)) => {
                assert!(refusal.text.is_some());
                assert_eq!(refusal.attribute.unwrap().name, Some("family-id"));
            }
            other => panic!("{other:?}"),
        }
        // The socket is still in step with the kernel.
        let right =
            Request::new(CTRL_CMD_GETFAMILY).put(CTRL_ATTR_FAMILY_ID, &GENL_ID_CTRL.to_ne_bytes());
        assert_eq!(
            connection
                .get(&right, CTRL_NAMES, Resolved::parse)
                .unwrap()
                .id,
            GENL_ID_CTRL
        );
    }

    #[test]
    fn all_families_are_dumped() {
        let mut connection = Connection::open("nlctrl").unwrap();
        let request = Request::new(CTRL_CMD_GETFAMILY).version(2);
        let families = connection
            .dump(request, CTRL_NAMES, Resolved::parse)
            .unwrap();
        assert!(families.iter().any(|family| family.id == GENL_ID_CTRL));
    }

    /// A message of the controller, as the kernel sends it to its group: that its family of this id is gone, says `cmd`.
    fn told(cmd: u8, kind: u16) -> Vec<u8> {
        let mut group = Vec::new();
        assert!(attr::put(
            &mut group,
            CTRL_ATTR_MCAST_GRP_ID,
            &9u32.to_ne_bytes()
        ));
        let request = Request::new(cmd)
            .version(2)
            .put(CTRL_ATTR_FAMILY_NAME, b"nlb-fwd\0")
            .put(CTRL_ATTR_FAMILY_ID, &0x21u16.to_ne_bytes())
            .put(CTRL_ATTR_MCAST_GROUPS, &group);
        request.finish(kind, 0).unwrap()
    }

    fn gone(bytes: &[u8]) -> Result<Option<u16>, Malformed> {
        gone_family(&Messages::new(bytes).next().unwrap().unwrap())
    }

    #[test]
    fn the_end_of_a_family_is_told() {
        assert_eq!(
            gone(&told(CTRL_CMD_DELFAMILY, GENL_ID_CTRL)),
            Ok(Some(0x21))
        );
        // It has come, is asked for, or has lost a group; and what another family says.
        for other in [1, CTRL_CMD_GETFAMILY, 8] {
            assert_eq!(gone(&told(other, GENL_ID_CTRL)), Ok(None));
        }
        assert_eq!(gone(&told(CTRL_CMD_DELFAMILY, 0x21)), Ok(None));
        let without = Request::new(CTRL_CMD_DELFAMILY).put(CTRL_ATTR_FAMILY_NAME, b"nlb-fwd\0");
        let short = Request::new(CTRL_CMD_DELFAMILY).put(CTRL_ATTR_FAMILY_ID, &[1]);
        for (request, why) in [
            (without, Malformed::Missing("family-id")),
            (short, Malformed::Value("family-id")),
        ] {
            assert_eq!(gone(&request.finish(GENL_ID_CTRL, 0).unwrap()), Err(why));
        }
    }

    proptest! {
        #[test]
        fn nothing_of_the_controller_panics(
            attrs in proptest::collection::vec(any::<u8>(), 0..80),
            cut in 0..60usize,
        ) {
            let any = Request::new(CTRL_CMD_DELFAMILY).raw(&attrs);
            let _ = gone(&any.finish(GENL_ID_CTRL, 0).unwrap());
            // And one that ends in the middle, or says so.
            let mut bytes = told(CTRL_CMD_DELFAMILY, GENL_ID_CTRL);
            let cut = cut.min(bytes.len() - 20);
            bytes.truncate(bytes.len() - cut);
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            if let Ok(id) = gone(&bytes) {
                prop_assert_eq!(id, Some(0x21));
            }
        }
    }

    #[test]
    fn an_attribute_that_is_too_long_is_not_sent() {
        let mut connection = Connection::open("nlctrl").unwrap();
        let request = Request::new(CTRL_CMD_GETFAMILY).put(1, &[0; 70_000]);
        assert!(matches!(
            connection.execute(&request, CTRL_NAMES),
            Err(Error::TooLong)
        ));
    }

    #[test]
    fn handles_can_be_sent_to_threads() {
        fn is_send<T: Send>() {}
        is_send::<Connection>();
    }
}
