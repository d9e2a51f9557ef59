// SPDX-License-Identifier: MIT OR Apache-2.0

//! gRPC's health service (`grpc.health.v1.Health/Check`): one request in HTTP/2, with two messages of one field each.
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> and `health-checking.md` beside it have it.

use h2::{client, RecvStream};
use http::{HeaderMap, Request, StatusCode, Uri};
use std::io::Cursor;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    pin, select,
};

/// The method.
pub(crate) const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest answer, which is a number, with the five bytes before each message.
const ANSWER_MAX: usize = 1024;
/// Most bytes of header fields.
const HEADERS_MAX: u32 = 16 * 1024;
/// Longest name of a service: its length and that of the message are known to fit.
pub(crate) const SERVICE_MAX: usize = 255;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Scheme and authority, and [`PATH`].
    pub(crate) uri: Uri,
    /// The service that is meant; that of the whole server if it is empty.
    pub(crate) service: String,
}

impl Call {
    /// Asks, and finds out whether it serves.
    pub(super) async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), String> {
        let text = |error: h2::Error| format!("HTTP/2: {error}");
        let mut builder = client::Builder::new();
        builder.enable_push(false).max_header_list_size(HEADERS_MAX);
        let (sender, connection) = builder.handshake(stream).await.map_err(text)?;
        let asked = async {
            let request = Request::post(self.uri.clone())
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", "nlb-agent")
                .body(());
            let request = request.map_err(|error| error.to_string())?;
            let mut sender = sender.ready().await.map_err(text)?;
            let (response, mut body) = sender.send_request(request, false).map_err(text)?;
            let message = Cursor::new(self.message());
            body.send_data(message, true).map_err(text)?;
            let (head, body) = response.await.map_err(text)?.into_parts();
            if head.status != StatusCode::OK {
                return Err(format!("status {}", head.status.as_u16()));
            }
            // It may come without an answer.
            status(&head.headers).unwrap_or(Ok(()))?;
            let (answer, trailers) = read(body).await?;
            let status = status(&trailers.unwrap_or_default());
            status.unwrap_or_else(|| Err("no answer in gRPC".to_owned()))?;
            serving(&answer)
        };
        pin!(asked);
        select! {
            biased;
            answer = &mut asked => answer,
            // What has come of the answer is still there.
            _ = connection => asked.await,
        }
    }

    /// A `HealthCheckRequest`, behind its length.
    fn message(&self) -> Vec<u8> {
        let mut field = Vec::new();
        if !self.service.is_empty() {
            // Field 1, a text.
            field.push(0x0a);
            let mut len = self.service.len();
            while len > 0x7f {
                field.push(0x80 | (len & 0x7f) as u8);
                len >>= 7;
            }
            field.push(len as u8);
            field.extend(self.service.as_bytes());
        }
        let mut message = vec![0];
        message.extend((field.len() as u32).to_be_bytes());
        message.extend(field);
        message
    }
}

/// The body, of which there is not much, and what comes behind it.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), String> {
    let mut answer = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(|error| error.to_string())?;
        if answer.len() + part.len() > ANSWER_MAX {
            return Err("the answer is too long".to_owned());
        }
        answer.extend_from_slice(&part);
        let released = body.flow_control().release_capacity(part.len());
        released.map_err(|error| error.to_string())?;
    }
    let trailers = body.trailers().await;
    Ok((answer, trailers.map_err(|error| error.to_string())?))
}

/// What the server makes of the call, if it says so here.
fn status(headers: &HeaderMap) -> Option<Result<(), String>> {
    let text = |name| {
        headers
            .get(name)
            .map(|own| String::from_utf8_lossy(own.as_bytes()))
    };
    let code = text("grpc-status")?;
    Some(match code.as_ref() {
        "0" => Ok(()),
        "5" => Err("the server does not know the service".to_owned()),
        "12" => Err("the server has no health service".to_owned()),
        code => {
            let why = text("grpc-message").unwrap_or_default();
            Err(format!("gRPC status {code} {why}").trim_end().to_owned())
        }
    })
}

/// Whether a `HealthCheckResponse`, behind its length, says that it serves.
pub(crate) fn serving(answer: &[u8]) -> Result<(), String> {
    let (is_compressed, message) = match answer {
        [flag, a, b, c, d, message @ ..]
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
        {
            (*flag != 0, message)
        }
        _ => return Err("the answer is not one message".to_owned()),
    };
    if is_compressed {
        return Err("the answer is compressed, which was not asked for".to_owned());
    }
    let what = match field(message) {
        Some(1) => return Ok(()),
        Some(0) => "unknown",
        Some(2) => "not serving",
        Some(3) => "service unknown",
        Some(_) => "a state that is not known here",
        None => return Err("the answer is malformed".to_owned()),
    };
    Err(what.to_owned())
}

/// Field 1 of a message, a number, which is 0 if it is not there; other fields are passed over.
fn field(mut message: &[u8]) -> Option<u64> {
    let mut found = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match (tag >> 3, tag & 7) {
            (0, _) => return None,
            (1, 0) => {
                found = varint(&mut message)?;
                0
            }
            (1, _) => return None,
            (_, 0) => {
                varint(&mut message)?;
                0
            }
            (_, 1) => 8,
            (_, 2) => usize::try_from(varint(&mut message)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(found)
}

/// A number of up to 64 bits, in bytes of seven.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
