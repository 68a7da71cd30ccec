//! The metadata API: what gateways, repair and administration ask of the metadata service.
//!
//! One list of operations ([`Metadata`]) gives the trait, the request and response that travel over gRPC, the server's
//! dispatch and the client. This crate must never know how rows are laid out, nor anything of S3's wire format: it
//! holds the domain's words and nothing that does I/O.
//!
//! Everything here is encoded as CBOR (RFC 8949) with numbered fields, so that a newer process can add a field and an
//! older one skips it. A number is never used again for something else.

mod access;
mod api;
mod approval;
mod bucket;
mod credential;
mod custody;
mod error;
mod governance;
mod object;
mod opening;
mod principal;
mod project;
mod report;
mod retention;
mod secret;
mod service;
mod shredding;
mod transfer;
mod upload;

pub use access::*;
pub use api::{Client, Metadata, Request, Response, Transport, serve};
pub use approval::*;
pub use bucket::*;
pub use credential::*;
pub use custody::*;
pub use error::{LockReason, MetadataError, Precondition};
pub use governance::*;
pub use object::*;
pub use opening::*;
pub use principal::*;
pub use project::*;
pub use report::*;
pub use retention::*;
pub use secret::Secret;
pub use service::*;
pub use shredding::{ShredObject, ShredProject};
pub use transfer::*;
pub use upload::*;
