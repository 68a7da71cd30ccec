//! Users, access keys, and what a restart finds.

use crate::testing::{Fixture, SECRET_TEXT, disks, principal};
use crate::{BootstrapConfig, BootstrapError};
use valv_metadata_api::*;
use valv_types::{AccessKeyId, ClusterId};

#[tokio::test]
async fn ensuring_a_principal_twice_changes_nothing_and_a_new_secret_replaces_the_old() {
    let fixture = Fixture::new().await;
    let again = fixture.service.ensure_principal(principal("main")).await.unwrap();
    assert!(!again.changed);
    assert_eq!((again.project, Some(again.user)), (fixture.actor.project, fixture.actor.user));
    let id = AccessKeyId::new("KEY-main").unwrap();
    let grant = fixture.service.get_access_key(GetAccessKey { id: id.clone() }).await.unwrap();
    assert_eq!(grant.secret.expose(), format!("{SECRET_TEXT} main").as_bytes());
    assert_eq!((grant.project, grant.namespace), (fixture.actor.project, fixture.namespace));
    assert_eq!(grant.canonical_id.len(), 64);
    assert!(grant.lease_ms <= 3_000);

    let changed = EnsurePrincipal { secret: Secret::new(b"new".to_vec()), ..principal("main") };
    assert!(fixture.service.ensure_principal(changed).await.unwrap().changed);
    let grant = fixture.service.get_access_key(GetAccessKey { id }).await.unwrap();
    assert_eq!(grant.secret.expose(), b"new");
    let unknown = GetAccessKey { id: AccessKeyId::new("nobody").unwrap() };
    assert!(matches!(fixture.service.get_access_key(unknown).await, Err(MetadataError::NoSuchAccessKey)));
}

#[tokio::test]
async fn users_are_found_by_each_of_their_names() {
    let fixture = Fixture::new().await;
    let other = fixture.service.ensure_principal(principal("Other")).await.unwrap();
    assert_eq!(other.namespace, fixture.namespace, "shared by name");
    assert_ne!(other.project, fixture.actor.project);
    let user = fixture.service.get_user(GetUser::Id(other.user)).await.unwrap();
    for by in [
        GetUser::Name("Other".to_owned()),
        GetUser::Canonical(user.canonical_id.clone()),
        GetUser::Email("other@EXAMPLE.org".to_owned()),
    ] {
        assert_eq!(fixture.service.get_user(by).await.unwrap(), user);
    }
    let missing = fixture.service.get_user(GetUser::Name("other".to_owned())).await;
    assert_eq!(missing, Err(MetadataError::NoSuchUser));
}

#[tokio::test]
async fn a_namespace_is_found_by_its_name_once_somebody_has_named_it() {
    let fixture = Fixture::new().await;
    let named = |name: &str| fixture.service.get_namespace(GetNamespace { name: name.to_owned() });
    assert_eq!(named("later").await, Err(MetadataError::NoSuchNamespace));
    let later = EnsurePrincipal { namespace_name: "later".to_owned(), ..principal("later") };
    let made = fixture.service.ensure_principal(later).await.unwrap();
    assert_eq!(named("later").await, Ok(Namespace { id: made.namespace }));
    assert_ne!(made.namespace, fixture.namespace);
}

#[tokio::test]
async fn several_principals_made_at_once_share_what_they_name() {
    let fixture = Fixture::new().await;
    let same = |key: &str| EnsurePrincipal { access_key: AccessKeyId::new(key).unwrap(), ..principal("joint") };
    let (a, b) = tokio::join!(
        fixture.service.ensure_principal(same("joint-1")),
        fixture.service.ensure_principal(same("joint-2"))
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.user, a.project, a.namespace), (b.user, b.project, b.namespace));
}

#[tokio::test]
async fn bootstrap_is_idempotent_and_refuses_what_does_not_fit() {
    let fixture = Fixture::new().await;
    let map = fixture.service.get_cluster_map(Empty {}).await.unwrap();
    let config =
        BootstrapConfig { cluster: map.cluster, cell: fixture.cell(), disks: disks(), k: 4, m: 2, pg_count: 16 };
    assert_eq!(fixture.service.bootstrap(config.clone()).await.unwrap(), map);
    assert_eq!(map.pools[0].groups.len(), 16);
    let other = BootstrapConfig { cluster: ClusterId::random(), ..config };
    assert!(matches!(fixture.service.bootstrap(other).await, Err(BootstrapError::OtherCluster { .. })));
}

#[tokio::test]
async fn too_few_disks_are_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let keys = crate::KeyStore::open(folder.path(), valv_codec::RootKey::generate(1).unwrap()).unwrap();
    let store = std::sync::Arc::new(crate::testing::MemoryStore::default());
    let config = crate::MetadataConfig::default();
    let service = crate::MetadataService::open(config, store, keys).await.unwrap();
    let disks: Vec<_> = disks().into_iter().take(5).collect();
    let bootstrap =
        BootstrapConfig { cluster: ClusterId::random(), cell: config.cell, disks, k: 4, m: 2, pg_count: 16 };
    let refused = service.bootstrap(bootstrap).await;
    assert!(matches!(refused, Err(BootstrapError::NotEnoughDisks { have: 5, need: 6 })), "{refused:?}");
    let unbootstrapped = service.get_cluster_map(Empty {}).await;
    assert!(matches!(unbootstrapped, Err(MetadataError::Unavailable { .. })));
}
