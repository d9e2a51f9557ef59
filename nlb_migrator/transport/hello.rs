// SPDX-License-Identifier: GPL-2.0

//! The first record each way: who speaks what.

use super::{
    decode,
    read_record,
    End,
    Link, //
};
use crate::{
    log::warn_limited,
    reason::{
        Code,
        Reason, //
    },
    state::Shared, //
};
use kernel::prelude::*;
use nlb::wire::record::{
    Hello,
    Record,
    VERSION, //
};

/// What both sides may use if both have it. Nothing so far.
const CAPABILITIES: u32 = 0;

/// Why `theirs` cannot be talked to.
fn mismatch(ours: &Hello, theirs: &Hello) -> Option<Reason> {
    if theirs.common_version(ours).is_none() {
        return Some(Reason::with_detail(
            Code::Version,
            fmt!(
                "{} to {}, here {}",
                theirs.min_version,
                theirs.max_version,
                VERSION
            ),
        ));
    }
    let missing = theirs.requires_beyond(CAPABILITIES);
    (missing != 0).then(|| Reason::with_detail(Code::Capability, fmt!("{missing:#x}")))
}

/// Exchanges HELLO; returns the boot nonce of the other side.
///
/// Who cannot talk to the other side tells it why before it hangs up.
pub(super) fn hello(shared: &Shared, link: &Link, payload: &mut KVVec<u8>) -> Result<u64, End> {
    let ours = Hello {
        min_version: VERSION,
        max_version: VERSION,
        capabilities: CAPABILITIES,
        boot_id: shared.boot_id,
    };
    link.send(&shared.stats, 0, &Record::Hello(ours))
        .map_err(|_| End::Lost)?;
    let header = read_record(shared, link, payload, false)?;
    let Record::Hello(theirs) = decode(shared, link, &header, payload, &mut None)? else {
        return Err(End::Bad);
    };
    let Some(reason) = mismatch(&ours, &theirs) else {
        return Ok(theirs.boot_id);
    };
    warn_limited!(
        shared.log,
        "peer {}: {}, connection closed\n",
        link.peer.addr,
        reason.text().as_str()
    );
    let _ = link.send(&shared.stats, 0, &Record::Refused(reason.as_record()));
    Err(End::Refused(reason))
}
