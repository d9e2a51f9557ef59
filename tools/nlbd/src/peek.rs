// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looking at a connection's first bytes and leaving them where they are.

use crate::http::{
    self,
    Head,
    Request, //
};
use rustix::net::RecvFlags;
use std::{
    io,
    time::Duration, //
};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::timeout, //
};

/// What came of the look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// A whole head.
    Request(Request),
    /// No HTTP/1.x request.
    Other,
    /// Longer than allowed.
    TooLong,
    /// No whole head in time; whether anything came at all.
    Late { silent: bool },
    /// The client is gone, or has finished sending before the head was whole.
    Ended,
}

/// Waits until the first request's head is there, at most `time`; looks at `bytes` bytes at most.
pub(crate) async fn peek(stream: &TcpStream, bytes: usize, time: Duration) -> Peeked {
    let mut seen = 0;
    match timeout(time, head(stream, bytes, &mut seen)).await {
        Ok(Ok(peeked)) => peeked,
        Ok(Err(_)) => Peeked::Ended,
        Err(_) => Peeked::Late { silent: seen == 0 },
    }
}

async fn head(stream: &TcpStream, bytes: usize, seen: &mut usize) -> io::Result<Peeked> {
    // Most heads are short, and thousands of connections may wait: grow when it is needed.
    let mut buffer = vec![0; bytes.min(2048)];
    loop {
        let more = more(stream, &mut buffer, *seen).await?;
        let Some(received) = more else {
            return Ok(Peeked::Ended);
        };
        *seen = received;
        match http::parse(&buffer[..received]) {
            Head::Request(request) => return Ok(Peeked::Request(request)),
            Head::Other => return Ok(Peeked::Other),
            Head::Partial if received < buffer.len() => {}
            Head::Partial if buffer.len() == bytes => return Ok(Peeked::TooLong),
            Head::Partial => {
                let larger = buffer.len().saturating_mul(2).min(bytes);
                buffer.resize(larger, 0);
                // What is there already may reach further than the old buffer did.
                *seen = 0;
            }
        }
    }
}

/// Waits until there are more than `seen` bytes and looks at them; `None` at the end of the stream.
///
/// Looking takes nothing away, so the socket stays readable. The runtime asks the kernel for edges,
/// and forgets that it is readable when the function given to `try_io` says so; as that function
/// does the looking itself, no byte can arrive unnoticed in between.
async fn more(stream: &TcpStream, buffer: &mut [u8], seen: usize) -> io::Result<Option<usize>> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let result = stream.try_io(Interest::READABLE, || {
            let (received, _) = rustix::net::recv(stream, &mut *buffer, RecvFlags::PEEK)?;
            if received == 0 {
                return Ok(None);
            }
            if received > seen {
                return Ok(Some(received));
            }
            if ready.is_read_closed() {
                return Ok(None);
            }
            Err(io::ErrorKind::WouldBlock.into())
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
