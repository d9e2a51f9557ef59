// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb apply`.

use std::{
    fs,
    io::{
        self,
        Read,
        Write, //
    },
    path::Path, //
};

use serde::Serialize;

use super::{
    peer::secret,
    Outcome, //
};
use crate::{
    cli::ApplyArgs,
    config::{
        file,
        machine::{
            self,
            words_of,
            Broken, //
        },
        plan::{
            self,
            Step, //
        },
    },
    failure::Failure,
    output::Format, //
};

/// A change, for programs.
#[derive(Serialize)]
struct Shown {
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
}

pub(super) fn run(args: &ApplyArgs, format: Format) -> Outcome {
    let (name, text) = read(&args.file)?;
    let want = file::parse(&name, &text)?;
    let have = machine::read(&want.kinds)?;
    let steps = plan::plan(&have, &want).map_err(|impossible| {
        let place = impossible.place.map(|place| format!("{place}: "));
        Failure::Text(format!(
            "{name}:{}{}",
            place.unwrap_or_default(),
            impossible.what
        ))
    })?;
    for step in &steps {
        check_secret(&name, step)?;
    }
    if !args.dry_run {
        machine::carry_out(&steps, &mut machine::run).map_err(|broken| told(&name, *broken))?;
    }
    if format.is_json() {
        let shown: Vec<_> = steps.iter().map(shown).collect();
        format.json(&shown)?;
    } else if args.dry_run {
        let mut out = io::stdout().lock();
        for step in &steps {
            let was = step.was.iter().map(|was| format!("  # was {was}"));
            writeln!(out, "{}{}", words_of(&step.words), was.collect::<String>())?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Name and text of a file.
fn read(path: &Path) -> Result<(String, String), Failure> {
    let mut text = String::new();
    let (name, read) = if path == Path::new("-") {
        let read = io::stdin().read_to_string(&mut text);
        ("standard input".to_owned(), read)
    } else {
        let read = fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
        (path.display().to_string(), read)
    };
    match read {
        Ok(_) => Ok((name, text)),
        Err(error) => Err(Failure::Text(format!("{name}: {error}"))),
    }
}

/// Whether the secret that a step needs can be read.
fn check_secret(name: &str, step: &Step) -> Outcome {
    let mut words = step.words.iter().skip_while(|word| *word != "secret-file");
    let Some(file) = words.nth(1) else {
        return Ok(());
    };
    secret::check(Path::new(file)).map_err(|failure| {
        let place = step.place.map(|place| format!("{place}: "));
        Failure::Text(format!(
            "{name}:{}{}",
            place.unwrap_or_default(),
            failure.text()
        ))
    })
}

/// What to say of a step that failed.
fn told(name: &str, broken: Broken) -> Failure {
    let place = match broken.step.place {
        Some(place) => format!("{name}:{place}"),
        None => format!("{name}: not in it, to be removed"),
    };
    let rest = if broken.left.is_empty() {
        "nothing has changed".to_owned()
    } else {
        format!("not taken back: {}", broken.left.join("; "))
    };
    Failure::Text(format!(
        "{place}: {}: {}; {rest}",
        words_of(&broken.step.words),
        broken.failure.text()
    ))
}

fn shown(step: &Step) -> Shown {
    Shown {
        command: words_of(&step.words),
        was: step.was.clone(),
    }
}
