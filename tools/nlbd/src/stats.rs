// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counters of the classifier.

use std::{
    fmt,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    }, //
};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[doc = $doc])* pub(crate) $name: AtomicU64,)*
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut space = "";
                $(
                    write!(f, "{space}{}={}", stringify!($name), self.$name.load(Ordering::Relaxed))?;
                    space = " ";
                )*
                let _ = space;
                Ok(())
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Requests that a rule or the default placed.
    placed,
    /// Connections that were no HTTP/1.x request.
    not_http,
    /// Heads longer than allowed.
    too_long,
    /// Connections that sent a part of a head in time.
    slow,
    /// Connections that sent nothing in time.
    silent,
    /// Connections that ended before a whole head.
    ended,
    /// Connections handed over.
    migrated,
    /// Attempts that the kernel or the target refused.
    refused,
    /// Connections that no endpoint took.
    failed,
    /// Connections closed because rules or configuration say so.
    closed,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
