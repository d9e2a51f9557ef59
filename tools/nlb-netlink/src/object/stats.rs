// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counters.

use serde::{
    ser::SerializeMap,
    Serialize,
    Serializer, //
};

use crate::{
    attr::{
        self,
        Attrs, //
    },
    error::Malformed,
    uapi, //
};

/// One counter of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What is counted.
    pub name: String,
    /// How many.
    pub value: u64,
}

impl Counter {
    // All three families have the same set of attributes.
    fn decode(attrs: &[u8]) -> Result<Self, Malformed> {
        let (mut name, mut value) = (None, None);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.id {
                uapi::fwd::counter::NAME => name = attr::string(attr.payload),
                uapi::fwd::counter::VALUE => {
                    value = Some(attr::uint(attr.payload).ok_or(Malformed::Value("value"))?);
                }
                _ => {}
            }
        }
        Ok(Self {
            name: name.ok_or(Malformed::Missing("name"))?,
            value: value.ok_or(Malformed::Missing("value"))?,
        })
    }
}

/// The counters of a family in this network namespace, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Name of the family.
    pub family: &'static str,
    /// The processor that has counted; `None` for all together.
    pub cpu: Option<u32>,
    /// Its counters.
    pub counters: Vec<Counter>,
}

impl Stats {
    /// Value of the counter with this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        let counter = self.counters.iter().find(|counter| counter.name == name);
        counter.map(|counter| counter.value)
    }

    /// Parse the attributes of a message.
    pub fn decode(family: &'static str, attrs: &[u8]) -> Result<Self, Malformed> {
        let (mut counters, mut cpu) = (Vec::new(), None);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.id {
                uapi::fwd::stats::COUNTER => counters.push(Counter::decode(attr.payload)?),
                uapi::fwd::stats::CPU => {
                    cpu = Some(attr::u32(attr.payload).ok_or(Malformed::Value("cpu"))?);
                }
                _ => {}
            }
        }
        Ok(Self {
            family,
            cpu,
            counters,
        })
    }
}

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Values<'a>(&'a [Counter]);

        impl Serialize for Values<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|counter| (&counter.name, counter.value)))
            }
        }

        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("family", self.family)?;
        if let Some(cpu) = self.cpu {
            map.serialize_entry("cpu", &cpu)?;
        }
        map.serialize_entry("counters", &Values(&self.counters))?;
        map.end()
    }
}
