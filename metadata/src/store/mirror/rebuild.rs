//! The store, rebuilt from its mirror: the newest checkpoint that can be read, and every batch after it.

use super::format::{CheckpointId, Segment, TRAILER_CHUNK, Tally};
use super::survey::{Pieces, Survey};
use super::{Mirror, MirrorError};
use crate::store::rocks::{Building, RocksConfig, RocksError};
use crate::store::{OnLoss, Term};
use futures_util::{StreamExt, TryStreamExt};
use valv_types::Revision;

/// Segments that are read ahead: with three copies on six disks this keeps two or three of them busy.
const SEGMENTS_AHEAD: usize = 4;

/// Builds the store at `config.path`, where nothing may be, from what `survey` found. Returns its latest revision.
///
/// Refuses, and says how far it got, unless everything that was acknowledged is provably there; with
/// [`OnLoss::StartWithWhatIsLeft`] it takes what can be read.
pub(crate) async fn rebuild(mirror: &Mirror, survey: &Survey, config: &RocksConfig) -> Result<Building, RocksError> {
    let strict = config.on_loss == OnLoss::Refuse;
    if strict {
        mirror.refuse_hidden(survey)?;
    }
    let mut building = Building::new(config)?;
    let mut end = 0;
    let mut failed = None;
    for (id, pieces) in survey.complete_checkpoints() {
        match load_checkpoint(mirror, id, pieces, &building).await {
            Ok(()) => {
                end = id.revision;
                break;
            }
            Err(RocksError::Mirror(error)) => {
                tracing::warn!(revision = id.revision, %error, "a checkpoint of the metadata can't be used");
                failed.get_or_insert((id.revision, error));
                // The database in the way must be closed before its folder is used again.
                drop(building);
                building = Building::new(config)?;
            }
            Err(error) => return Err(error),
        }
    }
    let chain = survey.chain(end, Term::default());
    let mut beyond = chain.beyond;
    for id in &chain.batches {
        match mirror.read_batch(survey, id).await {
            Ok(group) => {
                building.add_group(&group)?;
                end = id.last();
            }
            Err(error) if strict => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the rebuilt metadata ends here");
                beyond = Some(id.first);
                break;
            }
        }
    }
    match (beyond, failed) {
        (Some(beyond), _) if strict => return Err(MirrorError::Gap { end, beyond }.into()),
        (_, Some((revision, error))) if strict && revision > end => return Err(error.into()),
        _ => {}
    }
    building.finish(Revision(end), Term { number: survey.term_max(), start: end + 1 })?;
    tracing::warn!(revision = end, "the metadata was rebuilt from its mirror");
    Ok(building)
}

async fn load_checkpoint(
    mirror: &Mirror,
    id: &CheckpointId,
    pieces: &Pieces,
    building: &Building,
) -> Result<(), RocksError> {
    let trailer = mirror.read_trailer(id, pieces).await?;
    if !pieces.keys().copied().filter(|chunk| *chunk != TRAILER_CHUNK).eq(0..trailer.pieces) {
        return Err(MirrorError::Unreadable { what: "checkpoint", revision: id.revision }.into());
    }
    let mut tally = Tally::default();
    let mut segments = futures_util::stream::iter(0..trailer.pieces)
        .map(|chunk| mirror.read_segment(id, pieces, chunk))
        .buffered(SEGMENTS_AHEAD);
    while let Some(bytes) = segments.try_next().await? {
        let segment = Segment::decode(&bytes)?;
        tally.add(&bytes, segment.rows.len() as u64, segment.commits.len() as u64);
        building.add_segment(&segment)?;
    }
    if tally.trailer() != trailer {
        return Err(MirrorError::Malformed { what: "a checkpoint that differs from its trailer" }.into());
    }
    Ok(())
}
