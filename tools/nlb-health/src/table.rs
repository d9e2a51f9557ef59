// SPDX-License-Identifier: MIT OR Apache-2.0

//! The health and load table of a host (FIG. 13A, 1204): its definitive version, with the generation of each chunk.
//!
//! The chunk of a row is its id modulo the number of chunks. Each change of a row brings its chunk to the next
//! generation, so that changes can be put together again in order, and a lost one shows. Rows of one physical endpoint
//! are in the same chunk: who knows of the last change of one of them knows what has become of all before.

use crate::{
    row::{AppId, Row, Status},
    wire::{Change, Operation, CHUNKS_MAX},
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Most rows that a table may be allowed: so many fit into the snapshot of one chunk, however long they are.
pub const ROWS_MAX: usize = 768;

/// Why a row is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A field is out of its limits.
    Invalid,
    /// The table is full.
    Full,
    /// There is no such row.
    Missing,
    /// A row with this identity is there.
    Exists,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "a field is out of its limits",
            Self::Full => "the table is full",
            Self::Missing => "no such row",
            Self::Exists => "a row with this identity is there already",
        })
    }
}

impl std::error::Error for Refused {}

/// Some of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// How often it was changed.
    pub generation: u64,
    /// The rows by id.
    pub rows: BTreeMap<AppId, Row>,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    chunks: Vec<Chunk>,
    last: u32,
    max_rows: usize,
}

impl Table {
    /// Of 1 to [`CHUNKS_MAX`] chunks, with at most `max_rows` rows (and [`ROWS_MAX`]).
    pub fn new(chunks: u8, max_rows: usize) -> Self {
        Self {
            chunks: vec![Chunk::default(); usize::from(chunks.clamp(1, CHUNKS_MAX))],
            last: 0,
            max_rows: max_rows.min(ROWS_MAX),
        }
    }

    /// A row comes. Its id is one that was not used yet.
    pub fn add(&mut self, row: Row) -> Result<Operation, Refused> {
        if !row.is_valid() {
            return Err(Refused::Invalid);
        }
        if self.len() >= self.max_rows {
            return Err(Refused::Full);
        }
        if self.rows().any(|(_, other)| other.identity == row.identity) {
            return Err(Refused::Exists);
        }
        let app = self.next(&row.identity.physical).ok_or(Refused::Full)?;
        self.last = app.0;
        let chunk = self.chunk_mut(app);
        chunk.generation += 1;
        chunk.rows.insert(app, row.clone());
        Ok(Operation {
            app,
            generation: chunk.generation,
            change: Change::Add(row),
        })
    }

    /// Its status is another; nothing to be told if it is not.
    pub fn update(&mut self, app: AppId, status: Status) -> Result<Option<Operation>, Refused> {
        if !status.is_valid() {
            return Err(Refused::Invalid);
        }
        let chunk = self.chunk_mut(app);
        let row = chunk.rows.get_mut(&app).ok_or(Refused::Missing)?;
        if row.status == status {
            return Ok(None);
        }
        row.status = status;
        chunk.generation += 1;
        Ok(Some(Operation {
            app,
            generation: chunk.generation,
            change: Change::Update(status),
        }))
    }

    /// A row goes.
    pub fn delete(&mut self, app: AppId) -> Result<Operation, Refused> {
        let chunk = self.chunk_mut(app);
        chunk.rows.remove(&app).ok_or(Refused::Missing)?;
        chunk.generation += 1;
        Ok(Operation {
            app,
            generation: chunk.generation,
            change: Change::Delete,
        })
    }

    /// A row.
    pub fn row(&self, app: AppId) -> Option<&Row> {
        self.chunks[self.index(app)].rows.get(&app)
    }

    /// All rows, chunk by chunk.
    pub fn rows(&self) -> impl Iterator<Item = (AppId, &Row)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.rows.iter().map(|(app, row)| (*app, row)))
    }

    /// The chunks.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The generation of the chunk that `app` is in.
    pub fn generation(&self, app: AppId) -> u64 {
        self.chunks[self.index(app)].generation
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.len()).sum()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next id of the chunk of a physical endpoint.
    fn next(&self, physical: &SocketAddr) -> Option<AppId> {
        let chunks = self.chunks.len() as u32;
        let next = self.last.checked_add(1)?;
        let more = (hash(physical) % chunks + chunks - next % chunks) % chunks;
        next.checked_add(more).map(AppId)
    }

    fn index(&self, app: AppId) -> usize {
        app.0 as usize % self.chunks.len()
    }

    fn chunk_mut(&mut self, app: AppId) -> &mut Chunk {
        let index = self.index(app);
        &mut self.chunks[index]
    }
}

/// FNV-1a. Nobody else has to know which chunk an endpoint is in.
fn hash(physical: &SocketAddr) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let begin = physical.port().to_be_bytes().iter().fold(0x811c_9dc5, step);
    match physical.ip() {
        IpAddr::V4(ip) => ip.octets().iter().fold(begin, step),
        IpAddr::V6(ip) => ip.octets().iter().fold(begin, step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{AppType, Directive, Health, Identity};

    fn row(vip: u8, port: u16) -> Row {
        Row {
            identity: Identity {
                app_type: AppType {
                    vip: SocketAddr::from(([192, 0, 2, vip], 80)),
                    transport: 6,
                    protocol: String::new(),
                    detail: String::new(),
                },
                physical: SocketAddr::from(([10, 0, 2, 2], port)),
            },
            status: Status {
                health: Health::Healthy,
                load: 0,
                capacity: 50,
                target: Directive::Active,
                current: Directive::Active,
            },
        }
    }

    /// A change of one says what has become of those before.
    #[test]
    fn rows_of_an_endpoint_share_a_chunk() {
        let mut table = Table::new(4, 512);
        let mut used = [0; 4];
        let mut last = 0;
        for port in 8000..8040 {
            let ids: Vec<_> = (1..4)
                .map(|vip| table.add(row(vip, port)).unwrap().app.0)
                .collect();
            assert!(ids.iter().all(|id| id % 4 == ids[0] % 4));
            used[ids[0] as usize % 4] += 1;
            // Also one that comes when another is gone. No id is used again.
            table.delete(AppId(ids[1])).unwrap();
            let again = table.add(row(2, port)).unwrap();
            assert_eq!(again.app.0 % 4, ids[0] % 4);
            assert!(ids[0] > last && again.app.0 > ids[2]);
            last = again.app.0;
        }
        // All chunks are used.
        assert!(used.iter().all(|used| *used >= 5), "{used:?}");
    }

    #[test]
    fn ids_run_out() {
        let mut table = Table::new(4, 512);
        table.last = u32::MAX - 4;
        let last = table.add(row(1, 8000)).unwrap().app;
        assert!(last.0 > u32::MAX - 4);
        assert_eq!(table.add(row(2, 8000)), Err(Refused::Full));
        table.delete(last).unwrap();
        assert_eq!(table.add(row(1, 8000)), Err(Refused::Full));
    }
}
