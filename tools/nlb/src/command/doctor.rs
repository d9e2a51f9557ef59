// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb doctor`.

mod facts;
mod findings;

use std::{
    io::{
        self,
        Write, //
    },
    thread,
    time::Duration, //
};

use super::Outcome;
use crate::{
    cli::DoctorArgs,
    failure::Failure,
    output::Format, //
};
use facts::Facts;
use findings::{
    examine,
    Finding,
    Level, //
};

/// Widths of the first two columns.
const LEVEL: usize = 5;
const CHECK: usize = 10;

pub(super) fn run(args: &DoctorArgs, format: Format) -> Outcome {
    let findings = examine(&gather(args.interval)?);
    if format.is_json() {
        format.json(&findings)?;
    } else {
        let mut out = io::stdout().lock();
        for finding in &findings {
            writeln!(out, "{}", line(finding))?;
        }
        out.flush()?;
    }
    match findings
        .iter()
        .filter(|own| own.level == Level::Fail)
        .count()
    {
        0 => Ok(()),
        1 => Err(Failure::Text("one check failed".to_owned())),
        count => Err(Failure::Text(format!("{count} checks failed"))),
    }
}

/// What there is, with what was dropped meanwhile.
fn gather(interval: Duration) -> Result<Facts, Failure> {
    let mut facts = Facts::gather()?;
    if !facts.stats.is_empty() {
        thread::sleep(interval);
        facts.look_again()?;
    }
    Ok(facts)
}

fn line(finding: &Finding) -> String {
    let mut line = format!(
        "{:<LEVEL$} {:<CHECK$} {}",
        finding.level.text(),
        finding.check,
        finding.text
    );
    if let Some(remedy) = &finding.remedy {
        line.push_str(&format!(
            "\n{:width$}{remedy}",
            "",
            width = LEVEL + CHECK + 2
        ));
    }
    line
}
