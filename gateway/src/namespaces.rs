//! In which namespace a request without a signature finds bucket names: the one of the endpoint that it was sent to.
//!
//! A signed request resolves names in its access key's project, and never here. The operator writes names of namespaces;
//! their ids are asked for when the first request needs them, because the first user of a namespace may be added long
//! after a gateway has started.

use crate::error::S3Error;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use valv_metadata_api::{GetNamespace, Metadata, MetadataError};
use valv_types::NamespaceId;

/// Which namespace belongs to which endpoint.
#[derive(Debug, Clone, Default)]
pub struct NamespaceConfig {
    /// For endpoints that `by_host` does not name; `None`: unsigned requests to them find no bucket.
    pub anonymous: Option<String>,
    /// Name of a namespace by host name: lower-case, without port.
    pub by_host: HashMap<String, String>,
}

/// Resolves and remembers. What it remembers is bounded by the configuration, since nobody else can name a namespace.
pub(crate) struct Namespaces {
    config: NamespaceConfig,
    metadata: Arc<dyn Metadata>,
    found: Mutex<HashMap<String, NamespaceId>>,
}

impl Namespaces {
    pub(crate) fn new(config: NamespaceConfig, metadata: Arc<dyn Metadata>) -> Self {
        Self { config, metadata, found: Mutex::default() }
    }

    /// The namespace of an endpoint's host name.
    ///
    /// # Errors
    /// That metadata can't be reached.
    pub(crate) async fn of_endpoint(&self, endpoint: &str) -> Result<Option<NamespaceId>, S3Error> {
        let Some(name) = self.config.by_host.get(endpoint).or(self.config.anonymous.as_ref()) else { return Ok(None) };
        if let Some(id) = self.found.lock().get(name) {
            return Ok(Some(*id));
        }
        match self.metadata.get_namespace(GetNamespace { name: name.clone() }).await {
            // Kept for good: ids of namespaces never change.
            Ok(namespace) => {
                self.found.lock().insert(name.clone(), namespace.id);
                Ok(Some(namespace.id))
            }
            // Asked again next time: one row read, as the bucket's name would have cost.
            Err(MetadataError::NoSuchNamespace) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use valv_metadata_api::{Client, Namespace, Request, Response, Transport};

    const X: NamespaceId = NamespaceId::from_bytes([7; 16]);
    const DEFAULT: NamespaceId = NamespaceId::from_bytes([8; 16]);

    /// Knows the namespaces in its table, and counts questions.
    #[derive(Clone, Default)]
    struct Table(Arc<Mutex<(HashMap<String, NamespaceId>, usize)>>);

    #[async_trait]
    impl Transport for Table {
        async fn call(&self, request: Request) -> Result<Response, MetadataError> {
            let Request::GetNamespace(request) = request else { panic!("asked for something else") };
            let mut table = self.0.lock();
            table.1 += 1;
            let id = table.0.get(&request.name).copied().ok_or(MetadataError::NoSuchNamespace)?;
            Ok(Response::GetNamespace(Namespace { id }))
        }
    }

    fn namespaces(table: &Table, anonymous: Option<&str>) -> Namespaces {
        let by_host = HashMap::from([("s3.example.org".to_owned(), "x".to_owned())]);
        let config = NamespaceConfig { anonymous: anonymous.map(str::to_owned), by_host };
        Namespaces::new(config, Arc::new(Client(table.clone())))
    }

    #[tokio::test]
    async fn an_endpoint_has_its_own_namespace_and_others_the_anonymous_one() {
        let table = Table::default();
        table.0.lock().0 = HashMap::from([("x".to_owned(), X), ("default".to_owned(), DEFAULT)]);
        let with_default = namespaces(&table, Some("default"));
        assert_eq!(with_default.of_endpoint("s3.example.org").await.expect("answer"), Some(X));
        assert_eq!(with_default.of_endpoint("10.0.0.1").await.expect("answer"), Some(DEFAULT));
        assert_eq!(with_default.of_endpoint("").await.expect("answer"), Some(DEFAULT));
        let without = namespaces(&table, None);
        assert_eq!(without.of_endpoint("s3.example.org").await.expect("answer"), Some(X));
        assert_eq!(without.of_endpoint("10.0.0.1").await.expect("answer"), None);
    }

    #[tokio::test]
    async fn a_namespace_that_is_made_later_is_found_and_then_kept() {
        let table = Table::default();
        let namespaces = namespaces(&table, Some("default"));
        assert_eq!(namespaces.of_endpoint("a").await.expect("answer"), None);
        table.0.lock().0.insert("default".to_owned(), DEFAULT);
        for _ in 0..3 {
            assert_eq!(namespaces.of_endpoint("a").await.expect("answer"), Some(DEFAULT));
        }
        assert_eq!(table.0.lock().1, 2);
    }
}
