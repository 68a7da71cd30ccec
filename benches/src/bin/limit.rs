//! The limit: only the work that no durable, encrypted, erasure-coded store can leave out, on one core. Valv's own CPU
//! seconds per GiB are judged against these.
//!
//! PUT: the socket's copy, SHA-256 when the payload is signed, MD5 for the ETag, AES-GCM, Reed-Solomon 4+2, BLAKE3 of
//! 1.5 bytes a byte, one write and one fdatasync. GET: one read, BLAKE3, AES-GCM, the socket's copy.

use anyhow::Context;
use md5::{Digest, Md5};
use sha2::Sha256;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;
use valv_benches::{full_chunk, noise};
use valv_codec::{BlobContext, DataKey, FrameOpener, FrameSealer};
use valv_types::{BlobId, FRAME_TAG_BYTES, IncarnationId, ProjectId};

/// 64 full chunks: half a GiB.
const CHUNKS: usize = 64;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let path = std::path::Path::new(&folder).join("valv-limit.tmp");
    let outcome = measure(&path);
    let _ = std::fs::remove_file(&path);
    outcome
}

fn measure(path: &std::path::Path) -> anyhow::Result<()> {
    let (layout, chunk) = full_chunk()?;
    let frame_len = layout.frame_plain_bytes as usize;
    let sealed_len = layout.frame_sealed_bytes() as usize;
    let shard_len = chunk.shard_len_bytes as usize;
    let all_len = shard_len * usize::from(chunk.coding.shards());
    let body = noise(chunk.plain_len_bytes as usize);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    let context = BlobContext { project: ProjectId::random(), blob: BlobId::new(IncarnationId(1), 1) };
    let key = DataKey::generate()?;
    let gib = (CHUNKS * body.len()) as f64 / f64::from(1 << 30);

    for signed in [false, true] {
        let (mut client, mut server) = UnixStream::pair()?;
        let to_send = body.clone();
        let sender = std::thread::spawn(move || (0..CHUNKS).try_for_each(|_| client.write_all(&to_send)));
        let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
        let mut sealer = FrameSealer::new(&key, context);
        let mut buffer = vec![0; all_len];
        let (begun, cpu) = (Instant::now(), thread_cpu_s());
        for index in 0..CHUNKS {
            for frame in 0..layout.frames_per_chunk as usize {
                let frame = &mut buffer[frame * sealed_len..][..sealed_len];
                let (plain, tag) = frame.split_at_mut(frame_len);
                server.read_exact(plain)?;
                md5.update(&*plain);
                if signed {
                    sha256.update(&*plain);
                }
                tag.copy_from_slice(&sealer.seal(plain, false));
            }
            valv_erasure::encode_in_place(chunk.coding, &mut buffer, shard_len)?;
            for shard in buffer.chunks(shard_len) {
                std::hint::black_box(valv_shard_api::block_hashes(shard));
            }
            file.write_all_at(&buffer, (index * all_len) as u64)?;
            file.sync_data()?;
        }
        std::hint::black_box((md5.finalize(), sha256.finalize()));
        let (cpu, wall) = (thread_cpu_s() - cpu, begun.elapsed().as_secs_f64());
        let name = if signed { "PUT, signed payload" } else { "PUT" };
        println!("{name:<22} {:>7.2} CPU s/GiB {:>9.1} MiB/s", cpu / gib, gib * 1024.0 / wall);
        sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))??;
    }

    let (mut server, mut client) = UnixStream::pair()?;
    let total = CHUNKS * body.len();
    let receiver = std::thread::spawn(move || {
        let (mut buffer, mut received) = (vec![0; 1 << 20], 0);
        while received < total {
            received += client.read(&mut buffer)?;
        }
        std::io::Result::Ok(())
    });
    // What was written last is the second run's ciphertext; its counters go on from chunk to chunk.
    let opener = FrameOpener::new(&key, context);
    let mut buffer = vec![0; shard_len * usize::from(chunk.coding.k)];
    let (begun, cpu) = (Instant::now(), thread_cpu_s());
    for index in 0..CHUNKS {
        file.read_exact_at(&mut buffer, (index * all_len) as u64)?;
        for shard in buffer.chunks(shard_len) {
            std::hint::black_box(valv_shard_api::block_hashes(shard));
        }
        for frame in 0..layout.frames_per_chunk as usize {
            let number = u32::try_from(index * layout.frames_per_chunk as usize + frame)?;
            let sealed = &mut buffer[frame * sealed_len..][..frame_len + FRAME_TAG_BYTES as usize];
            server.write_all(opener.open(sealed, number, false)?)?;
        }
    }
    let (cpu, wall) = (thread_cpu_s() - cpu, begun.elapsed().as_secs_f64());
    println!("{:<22} {:>7.2} CPU s/GiB {:>9.1} MiB/s", "GET", cpu / gib, gib * 1024.0 / wall);
    receiver.join().map_err(|_| anyhow::anyhow!("the receiving thread panicked"))??;
    Ok(())
}

/// CPU time of this thread.
fn thread_cpu_s() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}
