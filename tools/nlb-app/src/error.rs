// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why something was not said.

use std::{error, fmt, io, path::PathBuf, time::Duration};

/// Why a request came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the socket, this user may not open it, or the agent has ended.
    Agent {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The agent is there and has not answered in time. The request may still be carried out.
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The agent refuses, for this reason.
    Refused(String),
    /// What the agent has answered was not understood: it is of another version, or no agent.
    Answer(&'static str),
    /// Nothing was sent: an argument is out of its range.
    Argument(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { path, source } => {
                write!(f, "{}: {source}; does it run here?", path.display())
            }
            Self::Timeout { path, after } => {
                write!(
                    f,
                    "{}: no answer in {} ms",
                    path.display(),
                    after.as_millis()
                )
            }
            Self::Refused(why) | Self::Argument(why) => f.write_str(why),
            Self::Answer(what) => write!(f, "the answer is not understood: {what}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Agent { source, .. } => Some(source),
            _ => None,
        }
    }
}
