//! The server side: one node's engines as a gRPC service.

use super::convert::{BadMessage, codec_of, disk_of, key_of, stat_message, status_message, status_of_error};
use super::{CHUNK_BYTES, MESSAGE_BYTES_MAX, OFFLOAD_BYTES};
use crate::engine::VerifiedBlocks;
use crate::node::StorageNode;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use valv_proto::shard::v1 as wire;
use valv_proto::shard::v1::shard_service_server::{self, ShardServiceServer};
use valv_shard_api::{NewShard, STAT_KEYS_MAX, ShardStore, block_hashes};
use valv_types::ShardKey;

/// Serves a node's disks.
pub struct ShardService {
    node: Arc<StorageNode>,
    message_bytes_max: usize,
}

impl ShardService {
    /// The service of `node`, which takes messages of up to [`MESSAGE_BYTES_MAX`].
    pub fn new(node: Arc<StorageNode>) -> Self {
        Self { node, message_bytes_max: MESSAGE_BYTES_MAX }
    }

    /// Takes messages of up to this many bytes: a little over the longest shard in use.
    pub fn message_bytes_max(self, message_bytes_max: usize) -> Self {
        Self { message_bytes_max, ..self }
    }

    /// The service in a form that a tonic server takes.
    pub fn into_server(self) -> ShardServiceServer<Self> {
        let message_bytes_max = self.message_bytes_max;
        ShardServiceServer::new(self)
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max)
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<wire::ReadChunk, Status>> + Send>>;

#[tonic::async_trait]
impl shard_service_server::ShardService for ShardService {
    type ReadStream = Chunks;

    async fn put(&self, request: Request<wire::PutRequest>) -> Result<Response<wire::PutResponse>, Status> {
        let put = request.into_inner();
        let disk = disk_of(&put.disk)?;
        let shard = NewShard {
            key: key_of(&put.key)?,
            generation: put.generation,
            codec: codec_of(put.codec)?,
            payload: put.payload,
            block_hashes: put.block_hashes,
        };
        // What the network damaged must not be stored under hashes that were right when they left.
        if !is_intact(&shard.payload, &shard.block_hashes).await {
            return Err(BadMessage("payload does not match its hashes").into());
        }
        self.node.put(disk, shard).await.map_err(|error| status_of_error(&error))?;
        Ok(Response::new(wire::PutResponse {}))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<Chunks>, Status> {
        let read = request.into_inner();
        let (disk, key) = (disk_of(&read.disk)?, key_of(&read.key)?);
        let found = self.node.read_blocks(disk, key, read.start..read.end).await;
        let chunks = chunks_of(found.map_err(|error| status_of_error(&error))?);
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks.map(Ok)))))
    }

    async fn stat(&self, request: Request<wire::StatRequest>) -> Result<Response<wire::StatResponse>, Status> {
        let stat = request.into_inner();
        let (disk, keys) = (disk_of(&stat.disk)?, keys_of(&stat.keys)?);
        let found = self.node.stat(disk, keys).await.map_err(|error| status_of_error(&error))?;
        let entries = found.iter().map(|stat| wire::StatEntry { shard: stat.as_ref().map(stat_message) }).collect();
        Ok(Response::new(wire::StatResponse { entries }))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<wire::DeleteResponse>, Status> {
        let delete = request.into_inner();
        let (disk, keys) = (disk_of(&delete.disk)?, keys_of(&delete.keys)?);
        self.node.delete(disk, keys).await.map_err(|error| status_of_error(&error))?;
        Ok(Response::new(wire::DeleteResponse {}))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::ListResponse>, Status> {
        let list = request.into_inner();
        let (disk, from) = (disk_of(&list.disk)?, key_of(&list.from)?);
        let limit = list.limit as usize;
        // Fewer than asked would mean the end, so a limit that is too high is refused and not lowered.
        if limit > STAT_KEYS_MAX {
            return Err(BadMessage("list limit too high").into());
        }
        let found = self.node.list(disk, from, limit).await.map_err(|error| status_of_error(&error))?;
        Ok(Response::new(wire::ListResponse { shards: found.iter().map(stat_message).collect() }))
    }

    async fn disks(&self, _: Request<wire::DisksRequest>) -> Result<Response<wire::DisksResponse>, Status> {
        let disks = self.node.disks().await.map_err(|error| status_of_error(&error))?;
        Ok(Response::new(wire::DisksResponse { disks: disks.into_iter().map(status_message).collect() }))
    }
}

fn keys_of(keys: &[Bytes]) -> Result<Vec<ShardKey>, BadMessage> {
    if keys.len() > STAT_KEYS_MAX {
        return Err(BadMessage("too many keys"));
    }
    keys.iter().map(key_of).collect()
}

async fn is_intact(payload: &Bytes, hashes: &Bytes) -> bool {
    if payload.len() < OFFLOAD_BYTES {
        return block_hashes(payload) == *hashes;
    }
    let (payload, hashes) = (payload.clone(), hashes.clone());
    // Lost only with the runtime.
    tokio::task::spawn_blocking(move || block_hashes(&payload) == hashes).await.unwrap_or(false)
}

/// The messages of a read: slices of what was read, not copies.
fn chunks_of(read: VerifiedBlocks) -> impl Iterator<Item = wire::ReadChunk> + Send {
    let blocks = read.blocks.into_bytes();
    let first = wire::ReadChunk {
        block_hashes: read.hashes,
        blocks_start: read.start,
        // A shard's length fits 32 bits.
        blocks_len_bytes: u32::try_from(blocks.len()).unwrap_or(u32::MAX),
        blocks: blocks.slice(..blocks.len().min(CHUNK_BYTES)),
    };
    let rest = (CHUNK_BYTES..blocks.len().max(CHUNK_BYTES)).step_by(CHUNK_BYTES);
    let rest = rest.map(move |start| wire::ReadChunk {
        blocks: blocks.slice(start..blocks.len().min(start + CHUNK_BYTES)),
        ..wire::ReadChunk::default()
    });
    std::iter::once(first).chain(rest)
}
