// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb keep`, and of what names kept bytes.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    str::FromStr, //
};

use clap::Subcommand;
use nlb_netlink::ReadBytes;

/// Commands of `keep`.
#[derive(Subcommand)]
pub(crate) enum KeepCommand {
    /// Keep a copy of what programs read from connections to an address and port
    ///
    /// It begins with the first byte of a connection and goes when more was read than is to be kept.
    /// A connection can be handed over with it, so that the application there reads it again:
    /// nlb migration start ... read all.
    #[command(override_usage = "nlb keep add VIP:PORT bytes N")]
    Add {
        /// Address and port that clients connect to
        #[arg(value_name = "VIP:PORT")]
        vip: SocketAddr,
        /// How much of a connection, 1 to 32767
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32767))]
        bytes: u32,
    },
    /// Keep no more, and let go of the copies there are
    #[command(override_usage = "nlb keep del VIP:PORT")]
    Del {
        /// Address and port that clients connect to
        #[arg(value_name = "VIP:PORT")]
        vip: SocketAddr,
    },
    /// Show one address and port or all
    #[command(visible_aliases = ["list", "ls"], override_usage = "nlb keep show [VIP:PORT]")]
    Show {
        /// Address and port that clients connect to
        #[arg(value_name = "VIP:PORT")]
        vip: Option<SocketAddr>,
    },
}

/// How many of the bytes that were read go along: a number, or `all`.
#[derive(Clone, Copy)]
pub(crate) enum ReadArg {
    /// So many of the last.
    Count(NonZeroU32),
    /// All since the connection began.
    All,
}

impl FromStr for ReadArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse()
            .map(Self::Count)
            .map_err(|_| "neither a number from 1 on nor \"all\"")
    }
}

impl ReadArg {
    /// What to ask the kernel for.
    pub(crate) fn bytes(self) -> ReadBytes<'static> {
        match self {
            Self::Count(count) => ReadBytes::Kept(count.get()),
            Self::All => ReadBytes::AllKept,
        }
    }
}
