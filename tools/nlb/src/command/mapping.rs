// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb mapping`.

use nlb_netlink::{
    ConnectionKey,
    FlowId,
    Mapping,
    MappingSide,
    Tunnel, //
};

use super::{
    socket,
    Outcome, //
};
use crate::{
    cli::MappingCommand,
    output::{
        left,
        maybe,
        milliseconds,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Mapping>] = &[
    left("SIDE", |mapping| mapping.side.to_string()),
    left("FLOW-ID", |mapping| mapping.flow_id.to_string()),
    left("FORWARDER", |mapping| maybe(mapping.forwarder_addr)),
    left("HOST", |mapping| maybe(mapping.host_addr)),
    left("CLIENT", |mapping| {
        socket(mapping.client_addr, mapping.client_port)
    }),
    left("VIP", |mapping| socket(mapping.vip_addr, mapping.vip_port)),
    left("PROTO", |mapping| maybe(mapping.proto)),
    left("STATE", |mapping| maybe(mapping.state)),
    left("KIND", |mapping| {
        if mapping.is_static {
            "static"
        } else {
            "dynamic"
        }
        .to_owned()
    }),
    left("MOVED-TO", |mapping| maybe(mapping.moved_to)),
    right("IDLE", |mapping| milliseconds(mapping.idle)),
    right("PACKETS", |mapping| maybe(mapping.packets)),
    right("BYTES", |mapping| maybe(mapping.bytes)),
];

pub(super) fn run(command: Option<&MappingCommand>, format: Format) -> Outcome {
    let mut tunnel = Tunnel::open()?;
    match command {
        Some(MappingCommand::Add {
            forwarder,
            id,
            client,
            vip,
            proto,
        }) => {
            let connection = ConnectionKey {
                proto: *proto,
                client: *client,
                vip: *vip,
            };
            tunnel.mapping_add(*forwarder, *id, &connection)?;
        }
        Some(MappingCommand::Del { forwarder, id }) => tunnel.mapping_del(*forwarder, *id)?,
        // What the kernel can look up: on the host side the forwarder belongs to the id.
        Some(MappingCommand::Show {
            side: Some(side),
            id: Some(id),
            forwarder,
        }) if *side == MappingSide::Forwarder || forwarder.is_some() => {
            format.list(&[tunnel.mapping(*side, *id, *forwarder)?], COLUMNS)?;
        }
        Some(MappingCommand::Show {
            side,
            id,
            forwarder,
        }) => {
            let mut mappings = tunnel.mappings(*side)?;
            mappings.retain(|mapping| {
                id.is_none_or(|id: FlowId| mapping.flow_id == id)
                    && forwarder.is_none_or(|addr| mapping.forwarder_addr == Some(addr))
            });
            format.list(&mappings, COLUMNS)?;
        }
        None => format.list(&tunnel.mappings(None)?, COLUMNS)?,
    }
    Ok(())
}
