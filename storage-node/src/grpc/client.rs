//! The client side: the disks of remote nodes as a [`ShardStore`].
//!
//! Retries: none. Every operation may be repeated by its caller, who knows whether another disk would do as well.
//! A node that can't be reached makes its disks `Away`, which is evidence of nothing.

use super::convert::{disk_bytes, error_of_status, key_bytes, stat_of, status_of};
use super::{MESSAGE_BYTES_MAX, OFFLOAD_BYTES};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use valv_proto::shard::v1 as wire;
use valv_proto::shard::v1::shard_service_client::ShardServiceClient;
use valv_shard_api::{
    DiskState, DiskStatus, NewShard, STAT_KEYS_MAX, ShardError, ShardStat, ShardStore, VerifiedShard,
};
use valv_types::{BLOCK_LEN_BYTES, DiskId, ShardKey};

/// How the client calls.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Longest message, both ways.
    pub message_bytes_max: usize,
    /// For a connection to come up.
    pub connect_timeout: Duration,
    /// For a put, from first to last byte and its sync. A slot that misses it is marked down.
    pub put_timeout: Duration,
    /// For a whole read.
    pub read_timeout: Duration,
    /// For stat, delete, list and disks.
    pub call_timeout: Duration,
    /// How often the disks of the nodes are asked for when a disk is not where it was. Bounds what a disk that is
    /// nowhere costs.
    pub refresh_interval: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            connect_timeout: Duration::from_secs(2),
            put_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(15),
            refresh_interval: Duration::from_secs(1),
        }
    }
}

/// A node's address is not one.
#[derive(Debug, thiserror::Error)]
#[error("not a storage node's address: {address}: {source}")]
pub struct ClientError {
    address: String,
    #[source]
    source: tonic::transport::Error,
}

/// The disks of remote nodes. Cheap to share by `Arc`.
pub struct ShardClient {
    nodes: Vec<ShardServiceClient<Channel>>,
    config: ClientConfig,
    known: ArcSwap<HashMap<DiskId, Known>>,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
}

/// Where a disk was last seen, and how it was.
#[derive(Clone)]
struct Known {
    node: usize,
    status: DiskStatus,
    /// A call found it away since.
    is_suspect: bool,
}

/// HTTP/2 windows: a connection carries a dozen shards of 2 MiB at once without waiting for the peer's updates.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

impl ShardClient {
    /// A client of the nodes at `addresses` (like `http://10.0.0.1:9100`). Connects when first used, and again whenever
    /// a connection is lost.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    pub fn new(addresses: &[String], config: ClientConfig) -> Result<Self, ClientError> {
        let connect = |address: &String| {
            let endpoint = Endpoint::from_shared(address.clone())
                .map_err(|source| ClientError { address: address.clone(), source })?
                .connect_timeout(config.connect_timeout)
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            Ok(endpoint.connect_lazy())
        };
        let channels = addresses.iter().map(connect).collect::<Result<_, ClientError>>()?;
        Ok(Self::with_channels(channels, config))
    }

    /// A client over channels that the caller has set up, for example with TLS.
    pub fn with_channels(channels: Vec<Channel>, config: ClientConfig) -> Self {
        let client = |channel| {
            ShardServiceClient::new(channel)
                .max_decoding_message_size(config.message_bytes_max)
                .max_encoding_message_size(config.message_bytes_max)
        };
        Self {
            nodes: channels.into_iter().map(client).collect(),
            config,
            known: ArcSwap::default(),
            refreshed: tokio::sync::Mutex::new(None),
        }
    }

    /// The client of the node that has `disk`.
    async fn node_of(&self, disk: DiskId) -> Result<ShardServiceClient<Channel>, ShardError> {
        let found = self.known.load().get(&disk).map(|known| (known.node, known.is_suspect));
        match found {
            Some((node, false)) => return Ok(self.nodes[node].clone()),
            // It may have moved. One caller in each interval looks; the others try where it was.
            Some((node, true)) => match self.refreshed.try_lock() {
                Ok(mut refreshed) => self.refresh_when_due(&mut refreshed).await,
                Err(_) => return Ok(self.nodes[node].clone()),
            },
            // Somebody else may be asking already: their answer will do.
            None => self.refresh_when_due(&mut *self.refreshed.lock().await).await,
        }
        match self.known.load().get(&disk) {
            Some(known) => Ok(self.nodes[known.node].clone()),
            None => Err(ShardError::Away { disk }),
        }
    }

    async fn refresh_when_due(&self, refreshed: &mut Option<Instant>) {
        if refreshed.is_none_or(|at| at.elapsed() >= self.config.refresh_interval) {
            self.refresh().await;
            *refreshed = Some(Instant::now());
        }
    }

    /// Asks every node for its disks. Disks of a node that does not answer stay known, as absent.
    async fn refresh(&self) {
        let answers = join_all(self.nodes.iter().map(|node| {
            let mut node = node.clone();
            let timeout = self.config.call_timeout;
            async move {
                match tokio::time::timeout(timeout, node.disks(wire::DisksRequest {})).await {
                    Ok(Ok(answer)) => Ok(answer.into_inner().disks),
                    Ok(Err(status)) => Err(status.message().to_owned()),
                    Err(_) => Err("no answer in time".to_owned()),
                }
            }
        }))
        .await;
        let mut known: HashMap<DiskId, Known> = HashMap::clone(&self.known.load());
        for (node, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(disks) => {
                    for status in disks.into_iter().filter_map(|disk| status_of(disk).ok()) {
                        let is_elsewhere = known
                            .get(&status.disk)
                            .is_some_and(|found| found.node != node && found.status.state != DiskState::Absent);
                        // A disk that moved is configured at two nodes for a while: the one that has it counts.
                        if !(is_elsewhere && status.state == DiskState::Absent) {
                            known.insert(status.disk, Known { node, status, is_suspect: false });
                        }
                    }
                }
                Err(reason) => {
                    for found in known.values_mut().filter(|found| found.node == node) {
                        found.status.state = DiskState::Absent;
                        found.status.reason = format!("the node can't be reached: {reason}");
                    }
                }
            }
        }
        self.known.store(Arc::new(known));
    }

    /// Calls with a deadline on both sides. A disk that its node says is away may have moved: it is looked for anew.
    async fn call<T, F>(&self, disk: DiskId, timeout: Duration, answer: F) -> Result<T, ShardError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let result = match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(error_of_status(&status, disk)),
            Err(_) => Err(ShardError::Away { disk }),
        };
        if matches!(result, Err(ShardError::Away { .. })) {
            self.known.rcu(|known| {
                let mut known = HashMap::clone(known);
                if let Some(found) = known.get_mut(&disk) {
                    found.is_suspect = true;
                }
                known
            });
        }
        result
    }
}

fn with_deadline<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn bad_answer(disk: DiskId, what: &'static str) -> ShardError {
    ShardError::Io { disk, source: Arc::new(io::Error::new(io::ErrorKind::InvalidData, what)) }
}

#[async_trait]
impl ShardStore for ShardClient {
    async fn put(&self, disk: DiskId, shard: NewShard) -> Result<(), ShardError> {
        let mut node = self.node_of(disk).await?;
        let timeout = self.config.put_timeout;
        let message = wire::PutRequest {
            disk: disk_bytes(disk),
            key: key_bytes(&shard.key),
            generation: shard.generation,
            codec: shard.codec as u32,
            payload: shard.payload,
            block_hashes: shard.block_hashes,
        };
        self.call(disk, timeout, node.put(with_deadline(message, timeout))).await?;
        Ok(())
    }

    async fn read(&self, disk: DiskId, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        if range.start > range.end {
            return Err(ShardError::Malformed { what: "range outside the shard" });
        }
        let mut node = self.node_of(disk).await?;
        let timeout = self.config.read_timeout;
        let message =
            wire::ReadRequest { disk: disk_bytes(disk), key: key_bytes(&key), start: range.start, end: range.end };
        let answer = async {
            let stream = node.read(with_deadline(message, timeout)).await.map(Response::into_inner)?;
            collect(stream, &range).await
        };
        let received = self.call(disk, timeout, answer).await?;
        let Some(Received { blocks, hashes, start }) = received else {
            return Err(bad_answer(disk, "the storage node's answer is malformed"));
        };
        let (from, to) = ((range.start - start) as usize, (range.end - start) as usize);
        let verify = move || VerifiedShard::verify(blocks, 0, &hashes, from..to);
        let verified = match (to - from) < OFFLOAD_BYTES {
            true => verify(),
            false => tokio::task::spawn_blocking(verify).await.unwrap_or(None),
        };
        // The node verified what it sent, so this is the network's doing and no reason to quarantine.
        verified.ok_or_else(|| bad_answer(disk, "blocks were damaged on their way"))
    }

    async fn stat(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError> {
        let mut node = self.node_of(disk).await?;
        let timeout = self.config.call_timeout;
        let message = wire::StatRequest { disk: disk_bytes(disk), keys: keys.iter().map(key_bytes).collect() };
        let answer = self.call(disk, timeout, node.stat(with_deadline(message, timeout))).await?.into_inner();
        if answer.entries.len() != keys.len() {
            return Err(bad_answer(disk, "as many answers as keys were expected"));
        }
        let stat = |entry: &wire::StatEntry| entry.shard.as_ref().map(stat_of).transpose();
        answer.entries.iter().map(stat).collect::<Result<_, _>>().map_err(|bad| bad_answer(disk, bad.0))
    }

    async fn delete(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<(), ShardError> {
        let mut node = self.node_of(disk).await?;
        let timeout = self.config.call_timeout;
        let message = wire::DeleteRequest { disk: disk_bytes(disk), keys: keys.iter().map(key_bytes).collect() };
        self.call(disk, timeout, node.delete(with_deadline(message, timeout))).await?;
        Ok(())
    }

    async fn list(&self, disk: DiskId, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        let mut node = self.node_of(disk).await?;
        let timeout = self.config.call_timeout;
        let mut found: Vec<ShardStat> = Vec::new();
        let mut next = Some(from);
        // Pages of what one message may hold, so that a high limit means what it does in-process.
        while let Some(from) = next
            && found.len() < limit
        {
            let page = (limit - found.len()).min(STAT_KEYS_MAX);
            let message = wire::ListRequest {
                disk: disk_bytes(disk),
                from: key_bytes(&from),
                limit: u32::try_from(page).unwrap_or(u32::MAX),
            };
            let answer = self.call(disk, timeout, node.list(with_deadline(message, timeout))).await?.into_inner();
            let count = answer.shards.len();
            for stat in &answer.shards {
                found.push(stat_of(stat).map_err(|bad| bad_answer(disk, bad.0))?);
            }
            next = match found.last() {
                Some(last) if count == page => crate::engine::successor(&last.key),
                _ => None,
            };
        }
        Ok(found)
    }

    async fn disks(&self) -> Result<Vec<DiskStatus>, ShardError> {
        let mut refreshed = self.refreshed.lock().await;
        self.refresh().await;
        *refreshed = Some(Instant::now());
        drop(refreshed);
        let mut disks: Vec<_> = self.known.load().values().map(|known| (known.node, known.status.clone())).collect();
        disks.sort_by(|(node, a), (other, b)| (node, &a.name, a.disk).cmp(&(other, &b.name, b.disk)));
        Ok(disks.into_iter().map(|(_, status)| status).collect())
    }
}

/// The blocks of a read, not yet verified.
struct Received {
    blocks: Bytes,
    hashes: Bytes,
    start: u32,
}

/// Puts a read's messages together; `None` if they are not what a node sends for `range`.
async fn collect(mut stream: Streaming<wire::ReadChunk>, range: &Range<u32>) -> Result<Option<Received>, Status> {
    let Some(first) = stream.message().await? else { return Ok(None) };
    let (start, len) = (first.blocks_start, first.blocks_len_bytes as usize);
    let block_len = BLOCK_LEN_BYTES;
    if range.is_empty() {
        return Ok((len == 0).then_some(Received { blocks: Bytes::new(), hashes: Bytes::new(), start: range.start }));
    }
    // What the range touches, and no more: the peer does not decide how much memory this takes.
    let is_expected = start == range.start / block_len * block_len
        && u64::from(start) + len as u64 >= u64::from(range.end)
        && u64::from(start) + len as u64 <= u64::from(range.end).next_multiple_of(u64::from(block_len))
        && first.blocks.len() <= len;
    if !is_expected {
        return Ok(None);
    }
    let mut blocks = first.blocks;
    if blocks.len() < len {
        let mut whole = BytesMut::with_capacity(len);
        whole.extend_from_slice(&blocks);
        while whole.len() < len {
            let Some(chunk) = stream.message().await? else { return Ok(None) };
            if chunk.blocks.is_empty() || whole.len() + chunk.blocks.len() > len {
                return Ok(None);
            }
            whole.extend_from_slice(&chunk.blocks);
        }
        blocks = whole.freeze();
    }
    Ok(Some(Received { blocks, hashes: first.block_hashes, start }))
}
