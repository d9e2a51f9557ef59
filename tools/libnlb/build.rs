// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gives the library its name. What it exports, rustc limits to the functions of the header.

/// The version of the binary interface. It changes when a program that was linked to the library
/// has to be linked again.
const ABI: u32 = 0;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnlb.so.{ABI}");
}
