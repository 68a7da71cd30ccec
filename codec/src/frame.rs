//! Frames: the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance", CRYPTO 2015) over AES-256-GCM.
//!
//! A frame's nonce is a 7-byte prefix, its index in the blob (4 bytes, big-endian) and 1 for the blob's last frame, 0
//! for the others: frames can be opened alone and in any order, but not moved, dropped or cut off unnoticed.

use crate::kdf::{KEY_LEN, aead_key, derive};
use crate::keys::DataKey;
use ring::aead::{Aad, LessSafeKey, Nonce, Tag};
use valv_types::{BlobId, FRAME_TAG_BYTES, ProjectId};

const PREFIX_LEN: usize = 7;
const AAD_LEN: usize = 33;
/// Frame format 1: STREAM over AES-256-GCM.
const FORMAT: u8 = 1;

/// What a frame's ciphertext is bound to besides its key and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobContext {
    /// The project the blob belongs to.
    pub project: ProjectId,
    /// The blob.
    pub blob: BlobId,
}

impl BlobContext {
    fn aad(&self) -> [u8; AAD_LEN] {
        let mut aad = [0; AAD_LEN];
        aad[0] = FORMAT;
        aad[1..17].copy_from_slice(self.project.as_bytes());
        aad[17..].copy_from_slice(self.blob.as_bytes());
        aad
    }
}

/// A frame that fails authentication. No byte of it is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame {index} fails authentication")]
pub struct FrameError {
    /// The frame's index in its blob.
    pub index: u32,
}

/// The AEAD key and nonce prefix of one blob.
struct BlobCipher {
    key: LessSafeKey,
    prefix: [u8; PREFIX_LEN],
    aad: [u8; AAD_LEN],
}

impl BlobCipher {
    fn new(data_key: &DataKey, context: BlobContext) -> Self {
        let derived = derive::<{ KEY_LEN + PREFIX_LEN }>(&*data_key.0, &[], &[b"valv frames v1", &context.aad()]);
        let mut key = zeroize::Zeroizing::new([0; KEY_LEN]);
        key.copy_from_slice(&derived[..KEY_LEN]);
        let mut prefix = [0; PREFIX_LEN];
        prefix.copy_from_slice(&derived[KEY_LEN..]);
        Self { key: aead_key(&key), prefix, aad: context.aad() }
    }

    fn nonce(&self, index: u32, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..PREFIX_LEN].copy_from_slice(&self.prefix);
        nonce[PREFIX_LEN..11].copy_from_slice(&index.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals a blob's frames, each exactly once and in order: the index is counted here, so no nonce repeats.
pub struct FrameSealer {
    cipher: BlobCipher,
    next: u32,
    finished: bool,
}

impl FrameSealer {
    /// A sealer for a new blob. `data_key` must never have sealed anything before.
    pub fn new(data_key: &DataKey, context: BlobContext) -> Self {
        Self { cipher: BlobCipher::new(data_key, context), next: 0, finished: false }
    }

    /// Seals the next frame in place and returns its tag, which belongs right after it. `last` ends the blob.
    ///
    /// # Panics
    /// If the blob was ended before, or after 2^32 frames (256 TiB): continuing would repeat a nonce.
    pub fn seal(&mut self, frame: &mut [u8], last: bool) -> [u8; FRAME_TAG_BYTES as usize] {
        assert!(!self.finished, "a blob's last frame is sealed already");
        let nonce = self.cipher.nonce(self.next, last);
        let Ok(tag) = self.cipher.key.seal_in_place_separate_tag(nonce, Aad::from(self.cipher.aad), frame) else {
            unreachable!("AES-256-GCM seals up to 64 GiB at once; a frame is 64 KiB");
        };
        self.finished = last || self.next == u32::MAX;
        self.next = self.next.wrapping_add(1);
        let mut bytes = [0; FRAME_TAG_BYTES as usize];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

/// Opens a blob's frames, in any order.
pub struct FrameOpener(BlobCipher);

impl FrameOpener {
    /// An opener for a blob.
    pub fn new(data_key: &DataKey, context: BlobContext) -> Self {
        Self(BlobCipher::new(data_key, context))
    }

    /// Opens frame `index` in place. `sealed` is ciphertext and tag; returns the plaintext at its start. On error the
    /// buffer holds nothing usable.
    pub fn open<'a>(&self, sealed: &'a mut [u8], index: u32, last: bool) -> Result<&'a mut [u8], FrameError> {
        let error = FrameError { index };
        let plain_len = sealed.len().checked_sub(FRAME_TAG_BYTES as usize).ok_or(error)?;
        let (body, tag) = sealed.split_at_mut(plain_len);
        let tag = Tag::try_from(&*tag).map_err(|_| error)?;
        let nonce = self.0.nonce(index, last);
        self.0.key.open_in_place_separate_tag(nonce, Aad::from(self.0.aad), tag, body, 0..).map_err(|_| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use valv_types::IncarnationId;

    fn context() -> BlobContext {
        BlobContext { project: ProjectId::random(), blob: BlobId::new(IncarnationId(1), 1) }
    }

    fn sealed(key: &DataKey, context: BlobContext, frames: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut sealer = FrameSealer::new(key, context);
        let last = frames.len() - 1;
        frames
            .iter()
            .enumerate()
            .map(|(i, frame)| {
                let mut out = frame.to_vec();
                let tag = sealer.seal(&mut out, i == last);
                out.extend_from_slice(&tag);
                out
            })
            .collect()
    }

    #[test]
    fn frames_open_in_any_order_but_in_their_own_place_only() {
        let (key, context) = (DataKey::generate().unwrap(), context());
        let frames = sealed(&key, context, &[b"one", b"two", b"three"]);
        let opener = FrameOpener::new(&key, context);
        assert_eq!(opener.open(&mut frames[2].clone(), 2, true).unwrap(), b"three");
        assert_eq!(opener.open(&mut frames[0].clone(), 0, false).unwrap(), b"one");
        assert_eq!(opener.open(&mut frames[0].clone(), 1, false), Err(FrameError { index: 1 }), "moved");
        assert!(opener.open(&mut frames[1].clone(), 1, true).is_err(), "cut off after the second");
        assert!(opener.open(&mut frames[2].clone(), 2, false).is_err(), "continued");
        assert!(opener.open(&mut [0; 5], 0, false).is_err(), "shorter than a tag");
    }

    #[test]
    fn frames_of_another_blob_or_project_do_not_open() {
        let (key, here) = (DataKey::generate().unwrap(), context());
        let mut frame = sealed(&key, here, &[b"data"]).remove(0);
        let other_project = BlobContext { project: ProjectId::random(), ..here };
        assert!(FrameOpener::new(&key, other_project).open(&mut frame.clone(), 0, true).is_err());
        let other_blob = BlobContext { blob: BlobId::new(IncarnationId(1), 2), ..here };
        assert!(FrameOpener::new(&key, other_blob).open(&mut frame, 0, true).is_err());
    }

    #[test]
    #[should_panic(expected = "sealed already")]
    fn a_finished_blob_takes_no_more_frames() {
        let mut sealer = FrameSealer::new(&DataKey::generate().unwrap(), context());
        sealer.seal(&mut [0; 4], true);
        sealer.seal(&mut [0; 4], false);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(data in prop::collection::vec(any::<u8>(), 1..300), bit in any::<prop::sample::Index>()) {
            let (key, context) = (DataKey::generate().unwrap(), context());
            let mut frame = sealed(&key, context, &[&data]).remove(0);
            let bit = bit.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(FrameOpener::new(&key, context).open(&mut frame, 0, true).is_err());
        }
    }
}
