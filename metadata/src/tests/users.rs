//! Administration of users and access keys, and what of it survives a lost answer.

use crate::rows::Tag;
use crate::testing::{Fixture, actor, principal};
use std::sync::atomic::Ordering;
use valv_metadata_api::*;
use valv_types::{AccessKeyId, CommitId};

fn id(text: &str) -> AccessKeyId {
    AccessKeyId::new(text).unwrap()
}

fn conflict<T: std::fmt::Debug>(outcome: Result<T, MetadataError>) -> PrincipalConflict {
    match outcome {
        Err(MetadataError::Principal { reason }) => reason,
        other => panic!("{other:?} is no conflict"),
    }
}

fn new_key(user: &str, key: &str) -> CreateAccessKey {
    CreateAccessKey {
        user_name: user.to_owned(),
        project_name: None,
        namespace_name: String::new(),
        id: id(key),
        secret: Secret::new(format!("secret of {key}").into_bytes()),
        commit: CommitId::random(),
        by: None,
    }
}

fn change(user: &str) -> UpdateUser {
    UpdateUser {
        user_name: user.to_owned(),
        display_name: None,
        email: None,
        project_name: None,
        commit: CommitId::random(),
    }
}

impl Fixture {
    async fn grant(&self, key: &str) -> Result<AccessGrant, MetadataError> {
        self.service.get_access_key(GetAccessKey { id: id(key) }).await
    }

    async fn set(&self, key: &str, state: KeyState) -> Result<AccessKeyEntry, MetadataError> {
        self.service.update_access_key(UpdateAccessKey { id: id(key), state, commit: CommitId::random() }).await
    }

    async fn drop_key(&self, key: &str) -> Result<Empty, MetadataError> {
        self.service.delete_access_key(DeleteAccessKey { id: id(key), commit: CommitId::random() }).await
    }

    async fn drop_user(&self, user: &str) -> Result<Empty, MetadataError> {
        self.service.delete_user(DeleteUser { user_name: user.to_owned(), commit: CommitId::random() }).await
    }

    async fn described(&self, user: &str) -> UserDetail {
        self.service.describe_user(GetUser::Name(user.to_owned())).await.unwrap()
    }

    fn events(&self) -> usize {
        self.store.count(Tag::Ledger)
    }
}

#[tokio::test]
async fn keys_rotate_with_overlap_and_every_step_is_in_the_ledger() {
    let fixture = Fixture::new().await;
    let before = fixture.events();
    let made = fixture.service.create_access_key(new_key("main", "KEY-two")).await.unwrap();
    assert_eq!((made.project, made.state), (fixture.actor.project, KeyState::Enabled));
    assert_eq!(made.project_name, "project of main");
    let (old, new) = (fixture.grant("KEY-main").await.unwrap(), fixture.grant("KEY-two").await.unwrap());
    assert_eq!((old.user, old.project), (new.user, new.project), "both work");
    assert_eq!(new.secret.expose(), b"secret of KEY-two");

    assert_eq!(fixture.set("KEY-main", KeyState::Disabled).await.unwrap().state, KeyState::Disabled);
    assert_eq!(fixture.grant("KEY-main").await.unwrap_err(), MetadataError::NoSuchAccessKey);
    assert_eq!(fixture.events(), before + 2);
    fixture.set("KEY-main", KeyState::Disabled).await.unwrap();
    assert_eq!(fixture.events(), before + 2, "nothing changed");
    let keys = fixture.described("main").await.keys;
    let keys: Vec<_> = keys.iter().map(|key| (key.id.as_str(), key.state)).collect();
    assert_eq!(keys, [("KEY-main", KeyState::Disabled), ("KEY-two", KeyState::Enabled)]);

    fixture.set("KEY-main", KeyState::Enabled).await.unwrap();
    assert!(fixture.grant("KEY-main").await.is_ok());
    fixture.drop_key("KEY-main").await.unwrap();
    assert_eq!(fixture.grant("KEY-main").await.unwrap_err(), MetadataError::NoSuchAccessKey);
    assert_eq!(fixture.drop_key("KEY-main").await.unwrap_err(), MetadataError::NoSuchAccessKey);
    assert_eq!(fixture.set("KEY-main", KeyState::Enabled).await.unwrap_err(), MetadataError::NoSuchAccessKey);
    assert_eq!(fixture.events(), before + 4);
}

#[tokio::test]
async fn a_key_may_act_in_another_project_than_its_user_does_by_default() {
    let fixture = Fixture::new().await;
    let elsewhere = CreateAccessKey { project_name: Some("second".to_owned()), ..new_key("main", "KEY-second") };
    let made = fixture.service.create_access_key(elsewhere).await.unwrap();
    assert_ne!(made.project, fixture.actor.project);
    let grant = fixture.grant("KEY-second").await.unwrap();
    assert_eq!((Some(grant.user), grant.project), (fixture.actor.user, made.project));
    assert_ne!(grant.namespace, fixture.namespace, "a new project is in `default` unless one is named");
    let detail = fixture.described("main").await;
    assert_eq!(detail.entry.project_name, "project of main");
    assert_eq!(detail.entry.namespace_name, "shared");
    assert_eq!(detail.keys[1].project_name, "second");

    // The project is there now, and stays in its namespace.
    let other = |namespace: &str, key: &str| CreateAccessKey {
        project_name: Some("second".to_owned()),
        namespace_name: namespace.to_owned(),
        ..new_key("main", key)
    };
    assert_eq!(
        conflict(fixture.service.create_access_key(other("shared", "KEY-3")).await),
        PrincipalConflict::OtherNamespace
    );
    assert_eq!(fixture.service.create_access_key(other("default", "KEY-3")).await.unwrap().project, made.project);

    let moved = UpdateUser { project_name: Some("second".to_owned()), ..change("main") };
    assert_eq!(fixture.service.update_user(moved).await.unwrap().project, made.project);
    assert_eq!(fixture.grant("KEY-main").await.unwrap().project, fixture.actor.project, "keys keep theirs");
    let nowhere = UpdateUser { project_name: Some("third".to_owned()), ..change("main") };
    assert_eq!(conflict(fixture.service.update_user(nowhere).await), PrincipalConflict::NoSuchProject);
}

#[tokio::test]
async fn what_is_another_users_is_never_taken() {
    let fixture = Fixture::new().await;
    let other = fixture.service.ensure_principal(principal("other")).await.unwrap();
    let canonical = fixture.described("other").await.entry.user.canonical_id;
    let taken = PrincipalConflict::AccessKeyTaken;
    assert_eq!(conflict(fixture.service.create_access_key(new_key("main", "KEY-other")).await), taken);
    let same_key = EnsurePrincipal { access_key: id("KEY-other"), ..principal("main") };
    assert_eq!(conflict(fixture.service.ensure_principal(same_key).await), taken);
    let other_project = EnsurePrincipal { project_name: "project of other".to_owned(), ..principal("main") };
    assert_eq!(conflict(fixture.service.ensure_principal(other_project).await), taken);
    assert_eq!(fixture.grant("KEY-other").await.unwrap().user, other.user);

    let same_email = EnsurePrincipal { email: "OTHER@example.org".to_owned(), ..principal("third") };
    assert_eq!(conflict(fixture.service.ensure_principal(same_email).await), PrincipalConflict::EmailTaken);
    let same_email = UpdateUser { email: Some("OTHER@example.org".to_owned()), ..change("main") };
    assert_eq!(conflict(fixture.service.update_user(same_email).await), PrincipalConflict::EmailTaken);
    for (given, expected) in [
        (canonical.clone(), PrincipalConflict::CanonicalIdTaken),
        ("ABC".to_owned(), PrincipalConflict::CanonicalIdMalformed),
    ] {
        let request = EnsurePrincipal { canonical_id: given, ..principal("third") };
        assert_eq!(conflict(fixture.service.ensure_principal(request).await), expected);
    }
    let fixed = EnsurePrincipal { canonical_id: canonical, ..principal("main") };
    assert_eq!(conflict(fixture.service.ensure_principal(fixed).await), PrincipalConflict::CanonicalIdFixed);
    let control = EnsurePrincipal { user_name: "a\nb".to_owned(), ..principal("third") };
    assert_eq!(conflict(fixture.service.ensure_principal(control).await), PrincipalConflict::NameMalformed);
    assert_eq!(fixture.drop_user("third").await.unwrap_err(), MetadataError::NoSuchUser);
}

#[tokio::test]
async fn ensuring_a_user_updates_what_is_said_of_them_and_keeps_what_is_not_said() {
    let fixture = Fixture::new().await;
    let renamed =
        EnsurePrincipal { display_name: "New".to_owned(), email: "new@example.org".to_owned(), ..principal("main") };
    assert!(fixture.service.ensure_principal(renamed.clone()).await.unwrap().changed);
    assert!(!fixture.service.ensure_principal(renamed.clone()).await.unwrap().changed);
    let silent = EnsurePrincipal {
        display_name: String::new(),
        email: String::new(),
        namespace_name: String::new(),
        ..renamed.clone()
    };
    assert!(!fixture.service.ensure_principal(silent).await.unwrap().changed);
    let user = fixture.described("main").await.entry.user;
    assert_eq!((user.display_name.as_str(), user.email.as_str()), ("New", "new@example.org"));
    let by = |email: &str| fixture.service.get_user(GetUser::Email(email.to_owned()));
    assert_eq!(by("new@example.org").await.unwrap(), user);
    assert_eq!(by("main@example.org").await.unwrap_err(), MetadataError::NoSuchUser);
    assert_eq!(fixture.grant("KEY-main").await.unwrap().display_name, "New");

    // An operator's disabling outlives a restart with the same configuration.
    fixture.set("KEY-main", KeyState::Disabled).await.unwrap();
    assert!(!fixture.service.ensure_principal(renamed.clone()).await.unwrap().changed);
    let new_secret = EnsurePrincipal { secret: Secret::new(b"another secret".to_vec()), ..renamed };
    assert!(fixture.service.ensure_principal(new_secret).await.unwrap().changed);
    assert_eq!(fixture.grant("KEY-main").await.unwrap_err(), MetadataError::NoSuchAccessKey);

    let no_email = UpdateUser { email: Some(String::new()), ..change("main") };
    assert_eq!(fixture.service.update_user(no_email.clone()).await.unwrap().email, "");
    let events = fixture.events();
    fixture.service.update_user(UpdateUser { commit: CommitId::random(), ..no_email }).await.unwrap();
    assert_eq!(fixture.events(), events, "nothing changed");
    assert_eq!(by("new@example.org").await.unwrap_err(), MetadataError::NoSuchUser);
}

#[tokio::test]
async fn a_user_goes_with_all_keys_but_not_while_owning_a_bucket() {
    let fixture = Fixture::new().await;
    fixture.service.create_access_key(new_key("main", "KEY-two")).await.unwrap();
    let bucket = fixture.bucket("mine", false).await;
    assert_eq!(conflict(fixture.drop_user("main").await), PrincipalConflict::OwnsBuckets);
    assert!(fixture.grant("KEY-main").await.is_ok());
    let gone = DeleteBucket { actor: fixture.actor.clone(), bucket, commit: CommitId::random() };
    fixture.service.delete_bucket(gone).await.unwrap();
    let old = fixture.described("main").await.entry.user;
    fixture.drop_user("main").await.unwrap();
    for key in ["KEY-main", "KEY-two"] {
        assert_eq!(fixture.grant(key).await.unwrap_err(), MetadataError::NoSuchAccessKey);
    }
    for by in [
        GetUser::Id(old.id),
        GetUser::Name("main".to_owned()),
        GetUser::Canonical(old.canonical_id),
        GetUser::Email("main@example.org".to_owned()),
    ] {
        assert_eq!(fixture.service.get_user(by).await.unwrap_err(), MetadataError::NoSuchUser);
    }
    assert!(fixture.service.list_users(ListUsers { after: None, limit: 10 }).await.unwrap().is_empty());

    // A request that was let in before finds no user to give a bucket to.
    let late = CreateBucket {
        actor: fixture.actor.clone(),
        namespace: fixture.namespace,
        name: "late".to_owned(),
        object_lock: false,
        documents: Vec::new(),
        commit: CommitId::random(),
    };
    assert_eq!(fixture.service.create_bucket(late).await.unwrap_err(), MetadataError::NoSuchAccessKey);
    let again = fixture.service.ensure_principal(principal("main")).await.unwrap();
    assert_ne!(again.user, old.id, "another user under the same name");
}

#[tokio::test]
async fn a_bucket_made_during_its_owners_deletion_never_ends_up_without_an_owner() {
    for _ in 0..20 {
        let fixture = Fixture::new().await;
        let made = fixture.service.ensure_principal(principal("other")).await.unwrap();
        let create = CreateBucket {
            actor: actor(made.project, made.user),
            namespace: made.namespace,
            name: "raced".to_owned(),
            object_lock: false,
            documents: Vec::new(),
            commit: CommitId::random(),
        };
        let (bucket, user, key) = tokio::join!(
            fixture.service.create_bucket(create),
            fixture.drop_user("other"),
            fixture.service.create_access_key(new_key("other", "KEY-raced")),
        );
        match user {
            Ok(_) => {
                assert_eq!(bucket.unwrap_err(), MetadataError::NoSuchAccessKey);
                assert_eq!(fixture.grant("KEY-raced").await.unwrap_err(), MetadataError::NoSuchAccessKey);
                assert!(
                    key.is_ok() || key == Err(MetadataError::NoSuchUser) || key == Err(MetadataError::NoSuchAccessKey)
                );
            }
            Err(error) => {
                assert_eq!(error, PrincipalConflict::OwnsBuckets.into());
                assert!(bucket.is_ok());
            }
        }
    }
}

#[tokio::test]
async fn one_user_may_make_many_buckets_at_once() {
    let fixture = Fixture::new().await;
    let buckets = (0..100).map(|n| {
        let fixture = &fixture;
        async move { fixture.bucket(&format!("bucket-{n}"), false).await }
    });
    let made = futures_util::future::join_all(buckets).await;
    assert_eq!(made.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
}

#[tokio::test]
async fn users_are_listed_in_name_order_page_by_page() {
    let fixture = Fixture::new().await;
    for name in ["b", "a", "c"] {
        fixture.service.ensure_principal(principal(name)).await.unwrap();
    }
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = fixture.service.list_users(ListUsers { after: after.clone(), limit: 3 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.user.name.clone());
        names.extend(page.into_iter().map(|entry| entry.user.name));
    }
    assert_eq!(names, ["a", "b", "c", "main"]);
}

#[tokio::test]
async fn a_user_has_a_bounded_number_of_keys() {
    let fixture = Fixture::new().await;
    for n in 1..KEYS_PER_USER_MAX {
        fixture.service.create_access_key(new_key("main", &format!("KEY-{n}"))).await.unwrap();
    }
    let too_many = PrincipalConflict::TooManyKeys;
    assert_eq!(conflict(fixture.service.create_access_key(new_key("main", "KEY-more")).await), too_many);
    let more = EnsurePrincipal { access_key: id("KEY-more"), ..principal("main") };
    assert_eq!(conflict(fixture.service.ensure_principal(more).await), too_many);
    assert_eq!(fixture.described("main").await.keys.len(), KEYS_PER_USER_MAX);
    fixture.drop_user("main").await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_changes_nothing_about_the_outcome() {
    let fixture = Fixture::new().await;
    let lose = || fixture.store.lose_answers.store(1, Ordering::Relaxed);
    let create = new_key("main", "KEY-two");
    lose();
    fixture.service.create_access_key(create.clone()).await.unwrap();
    fixture.service.create_access_key(create).await.unwrap();
    let remove = DeleteAccessKey { id: id("KEY-two"), commit: CommitId::random() };
    lose();
    fixture.service.delete_access_key(remove.clone()).await.unwrap();
    fixture.service.delete_access_key(remove).await.unwrap();
    let remove = DeleteUser { user_name: "main".to_owned(), commit: CommitId::random() };
    lose();
    fixture.service.delete_user(remove.clone()).await.unwrap();
    fixture.service.delete_user(remove).await.unwrap();
}
