// SPDX-License-Identifier: MIT OR Apache-2.0

//! A GET, and what is made of the answer to it.

use std::io::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// As much of an answer is looked at.
const ANSWER_MAX: usize = 64 * 1024;

/// What is asked for, and how the answer shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) path: String,
    pub(crate) host: String,
    /// One of these; 200 to 299 if none is named.
    pub(crate) status: Vec<u16>,
    /// A text that is somewhere in it.
    pub(crate) body: Option<String>,
}

/// Asks, and reads until it is clear whether the answer is as it shall be.
pub(super) async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    get: &Get,
) -> Result<(), String> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: nlb-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        get.path, get.host
    );
    let asked = stream.write_all(request.as_bytes()).await;
    asked
        .and(stream.flush().await)
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).await;
        // Who has answered and then breaks off has answered.
        let part = part.get(..*read.as_ref().unwrap_or(&0)).unwrap_or_default();
        answer.extend_from_slice(part);
        let is_end = part.is_empty() || answer.len() >= ANSWER_MAX;
        match (
            judge(&answer, &get.status, get.body.as_deref(), is_end),
            read,
        ) {
            // A connection in TLS may end without saying so.
            (Some(Err(_)), Err(error)) if error.kind() != ErrorKind::UnexpectedEof => {
                return Err(error.to_string())
            }
            (Some(verdict), _) => return verdict,
            (None, _) => {}
        }
    }
}

/// Whether an answer is as it shall be, as soon as that is clear; `is_end`: no more comes.
pub(crate) fn judge(
    answer: &[u8],
    status: &[u16],
    text: Option<&str>,
    is_end: bool,
) -> Option<Result<(), String>> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(answer) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if !is_end => return None,
        _ => return Some(Err("no answer in HTTP/1.x".to_owned())),
    };
    let code = response.code.unwrap_or(0);
    let is_wanted = if status.is_empty() {
        (200..300).contains(&code)
    } else {
        status.contains(&code)
    };
    if !is_wanted {
        return Some(Err(format!("status {code}")));
    }
    let Some(text) = text.map(str::as_bytes).filter(|text| !text.is_empty()) else {
        return Some(Ok(()));
    };
    let (body, is_whole) = body(response.headers, answer.get(head..).unwrap_or_default());
    if body.windows(text.len()).any(|part| part == text) {
        Some(Ok(()))
    } else if is_whole || is_end {
        Some(Err("the text is not in the body".to_owned()))
    } else {
        None
    }
}

/// What is there of a body, out of its chunks (RFC 9112, section 7.1), and whether that is all.
fn body(headers: &[httparse::Header<'_>], bytes: &[u8]) -> (Vec<u8>, bool) {
    let value = |name: &str| {
        let mut named = headers
            .iter()
            .filter(|own| own.name.eq_ignore_ascii_case(name));
        std::str::from_utf8(named.next()?.value).ok()
    };
    let coding = value("transfer-encoding").unwrap_or_default();
    if !coding.trim().to_ascii_lowercase().ends_with("chunked") {
        let len = value("content-length").and_then(|len| len.trim().parse().ok());
        return match len.and_then(|len: usize| bytes.get(..len)) {
            Some(body) => (body.to_vec(), true),
            None => (bytes.to_vec(), false),
        };
    }
    let (mut body, mut rest) = (Vec::new(), bytes);
    while let Ok(httparse::Status::Complete((start, len))) = httparse::parse_chunk_size(rest) {
        if len == 0 {
            return (body, true);
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let chunk = rest.get(start..).unwrap_or_default();
        body.extend_from_slice(chunk.get(..len).unwrap_or(chunk));
        // Behind it there is CRLF.
        rest = chunk.get(len.saturating_add(2)..).unwrap_or_default();
    }
    (body, false)
}
