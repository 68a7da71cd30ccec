//! S3's XML, both ways: documents that clients send become a small tree, documents that we send are written in order.

mod read;
mod write;

pub use read::{Element, parse};
pub(crate) use write::DECLARATION;
pub use write::{Encoding, Namespace, Writer, url_encode};
