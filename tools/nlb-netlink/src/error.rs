// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong between a program and the kernel.

use std::{
    fmt,
    io, //
};

use crate::uapi::reason::Reason;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed; the text says what it was for.
    Io(&'static str, io::Error),
    /// The kernel has no such generic netlink family: its module is not loaded.
    FamilyMissing(String),
    /// The family is gone since this program spoke with it: its module was unloaded, and may be loaded anew.
    FamilyGone(String),
    /// The family has no such multicast group: the module is older or newer than this crate.
    GroupMissing(&'static str),
    /// The kernel refused the request.
    Refused(Refusal),
    /// The kernel's answer does not follow the specification.
    Malformed(Malformed),
    /// The table changed during each of many attempts to read it.
    DumpInterrupted,
    /// The kernel sent no answer.
    NoAnswer,
    /// An attribute or the whole request is longer than netlink can carry.
    TooLong,
}

impl Error {
    /// The errno behind the error, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io(_, error) => error.raw_os_error(),
            Self::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }

    /// The kernel's refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::FamilyMissing(family) => {
                write!(f, "the kernel has no netlink family `{family}`")
            }
            Self::FamilyGone(family) => {
                write!(f, "the kernel's netlink family `{family}` is gone")
            }
            Self::GroupMissing(group) => {
                write!(f, "the kernel module has no multicast group `{group}`")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::DumpInterrupted => {
                f.write_str("the table keeps changing while it is read, try again")
            }
            Self::NoAnswer => f.write_str("the kernel did not answer"),
            Self::TooLong => f.write_str("the request is too long for netlink"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// What the kernel said when it refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive.
    pub errno: i32,
    /// The extended acknowledgement's text.
    pub text: Option<String>,
    /// The attribute the kernel complained about.
    pub attribute: Option<Offender>,
    /// The number of the reason, where a migration did not go through; see [`Self::reason`].
    pub code: Option<u32>,
}

impl Refusal {
    /// Why a migration did not go through, if that is why and the reason is known here.
    pub fn reason(&self) -> Option<Reason> {
        self.code.and_then(Reason::from_u32)
    }

    /// Whether this is the end of the connection that was to be migrated. After any other refusal it
    /// works as before.
    pub fn cost_the_connection(&self) -> bool {
        const ECONNRESET: i32 = 104;
        self.errno == ECONNRESET && self.code.is_some()
    }

    /// The kernel's text, or else the system's text for the error number.
    pub fn message(&self) -> String {
        match &self.text {
            Some(text) => text.clone(),
            None => strerror(self.errno),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match (&self.attribute, &self.text) {
            // A text says itself that something is missing.
            (Some(offender), Some(_)) => write!(f, " (attribute {})", offender.label()),
            (Some(offender), None) => write!(f, " ({offender})"),
            (None, _) => Ok(()),
        }
    }
}

/// The attribute a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Its id.
    pub id: u16,
    /// Its name in the specification, if it has one.
    pub name: Option<&'static str>,
    /// Whether it is missing, not wrong.
    pub missing: bool,
}

impl Offender {
    /// The name, or the id where there is no name.
    pub fn label(&self) -> String {
        match self.name {
            Some(name) => name.to_owned(),
            None => self.id.to_string(),
        }
    }
}

impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.missing { "missing " } else { "" };
        write!(f, "{what}attribute {}", self.label())
    }
}

/// How an answer departs from the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// A netlink message ends before its header or says a length that it has not.
    Message,
    /// An attribute ends before its header or says a length that it has not.
    Attribute,
    /// The attribute has a length or a content that its type does not allow.
    Value(&'static str),
    /// The answer lacks an attribute that identifies the object.
    Missing(&'static str),
    /// A request for one object was answered with none.
    Empty,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel's answer is malformed: ")?;
        match self {
            Self::Message => f.write_str("bad message length"),
            Self::Attribute => f.write_str("bad attribute length"),
            Self::Value(name) => write!(f, "bad value of attribute {name}"),
            Self::Missing(name) => write!(f, "no attribute {name}"),
            Self::Empty => f.write_str("no object in it"),
        }
    }
}

impl std::error::Error for Malformed {}

/// The system's text for an error number, without the number.
fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// The symbol of an error number, for example `EINVAL`; the number itself for a rare one.
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        3 => "ESRCH",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        7 => "E2BIG",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        19 => "ENODEV",
        22 => "EINVAL",
        24 => "EMFILE",
        28 => "ENOSPC",
        32 => "EPIPE",
        34 => "ERANGE",
        61 => "ENODATA",
        62 => "ETIME",
        71 => "EPROTO",
        74 => "EBADMSG",
        75 => "EOVERFLOW",
        77 => "EBADFD",
        88 => "ENOTSOCK",
        90 => "EMSGSIZE",
        91 => "EPROTOTYPE",
        93 => "EPROTONOSUPPORT",
        94 => "ESOCKTNOSUPPORT",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        106 => "EISCONN",
        107 => "ENOTCONN",
        108 => "ESHUTDOWN",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        114 => "EALREADY",
        115 => "EINPROGRESS",
        116 => "ESTALE",
        122 => "EDQUOT",
        125 => "ECANCELED",
        _ => return errno.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_joins_text_and_attribute() {
        let mut refusal = Refusal {
            errno: 17,
            text: Some("service exists".into()),
            attribute: Some(Offender {
                id: 1,
                name: Some("vip-addr"),
                missing: false,
            }),
            code: None,
        };
        assert_eq!(refusal.to_string(), "service exists (attribute vip-addr)");
        refusal.text = None;
        refusal.attribute = Some(Offender {
            id: 77,
            name: None,
            missing: true,
        });
        assert_eq!(refusal.to_string(), "File exists (missing attribute 77)");
    }

    #[test]
    fn symbols_agree_with_the_system() {
        // The texts are glibc's; a symbol in the wrong line would show here.
        for (errno, text) in [
            (1, "Operation not permitted"),
            (2, "No such file or directory"),
            (22, "Invalid argument"),
            (111, "Connection refused"),
        ] {
            assert_eq!(strerror(errno), text);
            assert!(errno_name(errno).starts_with('E'));
        }
        assert_eq!(errno_name(4095), "4095");
    }
}
