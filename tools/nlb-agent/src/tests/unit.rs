// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the unit of systemd does when it is stopped.

use super::*;
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

const UNIT: &str = include_str!("../../nlb-agent.service");

/// The one line that begins so, without that.
fn line(beginning: &str) -> &'static str {
    let mut lines = UNIT.lines().filter_map(|line| line.strip_prefix(beginning));
    let line = lines.next().unwrap();
    assert_eq!(lines.next(), None, "{beginning}");
    line
}

/// What a signal ends that the stopped unit sends to an agent, which is a shell here; nothing, if it sends none.
fn stopped(system: &str) -> Option<i32> {
    let folder = path().with_file_name(format!("bin-{system}"));
    fs::create_dir_all(&folder).unwrap();
    let systemctl = folder.join("systemctl");
    let script = format!("#!/bin/sh\n[ \"$*\" = is-system-running ] && echo {system}\n");
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).unwrap();
    let mut agent = Command::new("/bin/cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Root, and whatever comes of it.
    let command = line("ExecStop=-+/bin/sh -c ");
    let script = command.trim_matches('\'').replace("$$", "$");
    let ended = Command::new("/bin/sh")
        .args(["-c", &script])
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
        .env("MAINPID", agent.id().to_string())
        .status()
        .unwrap();
    assert!(ended.success());
    // If nothing has ended it, this does.
    drop(agent.stdin.take());
    agent.wait().unwrap().signal()
}

/// Only then it is told to say goodbye.
#[test]
fn only_if_the_system_stops_the_host_leaves() {
    const SIGUSR2: i32 = 12;
    assert_eq!(stopped("stopping"), Some(SIGUSR2));
    for system in ["running", "degraded", ""] {
        assert_eq!(stopped(system), None, "{system}");
    }
}

/// Nor is anything else told to end: a check that is under way would be a bad one.
#[test]
fn others_are_not_told_to_end() {
    assert_eq!(line("KillMode="), "mixed");
    // What papers::with_config ends with if the file is wrong.
    assert_eq!(line("RestartPreventExitStatus="), "2");
}
