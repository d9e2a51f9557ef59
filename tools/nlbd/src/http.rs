// SPDX-License-Identifier: MIT OR Apache-2.0

//! The head of an HTTP/1.x request, as far as rules look at it.

/// Header lines that a head may have; more can not be placed.
const HEADERS_MAX: usize = 100;

/// What rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// As sent.
    pub(crate) method: String,
    /// The path with the query, without scheme and authority.
    pub(crate) path: String,
    /// In lower case, without port.
    pub(crate) host: Option<String>,
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// The beginning of a head.
    Partial,
    /// A whole head.
    Request(Request),
    /// Nothing that begins an HTTP/1.x request.
    Other,
}

/// Looks at the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return Head::Partial,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Head::Other,
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Head::Other;
    };
    let mut hosts = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"));
    let field = hosts
        .next()
        .and_then(|header| std::str::from_utf8(header.value).ok());
    // Two Host lines are for two readers to disagree on (RFC 9112, section 3.2).
    if hosts.next().is_some() {
        return Head::Other;
    }
    let (authority, path) = split_target(target);
    Head::Request(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        host: authority.or(field).and_then(host_name),
    })
}

/// Authority and path of a request target (RFC 9112, section 3.2).
fn split_target(target: &str) -> (Option<&str>, &str) {
    let Some((_, rest)) = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'))
    else {
        return (None, target);
    };
    match rest.find(['/', '?']) {
        Some(at) => (Some(&rest[..at]), &rest[at..]),
        None => (Some(rest), "/"),
    }
}

/// The name in an authority, in lower case, without user and port.
fn host_name(authority: &str) -> Option<String> {
    let host = authority.rsplit('@').next().unwrap_or(authority).trim();
    let name = match host.find(']') {
        Some(end) => host.get(..=end)?,
        None => host.split(':').next()?,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}
