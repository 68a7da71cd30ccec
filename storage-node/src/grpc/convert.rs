//! Between generated messages and our own types, and between errors and statuses.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};
use valv_proto::shard::v1 as wire;
use valv_shard_api::{DiskState, DiskStatus, ScrubProgress, ShardCodec, ShardError, ShardStat};
use valv_types::{DiskId, ShardKey};

/// A message that no peer of ours sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadMessage(pub(super) &'static str);

impl From<BadMessage> for Status {
    fn from(bad: BadMessage) -> Self {
        let detail = wire::ErrorDetail { kind: wire::ErrorKind::Malformed.into(), ..Default::default() };
        Self::with_details(Code::InvalidArgument, bad.0, detail.encode_to_vec().into())
    }
}

pub(super) fn disk_of(bytes: &Bytes) -> Result<DiskId, BadMessage> {
    DiskId::from_slice(bytes).map_err(|_| BadMessage("disk id is not 16 bytes"))
}

pub(super) fn disk_bytes(disk: DiskId) -> Bytes {
    Bytes::copy_from_slice(disk.as_bytes())
}

pub(super) fn key_of(bytes: &Bytes) -> Result<ShardKey, BadMessage> {
    ShardKey::decode(bytes).ok_or(BadMessage("shard key is not 33 bytes"))
}

pub(super) fn key_bytes(key: &ShardKey) -> Bytes {
    Bytes::copy_from_slice(&key.encode())
}

pub(super) fn codec_of(id: u32) -> Result<ShardCodec, BadMessage> {
    u8::try_from(id).ok().and_then(|id| ShardCodec::try_from(id).ok()).ok_or(BadMessage("unknown shard codec"))
}

pub(super) fn stat_message(stat: &ShardStat) -> wire::ShardStat {
    wire::ShardStat {
        key: key_bytes(&stat.key),
        generation: stat.generation,
        len_bytes: stat.len_bytes,
        codec: stat.codec as u32,
        quarantined: stat.quarantined,
    }
}

pub(super) fn stat_of(message: &wire::ShardStat) -> Result<ShardStat, BadMessage> {
    Ok(ShardStat {
        key: key_of(&message.key)?,
        generation: message.generation,
        len_bytes: message.len_bytes,
        codec: codec_of(message.codec)?,
        quarantined: message.quarantined,
    })
}

pub(super) fn status_message(status: DiskStatus) -> wire::DiskStatus {
    let state = match status.state {
        DiskState::Online => wire::DiskState::Online,
        DiskState::Full => wire::DiskState::Full,
        DiskState::ReadOnly => wire::DiskState::ReadOnly,
        DiskState::Absent => wire::DiskState::Absent,
    };
    wire::DiskStatus {
        disk: disk_bytes(status.disk),
        name: status.name,
        state: state.into(),
        reason: status.reason,
        opened: status.opened,
        formatted: Bytes::copy_from_slice(&status.formatted),
        capacity_bytes: status.capacity_bytes,
        free_bytes: status.free_bytes,
        shards: status.shards,
        live_bytes: status.live_bytes,
        quarantined: status.quarantined,
        scrub: status.scrub.map(|scrub| wire::ScrubProgress {
            started_secs: scrub.started_secs,
            next: scrub.next.as_ref().map(key_bytes),
            previous_started_secs: scrub.previous_started_secs,
        }),
    }
}

pub(super) fn status_of(message: wire::DiskStatus) -> Result<DiskStatus, BadMessage> {
    let state = match message.state() {
        wire::DiskState::Online => DiskState::Online,
        wire::DiskState::Full => DiskState::Full,
        wire::DiskState::ReadOnly => DiskState::ReadOnly,
        wire::DiskState::Absent => DiskState::Absent,
        wire::DiskState::Unspecified => return Err(BadMessage("unknown disk state")),
    };
    Ok(DiskStatus {
        disk: disk_of(&message.disk)?,
        name: message.name,
        state,
        reason: message.reason,
        opened: message.opened,
        formatted: message.formatted[..].try_into().map_err(|_| BadMessage("formatted is not 16 bytes"))?,
        capacity_bytes: message.capacity_bytes,
        free_bytes: message.free_bytes,
        shards: message.shards,
        live_bytes: message.live_bytes,
        quarantined: message.quarantined,
        scrub: match message.scrub {
            None => None,
            Some(scrub) => Some(ScrubProgress {
                started_secs: scrub.started_secs,
                next: scrub.next.as_ref().map(key_of).transpose()?,
                previous_started_secs: scrub.previous_started_secs,
            }),
        },
    })
}

/// The status of an error: the code for any client, the details for ours.
pub(super) fn status_of_error(error: &ShardError) -> Status {
    use wire::ErrorKind;
    let (code, kind, disk, key) = match error {
        ShardError::NotFound { disk } => (Code::NotFound, ErrorKind::NotFound, Some(disk), None),
        ShardError::Corrupt { disk, key } => (Code::DataLoss, ErrorKind::Corrupt, Some(disk), Some(key)),
        ShardError::Away { disk } => (Code::Unavailable, ErrorKind::Away, Some(disk), None),
        ShardError::ReadOnly { disk } => (Code::FailedPrecondition, ErrorKind::ReadOnly, Some(disk), None),
        ShardError::Full { disk } => (Code::ResourceExhausted, ErrorKind::Full, Some(disk), None),
        ShardError::Busy { disk } => (Code::ResourceExhausted, ErrorKind::Busy, Some(disk), None),
        ShardError::Malformed { .. } => (Code::InvalidArgument, ErrorKind::Malformed, None, None),
        ShardError::Io { disk, .. } => (Code::Internal, ErrorKind::Io, Some(disk), None),
    };
    let detail = wire::ErrorDetail {
        kind: kind.into(),
        disk: disk.map(|disk| disk_bytes(*disk)).unwrap_or_default(),
        key: key.map(|key| key_bytes(key)).unwrap_or_default(),
    };
    Status::with_details(code, error.to_string(), detail.encode_to_vec().into())
}

/// The error that a status stands for. One without our details comes from the transport, and says nothing about the
/// disk but that it can't be reached.
pub(super) fn error_of_status(status: &Status, disk: DiskId) -> ShardError {
    use wire::ErrorKind;
    let io = || ShardError::Io {
        disk,
        source: std::sync::Arc::new(std::io::Error::other(format!("{:?}: {}", status.code(), status.message()))),
    };
    let detail = match wire::ErrorDetail::decode(status.details()) {
        Ok(detail) if !status.details().is_empty() => detail,
        Ok(_) | Err(_) => {
            return match status.code() {
                Code::InvalidArgument | Code::OutOfRange => {
                    ShardError::Malformed { what: "the storage node refused the request's form" }
                }
                Code::Internal | Code::DataLoss | Code::Unimplemented => io(),
                _ => ShardError::Away { disk },
            };
        }
    };
    match detail.kind() {
        ErrorKind::NotFound => ShardError::NotFound { disk },
        ErrorKind::Corrupt => match key_of(&detail.key) {
            Ok(key) => ShardError::Corrupt { disk, key: Box::new(key) },
            Err(_) => io(),
        },
        ErrorKind::Away => ShardError::Away { disk },
        ErrorKind::ReadOnly => ShardError::ReadOnly { disk },
        ErrorKind::Full => ShardError::Full { disk },
        ErrorKind::Busy => ShardError::Busy { disk },
        ErrorKind::Malformed => ShardError::Malformed { what: "the storage node refused the request's form" },
        ErrorKind::Io | ErrorKind::Unspecified => io(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use valv_types::{BlobId, PoolId};

    #[test]
    fn errors_survive_the_wire() {
        let disk = DiskId::from_bytes([9; 16]);
        let key = ShardKey { pool: PoolId(1), placement: 2, blob: BlobId::from_bytes([3; 16]), chunk: 4, shard: 5 };
        let errors = [
            ShardError::NotFound { disk },
            ShardError::Corrupt { disk, key: Box::new(key) },
            ShardError::Away { disk },
            ShardError::ReadOnly { disk },
            ShardError::Full { disk },
            ShardError::Busy { disk },
            ShardError::Malformed { what: "range" },
            ShardError::Io { disk, source: Arc::new(std::io::Error::other("sad")) },
        ];
        for error in errors {
            let back = error_of_status(&status_of_error(&error), disk);
            assert_eq!(std::mem::discriminant(&back), std::mem::discriminant(&error), "{error}");
            if let ShardError::Corrupt { key: found, .. } = back {
                assert_eq!(*found, key);
            }
        }
    }

    #[test]
    fn a_transport_error_means_away_and_never_not_found() {
        let disk = DiskId::from_bytes([9; 16]);
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::NotFound, Code::Unknown] {
            let error = error_of_status(&Status::new(code, ""), disk);
            assert!(matches!(error, ShardError::Away { .. }), "{code:?}");
        }
    }
}
