//! What travels between gateways and metadata, in CBOR. Input: the bytes of a request; those of an answer are tried, too.

use valv_metadata_api::{MetadataError, Request, Response};

/// Pieces of CBOR: array and map heads, lengths that promise more than there is, breaks.
pub const WORDS: &[&str] = &["\u{0}", "\u{1}", "\u{18}", "\u{19}", "@", "`", "\u{7f}"];

/// See the module.
pub fn run(data: &[u8]) {
    steady::<Request>(data);
    steady::<Response>(data);
    steady::<MetadataError>(data);
}

/// What can be read is written in one way: reading that and writing it again gives the same bytes.
fn steady<T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>>(data: &[u8]) {
    let Ok(value) = minicbor::decode::<T>(data) else { return };
    let written = minicbor::to_vec(&value).expect("a vector takes everything");
    let again: T = minicbor::decode(&written).expect("what was written can be read");
    assert_eq!(minicbor::to_vec(&again).expect("a vector takes everything"), written);
    // Lengths in the input are claims: nothing in it makes more of itself than a few bytes for each of its own.
    assert!(written.len() <= 64 + 40 * data.len(), "{} bytes became {}", data.len(), written.len());
}
