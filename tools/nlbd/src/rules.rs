// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which pool a request belongs to.

use crate::{
    http::Request,
    pool::Pool, //
};
use std::sync::Arc;

/// All rules, and what happens where none fits. `None` stands for closing.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Tried in this order.
    pub(crate) rules: Vec<Rule>,
    /// For requests that no rule takes.
    pub(crate) default: Option<Arc<Pool>>,
    /// For what is no request.
    pub(crate) unplaced: Option<Arc<Pool>>,
}

/// What a request must be like; absent parts do not matter.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) host: Option<HostPattern>,
    /// A prefix of the path.
    pub(crate) path: Option<String>,
    /// Compared as it is: methods are case-sensitive (RFC 9110, section 9.1).
    pub(crate) method: Option<String>,
    pub(crate) pool: Arc<Pool>,
}

/// A host name, or every name below one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HostPattern {
    Exactly(String),
    /// With the leading dot.
    Below(String),
}

impl HostPattern {
    /// Reads `name` or `*.suffix`. `None`: it is neither.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let (pattern, name): (fn(String) -> Self, _) = match text.strip_prefix('*') {
            Some(suffix) => (Self::Below, suffix.strip_prefix('.')?),
            None => (Self::Exactly, text),
        };
        let fits =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '[' | ']' | ':');
        // A port would never match: it is cut off from what the client sends.
        let has_port = !name.ends_with(']') && name.contains(':');
        if name.is_empty() || name.starts_with('.') || has_port || !name.chars().all(fits) {
            return None;
        }
        let dot = if text.starts_with('*') { "." } else { "" };
        Some(pattern(format!("{dot}{}", name.to_ascii_lowercase())))
    }

    /// Whether a host name, in lower case and without port, fits.
    fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exactly(name) => host == name,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl Rule {
    fn fits(&self, request: &Request) -> bool {
        let host = match (&self.host, &request.host) {
            (None, _) => true,
            (Some(pattern), Some(host)) => pattern.fits(host),
            (Some(_), None) => false,
        };
        host && self
            .path
            .as_ref()
            .is_none_or(|prefix| request.path.starts_with(prefix.as_str()))
            && self
                .method
                .as_ref()
                .is_none_or(|method| request.method == *method)
    }
}

impl Rules {
    /// The pool of a request; `None` closes it.
    pub(crate) fn place(&self, request: &Request) -> Option<&Arc<Pool>> {
        match self.rules.iter().find(|rule| rule.fits(request)) {
            Some(rule) => Some(&rule.pool),
            None => self.default.as_ref(),
        }
    }
}
