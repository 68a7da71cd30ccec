//! Browser-based uploads: a multipart/form-data body whose fields say what a PUT says in headers, whose policy document
//! was signed in advance, and whose last part is the file.
//!
//! Source: "Browser-Based Uploads Using POST" and "POST Object" of the S3 API reference; RFC 7578 over RFC 2046, 5.1.
//! Where AWS's table of error codes and what its servers send differ (a missing key is `InvalidArgument` and not
//! `UserKeyMustBeSpecified`), the latter is followed, because that is what clients have met.
//!
//! [`parser`] and [`policy`] do no I/O. The fields are read whole, within AWS's 20 KiB; of the file nothing is held.

mod disposition;
mod fields;
mod file;
mod parser;
mod policy;
#[cfg(test)]
mod tests;

pub use disposition::Boundary;
pub use fields::FormFields;
pub use file::FormUpload;
pub use parser::{FormError, FormEvent, FormParser};
pub use policy::{LengthRange, PostPolicy};
