//! Sealing, coding and hashing of one full 4+2 chunk: where the processor goes on the data path.

#![allow(missing_docs, reason = "criterion_group! makes a function without documentation")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use valv_benches::{full_chunk, noise};
use valv_codec::{BlobContext, DataKey, FrameOpener, FrameSealer};
use valv_types::{BlobId, FRAME_TAG_BYTES, IncarnationId, ProjectId};

fn codec(c: &mut Criterion) {
    let (layout, chunk) = full_chunk().expect("4+2 is a layout");
    let context = BlobContext { project: ProjectId::random(), blob: BlobId::new(IncarnationId(1), 1) };
    let key = DataKey::generate().expect("randomness");
    let mut group = c.benchmark_group("chunk");
    group.sample_size(20).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(u64::from(chunk.plain_len_bytes)));

    let mut plain = noise(chunk.plain_len_bytes as usize);
    group.bench_function("seal", |b| {
        b.iter(|| {
            let mut sealer = FrameSealer::new(&key, context);
            for frame in plain.chunks_mut(layout.frame_plain_bytes as usize) {
                black_box(sealer.seal(frame, false));
            }
        });
    });

    let frame_len = layout.frame_sealed_bytes() as usize;
    let mut sealed = noise(frame_len * layout.frames_per_chunk as usize);
    let mut sealer = FrameSealer::new(&key, context);
    for frame in sealed.chunks_mut(frame_len) {
        let (body, tag) = frame.split_at_mut(frame_len - FRAME_TAG_BYTES as usize);
        tag.copy_from_slice(&sealer.seal(body, false));
    }
    let opener = FrameOpener::new(&key, context);
    let mut scratch = sealed.clone();
    group.bench_function("open", |b| {
        b.iter(|| {
            scratch.copy_from_slice(&sealed);
            for (index, frame) in (0..).zip(scratch.chunks_mut(frame_len)) {
                black_box(opener.open(frame, index, false).expect("sealed above"));
            }
        });
    });

    let shard_len = chunk.shard_len_bytes as usize;
    let mut shards = noise(shard_len * usize::from(chunk.coding.shards()));
    group.bench_function("encode", |b| {
        b.iter(|| valv_erasure::encode_in_place(chunk.coding, &mut shards, shard_len).expect("lengths fit"));
    });
    group.bench_function("block_hash", |b| {
        b.iter(|| {
            for shard in shards.chunks(shard_len) {
                black_box(valv_shard_api::block_hashes(shard));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
