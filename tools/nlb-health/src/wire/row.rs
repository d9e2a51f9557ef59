// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rows and operations on them.

use super::{check, Change, Error, Operation, Reader, Writer};
use crate::row::{
    is_address, is_detail, is_protocol, AppId, AppType, Directive, Health, Identity, Row, Status,
};
use std::net::{IpAddr, SocketAddr};

/// Operations of a row change.
const ADD: u8 = 1;
const UPDATE: u8 = 2;
const DELETE: u8 = 3;

pub(super) fn encode_operation(operation: &Operation, out: &mut Vec<u8>) {
    out.u8(match operation.change {
        Change::Add(_) => ADD,
        Change::Update(_) => UPDATE,
        Change::Delete => DELETE,
    });
    out.u32(operation.app.0);
    out.u64(operation.generation);
    match &operation.change {
        Change::Add(row) => encode_row(row, out),
        Change::Update(status) => encode_status(status, out),
        Change::Delete => {}
    }
}

pub(super) fn operation(from: &mut Reader<'_>) -> Result<Operation, Error> {
    let kind = from.u8()?;
    let app = AppId(from.u32()?);
    let generation = from.u64()?;
    check(generation != 0, Error::Generation)?;
    let change = match kind {
        ADD => Change::Add(row(from)?),
        UPDATE => Change::Update(status(from)?),
        DELETE => Change::Delete,
        _ => return Err(Error::Operation),
    };
    Ok(Operation {
        app,
        generation,
        change,
    })
}

pub(super) fn encode_row(row: &Row, out: &mut Vec<u8>) {
    let app_type = &row.identity.app_type;
    encode_status(&row.status, out);
    out.u8(app_type.transport);
    out.u8(app_type.protocol.len() as u8);
    out.u8(app_type.detail.len() as u8);
    encode_address(&app_type.vip, out);
    encode_address(&row.identity.physical, out);
    out.extend(app_type.protocol.as_bytes());
    out.extend(app_type.detail.as_bytes());
}

pub(super) fn row(from: &mut Reader<'_>) -> Result<Row, Error> {
    let status = status(from)?;
    let transport = from.u8()?;
    check(transport != 0, Error::Protocol)?;
    let (protocol, detail) = (usize::from(from.u8()?), usize::from(from.u8()?));
    let (vip, physical) = (address(from)?, address(from)?);
    let protocol = from.bytes(protocol)?;
    check(is_protocol(protocol), Error::Protocol)?;
    let protocol = std::str::from_utf8(protocol).map_err(|_| Error::Protocol)?;
    let detail = std::str::from_utf8(from.bytes(detail)?).map_err(|_| Error::Detail)?;
    check(is_detail(detail), Error::Detail)?;
    Ok(Row {
        identity: Identity {
            app_type: AppType {
                vip,
                transport,
                protocol: protocol.to_owned(),
                detail: detail.to_owned(),
            },
            physical,
        },
        status,
    })
}

fn encode_status(status: &Status, out: &mut Vec<u8>) {
    out.u8(status.health as u8);
    out.u8(status.load);
    out.u8(status.capacity);
    out.u8(status.target as u8);
    out.u8(status.current as u8);
}

fn status(from: &mut Reader<'_>) -> Result<Status, Error> {
    let [health, load, capacity, target, current] = from.array()?;
    let status = Status {
        health: Health::from_byte(health).ok_or(Error::Health)?,
        load,
        capacity,
        target: Directive::from_byte(target).ok_or(Error::Directive)?,
        current: Directive::from_byte(current).ok_or(Error::Directive)?,
    };
    check(status.is_valid(), Error::Load)?;
    Ok(status)
}

pub(super) fn encode_address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.u8(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.u8(6);
            out.extend(ip.octets());
        }
    }
    out.u16(address.port());
}

pub(super) fn address(from: &mut Reader<'_>) -> Result<SocketAddr, Error> {
    let ip: IpAddr = match from.u8()? {
        4 => from.array::<4>()?.into(),
        6 => from.array::<16>()?.into(),
        _ => return Err(Error::Address),
    };
    let address = SocketAddr::new(ip, from.u16()?);
    check(is_address(&address), Error::Address)?;
    Ok(address)
}
