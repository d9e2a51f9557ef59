// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb peer`.

use std::{
    net::IpAddr,
    path::PathBuf, //
};

use clap::{
    ArgGroup,
    Args,
    Subcommand, //
};
use nlb_netlink::Algorithm;

use super::names;

/// Commands of `peer`.
#[derive(Subcommand)]
pub(crate) enum PeerCommand {
    /// Allow migrations to and from a peer
    ///
    /// A connection state is a licence to create any socket, so a peer has to prove who it is: both
    /// sides have the same key, and sign every segment with it (TCP-AO). The secret is read from a
    /// file, without a newline at its end; openssl rand -hex 32 makes a good one.
    #[command(
        override_usage = "nlb peer add ADDR [port PORT] {key ID secret-file FILE [recv-id ID] [algorithm NAME] | unauthenticated}",
        group = ArgGroup::new("proof").args(["key", "unauthenticated"]).required(true)
    )]
    Add {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
        /// TCP port of its migrator; 4770 when left out
        #[arg(long)]
        port: Option<u16>,
        /// Id of the key, 0 to 255, the same on both sides unless recv-id is given
        #[arg(long, value_name = "ID", requires = "secret_file")]
        key: Option<u8>,
        /// Details of the key
        #[command(flatten)]
        details: Option<KeyArgs>,
        /// Take whoever can send with this address for the peer
        #[arg(long, conflicts_with_all = ["secret_file", "recv_id", "algorithm"])]
        unauthenticated: bool,
    },
    /// Remove a peer and close its connections
    #[command(override_usage = "nlb peer del ADDR")]
    Del {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
    },
    /// Show one peer or all
    #[command(visible_aliases = ["list", "ls"], override_usage = "nlb peer show [ADDR]")]
    Show {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: Option<IpAddr>,
    },
    /// Keys of the peers
    Key {
        /// What to do
        #[command(subcommand)]
        command: Option<KeyCommand>,
    },
}

/// Commands of `peer key`.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Give a peer one more key; it is used when one of both sides asks for it
    #[command(
        override_usage = "nlb peer key add ADDR id ID secret-file FILE [recv-id ID] [algorithm NAME]"
    )]
    Add {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
        /// Id of the key, 0 to 255, the same on both sides unless recv-id is given
        #[arg(long, value_name = "ID")]
        id: u8,
        /// Details of the key
        #[command(flatten)]
        details: KeyArgs,
    },
    /// Prefer a key, once both sides have it: begin connections with it, and have the peer sign with
    /// it on those there are
    #[command(override_usage = "nlb peer key use ADDR id ID")]
    Use {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
        /// Id of the key
        #[arg(long, value_name = "ID")]
        id: u8,
    },
    /// Remove a key; connections go on with the preferred one
    #[command(override_usage = "nlb peer key del ADDR id ID")]
    Del {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
        /// Id of the key
        #[arg(long, value_name = "ID")]
        id: u8,
    },
    /// Show the keys of a peer or of all, without their secrets
    #[command(visible_aliases = ["list", "ls"], override_usage = "nlb peer key show [ADDR]")]
    Show {
        /// Address of the peer
        #[arg(value_name = "ADDR")]
        addr: Option<IpAddr>,
    },
}

/// What makes a key, but for its id.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// File with the secret, 16 to 80 bytes; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: PathBuf,
    /// Id of the key in segments from the peer, if it is another one there
    #[arg(long, value_name = "ID")]
    pub(crate) recv_id: Option<u8>,
    /// How segments are signed; hmac-sha256 when left out
    #[arg(long, value_parser = names::<Algorithm>())]
    pub(crate) algorithm: Option<Algorithm>,
}
