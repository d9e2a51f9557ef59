// SPDX-License-Identifier: GPL-2.0

//! What a device is told that does part of the work: where which header is.

use super::SkBuff;
#[cfg(CONFIG_KUNIT = "y")]
use crate::bindings;

impl SkBuff {
    /// Declares that what is carried inside starts at the data, without a link-layer header.
    #[inline]
    pub(crate) fn set_inner_mac_header(&mut self) {
        // CAST: As in C, where it is an offset of 16 bits.
        self.headers_mut().inner_mac_header = self.headroom() as u16;
    }

    /// Leaves a checksum to the device, as an application's machine does: that of what starts `start`
    /// bytes behind the data pointer, which goes to `offset` there, where the sum of the pseudo header
    /// is.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn leave_checksum(&mut self, start: u16, offset: u16) {
        self.set_transport_header(start);
        let headers = self.headers_mut();
        let csum_start = headers.transport_header;
        headers.set_ip_summed(bindings::CHECKSUM_PARTIAL as u8);
        let place = bindings::sk_buff__bindgen_ty_4__bindgen_ty_2__bindgen_ty_1__bindgen_ty_1 {
            csum_start,
            csum_offset: offset,
        };
        headers.__bindgen_anon_1.__bindgen_anon_1 = place;
    }
}
