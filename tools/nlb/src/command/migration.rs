// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb migration`.

use std::{
    os::fd::OwnedFd,
    time::Duration, //
};

use nlb_netlink::{
    Migration,
    Migrator,
    ReadBytes,
    Role, //
};
use rustix::{
    io::Errno,
    process::{
        pidfd_getfd,
        pidfd_open,
        Pid,
        PidfdFlags,
        PidfdGetfdFlags, //
    },
};

use super::{
    drain,
    socket,
    Outcome, //
};
use crate::{
    cli::{
        MigrationCommand,
        ReadArg, //
    },
    failure::Failure,
    output::{
        left,
        maybe,
        milliseconds,
        nanoseconds,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Migration>] = &[
    right("ID", |migration| migration.id.to_string()),
    left("ROLE", |migration| maybe(migration.role)),
    left("PEER", |migration| maybe(migration.peer_addr)),
    left("PHASE", |migration| maybe(migration.phase)),
    left("CLIENT", |migration| {
        socket(migration.client_addr, migration.client_port)
    }),
    left("VIP", |migration| {
        socket(migration.vip_addr, migration.vip_port)
    }),
    left("FLOW-ID", |migration| maybe(migration.flow_id)),
    right("UNREAD", |migration| maybe(migration.unread_bytes)),
    right("HELD", |migration| maybe(migration.held_packets)),
    right("EXPORT", |migration| nanoseconds(migration.export_ns)),
    right("INJECT", |migration| nanoseconds(migration.inject_ns)),
    right("FREEZE", |migration| nanoseconds(migration.freeze_ns)),
    right("TOTAL", |migration| nanoseconds(migration.total_ns)),
    right("AGE", |migration| milliseconds(migration.age)),
    left("ERROR", |migration| maybe(migration.error.as_ref())),
];

pub(super) fn run(command: Option<&MigrationCommand>, format: Format) -> Outcome {
    let mut migrator = Migrator::open()?;
    match command {
        Some(MigrationCommand::Start {
            pid,
            fd,
            client,
            vip,
            to,
            read,
            timeout,
        }) => {
            let timeout = timeout.map(|timeout| Duration::from_millis(timeout.into()));
            let read = read.map_or(ReadBytes::Nothing, ReadArg::bytes);
            let moved = match (pid.zip(*fd), client.zip(*vip)) {
                (Some((pid, fd)), _) => {
                    let socket = descriptor(pid, fd)?;
                    migrator.migrate_read(&socket, read, *to, timeout)
                }
                (None, Some((client, vip))) => {
                    migrator.migrate_connection(client, vip, read, *to, timeout)
                }
                // The parser demands one of them.
                (None, None) => return Err(Failure::Text("no connection is named".to_owned())),
            };
            format.list(&[moved.map_err(|failure| failure.error)?], COLUMNS)?;
        }
        Some(MigrationCommand::Drain(args)) => drain::run(args, format)?,
        Some(MigrationCommand::Show { id: Some(id), role }) => {
            let migration = migrator.migration(*id, role.unwrap_or(Role::Origin))?;
            format.list(&[migration], COLUMNS)?;
        }
        Some(MigrationCommand::Show { id: None, .. }) | None => {
            format.list(&migrator.migrations()?, COLUMNS)?;
        }
    }
    Ok(())
}

/// A duplicate of another process's file descriptor.
fn descriptor(pid: i32, fd: i32) -> Result<OwnedFd, Failure> {
    let raw = Pid::from_raw(pid).ok_or_else(|| Failure::Text(format!("no process {pid}")))?;
    let process = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| {
        Failure::Text(match error {
            Errno::SRCH => format!("there is no process {pid}"),
            other => format!("process {pid}: {other}"),
        })
    })?;
    pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).map_err(|error| {
        Failure::Text(match error {
            Errno::BADF => format!("process {pid} has no file descriptor {fd}"),
            Errno::PERM => format!("file descriptor {fd} of process {pid}: needs CAP_SYS_PTRACE"),
            other => format!("file descriptor {fd} of process {pid}: {other}"),
        })
    })
}
