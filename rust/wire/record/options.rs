// SPDX-License-Identifier: GPL-2.0

//! Options that a program has set on its socket.

use super::{
    super::field,
    section::{
        Found,
        Writer,
        CONGESTION_CONTROL,
        SOCKET_OPTIONS, //
    },
    Error, //
};

/// What a program has set on its socket with setsockopt(); zero or `false` is what it has not set,
/// and what stays as the listener at the target has it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SocketOptions {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// TCP_KEEPCNT; 127 at most.
    pub keepalive_count: u8,
    /// TCP_KEEPIDLE in seconds; 32767 at most.
    pub keepalive_idle: u32,
    /// TCP_KEEPINTVL in seconds; 32767 at most.
    pub keepalive_interval: u32,
    /// IP_TOS, or IPV6_TCLASS of a connection over IPv6, without the two bits of ECN.
    pub tos: u8,
    /// TCP_USER_TIMEOUT in milliseconds.
    pub user_timeout: u32,
    /// TCP_NOTSENT_LOWAT in bytes.
    pub notsent_lowat: u32,
    /// SO_MAX_PACING_RATE in bytes per second.
    pub max_pacing_rate: u64,
    /// TCP_CONGESTION.
    pub congestion_control: Option<CongestionControl>,
}

/// The name of a congestion control: printable, not empty, zero at the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CongestionControl([u8; NAME_LEN]);

/// `TCP_CA_NAME_MAX` in `include/net/tcp.h`: the longest name with its zero.
pub(super) const NAME_LEN: usize = 16;

impl CongestionControl {
    /// The name up to the first zero, if it is one.
    pub fn new(name: &[u8; NAME_LEN]) -> Option<CongestionControl> {
        let mut parts = name.splitn(2, |&byte| byte == 0);
        let (text, _) = (parts.next()?, parts.next()?);
        let good = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        let mut own = [0; NAME_LEN];
        for (to, from) in own.iter_mut().zip(text) {
            *to = *from;
        }
        good.then_some(CongestionControl(own))
    }

    /// With zeros behind it.
    pub fn as_bytes(&self) -> &[u8; NAME_LEN] {
        &self.0
    }
}

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` in `include/net/tcp.h`.
const MAX_SECONDS: u32 = 32767;

/// `MAX_TCP_KEEPCNT` there.
const MAX_COUNT: u8 = 127;

/// The bits of ECN in the field of IP_TOS.
const ECN: u8 = 3;

/// Bytes of the section.
pub(super) const LEN: usize = 28;

impl SocketOptions {
    /// Nothing has been set.
    pub const NONE: SocketOptions = SocketOptions {
        nodelay: false,
        keepalive: false,
        keepalive_count: 0,
        keepalive_idle: 0,
        keepalive_interval: 0,
        tos: 0,
        user_timeout: 0,
        notsent_lowat: 0,
        max_pacing_rate: 0,
        congestion_control: None,
    };

    /// Whether setsockopt() would take these values.
    pub fn is_valid(&self) -> bool {
        self.keepalive_count <= MAX_COUNT
            && self.keepalive_idle <= MAX_SECONDS
            && self.keepalive_interval <= MAX_SECONDS
            && self.tos & ECN == 0
            && self.user_timeout <= i32::MAX as u32
    }

    /// Writes the sections, unless nothing is set that they would say.
    pub(super) fn emit(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let others = SocketOptions {
            congestion_control: None,
            ..*self
        };
        if others != SocketOptions::NONE {
            writer.section::<SOCKET_OPTIONS>()?;
            let bits = u8::from(self.nodelay) | (u8::from(self.keepalive) << 1);
            writer.put([bits, self.keepalive_count, self.tos, 0])?;
            writer.u32s([
                self.keepalive_idle,
                self.keepalive_interval,
                self.user_timeout,
                self.notsent_lowat,
            ])?;
            writer.put(self.max_pacing_rate.to_be_bytes())?;
        }
        if let Some(name) = &self.congestion_control {
            writer.section::<CONGESTION_CONTROL>()?;
            writer.put(*name.as_bytes())?;
        }
        Ok(())
    }

    /// Takes the sections out.
    pub(super) fn take(found: &mut Found<'_>) -> Result<SocketOptions, Error> {
        let mut options = match found.socket_options.take() {
            Some(value) => SocketOptions::parse(value)?,
            None => SocketOptions::NONE,
        };
        if let Some(value) = found.congestion_control.take() {
            let name = CongestionControl::new(value).filter(|name| name.as_bytes() == value);
            options.congestion_control = Some(name.ok_or(Error::BadValue)?);
        }
        Ok(options)
    }

    /// Reads the value of the section, which has all but the congestion control.
    fn parse(value: &[u8; LEN]) -> Result<SocketOptions, Error> {
        let bits = field::u8(value, 0);
        let options = SocketOptions {
            nodelay: bits & 1 != 0,
            keepalive: bits & 2 != 0,
            keepalive_count: field::u8(value, 1),
            tos: field::u8(value, 2),
            keepalive_idle: field::u32(value, 4),
            keepalive_interval: field::u32(value, 8),
            user_timeout: field::u32(value, 12),
            notsent_lowat: field::u32(value, 16),
            max_pacing_rate: u64::from_be_bytes(field::array(value, 20)),
            congestion_control: None,
        };
        // A section that says nothing is left out: each state has one encoding.
        let good = bits & !3 == 0 && field::u8(value, 3) == 0 && options != SocketOptions::NONE;
        if good {
            Ok(options)
        } else {
            Err(Error::BadValue)
        }
    }
}
