//! Generated messages, clients and servers of Valv's gRPC services, and nothing else.
//!
//! This crate knows none of the others. Its types stop at the RPC edge: the shard service is translated to and from
//! `valv-shard-api`'s types in `valv-storage-node`, the metadata service in `valv-metadata`.

/// The shard service.
pub mod shard {
    /// Version 1. Fields are added, never renumbered.
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("valv.shard.v1");
    }
}

/// The metadata service.
pub mod metadata {
    /// Version 1. Fields are added, never renumbered.
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("valv.metadata.v1");

        impl std::fmt::Debug for Envelope {
            /// Says how long the envelope's body is and nothing of what it holds: it may be a key.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "Envelope({} bytes)", self.cbor.len())
            }
        }
    }
}

/// The operators' service.
pub mod admin {
    /// Version 1. Fields are added, never renumbered.
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("valv.admin.v1");

        impl std::fmt::Debug for EnsureUserRequest {
            /// Leaves the secret out.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "EnsureUserRequest({})", self.name)
            }
        }

        impl std::fmt::Debug for CreateTokenReply {
            /// Leaves the token out.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "CreateTokenReply({:?})", self.token)
            }
        }

        impl std::fmt::Debug for SubmitShareRequest {
            /// Leaves the share out.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("SubmitShareRequest(..)")
            }
        }

        impl std::fmt::Debug for CreateAccessKeyRequest {
            /// Leaves the secret out.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "CreateAccessKeyRequest({}, {})", self.user, self.id)
            }
        }
    }
}

/// The encoded `FileDescriptorSet` of all services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("valv");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use prost::Message;

    #[test]
    fn a_payload_is_decoded_without_copying() {
        let request = shard::v1::PutRequest { payload: Bytes::from(vec![7; 1000]), ..Default::default() };
        let encoded = Bytes::from(request.encode_to_vec());
        let decoded = shard::v1::PutRequest::decode(encoded.clone()).unwrap();
        assert_eq!(decoded.payload, request.payload);
        let (outer, inner) = (encoded.as_ptr_range(), decoded.payload.as_ptr_range());
        assert!(outer.start <= inner.start && inner.end <= outer.end);
    }

    #[test]
    fn an_envelope_does_not_print_what_it_holds() {
        let envelope = metadata::v1::Envelope { cbor: Bytes::from_static(b"secret") };
        assert_eq!(format!("{envelope:?}"), "Envelope(6 bytes)");
    }

    #[test]
    fn the_descriptor_set_names_both_services() {
        let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
        assert!(text.contains("ShardService") && text.contains("Metadata"));
    }
}
