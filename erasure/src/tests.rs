//! Any k of k+m give the rest; the bytes are those of `docs/format-erasure.md`.

use super::*;
use proptest::prelude::*;

fn coded(coding: ChunkCoding, len: usize, seed: u8) -> Vec<Vec<u8>> {
    let (k, m) = (usize::from(coding.k), usize::from(coding.m));
    let data: Vec<Vec<u8>> = (0..k)
        .map(|i| (0..len).map(|j| (i * 131 + j * 7 + j / 251) as u8 ^ seed.wrapping_mul(j as u8 | 1)).collect())
        .collect();
    let mut all: Vec<u8> = data.concat();
    all.resize((k + m) * len, 0xaa);
    encode_in_place(coding, &mut all, len).unwrap();
    all.chunks(len).map(<[u8]>::to_vec).collect()
}

/// The construction of docs/format-erasure.md, written from that page with nothing of the library.
mod by_the_book {
    pub(super) fn mul(a: u8, b: u8) -> u8 {
        let (mut a, mut product) = (u16::from(a), 0u16);
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= a;
            }
            a <<= 1;
            if a & 0x100 != 0 {
                a ^= 0x11d;
            }
        }
        product as u8
    }

    fn power(base: u8, exponent: usize) -> u8 {
        (0..exponent).fold(1, |product, _| mul(product, base))
    }

    /// C = V x T^-1, checked as C x T = V.
    pub(super) fn is_coding_matrix(c: &[Vec<u8>], k: usize) -> bool {
        (0..c.len()).all(|row| {
            (0..k).all(|col| {
                let sum = (0..k).fold(0, |sum, j| sum ^ mul(c[row][j], power(j as u8, col)));
                sum == power(row as u8, col)
            })
        })
    }
}

#[test]
fn the_matrix_is_the_one_that_the_format_specifies() {
    for (k, m) in [(2, 1), (4, 2), (6, 3), (10, 4), (17, 3), (3, 5)] {
        let codec = Codec::new(ChunkCoding { k, m }).unwrap();
        assert!(by_the_book::is_coding_matrix(&codec.rows, usize::from(k)), "{k}+{m}");
    }
}

#[test]
fn the_golden_example_of_the_format_page_holds() {
    let coding = ChunkCoding { k: 4, m: 2 };
    let codec = Codec::new(coding).unwrap();
    let page = include_str!("../../docs/format-erasure.md");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    let data: [&[u8]; 4] = [b"Valv", b"keep", b"s it", b"safe"];
    let (mut p0, mut p1) = ([0; 4], [0; 4]);
    encode(coding, &data, &mut [&mut p0, &mut p1]).unwrap();
    for (name, bytes) in [("row 4", &codec.rows[4][..]), ("row 5", &codec.rows[5]), ("shard 4", &p0), ("shard 5", &p1)]
    {
        let line = format!("{name} = {}", hex(bytes));
        assert!(page.contains(&line), "docs/format-erasure.md should say `{line}`");
    }
    let inverse = invert([2, 3, 4, 5].iter().map(|i| codec.rows[*i].clone()).collect()).unwrap();
    for (i, row) in inverse.iter().enumerate() {
        let line = format!("inverse row {i} = {}", hex(row));
        assert!(page.contains(&line), "docs/format-erasure.md should say `{line}`");
    }
}

#[test]
fn our_reconstruction_agrees_with_the_library() {
    let coding = ChunkCoding { k: 4, m: 2 };
    let shards = coded(coding, 100, 9);
    let mut theirs: Vec<Option<Vec<u8>>> = shards.iter().cloned().map(Some).collect();
    (theirs[1], theirs[4]) = (None, None);
    let mut ours = theirs.clone();
    Codec::new(coding).unwrap().library.reconstruct(&mut theirs).unwrap();
    reconstruct(coding, &mut ours).unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn malformed_calls_are_refused() {
    let c = |k, m| ChunkCoding { k, m };
    assert_eq!(encode(c(0, 2), &[], &mut []), Err(ErasureError::Profile { k: 0, m: 2 }));
    assert_eq!(encode(c(200, 56), &[], &mut []), Err(ErasureError::Profile { k: 200, m: 56 }));
    assert_eq!(encode(c(2, 0), &[b"a"], &mut []), Err(ErasureError::PieceCount { given: 1, needed: 2 }));
    assert_eq!(encode(c(2, 1), &[b"a", b"bc"], &mut [&mut [0]]), Err(ErasureError::PieceLength));
    assert_eq!(encode(c(2, 1), &[b"", b""], &mut [&mut []]), Err(ErasureError::PieceLength));
    assert_eq!(encode_in_place(c(2, 1), &mut [0; 7], 2), Err(ErasureError::PieceLength));
    let mut out = [0; 2];
    let twice: [(u8, &[u8]); 2] = [(0, b"ab"), (0, b"ab")];
    let error = reconstruct_some(c(2, 1), &twice, &mut [(1, &mut out)]);
    assert_eq!(error, Err(ErasureError::TooFew { have: 1, need: 2 }));
    let beyond: [(u8, &[u8]); 2] = [(0, b"ab"), (3, b"ab")];
    assert_eq!(reconstruct_some(c(2, 1), &beyond, &mut [(1, &mut out)]), Err(ErasureError::Index { index: 3 }));
    let unequal: [(u8, &[u8]); 2] = [(0, b"ab"), (2, b"abc")];
    assert_eq!(reconstruct_some(c(2, 1), &unequal, &mut [(1, &mut out)]), Err(ErasureError::PieceLength));
    let mut cut = coded(c(4, 2), 64, 1).into_iter().map(Some).collect::<Vec<_>>();
    cut[0] = None;
    cut[3].as_mut().unwrap().pop();
    assert_eq!(reconstruct(c(4, 2), &mut cut), Err(ErasureError::PieceLength), "corrupted length");
}

#[test]
fn more_profiles_than_the_cache_holds_all_work() {
    for k in 2..=(CODECS_MAX as u8 + 20) {
        let coding = ChunkCoding { k, m: 1 };
        let shards = coded(coding, 3, k);
        let mut holes: Vec<_> = shards.iter().cloned().map(Some).collect();
        holes[usize::from(k) / 2] = None;
        reconstruct(coding, &mut holes).unwrap();
        assert_eq!(holes.into_iter().flatten().collect::<Vec<_>>(), shards);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_k_of_k_plus_m_give_the_rest(
        k in 1u8..20, m in 0u8..7, len in prop_oneof![1usize..200, 16_000usize..40_000], seed: u8, order in any::<u64>(),
    ) {
        let coding = ChunkCoding { k, m };
        let shards = coded(coding, len, seed);
        prop_assert_eq!(shards.len(), usize::from(k + m));
        // A pseudo-random order of the shards: the first k stay.
        let mut indices: Vec<u8> = (0..k + m).collect();
        indices.sort_by_key(|i| (order ^ u64::from(*i)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::from(*i)));
        let mut holes: Vec<Option<Vec<u8>>> = vec![None; shards.len()];
        for i in &indices[..usize::from(k)] {
            holes[usize::from(*i)] = Some(shards[usize::from(*i)].clone());
        }
        let mut one_fewer = holes.clone();
        one_fewer[usize::from(indices[0])] = None;
        reconstruct(coding, &mut holes).unwrap();
        prop_assert_eq!(holes.into_iter().flatten().collect::<Vec<_>>(), shards.clone());
        let refused = reconstruct(coding, &mut one_fewer);
        prop_assert!(refused.is_err());
        // The same on a range of the shards.
        let range = len / 3..len;
        let present: Vec<(u8, &[u8])> = indices[..usize::from(k)]
            .iter().map(|i| (*i, &shards[usize::from(*i)][range.clone()])).collect();
        let last = indices[usize::from(k + m) - 1];
        let mut out = vec![0; range.len()];
        reconstruct_some(coding, &present, &mut [(last, &mut out)]).unwrap();
        prop_assert_eq!(&out[..], &shards[usize::from(last)][range]);
    }
}
