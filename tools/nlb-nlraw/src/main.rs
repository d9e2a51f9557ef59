// SPDX-License-Identifier: MIT OR Apache-2.0

//! Send a generic netlink request of arbitrary attributes and say what the kernel answered.
//!
//! The tests of the kernel modules use it to send what the command `nlb` never would: wrong types,
//! missing, doubled and unknown attributes, values out of range.

#![forbid(unsafe_code)]

mod attribute;

use std::process::ExitCode;

use clap::Parser;
use nlb_netlink::{
    attr::Attrs,
    errno_name,
    raw::{
        attribute_names,
        command_names,
        RawRequest, //
    },
    Error, //
};
use rustix::{
    fs::{
        open,
        Mode,
        OFlags, //
    },
    thread::{
        move_into_link_name_space,
        LinkNameSpaceType, //
    },
};

use crate::attribute::Part;

/// Send a netlink request of arbitrary attributes to an nlb module.
///
/// Prints ERRNO, the kernel's text and the attribute it complained about, separated by tabs, each
/// `-` where there is none; `OK` when the request was accepted, and then one line for each answered
/// object. Exit status 0 when accepted, 1 when refused, 2 when it could not be sent.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Network namespace of /run/netns
    #[arg(short = 'n', long, value_name = "NAME")]
    netns: Option<String>,
    /// Ask for the whole table
    #[arg(long)]
    dump: bool,
    /// Family, with or without nlb-
    family: String,
    /// Command, by name or number
    command: String,
    /// ATTR[:TYPE]=VALUE, attributes by name or number; or raw=HEX. Types: u8 u16 u32 u64 be16
    /// be32 uint str strz hex ip flag nest; hex when left out
    attributes: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(text) => {
            eprintln!("nlb-nlraw: {text}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, String> {
    let family = match args.family.as_str() {
        short @ ("fwd" | "tunnel" | "migrator") => format!("nlb-{short}"),
        name => name.to_owned(),
    };
    let commands = command_names(&family).unwrap_or_default();
    let index = commands.iter().position(|name| *name == args.command);
    let cmd = match index.and_then(|index| u8::try_from(index + 1).ok()) {
        Some(cmd) => cmd,
        None => args.command.parse().map_err(|_| {
            format!(
                "`{}` is no command, expected {}",
                args.command,
                commands.join(", ")
            )
        })?,
    };
    let names = attribute_names(&family, cmd).unwrap_or_default();
    let mut request = RawRequest::new(cmd);
    if args.dump {
        request = request.dump();
    }
    for text in &args.attributes {
        request = Part::parse(text, names)?.append(request);
    }
    if let Some(name) = &args.netns {
        enter(name)?;
    }
    report(request.send(&family))
}

/// Move this thread, the only one, into a network namespace.
fn enter(name: &str) -> Result<(), String> {
    let path = format!("/run/netns/{name}");
    open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(LinkNameSpaceType::Network),
            )
        })
        .map_err(|error| format!("{path}: {error}"))
}

fn report(outcome: Result<Vec<Vec<u8>>, Error>) -> Result<ExitCode, String> {
    match outcome {
        Ok(objects) => {
            println!("OK\t-\t-");
            for object in objects {
                print_object(&object);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(Error::Refused(refusal)) => {
            let text = refusal.text.as_deref().unwrap_or("-");
            let attribute = refusal.attribute.as_ref().map(|offender| offender.label());
            let attribute = attribute.as_deref().unwrap_or("-");
            println!("{}\t{text}\t{attribute}", errno_name(refusal.errno));
            Ok(ExitCode::FAILURE)
        }
        Err(other) => Err(other.to_string()),
    }
}

fn print_object(attrs: &[u8]) {
    let list: Vec<_> = Attrs::new(attrs)
        .map(|attr| match attr {
            Ok(attr) => {
                let bytes: String = attr
                    .payload
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                format!("{}={bytes}", attr.id)
            }
            Err(error) => error.to_string(),
        })
        .collect();
    println!("{}", list.join(" "));
}
