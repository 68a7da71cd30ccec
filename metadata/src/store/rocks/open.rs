//! From a folder, or from what is left of it, to a database that holds everything that was ever acknowledged.
//!
//! The order of trust: the local database has every acknowledged commit unless it is damaged, missing, or an old copy;
//! the mirror has every acknowledged commit unless more disks than it has copies are away.

use super::bulk::Building;
use super::committer::{Group, put_group};
use super::database::{Database, OpenFailure, Term, put_aside};
use super::{OnLoss, RocksConfig, RocksError, Start};
use crate::store::mirror::{Mirror, Survey, rebuild};
use rocksdb::WriteBatch;
use std::path::Path;
use std::sync::Arc;
use valv_types::{Revision, TimestampMicros};

/// What became of opening the folder.
enum Local {
    Open(Database),
    /// There is nothing to open.
    Missing,
    /// There is something, and this is what is wrong with it.
    Damaged(String),
}

/// Opens the store's database in a new term, rebuilt or rolled forward from the mirror where needed.
pub(super) async fn open(
    config: RocksConfig,
    mirror: Option<(&Mirror, &Survey)>,
) -> Result<(Arc<Database>, Term), RocksError> {
    let (local, config) = blocking(move || Ok((open_local(&config)?, config))).await?;
    let database = match local {
        Local::Open(database) => roll_forward(database, &config, mirror).await?,
        Local::Missing => recover(config, mirror, "the folder is missing or empty").await?,
        Local::Damaged(what) => {
            tracing::error!(%what, "the metadata store is damaged");
            recover(config, mirror, &what).await?
        }
    };
    let term_max = mirror.map_or(0, |(_, survey)| survey.term_max());
    blocking(move || {
        let state = database.state()?;
        let now_ms = TimestampMicros::now().0 / 1000;
        let number = state.term.number.max(term_max).saturating_add(1).max(now_ms);
        let term = Term { number, start: state.latest.0 + 1 };
        let mut batch = WriteBatch::default();
        database.put_term(&mut batch, term);
        database.write_durably(batch)?;
        Ok((Arc::new(database), term))
    })
    .await
}

fn open_local(config: &RocksConfig) -> Result<Local, RocksError> {
    let path = &config.path;
    if is_missing(path)? {
        return Ok(Local::Missing);
    }
    match Database::open(path, config) {
        Ok(database) => Ok(Local::Open(database)),
        Err(OpenFailure::Damaged(what)) => Ok(Local::Damaged(what)),
        Err(failure) => Err(failed(path, failure)),
    }
}

fn failed(path: &Path, failure: OpenFailure) -> RocksError {
    let path = path.to_owned();
    match failure {
        OpenFailure::InUse => RocksError::InUse { path },
        OpenFailure::Damaged(what) | OpenFailure::Io(what) => RocksError::Engine { path, what },
    }
}

/// Adds what the mirror has beyond a sound database, or exchanges a database that is too old for that.
async fn roll_forward(
    database: Database,
    config: &RocksConfig,
    mirror: Option<(&Mirror, &Survey)>,
) -> Result<Database, RocksError> {
    let Some((mirror, survey)) = mirror else { return Ok(database) };
    let state = database.state()?;
    let Some(groups) = mirror.ahead_of(survey, state.latest, state.term).await? else {
        drop(database);
        let building = rebuild(mirror, survey, config).await?;
        return put(building, config.clone(), Some("stale")).await;
    };
    if groups.is_empty() {
        return Ok(database);
    }
    tracing::warn!(groups = groups.len(), "the mirror has commits that the store lacks: adding them");
    blocking(move || {
        for group in &groups {
            apply(&database, group)?;
        }
        Ok(database)
    })
    .await
}

fn apply(database: &Database, group: &Group) -> Result<(), RocksError> {
    let mut batch = WriteBatch::default();
    put_group(database, &mut batch, group);
    Ok(database.write_durably(batch)?)
}

/// Makes a database where there is none that can be opened: an empty one at the first start, else from the mirror.
async fn recover(config: RocksConfig, mirror: Option<(&Mirror, &Survey)>, why: &str) -> Result<Database, RocksError> {
    let is_missing = is_missing(&config.path)?;
    let aside = (!is_missing).then_some("corrupt");
    match mirror {
        Some((mirror, survey)) if !survey.is_empty() => {
            let building = rebuild(mirror, survey, &config).await?;
            put(building, config, aside).await
        }
        _ => {
            let is_new = config.start == Start::First && is_missing;
            if !is_new && config.on_loss == OnLoss::Refuse {
                if let Some((mirror, survey)) = mirror {
                    mirror.refuse_hidden(survey)?;
                }
                return Err(RocksError::Lost { path: config.path, why: why.to_owned() });
            }
            let (building, config) = blocking(move || {
                let building = Building::new(&config)?;
                building.finish(Revision(0), Term { number: 0, start: 1 })?;
                Ok((building, config))
            })
            .await?;
            put(building, config, aside).await
        }
    }
}

/// Puts a complete database in place, after moving what is there aside.
async fn put(building: Building, config: RocksConfig, aside: Option<&'static str>) -> Result<Database, RocksError> {
    blocking(move || {
        if let Some(why) = aside {
            let kept = put_aside(&config.path, why)?;
            tracing::warn!(kept = %kept.display(), "the old metadata folder was put aside");
        }
        building.put_in_place()?;
        Database::open(&config.path, &config).map_err(|failure| failed(&config.path, failure))
    })
    .await
}

/// Whether there is nothing in `path`: no folder, or an empty one.
fn is_missing(path: &Path) -> Result<bool, RocksError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(RocksError::Folder { path: path.to_owned(), source }),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RocksError> + Send + 'static,
) -> Result<T, RocksError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RocksError::Store(super::closed())),
        },
    }
}
