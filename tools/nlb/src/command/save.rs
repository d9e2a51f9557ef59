// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb save`.

use std::io::{
    self,
    Write, //
};

use super::Outcome;
use crate::{
    cli::SaveArgs,
    config::{
        machine,
        print, //
    },
    failure::Failure,
    output::Format, //
};

pub(super) fn run(args: &SaveArgs, format: Format) -> Outcome {
    let mut config = machine::read_all()?;
    if let Some(file) = &args.secret_file {
        let file = file
            .to_str()
            .ok_or_else(|| Failure::Text(format!("{}: the name is not UTF-8", file.display())))?;
        config.name_secrets(file);
    }
    if format.is_json() {
        return Ok(format.json(&print::json(&config))?);
    }
    let mut out = io::stdout().lock();
    out.write_all(print::toml(&config).as_bytes())?;
    Ok(out.flush()?)
}
