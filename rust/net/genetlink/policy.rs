// SPDX-License-Identifier: GPL-2.0

//! Attribute policies.
//!
//! C header: [`include/net/netlink.h`](srctree/include/net/netlink.h), `struct nla_policy`.

use crate::bindings;

/// What one attribute of a request may hold.
///
/// A table `[Policy; N]` is indexed by attribute id; entry 0 is [`Policy::reject`], for id 0 is
/// no attribute. The kernel checks every request against the table of its operation before the
/// operation runs, and an attribute that is past the end of the table, or rejected by it, is an
/// error: validation is strict.
///
/// `struct nla_policy` holds bounds in 16 bits, signed. The constructors that take bounds accept
/// 0 to 32767, as upper bound also the largest value of the type, and with a lower bound of 0
/// also `2^n - 1`. Other bounds stop the build, the constructors being for `static`s.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Policy(bindings::nla_policy);

// SAFETY: A policy is never written after it was built, and what it points to is `'static` and
// just as constant.
unsafe impl Sync for Policy {}
// SAFETY: As above.
unsafe impl Send for Policy {}

/// `S16_MAX`, the largest bound `struct nla_policy` holds.
const BOUND_MAX: u64 = 32767;

const fn plain(kind: u32) -> bindings::nla_policy {
    // SAFETY: `struct nla_policy` consists of integers and of pointers that may be null.
    let mut policy: bindings::nla_policy = unsafe { core::mem::zeroed() };
    policy.type_ = kind as u8;
    policy
}

const fn bounded(kind: u32, type_max: u64, min: u64, max: u64) -> Policy {
    let mut policy = plain(kind);
    assert!(min <= max, "empty range");
    if min == 0 && max == type_max {
        return Policy(policy);
    }
    if max == type_max && min <= BOUND_MAX {
        policy.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_MIN as u8;
        policy.__bindgen_anon_1.__bindgen_anon_1 =
            bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 {
                min: min as i16,
                max: 0,
            };
    } else if max <= BOUND_MAX {
        policy.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_RANGE as u8;
        policy.__bindgen_anon_1.__bindgen_anon_1 =
            bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 {
                min: min as i16,
                max: max as i16,
            };
    } else {
        assert!(
            min == 0 && max <= u32::MAX as u64 && (max + 1).is_power_of_two(),
            "bounds that `struct nla_policy` cannot hold"
        );
        policy.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_MASK as u8;
        policy.__bindgen_anon_1.mask = max as u32;
    }
    Policy(policy)
}

macro_rules! unsigned {
    ($($kind:ident, $ty:ty, $name:ident, $min:ident, $max:ident, $range:ident, $what:literal;)*) => {
        $(
            #[doc = concat!("Any ", $what, ".")]
            pub const fn $name() -> Self {
                Policy(plain(bindings::$kind))
            }

            #[doc = concat!("At least `min`, ", $what, ".")]
            pub const fn $min(min: $ty) -> Self {
                bounded(bindings::$kind, <$ty>::MAX as u64, min as u64, <$ty>::MAX as u64)
            }

            #[doc = concat!("At most `max`, ", $what, ".")]
            pub const fn $max(max: $ty) -> Self {
                bounded(bindings::$kind, <$ty>::MAX as u64, 0, max as u64)
            }

            #[doc = concat!("`min` to `max`, both included, ", $what, ".")]
            pub const fn $range(min: $ty, max: $ty) -> Self {
                bounded(bindings::$kind, <$ty>::MAX as u64, min as u64, max as u64)
            }
        )*
    };
}

impl Policy {
    unsigned! {
        NLA_U8, u8, u8, u8_min, u8_max, u8_range, "an 8-bit number";
        NLA_U16, u16, u16, u16_min, u16_max, u16_range, "a 16-bit number in host byte order";
        NLA_U32, u32, u32, u32_min, u32_max, u32_range, "a 32-bit number in host byte order";
        NLA_U64, u64, u64, u64_min, u64_max, u64_range, "a 64-bit number in host byte order";
        NLA_BE16, u16, be16, be16_min, be16_max, be16_range, "a 16-bit number in network byte order";
        NLA_BE32, u32, be32, be32_min, be32_max, be32_range, "a 32-bit number in network byte order";
    }

    /// The attribute is not taken by this operation.
    pub const fn reject() -> Self {
        Policy(plain(bindings::NLA_REJECT))
    }

    /// A number of 32 or 64 bits in host byte order, as the sender likes (`uint` of YNL).
    pub const fn uint() -> Self {
        Policy(plain(bindings::NLA_UINT))
    }

    /// A signed 32-bit number in host byte order.
    pub const fn s32() -> Self {
        Policy(plain(bindings::NLA_S32))
    }

    /// No payload; the attribute says yes by being there.
    pub const fn flag() -> Self {
        Policy(plain(bindings::NLA_FLAG))
    }

    /// A NUL-terminated string of at most `max` bytes, the NUL not counted.
    pub const fn string(max: u16) -> Self {
        let mut policy = plain(bindings::NLA_NUL_STRING);
        policy.len = max;
        Policy(policy)
    }

    /// `min` to `max` bytes, both included.
    pub const fn binary(min: u16, max: u16) -> Self {
        assert!(min <= max && max as u64 <= BOUND_MAX, "bad length range");
        let mut policy = plain(bindings::NLA_BINARY);
        policy.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_RANGE as u8;
        policy.__bindgen_anon_1.__bindgen_anon_1 =
            bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 {
                min: min as i16,
                max: max as i16,
            };
        Policy(policy)
    }

    /// Exactly `len` bytes.
    pub const fn binary_exact(len: u16) -> Self {
        Self::binary(len, len)
    }

    /// Attributes that follow `table` themselves.
    pub const fn nested(table: &'static [Policy]) -> Self {
        assert!(!table.is_empty() && table.len() <= MAX_TABLE, "bad table");
        let mut policy = plain(bindings::NLA_NESTED);
        policy.len = (table.len() - 1) as u16;
        policy.__bindgen_anon_1.nested_policy = table.as_ptr().cast();
        Policy(policy)
    }

    /// The table of the attributes inside, if this is a nest.
    pub(super) fn nested_table(&self) -> Option<&'static [Policy]> {
        if u32::from(self.0.type_) != bindings::NLA_NESTED {
            return None;
        }
        // SAFETY: `Self::nested`, the only place that makes a policy of this type, sets this
        // field of the union.
        let table = unsafe { self.0.__bindgen_anon_1.nested_policy };
        // SAFETY: `Self::nested` took pointer and length (less 1) from a `&'static [Policy]`;
        // `Policy` is transparent over the pointee.
        Some(unsafe { core::slice::from_raw_parts(table.cast(), usize::from(self.0.len) + 1) })
    }
}

/// Longest policy table, so that a 64-bit set holds the ids of one level.
pub(super) const MAX_TABLE: usize = 64;
