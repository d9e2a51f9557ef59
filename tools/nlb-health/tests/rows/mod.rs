// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rows for tests in which it matters only whose they are.

use nlb_health::row::{AppType, Directive, Health, Identity, Row, Status};
use std::net::SocketAddr;

/// A healthy application of 192.0.2.10:80/tcp that gets connections, without load.
pub(crate) fn healthy(physical: SocketAddr) -> Row {
    Row {
        identity: Identity {
            app_type: AppType {
                vip: SocketAddr::from(([192, 0, 2, 10], 80)),
                transport: 6,
                protocol: String::new(),
                detail: String::new(),
            },
            physical,
        },
        status: Status {
            health: Health::Healthy,
            load: 0,
            capacity: 50,
            target: Directive::Active,
            current: Directive::Active,
        },
    }
}
