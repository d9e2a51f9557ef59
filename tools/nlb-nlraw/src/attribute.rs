// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attributes as written on the command line: `ATTR[:TYPE]=VALUE` or `raw=HEX`.

use std::net::IpAddr;

use nlb_netlink::{
    attr::NLA_F_NESTED,
    raw::RawRequest, //
};

/// One argument, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// An attribute: type with flags, payload.
    Attribute(u16, Vec<u8>),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

impl Part {
    /// Understand `text`; `names` are the names of the attributes, by id, from 1.
    pub(crate) fn parse(text: &str, names: &[&str]) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key == "raw" {
            return hex(value).map(Self::Raw);
        }
        let (attr, kind) = key.split_once(':').unwrap_or((key, "hex"));
        let id = id(attr, names)?;
        let flags = if kind == "nest" { NLA_F_NESTED } else { 0 };
        Ok(Self::Attribute(id | flags, payload(kind, value)?))
    }

    /// Append to a request.
    pub(crate) fn append(&self, request: RawRequest) -> RawRequest {
        match self {
            Self::Attribute(kind, payload) => request.attribute(*kind, payload),
            Self::Raw(bytes) => request.bytes(bytes),
        }
    }
}

fn id(text: &str, names: &[&str]) -> Result<u16, String> {
    if let Some(index) = names.iter().position(|name| *name == text) {
        return u16::try_from(index + 1).map_err(|error| error.to_string());
    }
    let unknown = || format!("`{text}` is no attribute, expected {}", names.join(", "));
    text.parse().map_err(|_| unknown())
}

fn payload(kind: &str, value: &str) -> Result<Vec<u8>, String> {
    Ok(match kind {
        "u8" => number::<u8>(value)?,
        "u16" => number::<u16>(value)?,
        "u32" => number::<u32>(value)?,
        "u64" => number::<u64>(value)?,
        "be16" => integer::<u16>(value)?.to_be_bytes().to_vec(),
        "be32" => integer::<u32>(value)?.to_be_bytes().to_vec(),
        // As the kernel writes it: as short as it can be.
        "uint" => number::<u32>(value).or_else(|_| number::<u64>(value))?,
        "str" => value.as_bytes().to_vec(),
        "strz" => [value.as_bytes(), &[0]].concat(),
        "hex" | "nest" => hex(value)?,
        "ip" => match value.parse() {
            Ok(IpAddr::V4(addr)) => addr.octets().to_vec(),
            Ok(IpAddr::V6(addr)) => addr.octets().to_vec(),
            Err(_) => return Err(format!("`{value}` is not an address")),
        },
        "flag" if value.is_empty() => Vec::new(),
        "flag" => return Err("a flag has no value".into()),
        _ => return Err(format!("`{kind}` is no type")),
    })
}

/// Integers in host byte order.
trait Integer: Sized {
    fn from_u64(value: u64) -> Option<Self>;
    fn to_vec(self) -> Vec<u8>;
}

macro_rules! integer {
    ($($type:ty)*) => { $(
        impl Integer for $type {
            fn from_u64(value: u64) -> Option<Self> {
                Self::try_from(value).ok()
            }

            fn to_vec(self) -> Vec<u8> {
                self.to_ne_bytes().to_vec()
            }
        }
    )* };
}

integer!(u8 u16 u32 u64);

fn integer<T: Integer>(text: &str) -> Result<T, String> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let value = value.and_then(T::from_u64);
    value.ok_or_else(|| format!("`{text}` is not a number of {} bytes", size_of::<T>()))
}

fn number<T: Integer>(text: &str) -> Result<Vec<u8>, String> {
    integer::<T>(text).map(T::to_vec)
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("`{text}` is not hexadecimal bytes");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            u8::from_str_radix(pair, 16).map_err(|_| bad())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["vip-addr", "vip-port", "proto"];

    #[test]
    fn every_type() {
        for (text, kind, bytes) in [
            ("vip-addr:ip=192.0.2.10", 1, &[192, 0, 2, 10][..]),
            (
                "1:ip=::1",
                1,
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
            ("vip-port:be16=80", 2, &[0, 80]),
            ("3:be32=0x01020304", 3, &[1, 2, 3, 4]),
            ("3:u8=255", 3, &[255]),
            ("3:str=ab", 3, b"ab"),
            ("3:strz=ab", 3, b"ab\0"),
            ("3:nest=00ff", 0x8003, &[0, 255]),
            ("16383=", 16383, &[]),
            ("3:flag", 3, &[]),
            ("3=0A0b", 3, &[10, 11]),
        ] {
            assert_eq!(
                Part::parse(text, NAMES),
                Ok(Part::Attribute(kind, bytes.to_vec())),
                "{text}"
            );
        }
        let u32s = Part::Attribute(3, 6u32.to_ne_bytes().to_vec());
        assert_eq!(Part::parse("proto:u32=6", NAMES), Ok(u32s.clone()));
        assert_eq!(Part::parse("proto:uint=6", NAMES), Ok(u32s));
        let long = Part::Attribute(3, (1u64 << 32).to_ne_bytes().to_vec());
        assert_eq!(Part::parse("proto:uint=0x100000000", NAMES), Ok(long));
        assert_eq!(Part::parse("raw=01", NAMES), Ok(Part::Raw(vec![1])));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "x:u8=1", "1:u8=256", "1:u8=", "1:x=1", "1=0", "1=0g", "1=é", "1:ip=1", "1:flag=1",
        ] {
            assert!(Part::parse(text, NAMES).is_err(), "{text}");
        }
    }
}
