// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb allotment`.

use std::str::FromStr;

use clap::Subcommand;
use nlb_netlink::{
    AllotmentScheme,
    AllotmentShare,
    ServiceKey, //
};

use super::names;

/// Commands of `allotment`.
#[derive(Subcommand)]
pub(crate) enum AllotmentCommand {
    /// Say which endpoints of a service get its next connections
    ///
    /// tokens: each endpoint gets so many. percentages: each gets this part of them. It holds until all
    /// tokens are used or its time is up, and takes the place of the one before. Then the scheduler picks
    /// again, until another one comes. `nlb monitor services` tells when a quarter is left, and when it
    /// is over.
    #[command(
        override_usage = "nlb allotment set VIP:PORT/PROTO scheme {tokens|percentages} age MS share HOST[:PORT]=N [share HOST[:PORT]=N]..."
    )]
    Set {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// What the amounts are
        #[arg(long, value_parser = names::<AllotmentScheme>())]
        scheme: AllotmentScheme,
        /// For how many milliseconds it holds, at most 3600000
        #[arg(long, value_name = "MS")]
        age: u32,
        /// What the endpoint at a host gets, of several that with this port; one that is not named gets
        /// nothing
        #[arg(long = "share", value_name = "HOST[:PORT]=N", required = true)]
        shares: Vec<Share>,
    },
    /// Have the endpoints of a service picked by its scheduler again
    #[command(override_usage = "nlb allotment del VIP:PORT/PROTO")]
    Del {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
    },
    /// Show what is left of one service's allotment, or of all
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb allotment show [VIP:PORT/PROTO]"
    )]
    Show {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: Option<ServiceKey>,
    },
}

/// An endpoint and an amount: `10.0.2.2=40`.
#[derive(Clone)]
pub(crate) struct Share(pub(crate) AllotmentShare);

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, amount) = text.split_once('=').ok_or("not like 10.0.2.2=40")?;
        Ok(Self(AllotmentShare::new(
            host.parse().map_err(|_| "no address of a host")?,
            amount.parse().map_err(|_| "no number behind =")?,
        )))
    }
}
